package ledger

// This file alone writes River's table and tells River's clients of it. River's own client cannot
// store a job in the statement that stores its event, which is what makes a commit one round trip.
// A row and a notification must be what that client writes: TestRiverWritesTheSame compares them.

// JobKind is the kind of the River jobs that work routes.
const JobKind = "deliver"

// MaxAttempts is far above what any route needs: partnersync ends a route by
// its own rules, River must never discard it first.
const (
	MaxAttempts = 30000
	maxAttempts = `30000`
)

// ReplayPriority is that of the jobs of replays: River takes live ones first.
const (
	livePriority   = 1
	ReplayPriority = 3
)

// Queue is the River queue of a sink.
func Queue(sink string) string { return queuePrefix + sink }

const queuePrefix = "sink_"

// States of jobs.
const (
	availableState = `'available'`
	scheduledState = `'scheduled'`
	cancelledState = `'cancelled'`
	runningState   = `'running'`
	waitingStates  = `'available', 'scheduled', 'retryable', 'pending'`
	liveStates     = waitingStates + `, ` + runningState
)

// notifyQueue makes River's clients fetch from the queue of a row.
const notifyQueue = `pg_notify(current_schema() || '.river_insert', json_build_object('queue', queue)::text)`

// What a job has of a row j (event_ids, sink).
const (
	jobColumns = `args, kind, max_attempts, queue, priority, state`
	jobArgs    = `jsonb_build_object('event_ids', j.event_ids, 'sink', j.sink)`
	jobValues  = jobArgs + `, '` + JobKind + `', ` + maxAttempts + `, '` + queuePrefix + `' || j.sink`
)

// queueJobs inserts a job for each row of jobs (event_ids, sink, priority), an expression of the same
// WITH, and notifies. Postgres notifies only if the statement reads from told.
const queueJobs = `queued AS (
	INSERT INTO river_job (` + jobColumns + `)
	SELECT ` + jobValues + `, j.priority, ` + availableState + ` FROM jobs j
	RETURNING queue
), told AS (
	SELECT ` + notifyQueue + ` FROM (SELECT DISTINCT queue FROM queued) q
)`

// scheduleJobs gives each of the events $2 of the sink $1 a job of its own after the time $3, with
// the priority $4. An event that has such a job already needs no other.
const scheduleJobs = `
INSERT INTO river_job (` + jobColumns + `, scheduled_at)
SELECT ` + jobValues + `, $4::smallint, ` + scheduledState + `, now() + $3::interval
FROM (SELECT jsonb_build_array(e) AS event_ids, $1::text AS sink FROM unnest($2::uuid[]) AS e) j
WHERE NOT EXISTS (` + liveJobs + ` AND jsonb_array_length(r.args->'event_ids') = 1)`

// liveJobs are those of the events of a row j that have not ended.
const liveJobs = `
	SELECT FROM river_job r
	WHERE r.args @> ` + jobArgs + ` AND r.kind = '` + JobKind + `' AND r.state IN (` + liveStates + `)`

// requeueRunning replaces the running jobs of the queue $1 that the owner $2 does not run: those of
// other processes, and its own older than $3 that are not among $4. Such a job is never put back,
// since its process may yet report it done: it is ended, and another takes its place.
const requeueRunning = `
WITH ended AS (
	UPDATE river_job SET state = ` + cancelledState + `, finalized_at = now()
	WHERE queue = $1 AND state = ` + runningState + ` AND (attempted_by[array_upper(attempted_by, 1)] IS DISTINCT FROM $2
		OR attempted_at < now() - $3::interval AND id <> ALL(coalesce($4::bigint[], '{}')))
	RETURNING args, priority
), jobs AS (
	SELECT args->'event_ids' AS event_ids, args->>'sink' AS sink, priority FROM ended
), ` + queueJobs + `
SELECT count(*) FROM told`

// wakeJobs makes the jobs of a queue that wait for a later time available.
const wakeJobs = `
WITH woken AS (
	UPDATE river_job SET state = ` + availableState + `, scheduled_at = now()
	WHERE queue = $1 AND state IN ('scheduled', 'retryable', 'available') AND scheduled_at > now()
	RETURNING queue
)
SELECT ` + notifyQueue + ` FROM woken`

// endJobs deletes jobs that are done. River's client would set them to completed and delete them a day later; it finds
// none, which is nothing to it. The routes are the history.
const endJobs = `DELETE FROM river_job WHERE id = ANY($1) AND state = ` + runningState

// cancelJobs ends the jobs of a queue, whoever runs them.
const cancelJobs = `
UPDATE river_job SET state = ` + cancelledState + `, finalized_at = now() WHERE queue = $1 AND state IN (` + liveStates + `)`

// renameJobs gives the waiting jobs of the sink $1 the name $2.
const renameJobs = `
UPDATE river_job SET queue = '` + queuePrefix + `' || $2, args = jsonb_set(args, '{sink}', to_jsonb($2::text))
WHERE queue = '` + queuePrefix + `' || $1 AND state IN (` + waitingStates + `) AND kind = '` + JobKind + `'`

// eraseErrors overwrites what River keeps of failed attempts. How many there were stays: the pause
// before the next one depends on it.
const eraseErrors = `
UPDATE river_job SET errors = ARRAY(
	SELECT e || jsonb_build_object('error', $2::text, 'trace', '') FROM unnest(errors) WITH ORDINALITY AS u(e, n) ORDER BY n)
WHERE id = ANY($1)`
