package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// The big tables are filled by Postgres itself. Row i of each is about one event, its
// route, its delivery, and the record of a deal; the events are spread over the ninety
// days before now.

// firstKey is the number of the deal in row 0: above those that the load sends.
const firstKey = 10_000_000

// How many rows the tables may get: numbers of deals have eight digits.
const (
	leastRows = 1_000
	mostRows  = 80_000_000
)

// fillFunctions give the parts of row i of n, of which the last was received at `until`, in
// milliseconds since 1970. Ids are UUIDs of version 7, as in life.
const fillFunctions = `
CREATE FUNCTION bench_ms(i bigint, n bigint, until bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT until - 7776000000 + i * 7776000000 / n $$;
CREATE FUNCTION bench_id(kind text, i bigint, ms bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT (lpad(to_hex(ms), 12, '0') || '7' || overlay(substr(md5(kind || i), 1, 19) PLACING '8' FROM 4 FOR 1))::uuid $$;
CREATE FUNCTION bench_outcome(i bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN i % 1000 < 5 THEN 'dead' WHEN i % 1000 < 150 THEN 'unchanged' WHEN i % 1000 < 200 THEN 'stale' WHEN i % 1000 < 230 THEN 'skipped' ELSE 'delivered' END $$;
CREATE FUNCTION bench_field(value text, version text, rule text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT '{"v":' || value || ',"t":' || version || ',"m":"deals","r":"' || rule || '","k":true}' $$`

// series is which rows a statement makes, with what all of them need. The offsets keep
// Postgres from working a value out once for each place where it is used.
const series = `(
	SELECT i, ms, bench_id('event', i, ms) AS event, to_timestamp(ms / 1000.0) AS at, lpad((i + 10000000)::text, 8, '0') AS key, (i + 1010000000)::text AS crm
	FROM (SELECT i, bench_ms(i, $4, $5) AS ms FROM generate_series($1::bigint, $2::bigint, $3::bigint) i OFFSET 0) i OFFSET 0
) s`

// fillTables are the tables with the statements that fill them. Every fiftieth event is
// one that nothing maps; its type is rare among those that are mapped, too.
var fillTables = []struct{ name, insert string }{
	{"events", `
INSERT INTO events (id, source, type, entity, occurred_at, version_at, received_at, status, digest, headers, body)
SELECT event, 'partnerstack',
	CASE WHEN i % 50 = 0 THEN 'training.completed' WHEN i % 100000 = 77 THEN 'deal.archived' WHEN i % 10 = 7 THEN 'deal.created' ELSE 'deal.updated' END,
	'deal:deal_' || key, at - interval '1 second', at - interval '1 second', at, CASE WHEN i % 50 = 0 THEN 'unmapped' ELSE 'stored' END, decode(md5('digest' || i), 'hex'),
	'{"Content-Type": "application/json", "User-Agent": "bench"}',
	convert_to('{"account_name":"Example Trading ' || key || '","amount":9500,"close_date":1703038800000,"company_id":6,' ||
		'"contact_first_name":"Ada","contact_last_name":"Example","created_at":1690000000000,"key":"deal_' || key || '",' ||
		'"meta":{"company_name_38n83e3e3":"Example Trading","favorite_number_122jdfu232":2},' ||
		'"partner_key":"adaexample3787","stage":"Closed Won","updated_at":' || ms - 1000 || '}', 'UTF8')
FROM ` + series},
	{"routes", `
INSERT INTO routes (event_id, sink, source, generation, outcome, reason, opened_at, closed_at)
SELECT event, 'crm', 'partnerstack', 0, bench_outcome(i), CASE WHEN bench_outcome(i) = 'skipped' THEN 'deals: when is false' ELSE '' END, at, at + interval '40 ms'
FROM ` + series + ` WHERE i % 50 <> 0`},
	{"deliveries", `
INSERT INTO deliveries (event_id, sink, mapping, object, key, outcome, class, reason, attempts, status, crm_id, mapping_hash, at)
SELECT event, 'crm', 'deals', 'deals', 'deal_' || key, bench_outcome(i),
	CASE bench_outcome(i) WHEN 'delivered' THEN 'ok' WHEN 'dead' THEN 'rejected' ELSE '' END,
	CASE WHEN bench_outcome(i) = 'dead' THEN 'VALIDATION_ERROR: "' || i % 20 || '" was not one of the allowed options of dealstage' ELSE '' END,
	(bench_outcome(i) = 'dead')::int, CASE bench_outcome(i) WHEN 'delivered' THEN 200 WHEN 'dead' THEN 400 ELSE 0 END, crm, substr(md5('deals'), 1, 16), at + interval '40 ms'
FROM ` + series + ` WHERE i % 50 <> 0`},
	{"records", `
INSERT INTO records (id, sink, object, crm_id, presence, fields, updated_at)
SELECT bench_id('record', i, ms), 'crm', 'deals', crm, 'present', ('{"amount":' || bench_field('95', version, 'set') || ',"closedate":' || bench_field('"2023-12-20"', version, 'set') ||
	',"dealname":' || bench_field('"Example Trading ' || key || '"', version, 'set') || ',"dealstage":' || bench_field('"closedwon"', version, 'set') ||
	',"first_partner":' || bench_field('"adaexample3787"', version, 'set_first') || '}')::jsonb, at
FROM (SELECT s.*, '[' || (ms - 1000) * 1000 || ',0,"' || event || '"]' AS version FROM ` + series + ` OFFSET 0) s`},
	{"record_keys", `
INSERT INTO record_keys (sink, object, property, value, record_id)
SELECT 'crm', 'deals', 'partnerstack_deal_key', 'deal_' || key, bench_id('record', i, ms) FROM ` + series},
}

