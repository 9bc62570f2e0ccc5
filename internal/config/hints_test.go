package config

import (
	"strings"
	"testing"
)

// What people write who know another program, or mean a text, gets the word that they look for.
func TestHintsOfWords(t *testing.T) {
	t.Parallel()
	mapping := func(text string) string {
		return "sources: {s: {verify: none, events: {a.b: {schema: {id: id}}}}}\nsinks: {crm: {preset: hubspot, auth: {token: x}}}\nmappings:\n" +
			"  - {name: a, on: s.a.b, to: crm, object: deals, key: {k: event.id}, " + text + "}\n"
	}
	for _, tt := range []struct{ give, want string }{
		{mapping("set: {dealname: Partner}"), `a fixed text is written value("Partner")`},
		{mapping("set: {dealname: Partner deal}"), `a fixed text is written value("Partner deal")`},
		{mapping("set: {dealname: 'Neuer Vertrag von übermorgen!'}"), `a fixed text is written value("Neuer Vertrag von übermorgen!")`},
		{mapping("set: {dealname: event.id event.id}"), "an operator or a comma is missing in front of it"},
		{mapping("set_once: {x: event.id}"), `did you mean "set_first"?`},
		{mapping("if: event.id != ''"), `did you mean "when"?`},
		{"sinks: {crm: {preset: hubspot, auth: {api_key: x}}}", "one of: token)"},
		{"sinks: {crm: {preset: zoho, auth: {api_key: x}}}", "one of: client_id, client_secret, refresh_token)"},
	} {
		_, problems := Parse("config.yaml", []byte(tt.give), Options{})
		if !strings.Contains(problems.Error(), tt.want) {
			t.Errorf("want %q in\n%v", tt.want, problems)
		}
	}
}
