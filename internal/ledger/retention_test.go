package ledger_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/records"
)

// How many events the tests on many rows have: go test -run Million ./internal/ledger -retention.rows=1000000
var manyRows = flag.Int("retention.rows", 20_000, "events of the tests on many rows")

// idAt is an id that was made at a time.
func idAt(t testing.TB, at time.Time) uuid.UUID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	ms := uint64(at.UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

const ancient = 500 * 24 * time.Hour

// storedAt stores an event of the source ps that was received some time ago.
func storedAt(t *testing.T, l *ledger.Ledger, age time.Duration, sinks ...string) uuid.UUID {
	t.Helper()
	at := time.Now().UTC().Truncate(time.Microsecond).Add(-age)
	id := idAt(t, at)
	accept(t, l, ledger.Incoming{
		ID: id, Source: "ps", Type: "deal.updated", Entity: "deal:" + id.String(), OccurredAt: at, ReceivedAt: at,
		Status: ledger.Stored, Body: []byte(`{"key":"` + id.String() + `"}`), Sinks: sinks,
	})
	return id
}

// expireAll removes everything before a time, step by step.
func expireAll(t *testing.T, l *ledger.Ledger, before time.Time, limit int) (removed int64) {
	t.Helper()
	for after := uuid.Nil; ; {
		n, next, err := l.Expire(t.Context(), before, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		removed += n
		if after = next; after == uuid.Nil {
			return removed
		}
	}
}

func TestExpire(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	names := map[string]string{}
	add := func(name string, age time.Duration, sinks ...string) uuid.UUID {
		id := storedAt(t, l, age, sinks...)
		names[id.String()] = name
		return id
	}
	const keep = 400 * 24 * time.Hour
	for i, o := range ledger.Outcomes {
		end(t, l, add(fmt.Sprintf("old %s", o), ancient-time.Duration(i)*time.Hour, "crm"), 0, o, "because")
		end(t, l, add(fmt.Sprintf("young %s", o), time.Hour, "crm"), 0, o, "because")
	}
	add("old open", ancient, "crm")
	end(t, l, add("old, open at one sink", ancient, "crm", "archive"), 0, ledger.Delivered, "")
	add("old, unmapped", ancient)
	replayed := add("old, replayed", ancient, "crm")
	end(t, l, replayed, 0, ledger.Dead, "because")
	if _, n, err := l.Replay(t.Context(), ledger.ReplaySpec{
		Filter: ledger.Filter{IDs: []uuid.UUID{replayed}}, Generation: 1, Wants: func(string, string) []string { return []string{"crm"} },
	}); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	add("just kept", keep-time.Minute)
	add("just not kept", keep+time.Minute)
	record := &ledger.Record{ID: newID(t), Object: "deals", Property: "k", Key: "1", Presence: records.Present, New: true}
	if err := l.Write(t.Context(), own(t, l), &ledger.Report{Records: []*ledger.Record{record}}); err != nil {
		t.Fatal(err)
	}
	before := balances(t, l)

	for _, limit := range []int{3, 1000} { // a second round finds nothing more
		removed := expireAll(t, l, time.Now().Add(-keep), limit)
		if want := map[int]int64{3: 8, 1000: 0}[limit]; removed != want {
			t.Errorf("removed %d, want %d", removed, want)
		}
	}
	var left []string
	for _, id := range query[string](t, pool, `SELECT id::text FROM events`) {
		left = append(left, names[id])
	}
	slices.Sort(left)
	want := []string{
		"just kept", "old open", "old, open at one sink", "old, replayed",
		"young dead", "young delivered", "young observed", "young skipped", "young stale", "young unchanged",
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Error(diff)
	}
	for _, table := range []string{"routes", "deliveries"} {
		if n := query[int](t, pool, `SELECT count(*)::int FROM `+table+` WHERE event_id NOT IN (SELECT id FROM events)`); n[0] != 0 {
			t.Errorf("%d %s without their event", n[0], table)
		}
	}
	if n := query[int](t, pool, `SELECT count(*)::int FROM records`); n[0] != 1 {
		t.Errorf("%d records", n[0])
	}
	if diff := cmp.Diff(before, balances(t, l)); diff != "" {
		t.Errorf("the ledger tells another story now:\n%s", diff)
	}
	// What has ended meanwhile goes with the next round.
	end(t, l, replayed, 1, ledger.Delivered, "")
	if removed := expireAll(t, l, time.Now().Add(-keep), 1000); removed != 1 {
		t.Errorf("removed %d", removed)
	}
}

func balances(t *testing.T, l *ledger.Ledger) []ledger.Balance {
	t.Helper()
	list, err := l.Balances(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if b.Unaccounted != 0 {
			t.Errorf("unaccounted: %+v", b)
		}
	}
	return list
}

// Retention and whoever opens a route of an event never both have their way.
func TestExpireBesideReplay(t *testing.T) {
	t.Parallel()
	spec := func(id uuid.UUID) ledger.ReplaySpec {
		return ledger.ReplaySpec{Filter: ledger.Filter{IDs: []uuid.UUID{id}}, Generation: 1, Wants: func(string, string) []string { return []string{"crm"} }}
	}
	t.Run("the replay was first", func(t *testing.T) {
		t.Parallel()
		pool := pgtest.Pool(t)
		l := ledger.New(pool)
		id := storedAt(t, l, ancient, "crm")
		end(t, l, id, 0, ledger.Dead, "because")
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.WithoutCancel(t.Context()))
		// As a replay does, whose transaction has not ended yet.
		if _, err := tx.Exec(t.Context(), `SELECT FROM events WHERE id = $1 FOR KEY SHARE`, id); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `INSERT INTO routes (event_id, sink, run, source, generation) VALUES ($1, 'crm', 1, 'ps', 1)`, id); err != nil {
			t.Fatal(err)
		}
		if removed := expireAll(t, l, time.Now(), 10); removed != 0 {
			t.Errorf("removed %d while the replay was under way", removed)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if removed := expireAll(t, l, time.Now(), 10); removed != 0 {
			t.Errorf("removed %d with an open route", removed)
		}
	})
	t.Run("the retention was first", func(t *testing.T) {
		t.Parallel()
		pool := pgtest.Pool(t)
		l := ledger.New(pool)
		id := storedAt(t, l, ancient, "crm")
		end(t, l, id, 0, ledger.Dead, "because")
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.WithoutCancel(t.Context()))
		if _, err := tx.Exec(t.Context(), `DELETE FROM events WHERE id = $1`, id); err != nil {
			t.Fatal(err)
		}
		type result struct {
			routes int64
			err    error
		}
		done := make(chan result, 1)
		go func() {
			_, routes, err := l.Replay(t.Context(), spec(id))
			done <- result{routes, err}
		}()
		for waits := 0; waits == 0; {
			waits = query[int](t, pool, "SELECT count(*)::int FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())")[0]
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.err != nil || r.routes != 0 {
			t.Errorf("opened %d routes of an event that is gone, %v", r.routes, r.err)
		}
	})
}

// receiver stores events until stop, as new ones and as duplicates of the given ones,
// and counts how often Postgres made it wait longer than it may.
type receiver struct {
	stop               func() (accepted, timeouts int)
	accepted, timeouts int
	slowest            time.Duration
}

func receive(t *testing.T, url string, old []ledger.Incoming) *receiver {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["lock_timeout"] = "1s"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	l := ledger.New(pool)
	ctx, cancel := context.WithCancel(t.Context())
	r := &receiver{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			now := time.Now().UTC()
			events := []ledger.Incoming{{
				ID: uuid.Must(uuid.NewV7()), Source: "ps", Type: "deal.updated", Entity: "deal:new", OccurredAt: now, ReceivedAt: now,
				Status: ledger.Stored, Body: []byte(`{"n":` + strconv.Itoa(i) + `}`), Sinks: []string{"crm"},
			}}
			if len(old) > 0 {
				e := old[i%len(old)]
				e.ID, e.ReceivedAt = uuid.Must(uuid.NewV7()), now
				events = append(events, e)
			}
			start := time.Now()
			_, err := l.Accept(ctx, events, 1, 1)
			r.slowest = max(r.slowest, time.Since(start))
			var pg *pgconn.PgError
			switch {
			case ctx.Err() != nil:
			case err == nil:
				r.accepted++
			case errors.As(err, &pg) && pg.Code == "55P03":
				r.timeouts++
			default:
				t.Errorf("a receiver beside it fails: %v", err)
			}
		}
	}()
	r.stop = func() (int, int) {
		cancel()
		<-done
		return r.accepted, r.timeouts
	}
	return r
}

