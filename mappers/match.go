package mappers

import (
	"slices"
	"strings"

	"partnersync/internal/diag"
)

// way is one entry of match: a way to find the record that the CRM has already.
type way []term

type term struct {
	at       diag.Node
	property string
	value    *Expression
}

// match reads the ways to find a record of an object whose key is k.
func (c *compilation) match(n diag.Node, k key) []way {
	if !n.Exists() {
		return nil
	}
	if n.Kind() != diag.List {
		c.d.Errorf(n, "begin each way with a dash: `- {email: lower(event.email)}`; they are tried in this order", "expected a list of ways to find the record, found %s", n.Kind())
		return nil
	}
	if len(n.Items()) == 0 {
		c.d.Errorf(n, "leave it out, or write one: `- {email: lower(event.email)}`", "match holds no way to find the record")
	}
	var out []way
	for _, item := range n.Items() {
		var w way
		for _, e := range c.expressions(item) {
			name := e.Key.Text()
			if name == k.property {
				c.d.Errorf(e.Key, "every record is looked for by its key first", "the field %q is the key", name)
			}
			w = append(w, term{e.Key, name, c.compile(e.Value, WantText)})
		}
		if item.Kind() == diag.Map && len(item.Entries()) == 0 {
			c.d.Errorf(item, "write {field: expression}; all fields of one way have to fit", "this way to find the record names no field")
		}
		if len(w) > 0 && k.varies() && !slices.ContainsFunc(w, func(t term) bool { return t.value == nil || len(t.value.reads) > 0 }) {
			c.d.Warnf(w[0].at, "let it read something of the event, as the key does", "this way finds the same record for every event")
		}
		out = append(out, w)
	}
	return out
}

// varies reports whether a key is not the same for every event.
func (k key) varies() bool {
	return slices.ContainsFunc(k.parts, func(e *Expression) bool { return e != nil && len(e.reads) > 0 })
}

// adoption reads how the record is found that the CRM has already, and what follows.
func (c *compilation) adoption(e entry, r *record, sink *SinkInfo) {
	if !e.Match.Exists() {
		for _, name := range []string{"several", "taken"} {
			if at := keyOf(e.Node, name); at.Exists() {
				c.d.Errorf(at, "it says what follows when match has found something", "%s is for mappings with match", name)
			}
		}
		return
	}
	r.match = c.match(e.Match, r.key)
	r.several = c.choice(e.Several, SeveralDead, SeveralOldest, SeveralNewest)
	r.taken = c.choice(e.Taken, TakenKeep, TakenTake, TakenDead)
	switch at := keyOf(e.Node, "match"); {
	case r.mode == Append || r.mode == Archive:
		c.d.Errorf(at, "it finds the record that another mode writes", "match cannot stand in a mapping of mode %s", r.mode)
	case r.key.local:
		c.d.Errorf(at, "name the property of the CRM that holds our key: `key: {property: expression}`", "match needs a key that the CRM holds")
	}
	c.searchable(r.match, r.object, r.sink, sink)
	if sink != nil && r.several != SeveralDead && !sink.OrdersHits {
		c.d.Errorf(e.Several, "several: dead leaves it to a person", "%s does not tell which of several records is the %s", sink.called(r.sink), r.several)
	}
}

// searchable reports ways in which the sink cannot look a record up.
func (c *compilation) searchable(ways []way, object, name string, sink *SinkInfo) {
	if sink == nil || sink.Search == nil || object == "" {
		return
	}
	for _, w := range ways {
		if len(w) == 0 {
			continue
		}
		if why := sink.Search(object, sink.standIns(object, w.properties())); why != "" {
			c.d.Errorf(w[0].at, "", "%s cannot look up %s by %s: %s", sink.called(name), object, w, why)
		}
	}
}

func (w way) properties() []string {
	var out []string
	for _, t := range w {
		out = append(out, t.property)
	}
	return out
}

func (w way) String() string { return strings.Join(w.properties(), " and ") }

// sought are the properties that ways look at, each once.
func sought(ways []way) []string {
	var out []string
	for _, w := range ways {
		for _, name := range w.properties() {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// matches gives the ways that an event has values for.
func (r *running) matches(object string, ways []way) (out []Match, ok bool) {
	for _, w := range ways {
		m := make(Match, 0, len(w))
		for _, t := range w {
			v, ok := r.eval(t.value)
			if !ok {
				return nil, false
			}
			text, _ := v.(string)
			if text == "" {
				m = nil
				break
			}
			property, ok := r.actual(object, t.property)
			if !ok {
				return nil, false
			}
			m = append(m, Term{property, text})
		}
		if len(m) > 0 {
			out = append(out, m)
		}
	}
	return out, true
}
