package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/pgtest"
)

// A scrape reads a queue by its index, also where nearly all jobs are of one sink, and
// does not look up each dead route.
func TestQueuesAreReadByIndex(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for _, statement := range []string{
		`INSERT INTO river_job (args, kind, max_attempts, state, queue, scheduled_at)
			SELECT '{}', 'test', 25, 'scheduled', 'sink_crm', now() + interval '1 day' FROM generate_series(1, 30000)`,
		`INSERT INTO routes (event_id, sink, source, generation, outcome, opened_at, closed_at)
			SELECT gen_random_uuid(), 'crm', 'shop', 0, CASE WHEN i % 2 = 0 THEN 'dead' ELSE 'delivered' END, now(), now() FROM generate_series(1, 30000) i`,
		`VACUUM (ANALYZE) river_job, routes`,
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, query string
		args        []any
		avoid       []string
	}{
		{"jobs", countJobs, []any{Queue("crm"), JobStates, CountLimit}, []string{"Seq Scan on river_job", "Sort"}},
		{"dead", countDead, []any{"crm", CountLimit}, []string{"routes_pkey", "Seq Scan on routes", "Sort"}},
	} {
		t.Run(tt.name, func(t *testing.T) { cheap(t, pool, tt.query, tt.args, tt.avoid) })
	}
}

// cheap fails where the plan of a query has a step that it should not have.
func cheap(t *testing.T, pool *pgxpool.Pool, query string, args []any, avoid []string) {
	t.Helper()
	rows, err := pool.Query(t.Context(), "EXPLAIN (ANALYZE, COSTS off, TIMING off) "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(plan, "\n")
	if slices.ContainsFunc(avoid, func(step string) bool { return strings.Contains(text, step) }) {
		t.Errorf("it costs too much:\n%s", text)
	}
}

// So are the sinks for which events wait, whatever waits and whatever has ended.
func TestOrphansAreFoundByIndex(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for _, statement := range []string{
		`INSERT INTO routes (event_id, sink, source, generation, outcome)
			SELECT gen_random_uuid(), s, 'shop', 0, o FROM generate_series(1, 30000), (VALUES ('archive', NULL), ('crm', NULL), ('crm', 'delivered')) s(s, o)`,
		`VACUUM (ANALYZE) routes, sinks`,
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	cheap(t, pool, orphans, []any{[]string{"crm"}, CountLimit}, []string{"routes_pkey", "Seq Scan on routes", "rows=30000"})
}