// fill stores n old events, each with a delivered route, but for one in a hundred
// whose route is open.
func fill(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	first := time.Now().Add(-ancient).UnixMilli()
	const id = `(lpad(to_hex($2::bigint + g), 12, '0') || '7000' || '8000' || lpad(to_hex(g), 12, '0'))::uuid`
	for _, sql := range []string{
		`INSERT INTO events (id, source, type, entity, occurred_at, version_at, received_at, status, digest, body)
		 SELECT ` + id + `, 'ps', 'deal.updated', 'deal:' || g, to_timestamp(g), to_timestamp(g), now() - interval '500 days', 'stored',
			substr(sha256(g::text::bytea), 1, 16), convert_to('{"key":"' || g || '","email":"somebody-' || g || '@example.com","pad":"' || repeat('x', 700) || '"}', 'UTF8')
		 FROM generate_series(1, $1::int) g`,
		`INSERT INTO routes (event_id, sink, source, generation, outcome, opened_at, closed_at)
		 SELECT ` + id + `, 'crm', 'ps', 1, CASE WHEN g % 100 > 0 THEN 'delivered' END, now(), CASE WHEN g % 100 > 0 THEN now() END FROM generate_series(1, $1::int) g`,
		`INSERT INTO deliveries (event_id, sink, mapping, object, key, outcome, crm_id)
		 SELECT ` + id + `, 'crm', 'deals', 'deals', g::text, 'delivered', g::text FROM generate_series(1, $1::int) g WHERE g % 100 > 0`,
		`INSERT INTO records (id, sink, object, crm_id, presence, fields)
		 SELECT ` + id + `, 'crm', 'deals', g::text, 'present', jsonb_build_object('email', jsonb_build_object('v', 'somebody-' || g || '@example.com', 't', jsonb_build_array(1, 0, ` + id + `), 'm', 'deals', 'r', 'set', 'k', true))
		 FROM generate_series(1, $1::int) g`,
		`INSERT INTO record_keys (sink, object, property, value, record_id) SELECT 'crm', 'deals', 'k', g::text, ` + id + ` FROM generate_series(1, $1::int) g`,
	} {
		if _, err := pool.Exec(t.Context(), sql, n, first); err != nil {
			t.Fatal(err)
		}
	}
}

