package records

import (
	"bytes"
	"slices"

	"partnersync/mappers"
)

// The judge has its own idea of order, of what may be written over what, and of what an outcome
// claims. It knows neither Compare nor Fold.

// precedes reports whether a is older than b: by time, then by rank, then by the event's id.
func precedes(a, b Version) bool {
	switch {
	case a.At != b.At:
		return a.At < b.At
	case a.Rank != b.Rank:
		return a.Rank < b.Rank
	}
	return bytes.Compare(a.Event[:], b.Event[:]) < 0
}

// outranks reports whether the statement of version a about a field decides over that of b.
func outranks(rule mappers.Rule, a, b Version) bool {
	if rule == mappers.SetFirst {
		a, b = b, a
	}
	return precedes(b, a)
}

// stale is a fault where a write replaces what a newer event has brought: unless we could not
// know, because the batch that brought it died without a word, nobody heard of it, or it was
// another record for all that we knew. What two records have brought that turned out to be one
// is in doubt as well.
func (h *history) stale(q request, r *row, name string, have, next cell) {
	if have.version.IsZero() || !have.told || have.batch.dead || have.by.ID != q.by.ID || have.value == next.value {
		return
	}
	if next.version.IsZero() || outranks(have.rule, have.version, next.version) {
		h.fault("%s of %s: %v of %d/%d is written over %v of %d/%d", name, r.id, next.value, next.version.At, next.version.Rank, have.value, have.version.At, have.version.Rank)
	}
}

// told notes what the batch has heard to be taken.
func (h *history) told(b *batch, s *Step, a Answer) {
	if s.Do != Write || a.Kind != Taken {
		return
	}
	for _, r := range h.crm.rows {
		for name, v := range s.Sent {
			if c := r.cells[name]; c.batch == b && c.version == v.Version {
				c.told = true
				r.cells[name] = c
			}
		}
	}
}

// doubt notes that two records are one: what either has brought may not be what counts.
func (h *history) doubt(records ...*Record) {
	for _, r := range h.crm.rows {
		for name, c := range r.cells {
			if c.by != nil && slices.ContainsFunc(records, func(o *Record) bool { return o.ID == c.by.ID }) {
				c.told = false
				r.cells[name] = c
			}
		}
	}
}

// created is a fault where a record is made twice: by one key of ours, or by an event that is to
// make one only once.
func (h *history) created(q request, r *row) {
	if h.Sales {
		h.doubled(q, r)
		return
	}
	if q.key.Local {
		for _, e := range h.Happens {
			if e.Name == q.key.Value && e.times == 0 && h.crm.made[q.step.Last.Key] > 1 {
				h.fault("%s is made twice", q.key.Value)
			}
		}
		return
	}
	if h.crm.Lags && slices.ContainsFunc(h.crm.rows, func(o *row) bool { return o.touched }) {
		return // a search, because a link was refused, misses what was made just now
	}
	for _, o := range h.crm.rows {
		if o != r && !o.gone && o.object == r.object && o.keys[q.key.Property] == q.key.Value {
			h.fault("%s=%s is made as %s, and is there as %s", q.key.Property, q.key.Value, r.id, o.id)
		}
	}
}

// part is what one mapping has made of one event.
type saying struct {
	event *happened
	part  int
	*mappers.Change
}

func (s saying) version() Version { return s.event.cause.Version }

func (s saying) outcome() Outcome {
	if p := s.event.progress[s.part]; p != nil {
		return p.Outcome
	}
	return Undecided
}

// sayings are what all events that have arrived say of the record of a key, by whatever key of it.
func (h *history) sayings(k Key) []saying {
	id, known := h.keys[k]
	var list []saying
	for _, e := range h.Happens {
		for i, c := range e.Changes {
			at := Key{c.Object, c.Key.Property, c.Key.Value}
			if of, is := h.keys[at]; e.arrived && (at == k || known && is && of == id) {
				list = append(list, saying{e, i, c})
			}
		}
	}
	return list
}

// field is what a change says of a field.
func field(c *mappers.Change, name string) (mappers.Field, bool) {
	for _, f := range c.Fields {
		if f.Name == name && f.Rule != mappers.Touch {
			return f, true
		}
	}
	return mappers.Field{}, false
}

// acceptable reports whether the CRM takes the value that an event wants.
func (h *history) acceptable(f mappers.Field, v Version) bool {
	return f.Value != named && f.Value != unnamed && !(f.Name == unique && h.crm.named[v])
}

