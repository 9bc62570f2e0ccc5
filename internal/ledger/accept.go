package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Status says what the receiver made of an event.
type Status string

// The statuses of events.
const (
	Stored    Status = "stored"
	Unmapped  Status = "unmapped"
	Ignored   Status = "ignored"
	Malformed Status = "malformed"
	Erased    Status = "erased" // later, because a person in it is to be forgotten
)

// Incoming is one event to store. Its texts hold no NUL and are valid UTF-8.
type Incoming struct {
	ID         uuid.UUID
	Source     string
	Type       string
	Entity     string
	OccurredAt time.Time // zero where the body has no time
	Rank       int16
	ReceivedAt time.Time
	Status     Status
	Reason     string
	Headers    []byte // a JSON object, or nil
	Trace      string // traceparent and tracestate, "" where the sender gave none
	VerifiedBy string // how the request proved who sent it; no secret
	Delivery   []byte // DeliveryOf the sender's id, or nil
	Body       []byte
	Sinks      []string // one route and job each
	Again      bool     // it may be stored already, under this ID
}

// Accepted is what became of an Incoming.
type Accepted struct {
	ID        uuid.UUID // of the stored event: for a duplicate, that of the first
	Duplicate bool
}

// ClockSkew is how far the sender's clock may run ahead of ours: the receiver's or
// Postgres's, whichever is ahead. What orders an event among those of its entity is its own
// time; one that lies further ahead is none, and the event is ordered by its arrival.
const ClockSkew = 2 * time.Minute

// BeyondBelief reports whether an event's time lies further ahead of its receipt than that.
func BeyondBelief(occurredAt, receivedAt time.Time) bool {
	return occurredAt.After(receivedAt.Add(ClockSkew))
}

// DeliveryOf hashes the id that a source gives a delivery: what is stored tells nothing
// of it. part is the position of the event among several of one delivery.
func DeliveryOf(source, id string, part int) []byte {
	return hashed(source, id, strconv.Itoa(part)).Sum(nil)[:16]
}

