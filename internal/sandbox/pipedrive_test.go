package sandbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const pdV2 = "/pipedrive/api/v2/"

// Each line is what Pipedrive's own client sent. Its records 1, 2 and 5 are ours under other numbers, its custom field is
// defined.
func TestPipedriveOfficialClient(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	person := s.Put("pipedrive", "persons", map[string]any{"name": "P"})
	org := s.Put("pipedrive", "organizations", map[string]any{"name": "O"})
	deal := s.Put("pipedrive", "deals", map[string]any{"title": "D", "abc": "K1"})
	statuses := replay(t, s, "pipedrive", `"person_id":1`, `"person_id":`+person, `"org_id":2`, `"org_id":`+org, "deals/5", "deals/"+deal)
	wantEqual(t, "statuses", statuses, []int{200, 201, 200, 200, 201})
	got, _ := s.Get("pipedrive", "deal", deal)
	wantEqual(t, "deal", got.Properties["value"], any(10.0))
	wantEqual(t, "stage", got.Properties["stage_id"], any(3.0))
	wantEqual(t, "persons", stored(s, "pipedrive", "person")[1]["abc"], any("1"))
	wantEqual(t, "leads", len(s.Records("pipedrive", "leads")), 1)
}

func TestPipedriveWrites(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Now: newClock().now})
	person := s.Put("pipedrive", "persons", map[string]any{"name": "P"})
	gone := s.Put("pipedrive", "persons", map[string]any{"name": "Gone"})
	into := s.Put("pipedrive", "persons", map[string]any{"name": "Into"})
	s.Merge("pipedrive", "persons", gone, into)
	refused := func(name, path, body, why string) exchange {
		return exchange{name: name, path: pdV2 + path, body: body, want: 400, says: map[string]any{"success": false, "code": "ERR_SCHEMA_VALIDATION_FAILED"}, holds: why}
	}
	converse(t, s,
		exchange{name: "create", path: pdV2 + "deals", want: 201, body: `{"title":"Acme","value":5000,"currency":"EUR","person_id":` + person + `,"custom_fields":{"` + dealHash + `":"PS-9"}}`,
			says: map[string]any{"success": true, "data.title": "Acme", "data.custom_fields." + dealHash: "PS-9", "data.custom_fields.abc": nil, "data.status": "open",
				"data.stage_id": 1, "data.pipeline_id": 1, "data.add_time": "2026-11-21T12:00:00Z"}},
		exchange{name: "there is no unique key: another", path: pdV2 + "deals", want: 201, body: `{"title":"Acme","custom_fields":{"` + dealHash + `":"PS-9"}}`},
		refused("a custom field at the root", "deals", `{"title":"x","`+dealHash+`":"1"}`, "Parameter '"+dealHash+"' is not allowed for this request"),
		refused("an unknown custom field", "deals", `{"title":"x","custom_fields":{"nope":"1"}}`, "custom_fields: Parameter 'nope' is not allowed"),
		refused("a standard field among the custom", "deals", `{"title":"x","custom_fields":{"value":1}}`, "Parameter 'value' is not allowed"),
		refused("required", "deals", `{"value":1}`, "Parameter 'title' is required"),
		refused("text for a number", "deals", `{"title":"x","value":"5"}`, "value: Parameter 'value' must be a number"),
		refused("text for an id", "deals", `{"title":"x","org_id":"5"}`, "Parameter 'org_id' must be an integer"),
		refused("no such record", "deals", `{"title":"x","org_id":5}`, "'org_id' refers to was not found"),
		refused("no such stage", "deals", `{"title":"x","stage_id":77}`, "Stage not found"),
		refused("status", "deals", `{"title":"x","status":"closed"}`, "must be one of [open, won, lost]"),
		refused("a reason without a loss", "deals", `{"title":"x","lost_reason":"price"}`, "only for lost deals"),
		refused("time", "activities", `{"subject":"x","due_date":"01/02/2026"}`, "must be a date"),
		refused("0 for false", "activities", `{"subject":"x","done":0}`, "must be a boolean"),
		refused("an empty array does not clear", "persons", `{"name":"x","custom_fields":{"opts":[]}}`, "must be an array of ids of options, or null"),
		refused("an option by its label", "persons", `{"name":"x","custom_fields":{"tier":"gold"}}`, "must be the id of an option"),
		refused("an option that is not there", "persons", `{"name":"x","custom_fields":{"tier":3}}`, "must be the id of an option"),
		refused("addresses", "persons", `{"name":"x","emails":["a@b.co"]}`, "must hold objects with a value"),
		refused("0 for primary", "persons", `{"name":"x","emails":[{"value":"a@b.co","primary":1}]}`, "value, primary and label"),
		refused("too long", "persons", `{"name":"x","custom_fields":{"abc":"`+strings.Repeat("x", 256)+`"}}`, "no longer than 255"),
		exchange{name: "options", path: pdV2 + "persons", body: `{"name":"x","custom_fields":{"tier":2,"opts":[190,191],"score":1.5,"abc":null}}`, want: 201},
		exchange{name: "a field of Contact Sync", path: pdV2 + "persons", body: `{"name":"x","job_title":"CEO"}`, want: 403},
		exchange{name: "not JSON", path: pdV2 + "persons", body: `{"name"`, want: 400, says: map[string]any{"success": false}},
		exchange{name: "update", method: "PATCH", path: pdV2 + "persons/" + person, body: `{"custom_fields":{"abc":"1"}}`, want: 200, says: map[string]any{"data.name": "P", "data.custom_fields.abc": "1"}},
		exchange{name: "no email", path: pdV2 + "persons", body: `{"name":"P","email":"a@b.test"}`, want: 400},
		exchange{name: "clear", method: "PATCH", path: pdV2 + "persons/" + person, body: `{"custom_fields":{"abc":null}}`, want: 200, says: map[string]any{"data.custom_fields.abc": nil}},
		exchange{name: "merged into another", method: "PATCH", path: pdV2 + "persons/" + gone, body: `{"name":"y"}`, want: 404, says: map[string]any{"success": false}},
		exchange{name: "PUT is gone", method: "PUT", path: pdV2 + "persons/" + person, body: `{"name":"y"}`, want: 405},
		exchange{name: "delete", method: "DELETE", path: pdV2 + "persons/" + person, want: 200},
		exchange{name: "deleted", method: "PATCH", path: pdV2 + "persons/" + person, body: `{"name":"y"}`, want: 404},
		exchange{name: "v1 is out of support", path: "/pipedrive/api/v1/deals", body: `{"title":"x"}`, want: 410},
		exchange{name: "nowhere", path: pdV2 + "leads", body: `{"title":"x"}`, want: 404},
	)
	wantEqual(t, "deals", len(s.Records("pipedrive", "deals")), 2)
	converse(t, furnished(Options{Variants: []Variant{PipedriveContactSync}}),
		exchange{name: "with Contact Sync", path: pdV2 + "persons", body: `{"name":"x","job_title":"CEO"}`, want: 201})
}

