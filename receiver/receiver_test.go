package receiver

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/receiver/sources"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envReceiver); dir != "" {
		receiveForever(dir)
	}
	goleak.VerifyTestMain(m)
}

const token = "a-token-of-the-tests"

// invented senders: no preset has a part in these tests.
const senders = `
shop:
  verify: {token: a-token-of-the-tests}
  get: true
  max_body: 500B
  events:
    deal.created: &deal
      schema:
        key: text
        at: time s
        email: text
        amount: integer
        aliases: list of text
      entity: {deal: event.key}
      occurred_at: event.at
      aliases: deal_created
    deal.updated:
      <<: *deal
      rank: 1
      aliases: deal_updated
    partner.changed:
      schema: {id: id, group: text}
      entity: {partner: event.id}
  ignore:
    - {when: 'event.email endsWith "@test.example"', reason: test partner}
posts:
  verify: {token: a-token-of-the-tests}
  events: {thing: {schema: {n: integer}}}
signed:
  verify: {hmac: {header: X-Signature, secrets: a-key-of-the-tests}}
  events: {thing: {schema: {n: integer}}}
hooked:
  verify: {standard_webhooks: {secrets: whsec_AAAA}}
  events: {thing: {schema: {id: id, v: text}, entity: {thing: event.id}}}
numbered:
  verify: {token: a-token-of-the-tests}
  delivery_id: x-delivery
  events: {thing: {schema: {id: id, v: text}, entity: {thing: event.id}}}
anybody:
  verify: none
  events: {thing: {schema: {n: integer}}}
near:
  verify: {allow_ips: 127.0.0.0/8}
  events: {thing: {schema: {n: integer}}}
far:
  verify: {allow_ips: 192.0.2.0/24}
  events: {thing: {schema: {n: integer}}}
strange:
  verify: {token: a-token-of-the-tests}
  capture: true
`

func load(t testing.TB, text string) map[string]*sources.Source {
	t.Helper()
	root, problems := diag.Parse("config.yaml", []byte(text))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	loaded := map[string]*sources.Source{}
	for _, e := range root.Entries() {
		d := &diag.Decoding{}
		loaded[e.Key.Text()] = sources.Load(e.Key.Text(), e.Value, d)
		if err := d.Problems.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return loaded
}

// routing sends every known event but deal.updated to a sink "crm".
func routing(t testing.TB, generation int64) Routing {
	t.Helper()
	return Routing{Generation: generation, Sources: load(t, senders), Sinks: func(source, typ string) []string {
		if typ == "deal.updated" {
			return nil
		}
		return []string{"crm"}
	}}
}

// service is a receiver that runs, behind a real HTTP server.
type service struct {
	*Receiver
	url      string
	registry *prometheus.Registry
	stop     func() // ends Run and waits for it
}

func start(t testing.TB, o Options) *service {
	t.Helper()
	s := &service{registry: prometheus.NewRegistry()}
	o.Registerer = s.registry
	s.Receiver = New(o, routing(t, 1))
	server := httptest.NewUnstartedServer(nil)
	server.Config, server.Listener = s.Server(), s.Limit(server.Listener)
	server.Start()
	s.url = server.URL
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		ended <- nil
	}
	t.Cleanup(func() {
		server.Close()
		s.stop()
	})
	return s
}

