package sinks

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"partnersync/internal/diag"
	"partnersync/mappers"
)

// template is a text with expressions in braces: /objects/{record.object}.
type template struct {
	parts  []piece
	secret bool // the text came from a reference
}

type piece struct {
	text string
	leaf *leaf // nil for text
}

// compileTemplate compiles the text at n. A value that is a reference such as
// ${NAME} is taken as it is.
func compileTemplate(n diag.Node, scope *mappers.Scope, d *diag.Decoding) *template {
	if isReference(n) {
		text, _ := d.Scalar(n)
		return &template{parts: []piece{{text: text}}, secret: true}
	}
	text, ok := d.Scalar(n)
	if !ok {
		return nil
	}
	t, good := &template{}, true
	for at := 0; at < len(text); {
		open := strings.IndexByte(text[at:], '{')
		if open < 0 {
			t.parts = append(t.parts, piece{text: text[at:]})
			break
		}
		if open > 0 {
			t.parts = append(t.parts, piece{text: text[at : at+open]})
		}
		open += at
		end := strings.IndexByte(text[open:], '}')
		if end < 0 {
			d.Problems.Add(diag.Problem{Pos: n.PosAt(open), Message: "this { is never closed", Hint: "an expression stands between { and }"})
			return nil
		}
		end += open
		leaf := compileInside(n, open+1, text[open+1:end], scope, d)
		good = good && leaf != nil
		t.parts = append(t.parts, piece{leaf: leaf})
		at = end + 1
	}
	if !good {
		return nil
	}
	return t
}

// compileInside compiles a part of a scalar. The part is parsed as a document
// of its own, and its problems are moved to where it stands.
func compileInside(n diag.Node, offset int, text string, scope *mappers.Scope, d *diag.Decoding) *leaf {
	inner, problems := diag.Parse("", []byte("'"+strings.ReplaceAll(text, "'", "''")+"'"))
	if len(problems) > 0 {
		d.Errorf(n, "", "%q is no expression", text)
		return nil
	}
	var local diag.Decoding
	l := compileLeaf(inner, mappers.WantText, scope, &local)
	start := n.PosAt(offset)
	for _, p := range local.Problems {
		p.File, p.Line, p.Col = start.File, start.Line, start.Col+max(p.Col-2, 0)
		d.Problems.Add(p)
	}
	return l
}

func isReference(n diag.Node) bool {
	return n.Kind() == diag.Scalar && strings.HasPrefix(n.Text(), "${") && strings.HasSuffix(n.Text(), "}")
}

var (
	errEmptyPlace = errors.New("a value that belongs into the address is missing")
	errNoName     = errors.New("a member of the body has no name; a link has one in `as`")
)

