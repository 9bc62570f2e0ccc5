package jobs

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// owner is the one component that works a sink: whatever must happen once per
// sink happens here. It gathers the jobs at hand into cycles and keeps two
// cycles from touching one record at the same time.
type owner struct {
	name    string
	right   ledger.Ownership
	ledger  *ledger.Ledger
	plan    *atomic.Pointer[Plan]
	log     *slog.Logger
	metrics *metrics
	gate    *gate
	giveUp  time.Duration // a delivery is dead that long after its first counted failure

	tombstones *ledger.Tombstones // as of when the sink was taken; see ledger.Forget

	probed atomic.Pointer[sinks.Sink] // the sink whose account has been looked at

	inbox    chan *item
	ended    chan *cycle
	draining chan struct{} // closed when no cycle is to begin any more
	drained  sync.Once

	mu    sync.Mutex
	held  map[ledger.RecordKey]*cycle // who works on a record; settling for one that nobody may touch yet
	cache map[ledger.RecordKey]*ledger.Record
}

// item is one job in the hands of the owner.
type item struct {
	events  []uuid.UUID
	arrived time.Time
	taken   atomic.Bool // by a cycle, or by its own job giving up
	waiting bool        // taken already, and handed to another cycle to wait for
	done    chan error  // takes one value, once the item is taken
}

// cached is how many records an owner keeps in memory, at some 3 kB each. Those that
// events come for again and again are few; the others cost a query that a whole cycle
// shares.
const cached = 2_000

// settling stands for the holder of a record whose last request may still take effect.
var settling = &cycle{}

func newOwner(right ledger.Ownership, l *ledger.Ledger, plan *atomic.Pointer[Plan], g *gate, m *metrics, log *slog.Logger, giveUp time.Duration) *owner {
	return &owner{
		name: right.Sink, right: right, ledger: l, plan: plan, gate: g, metrics: m, log: log, giveUp: giveUp,
		inbox: make(chan *item), ended: make(chan *cycle), draining: make(chan struct{}),
		held: map[ledger.RecordKey]*cycle{}, cache: map[ledger.RecordKey]*ledger.Record{},
	}
}

// do works the open routes of events. It returns nil when they have ended, a
// snooze where they have to wait, and any other error for a failure that counts.
func (o *owner) do(ctx context.Context, events []uuid.UUID) error {
	if wait, stopped := o.gate.stopped(); stopped {
		return river.JobSnooze(wait)
	}
	it := &item{events: events, arrived: time.Now(), done: make(chan error, 1)}
	select {
	case o.inbox <- it:
	case <-ctx.Done():
		return river.JobSnooze(0)
	case <-o.draining:
		return river.JobSnooze(0)
	}
	select {
	case err := <-it.done:
		return err
	case <-ctx.Done():
	case <-o.draining:
	}
	if it.taken.CompareAndSwap(false, true) {
		return river.JobSnooze(0) // nobody has begun with it
	}
	return <-it.done
}

// keepOff shuts records that a former owner may still be writing.
func (o *owner) keepOff(announced []ledger.Announcement) {
	left := map[ledger.RecordKey]time.Duration{}
	for _, a := range announced {
		for _, k := range a.Keys() {
			left[k] = max(left[k], a.Left)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, d := range left {
		o.held[k] = settling
		o.openAfter(d, k)
	}
}

// openAfter opens a record that settles when its time has come.
func (o *owner) openAfter(d time.Duration, k ledger.RecordKey) {
	time.AfterFunc(d, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.held, k)
	})
}

// account looks, once for each config, whether the sink's credentials are of the
// account that it has been writing to. It returns the answer that stops the sink.
func (o *owner) account(ctx context.Context, s *sinks.Sink) *sinks.Result {
	if !s.Supports(sinks.WhoAmI) || o.probed.Load() == s {
		return nil
	}
	res := accountOf(ctx, o.ledger, s)
	switch {
	case res.Class == sinks.OK:
		o.probed.Store(s)
		return nil
	case res.Class == sinks.Throttled, res.Class == sinks.Parked,
		res.Class == sinks.Held && (res.Code == "account" || res.Status == http.StatusUnauthorized):
		o.gate.stop(res)
		return &res
	}
	return nil // not every credential may ask; the writes will tell
}

// drain lets cycles under way finish and sends everything else back to the queue.
func (o *owner) drain() { o.drained.Do(func() { close(o.draining) }) }

