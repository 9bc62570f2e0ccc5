package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// onFullTables compares rates on tables with many rows with those on empty ones, in two
// databases of one Postgres that take turns, and times what people and Prometheus ask
// for on the full ones.
func (b *bench) onFullTables(ctx context.Context) (err error) {
	full := *b
	if full.database, err = b.database.another(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, full.database.close(context.WithoutCancel(ctx))) }()
	until := time.Now().Add(-time.Minute).UnixMilli()
	begun := time.Now()
	for _, d := range []*database{b.database, full.database} {
		if _, err := d.pool.Exec(ctx, fillFunctions); err != nil {
			return fmt.Errorf("prepare the filling: %w", err)
		}
	}
	defer func() {
		_, dropped := b.database.pool.Exec(context.WithoutCancel(ctx), `DROP FUNCTION bench_ms, bench_id, bench_outcome, bench_field`)
		err = errors.Join(err, dropped)
	}()
	all := filling{from: 0, to: b.rows - 1, step: 1, rows: b.rows, until: until, tables: []string{"records", "events", "deliveries", "routes", "record_keys"}}
	if err := full.database.fillBig(ctx, all, func(done, total int64) { b.progress.Set("filling", done, total) }); err != nil {
		return err
	}
	if err := full.database.tally(ctx); err != nil {
		return err
	}
	var size int64
	if err := full.database.pool.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&size); err != nil {
		return fmt.Errorf("measure the database: %w", err)
	}
	b.progress.Line("filled with %d rows each, %.1f GB, in %s", b.rows, float64(size)/1e9, time.Since(begun).Round(time.Second))
	if err := b.ratesOnRows(ctx, &full, until, size); err != nil {
		return err
	}
	return full.timesOnRows(ctx, until)
}

// ratesOnRows lets full and empty tables take turns.
func (b *bench) ratesOnRows(ctx context.Context, full *bench, until, size int64) error {
	t := b.report.table("rows", fmt.Sprintf("On %d rows in each of events, routes, deliveries, records and record_keys (%.0f GB), against empty tables", b.rows, float64(size)/1e9),
		"", "full", "empty", "full / empty", "by processor time")
	next := 0 // of the deals that are new
	for _, kind := range []struct {
		name, unit string
		one        func(ctx context.Context, on *bench, round int) (*window, error)
	}{
		{"receiving", "requests/s", func(ctx context.Context, on *bench, _ int) (*window, error) {
			w, err := on.receiveOnRows(ctx, next)
			if err == nil {
				next += w.events
			}
			return w, err
		}},
		{"working, new records", "events/s", func(ctx context.Context, on *bench, _ int) (*window, error) {
			deals := make([]deal, b.onRows)
			for i := range deals {
				deals[i] = deal{index: next + i}
			}
			next += len(deals)
			return on.workOnRows(ctx, deals)
		}},
		{"working, records that are known", "events/s", func(ctx context.Context, on *bench, round int) (*window, error) {
			// Of all records of the full tables some that lie far apart, and just these in
			// the empty ones.
			step := b.rows / int64(b.onRows)
			from := int64(round) % step
			f := filling{from: from, to: from + step*int64(b.onRows-1), step: step, rows: b.rows, until: until, tables: []string{"records", "record_keys"}}
			if on == b {
				if err := b.database.fillBig(ctx, f, func(int64, int64) {}); err != nil {
					return nil, err
				}
			}
			deals := make([]deal, 0, b.onRows)
			for i := f.from; i <= f.to; i += step {
				index := firstKey + int(i)
				deals = append(deals, deal{index: index, amount: 10_000 + round, later: int(time.Now().UnixMilli()) - firstSent - index})
			}
			return on.workOnRows(ctx, deals)
		}},
	} {
		var fulls, empties []*window
		for round := range b.rounds {
			turns := []*bench{full, b}
			if round%2 == 1 {
				slices.Reverse(turns)
			}
			for _, on := range turns {
				if err := b.database.empty(ctx); err != nil {
					return err
				}
				w, err := kind.one(ctx, on, round)
				if err != nil {
					return fmt.Errorf("%s: %w", kind.name, err)
				}
				if on == full {
					fulls = append(fulls, w)
				} else {
					empties = append(empties, w)
				}
			}
			b.progress.Line("rows %d/%d: %s: full %.0f/s, empty %.0f/s", round+1, b.rounds, kind.name, fulls[round].perSecond, empties[round].perSecond)
		}
		r := ratio("", fulls, empties)
		t.row(kind.name, fmt.Sprintf("%.0f %s", sum("", fulls).PerSecond, kind.unit), fmt.Sprintf("%.0f %s", sum("", empties).PerSecond, kind.unit),
			fmt.Sprintf("%.2f × (%.2f to %.2f)", r.Median, r.Least, r.Most), fmt.Sprintf("%.2f ×", r.Processor))
		b.report.aim(fmt.Sprintf("%s on %d rows, against empty tables", kind.name, b.rows), "≥ 0.9 ×", fmt.Sprintf("%.2f ×", r.Median), r.Median >= 0.9)
	}
	return nil
}

