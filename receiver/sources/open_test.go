package sources_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"partnersync/receiver/sources"
)

// acme is a sender that only its config describes.
const acme = `
description: An invented shop that signs what it sends
verify:
  hmac: {header: X-Acme-Signature, prefix: "sha256=", template: "{timestamp}.{body}", timestamp_header: X-Acme-Time, secrets: "${SECRET}"}
zone: Europe/Zurich
currency: chf
times: s
hint: kind
tests: ping
get: true
max_body: 2KiB
schemas:
  money: number, full units
  line: {sku: id required, price: money}
events:
  order.placed:
    description: Somebody has bought something
    schema:
      id: id required
      total: money
      email: text also=mail
      lines: list of line
      placed_at: time
      card: text private
      kind: text
    entity: {order: event.id}
    occurred_at: event.placed_at
    aliases: [Order Placed, order]
    sample: '{"id": 1, "total": 9.5}'
  order.cancelled:
    schema: {id: id required, cancelled_at: time ms, kind: text}
    entity: {order: event.id}
    occurred_at: event.cancelled_at
    rank: 9
    aliases: order
  anything:
    entity: {thing: event.ref}
    occurred_at: event.at
shapes:
  - {has: [id, cancelled_at], type: order.cancelled}
  - {has: id, lacks: cancelled_at, when: event.total > 0, type: order.placed}
ignore:
  - {when: 'event.email endsWith "@test.example"', reason: test order}
  - {when: 'hook.type == "order.cancelled" and event.id == "7"', reason: the seventh}
`

