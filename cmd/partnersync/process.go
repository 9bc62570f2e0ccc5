package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/internal/localpg"
	"partnersync/internal/pgstats"
	"partnersync/internal/tracing"
	"partnersync/jobs"
	"partnersync/migrations"
	"partnersync/receiver"
	"partnersync/receiver/spool"
	"partnersync/sinks"
)

// parts says which halves of partnersync a process runs.
type parts struct{ receive, work bool }

// process is a running partnersync: what `run` starts and `demo` and tests start too.
type process struct {
	parts    parts
	log      *slog.Logger
	reread   func() (*config.Config, diag.Problems)
	pg       *localpg.Server // nil where the config names a database
	pool     *pgxpool.Pool
	migrate  func(context.Context) error
	joined   chan struct{} // closed when Postgres has answered, and the schema is up to date
	away     string        // why it had not when the process began
	ledger   *ledger.Ledger
	tracer   *tracing.Tracer // nil: no traces are exported
	receiver *receiver.Receiver
	spool    *spool.Spool // nil without receiver.spool
	workers  *jobs.Workers
	registry *prometheus.Registry
	hooks    net.Listener // nil without receive
	admin    net.Listener
	grace    time.Duration
	ready    atomic.Bool
	names    atomic.Pointer[[]string] // of the sinks in the config in force
	known    atomic.Pointer[[]string] // these, and what they were called before

	mu         sync.Mutex // a reload at a time
	config     *config.Config
	pending    *config.Config // what a reload asked for while Postgres was away, which has to number it; nil mostly
	last       bool           // nothing has been asked for since
	late       chan struct{}  // tells that there is something pending
	plan       *jobs.Plan     // nil without work
	sinks      []*sinks.Sink
	reloaded   prometheus.Gauge
	loadedAt   prometheus.Gauge
	configInfo *prometheus.GaugeVec
	lacking    *prometheus.GaugeVec
	lacks      []looked      // what the CRMs lack of what the config in force names; nil: nobody has seen all of it yet
	look       chan struct{} // asks for a look

	lists       lists         // of CRMs, that tables have
	tablesAsked chan struct{} // other tables may be wanted
	tableRead   *prometheus.GaugeVec
	tableStale  *prometheus.GaugeVec
}