// client does not share connections with other tests, so that none is left behind.
func client(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

type reply struct {
	code   int
	header http.Header
	text   string // without the id
	id     string
}

func send(t testing.TB, c *http.Client, req *http.Request) reply {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := reply{code: res.StatusCode, header: res.Header, text: strings.TrimSpace(string(body))}
	if len(body) > 0 {
		var fields struct{ ID string }
		if err := json.Unmarshal(body, &fields); err != nil {
			t.Fatalf("the answer is not JSON: %v", err)
		}
		if got.id = fields.ID; got.id != "" {
			got.text = strings.ReplaceAll(got.text, got.id, "ID")
		}
	}
	return got
}

func post(t testing.TB, c *http.Client, url, body string) reply {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return send(t, c, req)
}

func rows(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) []string {
	t.Helper()
	found, err := pool.Query(context.Background(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// counted lists the series of a counter that are not zero: labels and value.
func counted(t testing.TB, registry *prometheus.Registry, name string) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetCounter().GetValue() == 0 {
				continue
			}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			list = append(list, fmt.Sprintf("%s %v", strings.Join(labels, " "), m.GetCounter().GetValue()))
		}
	}
	slices.Sort(list)
	return list
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const bearer = "Authorization: Bearer " + token
	tests := []struct {
		name   string
		method string // default POST
		path   string
		header []string // "Name: value"
		body   string
		code   int
		want   string   // the answer, with ID for the id
		allow  string   // of a 405
		events []string // what is stored: status|type|entity|reason|body
		jobs   int
		count  string // type and result
	}{
		{
			name: "a valid event", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `{"key":"d1","at":1700000000}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d1||{"key":"d1","at":1700000000}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "token in the query", path: "/hooks/shop/deal.created?token=" + token, body: `{"key":"d1"}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d1||{"key":"d1"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "an alias, a slash at the end", path: "/hooks/shop/deal_created/", header: []string{bearer}, body: `{"key":"d1"}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d1||{"key":"d1"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "wrapped, the body says which", path: "/hooks/shop", header: []string{bearer}, body: `{"event":"deal_created","data":{"key":"d2"}}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d2||{"event":"deal_created","data":{"key":"d2"}}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "the body names another event", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `{"event":"deal_updated","data":{"key":"d2"}}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d2|the body names another event than the URL|{"event":"deal_updated","data":{"key":"d2"}}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "compressed", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Encoding: gzip"}, body: zipped(`{"key":"d3"}`),
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d3||{"key":"d3"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "nothing maps it", path: "/hooks/shop/deal.updated", header: []string{bearer}, body: `{"key":"d4"}`,
			code: 202, want: `{"id":"ID","status":"unmapped"}`,
			events: []string{`unmapped|deal.updated|deal:d4|no mapping wants this event|{"key":"d4"}`}, count: "deal.updated unmapped",
		},
		{
			name: "an unknown event", path: "/hooks/shop/deal.Exploded", header: []string{bearer}, body: `{"key":"d5"}`,
			code: 202, want: `{"id":"ID","status":"unmapped"}`,
			events: []string{`unmapped|deal.exploded||the source does not know this event|{"key":"d5"}`}, count: "other unmapped",
		},
		{
			name: "an event that nothing names", path: "/hooks/shop", header: []string{bearer}, body: `{"key":"d5"}`,
			code: 202, want: `{"id":"ID","status":"unmapped"}`,
			events: []string{`unmapped|unknown||the source does not know this event|{"key":"d5"}`}, count: "other unmapped",
		},
		{
			name: "one that ignore names", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `{"key":"d6","email":"x@test.example"}`,
			code: 202, want: `{"id":"ID","status":"ignored"}`,
			events: []string{`ignored|deal.created|deal:d6|test partner|{"key":"d6","email":"x@test.example"}`}, count: "deal.created ignored",
		},
		{
			name: "not JSON", path: "/hooks/shop/deal.created", header: []string{bearer}, body: "{\n\"key\": oops}",
			code: 400, events: []string{"malformed|deal.created||*|{\n\"key\": oops}"}, count: "deal.created malformed",
			want: `{"id":"ID","status":"malformed","error":"the body cannot be read: line 2, column 8: *`,
		},
		{
			name: "an array of something else", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `[1]`,
			code: 400, events: []string{"malformed|deal.created||*|[1]"}, count: "deal.created malformed",
			want: `{"id":"ID","status":"malformed","error":"the body cannot be read: line 1, column 2: an element of the list is not a JSON object","line":1,"column":2,"reason":"an element of the list is not a JSON object"}`,
		},
		{
			name: "inflated on the way", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Encoding: gzip"}, body: `{"key":"d1"}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d1||{"key":"d1"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "broken on the way", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Encoding: gzip"}, body: zipped(`{"key":"d1"}`)[:20],
			code: 400, want: `{"id":"ID","status":"malformed","error":"the body cannot be read: line 1, column 1: *`,
			events: []string{`malformed|deal.created||*`}, count: "deal.created malformed",
		},
		{
			name: "a wrong secret", path: "/hooks/shop/deal.created", header: []string{"Authorization: Bearer wrong"}, body: `{"key":"d1"}`,
			code: 401, want: `{"error":"the request does not prove who sent it"}`, count: "other unauthorized",
		},
		{
			name: "no secret", path: "/hooks/shop/deal.created", body: `not even JSON`,
			code: 401, want: `{"error":"the request does not prove who sent it"}`, count: "other unauthorized",
		},
		{
			name: "a probe without the secret", method: "HEAD", path: "/hooks/shop", code: 401, count: "other unauthorized",
		},
		{
			name: "too large", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `{"key":"` + strings.Repeat("x", 500) + `"}`,
			code: 413, want: `{"error":"the body is larger than 500 bytes","limit":500}`, count: "other too_large",
		},
		{
			name: "too large when inflated", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Encoding: gzip"}, body: zipped(`{"key":"` + strings.Repeat("x", 5000) + `"}`),
			code: 413, want: `{"error":"the body is larger than 500 bytes","limit":500}`, count: "other too_large",
		},
		{
			name: "GET with parameters", method: "GET", path: "/hooks/shop/deal.created?token=" + token + "&key=d7&at=1700000000",
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d7||{"at":"1700000000","key":"d7"}*`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "GET with too much", method: "GET", path: "/hooks/shop/deal.created?token=" + token + "&key=" + strings.Repeat("x", 500),
			code: 413, want: `{"error":"the body is larger than 500 bytes","limit":500}`, count: "other too_large",
		},
		{
			name: "GET where it is not allowed", method: "GET", path: "/hooks/posts/thing?n=1&token=" + token,
			code: 405, want: `{"error":"this source takes events by POST only"}`, allow: methods, count: "other invalid",
		},
		{
			name: "another method", method: "PUT", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `{"key":"d1"}`,
			code: 405, want: `{"error":"post the event"}`, allow: methods, count: "other invalid",
		},
		{
			name: "another encoding", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Encoding: br"}, body: "\x0b\x06",
			code: 415, want: `{"id":"ID","status":"malformed","error":"the body cannot be read: line 1, column 1: its compression is not known","line":1,"column":1,"reason":"its compression is not known"}`,
			events: []string{`malformed|deal.created||the body cannot be read: line 1, column 1: its compression is not known|*`}, count: "deal.created malformed",
		},
		{
			name: "another encoding, taken off on the way", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Encoding: br"}, body: `{"key":"d1"}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d1||{"key":"d1"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "compressed, and no header says so", path: "/hooks/shop/deal.created", header: []string{bearer}, body: zipped(`{"key":"d3"}`),
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d3||{"key":"d3"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "in Latin-1", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Type: application/json; charset=ISO-8859-1"}, body: "{\"key\":\"J\xe9r\xf4me\"}",
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:Jérôme||{"key":"J*r*me"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "in Latin-1, and no header says so", path: "/hooks/shop/deal.created", header: []string{bearer}, body: "{\"key\":\"J\xe9r\xf4me\"}",
			code: 400, want: `{"id":"ID","status":"malformed","error":"the body cannot be read: line 1, column 10: this is not UTF-8, and no other charset is named","line":1,"column":10,"reason":"*`,
			events: []string{`malformed|deal.created||*`}, count: "deal.created malformed",
		},
		{
			name: "a form", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Type: application/x-www-form-urlencoded"}, body: "key=d+1&at=1700000000",
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d 1||{"at":"1700000000","key":"d 1"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "a form that holds JSON", path: "/hooks/shop/deal.created", header: []string{bearer, "Content-Type: application/x-www-form-urlencoded"}, body: "payload=%7B%22key%22%3A%22d1%22%7D",
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:d1||{"key":"d1"}`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "GET that is not UTF-8", method: "GET", path: "/hooks/shop/deal.created?key=%ff&token=" + token,
			code: 400, want: `{"id":"ID","status":"malformed","error":"the body cannot be read: line 1, column 1: the parameters are not UTF-8",*`,
			events: []string{`malformed|deal.created||*|key=%FF`}, count: "deal.created malformed",
		},
		{name: "HEAD as a probe", method: "HEAD", path: "/hooks/shop/deal.created?token=" + token, code: 200, count: "other probe"},
		{name: "GET as a probe", method: "GET", path: "/hooks/posts/thing?token=" + token, code: 200, want: `{"status":"ok"}`, count: "other probe"},
		{name: "an empty test", path: "/hooks/shop/deal.created", header: []string{bearer}, code: 200, want: `{"status":"ok"}`, count: "other probe"},
		{name: "an empty object as a test", path: "/hooks/shop/deal.created", header: []string{bearer}, body: " {} ", code: 200, want: `{"status":"ok"}`, count: "other probe"},
		{name: "an unknown source", path: "/hooks/nobody/deal.created", header: []string{bearer}, body: `{}`, code: 404, want: `{"error":"there is no such source; post to /hooks/SOURCE/EVENT"}`},
		{name: "no source", path: "/hooks/", code: 404, want: `{"error":"there is no such source; post to /hooks/SOURCE/EVENT"}`},
		{name: "elsewhere", method: "GET", path: "/metrics", code: 404, want: `{"error":"there is no such source; post to /hooks/SOURCE/EVENT"}`},
		{
			name: "from an allowed address", path: "/hooks/near/thing", body: `{"n":1}`,
			code: 202, want: `{"id":"ID","status":"stored"}`, events: []string{`stored|thing|||{"n":1}`}, jobs: 1, count: "thing stored",
		},
		{
			name: "from another address", path: "/hooks/far/thing", body: `{"n":1}`, header: []string{"X-Forwarded-For: 192.0.2.1"},
			code: 401, want: `{"error":"the request does not prove who sent it"}`, count: "other unauthorized",
		},
		{
			name: "captured", path: "/hooks/strange/some.thing", header: []string{bearer}, body: `not JSON`,
			code: 202, want: `{"id":"ID","status":"unmapped"}`,
			events: []string{`unmapped|some.thing||the source only captures|not JSON`}, count: "other unmapped",
		},
		{
			name: "nulls and NUL anywhere, a header that is not UTF-8", path: "/hooks/shop/deal.created", header: []string{bearer, "User-Agent: \xff"},
			body: "{\"key\":\"d\\u00008\",\"at\":null,\"email\":null,\"amount\":\"false\",\"more\":{\"a\\u0000\":[null]}}",
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{"stored|deal.created|deal:d8||*"}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "huge numbers", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `{"key":123456789012345678901234567890,"at":1e999,"amount":-9e99999999}`,
			code: 202, want: `{"id":"ID","status":"stored"}`,
			events: []string{`stored|deal.created|deal:123456789012345678901234567890||*`}, jobs: 1, count: "deal.created stored",
		},
		{
			name: "nested too deep", path: "/hooks/shop/deal.created", header: []string{bearer}, body: `{"key":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
			code: 400, want: `{"id":"ID","status":"malformed","error":"the body cannot be read: line 1, *`, events: []string{"malformed|deal.created||*"}, count: "deal.created malformed",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			s := start(t, Options{Ledger: ledger.New(pool)})
			method := tt.method
			if method == "" {
				method = http.MethodPost
			}
			req, err := http.NewRequest(method, s.url+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range tt.header {
				name, value, _ := strings.Cut(h, ": ")
				req.Header.Set(name, value)
			}
			got := send(t, client(t), req)
			if got.code != tt.code || !like(tt.want, got.text) {
				t.Errorf("got %d %s\nwant %d %s", got.code, got.text, tt.code, tt.want)
			}
			if allow := got.header.Get("Allow"); allow != tt.allow {
				t.Errorf("Allow is %q, want %q", allow, tt.allow)
			}
			events := rows(t, pool, `SELECT concat_ws('|', status, type, entity, reason, encode(body, 'escape')) FROM events`)
			if len(events) != len(tt.events) {
				t.Errorf("stored are %q, want %q", events, tt.events)
			}
			for i := range min(len(events), len(tt.events)) {
				if want := strings.ReplaceAll(tt.events[i], "\\", "\\\\"); !like(want, events[i]) {
					t.Errorf("stored is %q, want %q", events[i], want)
				}
			}
			jobs := rows(t, pool, `SELECT (args->>'sink') || (args->'event_ids'->>0) FROM river_job`)
			if len(jobs) != tt.jobs {
				t.Errorf("got %d jobs, want %d", len(jobs), tt.jobs)
			}
			if tt.jobs == 1 && jobs[0] != "crm"+got.id {
				t.Errorf("the job is %q, want one of the answer's id %s", jobs[0], got.id)
			}
			var want []string
			if tt.count != "" {
				typ, result, _ := strings.Cut(tt.count, " ")
				source, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/hooks/"), "/")
				want = []string{"result=" + result + " source=" + source + " type=" + typ + " 1"}
			}
			if diff := cmp.Diff(want, counted(t, s.registry, "partnersync_events_received_total")); diff != "" {
				t.Errorf("counted: %s", diff)
			}
			if left := s.held.Load(); left != 0 {
				t.Errorf("%d bytes are still held", left)
			}
		})
	}
}

func TestSignedBodies(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ledger: newReleased()})
	c := client(t)
	const text = `{"n":1}`
	tests := []struct {
		name         string
		signed, sent string
		compressed   bool
		want         int
	}{
		{"as it is", text, text, false, 202},
		{"another body", text, `{"n":2}`, false, 401},
		{"signed, then compressed", text, zipped(text), true, 202},
		{"compressed, then signed", zipped(text), zipped(text), true, 202},
		{"another body, compressed", text, zipped(`{"n":2}`), true, 401},
	}
	for _, tt := range tests {
		req, err := http.NewRequest(http.MethodPost, s.url+"/hooks/signed/thing", strings.NewReader(tt.sent))
		if err != nil {
			t.Fatal(err)
		}
		s.gates.Load().bySource["signed"].source.Sign(req, []byte(tt.signed), time.Now())
		if tt.compressed {
			req.Header.Set("Content-Encoding", "gzip")
		}
		if got := send(t, c, req); got.code != tt.want {
			t.Errorf("%s: got %d %s, want %d", tt.name, got.code, got.text, tt.want)
		}
	}
}

func TestSeriesExistFromTheStart(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	New(Options{Ledger: newReleased(), Registerer: registry}, routing(t, 1))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, f := range families {
		got[f.GetName()] = len(f.GetMetric())
	}
	// 9 sources with 10 events and one "other" each.
	want := map[string]int{
		"partnersync_events_received_total":        10*int(firstUntyped) + 9*int(results),
		"partnersync_receive_duration_seconds":     9,
		"partnersync_last_event_timestamp_seconds": 9,
		"partnersync_commit_batch_events":          1,
		"partnersync_commit_duration_seconds":      1,
		"partnersync_routes_opened_total":          8,
		"partnersync_receive_waiting_events":       1,
		"partnersync_receive_waiting_limit_events": 1,
		"partnersync_receive_held_bytes":           1,
		"partnersync_receive_held_limit_bytes":     1,
		"partnersync_receive_connections":          1,
		"partnersync_receive_connections_limit":    1,
		"partnersync_receive_cut_total":            2,
		"partnersync_version_clamps_total":         9,
		"partnersync_payload_drift_total":          19,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// like compares; a "*" in want stands for anything.
func like(want, got string) bool {
	for {
		part, rest, star := strings.Cut(want, "*")
		if !star {
			return want == got
		}
		var ok bool
		if got, ok = strings.CutPrefix(got, part); !ok {
			return false
		}
		if rest == "" {
			return true
		}
		next, _, _ := strings.Cut(rest, "*")
		at := strings.Index(got, next)
		if at < 0 {
			return false
		}
		got, want = got[at:], rest
	}
}

func TestHeadersThatAreKept(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	s := start(t, Options{Ledger: ledger.New(pool)})
	for _, path := range []string{"/hooks/shop/deal.created", "/hooks/strange/x"} {
		req, err := http.NewRequest(http.MethodPost, s.url+path, strings.NewReader(`{"key":"k"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{
			"Authorization": {"Bearer " + token}, "Cookie": {"session=1"}, "X-Api-Key": {"k"}, "Referer": {"https://example.com/?token=" + token},
			"Content-Type": {"application/json"}, "User-Agent": {"test \"1\"\t\xfe"}, "X-Request-Id": {strings.Repeat("r", 400)},
			"X-Signature": {"00ff"}, "Accept-Encoding": {"identity"},
		}
		if got := send(t, client(t), req); got.code != 202 {
			t.Fatalf("got %d %s", got.code, got.text)
		}
	}
	got := rows(t, pool, "SELECT h.key || ': ' || h.value FROM events, jsonb_each_text(headers) h WHERE source = 'shop' ORDER BY 1")
	want := []string{"content-type: application/json", "user-agent: test \"1\"\t\uFFFD", "x-request-id: " + strings.Repeat("r", 300)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("usually: %s", diff)
	}
	got = rows(t, pool, "SELECT h.key || ': ' || h.value FROM events, jsonb_each_text(headers) h WHERE source = 'strange' ORDER BY 1")
	want = []string{"accept-encoding: identity", "authorization: <secret>", "content-length: 11", "content-type: application/json", "cookie: <secret>",
		"referer: https://example.com/?token=<secret>", "user-agent: test \"1\"\t\uFFFD", "x-api-key: <secret>", "x-request-id: " + strings.Repeat("r", 300), "x-signature: 00ff"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("captured: %s", diff)
	}
}

// waitFor waits for a condition that another goroutine brings about.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
