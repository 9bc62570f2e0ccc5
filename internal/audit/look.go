package audit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// subject is a record that is looked at.
type subject struct {
	*seen
	fields []string // that can be compared
	links  []link
	asked  []string
	gone   bool
}

// link is one that a field of the record shows.
type link struct {
	*records.Link
	field string
	id    string // of the other end, in the CRM
}

// look asks the CRM for records, and compares what it shows.
func (a *auditing) look(ctx context.Context, list []ledger.KnownRecord) ([]*seen, error) {
	ends, err := a.ends(ctx, list)
	if err != nil {
		return nil, err
	}
	subjects := make([]*subject, len(list))
	out := make([]*seen, len(list))
	for i, r := range list {
		subjects[i] = a.subject(r, ends)
		out[i] = subjects[i].seen
	}
	if err := a.read(ctx, subjects); err != nil {
		return nil, err
	}
	return out, a.find(ctx, subjects)
}

// ends are the records at the other ends of links that a field shows.
func (a *auditing) ends(ctx context.Context, list []ledger.KnownRecord) (map[records.Key]*records.Record, error) {
	keys := map[records.Key]bool{}
	for _, r := range list {
		for _, l := range r.Links {
			if comparable(l) && a.field(r.Object, l) != "" {
				keys[a.endKey(l)] = true
			}
		}
	}
	return a.Ledger.Records(ctx, a.Sink.Name(), slices.Collect(maps.Keys(keys)))
}

func (a *auditing) endKey(l *records.Link) records.Key {
	return records.Key{Object: l.To, Property: l.Property, Key: a.Sink.Fold(l.Property, l.Key)}
}

func (a *auditing) field(object string, l *records.Link) string {
	return a.Sink.Description().LinkField(object, l.To, l.As)
}

// comparable reports whether a link is there, for all that we know, and is to stay: one that is made only where
// there was none is theirs since.
func comparable(l *records.Link) bool {
	return l.Want == records.Linked && l.Have == records.Exists && l.Verdict == records.Open && !l.IfEmpty
}

// subject finds out what of a record can be compared.
func (a *auditing) subject(r ledger.KnownRecord, ends map[records.Key]*records.Record) *subject {
	s := &subject{seen: &seen{record: r, skipped: map[records.Standing]int64{}}}
	for _, name := range slices.Sorted(maps.Keys(r.Fields)) {
		f, at := r.Fields[name], place{r.Object, name}
		written := a.values[at]
		switch standing := f.Standing(); {
		case written == nil:
			if _, key := a.keys[at]; !key {
				s.unmapped++
			}
		case standing == records.CanCompare && written.made(f.Mapping):
			s.skipped[records.NotOurs]++
		case standing != records.CanCompare:
			s.skipped[standing]++
		default:
			s.fields = append(s.fields, name)
		}
	}
	newest := map[string]*records.Link{} // a field shows one link
	for _, l := range r.Links {
		name := a.field(r.Object, l)
		switch {
		case !comparable(l):
		case name == "":
			a.unshown[r.Object+" to "+l.To] = true
		case newest[name] == nil || newest[name].Version.Compare(l.Version) < 0:
			newest[name] = l
		}
	}
	for _, name := range slices.Sorted(maps.Keys(newest)) {
		if end := ends[a.endKey(newest[name])]; end != nil && end.CRMID != "" && end.Presence == records.Present {
			s.links = append(s.links, link{newest[name], name, end.CRMID})
		}
	}
	return s
}

// made reports whether a mapping writes the property of new records alone: it is theirs since.
func (v *value) made(mapping string) bool {
	only := func(m mappers.Mode) bool { return m == mappers.CreateOnly || m == mappers.Append }
	if mode, known := v.modes[mapping]; known {
		return only(mode)
	}
	for _, mode := range v.modes {
		if !only(mode) {
			return false
		}
	}
	return true
}

