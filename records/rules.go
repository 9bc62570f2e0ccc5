package records

import (
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// The value rules that depend on what the CRM has: what sales own stays theirs.
//
//	set_on_create  ours only in the request that makes the record
//	set_if_empty   ours only where the CRM shows nothing; once it has a value, that stays
//	forward        ours only where it is further along than what the CRM shows
//	add            what the CRM shows and ours; only what we have added is taken away
//
// A value that does not count is settled like one that the CRM will not have: with Refused or
// Kept, so that it is not sent.

// conditional reports whether what the CRM has decides whether the value of a field is sent.
func (f *Field) conditional() bool {
	switch mappers.Rule(f.Rule) {
	case mappers.SetOnCreate, mappers.SetIfEmpty, mappers.Forward, mappers.Add:
		return true
	}
	return false
}

// once reports whether the first value that the field gets stays, whatever later events want.
func (f *Field) once() bool {
	return f.Rule == string(mappers.SetOnCreate) || f.Rule == string(mappers.SetIfEmpty)
}

// settled reports whether it is decided that the CRM has a value of the field, ours or its own, or
// that it was made without. One that it has refused may be followed by one that it takes.
func (f *Field) settled() bool {
	return !f.AckedAt.IsZero() || f.Kept != nil || f.Refused == unsaid && f.Rule == string(mappers.SetOnCreate)
}

// rank is how far along a value is. One that the ladder does not know has none.
func rank(l *mappers.Ladder, v any) (int, bool) {
	if l == nil || v == nil {
		return 0, false
	}
	text := textOf(v)
	same := func(step string) bool { return strings.EqualFold(strings.TrimSpace(step), strings.TrimSpace(text)) }
	if slices.ContainsFunc(l.Final, same) {
		return len(l.Order), true
	}
	if i := slices.IndexFunc(l.Order, same); i >= 0 {
		return i, true
	}
	return 0, false
}

// ahead reports whether the statement of a field under forward decides over another: the one
// that is further along, of two that say the same the newer, of two final ones the older.
func (f *Field) ahead(o *Field) bool {
	mine, _ := rank(f.Ladder, f.Wanted.Go)
	its, known := rank(f.Ladder, o.Wanted.Go)
	switch {
	case !known || mine > its:
		return true
	case mine < its:
		return false
	case f.Ladder != nil && mine == len(f.Ladder.Order):
		return f.Version.Compare(o.Version) < 0
	}
	return f.Version.Compare(o.Version) > 0
}

// textOf is a value as text: a stage or a key may be a number.
func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return NewValue(v).JSON
}

// sight is what the CRM has shown of a record in this batch.
type sight struct {
	id     string
	asked  []string
	values map[string]any
}

// of reports whether the CRM was asked for a field of the record.
func (s *sight) of(id, name string) bool {
	return s != nil && s.id == id && slices.Contains(s.asked, name)
}

// with is what was shown before and what is shown now.
func (s *sight) with(now *sight) *sight {
	if s == nil || s.id != now.id {
		return now
	}
	all := &sight{id: now.id, asked: slices.Clone(now.asked), values: maps.Clone(now.values)}
	for _, name := range s.asked {
		if v, told := s.values[name]; !slices.Contains(now.asked, name) {
			all.asked = append(all.asked, name)
			if told {
				all.values[name] = v
			}
		}
	}
	return all
}

