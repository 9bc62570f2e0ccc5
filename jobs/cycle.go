package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
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
	changed   map[ledger.RecordKey]bool           // records to store
	ambiguous map[ledger.RecordKey]time.Duration  // records whose last request may still take effect, and for how long
	doubted   map[*ledger.Record]bool             // the ledger knows that requests for them are under way
	bare      map[ledger.RecordKey]*delivery      // records made only to be linked to
	waiters   []*item                             // items of others that wait for our records; guarded by owner.mu
	announced uuid.UUID                           // the announcement of what we send; zero while there is none
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
	skipped    []string       // reasons of mappings that want nothing
	ended      ledger.Outcome // decided without deliveries
	reason     string
	held       bool            // stays open whatever its deliveries say
	erasure    *ledger.Erasure // of the event, which is about somebody who is forgotten
}

// delivery is one change on its way.
type delivery struct {
	ledger.Delivery
	route   *route
	change  *mappers.Change
	key     ledger.RecordKey
	record  *ledger.Record
	tally   tally
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
		doubted: map[*ledger.Record]bool{},
	}
}

// run works the items. Each gets its answer, or has been handed to another cycle.
func (c *cycle) run(ctx context.Context) {
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
		if d.open() && !seen[d.key] {
			seen[d.key] = true
			keys = append(keys, d.key)
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
	lost := make(map[ledger.RecordKey]*ledger.Record, len(c.changed))
	for k := range c.changed {
		lost[k] = nil
	}
	c.owner.remember(lost)
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
		byEvent[r.Event] = append(byEvent[r.Event], &route{Route: r})
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

// apply runs the mappings and hands on the items whose records others work on.
func (c *cycle) apply() {
	mine := c.work[:0]
	for _, w := range c.work {
		var keys []ledger.RecordKey
		for _, r := range w.routes {
			c.mapRoute(w, r)
			for _, d := range r.deliveries {
				if d.open() {
					keys = append(keys, d.key)
					keys = append(keys, c.toMake(d)...)
				}
			}
		}
		if c.owner.claim(c, w.item, keys) {
			mine = append(mine, w)
		}
	}
	clear(c.work[len(mine):])
	c.work = mine
}

func (c *cycle) mapRoute(w *work, r *route) {
	if named := c.owner.tombstones.Cover([]byte(r.Entity)); r.Erased || named || c.owner.tombstones.Cover(r.Body) {
		r.ended, r.reason = ledger.Skipped, ledger.ReasonErased
		r.erasure = &ledger.Erasure{Event: r.Event, Entity: named}
		return
	}
	if r.Generation > c.plan.Generation {
		// Opened under a newer config than this process has loaded yet.
		r.held, w.wait = true, max(w.wait, time.Second)
		return
	}
	source := c.plan.Sources[r.Source]
	if source == nil {
		r.ended, r.reason = ledger.Dead, fmt.Sprintf("the config has no source %q any more", r.Source)
		return
	}
	body, _, err := source.Shape(r.Type, r.Body)
	if err != nil {
		r.ended, r.reason = ledger.Dead, "the stored body cannot be read"
		return
	}
	outcomes := c.plan.Mappings.Run(c.owner.name, &mappers.Event{
		ID: r.Event.String(), Source: r.Source, Type: r.Type, Entity: r.Entity,
		OccurredAt: r.OccurredAt, ReceivedAt: r.ReceivedAt, Body: body,
	})
	if len(outcomes) == 0 {
		r.skipped = append(r.skipped, "no mapping wants this event any more")
	}
	for _, o := range outcomes {
		for _, table := range o.Misses {
			c.owner.metrics.lookupMisses.WithLabelValues(table).Inc()
		}
		if o.Skipped != "" {
			r.skipped = append(r.skipped, o.Mapping+": "+o.Skipped)
		}
		if o.Failed != nil {
			c.owner.metrics.mappingErrors.WithLabelValues(o.Mapping, o.Failed.Reason).Inc()
			d := c.delivery(r, o.Mapping, "", "")
			if d.open() {
				d.end(ledger.Dead, "mapping", o.Failed.Message)
			}
		}
		for i := range o.Changes {
			change := &o.Changes[i]
			if n := longestKey(change); n > maxKey {
				d := c.delivery(r, o.Mapping, change.Object, change.Key.Value[:min(len(change.Key.Value), maxKey)])
				if d.open() {
					d.end(ledger.Dead, "mapping", fmt.Sprintf("a key of %d bytes is too long: %d are the most", n, maxKey))
				}
				continue
			}
			if d := r.find(o.Mapping, change); d != nil {
				d.change = joined(d.change, change)
				continue
			}
			d := c.delivery(r, o.Mapping, change.Object, change.Key.Value)
			d.change = change
			d.key = ledger.RecordKey{Object: change.Object, Property: change.Key.Property, Key: c.sink.Fold(change.Key.Property, change.Key.Value)}
		}
	}
}

// maxKey is the longest key in bytes; an index of Postgres takes little more.
const maxKey = 1000

func longestKey(c *mappers.Change) int {
	n := len(c.Key.Value)
	for _, l := range c.Links {
		n = max(n, len(l.Key.Value))
	}
	return n
}

// find returns the delivery that the mapping has made for the record of change already.
func (r *route) find(mapping string, change *mappers.Change) *delivery {
	for _, d := range r.deliveries {
		if d.Mapping == mapping && d.Object == change.Object && d.Key == change.Key.Value && d.change != nil {
			return d
		}
	}
	return nil
}

// joined is one change that wants what first and then what second wants of a record.
func joined(first, second *mappers.Change) *mappers.Change {
	c := *first
	c.Fields = slices.DeleteFunc(slices.Clone(first.Fields), func(f mappers.Field) bool {
		return slices.ContainsFunc(second.Fields, func(g mappers.Field) bool { return g.Name == f.Name })
	})
	c.Fields = append(c.Fields, second.Fields...)
	c.Links = slices.Concat(first.Links, second.Links)
	return &c
}

// delivery returns a route's delivery to a record, with what an earlier attempt has left of it.
func (c *cycle) delivery(r *route, mapping, object, key string) *delivery {
	d := &delivery{route: r, Delivery: ledger.Delivery{
		Event: r.Event, Run: r.Run, Mapping: mapping, MappingHash: c.plan.hashes[mapping], Object: object, Key: key,
	}}
	for _, before := range r.Deliveries {
		if before.Mapping == mapping && before.Object == object && before.Key == key {
			d.Outcome, d.Attempts, d.FirstFailedAt, d.again = before.Outcome, before.Attempts, before.FirstFailedAt, true
		}
	}
	r.deliveries = append(r.deliveries, d)
	return d
}

// converge folds the changes into the wanted state of their records.
func (c *cycle) converge(ctx context.Context) error {
	var err error
	if c.records, err = c.read(ctx, c.claimed); err != nil {
		return err
	}
	c.each(func(d *delivery) {
		if !d.open() {
			return
		}
		d.record = c.recordOf(d.key)
		if d.route.Rewrite && !d.again {
			rewrite(d.record, d.change, d.route.Version)
		}
		d.tally = fold(d.record, d.change, d.route.Version)
		c.changed[d.key] = true
		for _, k := range c.toMake(d) {
			c.make(d, k)
		}
	})
	c.each(func(d *delivery) {
		if d.open() {
			c.settle(d)
		}
	})
	return nil
}

// recordOf returns the record that a key names, a new one where there is none yet.
func (c *cycle) recordOf(k ledger.RecordKey) *ledger.Record {
	if r := c.records[k]; r != nil {
		return r
	}
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // the system has no randomness
	}
	r := &ledger.Record{
		ID: id, Object: k.Object, Property: k.Property, Key: k.Key, New: true,
		Presence: ledger.Unknown, Fields: map[string]*ledger.Field{}, Links: map[string]*ledger.Link{},
	}
	c.records[k] = r
	return r
}

// toMake are the records that a delivery's links want made where there are none.
func (c *cycle) toMake(d *delivery) []ledger.RecordKey {
	var keys []ledger.RecordKey
	if d.change == nil {
		return nil
	}
	for _, l := range d.change.Links {
		if l.Missing == "create" && !l.Remove {
			keys = append(keys, ledger.RecordKey{Object: l.To, Property: l.Key.Property, Key: c.sink.Fold(l.Key.Property, l.Key.Value)})
		}
	}
	return keys
}

// make plans a record with nothing but its key, for d to link to.
func (c *cycle) make(d *delivery, k ledger.RecordKey) {
	rec := c.recordOf(k)
	if rec.Presence != ledger.Unknown || c.bare[k] != nil {
		return
	}
	value := k.Key
	for _, l := range d.change.Links {
		if l.To == k.Object && l.Key.Property == k.Property && c.sink.Fold(k.Property, l.Key.Value) == k.Key {
			value = l.Key.Value
		}
	}
	c.changed[k] = true
	c.bare[k] = &delivery{
		Delivery: ledger.Delivery{Event: d.Event, Run: d.Run, Mapping: d.Mapping, Object: k.Object, Key: value},
		route:    d.route, key: k, record: rec,
		change: &mappers.Change{Mapping: d.Mapping, Object: k.Object, Mode: mappers.Upsert, Key: mappers.Key{Property: k.Property, Value: value}},
	}
}

// read returns records from memory and, for those not there, from the ledger.
func (c *cycle) read(ctx context.Context, keys []ledger.RecordKey) (map[ledger.RecordKey]*ledger.Record, error) {
	have, lack := c.owner.recall(keys)
	if len(lack) == 0 {
		return have, nil
	}
	stored, err := c.owner.ledger.Records(ctx, c.owner.name, "", lack)
	if err != nil {
		return nil, err
	}
	for k, r := range stored {
		have[k] = r
	}
	return have, nil
}

// settle ends the deliveries that need no request.
func (c *cycle) settle(d *delivery) {
	rec, mode := d.record, d.change.Mode
	d.CRMID = rec.CRMID
	switch {
	case mode == mappers.Archive:
		if rec.Presence == ledger.Gone {
			d.end(ledger.Unchanged, "", "archived already")
		}
		return
	case (mode == mappers.CreateOnly || mode == mappers.Append) && rec.Presence == ledger.Present && d.tally.acked == 0:
		refuseAll(rec, d.route.Version)
		d.end(ledger.Skipped, "", "the record is there already")
		return
	case rec.Presence == ledger.Gone:
		d.end(ledger.Skipped, "", "the record is gone from the CRM")
		return
	case rec.Presence == ledger.Unknown && d.tally.stale == 0:
		return // the record itself is what the CRM lacks
	}
	if contributes(rec, d.route.Version) {
		return
	}
	switch {
	case d.tally.acked > 0:
		d.end(ledger.Delivered, sinks.OK, "")
	case d.tally.pending > 0:
		d.end(ledger.Stale, "", "a newer event came before it was sent")
	case d.tally.stale > 0:
		d.end(ledger.Stale, "", "a newer event has decided every field")
	case d.tally.refused > 0:
		d.end(ledger.Unchanged, "", "the CRM has refused these values before")
	default:
		d.end(ledger.Unchanged, "", "")
	}
}

// refuseAll keeps what an event wants from ever being sent.
func refuseAll(rec *ledger.Record, version ledger.Version) {
	for _, f := range rec.Fields {
		if f.Version == version {
			f.Refused = true
		}
	}
	for _, l := range rec.Links {
		if l.Version == version {
			l.Done = true
		}
	}
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

// record stores what has become of everything, closes routes, and tells metrics and log.
func (c *cycle) record(ctx context.Context) error {
	report := c.report()
	for _, w := range c.work {
		for _, r := range w.routes {
			r.close(w)
			r.report(report)
		}
	}
	keep := make(map[ledger.RecordKey]*ledger.Record, len(c.changed))
	for k := range c.changed {
		rec := c.records[k]
		report.Records = append(report.Records, rec)
		keep[k] = rec
	}
	// What the CRM has taken must be written down even while we are stopping. While we
	// are not, there is no hurry: a statement that was given up could still be carried
	// out, on top of what is written down next.
	ctx, cancel := outlive(ctx, 15*time.Second)
	defer cancel()
	err := c.owner.ledger.Write(ctx, c.owner.right, "", report)
	if ledger.Refused(err) {
		c.owner.log.Error("Postgres refuses what became of some events", "sink", c.owner.name, "err", err)
		err = c.recordEach(ctx)
	}
	if err != nil {
		return err
	}
	for _, r := range keep {
		r.New = false
	}
	c.owner.remember(keep)
	c.tell()
	return nil
}

// report is one with nothing but the records that stay shut.
func (c *cycle) report() *ledger.Report {
	report := &ledger.Report{Announced: c.announced}
	for k, shut := range c.ambiguous {
		report.InDoubt = append(report.InDoubt, k)
		report.Settle = max(report.Settle, shut)
	}
	return report
}

// outlive returns a context that ends some time after ctx does.
func outlive(ctx context.Context, rest time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(rest, cancel) })
	return longer, func() { stop(); cancel() }
}

