package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
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

const findRecord = `
SELECT id FROM records WHERE sink = $1 AND object = $2 AND crm_id <> '' AND crm_id = ANY($3)
UNION
SELECT record_id FROM record_keys WHERE sink = $1 AND object = $2 AND value = ANY($3)`

// findByValue is the slow way, for values that are no keys.
const findByValue = `
SELECT id FROM records r WHERE sink = $1 AND object = $2
AND EXISTS (SELECT FROM jsonb_each(r.fields) f WHERE f.value ->> 'v' = ANY($3)) LIMIT 20`

// Why returns the records of a sink that a text names: by our key, by the CRM's
// id or, where neither finds one, by the value of any field. names holds the text
// and its folded form.
func (l *Ledger) Why(ctx context.Context, sink, object string, names []string) ([]*RecordStory, error) {
	var ids []uuid.UUID
	for _, query := range []string{findRecord, findByValue} {
		rows, err := l.pool.Query(ctx, query, sink, object, names)
		if err != nil {
			return nil, fmt.Errorf("find the record: %w", err)
		}
		if ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
			return nil, fmt.Errorf("find the record: %w", err)
		}
		if len(ids) > 0 {
			break
		}
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
	if s.Record.Links, err = decodeLinks(links); err != nil {
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
