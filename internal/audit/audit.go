package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// Kind is what differs.
type Kind string

// The kinds.
const (
	Edited  Kind = "edited"  // a field has another value
	Key     Kind = "key"     // the property that holds our key has another value, or none
	Linked  Kind = "link"    // a link leads elsewhere, or nowhere
	Merged  Kind = "merged"  // the id, or our key, leads to another record
	Several Kind = "several" // several records have our key
	Gone    Kind = "gone"    // there is no such record any more
)

// Kinds lists the kinds in the order in which they are told.
func Kinds() []Kind { return []Kind{Edited, Key, Linked, Merged, Several, Gone} }

// Difference is one difference between what we want and what the CRM has.
type Difference struct {
	Object   string
	Kind     Kind
	Property string // of our key
	Key      string
	ID       string // the CRM's
	URL      string // where people see the record; "" where that is not known
	Field    string // of Edited and Key the property, of Linked the object at the other end
	Ours     any
	Theirs   any

	Record  uuid.UUID
	Version records.Version // of the value that is wanted
	Mapping string

	// Resend are the fields that a repair sends again, with their versions: the one that was edited; of a
	// record that is gone, those of its newest event. Empty: no repair mends it.
	Resend map[string]records.Version
}

// Position is behind which record an audit goes on: of which object, and with which id in the CRM.
type Position struct{ Object, ID string }

// String is what ParsePosition reads.
func (p Position) String() string {
	if p.Object == "" {
		return ""
	}
	return p.Object + "/" + p.ID
}

// ParsePosition reads a position.
func ParsePosition(text string) (Position, error) {
	object, id, ok := strings.Cut(text, "/")
	if !ok || object == "" {
		return Position{}, fmt.Errorf("%q is no place to go on from: it is written object/id, such as deals/4711", text)
	}
	return Position{object, id}, nil
}

// Ledger is what an audit asks of the ledger.
type Ledger interface {
	KnownObjects(ctx context.Context, sink string, after map[string]string) ([]ledger.KnownObject, error)
	KnownRecords(ctx context.Context, sink, object, crmID string, id uuid.UUID, limit int) ([]ledger.KnownRecord, error)
	KnownAgain(ctx context.Context, sink string, ids []uuid.UUID) ([]ledger.KnownRecord, error)
	Moving(ctx context.Context, sink string, list []ledger.KnownRecord) (map[uuid.UUID]bool, error)
	Records(ctx context.Context, sink string, keys []ledger.RecordKey) (map[ledger.RecordKey]*ledger.Record, error)
	SinkState(ctx context.Context, sink string) (ledger.SinkState, error)
}

// Options are what to audit, and whom to tell.
type Options struct {
	Ledger   Ledger
	Sink     *sinks.Sink
	Mappings *mappers.Mapper
	Object   string   // "": all
	After    Position // zero: from the beginning
	Page     int      // how many records are in memory at a time; 0: 1,000

	// Tell is called after each page with what was found on it. An error ends the audit before the page: what is on it
	// is told again when the audit goes on.
	Tell func(found []Difference) error
	// Progress is told how many records have been looked at, of how many. It may be nil.
	Progress func(done, total int64)
}

// Report is what an audit has come to, beside the differences.
type Report struct {
	Records  int64                      `json:"records"` // that were compared with the CRM
	Fields   int64                      `json:"fields"`  // likewise
	Skipped  map[records.Standing]int64 `json:"skipped"` // fields that were not, by why
	Unmapped int64                      `json:"unmapped"`
	Moving   int64                      `json:"moving"`  // records that were being written all the time
	Hidden   map[string]int64           `json:"hidden"`  // values that the CRM does not show, by object.field
	Unread   map[string]int64           `json:"unread"`  // records that the CRM does not let us read, by why
	Notes    []string                   `json:"notes"`   // what is not looked for
	After    Position                   `json:"-"`       // behind the last page
	Stopped  string                     `json:"stopped"` // why the audit has ended before its end; "" where it has not
}

