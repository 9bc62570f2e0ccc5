package sandbox

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// Each line is what HubSpot's own client sent; the sandbox has to take it.
func TestOfficialClient(t *testing.T) {
	t.Parallel()
	recorded, err := os.ReadFile("testdata/hubspot_client.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	want := []int{http.StatusOK, http.StatusOK, http.StatusMultiStatus, http.StatusOK}
	var got []int
	s := portal(Options{})
	s.Put("hubspot", "deals", map[string]any{"partner_deal_key": "D1"}) // the recorded body has no stage to create with
	for line := range bytes.Lines(recorded) {
		var c struct{ M, U, Auth, CT, Body string }
		if err := json.Unmarshal(line, &c, json.MatchCaseInsensitiveNames(true)); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(c.M, "/hubspot"+c.U, strings.NewReader(c.Body))
		r.Header.Set("Authorization", c.Auth)
		if c.CT != "" {
			r.Header.Set("Content-Type", c.CT)
		}
		got = append(got, serve(t, s, r).status)
	}
	wantEqual(t, "statuses", got, want) // 207: records 1 and 2 of the association are not there
	wantEqual(t, "deals", values(s, "deals"), []map[string]any{{"partner_deal_key": "D1", "dealname": "x", "amount": "10"}})
	wantEqual(t, "contacts", values(s, "contacts"), []map[string]any{{"email": "a@b.co", "phone": "1"}})
}

func TestUpsert(t *testing.T) {
	t.Parallel()
	for _, base := range []string{
		"/hubspot/crm/objects/2026-09/contacts", "/hubspot/crm/objects/2026-03/0-1", "/hubspot/crm/v3/objects/contact",
	} {
		t.Run(base, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			s := portal(Options{Now: clock.now})
			body := `{"inputs":[{"id":"K1","idProperty":"partner_key","objectWriteTraceId":"t1",
				"properties":{"email":"Jane@ACME.test","firstname":"Jane","partner_status":"active"}}]}`
			a := send(t, s, "POST", base+"/batch/upsert", body)
			wantStatus(t, a, 200)
			wantEqual(t, "status field", a.body["status"], any("COMPLETE"))
			result := a.byTrace()["t1"]
			wantEqual(t, "new", result["new"], any(true))
			properties := result["properties"].(map[string]any)
			wantEqual(t, "normalised email", properties["email"], any("jane@acme.test"))
			wantEqual(t, "hs_object_id", properties["hs_object_id"], result["id"])
			wantEqual(t, "createdAt", result["createdAt"], any("2026-11-21T12:00:00.000Z"))

			a = send(t, s, "POST", base+"/batch/upsert", strings.Replace(body, `"active"`, `""`, 1))
			wantStatus(t, a, 200)
			again := a.byTrace()["t1"]
			wantEqual(t, "new", again["new"], any(false))
			wantEqual(t, "id", again["id"], result["id"])
			wantEqual(t, "stored", values(s, "0-1"), []map[string]any{
				{"partner_key": "K1", "email": "jane@acme.test", "firstname": "Jane"},
			})
			got, ok := s.Get("hubspot", "contacts", result["id"].(string))
			wantEqual(t, "found", ok, true)
			wantEqual(t, "record", got, Record{
				Dialect: "hubspot", Object: "contacts", ID: result["id"].(string),
				Properties: map[string]any{"partner_key": "K1", "email": "jane@acme.test", "firstname": "Jane"},
				Created:    clock.at, Updated: clock.at, Writes: 2,
			})
		})
	}
}

