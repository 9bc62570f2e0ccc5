package ledger

import (
	"context"
	"encoding/json"
	"fmt"

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
	Outcome Outcome       `json:"outcome"` // that it would have had
	Reason  string        `json:"reason"`
	Does    string        `json:"does"` // create, adopt, update, archive, link; "" where nothing would have been sent
	CRMID   string        `json:"crm_id"`
	Fields  []Overwriting `json:"fields"`
}

// Overwriting is a field that would have been written.
type Overwriting struct {
	Name string `json:"name"`
	Old  any    `json:"old,omitempty"` // where the CRM has another value, that is not ours
	New  any    `json:"new"`
}

// Shadow is the name under which the records of a sink that observes are kept: what they would be.
func Shadow(sink string) string { return sink + "?" }

func queueObservations(batch *pgx.Batch, sink string, list []Observation) {
	if len(list) == 0 {
		return
	}
	for i := range list {
		list[i].Key, list[i].Reason, list[i].CRMID = storable(list[i].Key), storable(list[i].Reason), storable(list[i].CRMID)
	}
	batch.Queue(`
		INSERT INTO observations (event_id, sink, run, mapping, object, key, outcome, reason, does, crm_id, fields)
		SELECT event, $1, run, mapping, object, key, outcome, reason, does, crm_id, fields
		FROM jsonb_to_recordset($2) AS o (event uuid, run integer, mapping text, object text, key text, outcome text, reason text, does text, crm_id text, fields jsonb)
		ON CONFLICT (event_id, sink, run, mapping, object, key) DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason,
			does = CASE WHEN excluded.does = '' THEN observations.does ELSE excluded.does END, crm_id = excluded.crm_id,
			fields = CASE WHEN excluded.does = '' THEN observations.fields ELSE excluded.fields END, at = excluded.at`, sink, jsonOf(list))
}

// jsonOf is what Postgres takes as jsonb: it knows no NUL.
func jsonOf(list []Observation) []byte {
	for i := range list {
		for k := range list[i].Fields {
			f := &list[i].Fields[k]
			f.Old, f.New = storableValue(f.Old), storableValue(f.New)
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err) // values of the ledger can be written as JSON
	}
	return data
}

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

// Observed calls use for the observations of a sink, those of one record together and in the order in which they were made. Of
// routes that were worked again since, the last run counts.
func (l *Ledger) Observed(ctx context.Context, sink string, use func(Observation) error) error {
	rows, err := l.pool.Query(ctx, `
		SELECT event_id, run, mapping, object, key, outcome, reason, does, crm_id, fields FROM observations o
		WHERE sink = $1 AND NOT EXISTS (SELECT FROM routes r WHERE r.event_id = o.event_id AND r.sink = o.sink AND r.run > o.run)
		ORDER BY sink, object, key, at`, sink)
	if err != nil {
		return fmt.Errorf("read what sink %q would have done: %w", sink, err)
	}
	var o Observation
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&o.Event), &o.Run, &o.Mapping, &o.Object, &o.Key, &o.Outcome, &o.Reason, &o.Does, &o.CRMID, &o.Fields}, func() error {
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
	_, err := l.pool.Exec(ctx, `
		WITH gone AS (DELETE FROM record_keys WHERE sink = $1 RETURNING record_id)
		DELETE FROM records WHERE id IN (SELECT record_id FROM gone)`, Shadow(sink))
	if err != nil {
		return fmt.Errorf("forget what the records of sink %q would be: %w", sink, err)
	}
	return nil
}

// Imagined returns the id of a record that a sink which observes would have made, with these values; "" where there is none.
func (l *Ledger) Imagined(ctx context.Context, sink, object string, values map[string]string) (string, error) {
	conditions, args := "", []any{Shadow(sink), object}
	for name, value := range values {
		args = append(args, name, value)
		conditions += fmt.Sprintf(` AND lower(coalesce(fields -> $%d ->> 'a', fields -> $%d ->> 'v')) = lower($%d)`, len(args)-1, len(args)-1, len(args))
	}
	var id string
	err := l.pool.QueryRow(ctx, `SELECT coalesce(min(crm_id), '') FROM records WHERE sink = $1 AND object = $2 AND crm_id LIKE 'new:%'`+conditions, args...).Scan(&id)
	if err != nil {
		return "", fmt.Errorf("look for records that sink %q would have made: %w", sink, err)
	}
	return id, nil
}
