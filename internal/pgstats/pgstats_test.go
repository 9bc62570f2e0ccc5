package pgstats

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"partnersync/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sinks() []string { return []string{"archive", "crm"} }

// insertJobs makes n jobs of a sink, the oldest due for the given time.
func insertJobs(t *testing.T, pool *pgxpool.Pool, sink, state string, n, priority int, due time.Duration) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `
		INSERT INTO river_job (args, kind, max_attempts, priority, queue, state, scheduled_at, finalized_at)
		SELECT '{}', 'deliver', 100, $3, 'sink_' || $1, $2::river_job_state, now() - $4::interval * (n::float8 / $5),
			CASE WHEN $2 = 'completed' THEN now() END
		FROM generate_series(1, $5) n`, sink, state, priority, due, n)
	if err != nil {
		t.Fatal(err)
	}
}

// values gathers everything as name{labels}.
func values(t *testing.T, c *Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "partnersync_")
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func TestLint(t *testing.T) {
	t.Parallel()
	problems, err := testutil.CollectAndLint(New(Options{Pool: pgtest.Pool(t), Sinks: sinks}))
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestReading(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	insertJobs(t, pool, "crm", "available", 5, 1, time.Minute)
	insertJobs(t, pool, "crm", "available", 1, 3, time.Hour)
	insertJobs(t, pool, "crm", "available", 1, 1, -time.Hour) // not due
	insertJobs(t, pool, "crm", "completed", 1, 1, 5*time.Hour)
	got := values(t, New(Options{Pool: pool, Sinks: sinks}))

	for name, want := range map[string]float64{
		"postgres_stats_up": 1, "queue_leader": 0, "queue_oldest_job_seconds archive": 0,
		"postgres_pool_connections acquired": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	for name, least := range map[string]float64{
		"queue_oldest_job_seconds crm": 3600, "postgres_connections_limit": 10, "postgres_frozen_age_xids": 1,
		"postgres_pool_limit_connections": 1, "postgres_pool_acquires_total": 4, "postgres_connections active": 1,
		"postgres_table_bytes indexes river_job": 8192, "postgres_table_bytes heap river_job": 8192,
	} {
		if got[name] < least {
			t.Errorf("%s is %v, want at least %v", name, got[name], least)
		}
	}
	if v := got["queue_oldest_job_seconds crm"]; v > 4000 {
		t.Errorf("the oldest job of crm has waited %v s: a job that is not due, or done, counts", v)
	}
	for _, name := range hotTables {
		if _, ok := got["postgres_table_dead_rows "+name]; !ok {
			t.Errorf("nothing is told of table %s", name)
		}
	}
}

func TestLeader(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for _, tt := range []struct {
		name, expires string
		want          float64
	}{
		{"alive", "1 minute", 1},
		{"gone", "-1 minute", 0},
	} {
		_, err := pool.Exec(t.Context(), `
			INSERT INTO river_leader (leader_id, name, elected_at, expires_at) VALUES ('x', 'default', now() - interval '1 hour', now() + $1::interval)
			ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at`, tt.expires)
		if err != nil {
			t.Fatal(err)
		}
		if got := values(t, New(Options{Pool: pool}))["queue_leader"]; got != tt.want {
			t.Errorf("%s: the leader is %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A transaction that has seen a snapshot holds vacuum back; one of another
// database does not.
func TestOldestTransaction(t *testing.T) {
	t.Parallel()
	pool, other := pgtest.Pool(t), pgtest.Pool(t)
	holding := func(p *pgxpool.Pool) pgx.Tx {
		tx, err := p.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM sinks`); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	held := func() bool {
		t.Helper()
		return values(t, New(Options{Pool: pool}))["postgres_oldest_transaction_seconds"] > 0
	}
	elsewhere := holding(other)
	defer func() { _ = elsewhere.Rollback(context.Background()) }()
	if held() {
		t.Error("a transaction of another database counts")
	}
	here := holding(pool)
	if _, err := pool.Exec(t.Context(), `INSERT INTO sinks (name) VALUES ('crm')`); err != nil {
		t.Fatal(err)
	}
	got := values(t, New(Options{Pool: pool}))
	if got["postgres_oldest_transaction_seconds"] <= 0 || got["postgres_oldest_transaction_xids"] < 1 {
		t.Errorf("a transaction that holds vacuum back is not seen: %v s, %v ids",
			got["postgres_oldest_transaction_seconds"], got["postgres_oldest_transaction_xids"])
	}
	if got["postgres_connections idle_in_transaction"] < 1 || got["postgres_pool_connections acquired"] != 1 {
		t.Errorf("its connection is not seen: %v", got)
	}
	if err := here.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if held() {
		t.Error("a transaction that has ended counts")
	}
}

// However many ask, Postgres is read once in a while.
func TestReadingIsShared(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	c := New(Options{Pool: pool, Sinks: sinks, Every: time.Hour})
	values(t, c)
	before := pool.Stat().AcquireCount()
	var askers sync.WaitGroup
	for range 20 {
		askers.Go(func() { values(t, c) })
	}
	askers.Wait()
	if n := pool.Stat().AcquireCount() - before; n != 0 {
		t.Errorf("20 scrapes took a connection %d times", n)
	}
}

func TestPostgresAway(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	pool, err := pgxpool.New(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	server.Stop()
	got := values(t, New(Options{Pool: pool, Sinks: sinks}))
	if up, ok := got["postgres_stats_up"]; !ok || up != 0 {
		t.Errorf("postgres_stats_up is %v (%v)", up, ok)
	}
	if _, ok := got["postgres_pool_limit_connections"]; !ok {
		t.Error("the pool is not told of")
	}
	if _, ok := got["queue_leader"]; ok {
		t.Error("something is told of a server that does not answer")
	}
}

// A reading costs the same whatever has piled up: every step reads by an index.
func TestQueuesAreReadByIndex(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	insertJobs(t, pool, "crm", "available", 20_000, 1, time.Hour)
	insertJobs(t, pool, "archive", "completed", 20_000, 1, time.Hour)
	if _, err := pool.Exec(t.Context(), `ANALYZE river_job`); err != nil {
		t.Fatal(err)
	}
	rows, err := pool.Query(t.Context(), "EXPLAIN (ANALYZE, COSTS off, TIMING off) "+queuesQuery, sinks(), []string{"sink_archive", "sink_crm"})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(plan, func(line string) bool { return strings.Contains(line, "Seq Scan on river_job") }) {
		t.Errorf("the table is scanned:\n%s", strings.Join(plan, "\n"))
	}
}

func BenchmarkReading(b *testing.B) {
	pool := pgtest.Pool(b)
	for b.Loop() {
		if _, err := read(b.Context(), pool, sinks()); err != nil {
			b.Fatal(err)
		}
	}
}
