package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
)

// verdict gathers what is wrong.
type verdict struct {
	faults []string
	places []place // records that are not what they have to be
	events []string
}

func (v *verdict) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// differs notes a fault of a record.
func (v *verdict) differs(p place, by version, format string, args ...any) {
	v.fault("%s: %s", p, fmt.Sprintf(format, args...))
	if !slices.Contains(v.places, p) {
		v.places = append(v.places, p)
		v.events = append(v.events, by.id.String())
	}
}

const shown = 20 // faults that are printed

// judge looks at everything once all is quiet. The error says all that is wrong.
func (w *world) judge(ctx context.Context, l *load) (*report, error) {
	v := &verdict{}
	for _, s := range append(append([]*slot{}, w.receivers...), w.workers...) {
		if err := s.stop(); err != nil {
			v.fault("%v", err)
		}
	}
	w.looks.Wait()
	for _, s := range append(append([]*slot{}, w.receivers...), w.workers...) {
		v.faults = append(v.faults, s.complaints()...)
	}
	if err := w.judgeLogs(v); err != nil {
		return nil, err
	}
	v.faults = append(v.faults, l.refused...)
	events, err := w.events(ctx)
	if err != nil {
		return nil, err
	}
	lacking, err := w.lacking(ctx, l)
	if err != nil {
		return nil, err
	}
	for _, p := range lacking {
		v.fault("accepted and not stored: %s %s, answered as %s", p.typ, p.body, p.id)
	}
	r := w.report(l, events)
	if err := w.judgeRoutes(ctx, v, events, r); err != nil {
		return nil, err
	}
	want, err := oracle(events)
	if err != nil {
		v.fault("%v", err)
	}
	for order, text := range l.notes {
		// Who writes them knows their order, without the table.
		if p := (place{"crm", "orders", order}); want.records[p]["note"].value != text {
			v.differs(p, want.records[p]["note"].by, "by the table the last note is %q, its sender wrote %q last", want.records[p]["note"].value, text)
		}
	}
	for _, c := range w.crms {
		c.judge(v, want)
	}
	if err := w.judgeReplays(ctx, v, r); err != nil {
		return nil, err
	}
	if r.repeats > r.repeatsBound {
		v.fault("%d rows were sent again unchanged, %d may", r.repeats, r.repeatsBound)
	}
	if err := w.judgeLedger(ctx, v, r); err != nil {
		return nil, err
	}
	if len(v.faults) == 0 {
		return r, nil
	}
	return r, errors.New(w.explain(ctx, v))
}

// judgeLogs: no process has panicked, raced with itself, or written what Postgres does not take.
func (w *world) judgeLogs(v *verdict) error {
	logs, err := filepath.Glob(filepath.Join(w.dir, "*.log"))
	if err != nil {
		return err
	}
	for _, name := range logs {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, sign := range []string{"\npanic: ", "\nfatal error: ", "WARNING: DATA RACE", "a worker panicked", "Postgres refuses"} {
			if bytes.Contains(append([]byte("\n"), data...), []byte(sign)) {
				v.fault("%s: see %s", strings.TrimSpace(sign), name)
			}
		}
	}
	return nil
}

// judgeRoutes: every event has the routes that its type asks for, and each has ended.
func (w *world) judgeRoutes(ctx context.Context, v *verdict, events []event, r *report) error {
	type route struct {
		event, sink, outcome, reason string
	}
	rows, err := w.pool.Query(ctx, `SELECT event_id::text, sink, coalesce(outcome, 'open'), reason FROM routes ORDER BY event_id, sink`)
	if err != nil {
		return err
	}
	routes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x route, err error) {
		err = row.Scan(&x.event, &x.sink, &x.outcome, &x.reason)
		return x, err
	})
	if err != nil {
		return err
	}
	byEvent := map[string][]route{}
	for _, x := range routes {
		byEvent[x.event] = append(byEvent[x.event], x)
		r.outcomes[x.outcome]++
	}
	for _, e := range events {
		id := e.id.String()
		var b body
		if err := json.Unmarshal(e.body, &b); err != nil {
			return fmt.Errorf("event %s: %w", id, err)
		}
		var got []string
		for _, x := range byEvent[id] {
			got = append(got, x.sink)
			dies := strings.HasPrefix(e.typ, "deal.") && b.Key == ""
			if x.outcome == "skipped" && x.reason == "the replay was cancelled" {
				continue
			}
			if x.outcome == "open" || (x.outcome == "dead") != dies {
				v.fault("event %s: the route to %s is %s: %s", id, x.sink, x.outcome, x.reason)
				v.events = append(v.events, id)
			}
		}
		got = slices.Compact(got) // replays have runs of their own
		if want := sinksOf(e.typ); !slices.Equal(got, want) {
			v.fault("event %s, a %s, has routes to %v, want %v", id, e.typ, got, want)
			v.events = append(v.events, id)
		}
	}
	return nil
}

