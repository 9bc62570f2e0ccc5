package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/mappers"
	"partnersync/sinks"
)

// cycle takes some jobs of one sink through load, map, converge, send and record.
type cycle struct {
	owner *owner
	plan  *Plan
	sink  *sinks.Sink
	items []*item

	work      []*work                             // one per item that this cycle deals with
	records   map[ledger.RecordKey]*ledger.Record // copies, changed as we go
	claimed   []ledger.RecordKey                  // shut for other cycles until this one has ended
	busy      []uuid.UUID                         // records shut for other cycles, by whatever key
	heard     []crmID                             // ids of the CRM that this cycle has heard of, until it has recorded whose they are
	merges    []ledger.Merge                      // records that turned out to be one
	changed   map[ledger.RecordKey]bool           // records to store
	ambiguous map[ledger.RecordKey]time.Duration  // records whose last request may still take effect, and for how long
	sifted    bool                                // for records that Postgres refuses
	doubted   map[*ledger.Record]bool             // the ledger knows that requests for them are under way
	ends      map[ledger.RecordKey]*ledger.Record // what links lead to, of records that this cycle does not work on
	bare      map[ledger.RecordKey]*delivery      // records made only to be linked to
	waiters   []*item                             // items of others that wait for our records; guarded by owner.mu
	announced uuid.UUID                           // the announcement of what we send; zero while there is none
	spans     []*route                            // those that are exported, also of items that others work on by now
}

// work is what one job asks for.
type work struct {
	item   *item
	routes []*route
	wait   time.Duration // the job has to wait that long, uncounted
	failed error         // the job has failed, and that counts
}

// route is an open route with what its mappings made of the event.
type route struct {
	*ledger.Route
	deliveries []*delivery
	made       map[address]*delivery        // those with a change
	before     map[address]*ledger.Delivery // what an earlier attempt has left
	skipped    []string                     // reasons of mappings that want nothing
	ended      ledger.Outcome               // decided without deliveries
	reason     string
	held       bool            // stays open whatever its deliveries say
	erasure    *ledger.Erasure // of the event, which is about somebody who is forgotten
	place      tracing.Place   // where in the trace of the event the work on it belongs
	span       *tracing.Span   // of that work; nil where it is not exported
}

// address is what tells the deliveries of one route apart.
type address struct{ mapping, object, key string }

// delivery is one change on its way.
type delivery struct {
	ledger.Delivery
	route   *route
	change  *mappers.Change
	key     ledger.RecordKey
	record  *ledger.Record
	tally   tally
	rests   bool          // wants nothing now but what its links lead to, for when the record is made again
	wait    time.Duration // open, and to be tried again after that long
	counted bool          // open because of a failure that counts
	fresh   bool          // its row in the ledger has to be written
	again   bool          // an earlier attempt of this run has left its row
}

func (d *delivery) end(outcome ledger.Outcome, class sinks.Class, reason string) {
	d.Outcome, d.Class, d.Reason, d.fresh = outcome, string(class), reason, true
}

func (d *delivery) open() bool { return d.Outcome == ledger.Open }

func newCycle(o *owner, plan *Plan, sink *sinks.Sink, items []*item) *cycle {
	return &cycle{
		owner: o, plan: plan, sink: sink, items: items,
		changed: map[ledger.RecordKey]bool{}, ambiguous: map[ledger.RecordKey]time.Duration{}, bare: map[ledger.RecordKey]*delivery{},
		doubted: map[*ledger.Record]bool{}, ends: map[ledger.RecordKey]*ledger.Record{},
	}
}

// run works the items. Each gets its answer, or has been handed to another cycle.
func (c *cycle) run(ctx context.Context) {
	defer c.endSpans()
	defer func() {
		if r := recover(); r != nil {
			c.owner.log.Error("a worker panicked", "sink", c.owner.name, "panic", r)
			c.forget()
			c.answerAll(fmt.Errorf("sink %q: internal error", c.owner.name))
		}
	}()
	if err := c.load(ctx); err != nil {
		c.later(ctx, err)
		return
	}
	c.apply()
	if err := c.converge(ctx); err != nil {
		c.later(ctx, err)
		return
	}
	if err := c.send(ctx); err != nil {
		c.later(ctx, err)
		return
	}
	c.link(ctx)
	c.rest()
	if err := c.record(ctx); err != nil {
		c.later(ctx, err)
		return
	}
	for _, w := range c.work {
		w.item.done <- w.answer()
	}
	c.work = nil
}

