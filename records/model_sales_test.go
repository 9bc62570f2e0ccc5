package records

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"partnersync/mappers"
)

// Histories against a CRM in which sales work: records that they have entered, with natural keys
// and filled fields, which match and the value rules leave to them. Each field has one rule.

var salesRules = map[string]mappers.Rule{
	"mail": mappers.Set, "tel": mappers.SetIfEmpty, // by which a record is found
	"a": mappers.SetOnCreate, "b": mappers.SetIfEmpty, "c": mappers.Forward, "d": mappers.Add, "f": mappers.Set,
}

var (
	salesFields = []string{"mail", "tel", "a", "b", "c", "d", "f"}
	salesLadder = &mappers.Ladder{Order: []string{"lead", "mql", "customer"}, Final: []string{"churned", "lost"}}
	salesStages = []string{"lead", "mql", "customer", "churned", "lost", "partner"}

	drawSalesKey  = rapid.SampledFrom([]mappers.Key{{Property: "k", Value: "a"}, {Property: "k", Value: "a"}, {Property: "k", Value: "b"}, {Property: "j", Value: "a"}})
	drawSalesMode = rapid.SampledFrom([]mappers.Mode{mappers.Upsert, mappers.Upsert, mappers.Upsert, mappers.Upsert, mappers.Upsert, mappers.Upsert, mappers.UpdateOnly, mappers.CreateOnly, mappers.Archive})
	drawWays      = rapid.SampledFrom([]string{"", "m", "m", "m", "t", "mt", "tm", "b"})
	drawOne       = rapid.SampledFrom([]string{"1", "1", "2"})
	drawMaybe     = rapid.SampledFrom([]string{"", "1", "1", "2"})
	drawStage     = rapid.SampledFrom([]string{"", "lead", "mql", "customer", "churned", "lost"})
	drawTags      = rapid.SampledFrom([][]any{nil, {"x"}, {"x", "y"}, {"z"}})
	drawEdit      = rapid.SampledFrom([]string{"mail", "tel", "b", "b", "c", "c", "d", "d", "a", "link"})
	drawTheirs    = rapid.SampledFrom([]any{nil, "0", "1"})
	drawTheirTags = rapid.SampledFrom([][]any{nil, {"s"}, {"s", "x"}, {"t", "z"}})
	drawSeldom    = rapid.IntRange(0, 7)
)

// filled is a record that sales have entered.
func drawFilled(t *rapid.T, i int) seed {
	s := seed{Object: "deals", Cells: map[string]any{}}
	switch rapid.IntRange(0, 5).Draw(t, "its key") {
	case 0:
		s.K = drawSalesKey.Draw(t, "key").Value
	case 1:
		s.K = "old"
	}
	for _, name := range []string{"mail", "tel", "a", "b"} {
		if v := drawMaybe.Draw(t, name); v != "" {
			if name == "a" || name == "b" {
				v = "0"
			}
			s.Cells[name] = v
		}
	}
	if v := drawStage.Draw(t, "c"); v != "" {
		s.Cells["c"] = v
	}
	if v := drawTheirTags.Draw(t, "d"); v != nil {
		s.Cells["d"] = v
	}
	return s
}

