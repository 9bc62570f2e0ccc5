package sinks

import (
	"fmt"
	"testing"

	"github.com/shopspring/decimal"

	"partnersync/internal/sandbox"
)

// dealsOf is what a CRM calls a deal, and which values one has.
var dealsOf = map[string]struct {
	object string
	values map[string]any
}{
	"attio":      {"deals", map[string]any{"name": "Acme", "stage": "Lead"}},
	"dataverse":  {"opportunities", map[string]any{"name": "Acme"}},
	"hubspot":    {"deals", map[string]any{"dealname": "Acme", "dealstage": "appointmentscheduled", "pipeline": "default"}},
	"pipedrive":  {"deals", map[string]any{"title": "Acme"}},
	"salesforce": {"Opportunity", map[string]any{"Name": "Acme", "StageName": "Prospecting", "CloseDate": "2026-12-31"}},
	"zoho":       {"Deals", map[string]any{"Deal_Name": "Acme", "Stage": "Qualification"}},
}

// deals is a sink and rows for so many deals, each of which the CRM has already.
func (c *crm) deals(tb testing.TB, n int) (*world, []Row) {
	tb.Helper()
	deal := dealsOf[c.name]
	name := c.name + "/" + deal.object
	w := c.open(tb, sandbox.Options{Custom: map[string][]sandbox.Property{
		name: {{Name: c.key, Unique: true}, {Name: "amount_of_ours", Type: "number"}, {Name: hexParent, Type: "number"}},
	}}, "find_lag: 0s\n")
	rows := make([]Row, n)
	amount := "amount_of_ours"
	if c.name == "pipedrive" {
		amount = hexParent
	}
	for i := range rows {
		rows[i] = Row{Trace: fmt.Sprint("t", i), Object: deal.object, Property: c.key, Key: fmt.Sprint("D-", i), Values: withKeys(deal.values, nil)}
		rows[i].ID = w.Put(c.name, deal.object, withKeys(deal.values, map[string]any{c.key: rows[i].Key}))
		rows[i].Values = map[string]any{amount: decimal.New(int64(i), -2)}
	}
	w.sink.Probe(within(tb))
	w.sent()
	return w, rows
}

// write sends rows as a worker does: in chunks of as many as one Write takes.
func (w *world) write(tb testing.TB, op Operation, rows []Row) (calls int) {
	tb.Helper()
	first := rows[0]
	first.Operation = op
	most := w.sink.MaxRowsOf(first)
	for at := 0; at < len(rows); at += most {
		for _, r := range w.sink.Write(within(tb), op, rows[at:min(at+most, len(rows))]) {
			if r.Class != OK {
				tb.Fatalf("%+v", r)
			}
		}
	}
	return len(w.sent())
}

// What it costs, in calls, to update 1,000 deals: by their ids, once these are
// known, and by our key before.
var callsOf = map[string]struct{ byID, byKey int }{
	"attio":      {1000, 1000},
	"dataverse":  {1000, 1000},
	"hubspot":    {10, 10},
	"pipedrive":  {1000, 3000}, // found, read and changed
	"salesforce": {5, 5},
	"zoho":       {10, 10},
}

func TestCallsPerThousand(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w, rows := c.deals(t, 1000)
		want := callsOf[c.name]
		op, _ := w.sink.Group(rows[0])
		if got := w.write(t, op, rows); got != want.byID {
			t.Errorf("%d calls by id, want %d", got, want.byID)
		}
		for i := range rows {
			rows[i].ID = ""
		}
		if got := w.write(t, Upsert, rows); got != want.byKey {
			t.Errorf("%d calls by key, want %d", got, want.byKey)
		}
	})
}

// BenchmarkCalls prints the calls of 1,000 updates and their rows per second in one worker.
func BenchmarkCalls(b *testing.B) {
	for _, c := range crms() {
		b.Run(c.name, func(b *testing.B) {
			w, rows := c.deals(b, 1000)
			calls := 0
			for b.Loop() {
				calls = w.write(b, Update, rows)
			}
			b.ReportMetric(float64(calls), "calls/1000")
			b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// A batch that is refused whole for one row is parted: 2·log2(n)+1 calls at most.
func TestBisectCost(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		for _, size := range []struct{ rows, most int }{{100, 15}, {200, 17}} {
			w, rows := c.deals(t, size.rows)
			if w.sink.MaxRows(Upsert) < size.rows {
				continue
			}
			w.Fault(sandbox.Fault{Contains: "poison", Effect: sandbox.EffectStatus, Status: 400})
			worst := 0
			for _, bad := range []int{0, 1, size.rows / 3, size.rows/2 - 1, size.rows / 2, size.rows - 1} {
				for i := range rows {
					rows[i].ID = ""
					rows[i].Values = withKeys(dealsOf[c.name].values, nil)
				}
				rows[bad].Values["note"] = "poison"
				for i, r := range w.sink.Write(within(t), Upsert, rows) {
					if (r.Class == OK) == (i == bad) {
						t.Errorf("row %d of %d, %d is bad: %+v", i, size.rows, bad, r)
					}
				}
				worst = max(worst, len(w.sent()))
			}
			if worst > size.most {
				t.Errorf("%d calls for one bad row of %d", worst, size.rows)
			}
			t.Logf("%d rows: at most %d calls", size.rows, worst)
		}
	})
}