// Stopped is the error of an audit that ends before its end because the CRM is to be left alone.
type Stopped struct{ Why string }

func (s *Stopped) Error() string { return s.Why }

// auditing is an audit under way.
type auditing struct {
	Options
	report *Report
	values map[place]*value // the properties that mappings of today write
	keys   map[place]bool   // those that hold our keys; true: a record may keep another key that it has
	hidden map[place]bool   // those that the CRM does not let us read

	unshown map[string]bool // links that no field shows, as "deals to contacts"
	done    int64
	total   int64
}

type place struct{ object, property string }

// value is how a property is written today.
type value struct {
	modes map[string]mappers.Mode // by mapping
}

// Run audits. The report is there also with an error; that is a *Stopped where the audit has
// ended for the sake of the CRM, and the context's where somebody has ended it.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Page == 0 {
		o.Page = 1000
	}
	a := &auditing{
		Options: o, values: map[place]*value{}, keys: map[place]bool{}, hidden: map[place]bool{}, unshown: map[string]bool{},
		report: &Report{Skipped: map[records.Standing]int64{}, Hidden: map[string]int64{}, Unread: map[string]int64{}, Notes: []string{}, After: o.After},
	}
	a.learn()
	err := a.run(ctx)
	a.noteLinks()
	if err != nil {
		a.report.Stopped = err.Error()
		if ctx.Err() != nil {
			err, a.report.Stopped = ctx.Err(), "interrupted"
		}
	}
	return a.report, err
}

// learn reads from the mappings what they write, and where our keys are.
func (a *auditing) learn() {
	for _, u := range a.Mappings.Uses(a.Sink.Name()) {
		at := place{u.Object, u.Property}
		switch u.Purpose {
		case mappers.ForKey:
			a.keys[at] = false
		case mappers.ForValue:
			if a.values[at] == nil {
				a.values[at] = &value{modes: map[string]mappers.Mode{}}
			}
			a.values[at].modes[u.Mapping] = u.Mode
		}
	}
	for _, m := range a.Mappings.Mappings() {
		if m.Sink == a.Sink.Name() && m.Key != "" && m.Taken == mappers.TakenKeep {
			a.keys[place{m.Object, m.Key}] = true
		}
	}
}

func (a *auditing) run(ctx context.Context) error {
	after := map[string]string{}
	if a.After.Object != "" {
		after[a.After.Object] = a.After.ID
	}
	objects, err := a.Ledger.KnownObjects(ctx, a.Sink.Name(), after)
	if err != nil {
		return err
	}
	objects = slices.DeleteFunc(objects, func(o ledger.KnownObject) bool {
		return a.Object != "" && o.Object != a.Object || o.Object < a.After.Object
	})
	a.notes(objects)
	objects = slices.DeleteFunc(objects, func(o ledger.KnownObject) bool {
		return a.Sink.Description().CannotRead(o.Object) != ""
	})
	for _, o := range objects {
		a.total += o.Records
	}
	a.progress(0)
	for _, o := range objects {
		if err := a.object(ctx, o.Object); err != nil {
			return err
		}
	}
	return nil
}

// notes tells what is not looked for.
func (a *auditing) notes(objects []ledger.KnownObject) {
	note := func(format string, args ...any) {
		a.report.Notes = append(a.report.Notes, fmt.Sprintf(format, args...))
	}
	if a.Sink.UniqueKeys() {
		note("two records for one key are not looked for: the CRM sees to it that a key is unique")
	}
	for _, o := range objects {
		if why := a.Sink.Description().CannotRead(o.Object); why != "" {
			note("%s are not compared: %s", o.Object, why)
		}
	}
}

// noteLinks tells which links no field shows, once it is known which there are.
func (a *auditing) noteLinks() {
	if len(a.unshown) > 0 {
		a.report.Notes = append(a.report.Notes, "links are not compared where no field of the record shows them: "+
			strings.Join(slices.Sorted(maps.Keys(a.unshown)), ", "))
	}
}

func (a *auditing) progress(n int) {
	a.done += int64(n)
	if a.Progress != nil {
		a.Progress(a.done, max(a.done, a.total))
	}
}

