package jobs

import (
	"strings"
	"testing"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// The log holds no value of a payload, whatever becomes of a delivery: not the key that a link
// waits for, nor what the CRM refuses or keeps. What a person has to know stands in the ledger.
func TestLogTellsNoValues(t *testing.T) {
	t.Parallel()
	mappings := strings.Replace(linked(", missing: skip"), "    links:\n", "    links:\n      - {to: firms, key: {firm_key: event.note}, for: 1ms, as: Primary}\n", 1)
	mappings = strings.Replace(mappings, "on: [shop.deal.created, shop.deal.updated]", "on: shop.deal.updated", 1) + `
  - name: strict
    on: shop.deal.created
    to: crm
    object: contacts
    key: {contact_key: event.key}
    set: {email: event.note, lifecyclestage: event.stage, firstname: event.name}
`
	r := newRig(t, setup{mappings: mappings, sinks: "    settings: {labels: {orders>firms: {Primary: {category: USER_DEFINED, typeId: 1}}}}\n"})
	r.box.Refuse(sandbox.Refusal{Dialect: "hubspot", Object: "contacts", Property: "firstname", Value: "private-name", Code: "VALIDATION_ERROR", Message: `"private-name" of private-key is no name`})
	var reasons strings.Builder
	for i, e := range []event{
		deal("private-key", 1, "name", "private-name", "company", `private-"firm"`),
		deal("private-key", 2, "name", "private-name", "company", "private-firm", "note", "private-label"),
		deal("private-key", 3, "name", "private-name", "stage", "private-tier", "company", "private-firm"),
		shopEvent("deal.created", "private-key", 1, "name", "private-name", "note", "private@acme.test", "stage", "opportunity"),
		shopEvent("deal.created", "private-key", 2, "name", "other", "note", "private@acme.test", "stage", "opportunity"),
		shopEvent("deal.created", "private-key", 3, "name", "other", "note", "private@acme.test", "stage", "lead"),
		shopEvent("deal.created", "private-key", 4, "name", "other", "note", "no private address", "stage", "lead"),
	} {
		f := r.deliver(e)[0]
		if f.Outcome == ledger.Open {
			t.Errorf("event %d: %+v", i, f)
		}
		for _, d := range f.Deliveries {
			reasons.WriteString(d.Reason + "\n")
		}
	}
	for _, want := range []string{"INVALID_OPTION", "VALIDATION_ERROR", "INVALID_EMAIL", "keeps another value"} {
		if !strings.Contains(reasons.String(), want) {
			t.Errorf("the ledger does not tell of %s:\n%s", want, reasons.String())
		}
	}
	log := r.log.String()
	for line := range strings.Lines(log) {
		if strings.Contains(line, "private") || strings.Contains(line, "opportunity") && !strings.Contains(line, "allowed options") {
			t.Errorf("it tells a value: %s", line)
		}
	}
}
