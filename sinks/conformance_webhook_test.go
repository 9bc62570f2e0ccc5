package sinks

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"partnersync/internal/sandbox"
)

// The same faults for a target of which nothing is known but that it takes a POST.
func TestConformWebhook(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		fault   sandbox.Fault
		class   Class
		sent    bool
		message string
	}{
		{"none", sandbox.Fault{}, OK, false, ""},
		{"no answer needed", sandbox.Fault{Effect: sandbox.EffectEmpty}, OK, false, ""},
		{"any answer", sandbox.Fault{Effect: sandbox.EffectHTML, Status: 202}, OK, false, ""},
		{"a long answer", sandbox.Fault{Effect: sandbox.EffectHuge, Size: 10 << 20}, OK, false, ""},
		{"500", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 500}, Unavailable, true, "Internal Server Error"},
		{"not up yet", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 404}, Unavailable, false, "Not Found"},
		{"throttled", sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "90"}, Throttled, false, "Too Many Requests"},
		{"credentials", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 401}, Held, false, "Unauthorized"},
		{"refused", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 422, Body: `{"message":"no good","field":"name","code":"E1"}`}, Rejected, false, "no good"},
		{"redirect", sandbox.Fault{Effect: sandbox.EffectRedirect, Location: "https://elsewhere.example/"}, Unavailable, false, "redirects are not followed"},
		{"reset", sandbox.Fault{Effect: sandbox.EffectReset}, Network, true, "broke before the answer"},
		{"cut off", sandbox.Fault{Effect: sandbox.EffectTruncate}, Network, true, "broke before the answer"},
		{"slow", sandbox.Fault{Latency: time.Minute}, Timeout, true, "no answer from"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			box := sandbox.New(sandbox.Options{})
			srv := httptest.NewServer(box)
			t.Cleanup(srv.Close)
			t.Cleanup(box.Reset)
			s := newSink(t, "preset: webhook\nurl: "+srv.URL+"/webhook/x?key=secret-of-query\ntimeout: 1s\nauth: {type: bearer, token: "+static+"}\n", Options{})
			if test.name != "none" {
				box.Fault(test.fault)
			}
			r := s.Write(within(t), Upsert, []Row{hookRow("1")})[0]
			if r.Class != test.class || r.Sent != test.sent || !strings.Contains(r.Message, test.message) {
				t.Errorf("%+v", r)
			}
			if strings.Contains(r.Message, "secret-of-query") {
				t.Errorf("the address is shown: %s", r.Message)
			}
			checkWords(t, r)
		})
	}
}
