package sandbox

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

const atObjects = "/attio/v2/objects/"

func atBody(values string) string { return `{"data":{"values":{` + values + `}}}` }

func TestAttioAssert(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Now: newClock().now})
	assert := func(name, object, key, values string, want int, says map[string]any) exchange {
		return exchange{name: name, method: "PUT", path: atObjects + object + "/records?matching_attribute=" + key, body: atBody(values), want: want, says: says}
	}
	converse(t, s,
		assert("create", "people", "email_addresses", `"email_addresses":["A@b.co"],"name":"Doe, Jane","tags":["gold"]`, 200, map[string]any{
			"data.values.email_addresses.0.email_address": "a@b.co", "data.values.name.0.full_name": "Jane Doe", "data.values.name.0.last_name": "Doe",
			"data.values.tags.0.option.title": "gold", "data.values.job_title": []any{}, "data.created_at": "2026-11-21T12:00:00.000000000Z",
		}),
		assert("the matching attribute is added to, others are replaced", "people", "email_addresses",
			`"email_addresses":["a@b.co","jane@b.co"],"tags":["emea"],"score":5`, 200, map[string]any{
				"data.values.email_addresses.1.email_address": "jane@b.co", "data.values.tags.0.option.title": "emea", "data.values.tags.1": nil,
				"data.values.score.0.value": 5, "data.values.name.0.full_name": "Jane Doe",
			}),
		assert("by a key of one's own", "people", "partner_key", `"partner_key":"PS-1","job_title":"CEO"`, 200, nil),
		assert("not unique", "people", "job_title", `"job_title":"CEO"`, 400, map[string]any{"code": "matching_attribute_definition_not_unique", "type": "invalid_request_error"}),
		assert("unknown key", "people", "nope", `"nope":"1"`, 400, map[string]any{"code": "value_not_found", "message": `No attribute was found for matching_attribute slug/ID "nope".`}),
		assert("no value for the key", "people", "partner_key", `"job_title":"CEO"`, 400, map[string]any{"code": "missing_value"}),
		assert("two records match", "people", "email_addresses", `"email_addresses":["a@b.co"],"partner_key":"PS-1"`, 409, map[string]any{"code": "uniqueness_conflict", "status_code": 409}),
		assert("unknown object", "butterflies", "name", `"name":"x"`, 404, map[string]any{"code": "not_found"}),
		assert("unknown attribute", "people", "partner_key", `"partner_key":"1","nope":"x"`, 400, map[string]any{"code": "value_not_found", "message": `Cannot find attribute with slug/ID "nope".`}),
		assert("an option that is not there", "people", "partner_key", `"partner_key":"1","tags":["silver"]`, 400, map[string]any{"code": "value_not_found"}),
		assert("a list is wanted", "people", "partner_key", `"partner_key":"1","email_addresses":"x@y.co"`, 400, map[string]any{"code": "validation_type"}),
		assert("one value is wanted", "people", "partner_key", `"partner_key":["1","2"]`, 400, map[string]any{"code": "validation_type"}),
		assert("address", "people", "partner_key", `"partner_key":"1","email_addresses":["nobody"]`, 400, map[string]any{"code": "validation_type"}),
		assert("number", "people", "partner_key", `"partner_key":"1","score":"many"`, 400, map[string]any{"code": "validation_type"}),
		assert("a deal lacks its stage", "deals", "partner_key", `"partner_key":"D1","name":"Deal"`, 400, map[string]any{"code": "missing_value"}),
		assert("stage by title", "deals", "partner_key", `"partner_key":"D1","name":"Deal","stage":"in progress","value":100.5`, 200, map[string]any{
			"data.values.stage.0.status.title": "In Progress", "data.values.value.0.currency_value": 100.5,
		}),
		assert("no such stage", "deals", "partner_key", `"partner_key":"D1","stage":"Closed"`, 400, map[string]any{"code": "value_not_found"}),
		assert("an object of one's own", "payouts", "payout_key", `"payout_key":"1","name":"x"`, 200, nil),
		exchange{name: "values and nothing else", method: "PUT", path: atObjects + "people/records?matching_attribute=partner_key", body: `{"data":{"values":{"partner_key":"1"},"x":1}}`, want: 400,
			says: map[string]any{"code": "validation_type"}},
		exchange{name: "not JSON", method: "PUT", path: atObjects + "people/records?matching_attribute=partner_key", body: `{"data"`, want: 400},
		exchange{name: "without the key", method: "PUT", path: atObjects + "people/records", body: atBody(`"name":"x"`), want: 400},
	)
	converse(t, s, assert("two that match", "people", "email_addresses", `"email_addresses":["a@b.co","other@b.co"],"name":"x"`, 200, nil),
		exchange{name: "another", path: atObjects + "people/records", body: atBody(`"email_addresses":["third@b.co"]`), want: 200},
		assert("several", "people", "email_addresses", `"email_addresses":["a@b.co","third@b.co"]`, 400, map[string]any{"code": "multiple_match_results"}))
	wantEqual(t, "people", len(s.Records("attio", "people")), 3)
}