// asks are the fields whose values the CRM has to show before it is known whether ours are sent, and
// those that show whether it has a link where one of ours is to be made.
func (w *Work) asks(env *Env) []string {
	names := w.emptyFields(env)
	for name, f := range w.Record.Fields {
		if f.conditional() && f.Pending() && f.Rule != string(mappers.SetOnCreate) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// emptyFields are the properties that show whether the CRM has a link where one of ours is to be made.
// What we have made just now has none but ours.
func (w *Work) emptyFields(env *Env) []string {
	var names []string
	for _, l := range w.Record.needy() {
		if !l.IfEmpty || l.Need() != Make || w.created || w.Record.taken(l) || w.Record.CRMID != "" && env.Neighbour(l).id() == "" {
			continue
		}
		if name := env.Can.LinkField(w.Record, l); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// lookForLinks is the step that finds out whether the CRM has links where ours are to be made; nil
// where that is known.
func (w *Work) lookForLinks(env *Env) *Step {
	names := w.emptyFields(env)
	if !slices.ContainsFunc(names, func(name string) bool { return !w.seen.of(w.Record.CRMID, name) }) {
		return nil
	}
	list := w.ready()
	if len(list) == 0 {
		return nil
	}
	return &Step{Do: Read, Work: w, Mode: mappers.Upsert, Last: list[len(list)-1], Serves: list, Show: names}
}

// rivalled reports whether a newer link is to be made in the place of one that is made only where there is none.
func (w *Work) rivalled(l *Link, env *Env) bool {
	return slices.ContainsFunc(w.Record.needy(), func(o *Link) bool {
		if o == l || !o.IfEmpty || o.Need() != Make || o.To != l.To || o.As != l.As || env.Neighbour(o).id() == "" {
			return false
		}
		order := o.Version.Compare(l.Version)
		return order > 0 || order == 0 && o.Key > l.Key
	})
}

// free reports whether a link that is made only where there is none is to be made now. It settles one
// whose place is taken.
func (w *Work) free(l *Link, n Neighbour, env *Env) bool {
	r, field := w.Record, env.Can.LinkField(w.Record, l)
	switch {
	case r.taken(l):
		l.Verdict = Theirs
		return false
	case w.rivalled(l, env):
		return false // that one has its turn first
	case w.vacant || w.created:
		return true
	case !w.seen.of(r.CRMID, field):
		return false
	}
	shown, told := w.seen.values[field]
	switch {
	case told && blank(shown):
		return true
	case n.id() == "":
		return false
	case slices.Contains(env.Can.Several(shown), n.id()) || textOf(shown) == n.id():
		l.Have = Exists
	default:
		l.Verdict = Theirs
	}
	return false
}

// hides reports whether a field must not be sent yet, since the CRM has not shown what it has.
func (w *Work) hides(name string, f *Field) bool {
	if !f.conditional() || w.vacant {
		return false
	}
	if w.Record.CRMID == "" || f.Rule == string(mappers.SetOnCreate) {
		return true
	}
	return !w.seen.of(w.Record.CRMID, name)
}

// yield has the values of other deliveries take the place of those that the CRM will not have, or
// that have no say.
func (w *Work) yield() {
	for name, f := range w.Record.Fields {
		if !f.conditional() || f.Refused == uuid.Nil {
			continue
		}
		for _, d := range w.writers() {
			for _, g := range d.Change.Fields {
				if v := d.Cause.Version; g.Name == name && v != f.Version && !w.spent[name][v] {
					var t Tally
					if foldField(w.Record, d.Change, g, v, &t); t.Pending > 0 {
						d.tally.Pending++
						d.tally.Stale = max(d.tally.Stale-1, 0)
					}
				}
			}
		}
	}
}

// decide settles the values that do not count, by what the CRM has shown.
func (w *Work) decide(can Capabilities) {
	r := w.Record
	if w.vacant || r.CRMID == "" && r.Presence != Present {
		return
	}
	for name, f := range r.Fields {
		if !f.conditional() || !f.Pending() {
			continue
		}
		if f.Rule == string(mappers.SetOnCreate) {
			f.Refused = unsaid
			continue
		}
		if w.hides(name, f) {
			continue
		}
		shown, told := w.seen.values[name]
		empty := blank(shown)
		keep := func() { v := NewValue(shown); f.Kept = &v }
		have := func() { f.Acked, f.AckedAt, f.HadAt = f.Wanted, f.Version, Version{} }
		switch {
		case !told:
			keep() // the CRM does not let us see it: it may have a value
		case f.Rule == string(mappers.Add):
			if sameTexts(w.union(name, f, can), can.Several(shown)) {
				have()
			}
		case empty:
		case can.Alike(name, f.Wanted.Go, shown):
			have()
		case f.Rule == string(mappers.SetIfEmpty):
			keep()
		default:
			mine, _ := rank(f.Ladder, f.Wanted.Go)
			its, known := rank(f.Ladder, shown)
			if !known || its >= mine {
				keep()
			}
		}
	}
}

// union is what a field under add is to have: what the CRM shows and what we want, without what
// we have added and want no more.
func (w *Work) union(name string, f *Field, can Capabilities) []string {
	ours := texts(f.Wanted.Go)
	var out []string
	if w.seen != nil {
		for _, text := range can.Several(w.seen.values[name]) {
			if slices.Contains(ours, text) || !slices.Contains(f.Added, text) {
				out = append(out, text)
			}
		}
	}
	for _, text := range ours {
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// adds are the values that are there since we put them, once a request has put ours there. What
// was there before we wanted it is not ours.
func (w *Work) adds(name string, f *Field, can Capabilities) []string {
	var there, ours []string
	if w.seen != nil {
		there = can.Several(w.seen.values[name])
	}
	for _, text := range texts(f.Wanted.Go) {
		if slices.Contains(f.Added, text) || !slices.Contains(there, text) {
			ours = append(ours, text)
		}
	}
	return ours
}

// blank reports whether a CRM shows that a field has no value.
func blank(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return strings.TrimSpace(v) == ""
	case []any:
		return len(v) == 0
	}
	return false
}

// texts are the elements of the value of a field under add.
func texts(v any) []string {
	var out []string
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, e := range list {
		if text, ok := e.(string); ok && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// sameTexts reports whether two lists hold the same, in whatever order.
func sameTexts(a, b []string) bool {
	for _, text := range a {
		if !slices.Contains(b, text) {
			return false
		}
	}
	for _, text := range b {
		if !slices.Contains(a, text) {
			return false
		}
	}
	return true
}
