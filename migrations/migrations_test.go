package migrations_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"go.uber.org/goleak"

	"partnersync/internal/pgtest"
	"partnersync/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUp(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.EmptyURL(t)
	before := status(t, databaseURL)
	if slices.ContainsFunc(before, func(m migrations.Migration) bool { return m.Applied || !m.AppliedAt.IsZero() }) {
		t.Errorf("applied in an empty database: %v", before)
	}
	up(t, databaseURL)
	first := status(t, databaseURL)
	for i, m := range first {
		if !m.Applied || m.AppliedAt.IsZero() {
			t.Errorf("not applied: %+v", m)
		}
		if m.Name == "" || m.Name != before[i].Name || m.Version != before[i].Version {
			t.Errorf("before it was %+v, and after %+v", before[i], m)
		}
	}
	if first[0].Source != migrations.River || first[len(first)-1].Source != migrations.Partnersync {
		t.Errorf("order of the sources: %v", first)
	}
	up(t, databaseURL)
	if diff := cmp.Diff(first, status(t, databaseURL)); diff != "" {
		t.Errorf("the second time changed something:\n%s", diff)
	}
}

func TestUpConcurrently(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.EmptyURL(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = migrations.Up(t.Context(), databaseURL) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	for _, m := range status(t, databaseURL) {
		if !m.Applied {
			t.Errorf("not applied: %+v", m)
		}
	}
}

// A database in which an older River was migrated, also one from before its
// migrations had lines.
func TestUpFromOlderRiver(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 4, 6} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			databaseURL := pgtest.EmptyURL(t)
			pool, err := pgxpool.New(t.Context(), databaseURL)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			river, err := rivermigrate.New(riverpgxv5.New(pool), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = river.Migrate(t.Context(), rivermigrate.DirectionUp, &rivermigrate.MigrateOpts{TargetVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range status(t, databaseURL) {
				if want := m.Source == migrations.River && m.Version <= int64(version); m.Applied != want {
					t.Errorf("applied is %v: %+v", m.Applied, m)
				}
			}
			up(t, databaseURL)
			if diff := cmp.Diff(schema(t, pgtest.URL(t)), schema(t, databaseURL)); diff != "" {
				t.Errorf("schema (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	var sql strings.Builder
	if err := migrations.Print(&sql); err != nil {
		t.Fatal(err)
	}
	databaseURL := pgtest.EmptyURL(t)
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.PgConn().Exec(t.Context(), sql.String()).Close(); err != nil {
		t.Fatalf("the script fails: %v", err)
	}
	if diff := cmp.Diff(schema(t, pgtest.URL(t)), schema(t, databaseURL)); diff != "" {
		t.Errorf("schema by the script (-by Up +by the script):\n%s", diff)
	}
	for _, m := range status(t, databaseURL) {
		if !m.Applied {
			t.Errorf("the script leaves pending: %+v", m)
		}
	}
	up(t, databaseURL)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	good, err := url.Parse(pgtest.EmptyURL(t))
	if err != nil {
		t.Fatal(err)
	}
	wrong := *good
	wrong.User = url.UserPassword(good.User.Username(), "hunter2")
	nowhere := *good
	nowhere.Path = "/nowhere"

	for _, tt := range []struct{ name, give, want string }{
		{
			"not a URL", "postgres://me:hunter2@ho st:54 32/%zz",
			"database URL: not understood, want postgres://user:password@host:port/database",
		},
		{
			"bad port", "postgres://me:hunter2@localhost:hunter2/x",
			"database URL: not understood, want postgres://user:password@host:port/database",
		},
		{
			"nobody listens", "postgres://me:hunter2@127.0.0.1:1/x?sslmode=disable",
			"read applied migrations: cannot reach Postgres at 127.0.0.1:1: connect: connection refused",
		},
		{
			"wrong password", wrong.String(),
			`read applied migrations: FATAL: password authentication failed for user "` + good.User.Username() + `" (SQLSTATE 28P01)`,
		},
		{
			"no such database", nowhere.String(),
			`read applied migrations: FATAL: database "nowhere" does not exist (SQLSTATE 3D000)`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := migrations.Up(t.Context(), tt.give)
			if err == nil {
				t.Fatal("no error")
			}
			if _, statusErr := migrations.Status(t.Context(), tt.give); statusErr == nil || statusErr.Error() != err.Error() {
				t.Errorf("Status says %v, and Up %v", statusErr, err)
			}
			got := err.Error()
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("error %q, want %q", got, tt.want)
			}
			if strings.ContainsAny(got, "\n\t") || strings.Contains(got, "hunter2") {
				t.Errorf("error is not one line without the password: %q", got)
			}
		})
	}
}

// What stands in the way is named, with the migration that met it.
func TestObstacle(t *testing.T) {
	t.Parallel()
	for table, want := range map[string]string{
		"events":    `migration 00001_init.sql: ERROR: relation "events" already exists (SQLSTATE 42P07)`,
		"river_job": `river migrations: ERROR: relation "river_job" already exists (SQLSTATE 42P07)`,
	} {
		databaseURL := pgtest.EmptyURL(t)
		conn, err := pgx.Connect(t.Context(), databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "CREATE TABLE "+table+" ()"); err != nil {
			t.Fatal(err)
		}
		if err := migrations.Up(t.Context(), databaseURL); err == nil || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
		if _, err := conn.Exec(t.Context(), "DROP TABLE "+table); err != nil {
			t.Fatal(err)
		}
		up(t, databaseURL) // nothing half done is in the way
	}
}

func up(t *testing.T, databaseURL string) {
	t.Helper()
	if err := migrations.Up(t.Context(), databaseURL); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, databaseURL string) []migrations.Migration {
	t.Helper()
	list, err := migrations.Status(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// schema describes all tables, indexes, constraints, types and functions.
func schema(t *testing.T, databaseURL string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), `
SELECT concat_ws(' ', 'column', table_name, ordinal_position, column_name, data_type, udt_name, column_default, is_nullable)
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT concat_ws(' ', 'label', enumtypid::regtype, enumlabel, enumsortorder) FROM pg_enum
UNION ALL SELECT concat_ws(' ', 'options', oid::regclass, relpersistence, reloptions) FROM pg_class
WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