// refusable reports whether the CRM may refuse the event as a whole, and namely whether it does
// so for a field that it names.
func (h *history) refusable(s saying) (whole, part bool) {
	for _, f := range s.Fields {
		whole = whole || f.Value == unnamed || h.crm.named[s.version()] || f.Value == named && s.Mode != mappers.Upsert && s.Mode != mappers.UpdateOnly && !f.Optional
		part = part || f.Value == named && !f.Optional
	}
	for _, l := range s.Links {
		whole = whole || l.Key.Value == unlinkable || l.Missing == "retry" || l.Required && h.disturbed(Key{l.To, l.Key.Property, l.Key.Value})
	}
	return whole || h.crm.named[s.version()], part
}

// rowOf is what the CRM has of a record, also what is gone.
func (h *history) rowOf(r *Record) *row {
	for _, o := range h.crm.rows {
		if r != nil && (r.CRMID == o.id || r.CRMID == "" && r.Presence == Present && o.object == r.Object && o.keys[r.Property] == r.Key && r.Key != "") {
			return o
		}
	}
	return nil
}

// disturbed reports whether people had their hands on a record.
func (h *history) disturbed(k Key) bool {
	for _, r := range h.crm.rows {
		if !r.touched || r.object != k.Object {
			continue
		}
		id := h.keys[k]
		if rec := h.records[id]; rec != nil && rec.CRMID == r.id || r.keys[k.Property] == k.Key {
			return true
		}
		for at, of := range h.keys {
			if of == id && r.keys[at.Property] == at.Key {
				return true
			}
		}
		for _, c := range r.cells {
			if c.by != nil && h.root(c.by.ID) == id {
				return true
			}
		}
	}
	return false
}

// ended looks at an outcome when it is recorded.
func (h *history) ended(b *batch, r *run) {
	s := saying{r.event, r.part, r.Change}
	if r.Outcome == Delivered {
		r.event.delivered[r.part] = true
	}
	if h.Sales {
		h.sold(b, r)
		return
	}
	if h.disturbed(r.Key) || slices.ContainsFunc(r.Change.Links, func(l mappers.Link) bool { return h.disturbed(Key{l.To, l.Key.Property, l.Key.Value}) }) {
		return
	}
	all := h.sayings(r.Key)
	whole, part := h.refusable(s)
	archives := slices.ContainsFunc(all, func(o saying) bool { return o.Mode == mappers.Archive })
	switch r.Outcome {
	case Delivered, Unchanged:
		h.arrived(s, r, all)
	case Stale:
		h.superseded(s, r, all)
	case Dead:
		if !whole && !part && r.Change.Mode != mappers.Append && r.Change.Absent != "dead" {
			h.fault("%s is dead for nothing: %s", r.event, r.Reason)
		}
	case Skipped:
		refused := slices.ContainsFunc(s.Fields, func(f mappers.Field) bool { return f.Value == named })
		if r.Change.Mode == mappers.Upsert && !whole && !refused && !archives {
			h.fault("%s is skipped for nothing: %s", r.event, r.Reason)
		}
	}
}

// arrived is a fault where an outcome says that the CRM has what it has not.
func (h *history) arrived(s saying, r *run, all []saying) {
	rec := h.records[h.keys[r.Key]]
	row := h.rowOf(rec)
	if s.Mode == mappers.Archive {
		if row != nil && !row.gone {
			h.fault("%s is archived: %s is there", s.event, row.id)
		}
		return
	}
	if row == nil || row.gone {
		if rec.Presence != Gone && h.crm.Find && (row == nil || row.archived == nil) {
			h.fault("%s has arrived: the record is not there", s.event)
		}
		return
	}
	for _, f := range s.Fields {
		c := row.cells[f.Name]
		if c.by != nil && c.by.ID != rec.ID {
			continue // just found out to be the same record: what is wanted is sent once more
		}
		same := func(o saying) bool {
			g, has := field(o.Change, f.Name)
			return has && g.Value == c.value && outranks(f.Rule, o.version(), s.version())
		}
		if f.Rule == mappers.Touch || f.Optional || c.value == f.Value || slices.ContainsFunc(all, same) || !c.version.IsZero() && outranks(f.Rule, c.version, s.version()) {
			continue
		}
		if h.acceptable(f, s.version()) && !h.overruled(f, s, all) || r.Outcome == Unchanged && !h.decided(f, s, all) {
			h.fault("%s is %s: %s of %s is %v", s.event, r.Outcome, f.Name, row.id, c.value)
		}
	}
}

