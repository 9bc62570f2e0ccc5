package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/sandbox"
)

// write is one change of a CRM, in the order in which the CRM made them.
type write struct {
	at     time.Time
	change sandbox.Change
}

// said is a claim, with when its event was stored.
type said struct {
	claim
	at time.Time
}

// book is all that the events of a run say, by place.
type book map[place]*page

// page is what they say of one place; each list is in the order of versions.
type page struct {
	fields map[string][]said
	links  []said
	ends   []said
	notes  int
	by     map[uuid.UUID][]said      // the newest values of each event
	values map[string]map[string]int // by field: how many events want a value
}

func newBook(events []event) (book, error) {
	b := book{}
	for i := range events {
		list, err := claims(&events[i])
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			b.add(said{c, events[i].at})
		}
	}
	for _, p := range b {
		for _, list := range p.fields {
			slices.SortFunc(list, compareSaid)
		}
		slices.SortFunc(p.links, compareSaid)
		slices.SortFunc(p.ends, compareSaid)
	}
	return b, nil
}

func compareSaid(a, b said) int { return a.by.compare(b.by) }

func (b book) add(s said) {
	p := b[s.place]
	if p == nil {
		p = &page{fields: map[string][]said{}, by: map[uuid.UUID][]said{}, values: map[string]map[string]int{}}
		b[s.place] = p
	}
	switch s.kind {
	case newest, oldest:
		p.fields[s.field] = append(p.fields[s.field], s)
		if s.kind == newest {
			p.by[s.by.id] = append(p.by[s.by.id], s)
		}
		if p.values[s.field] == nil {
			p.values[s.field] = map[string]int{}
		}
		p.values[s.field][s.value]++
	case tie, tieOnly, untie:
		p.links = append(p.links, s)
	case ends:
		p.ends = append(p.ends, s)
	case noted:
		p.notes++
	}
}

// earliest is the oldest of the statements that are not older than the floor, were stored by
// then, and fit.
func earliest(list []said, floor version, at time.Time, fits func(said) bool) (said, bool) {
	from, _ := slices.BinarySearchFunc(list, floor, func(s said, v version) int { return s.by.compare(v) })
	for _, s := range list[from:] {
		if !s.at.After(at) && fits(s) {
			return s, true
		}
	}
	return said{}, false
}

// latest is the newest of the statements that are not newer than the roof, were stored by then,
// and fit. A roof that is zero bounds nothing.
func latest(list []said, roof version, at time.Time, fits func(said) bool) (said, bool) {
	for _, s := range slices.Backward(list) {
		if (roof == version{} || s.by.compare(roof) <= 0) && !s.at.After(at) && fits(s) {
			return s, true
		}
	}
	return said{}, false
}

// seen is what the court knows of one record of a CRM. It cannot tell which of the events that
// want a value a write comes from, and takes the one that is best for the accused: so the CRM
// has what it notes, or newer. Of what the oldest event decides it has that, or older.
type seen struct {
	place  place
	values map[string]string
	bounds map[string]version
	links  map[string]version // by firm: of the newest statement on it
	only   version            // of the newest one after which no older link was left
}

// end is the newest event that can have archived a record, and the write intent under which that was done.
type end struct {
	by     version
	intent uuid.UUID
}

// court judges each write of a CRM by itself: what was right in the end may have been wrong
// before. It has its own idea of what events say and in which order, and knows no state of
// partnersync but its write intents.
type court struct {
	sink    string
	book    book
	intents *intents
	persons map[string][]string  // of contacts, by e-mail: the keys
	gone    map[string]time.Time // of people who are forgotten, by e-mail: since when
	verdict *verdict
	begun   time.Time

	records map[string]*seen    // by the CRM's id
	places  map[string]place    // by the CRM's id, also of what is gone
	loose   map[place]uuid.UUID // of records that the ledger lacks: the write intent under which somebody writes them
	ended   map[place]end
	notes   map[string]int // how often each was made
	writes  int
	lost    int // times that what was written is nobody's to know
}