// text renders the template; escape is applied to what expressions give. With
// must, an expression without a value is an error.
func (t *template) text(r *rendering, u *unit, item any, escape func(string) string, must bool) (string, error) {
	if len(t.parts) == 1 && t.parts[0].leaf == nil {
		return t.parts[0].text, nil
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.leaf == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := p.leaf.value(r, u, item)
		if err != nil {
			return "", err
		}
		text, ok := textOf(v)
		if !ok || must && text == "" {
			return "", errEmptyPlace
		}
		if escape != nil {
			text = escape(text)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// settings renders a template that reads settings only; "" where it fails.
func (t *template) settings(d *Description) string {
	text, err := t.text(&rendering{d: d}, nil, nil, nil, false)
	if err != nil {
		return ""
	}
	return text
}

// leaves are the expressions of the template.
func (t *template) leaves() []*leaf {
	var out []*leaf
	if t != nil {
		for _, p := range t.parts {
			if p.leaf != nil {
				out = append(out, p.leaf)
			}
		}
	}
	return out
}

// escapeSegment escapes a value for one segment of a path: it can neither add
// a segment nor leave the one it is in.
func escapeSegment(text string) string {
	switch text {
	case ".":
		return "%2E"
	case "..":
		return "%2E%2E"
	}
	return strings.ReplaceAll(url.PathEscape(text), "+", "%2B")
}

// body is the structure of a request's body: maps and lists as they stand in
// the description, expressions as leaves.
type body struct {
	kind    bodyKind
	entries []entry // of a map
	items   []*body // of a list
	leaf    *leaf
	each    *leaf // the list that element is repeated for; nil: the rows
	element *body
	text    *template
}

type entry struct {
	name   string
	label  *template // the name, where it is not the same for every row
	spread bool      // value is a map whose members go into this one
	value  *body
}

type bodyKind int

const (
	bodyLeaf bodyKind = iota
	bodyMap
	bodyList
	bodyEach
	bodyNull
	bodyText
)

// The keys of a body that are no names of members.
const (
	keyEach   = "$each"   // repeats the map for records, links, or a list inside a record
	keyItem   = "$item"   // what to repeat where it is no map
	keySpread = "$spread" // puts the members of a map here, or of several
	keyText   = "$text"   // a text with expressions in braces, as in an address
)

// compileBody compiles the body at n.
func compileBody(n diag.Node, scope *mappers.Scope, d *diag.Decoding) *body {
	switch n.Kind() {
	case diag.Null:
		return &body{kind: bodyNull}
	case diag.Scalar:
		l := compileLeaf(n, mappers.WantAny, scope, d)
		if l == nil {
			return nil
		}
		return &body{kind: bodyLeaf, leaf: l}
	case diag.List:
		b := &body{kind: bodyList}
		for _, item := range n.Items() {
			if c := compileBody(item, scope, d); c != nil {
				b.items = append(b.items, c)
			}
		}
		return b
	case diag.Map:
		return compileMap(n, scope, d)
	}
	return nil
}

func compileMap(n diag.Node, scope *mappers.Scope, d *diag.Decoding) *body {
	m := &body{kind: bodyMap}
	each := &body{kind: bodyEach, element: m}
	repeats := false
	all := n.Entries()
	for i, e := range all {
		if i+1 < len(all) && isSplit(all[i+1]) {
			d.Errorf(all[i+1].Key, "put the whole expression of "+e.Key.Text()+" in single quotes, or on a line of its own", "a comma inside { } ends a value in YAML")
			continue
		}
		if i > 0 && isSplit(e) {
			continue
		}
		switch name := e.Key.Text(); name {
		case keyEach:
			repeats = true
			if text := strings.TrimSpace(e.Value.Text()); text != "records" && text != "links" {
				each.each = compileLeaf(e.Value, mappers.WantList, scope, d)
				continue
			}
			// Compiled for its problems only: there are no links in an upsert.
			compileLeaf(e.Value, mappers.WantList, scope, d)
		case keyText:
			if t := compileTemplate(e.Value, scope, d); t != nil && len(all) == 1 {
				return &body{kind: bodyText, text: t}
			} else if t != nil {
				d.Errorf(e.Key, "give it a map of its own", "%s stands beside others", keyText)
			}
		case keyItem:
			each.element = compileBody(e.Value, scope, d)
		case keySpread:
			several := e.Value.Items()
			if e.Value.Kind() != diag.List {
				several = []diag.Node{e.Value}
			}
			for _, one := range several {
				if c := compileBody(one, scope, d); c != nil {
					m.entries = append(m.entries, entry{spread: true, value: c})
				}
			}
		default:
			if strings.HasPrefix(name, "$") {
				d.Errorf(e.Key, diag.OneOf(name, []string{keyEach, keyItem, keySpread, keyText}), "unknown directive %s", strconv.Quote(name))
				continue
			}
			c := compileBody(e.Value, scope, d)
			if c == nil {
				continue
			}
			one := entry{name: name, value: c}
			if strings.Contains(name, "{") {
				if one.label = compileTemplate(e.Key, scope, d); one.label == nil {
					continue
				}
			}
			m.entries = append(m.entries, one)
		}
	}
	if repeats {
		return each
	}
	return m
}

// isSplit tells what follows a comma inside { } that ended an expression.
func isSplit(e diag.Entry) bool {
	return e.Value.Kind() == diag.Null && strings.ContainsAny(e.Key.Text(), `()"'`) && !strings.Contains(e.Key.Text(), "{")
}

// leaves collects the expressions of b; those inside a repetition over the
// rows only when inside is set.
func (b *body) leaves(inside bool, out []*leaf) []*leaf {
	if b == nil {
		return out
	}
	if b.leaf != nil {
		out = append(out, b.leaf)
	}
	if b.each != nil {
		out = append(out, b.each)
	}
	out = append(out, b.text.leaves()...)
	for _, e := range b.entries {
		out = append(e.value.leaves(inside, out), e.label.leaves()...)
	}
	for _, item := range b.items {
		out = item.leaves(inside, out)
	}
	if b.kind == bodyEach && (inside || b.each != nil) {
		out = b.element.leaves(inside, out)
	}
	return out
}

// repeatsRows reports whether b holds a repetition over the rows.
func (b *body) repeatsRows() bool {
	if b == nil {
		return false
	}
	if b.kind == bodyEach && b.each == nil || b.element.repeatsRows() {
		return true
	}
	for _, e := range b.entries {
		if e.value.repeatsRows() {
			return true
		}
	}
	for _, item := range b.items {
		if item.repeatsRows() {
			return true
		}
	}
	return false
}
