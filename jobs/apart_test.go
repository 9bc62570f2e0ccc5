package jobs

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/sinks"
)

// A conflict blocks the field at fault alone: the rest of the row arrives, and so does what later
// events want of it.
func TestConflictBlocksItsFieldAlone(t *testing.T) {
	t.Parallel()
	s := peopleSetup()
	r := newRig(t, s)
	r.deliver(deal("p1", 1, "note", "old@acme.test", "name", "Silver"))
	r.deliver(deal("p2", 1, "note", "new@acme.test", "name", "Other"))
	fates := r.deliver(
		deal("p1", 2, "note", "new@acme.test", "name", "Gold"),
		deal("p1", 3, "note", "old@acme.test", "name", "Gold"),
		deal("p1", 4, "note", "new@acme.test", "name", "Gold", "description", "Doe"),
	)
	// The answer names no field, but HubSpot has such conflicts for one alone: the rest arrives at once.
	if f := fates[0]; f.Outcome != ledger.Dead || !strings.HasSuffix(f.Reason, `: field "email": the rest was sent without it`) {
		t.Errorf("%+v", f)
	}
	for _, f := range fates[1:] {
		if f.Outcome == ledger.Unchanged && strings.Contains(f.Reason, "refused") {
			t.Errorf("%+v", f)
		}
	}
	for _, rec := range r.box.Records("hubspot", "contacts") {
		if rec.Properties["contact_key"] == "p1" && (rec.Properties["firstname"] != "Gold" || rec.Properties["email"] != "old@acme.test") {
			t.Errorf("%+v", rec.Properties)
		}
	}
}

// So it is where the answer does not tell who has the address: after another try the rest is sent
// without it. What no field explains is tried again, and counted.
func TestConflictWithNobody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		message string
		outcome ledger.Outcome
		name    any
	}{
		{"Contact already exists", ledger.Dead, "Gold"},
		{"Something is in the way", ledger.Open, "Silver"},
	} {
		s := newSolo(t, peopleSetup(), "crm")
		s.do(deal("p1", 1, "note", "old@acme.test", "name", "Silver"))
		s.box.Refuse(sandbox.Refusal{Dialect: "hubspot", Object: "contacts", Property: "email", Value: "new@acme.test", Code: "CONFLICT", Message: tt.message})
		id := s.accept(deal("p1", 2, "note", "new@acme.test", "name", "Gold"))[0]
		s.run(id)
		f := s.fates(id)[id]
		if f.Outcome != tt.outcome || f.Deliveries[0].Attempts != 1 {
			t.Errorf("%s: %+v", tt.message, f)
		}
		if got := s.records("contacts", "contact_key")["p1"]; got["firstname"] != tt.name || got["email"] != "old@acme.test" {
			t.Errorf("%s: the CRM holds %v", tt.message, got)
		}
	}
}

// An answer that names several fields blocks all of them: the rest goes out with the next request.
func TestSeveralFieldsAreRefused(t *testing.T) {
	t.Parallel()
	mappings := strings.Replace(deals, "      description: event.description\n", "      description: event.description\n      u1: event.note\n      u2: event.note\n      u3: event.note\n      u4: event.note\n      u5: event.note\n      u6: event.note\n", 1)
	r := newRig(t, setup{mappings: mappings})
	f := r.deliver(deal("d1", 1, "name", "n", "stage", "platinum", "amount", 7, "note", "x"))[0]
	d := f.Deliveries[0]
	if f.Outcome != ledger.Dead || d.Attempts != 1 || strings.Count(d.Reason, "HTTP 207") != 1 || !strings.HasSuffix(d.Reason, ": the rest was sent without it") {
		t.Errorf("%+v", f)
	}
	if n := len(r.writes("/orders/batch")); n != 2 {
		t.Errorf("%d requests", n)
	}
	if got := r.records("orders", "order_key")["d1"]; got["title"] != "n" || got["amount"] != "7" || got["tier"] != nil {
		t.Errorf("the CRM holds %v", got)
	}
	// None of them comes along with later events.
	later := r.deliver(deal("d1", 2, "name", "m", "stage", "platinum", "amount", 7, "note", "x"))[0]
	if later.Outcome != ledger.Delivered || !strings.Contains(later.Reason, "without tier, u1, u2, u3, u4, u5, u6, which the CRM refused of event "+f.Event.String()) {
		t.Errorf("%+v", later)
	}
}

