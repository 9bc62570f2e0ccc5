package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"partnersync/records"
)

// ErrNotFound means that nothing is stored under the given id or key.
var ErrNotFound = errors.New("not found")

// Filter selects events. Zero fields select everything.
type Filter struct {
	IDs     []uuid.UUID `json:"ids,omitempty"`
	Source  string      `json:"source,omitempty"`
	Type    string      `json:"type,omitempty"`
	Entity  string      `json:"entity,omitempty"`
	Status  string      `json:"status,omitempty"`  // of the event
	Outcome string      `json:"outcome,omitempty"` // of a route; "open" for those that have not ended
	Sink    string      `json:"sink,omitempty"`
	Mapping string      `json:"mapping,omitempty"`
	Reason  string      `json:"reason,omitempty"` // a part of a delivery's reason
	Text    string      `json:"text,omitempty"`   // a part of the body
	Since   time.Time   `json:"since,omitzero"`
	Until   time.Time   `json:"until,omitzero"`
	After   uuid.UUID   `json:"-"` // of a list: those behind this one
}

// where selects rows of events e. What refers to routes and deliveries looks at
// the latest run of a route.
const where = `
	($1::uuid[] IS NULL OR e.id = ANY($1)) AND ($2 = '' OR e.source = $2) AND ($3 = '' OR e.type = $3) AND ($4 = '' OR e.entity = $4)
	AND ($5 = '' OR e.status = $5)
	AND ($11::timestamptz IS NULL OR e.received_at >= $11) AND ($12::timestamptz IS NULL OR e.received_at < $12)
	AND ($10 = '' OR position(convert_to($10, 'UTF8') IN e.body) > 0)
	AND (($6 = '' AND $7 = '' AND $8 = '' AND $9 = '') OR EXISTS (
		SELECT FROM routes r
		WHERE r.event_id = e.id AND ($7 = '' OR r.sink = $7)
		AND ($6 = '' OR r.outcome = $6 OR ($6 = 'open' AND r.outcome IS NULL))
		AND NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.sink = r.sink AND n.run > r.run)
		AND (($8 = '' AND $9 = '') OR EXISTS (
			SELECT FROM deliveries d WHERE d.event_id = r.event_id AND d.sink = r.sink AND d.run = r.run
			AND ($8 = '' OR d.mapping = $8) AND ($9 = '' OR position($9 IN d.reason) > 0)))))`

// slack is how far the time in the id of an event may be from its receipt.
const slack = 5 * time.Minute

// narrow says once more, so that an index fits, what where says of some filters: the newest
// events that fit would otherwise be looked for among all.
func (f Filter) narrow() string {
	text := ""
	switch f.Outcome {
	case "open":
		text += ` AND e.id IN (SELECT event_id FROM routes WHERE outcome IS NULL)`
	case string(Dead):
		text += ` AND e.id IN (SELECT event_id FROM routes WHERE outcome = 'dead')`
	}
	if !f.Since.IsZero() {
		text += ` AND e.id >= '` + firstID(f.Since.Add(-slack)).String() + `'`
	}
	if !f.Until.IsZero() {
		text += ` AND e.id < '` + firstID(f.Until.Add(slack)).String() + `'`
	}
	if f.After != uuid.Nil {
		text += ` AND e.id < '` + f.After.String() + `'`
	}
	if f.Entity != "" && f.Source == "" {
		text += ` AND e.entity <> '' AND e.source = ANY(ARRAY(SELECT source FROM sources))`
	}
	return text
}

// withSources are the sources of all events, each found by one step in an index.
const withSources = `WITH RECURSIVE sources AS (
	(SELECT source FROM events WHERE entity <> '' ORDER BY source LIMIT 1)
	UNION ALL
	SELECT (SELECT e.source FROM events e WHERE e.entity <> '' AND e.source > s.source ORDER BY e.source LIMIT 1) FROM sources s WHERE s.source IS NOT NULL
) `

