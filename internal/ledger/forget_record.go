package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"partnersync/records"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// stepRecords erases what records hold of the person.
func (f *forgetting) stepRecords(ctx context.Context, at *place) (bool, error) {
	rows, err := f.pool.Query(ctx, `
		SELECT r.id, r.sink, r.object, r.crm_id, r.fields::text, r.links::text,
			ARRAY(SELECT k.value FROM record_keys k WHERE k.record_id = r.id AND k.value ~ '[@%\\&]')
		FROM records r WHERE r.id > $1 ORDER BY r.id LIMIT $2`, at.id, rowsPerStep)
	if err != nil {
		return false, err
	}
	type held struct {
		record uuid.UUID
		sink   string
		keys   []string // that hold the address
	}
	var found []held
	var sink, object, crmID string
	var fields, links pgtype.DriverBytes
	var keys []string
	tag, err := pgx.ForEachRow(rows, []any{&at.id, &sink, &object, &crmID, &fields, &links, &keys}, func() error {
		h := held{record: at.id, sink: unshadowed(sink)}
		for _, k := range keys {
			if f.Address.In([]byte(k)) {
				h.keys = append(h.keys, k)
			}
		}
		holds := len(h.keys) > 0 || f.Address.In(fields)
		if !holds && !f.Address.In(links) && !mentions(fields, f.erased) {
			return nil // most are of this kind, and need not be read
		}
		state, err := f.without(fields, links, len(h.keys) > 0)
		if err != nil {
			return fmt.Errorf("record %s: %w", h.record, err)
		}
		if state == nil {
			return nil
		}
		found = append(found, h)
		if holds && crmID != "" && !IsImagined(crmID) {
			f.crm[CRMRecord{Sink: h.sink, Object: object, ID: crmID, Holds: true}] = true
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	at.done += tag.RowsAffected()
	more := tag.RowsAffected() == rowsPerStep
	if f.DryRun {
		f.done.Records += int64(len(found))
		return more, nil
	}
	if len(found) == 0 {
		return more, nil
	}
	var changed int64
	err = f.change(ctx, func(tx pgx.Tx) error {
		changed = 0
		batch := &pgx.Batch{}
		var sinks []string
		for _, h := range found {
			did, err := f.eraseRecord(ctx, tx, batch, h.record, h.keys)
			if err != nil {
				return fmt.Errorf("record %s: %w", h.record, err)
			}
			if did {
				changed++
				sinks = append(sinks, h.sink)
			}
		}
		// Whoever has read such a record must not write it again.
		batch.Queue(`UPDATE sinks SET epoch = epoch + 1 WHERE name = ANY($1)`, sinks)
		return tx.SendBatch(ctx, batch).Close()
	})
	f.done.Records += changed
	return more, err
}

// eraseRecord locks a record, so that its present state counts, and queues what is to
// become of it.
func (f *forgetting) eraseRecord(ctx context.Context, tx pgx.Tx, batch *pgx.Batch, id uuid.UUID, keys []string) (bool, error) {
	var fieldsText, linksText []byte
	err := tx.QueryRow(ctx, `SELECT fields::text, links::text FROM records WHERE id = $1 FOR UPDATE`, id).Scan(&fieldsText, &linksText)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	state, err := f.without(fieldsText, linksText, len(keys) > 0)
	if state == nil || err != nil {
		return false, err
	}
	batch.Queue(`UPDATE records SET fields = $2, links = $3, revision = revision + 1, updated_at = now() WHERE id = $1`, id, encodeFields(state.Fields), encodeLinks(state))
	batch.Queue(`DELETE FROM record_keys WHERE record_id = $1 AND value = ANY($2)`, id, keys)
	batch.Queue(`DELETE FROM imagined WHERE record_id = $1`, id) // it is hers no more
	return true, nil
}

// without returns the fields and links of a record without what they hold of the
// person, nil where that is nothing. A record that holds the address is hers, as is one
// that a key says is: all its values go. Of another one those go that come from an
// erased event.
func (f *forgetting) without(fields, links []byte, hers bool) (*Record, error) {
	changed := hers
	hers = hers || f.Address.In(fields)
	r := &Record{}
	var err error
	if r.Fields, err = decodeFields(fields); err != nil {
		return nil, err
	}
	if r.Links, r.Only, err = decodeLinks(links); err != nil {
		return nil, err
	}
	for _, field := range r.Fields {
		if field.Rule != ruleErased && (hers || f.erased[field.Version.Event] || f.erased[field.AckedAt.Event]) {
			erase(field)
			changed = true
		}
	}
	for name, link := range r.Links {
		if f.Address.In([]byte(link.Key)) {
			delete(r.Links, name)
			changed = true
		}
	}
	if !changed {
		return nil, nil
	}
	return r, nil
}

// ruleErased stands for the rule of a field that is erased.
const ruleErased = "erased"

// erase leaves of a field which event was the newest, so that an older one does not
// decide it, and nothing to send.
func erase(f *Field) {
	f.Wanted, f.Acked = records.NewValue(nil), records.NewValue(nil)
	f.AckedAt, f.Refused, f.Kept, f.Rule = f.Version, f.Version.Event, nil, ruleErased
	f.Added = nil
}

// mentions reports whether a text has one of the ids in quotes.
func mentions(text []byte, ids map[uuid.UUID]bool) bool {
	const size = 36
	if len(ids) == 0 {
		return false
	}
	for {
		quote := bytes.IndexByte(text, '"')
		if quote < 0 {
			return false
		}
		text = text[quote+1:]
		if len(text) <= size || text[size] != '"' || text[8] != '-' {
			continue
		}
		if id, err := uuid.ParseBytes(text[:size]); err == nil && ids[id] {
			return true
		}
	}
}
