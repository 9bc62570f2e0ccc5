package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"partnersync/records"
)

// KnownRecord is a record that the CRM has, for all that we know, with all keys that lead to it.
type KnownRecord struct {
	*Record
	Keys []RecordKey
}

// KnownObject is an object of which we know records that the CRM has, and about how many.
type KnownObject struct {
	Object  string
	Records int64
}

// knownObjects takes a step through the index for each object.
const knownObjects = `
WITH RECURSIVE objects AS (
	(SELECT object FROM records WHERE sink = $1 AND crm_id <> '' ORDER BY object LIMIT 1)
	UNION ALL
	SELECT (SELECT r.object FROM records r WHERE r.sink = $1 AND r.crm_id <> '' AND r.object > o.object ORDER BY r.object LIMIT 1)
	FROM objects o WHERE o.object IS NOT NULL
)
SELECT o.object, (SELECT count(*) FROM records r WHERE r.sink = $1 AND r.object = o.object AND r.crm_id <> '' AND r.crm_id > coalesce($2::jsonb ->> o.object, ''))
FROM objects o WHERE o.object IS NOT NULL ORDER BY o.object`

// KnownObjects returns the objects of a sink, by their names. Of one of after, the records behind
// that id of the CRM count.
func (l *Ledger) KnownObjects(ctx context.Context, sink string, after map[string]string) ([]KnownObject, error) {
	text, err := json.Marshal(after)
	if err != nil {
		return nil, fmt.Errorf("read the objects of sink %q: %w", sink, err)
	}
	rows, err := l.pool.Query(ctx, knownObjects, sink, string(text))
	if err != nil {
		return nil, fmt.Errorf("read the objects of sink %q: %w", sink, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[KnownObject])
	if err != nil {
		return nil, fmt.Errorf("read the objects of sink %q: %w", sink, err)
	}
	return list, nil
}

const withKeys = `
SELECT r.id, r.object, r.crm_id, r.presence, r.fields, r.links, r.revision,
	ARRAY(SELECT k.property FROM record_keys k WHERE k.record_id = r.id ORDER BY k.property, k.value),
	ARRAY(SELECT k.value FROM record_keys k WHERE k.record_id = r.id ORDER BY k.property, k.value)
FROM r ORDER BY r.crm_id, r.id`

// knownRecords goes along the index of the CRM's ids.
const knownRecords = `
WITH r AS MATERIALIZED (
	SELECT * FROM records
	WHERE sink = $1 AND object = $2 AND crm_id <> '' AND (crm_id, id) > ($3, $4) AND presence = 'present'
	ORDER BY crm_id, id LIMIT $5
)` + withKeys

// KnownRecords returns the next records of an object that the CRM has, for all that we know, in the
// order of its ids: those behind the record with this id, and of one id the id of ours.
func (l *Ledger) KnownRecords(ctx context.Context, sink, object, crmID string, id uuid.UUID, limit int) ([]KnownRecord, error) {
	// Planned anew each time: a plan for any limit would read all records and sort them.
	rows, err := l.pool.Query(ctx, knownRecords, pgx.QueryExecModeCacheDescribe, sink, object, crmID, id, limit)
	if err != nil {
		return nil, fmt.Errorf("read the records of sink %q: %w", sink, err)
	}
	return scanKnown(sink, rows)
}

// KnownAgain returns those among records that the CRM has, for all that we know now.
func (l *Ledger) KnownAgain(ctx context.Context, sink string, ids []uuid.UUID) ([]KnownRecord, error) {
	rows, err := l.pool.Query(ctx, `
		WITH r AS MATERIALIZED (SELECT * FROM records WHERE id = ANY($2) AND sink = $1 AND crm_id <> '' AND presence = 'present')`+withKeys, sink, asUUIDs(ids))
	if err != nil {
		return nil, fmt.Errorf("read records of sink %q again: %w", sink, err)
	}
	return scanKnown(sink, rows)
}

func scanKnown(sink string, rows pgx.Rows) ([]KnownRecord, error) {
	var list []KnownRecord
	var id uuid.UUID
	var object, crmID, presence string
	var fields, links []byte
	var revision int64
	var properties, values []string
	_, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&id), &object, &crmID, &presence, &fields, &links, &revision, &properties, &values}, func() error {
		r := &Record{ID: id, Object: object, CRMID: crmID, Presence: Presence(presence), Revision: revision}
		var err error
		if r.Fields, err = decodeFields(fields); err != nil {
			return fmt.Errorf("record %s: fields: %w", id, err)
		}
		if r.Links, r.Only, err = decodeLinks(links); err != nil {
			return fmt.Errorf("record %s: links: %w", id, err)
		}
		known := KnownRecord{Record: r}
		for i, property := range properties {
			known.Keys = append(known.Keys, RecordKey{Object: object, Property: property, Key: values[i]})
		}
		if len(known.Keys) > 0 {
			r.Property, r.Key = known.Keys[0].Property, known.Keys[0].Key
		}
		list = append(list, known)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the records of sink %q: %w", sink, err)
	}
	return list, nil
}

// Moving returns those among records of which something has been written since they were read, or that
// a request on its way may be changing.
func (l *Ledger) Moving(ctx context.Context, sink string, list []KnownRecord) (map[uuid.UUID]bool, error) {
	if len(list) == 0 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(list))
	for i, r := range list {
		ids[i] = r.ID
	}
	now := map[uuid.UUID]int64{}
	announced := map[string]bool{}
	var text string
	var id uuid.UUID
	var revision int64
	batch := &pgx.Batch{}
	batch.Queue(`SELECT id, revision FROM records WHERE id = ANY($1)`, asUUIDs(ids)).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&id), &revision}, func() error {
			now[id] = revision
			return nil
		})
		return err
	})
	batch.Queue(announcedRecords, sink).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&text}, func() error {
			announced[text] = true
			return nil
		})
		return err
	})
	if err := l.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read the records of sink %q again: %w", sink, err)
	}
	moving := map[uuid.UUID]bool{}
	for _, r := range list {
		if revision, there := now[r.ID]; !there || revision != r.Revision || r.among(announced) {
			moving[r.ID] = true
		}
	}
	return moving, nil
}

