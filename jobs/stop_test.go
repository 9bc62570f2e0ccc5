package jobs

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/sinks"
)

// many accepts an update of each of n deals.
func (r *rig) many(n int, at int64) []uuid.UUID {
	r.t.Helper()
	var events []event
	for i := range n {
		events = append(events, deal(fmt.Sprint("d", i), at, "name", fmt.Sprint("name ", at), "amount", i))
	}
	return r.accept(events...)
}

// stopped waits until a sink has stopped, in the database and in the metric, and
// its queue is paused.
func (r *rig) stopped(sink, state string) ledger.SinkState {
	r.t.Helper()
	r.until("the sink is "+state, func() bool {
		return r.stored(sink).State == state && r.metric("sink_state", "sink", sink, "state", state) == 1 && r.count("river_queue WHERE paused_at IS NOT NULL AND name = 'sink_"+sink+"'") == 1
	})
	if got := r.metric("sink_state", "sink", sink, "state", "ready"); got != 0 {
		r.t.Errorf("the sink is ready too")
	}
	return r.stored(sink)
}

// unburned fails where an attempt has been counted, by River or by us. All jobs
// have to be at rest.
func (r *rig) unburned(ids ...uuid.UUID) {
	r.t.Helper()
	r.until("no job runs", func() bool { return r.count(`river_job WHERE state = 'running'`) == 0 })
	if n := r.count(`river_job WHERE errors IS NOT NULL OR attempt > 1 OR attempt > 0 AND state <> 'completed'`); n != 0 {
		r.t.Errorf("%d jobs have burned an attempt", n)
	}
	if n := r.count(`deliveries WHERE attempts > 0`); n != 0 {
		r.t.Errorf("%d deliveries have burned an attempt", n)
	}
	if n := len(r.fates(ids...)); n != len(ids) {
		r.t.Errorf("%d routes of %d", n, len(ids))
	}
}

// arrived waits until all events of many have been delivered.
func (r *rig) arrived(ids ...uuid.UUID) {
	r.t.Helper()
	for id, f := range r.ended(ids...) {
		if f.Outcome != ledger.Delivered {
			r.t.Errorf("%s: %+v", id, f)
		}
	}
	if got := r.records("orders", "order_key"); len(got) != len(ids) {
		r.t.Errorf("%d records for %d events", len(got), len(ids))
	}
}

// Invariant 5: 429 with Retry-After 120 burns no attempt, loses nothing, and the wait is visible; it outlives the process.
func TestThrottled(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	lift := r.box.Fault(sandbox.Fault{Effect: sandbox.EffectThrottle, Policy: "TEN_SECONDLY_ROLLING", RetryAfter: "120"})
	before := time.Now()
	ids := r.many(30, 1)
	r.stopped("crm", throttled)
	r.until("the reason is what the CRM said", func() bool { return strings.Contains(r.stored("crm").Reason, "HTTP 429") })
	s := r.stored("crm")
	if s.Until.Before(before.Add(119*time.Second)) || s.Until.After(time.Now().Add(150*time.Second)) {
		t.Errorf("the sink waits until %v, asked at %v", s.Until, before)
	}
	r.unburned(ids...)
	if n := len(r.writes("/orders")); n > 4 { // those under way together
		t.Errorf("%d requests to a sink that wants to be left alone", n)
	}
	r.stop()
	if n := r.count(`routes WHERE outcome IS NULL`); n != 30 {
		t.Errorf("%d open routes", n)
	}

	lift()
	if _, err := r.pool.Exec(r.context(), `UPDATE sinks SET until = now()`); err != nil { // the time has passed
		t.Fatal(err)
	}
	r.start()
	r.arrived(ids...)
	r.unburned(ids...)
	r.until("the sink is ready", func() bool { return r.stored("crm").State == ready })
}

// A wait that ends by time while the process is up: everything goes on by itself.
func TestThrottleEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.box.Fault(sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "3", Count: 1})
	ids := r.many(5, 1)
	r.until("the sink is throttled", func() bool { return strings.Contains(r.log.String(), "state="+throttled) })
	r.arrived(ids...)
	r.unburned(ids...)
	r.until("the sink is ready", func() bool {
		return r.stored("crm").State == ready && r.count("river_queue WHERE paused_at IS NOT NULL") == 0
	})
}

