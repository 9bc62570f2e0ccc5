package jobs

import (
	"context"
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

// A sink that observes runs the same loop over the same records, so that it decides what a run that
// writes would. Only the requests differ: what would write is answered as the CRM would answer it,
// from what it shows. The records are kept under another name, as they would be; a record that
// would have been made has an id of ours.

// observing is a target of which nothing is made, so that a search misses nothing of it.
type observing struct{ target }

func (observing) FindLag() time.Duration { return 0 }

// Carries leaves it to a search to find the other end of a link by our key, where the CRM would do that by itself: else
// nobody could tell whether it is there.
func (o observing) Carries(mode mappers.Mode, id string) (byID, byKey bool) {
	byID, byKey = o.target.Carries(mode, id)
	return byID, byKey && !o.sink.Supports(sinks.Find)
}

// observes reports whether the batch writes nothing.
func (b *batch) observes() bool { return !b.sink.Description().Writes() }

// findLag is how long a search may miss what the batch has made.
func (b *batch) findLag() time.Duration { return b.env.Can.FindLag() }

// foresight is what the ledger knows of the steps of a round.
type foresight struct {
	imagined map[records.Key]*records.Record // as they would be, by the identities that are looked for
	ours     map[records.Key]*records.Record // what the CRM has of us
}

// carryOut sends the steps of a round, or finds out what would come of them.
func (b *batch) carryOut(ctx context.Context, steps []*records.Step) []sinks.Result {
	if !b.observes() {
		return b.send(ctx, steps)
	}
	var asks []*records.Step
	of := make([]int, len(steps)) // place of what is asked for a step, from 1
	for i, s := range steps {
		if ask := b.ask(s); ask != nil {
			asks = append(asks, ask)
			of[i] = len(asks)
		}
	}
	answers := b.send(ctx, asks)
	f, err := b.foresee(ctx, steps)
	results := make([]sinks.Result, len(steps))
	for i, s := range steps {
		var shown sinks.Result
		if of[i] > 0 {
			shown = answers[of[i]-1]
			shown.Sent = false // nothing is written, so nothing can take effect later
		}
		if results[i] = (sinks.Result{Class: sinks.Network, Message: "the ledger cannot be read"}); err == nil {
			results[i] = b.pretend(s, shown, of[i] > 0, f)
		}
	}
	return results
}

// foresee reads what the ledger knows of the steps of a round.
func (b *batch) foresee(ctx context.Context, steps []*records.Step) (f foresight, err error) {
	var identities, keys []records.Key
	for _, s := range steps {
		if s.Do == records.Search {
			identities = append(identities, b.identity(s.Work.Record.Object, s.Way))
		}
		if !s.Reads() {
			keys = append(keys, keyOf(s.Work.Record))
		}
	}
	if len(identities) > 0 {
		if f.imagined, err = b.owner.ledger.Imagined(ctx, b.owner.name, identities); err != nil {
			return f, err
		}
	}
	if len(keys) > 0 {
		f.ours, err = b.owner.ledger.Records(ctx, b.owner.name, keys)
	}
	return f, err
}

func keyOf(r *records.Record) records.Key {
	return records.Key{Object: r.Object, Property: r.Property, Key: r.Key}
}

// ask is the request that shows what would come of a step; nil where none can tell.
func (b *batch) ask(s *records.Step) *records.Step {
	r := s.Work.Record
	if ledger.IsImagined(r.CRMID) {
		return nil
	}
	if s.Reads() {
		return s
	}
	ask := &records.Step{Do: records.Read, Work: s.Work, Mode: mappers.Upsert, Last: s.Last, Serves: s.Serves, Show: b.asksFor(s)}
	switch {
	case r.CRMID != "":
		if len(ask.Show) == 0 || b.sink.Description().CannotRead(r.Object) != "" {
			return nil
		}
	case s.Do != records.Write, s.Mode == mappers.Append, !b.env.Can.Finds(s.Last.Change.Key), looked(s) && !b.env.Can.UniqueKeys():
		return nil
	default:
		ask.Do = records.Find
	}
	return ask
}

// asksFor are the properties that show what a step would take the place of. Of a record that would be archived
// any shows that it is there.
func (b *batch) asksFor(s *records.Step) []string {
	names := slices.Collect(maps.Keys(s.Values))
	if key := s.Last.Change.Key; s.Do == records.Archive && key.Property != "" && !key.Local {
		names = append(names, key.Property)
	}
	for name := range b.linkFields(s) {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// linkFields are the links of a step that are fields of their record, by the field.
func (b *batch) linkFields(s *records.Step) map[string]records.Tie {
	fields := map[string]records.Tie{}
	ties := s.Carried
	if s.Do == records.Linking {
		ties = append(slices.Clone(ties), *s.Tie)
	}
	for _, t := range ties {
		if name := b.env.Can.LinkField(s.Work.Record, t.Link); name != "" {
			fields[name] = t
		}
	}
	return fields
}

// looked reports whether the CRM was asked for the record already, in the ways that its mapping gives. Our key may be that of
// another all the same: where keys are unique a request to make one would run into it.
func looked(s *records.Step) bool { return s.Makes || s.Work.Vacant() }

// pretend is the answer to a step, from what the CRM has shown.
func (b *batch) pretend(s *records.Step, shown sinks.Result, asked bool, f foresight) sinks.Result {
	r := s.Work.Record
	found := asked && shown.Class == sinks.OK && shown.ID != ""
	switch {
	case s.Do == records.Search && shown.Class == sinks.OK:
		return b.imagine(s, shown, f)
	case s.Reads() && asked:
		return shown
	case s.Reads():
		return recall(s)
	case asked && !found && !shown.Absent: // it fails, or several have our key
		return shown
	case asked && !found && (r.CRMID != "" || s.Mode == mappers.UpdateOnly): // it is gone, or not there
		return shown
	case found && r.CRMID == "" && (s.Mode == mappers.CreateOnly || looked(s)):
		return sinks.Result{Class: sinks.Conflict, Existing: shown.ID, Message: "the record is there"}
	case s.Tie != nil:
		b.note(s, ledger.Links, r.CRMID, b.overwritten(s, shown, f))
		return sinks.Result{Class: sinks.OK}
	case s.Do == records.Archive:
		b.note(s, ledger.Archivals, r.CRMID, nil)
		return sinks.Result{Class: sinks.OK, ID: r.CRMID}
	}
	does, id := ledger.Updates, r.CRMID
	if found {
		id = shown.ID // somebody may have merged it into another
	}
	switch {
	case ledger.IsImagined(id):
	case id != "":
		if known := f.ours[keyOf(r)]; known == nil || known.CRMID == "" {
			does = ledger.Adopts
		}
	default:
		id = ledger.ImagineID()
		switch {
		case s.Mode == mappers.UpdateOnly:
		case s.Mode == mappers.Upsert && !asked && !looked(s):
			does = ledger.Writes
		default:
			does = ledger.Creates
		}
	}
	b.note(s, does, id, b.overwritten(s, shown, f))
	return sinks.Result{Class: sinks.OK, ID: id, Created: does == ledger.Creates}
}

// recall shows of a record that would have been made what we would have written.
func recall(s *records.Step) sinks.Result {
	r := s.Work.Record
	return sinks.Result{Class: sinks.OK, ID: r.CRMID, Hits: []sinks.Hit{{ID: r.CRMID, Values: holds(r, s.Show)}}}
}

// holds are the values of properties that a record would have.
func holds(r *records.Record, names []string) map[string]any {
	values := map[string]any{}
	for _, name := range names {
		values[name] = nil
		if name == r.Property {
			values[name] = r.Key
		}
		if f := r.Fields[name]; f != nil && !f.AckedAt.IsZero() {
			values[name] = f.Acked.Go
		}
	}
	return values
}

// imagine adds to what a search has shown what would fit by now, since we would have made it, or written these values.
func (b *batch) imagine(s *records.Step, shown sinks.Result, f foresight) sinks.Result {
	way := map[string]string{}
	for _, t := range s.Way {
		way[t.Property] = b.sink.Fold(t.Property, strings.TrimSpace(t.Value))
	}
	names := slices.Collect(maps.Keys(way))
	add := func(r *records.Record) {
		if r == s.Work.Record || r.Presence != records.Present || r.CRMID == "" || r.Object != s.Work.Record.Object ||
			slices.ContainsFunc(shown.Hits, func(h sinks.Hit) bool { return h.ID == r.CRMID }) {
			return
		}
		for name, v := range holds(r, names) {
			if text, isText := v.(string); !isText || b.sink.Fold(name, strings.TrimSpace(text)) != way[name] {
				return
			}
		}
		shown.Hits = append(shown.Hits, sinks.Hit{ID: r.CRMID, Values: holds(r, s.Show)})
	}
	for _, w := range b.works {
		add(w.Record)
	}
	stored := f.imagined[b.identity(s.Work.Record.Object, s.Way)]
	if stored != nil && !slices.ContainsFunc(b.works, func(w *records.Work) bool { return w.Record.ID == stored.ID }) {
		add(stored)
	}
	return shown
}

// imaginable are the ways in which records may be found by what would have been written.
func (b *batch) imaginable() []ledger.Identity {
	if !b.observes() {
		return nil
	}
	var out []ledger.Identity
	ways := map[string][][]string{}
	for _, w := range b.works {
		r := w.Record
		if r.CRMID == "" || r.Presence != records.Present {
			continue
		}
		if _, known := ways[r.Object]; !known {
			ways[r.Object] = b.conf.Mappings.Ways(b.owner.name, r.Object)
		}
		for _, names := range ways[r.Object] {
			var m mappers.Match
			values := holds(r, names)
			for _, name := range names {
				if text, isText := values[name].(string); isText && text != "" {
					m = append(m, mappers.Term{Property: name, Value: text})
				}
			}
			if len(m) == len(names) {
				out = append(out, ledger.Identity{Key: b.identity(r.Object, m), Record: r.ID})
			}
		}
	}
	return out
}

// overwritten are the values of a step, with those of the CRM whose place they would take: not with what it has of us.
func (b *batch) overwritten(s *records.Step, shown sinks.Result, f foresight) map[string]ledger.Overwriting {
	has := map[string]any{}
	for _, h := range shown.Hits {
		has = h.Values
	}
	list := map[string]ledger.Overwriting{}
	for name, v := range s.Values {
		o := ledger.Overwriting{Name: name, New: v}
		if old := has[name]; !blank(old) && !b.sink.Alike(name, v, old) && !b.keeps(s, name, old) && !b.ours(f, s, name, old) {
			o.Old = old
		}
		list[name] = o
	}
	for name, t := range b.linkFields(s) {
		o := ledger.Overwriting{Name: name, New: t.ID}
		if ledger.IsImagined(t.ID) || t.ID == "" {
			o.New = "new"
		}
		if old := has[name]; !blank(old) && !slices.Contains(b.sink.Several(old), t.ID) && fmt.Sprint(old) != t.ID {
			o.Old = old
		}
		list[name] = o
	}
	return list
}

// keeps reports whether a row adds to the values that the CRM shows of a field, and takes none away.
func (b *batch) keeps(s *records.Step, name string, shown any) bool {
	if s.Adds[name] == nil {
		return false
	}
	sent, _ := s.Values[name].([]any)
	return !slices.ContainsFunc(b.sink.Several(shown), func(text string) bool { return !slices.Contains(sent, any(text)) })
}

// ours reports whether the CRM shows what it has taken of us: of a value that goes along with every row, whether we have
// written the record at all.
func (b *batch) ours(f foresight, s *records.Step, name string, shown any) bool {
	known := f.ours[keyOf(s.Work.Record)]
	if known == nil || known.Fields[name] == nil {
		return known != nil && known.CRMID != "" && s.Work.Record.Fields[name] == nil
	}
	have := known.Fields[name]
	return (!have.AckedAt.IsZero() || !have.HadAt.IsZero()) && b.sink.Alike(name, have.Acked.Go, shown)
}

// blank reports whether a CRM shows that a field has no value.
func blank(v any) bool {
	text, isText := v.(string)
	list, isList := v.([]any)
	return v == nil || isText && strings.TrimSpace(text) == "" || isList && len(list) == 0
}

// note keeps what the deliveries of a step would have done. A value is told of the delivery that wants it, and of the last
// one where none does.
func (b *batch) note(s *records.Step, does, id string, values map[string]ledger.Overwriting) {
	of := func(d *records.Delivery) *ledger.Observation {
		o := b.would[d]
		if o == nil {
			o = &ledger.Observation{}
			b.would[d] = o
		}
		return o
	}
	for _, d := range s.Serves {
		o := of(d)
		if o.CRMID = id; slices.Index(ledger.Doings, does) > slices.Index(ledger.Doings, o.Does) {
			o.Does = does
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		by := s.Last
		for _, d := range s.Serves {
			f := s.Work.Record.Fields[name]
			if v, versioned := s.Sent[name]; versioned && d.Cause.Version == v.Version && (f == nil || f.Mapping == d.Change.Mapping) {
				by = d
			}
		}
		o := of(by)
		if o.Does == "" {
			o.Does, o.CRMID = does, id
		}
		value := values[name]
		value.At = b.env.Now.UnixMicro()
		o.Fields = append(o.Fields, value)
	}
}

// observations are what is kept of the deliveries of a route, and of the records that are made only to be linked to.
func (b *batch) observations(r *route) []ledger.Observation {
	if !b.observes() {
		return nil
	}
	var out []ledger.Observation
	at := map[address]int{}
	add := func(d *records.Delivery, ended bool) {
		o := b.would[d]
		if o == nil && !ended {
			return
		}
		one := ledger.Observation{CRMID: d.CRMID}
		if o != nil {
			one = *o
		}
		one.Event, one.Run, one.Mapping, one.Object, one.Key = r.Event, r.Run, d.Change.Mapping, d.Change.Object, d.Change.Key.Value
		one.Outcome, one.Reason = d.Outcome, d.Reason
		k := address{one.Mapping, one.Object, one.Key}
		if i, twice := at[k]; twice { // Postgres takes a row once
			one.Fields = append(out[i].Fields, one.Fields...)
			out[i] = one
			return
		}
		at[k] = len(out)
		out = append(out, one)
	}
	for d := range b.would {
		if d.Stub && d.Cause == r.cause {
			add(d, false)
		}
	}
	for _, d := range r.deliveries {
		add(d, d.Dirty() && !d.Open())
	}
	return out
}

// realID is the id of a record that the CRM has; "" of one that would have been made.
func realID(id string) string {
	if ledger.IsImagined(id) {
		return ""
	}
	return id
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
	if found == nil {
		found = map[records.Key]*records.Record{}
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(k records.Key) bool { return found[k] != nil })
	if len(keys) == 0 {
		return found, nil
	}
	known, err := l.Records(ctx, name, keys)
	if err != nil {
		return nil, err
	}
	copies := map[uuid.UUID]*records.Record{}
	for k, r := range known {
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
	o.shadowed.Store(false) // before: a batch that still observes may store more
	if err := o.ledger.DropShadow(ctx, o.name); err != nil {
		o.shadowed.Store(true)
		return err
	}
	return nil
}
