package sinks

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// shownFor are the properties that the answer to rows has to show: what they read, and what they are told apart by.
func (d *Description) shownFor(op Operation, units []*unit) []any {
	var names []string
	for _, u := range units {
		names = append(names, u.row.Read...)
		for _, t := range termsOf(op, u.row) {
			names = append(append(names, t.Property), d.also[t.Property]...)
		}
	}
	slices.Sort(names)
	out := make([]any, 0, len(names))
	for _, name := range slices.Compact(names) {
		out = append(out, name)
	}
	return out
}

// termsOf are what a record has to have to be that of a row.
func termsOf(op Operation, r *Row) []Term {
	if op == Find && r.Property != "" {
		return []Term{{r.Property, r.Key}}
	}
	return r.Terms
}

// sighting is a record that an answer shows.
type sighting struct {
	id      string
	element any
}

// readFound reads the records of an answer, and finds out whose they are.
func (s *Sink) readFound(out []outcome, o *operation, units []*unit, a *answer) {
	l := &o.result.Results
	list, ok := l.At.at(a.tree, "").([]any)
	if !ok && !a.empty {
		s.fail(out, units, a, "the answer has a shape that the description does not know")
		return
	}
	more := o.name == Search && o.result.truncated(a, len(list))
	if more && len(units) > 1 {
		out[0].crowded = true
		return
	}
	rows := newDirectory(s, units)
	found := make([][]sighting, len(units))
	for _, element := range list {
		if shown := l.Shows.all(a, element, a.property); len(shown) > 0 && !s.shows(units, shown) {
			continue
		}
		id := l.ID.one(a, element, a.property)
		whose := []int{0}
		switch {
		case l.byTerms(o.name):
			whose = s.fitting(l.Values, o.name, units, element)
		case len(l.Is) > 0:
			whose = rows.named(l.Is, element, a.property)
		}
		if id == "" || len(whose) == 0 && !l.byTerms(o.name) {
			// To take it for nothing would make the record a second time.
			s.fail(out, units, a, "the answer does not name the records that it found")
			return
		}
		for _, i := range whose {
			if !slices.ContainsFunc(found[i], func(f sighting) bool { return f.id == id }) {
				found[i] = append(found[i], sighting{id, element})
			}
		}
	}
	for i := range out {
		s.settle(&out[i], o, units[i], found[i], more)
	}
	s.readLacking(out, o, units, a)
}

// byTerms reports whether the records of an answer are told apart by the values that they show.
func (l *listing) byTerms(op Operation) bool {
	return op == Search || op == Find && l.Values != nil && len(l.Is) == 0 && len(l.Shows) == 0
}

// truncated reports whether a search has found more than its answer holds.
func (r *resultRules) truncated(a *answer, elements int) bool {
	return r.More != nil && r.More.holds(a, a.tree, "") || r.Limit > 0 && elements >= r.Limit ||
		r.Next != nil && !blank(r.Next.at(a.tree, ""))
}

// settle tells what became of a row for which an answer shows these records.
func (s *Sink) settle(out *outcome, o *operation, u *unit, found []sighting, more bool) {
	if o.name == Search {
		out.Class, out.More = OK, more
		if made := o.result.Results.Made; made != nil {
			oldestFirst(found, made)
		}
		for _, f := range found {
			out.Hits = append(out.Hits, s.hit(o, u, f))
		}
		return
	}
	switch len(found) {
	case 0:
		out.absent(o.name)
	case 1:
		out.Class, out.ID = OK, found[0].id
		out.Hits = s.hitsOf(o, u, found[0].element, found[0].id)
	default:
		out.Class, out.Code = Rejected, "several_found"
		var ids []string
		for _, f := range found[:min(len(found), 10)] {
			ids = append(ids, f.id)
		}
		out.Message = "several records have this key: " + strings.Join(ids, ", ")
	}
}

// absent marks a row whose record is not there.
func (o *outcome) absent(op Operation) {
	o.Class, o.Absent, o.Code, o.Message = Rejected, true, "not_found", "no record has this key"
	if op == Read {
		o.Message = "no record has this id"
	}
}

// readLacking reads the errors of an answer that shows records. That one is not there is none; anything else may be
// about each row that has found nothing.
func (s *Sink) readLacking(out []outcome, o *operation, units []*unit, a *answer) {
	if o.result.Errors.At == nil {
		return
	}
	list, _ := o.result.Errors.At.at(a.tree, "").([]any)
	var open []int
	for i := range out {
		if len(out[i].Hits) == 0 && out[i].ID == "" && out[i].Code != "several_found" {
			open = append(open, i)
		}
	}
	for _, element := range list {
		for _, i := range open {
			one := outcome{}
			one.Status, one.RequestID = out[i].Status, out[i].RequestID
			s.refuseRow(&one, o, units[i], a, element, a.units...)
			if one.Absent {
				break
			}
			if len(open) > 1 && o.repeatable {
				one.Class = Split
			}
			out[i] = one
		}
	}
}

