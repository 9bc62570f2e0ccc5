package records

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// Outcome is how a route or a delivery ended.
type Outcome string

// The outcomes; Undecided is that of what has not ended.
const (
	Undecided Outcome = ""
	Dead      Outcome = "dead"
	Delivered Outcome = "delivered"
	Stale     Outcome = "stale"
	Unchanged Outcome = "unchanged"
	Skipped   Outcome = "skipped"
)

// Why deliveries are skipped: the class of those that ended so. It is a closed set, and a metric label.
const (
	SkipGone     = "gone"           // somebody has deleted the record in the CRM
	SkipArchived = "archived"       // an event has archived it
	SkipThere    = "there_already"  // it is there, and the mapping only makes such records
	SkipNotThere = "not_there"      // it is not there, and the mapping only changes such records
	SkipRefused  = "refused_before" // the CRM has refused the same value of an earlier event
	SkipKept     = "kept"           // the CRM keeps a value of its own in place of it
	SkipExpected = "expected"       // a refusal that on_reject expects
)

// Skips lists why deliveries are skipped.
func Skips() []string {
	return []string{SkipGone, SkipArchived, SkipThere, SkipNotThere, SkipRefused, SkipKept, SkipExpected}
}

// Cause is the event behind deliveries, with the run of its route.
type Cause struct {
	Event      uuid.UUID
	Run        int32
	Version    Version
	Source     string
	Type       string
	OccurredAt time.Time // zero where the sender gave none
	ReceivedAt time.Time
	Rewrite    bool // also send what the CRM has acknowledged
}

// Delivery is one change on its way to its record.
type Delivery struct {
	Cause  *Cause
	Change *mappers.Change
	Key    Key
	Repeat bool // an earlier attempt of this run has left its row
	Stub   bool // no event's own: it makes a record for others to link to

	Progress

	tally  Tally
	served bool     // a request of this batch has served it
	sent   bool     // one has brought a value of its own
	refuse *verdict // of a part of what it wants; it ends so when the rest has arrived
	notes  []string // what a person is to know of how it arrived
	probe  bool     // no event's: the record is only looked up
}

// verdict is an end that is already known while other parts of a delivery are on their way.
type verdict struct {
	outcome Outcome
	class   string
	reason  string
	status  int32
}

// state is where a delivery without an outcome stands.
type state uint8

const (
	ready   state = iota // it wants a step
	waiting              // it is to be tried again later, uncounted
	failing              // it is to be tried again later, counted
	blocked              // it waits for another record of the batch
)

// Progress is how far a delivery has come. Four methods change it: Finish, Fail, Wait and
// Block; nothing else writes its fields, but for what the ledger knows of earlier attempts.
type Progress struct {
	Outcome       Outcome
	Class         string // of the last answer; of a skipped delivery one of Skips
	Reason        string
	Status        int32 // of the last answer; 0 where none came
	CRMID         string
	Attempts      int32
	FirstFailedAt time.Time // zero: nothing has failed that counts

	state state
	retry time.Duration
	dirty bool
}

// Open reports whether the delivery has not ended.
func (p *Progress) Open() bool { return p.Outcome == Undecided }

// Ready reports whether the delivery may cause a step in this batch.
func (p *Progress) Ready() bool { return p.Open() && p.state == ready }

// Failing reports whether the delivery is open because of a failure that counts.
func (p *Progress) Failing() bool { return p.Open() && p.state == failing }

// Retry is how long an open delivery has to wait.
func (p *Progress) Retry() time.Duration { return p.retry }

// Dirty reports whether this batch has changed the progress, so that it has to be stored.
func (p *Progress) Dirty() bool { return p.dirty }

// Finish ends the delivery.
func (p *Progress) Finish(outcome Outcome, class, reason string) {
	p.Outcome, p.Class, p.Reason, p.dirty = outcome, class, reason, true
}

// Wait leaves the delivery to be tried again after a while, uncounted.
func (p *Progress) Wait(class, reason string, after time.Duration) {
	p.state, p.retry = waiting, after
	p.Class, p.Reason, p.dirty = class, reason, true
}

