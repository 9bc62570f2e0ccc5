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

// ErrFenced means that a lease has ended: the sink has another owner. What was to be sent must
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

// Lease is the right to work a sink. The epoch is its fencing token: the lease has ended once the
// sink has a greater one.
type Lease struct {
	Sink   string
	Epoch  int64
	Shadow bool `db:"-"` // what is written of records is what they would be
}

// state is the name under which the records of the sink are kept.
func (l Lease) state() string {
	if l.Shadow {
		return Shadow(l.Sink)
	}
	return l.Sink
}

// Silence is how long an owner may fail to renew its lease before another process evicts it.
const Silence = 8 * time.Second

// Leaser acquires, renews and releases the leases of one process. It has a database session of its
// own, whose advisory locks show that the process lives. It is not safe for concurrent use.
type Leaser struct {
	ledger *Ledger
	id     string
	conn   *pgx.Conn
}

// Leaser opens the session of the process id. The caller closes it.
func (l *Ledger) Leaser(ctx context.Context, id string) (*Leaser, error) {
	conn, err := pgx.ConnectConfig(ctx, l.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, fmt.Errorf("open the session of leases: %w", err)
	}
	return &Leaser{ledger: l, id: id, conn: conn}, nil
}

// Close ends the session, and with it every lock.
func (s *Leaser) Close(ctx context.Context) error { return s.conn.Close(ctx) }

func lockKey(sink string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("partnersync sink " + sink)) // never fails
	return int64(h.Sum64())
}

// Heartbeat is what a heartbeat has found.
type Heartbeat struct {
	Live     []string                 // ids of the processes that live, sorted
	Renewed  map[Lease]bool           // the leases of this process that go on
	Commands map[string]string        // by sink: what a person wants its owner to do, "stop" or "resume"
	Idle     map[string]time.Duration // by sink: how long ago its owner renewed; sinks never owned are not in it
}

// livesFor is how long a process counts as living after its last heartbeat.
const livesFor = 4 * time.Second

// Heartbeat shows that the process lives, and renews its leases.
func (s *Leaser) Heartbeat(ctx context.Context, leases []Lease) (*Heartbeat, error) {
	names, epochs := make([]string, len(leases)), make([]int64, len(leases))
	for i, l := range leases {
		names[i], epochs[i] = l.Sink, l.Epoch
	}
	h := &Heartbeat{Renewed: map[Lease]bool{}, Idle: map[string]time.Duration{}, Commands: map[string]string{}}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO workers (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen_at = now()`, s.id)
	batch.Queue(`DELETE FROM workers WHERE seen_at < now() - interval '10 minutes'`)
	batch.Queue(`SELECT id FROM workers WHERE seen_at > now() - $1::interval ORDER BY id`, livesFor).Query(func(rows pgx.Rows) (err error) {
		h.Live, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	batch.Queue(`
		UPDATE sinks s SET renewed_at = now() FROM unnest($2::text[], $3::bigint[]) AS w(name, epoch)
		WHERE s.name = w.name AND s.epoch = w.epoch AND s.owner = $1 RETURNING s.name, s.epoch`, s.id, names, epochs).Query(func(rows pgx.Rows) error {
		renewed, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Lease])
		for _, l := range renewed {
			h.Renewed[l] = true
		}
		return err
	})
	batch.Queue(`SELECT name, extract(epoch FROM now() - renewed_at)::float8, asked FROM sinks WHERE renewed_at IS NOT NULL`).Query(func(rows pgx.Rows) error {
		var name, asked string
		var seconds float64
		_, err := pgx.ForEachRow(rows, []any{&name, &seconds, &asked}, func() error {
			h.Idle[name] = time.Duration(seconds * float64(time.Second))
			if asked != "" {
				h.Commands[name] = asked
			}
			return nil
		})
		return err
	})
	if err := s.conn.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("show that the process lives: %w", err)
	}
	return h, nil
}

// Done notes that the owner of a sink has carried out a command.
func (s *Leaser) Done(ctx context.Context, sink, command string) error {
	if _, err := s.conn.Exec(ctx, `UPDATE sinks SET asked = '' WHERE name = $1 AND asked = $2`, sink, command); err != nil {
		return fmt.Errorf("sink %q: note the command that was carried out: %w", sink, err)
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
func (s *Leaser) Alive() bool { return !s.conn.IsClosed() }

// Reacquire takes the lock of a lease again after its session was lost. ErrFenced means that
// another process has acquired the sink meanwhile.
func (s *Leaser) Reacquire(ctx context.Context, lease Lease) error {
	var free, kept bool
	if err := s.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockKey(lease.Sink)).Scan(&free); err != nil {
		return fmt.Errorf("reacquire sink %q: %w", lease.Sink, err)
	}
	if !free {
		return ErrFenced
	}
	err := s.conn.QueryRow(ctx, `
		WITH mine AS (UPDATE sinks SET backend = pg_backend_pid(), renewed_at = now() WHERE name = $1 AND epoch = $2 AND owner = $3 RETURNING 1)
		SELECT EXISTS (SELECT FROM mine)`, lease.Sink, lease.Epoch, s.id).Scan(&kept)
	if err == nil && !kept {
		_, err = s.conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lockKey(lease.Sink))
		err = errors.Join(ErrFenced, err)
	}
	return err
}

// Deregister removes the process from those that live.
func (s *Leaser) Deregister(ctx context.Context) error {
	_, err := s.conn.Exec(ctx, `DELETE FROM workers WHERE id = $1`, s.id)
	return err
}

// Acquire makes the process the owner of a sink. The lease is nil while another process owns it; one
// that has been silent for too long is evicted, so that a later call succeeds. The former
// owner's jobs end, and others take their place. The announcements are those of requests that may
// still be on their way. The error is a *Barred where the sink goes by another name now.
func (s *Leaser) Acquire(ctx context.Context, sink string) (*Lease, []Announcement, error) {
	var free bool
	if err := s.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockKey(sink)).Scan(&free); err != nil {
		return nil, nil, fmt.Errorf("acquire sink %q: %w", sink, err)
	}
	if !free {
		return nil, nil, s.evict(ctx, sink)
	}
	lease := &Lease{Sink: sink}
	var announced []Announcement
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
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
			UPDATE sinks SET owner = $2, epoch = epoch + 1, backend = pg_backend_pid(), renewed_at = now(), barred = '' WHERE name = $1 RETURNING epoch`, sink, s.id).Scan(&lease.Epoch)
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
		_, err = tx.Exec(ctx, requeueRunning, Queue(sink), s.id, longAgo, nil)
		return err
	})
	if err != nil {
		if !errors.As(err, new(*Barred)) {
			err = fmt.Errorf("acquire sink %q: %w", sink, err)
		}
		_, unlockErr := s.conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lockKey(sink))
		return nil, nil, errors.Join(err, unlockErr)
	}
	return lease, announced, nil
}

