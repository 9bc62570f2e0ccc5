package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// storable is text as Postgres takes it: valid UTF-8 without NUL.
func storable(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Generation returns the number of a config: that of the last one if it has the
// same hash, else the next.
func (l *Ledger) Generation(ctx context.Context, hash, by string) (int64, error) {
	var generation int64
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE configs IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var last string
		err := tx.QueryRow(ctx, `SELECT generation, hash FROM configs ORDER BY generation DESC LIMIT 1`).Scan(&generation, &last)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if err == nil && last == hash {
			return nil
		}
		return tx.QueryRow(ctx, `INSERT INTO configs (hash, by) VALUES ($1, $2) RETURNING generation`, hash, by).Scan(&generation)
	})
	if err != nil {
		return 0, fmt.Errorf("number the config: %w", err)
	}
	return generation, nil
}

// Renumbered returns the last number of the config that has the given one: it has another where
// somebody has loaded another config meanwhile, and then this one again.
func (l *Ledger) Renumbered(ctx context.Context, generation int64) (int64, error) {
	last := generation
	err := l.pool.QueryRow(ctx, `
		SELECT coalesce(max(same.generation), $1) FROM configs c JOIN configs same ON same.hash = c.hash WHERE c.generation = $1`, generation).Scan(&last)
	if err != nil {
		return 0, fmt.Errorf("look up the last number of the config: %w", err)
	}
	return last, nil
}

// SinkState is why a sink does not send, and until when.
type SinkState struct {
	State  string // ready, throttled, parked, held or stopped
	Reason string
	Until  time.Time // zero: until somebody or something resumes it
}

// SinkState returns the stored state of a sink; one that was never stored is ready.
func (l *Ledger) SinkState(ctx context.Context, sink string) (SinkState, error) {
	s := SinkState{State: "ready"}
	var until *time.Time
	err := l.pool.QueryRow(ctx, `SELECT state, reason, until FROM sinks WHERE name = $1`, sink).Scan(&s.State, &s.Reason, &until)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return s, fmt.Errorf("read the state of sink %q: %w", sink, err)
	}
	if until != nil {
		s.Until = *until
	}
	return s, nil
}

// SetSinkState stores the state of a sink.
func (l *Ledger) SetSinkState(ctx context.Context, sink string, s SinkState) error {
	var until *time.Time
	if !s.Until.IsZero() {
		until = &s.Until
	}
	_, err := l.pool.Exec(ctx, `
		INSERT INTO sinks (name, state, reason, until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (name) DO UPDATE SET state = excluded.state, reason = excluded.reason, until = excluded.until, changed_at = now()`,
		sink, s.State, storable(s.Reason), until)
	if err != nil {
		return fmt.Errorf("store the state of sink %q: %w", sink, err)
	}
	return nil
}

// Cursor is how far a sweep has come; the zero Cursor is the beginning.
type Cursor struct {
	Opened time.Time
	Event  uuid.UUID
}

const sweep = `
WITH due AS (
	SELECT event_id, opened_at FROM routes
	WHERE sink = $1 AND outcome IS NULL AND opened_at < now() - $2::interval AND (opened_at, event_id) > ($3, $4)
	ORDER BY opened_at, event_id LIMIT $5
), jobs AS (
	SELECT event_ids, sink, $6::smallint AS priority
	FROM (SELECT DISTINCT jsonb_build_array(event_id) AS event_ids, $1::text AS sink FROM due) j
	WHERE NOT EXISTS (` + liveJobs + `)
), ` + queueJobs + `
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM queued), (SELECT count(*) FROM told),
	(SELECT opened_at FROM due ORDER BY opened_at DESC, event_id DESC LIMIT 1), (SELECT event_id FROM due ORDER BY opened_at DESC, event_id DESC LIMIT 1)`

// Sweep looks at up to limit open routes of a sink behind the cursor that were
// opened longer than age ago, and queues a job for each that has no live one. It
// returns how many those were, and the next cursor: zero after the last route.
func (l *Ledger) Sweep(ctx context.Context, sink string, age time.Duration, after Cursor, limit int) (int, Cursor, error) {
	var seen, found, told int
	var opened *time.Time
	var event *uuid.UUID
	err := l.pool.QueryRow(ctx, sweep, sink, age, after.Opened, after.Event, limit, livePriority).Scan(&seen, &found, &told, &opened, &event)
	if err != nil {
		return 0, after, fmt.Errorf("sweep open routes of sink %q: %w", sink, err)
	}
	if seen < limit || opened == nil || event == nil {
		return found, Cursor{}, nil
	}
	return found, Cursor{*opened, *event}, nil
}

// QueueStats describes the queue of a sink. Counts stop at CountLimit, so that
// a scrape costs the same whatever has piled up.
type QueueStats struct {
	Sink   string
	Jobs   map[string]int // by River's state
	Oldest time.Duration  // age of the oldest open route, 0 where there is none
	Dead   int
}