// drawSales draws a story of such a CRM.
func drawSales(t *rapid.T, s *story, n int) {
	m := s.Manners
	bits := rapid.IntRange(0, 1<<5-1).Draw(t, "ways of the CRM")
	m.Loose, m.NoMake, m.Hides, m.Alone = bits&3 == 3, bits>>2&3 == 3, bits>>4&1 == 1 && bits&1 == 0, drawSeldom.Draw(t, "alone") == 7
	m.Find = m.Find || m.Loose || m.NoMake
	s.Sales = true
	s.IfEmpty = m.Replace && rapid.Bool().Draw(t, "links only if empty")
	s.Several = rapid.SampledFrom([]string{mappers.SeveralDead, mappers.SeveralDead, mappers.SeveralOldest, mappers.SeveralNewest}).Draw(t, "several")
	s.Taken = rapid.SampledFrom([]string{mappers.TakenKeep, mappers.TakenKeep, mappers.TakenTake, mappers.TakenDead}).Draw(t, "taken")
	s.Seeds = nil
	for i := range rapid.IntRange(0, 2).Draw(t, "seeds") {
		s.Seeds = append(s.Seeds, drawFilled(t, i))
	}
	if drawSmall.Draw(t, "firm of sales") > 0 {
		s.Seeds = append(s.Seeds, seed{Object: "firms", Cells: map[string]any{"dom": "1"}})
	}
	for i := range n {
		s.Happens = append(s.Happens, drawSale(t, i, s))
	}
}

// drawSale draws one event.
func drawSale(t *rapid.T, i int, s *story) *happened {
	e := drawCause(t, i)
	c := &mappers.Change{Mapping: "m", Object: "deals", Mode: drawSalesMode.Draw(t, "mode"), Key: drawSalesKey.Draw(t, "key"), Several: s.Several, Taken: s.Taken}
	e.Changes = append(e.Changes, c)
	if c.Mode == mappers.Archive {
		if drawSmall.Draw(t, "archives") > 0 {
			c.Mode = mappers.Upsert
		} else {
			return e
		}
	}
	c.Recreate = drawSmall.Draw(t, "recreate") == 3 && c.Mode == mappers.Upsert
	if c.Mode == mappers.UpdateOnly {
		c.Absent = rapid.SampledFrom([]string{"", "skip", "dead"}).Draw(t, "absent")
	}
	mail, tel := drawOne.Draw(t, "mail"), drawOne.Draw(t, "tel")
	m, n := mappers.Term{Property: "mail", Value: mail}, mappers.Term{Property: "tel", Value: tel}
	switch drawWays.Draw(t, "match") {
	case "m":
		c.Match = []mappers.Match{{m}}
	case "t":
		c.Match = []mappers.Match{{n}}
	case "mt":
		c.Match = []mappers.Match{{m}, {n}}
	case "tm":
		c.Match = []mappers.Match{{n}, {m}}
	case "b":
		c.Match = []mappers.Match{{m, n}}
	}
	add := func(name string, v any) {
		f := mappers.Field{Name: name, Rule: salesRules[name], Value: v}
		if f.Rule == mappers.Forward {
			f.Ladder = salesLadder
		}
		c.Fields = append(c.Fields, f)
	}
	for _, f := range []struct{ name, value string }{{"mail", mail}, {"tel", tel}} {
		if drawSmall.Draw(t, f.name) > 0 {
			add(f.name, f.value)
		}
	}
	for _, name := range []string{"a", "b", "f"} {
		if v := drawMaybe.Draw(t, name); v != "" {
			add(name, v)
		}
	}
	if v := drawStage.Draw(t, "c"); v != "" {
		add("c", v)
	}
	if v := drawTags.Draw(t, "d"); v != nil {
		add("d", v)
	}
	if drawSmall.Draw(t, "linked") == 3 {
		l := mappers.Link{To: "firms", For: 2 * time.Hour, Key: mappers.Key{Property: "k", Value: drawOne.Draw(t, "firm")}, Missing: rapid.SampledFrom([]string{"create", "retry", "skip"}).Draw(t, "missing")}
		l.Match = []mappers.Match{{{Property: "dom", Value: l.Key.Value}}}
		l.IfEmpty = s.IfEmpty
		l.Only, l.Required = s.Manners.Replace && !s.IfEmpty, drawSeldom.Draw(t, "required") == 7
		c.Links = append(c.Links, l)
	}
	if drawSeldom.Draw(t, "firm of its own") == 7 {
		key := drawOne.Draw(t, "firm")
		e.Changes = append(e.Changes, &mappers.Change{
			Mapping: "n", Object: "firms", Mode: rapid.SampledFrom([]mappers.Mode{mappers.Upsert, mappers.CreateOnly}).Draw(t, "mode"),
			Key: mappers.Key{Property: "k", Value: key}, Match: []mappers.Match{{{Property: "dom", Value: key}}}, Fields: []mappers.Field{{Name: "dom", Rule: mappers.Set, Value: key}},
		})
	}
	return e
}

