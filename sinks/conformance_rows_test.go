package sinks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// A record is made once, then found by its key, then written by its id in one call.
func TestConformUpsert(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		row := c.row("1")
		first := w.sink.Write(within(t), Upsert, []Row{row})[0]
		if first.Class != OK || first.ID == "" || !first.Created && !c.silent {
			t.Fatalf("new: %+v", first)
		}
		got := w.record(t, first.ID)
		if got[c.key] != "PS-1" || got[c.field] != row.Values[c.field] {
			t.Errorf("the record is %v", got)
		}
		w.sent()
		row.Values = map[string]any{c.field: "later"}
		again := w.sink.Write(within(t), Upsert, []Row{row})[0]
		if again.Class != OK || again.ID != first.ID || again.Created {
			t.Errorf("again: %+v", again)
		}
		if w.count() != 1 || w.record(t, first.ID)[c.field] != "later" {
			t.Errorf("%d records, %v", w.count(), w.record(t, first.ID))
		}
		w.sent()

		row.ID = first.ID
		op, _ := w.sink.Group(row)
		if op != Update {
			t.Fatalf("a row with an id is written by %s", op)
		}
		row.Values = map[string]any{c.field: nil}
		byID := w.sink.Write(within(t), op, []Row{row})[0]
		if byID.Class != OK || byID.Created || byID.ID != "" && byID.ID != first.ID {
			t.Errorf("by id: %+v", byID)
		}
		if n := len(w.sent()); n != 1 {
			t.Errorf("an update by id took %d calls", n)
		}
		if v, has := w.record(t, first.ID)[c.field]; has {
			t.Errorf("the field is not blanked: %v", v)
		}
	})
}

// Keys with signs that mean something in addresses, queries and bodies.
func TestConformOddKeys(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		for i, key := range []string{"O'Neil & Söhne", `a\b`, "a+b@acme.inc", "x) OR (y", "100%", "a/b?c=d#e", "..", `q"uote`, "a,b", "日本"} {
			row := c.row(fmt.Sprint(i))
			row.Key = key
			r := w.sink.Write(within(t), Upsert, []Row{row})[0]
			if c.name == "dataverse" && strings.ContainsAny(key, `/<>*%&:\?+`) {
				// Refused before it is sent, with the reason.
				want := Result{Class: Rejected, Code: "request", Message: "the request cannot be made: a key with one of the characters " +
					`/ < > * % & : \ ? + does not work in Dataverse`}
				if diff := cmp.Diff(want, r); diff != "" {
					t.Errorf("%q (-want +got):\n%s", key, diff)
				}
				continue
			}
			if r.Class != OK {
				t.Fatalf("%q: %+v", key, r)
			}
			if got := w.record(t, r.ID)[c.key]; got != key {
				t.Errorf("%q arrived as %q", key, got)
			}
			found := w.sink.Find(within(t), []Row{row})[0]
			if found.Class != OK || found.ID != r.ID {
				t.Errorf("%q is not found: %+v", key, found)
			}
			if again := w.sink.Write(within(t), Upsert, []Row{row})[0]; again.ID != r.ID {
				t.Errorf("%q was made twice", key)
			}
		}
	})
}

// Invariant 4: one bad row of a batch is refused alone, and in the CRM's own words.
func TestConformBadRow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		give func(c *crm, row *Row)
		want func(c *crm, r Result) string
	}{
		{"required", func(c *crm, row *Row) { delete(row.Values, c.required) }, func(c *crm, r Result) string {
			if !c.unnamed && !blames(r, c.required) {
				return "it does not name " + c.required
			}
			return ""
		}},
		{"not allowed", func(c *crm, row *Row) { row.Values[c.choice] = c.bad }, func(c *crm, r Result) string {
			if diff := cmp.Diff(c.allowed, r.Allowed); diff != "" {
				return diff
			}
			if !blames(r, c.choice) && !strings.Contains(r.Message, c.choice) {
				return "it does not name " + c.choice
			}
			if text, isText := c.bad.(string); isText && strings.Contains(r.Message, text) {
				return "it tells the value"
			}
			return ""
		}},
		{"unknown property", func(_ *crm, row *Row) { row.Values["shoe_size"] = "forty-four" }, func(_ *crm, r Result) string {
			if !blames(r, "shoe_size") {
				return "it does not name the property"
			}
			return ""
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			eachCRM(t, func(t *testing.T, c *crm) {
				w := c.open(t, sandbox.Options{}, "")
				rows := c.rows(20)
				test.give(c, &rows[7])
				for i, r := range w.sink.Write(within(t), Upsert, rows) {
					checkWords(t, r)
					if i != 7 {
						if r.Class != OK {
							t.Errorf("row %d: %+v", i, r)
						}
						continue
					}
					if r.Class != Rejected || r.Sent || r.Code == "" {
						t.Errorf("%+v", r)
					}
					if why := test.want(c, r); why != "" {
						t.Errorf("%s: %+v", why, r)
					}
				}
				if w.count() != 19 {
					t.Errorf("%d records", w.count())
				}
			})
		})
	}
}

