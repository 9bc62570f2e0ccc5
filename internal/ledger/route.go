package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"partnersync/records"
)

// Outcome is how a route or a delivery ended.
type Outcome = records.Outcome

// The outcomes; Open is that of what has not ended.
const (
	Open      = records.Undecided
	Dead      = records.Dead
	Delivered = records.Delivered
	Stale     = records.Stale
	Unchanged = records.Unchanged
	Skipped   = records.Skipped
	Observed  = Outcome("observed") // its sink writes nothing, see Observation
)

// Outcomes are those in which something ends, the first of several deciding a route's.
var Outcomes = []Outcome{Dead, Observed, Delivered, Stale, Unchanged, Skipped}

// Route is an open route with its event and the deliveries that it has had.
type Route struct {
	Event      uuid.UUID
	Run        int32
	Generation int64
	Source     string
	Type       string
	Entity     string
	OccurredAt time.Time // zero where the sender gave none
	ReceivedAt time.Time
	Version    Version
	Trace      string // as Incoming has it
	Body       []byte
	Erased     bool // the body is gone
	Rewrite    bool // also send what the CRM has acknowledged
	Deliveries []Delivery
}

// Delivery is what became of one record of one mapping of a route.
type Delivery struct {
	Event         uuid.UUID
	Run           int32
	Mapping       string
	MappingHash   string
	Object        string
	Key           string
	Outcome       Outcome
	Class         string
	Reason        string
	Attempts      int32
	FirstFailedAt time.Time // zero: nothing has failed that counts
	Status        int32
	CRMID         string
}

// Closing ends a route.
type Closing struct {
	Event   uuid.UUID
	Run     int32
	Outcome Outcome
	Reason  string
}

// coalesce keeps the planner off the index of open routes, so that it uses the primary key. The
// statistics lag behind the tables: a plan made while few routes are open would read all open
// routes of the sink for each batch when there are many.
const openRoutes = `
SELECT e.id, r.run, r.generation, e.source, e.type, e.entity, e.occurred_at, e.received_at, e.version_at, e.rank, e.trace, e.body, e.status = '` + string(Erased) + `', r.rewrite
FROM routes r JOIN events e ON e.id = r.event_id
WHERE r.sink = $1 AND r.event_id = ANY($2) AND coalesce(r.outcome, '') = ''
ORDER BY e.version_at, e.rank, e.id, r.run`

const routeDeliveries = `
SELECT event_id, run, mapping, object, key, outcome, attempts, first_failed_at
FROM deliveries WHERE event_id = ANY($2) AND sink = $1`

