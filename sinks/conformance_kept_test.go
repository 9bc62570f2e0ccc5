package sinks

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/shopspring/decimal"

	"partnersync/internal/sandbox"
)

// A CRM that shows the values of a record tells what it keeps in place of what was sent, whichever
// way the record is written. One that shows none says nothing.
func TestConformKept(t *testing.T) {
	t.Parallel()
	shows := map[string]bool{"hubspot": true, "pipedrive": true, "attio": true}
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "find_lag: 0s\n")
		row := c.row("1")
		made := w.sink.Write(within(t), Upsert, []Row{row})[0]
		checkWords(t, made)
		release := w.Hold(c.name, c.object, c.field)
		for _, op := range []Operation{Upsert, Update} {
			for _, give := range []any{"another value", nil, row.Values[c.field]} {
				later := row
				later.Values = map[string]any{c.field: give}
				if op == Update {
					later.ID = made.ID
				}
				got := w.sink.Write(within(t), op, []Row{later})[0]
				var want map[string]any
				if shows[c.name] && give != row.Values[c.field] {
					want = map[string]any{c.field: row.Values[c.field]}
					if c.name == "attio" {
						want[c.field] = []any{row.Values[c.field]}
					}
				}
				if diff := cmp.Diff(want, got.Kept); diff != "" || got.Class != OK {
					t.Errorf("%s of %v: %s\n%+v", op, give, diff, got)
				}
			}
		}
		release()
		row.Values = map[string]any{c.field: "another value"}
		checkWords(t, w.sink.Write(within(t), Upsert, []Row{row})[0])
		// What was left out in the end was not sent.
		row.Values, row.Optional = map[string]any{c.field: "call", c.choice: c.bad}, []string{c.choice}
		if got := w.sink.Write(within(t), Upsert, []Row{row})[0]; got.Class == OK {
			checkWords(t, got)
		}
	})
}

// Of the rows of one request each has its own. An optional field that is left out is kept by nobody.
func TestKeptOfEachRow(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	rows := []Row{contact("1"), contact("2"), contact("3")}
	for i := range rows {
		rows[i].Values["lifecyclestage"] = "opportunity"
	}
	s.Write(within(t), Upsert, rows)
	for i, stage := range []string{"lead", "customer", "subscriber"} {
		rows[i].Values = map[string]any{"lifecyclestage": stage, "firstname": "Ann"}
	}
	rows[2].Values["nosuch"], rows[2].Optional = "x", []string{"nosuch"}
	got := s.Write(within(t), Upsert, rows)
	keeps := map[string]any{"lifecyclestage": "opportunity"}
	for i, want := range []map[string]any{keeps, nil, keeps} {
		if diff := cmp.Diff(want, got[i].Kept); diff != "" || got[i].Class != OK {
			t.Errorf("row %d: %s\n%+v", i, diff, got[i])
		}
	}
	if got, _ := box.Get("hubspot", "contacts", got[0].ID); got.Properties["lifecyclestage"] != "opportunity" {
		t.Errorf("%+v", got)
	}
}

// A value that is shown in another spelling is what was sent.
func TestSameValue(t *testing.T) {
	t.Parallel()
	number := decimal.RequireFromString
	day := time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC)
	tests := []struct {
		name        string
		sent, shown any
		want        bool
	}{
		{"text", "Acme", "Acme", true},
		{"other text", "Acme", "Apex", false},
		{"blanks", " Acme  Inc\r\n", "Acme Inc", true},
		{"case of what folds", "Ann@Acme.test", "ann@acme.test", true},
		{"whole number", int64(10), "10.00", true},
		{"decimal", number("10.50"), "10.5", true},
		{"decimal as text", "0010", "10", true},
		{"exponent", number("1200000"), "1.2E6", true},
		{"huge exponent", "1e999999999", "1e888888888", false},
		{"tiny exponent", "1e-999999999", "1e-888888888", false},
		{"other number", int64(10), "10.01", false},
		{"more digits than a float has", number("12345678901234567.89"), "12345678901234568", true},
		{"neighbours", int64(12345678901), "12345678902", false},
		{"true", true, "true", true},
		{"one", true, "1", true},
		{"not true", true, "false", false},
		{"not true but blank", true, nil, false},
		{"false", false, "0", true},
		{"false but blank", false, nil, true},
		{"false but an empty list", false, []any{}, true},
		{"milliseconds", int64(1795255200123), "2026-11-21T10:00:00.123Z", true},
		{"a second of its own", "2026-11-21T10:00:01Z", "2026-11-21T10:00:00Z", false},
		{"an instant", day, "2026-11-21T10:00:00.123Z", true},
		{"without fractions", day, "2026-11-21T10:00:00Z", true},
		{"nine digits", "2026-11-21T10:00:00Z", "2026-11-21T10:00:00.000000000Z", true},
		{"another zone", "2026-11-21T12:00:00+02:00", "2026-11-21T10:00:00Z", true},
		{"without colon", "2026-11-21T12:00:00+0200", "2026-11-21T10:00:00Z", true},
		{"its day", "2026-11-21T23:30:00-05:00", "2026-11-21", true},
		{"its day by UTC", "2026-11-21T23:30:00-05:00", "2026-11-22", true},
		{"a date as milliseconds", "2026-11-21", "1795219200000", true},
		{"another day", "2026-11-21", "2026-11-23", false},
		{"blanked", nil, nil, true},
		{"blanked text", "", nil, true},
		{"blanked list", []any{}, "", true},
		{"blanked number", nil, "0", true},
		{"not blanked", nil, "customer", false},
		{"not set", "customer", nil, false},
		{"not set text", "customer", "", false},
		{"list in another order", []any{"a", "b"}, "b;a", true},
		{"list of numbers", []any{int64(1), int64(2)}, "2.0; 1", true},
		{"shorter list", []any{"a", "b"}, "a", false},
		{"longer text", []any{"a"}, "a;b", false},
		{"list as text", "b;a", "a;b", true},
		{"another list as text", "b;a", "a;c", false},
		{"text that adds", ";c", "a;b;c", true},
		{"text that adds in vain", ";c", "a;b", false},
		{"list that adds", []any{"c"}, []any{"a", "c"}, true},
		{"one of a list", "c", []any{"c"}, true},
		{"not of the list", "c", []any{"a"}, false},
		{"parts of its own", map[string]any{"amount": int64(1)}, "2", true},
		{"list of such", []any{map[string]any{"value": "a"}}, []any{"b"}, true},
	}
	s := newSink(t, presetConfigs["hubspot"], Options{})
	for _, tt := range tests {
		if got := s.same(&shownRules{}, "email", tt.sent, tt.shown); got != tt.want {
			t.Errorf("%s: %v and %v: %v", tt.name, tt.sent, tt.shown, got)
		}
	}
	exact := newSink(t, presetConfigs["salesforce"]+"fold: none\n", Options{})
	if exact.same(&shownRules{}, "Name", "acme", "Acme") || !exact.same(&shownRules{Fold: "lower"}, "Name", "acme", "Acme") {
		t.Error("the case of a value counts where nothing folds it, and there alone")
	}
	unseparated := newSink(t, presetConfigs["webhook"], Options{})
	if !unseparated.same(&shownRules{}, "tags", []any{"a"}, "{b}") {
		t.Error("a list that is shown as a text of unknown form says nothing")
	}
}

