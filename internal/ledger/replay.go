package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ReplayPriority is that of the jobs of replays: River takes live ones, of
// priority 1, first.
const ReplayPriority = 3

// ReplaySpec says what to replay, to which sinks.
type ReplaySpec struct {
	Filter  Filter
	Rewrite bool // also send what the CRM has acknowledged
	By      string
	// Wants names the sinks that want a type today.
	Wants func(source, typ string) []string
	Sink  string // only this one; "" is all
	// Generation is that of the config in force.
	Generation int64
}

// ReplayPlan counts what a replay would do.
type ReplayPlan struct {
	Events int64            `json:"events"` // selected, and later ones of the same entities
	Later  int64            `json:"later"`  // of these, the later ones
	Routes map[string]int64 `json:"routes"` // by sink
	Kept   int64            `json:"kept"`   // selected but without anything to replay: malformed, ignored or erased, or no mapping wants it
	Erased int64            `json:"erased"` // of these, the erased ones
}

// An event is replayed together with all later ones of its entity, so that the
// state that comes out is that of the newest.
const replayed = `
WITH selected AS (
	SELECT e.id, e.source, e.type, e.entity, e.version_at FROM events e WHERE ` + where + `
), firsts AS (
	SELECT source, entity, min(version_at) AS since FROM selected WHERE entity <> '' GROUP BY source, entity
), all_events AS (
	SELECT id, source, type, true AS chosen FROM selected
	UNION
	SELECT e.id, e.source, e.type, false FROM events e JOIN firsts f ON e.source = f.source AND e.entity = f.entity AND e.entity <> '' AND e.version_at > f.since
	WHERE NOT EXISTS (SELECT FROM selected s WHERE s.id = e.id)
)`

