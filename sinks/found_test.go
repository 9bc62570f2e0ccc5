package sinks

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"partnersync/internal/sandbox"
)

// by is a row that looks for records by properties and values, in turn.
func by(object string, terms ...string) Row {
	row := Row{Trace: object + strings.Join(terms, "/"), Object: object}
	for i := 0; i < len(terms); i += 2 {
		row.Terms = append(row.Terms, Term{terms[i], terms[i+1]})
	}
	return row
}

func TestFolds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ how, give, want string }{
		{"none", " A ", " A "}, {"lower", " A ", " a "}, {"", "A", "A"},
		{"email", " Jane@Acme.Test\n", "jane@acme.test"},
		{"domain", "Acme.Test", "acme.test"}, {"domain", " https://www.Acme.test/about?x#y ", "acme.test"}, {"domain", "http://acme.test:8080", "acme.test"},
		{"domain", "//acme.test", "acme.test"}, {"domain", "acme.test.", "acme.test"}, {"domain", "www.acme.test.:443/", "acme.test"},
		{"domain", "https://user:pw@acme.test/", "acme.test"}, {"domain", "acme.test?x", "acme.test"}, {"domain", "shop.acme.test", "shop.acme.test"},
		{"domain", "https://", ""}, {"domain", "", ""},
	} {
		if got := (foldRules{"p": tt.how}).fold("p", tt.give); got != tt.want {
			t.Errorf("%s of %q: %q", tt.how, tt.give, got)
		}
	}
}

// Objects have one name, whichever of theirs somebody writes.
func TestObjects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		preset, give, want string
		known              bool
	}{
		{"hubspot", "deal", "deals", true}, {"hubspot", "Deals", "deals", true}, {"hubspot", "0-3", "deals", true},
		{"hubspot", "2-4711", "2-4711", true}, {"hubspot", "p62515_machine", "p62515_machine", true}, {"hubspot", "deelz", "deelz", false},
		{"salesforce", "opportunity", "Opportunity", true}, {"salesforce", "Partner__c", "Partner__c", true}, {"salesforce", "Oportunity", "Oportunity", false},
		{"webhook", "anything", "anything", true},
	} {
		if got, known := loadYAML(t, presetConfigs[tt.preset]).Object(tt.give); got != tt.want || known != tt.known {
			t.Errorf("%s: %s: %s %v", tt.preset, tt.give, got, known)
		}
	}
	d := loadYAML(t, presetConfigs["hubspot"]+"objects: {machines: [machine, 2-1]}\n")
	if got, known := d.Object("Machine"); got != "machines" || !known || strings.Join(d.Objects(), " ") == "" {
		t.Errorf("%s %v", got, known)
	}
	text := `
url: https://example.com
operations: {upsert: {path: /x}}
objects: {deals: [deal], orders: [deal]}
`
	if _, problems := tryYAML(text); !strings.Contains(fmt.Sprint(problems), `"deal" is a name of deals, too`) {
		t.Error(problems)
	}
}

func TestRecordURLs(t *testing.T) {
	t.Parallel()
	hub := loadYAML(t, presetConfigs["hubspot"]+"settings: {portal: 62515, app: app-eu1.hubspot.com}\n")
	force := loadYAML(t, "preset: salesforce\nbase_url: https://acme.my.salesforce.com\nauth: {client_id: a, client_secret: b}\n")
	for _, tt := range []struct {
		d                *Description
		object, id, want string
	}{
		{hub, "contacts", "7", "https://app-eu1.hubspot.com/contacts/62515/record/0-1/7"},
		{hub, "2-4711", "7", "https://app-eu1.hubspot.com/contacts/62515/record/2-4711/7"},
		{hub, "machines", "7", ""}, {hub, "contacts", "", ""},
		{loadYAML(t, presetConfigs["hubspot"]), "contacts", "7", ""},
		{force, "Lead", "00Q1", "https://acme.my.salesforce.com/00Q1"},
		{loadYAML(t, presetConfigs["webhook"]), "x", "1", ""},
	} {
		if got := tt.d.RecordURL(tt.object, tt.id); got != tt.want {
			t.Errorf("%s %s: %q", tt.object, tt.id, got)
		}
	}
}