// Refused requests: status, category and text, and nothing may have been written.
func TestUpsertRefused(t *testing.T) {
	t.Parallel()
	many := func(n int) string {
		var rows []string
		for i := range n {
			rows = append(rows, fmt.Sprintf(`{"id":"K%d","idProperty":"partner_key","properties":{"firstname":"x"}}`, i))
		}
		return strings.Join(rows, ",")
	}
	one := func(key, properties string) string {
		return fmt.Sprintf(`{"id":"K1","idProperty":%q,"properties":%s}`, key, properties)
	}
	const notString = "Cannot deserialize value of type `java.lang.String` from "
	tests := []struct {
		name     string
		object   string
		give     string // the inputs
		want     int
		category string
		message  string
	}{
		{"101 rows", "contacts", many(101), 400, "VALIDATION_ERROR", "101"},
		{"a number", "contacts", one("partner_key", `{"score":5}`), 400, "VALIDATION_ERROR", notString + "Number value"},
		{"a null", "contacts", one("partner_key", `{"firstname":null}`), 400, "VALIDATION_ERROR", notString + "Null value"},
		{"a boolean", "contacts", one("partner_key", `{"approved":true}`), 400, "VALIDATION_ERROR", notString + "Boolean value"},
		{"an object", "contacts", one("partner_key", `{"firstname":{}}`), 400, "VALIDATION_ERROR", notString + "Object value"},
		{"a number as id", "contacts", `{"id":1,"idProperty":"partner_key","properties":{}}`, 400, "VALIDATION_ERROR", notString},
		{"not JSON", "contacts", `{"id":`, 400, "VALIDATION_ERROR", "Invalid input JSON on line 1, column"},
		{"no id", "contacts", `{"idProperty":"partner_key","properties":{}}`, 400, "VALIDATION_ERROR", "not set: [id]"},
		{"no properties", "contacts", `{"id":"1","idProperty":"partner_key"}`, 400, "VALIDATION_ERROR", "not set: [properties]"},
		{"key not unique", "companies", one("domain", `{"name":"x"}`), 400, "VALIDATION_ERROR",
			"Unable to perform update/upsert by non-unique 0-2 property domain"},
		{"deal name as key", "deals", one("dealname", `{"amount":"1"}`), 400, "VALIDATION_ERROR",
			"Unable to perform update/upsert by non-unique 0-3 property dealname"},
		{"key not defined", "contacts", one("nothing", `{"firstname":"x"}`), 400, "VALIDATION_ERROR", "PROPERTY_DOESNT_EXIST"},
		{"unknown property", "contacts", one("partner_key", `{"firstname":"x","nope":"1"}`), 400, "VALIDATION_ERROR",
			`Property values were not valid: [{"isValid":false,"message":"Property \"nope\" does not exist","error":"PROPERTY_DOESNT_EXIST","name":"nope"`},
		{"unknown option", "contacts", one("partner_key", `{"firstname":"x","partner_status":"Active"}`), 400,
			"VALIDATION_ERROR", "Active was not one of the allowed options: [active, inactive]"},
		{"unknown option of several", "contacts", one("partner_key", `{"firstname":"x","partner_tags":"gold;blue"}`), 400,
			"VALIDATION_ERROR", "blue was not one of the allowed options: [gold, emea]"},
		{"bad boolean", "contacts", one("partner_key", `{"firstname":"x","approved":"yes"}`), 400, "VALIDATION_ERROR", "INVALID_OPTION"},
		{"bad number", "contacts", one("partner_key", `{"firstname":"x","score":"ten"}`), 400, "VALIDATION_ERROR", "ten was not a valid number"},
		{"bad date", "contacts", one("partner_key", `{"firstname":"x","joined":"21.11.2026"}`), 400, "VALIDATION_ERROR", "INVALID_DATE"},
		{"bad time", "deals", one("partner_deal_key", `{"dealname":"x","dealstage":"closedwon","closedate":"soon"}`), 400,
			"VALIDATION_ERROR", "INVALID_LONG"},
		{"bad email", "contacts", one("partner_key", `{"email":"jane"}`), 400, "VALIDATION_ERROR", "Email address jane is invalid"},
		{"bad email as key", "contacts", one("email", `{"firstname":"x"}`), 400, "VALIDATION_ERROR", "INVALID_EMAIL"},
		{"read only", "contacts", one("partner_key", `{"firstname":"x","hs_object_id":"5"}`), 400, "VALIDATION_ERROR", "READ_ONLY_VALUE"},
		{"stage by label", "deals", one("partner_deal_key", `{"dealname":"x","dealstage":"Closed Won"}`), 400, "VALIDATION_ERROR",
			"Closed Won was not one of the allowed options: [appointmentscheduled, qualifiedtobuy, presentationscheduled, decisionmakerboughtin, contractsent, closedwon, closedlost]"},
		{"unknown pipeline", "deals", one("partner_deal_key", `{"dealname":"x","dealstage":"closedwon","pipeline":"other"}`), 400,
			"VALIDATION_ERROR", "other was not one of the allowed options: [default]"},
		{"contact without a name", "contacts", one("partner_key", `{"phone":"1"}`), 400, "VALIDATION_ERROR",
			"Error creating CONTACT. Some required properties were not set."},
		{"company without a name", "companies", one("partner_key", `{"city":"x"}`), 400, "VALIDATION_ERROR", "Error creating COMPANY."},
		{"deal without a stage", "deals", one("partner_deal_key", `{"dealname":"x"}`), 400, "VALIDATION_ERROR", "Error creating DEAL."},
		{"a lead cannot be made so", "leads", one("partner_lead_key", `{"hs_lead_name":"x"}`), 400, "VALIDATION_ERROR", "Error creating LEAD."},
		{"associations", "contacts", `{"id":"K1","idProperty":"partner_key","properties":{"firstname":"x"},"associations":[]}`,
			400, "VALIDATION_ERROR", `Unrecognized field "associations"`},
		{"one id twice", "contacts", one("partner_key", `{"firstname":"x"}`) + "," + one("partner_key", `{"firstname":"y"}`), 400,
			"VALIDATION_ERROR", "Duplicate IDs found in batch input: [K1]. IDs must be unique"},
		{"unknown object", "butterflies", one("k", `{}`), 400, "", "Unable to infer object type from: butterflies"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := portal(Options{})
			a := send(t, s, "POST", "/hubspot/crm/objects/2026-03/"+tt.object+"/batch/upsert", `{"inputs":[`+tt.give+`]}`)
			wantStatus(t, a, tt.want)
			wantEqual(t, "status field", a.body["status"], any("error"))
			wantEqual(t, "category", a.category(), tt.category)
			wantContains(t, "message", a.message(), tt.message)
			if a.body["correlationId"] == "" {
				t.Error("no correlationId")
			}
			wantEqual(t, "written", len(values(s, tt.object)), 0)
		})
	}
}

