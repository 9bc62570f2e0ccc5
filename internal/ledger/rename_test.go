package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/records"
)

// leases takes both names, as whoever renames one to the other does.
func leases(t *testing.T, o *ledger.Leaser, former, name string) (was, is ledger.Lease) {
	t.Helper()
	var lease *ledger.Lease
	for lease == nil { // the lock of an owner before may not be free yet
		lease, _ = acquire(t, o, former)
	}
	was, is = *lease, ledger.Lease{Sink: name}
	lease, _, err := o.Acquire(t.Context(), name)
	switch {
	case err == nil:
		is = *lease
	case !errors.As(err, new(*ledger.Barred)):
		t.Fatal(err)
	}
	return was, is
}

// rename renames a sink under a config of the given generation.
func rename(t *testing.T, l *ledger.Ledger, former, name string, generation int64) {
	t.Helper()
	o := session(t, l, "renamer")
	was, is := leases(t, o, former, name)
	if _, err := l.Rename(t.Context(), was, is, generation); err != nil {
		t.Fatal(err)
	}
	for _, lease := range []ledger.Lease{was, is} {
		if err := o.Release(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs statements and count reads a number.
func run(t *testing.T, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func count(t *testing.T, pool *pgxpool.Pool, from string) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	return n
}

// balanced fails unless the ledger accounts for all routes in one line of the given sink.
func balanced(t *testing.T, l *ledger.Ledger, want ledger.Balance) {
	t.Helper()
	list, err := l.Balances(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want.Source = "ps"
	for i := range list {
		list[i].Replayed = 0 // of the dead, which the story of a replay is about
	}
	if diff := cmp.Diff([]ledger.Balance{want}, list); diff != "" {
		t.Errorf("the balance: %s", diff)
	}
}

func TestRenameTakesEverythingAlong(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	done, waiting := stored(t, l, "crm"), stored(t, l, "crm")
	rec := &ledger.Record{ID: newID(t), Object: "deals", Property: "k", Key: "1", New: true, Presence: records.Present}
	lease := own(t, l)
	if err := l.Write(t.Context(), lease, &ledger.Report{
		Records:    []*ledger.Record{rec},
		Deliveries: []ledger.Delivery{{Event: done, Mapping: "deals", Outcome: ledger.Delivered}},
		Closings:   []ledger.Closing{{Event: done, Outcome: ledger.Delivered}},
	}); err != nil {
		t.Fatal(err)
	}
	key := ledger.RecordKey{Object: "deals", Property: "k", Key: "1"}
	if err := l.Announce(t.Context(), lease, newID(t), []ledger.RecordKey{key}, time.Minute); err != nil {
		t.Fatal(err)
	}
	// Its owner works it and dies, or does not come to an end.
	run(t, pool, `UPDATE river_job SET state = 'running', attempted_by = ARRAY['tester'], attempt = 1`,
		`UPDATE sinks SET state = 'stopped', reason = 'by command', asked = 'resume', account = '62515', tokens = '\x01'`)
	rename(t, l, "crm", "hubspot", 2)

	if found, err := l.Records(t.Context(), "hubspot", []ledger.RecordKey{key}); err != nil || len(found) != 1 {
		t.Errorf("records %v, %v", found, err)
	}
	if open, err := l.Routes(t.Context(), "hubspot", []uuid.UUID{done, waiting}); err != nil || len(open) != 1 || open[0].Event != waiting {
		t.Errorf("routes %v, %v", open, err)
	}
	for from, want := range map[string]int{
		`river_job WHERE queue = 'sink_hubspot' AND args->>'sink' = 'hubspot' AND state = 'available'`:                                                                         2,
		`river_job WHERE queue = 'sink_crm' AND state <> 'cancelled'`:                                                                                                          0,
		`deliveries WHERE sink = 'hubspot'`:                                                                                                                                    1,
		`sinks WHERE name = 'hubspot' AND state = 'stopped' AND reason = 'by command' AND asked = 'resume' AND account = '62515' AND tokens = '\x01'`:                          1,
		`sinks WHERE name = 'crm' AND state = 'ready' AND asked = '' AND account = '' AND tokens IS NULL AND renamed_to = 'hubspot' AND renamed_by = 2`:                        1,
		`(SELECT sink FROM routes UNION SELECT sink FROM records UNION SELECT sink FROM record_keys UNION SELECT sink FROM announcements UNION SELECT sink FROM deliveries) x`: 1,
	} {
		if got := count(t, pool, from); got != want {
			t.Errorf("%d %s, want %d", got, from, want)
		}
	}
	balanced(t, l, ledger.Balance{Sink: "hubspot", Accepted: 2, Delivered: 1, Open: 1})

	// The owner of before can do nothing any more, and nobody becomes its like.
	if err := l.Announce(t.Context(), lease, newID(t), []ledger.RecordKey{key}, time.Minute); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("the owner of the former name may announce: %v", err)
	}
	if err := l.Write(t.Context(), lease, &ledger.Report{Closings: []ledger.Closing{{Event: waiting, Outcome: ledger.Delivered}}}); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("the owner of the former name may record: %v", err)
	}
	o := session(t, l, "new")
	if _, _, err := o.Acquire(t.Context(), "crm"); !errors.As(err, new(*ledger.Barred)) {
		t.Errorf("the former name can be taken: %v", err)
	}
	second, announced := acquire(t, o, "hubspot")
	if second == nil || len(announced) != 1 || cmp.Diff([]ledger.RecordKey{key}, announced[0].Keys()) != "" {
		t.Errorf("who takes the new name is told of %v, %v", second, announced)
	}
}

// A stop of either name is one of both.
func TestRenameKeepsAStop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, former, own, want string }{
		{"neither", "ready", "ready", "ready"},
		{"of the former name", "stopped", "ready", "stopped"},
		{"of the new name", "ready", "stopped", "stopped"},
		{"of the new name, the former one held", "held", "stopped", "stopped"},
		{"the state of the former name otherwise", "held", "throttled", "held"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			for sink, state := range map[string]string{"crm": tt.former, "crm2": tt.own} {
				if err := l.SetSinkState(t.Context(), sink, ledger.SinkState{State: state, Reason: sink}); err != nil {
					t.Fatal(err)
				}
			}
			rename(t, l, "crm", "crm2", 1)
			if s, err := l.SinkState(t.Context(), "crm2"); err != nil || s.State != tt.want {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// Whoever has lost either name renames nothing.
func TestRenameIsFenced(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"crm", "crm2"} {
		pool := pgtest.Pool(t)
		l := ledger.New(pool)
		stored(t, l, "crm")
		was, is := leases(t, session(t, l, "a"), "crm", "crm2")
		run(t, pool, `UPDATE sinks SET epoch = epoch + 1 WHERE name = '`+lost+`'`)
		if _, err := l.Rename(t.Context(), was, is, 1); !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("%s is lost, and: %v", lost, err)
		}
		if n := count(t, pool, `routes WHERE sink = 'crm'`); n != 1 {
			t.Errorf("%s is lost, and %d routes are left", lost, n)
		}
	}
}

// What may take over what, and what has to be said to the person otherwise.
func TestFormers(t *testing.T) {
	t.Parallel()
	known := func(sink string) string {
		return `INSERT INTO record_keys (sink, object, property, value, record_id) VALUES ('` + sink + `', 'o', 'p', 'v', gen_random_uuid())`
	}
	account := func(sink, of string) string {
		return `INSERT INTO sinks (name, account) VALUES ('` + sink + `', '` + of + `')`
	}
	gone := func(sink, to string) string {
		return `INSERT INTO sinks (name, renamed_to, renamed_by) VALUES ('` + sink + `', '` + to + `', 5)`
	}
	for _, tt := range []struct {
		name       string
		stored     []string
		formerly   []string
		generation int64
		want       []string
		barred     string
	}{
		{name: "nothing is known of it", formerly: []string{"a"}, want: []string{"a"}},
		{name: "state of the former name", stored: []string{known("a"), account("a", "1")}, formerly: []string{"a"}, want: []string{"a"}},
		{name: "it is its own by now", stored: []string{known("c"), account("c", "1"), gone("a", "c")}, formerly: []string{"a"}},
		{name: "a chain of which nothing has run", stored: []string{known("a")}, formerly: []string{"a", "b"}, want: []string{"a", "b"}},
		{name: "a chain of which the first step has run", stored: []string{known("b"), gone("a", "b")}, formerly: []string{"a", "b"}, want: []string{"b"}},
		{name: "a chain that has run", stored: []string{known("c"), gone("a", "c"), gone("b", "c")}, formerly: []string{"b", "a"}},
		{name: "accounts that are one", stored: []string{account("a", "1"), account("c", "1")}, formerly: []string{"a"}, want: []string{"a"}},
		{name: "back to a name of before", stored: []string{known("a"), gone("c", "a")}, formerly: []string{"a"}, generation: 6, want: []string{"a"}},
		{name: "back, says an older config", stored: []string{known("a"), gone("c", "a")}, formerly: []string{"a"}, generation: 5,
			barred: "a newer config has renamed it to a"},
		{name: "a name that was given up", stored: []string{gone("c", "x")}, formerly: []string{"a"}, generation: 6,
			barred: "it was renamed to x: write `formerly: [x]` to give it this name again, or free the name with `partnersync sinks drop c`"},
		{name: "a step of the chain is missing", stored: []string{known("b"), gone("a", "b")}, formerly: []string{"a"},
			barred: "its former name a was renamed to b: name that in `formerly` too, or free the name a with `partnersync sinks drop a`"},
		{name: "records under both", stored: []string{known("a"), known("c")}, formerly: []string{"a"},
			barred: "records are known under c and under a: take a out of `formerly`, or end what is known of it with `partnersync sinks drop a`"},
		{name: "records under two former names", stored: []string{known("a"), known("b")}, formerly: []string{"a", "b"},
			barred: "records are known under a and under b: take b out of `formerly`, or end what is known of it with `partnersync sinks drop b`"},
		{name: "two accounts", stored: []string{account("a", "1"), account("c", "2")}, formerly: []string{"a"},
			barred: "c has been writing to account 2, and a to 1: take a out of `formerly`, or end what is known of it with `partnersync sinks drop a`"},
		{name: "two accounts of former names", stored: []string{account("a", "1"), account("b", "2")}, formerly: []string{"a", "b"},
			barred: "a has been writing to account 1, and b to 2: take b out of `formerly`, or end what is known of it with `partnersync sinks drop b`"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			run(t, pool, tt.stored...)
			got, err := l.Formers(t.Context(), "c", tt.formerly, tt.generation)
			var bar *ledger.Barred
			if errors.As(err, &bar) {
				err = nil
				if bar.Sink != "c" || bar.Reason != tt.barred {
					t.Errorf("barred: %v", bar)
				}
				if err := l.Bar(t.Context(), bar); err != nil {
					t.Fatal(err)
				}
				lines, err := l.Sinks(t.Context(), []string{"c"})
				if line := lines["c"]; err != nil || line.State != "held" || line.Reason == "" {
					t.Errorf("it is told as %+v, %v", line, err)
				}
			} else if tt.barred != "" {
				t.Error("it is not barred")
			}
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// Each step of a chain leaves a mark that leads to the last name, and a way back.
func TestRenameAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	id := stored(t, l, "a")
	rename(t, l, "a", "b", 1)
	rename(t, l, "b", "c", 2)
	if n := count(t, pool, `sinks WHERE renamed_to = 'c'`); n != 2 {
		t.Errorf("%d names lead to the last one", n)
	}
	rename(t, l, "c", "a", 3)
	if n := count(t, pool, `sinks WHERE renamed_to = 'a' AND name IN ('b', 'c')`); n != 2 {
		t.Errorf("%d names lead back", n)
	}
	if lease, _ := acquire(t, session(t, l, "x"), "a"); lease == nil {
		t.Error("the name of before cannot be taken")
	}
	if open, err := l.Routes(t.Context(), "a", []uuid.UUID{id}); err != nil || len(open) != 1 {
		t.Errorf("%v, %v", open, err)
	}
}

// An event whose routes bear both names has them in order: what was opened under the name that counts
// later comes later.
func TestRenameOfAnEventWithBothNames(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	id, other := stored(t, l, "crm"), stored(t, l, "crm")
	run(t, pool, `UPDATE routes SET outcome = 'dead', closed_at = now()`,
		`INSERT INTO routes (event_id, sink, run, source, generation, outcome) SELECT event_id, 'crm', r, 'ps', 1, 'skipped' FROM routes, generate_series(-2, 1) r WHERE event_id = '`+id.String()+`' AND r NOT IN (0)`,
		`INSERT INTO routes (event_id, sink, run, source, generation, outcome) SELECT '`+id.String()+`', 'crm2', r, 'ps', 2, 'delivered' FROM generate_series(-1, 0) r`,
		`INSERT INTO deliveries (event_id, sink, run, mapping) SELECT event_id, sink, run, 'of '||sink FROM routes`)
	rename(t, l, "crm", "crm2", 2)
	got, err := pool.Query(t.Context(), `SELECT r.run || ' ' || r.outcome || ' ' || d.mapping FROM routes r JOIN deliveries d USING (event_id, sink, run) WHERE sink = 'crm2' AND event_id = $1 ORDER BY r.run`, id)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for got.Next() {
		var line string
		if err := got.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	want := []string{"-3 delivered of crm2", "-2 skipped of crm", "-1 skipped of crm", "0 dead of crm", "1 skipped of crm", "2 delivered of crm2"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if n := count(t, pool, `routes WHERE sink = 'crm2' AND event_id = '`+other.String()+`' AND run = 0`); n != 1 {
		t.Errorf("%d routes of the other event", n)
	}
}

// What receivers with an older config send to the former name goes to the new one, with jobs, and is accounted for all the while.
func TestMoveStrays(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	first := stored(t, l, "crm")
	rename(t, l, "crm", "crm2", 2)
	for range 5 {
		stored(t, l, "crm")
	}
	// A replay by the older config, of an event that has a route under the new name.
	run(t, pool, `UPDATE routes SET outcome = 'dead', closed_at = now() WHERE sink = 'crm2'`, `INSERT INTO tally_changes VALUES (now(), 'ps', 'crm2', 'dead', 1), (now(), 'ps', 'crm', 'opened', 1)`,
		`INSERT INTO routes (event_id, sink, run, source, generation) VALUES ('`+first.String()+`', 'crm', 0, 'ps', 1)`)
	whole := ledger.Balance{Sink: "crm2", Accepted: 7, Dead: 1, Open: 6}
	balanced(t, l, whole)
	moved := 0
	for n := 1; n > 0; moved += n {
		var err error
		if n, err = l.MoveStrays(t.Context(), "crm2", 4); err != nil {
			t.Fatal(err)
		}
		balanced(t, l, whole)
	}
	if moved != 6 || count(t, pool, `routes WHERE sink <> 'crm2'`) != 0 || count(t, pool, `routes WHERE run = 1 AND outcome IS NULL`) != 1 {
		t.Errorf("%d routes are moved", moved)
	}
	if err := l.RollUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	balanced(t, l, whole)
	if n := count(t, pool, `routes r WHERE outcome IS NULL AND EXISTS (SELECT FROM river_job j WHERE queue = 'sink_crm2' AND state = 'available'
		AND args @> jsonb_build_object('event_ids', jsonb_build_array(r.event_id), 'sink', 'crm2'))`); n != 6 {
		t.Errorf("%d routes have a job", n)
	}
	if n := count(t, pool, `river_job WHERE queue = 'sink_crm' AND state <> 'cancelled'`); n != 0 {
		t.Errorf("%d jobs are left behind", n)
	}
	if n, err := l.MoveStrays(t.Context(), "crm", 4); n != 0 || err != nil {
		t.Errorf("of a name that nothing leads to: %d, %v", n, err)
	}
}

// A sink that no config has any more: what waits ends by name, nothing else is left, and the ledger agrees.
func TestDrop(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	stored(t, l, "old")
	rename(t, l, "old", "crm", 1)
	done, tried, other := stored(t, l, "crm"), stored(t, l, "crm"), stored(t, l, "other")
	stored(t, l, "old") // by a receiver that has not heard
	lease := own(t, l)
	if err := l.Write(t.Context(), lease, &ledger.Report{
		Records:    []*ledger.Record{{ID: newID(t), Object: "deals", Property: "k", Key: "1", New: true, Presence: records.Present}},
		Deliveries: []ledger.Delivery{{Event: done, Mapping: "deals", Outcome: ledger.Delivered}, {Event: tried, Mapping: "deals", Class: "unavailable"}},
		Closings:   []ledger.Closing{{Event: done, Outcome: ledger.Delivered}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Announce(t.Context(), lease, newID(t), nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	orphans, err := l.Orphans(t.Context(), []string{"other"})
	if diff := cmp.Diff([]ledger.Orphan{{Sink: "crm", Open: 2}, {Sink: "old", Open: 1, RenamedTo: "crm"}}, orphans); err != nil || diff != "" {
		t.Errorf("orphans %v %s", err, diff)
	}
	if list, err := l.Orphans(t.Context(), []string{"crm", "other"}); err != nil || len(list) != 0 {
		t.Errorf("orphans of a config that has both %v, %v", list, err)
	}
	if list, err := l.Orphans(t.Context(), nil); err != nil || len(list) != 3 {
		t.Errorf("orphans of a config without sinks %v, %v", list, err)
	}
	if d, err := l.Holds(t.Context(), "crm"); err != nil || d != (ledger.Dropped{Open: 2, Jobs: 3, Records: 1}) {
		t.Errorf("it holds %+v, %v", d, err)
	}
	o := session(t, l, "worker")
	for held, _ := acquire(t, o, "crm"); held == nil; { // the lock of the owner before may not be free yet
		held, _ = acquire(t, o, "crm")
	}
	if _, err := l.Drop(t.Context(), "crm", "jo@host"); !errors.Is(err, ledger.ErrOwned) {
		t.Errorf("while somebody works it: %v", err)
	}
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var dropped ledger.Dropped
	for dropped, err = l.Drop(t.Context(), "crm", "jo@host"); errors.Is(err, ledger.ErrOwned); { // until Postgres has seen the session end
		dropped, err = l.Drop(t.Context(), "crm", "jo@host")
	}
	if err != nil || dropped.Open != 3 || dropped.Records != 1 {
		t.Errorf("%+v, %v", dropped, err)
	}
	for from, want := range map[string]int{
		`routes WHERE sink = 'crm' AND outcome = 'skipped' AND reason = 'the sink was taken out of the config; dropped by jo@host' AND closed_at IS NOT NULL`: 3,
		`routes WHERE outcome IS NULL AND event_id <> '` + other.String() + `'`:                                                                               0,
		`deliveries WHERE event_id = '` + tried.String() + `' AND outcome = 'skipped'`:                                                                        1,
		`deliveries WHERE event_id = '` + done.String() + `' AND outcome = 'delivered'`:                                                                       1,
		`river_job WHERE queue IN ('sink_crm', 'sink_old') AND state NOT IN ('cancelled', 'completed')`:                                                       0,
		`river_job WHERE queue = 'sink_other' AND state = 'available'`:                                                                                        1,
		`sinks`: 0, `records`: 0, `record_keys`: 0, `announcements`: 0,
	} {
		if got := count(t, pool, from); got != want {
			t.Errorf("%d %s, want %d", got, from, want)
		}
	}
	list, err := l.Balances(t.Context(), time.Time{})
	if diff := cmp.Diff([]ledger.Balance{
		{Source: "ps", Sink: "crm", Accepted: 4, Delivered: 1, Skipped: 3}, {Source: "ps", Sink: "other", Accepted: 1, Open: 1},
	}, list); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// A former name is free for another sink once its mark is gone; what waits under it does not become that one's.
func TestFree(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	stored(t, l, "crm")
	rename(t, l, "crm", "crm2", 1)
	stored(t, l, "crm")
	if to, err := l.Free(t.Context(), "crm"); err != nil || to != "crm2" {
		t.Errorf("%q, %v", to, err)
	}
	if lease, _ := acquire(t, session(t, l, "x"), "crm"); lease == nil {
		t.Error("the name cannot be taken")
	}
	balanced(t, l, ledger.Balance{Sink: "crm2", Accepted: 2, Open: 2})
	if _, err := l.Free(t.Context(), "crm2"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a name that is nobody's former one: %v", err)
	}
}
