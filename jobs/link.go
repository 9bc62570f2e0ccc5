package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/sinks"
)

// tie is one link on its way to the CRM.
type tie struct {
	key        ledger.RecordKey // of the record
	link       *ledger.Link
	record     *ledger.Record
	deliveries []*delivery
}

// link connects the records that are in the CRM by now. A delivery has arrived
// only when its links have.
func (c *cycle) link(ctx context.Context) {
	ties := c.ties()
	if len(ties) == 0 {
		return
	}
	targets, err := c.targets(ctx, ties)
	if err != nil {
		for _, t := range ties {
			t.reopen(sinks.Network, "the ledger cannot be read", 2*time.Second)
		}
		return
	}
	var rows []sinks.LinkRow
	var sent []*tie
	for _, t := range ties {
		target := targets[c.targetKey(t.link)]
		if target == nil || target.CRMID == "" {
			c.missing(t)
			continue
		}
		rows = append(rows, sinks.LinkRow{
			Trace: t.link.Version.Event.String() + "/" + t.record.ID.String(),
			From:  sinks.Ref{Object: t.record.Object, Property: t.record.Property, Key: t.record.Key, ID: t.record.CRMID},
			To:    sinks.Ref{Object: t.link.To, Property: t.link.Property, Key: t.link.Key, ID: target.CRMID},
			As:    t.link.As, Remove: t.link.Remove,
		})
		sent = append(sent, t)
	}
	if len(rows) == 0 {
		return
	}
	// Should this process end now, it has to be known which links the CRM may have made:
	// who takes one back needs both records.
	var doubtful []*ledger.Record
	for _, t := range sent {
		target := targets[c.targetKey(t.link)]
		if !c.doubted[t.record] {
			c.doubted[t.record] = true
			doubtful = append(doubtful, t.record)
		}
		if target.New && !c.doubted[target] {
			c.doubted[target] = true
			doubtful = append(doubtful, target)
		}
	}
	over, err := c.announce(ctx, doubtful)
	if err != nil {
		for _, t := range sent {
			t.reopen(sinks.Network, "the ledger cannot be reached", 2*time.Second)
		}
		return
	}
	linking, cancel := context.WithDeadline(ctx, over)
	defer cancel()
	for i, res := range c.sink.Link(linking, rows) {
		c.linked(linking, sent[i], res)
	}
}

// ties are the links that the CRM lacks, of records that it has.
func (c *cycle) ties() []*tie {
	var ties []*tie
	byLink := map[*ledger.Link]*tie{}
	c.each(func(d *delivery) {
		if d.record == nil || d.record.CRMID == "" || d.record.Presence == ledger.Gone || (!d.open() && d.Outcome != ledger.Delivered) {
			return
		}
		for _, l := range d.record.Links {
			if l.Done || d.wait > 0 || d.counted {
				continue
			}
			t := byLink[l]
			if t == nil {
				t = &tie{key: d.key, link: l, record: d.record}
				byLink[l] = t
				ties = append(ties, t)
			}
			if l.Version == d.route.Version {
				t.deliveries = append(t.deliveries, d)
			}
		}
	})
	return ties
}

func (c *cycle) targetKey(l *ledger.Link) ledger.RecordKey {
	return ledger.RecordKey{Object: l.To, Property: l.Property, Key: c.sink.Fold(l.Property, l.Key)}
}

// targets returns what is known of the records that links lead to.
func (c *cycle) targets(ctx context.Context, ties []*tie) (map[ledger.RecordKey]*ledger.Record, error) {
	found := map[ledger.RecordKey]*ledger.Record{}
	var lack []ledger.RecordKey
	for _, t := range ties {
		k := c.targetKey(t.link)
		if r := c.records[k]; r != nil {
			found[k] = r
		} else if !slices.Contains(lack, k) {
			lack = append(lack, k)
		}
	}
	others, err := c.read(ctx, lack)
	if err != nil {
		return nil, err
	}
	for k, r := range others {
		found[k] = r
	}
	return found, nil
}

