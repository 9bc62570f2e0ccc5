package ledger_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/records"
)

const jane = ledger.Address("jane@example.com")

// dump is every row of every table but those of migrations, as text, bodies readable.
func dump(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	var rows []string
	for _, table := range query[string](t, pool, `
		SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname NOT LIKE '%migration%' ORDER BY 1`) {
		for _, row := range query[string](t, pool, `SELECT to_jsonb(t)::text FROM `+pgx.Identifier{table}.Sanitize()+` t ORDER BY 1`) {
			if i := strings.Index(row, `\\x`); i >= 0 {
				end := i + 3 + strings.IndexByte(row[i+3:], '"')
				if body, err := hex.DecodeString(row[i+3 : end]); err == nil {
					row = row[:i] + string(body) + row[end:]
				}
			}
			rows = append(rows, table+": "+row)
		}
	}
	return rows
}

// life is a database in which one person and another have left their traces.
type life struct {
	pool   *pgxpool.Pool
	l      *ledger.Ledger
	events map[string]uuid.UUID
}

func newLife(t *testing.T) *life {
	t.Helper()
	pool := pgtest.Pool(t)
	f := &life{pool: pool, l: ledger.New(pool), events: map[string]uuid.UUID{}}
	add := func(name, entity, body string, status ledger.Status, headers string, sinks ...string) {
		e := event("deal.updated", entity, len(f.events), body, sinks...)
		e.Status = status
		if headers != "" {
			e.Headers = []byte(headers)
		}
		if status == ledger.Malformed {
			e.Reason = "the body cannot be read: after Jane Roe"
		}
		accept(t, f.l, e)
		f.events[name] = e.ID
	}
	add("plain", "deal:1", `{"key":"1","email":"Jane@Example.com","name":"Jane Roe"}`, ledger.Stored, "", "crm")
	add("escaped", "deal:2", `{"key":"2","who":{"mail":"jane\u0040example.com"},"name":"Jane Roe"}`, ledger.Stored, "", "crm")
	add("dead", "deal:3", `{"key":"3","email":"jane@example.com","name":"Jane Roe"}`, ledger.Stored, "", "crm")
	add("open", "deal:4", `{"key":"4","email":"jane@example.com","name":"Jane Roe"}`, ledger.Stored, "", "crm", "archive")
	add("entity", "partner:jane@example.com", `{"name":"Jane Roe"}`, ledger.Stored, "", "crm")
	add("unmapped", "", `{"email":"jane@example.com","name":"Jane Roe"}`, ledger.Unmapped, "")
	add("malformed", "", `{"email":"jane@example.com","name":"Jane Roe`, ledger.Malformed, "")
	add("header", "deal:5", `{"key":"5"}`, ledger.Stored, `{"From":"jane@example.com"}`, "crm")
	add("other", "deal:6", `{"key":"6","email":"mary-jane@example.com","name":"Mary"}`, ledger.Stored, `{"From":"mary"}`, "crm")
	add("told", "deal:7", `{"key":"7","email":"joe@example.com"}`, ledger.Stored, "", "crm")
	add("keyed", "deal:8", `{"key":"8","user":"jane","host":"example.com"}`, ledger.Stored, "", "crm")

	deliver := func(name, key string, o ledger.Outcome, reason, crmID string) {
		report := &ledger.Report{Deliveries: []ledger.Delivery{{
			Event: f.events[name], Mapping: "deals", Object: "contacts", Key: key, Outcome: o, Class: "rejected", Reason: reason, Attempts: 1, CRMID: crmID,
		}}}
		if o != ledger.Open {
			report.Closings = []ledger.Closing{{Event: f.events[name], Outcome: o, Reason: reason}}
		}
		if err := f.l.Write(t.Context(), own(t, f.l), report); err != nil {
			t.Fatal(err)
		}
	}
	deliver("plain", "1", ledger.Delivered, "", "901")
	deliver("escaped", "jane@example.com", ledger.Delivered, "", "902")
	deliver("dead", "3", ledger.Dead, "Jane Roe is no valid stage", "")
	deliver("open", "4", ledger.Open, "Jane Roe: try again", "")
	deliver("entity", "e", ledger.Stale, "", "")
	deliver("header", "5", ledger.Delivered, "", "905")
	deliver("other", "6", ledger.Delivered, "", "906")
	deliver("told", "7", ledger.Dead, "the e-mail jane@example.com is taken by 901", "")
	deliver("keyed", "jane@example.com", ledger.Delivered, "", "908")

	version := func(name string) ledger.Version { return ledger.Version{At: 1, Event: f.events[name]} }
	field := func(value any, name string) *ledger.Field {
		v := version(name)
		return &ledger.Field{Wanted: records.NewValue(value), Version: v, Mapping: "deals", Rule: "set", Acked: records.NewValue(value), AckedAt: v}
	}
	record := func(object, property, key, crmID string, fields map[string]*ledger.Field, links ...*ledger.Link) *ledger.Record {
		r := &ledger.Record{ID: newID(t), Object: object, Property: property, Key: key, CRMID: crmID, Presence: records.Present, Fields: fields, Links: map[string]*ledger.Link{}, New: true}
		for _, k := range links {
			r.Links[records.LinkName(k.To, k.As, k.Property, k.Key)] = k
		}
		return r
	}
	waiting := field("Jane Roe", "other")
	waiting.Wanted, waiting.Version = records.NewValue("Jane Roe-Poe"), ledger.Version{At: 2, Event: f.events["other"]}
	err := f.l.Write(t.Context(), own(t, f.l), &ledger.Report{Records: []*ledger.Record{
		record("contacts", "contact_key", "p1", "901", map[string]*ledger.Field{"email": field("JANE@example.com", "plain"), "firstname": field("Jane Roe", "other"), "lastname": waiting}),
		record("contacts", "email", "jane@example.com", "902", map[string]*ledger.Field{"firstname": field("Jane Roe", "other")}),
		record("contacts", "contact_key", "p2", "910", map[string]*ledger.Field{"note": field("write to jane@example.com", "other")}),
		record("companies", "domain", "example.com", "911", map[string]*ledger.Field{"contact": field("Jane Roe", "plain"), "name": field("Example Inc", "other")},
			&ledger.Link{To: "contacts", Property: "email", Key: "jane@example.com", Version: version("other"), Have: records.Exists},
			&ledger.Link{To: "contacts", Property: "email", Key: "joe@example.com", Version: version("other"), Have: records.Exists}),
		record("contacts", "contact_key", "p3", "906", map[string]*ledger.Field{"email": field("mary-jane@example.com", "other")}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, failure := range map[string]string{"dead": "Jane Roe is no valid stage", "told": "jane@example.com is taken", "other": "Mary is no valid stage"} {
		if _, err := pool.Exec(t.Context(), `
			UPDATE river_job SET errors = ARRAY[jsonb_build_object('at', now(), 'attempt', 1, 'error', $2::text, 'trace', 'main.go: ' || $2)]
			WHERE args @> jsonb_build_object('event_ids', jsonb_build_array($1::text))`, f.events[name].String(), failure); err != nil {
			t.Fatal(err)
		}
	}
	spec := ledger.ReplaySpec{Filter: ledger.Filter{Text: "jane@example.com", Source: "nobody"}, By: "tester", Wants: func(string, string) []string { return nil }}
	if _, _, err := f.l.Replay(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *life) forget(t *testing.T, dry bool) *ledger.Forgotten {
	t.Helper()
	got, err := f.l.Forget(t.Context(), ledger.Person{Address: jane, By: "tester", DryRun: dry})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// traces are the rows that still tell of Jane.
func (f *life) traces(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(dump(t, f.pool), func(row string) bool {
		row = strings.ReplaceAll(strings.ToLower(row), "mary-jane@", "")
		return !strings.Contains(row, "jane") || strings.Contains(row, `"8\"`) || strings.Contains(row, `"key":"8"`)
	})
}

func TestForget(t *testing.T) {
	t.Parallel()
	f := newLife(t)
	if n := len(f.traces(t)); n < 15 {
		t.Fatalf("only %d rows tell of her: what does the test test?", n)
	}
	before := dump(t, f.pool)
	told := balances(t, f.l)
	dry := f.forget(t, true)
	if diff := cmp.Diff(before, dump(t, f.pool)); diff != "" {
		t.Fatalf("a dry run changes something:\n%s", diff)
	}
	got := f.forget(t, false)
	if diff := cmp.Diff(dry, got); diff != "" {
		t.Errorf("the dry run told something else:\n%s", diff)
	}
	want := &ledger.Forgotten{Events: 8, Deliveries: 8, Records: 4, Jobs: 2, CRM: []ledger.CRMRecord{
		{Sink: "crm", Object: "contacts", ID: "901", Holds: true},
		{Sink: "crm", Object: "contacts", ID: "902", Holds: true},
		{Sink: "crm", Object: "contacts", ID: "905"},
		{Sink: "crm", Object: "contacts", ID: "908", Holds: true},
		{Sink: "crm", Object: "contacts", ID: "910", Holds: true},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, row := range f.traces(t) {
		t.Errorf("still told: %s", row)
	}

	// What became of the events stays, and whose events they are not.
	if diff := cmp.Diff(told, balances(t, f.l)); diff != "" {
		t.Errorf("the ledger tells another story now:\n%s", diff)
	}
	for name, want := range map[string]string{
		"plain": "erased [crm: delivered] deal:1", "escaped": "erased [crm: delivered] deal:2", "dead": "erased [crm: dead] deal:3",
		"open": "erased [archive: open crm: open] deal:4", "entity": "erased [crm: stale] ", "unmapped": "erased [] ", "malformed": "erased [] ",
		"header": "erased [crm: delivered] deal:5", "other": "stored [crm: delivered] deal:6", "told": "stored [crm: dead] deal:7", "keyed": "stored [crm: delivered] deal:8",
	} {
		s, err := f.l.Story(t.Context(), f.events[name])
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %v %s", s.Status, s.Outcomes, s.Entity); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if s.Status == "erased" && (s.Bytes != 0 || s.Headers != nil || s.Reason != ledger.ReasonErased) {
			t.Errorf("%s: %+v", name, s)
		}
		for _, r := range s.Routes {
			for _, d := range r.Deliveries {
				if s.Status == "erased" && (d.Outcome == "open" || d.Reason != "" && d.Reason != ledger.ReasonErased) {
					t.Errorf("%s: %+v", name, d)
				}
			}
		}
		for _, j := range s.Jobs {
			if want := map[string]int{"dead": 1, "told": 1, "other": 1}[name]; j.Errors != want {
				t.Errorf("%s: %d errors, want %d", name, j.Errors, want)
			}
		}
	}
	all := strings.Join(dump(t, f.pool), "\n")
	for _, kept := range []string{"mary-jane@example.com", "Mary is no valid stage", "Example Inc", "joe@example.com", `"From": "mary"`} {
		if !strings.Contains(all, kept) {
			t.Errorf("lost: %s", kept)
		}
	}

	// Nothing is left to send, and an older event does not decide a field.
	found, err := f.l.Records(t.Context(), "crm", []ledger.RecordKey{
		{Object: "contacts", Property: "contact_key", Key: "p1"}, {Object: "companies", Property: "domain", Key: "example.com"}, {Object: "contacts", Property: "email", Key: "jane@example.com"},
	})
	if err != nil || len(found) != 2 {
		t.Fatalf("%v, %v", found, err)
	}
	for key, r := range found {
		for name, field := range r.Fields {
			erased := key.Object == "contacts" || name == "contact"
			if field.Pending() || field.Version.IsZero() || erased != (field.Wanted.Go == nil) || erased != (field.Rule == "erased") {
				t.Errorf("%s.%s: %+v", key.Object, name, field)
			}
		}
		if r.CRMID == "" || r.Presence != records.Present {
			t.Errorf("%+v", r)
		}
	}
	if company := found[ledger.RecordKey{Object: "companies", Property: "domain", Key: "example.com"}]; len(company.Links) != 1 {
		t.Errorf("links: %v", company.Links)
	}
	if audit := query[string](t, f.pool, `SELECT concat_ws(' ', by, events, deliveries, records, jobs, finished_at >= at) FROM forgets`); len(audit) != 1 || audit[0] != "tester 8 8 4 2 t" {
		t.Errorf("audit: %v", audit)
	}

	// Once more: there is nothing left to do.
	if diff := cmp.Diff(&ledger.Forgotten{CRM: []ledger.CRMRecord{}}, f.forget(t, false)); diff != "" {
		t.Error(diff)
	}
}

func TestForgetTakesTheSinkFromItsOwner(t *testing.T) {
	t.Parallel()
	f := newLife(t)
	lease := own(t, f.l)
	f.forget(t, true)
	write := func() error {
		return f.l.Write(t.Context(), lease, &ledger.Report{Deliveries: []ledger.Delivery{{Event: f.events["other"], Mapping: "m"}}})
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	f.forget(t, false)
	if err := write(); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("the owner, who may remember her, may still write: %v", err)
	}
}

// Whoever is cut short is told what has been done; the next run does the rest.
func TestForgetCutShort(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"events", "records", "jobs"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			f := newLife(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			first, err := f.l.Forget(ctx, ledger.Person{Address: jane, By: "tester", Progress: func(what string, _, _ int64) {
				if what == at {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			second := f.forget(t, false)
			if got := [4]int64{first.Events + second.Events, first.Deliveries + second.Deliveries, first.Records + second.Records, first.Jobs + second.Jobs}; got != [4]int64{8, 8, 4, 2} {
				t.Errorf("both together: %v", got)
			}
			for _, row := range f.traces(t) {
				t.Errorf("still told: %s", row)
			}
			if n := query[int](t, f.pool, `SELECT count(*)::int FROM forgets WHERE finished_at IS NULL`); n[0] != 1 {
				t.Errorf("%d runs that were cut short", n[0])
			}
		})
	}
}

func TestErasedEventIsNotReplayed(t *testing.T) {
	t.Parallel()
	f := newLife(t)
	f.forget(t, false)
	spec := ledger.ReplaySpec{
		Filter: ledger.Filter{IDs: []uuid.UUID{f.events["plain"], f.events["dead"], f.events["told"], f.events["malformed"]}}, Generation: 1,
		Wants: func(string, string) []string { return []string{"crm"} },
	}
	plan, err := f.l.PlanReplay(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if want := (&ledger.ReplayPlan{Events: 1, Routes: map[string]int64{"crm": 1}, Kept: 3, Erased: 3}); cmp.Diff(want, plan) != "" {
		t.Error(cmp.Diff(want, plan))
	}
	if _, routes, err := f.l.Replay(t.Context(), spec); err != nil || routes != 1 {
		t.Errorf("opened %d, %v", routes, err)
	}
}

func TestTombstones(t *testing.T) {
	t.Parallel()
	f := newLife(t)
	if none, err := f.l.Tombstones(t.Context()); none != nil || err != nil || none.Cover([]byte("jane@example.com")) {
		t.Fatalf("%v, %v", none, err)
	}
	f.forget(t, true)
	if none, err := f.l.Tombstones(t.Context()); none != nil || err != nil {
		t.Fatalf("a dry run leaves %v, %v", none, err)
	}
	f.forget(t, false)
	if _, err := f.l.Forget(t.Context(), ledger.Person{Address: "o'brien@example.com", By: "tester"}); err != nil {
		t.Fatal(err)
	}
	both, err := f.l.Tombstones(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`{"email":"JANE\u0040example.com"}`: true, `O'Brien@Example.Com`: true, "mary-jane@example.com": false, "brien@example.com": false, "": false,
	} {
		if got := both.Cover([]byte(text)); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
	// The same person in another database has another hash.
	g := newLife(t)
	g.forget(t, false)
	hashes := func(f *life) []string { return query[string](t, f.pool, `SELECT encode(hash, 'hex') FROM tombstones`) }
	if one := hashes(g)[0]; slices.Contains(hashes(f), one) {
		t.Error("the hash has no secret of the database in it")
	}
}

// An event that no sink wants and that has waited in a spool is erased however long that was.
func TestEraseLateFromASpool(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	if _, err := l.Forget(t.Context(), ledger.Person{Address: jane, By: "tester"}); err != nil {
		t.Fatal(err)
	}
	erase := func() int {
		n, more, err := l.EraseLate(t.Context(), 500)
		if err != nil || more {
			t.Fatal(more, err)
		}
		return n
	}
	erase() // the hourly maintenance has run meanwhile
	spooled := func(i int, age time.Duration, again bool, body string) ledger.Incoming {
		e := event("t", "", i, body)
		e.ReceivedAt, e.Status, e.Again = time.Now().Add(-age), ledger.Unmapped, again
		for b := range 6 {
			e.ID[b] = byte(e.ReceivedAt.UnixMilli() >> (40 - 8*b))
		}
		return e
	}
	accept(t, l, spooled(1, 2*time.Hour, true, `{"email":"jane@example.com"}`), spooled(2, 50*time.Hour, true, `{"email":"jane@example.com","older":1}`), spooled(3, 70*time.Hour, true, `{"email":"joe@example.com"}`))
	if n := erase(); n != 2 {
		t.Errorf("erased %d of 2", n)
	}
	accept(t, l, spooled(4, 30*time.Hour, true, `{"email":"Jane@example.com"}`))
	if n := erase(); n != 1 {
		t.Errorf("erased %d of 1", n)
	}
	if got := query[string](t, pool, `SELECT convert_from(body, 'UTF8') FROM events WHERE body <> ''`); !cmp.Equal(got, []string{`{"email":"joe@example.com"}`}) {
		t.Errorf("left %v", got)
	}
}

// What nobody works is looked through now and then.
func TestEraseLate(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	late := func(i int, body string, status ledger.Status) uuid.UUID {
		e := event("t", "", i, body)
		e.Status, e.Reason, e.Headers = status, "why", []byte(`{"a":"b"}`)
		accept(t, l, e)
		return e.ID
	}
	erase := func(limit int) (erased, steps int) {
		for {
			n, more, err := l.EraseLate(t.Context(), limit)
			if err != nil {
				t.Fatal(err)
			}
			if erased, steps = erased+n, steps+1; !more {
				return erased, steps
			}
		}
	}
	late(0, `{"email":"jane@example.com","early":true}`, ledger.Unmapped)
	if n, _ := erase(10); n != 0 {
		t.Errorf("erased %d while nobody is forgotten", n)
	}
	if _, err := l.Forget(t.Context(), ledger.Person{Address: jane, By: "tester"}); err != nil {
		t.Fatal(err)
	}
	for i, status := range []ledger.Status{ledger.Unmapped, ledger.Ignored, ledger.Malformed, ledger.Unmapped, ledger.Stored} {
		late(i+1, fmt.Sprintf(`{"email":"jane@example.com","n":%d}`, i), status)
		late(i+11, fmt.Sprintf(`{"email":"joe@example.com","n":%d}`, i), status)
	}
	if n, steps := erase(3); n != 4 || steps < 3 { // a stored one is the workers'
		t.Errorf("erased %d in %d steps", n, steps)
	}
	late(7, `{"email":"jane@example.com","late":true}`, ledger.Unmapped)
	if n, _ := erase(100); n != 1 {
		t.Errorf("erased %d", n)
	}
	if n, _ := erase(100); n != 0 {
		t.Errorf("erased %d once more", n)
	}
	got := query[string](t, pool, `SELECT status || ' ' || count(*) || ' ' || max(length(body)) || ' ' || count(headers) FROM events WHERE body = '' OR status = 'erased' GROUP BY status`)
	if diff := cmp.Diff([]string{"erased 6 0 0"}, got); diff != "" {
		t.Error(diff)
	}
	// One that is sent again is a duplicate as ever.
	e := event("t", "", 7, `{"email":"jane@example.com","late":true}`)
	if again := accept(t, l, e); !again[0].Duplicate {
		t.Error("an erased event is stored anew")
	}
}

// Nobody waits while a person is looked for among many.
func TestMillionRowsForget(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	l := ledger.New(pool)
	n := *manyRows
	fill(t, pool, n)
	r := receive(t, url, nil)
	var last [2]int64
	start := time.Now()
	got, err := l.Forget(t.Context(), ledger.Person{Address: ledger.Address(fmt.Sprintf("somebody-%d@example.com", n/2+1)), By: "tester", Progress: func(_ string, done, total int64) {
		last = [2]int64{done, total}
		if done > total {
			t.Errorf("%d of %d", done, total)
		}
	}})
	took := time.Since(start)
	accepted, timeouts := r.stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events and as many records: %s; beside it %d accepted, slowest %s", n, took.Round(time.Millisecond), accepted, r.slowest.Round(time.Millisecond))
	if timeouts > 0 || accepted == 0 {
		t.Errorf("receivers: %d accepted, %d waited for too long", accepted, timeouts)
	}
	id := fmt.Sprint(n/2 + 1)
	want := &ledger.Forgotten{Events: 1, Deliveries: 1, Records: 1, CRM: []ledger.CRMRecord{{Sink: "crm", Object: "deals", ID: id, Holds: true}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if last[0] != last[1] {
		t.Errorf("it ended at %d of %d", last[0], last[1])
	}
}
