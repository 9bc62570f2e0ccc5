package jobs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/sinks"

	"github.com/google/uuid"
)

// short is how long a worker waits for a throttled sink before it gives its jobs back.
const short = 2 * time.Second

// send makes one row per record that the CRM lacks something of, and sends them
// in as few requests as the sink allows. An error means that nothing was sent.
func (c *cycle) send(ctx context.Context) error {
	parcels := c.parcels()
	if len(parcels) == 0 {
		return nil
	}
	if no := c.owner.account(ctx, c.sink); no != nil {
		for _, p := range parcels {
			c.postpone(p, *no)
		}
		return nil
	}
	parcels = c.findArchived(ctx, parcels)
	for first := true; len(parcels) > 0; {
		if err := c.seeEnds(ctx, parcels); err != nil {
			if first {
				return err
			}
			for _, p := range parcels {
				c.postpone(p, sinks.Result{Class: sinks.Network, Message: "the ledger cannot be reached"})
			}
			return nil
		}
		due, rest := c.due(parcels)
		due = slices.DeleteFunc(due, func(p *parcel) bool {
			if c.carry(p) {
				return false
			}
			if p.next != nil {
				rest = append(rest, c.turn(p.next, sinks.Result{Class: sinks.Rejected})...)
			}
			return true
		})
		if len(due) == 0 {
			parcels = rest
			continue
		}
		over, err := c.announce(ctx, c.doubtful(due))
		if ledger.Refused(err) && !c.sifted {
			c.sifted = true
			parcels = append(c.sift(ctx, due), rest...)
			continue
		}
		if err != nil {
			if first {
				return err
			}
			// What has been sent must be recorded; the rest waits.
			for _, p := range append(due, rest...) {
				c.postpone(p, sinks.Result{Class: sinks.Network, Message: "the ledger cannot be reached"})
			}
			return nil
		}
		first = false
		for _, p := range due {
			p.record.New = p.record.New && !c.doubted[p.record]
		}
		parcels = append(c.round(ctx, over, due), rest...)
	}
	return nil
}

// sift finds the parcels whose records Postgres refuses to store, and ends their deliveries:
// they would otherwise keep the others from ever being sent. It returns the others.
func (c *cycle) sift(ctx context.Context, parcels []*parcel) []*parcel {
	for _, p := range parcels {
		delete(c.doubted, p.record)
	}
	return slices.DeleteFunc(parcels, func(p *parcel) bool {
		if _, err := c.announce(ctx, c.doubtful([]*parcel{p})); !ledger.Refused(err) {
			return false
		}
		for q := p; q != nil; q = q.next {
			for _, d := range q.deliveries {
				if d.open() {
					d.end(ledger.Dead, "", "Postgres refuses to store what is wanted")
				}
			}
		}
		for k, r := range c.records {
			if r == p.record {
				delete(c.changed, k)
			}
		}
		c.owner.forget(nil, []uuid.UUID{p.record.ID})
		return true
	})
}

// doubtful are the records of parcels with all that they may change in doubt. One that is
// new needs no such thing unless its row makes links, which to take back it has to be known:
// until it is stored, no value of it passes for acknowledged.
func (c *cycle) doubtful(parcels []*parcel) []*ledger.Record {
	var records []*ledger.Record
	for _, p := range parcels {
		if p.record.New && len(p.links) == 0 || c.doubted[p.record] {
			continue
		}
		c.doubted[p.record] = true
		r := p.record.Clone()
		doubt(r, p.fields)
		if p.archives() {
			doubtAll(r)
		}
		for _, l := range r.Links {
			l.Made = l.Made || l.Pending() && !l.Remove
		}
		records = append(records, r)
	}
	for _, p := range parcels {
		for _, l := range p.links {
			if end := c.end(l); end != nil && end.New && !c.doubted[end] {
				c.doubted[end] = true
				records = append(records, end)
			}
		}
	}
	return records
}