func TestErrorBody(t *testing.T) {
	t.Parallel()
	s := portal(Options{Account: 7})
	a := send(t, s, "POST", objects+"contacts/batch/upsert",
		`{"inputs":[{"id":"K1","idProperty":"partner_key","properties":{"x":"1"}}]}`)
	wantEqual(t, "body", a.body, map[string]any{
		"status": "error",
		"message": `Property values were not valid: [{"isValid":false,"message":"Property \"x\" does not exist",` +
			`"error":"PROPERTY_DOESNT_EXIST","name":"x","localizedErrorMessage":"Property \"x\" does not exist","portalId":7}]`,
		"correlationId": "00000000-0000-4000-8000-000000000001",
		"category":      "VALIDATION_ERROR",
		"errors": []any{map[string]any{
			"message": `Property "x" does not exist`, "code": "PROPERTY_DOESNT_EXIST",
			"context": map[string]any{"propertyName": []any{"x"}},
		}},
	})
}

func TestUpsertByRecordID(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	id := s.Put("hubspot", "contacts", map[string]any{"firstname": "x"})
	for _, key := range []string{"", `"idProperty":"hs_object_id",`} {
		row := func(id, trace string) string {
			return `{"id":"` + id + `",` + key + `"objectWriteTraceId":"` + trace + `","properties":{"phone":"1"}}`
		}
		a := send(t, s, "POST", objects+"contacts/batch/upsert", `{"inputs":[`+row(id, "1")+`,`+row("5", "2")+`]}`)
		wantStatus(t, a, 207)
		wantEqual(t, "new", a.byTrace()["1"]["new"], any(false))
		wantEqual(t, "category", a.rows("errors")[0]["category"], any("OBJECT_NOT_FOUND"))
	}
	wantEqual(t, "contacts", values(s, "contacts"), []map[string]any{{"firstname": "x", "phone": "1"}})
}

