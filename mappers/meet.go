package mappers

import (
	"fmt"
	"slices"
	"strings"

	"partnersync/internal/diag"
)

// meetings finds what is wrong with mappings that write the same records, though each of
// them is right by itself.
func meetings(all []*mapping, c *Catalog, d *diag.Decoding) {
	rules := map[[3]string]ruled{}       // by sink, object and field
	keyed := map[[3]string][]*identity{} // by sink, object and key property
	for _, m := range all {
		for _, r := range m.written() {
			if r.mode != Append { // else every event has a record of its own
				for _, f := range r.fields {
					at := [3]string{r.sink, r.object, f.name}
					if first, ok := rules[at]; !ok {
						rules[at] = ruled{m, f}
					} else if first.field.rule != f.rule {
						d.Errorf(f.at, "two rules would make the value depend on which event arrives first: write it under one of them in both places",
							"the field %q of %s in %s has two rules: %s here, %s %s", f.name, r.object, r.sink, f.rule, first.field.rule, place(first.mapping, first.field.at))
					}
				}
			}
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
