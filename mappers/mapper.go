package mappers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"partnersync/internal/diag"
)

// Mapper is all mappings of a config, compiled. It is never changed and may be
// used from several goroutines.
type Mapper struct {
	infos  []MappingInfo
	byType map[string][]*mapping // "source.type" → those that want it, in the order of the file
	wanted map[string][]string   // "source.type" → their sinks, sorted
	fixed  []string
	sinks  map[string]*SinkInfo
	uses   map[string][]Use // by sink

	records map[string][]*record // by sink
}

// CompileAll compiles the items of `mappings:`. What is wrong is in d; the Mapper
// then lacks the mappings that have mistakes.
func CompileAll(nodes []diag.Node, c *Catalog, d *diag.Decoding) *Mapper {
	out := &Mapper{byType: map[string][]*mapping{}, wanted: map[string][]string{}, sinks: c.Sinks, uses: map[string][]Use{}, records: map[string][]*record{}}
	first := map[string]diag.Node{}
	var all []*mapping
	for _, n := range nodes {
		m := compileMapping(n, c, d)
		if name := n.Get("name"); name.Kind() == diag.Scalar {
			if before, ok := first[name.Text()]; ok {
				d.Errorf(name, fmt.Sprintf("the other is on line %d; deliveries and metrics are told apart by the name", before.Pos().Line), "two mappings are called %q", name.Text())
			} else {
				first[name.Text()] = name
			}
		}
		if m != nil {
			out.add(m, c.Tables)
			all = append(all, m)
		}
	}
	meetings(all, len(all) == len(nodes), c, d)
	return out
}

func (m *Mapper) add(one *mapping, tables map[string]*Table) {
	for _, t := range one.on {
		m.byType[t] = append(m.byType[t], one)
	}
	m.fixed = append(m.fixed, one.fixed...)
	seen := map[diag.Pos]bool{}
	for _, r := range one.records {
		m.use(r, one.name, tables)
		m.records[r.sink] = append(m.records[r.sink], r)
		if seen[r.pos] {
			continue // another variant of it
		}
		seen[r.pos] = true
		info := r.info()
		info.Name, info.On, info.Hash = one.name, one.on, one.hash
		m.infos = append(m.infos, info)
		for _, t := range one.on {
			if !slices.Contains(m.wanted[t], r.sink) {
				m.wanted[t] = append(m.wanted[t], r.sink)
				slices.Sort(m.wanted[t])
			}
		}
	}
}

// Constants are the values that the mappings themselves may give a field: they are the config's, not a sender's.
// Those of tables are their own, see Table.Constants.
func (m *Mapper) Constants() []string { return m.fixed }

// Object gives the name that an object of a sink goes by in changes and in the ledger, where a person may use another.
func (m *Mapper) Object(sink, name string) string {
	if info := m.sinks[sink]; info != nil {
		name, _ = info.object(name)
	}
	return name
}

// Sinks are the sinks whose mappings want a type of event, sorted. The caller
// must not change the slice.
func (m *Mapper) Sinks(source, typ string) []string { return m.wanted[source+"."+typ] }

// Mappings describes the records that the mappings make, in the order of the file.
func (m *Mapper) Mappings() []MappingInfo { return slices.Clone(m.infos) }

// Run applies the mappings of a sink to an event, in the order of the file. It
// neither changes the event nor blocks. Values of the outcomes may share
// memory with the event's body; nobody may change them.
func (m *Mapper) Run(sink string, ev *Event) []Outcome {
	var out []Outcome
	typ := ev.Source + "." + ev.Type
	for _, one := range m.byType[typ] {
		if o, ok := one.run(sink, typ, ev); ok {
			out = append(out, o)
		}
	}
	return out
}

// run reports false when the mapping has nothing for the sink.
func (m *mapping) run(sink, typ string, ev *Event) (o Outcome, wanted bool) {
	o.Mapping = m.name
	defer func() {
		if recover() != nil {
			// The value of a panic may hold values of the payload.
			o.Failed = &Failure{Reason: "expression", Message: fmt.Sprintf("mapping %q failed in an unexpected way", m.name)}
		}
	}()
	var vars map[string]any
	for _, r := range m.records {
		if r.source != ev.Source || r.sink != sink {
			continue
		}
		if !wanted {
			wanted = true
			vars = map[string]any{"event": m.guards[typ].clean(ev.Body)}
			if m.hook {
				vars["hook"] = ev.hook()
			}
		}
		run := running{mapping: m, record: r, outcome: &o, vars: vars, known: map[string]bool{}}
		run.all()
	}
	if len(o.Changes) > 0 || o.Failed != nil {
		o.Skipped = ""
	}
	return o, wanted
}

// running is one record of a mapping applied to one event.
type running struct {
	mapping *mapping
	record  *record
	outcome *Outcome
	vars    map[string]any
	known   map[string]bool // the names of let that are worked out
	element int             // of each, counted from 1; 0 without each
}

func (r *running) all() {
	if r.record.each == nil {
		r.one()
		return
	}
	list, ok := r.eval(r.record.each)
	if !ok {
		return
	}
	if list == nil {
		r.outcome.Skipped = "each is empty"
		return
	}
	items := list.([]any)
	if n := len(items); n > r.record.limit {
		r.failure("expression", fmt.Sprintf("%s: each has %d elements, and %d are the most (limit: allows more)", r.record.each.Pos(), n, r.record.limit))
		return
	}
	for i, item := range items {
		r.element = i + 1
		r.vars["item"] = item
		for _, l := range r.record.lets {
			if l.item {
				delete(r.known, l.name)
			}
		}
		r.one()
	}
	delete(r.vars, "item")
}

// eval runs an expression, and before it the names of let that it reads: one
// that nothing reads cannot fail. A lookup that missed and may is noted, and null.
func (r *running) eval(e *Expression) (any, bool) {
	for _, p := range e.reads {
		for i := range r.record.lets {
			l := &r.record.lets[i]
			if l.name != p.variable || r.known[l.name] {
				continue
			}
			v, ok := r.eval(l.value)
			if !ok {
				return nil, false
			}
			r.vars[l.name], r.known[l.name] = v, true
		}
	}
	v, misses, err := e.eval(r.vars)
	r.outcome.Misses = append(r.outcome.Misses, misses...)
	if err == nil {
		return v, true
	}
	var miss *LookupMiss
	if errors.As(err, &miss) && miss.Skip {
		r.outcome.Misses = append(r.outcome.Misses, miss.Table)
		return nil, true
	}
	r.fail(err)
	return nil, false
}

// fail keeps the first failure: it is what a person mends first.
func (r *running) fail(err error) {
	reason := "expression"
	var miss *LookupMiss
	var unread *Unread
	switch {
	case errors.As(err, &miss):
		reason = "lookup_missed"
	case errors.As(err, &unread):
		reason = Waits
	}
	r.failure(reason, err.Error())
}

func (r *running) failure(reason, message string) {
	if r.outcome.Failed != nil {
		return
	}
	if r.element > 0 {
		message += fmt.Sprintf(" (element %d of each)", r.element)
	}
	r.outcome.Failed = &Failure{Reason: reason, Message: message}
}

func (r *running) one() {
	rec := r.record
	for _, w := range rec.when {
		v, ok := r.eval(w)
		if !ok {
			return
		}
		if v != true {
			r.outcome.Skipped = "when is false"
			return
		}
	}
	change := Change{Mapping: r.mapping.name, Object: rec.object, Mode: rec.mode, Rewrite: rec.rewrite, Recreate: rec.recreate, Absent: rec.absent, OnReject: rec.onReject}
	var ok bool
	if change.Key, ok = r.key(rec.object, rec.key); !ok {
		return
	}
	if change.Key.Value == "" {
		r.failure("null_key", fmt.Sprintf("%s: the key is null", rec.key.parts[0].Pos()))
		return
	}
	if rec.match != nil {
		change.Several, change.Taken = rec.several, rec.taken
		if change.Match, ok = r.matches(rec.object, rec.match); !ok {
			return
		}
	}
	for _, f := range rec.fields {
		v, ok := r.eval(f.value)
		if !ok {
			return
		}
		name, ok := r.actual(rec.object, f.name)
		if !ok {
			return
		}
		switch {
		case v != nil && f.ladder != nil && !f.ladder.holds(v):
			r.failure("forward", fmt.Sprintf("%s: the value stands neither in order nor in final of %s", f.value.Pos(), f.name))
			return
		case v != nil:
			change.Fields = append(change.Fields, Field{Name: name, Rule: f.rule, Value: outgoing(v), Optional: f.optional, Ladder: f.ladder})
		case f.clear && r.blank(f.value):
			change.Fields = append(change.Fields, Field{Name: name, Rule: Clear, Optional: f.optional})
		}
	}
	for _, l := range rec.links {
		k, ok := r.key(l.To, l.key)
		if !ok {
			return
		}
		if k.Value != "" { // a null key means no link
			link := l.Link
			link.Key = k
			if link.As, ok = r.actual(rec.object, l.As); !ok {
				return
			}
			if link.Match, ok = r.matches(l.To, l.match); !ok {
				return
			}
			change.Links = append(change.Links, link)
		}
	}
	r.outcome.Changes = append(r.outcome.Changes, change)
}

// actual is the name of a field in the CRM, where mappings have one of their own for it.
func (r *running) actual(object, name string) (string, bool) {
	a, is := r.record.aliases[object][name]
	if !is {
		return name, true
	}
	actual, err := a.actual()
	if err != nil {
		r.fail(err)
		return "", false
	}
	return actual, true
}

// key gives a key without value when a part of it is null.
func (r *running) key(object string, k key) (Key, bool) {
	out := Key{Local: k.local}
	var ok bool
	if out.Property, ok = r.actual(object, k.property); !ok {
		return out, false
	}
	var parts []string
	for _, p := range k.parts {
		v, ok := r.eval(p)
		if !ok {
			return out, false
		}
		s, _ := v.(string)
		if s == "" {
			return out, true
		}
		parts = append(parts, s)
	}
	out.Value = localKey(parts)
	return out, true
}

// blank reports whether the body carries all that an expression reads, the
// first of it blank: the sender says that there is no value any more.
func (r *running) blank(e *Expression) bool {
	paths := r.carried(e)
	for i, p := range paths {
		root, ok := r.vars[p.variable].(map[string]any)
		if !ok {
			return false
		}
		present, blank := Carries(root, strings.Join(p.path, "."))
		if !present || i == 0 && !blank {
			return false
		}
	}
	return len(paths) > 0
}

// carried are the paths that an expression reads, those of its lets included.
func (r *running) carried(e *Expression) []read {
	var out []read
	for _, p := range e.reads {
		i := slices.IndexFunc(r.record.lets, func(l let) bool { return l.name == p.variable })
		switch {
		case i >= 0:
			out = append(out, r.carried(r.record.lets[i].value)...)
		case len(p.path) > 0:
			out = append(out, p)
		}
	}
	return out
}

// outgoing writes out the times in a value. It copies what it changes.
func outgoing(v any) any {
	switch v := v.(type) {
	case time.Time:
		return timeText(v)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = outgoing(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = outgoing(e)
		}
		return out
	}
	return v
}