// round sends parcels and returns those to be sent again, changed. Requests that have not
// ended when it is over are given up, and no other is begun.
func (c *cycle) round(ctx context.Context, over time.Time, parcels []*parcel) []*parcel {
	groups := map[string][]*parcel{}
	var order []string
	for _, p := range parcels {
		op, name := c.sink.Group(p.row)
		name = string(op) + "\x00" + name
		if groups[name] == nil {
			order = append(order, name)
		}
		groups[name] = append(groups[name], p)
	}
	var chunks [][]*parcel
	for _, name := range order {
		most := max(c.sink.MaxRowsOf(groups[name][0].row), 1)
		chunks = slices.AppendSeq(chunks, slices.Chunk(groups[name], most))
	}
	results := make([][]sinks.Result, len(chunks))
	sending, cancel := context.WithDeadline(ctx, over)
	defer cancel()
	var wait sync.WaitGroup
	for i, chunk := range chunks {
		wait.Go(func() {
			rows := make([]sinks.Row, len(chunk))
			for j, p := range chunk {
				rows[j] = p.row
			}
			c.owner.metrics.batchRows.WithLabelValues(c.owner.name).Observe(float64(len(rows)))
			results[i] = c.sink.Write(c.serving(sending, deliveriesOf(chunk)...), chunk[0].row.Operation, rows)
		})
	}
	wait.Wait()

	met, err := c.met(ctx, chunks, results)
	var again []*parcel
	var pause time.Duration
	for i, chunk := range chunks {
		for j, p := range chunk {
			if c.meets(ctx, p, results[i][j], met, err) {
				continue
			}
			next, wait := c.answer(sending, p, results[i][j])
			if len(next) == 0 && p.next != nil {
				next = c.turn(p.next, results[i][j])
			}
			again = append(again, next...)
			pause = max(pause, wait)
		}
	}
	if pause > 0 && len(again) > 0 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return again
}

// answer deals with what the CRM said of one parcel. It returns what is to be
// sent instead, and how long to wait before.
func (c *cycle) answer(ctx context.Context, p *parcel, res sinks.Result) ([]*parcel, time.Duration) {
	counts := c.owner.gate.heard(res.Class, reasonOf(res))
	switch res.Class {
	case sinks.OK:
		return c.accepted(p, res), 0
	case sinks.Rejected:
		return c.rejected(ctx, p, res), 0
	case sinks.Conflict:
		return c.conflict(ctx, p, res, counts), 0
	case sinks.Throttled:
		if !p.paused && res.RetryAfter <= short && ctx.Err() == nil {
			p.paused = true
			return []*parcel{p}, max(res.RetryAfter, 50*time.Millisecond)
		}
		c.owner.gate.stop(res)
		c.postpone(p, res)
	case sinks.Parked, sinks.Held:
		c.owner.gate.stop(res)
		c.postpone(p, res)
	default:
		if ctx.Err() != nil {
			counts = false // we cut it short ourselves
		}
		c.failed(p, res, counts)
	}
	return nil, 0
}

// conflict deals with a row that another record of the CRM is in the way of. That is adopted, if
// ours is not known to be one of its own. It returns what is to be sent instead.
func (c *cycle) conflict(ctx context.Context, p *parcel, res sinks.Result, counts bool) []*parcel {
	rec := p.record
	switch {
	case p.mode() == mappers.Append && res.Existing == "", // it would be in the way for ever
		rec.CRMID != "" && res.Existing != "" && res.Existing != rec.CRMID: // two records there, and we are not to make them one
		return c.rejected(ctx, p, res)
	case p.adopted:
		c.failed(p, res, counts)
		return nil
	}
	p.adopted = true
	for _, d := range p.deliveries {
		if d.open() && d.change.Mode == mappers.CreateOnly {
			refuseAll(d)
			d.end(ledger.Skipped, res.Class, "the record is there already")
		}
	}
	if res.Existing != "" {
		rec.CRMID = res.Existing
	}
	if !slices.ContainsFunc(p.deliveries, (*delivery).open) {
		rec.Presence = ledger.Present
		return nil
	}
	p.gather()
	p.fill(c.sink)
	return []*parcel{p}
}

