package jobs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
)

func TestCreatedAndUpdated(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	fates := r.deliver(
		shopEvent("deal.created", "d1", 1, "name", "Acme", "amount", 100, "stage", "silver", "partner", "first", "description", "old"),
		deal("d1", 2, "name", "Acme Inc", "amount", 12345678901234567, "stage", "gold", "partner", "second", "description", ""),
	)
	for i, f := range fates {
		if f.Outcome != ledger.Delivered || len(f.Deliveries) != 1 || f.Deliveries[0].CRMID == "" || f.Deliveries[0].Attempts != 0 {
			t.Errorf("event %d: %+v", i, f)
		}
	}
	// first_partner is of the oldest event, last_synced goes along, description was blanked, the amount keeps its digits.
	want := map[string]map[string]any{"d1": {
		"order_key": "d1", "title": "Acme Inc", "amount": "12345678901234567", "tier": "gold", "first_partner": "first",
		"last_synced": "2023-11-14T22:13:22Z",
	}}
	if diff := cmp.Diff(want, r.records("orders", "order_key")); diff != "" {
		t.Errorf("the CRM holds (-want +got):\n%s", diff)
	}
	r.counted(2, "deliveries_total", "sink", "crm", "mapping", "deals", "outcome", "delivered")
	if got := r.metric("sink_requests_total", "sink", "crm", "operation", "upsert", "class", "ok"); got != 1 {
		t.Errorf("%v upserts: the second write goes by id", got)
	}
}

func TestUnchangedSendsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	fates := r.deliver(
		deal("d1", 1, "name", "Acme", "amount", 100, "partner", "p"),
		deal("d1", 2, "name", "Acme", "amount", 100, "partner", "other"), // only touch and set_first would have something to say
	)
	if fates[1].Outcome != ledger.Unchanged {
		t.Errorf("%+v", fates[1])
	}
	if n := len(r.writes("/orders/")); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	fates := r.deliver(
		deal("d1", 5, "name", "new", "partner", "late"),
		deal("d1", 3, "name", "old"),
		deal("d1", 4, "name", "old", "amount", 7, "partner", "early"), // brings an amount, which nothing newer has
	)
	if fates[1].Outcome != ledger.Stale || fates[2].Outcome != ledger.Delivered {
		t.Errorf("%+v %+v", fates[1], fates[2])
	}
	got := r.records("orders", "order_key")["d1"]
	if got["title"] != "new" || got["amount"] != "7" || got["first_partner"] != "early" {
		t.Errorf("the CRM holds %v", got)
	}
}

func TestChangesOfOneRecordShareARow(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	ids := r.acceptPerJob(10,
		deal("d1", 3, "name", "c"),
		deal("d1", 1, "name", "a", "amount", 5),
		deal("d1", 2, "name", "b", "amount", 6, "description", "kept"),
		deal("d2", 1, "name", "other"),
	)
	r.start()
	fates := r.ended(ids...)
	want := []ledger.Outcome{ledger.Delivered, ledger.Stale, ledger.Delivered, ledger.Delivered}
	if diff := cmp.Diff(want, outcomes(fates, ids)); diff != "" {
		t.Error(diff)
	}
	writes := r.writes("/orders/")
	if len(writes) != 1 || writes[0].Rows != 2 {
		t.Errorf("%+v", writes)
	}
	got := r.records("orders", "order_key")["d1"]
	if got["title"] != "c" || got["amount"] != "6" || got["description"] != "kept" {
		t.Errorf("the CRM holds %v", got)
	}
}

