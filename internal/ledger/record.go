package ledger

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Version orders the values of a field: by time, then by the rank of the event's
// type, then by the event's id.
type Version struct {
	At    int64 // microseconds since 1970
	Rank  int16
	Event uuid.UUID
}

// Compare is negative where v is older than o.
func (v Version) Compare(o Version) int {
	if c := cmp.Compare(v.At, o.At); c != 0 {
		return c
	}
	if c := cmp.Compare(v.Rank, o.Rank); c != 0 {
		return c
	}
	return bytes.Compare(v.Event[:], o.Event[:])
}

// IsZero reports whether there is no version.
func (v Version) IsZero() bool { return v == Version{} }

// Field is what we want one property of a record to be, and what the CRM has
// acknowledged of it.
type Field struct {
	Wanted  Value
	Version Version
	Mapping string
	Rule    string
	Acked   Value   // what the CRM took last; meaningful where AckedAt is not zero
	AckedAt Version // zero: nothing yet, or nothing that we can be sure of
	Refused bool    // the CRM refused the wanted value; it is not sent again
}

// Pending reports whether the CRM lacks the wanted value.
func (f *Field) Pending() bool { return !f.Refused && f.AckedAt != f.Version }

// Link is a wanted connection to another record, versioned like a field.
type Link struct {
	To       string // object
	Property string // of the target's key
	Key      string
	As       string
	Version  Version
	Owed     Version // of the event that has it made again with its record; zero: of the one that wants it
	Mapping  string
	Remove   bool
	Only     bool // it took, or takes, the place of others of the same To and As
	Made     bool // the CRM has it, or may have it
	Done     bool // the CRM has acknowledged what is wanted of it
	Refused  bool // the CRM refused it; it is not sent again
}

// Pending reports whether the CRM lacks the link, or the removal of it.
func (l *Link) Pending() bool { return !l.Done && !l.Refused }

// Of reports whether the event of a version sees to it that the link is made.
func (l *Link) Of(v Version) bool { return l.Version == v || l.Owed == v }

// Presence says what we know of a record in the CRM.
type Presence string

// The presences.
const (
	Unknown Presence = "unknown"
	Present Presence = "present"
	Gone    Presence = "gone"
)

// Record is the state of one CRM record.
type Record struct {
	ID       uuid.UUID
	Object   string
	Property string // of the key it was found by, or made for
	Key      string // folded
	CRMID    string
	Presence Presence
	Fields   map[string]*Field
	Links    map[string]*Link // by LinkName
	GoneAt   Version          // of the newest event that archived it
	LiveAt   Version          // of the newest event that makes it again should it be gone
	Merged   bool             // several keys of ours name it
	New      bool             // not stored yet
}

// LinkName identifies a link of a record: one per target, label and object.
func LinkName(to, as, property, key string) string {
	return to + "\x1f" + as + "\x1f" + property + "\x1f" + key
}

// RecordKey names a record by our key, folded as the sink compares keys.
type RecordKey struct{ Object, Property, Key string }

// KeyOf stands for a record by whatever key, in announcements.
func KeyOf(record uuid.UUID) RecordKey { return RecordKey{Key: record.String()} }

// Record returns the id of the record that the key stands for, if it is one of KeyOf.
func (k RecordKey) Record() (uuid.UUID, bool) {
	if k.Object != "" || k.Property != "" {
		return uuid.Nil, false
	}
	id, err := uuid.Parse(k.Key)
	return id, err == nil
}

// Clone returns a deep copy whose maps and entries may be changed.
func (r *Record) Clone() *Record {
	c := *r
	c.Fields = make(map[string]*Field, len(r.Fields))
	for k, f := range r.Fields {
		f := *f
		c.Fields[k] = &f
	}
	c.Links = make(map[string]*Link, len(r.Links))
	for k, l := range r.Links {
		l := *l
		c.Links[k] = &l
	}
	return &c
}

// The limits change nothing, since keys are unique; they have Postgres look each key up.
// Without them it reads all keys of the sink while its statistics still say that there
// are few.
const readRecords = `
SELECT k.object, k.property, k.value, r.id, r.crm_id, r.presence, r.fields, r.links, r.gone_version, r.live_version, r.merged
FROM unnest($3::text[], $4::text[], $5::text[]) AS q(object, property, value)
CROSS JOIN LATERAL (
	SELECT * FROM record_keys k
	WHERE k.sink = $1 AND k.account = $2 AND k.object = q.object AND k.property = q.property AND k.value = q.value LIMIT 1
) k
CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.id = k.record_id LIMIT 1) r`

