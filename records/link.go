package records

import (
	"cmp"
	"maps"
	"slices"

	"github.com/google/uuid"
)

// Want is the desired state of a link.
type Want uint8

// The desired states.
const (
	Linked Want = iota
	Unlinked
)

// Have is the observed state of a link.
type Have uint8

// The observed states.
const (
	Absent  Have = iota // the CRM does not have it
	InDoubt             // the CRM may have it
	Exists              // the CRM has acknowledged it
)

// Verdict says whether a link may still be acted on.
type Verdict uint8

// The verdicts.
const (
	Open    Verdict = iota
	Refused         // the CRM refused it; it is not sent again
	Waived          // its target is missing, and its mapping does without
	Theirs          // the CRM has another in its place, which stays
)

// Link is a desired connection to another record, versioned like a field.
type Link struct {
	To       string // object
	Property string // of the target's key
	Key      string
	As       string
	Version  Version
	Owed     Version // of the event that has it made again with its record; zero: of the one that wants it
	Mapping  string
	Only     bool // it took, or takes, the place of others of the same To and As
	IfEmpty  bool // it is made only where the CRM has none of the same To and As
	Want     Want
	Have     Have
	Verdict  Verdict
	Refusal  uuid.UUID // the event whose link the CRM refused
}

// Action is what a link needs of the CRM.
type Action uint8

// The actions.
const (
	Nothing Action = iota
	Make
	TakeBack
)

// Need says what the link needs. The table of its states is TestNeed.
func (l *Link) Need() Action {
	switch {
	case l.Verdict != Open:
		return Nothing
	case l.Want == Linked && l.Have != Exists:
		return Make
	case l.Want == Unlinked && l.Have != Absent:
		return TakeBack
	}
	return Nothing
}

// Of reports whether the event of a version sees to it that the link is made.
func (l *Link) Of(v Version) bool { return l.Version == v || l.Owed == v }

// LinkName identifies a link of a record: one per target, label and object.
func LinkName(to, as, property, key string) string {
	return to + "\x1f" + as + "\x1f" + property + "\x1f" + key
}

// OnlyName identifies the links of which `only: one` leaves one.
func OnlyName(to, as string) string { return to + "\x1f" + as }

// needy are the links of a record that need an action, in the order of their versions.
func (r *Record) needy() []*Link {
	var links []*Link
	for _, name := range slices.Sorted(maps.Keys(r.Links)) {
		if l := r.Links[name]; l.Need() != Nothing {
			links = append(links, l)
		}
	}
	slices.SortStableFunc(links, func(a, b *Link) int { return a.Version.Compare(b.Version) })
	return links
}

// taken reports whether another link of ours has the place of one that is made only where there is none.
func (r *Record) taken(l *Link) bool {
	for _, o := range r.Links {
		if o != l && o.To == l.To && o.As == l.As && o.Have == Exists {
			return true
		}
	}
	return false
}

// successor is the link that takes the place of one to be taken back; nil where there is
// none. It counts only for a target where making a link replaces the former one.
func (r *Record) successor(l *Link) *Link {
	var next *Link
	for _, name := range slices.Sorted(maps.Keys(r.Links)) {
		o := r.Links[name]
		if o.Want == Linked && o.Verdict == Open && o.As == l.As && (o.As != "" || o.To == l.To) &&
			(next == nil || cmp.Or(o.Version.Compare(next.Version)) > 0) {
			next = o
		}
	}
	return next
}
