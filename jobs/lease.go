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

// heartbeat is how often a process shows that it lives, renews its leases, and looks for sinks to
// acquire.
const heartbeat = time.Second

// tenure is the time in which this process owns one sink, from acquiring its lease to the end of
// its batches. Only the goroutine of keep uses the fields below done.
type tenure struct {
	*owner
	cut  context.CancelFunc // cuts its requests short
	done chan struct{}      // closed when the last batch has ended and the queue is closed

	fits    *Plan // the last one whose former names of the sink are known to be moved
	release bool  // the lease is to be released when done
	ending  bool
}

// keep acquires, renews and releases leases until ctx ends. Then it waits for the batches under
// way and releases all leases.
func (w *Workers) keep(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	var leaser *ledger.Leaser
	for {
		if leaser == nil {
			leaser = w.connect(ctx)
		}
		if leaser != nil {
			if err := w.renew(ctx, leaser); err != nil && ctx.Err() == nil {
				if leaser.Alive() {
					w.options.Logger.Warn("the leases of the sinks were not all renewed or acquired; it is tried again", "err", err)
				} else {
					w.options.Logger.Warn("lost the session of the leases; sinks may move to another worker", "err", err)
					w.stopRenaming()
					leaser = nil
				}
			}
		}
		select {
		case <-ctx.Done():
			w.releaseAll(leaser)
			return
		case <-w.changed:
		case <-ticker.C:
		}
	}
}

// connect opens the session that holds the locks of the leases, and reacquires those of a session
// that was lost. It returns nil where Postgres does not answer.
func (w *Workers) connect(ctx context.Context) *ledger.Leaser {
	ctx, cancel := context.WithTimeout(ctx, 3*heartbeat)
	defer cancel()
	leaser, err := w.ledger.Leaser(ctx, w.id)
	if err != nil {
		if ctx.Err() == nil {
			w.options.Logger.Warn("Postgres cannot be reached", "err", err)
		}
		return nil
	}
	for _, t := range w.tenures() {
		if t.ending {
			continue
		}
		if err := leaser.Reacquire(ctx, t.lease); err != nil {
			w.lose(t, "its lock was lost")
		}
	}
	return leaser
}