// Fail counts a failed attempt. The delivery is tried again by the queue's policy, or is dead
// once it has failed for as long as giveUp.
func (p *Progress) Fail(class, reason string, now time.Time, giveUp time.Duration) {
	p.Attempts++
	if p.FirstFailedAt.IsZero() {
		p.FirstFailedAt = now
	}
	if now.Sub(p.FirstFailedAt) >= giveUp {
		p.Finish(Dead, class, fmt.Sprintf("gave up after %d attempts: %s", p.Attempts, reason))
		return
	}
	p.state = failing
	p.Class, p.Reason, p.dirty = class, reason, true
}

// Block has the delivery wait for another record of the batch. It waits for it in the next
// batch if that record gets nowhere in this one.
func (p *Progress) Block(reason string) {
	p.state, p.retry = blocked, time.Second
	p.Class, p.Reason, p.dirty = "link", reason, true
}

// note keeps what a person is to know of how the delivery arrived.
func (d *Delivery) note(text string) {
	if !slices.Contains(d.notes, text) {
		d.notes = append(d.notes, text)
	}
}

// arrive ends a delivery of which nothing is left to be sent: with the verdict on a part of it,
// or as delivered.
func (d *Delivery) arrive() {
	d.dirty = true
	if v := d.refuse; v != nil {
		reason := v.reason
		if d.served {
			reason += ": the rest was sent without it"
		}
		d.Status = v.status
		d.Finish(v.outcome, v.class, reason)
		return
	}
	d.Finish(Delivered, "ok", strings.Join(d.notes, "; "))
}

// wish is what the change says of a link that it has the say about. One that an `only` takes back
// has none.
func (d *Delivery) wish(l *Link) (mappers.Link, bool) {
	for _, w := range d.Change.Links {
		if l.Version == d.Cause.Version && w.To == l.To && w.As == l.As && w.Key.Property == l.Property && w.Key.Value == l.Key {
			return w, true
		}
	}
	return mappers.Link{}, false
}

// moot reports whether the delivery has no say, since its mode only makes records and this one
// is there: not by an earlier attempt of its own.
func (d *Delivery) moot(r *Record) bool {
	if d.Change.Mode != mappers.CreateOnly && d.Change.Mode != mappers.Append || !r.there() {
		return false
	}
	for _, f := range r.Fields {
		if f.Version == d.Cause.Version {
			return false
		}
	}
	for _, l := range r.Links {
		if l.Version == d.Cause.Version {
			return false
		}
	}
	return true
}

// wants reports whether the change says anything of a field.
func (d *Delivery) wants(name string) bool {
	return slices.ContainsFunc(d.Change.Fields, func(f mappers.Field) bool { return f.Name == name && f.Rule != mappers.Touch })
}

// requires reports whether the delivery wants the record made with the link, or not at all. Where
// a newer event has the say about the link, that decides whether it is required.
func (d *Delivery) requires(l *Link) bool {
	wish, _ := d.wish(l)
	return wish.Required
}

// recreates reports whether the delivery makes its record again should it be gone.
func (d *Delivery) recreates(r *Record) bool {
	return d.Change.Recreate && (r.GoneAt.IsZero() || d.Cause.Version.Compare(r.GoneAt) > 0)
}

// unsaid stands for the event in a refusal that is ours and not the CRM's: the mode of the
// delivery has no say there. The same value of another event has one.
var unsaid = uuid.Max

// Unsaid reports whether it is we who keep the wanted value from the CRM: it is for new records, and
// this one was there.
func (f *Field) Unsaid() bool { return f.Refused == unsaid }

// refuseAll keeps what the delivery wants from ever being sent.
func (d *Delivery) refuseAll(r *Record) {
	for name, f := range r.Fields {
		if f.Version == d.Cause.Version && f.Mapping == d.Change.Mapping {
			f.Refused = unsaid
			if f.Rule == string(mappers.SetOnCreate) && r.CRMID == "" { // it may be made yet, for an event that has a say
				delete(r.Fields, name)
			}
		}
	}
	for _, l := range r.Links {
		if l.Version == d.Cause.Version && l.Mapping == d.Change.Mapping && l.Need() != Nothing {
			l.Verdict, l.Refusal = Refused, unsaid
		}
	}
}
