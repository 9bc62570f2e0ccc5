package sinks

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"
)

// Descriptions of invented CRMs, each with the rules of a real kind: the engine
// must carry all of them as data.

const orderedCRM = `
fold: lower
error: {code: "[*].errorCode", message: "[*].message"}
row_error: {code: "errors[*].statusCode", message: "errors[*].message", field: "errors[*].fields"}
classify:
  - {status: 403, code: REQUEST_LIMIT_EXCEEDED, message: TotalRequests, class: parked, wait: 30m}
  - {status: 403, code: REQUEST_LIMIT_EXCEEDED, class: throttled, wait: 5s}
  - {status: 300, class: rejected}
classify_rows:
  - {code: UNABLE_TO_LOCK_ROW, class: unavailable, wait: 3s}
operations:
  upsert:
    method: PATCH
    path: /composite/{record.object}/{record.property}
    rows: 200
    body:
      allOrNone: false
      records:
        $each: records
        attributes: {type: record.object}
        $spread: record.fields
    result:
      mode: ordered
      results: {at: ".", ok: success, id: id, created: created}
`

func TestOrderedResults(t *testing.T) {
	t.Parallel()
	answer := `[{"id":"001","success":true,"errors":[],"created":true},
		{"success":false,"errors":[{"statusCode":"REQUIRED_FIELD_MISSING","message":"Required fields are missing: [LastName]","fields":["LastName"]}]},
		{"success":false,"errors":[{"statusCode":"UNABLE_TO_LOCK_ROW","message":"try later","fields":[]}]}]`
	tg := answering(t, 200, nil, answer)
	s := newSink(t, "base_url: "+tg.URL+"/services\n"+orderedCRM, Options{})
	rows := []Row{
		{Trace: "1", Object: "Contact", Property: "Partner_Key__c", Key: "PS/1", Values: map[string]any{
			"LastName": "Doe", "Amount": decimal.RequireFromString("10.10"), "Opted": true, "Phone": nil, "attributes": "clash",
		}},
		{Trace: "2", Object: "Contact", Property: "Partner_Key__c", Key: "2"},
		{Trace: "3", Object: "Contact", Property: "Partner_Key__c", Key: "3"},
	}
	got := s.Write(within(t), Upsert, rows)
	want := []Result{
		{Class: OK, Status: 200, ID: "001", Created: true},
		{Class: Rejected, Status: 200, Code: "REQUIRED_FIELD_MISSING", Fields: []string{"LastName"}, Message: "Required fields are missing: [LastName]"},
		{Class: Unavailable, Status: 200, Code: "UNABLE_TO_LOCK_ROW", Message: "try later", RetryAfter: 3 * time.Second},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	sent := tg.requests()[0]
	if sent.method != "PATCH" || sent.path != "/services/composite/Contact/Partner_Key__c" {
		t.Errorf("%s %s", sent.method, sent.path)
	}
	body := `{"allOrNone":false,"records":[{"attributes":{"type":"Contact"},"Amount":10.1,"LastName":"Doe","Opted":true,` +
		`"Partner_Key__c":"PS/1","Phone":null},{"attributes":{"type":"Contact"},"Partner_Key__c":"2"},` +
		`{"attributes":{"type":"Contact"},"Partner_Key__c":"3"}]}`
	if diff := cmp.Diff(body, sent.body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Rows that belong into other addresses do not share the request.
	lead := rows[1]
	lead.Object = "Lead"
	if _, a := s.Group(rows[0]); true {
		if _, b := s.Group(lead); a == b {
			t.Error("two objects in one group")
		}
		if _, b := s.Group(rows[2]); a != b {
			t.Error("two groups for one object")
		}
	}
	if r := s.Write(within(t), Upsert, rows[:2]); r[0].Class != Unavailable || r[0].Code != unknown {
		t.Errorf("an answer with another number of rows: %+v", r[0])
	}
}

func TestThrottleByForbidden(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]Result{
		"TotalRequests Limit exceeded.":      {Class: Parked, RetryAfter: 30 * time.Minute},
		"ConcurrentRequests Limit exceeded.": {Class: Throttled, RetryAfter: 5 * time.Second},
	} {
		tg := answering(t, 403, nil, `[{"message":"`+message+`","errorCode":"REQUEST_LIMIT_EXCEEDED"}]`)
		s := newSink(t, "base_url: "+tg.URL+"\n"+orderedCRM, Options{})
		r := s.Write(within(t), Upsert, []Row{{Object: "Lead", Property: "K", Key: "1"}})[0]
		if r.Class != want.Class || r.RetryAfter != want.RetryAfter || r.Message != message || r.Code != "REQUEST_LIMIT_EXCEEDED" {
			t.Errorf("%+v", r)
		}
	}
}

// Keys in the address, an id in a header, no body.
func TestKeyInTheAddress(t *testing.T) {
	t.Parallel()
	tg := newTarget(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		if strings.Contains(r.URL.Path, "absent") {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, `{"error":{"code":"0x80040217","message":"does not exist"}}`)
			return
		}
		w.Header().Set("OData-EntityId", "https://org.example/api/contacts(0000-11)")
		w.WriteHeader(204)
	})
	s := newSink(t, "base_url: "+tg.URL+`/api/data/v9.2/
error: {code: error.code, message: error.message}
classify:
  - {status: 404, operations: update, class: rejected, absent: true}
operations:
  upsert:
    method: PATCH
    path: /{record.object}({record.property}='{replace(record.key, "'", "''")}')
    headers: {Prefer: return=minimal, X-Object: "{record.object}"}
    body: record.values
    result: {results: {id: {header: OData-EntityId, pattern: '\(([^)]+)\)$'}, created: {status: 201}}}
  update:
    method: PATCH
    path: /{record.object}({record.id})
    headers: {If-Match: "*"}
    body: record.values
`, Options{})
	row := Row{Object: "contacts", Property: "new_key", Key: "a/../b c+d'e?x=1#f%2F", Values: map[string]any{"lastname": "Doe"}}
	r := s.Write(within(t), Upsert, []Row{row})[0]
	if r.Class != OK || r.ID != "0000-11" || r.Created || r.Status != 204 {
		t.Errorf("%+v", r)
	}
	sent := tg.requests()[0]
	if want := `/api/data/v9.2/contacts(new_key='a%2F..%2Fb%20c%2Bd%27%27e%3Fx=1%23f%252F')`; sent.path != want || sent.query != "" {
		t.Errorf("got  %s?%s\nwant %s", sent.path, sent.query, want)
	}
	if sent.body != `{"lastname":"Doe"}` || sent.header.Get("X-Object") != "contacts" || sent.header.Get("Prefer") != "return=minimal" {
		t.Errorf("%+v", sent)
	}
	row.ID = "absent"
	if r := s.Write(within(t), Update, []Row{row})[0]; r.Class != Rejected || !r.Absent || r.Message != "does not exist" {
		t.Errorf("%+v", r)
	}
	if s.MaxRows(Upsert) != 1 {
		t.Errorf("%d rows a request", s.MaxRows(Upsert))
	}
	for _, key := range []string{"..", "."} {
		row.Object, row.ID = key, ""
		s.Write(within(t), Upsert, []Row{row})
	}
	for _, sent := range tg.requests() {
		if !strings.HasPrefix(sent.path, "/api/data/v9.2/") {
			t.Errorf("a value left its segment: %s", sent.path)
		}
	}
}

