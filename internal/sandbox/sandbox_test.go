package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const upsertPath = objects + "contacts/batch/upsert"

func upsertBody(n int) string {
	var rows []string
	for i := range n {
		rows = append(rows, fmt.Sprintf(`{"id":"K%d","idProperty":"partner_key","objectWriteTraceId":"t%d","properties":{`+
			`"email":"person%d@example.test","firstname":"Jane","lastname":"Doe","company":"Acme","phone":"+15551234567","partner_status":"active"}}`, i, i, i))
	}
	return `{"inputs":[` + strings.Join(rows, ",") + `]}`
}

// over sends through a real connection; err is what the client made of it, of the body too.
func over(t *testing.T, s *Server, path, body string) (status int, header http.Header, got string, err error) {
	t.Helper()
	var serving sync.WaitGroup // also what has no connection any more, for which Close does not wait
	defer serving.Wait()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving.Add(1)
		defer serving.Done()
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer x")
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(raw), err
}

func TestFaultEffects(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		give    Fault
		want    int    // 0: no answer
		cut     bool   // the body ends early
		body    string // part of it
		header  string // "Name: value"
		applied bool
	}{
		{"none", Fault{Effect: EffectNone}, 200, false, `"COMPLETE"`, "", true},
		{"status", Fault{Effect: EffectStatus, Status: 503}, 503, false, `"status":"error"`, "", false},
		{"status after applying", Fault{Effect: EffectStatus, Status: 502, Apply: true}, 502, false, `"COMPLETE"`, "", true},
		{"status with a body", Fault{Effect: EffectStatus, Status: 500, Body: "<oops>", Header: http.Header{"content-type": {"text/plain"}}},
			500, false, "<oops>", "Content-Type: text/plain", false},
		{"HubSpot's own 401", Fault{Effect: EffectStatus, Status: 401}, 401, false, "INVALID_AUTHENTICATION", "", false},
		{"HubSpot's own 403", Fault{Effect: EffectStatus, Status: 403}, 403, false, "MISSING_SCOPES", "", false},
		{"HubSpot's own 423", Fault{Effect: EffectStatus, Status: 423}, 423, false, `"status":"error"`, "", false},
		{"HubSpot's own 477", Fault{Effect: EffectStatus, Status: 477}, 477, false, `"status":"error"`, "Retry-After: 3600", false},
		{"a silent failure", Fault{Effect: EffectStatus, Status: 200, Body: `{"status":"COMPLETE","results":[]}`}, 200, false,
			`"results":[]`, "", false},
		{"reset", Fault{Effect: EffectReset}, 0, false, "", "", false},
		{"reset after applying", Fault{Effect: EffectReset, Apply: true}, 0, false, "", "", true},
		{"truncate", Fault{Effect: EffectTruncate}, 200, true, "", "", true},
		{"huge", Fault{Effect: EffectHuge, Size: 1 << 20}, 200, false, "xxxx", "Content-Length: 1048576", false},
		{"empty", Fault{Effect: EffectEmpty}, 200, false, "", "Content-Length: 0", false},
		{"empty after applying", Fault{Effect: EffectEmpty, Apply: true}, 200, false, "", "Content-Length: 0", true},
		{"html", Fault{Effect: EffectHTML}, 403, false, "<html>", "Content-Type: text/html; charset=UTF-8", false},
		{"redirect", Fault{Effect: EffectRedirect, Location: "https://elsewhere.test/"}, 307, false, "", "Location: https://elsewhere.test/", false},
		{"throttle", Fault{Effect: EffectThrottle, Policy: "DAILY"}, 429, false, `"policyName":"DAILY"`, "Retry-After: ", false},
		{"throttle with a wait", Fault{Effect: EffectThrottle, RetryAfter: "120"}, 429, false, `"errorType":"RATE_LIMIT"`, "Retry-After: 120", false},
		{"late", Fault{Effect: EffectLate, Latency: time.Nanosecond}, 504, false, `"status":"error"`, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := portal(Options{})
			s.Fault(tt.give)
			status, header, body, err := over(t, s, upsertPath, upsertBody(3))
			if failed := tt.want == 0 || tt.cut; (err != nil) != failed {
				t.Fatalf("error %v", err)
			}
			if reset := tt.give.Effect == EffectReset; reset != errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("error %v", err)
			}
			wantEqual(t, "status", status, tt.want)
			wantContains(t, "body", body, tt.body)
			if name, value, ok := strings.Cut(tt.header, ": "); ok {
				wantEqual(t, name, header.Get(name), value)
			}
			written := 0
			if tt.applied {
				written = 3
			}
			wantEqual(t, "written", len(values(s, "contacts")), written)
			line := s.Requests()[0]
			wantEqual(t, "logged rows", line.Rows, 3)
			wantEqual(t, "logged fault", line.Fault, tt.give.Effect)
			if tt.cut {
				wantEqual(t, "logged status", line.Status, 0)
			} else {
				wantEqual(t, "logged status", line.Status, tt.want)
			}
		})
	}
}

func TestFaultMatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		give Fault
		want []int // of four upserts with 1, 2, 3 and 4 rows
	}{
		{"all", Fault{}, []int{503, 503, 503, 503}},
		{"dialect", Fault{Dialect: "hubspot"}, []int{503, 503, 503, 503}},
		{"another dialect", Fault{Dialect: "webhook"}, []int{200, 200, 200, 200}},
		{"method", Fault{Method: "get"}, []int{200, 200, 200, 200}},
		{"path", Fault{Path: "batch/upsert"}, []int{503, 503, 503, 503}},
		{"another path", Fault{Path: "batch/create"}, []int{200, 200, 200, 200}},
		{"body", Fault{Contains: `"K2"`}, []int{200, 200, 503, 503}},
		{"rows", Fault{MinRows: 2, MaxRows: 3}, []int{200, 503, 503, 200}},
		{"count", Fault{Count: 2}, []int{503, 503, 200, 200}},
		{"skip", Fault{Skip: 1, Count: 1}, []int{200, 503, 200, 200}},
		{"probability", Fault{Probability: 0.5, Seed: 7}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run := func() (got []int) {
				s := portal(Options{})
				tt.give.Effect, tt.give.Status = EffectStatus, 503
				s.Fault(tt.give)
				for n := range 4 {
					got = append(got, send(t, s, "POST", upsertPath, upsertBody(n+1)).status)
				}
				return got
			}
			if tt.want == nil {
				tt.want = run() // one seed, one sequence
			}
			wantEqual(t, "statuses", run(), tt.want)
		})
	}
}

func TestFaultProbability(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	s.Fault(Fault{Effect: EffectStatus, Status: 503, Probability: 0.25, Seed: 1})
	played := 0
	for range 1000 {
		if send(t, s, "GET", objects+"contacts", "").status == 503 {
			played++
		}
	}
	if played < 200 || played > 300 {
		t.Errorf("played %d times of 1000, want about 250", played)
	}
}

func TestFaultOrderAndRemoval(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	first := s.Fault(Fault{Effect: EffectStatus, Status: 503})
	s.Fault(Fault{Effect: EffectStatus, Status: 502})
	wantStatus(t, send(t, s, "GET", objects+"contacts", ""), 503)
	first()
	first()
	wantStatus(t, send(t, s, "GET", objects+"contacts", ""), 502)
	s.Reset()
	wantStatus(t, send(t, s, "GET", objects+"contacts", ""), 200)
}

