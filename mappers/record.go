package mappers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"partnersync/internal/diag"
)

// record is what a mapping does with one object of one sink.
type record struct {
	pos    diag.Pos
	source string
	lets   []let
	when   []*Expression
	each   *Expression
	limit  int // of the elements of each

	sink     string
	object   string
	mode     Mode
	key      key
	match    []way
	several  string
	taken    string
	fields   []field
	links    []link
	rewrite  bool
	absent   string
	recreate bool
	onReject map[string]string
	aliases  map[string]map[string]Alias // of the sink, by object
}

type key struct {
	at       diag.Node // of the property
	property string
	local    bool
	parts    []*Expression
}

type field struct {
	at       diag.Node
	name     string
	rule     Rule
	value    *Expression
	clear    bool
	optional bool
	ladder   *Ladder    // under forward
	steps    []Constant // of ladder
	closed   bool       // whether all values of ladder are known by now
}

type link struct {
	Link
	at    diag.Node // of to
	key   key
	match []way
}

// record compiles one record. each is that of the mapping, if it has one and no records.
func (c *compilation) record(e entry, each *Expression) *record {
	r := &record{pos: e.Node.Pos(), rewrite: e.Rewrite, onReject: e.OnReject, each: each}
	for _, name := range later {
		if name != "needs" {
			c.notYet(e.Node, name)
		}
	}
	if _, known := c.scope.Variables["item"]; e.Each.Exists() && !known {
		r.each = c.each(e.Each)
		defer delete(c.scope.Variables, "item")
	}
	r.limit = c.limit(e.Limit, e.Each.Exists())
	if e.When.Exists() {
		r.when = append(r.when, c.compile(e.When, WantBool))
	}
	sink := c.target(e, r)
	if sink != nil {
		r.aliases = sink.Aliases
	}
	r.mode = c.mode(e, r.sink, sink)
	r.absent = c.absent(e.Absent, r.mode)
	r.recreate = c.choice(e.IfDeleted, "skip", "recreate") == "recreate"
	if r.recreate && r.mode != Upsert {
		c.d.Errorf(e.IfDeleted, "only mode: upsert can make it again", "mode %s makes no record a second time", r.mode)
	}
	if !e.Key.Exists() {
		c.d.Errorf(e.Node, "key: {everflow_partner_id: event.network_affiliate_id} names the record", "the key %q is missing", "key")
	} else {
		r.key = c.key(e.Key)
	}
	c.adoption(e, r, sink)
	c.fields(e, r, sink)
	for _, n := range e.Links {
		if l, ok := c.link(n, false, r.sink, sink); ok {
			c.sendable(n, r, &l.Link, sink)
			c.showable(n, r, &l.Link, sink)
			r.links = append(r.links, l)
		}
	}
	for _, n := range e.Unlink {
		if l, ok := c.link(n, true, r.sink, sink); ok {
			c.sendable(n, r, &l.Link, sink)
			r.links = append(r.links, l)
		}
	}
	if len(e.Links)+len(e.Unlink) > 0 && sink != nil && !sink.Links {
		at := e.Node.Get("links")
		if !at.Exists() {
			at = e.Node.Get("unlink")
		}
		c.d.Errorf(at, "", "%s cannot connect records", sink.called(r.sink))
	}
	c.lacks(e, r, sink)
	for code, what := range e.OnReject {
		if what != "skip" {
			c.d.Errorf(e.Node.Get("on_reject").Get(code), "skip is what can be done with an expected refusal", "%q is not known here", what)
		}
	}
	return r
}

// info describes the record.
func (r *record) info() MappingInfo {
	info := MappingInfo{Sink: r.sink, Object: r.object, Mode: r.mode, Pos: r.pos, Match: sought(r.match)}
	if !r.key.local {
		info.Key = r.key.property
	}
	if len(r.match) > 0 {
		info.Taken = r.taken
	}
	for _, f := range r.fields {
		info.Fields = append(info.Fields, f.name)
		info.Rules = append(info.Rules, f.rule)
		kind := Any
		if f.value != nil && f.value.kind.Kind != "" {
			kind = f.value.kind.Kind
		}
		info.Kinds = append(info.Kinds, kind)
	}
	for _, l := range r.links {
		info.Links = append(info.Links, LinkInfo{To: l.To, Key: l.key.property, Match: sought(l.match), Remove: l.Remove})
	}
	return info
}

