package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/mappers"
	"partnersync/sinks"
)

const shop = "sources: {shop: {verify: none, description: d, events: {made: {description: d, schema: {id: id required, stage: text}, entity: {e: event.id}}}}}\n" +
	"sinks: {crm: {preset: webhook, url: \"https://x.example\"}}\n"

// References in tables are replaced as elsewhere.
func TestReferencesInTables(t *testing.T) {
	t.Parallel()
	env := map[string]string{"STAGE": "closedwon", "NUMBER": "123", "AMOUNT": "1.50", "ZEROS": "007", "LIST": "[a", "PAIR": "a: b", "WORD": "skip", "YES": "true", "EMPTY": ""}
	tests := []struct {
		name, give string // a table
		want       any    // what the stage "Won" becomes
		problem    string
		lenient    bool
	}{
		{name: "a text", give: `{map: {Won: "${STAGE}"}}`, want: "closedwon"},
		{name: "without quotes", give: "\n    map:\n      Won: ${STAGE}\n", want: "closedwon"},
		{name: "a number", give: "\n    map:\n      Won: ${NUMBER}\n", want: int64(123)},
		{name: "a number in quotes", give: `{map: {Won: "${NUMBER}"}}`, want: "123"},
		{name: "digits that are no number", give: "\n    map:\n      Won: ${ZEROS}\n", want: "007"},
		{name: "an amount", give: "\n    map:\n      Won: ${AMOUNT}\n", want: "1.50"},
		{name: "a bool", give: "\n    map:\n      Won: ${YES}\n", want: true},
		{name: "no YAML", give: "\n    map:\n      Won: ${LIST}\n", want: "[a"},
		{name: "no map", give: "\n    map:\n      Won: ${PAIR}\n", want: "a: b"},
		{name: "a default", give: `{map: {Won: "${NOT_SET:-won}"}}`, want: "won"},
		{name: "a default of a number", give: "\n    map:\n      Won: ${NOT_SET:-7}\n", want: int64(7)},
		{name: "not set", give: `{map: {Won: "${NOT_SET}"}}`, problem: "error: the environment variable NOT_SET is not set"},
		{name: "empty", give: `{map: {Won: "${EMPTY}"}}`, problem: "error: the environment variable EMPTY is empty"},
		{name: "not set, to check", give: `{map: {Won: "${NOT_SET}"}}`, lenient: true, want: config.Unset, problem: "warning: the environment variable NOT_SET is not set here"},
		{name: "a part of a text", give: `{map: {Won: "stage ${STAGE}"}}`, problem: "error: a reference such as ${NAME} must be the whole value"},
		{name: "a file that is not there", give: `{map: {Won: "${file:nowhere}"}}`, problem: `cannot be read`},
		{name: "a key", give: `{map: {"${STAGE}": won}}`, problem: "error: a key cannot hold a reference"},
		{name: "else", give: `{map: {Lost: x}, else: "${STAGE}"}`, want: "closedwon"},
		{name: "else, by default", give: `{map: {Lost: x}, else: "${NOT_SET:-open}"}`, want: "open"},
		{name: "else of a word", give: `{map: {Lost: x}, else: "${WORD}"}`, want: nil},
		{name: "else, not set", give: `{map: {Lost: x}, else: "${NOT_SET}"}`, problem: "error: the environment variable NOT_SET is not set"},
		{name: "else, in an expression", give: `{map: {Lost: x}, else: 'value("${STAGE}")'}`, problem: "error: an expression cannot hold a reference such as ${NAME}"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			text := shop + "tables:\n  st: " + test.give + "\nmappings: [{name: m, on: shop.made, to: crm, object: o, key: {k: event.id}, set: {stage: 'lookup(event.stage, \"st\")'}}]\n"
			cfg, problems := config.Parse("c.yaml", []byte(text), config.Options{Lenient: test.lenient, Getenv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
			if says := severe(problems); !strings.Contains(says, test.problem) || test.problem == "" && len(problems) > 0 {
				t.Fatalf("%s, want %s", says, test.problem)
			}
			if cfg == nil {
				return
			}
			out := cfg.Mappings.Run("crm", &mappers.Event{Source: "shop", Type: "made", Body: map[string]any{"id": "1", "stage": "won"}})
			var got any
			if fields := out[0].Changes[0].Fields; len(fields) > 0 {
				got = fields[0].Value
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(decimal.Decimal.Equal)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is no value is never passed on with a reference in it, and no setting is.
func TestReferencesElsewhere(t *testing.T) {
	t.Parallel()
	mapping := func(text string) string {
		return shop + "mappings: [{name: m, on: shop.made, to: crm, " + text + "}]\n"
	}
	tests := []struct{ name, give, problem string }{
		{"an expression", mapping(`object: o, key: {k: event.id}, set: {a: "${X}"}`), "an expression cannot hold a reference"},
		{"inside an expression", mapping(`object: o, key: {k: event.id}, set: {a: 'value("${X}")'}`), "an expression cannot hold a reference"},
		{"a key expression", mapping(`object: o, key: {k: "${X}"}`), "an expression cannot hold a reference"},
		{"a field", mapping(`object: o, key: {k: event.id}, set: {"${X}": event.id}`), "a key cannot hold a reference"},
		{"a key property", mapping(`object: o, key: {"${X}": event.id}`), "a key cannot hold a reference"},
		{"a refusal", mapping(`object: o, key: {k: event.id}, on_reject: {"${X}": skip}`), "a key cannot hold a reference"},
		{"a sink", strings.Replace(shop, "crm", `"${X}"`, 1), "a key cannot hold a reference"},
		{"a table", shop + `tables: {"${X}": {map: {a: b}}}`, "a key cannot hold a reference"},
		{"a key of a setting", `sinks: {crm: {preset: pipedrive, auth: {token: t}, settings: {link_fields: {"${X}": b}}}}`, "a key cannot hold a reference"},
		{"a part of a setting", `sinks: {crm: {preset: hubspot, auth: {token: t}, settings: {api_version: "v${X}"}}}`, "must be the whole value"},
		{"a setting that is not set", `sinks: {crm: {preset: hubspot, auth: {token: t}, settings: {api_version: "${NOT_SET}"}}}`, "NOT_SET is not set"},
		{"a setting", `sinks: {crm: {preset: zoho, auth: {client_id: c, client_secret: s, refresh_token: r}, settings: {dc: "${X}"}}}`, ""},
		{"an object", mapping(`object: "${X}", key: {k: event.id}`), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg, problems := config.Parse("c.yaml", []byte(test.give), config.Options{Getenv: func(name string) (string, bool) { return "eu", name == "X" }})
			if all := severe(problems); !strings.Contains(all, test.problem) || (test.problem == "") != (cfg != nil) {
				t.Fatalf("%q, want %q", all, test.problem)
			}
			switch {
			case cfg == nil:
			case cfg.Sinks["crm"].Preset == "zoho":
				sink := sinks.New(cfg.Sinks["crm"], sinks.Options{})
				defer sink.Close()
				row := sinks.Row{Object: "Leads", Property: "K", Key: "1"}
				if p, err := sink.Preview(sinks.Upsert, []sinks.Row{row}); err != nil || !strings.HasPrefix(p[0].URL, "https://www.zohoapis.eu/") {
					t.Errorf("%v %v", p, err)
				}
			case cfg.Mappings.Mappings()[0].Object != "eu":
				t.Errorf("%+v", cfg.Mappings.Mappings())
			}
		})
	}
}

// severe writes problems with their severity.
func severe(problems diag.Problems) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%s: %s\n", p.Severity, p.Message)
	}
	return b.String()
}