func (c *court) judge(journal []write) {
	c.records, c.places, c.loose, c.ended, c.notes = map[string]*seen{}, map[string]place{}, map[place]uuid.UUID{}, map[place]end{}, map[string]int{}
	for _, w := range journal {
		c.writes++
		if w.change.Record.ID == "" {
			c.link(w)
			continue
		}
		c.record(w)
	}
}

// placeOf tells which record a row of the CRM is.
func (c *court) placeOf(r sandbox.Record) place {
	return place{c.sink, r.Object, textOf(r.Properties[keyProperty[r.Object]])}
}

// keyProperty is what tells the records of an object apart.
var keyProperty = map[string]string{
	"orders": "order_key", "firms": "firm_key", "seats": "seat_key", "contacts": "email", "deals": orderProperty, "notes": "hs_note_body",
}

// judged are the fields that the events decide.
var judged = []string{
	"title", "amount", "tier", "description", "first_partner", "paid", "note", "touched", "name", "last_order", "last_seat", "origin_id",
	"firstname", "jobtitle",
}

// keys are the names that a record may have in write intents.
func (c *court) keys(p place) []string {
	if p.object != "contacts" {
		return []string{keyOf(p.object, p.key)}
	}
	var keys []string
	for _, k := range c.persons[p.key] {
		keys = append(keys, keyOf(p.object, k))
	}
	return keys
}

// recall forgets what a record had where who writes it now cannot know. Of a record that the ledger
// has, that holds what is wanted before anything is sent. Of one that it lacks nobody knows what was
// sent until what came of that is stored: where its sender is gone before, what is newer has to be
// sent again, and what is older may come before it. The same goes for what was sent under another key,
// until the CRM's answer has told that both are one record.
func (c *court) recall(w write, p place, r *seen, by *intent) {
	if by == nil {
		return
	}
	keys := c.keys(p)
	if r != nil && len(keys) > 1 && !c.intents.one(c.sink, keys, by.made) {
		r.forget()
	}
	lost := func(former uuid.UUID) bool {
		end := c.intents.done[former]
		return former != by.id && (end.IsZero() || end.After(w.at))
	}
	// Who has to archive what may be archived makes it again where that is how to learn its id.
	if e, ok := c.ended[p]; ok && lost(e.intent) {
		delete(c.ended, p)
	}
	if former, ok := c.loose[p]; ok && former != by.id {
		if lost(former) {
			c.lost++
			if r != nil {
				r.forget()
			}
		}
		delete(c.loose, p)
	}
	for _, k := range keys {
		if slices.Contains(by.keys, k) && !c.intents.told(c.sink, k, by.made) {
			c.loose[p] = by.id
		}
	}
}

func (r *seen) forget() {
	r.bounds, r.links, r.only = map[string]version{}, map[string]version{}, version{}
}

// fault tells of a write that is wrong.
func (c *court) fault(w write, r *seen, by version, format string, args ...any) {
	c.tell(w, r.place, by, format, args...)
	r.forget() // one fault is enough
}

// tell tells of a fault with the time at which the CRM made the write.
func (c *court) tell(w write, p place, by version, format string, args ...any) {
	c.verdict.differs(p, by, "at %.2fs: "+format, append([]any{w.at.Sub(c.begun).Seconds()}, args...)...)
}

