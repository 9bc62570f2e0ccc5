package records

import (
	"slices"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// Tally counts what became of the fields and links of one change.
type Tally struct {
	Pending int // the CRM lacks it
	Stale   int // a newer event has decided it
	Same    int // the CRM has it already, from another event
	Acked   int // the CRM has it from this very event: an earlier attempt got through
	Refused int // the CRM has refused this very value before, so it is not sent
}

// Fold lays a change over the desired state of its record. The same changes in any order,
// any number of times, give the same desired state.
func Fold(r *Record, change *mappers.Change, version Version) Tally {
	var t Tally
	for _, f := range change.Fields {
		if f.Rule == mappers.Touch {
			continue // it goes along with others, see Work.row
		}
		foldField(r, change, f, version, &t)
	}
	for _, l := range change.Links {
		foldLink(r, change, l, version, &t)
	}
	return t
}

func foldField(r *Record, change *mappers.Change, f mappers.Field, version Version, t *Tally) {
	next := &Field{Wanted: NewValue(f.Value), Version: version, Mapping: change.Mapping, Rule: string(f.Rule), Ladder: f.Ladder}
	have := r.Fields[f.Name]
	if have == nil {
		r.Fields[f.Name] = next
		t.Pending++
		return
	}
	order := version.Compare(have.Version)
	if f.Rule == mappers.SetFirst {
		if order > 0 { // somebody came first
			t.Same++
			return
		}
		order = -order
	}
	again := next.Wanted.Equal(have.Wanted)
	switch {
	case order != 0 && next.once() && have.once() && have.settled(): // the CRM has a value, which stays
		t.Same++
		return
	case order != 0 && next.conditional() && have.Refused != uuid.Nil: // the CRM will not have that: this one has its turn
	case order != 0 && f.Rule == mappers.Forward:
		if !next.ahead(have) {
			t.Stale++
			return
		}
	case order < 0:
		t.Stale++
		return
	}
	if order == 0 && again {
		// The event itself once more: a repeat after a crash, or a replay.
		have.Refused, have.Kept, have.Ladder = uuid.Nil, nil, next.Ladder
		if have.Pending() {
			t.Pending++
		} else {
			t.Acked++
		}
		return
	}
	r.Fields[f.Name] = next
	next.Acked, next.AckedAt, next.HadAt, next.Added = have.Acked, have.AckedAt, have.HadAt, have.Added
	switch {
	case again && (have.Refused != uuid.Nil && have.Refused != unsaid || have.Kept != nil) && !change.Rewrite:
		next.Refused, next.Kept = have.Refused, have.Kept
		t.Refused++
	case !have.AckedAt.IsZero() && next.Wanted.Equal(have.Acked) && !change.Rewrite:
		next.AckedAt = version
		t.Same++
	default:
		t.Pending++
	}
}

// foldLink keeps two rules that commute: the newest statement about a link decides, and no
// link older than the newest `only` of its kind stays, whatever became of that one.
func foldLink(r *Record, change *mappers.Change, l mappers.Link, version Version, t *Tally) {
	name, kind := LinkName(l.To, l.As, l.Key.Property, l.Key.Value), OnlyName(l.To, l.As)
	if l.Only && !l.Remove && version.Compare(r.Only[kind]) > 0 {
		if r.Only == nil {
			r.Only = map[string]Version{}
		}
		r.Only[kind] = version
		defer r.displace(kind, name, change.Mapping)
	}
	want := Linked
	if l.Remove {
		want = Unlinked
	}
	have := r.Links[name]
	switch {
	case version.Compare(r.Only[kind]) < 0:
		// The newest `only` has decided; of what it has not met there is nothing to take back.
		t.Stale++
		return
	case have == nil:
		have = &Link{To: l.To, Property: l.Key.Property, Key: l.Key.Value, As: l.As}
		r.Links[name] = have
		if want == Unlinked {
			// There is nothing of ours to take back, but an older event must not bring it back.
			have.Version, have.Mapping, have.Want = version, change.Mapping, Unlinked
			t.Same++
			return
		}
	case version.Compare(have.Version) < 0:
		t.Stale++
		return
	case have.Version == version && have.Want == want && have.Verdict != Refused && have.Need() == Nothing:
		t.Acked++
		return
	case have.Version != version && have.Want == want && have.Verdict == Refused && have.Refusal != unsaid:
		have.Version, have.Mapping = version, change.Mapping
		t.Refused++
		return
	case have.Version != version && have.Want == want && have.Verdict == Theirs && l.IfEmpty && !change.Rewrite:
		have.Version, have.Mapping = version, change.Mapping
		t.Same++
		return
	case have.Want == want && have.Verdict == Open && have.Need() == Nothing && !change.Rewrite:
		have.Version, have.Mapping = version, change.Mapping
		t.Same++
		return
	}
	if have.Version != version {
		have.Owed = Version{}
	}
	if have.Have == Exists && want == Linked { // to be sent again
		have.Have = InDoubt
	}
	have.Version, have.Mapping, have.Want, have.Verdict, have.Only, have.IfEmpty = version, change.Mapping, want, Open, l.Only, l.IfEmpty
	if have.Need() == Nothing {
		t.Same++
		return
	}
	t.Pending++
}

// displace takes back the links of a kind that are older than its newest `only`.
func (r *Record) displace(kind, except, mapping string) {
	v := r.Only[kind]
	for name, l := range r.Links {
		if name != except && OnlyName(l.To, l.As) == kind && l.Version.Compare(v) < 0 {
			if l.Want == Linked {
				l.Want, l.Verdict, l.Mapping = Unlinked, Open, mapping
			}
			l.Version, l.Owed = v, Version{}
		}
	}
}

// Merge lays the desired state of one record into that of another which is the same record
// of the CRM. It gives what folding the events of both into one would have.
func Merge(into, from *Record) {
	for name, f := range from.Fields {
		have := into.Fields[name]
		if have == nil {
			into.Fields[name] = f
			continue
		}
		if f.conditional() || have.conditional() {
			into.Fields[name] = meetFields(have, f)
			continue
		}
		order := f.Version.Compare(have.Version)
		if f.Rule == string(mappers.SetFirst) {
			order = -order
		}
		won := have
		if order > 0 {
			won = f
			into.Fields[name] = f
		}
		// Both were sent to one field of the CRM: it holds the value that both wanted, or either.
		if have.AckedAt == have.Version && f.AckedAt == f.Version && have.Acked.Equal(f.Acked) {
			won.Acked, won.AckedAt = won.Wanted, won.Version
		} else {
			acked, had := f.Acked, f.has()
			if f.decides(have.has(), had) {
				acked, had = have.Acked, have.has()
			}
			won.Acked, won.AckedAt, won.HadAt = acked, Version{}, had
		}
	}
	into.unsettle(from)
	from.unsettle(into)
	for name, l := range from.Links {
		have := into.Links[name]
		if have == nil {
			into.Links[name] = l
			continue
		}
		// Both were sent to one record of the CRM: it has the link if either has, and may have it if either may.
		seen := max(have.Have, l.Have)
		if have.Want != l.Want && have.Have != l.Have {
			seen = InDoubt
		}
		if l.Version.Compare(have.Version) > 0 {
			have = l
			into.Links[name] = l
		}
		have.Have = seen
	}
	for _, l := range into.Links {
		if l.Verdict == Theirs { // of another record than it is now
			l.Verdict = Open
		}
	}
	for kind, v := range from.Only {
		if v.Compare(into.Only[kind]) > 0 {
			if into.Only == nil {
				into.Only = map[string]Version{}
			}
			into.Only[kind] = v
		}
	}
	for kind, v := range into.Only {
		mapping := ""
		for _, l := range into.Links {
			if l.Version == v && OnlyName(l.To, l.As) == kind {
				mapping = l.Mapping
			}
		}
		into.displace(kind, "", mapping)
	}
	into.GoneAt, into.LiveAt = newer(into.GoneAt, from.GoneAt), newer(into.LiveAt, from.LiveAt)
	into.Merged = true
}

// meetFields is what two statements about one field come to where the CRM has a say in it. What
// became of either says nothing of the record that both are now: it is looked at again.
func meetFields(a, b *Field) *Field {
	won, lost := a, b
	if b.Rule == string(mappers.Forward) && b.ahead(a) || b.Rule != string(mappers.Forward) && b.Version.Compare(a.Version) > 0 {
		won, lost = b, a
	}
	if won.once() && !won.settled() && lost.settled() {
		won = lost
	}
	if won.Rule == string(mappers.SetOnCreate) { // nothing makes the record any more
		return won
	}
	for _, text := range lost.Added {
		if !slices.Contains(won.Added, text) {
			won.Added = append(slices.Clone(won.Added), text)
		}
	}
	won.doubt()
	won.Kept = nil
	return won
}

// unsettle notes that links may not be there any more: the other record turned out to be the same,
// and where a link takes the place of the former one of its role, its links may have done so.
func (r *Record) unsettle(o *Record) {
	for name, l := range r.Links {
		for other, m := range o.Links {
			if other != name && m.As == l.As && m.Have != Absent && l.Have == Exists && l.Want == Linked {
				l.Have = InDoubt
			}
		}
	}
}

// Rewrite forgets that the CRM has taken what the event of a version wants, so that it is
// sent once more.
func Rewrite(r *Record, change *mappers.Change, version Version) {
	for _, f := range change.Fields {
		if have := r.Fields[f.Name]; have != nil && have.Version == version && !have.once() {
			have.doubt()
			have.Kept = nil
		}
	}
}