const announcedRecords = `SELECT unnest(records) FROM announcements WHERE sink = $1 AND until > now()`

// among reports whether announcements name the record.
func (r *KnownRecord) among(announced map[string]bool) bool {
	keys := append(slices.Clone(r.Keys), records.KeyOf(r.ID), records.KeyOfID(r.Object, r.CRMID))
	return slices.ContainsFunc(keyTexts(keys), func(text string) bool { return announced[text] })
}

// Repair is what is to be sent again of a record: fields, with the versions that were seen.
type Repair struct {
	ID     uuid.UUID
	Fields map[string]Version
}

// Repaired is what has become of repairs.
type Repaired struct {
	Replay  int64 // its number; 0 where nothing is replayed
	Routes  int64
	Records int64 // of which something is sent again
	Fields  int64
	Moving  int64 // fields of records that are being written, or have been since they were seen
	Lost    int64 // fields whose event is not stored any more, or no mapping of today wants it
}

// Repair notes that nobody knows whether the CRM has these fields, and replays the events whose values
// they are, so that just these are sent again. spec tells by whom and under which config; what it selects is
// what is found. Of a record that is being written nothing is touched.
//
// Where the replay is cut short the number is returned along with the error: see Replay.
func (l *Ledger) Repair(ctx context.Context, sink string, list []Repair, spec ReplaySpec) (*Repaired, error) {
	spec.Rewrite = false
	out := &Repaired{}
	err := l.run(func() error {
		return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) (err error) {
			*out = Repaired{}
			spec.Filter = Filter{Sink: sink}
			return l.repair(ctx, tx, sink, list, &spec, out)
		})
	})
	if err != nil {
		return &Repaired{}, fmt.Errorf("repair: %w", err)
	}
	if out.Replay != 0 {
		out.Routes, err = l.replay(ctx, out.Replay, &spec)
	}
	return out, err
}

func (l *Ledger) repair(ctx context.Context, tx pgx.Tx, sink string, list []Repair, spec *ReplaySpec, out *Repaired) error {
	var ids, events []uuid.UUID
	wanted := map[uuid.UUID]map[string]Version{}
	for _, r := range list {
		ids = append(ids, r.ID)
		wanted[r.ID] = r.Fields
		for _, v := range r.Fields {
			events = append(events, v.Event)
		}
	}
	stored, err := l.replayable(ctx, tx, events, spec)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT FROM records WHERE id = ANY($1) ORDER BY id FOR UPDATE`, asUUIDs(ids)); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `WITH r AS MATERIALIZED (SELECT * FROM records WHERE id = ANY($2) AND sink = $1)`+withKeys, sink, asUUIDs(ids))
	if err != nil {
		return err
	}
	known, err := scanKnown(sink, rows)
	if err != nil {
		return err
	}
	rows, err = tx.Query(ctx, announcedRecords, sink)
	if err != nil {
		return err
	}
	announced, text := map[string]bool{}, ""
	if _, err := pgx.ForEachRow(rows, []any{&text}, func() error {
		announced[text] = true
		return nil
	}); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	replayed := map[uuid.UUID]bool{}
	for _, r := range known {
		fields := wanted[r.ID]
		delete(wanted, r.ID)
		if r.among(announced) || r.Presence != records.Present {
			out.Moving += int64(len(fields))
			continue
		}
		n := int64(0)
		for name, v := range fields {
			f := r.Fields[name]
			switch {
			case f == nil || f.Version != v || f.Standing() != records.CanCompare:
				out.Moving++
			case !stored[v.Event]:
				out.Lost++
			default:
				f.Resend()
				replayed[v.Event] = true
				n++
			}
		}
		if n > 0 {
			out.Records++
			out.Fields += n
			batch.Queue(`UPDATE records SET fields = $2, revision = revision + 1, updated_at = now() WHERE id = $1`, r.ID, encodeFields(r.Fields))
		}
	}
	for _, fields := range wanted { // merged into others meanwhile
		out.Moving += int64(len(fields))
	}
	if out.Records == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	for id := range replayed {
		spec.Filter.IDs = append(spec.Filter.IDs, id)
	}
	slices.SortFunc(spec.Filter.IDs, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	out.Replay, err = insertReplay(ctx, tx, spec)
	return err
}

// replayable are the events among ids that can be replayed to the sink.
func (l *Ledger) replayable(ctx context.Context, tx pgx.Tx, ids []uuid.UUID, spec *ReplaySpec) (map[uuid.UUID]bool, error) {
	rows, err := tx.Query(ctx, `SELECT id, source, type FROM events WHERE id = ANY($1) AND status IN ('stored', 'unmapped')`, asUUIDs(ids))
	if err != nil {
		return nil, err
	}
	out := map[uuid.UUID]bool{}
	var id uuid.UUID
	var source, typ string
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&id), &source, &typ}, func() error {
		out[id] = len(spec.sinks(source, typ)) > 0
		return nil
	})
	return out, err
}

// KnownAccount returns the account of the CRM that a sink has been writing to; "" where that is not known.
func (l *Ledger) KnownAccount(ctx context.Context, sink string) (string, error) {
	var account string
	err := l.pool.QueryRow(ctx, `SELECT account FROM sinks WHERE name = $1`, sink).Scan(&account)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read the account of sink %q: %w", sink, err)
	}
	return account, nil
}
