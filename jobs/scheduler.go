package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/records"
	"partnersync/sinks"
)

// store is what an owner asks of the ledger.
type store interface {
	Routes(ctx context.Context, sink string, events []uuid.UUID) ([]*ledger.Route, error)
	Records(ctx context.Context, sink string, keys []records.Key) (map[records.Key]*records.Record, error)
	Met(ctx context.Context, sink, object string, crmIDs []string) (map[string]ledger.Met, error)
	Announce(ctx context.Context, lease ledger.Lease, id uuid.UUID, keys []records.Key, hold time.Duration, intended ...*records.Record) error
	Write(ctx context.Context, lease ledger.Lease, report *ledger.Report) error
	Account(ctx context.Context, sink, account string) (string, error)
	Renumbered(ctx context.Context, generation int64) (int64, error)
	Imagined(ctx context.Context, sink string, identities []records.Key) (map[records.Key]*records.Record, error)
	DropShadow(ctx context.Context, sink string) error
	Guard(ctx context.Context, sink string, more ledger.Guarded) error
}

// owner is the one component that works a sink: whatever must happen once per sink happens
// here. Its scheduler gathers the jobs at hand into batches, which run side by side.
type owner struct {
	// Set before run begins, and only read from then on.
	name    string
	lease   ledger.Lease
	ledger  store
	plan    *atomic.Pointer[Plan]
	log     *slog.Logger
	metrics *metrics
	breaker *breaker
	tracer  *tracing.Tracer // nil: no traces are exported
	giveUp  time.Duration   // a delivery is dead that long after its first counted failure

	tombstones *ledger.Tombstones // as of when the sink was taken; see ledger.Forget

	// Of all batches and of run; each is safe for concurrent use.
	probed atomic.Pointer[sinks.Sink] // the sink whose account has been looked at
	pace   pace
	guard  guard
	slots  slots
	locks  *locks
	cache  *cache

	shadowed atomic.Bool // there may be such records

	inbox    chan *job     // from the goroutines of River to run
	ended    chan *batch   // from the batches to run
	draining chan struct{} // closed when no batch is to begin any more
	drained  sync.Once
}

// job is one job of River in the hands of the owner. Whoever has taken it uses it: run, then one
// batch, then perhaps another. The goroutine of River only tries to take it, and waits for done.
type job struct {
	id      int64 // in River; 0: it has none
	events  []uuid.UUID
	arrived time.Time
	taken   atomic.Bool // by a batch, or by the job itself giving up
	waiting bool        // taken already, and handed to another batch to wait for
	done    chan error  // takes one value, once the job is taken

	routes  []*route // of the batch that has the job
	retry   time.Duration
	failure error // the job has failed, and that counts
}

// together is how long the jobs of one fetch take to come in, at most.
const together = 500 * time.Microsecond

// newOwner keeps off what a former owner may still be writing.
func newOwner(lease ledger.Lease, announced []ledger.Announcement, l store, plan *atomic.Pointer[Plan], b *breaker, m *metrics, log *slog.Logger, giveUp time.Duration) *owner {
	left := map[records.Key]time.Duration{}
	for _, a := range announced {
		for _, k := range a.Keys() {
			left[k] = max(left[k], a.Left)
		}
	}
	o := &owner{
		name: lease.Sink, lease: lease, ledger: l, plan: plan, breaker: b, metrics: m, log: log, giveUp: giveUp,
		locks: newLocks(), cache: newCache(),
		inbox: make(chan *job), ended: make(chan *batch), draining: make(chan struct{}),
	}
	o.shadowed.Store(true) // as far as this process knows
	o.locks.block(left)
	return o
}

// do works the open routes of events. It returns nil when they have ended, a snooze where they
// have to wait, and any other error for a failure that counts.
func (o *owner) do(ctx context.Context, id int64, events []uuid.UUID) error {
	if wait, stopped := o.breaker.stopped(); stopped {
		return river.JobSnooze(wait)
	}
	j := &job{id: id, events: events, arrived: time.Now(), done: make(chan error, 1)}
	select {
	case o.inbox <- j:
	case <-ctx.Done():
		return river.JobSnooze(0)
	case <-o.draining:
		return river.JobSnooze(0)
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
	case <-o.draining:
	}
	if j.taken.CompareAndSwap(false, true) {
		return river.JobSnooze(0) // nobody has begun with it
	}
	return <-j.done
}

// account looks, once for each config, whether the sink's credentials are of the account that
// it has been writing to. It returns the answer that stops the sink.
func (o *owner) account(ctx context.Context, s *sinks.Sink) *sinks.Result {
	if !s.Supports(sinks.WhoAmI) || o.probed.Load() == s {
		return nil
	}
	res := accountOf(ctx, o.ledger, s, s.Account)
	switch {
	case res.Class == sinks.OK:
		o.probed.Store(s)
		return nil
	case res.Class == sinks.Throttled, res.Class == sinks.Parked,
		res.Class == sinks.Held && (res.Code == "account" || res.Status == http.StatusUnauthorized):
		o.breaker.stop(res)
		return &res
	}
	pinned := s.Description().Account()
	if pinned == "" {
		return nil // not every credential may ask; the writes will tell
	}
	if res.Class == sinks.Held || res.Class == sinks.Rejected {
		res = sinks.Result{Class: sinks.Held, Code: "account", Message: fmt.Sprintf("the config allows account %s alone, and the CRM does not tell which the credentials are of: %s", pinned, reasonOf(res))}
		o.breaker.stop(res)
	}
	return &res // it is asked again before anything is sent
}