// Refused credentials hold the sink; new ones, by a reload, let it go on at once.
func TestHeldUntilNewCredentials(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{options: Options{ProbeEvery: time.Hour}})
	r.box.SetToken("another token")
	ids := r.many(10, 1)
	s := r.stopped("crm", held)
	if !strings.HasPrefix(s.Reason, "the token of sink crm was refused: HTTP 401") || strings.Contains(s.Reason, token) {
		t.Errorf("reason %q", s.Reason)
	}
	r.unburned(ids...)
	r.reload(r.text) // the credentials are the same
	r.until("it has probed", func() bool { return strings.Contains(r.log.String(), "probe failed") })
	r.unburned(ids...)
	r.token = "another token"
	r.reload(r.text)
	r.arrived(ids...)
	r.unburned(ids...)
}

// A daily quota that is gone parks the sink until the reset.
func TestDailyQuota(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.box.Fault(sandbox.Fault{Effect: sandbox.EffectThrottle, Policy: "DAILY"})
	ids := r.many(10, 1)
	s := r.stopped("crm", parked)
	if s.Until.IsZero() || time.Until(s.Until) > time.Hour+time.Minute {
		t.Errorf("parked until %v", s.Until)
	}
	r.unburned(ids...)
}

// A CRM that is down for a while costs counted attempts, and then everything arrives.
func TestUnavailableForAWhile(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	lift := r.box.Fault(sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectStatus, Status: 503})
	ids := r.accept(deal("d1", 1, "name", "n"))
	r.until("an attempt has failed", func() bool {
		return r.count(`deliveries WHERE attempts > 0 AND outcome IS NULL AND class = 'unavailable'`) == 1
	})
	r.until("River has counted a failure", func() bool {
		_, failures := r.attempts(ids...)
		return failures > 0
	})
	lift()
	r.arrived(ids...)
	if n := r.count(`deliveries WHERE attempts = 0`); n != 0 {
		t.Error("no attempt was counted")
	}
	if n := len(r.writes("/orders")); n < 2 {
		t.Errorf("%d requests", n)
	}
}

// Deliveries that fail for too long are dead.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{options: Options{GiveUp: 500 * time.Millisecond}})
	r.box.Fault(sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectStatus, Status: 500})
	f := r.deliver(deal("d1", 1, "name", "n"))[0]
	if f.Outcome != ledger.Dead || !strings.HasPrefix(f.Reason, "gave up after 2 attempts: HTTP 500") {
		t.Errorf("%+v", f)
	}
}

// An answer that is lost after the CRM has carried out the request: nobody touches
// the record before it has settled, no second one is made, and the newest values win.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.box.Fault(lost())
	r.box.Fault(sandbox.Fault{Contains: `"d1"`}) // does nothing, but marks the request in the log
	first := r.accept(deal("d1", 1, "name", "one", "amount", 1))
	r.until("the request has come, whose answer is lost", func() bool { return len(r.writes("/orders")) > 0 })
	second := r.accept(deal("d1", 2, "name", "two"))
	other := r.accept(deal("d2", 1, "name", "untouched by this"))
	for _, f := range r.ended(append(append(first, second...), other...)...) {
		if f.Outcome != ledger.Delivered {
			t.Errorf("%+v", f)
		}
	}
	records := r.records("orders", "order_key")
	if len(records) != 2 || len(r.box.Records("hubspot", "orders")) != 2 || records["d1"]["title"] != "two" || records["d1"]["amount"] != "1" {
		t.Errorf("the CRM holds %v", records)
	}
	var again int
	writes := r.writes("/orders")
	for _, w := range writes[1:] {
		if w.Fault != sandbox.EffectNone {
			continue // of the other record, which need not wait
		}
		again++
		if after := w.Time.Sub(writes[0].Time); after < r.plan.Sinks["crm"].Settle() {
			t.Errorf("the record was written again %v after the lost answer", after)
		}
	}
	if again == 0 {
		t.Error("the record was not written again")
	}
}

