package pgstats

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
)

// hotTables are those in which rows come and go, and those that grow.
var hotTables = []string{
	"events", "routes", "deliveries", "records", "record_keys", "announcements", "tallies", "tally_changes", "sinks", "river_job",
}

// connectionStates are the values of the label. The state of a session of another
// role is hidden from a role without pg_read_all_stats: it counts as other.
var connectionStates = []string{"active", "idle", "idle_in_transaction", "other"}

// reading is the health of the server at one moment.
type reading struct {
	tables         []table
	connections    map[string]float64
	connectionsMax float64
	oldestSeconds  float64
	oldestXids     float64
	frozenXids     float64
	queues         []queue
	leader         float64
}

type table struct {
	Name     string
	Dead     float64
	Live     float64
	Heap     float64
	Indexes  float64
	Vacuumed *float64 // seconds ago; nil: never
}

type queue struct {
	Sink   string
	Oldest float64 // seconds
}

// The functions instead of pg_stat_user_tables, which works out thirty columns for
// every table of the database.
const tablesQuery = `
SELECT t.name,
	pg_stat_get_dead_tuples(t.oid)::float8, pg_stat_get_live_tuples(t.oid)::float8,
	pg_table_size(t.oid)::float8, pg_indexes_size(t.oid)::float8,
	extract(epoch FROM now() - greatest(pg_stat_get_last_vacuum_time(t.oid), pg_stat_get_last_autovacuum_time(t.oid)))::float8
FROM (SELECT name, to_regclass(quote_ident(name)) AS oid FROM unnest($1::text[]) AS n(name)) t
WHERE t.oid IS NOT NULL`

const connectionsQuery = `
SELECT CASE
		WHEN state IN ('active', 'idle') THEN state
		WHEN state LIKE 'idle in transaction%' THEN 'idle_in_transaction'
		ELSE 'other' END, count(*)::float8
FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1`

// Vacuum keeps what a snapshot may still see: of the sessions of this database, of
// replicas (which have no database), of prepared transactions and of slots. It is
// not held back by autovacuum itself.
const horizonQuery = `
WITH holders AS (
	SELECT xact_start AS since, greatest(age(backend_xmin), age(backend_xid)) AS xids FROM pg_stat_activity
	WHERE (datname = current_database() OR datname IS NULL) AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
		AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
	UNION ALL
	SELECT prepared, age(transaction) FROM pg_prepared_xacts WHERE database = current_database()
	UNION ALL
	SELECT NULL, greatest(age(xmin), age(catalog_xmin)) FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
)
SELECT coalesce((SELECT greatest(extract(epoch FROM now() - min(since)), 0) FROM holders), 0)::float8,
	coalesce((SELECT max(xids) FROM holders), 0)::float8,
	(SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database())::float8,
	current_setting('max_connections')::float8`

// One row of River's fetching index for each priority, and no more.
const queuesQuery = `
SELECT q.sink, coalesce(extract(epoch FROM now() - min(j.scheduled_at)), 0)::float8
FROM unnest($1::text[], $2::text[]) AS q(sink, queue)
LEFT JOIN LATERAL (
	SELECT due.scheduled_at FROM generate_series(1, 4) AS p(priority) CROSS JOIN LATERAL (
		SELECT scheduled_at FROM river_job
		WHERE state = 'available' AND queue = q.queue AND priority = p.priority AND scheduled_at <= now()
		ORDER BY scheduled_at, id LIMIT 1
	) due
) j ON true
GROUP BY q.sink`

const leaderQuery = `SELECT (EXISTS (SELECT FROM river_leader WHERE expires_at > now()))::int::float8`

// read takes a reading in one round trip.
func read(ctx context.Context, pool *pgxpool.Pool, sinks []string) (*reading, error) {
	r := &reading{connections: map[string]float64{}}
	batch := &pgx.Batch{}
	batch.Queue(tablesQuery, hotTables).Query(func(rows pgx.Rows) (err error) {
		r.tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[table])
		return err
	})
	batch.Queue(connectionsQuery).Query(func(rows pgx.Rows) error {
		var state string
		var n float64
		_, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { r.connections[state] = n; return nil })
		return err
	})
	batch.Queue(horizonQuery).QueryRow(func(row pgx.Row) error {
		return row.Scan(&r.oldestSeconds, &r.oldestXids, &r.frozenXids, &r.connectionsMax)
	})
	queues := make([]string, len(sinks))
	for i, sink := range sinks {
		queues[i] = ledger.Queue(sink)
	}
	batch.Queue(queuesQuery, sinks, queues).Query(func(rows pgx.Rows) (err error) {
		r.queues, err = pgx.CollectRows(rows, pgx.RowToStructByPos[queue])
		return err
	})
	batch.Queue(leaderQuery).QueryRow(func(row pgx.Row) error { return row.Scan(&r.leader) })
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read the statistics of Postgres: %w", err)
	}
	return r, nil
}
