package records

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// Capabilities are what the rules need to know of a target.
type Capabilities interface {
	// Finds reports whether a record can be looked up by a key.
	Finds(key mappers.Key) bool
	// Whole reports whether each request carries all that is known of the record.
	Whole() bool
	// Carries reports how a row of a mode can take links along: to records whose id is known,
	// and to records that the target finds by our key. An id that is known makes it an update.
	Carries(mode mappers.Mode, id string) (byID, byKey bool)
	// Replaces reports whether making the link takes the place of the former one of its role.
	Replaces(r *Record, l *Link) bool
	// LinkField is the property in which the record shows the other end of the link; "" where none does.
	LinkField(r *Record, l *Link) string
	// Repeats reports whether a row of the mode may be sent twice without harm, since the target
	// makes no second record of the key.
	Repeats(mode mappers.Mode, key mappers.Key) bool
	// Makes reports whether a record of the key can be made by a request that never changes one
	// that is there.
	Makes(object string, key mappers.Key) bool
	// UniqueKeys reports whether the target itself sees to it that no two records have one key.
	UniqueKeys() bool
	// Alike reports whether a value of ours and what the target shows of a property are the same,
	// however it spells it; Several takes apart what it shows of a property with several values.
	Alike(property string, ours, shown any) bool
	Several(shown any) []string
	// Settle is how long a request may still take effect, FindLag how long a search may miss
	// what it has made.
	Settle() time.Duration
	FindLag() time.Duration
}

// Neighbour is what a batch knows of the record at the other end of a link.
type Neighbour struct {
	Record *Record // nil where we know none by that key
	Work   *Work   // nil where the batch does not work on it
}

func (n Neighbour) id() string {
	if n.Record == nil || n.Record.Presence == Gone {
		return ""
	}
	return n.Record.CRMID
}

// Env is what the rules are given beside the record.
type Env struct {
	Can    Capabilities
	Now    time.Time
	GiveUp time.Duration // a delivery is dead that long after its first counted failure

	// Neighbour is what is known of a link's other end.
	Neighbour func(*Link) Neighbour
	// Stub has the record at the other end of a link made for a delivery; false where it cannot be.
	Stub func(*Delivery, *Link) bool
	// Seek has the record at the other end of a link looked up, by its key or in one of the ways;
	// false where the batch cannot.
	Seek func(*Delivery, *Link, []mappers.Match) bool

	Links bool // plan the links; else the rows that come before them
	Force bool // rows of records that link to each other: one has to begin without its link
	Held  bool // set by Next: a row waits for another of the batch
}

// Do is what a step does.
type Do uint8

// What steps do.
const (
	Find    Do = iota // look the record up by our key
	Write             // create or update it
	Archive           // archive it
	Linking           // make a link
	Unlink            // take one back
	Search            // look for a record by other fields than our key
	Read              // see what the CRM has
)

// Step is one request's share for one record.
type Step struct {
	Do     Do
	Work   *Work
	Mode   mappers.Mode
	Last   *Delivery // whose key and event stand in the row
	Serves []*Delivery

	Values   map[string]any
	Sent     map[string]Sent // those of the values that are versioned
	Optional []string
	Carried  []Tie // links that go along with the row
	Tie      *Tie  // of Linking and Unlink

	Makes bool                // the row makes the record, and changes none that is there
	Adds  map[string][]string // of fields under add: what is there by us once the row is taken
	Way   mappers.Match       // of Search
	Show  []string            // of Find, Search and Read: the properties that the answer is to show
}

// Reads reports whether the step changes nothing in the CRM.
func (s *Step) Reads() bool { return s.Do == Find || s.Do == Search || s.Do == Read }

// Tie is a link on its way.
type Tie struct {
	Link     *Link
	ID       string // the CRM's id of the other end
	Required bool
	Former   []*Link // whose place it takes: they need not, and must not, be taken back
}

func (s *Step) unrepeatable(can Capabilities) bool {
	return s.Do == Write && !can.Repeats(s.Mode, s.Last.Change.Key)
}

