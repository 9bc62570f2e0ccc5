package ledger_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

// end closes the latest run of a route with one delivery.
func end(t *testing.T, l *ledger.Ledger, id uuid.UUID, run int32, outcome ledger.Outcome, reason string) {
	t.Helper()
	err := l.Write(t.Context(), own(t, l), &ledger.Report{
		Deliveries: []ledger.Delivery{{Event: id, Run: run, Mapping: "deals", Object: "deals", Key: "k", Outcome: outcome, Class: "rejected", Reason: reason}},
		Closings:   []ledger.Closing{{Event: id, Run: run, Outcome: outcome, Reason: reason}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func balanceOf(t *testing.T, l *ledger.Ledger) ledger.Balance {
	t.Helper()
	list, err := l.Balances(t.Context(), time.Time{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

func TestEveryRouteIsAccountedFor(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	var ids []uuid.UUID
	for range 7 {
		ids = append(ids, stored(t, l, "crm"))
	}
	for i, o := range ledger.Outcomes {
		end(t, l, ids[i], 0, o, "because")
		end(t, l, ids[i], 0, o, "again") // a repeat after a crash counts nothing
	}
	want := ledger.Balance{Source: "ps", Sink: "crm", Accepted: 7, Delivered: 1, Unchanged: 1, Observed: 1, Stale: 1, Skipped: 1, Dead: 1, Open: 1}
	if got := balanceOf(t, l); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for range 2 {
		if err := l.RollUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := balanceOf(t, l); got != want {
		t.Errorf("rolled up: got %+v, want %+v", got, want)
	}
	if _, err := pool.Exec(t.Context(), `TRUNCATE river_job`); err != nil {
		t.Fatal(err)
	}
	if got := balanceOf(t, l); got != want {
		t.Errorf("without jobs: got %+v, want %+v", got, want)
	}
	if _, err := pool.Exec(t.Context(), `DELETE FROM routes WHERE event_id = $1`, ids[6]); err != nil {
		t.Fatal(err)
	}
	if got := balanceOf(t, l).Unaccounted; got != 1 {
		t.Errorf("a route that vanished: %d unaccounted for", got)
	}
}

// What goes to no sink is counted by why, since an hour if need be; a list goes on behind an event of it.
func TestIdleAndAfter(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	now := time.Now().UTC()
	var ids []uuid.UUID
	for i, status := range []ledger.Status{ledger.Unmapped, ledger.Ignored, ledger.Malformed, ledger.Unmapped, ledger.Stored} {
		at := now
		if i == 0 {
			at = now.Add(-3 * time.Hour)
		}
		id := newID(t)
		ids = append(ids, id)
		e := ledger.Incoming{ID: id, Source: "ps", Type: "x", ReceivedAt: at, Status: status, Body: []byte(id.String())}
		if status == ledger.Stored {
			e.Sinks = []string{"crm"}
		}
		if _, err := l.Accept(t.Context(), []ledger.Incoming{e}, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	for since, want := range map[time.Time]ledger.Idle{
		{}:                      {Source: "ps", Unmapped: 2, Ignored: 1, Malformed: 1},
		now.Add(-1 * time.Hour): {Source: "ps", Unmapped: 1, Ignored: 1, Malformed: 1},
	} {
		if got, err := l.Idle(t.Context(), since); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("since %v: %+v, %v", since, got, err)
		}
	}
	var seen []uuid.UUID
	f := ledger.Filter{}
	for {
		page, err := l.Events(t.Context(), f, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			seen = append(seen, e.ID)
		}
		if len(page) < 2 {
			break
		}
		f.After = page[1].ID
	}
	slices.Reverse(ids)
	if !slices.Equal(seen, ids) {
		t.Errorf("page by page: %v, want %v", seen, ids)
	}
}

func TestReplayTakesLaterEventsAlong(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	now := time.Now().UTC().Truncate(time.Microsecond)
	var ids []uuid.UUID
	for i := range 4 { // three of one deal, one of another
		id, entity := newID(t), "deal:1"
		if i == 3 {
			entity = "deal:2"
		}
		ids = append(ids, id)
		if _, err := l.Accept(t.Context(), []ledger.Incoming{{
			ID: id, Source: "ps", Type: "deal.updated", Entity: entity, OccurredAt: now.Add(time.Duration(i-10) * time.Second), ReceivedAt: now,
			Status: ledger.Stored, Body: []byte(id.String()), Sinks: []string{"crm"},
		}}, 1, 1); err != nil {
			t.Fatal(err)
		}
		end(t, l, id, 0, map[bool]ledger.Outcome{true: ledger.Dead, false: ledger.Delivered}[i == 1], "bad stage")
	}
	groups, err := l.Dead(t.Context(), ledger.Filter{Sink: "crm"})
	if err != nil || len(groups) != 1 || groups[0].Count != 1 || groups[0].Example != ids[1] || groups[0].Mapping != "deals" {
		t.Fatalf("%+v, %v", groups, err)
	}
	spec := ledger.ReplaySpec{
		Filter: ledger.Filter{Outcome: "dead", Mapping: "deals", Reason: "stage"}, By: "tester", Generation: 2,
		Wants: func(string, string) []string { return []string{"crm"} },
	}
	plan, err := l.PlanReplay(t.Context(), spec)
	if err != nil || plan.Events != 2 || plan.Later != 1 || plan.Routes["crm"] != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}
	number, routes, err := l.Replay(t.Context(), spec)
	if err != nil || routes != 2 {
		t.Fatalf("%d, %v", routes, err)
	}
	if groups, err = l.Dead(t.Context(), ledger.Filter{}); err != nil || len(groups) != 0 {
		t.Errorf("a replayed delivery still counts as dead: %+v, %v", groups, err)
	}
	open, err := l.Routes(t.Context(), "crm", ids)
	if err != nil || len(open) != 2 || open[0].Event != ids[1] || open[1].Event != ids[2] || open[0].Run != 1 {
		t.Fatalf("%+v, %v", open, err)
	}
	var low int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job WHERE priority = $1`, ledger.ReplayPriority).Scan(&low); err != nil || low != 2 {
		t.Errorf("%d jobs of low priority, %v", low, err)
	}
	if _, routes, err := l.Replay(t.Context(), spec); err != nil || routes != 0 {
		t.Errorf("what is open is not replayed twice: %d, %v", routes, err)
	}
	if n, err := l.CancelReplay(t.Context(), number); err != nil || n != 2 {
		t.Errorf("cancelled %d, %v", n, err)
	}
	if _, err := l.CancelReplay(t.Context(), 999); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	list, err := l.Replays(t.Context(), 10)
	if err != nil || len(list) != 2 || list[1].By != "tester" || list[1].CancelledAt == nil || list[1].Routes != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if got := balanceOf(t, l); got.Unaccounted != 0 || got.Skipped != 2 || got.Accepted != 6 {
		t.Errorf("got %+v", got)
	}
}

func TestEventsAndStory(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	a, b := stored(t, l, "crm"), stored(t, l, "crm", "archive")
	end(t, l, a, 0, ledger.Dead, "no such stage")
	for _, tt := range []struct {
		name string
		give ledger.Filter
		want []uuid.UUID
	}{
		{"all, newest first", ledger.Filter{}, []uuid.UUID{b, a}},
		{"dead", ledger.Filter{Outcome: "dead"}, []uuid.UUID{a}},
		{"open", ledger.Filter{Outcome: "open"}, []uuid.UUID{b}},
		{"to a sink", ledger.Filter{Sink: "archive"}, []uuid.UUID{b}},
		{"by reason", ledger.Filter{Reason: "stage"}, []uuid.UUID{a}},
		{"by mapping", ledger.Filter{Mapping: "deals"}, []uuid.UUID{a}},
		{"by text", ledger.Filter{Text: a.String()}, []uuid.UUID{a}},
		{"by entity", ledger.Filter{Entity: "deal:" + b.String()}, []uuid.UUID{b}},
		{"too old", ledger.Filter{Since: time.Now().Add(time.Hour)}, nil},
		{"another source", ledger.Filter{Source: "ef"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := l.Events(t.Context(), tt.give, 10)
			if err != nil {
				t.Fatal(err)
			}
			var got []uuid.UUID
			for _, e := range list {
				got = append(got, e.ID)
			}
			if len(got) != len(tt.want) {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Fatalf("got %v, want %v", got, tt.want)
				}
			}
		})
	}
	s, err := l.Story(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Routes) != 1 || s.Routes[0].Outcome != "dead" || len(s.Routes[0].Deliveries) != 1 || s.Routes[0].Deliveries[0].Reason != "no such stage" || len(s.Jobs) != 1 {
		t.Errorf("got %+v", s)
	}
	if _, err := l.Story(t.Context(), newID(t)); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// The trace of an event and how it was verified are those of the request that stored it,
// for workers and for its story alike.
func TestTraceAndVerification(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 a=1,b=2"
	first, bare := event("t", "e", 1, "a", "crm"), event("t", "e", 2, "b", "crm")
	first.Trace, first.VerifiedBy = trace, "token in the query"
	again := event("t", "e", 1, "a", "crm")
	again.Trace, again.VerifiedBy = "00-11112222333344445555666677778888-1111222233334444-01", "basic"
	accept(t, l, first, bare)
	accept(t, l, again)
	routes, err := l.Routes(t.Context(), "crm", []uuid.UUID{first.ID, bare.ID})
	if err != nil || len(routes) != 2 {
		t.Fatalf("got %d routes, %v", len(routes), err)
	}
	for i, want := range []ledger.Incoming{first, bare} {
		s, err := l.Story(t.Context(), want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if routes[i].Event != want.ID || routes[i].Trace != want.Trace || s.Trace != want.Trace || s.VerifiedBy != want.VerifiedBy {
			t.Errorf("got %q for workers, %q and %q in the story, want %q and %q", routes[i].Trace, s.Trace, s.VerifiedBy, want.Trace, want.VerifiedBy)
		}
	}
}
