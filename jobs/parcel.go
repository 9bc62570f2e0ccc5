package jobs

import (
	"slices"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/sinks"
)

// parcel is one row on its way to the CRM, with the deliveries that it serves.
type parcel struct {
	row        sinks.Row // its Operation is empty where only links are to be made
	key        ledger.RecordKey
	record     *ledger.Record
	fields     map[string]ledger.Version // the versions sent
	parts      []part
	links      []*ledger.Link // that go along with the row
	deliveries []*delivery
	paused     bool    // once, for a short throttle
	adopted    bool    // once, for a conflict
	followed   bool    // looked for under another id, since it is gone under its own
	remade     bool    // made again, since it is gone
	moved      bool    // the CRM has put another record in the place of this one
	next       *parcel // of the same record: to be sent after this one
}

// parcels makes one row per record, and a further one where it is archived, which
// comes last: in whatever order the events came, a record stays archived.
func (c *cycle) parcels() []*parcel {
	type place struct {
		record  *ledger.Record // several keys may name it
		archive bool
	}
	byPlace := map[place]*parcel{}
	var order []place
	add := func(d *delivery) {
		if !d.open() || d.rests {
			return
		}
		at := place{d.record, d.change.Mode == mappers.Archive}
		p := byPlace[at]
		if p == nil {
			p = &parcel{key: d.key, record: d.record, fields: map[string]ledger.Version{}}
			byPlace[at] = p
			order = append(order, at)
		}
		p.deliveries = append(p.deliveries, d)
	}
	c.each(add)
	for _, d := range c.bare {
		add(d)
	}
	var ready []*parcel
	for _, at := range order {
		p := byPlace[at]
		if at.archive {
			if write := byPlace[place{at.record, false}]; write == nil && (c.findable(p) || c.archivable(p)) {
				p.fill(c.sink)
				ready = append(ready, p)
			}
			continue
		}
		p.next = byPlace[place{at.record, true}]
		p.gather()
		p.fill(c.sink)
		if p.row.Operation == "" && p.next != nil && c.archivable(p.next) {
			p = p.next // a link of what is archived is not needed any more
			p.fill(c.sink)
		}
		if p.row.Operation != "" {
			ready = append(ready, p)
		}
	}
	return ready
}

// gather takes up all that the CRM lacks of the record.
func (p *parcel) gather() {
	p.parts, p.fields = pendingParts(p.record), map[string]ledger.Version{}
	for _, part := range p.parts {
		for name, version := range part.fields {
			p.fields[name] = version
		}
	}
}

// archivable ends the deliveries that would archive a record that is not known to be there.
func (c *cycle) archivable(p *parcel) bool {
	if p.record.CRMID == "" {
		c.nothingToArchive(p)
		return false
	}
	return true
}

// mode is how the row of several deliveries is written: as that of them that may do most.
func (p *parcel) mode() mappers.Mode {
	mode := p.deliveries[len(p.deliveries)-1].change.Mode
	for _, d := range p.deliveries {
		switch m := d.change.Mode; {
		case !d.open():
		case m == mappers.Upsert, mode == mappers.UpdateOnly:
			mode = m
		}
	}
	return mode
}

// later reports whether a field is sent by a parcel that comes after this one.
func (p *parcel) later(name string) bool {
	for q := p.next; q != nil; q = q.next {
		if hasField(q.fields, name) {
			return true
		}
	}
	return false
}

// fill makes the row of a parcel. It leaves the operation empty where the record itself
// needs no request, only its links.
func (p *parcel) fill(sink *sinks.Sink) {
	last, mode := p.deliveries[len(p.deliveries)-1], p.mode()
	rec := p.record
	p.row = sinks.Row{
		Object: rec.Object, Property: last.change.Key.Property, Key: last.change.Key.Value, ID: rec.CRMID,
		Values: make(map[string]any, len(p.fields)+1),
		Event: sinks.EventInfo{
			ID: last.route.Event.String(), Source: last.route.Source, Type: last.route.Type,
			OccurredAt: last.route.OccurredAt, Mapping: last.Mapping,
		},
	}
	p.row.Trace = last.route.Event.String() + "/" + rec.ID.String()
	for name := range p.fields {
		p.row.Values[name] = rec.Fields[name].Wanted.Go
	}
	if sink.Whole() {
		// What the target makes of a request does not depend on those before.
		for name, f := range rec.Fields {
			if !f.Refused && !p.later(name) {
				p.row.Values[name] = f.Wanted.Go
			}
		}
	}
	if rec.CRMID != "" && rec.Presence == ledger.Unknown && last.change.Key.Property != "" && !last.change.Key.Local {
		// Adopted: it was there before we knew of it, and lacks our key.
		p.row.Values[last.change.Key.Property] = last.change.Key.Value
	}
	if len(p.fields) == 0 && rec.Presence != ledger.Unknown && mode != mappers.Archive {
		return
	}
	for _, d := range p.deliveries {
		if !d.open() {
			continue
		}
		for _, f := range d.change.Fields {
			if f.Rule == mappers.Touch && f.Value != nil {
				p.row.Values[f.Name] = f.Value
			}
			if f.Optional && !slices.Contains(p.row.Optional, f.Name) {
				p.row.Optional = append(p.row.Optional, f.Name)
			}
		}
	}
	switch mode {
	case mappers.Archive:
		p.row.Operation = sinks.Archive
	case mappers.Append:
		p.row.Operation = sinks.Create
	case mappers.CreateOnly:
		p.row.Operation = sinks.Create
		if !last.change.Key.Local {
			p.row.Values[last.change.Key.Property] = last.change.Key.Value
		}
	case mappers.UpdateOnly:
		p.row.Operation = sinks.Update
	default:
		p.row.Operation, _ = sink.Group(p.row)
	}
}

func hasField(fields map[string]ledger.Version, name string) bool {
	_, ok := fields[name]
	return ok
}

// split sends the parts of a refused row one after the other, oldest first.
func (c *cycle) split(p *parcel) []*parcel {
	parts := slices.Clone(p.parts)
	slices.SortFunc(parts, func(a, b part) int { return a.oldest().Compare(b.oldest()) })
	head, tail := parts[0], parts[1:]
	first := &parcel{key: p.key, record: p.record, fields: head.fields, parts: []part{head}}
	rest := &parcel{key: p.key, record: p.record, fields: map[string]ledger.Version{}, parts: tail}
	for _, t := range tail {
		for name, v := range t.fields {
			rest.fields[name] = v
		}
	}
	for _, d := range p.deliveries {
		if d.route.Event == head.event {
			first.deliveries = append(first.deliveries, d)
		} else {
			rest.deliveries = append(rest.deliveries, d)
		}
	}
	lender := p.deliveries[0]
	first.lend(lender)
	rest.lend(lender)
	first.next, rest.next = rest, p.next
	first.fill(c.sink)
	return []*parcel{first}
}

// lend gives a parcel whose event is not at hand any more a delivery to tell
// object and key by; it has ended already, so nothing is recorded for it.
func (p *parcel) lend(d *delivery) {
	if len(p.deliveries) > 0 {
		return
	}
	ended := *d
	ended.Outcome, ended.fresh = ledger.Delivered, false
	p.deliveries = []*delivery{&ended}
}

func (p part) oldest() ledger.Version {
	var oldest ledger.Version
	for _, v := range p.fields {
		if oldest.IsZero() || v.Compare(oldest) < 0 {
			oldest = v
		}
	}
	return oldest
}
