package sandbox

import (
	"strings"
	"testing"
	"time"
)

// A CRM that has customers: they are there for every request, searches included, with the links between them.
func TestSeed(t *testing.T) {
	t.Parallel()
	s := portal(Options{Now: newClock().now, Lag: time.Hour})
	err := s.Seed([]byte(`{
		"hubspot": {
			"companies": [{"id": "501", "created": "2020-03-01T10:00:00Z", "properties": {"name": "Acme", "domain": "acme.test", "vip": true}}, {"properties": {"name": "Apex"}}],
			"contact": [{"id": "601", "properties": {"email": "jane@acme.test"}, "links": [{"object": "company", "id": "501", "label": "Primary"}]}]
		},
		"salesforce": {"Account": [{"id": "0015g00000ACME1AAA", "properties": {"Name": "Acme", "Seats__c": 5}}],
			"Contact": [{"properties": {"LastName": "Doe", "AccountId": "0015g00000ACME1AAA"}}]}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	a := send(t, s, "POST", objects+"companies/search", `{"filterGroups":[{"filters":[{"propertyName":"vip","operator":"EQ","value":"true"}]}]}`)
	wantEqual(t, "found", a.rows("results")[0]["id"], any("501"))
	wantEqual(t, "made", a.rows("results")[0]["createdAt"], any("2020-03-01T10:00:00.000Z"))
	var labels []string
	for _, l := range s.Links("hubspot") {
		labels = append(labels, l.FromObject+" "+l.FromID+" "+l.ToID+" "+l.Label)
	}
	wantEqual(t, "links", strings.Join(labels, ", "), "contacts 601 501 , contacts 601 501 Primary")
	contacts := s.Records("salesforce", "Contact")
	wantEqual(t, "lookup", contacts[0].Properties["AccountId"], any("0015g00000ACME1AAA"))
	wantEqual(t, "number", s.Records("salesforce", "Account")[0].Properties["Seats__c"], any(float64(5)))

	for _, bad := range []struct{ give, want string }{
		{`{"hubspot": {"companies": [{"id": "501", "properties": {}}]}}`, "id 501 already"},
		{`{"hubspot": {"companies": [{"id": "7", "properties": {}}, {"id": "7", "properties": {}}]}}`, "id 7 already"},
		{`{"hubspot": {"deals": [{"properties": {}, "links": [{"object": "companies", "id": "9"}]}]}}`, `no record "9" of companies`},
		{`{"hubspot": {"deals": [{"properties": {}, "links": [{"object": "companies", "id": "501", "label": "Best"}]}]}}`, `no label "Best"`},
		{`{"salesforce": {"Contact": [{"properties": {}, "links": [{"object": "Account", "id": "0015g00000ACME1AAA"}]}]}}`, "a property that holds"},
		{`{"odoo": {}}`, `no CRM "odoo"`},
		{`{"hubspot": {"deals": [{"fields": {}}]}}`, "fields"},
		{`[]`, "seed"},
		{`{"define": {"odoo": {}}}`, `define: there is no CRM "odoo"`},
		{`{"define": {"hubspot": null}}`, "nothing stands there"},
		{`{"define": {"hubspot": {"stages": []}}}`, "stages"},
		{`{"define": {"hubspot": {"owners": [{"email": "a@b.test"}]}}}`, "owners[0]: an owner needs an id"},
		{`{"define": {"hubspot": {"properties": {"deals": [{"label": "X"}]}}}}`, "deals[0]: a property needs a name"},
		{`{"define": {"hubspot": {"properties": {"deals": [{"name": "x", "type": "text"}]}}}}`, `there is no type "text"`},
		{`{"define": {"hubspot": {"properties": {"deals": [{"name": "x", "options": [{"value": "a"}]}]}}}}`, "only the type enumeration"},
		{`{"define": {"hubspot": {"pipelines": {"deals": [{"label": "X"}]}}}}`, "need an id"},
	} {
		before := len(s.Records("hubspot", "companies"))
		if err := s.Seed([]byte(bad.give)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", bad.give, err)
		}
		wantEqual(t, "nothing entered", len(s.Records("hubspot", "companies")), before)
	}
}

// A seed says what a CRM has besides records, too.
func TestSeedDefinitions(t *testing.T) {
	t.Parallel()
	s := portal(Options{MissingScopes: []string{"one"}})
	err := s.Seed([]byte(`{"define": {"hubspot": {
		"owners": [{"id": "1", "email": "amy@acme.test", "first_name": "Amy"}, {"id": "2", "email": "lee@acme.test", "left": true}],
		"properties": {"deals": [{"name": "tier", "label": "Tier", "type": "enumeration", "options": [{"value": "gold", "label": "Gold"}, {"value": "lead", "retired": true}]}]},
		"without": {"deal": ["dealtype"]},
		"pipelines": {"deals": [{"id": "9", "label": "Partners", "stages": [{"id": "91", "label": "New"}, {"id": "92", "label": "Old", "archived": true}]}]},
		"lacks": ["crm.schemas.contacts.read"]}},
		"hubspot": {"deals": [{"properties": {"dealname": "Acme", "tier": "gold"}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	owners := send(t, s, "GET", "/hubspot/crm/owners/2026-03", "")
	wantEqual(t, "owners", len(owners.rows("results")), 1)
	wantEqual(t, "owner", owners.rows("results")[0]["email"], any("amy@acme.test"))
	p, _ := s.Definition("hubspot", "deals", "tier")
	wantEqual(t, "options", strings.Join(p.Options, ",")+"/"+strings.Join(p.Retired, ",")+"/"+p.label("gold"), "gold/lead/Gold")
	wantEqual(t, "without", s.Defined("hubspot", "deals", "dealtype"), false)
	pipelines := send(t, s, "GET", "/hubspot/crm/pipelines/2026-03/deals", "")
	wantEqual(t, "pipelines", pipelines.rows("results")[1]["label"], any("Partners"))
	wantEqual(t, "scopes", send(t, s, "GET", "/hubspot/crm/properties/2026-03/contacts", "").status, 403)
	wantEqual(t, "lacking", s.lacks("one"), true)
	wantEqual(t, "records", len(s.Records("hubspot", "deals")), 1)
}
