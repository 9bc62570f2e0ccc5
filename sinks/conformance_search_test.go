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

// eachSearching runs a test for every CRM: records can be looked for in each. Zoho has two ways.
func eachSearching(t *testing.T, test func(t *testing.T, c *crm)) {
	t.Helper()
	t.Run("zoho by COQL", func(t *testing.T) {
		t.Parallel()
		test(t, byCOQL())
	})
	eachCRM(t, func(t *testing.T, c *crm) {
		if why := loadYAML(t, presetConfigs[c.name]).CannotSearch(c.object, []string{c.required}); why != "" {
			t.Fatal(why)
		}
		test(t, c)
	})
}

func byCOQL() *crm {
	c := crmNamed("zoho")
	c.config += "settings: {coql: true}\n"
	return c
}

// A hundred records are one query.
func TestZohoCOQL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		c        *crm
		requests int
	}{{byCOQL(), 1}, {crmNamed("zoho"), 10}} {
		w := test.c.open(t, sandbox.Options{}, "")
		id := w.sales("O'Brien 7", "x")
		var rows []Row
		for i := range 100 {
			rows = append(rows, test.c.seeking(fmt.Sprint(i), fmt.Sprintf("o'brien %d", i)))
		}
		got := w.sink.Write(within(t), Search, rows)
		if diff := cmp.Diff([]string{id}, idsOf(got[7])); diff != "" || got[8].Class != OK || len(got[8].Hits) > 0 {
			t.Errorf("%s\n%+v", diff, got[8])
		}
		if n := len(w.sent()); n != test.requests {
			t.Errorf("%d requests, want %d", n, test.requests)
		}
	}
}

// seeking is a row that looks for a record by its required field, and where two values are given by the free one, too.
func (c *crm) seeking(n string, values ...string) Row {
	row := Row{Trace: "seek-" + n, Object: c.object, Read: []string{c.field, c.choice}}
	for i, v := range values {
		row.Terms = append(row.Terms, Term{[]string{c.required, c.field}[i], v})
	}
	return row
}

// sales enters a record by hand.
func (w *world) sales(required, field string) string {
	values := w.c.values("")
	values[w.c.required], values[w.c.field] = required, field
	return w.Put(w.c.name, w.c.object, values)
}

func idsOf(r Result) []string {
	var ids []string
	for _, h := range r.Hits {
		ids = append(ids, h.ID)
	}
	return ids
}

// Rows are looked for together, and each has the records that show its terms: one, several, or none.
func TestConformSearch(t *testing.T) {
	t.Parallel()
	eachSearching(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		one := w.sales("Acme", "hello")
		first, second := w.sales("Twice", "a"), w.sales("TWICE", "b")
		w.sales("Acme Holding", "hello")
		got := w.sink.Write(within(t), Search, []Row{c.seeking("1", "Acme"), c.seeking("2", "nobody"), c.seeking("3", "Twice")})
		for i, want := range [][]string{{one}, nil, {first, second}} {
			if diff := cmp.Diff(want, idsOf(got[i])); diff != "" || got[i].Class != OK || got[i].More {
				t.Errorf("row %d: %s\n%+v", i, diff, got[i])
			}
		}
		if w.sink.MaxRows(Search) > 3 && len(w.sent()) != 1 {
			t.Error("the rows did not share their request")
		}
		want := []Hit{{ID: one, Values: map[string]any{c.field: "hello", c.choice: nil}, URL: w.sink.Description().RecordURL(c.object, one)}}
		if v, has := c.values("")[c.choice]; has && c.choice != c.required {
			want[0].Values[c.choice] = v
		} else if c.choice == c.required {
			want[0].Values[c.choice] = "Acme"
		}
		if diff := cmp.Diff(want, got[0].Hits); diff != "" {
			t.Error(diff)
		}
		// All terms have to fit.
		got = w.sink.Write(within(t), Search, []Row{
			c.seeking("1", "Acme", "hello"), c.seeking("2", "Acme", "other"), c.seeking("3", "Twice", "b"), c.seeking("4", "none", "hello"),
		})
		for i, want := range [][]string{{one}, nil, {second}, nil} {
			if diff := cmp.Diff(want, idsOf(got[i])); diff != "" || got[i].Class != OK {
				t.Errorf("two terms, row %d: %s\n%+v", i, diff, got[i])
			}
		}
	})
}

// Whatever stands in a value, it finds the record that has it and no other.
func TestConformSearchHostile(t *testing.T) {
	t.Parallel()
	eachSearching(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		values := []string{
			`O'Brien`, `back\slash`, `\`, `\'`, `') OR (Name != '`, `"quoted"`, `per%cent`, `under_score`, `a,b`, `(in)`, `semi;colon`,
			`plus+and&=#?`, `Zoë 😀`, `%`, `*`, `null`, `true`, `{"x":1}`, `a  b`, `10`, `a:b`,
		}
		var ids []string
		for _, v := range values {
			ids = append(ids, w.sales(v, "same"))
		}
		for _, several := range []bool{false, true} {
			var rows []Row
			for i, v := range values {
				row := c.seeking(fmt.Sprint(i), v)
				if several {
					row = c.seeking(fmt.Sprint(i), v, "same")
				}
				rows = append(rows, row)
			}
			for i, r := range w.sink.Write(within(t), Search, rows) {
				if diff := cmp.Diff([]string{ids[i]}, idsOf(r)); diff != "" || r.Class != OK {
					t.Errorf("%s: %s\n%+v", values[i], diff, r)
				}
			}
		}
	})
}