// drain lets batches under way finish and sends everything else back to the queue.
func (o *owner) drain() { o.drained.Do(func() { close(o.draining) }) }

// run gathers jobs into batches until drain; it returns when the last batch has ended. The end
// of ctx cuts requests short.
func (o *owner) run(ctx context.Context) {
	var pending []*job
	var tick <-chan time.Time
	draining := o.draining
	running := 0
	for {
		select {
		case j := <-o.inbox:
			pending = append(pending, j)
		case b := <-o.ended:
			running--
			pending = append(o.locks.release(b), pending...)
		case <-tick:
		case <-draining:
			draining = nil
		}
		for more := true; more; {
			select {
			case j := <-o.inbox:
				pending = append(pending, j)
			default:
				more = false
			}
		}
		if draining == nil {
			for _, j := range pending {
				j.putBack(0)
			}
			pending = nil
			if running == 0 {
				return
			}
		}
		pending, tick = o.begin(ctx, pending, &running)
	}
}

// putBack returns a job to the queue; only a job that no batch works on may be put back.
func (j *job) putBack(wait time.Duration) {
	j.taken.Store(true)
	j.done <- river.JobSnooze(wait)
}

// begin starts as many batches as the sink takes side by side. It returns the jobs left, and
// when to look at them again where they wait to fill a batch.
func (o *owner) begin(ctx context.Context, pending []*job, running *int) ([]*job, <-chan time.Time) {
	for len(pending) > 0 {
		plan := o.plan.Load()
		sink := plan.Sinks[o.name]
		if sink == nil {
			for _, j := range pending {
				j.putBack(time.Second) // taken out of the config, or renamed: nobody asks for jobs of this name any more
			}
			return nil, nil
		}
		full, most := o.pace.size(sink)
		if *running >= most {
			return pending, nil
		}
		// A batch begins when it is full, or after the sink's batch.wait; when nothing is under
		// way as soon as what River has fetched together is there.
		wait := sink.BatchWait()
		if *running == 0 {
			wait = min(wait/5, together)
		}
		if rest := wait - time.Since(pending[0].arrived); eventsOf(pending) < full && rest > 0 {
			return pending, time.After(rest)
		}
		var jobs []*job
		for events := 0; len(pending) > 0 && events < full; {
			if j := pending[0]; j.waiting || j.taken.CompareAndSwap(false, true) {
				jobs = append(jobs, j)
				events += len(j.events)
			}
			pending = pending[1:]
		}
		if len(jobs) == 0 {
			continue
		}
		*running++
		b := newBatch(o, plan, sink, jobs)
		go func() {
			b.run(ctx)
			o.ended <- b
		}()
	}
	return nil, nil
}

func eventsOf(jobs []*job) int {
	n := 0
	for _, j := range jobs {
		n += len(j.events)
	}
	return n
}

// pace measures how long the sink's requests take. Batches and the scheduler use it at once.
type pace struct{ mean atomic.Int64 }

// took notes the time of a request.
func (p *pace) took(d time.Duration) {
	mean := p.mean.Load()
	if mean == 0 {
		mean = int64(d)
	}
	p.mean.Store(mean + (int64(d)-mean)/8) // of concurrent notes one may be lost, which does no harm
}

const (
	batchTime   = 100 * time.Millisecond // that the requests of a batch should take
	batchEvents = 200                    // that a batch holds at most, unless one request takes more
)

// size is how many events a batch holds, and how many batches run side by side. A batch holds
// what its requests, side by side, carry in batchTime: where a request takes one row, it has to
// hold many events so that they share round trips to the ledger, and where the CRM is slow, few,
// so that none waits for its turn in vain.
func (p *pace) size(s *sinks.Sink) (events, batches int) {
	rows, slots := max(s.MaxRows(sinks.Upsert), 1), max(s.Concurrency(), 1)
	requests := 1
	if mean := time.Duration(p.mean.Load()); mean > 0 {
		requests = int(int64(slots) * int64(batchTime) / int64(mean))
	}
	requests = max(min(requests, batchEvents/rows), 1)
	if requests == 1 {
		return rows, slots
	}
	return rows * requests, max(slots/requests, 2)
}

// slots bound the requests of a sink that are on their way, over all its batches.
type slots struct {
	mu   sync.Mutex
	sink *sinks.Sink
	free chan struct{}
}

// of returns the slots of a sink; another config has others.
func (s *slots) of(sink *sinks.Sink) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink != sink {
		s.sink, s.free = sink, make(chan struct{}, max(sink.Concurrency(), 1))
	}
	return s.free
}