func TestValuesNeverChooseTheHost(t *testing.T) {
	t.Parallel()
	s := newSink(t, `
base_url: https://crm.example
operations:
  upsert: {path: "/{record.object}", query: {q: "{record.key}"}}
`[1:], Options{})
	for _, object := range []string{"@evil.example", "/evil.example", "//evil.example/x", "x@evil.example:80", "\\evil.example", "%2f%2fevil.example", "?x#y"} {
		p, err := s.Preview(Upsert, []Row{{Object: object, Key: "a&b=c"}})
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest("GET", p[0].URL, nil)
		if req.URL.Host != "crm.example" || strings.Count(req.URL.EscapedPath(), "/") != 1 || req.URL.RawQuery != "q=a%26b%3Dc" {
			t.Errorf("%q gives %s", object, p[0].URL)
		}
	}
	if _, err := s.Preview(Upsert, []Row{{Key: "1"}}); err == nil {
		t.Error("an address with a hole in it")
	}
}

const searchedCRM = `
values: {nest: {into: custom_fields, match: '^[0-9a-f]{8}$'}}
find_lag: 3s
error: {code: code, message: error}
classify:
  - {status: 404, operations: [update], class: rejected, absent: true}
operations:
  upsert: {through: find}
  find:
    method: GET
    path: /search
    query: {term: "{record.key}", field: "{record.property}", entity: "{record.object}"}
    result: {mode: found, results: {at: data.items, id: item.id}, expect: success}
  create:
    path: /{record.object}
    body: record.fields
    result: {results: {id: data.id}, expect: success}
  update:
    method: PATCH
    path: /{record.object}/{record.id}
    body: record.values
    result: {expect: success}
`

