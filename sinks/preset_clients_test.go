package sinks

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"
)

// captured is a request of a vendor's own client, as somebody caught it.
type captured struct {
	Method string `json:"m"`
	URL    string `json:"u"`
	Auth   string `json:"auth"`
	Type   string `json:"ct"`
	Body   string `json:"body"`
}

// As the vendors' own clients send it, so do we: method, path, query, body. Where
// we do otherwise, the test says why.
func TestRequestsOfOfficialClients(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/official_clients.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var captures []captured
	for line := range strings.Lines(string(data)) {
		var c captured
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		captures = append(captures, c)
	}
	row := func(op Operation, r Row) func(t *testing.T, s *Sink) Preview {
		return func(t *testing.T, s *Sink) Preview {
			p, err := s.Preview(op, []Row{r})
			if err != nil || len(p) != 1 {
				t.Fatal(p, err)
			}
			return p[0]
		}
	}
	tests := []struct {
		name, preset string
		ours         func(t *testing.T, s *Sink) Preview
		otherwise    string                         // why not
		theirs       func(c *captured)              // what of theirs we leave out or put otherwise
		mine         func(body string) (out string) // what of ours they leave out
	}{
		{name: "upsert of deals", preset: "hubspot", ours: row(Upsert, Row{
			Trace: "e1", Object: "deals", Property: "partner_deal_key", Key: "D1", Values: map[string]any{"dealname": "x", "amount": int64(10)},
		})},
		{name: "upsert of contacts", preset: "hubspot", ours: row(Upsert, Row{
			Trace: "e1", Object: "contacts", Property: "email", Key: "a@b.co", Values: map[string]any{"phone": "1"},
		}), mine: func(body string) string { // without one of its own on every row, a bad row refuses all
			return strings.Replace(body, `"objectWriteTraceId":"e1",`, "", 1)
		}},
		{name: "association", preset: "hubspot", ours: func(t *testing.T, s *Sink) Preview {
			p, err := s.PreviewLinks([]LinkRow{{From: Ref{Object: "deals", ID: "1"}, To: Ref{Object: "contacts", ID: "2"}}})
			if err != nil {
				t.Fatal(err)
			}
			return p[0]
		}, theirs: func(c *captured) { // the default association needs no type, which could change the primary company
			c.URL = strings.Replace(c.URL, "batch/create", "batch/associate/default", 1)
			c.Body = regexp.MustCompile(`"types":\[[^\]]*\],`).ReplaceAllString(c.Body, "")
		}},
		{name: "pipelines", preset: "hubspot", otherwise: "no operation reads pipelines yet"},
		{name: "single upsert", preset: "salesforce", otherwise: "the client leaves the slash of the key as it is, which is another address; keys in bodies have no such trouble"},
		{name: "collection", preset: "salesforce", ours: func(t *testing.T, s *Sink) Preview {
			p, err := s.Preview(Upsert, []Row{
				{Trace: "1", Object: "Contact", Property: "Partner_Key__c", Key: "1", Values: map[string]any{"LastName": "D1"}},
				{Trace: "2", Object: "Contact", Property: "Partner_Key__c", Key: "2", Values: map[string]any{"LastName": "D2"}},
			})
			if err != nil || len(p) != 1 {
				t.Fatal(p, err)
			}
			return p[0]
		}},
		{name: "token", preset: "salesforce", ours: func(t *testing.T, _ *Sink) Preview {
			tg := answering(t, 200, http.Header{"Content-Type": {"application/json"}}, `{"access_token":"x"}`)
			s := newSink(t, "preset: salesforce\nbase_url: "+tg.URL+"\nauth: {client_id: cid, client_secret: sec}\n", Options{})
			s.Probe(within(t))
			r := tg.requests()[0]
			if s.auth.state.Token != "x" {
				t.Error("no token")
			}
			return Preview{Method: r.method, URL: "http://x" + r.path, Header: r.header, Body: []byte(r.body)}
		}},
		{name: "search of a person", preset: "pipedrive", ours: row(Find, Row{Object: "persons", Property: "email", Key: "a+b@x.co"})},
		{name: "a person", preset: "pipedrive", ours: row(Create, Row{Object: "persons", Property: hexKey, Key: "1", Values: map[string]any{
			"name": "J", "emails": []any{map[string]any{"value": "a@b.co", "primary": true, "label": "work"}},
		}})},
		{name: "a deal", preset: "pipedrive", ours: row(Update, Row{Object: "deals", ID: "5", Values: map[string]any{"stage_id": int64(3), "value": decimal.New(10, 0)},
			Links: []RowLink{{Object: "persons", ID: "1"}, {Object: "organizations", ID: "2"}}})},
		{name: "search of a deal", preset: "pipedrive", ours: row(Find, Row{Object: "deals", Property: hexKey, Key: "K1"})},
		{name: "a lead", preset: "pipedrive", ours: row(Create, Row{Object: "leads", Values: map[string]any{
			"title": "l", "value": map[string]any{"amount": int64(1), "currency": "EUR"},
		}, Links: []RowLink{{Object: "persons", ID: "1"}}})},
	}
	if len(tests) != len(captures) {
		t.Fatalf("%d tests for %d captures", len(tests), len(captures))
	}
	for i, test := range tests {
		t.Run(test.preset+"/"+test.name, func(t *testing.T) {
			t.Parallel()
			if test.otherwise != "" {
				return
			}
			theirs := captures[i]
			if test.theirs != nil {
				test.theirs(&theirs)
			}
			config := presetConfigs[test.preset]
			if test.preset == "salesforce" {
				config += "settings: {api_version: \"64.0\"}\n"
			}
			ours := test.ours(t, newSink(t, config, Options{}))
			if ours.Method != theirs.Method {
				t.Errorf("%s, they %s", ours.Method, theirs.Method)
			}
			mine, yours := spot(t, ours.URL), spot(t, theirs.URL)
			if diff := cmp.Diff(yours, mine); diff != "" {
				t.Errorf("address (-theirs +ours):\n%s", diff)
			}
			if got := ours.Header.Get("Content-Type"); got != theirs.Type {
				t.Errorf("%q, they %q", got, theirs.Type)
			}
			body := strings.ReplaceAll(string(ours.Body), hexKey, "abc")
			if test.mine != nil {
				body = test.mine(body)
			}
			if diff := cmp.Diff(content(theirs.Body), content(body)); diff != "" {
				t.Errorf("body (-theirs +ours):\n%s", diff)
			}
		})
	}
}

var versions = regexp.MustCompile(`/(v[34]|2026-0[39])/`)

// spot is a path without the version, and what the query says.
func spot(t *testing.T, text string) map[string][]string {
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string(u.Query())
	path := strings.ReplaceAll(u.EscapedPath(), "crm/objects/2026-03", "crm/v3/objects")
	path = strings.ReplaceAll(path, "crm/associations/2026-03", "crm/v4/associations")
	out["path"] = []string{versions.ReplaceAllString(path, "/v/")}
	for i, v := range out["field"] {
		out["field"][i] = strings.ReplaceAll(v, hexKey, "abc")
	}
	return out
}

// content is what a body says, whatever its order.
func content(body string) any {
	var v any
	if json.Unmarshal([]byte(body), &v) == nil {
		return v
	}
	form, _ := url.ParseQuery(body)
	return form
}
