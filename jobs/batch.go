package jobs

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// batch takes some jobs of one sink from their stored events to recorded outcomes. One
// goroutine uses it, but for waiters, which the mutex of the owner's locks guards.
type batch struct {
	owner *owner
	conf  *Plan
	last  int64 // number of the config that conf is
	sink  *sinks.Sink
	lease ledger.Lease // that of the owner
	cache *cache       // of what is so, or of what would be
	jobs  []*job       // that this batch deals with: those whose records others work on are handed on

	records map[records.Key]*records.Record // copies, changed as we go
	works   []*records.Work                 // one for each record, in the order of the events
	workOf  map[*records.Record]*records.Work
	ends    map[records.Key]*records.Record // what links lead to, of records that this batch does not work on
	merges  []ledger.Merge                  // records that turned out to be one
	sought  []sought                        // ends of links that the plan wants looked up
	env     records.Env

	identities map[*records.Work][]records.Key           // of records that we did not know: see match.go
	would      map[*records.Delivery]*ledger.Observation // what it would have done, of a sink that observes

	intent   uuid.UUID     // the write intent of what we send; zero while there is none
	intended []records.Key // what it names
	sifted   bool          // for records that Postgres refuses
	sent     bool          // some request has been sent

	claimedKeys    []records.Key
	claimedRecords []uuid.UUID
	claimedIDs     []crmID
	waiters        []*job // of others, that wait for our records; guarded by locks.mu

	routes map[*records.Cause]*route
	spans  []*route // those that are exported, also of jobs that others work on by now
}

// route is an open route with what its mappings made of the event.
type route struct {
	*ledger.Route
	cause      *records.Cause
	deliveries []*records.Delivery
	made       map[address]*records.Delivery // of changes
	before     map[address]*ledger.Delivery  // what an earlier attempt has left
	skipped    []string                      // reasons of mappings that want nothing
	ended      ledger.Outcome                // decided without deliveries, or by them
	reason     string
	stays      bool            // stays open whatever its deliveries say
	erasure    *ledger.Erasure // of the event, which is about somebody who is forgotten
	place      tracing.Place   // where in the trace of the event the work on it belongs
	span       *tracing.Span   // of that work; nil where it is not exported
}

// address tells the deliveries of one route apart.
type address struct{ mapping, object, key string }

func newBatch(o *owner, plan *Plan, sink *sinks.Sink, jobs []*job) *batch {
	b := &batch{
		owner: o, conf: plan, last: plan.Generation, sink: sink, jobs: jobs,
		workOf: map[*records.Record]*records.Work{}, ends: map[records.Key]*records.Record{},
		routes: map[*records.Cause]*route{}, identities: map[*records.Work][]records.Key{},
	}
	b.lease, b.cache = o.lease, o.cache
	if b.observes() {
		b.lease.Shadow, b.cache = true, newCache() // another process may have them begin anew
		b.would = map[*records.Delivery]*ledger.Observation{}
	}
	b.env = records.Env{Can: target{sink}, GiveUp: o.giveUp, Neighbour: b.neighbour, Stub: b.stub, Seek: b.seek}
	if b.observes() {
		b.env.Can = observing{target{sink}}
	}
	return b
}

