package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Barred is why nobody may take a sink until a person has put something right.
type Barred struct {
	Sink   string
	Reason string
}

func (b *Barred) Error() string { return fmt.Sprintf("sink %q cannot be taken: %s", b.Sink, b.Reason) }

func barred(sink, format string, args ...any) *Barred {
	return &Barred{sink, fmt.Sprintf(format, args...)}
}

// nameState is what Formers looks at of a sink's name.
type nameState struct {
	name      string
	renamedTo string
	renamedBy int64
	account   string
	records   bool
}

// Formers returns those of a sink's former names under which something may still be known: each
// is to be renamed before the sink is taken, also where nothing is, so that nobody who has an
// older config takes it later. The error is a *Barred where the config asks for what cannot be.
func (l *Ledger) Formers(ctx context.Context, name string, formerly []string, generation int64) ([]string, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT n.name, coalesce(s.renamed_to, ''), coalesce(s.renamed_by, 0), coalesce(s.account, ''), EXISTS (SELECT FROM record_keys k WHERE k.sink = n.name)
		FROM unnest($1::text[]) WITH ORDINALITY AS n(name, at) LEFT JOIN sinks s ON s.name = n.name ORDER BY n.at`, append([]string{name}, formerly...))
	if err != nil {
		return nil, fmt.Errorf("look at the former names of sink %q: %w", name, err)
	}
	states, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s nameState, err error) {
		err = row.Scan(&s.name, &s.renamedTo, &s.renamedBy, &s.account, &s.records)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("look at the former names of sink %q: %w", name, err)
	}
	return formers(states[0], states[1:], formerly, generation)
}

// formers decides which former names of a sink are still to be renamed.
func formers(sink nameState, former []nameState, formerly []string, generation int64) ([]string, error) {
	if to := sink.renamedTo; to != "" {
		switch {
		case !slices.Contains(formerly, to):
			return nil, renamed(sink.name, to)
		case generation <= sink.renamedBy:
			return nil, barred(sink.name, "a newer config has renamed it to %s", to)
		}
	}
	var names []string
	have := sink // what the sink has, and what it will have of its former names
	for _, f := range former {
		switch {
		case f.renamedTo == sink.name:
			continue
		case f.renamedTo != "" && slices.Contains(formerly, f.renamedTo):
			continue // goes with that one
		case f.renamedTo != "":
			return nil, barred(sink.name, "its former name %s was renamed to %s: name that in `formerly` too, or free the name %s with `partnersync sinks drop %s`", f.name, f.renamedTo, f.name, f.name)
		case f.records && have.records:
			return nil, barred(sink.name, "records are known under %s and under %s: take %s out of `formerly`, or end what is known of it with `partnersync sinks drop %s`", have.name, f.name, f.name, f.name)
		case f.account != "" && have.account != "" && f.account != have.account:
			return nil, barred(sink.name, "%s has been writing to account %s, and %s to %s: take %s out of `formerly`, or end what is known of it with `partnersync sinks drop %s`",
				have.name, have.account, f.name, f.account, f.name, f.name)
		}
		names = append(names, f.name)
		if f.records || have.account == "" && f.account != "" {
			have.name, have.records, have.account = f.name, f.records, cmp.Or(f.account, have.account)
		}
	}
	return names, nil
}

func renamed(sink, to string) *Barred {
	return barred(sink, "it was renamed to %s: write `formerly: [%s]` to give it this name again, or free the name with `partnersync sinks drop %s`", to, to, sink)
}

// Bar stores why nobody may take a sink, for whoever asks after its state. Take lifts it.
func (l *Ledger) Bar(ctx context.Context, b *Barred) error {
	_, err := l.pool.Exec(ctx, `
		INSERT INTO sinks AS s (name, barred) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET barred = excluded.barred WHERE s.renamed_to = '' AND s.barred <> excluded.barred`, b.Sink, storable(b.Reason))
	if err != nil {
		return fmt.Errorf("store why sink %q is barred: %w", b.Sink, err)
	}
	return nil
}

// Rename moves everything that is known under the name of a sink to another name, in one
// transaction: records, routes, counts, waiting jobs, announcements, its state and its tokens. What
// stays is a row that nobody can take any more. It returns how many rows have moved.
//
// It needs the leases of both, which it ends, and is refused with ErrFenced once either has another owner. The
// epoch of the new name is 0 where that is a name which was renamed itself: nobody can own it then.
// Whoever takes the new name finds the announcements of the former one.
func (l *Ledger) Rename(ctx context.Context, former, name Lease, generation int64) (int64, error) {
	var moved int64
	err := l.run(func() error {
		moved = 0
		return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
			// There is no index for all routes of a sink: see AfterConnect.
			if _, err := tx.Exec(ctx, `SET LOCAL enable_seqscan = on`); err != nil {
				return err
			}
			if err := pushRuns(ctx, tx, name.Sink, former.Sink, nil); err != nil {
				return err
			}
			for _, statement := range renameRows {
				tag, err := tx.Exec(ctx, statement, former.Sink, name.Sink)
				if err != nil {
					return err
				}
				moved += tag.RowsAffected()
			}
			// Last, so that the rows of the sinks are locked for the commit only.
			return renameSink(ctx, tx, former, name, generation)
		})
	})
	if no := refusal(err); no != nil {
		return 0, no
	}
	if err != nil {
		return 0, fmt.Errorf("rename sink %q to %q: %w", former.Sink, name.Sink, err)
	}
	return moved, nil
}

// Receivers that have an older config open routes under the former name all the while: what a statement does
// not see any more is left to MoveStrays.
var renameRows = []string{
	renameJobs,
	`UPDATE routes SET sink = $2 WHERE sink = $1`,
	`UPDATE deliveries SET sink = $2 WHERE sink = $1`,
	`UPDATE observations SET sink = $2 WHERE sink = $1`,
	`UPDATE records SET sink = $2 WHERE sink = $1`,
	`UPDATE record_keys SET sink = $2 WHERE sink = $1`,
	`UPDATE records SET sink = $2 || '?' WHERE sink = $1 || '?'`,
	`UPDATE record_keys SET sink = $2 || '?' WHERE sink = $1 || '?'`,
	`UPDATE imagined SET sink = $2 WHERE sink = $1`,
	`UPDATE guards SET sink = $2 WHERE sink = $1`,
	`UPDATE announcements SET sink = $2 WHERE sink = $1`,
	`UPDATE replays SET selection = jsonb_set(selection, '{sink}', to_jsonb($2::text))
		WHERE selection->>'sink' = $1 AND finished_at IS NULL AND cancelled_at IS NULL`,
	moveTallyChanges, moveTallies,
}

const (
	moveTallyChanges = `UPDATE tally_changes SET sink = $2 WHERE sink = $1`
	moveTallies      = `
		WITH moved AS (DELETE FROM tallies WHERE sink = $1 RETURNING hour, source, outcome, routes)
		INSERT INTO tallies AS t (hour, source, sink, outcome, routes) SELECT hour, source, $2, outcome, routes FROM moved ORDER BY 1, 2, 4
		ON CONFLICT (hour, source, sink, outcome) DO UPDATE SET routes = t.routes + excluded.routes`
)

// pushRuns lets the runs under the name later come behind those that the same events have under the name
// earlier, so that both can bear one name; it looks at the given events, or at all where that is nil.
func pushRuns(ctx context.Context, tx pgx.Tx, later, earlier string, events uuids) error {
	const run = `CASE WHEN x.run < 0 THEN x.run - s.shift ELSE x.run + s.shift END`
	of, args := "", []any{later, earlier}
	if events != nil {
		of, args = ` AND l.event_id = ANY($3)`, append(args, events)
	}
	_, err := tx.Exec(ctx, `
		WITH shared AS (
			SELECT l.event_id, max(greatest(r.run, -1 - r.run)) + 1 AS shift
			FROM (SELECT DISTINCT event_id FROM routes l WHERE sink = $1`+of+`) l JOIN routes r ON r.event_id = l.event_id AND r.sink IN ($1, $2)
			GROUP BY l.event_id HAVING bool_or(r.sink = $2)
		), pushed AS (
			UPDATE deliveries x SET run = `+run+` FROM shared s WHERE x.event_id = s.event_id AND x.sink = $1
		)
		UPDATE routes x SET run = `+run+` FROM shared s WHERE x.event_id = s.event_id AND x.sink = $1`, args...)
	return err
}

// renameSink gives the row of the new name what that of the former one holds, and leaves that one as a mark.
func renameSink(ctx context.Context, tx pgx.Tx, former, name Lease, generation int64) error {
	if _, err := tx.Exec(ctx, `SELECT partnersync_fence($1, $2)`, former.Sink, former.Epoch); err != nil {
		return err
	}
	if name.Epoch != 0 {
		if _, err := tx.Exec(ctx, `SELECT partnersync_fence($1, $2)`, name.Sink, name.Epoch); err != nil {
			return err
		}
	}
	for _, statement := range []string{
		// What a person has stopped stays stopped, whichever name was given.
		`INSERT INTO sinks AS s (name, state, reason, until, asked, account, tokens)
			SELECT $2, state, reason, until, asked, account, tokens FROM sinks WHERE name = $1
			ON CONFLICT (name) DO UPDATE SET
				state = CASE WHEN s.state = 'stopped' THEN s.state ELSE excluded.state END,
				reason = CASE WHEN s.state = 'stopped' THEN s.reason ELSE excluded.reason END,
				until = CASE WHEN s.state = 'stopped' THEN s.until ELSE excluded.until END,
				asked = coalesce(nullif(s.asked, ''), excluded.asked),
				account = coalesce(nullif(excluded.account, ''), s.account),
				tokens = coalesce(excluded.tokens, s.tokens),
				owner = '', backend = NULL, epoch = s.epoch + 1, renamed_to = '', renamed_by = 0, barred = '', changed_at = now()`,
		`UPDATE sinks SET renamed_to = $2 WHERE renamed_to = $1`,
	} {
		if _, err := tx.Exec(ctx, statement, former.Sink, name.Sink); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `
		UPDATE sinks SET renamed_to = $2, renamed_by = $3, owner = '', backend = NULL, epoch = epoch + 1, state = 'ready', reason = '', until = NULL,
			asked = '', account = '', tokens = NULL, barred = '', changed_at = now()
		WHERE name = $1`, former.Sink, name.Sink, generation)
	return err
}

// MoveStrays moves the routes that receivers with an older config have opened under a former name of a
// sink, at most limit of each name, to the name that it has by now. Each gets a job. It returns how many those were.
func (l *Ledger) MoveStrays(ctx context.Context, sink string, limit int) (int, error) {
	rows, err := l.pool.Query(ctx, `SELECT name FROM sinks WHERE renamed_to = $1 ORDER BY name`, sink)
	if err != nil {
		return 0, fmt.Errorf("look for former names of sink %q: %w", sink, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("look for former names of sink %q: %w", sink, err)
	}
	moved := 0
	for _, former := range names {
		var n int
		err := l.run(func() (err error) {
			n, err = l.moveStrays(ctx, former, sink, limit)
			return err
		})
		if err != nil {
			return moved, fmt.Errorf("move the routes of sink %q to its name %q: %w", former, sink, err)
		}
		moved += n
	}
	return moved, nil
}

func (l *Ledger) moveStrays(ctx context.Context, former, sink string, limit int) (n int, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		n = 0
		var still bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM sinks WHERE name = $1 AND renamed_to = $2 FOR SHARE)`, former, sink).Scan(&still); err != nil || !still {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT event_id FROM routes WHERE sink = $1 AND outcome IS NULL ORDER BY opened_at, event_id LIMIT $2`, former, limit)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		if err != nil {
			return err
		}
		events := uuids(found)
		for _, statement := range []string{moveTallyChanges, moveTallies} {
			if _, err := tx.Exec(ctx, statement, former, sink); err != nil {
				return err
			}
		}
		// Nobody works them, and each route that they are for gets another with its name.
		if _, err := tx.Exec(ctx, cancelJobs, Queue(former)); err != nil || len(events) == 0 {
			return err
		}
		// A replay by the older config is newer than what the event has had.
		if err := pushRuns(ctx, tx, former, sink, events); err != nil {
			return err
		}
		var told int
		return tx.QueryRow(ctx, moveRoutes, former, sink, events, livePriority).Scan(&n, &told)
	})
	return n, err
}

const moveRoutes = `
WITH moved AS (
	UPDATE routes SET sink = $2 WHERE event_id = ANY($3) AND sink = $1 AND coalesce(outcome, '') = '' RETURNING event_id
), jobs AS (
	SELECT DISTINCT jsonb_build_array(event_id) AS event_ids, $2::text AS sink, $4::smallint AS priority FROM moved
), ` + queueJobs + `
SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM told)`