func TestAttioConflict(t *testing.T) {
	t.Parallel()
	for want, variants := range map[int][]Variant{409: nil, 400: {AttioConflict400}} {
		s := furnished(Options{Variants: variants})
		id := s.Put("attio", "deals", map[string]any{"name": "x", "partner_key": "K"})
		converse(t, s, exchange{name: "taken", path: atObjects + "deals/records", body: atBody(`"name":"y","stage":"Lead","partner_key":"k"`), want: want,
			says: map[string]any{"code": "uniqueness_conflict", "status_code": want}, holds: "Conflicting record IDs: " + id})
	}
}

func TestAttioVariants(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Variants: []Variant{AttioStandardKeys, AttioDealOwner}})
	converse(t, s,
		exchange{name: "people take no keys of one's own", method: "PUT", path: atObjects + "people/records?matching_attribute=partner_key", body: atBody(`"partner_key":"1"`), want: 400,
			says: map[string]any{"code": "matching_attribute_definition_not_unique"}},
		exchange{name: "their own they do", method: "PUT", path: atObjects + "people/records?matching_attribute=email_addresses", body: atBody(`"email_addresses":["a@b.co"]`), want: 200},
		exchange{name: "owner", path: atObjects + "deals/records", body: atBody(`"name":"y","stage":"Lead"`), want: 400, says: map[string]any{"code": "missing_value"}, holds: "(owner)"},
		exchange{name: "with an owner", path: atObjects + "deals/records", body: atBody(`"name":"y","stage":"Lead","owner":[{"referenced_actor_type":"workspace-member","referenced_actor_id":"m1"}]`), want: 200},
	)
}

func TestAttioReferences(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	acme := s.Put("attio", "companies", map[string]any{"name": "Acme", "domains": []any{"acme.test"}})
	for range 2 {
		s.Put("attio", "companies", map[string]any{"name": "Twin"})
	}
	jane := s.Put("attio", "people", map[string]any{"name": "Jane Doe", "email_addresses": []any{"jane@acme.test"}})
	tests := []struct {
		name, give string
		want       string // the id; empty: refused, * a new one
		code       string
	}{
		{"by id", `{"target_object":"companies","target_record_id":"` + acme + `"}`, acme, ""},
		{"by domain", `{"target_object":"companies","domains":[{"domain":"acme.test"}]}`, acme, ""},
		{"by a plain value", `{"target_object":"companies","domains":"ACME.test"}`, acme, ""},
		{"shorthand", `"acme.test"`, acme, ""},
		{"none", `{"target_object":"companies","domains":[{"domain":"none.test"}]}`, "", "value_not_found"},
		{"no such id", `{"target_object":"companies","target_record_id":"00000000-0000-4000-8000-000000000000"}`, "", "value_not_found"},
		{"several", `{"target_object":"companies","name":"Twin"}`, "", "multiple_match_results"},
		{"another object", `{"target_object":"people","email_addresses":"jane@acme.test"}`, "", "validation_type"},
		{"two attributes", `{"target_object":"companies","name":"Acme","domains":"acme.test"}`, "", "validation_type"},
		{"reference format", `{"target_object":"companies","target_record_reference":{"match":{"domains":["acme.test"]}}}`, acme, ""},
		{"reference format, none", `{"target_object":"companies","target_record_reference":{"match":{"domains":"new.test"}}}`, "", "value_not_found"},
		{"reference format, several", `{"target_object":"companies","target_record_reference":{"match":{"name":"Twin"},"if_multiple_matches":"error"}}`, "", "multiple_match_results"},
		{"reference format, create", `{"target_object":"companies","target_record_reference":{"match":{"domains":"new.test"},"create":{"values":{"name":"New"}}}}`, "*", ""},
		{"a number", `5`, "", "validation_type"},
	}
	for _, tt := range tests {
		h := ask(t, s, exchange{method: "PATCH", path: atObjects + "people/records/" + jane, body: atBody(`"company":` + tt.give)})
		got := h.text("data.values.company.0.target_record_id")
		if tt.code != "" {
			wantEqual(t, tt.name+": status", h.status, 400)
			wantEqual(t, tt.name+": code", h.text("code"), tt.code)
			continue
		}
		wantEqual(t, tt.name+": status", h.status, 200)
		if tt.want != "*" {
			wantEqual(t, tt.name+": id", got, tt.want)
			continue
		}
		made, _ := s.Get("attio", "companies", got)
		wantEqual(t, tt.name+": made", made.Properties, map[string]any{"name": "New", "domains": []any{"new.test"}})
	}
	converse(t, s, exchange{name: "several people of a deal", path: atObjects + "deals/records", want: 200,
		body: atBody(`"name":"d","stage":"Lead","associated_people":["jane@acme.test",{"target_object":"people","target_record_id":"` + jane + `"}]`),
		says: map[string]any{"data.values.associated_people.0.target_record_id": jane, "data.values.associated_people.1": nil}})
}