// run gathers items into cycles until drain; it returns when the last cycle has
// ended. The end of ctx cuts requests short.
func (o *owner) run(ctx context.Context) {
	var pending []*item
	var tick <-chan time.Time
	draining := o.draining
	running := 0
	for {
		select {
		case it := <-o.inbox:
			pending = append(pending, it)
		case c := <-o.ended:
			running--
			pending = append(o.release(c), pending...)
		case <-tick:
		case <-draining:
			draining = nil
		}
		for more := true; more; {
			select {
			case it := <-o.inbox:
				pending = append(pending, it)
			default:
				more = false
			}
		}
		if draining == nil {
			for _, it := range pending {
				it.giveBack(0)
			}
			pending = nil
			if running == 0 {
				return
			}
		}
		pending, tick = o.begin(ctx, pending, &running)
	}
}

// giveBack returns an item to the queue; only an item that no cycle works on may be given back.
func (it *item) giveBack(wait time.Duration) {
	it.taken.Store(true)
	it.done <- river.JobSnooze(wait)
}

// begin starts as many cycles as the sink's concurrency allows. It returns the
// items left, and when to look at them again where they wait to fill a batch.
func (o *owner) begin(ctx context.Context, pending []*item, running *int) ([]*item, <-chan time.Time) {
	for len(pending) > 0 {
		plan := o.plan.Load()
		sink := plan.Sinks[o.name]
		if sink == nil {
			for _, it := range pending {
				it.giveBack(time.Minute) // taken out of the config; the routes stay open
			}
			return nil, nil
		}
		if *running >= max(sink.Concurrency(), 1) {
			return pending, nil
		}
		// A cycle begins at once when nothing is under way; beside another it waits
		// until it fills a request, but no longer than the sink's batch.wait.
		full := max(sink.MaxRows(sinks.Upsert), 1)
		if rest := sink.BatchWait() - time.Since(pending[0].arrived); *running > 0 && eventsOf(pending) < full && rest > 0 {
			return pending, time.After(rest)
		}
		var items []*item
		for events := 0; len(pending) > 0 && events < full; {
			if it := pending[0]; it.waiting || it.taken.CompareAndSwap(false, true) {
				items = append(items, it)
				events += len(it.events)
			}
			pending = pending[1:]
		}
		if len(items) == 0 {
			continue
		}
		*running++
		c := newCycle(o, plan, sink, items)
		go func() {
			c.run(ctx)
			o.ended <- c
		}()
	}
	return nil, nil
}

func eventsOf(items []*item) int {
	n := 0
	for _, it := range items {
		n += len(it.events)
	}
	return n
}

// claim takes the given records for c, all or none. Where another cycle works on
// one of them, it waits for that cycle with it, and claim returns false.
func (o *owner) claim(c *cycle, it *item, keys []ledger.RecordKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range keys {
		switch by := o.held[k]; by {
		case nil, c:
		case settling:
			it.giveBack(c.sink.Settle())
			return false
		default:
			it.waiting = true
			by.waiters = append(by.waiters, it)
			return false
		}
	}
	for _, k := range keys {
		o.held[k] = c
		c.claimed = append(c.claimed, k)
	}
	return true
}

// release opens the records of a cycle that has ended, those with an ambiguous
// result only when the sink has settled, and returns the items that waited for it.
func (o *owner) release(c *cycle) []*item {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range c.claimed {
		shut, ambiguous := c.ambiguous[k]
		if !ambiguous {
			delete(o.held, k)
			continue
		}
		o.held[k] = settling
		o.openAfter(shut, k)
	}
	return c.waiters
}

// recall returns the records that are in memory, as copies that may be changed,
// and the keys of the others.
func (o *owner) recall(keys []ledger.RecordKey) (map[ledger.RecordKey]*ledger.Record, []ledger.RecordKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	have := make(map[ledger.RecordKey]*ledger.Record, len(keys))
	var lack []ledger.RecordKey
	for _, k := range keys {
		if r := o.cache[k]; r != nil {
			have[k] = r.Clone()
		} else {
			lack = append(lack, k)
		}
	}
	return have, lack
}

// remember keeps records that have been stored; with a nil record it forgets.
func (o *owner) remember(records map[ledger.RecordKey]*ledger.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, r := range records {
		if r == nil {
			delete(o.cache, k)
			continue
		}
		for old := range o.cache {
			if len(o.cache) < cached {
				break
			}
			delete(o.cache, old)
		}
		o.cache[k] = r
	}
}
