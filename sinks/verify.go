package sinks

import "time"

// verify reads the records that a find or a search names without showing whether they are what was looked for, and keeps
// those that are. One that has gone meanwhile is none of them.
func (w *writing) verify(op Operation, u *unit, o outcome) outcome {
	units := make([]*unit, len(o.doubted))
	for i, id := range o.doubted {
		row := Row{Trace: u.row.Trace, Object: u.row.Object, Property: u.row.Property, ID: id, Terms: termsOf(op, u.row), Read: u.row.Read}
		units[i] = &unit{row: &row, at: i}
	}
	reading := &writing{s: w.s, ctx: w.ctx, out: make([]outcome, len(units))}
	reading.send(Read, units)
	var kept []outcome
	for _, one := range reading.out {
		switch {
		case one.Class == OK && len(one.Hits) == 1:
			kept = append(kept, one)
		case !one.Absent:
			return one
		}
	}
	o.doubted = nil
	if op == Search {
		oldestFirst(kept, func(k outcome) time.Time { return k.made })
		for _, k := range kept {
			o.Hits = append(o.Hits, k.Hits...)
		}
		return o
	}
	more := o.More
	o.More = false
	var ids []string
	for _, k := range kept {
		ids = append(ids, k.Hits[0].ID)
	}
	if o.identify(op, ids, more); o.Class == OK {
		o.Hits = kept[0].Hits
	}
	return o
}
