package receiver

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/receiver/sources"
	"partnersync/receiver/spool"
)

const (
	// drainTimeout is for one batch out of the spool, for which nobody waits.
	drainTimeout = 5 * time.Second
	// The pauses after a batch that could not be stored.
	firstPause, lastPause = 50 * time.Millisecond, time.Second
	// leastRoom is what a spool has left that is not full.
	leastRoom = 1 << 20
	// A disk that failed is given another try after this long.
	diskPause = 10 * time.Second
)

// Spools reports whether events can be taken in while Postgres is away.
func (r *Receiver) Spools() bool {
	if r.options.Spool == nil || r.options.Spool.Room() < leastRoom {
		return false
	}
	failed := r.diskFailed.Load()
	return failed == nil || time.Since(*failed) > diskPause
}

// writeSpool writes one batch after the other until its queue is closed and empty.
// All requests of a batch share an fsync.
func (r *Receiver) writeSpool() {
	batch := make([]*waiting, 0, maxBatchEvents)
	for {
		batch = r.spooling.take(batch[:0])
		if len(batch) == 0 {
			return
		}
		r.appendToSpool(batch)
		clear(batch)
	}
}

func (r *Receiver) appendToSpool(batch []*waiting) {
	var records []spool.Record
	var fits []*waiting
	var failure error
	for room, i := r.options.Spool.Room(), 0; i < len(batch); i++ {
		// What decides among events without a time is their receipt: in this spool it never
		// goes back, though the clock may.
		event := &batch[i].event
		if event.ReceivedAt.Before(r.lastSpooled) {
			event.ReceivedAt = r.lastSpooled
		}
		r.lastSpooled = event.ReceivedAt.Round(0) // by the wall, as it is written
		record, err := encodeSpooled(batch[i])
		if room -= record.Size(); err == nil && room < 0 {
			err = spool.ErrFull
			room += record.Size() // a smaller one may still fit
		}
		if err != nil {
			batch[i].hold.free()
			batch[i].done <- stored{err: err}
			failure = err
			continue
		}
		records, fits = append(records, record), append(fits, batch[i])
	}
	if len(records) > 0 {
		if err := r.options.Spool.Append(records); err != nil {
			failure = err
		} else {
			// Before anybody is told: what they send next follows these.
			r.queue.divert(r.options.Spool.Len)
			for _, w := range fits {
				w.hold.free()
				w.done <- stored{accepted: ledger.Accepted{ID: w.event.ID}}
			}
			fits = nil
			select {
			case r.spooled <- struct{}{}:
			default:
			}
		}
	}
	for _, w := range fits {
		w.hold.free()
		w.done <- stored{err: failure}
	}
	r.noteDisk(failure)
}

// noteDisk logs when writing to the spool stops working and when it works again.
func (r *Receiver) noteDisk(err error) {
	if err == nil {
		if r.diskFailed.Swap(nil) != nil {
			r.options.Logger.Info("events are written to the spool again")
		}
		return
	}
	now := time.Now()
	if r.diskFailed.Swap(&now) == nil {
		r.options.Logger.Error("events cannot be written to the spool; senders are told to come again", "err", err)
	}
}

