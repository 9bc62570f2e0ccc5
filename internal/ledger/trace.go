package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Fate is what has become of a route so far.
type Fate struct {
	Event      uuid.UUID
	Sink       string
	Run        int32
	Outcome    Outcome
	Reason     string
	ReceivedAt time.Time
	ClosedAt   time.Time // zero while open
	Deliveries []Delivery
}

const fates = `
SELECT r.event_id, r.sink, r.run, r.outcome, r.reason, e.received_at, r.closed_at
FROM routes r JOIN events e ON e.id = r.event_id WHERE r.event_id = ANY($1) ORDER BY r.event_id, r.sink, r.run`

const fateDeliveries = `
SELECT event_id, sink, run, mapping, object, key, outcome, class, reason, attempts, status, crm_id
FROM deliveries WHERE event_id = ANY($1) ORDER BY event_id, sink, run, mapping, object, key`

// Fates returns what has become of the routes of events, deliveries included.
func (l *Ledger) Fates(ctx context.Context, events []uuid.UUID) ([]*Fate, error) {
	type at struct {
		event uuid.UUID
		sink  string
		run   int32
	}
	var list []*Fate
	byRoute := map[at]*Fate{}
	batch := &pgx.Batch{}
	batch.Queue(fates, events).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			f := &Fate{}
			var outcome *string
			var closed *time.Time
			if err := rows.Scan(&f.Event, &f.Sink, &f.Run, &outcome, &f.Reason, &f.ReceivedAt, &closed); err != nil {
				return err
			}
			if outcome != nil {
				f.Outcome = Outcome(*outcome)
			}
			if closed != nil {
				f.ClosedAt = *closed
			}
			list = append(list, f)
			byRoute[at{f.Event, f.Sink, f.Run}] = f
		}
		return rows.Err()
	})
	batch.Queue(fateDeliveries, events).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var d Delivery
			var sink string
			var outcome *string
			if err := rows.Scan(&d.Event, &sink, &d.Run, &d.Mapping, &d.Object, &d.Key, &outcome, &d.Class, &d.Reason, &d.Attempts, &d.Status, &d.CRMID); err != nil {
				return err
			}
			if outcome != nil {
				d.Outcome = Outcome(*outcome)
			}
			if f := byRoute[at{d.Event, sink, d.Run}]; f != nil {
				f.Deliveries = append(f.Deliveries, d)
			}
		}
		return rows.Err()
	})
	if err := l.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read what became of events: %w", err)
	}
	return list, nil
}