// A field that is refused by name is left out where it may be.
func TestConformOptional(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		rows := c.rows(3)
		for i := range rows {
			rows[i].Values["shoe_size"] = "44"
		}
		rows[0].Optional, rows[2].Optional = []string{"shoe_size"}, []string{"shoe_size", c.field}
		got := w.sink.Write(within(t), Upsert, rows)
		if diff := cmp.Diff([]Class{OK, Rejected, OK}, classesOf(got)); diff != "" {
			t.Fatalf("%s\n%+v", diff, got)
		}
		if diff := cmp.Diff([]string{"shoe_size"}, got[2].Dropped); diff != "" || got[1].Dropped != nil {
			t.Error(diff, got[1].Dropped)
		}
	})
}

// The same key twice in one Write: both arrive, the later one last.
func TestConformSameKeyTwice(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		rows := c.rows(4)
		rows[3].Key, rows[3].Values[c.field] = rows[1].Key, "later"
		if c.caseless {
			rows[3].Key = strings.ToLower(rows[1].Key)
		}
		got := w.sink.Write(within(t), Upsert, rows)
		if diff := cmp.Diff([]Class{OK, OK, OK, OK}, classesOf(got)); diff != "" {
			t.Fatalf("%s\n%+v", diff, got)
		}
		if got[1].ID != got[3].ID || w.count() != 3 || w.record(t, got[1].ID)[c.field] != "later" {
			t.Errorf("%+v, %d records", got, w.count())
		}
		if n := len(w.sent()); w.sink.MaxRows(Upsert) > 1 && n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

// Even where they come as one request after all, since the config says that keys
// which differ in their case are two, every row gets what became of it.
func TestConformSameKeyInOneRequest(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		if !c.caseless {
			return
		}
		w := c.open(t, sandbox.Options{}, "fold: none\n")
		rows := c.rows(6)
		rows[4].Key = strings.ToLower(rows[1].Key)
		got := w.sink.Write(within(t), Upsert, rows)
		if diff := cmp.Diff([]Class{OK, OK, OK, OK, OK, OK}, classesOf(got)); diff != "" {
			t.Fatalf("%s\n%+v", diff, got)
		}
		if got[1].ID != got[4].ID || w.count() != 5 {
			t.Errorf("%+v, %d records", got, w.count())
		}
	})
}

func TestConformFind(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		rows := c.rows(5)
		id := w.sink.Write(within(t), Upsert, rows[:1])[0].ID
		got := w.sink.Find(within(t), rows)
		if got[0].Class != OK || got[0].ID != id {
			t.Errorf("%+v", got[0])
		}
		for _, r := range got[1:] {
			if r.Class != Rejected || !r.Absent {
				t.Errorf("%+v", r)
			}
		}
		if c.name == "hubspot" {
			return // it looks up unique properties only
		}
		for _, n := range []string{"one", "two"} {
			w.Put(c.name, c.object, withKeys(c.values(n), map[string]any{c.field: "shared"}))
		}
		row := c.row("x")
		row.Property, row.Key = c.field, "shared"
		if r := w.sink.Find(within(t), []Row{row})[0]; r.Class != Rejected || r.Absent || r.Code != "several_found" {
			t.Errorf("two records of one key: %+v", r)
		}
	})
}