// Next decides what to do next about the record. It ends the deliveries that need nothing
// more, and returns at most one step, or one for each link.
func (w *Work) Next(env *Env) []*Step {
	for _, d := range w.Deliveries {
		if d.Open() && d.state == blocked {
			d.state, d.retry = ready, 0
		}
	}
	switch w.seeking {
	case suspect, survivor:
		return w.find()
	case target:
		return w.lookForTarget(env)
	}
	if w.Record.Presence == Gone {
		if d := w.recreator(); d != nil {
			w.Record.remake(d.Cause.Version)
		}
	}
	w.yield()
	for _, d := range w.Deliveries {
		if d.Ready() {
			w.conclude(d, env)
		}
	}
	if env.Links {
		return w.links(env)
	}
	if len(w.writers()) > 0 {
		if step := w.look(env); step != nil {
			return []*Step{step}
		}
		if w.behind {
			return nil
		}
		w.decide(env.Can)
		for _, d := range w.ready() {
			w.conclude(d, env)
		}
	}
	if len(w.writers()) > 0 {
		if step, wait := w.write(env); step != nil {
			return []*Step{step}
		} else if wait {
			return nil
		}
	}
	if len(w.archivers()) > 0 {
		return w.archive(env)
	}
	return nil
}

// conclude ends a delivery that needs no request any more.
func (w *Work) conclude(d *Delivery, env *Env) {
	r, mode, v := w.Record, d.Change.Mode, d.Cause.Version
	d.CRMID = r.CRMID
	switch {
	case mode == mappers.Archive:
		switch {
		case v.Compare(r.LiveAt) < 0:
			d.Finish(Stale, "", "a newer event wants the record")
		case r.Presence == Gone:
			r.archivedBy(v)
			d.Finish(Unchanged, "", "archived already")
		}
		return
	case r.Presence == Unsure && !d.served:
		if !env.Can.Repeats(mode, d.Change.Key) && (d.Cause.Run == 0 || d.Repeat) {
			d.Finish(Dead, "unavailable", unsureReason)
			return
		}
		r.Presence = Unknown // somebody has looked, and replays; or the request finds it itself
		return
	case (mode == mappers.CreateOnly || mode == mappers.Append) && r.there() && d.tally.Acked == 0 && !d.served:
		d.refuseAll(r)
		d.Finish(Skipped, SkipThere, "the record is there already")
		return
	case r.Presence == Gone:
		w.concludeGone(d, env)
		return
	case r.Presence == Unknown && (d.tally.Stale == 0 || d.Change.Recreate || r.CRMID != "" && mode == mappers.Upsert):
		return // the record itself is what the CRM lacks
	case r.contributes(v), w.fallsBack(d), w.awaits(d), w.awaitsLink(env), w.inSplit(d), w.resending && d.served && len(w.pending()) > 0:
		return
	case r.Presence == Unknown && len(w.writers()) > 1 && !w.stalest(d):
		return // should what is newer be refused, this one may make the record
	}
	switch left, class := w.leftOut(d); {
	case d.served && !d.sent && d.tally.Stale > 0 && d.tally.Acked == 0 && d.refuse == nil && len(d.notes) == 0:
		d.Finish(Stale, "", decidedReason)
	case d.served, d.refuse != nil, len(d.notes) > 0 && r.Presence == Present, d.tally.Pending > 0 && w.confirmed && r.arrived(v):
		for _, note := range left {
			d.note(note)
		}
		d.arrive()
	case d.tally.Acked > 0 && r.Presence != Unknown && d.Cause.Run > 0 && !d.Repeat:
		d.Finish(Unchanged, "", "the CRM had it before the replay")
	case d.tally.Acked > 0 && r.Presence != Unknown:
		d.arrive()
	case d.tally.Pending > 0 && r.arrived(v) && w.seen != nil && !w.confirmed && !d.Repeat && len(left) == 0:
		d.Finish(Unchanged, "", "the CRM has it already")
	case d.tally.Pending > 0 && r.arrived(v) && len(left) == 0: // by a request for another key of the record
		d.arrive()
	case len(left) > 0 && d.tally.Pending > 0 && d.tally.Stale == 0:
		d.Finish(Skipped, class, strings.Join(left, "; "))
	case d.tally.Pending > 0:
		d.Finish(Stale, "", "a newer event arrived before this one was sent")
	case len(left) > 0 && d.tally.Refused > 0:
		d.Finish(Skipped, class, strings.Join(left, "; "))
	case d.tally.Stale > 0:
		d.Finish(Stale, "", decidedReason)
	case d.tally.Refused > 0:
		d.Finish(Skipped, SkipRefused, "the CRM has refused these values before")
	default:
		d.Finish(Unchanged, "", "")
	}
}

