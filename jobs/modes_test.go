package jobs

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// notes appends the note of each deal once per key and note.
const notes = `
mappings:
  - name: notes
    on: shop.deal.updated
    to: crm
    object: notes
    mode: append
    key: {local: [event.key, event.name]}
    set: {hs_note_body: event.note, hs_timestamp: hook.occurred_at}
`

func TestAppendIsNotRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: notes})
	fates := r.deliver(
		deal("d1", 1, "name", "n1", "note", "first"),
		deal("d1", 2, "name", "n1", "note", "first, and again"), // the same note by our identity
		deal("d1", 3, "name", "n2", "note", "second"),
	)
	var got []ledger.Outcome
	for _, f := range fates {
		got = append(got, f.Outcome)
	}
	if diff := cmp.Diff([]ledger.Outcome{ledger.Delivered, ledger.Skipped, ledger.Delivered}, got); diff != "" {
		t.Error(diff)
	}
	if n := len(r.box.Records("hubspot", "notes")); n != 2 {
		t.Errorf("%d notes", n)
	}
	// A repeat of the job, as after a crash between the answer and its completion.
	if _, err := r.pool.Exec(r.context(), `UPDATE routes SET outcome = NULL WHERE event_id = $1`, fates[0].Event); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.queueAgain(fates[0].Event.String())
	r.start()
	r.ended(fates[0].Event)
	if n := len(r.box.Records("hubspot", "notes")); n != 2 {
		t.Errorf("%d notes after a repeat", n)
	}
}

// Whether a note was made nobody can tell after any answer that leaves it open: a second one would be worse than
// none. What is plainly refused, or was never sent, is tried again.
func TestAppendInDoubtIsDead(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		fault sandbox.Fault
		made  int
		says  string
	}{
		{"reset", sandbox.Fault{Effect: sandbox.EffectReset, Apply: true}, 1, "no answer to the create"},
		{"reset before", sandbox.Fault{Effect: sandbox.EffectReset}, 0, "no answer to the create"},
		{"truncated", sandbox.Fault{Effect: sandbox.EffectTruncate}, 1, "HTTP 201"},
		{"empty", sandbox.Fault{Effect: sandbox.EffectEmpty, Apply: true, Status: 201}, 1, "HTTP 201: unknown_answer: the answer is empty"},
		{"other JSON", sandbox.Fault{Effect: sandbox.EffectStatus, Apply: true, Status: 200, Body: `{"hello":"world"}`}, 1, "HTTP 200"},
		{"HTML", sandbox.Fault{Effect: sandbox.EffectHTML, Apply: true, Status: 200}, 1, "HTTP 200"},
		{"408", sandbox.Fault{Effect: sandbox.EffectStatus, Apply: true, Status: 408}, 1, "HTTP 408"},
		{"500", sandbox.Fault{Effect: sandbox.EffectStatus, Apply: true, Status: 500}, 1, "HTTP 500"},
		{"502", sandbox.Fault{Effect: sandbox.EffectStatus, Apply: true, Status: 502}, 1, "HTTP 502"},
		{"503", sandbox.Fault{Effect: sandbox.EffectStatus, Apply: true, Status: 503}, 1, "HTTP 503"},
		{"504", sandbox.Fault{Effect: sandbox.EffectStatus, Apply: true, Status: 504}, 1, "HTTP 504"},
		{"504, and late", sandbox.Fault{Effect: sandbox.EffectLate, Latency: 100 * time.Millisecond}, 1, "HTTP 504"},
		{"599", sandbox.Fault{Effect: sandbox.EffectStatus, Apply: true, Status: 599}, 1, "HTTP 599"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{mappings: notes})
			test.fault.Method, test.fault.Path, test.fault.Count = http.MethodPost, "notes", 1
			r.box.Fault(test.fault)
			f := r.deliver(deal("d1", 1, "name", "n1", "note", "first"))[0]
			if f.Outcome != ledger.Dead || !strings.Contains(f.Reason, test.says) || !strings.HasSuffix(f.Reason, "if not, run partnersync replay") {
				t.Errorf("%+v", f)
			}
			r.until("the CRM is done with it", func() bool { return len(r.box.Records("hubspot", "notes")) >= test.made })
			if n := len(r.box.Records("hubspot", "notes")); n != test.made {
				t.Errorf("%d notes", n)
			}
		})
	}
}