// However jobs fall into cycles, the state of a record is that of its newest events.
func TestManyEventsOfFewRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	var events []event
	for i := range 120 {
		events = append(events, deal(fmt.Sprintf("d%d", i%4), int64(i*37%120), "amount", i*37%120))
	}
	var ids []string
	for chunk := range slices.Chunk(events, 30) {
		for _, id := range r.accept(chunk...) {
			ids = append(ids, id.String())
		}
	}
	r.until("all routes are closed", func() bool { return r.count(`routes WHERE outcome IS NULL`) == 0 })
	if n := r.count(`routes WHERE outcome IN ('delivered', 'stale')`); n != len(ids) {
		t.Errorf("%d of %d routes are delivered or stale", n, len(ids))
	}
	got := r.records("orders", "order_key")
	for key, want := range map[string]string{"d0": "116", "d1": "117", "d2": "118", "d3": "119"} {
		if got[key]["amount"] != want {
			t.Errorf("%s: amount %v, want %s", key, got[key]["amount"], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d records", len(got))
	}
}

func TestMappingFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: `
tables: {stages: {map: {won: closedwon}}}
mappings:
  - name: by company
    on: shop.deal.updated
    to: crm
    object: orders
    key: {order_key: event.company}
    set: {title: event.name}
  - name: staged
    on: shop.deal.updated
    to: crm
    object: companies
    key: {company_key: event.key}
    set: {name: 'lookup(event.stage, "stages")'}
  - name: never
    on: [shop.deal.updated, shop.deal.created]
    when: event.amount > 1000000
    to: crm
    object: companies
    key: {company_key: event.key}
    set: {name: event.name}
`})
	fates := r.deliver(
		deal("d1", 1, "stage", "lost", "name", "x"),
		deal("d2", 1, "stage", "won", "company", "c2"),
		shopEvent("deal.created", "d3", 1, "name", "x"),
	)
	want := []ledger.Outcome{ledger.Dead, ledger.Delivered, ledger.Skipped}
	for i, f := range fates {
		if f.Outcome != want[i] {
			t.Errorf("event %d: %+v", i, f)
		}
	}
	if !strings.Contains(fates[0].Reason, "the key is null") || fates[2].Reason != "never: when is false" {
		t.Errorf("reasons %q and %q", fates[0].Reason, fates[2].Reason)
	}
	var reasons []string
	for _, d := range fates[0].Deliveries {
		reasons = append(reasons, d.Mapping+": "+string(d.Outcome)+" "+d.Class)
	}
	if diff := cmp.Diff([]string{"by company: dead mapping", "staged: dead mapping"}, reasons); diff != "" {
		t.Error(diff)
	}
	if n := r.count(`events`); n != 3 {
		t.Errorf("%d events are kept", n)
	}
	for _, reason := range []string{"null_key", "lookup_missed"} {
		mapping := map[string]string{"null_key": "by company", "lookup_missed": "staged"}[reason]
		if got := r.metric("mapping_errors_total", "mapping", mapping, "reason", reason); got != 1 {
			t.Errorf("%s: %v counted", reason, got)
		}
	}
}

// One event that makes the same record twice is one delivery, and disturbs nobody.
func TestOneRecordTwiceInAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, mappings: `
mappings:
  - name: people
    on: shop.deal.updated
    each: event.contacts
    to: crm
    object: contacts
    key: {contact_key: lower(item)}
    set: {firstname: event.name, lastname: item}
`})
	ids := r.acceptPerJob(2,
		deal("d1", 1, "name", "n", "contacts", []string{"ann", "ANN", "bob", "ann"}),
		deal("d2", 2, "name", "m", "contacts", []string{"cid"}),
	)
	r.start()
	for id, f := range r.ended(ids...) {
		if f.Outcome != ledger.Delivered {
			t.Errorf("%s: %+v", id, f)
		}
	}
	if got := r.records("contacts", "contact_key"); len(got) != 3 || got["ann"]["lastname"] != "ann" {
		t.Errorf("the CRM holds %v", got)
	}
}

// everybody is a mapping that makes a contact of each element of an event.
const everybody = `
mappings:
  - name: people
    on: shop.deal.updated
    each: event.contacts
    to: crm
    object: contacts
    key: {contact_key: item}
    set: {firstname: event.name}
`

func crowd(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint("p", i)
	}
	return list
}

// A list without end does not keep the sink from other work.
func TestEachWithoutEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: everybody})
	fates := r.deliver(deal("d1", 1, "contacts", crowd(60_000)), deal("d2", 2, "name", "n", "contacts", crowd(1000)))
	if f := fates[0]; f.Outcome != ledger.Dead || len(f.Deliveries) != 1 || !strings.Contains(f.Deliveries[0].Reason, "each has 60000 elements, and 1000 are the most") {
		t.Errorf("the event of 60,000 elements is %s: %.500s", f.Outcome, fmt.Sprint(f.Deliveries))
	}
	if f := fates[1]; f.Outcome != ledger.Delivered || len(f.Deliveries) != 1000 {
		t.Errorf("the event of 1,000 elements is %s with %d deliveries", f.Outcome, len(f.Deliveries))
	}
	if got := r.metric("mapping_errors_total", "mapping", "people", "reason", "expression"); got != 1 {
		t.Errorf("%v counted", got)
	}
}

// What an element costs does not depend on how many there are.
func BenchmarkEach(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newSolo(b, setup{mappings: everybody + "    limit: 10000\n"}, "crm")
			id := s.rig.accept(deal("d1", 1, "name", "n", "contacts", crowd(n)))[0]
			bt := s.batch(id)
			if err := bt.load(b.Context()); err != nil {
				b.Fatal(err)
			}
			loaded := bt.jobs[0].routes[0].Route
			for b.Loop() {
				r := bt.open(loaded)
				if bt.mapRoute(bt.jobs[0], r); len(r.deliveries) != n {
					b.Fatal(len(r.deliveries), r.reason)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/element")
		})
	}
}