// Routes returns the open routes of events to a sink, oldest version first.
func (l *Ledger) Routes(ctx context.Context, sink string, events []uuid.UUID) ([]*Route, error) {
	ids := asUUIDs(events)
	batch := &pgx.Batch{}
	batch.Queue(openRoutes, sink, ids)
	batch.Queue(routeDeliveries, sink, ids)
	results := l.pool.SendBatch(ctx, batch)
	defer results.Close()

	type at struct {
		event uuid.UUID
		run   int32
	}
	var routes []*Route
	byRun := map[at]*Route{}
	rows, err := results.Query()
	if err != nil {
		return nil, fmt.Errorf("read open routes: %w", err)
	}
	for rows.Next() {
		r := &Route{}
		var occurred *time.Time
		var version time.Time
		if err := rows.Scan((*[16]byte)(&r.Event), &r.Run, &r.Generation, &r.Source, &r.Type, &r.Entity, &occurred, &r.ReceivedAt, &version, &r.Version.Rank, &r.Trace, &r.Body, &r.Erased, &r.Rewrite); err != nil {
			return nil, fmt.Errorf("read open routes: %w", err)
		}
		if occurred != nil {
			r.OccurredAt = occurred.UTC()
		}
		r.Version.At, r.Version.Event = version.UnixMicro(), r.Event
		routes = append(routes, r)
		byRun[at{r.Event, r.Run}] = r
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read open routes: %w", err)
	}
	if rows, err = results.Query(); err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	for rows.Next() {
		var d Delivery
		var outcome *string
		var failed *time.Time
		if err := rows.Scan((*[16]byte)(&d.Event), &d.Run, &d.Mapping, &d.Object, &d.Key, &outcome, &d.Attempts, &failed); err != nil {
			return nil, fmt.Errorf("read deliveries: %w", err)
		}
		if outcome != nil {
			d.Outcome = Outcome(*outcome)
		}
		if failed != nil {
			d.FirstFailedAt = *failed
		}
		if r := byRun[at{d.Event, d.Run}]; r != nil {
			r.Deliveries = append(r.Deliveries, d)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	return routes, nil
}

// Report is what a worker has found out in one pass; it is written as a whole.
type Report struct {
	Records    []*Record // changed or new
	Merges     []Merge
	Deliveries []Delivery
	Closings   []Closing
	Erasures   []Erasure
	Requeue    []Requeue
	Done       []int64 // jobs of River that nothing is left of

	Observations []Observation // of a sink that observes
	Identities   []Identity    // of records that it would have written

	Announced uuid.UUID     // the announcement that ends with this; zero where there was none
	InDoubt   []RecordKey   // announced records that stay shut
	Settle    time.Duration // for so long
}

// Requeue has events worked by a job of their own, after a while.
type Requeue struct {
	Events []uuid.UUID
	After  time.Duration
}

// Merge says that two records are one. What was wanted of the first has been laid into the
// other, and the keys of the first name that one from now on.
type Merge struct {
	From, Into uuid.UUID
	Key        RecordKey // of the first, which may not be stored yet
}

const mergeRecords = `
WITH moved AS (UPDATE record_keys SET record_id = $2 WHERE record_id = $1), gone AS (DELETE FROM records WHERE id = $1)
INSERT INTO record_keys (sink, object, property, value, record_id) VALUES ($3, $4, $5, $6, $2)
ON CONFLICT (sink, object, property, value) DO NOTHING`

// A record is written over the revision that it was read in, and over no other: a statement
// that arrives late, when its writer has long gone on, must not take the record back.
const writeRecords = `
WITH written AS (
	INSERT INTO records AS have (id, sink, object, crm_id, presence, fields, links, gone_version, live_version, merged, revision)
	SELECT r.id, $1, r.object, r.crm_id, r.presence, r.fields, r.links, r.gone_version, r.live_version, r.merged, r.revision + 1
	FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[], $8::text[], $9::text[], $10::bool[], $11::bigint[])
		AS r(id, object, crm_id, presence, fields, links, gone_version, live_version, merged, revision)
	ON CONFLICT (id) DO UPDATE SET crm_id = excluded.crm_id, presence = excluded.presence,
		fields = excluded.fields, links = excluded.links, gone_version = excluded.gone_version, live_version = excluded.live_version,
		merged = excluded.merged, revision = excluded.revision, updated_at = now()
		WHERE have.revision = excluded.revision - 1
	RETURNING 1
)
SELECT partnersync_unsurpassed(count(*), $12) FROM written`

const writeKeys = `
INSERT INTO record_keys (sink, object, property, value, record_id)
SELECT $1, k.object, k.property, k.value, k.id
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS k(id, object, property, value)`

// A delivery that has ended keeps its outcome for the rest of the run.
const writeDeliveries = `
INSERT INTO deliveries AS d (sink, event_id, run, mapping, mapping_hash, object, key, outcome, class, reason, attempts, first_failed_at, status, crm_id)
SELECT $1, x.event_id, x.run, x.mapping, x.mapping_hash, x.object, x.key, nullif(x.outcome, ''), x.class, x.reason, x.attempts, x.first_failed_at, x.status, x.crm_id
FROM unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::int[], $12::timestamptz[], $13::int[], $14::text[])
	AS x(event_id, run, mapping, mapping_hash, object, key, outcome, class, reason, attempts, first_failed_at, status, crm_id)
ON CONFLICT (event_id, sink, run, mapping, object, key) DO UPDATE SET
	mapping_hash = excluded.mapping_hash, outcome = excluded.outcome, class = excluded.class, reason = excluded.reason, attempts = excluded.attempts,
	first_failed_at = excluded.first_failed_at, status = excluded.status, crm_id = excluded.crm_id, at = now()
WHERE d.outcome IS NULL`

// See openRoutes for the condition on the outcome.
const closeRoutes = `
WITH closed AS (
	UPDATE routes r SET outcome = $4, reason = $5, closed_at = now()
	WHERE r.event_id = ANY($3) AND r.sink = $1 AND r.run = $2 AND coalesce(r.outcome, '') = ''
	RETURNING r.opened_at, r.source
)
INSERT INTO tally_changes (hour, source, sink, outcome, routes)
SELECT date_trunc('hour', opened_at, 'UTC'), source, $1, $4, count(*) FROM closed GROUP BY 1, 2`

// Write stores a report in one transaction and one round trip. It is refused with
// ErrFenced once the sink has another owner, and with ErrSurpassed where a record has been
// written since it was read. The revisions of the records then count what is stored.
func (l *Ledger) Write(ctx context.Context, lease Lease, report *Report) error {
	sink := lease.Sink
	batch := &pgx.Batch{}
	queueErasures(batch, report.Erasures)
	queueRecords(batch, lease.state(), report.Records)
	for _, m := range report.Merges {
		batch.Queue(mergeRecords, m.From, m.Into, lease.state(), m.Key.Object, m.Key.Property, m.Key.Key)
	}
	queueDeliveries(batch, sink, report.Deliveries)
	queueObservations(batch, sink, report.Observations)
	queueIdentities(batch, sink, report.Identities)
	queueClosings(batch, sink, report.Closings)
	for _, r := range report.Requeue {
		batch.Queue(scheduleJobs, sink, asUUIDs(r.Events), r.After, livePriority)
	}
	if len(report.Done) > 0 {
		batch.Queue(endJobs, report.Done)
	}
	if report.Announced != uuid.Nil {
		if len(report.InDoubt) > 0 {
			batch.Queue(`UPDATE announcements SET records = $2, until = now() + $3::interval WHERE id = $1`, report.Announced, keyTexts(report.InDoubt), report.Settle)
		} else {
			batch.Queue(`DELETE FROM announcements WHERE id = $1`, report.Announced)
		}
	}
	if batch.Len() == 0 {
		return nil
	}
	// Last, so that the lock on the sink's row is held for the commit only.
	batch.Queue(`SELECT partnersync_fence($1, $2)`, sink, lease.Epoch)
	if err := l.run(func() error { return l.pool.SendBatch(ctx, batch).Close() }); err != nil {
		if no := refusal(err); no != nil {
			return no
		}
		return fmt.Errorf("record what became of %d routes: %w", len(report.Closings), err)
	}
	for _, r := range report.Records {
		r.Revision++
	}
	return nil
}

// queueClosings closes the routes that end alike with one statement: nearly all of a
// batch do.
func queueClosings(batch *pgx.Batch, sink string, closings []Closing) {
	type end struct {
		run     int32
		outcome Outcome
		reason  string
	}
	events := map[end]uuids{}
	var ends []end
	for _, c := range closings {
		e := end{c.Run, c.Outcome, storable(c.Reason)}
		if events[e] == nil {
			ends = append(ends, e)
		}
		events[e] = append(events[e], c.Event)
	}
	for _, e := range ends {
		batch.Queue(closeRoutes, sink, e.run, events[e], string(e.outcome), e.reason)
	}
}

func queueRecords(batch *pgx.Batch, sink string, list []*Record) {
	n := len(list)
	if n == 0 {
		return
	}
	ids, objects, crmIDs, presences := make(uuids, n), make([]string, n), make([]string, n), make([]string, n)
	fields, links := make([][]byte, n), make([][]byte, n)
	gone, live, merged, revisions := make([]string, n), make([]string, n), make([]bool, n), make([]int64, n)
	var keyIDs uuids
	var keyObjects, keyProperties, keyValues []string
	for i, r := range list {
		ids[i], objects[i], crmIDs[i], presences[i] = r.ID, r.Object, storable(r.CRMID), string(r.Presence)
		fields[i], links[i] = encodeFields(r.Fields), encodeLinks(r)
		gone[i], live[i], merged[i] = encodeVersion(r.GoneAt), encodeVersion(r.LiveAt), r.Merged
		revisions[i] = r.Revision
		if r.New {
			keyIDs = append(keyIDs, r.ID)
			keyObjects, keyProperties, keyValues = append(keyObjects, r.Object), append(keyProperties, r.Property), append(keyValues, r.Key)
		}
	}
	batch.Queue(writeRecords, sink, ids, objects, crmIDs, presences, fields, links, gone, live, merged, revisions, n)
	if len(keyIDs) > 0 {
		batch.Queue(writeKeys, sink, keyIDs, keyObjects, keyProperties, keyValues)
	}
}

func queueDeliveries(batch *pgx.Batch, sink string, deliveries []Delivery) {
	n := len(deliveries)
	if n == 0 {
		return
	}
	events, runs, attempts, statuses := make(uuids, n), make([]int32, n), make([]int32, n), make([]int32, n)
	mappings, hashes, objects, keys := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	outcomes, classes, reasons, crmIDs := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	failed := make(pgtype.FlatArray[pgtype.Timestamptz], n)
	for i, d := range deliveries {
		events[i], runs[i], attempts[i], statuses[i] = d.Event, d.Run, d.Attempts, d.Status
		mappings[i], hashes[i], objects[i], keys[i] = d.Mapping, d.MappingHash, d.Object, storable(d.Key)
		outcomes[i], classes[i], reasons[i], crmIDs[i] = string(d.Outcome), d.Class, storable(d.Reason), storable(d.CRMID)
		if !d.FirstFailedAt.IsZero() {
			failed[i] = pgtype.Timestamptz{Time: d.FirstFailedAt, Valid: true}
		}
	}
	batch.Queue(writeDeliveries, sink, events, runs, mappings, hashes, objects, keys, outcomes, classes, reasons, attempts, failed, statuses, crmIDs)
}