// drawEditing draws what people do between the batches.
func drawEditing(t *rapid.T) act {
	a := act{Do: edits, Events: []int{rapid.IntRange(0, 2).Draw(t, "row")}, Field: drawEdit.Draw(t, "field")}
	switch a.Field {
	case "c":
		a.Value = rapid.SampledFrom(salesStages).Draw(t, "stage")
	case "d":
		if tags := drawTheirTags.Draw(t, "tags"); tags != nil {
			a.Value = tags
		}
	default:
		a.Value = drawTheirs.Draw(t, "value")
	}
	return a
}

// put is what people do with a field. Tags that they put are theirs unless we may have put them.
func (h *history) put(r *row, name string, v any) {
	c := cell{value: v, turn: h.turn, since: h.now, edited: h.turn > 0, ever: r.cells[name].ever || !blank(v), own: r.cells[name].own}
	if name == "d" {
		c.theirs = nil
		for _, text := range texts(v) {
			if !slices.Contains(c.own, text) {
				c.theirs = append(c.theirs, text)
			}
		}
	}
	r.cells[name] = c
}

// edit has people change a field of a record.
func (h *history) edit(a *act) {
	var live []*row
	for _, r := range h.crm.rows {
		if !r.gone && r.object == "deals" {
			live = append(live, r)
		}
	}
	if len(live) == 0 {
		return
	}
	r := live[a.Events[0]%len(live)]
	v := a.Value
	if a.Field == "link" {
		if !h.IfEmpty {
			return
		}
		h.note("somebody links %s to %v", r.id, v)
		h.crm.vacate(r, "")
		if !blank(v) {
			r.links[tieTo{fmt.Sprint("theirs", v), ""}] = true
		}
		r.tied = h.turn
		return
	}
	if a.Field == "d" { // they add to what is there, or empty it
		if v != nil {
			var all []any
			for _, text := range texts(r.cells["d"].value) {
				all = append(all, text)
			}
			for _, text := range v.([]any) {
				if !slices.Contains(all, text) {
					all = append(all, text)
				}
			}
			v = all
		}
	}
	h.note("somebody puts %s of %s: %v", a.Field, r.id, v)
	h.put(r, a.Field, v)
}

// blend is what becomes of the fields of a record that people merge into another.
func (h *history) blend(from, into *row) {
	into.blended = h.turn
	h.owned[into.id] = append(h.owned[into.id], h.owned[from.id]...)
	for _, name := range salesFields {
		f, have := from.cells[name], into.cells[name]
		if name == "d" {
			have.own = append(slices.Clone(have.own), f.own...)
			into.cells[name] = have
			all := []any{}
			for _, text := range append(texts(have.value), texts(f.value)...) {
				if !slices.Contains(all, any(text)) {
					all = append(all, text)
				}
			}
			if len(all) > 0 {
				h.put(into, name, all)
			}
		} else if blank(have.value) && !blank(f.value) {
			h.put(into, name, f.value)
		}
	}
}

// fits reports whether a record fits in one way, and was to be seen at a time.
func (r *row) fits(m mappers.Match, at time.Duration) bool {
	for _, t := range m {
		c := r.cells[t.Property]
		if text, _ := c.value.(string); text != t.Value || c.since+modelLag > at {
			return false
		}
	}
	return r.since+modelLag <= at
}

