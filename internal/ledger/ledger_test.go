package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/mappers"
	"partnersync/records"
)

func newID(t *testing.T) uuid.UUID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func stored(t *testing.T, l *ledger.Ledger, sinks ...string) uuid.UUID {
	t.Helper()
	id := newID(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	_, err := l.Accept(t.Context(), []ledger.Incoming{{
		ID: id, Source: "ps", Type: "deal.updated", Entity: "deal:" + id.String(), OccurredAt: now, ReceivedAt: now,
		Status: ledger.Stored, Body: []byte(`{"key":"` + id.String() + `"}`), Sinks: sinks,
	}}, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// own makes somebody the owner of the sink crm and returns the lease to it.
func own(t *testing.T, l *ledger.Ledger) ledger.Lease {
	t.Helper()
	owners, err := l.Leaser(t.Context(), "tester")
	if err != nil {
		t.Fatal(err)
	}
	defer owners.Close(t.Context())
	for {
		lease, _, err := owners.Acquire(t.Context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		if lease != nil { // else the lock of the owner before is not free yet
			return *lease
		}
	}
}

func TestRecordSurvivesStoring(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	event := newID(t)
	older, newer := ledger.Version{At: 1_000_001, Rank: 1, Event: event}, ledger.Version{At: 2_000_002, Rank: -2, Event: newID(t)}
	value := records.NewValue
	rec := &ledger.Record{
		ID: newID(t), Object: "deals", Property: "deal_key", Key: "d\x1f'1", CRMID: "901", Presence: records.Present, New: true,
		Fields: map[string]*ledger.Field{
			"acked":   {Wanted: value("a"), Version: newer, Mapping: "deals", Rule: "set", Acked: value("a"), AckedAt: newer},
			"pending": {Wanted: value(decimal.RequireFromString("95.50")), Version: newer, Mapping: "deals", Rule: "set", Acked: value(int64(7)), AckedAt: older},
			"new":     {Wanted: value([]any{"x", int64(1), nil, map[string]any{"k": true}}), Version: older, Mapping: "deals", Rule: "set_first"},
			"refused": {Wanted: value("\"quoted\"\n\u2028é"), Version: older, Mapping: "m", Rule: "set", Refused: event},
			"moved":   {Wanted: value("b"), Version: newer, Mapping: "m", Rule: "forward", Ladder: &mappers.Ladder{Order: []string{"a", "b"}, Final: []string{"c"}}},
			"added":   {Wanted: value("b"), Version: newer, Mapping: "m", Rule: "add", Added: []string{"a", "b"}},
			"kept":    {Wanted: value("b"), Version: newer, Mapping: "m", Rule: "set", Kept: ptr(value("a"))},
			"blank":   {Wanted: value(nil), Version: older, Mapping: "m", Rule: "clear"},
		},
		Links: map[string]*ledger.Link{
			records.LinkName("companies", "", "k", "v"):  {To: "companies", Property: "k", Key: "v", Version: newer, Mapping: "deals", Have: records.Exists},
			records.LinkName("companies", "x", "k", "w"): {To: "companies", Property: "k", Key: "w", As: "x", Version: older, Mapping: "deals", Want: records.Unlinked, Have: records.InDoubt, Owed: newer},
			records.LinkName("companies", "y", "k", "w"): {To: "companies", Property: "k", Key: "w", As: "y", Version: older, Mapping: "deals", Want: records.Unlinked},
			records.LinkName("companies", "z", "k", "w"): {To: "companies", Property: "k", Key: "w", As: "z", Version: older, Mapping: "deals", Only: true, Verdict: records.Waived},
			records.LinkName("companies", "e", "k", "w"): {To: "companies", Property: "k", Key: "w", As: "e", Version: older, Mapping: "deals", IfEmpty: true, Verdict: records.Theirs},
			records.LinkName("contacts", "", "k", "w"):   {To: "contacts", Property: "k", Key: "w", Version: older, Mapping: "deals", Have: records.InDoubt, Verdict: records.Refused, Refusal: event},
			records.LinkName("contacts", "", "k", "x"):   {To: "contacts", Property: "k", Key: "x", Version: older, Mapping: "deals"},
		},
		Only: map[string]ledger.Version{records.OnlyName("companies", ""): newer, records.OnlyName("firms", "x"): older},
	}
	if err := l.Write(t.Context(), own(t, l), &ledger.Report{Records: []*ledger.Record{rec}}); err != nil {
		t.Fatal(err)
	}
	key := ledger.RecordKey{Object: "deals", Property: "deal_key", Key: rec.Key}
	found, err := l.Records(t.Context(), "crm", []ledger.RecordKey{key, {Object: "deals", Property: "deal_key", Key: "other"}})
	if err != nil {
		t.Fatal(err)
	}
	want := rec.Clone()
	want.New = false
	if want.Revision != 1 {
		t.Errorf("revision %d", want.Revision)
	}
	if diff := cmp.Diff(map[ledger.RecordKey]*ledger.Record{key: want}, found, cmp.Comparer(func(a, b ledger.Value) bool { return a.JSON == b.JSON })); diff != "" {
		t.Error(diff)
	}
	other, err := l.Records(t.Context(), "another", []ledger.RecordKey{key})
	if err != nil || len(other) != 0 {
		t.Errorf("another sink sees %v, %v", other, err)
	}
}

func ptr[T any](v T) *T { return &v }

// A report of what was read before the record was written again is refused whole: it may be a
// statement that arrives late.
func TestLateWriteIsRefused(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	lease := own(t, l)
	rec := records.New(newID(t), ledger.RecordKey{Object: "deals", Property: "deal_key", Key: "d1"})
	write := func(title string, r *ledger.Record) error {
		r.Fields["title"] = &ledger.Field{Wanted: records.NewValue(title), Mapping: "m", Rule: "set"}
		return l.Write(t.Context(), lease, &ledger.Report{Records: []*ledger.Record{r}})
	}
	if err := write("one", rec); err != nil {
		t.Fatal(err)
	}
	rec.New = false
	late := rec.Clone()
	if err := write("two", rec); err != nil {
		t.Fatal(err)
	}
	if err := write("late", late); !errors.Is(err, ledger.ErrSurpassed) {
		t.Errorf("%v", err)
	}
	if err := l.Announce(t.Context(), lease, newID(t), nil, time.Minute, late); !errors.Is(err, ledger.ErrSurpassed) {
		t.Errorf("%v", err)
	}
	got, err := l.Record(t.Context(), rec.ID)
	if err != nil || got.Fields["title"].Wanted.Go != "two" || got.Revision != rec.Revision {
		t.Errorf("%+v, %v", got, err)
	}
}

// Both keys of two records that turned out to be one lead to it, and the other record is no more.
func TestMergedKeysLeadToOne(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	lease := own(t, l)
	var keys []ledger.RecordKey
	var list []*ledger.Record
	for _, key := range []string{"d1", "d2", "d3"} {
		keys = append(keys, ledger.RecordKey{Object: "deals", Property: "deal_key", Key: key})
		list = append(list, records.New(newID(t), keys[len(keys)-1]))
	}
	into, from, later := list[0], list[1], list[2] // the last is not stored yet
	if err := l.Write(t.Context(), lease, &ledger.Report{Records: list[:2]}); err != nil {
		t.Fatal(err)
	}
	into.New, from.New = false, false
	report := &ledger.Report{Records: []*ledger.Record{into}, Merges: []ledger.Merge{{From: from.ID, Into: into.ID, Key: keys[1]}, {From: later.ID, Into: into.ID, Key: keys[2]}}}
	if err := l.Write(t.Context(), lease, report); err != nil {
		t.Fatal(err)
	}
	found, err := l.Records(t.Context(), "crm", keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if r := found[k]; r == nil || r.ID != into.ID {
			t.Errorf("%s leads to %+v", k.Key, r)
		}
	}
	if r, err := l.Record(t.Context(), from.ID); err != nil || r != nil {
		t.Errorf("the other is %+v, %v", r, err)
	}
}

func TestEqualValuesHaveEqualJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		a, b any
		want bool
	}{
		{"decimals of another scale", decimal.RequireFromString("95.50"), decimal.RequireFromString("95.5"), true},
		{"decimal and whole number", decimal.RequireFromString("7.00"), int64(7), true},
		{"number and text", int64(7), "7", false},
		{"order of keys", map[string]any{"a": "1", "b": "2"}, map[string]any{"b": "2", "a": "1"}, true},
		{"order of a list", []any{"a", "b"}, []any{"b", "a"}, false},
		{"NUL cannot be stored", "a\x00b", "ab", true},
		{"blank and nothing", nil, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := records.NewValue(tt.a).Equal(records.NewValue(tt.b)); got != tt.want {
				t.Errorf("%v and %v: got %v", tt.a, tt.b, got)
			}
		})
	}
}

func TestRouteIsReadUntilItIsClosed(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	id := stored(t, l, "crm")
	routes, err := l.Routes(t.Context(), "crm", []uuid.UUID{id})
	if err != nil || len(routes) != 1 {
		t.Fatalf("%v, %v", routes, err)
	}
	r := routes[0]
	if r.Source != "ps" || r.Type != "deal.updated" || r.Version.Event != id || r.Version.At != r.OccurredAt.UnixMicro() {
		t.Errorf("read %+v", r)
	}
	open := ledger.Delivery{Event: id, Mapping: "deals", Object: "deals", Key: "k", Class: "timeout", Reason: "slow", Attempts: 2, FirstFailedAt: time.Now().UTC().Truncate(time.Microsecond)}
	if err := l.Write(t.Context(), own(t, l), &ledger.Report{Deliveries: []ledger.Delivery{open}}); err != nil {
		t.Fatal(err)
	}
	if routes, err = l.Routes(t.Context(), "crm", []uuid.UUID{id}); err != nil || len(routes) != 1 || len(routes[0].Deliveries) != 1 {
		t.Fatalf("%v, %v", routes, err)
	}
	if d := routes[0].Deliveries[0]; d.Attempts != 2 || !d.FirstFailedAt.Equal(open.FirstFailedAt) || d.Outcome != ledger.Open {
		t.Errorf("the attempts are lost: %+v", d)
	}
	dead := open
	dead.Outcome, dead.Reason = ledger.Dead, "refused"
	late := open
	late.Outcome = ledger.Delivered
	for _, d := range []ledger.Delivery{dead, late} { // the first outcome stays
		report := &ledger.Report{Deliveries: []ledger.Delivery{d}, Closings: []ledger.Closing{{Event: id, Outcome: d.Outcome, Reason: d.Reason}}}
		if err := l.Write(t.Context(), own(t, l), report); err != nil {
			t.Fatal(err)
		}
	}
	if routes, err = l.Routes(t.Context(), "crm", []uuid.UUID{id}); err != nil || len(routes) != 0 {
		t.Fatalf("still open: %v, %v", routes, err)
	}
	fates, err := l.Fates(t.Context(), []uuid.UUID{id})
	if err != nil || len(fates) != 1 || len(fates[0].Deliveries) != 1 {
		t.Fatalf("%v, %v", fates, err)
	}
	if f := fates[0]; f.Outcome != ledger.Dead || f.Reason != "refused" || f.ClosedAt.IsZero() || f.Deliveries[0].Outcome != ledger.Dead {
		t.Errorf("got %+v", f)
	}
}

// What has ended stays as it ended, whatever is reported afterwards, and is counted once.
func TestOutcomesStay(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	lease := own(t, l)
	id := stored(t, l, "crm")
	for _, outcome := range []ledger.Outcome{ledger.Open, ledger.Delivered, ledger.Dead} {
		report := &ledger.Report{Deliveries: []ledger.Delivery{{Event: id, Mapping: "m", Object: "deals", Key: "1", Outcome: outcome}}}
		if outcome != ledger.Open {
			report.Closings = []ledger.Closing{{Event: id, Outcome: outcome}}
		}
		if err := l.Write(t.Context(), lease, report); err != nil {
			t.Fatal(err)
		}
	}
	var route, delivery, counted string
	err := pool.QueryRow(t.Context(), `
		SELECT (SELECT outcome FROM routes), (SELECT outcome FROM deliveries), (SELECT string_agg(outcome, ' ') FROM tally_changes WHERE outcome <> 'opened')`).
		Scan(&route, &delivery, &counted)
	if err != nil || route != "delivered" || delivery != "delivered" || counted != "delivered" {
		t.Errorf("the route is %s, its delivery %s, counted %s, %v", route, delivery, counted, err)
	}
}

func TestSweepQueuesRoutesThatHaveLostTheirJob(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	var ids []uuid.UUID
	for range 5 {
		ids = append(ids, stored(t, l, "crm"))
	}
	if _, err := pool.Exec(t.Context(), `DELETE FROM river_job WHERE args @> jsonb_build_object('event_ids', jsonb_build_array($1::text))`, ids[1].String()); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE river_job SET state = 'discarded', finalized_at = now() WHERE args @> jsonb_build_object('event_ids', jsonb_build_array($1::text))`, ids[3].String()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := l.Sweep(t.Context(), "crm", time.Hour, ledger.Cursor{}, 100); err != nil || n != 0 {
		t.Fatalf("young routes are left alone: %d, %v", n, err)
	}
	found, steps := 0, 0
	for cursor := (ledger.Cursor{}); ; steps++ {
		n, next, err := l.Sweep(t.Context(), "crm", 0, cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		found += n
		if cursor = next; cursor == (ledger.Cursor{}) {
			break
		}
	}
	if found != 2 || steps < 2 {
		t.Errorf("found %d in %d steps", found, steps)
	}
	if n, _, err := l.Sweep(t.Context(), "crm", 0, ledger.Cursor{}, 100); err != nil || n != 0 {
		t.Errorf("a second sweep finds %d, %v", n, err)
	}
}

func TestGenerationGrowsWithEachChange(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	var got []int64
	for _, hash := range []string{"a", "a", "b", "a"} {
		g, err := l.Generation(t.Context(), hash, "test")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, g)
	}
	if got[0] != got[1] || got[2] <= got[1] || got[3] <= got[2] {
		t.Errorf("got %v", got)
	}
	for give, want := range map[int64]int64{got[0]: got[3], got[2]: got[2], got[3]: got[3], 0: 0} {
		if last, err := l.Renumbered(t.Context(), give); err != nil || last != want {
			t.Errorf("the config with the number %d has %d last, %v, want %d", give, last, err, want)
		}
	}
}

func TestSinkStateAndWake(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	if s, err := l.SinkState(t.Context(), "crm"); err != nil || s.State != "ready" {
		t.Fatalf("%+v, %v", s, err)
	}
	want := ledger.SinkState{State: "parked", Reason: "daily quota\x00", Until: time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)}
	if err := l.SetSinkState(t.Context(), "crm", want); err != nil {
		t.Fatal(err)
	}
	got, err := l.SinkState(t.Context(), "crm")
	if err != nil || got.State != want.State || !got.Until.Equal(want.Until) || got.Reason != "daily quota" {
		t.Errorf("%+v, %v", got, err)
	}
	stored(t, l, "crm")
	stored(t, l, "other")
	if _, err := pool.Exec(t.Context(), `UPDATE river_job SET state = 'scheduled', scheduled_at = now() + interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Wake(t.Context(), "crm"); err != nil || n != 1 {
		t.Errorf("woke %d, %v", n, err)
	}
	stats, err := l.Queues(t.Context(), []string{"crm", "other"})
	if err != nil {
		t.Fatal(err)
	}
	if stats[0].Jobs["available"] != 1 || stats[1].Jobs["scheduled"] != 1 || stats[0].Oldest <= 0 {
		t.Errorf("got %+v", stats)
	}
}
