package jobs

import (
	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/mappers"
)

// tally counts what became of the fields and links of one change.
type tally struct {
	pending int // the CRM lacks it
	stale   int // a newer event has decided it
	same    int // the CRM has it already, from another event
	acked   int // the CRM has it from this very event: an earlier attempt got through
	refused int // the CRM has refused this very value before, so it is not sent
}

// fold lays a change over the wanted state of its record. The same changes in
// any order, any number of times, give the same wanted state.
func fold(rec *ledger.Record, change *mappers.Change, version ledger.Version) tally {
	var t tally
	for _, f := range change.Fields {
		if f.Rule == mappers.Touch {
			continue // goes along with others, see rowValues
		}
		foldField(rec, change, f, version, &t)
	}
	for _, l := range change.Links {
		foldLink(rec, change, l, version, &t)
	}
	return t
}

func foldField(rec *ledger.Record, change *mappers.Change, f mappers.Field, version ledger.Version, t *tally) {
	next := &ledger.Field{Wanted: ledger.NewValue(f.Value), Version: version, Mapping: change.Mapping, Rule: string(f.Rule)}
	have := rec.Fields[f.Name]
	if have == nil {
		rec.Fields[f.Name] = next
		t.pending++
		return
	}
	order := version.Compare(have.Version)
	if f.Rule == mappers.SetFirst {
		if order > 0 { // somebody came first
			t.same++
			return
		}
		order = -order
	}
	if order < 0 {
		t.stale++
		return
	}
	again := next.Wanted.Equal(have.Wanted)
	if order == 0 && again {
		// The event itself once more: a repeat after a crash, or a replay.
		have.Refused = false
		if have.Pending() {
			t.pending++
		} else {
			t.acked++
		}
		return
	}
	rec.Fields[f.Name] = next
	next.Acked, next.AckedAt = have.Acked, have.AckedAt
	switch {
	case again && have.Refused:
		next.Refused = true
		t.refused++
	case !have.AckedAt.IsZero() && next.Wanted.Equal(have.Acked) && !change.Rewrite:
		next.AckedAt = version
		t.same++
	default:
		t.pending++
	}
}

func foldLink(rec *ledger.Record, change *mappers.Change, l mappers.Link, version ledger.Version, t *tally) {
	name := ledger.LinkName(l.To, l.As, l.Key.Property, l.Key.Value)
	have := rec.Links[name]
	switch {
	case l.Only && !l.Remove && replaced(rec, name, l, version):
		t.stale++
		return
	case have == nil:
		have = &ledger.Link{To: l.To, Property: l.Key.Property, Key: l.Key.Value, As: l.As}
		rec.Links[name] = have
		if l.Remove {
			// Nothing of ours to remove, but an older event must not bring it back.
			have.Version, have.Mapping, have.Remove, have.Done = version, change.Mapping, true, true
			t.same++
			return
		}
	case version.Compare(have.Version) < 0:
		t.stale++
		return
	case have.Version == version && have.Remove == l.Remove && have.Done:
		t.acked++
		return
	case have.Version != version && have.Remove == l.Remove && have.Refused:
		have.Version, have.Mapping = version, change.Mapping
		t.refused++
		return
	case have.Remove == l.Remove && have.Done && !change.Rewrite:
		have.Version, have.Mapping = version, change.Mapping
		t.same++
		return
	}
	if have.Version != version {
		have.Owed = ledger.Version{}
	}
	have.Version, have.Mapping, have.Remove, have.Done, have.Refused = version, change.Mapping, l.Remove, false, false
	have.Only = l.Only
	t.pending++
	if !l.Only || l.Remove {
		return
	}
	for other, former := range rec.Links {
		if other != name && former.To == l.To && former.As == l.As && !former.Remove && former.Version.Compare(version) < 0 {
			former.Version, former.Mapping, former.Remove, former.Done, former.Refused = version, change.Mapping, true, false, false
		}
	}
}

// replaced reports whether a newer event has put another link in the place of l.
func replaced(rec *ledger.Record, name string, l mappers.Link, version ledger.Version) bool {
	for n, other := range rec.Links {
		if n != name && other.To == l.To && other.As == l.As && !other.Remove && other.Version.Compare(version) > 0 {
			return true
		}
	}
	return false
}

