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
	more := o.result.truncated(a, len(list))
	if more && len(units) > 1 {
		out[0].crowded = true
		return
	}
	rows := newDirectory(s, units)
	found := make([][]sighting, len(units))
	for _, element := range list {
		shown := l.Shows.all(a, element, a.property)
		if len(shown) > 0 && !s.shows(units, shown) {
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
		if o.name == Read && id != "" && len(whose) == 0 {
			// A record that was merged is shown as the one that it was merged into. Which of the rows that is the answer does not
			// say, but for a row alone.
			if len(units) > 1 {
				out[0].crowded = true
				return
			}
			whose = []int{0}
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
	return l.Values != nil && (op == Search || op == Find && len(l.Is) == 0 && len(l.Shows) == 0)
}

// truncated reports whether a search has found more than its answer holds.
func (r *resultRules) truncated(a *answer, elements int) bool {
	return r.More != nil && r.More.holds(a, a.tree, "") || r.Limit > 0 && elements >= r.Limit ||
		r.Next != nil && !blank(r.Next.at(a.tree, ""))
}

// settle tells what became of a row for which an answer shows these records.
func (s *Sink) settle(out *outcome, o *operation, u *unit, found []sighting, more bool) {
	if o.result.Results.Then != "" && len(found) > 0 {
		out.Class, out.More = OK, more
		for _, f := range found {
			out.doubted = append(out.doubted, f.id)
		}
		return
	}
	if o.name == Search {
		out.Class, out.More = OK, more
		oldestFirst(found, func(f sighting) time.Time { return o.result.Results.madeAt(f.element) })
		for _, f := range found {
			out.Hits = append(out.Hits, s.hit(o, u, f))
		}
		return
	}
	var ids []string
	for _, f := range found {
		ids = append(ids, f.id)
	}
	if out.identify(o.name, ids, more); out.Class == OK {
		s.see(out, o, u, found[0])
	}
}

// identify tells what became of a row whose key these records have. What does not show all that it has found does not
// show that there is none, either.
func (o *outcome) identify(op Operation, ids []string, more bool) {
	switch {
	case len(ids) == 1:
		o.Class, o.ID = OK, ids[0]
	case len(ids) > 1:
		o.Class, o.Code = Rejected, "several_found"
		o.Message = "several records have this key: " + strings.Join(ids[:min(len(ids), 10)], ", ")
	case more:
		o.Class, o.Code = Rejected, "many_found"
		o.Message = "the search finds more records than it shows, and none of those has this key"
	default:
		o.absent(op)
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

// oldestFirst orders records by the time at which they were made, where that of each is known.
func oldestFirst[T any](found []T, made func(T) time.Time) {
	if !slices.ContainsFunc(found, func(f T) bool { return made(f).IsZero() }) {
		slices.SortStableFunc(found, func(a, b T) int { return made(a).Compare(made(b)) })
	}
}

// madeAt is when the record of an element was made; zero where it does not show that.
func (l *listing) madeAt(element any) time.Time {
	if l.Made == nil {
		return time.Time{}
	}
	text, _ := l.Made.at(element, "").(string)
	t, _, _ := instant(text)
	return t
}

// see takes over the record that the answer to a find or a read shows. Of a read for a search it is none that does not
// show what was looked for.
func (s *Sink) see(out *outcome, o *operation, u *unit, f sighting) {
	values := o.result.Results.Values
	if o.name != Find && o.name != Read || values == nil || f.id == "" {
		return
	}
	if o.name == Read && len(u.row.Terms) > 0 && len(s.fitting(values, Read, []*unit{u}, f.element)) == 0 {
		out.absent(Read)
		return
	}
	out.Hits, out.made = []Hit{s.hit(o, u, f)}, o.result.Results.madeAt(f.element)
}

func (s *Sink) hit(o *operation, u *unit, f sighting) Hit {
	h := Hit{ID: f.id, Values: map[string]any{}, URL: s.desc.RecordURL(u.row.Object, f.id)}
	for _, name := range u.row.Read {
		raw, shown := o.result.Results.Values.raw(f.element, name)
		for _, also := range s.desc.also[name] {
			if !shown {
				raw, shown = o.result.Results.Values.raw(f.element, also)
			}
		}
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
	if list, isList := shown.([]any); isList && len(list) == 1 {
		return list[0], ok // there are targets to which every field is a list
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
	shows := func(op Operation) bool {
		ways := d.operations[op]
		return len(ways) > 0 && !slices.ContainsFunc(ways, func(o *operation) bool { return o.result.Results.Made == nil && o.result.Results.Then == "" })
	}
	then := slices.ContainsFunc(d.operations[Search], func(o *operation) bool { return o.result.Results.Then != "" })
	return shows(Search) && (!then || shows(Read))
}

// shows reports whether one of the texts is the key of a row: not every search is exact.
func (s *Sink) shows(units []*unit, texts []string) bool {
	return slices.ContainsFunc(units, func(u *unit) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return s.Fold(u.row.Property, text) == u.name(s, "key") })
	})
}
