package diag

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Kind is what a Node is.
type Kind int

// The kinds of nodes. None is the kind of the zero Node, "not there".
const (
	None Kind = iota
	Null
	Scalar
	List
	Map
)

func (k Kind) String() string {
	return [...]string{"nothing", "null", "a value", "a list", "a map"}[k]
}

// Node is one value of a YAML document and the place it stands at. The zero
// Node stands for a value that is not there. Nodes are never changed.
type Node struct{ t *tree }

type tree struct {
	kind    Kind
	pos     Pos
	data    []byte // the whole document, to find places inside block scalars
	text    string
	tag     string
	style   yaml.Style
	comment string
	alias   bool
	items   []Node
	entries []Entry
}

// Entry is one key of a map with its value.
type Entry struct {
	Key   Node
	Value Node
}

// Parse reads one YAML document. An empty document gives the zero Node. The
// only problems are those of syntax; duplicate keys come with Decode.
func Parse(file string, data []byte) (Node, Problems) {
	var problems Problems
	if !utf8.Valid(data) {
		at := Pos{File: file, Line: 1, Col: 1}
		for i, line := range bytes.Split(data, []byte("\n")) {
			if !utf8.Valid(line) {
				at.Line = i + 1
				break
			}
		}
		problems.Add(Problem{Pos: at, Message: "the file is not UTF-8", Hint: "save it as UTF-8"})
		return Node{}, problems
	}
	var doc yaml.Node
	if err := load(data, &doc); err != nil {
		problems.Add(syntaxProblem(file, data, err))
		return Node{}, problems
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return Node{}, problems
	}
	if (depths{}).below(doc.Content[0], 0) > maxDepth {
		problems.Errorf(Pos{File: file, Line: 1, Col: 1}, "the document is nested more than %d levels deep", maxDepth)
		return Node{}, problems
	}
	c := converter{file: file, data: data, left: maxNodes, aliased: maxAliased}
	n := c.convert(doc.Content[0])
	switch {
	case c.aliased < 0:
		problems.Add(Problem{Pos: c.at, Message: fmt.Sprintf("aliases stand for more than %d values up to here", maxAliased), Hint: "an alias repeats all that its anchor holds, the aliases in it too"})
		return Node{}, problems
	case c.left < 0:
		problems.Errorf(Pos{File: file, Line: 1, Col: 1}, "the document has more than %d values", maxNodes)
		return Node{}, problems
	}
	return n, problems
}

// Bounds that no honest document comes near.
const (
	maxDepth   = 100
	maxNodes   = 1_000_000
	maxAliased = 100_000 // of them, those that aliases stand for
)

// depths has how deep it goes below nodes. Each is looked at once, however many aliases
// stand for it.
type depths map[*yaml.Node]int

// below also ends on an anchor that holds itself.
func (d depths) below(n *yaml.Node, level int) int {
	if level > maxDepth {
		return level
	}
	if known, ok := d[n]; ok {
		return known
	}
	children := n.Content
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		children = []*yaml.Node{n.Alias}
	}
	deepest := 0
	for _, c := range children {
		if deepest = max(deepest, 1+d.below(c, level+1)); deepest > maxDepth {
			break
		}
	}
	d[n] = deepest
	return deepest
}

type converter struct {
	file string
	data []byte
	left int

	inside  int // so many aliases
	aliased int // so many more values may they stand for
	at      Pos // of the outermost
}

func (c *converter) convert(y *yaml.Node) Node {
	c.left--
	if c.inside > 0 {
		c.aliased--
	}
	if c.left < 0 || c.aliased < 0 {
		return Node{}
	}
	if y.Kind == yaml.AliasNode && y.Alias != nil {
		if c.inside == 0 {
			c.at = Pos{c.file, y.Line, y.Column}
		}
		c.inside++
		n := c.convert(y.Alias)
		c.inside--
		if n.t == nil {
			return n
		}
		t := *n.t
		t.alias, t.pos, t.comment = true, Pos{c.file, y.Line, y.Column}, y.LineComment
		return Node{&t}
	}
	t := &tree{pos: Pos{c.file, y.Line, y.Column}, data: c.data, style: y.Style, tag: y.ShortTag(), comment: y.LineComment}
	switch y.Kind {
	case yaml.SequenceNode:
		t.kind = List
		for _, i := range y.Content {
			t.items = append(t.items, c.convert(i))
		}
	case yaml.MappingNode:
		t.kind = Map
		for i := 0; i+1 < len(y.Content); i += 2 {
			t.entries = append(t.entries, Entry{c.convert(y.Content[i]), c.convert(y.Content[i+1])})
		}
	default:
		t.kind, t.text = Scalar, y.Value
		if t.tag == "!!null" && !t.quoted() {
			t.kind = Null
		}
	}
	return Node{t}
}

