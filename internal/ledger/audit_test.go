package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/records"
)

// Each record that the CRM has comes once, with all its keys, also where several have one id; those that
// are gone, of other sinks or not made yet do not.
func TestKnownRecords(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	put := func(sink, object, crmID, presence string, keys ...string) {
		id := uuid.New()
		if _, err := pool.Exec(t.Context(), `INSERT INTO records (id, sink, object, crm_id, presence) VALUES ($1, $2, $3, $4, $5)`, id, sink, object, crmID, presence); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if _, err := pool.Exec(t.Context(), `INSERT INTO record_keys (sink, object, property, value, record_id) VALUES ($1, $2, 'key', $3, $4)`, sink, object, k, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	var want []string
	for i := range 10 {
		put("crm", "deals", fmt.Sprint(i%8), "present", fmt.Sprintf("b%d", i), fmt.Sprintf("a%d", i))
		want = append(want, fmt.Sprintf("%d a%d b%d", i%8, i, i))
	}
	put("crm", "notes", "n1", "present", "n1")
	put("crm", "deals", "77", "gone", "gone")
	put("crm", "deals", "", "unknown", "new")
	put("other", "deals", "5", "present", "x")
	objects, err := l.KnownObjects(t.Context(), "crm", nil)
	if diff := cmp.Diff([]ledger.KnownObject{{Object: "deals", Records: 11}, {Object: "notes", Records: 1}}, objects); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if objects, err = l.KnownObjects(t.Context(), "crm", map[string]string{"deals": "5"}); err != nil || objects[0].Records != 3 {
		t.Errorf("%+v, %v", objects, err)
	}
	for size := 1; size <= 11; size++ {
		var got []string
		at, id := "", uuid.Nil
		for {
			list, err := l.KnownRecords(t.Context(), "crm", "deals", at, id, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 {
				break
			}
			for _, r := range list {
				text := r.CRMID
				for _, k := range r.Keys {
					text += " " + k.Key
				}
				got = append(got, text)
				at, id = r.CRMID, r.ID
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
}

// A repair doubts just the fields that it is to send again, replays just their events, and who holds the record in
// memory cannot write it over the doubt.
func TestRepair(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	lease := own(t, l)
	a, b := stored(t, l, "crm"), stored(t, l, "crm")
	field := func(event uuid.UUID, value string) *ledger.Field {
		v := ledger.Version{At: 1, Event: event}
		return &ledger.Field{Wanted: records.NewValue(value), Version: v, Mapping: "deals", Rule: "set", Acked: records.NewValue(value), AckedAt: v}
	}
	rec := records.New(newID(t), ledger.RecordKey{Object: "deals", Property: "key", Key: "k"})
	rec.CRMID, rec.Presence = "7", records.Present
	rec.Fields = map[string]*ledger.Field{"one": field(a, "1"), "two": field(a, "2"), "three": field(b, "3")}
	report := &ledger.Report{Records: []*ledger.Record{rec}}
	for _, id := range []uuid.UUID{a, b} {
		report.Closings = append(report.Closings, ledger.Closing{Event: id, Outcome: ledger.Delivered})
	}
	if err := l.Write(t.Context(), lease, report); err != nil {
		t.Fatal(err)
	}
	rec.New = false
	spec := ledger.ReplaySpec{By: "tester", Generation: 1, Wants: func(string, string) []string { return []string{"crm", "other"} }}
	done, err := l.Repair(t.Context(), "crm", []ledger.Repair{{ID: rec.ID, Fields: map[string]ledger.Version{"one": rec.Fields["one"].Version}}}, spec)
	if err != nil || done.Replay == 0 || done.Fields != 1 || done.Records != 1 || done.Routes != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	list, err := l.KnownRecords(t.Context(), "crm", "deals", "", uuid.Nil, 10)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	for name, pending := range map[string]bool{"one": true, "two": false, "three": false} {
		if got := list[0].Fields[name].Pending(); got != pending {
			t.Errorf("%s is pending: %v", name, got)
		}
	}
	open, err := l.Routes(t.Context(), "crm", []uuid.UUID{a, b})
	if err != nil || len(open) != 1 || open[0].Event != a || open[0].Run != 1 || open[0].Rewrite {
		t.Errorf("%+v, %v", open, err)
	}
	replays, err := l.Replays(t.Context(), 9)
	if err != nil || len(replays) != 1 || replays[0].By != "tester" || replays[0].ID != done.Replay || replays[0].Rewrite {
		t.Errorf("%+v, %v", replays, err)
	}
	if err := l.Write(t.Context(), lease, &ledger.Report{Records: []*ledger.Record{rec}}); !errors.Is(err, ledger.ErrSurpassed) {
		t.Errorf("a record in memory is written over the doubt: %v", err)
	}
}
