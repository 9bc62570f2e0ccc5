package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Observation is what a delivery of a sink that observes would have done.
type Observation struct {
	Event   uuid.UUID     `json:"event"`
	Run     int32         `json:"run"`
	Mapping string        `json:"mapping"`
	Object  string        `json:"object"`
	Key     string        `json:"key"`
	Outcome Outcome       `json:"outcome"` // that it would have had; Open while it is tried again
	Reason  string        `json:"reason"`
	Does    string        `json:"does"`   // one of Doings, "" where nothing would have been sent
	CRMID   string        `json:"crm_id"` // see IsImagined
	Fields  []Overwriting `json:"fields"`

	Record string `json:"-"` // the same for all observations of one record, whatever their keys; only of Observed
}

// What a delivery would have done.
const (
	Links     = "link"    // only links
	Updates   = "update"  // a record that we know
	Writes    = "write"   // makes or changes one: its sink cannot tell which
	Adopts    = "adopt"   // one that is there, and that we did not know
	Creates   = "create"  // makes one
	Archivals = "archive" // archives one
)

// Doings are what a delivery may do to its record. What comes later in the list decides what several
// come to.
var Doings = []string{"", Links, Updates, Writes, Adopts, Creates, Archivals}

// Overwriting is a field that would have been written.
type Overwriting struct {
	Name string `json:"name"`
	Old  any    `json:"old,omitempty"` // where the CRM has another value, which is not ours
	New  any    `json:"new"`
	At   int64  `json:"at"` // when, in microseconds since 1970: of two values the later stays
}

// imagined begins the id of a record that would have been made.
const imagined = "new:"

// ImagineID returns the id of a record that would have been made.
func ImagineID() string { return imagined + uuid.NewString() }

// IsImagined reports whether the record with an id is none that the CRM has.
func IsImagined(id string) bool { return strings.HasPrefix(id, imagined) }

// Shadow is the name under which the records of a sink that observes are kept: what they would be.
// It is the name of no sink.
func Shadow(sink string) string { return sink + shadowed }

const shadowed = "?"

// unshadowed is the name of the sink whose records, or would-be records, are kept under a name.
func unshadowed(name string) string { return strings.TrimSuffix(name, shadowed) }

// Identity is a way to find a record by what would have been written.
type Identity struct {
	Key    RecordKey // whose Key is a hash of the properties and their values
	Record uuid.UUID
}

func queueIdentities(batch *pgx.Batch, sink string, list []Identity) {
	if len(list) == 0 {
		return
	}
	keys, ids := make([]RecordKey, len(list)), make(uuids, len(list))
	for i, one := range list {
		keys[i], ids[i] = one.Key, one.Record
	}
	objects, _, values := keyColumns(keys)
	batch.Queue(`
		INSERT INTO imagined (sink, object, identity, record_id)
		SELECT DISTINCT ON (object, identity) $1, object, identity, id FROM unnest($2::text[], $3::text[], $4::uuid[]) AS i(object, identity, id)
		ORDER BY object, identity, id
		ON CONFLICT (sink, object, identity) DO UPDATE SET record_id = excluded.record_id`, sink, objects, values, ids)
}

// Imagined returns records as a sink that observes would have made or changed them, by their identities, with a key of
// ours that each carries. Whether one still has the values of the identity is for the caller to see.
func (l *Ledger) Imagined(ctx context.Context, sink string, identities []RecordKey) (map[RecordKey]*Record, error) {
	objects, _, values := keyColumns(identities)
	rows, err := l.pool.Query(ctx, `
		SELECT i.object, i.identity, i.record_id FROM unnest($2::text[], $3::text[]) AS q(object, identity)
		JOIN imagined i ON i.sink = $1 AND i.object = q.object AND i.identity = q.identity`, sink, objects, values)
	if err != nil {
		return nil, fmt.Errorf("look for records as sink %q would have written them: %w", sink, err)
	}
	ids := map[RecordKey]uuid.UUID{}
	var object, identity string
	var id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&object, &identity, (*[16]byte)(&id)}, func() error {
		for _, k := range identities {
			if k.Object == object && k.Key == identity {
				ids[k] = id
			}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look for records as sink %q would have written them: %w", sink, err)
	}
	found := map[RecordKey]*Record{}
	for k, id := range ids {
		r, err := l.Record(ctx, id)
		if err != nil {
			return nil, err
		}
		if r != nil {
			found[k] = r
		}
	}
	return found, nil
}

func queueObservations(batch *pgx.Batch, sink string, list []Observation) {
	if len(list) == 0 {
		return
	}
	for i := range list {
		o := &list[i]
		o.Key, o.Reason, o.CRMID = storable(o.Key), storable(o.Reason), storable(o.CRMID)
		for k := range o.Fields {
			o.Fields[k].Old, o.Fields[k].New = storableValue(o.Fields[k].Old), storableValue(o.Fields[k].New)
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err) // values of the ledger can be written as JSON
	}
	// A delivery that waits for a link has done something before: that counts as well.
	batch.Queue(`
		INSERT INTO observations AS have (event_id, sink, run, mapping, object, key, outcome, reason, does, crm_id, fields)
		SELECT event, $1, run, mapping, object, key, outcome, reason, does, crm_id, fields
		FROM jsonb_to_recordset($2) AS o (event uuid, run integer, mapping text, object text, key text, outcome text, reason text, does text, crm_id text, fields jsonb)
		ON CONFLICT (event_id, sink, run, mapping, object, key) DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason,
			does = CASE WHEN array_position($3, excluded.does) > array_position($3, have.does) THEN excluded.does ELSE have.does END,
			crm_id = coalesce(nullif(excluded.crm_id, ''), have.crm_id),
			fields = coalesce(nullif(have.fields, 'null'), '[]') || coalesce(nullif(excluded.fields, 'null'), '[]'), at = excluded.at`, sink, data, Doings)
}

