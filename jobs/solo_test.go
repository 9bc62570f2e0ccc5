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
	session, err := r.ledger.Leaser(r.context(), uuid.NewString())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(t.Context()) })
	lease, announced, err := session.Acquire(r.context(), sink)
	if err != nil {
		t.Fatal(err)
	}
	metrics := newMetrics(prometheus.NewRegistry())
	var plan atomic.Pointer[Plan]
	plan.Store(r.plan)
	o.owner = newOwner(*lease, announced, r.ledger, &plan, newBreaker(sink, r.ledger, metrics, r.options.Logger), metrics, r.options.Logger, time.Hour)
	return o
}

// batch is one for events, which have a job each.
func (s *solo) batch(ids ...uuid.UUID) *batch {
	return newBatch(s.owner, s.rig.plan, s.sink, jobsOf(ids...))
}

func jobsOf(ids ...uuid.UUID) []*job {
	var list []*job
	for _, id := range ids {
		j := &job{events: []uuid.UUID{id}, done: make(chan error, 1)}
		j.taken.Store(true)
		list = append(list, j)
	}
	return list
}

// run lets one cycle work events from beginning to end, and returns the answers to their jobs.
func (s *solo) run(ids ...uuid.UUID) []error {
	s.t.Helper()
	b := s.batch(ids...)
	jobs := b.jobs
	b.run(s.context())
	s.owner.locks.release(b)
	var errs []error
	for _, j := range jobs {
		select {
		case err := <-j.done:
			errs = append(errs, err)
		default:
			s.t.Fatal("a job has no answer")
		}
	}
	return errs
}

// do accepts events and works them in one batch until they have ended.
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

// begin takes a batch as far as it has folded everything.
func (s *solo) begin(ids ...uuid.UUID) *batch {
	s.t.Helper()
	b := s.batch(ids...)
	if err := b.load(s.context()); err != nil {
		s.t.Fatal(err)
	}
	b.mapEvents()
	if err := b.fold(s.context()); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *solo) sent(b *batch) *batch {
	s.t.Helper()
	if err := b.loop(s.context()); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *solo) finish(b *batch) {
	s.t.Helper()
	if err := b.commit(s.context()); err != nil {
		s.t.Fatal(err)
	}
	s.owner.locks.release(b)
}
