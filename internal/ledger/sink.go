package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// Look is what came of holding a config against a CRM.
type Look struct {
	At       time.Time `json:"at"`
	Config   string    `json:"config"` // its hash
	Errors   int       `json:"errors"` // of what the mappings name, so much is not there, or otherwise
	Warnings int       `json:"warnings"`
	Unseen   []string  `json:"unseen,omitempty"` // what could not be looked at, and why
}

// SetLook keeps what came of the last look.
func (l *Ledger) SetLook(ctx context.Context, sink string, look Look) error {
	_, err := l.pool.Exec(ctx, `INSERT INTO sinks (name, live) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET live = excluded.live`, sink, look)
	if err != nil {
		return fmt.Errorf("store what the CRM of sink %q lacks: %w", sink, err)
	}
	return nil
}
