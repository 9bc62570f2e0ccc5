package main

import (
	"regexp"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// What the commands tell of a value that the CRM refuses or keeps otherwise, and of what was skipped.
func TestWhatIsTold(t *testing.T) {
	t.Parallel()
	config := strings.Replace(shopConfig, "name: text, at: time s", "name: text, tier: text, at: time s", 1)
	config = strings.Replace(config, "set: {title: event.name}", "set: {title: event.name, tier: event.tier}", 1)
	w := newWorld(t, config, pgtest.URL(t))
	w.box.Define("hubspot", "orders", sandbox.Property{Name: "tier", Type: "enumeration", Options: []string{"gold", "silver"}})
	s := w.start()
	sent := 0
	send := func(body string) string {
		t.Helper()
		id, err := s.postBody(body)
		if err != nil {
			t.Fatal(err)
		}
		sent++
		s.until("the event has ended", func() bool { return w.count("routes WHERE outcome IS NOT NULL") == sent })
		return id
	}
	refused := send(`{"key": "d1", "name": "one", "tier": "platinum", "at": 1700000001}`)
	send(`{"key": "d1", "name": "two", "tier": "platinum", "at": 1700000002}`)
	without := send(`{"key": "d1", "name": "two", "tier": "platinum", "at": 1700000003}`)
	release := w.box.Hold("hubspot", "orders", "title")
	kept := send(`{"key": "d1", "name": "three", "tier": "silver", "at": 1700000004}`)
	release()
	send(`{"key": "d2", "name": "one", "tier": "gold", "at": 1700000001}`)
	for _, r := range w.box.Records("hubspot", "orders") {
		if r.Properties["order_key"] == "d2" {
			w.box.Archive("hubspot", "orders", r.ID)
		}
	}
	gone := send(`{"key": "d2", "name": "two", "tier": "gold", "at": 1700000002}`)

	for _, tt := range []struct {
		args  string
		holds []string
		lacks string
	}{
		{"dead", []string{`INVALID_OPTION`, `\n    2 later events went out without it\n`, `replay --outcome dead --sink crm --mapping "deals"\n$`}, "skipped"},
		{"--json dead", []string{`"later_without": ?2`}, ""},
		{"dead --skipped", []string{
			`(?s)1 to crm by "deals", latest [^\n]*\n    gone: the record is gone from the CRM\n    for example: partnersync explain ` + gone +
				`\n    after the fix: partnersync replay --sink crm --mapping "deals" --reason "the record is gone from the CRM"\n`,
			`refused_before: without tier, which the CRM refused of an earlier event\n    for example: partnersync explain ` + without,
		}, "INVALID_OPTION"},
		{"dead --skipped --reason gone", []string{gone}, "refused_before"},
		{"dead --skipped --mapping deals --source shop --reason nothing", []string{`^nothing that fits is skipped`}, ""},
		{"events --outcome skipped", []string{gone + `.* crm: skipped \(the record is gone from the CRM\)`, without + `.* crm: skipped \(without tier, `}, "delivered"},
		{"--json events --outcome skipped", []string{`"crm: the record is gone from the CRM"`}, ""},
		{"explain " + gone, []string{`deals: skipped orders d2 .*\n +gone: the record is gone from the CRM\n`}, "rejected"},
		{"explain " + without, []string{`refused_before: without tier, which the CRM refused of event ` + refused}, "rejected"},
		{"explain " + kept, []string{`deals: delivered orders d1 .*\n +the CRM keeps another value of title\n`}, "two"},
		{"why crm orders d1", []string{`title +three +kept \(has two\) `, `tier +silver +acknowledged `}, ""},
		{"--json why crm orders d1", []string{`"crm": ?"kept",\s*"acked": ?"two"`}, ""},
	} {
		out := w.run(strings.Fields(tt.args)...)
		for _, want := range tt.holds {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("%s: it lacks %s\n%s", tt.args, want, out)
			}
		}
		if tt.lacks != "" && strings.Contains(out, tt.lacks) {
			t.Errorf("%s: it holds %s\n%s", tt.args, tt.lacks, out)
		}
	}
	// The one that is held back names the event whose value was refused.
	last := send(`{"key": "d3", "name": "one", "tier": "platinum", "at": 1700000001}`)
	send(`{"key": "d3", "name": "two", "tier": "platinum", "at": 1700000002}`)
	if out := w.run("why", "crm", "orders", "d3"); !regexp.MustCompile(`tier +platinum +refused of event ` + last + ` `).MatchString(out) {
		t.Errorf("it does not tell which event was refused:\n%s", out)
	}
}