// The moments at which things happen, on a clock that does not run by itself.
func TestLatencies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		options  Options
		fault    *Fault
		early    int           // records a second after the request
		answered time.Duration // when the reply came
		late     int           // records in the end
	}{
		{"none", Options{}, nil, 1, 0, 1},
		{"of the server", Options{Latency: 3 * time.Second}, nil, 0, 3 * time.Second, 1},
		{"of a fault", Options{}, &Fault{Latency: 3 * time.Second}, 0, 3 * time.Second, 1},
		{"after applying", Options{}, &Fault{Latency: 3 * time.Second, Apply: true}, 1, 3 * time.Second, 1},
		{"both", Options{Latency: 3 * time.Second}, &Fault{Latency: 3 * time.Second}, 0, 6 * time.Second, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := portal(tt.options)
				if tt.fault != nil {
					s.Fault(*tt.fault)
				}
				start := time.Now()
				var answered time.Duration
				done := make(chan struct{})
				go func() {
					defer close(done)
					send(t, s, "POST", upsertPath, upsertBody(1))
					answered = time.Since(start)
				}()
				time.Sleep(time.Second) // of the bubble: the clock moves when all wait
				synctest.Wait()
				wantEqual(t, "early", len(values(s, "contacts")), tt.early)
				<-done
				wantEqual(t, "answered", answered, tt.answered)
				wantEqual(t, "in the end", len(values(s, "contacts")), tt.late)
			})
		})
	}
}

func TestLateAppliesAfterItsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := portal(Options{})
		s.Fault(Fault{Effect: EffectLate, Latency: 5 * time.Second, Count: 1})
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", upsertPath, strings.NewReader(upsertBody(1)))
		r.Header.Set("Authorization", "Bearer x")
		r.Header.Set("Content-Type", "application/json")
		done := make(chan struct{})
		go func() { defer close(done); s.ServeHTTP(w, r) }()
		time.Sleep(time.Second)
		synctest.Wait()
		wantEqual(t, "flushed", w.Flushed, true)
		wantEqual(t, "status", w.Code, 504)
		wantEqual(t, "records before", len(values(s, "contacts")), 0)
		<-done
		wantEqual(t, "records after", len(values(s, "contacts")), 1)
	})
}

func TestResetDropsWhatIsHeldBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := portal(Options{})
		s.Fault(Fault{Effect: EffectLate, Latency: time.Hour})
		done := make(chan struct{})
		go func() { defer close(done); send(t, s, "POST", upsertPath, upsertBody(1)) }()
		synctest.Wait()
		start := time.Now()
		s.Reset()
		<-done
		wantEqual(t, "waited", time.Since(start), time.Duration(0))
		wantEqual(t, "records", len(values(s, "contacts")), 0)
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := portal(Options{Now: clock.now, Limits: HubSpotLimits()})
	get := func() answer { return send(t, s, "GET", objects+"contacts", "") }
	a := get()
	wantStatus(t, a, 200)
	for name, want := range map[string]string{
		"X-HubSpot-RateLimit-Max": "100", "X-HubSpot-RateLimit-Remaining": "99",
		"X-HubSpot-RateLimit-Interval-Milliseconds": "10000", "X-HubSpot-RateLimit-Daily": "250000",
		"X-HubSpot-RateLimit-Daily-Remaining": "249999",
	} {
		wantEqual(t, name, a.header.Get(name), want)
	}
	for i := range 5 {
		a = send(t, s, "POST", objects+"contacts/search", `{}`)
		wantStatus(t, a, 200)
		if name := "X-HubSpot-RateLimit-Max"; a.header.Get(name) != "" {
			t.Errorf("search %d has %s", i, name)
		}
	}
	a = send(t, s, "POST", objects+"contacts/search", `{}`)
	wantStatus(t, a, 429)
	wantEqual(t, "policy", a.body["policyName"], any("SECONDLY"))
	wantEqual(t, "message", a.message(), "You have reached your secondly limit.")
	wantEqual(t, "errorType", a.body["errorType"], any("RATE_LIMIT"))
	wantEqual(t, "Retry-After", a.header.Get("Retry-After"), "")

	for range 94 {
		wantStatus(t, get(), 200)
	}
	a = get()
	wantStatus(t, a, 429)
	wantEqual(t, "policy", a.body["policyName"], any("TEN_SECONDLY_ROLLING"))
	clock.at = clock.at.Add(10 * time.Second)
	wantStatus(t, get(), 200)

	s.SetLimits(Limit{Dialect: "hubspot", Policy: "DAILY", Requests: 2, Per: 24 * time.Hour})
	wantStatus(t, get(), 200)
	wantStatus(t, get(), 200)
	wantEqual(t, "policy", get().body["policyName"], any("DAILY"))
	clock.at = clock.at.Add(11 * time.Hour)
	wantStatus(t, get(), 429)
	clock.at = clock.at.Add(time.Hour) // past midnight
	wantStatus(t, get(), 200)
	s.SetLimits()
	for range 200 {
		wantStatus(t, get(), 200)
	}
}