// overruled reports whether another event has the say about a field that is still to be sent, or
// may have been refused as a whole: its value stays what is wanted.
func (h *history) overruled(f mappers.Field, s saying, all []saying) bool {
	return slices.ContainsFunc(all, func(o saying) bool {
		_, has := field(o.Change, f.Name)
		whole, _ := h.refusable(o)
		return has && (whole || o.outcome() == Undecided) && outranks(f.Rule, o.version(), s.version())
	})
}

// decided reports whether another event has the say about a field.
func (h *history) decided(f mappers.Field, s saying, all []saying) bool {
	return slices.ContainsFunc(all, func(o saying) bool {
		_, has := field(o.Change, f.Name)
		return has && outranks(f.Rule, o.version(), s.version())
	})
}

// superseded is a fault where an event is stale that nothing has overtaken.
func (h *history) superseded(s saying, r *run, all []saying) {
	newer := func(is func(o saying) bool) bool {
		return slices.ContainsFunc(all, func(o saying) bool { return precedes(s.version(), o.version()) && is(o) })
	}
	if s.Mode == mappers.Archive {
		if !newer(func(o saying) bool { return o.Recreate }) {
			h.fault("%s is stale: nobody wants the record", s.event)
		}
		return
	}
	if newer(func(o saying) bool { return o.Mode == mappers.Archive }) {
		return
	}
	row := h.rowOf(h.records[h.keys[r.Key]])
	for _, f := range s.Fields {
		var c cell
		if row != nil {
			c = row.cells[f.Name]
		}
		merged := c.by != nil && c.by.ID != h.keys[r.Key]
		if f.Rule == mappers.Touch || !h.acceptable(f, s.version()) || h.decided(f, s, all) || c.value == f.Value || merged {
			continue
		}
		h.fault("%s is stale: nobody has decided %s", s.event, f.Name)
	}
	if len(s.Fields) == 0 && !newer(func(o saying) bool { return len(o.Links) > 0 }) {
		h.fault("%s is stale: nobody has decided anything", s.event)
	}
}

// judge compares the CRM with what all events ask for, once all is over.
func (h *history) judge() {
	for _, id := range sortedIDs(h) {
		rec := h.records[id]
		k := Key{rec.Object, rec.Property, rec.Key}
		if h.disturbed(k) || h.blended[id] || rec.Presence == Present && rec.CRMID == "" {
			continue
		}
		all := h.sayings(k)
		row := h.rowOf(rec)
		if !h.judgePresence(rec, row, all) || row == nil || row.gone {
			continue
		}
		for _, name := range []string{"f", "g", "p", "o", unique, "n"} {
			h.judgeField(rec, row, name, all)
		}
		if rec.Object == "deals" {
			h.judgeLinks(row, all)
		}
	}
}

// judgePresence: the newest event decides whether the record is there. Where that did not get
// through, either may be.
func (h *history) judgePresence(rec *Record, row *row, all []saying) bool {
	var gone, live Version
	there, unsettled := false, false
	for _, s := range all {
		through := s.outcome() == Delivered || s.outcome() == Unchanged || s.event.delivered[s.part]
		switch {
		case s.Mode == mappers.Archive:
			if precedes(gone, s.version()) {
				gone = s.version()
			}
		case s.Recreate:
			if precedes(live, s.version()) {
				live, unsettled = s.version(), s.outcome() == Dead
			}
		}
		there = there || through && s.Mode != mappers.Archive
	}
	is := row != nil && !row.gone
	switch {
	case unsettled && !gone.IsZero():
	case row != nil && row.archived != nil && row.archived.ID != rec.ID: // by another key, before we knew that it is the same
	case !gone.IsZero() && precedes(live, gone):
		if is {
			h.fault("%s of %s is there, and was archived", row.id, rec.Key)
		}
	case there && !is:
		h.fault("%s is not there", rec.Key)
	}
	return is
}