// keyed are the keys of a record that are in a property of the CRM by the mappings of today.
func (a *auditing) keyed(r *ledger.KnownRecord) []records.Key {
	var out []records.Key
	for _, k := range r.Keys {
		if _, ours := a.keys[place{r.Object, k.Property}]; ours && k.Property != "" {
			out = append(out, k)
		}
	}
	return out
}

// read asks for the records by the CRM's ids. Those that are not there are asked for once more, by themselves: where two
// were merged that stood in one request, the answer shows the one that is left for both.
func (a *auditing) read(ctx context.Context, subjects []*subject) error {
	for range 2 {
		if err := a.readOnce(ctx, subjects); err != nil {
			return err
		}
		subjects = slices.DeleteFunc(slices.Clone(subjects), func(s *subject) bool { return !s.gone })
	}
	return nil
}

func (a *auditing) readOnce(ctx context.Context, subjects []*subject) error {
	open := subjects
	for range 1 + tries {
		for _, s := range open {
			s.asked, s.gone = a.asks(s), false
		}
		// Of a record that is theirs since it was made there is nothing to compare.
		open = slices.DeleteFunc(slices.Clone(open), func(s *subject) bool { return len(s.asked) == 0 })
		rows := make([]sinks.Row, len(open))
		for i, s := range open {
			rows[i] = a.row(s, sinks.Read)
			rows[i].ID, rows[i].Read = s.record.CRMID, s.asked
		}
		results, err := a.ask(ctx, sinks.Read, rows)
		if err != nil {
			return err
		}
		var again []*subject
		for i, s := range open {
			switch res := results[i]; {
			case res.Class == sinks.OK:
				a.compare(s, res)
			case res.Absent:
				s.gone = true
			case a.hide(s, res):
				again = append(again, s)
			default:
				s.unread = s.record.Object + ": " + told(res)
			}
		}
		if open = again; len(open) == 0 {
			return nil
		}
	}
	for _, s := range open {
		s.unread = s.record.Object + ": the CRM refuses one field after the other"
	}
	return nil
}

// asks are the properties that the CRM is asked to show.
func (a *auditing) asks(s *subject) []string {
	names := slices.Clone(s.fields)
	for _, k := range a.keyed(&s.record) {
		names = append(names, a.Sink.Description().Holders(k.Property)...)
	}
	for _, l := range s.links {
		names = append(names, l.field)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return a.hidden[place{s.record.Object, name}] })
	slices.Sort(names)
	return slices.Compact(names)
}

// hide leaves out the fields that a refusal names, from now on. It reports whether that helps.
func (a *auditing) hide(s *subject, res sinks.Result) bool {
	helps := false
	for _, name := range res.Fields {
		at := place{s.record.Object, name}
		helps = helps || slices.Contains(s.asked, name)
		if slices.Contains(s.asked, name) {
			a.hidden[at] = true
		}
	}
	return helps
}

func (a *auditing) row(s *subject, op sinks.Operation) sinks.Row {
	return sinks.Row{Trace: s.record.ID.String(), Object: s.record.Object, Property: s.record.Property, Key: s.record.Key, Operation: op}
}

// compare holds what the CRM shows of a record against what we want.
func (a *auditing) compare(s *subject, res sinks.Result) {
	r := s.record
	s.compared = true
	if res.ID != "" && res.ID != r.CRMID {
		a.found(s, Merged, Difference{Ours: r.CRMID, Theirs: res.ID})
		return
	}
	var hit sinks.Hit
	if len(res.Hits) > 0 {
		hit = res.Hits[0]
	}
	shows := func(name string) (any, bool) {
		v, shown := hit.Values[name]
		if !shown {
			s.hidden = append(s.hidden, r.Object+"."+name)
		}
		return v, shown
	}
	for _, name := range s.fields {
		theirs, shown := shows(name)
		if !shown {
			continue
		}
		s.seen.fields++
		if f := r.Fields[name]; f.Differs(name, theirs, a.Sink) {
			a.found(s, Edited, Difference{Field: name, Ours: f.Wanted.Go, Theirs: theirs, Version: f.Version, Mapping: f.Mapping, Resend: map[string]records.Version{name: f.Version}})
		}
	}
	a.compareKeys(s, hit, shows)
	for _, l := range s.links {
		theirs, shown := shows(l.field)
		if shown && !a.Sink.Holds("", a.Sink.Fold("", l.id), theirs) {
			a.found(s, Linked, Difference{Field: l.To, Ours: l.Key, Theirs: theirs, Version: l.Version, Mapping: l.Mapping})
		}
	}
}

