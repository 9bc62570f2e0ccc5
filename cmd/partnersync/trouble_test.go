package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// exec runs a command to its end and returns the exit code and what it printed.
func (w *world) exec(args ...string) (code int, out, errOut string) {
	w.t.Helper()
	cmd := w.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// change runs statements in the world's database.
func (w *world) change(statements ...string) {
	w.t.Helper()
	pool, err := pgxpool.New(context.Background(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer pool.Close()
	for _, sql := range statements {
		if _, err := pool.Exec(context.Background(), sql); err != nil {
			w.t.Fatal(err)
		}
	}
}

// What cannot start says why in one line, and that it is for the operator to mend.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		from, to    string // in the config
		own         bool   // with a private Postgres
		want, never string
	}{
		{"the data directory is a file", "dir: pg", "dir: config.yaml", true, `^partnersync: private Postgres in \S+/config\.yaml: .*not a directory\n$`, ""},
		{"nobody may write the data directory", "dir: pg", "dir: /proc/partnersync", true, `^partnersync: private Postgres in /proc/partnersync: .*(no such file or directory|permission denied)\n$`, ""},
		{"the spool is a file", `{listen: "127.0.0.1:0"}` + "\nadmin", `{listen: "127.0.0.1:0", spool: config.yaml}` + "\nadmin", false, `^partnersync: .*config\.yaml.*not a directory\n$`, ""},
		{"nobody may write the spool", `{listen: "127.0.0.1:0"}` + "\nadmin", `{listen: "127.0.0.1:0", spool: /proc/spool}` + "\nadmin", false, `^partnersync: .*/proc/spool.*(no such file or directory|permission denied)\n$`, ""},
		{"an address that is none", `receiver: {listen: "127.0.0.1:0"}`, `receiver: {listen: "127.0.0.1:port"}`, false, `listen`, ""},
		{"an address of somebody else", `admin: {listen: "127.0.0.1:0"}`, `admin: {listen: "203.0.113.7:8081", token: geheim-geheim-geheim}`, false, `^partnersync: admin\.listen: cannot listen on 203\.0\.113\.7:8081: .*cannot assign requested address\n$`, "geheim"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url := ""
			if !tt.own {
				url = pgtest.URL(t)
			}
			config := strings.Replace(shopConfig, tt.from, tt.to, 1)
			if config == shopConfig {
				t.Fatal("the config is as before")
			}
			w := newWorld(t, config, url)
			code, out, errOut := w.exec("run")
			if code != exitUsage || out != "" || !regexp.MustCompile(tt.want).MatchString(errOut) || tt.never != "" && strings.Contains(errOut, tt.never) {
				t.Errorf("exit %d\n%s%s", code, out, errOut)
			}
		})
	}
}

