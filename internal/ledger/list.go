package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// SetList keeps a list of a CRM: its entries, each by the names of its fields.
func (l *Ledger) SetList(ctx context.Context, sink, list string, entries []map[string]string) error {
	if entries == nil {
		entries = []map[string]string{}
	}
	_, err := l.pool.Exec(ctx, `
		INSERT INTO crm_lists (sink, list, entries) VALUES ($1, $2, $3)
		ON CONFLICT (sink, list) DO UPDATE SET entries = excluded.entries, read_at = excluded.read_at`, sink, list, entries)
	if err != nil {
		return fmt.Errorf("store the list %q of sink %q: %w", list, sink, err)
	}
	return nil
}

// List returns what SetList kept, and when; nothing where there is none.
func (l *Ledger) List(ctx context.Context, sink, list string) (entries []map[string]string, at time.Time, _ error) {
	err := l.pool.QueryRow(ctx, `SELECT entries, read_at FROM crm_lists WHERE sink = $1 AND list = $2`, sink, list).Scan(&entries, &at)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, at, fmt.Errorf("read the list %q of sink %q: %w", list, sink, err)
	}
	return entries, at, nil
}
