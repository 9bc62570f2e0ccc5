package jobs

import (
	"context"
	"errors"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// renaming is this process's hold on a sink and on one of its former names while all that is
// known under that one is moved. It may take long, so it does not hold up the heartbeats.
type renaming struct {
	former, name ledger.Lease
	cancel       context.CancelFunc
	done         chan struct{} // closed at its end
	moved        int64         // rows; read it after done
	err          error         // likewise
}

// moveFormers has what is known under the former names of a sink moved, one name after the other. It
// reports whether nothing is left to be moved. Nobody works a sink while that is not so,
// and a former name that somebody works is waited for: two owners would write to one CRM.
func (w *Workers) moveFormers(ctx context.Context, leaser *ledger.Leaser, plan *Plan, sink *sinks.Sink) (bool, error) {
	name := sink.Name()
	if len(sink.Formerly()) == 0 {
		return true, nil
	}
	if w.renaming[name] != nil {
		return false, nil
	}
	formers, err := w.ledger.Formers(ctx, name, sink.Formerly(), plan.Generation)
	if err != nil || len(formers) == 0 {
		return err == nil, err
	}
	if w.ownerOf(formers[0]) != nil {
		return false, nil // its batches are about to end
	}
	r := &renaming{done: make(chan struct{}), name: ledger.Lease{Sink: name}}
	lease, _, err := leaser.Acquire(ctx, formers[0])
	if err != nil || lease == nil {
		return false, err
	}
	r.former = *lease
	lease, _, err = leaser.Acquire(ctx, name)
	switch {
	case errors.As(err, new(*ledger.Barred)): // a name that was given up before: nobody owns it
	case err != nil, lease == nil:
		return false, errors.Join(err, leaser.Release(ctx, r.former))
	default:
		r.name = *lease
	}
	var moving context.Context
	moving, r.cancel = context.WithCancel(w.soft)
	w.renaming[name] = r
	w.tasks.Go(func() {
		r.moved, r.err = w.ledger.Rename(moving, r.former, r.name, plan.Generation)
		close(r.done)
		w.wake()
	})
	return false, nil
}

// endRenaming gives up the names whose renaming has ended, and ends those that have lost their names.
func (w *Workers) endRenaming(ctx context.Context, leaser *ledger.Leaser, beat *ledger.Heartbeat) error {
	for name, r := range w.renaming {
		if !beat.Renewed[r.former] || (r.name.Epoch != 0 && !beat.Renewed[r.name]) {
			r.cancel()
		}
		select {
		case <-r.done:
		default:
			continue
		}
		r.cancel()
		delete(w.renaming, name)
		switch {
		case r.err == nil:
			w.options.Logger.Info("the sink has taken over its former name's state", "sink", name, "formerly", r.former.Sink, "rows", r.moved)
		case w.soft.Err() == nil:
			w.options.Logger.Warn("the sink has not taken over its former name's state; it is tried again", "sink", name, "formerly", r.former.Sink, "err", r.err)
		}
		if err := r.release(ctx, leaser); err != nil {
			return err
		}
	}
	return nil
}

// stopRenaming ends all renaming and returns what there was.
func (w *Workers) stopRenaming() map[string]*renaming {
	stopped := w.renaming
	for _, r := range stopped {
		r.cancel()
		<-r.done
	}
	w.renaming = map[string]*renaming{}
	return stopped
}

func (r *renaming) release(ctx context.Context, leaser *ledger.Leaser) error {
	err := leaser.Release(ctx, r.former)
	if r.name.Epoch != 0 {
		err = errors.Join(err, leaser.Release(ctx, r.name))
	}
	return err
}

// suits reports whether a sink that is worked may go on: a config that gives it a former name whose state
// is not its own yet has it taken anew.
func (w *Workers) suits(ctx context.Context, t *tenure, plan *Plan) bool {
	formerly := plan.Sinks[t.name].Formerly()
	if t.fits == plan || len(formerly) == 0 {
		return true
	}
	formers, err := w.ledger.Formers(ctx, t.name, formerly, plan.Generation)
	switch {
	case errors.As(err, new(*ledger.Barred)):
		return false
	case err != nil:
		return true // the next round asks again
	case len(formers) == 0:
		t.fits = plan
	}
	return len(formers) == 0
}

// bar tells why a sink cannot be taken.
func (w *Workers) bar(ctx context.Context, b *ledger.Barred) error {
	if w.barred[b.Sink] != b.Reason {
		w.barred[b.Sink] = b.Reason
		w.options.Logger.Warn("sink cannot be taken", "sink", b.Sink, "reason", b.Reason)
	}
	return w.ledger.Bar(ctx, b)
}

// moveStrays takes over what receivers that have an older config still send to former names of a sink.
func (w *Workers) moveStrays(ctx context.Context, sink string) {
	for {
		n, err := w.ledger.MoveStrays(ctx, sink, sweepRoutes)
		if err != nil && ctx.Err() == nil {
			w.options.Logger.Warn("routes under a former name could not be moved", "sink", sink, "err", err)
		}
		if err != nil || n == 0 {
			return
		}
		w.options.Logger.Info("routes under a former name are moved: a receiver has an older config", "sink", sink, "routes", n)
	}
}

// wake has keep renew the leases now.
func (w *Workers) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
