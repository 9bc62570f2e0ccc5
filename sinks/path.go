package sinks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"partnersync/internal/diag"
)

// path is a place in a JSON answer: "errors[0].context.ids", "[*].error",
// "properties.{property}" (the rows' own key property), "." for the whole. A dot that belongs to a name is written \.
type path []step

type step struct {
	name     string
	index    int // of a list; every is all elements
	list     bool
	property bool // name is the Property of the rows
}

const every = -1

func parsePath(text string) (path, error) {
	if text == "." {
		return path{}, nil
	}
	var p path
	for segment := range strings.SplitSeq(strings.ReplaceAll(text, `\.`, "\x00"), ".") {
		name, rest, indexed := strings.Cut(strings.ReplaceAll(segment, "\x00", "."), "[")
		switch {
		case indexed && rest == "":
			return nil, fmt.Errorf("%q is no path", text)
		case name == "{property}":
			p = append(p, step{property: true})
		case strings.ContainsAny(name, "]{}"):
			return nil, fmt.Errorf("%q is no path", text)
		case name != "":
			p = append(p, step{name: name})
		case rest == "":
			return nil, fmt.Errorf("%q is no path", text)
		}
		for rest != "" {
			inside, after, ok := strings.Cut(rest, "]")
			index := every
			if inside != "*" {
				n, err := strconv.Atoi(inside)
				if err != nil || n < 0 {
					ok = false
				}
				index = n
			}
			if !ok || after != "" && after[0] != '[' {
				return nil, fmt.Errorf("%q is no path", text)
			}
			p = append(p, step{list: true, index: index})
			rest = strings.TrimPrefix(after, "[")
		}
	}
	return p, nil
}

// DecodeNode reads a path from its text.
func (p *path) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	parsed, err := parsePath(text)
	if err != nil {
		d.Errorf(n, `write it as in errors[0].message; "." is the whole answer`, "%v", err)
		return
	}
	*p = parsed
}

// at returns what stands at p, or nil. A step over all elements takes the first.
func (p path) at(tree any, property string) any {
	var found any
	p.each(tree, property, func(v any) {
		if found == nil {
			found = v
		}
	})
	return found
}

// texts appends the texts at p; a list at the end gives its elements.
func (p path) texts(tree any, property string, out []string) []string {
	p.each(tree, property, func(v any) {
		switch v := v.(type) {
		case string:
			out = append(out, v)
		case []any:
			for _, e := range v {
				if text, ok := scalar(e); ok {
					out = append(out, text)
				}
			}
		}
	})
	return out
}

func (p path) each(tree any, property string, yield func(any)) {
	if tree == nil {
		return
	}
	if len(p) == 0 {
		if text, ok := scalar(tree); ok {
			tree = text
		}
		yield(tree)
		return
	}
	s := p[0]
	if !s.list {
		name := s.name
		if s.property {
			name = property
		}
		if m, ok := tree.(map[string]any); ok {
			p[1:].each(m[name], property, yield)
		}
		return
	}
	l, _ := tree.([]any)
	for i, e := range l {
		if s.index == every || s.index == i {
			p[1:].each(e, property, yield)
		}
	}
}

// places are where a list may stand: the first place that holds anything counts.
type places []path

// DecodeNode reads a path, or a list of them.
func (ps *places) DecodeNode(n diag.Node, d *diag.Decoding) {
	items := n.Items()
	if n.Kind() != diag.List {
		items = []diag.Node{n}
	}
	*ps = make(places, len(items))
	for i, item := range items {
		d.Decode(item, &(*ps)[i])
	}
}

// at returns what stands at the first place that holds anything, or nil.
func (ps places) at(tree any, property string) any {
	for _, p := range ps {
		if v := p.at(tree, property); v != nil {
			return v
		}
	}
	return nil
}

// outline says which parts of an answer anybody asks for, so that decoding
// skips the rest: an answer repeats every property of every row.
type outline struct {
	whole  bool
	fields map[string]*outline
	others *outline // fields whose name is known only with the rows
	elems  *outline
}

// add marks the place that the paths lead to, one after the other.
func (o *outline) add(paths ...path) {
	for _, p := range paths {
		for _, s := range p {
			switch {
			case s.list:
				if o.elems == nil {
					o.elems = &outline{}
				}
				o = o.elems
			case s.property:
				if o.others == nil {
					o.others = &outline{}
				}
				o = o.others
			default:
				if o.fields == nil {
					o.fields = map[string]*outline{}
				}
				if o.fields[s.name] == nil {
					o.fields[s.name] = &outline{}
				}
				o = o.fields[s.name]
			}
		}
	}
	o.whole = true
}

// everyElement is the step that leads into a list.
func everyElement() path { return path{{list: true, index: every}} }

// numeral is a number of an answer, in its digits.
type numeral string

// scalar is the text of a single value of an answer.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case numeral:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// decode reads one JSON document: objects become map[string]any, lists []any, texts and booleans
// themselves, numbers a numeral, null nil. What the outline does not ask for is absent.
func (o *outline) decode(data []byte) (any, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	tree, err := o.value(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, errors.New("something follows the JSON")
	}
	return tree, nil
}

// decodePrefix is decode for a JSON value with more text behind it.
func (o *outline) decodePrefix(data string) (any, error) {
	dec := jsontext.NewDecoder(strings.NewReader(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return o.value(dec, 0)
}

// deepest is how far down an answer is read; no answer that a preset describes comes near.
const deepest = 32

func (o *outline) value(dec *jsontext.Decoder, depth int) (any, error) {
	if depth > deepest {
		return nil, dec.SkipValue()
	}
	switch kind := dec.PeekKind(); {
	case kind == '{' && (o.whole || o.fields != nil || o.others != nil):
		return o.object(dec, depth)
	case kind == '[' && (o.whole || o.elems != nil):
		return o.list(dec, depth)
	case kind == '{' || kind == '[':
		return nil, dec.SkipValue()
	}
	token, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return token.Kind() == 't', nil
	case '0':
		return numeral(token.String()), nil
	}
	return token.String(), nil
}

func (o *outline) object(dec *jsontext.Decoder, depth int) (any, error) {
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	m := make(map[string]any, len(o.fields))
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		name := token.String()
		child := o.child(name)
		if child == nil {
			if err := dec.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		v, err := child.value(dec, depth+1)
		if err != nil {
			return nil, err
		}
		m[name] = v
	}
	_, err := dec.ReadToken()
	return m, err
}

func (o *outline) child(name string) *outline {
	switch {
	case o.fields[name] != nil:
		return o.fields[name]
	case o.others != nil:
		return o.others
	case o.whole:
		return &outline{whole: true}
	}
	return nil
}

func (o *outline) list(dec *jsontext.Decoder, depth int) (any, error) {
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	elems := o.elems
	if elems == nil {
		elems = &outline{whole: o.whole}
	}
	l := []any{}
	for kind := dec.PeekKind(); kind != ']' && kind != 0; kind = dec.PeekKind() {
		v, err := elems.value(dec, depth+1)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	_, err := dec.ReadToken()
	return l, err
}