func TestAppendPlainlyRefusedIsRepeated(t *testing.T) {
	t.Parallel()
	for _, status := range []int{423, 429} {
		r := newRig(t, setup{mappings: notes})
		r.box.Fault(sandbox.Fault{Method: http.MethodPost, Path: "notes", Effect: sandbox.EffectStatus, Status: status, Count: 1})
		if f := r.deliver(deal("d1", 1, "name", "n1", "note", "first"))[0]; f.Outcome != ledger.Delivered {
			t.Errorf("%d: %+v", status, f)
		}
		if n := len(r.box.Records("hubspot", "notes")); n != 1 {
			t.Errorf("%d: %d notes", status, n)
		}
	}
}

// A create of a record whose key the CRM does not hold to be unique is such a one as well.
func TestCreateInDoubtIsDead(t *testing.T) {
	t.Parallel()
	const key = "0123456789abcdef0123456789abcdef01234567"
	r := newRig(t, setup{preset: "pipedrive", sinks: "    find_lag: 100ms\n", mappings: `
mappings:
  - name: deals
    on: shop.deal.updated
    to: crm
    object: deals
    mode: create_only
    key: {` + key + `: event.key}
    set: {title: event.name}
`, box: sandbox.Options{Custom: map[string][]sandbox.Property{"pipedrive/deals": {{Name: key}}}}})
	r.box.Fault(sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectStatus, Apply: true, Status: 504, Count: 1})
	f := r.deliver(deal("d1", 1, "name", "n1"))[0]
	if f.Outcome != ledger.Dead || !strings.HasSuffix(f.Reason, "if not, run partnersync replay") {
		t.Errorf("%+v", f)
	}
	if n := len(r.box.Records("pipedrive", "deals")); n != 1 {
		t.Errorf("%d deals", n)
	}
}

// A, then B, answered 503 though it was carried out, then A again: the CRM holds A in the end.
func TestUnavailableMayHaveBeenApplied(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]sandbox.Fault{
		"503, once":     {Header: http.Header{"Retry-After": {"3"}}, Count: 1}, // too long for a repeat within the process
		"503, twice":    {Count: 2},
		"503, then 429": {Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.deliver(deal("d1", 2, "name", "A"))
			first.Method, first.Effect, first.Status, first.Apply = http.MethodPost, sandbox.EffectStatus, 503, true
			r.box.Fault(first)
			stops := strings.HasSuffix(name, "429")
			if stops {
				r.box.Fault(sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectThrottle, RetryAfter: "3", Count: 1})
			}
			b := r.accept(deal("d1", 3, "name", "B"))[0]
			if stops {
				r.stopped("crm", throttled)
			} else {
				r.until("the answers are heard", func() bool { _, failures := r.attempts(b); return failures > 0 })
			}
			a := r.accept(deal("d1", 4, "name", "A"))[0]
			r.ended(a, b)
			if got := r.records("orders", "order_key")["d1"]["title"]; got != "A" {
				t.Errorf("the CRM holds %v, want A", got)
			}
		})
	}
}

const archiving = `
mappings:
  - name: companies
    on: [shop.company.created, shop.company.updated]
    to: crm
    object: companies
    key: {company_key: event.key}
    set: {name: event.name}
  - name: gone
    on: shop.company.deleted
    to: crm
    object: companies
    mode: archive
    key: {company_key: event.key}
`

func TestArchive(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: archiving})
	fates := r.deliver(
		shopEvent("company.deleted", "c0", 1),
		shopEvent("company.created", "c1", 1, "name", "Acme"),
		shopEvent("company.deleted", "c1", 2),
		shopEvent("company.deleted", "c1", 3),
		shopEvent("company.updated", "c1", 4, "name", "Acme Inc"),
	)
	want := []ledger.Outcome{ledger.Skipped, ledger.Delivered, ledger.Delivered, ledger.Unchanged, ledger.Skipped}
	for i, f := range fates {
		if f.Outcome != want[i] {
			t.Errorf("event %d: %+v", i, f)
		}
	}
	if n := len(r.box.Records("hubspot", "companies")); n != 0 {
		t.Errorf("%d companies", n)
	}
}

// What arrives together is archived after it was written, in whatever order it came.
func TestArchiveInOneBatch(t *testing.T) {
	t.Parallel()
	created, deleted := shopEvent("company.created", "c1", 1, "name", "Acme"), shopEvent("company.deleted", "c1", 2)
	for _, tt := range []struct {
		name string
		give []event
	}{
		{"in order", []event{created, deleted}},
		{"the other way round", []event{deleted, created}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{mappings: archiving, idle: true})
			var jobs []string
			for _, e := range tt.give { // a job each, in this order
				jobs = append(jobs, r.accept(e)[0].String())
			}
			r.oneJob(jobs...)
			r.start()
			r.until("all routes are closed", func() bool { return r.count(`routes WHERE outcome IS NULL`) == 0 })
			if n := r.count(`routes WHERE outcome = 'delivered'`); n != 2 {
				t.Errorf("%d delivered", n)
			}
			if n := len(r.box.Records("hubspot", "companies")); n != 0 {
				t.Errorf("%d companies stay", n)
			}
		})
	}
}

