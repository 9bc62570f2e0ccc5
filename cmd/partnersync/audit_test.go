package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/audit"
	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
	"partnersync/sinks"
)

// fails runs a command that ends with the exit code 1, and returns what it printed.
func (w *world) fails(args ...string) (out, errOut string) {
	w.t.Helper()
	cmd := w.command(args...)
	var o, e strings.Builder
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != exitFailed {
		w.t.Fatalf("partnersync %s: %v\n%s%s", strings.Join(args, " "), err, o.String(), e.String())
	}
	return o.String(), e.String()
}

func (w *world) order(key string) string {
	w.t.Helper()
	for _, r := range w.box.Records("hubspot", "orders") {
		if r.Properties["order_key"] == key {
			return r.ID
		}
	}
	w.t.Fatalf("there is no order %s", key)
	return ""
}

// shop is a running process that has made some orders in the CRM.
func shop(t *testing.T, orders int) (*world, *server) {
	t.Helper()
	w := newWorld(t, strings.Replace(shopConfig, "set: {title: event.name}", "set: {title: event.name, memo: event.key}", 1), pgtest.EmptyURL(t))
	w.box.Define("hubspot", "orders", sandbox.Property{Name: "memo"})
	s := w.start()
	for i := range orders {
		s.mustPost(fmt.Sprint("d", i), 1, fmt.Sprint("Deal ", i))
	}
	s.until("the orders are made", func() bool { return len(w.titles()) == orders })
	s.until("all is recorded", func() bool { return w.count(`routes WHERE outcome IS NULL`) == 0 })
	return w, s
}