// Records returns the stored records among keys.
func (l *Ledger) Records(ctx context.Context, sink, account string, keys []RecordKey) (map[RecordKey]*Record, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	objects, properties, values := keyColumns(keys)
	rows, err := l.pool.Query(ctx, readRecords, sink, account, objects, properties, values)
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
SELECT r.crm_id, r.id, k.property, k.value FROM unnest($4::text[]) AS q(crm_id)
CROSS JOIN LATERAL (SELECT * FROM records r WHERE r.sink = $1 AND r.account = $2 AND r.object = $3 AND r.crm_id = q.crm_id AND r.crm_id <> '' LIMIT 1) r
JOIN record_keys k ON k.record_id = r.id`

// Met returns the records of an object that the CRM knows by the given ids, by these.
func (l *Ledger) Met(ctx context.Context, sink, account, object string, crmIDs []string) (map[string]Met, error) {
	rows, err := l.pool.Query(ctx, readMet, sink, account, object, crmIDs)
	if err != nil {
		return nil, fmt.Errorf("read records by the ids of the CRM: %w", err)
	}
	found := map[string]Met{}
	var crmID, property, value string
	var id uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&crmID, (*[16]byte)(&id), &property, &value}, func() error {
		found[crmID] = Met{id, append(found[crmID].Keys, RecordKey{object, property, value})}
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
		SELECT k.object, k.property, k.value, r.id, r.crm_id, r.presence, r.fields, r.links, r.gone_version, r.live_version, r.merged
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
	_, err := pgx.ForEachRow(rows, []any{&object, &property, &value, (*[16]byte)(&id), &crmID, &presence, &fields, &links, &gone, &live, &merged}, func() error {
		rec := byID[id]
		if rec == nil {
			rec = &Record{ID: id, Object: object, Property: property, Key: value, CRMID: crmID, Presence: Presence(presence), Merged: merged}
			var err error
			if rec.Fields, err = decodeFields(fields); err != nil {
				return fmt.Errorf("record %s: fields: %w", id, err)
			}
			if rec.Links, err = decodeLinks(links); err != nil {
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
		found[RecordKey{object, property, value}] = rec
		return nil
	})
	return found, err
}

// The stored form is compact, since it is rewritten with every delivery: a field is
// {"v":wanted,"t":[µs,rank,event],"m":mapping,"r":rule} with "k":true where the CRM
// has acknowledged just that, or else "a":acknowledged,"b":[version].

func encodeFields(fields map[string]*Field) []byte {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		f := fields[name]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, name), `:{"v":`...)
		b = append(b, f.Wanted.JSON...)
		b = appendVersion(append(b, `,"t":`...), f.Version)
		b = appendText(append(b, `,"m":`...), f.Mapping)
		b = appendText(append(b, `,"r":`...), f.Rule)
		switch {
		case f.AckedAt.IsZero():
		case f.AckedAt == f.Version && f.Acked.Equal(f.Wanted):
			b = append(b, `,"k":true`...)
		default:
			b = append(append(b, `,"a":`...), f.Acked.JSON...)
			b = appendVersion(append(b, `,"b":`...), f.AckedAt)
		}
		if f.Refused {
			b = append(b, `,"x":true`...)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func decodeFields(data []byte) (map[string]*Field, error) {
	fields := map[string]*Field{}
	d := jsontext.NewDecoder(bytes.NewReader(data))
	err := eachKey(d, func(name string) error {
		f := &Field{}
		fields[name] = f
		acked := false
		err := eachKey(d, func(part string) (err error) {
			switch part {
			case "v":
				f.Wanted, err = readValue(d)
			case "t":
				f.Version, err = readVersion(d)
			case "a":
				f.Acked, err = readValue(d)
			case "b":
				f.AckedAt, err = readVersion(d)
			case "m":
				f.Mapping, err = readText(d)
			case "r":
				f.Rule, err = readText(d)
			case "k":
				acked = true
				err = d.SkipValue()
			case "x":
				f.Refused = true
				err = d.SkipValue()
			default:
				err = d.SkipValue()
			}
			return err
		})
		if acked {
			f.Acked, f.AckedAt = f.Wanted, f.Version
		}
		return err
	})
	return fields, err
}

func encodeLinks(links map[string]*Link) []byte {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(links)) {
		l := links[name]
		if i > 0 {
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
		if l.Remove {
			b = append(b, `,"rm":true`...)
		}
		if l.Only {
			b = append(b, `,"n":true`...)
		}
		if l.Made {
			b = append(b, `,"c":true`...)
		}
		if l.Done {
			b = append(b, `,"k":true`...)
		}
		if l.Refused {
			b = append(b, `,"x":true`...)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func decodeLinks(data []byte) (map[string]*Link, error) {
	links := map[string]*Link{}
	d := jsontext.NewDecoder(bytes.NewReader(data))
	err := eachKey(d, func(name string) error {
		l := &Link{}
		links[name] = l
		return eachKey(d, func(part string) (err error) {
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
				l.Remove = true
				err = d.SkipValue()
			case "n":
				l.Only = true
				err = d.SkipValue()
			case "c":
				l.Made = true
				err = d.SkipValue()
			case "k":
				l.Done = true
				err = d.SkipValue()
			case "x":
				l.Refused = true
				err = d.SkipValue()
			default:
				err = d.SkipValue()
			}
			return err
		})
	})
	return links, err
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
