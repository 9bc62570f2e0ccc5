package sinks

import (
	"net/http"
	"testing"
	"time"

	"partnersync/internal/sandbox"
)

// Every way in which a CRM says that it has had enough, and what follows.
func TestConformThrottle(t *testing.T) {
	t.Parallel()
	throttle := func(policy string) sandbox.Fault {
		return sandbox.Fault{Effect: sandbox.EffectThrottle, Policy: policy}
	}
	told := func(after string) sandbox.Fault {
		return sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: after}
	}
	says := func(status int, body string, header ...string) sandbox.Fault {
		f := sandbox.Fault{Effect: sandbox.EffectStatus, Status: status, Body: body, Header: http.Header{}}
		for i := 0; i+1 < len(header); i += 2 {
			f.Header.Set(header[i], header[i+1])
		}
		return f
	}
	const date, inTwoMinutes = "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 10:02:00 GMT"
	tests := []struct {
		crm, name string
		fault     sandbox.Fault
		class     Class
		wait      time.Duration
	}{
		{"attio", "a date", says(429, `{"status_code":429,"type":"rate_limit_error","code":"rate_limit_exceeded","message":"slow"}`,
			"Retry-After", inTwoMinutes, "Date", date), Throttled, 2 * time.Minute},
		{"attio", "nothing told", says(429, `{"message":"slow"}`, "Retry-After", ""), Throttled, time.Second},
		{"attio", "quota", says(403, `{"status_code":403,"type":"x","code":"quota_exceeded","message":"no more"}`), Parked, time.Hour},
		{"attio", "bill", says(402, `{"status_code":402,"type":"x","code":"billing_error","message":"pay"}`), Parked, time.Hour},
		{"dataverse", "requests", throttle("0x80072322"), Throttled, 10 * time.Second},
		{"dataverse", "time", throttle("0x80072321"), Throttled, 10 * time.Second},
		{"dataverse", "at a time", throttle("0x80072326"), Throttled, 10 * time.Second},
		{"dataverse", "seconds", told("240"), Throttled, 4 * time.Minute},
		{"hubspot", "ten seconds", throttle("TEN_SECONDLY_ROLLING"), Throttled, 10 * time.Second},
		{"hubspot", "a second", throttle("SECONDLY"), Throttled, time.Second},
		{"hubspot", "seconds", told("120"), Throttled, 2 * time.Minute},
		{"pipedrive", "burst", throttle(""), Throttled, 2 * time.Second},
		{"pipedrive", "reset", says(429, `{"success":false,"error":"request over limit"}`, "x-ratelimit-reset", "7", "x-daily-requests-left", "50"), Throttled, 7 * time.Second},
		{"pipedrive", "day", says(429, `{"success":false,"error":"request over limit"}`, "x-ratelimit-reset", "7", "x-daily-requests-left", "0"), Parked, -time.Hour},
		{"pipedrive", "tokens of a day", says(429, `{"success":false}`, "x-daily-ratelimit-token-remaining", "0"), Parked, -time.Hour},
		{"pipedrive", "in front of it", throttle("cloudflare"), Parked, 5 * time.Minute},
		{"pipedrive", "plan", says(403, `{"success":false,"error":"x","code":"feature_capping_deals_limit"}`), Held, 0},
		{"salesforce", "a day", throttle("TotalRequests"), Parked, 15 * time.Minute},
		{"salesforce", "at a time", throttle("ConcurrentRequests"), Throttled, 5 * time.Second},
		{"salesforce", "storage", says(403, `[{"errorCode":"STORAGE_LIMIT_EXCEEDED","message":"storage limit exceeded"}]`), Parked, time.Hour},
		{"salesforce", "version", says(410, `[{"errorCode":"UNSUPPORTED_API_VERSION","message":"gone"}]`), Held, 0},
		{"salesforce", "an app that is not known", says(400, `[{"errorCode":"INVALID_CLIENT_ID","message":"x"}]`), Held, 0},
		{"salesforce", "API switched off", says(400, `[{"errorCode":"API_DISABLED_FOR_ORG","message":"x"}]`), Held, 0},
		{"zoho", "at a time", throttle(""), Throttled, 5 * time.Second},
		{"zoho", "credits", throttle("credits"), Parked, 15 * time.Minute},
		{"zoho", "credits with 200", says(200, `{"code":"LIMIT_EXCEEDED","details":{},"message":"x","status":"error"}`), Parked, 15 * time.Minute},
		{"zoho", "at a time with 200", says(200, `{"code":"TOO_MANY_REQUESTS","details":{},"message":"x","status":"error"}`), Throttled, 5 * time.Second},
		{"zoho", "locked", says(400, `{"code":"RECORD_LOCKED","details":{},"message":"x","status":"error"}`), Unavailable, 5 * time.Second},
		{"zoho", "no such module", says(400, `{"code":"INVALID_MODULE","details":{},"message":"x","status":"error"}`), Rejected, 0},
		{"zoho", "seconds", told("30"), Throttled, 30 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.crm+"/"+test.name, func(t *testing.T) {
			t.Parallel()
			c := crmNamed(test.crm)
			w := c.open(t, sandbox.Options{}, "")
			if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
				t.Fatalf("%+v", r)
			}
			w.sent()
			test.fault.Path = c.api
			w.Fault(test.fault)
			results := w.sink.Write(within(t), Upsert, c.rows(5))
			for _, r := range results {
				if r.Class != test.class || r.Sent {
					t.Errorf("%+v", r)
				}
				if exact := test.wait >= 0; exact && r.RetryAfter != test.wait && r.Status != 0 || !exact && (r.RetryAfter <= 0 || r.RetryAfter > -test.wait) {
					t.Errorf("wait %s: %+v", r.RetryAfter, r)
				}
				checkWords(t, r)
			}
			if n := len(w.sent()); n != 1 {
				t.Errorf("%d requests: the others are not sent either", n)
			}
			if test.class == Throttled {
				if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != Throttled || r.Status != 0 || r.RetryAfter <= 0 || len(w.sent()) != 0 {
					t.Errorf("while it waits: %+v", r)
				}
			}
			if c := w.count(); c != 1 {
				t.Errorf("%d records", c)
			}
		})
	}
}