// newProcess connects everything; it listens, but serves only in run. reread
// reads the config again for a reload.
func newProcess(ctx context.Context, cfg *config.Config, reread func() (*config.Config, diag.Problems), what parts, log *slog.Logger) (_ *process, err error) {
	p := &process{parts: what, log: log, reread: reread, config: cfg, grace: cfg.Jobs.Grace, registry: prometheus.NewRegistry(), joined: make(chan struct{}), late: make(chan struct{}, 1), look: make(chan struct{}, 1),
		lists: lists{read: map[string]*crmList{}}, tablesAsked: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.admin, err = listen(cfg.Admin.Listen, "admin.listen"); err != nil {
		return nil, err
	}
	if what.receive {
		if p.hooks, err = listen(cfg.Receiver.Listen, "receiver.listen"); err != nil {
			return nil, err
		}
	}
	if err := p.openDatabase(ctx, cfg); err != nil {
		return nil, err
	}
	p.ledger = ledger.New(p.pool)
	p.register()
	t := cfg.Tracing
	p.tracer, err = tracing.New(tracing.Options{
		Endpoint: t.Endpoint, Headers: t.Headers, Sample: t.Sample, Service: t.Service, Version: versionText(), Logger: log,
	})
	if err != nil {
		return nil, usageError{err}
	}
	// Until join numbers the config, nothing of it is worked and nothing stored.
	if what.work {
		p.plan = &jobs.Plan{Sources: cfg.Sources, Mappings: cfg.Mappings, Tables: sortedKeys(cfg.Tables), Keep: cfg.Retention.Events}
		p.workers, err = jobs.New(jobs.Options{
			Pool: p.pool, Logger: log, Registerer: p.registry, Tracer: p.tracer, MaxWorkers: cfg.Jobs.MaxWorkers, GiveUp: cfg.Jobs.GiveUp, Maintain: time.Hour,
		})
		if err != nil {
			return nil, err
		}
		if p.plan.Sinks, err = p.openSinks(cfg); err != nil {
			return nil, err
		}
		p.workers.Use(p.plan)
	}
	if what.receive {
		options := receiver.Options{
			Ledger: p.ledger, Registerer: p.registry, Logger: log,
			EventsPerJob: cfg.Jobs.EventsPerJob, Flushers: cfg.Receiver.Flushers, MaxBytes: cfg.Receiver.MaxBytes, Tracer: p.tracer,
			Connections: cfg.Receiver.MaxConnections,
		}
		for _, network := range cfg.Receiver.Proxies {
			options.Proxies = append(options.Proxies, network.Prefix)
		}
		if dir := cfg.Receiver.Spool; dir != "" {
			p.spool, err = spool.Open(spool.Options{Dir: dir, MaxBytes: int64(cfg.Receiver.SpoolMax), Registerer: p.registry, Logger: log})
			if err != nil {
				return nil, usageError{err}
			}
			options.Spool = p.spool // only where there is one: a nil *Spool is no nil Spool
		}
		p.receiver = receiver.New(options, routing(cfg, 0))
	}
	if err := p.join(ctx); isAway(err) {
		p.waiting(err)
	} else if err != nil {
		return nil, err
	}
	p.noteConfig(cfg)
	return p, nil
}

func routing(cfg *config.Config, generation int64) receiver.Routing {
	return receiver.Routing{Generation: generation, Sources: cfg.Sources, Sinks: cfg.Mappings.Sinks}
}

func listen(address, key string) (net.Listener, error) {
	if _, port, err := net.SplitHostPort(address); err != nil || !isPort(port) {
		// Not what stands there: it may be a secret in the wrong place.
		return nil, usageError{fmt.Errorf("%s is no address to listen on: write host:port, such as 127.0.0.1:8081, or :8080 for all addresses", key)}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, usageError{fmt.Errorf("%s: cannot listen on %s: %v", key, address, err)}
	}
	return l, nil
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

func (p *process) openDatabase(ctx context.Context, cfg *config.Config) error {
	url := cfg.Database.URL.Reveal()
	if url == "" {
		var err error
		if p.pg, err = localpg.Start(ctx, localpg.Options{Dir: cfg.Database.Dir, Logger: p.log}); err != nil {
			return noPostgres(err)
		}
		url = p.pg.URL()
	}
	pc, err := poolConfig(url)
	if err != nil {
		return err
	}
	pc.MaxConns = int32(cfg.Database.MaxConnections)
	pc.AfterConnect = ledger.AfterConnect
	pc.ConnConfig.ConnectTimeout = min(pc.ConnConfig.ConnectTimeout, connectTimeout)
	if p.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	p.migrate = func(ctx context.Context) error { return migrations.Up(ctx, url) }
	return nil
}

func (p *process) openSinks(cfg *config.Config) (map[string]*sinks.Sink, error) {
	open := map[string]*sinks.Sink{}
	for name, d := range cfg.Sinks {
		options, err := p.sinkOptions(name, d, cfg)
		if err != nil {
			return nil, err
		}
		s := sinks.New(d, options)
		open[name] = s
		p.sinks = append(p.sinks, s)
	}
	return open, nil
}

func (p *process) sinkOptions(name string, d *sinks.Description, cfg *config.Config) (sinks.Options, error) {
	options := sinks.Options{Observer: p.workers.Observer(name)}
	options.Observer.Tokens = func(err error) { p.log.Warn("the tokens of the sink are not kept", "sink", name, "err", err) }
	store, err := newTokenStore(p.ledger, name, d.Formerly(), cfg.Database.TokenKey)
	if err != nil {
		return options, fmt.Errorf("database.token_key: %w", err)
	}
	if store != nil {
		options.Tokens = store // only where there is one: a nil *tokenStore is no nil TokenStore
	}
	return options, nil
}

func (p *process) register() {
	p.reloaded = prometheus.NewGauge(prometheus.GaugeOpts{Name: "partnersync_config_last_reload_successful", Help: "1 when the last reload of the config took effect."})
	p.loadedAt = prometheus.NewGauge(prometheus.GaugeOpts{Name: "partnersync_config_last_reload_success_timestamp_seconds", Help: "When the config in force was loaded."})
	p.configInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "partnersync_config_info", Help: "The config in force, by its hash."}, []string{"hash"})
	p.lacking = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "partnersync_config_live_errors", Help: "How many of the fields and options that mappings name the CRM lacks, or has otherwise."}, []string{"sink"})
	p.tableRead = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "partnersync_table_read_timestamp_seconds", Help: "When a table was last read from its CRM."}, []string{"table"})
	p.tableStale = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "partnersync_table_stale", Help: "1 where a table should have been read from its CRM long ago."}, []string{"table"})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "partnersync_build_info", Help: "The version that runs."}, []string{"version"})
	build.WithLabelValues(versionText()).Set(1)
	p.reloaded.Set(1)
	p.noteSinks(p.config)
	names := func() []string { return *p.names.Load() } // a reload that waits for Postgres holds up no scrape
	known := func() []string { return *p.known.Load() }
	p.registry.MustRegister(p.reloaded, p.loadedAt, p.configInfo, p.lacking, p.tableRead, p.tableStale, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		jobs.NewCollector(p.ledger, names, known), pgstats.New(pgstats.Options{Pool: p.pool, Sinks: names}))
}

