//go:build unix

package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestStart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := begin(t, Options{Dir: dir})
	url := s.URL()
	for name, want := range map[string]string{
		"fsync":               "on",
		"synchronous_commit":  "on",
		"listen_addresses":    "127.0.0.1",
		"password_encryption": "scram-sha-256",
		"server_encoding":     "UTF8",
	} {
		if got := query[string](t, url, "SELECT current_setting($1)", name); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if got := query[string](t, s.TCPURL(), "SELECT current_database()"); got != "partnersync" {
		t.Errorf("database over TCP: %s", got)
	}
	if !runsIn(s.PID(), s.home.data()) {
		t.Errorf("PID %d is not that of the server", s.PID())
	}
	execute(t, url, "CREATE TABLE kept AS SELECT 7 AS n")
	for range 2 {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}

	s = begin(t, Options{Dir: dir, Settings: map[string]string{"work_mem": "5MB"}})
	if s.URL() != url {
		t.Error("another URL after a restart")
	}
	if n := query[int](t, url, "SELECT n FROM kept"); n != 7 {
		t.Errorf("kept %d, want 7", n)
	}
	if got := query[string](t, url, "SHOW work_mem"); got != "5MB" {
		t.Errorf("work_mem = %s, want what Settings say", got)
	}
}

// A fault in SQL reaches the database of partnersync and nothing else of the server.
func TestTheRoleIsNoSuperuser(t *testing.T) {
	t.Parallel()
	s := begin(t, Options{Dir: tempDir(t)})
	for _, url := range []string{s.URL(), s.TCPURL()} {
		if query[bool](t, url, "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = current_user") {
			t.Error("the role may do more than it needs")
		}
	}
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{
		"COPY (SELECT 1) TO PROGRAM 'cat'", "SELECT pg_read_file('postgresql.conf')", "SELECT rolpassword FROM pg_authid", "SELECT lo_import('/etc/passwd')",
		"ALTER SYSTEM SET work_mem = '5MB'", "SET session_preload_libraries = 'x'", "CREATE ROLE other", "CREATE DATABASE other", "SET ROLE postgres",
		"CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc.so.6', 'getpid'",
	} {
		_, err := conn.Exec(t.Context(), sql)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "42501" {
			t.Errorf("%s: %v, want a refusal", sql, err)
		}
	}
	for _, sql := range []string{"CREATE SCHEMA mine", "CREATE TABLE mine.t (n int)", "CREATE TABLE t (n int)", "SELECT pg_advisory_lock(1)", "LISTEN x", "VACUUM t"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// A directory that an earlier version made, whose only role is a superuser, goes on as it is.
func TestEarlierDirectory(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := begin(t, Options{Dir: dir, Superuser: true})
	execute(t, s.URL(), "CREATE TABLE kept AS SELECT 7 AS n")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = begin(t, Options{Dir: dir})
	if n := query[int](t, s.URL(), "SELECT n FROM kept"); n != 7 {
		t.Errorf("kept %d, want 7", n)
	}
}

func TestNobodyElseGetsIn(t *testing.T) {
	t.Parallel()
	s := begin(t, Options{Dir: tempDir(t)})
	for _, url := range []string{s.URL(), s.TCPURL()} {
		for _, password := range []string{"", "wrong"} {
			config, err := pgx.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.Password = password
			_, err = pgx.ConnectConfig(t.Context(), config)
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "28P01" {
				t.Errorf("password %q: %v, want a refusal", password, err)
			}
		}
	}
	for _, name := range []string{"password", "postgres.log", "data"} {
		info, err := os.Stat(s.home.file(name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&0o077 != 0 {
			t.Errorf("%s has mode %v: others can read it", name, info.Mode())
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(s.home.data(), &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid == 0 {
		t.Error("the data belongs to root")
	}
}

func TestLogTellsNoValues(t *testing.T) {
	t.Parallel()
	s := begin(t, Options{Dir: tempDir(t)})
	execute(t, s.URL(), "CREATE TABLE people (email text PRIMARY KEY)")
	execute(t, s.URL(), "INSERT INTO people VALUES ('ada@example.com')")
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, bad := range []string{
		"INSERT INTO people VALUES ($1)",
		"INSERT INTO people SELECT $1 FROM nowhere",
	} {
		if _, err := conn.Exec(t.Context(), bad, "ada@example.com"); err == nil {
			t.Fatalf("%s: no error", bad)
		}
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO people VALUES ('ada@example.com')"); err == nil {
		t.Fatal("no error")
	}
	text, err := os.ReadFile(s.home.file("postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "people_pkey") {
		t.Error("the log does not have the error")
	}
	if strings.Contains(string(text), "ada@") {
		t.Errorf("the log has a value:\n%s", text)
	}
}

func TestKilledOwner(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	owner := startOwner(t, dir, nil)
	execute(t, owner.url, "CREATE TABLE kept AS SELECT 7 AS n")
	owner.kill()
	data := filepath.Join(dir, "postgres", "data")
	until(t, "the server ends after its owner", func() bool { return !runsIn(owner.pid, data) })

	s := begin(t, Options{Dir: dir})
	if n := query[int](t, s.URL(), "SELECT n FROM kept"); n != 7 {
		t.Errorf("kept %d, want 7", n)
	}
}

// The owner is gone and its server is still at work, as when kill -9 took the
// owner a moment ago.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	old := begin(t, Options{Dir: dir})
	execute(t, old.URL(), "CREATE TABLE kept AS SELECT 7 AS n")
	old.home.close()

	s := begin(t, Options{Dir: dir})
	<-old.Done()
	if n := query[int](t, s.URL(), "SELECT n FROM kept"); n != 7 {
		t.Errorf("kept %d, want 7", n)
	}
}

func TestKilledServer(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := begin(t, Options{Dir: dir})
	execute(t, s.URL(), "CREATE TABLE kept AS SELECT 7 AS n")
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if err := s.Stop(); err == nil {
		t.Error("Stop does not tell that the server had ended by itself")
	}
	s = begin(t, Options{Dir: dir})
	if n := query[int](t, s.URL(), "SELECT n FROM kept"); n != 7 {
		t.Errorf("kept %d, want 7", n)
	}
}

func TestPIDOfSomebodyElse(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := begin(t, Options{Dir: dir})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	// After a restart of the machine the number may be that of any process: here, of
	// one that lives and must go on living.
	sleep := exec.Command("sleep", "1000")
	sleep.SysProcAttr = &syscall.SysProcAttr{Credential: ownerOf(t, s.home.data())}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		sleep.Process.Kill()
		sleep.Wait()
	}()
	stale := fmt.Sprintf("%d\n%s\n1\n5432\n\n127.0.0.1\n  1 1\nready\n", sleep.Process.Pid, s.home.data())
	if err := os.WriteFile(filepath.Join(s.home.data(), "postmaster.pid"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	begin(t, Options{Dir: dir})
	if err := sleep.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process: %v", err)
	}
}

func TestTwoOwners(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	owner := startOwner(t, dir, nil)
	want := fmt.Sprintf("private Postgres in %s: in use by process %d: stop it, or use another directory (database.dir)",
		dir, owner.cmd.Process.Pid)
	_, err := Start(t.Context(), Options{Dir: dir})
	if !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Errorf("second owner: %v\nwant: %s", err, want)
	}
	if err := Remove(t.Context(), dir); !errors.Is(err, ErrInUse) {
		t.Errorf("remove in use: %v", err)
	}
	if n := query[int](t, owner.url, "SELECT 7"); n != 7 {
		t.Error("the first owner's server was disturbed")
	}
	owner.end(t)
	begin(t, Options{Dir: dir})
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "none")
	_, err := Start(t.Context(), Options{Dir: dir, binaries: []string{t.TempDir()}})
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("error %v, want ErrNotFound", err)
	}
	for _, word := range []string{dir, "install", "DATABASE_URL"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q lacks %q", err, word)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made nevertheless: %v", err)
	}
}

func TestBadSetting(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	_, err := Start(t.Context(), Options{Dir: dir, Settings: map[string]string{"shared_buffers": "plenty", "fsync": "off"}})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers": "plenty"`) {
		t.Errorf("error %v, want what Postgres says", err)
	}
	begin(t, Options{Dir: dir}) // and the directory is free
}

func TestOtherVersion(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := begin(t, Options{Dir: dir, Settings: map[string]string{"fsync": "off"}})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.home.data(), "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "was made by Postgres 9, and installed is ") {
		t.Errorf("error %v", err)
	}
}

func TestLostPassword(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	s := begin(t, Options{Dir: dir, Settings: map[string]string{"fsync": "off"}})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	name := s.home.file("password")
	if err := os.WriteFile(name, []byte("changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("changed: %v", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), name+" is missing") {
		t.Errorf("missing: %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	// Programs that never finish stand in for slow ones.
	const sh = "#!/bin/sh\n"
	for _, tt := range []struct {
		name             string
		initdb, postgres string
		begun            string // exists when it is time to cancel
	}{
		{"while initdb runs", "exec sleep 1000", "", "data.new-*"},
		{"while the role is made", `true`, `exec sleep 1000`, "data.new-*"},
		{"while the server starts", `echo 15 > "$2/PG_VERSION"`, `[ "$1" = --single ] && exit; echo begun; exec sleep 1000`, "postgres.log"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, bin := tempDir(t), tempDir(t)
			for name, script := range map[string]string{
				"initdb":   sh + tt.initdb,
				"postgres": sh + `[ "$1" = --version ] && { echo "postgres (PostgreSQL) 15.1"; exit; }` + "\n" + tt.postgres,
			} {
				writeProgram(t, filepath.Join(bin, name), []byte(script+"\n"))
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := make(chan error, 1)
			go func() {
				_, err := Start(ctx, Options{Dir: dir, binaries: []string{bin}})
				failed <- err
			}()
			until(t, tt.begun, func() bool {
				found, _ := filepath.Glob(filepath.Join(dir, "postgres", tt.begun))
				return len(found) == 1
			})
			cancel()
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "postgres", "*.new-*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
			if err := Remove(t.Context(), dir); err != nil { // so the lock is free
				t.Error(err)
			}
		})
	}
}

// Below a directory that the account of Postgres cannot enter, as /root is for anyone.
func TestOutOfReach(t *testing.T) {
	t.Parallel()
	closed, elsewhere := tempDir(t), tempDir(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "clone", ".partnersync")
	o := Options{Dir: dir, elsewhere: elsewhere, Settings: map[string]string{"fsync": "off"}}
	s := begin(t, o)
	wantBelow := elsewhere
	if os.Geteuid() != 0 {
		wantBelow = dir // we run it as ourselves, and can reach what is ours
	}
	if !strings.HasPrefix(s.home.path, wantBelow+"/") {
		t.Errorf("home is %s, want one below %s", s.home.path, wantBelow)
	}
	execute(t, s.URL(), "CREATE TABLE kept AS SELECT 7 AS n")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = begin(t, o)
	if n := query[int](t, s.URL(), "SELECT n FROM kept"); n != 7 {
		t.Errorf("kept %d, want 7", n)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(elsewhere, "*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// Root's tests run Postgres as another user; here somebody ordinary runs it all.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	var as *syscall.Credential
	dir := tempDir(t)
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
		as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	owner := startOwner(t, dir, as)
	if as != nil {
		if got := ownerOf(t, filepath.Join(dir, "postgres", "data")); got.Uid != as.Uid {
			t.Errorf("the data belongs to %d, want %d", got.Uid, as.Uid)
		}
	}
	execute(t, owner.url, "CREATE TABLE kept AS SELECT 7 AS n")
	owner.end(t)
	// Root may go on with it, as whoever made it.
	s := begin(t, Options{Dir: dir})
	if n := query[int](t, s.URL(), "SELECT n FROM kept"); n != 7 {
		t.Errorf("kept %d, want 7", n)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	watched := exec.Command("sleep", "1000")
	watched.Stdout = w // closes when it ends, whoever reaps it
	if err := watched.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer watched.Process.Kill()
	another := command(nil, "LOCALPG_WATCH="+strconv.Itoa(watched.Process.Pid))
	out, err := another.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := another.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	another.Process.Kill()
	another.Wait()
	io.Copy(io.Discard, r)
	watched.Wait()
	if got := watched.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != syscall.SIGINT {
		t.Errorf("it ended by %v, want %v", got, syscall.SIGINT)
	}
}
