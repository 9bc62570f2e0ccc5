package jobs

import (
	"context"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// Two keys of ours that name one record of the CRM: that shows when the CRM answers for the
// one with the id that we know from the other. What is wanted under either is then wanted of one
// record, and both keys name it.

// crmID names a record as the CRM does.
type crmID struct{ object, id string }

// learnt is the CRM's id that an answer tells of a parcel's record, where it may be known from
// another: of one that was only just made too, since that answer may be late.
func (p *parcel) learnt(res sinks.Result) string {
	id := ""
	switch {
	case p.row.Operation == sinks.Archive && res.Class != sinks.Conflict:
	case res.Class == sinks.OK && !p.deliveries[0].change.Key.Local:
		id = res.ID
	case res.Class == sinks.Conflict && p.record.CRMID == "":
		id = res.Existing
	}
	if id == p.record.CRMID {
		return ""
	}
	return id
}

// met looks up which of the CRM's ids that a round has told are known from other records. It
// takes them first: what another cycle is about to record of one is in the ledger only then,
// and until then stands here as a record without an id.
func (c *cycle) met(ctx context.Context, chunks [][]*parcel, results [][]sinks.Result) (map[crmID]ledger.Met, error) {
	ids := map[string][]string{}
	met := map[crmID]ledger.Met{}
	for i, chunk := range chunks {
		for j, p := range chunk {
			at := crmID{p.record.Object, p.learnt(results[i][j])}
			if at.id == "" {
				continue
			}
			switch mine, known := c.owner.claimID(c, at, results[i][j].Created); {
			case !mine:
				met[at] = ledger.Met{}
			case known:
				ids[at.object] = append(ids[at.object], at.id)
			}
		}
	}
	for object, list := range ids {
		found, err := c.owner.ledger.Met(ctx, c.owner.name, "", object, list)
		if err != nil {
			return met, err
		}
		for id, m := range found {
			met[crmID{object, id}] = m
		}
	}
	return met, nil
}

// meets reports whether the answer to a parcel says that its record is one that we know by
// another key. The two are then one, and what is wanted of it is sent when the jobs come again.
// lost is why that could not be looked up.
func (c *cycle) meets(ctx context.Context, p *parcel, res sinks.Result, met map[crmID]ledger.Met, lost error) bool {
	id := p.learnt(res)
	if id == "" {
		return false
	}
	other, wait := c.known(ctx, crmID{p.record.Object, id}, p.record.ID, met, lost)
	if other == nil && wait == 0 {
		return false
	}
	c.owner.gate.heard(res.Class, reasonOf(res))
	if other == nil {
		// As if it had not been sent: the answer will be the same, once the CRM shows what it has made.
		doubt(p.record, p.fields)
		for _, l := range p.links {
			l.Made = l.Made || res.Class == sinks.OK
		}
		if res.Created {
			c.ambiguous[p.key] = max(c.ambiguous[p.key], c.sink.FindLag())
		}
		p.putOff("another key names the same record, and that is being written", wait)
		return true
	}
	if res.Class == sinks.OK {
		acknowledge(p.record, p.fields)
		if !res.Unlinked {
			for _, l := range p.links {
				l.Made, l.Done = true, true
			}
		}
	}
	c.merge(p, other, res.Class == sinks.OK)
	p.putOff("another key names the same record: what is wanted of both is sent as one", 50*time.Millisecond)
	return true
}

// known returns the record, other than self, that the CRM knows by an id; or how long
// to wait until it can be had.
func (c *cycle) known(ctx context.Context, at crmID, self uuid.UUID, met map[crmID]ledger.Met, lost error) (*ledger.Record, time.Duration) {
	for _, r := range c.records {
		if r.ID != self && r.Object == at.object && r.CRMID == at.id && r.Presence != ledger.Gone {
			return r, 0
		}
	}
	if lost != nil {
		return nil, 2 * time.Second
	}
	m, ok := met[at]
	switch {
	case !ok || m.ID == self:
		return nil, 0
	case m.ID == uuid.Nil:
		return nil, time.Second // of the cycle that has heard of it as well
	}
	for _, r := range c.records {
		if r.ID == m.ID {
			return nil, 0 // it has another id by now
		}
	}
	if !c.owner.claimMet(c, m) {
		return nil, time.Second
	}
	found, err := c.read(ctx, m.Keys[:1])
	if err != nil {
		return nil, 2 * time.Second
	}
	r := found[m.Keys[0]]
	if r == nil || r.CRMID != at.id || r.Presence == ledger.Gone {
		return nil, 0
	}
	for _, k := range m.Keys {
		c.records[k] = r
	}
	return r, 0
}

// merge lays what is wanted of a parcel's record into the other that it turned out to be.
func (c *cycle) merge(p *parcel, into *ledger.Record, taken bool) {
	from := p.record
	key := p.deliveries[len(p.deliveries)-1]
	merge(into, from)
	if property := key.change.Key.Property; property != into.Property && !key.change.Key.Local && into.Fields[property] == nil {
		// It carries this key beside the other, in a property of its own.
		f := &ledger.Field{Wanted: ledger.NewValue(key.change.Key.Value), Version: key.route.Version, Mapping: key.Mapping, Rule: "set"}
		if taken {
			f.Acked, f.AckedAt = f.Wanted, f.Version
		}
		into.Fields[property] = f
	}
	for k, r := range c.records {
		if r == from {
			c.records[k] = into
		}
	}
	c.changed[p.key] = true
	c.merges = append(c.merges, ledger.Merge{From: from.ID, Into: into.ID, Key: p.key})
	c.each(func(d *delivery) {
		if d.record == from {
			d.record = into
		}
	})
	for _, d := range c.bare {
		if d.record == from {
			d.record = into
		}
	}
	for q := p; q != nil; q = q.next {
		q.record = into
	}
}

// follows reports whether the record of a parcel, which is gone from the CRM under its id, is
// there under another, since somebody has merged it; and what is then to be sent.
func (c *cycle) follows(ctx context.Context, p *parcel, res sinks.Result) ([]*parcel, bool) {
	if p.record.CRMID == "" || p.followed || p.row.Operation == sinks.Archive || !c.findable(p) {
		return nil, false
	}
	row := p.row
	row.ID = ""
	found := c.sink.Find(ctx, []sinks.Row{row})[0]
	switch {
	case found.Absent, found.Class == sinks.Rejected:
		return nil, false
	case found.Class != sinks.OK:
		found.Sent = false
		again, _ := c.answer(ctx, p, found)
		return again, true
	case found.ID == "" || found.ID == p.record.CRMID:
		return nil, false
	}
	p.followed = true
	p.record.CRMID = "" // until it is clear whose the other is
	there := sinks.Result{Class: sinks.Conflict, Status: res.Status, Existing: found.ID}
	met, err := c.met(ctx, [][]*parcel{{p}}, [][]sinks.Result{{there}})
	if c.meets(ctx, p, there, met, err) {
		return nil, true
	}
	if d := p.recreator(); d != nil {
		resend(p.record, d.route.Version)
		p.gather()
	}
	p.record.CRMID = found.ID
	p.fill(c.sink)
	return []*parcel{p}, true
}

// putOff leaves what is open of a parcel, and of what comes after it, to be tried again, uncounted.
func (p *parcel) putOff(why string, wait time.Duration) {
	for q := p; q != nil; q = q.next {
		for _, d := range q.deliveries {
			if d.open() {
				d.postponeTo("", why, wait)
			}
		}
	}
}