// merge lays the wanted state of one record into that of another which is the same record
// of the CRM. It gives what folding the events of both into one would have.
func merge(into, from *ledger.Record) {
	for name, f := range from.Fields {
		have := into.Fields[name]
		if have == nil {
			into.Fields[name] = f
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
			won.AckedAt = ledger.Version{}
		}
	}
	for name, l := range from.Links {
		have := into.Links[name]
		if have == nil {
			into.Links[name] = l
			continue
		}
		made, done := have.Made || l.Made, have.Remove == l.Remove && (have.Done || l.Done)
		if l.Version.Compare(have.Version) > 0 {
			have = l
			into.Links[name] = l
		}
		have.Made, have.Done = made, done
	}
	for name, l := range into.Links {
		if next := newest(into, name, l); next != nil && !l.Remove {
			l.Version, l.Mapping, l.Remove, l.Done, l.Refused = next.Version, next.Mapping, true, false, false
		}
	}
	if from.GoneAt.Compare(into.GoneAt) > 0 {
		into.GoneAt = from.GoneAt
	}
	if from.LiveAt.Compare(into.LiveAt) > 0 {
		into.LiveAt = from.LiveAt
	}
	into.Merged = true
}

// newest is the link, newer than l, that takes the place of all others of its To and As; nil where none does.
func newest(rec *ledger.Record, name string, l *ledger.Link) *ledger.Link {
	var next *ledger.Link
	for n, other := range rec.Links {
		if n != name && other.To == l.To && other.As == l.As && other.Only && !other.Remove && other.Version.Compare(l.Version) > 0 &&
			(next == nil || other.Version.Compare(next.Version) > 0) {
			next = other
		}
	}
	return next
}

// rewrite forgets that the CRM has taken what an event wants of a record, so that
// it is sent once more.
func rewrite(rec *ledger.Record, change *mappers.Change, version ledger.Version) {
	for _, f := range change.Fields {
		if have := rec.Fields[f.Name]; have != nil && have.Version == version {
			have.AckedAt = ledger.Version{}
		}
	}
}

// contributes reports whether anything that the event of version wants is still
// wanted and not yet with the CRM.
func contributes(rec *ledger.Record, version ledger.Version) bool {
	for _, f := range rec.Fields {
		if f.Version == version && f.Pending() {
			return true
		}
	}
	for _, l := range rec.Links {
		if l.Of(version) && l.Pending() {
			return true
		}
	}
	return false
}

// part is what one event contributes to the row of a record; the parts of a
// refused row are sent one by one.
type part struct {
	event  uuid.UUID
	fields map[string]ledger.Version // name → version sent
}

// pendingParts groups the fields that the CRM lacks by the event that wants them.
func pendingParts(rec *ledger.Record) []part {
	var parts []part
	index := map[uuid.UUID]int{}
	for name, f := range rec.Fields {
		if !f.Pending() {
			continue
		}
		i, ok := index[f.Version.Event]
		if !ok {
			i = len(parts)
			index[f.Version.Event] = i
			parts = append(parts, part{event: f.Version.Event, fields: map[string]ledger.Version{}})
		}
		parts[i].fields[name] = f.Version
	}
	return parts
}

// acknowledge notes that the CRM took the given fields in the versions sent.
func acknowledge(rec *ledger.Record, fields map[string]ledger.Version) {
	for name, version := range fields {
		if f := rec.Fields[name]; f != nil && f.Version == version {
			f.Acked, f.AckedAt = f.Wanted, version
		}
	}
}

// refuse notes that the CRM will not take the given fields in the versions sent.
func refuse(rec *ledger.Record, fields map[string]ledger.Version) {
	for name, version := range fields {
		if f := rec.Fields[name]; f != nil && f.Version == version {
			f.Refused = true
		}
	}
}

// doubt notes that nobody knows whether the CRM took the given fields.
func doubt(rec *ledger.Record, fields map[string]ledger.Version) {
	for name, version := range fields {
		if f := rec.Fields[name]; f != nil && f.Version == version {
			f.AckedAt = ledger.Version{}
		}
	}
}
