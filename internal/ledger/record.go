package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"partnersync/mappers"
	"partnersync/records"
)

// What the ledger stores of records. The rules about them are in package records.
type (
	Version   = records.Version
	Field     = records.Field
	Link      = records.Link
	Presence  = records.Presence
	Record    = records.Record
	RecordKey = records.Key
	Value     = records.Value
)

// The limits change nothing, since keys are unique; they have Postgres look each key up.
// Without them it reads all keys of the sink while its statistics still say that there
// are few.
const readRecords = `
SELECT k.object, k.property, k.value, r.id, r.crm_id, r.presence, r.fields, r.links, r.gone_version, r.live_version, r.merged, r.revision
FROM unnest($2::text[], $3::text[], $4::text[]) AS q(object, property, value)
CROSS JOIN LATERAL (
	SELECT * FROM record_keys k
	WHERE k.sink = $1 AND k.object = q.object AND k.property = q.property AND k.value = q.value LIMIT 1
) k
CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.id = k.record_id LIMIT 1) r`

// Records returns the stored records among keys.
func (l *Ledger) Records(ctx context.Context, sink string, keys []RecordKey) (map[RecordKey]*Record, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	objects, properties, values := keyColumns(keys)
	rows, err := l.pool.Query(ctx, readRecords, sink, objects, properties, values)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	found, err := scanRecords(rows)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	return found, nil
}

// Met is a record that the CRM knows by an id, and all keys of ours that name it.
type Met struct {
	ID   uuid.UUID
	Keys []RecordKey
}

// The index leaves out records without an id, which an id that is compared does not tell by itself.
const readMet = `
SELECT r.crm_id, r.id, k.property, k.value FROM unnest($3::text[]) AS q(crm_id)
CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.sink = $1 AND r.object = $2 AND r.crm_id = q.crm_id AND r.crm_id <> '' LIMIT 1) r
JOIN record_keys k ON k.record_id = r.id`

// Met returns the records of an object that the CRM knows by the given ids, by these.
func (l *Ledger) Met(ctx context.Context, sink, object string, crmIDs []string) (map[string]Met, error) {
	rows, err := l.pool.Query(ctx, readMet, sink, object, crmIDs)
	if err != nil {
		return nil, fmt.Errorf("read records by the ids of the CRM: %w", err)
	}
	found := map[string]Met{}
	var crmID, property, value string
	var id uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&crmID, (*[16]byte)(&id), &property, &value}, func() error {
		found[crmID] = Met{id, append(found[crmID].Keys, RecordKey{Object: object, Property: property, Key: value})}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read records by the ids of the CRM: %w", err)
	}
	return found, nil
}

