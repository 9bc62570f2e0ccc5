package jobs

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
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
	tracer  *tracing.Tracer // nil: no traces are exported
	giveUp  time.Duration   // a delivery is dead that long after its first counted failure

	tombstones *ledger.Tombstones // as of when the sink was taken; see ledger.Forget

	probed atomic.Pointer[sinks.Sink] // the sink whose account has been looked at

	inbox    chan *item
	ended    chan *cycle
	draining chan struct{} // closed when no cycle is to begin any more
	drained  sync.Once

	mu    sync.Mutex
	held  map[ledger.RecordKey]*cycle // who works on what a key names; settling for what nobody may touch yet
	busy  map[uuid.UUID]*cycle        // who works on a record, by whatever key of it
	heard map[crmID]*cycle            // who has heard of a record by the CRM's id, which the ledger may not know yet
	lent  map[crmID]time.Time         // ids that the CRM has named for a record which it did not make just then
	ids   map[ledger.RecordKey]uuid.UUID
	cache map[uuid.UUID]*kept
}

// kept is a record in memory, with the keys by which it is found there.
type kept struct {
	record *ledger.Record
	keys   []ledger.RecordKey
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

// together is how long the jobs of one fetch take to come in, at most.
const together = 500 * time.Microsecond

// settling stands for the holder of a record whose last request may still take effect.
var settling = &cycle{}

func newOwner(right ledger.Ownership, l *ledger.Ledger, plan *atomic.Pointer[Plan], g *gate, m *metrics, log *slog.Logger, giveUp time.Duration) *owner {
	return &owner{
		name: right.Sink, right: right, ledger: l, plan: plan, gate: g, metrics: m, log: log, giveUp: giveUp,
		inbox: make(chan *item), ended: make(chan *cycle), draining: make(chan struct{}),
		held: map[ledger.RecordKey]*cycle{}, busy: map[uuid.UUID]*cycle{}, heard: map[crmID]*cycle{}, lent: map[crmID]time.Time{},
		ids: map[ledger.RecordKey]uuid.UUID{}, cache: map[uuid.UUID]*kept{},
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
		o.shut(k, d)
	}
}

// shut keeps everybody off a record for a while, by its key or by all of them (see ledger.KeyOf).
func (o *owner) shut(k ledger.RecordKey, d time.Duration) {
	id, whole := k.Record()
	if whole {
		o.busy[id] = settling
	} else {
		o.held[k] = settling
	}
	time.AfterFunc(d, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if whole {
			delete(o.busy, id)
		} else {
			delete(o.held, k)
		}
	})
}

// account looks, once for each config, whether the sink's credentials are of the
// account that it has been writing to. It returns the answer that stops the sink.
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
		// A cycle begins when it fills a request, or after the sink's batch.wait; when nothing is
		// under way as soon as what River has fetched together is there.
		full := max(sink.MaxRows(sinks.Upsert), 1)
		wait := sink.BatchWait()
		if *running == 0 {
			wait = min(wait/5, together)
		}
		if rest := wait - time.Since(pending[0].arrived); eventsOf(pending) < full && rest > 0 {
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
	if !claim(o.held, c, it, keys) {
		return false
	}
	c.claimed = append(c.claimed, keys...)
	return true
}

