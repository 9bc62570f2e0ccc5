package jobs

import (
	"context"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/sinks"
)

// converge folds the changes into the wanted state of their records.
func (c *cycle) converge(ctx context.Context) error {
	var err error
	if c.records, err = c.read(ctx, c.claimed); err != nil {
		return err
	}
	if err := c.claimRecords(ctx); err != nil {
		return err
	}
	c.each(func(d *delivery) {
		if !d.open() {
			return
		}
		d.record = c.recordOf(d.key)
		if d.route.Rewrite && !d.again {
			rewrite(d.record, d.change, d.route.Version)
		}
		d.tally = fold(d.record, d.change, d.route.Version)
		if d.change.Recreate && d.route.Version.Compare(d.record.LiveAt) > 0 {
			d.record.LiveAt = d.route.Version
		}
		c.changed[d.key] = true
		for _, k := range c.toMake(d) {
			c.make(d, k)
		}
	})
	c.each(func(d *delivery) {
		if d.open() && d.record.Presence == ledger.Gone && d.recreates() {
			again(d.record, d.route.Version)
		}
	})
	c.each(func(d *delivery) {
		if d.open() {
			c.settle(d)
		}
	})
	return nil
}

// recordOf returns the record that a key names, a new one where there is none yet.
func (c *cycle) recordOf(k ledger.RecordKey) *ledger.Record {
	if r := c.records[k]; r != nil {
		return r
	}
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // the system has no randomness
	}
	r := &ledger.Record{
		ID: id, Object: k.Object, Property: k.Property, Key: k.Key, New: true,
		Presence: ledger.Unknown, Fields: map[string]*ledger.Field{}, Links: map[string]*ledger.Link{},
	}
	c.records[k] = r
	return r
}

// toMake are the records that a delivery's links want made where there are none.
func (c *cycle) toMake(d *delivery) []ledger.RecordKey {
	var keys []ledger.RecordKey
	if d.change == nil {
		return nil
	}
	for _, l := range d.change.Links {
		if l.Missing == "create" && !l.Remove {
			keys = append(keys, ledger.RecordKey{Object: l.To, Property: l.Key.Property, Key: c.sink.Fold(l.Key.Property, l.Key.Value)})
		}
	}
	return keys
}

// make plans a record with nothing but its key, for d to link to.
func (c *cycle) make(d *delivery, k ledger.RecordKey) {
	rec := c.recordOf(k)
	if rec.Presence != ledger.Unknown || c.bare[k] != nil {
		return
	}
	value := k.Key
	for _, l := range d.change.Links {
		if l.To == k.Object && l.Key.Property == k.Property && c.sink.Fold(k.Property, l.Key.Value) == k.Key {
			value = l.Key.Value
		}
	}
	c.changed[k] = true
	c.bare[k] = &delivery{
		Delivery: ledger.Delivery{Event: d.Event, Run: d.Run, Mapping: d.Mapping, Object: k.Object, Key: value},
		route:    d.route, key: k, record: rec,
		change: &mappers.Change{Mapping: d.Mapping, Object: k.Object, Mode: mappers.Upsert, Key: mappers.Key{Property: k.Property, Value: value}},
	}
}

// read returns records from memory and, for those not there, from the ledger.
func (c *cycle) read(ctx context.Context, keys []ledger.RecordKey) (map[ledger.RecordKey]*ledger.Record, error) {
	have, lack := c.owner.recall(keys)
	if len(lack) == 0 {
		return have, nil
	}
	stored, err := c.owner.ledger.Records(ctx, c.owner.name, "", lack)
	if err != nil {
		return nil, err
	}
	byID := map[uuid.UUID]*ledger.Record{}
	for _, r := range have {
		byID[r.ID] = r
	}
	for _, r := range c.records {
		byID[r.ID] = r
	}
	for k, r := range stored {
		if known := byID[r.ID]; known != nil {
			r = known // by another key
		}
		have[k] = r
	}
	return have, nil
}