// lacks refuses a mode in which the sink cannot write the object.
func (c *compilation) lacks(e entry, r *record, sink *SinkInfo) {
	if sink == nil || sink.Lacks == nil || sink.Modes != nil && !slices.Contains(sink.Modes, r.mode) || r.object == "" || len(r.key.parts) == 0 {
		return
	}
	info := r.info()
	why := sink.Lacks(&info, r.mode)
	if why == "" {
		return
	}
	at, hint := e.Mode, "no mode can write such a record"
	if !at.Exists() {
		at = e.Object
	}
	if left := sink.modes(&info); len(left) > 0 {
		hint = "what such a record can have: mode " + strings.Join(left, ", ")
	}
	c.d.Errorf(at, hint, "%s cannot do mode %s of %s: %s", sink.called(r.sink), r.mode, r.object, why)
}

// target reads where the record goes.
func (c *compilation) target(e entry, r *record) *SinkInfo {
	var sink *SinkInfo
	if !e.To.Exists() {
		c.d.Errorf(e.Node, "it names the sink", "the key %q is missing", "to")
	} else if name, ok := c.d.Scalar(e.To); ok {
		if sink = c.catalog.Sinks[name]; sink == nil {
			c.d.Errorf(e.To, diag.OneOf(name, slices.Sorted(maps.Keys(c.catalog.Sinks))), "unknown sink %q", name)
		}
		r.sink = name
	}
	if !e.Object.Exists() {
		c.d.Errorf(e.Node, "it names what the CRM calls its kind of record, such as contacts", "the key %q is missing", "object")
	} else if name, ok := c.d.Scalar(e.Object); ok {
		r.object = c.object(e.Object, name, r.sink, sink)
	}
	return sink
}

// object gives the one name that a sink's object goes by.
func (c *compilation) object(n diag.Node, name, at string, sink *SinkInfo) string {
	if sink == nil {
		return name
	}
	canonical, known := sink.object(name)
	if !known {
		c.d.Errorf(n, wayOut(name, sink.Objects), "%s has no object %q", sink.called(at), name)
	}
	return canonical
}

// manyObjects is how many names of objects a hint lists at most.
const manyObjects = 6

// wayOut tells how to go on where a sink has no object of a name: by the one that was meant, or by making it known.
func wayOut(name string, objects []string) string {
	own := fmt.Sprintf("one of your own goes below objects: in the sink: objects: {%s: []}", name)
	if meant := diag.DidYouMean(name, objects); meant != "" {
		return meant + " " + own
	}
	if 0 < len(objects) && len(objects) <= manyObjects {
		return "one of: " + strings.Join(slices.Sorted(slices.Values(objects)), ", ") + "; " + own
	}
	return own
}

func (c *compilation) mode(e entry, name string, sink *SinkInfo) Mode {
	var words []string
	for _, m := range modes() {
		words = append(words, string(m))
	}
	mode := Mode(c.choice(e.Mode, words...))
	if sink != nil && sink.Modes != nil && !slices.Contains(sink.Modes, mode) {
		at := e.Mode
		if !at.Exists() {
			at = e.To
		}
		var left []string
		for _, m := range sink.Modes {
			left = append(left, string(m))
		}
		c.d.Errorf(at, "one of: "+strings.Join(left, ", "), "%s cannot do mode %s", sink.called(name), mode)
	}
	return mode
}

// modes are all modes; the first is that of a record which names none.
func modes() []Mode { return []Mode{Upsert, UpdateOnly, CreateOnly, Append, Archive} }

func (c *compilation) absent(n diag.Node, mode Mode) string {
	if mode != UpdateOnly {
		if n.Exists() {
			c.d.Errorf(n, "other modes make the record", "absent is for mode: update_only")
		}
		return ""
	}
	return c.choice(n, "hold", "skip", "dead")
}