// A key that no index takes is a dead delivery, not a batch that can never be recorded.
func TestKeyTooLong(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, mappings: `
mappings:
  - name: by name
    on: shop.deal.updated
    to: crm
    object: orders
    key: {order_key: event.name}
    set: {amount: event.amount}
    links: [{to: companies, key: {company_key: event.description}, missing: create}]
`})
	var noise strings.Builder // Postgres would compress a repetition
	for i := range 3000 {
		fmt.Fprintf(&noise, "%x", i*i*7919)
	}
	ids := r.acceptPerJob(3,
		deal("d1", 1, "name", noise.String(), "amount", 1),
		deal("d2", 1, "name", "short", "amount", 2),
		deal("d3", 1, "name", "other", "amount", 3, "description", noise.String()),
	)
	r.start()
	fates := r.ended(ids...)
	if diff := cmp.Diff([]ledger.Outcome{ledger.Dead, ledger.Delivered, ledger.Dead}, outcomes(fates, ids)); diff != "" {
		t.Error(diff)
	}
	for _, i := range []int{0, 2} {
		if reason := fates[ids[i]].Reason; !strings.Contains(reason, "too long") || len(reason) > 200 {
			t.Errorf("reason %q", reason)
		}
	}
}

func TestEventsPerJob(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	var events []event
	for i := range 250 {
		events = append(events, deal(fmt.Sprint("d", i), 1, "name", fmt.Sprint(i)))
	}
	r.acceptPerJob(100, events...)
	if n := r.count(`river_job`); n != 3 {
		t.Fatalf("%d jobs", n)
	}
	r.start()
	r.until("all routes are closed", func() bool { return r.count(`routes WHERE outcome IS NULL`) == 0 })
	if got := r.records("orders", "order_key"); len(got) != 250 || got["d249"]["title"] != "249" {
		t.Errorf("%d records", len(got))
	}
	if n := len(r.writes("/orders/")); n > 6 {
		t.Errorf("%d requests for 250 rows", n)
	}
	if n := r.count(`river_job`); n != 0 {
		t.Errorf("%d jobs are left of which nothing is to be done", n)
	}
}

// Postgres may refuse what no check of ours has foreseen; only that event is dead then.
func TestPostgresRefusesOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	for _, statement := range []string{
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '22000'; END $$`,
		`CREATE TRIGGER refuse BEFORE INSERT ON record_keys FOR EACH ROW WHEN (NEW.value = 'poison') EXECUTE FUNCTION refuse()`,
	} {
		if _, err := r.pool.Exec(r.context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	ids := r.acceptPerJob(10, deal("d1", 1, "name", "a"), deal("poison", 1, "name", "b"), deal("d2", 1, "name", "c"), deal("d1", 2, "name", "d"))
	r.start()
	fates := r.ended(ids...)
	want := []ledger.Outcome{ledger.Delivered, ledger.Dead, ledger.Delivered, ledger.Delivered}
	if diff := cmp.Diff(want, outcomes(fates, ids)); diff != "" {
		t.Error(diff)
	}
	if f := r.deliver(deal("d2", 2, "name", "c"))[0]; f.Outcome != ledger.Unchanged {
		t.Errorf("the record was not stored: %+v", f)
	}
}

// An event with a time beyond belief is ordered by its arrival: it shadows none that comes
// after it with a time that can be right, and none of those is lost to it.
func TestATimeBeyondBeliefShadowsNothing(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]any{"seconds": 4_070_908_800, "milliseconds": 4_070_908_800_000, "text": "2999-01-01T00:00:00Z"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			far := event{"deal.updated", map[string]any{"key": "d", "at": at, "name": "wrong clock"}}
			right := event{"deal.updated", map[string]any{"key": "d", "at": time.Now().Add(time.Minute).Unix(), "name": "right"}}
			if f := r.deliver(far, right); f[0].Outcome != ledger.Delivered || f[1].Outcome != ledger.Delivered {
				t.Errorf("the event of 2099 is %s, the right one %s", f[0].Outcome, f[1].Outcome)
			}
			if got := r.records("orders", "order_key")["d"]["title"]; got != "right" {
				t.Errorf("the CRM holds %v", got)
			}
		})
	}
}

// Senders spell times in many ways; the order of events does not depend on it.
func TestSpellingsOfTimesAreOrdered(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for i, at := range []any{"2024-06-20T21:20:02.000+0000", "2024-06-20T16:20:02.000-0500", "2024-06-20 21:20:02 UTC", "Thu, 20 Jun 2024 21:20:02 GMT", 1_718_918_402_000, "1718918402"} {
		key := fmt.Sprint("d", i)
		newer := event{"deal.updated", map[string]any{"key": key, "at": at, "name": "newer"}}
		older := event{"deal.updated", map[string]any{"key": key, "at": "2024-06-20T21:20:01.000+0000", "name": "older"}}
		if f := r.deliver(newer, older); f[0].Outcome != ledger.Delivered || f[1].Outcome != ledger.Stale {
			t.Errorf("%v: the newer is %s, the older %s", at, f[0].Outcome, f[1].Outcome)
		}
	}
}
