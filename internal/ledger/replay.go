package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// What cannot be done to a replay.
var (
	ErrReplayCancelled = errors.New("the replay is cancelled")
	ErrReplayFinished  = errors.New("the replay is complete")
	ErrReplayErased    = errors.New("what the replay selects named a person who is forgotten")
)

// ReplaySpec says what to replay, to which sinks.
type ReplaySpec struct {
	Filter  Filter // with its Sink, only to this one
	Rewrite bool   // also send what the CRM has acknowledged
	By      string
	// Wants names the sinks that want a type today.
	Wants func(source, typ string) []string
	// Generation is that of the config in force.
	Generation int64
	// Progress is told how far it has come: of the events that are looked at, whose
	// number is an estimate, then of those that are selected. It may be nil.
	Progress func(what string, done, total int64)
}

// ReplayPlan counts what a replay would do.
type ReplayPlan struct {
	Events int64            `json:"events"` // selected, and later ones of the same entities
	Later  int64            `json:"later"`  // of these, the later ones
	Routes map[string]int64 `json:"routes"` // by sink
	// Kept are selected without anything to replay, each for one reason.
	Kept      int64 `json:"kept"`
	Malformed int64 `json:"malformed"`
	Ignored   int64 `json:"ignored"`
	Erased    int64 `json:"erased"`
	Unwanted  int64 `json:"unwanted"` // no mapping wants them today
}

// An event is replayed together with all later ones of its entity, so that the
// state that comes out is that of the newest. The query begins with the events that
// are looked at, looked.
const replayed = `, selected AS (
	SELECT e.id, e.source, e.type, e.entity, e.version_at, e.rank FROM looked e WHERE ` + where + `
), firsts AS (
	SELECT DISTINCT ON (source, entity) source, entity, version_at, rank, id FROM selected WHERE entity <> ''
	ORDER BY source, entity, version_at, rank, id
), all_events AS (
	SELECT id, true AS chosen FROM selected
	UNION ALL
	SELECT e.id, false FROM events e JOIN firsts f ON e.source = f.source AND e.entity = f.entity AND e.entity <> ''
		AND e.version_at >= f.version_at AND (e.version_at, e.rank, e.id) > (f.version_at, f.rank, f.id)
	WHERE NOT EXISTS (SELECT FROM selected s WHERE s.id = e.id)
)`

