package jobs

import (
	"context"
	"slices"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/sinks"
)

// What becomes of records that are gone from the CRM: archived by an event of ours, or not
// there any more when we come to write them. Without `if_deleted: recreate` what is gone stays
// gone, in whatever order the events come; with it the newest event decides.

// again makes a record that is gone one that the CRM lacks whole.
func again(rec *ledger.Record) {
	rec.CRMID, rec.Presence = "", ledger.Unknown
	resend(rec)
}

// resend forgets what the CRM has of a record, so that all that is known is sent again.
func resend(rec *ledger.Record) {
	for _, f := range rec.Fields {
		f.Acked, f.AckedAt = ledger.Value{}, ledger.Version{}
	}
	for _, l := range rec.Links {
		l.Made, l.Done = false, l.Remove
	}
}

// recreates reports whether the delivery makes its record again should it be gone.
func (d *delivery) recreates() bool {
	return d.change.Recreate && (d.record.GoneAt.IsZero() || d.route.Version.Compare(d.record.GoneAt) > 0)
}

// recreates reports whether any of the deliveries makes the record again.
func (p *parcel) recreates() bool {
	return slices.ContainsFunc(p.deliveries, func(d *delivery) bool { return d.open() && d.recreates() })
}

// archived notes that an event has archived the record, or would have.
func (d *delivery) archived() {
	d.record.Presence = ledger.Gone
	if d.route.Version.Compare(d.record.GoneAt) > 0 {
		d.record.GoneAt = d.route.Version
	}
}

// settleGone ends a delivery to a record that is gone.
func (d *delivery) settleGone() {
	switch at := d.record.GoneAt; {
	case at.IsZero():
		d.end(ledger.Skipped, "", "the record is gone from the CRM")
	case d.change.Recreate:
		d.end(ledger.Stale, "", "a newer event has archived the record")
	default:
		d.end(ledger.Skipped, "", "the record is archived")
	}
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
	for i, res := range c.sink.Find(ctx, rows) {
		p := unknown[i]
		switch {
		case res.Class == sinks.OK && res.ID != "":
			p.record.CRMID, p.record.Presence = res.ID, ledger.Present
			p.fill(c.sink)
			continue
		case res.Class == sinks.OK || res.Absent:
			c.nothingToArchive(p)
		default:
			_, _ = c.answer(ctx, p, res)
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
