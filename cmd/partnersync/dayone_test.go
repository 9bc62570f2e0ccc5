package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// dayOne is the config of somebody who points partnersync at a portal that sales have filled.
var dayOne = strings.NewReplacer(
	"schema: {key: id, name: text, at: time s}", "schema: {key: id, name: text, stage: text, amount: integer, at: time s}",
	"    settle: 300ms\n", "    settle: 300ms\n    find_lag: 0s\n    write: false\n",
	"    set: {title: event.name}\n", `    match: [{title: event.name}]
    set: {title: event.name, stage: 'lookup(event.stage, "stages")', shop_amount: event.amount}
    set_if_empty: {description: event.name}
`, "mappings:", "tables: {stages: {map: {New: open, Won: won}}}\nmappings:").Replace(shopConfig)

// The story of day one: look, set up, observe, correct, observe again, go live, audit.
func TestDayOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dayOne, pgtest.URL(t))
	define := func(p ...sandbox.Property) {
		for _, one := range p {
			w.box.Define("hubspot", "orders", one)
		}
	}
	w.box.Undefine("hubspot", "orders", "order_key")
	stage := sandbox.Property{Name: "stage", Label: "Stage", Type: "enumeration", Options: []string{"open"}}
	define(stage, sandbox.Property{Name: "description"}, sandbox.Property{Name: "town"})
	for i := range 12 {
		w.box.Put("hubspot", "orders", map[string]any{"title": fmt.Sprintf("Deal %02d", i), "stage": "open", "description": "theirs"})
	}
	w.box.Put("hubspot", "orders", map[string]any{"title": "Twice", "town": "Oslo"})
	w.box.Put("hubspot", "orders", map[string]any{"title": "Twice", "town": "Bern"})
	sales := w.box.Records("hubspot", "orders")

	// Two properties and an option are missing.
	code, said := w.tried("check", "--live")
	for _, want := range []string{`have no field "order_key"`, `have no field "shop_amount"`, `stage of orders does not take "won" in the CRM`} {
		if !strings.Contains(said, want) {
			t.Errorf("check --live lacks %s", want)
		}
	}
	if code != 2 || !strings.Contains(said, "3 errors") {
		t.Errorf("check --live: %d\n%s", code, said)
	}
	// Setup makes the properties, and leaves the option to a person.
	code, said = w.tried("setup", "crm")
	if code != 1 || !strings.Contains(said, "Add an option") {
		t.Errorf("setup: %d\n%s", code, said)
	}
	stage.Options = append(stage.Options, "won")
	define(stage)
	if code, said := w.tried("check", "--live"); code != 0 {
		t.Errorf("check --live after setup: %d\n%s", code, said)
	}

	// Observe.
	s := w.start()
	at := 0
	first := ""
	post := func(key, name string, stage string) {
		t.Helper()
		at++
		id, err := s.postBody(fmt.Sprintf(`{"key": %q, "name": %q, "stage": %q, "amount": %d, "at": %d}`, key, name, stage, at, 1_700_000_000+at))
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = id
		}
	}
	for i := range 12 { // those that sales know, and two that they do not
		post(fmt.Sprintf("d%02d", i), fmt.Sprintf("Deal %02d", i), "Won")
	}
	post("n1", "New one", "New")
	post("n1", "New one", "Won")
	post("n2", "Another", "New")
	post("t1", "Twice", "New")
	ended := func(outcome string) func() bool {
		return func() bool {
			return w.count(`routes r WHERE outcome IS DISTINCT FROM '`+outcome+`' AND NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.run > r.run)`) == 0
		}
	}
	s.until("all is observed", ended("observed"))
	want := map[string]int{"create": 2, "adopt": 12, "ambiguous": 1}
	if diff := cmp.Diff(want, w.report().Records); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if m := w.report().Mappings[0]; m.Overwritten != 12 || m.Overwrites[0].Old != "open" || m.Overwrites[0].New != "won" {
		t.Errorf("overwritten: %+v", m)
	}
	if said := w.run("explain", first); !strings.Contains(said, "would have come to: adopt of order_key, shop_amount, stage, title; the CRM has other values of stage\n") || strings.Contains(said, "Deal 00") {
		t.Errorf("explain:\n%s", said)
	}
	if said := w.run("sinks"); !strings.Contains(said, "ready, observes") {
		t.Errorf("sinks:\n%s", said)
	}
	if diff := cmp.Diff(sales, w.box.Records("hubspot", "orders")); diff != "" {
		t.Errorf("something was written:\n%s", diff)
	}

	// A person corrects the match, and observes again.
	right := strings.Replace(dayOne, "match: [{title: event.name}]", `match: [{title: event.name, town: 'event.name == "Twice" ? "Oslo" : nil'}, {title: event.name}]`, 1)
	w.write(right)
	s.reload(t)
	w.run("replay", "--sink", "crm", "--outcome", "observed")
	s.until("all is observed again", ended("observed"))
	want = map[string]int{"create": 2, "adopt": 13}
	if diff := cmp.Diff(want, w.report().Records); diff != "" {
		t.Errorf("report of the corrected match (-want +got):\n%s", diff)
	}

	// It goes live, and does what was told.
	told := w.report()
	w.write(strings.Replace(right, "write: false", "write: true", 1))
	s.reload(t)
	w.run("replay", "--sink", "crm", "--outcome", "observed")
	s.until("all is delivered", func() bool {
		return w.count(`routes WHERE outcome IS NULL`) == 0 && w.count(`record_keys WHERE sink = 'crm'`) >= 15
	})
	after := w.box.Records("hubspot", "orders")
	if made := len(after) - len(sales); made != told.Records["create"] {
		t.Errorf("%d were made, and %d were told", made, told.Records["create"])
	}
	byID := map[string]map[string]any{}
	for _, r := range after {
		byID[r.ID] = r.Properties
	}
	adopted, changed := 0, 0
	for _, r := range sales {
		now := byID[r.ID]
		if now["order_key"] != nil {
			adopted++
		}
		for name, old := range r.Properties {
			if now[name] != old {
				changed++
			}
		}
	}
	overwritten := 0
	for _, m := range told.Mappings {
		overwritten += m.Overwritten
	}
	if adopted != told.Records["adopt"] || changed != overwritten {
		t.Errorf("%d adopted and %d fields overwritten, told were %d and %d", adopted, changed, told.Records["adopt"], overwritten)
	}

	// The audit is clean, until sales edit ten fields.
	if code, said := w.tried("audit", "crm"); code != 0 {
		t.Errorf("audit: %d\n%s", code, said)
	}
	edited := 0
	for _, r := range after {
		if key, is := r.Properties["order_key"].(string); is && edited < 10 {
			w.box.Edit("hubspot", "orders", r.ID, map[string]any{"title": "edited " + key})
			edited++
		}
	}
	code, said = w.tried("--json", "audit", "crm")
	var found struct{ Differences []struct{ Field string } }
	if err := json.Unmarshal([]byte(said[strings.Index(said, "{"):strings.LastIndex(said, "}")+1]), &found); err != nil {
		t.Fatal(err, said)
	}
	if code != 1 || len(found.Differences) != 10 {
		t.Errorf("audit: %d, %d differences\n%s", code, len(found.Differences), said)
	}
	s.stop()
}

func (w *world) report() foretold {
	w.t.Helper()
	var r foretold
	if err := json.Unmarshal([]byte(w.run("--json", "report", "crm")), &r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// reload takes the config as it is now.
func (s *server) reload(t *testing.T) {
	t.Helper()
	if code, said := s.ask("POST", s.admin+"/-/reload"); code != 200 {
		t.Fatalf("reload: %d %s", code, said)
	}
}
