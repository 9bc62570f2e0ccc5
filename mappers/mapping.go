package mappers

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"partnersync/internal/diag"
)

// entry is one item of `mappings:`, or of its `records:`, as somebody wrote it.
type entry struct {
	Node diag.Node `yaml:",node"`

	// what records of one mapping share
	Name    diag.Node   `yaml:"name"`
	On      []diag.Node `yaml:"on,single"`
	Let     diag.Node   `yaml:"let"`
	Needs   diag.Node   `yaml:"needs"`
	Records []diag.Node `yaml:"records"`

	// what each record may have
	When        diag.Node         `yaml:"when"`
	Each        diag.Node         `yaml:"each"`
	Limit       diag.Node         `yaml:"limit"`
	To          diag.Node         `yaml:"to"`
	Object      diag.Node         `yaml:"object"`
	Mode        diag.Node         `yaml:"mode"`
	Key         diag.Node         `yaml:"key"`
	Match       diag.Node         `yaml:"match"`
	Several     diag.Node         `yaml:"several"`
	Taken       diag.Node         `yaml:"taken"`
	Absent      diag.Node         `yaml:"absent"`
	IfDeleted   diag.Node         `yaml:"if_deleted"`
	Rewrite     bool              `yaml:"rewrite"`
	Set         diag.Node         `yaml:"set"`
	SetFirst    diag.Node         `yaml:"set_first"`
	SetIfEmpty  diag.Node         `yaml:"set_if_empty"`
	SetOnCreate diag.Node         `yaml:"set_on_create"`
	Forward     diag.Node         `yaml:"forward"`
	Clear       []diag.Node       `yaml:"clear,single"`
	Touch       diag.Node         `yaml:"touch"`
	Sum         diag.Node         `yaml:"sum"`
	Count       diag.Node         `yaml:"count"`
	Add         diag.Node         `yaml:"add"`
	Links       []diag.Node       `yaml:"links"`
	Unlink      []diag.Node       `yaml:"unlink"`
	Optional    []diag.Node       `yaml:"optional,single"`
	OnReject    map[string]string `yaml:"on_reject"`
}

// later are the keys that are part of the grammar and do not work yet.
var later = []string{"sum", "count", "needs"}

// sharedKeys stand on a mapping, never in its records.
var sharedKeys = []string{"name", "on", "let", "needs", "records"}

// mapping is a compiled entry.
type mapping struct {
	name    string
	on      []string // "source.type", sorted
	hash    string
	records []*record // as many variants of each as there are sources with other defaults
	guards  map[string]*guard
	hook    bool // whether an expression reads hook
	fixed   []string
}

// compilation compiles one mapping for one of its sources.
type compilation struct {
	catalog *Catalog
	d       *diag.Decoding
	scope   *Scope
	bound   map[string]bool // names of let that read item
	hook    bool            // whether an expression reads hook
	fixed   []string        // see Mapper.Constants
	failed  bool            // whether one does not compile, even if its problem is known from an alias
}

// compileMapping returns nil when the mapping cannot be used at all; its
// problems are in d.
func compileMapping(n diag.Node, catalog *Catalog, d *diag.Decoding) *mapping {
	var e entry
	before := len(d.Problems)
	d.Decode(n, &e)
	if n.Kind() != diag.Map {
		return nil
	}
	m := &mapping{name: nameOf(n, e, d), hash: textHash(n), guards: map[string]*guard{}}
	if !n.Get("on").Exists() {
		d.Errorf(n, "it names the events, such as on: partnerstack.deal.*", "the key %q is missing", "on")
	}
	entries := recordsOf(e, d)
	types := eventTypes(e.On, catalog, d)
	sources := map[string]bool{}
	event := Schema{Kind: Any} // where `on` is wrong, the rest is still looked at
	for i, t := range types {
		source, typ, _ := strings.Cut(t, ".")
		info := catalog.Sources[source]
		s := permitted(*info.Events[typ], "", info.Allow)
		if s.Kind == "" {
			s.Kind = Object
		}
		m.guards[t] = guardOf(s)
		if i == 0 {
			event = s
		} else {
			event = merged(event, s)
		}
		sources[source] = true
	}
	m.on = types
	if len(types) == 0 {
		sources[""] = true
	}
	failed := false
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		c := &compilation{catalog: catalog, d: d, bound: map[string]bool{}, scope: &Scope{
			Variables: map[string]Schema{"event": event, "hook": hookSchema()}, Tables: catalog.Tables,
		}}
		if info := catalog.Sources[source]; info != nil {
			c.scope.Zone, c.scope.Currency = info.Zone, info.Currency
		}
		m.records = append(m.records, c.mapping(e, entries, source)...)
		m.hook = m.hook || c.hook
		m.fixed = append(m.fixed, c.fixed...)
		failed = failed || c.failed
	}
	if failed || d.Problems[before:].Failed() {
		return nil
	}
	return m
}