// update_only: by id, by key, and of what is not there.
func TestConformUpdate(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		made := w.sink.Write(within(t), Upsert, c.rows(2))
		byID, byKey, unknown, gone := c.row("0"), c.row("1"), c.row("2"), c.row("3")
		byID.ID, gone.ID = made[0].ID, made[1].ID[:len(made[1].ID)-2]+"00"
		for _, row := range []*Row{&byID, &byKey, &unknown, &gone} {
			row.Values = map[string]any{c.field: "updated"}
		}
		got := w.sink.Write(within(t), Update, []Row{byID, byKey, unknown, gone})
		if diff := cmp.Diff([]Class{OK, OK, Rejected, Rejected}, classesOf(got)); diff != "" {
			t.Fatalf("%s\n%+v", diff, got)
		}
		if got[1].ID != made[1].ID || !got[2].Absent || !got[3].Absent {
			t.Errorf("%+v", got)
		}
		if w.count() != 2 {
			t.Errorf("an update made a record: %d", w.count())
		}
		for _, r := range made {
			if v := w.record(t, r.ID)[c.field]; v != "updated" {
				t.Errorf("%v", v)
			}
		}
		// What was deleted is absent too.
		w.Archive(c.name, c.object, made[0].ID)
		if r := w.sink.Write(within(t), Update, []Row{byID})[0]; r.Class != Rejected || !r.Absent {
			t.Errorf("deleted: %+v", r)
		}
	})
}

func TestConformArchive(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		row := c.row("1")
		row.ID = w.sink.Write(within(t), Upsert, []Row{row})[0].ID
		if r := w.sink.Write(within(t), Archive, []Row{c.row("1")})[0]; r.Class != Rejected || r.Status != 0 {
			t.Errorf("without an id: %+v", r)
		}
		if r := w.sink.Write(within(t), Archive, []Row{row})[0]; r.Class != OK {
			t.Fatalf("%+v", r)
		}
		if c.name == "dataverse" {
			// Nothing is deleted that could not be had back.
			if got := w.record(t, row.ID)["statecode"]; got != 1.0 {
				t.Errorf("statecode %v", got)
			}
			w.Server.Archive(c.name, c.object, row.ID)
		} else if w.count() != 0 {
			t.Error("it is still there")
		}
		r := w.sink.Write(within(t), Archive, []Row{row})[0]
		if c.name != "hubspot" && (r.Class != Rejected || !r.Absent) {
			t.Errorf("what is gone: %+v", r)
		}
	})
}

// append: a note, with the record that it is about.
func TestConformAppend(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		id := w.sink.Write(within(t), Upsert, c.rows(1))[0].ID
		w.sent()
		note := Row{Trace: "n", Object: c.note, Values: c.noteValue, Links: []RowLink{{Object: c.object, ID: id, As: c.noteAs}}}
		if c.name == "hubspot" {
			note.Links[0] = RowLink{Object: c.parent, ID: w.company("ACC-1")}
		}
		r := w.sink.Write(within(t), Create, []Row{note})[0]
		if r.Class != OK || !r.Created || r.ID == "" || r.Unlinked {
			t.Fatalf("%+v", r)
		}
		notes := w.Records(c.name, c.note)
		if len(notes) != 1 || notes[0].ID != r.ID {
			t.Fatalf("%+v", notes)
		}
		want := note.Links[0].ID
		if c.name == "hubspot" {
			if links := w.Links(c.name); len(links) != 1 || links[0].ToID != want {
				t.Errorf("%+v", links)
			}
		} else if held := fmt.Sprint(spelt(notes[0].Properties)); !strings.Contains(held, want) {
			t.Errorf("the note is not tied to %s: %s", want, held)
		}
		if w.sink.Repeatable(Create) {
			t.Error("a note that is sent twice is there twice")
		}
		if !w.sink.Repeatable(Upsert) {
			t.Error("a record that is looked for by its key, or named by it, is not there twice")
		}
	})
}

// spelt writes numbers without an exponent, so that an id in them shows.
func spelt(properties map[string]any) map[string]string {
	out := map[string]string{}
	for name, v := range properties {
		if n, ok := v.(float64); ok {
			v = fmt.Sprintf("%.0f", n)
		}
		out[name] = fmt.Sprint(v)
	}
	return out
}