// PlanReplay counts what Replay would do, and changes nothing.
func (l *Ledger) PlanReplay(ctx context.Context, spec ReplaySpec) (*ReplayPlan, error) {
	rows, err := l.pool.Query(ctx, replayed+`
		SELECT a.source, a.type, a.chosen, e.status NOT IN ('stored', 'unmapped'), e.status = 'erased', count(*)
		FROM all_events a JOIN events e ON e.id = a.id GROUP BY 1, 2, 3, 4, 5`, spec.Filter.args()...)
	if err != nil {
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	plan := &ReplayPlan{Routes: map[string]int64{}}
	var source, typ string
	var chosen, idle, erased bool
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&source, &typ, &chosen, &idle, &erased, &n}, func() error {
		sinks := spec.sinks(source, typ)
		if idle || len(sinks) == 0 {
			if chosen {
				plan.Kept += n
			}
			if chosen && erased {
				plan.Erased += n
			}
			return nil
		}
		plan.Events += n
		if !chosen {
			plan.Later += n
		}
		for _, s := range sinks {
			plan.Routes[s] += n
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	return plan, nil
}

func (s ReplaySpec) sinks(source, typ string) []string {
	var list []string
	for _, name := range s.Wants(source, typ) {
		if s.Sink == "" || name == s.Sink {
			list = append(list, name)
		}
	}
	return list
}

// Replay opens a new run for every event of the plan and sink that wants it
// today, with a job each, and returns the replay's number and how many routes it
// opened. A route that is open is replayed by itself already and is left alone.
func (l *Ledger) Replay(ctx context.Context, spec ReplaySpec) (id, routes int64, err error) {
	selection, err := json.Marshal(spec.Filter)
	if err != nil {
		return 0, 0, fmt.Errorf("replay: %w", err)
	}
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		types, err := tx.Query(ctx, replayed+`SELECT DISTINCT source, type FROM all_events`, spec.Filter.args()...)
		if err != nil {
			return err
		}
		var sources, names, sinks []string
		var source, typ string
		if _, err := pgx.ForEachRow(types, []any{&source, &typ}, func() error {
			for _, s := range spec.sinks(source, typ) {
				sources, names, sinks = append(sources, source), append(names, typ), append(sinks, s)
			}
			return nil
		}); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `INSERT INTO replays (by, selection, rewrite) VALUES ($1, $2, $3) RETURNING id`, spec.By, selection, spec.Rewrite).Scan(&id); err != nil {
			return err
		}
		args := append(spec.Filter.args(), sources, names, sinks, spec.Generation, id, spec.Rewrite, MaxAttempts, ReplayPriority)
		if err := tx.QueryRow(ctx, openReplay, args...).Scan(&routes); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE replays SET routes = $2 WHERE id = $1`, id, routes)
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("replay: %w", err)
	}
	return id, routes, nil
}

const openReplay = replayed + `, wanted AS (
	SELECT a.id, a.source, w.sink FROM all_events a
	JOIN events e ON e.id = a.id AND e.status IN ('stored', 'unmapped')
	JOIN unnest($13::text[], $14::text[], $15::text[]) AS w(source, type, sink) ON w.source = a.source AND w.type = a.type
	WHERE NOT EXISTS (SELECT FROM routes o WHERE o.event_id = a.id AND o.sink = w.sink AND o.outcome IS NULL)
	FOR KEY SHARE OF e -- an event with an open route is not removed
), opened AS (
	INSERT INTO routes (event_id, sink, run, source, generation, replay, rewrite)
	SELECT w.id, w.sink, coalesce((SELECT max(r.run) + 1 FROM routes r WHERE r.event_id = w.id AND r.sink = w.sink), 0), w.source, $16, $17, $18
	FROM wanted w RETURNING event_id, sink, source
), counted AS (
	INSERT INTO tally_changes (hour, source, sink, outcome, routes)
	SELECT date_trunc('hour', now(), 'UTC'), source, sink, 'opened', count(*) FROM opened GROUP BY source, sink
), queued AS (
	INSERT INTO river_job (args, kind, max_attempts, priority, queue, state)
	SELECT jsonb_build_object('event_ids', jsonb_build_array(event_id), 'sink', sink), '` + JobKind + `', $19, $20, 'sink_' || sink, 'available'
	FROM opened ORDER BY event_id RETURNING queue
), told AS (
	SELECT pg_notify(current_schema() || '.river_insert', json_build_object('queue', queue)::text) FROM (SELECT DISTINCT queue FROM queued) q
)
SELECT (SELECT count(*) FROM opened) + 0 * (SELECT count(*) FROM told)`

// CancelReplay ends the routes of a replay that are still open, as skipped, and
// returns how many those were.
func (l *Ledger) CancelReplay(ctx context.Context, id int64) (int64, error) {
	var n int64
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE replays SET cancelled_at = now() WHERE id = $1 AND cancelled_at IS NULL`, id)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("replay %d: %w", id, ErrNotFound)
		}
		return tx.QueryRow(ctx, `
			WITH closed AS (
				UPDATE routes SET outcome = 'skipped', reason = 'the replay was cancelled', closed_at = now()
				WHERE replay = $1 AND outcome IS NULL RETURNING opened_at, source, sink
			), counted AS (
				INSERT INTO tally_changes (hour, source, sink, outcome, routes)
				SELECT date_trunc('hour', opened_at, 'UTC'), source, sink, 'skipped', count(*) FROM closed GROUP BY 1, 2, 3
			)
			SELECT count(*) FROM closed`, id).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("cancel: %w", err)
	}
	return n, nil
}

// ReplayLine is one entry of the audit of replays.
type ReplayLine struct {
	ID          int64           `json:"id"`
	At          time.Time       `json:"at"`
	By          string          `json:"by"`
	Selection   json.RawMessage `json:"selection"`
	Rewrite     bool            `json:"rewrite"`
	Routes      int64           `json:"routes"`
	Open        int64           `json:"open"`
	CancelledAt *time.Time      `json:"cancelled_at"`
}

// Replays lists the newest replays.
func (l *Ledger) Replays(ctx context.Context, limit int) ([]ReplayLine, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT p.id, p.at, p.by, p.selection, p.rewrite, p.routes, (SELECT count(*) FROM routes r WHERE r.replay = p.id AND r.outcome IS NULL), p.cancelled_at
		FROM replays p ORDER BY p.id DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list replays: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ReplayLine])
	if err != nil {
		return nil, fmt.Errorf("list replays: %w", err)
	}
	return list, nil
}