// receiveOnRows sends deals that are new.
func (b *bench) receiveOnRows(ctx context.Context, first int) (_ *window, err error) {
	mark := uuid.Must(uuid.NewV7())
	c, err := b.start(ctx, formOurs, "receive")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	used := b.usage(c)
	l, err := flood(ctx, c.address, hooksPath, b.connections, b.warm, b.window, first)
	if err != nil {
		return nil, err
	}
	w := &window{perSecond: l.perSecond(), events: l.answered, cost: used.since()}
	if err := b.database.pool.QueryRow(ctx, `SELECT count(*) FROM events WHERE id > $1`, mark).Scan(&w.stored); err != nil {
		return nil, fmt.Errorf("count events: %w", err)
	}
	if w.stored != w.events {
		return nil, fmt.Errorf("%d events were accepted, but %d are stored", w.events, w.stored)
	}
	// They are not to be worked.
	if _, err := b.database.pool.Exec(ctx, `TRUNCATE river_job`); err != nil {
		return nil, fmt.Errorf("empty the queue: %w", err)
	}
	_, err = b.database.pool.Exec(ctx, `
		WITH closed AS (UPDATE routes SET outcome = 'skipped', closed_at = now() WHERE outcome IS NULL RETURNING opened_at, source, sink)
		INSERT INTO tally_changes SELECT date_trunc('hour', opened_at, 'UTC'), source, sink, 'skipped', count(*) FROM closed GROUP BY 1, 2, 3`)
	if err == nil {
		_, err = b.database.pool.Exec(ctx, `VACUUM (ANALYZE) routes`)
	}
	return w, err
}

// workOnRows works the updates of deals.
func (b *bench) workOnRows(ctx context.Context, deals []deal) (_ *window, err error) {
	if err := b.crm.reset(ctx, 0); err != nil {
		return nil, err
	}
	return b.workQueue(ctx, queue{deals: deals, perJob: 1, sink: "crm", start: func(ctx context.Context) (*child, error) { return b.start(ctx, formOurs, "work") }})
}

