package records

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// Work is one record of a batch: its state, what the events of the batch want of it, and what
// the batch has tried and learnt. A batch has one for each record; one goroutine uses it.
type Work struct {
	Record     *Record
	Deliveries []*Delivery   // in the order of the batch
	Hold       time.Duration // a request may still take effect: nobody may touch the record for so long

	tried     map[remedy]bool
	split     []part                      // parts of a refused row that are still to be sent, oldest first
	spent     map[string]map[Version]bool // values that the CRM has refused by their field's name
	untouched map[string]bool             // `touch` fields that the CRM refuses
	alone     bool                        // only what ready deliveries of the batch want is sent: the rest was refused with it
	unseen    bool                        // it could not be looked up
	seeking   seeking
	resending bool // all that is known is sent again, since the CRM has put another record in the place of the former
	confirmed bool // the CRM has answered for the record in this batch
	archived  bool // by a request of this batch
	created   bool // likewise
	covered   *coverage
	checked   map[*Link]bool // links that were refused, whose other ends were looked up

	seen    *sight          // what the CRM has shown of the record
	vacant  bool            // the CRM has no such record: the next request makes it
	way     int             // of the ways to find it, the next to be tried
	keyed   bool            // it was looked up by our key
	contest bool            // something is in the way of a create, and the CRM does not say what
	keeps   bool            // the record that was found carries another key of ours, which stays
	behind  bool            // another record of the batch may turn out to be the same, and comes first
	targets []mappers.Match // of a link's other end, which is looked up: the ways to find it
	ends    map[*Link]bool  // links whose other ends were looked up
}

// remedy is something that is tried once for a record in a batch.
type remedy uint8

const (
	paused      remedy = iota // waited out a short throttle
	adopted                   // took over the record that is in the way
	followed                  // looked for it under another id, since it is gone under its own
	remade                    // made it again, since it is gone
	sought                    // looked it up by our key, to archive it
	checkedEnd                // looked up the other end of a link that was refused
	checkedSelf               // looked up the record itself, for the same reason
)

// once reports whether the remedy has not been tried yet, and notes that it is.
func (w *Work) once(r remedy) bool {
	if w.tried[r] {
		return false
	}
	if w.tried == nil {
		w.tried = map[remedy]bool{}
	}
	w.tried[r] = true
	return true
}

// seeking is why a record is looked up in the CRM.
type seeking uint8

const (
	nothing   seeking = iota
	survivor          // somebody may have merged it into another
	toArchive         // only the CRM may know it
	suspect           // a link to it was refused: is it there?
	byKey             // it may be there already
	target            // a link leads to it, and we do not know it
)

// Sent is a value on its way, with the version that it was wanted in.
type Sent struct {
	Value   Value
	Version Version
}

// part is what one event alone would send.
type part struct {
	deliveries []*Delivery // none: of events that are not in the batch
	sent       map[string]Sent
	oldest     Version
}

// turn is when a part is sent. What events that are not in the batch want comes before those that
// are have ended, and what makes the record before what may only update it.
func (p part) turn(r *Record) int {
	switch {
	case r.Presence == Unknown && slices.ContainsFunc(p.deliveries, func(d *Delivery) bool { return d.Change.Mode != mappers.UpdateOnly }):
		return 0
	case len(p.deliveries) == 0:
		return 1
	}
	return 2
}

// ready are the deliveries that may cause a step.
func (w *Work) ready() []*Delivery {
	var list []*Delivery
	for _, d := range w.Deliveries {
		if d.Ready() {
			list = append(list, d)
		}
	}
	return list
}

// writers are the ready deliveries that want the record to be there.
func (w *Work) writers() []*Delivery {
	return slices.DeleteFunc(w.ready(), func(d *Delivery) bool { return d.Change.Mode == mappers.Archive })
}