// recordEach stores what has become of the routes one by one, after Postgres has
// refused them together. The one that it will not have is dead: it would
// otherwise keep all others from ever being recorded.
func (c *cycle) recordEach(ctx context.Context) error {
	for _, w := range c.work {
		for _, r := range w.routes {
			report := c.report()
			r.report(report)
			for _, d := range r.deliveries {
				for _, k := range append(c.toMake(d), d.key) {
					if rec := c.records[k]; rec != nil && c.changed[k] && !slices.Contains(report.Records, rec) {
						report.Records = append(report.Records, rec)
					}
				}
			}
			err := c.owner.ledger.Write(ctx, c.owner.right, "", report)
			if ledger.Refused(err) {
				r.deliveries, r.ended, r.reason = nil, ledger.Dead, "Postgres refuses to store what became of it"
				report = &ledger.Report{}
				r.report(report)
				err = c.owner.ledger.Write(ctx, c.owner.right, "", report)
			}
			if err != nil {
				return err
			}
			for _, rec := range report.Records {
				rec.New = false
			}
		}
	}
	return nil
}

// report adds what is to be stored of a route.
func (r *route) report(report *ledger.Report) {
	for _, d := range r.deliveries {
		if d.fresh {
			report.Deliveries = append(report.Deliveries, d.Delivery)
		}
	}
	if r.ended != ledger.Open {
		report.Closings = append(report.Closings, ledger.Closing{Event: r.Event, Run: r.Run, Outcome: r.ended, Reason: r.reason})
	}
	if r.erasure != nil {
		report.Erasures = append(report.Erasures, *r.erasure)
	}
}

