package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The chronicle is what partnersync's own tables forget: triggers keep each event as it was
// stored, each write intent with its end, which record each key has named since when, and how routes
// ended that are gone.
const chronicle = `
CREATE SCHEMA chaos;
CREATE TABLE chaos.events (
	at timestamptz NOT NULL DEFAULT clock_timestamp(), id uuid PRIMARY KEY, type text, entity text, occurred_at timestamptz,
	version_at timestamptz, received_at timestamptz, rank smallint, status text, body bytea
);
CREATE INDEX ON chaos.events (md5(body));
CREATE FUNCTION chaos.note_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO chaos.events (id, type, entity, occurred_at, version_at, received_at, rank, status, body)
	VALUES (NEW.id, NEW.type, NEW.entity, NEW.occurred_at, NEW.version_at, NEW.received_at, NEW.rank, NEW.status, NEW.body);
	RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION chaos.note_event();

CREATE TABLE chaos.intents (
	id uuid, sink text, epoch bigint, records text[], made timestamptz, until timestamptz,
	ended timestamptz, told boolean NOT NULL DEFAULT false -- what came of it was stored with the end
);
CREATE INDEX ON chaos.intents (id) WHERE ended IS NULL;
CREATE FUNCTION chaos.note_intent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE moment timestamptz := clock_timestamp();
BEGIN
	IF TG_OP <> 'INSERT' THEN
		UPDATE chaos.intents SET ended = moment, told = CASE TG_OP WHEN 'DELETE' THEN OLD.until > now() 
			ELSE NEW.until < OLD.until OR NOT NEW.records @> OLD.records END -- else it is made longer, or larger
		WHERE id = OLD.id AND ended IS NULL;
	END IF;
	IF TG_OP <> 'DELETE' THEN
		INSERT INTO chaos.intents (id, sink, epoch, records, made, until) VALUES (NEW.id, NEW.sink, NEW.epoch, NEW.records, moment, NEW.until);
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE OR DELETE ON announcements FOR EACH ROW EXECUTE FUNCTION chaos.note_intent();

CREATE TABLE chaos.keys (at timestamptz NOT NULL DEFAULT clock_timestamp(), sink text, object text, value text, record uuid);
CREATE FUNCTION chaos.note_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO chaos.keys (sink, object, value, record) VALUES (NEW.sink, NEW.object, NEW.value, NEW.record_id);
	RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE ON record_keys FOR EACH ROW EXECUTE FUNCTION chaos.note_key();

CREATE TABLE chaos.gone (outcome text); -- of routes that are too old
CREATE FUNCTION chaos.note_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO chaos.gone VALUES (coalesce(OLD.outcome, 'open'));
	RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER DELETE ON routes FOR EACH ROW EXECUTE FUNCTION chaos.note_gone();`

// intent is a span of time in which a process has said that it writes records of a sink.
type intent struct {
	id    uuid.UUID // that of the next span of the same intent, too: it is made longer, cut down to what is in doubt, or moved to another name
	sink  string    // as it was called first
	owner string    // who says so: another with each epoch
	keys  []string
	made  time.Time
	until time.Time // it holds no longer than that, whatever has become of its owner
	ended time.Time // zero: it has not been taken back
	told  bool      // it ended with what came of it
}

// live reports whether the intent holds at a time.
func (i *intent) live(at time.Time) bool {
	return !at.Before(i.made) && !at.After(i.until) && (i.ended.IsZero() || !at.After(i.ended))
}

// intents are those of a run, in the order in which they were made.
type intents struct {
	all   []*intent
	byKey map[string][]*intent    // by sink and key
	names map[string][]naming     // likewise, in the order of time
	done  map[uuid.UUID]time.Time // when what came of them was stored, of those that ended so
}

// naming is that a key names a record of the ledger from a time on.
type naming struct {
	at     time.Time
	record uuid.UUID
}

// keyOf names a record in write intents; objects of a sink have one property of ours each.
func keyOf(object, key string) string { return object + "\x1f" + key }

// longest is longer than any intent lasts, also one that was made longer time and again.
const longest = time.Minute

// during are the intents to write one of the records at a time.
func (t *intents) during(sink string, keys []string, at time.Time) []*intent {
	var list []*intent
	for _, k := range keys {
		all := t.byKey[sink+"\x1f"+k]
		to, _ := slices.BinarySearchFunc(all, at, func(i *intent, at time.Time) int { return i.made.Compare(at) })
		for _, i := range slices.Backward(all[:to]) {
			if at.Sub(i.made) > longest {
				break
			}
			if i.live(at) {
				list = append(list, i)
			}
		}
	}
	return list
}

// told reports whether somebody has stored what came of a write of the record, up to a time.
func (t *intents) told(sink, key string, to time.Time) bool {
	return slices.ContainsFunc(t.byKey[sink+"\x1f"+key], func(i *intent) bool { return i.told && !i.ended.After(to) })
}