// The admin listener tells nothing to those who do not know the token, but probes.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	const token = "tok-of-the-admin"
	w := newWorld(t, strings.Replace(shopConfig, `admin: {listen: "127.0.0.1:0"}`, `admin: {listen: "127.0.0.1:0", token: `+token+`}`, 1), pgtest.URL(t))
	s := w.start()
	for _, tt := range []struct {
		name   string
		give   func(*http.Request)
		path   string
		method string
		want   int
	}{
		{"nothing", func(*http.Request) {}, "/metrics", "GET", 401},
		{"a wrong bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") }, "/metrics", "GET", 401},
		{"an empty bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, "/metrics", "GET", 401},
		{"a wrong password", func(r *http.Request) { r.SetBasicAuth("prometheus", "guess") }, "/metrics", "GET", 401},
		{"the token as the user", func(r *http.Request) { r.SetBasicAuth(token, "") }, "/metrics", "GET", 401},
		{"a reload with nothing", func(*http.Request) {}, "/-/reload", "POST", 401},
		{"the bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, "/metrics", "GET", 200},
		{"the password", func(r *http.Request) { r.SetBasicAuth("prometheus", token) }, "/metrics", "GET", 200},
		{"a reload", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, "/-/reload", "POST", 200},
		{"a probe", func(*http.Request) {}, "/livez", "GET", 200},
		{"another probe", func(*http.Request) {}, "/readyz", "GET", 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, s.admin+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		tt.give(r)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != tt.want || strings.Contains(string(page), token) {
			t.Errorf("%s: %d, %v, %.200s", tt.name, res.StatusCode, err, page)
		}
		if tt.want == 401 && (string(page) != "the admin token is missing or wrong\n" || res.Header.Get("WWW-Authenticate") == "") {
			t.Errorf("%s: %q", tt.name, page)
		}
	}
	s.stop()
	if strings.Contains(s.said(), token) {
		t.Error("the log tells the token")
	}
}

// Whoever scrapes while the process drains gets all metrics, and the process still ends well.
func TestScrapeDuringShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(shopConfig, "timeout: 2s", "timeout: 1m", 1), pgtest.URL(t))
	w.box.Fault(sandbox.Fault{Path: "/orders/", Effect: sandbox.EffectNone, Latency: 3 * time.Second})
	s := w.start()
	s.mustPost("d1", 1, "n")
	s.until("a request hangs", func() bool { return w.writes.Load() == 1 })
	s.signal(syscall.SIGTERM)
	s.until("it drains", func() bool { return strings.Contains(s.said(), "draining") })
	code, page := s.get(s.admin + "/metrics")
	if code != 200 || !strings.Contains(page, "partnersync_postgres_up 1") || !strings.Contains(page, "\npartnersync_deliveries_total{") {
		t.Errorf("a scrape is answered %d, %d bytes", code, len(page))
	}
	s.end()
	if s.err != nil {
		t.Errorf("it ends with %v", s.err)
	}
}

// An event that waits in the spool while its person is forgotten brings nobody back.
func TestForgottenWhileSpooled(t *testing.T) {
	t.Parallel()
	db := pgtest.Server(t)
	w := newWorld(t, strings.Replace(shopConfig, `receiver: {listen: "127.0.0.1:0"}`, spooling, 1), db.URL())
	s := w.start()
	s.mustPost("d1", 1, "Jane@example.com asks")
	s.until("it has arrived", func() bool { return w.count(`routes WHERE outcome = 'delivered'`) == 1 })
	db.Stop()
	for _, body := range []string{
		`{"key": "d1", "name": "jane@example.com asks again", "at": 1700000002}`,
		`{"key": "d2", "name": "new here: JANE@example.com", "at": 1700000003}`,
		`{"key": "d3", "name": "Joe asks", "at": 1700000004}`,
	} {
		res, err := client.Post(s.hooks+"/hooks/shop/deal.updated?token="+hookToken, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusAccepted {
			t.Fatalf("answered %d", res.StatusCode)
		}
	}
	s.kill() // nothing drains before she is forgotten
	db.Start()
	if code, out, errOut := w.exec("forget", "jane@example.com", "--yes"); code != 0 || !strings.HasPrefix(out, "erased: 1 event,") {
		t.Fatalf("exit %d, %s%s", code, out, errOut)
	}
	if !spooled(t, w.dir, "jane@example.com") {
		t.Fatal("the spool does not hold her: the test proves nothing")
	}
	s = w.start()
	s.until("the spool is drained", func() bool { return w.count("events") == 4 && w.count("routes WHERE outcome IS NULL") == 0 })
	if n := w.count(`events WHERE status = 'erased' AND body = '' AND headers IS NULL`); n != 3 {
		t.Errorf("%d events are erased", n)
	}
	if n := w.count(`routes WHERE outcome = 'skipped' AND reason = 'a forgotten person'`); n != 2 {
		t.Errorf("%d routes are skipped", n)
	}
	for _, table := range []string{"events", "records", "deliveries", "record_keys", "river_job"} {
		if n := w.count(table + ` t WHERE to_jsonb(t)::text ~* 'jane' OR to_jsonb(t)::text ~* encode('jane@', 'hex')`); n != 0 {
			t.Errorf("%s holds her in %d rows", table, n)
		}
	}
	if got := w.titles(); got["d3"] != "Joe asks" || got["d2"] != "" || got["d1"] != "Jane@example.com asks" {
		t.Errorf("the CRM has %v", got)
	}
	s.until("the spool holds her no more", func() bool { return !spooled(t, w.dir, "jane@example.com") })
	s.stop()
}

// spooled reports whether a file of the spool holds a text, in any case.
func spooled(t *testing.T, dir, text string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "spool", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && bytes.Contains(bytes.ToLower(data), []byte(text)) {
			return true
		}
	}
	return false
}

