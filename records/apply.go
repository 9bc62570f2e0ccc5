package records

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"partnersync/mappers"
)

// Kind is what an answer means for its step.
type Kind uint8

// The kinds.
const (
	Taken    Kind = iota // carried out; of a Find: looked up
	Denied               // refused, for what the request says
	Conflict             // another record of the CRM is in the way
	Busy                 // not now: the target as a whole takes nothing
	Failed               // no answer that decides anything
)

// Answer is what became of a step.
type Answer struct {
	Kind     Kind
	Class    string
	Status   int
	Reason   string         // in one line, for people
	ID       string         // the CRM's id of the record, "" where it does not say
	Existing string         // with Conflict: the id of the record in the way, if it names one
	Created  bool           // the request made the record
	Code     string         // the CRM's code for the refusal
	Fields   []string       // the refused fields, if named
	Dropped  []string       // optional fields that were left out in the end
	Kept     map[string]any // fields for which the CRM shows another value than was sent, with that one
	Absent   bool           // with Denied: the record that the step names is not in the CRM; of a link, one of its ends
	Unlinked bool           // the links of the row were not made
	Lost     bool           // the request may have taken effect
	Counts   bool           // with Failed: it is a failure that counts
	Short    bool           // with Busy: it is over so soon that waiting here pays
	Wait     time.Duration
	Hits     []Hit // of Search: the records that fit, oldest first; of Find and Read the one
	More     bool  // there are more than Hits holds
}

// Hit is a record that the CRM shows.
type Hit struct {
	ID     string
	Values map[string]any
	URL    string // where people see it; "" where that is not known
}

// Effect is what the loop has to do after an answer, besides planning anew.
type Effect struct {
	Pause   time.Duration // before the next round
	Suspect *Link         // its other end may be gone: it has to be looked up
}

// Apply is the only place where an answer becomes an outcome.
func (w *Work) Apply(s *Step, a Answer, env *Env) Effect {
	if s.Tie != nil {
		return w.applyLink(s, a, env)
	}
	if a.Lost && !s.Reads() {
		w.lost(s, env)
	}
	if a.Kind == Busy {
		if a.Short && w.once(paused) {
			return Effect{Pause: a.Wait}
		}
		for _, d := range w.ready() {
			d.Status = int32(a.Status)
			d.Wait(a.Class, a.Reason, max(a.Wait, time.Second))
		}
		w.unseen, w.seeking = w.seeking == suspect || w.seeking == target, nothing
		return Effect{}
	}
	if a.Kind == Failed {
		w.failed(s, a, env)
		w.unseen, w.seeking = w.seeking == suspect || w.seeking == target, nothing
		return Effect{}
	}
	switch {
	case s.Do == Find && w.seeking == byKey:
		w.foundByKey(s, a)
		return Effect{}
	case s.Do == Find && w.seeking != target:
		w.found(s, a)
		return Effect{}
	case w.seeking == target:
		w.foundTarget(s, a)
		return Effect{}
	case s.Do == Search:
		w.matched(s, a, env)
		return Effect{}
	case s.Do == Read && a.Kind == Taken:
		w.shown(s, a)
		return Effect{}
	}
	switch a.Kind {
	case Taken:
		w.taken(s, a)
	case Conflict:
		w.conflict(s, a, env)
	default:
		w.denied(s, a, env)
	}
	return Effect{}
}

