package sinks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// Notes and tasks name the module of what they are about, where its id does not tell.
func TestZohoParents(t *testing.T) {
	t.Parallel()
	parents := map[string]map[string]any{
		"Accounts": {"Account_Name": "Acme"}, "Contacts": {"Last_Name": "Doe"}, "Leads": {"Last_Name": "Doe"},
		"Deals": {"Deal_Name": "Acme", "Stage": "Qualification"},
	}
	tests := []struct{ object, parent, as, want string }{
		{"Notes", "Accounts", "", `"Parent_Id":{"id":"ID","module":{"api_name":"Accounts"}}`},
		{"Notes", "Contacts", "", `"Parent_Id":{"id":"ID","module":{"api_name":"Contacts"}}`},
		{"Notes", "Leads", "", `"Parent_Id":{"id":"ID","module":{"api_name":"Leads"}}`},
		{"Notes", "Deals", "Parent_Id", `"Parent_Id":{"id":"ID","module":{"api_name":"Deals"}}`},
		{"Tasks", "Accounts", "", `"What_Id":{"id":"ID"},"$se_module":"Accounts"`},
		{"Tasks", "Deals", "What_Id", `"What_Id":{"id":"ID"},"$se_module":"Deals"`},
		{"Tasks", "Contacts", "", `"Who_Id":{"id":"ID"}`},
		{"Tasks", "Leads", "Who_Id", `"Who_Id":{"id":"ID"}`},
		{"Contacts", "Accounts", "", `"Account_Name":{"id":"ID"}`},
		{"Deals", "Contacts", "", `"Contact_Name":{"id":"ID"}`},
	}
	values := map[string]map[string]any{
		"Notes": {"Note_Title": "x", "Note_Content": "hello"}, "Tasks": {"Subject": "x"}, "Contacts": parents["Contacts"], "Deals": parents["Deals"],
	}
	c := crmNamed("zoho")
	for _, test := range tests {
		t.Run(test.object+" of "+test.parent, func(t *testing.T) {
			t.Parallel()
			w := c.open(t, sandbox.Options{}, "")
			id := w.Put("zoho", test.parent, parents[test.parent])
			want := strings.ReplaceAll(test.want, "ID", id)
			row := Row{Trace: "t", Object: test.object, Values: values[test.object], Links: []RowLink{{Object: test.parent, ID: id, As: test.as}}}
			made := w.sink.Write(within(t), Create, []Row{row})[0]
			row.ID = made.ID
			link := LinkRow{Trace: "l", From: Ref{Object: test.object, ID: made.ID}, To: Ref{Object: test.parent, ID: id}, As: test.as}
			for _, r := range append(append(w.sink.Write(within(t), Update, []Row{row}), w.sink.Link(within(t), []LinkRow{link})...), made) {
				if r.Class != OK {
					t.Errorf("%+v", r)
				}
			}
			for _, sent := range w.sent() {
				if !strings.Contains(sent.body, want) || strings.Count(sent.body, "odule") != strings.Count(want, "odule") {
					t.Errorf("%s %s: %s, want %s", sent.method, sent.path, sent.body, want)
				}
			}
		})
	}
	// A note of nothing is not sent, and does not take the others of its batch with it.
	w := c.open(t, sandbox.Options{}, "")
	id := w.Put("zoho", "Accounts", parents["Accounts"])
	own := map[string]any{"id": id, "module": map[string]any{"api_name": "Accounts"}}
	got := w.sink.Write(within(t), Create, []Row{
		{Trace: "1", Object: "Notes", Values: values["Notes"]},
		{Trace: "2", Object: "Notes", Values: values["Notes"], Links: []RowLink{{Object: "Accounts", ID: id}}},
		{Trace: "3", Object: "Notes", Values: withKeys(values["Notes"], map[string]any{"Parent_Id": own})},
	})
	if diff := cmp.Diff([]Class{Rejected, OK, OK}, classesOf(got)); diff != "" || !strings.Contains(got[0].Message, "a note needs the record that it is about") {
		t.Errorf("%s\n%+v", diff, got)
	}
}
