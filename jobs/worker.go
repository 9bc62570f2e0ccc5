package jobs

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/mappers"
	"partnersync/receiver/sources"
	"partnersync/sinks"
)

// Plan is what workers need of a config; a reload replaces it as a whole.
type Plan struct {
	Generation int64
	Sources    map[string]*sources.Source
	Mappings   *mappers.Mapper
	Sinks      map[string]*sinks.Sink
	Tables     []string      // names of the tables that mappings look up
	Keep       time.Duration // how long events are kept; 0 is for ever

	hashes map[string]string // of the mappings, by name; set by Use
}

// DeliverArgs are the arguments of a job: which events to deliver to which sink.
type DeliverArgs struct {
	EventIDs []uuid.UUID `json:"event_ids"`
	Sink     string      `json:"sink"`
}

// Kind names the jobs in River.
func (DeliverArgs) Kind() string { return ledger.JobKind }

// Options configure workers.
type Options struct {
	ID         string // of the process, among all that work on the database; "" makes one
	Pool       *pgxpool.Pool
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Tracer     *tracing.Tracer // nil: no traces are exported
	MaxWorkers int             // jobs at hand per sink; 0: as many as fill its requests, at least 400
	GiveUp     time.Duration   // after the first failure that counts; 0 means 72 h
	PollEvery  time.Duration   // pause between looks for jobs that River was not notified of; 0 means 1 second
	SweepEvery time.Duration   // 0 means 1 minute
	SweepAge   time.Duration   // how old an open route must be; 0 means 2 minutes
	Silence    time.Duration   // how long a sink may answer nobody before it is parked; 0 means 1 minute
	ProbeEvery time.Duration   // pause before the first probe of a stopped sink; 0 means 5 seconds
	Maintain   time.Duration   // pause between rounds of maintenance, which one of the processes does; 0 means that there are none
}

const (
	fetchCooldown = 15 * time.Millisecond
	jobTimeout    = 5 * time.Minute
	sweepRoutes   = 2000
)

// Workers work the queues of all sinks of a plan.
type Workers struct {
	options Options
	ledger  *ledger.Ledger
	metrics *metrics
	client  *river.Client[pgx.Tx]
	plan    atomic.Pointer[Plan]

	id      string        // of this process, in the database
	changed chan struct{} // wakes keep: the plan has changed, or a renaming has ended

	inHand sync.Map // ids of the jobs that are being worked here

	// Only the goroutine of keep uses these, by the name of the sink.
	renaming map[string]*renaming
	barred   map[string]string // why it cannot be acquired, as it was logged last

	mu    sync.Mutex
	owned map[string]*tenure // by the name of the sink; guarded by mu
	tasks sync.WaitGroup
	soft  context.Context // ends when nothing new is to begin; set by Run
	hard  context.Context // ends when requests are to be cut short; set by Run
}

// New returns workers. They need a plan, by Use, before Run.
func New(o Options) (*Workers, error) {
	o.GiveUp = cmp.Or(o.GiveUp, 72*time.Hour)
	o.PollEvery = cmp.Or(o.PollEvery, time.Second)
	o.SweepEvery = cmp.Or(o.SweepEvery, time.Minute)
	o.SweepAge = cmp.Or(o.SweepAge, 2*time.Minute)
	o.Silence = cmp.Or(o.Silence, time.Minute)
	o.ProbeEvery = cmp.Or(o.ProbeEvery, 5*time.Second)
	o.ID = cmp.Or(o.ID, processID())
	w := &Workers{options: o, ledger: ledger.New(o.Pool), metrics: newMetrics(o.Registerer), id: o.ID, changed: make(chan struct{}, 1), owned: map[string]*tenure{}, renaming: map[string]*renaming{}, barred: map[string]string{}}
	registry := river.NewWorkers()
	if err := river.AddWorkerSafely(registry, &deliverWorker{workers: w}); err != nil {
		return nil, fmt.Errorf("register the worker: %w", err)
	}
	if err := river.AddWorkerSafely(registry, &maintainWorker{workers: w}); err != nil {
		return nil, fmt.Errorf("register the worker: %w", err)
	}
	client, err := river.NewClient(riverpgxv5.New(o.Pool), &river.Config{
		ID: o.ID, // so that the next owner of a sink knows whose jobs to end
		// River takes queues that are added later only if it begins with one.
		Queues:               map[string]river.QueueConfig{maintenance: {MaxWorkers: 1}},
		PeriodicJobs:         maintain(o.Maintain),
		Workers:              registry,
		Logger:               riverLogger(o.Logger),
		FetchCooldown:        fetchCooldown,
		FetchPollInterval:    o.PollEvery,
		JobTimeout:           jobTimeout,
		RescueStuckJobsAfter: jobTimeout + time.Minute,
		RetryPolicy:          retryPolicy{},
		MaxAttempts:          ledger.MaxAttempts,
	})
	if err != nil {
		return nil, fmt.Errorf("set up River: %w", err)
	}
	w.client = client
	return w, nil
}

// Observer returns what the sinks of a plan tell the metrics; it is given to sinks.New.
func (w *Workers) Observer(sink string) sinks.Observer { return w.metrics.observer(sink) }

