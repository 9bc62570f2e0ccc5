package ledger_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

// deliverArgs are the arguments of our jobs, as River's client is given them.
type deliverArgs struct {
	EventIDs []uuid.UUID `json:"event_ids"`
	Sink     string      `json:"sink"`
}

func (deliverArgs) Kind() string { return ledger.JobKind }

// What our statements write into River's table, and what they notify of, is what River's own client
// writes and notifies of.
func TestRiverWritesTheSame(t *testing.T) {
	t.Parallel()
	toCRM := func(string, string) []string { return []string{"crm"} }
	const remove = `DELETE FROM river_job`
	for _, tt := range []struct {
		name          string
		before, after string // statements around do, which leave the one job that is compared
		do            func(*testing.T, *ledger.Ledger, uuid.UUID) error
		opts          river.InsertOpts
		later         bool // River does not notify of a job that is to be worked later
	}{
		{name: "accept", before: remove + `; DELETE FROM routes; DELETE FROM events`, do: func(t *testing.T, l *ledger.Ledger, id uuid.UUID) error {
			e := event("t", "e", 1, "body", "crm")
			e.ID = id
			accept(t, l, e)
			return nil
		}},
		{name: "sweep", before: remove, do: func(t *testing.T, l *ledger.Ledger, _ uuid.UUID) error {
			_, _, err := l.Sweep(t.Context(), "crm", 0, ledger.Cursor{}, 10)
			return err
		}},
		{
			name: "replay", opts: river.InsertOpts{Priority: ledger.ReplayPriority}, before: remove + `; UPDATE routes SET outcome = 'dead'`,
			do: func(t *testing.T, l *ledger.Ledger, id uuid.UUID) error {
				_, _, err := l.Replay(t.Context(), ledger.ReplaySpec{Filter: ledger.Filter{IDs: []uuid.UUID{id}}, By: "tester", Generation: 1, Wants: toCRM})
				return err
			},
		},
		{
			name: "reclaim", before: `UPDATE river_job SET state = 'running', attempt = 1, attempted_at = now(), attempted_by = ARRAY['gone']`,
			do: func(t *testing.T, l *ledger.Ledger, _ uuid.UUID) error {
				return l.Reclaim(t.Context(), "crm", "ours", time.Hour, nil)
			},
			after: remove + ` WHERE state = 'cancelled'`,
		},
		{
			name: "stray", before: remove + `; UPDATE routes SET sink = 'former'; INSERT INTO sinks (name, renamed_to) VALUES ('former', 'crm')`,
			do: func(t *testing.T, l *ledger.Ledger, _ uuid.UUID) error {
				_, err := l.MoveStrays(t.Context(), "crm", 10)
				return err
			},
		},
		{
			name: "part", before: remove, later: true, opts: river.InsertOpts{ScheduledAt: time.Now().Add(time.Hour)},
			do: func(t *testing.T, l *ledger.Ledger, id uuid.UUID) error {
				return l.Write(t.Context(), own(t, l), &ledger.Report{Requeue: []ledger.Requeue{{Events: []uuid.UUID{id}, After: time.Hour}}})
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			l := ledger.New(pool)
			run := func(statements string) {
				if _, err := pool.Exec(t.Context(), statements, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatal(err)
				}
			}
			heard := listen(t, pool)
			id := stored(t, l, "crm")
			run(tt.before)
			heard()
			if err := tt.do(t, l, id); err != nil {
				t.Fatal(err)
			}
			run(tt.after)
			ours, told := rivers(t, pool), heard()

			client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{MaxAttempts: ledger.MaxAttempts})
			if err != nil {
				t.Fatal(err)
			}
			run(remove)
			tt.opts.Queue = ledger.Queue("crm")
			if _, err := client.Insert(t.Context(), deliverArgs{[]uuid.UUID{id}, "crm"}, &tt.opts); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(rivers(t, pool), ours); diff != "" {
				t.Errorf("the row (-River +ours):\n%s", diff)
			}
			if len(told) == 0 != tt.later {
				t.Errorf("notifications of ours: %q", told)
			}
			if diff := cmp.Diff(heard(), told); diff != "" {
				t.Errorf("notifications (-River +ours):\n%s", diff)
			}
		})
	}
}

// rivers are all rows of River, without ids and times.
func rivers(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	return query[string](t, pool, `SELECT jsonb_pretty(to_jsonb(j) - 'id' - 'created_at' - 'scheduled_at') FROM river_job j`)
}

// listen returns what tells the notifications of inserted jobs since it was called last.
func listen(t *testing.T, pool *pgxpool.Pool) (heard func() []string) {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig.Copy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	const over = "over"
	topic := query[string](t, pool, "SELECT current_schema()::text")[0] + ".river_insert"
	for _, channel := range []string{topic, over} {
		if _, err := conn.Exec(t.Context(), "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			t.Fatal(err)
		}
	}
	return func() []string {
		t.Helper()
		// Postgres gives notifications out in the order of the commits.
		if _, err := pool.Exec(t.Context(), "NOTIFY "+over); err != nil {
			t.Fatal(err)
		}
		var list []string
		for {
			n, err := conn.WaitForNotification(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n.Channel == over {
				return list
			}
			var payload bytes.Buffer
			if err := json.Compact(&payload, []byte(n.Payload)); err != nil {
				t.Fatal(err)
			}
			list = append(list, n.Channel+" "+payload.String())
		}
	}
}
