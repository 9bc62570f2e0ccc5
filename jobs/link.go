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
	former     []*ledger.Link // whose place it takes: they need not, and must not, be removed
}

// link connects the records that are in the CRM by now. A delivery has arrived
// only when its links have.
func (c *cycle) link(ctx context.Context) {
	var links []*ledger.Link
	c.eachLinked(func(d *delivery) {
		for _, l := range d.record.Links {
			if l.Pending() {
				links = append(links, l)
			}
		}
	})
	if len(links) == 0 {
		return
	}
	err := c.lookUp(ctx, links)
	ties := c.ties()
	if err != nil {
		for _, t := range ties {
			t.reopen(sinks.Network, "the ledger cannot be read", 2*time.Second)
		}
		return
	}
	var rows []sinks.LinkRow
	var sent []*tie
	for _, t := range ties {
		if c.unsettled(t.record) {
			t.reopen(sinks.Network, "what was sent of the record before may still take effect", c.sink.Settle())
			continue
		}
		row := c.linkRow(t)
		if row.To.ID == "" && !(t.link.Remove && c.sink.Replaces(row)) {
			c.missing(t, "")
			continue
		}
		rows = append(rows, row)
		sent = append(sent, t)
	}
	if len(rows) == 0 {
		return
	}
	// Should this process end now, it has to be known which links the CRM may have made:
	// who takes one back needs both records.
	var doubtful []*ledger.Record
	for _, t := range sent {
		t.link.Made = true
		if !c.doubted[t.record] {
			c.doubted[t.record] = true
			doubtful = append(doubtful, t.record)
		}
		if end := c.end(t.link); end != nil && end.New && !c.doubted[end] {
			c.doubted[end] = true
			doubtful = append(doubtful, end)
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
	var served [][]*delivery
	for _, t := range sent {
		served = append(served, t.deliveries)
	}
	for i, res := range c.sink.Link(c.serving(linking, served...), rows) {
		c.linked(linking, sent[i], res)
	}
}

// unsettled reports whether a request of this cycle for the record has had no answer: it may
// have archived it.
func (c *cycle) unsettled(rec *ledger.Record) bool {
	for k := range c.ambiguous {
		if c.records[k] == rec {
			return true
		}
	}
	return false
}

// ties are the links that the CRM lacks, of records that it has.
func (c *cycle) ties() []*tie {
	var ties []*tie
	byLink := map[*ledger.Link]*tie{}
	tieOf := func(l *ledger.Link, d *delivery) *tie {
		t := byLink[l]
		if t == nil {
			t = &tie{key: d.key, link: l, record: d.record}
			byLink[l] = t
			ties = append(ties, t)
		}
		return t
	}
	c.eachLinked(func(d *delivery) {
		for _, l := range d.record.Links {
			if !l.Pending() {
				continue
			}
			t := tieOf(l, d)
			if next := c.successor(d.record, t); next != nil && next.Pending() {
				t = tieOf(next, d)
				if !slices.Contains(t.former, l) {
					t.former = append(t.former, l)
				}
			}
			if l.Of(d.route.Version) && !slices.Contains(t.deliveries, d) {
				t.deliveries = append(t.deliveries, d)
			}
		}
	})
	// A removal that the successor brings about, or has, and one of what was never made, are no requests.
	return slices.DeleteFunc(ties, func(t *tie) bool {
		next := c.successor(t.record, t)
		switch {
		case !t.link.Remove:
			return false
		case t.link.Made && next == nil:
			return false
		case next == nil || !next.Pending() || !t.link.Made:
			c.over(t, sinks.Result{Class: sinks.OK})
		}
		return true
	})
}

// eachLinked calls f for the deliveries whose record is in the CRM to be linked.
func (c *cycle) eachLinked(f func(*delivery)) {
	c.each(func(d *delivery) {
		there := d.record != nil && d.record.CRMID != "" && d.record.Presence != ledger.Gone
		if there && (d.open() && d.wait == 0 && !d.counted || d.Outcome == ledger.Delivered) {
			f(d)
		}
	})
}

// over notes that the CRM has what is wanted of a link, and of those whose place it has taken.
func (c *cycle) over(t *tie, res sinks.Result) {
	t.link.Made, t.link.Done = !t.link.Remove, true
	for _, l := range t.former {
		l.Made, l.Done = false, true
	}
	c.changed[t.key] = true
	t.done(res)
}

// successor is the link that takes the place of one to be removed, in a target where
// making it is all that this takes.
func (c *cycle) successor(rec *ledger.Record, t *tie) *ledger.Link {
	if !t.link.Remove || !c.sink.Replaces(c.linkRow(t)) {
		return nil
	}
	for _, l := range rec.Links {
		if !l.Remove && !l.Refused && l.As == t.link.As && (l.As != "" || l.To == t.link.To) {
			return l
		}
	}
	return nil
}

func (c *cycle) linkRow(t *tie) sinks.LinkRow {
	row := sinks.LinkRow{
		Trace: t.link.Version.Event.String() + "/" + t.record.ID.String(),
		From:  sinks.Ref{Object: t.record.Object, Property: t.record.Property, Key: t.record.Key, ID: t.record.CRMID},
		To:    sinks.Ref{Object: t.link.To, Property: t.link.Property, Key: t.link.Key},
		As:    t.link.As, Remove: t.link.Remove,
	}
	if end := c.end(t.link); end != nil && end.Presence != ledger.Gone {
		row.To.ID = end.CRMID
	}
	return row
}

func (c *cycle) targetKey(l *ledger.Link) ledger.RecordKey {
	return ledger.RecordKey{Object: l.To, Property: l.Property, Key: c.sink.Fold(l.Property, l.Key)}
}

// end is what is known of the record that a link leads to, once that has been looked up.
func (c *cycle) end(l *ledger.Link) *ledger.Record {
	k := c.targetKey(l)
	if r := c.records[k]; r != nil {
		return r
	}
	return c.ends[k]
}

// lookUp reads what is known of the records that links lead to.
func (c *cycle) lookUp(ctx context.Context, links []*ledger.Link) error {
	var lack []ledger.RecordKey
	for _, l := range links {
		k := c.targetKey(l)
		if _, known := c.ends[k]; !known && c.records[k] == nil && !slices.Contains(lack, k) {
			lack = append(lack, k)
		}
	}
	if len(lack) == 0 {
		return nil
	}
	found, err := c.read(ctx, lack)
	if err != nil {
		return err
	}
	for _, k := range lack {
		c.ends[k] = found[k]
	}
	return nil
}

// missing decides what follows when the record at the other end is not known yet,
// and says why, where the CRM has told.
func (c *cycle) missing(t *tie, why string) {
	if t.link.Remove {
		c.over(t, sinks.Result{Class: sinks.OK}) // what is not known any more
		return
	}
	for _, d := range t.deliveries {
		if d.Outcome == ledger.Dead { // by another link
			continue
		}
		wish := d.wish(t.link)
		if wish.To == "" { // of another event, which has had its time
			t.link.Owed = ledger.Version{}
			t.done(sinks.Result{Class: sinks.OK})
			continue
		}
		what := fmt.Sprintf("no %s with that %s is known yet to link to", t.link.To, t.link.Property)
		if why != "" {
			what += ": " + why
		}
		switch age := time.Since(d.route.ReceivedAt); {
		case wish.Missing == "skip":
			t.link.Done = true
			if t.record.CRMID != "" && (!d.open() || !contributes(t.record, d.route.Version)) { // else the record or another link is awaited
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
		c.over(t, res)
	case sinks.Rejected, sinks.Conflict:
		t.link.Refused = true
		c.changed[t.key] = true
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