// Run works until ctx ends and the jobs under way have finished, or grace after
// that at the latest; then requests are cut short. Jobs that have not begun go
// back to the queue, and none of this burns an attempt.
func (w *Workers) Run(ctx context.Context, grace time.Duration) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	w.soft, w.hard = ctx, hard
	if !w.startRiver(ctx, hard) {
		return nil
	}
	w.tasks.Go(func() { w.sweep(ctx) })
	w.tasks.Go(func() { w.keep(ctx) })

	<-ctx.Done()
	timer := time.AfterFunc(grace, cut)
	defer timer.Stop()
	for _, t := range w.tenures() {
		t.drain()
	}
	// River waits for its jobs, and they for our batches, which end at the cut.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace+10*time.Second)
	defer cancel()
	err := w.client.Stop(stop)
	w.tasks.Wait()
	if err != nil {
		return fmt.Errorf("stop River: %w", err)
	}
	return nil
}

// startRiver starts River as soon as Postgres lets it: one that goes away just then is
// waited for like one that goes away later. It reports whether River runs; not where ctx has ended before.
func (w *Workers) startRiver(ctx, hard context.Context) bool {
	told := ""
	for {
		err := w.client.Start(hard)
		if err == nil {
			return true
		}
		if told != err.Error() && ctx.Err() == nil {
			told = err.Error()
			w.options.Logger.Warn("River cannot start yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
		}
	}
}

// processID tells processes apart, also two of one host and those of yesterday.
func processID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%06x", host, os.Getpid(), rand.Uint32N(1<<24))
}

// Use replaces the plan. Sinks that are new are acquired, those that are gone are
// released, and sinks that wait for other credentials are probed.
func (w *Workers) Use(plan *Plan) {
	plan.hashes = map[string]string{}
	for _, m := range plan.Mappings.Mappings() {
		plan.hashes[m.Name] = m.Hash
	}
	w.metrics.declare(plan)
	w.plan.Store(plan)
	for _, t := range w.tenures() {
		t.breaker.probeNow()
	}
	w.wake()
}

// sweep queues the open routes that have lost their job, and the jobs that have lost their worker.
func (w *Workers) sweep(ctx context.Context) {
	cursors := map[string]ledger.Cursor{}
	ticker := time.NewTicker(w.options.SweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		lost := 0
		for name := range w.plan.Load().Sinks {
			if w.ownerOf(name) == nil {
				continue // its owner sweeps
			}
			if err := w.ledger.Reclaim(ctx, name, w.id, w.options.SweepAge, w.working()); err != nil && ctx.Err() == nil {
				w.options.Logger.Warn("jobs without a worker could not be queued again", "sink", name, "err", err)
			}
			w.moveStrays(ctx, name)
			n, next, err := w.ledger.Sweep(ctx, name, w.options.SweepAge, cursors[name], sweepRoutes)
			if err != nil {
				if ctx.Err() == nil {
					w.options.Logger.Warn("sweep failed", "sink", name, "err", err)
				}
				continue
			}
			cursors[name] = next
			lost += n
			w.metrics.requeued.WithLabelValues(name).Add(float64(n))
			if n > 0 {
				w.options.Logger.Warn("routes without a job have been queued again", "sink", name, "routes", n)
			}
		}
		w.metrics.unaccounted.Set(float64(lost))
		if err := w.ledger.RollUp(ctx); err != nil && ctx.Err() == nil {
			w.options.Logger.Warn("the tallies could not be rolled up", "err", err)
		}
	}
}

// working are the ids of the jobs in hand.
func (w *Workers) working() []int64 {
	var ids []int64
	w.inHand.Range(func(id, _ any) bool {
		ids = append(ids, id.(int64))
		return true
	})
	return ids
}

// deliverWorker hands River's jobs to the owner of their sink.
type deliverWorker struct {
	river.WorkerDefaults[DeliverArgs]
	workers *Workers
}

func (d *deliverWorker) Work(ctx context.Context, job *river.Job[DeliverArgs]) error {
	o := d.workers.ownerOf(job.Args.Sink)
	if o == nil {
		return river.JobSnooze(time.Second) // for whoever owns the sink
	}
	d.workers.inHand.Store(job.ID, true)
	defer d.workers.inHand.Delete(job.ID)
	return o.do(ctx, job.ID, job.Args.EventIDs)
}

// retryPolicy backs off to an hour; the attempts that River counts are those of
// failures that count, since everything else snoozes.
type retryPolicy struct{}

func (retryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	wait := time.Hour
	if n := len(job.Errors); n < 12 {
		wait = time.Second << n
	}
	return time.Now().Add(wait*9/10 + rand.N(wait/5))
}

// riverLogger keeps River's own chatter to warnings.
func riverLogger(log *slog.Logger) *slog.Logger {
	return slog.New(leveled{log.Handler()})
}

type leveled struct{ slog.Handler }

func (l leveled) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && l.Handler.Enabled(ctx, level)
}

// Handle lowers what River's elector says of a database that does not answer: the next
// attempt follows, metrics and /readyz tell of the database.
func (l leveled) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError && electing(r.Message) {
		if !l.Handler.Enabled(ctx, slog.LevelDebug) {
			return nil
		}
		r.Level = slog.LevelDebug
	}
	return l.Handler.Handle(ctx, r)
}

func electing(message string) bool {
	for _, end := range []string{"Error attempting to elect", "Error keeping leadership", "Error attempting reelection", "Error attempting to resign"} {
		if strings.HasSuffix(message, end) {
			return true
		}
	}
	return false
}

func (l leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{l.Handler.WithAttrs(attrs)}
}
func (l leveled) WithGroup(name string) slog.Handler { return leveled{l.Handler.WithGroup(name)} }