// taken notes what the CRM has taken.
func (w *Work) taken(s *Step, a Answer) {
	r := w.Record
	if by := w.recreator(); s.Do != Archive && r.CRMID != "" && a.ID != "" && a.ID != r.CRMID && by != nil {
		// The CRM has put another record in the place of the one it had.
		r.resend(by.Cause.Version)
		w.resending = true
	}
	w.acknowledge(s, a)
	if !a.Unlinked {
		for _, t := range s.Carried {
			w.made(t)
		}
	}
	if a.ID != "" {
		r.CRMID = a.ID
	}
	r.Presence, w.confirmed, w.vacant = Present, true, false
	w.created = w.created || a.Created
	if len(w.split) > 0 {
		w.split = w.split[1:]
	}
	for _, d := range s.Serves {
		if !d.Ready() {
			continue
		}
		d.Status, d.CRMID, d.served = int32(a.Status), r.CRMID, true
		for _, v := range s.Sent {
			d.sent = d.sent || v.Version == d.Cause.Version
		}
		if len(a.Dropped) > 0 {
			d.note("left out, since the CRM refuses it: " + strings.Join(a.Dropped, ", "))
		}
		if s.Do == Archive {
			r.archivedBy(d.Cause.Version)
			w.archived = true
			d.Finish(Delivered, "ok", "")
		}
	}
	if w.archived {
		r.Presence = Gone
	}
}

// made notes that the CRM has made a link. Where the record turned out to be another meanwhile,
// that may not be wanted any more, and may have taken the place of one that is.
func (w *Work) made(t Tie) {
	l := w.Record.Links[LinkName(t.Link.To, t.Link.As, t.Link.Property, t.Link.Key)]
	if l == nil {
		return
	}
	l.Have = Exists
	for _, o := range w.Record.Links {
		if l.Want == Unlinked && o != l && o.As == l.As && o.Have == Exists {
			o.Have = InDoubt
		}
	}
}

// acknowledge notes the fields that the CRM has taken, and those that it has left out.
func (w *Work) acknowledge(s *Step, a Answer) {
	for _, name := range a.Dropped {
		if v, ok := s.Sent[name]; ok {
			w.spend(name, v.Version)
			delete(s.Sent, name)
		}
	}
	w.Record.acknowledge(s.Sent, a.Kept)
	for name, list := range s.Adds {
		if f := w.Record.Fields[name]; f != nil && !slices.Contains(a.Dropped, name) {
			f.Added = list
		}
	}
}

// removals is how many fields are left out by name before the row counts as refused whole.
const removals = 5

// denied deals with a refusal. Where it names fields, the row is sent again without them.
// Where it names none and several events want the row, each is tried alone: one bad value
// must not take the others with it.
func (w *Work) denied(s *Step, a Answer, env *Env) {
	if a.Absent {
		w.absent(s, a, env)
		return
	}
	if a.Unlinked && slices.ContainsFunc(s.Carried, guessed) {
		for _, t := range s.Carried {
			if guessed(t) && !w.without(t.Link, a.Reason, env) {
				return
			}
		}
		return
	}
	if s.Do == Write && (s.Mode == mappers.Upsert || s.Mode == mappers.UpdateOnly) && w.leaveOut(s, a) {
		return
	}
	if w.apart(s) {
		return
	}
	for _, d := range s.Serves {
		if !d.Ready() {
			continue
		}
		d.Status, d.CRMID = int32(a.Status), w.Record.CRMID
		d.Attempts++
		reason := a.Reason
		if d.refuse != nil {
			reason = d.refuse.reason + ": sent without it: " + reason
		}
		outcome, class := d.refusal(a)
		d.Finish(outcome, class, reason)
	}
}

// apart takes a row apart that the CRM does not take as a whole. It reports whether its parts are
// to be sent: not where the row is a part already.
func (w *Work) apart(s *Step) bool {
	if s.Do == Write && len(w.split) == 0 {
		if parts := w.parts(); len(parts) > 1 {
			w.split, w.alone = parts, true
			return true
		}
	}
	if len(w.split) > 0 {
		w.split = w.split[1:]
	}
	w.alone = true
	return false
}

// guessed reports whether a row needs a link to a record that only the CRM may know.
func guessed(t Tie) bool { return t.Required && t.ID == "" }

// refusal is how a delivery ends that the CRM refuses, and the class of it.
func (d *Delivery) refusal(a Answer) (Outcome, string) {
	if d.Change.OnReject[a.Code] == "skip" {
		return Skipped, SkipExpected
	}
	return Dead, a.Class
}

