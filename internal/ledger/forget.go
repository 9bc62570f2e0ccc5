package ledger

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Person says whom to forget.
type Person struct {
	Address Address
	By      string // who asks for it
	DryRun  bool   // look, and change nothing
	// Progress is told how far it has come: of the events, then the records, then the
	// jobs, whose number may be an estimate. It may be nil.
	Progress func(what string, done, total int64)
}

// Forgotten is what has been erased of a person, or would be.
type Forgotten struct {
	Events     int64       `json:"events"`
	Deliveries int64       `json:"deliveries"`
	Records    int64       `json:"records"`
	Jobs       int64       `json:"jobs"`
	CRM        []CRMRecord `json:"crm_records"` // that the CRMs have, sorted
	UnderWay   []UnderWay  `json:"under_way,omitempty"`
}

// UnderWay counts records of which requests are on their way to a CRM, where an event that
// holds the address asked for some. What a CRM makes of these nobody can record any more.
type UnderWay struct {
	Sink    string `json:"sink"`
	Object  string `json:"object"`
	Records int    `json:"records"`
}

// CRMRecord is a record in a CRM, which forgetting does not touch.
type CRMRecord struct {
	Sink   string `json:"sink"`
	Object string `json:"object"`
	ID     string `json:"id"`
	Holds  bool   `json:"holds_address"` // else an event that held the address has written it
}

// forgetting is one run of Forget.
type forgetting struct {
	*Ledger
	Person
	secret []byte
	erased map[uuid.UUID]bool // events, also those of other people and of earlier runs
	crm    map[CRMRecord]bool
	sent   map[string][]UnderWay // by sink, what was on its way when it began
	done   Forgotten
}

// rowsPerStep is how many rows a step looks at, and how many it changes at most.
const rowsPerStep = 1000

// Forget erases a person's data: the bodies of the events that hold the address, what
// deliveries and jobs say of them, and the values of the records that hold it or come
// from these events. What became of each event stays. A tombstone keeps later events
// from bringing the person back. Every sink is taken anew, since its owner remembers
// records.
//
// It works in small steps. One that is cut short returns what it has done so far along
// with the error; run again, it does the rest. It does not touch the CRMs.
func (l *Ledger) Forget(ctx context.Context, p Person) (*Forgotten, error) {
	f := &forgetting{Ledger: l, Person: p, erased: map[uuid.UUID]bool{}, crm: map[CRMRecord]bool{}}
	err := f.work(ctx)
	f.done.CRM = make([]CRMRecord, 0, len(f.crm))
	for r := range f.crm {
		held := r
		held.Holds = true
		if r.Holds || !f.crm[held] {
			f.done.CRM = append(f.done.CRM, r)
		}
	}
	slices.SortFunc(f.done.UnderWay, func(a, b UnderWay) int { return cmp.Or(cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Object, b.Object)) })
	slices.SortFunc(f.done.CRM, func(a, b CRMRecord) int {
		return cmp.Or(cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Object, b.Object), cmp.Compare(a.ID, b.ID))
	})
	if err != nil {
		return &f.done, fmt.Errorf("forget a person: %w", err)
	}
	return &f.done, nil
}

func (f *forgetting) work(ctx context.Context) error {
	var audit int64
	if !f.DryRun {
		var err error
		if audit, err = f.begin(ctx); err != nil {
			return err
		}
	} else if err := f.underWay(ctx, f.pool); err != nil {
		return err
	}
	for _, part := range []struct {
		table string
		step  func(context.Context, *place) (bool, error)
	}{
		{"events", f.stepEvents}, {"records", f.stepRecords}, {"observations", f.stepObservations}, {"river_job", f.stepJobs},
	} {
		total, err := f.estimate(ctx, part.table)
		if err != nil {
			return err
		}
		at := &place{}
		for more := true; more; {
			f.tell(part.table, at.done, total)
			if more, err = part.step(ctx, at); err != nil {
				return err
			}
		}
		f.tell(part.table, at.done, at.done)
	}
	if f.DryRun {
		return nil
	}
	if err := f.replays(ctx); err != nil {
		return err
	}
	d := f.done
	_, err := f.pool.Exec(ctx, `UPDATE forgets SET events = $2, deliveries = $3, records = $4, jobs = $5, finished_at = now() WHERE id = $1`,
		audit, d.Events, d.Deliveries, d.Records, d.Jobs)
	return err
}