// Of more records than an answer holds the first come, and that there are more is told; rows that share a
// request have what is theirs all the same.
func TestConformSearchTooMany(t *testing.T) {
	t.Parallel()
	eachSearching(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		for range 1050 {
			w.sales("Many", "x")
		}
		one := w.sales("Acme", "x")
		got := w.sink.Write(within(t), Search, []Row{c.seeking("1", "Acme"), c.seeking("2", "Many"), c.seeking("3", "none")})
		if diff := cmp.Diff([]string{one}, idsOf(got[0])); diff != "" || got[0].More || got[2].More || len(got[2].Hits) > 0 || got[2].Class != OK {
			t.Errorf("%s\n%+v\n%+v", diff, got[0], got[2])
		}
		if got[1].Class != OK || !got[1].More || len(got[1].Hits) < 2 {
			t.Errorf("%s, more %v, %d hits", got[1].Class, got[1].More, len(got[1].Hits))
		}
	})
}

// A record that was just made may not be there for a search; it is once find_lag has passed.
func TestConformSearchLag(t *testing.T) {
	t.Parallel()
	eachSearching(t, func(t *testing.T, c *crm) {
		now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		lag := loadYAML(t, presetConfigs[c.name]).findLag
		w := c.openWith(t, sandbox.Options{Lag: lag, Now: clock}, "", Options{Now: clock})
		row := c.row("1")
		made := w.sink.Write(within(t), Create, []Row{row})[0]
		term, _ := textOf(row.Values[c.required])
		if lag > 0 {
			if got := w.sink.Write(within(t), Search, []Row{c.seeking("1", term)})[0]; got.Class != OK || len(got.Hits) > 0 {
				t.Errorf("%+v", got)
			}
		}
		now = now.Add(lag)
		got := w.sink.Write(within(t), Search, []Row{c.seeking("1", term)})[0]
		if diff := cmp.Diff([]string{made.ID}, idsOf(got)); diff != "" {
			t.Errorf("%s\n%+v", diff, got)
		}
	})
}

// A field that is not there refuses the row in one request, with a line that names it and nothing that was looked for.
func TestConformSearchUnknownField(t *testing.T) {
	t.Parallel()
	eachSearching(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		row := c.seeking("1", "hidden-value")
		row.Terms[0].Property = "nosuchfield"
		if c.strange != "" {
			row.Terms[0].Property = c.strange
		}
		got := w.sink.Write(within(t), Search, []Row{row})[0]
		named := c.strange != "" || strings.Contains(got.Message, "nosuchfield") || slices.Contains(got.Fields, "nosuchfield")
		if got.Class != Rejected || got.Absent || got.Sent || strings.Contains(got.Message, "hidden-value") || !named {
			t.Errorf("%+v", got)
		}
		checkWords(t, got)
		if n := len(w.sent()); n != 1 {
			t.Errorf("%d requests", n)
		}
		// Nor is it told where the CRM quotes it.
		w.Fault(sandbox.Fault{Effect: sandbox.EffectStatus, Status: 422, Body: `{"message":"no HIDDEN-VALUE here"}`, Count: 1})
		if got := w.sink.Write(within(t), Search, []Row{c.seeking("1", "hidden-value")})[0]; got.Class == OK || strings.Contains(strings.ToLower(got.Message), "hidden-value") {
			t.Errorf("%+v", got)
		}
		w.sent()
		for _, empty := range []Row{{Trace: "x", Object: c.object}, c.seeking("2", "")} {
			if got := w.sink.Write(within(t), Search, []Row{empty})[0]; got.Class != Rejected || len(w.sent()) > 0 {
				t.Errorf("it would find anything: %+v", got)
			}
		}
	})
}

// Records whose ids are known are read together; one that is gone is told apart.
func TestConformRead(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		if why := w.sink.Description().CannotRead(c.object); why != "" {
			t.Fatal(why)
		}
		a, b, gone := w.sales("Acme", "hello"), w.sales("Apex", ""), w.sales("Gone", "x")
		w.Archive(c.name, c.object, gone)
		read := func(n, id string, names ...string) Row { return Row{Trace: n, Object: c.object, ID: id, Read: names} }
		got := w.sink.Write(within(t), Read, []Row{read("1", a, c.field), read("2", gone, c.field), read("3", b, c.field, c.required)})
		for i, want := range []map[string]any{{c.field: "hello"}, nil, {c.field: nil, c.required: "Apex"}} {
			if want == nil {
				if got[i].Class != Rejected || !got[i].Absent || got[i].Sent {
					t.Errorf("%+v", got[i])
				}
				continue
			}
			if got[i].Class != OK || len(got[i].Hits) != 1 || got[i].Hits[0].ID != []string{a, "", b}[i] {
				t.Errorf("%+v", got[i])
				continue
			}
			if diff := cmp.Diff(want, got[i].Hits[0].Values); diff != "" {
				t.Error(diff)
			}
		}
		if n := len(w.sent()); n != 1 && w.sink.MaxRows(Read) > 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// A find by our key shows values, too: at once, or by the read that follows it.
func TestConformFindShows(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		values := withKeys(c.values("1"), map[string]any{c.key: "PS-1", c.field: "hello"})
		id := w.Put(c.name, c.object, values)
		row := Row{Trace: "1", Object: c.object, Property: c.key, Key: "ps-1", Read: []string{c.field}}
		if !c.caseless {
			row.Key = "PS-1"
		}
		other := Row{Trace: "2", Object: c.object, Property: c.key, Key: "PS-2", Read: []string{c.field}}
		got := w.sink.Find(within(t), []Row{row, other})
		if got[0].Class != OK || got[0].ID != id || len(got[0].Hits) != 1 || got[0].Hits[0].Values[c.field] != "hello" {
			t.Errorf("%+v", got[0])
		}
		if !got[1].Absent {
			t.Errorf("%+v", got[1])
		}
	})
}
