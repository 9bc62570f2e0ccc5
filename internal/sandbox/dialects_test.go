package sandbox

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// exchange is one request and what has to come back.
type exchange struct {
	name   string
	method string // empty: POST with a body, GET without
	path   string
	body   string
	header string // "Name: value", several in lines
	want   int
	says   map[string]any // values of the body, by their path: 0.errors.0.statusCode
	holds  string         // part of the body
}

// heard is a reply with its body decoded, nil when it is not JSON.
type heard struct {
	status int
	header http.Header
	raw    string
	body   any
}

// ask sends a request as a client of the dialect would, with a token that is not empty.
func ask(t *testing.T, s *Server, e exchange) heard {
	t.Helper()
	method := e.method
	if method == "" {
		method = http.MethodGet
		if e.body != "" {
			method = http.MethodPost
		}
	}
	r := httptest.NewRequest(method, e.path, strings.NewReader(e.body))
	switch dialect, _, _ := strings.Cut(strings.TrimPrefix(e.path, "/"), "/"); dialect {
	case pipedriveName:
		r.Header.Set("X-Api-Token", "tok")
	case zohoName:
		r.Header.Set("Authorization", "Zoho-oauthtoken tok")
	default:
		r.Header.Set("Authorization", "Bearer tok")
	}
	if e.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for line := range strings.Lines(e.header) {
		name, value, _ := strings.Cut(line, ":")
		r.Header.Del(name)
		if value = strings.TrimSpace(value); value != "" {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	h := heard{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &h.body); err != nil {
			t.Fatalf("%s %s: body is not JSON: %v\n%s", method, e.path, err, h.raw)
		}
	}
	return h
}

// at follows a path into the body; nil where there is nothing.
func (h heard) at(path string) any {
	v := h.body
	for part := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(node) {
				return nil
			}
			v = node[i]
		default:
			return nil
		}
	}
	return v
}

func (h heard) text(path string) string { s, _ := h.at(path).(string); return s }

// converse sends requests one after the other.
func converse(t *testing.T, s *Server, exchanges ...exchange) {
	t.Helper()
	for _, e := range exchanges {
		h := ask(t, s, e)
		if h.status != e.want {
			t.Errorf("%s: status %d, want %d: %s", e.name, h.status, e.want, h.raw)
			continue
		}
		for path, want := range e.says {
			if n, ok := want.(int); ok {
				want = float64(n)
			}
			wantEqual(t, e.name+": "+path, h.at(path), want)
		}
		if !strings.Contains(h.raw, e.holds) {
			t.Errorf("%s: %s does not hold %q", e.name, h.raw, e.holds)
		}
	}
}

// stored are the properties of the live records of an object, oldest first.
func stored(s *Server, dialect, object string) []map[string]any {
	var out []map[string]any
	for _, r := range s.Records(dialect, object) {
		out = append(out, r.Properties)
	}
	return out
}