func (p *process) noteSinks(cfg *config.Config) {
	names, known := sortedKeys(cfg.Sinks), cfg.SinkNames()
	p.names.Store(&names)
	p.known.Store(&known)
}

func (p *process) noteConfig(cfg *config.Config) {
	p.noteSinks(cfg)
	p.configInfo.Reset()
	p.configInfo.WithLabelValues(cfg.Hash).Set(1)
	p.loadedAt.SetToCurrentTime()
}

// reload takes the config file as it is now. A bad one changes nothing. It returns what a person
// should know of a good one. One for which a CRM lacks more than for the former is refused, unless it is forced.
func (p *process) reload(ctx context.Context, force bool) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.reloadLocked(ctx, force)
	p.last = isAway(err)
	if err != nil {
		p.reloaded.Set(0)
		p.log.Error("the config was not reloaded; the former one stays in force", "err", strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil, err
	}
	p.reloaded.Set(1)
	return p.tellOrphans(ctx), nil
}

// tellOrphans tells the log, and its caller, what waits for sinks that the config does not have.
func (p *process) tellOrphans(ctx context.Context) []string {
	if !p.hasJoined() {
		return nil // told as soon as Postgres answers
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	found, err := p.ledger.Orphans(ctx, *p.known.Load())
	if err != nil {
		p.log.Warn("cannot look for events of sinks that the config lacks", "err", err)
		return nil
	}
	told := orphanLines(found)
	for _, line := range told {
		p.log.Warn("the config lacks a sink that events wait for", "told", line)
	}
	return told
}

func (p *process) reloadLocked(ctx context.Context, force bool) error {
	cfg, problems := p.reread()
	if cfg == nil {
		return problems
	}
	if !force {
		if err := p.worse(ctx, cfg); err != nil {
			return err
		}
	}
	err := p.install(ctx, cfg)
	switch {
	case isAway(err):
		p.pending = cfg
		select {
		case p.late <- struct{}{}:
		default:
		}
		return awayError{fmt.Errorf("it takes effect once Postgres answers: %w", err)}
	case err == nil:
		p.pending = nil
	}
	return err
}

// install puts a config in force. The error is an awayError where that has to wait for Postgres.
func (p *process) install(ctx context.Context, cfg *config.Config) error {
	var generation int64 // 0 until join has it
	if p.hasJoined() {
		var err error
		if generation, err = p.number(ctx, cfg); err != nil {
			return err
		}
	}
	if !reflect.DeepEqual(cfg.Receiver, p.config.Receiver) || cfg.Admin != p.config.Admin || cfg.Database != p.config.Database || cfg.Jobs != p.config.Jobs || !reflect.DeepEqual(cfg.Tracing, p.config.Tracing) {
		p.log.Warn("changes of database, receiver, admin, jobs and tracing take effect at the next start only")
	}
	if p.workers != nil {
		former := p.sinks
		p.sinks = nil
		open, err := p.openSinks(cfg)
		if err != nil {
			return err
		}
		p.lists.fill(cfg)
		plan := &jobs.Plan{Generation: generation, Sources: cfg.Sources, Mappings: cfg.Mappings, Sinks: open, Tables: sortedKeys(cfg.Tables), Keep: cfg.Retention.Events}
		p.plan = plan
		p.workers.Use(plan)
		for _, s := range former {
			s.Close() // closes idle connections only; requests under way end by themselves
		}
	}
	if p.receiver != nil {
		p.receiver.Use(routing(cfg, generation))
	}
	changed := cfg.Hash != p.config.Hash
	p.config, p.lacks = cfg, nil
	p.askForLook()
	p.lists.expire()
	select {
	case p.tablesAsked <- struct{}{}:
	default:
	}
	p.noteConfig(cfg)
	p.log.Info("the config is in force", "hash", cfg.Hash, "generation", generation, "changed", changed)
	return nil
}

// run serves until ctx ends, then drains: ready goes false, nothing new is taken
// in, what has been begun is finished, within the grace.
func (p *process) run(ctx context.Context) error {
	failed := make(chan error, 5)
	var admin, hooks *http.Server
	var background sync.WaitGroup
	serve := func(l net.Listener, s *http.Server) *http.Server {
		s.ErrorLog = slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)
		background.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
		return s
	}
	admin = serve(p.admin, &http.Server{
		Handler: p.adminHandler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	})
	// Each part gets a context of its own, since they stop one after the other.
	receiving, stopReceiving := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReceiving()
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	var received, worked sync.WaitGroup
	background.Go(func() {
		if err := p.await(working); err != nil {
			failed <- err
		}
		p.catchUp(working)
	})
	if p.receiver != nil {
		received.Go(func() {
			if err := p.receiver.Run(receiving); err != nil {
				failed <- err
			}
		})
		hooks = serve(p.receiver.Limit(p.hooks), p.receiver.Server())
	}
	if p.workers != nil {
		worked.Go(func() {
			select {
			case <-p.joined:
			case <-working.Done():
				return
			}
			if err := p.workers.Run(working, p.grace); err != nil {
				failed <- err
			}
		})
		background.Go(func() { p.lookNowAndThen(working) })
		background.Go(func() { p.keepTables(working) })
	}
	p.ready.Store(true)
	p.log.Info("partnersync runs", "version", versionText(), "hooks", address(p.hooks), "admin", address(p.admin), "config", p.config.Hash)

	var err error
	select {
	case <-ctx.Done():
		p.log.Info("draining")
	case err = <-failed:
	case <-p.databaseGone():
		err = errors.New("the private Postgres has ended: see its log in the directory of database.dir")
	}
	p.ready.Store(false)
	stopWorking()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.grace)
	defer cancel()
	if hooks != nil {
		err = errors.Join(err, hooks.Shutdown(drain))
	}
	stopReceiving()
	received.Wait()
	worked.Wait()
	err = errors.Join(err, admin.Shutdown(drain))
	background.Wait()
	p.tracer.Shutdown(drain)
	select {
	case more := <-failed:
		err = errors.Join(err, more)
	default:
	}
	return err
}

