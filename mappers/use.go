package mappers

import (
	"slices"
	"strings"

	"partnersync/internal/diag"
)

// Purpose says what a mapping does with a property of a CRM.
type Purpose string

// The purposes.
const (
	ForKey   Purpose = "key"   // it holds our key
	ForMatch Purpose = "match" // records are looked for by it
	ForValue Purpose = "value" // it is written
)

// Use is a property of a CRM that a mapping names.
type Use struct {
	Mapping  string
	Object   string
	Property string
	Purpose  Purpose
	At       diag.Node
	Mode     Mode
	Rule     Rule       // of a value
	Kind     Kind       // of what is written, as far as it is known before an event comes: any is not known
	Values   []Constant // what is written or compared, as far as it stands in the config
	Optional bool       // the record is written without it where the CRM refuses it
	Linked   bool       // of a record at the other end of a link
	Label    string     // that the field has in the CRM, where the property is a name of the config's own
}

// Constant is a value that stands in the config.
type Constant struct {
	Text  string
	Shown string // as people may read it: a reference such as ${NAME} stands for itself
	At    diag.Node
	Table string // the table that it stands in; "" where it stands in a mapping
}

// Uses are the properties that the mappings of a sink name, in the order of the file.
func (m *Mapper) Uses(sink string) []Use { return m.uses[sink] }

// uses tells which properties the record names.
func (r *record) uses(mapping string, tables map[string]*Table) []Use {
	var out []Use
	add := func(u Use) {
		u.Mapping, u.Label = mapping, r.aliases[u.Object][u.Property].Label
		if u.Property != "" && u.At.Exists() {
			out = append(out, u)
		}
	}
	look := func(object string, k key, ways []way, linked bool) {
		add(Use{Object: object, Property: k.property, Purpose: ForKey, At: k.at, Mode: r.mode, Kind: Text, Linked: linked})
		for _, w := range ways {
			for _, t := range w {
				add(Use{Object: object, Property: t.property, Purpose: ForMatch, At: t.at, Mode: r.mode, Kind: Text, Values: r.constants(t.value, tables), Linked: linked})
			}
		}
	}
	look(r.object, r.key, r.match, false)
	for _, f := range r.fields {
		u := Use{Object: r.object, Property: f.name, Purpose: ForValue, At: f.at, Mode: r.mode, Rule: f.rule, Kind: Any, Optional: f.optional, Values: r.constants(f.value, tables)}
		if f.value != nil && f.value.kind.Kind != "" {
			u.Kind = f.value.kind.Kind
		}
		if f.rule == Add {
			u.Kind = List
		}
		u.Values = append(u.Values, f.steps...)
		add(u)
	}
	for _, l := range r.links {
		look(l.To, l.key, l.match, true)
	}
	return out
}

// constants are the values that an expression may give, as far as they stand in the config.
func (r *record) constants(e *Expression, tables map[string]*Table) []Constant {
	if e = r.meant(e); e == nil {
		return nil
	}
	var out []Constant
	for _, text := range e.fixed {
		out = append(out, Constant{Text: text, Shown: text, At: e.node})
	}
	for _, name := range e.tables {
		if t := tables[name]; t != nil {
			for _, c := range t.places {
				c.Table = name
				out = append(out, c)
			}
		}
	}
	return out
}

// meant is the expression behind a name of let that stands alone.
func (r *record) meant(e *Expression) *Expression {
	for e != nil && len(e.chain) == 1 {
		i := slices.IndexFunc(r.lets, func(l let) bool { return l.name == e.chain[0] })
		if i < 0 {
			break
		}
		e = r.lets[i].value
	}
	return e
}

// constantAt is a scalar of the config as a constant; false where it has no value.
func constantAt(n diag.Node, value any) (Constant, bool) {
	text, ok := scalarText(value)
	c := Constant{Text: text, Shown: text, At: n}
	if strings.Contains(n.Text(), "${") {
		c.Shown = n.Text()
	}
	return c, ok && text != ""
}

// use adds what a record names. The variants of a record for several sources name the same.
func (m *Mapper) use(r *record, mapping string, tables map[string]*Table) {
	for _, u := range r.uses(mapping, tables) {
		list := m.uses[r.sink]
		i := slices.IndexFunc(list, func(o Use) bool { return o.At.Pos() == u.At.Pos() && o.Purpose == u.Purpose })
		if i < 0 {
			m.uses[r.sink] = append(list, u)
			continue
		}
		if list[i].Kind != u.Kind {
			list[i].Kind = Any
		}
	}
}