func TestWhatSalesDoes(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	id := s.Put("hubspot", "0-1", map[string]any{"email": "jane@x.test", "firstname": "Jane"})
	wantEqual(t, "edited", s.Edit("hubspot", "contact", id, map[string]any{"firstname": "J.", "phone": "1", "email": nil}), true)
	got, _ := s.Get("hubspot", "contacts", id)
	wantEqual(t, "properties", got.Properties, map[string]any{"firstname": "J.", "phone": "1"})
	wantEqual(t, "writes", got.Writes, 2)
	wantStatus(t, send(t, s, "GET", objects+"contacts/jane@x.test?idProperty=email", ""), 404)
	// What comes out is a copy.
	got.Properties["phone"] = "2"
	s.Records("hubspot", "contacts")[0].Properties["phone"] = "3"
	again, _ := s.Get("hubspot", "contacts", id)
	wantEqual(t, "phone", again.Properties["phone"], any("1"))

	wantEqual(t, "archived", s.Archive("hubspot", "contacts", id), true)
	wantEqual(t, "archived again", s.Archive("hubspot", "contacts", id), false)
	wantEqual(t, "edited", s.Edit("hubspot", "contacts", id, nil), false)
	_, ok := s.Get("hubspot", "contacts", id)
	wantEqual(t, "found", ok, false)
	wantEqual(t, "unknown object", len(s.Records("hubspot", "butterflies")), 0)
	wantEqual(t, "unknown dialect", len(s.Records("nosuch", "contacts")), 0)
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := New(Options{Now: clock.now})
	wantStatus(t, send(t, s, "POST", "/webhook/a/b", `{"x":1}`), 200)
	wantStatus(t, send(t, s, "PUT", "/webhook", `not JSON`), 200)
	wantStatus(t, send(t, s, "GET", "/webhook/a", ""), 405)
	hooks := s.Hooks()
	wantEqual(t, "kept", len(hooks), 2)
	wantEqual(t, "first", []string{hooks[0].Method, hooks[0].Path, string(hooks[0].Body)}, []string{"POST", "/a/b", `{"x":1}`})
	wantEqual(t, "second", string(hooks[1].Body), "not JSON")
	s.Fault(Fault{Dialect: "webhook", Effect: EffectThrottle, RetryAfter: "5", Count: 1})
	a := send(t, s, "POST", "/webhook/a", `{}`)
	wantStatus(t, a, 429)
	wantEqual(t, "Retry-After", a.header.Get("Retry-After"), "5")
	wantEqual(t, "kept", len(s.Hooks()), 2)
}

func TestRequestLog(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := portal(Options{Now: clock.now})
	send(t, s, "POST", upsertPath, upsertBody(3))
	send(t, s, "GET", objects+"contacts/5?idProperty=email", "")
	wantEqual(t, "log", s.Requests(), []Request{
		{Time: clock.at, Dialect: "hubspot", Method: "POST", Path: "/crm/objects/2026-09/contacts/batch/upsert", Status: 200, Rows: 3},
		{Time: clock.at, Dialect: "hubspot", Method: "GET", Path: "/crm/objects/2026-09/contacts/5", Status: 404},
	})
	for range keptCalls {
		send(t, s, "GET", objects+"contacts/6", "")
	}
	log := s.Requests()
	wantEqual(t, "kept", len(log), keptCalls)
	wantEqual(t, "oldest", log[0].Path, "/crm/objects/2026-09/contacts/6")
	s.Reset()
	wantEqual(t, "after a reset", len(s.Requests()), 0)
}