func TestDuplicateIDs(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	// Trace ids do not help, and case does not tell two ids apart.
	a := send(t, s, "POST", objects+"contacts/batch/upsert", `{"inputs":[
		{"id":"A@x.test","idProperty":"email","objectWriteTraceId":"1","properties":{}},
		{"id":"a@X.test","idProperty":"email","objectWriteTraceId":"2","properties":{}},
		{"id":"b@x.test","idProperty":"email","objectWriteTraceId":"3","properties":{}}]}`)
	wantStatus(t, a, 400)
	wantEqual(t, "context", a.body["context"], any(map[string]any{"ids": []any{"a@X.test"}}))
	wantEqual(t, "written", len(values(s, "contacts")), 0)
}

func TestPartialFailure(t *testing.T) {
	t.Parallel()
	row := func(id, trace, properties string) string {
		return fmt.Sprintf(`{"id":%q,"idProperty":"partner_key","objectWriteTraceId":%q,"properties":%s}`, id, trace, properties)
	}
	good, bad := `{"firstname":"x"}`, `{"firstname":"x","nope":"1"}`
	tests := []struct {
		name    string
		give    []string
		want    int
		written int
		failed  []string // trace ids
	}{
		{"all traced", []string{row("1", "a", good), row("2", "b", bad), row("3", "c", good)}, 207, 2, []string{"b"}},
		{"all traced, all good", []string{row("1", "a", good), row("2", "b", good)}, 200, 2, nil},
		{"all traced, all bad", []string{row("1", "a", bad), row("2", "b", bad)}, 207, 0, []string{"a", "b"}},
		{"one not traced", []string{row("1", "a", good), row("2", "b", bad), row("3", "", good)}, 400, 0, nil},
		{"one trace id twice", []string{row("1", "a", good), row("2", "b", bad), row("3", "b", good)}, 400, 0, nil},
		{"none traced", []string{row("1", "", good), row("2", "", bad)}, 400, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := portal(Options{})
			a := send(t, s, "POST", objects+"contacts/batch/upsert", `{"inputs":[`+strings.Join(tt.give, ",")+`]}`)
			wantStatus(t, a, tt.want)
			wantEqual(t, "written", len(values(s, "contacts")), tt.written)
			var failed []string
			for _, e := range a.rows("errors") {
				context, _ := e["context"].(map[string]any)
				if traces, _ := context["objectWriteTraceId"].([]any); len(traces) == 1 {
					failed = append(failed, traces[0].(string))
					wantEqual(t, "category", e["category"], any("VALIDATION_ERROR"))
					wantContains(t, "message", e["message"].(string), "PROPERTY_DOESNT_EXIST")
				}
			}
			wantEqual(t, "failed", failed, tt.failed)
			if tt.want == 207 {
				wantEqual(t, "numErrors", a.body["numErrors"], any(float64(len(tt.failed))))
				wantEqual(t, "results", len(a.rows("results")), tt.written)
			} else if _, has := a.body["numErrors"]; has {
				t.Error("numErrors without errors")
			}
		})
	}
}

func TestResultsAreNotInInputOrder(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 100; n++ {
		var rows, want []string
		for i := range n {
			want = append(want, fmt.Sprint(i))
			rows = append(rows, fmt.Sprintf(
				`{"id":"K%d","idProperty":"partner_key","objectWriteTraceId":"%d","properties":{"firstname":"x"}}`, i, i))
		}
		body := `{"inputs":[` + strings.Join(rows, ",") + `]}`
		var orders [2][]string
		for i := range orders {
			for _, r := range send(t, portal(Options{}), "POST", objects+"contacts/batch/upsert", body).rows("results") {
				orders[i] = append(orders[i], r["objectWriteTraceId"].(string))
			}
		}
		wantEqual(t, "same again", orders[1], orders[0])
		if strings.Join(orders[0], ",") == strings.Join(want, ",") {
			t.Errorf("%d rows came back in their order", n)
		}
		if len(orders[0]) != n {
			t.Errorf("%d rows came back of %d", len(orders[0]), n)
		}
	}
}

