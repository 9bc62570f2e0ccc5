//go:build unix

package pgtest

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// TestMain doubles as another test process, which takes a database and is killed.
func TestMain(m *testing.M) {
	if os.Getenv("PGTEST_VICTIM") != "" {
		if m.Run() != 0 {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestURL(t *testing.T) {
	t.Parallel()
	one, two := Pool(t), Pool(t)
	ctx := t.Context()
	if _, err := one.Exec(ctx, "CREATE TABLE mine ()"); err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string][2]bool{
		"river_job": {true, true},
		"events":    {true, true},
		"mine":      {true, false},
	} {
		var got [2]bool
		if err := one.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&got[0]); err != nil {
			t.Fatal(err)
		}
		if err := two.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&got[1]); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("table %s in the two databases: %v, want %v", table, got, want)
		}
	}
}

func TestEmptyURL(t *testing.T) {
	t.Parallel()
	if n := query[int](t, EmptyURL(t), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"); n != 0 {
		t.Errorf("%d tables, want none", n)
	}
}

func TestDropped(t *testing.T) {
	t.Parallel()
	c := acquire(t)
	var name string
	t.Run("user", func(t *testing.T) {
		// A connection that nobody closes must not keep it.
		conn, err := pgx.Connect(t.Context(), URL(t))
		if err != nil {
			t.Fatal(err)
		}
		name = conn.Config().Database
	})
	if n := query[int](t, c.admin, "SELECT count(*) FROM pg_database WHERE datname = $1", name); n != 0 {
		t.Errorf("database %s is still there after its test", name)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[string]bool)
	for range 8 {
		wg.Go(func() {
			u := URL(t)
			mu.Lock()
			defer mu.Unlock()
			if seen[u] {
				t.Errorf("the same database twice")
			}
			seen[u] = true
		})
	}
	wg.Wait()
}

func TestGivenServer(t *testing.T) {
	given := Server(t)
	t.Setenv(EnvURL, given.URL())
	admin := given.URL()
	for _, name := range []string{testPrefix + "1_old", testPrefix + "9999999999_new"} {
		conn, err := pgx.Connect(t.Context(), admin)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
	}
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	clone := c.create(t, c.template)
	if !query[bool](t, clone, "SELECT to_regclass('river_job') IS NOT NULL") {
		t.Error("the clone has no river_job")
	}
	left := query[string](t, admin, "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE '%\\_old' OR datname LIKE '%\\_new'")
	if want := testPrefix + "9999999999_new"; left != want {
		t.Errorf("left of the databases of other processes: %q, want %q", left, want)
	}
}

func TestOwn(t *testing.T) {
	t.Parallel()
	o := Server(t)
	url := o.URL()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, "CREATE TABLE kept AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}

	for _, take := range []struct {
		name string
		away func()
	}{{"stop", o.Stop}, {"kill", o.Kill}} {
		take.away()
		if _, err := pgx.Connect(ctx, url); err == nil {
			t.Fatalf("after %s it still answers", take.name)
		}
		o.Start()
		if o.URL() != url {
			t.Fatalf("after %s it came back at another URL", take.name)
		}
		if n := query[int](t, url, "SELECT n FROM kept"); n != 7 {
			t.Errorf("after %s the row is %d", take.name, n)
		}
	}

	busy, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close(context.Background())
	o.Pause()
	answered := make(chan error, 1)
	go func() {
		_, err := busy.Exec(ctx, "SELECT 1")
		answered <- err
	}()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := pgx.Connect(short, url); err == nil {
		t.Error("a paused server let somebody in")
	}
	select {
	case <-answered:
		t.Error("a paused server answered")
	default:
	}
	o.Resume()
	if err := <-answered; err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

// A test process that is killed takes its server along, and the next one in its
// slot finds it in order.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	tmp, err := os.MkdirTemp("", "pgtest-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o711); err != nil {
		t.Fatal(err)
	}
	run := func() (*exec.Cmd, io.Closer, string) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.count=1")
		cmd.Env = append(os.Environ(), "PGTEST_VICTIM=1", "TMPDIR="+tmp, EnvURL+"=")
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if names, ok := strings.CutPrefix(lines.Text(), "databases: "); ok {
				return cmd, stdin, names
			}
		}
		t.Fatal("the other process took no database")
		return nil, nil, ""
	}
	cmd, _, first := run()
	cmd.Process.Kill()
	cmd.Wait()

	cmd, stdin, second := run()
	if strings.Count(second, testPrefix) != 1 || second == first {
		t.Errorf("databases of the second process: %s, want one of its own and not %s", second, first)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the second process: %v", err)
	}
	entries, err := os.ReadDir(tmp + "/partnersync-pgtest-" + strconv.Itoa(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 { // a slot and its lock
		t.Errorf("the two processes used %v, want one slot", entries)
	}
}

// TestVictim is the other process of TestKilledProcess.
func TestVictim(t *testing.T) {
	if os.Getenv("PGTEST_VICTIM") == "" {
		return
	}
	c := acquire(t)
	c.create(t, c.template)
	names := query[string](t, c.admin, "SELECT string_agg(datname, ' ') FROM pg_database WHERE starts_with(datname, '"+testPrefix+"')")
	os.Stdout.WriteString("databases: " + names + "\n")
	io.Copy(io.Discard, os.Stdin)
}

func BenchmarkURL(b *testing.B) {
	c := acquire(b)
	for b.Loop() {
		c.create(b, c.template)
	}
}

func query[T any](t testing.TB, url, sql string, args ...any) T {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var v T
	if err := conn.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
