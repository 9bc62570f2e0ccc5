package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// One process on an empty machine: its own Postgres, both vendors' samples over HTTP, and what it says of itself.
func TestRunOnAnEmptyMachine(t *testing.T) {
	t.Parallel()
	config := strings.Replace(shopConfig, "sources:\n", `sources:
  partnerstack: {preset: partnerstack, verify: {token: "${HOOK_TOKEN}"}}
  everflow: {preset: everflow, verify: {token: "${HOOK_TOKEN}"}}
`, 1) + `
  - name: partners
    on: [partnerstack.*, everflow.*]
    to: crm
    object: orders
    key: {order_key: hook.id}
    set: {title: hook.type}
`
	w := newWorld(t, config, "")
	s := w.start()
	for page, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200, "/hooks/shop": 404, "/": 404} {
		if got, _ := s.get(s.admin + page); got != want {
			t.Errorf("admin %s: %d, want %d", page, got, want)
		}
	}
	for _, page := range []string{"/metrics", "/readyz", "/-/reload", "/"} {
		if got, _ := s.get(s.hooks + page); got != 404 {
			t.Errorf("the public listener serves %s: %d", page, got)
		}
	}
	out := w.run("send", "--to", s.hooks)
	if got := strings.Count(out, "202  stored"); got != 27 {
		t.Errorf("%d samples were stored:\n%s", got, out)
	}
	if out := w.run("send", "--to", s.hooks, "--source", "everflow"); strings.Count(out, "200  duplicate") == 0 ||
		!strings.Contains(out, "nothing happened: the same body was sent before; `partnersync replay --source everflow` maps it anew") {
		t.Errorf("the same samples again:\n%s", out)
	}
	s.until("everything has arrived", func() bool { return len(w.titles()) == 27 })
	s.until("the metrics say so", func() bool {
		return s.metric(`deliveries_total{mapping="partners",outcome="delivered",sink="crm"}`) == 27
	})
	if s.metric("postgres_up") != 1 || s.metric(`sink_state{sink="crm",state="ready"}`) != 1 || s.metric("config_last_reload_successful") != 1 {
		t.Error("the metrics do not say that all is well")
	}
	for _, token := range []string{hookToken, crmToken} {
		if _, page := s.get(s.admin + "/metrics"); strings.Contains(page, token) || strings.Contains(s.said(), token) {
			t.Error("a secret stands in the metrics or the log")
		}
	}

	// kill -9 takes the private Postgres along; the next process takes the data over and does the rest.
	lift := w.box.Fault(sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "120"})
	s.mustPost("d1", 1, "before the end")
	s.until("the sink waits", func() bool { return s.metric(`sink_state{sink="crm",state="throttled"}`) == 1 })
	s.kill()
	lift()
	s = w.start()
	s.mustPost("d2", 1, "after it")
	s.until("the wait has outlived the process", func() bool { return s.metric(`sink_state{sink="crm",state="throttled"}`) == 1 })
	s.stop()
	if strings.Contains(s.said(), `"level":"ERROR"`) {
		t.Error("a graceful stop logs errors")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "pg")); err != nil {
		t.Errorf("the data is gone: %v", err)
	}
}

// A bad reload leaves the old config in force and says why; a good one takes effect, for pending jobs too.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	s := w.start()
	lift := w.box.Fault(sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "4"})
	s.mustPost("pending", 1, "x")
	s.until("the sink waits", func() bool { return s.metric(`sink_state{sink="crm",state="throttled"}`) == 1 })

	w.write(strings.Replace(shopConfig, "event.name", "event.nam", 1))
	code, said := s.ask(http.MethodPost, s.admin+"/-/reload")
	if code != http.StatusUnprocessableEntity || !regexp.MustCompile(`config\.yaml:\d+:\d+: unknown field nam`).MatchString(said) {
		t.Errorf("a bad reload answers %d %s", code, said)
	}
	if s.metric("config_last_reload_successful") != 0 {
		t.Error("the metric does not tell of the bad reload")
	}
	if code, _ := s.get(s.admin + "/readyz"); code != 200 {
		t.Errorf("not ready after a bad reload: %d", code)
	}

	w.write(strings.Replace(shopConfig, "event.name}", "upper(event.name)}", 1))
	code, said = s.ask(http.MethodPost, s.admin+"/-/reload")
	if code != 200 || s.metric("config_last_reload_successful") != 1 {
		t.Errorf("a good reload answers %d %s", code, said)
	}
	lift()
	s.mustPost("new", 1, "y")
	s.until("both are mapped by the new config", func() bool {
		got := w.titles()
		return got["pending"] == "X" && got["new"] == "Y"
	})

	// The same by SIGHUP: first a bad one, then a good one.
	w.write("sinkz: {}\n")
	s.signal(syscall.SIGHUP)
	s.until("the bad reload is counted", func() bool { return s.metric("config_last_reload_successful") == 0 })
	s.mustPost("kept", 1, "old config")
	s.until("the old config works", func() bool { return w.titles()["kept"] == "OLD CONFIG" })
	w.write(shopConfig)
	s.signal(syscall.SIGHUP)
	s.until("the good reload is counted", func() bool { return s.metric("config_last_reload_successful") == 1 })
	s.mustPost("last", 1, "as it is")
	s.until("the new config works", func() bool { return w.titles()["last"] == "as it is" })
	if code, _ := s.get(s.admin + "/-/reload"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET /-/reload answers %d", code)
	}
	s.stop()
}

