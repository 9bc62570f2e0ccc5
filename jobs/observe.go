package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// A sink that observes runs the same loop over the same records, so that it decides what a run that
// writes would. Only the requests differ: what would write is answered as the CRM would answer it,
// from what it shows. The records are kept under another name, as they would be; a record that
// would have been made has an id of ours.

// would is what a delivery would have done.
type would struct {
	does   string
	id     string
	fields []ledger.Overwriting
}

const (
	wouldCreate  = "create"
	wouldAdopt   = "adopt" // write one that is there, and that we did not know
	wouldUpdate  = "update"
	wouldArchive = "archive"
	wouldLink    = "link"
)

const imagined = "new:" // begins the id of a record that would have been made

func isImagined(id string) bool { return strings.HasPrefix(id, imagined) }

// observes reports whether the batch writes nothing.
func (b *batch) observes() bool { return !b.sink.Description().Writes() }

// carryOut sends the steps of a round, or finds out what would come of them.
func (b *batch) carryOut(ctx context.Context, steps []*records.Step) []sinks.Result {
	if !b.observes() {
		return b.send(ctx, steps)
	}
	results := make([]sinks.Result, len(steps))
	var asks []*records.Step
	var of []int
	for i, s := range steps {
		if ask := b.ask(s); ask != nil {
			asks, of = append(asks, ask), append(of, i)
		}
	}
	answers := make(map[int]sinks.Result, len(asks))
	for n, res := range b.send(ctx, asks) {
		res.Sent = false // nothing is written, so nothing can take effect later
		answers[of[n]] = res
	}
	for i, s := range steps {
		res, asked := answers[i]
		results[i] = b.pretend(ctx, s, res, asked)
	}
	return results
}

// ask is the request that shows what would come of a step; nil where none is needed.
func (b *batch) ask(s *records.Step) *records.Step {
	r := s.Work.Record
	if isImagined(r.CRMID) {
		return nil
	}
	if s.Reads() {
		return s
	}
	if s.Do != records.Write {
		return nil
	}
	ask := &records.Step{Work: s.Work, Mode: mappers.Upsert, Last: s.Last, Serves: s.Serves, Show: slices.Sorted(maps.Keys(s.Values))}
	switch key := s.Last.Change.Key; {
	case r.CRMID != "":
		if ask.Do = records.Read; b.sink.Description().CannotRead(r.Object) != "" {
			return nil
		}
	case s.Mode == mappers.Append, b.looked(s) && !b.env.Can.UniqueKeys(), !b.env.Can.Finds(key):
		return nil
	default:
		ask.Do = records.Find
	}
	return ask
}

// looked reports whether the CRM was asked for the record already, in the ways that its mapping gives. Our key may be that of
// another all the same: where keys are unique a request to make one would run into it.
func (b *batch) looked(s *records.Step) bool { return s.Makes || s.Work.Vacant() }

// pretend is the answer to a step, from what the CRM has shown.
func (b *batch) pretend(ctx context.Context, s *records.Step, shown sinks.Result, asked bool) sinks.Result {
	r := s.Work.Record
	switch {
	case s.Do == records.Search && shown.Class == sinks.OK && len(shown.Hits) == 0:
		return b.imagine(ctx, s, shown)
	case s.Reads() && asked:
		return shown
	case s.Do == records.Read: // what would have been made has what we would have written
		hit := sinks.Hit{ID: r.CRMID, Values: map[string]any{}}
		for _, name := range s.Show {
			if f := r.Fields[name]; f != nil && !f.AckedAt.IsZero() {
				hit.Values[name] = f.Acked.Go
			} else {
				hit.Values[name] = nil
			}
		}
		return sinks.Result{Class: sinks.OK, ID: r.CRMID, Hits: []sinks.Hit{hit}}
	case s.Reads():
		return sinks.Result{Class: sinks.OK, ID: r.CRMID}
	case s.Tie != nil:
		b.note(s, wouldLink, r.CRMID, nil)
		return sinks.Result{Class: sinks.OK}
	case s.Do == records.Archive:
		b.note(s, wouldArchive, r.CRMID, nil)
		return sinks.Result{Class: sinks.OK, ID: r.CRMID}
	case asked && shown.Class != sinks.OK && !shown.Absent:
		return shown
	case asked && shown.Absent && (r.CRMID != "" || s.Mode == mappers.UpdateOnly):
		return shown
	case asked && !shown.Absent && r.CRMID == "" && (s.Mode == mappers.CreateOnly || b.looked(s)):
		return sinks.Result{Class: sinks.Conflict, Existing: shown.ID, Message: "the record is there"}
	}
	does, id := wouldUpdate, r.CRMID
	switch {
	case asked && !shown.Absent:
		if id == "" {
			id = shown.ID
		} else if r.Presence == records.Unknown {
			does = wouldAdopt
		}
	case id == "":
		does, id = wouldCreate, imagined+uuid.NewString()
	case r.Presence == records.Unknown && !isImagined(id):
		does = wouldAdopt
	}
	b.note(s, does, id, b.overwritten(s, shown))
	return sinks.Result{Class: sinks.OK, ID: id, Created: does == wouldCreate}
}