func TestAttioRecords(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	id := s.Put("attio", "people", map[string]any{"name": "Jane Doe", "tags": []any{"gold"}, "partner_key": "K1"})
	gone := s.Put("attio", "people", map[string]any{"name": "Gone"})
	s.Archive("attio", "people", gone)
	record := atObjects + "people/records/"
	query := func(name, filter string, want int, says map[string]any) exchange {
		return exchange{name: name, path: record + "query", body: `{"filter":` + filter + `}`, want: want, says: says}
	}
	converse(t, s,
		exchange{name: "PATCH adds", method: "PATCH", path: record + id, body: atBody(`"tags":["emea"]`), want: 200, says: map[string]any{"data.values.tags.1.option.title": "emea"}},
		exchange{name: "PUT replaces", method: "PUT", path: record + id, body: atBody(`"tags":["emea"]`), want: 200, says: map[string]any{"data.values.tags.1": nil}},
		exchange{name: "cleared", method: "PATCH", path: record + id, body: atBody(`"name":null`), want: 200, says: map[string]any{"data.values.name": []any{}}},
		exchange{name: "gone", method: "PATCH", path: record + gone, body: atBody(`"name":"x"`), want: 404, says: map[string]any{"code": "not_found"}},
		exchange{name: "get", path: record + id, want: 200, says: map[string]any{"data.id.record_id": id}},
		query("by value", `{"partner_key":"k1"}`, 200, map[string]any{"data.0.id.record_id": id}),
		query("by operator", `{"$and":[{"partner_key":{"$eq":"K1"}},{"$not":{"tags":"gold"}}]}`, 200, map[string]any{"data.0.id.record_id": id}),
		query("either", `{"$or":[{"partner_key":"none"},{"tags":{"option":"emea"}}]}`, 200, map[string]any{"data.0.id.record_id": id}),
		query("nothing", `{"partner_key":"none"}`, 200, map[string]any{"data": []any{}}),
		query("unknown attribute", `{"nope":"x"}`, 400, map[string]any{"code": "unknown_filter_attribute_slug"}),
		query("unknown operator", `{"tags":{"$near":["x"]}}`, 400, map[string]any{"code": "invalid_filter_operator"}),
		query("any of several", `{"record_id":{"$in":["`+gone+`","`+id+`","x"]}}`, 200, map[string]any{"data.0.id.record_id": id, "data.1": nil}),
		query("any of several values", `{"partner_key":{"$in":["none","K1"]}}`, 200, map[string]any{"data.0.id.record_id": id}),
		query("none of several", `{"partner_key":{"$in":[]}}`, 200, map[string]any{"data": []any{}}),
		query("several that are no list", `{"partner_key":{"$in":"K1"}}`, 400, nil),
		query("$or of no list", `{"$or":{"partner_key":"K1"}}`, 400, map[string]any{"code": "validation_type"}),
		exchange{name: "attributes", path: atObjects + "people/attributes", want: 200, holds: `"api_slug":"partner_key"`},
		exchange{name: "objects", path: "/attio/v2/objects", want: 200, holds: `"api_slug":"payouts"`},
		exchange{name: "note", path: "/attio/v2/notes", body: `{"data":{"parent_object":"people","parent_record_id":"` + id + `","title":"t","format":"plaintext","content":"c"}}`, want: 200,
			says: map[string]any{"data.content": "c"}},
		exchange{name: "note of nobody", path: "/attio/v2/notes", body: `{"data":{"parent_object":"people","parent_record_id":"x","title":"t","format":"plaintext","content":"c"}}`, want: 404},
		exchange{name: "task", path: "/attio/v2/tasks", body: `{"data":{"content":"c","format":"plaintext","deadline_at":null,"is_completed":false,"assignees":[],"linked_records":[{"target_object":"people","target_record_id":"` + id + `"}]}}`, want: 200},
		exchange{name: "task without text", path: "/attio/v2/tasks", body: `{"data":{"format":"plaintext"}}`, want: 400},
		exchange{name: "delete", method: "DELETE", path: record + id, want: 200},
		exchange{name: "delete again", method: "DELETE", path: record + id, want: 404},
		exchange{name: "nowhere", path: "/attio/v2/lists", want: 404},
	)
	wantEqual(t, "notes", len(s.Records("attio", "notes")), 1)
	s = furnished(Options{MissingScopes: []string{attioWrites}})
	converse(t, s, exchange{name: "scope", path: atObjects + "people/records", body: atBody(`"name":"x"`), want: 403, says: map[string]any{"type": "auth_error", "code": "unauthorized"}},
		exchange{name: "reading may go on", path: atObjects + "people", want: 200})
}