// fallsBack reports whether an older value of the delivery is still to be sent in place of a
// newer one that the CRM has refused.
func (w *Work) fallsBack(d *Delivery) bool {
	for _, g := range d.Change.Fields {
		f := w.Record.Fields[g.Name]
		if f == nil || f.Refused == uuid.Nil {
			continue
		}
		if s, ok := w.former(g.Name, f); ok && s.Version == d.Cause.Version {
			return true
		}
	}
	return false
}

// awaits reports whether the delivery has to see what becomes of values of others. One that
// decides over its own may be refused, and then its own counts. And one that has come into
// doubt, since two records turned out to be one or an answer was lost, may have nobody else
// who sends it.
func (w *Work) awaits(d *Delivery) bool {
	v := d.Cause.Version
	for name, s := range w.pending() {
		f := w.Record.Fields[name]
		owed := f.AckedAt.IsZero() && !f.HadAt.IsZero()
		if s.Version != v && (owed || d.wants(name) && f.decides(s.Version, v) && f.decides(v, f.has())) {
			return true
		}
	}
	return false
}

// awaitsLink reports whether a link is to be made or taken back that may have nobody else who sees
// to it, since it has come into doubt, its record is made again, or two turned out to be one.
func (w *Work) awaitsLink(env *Env) bool {
	r := w.Record
	for _, l := range r.Links {
		owed := l.Need() == Make && (l.Have == InDoubt || !l.Owed.IsZero()) || l.Need() == TakeBack && (!env.Can.Replaces(r, l) || r.successor(l) == nil)
		if n := env.Neighbour(l); owed && r.Presence == Present && r.CRMID != "" && (n.id() != "" || n.Work != nil && n.Work.Makes()) {
			return true
		}
	}
	return false
}

// inSplit reports whether a part of a refused row is still to be sent that is the delivery's own,
// or nobody's in the batch.
func (w *Work) inSplit(d *Delivery) bool {
	return slices.ContainsFunc(w.split, func(p part) bool { return len(p.deliveries) == 0 || slices.Contains(p.deliveries, d) })
}

// stalest reports whether no other writer of the batch may still make the record.
func (w *Work) stalest(d *Delivery) bool {
	for _, o := range w.writers() {
		if o != d && (o.tally.Stale == 0 || o.Change.Recreate || w.Record.contributes(o.Cause.Version)) {
			return false
		}
	}
	return true
}

const decidedReason = "a newer event has decided every field"

const (
	unsureReason = "no answer to the create: " + lookReason
	lookReason   = "check in the CRM whether it exists; if not, run partnersync replay"
)

// leftOut says which fields of a delivery the CRM does not have, by its own decision, and why a
// delivery is skipped that wants nothing else.
func (w *Work) leftOut(d *Delivery) (notes []string, class string) {
	by := map[uuid.UUID][]string{}
	var kept []string
	for _, f := range d.Change.Fields {
		have := w.Record.Fields[f.Name]
		if have == nil || have.Version != d.Cause.Version {
			continue
		}
		if have.Kept != nil {
			kept = append(kept, f.Name)
		}
		if have.Refused != uuid.Nil && have.Refused != d.Cause.Event && have.Refused != unsaid {
			by[have.Refused] = append(by[have.Refused], f.Name)
		}
	}
	class = SkipKept
	var unmade []string
	for _, f := range d.Change.Fields {
		if have := w.Record.Fields[f.Name]; have != nil && have.Version == d.Cause.Version && have.Refused == unsaid && f.Rule == mappers.SetOnCreate {
			unmade = append(unmade, f.Name)
		}
	}
	if len(unmade) > 0 {
		class = SkipThere
		notes = append(notes, fmt.Sprintf("without %s, which only a new record gets", strings.Join(unmade, ", ")))
	}
	for event, names := range by {
		class = SkipRefused
		slices.Sort(names)
		notes = append(notes, fmt.Sprintf("without %s, which the CRM refused of event %s", strings.Join(names, ", "), event))
	}
	if len(kept) > 0 {
		notes = append(notes, "the CRM keeps another value of "+strings.Join(kept, ", "))
	}
	for _, l := range w.Record.Links {
		if l.Verdict == Theirs && l.Version == d.Cause.Version {
			notes = append(notes, fmt.Sprintf("the CRM keeps another link to %s", l.To))
		}
	}
	slices.Sort(notes)
	return slices.Compact(notes), class
}