// key reads {property: expression} or {local: [expressions]}.
func (c *compilation) key(n diag.Node) key {
	entries := c.expressions(n)
	if len(entries) > 1 || n.Kind() == diag.Map && len(n.Entries()) == 0 {
		c.d.Errorf(n, "write {property: expression}; a key of several values stands under local:", "a key has one property")
	}
	if len(entries) != 1 {
		return key{}
	}
	e := entries[0]
	k := key{at: e.Key, property: e.Key.Text()}
	parts := []diag.Node{e.Value}
	if k.property == "local" {
		k.property, k.local = "", true
		if e.Value.Kind() == diag.List {
			parts = e.Value.Items()
		}
		if len(parts) == 0 {
			c.d.Errorf(e.Value, "", "local holds no expression")
		}
	}
	for _, part := range parts {
		k.parts = append(k.parts, c.compile(part, WantText))
	}
	return k
}

// fields reads the sections of a record. A field stands in one of them.
func (c *compilation) fields(e entry, r *record, sink *SinkInfo) {
	first := map[string]string{}
	section := func(n diag.Node, rule Rule) {
		for _, f := range c.expressions(n) {
			name := f.Key.Text()
			if before, ok := first[name]; ok {
				c.d.Errorf(f.Key, fmt.Sprintf("it stands under %s already", before), "the field %q has two rules", name)
				continue
			}
			first[name] = string(rule)
			if name == r.key.property {
				c.d.Errorf(f.Key, "every record is written with its key", "the field %q is the key", name)
				continue
			}
			one := field{at: f.Key, name: name, rule: rule}
			switch rule {
			case Forward:
				c.ladder(f.Value, &one)
			case Add:
				one.value = c.compile(f.Value, WantTexts)
			default:
				one.value = c.compile(f.Value, WantAny)
			}
			r.fields = append(r.fields, one)
		}
	}
	// The order of the file is kept inside a section; sections come as written.
	for _, k := range e.Node.Entries() {
		switch rule := Rule(k.Key.Text()); rule {
		case SetOnCreate, SetIfEmpty, Forward, Add:
			c.comparable(k.Key, rule, r, sink)
			section(k.Value, rule)
		case Set, SetFirst, Touch:
			section(k.Value, rule)
		}
	}
	for _, n := range e.Clear {
		if f := c.named(n, r, "clear"); f != nil {
			if f.rule != Set {
				c.d.Errorf(n, "", "clear is for fields under set, and %q stands under %s", f.name, f.rule)
			}
			f.clear = true
		}
	}
	for _, n := range e.Optional {
		if f := c.named(n, r, "optional"); f != nil {
			f.optional = true
		}
	}
}

// comparable reports a rule that asks for what the CRM has, where there is nothing to ask.
func (c *compilation) comparable(at diag.Node, rule Rule, r *record, sink *SinkInfo) {
	switch {
	case r.mode == Append:
		c.d.Errorf(at, "write it under set", "%s is for records that may be there already, and mode append makes one of each event", rule)
	case r.mode == Archive:
		c.d.Errorf(at, "", "mode archive writes no value, so none can stand under %s", rule)
	case r.mode == UpdateOnly && rule == SetOnCreate:
		c.d.Errorf(at, "the mapping that makes it may hold them", "mode update_only makes no record, so it cannot set values on create")
	case rule == SetOnCreate || sink == nil || sink.Read == nil || r.object == "":
	default:
		if why := sink.Read(r.object); why != "" {
			c.d.Errorf(at, "", "%s cannot read %s, which %s needs: %s", sink.called(r.sink), r.object, rule, why)
		}
	}
}

func (c *compilation) named(n diag.Node, r *record, section string) *field {
	name, ok := c.d.Scalar(n)
	if !ok {
		return nil
	}
	var names []string
	for i := range r.fields {
		if r.fields[i].name == name {
			return &r.fields[i]
		}
		names = append(names, r.fields[i].name)
	}
	c.d.Errorf(n, diag.OneOf(name, names), "%s names %q, which no section sets", section, name)
	return nil
}