// The ledger knows what became of every route, whatever becomes of River's jobs, and says so when a route is lost.
func TestLedgerWithoutJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	s := w.start()
	for _, key := range []string{"d1", "d2", "d3", "d4"} {
		s.mustPost(key, 1, "n")
	}
	s.until("all has arrived", func() bool { return w.count(`routes WHERE outcome = 'delivered'`) == 4 })
	s.stop()
	receiver := w.start("--only", "receive")
	receiver.mustPost("d5", 1, "waits")
	receiver.stop()
	for _, step := range []string{
		`UPDATE river_job SET state = 'discarded', finalized_at = now() WHERE id = (SELECT min(id) FROM river_job)`,
		`UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE state = 'available'`,
		`DELETE FROM river_job WHERE state = 'completed'`,
		`TRUNCATE river_job`,
	} {
		w.change(step)
		code, out, errOut := w.exec("ledger")
		if code != 0 || !regexp.MustCompile(`shop +crm +5 += +4 +0 +0 +0 +0 +0 +\(0 +0\) +1 +\+ +0`).MatchString(out) {
			t.Errorf("after %s: exit %d, %s%s", step, code, out, errOut)
		}
	}
	w.change(`DELETE FROM routes WHERE outcome IS NULL`)
	code, out, errOut := w.exec("ledger")
	if code != exitFailed || !strings.Contains(errOut, "1 routes are unaccounted for") || !strings.Contains(out, "shop") {
		t.Errorf("a route is lost: exit %d, %s%s", code, out, errOut)
	}
	if code, out, _ := w.exec("--json", "ledger", "--since", "1h"); code != exitFailed || !strings.Contains(out, `"unaccounted": 1`) {
		t.Errorf("as JSON: exit %d, %s", code, out)
	}
}

// A replay whose process is killed can be seen, continued and cancelled.
func TestReplayKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	w.change(`
		INSERT INTO events (id, source, type, version_at, received_at, status, digest, body)
		SELECT gen_random_uuid(), 'shop', 'deal.updated', now(), now(), 'stored', substr(sha256(g::text::bytea), 1, 16), '{}' FROM generate_series(1, 15000) g`)
	cmd := w.command("replay", "--all")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	deadline := time.After(patience)
	for w.count(`routes`) == 0 {
		select {
		case <-deadline:
			t.Fatal("it opens nothing")
		case <-ended:
			t.Fatal("it has ended too soon")
		case <-time.After(5 * time.Millisecond):
		}
	}
	_ = cmd.Process.Kill()
	<-ended
	w.change(`UPDATE replays SET moved_at = moved_at - interval '1 minute'`) // time passes
	if opened := w.count(`routes`); opened == 15000 {
		t.Skip("it was faster than the signal")
	}
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"replay --list", 0, "(?s)cut short.*everything.*partnersync replay --continue 1"},
		{"replay --list --all", 2, "stand alone"},
		{"replay --continue 2", 1, "there is no replay 2 under way: `partnersync replay --list` lists them"},
		{"replay --continue 1", 0, `^replay 1: \d+ routes opened; live events go first\n$`},
		{"replay --continue 1", 1, "replay 1: the replay is complete"},
		{"replay --list", 0, `working +15000 +0 +15000 +15000 +everything`},
		{"replay --cancel 1", 0, "^replay 1 is cancelled: 15000 routes had not been sent\n$"},
		{"replay --cancel 1", 1, "there is no replay 1 under way"},
		{"replay --continue 1", 1, "replay 1: the replay is cancelled"},
		{"ledger", 0, `shop +crm +15000 += +0 +0 +0 +15000 +0 +0 +\(0 +0\) +0 +\+ +0`},
	} {
		if code, out, errOut := w.exec(strings.Fields(tt.args)...); code != tt.code || !regexp.MustCompile(tt.want).MatchString(out+errOut) {
			t.Errorf("%s: exit %d, %s%s", tt.args, code, out, errOut)
		}
	}
}