// judge compares the records of the CRM with what has to be there.
func (c *crm) judge(v *verdict, want state) {
	if c.worst > 0 {
		v.fault("this machine was too slow for the test: %s took a request %s later than it may", c.sink, c.worst)
	}
	for object, property := range map[string]string{
		"orders": "order_key", "firms": "firm_key", "seats": "seat_key", "contacts": "email", "deals": orderProperty,
	} {
		have := c.records(object, property)
		for p, cells := range want.records {
			if p.sink != c.sink || p.object != object {
				continue
			}
			list := have[p.key]
			delete(have, p.key)
			if len(list) != 1 {
				v.differs(p, cells[property].by, "%d records", len(list))
				continue
			}
			c.judgeRecord(v, p, cells, list[0].Properties, property)
			if key := textOf(list[0].Properties["member_key"]); object == "contacts" && !want.members[p.key][key] {
				v.differs(p, cells[property].by, "member_key is %q, want one of %v", key, sortedKeys(want.members[p.key]))
			}
		}
		for key, list := range have {
			p := place{c.sink, object, key}
			v.differs(p, want.ended[p], "%d records, and nothing wants them", len(list))
		}
	}
	for object, property := range map[string]string{"orders": "order_key", "seats": "seat_key"} {
		got := c.links(object, property)
		for p, cell := range want.firms {
			if p.sink != c.sink || p.object != object {
				continue
			}
			if !slices.Equal(got[p.key], []string{cell.value}) {
				v.differs(p, cell.by, "linked to %v, want %s by %s", got[p.key], cell.value, cell.by.id)
			}
			delete(got, p.key)
		}
		for key, firms := range got {
			v.differs(place{c.sink, object, key}, version{}, "linked to %v, and nothing wants it", firms)
		}
	}
}

func (c *crm) judgeRecord(v *verdict, p place, cells map[string]cell, got map[string]any, property string) {
	for field, cell := range cells {
		if got := textOf(got[field]); got != cell.value {
			v.differs(p, cell.by, "%s is %q, want %q by %s of %s", field, got, cell.value, cell.by.id, cell.by.at.UTC().Format(time.RFC3339Nano))
		}
	}
	for _, field := range []string{
		"title", "amount", "tier", "description", "first_partner", "paid", "note", "touched", "name", "last_order", "last_seat", "origin_id",
		"email", "firstname", "jobtitle",
	} {
		if _, has := cells[field]; !has && textOf(got[field]) != "" {
			v.differs(p, cells[property].by, "%s is %q, and nothing wants it", field, textOf(got[field]))
		}
	}
}

// judgeLedger asks partnersync itself.
func (w *world) judgeLedger(ctx context.Context, v *verdict, r *report) error {
	out, err := w.command(ctx, "ledger", "--json")
	if err != nil {
		v.fault("%v\n%s", err, out)
		return nil
	}
	var list []struct {
		Accepted, Delivered, Unchanged, Stale, Skipped, Dead, Open, Unaccounted int
	}
	if err := json.Unmarshal([]byte(out), &list, json.MatchCaseInsensitiveNames(true)); err != nil {
		return fmt.Errorf("partnersync ledger --json: %w\n%s", err, out)
	}
	told := map[string]int{}
	accepted := 0
	for _, b := range list {
		accepted += b.Accepted
		told["delivered"] += b.Delivered
		told["unchanged"] += b.Unchanged
		told["stale"] += b.Stale
		told["skipped"] += b.Skipped
		told["dead"] += b.Dead
		told["open"] += b.Open
		if b.Unaccounted != 0 || b.Open != 0 {
			v.fault("the ledger does not balance: %+v", b)
		}
	}
	routes := 0
	for outcome, n := range told {
		routes += r.outcomes[outcome]
		if r.outcomes[outcome] != n {
			v.fault("the ledger tells of %d %s routes, there are %d", n, outcome, r.outcomes[outcome])
		}
	}
	if accepted != routes {
		v.fault("the ledger tells of %d accepted routes, there are %d", accepted, routes)
	}
	return nil
}

// explain puts the faults into words, with what partnersync itself has to say of them.
func (w *world) explain(ctx context.Context, v *verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults:\n", len(v.faults))
	for i, f := range v.faults {
		if i == shown {
			fmt.Fprintf(&b, "  and %d more\n", len(v.faults)-shown)
			break
		}
		fmt.Fprintf(&b, "  %s\n", f)
	}
	for _, p := range v.places[:min(len(v.places), 3)] {
		out, err := w.command(ctx, "why", p.sink, p.object, p.key)
		fmt.Fprintf(&b, "\nwhy %s\n%s", p, out)
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
		}
	}
	for _, id := range v.events[:min(len(v.events), 3)] {
		out, err := w.command(ctx, "explain", id)
		fmt.Fprintf(&b, "\nexplain %s\n%s", id, out)
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
		}
	}
	return b.String()
}

// events are all that are stored.
func (w *world) events(ctx context.Context) ([]event, error) {
	rows, err := w.pool.Query(ctx, `SELECT id, type, entity, occurred_at, version_at, received_at, rank, status, body FROM events ORDER BY id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e event, err error) {
		err = row.Scan((*[16]byte)(&e.id), &e.typ, &e.entity, &e.occurredAt, &e.versionAt, &e.receivedAt, &e.rank, &e.status, &e.body)
		return e, err
	})
}

// lacking are the posts that were accepted and are not in the events table. What was
// answered out of a spool may be stored under the id of an equal event.
func (w *world) lacking(ctx context.Context, l *load) ([]post, error) {
	rows, err := w.pool.Query(ctx, `SELECT type, body FROM events`)
	if err != nil {
		return nil, err
	}
	stored := map[post]bool{}
	var typ string
	var text []byte
	if _, err := pgx.ForEachRow(rows, []any{&typ, &text}, func() error {
		stored[post{typ: typ, body: string(text)}] = true
		return nil
	}); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var lacking []post
	for _, p := range l.accepted {
		if !stored[post{typ: p.typ, body: p.body}] {
			lacking = append(lacking, p)
		}
	}
	return lacking, nil
}
