package sinks

import (
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"
)

// The calls that one bad row costs never exceed 2·log2(n)+1, wherever it is.
func TestSplitCost(t *testing.T) {
	t.Parallel()
	tg := newTarget(t, func(w http.ResponseWriter, _ *http.Request, body string) {
		if strings.Contains(body, "bad") {
			w.WriteHeader(400)
		}
	})
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nbatch: 200\n", Options{})
	for _, n := range []int{1, 2, 3, 5, 64, 65, 100, 127, 200} {
		for bad := range n {
			if n > 20 && bad%9 != 0 && bad != n-1 {
				continue
			}
			rows := make([]Row, n)
			for i := range rows {
				rows[i] = Row{Trace: fmt.Sprint("t", i), Object: "o", Key: fmt.Sprint("k", i)}
			}
			rows[bad].Key = "bad"
			before := len(tg.requests())
			for i, r := range s.Write(within(t), Upsert, rows) {
				if want := (map[bool]Class{true: Rejected, false: OK})[i == bad]; r.Class != want {
					t.Fatalf("%d of %d bad: row %d is %s", bad, n, i, r.Class)
				}
			}
			extra := len(tg.requests()) - before - 1
			if most := int(2*math.Log2(float64(n))) + 1; extra > most {
				t.Errorf("%d of %d bad: %d extra calls, most is %d", bad, n, extra, most)
			}
		}
	}
}

// What stops a request in the middle of a split stops the rest too.
func TestSplitStops(t *testing.T) {
	t.Parallel()
	calls := 0
	tg := newTarget(t, func(w http.ResponseWriter, _ *http.Request, body string) {
		calls++
		switch calls {
		case 1:
			w.WriteHeader(400)
		case 2:
		default:
			w.WriteHeader(429)
		}
	})
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nbatch: 8\n", Options{})
	rows := make([]Row, 8)
	for i := range rows {
		rows[i] = Row{Trace: fmt.Sprint(i), Object: "o", Key: fmt.Sprint(i)}
	}
	got := classesOf(s.Write(within(t), Upsert, rows))
	want := append(slices.Repeat([]Class{OK}, 4), slices.Repeat([]Class{Throttled}, 4)...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
	r := s.Write(within(t), Upsert, rows[:1])[0]
	if r.Class != Throttled || r.Status != 0 || r.Sent || r.RetryAfter <= 0 || r.RetryAfter > 5*time.Second || calls != 3 {
		t.Errorf("while it is throttled: %+v after %d calls", r, calls)
	}
}

func TestRepeatedOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status int
		header http.Header
		calls  int
		want   Class
	}{
		{"502", 502, nil, 2, Unavailable},
		{"503", 503, nil, 2, Unavailable},
		{"503 for long", 503, http.Header{"Retry-After": {"60"}}, 1, Unavailable},
		{"500", 500, nil, 1, Unavailable},
		{"504", 504, nil, 1, Unavailable},
		{"429 for a moment", 429, http.Header{"Retry-After": {"0"}}, 2, Throttled},
		{"429 for long", 429, http.Header{"Retry-After": {"3"}}, 1, Throttled},
		{"429 without a time", 429, nil, 1, Throttled},
		{"408", 408, nil, 1, Unavailable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tg := answering(t, test.status, test.header, "")
			s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\n", Options{})
			r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]
			if r.Class != test.want || len(tg.requests()) != test.calls {
				t.Errorf("%+v after %d requests", r, len(tg.requests()))
			}
		})
	}
	first := true
	tg := newTarget(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		if first {
			first = false
			w.WriteHeader(503)
		}
	})
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\n", Options{})
	if r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]; r.Class != OK {
		t.Errorf("%+v", r)
	}
}

func TestNotSent(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	tests := []struct{ name, url, message string }{
		{"refused", gone.URL, "no connection to "},
		{"no such host", "http://nosuch.invalid", "no connection to nosuch.invalid: "},
		{"certificate", secure.URL, "the certificate of "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "preset: webhook\nurl: "+test.url+"/secret-path?token=abc\n", Options{})
			r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]
			if r.Class != Network || r.Sent || !strings.HasPrefix(r.Message, test.message) {
				t.Errorf("%+v", r)
			}
			if strings.Contains(r.Message, "secret-path") || strings.Contains(r.Message, "abc") {
				t.Errorf("the address is shown: %s", r.Message)
			}
		})
	}
}