// place is how far a search has come.
type place struct {
	id   [16]byte
	job  int64
	done int64

	observed uuid.UUID
}

func (f *forgetting) tell(table string, done, total int64) {
	if f.Progress == nil {
		return
	}
	what := table
	if table == "river_job" {
		what = "jobs"
	}
	f.Progress(what, done, max(done, total))
}

// estimate returns about how many rows a table has; of a small one, exactly.
func (l *Ledger) estimate(ctx context.Context, table string) (int64, error) {
	var n int64
	err := l.pool.QueryRow(ctx, `SELECT reltuples::bigint FROM pg_class WHERE oid = $1::text::regclass`, table).Scan(&n)
	if err == nil && n < 100_000 {
		err = l.pool.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM `+table+` LIMIT 1000000) t`).Scan(&n)
	}
	return n, err
}

// begin lays the tombstone. With it every sink gets a new epoch: what is under way
// without knowing of the tombstone cannot be recorded any more.
func (f *forgetting) begin(ctx context.Context) (audit int64, err error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	err = f.run(func() error {
		return pgx.BeginFunc(ctx, f.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO tombstone_key (secret) VALUES ($1) ON CONFLICT DO NOTHING`, secret); err != nil {
				return err
			}
			if err := tx.QueryRow(ctx, `SELECT secret FROM tombstone_key`).Scan(&f.secret); err != nil {
				return err
			}
			hash := keyedHash(f.secret, string(f.Address))
			if _, err := tx.Exec(ctx, `INSERT INTO tombstones (hash) VALUES ($1) ON CONFLICT DO NOTHING`, hash[:]); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `UPDATE sinks SET epoch = epoch + 1`); err != nil {
				return err
			}
			if err := f.underWay(ctx, tx); err != nil {
				return err
			}
			return tx.QueryRow(ctx, `INSERT INTO forgets (by) VALUES ($1) RETURNING id`, f.By).Scan(&audit)
		})
	})
	return audit, err
}

// underWay reads which requests are on their way. Nobody announces more of the old epoch.
func (f *forgetting) underWay(ctx context.Context, from interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}) error {
	rows, err := from.Query(ctx, `
		SELECT a.sink, split_part(k, $1, 1), count(DISTINCT k)
		FROM announcements a CROSS JOIN unnest(a.records) k WHERE a.until > now() AND split_part(k, $1, 1) <> ''
		GROUP BY 1, 2 ORDER BY 1, 2`, recordSeparator)
	if err != nil {
		return err
	}
	f.sent = map[string][]UnderWay{}
	var u UnderWay
	_, err = pgx.ForEachRow(rows, []any{&u.Sink, &u.Object, &u.Records}, func() error {
		f.sent[u.Sink] = append(f.sent[u.Sink], u)
		return nil
	})
	return err
}

// asked tells of what is on its way to the sinks that have been at work on these events.
func (f *forgetting) asked(ctx context.Context, events uuids) error {
	if len(f.sent) == 0 || len(events) == 0 {
		return nil
	}
	rows, err := f.pool.Query(ctx, `
		SELECT DISTINCT sink FROM routes
		WHERE event_id = ANY($1) AND (outcome IS NULL OR reason = $2 AND closed_at > now() - interval '10 minutes')`, events, ReasonErased)
	if err != nil {
		return err
	}
	sinks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, sink := range sinks {
		f.done.UnderWay = append(f.done.UnderWay, f.sent[sink]...)
		delete(f.sent, sink)
	}
	return err
}

// change runs a step's changes in one transaction, again when it collides.
func (f *forgetting) change(ctx context.Context, do func(tx pgx.Tx) error) error {
	if f.DryRun {
		return nil
	}
	return f.run(func() error { return pgx.BeginFunc(ctx, f.pool, do) })
}

