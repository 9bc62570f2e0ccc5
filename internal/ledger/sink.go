package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Account remembers the account of the CRM that a sink writes to, and returns
// the one that it has been writing to so far: the given one where it is the first.
func (l *Ledger) Account(ctx context.Context, sink, account string) (string, error) {
	var known string
	err := l.pool.QueryRow(ctx, `
		INSERT INTO sinks (name, account) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET account = CASE WHEN sinks.account = '' THEN excluded.account ELSE sinks.account END
		RETURNING account`, sink, storable(account)).Scan(&known)
	if err != nil {
		return "", fmt.Errorf("remember the account of sink %q: %w", sink, err)
	}
	return known, nil
}

// Tokens returns what SetTokens stored for a sink; nil where there is nothing.
func (l *Ledger) Tokens(ctx context.Context, sink string) ([]byte, error) {
	var sealed []byte
	err := l.pool.QueryRow(ctx, `SELECT tokens FROM sinks WHERE name = $1`, sink).Scan(&sealed)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read the tokens of sink %q: %w", sink, err)
	}
	return sealed, nil
}

// SetTokens keeps the tokens of a sink over a restart. They are sealed by the caller.
func (l *Ledger) SetTokens(ctx context.Context, sink string, sealed []byte) error {
	_, err := l.pool.Exec(ctx, `INSERT INTO sinks (name, tokens) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET tokens = excluded.tokens`, sink, sealed)
	if err != nil {
		return fmt.Errorf("store the tokens of sink %q: %w", sink, err)
	}
	return nil
}

// Rename moves everything that is known under the name of a sink to another
// name: records, routes, counts and waiting jobs. It does nothing, and says so,
// where nothing is known under the former name; it is refused where records are
// known under both.
func (l *Ledger) Rename(ctx context.Context, former, name string) (bool, error) {
	moved := false
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var old, both bool
		err := tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM sinks WHERE name = $1) OR EXISTS (SELECT FROM routes WHERE sink = $1),
				EXISTS (SELECT FROM records WHERE sink = $1) AND EXISTS (SELECT FROM records WHERE sink = $2)`, former, name).Scan(&old, &both)
		if err != nil || !old {
			return err
		}
		if both {
			return errors.New("records are known under both names")
		}
		moved = true
		for _, statement := range []string{
			`UPDATE records SET sink = $2 WHERE sink = $1`,
			`UPDATE record_keys SET sink = $2 WHERE sink = $1`,
			`UPDATE routes SET sink = $2 WHERE sink = $1`,
			`UPDATE deliveries SET sink = $2 WHERE sink = $1`,
			`UPDATE tally_changes SET sink = $2 WHERE sink = $1`,
			`INSERT INTO tallies AS t (hour, source, sink, outcome, routes) SELECT hour, source, $2, outcome, routes FROM tallies WHERE sink = $1
				ON CONFLICT (hour, source, sink, outcome) DO UPDATE SET routes = t.routes + excluded.routes`,
			`DELETE FROM tallies WHERE sink = $1 AND $2 <> ''`,
			`UPDATE river_job SET queue = 'sink_' || $2, args = jsonb_set(args, '{sink}', to_jsonb($2::text))
				WHERE queue = 'sink_' || $1 AND state NOT IN ('completed', 'cancelled', 'discarded')`,
			`INSERT INTO sinks AS s (name, account, tokens) SELECT $2, account, tokens FROM sinks WHERE name = $1
				ON CONFLICT (name) DO UPDATE SET account = excluded.account, tokens = excluded.tokens`,
			`DELETE FROM sinks WHERE name = $1 AND $2 <> ''`,
		} {
			if _, err := tx.Exec(ctx, statement, former, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("rename sink %q to %q: %w", former, name, err)
	}
	return moved, nil
}
