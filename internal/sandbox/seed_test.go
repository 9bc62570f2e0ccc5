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
	} {
		before := len(s.Records("hubspot", "companies"))
		if err := s.Seed([]byte(bad.give)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", bad.give, err)
		}
		wantEqual(t, "nothing entered", len(s.Records("hubspot", "companies")), before)
	}
}
