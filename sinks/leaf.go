package sinks

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
	"partnersync/mappers"
)

// leaf is one expression of a description. The plain ones, such as
// record.values, are read straight from the row: they are most of what a
// request of a hundred rows is made of.
type leaf struct {
	expr  *mappers.Expression
	text  string
	plain func(*unit) any
	rows  bool // it reads records or links, the lists
	links bool // it is a list of record.links, of which most rows have none
	id    bool // it is the id of a record and nothing else

	setting string // it is this setting and nothing else
}

var (
	mentionsRows = regexp.MustCompile(`\b(records|links)\b`)
	onlyAnID     = regexp.MustCompile(`^(record|item|link\.from|link\.to)\.id$`)
	onlySetting  = regexp.MustCompile(`^setting\.(\w+)$`)
)

// compileLeaf compiles the expression at n; nil with a problem in d.
func compileLeaf(n diag.Node, want mappers.Want, scope *mappers.Scope, d *diag.Decoding) *leaf {
	e := mappers.Compile(n, want, scope, d)
	if e == nil {
		return nil
	}
	text := strings.TrimSpace(n.Text())
	l := &leaf{
		expr: e, text: text, plain: plainly[text], rows: mentionsRows.MatchString(strings.ReplaceAll(text, ".links", "")),
		links: want == mappers.WantList && strings.Contains(text, "record.links"), id: onlyAnID.MatchString(text),
	}
	if m := onlySetting.FindStringSubmatch(text); m != nil {
		l.setting = m[1]
	}
	return l
}

// value is what the expression gives for a row. item is the element of a
// list inside the row, where there is one.
func (l *leaf) value(r *rendering, u *unit, item any) (any, error) {
	switch {
	case l.plain != nil && u != nil:
		return l.plain(u), nil
	case l.setting != "":
		return r.d.settings[l.setting], nil // as it was written: an empty list is one
	case l.links && u != nil && u.row != nil && len(u.row.Links) == 0:
		return nil, nil
	}
	return l.expr.Eval(r.vars(l, u, item))
}

// plainly are the expressions that need no evaluation.
var plainly = map[string]func(*unit) any{
	"record.trace":             func(u *unit) any { return u.row.Trace },
	"record.object":            func(u *unit) any { return u.row.Object },
	"record.property":          func(u *unit) any { return blankNil(u.row.Property) },
	"record.key":               func(u *unit) any { return blankNil(u.row.Key) },
	"record.id":                func(u *unit) any { return blankNil(u.row.ID) },
	"record.values":            func(u *unit) any { return written{u, theValues} },
	"record.fields":            func(u *unit) any { return written{u, withKey} },
	"record.others":            func(u *unit) any { return written{u, butKey} },
	"record.event.id":          func(u *unit) any { return blankNil(u.row.Event.ID) },
	"record.event.source":      func(u *unit) any { return blankNil(u.row.Event.Source) },
	"record.event.type":        func(u *unit) any { return blankNil(u.row.Event.Type) },
	"record.event.mapping":     func(u *unit) any { return blankNil(u.row.Event.Mapping) },
	"record.event.occurred_at": func(u *unit) any { return zeroNil(u.row.Event.OccurredAt) },
	"link.trace":               func(u *unit) any { return u.link.Trace },
	"link.as":                  func(u *unit) any { return blankNil(u.link.As) },
	"link.from.object":         func(u *unit) any { return u.link.From.Object },
	"link.from.id":             func(u *unit) any { return blankNil(u.link.From.ID) },
	"link.to.object":           func(u *unit) any { return u.link.To.Object },
	"link.to.id":               func(u *unit) any { return blankNil(u.link.To.ID) },
}

func blankNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func zeroNil(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// The schemas of what expressions read.
var (
	textSchema = mappers.Schema{Kind: mappers.Text}
	anySchema  = mappers.Schema{Kind: mappers.Any}
)

func objectOf(fields map[string]mappers.Schema) mappers.Schema {
	return mappers.Schema{Kind: mappers.Object, Fields: fields}
}

func rowSchema() mappers.Schema {
	link := objectOf(map[string]mappers.Schema{"object": textSchema, "property": textSchema, "key": textSchema, "id": textSchema, "as": textSchema})
	term := objectOf(map[string]mappers.Schema{"property": textSchema, "value": textSchema})
	return objectOf(map[string]mappers.Schema{
		"trace": textSchema, "object": textSchema, "property": textSchema, "key": textSchema, "id": textSchema,
		"values": {Kind: mappers.Map, Elem: &anySchema}, "fields": {Kind: mappers.Map, Elem: &anySchema},
		"others": {Kind: mappers.Map, Elem: &anySchema},
		"links":  {Kind: mappers.List, Elem: &link},
		"terms":  {Kind: mappers.List, Elem: &term},
		"read":   {Kind: mappers.List, Elem: &textSchema},
		"event": objectOf(map[string]mappers.Schema{
			"id": textSchema, "source": textSchema, "type": textSchema, "mapping": textSchema,
			"occurred_at": {Kind: mappers.Time, Unit: "s"},
		}),
	})
}

func linkSchema() mappers.Schema {
	ref := objectOf(map[string]mappers.Schema{"object": textSchema, "property": textSchema, "key": textSchema, "id": textSchema})
	return objectOf(map[string]mappers.Schema{"trace": textSchema, "as": textSchema, "from": ref, "to": ref})
}

// settingsScope is what templates outside operations may read.
func settingsScope() *mappers.Scope {
	return &mappers.Scope{Variables: map[string]mappers.Schema{
		"setting": {Kind: mappers.Map, Elem: &anySchema},
		"auth":    objectOf(map[string]mappers.Schema{"tenant": textSchema, "base_url": textSchema}),
	}}
}

// operationScope is what the expressions of an operation may read.
func operationScope(op Operation, settings map[string]mappers.Schema) *mappers.Scope {
	v := map[string]mappers.Schema{
		"setting":   objectOf(settings),
		"operation": textSchema,
		"request":   objectOf(map[string]mappers.Schema{"id": textSchema}),
		"item":      anySchema,
	}
	if len(settings) == 0 {
		v["setting"] = mappers.Schema{Kind: mappers.Map, Elem: &anySchema}
	}
	if op.lists() {
		v["request"] = objectOf(map[string]mappers.Schema{"id": textSchema, "cursor": textSchema, "page": {Kind: mappers.Integer}})
	}
	if op == Scopes {
		v["request"] = objectOf(map[string]mappers.Schema{"id": textSchema, "token": textSchema})
	}
	if op == MakeField || op == MakeGroup || op == FieldOptions {
		v["field"] = newFieldSchema()
	}
	if op.looks() {
		v["request"] = objectOf(map[string]mappers.Schema{"id": textSchema, "read": {Kind: mappers.List, Elem: &textSchema}})
	}
	switch op {
	case Link, Unlink:
		one := linkSchema()
		v["link"], v["links"] = one, mappers.Schema{Kind: mappers.List, Elem: &one}
	case WhoAmI, Scopes:
	default:
		one := rowSchema()
		v["record"], v["records"] = one, mappers.Schema{Kind: mappers.List, Elem: &one}
	}
	return &mappers.Scope{Variables: v}
}

// unit is a row or a link on its way, with what expressions see of it.
type unit struct {
	row  *Row
	link *LinkRow
	at   int             // its place among the results
	omit map[string]bool // optional fields that are left out
	bare bool            // its links are left out
	seen map[string]any  // the variable; nil until somebody reads it

	field *NewField // of make_field and what is like it
}

func (u *unit) trace() string {
	if u.link != nil {
		return u.link.Trace
	}
	return u.row.Trace
}

// without returns the unit with some of its optional fields left out.
func (u *unit) without(fields []string) *unit {
	v := *u
	v.seen, v.omit = nil, map[string]bool{}
	for name := range u.omit {
		v.omit[name] = true
	}
	for _, name := range fields {
		v.omit[name] = true
	}
	return &v
}

// unlinked returns the unit with its links left out.
func (u *unit) unlinked() *unit {
	row := *u.row
	row.Links = nil
	v := *u
	v.row, v.seen, v.bare = &row, nil, true
	return &v
}

// object is that of the record which the request is about.
func (u *unit) object() string {
	switch {
	case u == nil:
		return ""
	case u.link != nil:
		return u.link.From.Object
	case u.row != nil:
		return u.row.Object
	}
	return ""
}

// linked reports whether the row carries links.
func (u *unit) linked() bool { return u.row != nil && len(u.row.Links) > 0 }

// variable is record or link as expressions read it.
func (u *unit) variable(d *Description) map[string]any {
	if u.seen != nil {
		return u.seen
	}
	if l := u.link; l != nil {
		u.seen = map[string]any{"trace": l.Trace, "as": l.As, "from": l.From.variable(), "to": l.To.variable()}
		return u.seen
	}
	r := u.row
	links := make([]any, len(r.Links))
	for i, l := range r.Links {
		links[i] = map[string]any{"object": l.Object, "property": l.Property, "key": l.Key, "id": l.ID, "as": l.As}
	}
	terms := make([]any, len(r.Terms))
	for i, t := range r.Terms {
		terms[i] = map[string]any{"property": t.Property, "value": d.folds.sought(t)}
	}
	read := make([]any, len(r.Read))
	for i, name := range r.Read {
		read[i] = name
	}
	u.seen = map[string]any{
		"trace": r.Trace, "object": r.Object, "property": r.Property, "key": r.Key, "id": r.ID, "links": links, "terms": terms, "read": read,
		"values": d.values.plainly(u, theValues), "fields": d.values.plainly(u, withKey), "others": d.values.plainly(u, butKey),
		"event": map[string]any{
			"id": r.Event.ID, "source": r.Event.Source, "type": r.Event.Type, "mapping": r.Event.Mapping,
			"occurred_at": zeroNil(r.Event.OccurredAt),
		},
	}
	return u.seen
}

func (r Ref) variable() map[string]any {
	return map[string]any{"object": r.Object, "property": r.Property, "key": r.Key, "id": r.ID}
}

// textOf writes a single value out; "" for nil, false for what is no single value.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case int:
		return strconv.Itoa(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case decimal.Decimal:
		text, err := decimalText(v)
		return text, err == nil
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), true
	}
	return "", false
}

// decimalText writes all digits; a number whose digits would fill pages is refused.
func decimalText(d decimal.Decimal) (string, error) {
	if e := d.Exponent(); e > maxExponent || e < -maxExponent {
		return "", fmt.Errorf("a number has more than %d digits", maxExponent)
	}
	return d.String(), nil
}

const maxExponent = 1000