func (f Filter) args() []any {
	var since, until *time.Time
	if !f.Since.IsZero() {
		since = &f.Since
	}
	if !f.Until.IsZero() {
		until = &f.Until
	}
	return []any{f.IDs, f.Source, f.Type, f.Entity, f.Status, f.Outcome, f.Sink, f.Mapping, f.Reason, f.Text, since, until}
}

// EventLine is one event of a list.
type EventLine struct {
	ID         uuid.UUID `json:"id"`
	Source     string    `json:"source"`
	Type       string    `json:"type"`
	Entity     string    `json:"entity"`
	Status     string    `json:"status"`
	Reason     string    `json:"reason,omitempty"`
	ReceivedAt time.Time `json:"received_at"`
	Duplicates int       `json:"duplicates"`
	Outcomes   []string  `json:"outcomes"`          // "sink: outcome" of the latest runs
	Skipped    []string  `json:"skipped,omitempty"` // "sink: reason" of those that were skipped
}

// Events lists the newest events that a filter selects, at most limit.
func (l *Ledger) Events(ctx context.Context, f Filter, limit int) ([]EventLine, error) {
	rows, err := l.pool.Query(ctx, withSources+`
		SELECT e.id, e.source, e.type, e.entity, e.status, e.reason, e.received_at, e.duplicates,
			ARRAY(SELECT r.sink || ': ' || coalesce(r.outcome, 'open') FROM routes r WHERE r.event_id = e.id
				AND NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.sink = r.sink AND n.run > r.run) ORDER BY r.sink),
			ARRAY(SELECT r.sink || ': ' || r.reason FROM routes r WHERE r.event_id = e.id AND r.outcome = 'skipped' AND r.reason <> ''
				AND NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.sink = r.sink AND n.run > r.run) ORDER BY r.sink)
		FROM events e WHERE `+where+f.narrow()+` ORDER BY e.id DESC LIMIT $13`, append(f.args(), limit)...)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[EventLine])
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return list, nil
}

// Story is everything that is known of one event.
type Story struct {
	EventLine
	OccurredAt *time.Time      `json:"occurred_at"`
	VersionAt  time.Time       `json:"version_at"`
	Headers    json.RawMessage `json:"headers,omitempty"`
	VerifiedBy string          `json:"verified_by,omitempty"`
	Trace      string          `json:"-"`     // as Incoming has it
	Bytes      int             `json:"bytes"` // of the body
	Body       []byte          `json:"-"`
	Routes     []StoryRoute    `json:"routes"`
	Jobs       []StoryJob      `json:"jobs"`
}

// StoryRoute is one run of an event to a sink.
type StoryRoute struct {
	Sink       string          `json:"sink"`
	Run        int32           `json:"run"`
	Outcome    string          `json:"outcome"` // "open" where it has not ended
	Reason     string          `json:"reason,omitempty"`
	Generation int64           `json:"generation"`
	Replay     *int64          `json:"replay,omitempty"`
	OpenedAt   time.Time       `json:"opened_at"`
	ClosedAt   *time.Time      `json:"closed_at"`
	Deliveries []StoryDelivery `json:"deliveries"`
}

// StoryDelivery is what became of one record.
type StoryDelivery struct {
	Mapping       string     `json:"mapping"`
	MappingHash   string     `json:"mapping_hash"`
	Object        string     `json:"object,omitempty"`
	Key           string     `json:"key,omitempty"`
	Outcome       string     `json:"outcome"`
	Class         string     `json:"class,omitempty"`
	Reason        string     `json:"reason,omitempty"`
	Attempts      int        `json:"attempts"`
	FirstFailedAt *time.Time `json:"first_failed_at,omitempty"`
	Status        int        `json:"status,omitempty"`
	CRMID         string     `json:"crm_id,omitempty"`
	At            time.Time  `json:"at"`
	Would         string     `json:"would,omitempty"`      // what was only observed: one of Doings, "none", or the outcome
	Fields        []string   `json:"fields,omitempty"`     // that would have been written; `report` shows the values
	Overwrites    []string   `json:"overwrites,omitempty"` // of these, those of which the CRM has another value
	Awaits        []string   `json:"awaits,omitempty"`     // "object property=key" of those that it wants to link to and that are not known
}

