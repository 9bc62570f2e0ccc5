package ledger_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/records"
)

// What is observed comes back record by record; a later run takes the place of an earlier one; a person who is forgotten is gone.
func TestObservations(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	lease := own(t, l)
	lease.Shadow = true
	one, two := stored(t, l, "crm"), stored(t, l, "crm")
	record := &ledger.Record{ID: newID(t), Object: "deals", Property: "k", Key: "d1", CRMID: "new:1", Presence: records.Present, New: true,
		Fields: map[string]*ledger.Field{"email": {Wanted: records.NewValue("Jane@acme.test"), Version: ledger.Version{At: 1, Event: one}, AckedAt: ledger.Version{At: 1, Event: one}, Acked: records.NewValue("Jane@acme.test")}}}
	adopted := record.Clone()
	adopted.ID, adopted.Key, adopted.CRMID = newID(t), "d3", "77"
	if err := l.Write(t.Context(), lease, &ledger.Report{Records: []*ledger.Record{record, adopted}, Observations: []ledger.Observation{
		{Event: two, Mapping: "deals", Object: "deals", Key: "d2", Outcome: ledger.Delivered, Does: "create", Fields: []ledger.Overwriting{{Name: "title", Old: "a\x00b", New: "c"}}},
		{Event: one, Mapping: "deals", Object: "deals", Key: "d1", Outcome: ledger.Dead, Reason: "several contacts fit by jane@acme.test: 1, 2"},
	}}); err != nil {
		t.Fatal(err)
	}
	told := func() (list []ledger.Observation) {
		t.Helper()
		if err := l.Observed(t.Context(), "crm", func(o ledger.Observation) error { list = append(list, o); return nil }); err != nil {
			t.Fatal(err)
		}
		return list
	}
	want := []ledger.Observation{
		{Event: one, Mapping: "deals", Object: "deals", Key: "d1", Outcome: ledger.Dead, Reason: "several contacts fit by jane@acme.test: 1, 2", Record: "key d1"},
		{Event: two, Mapping: "deals", Object: "deals", Key: "d2", Outcome: ledger.Delivered, Does: "create", Fields: []ledger.Overwriting{{Name: "title", Old: "ab", New: "c"}}, Record: "key d2"},
	}
	if diff := cmp.Diff(want, told()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	hers := ledger.RecordKey{Object: "deals", Key: "hash of her"}
	if err := l.Write(t.Context(), lease, &ledger.Report{Identities: []ledger.Identity{{Key: hers, Record: record.ID}}}); err != nil {
		t.Fatal(err)
	}
	found, err := l.Imagined(t.Context(), "crm", []ledger.RecordKey{hers, {Object: "deals", Key: "hash of him"}})
	if err != nil || len(found) != 1 || found[hers].CRMID != "new:1" || found[hers].Key != "d1" {
		t.Errorf("%v %v", found, err)
	}
	if found, err := l.Records(t.Context(), "crm", []ledger.RecordKey{{Object: "deals", Property: "k", Key: "d1"}}); len(found) > 0 || err != nil {
		t.Errorf("what a record would be passes for what it is: %v %v", found, err)
	}
	if _, err := pool.Exec(t.Context(), `INSERT INTO routes (event_id, sink, run, source, generation) VALUES ($1, 'crm', 1, 'ps', 1)`, one); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[1:], told()); diff != "" {
		t.Errorf("of the last run (-want +got):\n%s", diff)
	}
	forgotten, err := l.Forget(t.Context(), ledger.Person{Address: "jane@acme.test", By: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ledger.CRMRecord{{Sink: "crm", Object: "deals", ID: "77", Holds: true}}, forgotten.CRM); diff != "" {
		t.Errorf("what the CRM has of her (-want +got):\n%s", diff)
	}
	if n := count(t, pool, `records WHERE fields::text ILIKE '%jane%'`); n > 0 {
		t.Errorf("%d records would hold her", n)
	}
	if n := query[int](t, pool, `SELECT count(*)::int FROM imagined`); n[0] != 0 {
		t.Error("what she would be found by is left")
	}
	if n := query[int](t, pool, `SELECT count(*)::int FROM observations`); n[0] != 1 {
		t.Errorf("%d observations are left, want the one that says nothing of her", n[0])
	}
	if err := l.DropShadow(t.Context(), "crm"); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, pool, `SELECT count(*)::int FROM records`); n[0] != 0 {
		t.Errorf("%d records are left", n[0])
	}
}

