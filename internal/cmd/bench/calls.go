package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/sandbox"
)

// latency is how long a CRM far away takes for an answer.
const latency = 50 * time.Millisecond

// calls counts what 1,000 deals cost each CRM in requests: when it does not have them
// yet, and when their ids are known. All are queued before the work begins, as they are
// at load; each event has a job of its own. What fills a batch is the time that those
// before it take, so that a CRM which answers at once gets more and smaller ones.
func (b *bench) calls(ctx context.Context) error {
	t := b.report.table("calls", fmt.Sprintf("Requests for %d deals, counted by the CRM (sandbox)", b.updates),
		"CRM", "first time: writes", "lookups", "updates: writes", "lookups", "answering in 50 ms", "aim", "others")
	all, err := dialects()
	if err != nil {
		return err
	}
	err = b.onSandbox(ctx, all, func(d dialect, box *boxed) error {
		text := d.config(b.database.url, box.url)
		if err := b.make(ctx, text, b.updates); err != nil {
			return err
		}
		first := box.take()
		update := func(nth int) (map[string]int, error) {
			_, err := b.workQueue(ctx, queue{deals: changes(b.updates, nth), perJob: 1, sink: "crm", start: b.worker(text)})
			return box.take(), err
		}
		then, err := update(1)
		if err != nil {
			return err
		}
		got := then
		if d.batch > 1 {
			box.Fault(sandbox.Fault{Latency: latency})
			if got, err = update(2); err != nil {
				return err
			}
		}
		if n := len(box.Records(d.name, d.object)); n != b.updates {
			return fmt.Errorf("the CRM has %d records of %d deals", n, b.updates)
		}
		requests := got[writes] + got[lookups]
		b.progress.Line("calls: %s: %d for %d updates", d.name, requests, b.updates)
		aim := ""
		if d.byID > 0 {
			aim = strconv.Itoa(d.byID)
		}
		t.row(d.name, strconv.Itoa(first[writes]), strconv.Itoa(first[lookups]), strconv.Itoa(then[writes]), strconv.Itoa(then[lookups]), strconv.Itoa(requests), aim, strconv.Itoa(then[others]))
		if d.byID > 0 && b.updates == 1000 {
			b.report.aim("requests for 1,000 deal updates: "+d.name, fmt.Sprintf("≤ %d", d.byID), strconv.Itoa(requests), requests <= d.byID)
		}
		return nil
	})
	t.note("others: who we are, and tokens, when the worker starts; the presets' limits are off, they change no count")
	return err
}

// match counts what it costs to find out what a CRM has already, where it has every second deal:
// of deals that are seen for the first time, and of those that are known.
func (b *bench) match(ctx context.Context) error {
	t := b.report.table("match", fmt.Sprintf("Requests for %d deals with match and set_if_empty, every second of which the CRM (sandbox) has already", b.updates),
		"CRM", "first time: lookups", "writes", "known: lookups", "writes", "rows of a lookup")
	all, err := dialects()
	if err != nil {
		return err
	}
	err = b.onSandbox(ctx, all, func(d dialect, box *boxed) error {
		text := d.matching(d.config(b.database.url, box.url))
		deals := make([]deal, b.updates)
		for i := range deals {
			if deals[i] = (deal{index: i}); i%2 == 0 {
				box.Put(d.name, d.object, map[string]any{d.named: fmt.Sprintf("deal_%08d", i)})
			}
		}
		work := func(deals []deal) (map[string]int, error) {
			// Jobs of a hundred, so that how full a batch is does not depend on who is faster.
			_, err := b.workQueue(ctx, queue{deals: deals, perJob: 100, sink: "crm", start: b.worker(text)})
			return box.take(), err
		}
		first, err := work(deals)
		if err != nil {
			return err
		}
		if n := len(box.Records(d.name, d.object)); n != b.updates {
			return fmt.Errorf("the CRM has %d records of %d deals", n, b.updates)
		}
		known, err := work(changes(b.updates, 1))
		if err != nil {
			return err
		}
		b.progress.Line("match: %s: %d lookups for %d deals", d.name, first[lookups], b.updates)
		t.row(d.name, strconv.Itoa(first[lookups]), strconv.Itoa(first[writes]), strconv.Itoa(known[lookups]), strconv.Itoa(known[writes]), strconv.Itoa(d.sought))
		b.report.aim("lookups of known deals: "+d.name, "0", strconv.Itoa(known[lookups]), known[lookups] == 0)
		if most := (b.updates + 99) / 100; d.sought >= 100 {
			b.report.aim("lookups for each 100 new deals: "+d.name, "≤ 1", fmt.Sprintf("%.1f", float64(first[lookups])/float64(most)), first[lookups] <= most)
		}
		return nil
	})
	t.note("the presets' limits are off, they change no count")
	return err
}