// Accept stores events, opens their routes and inserts their jobs, all in one
// transaction and one round trip. It returns one Accepted per Incoming, in the
// same order. Equal events within one call are folded. An event that is given again
// and is stored already is told as a duplicate and changes nothing. So is any whose
// delivery is known, whatever else it holds.
func (l *Ledger) Accept(ctx context.Context, events []Incoming, generation int64, eventsPerJob int) ([]Accepted, error) {
	var accepted []Accepted
	err := l.run(func() (err error) {
		accepted, err = accept(ctx, l.pool, events, generation, eventsPerJob)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store %d events: %w", len(events), err)
	}
	return accepted, nil
}

// Rehearse does what Accept does with an event of its own, and takes it back: nil means that events can be stored.
func (l *Ledger) Rehearse(ctx context.Context) error {
	tx, err := l.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("store an event for a trial: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	now := time.Now()
	trial := Incoming{ID: uuid.Must(uuid.NewV7()), Source: "trial", Type: "trial", OccurredAt: now, ReceivedAt: now, Status: Stored, Body: []byte{}, Sinks: []string{"trial"}}
	if _, err = accept(ctx, tx, []Incoming{trial}, 0, 1); err != nil {
		return fmt.Errorf("store an event for a trial: %w", err)
	}
	return nil
}

// sender is a pool or a transaction.
type sender interface {
	SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
}

func accept(ctx context.Context, db sender, events []Incoming, generation int64, eventsPerJob int) ([]Accepted, error) {
	accepted := make([]Accepted, len(events))
	waves := split(events)
	batch := &pgx.Batch{}
	queueLate(batch, events)
	var locks []int64
	for _, w := range waves {
		locks = append(locks, w.locks...)
	}
	if len(locks) > 0 {
		slices.Sort(locks)
		batch.Queue(lockKeys, slices.Compact(locks))
	}
	for _, w := range waves {
		w.queue(batch, events, generation, max(eventsPerJob, 1))
	}
	results := db.SendBatch(ctx, batch)
	defer results.Close()
	if err := readLate(results, events); err != nil {
		return nil, err
	}
	if len(locks) > 0 {
		if _, err := results.Exec(); err != nil {
			return nil, err
		}
	}
	for _, w := range waves {
		if err := w.read(results, events, accepted); err != nil {
			return nil, err
		}
	}
	return accepted, results.Close()
}

// wave is a part of a batch in which no event depends on another: of several
// events of one entity without the sender's time, each must see the one before.
type wave struct {
	first   []int            // of each distinct event, the index in the batch
	copies  []int32          // how often it came again within the batch
	again   [][2]int         // index in the batch of such a copy, and the position of its like in first
	folded  map[[16]byte]int // digest, or delivery, → position in first
	digests [][]byte
	untimed map[string]bool
	locks   []int64
}

func split(events []Incoming) []*wave {
	var waves []*wave
	current := func() *wave { return waves[len(waves)-1] }
	begin := func() {
		waves = append(waves, &wave{folded: map[[16]byte]int{}, untimed: map[string]bool{}})
	}
	begin()
	for i := range events {
		e := &events[i]
		digest := digestOf(e)
		at, ok := current().folded[digest]
		ok = ok && foldable(e)
		if e.Delivery != nil && !ok {
			at, ok = current().folded[[16]byte(e.Delivery)]
		}
		if ok {
			current().copies[at]++
			current().again = append(current().again, [2]int{i, at})
			continue
		}
		if e.OccurredAt.IsZero() && e.Entity != "" {
			thing := e.Source + "\x00" + e.Type + "\x00" + e.Entity
			if current().untimed[thing] {
				begin()
			}
			current().untimed[thing] = true
			sum := sha256.Sum256([]byte(thing))
			current().locks = append(current().locks, lockOf(sum[:]))
		}
		w := current()
		if e.Delivery != nil {
			w.locks = append(w.locks, lockOf(e.Delivery))
			w.folded[[16]byte(e.Delivery)] = len(w.first)
		}
		w.folded[digest] = len(w.first)
		w.first = append(w.first, i)
		w.copies = append(w.copies, 0)
		w.digests = append(w.digests, digest[:])
	}
	return waves
}

func lockOf(hash []byte) int64 { return int64(binary.BigEndian.Uint64(hash)) }

// foldable: an event without time and entity cannot be told from its equals, nor can
// one without time that the sender calls another delivery.
func foldable(e *Incoming) bool {
	return !e.OccurredAt.IsZero() || e.Entity != "" && e.Delivery == nil
}

func digestOf(e *Incoming) [16]byte {
	h := hashed(e.Source, e.Type, e.Entity)
	h.Write(e.Body)
	return [16]byte(h.Sum(nil)[:16])
}

// hashed hashes texts so that no other texts give the same.
func hashed(texts ...string) hash.Hash {
	h := sha256.New()
	for _, s := range texts {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return h
}

const lockKeys = `SELECT pg_advisory_xact_lock(k) FROM (SELECT unnest($1::bigint[]) AS k ORDER BY 1) keys`

// acceptEvents writes rows in the order of their digests, so that two receivers
// which store the same events wait for each other instead of deadlocking. Events
// without a time get versions in the order in which they are given. So do events dated too far
// ahead: if our clock is the wrong one, they still keep their order. No such version lies ahead
// of our clock, so that the events after it are not older.
//
// An event without a time that is given again has waited in a spool, while other receivers
// may have stored what came later. It is versioned by its receipt, after what of its
// entity was received before it and before what was received after it, and is the same
// event as its like next to it.
const acceptEvents = `
WITH given AS (
	SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::smallint[],
		$8::timestamptz[], $9::text[], $10::text[], $11::bytea[], $12::jsonb[], $13::bytea[], $14::int[], $21::text[], $22::text[], $23::bytea[])
		WITH ORDINALITY AS g(id, source, type, entity, occurred_at, latest, rank, received_at, status, reason, digest, headers, body, copies, trace, verified_by, delivery, position)
), known AS (
	SELECT a.id
	FROM unnest($20::uuid[]) AS a(id)
	CROSS JOIN LATERAL (SELECT FROM events e WHERE e.id = a.id LIMIT 1) e
), placed AS (
	SELECT g.id,
		(SELECT max(e.version_at) FROM events e
			WHERE e.source = g.source AND e.entity = g.entity AND e.entity <> '' AND (e.received_at, e.id) < (g.received_at, g.id)) AS earlier,
		(SELECT min(e.version_at) FROM events e
			WHERE e.source = g.source AND e.entity = g.entity AND e.entity <> '' AND (e.received_at, e.id) > (g.received_at, g.id) AND e.occurred_at IS NULL) AS later
	FROM unnest($20::uuid[]) AS a(id) JOIN given g ON g.id = a.id
	WHERE g.occurred_at IS NULL
), latest AS (
	SELECT k.id AS given, k.id FROM known k
	UNION ALL
	SELECT g.id, e.id
	FROM given g
	CROSS JOIN LATERAL (
		SELECT e.id, e.digest FROM events e
		WHERE e.source = g.source AND e.entity = g.entity AND e.type = g.type AND e.entity <> ''
		ORDER BY e.version_at DESC, e.id DESC LIMIT 1
	) e
	WHERE NOT EXISTS (SELECT FROM placed p WHERE p.id = g.id) AND g.occurred_at IS NULL AND g.entity <> '' AND g.delivery IS NULL AND e.digest = g.digest
		AND NOT EXISTS (SELECT FROM known k WHERE k.id = g.id)
	UNION ALL
	SELECT g.id, e.id
	FROM placed p JOIN given g ON g.id = p.id
	CROSS JOIN LATERAL (
		SELECT e.id FROM (
			(SELECT e.id, e.digest FROM events e
				WHERE e.source = g.source AND e.entity = g.entity AND e.type = g.type AND e.entity <> '' AND (e.received_at, e.id) < (g.received_at, g.id)
				ORDER BY e.received_at DESC, e.id DESC LIMIT 1)
			UNION ALL
			(SELECT e.id, e.digest FROM events e
				WHERE e.source = g.source AND e.entity = g.entity AND e.type = g.type AND e.entity <> '' AND (e.received_at, e.id) > (g.received_at, g.id)
				ORDER BY e.received_at, e.id LIMIT 1)
		) e WHERE e.digest = g.digest LIMIT 1
	) e
	WHERE g.entity <> '' AND g.delivery IS NULL AND NOT EXISTS (SELECT FROM known k WHERE k.id = g.id)
	UNION ALL
	SELECT g.id, e.id
	FROM given g
	CROSS JOIN LATERAL (SELECT e.id FROM events e WHERE e.delivery = g.delivery LIMIT 1) e
	WHERE g.delivery IS NOT NULL AND NOT EXISTS (SELECT FROM known k WHERE k.id = g.id)
), again AS (
	UPDATE events e SET duplicates = e.duplicates + g.copies + (e.id <> g.id)::int
	FROM latest l JOIN given g ON g.id = l.given WHERE e.id = l.id AND (g.copies > 0 OR e.id <> g.id)
), stored AS (
	INSERT INTO events AS e (id, source, type, entity, occurred_at, version_at, rank, received_at, status, reason, digest, headers, trace, verified_by, delivery, body, duplicates)
	SELECT g.id, g.source, g.type, g.entity, g.occurred_at,
		CASE WHEN g.occurred_at <= greatest(g.latest, (SELECT clock_timestamp()) + interval '2 minutes') THEN g.occurred_at
		WHEN p.id IS NOT NULL THEN least(
			greatest(least(g.received_at, (SELECT clock_timestamp())), p.earlier + interval '1 microsecond'),
			CASE WHEN p.later IS NOT NULL THEN greatest(p.later - interval '1 microsecond', p.earlier) END)
		ELSE greatest(
			(SELECT clock_timestamp()) + g.position * interval '1 microsecond',
			(SELECT max(e.version_at) + g.position * interval '1 microsecond' FROM events e WHERE e.source = g.source AND e.entity = g.entity AND e.entity <> ''))
		END,
		g.rank, g.received_at, g.status, g.reason, g.digest, g.headers, g.trace, g.verified_by, g.delivery, g.body, g.copies
	FROM given g LEFT JOIN placed p ON p.id = g.id
	WHERE NOT EXISTS (SELECT FROM latest l WHERE l.given = g.id)
	ORDER BY g.digest
	ON CONFLICT (digest) WHERE occurred_at IS NOT NULL DO UPDATE SET duplicates = e.duplicates + excluded.duplicates + (e.id <> excluded.id)::int
	RETURNING id, source, digest, (xmax = 0) AS fresh
), opened AS (
	INSERT INTO routes (event_id, sink, source, generation)
	SELECT s.id, r.sink, s.source, $17
	FROM unnest($15::uuid[], $16::text[]) AS r(id, sink) JOIN stored s ON s.id = r.id AND s.fresh
	RETURNING event_id, sink, source
), counted AS (
	INSERT INTO tally_changes (hour, source, sink, outcome, routes)
	SELECT date_trunc('hour', now(), 'UTC'), source, sink, 'opened', count(*) FROM opened GROUP BY source, sink
), jobs AS (
	SELECT jsonb_agg(event_id ORDER BY event_id) AS event_ids, sink, $19::smallint AS priority
	FROM (SELECT event_id, sink, (row_number() OVER (PARTITION BY sink ORDER BY event_id) - 1) / $18::int AS part FROM opened) o
	GROUP BY sink, part
), ` + queueJobs + `
SELECT NULL::uuid AS given, id, digest, fresh FROM stored
UNION ALL SELECT given, id, NULL, false FROM latest
UNION ALL SELECT NULL, NULL, NULL, NULL FROM (SELECT count(*) FROM told) t WHERE t.count < 0`

func (w *wave) queue(batch *pgx.Batch, events []Incoming, generation int64, eventsPerJob int) {
	n := len(w.first)
	ids, sources, types, entities := make(uuids, n), make([]string, n), make([]string, n), make([]string, n)
	occurred, latest, received := make(pgtype.FlatArray[pgtype.Timestamptz], n), make([]time.Time, n), make([]time.Time, n)
	ranks, statuses, reasons := make([]int16, n), make([]string, n), make([]string, n)
	headers, bodies, deliveries := make([][]byte, n), make([][]byte, n), make([][]byte, n)
	traces, verifiedBy := make([]string, n), make([]string, n)
	var routeIDs uuids
	again := pgtype.FlatArray[[16]byte]{}
	var routeSinks []string
	for i, at := range w.first {
		e := &events[at]
		ids[i], sources[i], types[i], entities[i] = e.ID, e.Source, e.Type, e.Entity
		latest[i] = e.ReceivedAt.Add(ClockSkew)
		if !e.OccurredAt.IsZero() {
			occurred[i] = pgtype.Timestamptz{Time: e.OccurredAt, Valid: true}
		}
		received[i], ranks[i], statuses[i], reasons[i] = e.ReceivedAt, e.Rank, string(e.Status), e.Reason
		headers[i], bodies[i], deliveries[i] = e.Headers, e.Body, e.Delivery
		traces[i], verifiedBy[i] = e.Trace, e.VerifiedBy
		if e.Again {
			again = append(again, e.ID)
		}
		for _, sink := range e.Sinks {
			routeIDs, routeSinks = append(routeIDs, e.ID), append(routeSinks, sink)
		}
	}
	batch.Queue(acceptEvents, ids, sources, types, entities, occurred, latest, ranks, received, statuses, reasons,
		w.digests, headers, bodies, w.copies, routeIDs, routeSinks, generation, eventsPerJob, livePriority, again, traces, verifiedBy, deliveries)
}

func (w *wave) read(results pgx.BatchResults, events []Incoming, accepted []Accepted) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	byDigest := map[string]int{}
	byID := map[uuid.UUID]int{}
	for i, at := range w.first {
		byDigest[string(w.digests[i])] = i
		byID[events[at].ID] = i
	}
	outcome := make([]Accepted, len(w.first))
	for rows.Next() {
		var given *[16]byte
		var id uuid.UUID
		var digest []byte
		var fresh bool
		if err := rows.Scan(&given, (*[16]byte)(&id), &digest, &fresh); err != nil {
			return err
		}
		i, ok := byID[id]
		if given != nil {
			i, ok = byID[*given]
		} else if !ok {
			i, ok = byDigest[string(digest)]
		}
		if !ok {
			return fmt.Errorf("the database answered for event %s, which is not in the batch", id)
		}
		outcome[i] = Accepted{ID: id, Duplicate: !fresh}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for i, at := range w.first {
		accepted[at] = outcome[i]
	}
	for _, c := range w.again {
		accepted[c[0]] = Accepted{ID: outcome[c[1]].ID, Duplicate: true}
	}
	return nil
}
