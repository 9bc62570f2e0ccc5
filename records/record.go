package records

import (
	"bytes"
	"cmp"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// Version orders the statements about a field or a link: by time, then by the rank of the
// event's type, then by the event's id.
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

// newer returns the newer of two versions.
func newer(a, b Version) Version {
	if a.Compare(b) < 0 {
		return b
	}
	return a
}

// Field is the desired value of one property of a record, and the value that the CRM has
// acknowledged.
type Field struct {
	Wanted  Value
	Version Version
	Mapping string
	Rule    string
	Acked   Value     // what the CRM took last; meaningful where AckedAt or HadAt is not zero
	AckedAt Version   // zero: nothing yet, or nothing that we can be sure of
	HadAt   Version   // where AckedAt is zero: of what the CRM took last before that came into doubt
	Refused uuid.UUID // the event whose value the CRM refused, where that is the wanted one; it is not sent again
	Kept    *Value    // what the CRM shows in place of the wanted value; it is not sent again

	Ladder *mappers.Ladder // under forward
	Added  []string        // under add: the values that are there, or may be, since we put them there
}

// Pending reports whether the CRM lacks the wanted value and may still take it.
func (f *Field) Pending() bool {
	return f.Refused == uuid.Nil && f.Kept == nil && f.AckedAt != f.Version
}

// doubt notes that nobody knows what the CRM has.
func (f *Field) doubt() {
	if !f.AckedAt.IsZero() {
		f.HadAt = f.AckedAt
	}
	f.AckedAt = Version{}
}

// has is the version of what the CRM has, or had before that came into doubt.
func (f *Field) has() Version {
	if f.AckedAt.IsZero() {
		return f.HadAt
	}
	return f.AckedAt
}

// decides reports whether a statement of version a about the field decides over one of version
// b, or over none where that is zero.
func (f *Field) decides(a, b Version) bool {
	if f.Rule == string(mappers.SetFirst) && !b.IsZero() {
		a, b = b, a
	}
	return a.Compare(b) > 0
}

// lacks reports whether the CRM may lack a value of a version, for all that we know of what it has.
func (f *Field) lacks(v Version) bool {
	return f.AckedAt.IsZero() && v == f.HadAt && !v.IsZero() || f.decides(v, f.has())
}

// Presence says what we know of a record in the CRM.
type Presence string

// The presences.
const (
	Unknown Presence = "unknown"
	Present Presence = "present"
	Gone    Presence = "gone"
	Unsure  Presence = "unsure" // a create that must not be repeated was sent, and nobody knows whether it took effect
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
	Links    map[string]*Link   // by LinkName
	Only     map[string]Version // by OnlyName: of the newest event after which one link is left
	GoneAt   Version            // of the newest event that archived it
	LiveAt   Version            // of the newest event that makes it again should it be gone
	Merged   bool               // several keys of ours name it
	New      bool               // not stored yet
	Revision int64              // of the stored form; each write raises it
}

// New returns a record of which nothing is known but its key.
func New(id uuid.UUID, k Key) *Record {
	return &Record{
		ID: id, Object: k.Object, Property: k.Property, Key: k.Key, New: true,
		Presence: Unknown, Fields: map[string]*Field{}, Links: map[string]*Link{},
	}
}

// Key names a record by our key, folded as the sink compares keys.
type Key struct{ Object, Property, Key string }

// KeyOf stands for a record by whatever key, in write intents.
func KeyOf(record uuid.UUID) Key { return Key{Key: record.String()} }

// KeyOfID stands for a record by the CRM's id, in write intents: of one that was found there the
// ledger may not know yet whose it is.
func KeyOfID(object, id string) Key { return Key{Object: object, Property: "id in the CRM", Key: id} }

// Record returns the id of the record that the key stands for, if it is one of KeyOf.
func (k Key) Record() (uuid.UUID, bool) {
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
	if r.Only != nil {
		c.Only = make(map[string]Version, len(r.Only))
		for k, v := range r.Only {
			c.Only[k] = v
		}
	}
	return &c
}

// there reports whether the CRM has the record, for all that we know: one that was found has an id
// before it has our key.
func (r *Record) there() bool {
	return r.Presence == Present || r.Presence == Unknown && r.CRMID != ""
}

// remake turns a record that is gone into one that the CRM lacks whole, for the event of a
// version to make it.
func (r *Record) remake(by Version) {
	r.CRMID, r.Presence = "", Unknown
	r.resend(by)
	for _, f := range r.Fields {
		if f.Rule == string(mappers.SetOnCreate) && f.Refused == unsaid {
			f.Refused = uuid.Nil
		}
	}
}

// resend forgets what the CRM has of a record, so that all that is known is sent again.
func (r *Record) resend(by Version) {
	for _, f := range r.Fields {
		f.doubt()
		f.Kept, f.Added = nil, nil
	}
	for _, l := range r.Links {
		l.Have, l.Owed = Absent, by
		if l.Verdict == Waived || l.Verdict == Theirs {
			l.Verdict = Open
		}
	}
}

// archivedBy notes that the event of a version has archived the record, or would have.
func (r *Record) archivedBy(v Version) {
	r.Presence, r.GoneAt = Gone, newer(r.GoneAt, v)
}

// goneBy notes that deliveries may have archived the record: should somebody find it gone, no
// event before theirs makes it again.
func (r *Record) goneBy(archivers []*Delivery) {
	for _, d := range archivers {
		r.GoneAt = newer(r.GoneAt, d.Cause.Version)
	}
}

// acknowledge notes that the CRM took the given fields, but for those of which it shows that it
// keeps another value. What an older statement has acknowledged since counts no more.
func (r *Record) acknowledge(sent map[string]Sent, kept map[string]any) {
	for name, s := range sent {
		f := r.Fields[name]
		if f == nil || s.Version.IsZero() {
			continue
		}
		f.Acked, f.AckedAt, f.HadAt = s.Value, s.Version, Version{}
		shown, other := kept[name]
		if other {
			f.Acked = NewValue(shown)
		}
		if s.Version != f.Version {
			continue
		}
		f.Kept = nil
		if other {
			v := f.Acked
			f.doubt()
			f.Kept = &v
		}
	}
}

// doubt notes that nobody knows whether the CRM took the given fields.
func (r *Record) doubt(sent map[string]Sent) {
	for name, s := range sent {
		if f := r.Fields[name]; f != nil && !s.Version.IsZero() {
			f.doubt()
		}
	}
}

// doubtAll notes that nobody knows whether the record is there: a newer event that wants it
// must find out.
func (r *Record) doubtAll() {
	for _, f := range r.Fields {
		f.doubt()
	}
}

// arrived reports whether the CRM has anything that the event of a version wants, of what is still wanted.
func (r *Record) arrived(v Version) bool {
	for _, f := range r.Fields {
		if f.Version == v && f.AckedAt == v {
			return true
		}
	}
	for _, l := range r.Links {
		if l.Version == v && l.Verdict == Open && l.Need() == Nothing {
			return true
		}
	}
	return false
}

// contributes reports whether anything that the event of a version wants is still wanted and
// not yet with the CRM.
func (r *Record) contributes(v Version) bool {
	for _, f := range r.Fields {
		if f.Version == v && f.Pending() {
			return true
		}
	}
	for _, l := range r.Links {
		if l.Of(v) && l.Need() != Nothing {
			return true
		}
	}
	return false
}
