package ledger

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrFenced means that a sink has another owner by now: what was to be sent must
// not be sent, and what was sent is not ours to record.
var ErrFenced = errors.New("the sink has another owner by now")

// ErrSurpassed means that a record has been written since it was read: what was made of it
// has to be made anew.
var ErrSurpassed = errors.New("a record has been written since it was read")

// refusal is the error for the SQLSTATEs that the functions of the schema raise; nil for others.
func refusal(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return nil
	}
	switch pg.Code {
	case "PS001":
		return ErrFenced
	case "PS002":
		return ErrSurpassed
	}
	return nil
}

// Ownership is the right to work a sink; it ends when the epoch has grown.
type Ownership struct {
	Sink  string
	Epoch int64
}

// Silence is how long an owner may fail to renew before another overtakes it.
const Silence = 8 * time.Second

// Owners is one process's hold on its sinks: a database session of its own, whose
// advisory locks show that the process lives. It is not safe for concurrent use.
type Owners struct {
	ledger *Ledger
	id     string
	conn   *pgx.Conn
}

// Owners opens the session of the process id. The caller closes it.
func (l *Ledger) Owners(ctx context.Context, id string) (*Owners, error) {
	conn, err := pgx.ConnectConfig(ctx, l.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, fmt.Errorf("open the session of owners: %w", err)
	}
	return &Owners{ledger: l, id: id, conn: conn}, nil
}

// Close gives up the session and with it every lock.
func (o *Owners) Close(ctx context.Context) error { return o.conn.Close(ctx) }

func lockKey(sink string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("partnersync sink " + sink)) // never fails
	return int64(h.Sum64())
}

// View is what a beat has found.
type View struct {
	Living []string                 // ids of the processes that live, sorted
	Kept   map[Ownership]bool       // those of its sinks that are still the process's own
	Asked  map[string]string        // by sink: what a person wants its owner to do, "stop" or "resume"
	Idle   map[string]time.Duration // by sink: how long ago its owner last showed that it lives; sinks never owned are not in it
}

// fresh is how old the sign of life of a process may be.
const fresh = 4 * time.Second