func claim[K comparable](held map[K]*cycle, c *cycle, it *item, all []K) bool {
	for _, k := range all {
		switch by := held[k]; by {
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
	for _, k := range all {
		held[k] = c
	}
	return true
}

// claimRecords takes the given records for c, all or none, after their keys: two keys may name
// one record. Where another cycle works on one of them the item waits, as with claim.
func (o *owner) claimRecords(c *cycle, it *item, ids []uuid.UUID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !claim(o.busy, c, it, ids) {
		return false
	}
	c.busy = append(c.busy, ids...)
	return true
}

// claimedBy reports whether c has the record.
func (o *owner) claimedBy(c *cycle, id uuid.UUID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.busy[id] == c
}

// claimMet takes a record that c has come upon, unless another cycle works on it or is about to.
func (o *owner) claimMet(c *cycle, met ledger.Met) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if by := o.busy[met.ID]; by != nil && by != c {
		return false
	}
	for _, k := range met.Keys {
		if by := o.held[k]; by != nil && by != c {
			return false
		}
	}
	o.busy[met.ID] = c
	c.busy = append(c.busy, met.ID)
	for _, k := range met.Keys {
		o.held[k] = c
		c.claimed = append(c.claimed, k)
	}
	return true
}

// lately is how long the answer to a create may be on its way while others hear of the record.
const lately = 10 * time.Minute

// claimID takes an id of the CRM's that c has heard of, until c has recorded whose it is. It
// reports mine false where another cycle is about to record that, and known where the ledger may
// have it from another record: not that of one which was only just made, unless its answer
// was so late that others have met it.
func (o *owner) claimID(c *cycle, id crmID, created bool) (mine, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if by := o.heard[id]; by != nil && by != c {
		return false, true
	}
	o.heard[id] = c
	c.heard = append(c.heard, id)
	_, known = o.lent[id]
	if !created {
		if len(o.lent) >= cached {
			maps.DeleteFunc(o.lent, func(_ crmID, at time.Time) bool { return time.Since(at) > lately })
			if len(o.lent) >= cached {
				clear(o.lent) // rather forget some than grow without end
			}
		}
		o.lent[id], known = time.Now(), true
	}
	return true, known
}

// release opens the records of a cycle that has ended, those with an ambiguous
// result only when the sink has settled, and returns the items that waited for it.
func (o *owner) release(c *cycle) []*item {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range c.claimed {
		delete(o.held, k)
	}
	for _, id := range c.busy {
		delete(o.busy, id)
	}
	for _, id := range c.heard {
		delete(o.heard, id)
	}
	// Once each: what two keys name would be opened when the first of them is.
	left := maps.Clone(c.ambiguous)
	for k, d := range c.ambiguous {
		if r := c.records[k]; r != nil {
			whole := ledger.KeyOf(r.ID)
			left[whole] = max(left[whole], d)
		}
	}
	for k, d := range left {
		o.shut(k, d)
	}
	return c.waiters
}

// recall returns the records that are in memory, as copies that may be changed,
// and the keys of the others. Keys of one record lead to one copy.
func (o *owner) recall(keys []ledger.RecordKey) (map[ledger.RecordKey]*ledger.Record, []ledger.RecordKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	have := make(map[ledger.RecordKey]*ledger.Record, len(keys))
	var lack []ledger.RecordKey
	copies := make(map[uuid.UUID]*ledger.Record, len(keys))
	for _, k := range keys {
		in := o.cache[o.ids[k]]
		if in == nil {
			lack = append(lack, k)
			continue
		}
		if copies[in.record.ID] == nil {
			copies[in.record.ID] = in.record.Clone()
		}
		have[k] = copies[in.record.ID]
	}
	return have, lack
}

// remember keeps records that have been stored.
func (o *owner) remember(records map[ledger.RecordKey]*ledger.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, r := range records {
		if id, known := o.ids[k]; known && id != r.ID {
			o.drop(id)
		}
		in := o.cache[r.ID]
		if in == nil {
			for old := range o.cache {
				if len(o.cache) < cached {
					break
				}
				o.drop(old)
			}
			in = &kept{}
			o.cache[r.ID] = in
		}
		in.record = r
		if !slices.Contains(in.keys, k) {
			in.keys = append(in.keys, k)
		}
		o.ids[k] = r.ID
	}
}

// forget drops records from memory, by key and by what they are.
func (o *owner) forget(keys []ledger.RecordKey, ids []uuid.UUID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range keys {
		o.drop(o.ids[k])
	}
	for _, id := range ids {
		o.drop(id)
	}
}

func (o *owner) drop(id uuid.UUID) {
	if in := o.cache[id]; in != nil {
		for _, k := range in.keys {
			delete(o.ids, k)
		}
		delete(o.cache, id)
	}
}