func TestPipedriveLeadsAndNotes(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	person := s.Put("pipedrive", "persons", map[string]any{"name": "P"})
	h := ask(t, s, exchange{path: "/pipedrive/api/v1/leads", body: `{"title":"l","person_id":` + person + `,"value":{"amount":1,"currency":"EUR"},"` + dealHash + `":"K"}`})
	wantEqual(t, "status", h.status, 201)
	id := h.text("data.id")
	if !isGUID(id) {
		t.Errorf("the id of a lead is %q, not a UUID", id)
	}
	converse(t, s,
		exchange{name: "custom fields at the root", path: "/pipedrive/api/v1/leads/" + id, want: 200, says: map[string]any{"data." + dealHash: "K", "data.custom_fields": nil}},
		exchange{name: "update", method: "PATCH", path: "/pipedrive/api/v1/leads/" + id, body: `{"title":"m"}`, want: 200},
		exchange{name: "of nobody", path: "/pipedrive/api/v1/leads", body: `{"title":"l"}`, want: 400, holds: "linked to a person or an organization"},
		exchange{name: "org_id is not its name", path: "/pipedrive/api/v1/leads", body: `{"title":"l","org_id":1}`, want: 400, holds: "'org_id' is not allowed"},
		exchange{name: "value", path: "/pipedrive/api/v1/leads", body: `{"title":"l","person_id":` + person + `,"value":5}`, want: 400, holds: "amount and currency"},
		exchange{name: "note", path: "/pipedrive/api/v1/notes", body: `{"content":"<b>x</b>","lead_id":"` + id + `","pinned_to_deal_flag":0}`, want: 201},
		exchange{name: "a note knows no PATCH", method: "PATCH", path: "/pipedrive/api/v1/notes/1", body: `{"content":"x"}`, want: 405},
		exchange{name: "note on nothing", path: "/pipedrive/api/v1/notes", body: `{"content":"x"}`, want: 400},
		exchange{name: "find by key", path: pdV2 + "itemSearch/field?entity_type=lead&field=" + dealHash + "&term=K", want: 200, says: map[string]any{"data.0.id": id}},
	)
}

