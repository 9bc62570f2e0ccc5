package jobs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// guard counts what a sink writes within an hour, so that a mapping that does more than anybody
// expects is noticed while it is little. The hour begins with its first row. The counts are stored
// before the rows are sent, so that a new owner goes on with them. Batches use it at once.
type guard struct {
	mu    sync.Mutex
	since time.Time
	done  counts
	shut  string // why it lets nothing through until a person resumes the sink
}

// counts are rows that make a record, that change one that is there, and that archive one.
type counts struct{ creates, overwrites, archives int64 }

func (c *counts) add(o counts) {
	c.creates += o.creates
	c.overwrites += o.overwrites
	c.archives += o.archives
}

// exceeds tells what of the counts is more than is allowed; "" where nothing is.
func (c counts) exceeds(rules sinks.Guard) string {
	for _, r := range []struct {
		what string
		n    int64
		most *int
	}{{"creates", c.creates, rules.Creates}, {"overwrites", c.overwrites, rules.Overwrites}, {"archives", c.archives, rules.Archives}} {
		if r.most != nil && r.n > int64(*r.most) {
			return fmt.Sprintf("guard: %d %s within an hour, guard.%s_per_hour is %d", r.n, r.what, r.what, *r.most)
		}
	}
	return ""
}

// countOf is what a step writes. Whether a row makes a record that nobody has looked for is known when it is
// answered: until then it counts as one that does.
func countOf(s *records.Step) counts {
	switch {
	case s.Do == records.Archive:
		return counts{archives: 1}
	case s.Do != records.Write:
		return counts{}
	case s.Work.Record.CRMID == "" && s.Mode != mappers.UpdateOnly:
		return counts{creates: 1}
	}
	return counts{overwrites: 1}
}

// reserve counts the steps of a round that may be sent, in their order, and returns them with what was added. From the
// first on that is one too many, no step that writes is among them until the sink is resumed, and why tells so.
func (g *guard) reserve(rules sinks.Guard, steps []*records.Step) (may []*records.Step, added ledger.Guarded, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.since) >= time.Hour {
		g.since, g.done = time.Now().Truncate(time.Microsecond), counts{}
	}
	var more counts
	for _, s := range steps {
		next := g.done
		next.add(countOf(s))
		if g.shut == "" && !s.Reads() {
			g.shut = next.exceeds(rules)
		}
		if s.Reads() || g.shut == "" {
			g.done = next
			more.add(countOf(s))
			may = append(may, s)
		}
	}
	return may, g.countedLocked(more), g.shut
}

// correct takes back what the answers to the counted steps show not to be so, and returns what was added by that.
func (g *guard) correct(counted []counts, results []sinks.Result) ledger.Guarded {
	g.mu.Lock()
	defer g.mu.Unlock()
	var more counts
	for i, c := range counted {
		switch res := results[i]; {
		case c == counts{}:
		case res.Class == sinks.OK:
			if c.creates > 0 && !res.Created {
				more.add(counts{creates: -1, overwrites: 1})
			}
		case !res.Sent: // it was not carried out
			more.add(counts{-c.creates, -c.overwrites, -c.archives})
		}
	}
	g.done.add(more)
	return g.countedLocked(more)
}

func (g *guard) countedLocked(c counts) ledger.Guarded {
	return ledger.Guarded{Since: g.since, Creates: c.creates, Overwrites: c.overwrites, Archives: c.archives}
}

// restore goes on with what a former owner has counted.
func (g *guard) restore(c ledger.Guarded) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since, g.done = c.Since, counts{c.Creates, c.Overwrites, c.Archives}
}

// resumed begins a new hour.
func (g *guard) resumed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since, g.done, g.shut = time.Time{}, counts{}, ""
}

// guarded returns the steps of a round that may be sent. The others wait, and the sink stops until a person
// resumes it. An error means that nothing may be sent.
func (b *batch) guarded(ctx context.Context, steps []*records.Step) ([]*records.Step, error) {
	rules := b.sink.Description().Guard()
	if b.observes() || rules == (sinks.Guard{}) {
		return steps, nil
	}
	o := b.owner
	may, added, why := o.guard.reserve(rules, steps)
	if err := o.count(ctx, added); err != nil {
		o.guard.correct(countsOf(may), make([]sinks.Result, len(may))) // none is sent
		return nil, err
	}
	if why != "" {
		o.breaker.trip(fmt.Sprintf("%s: look at what waits with `partnersync events --sink %s --outcome open`, then `partnersync sinks resume %s`", why, o.name, o.name))
		wait := records.Answer{Kind: records.Busy, Class: string(sinks.Held), Reason: "waiting: the sink was stopped: " + why, Wait: time.Minute}
		for _, s := range steps {
			if !slices.Contains(may, s) {
				s.Work.Apply(s, wait, &b.env)
			}
		}
	}
	return may, nil
}

// count stores what the guard has counted.
func (o *owner) count(ctx context.Context, added ledger.Guarded) error {
	if added.Creates == 0 && added.Overwrites == 0 && added.Archives == 0 {
		return nil
	}
	return o.ledger.Guard(ctx, o.name, added)
}

// recount corrects what the guard has counted of a round by its answers.
func (b *batch) recount(ctx context.Context, counted []counts, results []sinks.Result) {
	if b.observes() || b.sink.Description().Guard() == (sinks.Guard{}) {
		return
	}
	if err := b.owner.count(ctx, b.owner.guard.correct(counted, results)); err != nil {
		b.owner.log.Warn("what the guard has counted could not be stored", "sink", b.owner.name, "err", err)
	}
}

// countsOf are those of steps, before they are sent: an answer tells the id of a record.
func countsOf(steps []*records.Step) []counts {
	list := make([]counts, len(steps))
	for i, s := range steps {
		list[i] = countOf(s)
	}
	return list
}
