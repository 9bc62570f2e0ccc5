package sinks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"partnersync/internal/sandbox"
)

func hookRow(n string) Row {
	return Row{
		Trace: "trace-" + n, Object: "deal", Property: "key", Key: "K" + n,
		Values: map[string]any{"amount": decimal.RequireFromString("12.50"), "name": "Ac\"me", "gone": nil},
		Event: EventInfo{
			ID: "01J", Source: "partnerstack", Type: "deal.created", OccurredAt: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC),
		},
	}
}

const hookBody = `{"id":"01J","type":"deal.created","source":"partnerstack","occurred_at":"2026-11-21T10:00:00Z","object":"deal",` +
	`"key":"K1","fields":{"amount":12.5,"gone":null,"name":"Ac\"me"}}`

func TestWebhook(t *testing.T) {
	t.Parallel()
	box := sandbox.New(sandbox.Options{})
	srv := httptest.NewServer(box)
	t.Cleanup(srv.Close)
	s := newSink(t, "preset: webhook\nurl: "+srv.URL+"/webhook/a%20b?token=abc\nheaders: {X-Key: \"${KEY}\", X-Op: \"{operation}\"}\n", Options{})
	for _, op := range []Operation{Upsert, Update, Create} {
		r := s.Write(within(t), op, []Row{hookRow("1")})[0]
		if r.Class != OK || r.Status != 200 || r.Created != (op == Create) {
			t.Errorf("%+v", r)
		}
	}
	hooks := box.Hooks()
	if len(hooks) != 3 {
		t.Fatalf("%d hooks", len(hooks))
	}
	got := hooks[0]
	if got.Method != "POST" || got.Path != "/a%20b" {
		t.Errorf("%s %s", got.Method, got.Path)
	}
	if diff := cmp.Diff(hookBody, string(got.Body)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"Idempotency-Key": "trace-1", "X-Key": "secret-of-key", "X-Op": "upsert", "Content-Type": "application/json",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q", name, got.Header.Get(name))
		}
	}
	if r := s.Probe(within(t)); r.Class != OK {
		t.Errorf("%+v", r)
	}
}

func TestWebhookBatch(t *testing.T) {
	t.Parallel()
	tg := answering(t, 200, nil, "")
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nbatch: {rows: 100, wait: 50ms}\n", Options{})
	if s.MaxRows(Upsert) != 100 || s.BatchWait() != 50*time.Millisecond {
		t.Errorf("%d rows, %s", s.MaxRows(Upsert), s.BatchWait())
	}
	if got := classesOf(s.Write(within(t), Upsert, []Row{hookRow("1"), hookRow("2")})); got[0] != OK || got[1] != OK {
		t.Error(got)
	}
	s.Write(within(t), Upsert, []Row{hookRow("2"), hookRow("1")})
	s.Write(within(t), Upsert, []Row{hookRow("1")})
	sent := tg.requests()
	if want := "[" + hookBody + "," + strings.Replace(hookBody, "K1", "K2", 1) + "]"; sent[0].body != want {
		t.Error(sent[0].body)
	}
	if sent[2].body != "["+hookBody+"]" {
		t.Errorf("one row of a batch is no list: %s", sent[2].body)
	}
	a, b := sent[0].header.Get("Idempotency-Key"), sent[1].header.Get("Idempotency-Key")
	if len(a) != 32 || a == b || sent[2].header.Get("Idempotency-Key") != "trace-1" {
		t.Errorf("keys %q and %q", a, b)
	}
}

// The signature can be checked by anybody who follows Standard Webhooks.
func TestWebhookSignature(t *testing.T) {
	t.Parallel()
	key := []byte("a key of twenty-four by")
	tg := answering(t, 200, nil, "")
	now := time.Unix(1_795_000_000, 0)
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nsign: {secret: whsec_"+base64.StdEncoding.EncodeToString(key)+"}\n",
		Options{Now: func() time.Time { return now }})
	s.Write(within(t), Upsert, []Row{hookRow("1")})
	sent := tg.requests()[0]
	id, stamp := sent.header.Get("webhook-id"), sent.header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "." + sent.body))
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); sent.header.Get("webhook-signature") != want {
		t.Errorf("got %s, want %s", sent.header.Get("webhook-signature"), want)
	}
	if id != "trace-1" || stamp != strconv.FormatInt(now.Unix(), 10) {
		t.Errorf("id %q, timestamp %q", id, stamp)
	}
}

// Everything of it can be said in another way.
func TestWebhookOverrides(t *testing.T) {
	t.Parallel()
	tg := answering(t, 202, nil, "<html>thanks</html>")
	s := newSink(t, `
preset: webhook
base_url: `+tg.URL+`/api
auth: {type: header, header: X-Token, token: "${TOKEN}"}
settings: {}
operations:
  upsert:
    method: PUT
    path: /records/{record.object}/{record.key}
    query: {source: "{record.event.source}", none: "{record.id}"}
    headers: {Idempotency-Key: null, X-Trace: "{record.trace}"}
    body: {value: record.values.amount, $spread: record.values}
`, Options{})
	if r := s.Write(within(t), Upsert, []Row{hookRow("1")})[0]; r.Class != OK {
		t.Fatalf("%+v", r)
	}
	got := tg.requests()[0]
	if got.method != "PUT" || got.path != "/api/records/deal/K1" || got.query != "source=partnerstack" {
		t.Errorf("%s %s?%s", got.method, got.path, got.query)
	}
	if got.header.Get("X-Token") != "secret-of-token" || got.header.Get("X-Trace") != "trace-1" || got.header.Get("Idempotency-Key") != "" {
		t.Errorf("%v", got.header)
	}
	if !strings.HasPrefix(got.body, `{"value":12.5,`) {
		t.Error(got.body)
	}
}

func TestHeadersTakeNoLineBreaks(t *testing.T) {
	t.Parallel()
	tg := answering(t, 200, nil, "")
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nheaders: {X-Key: \"{record.key}\"}\n", Options{})
	row := hookRow("1")
	row.Key = "a\r\nX-Evil: yes"
	r := s.Write(within(t), Upsert, []Row{row})[0]
	if r.Class != Rejected || len(tg.requests()) != 0 || strings.Contains(r.Message, "Evil") {
		t.Errorf("%+v", r)
	}
}

func TestProbeOfWebhooks(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]Class{200: OK, 404: OK, 405: OK, 401: Held, 403: Held, 429: Throttled, 500: Unavailable} {
		tg := answering(t, status, http.Header{"Retry-After": {"60"}}, "")
		s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\n", Options{})
		if r := s.Probe(within(t)); r.Class != want {
			t.Errorf("%d: %+v", status, r)
		}
		if got := tg.requests()[0].method; got != "HEAD" {
			t.Error(got)
		}
	}
}