// What cannot be looked for is known before there is a row.
func TestCannotSearch(t *testing.T) {
	t.Parallel()
	d := loadYAML(t, presetConfigs["hubspot"])
	seven := []string{"a", "b", "c", "d", "e", "f", "g"}
	if got := d.CannotSearch("companies", seven); got != "HubSpot searches by at most six properties at once" {
		t.Error(got)
	}
	if d.CannotSearch("companies", seven[:6]) != "" || d.CannotSearch("contacts", []string{"email"}) != "" || d.CannotRead("deals") != "" || !d.OrdersHits() {
		t.Error("HubSpot can")
	}
	d = loadYAML(t, presetConfigs["salesforce"]+"settings: {untexted: [Seats__c]}\n")
	if got := d.CannotSearch("Account", []string{"Seats__c"}); got != "" || d.CannotRead("Account") != "" || !d.OrdersHits() {
		t.Error(got)
	}
	d = loadYAML(t, presetConfigs["webhook"])
	if d.CannotSearch("x", []string{"a"}) != "the sink has no operation search" || d.CannotRead("x") != "the sink has no operation read" || d.OrdersHits() {
		t.Error("a webhook cannot")
	}
}

// saying is a target that gives every request the same answer, and keeps what it was asked.
type saying struct {
	body  func(n int) string
	asked []string
}

func (a *saying) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	a.asked = append(a.asked, string(body))
	return &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(a.body(len(a.asked)))),
	}, nil
}

const searching = `
url: http://crm.example
fold: {site: domain, "*": none}
also: {mail: [others]}
values: {as: text, list: ";"}
classify: [{status: 200-299, class: ok}, {status: 100-599, class: rejected}]
classify_rows: [{code: GONE, class: rejected, absent: true}, {class: rejected}]
row_error: {code: code, message: message}
operations:
  search:
    path: /search
    rows: 10
    body: {find: {$each: records, $item: 'record.terms[0].value'}, show: request.read}
    result:
      mode: found
      results: {at: data, id: id, made: made, values: {at: [., own], as: [value]}}
      errors: {at: errors}
      more: info.more
      next: cursor
      limit: 4
`