// object audits the records of an object, page by page.
func (a *auditing) object(ctx context.Context, object string) error {
	crmID, id := "", uuid.Nil
	if object == a.After.Object {
		crmID, id = a.After.ID, uuid.Max
	}
	for {
		if err := a.allowed(ctx); err != nil {
			return err
		}
		list, err := a.Ledger.KnownRecords(ctx, a.Sink.Name(), object, crmID, id, a.Page)
		if err != nil || len(list) == 0 {
			return err
		}
		last := list[len(list)-1]
		crmID, id = last.CRMID, last.ID
		was := *a.report
		found, err := a.page(ctx, list)
		if err == nil {
			err = a.Tell(found)
		}
		if err != nil {
			a.report.Records, a.report.Fields, a.report.Moving = was.Records, was.Fields, was.Moving
			return err
		}
		a.report.After = Position{object, crmID}
		a.progress(len(list))
	}
}

// How long an audit waits for a CRM at most, before it stops, and how often it asks again.
const (
	longest = time.Minute
	tries   = 5
)

// allowed asks what the worker has found: it stops where the CRM wants to be left alone for long. One that a
// person has stopped may still be read.
func (a *auditing) allowed(ctx context.Context) error {
	for {
		s, err := a.Ledger.SinkState(ctx, a.Sink.Name())
		if err != nil {
			return err
		}
		left := time.Until(s.Until)
		switch {
		case s.State == "ready" || s.State == "stopped" || s.State == "throttled" && left <= 0:
			return nil
		case s.State != "throttled" || left > longest:
			return &Stopped{fmt.Sprintf("sink %s is %s: %s", a.Sink.Name(), s.State, s.Reason)}
		}
		if err := sleep(ctx, min(left, time.Second)); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// page compares records with what the CRM has. What has been written meanwhile is compared again.
func (a *auditing) page(ctx context.Context, list []ledger.KnownRecord) ([]Difference, error) {
	var all []Difference
	for try := 0; ; try++ {
		seen, err := a.look(ctx, list)
		if err != nil {
			return nil, err
		}
		var suspects []ledger.KnownRecord
		for _, s := range seen {
			if len(s.found) > 0 {
				suspects = append(suspects, s.record)
			}
		}
		moving, err := a.Ledger.Moving(ctx, a.Sink.Name(), suspects)
		if err != nil {
			return nil, err
		}
		var again []uuid.UUID
		for _, s := range seen {
			if moving[s.record.ID] {
				again = append(again, s.record.ID)
				continue
			}
			s.count(a.report)
			all = append(all, s.found...)
		}
		if len(again) == 0 {
			return all, nil
		}
		if try == tries {
			a.report.Moving += int64(len(again))
			return all, nil
		}
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
		if list, err = a.Ledger.KnownAgain(ctx, a.Sink.Name(), again); err != nil {
			return nil, err
		}
	}
}

// seen is what came of looking at a record.
type seen struct {
	record   ledger.KnownRecord
	found    []Difference
	compared bool
	fields   int64
	skipped  map[records.Standing]int64
	unmapped int64
	hidden   []string
	unread   string
}

func (s *seen) count(r *Report) {
	if s.compared {
		r.Records++
	}
	r.Fields += s.fields
	r.Unmapped += s.unmapped
	for why, n := range s.skipped {
		r.Skipped[why] += n
	}
	for _, name := range s.hidden {
		r.Hidden[name]++
	}
	if s.unread != "" {
		if _, known := r.Unread[s.unread]; !known && len(r.Unread) >= mostReasons {
			s.unread = "further reasons"
		}
		r.Unread[s.unread]++
	}
}

// mostReasons bounds what is kept of why records could not be read: a CRM may name the record in each.
const mostReasons = 50

// Interrupted reports whether an audit has ended before its end, with more to be looked at.
func Interrupted(err error) bool {
	var stopped *Stopped
	return errors.As(err, &stopped) || errors.Is(err, context.Canceled)
}