func TestEmailUpsert(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		give string // id
		want []map[string]any
		new  bool
	}{
		{"another", "new@x.test", []map[string]any{
			{"email": "jane@x.test", "hs_additional_emails": "j@y.test;j@z.test"}, {"email": "new@x.test", "phone": "1"},
		}, true},
		{"whatever the case", "JANE@x.test", []map[string]any{
			{"email": "jane@x.test", "hs_additional_emails": "j@y.test;j@z.test", "phone": "1"},
		}, false},
		{"a secondary one", "J@Z.test", []map[string]any{
			{"email": "jane@x.test", "hs_additional_emails": "j@y.test;j@z.test", "phone": "1"},
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := portal(Options{})
			s.Put("hubspot", "contacts", map[string]any{"email": "jane@x.test", "hs_additional_emails": "j@y.test;j@z.test"})
			a := send(t, s, "POST", objects+"contacts/batch/upsert",
				`{"inputs":[{"id":"`+tt.give+`","idProperty":"email","properties":{"phone":"1"}}]}`)
			wantStatus(t, a, 200)
			wantEqual(t, "new", a.rows("results")[0]["new"], any(tt.new))
			wantEqual(t, "contacts", values(s, "contacts"), tt.want)
		})
	}
}

func TestSecondaryEmailBecomesTheFirst(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	s.Put("hubspot", "contacts", map[string]any{"email": "jane@x.test", "hs_additional_emails": "j@y.test"})
	wantStatus(t, send(t, s, "PATCH", objects+"contacts/j%40y.test?idProperty=email", `{"properties":{"email":"j@y.test"}}`), 200)
	wantEqual(t, "contacts", values(s, "contacts"), []map[string]any{{"email": "j@y.test", "hs_additional_emails": "jane@x.test"}})
	// Both addresses still find the contact.
	for _, email := range []string{"j%40y.test", "jane%40x.test"} {
		wantStatus(t, send(t, s, "GET", objects+"contacts/"+email+"?idProperty=email", ""), 200)
	}
}

func TestUniqueValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		give    string // inputs of an upsert
		want    int
		message string
	}{
		{"email of another contact", `{"id":"K2","idProperty":"partner_key","properties":{"email":"Jane@x.test"}}`, 409,
			"Contact already exists. Existing ID: 171000000001"},
		{"two rows, one email", `{"id":"K2","idProperty":"partner_key","properties":{"email":"a@x.test"}},
			{"id":"K3","idProperty":"partner_key","properties":{"email":"A@x.test"}}`, 409, "Contact already exists"},
		{"key of another contact", `{"id":"new@x.test","idProperty":"email","properties":{"partner_key":"k1"}}`, 400,
			"CONFLICTING_UNIQUE_VALUE"},
		{"two ways to one contact", `{"id":"K1","idProperty":"partner_key","properties":{"phone":"1"}},
			{"id":"jane@x.test","idProperty":"email","properties":{"partner_key":"K1"}}`, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := portal(Options{})
			s.Put("hubspot", "contacts", map[string]any{"email": "jane@x.test", "partner_key": "K1"})
			a := send(t, s, "POST", objects+"contacts/batch/upsert", `{"inputs":[`+tt.give+`]}`)
			wantStatus(t, a, tt.want)
			wantContains(t, "message", a.message(), tt.message)
			wantEqual(t, "contacts", len(values(s, "contacts")), 1)
			if tt.want == 409 {
				wantEqual(t, "category", a.category(), "CONFLICT")
			}
		})
	}
}