// archivers are the ready deliveries that want the record archived.
func (w *Work) archivers() []*Delivery {
	return slices.DeleteFunc(w.ready(), func(d *Delivery) bool { return d.Change.Mode != mappers.Archive })
}

// Made reports whether a request of the batch has made the record.
func (w *Work) Made() bool { return w.created }

// Makes reports whether the batch is still to make the record.
func (w *Work) Makes() bool { return w.Record.CRMID == "" && len(w.writers()) > 0 }

// InPlay reports whether requests for the record may still follow, so that its write intent
// has to stand.
func (w *Work) InPlay() bool {
	return slices.ContainsFunc(w.Deliveries, func(d *Delivery) bool { return d.Open() || d.Outcome == Delivered })
}

// Stub returns the delivery that makes the record only to be linked to; nil where there is none.
func (w *Work) Stub() *Delivery {
	if i := slices.IndexFunc(w.Deliveries, func(d *Delivery) bool { return d.Stub }); i >= 0 {
		return w.Deliveries[i]
	}
	return nil
}

// recreator is the ready delivery that makes the record again should it be gone; nil where
// none does.
func (w *Work) recreator() *Delivery {
	list := w.writers()
	if i := slices.IndexFunc(list, func(d *Delivery) bool { return d.recreates(w.Record) }); i >= 0 {
		return list[i]
	}
	return nil
}

// pending are the fields that the CRM lacks, with older values of this batch in place of
// those that it has refused.
func (w *Work) pending() map[string]Sent {
	sent := map[string]Sent{}
	var mine map[Version]bool
	if w.alone {
		mine = map[Version]bool{}
		for _, d := range w.Deliveries {
			mine[d.Cause.Version] = d.Ready() || mine[d.Cause.Version]
		}
	}
	for name, f := range w.Record.Fields {
		switch {
		case w.hides(name, f):
		case f.Pending():
			if mine == nil || mine[f.Version] {
				sent[name] = Sent{f.Wanted, f.Version}
			}
		case f.Refused != uuid.Nil:
			if s, ok := w.former(name, f); ok {
				sent[name] = s
			}
		}
	}
	return sent
}

// former is the value of a field that counts after the wanted one, which the CRM has refused:
// the newest, or the oldest where that decides, that it has not refused and that decides over
// what it has, among those that the deliveries of the batch want. Where what it has is in doubt,
// that counts among them.
func (w *Work) former(name string, f *Field) (Sent, bool) {
	var best Sent
	if f.conditional() {
		return best, false
	}
	if f.AckedAt.IsZero() && !w.spent[name][f.HadAt] {
		best = Sent{f.Acked, f.HadAt}
	}
	for _, d := range w.writers() {
		v := d.Cause.Version
		if w.spent[name][v] || !f.decides(f.Version, v) || !f.lacks(v) || !f.decides(v, best.Version) {
			continue
		}
		for _, g := range d.Change.Fields {
			if g.Name == name && g.Rule != mappers.Touch {
				best = Sent{NewValue(g.Value), v}
			}
		}
	}
	return best, !best.Version.IsZero()
}