// filling is which rows are made.
type filling struct {
	from, to, step int64 // of the rows
	rows           int64 // of all, for their times
	until          int64 // when the last was received, in milliseconds since 1970
	tables         []string
}

// fillBig makes rows, each table in one transaction of its own, so that a Postgres that
// nobody replicates from need not write them twice.
func (d *database) fillBig(ctx context.Context, f filling, tell func(done, total int64)) error {
	const chunk = 50_000
	var mu sync.Mutex
	var done int64
	total := int64(len(f.tables)) * ((f.to-f.from)/f.step + 1)
	one := func(name, insert string) error {
		return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "TRUNCATE "+name); err != nil {
				return err
			}
			for from := f.from; from <= f.to; from += chunk * f.step {
				to := min(from+(chunk-1)*f.step, f.to)
				if _, err := tx.Exec(ctx, insert, from, to, f.step, f.rows, f.until); err != nil {
					return err
				}
				mu.Lock()
				done += (to-from)/f.step + 1
				tell(done, total)
				mu.Unlock()
			}
			return nil
		})
	}
	names := make(chan string, len(f.tables))
	for _, name := range f.tables {
		names <- name
	}
	close(names)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for name := range names {
				for _, t := range fillTables {
					if t.name != name || ctx.Err() != nil {
						continue
					}
					if err := one(t.name, t.insert); err != nil {
						cancel(fmt.Errorf("fill %s: %w", t.name, err))
					}
				}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// As autovacuum would leave them.
	for _, name := range f.tables {
		if _, err := d.pool.Exec(ctx, "VACUUM (ANALYZE) "+name); err != nil {
			return fmt.Errorf("vacuum %s: %w", name, err)
		}
	}
	return nil
}

// tally makes the counts of what is in the routes.
func (d *database) tally(ctx context.Context) error {
	for _, statement := range []string{
		`TRUNCATE tallies, tally_changes`,
		`INSERT INTO tallies (hour, source, sink, outcome, routes)
			SELECT date_trunc('hour', opened_at, 'UTC'), source, sink, o.outcome, count(*) FROM routes r CROSS JOIN LATERAL (VALUES ('opened'), (r.outcome)) o(outcome)
			GROUP BY 1, 2, 3, 4`,
		`VACUUM (ANALYZE) tallies`,
		`CHECKPOINT`,
	} {
		if _, err := d.pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("count the routes: %w", err)
		}
	}
	return nil
}