func (p *process) databaseGone() <-chan struct{} {
	if p.pg == nil {
		return nil
	}
	return p.pg.Done()
}

func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// close frees what newProcess has taken, in the reverse order.
func (p *process) close() error {
	for _, l := range []net.Listener{p.hooks, p.admin} {
		if l != nil {
			_ = l.Close() // closed already where it has served
		}
	}
	for _, s := range p.sinks {
		s.Close()
	}
	if p.spool != nil {
		_ = p.spool.Close() // all of it is on disk
	}
	ended, end := context.WithCancel(context.Background())
	end()
	p.tracer.Shutdown(ended) // run has done so with time to spare
	if p.pool != nil {
		p.pool.Close()
	}
	if p.pg != nil {
		return p.pg.Stop()
	}
	return nil
}

func (p *process) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn)}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", p.serveReady)
	mux.HandleFunc("POST /-/reload", func(w http.ResponseWriter, r *http.Request) {
		told, err := p.reload(r.Context(), r.URL.Query().Get("force") == "1")
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		_, _ = io.WriteString(w, strings.Join(append([]string{"the config is in force"}, told...), "\n")+"\n")
	})
	return p.guard(ownPages(mux))
}

// guard asks for the admin token where one is set, and for a name of ours where none is. Probes need neither: they tell
// nothing.
func (p *process) guard(next http.Handler) http.Handler {
	isProbe := func(r *http.Request) bool { return r.URL.Path == "/livez" || r.URL.Path == "/readyz" }
	want := p.config.Admin.Token
	if want.Empty() {
		return ownNames(p.config.Admin.Listen, isProbe, next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, given, _ := r.BasicAuth()
		if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			given = bearer
		}
		if !isProbe(r) && subtle.ConstantTimeCompare([]byte(given), []byte(want.Reveal())) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="partnersync"`)
			http.Error(w, "the admin token is missing or wrong", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *process) serveReady(w http.ResponseWriter, r *http.Request) {
	if !p.ready.Load() {
		http.Error(w, "not ready: starting or draining", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	fault := ""
	switch {
	case !p.hasJoined() || p.ledger.Ping(ctx) != nil:
		fault = "Postgres does not answer"
	// Who is not ready may get no event whose commit would tell that it is again.
	case p.receiver != nil && p.receiver.Failing() && p.ledger.Rehearse(ctx) != nil:
		fault = "Postgres answers, but stores no event (the log says why)"
	}
	if fault != "" {
		if p.receiver != nil && p.receiver.Spools() {
			_, _ = io.WriteString(w, "ok: "+fault+", events go to the spool\n")
			return
		}
		http.Error(w, "not ready: "+fault, http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}
