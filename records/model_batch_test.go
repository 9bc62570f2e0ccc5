package records

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// history is a story as it comes to pass: the ledger, the CRM, and the time. A batch goes as
// those of package jobs do, without Postgres, HTTP and goroutines.
type history struct {
	*story
	crm     *crm
	now     time.Duration
	records map[uuid.UUID]*Record
	keys    map[Key]uuid.UUID
	shut    map[Key]time.Duration // until when nobody may touch what a key names
	joined  map[uuid.UUID]uuid.UUID
	blended map[uuid.UUID]bool // records that hold what is wanted under another key, though the ledger does not know that yet
	serial  int
	turn    int                 // of the acts
	owned   map[string][]string // tags that we may have put, by record of the CRM
	lost    error               // the first fault
	log     []string            // of what happened, where it is wanted
	logging bool
}

func (h *history) note(format string, args ...any) {
	if h.logging {
		h.log = append(h.log, fmt.Sprintf("%6s ", h.now)+fmt.Sprintf(format, args...))
	}
}

// fault notes that something went wrong; the first counts.
func (h *history) fault(format string, args ...any) {
	if h.lost == nil {
		h.lost = fmt.Errorf(format, args...)
	}
	h.note("FAULT: "+format, args...)
}

func (h *history) id() uuid.UUID {
	h.serial++
	return uuid.UUID{0: 1, 14: byte(h.serial >> 8), 15: byte(h.serial)}
}

// root is what became of a record that turned out to be another.
func (h *history) root(id uuid.UUID) uuid.UUID {
	for {
		next, is := h.joined[id]
		if !is {
			return id
		}
		id = next
	}
}

// pass lets time pass; what the CRM has put off takes effect when it is due.
func (h *history) pass(d time.Duration) {
	end := h.now + d
	for {
		next := end
		for _, p := range h.crm.late {
			if p.until > 0 {
				next = min(next, p.until)
			}
		}
		h.now = max(h.now, next)
		h.crm.catchUp(false)
		if next == end {
			return
		}
	}
}

func (h *history) block(k Key, until time.Duration) {
	h.shut[k] = max(h.shut[k], until)
}

// store writes a record as the ledger does: over the revision that it was read in, and no other.
func (h *history) store(r *Record) {
	if have := h.records[r.ID]; have != nil && (have.Revision != r.Revision || r.New) || have == nil && r.Revision != 0 && !r.New {
		h.fault("record %s is written over another revision than it was read in", r.Key)
	}
	if k := (Key{r.Object, r.Property, r.Key}); r.New {
		if _, known := h.keys[k]; known {
			h.fault("two records of the key %v are stored", k)
		}
		h.keys[k] = r.ID
	}
	c := r.Clone()
	c.New = false
	c.Revision++
	h.records[r.ID] = c
}

// batch takes some events from their stored state to recorded outcomes.
type batch struct {
	h       *history
	act     *act
	moods   []mood
	steps   int // boundaries that it has come to
	records map[Key]*Record
	ends    map[Key]*Record
	works   []*Work
	workOf  map[*Record]*Work
	claimed []Key
	merges  []modelMerge
	env     Env
	began   time.Duration
	over    time.Duration // when what it has announced has had its effect
	asked   []Key         // that it has announced
	dead    bool          // it ended without recording anything
	runs    []*run

	turn       int             // of the act
	identities map[*Work][]Key // of records that we did not know
	unclear    map[*Work]bool  // several were found
	sought     []modelSought
	reasons    map[Key]bool // a search has shown why events may be dead
}

type modelMerge struct {
	from, into uuid.UUID
	key        Key
}

// run is the work of one batch on one delivery.
type run struct {
	event *happened
	part  int
	*Delivery
}

// modelRounds bounds the rounds of a batch, far below the bound of package jobs.
const modelRounds = 40

// dies reports whether the process dies at this boundary.
func (b *batch) dies(where string) bool {
	b.steps++
	if b.act.Die != b.steps {
		return false
	}
	b.h.note("the process dies %s", where)
	b.end()
	return true
}

// end leaves everything to the next owner, who keeps off what was announced.
func (b *batch) end() {
	b.die()
	if b.over > 0 {
		for _, k := range b.asked {
			b.h.block(k, b.over+modelSettle+modelLag)
		}
	}
	for i := range b.h.crm.late {
		if p := &b.h.crm.late[i]; p.request.batch == b && p.until == 0 {
			p.until = b.over + modelSettle
		}
	}
}

