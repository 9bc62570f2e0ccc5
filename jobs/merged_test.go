package jobs

import (
	"testing"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// A contact is read before its stage is moved on, and HubSpot shows the one that it was merged into: that gets the stage, and
// what else is wanted.
func TestMergedContactIsRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{
		mappings: `
mappings:
  - name: people
    on: [shop.deal.updated]
    to: crm
    object: contacts
    key: {contact_key: event.key}
    set: {lastname: event.name}
    forward: {stage: {value: event.stage, order: [lead, trial, customer]}}
`,
		box: sandbox.Options{Custom: map[string][]sandbox.Property{"hubspot/contacts": {{Name: "contact_key", Unique: true}, {Name: "stage"}}}},
	})
	r.deliver(deal("c1", 1, "name", "Doe", "stage", "lead"), deal("c2", 1, "name", "Roe", "stage", "lead"))
	ids := map[any]string{}
	for _, rec := range r.box.Records("hubspot", "contacts") {
		ids[rec.Properties["contact_key"]] = rec.ID
	}
	other := r.box.Put("hubspot", "contacts", map[string]any{"lastname": "sales"})
	if !r.box.Merge("hubspot", "contacts", ids["c1"], other) {
		t.Fatal("not merged")
	}
	events := r.acceptPerJob(2, deal("c1", 2, "name", "Doe-Roe", "stage", "trial"), deal("c2", 2, "name", "Roe", "stage", "customer"))
	for id, fate := range r.ended(events...) {
		if fate.Outcome != ledger.Delivered {
			t.Errorf("%s: %+v", id, fate)
		}
	}
	list := map[string]map[string]any{}
	for _, rec := range r.box.Records("hubspot", "contacts") {
		list[rec.ID] = rec.Properties
	}
	if c := list[other]; len(list) != 2 || c["stage"] != "trial" || c["lastname"] != "Doe-Roe" {
		t.Errorf("%+v", list)
	}
	if c := list[ids["c2"]]; c["stage"] != "customer" {
		t.Errorf("%+v", list)
	}
}