// compareKeys looks whether the record still holds our keys: one of each property.
func (a *auditing) compareKeys(s *subject, hit sinks.Hit, shows func(string) (any, bool)) {
	by := map[string][]string{}
	for _, k := range a.keyed(&s.record) {
		by[k.Property] = append(by[k.Property], k.Key)
	}
	for _, property := range slices.Sorted(maps.Keys(by)) {
		theirs, shown := shows(property)
		if !shown {
			continue
		}
		holds := slices.ContainsFunc(a.Sink.Description().Holders(property), func(name string) bool {
			return slices.ContainsFunc(by[property], func(key string) bool { return a.Sink.Holds(property, key, hit.Values[name]) })
		})
		if holds || theirs != nil && theirs != "" && a.keys[place{s.record.Object, property}] {
			continue
		}
		a.found(s, Key, Difference{Field: property, Ours: strings.Join(by[property], ", "), Theirs: theirs})
	}
}

// found adds a difference of a record.
func (a *auditing) found(s *subject, kind Kind, d Difference) {
	d.Object, d.Kind, d.Property, d.Key = s.record.Object, kind, s.record.Property, s.record.Key
	d.ID, d.URL, d.Record = s.record.CRMID, a.Sink.Description().RecordURL(s.record.Object, s.record.CRMID), s.record.ID
	s.found = append(s.found, d)
}

// find looks for records by our keys: for those that their ids do not lead to, and for all where the
// CRM lets two records have one key.
func (a *auditing) find(ctx context.Context, subjects []*subject) error {
	var rows []sinks.Row
	var whose []*subject
	for _, s := range subjects {
		if !s.gone && (a.Sink.UniqueKeys() || !s.compared) || !a.Sink.Supports(sinks.Find) {
			continue
		}
		for _, k := range a.keyed(&s.record) {
			row := a.row(s, sinks.Find)
			row.Trace += "/" + k.Property + "=" + k.Key
			row.Property, row.Key = k.Property, k.Key
			rows, whose = append(rows, row), append(whose, s)
		}
	}
	results, err := a.ask(ctx, sinks.Find, rows)
	if err != nil {
		return err
	}
	elsewhere := map[*subject]bool{}
	for i, res := range results {
		s := whose[i]
		switch {
		case res.Code == severalFound:
			elsewhere[s] = true
			a.found(s, Several, Difference{Field: rows[i].Property, Ours: s.record.CRMID, Theirs: strings.TrimPrefix(res.Message, severalMeans)})
		case res.Class == sinks.OK && res.ID != s.record.CRMID:
			elsewhere[s] = true
			a.found(s, Merged, Difference{Field: rows[i].Property, Ours: s.record.CRMID, Theirs: res.ID})
		case res.Class == sinks.OK && s.gone:
			elsewhere[s] = true
			s.unread = s.record.Object + ": the CRM says of an id that it is not there, and finds it by our key"
		case res.Class != sinks.OK && !res.Absent && s.gone:
			elsewhere[s] = true
			s.unread = s.record.Object + ": its id leads nowhere, and our key cannot be looked for: " + told(res)
		case res.Class != sinks.OK && !res.Absent:
			s.unread = s.record.Object + ": our key cannot be looked for: " + told(res)
		}
	}
	for _, s := range subjects {
		if s.gone && !elsewhere[s] {
			s.compared = true
			a.found(s, Gone, s.newest())
		}
	}
	return nil
}

