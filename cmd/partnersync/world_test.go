package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/sandbox"
)

// patience bounds every wait for a condition; only a broken test reaches it.
const patience = time.Minute

const (
	hookToken = "tok-of-the-hooks"
	crmToken  = "tok-of-the-crm"
)

const shopConfig = `
database: {url: "${DATABASE_URL:-}", dir: pg, max_connections: 8}
receiver: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
sources:
  shop:
    verify: {token: "${HOOK_TOKEN}"}
    events:
      deal.updated:
        schema: {key: id, name: text, at: time s}
        entity: {deal: event.key}
        occurred_at: event.at
sinks:
  crm:
    preset: hubspot
    base_url: "${CRM_URL}"
    auth: {token: "${CRM_TOKEN}"}
    limits: []
    timeout: 2s
    settle: 300ms
mappings:
  - name: deals
    on: shop.deal.updated
    to: crm
    object: orders
    key: {order_key: event.key}
    set: {title: event.name}
`

// world is what processes run in: a folder with a config, a CRM, perhaps a database.
type world struct {
	t   *testing.T
	dir string
	box *sandbox.Server
	env []string
	url string // of the database; "" for a private one

	writes atomic.Int64 // requests about orders that the CRM has got, answered or not
}

func newWorld(t *testing.T, config, databaseURL string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "partnersync-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // started by root, Postgres runs as somebody else
		t.Fatal(err)
	}
	box := sandbox.New(sandbox.Options{Token: crmToken, Custom: map[string][]sandbox.Property{
		"hubspot/orders": {{Name: "order_key", Unique: true}, {Name: "title"}},
	}})
	w := &world{t: t, dir: dir, box: box, url: databaseURL}
	crm := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/orders/") {
			w.writes.Add(1)
		}
		box.ServeHTTP(rw, r)
	}))
	t.Cleanup(crm.Close)
	t.Cleanup(box.Reset)
	w.write(config)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "DATABASE_URL=") {
			w.env = append(w.env, kv)
		}
	}
	w.env = append(w.env, "HOOK_TOKEN="+hookToken, "CRM_TOKEN="+crmToken, "CRM_URL="+crm.URL+"/hubspot", "DATABASE_URL="+databaseURL)
	return w
}

// write replaces the config file.
func (w *world) write(config string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "config.yaml"), []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// built is the binary that all tests run; TestMain removes it.
var built struct {
	sync.Once
	dir string
	err error
}

// binary builds partnersync, once for all tests.
func binary() (string, error) {
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "partnersync-binary-"); built.err != nil {
			return
		}
		if out, err := exec.Command("go", "build", "-o", built.dir, ".").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	return filepath.Join(built.dir, "partnersync"), built.err
}

func (w *world) command(args ...string) *exec.Cmd {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	return cmd
}

// run runs a command to its end and returns what it printed.
func (w *world) run(args ...string) string {
	w.t.Helper()
	cmd := w.command(args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("partnersync %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return string(out)
}

// server is a `partnersync run` under way.
type server struct {
	*world
	cmd          *exec.Cmd
	hooks, admin string        // base URLs
	ended        chan struct{} // closed when the process has ended

	mu    sync.Mutex
	log   strings.Builder
	err   error // of Wait; read it after ended
	lines chan struct{}
}

// start runs the process and waits until it serves.
func (w *world) start(args ...string) *server {
	w.t.Helper()
	s := &server{world: w, cmd: w.command(append([]string{"run"}, args...)...), ended: make(chan struct{}), lines: make(chan struct{}, 1)}
	errOut, err := s.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		for r := bufio.NewScanner(errOut); r.Scan(); {
			s.mu.Lock()
			s.log.WriteString(r.Text() + "\n")
			s.mu.Unlock()
		}
		s.err = s.cmd.Wait()
	}()
	w.t.Cleanup(func() {
		s.kill()
		if w.t.Failed() {
			w.t.Logf("partnersync run %v:\n%s", args, s.said())
		}
	})
	s.until("it runs", func() bool {
		for line := range strings.Lines(s.said()) {
			var entry struct{ Msg, Hooks, Admin string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "partnersync runs" {
				s.hooks, s.admin = "http://"+entry.Hooks, "http://"+entry.Admin
				return true
			}
		}
		return false
	})
	return s
}

func (s *server) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// kill ends the process as kill -9 does.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop drains the process and expects exit code 0.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.end()
	if s.err != nil {
		s.t.Errorf("a graceful stop ends with %v", s.err)
	}
}

// end waits for the end of the process.
func (s *server) end() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatal("the process does not end")
	}
}

// until waits for a condition while the process runs.
func (s *server) until(what string, holds func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-s.ended:
			s.t.Fatalf("the process has ended (%v) while waiting: %s", s.err, what)
		case <-deadline:
			s.t.Fatalf("waited in vain: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// client keeps no connections, so that none outlives its test.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get returns status and body of a page.
func (s *server) get(url string) (int, string) {
	s.t.Helper()
	return s.ask(http.MethodGet, url)
}

func (s *server) ask(method, url string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// post sends a deal and returns the id of the event; "" where it was not accepted.
func (s *server) post(key string, at int, name string) (string, error) {
	return s.postBody(fmt.Sprintf(`{"key": %q, "name": %q, "at": %d}`, key, name, 1_700_000_000+at))
}

func (s *server) postBody(body string) (string, error) {
	res, err := client.Post(s.hooks+"/hooks/shop/deal.updated?token="+hookToken, "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct{ ID, Status string }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusAccepted || answer.Status != "stored" {
		return "", fmt.Errorf("%d %s", res.StatusCode, answer.Status)
	}
	return answer.ID, nil
}

func (s *server) mustPost(key string, at int, name string) string {
	s.t.Helper()
	id, err := s.post(key, at, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// metric is the value of a series as /metrics tells it.
func (s *server) metric(series string) float64 {
	s.t.Helper()
	_, page := s.get(s.admin + "/metrics")
	m := regexp.MustCompile(`(?m)^partnersync_` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(page)
	if m == nil {
		s.t.Fatalf("there is no series %s", series)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// titles are the titles of the CRM's orders by key.
func (w *world) titles() map[string]string {
	titles := map[string]string{}
	for _, r := range w.box.Records("hubspot", "orders") {
		titles[fmt.Sprint(r.Properties["order_key"])] = fmt.Sprint(r.Properties["title"])
	}
	return titles
}

// count counts rows of the world's database.
func (w *world) count(from string) int {
	w.t.Helper()
	pool, err := pgxpool.New(context.Background(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer pool.Close()
	var n int
	if err := pool.QueryRow(context.Background(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// storm posts from several senders until the process takes no more, and returns the ids that it has accepted.
func (s *server) storm(prefix string) (accepted func() []string) {
	var mu sync.Mutex
	var ids []string
	var senders sync.WaitGroup
	for i := range 4 {
		senders.Go(func() {
			for n := 0; ; n++ {
				id, err := s.post(fmt.Sprintf("%s-%d-%d", prefix, i, n), 1, "n")
				if err != nil {
					return
				}
				mu.Lock()
				ids = append(ids, id)
				mu.Unlock()
			}
		})
	}
	return func() []string {
		senders.Wait()
		return ids
	}
}