// replay sends what a vendor's own client sent, with some of it replaced, and gives the statuses.
func replay(t *testing.T, s *Server, dialect string, replace ...string) (statuses []int) {
	t.Helper()
	recorded, err := os.ReadFile("testdata/" + dialect + "_client.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(recorded) {
		var c struct{ M, U, Auth, CT, Body string }
		if err := json.Unmarshal(line, &c, json.MatchCaseInsensitiveNames(true)); err != nil {
			t.Fatal(err)
		}
		change := strings.NewReplacer(replace...)
		r := httptest.NewRequest(c.M, "/"+dialect+change.Replace(c.U), strings.NewReader(change.Replace(c.Body)))
		if dialect == pipedriveName {
			r.Header.Set("X-Api-Token", c.Auth)
		} else if c.Auth != "" {
			r.Header.Set("Authorization", c.Auth)
		}
		if c.CT != "" {
			r.Header.Set("Content-Type", c.CT)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		statuses = append(statuses, w.Code)
	}
	return statuses
}

// Whatever a body, a path or a query holds, the answer is no server error.
func FuzzDialects(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `null`, "\xff", `{"records":[{"attributes":{"type":"Contact"},"Partner_Key__c":"1","LastName":{"x":[]},"Account":{"Key__c":null}}]}`,
		`{"records":[null,{}],"allOrNone":true}`, `{"data":{"values":{"name":[[]],"email_addresses":{"email_address":1},"company":{"target_object":"companies","target_record_reference":{"match":{"domains":["a.b"]},"create":{}}}}}}`,
		`{"data":[{"Account_Name":{"id":1},"Email":["x"]},null],"duplicate_check_fields":["Email"]}`, `{"Targets":[{"@odata.id":"contacts(new_key='1')","firstname":1}]}`,
		`{"title":"x","custom_fields":{"abc":[],"opts":[1]},"emails":[1],"person_id":1.5}`, `SELECT Id FROM Contact WHERE (LastName = 'x' AND Id IN ('1','2')) LIMIT 1`,
		`((Email:equals:a@b.co)or(Last_Name:in:a,b))`, `firstname eq 'a''b' or lastname eq null`, `{"filter":{"$or":[{"name":"x"},{"$not":{"stage":{"$eq":"Lead"}}}]}}`,
		`contacts(new_key='a''b')`, `grant_type=client_credentials&client_id=%zz`, strings.Repeat("(", 300), strings.Repeat(`{"$not":`, 40),
	} {
		f.Add(seed)
	}
	requests := []exchange{
		{method: "PATCH", path: "/salesforce/services/data/v67.0/composite/sobjects/Contact/Partner_Key__c"},
		{method: "POST", path: "/salesforce/services/data/v67.0/composite/sobjects"},
		{method: "PATCH", path: "/salesforce/services/data/v67.0/sobjects/Opportunity/Partner_Key__c/1"},
		{method: "GET", path: "/salesforce/services/data/v67.0/query?q=*"},
		{method: "POST", path: "/salesforce/services/oauth2/token"},
		{method: "POST", path: "/pipedrive/api/v2/persons"},
		{method: "POST", path: "/pipedrive/api/v2/deals"},
		{method: "POST", path: "/pipedrive/api/v1/leads"},
		{method: "GET", path: "/pipedrive/api/v2/itemSearch/field?entity_type=person&field=abc&match=middle&term=*"},
		{method: "PUT", path: "/attio/v2/objects/people/records?matching_attribute=email_addresses"},
		{method: "POST", path: "/attio/v2/objects/deals/records"},
		{method: "POST", path: "/attio/v2/objects/people/records/query"},
		{method: "POST", path: "/attio/v2/tasks"},
		{method: "POST", path: "/zoho/crm/v8/Contacts/upsert"},
		{method: "PUT", path: "/zoho/crm/v8/Deals"},
		{method: "GET", path: "/zoho/crm/v8/Contacts/search?criteria=*"},
		{method: "PATCH", path: "/dataverse/api/data/v9.2/contacts(new_key='1')"},
		{method: "POST", path: "/dataverse/api/data/v9.2/contacts/Microsoft.Dynamics.CRM.UpsertMultiple"},
		{method: "GET", path: "/dataverse/api/data/v9.2/contacts?$filter=*"},
		{method: "PATCH", path: "/dataverse/api/data/v9.2/*"},
	}
	f.Fuzz(func(t *testing.T, input string) {
		s := furnished(Options{})
		for _, e := range requests {
			r := httptest.NewRequest(e.method, "/x", strings.NewReader(input))
			r.URL.Path, r.URL.RawQuery, _ = strings.Cut(e.path, "?")
			if r.URL.RawQuery != "" {
				r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "*", queryEscape(input))
			}
			r.URL.Path = strings.ReplaceAll(r.URL.Path, "*", input)
			r.Header.Set("Authorization", "Bearer x")
			if strings.HasPrefix(e.path, "/zoho") {
				r.Header.Set("Authorization", "Zoho-oauthtoken x")
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code >= 500 {
				t.Errorf("%s %s: status %d: %s", e.method, e.path, w.Code, w.Body)
			}
		}
	})
}
