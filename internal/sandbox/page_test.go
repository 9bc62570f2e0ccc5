package sandbox

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	t.Parallel()
	s := portal(Options{Now: newClock().now})
	wantContains(t, "empty page", send(t, s, "GET", "/", "").raw, "No records yet")
	old := s.Put("hubspot", "contacts", map[string]any{"firstname": "<script>alert(1)</script>"})
	company := s.Put("hubspot", "companies", map[string]any{"name": "Acme"})
	young := s.Put("hubspot", "contacts", map[string]any{"firstname": "Newest"})
	wantStatus(t, send(t, s, "PUT", objects+"contacts/"+old+"/associations/default/companies/"+company, ""), 200)
	wantStatus(t, send(t, s, "POST", "/webhook/x", `{"hook":"<b>"}`), 200)
	s.Fault(Fault{Effect: EffectStatus, Status: 503})
	wantStatus(t, send(t, s, "GET", objects+"contacts", ""), 503)

	a := send(t, s, "GET", "/", "")
	wantStatus(t, a, 200)
	wantEqual(t, "kind", a.header.Get("Content-Type"), "text/html; charset=utf-8")
	for _, want := range []string{
		"hubspot / contacts", "hubspot / companies", "&lt;script&gt;alert(1)", "companies " + company, "contacts " + old,
		"3 records", "1 links", `http-equiv="refresh"`, "{&#34;hook&#34;:&#34;&lt;b&gt;&#34;}", "Fault 1: status 503", "503",
	} {
		wantContains(t, "page", a.raw, want)
	}
	if strings.Contains(a.raw, "<script") || strings.Contains(a.raw, "src=") {
		t.Error("the page holds a script or an outside asset")
	}
	if strings.Index(a.raw, young) > strings.Index(a.raw, `"id">`+old) {
		t.Error("the newest record does not come first")
	}
	wantStatus(t, send(t, s, "POST", "/", "x"), 405)
}

func TestRecordsJSON(t *testing.T) {
	t.Parallel()
	s := portal(Options{Now: newClock().now})
	id := s.Put("hubspot", "contacts", map[string]any{"firstname": "Jane"})
	s.Put("hubspot", "companies", map[string]any{"name": "Acme"})
	send(t, s, "POST", "/webhook/x", `{"n":12345678901234567890}`)
	send(t, s, "POST", "/webhook/x", "plain")
	a := send(t, s, "GET", "/records.json?dialect=hubspot&object=0-1", "")
	wantStatus(t, a, 200)
	wantEqual(t, "records", a.rows("records"), []map[string]any{{
		"dialect": "hubspot", "object": "contacts", "id": id, "properties": map[string]any{"firstname": "Jane"},
		"created": "2026-11-21T12:00:00Z", "updated": "2026-11-21T12:00:00Z", "writes": float64(1),
	}})
	wantContains(t, "hooks", a.raw, `"body":{"n":12345678901234567890}`)
	wantContains(t, "hooks", a.raw, `"body":"plain"`)
	wantEqual(t, "all", len(send(t, s, "GET", "/records.json", "").rows("records")), 2)
	wantEqual(t, "of another dialect", len(send(t, s, "GET", "/records.json?dialect=x", "").rows("records")), 0)
}

func TestFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	a := send(t, s, "POST", "/faults", `{"dialect":"hubspot","path":"upsert","effect":"throttle","retry_after":"3","latency":"1ms","count":1}`)
	wantStatus(t, a, 201)
	wantStatus(t, send(t, s, "POST", upsertPath, upsertBody(1)), 429)
	wantStatus(t, send(t, s, "POST", upsertPath, upsertBody(1)), 200)
	a = send(t, s, "GET", "/faults", "")
	wantEqual(t, "faults", a.rows("faults"), []map[string]any{{
		"id": float64(1), "played": float64(1), "latency": "1ms", "dialect": "hubspot", "path": "upsert", "effect": "throttle",
		"retry_after": "3", "count": float64(1),
	}})
	wantStatus(t, send(t, s, "DELETE", "/faults/1", ""), 204)
	wantStatus(t, send(t, s, "DELETE", "/faults/1", ""), 404)
	send(t, s, "POST", "/faults", `{}`)
	wantStatus(t, send(t, s, "DELETE", "/faults", ""), 204)
	wantEqual(t, "faults", len(send(t, s, "GET", "/faults", "").rows("faults")), 0)

	for _, bad := range []string{`{"effect":"explode"}`, `{"latency":"soon"}`, `{"nope":1}`, `[`, `{"status":42}`} {
		if got := send(t, s, "POST", "/faults", bad).status; got != 400 {
			t.Errorf("%s: status %d, want 400", bad, got)
		}
	}
	form := httptest.NewRequest("POST", "/faults", strings.NewReader(`{"effect":"reset"}`))
	form.Header.Set("Content-Type", "text/plain")
	wantStatus(t, serve(t, s, form), 415)
	wantStatus(t, send(t, s, "PATCH", "/faults", `{}`), 405)
}
