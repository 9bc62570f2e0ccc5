package jobs

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/records"
	"partnersync/sinks"
)

// rounds bounds the loop of a batch. The rules try each remedy once for a record, so that only
// a fault of theirs reaches it.
const rounds = 100

// loop takes the records of the batch to their desired state: plan, announce, send, apply,
// until nothing is left or everything has to wait. An error means that nothing was sent.
func (b *batch) loop(ctx context.Context) error {
	for range rounds {
		if more, err := b.round(ctx); !more || err != nil {
			return err
		}
	}
	b.owner.log.Error("a batch does not come to an end", "sink", b.owner.name, "works", len(b.works))
	return nil
}

// round is one turn of the loop. It reports whether another may follow.
func (b *batch) round(ctx context.Context) (more bool, _ error) {
	b.env.Now = time.Now()
	if err := b.seeEnds(ctx); err != nil {
		return false, b.give(err)
	}
	b.twins()
	steps := b.plan()
	if len(steps) == 0 && b.twins() { // who had to wait need not any more
		steps = b.plan()
	}
	steps = append(steps, b.seekEnds(ctx)...)
	if len(steps) == 0 {
		return false, nil
	}
	if !b.sent {
		if no := b.owner.account(ctx, b.sink); no != nil {
			b.applyAll(steps, b.owner.answerOf(*no, true))
			return true, nil
		}
	}
	steps, err := b.guarded(ctx, steps)
	if err != nil {
		return false, b.give(err)
	}
	if len(steps) == 0 {
		return true, nil
	}
	counted := countsOf(steps)
	until, err := b.announce(ctx, steps)
	if err != nil {
		b.recount(ctx, counted, make([]sinks.Result, len(steps))) // none is sent
	}
	if ledger.Refused(err) && !b.sifted {
		b.sifted = true
		b.sift(ctx, steps)
		return true, nil
	}
	if err != nil {
		return false, b.give(err)
	}
	b.sent = true
	sending, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	results := b.carryOut(sending, steps)
	b.recount(ctx, counted, results)
	if pause := b.apply(sending, steps, results); pause > 0 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return true, nil
}

// give puts everything off that is still ready, if something was sent: what became of that has
// to be recorded. Else the batch as a whole is put back.
func (b *batch) give(err error) error {
	if !b.sent || errors.Is(err, ledger.ErrFenced) {
		return err
	}
	for _, w := range b.works {
		w.PutOff(string(sinks.Network), "the ledger cannot be reached", 2*time.Second)
	}
	return nil
}

// plan asks each record for its next step. Links come after the rows, since they need the ids
// that those bring.
func (b *batch) plan() []*records.Step {
	for range 3 { // a link may have a record made
		for _, env := range []struct{ links, force bool }{{}, {force: true}, {links: true}} {
			b.env.Links, b.env.Force = env.links, env.force
			if env.force && !b.env.Held {
				continue
			}
			b.env.Held = false
			var steps []*records.Step
			for i := 0; i < len(b.works); i++ { // planning a link may add one
				steps = append(steps, b.works[i].Next(&b.env)...)
			}
			if len(steps) > 0 || len(b.sought) > 0 {
				return steps
			}
		}
		if !slices.ContainsFunc(b.works, (*records.Work).Makes) {
			return nil
		}
	}
	return nil
}

// seeEnds reads what is known of the records that links of the batch lead to.
func (b *batch) seeEnds(ctx context.Context) error {
	var lack []records.Key
	for _, w := range b.works {
		for _, l := range w.Record.Links {
			if l.Need() == records.Nothing {
				continue
			}
			k := b.targetKey(l)
			if _, known := b.ends[k]; !known && b.records[k] == nil {
				b.ends[k] = nil
				lack = append(lack, k)
			}
		}
	}
	if len(lack) == 0 {
		return nil
	}
	found, err := b.read(ctx, lack)
	for _, k := range lack {
		if b.ends[k] = found[k]; err != nil {
			delete(b.ends, k)
		}
	}
	return err
}