// The story: an audit is clean, sales edit ten fields, the audit lists ten, and a repair brings back those that are chosen.
func TestAudit(t *testing.T) {
	t.Parallel()
	w, s := shop(t, 12)
	if out := w.run("audit", "crm"); !strings.Contains(out, "12 records and 24 fields compared\n") || strings.Contains(out, "orders: ") {
		t.Fatalf("%s", out)
	}

	var want []string
	for i := range 10 {
		name := []string{"title", "memo"}[i%2]
		w.box.Edit("hubspot", "orders", w.order(fmt.Sprint("d", i)), map[string]any{name: "=theirs"})
		want = append(want, fmt.Sprintf("order_key=d%d %s", i, name))
	}
	out, errOut := w.fails("audit", "crm", "--object", "orders", "--csv", "found.csv")
	if !strings.Contains(out, "orders: 10 edited there\n") || !strings.HasSuffix(errOut, "partnersync: 10 differences are left\n") {
		t.Errorf("%s%s", out, errOut)
	}
	rows := w.csv("found.csv")
	var got []string
	for _, row := range rows[1:] {
		got = append(got, row[2]+" "+row[4])
		if row[0] != "orders" || row[1] != "edited" || row[6] != "'=theirs" || row[8] != "deals" {
			t.Errorf("%q", row)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out, _ = w.fails("--json", "audit", "crm")
	var report struct {
		Differences []struct{ Object, Field, Ours, Theirs string }
		Summary     struct {
			Records int
			Counts  map[string]map[string]int
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Differences) != 10 || report.Summary.Counts["orders"]["edited"] != 10 || report.Summary.Records != 12 {
		t.Errorf("%v\n%s", err, out)
	}

	// What a repair would do is shown first, and changes nothing.
	out, _ = w.fails("audit", "crm", "--repair", "--field", "title", "--dry-run")
	if !strings.Contains(out, "\nto send again: orders.title of 5 records\n  left to people: 5 differences") || w.count("replays") != 0 {
		t.Errorf("%s", out)
	}
	out, errOut = w.fails("audit", "crm", "--repair", "--field", "title", "--yes")
	if !strings.Contains(out, "\nsent again: 5 fields of 5 records, by 5 routes of 1 replay (`partnersync replay --list`)\n") || !strings.Contains(errOut, "5 differences are left") {
		t.Errorf("%s%s", out, errOut)
	}
	s.until("they are sent", func() bool {
		return w.count(`routes WHERE outcome IS NULL`) == 0 && !slices.ContainsFunc(w.box.Records("hubspot", "orders"), func(r sandbox.Record) bool {
			return r.Properties["title"] == "=theirs"
		})
	})
	left := 0
	for _, r := range w.box.Records("hubspot", "orders") {
		if r.Properties["memo"] == "=theirs" {
			left++
		}
	}
	if left != 5 {
		t.Errorf("%d memos of sales are left", left)
	}
	if list := w.run("replay", "--list"); !strings.Contains(list, "done") {
		t.Errorf("%s", list)
	}
	w.run("audit", "crm", "--repair", "--yes") // ends with 0: nothing is left
	s.until("all is sent", func() bool { return w.count(`routes WHERE outcome IS NULL`) == 0 })
	w.run("audit", "crm")
	if log := s.said(); strings.Contains(log, "=theirs") {
		t.Error("a value stands in the log")
	}
	s.stop()
}

// Who is asked sees what would be sent. What still differs when the answer comes is sent, and the rest is not.
func TestAuditAsks(t *testing.T) {
	t.Parallel()
	w, s := shop(t, 3)
	for i := range 3 {
		w.box.Edit("hubspot", "orders", w.order(fmt.Sprint("d", i)), map[string]any{"title": "theirs"})
	}
	cfg, problems := config.Load(filepath.Join(w.dir, "config.yaml"), config.Options{Getenv: func(name string) (string, bool) {
		for _, kv := range w.env {
			if value, ok := strings.CutPrefix(kv, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}})
	if problems.Failed() {
		t.Fatal(problems)
	}
	pool, err := pgxpool.New(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	sink := sinks.New(cfg.Sinks["crm"], sinks.Options{})
	defer sink.Close()
	var out, errOut strings.Builder
	audited := func(answer func() bool) error {
		out.Reset()
		a := &auditor{
			auditCmd: auditCmd{Sink: "crm", Repair: true}, streams: streams{&out, &errOut}, config: cfg, ledger: ledger.New(pool), sink: sink,
			counts: map[auditGroup]int64{}, fields: map[string]int64{}, configFile: defaultConfig, confirm: func(context.Context, streams) bool { return answer() },
		}
		a.options = audit.Options{Ledger: a.ledger, Sink: sink, Mappings: cfg.Mappings}
		return a.run(t.Context())
	}
	if err := audited(func() bool { return false }); err == nil || err.Error() != "nothing has been sent again" || w.count("replays") != 0 {
		t.Errorf("%v", err)
	}
	err = audited(func() bool {
		if !strings.Contains(out.String(), "\nto send again: orders.title of 3 records\n") {
			t.Errorf("%s", out.String())
		}
		w.box.Edit("hubspot", "orders", w.order("d1"), map[string]any{"title": "Deal 1"}) // sales have thought better of it
		return true
	})
	if err != nil || !strings.Contains(out.String(), "\nsent again: 2 fields of 2 records, by 2 routes of 1 replay") {
		t.Errorf("%v\n%s", err, out.String())
	}
	s.until("they are sent", func() bool { return !strings.Contains(fmt.Sprint(w.titles()), "theirs") })
	if err := audited(func() bool { t.Error("asked"); return true }); err != nil {
		t.Error(err)
	}
}

func (w *world) csv(name string) [][]string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil {
		w.t.Fatal(err)
	}
	return rows
}

// An audit that is ended by a signal, or for the sake of the CRM, tells in one line how to go on; the file is added to.
func TestAuditGoesOn(t *testing.T) {
	t.Parallel()
	w, s := shop(t, 4)
	s.stop()
	for i := range 4 {
		w.box.Edit("hubspot", "orders", w.order(fmt.Sprint("d", i)), map[string]any{"title": "theirs"})
	}
	remove := w.box.Fault(sandbox.Fault{Path: "batch/read", Effect: sandbox.EffectStatus, Status: 403})
	out, errOut := w.fails("audit", "crm", "--csv", "found.csv")
	if !strings.Contains(errOut, "partnersync: the audit has stopped: the CRM is to be left alone: held: HTTP 403") ||
		!strings.Contains(errOut, "; `partnersync audit crm --csv found.csv` goes on\n") || strings.Count(errOut, "\n") != 1 {
		t.Errorf("%s%s", out, errOut)
	}
	remove()
	w.box.SetAccount(99)
	if _, errOut := w.fails("audit", "crm"); !strings.Contains(errOut, "the credentials are of account 99, but this sink has been writing to ") {
		t.Errorf("%s", errOut)
	}
	w.box.SetAccount(62515)

	remove = w.box.Fault(sandbox.Fault{Path: "batch/read", Latency: time.Minute})
	seen := len(w.box.Requests())
	cmd := w.command("--config", "./config.yaml", "audit", "crm", "--csv", "other one.csv")
	var e strings.Builder
	cmd.Stderr = &e
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for len(w.box.Requests()) == seen && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(e.String(), "partnersync: the audit has stopped: interrupted; `partnersync --config ./config.yaml audit crm --csv 'other one.csv'` goes on\n") {
		t.Errorf("%d: %s", cmd.ProcessState.ExitCode(), e.String())
	}

	remove()
	w.fails("audit", "crm", "--csv", "all.csv")
	rows := w.csv("all.csv")
	if len(rows) != 5 {
		t.Fatalf("%q", rows)
	}
	second := rows[2][3]
	w.fails("audit", "crm", "--csv", "all.csv", "--after", "orders/"+second)
	if rows = w.csv("all.csv"); len(rows) != 5+2 || rows[5][3] != rows[3][3] || rows[6][3] != rows[4][3] {
		t.Errorf("%q", rows)
	}
}
