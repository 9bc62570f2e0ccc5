package sinks

import (
	"context"
	"flag"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"partnersync/internal/diag"
	"partnersync/internal/sandbox"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loadYAML loads a description from YAML and fails on problems.
func loadYAML(tb testing.TB, text string) *Description {
	tb.Helper()
	desc, problems := tryYAML(text)
	if len(problems) > 0 {
		tb.Fatalf("the description has problems:\n%v\n%s", problems, text)
	}
	return desc
}

func tryYAML(text string) (*Description, diag.Problems) {
	n, problems := diag.Parse("config.yaml", []byte(text))
	d := diag.Decoding{Problems: problems, Expand: func(reference string) (string, error) {
		switch reference {
		case "EMPTY":
			return "", nil
		case "HOOK_URL_HTTPS":
			return "https://hooks.example/secret-of-path", nil
		}
		return "secret-of-" + strings.ToLower(reference), nil
	}}
	desc := Load("crm", n, &d)
	return desc, d.Problems
}

func newSink(tb testing.TB, text string, o Options) *Sink {
	tb.Helper()
	s := New(loadYAML(tb, text), o)
	tb.Cleanup(s.Close)
	return s
}

// recorded is a request that a target got.
type recorded struct {
	method, path, query, body string
	header                    http.Header
}

// target is an HTTP server that remembers what it got.
type target struct {
	*httptest.Server
	mu  sync.Mutex
	got []recorded
}

func newTarget(tb testing.TB, handle func(w http.ResponseWriter, r *http.Request, body string)) *target {
	tb.Helper()
	t := &target{}
	t.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		_, _ = copyBody(&b, r)
		t.mu.Lock()
		t.got = append(t.got, recorded{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, b.String(), r.Header.Clone()})
		t.mu.Unlock()
		handle(w, r, b.String())
	}))
	tb.Cleanup(t.Close)
	return t
}

func copyBody(b *strings.Builder, r *http.Request) (int64, error) {
	buf := make([]byte, 64<<10)
	var n int64
	for {
		k, err := r.Body.Read(buf)
		b.Write(buf[:k])
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
}

func (t *target) requests() []recorded {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]recorded(nil), t.got...)
}

// answering is a target that always says the same.
func answering(tb testing.TB, status int, header http.Header, body string) *target {
	return newTarget(tb, func(w http.ResponseWriter, _ *http.Request, _ string) {
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

const hubspotToken = "pat-na1-0123456789"

// portal is a sandbox with the keys that a partner integration defines, and a
// sink that writes to it.
func portal(tb testing.TB, o sandbox.Options, extra string) (*box, *Sink) {
	tb.Helper()
	o.Token = hubspotToken
	o.Custom = map[string][]sandbox.Property{
		"hubspot/contacts": {
			{Name: "partner_key", Unique: true},
			{Name: "partner_status", Type: "enumeration", Options: []string{"active", "inactive"}},
			{Name: "score", Type: "number"},
		},
		"hubspot/companies": {{Name: "partner_key", Unique: true}},
		"hubspot/deals":     {{Name: "partner_deal_key", Unique: true}},
	}
	b := &box{Server: sandbox.New(o)}
	srv := httptest.NewServer(b)
	tb.Cleanup(srv.Close)
	tb.Cleanup(b.Reset) // ends what a fault still holds back
	s := newSink(tb, "preset: hubspot\nbase_url: "+srv.URL+"/hubspot\nauth: {token: "+hubspotToken+"}\nlimits: []\n"+extra, Options{})
	return b, s
}

// box is a sandbox that counts requests as they come in: its own log has them
// only once they are answered.
type box struct {
	*sandbox.Server
	calls atomic.Int64
}

func (b *box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.calls.Add(1)
	b.Server.ServeHTTP(w, r)
}

// contact is a row with a key and an e-mail of its own.
func contact(n string) Row {
	return Row{
		Trace: "trace-" + n, Object: "contacts", Property: "partner_key", Key: "PS-" + n,
		Values: map[string]any{"email": n + "@acme.test", "firstname": "Ann"},
	}
}

func within(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// blames reports whether a field is the one that a result names.
func blames(r Result, field string) bool { return len(r.Fields) == 1 && r.Fields[0] == field }

// untilAsked makes a call anew that has timed out before its request was sent, as it may on a busy
// machine, and waits until the target has what was sent.
func untilAsked(call func() []Result, asked func() bool) []Result {
	results := call()
	for !asked() && results[0].Class == Timeout {
		if results[0].Sent {
			time.Sleep(time.Millisecond)
		} else {
			results = call()
		}
	}
	return results
}

func classesOf(results []Result) []Class {
	var out []Class
	for _, r := range results {
		out = append(out, r.Class)
	}
	return out
}