// SIGTERM under load: exit code 0, and what was accepted arrives with the next process.
func TestTermUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	w.box.Fault(sandbox.Fault{Effect: sandbox.EffectNone, Latency: 20 * time.Millisecond})
	s := w.start()
	accepted := s.storm("load")
	s.until("it is busy", func() bool { return len(w.box.Records("hubspot", "orders")) > 50 })
	s.stop()
	ids := accepted()
	if n := w.count("events"); n != len(ids) {
		t.Errorf("%d events are stored, %d were accepted", n, len(ids))
	}
	if n := w.count(`river_job WHERE state = 'running' OR errors IS NOT NULL`); n != 0 {
		t.Errorf("%d jobs are running or have failed", n)
	}
	s = w.start()
	s.until("all is delivered", func() bool { return w.count(`routes WHERE outcome IS DISTINCT FROM 'delivered'`) == 0 })
	if n := len(w.titles()); n != len(ids) {
		t.Errorf("%d records for %d events", n, len(ids))
	}
	s.stop()
}

// A second signal ends the process at once, whatever it has under way.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(shopConfig, "timeout: 2s", "timeout: 5m", 1), pgtest.URL(t))
	w.box.Fault(sandbox.Fault{Path: "/orders/", Effect: sandbox.EffectNone, Latency: time.Hour})
	s := w.start()
	s.mustPost("d1", 1, "n")
	s.until("a request hangs", func() bool { return w.writes.Load() == 1 })
	s.signal(syscall.SIGTERM)
	s.until("it drains", func() bool { return strings.Contains(s.said(), "draining") })
	s.until("it is not ready any more", func() bool {
		code, _ := s.get(s.admin + "/readyz")
		return code == http.StatusServiceUnavailable
	})
	if code, _ := s.get(s.admin + "/livez"); code != 200 {
		t.Errorf("livez answers %d while draining", code)
	}
	s.signal(syscall.SIGTERM)
	s.end()
	var failed *exec.ExitError
	if !errors.As(s.err, &failed) || failed.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", s.err)
	}
}

// Receiver and workers as two processes on one database; each goes on without the other.
func TestReceiveAndWorkApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	receiver := w.start("--only", "receive")
	receiver.mustPost("d1", 1, "alone")
	if n := w.count(`routes WHERE outcome IS NULL`); n != 1 {
		t.Errorf("%d open routes", n)
	}
	worker := w.start("--only", "work")
	worker.until("the job is done", func() bool { return w.titles()["d1"] == "alone" })
	if worker.hooks != "http://" {
		t.Errorf("the worker listens for hooks on %s", worker.hooks)
	}
	worker.stop()
	receiver.mustPost("d2", 1, "meanwhile")
	worker = w.start("--only", "work")
	worker.until("the job is done", func() bool { return w.titles()["d2"] == "meanwhile" })
	receiver.stop()
	worker.stop()
}

// kill -9 of the worker under load: the next one finishes everything, and no record is there twice.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	w.box.Fault(sandbox.Fault{Effect: sandbox.EffectNone, Latency: 20 * time.Millisecond})
	receiver := w.start("--only", "receive")
	worker := w.start("--only", "work")
	accepted := receiver.storm("killed")
	worker.until("it is busy", func() bool { return len(w.box.Records("hubspot", "orders")) > 50 })
	worker.kill()
	worker = w.start("--only", "work")
	worker.until("it is busy again", func() bool { return w.count(`routes WHERE outcome = 'delivered'`) > 100 })
	receiver.stop()
	ids := accepted()
	worker.until("all is delivered", func() bool { return w.count(`routes WHERE outcome IS DISTINCT FROM 'delivered'`) == 0 })
	if n := w.count("routes"); n != len(ids) {
		t.Errorf("%d routes for %d accepted events", n, len(ids))
	}
	if n := len(w.titles()); n != len(ids) || len(w.box.Records("hubspot", "orders")) != n {
		t.Errorf("%d records for %d events", len(w.box.Records("hubspot", "orders")), len(ids))
	}
	worker.stop()
}