// CountLimit is the most that QueueStats counts.
const CountLimit = 10_000

// JobStates are the states of jobs that are counted.
var JobStates = []string{"available", "running", "retryable", "scheduled"}

// SinkLine is a sink as the database knows it. One that nobody may take is told as held.
type SinkLine struct {
	SinkState
	RenamedTo string    // the name that it has by now; "" mostly
	Barred    bool      // nobody may take it, for the reason that its state tells
	Owner     string    // id of the process that works it; "" while none does
	Owned     bool      // the owner has shown lately that it lives
	Epoch     int64     // grows with every change of the owner
	ChangedAt time.Time // of the state
	Asked     string    // what its owner has been asked to do and has not done yet
	Look      *Look     // what came of the last look at the CRM; nil where nobody has looked
}

// Sinks returns what is stored of the given sinks; those never owned are ready.
func (l *Ledger) Sinks(ctx context.Context, names []string) (map[string]SinkLine, error) {
	lines := make(map[string]SinkLine, len(names))
	for _, name := range names {
		lines[name] = SinkLine{SinkState: SinkState{State: "ready"}}
	}
	rows, err := l.pool.Query(ctx, `
		SELECT name, state, reason, until, owner, owner <> '' AND renewed_at > now() - $2::interval, epoch, changed_at, asked, renamed_to, barred, live
		FROM sinks WHERE name = ANY($1)`, names, Silence)
	if err != nil {
		return nil, fmt.Errorf("read the sinks: %w", err)
	}
	for rows.Next() {
		var name string
		var line SinkLine
		var until *time.Time
		var owned *bool
		var bar string
		if err := rows.Scan(&name, &line.State, &line.Reason, &until, &line.Owner, &owned, &line.Epoch, &line.ChangedAt, &line.Asked, &line.RenamedTo, &bar, &line.Look); err != nil {
			return nil, fmt.Errorf("read the sinks: %w", err)
		}
		if until != nil {
			line.Until = *until
		}
		if line.RenamedTo != "" {
			bar = renamed(name, line.RenamedTo).Reason
		}
		if bar != "" {
			line.SinkState, line.Barred = SinkState{State: "held", Reason: bar}, true
		}
		line.Owned = owned != nil && *owned
		lines[name] = line
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the sinks: %w", err)
	}
	return lines, nil
}

// countJobs counts in the order of the index: without it Postgres scans the whole table where
// most jobs are of one sink.
const countJobs = `
	SELECT s.state, (SELECT count(*) FROM (
		SELECT FROM river_job j WHERE j.state = s.state::river_job_state AND j.queue = $1
		ORDER BY j.priority, j.scheduled_at, j.id LIMIT $3) c)
	FROM unnest($2::text[]) AS s(state)`

// countDead is as careful. Of later runs it looks at those after the first, which are few and have an index of their own.
const countDead = `
	SELECT coalesce(extract(epoch FROM now() - (SELECT min(opened_at) FROM routes WHERE sink = $1 AND outcome IS NULL)), 0)::float8,
		(SELECT count(*) FROM (SELECT event_id, sink, run FROM routes WHERE sink = $1 AND outcome = 'dead' ORDER BY closed_at LIMIT $2) r
		WHERE NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.sink = r.sink AND n.run > r.run AND n.run > 0))`

// Queues describes the queues of sinks.
func (l *Ledger) Queues(ctx context.Context, sinks []string) ([]QueueStats, error) {
	batch := &pgx.Batch{}
	stats := make([]QueueStats, len(sinks))
	for i, sink := range sinks {
		stats[i] = QueueStats{Sink: sink, Jobs: map[string]int{}}
		batch.Queue(countJobs, Queue(sink), JobStates, CountLimit).Query(func(rows pgx.Rows) error {
			var state string
			var n int
			_, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { stats[i].Jobs[state] = n; return nil })
			return err
		})
		batch.Queue(countDead, sink, CountLimit).QueryRow(func(row pgx.Row) error {
			var seconds float64
			err := row.Scan(&seconds, &stats[i].Dead)
			stats[i].Oldest = time.Duration(seconds * float64(time.Second))
			return err
		})
	}
	if err := l.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read queues: %w", err)
	}
	return stats, nil
}

// Ping reports whether Postgres answers.
func (l *Ledger) Ping(ctx context.Context) error { return l.pool.Ping(ctx) }

// Wake makes the jobs of a sink that wait for a later time available now, and
// returns how many those were.
func (l *Ledger) Wake(ctx context.Context, sink string) (int64, error) {
	tag, err := l.pool.Exec(ctx, wakeJobs, Queue(sink))
	if err != nil {
		return 0, fmt.Errorf("wake the jobs of sink %q: %w", sink, err)
	}
	return tag.RowsAffected(), nil
}
