package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	Pool       *pgxpool.Pool
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	MaxWorkers int           // jobs at hand per sink; 0 means 400
	GiveUp     time.Duration // after the first failure that counts; 0 means 72 h
	SweepEvery time.Duration // 0 means 1 minute
	SweepAge   time.Duration // how old an open route must be; 0 means 2 minutes
	Silence    time.Duration // how long a sink may answer nobody before it is parked; 0 means 1 minute
	ProbeEvery time.Duration // pause before the first probe of a stopped sink; 0 means 5 seconds
}

const (
	fetchCooldown = 5 * time.Millisecond
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

	mu     sync.Mutex
	owners map[string]*owned
	tasks  sync.WaitGroup
	ctx    context.Context // of the owners; set by Run
}

type owned struct {
	*owner
	stopGate context.CancelFunc
}

// New returns workers. They need a plan, by Use, before Run.
func New(o Options) (*Workers, error) {
	o.MaxWorkers = defaulted(o.MaxWorkers, 400)
	o.GiveUp = defaulted(o.GiveUp, 72*time.Hour)
	o.SweepEvery = defaulted(o.SweepEvery, time.Minute)
	o.SweepAge = defaulted(o.SweepAge, 2*time.Minute)
	o.Silence = defaulted(o.Silence, time.Minute)
	o.ProbeEvery = defaulted(o.ProbeEvery, 5*time.Second)
	w := &Workers{options: o, ledger: ledger.New(o.Pool), metrics: newMetrics(o.Registerer), owners: map[string]*owned{}}
	registry := river.NewWorkers()
	if err := river.AddWorkerSafely(registry, &deliverWorker{workers: w}); err != nil {
		return nil, fmt.Errorf("register the worker: %w", err)
	}
	client, err := river.NewClient(riverpgxv5.New(o.Pool), &river.Config{
		// River takes queues that are added later only if it begins with one.
		Queues:               map[string]river.QueueConfig{"maintenance": {MaxWorkers: 1}},
		Workers:              registry,
		Logger:               riverLogger(o.Logger),
		FetchCooldown:        fetchCooldown,
		FetchPollInterval:    time.Second,
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

func defaulted[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Observer returns what the sinks of a plan tell the metrics; it is given to sinks.New.
func (w *Workers) Observer(sink string) sinks.Observer { return w.metrics.observer(sink) }

// Run works until ctx ends and the jobs under way have finished, or grace after
// that at the latest; then requests are cut short. Jobs that have not begun go
// back to the queue, and none of this burns an attempt.
func (w *Workers) Run(ctx context.Context, grace time.Duration) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	w.mu.Lock()
	w.ctx = hard
	err := w.followLocked(ctx, w.plan.Load())
	w.mu.Unlock()
	if err != nil {
		return err
	}
	if err := w.client.Start(hard); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	sweeping, stopSweeping := context.WithCancel(hard)
	w.tasks.Go(func() { w.sweep(sweeping) })

	<-ctx.Done()
	stopSweeping()
	timer := time.AfterFunc(grace, cut)
	defer timer.Stop()
	w.mu.Lock()
	for _, o := range w.owners {
		o.drain()
	}
	w.mu.Unlock()
	// River waits for its jobs, and they for our cycles, which end at the cut.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace+10*time.Second)
	defer cancel()
	err = w.client.Stop(stop)
	w.mu.Lock()
	for _, o := range w.owners {
		o.stopGate()
	}
	w.mu.Unlock()
	w.tasks.Wait()
	if err != nil {
		return fmt.Errorf("stop River: %w", err)
	}
	return nil
}

// Use replaces the plan. Sinks that are new get a queue; those that are gone lose theirs.
func (w *Workers) Use(ctx context.Context, plan *Plan) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	plan.hashes = map[string]string{}
	for _, m := range plan.Mappings.Mappings() {
		plan.hashes[m.Name] = m.Hash
	}
	w.metrics.declare(plan)
	w.plan.Store(plan)
	if w.ctx == nil {
		return nil
	}
	if err := w.followLocked(ctx, plan); err != nil {
		return err
	}
	for _, o := range w.owners {
		o.gate.hurry()
	}
	return nil
}

func (w *Workers) followLocked(ctx context.Context, plan *Plan) error {
	for name := range plan.Sinks {
		if w.owners[name] != nil {
			continue
		}
		queue := ledger.Queue(name)
		g := newGate(name, w.ledger, w.metrics, w.options.Logger)
		g.silence, g.firstProbe = w.options.Silence, w.options.ProbeEvery
		g.probe = func(ctx context.Context) sinks.Result {
			if s := w.plan.Load().Sinks[name]; s != nil {
				return s.Probe(ctx)
			}
			return sinks.Result{Class: sinks.Held}
		}
		g.pause = func(ctx context.Context) error { return ignoreMissing(w.client.QueuePause(ctx, queue, nil)) }
		g.resume = func(ctx context.Context) error { return ignoreMissing(w.client.QueueResume(ctx, queue, nil)) }
		if err := g.load(ctx); err != nil {
			return err
		}
		o := &owned{owner: newOwner(name, w.ledger, &w.plan, g, w.metrics, w.options.Logger, w.options.GiveUp)}
		gating, stop := context.WithCancel(w.ctx)
		o.stopGate = stop
		w.owners[name] = o
		w.tasks.Go(func() { o.run(w.ctx) })
		w.tasks.Go(func() { g.run(gating) })
		if err := w.client.Queues().Add(queue, river.QueueConfig{MaxWorkers: w.options.MaxWorkers}); err != nil {
			return fmt.Errorf("open the queue of sink %q: %w", name, err)
		}
	}
	// The owner of a sink that has left the config stays: it puts jobs back, and
	// the next start of the process does without it.
	return nil
}

// ignoreMissing: a queue that River does not know yet is neither paused nor to be resumed.
func ignoreMissing(err error) error {
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil
	}
	return err
}

func (w *Workers) ownerOf(sink string) *owned {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owners[sink]
}

// sweep queues the open routes that have lost their job.
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
	}
}

// deliverWorker hands River's jobs to the owner of their sink.
type deliverWorker struct {
	river.WorkerDefaults[DeliverArgs]
	workers *Workers
}

func (d *deliverWorker) Work(ctx context.Context, job *river.Job[DeliverArgs]) error {
	o := d.workers.ownerOf(job.Args.Sink)
	if o == nil {
		return river.JobSnooze(time.Minute)
	}
	return o.do(ctx, job.Args.EventIDs)
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

func (l leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{l.Handler.WithAttrs(attrs)}
}
func (l leveled) WithGroup(name string) slog.Handler { return leveled{l.Handler.WithGroup(name)} }
