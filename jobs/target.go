package jobs

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// target is a sink as the rules of records see it.
type target struct{ sink *sinks.Sink }

func (t target) Finds(key mappers.Key) bool {
	return t.sink.Supports(sinks.Find) && key.Property != "" && !key.Local
}

func (t target) Makes(object string, key mappers.Key) bool {
	return !key.Local && t.sink.Supports(sinks.Create) &&
		t.sink.Description().Lacks(sinks.Create, sinks.Row{Object: object, Property: key.Property, Key: key.Value}) == ""
}

func (t target) UniqueKeys() bool           { return t.sink.UniqueKeys() }
func (t target) Several(shown any) []string { return t.sink.Several(shown) }

func (t target) Alike(property string, ours, shown any) bool {
	return t.sink.Alike(property, ours, shown)
}

func (t target) Whole() bool            { return t.sink.Whole() }
func (t target) Settle() time.Duration  { return t.sink.Settle() }
func (t target) FindLag() time.Duration { return t.sink.FindLag() }

func (t target) Carries(mode mappers.Mode, id string) (byID, byKey bool) {
	return t.sink.Description().CarriesLinks(t.operation(mode, id))
}

func (t target) Repeats(mode mappers.Mode, key mappers.Key) bool {
	// An upsert that looks first is no plain create: it finds what it has made.
	op := t.operation(mode, "")
	return op != sinks.Create || t.sink.Repeatable(op) || !key.Local && t.sink.UniqueKeys()
}

func (t target) Replaces(r *records.Record, l *records.Link) bool {
	return t.sink.Replaces(linkRow(r, &records.Tie{Link: l}))
}

func (t target) LinkField(r *records.Record, l *records.Link) string {
	return t.sink.Description().LinkField(r.Object, l.To, l.As)
}

func (t target) operation(mode mappers.Mode, id string) sinks.Operation {
	switch mode {
	case mappers.Archive:
		return sinks.Archive
	case mappers.Append, mappers.CreateOnly:
		return sinks.Create
	case mappers.UpdateOnly:
		return sinks.Update
	}
	op, _ := t.sink.Group(sinks.Row{ID: id})
	return op
}

// row is a step's share of a request.
func (t target) row(s *records.Step) sinks.Row {
	r, last := s.Work.Record, s.Last
	row := sinks.Row{
		Trace:  last.Cause.Event.String() + "/" + r.ID.String(),
		Object: r.Object, Property: last.Change.Key.Property, Key: last.Change.Key.Value, ID: r.CRMID,
		Values: s.Values, Optional: s.Optional,
		Event: sinks.EventInfo{
			ID: last.Cause.Event.String(), Source: last.Cause.Source, Type: last.Cause.Type,
			OccurredAt: last.Cause.OccurredAt, Mapping: last.Change.Mapping,
		},
	}
	row.Read = s.Show
	switch s.Do {
	case records.Find:
		row.ID, row.Operation = "", sinks.Find
		return row
	case records.Search:
		row.ID, row.Operation = "", sinks.Search
		for _, t := range s.Way {
			row.Terms = append(row.Terms, sinks.Term{Property: t.Property, Value: t.Value})
		}
		return row
	case records.Read:
		row.Operation = sinks.Read
		return row
	}
	if row.Operation = t.operation(s.Mode, r.CRMID); s.Makes {
		row.Operation = sinks.Create
	}
	for _, tie := range s.Carried {
		row.Links = append(row.Links, sinks.RowLink{
			Object: tie.Link.To, Property: tie.Link.Property, Key: tie.Link.Key, ID: tie.ID, As: tie.Link.As, Required: tie.Required,
		})
	}
	return row
}

func linkRow(r *records.Record, tie *records.Tie) sinks.LinkRow {
	l := tie.Link
	return sinks.LinkRow{
		Trace: l.Version.Event.String() + "/" + r.ID.String(),
		From:  sinks.Ref{Object: r.Object, Property: r.Property, Key: r.Key, ID: r.CRMID},
		To:    sinks.Ref{Object: l.To, Property: l.Property, Key: l.Key, ID: tie.ID},
		As:    l.As, Remove: l.Want == records.Unlinked,
	}
}

// short is how long a batch waits for a throttled sink before it gives its jobs back.
const short = 2 * time.Second

// answerOf translates what a sink says of a row. The breaker hears of it: whether a failure
// counts, and for how long the sink is stopped, is its word.
func (o *owner) answerOf(res sinks.Result, cut bool) records.Answer {
	a := records.Answer{
		Class: string(res.Class), Status: res.Status, Reason: reasonOf(res), ID: res.ID, Existing: res.Existing, Created: res.Created,
		Code: res.Code, Dropped: res.Dropped, Absent: res.Absent, Unlinked: res.Unlinked, Lost: res.Sent,
		Fields: res.Fields, Kept: res.Kept, More: res.More,
	}
	for _, h := range res.Hits {
		a.Hits = append(a.Hits, records.Hit{ID: h.ID, Values: h.Values, URL: h.URL})
	}
	counts := o.breaker.observe(res.Class, a.Reason)
	switch res.Class {
	case sinks.OK:
		a.Kind = records.Taken
	case sinks.Rejected:
		a.Kind = records.Denied
	case sinks.Conflict:
		a.Kind = records.Conflict
	case sinks.Throttled:
		a.Kind, a.Short = records.Busy, res.RetryAfter <= short && !cut
		if a.Wait = max(res.RetryAfter, 50*time.Millisecond); !a.Short {
			o.breaker.stop(res)
			a.Wait, _ = o.breaker.stopped()
		}
	case sinks.Parked, sinks.Held:
		a.Kind = records.Busy
		o.breaker.stop(res)
		a.Wait, _ = o.breaker.stopped()
	default:
		a.Kind, a.Counts = records.Failed, counts && !cut
		a.Wait, _ = o.breaker.stopped()
	}
	return a
}

// reasonOf puts an answer into one line, with what helps to mend it.
func reasonOf(res sinks.Result) string {
	var b strings.Builder
	if res.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d", res.Status)
	}
	add := func(format string, args ...any) {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		fmt.Fprintf(&b, format, args...)
	}
	if res.Code != "" {
		add("%s", res.Code)
	}
	if res.Message != "" {
		add("%s", res.Message)
	}
	var names []string
	for _, name := range res.Fields {
		if !strings.Contains(res.Message, name) {
			names = append(names, strconv.Quote(name))
		}
	}
	switch len(names) {
	case 0:
	case 1:
		add("field %s", names[0])
	default:
		add("fields %s", strings.Join(names, ", "))
	}
	if len(res.Allowed) > 0 && !strings.Contains(res.Message, res.Allowed[0]) {
		add("it takes %s", strings.Join(res.Allowed, ", "))
	}
	return b.String()
}
