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
	slow   bool    // the machine was: what else is wrong may come of that
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

// errSlow means that nobody can tell: the CRMs of the run took longer than those that it plays may.
var errSlow = errors.New("this machine was too slow to judge by")

const shown = 20 // faults that are printed

// judge looks at everything once all is quiet. The error says all that is wrong.
func (w *world) judge(ctx context.Context, l *load) (*report, error) {
	v := &verdict{}
	for _, s := range w.slots() {
		if err := s.stop(); err != nil {
			v.fault("%v", err)
		}
	}
	w.looks.Wait()
	for _, s := range w.slots() {
		v.faults = append(v.faults, s.complaints()...)
	}
	if err := w.judgeLogs(v); err != nil {
		return nil, err
	}
	v.faults = append(v.faults, l.refused...)
	events, err := w.readEvents(ctx)
	if err != nil {
		return nil, err
	}
	lacking, err := w.lacking(ctx, l)
	if err != nil {
		return nil, err
	}
	for _, p := range lacking {
		v.fault("%s", p)
	}
	// What was old when it came had ended before; nobody sent it.
	events = slices.DeleteFunc(events, func(e event) bool { return w.relics[e.id] })
	intents, err := w.readIntents(ctx)
	if err != nil {
		return nil, err
	}
	routes, err := w.readRoutes(ctx)
	if err != nil {
		return nil, err
	}
	r := w.report(l, events, routes)
	if err := w.judgeRoutes(ctx, v, events, routes, intents, r); err != nil {
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
	for address := range w.forgotten {
		delete(want.records, place{"crm", "contacts", address}) // what the CRM has of them is the operator's to delete
	}
	for _, c := range w.crms {
		if c.sink == living {
			c.judgeLiving(v)
			continue
		}
		c.judge(v, want, w.forgotten)
	}
	if err := w.judgeWrites(v, events, intents, want, routes, r); err != nil {
		return nil, err
	}
	if err := w.judgeForgotten(ctx, v); err != nil {
		return nil, err
	}
	if err := w.judgeReplays(ctx, v, r); err != nil {
		return nil, err
	}
	if err := w.judgeLedger(ctx, v, r); err != nil {
		return nil, err
	}
	if len(v.faults) == 0 {
		return r, nil
	}
	err = errors.New(w.explain(ctx, v))
	if v.slow {
		err = errors.Join(errSlow, err)
	}
	return r, err
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

// judgeWrites: no write was older than one before it, all were announced, and nobody announced
// what another had announced.
func (w *world) judgeWrites(v *verdict, events []event, intents *intents, want state, routes map[string][]route, r *report) error {
	book, err := newBook(events)
	if err != nil {
		return err
	}
	persons := map[string][]string{}
	for email, keys := range want.members {
		persons[email] = sortedKeys(keys)
	}
	for _, c := range w.crms {
		if c.sink == living { // nobody knows what has to be there but by what was there before
			continue
		}
		judge := &court{sink: c.sink, book: book, intents: intents, persons: persons, gone: w.forgotten, verdict: v, begun: w.begun}
		judge.judge(c.journal)
		judge.repeats(c, routes)
		r.writes += judge.writes
		r.lost += judge.lost
		for id, times := range judge.notes {
			again := 0 // who replays has looked
			for _, x := range routes[id] {
				again = max(again, x.run)
			}
			if times > 1+again {
				v.fault("at the CRM are %d notes of event %s, which was replayed %d times", times, id, again)
				v.events = append(v.events, id)
			}
		}
		if c.sink != "crm" {
			continue
		}
		for _, e := range events {
			if id := e.id.String(); e.typ == callMade && judge.notes[id] == 0 && slices.ContainsFunc(routes[id], func(x route) bool { return x.outcome == "delivered" }) {
				v.fault("event %s is delivered, and the CRM has no note of it", id)
				v.events = append(v.events, id)
			}
		}
	}
	intents.crossed(func(later, earlier *intent, key string) {
		v.fault("at %.2fs: %s sets out to write %q, of which %s had said at %.2fs that it may write it until %.2fs", later.made.Sub(w.begun).Seconds(),
			later.owner, strings.ReplaceAll(key, "\x1f", " "), earlier.owner, earlier.made.Sub(w.begun).Seconds(), earlier.until.Sub(w.begun).Seconds())
	})
	return nil
}

// judgeForgotten: nothing of a person who is forgotten is left.
func (w *world) judgeForgotten(ctx context.Context, v *verdict) error {
	for address := range w.forgotten {
		var events, records int
		err := w.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM events WHERE position($1::bytea IN body) > 0), (SELECT count(*) FROM records WHERE position($2 IN fields::text) > 0)`,
			[]byte(address), address).Scan(&events, &records)
		if err != nil {
			return err
		}
		if events+records > 0 {
			v.fault("%s is forgotten, and %d events and %d records hold the address", address, events, records)
		}
	}
	return nil
}

// route is a row of the routes table.
type route struct {
	event, sink, outcome, reason string
	run                          int
	rewrite                      bool
}

// readRoutes are the routes of each event, in the order of sinks.
func (w *world) readRoutes(ctx context.Context) (map[string][]route, error) {
	rows, err := w.pool.Query(ctx, `SELECT event_id::text, sink, coalesce(outcome, 'open'), reason, run, rewrite FROM routes ORDER BY event_id, sink, run`)
	if err != nil {
		return nil, err
	}
	byEvent := map[string][]route{}
	var x route
	_, err = pgx.ForEachRow(rows, []any{&x.event, &x.sink, &x.outcome, &x.reason, &x.run, &x.rewrite}, func() error {
		x.sink = baseOf(x.sink)
		byEvent[x.event] = append(byEvent[x.event], x)
		return nil
	})
	return byEvent, err
}

// judgeRoutes: every event has the routes that its type asks for, and each has ended.
func (w *world) judgeRoutes(ctx context.Context, v *verdict, events []event, routes map[string][]route, intents *intents, r *report) error {
	kept := map[[16]byte]bool{}
	rows, err := w.pool.Query(ctx, `SELECT id FROM events`)
	if err != nil {
		return err
	}
	var one [16]byte
	if _, err := pgx.ForEachRow(rows, []any{&one}, func() error { kept[one] = true; return nil }); err != nil {
		return err
	}
	for id := range w.relics {
		if !kept[id] {
			r.expired++
		}
	}
	unsure := map[string]bool{}
	for _, c := range w.crms {
		for note := range c.unsure {
			unsure[note] = true
		}
	}
	for _, i := range intents.all {
		for _, key := range i.keys {
			if note, ok := strings.CutPrefix(key, keyOf("notes", "")); ok && !i.told {
				unsure[note] = true
			}
		}
	}
	for _, e := range events {
		id := e.id.String()
		if !kept[e.id] {
			if old := w.olds[e.id]; !old {
				v.fault("event %s is gone, and was not old", id)
			}
			r.expired++
			continue
		}
		var b body
		if err := json.Unmarshal(e.body, &b); err != nil {
			return fmt.Errorf("event %s: %w", id, err)
		}
		var got []string
		for _, x := range routes[id] {
			if x.sink != "annex" {
				got = append(got, x.sink)
			}
			if x.outcome == "skipped" && x.reason == "the replay was cancelled" {
				continue
			}
			dies := strings.HasPrefix(e.typ, "deal.") && b.Key == "" || e.typ == callMade && unsure[id] && x.outcome == "dead"
			if x.outcome == "open" || (x.outcome == "dead") != dies {
				v.fault("event %s, a %s: the route to %s is %s: %s", id, e.typ, x.sink, x.outcome, x.reason)
				v.events = append(v.events, id)
			}
		}
		got = slices.Compact(got) // replays have runs of their own
		if want := sinksOf(e.typ); !slices.Equal(got, want) || !w.dropped && strings.HasPrefix(e.typ, "deal.") && !e.annex {
			v.fault("event %s, a %s, has routes to %v, want %v", id, e.typ, got, want)
			v.events = append(v.events, id)
		}
	}
	return nil
}

// judge compares the records of the CRM with what has to be there.
func (c *crm) judge(v *verdict, want state, forgotten map[string]time.Time) {
	if c.worst > 0 {
		v.slow = true
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
			if _, ok := forgotten[key]; ok && object == "contacts" {
				continue
			}
			p := place{c.sink, object, key}
			v.differs(p, want.ended[p], "%d records, and nothing wants them", len(list))
		}
	}
	for object, property := range map[string]string{"orders": "order_key", "seats": "seat_key"} {
		got := c.links(object, property)
		for p, links := range want.links {
			if p.sink != c.sink || p.object != object {
				continue
			}
			if firms := sortedKeys(links); !slices.Equal(slices.Sorted(slices.Values(got[p.key])), firms) {
				v.differs(p, links[firms[0]], "linked to %v, want %v", got[p.key], firms)
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
	for _, field := range append([]string{"email"}, judged...) {
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
	rows, err := w.pool.Query(ctx, `SELECT outcome FROM chaos.gone`)
	if err != nil {
		return err
	}
	var outcome string
	if _, err := pgx.ForEachRow(rows, []any{&outcome}, func() error {
		r.outcomes[outcome]++ // the balance outlives the routes
		return nil
	}); err != nil {
		return err
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

func (p post) String() string {
	return fmt.Sprintf("accepted and not stored: %s %s, answered as %s", p.typ, p.body, p.id)
}

// lacking are the posts that were accepted and were never stored. No two that were drawn have
// the same body; what was answered out of a spool may be stored under the id of the same post.
func (w *world) lacking(ctx context.Context, l *load) ([]post, error) {
	l.mu.Lock()
	accepted := slices.Clone(l.accepted[l.stored:])
	l.mu.Unlock()
	var bodies, types []string
	for _, p := range accepted {
		bodies, types = append(bodies, p.body), append(types, p.typ)
	}
	rows, err := w.pool.Query(ctx, `
		SELECT a.n FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a(body, type, n)
		WHERE NOT EXISTS (SELECT FROM chaos.events e WHERE md5(e.body) = md5(convert_to(a.body, 'UTF8')) AND e.type = a.type)`, bodies, types)
	if err != nil {
		return nil, err
	}
	var lacking []post
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&n}, func() error { lacking = append(lacking, accepted[n-1]); return nil }); err != nil {
		return nil, err
	}
	if len(lacking) == 0 {
		l.mu.Lock()
		l.stored += len(accepted)
		l.mu.Unlock()
	}
	return lacking, nil
}
