package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"partnersync/internal/pgtest"
)

// The benchmark starts itself in several roles; here that is the test binary.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	goleak.VerifyTestMain(m)
}

// A short run goes through every form of every part. That all counts agree is checked by
// the benchmark itself, which fails when an event is missing.
func TestShortRun(t *testing.T) {
	if url := os.Getenv(pgtest.EnvURL); url != "" {
		t.Setenv("DATABASE_URL", url)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--short", "--json", "--rows", "2000"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if e := r.Environment; e.Cores < 1 || e.Go == "" || e.Date == "" || !strings.HasPrefix(e.Postgres, "PostgreSQL ") {
		t.Errorf("environment %+v", e)
	}
	for _, part := range []struct {
		name      string
		part      *Part
		forms     []string
		answers   bool
		delivered bool
	}{
		{"receive", r.Receive, []string{formOurs, formPlain, formBare}, true, false},
		{"work", r.Work, []string{formOurs, formOurs100, formOne, formPlain}, false, true},
		{"steady", r.Steady, steadyForms, true, true},
		{"together", r.Together, []string{formOurs, formOurs100, formOne, formPlain}, true, true},
	} {
		if part.part == nil {
			t.Errorf("%s: no result", part.name)
			continue
		}
		var names []string
		for _, f := range part.part.Forms {
			names = append(names, f.Name)
			if f.Events == 0 || f.Events > 100 && (f.PerSecond <= 0 || (f.Answer != nil) != part.answers) { // a machine that is busy with other things answers few
				t.Errorf("%s: %s: %+v", part.name, f.Name, f)
			}
			if f.Name != formBare && f.Stored != f.Events {
				t.Errorf("%s: %s: %d events, %d stored", part.name, f.Name, f.Events, f.Stored)
			}
			if part.delivered && (f.Delivered != f.Events || f.Requests == 0) {
				t.Errorf("%s: %s: %d events, %d delivered with %d requests", part.name, f.Name, f.Events, f.Delivered, f.Requests)
			}
		}
		if diff := cmp.Diff(part.forms, names); diff != "" {
			t.Errorf("%s: forms (-want +got):\n%s", part.name, diff)
		}
	}
	if f := r.Steady.form(formOurs); f.Delivery == nil || f.Delivery.P50 <= 0 || f.Delivery.P99 < f.Delivery.P50 {
		t.Errorf("steady: delivery %+v", f.Delivery)
	}
	if f := r.Work.form(formOurs100); f.Requests >= f.Events/2 {
		t.Errorf("work: %d events took %d requests", f.Events, f.Requests)
	}
	if f := r.Work.form(formPlain); f.Requests != f.Events {
		t.Errorf("work: plain River took %d requests for %d events", f.Requests, f.Events)
	}
	if len(r.Aims) < 7 {
		t.Errorf("aims %+v", r.Aims)
	}
	rows := map[string]int{}
	for _, table := range r.Tables {
		rows[table.Part] += len(table.Rows)
		if table.Part == "rows" && len(table.Notes) > 0 {
			t.Errorf("rows: commands failed: %q", table.Notes)
		}
		for _, cells := range table.Rows {
			if len(cells) != len(table.Columns) {
				t.Errorf("%s: %d cells below %d columns: %q", table.Part, len(cells), len(table.Columns), cells)
			}
		}
	}
	want := map[string]int{"calls": 6, "match": 6, "distant": 6, "bisect": 4, "slow": 3, "converge": 3, "unchanged": 4, "rows": 3 + 26}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("lines of the tables (-want +got):\n%s", diff)
	}
	// Of the aims those that are counts hold on any machine.
	counts := 0
	for _, a := range r.Aims {
		if strings.Contains(a.Name, "requests for") {
			counts++
			if !a.Met {
				t.Errorf("%s: %s, want %s", a.Name, a.Got, a.Want)
			}
		}
	}
	if counts != 5 {
		t.Errorf("%d aims about counts of requests: %+v", counts, r.Aims)
	}
	var table bytes.Buffer
	err := r.show(&table, "")
	for _, p := range parts() {
		err = errors.Join(err, r.show(&table, p.name))
	}
	if err := errors.Join(err, r.printAims(&table)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PostgreSQL ", "Receiving", "Working", "At a steady rate", "Everything at once", "Aims", formBare,
		formOurs100 + " / " + formPlain, "short run", "salesforce", formMinimal, formSlow, "GET /metrics"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		give []string
		want string
	}{
		{"unknown part", []string{"--only", "receive,wrok"}, `no part "wrok"`},
		{"rows without how many", []string{"--only", "rows"}, `--rows 1000000`},
		{"too few rows", []string{"--rows", "10"}, `--rows 10: between`},
		{"too many rows", []string{"--rows", "1000000000"}, `--rows 1000000000: between`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), tt.give, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--list"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts() {
		if !strings.Contains(out.String(), p.name+" ") {
			t.Errorf("the list lacks %q:\n%s", p.name, out.String())
		}
	}
	if chosen, err := choose("", 0); err != nil || len(chosen) != len(parts())-1 {
		t.Errorf("without --rows %d parts run: %v", len(chosen), err)
	}
}