// concludeGone ends a delivery to a record that is gone.
func (w *Work) concludeGone(d *Delivery, env *Env) {
	switch at := w.Record.GoneAt; {
	case d.served && w.archived:
		d.arrive()
	case at.IsZero():
		d.Finish(Skipped, SkipGone, "the record is gone from the CRM")
	case !d.Change.Recreate:
		d.Finish(Skipped, SkipArchived, "the record is archived")
	case w.unmade(d, env):
		d.Block("waiting: the record that it links to could not be made yet")
	default:
		d.Finish(Stale, "", "a newer event has archived the record")
	}
}

// unmade reports whether what the links of a delivery want made is not there yet, and may
// still be.
func (w *Work) unmade(d *Delivery, env *Env) bool {
	for _, wish := range d.Change.Links {
		if wish.Remove || wish.Missing != "create" {
			continue
		}
		l := w.Record.Links[LinkName(wish.To, wish.As, wish.Key.Property, wish.Key.Value)]
		if l == nil {
			continue
		}
		if n := env.Neighbour(l); n.Work != nil && n.Record.Presence == Unknown && n.Work.Stub() != nil && n.Work.Stub().Open() {
			return true
		}
	}
	return false
}

// find looks the record up by our key.
func (w *Work) find() []*Step {
	last := w.Deliveries[len(w.Deliveries)-1]
	if list := w.ready(); len(list) > 0 {
		last = list[len(list)-1]
	} else if w.seeking != suspect {
		w.seeking = nothing
		return nil
	}
	return []*Step{{Do: Find, Work: w, Mode: mappers.Upsert, Last: last, Serves: w.ready()}}
}

// write makes the row of the record. It returns none where the record itself needs no
// request; wait is true where it does, but not now.
func (w *Work) write(env *Env) (step *Step, wait bool) {
	r := w.Record
	serves, sent := w.writers(), w.pending()
	if r.Presence == Present { // who only waits for what becomes of the others' values is not served by them
		serves = slices.DeleteFunc(serves, func(d *Delivery) bool {
			return w.awaits(d) && !r.contributes(d.Cause.Version) && !w.fallsBack(d)
		})
	}
	if len(w.split) > 0 {
		serves, sent = nil, w.split[0].sent
		maps.DeleteFunc(sent, func(name string, s Sent) bool { // by another part, a newer one
			f := r.Fields[name]
			other := f.Version != s.Version
			return other && !f.lacks(s.Version) || other && f.conditional() && f.Rule != string(mappers.SetOnCreate) || w.hides(name, f)
		})
		for _, d := range w.split[0].deliveries {
			if d.Ready() {
				serves = append(serves, d)
			}
		}
		if len(serves) == 0 && len(w.split[0].deliveries) > 0 || len(sent) == 0 && (len(serves) == 0 || r.Presence == Present) {
			w.split = w.split[1:]
			return w.write(env)
		}
	}
	if len(sent) == 0 && r.Presence != Unknown || len(serves) == 0 && len(sent) == 0 {
		return nil, false
	}
	step = w.row(serves, sent, env.Can)
	if !w.carry(step, env) {
		return nil, true
	}
	return step, false
}