// search shows what fits, as late as it likes, and no more than two.
func (c *crm) search(q request) Answer {
	a := Answer{Kind: Taken, Class: "ok", Status: 200}
	for _, r := range c.rows {
		if !r.gone && r.object == q.object && r.fits(q.step.Way, c.h.now) {
			if len(a.Hits) == 2 {
				a.More = true
				break
			}
			a.Hits = append(a.Hits, c.hit(q, r))
			for _, d := range q.step.Serves { // why it may be dead
				q.batch.reasons[d.Key] = q.batch.reasons[d.Key] || len(a.Hits) > 1 || len(r.keys) > 0 && d.Change.Taken == mappers.TakenDead
			}
		}
	}
	return a
}

func (c *crm) hit(q request, r *row) Hit {
	h := Hit{ID: r.id, Values: map[string]any{}}
	for _, name := range q.step.Show {
		switch key, is := r.keys[name]; {
		case is:
			h.Values[name] = key
		case name == "link ":
			for at := range r.links {
				if at.as == "" {
					h.Values[name] = at.id
				}
			}
		case c.Hides && name == "b":
		default:
			h.Values[name] = r.cells[name].value
		}
	}
	return h
}

// write sets a field as its rule has it, and has the judge look at what it replaces.
func (c *crm) put(q request, r *row, name string, v any, made bool) {
	have := r.cells[name]
	h := c.h
	if !made {
		h.trespass(q, r, name, have, v)
	}
	next := have
	next.value, next.version, next.rule, next.by, next.batch = v, q.sent[name].Version, salesRules[name], q.by, q.batch
	next.ever, next.told, next.edited = have.ever || !blank(v), false, false
	if next.since = h.now; made || NewValue(have.value).Equal(NewValue(v)) {
		next.since = have.since
	}
	if made {
		next.since = r.since
	}
	if name == "d" {
		was := texts(have.value)
		next.own = slices.Clone(have.own)
		for _, text := range texts(v) {
			if !slices.Contains(was, text) || made {
				next.own = append(next.own, text)
			}
		}
	}
	r.cells[name] = next
}

// trespass is a fault where a write replaces what people have put: unless they did so since the
// batch began, and we could not know.
func (h *history) trespass(q request, r *row, name string, have cell, v any) {
	if have.turn >= q.batch.turn && have.edited || r.blended >= q.batch.turn || NewValue(have.value).Equal(NewValue(v)) {
		return
	}
	switch rule := salesRules[name]; rule {
	case mappers.SetOnCreate:
		h.fault("%s of %s is %v, and only a new record gets %v", name, r.id, have.value, v)
	case mappers.SetIfEmpty:
		if !blank(have.value) {
			h.fault("%s of %s is %v, and is not empty for %v", name, r.id, have.value, v)
		}
	case mappers.Forward:
		mine, is := stage(v)
		its, known := stage(have.value)
		if !is || !blank(have.value) && (!known || its >= mine) {
			h.fault("%s of %s goes back from %v to %v", name, r.id, have.value, v)
		}
	case mappers.Add:
		owned := slices.Clone(h.owned[r.id])
		for property, key := range r.keys {
			owned = append(owned, h.owned[property+"="+key]...)
		}
		for _, text := range have.theirs {
			if slices.Contains(texts(have.value), text) && !slices.Contains(texts(v), text) && !slices.Contains(owned, text) {
				h.fault("%s of %s loses %s, which is not ours: %v", name, r.id, text, v)
			}
		}
	}
}

// usurps is a fault where a link that is made only where there is none takes the place of another:
// unless people put it since the batch began, and we could not know.
func (h *history) usurps(q request, r *row, at tieTo, l *Link) {
	if !h.IfEmpty || !l.IfEmpty || r.tied >= q.batch.turn && r.tied > 0 || r.blended >= q.batch.turn && r.blended > 0 {
		return
	}
	for o := range r.links {
		if o != at && o.as == at.as {
			h.fault("%s is linked to %s in place of %s", r.id, at.id, o.id)
		}
	}
}