// announce is the only place where the ledger learns what is about to be sent: it checks the
// fence, stores the write intent, so that no other owner writes the same records at the same
// time, and stores in doubt what the steps may change, should this process end before it can
// tell what came of them. It returns when the requests have to be over.
func (b *batch) announce(ctx context.Context, steps []*records.Step) (time.Time, error) {
	if b.observes() {
		// Nothing is written, so nothing can take effect later: what is not recorded is found out once more.
		return time.Now().Add(2 * b.sink.Timeout()), nil
	}
	if b.intent == uuid.Nil {
		id, err := uuid.NewV7()
		if err != nil {
			return time.Time{}, fmt.Errorf("make an id: %w", err)
		}
		b.intent = id
	}
	var intended []*records.Record
	var works []*records.Work
	for _, s := range steps {
		if r := s.Work.Intend(s, b.env.Can); r != nil {
			intended, works = append(intended, r), append(works, s.Work)
		}
	}
	for _, s := range steps {
		// Who takes a link back needs both records.
		ties := s.Carried
		if s.Tie != nil {
			ties = append(ties, *s.Tie)
		}
		for _, t := range ties {
			if n := b.neighbour(t.Link); n.Work != nil && n.Record.New && !slices.Contains(works, n.Work) {
				intended, works = append(intended, n.Record.Clone()), append(works, n.Work)
			}
		}
	}
	// A request that is refused as a whole is followed by others. The next owner may have to
	// look for a record that was made, which the CRM may show late.
	requests := 2 * b.sink.Timeout()
	hold := requests + b.sink.Settle() + b.findLag()
	for {
		until := time.Now().Add(requests)
		if err := b.owner.ledger.Announce(ctx, b.lease, b.intent, b.intentKeys(), hold, intended...); err != nil {
			for _, w := range works {
				w.Unstored()
			}
			return time.Time{}, err
		}
		for _, w := range works {
			w.Stored()
		}
		// A ledger that took so long has used up the time.
		if time.Until(until) > b.sink.Timeout() {
			return until, nil
		}
		intended, works = nil, nil
	}
}

// intentKeys are the records of the write intent, by each key that leads to them: those of all
// rounds, since what an earlier one has sent may still take effect.
func (b *batch) intentKeys() []records.Key {
	add := func(k records.Key) {
		if !slices.Contains(b.intended, k) {
			b.intended = append(b.intended, k)
		}
	}
	for _, w := range b.works {
		if !w.InPlay() {
			continue
		}
		for _, d := range w.Deliveries {
			add(d.Key)
		}
		if w.Record.Merged { // its other keys lead to it too
			add(records.KeyOf(w.Record.ID))
		}
		for _, k := range b.identities[w] {
			add(k)
		}
	}
	for _, id := range b.claimedIDs { // whose it is, the ledger does not know yet
		add(records.KeyOfID(id.object, id.id))
	}
	return b.intended
}

// sift finds the steps whose records Postgres refuses to store, and ends their deliveries: they
// would otherwise keep the others from ever being sent.
func (b *batch) sift(ctx context.Context, steps []*records.Step) {
	for _, s := range steps {
		if _, err := b.announce(ctx, []*records.Step{s}); !ledger.Refused(err) {
			continue
		}
		s.Work.End(ledger.Dead, "Postgres refuses to store the record")
		b.discard(s.Work)
	}
}

// discard leaves a record out of what the batch stores.
func (b *batch) discard(w *records.Work) {
	b.cache.drop(w.Record.ID)
	for k, r := range b.records {
		if r == w.Record {
			b.cache.dropKeys(k)
			delete(b.records, k)
		}
	}
	delete(b.workOf, w.Record)
	b.works = slices.DeleteFunc(b.works, func(o *records.Work) bool { return o == w })
}

// chunk is the steps of one call of the sink.
type chunk struct {
	steps []int // places in the list of the round
	rows  []sinks.Row
	links []sinks.LinkRow
	op    sinks.Operation
}

// chunks sorts steps into calls: rows by what one request takes, links of a record together.
func (b *batch) chunks(steps []*records.Step) []*chunk {
	var all []*chunk
	open := map[string]*chunk{}
	for i, s := range steps {
		var name string
		var most int
		var row sinks.Row
		var link sinks.LinkRow
		if s.Tie != nil {
			link = linkRow(s.Work.Record, s.Tie)
			name, most = "links", len(steps) // the sink sorts them into requests
		} else {
			row = target{b.sink}.row(s)
			op, group := b.sink.Group(row)
			name, most = string(op)+"\x00"+group, max(b.sink.MaxRowsOf(row), 1)
		}
		c := open[name]
		if c == nil || len(c.steps) >= most {
			c = &chunk{op: row.Operation}
			open[name] = c
			all = append(all, c)
		}
		c.steps = append(c.steps, i)
		if s.Tie != nil {
			c.links = append(c.links, link)
		} else {
			c.rows = append(c.rows, row)
		}
	}
	return all
}