// row fills the row of a write.
func (w *Work) row(serves []*Delivery, sent map[string]Sent, can Capabilities) *Step {
	r := w.Record
	tells := serves
	if len(tells) == 0 {
		tells = w.writers()
	}
	last := tells[len(tells)-1]
	s := &Step{Do: Write, Work: w, Mode: last.Change.Mode, Last: last, Serves: serves, Sent: sent, Values: make(map[string]any, len(sent)+1)}
	for _, d := range tells {
		if m := d.Change.Mode; m == mappers.Upsert || s.Mode == mappers.UpdateOnly {
			s.Mode = m // that of them which may do most
		}
	}
	if r.there() && r.CRMID != "" && s.Mode != mappers.Upsert {
		s.Mode = mappers.UpdateOnly // it is made, by an earlier attempt or before a replay
	}
	for name, v := range sent {
		s.Values[name] = v.Value.Go
		if f := r.Fields[name]; f.Rule == string(mappers.Add) && f.Version == v.Version {
			all := []any{}
			for _, text := range w.union(name, f, can) {
				all = append(all, text)
			}
			if s.Adds == nil {
				s.Adds = map[string][]string{}
			}
			s.Values[name], s.Adds[name] = all, w.adds(name, f, can)
		}
	}
	s.Makes = w.vacant && s.Mode == mappers.Upsert && can.Makes(r.Object, last.Change.Key)
	if can.Whole() {
		// What the target makes of a request does not depend on those before.
		for name, f := range r.Fields {
			if _, has := sent[name]; !has && !f.AckedAt.IsZero() {
				s.Values[name] = f.Acked.Go
			}
		}
	}
	key := last.Change.Key
	adopted := r.CRMID != "" && r.Presence == Unknown && !w.keeps
	if adopted && key.Property != "" && !key.Local || (s.Mode == mappers.CreateOnly || s.Makes) && !key.Local {
		// Adopted: it was there before we knew of it, and lacks our key. Or it is made by a plain create.
		s.Values[key.Property] = key.Value
	}
	for _, d := range serves {
		for _, f := range d.Change.Fields {
			if f.Rule == mappers.Touch && f.Value != nil && !w.untouched[f.Name] {
				s.Values[f.Name] = f.Value
			}
			if f.Optional && !slices.Contains(s.Optional, f.Name) {
				s.Optional = append(s.Optional, f.Name)
			}
		}
	}
	return s
}

// carry gives a row the links that go along with it. It reports whether the row may be sent:
// not where it lacks a link that is required, or waits for a record of the batch.
func (w *Work) carry(s *Step, env *Env) bool {
	byID, byKey := env.Can.Carries(s.Mode, w.Record.CRMID)
	if !byID && !byKey {
		return true
	}
	for _, l := range w.Record.needy() {
		if l.Want != Linked || len(w.split) > 0 && !slices.ContainsFunc(s.Serves, func(d *Delivery) bool { return l.Of(d.Cause.Version) }) {
			continue // a part takes its own along
		}
		n := env.Neighbour(l)
		if l.IfEmpty && !w.free(l, n, env) {
			continue // it is made afterwards, if at all
		}
		if n.Work != nil && n.Work != w && n.Work.Makes() && !env.Force {
			env.Held = true
			return false
		}
		t := Tie{Link: l, ID: n.id(), Required: w.requires(l, s.Serves)}
		if t.Required && n.Work != nil && n.Work.seeking == target { // it is being looked up
			env.Held = true
			return false
		}
		if t.Required && t.ID == "" && (!byKey || w.matches(l)) && w.seek(l, env) {
			return false
		}
		if t.ID != "" && byID || t.ID == "" && byKey {
			s.Carried = append(s.Carried, t)
			continue
		}
		if t.Required && !w.without(l, "", env) {
			return false
		}
	}
	for i, t := range s.Carried { // who requires it may have ended for the sake of another
		s.Carried[i].Required = w.requires(t.Link, s.Serves)
	}
	if slices.ContainsFunc(s.Carried, func(t Tie) bool { return t.Required }) {
		// Such a row is refused as a whole for any link: one that is not required comes after it.
		s.Carried = slices.DeleteFunc(s.Carried, func(t Tie) bool { return !t.Required })
	}
	return true
}

