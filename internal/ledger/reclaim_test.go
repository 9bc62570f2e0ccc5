package ledger_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

// Jobs that run by the books and that nobody works get another in their place.
func TestReclaim(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	for _, tt := range []struct {
		name, by string
		age      time.Duration
		inHand   bool
		want     bool
	}{
		{"of a process that is gone", "gone", 0, false, true},
		{"of ours, begun just now", "ours", 0, false, false},
		{"of ours, and nobody works it", "ours", time.Hour, false, true},
		{"of ours, and under way for long", "ours", time.Hour, true, false},
	} {
		stored(t, l, "crm")
		var id int64
		err := pool.QueryRow(t.Context(), `
			UPDATE river_job SET state = 'running', attempt = 1, attempted_at = now() - $1::interval, attempted_by = ARRAY['first', $2]
			WHERE state = 'available' AND queue = 'sink_crm' RETURNING id`, tt.age, tt.by).Scan(&id)
		if err != nil {
			t.Fatal(err)
		}
		var inHand []int64
		if tt.inHand {
			inHand = []int64{id}
		}
		if err := l.Reclaim(t.Context(), "crm", "ours", time.Minute, inHand); err != nil {
			t.Fatal(err)
		}
		rows, err := pool.Query(t.Context(), `SELECT state::text || ' ' || (id = $1) FROM river_job ORDER BY id`, id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"running true"}
		if tt.want {
			want = []string{"cancelled true", "available false"}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if _, err := pool.Exec(t.Context(), `DELETE FROM river_job`); err != nil {
			t.Fatal(err)
		}
	}
}