// leaveOut marks the fields that a refusal names, so that the next row lacks them. It reports
// whether that helps: not where the refusal names none that the row has.
func (w *Work) leaveOut(s *Step, a Answer) bool {
	r := w.Record
	out := map[string]Version{} // fields that are left out from now on, with the version that is refused
	for _, name := range a.Fields {
		v, versioned := s.Sent[name]
		_, has := s.Values[name]
		if !has || name == s.Last.Change.Key.Property && !versioned || len(w.spent) >= removals {
			continue
		}
		out[name] = v.Version
	}
	for name, v := range out {
		if v.IsZero() {
			if w.untouched == nil {
				w.untouched = map[string]bool{}
			}
			w.untouched[name] = true
			continue
		}
		w.spend(name, v)
		if len(w.split) > 0 {
			delete(w.split[0].sent, name)
		}
	}
	for _, d := range w.writers() {
		wants := slices.ContainsFunc(d.Change.Fields, func(f mappers.Field) bool {
			v, refused := out[f.Name]
			return refused && f.Rule != mappers.Touch && v == d.Cause.Version
		})
		if !wants {
			continue
		}
		d.Status, d.CRMID = int32(a.Status), r.CRMID
		d.Attempts++
		outcome, class := d.refusal(a)
		if outcome == Skipped { // a refusal that is expected settles the whole delivery
			d.Finish(outcome, class, a.Reason)
			continue
		}
		if d.refuse == nil {
			d.refuse = &verdict{outcome, class, a.Reason, int32(a.Status)}
		} else {
			d.refuse.reason += ": " + a.Reason
		}
	}
	return len(out) > 0
}

// spend notes that the CRM has refused the value of a field that the event of a version wants:
// it is not sent again.
func (w *Work) spend(name string, v Version) {
	if w.spent == nil {
		w.spent = map[string]map[Version]bool{}
	}
	if w.spent[name] == nil {
		w.spent[name] = map[Version]bool{}
	}
	w.spent[name][v] = true
	if f := w.Record.Fields[name]; f.Version == v {
		f.Refused = v.Event
	}
}

// conflict deals with a row that another record of the CRM is in the way of. That is adopted,
// if ours is not known to be one of its own.
func (w *Work) conflict(s *Step, a Answer, env *Env) {
	r := w.Record
	switch {
	case s.Mode == mappers.Append && a.Existing == "", // it would be in the way for ever
		r.CRMID != "" && a.Existing != "" && a.Existing != r.CRMID, // two records there, and we are not to make them one
		len(a.Fields) > 0 && a.Existing == "" && w.tried[adopted]:  // it was tried again, and is in the way by the same field
		w.denied(s, a, env)
		return
	case !w.once(adopted):
		if w.apart(s) {
			return
		}
		for _, d := range s.Serves { // it counts: what is in the way may stay there
			if d.Ready() {
				d.Status = int32(a.Status)
				d.Fail(a.Class, a.Reason, env.Now, env.GiveUp)
			}
		}
		return
	}
	if r.CRMID == "" {
		w.theirs()
	}
	w.contest = w.vacant && a.Existing == ""
	w.adopt(s, a, a.Existing)
}

// adopt takes a record of the CRM that was there before for ours.
func (w *Work) adopt(s *Step, a Answer, id string) {
	r := w.Record
	for _, d := range s.Serves {
		if d.Ready() && d.Change.Mode == mappers.CreateOnly {
			d.Status = int32(a.Status)
			d.refuseAll(r)
			d.Finish(Skipped, SkipThere, "the record is there already")
		}
	}
	w.vacant = false
	if id != "" {
		r.CRMID = id
	}
	if len(w.ready()) == 0 && r.CRMID != "" { // else who wants it next has to find out its id
		r.Presence = Present
	}
}

