package sinks

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// roundTrip is a transport that answers without a network.
type roundTrip func(r *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int, header http.Header, body string) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// No window of the period ever sees more than the limit, and all of it can be used.
func TestRateStaysBelowTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		s := New(loadYAML(t, "preset: webhook\nurl: http://crm.example\nlimits: [{requests: 100, per: 10s}]\nconcurrency: 1\n"), Options{
			Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				at = append(at, time.Now())
				return respond(200, nil, ""), nil
			}),
		})
		for range 300 {
			for {
				r := s.Write(context.Background(), Upsert, []Row{{Object: "o", Key: "1"}})[0]
				if r.Class == OK {
					break
				}
				if r.Class != Throttled || r.Sent || r.Code != "rate" || r.RetryAfter <= patience {
					t.Fatalf("%+v", r)
				}
				time.Sleep(r.RetryAfter)
			}
		}
		for i := 100; i < len(at); i++ {
			if at[i].Sub(at[i-100]) < 10*time.Second {
				t.Fatalf("requests %d to %d within %s", i-100, i, at[i].Sub(at[i-100]))
			}
		}
		if took := at[len(at)-1].Sub(at[0]); took > 40*time.Second {
			t.Errorf("300 requests took %s", took)
		}
	})
}

func TestLongWaitsAreHandedBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		waits := map[string]time.Duration{}
		s := New(loadYAML(t, "preset: webhook\nurl: http://crm.example\nlimits: [{requests: 2, per: 1m, burst: 1}, {requests: 50, per: 1s, operations: find}]\n"), Options{
			Transport: roundTrip(func(*http.Request) (*http.Response, error) { return respond(200, nil, ""), nil }),
			Observer:  Observer{Wait: func(reason string, d time.Duration) { waits[reason] += d }},
		})
		row := []Row{{Object: "o", Key: "1"}}
		if r := s.Write(context.Background(), Upsert, row)[0]; r.Class != OK {
			t.Fatalf("%+v", r)
		}
		for range 5 { // a refused wait takes nothing from the budget
			r := s.Write(context.Background(), Upsert, row)[0]
			if r.Class != Throttled || r.RetryAfter != time.Minute || r.Sent || r.Status != 0 {
				t.Fatalf("%+v", r)
			}
		}
		time.Sleep(59 * time.Second)
		if r := s.Write(context.Background(), Upsert, row)[0]; r.Class != OK {
			t.Fatalf("%+v", r)
		}
		if diff := cmp.Diff(map[string]time.Duration{"rate": time.Second}, waits); diff != "" {
			t.Error(diff)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		time.Sleep(58*time.Second + 500*time.Millisecond)
		if r := s.Write(ctx, Upsert, row)[0]; r.Class != Network || r.Sent || r.Code != "stopped" {
			t.Errorf("%+v", r)
		}
	})
}

func TestConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		s := New(loadYAML(t, "preset: webhook\nurl: http://crm.example\nconcurrency: 3\n"), Options{
			Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				running--
				mu.Unlock()
				return respond(200, nil, ""), nil
			}),
		})
		var wg sync.WaitGroup
		classes := make([]Class, 12)
		for i := range 12 {
			wg.Go(func() { classes[i] = s.Write(context.Background(), Upsert, []Row{{Object: "o", Key: "1"}})[0].Class })
		}
		wg.Wait()
		if most != 3 {
			t.Errorf("%d at once", most)
		}
		// Three at once and then; those that would wait two seconds or more come again.
		slices.Sort(classes)
		if classes[0] != OK || classes[5] != OK || classes[11] != Throttled {
			t.Error(classes)
		}
	})
}

// A throttle stops every request of the sink until it is over.
func TestThrottleStopsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls, status := 0, 429
		s := New(loadYAML(t, "preset: webhook\nurl: http://crm.example\n"), Options{
			Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				calls++
				return respond(status, http.Header{"Retry-After": {"120"}}, ""), nil
			}),
		})
		write := func() Result { return s.Write(context.Background(), Upsert, []Row{{Object: "o", Key: "1"}})[0] }
		if r := write(); r.Class != Throttled || r.RetryAfter != 2*time.Minute {
			t.Fatalf("%+v", r)
		}
		time.Sleep(100 * time.Second)
		if r := write(); r.Class != Throttled || r.RetryAfter != 20*time.Second || r.Code != "throttled" {
			t.Fatalf("%+v", r)
		}
		status = 200
		time.Sleep(20 * time.Second)
		if r := write(); r.Class != OK || calls != 2 {
			t.Fatalf("%+v after %d calls", r, calls)
		}
	})
}