// Each deal of the benchmark has an event of its own for each change.
func TestDealBodies(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(string(eventBody(7)), string(deal{index: 7}.body())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	body := string(deal{index: 7, name: "poison", amount: 12_345, later: 1000}.body())
	for _, want := range []string{`"account_name":"poison 00000007"`, `"amount":12345`, `"key":"deal_00000007"`, `"updated_at":1700000001007`} {
		if !strings.Contains(body, want) {
			t.Errorf("the body lacks %s:\n%s", want, body)
		}
	}
}

// What the load patches into its requests is what the queue is filled with.
func TestRequestHoldsTheEvent(t *testing.T) {
	t.Parallel()
	for _, index := range []int{0, 7, 399_999} {
		r := newRequest("/x")
		r.use(123_456)
		r.use(index)
		_, body, ok := bytes.Cut(r.text, []byte("\r\n\r\n"))
		if want := eventBody(index); !ok || !bytes.Equal(body, want) {
			t.Errorf("index %d: got\n%s\nwant\n%s", index, body, want)
		}
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(100-i)*time.Millisecond)
	}
	if diff := cmp.Diff(Spread{P50: 51, P99: 100}, spread(times)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRatioComparesNeighbours(t *testing.T) {
	t.Parallel()
	windows := func(rates ...float64) []*window {
		var list []*window
		for _, r := range rates {
			list = append(list, &window{perSecond: r})
		}
		return list
	}
	// The machine was three times as fast in the second round.
	got := ratio("ours", windows(400, 1500, 600), windows(100, 300, 100))
	if diff := cmp.Diff(Ratio{Name: "ours / plain River", Median: 5, Least: 4, Most: 6}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	ours, plain := windows(1), windows(1)
	ours[0].events, ours[0].cost = 1000, map[string]time.Duration{costPostgres: 60 * time.Millisecond, costForm: 40 * time.Millisecond}
	plain[0].events, plain[0].cost = 500, map[string]time.Duration{costPostgres: 100 * time.Millisecond, costForm: 50 * time.Millisecond}
	if got := ratio("ours", ours, plain).Processor; got != 3 {
		t.Errorf("by processor time %v, want 3", got)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	r := Report{
		Receive: &Part{
			Forms:  []Form{{Name: formOurs, Answer: &Spread{P50: 5, P99: 31}, PeakBytes: 90e6}, {Name: formPlain, PeakBytes: 900e6}},
			Ratios: []Ratio{{Name: formOurs + " / " + formPlain, Median: 4}, {Name: formBare + " / " + formPlain, Median: 20}},
		},
		Together: &Part{Ratios: []Ratio{{Name: formOurs + " / " + formPlain, Median: 3.5}, {Name: formOurs100 + " / " + formPlain, Median: 4.9}}},
	}
	r.judge()
	var got []string
	for _, a := range r.Aims {
		verdict := " missed"
		if a.Met {
			verdict = " met"
		}
		got = append(got, a.Got+verdict)
	}
	if want := []string{"4.0 × met", "31.0 ms missed", "3.5 × met", "4.9 × missed", "90 MB met"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A window in which nothing was answered compares with nothing, and does not spoil the report.
func TestRatioOfAnIdleWindow(t *testing.T) {
	fast, idle := &window{perSecond: 20}, &window{}
	for _, plain := range [][]*window{{{perSecond: 10}, idle}, {idle, idle}} {
		r := ratio("ours", []*window{fast, fast}, plain)
		if out, err := json.Marshal(r); err != nil {
			t.Errorf("%s: %v", out, err)
		}
		if want := plain[0].perSecond / 5; r.Median != want {
			t.Errorf("the median is %v, want %v", r.Median, want)
		}
	}
}