// absent deals with a record that is not in the CRM: merged there into another, gone where it
// has been, not there yet under update_only.
func (w *Work) absent(s *Step, a Answer, env *Env) {
	r := w.Record
	if r.CRMID != "" && s.Do != Archive {
		if env.Can.Finds(s.Last.Change.Key) && w.once(followed) {
			w.seeking = survivor
			return
		}
		if by := w.recreator(); by != nil && w.once(remade) {
			r.remake(by.Cause.Version)
			return
		}
	}
	if len(w.split) > 0 {
		w.split = w.split[1:]
	}
	gone := r.CRMID != ""
	if gone {
		r.Presence = Gone
	}
	for _, d := range s.Serves {
		if !d.Ready() {
			continue
		}
		d.Status, d.CRMID = int32(a.Status), r.CRMID
		switch {
		case d.Change.Mode == mappers.Archive:
			r.archivedBy(d.Cause.Version)
			d.Finish(Unchanged, "", "archived already")
		case gone:
			d.Finish(Skipped, SkipGone, "the record is gone from the CRM")
		case d.Change.Absent == "dead":
			d.Finish(Dead, a.Class, "the record is not in the CRM")
		case d.Change.Absent == "skip":
			d.refuseAll(r)
			d.Finish(Skipped, SkipNotThere, "the record is not in the CRM")
		default:
			d.Finish(Skipped, SkipNotThere, "the record is not in the CRM yet; what is wanted is kept for it")
		}
	}
}

// found deals with what a search has shown.
func (w *Work) found(s *Step, a Answer) {
	r, why := w.Record, w.seeking
	w.seeking = nothing
	there := a.Kind == Taken && a.ID != ""
	switch why {
	case toArchive:
		if !there {
			w.nothingToArchive()
			return
		}
		r.CRMID, r.Presence = a.ID, Present
	case survivor:
		if there && a.ID != r.CRMID {
			w.theirs() // it may be another record that people gave our key
			if by := w.recreator(); by != nil {
				r.resend(by.Cause.Version)
			}
			r.CRMID = a.ID
			return
		}
		if by := w.recreator(); by != nil && w.once(remade) {
			r.remake(by.Cause.Version)
			return
		}
		r.Presence = Gone
	case suspect:
		w.confirmed = true
		if there {
			r.CRMID, r.Presence = a.ID, Present
			return
		}
		r.Presence = Gone
	}
}

// Suspect has the record looked up, since a link to it was refused. It reports whether that
// can tell anything: not once the CRM has answered for it in this batch.
func (w *Work) Suspect(can Capabilities) bool {
	if w.confirmed {
		return false
	}
	if !can.Finds(w.Deliveries[0].Change.Key) {
		w.Record.Presence, w.confirmed = Gone, true
		return true
	}
	w.seeking = suspect
	return true
}

// failed leaves the deliveries open for another attempt, or ends them when their time is up.
func (w *Work) failed(s *Step, a Answer, env *Env) {
	for _, d := range w.ready() {
		switch {
		case !slices.Contains(s.Serves, d):
			d.Wait(a.Class, a.Reason, max(a.Wait, time.Second))
		case a.Lost && s.unrepeatable(env.Can):
			// Nothing in the CRM tells whether it was made; a second one would be worse.
			d.Status = int32(a.Status)
			what := "no answer to the create"
			if a.Status != 0 {
				what = "the CRM may have made the record"
			}
			d.Finish(Dead, a.Class, a.Reason+": "+what+": "+lookReason)
		case !a.Counts:
			d.Status = int32(a.Status)
			d.Wait(a.Class, a.Reason, max(a.Wait, time.Second))
		default:
			d.Status = int32(a.Status)
			d.Fail(a.Class, a.Reason, env.Now, env.GiveUp)
		}
	}
}

// lost notes that a request may have taken effect, though its answer does not say so.
func (w *Work) lost(s *Step, env *Env) {
	w.Record.doubt(s.Sent)
	if s.Do == Archive {
		w.Record.doubtAll()
		w.Record.goneBy(s.Serves)
	}
	for _, t := range s.Carried {
		t.Link.Have = max(t.Link.Have, InDoubt)
	}
	w.hold(env, true)
	if s.unrepeatable(env.Can) {
		w.Record.Presence = Unsure
	}
}

