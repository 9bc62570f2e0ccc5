package sandbox

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAccess(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		token    string // the server's
		header   string
		missing  []string
		method   string
		path     string
		body     string
		kind     string
		want     int
		category string
	}{
		{"any token", "", "Bearer x", nil, "GET", objects + "contacts", "", "", 200, ""},
		{"the token", "pat-1", "Bearer pat-1", nil, "GET", objects + "contacts", "", "", 200, ""},
		{"another token", "pat-1", "Bearer pat-2", nil, "GET", objects + "contacts", "", "", 401, "INVALID_AUTHENTICATION"},
		{"no token", "", "", nil, "GET", objects + "contacts", "", "", 401, "INVALID_AUTHENTICATION"},
		{"empty token", "", "Bearer ", nil, "GET", objects + "contacts", "", "", 401, "INVALID_AUTHENTICATION"},
		{"basic", "", "Basic eDp5", nil, "GET", objects + "contacts", "", "", 401, "INVALID_AUTHENTICATION"},
		{"scope for deals", "", "Bearer x", []string{"crm.objects.deals.write"}, "POST", objects + "deals/batch/upsert",
			`{"inputs":[]}`, "application/json", 403, "MISSING_SCOPES"},
		{"scope for others", "", "Bearer x", []string{"crm.objects.deals.write"}, "POST", objects + "contacts/batch/upsert",
			`{"inputs":[]}`, "application/json", 200, ""},
		{"scope for custom objects", "", "Bearer x", []string{"crm.objects.custom.read"}, "GET", objects + "payouts", "", "", 403, "MISSING_SCOPES"},
		{"scope for properties", "", "Bearer x", []string{"crm.schemas.contacts.write"}, "POST", "/hubspot/crm/v3/properties/contacts",
			`{}`, "application/json", 403, "MISSING_SCOPES"},
		{"scope for links", "", "Bearer x", []string{"crm.objects.deals.write"}, "POST",
			"/hubspot/crm/v4/associations/deals/contacts/batch/create", `{"inputs":[]}`, "application/json", 403, "MISSING_SCOPES"},
		{"not JSON", "", "Bearer x", nil, "POST", objects + "contacts/batch/upsert", `a=b`, "application/x-www-form-urlencoded", 415, ""},
		{"unknown version", "", "Bearer x", nil, "GET", "/hubspot/crm/objects/2025-09/contacts", "", "", 404, "OBJECT_NOT_FOUND"},
		{"unknown route", "", "Bearer x", nil, "GET", "/hubspot/crm/v3/nothing/contacts", "", "", 404, "OBJECT_NOT_FOUND"},
		{"unknown batch", "", "Bearer x", nil, "POST", objects + "contacts/batch/merge", `{}`, "application/json", 404, "OBJECT_NOT_FOUND"},
		{"wrong method", "", "Bearer x", nil, "PUT", objects + "contacts", `{}`, "application/json", 405, ""},
		{"long address", "", "Bearer x", nil, "GET", objects + "contacts?x=" + strings.Repeat("y", 9000), "", "", 414, ""},
		{"unknown dialect", "", "Bearer x", nil, "GET", "/nosuch/x", "", "", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := portal(Options{Token: tt.token, MissingScopes: tt.missing})
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
			r.Header.Set("Authorization", tt.header)
			r.Header.Set("Content-Type", tt.kind)
			a := serve(t, s, r)
			wantStatus(t, a, tt.want)
			wantEqual(t, "category", a.category(), tt.category)
		})
	}
}

func TestSetToken(t *testing.T) {
	t.Parallel()
	s := portal(Options{Token: "old"})
	wantStatus(t, send(t, s, "GET", objects+"contacts", ""), 401)
	s.SetToken("pat-x")
	wantStatus(t, send(t, s, "GET", objects+"contacts", ""), 200)
}

