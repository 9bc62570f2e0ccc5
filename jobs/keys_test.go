package jobs

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// people are contacts under two kinds of keys; HubSpot has no two contacts of one e-mail.
const people = `
mappings:
  - name: people
    on: [shop.deal.created, shop.deal.updated]
    to: crm
    object: contacts
    key: {contact_key: event.key}
    set: {email: event.note, firstname: event.name, lastname: event.description}
    set_first: {jobtitle: event.partner}
  - name: owners
    on: shop.company.updated
    to: crm
    object: contacts
    key: {owner_key: event.key}
    set: {email: value("ann@acme.test"), firstname: event.name}
`

func peopleSetup() setup {
	return setup{mappings: people, box: sandbox.Options{Custom: map[string][]sandbox.Property{
		"hubspot/contacts": {{Name: "contact_key", Unique: true}, {Name: "owner_key", Unique: true}},
	}}}
}

func person(key string, at int64, fields ...any) event {
	return deal(key, at, append([]any{"note", "ann@acme.test"}, fields...)...)
}

// Two keys that name one contact have one wanted state: what is older never overwrites.
func TestKeysThatMeet(t *testing.T) {
	t.Parallel()
	r := newRig(t, peopleSetup())
	fates := r.deliver(
		person("p1", 5, "name", "Ann", "partner", "second"),
		person("p2", 3, "name", "Anna", "description", "Doe", "partner", "first"), // older, under another key
		person("p2", 7, "name", "Annabel"),
		person("p1", 6, "name", "Anne"), // late
		shopEvent("company.updated", "o1", 8, "name", "Ann B."),
		person("p1", 7, "name", "late again"),
	)
	want := []ledger.Outcome{ledger.Delivered, ledger.Delivered, ledger.Delivered, ledger.Stale, ledger.Delivered, ledger.Stale}
	for i, f := range fates {
		if f.Outcome != want[i] {
			t.Errorf("event %d: %+v", i, f)
		}
	}
	list := r.box.Records("hubspot", "contacts")
	if len(list) != 1 {
		t.Fatalf("%d contacts: %+v", len(list), list)
	}
	got := map[string]any{}
	for _, name := range []string{"email", "firstname", "lastname", "jobtitle", "contact_key", "owner_key"} {
		got[name] = list[0].Properties[name]
	}
	if diff := cmp.Diff(map[string]any{
		"email": "ann@acme.test", "firstname": "Ann B.", "lastname": "Doe", "jobtitle": "first", "contact_key": "p1", "owner_key": "o1",
	}, got); diff != "" {
		t.Error(diff)
	}
	if n := r.count("records WHERE sink = 'crm'"); n != 1 {
		t.Errorf("%d records", n)
	}
	if n := r.count("record_keys WHERE sink = 'crm'"); n != 3 {
		t.Errorf("%d keys", n)
	}
	// A new process knows it.
	r.stop()
	r.start()
	r.deliver(person("p2", 9, "name", "Last"))
	if list := r.box.Records("hubspot", "contacts"); len(list) != 1 || list[0].Properties["firstname"] != "Last" || list[0].Properties["contact_key"] != "p1" {
		t.Errorf("%+v", list)
	}
}

// Whatever arrives under whichever key, at the same time and in any order.
func TestKeysThatMeetUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t, peopleSetup())
	for history := range 12 {
		mail := fmt.Sprintf("h%d@acme.test", history)
		var events []event
		var happened []happening
		for i := range 12 {
			name, partner := fmt.Sprintf("n%d", i), fmt.Sprintf("p%d", i)
			events = append(events, deal(fmt.Sprintf("h%d-%d", history, rand.IntN(3)), int64(i), "note", mail, "name", name, "partner", partner))
			happened = append(happened, happening{
				set: map[string]any{"email": mail, "firstname": name}, first: map[string]any{"jobtitle": partner}, version: ledger.Version{At: int64(i)},
			})
		}
		rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		var ids []uuid.UUID
		for i := 0; i < len(events); i += 3 {
			ids = append(ids, r.acceptPerJob(1+i%3, events[i:i+3]...)...)
		}
		for id, f := range r.ended(ids...) {
			if f.Outcome == ledger.Dead {
				t.Errorf("%s: %+v", id, f)
			}
		}
		var got []map[string]any
		for _, rec := range r.box.Records("hubspot", "contacts") {
			if rec.Properties["email"] == mail {
				got = append(got, map[string]any{"email": mail, "firstname": rec.Properties["firstname"], "jobtitle": rec.Properties["jobtitle"]})
			}
		}
		if diff := cmp.Diff([]map[string]any{oracle(happened)}, got); diff != "" {
			t.Fatalf("history %d: %s", history, diff)
		}
		if n := r.count("records WHERE fields->'email'->>'v' = '" + mail + "'"); n != 1 {
			t.Errorf("%d records of %s", n, mail)
		}
	}
}

// Somebody merges two of our records in the CRM: the survivor takes what is wanted of either.
func TestMergedThere(t *testing.T) {
	t.Parallel()
	s := carriers()[1].setup("") // Pipedrive answers for a merged record as for one that never was
	r := newRig(t, s)
	c := carriers()[1]
	r.deliver(deal("d1", 1, "name", "one", "note", "n"), deal("d2", 1, "name", "two"))
	ids := map[string]string{}
	for _, rec := range r.box.Records(c.name, c.object) {
		ids[fmt.Sprint(rec.Properties[c.key])] = rec.ID
	}
	if !r.box.Merge(c.name, c.object, ids["d2"], ids["d1"]) || !r.box.Edit(c.name, c.object, ids["d1"], map[string]any{c.key: "d2"}) {
		t.Fatal("not merged")
	}
	f := r.deliver(deal("d2", 3, "name", "both"))[0]
	if f.Outcome != ledger.Delivered || f.Deliveries[0].CRMID != ids["d1"] {
		t.Errorf("%+v", f)
	}
	if f := r.deliver(deal("d1", 2, "name", "late"))[0]; f.Outcome != ledger.Stale {
		t.Errorf("%+v", f)
	}
	list := r.box.Records(c.name, c.object)
	if len(list) != 1 || list[0].Properties[c.field] != "both" || list[0].Properties[c.title] != "n" {
		t.Errorf("%+v", list)
	}
}