// send carries steps out, as many requests side by side as the sink takes, and returns one
// result for each. Requests that have not ended when ctx is over are given up, and no other is
// begun: their steps have results that say so.
func (b *batch) send(ctx context.Context, steps []*records.Step) []sinks.Result {
	results := make([]sinks.Result, len(steps))
	slots := b.owner.slots.of(b.sink)
	var wait sync.WaitGroup
	for _, c := range b.chunks(steps) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			for _, i := range c.steps {
				results[i] = sinks.Result{Class: sinks.Network, Message: "not sent: no request of the sink came free in time"}
			}
			continue
		}
		wait.Go(func() {
			defer func() { <-slots }()
			for i, res := range b.call(ctx, steps, c) {
				results[c.steps[i]] = res
			}
		})
	}
	wait.Wait()
	return results
}

// call makes one call of the sink. A panic costs its steps, not the process.
func (b *batch) call(ctx context.Context, steps []*records.Step, c *chunk) (results []sinks.Result) {
	defer func() {
		if r := recover(); r != nil {
			// What a panic says may quote a payload.
			b.owner.log.Error("a request panicked", "sink", b.owner.name, "type", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			results = make([]sinks.Result, len(c.steps))
			for i := range results {
				results[i] = sinks.Result{Class: sinks.Unavailable, Message: "internal error while sending", Sent: true}
			}
		}
	}()
	var places []tracing.Place
	for _, i := range c.steps {
		for _, d := range steps[i].Serves {
			places = append(places, b.routes[d.Cause].place)
		}
	}
	ctx = b.owner.tracer.With(ctx, places...)
	began := time.Now()
	defer func() { b.owner.pace.took(time.Since(began)) }()
	if c.links != nil {
		return b.sink.Link(ctx, c.links)
	}
	if c.op != sinks.Find && c.op != sinks.Search && c.op != sinks.Read {
		b.owner.metrics.batchRows.WithLabelValues(b.owner.name).Observe(float64(len(c.rows)))
	}
	return b.sink.Write(ctx, c.op, c.rows)
}

// apply has the rules take up the results of a round. It returns how long to wait before the next.
func (b *batch) apply(ctx context.Context, steps []*records.Step, results []sinks.Result) time.Duration {
	answers := make([]records.Answer, len(steps))
	for i, res := range results {
		if steps[i].Reads() {
			res.Sent = false // a search changes nothing
		}
		answers[i] = b.owner.answerOf(res, ctx.Err() != nil)
	}
	met := b.meet(ctx, steps, answers)
	var pause time.Duration
	for i, s := range steps {
		if b.resolve(ctx, s, answers[i], met) {
			continue
		}
		effect := s.Work.Apply(s, answers[i], &b.env)
		if answers[i].Short && effect.Pause == 0 {
			b.owner.breaker.stop(results[i])
		}
		pause = max(pause, effect.Pause)
		if effect.Suspect != nil {
			b.suspect(ctx, s, effect.Suspect)
		}
	}
	return pause
}

// applyAll gives steps one answer.
func (b *batch) applyAll(steps []*records.Step, a records.Answer) {
	for _, s := range steps {
		s.Work.Apply(s, a, &b.env)
	}
}

// suspect has the record at the other end of a refused link looked up.
func (b *batch) suspect(ctx context.Context, s *records.Step, l *records.Link) {
	k := b.targetKey(l)
	r := b.neighbour(l).Record
	if r == nil || r.Presence == records.Gone { // another link has shown that
		return
	}
	if b.workOf[r] == nil {
		if !b.owner.locks.claimMet(b, ledger.Met{ID: r.ID, Keys: []records.Key{k}}) {
			s.Work.PutOff("link", "waiting: the other end of a link is being written", time.Second)
			return
		}
		fresh, err := b.read(ctx, []records.Key{k}) // it may have changed before it was ours
		if err != nil || fresh[k] == nil {
			s.Work.PutOff(string(sinks.Network), "the ledger cannot be read", 2*time.Second)
			return
		}
		r = fresh[k]
		b.records[k] = r
		w := b.work(k)
		w.Deliveries = append(w.Deliveries, records.Probe(s.Last, l, k))
	}
	if !b.workOf[r].Suspect(b.env.Can) && s.Work.Suspect(b.env.Can) {
		return
	}
}