func TestConcurrentUpserts(t *testing.T) {
	t.Parallel()
	s := portal(Options{Lag: time.Second})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if a := send(t, s, "POST", upsertPath, upsertBody(50)); a.status != 200 {
					t.Errorf("status %d: %s", a.status, a.raw)
				}
				send(t, s, "POST", objects+"contacts/search", `{"query":"jane"}`)
				send(t, s, "GET", "/", "")
				send(t, s, "GET", "/records.json", "")
			}
		})
	}
	wg.Wait()
	records := s.Records("hubspot", "contacts")
	wantEqual(t, "contacts", len(records), 50)
	for _, r := range records {
		if r.Writes != 40 {
			t.Errorf("%s was written %d times, want 40", r.ID, r.Writes)
		}
	}
}

func TestTooLargeBody(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	r := httptest.NewRequest("POST", upsertPath, io.LimitReader(neverEnding{}, maxBody+1))
	r.Header.Set("Authorization", "Bearer x")
	wantStatus(t, serve(t, s, r), 413)
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// A handler behind a writer that cannot be hijacked cuts the connection the other way.
func TestCutWithoutHijack(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	s.Fault(Fault{Effect: EffectReset})
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("panicked with %v", err)
		}
		wantEqual(t, "logged", len(s.Requests()), 1)
	}()
	send(t, s, "GET", objects+"contacts", "")
}

// Whatever a body holds, the answer is JSON and no server error.
func FuzzBody(f *testing.F) {
	paths := []string{
		"crm/v3/objects/contacts/batch/upsert", "crm/v3/objects/deals/batch/create", "crm/v3/objects/deals/batch/update",
		"crm/v3/objects/contacts/batch/read", "crm/v3/objects/contacts/search", "crm/v3/objects/contacts",
		"crm/v4/associations/deals/contacts/batch/create", "crm/v4/associations/deals/contacts/batch/archive",
		"crm/v3/properties/deals",
	}
	for _, seed := range []string{
		upsertBody(2), `{"inputs":[{"id":"1","properties":{"a":null}}]}`, `{"inputs":null}`, `[]`, `{"inputs":[[]]}`, "\xff", `{"after":{}}`,
		`{"filterGroups":[{"filters":[{"propertyName":"email","operator":"IN"}]}],"limit":-1}`, `{"inputs":[{"to":[{"id":"1"}]}]}`,
	} {
		for n := range paths {
			f.Add(uint8(n), seed)
		}
	}
	// One request each: under load, Go takes a slow one at the end of its time for a failure.
	f.Fuzz(func(t *testing.T, n uint8, body string) {
		path := paths[int(n)%len(paths)]
		if a := send(t, portal(Options{}), "POST", "/hubspot/"+path, body); a.status >= 500 {
			t.Errorf("%s: status %d", path, a.status)
		}
		countRows([]byte(body))
	})
}

func BenchmarkUpsert(b *testing.B) {
	body := upsertBody(100)
	s := portal(Options{})
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", upsertPath, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer x")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

// Who watches hears of each change, in their order.
func TestWatch(t *testing.T) {
	t.Parallel()
	var heard []string
	s := New(Options{Watch: func(c Change) {
		switch {
		case c.Record.ID == "":
			heard = append(heard, fmt.Sprintf("link of %s to %s: %v", c.Link.FromObject, c.Link.ToObject, c.Linked))
		default:
			heard = append(heard, fmt.Sprintf("%s %v: created %v, archived %v", c.Record.Object, c.Record.Properties["name"], c.Created, c.Archived))
		}
	}})
	id := s.Put(hubspotName, "companies", map[string]any{"name": "Acme"})
	s.Edit(hubspotName, "companies", id, map[string]any{"name": "Initech"})
	l := Link{Dialect: hubspotName, FromObject: "contacts", FromID: "1", ToObject: "companies", ToID: id}
	s.store.mu.Lock()
	s.store.link(l)
	s.store.link(l) // is there
	s.store.unlink(func(old Link) bool { return old == l })
	s.store.mu.Unlock()
	s.Archive(hubspotName, "companies", id)
	want := []string{
		"companies Acme: created true, archived false", "companies Initech: created false, archived false",
		"link of contacts to companies: true", "link of contacts to companies: false", "companies Initech: created false, archived true",
	}
	wantEqual(t, "heard", heard, want)
}
