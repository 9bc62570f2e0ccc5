package jobs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// Links that a target takes together with the row of their record: in the create, or
// in every write. What cannot go along is made afterwards, see link.go.

// seeEnds reads what is known of the records that the links of parcels lead to, where
// the links may go along with the rows.
func (c *cycle) seeEnds(ctx context.Context, parcels []*parcel) error {
	var links []*ledger.Link
	for _, p := range parcels {
		if byID, byKey := c.sink.Description().CarriesLinks(p.row.Operation); byID || byKey {
			links = append(links, wantedLinks(p.record)...)
		}
	}
	return c.lookUp(ctx, links)
}

// wantedLinks are the links of a record that the CRM lacks, in the order of their versions.
func wantedLinks(rec *ledger.Record) []*ledger.Link {
	var links []*ledger.Link
	for _, l := range rec.Links {
		if l.Pending() && !l.Remove {
			links = append(links, l)
		}
	}
	slices.SortFunc(links, func(a, b *ledger.Link) int {
		return cmp.Or(a.Version.Compare(b.Version), cmp.Compare(a.To, b.To), cmp.Compare(a.Key, b.Key))
	})
	return links
}

// due parts the parcels to send now from those whose links lead to records that these
// are to make first.
func (c *cycle) due(parcels []*parcel) (now, later []*parcel) {
	making := map[ledger.RecordKey]bool{}
	for _, p := range parcels {
		if p.record.CRMID == "" {
			making[p.key] = true
		}
	}
	for _, p := range parcels {
		byID, byKey := c.sink.Description().CarriesLinks(p.row.Operation)
		if (byID || byKey) && slices.ContainsFunc(wantedLinks(p.record), func(l *ledger.Link) bool {
			k := c.targetKey(l)
			return k != p.key && making[k]
		}) {
			later = append(later, p)
		} else {
			now = append(now, p)
		}
	}
	if len(now) == 0 {
		return later, nil // they lead to each other
	}
	return now, later
}

// carry gives the row of a parcel the links that go along with it. It reports
// whether the row may be sent: not where it lacks a link that is required.
func (c *cycle) carry(p *parcel) bool {
	p.row.Links, p.links = nil, nil
	byID, byKey := c.sink.Description().CarriesLinks(p.row.Operation)
	if !byID && !byKey {
		return true
	}
	for _, l := range wantedLinks(p.record) {
		row := sinks.RowLink{Object: l.To, Property: l.Property, Key: l.Key, As: l.As, Required: p.requires(l)}
		if end := c.end(l); end != nil && end.Presence != ledger.Gone {
			row.ID = end.CRMID
		}
		if row.ID != "" && byID || row.ID == "" && byKey {
			p.row.Links = append(p.row.Links, row)
			p.links = append(p.links, l)
			continue
		}
		if row.Required && !c.without(p, l, "") {
			return false
		}
	}
	return true
}

// requires reports whether an event behind the parcel wants its record made with the link, or not at all.
func (p *parcel) requires(l *ledger.Link) bool {
	return p.record.CRMID == "" && slices.ContainsFunc(p.deliveries, func(d *delivery) bool { return d.open() && d.wish(l).Required })
}

// guesses reports whether the row needs a link to a record that only the CRM may know.
func (p *parcel) guesses() bool {
	return slices.ContainsFunc(p.row.Links, func(l sinks.RowLink) bool { return l.Required && l.ID == "" })
}

// unlinked deals with a row that was refused, it may be for the lack of what a link
// leads to. It returns what is to be sent instead.
func (c *cycle) unlinked(p *parcel, res sinks.Result) []*parcel {
	for i, l := range p.links {
		if p.row.Links[i].Required && p.row.Links[i].ID == "" && !c.without(p, l, reasonOf(res)) {
			return nil
		}
	}
	return []*parcel{p}
}

// without decides what follows when the other end of a required link is not known: it
// reports whether the row is to be sent without. Otherwise its deliveries wait, or have ended.
func (c *cycle) without(p *parcel, l *ledger.Link, why string) bool {
	t := &tie{key: p.key, link: l, record: p.record}
	for _, d := range p.deliveries {
		if d.open() && d.wish(l).Required {
			t.deliveries = append(t.deliveries, d)
		}
	}
	c.missing(t, why)
	if !l.Pending() {
		return true // it may be missing
	}
	wait := time.Duration(0)
	for _, d := range t.deliveries {
		if d.open() {
			wait = max(wait, d.wait)
		}
	}
	if wait == 0 { // all have ended, and nobody else requires it
		return slices.ContainsFunc(p.deliveries, (*delivery).open)
	}
	for q := p; q != nil; q = q.next {
		for _, d := range q.deliveries {
			if d.open() && d.wait == 0 {
				d.postponeTo("link", "the record is not made yet: another event wants it made with a link that leads nowhere yet", wait)
			}
		}
	}
	return false
}

// waits reports whether the deliveries of a parcel have been put off.
func (p *parcel) waits() bool {
	return slices.ContainsFunc(p.deliveries, func(d *delivery) bool { return d.open() && d.wait > 0 })
}
