package jobs

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/sinks/sandbox"
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

// Whether a note was made before the connection broke nobody can tell: a second one would be worse than none.
func TestAppendInDoubtIsDead(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: notes})
	r.box.Fault(lost())
	f := r.deliver(deal("d1", 1, "name", "n1", "note", "first"))[0]
	if f.Outcome != ledger.Dead || !strings.Contains(f.Reason, "no answer to the create") {
		t.Errorf("%+v", f)
	}
	if n := len(r.box.Records("hubspot", "notes")); n != 1 {
		t.Errorf("%d notes", n)
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
