package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/pgtest"
)

// What the commands say of an event that waits, one that is skipped, and one that was dead and is replayed.
func TestWhatIsSaidOfEvents(t *testing.T) {
	t.Parallel()
	const waits = `
  - name: waits
    on: shop.deal.updated
    when: event.name == "waits"
    to: crm
    object: orders
    key: {order_key: event.key}
    links: [{to: orders, key: {order_key: '"GHOST"'}, as: "1"}]
  - name: held
    on: shop.deal.updated
    when: event.name == "held"
    to: crm
    object: orders
    key: {order_key: event.key}
    mode: update_only
    set: {title: event.name}
`
	deals := strings.Replace(shopConfig, "    to: crm\n", "    to: crm\n    when: event.name != \"held\"\n", 1)
	deals = strings.Replace(deals, "    preset: hubspot\n", "    preset: hubspot\n    settings: {labels: {\"orders>orders\": {\"1\": {category: USER_DEFINED, typeId: 1}}}}\n", 1)
	w := newWorld(t, strings.Replace(deals, "set: {title:", "set: {nothing:", 1)+waits, pgtest.URL(t))
	s := w.start()
	outcome := func(id, of string) func() bool {
		return func() bool { return strings.Contains(w.run("--json", "explain", id), `"outcome": "`+of+`"`) }
	}

	dead := s.mustPost("d1", 1, "x")
	s.until("it is dead", outcome(dead, "dead"))
	if got := w.run("ledger"); !regexp.MustCompile(`(?m)DEAD  \(REPLAYED SINCE  HEALED\)  OPEN.*\n.* 1 +\(0 +0\) +0 `).MatchString(got) {
		t.Errorf("ledger:\n%s", got)
	}
	w.write(deals + waits)
	if code, said := s.ask("POST", s.admin+"/-/reload"); code != 200 {
		t.Fatal(said)
	}
	w.run("replay", "--outcome", "dead")
	s.until("it is delivered", func() bool { return w.titles()["d1"] == "x" })
	if got := w.run("dead"); got != "nothing is dead\n" {
		t.Errorf("dead: %s", got)
	}
	s.until("the ledger tells of the replay", func() bool { return regexp.MustCompile(` 1 +\(1 +[01]\) +0 `).MatchString(w.run("ledger")) })
	s.until("and of what it has healed", func() bool { return regexp.MustCompile(` 1 +\(1 +1\) +0 `).MatchString(w.run("ledger")) })

	held := s.mustPost("h1", 1, "held")
	s.until("it is skipped", outcome(held, "skipped"))
	for _, got := range []string{w.run("explain", held), w.run("--json", "explain", held)} {
		if strings.Contains(got, "rejected") || !strings.Contains(got, "not in the CRM yet") {
			t.Errorf("explain of what is skipped:\n%s", got)
		}
	}

	waiting := s.mustPost("w1", 1, "waits")
	s.until("it waits", func() bool { return strings.Contains(w.run("explain", waiting), "known yet to link to") })
	got := w.run("explain", waiting)
	if !regexp.MustCompile(`(?m)^ {26}  it is orders order_key=ghost$`).MatchString(strings.ToLower(got)) {
		t.Errorf("explain of a link that waits:\n%s", got)
	}
	if !regexp.MustCompile(`(?m)^(crm gets it again at 20|it waits for its turn at crm|a worker of crm has it in hand)`).MatchString(got) || strings.Contains(got, "sink_crm") {
		t.Errorf("explain of its job:\n%s", got)
	}
	s.stop()
	for line := range strings.Lines(s.said()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["dur"] != nil {
			if text, ok := entry["dur"].(string); !ok || !regexp.MustCompile(`^[\d.]+(µs|ms|s)$`).MatchString(text) {
				t.Errorf("a duration that nobody reads: %s", line)
			}
		}
	}
}

func TestTurn(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		give turn
		want string
	}{
		{turn{Queue: "sink_crm", State: "available", ScheduledAt: now}, "it waits for its turn at crm"},
		{turn{Queue: "sink_crm", State: "available", ScheduledAt: now.Add(time.Minute), Attempt: 1}, "crm gets it again at 2026-11-21 08:01:00.000Z"},
		{turn{Queue: "sink_crm", State: "scheduled", ScheduledAt: now.Add(time.Minute), Attempt: 3}, "crm gets it again at 2026-11-21 08:01:00.000Z; taken up 3 times so far"},
		{turn{Queue: "sink_crm", State: "running", ScheduledAt: now.Add(time.Minute), Attempt: 2}, "a worker of crm has it in hand; taken up 2 times so far"},
		{turn{Queue: "sink_crm", State: "cancelled", ScheduledAt: now}, "its turn at crm is over: cancelled"},
	} {
		if got := tt.give.next(now); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.give, got, tt.want)
		}
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	e, w := diag.Problem{}, diag.Problem{Severity: diag.Warning}
	for _, tt := range []struct {
		give diag.Problems
		want string
	}{
		{diag.Problems{e, w, w}, "1 error, 2 warnings"}, {diag.Problems{e, e}, "2 errors"}, {diag.Problems{e, w}, "1 error, 1 warning"},
	} {
		if got := counts(tt.give); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestDurationsInTheLog(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	newLogger(&b, config.Log{Level: "info", Format: "json"}).Info("x", "dur", 149759416*time.Nanosecond, "next", 10*time.Second)
	if got := b.String(); !strings.Contains(got, `"dur":"149.759ms"`) || !strings.Contains(got, `"next":"10s"`) {
		t.Error(got)
	}
}