// What the CRM reports stops the sink before the CRM does.
func TestConformReports(t *testing.T) {
	t.Parallel()
	t.Run("a day of Salesforce", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("salesforce")
		now := time.Date(2026, 11, 21, 10, 20, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		limit := sandbox.SalesforceLimits()
		limit[0].Requests = 40
		w := c.openWith(t, sandbox.Options{Limits: limit, Now: clock, TokenLife: map[string]time.Duration{"salesforce": 100 * time.Hour}}, "", Options{Now: clock})
		// Others use up most of it, and 5 % are theirs.
		w.use(t, 30)
		w.sent()
		taken := 0
		var r Result
		for range 20 {
			if r = w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
				break
			}
			taken++
		}
		if taken != 8 || r.Class != Parked || r.Code != "budget" || r.RetryAfter != 15*time.Minute || len(w.sent()) != 8 {
			t.Errorf("%d requests, then %+v", taken, r)
		}
		// After the wait one request tries: nothing has been given back yet.
		now = now.Add(15 * time.Minute)
		first, second := w.sink.Write(within(t), Upsert, c.rows(1))[0], w.sink.Write(within(t), Upsert, c.rows(1))[0]
		if first.Class != OK || second.Class != Parked || len(w.sent()) != 1 {
			t.Errorf("%+v, %+v", first, second)
		}
		now = now.Add(24 * time.Hour)
		if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
			t.Errorf("a day later: %+v", r)
		}
	})
	t.Run("a day of Pipedrive", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("pipedrive")
		now := time.Date(2026, 11, 21, 22, 30, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		limits := sandbox.PipedriveLimits()[2:]
		limits[0].Requests = 103
		w := c.openWith(t, sandbox.Options{Limits: limits, Now: clock}, "find_lag: 0s\n", Options{Now: clock})
		row := c.row("1")
		r := w.sink.Write(within(t), Upsert, []Row{row})[0] // 20 and 5
		row.ID = r.ID
		for r.Class == OK {
			r = w.sink.Write(within(t), Update, []Row{row})[0] // 5
		}
		if r.Class != Parked || r.Code != "budget" || r.RetryAfter != time.Hour {
			t.Errorf("%+v", r)
		}
		if n := len(w.sent()); n != 17 {
			t.Errorf("%d requests of 103 tokens", n)
		}
		now = now.Add(90 * time.Minute)
		if r := w.sink.Write(within(t), Update, []Row{row})[0]; r.Class != OK {
			t.Errorf("the next day: %+v", r)
		}
	})
	t.Run("a day of HubSpot", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("hubspot")
		now := time.Date(2026, 11, 21, 10, 20, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		limits := sandbox.HubSpotLimits()[2:]
		limits[0].Requests = 20
		w := c.openWith(t, sandbox.Options{Limits: limits, Now: clock}, "", Options{Now: clock})
		var r Result
		for range 30 {
			if r = w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
				break
			}
		}
		if r.Class != Parked || r.Status != 0 || r.RetryAfter != time.Hour || len(w.sent()) != 20 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a burst of Pipedrive", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("pipedrive")
		now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		w := c.openWith(t, sandbox.Options{Limits: sandbox.PipedriveLimits()[:1], Now: clock}, "", Options{Now: clock})
		row := c.row("1")
		row.ID = w.Put(c.name, c.object, row.Values)
		var r Result
		for range 30 {
			if r = w.sink.Write(within(t), Update, []Row{row})[0]; r.Class != OK {
				break
			}
		}
		if r.Class != Throttled || r.Status != 0 || r.RetryAfter != 2*time.Second || len(w.sent()) != 19 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a larger account of HubSpot", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("hubspot")
		now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		limits := sandbox.HubSpotLimits()[:1]
		limits[0].Requests = 190
		w := c.serve(t, sandbox.Options{Limits: limits, Now: clock})
		w.sink = newSink(t, "preset: hubspot\nbase_url: "+w.url+"\n"+c.config, Options{Now: clock})
		taken := 0
		for start := now; now.Sub(start) < 20*time.Second; {
			switch r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; {
			case r.Class == OK:
				taken++
			case r.Status != 0:
				t.Fatalf("over the limit after %d: %+v", taken, r)
			}
			delay, _, undo := w.sink.limiter.reserve(Upsert)
			undo()
			now = now.Add(delay)
			if p := w.sink.limiter.pause(); p != nil {
				now = now.Add(p.wait)
			}
		}
		if taken < 280 {
			t.Errorf("%d requests in twenty seconds of an account that has 190 in ten", taken)
		}
	})
	t.Run("a day that the config knows", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("zoho")
		now := time.Date(2026, 11, 21, 10, 20, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		w := c.openWith(t, sandbox.Options{Now: clock, TokenLife: map[string]time.Duration{"zoho": 100 * time.Hour}},
			"budget: {units: 50, rolling: true, keep: 10}\n", Options{Now: clock})
		write := func() Result { return w.sink.Write(within(t), Upsert, c.rows(1))[0] }
		for range 20 {
			if r := write(); r.Class != OK {
				t.Fatalf("%+v", r)
			}
		}
		now = now.Add(12 * time.Hour)
		for range 20 {
			if r := write(); r.Class != OK {
				t.Fatalf("%+v", r)
			}
		}
		if r := write(); r.Class != Parked || r.RetryAfter != time.Hour || r.Status != 0 {
			t.Errorf("%+v", r)
		}
		now = now.Add(13 * time.Hour) // the first twenty do not count any more
		for range 20 {
			if r := write(); r.Class != OK {
				t.Fatalf("%+v", r)
			}
		}
		if r := write(); r.Class != Parked {
			t.Errorf("%+v", r)
		}
		if r := w.sink.Probe(within(t)); r.Class != OK {
			t.Errorf("a probe costs no budget: %+v", r)
		}
	})
}

