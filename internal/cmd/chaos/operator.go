package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// forget forgets a person, beside all that happens. Postgres may go away under it: settleForgets
// forgets who is left then.
func (w *world) forget(ctx context.Context, address string) {
	w.mu.Lock()
	_, done := w.forgotten[address]
	w.leaving[address] = !done
	w.mu.Unlock()
	w.errands.Go(func() { _ = w.forgets(ctx, address) })
}

func (w *world) forgets(ctx context.Context, address string) error {
	out, err := w.command(ctx, "forget", address, "--yes")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leaving[address] {
		w.leaving[address] = false
		w.forgotten[address] = time.Now()
	}
	return nil
}

// settleForgets forgets those of whom that failed.
func (w *world) settleForgets(ctx context.Context) error {
	w.errands.Wait()
	var err error
	for address, left := range w.leaving {
		if left {
			err = errors.Join(err, w.forgets(ctx, address))
		}
	}
	return err
}

// dropJobs deletes some jobs that nobody works just now, as somebody does who tidies up.
func (w *world) dropJobs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	_, _ = w.pool.Exec(ctx, `DELETE FROM river_job WHERE id IN (
		SELECT id FROM river_job WHERE kind = 'deliver' AND state IN ('available', 'scheduled', 'retryable') ORDER BY random() LIMIT 30)`) // Postgres may be away
	return nil
}

const (
	retention = 7 * 24 * time.Hour // what the config says
	relics    = 12                 // events that are old and done
	olds      = 3                  // those that are old and open
)

// age puts events into the tables that are too old to be kept: some have ended, others have not
// and must not be removed before.
func (w *world) age(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	then := time.Now().Add(-retention - time.Hour)
	made := map[uuid.UUID]bool{} // whether it is open
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		for i := range relics + olds {
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			var ms [8]byte
			binary.BigEndian.PutUint64(ms[:], uint64(then.UnixMilli()))
			copy(id[:6], ms[2:])
			open := i >= relics
			made[id] = open
			text := fmt.Sprintf(`{"ref":"old-%s","key":"old-%s","at":%d,"name":"old"}`, id, id, then.Unix())
			if err := w.insertOld(ctx, tx, id, then, text, open); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("put old events into the tables: %w", err)
	}
	for id, open := range made {
		if open {
			w.olds[id] = true
		} else {
			w.relics[id] = true
		}
	}
	return nil
}

func (w *world) insertOld(ctx context.Context, tx pgx.Tx, id uuid.UUID, then time.Time, text string, open bool) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO events (id, source, type, occurred_at, version_at, received_at, status, digest, body)
		VALUES ($1, 'shop', $2, to_timestamp($3), to_timestamp($3), $4, 'stored', decode(md5($5), 'hex'), convert_to($5, 'UTF8'))`, id, firmSaved, then.Unix(), then, text)
	if err != nil {
		return err
	}
	for _, sink := range sinksOf(firmSaved) {
		batch := &pgx.Batch{}
		batch.Queue(`INSERT INTO tally_changes VALUES (date_trunc('hour', now(), 'UTC'), 'shop', $1, 'opened', 1)`, sink)
		if open {
			batch.Queue(`INSERT INTO routes (event_id, sink, source, generation) VALUES ($1, $2, 'shop', 1)`, id, sink)
			batch.Queue(`INSERT INTO river_job (args, kind, max_attempts, priority, queue, state)
				VALUES (jsonb_build_object('event_ids', jsonb_build_array($1::uuid), 'sink', $2::text), 'deliver', 10000, 1, 'sink_' || $2, 'available')`, id, sink)
		} else {
			batch.Queue(`INSERT INTO routes (event_id, sink, source, generation, outcome, closed_at) VALUES ($1, $2, 'shop', 1, 'skipped', now())`, id, sink)
			batch.Queue(`INSERT INTO tally_changes VALUES (date_trunc('hour', now(), 'UTC'), 'shop', $1, 'skipped', 1)`, sink)
		}
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
	}
	return nil
}