// hold shuts the record for as long as a request without an answer may still take effect.
func (w *Work) hold(env *Env, row bool) {
	shut := env.Can.Settle()
	if row && w.Record.CRMID == "" {
		shut += env.Can.FindLag() // who looks for what it may have made must be able to see it
	}
	w.Hold = max(w.Hold, shut, 1)
}

// applyLink deals with the answer to a link.
func (w *Work) applyLink(s *Step, a Answer, env *Env) Effect {
	l := s.Tie.Link
	var open []*Delivery
	for _, d := range s.Serves {
		if d.Open() {
			open = append(open, d)
			d.Status = int32(a.Status)
		}
	}
	if len(open) == 0 { // of events that are not in the batch
		open = w.ready()
	}
	switch {
	case a.Kind == Taken:
		if s.Do == Unlink {
			l.Have = Absent
		} else {
			w.made(*s.Tie)
		}
		for _, f := range s.Tie.Former {
			f.Have = Absent
		}
		w.confirmed = true
		for _, d := range open {
			d.served = true
		}
	case a.Kind == Denied && a.Absent && s.Do == Unlink:
		l.Have = Absent
		for _, d := range open {
			d.served = true
		}
	case a.Kind == Denied && a.Absent && !w.checked[l]:
		if w.checked == nil {
			w.checked = map[*Link]bool{}
		}
		w.checked[l] = true
		return Effect{Suspect: l}
	case a.Kind == Denied && a.Absent && w.once(checkedSelf) && w.Suspect(env.Can):
	case a.Kind == Denied || a.Kind == Conflict:
		l.Verdict = Refused
		for _, d := range open {
			l.Refusal = d.Cause.Event
			why := fmt.Sprintf("link to %s: %s", l.To, a.Reason)
			if _, wanted := d.wish(l); !wanted && s.Do == Linking { // of another event, which has had its verdict
				d.served = true
				d.note(why)
				continue
			}
			d.Attempts++
			outcome, class := d.refusal(a)
			d.refuse = &verdict{outcome, class, why, int32(a.Status)}
		}
	case a.Kind == Busy:
		for _, d := range open {
			d.Wait(a.Class, a.Reason, max(a.Wait, time.Second))
		}
	default:
		if a.Lost {
			l.Have = max(l.Have, InDoubt)
			w.hold(env, false)
		}
		for _, d := range open {
			if !d.Ready() {
				continue
			}
			if a.Counts {
				d.Fail(a.Class, fmt.Sprintf("link to %s: %s", l.To, a.Reason), env.Now, env.GiveUp)
			} else {
				d.Wait(a.Class, a.Reason, max(a.Wait, time.Second))
			}
		}
	}
	return Effect{}
}

// Learns returns the CRM's id that the answer gives to the record, where another record of
// ours may already have it; else "".
func (w *Work) Learns(s *Step, a Answer) string {
	id := ""
	switch {
	case s.Tie != nil || s.Do == Archive && a.Kind != Conflict:
	case s.Do == Search:
		if hit, _ := w.pick(s, a); hit != nil {
			id = hit.ID
		}
	case a.Kind == Taken && !s.Last.Change.Key.Local:
		id = a.ID
	case a.Kind == Conflict && w.Record.CRMID == "":
		id = a.Existing
	}
	if id == w.Record.CRMID {
		return ""
	}
	return id
}

// Becomes lays what is wanted of the record into another that it turned out to be: the answer
// has told the id of that. What is open comes again and is sent as one.
func (w *Work) Becomes(into *Record, s *Step, a Answer) {
	from := w.Record
	taken := a.Kind == Taken && s.Do == Write
	if taken {
		w.acknowledge(s, a)
		if !a.Unlinked {
			for _, t := range s.Carried {
				w.made(t)
			}
		}
	}
	if from.CRMID == "" && (s.Do == Search || a.Kind == Conflict) {
		w.theirs()
	}
	Merge(into, from)
	key := s.Last.Change.Key
	if key.Property != into.Property && !key.Local && into.Fields[key.Property] == nil {
		// It carries this key beside the other, in a property of its own.
		f := &Field{Wanted: NewValue(key.Value), Version: s.Last.Cause.Version, Mapping: s.Last.Change.Mapping, Rule: string(mappers.Set)}
		if taken {
			f.Acked, f.AckedAt = f.Wanted, f.Version
		}
		into.Fields[key.Property] = f
	}
	w.seeking = nothing
	w.PutOff("", "waiting: another key names the same CRM record; both will be sent as one", 50*time.Millisecond)
}