// Beat shows that the process lives and renews its sinks.
func (o *Owners) Beat(ctx context.Context, owned []Ownership) (*View, error) {
	names, epochs := make([]string, len(owned)), make([]int64, len(owned))
	for i, w := range owned {
		names[i], epochs[i] = w.Sink, w.Epoch
	}
	v := &View{Kept: map[Ownership]bool{}, Idle: map[string]time.Duration{}, Asked: map[string]string{}}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO workers (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen_at = now()`, o.id)
	batch.Queue(`DELETE FROM workers WHERE seen_at < now() - interval '10 minutes'`)
	batch.Queue(`SELECT id FROM workers WHERE seen_at > now() - $1::interval ORDER BY id`, fresh).Query(func(rows pgx.Rows) (err error) {
		v.Living, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	batch.Queue(`
		UPDATE sinks s SET renewed_at = now() FROM unnest($2::text[], $3::bigint[]) AS w(name, epoch)
		WHERE s.name = w.name AND s.epoch = w.epoch AND s.owner = $1 RETURNING s.name, s.epoch`, o.id, names, epochs).Query(func(rows pgx.Rows) error {
		kept, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Ownership])
		for _, w := range kept {
			v.Kept[w] = true
		}
		return err
	})
	batch.Queue(`SELECT name, extract(epoch FROM now() - renewed_at)::float8, asked FROM sinks WHERE renewed_at IS NOT NULL`).Query(func(rows pgx.Rows) error {
		var name, asked string
		var seconds float64
		_, err := pgx.ForEachRow(rows, []any{&name, &seconds, &asked}, func() error {
			v.Idle[name] = time.Duration(seconds * float64(time.Second))
			if asked != "" {
				v.Asked[name] = asked
			}
			return nil
		})
		return err
	})
	if err := o.conn.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("show that the process lives: %w", err)
	}
	return v, nil
}

// Done notes that the owner of a sink has done what it was asked to.
func (o *Owners) Done(ctx context.Context, sink, asked string) error {
	if _, err := o.conn.Exec(ctx, `UPDATE sinks SET asked = '' WHERE name = $1 AND asked = $2`, sink, asked); err != nil {
		return fmt.Errorf("sink %q: note what was done: %w", sink, err)
	}
	return nil
}

// Ask asks the owner of a sink to stop or resume it; it does so within a few
// seconds, or as soon as there is one.
func (l *Ledger) Ask(ctx context.Context, sink, what string) error {
	_, err := l.pool.Exec(ctx, `INSERT INTO sinks (name, asked) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET asked = excluded.asked`, sink, what)
	if err != nil {
		return fmt.Errorf("ask the owner of sink %q to %s it: %w", sink, what, err)
	}
	return nil
}

// Alive reports whether the session can still be used.
func (o *Owners) Alive() bool { return !o.conn.IsClosed() }

// Relock takes the lock of a sink again after the session was lost; ErrFenced
// means that somebody else has taken the sink meanwhile.
func (o *Owners) Relock(ctx context.Context, w Ownership) error {
	var free, kept bool
	if err := o.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockKey(w.Sink)).Scan(&free); err != nil {
		return fmt.Errorf("lock sink %q again: %w", w.Sink, err)
	}
	if !free {
		return ErrFenced
	}
	err := o.conn.QueryRow(ctx, `
		WITH mine AS (UPDATE sinks SET backend = pg_backend_pid(), renewed_at = now() WHERE name = $1 AND epoch = $2 AND owner = $3 RETURNING 1)
		SELECT EXISTS (SELECT FROM mine)`, w.Sink, w.Epoch, o.id).Scan(&kept)
	if err == nil && !kept {
		_, err = o.conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lockKey(w.Sink))
		err = errors.Join(ErrFenced, err)
	}
	return err
}

// Leave takes the process out of the list of those that live.
func (o *Owners) Leave(ctx context.Context) error {
	_, err := o.conn.Exec(ctx, `DELETE FROM workers WHERE id = $1`, o.id)
	return err
}

// Take makes the process the owner of a sink, if nobody else is: its lock is free,
// or the owner has been silent for too long. It then ends the former owner's jobs
// and queues their routes anew. The announcements are those of requests that may
// still be on their way. The error is a *Barred where the sink goes by another name now.
func (o *Owners) Take(ctx context.Context, sink string) (*Ownership, []Announcement, error) {
	var free bool
	if err := o.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockKey(sink)).Scan(&free); err != nil {
		return nil, nil, fmt.Errorf("take sink %q: %w", sink, err)
	}
	if !free {
		return nil, nil, o.overtake(ctx, sink)
	}
	w := &Ownership{Sink: sink}
	var announced []Announcement
	err := pgx.BeginFunc(ctx, o.conn, func(tx pgx.Tx) error {
		var to string
		err := tx.QueryRow(ctx, `
			INSERT INTO sinks (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING renamed_to`, sink).Scan(&to)
		if err != nil {
			return err
		}
		if to != "" {
			return renamed(sink, to)
		}
		err = tx.QueryRow(ctx, `
			UPDATE sinks SET owner = $2, epoch = epoch + 1, backend = pg_backend_pid(), renewed_at = now(), barred = '' WHERE name = $1 RETURNING epoch`, sink, o.id).Scan(&w.Epoch)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT records, until - now() FROM announcements WHERE sink = $1 AND until > now()`, sink)
		if err != nil {
			return err
		}
		if announced, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Announcement]); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM announcements WHERE sink = $1 AND until <= now()`, sink); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, requeueRunning, Queue(sink), o.id, longAgo, nil)
		return err
	})
	if err != nil {
		if !errors.As(err, new(*Barred)) {
			err = fmt.Errorf("take sink %q: %w", sink, err)
		}
		_, unlockErr := o.conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lockKey(sink))
		return nil, nil, errors.Join(err, unlockErr)
	}
	return w, announced, nil
}

// Reclaim queues the jobs of a sink anew that are running by the books and that nobody
// works: those of another process, whose fetch came to pass after its death, and those
// of the owner id that it has begun longer than age ago and does not have in hand,
// because it never heard that its fetch came to pass.
func (l *Ledger) Reclaim(ctx context.Context, sink, id string, age time.Duration, inHand []int64) error {
	if _, err := l.pool.Exec(ctx, requeueRunning, Queue(sink), id, age, inHand); err != nil {
		return fmt.Errorf("reclaim jobs of sink %q: %w", sink, err)
	}
	return nil
}

// longAgo is longer than any job runs.
const longAgo = 24 * time.Hour

// overtake ends the session of an owner that has not renewed for too long, so
// that its lock is free at the next attempt.
func (o *Owners) overtake(ctx context.Context, sink string) error {
	_, err := o.conn.Exec(ctx, `
		SELECT pg_terminate_backend(a.pid) FROM sinks s JOIN pg_stat_activity a ON a.pid = s.backend AND a.datname = current_database()
		WHERE s.name = $1 AND s.owner <> $2 AND s.renewed_at < now() - $3::interval AND a.pid <> pg_backend_pid()`, sink, o.id, Silence)
	if err != nil {
		return fmt.Errorf("overtake the silent owner of sink %q: %w", sink, err)
	}
	return nil
}

// Release hands a sink over: whoever is to own it may take it at once.
func (o *Owners) Release(ctx context.Context, w Ownership) error {
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE sinks SET owner = '', backend = NULL WHERE name = $1 AND epoch = $2 AND owner = $3`, w.Sink, w.Epoch, o.id)
	batch.Queue(`SELECT pg_advisory_unlock($1)`, lockKey(w.Sink))
	if err := o.conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("release sink %q: %w", w.Sink, err)
	}
	return nil
}

