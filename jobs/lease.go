package jobs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// beat is how often a process shows that it lives, and looks for sinks to take.
const beat = time.Second

// tenancy is this process's hold on one sink, from taking it to its end.
type tenancy struct {
	*owner
	cut      context.CancelFunc // cuts its requests short
	done     chan struct{}      // closed when the last cycle has ended and the queue is closed
	fits     *Plan              // the last one whose former names of the sink are known to be moved
	handOver bool               // is to be released when done
	ending   bool
}

// keep takes, renews and hands over sinks until ctx ends; then it waits for the
// cycles under way and hands over everything.
func (w *Workers) keep(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	var session *ledger.Owners
	for {
		if session == nil {
			session = w.open(ctx)
		}
		if session != nil {
			if err := w.look(ctx, session); err != nil && ctx.Err() == nil {
				if session.Alive() {
					w.options.Logger.Warn("a look at who owns the sinks failed; the next one follows", "err", err)
				} else {
					w.options.Logger.Warn("lost the ownership session; sinks may move to another worker", "err", err)
					w.stopRenaming()
					session = nil
				}
			}
		}
		select {
		case <-ctx.Done():
			w.leave(session)
			return
		case <-w.changed:
		case <-ticker.C:
		}
	}
}

// open opens the session that holds the locks, and takes those again that a lost
// session held. It returns nil where Postgres does not answer.
func (w *Workers) open(ctx context.Context) *ledger.Owners {
	ctx, cancel := context.WithTimeout(ctx, 3*beat)
	defer cancel()
	session, err := w.ledger.Owners(ctx, w.id)
	if err != nil {
		if ctx.Err() == nil {
			w.options.Logger.Warn("Postgres cannot be reached", "err", err)
		}
		return nil
	}
	for _, t := range w.tenancies() {
		if t.ending {
			continue
		}
		if err := session.Relock(ctx, t.lease); err != nil {
			w.drop(t, "its lock was lost")
		}
	}
	return session
}

