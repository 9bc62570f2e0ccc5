package sinks

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
)

// shownRules say where an answer shows the values that a record has.
type shownRules struct {
	At   places `yaml:"at,required"` // objects whose members are the fields; of two that have a field the first counts
	As   []path `yaml:"as,single"`   // where an element of a field shows its value, if that is an object
	Fold string `yaml:"fold"`        // lower: values that differ in nothing but their case are one
}

// DecodeNode reads a path, a list of paths, or a map.
func (r *shownRules) DecodeNode(n diag.Node, d *diag.Decoding) {
	if n.Kind() != diag.Map {
		d.Decode(n, &r.At)
		return
	}
	type plain shownRules
	d.Decode(n, (*plain)(r))
	if f := n.Get("fold"); f.Exists() && r.Fold != "lower" && r.Fold != "none" {
		d.Errorf(f, "one of: lower, none", "unknown fold %q", r.Fold)
	}
}

func (r *shownRules) outline(o *outline, below ...path) {
	if r == nil {
		return
	}
	for _, at := range r.At {
		o.add(append(slices.Clone(below), at)...)
	}
}

// field is what the answer shows of a field; false where it does not show it.
func (r *shownRules) field(tree any, name string) (any, bool) {
	v, has := r.raw(tree, name)
	if !has {
		return nil, false
	}
	return r.plain(v)
}

// raw is what stands in the place of a field. Where no name is the same, one counts that differs in its case.
func (r *shownRules) raw(tree any, name string) (any, bool) {
	var like any
	near := false
	for _, at := range r.At {
		m, _ := at.at(tree, "").(map[string]any)
		if v, has := m[name]; has {
			return v, true
		}
		for other, v := range m {
			if !near && strings.EqualFold(other, name) {
				like, near = v, true
			}
		}
	}
	return like, near
}

// plain is a value that can be compared: nothing, a text, or a list of texts. What has more
// parts than one says nothing.
func (r *shownRules) plain(v any) (any, bool) {
	if text, ok := scalar(v); ok {
		return text, true
	}
	switch v := v.(type) {
	case nil:
		return nil, true
	case map[string]any:
		for _, as := range r.As {
			if text, ok := as.at(v, "").(string); ok {
				return text, true
			}
		}
		return nil, false
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			one, ok := r.plain(e)
			if _, isText := one.(string); !ok || !isText {
				return nil, false
			}
			out = append(out, one)
		}
		return out, true
	}
	return nil, false
}

// keptOf are the fields of a row for which the answer shows another value than was sent, with
// that value.
func (s *Sink) keptOf(r *shownRules, u *unit, tree any) map[string]any {
	if r == nil || u.row == nil {
		return nil
	}
	var kept map[string]any
	for name, sent := range u.row.Values {
		if u.omit[name] || blank(sent) && s.desc.values.Blank == "none" && !slices.Contains(s.desc.values.Lists, name) {
			continue // it was not sent
		}
		shown, ok := r.field(tree, name)
		if !ok || s.same(r, name, sent, shown) {
			continue
		}
		if kept == nil {
			kept = map[string]any{}
		}
		kept[name] = shown
	}
	return kept
}

// Alike reports whether a value of ours and what the target shows of a property are the same,
// however it spells it.
func (s *Sink) Alike(property string, ours, shown any) bool {
	if _, isList := shown.([]any); !isList && shown != nil {
		shown, _ = textOf(shown)
	}
	return blank(ours) == blank(shown) && s.same(&shownRules{}, property, ours, shown)
}

// Several takes apart what the target shows of a property with several values.
func (s *Sink) Several(shown any) []string {
	list, isList := shown.([]any)
	if text, isText := shown.(string); isText {
		list = s.cut(text)
	} else if !isList {
		return nil
	}
	var out []string
	for _, e := range list {
		if text, ok := textOf(e); ok && text != "" {
			out = append(out, text)
		}
	}
	return out
}

