package main

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
	"partnersync/internal/tracing/otlptest"
)

const (
	senderTrace    = "4bf92f3577b34da6a3ce929d0e0e4736"
	senderParent   = "00-" + senderTrace + "-00f067aa0ba902b7-01"
	collectorToken = "tok-of-the-collector"
)

// traced is a config whose traces go to a collector.
func traced(endpoint string) string {
	return shopConfig + "tracing: {endpoint: '" + endpoint + "', headers: {X-Key: '${COLLECTOR_TOKEN}'}, service: shop-hooks}\n"
}

// postTraced sends a deal with a traceparent.
func (s *server) postTraced(key, parent string) string {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.hooks+"/hooks/shop/deal.updated?token="+hookToken, strings.NewReader(`{"key": "`+key+`", "name": "n", "at": 1700000000}`))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("traceparent", parent)
	res, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		s.t.Fatalf("answered %d", res.StatusCode)
	}
	lines := strings.Fields(s.run("events", "--json"))
	for i, word := range lines {
		if word == `"id":` {
			return strings.Trim(lines[i+1], `",`)
		}
	}
	s.t.Fatal("there is no event")
	return ""
}

// A graceful stop exports what there is, and `explain` names the trace, whether there is
// a collector or not.
func TestTraces(t *testing.T) {
	t.Parallel()
	collector := otlptest.New(t)
	w := newWorld(t, traced(collector.URL), pgtest.URL(t))
	w.env = append(w.env, "COLLECTOR_TOKEN="+collectorToken)
	s := w.start()
	theirs := s.postTraced("d1", senderParent)
	ours := s.mustPost("d2", 1, "n")
	s.until("all has arrived", func() bool { return len(w.titles()) == 2 })
	s.stop()
	own := strings.ReplaceAll(ours, "-", "")
	found := map[string]otlptest.Span{}
	for _, span := range collector.Spans() {
		found[span.Trace+" "+span.Name] = span
	}
	if span := found[senderTrace+" receive shop"]; span.Parent != "00f067aa0ba902b7" || span.Attributes["partnersync.event"] != theirs || span.Service != "shop-hooks" {
		t.Errorf("the sender's trace has %+v", span)
	}
	if span := found[own+" receive shop"]; span.Parent != "" || span.Attributes["partnersync.event"] != ours {
		t.Errorf("our trace has %+v", span)
	}
	if span := found[senderTrace+" commit"]; span.Parent != found[senderTrace+" receive shop"].ID {
		t.Errorf("the commit is %+v", span)
	}
	for _, r := range collector.Requests() {
		if r.Path != "/v1/traces" || r.Header.Get("X-Key") != collectorToken {
			t.Errorf("the collector got %s with %v", r.Path, r.Header)
		}
	}
	for _, span := range collector.Spans() {
		for _, secret := range []string{hookToken, crmToken, collectorToken, "token="} {
			if strings.Contains(span.String(), secret) {
				t.Errorf("%s tells a secret", span)
			}
		}
	}
	for _, tt := range []struct{ id, text, json string }{
		{theirs, "trace " + senderTrace + ", begun by the sender\n", `"trace": "` + senderTrace + `"`},
		{ours, "trace " + own + "\n", `"trace": "` + own + `"`},
	} {
		if out := w.run("explain", tt.id); !strings.Contains(out, tt.text) || !strings.Contains(out, "verified by token in the query\n") {
			t.Errorf("%q is missing in\n%s", tt.text, out)
		}
		if out := w.run("explain", "--json", tt.id); !strings.Contains(out, tt.json) {
			t.Errorf("%q is missing in\n%s", tt.json, out)
		}
	}
}

// A collector that is away, or takes connections and says nothing, holds up neither
// events nor the stop.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct {
		name, endpoint string
		warns          bool
	}{
		{"not there", "http://127.0.0.1:1", true},
		{"silent", "http://" + silent.Addr().String(), false}, // it may be told at the end
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, strings.Replace(traced(tt.endpoint), "sources:\n", "jobs: {grace: 5s}\nsources:\n", 1), pgtest.URL(t))
			w.env = append(w.env, "COLLECTOR_TOKEN="+collectorToken)
			s := w.start()
			for n := range 50 {
				s.mustPost("d", n, "n")
			}
			s.until("all has arrived", func() bool { return w.count("routes WHERE outcome IS NULL") == 0 })
			const warning = "traces cannot be exported"
			if tt.warns {
				s.until("the log tells of it", func() bool { return strings.Contains(s.said(), warning) })
			}
			s.stop() // within the grace, or it would not end well
			if n := strings.Count(s.said(), warning); n != 1 || strings.Contains(s.said(), collectorToken) {
				t.Errorf("the log tells of it %d times:\n%s", n, s.said())
			}
		})
	}
}