// stage is how far along a value is, as the judge sees it.
func stage(v any) (int, bool) {
	text, _ := v.(string)
	i := slices.Index([]string{"lead", "mql", "customer", "churned", "lost"}, text)
	return min(i, 3), i >= 0
}

// owns notes the tags that a step may put: whether it has, nobody may ever know.
func (h *history) owns(s *Step) {
	id := s.Work.Record.CRMID
	if key := s.Last.Change.Key; id == "" { // a record that has the key may be the one that it made
		id = key.Property + "=" + key.Value
	}
	h.owned[id] = append(h.owned[id], s.Adds["d"]...)
}

// doubled is a fault where a record is made though one that fits is there: that we have made, or
// that a search shows.
func (h *history) doubled(q request, r *row) {
	for _, d := range q.step.Serves {
		r.ways = append(r.ways, d.Change.Match...)
	}
	for _, o := range h.crm.rows {
		if o == r || o.gone || o.object != r.object {
			continue
		}
		ours := o.by != nil || o.since+modelLag <= q.batch.began
		if key := q.key; !key.Local && o.keys[key.Property] == key.Value && (ours && (o.keyed[key.Property] == 0 || o.keyed[key.Property]+modelLag <= q.batch.began) && (q.step.Mode != mappers.CreateOnly || q.step.Last.Change.Match != nil) || !h.crm.Loose) {
			h.fault("%s=%s is made as %s, and is there as %s", key.Property, key.Value, r.id, o.id)
		}
		for _, d := range q.step.Serves {
			ways := d.Change.Match
			if d.Stub {
				ways = []mappers.Match{{{Property: "dom", Value: d.Key.Key}}}
			}
			for _, m := range ways {
				if o.fits(m, q.batch.began) || o.by != nil && o.born(m) {
					h.fault("%s is made as %s, and is there by %s as %s", d.Key, r.id, m.Properties(), o.id)
				}
			}
		}
	}
	for _, d := range q.step.Serves {
		if f, has := field(d.Change, "a"); has && q.step.Values["a"] == nil && f.Value != nil && !h.crm.Mute { // else it was in the way of one that was not named
			h.fault("%s is made without a of %s", r.id, d.Change.Mapping)
		}
	}
}

// born reports whether a record that we have made fits in one way, as it was made, and was looked
// for in that way by who made it.
func (r *row) born(m mappers.Match) bool {
	if !slices.ContainsFunc(r.ways, func(o mappers.Match) bool { return slices.Equal(o, m) }) {
		return false
	}
	for _, t := range m {
		c := r.cells[t.Property]
		if text, _ := c.value.(string); text != t.Value || c.since != r.since {
			return false
		}
	}
	return true
}

// undecided is a fault where something is written though it was not to be known to which record.
func (h *history) undecided(q request) {
	if q.batch.unclear[q.step.Work] {
		h.fault("%s is written, and several fit", q.by.Key)
	}
}

// sold looks at the outcome of an event when it is recorded.
func (h *history) sold(b *batch, r *run) {
	s := saying{r.event, r.part, r.Change}
	rec := h.records[h.keys[r.Key]]
	row := h.rowOf(rec)
	switch r.Outcome {
	case Dead:
		if r.Class == "match" && !b.reasons[r.Key] {
			h.fault("%s is dead for nothing: %s", r.event, r.Reason)
		}
		if r.Class != "match" && r.Class != "link" && r.Class != "conflict" && r.Change.Absent != "dead" && !h.touched() {
			h.fault("%s is dead for nothing: %s %s", r.event, r.Class, r.Reason)
		}
	case Delivered, Unchanged:
		if s.Mode == mappers.Archive || h.touched() {
			return
		}
		if row == nil || row.gone {
			if rec.Presence != Gone {
				h.fault("%s has arrived: the record is not there", r.event)
			}
			return
		}
		h.filled(s, row)
	}
}

