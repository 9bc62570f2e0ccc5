package jobs

import (
	"fmt"
	"sync"
	"time"

	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// guard counts what a sink writes within an hour, so that a mapping that does more than anybody
// expects is noticed while it is little. Batches use it at once. It begins anew with its process.
type guard struct {
	mu    sync.Mutex
	since time.Time
	done  counts
}

// counts are rows that make a record, that change one that is there, and that archive one.
type counts struct{ creates, overwrites, archives int }

func (c *counts) add(o counts) {
	c.creates += o.creates
	c.overwrites += o.overwrites
	c.archives += o.archives
}

// countsOf is what steps would write. A row whose record nobody has looked for may make one.
func countsOf(steps []*records.Step) counts {
	var c counts
	for _, s := range steps {
		switch {
		case s.Do == records.Archive:
			c.archives++
		case s.Do != records.Write:
		case s.Work.Record.CRMID == "" && s.Mode != mappers.UpdateOnly:
			c.creates++
		default:
			c.overwrites++
		}
	}
	return c
}

// reserve counts the steps of a round, unless they come to more than is allowed within an hour: then it
// tells what would.
func (g *guard) reserve(rules sinks.Guard, steps []*records.Step) (why string) {
	if rules == (sinks.Guard{}) {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.since) >= time.Hour {
		g.since, g.done = time.Now(), counts{}
	}
	next := g.done
	next.add(countsOf(steps))
	for _, r := range []struct {
		what  string
		n, of int
	}{{"creates_per_hour", next.creates, rules.Creates}, {"overwrites_per_hour", next.overwrites, rules.Overwrites}, {"archives_per_hour", next.archives, rules.Archives}} {
		if r.of > 0 && r.n > r.of {
			return fmt.Sprintf("guard.%s is %d, and the next rows would make it %d", r.what, r.of, r.n)
		}
	}
	g.done = next
	return ""
}

// correct notes which of the rows that might have made a record have changed one.
func (g *guard) correct(steps []*records.Step, results []sinks.Result, unknown map[*records.Step]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range steps {
		if unknown[s] && results[i].Class == sinks.OK && !results[i].Created {
			g.done.creates--
			g.done.overwrites++
		}
	}
}

// unknownOf are the rows that may make a record.
func unknownOf(steps []*records.Step) map[*records.Step]bool {
	unknown := map[*records.Step]bool{}
	for _, s := range steps {
		if s.Do == records.Write && s.Work.Record.CRMID == "" && s.Mode != mappers.UpdateOnly {
			unknown[s] = true
		}
	}
	return unknown
}

// resumed begins a new hour.
func (g *guard) resumed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since, g.done = time.Time{}, counts{}
}

// guarded reports whether the round may be sent. Where it may not, the sink stops until a person
// resumes it, and everything waits.
func (b *batch) guarded(steps []*records.Step) bool {
	if b.observes() {
		return true
	}
	why := b.owner.guard.reserve(b.sink.Description().Guard(), steps)
	if why == "" {
		return true
	}
	b.owner.breaker.trip(fmt.Sprintf("%s: `partnersync events --sink %s --outcome open` lists what waits, `partnersync sinks resume %s` goes on", why, b.owner.name, b.owner.name))
	b.applyAll(steps, records.Answer{Kind: records.Busy, Class: string(sinks.Held), Reason: "waiting: the sink was stopped, since " + why, Wait: time.Minute})
	return false
}
