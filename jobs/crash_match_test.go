package jobs

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"partnersync/internal/sandbox"
)

// matched are the firms of the histories with match and value rules.
const matched = `
mappings:
  - name: firms
    on: [shop.company.created, shop.company.updated]
    to: crm
    object: firms
    key: {firm_key: event.key}
    match: [{name: event.name}]
    set: {name: event.name}
    set_on_create: {source: 'value("partnersync")'}
    set_if_empty: {owner: '"owner of " + event.name'}
    forward: {stage: {value: event.stage, order: [lead, customer], final: [lost]}}
    add: {tags: event.tags}
`

// races are events about a firm of sales, and about one that nobody has, each under two keys.
var races = []event{
	shopEvent("company.created", "f1", 1, "name", "Acme", "stage", "lead", "tags", []any{"a"}),
	shopEvent("company.created", "f2", 2, "name", "Beta", "stage", "lead", "tags", []any{"a"}),
	shopEvent("company.created", "f3", 3, "name", "Beta", "stage", "customer", "tags", []any{"b"}),
	shopEvent("company.created", "f4", 4, "name", "Acme", "stage", "customer", "tags", []any{"b"}),
}

// race plays some of them, so long apart, and judges what the CRM has in the end.
func (c *courtroom) race(t *testing.T, which []int, apart time.Duration, mishaps map[int]mishap) (passed []boundary, err error) {
	synctest.Test(t, func(*testing.T) {
		w := c.open(mishaps)
		w.box.Put("hubspot", "firms", map[string]any{"name": "Acme", "owner": "Ann", "stage": "customer", "tags": "c"})
		time.Sleep(20 * time.Second) // a search shows it by then
		for i, n := range which {
			w.accept(i, races[n])
			synctest.Wait() // they come in this order
			time.Sleep(apart)
		}
		for range 600 {
			if time.Sleep(time.Second); len(w.ledger.open()) == 0 {
				break
			}
		}
		time.Sleep(5 * time.Minute) // whoever slept has woken up, and all that lingers has come
		w.end()
		w.judgeRace(which)
		passed, err = w.passed, w.wrong
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.ledger)
		}
	})
	return passed, err
}

func (w *world) judgeRace(which []int) {
	if open := w.ledger.open(); len(open) > 0 {
		w.fault("routes stay open for ever: %v", open)
	}
	seen := map[any]bool{}
	for _, r := range w.box.Records("hubspot", "firms") {
		p := r.Properties
		name := p["name"]
		if seen[name] {
			w.fault("there are two firms %v", name)
		}
		seen[name] = true
		switch {
		case name == "Acme" && (p["owner"] != "Ann" || p["stage"] != "customer" || p["source"] == "partnersync"):
			w.fault("what sales have put is overwritten: %v", p)
		case name == "Acme" && !strings.Contains(fmt.Sprint(p["tags"]), "c"):
			w.fault("what sales have added is gone: %v", p)
		case name == "Beta" && (p["owner"] != "owner of Beta" || p["source"] != "partnersync"):
			w.fault("what was to be filled is not: %v", p)
		}
	}
	for _, n := range which {
		if name := races[n].body["name"]; !seen[name] {
			w.fault("there is no firm %v", name)
		}
	}
}

// TestMatchAtEveryCrashPoint plays events of two keys that race for one firm, once for every boundary
// and everything that may go wrong there. The suite plays one in seven.
func TestMatchAtEveryCrashPoint(t *testing.T) {
	t.Parallel()
	c := newCourtroomOf(t, 1, matched, sandbox.Options{Lag: 8 * time.Second, Custom: map[string][]sandbox.Property{
		"hubspot/firms": {
			{Name: "firm_key", Unique: true}, {Name: "name"}, {Name: "owner"}, {Name: "source"}, {Name: "stage"},
			{Name: "tags", Type: "enumeration", FieldType: "checkbox", Options: []string{"a", "b", "c"}},
		},
	}})
	every := 7
	if lawsFor(t) > 0 {
		every = 1
	}
	n, played := 0, 0
	for _, which := range [][]int{{1, 2}, {0, 3}, {0, 1, 2}} {
		for _, apart := range []time.Duration{0, 50 * time.Millisecond, 3 * time.Second} {
			passed, err := c.race(t, which, apart, nil)
			if err != nil {
				t.Fatalf("%v, %s apart: %v", which, apart, err)
			}
			for i, b := range passed {
				for _, m := range b.mishaps() {
					if n++; n%every != 0 {
						continue
					}
					played++
					if _, err := c.race(t, which, apart, map[int]mishap{i + 1: m}); err != nil {
						t.Fatalf("%v, %s apart, mishap %d at %d (boundary %d of %v): %v", which, apart, m, i+1, b, passed, err)
					}
				}
			}
		}
	}
	t.Logf("%d histories", played)
}