// Reclaim replaces the jobs of a sink that are marked running and that nobody runs: those fetched by a
// process that has died, and those that the owner id fetched longer than age ago and that are
// not in inHand, because the answer to its fetch was lost.
func (l *Ledger) Reclaim(ctx context.Context, sink, id string, age time.Duration, inHand []int64) error {
	if _, err := l.pool.Exec(ctx, requeueRunning, Queue(sink), id, age, inHand); err != nil {
		return fmt.Errorf("reclaim jobs of sink %q: %w", sink, err)
	}
	return nil
}

// longAgo is longer than any job runs.
const longAgo = 24 * time.Hour

// evict ends the session of an owner that has not renewed for too long. Its lock is free at the
// next attempt.
func (s *Leaser) evict(ctx context.Context, sink string) error {
	_, err := s.conn.Exec(ctx, `
		SELECT pg_terminate_backend(a.pid) FROM sinks s JOIN pg_stat_activity a ON a.pid = s.backend AND a.datname = current_database()
		WHERE s.name = $1 AND s.owner <> $2 AND s.renewed_at < now() - $3::interval AND a.pid <> pg_backend_pid()`, sink, s.id, Silence)
	if err != nil {
		return fmt.Errorf("evict the silent owner of sink %q: %w", sink, err)
	}
	return nil
}

// Release ends a lease, so that another process can acquire the sink at once.
func (s *Leaser) Release(ctx context.Context, lease Lease) error {
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE sinks SET owner = '', backend = NULL WHERE name = $1 AND epoch = $2 AND owner = $3`, lease.Sink, lease.Epoch, s.id)
	batch.Queue(`SELECT pg_advisory_unlock($1)`, lockKey(lease.Sink))
	if err := s.conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("release sink %q: %w", lease.Sink, err)
	}
	return nil
}

// Announcement is a write intent: which records a request may still change, and for how long.
type Announcement struct {
	Records []string
	Left    time.Duration
}

const recordSeparator = "\x1f"

// Announce stores the write intent id for the records of keys: for hold no new owner touches them. The
// same id again makes that longer. It is refused with ErrFenced once the lease has ended.
//
// It also stores the records intended: as they must be known if nobody learns the answer, with all
// that the requests may change in doubt.
func (l *Ledger) Announce(ctx context.Context, lease Lease, id uuid.UUID, keys []RecordKey, hold time.Duration, intended ...*Record) error {
	batch := &pgx.Batch{}
	batch.Queue(`SELECT partnersync_fence($1, $2)`, lease.Sink, lease.Epoch)
	queueRecords(batch, lease.state(), intended)
	batch.Queue(`INSERT INTO announcements (id, sink, epoch, records, until) VALUES ($1, $2, $3, $4, now() + $5::interval)
		ON CONFLICT (id) DO UPDATE SET records = excluded.records, until = excluded.until`, id, lease.Sink, lease.Epoch, keyTexts(keys), hold)
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
