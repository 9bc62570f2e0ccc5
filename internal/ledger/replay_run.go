package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Replay opens a new run for every event of the plan and sink that wants it
// today, with a job each, oldest events first, and returns the replay's number and how
// many routes it opened. A route that is open is replayed by itself already and is left
// alone.
//
// It works in small steps. One that is cut short returns the number along with the
// error: ContinueReplay does the rest, CancelReplay takes it back.
func (l *Ledger) Replay(ctx context.Context, spec ReplaySpec) (id, routes int64, err error) {
	if id, err = insertReplay(ctx, l.pool, &spec); err != nil {
		return 0, 0, fmt.Errorf("replay: %w", err)
	}
	routes, err = l.replay(ctx, id, &spec)
	return id, routes, err
}

// insertReplay stores a replay that has selected nothing yet.
func insertReplay(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, spec *ReplaySpec) (id int64, err error) {
	selection, err := json.Marshal(spec.Filter)
	if err != nil {
		return 0, err
	}
	err = db.QueryRow(ctx, `
		INSERT INTO replays (by, selection, rewrite, last)
		VALUES ($1, $2, $3, coalesce((SELECT id FROM events ORDER BY id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000')) RETURNING id`,
		spec.By, selection, spec.Rewrite).Scan(&id)
	return id, err
}

// ContinueReplay does the rest of a replay that was cut short, by today's mappings: of
// the spec, Wants, Generation and Progress count. It returns how many routes it opened.
func (l *Ledger) ContinueReplay(ctx context.Context, id int64, spec ReplaySpec) (int64, error) {
	filter, err := l.ReplayFilter(ctx, id)
	if err != nil {
		return 0, err
	}
	spec.Filter = filter
	return l.replay(ctx, id, &spec)
}

// ReplayFilter returns what a replay selects; ErrNotFound where there is no such one.
func (l *Ledger) ReplayFilter(ctx context.Context, id int64) (Filter, error) {
	var filter Filter
	var selection []byte
	err := l.pool.QueryRow(ctx, `SELECT selection::text FROM replays WHERE id = $1`, id).Scan(&selection)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = ErrNotFound
	case err != nil:
	case bytes.Equal(selection, []byte(erasedSelection)):
		err = ErrReplayErased
	default:
		err = json.Unmarshal(selection, &filter)
	}
	if err != nil {
		return filter, fmt.Errorf("replay %d: %w", id, err)
	}
	return filter, nil
}

func (l *Ledger) replay(ctx context.Context, id int64, spec *ReplaySpec) (routes int64, err error) {
	defer func() {
		if err != nil { // so that the list says so at once; it does after a while anyway
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_, _ = l.pool.Exec(ctx, `UPDATE replays SET moved_at = '-infinity' WHERE id = $1`, id)
		}
	}()
	total, err := l.estimate(ctx, "events")
	if err != nil {
		return 0, fmt.Errorf("replay %d: %w", id, err)
	}
	tell := func(what string, done, total int64) {
		if spec.Progress != nil {
			spec.Progress(what, done, max(done, total))
		}
	}
	for looked, more := int64(0), true; more; {
		tell("events looked at", looked, total)
		var n int64
		if n, more, err = l.selectStep(ctx, id, spec); err != nil {
			return 0, fmt.Errorf("replay %d: %w", id, err)
		}
		looked += n
	}
	var left int64
	if err := l.pool.QueryRow(ctx, `SELECT count(*) FROM replay_events WHERE replay = $1`, id).Scan(&left); err != nil {
		return 0, fmt.Errorf("replay %d: %w", id, err)
	}
	for done, more := int64(0), true; more; {
		tell("events queued", done, left)
		var n, opened int64
		if n, opened, more, err = l.openStep(ctx, id, spec); err != nil {
			return routes, fmt.Errorf("replay %d: %w", id, err)
		}
		done, routes = done+n, routes+opened
	}
	return routes, nil
}

// replayState is a replay's row, locked: who else would go on with it waits.
type replayState struct {
	seen, last uuid.UUID
	selected   bool
}

func lockReplay(ctx context.Context, tx pgx.Tx, id int64) (s replayState, err error) {
	var cancelled, finished bool
	err = tx.QueryRow(ctx, `
		SELECT seen, last, selected_at IS NOT NULL, cancelled_at IS NOT NULL, finished_at IS NOT NULL FROM replays WHERE id = $1 FOR UPDATE`, id).
		Scan(&s.seen, &s.last, &s.selected, &cancelled, &finished)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = ErrNotFound
	case err != nil:
	case cancelled:
		err = ErrReplayCancelled
	case finished:
		err = ErrReplayFinished
	}
	return s, err
}

// selectedPerStep is how many events a step looks at.
const selectedPerStep = 5000

const selectReplay = replayed + `, taken AS (
	INSERT INTO replay_events (replay, event_id)
	SELECT $13, a.id FROM all_events a JOIN events e ON e.id = a.id AND e.status IN ('stored', 'unmapped')
	ON CONFLICT DO NOTHING RETURNING event_id
)
SELECT (SELECT count(*) FROM looked), (SELECT count(*) FROM taken), (SELECT id FROM looked ORDER BY id DESC LIMIT 1)`