// judgeField: a field holds the value of the newest event, of those that the CRM takes, and
// where an event was refused as a whole, nothing older than what had arrived.
func (h *history) judgeField(rec *Record, row *row, name string, all []saying) {
	if by := row.cells[name].by; by != nil && h.root(by.ID) != rec.ID {
		return // by another key, which has turned out to be that of a third record since
	}
	if name == unique && len(h.crm.named) > 0 {
		return // who had the value first depends on who came first
	}
	var list []saying
	for _, s := range all {
		if _, has := field(s.Change, name); has {
			list = append(list, s)
		}
	}
	rule := mappers.Rule(mappers.Set)
	if name == "p" {
		rule = mappers.SetFirst
	}
	slices.SortFunc(list, func(a, b saying) int {
		if outranks(rule, a.version(), b.version()) {
			return -1
		}
		return 1
	})
	holds := row.cells[name].value
	archived := slices.ContainsFunc(all, func(s saying) bool { return s.Mode == mappers.Archive })
	weak := false // something that may have been refused as a whole has had its say
	for _, s := range list {
		f, _ := field(s.Change, name)
		whole, part := h.refusable(s)
		outcome := s.outcome()
		if s.event.delivered[s.part] {
			outcome = Delivered
		}
		switch {
		case holds == f.Value:
			return
		case f.Value == named:
			weak = weak || whole
			continue
		case !h.acceptable(f, s.version()), h.crm.named[s.version()]:
			weak = true
			continue
		case f.Optional, weak && rule == mappers.SetFirst: // what came first has decided, whatever became of it
			weak = true
			continue
		case outcome == Delivered, outcome == Unchanged,
			outcome == Dead && part && !whole && !weak && s.Mode == mappers.Upsert,
			outcome == Stale && !weak && !archived:
			h.fault("%s of %s is %v in the end, not %v of %s", name, row.id, holds, f.Value, s.event)
			return
		case s.Mode == mappers.CreateOnly && outcome == Skipped && s.event.times == 0 && !whole:
		default:
			weak = true
		}
	}
}

// other is where a link leads, and as what.
type other struct{ key, as string }

// judgeLinks: the newest statement about a link decides, and no link older than the newest
// `only` of its kind stays. What was said by an event that did not get through may count, or not.
func (h *history) judgeLinks(from *row, all []saying) {
	type said struct {
		mappers.Link
		at    Version
		maybe int  // its bit, from 1; 0: it counts
		none  bool // it did not get through, and may have taken the place of one that did
	}
	var list []said
	bits := 0
	for _, s := range all {
		bit := 0
		if o := s.outcome(); o != Delivered && o != Unchanged && !s.event.delivered[s.part] && len(s.Links) > 0 {
			bits++
			bit = bits
		}
		for _, l := range s.Links {
			list = append(list, said{l, s.version(), bit, bit > 0 && s.outcome() != Stale})
		}
	}
	slices.SortFunc(list, func(a, b said) int {
		if precedes(a.at, b.at) {
			return -1
		}
		return 1
	})
	if len(list) == 0 {
		return
	}
	always, ever := map[other]int{}, map[other]bool{}
	for _, l := range list {
		if l.none {
			at := other{l.Key.Value, l.As} // not to be relied on
			always[at], ever[at] = -1<<bits, true
		}
	}
	for chosen := range 1 << bits {
		only, newest := map[string]Version{}, map[other]said{}
		for _, l := range list {
			if l.maybe > 0 && chosen>>(l.maybe-1)&1 == 0 {
				continue
			}
			newest[other{l.Key.Value, l.As}] = l
			if l.Only && !l.Remove {
				only[l.As] = l.at
			}
		}
		for at, l := range newest {
			if l.Remove || precedes(l.at, only[at.as]) {
				continue
			}
			ever[at] = true
			if l.Missing != "skip" {
				always[at]++
			}
		}
	}
	for _, key := range []string{"1", "2", unlinkable} {
		k := Key{"firms", "k", key}
		firm := h.rowOf(h.records[h.keys[k]])
		for _, as := range []string{"", "x"} {
			at := other{key, as}
			is := firm != nil && from.links[tieTo{firm.id, as}]
			if is && !ever[at] && !(h.crm.Replace && h.vacant(from, ever)) && !h.crm.ByKey { // nor what was made by a key whose record we do not know by its id
				h.fault("%s is linked to %s as %q, which nobody wants", from.id, key, as)
			}
			if !is && always[at] == 1<<bits && key != unlinkable && !h.disturbed(k) && firm != nil && !firm.gone {
				h.fault("%s is not linked to %s as %q", from.id, key, as)
			}
		}
	}
}

// vacant reports whether a link that is wanted is not there: where a link takes the place of the
// former one, that stays until it can be made.
func (h *history) vacant(from *row, ever map[other]bool) bool {
	for at := range ever {
		firm := h.rowOf(h.records[h.keys[Key{"firms", "k", at.key}]])
		if firm == nil || !from.links[tieTo{firm.id, at.as}] {
			return true
		}
	}
	return false
}

func sortedIDs(h *history) []([16]byte) {
	var ids [][16]byte
	for id := range h.records {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return ids
}