func (b *batch) die() {
	b.dead = true
	for _, m := range b.merges {
		b.h.blended[m.into] = true
	}
}

// work works some of the open events.
func (h *history) work(a *act) {
	b := &batch{h: h, act: a, moods: a.Moods, records: map[Key]*Record{}, ends: map[Key]*Record{}, workOf: map[*Record]*Work{}, began: h.now, turn: h.turn, identities: map[*Work][]Key{}, unclear: map[*Work]bool{}, reasons: map[Key]bool{}}
	b.env = Env{Can: h.crm.manners, GiveUp: modelGiveUp, Neighbour: b.neighbour, Stub: b.stub, Seek: b.seek}
	b.load()
	if len(b.runs) == 0 || b.dies("with the events loaded") {
		return
	}
	for _, r := range b.runs {
		if r.Open() {
			w := b.work(r.Key)
			w.Deliveries = append(w.Deliveries, r.Delivery)
		}
	}
	for _, w := range slices.Clone(b.works) {
		w.Begin()
		b.identify(w)
	}
	for _, r := range b.runs {
		if r.Open() {
			b.stubs(r.Delivery)
		}
	}
	if b.dies("with the events folded") {
		return
	}
	rounds := 0
	for b.round() {
		if rounds++; rounds > modelRounds {
			h.fault("a batch does not come to an end")
			return
		}
	}
	if !b.dead && !b.dies("before it records anything") {
		b.commit()
	}
}

// load takes the events of the act whose records may be touched.
func (b *batch) load() {
	h := b.h
	open := h.open()
	var mine []*happened
	for _, i := range b.act.Events {
		if len(open) == 0 {
			return
		}
		if e := open[i%len(open)]; !slices.Contains(mine, e) {
			mine = append(mine, e)
		}
	}
	for _, e := range mine {
		var runs []*run
		var keys []Key
		for i, c := range e.Changes {
			d := &Delivery{Cause: e.cause, Change: c, Key: Key{c.Object, c.Key.Property, c.Key.Value}}
			if p := e.progress[i]; p != nil {
				d.Outcome, d.Attempts, d.FirstFailedAt, d.Repeat = p.Outcome, p.Attempts, p.FirstFailedAt, true
			}
			runs = append(runs, &run{e, i, d})
			if d.Open() {
				keys = append(append(keys, d.Key), toMake(d)...)
			}
		}
		if !slices.ContainsFunc(keys, h.isShut) {
			b.runs = append(b.runs, runs...)
			b.claimed = append(b.claimed, keys...)
			b.h.note("works %s", e)
		}
	}
	b.read(b.claimed, b.records)
	shut := map[*happened]bool{}
	for _, r := range b.runs {
		shut[r.event] = shut[r.event] || slices.ContainsFunc(b.identitiesOf(r.Delivery), h.isShut)
	}
	b.runs = slices.DeleteFunc(b.runs, func(r *run) bool { return shut[r.event] })
}

// isShut reports whether nobody may touch what a key names, by whatever key of it.
func (h *history) isShut(k Key) bool {
	id, known := h.keys[k]
	return h.shut[k] > h.now || known && h.shut[KeyOf(id)] > h.now
}

func toMake(d *Delivery) []Key {
	var keys []Key
	for _, l := range d.Change.Links {
		if l.Missing == "create" && !l.Remove {
			keys = append(keys, Key{l.To, l.Key.Property, l.Key.Value})
		}
	}
	return keys
}

// read reads records into a map; several keys of one record lead to one copy.
func (b *batch) read(keys []Key, into map[Key]*Record) {
	byID := map[uuid.UUID]*Record{}
	for _, r := range b.records {
		byID[r.ID] = r
	}
	for _, k := range keys {
		if id, known := b.h.keys[k]; known && into[k] == nil {
			if byID[id] == nil {
				byID[id] = b.h.records[id].Clone()
			}
			into[k] = byID[id]
		}
	}
}

func (b *batch) work(k Key) *Work {
	r := b.records[k]
	if r == nil {
		r = New(b.h.id(), k)
		b.records[k] = r
	}
	w := b.workOf[r]
	if w == nil {
		w = &Work{Record: r}
		b.workOf[r] = w
		b.works = append(b.works, w)
	}
	return w
}

