package mappers

import (
	"fmt"
	"slices"
	"strings"

	"partnersync/internal/diag"
)

// ladder reads an entry of forward: {value: expression, order: [first, second], final: [last]}.
func (c *compilation) ladder(n diag.Node, f *field) {
	const hint = "write {value: event.stage, order: [first, second, third]}"
	if n.Kind() != diag.Map {
		c.d.Errorf(n, hint, "forward takes a value and the order of all its values, found %s", n.Kind())
		return
	}
	var raw struct {
		Value diag.Node   `yaml:"value,required"`
		Order []diag.Node `yaml:"order,required"`
		Final []diag.Node `yaml:"final,single"`
	}
	c.d.Decode(n, &raw)
	f.ladder = &Ladder{Order: c.rungs(raw.Order, "order", f), Final: c.rungs(raw.Final, "final", f)}
	if at := n.Get("order"); at.Kind() == diag.List && len(raw.Order) < 2 {
		c.d.Errorf(at, hint, "an order has at least two values")
	}
	known := !slices.ContainsFunc(slices.Concat(raw.Order, raw.Final), func(n diag.Node) bool { return strings.Contains(n.Text(), "${") })
	f.closed = known && len(f.ladder.Order) > 0
	c.fixed = append(c.fixed, f.ladder.all()...)
	if raw.Value.Exists() {
		f.value = c.compile(raw.Value, WantSingle)
	}
}

// rungs reads values that a field can have. Numbers are texts here.
func (c *compilation) rungs(nodes []diag.Node, section string, f *field) []string {
	var out []string
	for _, n := range nodes {
		text, ok := c.d.Scalar(n)
		switch {
		case !ok:
		case strings.TrimSpace(text) == "":
			c.d.Errorf(n, "an empty field stands before all of them", "a value of %s is blank", section)
		case slices.Contains(out, text):
			c.d.Errorf(n, "", "%q stands in %s a second time", text, section)
		default:
			out = append(out, text)
			if step, ok := constantAt(n, text); ok {
				f.steps = append(f.steps, step)
			}
		}
	}
	return out
}

func (l *Ladder) all() []string { return slices.Concat(l.Order, l.Final) }

// holds reports whether a value stands on the ladder.
func (l *Ladder) holds(v any) bool {
	text, ok := scalarText(v)
	return ok && (slices.Contains(l.Order, text) || slices.Contains(l.Final, text))
}

// same reports whether two ladders mean the same. A final value is final wherever it stands.
func (l *Ladder) same(other *Ladder) bool {
	if l == nil || other == nil {
		return l == other
	}
	return slices.Equal(l.Order, other.Order) && slices.Equal(slices.Sorted(slices.Values(l.Final)), slices.Sorted(slices.Values(other.Final)))
}

// offLadder reports values of forward that will never fit, as far as they are written out in the config.
func (c *compilation) offLadder(r *record) {
	for _, f := range r.fields {
		if f.value == nil || !f.closed {
			continue
		}
		e := r.meant(f.value)
		all := f.ladder.all()
		for _, text := range e.fixed {
			if !f.ladder.holds(text) {
				c.d.Errorf(f.value.node, diag.OneOf(text, all), "%q stands neither in order nor in final of %s", text, f.name)
			}
		}
		for _, name := range e.tables {
			var off []string
			for _, text := range slices.Compact(slices.Sorted(slices.Values(c.catalog.Tables[name].Constants()))) {
				if !f.ladder.holds(text) {
					off = append(off, fmt.Sprintf("%q", text))
				}
			}
			if len(off) > 0 {
				c.d.Warnf(f.value.node, "an event that comes to one of them is dead: add them to order or final", "values of the table %q stand neither in order nor in final of %s: %s", name, f.name, strings.Join(off, ", "))
			}
		}
	}
}
