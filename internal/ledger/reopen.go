package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Kept is an event that could not be read when it came.
type Kept struct {
	ID         uuid.UUID
	Source     string
	Type       string // as its URL names it
	ReceivedAt time.Time
	Headers    []byte // a JSON object, or nil
	Trace      string
	VerifiedBy string
	Body       []byte
}

// MalformedEvents returns the next malformed events that a filter selects, oldest
// first, at most limit, behind the event after.
func (l *Ledger) MalformedEvents(ctx context.Context, f Filter, after uuid.UUID, limit int) ([]Kept, error) {
	args := append([]any{pgx.QueryExecModeCacheDescribe}, f.args()...)
	rows, err := l.pool.Query(ctx, `
		SELECT e.id, e.source, e.type, e.received_at, e.headers::text, e.trace, e.verified_by, e.body FROM events e
		WHERE e.status = 'malformed' AND e.id > $13 AND `+where+` ORDER BY e.id LIMIT $14`, append(args, after, limit)...)
	if err != nil {
		return nil, fmt.Errorf("list malformed events: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Kept])
	if err != nil {
		return nil, fmt.Errorf("list malformed events: %w", err)
	}
	return list, nil
}

// Reopen stores what a malformed event holds, now that it can be read, in its place:
// the first of the events has its id. They are accepted as out of a spool, among what
// has come since. ErrNotFound means that it is malformed no more.
func (l *Ledger) Reopen(ctx context.Context, id uuid.UUID, events []Incoming, generation int64) ([]Accepted, error) {
	var accepted []Accepted
	err := l.run(func() error {
		return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, `DELETE FROM events WHERE id = $1 AND status = 'malformed'`, id)
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				return ErrNotFound
			}
			accepted, err = accept(ctx, tx, events, generation, 1)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read event %s again: %w", id, err)
	}
	return accepted, nil
}
