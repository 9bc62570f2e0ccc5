package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Balance is the account of one source and sink: every route that was opened has
// ended in a named outcome or is open.
type Balance struct {
	Source      string `json:"source"`
	Sink        string `json:"sink"`
	Accepted    int64  `json:"accepted"` // routes that were opened
	Delivered   int64  `json:"delivered"`
	Unchanged   int64  `json:"unchanged"`
	Observed    int64  `json:"observed"`
	Stale       int64  `json:"stale"`
	Skipped     int64  `json:"skipped"`
	Dead        int64  `json:"dead"`
	Replayed    int64  `json:"dead_replayed"` // those of the dead, as far as they are kept, that have been replayed since
	Healed      int64  `json:"dead_healed"`   // those of the replayed that are dead no more, nor open
	Open        int64  `json:"open"`
	Unaccounted int64  `json:"unaccounted"` // 0 unless something is lost
}

// rollUp adds what transactions have changed to the totals. Only one at a time
// does it; another finds nothing left.
const rollUp = `
WITH taken AS (
	DELETE FROM tally_changes RETURNING hour, source, sink, outcome, routes
)
INSERT INTO tallies AS t (hour, source, sink, outcome, routes)
SELECT hour, source, sink, outcome, sum(routes) FROM taken GROUP BY hour, source, sink, outcome ORDER BY 1, 2, 3, 4
ON CONFLICT (hour, source, sink, outcome) DO UPDATE SET routes = t.routes + excluded.routes`

// RollUp adds up the changes of the tallies, and so keeps their table small.
func (l *Ledger) RollUp(ctx context.Context) error {
	err := l.run(func() error {
		_, err := l.pool.Exec(ctx, rollUp)
		return err
	})
	if err != nil {
		return fmt.Errorf("roll up the tallies: %w", err)
	}
	return nil
}

// Counts and open routes come from one snapshot, so that the balance holds while
// events arrive. What still bears the former name of a sink counts as that sink's.
const balance = `
WITH stored AS (
	SELECT source, sink, outcome, routes FROM tallies WHERE hour >= $1
	UNION ALL SELECT source, sink, outcome, routes FROM tally_changes WHERE hour >= $1
	UNION ALL
	SELECT source, sink, 'open', count(*) FROM routes WHERE outcome IS NULL AND opened_at >= $1 GROUP BY source, sink
	UNION ALL
	SELECT source, sink, CASE WHEN last.outcome <> 'dead' THEN 'healed' ELSE 'replayed' END, count(*)
	FROM routes r CROSS JOIN LATERAL (
		SELECT outcome FROM routes n WHERE n.event_id = r.event_id AND n.sink = r.sink AND n.run > r.run ORDER BY n.run DESC LIMIT 1) last
	WHERE r.outcome = 'dead' AND opened_at >= $1 GROUP BY 1, 2, 3
), counted AS (
	SELECT c.source, coalesce(nullif(s.renamed_to, ''), c.sink) AS sink, c.outcome, c.routes
	FROM stored c LEFT JOIN sinks s ON s.name = c.sink
)
SELECT source, sink,
	coalesce(sum(routes) FILTER (WHERE outcome = 'opened'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'delivered'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'unchanged'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'observed'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'stale'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'skipped'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'dead'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'open'), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome IN ('replayed', 'healed')), 0)::bigint,
	coalesce(sum(routes) FILTER (WHERE outcome = 'healed'), 0)::bigint
FROM counted GROUP BY source, sink ORDER BY source, sink`

// Balances returns the account per source and sink of the routes opened since
// the beginning of an hour; the zero time means all.
func (l *Ledger) Balances(ctx context.Context, since time.Time) ([]Balance, error) {
	rows, err := l.pool.Query(ctx, balance, since.UTC().Truncate(time.Hour))
	if err != nil {
		return nil, fmt.Errorf("read the balances: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Balance, error) {
		var b Balance
		err := row.Scan(&b.Source, &b.Sink, &b.Accepted, &b.Delivered, &b.Unchanged, &b.Observed, &b.Stale, &b.Skipped, &b.Dead, &b.Open, &b.Replayed, &b.Healed)
		b.Unaccounted = b.Accepted - b.Delivered - b.Unchanged - b.Observed - b.Stale - b.Skipped - b.Dead - b.Open
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the balances: %w", err)
	}
	return list, nil
}

// Idle counts the events of a source that no worker looks at.
type Idle struct {
	Source    string `json:"source"`
	Unmapped  int64  `json:"unmapped"`
	Ignored   int64  `json:"ignored"`
	Malformed int64  `json:"malformed"`
}

// IdleLimit is how many of the newest idle events Idle looks at.
const IdleLimit = 200_000

const idle = `
SELECT source, count(*) FILTER (WHERE status = 'unmapped'), count(*) FILTER (WHERE status = 'ignored'), count(*) FILTER (WHERE status = 'malformed')
FROM (SELECT source, status FROM events WHERE status IN ('unmapped', 'ignored', 'malformed') AND id >= $1 AND received_at >= $2 ORDER BY id DESC LIMIT $3) e
GROUP BY source ORDER BY source`

// Idle counts the events received since the beginning of an hour that no worker looks at, by source.
func (l *Ledger) Idle(ctx context.Context, since time.Time) ([]Idle, error) {
	since = since.UTC().Truncate(time.Hour)
	first := uuid.Nil
	if since.After(time.UnixMilli(0).Add(slack)) {
		first = firstID(since.Add(-slack))
	}
	rows, err := l.pool.Query(ctx, idle, first, since, IdleLimit)
	if err != nil {
		return nil, fmt.Errorf("count the events without a sink: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i Idle, err error) {
		return i, row.Scan(&i.Source, &i.Unmapped, &i.Ignored, &i.Malformed)
	})
	if err != nil {
		return nil, fmt.Errorf("count the events without a sink: %w", err)
	}
	return list, nil
}

// KnowsSource reports whether anything of a source is stored.
func (l *Ledger) KnowsSource(ctx context.Context, source string) (bool, error) {
	return l.knows(ctx, source, `
		SELECT EXISTS (SELECT FROM tallies WHERE source = $1) OR EXISTS (SELECT FROM tally_changes WHERE source = $1)
			OR EXISTS (SELECT FROM events WHERE source = $1 AND entity <> '')`)
}

// KnowsSink reports whether anything of a sink is stored.
func (l *Ledger) KnowsSink(ctx context.Context, sink string) (bool, error) {
	return l.knows(ctx, sink, `
		SELECT EXISTS (SELECT FROM tallies WHERE sink = $1) OR EXISTS (SELECT FROM tally_changes WHERE sink = $1)
			OR EXISTS (SELECT FROM sinks WHERE name = $1)`)
}

func (l *Ledger) knows(ctx context.Context, name, query string) (known bool, err error) {
	if err := l.pool.QueryRow(ctx, query, name).Scan(&known); err != nil {
		return false, fmt.Errorf("look for %q: %w", name, err)
	}
	return known, nil
}
