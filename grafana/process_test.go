package grafana

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

var (
	pictures = flag.String("pictures", "", "draw the dashboards into this folder at the end")
	record   = flag.Duration("record", 0, "run for that long, with one trouble after the other, before anything is looked at")
)

// leftOut are metrics that no dashboard and no alert shows, and why.
var leftOut = []struct{ pattern, why string }{
	{`go_(gc|memstats|sched|info|threads|cpu)_?.*`, "for whoever profiles; memory and processors are shown by process"},
	{`process_(virtual_memory|network)_.*`, "says little about a Go program"},
	{`process_start_time_seconds`, "named by a runbook; restarts show as changes of owners"},
	{`promhttp_metric_handler_errors_total`, "errors of a scrape show as a scrape that fails"},
	{`partnersync_receive_waiting_limit_events|partnersync_receive_held_limit_bytes|partnersync_receive_connections_limit|partnersync_spool_limit_bytes`, "shown as the dashed line of their panel"},
}

// old are queries that look back further than a test can run.
var old = regexp.MustCompile(`offset 1w`)

// The whole of it at work: a receiver and a worker on the example config, senders that
// make every kind of trouble, a CRM that fails, and a Prometheus that watches them by
// the shipped rules.
func TestWatchedByPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	tool(t, "prometheus")
	w := newWorld(t)
	began := time.Now()
	prom := startPrometheus(t, hasty(t), w.admins...)

	w.fault(`{"dialect":"webhook","contains":"` + rejectMe + `","effect":"status","status":422}`)
	sending, stop := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	defer senders.Wait()
	defer stop()
	rate := rhythm(began)
	for range 4 {
		senders.Go(func() { w.send(sending, func() float64 { return rate() / 4 }) })
	}
	if *record > 0 {
		w.troubles(*record)
	}
	eventually(t, "a good part is delivered", func() (bool, string) {
		got, err := prom.query(`sum(partnersync_deliveries_total{outcome="delivered"}) > 200 and min(sum by (sink) (partnersync_deliveries_total{outcome="delivered"})) > 20`)
		return err == nil && len(got) == 1, "too little is delivered"
	})
	w.exec(`VACUUM (ANALYZE) events, routes, river_job`)

	t.Run("alerts", func(t *testing.T) {
		dead := awaitAlert(t, prom, "PartnersyncDeadLettersGrowing", "archive")
		if !strings.Contains(dead.Annotations["summary"], "archive") || !strings.HasPrefix(dead.Annotations["dashboard"], "https://grafana.example/d/partnersync-sinks") {
			t.Errorf("annotations %v", dead.Annotations)
		}
		if len(prom.firing("PartnersyncSinkHeld", "crm")) > 0 {
			t.Error("the sink is held before anybody has refused us")
		}
		end := w.fault(`{"dialect":"hubspot","effect":"status","status":401}`)
		held := awaitAlert(t, prom, "PartnersyncSinkHeld", "crm")
		if held.Labels["severity"] != "critical" {
			t.Errorf("labels %v", held.Labels)
		}
		awaitAlert(t, prom, "PartnersyncCredentialsRefused", "crm")
		end()
		eventually(t, "the alert ends when the CRM takes us again", func() (bool, string) {
			return len(prom.firing("PartnersyncSinkHeld", "crm")) == 0, "it fires"
		})
		for _, name := range []string{"PartnersyncPostgresDown", "PartnersyncReloadFailed", "PartnersyncSinkWithoutOwner", "PartnersyncRoutesUnaccounted", "PartnersyncReceiverMissing", "PartnersyncMetricsMissing"} {
			for _, sink := range []string{"", "crm", "archive"} {
				if a := prom.firing(name, sink); len(a) > 0 {
					t.Errorf("%s fires and nothing of the kind has happened: %v", name, a)
				}
			}
		}
	})

	t.Run("panels", func(t *testing.T) {
		lacking := slices.DeleteFunc(queries(), func(one asked) bool {
			return old.MatchString(one.expr) || strings.Contains(one.where, ": annotation ")
		})
		eventually(t, "every panel shows something", func() (bool, string) {
			var why strings.Builder
			lacking = slices.DeleteFunc(lacking, func(one asked) bool {
				expr := filled(one.expr, rateWindow(), "20m")
				got, err := prom.query(expr)
				if err != nil {
					t.Fatalf("%s: %v", one.where, err)
				}
				if len(got) == 0 {
					fmt.Fprintf(&why, "%s has no data: %s\n", one.where, expr)
				}
				return len(got) > 0
			})
			return len(lacking) == 0, why.String()
		})
	})

	t.Run("metrics", func(t *testing.T) { compareMetrics(t, w) })
	t.Run("series", func(t *testing.T) {
		for _, one := range slices.Sorted(maps.Keys(w.series())) {
			// The age of a vacuum begins with the first one.
			if !w.first[one] && !strings.HasPrefix(one, "partnersync_postgres_table_vacuum_age_seconds ") {
				t.Errorf("%s was not there from the start", one)
			}
		}
	})

	if *pictures != "" {
		span := time.Since(began)
		for _, d := range Dashboards() {
			var out bytes.Buffer
			if err := Draw(t.Context(), &out, &d, prom.url, time.Now().Add(-span), time.Now()); err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(d.UID, "partnersync-") + ".svg"
			if err := os.WriteFile(filepath.Join(*pictures, name), out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// rateWindow holds one of each trouble.
func rateWindow() string {
	if *record > 0 {
		return "10m"
	}
	return "30s"
}

func awaitAlert(t *testing.T, prom *server, name, sink string) alert {
	t.Helper()
	var found []alert
	eventually(t, name+" fires for "+sink, func() (bool, string) {
		found = prom.firing(name, sink)
		return len(found) > 0, "it does not"
	})
	return found[0]
}

// compareMetrics: what dashboards and alerts name exists, what exists is shown or
// left out for a reason, and all of it is as Prometheus wants metrics to be.
func compareMetrics(t *testing.T, w *world) {
	exported := map[string]*dto.MetricFamily{}
	for _, admin := range w.admins {
		maps.Copy(exported, w.families(admin))
		problems, err := promlint.New(bytes.NewReader(w.metrics(admin))).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
	named := map[string]string{}
	note := func(where, expr string) {
		for _, name := range metricNames(expr) {
			named[name] = where
		}
	}
	for _, one := range queries() {
		note(one.where, one.expr)
	}
	for _, d := range Dashboards() {
		for _, v := range d.Templating.List {
			note(d.Title+": variable "+v.Name, v.Definition)
		}
	}
	recorded := map[string]bool{}
	for _, r := range rules(t) {
		recorded[r.Record] = true
		note(r.Alert+r.Record, r.Expr)
	}
	shown := map[string]bool{}
	for name, where := range named {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if trimmed := strings.TrimSuffix(name, suffix); exported[name] == nil && exported[trimmed] != nil {
				base = trimmed
			}
		}
		if exported[base] == nil && !recorded[name] {
			t.Errorf("%s names %s, which no process exports", where, name)
		}
		shown[base] = true
	}
	for _, name := range slices.Sorted(maps.Keys(exported)) {
		out := slices.ContainsFunc(leftOut, func(l struct{ pattern, why string }) bool {
			return regexp.MustCompile("^(" + l.pattern + ")$").MatchString(name)
		})
		if !shown[name] && !out {
			t.Errorf("%s is exported, and neither shown nor left out for a reason", name)
		}
	}
}

var (
	quoted     = regexp.MustCompile(`"[^"]*"`)
	metricName = regexp.MustCompile(`\b(job_sink:)?(partnersync|go|process)_[a-z0-9_]+(:[a-z0-9]+)?\b`)
)

func metricNames(expr string) []string {
	return metricName.FindAllString(quoted.ReplaceAllString(expr, `""`), -1)
}