// What an answer shows decides whose a record is, and what it has.
func TestSearchAnswers(t *testing.T) {
	t.Parallel()
	record := func(id, fields string) string { return `{"id":` + id + `,` + fields + `}` }
	tests := []struct {
		name string
		give []Row
		body string
		want []Result
	}{
		{"kinds of values", []Row{{Terms: []Term{{"n", "10"}}, Read: []string{"n", "amount", "yes", "text", "empty", "none", "list", "nothing", "parts", "deep", "absent"}}},
			record(`1`, `"n":10.0,"amount":12.50,"yes":true,"text":"x","empty":"","none":null,"list":["a",2],"nothing":[],"parts":{"a":1},"own":{"deep":{"value":"y"}}`),
			[]Result{{Class: OK, Hits: []Hit{{ID: "1", Values: map[string]any{"n": decimal.RequireFromString("10.0"), "amount": decimal.RequireFromString("12.50"),
				"yes": true, "text": "x", "empty": nil, "none": nil, "list": []any{"a", "2"}, "nothing": nil, "deep": "y"}}}}}},
		{"a text is no number", []Row{by("", "zip", "7")}, record(`1`, `"zip":"07"`), []Result{{Class: OK}}},
		{"oldest first", []Row{by("", "a", "x")}, record(`1`, `"a":"x","made":"2026-01-02"`) + "," + record(`2`, `"a":"x","made":"2026-01-01"`),
			[]Result{{Class: OK, Hits: []Hit{{ID: "2"}, {ID: "1"}}}}},
		{"of unknown age, as they came", []Row{by("", "a", "x")}, record(`1`, `"a":"x","made":"2026-01-02"`) + "," + record(`2`, `"a":"x"`),
			[]Result{{Class: OK, Hits: []Hit{{ID: "1"}, {ID: "2"}}}}},
		{"one twice", []Row{by("", "a", "x")}, record(`1`, `"a":"x"`) + "," + record(`1`, `"a":"x"`), []Result{{Class: OK, Hits: []Hit{{ID: "1"}}}}},
		{"not shown", []Row{by("", "a", "x")}, record(`1`, `"b":"x"`), []Result{{Class: OK}}},
		{"shown empty", []Row{by("", "a", "x")}, record(`1`, `"a":null`) + "," + record(`2`, `"a":""`), []Result{{Class: OK}}},
		{"another case of a name", []Row{by("", "Name", "x")}, record(`1`, `"name":"x"`), []Result{{Class: OK, Hits: []Hit{{ID: "1"}}}}},
		{"domains", []Row{by("", "site", "acme.test"), by("", "site", "apex.test"), by("", "site", "https://")},
			record(`1`, `"site":"https://www.acme.test/x"`) + "," + record(`2`, `"site":"notacme.test"`) + "," + record(`3`, `"site":"http://"`),
			[]Result{{Class: OK, Hits: []Hit{{ID: "1"}}}, {Class: OK}, {Class: OK}}},
		{"further values", []Row{by("", "mail", "b@x.test"), by("", "mail", "c@x.test"), by("", "mail", "a@x.test;b@x.test")},
			record(`1`, `"mail":"a@x.test","others":"b@x.test; d@x.test"`), []Result{{Class: OK, Hits: []Hit{{ID: "1"}}}, {Class: OK}, {Class: OK}}},
		{"no list of its own", []Row{by("", "a", "x")}, record(`1`, `"a":"x;y"`), []Result{{Class: OK}}},
		{"one of several", []Row{by("", "a", "x")}, record(`1`, `"a":["w","x"]`), []Result{{Class: OK, Hits: []Hit{{ID: "1"}}}}},
		{"all terms", []Row{by("", "a", "x", "b", "y"), by("", "a", "x", "b", "z")}, record(`1`, `"a":"x","b":"y"`),
			[]Result{{Class: OK, Hits: []Hit{{ID: "1"}}}, {Class: OK}}},
		{"a record of several rows", []Row{by("", "a", "x"), by("", "a", "x")}, record(`1`, `"a":"x"`),
			[]Result{{Class: OK, Hits: []Hit{{ID: "1"}}}, {Class: OK, Hits: []Hit{{ID: "1"}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target := &saying{body: func(int) string { return `{"data":[` + tt.body + `]}` }}
			got := newSink(t, searching, Options{Transport: target}).Write(context.Background(), Search, tt.give)
			for i := range got {
				got[i].Status = 0
				for j := range got[i].Hits {
					if len(got[i].Hits[j].Values) == 0 {
						got[i].Hits[j].Values = nil
					}
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || len(target.asked) != 1 {
				t.Errorf("%s\n%q", diff, target.asked)
			}
		})
	}
}

// An answer that is not whole is none of several rows: they are asked for apart.
func TestSearchTruncated(t *testing.T) {
	t.Parallel()
	x := `{"id":1,"a":"x"}`
	for name, body := range map[string]string{
		"more": `{"data":[` + x + `],"info":{"more":true}}`, "cursor": `{"data":[` + x + `],"cursor":"c"}`,
		"limit": `{"data":[` + x + `,{"id":2},{"id":3},{"id":4}]}`,
	} {
		target := &saying{body: func(n int) string {
			if n < 4 { // of four rows, of the first two, of the first
				return body
			}
			return `{"data":[],"info":{"more":false},"cursor":null}`
		}}
		rows := []Row{by("", "a", "x"), by("", "a", "y"), by("", "a", "z"), by("", "a", "w")}
		got := newSink(t, searching, Options{Transport: target}).Write(context.Background(), Search, rows)
		if !got[0].More || len(got[0].Hits) != 1 || got[1].More || got[3].More || len(target.asked) != 5 {
			t.Errorf("%s: %+v\n%q", name, got, target.asked)
		}
	}
}

// Errors in an answer that shows records: that something is not there is none, what else there is refuses those that found nothing.
func TestSearchErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		errors string
		want   []Class
	}{
		{`[{"code":"GONE","message":"not there"}]`, []Class{OK, OK}},
		{`[{"code":"BROKEN","message":"no"}]`, []Class{OK, Rejected}},
		{`[{"code":"GONE"},{"code":"BROKEN","message":"no"}]`, []Class{OK, Rejected}},
	} {
		target := &saying{body: func(int) string { return `{"data":[{"id":1,"a":"x"}],"errors":` + tt.errors + `}` }}
		got := newSink(t, searching, Options{Transport: target}).Write(context.Background(), Search, []Row{by("", "a", "x"), by("", "a", "y")})
		if diff := cmp.Diff(tt.want, classesOf(got)); diff != "" {
			t.Errorf("%s: %s", tt.errors, diff)
		}
	}
}

// A request has no more bytes than the target takes, and a row that is too large alone is told.
func TestSearchSize(t *testing.T) {
	t.Parallel()
	target := &saying{body: func(int) string { return `{"data":[]}` }}
	s := newSink(t, strings.Replace(searching, "    rows: 10\n", "    rows: 10\n    size: 150\n", 1), Options{Transport: target})
	rows := []Row{by("", "a", "x"+strings.Repeat("y", 200))}
	for i := range 9 {
		rows = append(rows, by("", "a", fmt.Sprint("value ", i, strings.Repeat("z", 20))))
	}
	got := s.Write(context.Background(), Search, rows)
	if got[0].Class != Rejected || !strings.Contains(got[0].Message, "larger than the target takes") {
		t.Errorf("%+v", got[0])
	}
	seen := 0
	for _, body := range target.asked {
		if len("http://crm.example/search")+len(body) > 150 {
			t.Errorf("%d: %s", len(body), body)
		}
		seen += strings.Count(body, "value ")
	}
	for _, r := range got[1:] {
		if r.Class != OK {
			t.Errorf("%+v", r)
		}
	}
	if seen != 9 || len(target.asked) > 7 {
		t.Errorf("%d values in %d requests", seen, len(target.asked))
	}
}

// A contact is found by each of its addresses, at once and exactly.
func TestHubSpotEmails(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{Lag: 1 << 40}, "")
	jane := box.Put("hubspot", "contacts", map[string]any{"email": "jane@acme.test", "hs_additional_emails": "j.doe@acme.test;jd@acme.test"})
	got := s.Write(within(t), Search, []Row{
		by("contacts", "email", " J.Doe@Acme.test"), by("contacts", "email", "jane@acme.test"), by("contacts", "email", "doe@acme.test"),
	})
	for i, want := range [][]string{{jane}, {jane}, nil} {
		if diff := cmp.Diff(want, idsOf(got[i])); diff != "" || got[i].Class != OK {
			t.Errorf("%d: %s\n%+v", i, diff, got[i])
		}
	}
	if requests := box.Requests(); len(requests) != 1 || requests[0].Rows != 3 {
		t.Errorf("%+v", requests)
	}
	// So it is by our key, where that is the address.
	found := s.Find(within(t), []Row{{Trace: "1", Object: "contacts", Property: "email", Key: "jd@acme.test"}})[0]
	if found.Class != OK || found.ID != jane {
		t.Errorf("%+v", found)
	}
}

// A hundred domains need no more than a request or two, in the forms that HubSpot takes.
func TestHubSpotManyRows(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "limits: []\n")
	var rows []Row
	var want []string
	for i := range 100 {
		domain := fmt.Sprintf("Partner-%d.test", i)
		want = append(want, box.Put("hubspot", "companies", map[string]any{"name": "x", "domain": strings.ToLower(domain)}))
		rows = append(rows, by("companies", "domain", domain))
	}
	for i, r := range s.Write(within(t), Search, rows) {
		if diff := cmp.Diff(want[i:i+1], idsOf(r)); diff != "" || r.Class != OK {
			t.Fatalf("%d: %s\n%+v", i, diff, r)
		}
	}
	if n := len(box.Requests()); n > 4 {
		t.Errorf("%d requests", n)
	}
}