func (c *court) record(w write) {
	row := w.change.Record
	p := c.placeOf(row)
	r := c.records[row.ID]
	var by *intent
	if r == nil {
		if p.key == "" {
			c.tell(w, p, version{}, "%s is made without a key", row.ID)
			return
		}
		by = c.announced(w, p)
		c.recall(w, p, nil, by)
		r = c.born(w, p)
	} else {
		by = c.announced(w, r.place)
		c.recall(w, r.place, r, by)
	}
	if w.change.Archived {
		c.archived(w, r, by)
		delete(c.records, row.ID)
		return
	}
	page := c.book[r.place]
	if page == nil {
		c.fault(w, r, version{}, "is written, and nothing wants it")
		return
	}
	var anchors []uuid.UUID // events that the row is certain to come from
	for _, field := range judged {
		value := textOf(row.Properties[field])
		if value == r.values[field] {
			continue
		}
		r.values[field] = value
		if by, ok := c.field(w, r, page, field, value); ok && page.values[field][value] == 1 && by.kind == newest {
			anchors = append(anchors, by.by.id)
		}
	}
	for _, id := range anchors {
		// A row brings all that the CRM lacks: what else the event says is there, or newer.
		for _, s := range page.by[id] {
			if slices.Contains(judged, s.field) && s.by.compare(r.bounds[s.field]) > 0 {
				r.bounds[s.field] = s.by
				c.field(w, r, page, s.field, r.values[s.field])
			}
		}
	}
	if id := textOf(row.Properties[firmField]); id != r.values[firmField] {
		former := r.values[firmField]
		r.values[firmField] = id
		if id != "" {
			c.tied(w, r, page, c.firmOf(id))
		} else {
			c.untied(w, r, page, c.firmOf(former))
		}
	}
}

// born notes a new record.
func (c *court) born(w write, p place) *seen {
	r := &seen{place: p, values: map[string]string{}, bounds: map[string]version{}, links: map[string]version{}}
	c.records[w.change.Record.ID], c.places[w.change.Record.ID] = r, p
	if p.object == "notes" {
		c.notes[p.key]++
	}
	if e, ok := c.ended[p]; ok {
		r.bounds["title"] = e.by // each event that wants the seat brings it
		if p.sink == "mirror" {
			c.fault(w, r, e.by, "is made again, though it was archived by %s", e.by)
		}
	}
	return r
}

// field judges the value that a field has now.
func (c *court) field(w write, r *seen, page *page, field, value string) (said, bool) {
	list, bound := page.fields[field], r.bounds[field]
	is := func(s said) bool { return s.value == value }
	if len(list) == 0 {
		if value != "" {
			c.fault(w, r, version{}, "%s is %q, and nothing wants it", field, value)
		}
		return said{}, false
	}
	var by, other said
	var ok bool
	if list[0].kind == oldest {
		if by, ok = latest(list, bound, w.at, is); !ok {
			other, _ = latest(list, version{}, w.at, is)
		}
	} else if by, ok = earliest(list, bound, w.at, is); !ok {
		other, _ = latest(list, version{}, w.at, is)
	}
	if !ok {
		c.fault(w, r, other.by, "%s is written as %q, which %s wants, over what %s wants", field, value, other.by, bound)
		return said{}, false
	}
	r.bounds[field] = by.by
	return by, true
}

// archived judges the end of a record.
func (c *court) archived(w write, r *seen, under *intent) {
	page, bound := c.book[r.place], version{}
	if r.place.sink != "mirror" {
		bound = r.bounds["title"]
	}
	var list []said
	if page != nil {
		list = page.ends
	}
	any := func(said) bool { return true }
	by, ok := earliest(list, bound, w.at, any)
	if !ok {
		other, _ := latest(list, version{}, w.at, any)
		c.fault(w, r, other.by, "is archived, as %s wants, though %s wants it", other.by, bound)
		return
	}
	c.ended[r.place] = end{by: by.by}
	if under != nil {
		c.ended[r.place] = end{by.by, under.id}
	}
}

func (c *court) firmOf(id string) string {
	if r := c.records[id]; r != nil && r.place.object == "firms" {
		return r.place.key
	}
	return "(none of ours) " + id
}

// link judges a link that is no field.
func (c *court) link(w write) {
	l := w.change.Link
	id, firm := l.FromID, l.ToID
	if l.FromObject == "firms" {
		id, firm = firm, id
	}
	r := c.records[id]
	if r == nil {
		c.tell(w, place{c.sink, l.FromObject, l.FromID}, version{}, "a link of a record that is not there")
		return
	}
	c.recall(w, r.place, r, c.announced(w, r.place))
	page := c.book[r.place]
	switch {
	case page == nil:
		c.fault(w, r, version{}, "is linked, and nothing wants it")
	case w.change.Linked:
		c.tied(w, r, page, c.firmOf(firm))
	default:
		c.untied(w, r, page, c.firmOf(firm))
	}
}

