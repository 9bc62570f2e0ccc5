package receiver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/tracing"
	"partnersync/internal/tracing/otlptest"
	"partnersync/receiver/spool"
)

const (
	senderTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	senderParent = "00-" + senderTrace + "-00f067aa0ba902b7-01"
)

func postTraced(t *testing.T, c *http.Client, url, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	return send(t, c, req)
}

// The sender's trace is stored with the event, by way of the spool too, and workers get it.
func TestTraceIsKept(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		header []string
		want   string
	}{
		{"none", nil, ""},
		{"the sender's", []string{"traceparent: " + senderParent, "tracestate: a=1,b=2"}, senderParent + " a=1,b=2"},
		{"one that is not valid", []string{"traceparent: 00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", "tracestate: a=1"}, ""},
	}
	for _, spooled := range []bool{false, true} {
		t.Run(fmt.Sprintf("spooled %v", spooled), func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			db := &switched{Ledger: ledger.New(pool)}
			db.away.Store(spooled)
			onDisk := openSpool(t, spool.Options{})
			s := start(t, Options{Ledger: db, Spool: onDisk})
			c := client(t)
			want := map[uuid.UUID]string{}
			for n, tt := range tests {
				got := postTraced(t, c, s.url+"/hooks/shop/deal.created", fmt.Sprintf(`{"key":"d%d","at":1700000000}`, n), tt.header...)
				if got.code != 202 {
					t.Fatalf("%s: got %d %s", tt.name, got.code, got.text)
				}
				want[uuid.MustParse(got.id)] = tt.want
			}
			db.away.Store(false)
			waitFor(t, "an empty spool", func() bool { return onDisk.Len() == 0 })
			got := map[uuid.UUID]string{}
			var ids []uuid.UUID
			for id := range want {
				ids = append(ids, id)
			}
			routes, err := db.Routes(t.Context(), "crm", ids)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range routes {
				got[r.Event] = r.Trace
				story, err := db.Story(t.Context(), r.Event)
				if err != nil || story.Trace != r.Trace {
					t.Errorf("the story tells %q, %v", story.Trace, err)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Requests and their commit are exported: those that the sender or our sample chose.
func TestReceiveIsTraced(t *testing.T) {
	t.Parallel()
	collector := otlptest.New(t)
	tracer, err := tracing.New(tracing.Options{Endpoint: collector.URL, Sample: 1, Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	pool := pgtest.Pool(t)
	db := &switched{Ledger: ledger.New(pool)}
	s := start(t, Options{Ledger: db, Tracer: tracer})
	c := client(t)
	url := s.url + "/hooks/shop/deal.created"
	theirs := postTraced(t, c, url, `{"key":"a","at":1700000000}`, "traceparent: "+senderParent, "tracestate: a=1")
	again := postTraced(t, c, url, `{"key":"a","at":1700000000}`, "traceparent: 00-11112222333344445555666677778888-1111222233334444-01")
	ours := postTraced(t, c, url, `{"key":"b","at":1700000000}`)
	hushed := postTraced(t, c, url, `{"key":"c","at":1700000000}`, "traceparent: "+strings.TrimSuffix(senderParent, "1")+"0")
	odd := postTraced(t, c, url, `oops`)
	for _, r := range []reply{theirs, ours, hushed} {
		if r.code != 202 {
			t.Errorf("got %d %s", r.code, r.text)
		}
	}
	if r := send(t, c, must(http.NewRequest(http.MethodPost, url, strings.NewReader("{}")))); r.code != 401 {
		t.Errorf("got %d", r.code)
	}
	db.away.Store(true)
	if r := postTraced(t, c, url, `{"key":"d","at":1700000000}`, "traceparent: 00-99992222333344445555666677778888-1111222233334444-01"); r.code != 503 {
		t.Errorf("got %d", r.code)
	}
	s.stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tracer.Shutdown(ctx)
	short := func(id string) string { return strings.ReplaceAll(id, "-", "") }
	span := func(id string) string { return short(id)[16:] }
	var got []string
	for _, span := range collector.Spans() {
		got = append(got, span.String())
	}
	const attributes = " http.response.status_code=%d result=%s source=shop type=deal.created"
	receipt := func(trace, parent, id string, code int, result string) string {
		return fmt.Sprintf("receive shop (server) %s below %s event=%s"+attributes, trace, parent, id, code, result)
	}
	want := []string{
		"commit (internal) " + senderTrace + " below " + span(theirs.id) + " events=1",
		receipt(senderTrace, "00f067aa0ba902b7", theirs.id, 202, "stored"),
		"commit (internal) " + short(ours.id) + " below " + span(ours.id) + " events=1",
		receipt(short(ours.id), "", ours.id, 202, "stored"),
		"commit (internal) " + short(odd.id) + " below " + span(odd.id) + " events=1",
		receipt(short(odd.id), "", odd.id, 400, "malformed"),
		receipt("11112222333344445555666677778888", "1111222233334444", theirs.id, 200, "duplicate"),
		receipt("99992222333344445555666677778888", "1111222233334444", uuid.Nil.String(), 503, "unavailable") + " failed: unavailable",
	}
	if again.id != theirs.id {
		t.Errorf("a duplicate is answered with %s", again.id)
	}
	// The ids of the spans of these two are not told by the answer.
	got = slices.DeleteFunc(got, func(s string) bool {
		return strings.HasPrefix(s, "commit (internal) 11112222") || strings.HasPrefix(s, "commit (internal) 99992222")
	})
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := rows(t, pool, `SELECT trace FROM events WHERE id = $1`, theirs.id); got[0] != "00-"+senderTrace+"-"+span(theirs.id)+"-01 a=1" {
		t.Errorf("stored is %s: work has to belong below the receipt", got[0])
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Where the log names an event it names its trace.
func TestLogNamesTheTrace(t *testing.T) {
	t.Parallel()
	var log lockedText
	s := start(t, Options{Ledger: spoiler{ledger.New(pgtest.Pool(t))}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	c := client(t)
	url := s.url + "/hooks/shop/deal.created"
	postTraced(t, c, url, `{"key":"bad1","at":1700000000}`, "traceparent: "+senderParent)
	ours := postTraced(t, c, url, `{"key":"bad2","at":1700000000}`)
	for _, want := range []string{"trace=" + senderTrace, "trace=" + strings.ReplaceAll(ours.id, "-", "")} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is missing in\n%s", want, &log)
		}
	}
}

// Before the database has been asked which number the config has, and whether it has
// the tables, nothing is sent to it.
func TestNotAskedYet(t *testing.T) {
	t.Parallel()
	for _, spools := range []bool{true, false} {
		t.Run(fmt.Sprintf("spools %v", spools), func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			o := Options{Ledger: ledger.New(pool)}
			if spools {
				o.Spool = openSpool(t, spool.Options{})
			}
			s := start(t, o)
			s.Use(routing(t, 0))
			c := client(t)
			want := http.StatusServiceUnavailable
			if spools {
				want = http.StatusAccepted
			}
			got := post(t, c, s.url+"/hooks/shop/deal.created", `{"key":"d","at":1700000000}`)
			if got.code != want || (!spools && got.header.Get("Retry-After") == "") {
				t.Errorf("got %d %s, want %d", got.code, got.text, want)
			}
			if n := rows(t, pool, `SELECT count(*)::text FROM events`); n[0] != "0" {
				t.Errorf("%s events are stored", n[0])
			}
			s.Use(routing(t, 7))
			if !spools {
				got = post(t, c, s.url+"/hooks/shop/deal.created", `{"key":"d","at":1700000000}`)
			}
			waitFor(t, "the event", func() bool {
				return cmp.Equal(rows(t, pool, `SELECT event_id || ' ' || generation FROM routes`), []string{got.id + " 7"})
			})
		})
	}
}

// Without an exporter a request costs no more allocations than it would without traces.
func TestTracingOffAllocatesNothing(t *testing.T) {
	r := New(Options{}, Routing{})
	h := http.Header{"Content-Type": {"application/json"}}
	events := []ledger.Incoming{{ID: uuid.New()}}
	now := time.Now()
	var trace string
	if n := testing.AllocsPerRun(100, func() {
		trace = r.options.Tracer.Keep(events[0].ID, tracing.Kept(h))
		r.trace(events, now, nil)
	}); n != 0 || trace != "" {
		t.Errorf("%v allocations, %q", n, trace)
	}
}

func TestSpoolOfAnOlderVersion(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	head := []byte(`{"id":"` + id.String() + `","source":"gone","received_at":"2026-01-02T03:04:05Z","type":"x","status":"stored"}`)
	record := spool.Record{Data: slices.Concat([]byte{byte(len(head)), 1}, head, []byte("{}"))}
	if len(head) >= 128 {
		record.Data[0] |= 0x80
	} else {
		record.Data = slices.Delete(record.Data, 1, 2)
	}
	w, err := reopenSpooled(newGates(routing(t, 1), newMetrics(nil)), record)
	if err != nil || w.event.ID != id || w.event.Trace != "" || w.event.VerifiedBy != "" || !bytes.Equal(w.event.Body, []byte("{}")) {
		t.Errorf("got %+v, %v", w, err)
	}
}