// link reads an entry of links or unlink.
func (c *compilation) link(n diag.Node, remove bool, name string, sink *SinkInfo) (link, bool) {
	var raw struct {
		Node     diag.Node     `yaml:",node"`
		To       string        `yaml:"to,required"`
		Key      diag.Node     `yaml:"key,required"`
		Match    diag.Node     `yaml:"match"`
		As       string        `yaml:"as"`
		Only     diag.Node     `yaml:"only"`
		Required bool          `yaml:"required"`
		Missing  diag.Node     `yaml:"missing"`
		For      time.Duration `yaml:"for"`
	}
	c.d.Decode(n, &raw)
	if n.Kind() != diag.Map {
		return link{}, false
	}
	if remove {
		for _, e := range n.Entries() {
			if name := e.Key.Text(); slices.Contains([]string{"match", "only", "required", "missing", "for"}, name) {
				c.d.Errorf(e.Key, "", "%s is for links, not for unlink", name)
			}
		}
	}
	l := link{at: n.Get("to"), Link: Link{To: raw.To, As: raw.As, Required: raw.Required, For: raw.For, Remove: remove}}
	if l.To != "" {
		l.To = c.object(l.at, l.To, name, sink)
	}
	if raw.Only.Exists() {
		only := c.choice(raw.Only, "one", "if_empty")
		l.Only, l.IfEmpty = only == "one", only == "if_empty"
	}
	l.Missing = c.choice(raw.Missing, "retry", "skip", "create")
	if l.For == 0 {
		l.For = day
	}
	if remove {
		l.Missing, l.For = "", 0
	}
	if raw.Key.Exists() {
		l.key = c.key(raw.Key)
	}
	if raw.Match.Exists() && !remove {
		l.match = c.match(raw.Match, l.key)
		if l.key.local {
			c.d.Errorf(keyOf(n, "match"), "name the property of the CRM that holds our key: `key: {property: expression}`", "match needs a key that the CRM holds")
		}
		c.searchable(l.match, l.To, name, sink)
	}
	return l, true
}

// sendable reports a link that the sink has no way to send: it would be found out event by event.
func (c *compilation) sendable(n diag.Node, r *record, l *Link, sink *SinkInfo) {
	if sink == nil || sink.Link == nil || !sink.Links || r.object == "" || l.To == "" || r.mode == Archive {
		return
	}
	why, later := sink.Link(r.mode, r.object, l)
	switch {
	case why == "":
	case later && !l.Required:
		c.d.Warnf(n.Get("to"), why, "%s cannot make %s with this link to %s, which is made afterwards", sink.called(r.sink), r.object, l.To)
	default:
		c.d.Errorf(n.Get("to"), why, "%s cannot send a link from %s to %s", sink.called(r.sink), r.object, l.To)
	}
}

// showable reports a link that depends on what the record has, where the sink cannot show that.
func (c *compilation) showable(n diag.Node, r *record, l *Link, sink *SinkInfo) {
	if !l.IfEmpty || sink == nil || r.object == "" || l.To == "" {
		return
	}
	const hint = "leave only out, or write only: one, which takes the place of what is there"
	switch {
	case r.mode == Append || r.mode == CreateOnly:
		c.d.Errorf(n.Get("only"), "leave it out", "a record that mode %s makes has no link yet", r.mode)
	case sink.LinkField != nil && sink.LinkField(r.object, l) == "":
		c.d.Errorf(n.Get("only"), hint, "%s does not show which %s a record of %s is linked to", sink.called(r.sink), l.To, r.object)
	case sink.Read != nil && sink.Read(r.object) != "":
		c.d.Errorf(n.Get("only"), hint, "%s cannot read %s, which only: if_empty needs: %s", sink.called(r.sink), r.object, sink.Read(r.object))
	}
}

// separator stands between the parts of a local key.
const separator = "/"

// localKey joins the parts of a key so that no two lists of parts look alike.
func localKey(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = strings.NewReplacer(`\`, `\\`, separator, `\`+separator).Replace(p)
	}
	return strings.Join(escaped, separator)
}