// newest is a difference with what the newest event wants of a record, of what could be compared.
func (s *subject) newest() Difference {
	d := Difference{Ours: s.record.CRMID}
	for _, name := range s.fields {
		if f := s.record.Fields[name]; d.Version.Compare(f.Version) < 0 {
			d.Version, d.Mapping = f.Version, f.Mapping
		}
	}
	for _, name := range s.fields {
		if f := s.record.Fields[name]; f.Version == d.Version {
			if d.Resend == nil {
				d.Resend = map[string]records.Version{}
			}
			d.Resend[name] = f.Version
		}
	}
	return d
}

// How a sink tells that several records have one key.
const (
	severalFound = "several_found"
	severalMeans = "several records have this key: "
)

// told is why there was no answer, in one line.
func told(r sinks.Result) string {
	text := cmp.Or(r.Message, string(r.Class))
	if r.Status != 0 {
		text = fmt.Sprintf("HTTP %d: %s", r.Status, text)
	}
	return text
}

// ask has rows looked up, and asks again where that may help. It returns a *Stopped where the CRM is to be
// left alone, or answers nobody.
func (a *auditing) ask(ctx context.Context, op sinks.Operation, rows []sinks.Row) ([]sinks.Result, error) {
	results := make([]sinks.Result, len(rows))
	open := make([]int, len(rows))
	for i := range rows {
		open[i] = i
	}
	for failed := 0; len(open) > 0; {
		a.send(ctx, op, rows, open, results)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var again []int
		var wait time.Duration
		var last sinks.Result
		for _, i := range open {
			switch res := results[i]; res.Class {
			case sinks.OK, sinks.Rejected, sinks.Conflict:
			case sinks.Parked, sinks.Held:
				return nil, &Stopped{fmt.Sprintf("the CRM is to be left alone: %s: %s", res.Class, told(res))}
			default:
				again, wait = append(again, i), max(wait, res.RetryAfter)
				if last.Class == "" || res.Status != 0 {
					last = res
				}
			}
		}
		if len(again) == 0 {
			break
		}
		ours := last.Class == sinks.Throttled && last.Status == 0 // our own share is used up for now
		if failed++; len(again) < len(open) || ours {
			failed = 0
		}
		if wait > longest || failed > tries {
			return nil, &Stopped{fmt.Sprintf("the CRM is to be left alone: %s: %s", last.Class, told(last))}
		}
		open = again
		if err := sleep(ctx, max(wait, 100*time.Millisecond<<failed)); err != nil {
			return nil, err
		}
		if err := a.allowed(ctx); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// send sends the rows that are open, in as few requests as the CRM takes, half as many at a time as a worker.
func (a *auditing) send(ctx context.Context, op sinks.Operation, rows []sinks.Row, open []int, results []sinks.Result) {
	slots := make(chan struct{}, max(a.Sink.Concurrency()/2, 1))
	var wait sync.WaitGroup
	for _, places := range a.chunks(rows, open) {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			part := make([]sinks.Row, len(places))
			for i, at := range places {
				part[i] = rows[at]
			}
			for i, res := range a.Sink.Write(ctx, op, part) {
				results[places[i]] = res
			}
		})
	}
	wait.Wait()
}

// chunks sorts rows into requests.
func (a *auditing) chunks(rows []sinks.Row, open []int) [][]int {
	var all [][]int
	at := map[string]int{}
	for _, i := range open {
		_, group := a.Sink.Group(rows[i])
		group += "\x00" + rows[i].Property
		most := max(a.Sink.MaxRowsOf(rows[i]), 1)
		c, begun := at[group]
		if !begun || len(all[c]) >= most {
			c = len(all)
			at[group] = c
			all = append(all, nil)
		}
		all[c] = append(all[c], i)
	}
	return all
}
