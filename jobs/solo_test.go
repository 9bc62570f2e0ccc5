package jobs

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// solo is one owner whose cycles a test takes apart, without River.
type solo struct {
	*rig
	owner *owner
	sink  *sinks.Sink
}

func newSolo(t testing.TB, s setup, sink string) *solo {
	t.Helper()
	s.idle = true
	r := newRig(t, s)
	o := &solo{rig: r}
	for name, d := range r.config.Sinks {
		r.plan.Sinks[name] = sinks.New(d, sinks.Options{})
		t.Cleanup(r.plan.Sinks[name].Close)
	}
	r.plan.hashes = map[string]string{}
	o.sink = r.plan.Sinks[sink]
	session, err := r.ledger.Owners(r.context(), uuid.NewString())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(t.Context()) })
	right, _, err := session.Take(r.context(), sink)
	if err != nil {
		t.Fatal(err)
	}
	metrics := newMetrics(prometheus.NewRegistry())
	var plan atomic.Pointer[Plan]
	plan.Store(r.plan)
	o.owner = newOwner(*right, r.ledger, &plan, newGate(sink, r.ledger, metrics, r.options.Logger), metrics, r.options.Logger, time.Hour)
	return o
}

// cycle is one for events, which have a job each.
func (s *solo) cycle(ids ...uuid.UUID) *cycle {
	var items []*item
	for _, id := range ids {
		it := &item{events: []uuid.UUID{id}, done: make(chan error, 1)}
		it.taken.Store(true)
		items = append(items, it)
	}
	return newCycle(s.owner, s.rig.plan, s.sink, items)
}

// run lets one cycle work events from beginning to end, and returns the answers to their jobs.
func (s *solo) run(ids ...uuid.UUID) []error {
	s.t.Helper()
	c := s.cycle(ids...)
	c.run(s.context())
	s.owner.release(c)
	var errs []error
	for _, it := range c.items {
		select {
		case err := <-it.done:
			errs = append(errs, err)
		default:
			s.t.Fatal("an item has no answer")
		}
	}
	return errs
}

// do accepts events and works them in one cycle until they have ended.
func (s *solo) do(events ...event) []*ledger.Fate {
	s.t.Helper()
	ids := s.accept(events...)
	for range 20 {
		s.run(ids...)
		fates := s.fates(ids...)
		var out []*ledger.Fate
		open := false
		for _, id := range ids {
			out = append(out, fates[id])
			open = open || fates[id].Outcome == ledger.Open
		}
		if !open {
			return out
		}
	}
	s.t.Fatal("routes stay open")
	return nil
}

// begin takes a cycle as far as it has sent everything.
func (s *solo) begin(ids ...uuid.UUID) *cycle {
	s.t.Helper()
	c := s.cycle(ids...)
	if err := c.load(s.context()); err != nil {
		s.t.Fatal(err)
	}
	c.apply()
	if err := c.converge(s.context()); err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *solo) sent(c *cycle) *cycle {
	s.t.Helper()
	if err := c.send(s.context()); err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *solo) finish(c *cycle) {
	s.t.Helper()
	c.link(s.context())
	c.rest()
	if err := c.record(s.context()); err != nil {
		s.t.Fatal(err)
	}
	s.owner.release(c)
}