// StoryJob is a River job that still knows of the event.
type StoryJob struct {
	ID          int64     `json:"id"`
	Queue       string    `json:"queue"`
	State       string    `json:"state"`
	Attempt     int       `json:"attempt"`
	Errors      int       `json:"errors"`
	ScheduledAt time.Time `json:"scheduled_at"`
}

// Story returns what is known of an event, or ErrNotFound.
func (l *Ledger) Story(ctx context.Context, id uuid.UUID) (*Story, error) {
	lines, err := l.Events(ctx, Filter{IDs: []uuid.UUID{id}}, 1)
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("event %s: %w", id, ErrNotFound)
	}
	s := &Story{EventLine: lines[0], Routes: []StoryRoute{}, Jobs: []StoryJob{}}
	type at struct {
		sink string
		run  int32
	}
	index := map[at]int{}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT occurred_at, version_at, headers, verified_by, trace, length(body), body FROM events WHERE id = $1`, id).QueryRow(func(row pgx.Row) error {
		return row.Scan(&s.OccurredAt, &s.VersionAt, &s.Headers, &s.VerifiedBy, &s.Trace, &s.Bytes, &s.Body)
	})
	batch.Queue(`
		SELECT sink, run, coalesce(outcome, 'open'), reason, generation, replay, opened_at, closed_at
		FROM routes WHERE event_id = $1 ORDER BY run, sink`, id).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			r := StoryRoute{Deliveries: []StoryDelivery{}}
			if err := rows.Scan(&r.Sink, &r.Run, &r.Outcome, &r.Reason, &r.Generation, &r.Replay, &r.OpenedAt, &r.ClosedAt); err != nil {
				return err
			}
			index[at{r.Sink, r.Run}] = len(s.Routes)
			s.Routes = append(s.Routes, r)
		}
		return rows.Err()
	})
	batch.Queue(`
		SELECT sink, run, mapping, mapping_hash, object, key, coalesce(outcome, 'open'), class, reason, attempts, first_failed_at, status, crm_id, at
		FROM deliveries WHERE event_id = $1 ORDER BY run, sink, mapping, object, key`, id).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var d StoryDelivery
			var k at
			if err := rows.Scan(&k.sink, &k.run, &d.Mapping, &d.MappingHash, &d.Object, &d.Key, &d.Outcome, &d.Class, &d.Reason, &d.Attempts, &d.FirstFailedAt, &d.Status, &d.CRMID, &d.At); err != nil {
				return err
			}
			if i, ok := index[k]; ok {
				s.Routes[i].Deliveries = append(s.Routes[i].Deliveries, d)
			}
		}
		return rows.Err()
	})
	batch.Queue(`
		SELECT sink, run, mapping, object, key, coalesce(nullif(does, ''), CASE WHEN outcome IN ('dead', 'skipped', 'stale') THEN outcome ELSE 'none' END), coalesce(nullif(fields, 'null'), '[]')
		FROM observations WHERE event_id = $1`, id).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var d StoryDelivery
			var k at
			var fields []Overwriting
			if err := rows.Scan(&k.sink, &k.run, &d.Mapping, &d.Object, &d.Key, &d.Would, &fields); err != nil {
				return err
			}
			for _, f := range fields {
				if d.Fields = append(d.Fields, f.Name); f.Old != nil {
					d.Overwrites = append(d.Overwrites, f.Name)
				}
			}
			slices.Sort(d.Fields)
			slices.Sort(d.Overwrites)
			d.Fields, d.Overwrites = slices.Compact(d.Fields), slices.Compact(d.Overwrites)
			i, ok := index[k]
			if !ok {
				continue
			}
			list := s.Routes[i].Deliveries
			if at := slices.IndexFunc(list, func(o StoryDelivery) bool { return o.Mapping == d.Mapping && o.Object == d.Object && o.Key == d.Key }); at >= 0 {
				list[at].Would, list[at].Fields, list[at].Overwrites = d.Would, d.Fields, d.Overwrites
			}
		}
		return rows.Err()
	})
	batch.Queue(`
		SELECT id, queue, state::text, attempt, coalesce(array_length(errors, 1), 0), scheduled_at FROM river_job
		WHERE args @> jsonb_build_object('event_ids', jsonb_build_array($1::text)) ORDER BY id`, id.String()).Query(func(rows pgx.Rows) error {
		s.Jobs, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StoryJob])
		return err
	})
	if err := l.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read event %s: %w", id, err)
	}
	for i := range s.Routes {
		for j := range s.Routes[i].Deliveries {
			d := &s.Routes[i].Deliveries[j]
			if d.Class != "link" || d.Object == "" || d.Outcome != "open" && d.Outcome != string(Dead) {
				continue
			}
			if d.Awaits, err = l.awaits(ctx, id, s.Routes[i].Sink, d.Object, d.Key); err != nil {
				return nil, fmt.Errorf("read the links of event %s: %w", id, err)
			}
		}
	}
	return s, nil
}

// awaits names what a record is to be linked to by an event and is not yet.
func (l *Ledger) awaits(ctx context.Context, event uuid.UUID, sink, object, key string) ([]string, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT links FROM records WHERE id IN (SELECT record_id FROM record_keys
			WHERE sink = $1 AND object = $2 AND value IN ($3, lower($3)))`, sink, object, key)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, err
	}
	var list []string
	for _, data := range all {
		links, _, err := decodeLinks(data)
		if err != nil {
			return nil, err
		}
		for _, k := range links {
			if k.Version.Event == event && k.Need() == records.Make {
				list = append(list, fmt.Sprintf("%s %s=%s", k.To, k.Property, k.Key))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// DeadGroup is dead deliveries of one cause, or skipped ones.
type DeadGroup struct {
	Sink    string    `json:"sink"`
	Mapping string    `json:"mapping"`
	Class   string    `json:"class"`
	Reason  string    `json:"reason"`
	Count   int64     `json:"count"`
	Records int64     `json:"records"` // that these are about, each once
	First   time.Time `json:"first"`
	Latest  time.Time `json:"latest"`
	Example uuid.UUID `json:"example"`
	Without int64     `json:"later_without,omitempty"` // later events that went out, or were skipped, without what was refused
	ID      string    `json:"id"`                      // the same for the same cause, whenever it is asked for
}

// identify gives groups their ids.
func identify(list []DeadGroup) {
	for i := range list {
		g := &list[i]
		sum := sha256.Sum256([]byte(strings.Join([]string{g.Sink, g.Mapping, g.Class, g.Reason}, "\x00")))
		g.ID = hex.EncodeToString(sum[:6])
	}
}

// withoutLimit is how many of the newest deliveries without a refused value Dead looks at.
const withoutLimit = 20000

// deadDeliveries are grouped, without the ids of the records that a reason of class match names,
// with the number of later events which were delivered, or skipped, without a value of theirs that
// the CRM had refused.
const deadDeliveries = `
	WITH without AS MATERIALIZED (
		SELECT refused[1]::uuid AS event_id, d.sink, d.object, count(DISTINCT d.event_id) AS events
		FROM (
			SELECT event_id, sink, run, object, reason FROM deliveries
			WHERE reason LIKE '%which the CRM refused of event %' AND outcome IN ('delivered', 'skipped') ORDER BY at DESC LIMIT $6) d
		CROSS JOIN LATERAL regexp_matches(d.reason, 'which the CRM refused of event ([0-9a-f-]{36})', 'g') refused
		WHERE NOT EXISTS (SELECT FROM routes n WHERE n.event_id = d.event_id AND n.sink = d.sink AND n.run > d.run)
		GROUP BY 1, 2, 3
	)
	SELECT r.sink, coalesce(d.mapping, ''), coalesce(d.class, ''),
		CASE d.class WHEN 'match' THEN split_part(d.reason, ': ', 1) ELSE coalesce(d.reason, r.reason) END, count(*),
		count(DISTINCT (d.object, d.key)) FILTER (WHERE d.key <> ''), min(r.closed_at), max(r.closed_at),
		(array_agg(r.event_id ORDER BY r.closed_at DESC))[1], coalesce(sum(w.events), 0)::bigint, ''
	FROM routes r LEFT JOIN deliveries d ON d.event_id = r.event_id AND d.sink = r.sink AND d.run = r.run AND d.outcome = 'dead'
	LEFT JOIN without w ON w.event_id = d.event_id AND w.sink = d.sink AND w.object = d.object
	WHERE r.outcome = 'dead' AND ($1 = '' OR r.sink = $1) AND ($2 = '' OR r.source = $2) AND ($3 = '' OR d.mapping = $3)
	AND ($4 = '' OR position($4 IN coalesce(d.reason, r.reason)) > 0)
	AND ($5::timestamptz IS NULL OR r.closed_at >= $5)
	AND NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.sink = r.sink AND n.run > r.run)
	GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 8 DESC`

// Dead groups the dead deliveries whose route has not been replayed since.
func (l *Ledger) Dead(ctx context.Context, f Filter) ([]DeadGroup, error) {
	rows, err := l.pool.Query(ctx, deadDeliveries, f.Sink, f.Source, f.Mapping, f.Reason, f.args()[10], withoutLimit)
	if err != nil {
		return nil, fmt.Errorf("list dead deliveries: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DeadGroup])
	if err != nil {
		return nil, fmt.Errorf("list dead deliveries: %w", err)
	}
	identify(list)
	return list, nil
}

// SkippedLimit is how many of the newest skipped deliveries Skipped looks at.
const SkippedLimit = 50000

// skippedDeliveries are grouped without the ids of the events that their reasons name.
const skippedDeliveries = `
	SELECT d.sink, d.mapping, d.class, regexp_replace(d.reason, ' of event [0-9a-f-]{36}', ' of an earlier event', 'g'), count(*),
		count(DISTINCT (d.object, d.key)) FILTER (WHERE d.key <> ''), min(d.at), max(d.at), (array_agg(d.event_id ORDER BY d.at DESC))[1], 0::bigint, ''
	FROM (
		SELECT event_id, sink, run, mapping, object, key, class, reason, at FROM deliveries
		WHERE outcome = 'skipped' AND ($1 = '' OR sink = $1) AND ($5::timestamptz IS NULL OR at >= $5)
		ORDER BY at DESC LIMIT $6) d
	JOIN routes r ON r.event_id = d.event_id AND r.sink = d.sink AND r.run = d.run
	WHERE ($2 = '' OR r.source = $2) AND ($3 = '' OR d.mapping = $3) AND ($4 = '' OR position($4 IN d.reason) > 0 OR d.class = $4)
	AND NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.sink = r.sink AND n.run > r.run)
	GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 8 DESC`

// Skipped groups the newest skipped deliveries whose route has not been replayed since. The class
// of a group is one of records.Skips.
func (l *Ledger) Skipped(ctx context.Context, f Filter) ([]DeadGroup, error) {
	rows, err := l.pool.Query(ctx, skippedDeliveries, f.Sink, f.Source, f.Mapping, f.Reason, f.args()[10], SkippedLimit)
	if err != nil {
		return nil, fmt.Errorf("list skipped deliveries: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DeadGroup])
	if err != nil {
		return nil, fmt.Errorf("list skipped deliveries: %w", err)
	}
	identify(list)
	return list, nil
}

// Detail puts class, status, attempts and reason into one line, "" when there is
// nothing to tell.
func (d StoryDelivery) Detail() string {
	var parts []string
	if d.Class != "" && d.Class != "ok" {
		parts = append(parts, d.Class)
	}
	if d.Reason != "" {
		parts = append(parts, d.Reason)
	}
	if d.Attempts > 0 && d.Outcome != string(Skipped) {
		parts = append(parts, fmt.Sprintf("failed attempts: %d", d.Attempts))
	}
	return strings.Join(parts, ": ")
}