// close decides what a route has come to, and what its job has to do otherwise.
func (r *route) close(w *work) {
	if r.ended != ledger.Open || r.held {
		return
	}
	found := map[ledger.Outcome]*delivery{}
	for _, d := range r.deliveries {
		if d.open() {
			w.wait = max(w.wait, d.wait)
			if d.counted {
				w.failed = errors.Join(w.failed, fmt.Errorf("%s: %s: %s", d.Mapping, d.Class, d.Reason))
			}
		}
		if found[d.Outcome] == nil {
			found[d.Outcome] = d
		}
	}
	if found[ledger.Open] != nil {
		return
	}
	for _, o := range ledger.Outcomes {
		if d := found[o]; d != nil {
			r.ended, r.reason = o, d.Reason
			return
		}
	}
	r.ended, r.reason = ledger.Skipped, strings.Join(r.skipped, "; ")
}

// tell counts and logs the deliveries that have ended in this cycle.
func (c *cycle) tell() {
	m, log := c.owner.metrics, c.owner.log
	quiet := !log.Enabled(context.Background(), slog.LevelInfo)
	c.each(func(d *delivery) {
		if !d.fresh || d.open() {
			return
		}
		latency := time.Since(d.route.ReceivedAt)
		m.delivery(c.owner.name, d.Mapping, d.Outcome)
		switch d.Outcome {
		case ledger.Delivered:
			if d.Run == 0 { // a replay says nothing of how fast we are
				m.latency.WithLabelValues(c.owner.name).Observe(latency.Seconds())
			}
			m.last.WithLabelValues(c.owner.name).SetToCurrentTime()
		case ledger.Dead:
			m.deadLetters.WithLabelValues(c.owner.name, d.Mapping, d.Class).Inc()
		}
		if quiet {
			return
		}
		level := slog.LevelInfo
		if d.Outcome == ledger.Dead {
			level = slog.LevelWarn
		}
		log.LogAttrs(context.Background(), level, "delivery "+string(d.Outcome),
			slog.String("event", d.Event.String()), slog.String("type", d.route.Source+"."+d.route.Type), slog.String("sink", c.owner.name),
			slog.String("mapping", d.Mapping), slog.String("class", d.Class), slog.Int("attempt", int(d.Attempts)+1),
			slog.String("crm_id", d.CRMID), slog.String("reason", d.Reason), slog.Duration("dur", latency))
	})
	for _, w := range c.work {
		for _, r := range w.routes {
			if r.ended != ledger.Open {
				m.closed.WithLabelValues(c.owner.name, string(r.ended)).Inc()
			}
		}
	}
}