// requires reports whether one of the events of a row wants the record made with the link, or
// not at all.
func (w *Work) requires(l *Link, serves []*Delivery) bool {
	return w.Record.CRMID == "" && slices.ContainsFunc(serves, func(d *Delivery) bool { return d.Ready() && d.requires(l) })
}

// without decides what follows when the other end of a required link is not known. It reports
// whether the row may be sent without it; else its deliveries wait, or have ended.
func (w *Work) without(l *Link, why string, env *Env) bool {
	var list []*Delivery
	for _, d := range w.writers() {
		if d.requires(l) {
			list = append(list, d)
		}
	}
	w.missing(l, list, why, env)
	if l.Need() == Nothing {
		return true
	}
	wait := time.Duration(0)
	for _, d := range list {
		if d.Open() {
			wait = max(wait, d.retry)
		}
	}
	if wait == 0 { // all have ended, and nobody else requires it
		return len(w.writers()) > 0
	}
	for _, d := range w.ready() {
		d.Wait("link", "waiting: the record must be created with a required link whose target does not exist yet", wait)
	}
	return false
}

// archive makes the row that archives the record. It comes last: in whatever order the events
// came, a record stays archived.
func (w *Work) archive(env *Env) []*Step {
	list := w.archivers()
	for _, d := range w.Deliveries {
		if d.Open() && d.state != ready && d.Change.Mode != mappers.Archive {
			for _, a := range list {
				a.Wait(d.Class, d.Reason, max(d.retry, time.Second))
			}
			return nil
		}
	}
	last := list[len(list)-1]
	if w.Record.CRMID == "" {
		if env.Can.Finds(last.Change.Key) && (w.seeking == toArchive || w.once(sought)) {
			w.seeking = toArchive
			return []*Step{{Do: Find, Work: w, Mode: mappers.Archive, Last: last, Serves: list}}
		}
		w.nothingToArchive()
		return nil
	}
	return []*Step{{Do: Archive, Work: w, Mode: mappers.Archive, Last: last, Serves: list, Values: map[string]any{}}}
}

// nothingToArchive ends the deliveries that would archive a record that is not there. Older
// events that come late must not make it.
func (w *Work) nothingToArchive() {
	for _, d := range w.archivers() {
		w.Record.archivedBy(d.Cause.Version)
		d.Finish(Skipped, SkipNotThere, "there is no record to archive")
	}
}

// links makes a step for each link that the CRM lacks, or has too much.
func (w *Work) links(env *Env) []*Step {
	r := w.Record
	list := w.ready()
	playing := len(list) > 0 || slices.ContainsFunc(w.Deliveries, func(d *Delivery) bool { return d.Outcome == Delivered && d.dirty })
	if !playing || r.Presence == Gone {
		return nil
	}
	if r.CRMID == "" {
		for _, d := range w.writers() {
			d.Wait("link", "waiting: a link needs the id of the record, which the CRM has not given yet", min(max(env.Now.Sub(d.Cause.ReceivedAt)/4, 2*time.Second), 5*time.Minute))
		}
		return nil
	}
	if r.Presence != Present {
		return nil
	}
	if s := w.lookForLinks(env); s != nil && w.Hold == 0 {
		return []*Step{s}
	}
	var steps []*Step
	byLink := map[*Link]*Step{}
	formers := map[*Link][]*Link{}
	for _, l := range r.needy() {
		if l.Need() == TakeBack && env.Can.Replaces(r, l) {
			// It stays until that can be made, unless a newer event parts the two.
			if next := r.successor(l); next != nil && (next.Need() == Nothing || env.Neighbour(next).id() != "" || l.Version.Compare(next.Version) <= 0) {
				if next.Need() == Nothing {
					w.over(l) // its successor has taken its place
				} else {
					formers[next] = append(formers[next], l)
				}
				continue
			}
		}
		if w.Hold > 0 {
			for _, d := range w.serving(l, nil) {
				d.Wait("network", "waiting: an earlier request for this record got no answer and may still take effect", env.Can.Settle())
			}
			continue
		}
		n := env.Neighbour(l)
		switch {
		case l.IfEmpty && l.Need() == Make && n.id() != "" && !w.free(l, n, env):
			continue
		case n.Work != nil && (n.Work.seeking == suspect || n.Work.seeking == target):
			continue // it is being looked up
		case n.Work != nil && n.Work.unseen:
			for _, d := range w.serving(l, nil) {
				d.Wait("link", "waiting: it is not known whether the other end of a link is still there", time.Second)
			}
			continue
		case n.id() != "":
		case l.Need() == TakeBack:
			if !env.Can.Replaces(r, l) {
				w.over(l) // its other end is not known any more
				continue
			}
		case w.seek(l, env):
			continue
		default:
			w.missing(l, w.serving(l, nil), "", env)
			continue
		}
		s := &Step{Do: Linking, Work: w, Tie: &Tie{Link: l, ID: n.id()}}
		if l.Need() == TakeBack {
			s.Do = Unlink
		}
		steps = append(steps, s)
		byLink[l] = s
	}
	for next, list := range formers {
		if s := byLink[next]; s != nil {
			s.Tie.Former = list
		}
	}
	for _, s := range steps {
		s.Serves = w.serving(s.Tie.Link, s.Tie.Former)
		s.Last = s.serves(w)
	}
	for _, d := range w.ready() { // some may have ended with a link that is not needed any more
		w.conclude(d, env)
	}
	return steps
}

