package sinks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// tied reports whether a record is linked to another.
func (w *world) tied(tb testing.TB, id, parent string) bool {
	tb.Helper()
	if w.c.linkedBy == "" {
		for _, l := range w.Links(w.c.name) {
			if l.FromID == id && l.ToID == parent || l.FromID == parent && l.ToID == id {
				return true
			}
		}
		return false
	}
	return spelt(w.record(tb, id))[w.c.linkedBy] == parent
}

func (c *crm) link(from, to string) LinkRow {
	return LinkRow{
		Trace: from + to, From: Ref{Object: c.object, Property: c.key, ID: from}, To: Ref{Object: c.parent, Property: c.parentKey, ID: to}, As: c.as,
	}
}

// eachLinking runs a test for every CRM, and once more with a link that is a field of one's own where those stand elsewhere.
func eachLinking(t *testing.T, test func(t *testing.T, c *crm)) {
	t.Helper()
	eachCRM(t, test)
	t.Run("pipedrive, a custom field", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("pipedrive")
		c.as, c.linkedBy = hexLink, hexLink
		c.custom["pipedrive/deals"] = append(c.custom["pipedrive/deals"], sandbox.Property{Name: hexLink, Type: "lookup", Target: c.parent})
		test(t, c)
	})
}

func TestConformLinks(t *testing.T) {
	t.Parallel()
	eachLinking(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		made := w.sink.Write(within(t), Upsert, c.rows(3))
		one, two := w.company("ACC-1"), w.company("ACC-2")
		lacking := c.link(made[2].ID, "")
		got := w.sink.Link(within(t), []LinkRow{c.link(made[0].ID, one), c.link(made[1].ID, two), lacking})
		if diff := cmp.Diff([]Class{OK, OK, Rejected}, classesOf(got)); diff != "" {
			t.Fatalf("%s\n%+v", diff, got)
		}
		if !w.tied(t, made[0].ID, one) || !w.tied(t, made[1].ID, two) {
			t.Error("the links were not made")
		}
		if r := w.sink.Link(within(t), []LinkRow{c.link(made[0].ID, one)})[0]; r.Class != OK {
			t.Errorf("once more: %+v", r)
		}
		gone := one[:len(one)-2] + "zz"
		if r := w.sink.Link(within(t), []LinkRow{c.link(made[0].ID, gone)})[0]; r.Class != Rejected || r.Sent {
			t.Errorf("to what is not there: %+v", r)
		}
		if field := w.sink.Description().LinkField(c.object, c.parent, c.as); field != "" {
			row := c.row("0")
			for i, want := range []string{one, two, ""} {
				row.ID, row.Operation, row.Read = made[i].ID, Read, []string{field}
				r := w.sink.Write(within(t), Read, []Row{row})[0]
				if r.Class != OK || len(r.Hits) != 1 {
					t.Fatalf("%+v", r)
				}
				if got, _ := textOf(r.Hits[0].Values[field]); got != want {
					t.Errorf("%s shows %q, want %q", field, got, want)
				}
			}
		} else if c.linkedBy != "" {
			t.Error("it does not show its links")
		}
		if got := w.sink.Replaces(c.link("1", "2")); got != (c.linkedBy != "") {
			t.Errorf("a link replaces the former one: %v", got)
		}
		if !w.sink.Supports(Unlink) {
			if c.name != "attio" {
				t.Error("it cannot unlink")
			}
			return
		}
		away := c.link(made[1].ID, two)
		away.Remove = true
		if r := w.sink.Link(within(t), []LinkRow{away})[0]; r.Class != OK || w.tied(t, made[1].ID, two) {
			t.Errorf("unlinked: %+v", r)
		}
		// Where a link replaces the former one, its removal in the same call must not undo it.
		former := c.link(made[0].ID, one)
		former.Remove = true
		if !w.sink.Replaces(former) {
			return
		}
		both := w.sink.Link(within(t), []LinkRow{c.link(made[0].ID, two), former})
		if diff := cmp.Diff([]Class{OK, OK}, classesOf(both)); diff != "" || !w.tied(t, made[0].ID, two) {
			t.Errorf("%s\n%+v %v", diff, both, spelt(w.record(t, made[0].ID)))
		}
	})
}