// distant measures rows/s to a CRM that takes 50 ms for each request.
func (b *bench) distant(ctx context.Context) error {
	t := b.report.table("distant", "Updates of known deals to a CRM that answers in 50 ms (sandbox), at the preset's concurrency and batches",
		"CRM", "rows/s", "requests at a time", "rows per request", "at most, by these", "at most, by the preset's limits")
	all, err := dialects()
	if err != nil {
		return err
	}
	err = b.onSandbox(ctx, all, func(d dialect, box *boxed) error {
		n := b.dealsFor(d)
		text := d.config(b.database.url, box.url)
		if err := b.make(ctx, text, n); err != nil {
			return err
		}
		box.Fault(sandbox.Fault{Latency: latency})
		box.take()
		w, err := b.workQueue(ctx, queue{deals: changes(n, 1), perJob: 1, sink: "crm", start: b.worker(text)})
		if err != nil {
			return err
		}
		requests := box.take()[writes]
		b.progress.Line("distant: %s: %.0f rows/s", d.name, w.perSecond)
		most := float64(d.slots*d.batch) / latency.Seconds()
		limit := "none"
		if d.allowed > 0 {
			limit = fmt.Sprintf("%.0f", d.allowed)
		}
		t.row(d.name, fmt.Sprintf("%.0f", w.perSecond), strconv.Itoa(d.slots), fmt.Sprintf("%.0f", float64(n)/float64(max(requests, 1))), fmt.Sprintf("%.0f", most), limit)
		return nil
	})
	t.note("measured with the presets' limits off (limits: []), since they are those of an account: the last column says what they allow")
	return err
}

// dealsFor is how many deals a CRM gets.
func (b *bench) dealsFor(d dialect) int {
	if d.batch > 1 {
		return b.farDeals
	}
	return b.farDeals / 20
}

// bisect counts the requests that it takes to find the one bad row of a batch that the
// CRM refuses as a whole, wherever it stands.
func (b *bench) bisect(ctx context.Context) error {
	t := b.report.table("bisect", "Requests for a batch with one bad row, which the CRM (sandbox) refuses as a whole", "CRM", "rows", "at most", "at least", "aim")
	batched, err := dialects()
	if err != nil {
		return err
	}
	batched = slices.DeleteFunc(batched, func(d dialect) bool { return d.batch == 1 })
	err = b.onSandbox(ctx, batched, func(d dialect, box *boxed) (err error) {
		box.Fault(sandbox.Fault{Contains: "poison", Effect: sandbox.EffectStatus, Status: 400})
		c, err := b.startOurs(ctx, d.config(b.database.url, box.url), "work")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.stop()) }()
		next := 0
		for _, size := range []struct{ rows, aim int }{{100, 15}, {200, 17}} {
			if size.rows > d.batch {
				continue
			}
			var counts []int
			for _, bad := range []int{0, 1, size.rows / 3, size.rows/2 - 1, size.rows / 2, size.rows - 1} {
				n, err := b.bisectOnce(ctx, box, next, size.rows, bad)
				if err != nil {
					return err
				}
				next += size.rows
				counts = append(counts, n)
			}
			most := slices.Max(counts)
			b.progress.Line("bisect: %s: %d for 1 bad row of %d", d.name, most, size.rows)
			t.row(d.name, strconv.Itoa(size.rows), strconv.Itoa(most), strconv.Itoa(slices.Min(counts)), fmt.Sprintf("≤ %d", size.aim))
			b.report.aim(fmt.Sprintf("requests for 1 bad row of %d: %s", size.rows, d.name), fmt.Sprintf("≤ %d", size.aim), strconv.Itoa(most), most <= size.aim)
		}
		return nil
	})
	t.note("over six places of the bad row; it alone is dead, all others are delivered")
	return err
}

// bisectOnce has new deals worked in one batch; one of them is bad.
func (b *bench) bisectOnce(ctx context.Context, box *boxed, from, rows, bad int) (int, error) {
	mark := uuid.Must(uuid.NewV7())
	deals := make([]deal, rows)
	for i := range deals {
		deals[i] = deal{index: from + i}
	}
	deals[bad].name = "poison"
	box.take()
	// One job for all, so that they are one batch.
	if err := b.database.accept(ctx, "crm", deals, rows); err != nil {
		return 0, err
	}
	if err := b.awaitClosed(ctx, "crm"); err != nil {
		return 0, err
	}
	counted := box.take()
	var delivered, dead int
	err := b.database.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE outcome = 'delivered'), count(*) FILTER (WHERE outcome = 'dead') FROM routes WHERE event_id > $1`, mark).
		Scan(&delivered, &dead)
	if err != nil {
		return 0, fmt.Errorf("read how routes ended: %w", err)
	}
	if delivered != rows-1 || dead != 1 {
		return 0, fmt.Errorf("of %d rows, one of them bad, %d were delivered and %d are dead", rows, delivered, dead)
	}
	return counted[writes] + counted[lookups], nil
}