func nameOf(n diag.Node, e entry, d *diag.Decoding) string {
	if !e.Name.Exists() {
		d.Errorf(n, "deliveries and metrics are told apart by it", "the mapping has no name")
		return ""
	}
	name, _ := d.Scalar(e.Name)
	if e.Name.Kind() == diag.Scalar && (strings.TrimSpace(name) != name || name == "" || len(name) > 100 || strings.ContainsAny(name, "\n\r\t")) {
		d.Errorf(e.Name, "", "a name is a line of up to 100 characters without blanks at its ends")
	}
	return name
}

// textHash tells versions of one mapping apart. The order of keys and comments do not count.
func textHash(n diag.Node) string {
	text, err := json.Marshal(n.Plain())
	if err != nil {
		text = nil // Plain gives nothing that JSON cannot hold
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// recordsOf gives the entries that describe records: those of `records:`, or
// the mapping itself.
func recordsOf(e entry, d *diag.Decoding) []entry {
	if !e.Node.Get("records").Exists() {
		return []entry{e}
	}
	for _, k := range e.Node.Entries() {
		name := k.Key.Text()
		if !slices.Contains(sharedKeys, name) && name != "when" && name != "to" && slices.Contains(diag.KeysOf(entry{}), name) {
			d.Errorf(k.Key, "records share on, when, let and to; the rest stands in each of them", "%s cannot stand beside records", name)
		}
	}
	var out []entry
	for _, n := range e.Records {
		var r entry
		d.Decode(n, &r)
		if n.Kind() != diag.Map {
			continue
		}
		for _, k := range n.Entries() {
			if slices.Contains(sharedKeys, k.Key.Text()) {
				d.Errorf(k.Key, "it is shared by all records of the mapping", "%s cannot stand in a record", k.Key.Text())
			}
		}
		if !r.To.Exists() {
			r.To = e.To
		}
		out = append(out, r)
	}
	if len(e.Records) == 0 {
		d.Errorf(e.Node.Get("records"), "", "records holds no record")
	}
	return out
}

// eventTypes gives the events that the patterns of `on` name, sorted.
func eventTypes(patterns []diag.Node, catalog *Catalog, d *diag.Decoding) []string {
	var known []string
	for source, info := range catalog.Sources {
		for typ := range info.Events {
			known = append(known, source+"."+typ)
		}
	}
	slices.Sort(known)
	var out []string
	for _, n := range patterns {
		pattern, ok := d.Scalar(n)
		if !ok {
			continue
		}
		found := false
		for _, t := range known {
			if matchType(pattern, t) {
				out = append(out, t)
				found = true
			}
		}
		if found {
			continue
		}
		source, typ, dotted := strings.Cut(pattern, ".")
		info := catalog.Sources[source]
		switch {
		case strings.Contains(pattern, "*") && (info != nil || strings.Contains(source, "*")):
			d.Errorf(n, "* stands for anything; `partnersync show source` lists the events", "no event matches %q", pattern)
		case !dotted:
			d.Errorf(n, diag.DidYouMean(pattern, known), "%q is no event; write source.event", pattern)
		case info == nil:
			d.Errorf(n, diag.OneOf(source, slices.Sorted(maps.Keys(catalog.Sources))), "unknown source %q", source)
		default:
			d.Errorf(n, diag.OneOf(typ, slices.Sorted(maps.Keys(info.Events))), "source %q has no event %q", source, typ)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var (
	anyName      = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
	variableName = regexp.MustCompile(`^` + anyName.String() + `$`)
)

// words of the language and of ours that no let can take.
var reservedNames = []string{"event", "item", "hook", "partner", "nil", "null", "true", "false", "not", "and", "or", "in", "let", "if", "else", "contains", "startsWith", "endsWith", "matches"}

// mentions reports whether an expression reads one of the names, as far as its text tells.
func mentions(text string, names map[string]bool) bool {
	for _, word := range anyName.FindAllString(text, -1) {
		if names[word] {
			return true
		}
	}
	return false
}

// let is a name with its value. Those that read item are worked out for each element.
type let struct {
	name  string
	value *Expression
	item  bool
}

// mapping compiles all records of a mapping for one source.
func (c *compilation) mapping(e entry, entries []entry, source string) []*record {
	var at diag.Node
	if len(e.Records) == 0 {
		at = e.Each
	}
	lets, each := c.lets(e.Let, at)
	var when *Expression
	if len(e.Records) > 0 && e.When.Exists() {
		when = c.compile(e.When, WantBool)
	}
	if e.Needs.Exists() {
		c.notYet(e.Node, "needs")
	}
	var out []*record
	for _, r := range entries {
		one := c.record(r, each)
		one.source, one.lets = source, lets
		c.offLadder(one)
		if when != nil {
			one.when = append([]*Expression{when}, one.when...)
		}
		out = append(out, one)
	}
	return out
}

// lets compiles the names of a mapping in their order. Each may read those
// before it; those that read item come after `each`, which is compiled in between.
func (c *compilation) lets(n, at diag.Node) (out []let, each *Expression) {
	c.bound["item"] = true
	entries := c.expressions(n)
	for _, late := range []bool{false, true} {
		if late && at.Exists() {
			each = c.each(at)
		}
		for _, e := range entries {
			name := e.Key.Text()
			item := mentions(e.Value.Text(), c.bound)
			if item {
				c.bound[name] = true
			}
			if item != late {
				continue
			}
			switch {
			case !variableName.MatchString(name):
				c.d.Errorf(e.Key, "a name is made of letters, digits and _", "%q cannot be a name", name)
			case slices.Contains(reservedNames, name) || slices.Contains(predicates, name):
				c.d.Errorf(e.Key, "", "the name %q is taken", name)
			}
			value := c.compile(e.Value, WantAny)
			c.scope.Variables[name] = Schema{Kind: Any}
			if value != nil {
				c.scope.Variables[name] = value.kind
				out = append(out, let{name, value, item})
			}
		}
	}
	return out, each
}

// each compiles what a mapping or record repeats over and makes item known.
func (c *compilation) each(n diag.Node) *Expression {
	e := c.compile(n, WantList)
	item := Schema{Kind: Any}
	if e != nil && e.kind.Elem != nil {
		item = *e.kind.Elem
	}
	c.scope.Variables["item"] = item
	return e
}

// limit reads how many elements each may have.
func (c *compilation) limit(n diag.Node, each bool) int {
	if !n.Exists() {
		return defaultLimit
	}
	text, ok := c.d.Scalar(n)
	limit, err := strconv.Atoi(text)
	switch {
	case !ok:
	case !each:
		c.d.Errorf(n, "it says how many elements each may have", "limit is for mappings with each")
	case err != nil || limit < 1 || limit > maxLimit:
		c.d.Errorf(n, "", "%q is no limit: write a whole number from 1 to %d", text, maxLimit)
	}
	return limit
}

// A list of more elements than a sender means would keep a sink from everything else.
const (
	defaultLimit = 1000
	maxLimit     = 10_000
)

func (c *compilation) compile(n diag.Node, want Want) *Expression {
	e := Compile(n, want, c.scope, c.d)
	if e == nil {
		c.failed = true
		return nil
	}
	c.hook = c.hook || slices.ContainsFunc(e.reads, func(r read) bool { return r.variable == "hook" })
	c.fixed = append(c.fixed, e.fixed...)
	return e
}

// notYet refuses a key that a later version knows.
func (c *compilation) notYet(n diag.Node, key string) {
	if at := keyOf(n, key); at.Exists() {
		c.d.Errorf(at, "it comes with a later version; take it out until then", "%s is not available yet", key)
	}
}

// keyOf is a key of a map itself, or the zero Node.
func keyOf(n diag.Node, key string) diag.Node {
	for _, e := range n.Entries() {
		if e.Key.Text() == key {
			return e.Key
		}
	}
	return diag.Node{}
}

// expressions gives the entries of a map of expressions, each name once. It
// tells people whose comma has split an expression.
func (c *compilation) expressions(n diag.Node) []diag.Entry {
	if !n.Exists() {
		return nil
	}
	var each map[string]diag.Node
	c.d.Decode(n, &each)
	if n.Kind() != diag.Map {
		return nil
	}
	var out []diag.Entry
	seen := map[string]bool{}
	for i, e := range n.Entries() {
		if e.Value.Kind() == diag.Null && i > 0 && strings.ContainsAny(e.Key.Text(), `()"'`) {
			before := n.Entries()[i-1]
			c.d.Errorf(e.Key, fmt.Sprintf("put the whole expression of %s in single quotes, or on a line of its own", before.Key.Text()), "a comma inside { } ends a value in YAML")
			if len(out) > 0 && out[len(out)-1].Key == before.Key {
				out = out[:len(out)-1]
			}
			continue
		}
		if strings.TrimSpace(e.Key.Text()) == "" {
			c.d.Errorf(e.Key, "write name: expression", "this has no name")
			continue
		}
		if !seen[e.Key.Text()] {
			seen[e.Key.Text()] = true
			out = append(out, e)
		}
	}
	return out
}

// choice reads one of a few words; what is not there is the first of them.
func (c *compilation) choice(n diag.Node, words ...string) string {
	if !n.Exists() {
		return words[0]
	}
	text, ok := c.d.Scalar(n)
	if ok && !slices.Contains(words, text) {
		c.d.Errorf(n, "one of: "+strings.Join(words, ", "), "%q is not known here", text)
		return words[0]
	}
	return text
}

// MappingInfo describes one record that a mapping makes.
type MappingInfo struct {
	Name   string
	Sink   string
	Object string
	Mode   Mode
	On     []string // "source.type", sorted
	Hash   string   // of the mapping's text
	Pos    diag.Pos
	Key    string   // the property that holds our key; "" for a local key
	Fields []string // the properties that it writes, in the order of the file
	Kinds  []Kind   // of Fields, as far as they are known before an event comes: any is not known
	Rules  []Rule   // of Fields
	Match  []string // the properties by which it looks for the record, each once
	Taken  string   // with Match: what follows where the record that fits carries another key of ours
	Links  []LinkInfo
}

// LinkInfo describes one link of a mapping.
type LinkInfo struct {
	To  string // object at the other end
	Key string // the property that it is found by

	Match  []string // the properties that it is looked for by where the key finds nothing
	Remove bool     // it is taken away
}

// day is what `for` of a link is without one.
const day = 24 * time.Hour
