package ledger_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

func toCRM(string, string) []string { return []string{"crm"} }

// replayOf is the newest replay as the list tells it.
func replayOf(t *testing.T, l *ledger.Ledger) ledger.ReplayLine {
	t.Helper()
	list, err := l.Replays(t.Context(), 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

// A replay that is cut short anywhere can be continued, and then is what it would have been at once.
func TestReplayCutShort(t *testing.T) {
	t.Parallel()
	const events, open = 6000, 60
	for _, tt := range []struct {
		name, what string
		at         int64
	}{
		{"before anything is selected", "events looked at", 0},
		{"while events are selected", "events looked at", 5000},
		{"before anything is opened", "events queued", 0},
		{"while routes are opened", "events queued", 3000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			fill(t, pool, events)
			spec := ledger.ReplaySpec{Filter: ledger.Filter{Outcome: "delivered"}, By: "tester", Wants: toCRM, Generation: 1, Rewrite: true}
			ctx, cut := context.WithCancel(t.Context())
			defer cut()
			spec.Progress = func(what string, done, _ int64) {
				if what == tt.what && done == tt.at {
					cut()
				}
			}
			id, _, err := l.Replay(ctx, spec)
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			if got := replayOf(t, l); got.State != ledger.ReplayCut || got.Routes > 4000 {
				t.Errorf("cut short: %+v", got)
			}
			spec.Progress = nil
			if _, err := l.ContinueReplay(t.Context(), id, spec); err != nil {
				t.Fatal(err)
			}
			got := replayOf(t, l)
			if want := (ledger.ReplayLine{ID: id, State: ledger.ReplayWorking, Events: events - open, Routes: events - open, Open: events - open}); got.ID != want.ID ||
				got.State != want.State || got.Events != want.Events || got.Left != 0 || got.Routes != want.Routes || got.Open != want.Open || !got.Rewrite {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if n := query[int](t, pool, `SELECT count(*)::int FROM routes WHERE run = 1 AND rewrite AND outcome IS NULL`); n[0] != events-open {
				t.Errorf("%d routes", n[0])
			}
			// River takes the jobs in the order of their ids.
			if n := query[int](t, pool, `
				SELECT count(*)::int FROM (SELECT args->'event_ids'->>0 AS event, lag(args->'event_ids'->>0) OVER (ORDER BY id) AS before FROM river_job) j WHERE before >= event`); n[0] != 0 {
				t.Errorf("%d jobs stand before that of an older event", n[0])
			}
			if _, err := l.ContinueReplay(t.Context(), id, spec); !errors.Is(err, ledger.ErrReplayFinished) {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

// What a replay has opened can be taken back, whether it is complete or not, and then counts as never done.
func TestCancelReplay(t *testing.T) {
	t.Parallel()
	for _, complete := range []bool{true, false} {
		pool := pgtest.Pool(t)
		l := ledger.New(pool)
		var ids []uuid.UUID
		for range 1500 { // more than a step
			ids = append(ids, newID(t))
		}
		now := time.Now().UTC().Truncate(time.Microsecond)
		var events []ledger.Incoming
		for i, id := range ids {
			events = append(events, ledger.Incoming{
				ID: id, Source: "ps", Type: "deal.updated", OccurredAt: now.Add(time.Duration(i) * time.Millisecond), ReceivedAt: now,
				Status: ledger.Stored, Body: []byte(id.String()), Sinks: []string{"crm"},
			})
		}
		accept(t, l, events...)
		dead := &ledger.Report{}
		for _, id := range ids {
			dead.Deliveries = append(dead.Deliveries, ledger.Delivery{Event: id, Mapping: "deals", Object: "deals", Key: "k", Outcome: ledger.Dead, Class: "rejected", Reason: "bad stage"})
			dead.Closings = append(dead.Closings, ledger.Closing{Event: id, Outcome: ledger.Dead, Reason: "bad stage"})
		}
		if err := l.Write(t.Context(), own(t, l), dead); err != nil {
			t.Fatal(err)
		}
		before := query[string](t, pool, `SELECT event_id::text || run || outcome FROM routes ORDER BY 1`)
		ctx, cut := context.WithCancel(t.Context())
		defer cut()
		spec := ledger.ReplaySpec{Filter: ledger.Filter{Outcome: "dead"}, By: "tester", Wants: toCRM, Generation: 1}
		if !complete {
			spec.Progress = func(what string, done, _ int64) {
				if what == "events queued" && done == 1000 {
					cut()
				}
			}
		}
		id, opened, err := l.Replay(ctx, spec)
		if complete != (err == nil) || opened < 1000 {
			t.Fatalf("opened %d, %v", opened, err)
		}
		// One of them has been tried, another one is done.
		report := &ledger.Report{Deliveries: []ledger.Delivery{
			{Event: ids[0], Run: 1, Mapping: "deals", Object: "deals", Key: "1", Class: "timeout", Attempts: 1},
			{Event: ids[1], Run: 1, Mapping: "deals", Object: "deals", Key: "2", Outcome: ledger.Delivered},
		}, Closings: []ledger.Closing{{Event: ids[1], Run: 1, Outcome: ledger.Delivered}}}
		if err := l.Write(t.Context(), own(t, l), report); err != nil {
			t.Fatal(err)
		}
		if n, err := l.CancelReplay(t.Context(), id); err != nil || n != opened-1 {
			t.Errorf("cancelled %d of %d, %v", n, opened, err)
		}
		if got := replayOf(t, l); got.State != ledger.ReplayCancelled || got.Left != 0 || got.Open != 0 || got.Routes != opened {
			t.Errorf("got %+v", got)
		}
		if _, err := l.CancelReplay(t.Context(), id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("once more: %v", err)
		}
		if _, err := l.ContinueReplay(t.Context(), id, spec); !errors.Is(err, ledger.ErrReplayCancelled) {
			t.Errorf("continued: %v", err)
		}
		after := query[string](t, pool, `SELECT event_id::text || run || outcome FROM routes WHERE run = 0 ORDER BY 1`)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Error(diff)
		}
		groups, err := l.Dead(t.Context(), ledger.Filter{})
		if err != nil || len(groups) != 1 || groups[0].Count != 1499 {
			t.Errorf("dead are %+v, %v", groups, err)
		}
		if b := balanceOf(t, l); b.Unaccounted != 0 || b.Accepted != 1500+opened || b.Skipped != opened-1 || b.Open != 0 {
			t.Errorf("got %+v", b)
		}
		// The next replay begins a run of its own, which has not been tried before.
		spec.Progress = nil
		if _, n, err := l.Replay(t.Context(), spec); err != nil || n != 1499 {
			t.Errorf("opened %d, %v", n, err)
		}
		open, err := l.Routes(t.Context(), "crm", ids[:2])
		if err != nil || len(open) != 1 || open[0].Event != ids[0] || open[0].Run != 2 || len(open[0].Deliveries) != 0 {
			t.Errorf("%+v, %v", open, err)
		}
	}
}

func TestReplayThatCannotGoOn(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	if _, err := l.ContinueReplay(t.Context(), 7, ledger.ReplaySpec{Wants: toCRM}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	ctx, cut := context.WithCancel(t.Context())
	id, _, err := l.Replay(ctx, ledger.ReplaySpec{
		Filter: ledger.Filter{Text: "jane@example.com"}, By: "tester", Wants: toCRM, Progress: func(string, int64, int64) { cut() },
	})
	if err == nil {
		t.Fatal("it was not cut short")
	}
	if _, err := l.Forget(t.Context(), ledger.Person{Address: jane, By: "tester"}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ContinueReplay(t.Context(), id, ledger.ReplaySpec{Wants: toCRM}); !errors.Is(err, ledger.ErrReplayErased) {
		t.Errorf("one that named her: %v", err)
	}
	if n, err := l.CancelReplay(t.Context(), id); err != nil || n != 0 {
		t.Errorf("cancelled %d, %v", n, err)
	}
}

// Events of one entity at one time are in the order of their ranks and ids.
func TestReplayTakesEqualTimesAlong(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	now := time.Now().UTC().Truncate(time.Microsecond)
	ids := []uuid.UUID{newID(t), newID(t), newID(t)}
	for i, rank := range []int16{1, 2, 2} {
		accept(t, l, ledger.Incoming{
			ID: ids[i], Source: "ps", Type: "deal.updated", Entity: "deal:1", OccurredAt: now, Rank: rank, ReceivedAt: now,
			Status: ledger.Stored, Body: []byte{byte('0' + i)}, Sinks: []string{"crm"},
		})
		end(t, l, ids[i], 0, ledger.Delivered, "")
	}
	for i, want := range []int64{3, 2, 1} {
		plan, err := l.PlanReplay(t.Context(), ledger.ReplaySpec{Filter: ledger.Filter{IDs: ids[i : i+1]}, Wants: toCRM})
		if err != nil || plan.Events != want || plan.Later != want-1 {
			t.Errorf("event %d: %+v, %v", i, plan, err)
		}
	}
	if _, n, err := l.Replay(t.Context(), ledger.ReplaySpec{Filter: ledger.Filter{IDs: ids[1:2]}, Wants: toCRM, Generation: 1}); err != nil || n != 2 {
		t.Errorf("opened %d, %v", n, err)
	}
}

// Nobody waits for a replay, however much it replays.
func TestMillionRowsReplay(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	l := ledger.New(pool)
	n := *manyRows
	fill(t, pool, n)
	r := receive(t, url, nil)
	var last time.Time
	var slowest time.Duration
	spec := ledger.ReplaySpec{Filter: ledger.Filter{Outcome: "delivered"}, By: "tester", Wants: toCRM, Generation: 1, Progress: func(string, int64, int64) {
		if now := time.Now(); !last.IsZero() {
			slowest, last = max(slowest, now.Sub(last)), now
		} else {
			last = now
		}
	}}
	start := time.Now()
	id, routes, err := l.Replay(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	replayed := time.Since(start)
	start = time.Now()
	cancelled, err := l.CancelReplay(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	accepted, timeouts := r.stop()
	t.Logf("%d rows: opened %d in %s, slowest step %s; cancelled in %s; beside it %d accepted, slowest %s",
		n, routes, replayed.Round(time.Millisecond), slowest.Round(time.Millisecond), time.Since(start).Round(time.Millisecond), accepted, r.slowest.Round(time.Millisecond))
	if timeouts > 0 || accepted == 0 {
		t.Errorf("receivers: %d accepted, %d waited for too long", accepted, timeouts)
	}
	if want := int64(n - n/100); routes != want || cancelled != want {
		t.Errorf("opened %d, cancelled %d, want %d", routes, cancelled, want)
	}
}
