package ledger_test

import (
	"testing"

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
	if err := l.Write(t.Context(), lease, &ledger.Report{Records: []*ledger.Record{record}, Observations: []ledger.Observation{
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
	if _, err := l.Forget(t.Context(), ledger.Person{Address: "jane@acme.test", By: "tester"}); err != nil {
		t.Fatal(err)
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