// What a sink would have done goes along with its name, and goes with the sink, but for what became of its events.
func TestObservationsFollowTheirSink(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	lease := own(t, l)
	event := stored(t, l, "crm")
	record := &ledger.Record{ID: newID(t), Object: "deals", Property: "k", Key: "d1", CRMID: "new:1", Presence: records.Present, New: true}
	shadow := lease
	shadow.Shadow = true
	if err := l.Write(t.Context(), shadow, &ledger.Report{Records: []*ledger.Record{record}, Identities: []ledger.Identity{{Key: ledger.RecordKey{Object: "deals", Key: "h"}, Record: record.ID}},
		Observations: []ledger.Observation{{Event: event, Mapping: "deals", Object: "deals", Key: "d1", Does: ledger.Creates}}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Guard(t.Context(), "crm", ledger.Guarded{Since: time.Now(), Creates: 1}); err != nil {
		t.Fatal(err)
	}
	at := func(sink string, want int) {
		t.Helper()
		for _, from := range []string{
			`records WHERE sink = '` + sink + `?'`, `record_keys WHERE sink = '` + sink + `?'`, `imagined WHERE sink = '` + sink + `'`, `guards WHERE sink = '` + sink + `'`,
		} {
			if n := count(t, pool, from); n != want {
				t.Errorf("%d %s, want %d", n, from, want)
			}
		}
	}
	rename(t, l, "crm", "hubspot", 2)
	at("crm", 0)
	at("hubspot", 1)
	if n := count(t, pool, `observations WHERE sink = 'hubspot'`); n != 1 {
		t.Errorf("%d observations of the new name", n)
	}
	if _, err := l.Drop(t.Context(), "hubspot", "tester"); err != nil {
		t.Fatal(err)
	}
	at("hubspot", 0)
}

// What a delivery has done before it waits counts with what it does later; several keys of one record of the CRM are one
// record; what was worked for real after all was not observed.
func TestObservationsOfOneRecord(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	lease := own(t, l)
	one, two, three := stored(t, l, "crm"), stored(t, l, "crm"), stored(t, l, "crm")
	write := func(closings []ledger.Closing, list ...ledger.Observation) {
		t.Helper()
		if err := l.Write(t.Context(), lease, &ledger.Report{Observations: list, Closings: closings}); err != nil {
			t.Fatal(err)
		}
	}
	write(nil,
		ledger.Observation{Event: one, Object: "deals", Key: "a", Does: ledger.Creates, CRMID: "new:1", Fields: []ledger.Overwriting{{Name: "title", New: "x", At: 1}}},
		ledger.Observation{Event: two, Object: "deals", Key: "b", Does: ledger.Updates, CRMID: "new:1", Outcome: ledger.Delivered},
		ledger.Observation{Event: three, Object: "deals", Key: "c", Does: ledger.Creates, CRMID: "new:2", Outcome: ledger.Delivered})
	write([]ledger.Closing{{Event: one, Outcome: ledger.Observed}, {Event: three, Outcome: ledger.Delivered}},
		ledger.Observation{Event: one, Object: "deals", Key: "a", Does: ledger.Links, Outcome: ledger.Delivered, Fields: []ledger.Overwriting{{Name: "org_id", New: "7", At: 2}}})
	var told []ledger.Observation
	if err := l.Observed(t.Context(), "crm", func(o ledger.Observation) error { told = append(told, o); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []ledger.Observation{
		{Event: two, Object: "deals", Key: "b", Does: ledger.Updates, CRMID: "new:1", Outcome: ledger.Delivered, Record: "id new:1"},
		{Event: one, Object: "deals", Key: "a", Does: ledger.Creates, CRMID: "new:1", Outcome: ledger.Delivered, Record: "id new:1",
			Fields: []ledger.Overwriting{{Name: "title", New: "x", At: 1}, {Name: "org_id", New: "7", At: 2}}},
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A guard goes on with what was counted in its hour, and begins anew with a later one, or when it is told to.
func TestGuarded(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	hour := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for i, c := range []struct{ give, want ledger.Guarded }{
		{ledger.Guarded{Since: hour, Creates: 3, Overwrites: 1}, ledger.Guarded{Since: hour, Creates: 3, Overwrites: 1}},
		{ledger.Guarded{Since: hour, Creates: -1, Overwrites: 1, Archives: 2}, ledger.Guarded{Since: hour, Creates: 2, Overwrites: 2, Archives: 2}},
		{ledger.Guarded{Since: hour.Add(time.Hour), Creates: 1}, ledger.Guarded{Since: hour.Add(time.Hour), Creates: 1}},
		{ledger.Guarded{Since: hour, Creates: 9}, ledger.Guarded{Since: hour.Add(time.Hour), Creates: 1}}, // it comes late
	} {
		if err := l.Guard(t.Context(), "crm", c.give); err != nil {
			t.Fatal(err)
		}
		got, err := l.Guarded(t.Context(), "crm")
		if got.Since = got.Since.UTC(); err != nil || got != c.want {
			t.Errorf("%d: %+v, want %+v (%v)", i, got, c.want, err)
		}
	}
	if err := l.Unguard(t.Context(), "crm"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Guarded(t.Context(), "crm"); got != (ledger.Guarded{}) || err != nil {
		t.Errorf("%+v %v", got, err)
	}
}
