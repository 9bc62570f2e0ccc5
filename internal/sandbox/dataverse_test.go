package sandbox

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

const dvAPI = "/dataverse/api/data/v9.2/"

func TestDataverseUpsert(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Now: newClock().now})
	row := dvAPI + "contacts(new_key='PS-1')"
	converse(t, s,
		exchange{name: "create is 204", method: "PATCH", path: row, body: `{"firstname":"Jane"}`, want: 204},
		exchange{name: "update is 204", method: "PATCH", path: row, body: `{"lastname":"Doe"}`, want: 204},
		exchange{name: "the case of the key does not matter", method: "PATCH", path: strings.ToLower(row), body: `{"jobtitle":"CEO"}`, want: 204},
		exchange{name: "quotes are doubled", method: "PATCH", path: dvAPI + "contacts(new_key='O''Doe')", body: `{"firstname":"x"}`, want: 204},
		exchange{name: "a number", method: "PATCH", path: dvAPI + "contacts(new_number=7)", body: `{"firstname":"y"}`, want: 204},
		exchange{name: "representation of an update", method: "PATCH", path: row + "?$select=contactid,lastname", header: "Prefer: return=representation", body: `{"firstname":"J"}`, want: 200,
			says: map[string]any{"lastname": "Doe", "firstname": nil}},
		exchange{name: "representation of a create", method: "PATCH", path: dvAPI + "contacts(new_key='PS-2')", header: "Prefer: return=representation", body: `{"firstname":"K"}`, want: 201,
			says: map[string]any{"firstname": "K", "new_key": "PS-2", "createdon": "2026-11-21T12:00:00Z"}},
		exchange{name: "update only, and there is none", method: "PATCH", path: dvAPI + "contacts(new_key='none')", header: "If-Match: *", body: `{"firstname":"x"}`, want: 404, says: map[string]any{"error.code": "0x80060891"}},
		exchange{name: "update only", method: "PATCH", path: row, header: "If-Match: *", body: `{"firstname":"J"}`, want: 204},
		exchange{name: "create only, and there is one", method: "PATCH", path: row, header: "If-None-Match: *", body: `{"firstname":"x"}`, want: 412, says: map[string]any{"error.code": "0x80040237"}},
		exchange{name: "a column that is no key", method: "PATCH", path: dvAPI + "contacts(emailaddress1='a@b.co')", body: `{"firstname":"x"}`, want: 400,
			says: map[string]any{"error.code": "0x8006088a"}, holds: "The key in the request URI is not valid for resource 'Microsoft.Dynamics.CRM.contact'"},
		exchange{name: "the key in the body too", method: "PATCH", path: row, body: `{"new_key":"PS-1"}`, want: 400},
		exchange{name: "no quotes", method: "PATCH", path: dvAPI + "contacts(new_key=PS-1)", body: `{"firstname":"x"}`, want: 400},
		exchange{name: "no parenthesis", method: "PATCH", path: dvAPI + "contacts(new_key='PS-1'", body: `{"firstname":"x"}`, want: 400},
		exchange{name: "a set that is not there", method: "PATCH", path: dvAPI + "butterflies(new_key='1')", body: `{}`, want: 404},
		exchange{name: "a table of one's own", method: "PATCH", path: dvAPI + "new_payouts(new_key='1')", body: `{"new_amount":12.5}`, want: 204},
		exchange{name: "its required column", method: "PATCH", path: dvAPI + "new_payouts(new_key='2')", body: `{}`, want: 400, says: map[string]any{"error.code": "0x80040265"}},
	)
	h := ask(t, s, exchange{method: "PATCH", path: row, body: `{"firstname":"J"}`})
	wantEqual(t, "entity", h.header.Get("OData-EntityId"), "http://example.com"+row)
	wantEqual(t, "version", h.header.Get("OData-Version"), "4.0")
	wantEqual(t, "body", h.raw, "")
	for _, c := range `/<>*%&:\?+` {
		h := ask(t, s, exchange{method: "PATCH", path: dvAPI + "contacts(new_key='a" + strings.ReplaceAll(url.QueryEscape(string(c)), "+", "%20") + "b')", body: `{"firstname":"x"}`})
		wantEqual(t, "status of a key with "+string(c), h.status, 400)
	}
	contacts := stored(s, "dataverse", "contact")
	wantEqual(t, "first", contacts[0], map[string]any{"new_key": "PS-1", "firstname": "J", "lastname": "Doe", "jobtitle": "CEO"})
	wantEqual(t, "second", contacts[1]["new_key"], any("O'Doe"))
	wantEqual(t, "third", contacts[2]["new_number"], any(7.0))
	wantEqual(t, "contacts", len(contacts), 4)
}

