package sinks

import (
	"slices"
	"time"
)

// Same reports whether a value that was sent and what a read shows of its property are the same,
// however the target spells it. In doubt they are: what nobody has changed must not pass for changed.
func (s *Sink) Same(property string, ours, shown any) bool {
	if blank(ours) && s.desc.values.Blank == "none" && !slices.Contains(s.desc.values.Lists, property) {
		return true // it was not sent
	}
	if list, isList := shown.([]any); isList {
		out := make([]any, 0, len(list))
		for _, e := range list {
			text, ok := textOf(e)
			if !ok {
				return true
			}
			out = append(out, text)
		}
		shown = out
	} else if shown != nil {
		text, ok := textOf(shown)
		if !ok {
			return true
		}
		shown = text
	}
	return s.same(&shownRules{Fold: s.desc.shownFold()}, property, ours, shown)
}

// shownFold is how values that the target shows are compared.
func (d *Description) shownFold() string {
	for _, op := range []Operation{Read, Update, Upsert, Create} {
		for _, o := range d.operations[op] {
			if v := o.result.Results.Values; v != nil && v.Fold != "" {
				return v.Fold
			}
		}
	}
	return ""
}

// Holders are the properties that may hold a key: its own, and those for further values of it.
func (d *Description) Holders(property string) []string {
	return append([]string{property}, d.also[property]...)
}

// Holds reports whether one of the values that the target shows is a key, folded.
func (s *Sink) Holds(property, key string, shown any) bool {
	list, isList := shown.([]any)
	if text, isText := shown.(string); isText {
		list = append(s.cut(text), text)
	} else if !isList {
		list = []any{shown}
	}
	want, isNumber := number(key)
	return slices.ContainsFunc(list, func(e any) bool {
		text, ok := textOf(e)
		if n, is := number(text); ok && is && isNumber && n.Equal(want) {
			return true // all digits count: long ids differ in the last ones
		}
		return ok && text != "" && s.Fold(property, text) == key
	})
}

// LeastReading is the least time that reading so many rows takes, by the operation and under a share of
// the limits of the target, each request full.
func (s *Sink) LeastReading(op Operation, rows int64) time.Duration {
	most := int64(s.MaxRows(op))
	requests := float64((rows + most - 1) / most)
	var least time.Duration
	for _, l := range s.desc.limits {
		if len(l.Operations) == 0 || slices.Contains(l.Operations, op) {
			least = max(least, time.Duration(requests/float64(l.Requests)/s.limiter.part*float64(l.Per)))
		}
	}
	return least
}