// lost reports whether somebody set out to write one of the records within a span of time, and what
// came of it was never stored.
func (t *intents) lost(sink string, keys []string, from, to time.Time) bool {
	return slices.ContainsFunc(keys, func(k string) bool {
		return slices.ContainsFunc(t.byKey[sink+"\x1f"+k], func(i *intent) bool {
			return i.made.After(from) && i.made.Before(to) && t.done[i.id].IsZero()
		})
	})
}

// one reports whether those of the keys under which anybody has announced a write by a time named one
// record of the ledger then. What is known under one key is not known under another before that.
func (t *intents) one(sink string, keys []string, at time.Time) bool {
	var record uuid.UUID
	for _, k := range keys {
		k = sink + "\x1f" + k
		if !slices.ContainsFunc(t.byKey[k], func(i *intent) bool { return !i.made.After(at) }) {
			continue
		}
		var named uuid.UUID
		for _, n := range t.names[k] {
			if !n.at.After(at) {
				named = n.record
			}
		}
		if named == uuid.Nil || record != uuid.Nil && record != named {
			return false
		}
		record = named
	}
	return true
}

// crossed are the intents to write what another owner had said that it still writes: one of
// an owner for each that it crosses.
func (t *intents) crossed(tell func(later, earlier *intent, key string)) {
	told := map[string]bool{}
	for _, key := range sortedKeys(t.byKey) {
		all := t.byKey[key]
		for n, i := range all {
			for _, before := range slices.Backward(all[:n]) {
				if i.made.Sub(before.made) > longest {
					break
				}
				if before.owner != i.owner && before.id != i.id && before.live(i.made) && i.made.After(before.made) {
					if pair := fmt.Sprint(i.owner, before.id); !told[pair] {
						told[pair] = true
						tell(i, before, key)
					}
					break
				}
			}
		}
	}
}

// baseOf is the name that a sink had before it was renamed: names differ by a number at their end.
func baseOf(sink string) string { return strings.TrimRight(sink, "0123456789") }

// readIntents reads what the chronicle has of them.
func (w *world) readIntents(ctx context.Context) (*intents, error) {
	t := &intents{byKey: map[string][]*intent{}, names: map[string][]naming{}, done: map[uuid.UUID]time.Time{}}
	rows, err := w.pool.Query(ctx, `SELECT id, sink, epoch, records, made, until, ended, told FROM chaos.intents ORDER BY made`)
	if err != nil {
		return nil, err
	}
	var id uuid.UUID
	var sink string
	var epoch int64
	var records []string
	var made, until time.Time
	var ended *time.Time
	var told bool
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&id), &sink, &epoch, &records, &made, &until, &ended, &told}, func() error {
		i := &intent{id: id, sink: baseOf(sink), owner: fmt.Sprintf("%s in epoch %d", sink, epoch), made: made, until: until, told: told}
		if ended != nil {
			i.ended = *ended
		}
		for _, text := range records {
			parts := strings.SplitN(text, "\x1f", 3)
			if len(parts) != 3 {
				return fmt.Errorf("a write intent names %q", text)
			}
			key := keyOf(parts[0], parts[2])
			i.keys = append(i.keys, key)
			t.byKey[i.sink+"\x1f"+key] = append(t.byKey[i.sink+"\x1f"+key], i)
		}
		t.all = append(t.all, i)
		if told && t.done[id].IsZero() {
			t.done[id] = i.ended
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the write intents: %w", err)
	}
	rows, err = w.pool.Query(ctx, `SELECT sink, object, value, at, record FROM chaos.keys ORDER BY at`)
	if err != nil {
		return nil, err
	}
	var object, value string
	var n naming
	if _, err := pgx.ForEachRow(rows, []any{&sink, &object, &value, &n.at, (*[16]byte)(&n.record)}, func() error {
		key := baseOf(sink) + "\x1f" + keyOf(object, value)
		t.names[key] = append(t.names[key], n)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	return t, nil
}

// readEvents reads all that were ever stored.
func (w *world) readEvents(ctx context.Context) ([]event, error) {
	annexed := map[[16]byte]bool{}
	rows, err := w.pool.Query(ctx, `SELECT DISTINCT event_id FROM routes WHERE sink LIKE 'annex%'`)
	if err != nil {
		return nil, err
	}
	var id [16]byte
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { annexed[id] = true; return nil }); err != nil {
		return nil, err
	}
	rows, err = w.pool.Query(ctx, `SELECT at, id, type, entity, occurred_at, version_at, received_at, rank, status, body FROM chaos.events ORDER BY id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event, err error) {
		err = row.Scan(&e.at, (*[16]byte)(&e.id), &e.typ, &e.entity, &e.occurredAt, &e.versionAt, &e.receivedAt, &e.rank, &e.status, &e.body)
		e.annex = annexed[e.id]
		return e, err
	})
}