// Nobody waits for retention, however much there is to remove.
func TestMillionRowsExpire(t *testing.T) {
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
	var old []ledger.Incoming // are sent again while they are removed
	for i := range 50 {
		at := time.Now().Add(-ancient).Truncate(time.Microsecond)
		e := ledger.Incoming{ID: idAt(t, at.Add(time.Duration(i*n/50)*time.Millisecond)), Source: "ps", Type: "deal.updated", Entity: "deal:again", OccurredAt: at, ReceivedAt: at,
			Status: ledger.Stored, Body: []byte(`{"again":` + strconv.Itoa(i) + `}`)}
		accept(t, l, e)
		old = append(old, e)
	}
	r := receive(t, url, old)
	var removed int64
	var slowest, total time.Duration
	for after := uuid.Nil; ; {
		start := time.Now()
		m, next, err := l.Expire(t.Context(), time.Now().Add(-400*24*time.Hour), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		slowest, total, removed = max(slowest, took), total+took, removed+m
		if after = next; after == uuid.Nil {
			break
		}
	}
	accepted, timeouts := r.stop()
	t.Logf("%d rows: removed %d in %s, slowest batch %s; beside it %d accepted, slowest %s", n, removed, total.Round(time.Millisecond), slowest.Round(time.Millisecond), accepted, r.slowest.Round(time.Millisecond))
	if timeouts > 0 || accepted == 0 {
		t.Errorf("receivers: %d accepted, %d waited for too long", accepted, timeouts)
	}
	open := int64(n / 100)
	if least := int64(n) - open; removed < least || removed > least+int64(len(old)) {
		t.Errorf("removed %d, want %d and up to %d that were sent again", removed, least, len(old))
	}
	if left := query[int64](t, pool, `SELECT count(*) FROM routes WHERE source = 'ps' AND outcome IS NULL AND event_id IN (SELECT id FROM events WHERE entity <> 'deal:new')`); left[0] != open {
		t.Errorf("%d open routes are left, want %d", left[0], open)
	}
}