// What two events want together is not lost when the later one is refused: the record is made
// with what the earlier one wants. It ends as if one had come after the other.
func TestRefusedUpdateLeavesTheCreate(t *testing.T) {
	t.Parallel()
	for _, together := range []bool{true, false} {
		for _, reversed := range []bool{false, true} {
			r := newRig(t, setup{idle: together})
			events := []event{
				shopEvent("deal.created", "d1", 1, "name", "n", "amount", 5, "stage", "gold"),
				deal("d1", 2, "name", "n", "amount", 6, "stage", "platinum"),
			}
			if reversed {
				events[0], events[1] = events[1], events[0]
			}
			var reasons []string
			if together {
				ids := r.acceptPerJob(9, events...)
				r.start()
				for _, f := range r.ended(ids...) {
					reasons = append(reasons, string(f.Outcome)+" "+f.Reason)
				}
			} else {
				for _, f := range r.deliver(events...) {
					reasons = append(reasons, string(f.Outcome)+" "+f.Reason)
				}
			}
			got := r.records("orders", "order_key")["d1"]
			if got["title"] != "n" || got["tier"] != "gold" || got["amount"] != "6" {
				t.Errorf("together %v, reversed %v: the CRM holds %v, %q", together, reversed, got, reasons)
			}
			for _, reason := range reasons {
				if strings.HasPrefix(reason, "dead") && !strings.Contains(reason, "INVALID_OPTION") {
					t.Errorf("the reason of %q is another's", reason)
				}
			}
			r.stop()
		}
	}
}

// A later event that goes out without a field which was refused before says so.
func TestDeliveredWithoutSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	fates := r.deliver(
		deal("d1", 1, "name", "n", "amount", 1),
		deal("d1", 2, "amount", 2, "stage", "platinum"),
		deal("d1", 3, "amount", 3, "stage", "platinum"),
	)
	if f := fates[1]; f.Outcome != ledger.Dead || !strings.Contains(f.Reason, "the rest was sent without it") {
		t.Errorf("%+v", f)
	}
	if f := fates[2]; f.Outcome != ledger.Delivered || f.Reason != "without tier, which the CRM refused of event "+fates[1].Event.String() {
		t.Errorf("%+v", f)
	}
	if got := r.records("orders", "order_key")["d1"]; got["amount"] != "3" || got["tier"] != nil {
		t.Errorf("%v", got)
	}
}

// Where a refusal names no field, nothing is refused for good: the next event tries again.
func TestUnnamedRefusalIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.deliver(deal("d1", 1, "name", "n"))
	lift := r.box.Fault(sandbox.Fault{Path: "/orders/batch", Effect: sandbox.EffectStatus, Status: 400, Body: `{"status":"error","category":"VALIDATION_ERROR","message":"a rule of the portal"}`})
	if f := r.deliver(deal("d1", 2, "name", "m"))[0]; f.Outcome != ledger.Dead {
		t.Errorf("%+v", f)
	}
	lift()
	if f := r.deliver(deal("d1", 3, "amount", 5))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if got := r.records("orders", "order_key")["d1"]; got["title"] != "m" || got["amount"] != "5" {
		t.Errorf("%v", got)
	}
}

// Rows and links answer the same refusal, throttle and failure in one way.
func TestOneAnswerLogic(t *testing.T) {
	t.Parallel()
	refusal := `{"status":"error","category":"VALIDATION_ERROR","message":"no"}`
	for _, tt := range []struct {
		name  string
		fault sandbox.Fault
		want  ledger.Outcome
		class string
	}{
		{"expected refusal", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 400, Body: refusal}, ledger.Skipped, "expected"},
		{"throttled", sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "30"}, ledger.Open, "throttled"},
		{"failure", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 500}, ledger.Open, "unavailable"},
	} {
		for _, path := range []string{"/orders/batch", "/associations/"} {
			t.Run(tt.name+path, func(t *testing.T) {
				t.Parallel()
				mappings := strings.Replace(linked(""), "    links:\n", "    on_reject: {VALIDATION_ERROR: skip}\n    links:\n", 1)
				s := newSolo(t, setup{mappings: mappings}, "crm")
				s.owner.breaker.silence = time.Hour // failures count
				s.do(shopEvent("company.created", "c1", 1, "name", "a"))
				fault := tt.fault
				fault.Path = path
				s.box.Fault(fault)
				id := s.accept(deal("d1", 1, "name", "n", "company", "c1"))[0]
				s.run(id)
				f := s.fates(id)[id]
				if f.Outcome != tt.want || len(f.Deliveries) != 1 {
					t.Fatalf("%+v", f)
				}
				d := f.Deliveries[0]
				status := map[string]int32{"expected": 400, "throttled": 429, "unavailable": 500}[tt.class]
				if d.Class != tt.class || d.Status != status || !strings.Contains(d.Reason, "HTTP") || tt.class == "unavailable" && d.Attempts != 1 {
					t.Errorf("%+v", d)
				}
			})
		}
	}
}