// What the target reports of its limits is heeded before it refuses.
func TestReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		left := "5"
		s := New(loadYAML(t, `
preset: webhook
url: http://crm.example
reports:
  - {remaining: x-remaining, below: 2, wait: {header: x-reset, unit: ms, else: 1s}}
`[1:]), Options{
			Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				return respond(200, http.Header{"X-Remaining": {left}, "X-Reset": {"30000"}}, ""), nil
			}),
		})
		write := func() Result { return s.Write(context.Background(), Upsert, []Row{{Object: "o", Key: "1"}})[0] }
		write()
		left = "2"
		if r := write(); r.Class != OK {
			t.Fatalf("%+v", r)
		}
		if r := write(); r.Class != Throttled || r.RetryAfter != 30*time.Second {
			t.Fatalf("%+v", r)
		}
		time.Sleep(30 * time.Second)
		if r := write(); r.Class != OK {
			t.Fatalf("%+v", r)
		}
	})
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := New(loadYAML(t, "preset: webhook\nurl: http://crm.example\n"), Options{
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				calls++
				<-r.Context().Done()
				return nil, r.Context().Err()
			}),
		})
		r := s.Write(context.Background(), Upsert, []Row{{Object: "o", Key: "1"}})[0]
		if r.Class != Timeout || r.Message != "no answer from crm.example within 30s" || calls != 1 {
			t.Errorf("%+v after %d calls", r, calls)
		}
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if r := s.Write(ctx, Upsert, []Row{{Object: "o", Key: "1"}})[0]; r.Class != Network || r.Message != "stopped before crm.example answered" {
			t.Errorf("%+v", r)
		}
	})
}

func TestNotSentIsTriedTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := New(loadYAML(t, "preset: webhook\nurl: http://crm.example\n"), Options{
			Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				calls++
				return nil, errors.New("connection refused")
			}),
		})
		if r := s.Write(context.Background(), Create, []Row{{Object: "o"}})[0]; r.Class != Network || r.Sent || calls != 2 {
			t.Errorf("%+v after %d calls", r, calls)
		}
	})
}

func TestWaits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 22, 30, 0, 0, time.UTC)
	tests := []struct {
		name   string
		wait   string
		header http.Header
		body   string
		want   time.Duration
	}{
		{"fixed", "10s", nil, "", 10 * time.Second},
		{"seconds", "10s", http.Header{"Retry-After": {"3"}}, "", 3 * time.Second},
		{"fraction", "10s", http.Header{"Retry-After": {"0.5"}}, "", 500 * time.Millisecond},
		{"date", "10s", http.Header{"Retry-After": {"Sat, 21 Nov 2026 22:31:00 GMT"}}, "", time.Minute},
		{"date and another clock", "10s", http.Header{
			"Retry-After": {"Sat, 21 Nov 2026 23:31:00 GMT"}, "Date": {"Sat, 21 Nov 2026 23:30:30 GMT"}}, "", 30 * time.Second},
		{"date that has passed", "10s", http.Header{"Retry-After": {"Tue, 23 May 2023 14:42:01 GMT"}}, "", 0},
		{"nonsense", "10s", http.Header{"Retry-After": {"later"}}, "", 10 * time.Second},
		{"negative", "10s", http.Header{"Retry-After": {"-5"}}, "", 10 * time.Second},
		{"no number", "10s", http.Header{"Retry-After": {"NaN"}}, "", 10 * time.Second},
		{"too long", "10s", http.Header{"Retry-After": {"1e300"}}, "", 24 * time.Hour},
		{"header", "{header: x-ratelimit-reset}", http.Header{"X-Ratelimit-Reset": {"7"}}, "", 7 * time.Second},
		{"milliseconds", "{header: x-reset, unit: ms}", http.Header{"X-Reset": {"1500"}}, "", 1500 * time.Millisecond},
		{"no header", "{header: x-reset, else: 2s}", nil, "", 2 * time.Second},
		{"body", "{body: error.retry_in, unit: s}", nil, `{"error":{"retry_in":12}}`, 12 * time.Second},
		{"body with a date", "{body: until}", nil, `{"until":"Sat, 21 Nov 2026 22:40:00 GMT"}`, 10 * time.Minute},
		{"midnight", `{midnight: "America/New_York"}`, nil, "", 6*time.Hour + 30*time.Minute},
		{"midnight by setting", `{midnight: "{setting.zone}"}`, nil, "", 90 * time.Minute},
		{"midnight, but not so long", `{midnight: UTC, most: 1h}`, nil, "", time.Hour},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			desc := loadYAML(t, `
base_url: https://crm.example
settings: {zone: UTC}
classify: [{status: 429, class: throttled, wait: `[1:]+test.wait+`}]
`+anyOperation)
			a := &answer{status: 429, header: test.header}
			if a.header == nil {
				a.header = http.Header{}
			}
			if test.body != "" {
				tree, err := desc.operations[Upsert][0].outline.decode([]byte(test.body))
				if err != nil {
					t.Fatal(err)
				}
				a.tree, a.json = tree, true
			}
			if v := desc.judge(Upsert, a, now); v.wait != test.want {
				t.Errorf("got %s, want %s", v.wait, test.want)
			}
		})
	}
}
