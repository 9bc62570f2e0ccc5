package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"partnersync/internal/pgtest"
)

// What is dead and what was skipped is grouped without reading the deliveries that were neither,
// nor those of which nothing was left out.
func TestDeadAndSkippedAreFoundByIndex(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for _, statement := range []string{
		`INSERT INTO routes (event_id, sink, source, generation, outcome, closed_at)
			SELECT ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, 'crm', 'shop', 0, CASE WHEN i <= 50 THEN 'dead' ELSE 'delivered' END, now() FROM generate_series(1, 30000) i`,
		`INSERT INTO deliveries (event_id, sink, mapping, object, key, outcome, reason)
			SELECT event_id, sink, 'deals', 'orders', 'k', outcome, '' FROM routes`,
		`UPDATE deliveries SET reason = 'without tier, which the CRM refused of event 00000000-0000-0000-0000-000000000001'
			WHERE event_id BETWEEN '00000000-0000-0000-0000-000000000100' AND '00000000-0000-0000-0000-000000000120'`,
		`UPDATE deliveries SET outcome = 'skipped', class = 'gone' WHERE event_id BETWEEN '00000000-0000-0000-0000-000000000200' AND '00000000-0000-0000-0000-000000000220'`,
		`VACUUM (ANALYZE) routes, deliveries`,
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	avoid := []string{"Seq Scan on deliveries", "Seq Scan on routes", "rows=30000", "rows=29"}
	cheap(t, pool, deadDeliveries, []any{"", "", "", "", nil, withoutLimit}, avoid)
	cheap(t, pool, skippedDeliveries, []any{"", "", "", "", nil, SkippedLimit}, avoid)
}

// A group of dead deliveries tells how many later events went out without what was refused; what
// was skipped is grouped by why, and what has been replayed is in neither.
func TestDeadAndSkipped(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := New(pool)
	ids := make([]uuid.UUID, 15)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
	}
	add := func(event, run int, sink, object, outcome, class, reason string) {
		t.Helper()
		route := outcome
		for _, statement := range []struct {
			sql  string
			args []any
		}{
			{`INSERT INTO routes (event_id, sink, run, source, generation, outcome, closed_at) VALUES ($1, $2, $3, 'shop', 0, $4, now()) ON CONFLICT DO NOTHING`, []any{ids[event], sink, run, route}},
			{`INSERT INTO deliveries (event_id, sink, run, mapping, object, key, outcome, class, reason, at)
				VALUES ($1, $2, $3, $4 || 's', $4, 'k', $5, $6, $7, now() + $8 * interval '1 s')`, []any{ids[event], sink, run, object, outcome, class, reason, event}},
		} {
			if _, err := pool.Exec(t.Context(), statement.sql, statement.args...); err != nil {
				t.Fatal(err)
			}
		}
	}
	without := func(events ...int) string {
		text := ""
		for _, e := range events {
			if text != "" {
				text += "; "
			}
			text += "without tier, which the CRM refused of event " + ids[e].String()
		}
		return text
	}
	add(0, 0, "crm", "deal", "dead", "rejected", "bad tier")
	add(1, 0, "crm", "deal", "dead", "rejected", "bad tier")
	add(2, 0, "crm", "deal", "delivered", "ok", without(0))
	add(3, 0, "crm", "deal", "delivered", "ok", without(0, 1)) // of both
	add(4, 0, "crm", "deal", "skipped", "refused_before", without(1))
	add(5, 0, "crm", "company", "delivered", "ok", without(0)) // another record
	add(6, 0, "two", "deal", "delivered", "ok", without(0))    // of another sink
	add(7, 0, "crm", "deal", "delivered", "ok", without(0))    // has been replayed since
	add(7, 1, "crm", "deal", "delivered", "ok", "")
	add(8, 0, "crm", "deal", "skipped", "refused_before", without(0))
	add(9, 0, "crm", "deal", "skipped", "gone", "the record is gone from the CRM")
	add(10, 0, "crm", "deal", "skipped", "gone", "the record is gone from the CRM") // likewise
	add(10, 1, "crm", "deal", "delivered", "ok", "")
	add(11, 0, "two", "deal", "skipped", "gone", "the record is gone from the CRM")

	add(12, 0, "crm", "firm", "dead", "match", "several firms fit by domain: 7 (https://crm.example/7), 8")
	add(13, 0, "crm", "firm", "dead", "match", "several firms fit by domain: 9, 10")
	add(14, 0, "crm", "firm", "dead", "match", "several firms fit by name: 7, 8")

	got, err := l.Dead(t.Context(), Filter{})
	want := []DeadGroup{
		{Sink: "crm", Mapping: "deals", Class: "rejected", Reason: "bad tier", Count: 2, Records: 1, Without: 5},
		{Sink: "crm", Mapping: "firms", Class: "match", Reason: "several firms fit by domain", Count: 2, Records: 1},
		{Sink: "crm", Mapping: "firms", Class: "match", Reason: "several firms fit by name", Count: 1, Records: 1},
	}
	slices.SortFunc(got, func(a, b DeadGroup) int { return strings.Compare(a.Mapping+a.Reason, b.Mapping+b.Reason) })
	again, _ := l.Dead(t.Context(), Filter{Sink: "crm", Mapping: "deals"})
	for i, g := range got {
		if g.First.After(g.Latest) || len(g.ID) != 12 || i > 0 && g.ID == got[i-1].ID || g.Mapping == "deals" && (len(again) != 1 || again[0].ID != g.ID) {
			t.Errorf("%+v", g)
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(DeadGroup{}, "First", "Latest", "Example", "ID")); diff != "" || err != nil {
		t.Errorf("dead: %v %s", err, diff)
	}
	group := func(sink, class, reason string, n int64, example int) DeadGroup {
		return DeadGroup{Sink: sink, Mapping: "deals", Class: class, Reason: reason, Count: n, Records: 1, Example: ids[example]}
	}
	refused := group("crm", "refused_before", "without tier, which the CRM refused of an earlier event", 2, 8)
	gone := group("crm", "gone", "the record is gone from the CRM", 1, 9)
	two := group("two", "gone", "the record is gone from the CRM", 1, 11)
	for _, tt := range []struct {
		filter Filter
		want   []DeadGroup
	}{
		{Filter{}, []DeadGroup{refused, two, gone}},
		{Filter{Sink: "two"}, []DeadGroup{two}},
		{Filter{Reason: "gone", Sink: "crm"}, []DeadGroup{gone}},
		{Filter{Reason: "tier"}, []DeadGroup{refused}},
		{Filter{Source: "other"}, nil},
		{Filter{Mapping: "companys"}, nil},
	} {
		got, err := l.Skipped(t.Context(), tt.filter)
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(DeadGroup{}, "First", "Latest", "ID"), cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("skipped, %+v: %v %s", tt.filter, err, diff)
		}
	}
}
