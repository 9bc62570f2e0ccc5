package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Ledger runs the statements. It is safe for concurrent use.
type Ledger struct{ pool *pgxpool.Pool }

// New returns a Ledger on pool; the caller closes the pool.
func New(pool *pgxpool.Pool) *Ledger { return &Ledger{pool} }

// AfterConnect prepares a connection; it is for the AfterConnect of a pool's config. Every query
// of a running process has an index, but statistics lag behind a growing queue and the planner would
// keep choosing sequential scans; so they are off. Generic plans save planning each query anew.
func AfterConnect(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config('enable_seqscan', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false)`)
	if err != nil {
		return fmt.Errorf("prepare a connection: %w", err)
	}
	return nil
}

// uuids are ids as pgx writes them without detours; a slice of uuid.UUID it takes for
// one of driver.Valuers, each of which becomes a text first and is parsed again.
type uuids = pgtype.FlatArray[[16]byte]

func asUUIDs(list []uuid.UUID) uuids {
	ids := make(uuids, len(list))
	for i, id := range list {
		ids[i] = id
	}
	return ids
}

// Refused reports whether Postgres looked at the statement and refused it for
// its data, so that the same statement can never succeed.
func Refused(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "22", "23", "54": // data exception, constraint violation, limit exceeded
		return true
	}
	return false
}

// collided reports whether another transaction was in the way, so that the same statement may be run again.
func collided(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40P01", "40001":
		return true
	case "23505": // an event that is given again was being stored all the while: now it is known
		return pg.ConstraintName == "events_pkey"
	}
	return false
}

// run sends a batch as one implicit transaction, one round trip, again when it collides.
func (l *Ledger) run(send func() error) error {
	var err error
	for range 5 {
		if err = send(); err == nil || !collided(err) {
			return err
		}
	}
	return err
}