func (t *tree) quoted() bool {
	return t.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// load keeps a panic of the YAML library from taking the process down: a
// config is what somebody typed.
func load(data []byte, into *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML cannot be read: %v", r)
		}
	}()
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	return yaml.Load(data, into)
}

func syntaxProblem(file string, data []byte, err error) Problem {
	p := Problem{Pos: Pos{File: file, Line: 1, Col: 1}, Message: "YAML: " + err.Error()}
	var at *yaml.LoadError
	if errors.As(err, &at) {
		p.Line, p.Col = max(at.Mark.Line, 1), max(at.Mark.Column, 1)
		p.Message = "YAML: " + at.Message
	}
	switch {
	case strings.Contains(p.Message, "mapping values are not allowed"):
		p.Hint = "a colon followed by a space ends an unquoted value: put the whole value in single quotes"
	case strings.Contains(p.Message, "unknown anchor"):
		p.Message = "YAML: unknown anchor" // its name may be a secret that begins with *
		p.Hint = "a leading * is YAML's sign for an alias: put the whole value in single quotes"
	case strings.Contains(p.Message, "tab character"):
		p.Hint = "YAML is indented with spaces, never with tabs"
	case strings.Contains(p.Message, "cannot start any token"):
		p.Hint = "indent with spaces, and put a value that starts with a sign such as % or @ in single quotes"
		if line, ok := lineOf(func(string) []byte { return data }, p.Pos); ok && strings.Contains(line, "\t") {
			p.Hint = "YAML is indented with spaces, never with tabs"
		}
	case strings.Contains(p.Message, "did not find expected ',' or"):
		p.Hint = "inside { } a comma ends a value, and a leading [ or { begins a list or map: put the whole value in single quotes, or each key on a line of its own"
	case strings.Contains(p.Message, "did not find expected key"):
		p.Hint = "check the indentation, and put values that start with a quote or a sign in single quotes"
	}
	return p
}

// Kind returns what n is.
func (n Node) Kind() Kind {
	if n.t == nil {
		return None
	}
	return n.t.kind
}

// Exists reports whether n stands in the document at all.
func (n Node) Exists() bool { return n.t != nil }

// Pos is where n begins.
func (n Node) Pos() Pos {
	if n.t == nil {
		return Pos{}
	}
	return n.t.pos
}

// Text is a scalar's text, without its quotes.
func (n Node) Text() string {
	if n.t == nil {
		return ""
	}
	return n.t.text
}

// Quoted reports whether a scalar stands in quotes or is a block.
func (n Node) Quoted() bool { return n.t != nil && n.t.quoted() }

// Tag is YAML's type of n: "!!str", "!!int", "!!bool", ...; a tag that
// somebody wrote, by accident or not, is returned as it stands.
func (n Node) Tag() string {
	if n.t == nil {
		return ""
	}
	return n.t.tag
}

// Comment is the comment behind n on its line, with the #, or "".
func (n Node) Comment() string {
	if n.t == nil {
		return ""
	}
	return n.t.comment
}

