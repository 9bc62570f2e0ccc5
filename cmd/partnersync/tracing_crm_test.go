package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"partnersync/internal/pgtest"
	"partnersync/internal/tracing/otlptest"
)

// crmCalls is what the CRM gets, before it answers.
type crmCalls struct {
	mu   sync.Mutex
	list []http.Header
}

func (c *crmCalls) parents() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	parents := map[string]int{}
	for _, h := range c.list {
		parents[h.Get("traceparent")+" "+h.Get("tracestate")]++
	}
	return parents
}

// watched puts a record of all requests before the world's CRM.
func watched(t *testing.T, w *world) *crmCalls {
	c := &crmCalls{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.list = append(c.list, r.Header.Clone())
		c.mu.Unlock()
		w.box.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.env = append(w.env, "CRM_URL="+server.URL+"/hubspot", "COLLECTOR_TOKEN="+collectorToken)
	return c
}

// The requests to the CRM belong to the trace of their event, and have spans.
func TestTracesReachTheCRM(t *testing.T) {
	t.Parallel()
	for _, exported := range []bool{false, true} {
		t.Run(map[bool]string{false: "off", true: "on"}[exported], func(t *testing.T) {
			t.Parallel()
			collector := otlptest.New(t)
			config := shopConfig
			if exported {
				config = traced(collector.URL)
			}
			w := newWorld(t, config, pgtest.URL(t))
			calls := watched(t, w)
			s := w.start()
			theirs := s.postTraced("d1", senderParent)
			s.until("it has arrived", func() bool { return len(w.titles()) == 1 })
			ours := s.mustPost("d2", 1, "n")
			s.until("all has arrived", func() bool { return len(w.titles()) == 2 })
			s.stop()
			own := strings.ReplaceAll(ours, "-", "")
			logged := map[string]string{}
			for line := range strings.Lines(s.said()) {
				var entry struct{ Msg, Outcome, Event, Trace string }
				if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "delivery ended" && entry.Outcome == "delivered" {
					logged[entry.Event] = entry.Trace
				}
			}
			if logged[theirs] != senderTrace || logged[ours] != own {
				t.Errorf("the log names the traces %v", logged)
			}
			if !exported {
				got := calls.parents()
				if got[senderParent+" "] == 0 || got["00-"+own+"-"+own[16:]+"-00 "] == 0 {
					t.Errorf("the CRM got %v", got)
				}
				if n := len(collector.Requests()); n != 0 {
					t.Errorf("%d requests to a collector that nobody named", n)
				}
				return
			}
			spans := map[string]otlptest.Span{}
			byID := map[string]otlptest.Span{}
			for _, span := range collector.Spans() {
				spans[span.Trace+" "+span.Name] = span
				byID[span.ID] = span
			}
			for _, trace := range []string{senderTrace, own} {
				receive, deliver := spans[trace+" receive shop"], spans[trace+" deliver to crm"]
				if deliver.Parent != receive.ID || deliver.Kind != "consumer" || deliver.Attributes["partnersync.outcome"] != "delivered" {
					t.Errorf("the work is %+v", deliver)
				}
				found := 0
				for _, span := range collector.Spans() {
					if span.Trace != trace || span.Kind != "client" {
						continue
					}
					found++
					if byID[span.Parent].Name != "deliver to crm" || span.Attributes["partnersync.class"] == "" || span.Attributes["http.response.status_code"] == "" {
						t.Errorf("a request is %+v", span)
					}
					if calls.parents()["00-"+trace+"-"+span.ID+"-01 "] != 1 {
						t.Errorf("the CRM got %v, without %s", calls.parents(), span.ID)
					}
				}
				if found == 0 {
					t.Errorf("no request in the trace %s", trace)
				}
			}
		})
	}
}