// oldestFirst orders records by the time at which they were made, where each shows one.
func oldestFirst(found []sighting, made *path) {
	at := make(map[string]time.Time, len(found))
	for _, f := range found {
		text, _ := made.at(f.element, "").(string)
		t, _, ok := instant(text)
		if !ok {
			return
		}
		at[f.id] = t
	}
	slices.SortStableFunc(found, func(a, b sighting) int { return at[a.id].Compare(at[b.id]) })
}

// hitsOf is the record that an element shows, in the answer to a find or a read.
func (s *Sink) hitsOf(o *operation, u *unit, element any, id string) []Hit {
	if o.name != Find && o.name != Read || o.result.Results.Values == nil || id == "" {
		return nil
	}
	return []Hit{s.hit(o, u, sighting{id, element})}
}

func (s *Sink) hit(o *operation, u *unit, f sighting) Hit {
	h := Hit{ID: f.id, Values: map[string]any{}, URL: s.desc.RecordURL(u.row.Object, f.id)}
	for _, name := range u.row.Read {
		raw, shown := o.result.Results.Values.raw(f.element, name)
		if !shown {
			continue
		}
		if v, ok := o.result.Results.Values.typed(raw); ok {
			h.Values[name] = v
		}
	}
	return h
}

// RecordURL is where people see a record; "" where that is not known.
func (d *Description) RecordURL(object, id string) string {
	if d.recordURL == nil || id == "" {
		return ""
	}
	u := &unit{row: &Row{Object: object, ID: id}}
	text, err := d.recordURL.text(&rendering{d: d, op: Read, units: []*unit{u}}, u, nil, nil, true)
	if err != nil {
		return ""
	}
	return text
}

// typed is a value that an answer shows, with its type; false where it has parts of its own.
func (r *shownRules) typed(v any) (any, bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case numeral:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n, true
		}
		if n, ok := number(string(v)); ok {
			return n, true
		}
		return string(v), true
	}
	shown, ok := r.plain(v)
	if ok && blank(shown) {
		return nil, true
	}
	return shown, ok
}

// fitting are the rows all of whose terms an element shows. Not every search is exact.
func (s *Sink) fitting(r *shownRules, op Operation, units []*unit, element any) []int {
	var out []int
	for i, u := range units {
		terms := termsOf(op, u.row)
		if len(terms) > 0 && !slices.ContainsFunc(terms, func(t Term) bool { return !s.fits(r, t, element) }) {
			out = append(out, i)
		}
	}
	return out
}

// fits reports whether an element shows the value of a term: in its property, be it one of several values, or in one
// that holds further ones.
func (s *Sink) fits(r *shownRules, t Term, element any) bool {
	want := s.Fold(t.Property, t.Value)
	if want == "" {
		return false
	}
	same := func(text string) bool { return s.Fold(t.Property, text) == want }
	for i, name := range append([]string{t.Property}, s.desc.also[t.Property]...) {
		raw, _ := r.raw(element, name)
		if n, isNumber := raw.(numeral); isNumber && sameNumber(string(n), t.Value) {
			return true
		}
		shown, _ := r.plain(raw)
		switch shown := shown.(type) {
		case string:
			if same(shown) || i > 0 && slices.ContainsFunc(s.cut(shown), func(e any) bool { return same(e.(string)) }) {
				return true
			}
		case []any:
			if slices.ContainsFunc(shown, func(e any) bool { return same(e.(string)) }) {
				return true
			}
		}
	}
	return false
}

// CannotSearch tells why no record of an object can be looked for by these properties together; "" where it can.
func (d *Description) CannotSearch(object string, properties []string) string {
	row := &Row{Object: object, Trace: "x"}
	for _, p := range properties {
		row.Terms = append(row.Terms, Term{p, "x"})
	}
	return d.cannot(Search, row)
}

// CannotRead tells why no record of an object can be read by its id; "" where it can.
func (d *Description) CannotRead(object string) string {
	return d.cannot(Read, &Row{Object: object, ID: "1", Read: []string{"x"}})
}

func (d *Description) cannot(op Operation, row *Row) string {
	if d.unsure {
		return ""
	}
	u := &unit{row: row}
	way, _ := d.way(op, u)
	if way == nil {
		return unsupported(op)
	}
	r := &rendering{d: d, op: op, units: []*unit{u}}
	for _, n := range way.needs {
		if !n.general() {
			continue
		}
		if err := n.lacks(r, u); err != nil {
			return err.Error()
		}
	}
	return ""
}

// OrdersHits reports whether the records that a search finds come oldest first.
func (d *Description) OrdersHits() bool {
	ways := d.operations[Search]
	return len(ways) > 0 && !slices.ContainsFunc(ways, func(o *operation) bool { return o.result.Results.Made == nil })
}

// shows reports whether one of the texts is the key of a row: not every search is exact.
func (s *Sink) shows(units []*unit, texts []string) bool {
	return slices.ContainsFunc(units, func(u *unit) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return s.Fold(u.row.Property, text) == u.name(s, "key") })
	})
}