// use sends requests of somebody else.
func (w *world) use(tb testing.TB, n int) {
	tb.Helper()
	other := w.c.connect(tb, w.url, "", Options{Now: w.sink.now})
	for range n {
		if r := other.Write(within(tb), Upsert, w.c.rows(1))[0]; r.Class != OK {
			tb.Fatalf("%+v", r)
		}
	}
}

// The limits that a preset knows are kept by pacing: the CRM never has to say no.
func TestConformPace(t *testing.T) {
	t.Parallel()
	limits := map[string][]sandbox.Limit{
		"attio": sandbox.AttioLimits(), "dataverse": sandbox.DataverseLimits()[:1], "hubspot": sandbox.HubSpotLimits(), "pipedrive": sandbox.PipedriveLimits()[:2],
	}
	eachCRM(t, func(t *testing.T, c *crm) {
		if limits[c.name] == nil {
			return // nothing per second
		}
		now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		w := c.serve(t, sandbox.Options{Limits: limits[c.name], Now: clock})
		text := "preset: " + c.name + "\nbase_url: " + w.url + "\nreports: []\nbudget: null\nfind_lag: 0s\n" + c.config
		if c.oauth {
			text = "preset: " + c.name + "\nbase_url: " + w.url + "\nauth: {tenant: acme, client_id: " + clientID + ", client_secret: " + clientKey +
				", token_url: \"" + w.url + "/{auth.tenant}/oauth2/v2.0/token\"}\n"
		}
		w.sink = newSink(t, text, Options{Now: clock})
		refused := 0
		for i := range 200 {
			op, rows := []Operation{Upsert, Find, Search}[i%3], c.rows(1)
			if op == Search {
				rows[0] = c.seeking("1", "x", "y")
				if w.sink.desc.CannotSearch(c.object, []string{c.required, c.field}) != "" {
					continue
				}
			}
			delay, _, undo := w.sink.limiter.reserve(op)
			if op == Upsert && w.sink.desc.operations[Upsert][0].through {
				undo()
				continue
			}
			now = now.Add(delay)
			undo()
			if r := w.sink.Write(within(t), op, rows)[0]; r.Status == 429 {
				refused++
			}
		}
		if refused > 0 {
			t.Errorf("%d requests were over the limit", refused)
		}
	})
}