// Unresolved puts off a step whose answer names a record that could not be looked up: as if it
// had not been sent, since the answer will be the same once the CRM shows what it has made.
func (w *Work) Unresolved(s *Step, a Answer, wait time.Duration, env *Env) {
	w.Record.doubt(s.Sent)
	for _, t := range s.Carried {
		if a.Kind == Taken {
			t.Link.Have = max(t.Link.Have, InDoubt)
		}
	}
	if a.Created {
		w.Hold = max(w.Hold, env.Can.FindLag())
	}
	w.seeking = nothing
	w.PutOff("", "waiting: another key turned out to be the same CRM record, which is being written", wait)
}

// Rest ends a batch for the record: what is still blocked waits for the next one, and nothing
// stays ready without anything to come.
func (w *Work) Rest() {
	for _, d := range w.Deliveries {
		switch {
		case d.Open() && d.state == blocked:
			d.state, d.dirty = waiting, true
		case d.Ready():
			d.Wait("", "waiting for its turn", time.Second)
		}
	}
}

// Begin folds the deliveries of a batch into the desired state of the record. Stubs want
// nothing but the record.
func (w *Work) Begin() {
	for _, d := range w.Deliveries {
		if !d.Open() {
			continue
		}
		v := d.Cause.Version
		if d.Cause.Rewrite && !d.Repeat {
			Rewrite(w.Record, d.Change, v)
		}
		if d.Stub || d.moot(w.Record) {
			continue
		}
		d.tally = Fold(w.Record, d.Change, v)
		if d.Change.Recreate {
			w.Record.LiveAt = newer(w.Record.LiveAt, v)
		}
	}
}

// PutOff leaves what is ready to be tried again, uncounted.
func (w *Work) PutOff(class, reason string, wait time.Duration) {
	for _, d := range w.ready() {
		d.Wait(class, reason, wait)
	}
}

// End ends all that is open.
func (w *Work) End(outcome Outcome, reason string) {
	for _, d := range w.Deliveries {
		if d.Open() {
			d.Finish(outcome, "", reason)
		}
	}
}

// Take takes over the deliveries of a record that turned out to be this one.
func (w *Work) Take(o *Work) {
	w.Deliveries = append(w.Deliveries, o.Deliveries...)
	w.Hold = max(w.Hold, o.Hold)
	w.seen = nil // either may have changed it since, and what is wanted is another
}

// NewStub makes the record at the other end of a link, with nothing but its key, for a delivery to
// link to; where the link says how it may be found, it is looked for before.
func NewStub(by *Delivery, l *Link, k Key) *Delivery {
	var ways []mappers.Match
	for _, wish := range by.Change.Links {
		if wish.To == l.To && wish.Key.Property == l.Property && wish.Key.Value == l.Key {
			ways = wish.Match
		}
	}
	return &Delivery{
		Cause: by.Cause, Key: k, Stub: true,
		Change: &mappers.Change{
			Mapping: by.Change.Mapping, Object: k.Object, Mode: mappers.Upsert, Key: mappers.Key{Property: l.Property, Value: l.Key}, Match: ways, Recreate: true,
		},
	}
}

// Probe stands for a delivery where a record is looked up that no event of the batch is about.
func Probe(by *Delivery, l *Link, k Key) *Delivery {
	return &Delivery{
		Cause: by.Cause, Key: k, Progress: Progress{Outcome: Delivered}, probe: true,
		Change: &mappers.Change{Object: k.Object, Mode: mappers.Upsert, Key: mappers.Key{Property: l.Property, Value: l.Key}},
	}
}