// claimRecords hands on the items whose records others work on under another key. What
// may have changed under another key before it was ours is read again, and may be
// another record by then.
func (c *cycle) claimRecords(ctx context.Context) error {
	for {
		mine := c.work[:0]
		for _, w := range c.work {
			if c.owner.claimRecords(c, w.item, c.recordsOf(w)) {
				mine = append(mine, w)
			}
		}
		clear(c.work[len(mine):])
		c.work = mine
		var merged []ledger.RecordKey
		before := map[ledger.RecordKey]uuid.UUID{}
		for k, r := range c.records {
			switch {
			case !c.owner.claimedBy(c, r.ID):
				delete(c.records, k) // of an item that was handed on
			case r.Merged:
				merged = append(merged, k)
				before[k] = r.ID
				delete(c.records, k)
			}
		}
		if len(merged) == 0 {
			return nil
		}
		again, err := c.read(ctx, merged)
		if err != nil {
			return err
		}
		stable := true
		for k, r := range again {
			c.records[k] = r
			stable = stable && (r.ID == before[k] || c.owner.claimedBy(c, r.ID))
		}
		if stable {
			return nil
		}
	}
}

// recordsOf are the stored records that a job's deliveries are about, or are to be linked to.
func (c *cycle) recordsOf(w *work) []uuid.UUID {
	var ids []uuid.UUID
	add := func(k ledger.RecordKey) {
		if r := c.records[k]; r != nil {
			ids = append(ids, r.ID)
		}
	}
	for _, r := range w.routes {
		for _, d := range r.deliveries {
			if d.open() {
				add(d.key)
				for _, k := range c.toMake(d) {
					add(k)
				}
			}
		}
	}
	return ids
}

// settle ends the deliveries that need no request.
func (c *cycle) settle(d *delivery) {
	rec, mode := d.record, d.change.Mode
	d.CRMID = rec.CRMID
	switch {
	case mode == mappers.Archive:
		switch {
		case d.route.Version.Compare(rec.LiveAt) < 0:
			d.end(ledger.Stale, "", "a newer event wants the record")
		case rec.Presence == ledger.Gone:
			d.archived()
			d.end(ledger.Unchanged, "", "archived already")
		}
		return
	case (mode == mappers.CreateOnly || mode == mappers.Append) && rec.Presence == ledger.Present && d.tally.acked == 0:
		refuseAll(d)
		d.end(ledger.Skipped, "", "the record is there already")
		return
	case rec.Presence == ledger.Gone:
		c.settleGone(d)
		return
	case rec.Presence == ledger.Unknown && (d.tally.stale == 0 || d.change.Recreate):
		return // the record itself is what the CRM lacks
	}
	if contributes(rec, d.route.Version) {
		return
	}
	switch {
	case d.tally.acked > 0 && d.Run > 0 && !d.again:
		d.end(ledger.Unchanged, "", "the CRM had it before the replay")
	case d.tally.acked > 0:
		d.end(ledger.Delivered, sinks.OK, "")
	case d.tally.pending > 0:
		d.end(ledger.Stale, "", "a newer event came before it was sent")
	case d.tally.stale > 0:
		d.end(ledger.Stale, "", "a newer event has decided every field")
	case d.tally.refused > 0:
		d.end(ledger.Unchanged, "", "the CRM has refused these values before")
	default:
		d.end(ledger.Unchanged, "", "")
	}
}

// refuseAll keeps what a delivery wants from ever being sent.
func refuseAll(d *delivery) {
	for _, f := range d.record.Fields {
		if f.Version == d.route.Version && f.Mapping == d.Mapping {
			f.Refused = true
		}
	}
	for _, l := range d.record.Links {
		if l.Version == d.route.Version && l.Mapping == d.Mapping && l.Pending() {
			l.Refused = true
		}
	}
}
