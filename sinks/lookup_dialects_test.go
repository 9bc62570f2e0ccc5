package sinks

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// What an inexact search finds besides is no hit, and not the record of a key.
func TestConformSearchFindsMore(t *testing.T) {
	t.Parallel()
	variants := []sandbox.Variant{sandbox.PipedriveFindsMore, sandbox.ZohoEqualsContains}
	eachSearching(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{Variants: variants}, "")
		w.sales("Acme Holding", "hello")
		one := w.sales("Acme", "hello")
		keyed := c.values("2")
		keyed[c.key] = "PS-10"
		other := w.Put(c.name, c.object, keyed)
		got := w.sink.Write(within(t), Search, []Row{c.seeking("1", "Acme"), c.seeking("2", "cme"), c.seeking("3", "Acme", "ello")})
		for i, want := range [][]string{{one}, nil, nil} {
			if diff := cmp.Diff(want, idsOf(got[i])); diff != "" || got[i].Class != OK || got[i].More {
				t.Errorf("row %d: %s\n%+v", i, diff, got[i])
			}
		}
		row := c.row("1")
		if r := w.sink.Find(within(t), []Row{row})[0]; !r.Absent || r.ID != "" {
			t.Errorf("another record passes for that of the key: %+v", r)
		}
		if row.Key = "PS-10"; w.sink.Find(within(t), []Row{row})[0].ID != other {
			t.Error("the record is not found by its key")
		}
	})
}

// Keys compare as the CRM compares them: where the case counts, another case is another key.
func TestConformFindMindsTheCase(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		values := c.values("1")
		values[c.key] = "ps-1"
		id := w.Put(c.name, c.object, values)
		r := w.sink.Find(within(t), []Row{c.row("1")})[0] // PS-1
		if c.caseless && r.ID != id || !c.caseless && !r.Absent {
			t.Errorf("%+v", r)
		}
	})
}

// A search names the properties that it can search by, before anything is sent.
func TestDialectsCannotSearch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		crm, object string
		properties  []string
		says        string // "": it can
	}{
		{"pipedrive", "persons", []string{"email"}, ""},
		{"pipedrive", "persons", []string{"org_id", "name"}, ""},
		{"pipedrive", "organizations", []string{hexKey}, ""},
		{"pipedrive", "leads", []string{"title"}, ""},
		{"pipedrive", "deals", []string{"owner_id"}, "custom fields alone"},
		{"pipedrive", "activities", []string{"subject"}, "cannot search for this object"},
		{"pipedrive", "notes", []string{hexKey}, "cannot search for this object"},
		{"attio", "companies", []string{"domains", "name"}, ""},
		{"attio", "payouts", []string{"partner_key"}, ""},
		{"attio", "notes", []string{"title"}, "cannot look for notes"},
		{"zoho", "Accounts", []string{"Account_Name"}, ""},
		{"zoho", "Accounts", strings.Split("a b c d e f g h i j", " "), ""},
		{"zoho", "Accounts", strings.Split("a b c d e f g h i j k", " "), "ten fields"},
		{"dataverse", "accounts", []string{"name"}, ""},
		{"dataverse", "new_partners", []string{"name"}, "settings.id_columns"},
	}
	for _, test := range tests {
		d := loadYAML(t, presetConfigs[test.crm])
		says := d.CannotSearch(test.object, test.properties)
		if (says == "") != (test.says == "") || !strings.Contains(says, test.says) {
			t.Errorf("%s %s by %v: %q", test.crm, test.object, test.properties, says)
		}
	}
	for _, name := range []string{"pipedrive", "attio", "zoho", "dataverse"} {
		d := loadYAML(t, presetConfigs[name])
		if c := crmNamed(name); d.CannotRead(c.object) != "" || !d.OrdersHits() {
			t.Errorf("%s: %q, %v", name, d.CannotRead(c.object), d.OrdersHits())
		}
	}
}

