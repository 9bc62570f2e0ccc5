package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
)

// maintenance is the queue of what has to be done to the database now and then.
const maintenance = "maintenance"

const (
	// Batches are small, so that nobody waits for long for a row of theirs.
	expiryBatch = 1000
	lateBatch   = 500
	// A round ends before River takes it for stuck; what is left is for the next one.
	roundTime = jobTimeout - time.Minute
)

// maintainArgs are the arguments of the job that does maintenance.
type maintainArgs struct{}

func (maintainArgs) Kind() string { return "maintain" }

// maintain is a round of maintenance every so often, and one when a process becomes
// River's leader, since nobody remembers when the last one was.
func maintain(every time.Duration) []*river.PeriodicJob {
	if every == 0 {
		return nil
	}
	return []*river.PeriodicJob{river.NewPeriodicJob(river.PeriodicInterval(every), func() (river.JobArgs, *river.InsertOpts) {
		return maintainArgs{}, &river.InsertOpts{Queue: maintenance, MaxAttempts: 1}
	}, &river.PeriodicJobOpts{ID: "maintain", RunOnStart: true})}
}

// maintainWorker removes what is too old to be kept and erases what should not have
// been stored.
type maintainWorker struct {
	river.WorkerDefaults[maintainArgs]
	workers *Workers
}

func (m *maintainWorker) Work(ctx context.Context, _ *river.Job[maintainArgs]) error {
	w := m.workers
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	defer context.AfterFunc(w.soft, cancel)() // a stop does not wait for it
	err := w.maintain(ctx)
	switch {
	case w.soft.Err() != nil:
		return nil
	case ctx.Err() != nil:
		return river.JobSnooze(time.Minute)
	case err != nil:
		w.options.Logger.Warn("maintenance failed; the next round does the rest", "err", err)
	}
	return nil
}

func (w *Workers) maintain(ctx context.Context) error {
	for more := true; more; {
		erased, again, err := w.ledger.EraseLate(ctx, lateBatch)
		if err != nil {
			return err
		}
		if erased > 0 {
			w.options.Logger.Info("late events of forgotten people are erased", "events", erased)
		}
		more = again
	}
	if err := w.ledger.ExpireAnnouncements(ctx); err != nil {
		return err
	}
	keep := w.plan.Load().Keep
	if keep == 0 {
		return nil
	}
	removed, err := w.expire(ctx, time.Now().Add(-keep))
	if removed > 0 {
		w.options.Logger.Info("events past their retention are removed", "events", removed, "keep", keep)
	}
	return err
}

// expire removes the events that were received before a time, with a pause after each
// batch that is as long as the batch took: half of the time belongs to others.
func (w *Workers) expire(ctx context.Context, before time.Time) (int64, error) {
	var removed int64
	for after := uuid.Nil; ; {
		start := time.Now()
		n, next, err := w.ledger.Expire(ctx, before, after, expiryBatch)
		removed += n
		if err != nil {
			return removed, fmt.Errorf("retention: %w", err)
		}
		if next == uuid.Nil {
			return removed, nil
		}
		after = next
		select {
		case <-ctx.Done():
			return removed, ctx.Err()
		case <-time.After(time.Since(start)):
		}
	}
}