func TestAccount(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v3", "2026-03", "2026-09"} {
		a := send(t, portal(Options{Account: 42}), "GET", "/hubspot/account-info/"+version+"/details", "")
		wantStatus(t, a, 200)
		wantEqual(t, "portalId", a.body["portalId"], any(float64(42)))
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	s := portal(Options{Now: newClock().now})
	id := s.Put("hubspot", "contacts", map[string]any{"email": "a@x.test", "partner_key": "K1", "phone": "1"})
	a := send(t, s, "GET", objects+"contacts/K1?idProperty=partner_key&properties=phone,city,nope&properties=partner_key", "")
	wantStatus(t, a, 200)
	wantEqual(t, "body", a.body, map[string]any{
		"id": id, "createdAt": "2026-11-21T12:00:00.000Z", "updatedAt": "2026-11-21T12:00:00.000Z", "archived": false,
		"properties": map[string]any{
			"createdate": "2026-11-21T12:00:00.000Z", "lastmodifieddate": "2026-11-21T12:00:00.000Z", "hs_object_id": id,
			"phone": "1", "city": nil, "partner_key": "K1",
		},
	})
	a = send(t, s, "GET", objects+"contacts/"+id, "")
	wantEqual(t, "default properties", a.body["properties"].(map[string]any)["email"], any("a@x.test"))
	wantStatus(t, send(t, s, "GET", objects+"contacts/x?idProperty=phone", ""), 400)
	wantStatus(t, send(t, s, "GET", objects+"contacts/5", ""), 404)
}

func TestList(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	for range 5 {
		s.Put("hubspot", "contacts", map[string]any{"firstname": "x"})
	}
	got, path := 0, objects+"contacts?limit=2"
	for range 3 {
		a := send(t, s, "GET", path, "")
		wantStatus(t, a, 200)
		got += len(a.rows("results"))
		paging, more := a.body["paging"].(map[string]any)
		if !more {
			break
		}
		path = objects + "contacts?limit=2&after=" + paging["next"].(map[string]any)["after"].(string)
	}
	wantEqual(t, "listed", got, 5)
	wantStatus(t, send(t, s, "GET", objects+"contacts?limit=101", ""), 400)
}