func TestSourceOfAConfig(t *testing.T) {
	t.Parallel()
	s := load(t, "acme", acme)
	if s.Name != "acme" || s.Preset != "" || s.Zone.String() != "Europe/Zurich" || s.Currency != "CHF" || !s.AllowGet || s.MaxBody != 2048 || s.Capture {
		t.Errorf("got %+v", s)
	}
	if diff := cmp.Diff([]string{"anything", "order.cancelled", "order.placed"}, s.EventNames()); diff != "" {
		t.Error(diff)
	}
	if string(s.Events["order.placed"].Sample) != `{"id": 1, "total": 9.5}` {
		t.Error("the sample is lost")
	}
	if secrets := s.Secrets(); len(secrets) != 1 || secrets[0].Reveal() != "s3cret" {
		t.Error("the secret is not among Secrets")
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	s := load(t, "acme", acme)
	longID := strings.Repeat("ü", 300)
	tests := []struct {
		name     string
		url      string
		body     string
		typ      string
		known    bool
		entity   string
		occurred string
		payload  string // "" means the body itself
		drift    []string
		untimed  bool // the drift is of the event's time alone, and not the body's
		ignored  string
		mismatch bool
		empty    bool
	}{
		{name: "by its name", url: "order.placed", body: `{"id": 1, "placed_at": 1718918402}`, typ: "order.placed", known: true, entity: "order:1", occurred: "2024-06-20T21:20:02Z"},
		{name: "in capitals", url: "Order.Placed", body: `{"id": 1}`, typ: "order.placed", known: true, entity: "order:1"},
		{name: "by an alias", url: "order placed", body: `{"id": 1}`, typ: "order.placed", known: true, entity: "order:1"},
		{name: "an alias of two, told by shape", url: "order", body: `{"id": 1, "cancelled_at": 1718918402000}`, typ: "order.cancelled", known: true, entity: "order:1", occurred: "2024-06-20T21:20:02Z"},
		{name: "an alias of two, the shape tells nothing", url: "order", body: `{"x": 1}`, typ: "order.placed", known: true, drift: []string{"x"}},
		{name: "unknown name", url: "order.lost", body: `{"id": 1}`, typ: "order.lost"},
		{name: "unknown name with rubbish", url: "../O'Rder\x00\n", body: `{"id": 1}`, typ: ".._o_rder_"},
		{name: "an address for a name", url: "Vera@best.example", body: `{"id": 1}`, typ: "unknown"},
		{name: "an escaped address for a name", url: "vera%40best.example", body: `{"id": 1}`, typ: "unknown"},
		{name: "unknown name that never ends", url: strings.Repeat("x", 5000), body: `{"id": 1}`, typ: strings.Repeat("x", 100)},
		{name: "by the hint", body: `{"kind": "order.placed", "id": 1}`, typ: "order.placed", known: true, entity: "order:1"},
		{name: "the URL beats the hint", url: "order.cancelled", body: `{"kind": "order.placed", "id": 1}`, typ: "order.cancelled", known: true, entity: "order:1", mismatch: true},
		{name: "the hint is an alias of the URL's event", url: "order.cancelled", body: `{"kind": "order", "id": 1}`, typ: "order.cancelled", known: true, entity: "order:1"},
		{name: "a hint that says nothing", url: "order.cancelled", body: `{"kind": "gift", "id": 1}`, typ: "order.cancelled", known: true, entity: "order:1"},
		{name: "a hint that is no text", url: "order.cancelled", body: `{"kind": {"a": "order.placed"}, "id": 1}`, typ: "order.cancelled", known: true, entity: "order:1", drift: []string{"kind"}},
		{name: "an unknown hint leaves it to the shape", body: `{"kind": "gift", "id": 1, "cancelled_at": 0}`, typ: "order.cancelled", known: true, entity: "order:1"},
		{name: "by its shape", body: `{"id": 1, "total": 1}`, typ: "order.placed", known: true, entity: "order:1"},
		{name: "the condition of a shape", body: `{"id": 1, "total": 0}`, typ: "unknown"},
		{name: "nothing tells", body: `{"a": 1}`, typ: "unknown"},
		{name: "wrapped", body: `{"event": "order.placed", "data": {"id": 1}}`, typ: "order.placed", known: true, entity: "order:1", payload: `{"id": 1}`},
		{name: "wrapped with a type", body: `{"type": "order.placed", "at": "now", "data" : {"id": 1} }`, typ: "order.placed", known: true, entity: "order:1", payload: `{"id": 1}`},
		{name: "wrapped without a name", url: "order.placed", body: `{"data": {"id": 1}}`, typ: "order.placed", known: true, entity: "order:1", payload: `{"id": 1}`},
		{name: "wrapped twice, unwrapped once", url: "order.placed", body: `{"data": {"data": {"id": 1}}}`, typ: "order.placed", known: true, payload: `{"data": {"id": 1}}`, drift: []string{"data"}},
		{name: "wrapped under an escaped key", url: "order.placed", body: `{"d\u0061ta": {"id": 1}}`, typ: "order.placed", known: true, entity: "order:1", payload: `{"id": 1}`},
		{name: "of two payloads the last", url: "order.placed", body: `{"data": {"id": 1}, "data": {"id": 2}}`, typ: "order.placed", known: true, entity: "order:2", payload: `{"id": 2}`},
		{name: "wrapped, named otherwise", url: "order.cancelled", body: `{"event": "order.placed", "data": {"id": 1}}`, typ: "order.cancelled", known: true, entity: "order:1", payload: `{"id": 1}`, mismatch: true},
		{name: "data among other things is no envelope", url: "order.placed", body: `{"id": 3, "data": {"id": 1}}`, typ: "order.placed", known: true, entity: "order:3", drift: []string{"data"}},
		{name: "data that is no object", url: "order.placed", body: `{"event": "order.placed", "data": [1]}`, typ: "order.placed", known: true, drift: []string{"event", "data"}},
		{name: "byte order mark", url: "order.placed", body: "\uFEFF{\"id\": 1}", typ: "order.placed", known: true, entity: "order:1", payload: `{"id": 1}`},
		{name: "nothing", url: "order.placed", body: "", typ: "order.placed", empty: true},
		{name: "blanks", body: " \r\n", typ: "unknown", empty: true},
		{name: "only a mark", body: "\uFEFF", typ: "unknown", empty: true},
		{name: "empty object", url: "order.placed", body: `{}`, typ: "order.placed", known: true, empty: true},
		{name: "empty envelope", url: "order.placed", body: `{"event": "order.placed", "data": {}}`, typ: "order.placed", known: true, payload: `{}`, empty: true},
		{name: "a test", url: "order.placed", body: `{"event": "ping", "data": {"message": "hello"}}`, typ: "order.placed", known: true, payload: `{"message": "hello"}`, drift: []string{"message"}, empty: true},
		{name: "a test without a name in the URL", body: `{"kind": "ping"}`, typ: "unknown", empty: true},
		{name: "drift", url: "order.placed", body: `{"id": 1, "total": "much", "lines": [{"sku": 1, "x": 2}]}`, typ: "order.placed", known: true, entity: "order:1", drift: []string{"total", "lines[].x"}},
		{name: "ignored", url: "order.placed", body: `{"id": 1, "mail": "a@test.example"}`, typ: "order.placed", known: true, entity: "order:1", ignored: "test order"},
		{name: "an unknown event ignored", url: "order.lost", body: `{"email": "a@test.example"}`, typ: "order.lost", ignored: "test order"},
		{name: "ignored by type", url: "order.cancelled", body: `{"id": 7}`, typ: "order.cancelled", known: true, entity: "order:7", ignored: "the seventh"},
		{name: "not ignored", url: "order.placed", body: `{"id": 7}`, typ: "order.placed", known: true, entity: "order:7"},
		{name: "a zero for no time", url: "order.placed", body: `{"id": 1, "placed_at": 0}`, typ: "order.placed", known: true, entity: "order:1"},
		{name: "a time nobody lives to see", url: "order.placed", body: `{"id": 1, "placed_at": "2999-01-01"}`, typ: "order.placed", known: true, entity: "order:1", occurred: "2999-01-01T00:00:00Z"},
		{name: "an offset without colon", url: "order.placed", body: `{"id": 1, "placed_at": "2024-06-20T16:20:02.000-0500"}`, typ: "order.placed", known: true, entity: "order:1", occurred: "2024-06-20T21:20:02Z"},
		{name: "milliseconds where seconds are expected", url: "order.placed", body: `{"id": 1, "placed_at": 1718918402000}`, typ: "order.placed", known: true, entity: "order:1", occurred: "2024-06-20T21:20:02Z"},
		{name: "seconds where milliseconds are expected", url: "order.cancelled", body: `{"id": 1, "cancelled_at": 1718918402}`, typ: "order.cancelled", known: true, entity: "order:1", occurred: "2024-06-20T21:20:02Z"},
		{name: "microseconds", url: "order.placed", body: `{"id": 1, "placed_at": 1718918402000000}`, typ: "order.placed", known: true, entity: "order:1", drift: []string{"placed_at"}},
		{name: "a time that could mean several", url: "order.placed", body: `{"id": 1, "placed_at": "01/02/2024"}`, typ: "order.placed", known: true, entity: "order:1", drift: []string{"placed_at"}},
		{name: "a time of before webhooks", url: "order.placed", body: `{"id": 1, "placed_at": "1985-01-01"}`, typ: "order.placed", known: true, entity: "order:1", drift: []string{"placed_at"}, untimed: true},
		{name: "a bare day", url: "order.placed", body: `{"id": 1, "placed_at": "2024-02-29"}`, typ: "order.placed", known: true, entity: "order:1", occurred: "2024-02-29T00:00:00Z"},
		{name: "an event without a schema", url: "anything", body: `{"ref": 5, "at": "2024-02-29T12:00:00+01:00", "x": {"y": 1}}`, typ: "anything", known: true, entity: "thing:5", occurred: "2024-02-29T11:00:00Z"},
		{name: "and with other types", url: "anything", body: `{"ref": {"a": 1}, "at": "soon"}`, typ: "anything", known: true, drift: []string{"at"}, untimed: true},
		{name: "NUL in the id", url: "order.placed", body: `{"id": "a\u0000b"}`, typ: "order.placed", known: true, entity: "order:ab"},
		{name: "a blank id", url: "order.placed", body: `{"id": ""}`, typ: "order.placed", known: true},
		{name: "a long id", url: "order.placed", body: `{"id": "` + longID + `"}`, typ: "order.placed", known: true, entity: "order:" + strings.Repeat("ü", 80) + "~7171838b5e33bcccfa4cd3ba6ced8cc0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := s.Open(tt.url, []byte(tt.body))
			if e.Malformed != nil {
				t.Fatal(e.Malformed)
			}
			occurred := ""
			if !e.OccurredAt.IsZero() {
				occurred = e.OccurredAt.Format(time.RFC3339)
			}
			if e.Type != tt.typ || e.Known != tt.known || occurred != tt.occurred {
				t.Errorf("got type %q, known %v, occurred %q", e.Type, e.Known, occurred)
			}
			if e.Ignored != tt.ignored || e.HintMismatch != tt.mismatch || e.Empty != tt.empty {
				t.Errorf("got ignored %q, mismatch %v, empty %v", e.Ignored, e.HintMismatch, e.Empty)
			}
			if diff := cmp.Diff(tt.drift, e.Drift); diff != "" {
				t.Errorf("drift (-want +got)\n%s", diff)
			}
			if e.Entity != tt.entity {
				t.Errorf("entity %q, want %q", e.Entity, tt.entity)
			}
			want := tt.payload
			if want == "" && !(tt.empty && strings.TrimSpace(strings.TrimPrefix(tt.body, "\uFEFF")) == "") {
				want = tt.body
			}
			if string(e.Payload) != want {
				t.Errorf("payload %q, want %q", e.Payload, want)
			}
			if e.Payload == nil {
				return
			}
			shaped := tt.drift
			if tt.untimed {
				shaped = nil
			}
			// A worker gets the same, whether the envelope was stored or not.
			for _, stored := range []string{tt.body, string(e.Payload)} {
				if tt.name == "wrapped twice, unwrapped once" && stored != tt.body {
					continue
				}
				body, drift, err := s.Shape(e.Type, []byte(stored))
				if err != nil || !cmp.Equal(e.Body, body) || !cmp.Equal(shaped, drift) {
					t.Errorf("Shape of %q gives %v, drift %v, %v; Open gave %v", stored, body, drift, err, e.Body)
				}
			}
		})
	}
}