func TestTruncatedGzip(t *testing.T) {
	t.Parallel()
	tg := answering(t, 200, http.Header{"Content-Encoding": {"gzip"}}, "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xaaV")
	s := newSink(t, "base_url: "+tg.URL+"\n"+orderedCRM, Options{})
	r := s.Write(within(t), Upsert, []Row{{Object: "o", Property: "k", Key: "1"}})[0]
	if r.Class != Network || !r.Sent || r.Status != 200 {
		t.Errorf("%+v", r)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	other := answering(t, 200, nil, "{}")
	for _, status := range []int{301, 302, 303, 307, 308} {
		tg := answering(t, status, http.Header{"Location": {other.URL}}, "")
		s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nauth: {type: bearer, token: abcdef}\n", Options{})
		r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]
		if r.Class != Unavailable || !strings.Contains(r.Message, "redirects are not followed") {
			t.Errorf("%+v", r)
		}
	}
	if len(other.requests()) != 0 {
		t.Error("a redirect was followed")
	}
}

// No message shows what we sent or what we keep secret.
func TestMessagesHideOurWords(t *testing.T) {
	t.Parallel()
	tg := newTarget(t, func(w http.ResponseWriter, r *http.Request, body string) {
		w.WriteHeader(422)
		_, _ = fmt.Fprintf(w, `{"code":%q,"message":"Got %s with %s for Jane.Doe@acme.test and 12345.67, DOE and Doering, key PS-77\nbye"}`,
			r.Header.Get("X-Api-Key"), r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"))
	})
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nauth: {type: bearer, token: \"${TOKEN}\"}\nheaders: {X-Api-Key: \"${KEY}\"}\n", Options{})
	r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "PS-77", Values: map[string]any{
		"email": "jane.doe@acme.test", "amount": decimal.RequireFromString("12345.67"), "name": "Doe", "flag": true,
	}}})[0]
	want := "Got Bearer <secret> with <secret> for <value> and <value>, <value> and Doering, key <key> bye"
	if r.Message != want || r.Code != "<secret>" {
		t.Errorf("got  %s (%s)\nwant %s", r.Message, r.Code, want)
	}
}

func TestRowThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	tg := newTarget(t, func(http.ResponseWriter, *http.Request, string) {})
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\nbatch: 10\n", Options{})
	rows := []Row{{Object: "o", Key: "1"}, {Object: "o", Key: "2", Values: map[string]any{"n": decimal.New(1, 100_000)}}, {Object: "o", Key: "3"}}
	got := s.Write(within(t), Upsert, rows)
	if diff := cmp.Diff([]Class{OK, Rejected, OK}, classesOf(got)); diff != "" {
		t.Error(diff)
	}
	if got[1].Sent || got[1].Status != 0 || got[1].Message != "the request cannot be made: a number has more than 1000 digits" {
		t.Errorf("%+v", got[1])
	}
	if body := tg.requests()[0].body; strings.Contains(body, `"key":"2"`) || !strings.Contains(body, `"key":"3"`) {
		t.Error(body)
	}
	if _, err := s.Preview(Upsert, rows); err == nil {
		t.Error("a preview of what cannot be written")
	}
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	s := newSink(t, presetConfigs["webhook"], Options{})
	if r := s.Write(within(t), Archive, []Row{{Object: "o"}})[0]; r.Class != Rejected || r.Code != "unsupported" {
		t.Errorf("%+v", r)
	}
	if r := s.Link(within(t), []LinkRow{{}})[0]; r.Class != Rejected || r.Code != "unsupported" {
		t.Errorf("%+v", r)
	}
	if _, err := s.Preview(Archive, []Row{{}}); err == nil {
		t.Error("a preview of what there is not")
	}
}

func TestObserver(t *testing.T) {
	t.Parallel()
	tg := answering(t, 503, nil, "")
	var seen []string
	s := newSink(t, "preset: webhook\nurl: "+tg.URL+"\n", Options{Observer: Observer{
		Request: func(op Operation, class Class, status int, dur time.Duration, rows int) {
			seen = append(seen, fmt.Sprint(op, " ", class, " ", status, " ", rows, " ", dur > 0))
		},
	}})
	s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})
	if diff := cmp.Diff([]string{"upsert unavailable 503 1 true"}, seen); diff != "" {
		t.Error(diff)
	}
}

// Of several ways of an operation the first whose condition holds is taken.
func TestSeveralWays(t *testing.T) {
	t.Parallel()
	s := newSink(t, `
base_url: https://crm.example
operations:
  link:
    - when: link.as != null
      path: /labelled
      body: {label: link.as, to: link.to.id}
    - path: /plain
      body: {to: link.to.id}
`[1:], Options{})
	p, err := s.PreviewLinks([]LinkRow{{To: Ref{ID: "1"}, As: "Partner"}, {To: Ref{ID: "2"}}})
	if err != nil || len(p) != 2 {
		t.Fatal(p, err)
	}
	if got := p[0].URL + string(p[0].Body) + p[1].URL + string(p[1].Body); got != `https://crm.example/labelled{"label":"Partner","to":"1"}https://crm.example/plain{"to":"2"}` {
		t.Error(got)
	}
	if !s.Description().Labels() {
		t.Error("it can label")
	}
}