// Sales delete a firm: a link to it marks it gone, and `missing` decides.
func TestLinkToWhatIsGone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		missing, firmGone string
		want              ledger.Outcome
		reason            string
		links             []string
	}{
		{"skip", "skip", ledger.Delivered, `the firms with firm_key "c1" was deleted in the CRM`, nil},
		{"create", "skip", ledger.Delivered, "", []string{"d1>c1"}},
		{"retry, for: 1ms", "skip", ledger.Dead, `the firms with firm_key "c1" was deleted in the CRM`, nil},
	} {
		t.Run(tt.missing, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{mappings: linked(", missing: " + tt.missing)})
			r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
			r.box.Archive("hubspot", "firms", r.box.Records("hubspot", "firms")[0].ID)
			f := r.deliver(deal("d1", 2, "name", "n", "company", "c1"))[0]
			if f.Outcome != tt.want || !strings.Contains(f.Reason, tt.reason) {
				t.Errorf("%+v", f)
			}
			if got := r.records("orders", "order_key"); got["d1"]["title"] != "n" {
				t.Errorf("%v", got)
			}
			r.wantLinks(tt.links...)
			if n := r.count(`records WHERE object = 'firms' AND presence = 'gone'`); (n == 1) != (tt.links == nil) {
				t.Errorf("%d firms are known to be gone", n)
			}
		})
	}
}

// What only waits is not delayed by what fails in the same job.
func TestFatesOfOneJobAreApart(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: linked("") + `
  - name: failing
    on: shop.company.deleted
    to: crm
    object: companies
    key: {company_key: event.key}
    set: {name: event.name}
`, idle: true})
	r.box.Fault(sandbox.Fault{Path: "/companies/batch", Effect: sandbox.EffectStatus, Status: 500})
	ids := r.acceptPerJob(9, shopEvent("company.deleted", "bad", 1, "name", "b"), deal("good", 1, "name", "n", "company", "c1"))
	r.start()
	r.until("one has failed twice, the other waits", func() bool {
		_, failures := r.attempts(ids[0])
		f := r.fates(ids[1])[ids[1]]
		return failures >= 2 && len(f.Deliveries) == 1 && strings.Contains(f.Deliveries[0].Reason, "is known yet")
	})
	r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
	if f := r.ended(ids[1])[ids[1]]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if f := r.fates(ids[0])[ids[0]]; f.Outcome != ledger.Open {
		t.Errorf("%+v", f)
	}
	if n := r.count(`river_job WHERE state NOT IN ('completed', 'cancelled', 'discarded') AND args->'event_ids' ? '` + ids[1].String() + `'`); n > 2 {
		t.Errorf("%d jobs for one event", n)
	}
}

// A panic while sending costs its request, not the process, and puts no value into the log.
func TestPanicWhileSending(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{}, "crm")
	panics := true
	s.sink = sinks.New(s.config.Sinks["crm"], sinks.Options{Transport: roundTripper(func(q *http.Request) (*http.Response, error) {
		if q.Method == http.MethodPost && panics {
			panic("a private value")
		}
		return http.DefaultTransport.RoundTrip(q)
	})})
	t.Cleanup(s.sink.Close)
	s.plan.Sinks["crm"] = s.sink
	id := s.accept(deal("d1", 1, "name", "n"))[0]
	s.run(id)
	if f := s.fates(id)[id]; f.Outcome != ledger.Open || len(f.Deliveries) != 1 || f.Deliveries[0].Class != "unavailable" {
		t.Fatalf("%+v", f)
	}
	if log := s.log.String(); strings.Contains(log, "a private value") || !strings.Contains(log, "a request panicked") {
		t.Error(log)
	}
	if panics = false; len(s.owner.locks.blocked) == 0 {
		t.Error("nothing is in doubt")
	}
	s.owner.locks = newLocks() // as if it had settled
	s.run(id)
	if f := s.fates(id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }
