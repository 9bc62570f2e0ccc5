package jobs

import (
	"context"
	"slices"
	"time"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/sinks"
)

// What becomes of records that are gone from the CRM: archived by an event of ours, or not
// there any more when we come to write them. Without `if_deleted: recreate` what is gone stays
// gone, in whatever order the events come; with it the newest event decides.

// again makes a record that is gone one that the CRM lacks whole, for the event of a version
// to make it.
func again(rec *ledger.Record, by ledger.Version) {
	rec.CRMID, rec.Presence = "", ledger.Unknown
	resend(rec, by)
}

// resend forgets what the CRM has of a record, so that all that is known is sent again.
func resend(rec *ledger.Record, by ledger.Version) {
	for _, f := range rec.Fields {
		f.Acked, f.AckedAt = ledger.Value{}, ledger.Version{}
	}
	for _, l := range rec.Links {
		l.Made, l.Done, l.Owed = false, l.Remove, by
	}
}

// archives reports whether the parcel, or one that comes after it, archives the record.
func (p *parcel) archives() bool {
	for q := p; q != nil; q = q.next {
		if q.mode() == mappers.Archive {
			return true
		}
	}
	return false
}

// doubtAll notes that nobody knows whether the record is there: a newer event that wants it must
// find out.
func doubtAll(rec *ledger.Record) {
	for _, f := range rec.Fields {
		f.AckedAt = ledger.Version{}
	}
}

// recreates reports whether the delivery makes its record again should it be gone.
func (d *delivery) recreates() bool {
	return d.change.Recreate && (d.record.GoneAt.IsZero() || d.route.Version.Compare(d.record.GoneAt) > 0)
}

// recreator is the delivery that makes the record again should it be gone; nil where none does.
func (p *parcel) recreator() *delivery {
	i := slices.IndexFunc(p.deliveries, func(d *delivery) bool { return d.open() && d.recreates() })
	if i < 0 {
		return nil
	}
	return p.deliveries[i]
}

// archived notes that an event has archived the record, or would have.
func (d *delivery) archived() {
	d.record.Presence = ledger.Gone
	if d.route.Version.Compare(d.record.GoneAt) > 0 {
		d.record.GoneAt = d.route.Version
	}
}

// settleGone ends a delivery to a record that is gone.
func (c *cycle) settleGone(d *delivery) {
	switch at := d.record.GoneAt; {
	case at.IsZero():
		d.end(ledger.Skipped, "", "the record is gone from the CRM")
	case !d.change.Recreate:
		d.end(ledger.Skipped, "", "the record is archived")
	case c.unmade(d):
		d.rests = true
	default:
		d.end(ledger.Stale, "", archivedSince)
	}
}

const archivedSince = "a newer event has archived the record"

// unmade reports whether what the links of a delivery want made is not there yet, and may still be.
func (c *cycle) unmade(d *delivery) bool {
	return slices.ContainsFunc(c.toMake(d), func(k ledger.RecordKey) bool {
		return c.records[k].Presence == ledger.Unknown && c.bare[k] != nil && c.bare[k].open()
	})
}

const unnamed = "the CRM has not told the id of the record, which a link of it needs"

// rest ends the deliveries that only waited for what their links lead to, and sees to it that
// none stays open without anything to come.
func (c *cycle) rest() {
	c.each(func(d *delivery) {
		switch {
		case !d.rests && d.open() && d.wait == 0 && !d.counted:
			if d.record != nil && d.record.Presence == ledger.Gone && d.change.Mode != mappers.Archive {
				c.settleGone(d) // its links are not needed any more
			}
			if d.open() {
				d.postponeTo("link", unnamed, min(max(time.Since(d.route.ReceivedAt)/4, 2*time.Second), 5*time.Minute))
			}
		case !d.rests:
		case c.unmade(d):
			d.postponeTo("link", "what the record is to be linked to could not be made yet", time.Second)
		default:
			d.end(ledger.Stale, "", archivedSince)
		}
	})
}

// findArchived looks up the records to archive that nobody has told us of, where the CRM
// can be asked by our key.
func (c *cycle) findArchived(ctx context.Context, parcels []*parcel) []*parcel {
	var unknown []*parcel
	var rows []sinks.Row
	for _, p := range parcels {
		if p.row.Operation == sinks.Archive && p.record.CRMID == "" {
			unknown = append(unknown, p)
			rows = append(rows, p.row)
		}
	}
	if len(rows) == 0 {
		return parcels
	}
	ended := map[*parcel]bool{}
	for i, res := range c.sink.Find(c.serving(ctx, deliveriesOf(unknown)...), rows) {
		p := unknown[i]
		switch {
		case res.Class == sinks.OK && res.ID != "":
			there := sinks.Result{Class: sinks.Conflict, Status: res.Status, Existing: res.ID}
			met, err := c.met(ctx, [][]*parcel{{p}}, [][]sinks.Result{{there}})
			if c.meets(ctx, p, there, met, err) {
				break // it is known by another key, and comes again as that
			}
			p.record.CRMID, p.record.Presence = res.ID, ledger.Present
			p.fill(c.sink)
			continue
		case res.Class == sinks.OK || res.Absent:
			c.nothingToArchive(p)
		default:
			if again, _ := c.answer(ctx, p, res); len(again) > 0 {
				c.postpone(p, res) // there is time for a short throttle
			}
		}
		ended[p] = true
	}
	return slices.DeleteFunc(parcels, func(p *parcel) bool { return ended[p] })
}

// findable reports whether the CRM can be asked for the record by our key.
func (c *cycle) findable(p *parcel) bool {
	key := p.deliveries[len(p.deliveries)-1].change.Key
	return c.sink.Supports(sinks.Find) && key.Property != "" && !key.Local
}

// nothingToArchive ends the deliveries that would archive a record that is not there. Older
// events that come late must not make it.
func (c *cycle) nothingToArchive(p *parcel) {
	for _, d := range p.deliveries {
		if d.open() && d.change.Mode == mappers.Archive {
			d.archived()
			d.end(ledger.Skipped, "", "there is no record to archive")
		}
	}
}