// over notes that a link is not there any more, which is what its deliveries want.
func (w *Work) over(l *Link) {
	for _, d := range w.serving(l, nil) {
		d.served = true
	}
	l.Have = Absent
}

// serves returns a delivery that tells the event of a link.
func (s *Step) serves(w *Work) *Delivery {
	if len(s.Serves) > 0 {
		return s.Serves[len(s.Serves)-1]
	}
	return w.Deliveries[len(w.Deliveries)-1]
}

// serving are the ready deliveries that want a link as it is wanted now, or one of those
// whose place it takes.
func (w *Work) serving(l *Link, former []*Link) []*Delivery {
	var list []*Delivery
	for _, d := range w.ready() {
		if l.Of(d.Cause.Version) || slices.ContainsFunc(former, func(f *Link) bool { return f.Of(d.Cause.Version) }) {
			list = append(list, d)
		}
	}
	return list
}

// missing decides what follows when the record at the other end of a link is not known or is
// gone, and says why, where the CRM has told.
func (w *Work) missing(l *Link, list []*Delivery, why string, env *Env) {
	n := env.Neighbour(l)
	// Without the key: `dead` groups by the reason, and `explain` names the key beside it.
	what := fmt.Sprintf("no %s with that %s is known yet to link to", l.To, l.Property)
	if n.Record != nil && n.Record.Presence == Gone {
		what = fmt.Sprintf("the %s with %s %q was deleted in the CRM", l.To, l.Property, l.Key)
	}
	if why != "" {
		what += ": " + why
	}
	for _, d := range list {
		wish, wanted := d.wish(l)
		if !wanted { // of another event, which has had its time
			l.Owed = Version{}
			continue
		}
		var stub *Delivery
		if n.Work != nil {
			stub = n.Work.Stub()
		}
		switch age := env.Now.Sub(d.Cause.ReceivedAt); {
		case wish.Missing == "skip":
			l.Verdict = Waived
			d.note(what)
			if w.Record.Presence == Present {
				d.served = true
			}
		case wish.Missing == "create" && stub != nil && !stub.Open():
			d.Finish(Dead, "link", fmt.Sprintf("%s could not be made to link to: %s", l.To, stub.Reason))
		case wish.Missing == "create" && stub == nil && env.Stub(d, l):
			d.Block(what)
		case wish.Missing == "create" && stub != nil && stub.Failing():
			d.Fail(stub.Class, fmt.Sprintf("%s could not be made yet to link to: %s", l.To, stub.Reason), env.Now, env.GiveUp)
		case wish.Missing == "create" && stub != nil:
			d.Wait("link", what, max(stub.retry, time.Second))
		case age >= wish.For && wish.For > 0:
			d.Finish(Dead, "link", what)
		default:
			d.Wait("link", what, min(max(age/4, time.Second), 5*time.Minute))
		}
	}
}
