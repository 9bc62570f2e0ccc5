package sinks

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// What HubSpot answers to links, as its schemas and other people's reports have it: an answer that does not name a
// pair says nothing about it.
func TestAssociationAnswers(t *testing.T) {
	t.Parallel()
	const around = `{"status":"COMPLETE","startedAt":"2026-01-01T00:00:00Z","completedAt":"2026-01-01T00:00:00Z","results":[`
	one := `{"from":{"id":"11"},"to":{"id":"21"},"associationSpec":{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":279}}`
	two := `{"from":{"id":"12"},"to":{"id":"22"},"associationSpec":{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":279}}`
	back := `{"from":{"id":"22"},"to":{"id":"12"},"associationSpec":{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":280}}`
	crossed := `{"from":{"id":"11"},"to":{"id":"22"},"associationSpec":{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":279}}`
	labelled := func(from, to string) string {
		return `{"fromObjectTypeId":"0-1","fromObjectId":` + from + `,"toObjectTypeId":"0-2","toObjectId":` + to + `,"labels":["Primary"]}`
	}
	unknownAnswer := Result{Class: Unavailable, Code: unknown, Sent: true}
	ok := Result{Class: OK}
	tests := []struct {
		name   string
		as     string
		remove bool
		status int
		body   string
		want   [2]Result
	}{
		{"both", "", false, 200, around + one + "," + two + "]}", [2]Result{ok, ok}},
		{"the other direction", "", false, 200, around + back + "," + one + "]}", [2]Result{ok, ok}},
		{"nothing", "", false, 200, around + "]}", [2]Result{unknownAnswer, unknownAnswer}},
		{"one of two", "", false, 200, around + one + "]}", [2]Result{ok, unknownAnswer}},
		{"other pairs", "", false, 200, around + crossed + "]}", [2]Result{unknownAnswer, unknownAnswer}},
		{"no ids", "", false, 200, around + `{},{"from":{},"to":{}}]}`, [2]Result{unknownAnswer, unknownAnswer}},
		{"no results at all", "", false, 200, `{"status":"COMPLETE"}`, [2]Result{unknownAnswer, unknownAnswer}},
		{"not done yet", "", false, 200, `{"status":"PENDING","results":[` + one + "," + two + "]}", [2]Result{unknownAnswer, unknownAnswer}},
		{"one refused", "", false, 207, around + one + `],"numErrors":1,"errors":[{"status":"error","category":"OBJECT_NOT_FOUND","message":"gone","context":{"toObjectId":["22"]}}]}`,
			[2]Result{ok, {Class: Rejected, Code: "OBJECT_NOT_FOUND", Absent: true}}},
		{"both, with a label", "Primary", false, 201, around + labelled("11", "21") + "," + labelled(`"12"`, `"22"`) + "]}", [2]Result{ok, ok}},
		{"nothing, with a label", "Primary", false, 201, around + "]}", [2]Result{unknownAnswer, unknownAnswer}},
		{"one of two, with a label", "Primary", false, 200, around + labelled("12", "22") + "]}", [2]Result{unknownAnswer, ok}},
		{"removed", "", true, 200, around + "]}", [2]Result{ok, ok}},
		{"removed, and told", "", true, 200, around + one + "]}", [2]Result{ok, ok}},
		{"removed, and nothing said", "", true, 204, "", [2]Result{ok, ok}},
		{"removal of another shape", "", true, 200, `{"hello":"world"}`, [2]Result{unknownAnswer, unknownAnswer}},
		{"removal, empty", "", true, 200, "", [2]Result{unknownAnswer, unknownAnswer}},
		{"a label removed", "Primary", true, 200, around + "]}", [2]Result{ok, ok}},
		{"a label removed, and nothing said", "Primary", true, 204, "", [2]Result{ok, ok}},
		{"removal of a label of another shape", "Primary", true, 200, `{"hello":"world"}`, [2]Result{unknownAnswer, unknownAnswer}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := answering(t, test.status, nil, test.body)
			s := newSink(t, "preset: hubspot\nbase_url: "+srv.URL+"\nauth: {token: x}\nlimits: []\n", Options{})
			link := func(from, to string) LinkRow {
				return LinkRow{Trace: from, From: Ref{Object: "contacts", ID: from}, To: Ref{Object: "companies", ID: to}, As: test.as, Remove: test.remove}
			}
			rows := []LinkRow{link("11", "21"), link("12", "22")}
			got := s.Link(within(t), rows)
			for i, r := range got {
				want := test.want[i]
				if r.Class != want.Class || r.Code != want.Code || r.Sent != want.Sent || r.Absent != want.Absent {
					t.Errorf("link %d: %+v", i, r)
				}
			}
		})
	}
}

// A batch of one whose answer lacks the trace id, which the schema has as optional: whose else can it be.
func TestAnswerWithoutTraceID(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		rows       int
		want       Class
	}{
		{"alone", `{"status":"COMPLETE","results":[{"id":"7","properties":{}}]}`, 1, OK},
		{"of another", `{"status":"COMPLETE","results":[{"id":"7","objectWriteTraceId":"elsewhere"}]}`, 1, Unavailable},
		{"two results", `{"status":"COMPLETE","results":[{"id":"7"},{"id":"8"}]}`, 1, Unavailable},
		{"two rows", `{"status":"COMPLETE","results":[{"id":"7"},{"id":"8"}]}`, 2, Unavailable},
		{"no id", `{"status":"COMPLETE","results":[{"properties":{}}]}`, 1, Unavailable},
		{"nothing", `{"status":"COMPLETE","results":[]}`, 1, Unavailable},
	}
	for _, test := range tests {
		srv := answering(t, 201, nil, test.body)
		s := newSink(t, "preset: hubspot\nbase_url: "+srv.URL+"\nauth: {token: x}\nlimits: []\n", Options{})
		got := s.Write(within(t), Create, []Row{contact("1"), contact("2")}[:test.rows])
		for _, r := range got {
			if r.Class != test.want || (r.Class == OK) != (r.ID == "7") {
				t.Errorf("%s: %+v", test.name, r)
			}
		}
	}
}

