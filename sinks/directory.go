package sinks

import "slices"

// directory finds rows by what an answer calls them.
type directory struct {
	s   *Sink
	by  map[string]map[string][]int
	all []*unit
}

func newDirectory(s *Sink, units []*unit) *directory {
	return &directory{s: s, all: units, by: map[string]map[string][]int{}}
}

// named returns the rows that an element names; by trace if it can, then by id, then by key. A link is named by the
// ids of its two ends, in either direction.
func (d *directory) named(is map[string]path, element any, property string) []int {
	if from, ok := is["from"]; ok {
		to := is["to"]
		froms, tos := from.texts(element, property, nil), to.texts(element, property, nil)
		if len(froms) != 1 || len(tos) != 1 {
			return nil
		}
		return append(slices.Clone(d.rows("ends")[froms[0]+" "+tos[0]]), d.rows("ends")[tos[0]+" "+froms[0]]...)
	}
	for _, kind := range []string{"trace", "id", "key"} {
		p, ok := is[kind]
		if !ok {
			continue
		}
		var rows []int
		for _, text := range p.texts(element, property, nil) {
			if kind == "key" {
				text = d.s.Fold(propertyOf(d.all), text)
			}
			rows = append(rows, d.rows(kind)[text]...)
		}
		if len(rows) > 0 {
			return rows
		}
	}
	return nil
}

func (d *directory) rows(kind string) map[string][]int {
	if d.by[kind] == nil {
		m := make(map[string][]int, len(d.all))
		for i, u := range d.all {
			if name := u.name(d.s, kind); name != "" {
				m[name] = append(m[name], i)
			}
		}
		d.by[kind] = m
	}
	return d.by[kind]
}

func (u *unit) name(s *Sink, kind string) string {
	switch {
	case kind == "trace":
		return u.trace()
	case kind == "ends":
		if u.link == nil {
			return ""
		}
		return u.link.From.ID + " " + u.link.To.ID
	case u.row == nil:
		return ""
	case kind == "id":
		return u.row.ID
	}
	return s.Fold(u.row.Property, u.row.Key)
}

// propertyIn is what {property} stands for in the answer to an operation.
func (s *Sink) propertyIn(o *operation, units []*unit) string {
	if o.result.property == nil || len(units) == 0 {
		return propertyOf(units)
	}
	r := &rendering{d: s.desc, op: o.name, units: units}
	v, err := o.result.property.value(r, units[0], nil)
	text, _ := textOf(v)
	if err != nil {
		return ""
	}
	return text
}

func propertyOf(units []*unit) string {
	if len(units) == 0 || units[0].row == nil {
		return ""
	}
	return units[0].row.Property
}