func TestBatchRead(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	id := s.Put("hubspot", "contacts", map[string]any{"email": "a@x.test", "partner_key": "K1"})
	a := send(t, s, "POST", objects+"contacts/batch/read",
		`{"idProperty":"partner_key","properties":["email"],"propertiesWithHistory":[],"inputs":[{"id":"K1"},{"id":"K2"},{"id":"K3"}]}`)
	wantStatus(t, a, 207)
	properties := a.rows("results")[0]["properties"].(map[string]any)
	wantEqual(t, "email", properties["email"], any("a@x.test"))
	wantEqual(t, "partner_key", properties["partner_key"], any("K1"))
	wantEqual(t, "numErrors", a.body["numErrors"], any(float64(1)))
	wantEqual(t, "missing", a.rows("errors")[0]["context"], any(map[string]any{"ids": []any{"K2", "K3"}}))
	wantEqual(t, "category", a.rows("errors")[0]["category"], any("OBJECT_NOT_FOUND"))
	a = send(t, s, "POST", objects+"contacts/batch/read", `{"properties":[],"propertiesWithHistory":[],"inputs":[{"id":"`+id+`"},{"id":"`+id+`"}]}`)
	wantStatus(t, a, 200)
	wantEqual(t, "results", len(a.rows("results")), 1)
	for _, lacking := range []string{`"idProperty":"phone","properties":[],"propertiesWithHistory":[]`, `"properties":[]`, `"propertiesWithHistory":[]`} {
		wantStatus(t, send(t, s, "POST", objects+"contacts/batch/read", `{`+lacking+`,"inputs":[{"id":"`+id+`"}]}`), 400)
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	s := portal(Options{Now: newClock().now})
	names := map[string]string{}
	for i, amount := range []string{"5", "10", "100", ""} {
		name := fmt.Sprintf("Deal %d", i)
		names[s.Put("hubspot", "deals", map[string]any{"dealname": name, "amount": amount, "dealstage": "closedwon"})] = name
	}
	filter := func(f string) string { return `{"filterGroups":[{"filters":[` + f + `]}]}` }
	tests := []struct {
		name string
		give string
		want []string
	}{
		{"equal, whatever the case", filter(`{"propertyName":"dealname","operator":"EQ","value":"deal 1"}`), []string{"Deal 1"}},
		{"not equal", filter(`{"propertyName":"amount","operator":"NEQ","value":"5"}`), []string{"Deal 1", "Deal 2"}},
		{"greater is a number's", filter(`{"propertyName":"amount","operator":"GT","value":"9.5"}`), []string{"Deal 1", "Deal 2"}},
		{"between", filter(`{"propertyName":"amount","operator":"BETWEEN","value":"5","highValue":"10"}`), []string{"Deal 0", "Deal 1"}},
		{"one of", filter(`{"propertyName":"amount","operator":"IN","values":["5","100"]}`), []string{"Deal 0", "Deal 2"}},
		{"none of", filter(`{"propertyName":"amount","operator":"NOT_IN","values":["5","100"]}`), []string{"Deal 1"}},
		{"has", filter(`{"propertyName":"amount","operator":"HAS_PROPERTY"}`), []string{"Deal 0", "Deal 1", "Deal 2"}},
		{"has not", filter(`{"propertyName":"amount","operator":"NOT_HAS_PROPERTY"}`), []string{"Deal 3"}},
		{"created", filter(`{"propertyName":"createdate","operator":"GTE","value":"2026-11-21T12:00:00Z"}`),
			[]string{"Deal 0", "Deal 1", "Deal 2", "Deal 3"}},
		{"both", filter(`{"propertyName":"amount","operator":"LT","value":"50"},{"propertyName":"amount","operator":"GT","value":"5"}`),
			[]string{"Deal 1"}},
		{"either", `{"filterGroups":[{"filters":[{"propertyName":"amount","operator":"EQ","value":"5"}]},
			{"filters":[{"propertyName":"amount","operator":"EQ","value":"10"}]}]}`, []string{"Deal 0", "Deal 1"}},
		{"text", `{"query":"deal 2"}`, []string{"Deal 2"}},
		{"sorted", `{"sorts":[{"propertyName":"dealname","direction":"DESCENDING"}],"limit":2,"after":"1"}`, []string{"Deal 2", "Deal 1"}},
		{"a word", filter(`{"propertyName":"dealname","operator":"CONTAINS_TOKEN","value":"DEAL"}`), []string{"Deal 0", "Deal 1", "Deal 2", "Deal 3"}},
		{"part of a word", filter(`{"propertyName":"dealname","operator":"CONTAINS_TOKEN","value":"dea"}`), nil},
		{"the beginning of a word", filter(`{"propertyName":"dealname","operator":"CONTAINS_TOKEN","value":"dea*"}`), []string{"Deal 0", "Deal 1", "Deal 2", "Deal 3"}},
		{"one of, in lower case", filter(`{"propertyName":"dealname","operator":"IN","values":["deal 1"]}`), []string{"Deal 1"}},
		{"one of, as it is", filter(`{"propertyName":"dealname","operator":"IN","values":["Deal 1"]}`), nil},
		{"an option in another case", filter(`{"propertyName":"dealstage","operator":"EQ","value":"ClosedWon"}`), nil},
		{"unknown operator", filter(`{"propertyName":"amount","operator":"LIKE","value":"5"}`), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := send(t, s, "POST", objects+"deals/search", tt.give)
			wantStatus(t, a, 200)
			var got []string
			for _, r := range a.rows("results") {
				got = append(got, names[r["id"].(string)])
			}
			wantEqual(t, "found", got, tt.want)
		})
	}
	for _, bad := range []string{
		filter(`{"propertyName":"nope","operator":"EQ","value":"x"}`), `{"limit":201}`, `{"limit":100,"after":"9950"}`,
		filter(`{"propertyName":"amount","operator":"IN"}`), filter(`{"propertyName":"amount","operator":"EQ","value":""}`),
		filter(strings.Repeat(`{"propertyName":"amount","operator":"HAS_PROPERTY"},`, 6) + `{"propertyName":"amount","operator":"HAS_PROPERTY"}`),
		`{"filterGroups":[` + strings.Repeat(`{"filters":[]},`, 5) + `{"filters":[]}]}`,
		`{"query":"` + strings.Repeat("x", 3000) + `"}`,
	} {
		wantStatus(t, send(t, s, "POST", objects+"deals/search", bad), 400)
	}
}

