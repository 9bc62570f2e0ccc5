package sinks

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// The limit that a target tells takes the place of the one in the description,
// and no window ever sees more than it.
func TestToldLimits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		rules  string
		header http.Header
		op     Operation
		most   int           // of any window
		per    time.Duration // of that length
		least  int           // of the first hundred seconds, so that it is made use of
	}{
		{"nothing told", "{requests: 10, per: 10s, told: {requests: x-max}}", nil, Upsert, 10, 10 * time.Second, 80},
		{"more", "{requests: 10, per: 10s, told: {requests: x-max}}", http.Header{"X-Max": {"50"}}, Upsert, 50, 10 * time.Second, 350},
		{"fewer", "{requests: 10, per: 10s, burst: 8, told: {requests: x-max}}", http.Header{"X-Max": {"4"}}, Upsert, 12, 10 * time.Second, 10},
		{"another period", "{requests: 10, per: 10s, told: {requests: x-max, per: x-per, unit: ms}}", http.Header{"X-Max": {"10"}, "X-Per": {"1000"}},
			Upsert, 10, time.Second, 700},
		{"a period in seconds", "{requests: 10, per: 10s, told: {requests: x-max, per: x-per}}", http.Header{"X-Max": {"10"}, "X-Per": {"1"}},
			Upsert, 10, time.Second, 700},
		{"half of it", "{requests: 10, per: 10s, told: {requests: x-max, per: x-per}}", http.Header{"X-Max": {"100"}}, Upsert, 10, 10 * time.Second, 80},
		{"nonsense", "{requests: 10, per: 10s, told: {requests: x-max}}", http.Header{"X-Max": {"lots"}}, Upsert, 10, 10 * time.Second, 80},
		{"nothing at all", "{requests: 10, per: 10s, told: {requests: x-max}}", http.Header{"X-Max": {"0"}}, Upsert, 10, 10 * time.Second, 80},
		{"several limits", "{requests: 10, per: 10s, told: {requests: x-max}}, {requests: 1000, per: 10s, operations: upsert}",
			http.Header{"X-Max": {"500"}}, Upsert, 10, 10 * time.Second, 80},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				s := New(loadYAML(t, "preset: webhook\nurl: http://crm.example\nlimits: ["+test.rules+"]\n"), Options{
					Transport: roundTrip(func(*http.Request) (*http.Response, error) {
						at = append(at, time.Now())
						return respond(200, test.header, ""), nil
					}),
				})
				for start := time.Now(); time.Since(start) < 100*time.Second; {
					if r := s.Write(context.Background(), test.op, []Row{{Object: "o", Key: "1"}})[0]; r.Class == Throttled {
						time.Sleep(r.RetryAfter)
					}
				}
				if len(at) < test.least {
					t.Errorf("%d requests in a hundred seconds", len(at))
				}
				for i := range at {
					n := 0
					for _, other := range at[i:] {
						if other.Sub(at[i]) < test.per {
							n++
						}
					}
					if n > test.most {
						t.Fatalf("%d requests within %s", n, test.per)
					}
				}
			})
		})
	}
}

// The CRMs that tell their limits are taken at their word.
func TestToldByPresets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		preset string
		header http.Header
		op     Operation
		want   string
	}{
		{"hubspot", http.Header{"X-Hubspot-Ratelimit-Max": {"190"}, "X-Hubspot-Ratelimit-Interval-Milliseconds": {"10000"}}, Upsert, "190 10s"},
		{"hubspot", http.Header{"X-Hubspot-Ratelimit-Max": {"190"}}, Upsert, "100 10s"},
		{"pipedrive", http.Header{"X-Ratelimit-Limit": {"120"}}, Update, "120 2s"},
		{"pipedrive", http.Header{"X-Ratelimit-Limit": {"10"}}, Find, "20 2s"}, // that of searches, perhaps
	}
	for _, test := range tests {
		s := newSink(t, presetConfigs[test.preset], Options{})
		s.limiter.heed(s.desc, test.op, &answer{status: 200, header: test.header})
		rule := s.limiter.rates[0].rule
		if got := fmt.Sprint(rule.Requests, " ", rule.Per); got != test.want {
			t.Errorf("%s, %s: %s, want %s", test.preset, test.op, got, test.want)
		}
	}
}
