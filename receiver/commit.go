package receiver

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/receiver/sources"
)

var errTimeout = errors.New("the commit takes too long")

// commit stores the events of one request in their order, in the spool if there is one
// and Postgres does not take them.
//
// It does not watch the sender's connection: one that sends and does not wait for
// the answer gets its events stored all the same.
func (r *Receiver) commit(all []*waiting) []stored {
	hold := all[0].hold // of them all
	hold.take()
	defer hold.free()
	start := time.Now()
	deadline := start.Add(r.options.Timeout)
	if r.options.Spool == nil {
		return r.wait(r.queue, all, deadline)
	}
	// A third of the time is for the disk.
	done := r.wait(r.queue, all, start.Add(r.options.Timeout*2/3))
	var left []*waiting
	var at []int
	for i, s := range done {
		if s.err == nil || errors.Is(s.err, errClosed) || ledger.Refused(s.err) {
			continue
		}
		// Not itself: Postgres may still be at work on it.
		left, at = append(left, &waiting{event: all[i].event, named: all[i].named, hold: hold, done: make(chan stored, 1)}), append(at, i)
	}
	if len(left) > 0 {
		for i, s := range r.wait(r.spooling, left, deadline) {
			done[at[i]] = s
		}
	}
	return done
}

// wait puts events into a queue and waits until they are stored, or for the deadline.
func (r *Receiver) wait(q *queue, all []*waiting, deadline time.Time) []stored {
	done := make([]stored, len(all))
	for _, w := range all {
		w.deadline = deadline
		w.hold.take()
	}
	if err := q.push(all); err != nil {
		for i, w := range all {
			w.hold.free()
			done[i] = stored{err: err}
		}
		return done
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	late := false
	for i, w := range all {
		if !late {
			select {
			case done[i] = <-w.done:
				continue
			case <-timer.C:
				late = true
			}
		}
		select {
		case done[i] = <-w.done:
			continue
		default:
		}
		if q.drop(w) {
			w.hold.free()
		}
		done[i] = stored{err: errTimeout}
	}
	return done
}

// flush stores one batch after the other until the queue is closed and empty.
func (r *Receiver) flush() {
	batch := make([]*waiting, 0, maxBatchEvents)
	events := make([]ledger.Incoming, 0, maxBatchEvents)
	for {
		batch = r.queue.take(batch[:0])
		if len(batch) == 0 {
			return
		}
		events = events[:0]
		for _, w := range batch {
			events = append(events, w.event)
		}
		r.flushBatch(batch, events)
		clear(batch) // what is stored need not stay in memory until the next batch is as long
		clear(events)
	}
}

func (r *Receiver) flushBatch(batch []*waiting, events []ledger.Incoming) {
	// After the last deadline nobody waits any more.
	ctx, cancel := context.WithDeadline(context.Background(), batch[len(batch)-1].deadline)
	defer cancel()
	r.store(ctx, batch, events)
}

// store commits a batch and tells everyone in it. A batch that Postgres refuses
// for its data is committed row by row, so that one request never fails another.
func (r *Receiver) store(ctx context.Context, batch []*waiting, events []ledger.Incoming) {
	r.metrics.batch.Observe(float64(len(batch)))
	started := time.Now()
	accepted, err := r.accept(ctx, events, batch[0].generation)
	r.metrics.commit.Observe(time.Since(started).Seconds())
	r.trace(events, started, err)
	for i, w := range batch {
		var s stored
		switch {
		case err == nil:
			s.accepted = accepted[i]
		case ledger.Refused(err):
			s = r.storeAlone(ctx, w, err, len(batch) == 1)
		default:
			s.err = err
		}
		if s.err == nil && s.refused == "" && !s.accepted.Duplicate {
			for _, sink := range w.event.Sinks {
				r.metrics.opened.WithLabelValues(w.event.Source, sink).Inc()
			}
		}
		w.hold.free()
		w.done <- s
	}
}

// trace exports the span of a commit.
func (r *Receiver) trace(events []ledger.Incoming, started time.Time, err error) {
	if r.options.Tracer == nil {
		return
	}
	commit := r.options.Tracer.Commit(started)
	for i := range events {
		commit.Add(events[i].ID, events[i].Trace)
	}
	commit.End(err)
}

// storeAlone commits one event of a refused batch. If it is the one that Postgres
// refuses, its body is kept without anything that was read from it.
func (r *Receiver) storeAlone(ctx context.Context, w *waiting, refusal error, tried bool) stored {
	if !tried {
		accepted, err := r.accept(ctx, []ledger.Incoming{w.event}, w.generation)
		if err == nil {
			return stored{accepted: accepted[0]}
		}
		if !ledger.Refused(err) {
			return stored{err: err}
		}
		refusal = err
	}
	// Only the code: the message of such an error may quote the value.
	code := "unknown"
	if pg, ok := errors.AsType[*pgconn.PgError](refusal); ok {
		code = pg.Code
	}
	r.options.Logger.Warn("Postgres refuses an event; its body is kept as malformed",
		"event", w.event.ID, "source", w.event.Source, "trace", traceOf(w), "sqlstate", code)
	accepted, err := r.accept(ctx, []ledger.Incoming{{
		ID:         w.event.ID,
		Source:     w.event.Source,
		Type:       sources.Unknown,
		ReceivedAt: w.event.ReceivedAt,
		Status:     ledger.Malformed,
		Reason:     "Postgres refused the event with SQLSTATE " + code,
		Trace:      w.event.Trace,
		VerifiedBy: w.event.VerifiedBy,
		Body:       w.event.Body,
		Again:      w.event.Again,
	}}, w.generation)
	if err != nil {
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && ledger.Refused(err) {
			r.fails(errors.New("everything is refused with SQLSTATE " + pg.Code)) // nothing of the sender is left to refuse
		}
		return stored{err: err}
	}
	return stored{accepted: accepted[0], refused: code}
}

// traceOf is the id of the trace to which an event belongs, for the log.
func traceOf(w *waiting) string { return tracing.PlaceOf(w.event.ID, w.event.Trace).TraceID() }

var errNotAsked = errors.New("no answer from Postgres since the start")

// accept calls the ledger. It logs when storing stops working and when it works
// again, and a panic costs the batch, not the process.
func (r *Receiver) accept(ctx context.Context, events []ledger.Incoming, generation int64) (accepted []ledger.Accepted, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.options.Logger.Error("panic while storing events", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = errors.New("panic while storing events")
		}
		switch {
		case err == nil:
			if r.down.CompareAndSwap(true, false) {
				r.options.Logger.Info("events are stored again")
			}
		case !ledger.Refused(err):
			r.fails(err)
		}
	}()
	if generation == 0 {
		return nil, errNotAsked
	}
	return r.options.Ledger.Accept(ctx, events, generation, r.options.EventsPerJob)
}

// fails notes that events cannot be stored, for a reason that is not their data.
func (r *Receiver) fails(err error) {
	if r.down.CompareAndSwap(false, true) {
		instead := "senders are told to come again"
		if r.options.Spool != nil {
			instead = "they go to the spool"
		}
		r.options.Logger.Warn("events cannot be stored in Postgres", "meanwhile", instead, "err", err)
	}
}

// Failing reports whether the last commit has failed for a reason that is not its data.
func (r *Receiver) Failing() bool { return r.down.Load() }

// reserve takes n bytes for a body out of what bodies may hold, and reports whether
// there was so much left. It waits for bodies that are given up, which soon let go.
func (r *Receiver) reserve(b *body, n int64) bool {
	if !r.unproved.take(b, n) {
		return false
	}
	for {
		gone := r.unproved.gone()
		for held := r.held.Load(); held+n <= r.options.MaxBytes; held = r.held.Load() {
			if r.held.CompareAndSwap(held, held+n) {
				b.held += n
				return true
			}
		}
		if !r.unproved.await(b, gone) {
			return false
		}
	}
}

// release gives back what a body holds.
func (r *Receiver) release(b *body) {
	r.held.Add(-b.held)
	r.unproved.end(b, b.proved)
}