// An address of a company is found in whatever form somebody typed it, and wildcards in a value stand for nothing else.
func TestSalesforceAddresses(t *testing.T) {
	t.Parallel()
	c := crmNamed("salesforce")
	w := c.open(t, sandbox.Options{Custom: map[string][]sandbox.Property{"salesforce/Account": {{Name: "Seats__c", Type: "number"}}}}, "settings: {untexted: [Seats__c]}\n")
	acme := w.Put("salesforce", "Account", map[string]any{"Name": "Acme", "Website": "https://www.Acme.test/about", "Seats__c": 5.0})
	w.Put("salesforce", "Account", map[string]any{"Name": "Other", "Website": "notacme.test", "Seats__c": 7.0})
	for _, tt := range []struct {
		row  Row
		want []string
	}{
		{by("Account", "Website", "acme.test"), []string{acme}},
		{by("Account", "Website", "%.test"), nil},
		{by("Account", "Website", "acme.test", "Name", "ACME"), []string{acme}},
		{by("Account", "Seats__c", "5"), []string{acme}},
		{by("Account", "Seats__c", "5.00", "Name", "Acme"), []string{acme}},
	} {
		got := w.sink.Write(within(t), Search, []Row{tt.row})[0]
		if diff := cmp.Diff(tt.want, idsOf(got)); diff != "" || got.Class != OK {
			t.Errorf("%v: %s\n%+v", tt.row.Terms, diff, got)
		}
	}
	w.sent()
	if got := w.sink.Write(within(t), Search, []Row{by("Account", "Seats__c", "5 OR Name != ''")})[0]; got.Class != Rejected || len(w.sent()) > 0 {
		t.Errorf("%+v", got)
	}
	// A field that is not there, or is no text, is to blame alone.
	rows := []Row{by("Account", "Name", "Acme", "Website", "acme.test"), by("Account", "Name", "Acme", "Nope__c", "x"), by("Account", "Name", "Acme", "CreatedDate", "x")}
	got := w.sink.Write(within(t), Search, rows)
	if diff := cmp.Diff([]Class{OK, Rejected, Rejected}, classesOf(got)); diff != "" || len(got[0].Hits) != 1 || !blames(got[1], "Nope__c") || !blames(got[2], "CreatedDate") {
		t.Errorf("%s\n%+v", diff, got)
	}
	if n := len(w.sent()); n > 3 {
		t.Errorf("%d requests", n)
	}
	// Ids of fifteen characters are those of eighteen.
	if got := w.sink.Write(within(t), Read, []Row{{Trace: "1", Object: "Account", ID: acme[:15], Read: []string{"Name"}}})[0]; got.Class != OK || got.Hits[0].ID != acme {
		t.Errorf("%+v", got)
	}
}

// A hundred long values go in as many requests as fit into an address.
func TestSalesforceLongQueries(t *testing.T) {
	t.Parallel()
	c := crmNamed("salesforce")
	w := c.open(t, sandbox.Options{}, "")
	var rows []Row
	for i := range 100 {
		title := fmt.Sprintf("%s %d", strings.Repeat("'ä", 40), i)
		w.sales("Doe", title)
		rows = append(rows, by(c.object, c.field, title))
	}
	for i, r := range w.sink.Write(within(t), Search, rows) {
		if r.Class != OK || len(r.Hits) != 1 {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	for _, r := range w.sent() {
		if len(r.path)+len(r.query) > 12_000 {
			t.Errorf("%d bytes", len(r.path)+len(r.query))
		}
	}
}