func TestLongEntitiesStayApart(t *testing.T) {
	t.Parallel()
	s := load(t, "acme", acme)
	same := strings.Repeat("x", 400)
	a := s.Open("order.placed", []byte(`{"id": "`+same+`1"}`)).Entity
	b := s.Open("order.placed", []byte(`{"id": "`+same+`2"}`)).Entity
	if a == b || len(a) != 200 || len(b) != 200 {
		t.Errorf("got %q and %q", a, b)
	}
}

func TestOpenMalformed(t *testing.T) {
	t.Parallel()
	s := load(t, "acme", acme)
	tests := []struct {
		name, url, body, typ, want string
		known                      bool
		offset                     int64
	}{
		{"no JSON", "order.placed", `id=1`, "order.placed", "line 1, column 1: invalid character 'i' at start of value", true, 0},
		{"by alias", "order placed", `{`, "order.placed", "line 1, column 2: the body ends in the middle of a value", true, 1},
		{"behind a mark", "order.placed", "\uFEFF{\n1", "order.placed", "line 2, column 1: object member name must be a string", true, 5},
		{"list", "order.lost", `[{"id": 1}]`, "order.lost", "line 1, column 1: the body is not a JSON object", false, 0},
		{"text", "", `"hello"`, "unknown", "line 1, column 1: the body is not a JSON object", false, 0},
		{"null", "", `null`, "unknown", "line 1, column 1: the body is not a JSON object", false, 0},
		{"compressed", "", "\x1f\x8b\x08\x00", "unknown", `line 1, column 1: invalid character '\x1f' at start of value`, false, 0},
		{"deep", "", strings.Repeat(`{"data":`, 200), "unknown", "line 1, column 800: nested more than 100 levels deep", false, 799},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := s.Open(tt.url, []byte(tt.body))
			if e.Malformed == nil {
				t.Fatal("taken as an event")
			}
			if e.Malformed.Error() != tt.want || e.Malformed.Offset != tt.offset || e.Type != tt.typ || e.Known != tt.known {
				t.Errorf("got %q at %d, type %q, known %v", e.Malformed, e.Malformed.Offset, e.Type, e.Known)
			}
			if e.Payload != nil || e.Body != nil || e.Empty {
				t.Error("there is a payload all the same")
			}
			if _, _, err := s.Shape(e.Type, []byte(tt.body)); err == nil {
				t.Error("Shape takes it")
			}
		})
	}
}

