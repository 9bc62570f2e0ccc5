package config

import (
	"bytes"
	"strings"
	"testing"

	"partnersync/internal/diag"
)

// Secrets are written in the wrong place: nothing that a person, a log or the answer of a reload is told holds them.
func TestSecretsInTheWrongPlaceDoNotShow(t *testing.T) {
	t.Parallel()
	const (
		frame  = "sources: {shop: {verify: none, description: x, times: s, events: {a.b: {schema: {id: id}}}}}\n"
		secret = "pat-na1-s3cret"
		url    = "postgres://user:pat-na1-s3cret@db.example/partnersync"
	)
	sink := func(text string) string { return frame + "sinks:\n  crm: {preset: hubspot, " + text + "}\n" }
	source := func(text string) string {
		return "sources:\n  shop:\n    description: x\n    times: s\n    events: {a.b: {schema: {id: id}}}\n" + text
	}
	for _, tt := range []struct{ name, give string }{
		{"verify is a text", source("    verify: " + secret)},
		{"verify is a quoted text", source("    verify: \"" + secret + "\"")},
		{"verify is a list", source("    verify: [" + secret + "]")},
		{"verify is a list of lines", source("    verify:\n    - " + secret)},
		{"verify with a slip of the pen", source("    verify: {tokn: " + secret + "}")},
		{"verify with the secret for a key", source("    verify: {" + secret + "}")},
		{"verify with the secret for a key and a value", source("    verify: {" + secret + ": token}")},
		{"verify with a secret too deep", source("    verify: {token: {value: " + secret + "}}")},
		{"hmac is a text", source("    verify: {hmac: " + secret + "}")},
		{"an algorithm", source("    verify: {hmac: {header: X, algorithm: " + secret + ", secrets: x}}")},
		{"an encoding", source("    verify: {hmac: {header: X, encoding: " + secret + ", secrets: x}}")},
		{"not base64", source("    verify: {standard_webhooks: {secrets: " + secret + "}}")},
		{"a network", source("    verify: {allow_ips: [" + secret + "]}")},
		{"basic is a text", source("    verify: {basic: \"user:" + secret + "\"}")},
		{"verify slips", source("    verfy: {token: " + secret + "}")},
		{"verify and token slip", source("    verfy: {tokn: " + secret + "}")},
		{"a source is a text", "sources: {shop: " + secret + "}"},
		{"sources is a text", "sources: " + secret},
		{"auth is a text", sink("auth: " + secret)},
		{"auth is a quoted text", sink("auth: '" + secret + "'")},
		{"auth is a list", sink("auth: [" + secret + "]")},
		{"auth slips", sink("auht: {token: " + secret + "}")},
		{"token slips", sink("auth: {tokn: \"" + secret + "\"}")},
		{"token is a map", sink("auth: {token: {value: " + secret + "}}")},
		{"token in block style", frame + "sinks:\n  crm:\n    preset: hubspot\n    auth:\n      tokn: " + secret},
		{"type", sink("auth: {type: " + secret + "}")},
		{"style", sink("auth: {type: oauth2_refresh, style: " + secret + ", client_id: a, client_secret: b, refresh_token: c, token_url: 'https://x.example/'}")},
		{"token_url", sink("auth: {type: oauth2_refresh, client_id: a, client_secret: b, refresh_token: c, token_url: " + secret + "}")},
		{"a key of many lines", frame + "sinks:\n  crm:\n    preset: salesforce\n    auth:\n      privat_key: |\n        " + secret + "\n"},
		{"a header's slip", sink("headers: [" + secret + "]")},
		{"headers is a text", sink("headers: 'Bearer " + secret + "'")},
		{"sign is a text", frame + "sinks: {hook: {preset: webhook, url: 'https://x.example/', sign: " + secret + "}}"},
		{"sign slips", frame + "sinks: {hook: {preset: webhook, url: 'https://x.example/', sign: {secrt: " + secret + "}}}"},
		{"an address with a password", frame + "sinks: {hook: {preset: webhook, url: 'htp://a:" + secret + "@x.example/'}}"},
		{"an address that is a secret", frame + "sinks: {hook: {preset: webhook, url: 'hooks.example/" + secret + "'}}"},
		{"a base address with a query", sink("base_url: 'htp://x.example/?key=" + secret + "', auth: {token: x}")},
		{"a sink is a text", frame + "sinks: {crm: " + secret + "}"},
		{"a preset", frame + "sinks:\n  crm: {preset: hubspot, auth: {token: x}, token: " + secret + "}"},
		{"database is the URL", frame + "database: " + url},
		{"database.url is a list", frame + "database: {url: ['" + url + "']}"},
		{"database.uri", frame + "database: {uri: '" + url + "'}"},
		{"database.url with half a variable", frame + "database: {url: 'postgres://user:" + secret + "@${HOST}/x'}"},
		{"token_key is a list", frame + "database: {token_key: [" + secret + ", b]}"},
		{"token_key slips", frame + "database: {token_keys: " + secret + "}"},
		{"admin is a text", frame + "admin: " + secret},
		{"admin.token is a map", frame + "admin: {token: {value: " + secret + "}}"},
		{"admin.token slips", frame + "admin: {tokn: " + secret + "}"},
		{"a section of nobody's", frame + "hubspot_token: " + secret},
		{"an anchor in a section of nobody's", frame + "x: &t " + secret + "\nadmin: {token: *t}"},
		{"tracing.headers is a text", frame + "tracing: {headers: 'Authorization: " + secret + "'}"},
		{"tracing.endpoint with a password", frame + "tracing: {endpoint: 'https://user:" + secret + "@x.example/'}"},
		{"the secret for a variable", sink("auth: {token: \"${" + secret + "}\"}")},
		{"the secret for a default", sink("auth: {tokn: \"${X:-" + secret + "}\"}")},
		{"half a variable", sink("auth: {token: \"Bearer " + secret + " ${HELD}\"}")},
		{"a colon in an unquoted secret", sink("auth: {token: x}") + "admin:\n  token: " + secret + ": x\n"},
		{"a tab", "admin:\n\ttoken: " + secret + "\n"},
		{"an open quote", "admin: {token: \"" + secret + "}\n"},
		{"an alias", "admin:\n  token: *" + secret + "\n"},
		{"a reserved sign", "admin:\n  token: @" + secret + "\n"},
		{"a resolved level", frame + "log: {level: \"${HELD}\"}"},
		{"a resolved format", frame + "log: {format: \"${HELD}\"}"},
		{"a resolved number", frame + "jobs: {max_workers: \"${HELD}\"}"},
		{"a resolved duration", frame + "jobs: {grace: \"${HELD}\"}"},
		{"a resolved size", frame + "receiver: {spool: x, spool_max: \"${HELD}\"}"},
		{"a resolved unit", strings.Replace(frame, "times: s", "times: \"${HELD}\"", 1)},
		{"a resolved address", sink("base_url: \"${HELD}\", auth: {token: x}")},
		{"a resolved type", sink("auth: {type: \"${HELD}\"}")},
		{"a resolved preset", frame + "sinks: {crm: {preset: \"${HELD}\"}}"},
		{"a resolved zone", sink("zone: \"${HELD}\", auth: {token: x}")},
		{"a resolved endpoint", frame + "tracing: {endpoint: \"${HELD}\"}"},
		{"a resolved file", frame + "log: {level: \"${file:../../internal/config/testdata/secret}\"}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, lenient := range []bool{false, true} {
				getenv := func(name string) (string, bool) { return secret, name == "HELD" }
				_, problems := Parse("config.yaml", []byte(tt.give), Options{Getenv: getenv, Lenient: lenient})
				if len(problems) == 0 {
					t.Errorf("there is nothing to tell of\n%s", tt.give)
				}
				var shown bytes.Buffer
				diag.Print(&shown, problems, func(string) []byte { return []byte(tt.give) })
				for _, text := range []string{shown.String(), problems.Error()} {
					if strings.Contains(text, "s3cret") {
						t.Errorf("lenient %v: it shows:\n%s", lenient, text)
					}
				}
			}
		})
	}
}