// A sink that answers nobody is parked after a while, and costs no further attempts; it goes on by itself when it is back.
func TestAnswersNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{options: Options{Silence: 500 * time.Millisecond, ProbeEvery: 300 * time.Millisecond}})
	lift := r.box.Fault(sandbox.Fault{Effect: sandbox.EffectReset})
	ids := r.many(5, 1)
	s := r.stopped("crm", parked)
	if !strings.HasPrefix(s.Reason, "answers nobody: ") {
		t.Errorf("reason %q", s.Reason)
	}
	if n := r.count(`deliveries WHERE attempts > 1`); n != 0 {
		t.Errorf("%d deliveries have burned more than one attempt", n)
	}
	r.until("it is probed in vain", func() bool { return strings.Contains(r.log.String(), "probe failed") })
	lift()
	r.arrived(ids...)
	if n := r.count(`deliveries WHERE attempts > 1`); n != 0 {
		t.Errorf("%d deliveries have burned more than one attempt", n)
	}
}

const archived = `
  archive:
    preset: webhook
    url: %s/webhook/in
    settle: 300ms
`

// bothSinks sends deals to the CRM and to a webhook.
func bothSinks(t testing.TB, o Options) *rig {
	r := newRig(t, setup{options: o, idle: true})
	r.text = strings.Replace(r.text, "\nmappings:", fmt.Sprintf(archived, r.crm.URL)+"\nmappings:", 1) + `
  - name: copies
    on: shop.deal.updated
    to: archive
    object: deals
    key: {id: event.key}
    set: {name: event.name}
`
	r.load(r.text)
	r.start()
	return r
}

// Invariant 3: a sink that is down does not slow another.
func TestOneSinkDown(t *testing.T) {
	t.Parallel()
	r := bothSinks(t, Options{})
	r.box.Fault(sandbox.Fault{Dialect: "hubspot", Effect: sandbox.EffectNone, Latency: time.Minute}) // hangs until its timeout
	var events []event
	for i := range 200 {
		events = append(events, deal(fmt.Sprint("d", i), 1, "name", "n"))
	}
	r.accept(events...)
	r.until("the other sink has everything", func() bool { return r.count(`routes WHERE sink = 'archive' AND outcome = 'delivered'`) == 200 })
	if n := r.count(`routes WHERE sink = 'crm' AND outcome IS NULL`); n != 200 {
		t.Errorf("%d of the routes to the sink that hangs are open", n)
	}
	if n := len(r.box.Hooks()); n != 200 {
		t.Errorf("%d bodies", n)
	}
	if state := r.stored("archive").State; state != ready {
		t.Errorf("the other sink is %s", state)
	}
	r.box.Reset() // lets go of what hangs
}

// Probes and stops never touch a sink that somebody has stopped by hand.
func TestStoppedByHand(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, options: Options{ProbeEvery: time.Millisecond}})
	if err := r.ledger.SetSinkState(r.context(), "crm", ledger.SinkState{State: stopped, Reason: "by hand"}); err != nil {
		t.Fatal(err)
	}
	r.start()
	ids := r.many(3, 1)
	r.stopped("crm", stopped)
	r.reload(r.text)
	r.unburned(ids...)
	if s := r.stored("crm"); s.State != stopped || s.Reason != "by hand" || len(r.writes("/orders")) != 0 {
		t.Errorf("%+v", s)
	}
}

// Every class that a sink can answer has a decision.
func TestEveryClassHasADecision(t *testing.T) {
	t.Parallel()
	for _, class := range sinks.Classes() {
		g := &breaker{state: ledger.SinkState{State: ready}, changed: make(chan struct{}, 1), silence: time.Minute}
		counts := g.observe(class, "")
		failing := class == sinks.Unavailable || class == sinks.Timeout || class == sinks.Network
		if !counts {
			t.Errorf("%s does not count at first", class)
		}
		if failing != !g.since.IsZero() {
			t.Errorf("%s: counted as silence: %v", class, !g.since.IsZero())
		}
	}
}