func TestNormalisedValues(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, property, give, want string }{
		{"date from milliseconds", "joined", "1795219200000", "2026-11-21"},
		{"date as it is", "joined", "2026-11-21", "2026-11-21"},
		{"time from milliseconds", "closedate", "1795262400000", "2026-11-21T12:00:00.000Z"},
		{"time from a date", "closedate", "2026-11-21", "2026-11-21T00:00:00.000Z"},
		{"time in another zone", "closedate", "2026-11-21T07:00:00-05:00", "2026-11-21T12:00:00.000Z"},
		{"number as it is", "amount", "1500.00", "1500.00"},
		{"options", "partner_tags", "gold;emea", "gold;emea"},
		{"another option", "partner_tags", ";emea", "gold;emea"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := portal(Options{})
			object := "contacts"
			if tt.property == "closedate" || tt.property == "amount" {
				object = "deals"
			}
			id := s.Put("hubspot", object, map[string]any{"partner_tags": "gold"})
			a := send(t, s, "PATCH", objects+object+"/"+id, `{"properties":{"`+tt.property+`":"`+tt.give+`"}}`)
			wantStatus(t, a, 200)
			wantEqual(t, "answered", a.body["properties"].(map[string]any)[tt.property], any(tt.want))
			got, _ := s.Get("hubspot", object, id)
			wantEqual(t, "stored", got.Properties[tt.property], any(tt.want))
		})
	}
}

func TestLifecycleStageNeverGoesBack(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	id := s.Put("hubspot", "contacts", map[string]any{"email": "a@x.test", "lifecyclestage": "opportunity"})
	for _, step := range []struct{ give, want string }{
		{"lead", "opportunity"}, {"customer", "customer"}, {"subscriber", "customer"}, {"", ""}, {"lead", "lead"},
	} {
		a := send(t, s, "PATCH", objects+"contacts/"+id, `{"properties":{"lifecyclestage":"`+step.give+`"}}`)
		wantStatus(t, a, 200)
		got, _ := s.Get("hubspot", "contacts", id)
		wantEqual(t, "stage after "+step.give, text(got.Properties["lifecyclestage"]), step.want)
	}
}

func TestRequiredOnCreateByVersion(t *testing.T) {
	t.Parallel()
	body := `{"properties":{"dealname":"x","dealstage":"closedwon"}}`
	for _, tt := range []struct {
		path string
		want int
	}{
		{"/hubspot/crm/v3/objects/deals", 201}, {"/hubspot/crm/objects/2026-03/deals", 201}, {"/hubspot/crm/objects/2026-09/deals", 400},
	} {
		a := send(t, portal(Options{}), "POST", tt.path, body)
		wantStatus(t, a, tt.want)
		if tt.want == 400 {
			wantEqual(t, "context", a.body["context"], any(map[string]any{"properties": []any{"region"}}))
		}
	}
}

func TestPipelineIsRequiredWhenThereAreSeveral(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	s.DefinePipeline("hubspot", "deals", Pipeline{ID: "9001", Label: "Partners", Stages: []Stage{{ID: "9002", Label: "New"}}})
	create := func(properties string) answer {
		return send(t, s, "POST", "/hubspot/crm/v3/objects/deals", `{"properties":{"dealname":"x",`+properties+`}}`)
	}
	wantStatus(t, create(`"dealstage":"closedwon"`), 400)
	wantStatus(t, create(`"dealstage":"closedwon","pipeline":"9001"`), 400)
	a := create(`"dealstage":"9002","pipeline":"9001"`)
	wantStatus(t, a, 201)
	// A stage alone is held against the pipeline that the deal is in.
	path := "/hubspot/crm/v3/objects/deals/" + a.body["id"].(string)
	wantStatus(t, send(t, s, "PATCH", path, `{"properties":{"dealstage":"closedwon"}}`), 400)
	wantStatus(t, send(t, s, "PATCH", path, `{"properties":{"dealstage":"closedwon","pipeline":"default"}}`), 200)
}