func TestPipedriveDeleted(t *testing.T) {
	t.Parallel()
	for want, variants := range map[int][]Variant{404: nil, 200: {PipedriveShowsDeleted}} {
		s := furnished(Options{Variants: variants})
		id := s.Put("pipedrive", "persons", map[string]any{"name": "Jane"})
		converse(t, s, exchange{name: "there", path: pdV2 + "persons/" + id, want: 200, says: map[string]any{"data.is_deleted": false}})
		s.Archive("pipedrive", "persons", id)
		h := ask(t, s, exchange{path: pdV2 + "persons/" + id})
		wantEqual(t, "status", h.status, want)
		if want == 200 {
			wantEqual(t, "deleted", h.at("data.is_deleted"), any(true))
		}
	}
}

func TestPipedriveVariantsOfSearch(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Variants: []Variant{PipedriveFindsMore, PipedriveShowsField}})
	s.Put("pipedrive", "organizations", map[string]any{"name": "Acme Holding", "orgkey": "PS-10"})
	converse(t, s,
		exchange{name: "a key that contains it", path: pdV2 + "itemSearch/field?entity_type=organization&field=orgkey&term=PS-1&match=exact", want: 200, says: map[string]any{"data.0.orgkey": "PS-10"}},
		exchange{name: "a name that contains it", path: pdV2 + "organizations/search?fields=name&term=acme&exact_match=true", want: 200, says: map[string]any{"data.items.0.item.name": "Acme Holding"}},
	)
}

