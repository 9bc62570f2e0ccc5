package jobs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// staged are contacts whose lifecycle stage HubSpot does not let go back, and says nothing.
const staged = `
mappings:
  - name: people
    on: [shop.deal.created, shop.deal.updated]
    to: crm
    object: contacts
    key: {contact_key: event.key}
    set: {lifecyclestage: event.stage, firstname: event.name}
`

// A value is acknowledged where the CRM shows it. What it keeps in its place is told, and is not
// sent over and over; another value is.
func TestKeptValue(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: staged})
	const note = "the CRM keeps another value of lifecyclestage"
	steps := []struct {
		stage, name string
		outcome     ledger.Outcome
		reason      string
		kept        any
		requests    int
	}{
		{"opportunity", "Ann", ledger.Delivered, "", nil, 1},
		{"lead", "Anna", ledger.Delivered, note, "opportunity", 1},
		{"lead", "Anna", ledger.Skipped, note, "opportunity", 0},
		{"lead", "Annabel", ledger.Delivered, note, "opportunity", 1},
		{"subscriber", "Annabel", ledger.Delivered, note, "opportunity", 1},
		{"customer", "Annabel", ledger.Delivered, "", nil, 1},
	}
	var last uuid.UUID
	for i, s := range steps {
		before := len(r.writes("/contacts/batch"))
		f := r.deliver(deal("p1", int64(i+1), "stage", s.stage, "name", s.name))[0]
		last = f.Event
		if d := f.Deliveries[0]; f.Outcome != s.outcome || d.Reason != s.reason || (d.Class == "kept") != (s.outcome == ledger.Skipped) {
			t.Errorf("event %d: %+v", i, f)
		}
		if n := len(r.writes("/contacts/batch")) - before; n != s.requests {
			t.Errorf("event %d: %d requests", i, n)
		}
		stories, err := r.ledger.Why(r.context(), "crm", "contacts", []string{"p1"}, patience)
		if err != nil || len(stories) != 1 {
			t.Fatal(stories, err)
		}
		field := stories[0].Record.Fields["lifecyclestage"]
		var kept any
		if field.Kept != nil {
			kept = field.Kept.Go
		}
		if diff := cmp.Diff(s.kept, kept); diff != "" || field.AckedAt.IsZero() != (s.kept != nil) {
			t.Errorf("event %d: %s\n%+v", i, diff, field)
		}
	}
	if got := r.records("contacts", "contact_key")["p1"]; got["lifecyclestage"] != "customer" || got["firstname"] != "Annabel" {
		t.Errorf("the CRM holds %v", got)
	}
	if s, err := r.ledger.Story(r.context(), last); err != nil || strings.Contains(s.Routes[0].Deliveries[0].Detail(), "keeps") {
		t.Errorf("%+v %v", s, err)
	}
	if strings.Contains(r.log.String(), "opportunity") {
		t.Error("the log tells what the CRM keeps")
	}
}

// A replay sends it once more: somebody may have mended the CRM.
func TestKeptValueIsReplayed(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: staged})
	r.deliver(deal("p1", 1, "stage", "lead", "name", "Ann"))
	release := r.box.Hold("hubspot", "contacts", "firstname")
	f := r.deliver(deal("p1", 2, "stage", "lead", "name", "Anna"))[0]
	if f.Outcome != ledger.Delivered || !strings.Contains(f.Reason, "keeps another value of firstname") {
		t.Errorf("%+v", f)
	}
	release()
	spec := ledger.ReplaySpec{Filter: ledger.Filter{IDs: []uuid.UUID{f.Event}}, By: "test", Wants: r.config.Mappings.Sinks, Generation: r.plan.Generation}
	if _, routes, err := r.ledger.Replay(r.context(), spec); err != nil || routes != 1 {
		t.Fatalf("%d routes, %v", routes, err)
	}
	r.until("the replay has ended", func() bool { return r.count(`routes WHERE outcome IS NULL`) == 0 })
	if n := r.count(`deliveries WHERE run = 1 AND outcome = 'delivered' AND reason = ''`); n != 1 {
		t.Errorf("%d deliveries have told that it is there", n)
	}
	if got := r.records("contacts", "contact_key")["p1"]; got["firstname"] != "Anna" {
		t.Errorf("the CRM holds %v", got)
	}
}

// An older value that stands in for a refused one may be kept otherwise, too: it is not sent again.
func TestKeptFormerValue(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{mappings: staged}, "crm")
	s.box.Put("hubspot", "contacts", map[string]any{"contact_key": "p1", "lifecyclestage": "opportunity"})
	fates := s.do(deal("p1", 2, "stage", "lead", "name", "Anna"), deal("p1", 3, "stage", "nonsense", "name", "Anna"))
	if fates[0].Outcome != ledger.Delivered || fates[1].Outcome != ledger.Dead {
		t.Errorf("%+v\n%+v", fates[0], fates[1])
	}
	if n := len(s.writes("/contacts/batch")); n != 2 {
		t.Errorf("%d requests", n)
	}
	if f := s.do(deal("p1", 4, "stage", "customer", "name", "Anna"))[0]; f.Outcome != ledger.Delivered || f.Reason != "" {
		t.Errorf("%+v", f)
	}
}

// Nothing passes for kept that is spelt otherwise, and what the answer does not show least of all.
func TestNothingPassesForKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{box: sandbox.Options{Custom: map[string][]sandbox.Property{"hubspot/orders": {
		{Name: "order_key", Unique: true}, {Name: "title"}, {Name: "amount", Type: "number"}, {Name: "description", Type: "datetime"},
		{Name: "first_partner", Type: "date"}, {Name: "last_synced", Type: "datetime"}, {Name: "tier", Type: "enumeration", FieldType: "checkbox", Options: []string{"gold", "silver"}},
	}}}})
	for i, e := range []event{
		deal("d1", 1, "name", " n ", "amount", 10, "stage", "silver;gold", "description", "2026-11-21T10:00:00+02:00", "partner", "2026-11-21"),
		deal("d1", 2, "name", "m", "amount", 0, "stage", ";silver", "description", "1795255200000", "partner", "2026-11-22"),
	} {
		if f := r.deliver(e)[0]; f.Outcome != ledger.Delivered || f.Reason != "" {
			t.Errorf("event %d: %+v", i, f)
		}
	}
	if n := r.count(`records WHERE fields::text LIKE '%"kv"%'`); n != 0 {
		t.Errorf("%d records are kept otherwise", n)
	}
}