func (b *batch) stubs(d *Delivery) {
	for _, wish := range d.Change.Links {
		l := b.workOf[b.records[d.Key]].Record.Links[LinkName(wish.To, wish.As, wish.Key.Property, wish.Key.Value)]
		if wish.Missing != "create" || l == nil || l.Need() != Make {
			continue
		}
		if r := b.records[targetKey(l)]; r == nil || r.Presence == Unknown {
			b.stub(d, l)
		}
	}
}

func (b *batch) stub(d *Delivery, l *Link) bool {
	k := targetKey(l)
	if !slices.Contains(b.claimed, k) {
		return false
	}
	if w := b.work(k); w.Stub() == nil {
		w.Deliveries = append(w.Deliveries, NewStub(d, l, k))
		b.identify(w)
	}
	return true
}

func targetKey(l *Link) Key { return Key{l.To, l.Property, l.Key} }

func (b *batch) neighbour(l *Link) Neighbour {
	r := b.records[targetKey(l)]
	if r == nil {
		r = b.ends[targetKey(l)]
	}
	if r == nil {
		return Neighbour{}
	}
	return Neighbour{r, b.workOf[r]}
}

// round is one turn of the loop: plan, announce, send, apply. It reports whether another may follow.
func (b *batch) round() bool {
	h := b.h
	b.env.Now = start.Add(h.now)
	for _, w := range b.works {
		for _, l := range w.Record.Links {
			if l.Need() != Nothing && b.records[targetKey(l)] == nil {
				b.read([]Key{targetKey(l)}, b.ends)
			}
		}
	}
	b.twins()
	steps := b.plan()
	if len(steps) == 0 && b.twins() {
		steps = b.plan()
	}
	steps = append(steps, b.seekEnds()...)
	if len(steps) == 0 || b.dies("with its steps planned") {
		return false
	}
	b.announce(steps)
	if b.dies("with its steps announced") {
		return false
	}
	answers := make([]Answer, len(steps))
	lost := false
	for i, s := range steps {
		q := request{step: s, sent: maps.Clone(s.Sent), id: s.Work.Record.CRMID, by: s.Work.Record, batch: b, object: s.Work.Record.Object, key: s.Last.Change.Key}
		if s.Tie != nil {
			t := *s.Tie
			link := *t.Link
			t.Link = &link
			q.step = &Step{Do: s.Do, Work: s.Work, Last: s.Last, Tie: &t}
		}
		how := fine
		if len(b.moods) > 0 {
			how, b.moods = b.moods[0], b.moods[1:]
		}
		if b.act.Late == i+1 {
			h.crm.catchUp(true)
		}
		answers[i] = h.crm.handle(q, how)
		lost = lost || answers[i].Class == "timeout"
		if h.logging {
			h.note("  %s: %s", describe(q), tell(how, answers[i]))
		}
	}
	if b.dies("with its steps sent") {
		return false
	}
	if lost {
		h.pass(modelTimeout)
	}
	for i := range h.crm.late {
		if p := &h.crm.late[i]; p.until == 0 {
			p.until = h.now + modelSettle
		}
	}
	for i, s := range steps {
		b.apply(s, answers[i])
	}
	return !b.dies("with its answers applied")
}

func (b *batch) plan() []*Step {
	for range 3 {
		for _, env := range []struct{ links, force bool }{{}, {force: true}, {links: true}} {
			b.env.Links, b.env.Force = env.links, env.force
			if env.force && !b.env.Held {
				continue
			}
			b.env.Held = false
			var steps []*Step
			for i := 0; i < len(b.works); i++ {
				steps = append(steps, b.works[i].Next(&b.env)...)
			}
			if len(steps) > 0 || len(b.sought) > 0 {
				return steps
			}
		}
		if !slices.ContainsFunc(b.works, (*Work).Makes) {
			return nil
		}
	}
	return nil
}