// timesOnRows times commands, of the real program, and scrapes.
func (b *bench) timesOnRows(ctx context.Context, until int64) error {
	t := b.report.table("rows", fmt.Sprintf("Commands on %d rows", b.rows), "partnersync", "first", "median", "slowest", "aim")
	middle := b.rows/2 + 1 // a row that is mapped
	var event, dead uuid.UUID
	err := b.database.pool.QueryRow(ctx, `SELECT bench_id('event', $1, bench_ms($1, $3, $4)), bench_id('event', $2, bench_ms($2, $3, $4))`,
		middle, b.rows/2/1000*1000+2, b.rows, until).Scan(&event, &dead)
	if err != nil {
		return fmt.Errorf("choose an event: %w", err)
	}
	key := fmt.Sprintf("%08d", firstKey+middle)
	for _, args := range [][]string{
		{"explain", event.String()},
		{"explain", dead.String()},
		{"dead"},
		{"dead", "--since", "7d"},
		{"ledger"},
		{"ledger", "--since", "7d"},
		{"why", "crm", "deals", "deal_" + key},
		{"why", "crm", "deals", strconv.FormatInt(idBase+firstKey+middle, 10)},
		{"why", "crm", "deals", "Example Trading " + key},
		{"events"},
		{"events", "--since", "1h"},
		{"events", "--until", "80d"},
		{"events", "--source", "partnerstack", "--type", "deal.updated"},
		{"events", "--type", "deal.archived"},
		{"events", "--type", "deal.unknown"},
		{"events", "--source", "partnerstack", "--entity", "deal:deal_" + key},
		{"events", "--entity", "deal:deal_" + key},
		{"events", "--status", "unmapped"},
		{"events", "--status", "malformed"},
		{"events", "--outcome", "dead"},
		{"events", "--outcome", "open"},
		{"events", "--sink", "crm", "--mapping", "deals"},
		{"events", "--reason", "not one of the allowed"},
		{"events", "--text", "deal_" + key},
		{"replay", "--outcome", "dead", "--dry-run"},
	} {
		if err := b.timeCommand(ctx, t, args); err != nil {
			return err
		}
	}
	return b.timeScrapes(ctx, t)
}

// tooLong is when a command is given up.
const tooLong = 2 * time.Minute

func (b *bench) timeCommand(ctx context.Context, t *Table, args []string) error {
	path, err := b.writeConfig(b.config(formOurs))
	if err != nil {
		return err
	}
	var name string
	for _, a := range args {
		if len(a) == 36 {
			a = "ID"
		}
		name += " " + a
	}
	name = name[1:]
	var took []time.Duration
	for range b.commands {
		limited, cancel := context.WithTimeout(ctx, tooLong)
		begun := time.Now()
		out, err := exec.CommandContext(limited, b.program, append(args, "--config", path)...).CombinedOutput()
		took = append(took, time.Since(begun))
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			// Some give up by themselves what would take too long.
			last := out[bytes.LastIndexByte(bytes.TrimSpace(out), '\n')+1:]
			t.note("%s: %v: %s", name, err, bytes.TrimSpace(last))
			took = []time.Duration{tooLong}
			break
		}
	}
	b.progress.Line("rows: %s: %s", name, took[0].Round(time.Millisecond))
	b.timed(t, name, took, time.Second)
	return nil
}

// timed adds a line and an aim.
func (b *bench) timed(t *Table, name string, took []time.Duration, most time.Duration) {
	first := took[0]
	slices.Sort(took)
	middle, slowest := took[len(took)/2], took[len(took)-1]
	text := func(d time.Duration) string {
		if d >= tooLong {
			return "given up"
		}
		return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000)
	}
	t.row(name, text(first), text(middle), text(slowest), "≤ "+most.String())
	b.report.aim(fmt.Sprintf("%s on %d rows", name, b.rows), "≤ "+most.String(), text(middle), middle <= most)
}

// timeScrapes scrapes the admin listener of a process that receives and works.
func (b *bench) timeScrapes(ctx context.Context, t *Table) (err error) {
	c, err := b.start(ctx, formOurs, "receive,work")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	var client http.Client
	defer client.CloseIdleConnections()
	scrape := func() (time.Duration, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.admin+"/metrics", nil)
		if err != nil {
			return 0, err
		}
		begun := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			return 0, fmt.Errorf("scrape: %w", err)
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || n == 0) {
			err = fmt.Errorf("scrape: answered %d with %d bytes", resp.StatusCode, n)
		}
		return time.Since(begun), err
	}
	var took []time.Duration
	for range 21 {
		d, err := scrape()
		if err != nil {
			return err
		}
		took = append(took, d)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.timed(t, "GET /metrics", took, 20*time.Millisecond)
	return nil
}