// What an answer shows in parts, or not at all, says nothing.
func TestWhatAnswersShow(t *testing.T) {
	t.Parallel()
	rules := func(text string) *shownRules {
		d := loadYAML(t, `
url: https://example.com
operations: {upsert: {path: /x, result: {results: {values: `+text+`}}}}
`)
		return d.operations[Upsert][0].result.Results.Values
	}
	flat, nested := rules("[data, data.custom]"), rules("{at: data, as: [value, option.title]}")
	tree := map[string]any{"data": map[string]any{
		"name": "Acme", "none": nil, "amount": map[string]any{"value": "5"}, "custom": map[string]any{"hash": "x", "name": "hidden"},
		"tags": []any{map[string]any{"value": "a"}, map[string]any{"option": map[string]any{"title": "b"}}}, "odd": []any{map[string]any{"x": "y"}},
	}}
	for _, tt := range []struct {
		rules *shownRules
		name  string
		want  any
		shown bool
	}{
		{flat, "name", "Acme", true}, {flat, "none", nil, true}, {flat, "hash", "x", true}, {flat, "nosuch", nil, false}, {flat, "amount", nil, false},
		{nested, "amount", "5", true}, {nested, "tags", []any{"a", "b"}, true}, {nested, "odd", nil, false},
	} {
		got, shown := tt.rules.field(tree, tt.name)
		if diff := cmp.Diff(tt.want, got); diff != "" || shown != tt.shown {
			t.Errorf("%s: %v %s", tt.name, shown, diff)
		}
	}
}

// All the fields that an answer names are told. A contact's conflict names none, and is about its
// e-mail where the row has one.
func TestRefusedFields(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	taken := box.Put("hubspot", "contacts", map[string]any{"email": "taken@acme.test"})
	several, conflict, other := contact("1"), contact("2"), contact("3")
	several.Values = map[string]any{"email": "no address", "partner_status": "none", "shoe_size": "44"}
	conflict.Values = map[string]any{"email": "taken@acme.test", "firstname": "Ann"}
	other.Values = map[string]any{"lastname": "refuse me"}
	box.Refuse(sandbox.Refusal{Dialect: "hubspot", Object: "contacts", Property: "lastname", Value: "refuse me", Code: "CONFLICT", Message: "Contact already exists"})
	for _, op := range []Operation{Upsert, Create} {
		got := s.Write(within(t), op, []Row{several, conflict, other})
		for i, want := range [][]string{{"email", "partner_status", "shoe_size"}, {"email"}, nil} {
			if diff := cmp.Diff(want, got[i].Fields, cmpopts.SortSlices(strings.Compare)); diff != "" {
				t.Errorf("%s, row %d: %s\n%+v", op, i, diff, got[i])
			}
		}
		if got[1].Class != Conflict || got[1].Existing != taken {
			t.Errorf("%+v", got[1])
		}
	}
	box.Fault(sandbox.Fault{Effect: sandbox.EffectStatus, Status: 409, Body: `{"status":"error","category":"CONFLICT","message":"Contact already exists"}`})
	if got := s.Write(within(t), Upsert, []Row{conflict})[0]; got.Class != Conflict || !blames(got, "email") {
		t.Errorf("%+v", got)
	}
}

// Attio takes the title of a stage in any case, and shows its own.
func TestAttioShowsTitles(t *testing.T) {
	t.Parallel()
	c := crmNamed("attio")
	w := c.open(t, sandbox.Options{}, "")
	row := c.row("1")
	row.Values["stage"] = "lead"
	got := w.sink.Write(within(t), Upsert, []Row{row})[0]
	checkWords(t, got)
	if got.Class != OK || w.record(t, got.ID)["stage"] != "Lead" {
		t.Errorf("%+v", got)
	}
}