// parts takes the row apart: what each event of the batch alone would send, what each of those
// that are not in the batch still wants, and what the CRM had before it came into doubt.
func (w *Work) parts() []part {
	var parts []part
	at := map[Version]int{}
	for _, d := range w.writers() {
		i, ok := at[d.Cause.Version]
		if !ok {
			i = len(parts)
			at[d.Cause.Version] = i
			parts = append(parts, part{sent: map[string]Sent{}, oldest: d.Cause.Version})
		}
		parts[i].deliveries = append(parts[i].deliveries, d)
		for _, g := range d.Change.Fields {
			f := w.Record.Fields[g.Name]
			if g.Rule == mappers.Touch || f == nil || w.spent[g.Name][d.Cause.Version] {
				continue
			}
			v := d.Cause.Version
			wants := f.Version == v && f.Pending() && !w.hides(g.Name, f)
			switch {
			case f.Version != v && f.Rule == string(mappers.SetOnCreate): // this part may make the record
				wants = w.vacant
			case f.Version == v || f.conditional():
			case g.Rule != mappers.SetFirst:
				wants = v.Compare(f.Version) < 0 && f.lacks(v)
			case f.Refused != uuid.Nil:
				s, ok := w.former(g.Name, f)
				wants = ok && s.Version == v
			}
			if wants {
				parts[i].sent[g.Name] = Sent{NewValue(g.Value), v}
			}
		}
	}
	had := part{sent: map[string]Sent{}}
	for name, f := range w.Record.Fields {
		if !f.Pending() || w.alone || w.hides(name, f) {
			continue
		}
		if f.lacks(f.HadAt) && !f.conditional() { // that was taken once, so it is no part of what is refused
			had.sent[name] = Sent{f.Acked, f.HadAt}
		}
		if f.HadAt == f.Version {
			continue
		}
		i, ok := at[f.Version]
		if !ok {
			i = len(parts)
			at[f.Version] = i
			parts = append(parts, part{sent: map[string]Sent{}, oldest: f.Version})
		}
		parts[i].sent[name] = Sent{f.Wanted, f.Version}
	}
	if len(had.sent) > 0 {
		parts = append(parts, had)
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.turn(w.Record), b.turn(w.Record)), a.oldest.Compare(b.oldest))
	})
	return parts
}

// coverage is what the ledger knows to be in doubt of a record.
type coverage struct {
	fields map[string]bool
	links  bool
	whole  bool
}

// Intend returns the record as it has to be stored before the step is sent, so that a process
// that dies meanwhile leaves nothing acknowledged that the step may change: nil where the
// ledger needs no such note, or has it. A new record needs none unless its row makes links,
// which to take back it has to be known, or must not be sent twice: until it is stored, no
// value of it passes for acknowledged.
func (w *Work) Intend(s *Step, can Capabilities) *Record {
	r := w.Record
	if s.Reads() {
		return nil
	}
	unrepeatable := s.Do == Write && s.unrepeatable(can)
	if r.New && len(s.Carried) == 0 && s.Tie == nil && !unrepeatable {
		return nil
	}
	names := maps.Clone(s.Sent)
	links := s.Tie != nil || len(s.Carried) > 0
	if c := w.covered; c != nil && !unrepeatable && (!links || c.links) && (s.Do != Archive || c.whole) &&
		!slices.ContainsFunc(slices.Collect(maps.Keys(names)), func(n string) bool { return !c.fields[n] }) {
		return nil
	}
	if w.covered == nil {
		w.covered = &coverage{fields: map[string]bool{}}
	}
	for name, sent := range w.pending() {
		if names == nil {
			names = map[string]Sent{}
		}
		if _, has := names[name]; !has {
			names[name] = sent
		}
	}
	c := r.Clone()
	for name := range names {
		w.covered.fields[name] = true
	}
	w.covered.links = true
	c.doubt(names)
	for name, list := range s.Adds {
		for _, text := range list {
			if f := c.Fields[name]; !slices.Contains(f.Added, text) {
				f.Added = append(slices.Clone(f.Added), text)
			}
		}
	}
	for _, l := range c.Links {
		if l.Need() != Nothing && (l.Want == Linked || l.Have != Absent) {
			l.Have = InDoubt
		}
	}
	if s.Do == Archive || len(w.archivers()) > 0 {
		w.covered.whole = true
		c.doubtAll()
		c.goneBy(w.archivers())
	}
	if unrepeatable {
		c.Presence = Unsure
	}
	return c
}

// Stored notes that the ledger has what Intend has returned.
func (w *Work) Stored() {
	w.Record.New = false
	w.Record.Revision++
}

// Unstored notes that the ledger has not taken what Intend has returned.
func (w *Work) Unstored() { w.covered = nil }