// renew is one round: it renews the leases, ends the tenures that have lost theirs, acquires the
// sinks that are free, and releases those that another process is to own.
func (w *Workers) renew(stopping context.Context, leaser *ledger.Leaser) error {
	// A statement that is cut off takes the session with it, and then nothing can be handed over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(stopping), 3*heartbeat)
	defer cancel()
	tenures := w.tenures()
	var leases []ledger.Lease
	for _, t := range tenures {
		leases = append(leases, t.lease)
	}
	for _, r := range w.renaming {
		leases = append(leases, r.former, r.name)
	}
	beat, err := leaser.Heartbeat(ctx, leases)
	if err != nil {
		return err
	}
	plan := w.plan.Load()
	if err := w.endRenaming(ctx, leaser, beat); err != nil {
		return err
	}
	for _, t := range tenures {
		if command := beat.Commands[t.name]; command != "" {
			t.breaker.command(command)
			if command == "resume" {
				if err := w.ledger.Unguard(ctx, t.name); err != nil {
					return err
				}
			}
			if err := leaser.Done(ctx, t.name, command); err != nil {
				return err
			}
		}
		switch {
		case !beat.Renewed[t.lease]:
			w.lose(t, "another process has acquired it, or it is to be acquired anew")
		case t.ending:
		case plan.Sinks[t.name] == nil, rendezvous(t.name, beat.Live) != w.id, !w.suits(ctx, t, plan):
			w.options.Logger.Info("sink is handed over", "sink", t.name)
			t.release = true
			w.end(t)
		}
		select {
		case <-t.done:
			w.remove(t)
			// Where the lease is lost, this frees its lock at the most.
			if err := leaser.Release(ctx, t.lease); err != nil {
				return err
			}
		default:
		}
	}
	var failed error
	for name, sink := range plan.Sinks {
		idle, known := beat.Idle[name]
		if stopping.Err() != nil || w.ownerOf(name) != nil || (rendezvous(name, beat.Live) != w.id && known && idle < 3*heartbeat) {
			continue
		}
		// A sink that cannot be acquired does not keep this process from the others.
		if err := w.acquire(ctx, leaser, plan, sink); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// rendezvous is the process that is to own a sink, by rendezvous hashing: the live one with the highest
// score. So a change in their number moves as few sinks as can be.
func rendezvous(sink string, live []string) string {
	best, highest := "", uint64(0)
	for _, id := range live {
		h := fnv.New64a()
		_, _ = h.Write([]byte(sink + "\x00" + id)) // never fails
		if score := avalanche(h.Sum64()); best == "" || score > highest {
			best, highest = id, score
		}
	}
	return best
}

// avalanche makes every bit of a hash depend on every byte that went into it.
func avalanche(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// acquire tries to become the owner of a sink, and begins to work it. Before that, all that is known
// under its former names is moved.
func (w *Workers) acquire(ctx context.Context, leaser *ledger.Leaser, plan *Plan, sink *sinks.Sink) error {
	whole, err := w.moveFormers(ctx, leaser, plan, sink)
	var lease *ledger.Lease
	var announced []ledger.Announcement
	if err == nil && whole {
		lease, announced, err = leaser.Acquire(ctx, sink.Name())
	}
	var bar *ledger.Barred
	if errors.As(err, &bar) {
		return w.bar(ctx, bar)
	}
	if err != nil || lease == nil {
		return err
	}
	delete(w.barred, sink.Name())
	if err := w.begin(ctx, *lease, announced); err != nil {
		return errors.Join(err, leaser.Release(ctx, *lease))
	}
	w.options.Logger.Info("sink taken", "sink", lease.Sink, "epoch", lease.Epoch, "announced", len(announced))
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

// begin starts a tenure.
func (w *Workers) begin(ctx context.Context, lease ledger.Lease, announced []ledger.Announcement) error {
	b := w.newBreaker(lease.Sink)
	if err := b.load(ctx); err != nil {
		return err
	}
	o := newOwner(lease, announced, w.ledger, &w.plan, b, w.metrics, w.options.Logger, w.options.GiveUp)
	counted, err := w.ledger.Guarded(ctx, lease.Sink)
	if err != nil {
		return err
	}
	o.guard.restore(counted)
	b.resumed = o.guard.resumed
	o.tracer = w.options.Tracer
	if o.tombstones, err = w.ledger.Tombstones(ctx); err != nil {
		return err
	}
	working, cut := context.WithCancel(w.hard)
	t := &tenure{owner: o, cut: cut, done: make(chan struct{})}
	// Before the queue is opened: its first jobs come at once, and look for their owner.
	w.mu.Lock()
	w.owned[lease.Sink] = t
	w.mu.Unlock()
	if err := w.client.Queues().Add(ledger.Queue(lease.Sink), river.QueueConfig{MaxWorkers: w.atHand(lease.Sink)}); err != nil {
		cut()
		o.drain()
		w.remove(t)
		// River may have added it all the same, and would not add it a second time.
		_ = w.client.Queues().Remove(ctx, ledger.Queue(lease.Sink))
		return fmt.Errorf("open the queue of sink %q: %w", lease.Sink, err)
	}
	w.tasks.Go(func() {
		defer close(t.done)
		defer cut()
		breaking, stopBreaker := context.WithCancel(w.hard)
		var breaker sync.WaitGroup
		breaker.Go(func() { b.run(breaking) })
		o.run(working)
		stopBreaker()
		breaker.Wait()
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
	b := newBreaker(name, w.ledger, w.metrics, w.options.Logger)
	b.silence, b.firstProbe = w.options.Silence, w.options.ProbeEvery
	b.probe = func(ctx context.Context) sinks.Result {
		if s := w.plan.Load().Sinks[name]; s != nil {
			return accountOf(ctx, w.ledger, s, s.Probe)
		}
		return sinks.Result{Class: sinks.Held}
	}
	b.pause = func(ctx context.Context) error {
		err := w.client.QueuePause(ctx, queue, nil)
		if errors.Is(err, rivertype.ErrNotFound) {
			return errNoQueue
		}
		return err
	}
	b.resume = func(ctx context.Context) error {
		err := w.client.QueueResume(ctx, queue, nil)
		if errors.Is(err, rivertype.ErrNotFound) {
			return nil // River begins with queues that are not paused
		}
		return err
	}
	return b
}

// end lets a tenure finish the batches that it has begun.
func (w *Workers) end(t *tenure) {
	t.ending = true
	t.drain()
}

// lose ends a tenure at once, since its lease is lost. The new owner does not touch what it has under
// way until that has had its effect.
func (w *Workers) lose(t *tenure, why string) {
	if !t.ending || t.release {
		w.options.Logger.Warn("sink lost", "sink", t.name, "reason", why)
	}
	t.release = false
	w.end(t)
	t.cut()
}

// releaseAll releases all leases when the batches have ended.
func (w *Workers) releaseAll(leaser *ledger.Leaser) {
	for _, t := range w.tenures() {
		w.end(t)
	}
	for _, t := range w.tenures() {
		<-t.done // at the latest when w.hard ends
	}
	renaming := w.stopRenaming()
	if leaser == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.soft), 3*heartbeat)
	defer cancel()
	var err error
	for _, r := range renaming {
		err = errors.Join(err, r.release(ctx, leaser))
	}
	for _, t := range w.tenures() {
		err = errors.Join(err, leaser.Release(ctx, t.lease))
	}
	if err = errors.Join(err, leaser.Deregister(ctx), leaser.Close(ctx)); err != nil {
		w.options.Logger.Warn("the sinks could not be handed over; others take them in a few seconds", "err", err)
	}
}

// tenures are those of this process, by name.
func (w *Workers) tenures() []*tenure {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*tenure
	for _, t := range w.owned {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *tenure) int { return strings.Compare(a.name, b.name) })
	return list
}

func (w *Workers) remove(t *tenure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.owned, t.name)
}

func (w *Workers) ownerOf(sink string) *tenure {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owned[sink]
}

// accountOf asks whose account a sink writes to, or whether it is there at all. Credentials of
// another account than the sink has been writing to are refused: what is known of its records
// is not true there.
func accountOf(ctx context.Context, l store, s *sinks.Sink, ask func(context.Context) sinks.Result) sinks.Result {
	res := ask(ctx)
	pinned := s.Description().Account()
	switch {
	case res.Class != sinks.OK || res.ID == "" && pinned == "":
		return res
	case res.ID == "":
		return sinks.Result{Class: sinks.Held, Code: "account", Message: fmt.Sprintf("the config allows account %s alone, and the credentials may not ask which theirs is", pinned)}
	case pinned != "" && pinned != res.ID:
		return sinks.Result{Class: sinks.Held, Code: "account", Message: fmt.Sprintf("the credentials are of account %s, and the config allows account %s alone", res.ID, pinned)}
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