// announce stores what the steps may change, and has everybody else keep off.
func (b *batch) announce(steps []*Step) {
	var works []*Work
	intend := func(w *Work, r *Record) {
		b.h.store(r)
		works = append(works, w)
	}
	for _, s := range steps {
		if r := s.Work.Intend(s, b.env.Can); r != nil {
			intend(s.Work, r)
		}
	}
	for _, s := range steps {
		ties := s.Carried
		if s.Tie != nil {
			ties = append(ties, *s.Tie)
		}
		for _, t := range ties {
			if n := b.neighbour(t.Link); n.Work != nil && n.Record.New && !slices.Contains(works, n.Work) {
				intend(n.Work, n.Record.Clone())
			}
		}
	}
	for _, w := range works {
		w.Stored()
	}
	if b.h.Sales {
		for _, s := range steps {
			b.h.owns(s)
		}
	}
	b.over = b.h.now + 2*modelTimeout
	for _, w := range b.works {
		if !w.InPlay() {
			continue
		}
		for _, d := range w.Deliveries {
			b.asked = append(b.asked, d.Key)
		}
		b.asked = append(b.asked, b.identities[w]...)
		if id := w.Record.CRMID; id != "" {
			b.asked = append(b.asked, KeyOfID(w.Record.Object, id))
		}
		if w.Record.Merged {
			b.asked = append(b.asked, KeyOf(w.Record.ID))
		}
	}
}

// apply has the rules take up an answer, and does what they ask for.
func (b *batch) apply(s *Step, a Answer) {
	if b.resolve(s, a) {
		return
	}
	effect := s.Work.Apply(s, a, &b.env)
	if s.Do == Search && (len(a.Hits) > 1 || a.More) && s.Last.Change.Several == mappers.SeveralDead {
		b.unclear[s.Work] = true
	}
	b.h.told(b, s, a)
	b.h.pass(effect.Pause)
	if effect.Suspect != nil {
		b.suspect(s, effect.Suspect)
	}
}

func (b *batch) suspect(s *Step, l *Link) {
	k := targetKey(l)
	r := b.neighbour(l).Record
	if r == nil || r.Presence == Gone {
		return
	}
	if b.workOf[r] == nil {
		if b.h.isShut(k) {
			s.Work.PutOff("link", "waiting: the other end of a link is being written", time.Second)
			return
		}
		b.records[k] = b.h.records[b.h.keys[k]].Clone()
		r = b.records[k]
		w := b.work(k)
		w.Deliveries = append(w.Deliveries, Probe(s.Last, l, k))
	}
	if !b.workOf[r].Suspect(b.env.Can) && s.Work.Suspect(b.env.Can) {
		return
	}
}

// resolve reports whether the answer says that the record is one that we know by another key.
func (b *batch) resolve(s *Step, a Answer) bool {
	id := s.Work.Learns(s, a)
	if id == "" {
		return false
	}
	into, wait := b.other(s.Work.Record, id)
	if key := s.Work.CarriedKey(s, a); into == nil && !wait && key.Value != "" {
		into, wait = b.carrier(s.Work.Record, Key{s.Work.Record.Object, key.Property, key.Value})
	}
	switch {
	case into != nil:
		b.become(s, a, into)
	case wait:
		s.Work.Unresolved(s, a, 2*time.Second, &b.env)
	default:
		return false
	}
	return true
}

func (b *batch) carrier(self *Record, k Key) (_ *Record, wait bool) {
	r := b.records[k]
	if r == nil {
		if b.act.Blind || b.h.isShut(k) {
			return nil, true
		}
		stored := b.h.records[b.h.keys[k]]
		if stored == nil || stored.ID == self.ID || stored.CRMID != "" || stored.Presence == Gone {
			return nil, false
		}
		if b.h.shut[KeyOf(stored.ID)] > b.h.now {
			return nil, true
		}
		r = stored.Clone()
		b.records[k] = r
	}
	if r.ID == self.ID || r.CRMID != "" || r.Presence == Gone {
		return nil, false
	}
	return r, false
}

func (b *batch) other(self *Record, id string) (_ *Record, wait bool) {
	known := func(r *Record) bool {
		return r.ID != self.ID && r.Object == self.Object && r.CRMID == id && r.Presence != Gone
	}
	for _, r := range b.records {
		if known(r) {
			return r, false
		}
	}
	if b.act.Blind || b.h.isShut(KeyOfID(self.Object, id)) {
		return nil, true // the ledger cannot be asked, or another may be writing it
	}
	for _, stored := range b.h.records {
		if stored.CRMID != id || stored.Object != self.Object || stored.ID == self.ID {
			continue
		}
		for _, r := range b.records {
			if r.ID == stored.ID {
				return nil, false
			}
		}
		var keys []Key
		for k, of := range b.h.keys {
			if of == stored.ID {
				keys = append(keys, k)
			}
		}
		if slices.ContainsFunc(keys, b.h.isShut) || b.h.shut[KeyOf(stored.ID)] > b.h.now {
			return nil, true
		}
		r := stored.Clone()
		if !known(r) {
			return nil, false
		}
		for _, k := range keys {
			b.records[k] = r
		}
		return r, false
	}
	return nil, false
}

