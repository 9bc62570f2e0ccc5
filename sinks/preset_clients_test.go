package sinks

import (
	"context"
	"encoding/json"
	"io"
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

// As the vendors' own clients send it, so do we: method, path, query, credentials,
// type and content. Where we do otherwise, the test says what and why.
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
	write := func(op Operation, rows ...Row) func(ctx context.Context, s *Sink) {
		return func(ctx context.Context, s *Sink) { s.Write(ctx, op, rows) }
	}
	presets := map[string]string{
		"hubspot":    "auth: {token: pat-x}\n",
		"pipedrive":  "auth: {token: tok}\n",
		"salesforce": "auth: {client_id: cid, client_secret: sec}\nsettings: {api_version: \"64.0\"}\n",
	}
	tests := []struct {
		name, preset string
		config       string // on top
		ours         func(ctx context.Context, s *Sink)
		theirs       func(c *captured)              // what of theirs we leave out or put otherwise
		mine         func(body string) (out string) // what of ours they leave out
	}{
		{name: "upsert of deals", preset: "hubspot", ours: write(Upsert, Row{
			Trace: "e1", Object: "deals", Property: "partner_deal_key", Key: "D1", Values: map[string]any{"dealname": "x", "amount": int64(10)},
		})},
		{name: "upsert of contacts", preset: "hubspot", ours: write(Upsert, Row{
			Trace: "e1", Object: "contacts", Property: "email", Key: "a@b.co", Values: map[string]any{"phone": "1"},
		}), mine: func(body string) string { // without one of its own on every row, a bad row refuses all
			return strings.Replace(body, `"objectWriteTraceId":"e1",`, "", 1)
		}},
		// Without a label the default association is made, which needs no type and cannot change the primary company.
		{name: "association", preset: "hubspot",
			config: "settings: {labels: {deals>contacts: {Any: {category: HUBSPOT_DEFINED, typeId: 3}}}}\n",
			ours: func(ctx context.Context, s *Sink) {
				s.Link(ctx, []LinkRow{{From: Ref{Object: "deals", ID: "1"}, To: Ref{Object: "contacts", ID: "2"}, As: "Any"}})
			}},
		// No operation of the preset reads pipelines; one of a config can.
		{name: "pipelines", preset: "hubspot", config: "operations: {describe: {path: \"/crm/v3/pipelines/{record.object}\"}}\n",
			ours: func(ctx context.Context, s *Sink) { _, _ = s.Describe(ctx, "deals") }},
		// Keys in addresses are no good for e-mails, so the preset has them in bodies. Who wants one row a call can have it.
		{name: "single upsert", preset: "salesforce", config: `
operations:
  upsert:
    path: /services/data/v{setting.api_version}/sobjects/{record.object}/{record.property}/{record.key}
    rows: 1
    body:
      $spread:
        - record.others
        - {$each: record.links, '{item.object}': {'{item.property}': item.key}}
`[1:], ours: write(Upsert, Row{
			Object: "Contact", Property: "Partner_Key__c", Key: "K/1 a+b@x.inc", Values: map[string]any{"LastName": "Doe"},
			Links: []RowLink{{Object: "Account", Property: "Partner_Key__c", Key: "A1"}},
		}), theirs: func(c *captured) { // the client leaves the signs of the key as they are, which is another address
			c.URL = strings.Replace(c.URL, "/K/1%20a+b@x.inc", "/K%2F1%20a%2Bb@x.inc", 1)
		}},
		{name: "collection", preset: "salesforce", ours: write(Upsert,
			Row{Trace: "1", Object: "Contact", Property: "Partner_Key__c", Key: "1", Values: map[string]any{"LastName": "D1"}},
			Row{Trace: "2", Object: "Contact", Property: "Partner_Key__c", Key: "2", Values: map[string]any{"LastName": "D2"}},
		)},
		{name: "token", preset: "salesforce", ours: func(ctx context.Context, s *Sink) { s.Probe(ctx) }},
		{name: "search of a person", preset: "pipedrive", ours: write(Find, Row{Object: "persons", Property: "email", Key: "a+b@x.co"})},
		{name: "a person", preset: "pipedrive", ours: write(Create, Row{Object: "persons", Property: hexKey, Key: "1", Values: map[string]any{
			"name": "J", "emails": []any{map[string]any{"value": "a@b.co", "primary": true, "label": "work"}},
		}})},
		{name: "a deal", preset: "pipedrive", ours: write(Update, Row{Object: "deals", ID: "5", Values: map[string]any{"stage_id": int64(3), "value": decimal.New(10, 0)},
			Links: []RowLink{{Object: "persons", ID: "1"}, {Object: "organizations", ID: "2"}}})},
		{name: "search of a deal", preset: "pipedrive", ours: write(Find, Row{Object: "deals", Property: hexKey, Key: "K1"})},
		{name: "a lead", preset: "pipedrive", ours: write(Create, Row{Object: "leads", Values: map[string]any{
			"title": "l", "value": map[string]any{"amount": int64(1), "currency": "EUR"},
		}, Links: []RowLink{{Object: "persons", ID: "1"}}})},
	}
	if len(tests) != len(captures) {
		t.Fatalf("%d tests for %d captures", len(tests), len(captures))
	}
	for i, test := range tests {
		t.Run(test.preset+"/"+test.name, func(t *testing.T) {
			t.Parallel()
			theirs := captures[i]
			if test.theirs != nil {
				test.theirs(&theirs)
			}
			crm := newTarget(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"access_token":"00Dx!tok"}`)
			})
			config := presets[test.preset] + test.config
			test.ours(within(t), newSink(t, "preset: "+test.preset+"\nbase_url: "+crm.URL+"\n"+config, Options{}))
			var ours *recorded
			for _, r := range crm.requests() {
				if r.isToken() == strings.HasSuffix(theirs.URL, "/token") {
					ours = &r
				}
			}
			if ours == nil {
				t.Fatal("nothing was sent")
			}
			if ours.method != theirs.Method {
				t.Errorf("%s, they %s", ours.method, theirs.Method)
			}
			mine, yours := spot(t, ours.path+"?"+ours.query), spot(t, theirs.URL)
			if diff := cmp.Diff(yours, mine); diff != "" {
				t.Errorf("address (-theirs +ours):\n%s", diff)
			}
			if got := ours.header.Get("Authorization") + ours.header.Get("X-Api-Token"); got != theirs.Auth {
				t.Errorf("credentials %q, they %q", got, theirs.Auth)
			}
			if got := ours.header.Get("Content-Type"); got != theirs.Type {
				t.Errorf("%q, they %q", got, theirs.Type)
			}
			body := strings.ReplaceAll(ours.body, hexKey, "abc")
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