func TestPipedriveSearch(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	id := s.Put("pipedrive", "persons", map[string]any{
		"name": "Jane Doe", personHash: "PS-1", "emails": []any{map[string]any{"value": "Jane@Acme.test", "primary": true}}, "score": 5.0,
	})
	s.Put("pipedrive", "persons", map[string]any{"name": "John Roe", personHash: "PS-12"})
	archived := s.Put("pipedrive", "deals", map[string]any{"title": "Old", "is_archived": true})
	lead := s.Put("pipedrive", "leads", map[string]any{"title": "l"})
	if _, has := ask(t, s, exchange{path: "/pipedrive/api/v1/leads/" + lead}).at("data").(map[string]any)[dealHash]; has {
		t.Error("a lead shows a custom field without a value")
	}
	n := atoi(id, 0)
	field := func(query string) string { return pdV2 + "itemSearch/field?entity_type=person&" + query }
	converse(t, s,
		exchange{name: "exact", path: field("field=" + personHash + "&term=PS-1&match=exact"), want: 200, says: map[string]any{"data.0.id": n, "data.0.name": "Jane Doe", "data.1": nil}},
		exchange{name: "exact is the default", path: field("field=" + personHash + "&term=PS-1"), want: 200, says: map[string]any{"data.1": nil}},
		exchange{name: "the case matters", path: field("field=" + personHash + "&term=ps-1"), want: 200, says: map[string]any{"data": []any{}, "success": true}},
		exchange{name: "beginning", path: field("field=" + personHash + "&term=PS&match=beginning"), want: 200, says: map[string]any{"data.1.name": "John Roe"}},
		exchange{name: "a number", path: field("field=score&term=5"), want: 200, says: map[string]any{"data.0.id": n}},
		exchange{name: "options cannot be searched", path: field("field=tier&term=1"), want: 400},
		exchange{name: "unknown field", path: field("field=nope&term=1"), want: 400},
		exchange{name: "no term", path: field("field=" + personHash), want: 400},
		exchange{name: "plural is no type", path: pdV2 + "itemSearch/field?entity_type=persons&field=name&term=x", want: 400},
		exchange{name: "by address, whatever the case", path: pdV2 + "persons/search?term=jane%40acme.TEST&fields=email&exact_match=true", want: 200,
			says: map[string]any{"data.items.0.item.id": n, "data.items.0.item.type": "person", "data.items.0.item.emails.0": "Jane@Acme.test"}},
		exchange{name: "exact is exact", path: pdV2 + "persons/search?term=jane&fields=email&exact_match=true", want: 200, says: map[string]any{"data.items": []any{}}},
		exchange{name: "part", path: pdV2 + "itemSearch?term=doe&item_types=person,deal", want: 200, says: map[string]any{"data.items.0.item.id": n}},
		exchange{name: "stages", path: pdV2 + "stages?pipeline_id=1", want: 200, says: map[string]any{"data.2.id": 3, "data.2.name": "Demo Scheduled"}},
		exchange{name: "fields", path: pdV2 + "personFields", want: 200, holds: `"field_code":"` + personHash + `"`},
		exchange{name: "fields of v1", path: "/pipedrive/api/v1/dealFields", want: 200, holds: `"key":"` + dealHash + `"`},
		exchange{name: "list", path: pdV2 + "persons?limit=1", want: 200, says: map[string]any{"data.0.id": n, "data.1": nil, "additional_data.next_cursor": "1"}},
		exchange{name: "next page", path: pdV2 + "persons?cursor=1", want: 200, says: map[string]any{"data.0.name": "John Roe", "additional_data.next_cursor": nil}},
		exchange{name: "a page of a search", path: field("field=" + personHash + "&term=PS&match=beginning&limit=1"), want: 200, says: map[string]any{"data.1": nil, "additional_data.next_cursor": "1"}},
		exchange{name: "too many", path: field("field=" + personHash + "&term=PS-1&limit=501"), want: 400},
		exchange{name: "a page of people", path: pdV2 + "persons/search?term=o&fields=name&exact_match=false", want: 400},
		exchange{name: "no such field", path: pdV2 + "persons/search?term=jane&fields=emails", want: 400},
		exchange{name: "by ids", path: pdV2 + "persons?ids=" + id + ",77&custom_fields=score", want: 200,
			says: map[string]any{"data.0.id": n, "data.0.custom_fields.score": 5, "data.0.custom_fields." + personHash: nil, "data.1": nil}},
		exchange{name: "too many ids", path: pdV2 + "persons?ids=" + strings.Repeat("1,", 100) + id, want: 400},
		exchange{name: "too many custom fields", path: pdV2 + "persons/" + id + "?custom_fields=" + strings.Repeat("a,", 15) + "b", want: 400},
		exchange{name: "a lead by its title", path: pdV2 + "leads/search?term=L&fields=title&exact_match=true", want: 200, says: map[string]any{"data.items.0.item.id": lead}},
		exchange{name: "archived deals are not listed", path: pdV2 + "deals", want: 200, says: map[string]any{"data": []any{}}},
		exchange{name: "but read", path: pdV2 + "deals/" + archived, want: 200, says: map[string]any{"data.is_archived": true}},
		exchange{name: "get", path: pdV2 + "persons/" + id, want: 200, says: map[string]any{"data.name": "Jane Doe"}},
	)
}