// stepEvents erases the events of a stretch of ids, with what is said of them.
func (f *forgetting) stepEvents(ctx context.Context, at *place) (bool, error) {
	rows, err := f.pool.Query(ctx, `SELECT id, entity, status, headers::text, body FROM events WHERE id > $1 ORDER BY id LIMIT $2`, at.id, rowsPerStep)
	if err != nil {
		return false, err
	}
	first := at.id
	var e storedEvent
	var erasures []Erasure
	var hers uuids
	tag, err := pgx.ForEachRow(rows, e.into(), func() error {
		at.id = e.id
		if e.status == string(Erased) {
			f.erased[e.id] = true // by a run that was cut short, or by whoever works the sink
			hers = append(hers, e.id)
		} else if erasure, ok := e.erasure(f.Address.In); ok {
			f.erased[e.id] = true
			hers = append(hers, e.id)
			erasures = append(erasures, erasure)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if err := f.asked(ctx, hers); err != nil {
		return false, err
	}
	deliveries, err := f.deliveries(ctx, first, at.id, erasures)
	if err != nil {
		return false, err
	}
	routes, err := f.routes(ctx, first, at.id, erasures)
	if err != nil {
		return false, err
	}
	if len(erasures)+len(deliveries)+len(routes) > 0 {
		if err := f.change(ctx, func(tx pgx.Tx) error {
			batch := &pgx.Batch{}
			queueErasures(batch, erasures)
			f.queueDeliveries(batch, deliveries)
			for _, r := range routes {
				batch.Queue(`UPDATE routes SET reason = $4 WHERE event_id = $1 AND sink = $2 AND run = $3`, r.event, r.sink, r.run, ReasonErased)
			}
			return tx.SendBatch(ctx, batch).Close()
		}); err != nil {
			return false, err
		}
	}
	at.done += tag.RowsAffected()
	f.done.Events += int64(len(erasures))
	f.done.Deliveries += int64(len(deliveries))
	return tag.RowsAffected() == rowsPerStep, nil
}

// told is what the ledger tells of a delivery or, without mapping, object and key, of a route.
type told struct {
	event   [16]byte
	sink    string
	run     int32
	mapping string
	object  string
	key     string
	reason  string
	open    bool
	erased  bool // the event is
}

// deliveries returns those of a stretch that say something of the person: all of the
// erased events, and others that name the address.
func (f *forgetting) deliveries(ctx context.Context, first, last [16]byte, erasures []Erasure) ([]told, error) {
	rows, err := f.pool.Query(ctx, `
		SELECT event_id, sink, run, mapping, object, key, reason, outcome IS NULL, event_id = ANY($3), crm_id FROM deliveries
		WHERE event_id > $1 AND event_id <= $2 AND (event_id = ANY($3) OR reason <> '' OR key ~ '[@%\\&]')`, first, last, eventsOf(erasures))
	if err != nil {
		return nil, err
	}
	var list []told
	var crmID string
	var d told
	_, err = pgx.ForEachRow(rows, []any{&d.event, &d.sink, &d.run, &d.mapping, &d.object, &d.key, &d.reason, &d.open, &d.erased, &crmID}, func() error {
		named := f.Address.In([]byte(d.key))
		if !d.erased && !named && !f.Address.In([]byte(d.reason)) {
			return nil
		}
		list = append(list, d)
		if crmID != "" && (d.erased || named) {
			f.crm[CRMRecord{Sink: d.sink, Object: d.object, ID: crmID, Holds: named}] = true
		}
		return nil
	})
	return list, err
}

func eventsOf(erasures []Erasure) uuids {
	events := make(uuids, len(erasures))
	for i, e := range erasures {
		events[i] = e.Event
	}
	return events
}

// queueDeliveries takes the person out of deliveries. What was still open ends here,
// since its route will be skipped. A key becomes a hash, which still tells the
// deliveries of one event apart.
func (f *forgetting) queueDeliveries(batch *pgx.Batch, list []told) {
	for _, d := range list {
		key, reason := d.key, d.reason
		if f.Address.In([]byte(key)) {
			hash := keyedHash(f.secret, key)
			key = "erased " + hex.EncodeToString(hash[:8])
		}
		if d.erased && (reason != "" || d.open) || f.Address.In([]byte(reason)) {
			reason = ReasonErased
		}
		batch.Queue(`
			UPDATE deliveries SET key = $7, reason = $8, outcome = CASE WHEN $9 THEN coalesce(outcome, 'skipped') ELSE outcome END
			WHERE event_id = $1 AND sink = $2 AND run = $3 AND mapping = $4 AND object = $5 AND key = $6`,
			d.event, d.sink, d.run, d.mapping, d.object, d.key, key, reason, d.erased)
	}
}

// routes returns those of a stretch whose reason says something of the person.
func (f *forgetting) routes(ctx context.Context, first, last [16]byte, erasures []Erasure) ([]told, error) {
	rows, err := f.pool.Query(ctx, `
		SELECT event_id, sink, run, reason, event_id = ANY($3) FROM routes
		WHERE event_id > $1 AND event_id <= $2 AND reason NOT IN ('', $4)`, first, last, eventsOf(erasures), ReasonErased)
	if err != nil {
		return nil, err
	}
	var list []told
	var r told
	_, err = pgx.ForEachRow(rows, []any{&r.event, &r.sink, &r.run, &r.reason, &r.erased}, func() error {
		if r.erased || f.Address.In([]byte(r.reason)) {
			list = append(list, r)
		}
		return nil
	})
	return list, err
}

// stepObservations removes what was only observed of the person.
func (f *forgetting) stepObservations(ctx context.Context, at *place) (bool, error) {
	rows, err := f.pool.Query(ctx, `
		SELECT event_id, key || ' ' || reason || ' ' || coalesce(fields::text, '') FROM observations
		WHERE event_id IN (SELECT DISTINCT event_id FROM observations WHERE event_id > $1 ORDER BY event_id LIMIT $2)
		ORDER BY event_id`, at.observed, rowsPerStep)
	if err != nil {
		return false, err
	}
	var hers uuids
	var text pgtype.DriverBytes
	tag, err := pgx.ForEachRow(rows, []any{&at.observed, &text}, func() error {
		if f.erased[at.observed] || f.Address.In(text) {
			hers = append(hers, at.observed)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if len(hers) > 0 {
		if err := f.change(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `DELETE FROM observations WHERE event_id = ANY($1)`, hers)
			return err
		}); err != nil {
			return false, err
		}
	}
	at.done += tag.RowsAffected()
	return tag.RowsAffected() >= rowsPerStep, nil
}

// stepJobs takes the person out of what River keeps of failed attempts. How many
// there were stays: the pause before the next one depends on it.
func (f *forgetting) stepJobs(ctx context.Context, at *place) (bool, error) {
	rows, err := f.pool.Query(ctx, `
		SELECT id, CASE WHEN kind = $3 THEN args::text END,
			CASE WHEN EXISTS (SELECT FROM unnest(errors) e WHERE e ->> 'error' <> $4) THEN errors::text END
		FROM (SELECT * FROM river_job WHERE id > $1 ORDER BY id LIMIT $2) j ORDER BY id`, at.job, rowsPerStep, JobKind, ReasonErased)
	if err != nil {
		return false, err
	}
	var jobs []int64
	var args, failures pgtype.DriverBytes
	tag, err := pgx.ForEachRow(rows, []any{&at.job, &args, &failures}, func() error {
		if failures != nil && (f.Address.In(failures) || mentions(args, f.erased)) {
			jobs = append(jobs, at.job)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if len(jobs) > 0 {
		if err := f.change(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, eraseErrors, jobs, ReasonErased)
			return err
		}); err != nil {
			return false, err
		}
	}
	at.done += tag.RowsAffected()
	f.done.Jobs += int64(len(jobs))
	return tag.RowsAffected() == rowsPerStep, nil
}

// erasedSelection stands for what a replay selects where that named the person.
const erasedSelection = `{"erased": true}`

// replays takes the person out of what was asked for in replays.
func (f *forgetting) replays(ctx context.Context) error {
	rows, err := f.pool.Query(ctx, `SELECT id, selection::text FROM replays`)
	if err != nil {
		return err
	}
	var ids []int64
	var id int64
	var selection pgtype.DriverBytes
	if _, err := pgx.ForEachRow(rows, []any{&id, &selection}, func() error {
		if f.Address.In(selection) {
			ids = append(ids, id)
		}
		return nil
	}); err != nil || len(ids) == 0 {
		return err
	}
	_, err = f.pool.Exec(ctx, `UPDATE replays SET selection = $2 WHERE id = ANY($1)`, ids, erasedSelection)
	return err
}
