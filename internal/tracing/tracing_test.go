package tracing_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"partnersync/internal/secret"
	"partnersync/internal/tracing"
	"partnersync/internal/tracing/otlptest"
)

// patience bounds every wait; only a broken test reaches it.
const patience = time.Minute

const (
	theirs  = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent  = "00-" + theirs + "-00f067aa0ba902b7-01"
	hushed  = "00-" + theirs + "-00f067aa0ba902b7-00" // not sampled
	another = "00-11112222333344445555666677778888-1111222233334444-01"
)

var event = uuid.MustParse("0198c0de-0000-7abc-8123-456789abcdef")

const (
	eventTrace = "0198c0de00007abc8123456789abcdef"
	eventSpan  = "8123456789abcdef"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func flush(t *testing.T, shutdown func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	shutdown(ctx)
}

func header(parents []string, states ...string) http.Header {
	h := http.Header{}
	for _, p := range parents {
		h.Add("traceparent", p)
	}
	for _, s := range states {
		h.Add("tracestate", s)
	}
	return h
}

func TestKept(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	tests := []struct {
		name string
		give http.Header
		want string
	}{
		{"nothing", header(nil), ""},
		{"a parent", header([]string{parent}), parent},
		{"with a state", header([]string{parent}, "a=1,b=2"), parent + " a=1,b=2"},
		{"a state in two lines", header([]string{parent}, "a=1", "b=2"), parent + " a=1,b=2"},
		{"a state alone", header(nil, "a=1"), ""},
		{"a state that is none", header([]string{parent}, "oops"), parent},
		{"a state that is too long is cut between entries", header([]string{parent}, "a="+long+",b="+long+",c="+long+",d="+long+",e="+long+",f=1"), parent + " a=" + long + ",b=" + long + ",c=" + long + ",d=" + long},
		{"one entry that is too long", header([]string{parent}, "a="+strings.Repeat("x", 600)), parent},
		{"random flag", header([]string{"00-" + theirs + "-00f067aa0ba902b7-03"}), "00-" + theirs + "-00f067aa0ba902b7-03"},
		{"a later version, with more", header([]string{"cc-" + theirs + "-00f067aa0ba902b7-01-more"}), parent},
		{"version ff", header([]string{"ff-" + theirs + "-00f067aa0ba902b7-01"}), ""},
		{"this version, with more", header([]string{parent + "-more"}), ""},
		{"upper case", header([]string{strings.ToUpper(parent)}), ""},
		{"no trace", header([]string{"00-00000000000000000000000000000000-00f067aa0ba902b7-01"}), ""},
		{"no span", header([]string{"00-" + theirs + "-0000000000000000-01"}), ""},
		{"too short", header([]string{parent[:54]}), ""},
		{"empty", header([]string{""}), ""},
		{"two of them", header([]string{parent, another}), ""},
		{"a line break", header([]string{parent}, "a=1\nb: c"), parent},
		{"NUL", header([]string{parent + "\x00"}), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tracing.Kept(tt.give); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What a CRM gets, without and with an exporter.
func TestInject(t *testing.T) {
	t.Parallel()
	on := tracer(t, tracing.Options{Endpoint: otlptest.New(t).URL, Sample: 1})
	some := tracer(t, tracing.Options{Endpoint: otlptest.New(t).URL, Sample: 0x23456789abcd00p-56})
	more := tracer(t, tracing.Options{Endpoint: otlptest.New(t).URL, Sample: 0x23456789abce00p-56})
	tests := []struct {
		name   string
		tracer *tracing.Tracer
		kept   string
		want   string
	}{
		{"off, ours", nil, "", "00-" + eventTrace + "-" + eventSpan + "-00 "},
		{"off, theirs", nil, parent + " a=1,b=2", parent + " a=1,b=2"},
		{"off, stored by somebody else", nil, "rubbish", "00-" + eventTrace + "-" + eventSpan + "-00 "},
		{"on, ours", on, "", "00-" + eventTrace + "-" + eventSpan + "-01 "},
		{"on, theirs", on, parent + " a=1", "00-" + theirs + "-" + eventSpan + "-01 a=1"},
		{"on, theirs, which they do not export", on, hushed, hushed + " "},
		{"ours is just not among the sampled", some, "", "00-" + eventTrace + "-" + eventSpan + "-00 "},
		{"ours is just among them", more, "", "00-" + eventTrace + "-" + eventSpan + "-01 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := tt.tracer.With(t.Context(), tt.tracer.Place(event, tt.tracer.Keep(event, tt.kept)))
			h := http.Header{}
			tracing.Inject(ctx, h)
			if got := h.Get("traceparent") + " " + h.Get("tracestate"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	t.Run("no event", func(t *testing.T) {
		t.Parallel()
		h := http.Header{}
		tracing.Inject(on.With(t.Context()), h)
		if len(h) != 0 {
			t.Errorf("got %v", h)
		}
	})
}

func tracer(t *testing.T, o tracing.Options) *tracing.Tracer {
	t.Helper()
	tracer, err := tracing.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, end := context.WithCancel(context.Background())
		end()
		tracer.Shutdown(ended)
	})
	return tracer
}

// The whole way of two events: one with the sender's trace, one with its own.
func TestSpans(t *testing.T) {
	t.Parallel()
	b := otlptest.New(t)
	o := tracing.Options{Endpoint: b.URL + "/otlp/", Headers: map[string]secret.String{"Authorization": secret.New("Bearer hush-hush")}, Sample: 1, Service: "hooks"}
	on := tracer(t, o)
	other := uuid.MustParse("0198c0de-0000-7abc-8fff-ffffffffffff")
	began := time.Now()
	commit := on.Commit(began)
	places := []tracing.Place{}
	for _, e := range []struct {
		id   uuid.UUID
		kept string
	}{{other, parent}, {event, ""}, {uuid.New(), hushed}} {
		stored := on.Keep(e.id, e.kept)
		commit.Add(e.id, stored)
		on.Received(&tracing.Receipt{Event: e.id, Stored: e.id, Kept: e.kept, Source: "shop", Type: "deal.created", Result: "stored", Status: 202, Began: began})
		place, span := on.Work(on.Place(e.id, stored), "crm", e.id)
		span.End("")
		places = append(places, place)
	}
	commit.End(io.EOF)
	_, again := on.Work(on.Place(event, ""), "crm", event)
	again.End("dead")
	ctx, call := tracing.Request(on.With(t.Context(), places[2], places[1], places[0], places[1]), tracing.Call{Sink: "crm", Operation: "upsert", Method: "POST", Host: "api.example", Rows: 3})
	h := http.Header{}
	tracing.Inject(ctx, h)
	call.Answered("ok", false, 200)
	_, call = tracing.Request(on.With(t.Context(), places[0]), tracing.Call{Sink: "crm", Operation: "find"})
	call.Answered("unavailable", true, 503)
	if _, call := tracing.Request(on.With(t.Context(), places[2]), tracing.Call{}); call != nil {
		t.Error("a request of a trace that is not exported has a span")
	}
	flush(t, on.Shutdown)
	span := func(trace, name string) string { // the id of a span
		for _, s := range b.Spans() {
			if s.Trace == trace && s.Name == name {
				return s.ID
			}
		}
		return "none"
	}
	receive, deliver := span(theirs, "receive shop"), span(theirs, "deliver to crm")
	if receive != "8fffffffffffffff" || span(eventTrace, "receive shop") != eventSpan {
		t.Errorf("the spans of receipt are %s and %s", receive, span(eventTrace, "receive shop"))
	}
	want := []string{
		"commit (internal) " + theirs + " below " + receive + " events=3 linked to " + eventTrace + "/" + eventSpan + " failed: ",
		"crm find (client) " + theirs + " below " + deliver + " class=unavailable http.request.method=0 http.response.status_code=503 operation=find rows=0 server.address=0 sink=crm failed: unavailable 503",
		"crm upsert (client) " + eventTrace + " below " + span(eventTrace, "deliver to crm") + " class=ok http.request.method=POST http.response.status_code=200 operation=upsert rows=3 server.address=api.example sink=crm linked to " + theirs + "/" + deliver,
		"deliver to crm (consumer) " + eventTrace + " below " + eventSpan + " event=" + event.String() + " outcome=dead sink=crm failed: dead",
		"deliver to crm (consumer) " + eventTrace + " below " + eventSpan + " event=" + event.String() + " outcome=open sink=crm",
		"deliver to crm (consumer) " + theirs + " below " + receive + " event=" + other.String() + " outcome=open sink=crm",
		"receive shop (server) " + eventTrace + " below  event=" + event.String() + " http.response.status_code=202 result=stored source=shop type=deal.created",
		"receive shop (server) " + theirs + " below 00f067aa0ba902b7 event=" + other.String() + " http.response.status_code=202 result=stored source=shop type=deal.created",
	}
	var got []string
	for _, s := range b.Spans() {
		got = append(got, s.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if want := "00-" + eventTrace + "-" + span(eventTrace, "crm upsert") + "-01"; h.Get("traceparent") != want {
		t.Errorf("the CRM gets %s, want %s", h.Get("traceparent"), want)
	}
	r := b.Requests()[0]
	if b.Spans()[0].Service != "hooks" || r.Header.Get("Authorization") != "Bearer hush-hush" || r.Path != "/otlp/v1/traces" {
		t.Errorf("the collector got %s of %q with %v", r.Path, b.Spans()[0].Service, r.Header)
	}
}

// Off, nothing of it costs an allocation, and what there is to ask has its answer.
func TestOffIsFree(t *testing.T) {
	off, err := tracing.New(tracing.Options{})
	if off != nil || err != nil {
		t.Fatalf("without an endpoint there is a tracer, or %v", err)
	}
	h := http.Header{"Content-Type": {"application/json"}}
	now := time.Now()
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		kept := tracing.Kept(h)
		stored := off.Keep(event, kept)
		commit := off.Commit(now)
		commit.Add(event, stored)
		commit.End(nil)
		off.Received(&tracing.Receipt{Event: event, Stored: event, Kept: kept, Source: "shop", Began: now})
		place, span := off.Work(off.Place(event, stored), "crm", event)
		span.End("delivered")
		_, call := tracing.Request(ctx, tracing.Call{Sink: "crm"})
		call.Answered("ok", false, 200)
		_ = place
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	off.Shutdown(ctx)
}

// A collector that is away, or refuses, holds nobody up and tells no secret.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	const token = "hush-hush-token"
	receive := func(on *tracing.Tracer, n int) {
		for range n {
			id := uuid.Must(uuid.NewV7())
			on.Received(&tracing.Receipt{Event: id, Stored: id, Source: "shop"})
		}
	}
	b := otlptest.New(t)
	b.Answer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "who is "+token+" and why "+strings.Repeat("so long ", 1000), http.StatusUnauthorized)
	}))
	moved := otlptest.New(t)
	redirect := otlptest.New(t)
	redirect.Answer(http.RedirectHandler(moved.URL, http.StatusTemporaryRedirect))
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for _, tt := range []struct{ name, endpoint, want string }{
		{"it refuses", b.URL, "401 Unauthorized"},
		{"it is not there", "http://" + gone.Addr().String(), "connection refused"},
		{"it does not answer", "http://" + silent.Addr().String(), "no answer before the process ended"},
		{"it sends us elsewhere", redirect.URL, "307"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			on, err := tracing.New(tracing.Options{
				Endpoint: tt.endpoint, Sample: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Headers: map[string]secret.String{"X-Key": secret.New(token), "Authorization": secret.New("Bearer " + token)},
			})
			if err != nil {
				t.Fatal(err)
			}
			receive(on, 10_000) // more than can wait: the rest is dropped
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			on.Shutdown(ctx)
			receive(on, 10)
			on.Shutdown(ctx)
			text := log.String()
			if n := strings.Count(text, "\n"); n != 1 || !strings.Contains(text, tt.want) || strings.Contains(text, "hush") || len(text) > 1000 {
				t.Errorf("%d lines: %s", n, text)
			}
		})
	}
	if len(moved.Requests()) != 0 {
		t.Error("a redirect was followed")
	}
}

// It is told once that the collector fails, and once that it takes spans again.
func TestCollectorBack(t *testing.T) {
	t.Parallel()
	b := otlptest.New(t)
	b.Answer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	var log bytes.Buffer
	on := tracer(t, tracing.Options{Endpoint: b.URL, Sample: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for n := range 4 {
		if n == 3 {
			b.Answer(nil)
		}
		id := uuid.Must(uuid.NewV7())
		on.Received(&tracing.Receipt{Event: id, Stored: id, Source: fmt.Sprint("n", n)})
		flush(t, func(ctx context.Context) { tracing.Flush(ctx, on) })
	}
	flush(t, on.Shutdown)
	if got := b.Spans(); len(got) != 1 || got[0].Name != "receive n3" {
		t.Errorf("got %v", got)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "400 Bad Request") || !strings.Contains(lines[1], "lost=3") {
		t.Errorf("got %q", lines)
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"collector:4318", "ftp://collector", "http://", "http://a b/?hush", "unset"} {
		if on, err := tracing.New(tracing.Options{Endpoint: bad}); on != nil || err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
