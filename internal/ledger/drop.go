package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Orphan is a sink that is stored and that the config does not have.
type Orphan struct {
	Sink      string
	Open      int    // routes that wait for it; counted up to CountLimit
	RenamedTo string // the name that it has by now; "" mostly
}

// A loose scan of the index of open routes: it costs a step for each sink, whatever waits.
const orphans = `
WITH RECURSIVE waiting AS (
	(SELECT sink FROM routes WHERE outcome IS NULL ORDER BY sink LIMIT 1)
	UNION ALL
	SELECT (SELECT r.sink FROM routes r WHERE r.outcome IS NULL AND r.sink > w.sink ORDER BY r.sink LIMIT 1) FROM waiting w WHERE w.sink IS NOT NULL
), stored AS (
	SELECT sink FROM waiting WHERE sink IS NOT NULL
	UNION SELECT name FROM sinks WHERE renamed_to = ''
)
SELECT g.sink, (SELECT count(*) FROM (SELECT FROM routes r WHERE r.sink = g.sink AND r.outcome IS NULL ORDER BY r.sink, r.opened_at LIMIT $2) c), coalesce(s.renamed_to, '')
FROM stored g LEFT JOIN sinks s ON s.name = g.sink
WHERE g.sink <> ALL($1) AND coalesce(s.renamed_to, '') <> ALL($1)
ORDER BY g.sink`

// Orphans returns the sinks that are stored and that the config does not have, by name. Known are the names of those
// that it has, with their former names: what waits under these will be moved.
func (l *Ledger) Orphans(ctx context.Context, known []string) ([]Orphan, error) {
	if known == nil {
		known = []string{}
	}
	rows, err := l.pool.Query(ctx, orphans, known, CountLimit)
	if err != nil {
		return nil, fmt.Errorf("look for sinks that the config does not have: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Orphan])
	if err != nil {
		return nil, fmt.Errorf("look for sinks that the config does not have: %w", err)
	}
	return list, nil
}

// Dropped is what there was of a sink.
type Dropped struct {
	Open    int64 `json:"open"`    // routes that waited
	Jobs    int64 `json:"jobs"`    // of theirs
	Records int64 `json:"records"` // of the CRM that were known
}

// ReasonDropped begins the reason of the routes that Drop ends.
const ReasonDropped = "the sink was taken out of the config"

// Holds tells what Drop would end.
func (l *Ledger) Holds(ctx context.Context, sink string) (Dropped, error) {
	var d Dropped
	err := l.pool.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM routes WHERE sink = $1 AND outcome IS NULL),
			(SELECT count(*) FROM river_job WHERE queue = $2 AND state IN (`+liveStates+`)),
			(SELECT count(DISTINCT record_id) FROM record_keys WHERE sink = $1)`, sink, Queue(sink)).Scan(&d.Open, &d.Jobs, &d.Records)
	if err != nil {
		return d, fmt.Errorf("look at sink %q: %w", sink, err)
	}
	return d, nil
}

// Drop ends the open routes of a sink that no config has any more as skipped, and removes everything else that
// is known of it but what became of its events. It does so in steps: one that is cut short can be called
// again. The error is ErrOwned while a process works the sink.
func (l *Ledger) Drop(ctx context.Context, sink, by string) (d Dropped, err error) {
	o, err := l.Leaser(ctx, "drop "+by)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, o.Close(context.WithoutCancel(ctx))) }()
	lease, _, err := o.Acquire(ctx, sink)
	if err != nil {
		return d, err
	}
	if lease == nil {
		return d, ErrOwned
	}
	if err := l.moveAllStrays(ctx, sink); err != nil {
		return d, err
	}
	reason := storable(ReasonDropped + "; dropped by " + by)
	for n := int64(1); n > 0; {
		if n, err = l.endRoutes(ctx, *lease, reason); err != nil {
			return d, fmt.Errorf("drop sink %q: %w", sink, err)
		}
		d.Open += n
	}
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, cancelJobs, Queue(sink))
		if err != nil {
			return err
		}
		d.Jobs = tag.RowsAffected()
		if tag, err = tx.Exec(ctx, `DELETE FROM records r WHERE EXISTS (SELECT FROM record_keys k WHERE k.sink = $1 AND k.record_id = r.id)`, sink); err != nil {
			return err
		}
		d.Records = tag.RowsAffected()
		if err := dropShadow(ctx, tx, sink); err != nil {
			return err
		}
		for _, statement := range []string{
			`DELETE FROM record_keys WHERE sink = $1`,
			`DELETE FROM announcements WHERE sink = $1`,
			`DELETE FROM guards WHERE sink = $1`,
		} {
			if _, err := tx.Exec(ctx, statement, sink); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `SELECT partnersync_fence($1, $2)`, sink, lease.Epoch); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM sinks WHERE name = $1 OR renamed_to = $1`, sink)
		return err
	})
	if err != nil {
		return d, fmt.Errorf("drop sink %q: %w", sink, err)
	}
	return d, nil
}

// ErrOwned means that a process works the sink.
var ErrOwned = errors.New("a process works the sink")

// endRoutes ends the next open routes of a sink as skipped.
func (l *Ledger) endRoutes(ctx context.Context, lease Lease, reason string) (n int64, err error) {
	err = l.run(func() error {
		return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `SELECT event_id FROM routes WHERE sink = $1 AND outcome IS NULL ORDER BY opened_at, event_id LIMIT $2`, lease.Sink, rowsPerStep)
			if err != nil {
				return err
			}
			events, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
			if err != nil {
				return err
			}
			err = tx.QueryRow(ctx, `
				WITH closed AS (
					UPDATE routes SET outcome = 'skipped', reason = $3, closed_at = now()
					WHERE event_id = ANY($2) AND sink = $1 AND coalesce(outcome, '') = '' -- see openRoutes
					RETURNING event_id, run, opened_at, source
				), ended AS (
					UPDATE deliveries d SET outcome = 'skipped', reason = $3, at = now() FROM closed c
					WHERE d.event_id = ANY($2) AND d.event_id = c.event_id AND d.sink = $1 AND d.run = c.run AND d.outcome IS NULL
				), counted AS (
					INSERT INTO tally_changes (hour, source, sink, outcome, routes)
					SELECT date_trunc('hour', opened_at, 'UTC'), source, $1, 'skipped', count(*) FROM closed GROUP BY 1, 2
				)
				SELECT count(*) FROM closed`, lease.Sink, uuids(events), reason).Scan(&n)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `SELECT partnersync_fence($1, $2)`, lease.Sink, lease.Epoch)
			return err
		})
	})
	return n, err
}

// Free makes the former name of a sink one that another sink may bear; what still waits under it is moved
// first. It returns the name that the sink has by now; ErrNotFound where the name is nobody's former one.
func (l *Ledger) Free(ctx context.Context, former string) (to string, err error) {
	err = l.pool.QueryRow(ctx, `SELECT renamed_to FROM sinks WHERE name = $1 AND renamed_to <> ''`, former).Scan(&to)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("former name %q: %w", former, ErrNotFound)
	}
	if err == nil {
		err = l.moveAllStrays(ctx, to)
	}
	if err == nil {
		_, err = l.pool.Exec(ctx, `DELETE FROM sinks WHERE name = $1 AND renamed_to = $2`, former, to)
	}
	if err != nil {
		return "", fmt.Errorf("free the name %q: %w", former, err)
	}
	return to, nil
}

func (l *Ledger) moveAllStrays(ctx context.Context, sink string) error {
	for {
		if n, err := l.MoveStrays(ctx, sink, rowsPerStep); err != nil || n == 0 {
			return err
		}
	}
}
