package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"partnersync/internal/pgtest"
)

const spooling = "receiver: {listen: \"127.0.0.1:0\", spool: spool}"

// emptyDatabase makes a database without tables on a server.
func emptyDatabase(t *testing.T, db *pgtest.Own) string {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), db.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	// A server is used by one test after the other.
	for _, sql := range []string{"DROP DATABASE IF EXISTS fresh WITH (FORCE)", "CREATE DATABASE fresh"} {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return changed(t, db.URL(), func(u *url.URL) { u.Path = "/fresh" })
}

func changed(t *testing.T, address string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

// refusals are the warnings in the log that tell of a missing Postgres.
func (s *server) refusals() int { return strings.Count(s.said(), "Postgres does not answer") }

// Receiver and workers start while Postgres is away, and join it when it comes; the
// receiver takes events meanwhile where it has a spool.
func TestStartWithoutPostgres(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		spools     bool
		away, back func(*pgtest.Own)
	}{
		{"stopped, with a spool", true, (*pgtest.Own).Stop, (*pgtest.Own).Start},
		{"stopped, without a spool", false, (*pgtest.Own).Stop, (*pgtest.Own).Start},
		{"frozen, with a spool", true, (*pgtest.Own).Pause, (*pgtest.Own).Resume},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Server(t)
			config := shopConfig
			if tt.spools {
				config = strings.Replace(config, `receiver: {listen: "127.0.0.1:0"}`, spooling, 1)
			}
			w := newWorld(t, config, emptyDatabase(t, db))
			tt.away(db)
			worker := w.start("--only", "work")
			s := w.start("--only", "receive")
			page := func(s *server, path string) int {
				code, _ := s.get(s.admin + path)
				return code
			}
			ready, answer := http.StatusServiceUnavailable, http.StatusServiceUnavailable
			if tt.spools {
				ready, answer = http.StatusOK, http.StatusAccepted
			}
			if got := page(s, "/readyz"); got != ready {
				t.Errorf("the receiver's readyz answers %d, want %d", got, ready)
			}
			if got := page(worker, "/readyz"); got != http.StatusServiceUnavailable {
				t.Errorf("the worker's readyz answers %d", got)
			}
			if page(s, "/livez") != 200 || page(worker, "/livez") != 200 || page(s, "/metrics") != 200 {
				t.Error("they do not live")
			}
			began := time.Now()
			res, err := client.Post(s.hooks+"/hooks/shop/deal.updated?token="+hookToken, "application/json", strings.NewReader(`{"key": "early", "name": "x", "at": 1700000000}`))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != answer || (answer == 503) != (res.Header.Get("Retry-After") != "") {
				t.Errorf("the sender is answered %d after %s, want %d", res.StatusCode, time.Since(began), answer)
			}
			// Another config meanwhile: it is the one that counts when Postgres comes.
			w.write(strings.Replace(config, "event.name}", "upper(event.name)}", 1))
			for _, one := range []*server{s, worker} {
				if code, said := one.ask(http.MethodPost, one.admin+"/-/reload"); code != 200 {
					t.Errorf("a reload answers %d %s", code, said)
				}
			}
			tt.back(db)
			s.until("the receiver joins", func() bool {
				_, said := s.get(s.admin + "/readyz")
				return said == "ok\n"
			})
			worker.until("the worker joins", func() bool { return page(worker, "/readyz") == 200 })
			s.mustPost("late", 1, "y")
			worker.until("all has arrived", func() bool {
				got := w.titles()
				return got["late"] == "Y" && (got["early"] == "X" || !tt.spools)
			})
			if n := w.count("routes WHERE generation <= 0"); n != 0 {
				t.Errorf("%d routes have no config", n)
			}
			for _, one := range []*server{s, worker} {
				if n := one.refusals(); n < 1 || n > 2 {
					t.Errorf("the log tells %d times that Postgres is away", n)
				}
				one.stop()
			}
		})
	}
}

// A process that waits for Postgres drains at once.
func TestStopWithoutPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, "postgres://u:hush-hush@127.0.0.1:1/x")
	s := w.start()
	if n := strings.Count(s.said(), "refused"); n != 1 || strings.Contains(s.said(), "hush") {
		t.Errorf("the reason is told %d times", n)
	}
	s.stop()
}

// What waiting cannot mend ends the process at once, with one line.
func TestWrongDatabaseURL(t *testing.T) {
	t.Parallel()
	db := pgtest.Server(t)
	right := db.TCPURL()
	for _, tt := range []struct {
		name   string
		change func(*url.URL)
		want   string
	}{
		{"password", func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "hush-hush") }, `password authentication failed`},
		{"user", func(u *url.URL) { u.User = url.UserPassword("nobody", "hush-hush") }, `nobody`},
		{"database", func(u *url.URL) { u.Path = "/nowhere" }, `database "nowhere" does not exist`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, shopConfig, changed(t, right, tt.change))
			for _, only := range [][]string{{"run"}, {"run", "--only", "work"}, {"run", "--only", "receive"}} {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				cmd := w.command(only...)
				var out bytes.Buffer
				cmd.Stderr = &out
				defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
				err := cmd.Run()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
					t.Errorf("%v ends with %v", only, err)
				}
				line := regexp.MustCompile(`^partnersync: database\.url: Postgres at 127\.0\.0\.1:\d+ does not let us in: .*` + tt.want + `.* \(SQLSTATE \w{5}\)\n$`)
				if got := out.String(); !line.MatchString(got) || strings.Contains(got, "hush") {
					t.Errorf("%v says\n%s", only, got)
				}
			}
		})
	}
	// The same, when it is found out only later.
	w := newWorld(t, shopConfig, changed(t, right, func(u *url.URL) { u.Path = "/nowhere" }))
	db.Stop()
	s := w.start("--only", "receive")
	db.Start()
	s.end()
	var exit *exec.ExitError
	if !errors.As(s.err, &exit) || exit.ExitCode() != exitUsage || !strings.HasSuffix(s.said(), "(SQLSTATE 3D000)\n") {
		t.Errorf("it ends with %v:\n%s", s.err, s.said())
	}
}