// accepted notes what the CRM has taken. It returns what is to be sent on top, where the
// CRM has put another record in the place of the one it had.
func (c *cycle) accepted(p *parcel, res sinks.Result) []*parcel {
	rec := p.record
	moved := rec.CRMID != "" && res.ID != "" && res.ID != rec.CRMID && p.row.Operation != sinks.Archive && p.recreator() != nil
	if moved {
		resend(rec, p.recreator().route.Version)
	}
	dropped := map[string]ledger.Version{}
	for _, name := range res.Dropped {
		if v, ok := p.fields[name]; ok {
			dropped[name] = v
			delete(p.fields, name)
		}
	}
	refuse(rec, dropped)
	acknowledge(rec, p.fields)
	if !res.Unlinked {
		for _, l := range p.links {
			l.Made, l.Done = true, true
		}
	}
	if res.ID != "" {
		rec.CRMID = res.ID
	}
	rec.Presence = ledger.Present
	if moved && !p.moved {
		p.moved = true
		if p.gather(); len(p.fields) > 0 {
			p.fill(c.sink)
			return []*parcel{p}
		}
	}
	for _, d := range p.deliveries {
		if !d.open() {
			continue
		}
		if p.row.Operation == sinks.Archive {
			d.archived()
		}
		d.Status, d.CRMID = int32(res.Status), rec.CRMID
		note := ""
		if len(res.Dropped) > 0 {
			note = "left out, since the CRM refuses it: " + strings.Join(res.Dropped, ", ")
		}
		d.end(ledger.Delivered, sinks.OK, note)
	}
	return nil
}

// rejected ends a delivery whose row was refused. A row that serves several
// events is first sent again as its parts, since one bad value must not take the
// others with it.
func (c *cycle) rejected(ctx context.Context, p *parcel, res sinks.Result) []*parcel {
	rec := p.record
	if res.Absent {
		if again, handled := c.follows(ctx, p, res); handled {
			return again
		}
		if by := p.recreator(); by != nil && rec.CRMID != "" && !p.remade {
			p.remade = true
			again(rec, by.route.Version)
			p.gather()
			p.fill(c.sink)
			return []*parcel{p}
		}
		c.absent(p, res)
		return nil
	}
	if res.Unlinked && p.guesses() {
		return c.unlinked(p, res)
	}
	if len(p.parts) > 1 {
		return c.split(p)
	}
	switch {
	case res.Field != "" && hasField(p.fields, res.Field):
		refuse(rec, map[string]ledger.Version{res.Field: p.fields[res.Field]})
	case rec.Presence == ledger.Present:
		refuse(rec, p.fields)
	}
	for _, d := range p.deliveries {
		if d.open() {
			d.Status, d.CRMID = int32(res.Status), rec.CRMID
			d.Attempts++
			outcome := ledger.Dead
			if d.change.OnReject[res.Code] == "skip" {
				outcome = ledger.Skipped
			}
			d.end(outcome, res.Class, reasonOf(res))
		}
	}
	return nil
}

// absent ends deliveries to a record that is not in the CRM: gone where it has
// been there, not there yet under update_only.
func (c *cycle) absent(p *parcel, res sinks.Result) {
	gone := p.record.CRMID != ""
	if gone {
		p.record.Presence = ledger.Gone
	}
	for _, d := range p.deliveries {
		if !d.open() {
			continue
		}
		d.Status, d.CRMID = int32(res.Status), p.record.CRMID
		switch {
		case d.change.Mode == mappers.Archive:
			d.archived()
			d.end(ledger.Unchanged, res.Class, "archived already")
		case gone:
			d.end(ledger.Skipped, res.Class, "the record is gone from the CRM")
		case d.change.Absent == "dead":
			d.end(ledger.Dead, res.Class, "the record is not in the CRM")
		case d.change.Absent == "skip":
			refuseAll(d)
			d.end(ledger.Skipped, res.Class, "the record is not in the CRM")
		default:
			d.end(ledger.Skipped, res.Class, "the record is not in the CRM yet; what is wanted is kept for it")
		}
	}
}