func TestDataverseRows(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	account := s.Put("dataverse", "accounts", map[string]any{"name": "Acme", "new_key": "A1"})
	id := s.Put("dataverse", "contacts", map[string]any{"firstname": "Jane", "new_key": "C1"})
	gone := s.Put("dataverse", "contacts", map[string]any{"firstname": "Old"})
	s.Archive("dataverse", "contacts", gone)
	row := dvAPI + "contacts(" + id + ")"
	bind := func(name, property, value string, want int, says map[string]any) exchange {
		return exchange{name: name, method: "PATCH", path: row, body: `{"` + property + `@odata.bind":` + value + `}`, want: want, says: says}
	}
	h := ask(t, s, exchange{path: dvAPI + "contacts", body: `{"firstname":"New"}`})
	wantEqual(t, "status", h.status, 204)
	wantContains(t, "entity", h.header.Get("OData-EntityId"), dvAPI+"contacts("+s.Records("dataverse", "contacts")[1].ID)
	converse(t, s,
		bind("by alternate key", "parentcustomerid_account", `"/accounts(new_key='a1')"`, 204, nil),
		exchange{name: "read", path: row, want: 200, says: map[string]any{"_parentcustomerid_value": account, "fullname": "Jane", "contactid": id}},
		bind("cleared", "parentcustomerid_account", `null`, 204, nil),
		bind("by id and full address", "parentcustomerid_account", `"https://org.crm.dynamics.com/api/data/v9.2/accounts(`+account+`)"`, 204, nil),
		bind("no such row", "parentcustomerid_account", `"/accounts(new_key='none')"`, 404, map[string]any{"error.code": "0x80060891"}),
		bind("another table", "parentcustomerid_account", `"/contacts(new_key='C1')"`, 400, nil),
		bind("a key that is none", "parentcustomerid_account", `"/accounts(name='Acme')"`, 400, map[string]any{"error.code": "0x8006088a"}),
		bind("the case matters", "ParentCustomerId_account", `"/accounts(new_key='A1')"`, 400, map[string]any{"error.code": "0x80048d19"}),
		exchange{name: "a lookup's column", method: "PATCH", path: row, body: `{"parentcustomerid_account":"x"}`, want: 400, holds: "direct update of Entity Reference"},
		exchange{name: "a property that is not there", method: "PATCH", path: row, body: `{"nope":1}`, want: 400, says: map[string]any{"error.code": "0x80048d19"}, holds: "Invalid property 'nope'"},
		exchange{name: "a number for text", method: "PATCH", path: row, body: `{"firstname":5}`, want: 400, holds: "expected type 'Edm.String'"},
		exchange{name: "text for a number", method: "PATCH", path: dvAPI + "accounts(" + account + ")", body: `{"revenue":"5"}`, want: 400, holds: "expected type 'Edm.Decimal'"},
		exchange{name: "an option that is not there", method: "PATCH", path: row, body: `{"preferredcontactmethodcode":9}`, want: 400, holds: "Accepted Values: 1,2,3,4,5"},
		exchange{name: "an option by its label", method: "PATCH", path: row, body: `{"preferredcontactmethodcode":"Email"}`, want: 400},
		exchange{name: "too long", method: "PATCH", path: row, body: `{"firstname":"` + strings.Repeat("x", 51) + `"}`, want: 400, says: map[string]any{"error.code": "0x80044331"}},
		exchange{name: "a key that is taken", path: dvAPI + "contacts", body: `{"new_key":"C1"}`, want: 412, says: map[string]any{"error.code": "0x80060892"}},
		exchange{name: "read only columns are left alone", method: "PATCH", path: row, body: `{"createdon":"2020-01-01T00:00:00Z"}`, want: 204},
		exchange{name: "gone", method: "PATCH", path: dvAPI + "contacts(" + gone + ")", header: "If-Match: *", body: `{"firstname":"x"}`, want: 404, says: map[string]any{"error.code": "0x80040217"}},
		exchange{name: "filter", path: dvAPI + "contacts?$select=contactid&$filter=" + queryEscape("new_key eq 'c1' and firstname eq 'Jane'"), want: 200, says: map[string]any{"value.0.contactid": id, "value.1": nil}},
		exchange{name: "filter either", path: dvAPI + "contacts?$filter=" + queryEscape("new_key eq 'x' or firstname eq 'New'") + "&$top=1", want: 200, says: map[string]any{"value.0.firstname": "New"}},
		exchange{name: "filter with parentheses", path: dvAPI + "contacts?$select=contactid&$filter=" + queryEscape("(new_key eq 'x' and firstname eq 'Jane') or (new_key eq 'C1' and (firstname eq 'jane'))"), want: 200,
			says: map[string]any{"value.0.contactid": id, "value.1": nil}},
		exchange{name: "and binds before or", path: dvAPI + "contacts?$filter=" + queryEscape("new_key eq 'C1' or new_key eq 'x' and firstname eq 'y'"), want: 200, says: map[string]any{"value.0.contactid": id}},
		exchange{name: "contains", path: dvAPI + "contacts?$filter=" + queryEscape("(contains(firstname,'AN') and new_key eq 'c1')"), want: 200, says: map[string]any{"value.0.contactid": id, "value.1": nil}},
		exchange{name: "contains that stays open", path: dvAPI + "contacts?$filter=" + queryEscape("contains(firstname,'AN'"), want: 400},
		exchange{name: "filter by id", path: dvAPI + "contacts?$filter=" + queryEscape("contactid eq "+id+" or contactid eq 00000000-0000-4000-8000-000000000000"), want: 200, says: map[string]any{"value.0.contactid": id, "value.1": nil}},
		exchange{name: "an id in quotes", path: dvAPI + "contacts?$filter=" + queryEscape("contactid eq '"+id+"'"), want: 400, holds: "incompatible types"},
		exchange{name: "a number in quotes", path: dvAPI + "contacts?$filter=" + queryEscape("new_number eq '5'"), want: 400, holds: "incompatible types"},
		exchange{name: "a text without", path: dvAPI + "contacts?$filter=" + queryEscape("new_key eq C1"), want: 400, holds: "incompatible types"},
		exchange{name: "a quote that is not doubled", path: dvAPI + "contacts?$filter=" + queryEscape("new_key eq 'a'b'"), want: 400},
		exchange{name: "a parenthesis that stays open", path: dvAPI + "contacts?$filter=" + queryEscape("(new_key eq 'a'"), want: 400},
		exchange{name: "another operator", path: dvAPI + "contacts?$filter=" + queryEscape("new_key in ('a')"), want: 400},
		exchange{name: "a column that is not there", path: dvAPI + "contacts?$select=nope", want: 400, holds: "Could not find a property named 'nope'"},
		exchange{name: "and in one row", path: row + "?$select=parentcustomerid_account", want: 400},
		exchange{name: "an address that is too long", path: dvAPI + "contacts?$filter=" + queryEscape("new_key eq '"+strings.Repeat("x", 33_000)+"'"), want: 414},
		exchange{name: "filter by what is not there", path: dvAPI + "contacts?$filter=" + queryEscape("nope eq 'x'"), want: 400},
		exchange{name: "reference", method: "PUT", path: dvAPI + "accounts(new_key='A1')/primarycontactid/$ref", body: `{"@odata.id":"/contacts(new_key='C1')"}`, want: 204},
		exchange{name: "reference read", path: dvAPI + "accounts(" + account + ")?$select=_primarycontactid_value", want: 200, says: map[string]any{"_primarycontactid_value": id, "name": nil}},
		exchange{name: "reference cleared", method: "DELETE", path: dvAPI + "accounts(new_key='A1')/primarycontactid/$ref", want: 204},
		exchange{name: "not JSON", method: "PATCH", path: row, body: `{"x`, want: 400},
		exchange{name: "delete", method: "DELETE", path: row, want: 204},
		exchange{name: "delete again", method: "DELETE", path: row, want: 404},
		exchange{name: "made anew under its id", method: "PATCH", path: row, body: `{"firstname":"Again"}`, want: 204},
		exchange{name: "nowhere", path: "/dataverse/api/data/v8.0/contacts", want: 404},
		exchange{name: "method", method: "PUT", path: row, body: `{}`, want: 405},
	)
	got, _ := s.Get("dataverse", "contacts", id)
	wantEqual(t, "anew", got.Properties, map[string]any{"firstname": "Again"})
	converse(t, furnished(Options{MissingScopes: []string{"prvWriteContact"}}),
		exchange{name: "privilege", path: dvAPI + "contacts", body: `{}`, want: 403, says: map[string]any{"error.code": "0x80040220"}})
}