// Record returns a stored record, nil where there is none.
func (l *Ledger) Record(ctx context.Context, id uuid.UUID) (*Record, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT k.object, k.property, k.value, r.id, r.crm_id, r.presence, r.fields, r.links, r.gone_version, r.live_version, r.merged, r.revision
		FROM records r JOIN record_keys k ON k.record_id = r.id WHERE r.id = $1 ORDER BY k.property, k.value LIMIT 1`, id)
	if err != nil {
		return nil, fmt.Errorf("read a record: %w", err)
	}
	found, err := scanRecords(rows)
	if err != nil {
		return nil, fmt.Errorf("read a record: %w", err)
	}
	for _, r := range found {
		return r, nil
	}
	return nil, nil
}

func keyColumns(keys []RecordKey) (objects, properties, values []string) {
	objects, properties, values = make([]string, len(keys)), make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		objects[i], properties[i], values[i] = k.Object, k.Property, k.Key
	}
	return objects, properties, values
}

func scanRecords(rows pgx.Rows) (map[RecordKey]*Record, error) {
	found := map[RecordKey]*Record{}
	byID := map[uuid.UUID]*Record{}
	var object, property, value, crmID, presence, gone, live string
	var id uuid.UUID
	var fields, links []byte
	var merged bool
	var revision int64
	_, err := pgx.ForEachRow(rows, []any{&object, &property, &value, (*[16]byte)(&id), &crmID, &presence, &fields, &links, &gone, &live, &merged, &revision}, func() error {
		rec := byID[id]
		if rec == nil {
			rec = &Record{ID: id, Object: object, Property: property, Key: value, CRMID: crmID, Presence: Presence(presence), Merged: merged, Revision: revision}
			var err error
			if rec.Fields, err = decodeFields(fields); err != nil {
				return fmt.Errorf("record %s: fields: %w", id, err)
			}
			if rec.Links, rec.Only, err = decodeLinks(links); err != nil {
				return fmt.Errorf("record %s: links: %w", id, err)
			}
			if rec.GoneAt, err = decodeVersion(gone); err != nil {
				return fmt.Errorf("record %s: %w", id, err)
			}
			if rec.LiveAt, err = decodeVersion(live); err != nil {
				return fmt.Errorf("record %s: %w", id, err)
			}
			byID[id] = rec
		}
		found[RecordKey{Object: object, Property: property, Key: value}] = rec
		return nil
	})
	return found, err
}

// The stored form is compact, since it is rewritten with every delivery: a field is
// {"v":wanted,"t":version,"m":mapping,"r":rule} with "k":true where the CRM
// has acknowledged just that, or else "a":acknowledged,"b":version, with "h" for "b" where
// that has come into doubt since. "x" is the event whose value the CRM refused, "kv" what it keeps
// in place of it. Under forward "o" and "f" are the order and the final values, under add "d" is
// what we have added. Versions and mappings stand once, under the name "", which no field has:
// {"t":[[µs,rank,event],...],"m":[mapping,...]}. A field names them by their place; it leaves out
// 0 and the rule set. Builds before this one had them in each field.

// shared is the name under which a stored record has what its fields share.
const shared = ""

// sharing is what the fields of a record share, in the order in which it is stored.
type sharing struct {
	versions []Version
	mappings []string
}

func (s *sharing) version(v Version) int {
	i := slices.Index(s.versions, v)
	if i < 0 {
		i = len(s.versions)
		s.versions = append(s.versions, v)
	}
	return i
}

func (s *sharing) mapping(name string) int {
	i := slices.Index(s.mappings, name)
	if i < 0 {
		i = len(s.mappings)
		s.mappings = append(s.mappings, name)
	}
	return i
}

// appendPlace appends which of what is shared a field has.
func appendPlace(b []byte, part string, place int) []byte {
	b = append(append(append(b, `,"`...), part...), `":`...)
	return strconv.AppendInt(b, int64(place), 10)
}

func encodeFields(fields map[string]*Field) []byte {
	if len(fields) == 0 {
		return []byte("{}")
	}
	var s sharing
	names := slices.Sorted(maps.Keys(fields))
	for _, name := range names { // what is shared stands before what shares it
		f := fields[name]
		s.version(f.Version)
		s.mapping(f.Mapping)
		for _, v := range []Version{f.HadAt, f.AckedAt} {
			if !v.IsZero() {
				s.version(v)
			}
		}
	}
	b := append(make([]byte, 0, 256+64*len(fields)), `{"":{"t":[`...)
	for i, v := range s.versions {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendVersion(b, v)
	}
	b = append(appendTexts(append(b, `],"m":`...), s.mappings), '}')
	for _, name := range names {
		f := fields[name]
		b = append(appendText(append(b, ','), name), `:{"v":`...)
		b = append(b, f.Wanted.JSON...)
		if at := s.version(f.Version); at > 0 {
			b = appendPlace(b, "t", at)
		}
		if at := s.mapping(f.Mapping); at > 0 {
			b = appendPlace(b, "m", at)
		}
		if f.Rule != string(mappers.Set) {
			b = appendText(append(b, `,"r":`...), f.Rule)
		}
		switch {
		case f.AckedAt.IsZero() && f.HadAt.IsZero():
		case f.AckedAt.IsZero():
			b = append(append(b, `,"a":`...), f.Acked.JSON...)
			b = appendPlace(b, "h", s.version(f.HadAt))
		case f.AckedAt == f.Version && f.Acked.Equal(f.Wanted):
			b = append(b, `,"k":true`...)
		default:
			b = append(append(b, `,"a":`...), f.Acked.JSON...)
			b = appendPlace(b, "b", s.version(f.AckedAt))
		}
		if f.Refused != uuid.Nil {
			b = appendText(append(b, `,"x":`...), f.Refused.String())
		}
		if f.Kept != nil {
			b = append(append(b, `,"kv":`...), f.Kept.JSON...)
		}
		if f.Ladder != nil {
			b = appendTexts(append(b, `,"o":`...), f.Ladder.Order)
			b = appendTexts(append(b, `,"f":`...), f.Ladder.Final)
		}
		if len(f.Added) > 0 {
			b = appendTexts(append(b, `,"d":`...), f.Added)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendTexts(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, text := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, text)
	}
	return append(b, ']')
}

func readTexts(d *jsontext.Decoder) ([]string, error) {
	v, err := readValue(d)
	list, _ := v.Go.([]any)
	var out []string
	for _, e := range list {
		if text, ok := e.(string); ok {
			out = append(out, text)
		}
	}
	return out, err
}

func decodeFields(data []byte) (map[string]*Field, error) {
	fields := map[string]*Field{}
	var s sharing
	d := jsontext.NewDecoder(bytes.NewReader(data))
	err := eachKey(d, func(name string) error {
		if name == shared { // it comes first: jsonb has short names before long ones
			return s.read(d)
		}
		f := &Field{}
		if len(s.versions) > 0 {
			f.Version, f.Mapping, f.Rule = s.versions[0], s.mappings[0], string(mappers.Set)
		}
		fields[name] = f
		acked, refused := false, false
		err := eachKey(d, func(part string) (err error) {
			switch part {
			case "v":
				f.Wanted, err = readValue(d)
			case "t":
				f.Version, err = s.readVersion(d)
			case "a":
				f.Acked, err = readValue(d)
			case "b":
				f.AckedAt, err = s.readVersion(d)
			case "h":
				f.HadAt, err = s.readVersion(d)
			case "m":
				f.Mapping, err = s.readMapping(d)
			case "r":
				f.Rule, err = readText(d)
			case "k":
				acked = true
				err = d.SkipValue()
			case "x":
				f.Refused, refused, err = readRefusal(d)
			case "kv":
				f.Kept = &Value{}
				*f.Kept, err = readValue(d)
			case "o":
				f.Ladder = cmp.Or(f.Ladder, &mappers.Ladder{})
				f.Ladder.Order, err = readTexts(d)
			case "f":
				f.Ladder = cmp.Or(f.Ladder, &mappers.Ladder{})
				f.Ladder.Final, err = readTexts(d)
			case "d":
				f.Added, err = readTexts(d)
			default:
				err = d.SkipValue()
			}
			return err
		})
		if acked {
			f.Acked, f.AckedAt = f.Wanted, f.Version
		}
		if refused && f.Refused == uuid.Nil {
			f.Refused = f.Version.Event
		}
		return err
	})
	return fields, err
}

var errPlace = errors.New("a field names what is not there")

func (s *sharing) read(d *jsontext.Decoder) error {
	err := eachKey(d, func(part string) (err error) {
		switch part {
		case "t":
			if _, err = d.ReadToken(); err != nil { // [
				return err
			}
			for d.PeekKind() == '[' {
				v, err := readVersion(d)
				if err != nil {
					return err
				}
				s.versions = append(s.versions, v)
			}
			_, err = d.ReadToken()
		case "m":
			s.mappings, err = readTexts(d)
		default:
			err = d.SkipValue()
		}
		return err
	})
	if err == nil && (len(s.versions) == 0 || len(s.mappings) == 0) {
		err = errPlace
	}
	return err
}

// readPlace reads which of n a field has.
func readPlace(d *jsontext.Decoder, n int) (int, error) {
	raw, err := readAny(d)
	if err != nil {
		return 0, err
	}
	i, ok := raw.(int64)
	if !ok || i < 0 || i >= int64(n) {
		return 0, errPlace
	}
	return int(i), nil
}

func (s *sharing) readVersion(d *jsontext.Decoder) (Version, error) {
	if d.PeekKind() == '[' {
		return readVersion(d)
	}
	i, err := readPlace(d, len(s.versions))
	if err != nil {
		return Version{}, err
	}
	return s.versions[i], nil
}

func (s *sharing) readMapping(d *jsontext.Decoder) (string, error) {
	if d.PeekKind() == '"' {
		return readText(d)
	}
	i, err := readPlace(d, len(s.mappings))
	if err != nil {
		return "", err
	}
	return s.mappings[i], nil
}

// A link is {"o":to,"p":property,"y":key,"as":as,"t":version,"m":mapping}, with "rm" where it
// is to be taken back, "c" where the CRM has it or may have it, "k" where nothing is left to be
// done, "x" where the CRM refused it, "n" for `only`, "w" for the version that it is owed to. An
// entry without property and key is the version of the newest `only` of its kind.

func encodeLinks(r *Record) []byte {
	b := []byte{'{'}
	for _, name := range slices.Sorted(maps.Keys(r.Only)) {
		to, as, _ := strings.Cut(name, "\x1f")
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendText(append(appendText(b, name), `:{"o":`...), to)
		b = appendText(append(b, `,"as":`...), as)
		b = append(appendVersion(append(b, `,"t":`...), r.Only[name]), `,"n":true}`...)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Links)) {
		l := r.Links[name]
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(appendText(b, name), `:{"o":`...)
		b = appendText(b, l.To)
		b = appendText(append(b, `,"p":`...), l.Property)
		b = appendText(append(b, `,"y":`...), l.Key)
		b = appendText(append(b, `,"as":`...), l.As)
		b = appendVersion(append(b, `,"t":`...), l.Version)
		b = appendText(append(b, `,"m":`...), l.Mapping)
		if !l.Owed.IsZero() {
			b = appendVersion(append(b, `,"w":`...), l.Owed)
		}
		for _, flag := range []struct {
			name string
			set  bool
		}{
			{"rm", l.Want == records.Unlinked},
			{"n", l.Only},
			{"e", l.IfEmpty},
			{"v", l.Verdict == records.Theirs},
			{"c", l.Have != records.Absent},
			{"k", l.Verdict == records.Waived || l.Want == records.Linked && l.Have == records.Exists || l.Want == records.Unlinked && l.Have == records.Absent},
		} {
			if flag.set {
				b = append(append(append(b, `,"`...), flag.name...), `":true`...)
			}
		}
		if l.Verdict == records.Refused {
			b = appendText(append(b, `,"x":`...), l.Refusal.String())
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func decodeLinks(data []byte) (map[string]*Link, map[string]Version, error) {
	links := map[string]*Link{}
	var only map[string]Version
	d := jsontext.NewDecoder(bytes.NewReader(data))
	err := eachKey(d, func(name string) error {
		l := &Link{}
		remove, made, done, theirs, refused := false, false, false, false, false
		flag := func(set *bool) error {
			*set = true
			return d.SkipValue()
		}
		err := eachKey(d, func(part string) (err error) {
			switch part {
			case "o":
				l.To, err = readText(d)
			case "p":
				l.Property, err = readText(d)
			case "y":
				l.Key, err = readText(d)
			case "as":
				l.As, err = readText(d)
			case "t":
				l.Version, err = readVersion(d)
			case "m":
				l.Mapping, err = readText(d)
			case "w":
				l.Owed, err = readVersion(d)
			case "rm":
				err = flag(&remove)
			case "n":
				err = flag(&l.Only)
			case "e":
				err = flag(&l.IfEmpty)
			case "v":
				err = flag(&theirs)
			case "c":
				err = flag(&made)
			case "k":
				err = flag(&done)
			case "x":
				l.Refusal, refused, err = readRefusal(d)
			default:
				err = d.SkipValue()
			}
			return err
		})
		if l.Property == "" && l.Key == "" {
			if only == nil {
				only = map[string]Version{}
			}
			only[name] = l.Version
			return err
		}
		links[name] = l
		switch {
		case remove:
			l.Want = records.Unlinked
			if made && !done {
				l.Have = records.InDoubt
			}
		case made && done:
			l.Have = records.Exists
		case made:
			l.Have = records.InDoubt
		case done:
			l.Verdict = records.Waived
		}
		if theirs {
			l.Verdict = records.Theirs
		}
		if refused {
			l.Verdict = records.Refused
		}
		return err
	})
	return links, only, err
}

// readRefusal reads whose value was refused; builds before this one wrote true.
func readRefusal(d *jsontext.Decoder) (event uuid.UUID, refused bool, err error) {
	if d.PeekKind() != '"' {
		return uuid.Nil, true, d.SkipValue()
	}
	text, err := readText(d)
	if err == nil {
		event, err = uuid.Parse(text)
	}
	return event, true, err
}

func appendVersion(b []byte, v Version) []byte {
	b = strconv.AppendInt(append(b, '['), v.At, 10)
	b = strconv.AppendInt(append(b, ','), int64(v.Rank), 10)
	b = append(b, `,"`...)
	b = append(b, v.Event.String()...)
	return append(b, `"]`...)
}

// encodeVersion is "" for none.
func encodeVersion(v Version) string {
	if v.IsZero() {
		return ""
	}
	return string(appendVersion(nil, v))
}

func decodeVersion(text string) (Version, error) {
	if text == "" {
		return Version{}, nil
	}
	return readVersion(jsontext.NewDecoder(strings.NewReader(text)))
}

func readVersion(d *jsontext.Decoder) (Version, error) {
	raw, err := readAny(d)
	if err != nil {
		return Version{}, err
	}
	parts, _ := raw.([]any)
	if len(parts) == 3 {
		at, ok1 := parts[0].(int64)
		rank, ok2 := parts[1].(int64)
		text, ok3 := parts[2].(string)
		if id, err := uuid.Parse(text); err == nil && ok1 && ok2 && ok3 {
			return Version{At: at, Rank: int16(rank), Event: id}, nil
		}
	}
	return Version{}, fmt.Errorf("not a version: %v", raw)
}

func readText(d *jsontext.Decoder) (string, error) {
	tok, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	return tok.String(), nil
}

func eachKey(d *jsontext.Decoder, read func(key string) error) error {
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != '{' {
		return fmt.Errorf("expected an object: %w", err)
	}
	for d.PeekKind() != '}' {
		tok, err := d.ReadToken()
		if err != nil {
			return err
		}
		if err := read(tok.String()); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}