func TestFindThenCreateOrUpdate(t *testing.T) {
	t.Parallel()
	found := map[string]string{"known": `[{"item":{"id":7}}]`, "new": `[]`, "twice": `[{"item":{"id":7}},{"item":{"id":8}}]`}
	tg := newTarget(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		switch {
		case r.URL.Path == "/search" && r.URL.Query().Get("term") == "broken":
			w.WriteHeader(500)
		case r.URL.Path == "/search":
			_, _ = fmt.Fprintf(w, `{"success":true,"data":{"items":%s}}`, found[r.URL.Query().Get("term")])
		case r.URL.Path == "/persons/404":
			w.WriteHeader(404)
		default:
			_, _ = io.WriteString(w, `{"success":true,"data":{"id":9007199254740993}}`)
		}
	})
	s := newSink(t, "base_url: "+tg.URL+"\n"+searchedCRM, Options{})
	row := func(key, id string) Row {
		return Row{Object: "persons", Property: "abcd1234", Key: key, ID: id, Values: map[string]any{"name": "J", "0123cdef": "x"}}
	}
	rows := []Row{row("known", ""), row("new", ""), row("twice", ""), row("broken", "")}
	got := s.Write(within(t), Upsert, rows)
	if got[0].Class != OK || got[0].ID != "7" || got[0].Created {
		t.Errorf("known: %+v", got[0])
	}
	if got[1].Class != OK || got[1].ID != "9007199254740993" || !got[1].Created {
		t.Errorf("new: %+v", got[1])
	}
	if got[2].Class != Rejected || got[2].Code != "several_found" || !strings.Contains(got[2].Message, "7, 8") {
		t.Errorf("twice: %+v", got[2])
	}
	if got[3].Class != Unavailable || got[3].Sent {
		t.Errorf("a search that failed: %+v", got[3])
	}
	var sent []string
	for _, r := range tg.requests() {
		sent = append(sent, r.method+" "+r.path+" "+r.body)
	}
	want := []string{
		"GET /search ", `PATCH /persons/7 {"name":"J","custom_fields":{"0123cdef":"x"}}`,
		"GET /search ", `POST /persons {"name":"J","custom_fields":{"0123cdef":"x","abcd1234":"new"}}`,
		"GET /search ", "GET /search ",
	}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	before := len(tg.requests())
	if r := s.Write(within(t), Upsert, []Row{row("k", "12")})[0]; r.Class != OK || r.ID != "12" {
		t.Errorf("with the id: %+v", r)
	}
	if n := len(tg.requests()) - before; n != 1 {
		t.Errorf("an update by id took %d calls", n)
	}
	if r := s.Write(within(t), Update, []Row{row("k", "404")})[0]; !r.Absent {
		t.Errorf("%+v", r)
	}
	if r := s.Write(within(t), Upsert, []Row{row("", "")})[0]; r.Class != Rejected || r.Code != "no_key" {
		t.Errorf("%+v", r)
	}
	if p, err := s.Preview(Upsert, rows[:1]); err != nil || p[0].Method != "GET" || p[0].URL != tg.URL+"/search?term=known&field=abcd1234&entity=persons" {
		t.Errorf("%+v %v", p, err)
	}
}

// A plain create is never sent again once it may have had an effect.
func TestCreateIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, status := range []int{500, 502, 503, 504} {
		tg := answering(t, status, nil, "")
		s := newSink(t, "base_url: "+tg.URL+"\n"+searchedCRM, Options{})
		r := s.Write(within(t), Create, []Row{{Object: "deals", Key: "1"}})[0]
		if r.Class != Unavailable || len(tg.requests()) != 1 {
			t.Errorf("%d: %+v after %d requests", status, r, len(tg.requests()))
		}
	}
}

// Success and failure under one status.
func TestErrorsWithStatus200(t *testing.T) {
	t.Parallel()
	tg := newTarget(t, func(w http.ResponseWriter, _ *http.Request, body string) {
		if strings.Contains(body, "quota") {
			_, _ = io.WriteString(w, `{"code":"LIMIT_EXCEEDED","message":"no more today","status":"error"}`)
			return
		}
		_, _ = io.WriteString(w, `{"data":[{"code":"SUCCESS","status":"success","action":"insert","details":{"id":"55"}},
			{"code":"MANDATORY_NOT_FOUND","status":"error","message":"required field not found","details":{"api_name":"Last_Name"}}]}`)
	})
	s := newSink(t, "base_url: "+tg.URL+`
error: {code: code, message: message}
row_error: {code: code, message: message, field: details.api_name}
classify:
  - {status: 200-299, code: LIMIT_EXCEEDED, class: parked}
  - {status: 200-299, class: ok}
operations:
  upsert:
    path: /{record.object}/upsert
    rows: 100
    body:
      data: {$each: records, $spread: record.fields}
      duplicate_check_fields: [record.property]
    result:
      mode: ordered
      results: {at: data, ok: {path: status, equals: success}, id: details.id, created: {path: action, equals: insert}}
`, Options{})
	row := Row{Object: "Leads", Property: "Partner_Key", Key: "1", Values: map[string]any{"Last_Name": "Doe"}}
	other := row
	other.Key = "2"
	got := s.Write(within(t), Upsert, []Row{row, other})
	want := []Result{
		{Class: OK, Status: 200, ID: "55", Created: true},
		{Class: Rejected, Status: 200, Code: "MANDATORY_NOT_FOUND", Fields: []string{"Last_Name"}, Message: "required field not found"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if body := tg.requests()[0].body; body != `{"data":[{"Last_Name":"Doe","Partner_Key":"1"},{"Last_Name":"Doe","Partner_Key":"2"}],"duplicate_check_fields":["Partner_Key"]}` {
		t.Error(body)
	}
	row.Key = "quota"
	if r := s.Write(within(t), Upsert, []Row{row})[0]; r.Class != Parked || r.RetryAfter != defaultPark || r.Message != "no more today" {
		t.Errorf("%+v", r)
	}
	// Rows whose key is another property are checked by another list.
	_, a := s.Group(row)
	row.Property = "Email"
	if _, b := s.Group(row); a == b {
		t.Error("rows with different key properties share a request")
	}
}