// Every member that Attio's specification requires is required, and has one type.
func TestAttioNotesAndTasks(t *testing.T) {
	s := furnished(Options{})
	person := s.Put("attio", "people", map[string]any{"name": "Jane"})
	members := map[string]map[string]string{
		"notes": {"parent_object": `"people"`, "parent_record_id": `"` + person + `"`, "title": `"t"`, "format": `"markdown"`, "content": `"c"`},
		"tasks": {
			"content": `"c"`, "format": `"plaintext"`, "deadline_at": "null", "is_completed": "false", "assignees": "[]",
			"linked_records": `[{"target_object":"people","target_record_id":"` + person + `"}]`,
		},
	}
	body := func(kind, but, value string) string {
		var parts []string
		for _, name := range sorted(members[kind]) {
			switch {
			case name != but:
				parts = append(parts, `"`+name+`":`+members[kind][name])
			case value != "":
				parts = append(parts, `"`+name+`":`+value)
			}
		}
		return `{"data":{` + strings.Join(parts, ",") + `}}`
	}
	for kind := range members {
		made := ask(t, s, exchange{path: "/attio/v2/" + kind, body: body(kind, "", "")})
		wantEqual(t, kind, made.status, 200)
		for name := range members[kind] {
			converse(t, s, exchange{name: kind + " without " + name, path: "/attio/v2/" + kind, body: body(kind, name, ""), want: 400},
				exchange{name: kind + " with another " + name, path: "/attio/v2/" + kind, body: body(kind, name, "{}"), want: 400})
		}
		one := "/attio/v2/" + kind + "/" + made.text("data.id."+strings.TrimSuffix(kind, "s")+"_id")
		converse(t, s, exchange{name: "read", path: one, want: 200}, exchange{name: "no record", path: "/attio/v2/objects/" + kind + "/records/x", want: 404})
		if kind == "notes" {
			converse(t, s, exchange{name: "a note cannot be changed", method: "PATCH", path: one, body: `{"data":{"title":"x"}}`, want: 405})
		} else {
			converse(t, s,
				exchange{name: "changed", method: "PATCH", path: one, body: `{"data":{"is_completed":true}}`, want: 200, says: map[string]any{"data.is_completed": true}},
				exchange{name: "null is no list", method: "PATCH", path: one, body: `{"data":{"assignees":null}}`, want: 400},
				exchange{name: "the text stays", method: "PATCH", path: one, body: `{"data":{"content":"x"}}`, want: 400})
		}
		converse(t, s, exchange{name: "delete", method: "DELETE", path: one, want: 200}, exchange{name: "again", method: "DELETE", path: one, want: 404})
	}
}

func TestAttioLimits(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := furnished(Options{Now: clock.now, Limits: AttioLimits()})
	write := exchange{path: atObjects + "people/records", body: atBody(`"name":"x"`)}
	for range 25 {
		wantEqual(t, "status", ask(t, s, write).status, 200)
	}
	h := ask(t, s, write)
	wantEqual(t, "status", h.status, 429)
	wantEqual(t, "code", h.text("code"), "rate_limit_exceeded")
	wantEqual(t, "type", h.text("type"), "rate_limit_error")
	until, err := http.ParseTime(h.header.Get("Retry-After"))
	if err != nil || !until.After(clock.at) || !strings.HasSuffix(h.header.Get("Retry-After"), " GMT") {
		t.Errorf("Retry-After %q: %v", h.header.Get("Retry-After"), err)
	}
	wantEqual(t, "a query is a read", ask(t, s, exchange{path: atObjects + "people/records/query", body: `{}`}).status, 200)
	clock.at = clock.at.Add(time.Second)
	wantEqual(t, "a second later", ask(t, s, write).status, 200)
}