func TestUpdateOnly(t *testing.T) {
	t.Parallel()
	mapping := func(absent string) string {
		return archiving + `
  - name: renamed
    on: shop.deal.updated
    to: crm
    object: companies
    mode: update_only
    absent: ` + absent + `
    key: {company_key: event.company}
    set: {city: event.name}
`
	}
	for _, tt := range []struct {
		absent string
		want   ledger.Outcome
		city   any // of the company, once it comes
	}{
		{"hold", ledger.Skipped, "Toronto"},
		{"skip", ledger.Skipped, nil},
		{"dead", ledger.Dead, "Toronto"},
	} {
		t.Run(tt.absent, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{mappings: mapping(tt.absent)})
			fates := r.deliver(deal("d1", 5, "company", "c1", "name", "Toronto"))
			if f := fates[0]; f.Outcome != tt.want || f.Deliveries[0].Status == 0 {
				t.Errorf("%+v", f)
			}
			if n := len(r.box.Records("hubspot", "companies")); n != 0 {
				t.Errorf("%d companies were made", n)
			}
			r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
			if tt.absent != "dead" { // what a dead delivery wants may come along or not
				if got := r.records("companies", "company_key")["c1"]["city"]; got != tt.city {
					t.Errorf("city %v, want %v", got, tt.city)
				}
			}
			if f := r.deliver(deal("d1", 6, "company", "c1", "name", "Paris"))[0]; f.Outcome != ledger.Delivered {
				t.Errorf("%+v", f)
			}
			if got := r.records("companies", "company_key")["c1"]["city"]; got != "Paris" {
				t.Errorf("city %v", got)
			}
		})
	}
}

// A record that one mapping only updates and another makes is made.
func TestUpdateOnlyBesideUpsert(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, mappings: archiving + `
  - name: renamed
    on: shop.deal.updated
    to: crm
    object: companies
    mode: update_only
    key: {company_key: event.company}
    set: {city: event.name}
`})
	ids := r.acceptPerJob(2, shopEvent("company.created", "c1", 1, "name", "Acme"), deal("d1", 2, "company", "c1", "name", "Toronto"))
	r.start()
	for _, f := range r.ended(ids...) {
		if f.Outcome != ledger.Delivered {
			t.Errorf("%+v", f)
		}
	}
	if got := r.records("companies", "company_key")["c1"]; got["name"] != "Acme" || got["city"] != "Toronto" {
		t.Errorf("the CRM holds %v", got)
	}
}

func TestCreateOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: `
mappings:
  - name: people
    on: shop.deal.updated
    to: crm
    object: contacts
    mode: create_only
    key: {email: event.key}
    set: {firstname: event.name}
`})
	theirs := r.box.Put("hubspot", "contacts", map[string]any{"email": "b@acme.test", "firstname": "theirs"})
	fates := r.deliver(
		deal("a@acme.test", 1, "name", "ours"),
		deal("a@acme.test", 2, "name", "later"),
		deal("B@acme.test", 1, "name", "ours"),
		deal("b@acme.test", 2, "name", "later"),
	)
	var got []ledger.Outcome
	for _, f := range fates {
		got = append(got, f.Outcome)
	}
	if want := []ledger.Outcome{ledger.Delivered, ledger.Skipped, ledger.Skipped, ledger.Skipped}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	records := r.records("contacts", "email")
	if records["a@acme.test"]["firstname"] != "ours" || records["b@acme.test"]["firstname"] != "theirs" || len(records) != 2 {
		t.Errorf("the CRM holds %v", records)
	}
	if id := fates[3].Deliveries[0].CRMID; id != theirs {
		t.Errorf("the record in the way is %q, not %q", id, theirs)
	}
}

// What is appended and conflicts with something that the CRM does not name would conflict for ever.
func TestAppendInConflictIsDead(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: notes})
	r.box.Refuse(sandbox.Refusal{Dialect: "hubspot", Object: "notes", Code: "CONFLICT", Message: "in the way"})
	f := r.deliver(deal("d1", 1, "name", "n1", "note", "first"))[0]
	if f.Outcome != ledger.Dead || !strings.Contains(f.Reason, "in the way") {
		t.Errorf("%+v", f)
	}
	if n := len(r.writes("/notes/")); n != 1 {
		t.Errorf("%d requests", n)
	}
}