func TestCreate(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	contact := s.Put("hubspot", "contacts", map[string]any{"email": "jane@x.test"})
	lead := func(associations string) answer {
		return send(t, s, "POST", objects+"leads", `{"properties":{"hs_lead_name":"x"}`+associations+`}`)
	}
	tests := []struct {
		name    string
		give    answer
		want    int
		message string
	}{
		{"contact that is there", send(t, s, "POST", objects+"contacts", `{"properties":{"email":"Jane@x.test"}}`), 409,
			"Contact already exists. Existing ID: " + contact},
		{"batch with a contact that is there", send(t, s, "POST", objects+"contacts/batch/create",
			`{"inputs":[{"properties":{"email":"n@x.test"},"associations":[]},{"properties":{"email":"jane@x.test"},"associations":[]}]}`), 409, "Contact already exists"},
		{"lead without a contact", lead(""), 400, "Error creating LEAD"},
		{"lead with a contact that is not there", lead(`,"associations":[{"to":{"id":"5"},
			"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":578}]}]`), 404, "not found"},
		{"lead with a wrong type", lead(`,"associations":[{"to":{"id":"` + contact + `"},
			"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":279}]}]`), 400,
			"association type id 279 doesn't exist between lead and contact"},
		{"no properties", send(t, s, "POST", objects+"contacts", `{}`), 400, "not set: [properties]"},
		{"batch without associations", send(t, s, "POST", objects+"contacts/batch/create", `{"inputs":[{"properties":{"email":"n@x.test"}}]}`), 400,
			"not set: [associations]"},
	}
	for _, tt := range tests {
		if tt.give.status != tt.want || !strings.Contains(tt.give.message(), tt.message) {
			t.Errorf("%s: %d %s, want %d %s", tt.name, tt.give.status, tt.give.raw, tt.want, tt.message)
		}
	}
	wantEqual(t, "contacts", len(values(s, "contacts")), 1)
	wantEqual(t, "leads", len(values(s, "leads")), 0)

	a := lead(`,"associations":[{"to":{"id":"` + contact + `"},
		"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":578}]}]`)
	wantStatus(t, a, 201)
	link := Link{Dialect: "hubspot", FromObject: "leads", FromID: a.body["id"].(string), ToObject: "contacts", ToID: contact, Category: "HUBSPOT_DEFINED"}
	ordinary, primary := link, link
	ordinary.TypeID, primary.TypeID, primary.Label = 608, 578, "Primary"
	wantEqual(t, "links", s.Links("hubspot"), []Link{ordinary, primary})
	a = send(t, s, "POST", objects+"contacts/batch/create", `{"inputs":[{"properties":{"email":"n@x.test"},"associations":[]}]}`)
	wantStatus(t, a, 201)
	a = send(t, s, "POST", objects+"contacts/batch/create", `{"inputs":[
		{"objectWriteTraceId":"1","properties":{"email":"m@x.test"},"associations":[]},
		{"objectWriteTraceId":"2","properties":{"email":"n@x.test"},"associations":[]}]}`)
	wantStatus(t, a, 207)
	wantEqual(t, "category", a.rows("errors")[0]["category"], any("CONFLICT"))
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	id := s.Put("hubspot", "contacts", map[string]any{"email": "a+b/c@x.test", "partner_key": "K/1"})
	for _, tt := range []struct {
		name, path, body string
		want             int
	}{
		{"by id", "contacts/" + id, `{"properties":{"phone":"1"}}`, 200},
		{"by email", "contacts/a%2Bb%2Fc@x.test?idProperty=email", `{"properties":{"phone":"2"}}`, 200},
		{"by key", "contacts/K%2F1?idProperty=partner_key", `{"properties":{"phone":"3"}}`, 200},
		{"not there", "contacts/5", `{"properties":{"phone":"4"}}`, 404},
		{"not there by email", "contacts/z@x.test?idProperty=email", `{"properties":{"phone":"4"}}`, 404},
		{"by a property that is not unique", "contacts/1?idProperty=phone", `{"properties":{"phone":"4"}}`, 400},
		{"nothing to change", "contacts/" + id, `{"properties":{}}`, 400},
		{"id of another object", "deals/" + id, `{"properties":{"amount":"1"}}`, 404},
	} {
		if a := send(t, s, "PATCH", objects+tt.path, tt.body); a.status != tt.want {
			t.Errorf("%s: %d, want %d: %s", tt.name, a.status, tt.want, a.raw)
		}
	}
	wantEqual(t, "contacts", values(s, "contacts"), []map[string]any{{"email": "a+b/c@x.test", "partner_key": "K/1", "phone": "3"}})

	// A record that is not there never fails the others, traced or not.
	a := send(t, s, "POST", objects+"contacts/batch/update",
		`{"inputs":[{"id":"`+id+`","properties":{"phone":"5"}},{"id":"7","properties":{"phone":"5"}}]}`)
	wantStatus(t, a, 207)
	wantEqual(t, "errors", a.rows("errors"), []map[string]any{{
		"status": "error", "category": "OBJECT_NOT_FOUND",
		"message": "Could not get some CONTACT objects, they may be deleted or not exist. Check that ids are valid.",
		"context": map[string]any{"ids": []any{"7"}},
	}})
	a = send(t, s, "POST", objects+"contacts/batch/update",
		`{"inputs":[{"id":"K/1","idProperty":"partner_key","objectWriteTraceId":"1","properties":{"phone":"6"}},
		{"id":"K9","idProperty":"partner_key","objectWriteTraceId":"2","properties":{"phone":"5"}}]}`)
	wantStatus(t, a, 207)
	wantEqual(t, "context", a.rows("errors")[0]["context"], any(map[string]any{"ids": []any{"K9"}, "objectWriteTraceId": []any{"2"}}))
	got, _ := s.Get("hubspot", "contacts", id)
	wantEqual(t, "phone", got.Properties["phone"], any("6"))
}

