package mappers

import (
	"fmt"
	"slices"
	"strings"

	"partnersync/internal/diag"
)

// meetings finds what is wrong with mappings that write the same records, though each of
// them is right by itself. complete: none is left out for its own mistakes.
func meetings(all []*mapping, complete bool, c *Catalog, d *diag.Decoding) {
	rules := map[[3]string]ruled{}       // by sink, object and field
	keyed := map[[3]string][]*identity{} // by sink, object and key property
	sought := map[[3]string]*identity{}  // by sink, object and key property, of those that may make it
	for _, m := range all {
		for _, r := range m.written() {
			if r.mode != Append { // else every event has a record of its own
				for _, f := range r.fields {
					at := [3]string{r.sink, r.object, f.name}
					first, ok := rules[at]
					switch {
					case !ok:
						rules[at] = ruled{m, f}
					case first.field.rule != f.rule:
						d.Errorf(f.at, "two rules would make the value depend on which event arrives first: write it under one of them in both places",
							"the field %q of %s in %s has two rules: %s here, %s %s", f.name, r.object, r.sink, f.rule, first.field.rule, place(first.mapping, first.field.at))
					case !f.ladder.same(first.field.ladder):
						d.Errorf(f.at, "what is forward for one may be back for the other: write the same order and final in both places",
							"the field %q of %s in %s has two orders: one here, another %s", f.name, r.object, r.sink, place(first.mapping, first.field.at))
					}
				}
			}
			if complete {
				c.unmade(r, all, d)
			}
			seekers(m, r, sought, d)
			if len(r.key.parts) == 0 || r.tellsSources() {
				continue
			}
			at := [3]string{r.sink, r.object, r.key.property}
			own := &identity{m, r}
			if i := slices.IndexFunc(append(keyed[at], own), func(other *identity) bool { return own.meets(other, c) != "" }); i >= 0 {
				other := append(keyed[at], own)[i]
				here := "here"
				if other != own {
					here = "here and " + place(other.mapping, other.record.key.parts[0].node)
				}
				text := r.key.parts[0].Source()
				if strings.Contains(text, " ") {
					text = "(" + text + ")"
				}
				d.Warnf(r.key.parts[0].node, fmt.Sprintf(`hook.source + ":" + %s keeps them apart, there and in links that lead to them`, text),
					"%s give the %s of %s by keys of their own, which may be alike: one record for two things, %s", own.meets(other, c), r.object, r.sink, here)
			}
			keyed[at] = append(keyed[at], own)
		}
	}
}

// seekers warns of two mappings that look for the same records in different ways.
func seekers(m *mapping, r *record, first map[[3]string]*identity, d *diag.Decoding) {
	if r.key.property == "" || r.mode == Append || r.mode == Archive || r.mode == UpdateOnly && r.match == nil {
		return
	}
	at := [3]string{r.sink, r.object, r.key.property}
	before, ok := first[at]
	if !ok {
		first[at] = &identity{m, r}
		return
	}
	if before.record.seeks() != r.seeks() {
		d.Warnf(r.matchAt(), "whichever event arrives first decides how the record is looked for: write the same match in both places",
			"the %s of %s with the key %q are looked for in two ways: %s here, %s %s", r.object, r.sink, r.key.property, r.seeks(), before.record.seeks(), place(before.mapping, before.record.matchAt()))
	}
}

// seeks says how the record is looked for.
func (r *record) seeks() string {
	if len(r.match) == 0 {
		return "without match"
	}
	var ways []string
	for _, w := range r.match {
		ways = append(ways, w.String())
	}
	text := "by " + strings.Join(ways, ", then by ")
	if r.several != SeveralDead {
		text += ", several: " + r.several
	}
	if r.taken != TakenKeep {
		text += ", taken: " + r.taken
	}
	return text
}

// matchAt is where match stands, or the key where there is none.
func (r *record) matchAt() diag.Node {
	if len(r.match) > 0 {
		return r.match[0][0].at
	}
	return r.key.parts[0].node
}

// unmade warns of links to objects that nothing makes, and that the sink cannot be asked for.
func (c *Catalog) unmade(r *record, all []*mapping, d *diag.Decoding) {
	sink := c.Sinks[r.sink]
	if sink == nil || sink.Find == nil {
		return
	}
	for _, l := range r.links {
		if l.Remove || l.Missing == "create" || len(l.match) > 0 || makes(all, r.sink, l.To) {
			continue
		}
		why := "our key of them is local"
		if !l.key.local {
			why = sink.Find(l.To)
		}
		if why != "" {
			d.Warnf(l.at, "let a mapping make its records, or leave the link out", "no mapping makes %s in %s, and it cannot be asked for them by key: %s", l.To, r.sink, why)
		}
	}
}

// makes reports whether a mapping knows records of an object.
func makes(all []*mapping, sink, object string) bool {
	return slices.ContainsFunc(all, func(m *mapping) bool {
		return slices.ContainsFunc(m.records, func(r *record) bool { return r.sink == sink && r.object == object && r.mode != Archive })
	})
}

type ruled struct {
	mapping *mapping
	field   field
}

type identity struct {
	mapping *mapping
	record  *record
}

// meets names two sources of one preset whose events make the records of both, or is "".
func (i *identity) meets(other *identity, c *Catalog) string {
	for _, a := range sourcesOf(i.mapping) {
		for _, b := range sourcesOf(other.mapping) {
			if preset := c.Sources[a].Preset; a != b && preset != "" && preset == c.Sources[b].Preset {
				return strings.Join(sortedPair(a, b), " and ") + " (both " + preset + ")"
			}
		}
	}
	return ""
}

func sortedPair(a, b string) []string {
	pair := []string{a, b}
	slices.Sort(pair)
	return pair
}

func sourcesOf(m *mapping) []string {
	var out []string
	for _, t := range m.on {
		source, _, _ := strings.Cut(t, ".")
		if !slices.Contains(out, source) {
			out = append(out, source)
		}
	}
	return out
}

// written are the records of a mapping, each in one of its variants.
func (m *mapping) written() []*record {
	var out []*record
	for _, r := range m.records {
		if !slices.ContainsFunc(out, func(o *record) bool { return o.pos == r.pos }) {
			out = append(out, r)
		}
	}
	return out
}

// tellsSources reports whether a key is another for each source, or the same thing
// wherever it comes from: an address, or something fixed.
func (r *record) tellsSources() bool {
	everywhere := true
	var tells func(e *Expression) bool
	tells = func(e *Expression) bool {
		for _, read := range e.reads {
			if i := slices.IndexFunc(r.lets, func(l let) bool { return l.name == read.variable }); i >= 0 {
				if tells(r.lets[i].value) {
					return true
				}
				continue
			}
			if read.variable == "hook" && slices.Equal(read.path, []string{"source"}) {
				return true
			}
			everywhere = everywhere && len(read.path) > 0 && isAddress(read.path[len(read.path)-1])
		}
		return false
	}
	return slices.ContainsFunc(r.key.parts, tells) || everywhere
}

// isAddress tells by its name whether a field holds what is one person's or firm's everywhere.
func isAddress(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"mail", "domain", "website", "url", "phone"}, func(word string) bool { return strings.Contains(name, word) })
}

func place(m *mapping, n diag.Node) string {
	return fmt.Sprintf("in the mapping %q on line %d", m.name, n.Pos().Line)
}