// imagine finds a record that would have been made by now.
func (b *batch) imagine(ctx context.Context, s *records.Step, shown sinks.Result) sinks.Result {
	values := map[string]string{}
	for _, t := range s.Way {
		values[t.Property] = t.Value
	}
	id, err := b.owner.ledger.Imagined(ctx, b.owner.name, s.Work.Record.Object, values)
	if err != nil {
		return sinks.Result{Class: sinks.Network, Message: "the ledger cannot be read"}
	}
	if id != "" && id != s.Work.Record.CRMID {
		shown.Hits = []sinks.Hit{{ID: id, Values: map[string]any{}}}
	}
	return shown
}

// overwritten are the values of a row, with those of the CRM that they would take the place of: not
// with what we would have put there before.
func (b *batch) overwritten(s *records.Step, shown sinks.Result) []ledger.Overwriting {
	has := map[string]any{}
	for _, h := range shown.Hits {
		has = h.Values
	}
	key := s.Last.Change.Key.Property
	var list []ledger.Overwriting
	for _, name := range slices.Sorted(maps.Keys(s.Values)) {
		if name == key {
			continue
		}
		o := ledger.Overwriting{Name: name, New: s.Values[name]}
		old, told := has[name]
		if f := s.Work.Record.Fields[name]; told && !blank(old) && !b.sink.Alike(name, o.New, old) && (f == nil || f.AckedAt.IsZero() && f.HadAt.IsZero()) {
			o.Old = old
		}
		list = append(list, o)
	}
	return list
}

// blank reports whether a CRM shows that a field has no value.
func blank(v any) bool {
	text, isText := v.(string)
	list, isList := v.([]any)
	return v == nil || isText && strings.TrimSpace(text) == "" || isList && len(list) == 0
}

// note keeps what the deliveries of a step would have done: the first write of several tells.
func (b *batch) note(s *records.Step, does, id string, fields []ledger.Overwriting) {
	for _, d := range s.Serves {
		w := b.would[d]
		if w == nil {
			w = &would{does: does, id: id}
			b.would[d] = w
		}
		if w.does == wouldLink && does != wouldLink {
			w.does = does
		}
		w.id = id
		w.fields = append(w.fields, fields...)
	}
}

// observation is what is kept of a delivery that was observed.
func (b *batch) observation(r *route, d *records.Delivery) ledger.Observation {
	o := ledger.Observation{Event: r.Event, Run: r.Run, Mapping: d.Change.Mapping, Object: d.Change.Object, Key: d.Change.Key.Value, Outcome: d.Outcome, Reason: d.Reason, CRMID: d.CRMID}
	if w := b.would[d]; w != nil {
		o.Does, o.CRMID, o.Fields = w.does, w.id, w.fields
	}
	if isImagined(o.CRMID) {
		o.CRMID = ""
	}
	return o
}

// told is the outcome that is recorded of a delivery: of a sink that observes another than the one decided.
func (b *batch) told(o ledger.Outcome) ledger.Outcome {
	if b.observes() && o != ledger.Open {
		return ledger.Observed
	}
	return o
}

// ended is the outcome that is recorded of a route. What no mapping wants is skipped, whether the sink writes or not.
func (b *batch) ended(r *route) ledger.Outcome {
	if len(r.deliveries) == 0 && r.ended == ledger.Skipped {
		return r.ended
	}
	return b.told(r.ended)
}

// stored reads records from the ledger. One that a sink would change is that of the sink until it does.
func (b *batch) stored(ctx context.Context, keys []records.Key) (map[records.Key]*records.Record, error) {
	l, name := b.owner.ledger, b.owner.name
	if !b.observes() {
		return l.Records(ctx, name, keys)
	}
	found, err := l.Records(ctx, ledger.Shadow(name), keys)
	if err != nil {
		return nil, err
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(k records.Key) bool { return found[k] != nil })
	if len(keys) == 0 {
		return found, nil
	}
	real, err := l.Records(ctx, name, keys)
	if err != nil {
		return nil, err
	}
	copies := map[uuid.UUID]*records.Record{}
	for k, r := range real {
		c := copies[r.ID]
		if c == nil {
			id, err := uuid.NewV7()
			if err != nil {
				return nil, fmt.Errorf("make an id: %w", err)
			}
			c = r.Clone()
			c.ID, c.New, c.Revision, c.Merged = id, true, 0, false
			c.Object, c.Property, c.Key = k.Object, k.Property, k.Key
			copies[r.ID] = c
		}
		found[k] = c
	}
	return found, nil
}

// met returns the records that the CRM knows by these ids.
func (b *batch) met(ctx context.Context, object string, ids []string) (map[string]ledger.Met, error) {
	if b.observes() {
		return b.owner.ledger.Met(ctx, ledger.Shadow(b.owner.name), object, ids)
	}
	return b.owner.ledger.Met(ctx, b.owner.name, object, ids)
}

// unshadow forgets what records would be, once the sink writes.
func (b *batch) unshadow(ctx context.Context) error {
	o := b.owner
	if b.observes() {
		o.shadowed.Store(true)
		return nil
	}
	if !o.shadowed.Load() {
		return nil
	}
	if err := o.ledger.DropShadow(ctx, o.name); err != nil {
		return err
	}
	o.shadowed.Store(false)
	return nil
}