func TestDataverseUpsertMultiple(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	s.Put("dataverse", "contacts", map[string]any{"firstname": "Jane", "new_key": "C1"})
	path := dvAPI + "contacts/Microsoft.Dynamics.CRM.UpsertMultiple"
	target := func(key, more string) string {
		return `{"@odata.type":"Microsoft.Dynamics.CRM.contact","@odata.id":"contacts(new_key='` + key + `')",` + more + `}`
	}
	converse(t, s,
		exchange{name: "one error takes all back", path: path, body: `{"Targets":[` + target("C1", `"firstname":"J"`) + `,` + target("C2", `"firstname":"K"`) + `,` + target("C3", `"firstname":5`) + `]}`, want: 400},
		exchange{name: "another set", path: path, body: `{"Targets":[{"@odata.id":"accounts(new_key='1')"}]}`, want: 400},
	)
	wantEqual(t, "contacts", stored(s, "dataverse", "contacts"), []map[string]any{{"firstname": "Jane", "new_key": "C1"}})
	wantEqual(t, "writes", s.Records("dataverse", "contacts")[0].Writes, 1)
	converse(t, s, exchange{name: "all good", path: path, body: `{"Targets":[` + target("C1", `"firstname":"J"`) + `,` + target("C2", `"firstname":"K"`) + `]}`, want: 204})
	wantEqual(t, "contacts", stored(s, "dataverse", "contacts"), []map[string]any{{"firstname": "J", "new_key": "C1"}, {"firstname": "K", "new_key": "C2"}})
}

func TestDataverseLimits(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := furnished(Options{Now: clock.now, Limits: []Limit{{Dialect: "dataverse", Policy: "0x80072322", Requests: 2, Per: 5 * time.Minute, Rolling: true}}})
	get := exchange{path: dvAPI + "WhoAmI"}
	ask(t, s, get)
	clock.at = clock.at.Add(time.Minute)
	ask(t, s, get)
	h := ask(t, s, get)
	wantEqual(t, "status", h.status, 429)
	wantEqual(t, "code", h.text("error.code"), "0x80072322")
	wantEqual(t, "Retry-After", h.header.Get("Retry-After"), "240")
	clock.at = clock.at.Add(4 * time.Minute)
	wantEqual(t, "in time", ask(t, s, get).status, 200)
	s.Fault(Fault{Dialect: "dataverse", Effect: EffectThrottle, Policy: "0x80072326"})
	h = ask(t, s, get)
	wantEqual(t, "code", h.text("error.code"), "0x80072326")
	wantEqual(t, "Retry-After", h.header.Get("Retry-After"), "10")
}