// missing decides what follows when the record at the other end is not known yet.
func (c *cycle) missing(t *tie) {
	if t.link.Remove {
		t.link.Done = true // what was never made need not be undone
		t.done(sinks.Result{Class: sinks.OK})
		return
	}
	for _, d := range t.deliveries {
		if d.Outcome == ledger.Dead { // by another link
			continue
		}
		wish := d.wish(t.link)
		what := fmt.Sprintf("no %s with that %s is known yet to link to", t.link.To, t.link.Property)
		switch age := time.Since(d.route.ReceivedAt); {
		case wish.Missing == "skip":
			t.link.Done = true
			if !d.open() || !contributes(t.record, d.route.Version) { // else another link is awaited
				d.end(ledger.Delivered, sinks.OK, what)
			}
		case wish.Missing == "create" && c.bare[c.targetKey(t.link)] != nil && !c.bare[c.targetKey(t.link)].open():
			d.end(ledger.Dead, "link", fmt.Sprintf("%s could not be made to link to: %s", t.link.To, c.bare[c.targetKey(t.link)].Reason))
		case age >= wish.For && wish.For > 0:
			d.end(ledger.Dead, "link", what)
		default:
			d.postponeTo(sinks.Class("link"), what, min(max(age/4, time.Second), 5*time.Minute))
		}
	}
}

func (c *cycle) linked(ctx context.Context, t *tie, res sinks.Result) {
	counts := c.owner.gate.heard(res.Class, reasonOf(res)) && ctx.Err() == nil
	switch res.Class {
	case sinks.OK:
		t.link.Done = true
		c.changed[t.key] = true
		t.done(res)
	case sinks.Rejected, sinks.Conflict:
		for _, d := range t.deliveries {
			d.Status = int32(res.Status)
			d.Attempts++
			d.end(ledger.Dead, res.Class, fmt.Sprintf("link to %s: %s", t.link.To, reasonOf(res)))
		}
	case sinks.Throttled, sinks.Parked, sinks.Held:
		c.owner.gate.stop(res)
		wait, _ := c.owner.gate.stopped()
		t.reopen(res.Class, reasonOf(res), max(wait, time.Second))
	default:
		c.failedLink(t, res, counts)
	}
}

func (c *cycle) failedLink(t *tie, res sinks.Result, counts bool) {
	if res.Sent {
		c.ambiguous[t.key] = max(c.ambiguous[t.key], c.sink.Settle())
	}
	for _, d := range t.deliveries {
		if d.Outcome == ledger.Dead {
			continue
		}
		d.Outcome, d.Status, d.Class, d.Reason, d.fresh = ledger.Open, int32(res.Status), string(res.Class), reasonOf(res), true
		if !counts {
			d.wait = time.Second
			continue
		}
		d.Attempts++
		if d.FirstFailedAt.IsZero() {
			d.FirstFailedAt = time.Now()
		}
		if time.Since(d.FirstFailedAt) >= c.owner.giveUp {
			d.end(ledger.Dead, res.Class, fmt.Sprintf("link to %s: gave up after %d attempts: %s", t.link.To, d.Attempts, reasonOf(res)))
			continue
		}
		d.counted = true
	}
}

// wish is what the mapping says of a link. A removal that `only` brings about has none.
func (d *delivery) wish(l *ledger.Link) mappers.Link {
	for _, w := range d.change.Links {
		if w.To == l.To && w.As == l.As && w.Key.Property == l.Property && w.Key.Value == l.Key {
			return w
		}
	}
	return mappers.Link{}
}

// done ends the deliveries whose last link this was.
func (t *tie) done(res sinks.Result) {
	for _, d := range t.deliveries {
		if d.open() && !contributes(t.record, d.route.Version) {
			d.Status, d.CRMID = int32(res.Status), t.record.CRMID
			d.end(ledger.Delivered, sinks.OK, d.Reason)
		}
	}
}

// reopen leaves the deliveries to be tried again, uncounted.
func (t *tie) reopen(class sinks.Class, reason string, wait time.Duration) {
	for _, d := range t.deliveries {
		if d.Outcome != ledger.Dead {
			d.postponeTo(class, reason, wait)
		}
	}
}

func (d *delivery) postponeTo(class sinks.Class, reason string, wait time.Duration) {
	d.Outcome, d.Class, d.Reason, d.wait, d.fresh = ledger.Open, string(class), reason, wait, true
}
