package sinks

import (
	"net/http"
	"regexp"
	"strings"

	"partnersync/internal/diag"
)

// answer is what a target said, with the body decoded as far as somebody asks.
type answer struct {
	status int
	header http.Header
	tree   any    // nil where the body is no JSON
	text   string // the beginning of the body, for messages
	json   bool
	empty  bool
	again  bool   // the request was sent a second time, though the first may have had an effect
	fault  string // why the body is not what it should be: cut short, too long, not JSON

	units    []*unit // that it is about
	property string  // what {property} stands for
}

// extract finds texts in an answer: the first source that has any wins.
type extract []source

// source is one place of an answer. With a pattern only the first group of each
// match counts; with inner the text holds JSON from its first [ or {, and the
// path goes on in there; split cuts what was found into several.
type source struct {
	Path    *path     `yaml:"path"`
	Header  string    `yaml:"header"`
	Pattern *pattern  `yaml:"pattern"`
	Inner   *path     `yaml:"inner"`
	Split   string    `yaml:"split"`
	Self    diag.Node `yaml:",node"`
}

// DecodeNode reads a path, a map, or a list of both.
func (e *extract) DecodeNode(n diag.Node, d *diag.Decoding) {
	items := n.Items()
	if n.Kind() != diag.List {
		items = []diag.Node{n}
	}
	*e = nil
	for _, item := range items {
		var s source
		if item.Kind() == diag.Scalar {
			s.Path = &path{}
			d.Decode(item, s.Path)
		} else {
			d.Decode(item, &s)
			if s.Path == nil && s.Header == "" {
				d.Errorf(item, "", "say where it stands: path or header")
				continue
			}
		}
		*e = append(*e, s)
	}
}

// all returns what every source finds below tree.
func (e extract) all(a *answer, tree any, property string) []string {
	var out []string
	for i := range e {
		out = append(out, e[i].texts(a, tree, property)...)
	}
	return out
}

// first returns what the first source that finds anything finds.
func (e extract) first(a *answer, tree any, property string) []string {
	for i := range e {
		if out := e[i].texts(a, tree, property); len(out) > 0 {
			return out
		}
	}
	return nil
}

// one is the first text, or "".
func (e extract) one(a *answer, tree any, property string) string {
	if texts := e.first(a, tree, property); len(texts) > 0 {
		return texts[0]
	}
	return ""
}

func (s *source) texts(a *answer, tree any, property string) []string {
	var out []string
	if s.Header != "" {
		if v := a.header.Get(s.Header); v != "" {
			out = append(out, v)
		}
	} else {
		out = s.Path.texts(tree, property, nil)
	}
	if s.Inner != nil {
		out = s.within(out, property)
	}
	if s.Pattern != nil {
		var groups []string
		for _, text := range out {
			for _, m := range s.Pattern.FindAllStringSubmatch(text, -1) {
				groups = append(groups, m[len(m)-1])
			}
		}
		out = groups
	}
	if s.Split != "" {
		var parts []string
		for _, text := range out {
			for part := range strings.SplitSeq(text, s.Split) {
				if part = strings.TrimSpace(part); part != "" {
					parts = append(parts, part)
				}
			}
		}
		out = parts
	}
	kept := out[:0]
	for _, text := range out {
		if text != "" {
			kept = append(kept, text)
		}
	}
	return kept
}

// within reads the JSON that some targets put into the text of a message.
func (s *source) within(texts []string, property string) []string {
	var out []string
	var o outline
	o.add(*s.Inner)
	for _, text := range texts {
		at := strings.IndexAny(text, "[{")
		if at < 0 {
			continue
		}
		if tree, err := o.decodePrefix(text[at:]); err == nil {
			out = s.Inner.texts(tree, property, out)
		}
	}
	return out
}

// outline adds what e reads below the given path.
func (e extract) outline(o *outline, below ...path) {
	for _, s := range e {
		if s.Path != nil {
			o.add(append(append([]path{}, below...), *s.Path)...)
		}
	}
}

// pattern is a regular expression that is compiled when it is decoded.
type pattern struct{ *regexp.Regexp }

// DecodeNode compiles the text of n.
func (p *pattern) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	re, err := regexp.Compile(text)
	if err != nil {
		d.Errorf(n, "", "%v", err)
		re = regexp.MustCompile("")
	}
	p.Regexp = re
}

// condition is something that an answer may say: a path that is true, a path
// or header that equals a text, a status.
type condition struct {
	Path   *path    `yaml:"path"`
	Equals *string  `yaml:"equals"`
	Exists bool     `yaml:"exists"` // whatever it is
	Status statuses `yaml:"status"`
}

// DecodeNode reads a path, or a map.
func (c *condition) DecodeNode(n diag.Node, d *diag.Decoding) {
	if n.Kind() == diag.Scalar {
		c.Path = &path{}
		d.Decode(n, c.Path)
		return
	}
	type plain condition
	d.Decode(n, (*plain)(c))
	if c.Path == nil && c.Status == nil {
		d.Errorf(n, "", "say what it looks at: path or status")
	}
}

func (c *condition) holds(a *answer, tree any, property string) bool {
	if c.Status != nil && !c.Status.has(a.status) {
		return false
	}
	if c.Path == nil {
		return true
	}
	if c.Exists {
		return !blank(c.Path.at(tree, property))
	}
	for _, text := range c.Path.texts(tree, property, nil) {
		if c.Equals == nil && text == "true" || c.Equals != nil && text == *c.Equals {
			return true
		}
	}
	return false
}

func (c *condition) outline(o *outline, below ...path) {
	if c != nil && c.Path != nil {
		o.add(append(append([]path{}, below...), *c.Path)...)
	}
}

// outlineOf marks what the request-level parts of an operation read.
func (d *Description) outlineOf(r *resultRules) *outline {
	o := &outline{}
	for _, e := range d.errors.extracts() {
		e.outline(o)
	}
	for i := range d.classify {
		d.classify[i].Wait.outline(o)
		if has := d.classify[i].Has; has != nil {
			o.add(*has)
		}
	}
	for i := range d.reports {
		d.reports[i].Wait.outline(o)
	}
	d.budget.outline(o)
	r.outline(o, d.rowErrors.extracts())
	return o
}