// turn is the turn of a parcel that has waited for another of its record, if the
// CRM has given that one a final answer.
func (c *cycle) turn(p *parcel, before sinks.Result) []*parcel {
	if p.waits() {
		return nil
	}
	switch before.Class {
	case sinks.OK, sinks.Rejected:
		if p.mode() == mappers.Archive && !c.archivable(p) {
			return nil
		}
		p.fill(c.sink)
		return []*parcel{p}
	case sinks.Throttled, sinks.Parked, sinks.Held:
		c.postpone(p, before)
	default:
		before.Sent = false // this one was not
		c.failed(p, before, false)
	}
	if p.next != nil {
		return c.turn(p.next, before)
	}
	return nil
}

// postpone leaves the deliveries, and those of what comes after them, open, uncounted: the sink has stopped.
func (c *cycle) postpone(p *parcel, res sinks.Result) {
	if res.Sent {
		c.inDoubt(p)
	}
	wait, _ := c.owner.gate.stopped()
	for q := p; q != nil; q = q.next {
		for _, d := range q.deliveries {
			if d.open() {
				d.Status, d.Class, d.Reason, d.wait = int32(res.Status), string(res.Class), reasonOf(res), max(wait, time.Second)
			}
		}
	}
}

// inDoubt notes that what a parcel carries may be in the CRM, and shuts the record until that has settled.
func (c *cycle) inDoubt(p *parcel) {
	doubt(p.record, p.fields)
	if p.row.Operation == sinks.Archive {
		doubtAll(p.record)
	}
	for _, l := range p.links {
		l.Made = true
	}
	c.ambiguous[p.key] = c.sink.Settle()
	if p.record.CRMID == "" {
		c.ambiguous[p.key] += c.sink.FindLag() // who looks for what it may have made must be able to see it
	}
}

// failed leaves the deliveries open for another attempt, or ends them when their time is up.
func (c *cycle) failed(p *parcel, res sinks.Result, counts bool) {
	if res.Sent {
		c.inDoubt(p)
	}
	for _, d := range p.deliveries {
		if !d.open() {
			continue
		}
		d.Status, d.Class, d.Reason, d.fresh = int32(res.Status), string(res.Class), reasonOf(res), true
		if res.Sent && !c.sink.Repeatable(p.row.Operation) && (d.change.Key.Local || !c.sink.UniqueKeys()) {
			// Nothing in the CRM tells whether it was made; a second one would be worse.
			what := "the connection broke before the CRM said whether it made the record"
			if res.Status != 0 {
				what = "the CRM may have made the record all the same"
			}
			d.end(ledger.Dead, res.Class, reasonOf(res)+": "+what+": look, then replay")
			continue
		}
		if !counts {
			wait, _ := c.owner.gate.stopped()
			d.wait = max(wait, time.Second)
			continue
		}
		d.Attempts++
		if d.FirstFailedAt.IsZero() {
			d.FirstFailedAt = time.Now()
		}
		if time.Since(d.FirstFailedAt) >= c.owner.giveUp {
			d.end(ledger.Dead, res.Class, fmt.Sprintf("gave up after %d attempts: %s", d.Attempts, reasonOf(res)))
			continue
		}
		d.counted = true
	}
}

// reasonOf puts an answer into one line, with what helps to mend it.
func reasonOf(res sinks.Result) string {
	var b strings.Builder
	if res.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d", res.Status)
	}
	add := func(format string, args ...any) {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		fmt.Fprintf(&b, format, args...)
	}
	if res.Code != "" {
		add("%s", res.Code)
	}
	if res.Message != "" {
		add("%s", res.Message)
	}
	if res.Field != "" && !strings.Contains(res.Message, res.Field) {
		add("field %q", res.Field)
	}
	if len(res.Allowed) > 0 && !strings.Contains(res.Message, res.Allowed[0]) {
		add("it takes %s", strings.Join(res.Allowed, ", "))
	}
	return b.String()
}