// announce tells the ledger which records are about to be written, so that no
// other owner writes them at the same time, and stores the given ones as they are to
// be known should this process end before it can tell what came of the requests. It
// returns when these have to be over.
func (c *cycle) announce(ctx context.Context, doubtful []*ledger.Record) (time.Time, error) {
	var keys []ledger.RecordKey
	seen := map[ledger.RecordKey]bool{}
	add := func(d *delivery) {
		// Of those that have arrived links may still be made.
		if d.record != nil && (d.open() || d.Outcome == ledger.Delivered) && !seen[d.key] {
			seen[d.key] = true
			keys = append(keys, d.key)
			if d.record.Merged { // its other keys lead to it too
				keys = append(keys, ledger.KeyOf(d.record.ID))
			}
		}
	}
	c.each(add)
	for _, d := range c.bare {
		add(d)
	}
	if c.announced == uuid.Nil {
		id, err := uuid.NewV7()
		if err != nil {
			return time.Time{}, fmt.Errorf("make an id: %w", err)
		}
		c.announced = id
	}
	// A request that is refused as a whole is followed by others. The next owner may
	// have to look for a record that was made, which the CRM may show late.
	requests := 2 * c.sink.Timeout()
	hold := requests + c.sink.Settle() + c.sink.FindLag()
	for {
		over := time.Now().Add(requests)
		if err := c.owner.ledger.Announce(ctx, c.owner.right, c.announced, keys, hold, doubtful...); err != nil {
			return time.Time{}, err
		}
		for _, r := range doubtful {
			r.New = false
		}
		// A ledger that took so long has used up the time.
		if time.Until(over) > c.sink.Timeout() {
			return over, nil
		}
	}
}

// later sends everything back to the queue: the ledger cannot be reached, or the
// sink has another owner by now, which is nobody's failure.
func (c *cycle) later(ctx context.Context, err error) {
	if ctx.Err() == nil {
		c.owner.log.Warn("work has to wait", "sink", c.owner.name, "err", err)
	}
	c.forget()
	c.answerAll(river.JobSnooze(2 * time.Second))
}

// forget drops from memory the records that this cycle may have changed in the ledger.
func (c *cycle) forget() {
	var ids []uuid.UUID
	for k := range c.changed {
		if r := c.records[k]; r != nil {
			ids = append(ids, r.ID)
		}
	}
	c.owner.forget(slices.Collect(maps.Keys(c.changed)), ids)
}

func (c *cycle) answerAll(err error) {
	if c.work == nil {
		for _, it := range c.items {
			it.done <- err
		}
		return
	}
	for _, w := range c.work {
		w.item.done <- err
	}
	c.work = nil
}

func (w *work) answer() error {
	open := false
	for _, r := range w.routes {
		open = open || r.ended == ledger.Open
	}
	switch {
	case !open:
		return nil
	case w.failed != nil:
		return w.failed
	default:
		return river.JobSnooze(max(w.wait, 0))
	}
}

// load reads the open routes of all items with one query.
func (c *cycle) load(ctx context.Context) error {
	var events []uuid.UUID
	for _, it := range c.items {
		events = append(events, it.events...)
	}
	routes, err := c.owner.ledger.Routes(ctx, c.owner.name, events)
	if err != nil {
		return err
	}
	byEvent := map[uuid.UUID][]*route{}
	for _, r := range routes {
		byEvent[r.Event] = append(byEvent[r.Event], c.traced(r))
	}
	for _, it := range c.items {
		w := &work{item: it}
		for _, e := range it.events {
			w.routes = append(w.routes, byEvent[e]...)
			delete(byEvent, e) // two jobs for one event: the first does it
		}
		c.work = append(c.work, w)
	}
	return nil
}

func (c *cycle) each(f func(*delivery)) {
	for _, w := range c.work {
		for _, r := range w.routes {
			for _, d := range r.deliveries {
				f(d)
			}
		}
	}
}
