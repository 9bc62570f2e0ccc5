package ledger

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Tombstones are the addresses of people who are forgotten, as keyed hashes.
type Tombstones struct {
	secret []byte
	hashes map[[sha256.Size]byte]bool
}

// Tombstones returns those of the database, nil where there is none. Whoever works a
// sink reads them when it takes the sink: a new one makes it take the sink again.
func (l *Ledger) Tombstones(ctx context.Context) (*Tombstones, error) {
	rows, err := l.pool.Query(ctx, `SELECT k.secret, t.hash FROM tombstones t CROSS JOIN tombstone_key k`)
	if err != nil {
		return nil, fmt.Errorf("read the tombstones: %w", err)
	}
	t := &Tombstones{hashes: map[[sha256.Size]byte]bool{}}
	var hash []byte
	if _, err := pgx.ForEachRow(rows, []any{&t.secret, &hash}, func() error {
		t.hashes[[sha256.Size]byte(hash)] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the tombstones: %w", err)
	}
	if len(t.hashes) == 0 {
		return nil, nil
	}
	return t, nil
}

// Cover reports whether a text holds the address of somebody who is forgotten. It
// costs nothing where nobody is, as on nil.
func (t *Tombstones) Cover(text []byte) bool {
	if t == nil {
		return false
	}
	for _, a := range addressesIn(text) {
		if t.hashes[keyedHash(t.secret, string(a))] {
			return true
		}
	}
	return false
}

func keyedHash(secret []byte, text string) [sha256.Size]byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(text))
	return [sha256.Size]byte(h.Sum(nil))
}

// Erasure asks for an event to be erased.
type Erasure struct {
	Event  uuid.UUID
	Entity bool // its entity names the person too
}

// ReasonErased is why an event is erased, and its routes are skipped.
const ReasonErased = "a forgotten person"

// The digest stays: the same event is a duplicate as ever, and not stored again.
const eraseEvents = `
UPDATE events SET status = '` + string(Erased) + `', reason = $3, headers = NULL, body = '', entity = CASE WHEN id = ANY($2) THEN '' ELSE entity END
WHERE id = ANY($1) AND status <> '` + string(Erased) + `'`

func queueErasures(batch *pgx.Batch, erasures []Erasure) {
	if len(erasures) == 0 {
		return
	}
	var events, nameless uuids
	for _, e := range erasures {
		events = append(events, e.Event)
		if e.Entity {
			nameless = append(nameless, e.Event)
		}
	}
	batch.Queue(eraseEvents, events, nameless, ReasonErased)
}

// storedEvent is an event as it is searched for an address. The rows have the columns
// id, entity, status, headers and body.
type storedEvent struct {
	id      [16]byte
	entity  string
	status  string
	headers pgtype.DriverBytes
	body    pgtype.DriverBytes
}

func (e *storedEvent) into() []any { return []any{&e.id, &e.entity, &e.status, &e.headers, &e.body} }

// erasure returns what is to be erased of the event if anything of it is covered.
func (e *storedEvent) erasure(covers func([]byte) bool) (Erasure, bool) {
	named := covers([]byte(e.entity))
	return Erasure{Event: e.id, Entity: named}, named || covers(e.body) || covers(e.headers)
}

// A transaction may be late by that much: its events have older ids than some that
// others have stored before.
const lateness = time.Hour

// EraseLate erases the events that nobody works and that hold the address of somebody
// who is forgotten. It looks at limit events at most, those that have come since the
// last time, and returns how many it has erased and whether there are more to look at.
func (l *Ledger) EraseLate(ctx context.Context, limit int) (erased int, more bool, err error) {
	t, err := l.Tombstones(ctx)
	if t == nil || err != nil {
		return 0, false, err
	}
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var seen [16]byte
		if err := tx.QueryRow(ctx, `SELECT seen FROM tombstone_key FOR UPDATE`).Scan(&seen); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			SELECT id, entity, status, headers::text, body FROM events
			WHERE status IN ('unmapped', 'ignored', 'malformed') AND id > $1 ORDER BY id LIMIT $2`, seen, limit)
		if err != nil {
			return err
		}
		var e storedEvent
		var erasures []Erasure
		tag, err := pgx.ForEachRow(rows, e.into(), func() error {
			seen = e.id
			if erasure, ok := e.erasure(t.Cover); ok {
				erasures = append(erasures, erasure)
			}
			return nil
		})
		if err != nil {
			return err
		}
		erased, more = len(erasures), tag.RowsAffected() == int64(limit)
		if !more {
			seen = firstID(time.Now().Add(-lateness))
		}
		batch := &pgx.Batch{}
		queueErasures(batch, erasures)
		batch.Queue(`UPDATE tombstone_key SET seen = $1`, seen)
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return 0, false, fmt.Errorf("erase late events of forgotten people: %w", err)
	}
	return erased, more, nil
}

// late is the id of the oldest of the events that have waited elsewhere and that no sink
// wants, if there is one.
func late(events []Incoming) (oldest uuid.UUID, ok bool) {
	for i := range events {
		if e := &events[i]; e.Again && len(e.Sinks) == 0 && (!ok || bytes.Compare(e.ID[:], oldest[:]) < 0) {
			oldest, ok = e.ID, true
		}
	}
	return oldest, ok
}

// queueLate lets EraseLate look at such events, however long they have waited. It comes
// before the events, as in EraseLate, so that neither waits for the other in turn.
func queueLate(batch *pgx.Batch, events []Incoming) {
	if oldest, ok := late(events); ok {
		clear(oldest[8:]) // itself, too
		batch.Queue(`UPDATE tombstone_key SET seen = $1 WHERE seen >= $1`, oldest)
	}
}

func readLate(results pgx.BatchResults, events []Incoming) error {
	if _, ok := late(events); !ok {
		return nil
	}
	_, err := results.Exec()
	return err
}