// selectStep selects among the next events. It returns how many it has looked at, and
// whether there are more.
func (l *Ledger) selectStep(ctx context.Context, id int64, spec *ReplaySpec) (looked int64, more bool, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		s, err := lockReplay(ctx, tx, id)
		if err != nil || s.selected {
			return err
		}
		// Planned anew each time: what is a good plan depends on what is asked for.
		args := append([]any{pgx.QueryExecModeCacheDescribe}, spec.Filter.args()...)
		query := `WITH looked AS MATERIALIZED (SELECT * FROM events WHERE id = ANY($1))`
		args = append(args, id)
		if spec.Filter.IDs == nil {
			query = `WITH looked AS MATERIALIZED (SELECT * FROM events WHERE id > $14 AND id <= $15 ORDER BY id LIMIT $16)`
			args = append(args, s.seen, s.last, selectedPerStep)
		}
		var taken int64
		var seen *uuid.UUID
		if err := tx.QueryRow(ctx, query+selectReplay, args...).Scan(&looked, &taken, &seen); err != nil {
			return err
		}
		if seen == nil {
			seen = &s.seen
		}
		more = spec.Filter.IDs == nil && looked == selectedPerStep
		_, err = tx.Exec(ctx, `
			UPDATE replays SET seen = $2, events = events + $3, moved_at = now(), selected_at = CASE WHEN NOT $4 THEN now() END WHERE id = $1`,
			id, *seen, taken, more)
		return err
	})
	return looked, more, err
}

// openStep opens the routes of the next events that are selected. It returns how many
// events and routes those were, and whether there are more.
func (l *Ledger) openStep(ctx context.Context, id int64, spec *ReplaySpec) (n, opened int64, more bool, err error) {
	err = l.run(func() error {
		return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
			if _, err := lockReplay(ctx, tx, id); err != nil {
				return err
			}
			// Two replays would give one run of an event out twice.
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('partnersync replay'))`); err != nil {
				return err
			}
			rows, err := tx.Query(ctx, `
				SELECT s.event_id, coalesce(e.source, ''), coalesce(e.type, '')
				FROM (SELECT event_id FROM replay_events WHERE replay = $1 ORDER BY event_id LIMIT $2) s LEFT JOIN events e ON e.id = s.event_id`, id, rowsPerStep)
			if err != nil {
				return err
			}
			var taken, events uuids
			var sinks []string
			var event [16]byte
			var source, typ string
			if _, err := pgx.ForEachRow(rows, []any{&event, &source, &typ}, func() error {
				taken = append(taken, event)
				for _, sink := range spec.sinks(source, typ) {
					events, sinks = append(events, event), append(sinks, sink)
				}
				return nil
			}); err != nil {
				return err
			}
			n, opened, more = int64(len(taken)), 0, len(taken) == rowsPerStep
			if len(events) > 0 {
				if err := tx.QueryRow(ctx, openReplay, events, sinks, spec.Generation, id, ReplayPriority).Scan(&opened); err != nil {
					return err
				}
			}
			batch := &pgx.Batch{}
			batch.Queue(`DELETE FROM replay_events WHERE replay = $1 AND event_id = ANY($2)`, id, taken)
			batch.Queue(`
				UPDATE replays SET routes = routes + $2, moved_at = now(), finished_at = CASE WHEN NOT $3 THEN now() END WHERE id = $1`, id, opened, more)
			return tx.SendBatch(ctx, batch).Close()
		})
	})
	return n, opened, more, err
}

const openReplay = `
WITH wanted AS (
	SELECT e.id, e.source, w.sink FROM unnest($1::uuid[], $2::text[]) AS w(event_id, sink)
	JOIN events e ON e.id = w.event_id AND e.status IN ('stored', 'unmapped')
	WHERE NOT EXISTS (SELECT FROM routes o WHERE o.event_id = e.id AND o.sink = w.sink AND coalesce(o.outcome, '') = '') -- see openRoutes
	FOR KEY SHARE OF e -- an event with an open route is not removed
), opened AS (
	INSERT INTO routes (event_id, sink, run, source, generation, replay, rewrite)
	SELECT w.id, w.sink, coalesce((SELECT max(greatest(r.run, -1 - r.run)) + 1 FROM routes r WHERE r.event_id = w.id AND r.sink = w.sink), 0), w.source, $3, $4, p.rewrite
	FROM wanted w JOIN replays p ON p.id = $4 RETURNING event_id, sink, source
), counted AS (
	INSERT INTO tally_changes (hour, source, sink, outcome, routes)
	SELECT date_trunc('hour', now(), 'UTC'), source, sink, 'opened', count(*) FROM opened GROUP BY source, sink
), jobs AS (
	SELECT jsonb_build_array(event_id) AS event_ids, sink, $5::smallint AS priority FROM opened ORDER BY event_id
), ` + queueJobs + `
SELECT (SELECT count(*) FROM opened) + 0 * (SELECT count(*) FROM told)`