// Leads, and what is noted of them, with the associations that they cannot be made without.
func TestLeads(t *testing.T) {
	t.Parallel()
	b, s := portal(t, sandbox.Options{}, "")
	person := b.Put("hubspot", "contacts", map[string]any{"email": "1@acme.test"})
	company := b.Put("hubspot", "companies", map[string]any{"name": "Acme"})
	row := Row{Trace: "lead", Object: "leads", Values: map[string]any{"hs_lead_name": "Jane"}, Links: []RowLink{{Object: "contacts", ID: person, Required: true}, {Object: "companies", ID: company}}}
	lead := s.Write(within(t), Create, []Row{row})[0]
	if lead.Class != OK || lead.Unlinked {
		t.Fatalf("%+v", lead)
	}
	var rows []Row
	for object, values := range map[string]map[string]any{
		"notes": {"hs_note_body": "x", "hs_timestamp": "2026-11-21T10:00:00Z"}, "tasks": {"hs_task_subject": "x", "hs_timestamp": "2026-11-21T10:00:00Z"},
	} {
		rows = append(rows, Row{Trace: object, Object: object, Values: values, Links: []RowLink{{Object: "leads", ID: lead.ID, Required: true}}})
	}
	for _, r := range rows {
		if got := s.Write(within(t), Create, []Row{r})[0]; got.Class != OK || got.Unlinked {
			t.Errorf("%s: %+v", r.Object, got)
		}
	}
	want := []string{"leads>companies 610 ", "leads>contacts 578 Primary", "leads>contacts 608 ", "notes>leads 855 ", "tasks>leads 647 "}
	if diff := cmp.Diff(want, b.kinds()); diff != "" {
		t.Error(diff)
	}
	row.Links = nil
	if r := s.Write(within(t), Create, []Row{row})[0]; r.Class != Rejected {
		t.Errorf("a lead of nobody: %+v", r)
	}
}

// The members that every schema has as required are there, be they empty.
func TestRequiredMembers(t *testing.T) {
	t.Parallel()
	s := newSink(t, presetConfigs["hubspot"], Options{})
	row := contact("1")
	for op, want := range map[Operation]string{Create: `"associations":[]`, Find: `"propertiesWithHistory":[]`} {
		p, err := s.Preview(op, []Row{row})
		if err != nil || !json.Valid(p[0].Body) || !strings.Contains(string(p[0].Body), want) {
			t.Errorf("%s: %v %s", op, err, p[0].Body)
		}
	}
	row.Links = []RowLink{{Object: "companies", ID: "7"}, {Object: "deals", ID: "8"}}
	p, err := s.Preview(Create, []Row{row})
	want := `"associations":[{"to":{"id":"7"},"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":279}]},` +
		`{"to":{"id":"8"},"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":4}]}]`
	if err != nil || !strings.Contains(string(p[0].Body), want) {
		t.Errorf("%v %s", err, p[0].Body)
	}
}

func TestCannotLink(t *testing.T) {
	t.Parallel()
	tests := []struct {
		preset, from, to, as string
		create, remove       bool
		says                 string
		later                bool
	}{
		{preset: "hubspot", from: "contacts", to: "companies"},
		{preset: "hubspot", from: "planets", to: "moons"}, // by default
		{preset: "hubspot", from: "planets", to: "moons", as: "Reseller", says: "settings.labels"},
		{preset: "hubspot", from: "planets", to: "moons", as: "Reseller", remove: true, says: "settings.labels"},
		{preset: "hubspot", from: "planets", to: "moons", create: true, says: "settings.association_types", later: true},
		{preset: "hubspot", from: "planets", to: "moons", as: "Reseller", create: true, says: "settings.labels"},
		{preset: "hubspot", from: "planets", to: "moons", create: true, remove: true},
		{preset: "hubspot", from: "leads", to: "contacts", create: true},
		{preset: "hubspot", from: "notes", to: "deals", create: true},
		{preset: "dataverse", from: "contacts", to: "accounts", create: true},
		{preset: "dataverse", from: "contacts", to: "moons", create: true, says: "a link has one in `as`"},
		{preset: "dataverse", from: "contacts", to: "moons", says: "settings.link_fields"},
		{preset: "dataverse", from: "contacts", to: "moons", as: "new_moon"},
		{preset: "salesforce", from: "Contact", to: "Moon__c"},
		{preset: "zoho", from: "Contacts", to: "Accounts"},
		{preset: "zoho", from: "Contacts", to: "Moons", says: "settings.link_fields"},
		{preset: "webhook", from: "a", to: "b", says: "no operation link"},
	}
	for _, test := range tests {
		why, later := loadYAML(t, presetConfigs[test.preset]).CannotLink(test.create, test.from, test.to, test.as, test.remove)
		if (why == "") != (test.says == "") || !strings.Contains(why, test.says) || later != test.later {
			t.Errorf("%+v: %q, later %v", test, why, later)
		}
	}
}