// look is one round: renew, drop what is lost, take what is free, hand over what
// is another's.
func (w *Workers) look(ctx context.Context, session *ledger.Owners) error {
	ctx, cancel := context.WithTimeout(ctx, 3*beat)
	defer cancel()
	held := w.tenancies()
	var rights []ledger.Ownership
	for _, t := range held {
		rights = append(rights, t.lease)
	}
	for _, r := range w.renaming {
		rights = append(rights, r.former, r.name)
	}
	view, err := session.Beat(ctx, rights)
	if err != nil {
		return err
	}
	plan := w.plan.Load()
	if err := w.endRenaming(ctx, session, view); err != nil {
		return err
	}
	for _, t := range held {
		if asked := view.Asked[t.name]; asked != "" {
			t.breaker.obey(asked)
			if err := session.Done(ctx, t.name, asked); err != nil {
				return err
			}
		}
		switch {
		case !view.Kept[t.lease]:
			w.drop(t, "another process has taken it, or it is to be taken anew")
		case t.ending:
		case plan.Sinks[t.name] == nil, drawn(t.name, view.Living) != w.id, !w.suits(ctx, t, plan):
			w.options.Logger.Info("sink is handed over", "sink", t.name)
			t.handOver = true
			w.end(t)
		}
		select {
		case <-t.done:
			w.forget(t)
			if err := session.Release(ctx, t.lease); err != nil { // of a sink that is lost, the lock at most
				return err
			}
		default:
		}
	}
	var failed error
	for name, sink := range plan.Sinks {
		idle, known := view.Idle[name]
		if w.ownerOf(name) != nil || (drawn(name, view.Living) != w.id && known && idle < 3*beat) {
			continue
		}
		// One that cannot be taken keeps nobody from the others.
		if err := w.take(ctx, session, plan, sink); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// drawn is the process that is to own a sink: each sink draws lots among the
// living, so that a change in their number moves as few sinks as can be.
func drawn(sink string, living []string) string {
	best, most := "", uint64(0)
	for _, id := range living {
		h := fnv.New64a()
		_, _ = h.Write([]byte(sink + "\x00" + id)) // never fails
		if lot := mix(h.Sum64()); best == "" || lot > most {
			best, most = id, lot
		}
	}
	return best
}

// mix lets every bit of a hash depend on every byte that went into it.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// take tries to become the owner of a sink and begins to work it, once all that is known under its former names is its own.
func (w *Workers) take(ctx context.Context, session *ledger.Owners, plan *Plan, sink *sinks.Sink) error {
	whole, err := w.moveFormers(ctx, session, plan, sink)
	var right *ledger.Ownership
	var announced []ledger.Announcement
	if err == nil && whole {
		right, announced, err = session.Take(ctx, sink.Name())
	}
	var bar *ledger.Barred
	if errors.As(err, &bar) {
		return w.bar(ctx, bar)
	}
	if err != nil || right == nil {
		return err
	}
	delete(w.barred, sink.Name())
	if err := w.begin(ctx, *right, announced); err != nil {
		return errors.Join(err, session.Release(ctx, *right))
	}
	w.options.Logger.Info("sink taken", "sink", right.Sink, "epoch", right.Epoch, "announced", len(announced))
	return nil
}

// atHand is how many jobs of a sink River hands us at a time: what its requests take while
// as many are on their way as may be, and once more to gather meanwhile.
func (w *Workers) atHand(sink string) int {
	if w.options.MaxWorkers > 0 {
		return w.options.MaxWorkers
	}
	const least, most = 400, 2000
	s := w.plan.Load().Sinks[sink]
	if s == nil {
		return least
	}
	return min(max((s.Concurrency()+1)*s.MaxRows(sinks.Upsert), least), most)
}

func (w *Workers) begin(ctx context.Context, right ledger.Ownership, announced []ledger.Announcement) error {
	g := w.newBreaker(right.Sink)
	if err := g.load(ctx); err != nil {
		return err
	}
	o := newOwner(right, w.ledger, &w.plan, g, w.metrics, w.options.Logger, w.options.GiveUp)
	o.tracer = w.options.Tracer
	var err error
	if o.tombstones, err = w.ledger.Tombstones(ctx); err != nil {
		return err
	}
	o.keepOff(announced)
	working, cut := context.WithCancel(w.hard)
	t := &tenancy{owner: o, cut: cut, done: make(chan struct{})}
	// Before the queue is opened: its first jobs come at once, and look for their owner.
	w.mu.Lock()
	w.owned[right.Sink] = t
	w.mu.Unlock()
	if err := w.client.Queues().Add(ledger.Queue(right.Sink), river.QueueConfig{MaxWorkers: w.atHand(right.Sink)}); err != nil {
		cut()
		o.drain()
		w.forget(t)
		// River may have noted it all the same, and would not add it a second time.
		_ = w.client.Queues().Remove(ctx, ledger.Queue(right.Sink))
		return fmt.Errorf("open the queue of sink %q: %w", right.Sink, err)
	}
	w.tasks.Go(func() {
		defer close(t.done)
		defer cut()
		gating, stopGate := context.WithCancel(w.hard)
		var gate sync.WaitGroup
		gate.Go(func() { g.run(gating) })
		o.run(working)
		stopGate()
		gate.Wait()
		if w.soft.Err() == nil { // else River is stopping as a whole
			if err := w.client.Queues().Remove(w.soft, ledger.Queue(o.name)); err != nil && w.soft.Err() == nil {
				w.options.Logger.Error("the queue could not be closed", "sink", o.name, "err", err)
			}
		}
	})
	return nil
}

func (w *Workers) newBreaker(name string) *breaker {
	queue := ledger.Queue(name)
	g := newBreaker(name, w.ledger, w.metrics, w.options.Logger)
	g.silence, g.firstProbe = w.options.Silence, w.options.ProbeEvery
	g.probe = func(ctx context.Context) sinks.Result {
		if s := w.plan.Load().Sinks[name]; s != nil {
			return accountOf(ctx, w.ledger, s, s.Probe)
		}
		return sinks.Result{Class: sinks.Held}
	}
	g.pause = func(ctx context.Context) error {
		err := w.client.QueuePause(ctx, queue, nil)
		if errors.Is(err, rivertype.ErrNotFound) {
			return errNoQueue
		}
		return err
	}
	g.resume = func(ctx context.Context) error {
		err := w.client.QueueResume(ctx, queue, nil)
		if errors.Is(err, rivertype.ErrNotFound) {
			return nil // River begins with queues that are not paused
		}
		return err
	}
	return g
}

// end lets a tenancy finish what it has begun.
func (w *Workers) end(t *tenancy) {
	t.ending = true
	t.drain()
}

// drop ends a tenancy that is not ours any more, at once: whatever it has under
// way, the new owner keeps its hands off until that has had its effect.
func (w *Workers) drop(t *tenancy, why string) {
	if !t.ending || t.handOver {
		w.options.Logger.Warn("sink lost", "sink", t.name, "reason", why)
	}
	t.handOver = false
	w.end(t)
	t.cut()
}

// leave hands over all sinks when their cycles have ended.
func (w *Workers) leave(session *ledger.Owners) {
	for _, t := range w.tenancies() {
		w.end(t)
	}
	for _, t := range w.tenancies() {
		<-t.done // at the latest when w.hard ends
	}
	renaming := w.stopRenaming()
	if session == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.soft), 3*beat)
	defer cancel()
	var err error
	for _, r := range renaming {
		err = errors.Join(err, r.release(ctx, session))
	}
	for _, t := range w.tenancies() {
		err = errors.Join(err, session.Release(ctx, t.lease))
	}
	if err = errors.Join(err, session.Leave(ctx), session.Close(ctx)); err != nil {
		w.options.Logger.Warn("the sinks could not be handed over; others take them in a few seconds", "err", err)
	}
}

// tenancies are those of the moment, by name.
func (w *Workers) tenancies() []*tenancy {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*tenancy
	for _, t := range w.owned {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *tenancy) int { return strings.Compare(a.name, b.name) })
	return list
}

func (w *Workers) forget(t *tenancy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.owned, t.name)
}

func (w *Workers) ownerOf(sink string) *tenancy {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owned[sink]
}

// accountOf asks whose account a sink writes to, or whether it is there at all. Credentials of
// another account than the sink has been writing to are refused: what is known of its records
// is not true there.
func accountOf(ctx context.Context, l store, s *sinks.Sink, ask func(context.Context) sinks.Result) sinks.Result {
	res := ask(ctx)
	if res.Class != sinks.OK || res.ID == "" {
		return res
	}
	known, err := l.Account(ctx, s.Name(), res.ID)
	switch {
	case err != nil:
		return sinks.Result{Class: sinks.Network, Message: "the ledger cannot be reached"}
	case known != res.ID:
		return sinks.Result{Class: sinks.Held, Code: "account", Message: fmt.Sprintf(
			"the credentials are of account %s, but this sink has been writing to %s: give a sink for another account a name of its own", res.ID, known)}
	}
	return res
}