func (b *batch) become(s *Step, a Answer, into *Record) {
	w, from := s.Work, s.Work.Record
	b.h.note("  %s turns out to be %s", from.Key, into.Key)
	w.Becomes(into, s, a)
	b.h.doubt(from, into)
	for k, r := range b.records {
		if r == from {
			b.records[k] = into
		}
	}
	delete(b.workOf, from)
	b.merges = append(b.merges, modelMerge{from.ID, into.ID, s.Last.Key})
	if known := b.workOf[into]; known == nil {
		w.Record = into
		b.workOf[into] = w
	} else {
		known.Take(w)
		b.works = slices.DeleteFunc(b.works, func(o *Work) bool { return o == w })
	}
}

// commit stores what has become of everything.
func (b *batch) commit() {
	h := b.h
	for _, w := range slices.Clone(b.works) {
		if w.InVain() {
			b.discard(w)
		}
		w.Rest()
	}
	hold := func() {
		for _, w := range b.works {
			for _, k := range b.identities[w] {
				if w.Made() {
					h.block(k, h.now+modelLag)
				}
				h.block(k, h.now+w.Hold)
			}
			if w.Hold > 0 {
				for _, d := range w.Deliveries {
					h.block(d.Key, h.now+w.Hold)
				}
				h.block(KeyOf(w.Record.ID), h.now+w.Hold)
				h.block(KeyOfID(w.Record.Object, w.Record.CRMID), h.now+w.Hold)
			}
		}
	}
	if b.act.Unrecorded {
		h.note("the ledger does not take it")
		b.die()
		for _, w := range b.works {
			w.Hold = max(w.Hold, modelLag) // the CRM may show late what it has made
		}
		hold()
		return
	}
	for _, w := range b.works {
		h.store(w.Record)
	}
	for _, m := range b.merges {
		for k, id := range h.keys {
			if id == m.from {
				h.keys[k] = m.into
			}
		}
		if _, known := h.keys[m.key]; !known {
			h.keys[m.key] = m.into
		}
		delete(h.records, m.from)
		h.joined[m.from] = m.into
		h.blended[m.into] = h.blended[m.into] || h.blended[m.from]
	}
	hold()
	for _, r := range b.runs {
		if r.Ready() {
			h.fault("%s is left without anything to come", r.event)
		}
		if !r.Dirty() {
			continue
		}
		h.note("  %s: %q %s", r.Change.Mapping, r.Outcome, r.Reason)
		p := r.Progress
		r.event.progress[r.part] = &p
		if !r.Open() {
			h.ended(b, r)
		}
	}
}

func describe(q request) string {
	s := q.step
	text := []string{"find", "write", "archive", "link", "unlink", "search", "read"}[s.Do]
	if s.Tie != nil {
		return fmt.Sprintf("%s %s to %s %s as %q", text, q.id, s.Tie.Link.Key, s.Tie.ID, s.Tie.Link.As)
	}
	text = fmt.Sprintf("%s %s %s %s=%s %v", text, s.Mode, q.id, q.key.Property, q.key.Value, s.Values)
	if s.Way != nil || s.Show != nil || s.Makes {
		text += fmt.Sprintf(" by %v showing %v makes:%v", s.Way, s.Show, s.Makes)
	}
	for _, t := range s.Carried {
		text += fmt.Sprintf(" with %s %s", t.Link.Key, t.ID)
	}
	return text
}

func tell(how mood, a Answer) string {
	text := []string{"", "cut off: ", "unheard: ", "late: ", "twice: ", "broken: ", "unsent: ", "shortly: ", "throttled: "}[how]
	text += []string{"taken", "denied", "conflict", "busy", "failed"}[a.Kind] + " " + a.ID + a.Existing
	if len(a.Fields) > 0 {
		text += fmt.Sprint(" for ", a.Fields)
	}
	for _, hit := range a.Hits {
		text += fmt.Sprintf(" %s %v", hit.ID, hit.Values)
	}
	if a.Absent {
		text += " absent"
	}
	if a.Unlinked {
		text += " unlinked"
	}
	return text
}