// Announcement says which records a request may still change, and for how long.
type Announcement struct {
	Records []string
	Left    time.Duration
}

const recordSeparator = "\x1f"

// Announce tells that the records of keys are about to be written. It is refused
// with ErrFenced once the sink has another owner; after it has returned no new
// owner touches the records for hold. The same id again makes that longer, and adds the keys to
// those before.
//
// It also stores records as they are to be known if nobody ever tells what came of
// the request: with all that it may change in doubt.
func (l *Ledger) Announce(ctx context.Context, w Ownership, id uuid.UUID, keys []RecordKey, hold time.Duration, intended ...*Record) error {
	batch := &pgx.Batch{}
	batch.Queue(`SELECT partnersync_fence($1, $2)`, w.Sink, w.Epoch)
	queueRecords(batch, w.Sink, intended)
	batch.Queue(`INSERT INTO announcements (id, sink, epoch, records, until) VALUES ($1, $2, $3, $4, now() + $5::interval)
		ON CONFLICT (id) DO UPDATE SET until = excluded.until,
			records = ARRAY(SELECT DISTINCT r FROM unnest(announcements.records || excluded.records) AS r ORDER BY 1)`, id, w.Sink, w.Epoch, keyTexts(keys), hold)
	if err := l.pool.SendBatch(ctx, batch).Close(); err != nil {
		if no := refusal(err); no != nil {
			return no
		}
		return fmt.Errorf("announce %d records: %w", len(keys), err)
	}
	return nil
}

func keyTexts(keys []RecordKey) []string {
	texts := make([]string, len(keys))
	for i, k := range keys {
		texts[i] = k.Object + recordSeparator + k.Property + recordSeparator + k.Key
	}
	return texts
}

// Keys are the records of an announcement.
func (a Announcement) Keys() []RecordKey {
	var keys []RecordKey
	for _, text := range a.Records {
		if parts := strings.SplitN(text, recordSeparator, 3); len(parts) == 3 {
			keys = append(keys, RecordKey{Object: parts[0], Property: parts[1], Key: parts[2]})
		}
	}
	return keys
}