// touched reports whether people have deleted or merged anything: what is left then is not judged
// field by field.
func (h *history) touched() bool {
	return slices.ContainsFunc(h.crm.rows, func(r *row) bool { return r.touched || r.archived != nil })
}

// filled is a fault where an event has arrived, and what it was to fill is empty and was never
// anything else, or what it was to add or move on is not.
func (h *history) filled(s saying, r *row) {
	all := slices.DeleteFunc(h.sayings(Key{s.Object, s.Key.Property, s.Key.Value}), func(o saying) bool { return o.event == s.event })
	for _, f := range s.Fields {
		c := r.cells[f.Name]
		if slices.ContainsFunc(all, func(o saying) bool { // that may have the say, and may be refused as a whole
			_, has := field(o.Change, f.Name)
			return has && o.outcome() != Delivered && o.outcome() != Unchanged && o.outcome() != Stale
		}) {
			continue
		}
		switch f.Rule {
		case mappers.SetIfEmpty:
			if !c.ever && !(h.crm.Hides && f.Name == "b") {
				h.fault("%s is %s: %s of %s is empty", s.event, s.outcome(), f.Name, r.id)
			}
		case mappers.Forward:
			mine, _ := stage(f.Value)
			its, known := stage(c.value)
			if !c.edited && (blank(c.value) || known && its < mine) {
				h.fault("%s is %s: %s of %s is %v", s.event, s.outcome(), f.Name, r.id, c.value)
			}
		case mappers.Add:
			newest := !slices.ContainsFunc(h.sayings(Key{s.Object, s.Key.Property, s.Key.Value}), func(o saying) bool {
				_, has := field(o.Change, f.Name)
				return has && precedes(s.version(), o.version())
			})
			for _, text := range texts(f.Value) {
				if newest && !c.edited && !slices.Contains(texts(c.value), text) {
					h.fault("%s is %s: %s of %s lacks %s", s.event, s.outcome(), f.Name, r.id, text)
				}
			}
		}
	}
}

// judgeSales looks at everything once all is over.
func (h *history) judgeSales() {
	for _, id := range sortedIDs(h) {
		rec := h.records[id]
		row := h.rowOf(rec)
		if row == nil || row.gone || h.touched() || h.blended[id] {
			continue
		}
		for _, s := range h.sayings(Key{rec.Object, rec.Property, rec.Key}) {
			if o := s.outcome(); (o == Delivered || o == Unchanged) && s.Mode != mappers.Archive {
				h.filled(s, row)
				if len(row.keys) == 0 && s.Mode == mappers.Upsert && !h.crm.Alone {
					h.fault("%s has none of our keys", row.id)
				}
				h.linked(s, row)
			}
		}
	}
}

// linked is a fault where an event has arrived, and the record that it is to be linked to is to be
// found and is not linked.
func (h *history) linked(s saying, r *row) {
	if slices.ContainsFunc(h.sayings(Key{s.Object, s.Key.Property, s.Key.Value}), func(o saying) bool {
		return len(o.Links) > 0 && o.outcome() != Delivered && o.outcome() != Unchanged && o.outcome() != Stale
	}) {
		return // it may have the say
	}
	for _, l := range s.Links {
		if l.Missing == "skip" || h.crm.Replace {
			continue
		}
		for _, o := range h.crm.rows {
			if o.object == l.To && !o.gone && o.fits(l.Match[0], h.now) && o.by == nil && !r.links[tieTo{o.id, ""}] {
				h.fault("%s is not linked to %s", r.id, o.id)
			}
		}
	}
}

// identity stands for the records of an object that fit in one way, as in package jobs.
func identity(object string, m mappers.Match) Key {
	return Key{object, "match", fmt.Sprint(m)}
}