func TestOpenQuery(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, source, url, query, payload, typ, entity string
		empty                                          bool
	}{
		{"parameters are the payload", "{preset: everflow, verify: {token: t}}", "partner.signup_verdict", "network_affiliate_id=37&new_status=active&timestamp=1718918402&token=t",
			`{"network_affiliate_id":"37","new_status":"active","timestamp":"1718918402"}`, "partner.signup_verdict", "partner:37", false},
		{"the token alone is a probe", "{preset: everflow, verify: {token: t}}", "partner.created", "token=t", "", "partner.created", "", true},
		{"nothing is a probe", "{preset: everflow, verify: none}", "", "", "", "unknown", "", true},
		{"a token may be a parameter elsewhere", "{preset: everflow, verify: none}", "partner.created", "token=t", `{"token":"t"}`, "partner.created", "", false},
		{"by shape", "{preset: everflow, verify: none}", "", "conversion_id=c1&payout=2.5", `{"conversion_id":"c1","payout":"2.5"}`, "conversion.registered", "conversion:c1", false},
		{"repeated", "{preset: everflow, verify: none}", "x", "a=1&a=2&b=%22%00%c3%a9", `{"a":["1","2"],"b":"\"\u0000é"}`, "x", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q, err := url.ParseQuery(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			e := load(t, "everflow", tt.source).OpenQuery(tt.url, q)
			if string(e.Payload) != tt.payload || e.Type != tt.typ || e.Entity != tt.entity || e.Empty != tt.empty || e.Malformed != nil {
				t.Errorf("got payload %s, type %q, entity %q, empty %v, malformed %v", e.Payload, e.Type, e.Entity, e.Empty, e.Malformed)
			}
		})
	}
	for _, query := range []string{"a=%ff", "%ff=a", "a=1&a=%c3"} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if e := preset(t, "everflow").OpenQuery("x", q); e.Malformed == nil || e.Text != nil {
			t.Errorf("%s is taken as %s", query, e.Text)
		}
	}
	e := preset(t, "everflow").OpenQuery("conversion.registered", url.Values{"payout": {"2.50"}, "conversion_unix_timestamp": {"1718918402"}, "is_event": {"false"}})
	if e.Drift != nil || e.OccurredAt.Unix() != 1718918402 || e.Body["is_event"] != false {
		t.Errorf("got %v, drift %v", e.Body, e.Drift)
	}
}