// What the commands tell of records that the CRM had before, and of values that people there have entered.
func TestWhatIsToldOfWhatWasThere(t *testing.T) {
	t.Parallel()
	config := strings.Replace(shopConfig, "name: text, at: time s", "name: text, stage: text, at: time s", 1)
	config = strings.Replace(config, "set: {title: event.name}", `match: [{title: event.name}]
    several: dead
    set_if_empty: {colour: value("red"), size: value("big")}
    set_on_create: {origin: value("us")}
    forward: {stage: {value: event.stage, order: [new, won]}}
    add: {tags: value("gold")}`, 1)
	w := newWorld(t, config, pgtest.URL(t))
	for _, name := range []string{"colour", "size", "origin", "stage"} {
		w.box.Define("hubspot", "orders", sandbox.Property{Name: name, Type: "string"})
	}
	w.box.Define("hubspot", "orders", sandbox.Property{Name: "tags", Type: "enumeration", FieldType: "checkbox", Options: []string{"emea", "gold"}})
	for _, title := range []string{"known", "twice", "twice", "thrice", "thrice", "thrice"} {
		w.box.Put("hubspot", "orders", map[string]any{"title": title, "colour": "blue", "stage": "won", "tags": "emea"})
	}
	s := w.start()
	sent := 0
	send := func(body string) string {
		t.Helper()
		id, err := s.postBody(body)
		if err != nil {
			t.Fatal(err)
		}
		sent++
		s.until("the event has ended", func() bool { return w.count("routes WHERE outcome IS NOT NULL") == sent })
		return id
	}
	send(`{"key": "d1", "name": "known", "stage": "new", "at": 1700000001}`)
	twice := send(`{"key": "d2", "name": "twice", "stage": "new", "at": 1700000001}`)
	send(`{"key": "d3", "name": "thrice", "stage": "new", "at": 1700000001}`)
	for _, tt := range []struct{ args, want string }{
		{"dead", `2 to crm by "deals", since [^,]*, latest [^\n]*\n    match: several orders fit by title\n    for example: `},
		{"explain " + twice, `deals: dead orders d2\n +match: several orders fit by title: \d+[^,\n]*, \d+[^,\n]*\n`},
		{"events --outcome dead", twice + `.* crm: dead\n`},
		{"why crm orders d1", `(?m)^colour +red +kept \(the CRM has another value, which stays: blue\) .* set_if_empty$`},
		{"why crm orders d1", `(?m)^size +big +acknowledged .* set_if_empty$`},
		{"why crm orders d1", `(?m)^origin +us +kept \(only a new record gets it\) .* set_on_create$`},
		{"why crm orders d1", `(?m)^stage +new +kept \(the CRM has another value, which stays: won\) .* forward$`},
		{"why crm orders d1", `(?m)^tags +\["gold"\] +acknowledged \(we added gold\) .* add$`},
		{"--json why crm orders d1", `"crm": "acknowledged",\n *"added": \[\n *"gold"\n`},
	} {
		if out := w.run(strings.Fields(tt.args)...); !regexp.MustCompile(tt.want).MatchString(out) {
			t.Errorf("%s: it lacks %s\n%s", tt.args, tt.want, out)
		}
	}
}
