package sources_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
	"partnersync/receiver/sources"
)

// Every mistake that somebody can make in a source, with what is said about it.
func TestMistakes(t *testing.T) {
	t.Parallel()
	ok := "verify: none\nevents: {a: {}}\n"
	tests := []struct {
		name string
		give string
		want string
	}{
		{"not a map", `partnerstack`,
			"config.yaml:1:1: the source \"s\" must be a map (write `preset: NAME`, or describe its events)"},
		{"unknown preset", "preset: partnerstak\nverify: none",
			`config.yaml:1:9: there is no preset "partnerstak" of a source (did you mean "partnerstack"?)`},
		{"unknown key", ok + "verfy: none",
			`config.yaml:3:1: unknown key "verfy" (did you mean "verify"?)`},
		{"no verify", "preset: everflow",
			"config.yaml:1:1: the source \"s\" has no verify (write `verify: {token: ...}`, or `verify: none` to take what anybody sends)"},
		{"empty verify", "preset: everflow\nverify:",
			"config.yaml:1:1: the source \"s\" has no verify (write `verify: {token: ...}`, or `verify: none` to take what anybody sends)"},
		{"verify by nothing", "preset: everflow\nverify: {}",
			`config.yaml:2:9: verify names no way to verify (one of: token, basic, hmac, standard_webhooks, allow_ips)`},
		{"verify by a word", "preset: everflow\nverify: token",
			"config.yaml:2:9: \"token\" is no way to verify (write `verify: {token: ...}`, or `verify: none` to take what anybody sends)"},
		{"unknown scheme", "preset: everflow\nverify: {tokens: x}",
			`config.yaml:2:10: unknown key "tokens" (did you mean "token"?)`},
		{"empty token", "preset: everflow\nverify: {token: \"${EMPTY}\"}",
			`config.yaml:2:17: the token is empty (is the environment variable set?)`},
		{"token missing", "preset: everflow\nverify:\n  token:",
			`config.yaml:3:9: this needs a value`},
		{"no tokens", "preset: everflow\nverify: {token: []}",
			`config.yaml:2:9: verify names no way to verify (one of: token, basic, hmac, standard_webhooks, allow_ips)`},
		{"token in a header that is none", ok[len("verify: none\n"):] + "verify: {token: {header: 'X T', secrets: a}}",
			`config.yaml:2:26: "X T" cannot be the name of a header (such as X-Webhook-Token)`},
		{"token in a header, no secret", "preset: everflow\nverify: {token: {header: X-T, secrets: []}}",
			"config.yaml:2:40: token needs a secret"},
		{"token in a header, incomplete", "preset: everflow\nverify: {token: {}}",
			"config.yaml:2:17: the key \"header\" is missing\nconfig.yaml:2:17: the key \"secrets\" is missing"},
		{"hmac, timestamp from two places", "events: {a: {}}\nverify: {hmac: {header: X, template: '{timestamp}{body}', timestamp_header: T, timestamp_field: t, signature_field: v1, secrets: y}}",
			"config.yaml:2:97: the timestamp can come from one place only (leave one out)"},
		{"hmac, fields without a signature", "events: {a: {}}\nverify: {hmac: {header: X, template: '{timestamp}{body}', timestamp_field: t, secrets: y}}",
			"config.yaml:2:76: a header with fields has one for the signature, too (name the field of the signature with `signature_field`)"},
		{"variable not set", "preset: everflow\nverify: {token: [a, \"${GONE}\"]}",
			`config.yaml:2:21: the environment variable GONE is not set`},
		{"empty password", "preset: everflow\nverify: {basic: {username: u, password: \"${EMPTY}\"}}",
			`config.yaml:2:41: the password is empty (is the environment variable set?)`},
		{"no password", "preset: everflow\nverify: {basic: {username: u}}",
			`config.yaml:2:17: the key "password" is missing`},
		{"hmac without header and secrets", ok + "x: 1\n", `config.yaml:3:1: unknown key "x" (one of: allow, capture, currency, delivery_id, description, events, get, hint, ignore, max_body, preset, private, schemas, shapes, tests, times, verify, wrapped, zone)`},
		{"hmac incomplete", "events: {a: {}}\nverify: {hmac: {}}",
			"config.yaml:2:16: the key \"header\" is missing\nconfig.yaml:2:16: the key \"secrets\" is missing"},
		{"hmac without a secret", "events: {a: {}}\nverify: {hmac: {header: X, secrets: []}}",
			`config.yaml:2:37: hmac needs a secret`},
		{"hmac with an empty secret", "events: {a: {}}\nverify: {hmac: {header: X, secrets: ['']}}",
			`config.yaml:2:38: the secret is empty (is the environment variable set?)`},
		{"hmac, secret in the singular", "events: {a: {}}\nverify: {hmac: {header: X, secret: y, secrets: z}}",
			`config.yaml:2:28: unknown key "secret" (did you mean "secrets"?)`},
		{"hmac algorithm", "events: {a: {}}\nverify: {hmac: {header: X, algorithm: md5, secrets: y}}",
			`config.yaml:2:39: unknown algorithm "md5" (one of: sha1, sha256, sha512)`},
		{"hmac encoding", "events: {a: {}}\nverify: {hmac: {header: X, encoding: base32, secrets: y}}",
			`config.yaml:2:38: unknown encoding "base32" (one of: hex, base64)`},
		{"hmac of nothing", "events: {a: {}}\nverify: {hmac: {header: X, template: x, secrets: y}}",
			`config.yaml:2:38: what is signed must hold {body}`},
		{"hmac placeholder", "events: {a: {}}\nverify: {hmac: {header: X, template: '{url}{body}', secrets: y}}",
			`config.yaml:2:38: unknown placeholder {url} (one of: {body}, {timestamp})`},
		{"hmac timestamp from nowhere", "events: {a: {}}\nverify: {hmac: {header: X, template: '{timestamp}{body}', secrets: y}}",
			"config.yaml:2:38: {timestamp} needs a header to come from (name the header with `timestamp_header`)"},
		{"hmac timestamp that is not signed", "events: {a: {}}\nverify: {hmac: {header: X, timestamp_header: T, secrets: y}}",
			"config.yaml:2:46: the timestamp is not part of what is signed, so anybody could change it (write a template such as \"{timestamp}.{body}\")"},
		{"hmac tolerance of nothing", "events: {a: {}}\nverify: {hmac: {header: X, tolerance: 1m, secrets: y}}",
			`config.yaml:2:39: a tolerance needs a signed timestamp`},
		{"standard webhooks, no base64", "events: {a: {}}\nverify: {standard_webhooks: {secrets: 'whsec_*'}}",
			`config.yaml:2:39: the secret is not base64 (a secret of Standard Webhooks is "whsec_" and base64)`},
		{"standard webhooks, no secret", "events: {a: {}}\nverify: {standard_webhooks: {tolerance: 1m, secrets: []}}",
			`config.yaml:2:54: standard_webhooks needs a secret`},
		{"no network", "events: {a: {}}\nverify: {allow_ips: [192.0.2.0/33]}",
			`config.yaml:2:22: "192.0.2.0/33" is no network (write an address or a network, such as 192.0.2.7 or 192.0.2.0/24)`},
		{"zone", ok + "zone: Toronto",
			`config.yaml:3:7: unknown time zone "Toronto" (write a name of the tz database, such as America/Toronto or UTC)`},
		{"zone of the machine", ok + "zone: Local",
			`config.yaml:3:7: unknown time zone "Local" (write a name of the tz database, such as America/Toronto or UTC)`},
		{"currency", ok + "currency: dollars",
			`config.yaml:3:11: unknown currency "dollars" (write its three letters, such as USD)`},
		{"size", ok + "max_body: 1 gigabyte",
			`config.yaml:3:11: "1 gigabyte" is not a size (write a size up to 64MiB, such as 512KiB or 1MiB)`},
		{"too large a size", ok + "max_body: 65MiB",
			`config.yaml:3:11: "65MiB" is not a size (write a size up to 64MiB, such as 512KiB or 1MiB)`},
		{"times", ok + "times: us",
			`config.yaml:3:8: unknown unit "us" of times (write ms or s)`},
		{"wrapped", ok + "wrapped: true",
			`config.yaml:3:10: wrapped is the key of the payload inside an envelope, or false (such as data, the default)`},
		{"capture", ok + "capture: maybe",
			`config.yaml:3:10: expected true or false, found "maybe" (write true or false)`},
		{"no events", "verify: none",
			"config.yaml:1:1: the source \"s\" has no events (name a preset, or describe the events; `capture: true` stores all that comes and maps nothing)"},
		{"event name", "verify: none\nevents: {Deal Created: {}}",
			`config.yaml:2:10: "Deal Created" cannot be the name of an event (write lower-case words joined by dots, such as "deal.created")`},
		{"an event twice", "verify: none\nevents:\n  a: {}\n  a: {}",
			`config.yaml:4:3: the key "a" stands here a second time (it stands on line 3 already)`},
		{"unknown key of an event", "verify: none\nevents: {a: {shema: {}}}",
			`config.yaml:2:14: unknown key "shema" (did you mean "schema"?)`},
		{"unknown schema", "verify: none\nschemas: {deal: {}}\nevents: {a: {schema: deel}}",
			`config.yaml:3:22: unknown kind or schema "deel" (did you mean "deal"?)`},
		{"unknown kind", "verify: none\nevents: {a: {schema: {x: txt}}}",
			`config.yaml:2:26: unknown kind or schema "txt" (did you mean "text"?)`},
		{"unknown word", "verify: none\nevents: {a: {schema: {x: text reqired}}}",
			`config.yaml:2:26: unknown word "reqired" in a schema (did you mean "required"?)`},
		{"no kind", "verify: none\nevents: {a: {schema: {x: ', of no kind'}}}",
			`config.yaml:2:26: the kind is missing (one of: any, id, text, integer, number, bool, time, object, list, map)`},
		{"unit of a text", "verify: none\nevents: {a: {schema: {x: text ms}}}",
			`config.yaml:2:26: "ms" is a unit, and only a time has one`},
		{"a list for a schema", "verify: none\nevents: {a: {schema: {x: [text]}}}",
			`config.yaml:2:26: this is no schema (write a kind such as "text", or a map of fields)`},
		{"an event of a text", "verify: none\nevents: {a: {schema: text}}",
			`config.yaml:2:22: the schema of an event must be an object (name the fields of the body)`},
		{"a field twice", "verify: none\nschemas:\n  x: {a: id, a: text}\nevents: {a: {}}",
			`config.yaml:3:14: the key "a" stands here a second time (it stands on line 3 already)`},
		{"a schema with the name of a kind", ok + "schemas: {text: {a: id}}",
			`config.yaml:3:11: "text" is a kind and cannot name a schema`},
		{"a schema in itself", ok + "schemas: {x: {y: list of x}}",
			`config.yaml:3:18: the schema "x" holds itself`},
		{"a spelling that is a field", "verify: none\nevents: {a: {schema: {x: text also=y, y: text}}}",
			`config.yaml:2:26: "y" is a field of its own and no other spelling of "x"`},
		{"entity without a kind", "verify: none\nevents: {a: {entity: event.id}}",
			"config.yaml:2:22: an entity is one kind and the expression of its id (such as `entity: {deal: event.key}`; set the preset's own kind to null to replace it)"},
		{"entity of two kinds", "preset: partnerstack\nverify: none\nevents: {deal.created: {entity: {sale: event.key}}}",
			"config.yaml:3:33: an entity is one kind and the expression of its id (such as `entity: {deal: event.key}`; set the preset's own kind to null to replace it)"},
		{"alias that is an event", "verify: none\nevents: {a: {aliases: B}, b: {}}",
			`config.yaml:2:10: the alias "B" of "a" is an event of its own`},
		{"sample", "verify: none\nevents: {a: {sample: '[1]'}}",
			`config.yaml:2:22: the sample is not a JSON object: line 1, column 1: the body is not a JSON object`},
		{"shape of an unknown event", ok + "shapes: [{has: x, type: b}]",
			`config.yaml:3:25: unknown event "b" (did you mean "a"?)`},
		{"shape without a type", ok + "shapes: [{has: x}]",
			`config.yaml:3:10: the key "type" is missing`},
		{"ignore without a reason", ok + "ignore: [{when: 'true'}]",
			`config.yaml:3:10: the key "reason" is missing`},
		{"allow what is not private", "preset: everflow\nverify: none\nallow: relationship.biling.tax_id",
			`config.yaml:3:8: no event of "s" has a private field "relationship.biling.tax_id" (did you mean "relationship.billing.tax_id"?)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, d := loadAny(t, "s", tt.give)
			if diff := cmp.Diff(tt.want, d.Problems.Error()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// The words about expressions are those of the compiler; here it matters that
// each expression is checked, against the right schema, at its place.
func TestMistakesInExpressions(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, give, at string }{
		{"entity", "verify: none\nevents: {a: {schema: {id: id}, entity: {x: event.ide}}}", "config.yaml:2:50"},
		{"occurred_at", "verify: none\nevents: {a: {schema: {id: id}, occurred_at: event.at}}", "config.yaml:2:51"},
		{"occurred_at of another kind", "verify: none\nevents: {a: {schema: {done: bool}, occurred_at: event.done}}", "config.yaml:2:49"},
		{"private", "verify: none\nevents: {a: {schema: {id: id private}, entity: {x: event.id}}}", "config.yaml:2:58"},
		{"private by name", "verify: none\nprivate: id\nevents: {a: {schema: {id: id}, entity: {x: event.id}}}", "config.yaml:3:50"},
		{"ignore", "verify: none\nevents: {a: {schema: {id: id}}}\nignore: [{when: event.ide == \"1\", reason: r}]", "config.yaml:3:23"},
		{"shape", "verify: none\nevents: {a: {}}\nshapes: [{has: x, when: evnt.x, type: a}]", "config.yaml:3:25"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, d := loadAny(t, "s", tt.give)
			if len(d.Problems) != 1 || d.Problems[0].Pos.String() != tt.at {
				t.Errorf("got %v, want one at %s", d.Problems, tt.at)
			}
		})
	}
}

// All mistakes come at once, and the source is there all the same, so that
// mappings can be checked against it.
func TestMistakesComeTogether(t *testing.T) {
	t.Parallel()
	s, d := loadAny(t, "s", "preset: everflow\nzone: Nowhere\ncurrency: no\nmax_body: 0\nverify: {token: ''}\nallow: x")
	if len(d.Problems) != 5 {
		t.Errorf("%d problems:\n%v", len(d.Problems), d.Problems.Error())
	}
	if s == nil || len(s.Events) != 5 {
		t.Error("the source is not there")
	}
}

func TestNoSecretInProblems(t *testing.T) {
	t.Parallel()
	_, d := loadAny(t, "s", "events: {a: {}}\nverify: {standard_webhooks: {secrets: ['whsec_hidden!']}, hmac: {header: X, secrets: topsecret, x: 1}}")
	if text := d.Problems.Error(); strings.Contains(text, "hidden!") || strings.Contains(text, "topsecret") || len(d.Problems) != 2 {
		t.Errorf("got %s", text)
	}
}

// A signature without a time is no proof of when it was made.
func TestOldRequests(t *testing.T) {
	t.Parallel()
	const (
		warning = "config.yaml:2:16: warning: an old request that comes again is taken for a new event: nothing in its signature has a time, and neither has the event \"b\""
		timed   = "{schema: {at: time}, occurred_at: event.at}"
		verify  = "verify: {hmac: {header: X-S, secrets: s}}"
	)
	for _, tt := range []struct{ name, give, want string }{
		{"no time at all", "events: {a: " + timed + ", b: {}, c: {}}\n" + verify, warning},
		{"of an event with a time", "events: {a: " + timed + "}\n" + verify, ""},
		{"a signed time", "events: {b: {}}\nverify: {hmac: {header: X-S, template: '{timestamp}{body}', timestamp_header: X-T, secrets: s}}", ""},
		{"ids of deliveries", "events: {b: {}}\n" + verify + "\ndelivery_id: X-Id", ""},
		{"standard webhooks", "events: {b: {}}\nverify: {standard_webhooks: {secrets: whsec_AAAA}}", ""},
		{"a token", "events: {b: {}}\nverify: {token: t}", ""},
		{"a header that is none", "events: {b: {}}\nverify: {token: t}\ndelivery_id: 'X Id'",
			`config.yaml:3:14: "X Id" cannot be the name of a header (such as X-Delivery-Id)`},
		{"two ids", "events: {b: {}}\nverify: {standard_webhooks: {secrets: whsec_AAAA}}\ndelivery_id: X-Id",
			`config.yaml:3:14: standard_webhooks has its own id, in webhook-id (leave it out)`},
	} {
		_, d := loadAny(t, "s", tt.give)
		got := ""
		if len(d.Problems) > 0 {
			got = d.Problems.Error()
		}
		if got != tt.want && !(tt.want == warning && len(d.Problems) == 1 && strings.HasPrefix(got, warning) && !d.Problems.Failed()) {
			t.Errorf("%s: got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestAPresetIsSuggestedByName(t *testing.T) {
	t.Parallel()
	_, d := loadAny(t, "everflow", "verify: none")
	if got := d.Problems.Error(); !strings.Contains(got, "did you mean `preset: everflow`?") {
		t.Error(got)
	}
}

func TestCaptureNeedsNoEvents(t *testing.T) {
	t.Parallel()
	s := load(t, "anybody", "{verify: none, capture: true}")
	if e := s.Open("x", []byte(`{"a": 1}`)); !s.Capture || e.Type != "x" || e.Known {
		t.Errorf("got %+v", e)
	}
}

func TestPresetsPassWithEachKeyOnTop(t *testing.T) {
	t.Parallel()
	for _, name := range sources.Presets() {
		load(t, name, lines(
			"preset: "+name, `verify: {token: ["${TOKEN}", other], allow_ips: 192.0.2.0/24}`, "zone: America/Toronto", "currency: usd",
			"ignore: []", "allow: []", "capture: false", "max_body: 524288", "get: no", "times: s", "wrapped: data", "tests: []", "hint: []", "private: []"))
	}
}

func FuzzLoad(f *testing.F) {
	for _, name := range sources.Presets() {
		data, _ := sources.Preset(name)
		f.Add(string(data) + "\nverify: none\n")
		f.Add("preset: " + name + "\nverify: {token: x}\nevents: {a: {schema: {x: {y: list of id none=0 also=z}}, entity: {k: event.x.y}}}")
	}
	f.Add(acme)
	f.Add("events: &e\n  a: {<<: *e}\nschemas: {a: b, b: c, c: {d: a}}")
	f.Add("verify: {hmac: {header: X, template: '{', secrets: x}}\nevents: {a: }")
	f.Fuzz(func(t *testing.T, yaml string) {
		n, problems := diag.Parse("config.yaml", []byte(yaml))
		if problems.Failed() {
			return
		}
		d := decoding()
		s := sources.Load("s", n, d)
		if s == nil && !d.Problems.Failed() {
			t.Fatal("no source, and no problem")
		}
		if s == nil {
			return
		}
		// Even a source with problems must stand what comes.
		for name, event := range s.Events {
			s.Open(name, event.Sample)
		}
		e := s.Open("", []byte(`{"event": "x", "data": {"id": 1, "key": "k", "created_at": 1}}`))
		s.Redact(e.Type, e.Body)
	})
}