// same reports whether a target shows what it was sent, however it spells it. In doubt it does:
// a value that was taken must not pass for one that was not.
func (s *Sink) same(r *shownRules, name string, sent, shown any) bool {
	if blank(sent) {
		return blank(shown) || shown == "0" || shown == "false"
	}
	fold := func(text string) string {
		text = strings.Join(strings.Fields(text), " ")
		if r.Fold == "lower" {
			return strings.ToLower(text)
		}
		return s.Fold(name, text)
	}
	ours, ok := s.elements(sent)
	if !ok {
		return true
	}
	theirs, isList := shown.([]any)
	text, _ := shown.(string)
	if blank(shown) {
		return slices.Contains(ours, any(false))
	}
	if !isList {
		// A text as it stands, or the elements of a list that is written as one.
		if len(ours) == 1 && sameValue(ours[0], text, fold) {
			return true
		}
		if _, several := sent.([]any); several && s.desc.values.List == "" {
			return true
		}
		theirs = s.cut(text)
	}
	adds := isList // a list may hold what was there before
	if joined, isText := sent.(string); isText && s.desc.values.List != "" {
		adds = adds || strings.HasPrefix(joined, s.desc.values.List) // so does a text that begins with the separator
		ours = s.cut(joined)
	}
	holds := func(list []any, v any) bool {
		return slices.ContainsFunc(list, func(e any) bool { return sameValue(v, e.(string), fold) })
	}
	if slices.ContainsFunc(ours, func(v any) bool { return !holds(theirs, v) }) {
		return false
	}
	return adds || !slices.ContainsFunc(theirs, func(e any) bool {
		return !slices.ContainsFunc(ours, func(v any) bool { return sameValue(v, e.(string), fold) })
	})
}

// elements are the parts of a value that was sent; false where one of them has parts of its own.
func (s *Sink) elements(sent any) ([]any, bool) {
	list, isList := sent.([]any)
	if !isList {
		list = []any{sent}
	}
	for _, v := range list {
		switch v.(type) {
		case string, bool, int64, int, float64, decimal.Decimal, time.Time:
		default:
			return nil, false
		}
	}
	return list, true
}

// cut takes a list apart that is written as one text.
func (s *Sink) cut(text string) []any {
	sep := s.desc.values.List
	if sep == "" {
		return []any{text}
	}
	var out []any
	for part := range strings.SplitSeq(text, sep) {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// sameValue compares one value with the text that shows it.
func sameValue(sent any, shown string, fold func(string) string) bool {
	if is, isBool := sent.(bool); isBool {
		switch strings.ToLower(strings.TrimSpace(shown)) {
		case "true", "1", "yes":
			return is
		case "false", "0", "no":
			return !is
		}
		return false
	}
	ours := ""
	if t, isTime := sent.(time.Time); isTime {
		ours = t.Format(time.RFC3339Nano)
	} else {
		ours, _ = textOf(sent)
	}
	return fold(ours) == fold(shown) || sameNumber(ours, shown) || sameTime(ours, shown)
}

// sameNumber compares numbers by their value, and long ones as the floating point numbers that
// JSON makes of them in most languages.
func sameNumber(a, b string) bool {
	x, okX := number(a)
	y, okY := number(b)
	if !okX || !okY {
		return false
	}
	if x.Equal(y) {
		return true
	}
	const exact = 15 // digits that a floating point number keeps
	return max(len(a), len(b)) > exact && x.InexactFloat64() == y.InexactFloat64()
}

// number reads a text as a number of a reasonable size.
func number(text string) (decimal.Decimal, bool) {
	text = strings.TrimSpace(text)
	if f, err := strconv.ParseFloat(text, 64); err != nil || math.Abs(f) > 1e30 || len(text) > 60 {
		return decimal.Decimal{}, false
	}
	n, err := decimal.NewFromString(text)
	return n, err == nil && n.Exponent() > -100
}

// sameTime compares instants and dates: targets keep milliseconds, seconds or days, and write
// them as numbers or texts.
func sameTime(a, b string) bool {
	x, dayX, okX := instant(a)
	y, dayY, okY := instant(b)
	switch {
	case !okX || !okY:
		return false
	case dayX || dayY:
		return x.Format(time.DateOnly) == y.Format(time.DateOnly) || x.UTC().Format(time.DateOnly) == y.UTC().Format(time.DateOnly)
	}
	return x.Sub(y).Abs() < time.Second
}

// instant reads a text that may be a time, and tells whether it names no more than the day.
func instant(text string) (t time.Time, day, ok bool) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		switch len(text) {
		case 10:
			return time.Unix(n, 0).UTC(), false, true
		case 13:
			return time.UnixMilli(n).UTC(), false, true
		}
		return t, false, false
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, true, true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, false, true
		}
	}
	return t, false, false
}