// drainSpool stores what is in the spool, oldest first, until ctx ends.
func (r *Receiver) drainSpool(ctx context.Context) {
	backlog := r.options.Spool.Len
	defer r.queue.settle(backlog, false)
	drained, unreadable := 0, false
	var pause time.Duration
	for ctx.Err() == nil {
		if backlog() == 0 {
			if drained > 0 {
				r.options.Logger.Info("the spool is empty again", "events", drained)
			}
			drained = 0
			select {
			case <-r.spooled:
			case <-ctx.Done():
			}
			continue
		}
		n, err := r.drainBatch(ctx)
		r.queue.settle(backlog, err == nil)
		drained += n
		if err == nil {
			pause, unreadable = 0, false
			continue
		}
		if errors.Is(err, errSpool) && !unreadable {
			unreadable = true
			r.options.Logger.Error("events in the spool wait for its disk", "err", err)
		}
		pause = min(max(firstPause, 2*pause), lastPause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// errSpool: it is not Postgres that fails.
var errSpool = errors.New("the spool fails")

// drainBatch stores the oldest events and returns how many those are.
func (r *Receiver) drainBatch(ctx context.Context) (int, error) {
	records, err := r.options.Spool.Peek(maxBatchEvents, maxBatchBytes)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errSpool, err)
	}
	if len(records) == 0 {
		return 0, nil
	}
	g := r.gates.Load()
	var batch []*waiting
	var events []ledger.Incoming
	gone := map[string]int{}
	for _, record := range records {
		w, err := reopenSpooled(g, record)
		if err != nil {
			r.options.Logger.Error("an event of the spool cannot be read; its segment will be kept", "err", err)
			r.options.Spool.Keep()
			continue
		}
		if g.bySource[w.event.Source] == nil {
			gone[w.event.Source]++
		}
		batch, events = append(batch, w), append(events, w.event)
	}
	if err := r.storeSpooled(ctx, batch, events); err != nil {
		return 0, err
	}
	for source, n := range gone {
		r.options.Logger.Warn("events of a source that the config no longer has are stored unmapped", "source", source, "events", n)
	}
	if err := r.options.Spool.Drop(len(records)); err != nil {
		return len(records), fmt.Errorf("%w: %w", errSpool, err)
	}
	return len(records), nil
}

// storeSpooled returns an error when any event must be stored again; those that were
// stored are known by their ids then.
func (r *Receiver) storeSpooled(ctx context.Context, batch []*waiting, events []ledger.Incoming) error {
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	r.store(ctx, batch, events)
	var failure error
	for _, w := range batch {
		s := <-w.done
		switch {
		case s.err == nil:
		case ledger.Refused(s.err):
			// Not even as malformed. It must not stop those behind it.
			r.options.Logger.Error("Postgres refuses an event of the spool; its segment will be kept", "event", w.event.ID, "source", w.event.Source, "trace", traceOf(w))
			r.options.Spool.Keep()
		default:
			failure = s.err
		}
	}
	return failure
}

// spooled is what stands before the body in a record of the spool: what is needed to
// open the body again, and what was read from it when it came.
type spooled struct {
	ID         uuid.UUID       `json:"id"`
	Source     string          `json:"source"`
	Named      string          `json:"named,omitempty"`
	ReceivedAt time.Time       `json:"received_at"`
	Headers    json.RawMessage `json:"headers,omitempty"`
	Type       string          `json:"type"`
	Entity     string          `json:"entity,omitempty"`
	OccurredAt time.Time       `json:"occurred_at,omitzero"`
	Rank       int16           `json:"rank,omitempty"`
	Status     ledger.Status   `json:"status"`
	Reason     string          `json:"reason,omitempty"`
	Trace      string          `json:"trace,omitempty"`
	VerifiedBy string          `json:"verified_by,omitempty"`
	Delivery   []byte          `json:"delivery,omitempty"`
}

// encodeSpooled writes the length of the head, the head, and the body.
func encodeSpooled(w *waiting) (spool.Record, error) {
	e := &w.event
	head, err := json.Marshal(spooled{
		e.ID, e.Source, w.named, e.ReceivedAt, e.Headers, e.Type, e.Entity, e.OccurredAt, e.Rank, e.Status, e.Reason,
		e.Trace, e.VerifiedBy, e.Delivery,
	})
	if err != nil {
		return spool.Record{}, fmt.Errorf("event %s: %w", e.ID, err)
	}
	data := make([]byte, 0, binary.MaxVarintLen32+len(head)+len(e.Body))
	data = binary.AppendUvarint(data, uint64(len(head)))
	data = append(append(data, head...), e.Body...)
	return spool.Record{At: e.ReceivedAt, Data: data}, nil
}

var errRecord = errors.New("it is not what this version writes")

func decodeSpooled(data []byte) (head spooled, body []byte, err error) {
	length, n := binary.Uvarint(data)
	if n <= 0 || length > uint64(len(data)-n) {
		return head, nil, errRecord
	}
	// Its error may quote what stands there.
	if json.Unmarshal(data[n:n+int(length)], &head) != nil || head.ID == uuid.Nil {
		return head, nil, errRecord
	}
	return head, data[n+int(length):], nil
}

// reopenSpooled makes the event to store as if it came now, but for its id, its time
// and its headers: where it goes is a matter of the present config, which may map
// more, or name other sinks, than the one under which it came.
func reopenSpooled(g *gates, record spool.Record) (w *waiting, err error) {
	head, body, err := decodeSpooled(record.Data)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // the next process would meet it again
			w, err = nil, fmt.Errorf("event %s: panic: %T", head.ID, p)
		}
	}()
	event := ledger.Incoming{
		ID: head.ID, Source: head.Source, ReceivedAt: head.ReceivedAt, Headers: head.Headers, Body: body, Again: true,
		Type: head.Type, Entity: head.Entity, OccurredAt: head.OccurredAt, Rank: head.Rank, Status: head.Status, Reason: head.Reason,
		Trace: head.Trace, VerifiedBy: head.VerifiedBy, Delivery: head.Delivery,
	}
	var e sources.Envelope
	at := g.bySource[head.Source]
	if at != nil {
		e = at.source.Open(head.Named, body)
	}
	switch {
	case at != nil && !e.Empty:
		describe(&event, at.source, &e, at.kind(&e).sinks)
	case event.Status != ledger.Stored: // as it was when it came
	case at == nil:
		event.Status, event.Reason = ledger.Unmapped, "the source is no longer in the config"
	default:
		event.Status, event.Reason = ledger.Unmapped, "the source takes this body for a test now"
	}
	return &waiting{event: event, named: head.Named, generation: g.generation, done: make(chan stored, 1)}, nil
}