func TestWrapped(t *testing.T) {
	t.Parallel()
	enveloped := []byte(`{"event": "a", "data": {"id": 1}, "payload": {"id": 2}}`)
	tests := []struct{ name, yaml, want string }{
		{"data unless told otherwise", "events: {a: {entity: {x: event.id}}}", "x:1"},
		{"another key", "wrapped: payload\nevents: {a: {entity: {x: event.id}}}", "x:2"},
		{"never", "wrapped: false\nevents: {a: {entity: {x: event.data.id}}}", "x:1"},
		{"not where an event has the field itself", "events: {a: {schema: {data: {id: id}}, entity: {x: event.data.id}}}", "x:1"},
	}
	for _, tt := range tests {
		if got := load(t, "s", "verify: none\n"+tt.yaml).Open("a", enveloped).Entity; got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPostbackTest(t *testing.T) {
	t.Parallel()
	s := preset(t, "partnerstack")
	raw := body(t, "partnerstack", "postback.test")
	for _, name := range []string{"", "deal.created", "test"} {
		if e := s.Open(name, raw); !e.Empty {
			t.Errorf("with %q in the URL the vendor's test counts as an event", name)
		}
	}
}

func TestPresetWithOwnKeys(t *testing.T) {
	t.Parallel()
	s := load(t, "ps", lines(
		"preset: partnerstack",
		`verify: {token: "${TOKEN}"}`,
		"zone: America/Toronto",
		"schemas: {deal: {external_ref: id}}",
		"events:",
		"  application.updated: {schema: application, entity: {application: event.key}, aliases: application_updated}",
		"  deal.created: {occurred_at: event.created_at}",
		"  message.created: null",
		"shapes: null",
	))
	if len(s.Events) != 23 || s.Events["message.created"] != nil || s.Events["application.updated"] == nil {
		t.Errorf("events %v", s.EventNames())
	}
	raw := []byte(`{"key": "deal_1", "external_ref": 5, "created_at": 1582908052302, "updated_at": 1583512852302}`)
	e := s.Open("deal.created", raw)
	if e.Drift != nil || e.Body["external_ref"] != "5" || e.OccurredAt.UnixMilli() != 1582908052302 {
		t.Errorf("got %v, drift %v, at %v", e.Body, e.Drift, e.OccurredAt)
	}
	if e := s.Open("", raw); e.Type != sources.Unknown {
		t.Errorf("without shapes it is %q", e.Type)
	}
}

func FuzzOpen(f *testing.F) {
	all := []*sources.Source{preset(f, "partnerstack"), preset(f, "everflow"), load(f, "acme", acme)}
	for _, s := range all {
		for _, event := range s.Events {
			f.Add(event.Name, []byte(event.Sample))
		}
	}
	for _, seed := range []string{``, `{"event":"test","data":{}}`, `{"data":{"data":1},"data":{"event":"x"}}`, "\uFEFF{}", `{"event":"\u0000","type":1,"data":{"key":"` + strings.Repeat("k", 300) + `"}}`, `{"key":[[1e400]],"updated_at":1e300}`} {
		f.Add("order", []byte(seed))
	}
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		for _, s := range all {
			e := s.Open(name, raw)
			if len(e.Entity) > 200 || strings.ContainsRune(e.Entity, 0) || !utf8.ValidString(e.Entity) {
				t.Fatalf("entity %q", e.Entity)
			}
			if e.Type == "" || len(e.Type) > 100 || strings.ContainsRune(e.Type, 0) || !utf8.ValidString(e.Type) {
				t.Fatalf("type %q", e.Type)
			}
			if e.Known != (s.Events[e.Type] != nil) && !e.Empty && e.Malformed == nil {
				t.Fatalf("%q is known: %v", e.Type, e.Known)
			}
			if y := e.OccurredAt.Year(); !e.OccurredAt.IsZero() && (y < 1990 || y > 2200) {
				t.Fatalf("occurred in %d", y)
			}
			if e.Malformed == nil && len(e.Payload) > 0 {
				if _, _, err := s.Shape(e.Type, raw); err != nil {
					t.Fatalf("Open takes what Shape refuses: %v", err)
				}
			} else if e.Malformed == nil && !e.Empty {
				t.Fatal("an event without a payload")
			}
			s.Redact(e.Type, e.Body)
		}
	})
}

// BenchmarkOpen has encoding/json beside it, so that the ratio holds anywhere.
func BenchmarkOpen(b *testing.B) {
	s := preset(b, "partnerstack")
	for _, name := range []string{"deal.created", "agreement.accepted"} {
		raw := s.Events[name].Sample
		for _, in := range []struct{ how, url string }{{"url", name}, {"shape", ""}} {
			b.Run(name+"/"+in.how, func(b *testing.B) {
				b.SetBytes(int64(len(raw)))
				b.ReportAllocs()
				for b.Loop() {
					if e := s.Open(in.url, raw); e.Type != name {
						b.Fatal(e.Type)
					}
				}
			})
		}
		b.Run(name+"/encoding_json", func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				var m map[string]any
				if err := json.Unmarshal(raw, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
