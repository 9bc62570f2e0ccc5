package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/shopspring/decimal"

	"partnersync/records"
)

// Account of a record: what is wanted of it and why.
type RecordStory struct {
	Record  *Record
	Keys    []RecordKey // aliases, folded
	Events  map[uuid.UUID]EventLine
	Dropped []DroppedDelivery
}

// DroppedDelivery is a delivery to the record that came to nothing.
type DroppedDelivery struct {
	Event   uuid.UUID `json:"event"`
	Type    string    `json:"type"` // "source.type"
	Mapping string    `json:"mapping"`
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

// findRecord walks through the properties that keys of the object
// have, so that the whole of each index fits.
const findRecord = `
WITH RECURSIVE properties AS (
	(SELECT property FROM record_keys WHERE sink = $1 AND object = $2 ORDER BY property LIMIT 1)
	UNION ALL
	SELECT (SELECT k.property FROM record_keys k WHERE k.sink = $1 AND k.object = $2 AND k.property > p.property ORDER BY k.property LIMIT 1)
	FROM properties p WHERE p.property IS NOT NULL
)
SELECT id FROM records WHERE sink = $1 AND object = $2 AND crm_id <> '' AND crm_id = ANY($3)
UNION
SELECT k.record_id FROM properties p
JOIN record_keys k ON k.sink = $1 AND k.object = $2 AND k.property = p.property AND k.value = ANY($3)`

// findByValue is the slow way, for values that are no keys: it reads all records of the
// object. An index of values would have to be kept up with each change of a record.
const findByValue = `
SELECT id FROM records WHERE sink = $1 AND object = $2
AND jsonb_path_exists(fields, '$.*.v ? (@ == $names[*])', jsonb_build_object('names', $3::jsonb)) LIMIT 20`

// ErrTooSlow means that a search was given up, since it would have taken too long.
var ErrTooSlow = errors.New("the search takes too long")

// Why returns the records of a sink that a text names: by our key, by the CRM's
// id or, where neither finds one, by the value of any field. names holds the text
// and its folded form. The search by value is given up after patience, with ErrTooSlow.
func (l *Ledger) Why(ctx context.Context, sink, object string, names []string, patience time.Duration) ([]*RecordStory, error) {
	rows, err := l.pool.Query(ctx, findRecord, sink, object, names)
	if err != nil {
		return nil, fmt.Errorf("find the record: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err == nil && len(ids) == 0 {
		ids, err = l.findByValue(ctx, sink, object, names, patience)
	}
	if err != nil {
		return nil, fmt.Errorf("find the record: %w", err)
	}
	var stories []*RecordStory
	for _, id := range ids {
		s, err := l.recordStory(ctx, sink, id)
		if err != nil {
			return nil, fmt.Errorf("read record %s: %w", id, err)
		}
		stories = append(stories, s)
	}
	return stories, nil
}

func (l *Ledger) findByValue(ctx context.Context, sink, object string, names []string, patience time.Duration) (ids []uuid.UUID, err error) {
	values := make([]any, len(names))
	for i, name := range names {
		values[i] = name
	}
	if n, err := decimal.NewFromString(names[0]); err == nil && len(names[0]) < 40 {
		values = append(values, n)
	}
	list := string(records.AppendJSON(nil, values))
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', $1, true)`, fmt.Sprint(patience.Milliseconds())); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, findByValue, sink, object, list)
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "57014" && ctx.Err() == nil {
		return nil, ErrTooSlow
	}
	return ids, err
}

func (l *Ledger) recordStory(ctx context.Context, sink string, id uuid.UUID) (*RecordStory, error) {
	s := &RecordStory{Record: &Record{ID: id}, Events: map[uuid.UUID]EventLine{}}
	var presence string
	var fields, links []byte
	err := l.pool.QueryRow(ctx, `SELECT object, crm_id, presence, fields, links FROM records WHERE id = $1`, id).
		Scan(&s.Record.Object, &s.Record.CRMID, &presence, &fields, &links)
	if err != nil {
		return nil, err
	}
	s.Record.Presence = Presence(presence)
	if s.Record.Fields, err = decodeFields(fields); err != nil {
		return nil, err
	}
	if s.Record.Links, s.Record.Only, err = decodeLinks(links); err != nil {
		return nil, err
	}
	rows, err := l.pool.Query(ctx, `SELECT object, property, value FROM record_keys WHERE record_id = $1 ORDER BY property, value`, id)
	if err != nil {
		return nil, err
	}
	if s.Keys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[RecordKey]); err != nil {
		return nil, err
	}
	var events []uuid.UUID
	for _, f := range s.Record.Fields {
		events = append(events, f.Version.Event)
	}
	for _, k := range s.Record.Links {
		events = append(events, k.Version.Event)
	}
	lines, err := l.Events(ctx, Filter{IDs: append(events, uuid.Nil)}, len(events)+1)
	if err != nil {
		return nil, err
	}
	for _, e := range lines {
		s.Events[e.ID] = e
	}
	// What was dropped came from events about the same things.
	values := make([]string, len(s.Keys))
	for i, k := range s.Keys {
		values[i] = k.Key
	}
	rows, err = l.pool.Query(ctx, `
		WITH things AS (SELECT DISTINCT source, entity FROM events WHERE id = ANY($1) AND entity <> '')
		SELECT d.event_id, e.source || '.' || e.type, d.mapping, d.outcome, d.reason, d.at
		FROM things t JOIN events e ON e.source = t.source AND e.entity = t.entity AND e.entity <> ''
		JOIN deliveries d ON d.event_id = e.id AND d.sink = $2 AND d.object = $3 AND (d.key = ANY($4) OR lower(d.key) = ANY($4))
		WHERE d.outcome IN ('stale', 'dead', 'skipped') ORDER BY d.at DESC LIMIT 50`, events, sink, s.Record.Object, values)
	if err != nil {
		return nil, err
	}
	s.Dropped, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DroppedDelivery])
	return s, err
}