// PosAt is the place of the character at byte offset of a scalar's Text, as far
// as the way the scalar is written allows to tell.
func (n Node) PosAt(offset int) Pos {
	at := n.Pos()
	if n.Kind() != Scalar || n.t.alias {
		return at
	}
	text := n.t.text
	before := text[:min(max(offset, 0), len(text))]
	switch {
	case n.t.style&yaml.LiteralStyle != 0:
		at.Line += 1 + strings.Count(before, "\n")
		line, _ := lineOf(func(string) []byte { return n.t.data }, at)
		at.Col = 1 + len(line) - len(strings.TrimLeft(line, " ")) + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	case strings.Contains(text, "\n") || n.t.style&yaml.FoldedStyle != 0:
		// Folded lines cannot be told apart any more.
	case n.t.style&yaml.SingleQuotedStyle != 0:
		at.Col += 1 + utf8.RuneCountInString(before) + strings.Count(before, "'")
	case n.t.style&yaml.DoubleQuotedStyle != 0:
		at.Col += 1 + utf8.RuneCountInString(before) + strings.Count(before, `"`) + strings.Count(before, `\`)
	case !strings.HasPrefix(n.t.tag, "!!"):
		at.Col += len(n.t.tag) + 1 + utf8.RuneCountInString(before)
	default:
		at.Col += utf8.RuneCountInString(before)
	}
	return at
}

// Items are the elements of a list.
func (n Node) Items() []Node {
	if n.t == nil {
		return nil
	}
	return n.t.items
}

// Entries are the keys and values of a map in the order written. A merge key
// (<<) contributes the entries that the map itself does not have.
func (n Node) Entries() []Entry {
	if n.t == nil {
		return nil
	}
	var own, merged []Entry
	for _, e := range n.t.entries {
		if e.Key.Tag() != "!!merge" {
			own = append(own, e)
			continue
		}
		sources := []Node{e.Value}
		if e.Value.Kind() == List {
			sources = e.Value.Items()
		}
		for _, s := range sources {
			merged = append(merged, s.Entries()...)
		}
	}
	if merged == nil {
		return own
	}
	has := map[string]bool{}
	for _, e := range own {
		has[e.Key.Text()] = true
	}
	for _, e := range merged {
		if !has[e.Key.Text()] {
			has[e.Key.Text()] = true
			own = append(own, e)
		}
	}
	return own
}

// Get returns the value of a map's key, or the zero Node.
func (n Node) Get(key string) Node {
	for _, e := range n.Entries() {
		if e.Key.Text() == key {
			return e.Value
		}
	}
	return Node{}
}

// Keys are the texts of a map's keys in the order written.
func (n Node) Keys() []string {
	var keys []string
	for _, e := range n.Entries() {
		keys = append(keys, e.Key.Text())
	}
	return keys
}

// Plain gives n as map[string]any, []any, string, bool, int64, float64 or nil.
// Numbers that fit neither stay text.
func (n Node) Plain() any {
	switch n.Kind() {
	case Map:
		m := map[string]any{}
		for _, e := range n.Entries() {
			m[e.Key.Text()] = e.Value.Plain()
		}
		return m
	case List:
		l := make([]any, 0, len(n.t.items))
		for _, i := range n.t.items {
			l = append(l, i.Plain())
		}
		return l
	case Scalar:
		if n.Quoted() {
			return n.t.text
		}
		switch n.t.tag {
		case "!!bool":
			return strings.EqualFold(n.t.text, "true")
		case "!!int":
			if i, err := strconv.ParseInt(n.t.text, 0, 64); err == nil {
				return i
			}
		case "!!float":
			if f, err := strconv.ParseFloat(n.t.text, 64); err == nil {
				return f
			}
		}
		return n.t.text
	}
	return nil
}

// Overlay returns base with the keys of over laid on top, map by map: anything
// that is not a map on both sides is replaced whole, and a key set to null in
// over is taken away. Each value keeps its own place.
func Overlay(base, over Node) Node {
	if !over.Exists() {
		return base
	}
	if base.Kind() != Map || over.Kind() != Map {
		return over
	}
	t := *over.t
	t.entries = nil
	seen := map[string]bool{}
	for _, e := range base.Entries() {
		name := e.Key.Text()
		seen[name] = true
		o := over.Get(name)
		switch {
		case o.Kind() == Null:
		case o.Exists():
			t.entries = append(t.entries, Entry{overKey(over, name), Overlay(e.Value, o)})
		default:
			t.entries = append(t.entries, e)
		}
	}
	for _, e := range over.Entries() {
		if !seen[e.Key.Text()] && e.Value.Kind() != Null {
			t.entries = append(t.entries, e)
		}
	}
	return Node{&t}
}

func overKey(n Node, name string) Node {
	for _, e := range n.Entries() {
		if e.Key.Text() == name {
			return e.Key
		}
	}
	return Node{}
}