// PlanReplay counts what Replay would do, and changes nothing.
func (l *Ledger) PlanReplay(ctx context.Context, spec ReplaySpec) (*ReplayPlan, error) {
	looked := `WITH looked AS NOT MATERIALIZED (SELECT * FROM events)`
	if spec.Filter.IDs != nil {
		looked = `WITH looked AS (SELECT * FROM events WHERE id = ANY($1))`
	}
	rows, err := l.pool.Query(ctx, looked+replayed+`
		SELECT e.source, e.type, a.chosen, e.status, count(*)
		FROM all_events a JOIN events e ON e.id = a.id GROUP BY 1, 2, 3, 4`, spec.Filter.args()...)
	if err != nil {
		return nil, fmt.Errorf("plan the replay: %w", err)
	}
	plan := &ReplayPlan{Routes: map[string]int64{}}
	var source, typ string
	var chosen bool
	var status Status
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&source, &typ, &chosen, &status, &n}, func() error {
		sinks := spec.sinks(source, typ)
		kept := &plan.Unwanted
		switch status {
		case Malformed:
			kept = &plan.Malformed
		case Ignored:
			kept = &plan.Ignored
		case Erased:
			kept = &plan.Erased
		default:
			if len(sinks) > 0 {
				kept = nil
			}
		}
		if kept != nil {
			if chosen {
				*kept += n
				plan.Kept += n
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

func (s *ReplaySpec) sinks(source, typ string) []string {
	var list []string
	for _, name := range s.Wants(source, typ) {
		if s.Filter.Sink == "" || name == s.Filter.Sink {
			list = append(list, name)
		}
	}
	return list
}

// ReplayLine is one entry of the audit of replays.
type ReplayLine struct {
	ID          int64           `json:"id"`
	At          time.Time       `json:"at"`
	By          string          `json:"by"`
	Selection   json.RawMessage `json:"selection"`
	Rewrite     bool            `json:"rewrite"`
	State       string          `json:"state"`  // one of the Replay* constants
	Events      int64           `json:"events"` // selected so far
	Left        int64           `json:"left"`   // of these, those whose routes are still to be opened
	Routes      int64           `json:"routes"` // opened so far
	Open        int64           `json:"open"`   // of these, those that have not ended
	CancelledAt *time.Time      `json:"cancelled_at"`
}

// The states of a replay.
const (
	ReplaySelecting = "selecting" // its events are being selected
	ReplayOpening   = "opening"   // its routes are being opened
	ReplayCut       = "cut short" // nobody does either: it can be continued or cancelled
	ReplayWorking   = "working"   // all its routes are opened, and some have not ended
	ReplayDone      = "done"
	ReplayCancelled = "cancelled"
)

// A replay that has not moved for so long has nobody who works on it.
const replaySilence = "30 seconds"

// Replays lists the newest replays.
func (l *Ledger) Replays(ctx context.Context, limit int) ([]ReplayLine, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT p.id, p.at, p.by, p.selection, p.rewrite,
			CASE WHEN cancelled_at IS NOT NULL THEN '`+ReplayCancelled+`'
				WHEN finished_at IS NOT NULL AND o.open > 0 THEN '`+ReplayWorking+`' WHEN finished_at IS NOT NULL THEN '`+ReplayDone+`'
				WHEN moved_at < now() - interval '`+replaySilence+`' THEN '`+ReplayCut+`'
				WHEN selected_at IS NULL THEN '`+ReplaySelecting+`' ELSE '`+ReplayOpening+`' END,
			p.events, (SELECT count(*) FROM replay_events e WHERE e.replay = p.id), p.routes, o.open, p.cancelled_at
		FROM replays p CROSS JOIN LATERAL (SELECT count(*) AS open FROM routes r WHERE r.replay = p.id AND r.outcome IS NULL) o
		ORDER BY p.id DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list replays: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ReplayLine])
	if err != nil {
		return nil, fmt.Errorf("list replays: %w", err)
	}
	return list, nil
}

// CancelReplay ends a replay: what it has selected is left alone, and its routes that
// are still open end as skipped. It returns how many those were. It works in steps, so
// that one that is cut short can be called again; ErrNotFound means that nothing of
// the replay is under way.
func (l *Ledger) CancelReplay(ctx context.Context, id int64) (int64, error) {
	var under bool
	err := l.pool.QueryRow(ctx, `
		WITH ended AS (UPDATE replays SET cancelled_at = now() WHERE id = $1 AND cancelled_at IS NULL RETURNING id)
		SELECT EXISTS (SELECT FROM ended) OR EXISTS (SELECT FROM replay_events WHERE replay = $1)
			OR EXISTS (SELECT FROM routes WHERE replay = $1 AND outcome IS NULL)`, id).Scan(&under)
	if err != nil {
		return 0, fmt.Errorf("cancel: %w", err)
	}
	if !under {
		return 0, fmt.Errorf("replay %d: %w", id, ErrNotFound)
	}
	for n := int64(1); n > 0; {
		tag, err := l.pool.Exec(ctx, `
			DELETE FROM replay_events WHERE replay = $1 AND event_id = ANY(ARRAY(
				SELECT event_id FROM replay_events WHERE replay = $1 ORDER BY event_id LIMIT $2))`, id, rowsPerStep)
		if err != nil {
			return 0, fmt.Errorf("cancel: %w", err)
		}
		n = tag.RowsAffected()
	}
	var closed int64
	for more := true; more; {
		var n int64
		if n, more, err = l.cancelStep(ctx, id); err != nil {
			return closed, fmt.Errorf("cancel: %w", err)
		}
		closed += n
	}
	return closed, nil
}

// cancelStep ends the next open routes of a replay. Their runs count as none from here
// on: what those before came to holds again.
func (l *Ledger) cancelStep(ctx context.Context, id int64) (n int64, more bool, err error) {
	err = l.run(func() error {
		return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `SELECT event_id FROM routes WHERE replay = $1 AND outcome IS NULL LIMIT $2`, id, rowsPerStep)
			if err != nil {
				return err
			}
			events, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
			if err != nil {
				return err
			}
			more = len(events) > 0
			return tx.QueryRow(ctx, `
				WITH closed AS (
					UPDATE routes SET outcome = 'skipped', reason = 'the replay was cancelled', closed_at = now(), run = -1 - run
					WHERE event_id = ANY($2) AND replay = $1 AND coalesce(outcome, '') = '' -- see openRoutes
					RETURNING event_id, sink, -1 - run AS run, opened_at, source
				), moved AS (
					UPDATE deliveries d SET run = -1 - d.run FROM closed c
					WHERE d.event_id = ANY($2) AND d.event_id = c.event_id AND d.sink = c.sink AND d.run = c.run
				), counted AS (
					INSERT INTO tally_changes (hour, source, sink, outcome, routes)
					SELECT date_trunc('hour', opened_at, 'UTC'), source, sink, 'skipped', count(*) FROM closed GROUP BY 1, 2, 3
				)
				SELECT count(*) FROM closed`, id, uuids(events)).Scan(&n)
		})
	})
	return n, more, err
}