func (c *court) tied(w write, r *seen, page *page, firm string) {
	wants := func(s said) bool { return s.kind != untie && s.value == firm }
	bound := r.links[firm]
	if bound.compare(r.only) < 0 {
		bound = r.only
	}
	by, ok := earliest(page.links, bound, w.at, wants)
	if !ok {
		other, _ := latest(page.links, version{}, w.at, wants)
		c.fault(w, r, other.by, "is linked to %s, as %s wants, after what %s wants", firm, other.by, bound)
		return
	}
	r.links[firm] = by.by
	plain, _ := earliest(page.links, bound, w.at, func(s said) bool { return s.kind == tie && s.value == firm })
	if by.kind == tieOnly && plain.by == (version{}) {
		r.only = by.by
	}
}

func (c *court) untied(w write, r *seen, page *page, firm string) {
	wants := func(s said) bool { return s.kind == untie && s.value == firm || s.kind == tieOnly && s.value != firm }
	by, ok := earliest(page.links, r.links[firm], w.at, wants)
	if !ok {
		other, _ := latest(page.links, version{}, w.at, wants)
		c.fault(w, r, other.by, "is linked to %s no more, as %s wants, after what %s wants", firm, other.by, r.links[firm])
		return
	}
	r.links[firm] = by.by
}

// announced: nothing takes effect that nobody has said he writes. And nobody writes a person who
// is forgotten, but for what was on its way. It returns the newest write intent, which is that of
// who writes.
func (c *court) announced(w write, p place) *intent {
	list := c.intents.during(c.sink, c.keys(p), w.at)
	if len(list) == 0 {
		c.tell(w, p, version{}, "a write takes effect, and no write intent names the record any more")
		return nil
	}
	earlier := func(a, b *intent) int { return a.made.Compare(b.made) }
	since, ok := c.gone[p.key]
	if p.object == "contacts" && ok {
		if first := slices.MinFunc(list, earlier); first.made.After(since) {
			c.tell(w, p, version{}, "the person was forgotten %s before somebody set out to write this", first.made.Sub(since).Round(time.Millisecond))
		}
	}
	return slices.MaxFunc(list, earlier)
}

// repeats: a row comes again only where its answer left a doubt, where what came of it could not be
// stored before whoever had sent it was lost, where somebody was lost who had said since that he
// writes the record (that puts the record in doubt, sent or not), or where somebody has its event
// rewritten.
func (c *court) repeats(from *crm, routes map[string][]route) {
	for r, sent := range from.sent {
		slices.SortFunc(sent, func(a, b sending) int { return a.at.Compare(b.at) })
		var keys []string
		if r.key != "" {
			keys = []string{keyOf(r.object, r.key)}
		} else {
			keys = c.keys(c.places[r.id])
		}
		if len(keys) > 1 {
			continue // two of them that meet are sent as one
		}
		event := string(r.event[:])
		may := 0
		for _, x := range routes[event] {
			if x.rewrite && x.sink == c.sink {
				may++
			}
		}
		for i, s := range sent[:len(sent)-1] {
			senders := c.intents.during(c.sink, keys, s.at)
			stored := len(senders) > 0 && !slices.ContainsFunc(senders, func(i *intent) bool { return c.intents.done[i.id].IsZero() })
			if !s.clear || !stored || c.intents.lost(c.sink, keys, s.at, sent[i+1].at) {
				continue
			}
			if may--; may < 0 {
				c.verdict.fault("%s %v: at %.2fs and at %.2fs the same row came for event %s, and what came of the first was stored", c.sink, keys,
					s.at.Sub(c.begun).Seconds(), sent[i+1].at.Sub(c.begun).Seconds(), event)
				c.verdict.events = append(c.verdict.events, event)
			}
		}
	}
}

func (v version) String() string {
	if v == (version{}) {
		return "nobody"
	}
	return fmt.Sprintf("%s of %s", v.id, v.at.UTC().Format("2006-01-02T15:04:05.999999Z"))
}