func TestArchive(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	a := s.Put("hubspot", "contacts", map[string]any{"partner_key": "K1", "firstname": "a"})
	b := s.Put("hubspot", "contacts", map[string]any{"partner_key": "K2", "firstname": "b"})
	wantStatus(t, send(t, s, "PUT", objects+"contacts/"+a+"/associations/default/contacts/"+b, ""), 200)
	wantStatus(t, send(t, s, "DELETE", objects+"contacts/"+a, ""), 204)
	wantStatus(t, send(t, s, "DELETE", objects+"contacts/"+a, ""), 204)
	wantStatus(t, send(t, s, "GET", objects+"contacts/"+a, ""), 404)
	wantEqual(t, "links", len(s.Links("hubspot")), 0)
	// Its key is free again.
	up := send(t, s, "POST", objects+"contacts/batch/upsert",
		`{"inputs":[{"id":"K1","idProperty":"partner_key","properties":{"firstname":"c"}}]}`)
	wantEqual(t, "new", up.rows("results")[0]["new"], any(true))
	wantStatus(t, send(t, s, "POST", objects+"contacts/batch/archive", `{"inputs":[{"id":"`+b+`"},{"id":"1"}]}`), 204)
	wantEqual(t, "contacts", values(s, "contacts"), []map[string]any{{"partner_key": "K1", "firstname": "c"}})
}

func TestCustomObject(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	for _, object := range []string{"payouts", "PAYOUTS"} {
		a := send(t, s, "POST", objects+object+"/batch/upsert", `{"inputs":[{"id":"P1","idProperty":"payout_key","properties":{}}]}`)
		wantStatus(t, a, 200)
	}
	id := s.Records("hubspot", "payouts")[0].ID
	contact := s.Put("hubspot", "contacts", map[string]any{"firstname": "x"})
	a := send(t, s, "POST", "/hubspot/crm/associations/2026-09/payouts/contacts/batch/associate/default",
		`{"inputs":[{"from":{"id":"`+id+`"},"to":{"id":"`+contact+`"}}]}`)
	wantStatus(t, a, 200)
	typeID := send(t, s, "POST", "/hubspot/crm/associations/2026-09/payouts/contacts/batch/create",
		`{"inputs":[{"from":{"id":"`+id+`"},"to":{"id":"`+contact+`"},"types":[{"associationCategory":"USER_DEFINED","associationTypeId":`+
			fmt.Sprint(s.Links("hubspot")[0].TypeID)+`}]}]}`).rows("results")[0]["fromObjectTypeId"].(string)
	wantStatus(t, send(t, s, "GET", objects+typeID+"/"+id, ""), 200)
	wantEqual(t, "payouts", len(values(s, "payouts")), 1)
	wantEqual(t, "links", len(s.Links("hubspot")), 1)
}