func TestSearchLags(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := portal(Options{Now: clock.now, Lag: 5 * time.Second})
	found := func(email string) int {
		a := send(t, s, "POST", objects+"contacts/search",
			`{"filterGroups":[{"filters":[{"propertyName":"email","operator":"EQ","value":"`+email+`"}]}]}`)
		wantStatus(t, a, 200)
		return int(a.body["total"].(float64))
	}
	a := send(t, s, "POST", objects+"contacts", `{"properties":{"email":"a@x.test"}}`)
	id := a.body["id"].(string)
	wantEqual(t, "just made", found("a@x.test"), 0)
	wantStatus(t, send(t, s, "GET", objects+"contacts/a@x.test?idProperty=email", ""), 200) // reads do not lag
	clock.at = clock.at.Add(4 * time.Second)
	wantEqual(t, "4 s later", found("a@x.test"), 0)
	clock.at = clock.at.Add(time.Second)
	wantEqual(t, "5 s later", found("a@x.test"), 1)

	wantStatus(t, send(t, s, "PATCH", objects+"contacts/"+id, `{"properties":{"email":"b@x.test"}}`), 200)
	wantEqual(t, "old value, just changed", found("a@x.test"), 1)
	wantEqual(t, "new value, just changed", found("b@x.test"), 0)
	clock.at = clock.at.Add(5 * time.Second)
	wantEqual(t, "old value, later", found("a@x.test"), 0)
	wantEqual(t, "new value, later", found("b@x.test"), 1)

	s.Archive("hubspot", "contacts", id)
	wantEqual(t, "just archived", found("b@x.test"), 1)
	clock.at = clock.at.Add(5 * time.Second)
	wantEqual(t, "archived, later", found("b@x.test"), 0)

	s.Put("hubspot", "contacts", map[string]any{"email": "sales@x.test"})
	wantEqual(t, "what sales had before", found("sales@x.test"), 1)
}

func TestProperties(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	const path = "/hubspot/crm/properties/2026-09/deals"
	const key = `{"groupName":"dealinformation","name":"partner_key","label":"Partner key","type":"string","fieldType":"text","hasUniqueValue":true}`
	a := send(t, s, "POST", path, key)
	wantStatus(t, a, 201)
	wantEqual(t, "hasUniqueValue", a.body["hasUniqueValue"], any(true))
	wantStatus(t, send(t, s, "POST", path, key), 409)
	wantStatus(t, send(t, s, "POST", path, `{"name":"x"}`), 400)
	wantStatus(t, send(t, s, "POST", path, strings.NewReplacer("partner_key", "x", `"string"`, `"object"`).Replace(key)), 400)
	wantStatus(t, send(t, s, "POST", objects+"deals/batch/upsert", `{"inputs":[{"id":"1","idProperty":"partner_key",
		"properties":{"dealname":"x","dealstage":"closedwon"}}]}`), 200)

	a = send(t, s, "GET", "/hubspot/crm/v3/properties/deals/dealtype", "")
	wantStatus(t, a, 200)
	wantEqual(t, "options", len(a.rows("options")), 2)
	wantStatus(t, send(t, s, "GET", path+"/nope", ""), 404)
	names := map[string]bool{}
	for _, p := range send(t, s, "GET", path, "").rows("results") {
		names[p["name"].(string)] = true
	}
	for _, want := range []string{"partner_key", "dealname", "amount", "dealstage", "pipeline", "closedate", "hs_object_id"} {
		if !names[want] {
			t.Errorf("%s is not listed", want)
		}
	}

	for i := 1; i < uniqueProperties; i++ {
		wantStatus(t, send(t, s, "POST", path, strings.Replace(key, "partner_key", fmt.Sprint("k", i), 1)), 201)
	}
	wantStatus(t, send(t, s, "POST", path, strings.Replace(key, "partner_key", "k10", 1)), 400)
}

func TestPipelines(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	for _, path := range []string{"/hubspot/crm/v3/pipelines/deals", "/hubspot/crm/pipelines/2026-09/deals", "/hubspot/crm/pipelines/2026-03/0-3"} {
		a := send(t, s, "GET", path, "")
		wantStatus(t, a, 200)
		wantEqual(t, "pipeline", a.rows("results")[0]["id"], any("default"))
		var stages []string
		for _, stage := range a.rows("results")[0]["stages"].([]any) {
			stages = append(stages, stage.(map[string]any)["id"].(string))
		}
		wantEqual(t, "stages", stages, []string{
			"appointmentscheduled", "qualifiedtobuy", "presentationscheduled", "decisionmakerboughtin", "contractsent",
			"closedwon", "closedlost",
		})
	}
	wantEqual(t, "stages", len(send(t, s, "GET", "/hubspot/crm/v3/pipelines/deals/default/stages", "").rows("results")), 7)
	wantStatus(t, send(t, s, "GET", "/hubspot/crm/v3/pipelines/deals/other", ""), 404)
}