// A link of a row to what is gone does not make the row gone, and a row that is
// gone is not the fault of its link.
func TestConformLinksToWhatIsGone(t *testing.T) {
	t.Parallel()
	eachLinking(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		made := w.sink.Write(within(t), Upsert, c.rows(2))
		company, gone := w.company("ACC-1"), w.company("ACC-2")
		w.Archive(c.name, c.parent, gone)
		if byID, _ := w.sink.Description().CarriesLinks(Update); byID {
			row := c.row("0")
			row.ID, row.Links = made[0].ID, []RowLink{{Object: c.parent, Property: c.parentKey, Key: "ACC-2", ID: gone, As: c.as}}
			r := w.sink.Write(within(t), Update, []Row{row})[0]
			if c.name == "pipedrive" { // it says that something was not found, in words that are not documented
				if r.Class != Rejected || r.Absent {
					t.Errorf("%+v", r)
				}
			} else if r.Class != OK || !r.Unlinked {
				t.Errorf("%+v", r)
			}
			w.Server.Archive(c.name, c.object, made[0].ID)
			row.Links[0].ID = company
			if r := w.sink.Write(within(t), Update, []Row{row})[0]; r.Class != Rejected || !r.Absent {
				t.Errorf("the row is gone: %+v", r)
			}
		}
		w.Server.Archive(c.name, c.object, made[1].ID)
		before := w.count()
		if r := w.sink.Link(within(t), []LinkRow{c.link(made[1].ID, company)})[0]; r.Class != Rejected || w.count() != before {
			t.Errorf("a link from what is gone: %+v, %d records", r, w.count()-before)
		}
	})
}

// Rows that lack what the operation needs are not sent, and say what it is.
func TestConformLacking(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		keyless, nameless := c.row("1"), c.row("2")
		keyless.Key, nameless.Property = "", ""
		rows := append(c.rows(1), keyless, nameless)
		for op, words := range map[Operation]string{Upsert: "no ", Find: "no ", Archive: "no record.id"} {
			for i, r := range w.sink.Write(within(t), op, rows) {
				if (i > 0 || op == Archive) && (r.Class != Rejected || r.Status != 0 || r.Absent || !strings.Contains(r.Message, words)) {
					t.Errorf("%s, row %d: %+v", op, i, r)
				}
			}
		}
		for _, link := range []LinkRow{c.link("", "7"), c.link("7", "")} {
			if r := w.sink.Link(within(t), []LinkRow{link})[0]; r.Class != Rejected || r.Status != 0 {
				t.Errorf("%+v", r)
			}
		}
	})
}

// Links that go along with the row, by known ids.
func TestConformLinksOfARow(t *testing.T) {
	t.Parallel()
	eachLinking(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		company := w.company("ACC-1")
		for _, op := range []Operation{Create, Upsert, Update} {
			byID, _ := w.sink.Description().CarriesLinks(op)
			row := c.row(string(op))
			if op == Update {
				row.ID = w.sink.Write(within(t), Upsert, []Row{row})[0].ID
			}
			row.Links = []RowLink{{Object: c.parent, ID: company, As: c.as}}
			if c.name == "hubspot" && op == Create {
				row.Object, row.Property, row.Values = "contacts", "", map[string]any{"email": "a@acme.test"}
			}
			r := w.sink.Write(within(t), op, []Row{row})[0]
			if r.Class != OK || r.Unlinked == byID {
				t.Errorf("%s: %+v", op, r)
			}
			if byID && !w.tied(t, max(r.ID, row.ID), company) {
				t.Errorf("%s: the link is not there", op)
			}
			row.Links[0].ID, row.Links[0].Required, row.Key = "", true, row.Key+"-2"
			if r := w.sink.Write(within(t), op, []Row{row})[0]; !c.byKey && (r.Class != Rejected || !r.Unlinked || r.Status != 0) {
				t.Errorf("%s with a link that cannot go along: %+v", op, r)
			}
		}
		if byID, _ := w.sink.Description().CarriesLinks(Upsert); !byID && c.linkedBy != "" {
			t.Error("it can carry links")
		}
	})
}

