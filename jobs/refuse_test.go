package jobs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// Invariant 4: one bad row of a hundred is dead alone, with the CRM's own words; the rest of it
// is sent without the value that the CRM names.
func TestOneBadRow(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	var events []event
	for i := range 100 {
		tier := "gold"
		if i == 61 {
			tier = "platinum"
		}
		events = append(events, deal(fmt.Sprint("d", i), 1, "name", fmt.Sprint(i), "stage", tier))
	}
	ids := r.acceptPerJob(100, events...)
	r.start()
	fates := r.ended(ids...)
	for i, id := range ids {
		f := fates[id]
		if i != 61 {
			if f.Outcome != ledger.Delivered {
				t.Errorf("event %d: %+v", i, f)
			}
			continue
		}
		want := `HTTP 207: INVALID_OPTION: <value> was not one of the allowed options: [gold, silver]: field "tier": the rest was sent without it`
		if d := f.Deliveries[0]; f.Outcome != ledger.Dead || f.Reason != want || d.Class != "rejected" || d.Status != 207 {
			t.Errorf("%+v", f)
		}
	}
	if n := len(r.box.Records("hubspot", "orders")); n != 100 {
		t.Errorf("%d records", n)
	}
	if got := r.records("orders", "order_key")["d61"]; got["title"] != "61" || got["tier"] != nil {
		t.Errorf("the CRM holds %v", got)
	}
	if n := len(r.writes("/orders/batch")); n != 2 {
		t.Errorf("%d requests", n)
	}
	r.counted(1, "deliveries_total", "sink", "crm", "mapping", "deals", "outcome", "dead")
}

// The same where the CRM refuses the batch as a whole: it is halved.
func TestOneBadRowRefusesTheBatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	r.box.Fault(sandbox.Fault{
		Contains: "poison", Effect: sandbox.EffectStatus, Status: 400,
		Body: `{"status":"error","category":"VALIDATION_ERROR","message":"Invalid input JSON"}`,
	})
	var events []event
	for i := range 100 {
		events = append(events, deal(fmt.Sprint("d", i), 1, "name", map[bool]string{true: "poison", false: "fine"}[i == 17]))
	}
	ids := r.acceptPerJob(100, events...)
	r.start()
	r.ended(ids...)
	if n := r.count(`routes WHERE outcome = 'delivered'`); n != 99 {
		t.Errorf("%d delivered", n)
	}
	if n := len(r.writes("/orders/batch")); n > 15 { // 2·log2(100)+1
		t.Errorf("%d requests", n)
	}
}

// A row that serves several events is sent again as its parts: the good ones arrive.
func TestMergedRowIsParted(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	ids := r.acceptPerJob(9,
		deal("d1", 1, "name", "n"),
		deal("d1", 2, "amount", 5),
		deal("d1", 3, "stage", "platinum"),
		deal("d1", 4, "description", "text"),
		deal("d2", 1, "name", "other"),
	)
	r.start()
	fates := r.ended(ids...)
	want := []ledger.Outcome{ledger.Delivered, ledger.Delivered, ledger.Dead, ledger.Delivered, ledger.Delivered}
	if diff := cmp.Diff(want, outcomes(fates, ids)); diff != "" {
		t.Error(diff)
	}
	got := r.records("orders", "order_key")["d1"]
	if got["title"] != "n" || got["amount"] != "5" || got["description"] != "text" || got["tier"] != nil {
		t.Errorf("the CRM holds %v", got)
	}
	if n := len(r.writes("/orders/batch")); n > 9 {
		t.Errorf("%d requests", n)
	}
	// The refused value does not come along with later events.
	if f := r.deliver(deal("d1", 5, "name", "m"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if f := r.deliver(deal("d1", 6, "stage", "silver"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if got := r.records("orders", "order_key")["d1"]; got["title"] != "m" || got["tier"] != "silver" {
		t.Errorf("the CRM holds %v", got)
	}
}

func TestOptionalFieldIsDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: strings.TrimRight(deals, "\n") + "\n    optional: tier\n"})
	fates := r.deliver(
		deal("d1", 1, "name", "n", "stage", "platinum"),
		deal("d1", 2, "name", "n", "stage", "platinum"),
		deal("d1", 3, "name", "n", "stage", "silver"),
	)
	if f := fates[0]; f.Outcome != ledger.Delivered || f.Reason != "left out, since the CRM refuses it: tier" {
		t.Errorf("%+v", f)
	}
	// A value that is not sent because it was refused before is never unchanged.
	if f := fates[1]; f.Outcome != ledger.Skipped || !strings.Contains(f.Reason, "without tier, which the CRM refused") || f.Deliveries[0].Class != "refused_before" {
		t.Errorf("%+v", f)
	}
	if got := r.records("orders", "order_key")["d1"]; fates[2].Outcome != ledger.Delivered || got["title"] != "n" || got["tier"] != "silver" {
		t.Errorf("%+v, the CRM holds %v", fates[2], got)
	}
}

func TestExpectedRefusal(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: strings.TrimRight(deals, "\n") + "\n    on_reject: {INVALID_OPTION: skip}\n"})
	f := r.deliver(deal("d1", 1, "name", "n", "stage", "platinum"))[0]
	if f.Outcome != ledger.Skipped || !strings.Contains(f.Reason, "INVALID_OPTION") || f.Deliveries[0].Class != "expected" {
		t.Errorf("%+v", f)
	}
	s, err := r.ledger.Story(r.context(), f.Event)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Routes[0].Deliveries[0].Detail(); !strings.HasPrefix(got, "expected: HTTP 207: INVALID_OPTION") || strings.Contains(got, "attempts") {
		t.Errorf("explain says %q", got)
	}
}

// The record that the CRM names as being in the way is adopted and updated.
func TestConflictAdopts(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: `
mappings:
  - name: people
    on: shop.deal.updated
    to: crm
    object: contacts
    key: {contact_key: event.key}
    set: {email: event.partner, firstname: event.name}
`})
	theirs := r.box.Put("hubspot", "contacts", map[string]any{"email": "ann@acme.test", "firstname": "Ann", "lastname": "kept"})
	fates := r.deliver(
		deal("p1", 1, "partner", "ann@acme.test", "name", "Anna"),
		deal("p1", 2, "partner", "ann@acme.test", "name", "Annabel"),
	)
	for _, f := range fates {
		if f.Outcome != ledger.Delivered || f.Deliveries[0].CRMID != theirs {
			t.Errorf("%+v", f)
		}
	}
	list := r.box.Records("hubspot", "contacts")
	if len(list) != 1 || list[0].Properties["firstname"] != "Annabel" || list[0].Properties["lastname"] != "kept" || list[0].Properties["contact_key"] != "p1" {
		t.Errorf("the CRM holds %+v", list)
	}
}

// A record that somebody has archived in the CRM is not made again.
func TestRecordGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	id := r.deliver(deal("d1", 1, "name", "n"))[0].Deliveries[0].CRMID
	r.box.Archive("hubspot", "orders", id)
	fates := r.deliver(deal("d1", 2, "name", "m"), deal("d1", 3, "name", "o"))
	for _, f := range fates {
		if f.Outcome != ledger.Skipped || !strings.Contains(f.Reason, "gone from the CRM") || f.Deliveries[0].Class != "gone" {
			t.Errorf("%+v", f)
		}
	}
	if got := r.metric("skipped_deliveries_total", "sink", "crm", "mapping", "deals", "reason", "gone"); got != 2 {
		t.Errorf("%v are counted as gone", got)
	}
	if n := len(r.box.Records("hubspot", "orders")); n != 0 {
		t.Errorf("%d records", n)
	}
}
