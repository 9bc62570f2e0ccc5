package ledger

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// expiryWait is how long a batch of Expire waits for a row that somebody else holds
// before it gives up.
const expiryWait = "500ms"

// Expire removes events that were received before a time, with their routes and
// deliveries: the oldest ones behind the id after, at most limit. One with an open
// route stays, and one that is being written to; their turn comes another day. It
// returns how many went, and after which id to go on; uuid.Nil is the end.
func (l *Ledger) Expire(ctx context.Context, before time.Time, after uuid.UUID, limit int) (removed int64, next uuid.UUID, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		removed = 0
		if _, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', $1, true)`, expiryWait); err != nil {
			return err
		}
		// Whoever opens a route of an event locks it: from here on nobody does.
		rows, err := tx.Query(ctx, `SELECT id FROM events WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED`, after, firstID(before), limit)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		if err != nil {
			return err
		}
		if next = uuid.Nil; len(ids) == limit {
			next = ids[len(ids)-1]
		}
		// Not in the same statement, which would not see a route that was opened while
		// it waited for the lock. See openRoutes for the condition.
		rows, err = tx.Query(ctx, `SELECT event_id FROM routes WHERE event_id = ANY($1) AND coalesce(outcome, '') = ''`, uuids(ids))
		if err != nil {
			return err
		}
		open := map[[16]byte]bool{}
		var id [16]byte
		if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { open[id] = true; return nil }); err != nil {
			return err
		}
		ids = slices.DeleteFunc(ids, func(id [16]byte) bool { return open[id] })
		if len(ids) == 0 {
			return nil
		}
		removed = int64(len(ids))
		batch := &pgx.Batch{}
		batch.Queue(`DELETE FROM deliveries WHERE event_id = ANY($1)`, uuids(ids))
		batch.Queue(`DELETE FROM observations WHERE event_id = ANY($1)`, uuids(ids))
		batch.Queue(`DELETE FROM routes WHERE event_id = ANY($1)`, uuids(ids))
		batch.Queue(`DELETE FROM events WHERE id = ANY($1)`, uuids(ids))
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return 0, after, fmt.Errorf("remove old events: %w", err)
	}
	return removed, next, nil
}

// firstID is below the ids that are made at a time or later, and above those made before.
func firstID(t time.Time) uuid.UUID {
	var id uuid.UUID
	if ms := t.UnixMilli(); ms > 0 {
		binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16)
	}
	return id
}

// ExpireAnnouncements removes what is left of requests that have long had their effect.
func (l *Ledger) ExpireAnnouncements(ctx context.Context) error {
	if _, err := l.pool.Exec(ctx, `DELETE FROM announcements WHERE until < now() - interval '10 minutes'`); err != nil {
		return fmt.Errorf("remove old announcements: %w", err)
	}
	return nil
}