// Parents that the CRM finds by our key, in the call that writes the record.
func TestConformParentsByKey(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		if _, byKey := w.sink.Description().CarriesLinks(Upsert); byKey != c.byKey {
			t.Fatalf("by key: %v", byKey)
		}
		company := w.company("ACC'1")
		rows := c.rows(4)
		for i := range rows {
			rows[i].Links = []RowLink{{Object: c.parent, Property: c.parentKey, Key: "ACC'1", As: c.as}}
		}
		rows[2].Links[0].Key = "ACC-unknown"
		rows[3].Links[0].Key, rows[3].Links[0].Required = "ACC-unknown", true
		got := w.sink.Write(within(t), Upsert, rows)
		if !c.byKey {
			if diff := cmp.Diff([]Class{OK, OK, OK, Rejected}, classesOf(got)); diff != "" || !got[0].Unlinked || !got[3].Unlinked {
				t.Errorf("%s\n%+v", diff, got)
			}
			return
		}
		if diff := cmp.Diff([]Class{OK, OK, OK, Rejected}, classesOf(got)); diff != "" {
			t.Fatalf("%s\n%+v", diff, got)
		}
		if got[0].Unlinked || got[1].Unlinked || !got[2].Unlinked || !got[3].Unlinked {
			t.Errorf("%+v", got)
		}
		for _, r := range got[:2] {
			if !w.tied(t, r.ID, company) {
				t.Errorf("%s is not linked: %v", r.ID, spelt(w.record(t, r.ID)))
			}
		}
		// A row that is bad in itself is refused for that, with or without links.
		bad := c.row("bad")
		bad.Values[c.choice] = c.bad
		bad.Links = []RowLink{{Object: c.parent, Property: c.parentKey, Key: "ACC'1", As: c.as}}
		if r := w.sink.Write(within(t), Upsert, []Row{bad})[0]; r.Class != Rejected || r.Unlinked {
			t.Errorf("%+v", r)
		}
	})
}

// A link for which no field is known says so.
func TestConformLinkWithoutAField(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		if c.name == "hubspot" || c.name == "salesforce" {
			return // the one has a default for every two objects, the other names the lookup after the object
		}
		link := c.link("1", "2")
		link.To.Object = "planets"
		r := w.sink.Link(within(t), []LinkRow{link})[0]
		if r.Class != Rejected || r.Status != 0 || len(r.Message) < 40 {
			t.Errorf("%+v", r)
		}
		row := c.row("1")
		row.Links = []RowLink{{Object: "planets", ID: "7"}}
		want := "the request cannot be made: a member of the body has no name; a link has one in `as`"
		op := Create
		if r := w.sink.Write(within(t), op, []Row{row})[0]; r.Class != Rejected || r.Message != want {
			t.Errorf("%+v", r)
		}
	})
}

// What is not found may be the record at the other end of a link, or the record
// itself: sent again without the link it shows.
func TestConformNotFoundWithLinks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		crm    string
		status int
		body   string
	}{
		{"attio", 404, `{"status_code":404,"type":"invalid_request_error","code":"not_found","message":"Record not found."}`},
		{"attio", 400, `{"status_code":400,"type":"invalid_request_error","code":"value_not_found","message":"Record not found."}`},
		{"attio", 400, `{"status_code":400,"type":"invalid_request_error","code":"multiple_match_results","message":"Several."}`},
		{"dataverse", 404, `{"error":{"code":"0x80040217","message":"account With Id = 1 Does Not Exist"}}`},
		{"dataverse", 400, `{"error":{"code":"0x80048d19","message":"x"}}`},
	}
	for _, test := range tests {
		t.Run(test.crm+"/"+test.body[:40], func(t *testing.T) {
			t.Parallel()
			c := crmNamed(test.crm)
			w := c.open(t, sandbox.Options{}, "")
			row := c.row("1")
			row.Links = []RowLink{{Object: c.parent, Property: c.parentKey, Key: "ACC-1", ID: w.company("ACC-1")}}
			w.Fault(sandbox.Fault{Contains: c.linkedBy, Effect: sandbox.EffectStatus, Status: test.status, Body: test.body})
			for _, op := range []Operation{Upsert, Update} {
				if r := w.sink.Write(within(t), op, []Row{row})[0]; r.Class != OK || !r.Unlinked {
					t.Errorf("%s: %+v", op, r)
				}
			}
			row.Links[0].Required = true
			if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != Rejected || !r.Unlinked || r.Absent {
				t.Errorf("required: %+v", r)
			}
		})
	}
}