// A sink whose credentials may write, but not ask who they are, stops and comes back like any other.
func TestComesBackThoughItMayNotAsk(t *testing.T) {
	t.Parallel()
	tests := []struct {
		preset, whoami, custom string
		box                    sandbox.Options
		stops                  sandbox.Fault
		state                  string
	}{
		{preset: "salesforce", whoami: "userinfo", stops: sandbox.Fault{Method: http.MethodPatch, Effect: sandbox.EffectStatus, Status: 503}, state: parked},
		{preset: "salesforce", whoami: "userinfo", stops: sandbox.Fault{Method: http.MethodPatch, Effect: sandbox.EffectStatus, Status: 403}, state: held},
		{preset: "hubspot", whoami: "account-info", stops: sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectStatus, Status: 503}, state: parked},
		{preset: "hubspot", whoami: "account-info", stops: sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectStatus, Status: 401}, state: held},
	}
	for _, test := range tests {
		t.Run(test.preset+" "+test.state, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{preset: test.preset, options: Options{Silence: 500 * time.Millisecond, ProbeEvery: 100 * time.Millisecond},
				box: sandbox.Options{Custom: map[string][]sandbox.Property{"salesforce/orders": {
					{Name: "order_key", Unique: true}, {Name: "title"}, {Name: "amount", Type: "number"}, {Name: "tier"}, {Name: "description"},
					{Name: "first_partner"}, {Name: "last_synced"}}}}})
			r.box.Fault(sandbox.Fault{Path: test.whoami, Effect: sandbox.EffectStatus, Status: 403, Body: `{"category":"MISSING_SCOPES"}`})
			lift := r.box.Fault(test.stops)
			id := r.accept(deal("d1", 1, "name", "n"))[0]
			r.until("the sink has stopped", func() bool { return strings.Contains(r.log.String(), "state="+test.state) })
			lift()
			if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
				t.Errorf("%+v", f)
			}
		})
	}
}

// A scope that is missing holds the sink, and the reason names it; so do credentials that give no token.
func TestHeldForWhat(t *testing.T) {
	t.Parallel()
	tests := []struct {
		preset string
		fault  sandbox.Fault
		missed []string
		says   string
	}{
		{preset: "hubspot", missed: []string{"crm.objects.custom.write"},
			says: "HTTP 403: MISSING_SCOPES: One or more of the following scopes are required: crm.objects.custom.write"},
		{preset: "salesforce", fault: sandbox.Fault{Path: "/token", Effect: sandbox.EffectStatus, Status: 400, Body: `{"error":"invalid_client","error_description":"invalid client credentials"}`},
			says: "the credentials of sink crm were refused: HTTP 400: invalid_client"},
	}
	for _, test := range tests {
		r := newRig(t, setup{preset: test.preset, options: Options{ProbeEvery: time.Hour}, box: sandbox.Options{MissingScopes: test.missed}})
		if test.fault.Path != "" {
			r.box.Fault(test.fault)
		}
		r.accept(deal("d1", 1, "name", "n"))
		r.until("it is held", func() bool { return r.stored("crm").State == held })
		if s := r.stored("crm"); !strings.HasPrefix(s.Reason, test.says) {
			t.Errorf("%s: %q", test.preset, s.Reason)
		}
	}
}

// Credentials of another account hold the sink: what is known of its records is not true there.
func TestAnotherAccountHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{options: Options{ProbeEvery: 50 * time.Millisecond}})
	first := r.accept(deal("d1", 1, "name", "n"))[0]
	r.ended(first)
	r.box.SetAccount(99)
	r.reload(r.text) // other credentials, so to speak
	id := r.accept(deal("d1", 2, "name", "m"))[0]
	if s := r.stopped("crm", "held"); !strings.Contains(s.Reason, "account 99") {
		t.Errorf("reason %q", s.Reason)
	}
	r.unburned(first, id)
	r.box.SetAccount(62515)
	if f := r.ended(first, id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
}