// Names that mean one object are folded; one that nothing is called is told.
func TestObjectNames(t *testing.T) {
	t.Parallel()
	for crm, names := range map[string]map[string]string{
		"pipedrive": {"deal": "deals", "Persons": "persons", "org": "organizations", "companies": "", "deal_s": ""},
		"attio":     {"person": "people", "company": "companies", "deals": "deals", "payouts": "payouts", "my-object": "my-object", "Pay Outs": ""},
		"zoho":      {"Lead": "Leads", "leads": "Leads", "Potentials": "Deals", "Payouts": "Payouts", "CustomModule1": "CustomModule1", "pay outs": ""},
		"dataverse": {"account": "accounts", "opportunity": "opportunities", "new_partners": "new_partners", "acounts": ""},
	} {
		d := loadYAML(t, presetConfigs[crm])
		for give, want := range names {
			got, known := d.Object(give)
			if known != (want != "") || known && got != want {
				t.Errorf("%s: %s is %q, %v", crm, give, got, known)
			}
		}
	}
}

// Websites compare by their domains, however somebody has typed them, there or here.
func TestWebsites(t *testing.T) {
	t.Parallel()
	for name, field := range map[string]string{"dataverse": "websiteurl", "zoho": "Website"} {
		c := crmNamed(name)
		title := map[string]string{"dataverse": "name", "zoho": "Account_Name"}[name]
		w := c.open(t, sandbox.Options{}, "")
		var ids []string
		for _, site := range []string{"https://www.acme.test/about", "ACME.test", "http://acme.test/", "notacme.test", "http://acme.test.example"} {
			ids = append(ids, w.Put(name, c.parent, map[string]any{title: "Acme", field: site}))
		}
		w.Put(name, c.parent, map[string]any{title: "Other", field: "acme.test"})
		for _, value := range []string{"acme.test", "https://Acme.test/pricing?x=(1)"} {
			row := Row{Trace: "1", Object: c.parent, Terms: []Term{{title, "acme"}, {field, value}}, Read: []string{field}}
			got := w.sink.Write(within(t), Search, []Row{row})[0]
			if diff := cmp.Diff(ids[:3], idsOf(got)); diff != "" || got.Class != OK {
				t.Errorf("%s %s: %s\n%+v", name, value, diff, got)
			}
		}
		odd := Row{Trace: "1", Object: c.parent, Terms: []Term{{field, `a'b,(c)\d`}}}
		if got := w.sink.Write(within(t), Search, []Row{odd})[0]; got.Class != OK || len(got.Hits) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Where people see a row is told by the logical name of its table.
func TestDataverseRecordURL(t *testing.T) {
	t.Parallel()
	d := loadYAML(t, presetConfigs["dataverse"])
	for object, name := range map[string]string{"accounts": "account", "tasks": "task", "opportunities": "opportunity", "annotations": "annotation"} {
		if u := d.RecordURL(object, "x"); !strings.HasSuffix(u, "/main.aspx?pagetype=entityrecord&etn="+name+"&id=x") {
			t.Error(u)
		}
	}
	if u := d.RecordURL("new_partners", "x"); u != "" {
		t.Errorf("the address of a table whose logical name nobody knows: %s", u)
	}
}

// A number is looked for without quotes, so that it takes digits alone, and the row of another value goes on.
func TestDataverseNumbers(t *testing.T) {
	t.Parallel()
	w := crmNamed("dataverse").open(t, sandbox.Options{Custom: map[string][]sandbox.Property{"dataverse/accounts": {{Name: "new_number", Type: "integer"}}}},
		"settings: {number_keys: [new_number]}\n")
	id := w.Put("dataverse", "accounts", map[string]any{"name": "Acme", "new_number": 7.0})
	seek := func(value string) Row {
		return Row{Trace: value, Object: "accounts", Terms: []Term{{"new_number", value}}}
	}
	got := w.sink.Write(within(t), Search, []Row{seek("7"), seek("1) or (name ne null"), seek("8")})
	if diff := cmp.Diff([]Class{OK, Rejected, OK}, classesOf(got)); diff != "" || !slices.Equal(idsOf(got[0]), []string{id}) || len(got[2].Hits) > 0 {
		t.Errorf("%s\n%+v", diff, got)
	}
	if sent := w.sent(); len(sent) != 1 || strings.Contains(sent[0].query, "null") {
		t.Errorf("%v", sent)
	}
	// An id that is none is not sent either.
	read := w.sink.Write(within(t), Read, []Row{{Trace: "1", Object: "accounts", ID: id}, {Trace: "2", Object: "accounts", ID: "1 or true"}})
	if diff := cmp.Diff([]Class{OK, Rejected}, classesOf(read)); diff != "" || read[1].Absent {
		t.Errorf("%s\n%+v", diff, read)
	}
}

// Rows whose criteria are more than ten together, or too long for one address, go into several requests.
func TestSearchesArePartedBySize(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]map[int]int{"zoho": {1: 10, 2: 5, 3: 1}, "dataverse": {1: 20, 2: 20}, "attio": {1: 20}} {
		c := crmNamed(name)
		w := c.open(t, sandbox.Options{}, "")
		for terms, rows := range most {
			row := c.seeking("1", "a", "b")
			row.Terms = append(row.Terms, Term{c.key, "c"})[:terms]
			row.Operation = Search
			if got := w.sink.MaxRowsOf(row); got != rows {
				t.Errorf("%s: %d rows of %d terms, want %d", name, got, terms, rows)
			}
			var all []Row
			for i := range rows {
				r := row
				r.Trace = fmt.Sprint(i)
				all = append(all, r)
			}
			for _, r := range w.sink.Write(within(t), Search, all) {
				if r.Class != OK {
					t.Errorf("%s, %d terms: %+v", name, terms, r)
				}
			}
			if n := len(w.sent()); n != 1 {
				t.Errorf("%s, %d terms: %d requests", name, terms, n)
			}
		}
	}
	w := crmNamed("dataverse").open(t, sandbox.Options{}, "")
	var rows []Row
	long := strings.Repeat("ü", 2000) // six characters each in an address
	for i := range 6 {
		rows = append(rows, w.c.seeking(fmt.Sprint(i), long+fmt.Sprint(i)))
	}
	for _, r := range w.sink.Write(within(t), Search, rows) {
		if r.Class != OK || len(r.Hits) > 0 {
			t.Errorf("%+v", r)
		}
	}
	if n := len(w.sent()); n < 3 {
		t.Errorf("%d requests", n)
	}
	if r := w.sink.Write(within(t), Search, []Row{w.c.seeking("1", strings.Repeat(long, 4))})[0]; r.Class != Rejected || len(w.sent()) > 0 {
		t.Errorf("%+v", r)
	}
}

// Pipedrive's searches name candidates, each of which is read: those count that have what was looked for by then.
func TestPipedriveSearchThenRead(t *testing.T) {
	t.Parallel()
	mail := func(values ...string) (out []any) {
		for _, v := range values {
			out = append(out, map[string]any{"value": v, "primary": true, "label": "work"})
		}
		return out
	}
	w := crmNamed("pipedrive").open(t, sandbox.Options{
		Variants: []sandbox.Variant{sandbox.PipedriveFindsMore, sandbox.PipedriveShowsDeleted},
		Custom:   map[string][]sandbox.Property{"pipedrive/persons": {{Name: hexKey}}, "pipedrive/leads": {{Name: hexKey}}, "pipedrive/deals": {{Name: hexKey}}},
	}, "")
	jane := w.Put("pipedrive", "persons", map[string]any{"name": "Jane Doe", "emails": mail("Jane@Acme.test", "j@home.test"), hexKey: "PS-1", "owner_id": 7.0})
	w.Put("pipedrive", "persons", map[string]any{"name": "Jane Doe-Roe", "emails": mail("ajane@acme.test")})
	org := w.Put("pipedrive", "organizations", map[string]any{"name": "ACME"})
	deal := w.Put("pipedrive", "deals", map[string]any{"title": "Acme", "is_archived": true, hexKey: "Case", "org_id": float64(mustInt(t, org))})
	lead := w.Put("pipedrive", "leads", map[string]any{"title": "Lead", hexKey: "L-1"})
	tests := []struct {
		name   string
		object string
		terms  []Term
		read   []string
		want   []Hit
	}{
		{"an address, in another case", "persons", []Term{{"email", " jane@acme.TEST"}}, []string{"name", "owner_id", hexKey, "phones", "emails", "nope"},
			[]Hit{{ID: jane, Values: map[string]any{"name": "Jane Doe", "owner_id": int64(7), hexKey: "PS-1", "phones": nil, "emails": []any{"Jane@Acme.test", "j@home.test"}}}}},
		{"a second address", "persons", []Term{{"emails", "j@home.test"}}, nil, []Hit{{ID: jane, Values: map[string]any{}}}},
		{"a name", "persons", []Term{{"name", "jane doe"}}, []string{"email"}, []Hit{{ID: jane, Values: map[string]any{"email": []any{"Jane@Acme.test", "j@home.test"}}}}},
		{"a name and a custom field", "persons", []Term{{hexKey, "PS-1"}, {"name", "Jane Doe"}}, nil, []Hit{{ID: jane, Values: map[string]any{}}}},
		{"a name and another custom field", "persons", []Term{{hexKey, "PS-2"}, {"name", "Jane Doe"}}, nil, nil},
		{"a custom field in another case", "persons", []Term{{hexKey, "ps-1"}}, nil, nil},
		{"an organization", "organizations", []Term{{"name", "Acme"}}, []string{"name"}, []Hit{{ID: org, Values: map[string]any{"name": "ACME"}}}},
		{"a deal that is archived", "deals", []Term{{hexKey, "Case"}}, []string{"title"}, []Hit{{ID: deal, Values: map[string]any{"title": "Acme"}}}},
		{"a deal of an organization", "deals", []Term{{"org_id", org}, {"title", "acme"}}, nil, []Hit{{ID: deal, Values: map[string]any{}}}},
		{"a lead by its title", "leads", []Term{{"title", "LEAD"}}, []string{hexKey}, []Hit{{ID: lead, Values: map[string]any{hexKey: "L-1"}}}},
		{"a lead by a custom field", "leads", []Term{{hexKey, "L-1"}}, nil, []Hit{{ID: lead, Values: map[string]any{}}}},
	}
	for _, test := range tests {
		r := w.sink.Write(within(t), Search, []Row{{Trace: "t", Object: test.object, Terms: test.terms, Read: test.read}})[0]
		if diff := cmp.Diff(test.want, r.Hits); diff != "" || r.Class != OK || r.More {
			t.Errorf("%s: %s\n%+v", test.name, diff, r)
		}
	}
	seek := func() Result {
		return w.sink.Write(within(t), Search, []Row{{Trace: "t", Object: "persons", Terms: []Term{{"name", "Jane Doe"}}}})[0]
	}
	// That a candidate cannot be read does not mean that it is none.
	remove := w.Fault(sandbox.Fault{Path: "/persons/17", Effect: sandbox.EffectStatus, Status: 503})
	if r := seek(); r.Class != Unavailable || r.Sent || len(r.Hits) > 0 {
		t.Errorf("%+v", r)
	}
	remove()
	w.Archive("pipedrive", "persons", jane)
	if r := seek(); r.Class != OK || len(r.Hits) > 0 {
		t.Errorf("%+v", r)
	}
	if r := w.sink.Write(within(t), Read, []Row{{Trace: "t", Object: "persons", ID: jane}})[0]; !r.Absent || r.Class != Rejected {
		t.Errorf("a deleted record is read: %+v", r)
	}
}

func mustInt(t *testing.T, id string) int64 {
	t.Helper()
	var n int64
	if _, err := fmt.Sscan(id, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Records come oldest first where the answer tells when they were made, though the search names them in another order.
func TestPipedriveOldestFirst(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	w := crmNamed("pipedrive").open(t, sandbox.Options{Now: func() time.Time { return now }}, "")
	newer := w.Put("pipedrive", "organizations", map[string]any{"name": "Acme"})
	now = now.Add(-time.Hour)
	older := w.Put("pipedrive", "organizations", map[string]any{"name": "acme"})
	r := w.sink.Write(within(t), Search, []Row{{Trace: "t", Object: "organizations", Terms: []Term{{"name", "Acme"}}}})[0]
	if diff := cmp.Diff([]string{older, newer}, idsOf(r)); diff != "" {
		t.Errorf("%s\n%+v", diff, r)
	}
}

// Every attribute of Attio is a list; what a record shows has the shape of its type.
func TestAttioShown(t *testing.T) {
	t.Parallel()
	w := crmNamed("attio").open(t, sandbox.Options{Custom: map[string][]sandbox.Property{
		"attio/people": {{Name: "score", Type: "number"}, {Name: "tags", Type: "enumeration", Multiple: true, Options: []string{"gold", "emea"}}, {Name: "vip", Type: "bool"}},
	}}, "")
	company := w.Put("attio", "companies", map[string]any{"name": "Acme", "domains": []any{"acme.test"}})
	id := w.Put("attio", "people", map[string]any{
		"name": "Jane Doe", "email_addresses": []any{"jane@acme.test", "j@home.test"}, "score": 5.0, "tags": []any{"gold", "emea"}, "vip": true,
		"company": company, "phone_numbers": []any{"+14165550123"},
	})
	names := []string{"name", "email_addresses", "score", "tags", "vip", "company", "phone_numbers", "job_title", "nope"}
	want := []Hit{{ID: id, Values: map[string]any{
		"name": "Jane Doe", "email_addresses": []any{"jane@acme.test", "j@home.test"}, "score": "5", "tags": []any{"gold", "emea"}, "vip": "true",
		"company": company, "phone_numbers": "+14165550123", "job_title": nil,
	}}}
	for what, terms := range map[string][]Term{
		"a second address": {{"email_addresses", "J@HOME.test "}},
		"a name":           {{"name", "jane doe"}},
		"both":             {{"name", "Jane Doe"}, {"email_addresses", "jane@acme.test"}},
		"a tag":            {{"tags", "emea"}},
	} {
		r := w.sink.Write(within(t), Search, []Row{{Trace: "t", Object: "people", Terms: terms, Read: names}})[0]
		if diff := cmp.Diff(want, r.Hits); diff != "" {
			t.Errorf("%s: %s\n%+v", what, diff, r)
		}
	}
	r := w.sink.Write(within(t), Search, []Row{{Trace: "t", Object: "companies", Terms: []Term{{"domains", "acme.test"}}}})[0]
	if diff := cmp.Diff([]string{company}, idsOf(r)); diff != "" {
		t.Errorf("%s\n%+v", diff, r)
	}
}

// Of a search by key that finds more than a page, the record may stand on another page: that is no reason to make it.
func TestZohoKeyAmongMany(t *testing.T) {
	t.Parallel()
	w := crmNamed("zoho").open(t, sandbox.Options{Variants: []sandbox.Variant{sandbox.ZohoEqualsContains}}, "")
	put := func(key string) string {
		return w.Put("zoho", "Contacts", map[string]any{"Last_Name": "Doe", "Partner_Key": key})
	}
	for i := range 200 {
		put(fmt.Sprint("1", i+10))
	}
	row := Row{Trace: "t", Object: "Contacts", Property: "Partner_Key", Key: "1"}
	if r := w.sink.Find(within(t), []Row{row})[0]; !r.Absent {
		t.Errorf("%+v", r)
	}
	put("1")
	if r := w.sink.Find(within(t), []Row{row})[0]; r.Class != Rejected || r.Absent || r.Code != "many_found" {
		t.Errorf("%+v", r)
	}
	row.Key = "1209"
	if r := w.sink.Find(within(t), []Row{row})[0]; r.Class != OK {
		t.Errorf("%+v", r)
	}
}