// The index is behind, so a search does not see what was just made; who asks and then creates makes it twice.
func TestPipedriveSearchLags(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := furnished(Options{Now: clock.now, Lag: 5 * time.Second})
	converse(t, s, exchange{name: "create", path: pdV2 + "deals", body: `{"title":"x","custom_fields":{"abc":"K1"}}`, want: 201})
	find := exchange{name: "too early", path: pdV2 + "itemSearch/field?entity_type=deal&field=abc&term=K1", want: 200, says: map[string]any{"data": []any{}}}
	converse(t, s, find)
	clock.at = clock.at.Add(5 * time.Second)
	find.name, find.says = "in time", map[string]any{"data.0.name": "x"}
	converse(t, s, find)
}

func TestPipedriveLimits(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := furnished(Options{Now: clock.now, Limits: PipedriveLimits(), Patience: 3})
	get := exchange{path: pdV2 + "stages"}
	search := exchange{path: pdV2 + "itemSearch/field?entity_type=deal&field=abc&term=K1"}
	h := ask(t, s, get)
	for name, want := range map[string]string{"X-Ratelimit-Limit": "20", "X-Ratelimit-Remaining": "19", "X-Ratelimit-Reset": "2", "X-Daily-Requests-Left": "29999"} {
		wantEqual(t, name, h.header.Get(name), want)
	}
	wantEqual(t, "a search costs twenty", ask(t, s, search).header.Get("X-Daily-Requests-Left"), "29979")
	for range 9 {
		ask(t, s, search)
	}
	h = ask(t, s, search)
	wantEqual(t, "searches", h.status, 429)
	wantEqual(t, "remaining", h.header.Get("X-Ratelimit-Remaining"), "0")
	wantEqual(t, "retry after", h.header.Get("Retry-After"), "")
	wantEqual(t, "another request", ask(t, s, get).status, 200)
	for range 8 {
		ask(t, s, get)
	}
	for i, want := range []int{429, 429, 429, 403, 403} {
		h = ask(t, s, get)
		wantEqual(t, fmt.Sprint("refusal ", i), h.status, want)
	}
	wantContains(t, "Cloudflare", h.header.Get("Content-Type"), "text/html")
	wantContains(t, "Cloudflare", h.raw, "<h1>")
	clock.at = clock.at.Add(2 * time.Second)
	wantEqual(t, "who waits is served", ask(t, s, get).status, 200)

	s.SetLimits(Limit{Dialect: "pipedrive", Policy: "daily", Requests: 26, Per: 24 * time.Hour, Weighed: true})
	wantEqual(t, "search", ask(t, s, search).status, 200)
	wantEqual(t, "write", ask(t, s, exchange{path: pdV2 + "persons", body: `{"name":"x"}`}).header.Get("X-Daily-Requests-Left"), "1")
	h = ask(t, s, exchange{path: pdV2 + "persons", body: `{"name":"x"}`})
	wantEqual(t, "nothing left for a write", h.status, 429)
	wantEqual(t, "left", h.header.Get("X-Daily-Requests-Left"), "0")
	wantEqual(t, "a token request costs nothing", fetch(t, s, "/pipedrive/oauth/token", "a:b", "grant_type", "refresh_token", "refresh_token", "x").status, 200)
	clock.at = clock.at.Add(12 * time.Hour)
	wantEqual(t, "past midnight", ask(t, s, search).status, 200)
}