// What is no secret still shows where it is wrong.
func TestWhatIsNoSecretShows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, give, want string }{
		{"a slip below auth", "sinks:\n  crm:\n    preset: hubspot\n    auth: {tokn: \"${TOKEN}\"}\n", "    4 |     auth: {tokn: \"${TOKEN}\"}\n      |            ^^^^\n        did you mean \"token\"?"},
		{"a secret behind it", "sinks:\n  crm:\n    preset: hubspot\n    auth: {tokn: 'abc, d', type: x}\n", "    4 |     auth: {tokn: ********, type: *}\n      |            ^^^^\n"},
		{"a mapping", "mappings:\n  - name: a\n    sett: {token: event.token}\n", "    3 |     sett: {token: event.token}\n"},
		{"a level", "log: {level: inof}\n", "log.level cannot be \"inof\""},
		{"a slip in a section", "receiver: {listn: x}\n", `unknown key "listn"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, problems := Parse("config.yaml", []byte(tt.give), Options{Getenv: func(string) (string, bool) { return "held-in-a-variable", true }})
			var shown bytes.Buffer
			diag.Print(&shown, problems, func(string) []byte { return []byte(tt.give) })
			if !strings.Contains(shown.String(), tt.want) {
				t.Errorf("want %q in\n%s", tt.want, shown.String())
			}
		})
	}
}