func (b *batch) identitiesOf(d *Delivery) []Key {
	var keys []Key
	add := func(k Key, ways []mappers.Match, recreate bool) {
		if known := b.records[k]; known != nil && (known.CRMID != "" || known.Presence != Unknown) && !recreate {
			return
		}
		for _, m := range ways {
			keys = append(keys, identity(k.Object, m))
		}
	}
	if d.Open() {
		add(d.Key, d.Change.Match, d.Change.Recreate)
		for _, l := range d.Change.Links {
			if l.Missing == "create" && !l.Remove {
				add(Key{l.To, l.Key.Property, l.Key.Value}, l.Match, true)
			}
		}
	}
	return keys
}

func (b *batch) identify(w *Work) {
	for _, m := range w.Ways() {
		b.identities[w] = append(b.identities[w], identity(w.Record.Object, m))
	}
}

// twins has records that may be the same made one after the other.
func (b *batch) twins() (news bool) {
	for _, w := range b.works {
		if len(b.identities[w]) == 0 {
			b.identify(w)
		}
	}
	if len(b.identities) == 0 {
		return false
	}
	works := slices.Clone(b.works)
	slices.SortStableFunc(works, func(v, w *Work) int { return cmp.Compare(w.Record.CRMID, "") - cmp.Compare(v.Record.CRMID, "") })
	first := map[Key]*Work{}
	for _, w := range works {
		var other *Work
		for _, k := range b.identities[w] {
			if f := first[k]; f == nil || f.Record.Presence == Gone || f.Record.CRMID == "" && !f.Makes() && f.Hold <= 0 {
				first[k] = w
			} else if f != w && other == nil {
				other = f
			}
		}
		switch {
		case other == nil || len(w.Ways()) == 0:
			news = w.Behind(false) || news
		case !w.Vacant():
			w.Behind(true)
		default:
			news = b.follow(w, other) || news
		}
	}
	return news
}

func (b *batch) follow(w, other *Work) (news bool) {
	s := w.Twin()
	switch r := other.Record; {
	case r.CRMID != "" && r.Presence != Gone && (!other.Made() || s.Last.Change.Taken == mappers.TakenDead):
		w.PutOff("match", "waiting: another key has a record that it may fit", modelLag)
	case r.CRMID != "" && r.Presence != Gone:
		b.identities[other] = append(b.identities[other], b.identities[w]...)
		b.become(s, Answer{}, r)
	case other.Makes():
		w.Behind(true)
	case other.Hold > 0:
		w.Hold = max(w.Hold, other.Hold)
		w.PutOff("network", "waiting: an earlier request may have made the record that it fits", modelSettle+modelLag)
	default:
		return w.Behind(false)
	}
	return false
}

type modelSought struct {
	by   *Delivery
	link *Link
	ways []mappers.Match
}

func (b *batch) seek(by *Delivery, l *Link, ways []mappers.Match) bool {
	b.sought = append(b.sought, modelSought{by, l, ways})
	return true
}

func (b *batch) seekEnds() []*Step {
	var steps []*Step
	seeking := map[Key]bool{}
	for _, s := range b.sought {
		k := targetKey(s.link)
		if seeking[k] {
			continue
		}
		seeking[k] = true
		if r := b.records[k]; r == nil || b.workOf[r] == nil {
			if b.h.isShut(k) {
				b.workOf[b.records[s.by.Key]].PutOff("link", "waiting: the other end of a link is being written", time.Second)
				continue
			}
			b.read([]Key{k}, b.records)
			w := b.work(k)
			w.Deliveries = append(w.Deliveries, Probe(s.by, s.link, k))
		}
		w := b.workOf[b.records[k]]
		w.SeekFor(s.ways)
		steps = append(steps, w.Next(&b.env)...)
	}
	b.sought = nil
	return steps
}

// discard leaves out what was only looked for, in vain.
func (b *batch) discard(w *Work) {
	maps.DeleteFunc(b.records, func(_ Key, r *Record) bool { return r == w.Record })
	delete(b.workOf, w.Record)
	b.works = slices.DeleteFunc(b.works, func(o *Work) bool { return o == w })
}
