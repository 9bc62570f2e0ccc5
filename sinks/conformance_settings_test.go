package sinks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// Keys of Dataverse that are numbers, in addresses, filters, bodies and lookups.
func TestConformNumberKeys(t *testing.T) {
	t.Parallel()
	c := crmNamed("dataverse")
	for _, object := range []string{"dataverse/contacts", "dataverse/accounts"} {
		c.custom[object] = append(c.custom[object], sandbox.Property{Name: "new_number", Type: "integer", Unique: true})
	}
	w := c.open(t, sandbox.Options{}, "settings: {number_keys: [new_number]}\n")
	company := w.Put(c.name, "accounts", map[string]any{"name": "Acme", "new_number": 7.0})
	row := c.row("1")
	row.Property, row.Key = "new_number", "4711"
	row.Links = []RowLink{{Object: "accounts", Property: "new_number", Key: "7"}}
	first := w.sink.Write(within(t), Upsert, []Row{row})[0]
	if first.Class != OK || !first.Created || first.Unlinked || !w.tied(t, first.ID, company) {
		t.Fatalf("%+v", first)
	}
	if got := w.sent(); !strings.HasSuffix(got[0].path, "/contacts(new_number=4711)") || !strings.Contains(got[0].body, `"/accounts(new_number=7)"`) {
		t.Errorf("%s %s", got[0].path, got[0].body)
	}
	if got := spelt(w.record(t, first.ID))["new_number"]; got != "4711" {
		t.Errorf("the key is %q", got)
	}
	row.Links = nil
	for _, op := range []Operation{Upsert, Update, Find} {
		if r := w.sink.Write(within(t), op, []Row{row})[0]; r.Class != OK || r.ID != first.ID || r.Created {
			t.Errorf("%s: %+v", op, r)
		}
	}
	row.Key = "4712"
	made := w.sink.Write(within(t), Create, []Row{row})[0]
	if made.Class != OK || w.sink.Find(within(t), []Row{row})[0].ID != made.ID {
		t.Errorf("created: %+v", made)
	}
	// Such a key stands without quotes: what is no number is not sent at all.
	w.sent()
	for _, key := range []string{"no number", "4711 or 1 eq 1", "1e3", "1_000", "1.0", "\u0661"} {
		row.Key, row.ID = key, ""
		for _, op := range []Operation{Upsert, Update, Find} {
			if r := w.sink.Write(within(t), op, []Row{row})[0]; r.Class != Rejected || !strings.Contains(r.Message, "takes digits alone") {
				t.Errorf("%s %q: %+v", op, key, r)
			}
		}
		// A link with such a key is left out; the row is worth something without it.
		linked := c.row("linked " + key)
		linked.Links = []RowLink{{Object: "accounts", Property: "new_number", Key: key}}
		if r := w.sink.Write(within(t), Upsert, []Row{linked})[0]; r.Class != OK || !r.Unlinked {
			t.Errorf("%q: %+v", key, r)
		}
	}
	for _, r := range w.sent() {
		if strings.Contains(r.path+r.query+r.body, "new_number") {
			t.Errorf("sent: %+v", r)
		}
	}
	if w.count() != 2+6 {
		t.Errorf("%d records", w.count())
	}
}

// Lookups of Salesforce that may lead to several objects need the type of a parent that goes by its key.
func TestConformPolymorphic(t *testing.T) {
	t.Parallel()
	c := crmNamed("salesforce")
	c.custom["salesforce/Task"] = []sandbox.Property{{Name: "Partner_Key__c", Unique: true}}
	c.custom["salesforce/Lead"] = []sandbox.Property{{Name: "Partner_Key__c", Unique: true}}
	for _, test := range []struct {
		settings string
		linked   bool
	}{
		{"", true},
		{"settings: {polymorphic: []}\n", false}, // without the type it is refused, and the row written without it
	} {
		w := c.open(t, sandbox.Options{}, test.settings)
		parents := map[string]string{}
		for object, values := range map[string]map[string]any{
			"Contact": {"LastName": "Doe"}, "Lead": {"LastName": "Doe", "Company": "Acme"}, "Account": {"Name": "Acme"},
		} {
			parents[object] = w.Put(c.name, object, withKeys(values, map[string]any{"Partner_Key__c": "P-" + object}))
		}
		var rows []Row
		links := []RowLink{{Object: "Contact", As: "Who"}, {Object: "Lead", As: "Who"}, {Object: "Account", As: "What"}}
		for i, l := range links {
			l.Property, l.Key = "Partner_Key__c", "P-"+l.Object
			rows = append(rows, Row{Trace: fmt.Sprint(i), Object: "Task", Property: "Partner_Key__c", Key: fmt.Sprint("T-", i),
				Values: map[string]any{"Subject": "Call"}, Links: []RowLink{l}})
		}
		got := w.sink.Write(within(t), Upsert, rows)
		if diff := cmp.Diff([]Class{OK, OK, OK}, classesOf(got)); diff != "" {
			t.Fatalf("%q: %s\n%+v", test.settings, diff, got)
		}
		for i, r := range got {
			task, _ := w.Get(c.name, "Task", r.ID)
			want := parents[links[i].Object]
			if held := task.Properties[links[i].As+"Id"]; r.Unlinked == test.linked || (held == want) != test.linked {
				t.Errorf("%q: %+v, %v of %v", test.settings, r, want, task.Properties)
			}
		}
	}
}