// run works the jobs. Each gets its answer, or has been handed to another batch.
func (b *batch) run(ctx context.Context) {
	defer b.endSpans()
	defer func() {
		if r := recover(); r != nil {
			// What a panic says may quote a payload.
			b.owner.log.Error("a worker panicked", "sink", b.owner.name, "type", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			b.keepOff(b.sink.Settle() + b.findLag())
			b.forget()
			b.answer(fmt.Errorf("sink %q: internal error", b.owner.name))
		}
	}()
	err := b.unshadow(ctx)
	if err == nil {
		err = b.load(ctx)
	}
	if err == nil {
		b.mapEvents()
		err = b.fold(ctx)
	}
	if err == nil {
		err = b.loop(ctx)
	}
	if err == nil {
		err = b.commit(ctx)
	}
	if err != nil {
		b.putBack(ctx, err)
		return
	}
	for _, j := range b.jobs {
		j.done <- j.result()
	}
	b.jobs = nil
}

// putBack sends everything back to the queue: the ledger cannot be reached, or the sink has
// another owner by now, which is nobody's failure.
func (b *batch) putBack(ctx context.Context, err error) {
	if ctx.Err() == nil {
		b.owner.log.Warn("a batch is put back", "sink", b.owner.name, "err", err)
	}
	b.keepOff(b.findLag())
	b.forget()
	b.answer(river.JobSnooze(2 * time.Second))
}

// keepOff keeps everybody off the records of a batch that could not be recorded, for a while:
// nobody remembers what it has made, and the CRM may show that late.
func (b *batch) keepOff(wait time.Duration) {
	for _, w := range b.works {
		if b.sent {
			w.Hold = max(w.Hold, wait)
		}
	}
}

// forget drops from memory the records that this batch may have changed in the ledger.
func (b *batch) forget() {
	for k, r := range b.records {
		b.cache.dropKeys(k)
		b.cache.drop(r.ID)
	}
}

func (b *batch) answer(err error) {
	for _, j := range b.jobs {
		j.done <- err
	}
	b.jobs = nil
}

// result is what River is told of a job.
func (j *job) result() error {
	open := slices.ContainsFunc(j.routes, func(r *route) bool { return r.ended == ledger.Open })
	switch {
	case !open:
		return nil
	case j.failure != nil:
		return j.failure
	default:
		return river.JobSnooze(max(j.retry, 0))
	}
}

// load reads the open routes of all jobs with one query.
func (b *batch) load(ctx context.Context) error {
	var events []uuid.UUID
	for _, j := range b.jobs {
		j.routes, j.retry, j.failure = nil, 0, nil
		events = append(events, j.events...)
	}
	routes, err := b.owner.ledger.Routes(ctx, b.owner.name, events)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(routes, func(r *ledger.Route) bool { return r.Generation > b.last }) {
		// Nobody reloads what is in force already, so a config that has come back has its first number here.
		if b.last, err = b.owner.ledger.Renumbered(ctx, b.conf.Generation); err != nil {
			return err
		}
	}
	byEvent := map[uuid.UUID][]*route{}
	for _, r := range routes {
		byEvent[r.Event] = append(byEvent[r.Event], b.open(r))
	}
	for _, j := range b.jobs {
		for _, e := range j.events {
			j.routes = append(j.routes, byEvent[e]...)
			delete(byEvent, e) // two jobs for one event: the first does it
		}
	}
	return nil
}

// open begins the work on a route, as a part of the trace of its event.
func (b *batch) open(stored *ledger.Route) *route {
	r := &route{Route: stored, made: map[address]*records.Delivery{}, before: map[address]*ledger.Delivery{}, cause: &records.Cause{
		Event: stored.Event, Run: stored.Run, Version: stored.Version, Source: stored.Source, Type: stored.Type,
		OccurredAt: stored.OccurredAt, ReceivedAt: stored.ReceivedAt, Rewrite: stored.Rewrite,
	}}
	for i := range r.Deliveries {
		d := &r.Deliveries[i]
		r.before[address{d.Mapping, d.Object, d.Key}] = d
	}
	b.routes[r.cause] = r
	t := b.owner.tracer
	r.place, r.span = t.Work(t.Place(r.Event, r.Trace), b.owner.name, r.Event)
	if r.span != nil {
		b.spans = append(b.spans, r)
	}
	return r
}

// endSpans ends the work on all routes that the batch has loaded. Those that others work on by
// now are open as far as this batch is concerned.
func (b *batch) endSpans() {
	for _, r := range b.spans {
		r.span.End(string(b.ended(r)))
	}
}

// mapEvents runs the mappings and hands on the jobs whose records others work on.
func (b *batch) mapEvents() {
	mine := b.jobs[:0]
	for _, j := range b.jobs {
		var keys []records.Key
		for _, r := range j.routes {
			b.mapRoute(j, r)
			for _, d := range r.deliveries {
				if d.Open() {
					keys = append(append(keys, d.Key), b.toMake(d)...)
				}
			}
		}
		if b.owner.locks.claimKeys(b, j, keys) {
			mine = append(mine, j)
		}
	}
	clear(b.jobs[len(mine):])
	b.jobs = mine
}

func (b *batch) mapRoute(j *job, r *route) {
	o := b.owner
	if named := o.tombstones.Cover([]byte(r.Entity)); r.Erased || named || o.tombstones.Cover(r.Body) {
		r.ended, r.reason = ledger.Skipped, ledger.ReasonErased
		r.erasure = &ledger.Erasure{Event: r.Event, Entity: named}
		return
	}
	if r.Generation > b.last {
		// Opened under a newer config than this process has loaded yet.
		r.stays, j.retry = true, max(j.retry, time.Second)
		return
	}
	source := b.conf.Sources[r.Source]
	if source == nil {
		r.ended, r.reason = ledger.Dead, fmt.Sprintf("the config has no source %q any more", r.Source)
		return
	}
	body, _, err := source.Shape(r.Type, r.Body)
	if err != nil {
		r.ended, r.reason = ledger.Dead, "the stored body cannot be read"
		return
	}
	outcomes := b.conf.Mappings.Run(o.name, &mappers.Event{
		ID: r.Event.String(), Source: r.Source, Type: r.Type, Entity: r.Entity,
		OccurredAt: r.OccurredAt, ReceivedAt: r.ReceivedAt, Body: body,
	})
	for _, out := range outcomes {
		if out.Failed != nil && out.Failed.Reason == mappers.Waits { // a table is not read yet
			r.stays, j.retry = true, max(j.retry, time.Second)
			return
		}
	}
	if len(outcomes) == 0 {
		r.skipped = append(r.skipped, "no mapping wants this event any more")
	}
	for _, out := range outcomes {
		for _, table := range out.Misses {
			o.metrics.lookupMisses.WithLabelValues(table).Inc()
		}
		if out.Skipped != "" {
			r.skipped = append(r.skipped, out.Mapping+": "+out.Skipped)
		}
		if out.Failed != nil {
			o.metrics.mappingErrors.WithLabelValues(out.Mapping, out.Failed.Reason).Inc()
			r.dies(&mappers.Change{Mapping: out.Mapping}, out.Failed.Message)
		}
		for i := range out.Changes {
			b.mapChange(r, &out.Changes[i])
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

func (b *batch) mapChange(r *route, change *mappers.Change) {
	if n := longestKey(change); n > maxKey {
		short := *change
		short.Key.Value = short.Key.Value[:min(len(short.Key.Value), maxKey)]
		r.dies(&short, fmt.Sprintf("a key of %d bytes is too long: %d are the most", n, maxKey))
		return
	}
	at := address{change.Mapping, change.Object, change.Key.Value}
	if d := r.made[at]; d != nil {
		d.Change = joined(d.Change, change)
		return
	}
	d := r.delivery(change)
	d.Key = records.Key{Object: change.Object, Property: change.Key.Property, Key: b.sink.Fold(change.Key.Property, change.Key.Value)}
	r.made[at] = d
}

// delivery returns the route's delivery of a change, with what an earlier attempt has left of it.
func (r *route) delivery(change *mappers.Change) *records.Delivery {
	d := &records.Delivery{Cause: r.cause, Change: change}
	if before := r.before[address{change.Mapping, change.Object, change.Key.Value}]; before != nil {
		d.Outcome, d.Attempts, d.FirstFailedAt, d.Repeat = before.Outcome, before.Attempts, before.FirstFailedAt, true
	}
	r.deliveries = append(r.deliveries, d)
	return d
}

// dies ends a change that cannot be sent.
func (r *route) dies(change *mappers.Change, reason string) {
	if d := r.delivery(change); d.Open() {
		d.Finish(ledger.Dead, "mapping", reason)
	}
}

// joined is one change that wants what first and then what second wants of a record.
func joined(first, second *mappers.Change) *mappers.Change {
	c := *first
	c.Fields = slices.DeleteFunc(slices.Clone(first.Fields), func(f mappers.Field) bool {
		return slices.ContainsFunc(second.Fields, func(g mappers.Field) bool { return g.Name == f.Name })
	})
	c.Fields = append(c.Fields, second.Fields...)
	c.Links = slices.Concat(first.Links, second.Links)
	c.Match = slices.Concat(first.Match, second.Match)
	return &c
}

// toMake are the records that a delivery's links want made where there are none.
func (b *batch) toMake(d *records.Delivery) []records.Key {
	var keys []records.Key
	for _, l := range d.Change.Links {
		if l.Missing == "create" && !l.Remove {
			keys = append(keys, b.linkKey(l))
		}
	}
	return keys
}

func (b *batch) linkKey(l mappers.Link) records.Key {
	return records.Key{Object: l.To, Property: l.Key.Property, Key: b.sink.Fold(l.Key.Property, l.Key.Value)}
}

// each calls f for the deliveries of the jobs.
func (b *batch) each(f func(*records.Delivery)) {
	for _, j := range b.jobs {
		for _, r := range j.routes {
			for _, d := range r.deliveries {
				f(d)
			}
		}
	}
}

// fold reads the records and lays the changes over their desired state.
func (b *batch) fold(ctx context.Context) error {
	b.each(func(d *records.Delivery) {
		if d.Cause.Run > 0 { // somebody may have had fields of its record doubted, for them to be sent again
			b.owner.cache.dropKeys(d.Key)
		}
	})
	var err error
	if b.records, err = b.read(ctx, b.claimedKeys); err != nil {
		return err
	}
	if err := b.claimRecords(ctx); err != nil {
		return err
	}
	b.each(func(d *records.Delivery) {
		if d.Open() {
			w := b.work(d.Key)
			w.Deliveries = append(w.Deliveries, d)
		}
	})
	for _, w := range slices.Clone(b.works) {
		w.Begin()
		b.identify(w)
	}
	b.each(func(d *records.Delivery) {
		if d.Open() {
			b.stubs(d)
		}
	})
	return nil
}

// work returns the work on the record that a key names, a new record where there is none yet.
func (b *batch) work(k records.Key) *records.Work {
	r := b.records[k]
	if r == nil {
		id, err := uuid.NewV7()
		if err != nil {
			panic(err) // the system has no randomness
		}
		r = records.New(id, k)
		b.records[k] = r
	}
	w := b.workOf[r]
	if w == nil {
		w = &records.Work{Record: r}
		b.workOf[r] = w
		b.works = append(b.works, w)
	}
	return w
}

// stubs plans the records that the links of a delivery want made where there are none.
func (b *batch) stubs(d *records.Delivery) {
	for _, wish := range d.Change.Links {
		l := b.workOf[b.records[d.Key]].Record.Links[records.LinkName(wish.To, wish.As, wish.Key.Property, wish.Key.Value)]
		if wish.Missing != "create" || l == nil || l.Need() != records.Make {
			continue
		}
		if r := b.records[b.targetKey(l)]; r == nil || r.Presence == records.Unknown {
			b.stub(d, l)
		}
	}
}

// stub has the record at the other end of a link made, with nothing but its key, for d to link
// to. It reports false where the batch may not make it.
func (b *batch) stub(d *records.Delivery, l *records.Link) bool {
	k := b.targetKey(l)
	if !slices.Contains(b.claimedKeys, k) {
		return false
	}
	if w := b.work(k); w.Stub() == nil {
		w.Deliveries = append(w.Deliveries, records.NewStub(d, l, k))
		b.identify(w)
	}
	return true
}

func (b *batch) targetKey(l *records.Link) records.Key {
	return records.Key{Object: l.To, Property: l.Property, Key: b.sink.Fold(l.Property, l.Key)}
}

// neighbour is what is known of the record that a link leads to, once that has been looked up.
func (b *batch) neighbour(l *records.Link) records.Neighbour {
	k := b.targetKey(l)
	r := b.records[k]
	if r == nil {
		r = b.ends[k]
	}
	if r == nil {
		return records.Neighbour{}
	}
	return records.Neighbour{Record: r, Work: b.workOf[r]}
}

// read returns records from memory and, for those not there, from the ledger.
func (b *batch) read(ctx context.Context, keys []records.Key) (map[records.Key]*records.Record, error) {
	have, lack := b.cache.get(keys)
	if len(lack) == 0 {
		return have, nil
	}
	stored, err := b.stored(ctx, lack)
	if err != nil {
		return nil, err
	}
	byID := map[uuid.UUID]*records.Record{}
	for _, r := range have {
		byID[r.ID] = r
	}
	for _, r := range b.records {
		byID[r.ID] = r
	}
	for k, r := range stored {
		if known := byID[r.ID]; known != nil {
			r = known // by another key
		}
		have[k] = r
	}
	return have, nil
}

// claimRecords hands on the jobs whose records others work on under another key. What may have
// changed under another key before it was ours is read again, and may be another record by then.
func (b *batch) claimRecords(ctx context.Context) error {
	for {
		mine := b.jobs[:0]
		for _, j := range b.jobs {
			if b.owner.locks.claimRecords(b, j, b.recordsOf(j)) && b.owner.locks.claimKeys(b, j, b.identitiesOf(j)) {
				mine = append(mine, j)
			}
		}
		clear(b.jobs[len(mine):])
		b.jobs = mine
		var merged []records.Key
		before := map[records.Key]uuid.UUID{}
		for k, r := range b.records {
			switch {
			case !b.owner.locks.holds(b, r.ID):
				delete(b.records, k) // of a job that was handed on
			case r.Merged:
				merged = append(merged, k)
				before[k] = r.ID
				delete(b.records, k)
			}
		}
		if len(merged) == 0 {
			return nil
		}
		again, err := b.read(ctx, merged)
		if err != nil {
			return err
		}
		stable := true
		for k, r := range again {
			b.records[k] = r
			stable = stable && (r.ID == before[k] || b.owner.locks.holds(b, r.ID))
		}
		if stable {
			return nil
		}
	}
}

// recordsOf are the stored records that a job's deliveries are about, or are to be linked to.
func (b *batch) recordsOf(j *job) []uuid.UUID {
	var ids []uuid.UUID
	for _, r := range j.routes {
		for _, d := range r.deliveries {
			if !d.Open() {
				continue
			}
			for _, k := range append(b.toMake(d), d.Key) {
				if r := b.records[k]; r != nil {
					ids = append(ids, r.ID)
				}
			}
		}
	}
	return ids
}

// close decides what a route has come to, and what its job has to do otherwise.
func (r *route) close(j *job) {
	if r.ended != ledger.Open || r.stays {
		return
	}
	first := map[ledger.Outcome]*records.Delivery{}
	for _, d := range r.deliveries {
		if d.Failing() {
			j.failure = errors.Join(j.failure, fmt.Errorf("%s: %s: %s", d.Change.Mapping, d.Class, d.Reason))
		} else if d.Open() {
			j.retry = max(j.retry, d.Retry())
		}
		if first[d.Outcome] == nil {
			first[d.Outcome] = d
		}
	}
	if first[ledger.Open] != nil {
		return
	}
	for _, o := range ledger.Outcomes {
		if d := first[o]; d != nil {
			r.ended, r.reason = o, d.Reason
			return
		}
	}
	r.ended = ledger.Skipped
	for i, why := range r.skipped {
		if i > 0 {
			r.reason += "; "
		}
		r.reason += why
	}
}