// storableValue is a value without what Postgres does not take as jsonb: it knows no NUL.
func storableValue(v any) any {
	switch v := v.(type) {
	case string:
		return storable(v)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = storableValue(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			out[storable(name)] = storableValue(e)
		}
		return out
	}
	return v
}

// Of a route that was worked again since, the last run counts; of one that was worked for real after all, nothing. Several keys may
// name one record, which its id tells.
const observed = `
SELECT event_id, run, mapping, object, key, outcome, reason, does, crm_id, fields, coalesce('id ' || id, 'key ' || key) AS record
FROM (
	SELECT o.*, coalesce(max(nullif(crm_id, '')) FILTER (WHERE crm_id NOT LIKE 'new:%') OVER w, max(nullif(crm_id, '')) OVER w) AS id
	FROM observations o
	WHERE sink = $1 AND NOT EXISTS (SELECT FROM routes r WHERE r.event_id = o.event_id AND r.sink = o.sink
		AND (r.run > o.run OR r.run = o.run AND r.outcome <> '` + string(Observed) + `'))
	WINDOW w AS (PARTITION BY object, key)
) o ORDER BY object, record, at, event_id, mapping`

// Observed calls use for the observations of a sink, those of one record together and in the order in which they were made.
func (l *Ledger) Observed(ctx context.Context, sink string, use func(Observation) error) error {
	rows, err := l.pool.Query(ctx, observed, sink)
	if err != nil {
		return fmt.Errorf("read what sink %q would have done: %w", sink, err)
	}
	var o Observation
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&o.Event), &o.Run, &o.Mapping, &o.Object, &o.Key, &o.Outcome, &o.Reason, &o.Does, &o.CRMID, &o.Fields, &o.Record}, func() error {
		one := o
		o.Fields = nil
		return use(one)
	})
	if err != nil {
		return fmt.Errorf("read what sink %q would have done: %w", sink, err)
	}
	return nil
}

// DropShadow forgets what the records of a sink would be: it writes again, or observes anew.
func (l *Ledger) DropShadow(ctx context.Context, sink string) error {
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error { return dropShadow(ctx, tx, sink) })
	if err != nil {
		return fmt.Errorf("forget what the records of sink %q would be: %w", sink, err)
	}
	return nil
}

// Each step looks its rows up by index, however few of all records they are: an owner begins with it.
const dropShadowed = `
WITH step AS (SELECT object, property, value, record_id FROM record_keys WHERE sink = $1 LIMIT $2),
	keys AS (DELETE FROM record_keys k USING step s WHERE k.sink = $1 AND k.object = s.object AND k.property = s.property AND k.value = s.value),
	gone AS (DELETE FROM records WHERE id = ANY(ARRAY(SELECT record_id FROM step)))
SELECT count(*) FROM step`

func dropShadow(ctx context.Context, tx pgx.Tx, sink string) error {
	for n := 1; n > 0; {
		if err := tx.QueryRow(ctx, dropShadowed, Shadow(sink), rowsPerStep).Scan(&n); err != nil {
			return err
		}
	}
	// A statement that came late may have left a record to which no key leads.
	if _, err := tx.Exec(ctx, `DELETE FROM records WHERE sink = $1 AND crm_id <> ''`, Shadow(sink)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM imagined WHERE sink = $1`, sink)
	return err
}

// Guarded is how many rows a sink has sent since the hour began that its guard counts.
type Guarded struct {
	Since                         time.Time
	Creates, Overwrites, Archives int64
}

// Guarded returns what the guard of a sink has counted; zero where it has not begun.
func (l *Ledger) Guarded(ctx context.Context, sink string) (g Guarded, err error) {
	rows, err := l.pool.Query(ctx, `SELECT since, creates, overwrites, archives FROM guards WHERE sink = $1`, sink)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&g.Since, &g.Creates, &g.Overwrites, &g.Archives}, func() error { return nil })
	}
	if err != nil {
		return g, fmt.Errorf("read what the guard of sink %q has counted: %w", sink, err)
	}
	return g, nil
}

// Guard adds to what the guard of a sink has counted. Where its hour is a later one, the counts of the former are over.
func (l *Ledger) Guard(ctx context.Context, sink string, more Guarded) error {
	_, err := l.pool.Exec(ctx, `
		INSERT INTO guards AS have (sink, since, creates, overwrites, archives) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (sink) DO UPDATE SET since = excluded.since,
			creates = excluded.creates + CASE WHEN have.since = excluded.since THEN have.creates ELSE 0 END,
			overwrites = excluded.overwrites + CASE WHEN have.since = excluded.since THEN have.overwrites ELSE 0 END,
			archives = excluded.archives + CASE WHEN have.since = excluded.since THEN have.archives ELSE 0 END
		WHERE have.since <= excluded.since`, sink, more.Since, more.Creates, more.Overwrites, more.Archives)
	if err != nil {
		return fmt.Errorf("count for the guard of sink %q: %w", sink, err)
	}
	return nil
}

// Unguard has the guard of a sink count anew.
func (l *Ledger) Unguard(ctx context.Context, sink string) error {
	if _, err := l.pool.Exec(ctx, `DELETE FROM guards WHERE sink = $1`, sink); err != nil {
		return fmt.Errorf("have the guard of sink %q count anew: %w", sink, err)
	}
	return nil
}
