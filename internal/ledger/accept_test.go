package ledger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// event gives an event of source "s" with the body; times in seconds after noon,
// -1 for none.
func event(typ, entity string, seconds int, body string, sinks ...string) ledger.Incoming {
	in := ledger.Incoming{
		ID: uuid.Must(uuid.NewV7()), Source: "s", Type: typ, Entity: entity, ReceivedAt: noon.Add(time.Hour),
		Status: ledger.Stored, Body: []byte(body), Sinks: sinks,
	}
	if seconds >= 0 {
		in.OccurredAt = noon.Add(time.Duration(seconds) * time.Second)
	}
	return in
}

func accept(t *testing.T, l *ledger.Ledger, events ...ledger.Incoming) []ledger.Accepted {
	t.Helper()
	accepted, err := l.Accept(t.Context(), events, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return accepted
}

func query[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) []T {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAcceptSameEvent(t *testing.T) {
	t.Parallel()
	// One event per character and call; a letter is a body.
	tests := []struct {
		name   string
		timed  bool
		entity string
		give   []string // bodies of each call
		want   []string // "+" stored, "=" duplicate
	}{
		{"timed bodies are stored once", true, "e", []string{"a", "b", "a", "b"}, []string{"+", "+", "=", "="}},
		{"timed bodies within a batch", true, "e", []string{"abab"}, []string{"++=="}},
		{"timed bodies without an entity", true, "", []string{"aa", "a"}, []string{"+=", "="}},
		{"untimed bodies are compared with the latest", false, "e", []string{"a", "a", "b", "a", "a"}, []string{"+", "=", "+", "+", "="}},
		{"untimed bodies within a batch", false, "e", []string{"aabaab"}, []string{"+=++=+"}},
		{"untimed bodies across batches", false, "e", []string{"ab", "ba"}, []string{"++", "=+"}},
		{"without time and entity nothing is the same", false, "", []string{"aa", "a"}, []string{"++", "+"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := ledger.New(pgtest.Pool(t))
			var got []string
			last := map[byte]uuid.UUID{} // the id under which a body was stored last
			for _, bodies := range tt.give {
				var events []ledger.Incoming
				for i := range bodies {
					e := event("t", tt.entity, -1, bodies[i:i+1])
					if tt.timed {
						e.OccurredAt = noon
					}
					events = append(events, e)
				}
				var marks []byte
				for i, a := range accept(t, l, events...) {
					if a.Duplicate {
						marks = append(marks, '=')
						if a.ID != last[bodies[i]] {
							t.Errorf("the duplicate of %q is told the id %s, want %s", bodies[i], a.ID, last[bodies[i]])
						}
						continue
					}
					marks = append(marks, '+')
					if a.ID != events[i].ID {
						t.Errorf("event %d got the id %s, want its own, %s", i, a.ID, events[i].ID)
					}
					last[bodies[i]] = a.ID
				}
				got = append(got, string(marks))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What the sender calls one delivery is one event, whatever it holds; what it calls
// another is another, unless it is a body with the sender's time that is known.
func TestAcceptDeliveries(t *testing.T) {
	t.Parallel()
	// An event is an id of its delivery, "-" for none, and a body; calls are divided by "|".
	tests := []struct {
		name   string
		timed  bool
		entity string
		give   string
		want   string // "+" stored, "=" duplicate
	}{
		{"again, with another between", false, "e", "1a|2b|1a", "++="},
		{"again within a batch", false, "e", "1a 2b 1a", "++="},
		{"again across batches", false, "e", "1a 2b|1a 2b", "++=="},
		{"again with another body", false, "e", "1a|1b", "+="},
		{"again with another body, within a batch", false, "e", "1a 1b", "+="},
		{"the same body under another id", false, "e", "1a|2a|2a|1a", "++=="},
		{"the same body under another id, within a batch", false, "e", "1a 2a 2a 1a", "++=="},
		{"without an entity", false, "", "1a 1a|1a|2a 3a|3b", "+==++="},
		{"timed", true, "e", "1a|2b|1a|1c", "++=="},
		{"timed within a batch", true, "e", "1a 2b 1a 1c", "++=="},
		{"timed, the same body under another id", true, "e", "1a|2a", "+="},
		{"timed, the same body under another id, within a batch", true, "e", "1a 2a -a", "+=="},
		{"some without an id", false, "e", "-a 1a -a|-a", "++=="},
		{"some without an id, across batches", false, "e", "1a|-a|1a|-b|1a", "+==+="},
		{"timed, some without an id", true, "e", "-a 1a 1b", "+=+"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			var got string
			for call := range strings.SplitSeq(tt.give, "|") {
				var events []ledger.Incoming
				for _, one := range strings.Fields(call) {
					e := event("t", tt.entity, -1, one[1:])
					if one[0] != '-' {
						e.Delivery = ledger.DeliveryOf("s", one[:1], 0)
					}
					if tt.timed {
						e.OccurredAt = noon
					}
					events = append(events, e)
				}
				for i, a := range accept(t, l, events...) {
					if a.Duplicate != (a.ID != events[i].ID) {
						t.Errorf("event %d: duplicate %v, of itself %v", i, a.Duplicate, a.ID == events[i].ID)
					}
					got += map[bool]string{false: "+", true: "="}[a.Duplicate]
				}
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			stored := query[int](t, pool, "SELECT count(*)::int + sum(duplicates)::int FROM events")
			if stored[0] != len(tt.want) {
				t.Errorf("%d events are accounted for, want %d", stored[0], len(tt.want))
			}
		})
	}
}

// Equal ids that come at once, in commits of their own, are one event.
func TestAcceptDeliveriesAtOnce(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	var wg sync.WaitGroup
	var stored atomic.Int64
	for n := range 16 {
		wg.Go(func() {
			var events []ledger.Incoming
			for i := range 8 {
				e := event("t", "", -1, fmt.Sprint(n)) // no entity: nothing else keeps them apart
				e.Delivery = ledger.DeliveryOf("s", fmt.Sprint((n+i)%8), 0)
				events = append(events, e)
			}
			accepted, err := l.Accept(context.Background(), events, 1, 1)
			if err != nil {
				t.Error(err)
			}
			for _, a := range accepted {
				if !a.Duplicate {
					stored.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := query[int](t, pool, "SELECT count(*)::int FROM events")[0]; n != 8 || stored.Load() != 8 {
		t.Errorf("%d are stored, %d are told so, want 8", n, stored.Load())
	}
}

// An id belongs to its source, and to one event of its request.
func TestDeliveryTellsApart(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, d := range []struct {
		source, id string
		part       int
	}{{"a", "b", 0}, {"a", "b", 1}, {"ab", "", 0}, {"", "ab", 0}, {"a", "b0", 0}, {"c", "b", 0}} {
		key := string(ledger.DeliveryOf(d.source, d.id, d.part))
		if other, ok := seen[key]; ok || len(key) != 16 {
			t.Errorf("%v is like %s", d, other)
		}
		seen[key] = fmt.Sprint(d)
	}
}

func TestAcceptCountsDuplicates(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	timed := func() ledger.Incoming { return event("t", "e", 5, "timed") }
	untimed := func() ledger.Incoming { return event("t", "e", -1, "untimed") }
	accept(t, l, timed(), untimed(), timed(), untimed(), timed())
	accept(t, l, timed(), untimed(), untimed())
	got := query[string](t, pool, "SELECT convert_from(body, 'utf8') || ' ' || duplicates FROM events ORDER BY 1")
	if diff := cmp.Diff([]string{"timed 3", "untimed 3"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAcceptTellsEventsApart(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	other := event("t", "e", 5, "b")
	other.Source = "another"
	accepted := accept(t, l, event("t", "e", 5, "b"), event("u", "e", 5, "b"), event("t", "f", 5, "b"), event("t", "e", 5, "c"), other)
	for i, a := range accepted {
		if a.Duplicate {
			t.Errorf("event %d is taken for another", i)
		}
	}
}

// An untimed event makes the batch two statements; the timed one after it meets
// its like that the first has just inserted.
func TestAcceptFoldsAcrossWaves(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	first := event("t", "e", 5, "timed", "crm")
	accepted := accept(t, l, first, event("t", "e", -1, "a"), event("t", "e", -1, "b"), event("t", "e", 5, "timed", "crm"))
	want := ledger.Accepted{ID: first.ID, Duplicate: true}
	if diff := cmp.Diff(want, accepted[3]); diff != "" {
		t.Error(diff)
	}
	if got := query[int](t, pool, "SELECT count(*)::int FROM routes"); got[0] != 1 {
		t.Errorf("got %d routes, want that of the first", got[0])
	}
}

func TestAcceptStoresAllThatIsGiven(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	full := event("deal.created", "deal:1", 5, "{\"a\": \"\x00\xff\"}")
	full.Rank, full.Status, full.Reason = 7, ledger.Ignored, "a test"
	full.Headers = []byte(`{"user-agent": "x"}`)
	bare := event("unknown", "", -1, "")
	bare.Body = []byte{}
	accept(t, l, full, bare)

	type row struct {
		Source, Type, Entity, Status, Reason string
		OccurredAt                           *time.Time
		ReceivedAt                           time.Time
		Rank                                 int16
		Headers                              *string
		Body                                 []byte
	}
	get := func(id uuid.UUID) row {
		rows, err := pool.Query(t.Context(), `SELECT source, type, entity, status, reason, occurred_at, received_at, rank,
			headers::text, body FROM events WHERE id = $1`, id)
		if err != nil {
			t.Fatal(err)
		}
		r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[row])
		if err != nil {
			t.Fatal(err)
		}
		r.ReceivedAt = r.ReceivedAt.UTC()
		if r.OccurredAt != nil {
			*r.OccurredAt = r.OccurredAt.UTC()
		}
		return r
	}
	headers := `{"user-agent": "x"}`
	if diff := cmp.Diff(row{"s", "deal.created", "deal:1", "ignored", "a test", &full.OccurredAt, full.ReceivedAt, 7, &headers, full.Body}, get(full.ID)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(row{"s", "unknown", "", "stored", "", nil, bare.ReceivedAt, 0, nil, []byte{}}, get(bare.ID)); diff != "" {
		t.Error(diff)
	}
}

// A clock that was set back by an hour makes truthful senders look as if they wrote from the
// future. Their events stay in order all the same.
func TestAcceptWithAClockSetBack(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	version := func(id uuid.UUID) time.Time {
		return query[time.Time](t, pool, "SELECT version_at FROM events WHERE id = $1", id)[0].UTC()
	}
	now := query[time.Time](t, pool, "SELECT clock_timestamp()")[0].UTC()
	at := func(occurred, received time.Duration, body string) ledger.Incoming {
		e := event("t", "e", 1, body)
		e.OccurredAt, e.ReceivedAt = now.Add(occurred), now.Add(received)
		return e
	}
	// The receiver's alone: Postgres knows better.
	first, second := at(-30*time.Minute, -30*time.Minute, "1"), at(0, -time.Hour, "2")
	accept(t, l, first)
	accept(t, l, second)
	if a, b := version(first.ID), version(second.ID); !b.Equal(second.OccurredAt) || !a.Before(b) {
		t.Errorf("versions %s and %s", a, b)
	}
	// Both: what was stored an hour ago lies ahead of either.
	third, fourth, fifth := at(time.Hour, time.Hour, "3"), at(61*time.Minute, time.Minute, "4"), at(62*time.Minute, 2*time.Minute, "5")
	accept(t, l, third)
	accept(t, l, fourth)
	accept(t, l, fifth)
	if a, b, c := version(third.ID), version(fourth.ID), version(fifth.ID); !a.Equal(third.OccurredAt) || !a.Before(b) || !b.Before(c) {
		t.Errorf("versions %s, %s and %s", a, b, c)
	}
}

func TestAcceptVersions(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	version := func(id uuid.UUID) time.Time {
		return query[time.Time](t, pool, "SELECT version_at FROM events WHERE id = $1", id)[0].UTC()
	}
	past, future := event("t", "e", 5, "past"), event("t", "e", 5, "future")
	future.OccurredAt = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	start := query[time.Time](t, pool, "SELECT clock_timestamp()")[0]
	accept(t, l, past, future)
	end := query[time.Time](t, pool, "SELECT clock_timestamp()")[0]
	if got := version(past.ID); !got.Equal(past.OccurredAt) {
		t.Errorf("the version is %s, want the sender's time", got)
	}
	if got := version(future.ID); got.Before(start) || got.After(end.Add(time.Millisecond)) {
		t.Errorf("the version of an event from 2099 is %s, want that of an event without a time at %s", got, start)
	}
	// Where the last of its entity lies ahead of the clock, it comes after that one.
	truthful, wrong := event("t", "w", 1, "truthful"), event("t", "w", 1, "wrong")
	truthful.OccurredAt, wrong.OccurredAt = end.Add(time.Minute).UTC().Truncate(time.Microsecond), future.OccurredAt
	accept(t, l, truthful)
	accept(t, l, wrong)
	if a, b := version(truthful.ID), version(wrong.ID); !a.Equal(truthful.OccurredAt) || !a.Before(b) || b.After(a.Add(time.Millisecond)) {
		t.Errorf("versions %s and %s: want the second right after the first", a, b)
	}

	// Postgres's clock orders events without a time, and never before those of the entity.
	before := query[time.Time](t, pool, "SELECT clock_timestamp()")[0]
	first, second := event("t", "x", -1, "1"), event("t", "x", -1, "2")
	accept(t, l, first, second)
	if a, b := version(first.ID), version(second.ID); a.Before(before) || !a.Before(b) {
		t.Errorf("versions %s and %s: want them in order and from %s on", a, b, before)
	}
	var batch []ledger.Incoming
	for i := range 100 {
		batch = append(batch, event("t", fmt.Sprint("z", i), -1, fmt.Sprint(i)))
	}
	batch = append(batch, event("t", "z50", -1, "50 again"), event("t", "", -1, "no entity"), event("t", "z0", -1, "0 again"))
	accept(t, l, batch...)
	for i := range batch[1:] {
		if a, b := version(batch[i].ID), version(batch[i+1].ID); !a.Before(b) {
			t.Errorf("events %d and %d of a batch have the versions %s and %s", i, i+1, a, b)
		}
	}
	ahead := event("t", "y", 0, "ahead")
	ahead.ReceivedAt = before.Add(time.Hour)
	ahead.OccurredAt = ahead.ReceivedAt
	later := event("u", "y", -1, "later")
	accept(t, l, ahead)
	accept(t, l, later)
	if a, b := version(ahead.ID), version(later.ID); !a.Before(b) {
		t.Errorf("an event that came after the one of %s has the version %s", a, b)
	}
}

func TestAcceptOpensRoutesAndJobs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		eventsPerJob int
		want         []string // sink and number of events of each job
	}{
		{"one event a job", 1, []string{"archive 1", "crm 1", "crm 1", "crm 1"}},
		{"two", 2, []string{"archive 1", "crm 1", "crm 2"}},
		{"a hundred", 100, []string{"archive 1", "crm 3"}},
		{"zero means one", 0, []string{"archive 1", "crm 1", "crm 1", "crm 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			unmapped := event("t", "e", 9, "unmapped")
			unmapped.Status = ledger.Unmapped
			events := []ledger.Incoming{
				event("t", "e", 1, "1", "crm"), event("t", "e", 2, "2", "crm", "archive"), unmapped,
				event("t", "e", 3, "3", "crm"), event("t", "e", 3, "3", "crm"),
			}
			if _, err := l.Accept(t.Context(), events, 42, tt.eventsPerJob); err != nil {
				t.Fatal(err)
			}

			wantRoutes := []string{
				events[0].ID.String() + " crm", events[1].ID.String() + " archive", events[1].ID.String() + " crm", events[3].ID.String() + " crm",
			}
			routes := query[string](t, pool, `SELECT event_id || ' ' || sink FROM routes
				WHERE run = 0 AND generation = 42 AND outcome IS NULL ORDER BY event_id, sink`)
			if diff := cmp.Diff(wantRoutes, routes); diff != "" {
				t.Errorf("routes: %s", diff)
			}

			var got, covered []string
			for _, raw := range query[[]byte](t, pool, `SELECT args FROM river_job
				WHERE kind = 'deliver' AND state = 'available' AND queue = 'sink_' || (args->>'sink') AND priority = 1 AND max_attempts = 30000 AND attempt = 0`) {
				var args struct {
					EventIDs []string `json:"event_ids"`
					Sink     string   `json:"sink"`
				}
				decoder := json.NewDecoder(bytes.NewReader(raw))
				decoder.DisallowUnknownFields()
				if err := decoder.Decode(&args); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%s %d", args.Sink, len(args.EventIDs)))
				for _, id := range args.EventIDs {
					covered = append(covered, id+" "+args.Sink)
				}
			}
			if diff := cmp.Diff(tt.want, got, sorted()); diff != "" {
				t.Errorf("jobs: %s", diff)
			}
			if diff := cmp.Diff(wantRoutes, covered, sorted()); diff != "" {
				t.Errorf("events of the jobs: %s", diff)
			}
		})
	}
}

func TestAcceptNotifies(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	heard := listen(t, pool)
	accept(t, ledger.New(pool), event("t", "e", 1, "1", "crm"), event("t", "e", 2, "2", "crm"), event("t", "e", 3, "3", "archive"))
	if got := heard(); len(got) != 2 {
		t.Errorf("notifications %q, want one for each queue", got)
	}
}

// Several processes are sent the same events in different orders and batches.
func TestAcceptConcurrently(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	const writers, rounds, events = 4, 10, 20
	var fresh [writers]map[string]int
	var group sync.WaitGroup
	for w := range writers {
		fresh[w] = map[string]int{}
		group.Go(func() {
			for round := range rounds {
				var batch []ledger.Incoming
				for i := range events {
					n := i
					if w%2 == 1 {
						n = events - 1 - i
					}
					// All have the same timed events of a round; untimed ones of few entities.
					batch = append(batch, event("t", fmt.Sprint("timed", n), n, fmt.Sprint("timed ", round, n), "crm"),
						event("t", fmt.Sprint("untimed", n%3), -1, fmt.Sprint("untimed ", n%2), "crm"))
				}
				accepted, err := l.Accept(t.Context(), batch, 1, 100)
				if err != nil {
					t.Error(err)
					return
				}
				for i, a := range accepted {
					if a.ID == uuid.Nil {
						t.Errorf("event %d has no id", i)
					}
					if !a.Duplicate {
						fresh[w][string(batch[i].Body)]++
					}
				}
			}
		})
	}
	group.Wait()
	for round := range rounds {
		for n := range events {
			body, total := fmt.Sprint("timed ", round, n), 0
			for w := range writers {
				total += fresh[w][body]
			}
			if total != 1 {
				t.Errorf("%q was stored %d times", body, total)
			}
		}
	}
	counts := query[string](t, pool, `SELECT format('%s events, %s routes, %s accounted',
		(SELECT count(*) FROM events WHERE occurred_at IS NOT NULL), (SELECT count(*) FROM routes r JOIN events e ON e.id = r.event_id AND occurred_at IS NOT NULL),
		(SELECT count(*) + sum(duplicates) FROM events))`)
	if want := fmt.Sprintf("%d events, %d routes, %d accounted", rounds*events, rounds*events, writers*rounds*events*2); counts[0] != want {
		t.Errorf("got %s, want %s", counts[0], want)
	}
	// No two consecutive versions of an entity hold the same body, and none is shared.
	same := query[int](t, pool, `SELECT count(*)::int FROM (SELECT digest = lag(digest) OVER w AND true AS same, version_at = lag(version_at) OVER w AS tie
		FROM events WHERE occurred_at IS NULL WINDOW w AS (PARTITION BY entity ORDER BY version_at, id)) x WHERE same OR tie`)
	if same[0] != 0 {
		t.Errorf("%d untimed events repeat the one before or share its version", same[0])
	}
}

func TestAcceptIsOneTransaction(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	bad := event("t", "e", 2, "bad", "crm")
	bad.Reason = "NUL \x00"
	// The untimed events make three statements of it; the last one fails.
	_, err := l.Accept(t.Context(), []ledger.Incoming{
		event("t", "e", 1, "good", "crm"), event("t", "e", -1, "a", "crm"), event("t", "e", -1, "b", "crm"), event("t", "e", -1, "a", "crm"), bad,
	}, 1, 1)
	if !ledger.Refused(err) {
		t.Fatalf("got %v, want a refusal", err)
	}
	got := query[int](t, pool, "SELECT (SELECT count(*) FROM events)::int + (SELECT count(*) FROM routes)::int + (SELECT count(*) FROM river_job)::int")
	if got[0] != 0 {
		t.Errorf("%d rows are left of a batch that failed", got[0])
	}
}

// A commit that timed out may have succeeded: what is given again is the same event.
// Events without a time that come out of spools are ordered by their receipt, whatever
// has been stored meanwhile.
func TestAcceptOrdersByReceipt(t *testing.T) {
	t.Parallel()
	// An event is its body, the second of its receipt, "!" where it comes out of a spool,
	// "@" and the second of its time where it has one, "^" where its rank is 1; calls are
	// divided by "|". Receipts lie months before the database's clock, those of capitals
	// a year ahead of it.
	tests := []struct {
		name, give string
		want       string // the bodies as they are versioned
	}{
		{"one spool", "a1!|b2!|c3", "abc"},
		{"one spool, in one batch", "a1! b2! c3!|d4", "abcd"},
		{"two spools", "b2|a1!", "ab"},
		{"two spools, three events", "a1! c3!|b2!", "abc"},
		{"two spools, three events, the other first", "b2!|a1! c3!", "abc"},
		{"between what was stored", "a1|d4|b2! c3!", "abcd"},
		{"between what was stored, each alone", "a1|d4|c3!|b2!", "abcd"},
		{"behind all", "a1|b2|c3!", "abc"},
		{"received at once", "a1! b1!|c1!", "abc"},
		{"a clock that is ahead", "A1!|B2!|c3", "ABc"},
		{"a clock that is ahead, in between", "a1|B2! C3!|d4", "aBCd"},
		{"a higher rank passes nobody", "a1|c3|b2!^", "abc"},
		{"a lower rank is passed by nobody", "a1^|c3|b2!", "abc"},
		{"the sender's time says nothing of what was received before", "b9@1|a5!", "ba"},
		{"but is before what comes later", "a1@9|b5!", "ab"},
		{"the same as the one before", "a1|b5|a2!", "ab"},
		{"the same as the one after", "a5|a1!", "a"},
		{"the same as its next ones, not as others", "x1|a5|x9|a2! x6! b7!|a8!", "xaxbax"},
		{"a, b, a", "b2|a3|a1!", "aba"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			for call := range strings.SplitSeq(tt.give, "|") {
				var events []ledger.Incoming
				for _, one := range strings.Fields(call) {
					e := event("t", "e", -1, one[:1])
					e.ReceivedAt = noon.Add(time.Duration(one[1]-'0') * time.Second)
					if one[0] < 'a' {
						e.ReceivedAt = time.Now().AddDate(1, 0, int(one[1]))
					}
					e.Again = strings.Contains(one, "!")
					if _, at, ok := strings.Cut(one, "@"); ok {
						e.OccurredAt = noon.Add(time.Duration(at[0]-'0') * time.Second)
					}
					if strings.Contains(one, "^") {
						e.Rank = 1
					}
					events = append(events, e)
				}
				accept(t, l, events...)
				events = slices.DeleteFunc(events, func(e ledger.Incoming) bool { return !e.Again })
				accept(t, l, events...) // as after an answer that was lost
			}
			if got := strings.Join(query[string](t, pool, "SELECT convert_from(body, 'utf8') FROM events ORDER BY version_at, rank, id"), ""); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if n := query[int](t, pool, "SELECT count(*)::int FROM events WHERE version_at > clock_timestamp()")[0]; n > 0 {
				t.Errorf("%d events are versioned ahead of the clock", n)
			}
		})
	}
}

func TestAcceptAgain(t *testing.T) {
	t.Parallel()
	timed := func(body string) ledger.Incoming { return event("t", "e", 5, body, "crm") }
	untimed := func(body string) ledger.Incoming { return event("t", "e", -1, body, "crm") }
	bare := func(body string) ledger.Incoming { return event("t", "", -1, body, "crm") }
	refused := func(e ledger.Incoming) ledger.Incoming {
		e.Type, e.Entity, e.OccurredAt, e.Status, e.Sinks = "unknown", "", time.Time{}, ledger.Malformed, nil
		return e
	}
	again := func(e ledger.Incoming) ledger.Incoming {
		e.Again = true
		return e
	}
	a, b, c, d := timed("a"), untimed("b"), bare("c"), untimed("b")
	e, f := untimed("e"), timed("e")
	tests := []struct {
		name string
		give [][]ledger.Incoming
		want string   // of the last call: "+" stored, "=" duplicate
		rows []string // body, duplicates and routes
	}{
		{"timed", [][]ledger.Incoming{{a}, {again(a)}}, "=", []string{"a 0 1"}},
		{"untimed", [][]ledger.Incoming{{b}, {again(b)}}, "=", []string{"b 0 1"}},
		{"untimed, another came since", [][]ledger.Incoming{{b}, {e}, {again(b)}}, "=", []string{"b 0 1", "e 0 1"}},
		{"untimed, its like came since", [][]ledger.Incoming{{b}, {e}, {d}, {again(b), again(e), again(d)}}, "===", []string{"b 0 1", "b 0 1", "e 0 1"}},
		{"without time and entity", [][]ledger.Incoming{{c}, {again(c)}}, "=", []string{"c 0 1"}},
		{"kept as malformed", [][]ledger.Incoming{{refused(a)}, {again(a)}}, "=", []string{"a 0 0"}},
		{"malformed the second time", [][]ledger.Incoming{{a}, {again(refused(a))}}, "=", []string{"a 0 1"}},
		{"not stored the first time", [][]ledger.Incoming{{again(a), again(b), again(c)}}, "+++", []string{"a 0 1", "b 0 1", "c 0 1"}},
		{"some of a batch", [][]ledger.Incoming{{a, c}, {again(a), again(b), again(c), again(f)}}, "=+=+", []string{"a 0 1", "b 0 1", "c 0 1", "e 0 1"}},
		{"the sender sent it again", [][]ledger.Incoming{{a}, {again(a), again(timed("a")), timed("a")}}, "===", []string{"a 2 1"}},
		{"and untimed", [][]ledger.Incoming{{b}, {again(b), again(untimed("b"))}}, "==", []string{"b 1 1"}},
		{"and more than once", [][]ledger.Incoming{{a}, {again(a)}, {again(a)}, {timed("a")}}, "=", []string{"a 1 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			ids := map[string]uuid.UUID{}
			var got []byte
			for _, events := range tt.give {
				got = got[:0]
				for i, a := range accept(t, l, events...) {
					mark := byte('+')
					if a.Duplicate {
						mark = '='
					}
					got = append(got, mark)
					if first := ids[string(events[i].Body)]; a.Duplicate && !events[i].Again && a.ID != first || events[i].Again && a.ID != events[i].ID && a.ID != first {
						t.Errorf("event %d is told the id %s", i, a.ID)
					}
					ids[string(events[i].Body)] = a.ID
				}
			}
			if string(got) != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			rows := query[string](t, pool, `SELECT concat_ws(' ', convert_from(body, 'utf8'), duplicates, (SELECT count(*) FROM routes WHERE event_id = id)) FROM events ORDER BY 1`)
			if diff := cmp.Diff(tt.rows, rows); diff != "" {
				t.Error(diff)
			}
			jobs := query[int](t, pool, `SELECT (SELECT count(*) FROM river_job)::int - (SELECT count(*) FROM routes)::int`)
			if jobs[0] != 0 {
				t.Errorf("%d more jobs than routes", jobs[0])
			}
		})
	}
}

// The commit that timed out is still under way when its events are given again.
func TestAcceptAgainMeanwhile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		event  ledger.Incoming
		finish func(context.Context, pgx.Tx) error
		stored bool // by the second
	}{
		{"timed, it succeeds", event("t", "e", 5, "a", "crm"), func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) }, false},
		{"timed, it fails", event("t", "e", 5, "a", "crm"), func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) }, true},
		{"untimed, it succeeds", event("t", "e", -1, "a", "crm"), func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) }, false},
		{"bare, it succeeds", event("t", "", -1, "a", "crm"), func(ctx context.Context, tx pgx.Tx) error { return tx.Commit(ctx) }, false},
		{"bare, it fails", event("t", "", -1, "a", "crm"), func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			// What the first commit would write, taken from another database.
			other := pgtest.Pool(t)
			accept(t, ledger.New(other), tt.event)
			row := query[string](t, other, "SELECT to_jsonb(e)::text FROM events e")[0]
			tx, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(context.WithoutCancel(t.Context()))
			if _, err := tx.Exec(t.Context(), "INSERT INTO events SELECT * FROM jsonb_populate_record(NULL::events, $1::jsonb)", row); err != nil {
				t.Fatal(err)
			}
			again := tt.event
			again.Again = true
			type result struct {
				accepted []ledger.Accepted
				err      error
			}
			done := make(chan result, 1)
			go func() {
				accepted, err := l.Accept(t.Context(), []ledger.Incoming{event("t", "x", 1, "another", "crm"), again}, 1, 1)
				done <- result{accepted, err}
			}()
			for waits := 0; waits == 0; {
				waits = query[int](t, pool, "SELECT count(*)::int FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())")[0]
			}
			if err := tt.finish(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			r := <-done
			if r.err != nil {
				t.Fatal(r.err)
			}
			want := ledger.Accepted{ID: tt.event.ID, Duplicate: !tt.stored}
			if diff := cmp.Diff(want, r.accepted[1]); diff != "" {
				t.Error(diff)
			}
			if got := query[string](t, pool, "SELECT count(*) || ' ' || sum(duplicates) FROM events"); got[0] != "2 0" {
				t.Errorf("events and duplicates: %s, want 2 and none", got[0])
			}
		})
	}
}

func TestAcceptCancelled(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.Accept(ctx, []ledger.Incoming{event("t", "e", 1, "1")}, 1, 1)
	if err == nil || ledger.Refused(err) {
		t.Errorf("got %v, want an error that is no refusal", err)
	}
}

func sorted() cmp.Option {
	return cmp.Transformer("sorted", func(list []string) map[string]int {
		counts := map[string]int{}
		for _, s := range list {
			counts[s]++
		}
		return counts
	})
}
