package sinks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"partnersync/internal/sandbox"
)

func TestUpsertBatch(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	var rows []Row
	for i := range 100 {
		rows = append(rows, contact(fmt.Sprint(i)))
	}
	results := s.Write(within(t), Upsert, rows)
	ids := map[string]bool{}
	for i, r := range results {
		if r.Class != OK || !r.Created || r.ID == "" {
			t.Fatalf("row %d: %+v", i, r)
		}
		// Results come in any order: each row must get the id of its own record.
		record, _ := box.Get("hubspot", "contacts", r.ID)
		if record.Properties["partner_key"] != rows[i].Key {
			t.Errorf("row %d got the record of %v", i, record.Properties["partner_key"])
		}
		ids[r.ID] = true
	}
	if len(ids) != 100 || box.calls.Load() != 1 {
		t.Errorf("%d ids in %d requests", len(ids), box.calls.Load())
	}
	again := s.Write(within(t), Upsert, rows[:2])
	if again[0].Created || again[0].ID != results[0].ID {
		t.Errorf("a second upsert gave %+v", again[0])
	}
}

func TestValuesArriveAsText(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	row := contact("1")
	row.Values = map[string]any{"email": "1@acme.test", "score": decimal.RequireFromString("1234567.8900"), "phone": int64(7), "lastname": "Öz \"q\""}
	result := s.Write(within(t), Upsert, []Row{row})[0]
	row.Values = map[string]any{"phone": nil}
	row.ID = result.ID
	op, _ := s.Group(row)
	if op != Update {
		t.Fatalf("a row with an id is written by %s", op)
	}
	if r := s.Write(within(t), op, []Row{row})[0]; r.Class != OK || r.Created || r.ID != result.ID {
		t.Fatalf("%+v", r)
	}
	record, _ := box.Get("hubspot", "contacts", result.ID)
	want := map[string]any{"partner_key": "PS-1", "email": "1@acme.test", "score": "1234567.89", "lastname": "Öz \"q\""}
	if diff := cmp.Diff(want, record.Properties); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Invariant 4: one bad row of a hundred is refused alone.
func TestBadRowAlone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		values map[string]any
		want   Result
	}{
		{"bad option", map[string]any{"partner_status": "gone fishing"}, Result{
			Class: Rejected, Status: 207, Code: "INVALID_OPTION", Fields: []string{"partner_status"}, Allowed: []string{"active", "inactive"},
			Message: "<value> was not one of the allowed options: [active, inactive]",
		}},
		{"unknown property", map[string]any{"favourite_colour": "blue"}, Result{
			Class: Rejected, Status: 207, Code: "PROPERTY_DOESNT_EXIST", Fields: []string{"favourite_colour"},
			Message: `Property "favourite_colour" does not exist`,
		}},
		{"bad e-mail", map[string]any{"email": "nobody at all"}, Result{
			Class: Rejected, Status: 207, Code: "INVALID_EMAIL", Fields: []string{"email"}, Message: "Email address <value> is invalid",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			box, s := portal(t, sandbox.Options{}, "")
			var rows []Row
			for i := range 100 {
				rows = append(rows, contact(fmt.Sprint(i)))
			}
			rows[37].Values = test.values
			for i, r := range s.Write(within(t), Upsert, rows) {
				if i != 37 {
					if r.Class != OK {
						t.Errorf("row %d: %+v", i, r)
					}
					continue
				}
				if diff := cmp.Diff(test.want, r); diff != "" {
					t.Errorf("the bad row (-want +got):\n%s", diff)
				}
			}
			if n := box.calls.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A batch that is refused whole is parted, at most 2·log2(n)+1 calls.
func TestWholeBatchRefused(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	box.Fault(sandbox.Fault{
		Contains: "poison", Effect: sandbox.EffectStatus, Status: 400,
		Body: `{"status":"error","category":"VALIDATION_ERROR","message":"Invalid input JSON","correlationId":"abc-1"}`,
	})
	var rows []Row
	for i := range 100 {
		rows = append(rows, contact(fmt.Sprint(i)))
	}
	rows[61].Values["lastname"] = "poison"
	for i, r := range s.Write(within(t), Upsert, rows) {
		want := OK
		if i == 61 {
			want = Rejected
			if r.Message != "Invalid input JSON" || r.Code != "VALIDATION_ERROR" || r.RequestID != "abc-1" || r.Status != 400 {
				t.Errorf("%+v", r)
			}
		}
		if r.Class != want {
			t.Errorf("row %d: %+v", i, r)
		}
	}
	if n := box.calls.Load(); n > 15 {
		t.Errorf("%d requests", n)
	}
}

// A property that is missing refuses the rows that carry it, in one more call.
func TestUnknownPropertyOfTheBatch(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	box.Fault(sandbox.Fault{
		Contains: `"tier"`, Effect: sandbox.EffectStatus, Status: 400,
		Body: `{"status":"error","category":"VALIDATION_ERROR","message":"Property values were not valid",` +
			`"errors":[{"message":"Property \"tier\" does not exist","code":"PROPERTY_DOESNT_EXIST","context":{"propertyName":["tier"]}}]}`,
	})
	var rows []Row
	for i := range 10 {
		rows = append(rows, contact(fmt.Sprint(i)))
		if i%2 == 0 {
			rows[i].Values["tier"] = "gold"
		}
	}
	rows[4].Optional = []string{"tier"}
	for i, r := range s.Write(within(t), Upsert, rows) {
		switch {
		case i == 4:
			if r.Class != OK || len(r.Dropped) != 1 || r.Dropped[0] != "tier" {
				t.Errorf("the optional field: %+v", r)
			}
		case i%2 == 0:
			if r.Class != Rejected || !blames(r, "tier") || r.Message != `Property "tier" does not exist` {
				t.Errorf("row %d: %+v", i, r)
			}
		case r.Class != OK:
			t.Errorf("row %d: %+v", i, r)
		}
	}
	if n := box.calls.Load(); n != 3 {
		t.Errorf("%d requests", n)
	}
}

func TestKeyThatIsNotUnique(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	var rows []Row
	for i := range 8 {
		r := contact(fmt.Sprint(i))
		r.Property = "firstname"
		rows = append(rows, r)
	}
	for _, r := range s.Write(within(t), Upsert, rows) {
		if r.Class != Rejected || !strings.Contains(r.Message, "non-unique") {
			t.Fatalf("%+v", r)
		}
	}
	for i := range rows {
		rows[i].Property = "nosuch_key"
	}
	for _, r := range s.Write(within(t), Upsert, rows) {
		if r.Class != Rejected || !blames(r, "nosuch_key") {
			t.Fatalf("%+v", r)
		}
	}
	if n := box.calls.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// Optional fields are left out when they are refused by name, those of several
// rows in one request.
func TestOptional(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	var rows []Row
	for i := range 3 {
		r := contact(fmt.Sprint(i))
		r.Values["partner_status"] = "nonsense"
		r.Values["shoe_size"] = "44"
		r.Optional = []string{"partner_status", "shoe_size"}
		rows = append(rows, r)
	}
	rows[2].Optional = []string{"shoe_size"} // not both of those refused
	results := s.Write(within(t), Upsert, rows)
	if diff := cmp.Diff([]Class{OK, OK, Rejected}, classesOf(results)); diff != "" {
		t.Fatalf("%s\n%+v", diff, results)
	}
	if diff := cmp.Diff([]string{"partner_status", "shoe_size"}, results[0].Dropped); diff != "" {
		t.Error(diff)
	}
	if results[2].Dropped != nil || rows[0].Values["shoe_size"] != "44" {
		t.Error("the caller's row was changed, or a refused one claims to have dropped something")
	}
	if n := box.calls.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// The same key twice refuses the batch, whatever its case: the later row follows.
func TestSameKeyTwice(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	rows := []Row{contact("a"), contact("b"), contact("a"), contact("c")}
	rows[2].Trace, rows[2].Key, rows[2].Values = "trace-later", "ps-A", map[string]any{"firstname": "Later"}
	results := s.Write(within(t), Upsert, rows)
	if diff := cmp.Diff([]Class{OK, OK, OK, OK}, classesOf(results)); diff != "" {
		t.Fatalf("%s\n%+v", diff, results)
	}
	if results[0].ID != results[2].ID || box.calls.Load() != 2 {
		t.Errorf("ids %s and %s in %d requests", results[0].ID, results[2].ID, box.calls.Load())
	}
	record, _ := box.Get("hubspot", "contacts", results[0].ID)
	if record.Properties["firstname"] != "Later" {
		t.Errorf("the earlier row was written last: %v", record.Properties)
	}
}

func TestMoreRowsThanFit(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	var rows []Row
	for i := range 250 {
		rows = append(rows, contact(fmt.Sprint(i)))
	}
	for i, r := range s.Write(within(t), Upsert, rows) {
		if r.Class != OK {
			t.Fatalf("row %d: %+v", i, r)
		}
	}
	if n := box.calls.Load(); n != 3 {
		t.Errorf("%d requests", n)
	}
}

func TestUpdateAndFind(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	id := box.Put("hubspot", "contacts", map[string]any{"partner_key": "PS-1", "email": "1@acme.test"})
	byID, byKey, gone, unknownKey := contact("1"), contact("1"), contact("2"), contact("3")
	byID.ID, byID.Key = id, ""
	byKey.Trace, byKey.Values = "trace-key", map[string]any{"lastname": "Key"}
	gone.ID = "999999999999"
	results := s.Write(within(t), Update, []Row{byID, byKey, gone, unknownKey})
	if diff := cmp.Diff([]Class{OK, OK, Rejected, Rejected}, classesOf(results)); diff != "" {
		t.Fatalf("%s\n%+v", diff, results)
	}
	if results[0].ID != id || results[1].ID != id || !results[2].Absent || !results[3].Absent || results[3].Code != "OBJECT_NOT_FOUND" {
		t.Errorf("%+v", results)
	}
	if len(box.Records("hubspot", "contacts")) != 1 {
		t.Error("an update made a record")
	}
	found := s.Find(within(t), []Row{contact("1"), contact("2")})
	if found[0].Class != OK || found[0].ID != id || found[1].Class != Rejected || !found[1].Absent {
		t.Errorf("%+v", found)
	}
}

func TestCreateWithLinks(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	person := box.Put("hubspot", "contacts", map[string]any{"email": "1@acme.test"})
	company := box.Put("hubspot", "companies", map[string]any{"name": "Acme"})
	note := Row{
		Trace: "n1", Object: "notes", Values: map[string]any{"hs_timestamp": "2026-11-21T10:00:00Z", "hs_note_body": "hello"},
		Links: []RowLink{{Object: "contacts", ID: person}, {Object: "companies", ID: company}},
	}
	plain := note
	plain.Trace, plain.Links = "n2", nil
	results := s.Write(within(t), Create, []Row{note, plain})
	for _, r := range results {
		if r.Class != OK || !r.Created || r.ID == "" {
			t.Fatalf("%+v", results)
		}
	}
	if n := len(box.Links("hubspot")); n != 2 {
		t.Errorf("%d links", n)
	}
	keyed := contact("9")
	r := s.Write(within(t), Create, []Row{keyed})[0]
	record, _ := box.Get("hubspot", "contacts", r.ID)
	if record.Properties["partner_key"] != "PS-9" {
		t.Errorf("the key is not among the values of a create: %v", record.Properties)
	}
	taken := contact("8")
	taken.Values["email"] = "1@acme.test"
	if r := s.Write(within(t), Create, []Row{taken})[0]; r.Class != Conflict || r.Existing != person {
		t.Errorf("%+v", r)
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	deal := box.Put("hubspot", "deals", map[string]any{"dealname": "x"})
	person := box.Put("hubspot", "contacts", map[string]any{"email": "1@acme.test"})
	company := box.Put("hubspot", "companies", map[string]any{"name": "Acme"})
	good := LinkRow{Trace: "l1", From: Ref{Object: "deals", ID: deal}, To: Ref{Object: "contacts", ID: person}}
	other := LinkRow{Trace: "l2", From: Ref{Object: "deals", ID: deal}, To: Ref{Object: "companies", ID: company}}
	bad := LinkRow{Trace: "l3", From: Ref{Object: "deals", ID: deal}, To: Ref{Object: "contacts", ID: "424242"}}
	lacking := LinkRow{Trace: "l4", From: Ref{Object: "deals", ID: deal}, To: Ref{Object: "contacts"}}
	results := s.Link(within(t), []LinkRow{good, bad, other, lacking})
	if diff := cmp.Diff([]Class{OK, Rejected, OK, Rejected}, classesOf(results)); diff != "" {
		t.Fatalf("%s\n%+v", diff, results)
	}
	if results[3].Status != 0 || results[3].Message != "the request cannot be made: the row has no link.to.id" {
		t.Errorf("%+v", results[3])
	}
	if r := s.Link(within(t), []LinkRow{good}); r[0].Class != OK {
		t.Errorf("linking again: %+v", r)
	}
	if n := len(box.Links("hubspot")); n != 2 {
		t.Errorf("%d links", n)
	}
	good.Remove = true
	if r := s.Link(within(t), []LinkRow{good}); r[0].Class != OK {
		t.Errorf("unlinking: %+v", r)
	}
	if n := len(box.Links("hubspot")); n != 1 {
		t.Errorf("%d links after one was removed", n)
	}
	if _, a := s.GroupLink(other); true {
		if _, b := s.GroupLink(bad); a == b {
			t.Error("links between other objects share a request")
		}
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{}, "")
	id := box.Put("hubspot", "contacts", map[string]any{"email": "1@acme.test"})
	row := contact("1")
	if r := s.Write(within(t), Archive, []Row{row})[0]; r.Class != Rejected || r.Message != "the request cannot be made: the row has no record.id" {
		t.Errorf("without an id: %+v", r)
	}
	row.ID = id
	if r := s.Write(within(t), Archive, []Row{row})[0]; r.Class != OK || r.Status != 204 {
		t.Errorf("%+v", r)
	}
	if len(box.Records("hubspot", "contacts")) != 0 {
		t.Error("it is still there")
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	box, s := portal(t, sandbox.Options{Account: 4711}, "")
	if r := s.Probe(within(t)); r.Class != OK || r.ID != "4711" {
		t.Errorf("%+v", r)
	}
	box.SetToken("another")
	if r := s.Probe(within(t)); r.Class != Held || r.Status != 401 || r.Code != "INVALID_AUTHENTICATION" {
		t.Errorf("%+v", r)
	}
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		fault sandbox.Fault
		want  Result
	}{
		{"ten seconds", sandbox.Fault{Effect: sandbox.EffectThrottle, Policy: "TEN_SECONDLY_ROLLING"},
			Result{Class: Throttled, Status: 429, Code: "TEN_SECONDLY_ROLLING", RetryAfter: 10 * time.Second}},
		{"a second", sandbox.Fault{Effect: sandbox.EffectThrottle, Policy: "SECONDLY"},
			Result{Class: Throttled, Status: 429, Code: "SECONDLY", RetryAfter: time.Second}},
		{"as told", sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "120"},
			Result{Class: Throttled, Status: 429, Code: "TEN_SECONDLY_ROLLING", RetryAfter: 120 * time.Second}},
		{"a day", sandbox.Fault{Effect: sandbox.EffectThrottle, Policy: "DAILY"},
			Result{Class: Parked, Status: 429, Code: "DAILY", RetryAfter: time.Hour}},
		{"migration", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 477},
			Result{Class: Parked, Status: 477, Code: "MIGRATION_IN_PROGRESS", RetryAfter: time.Hour}},
		{"token", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 401},
			Result{Class: Held, Status: 401, Code: "INVALID_AUTHENTICATION", Refused: "token"}},
		{"scope", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 403},
			Result{Class: Held, Status: 403, Code: "MISSING_SCOPES"}},
		{"the rights of a user", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 403,
			Body: `{"status":"error","category":"USER_DOES_NOT_HAVE_PERMISSIONS","message":"x"}`},
			Result{Class: Held, Status: 403, Code: "USER_DOES_NOT_HAVE_PERMISSIONS"}},
		{"something else forbidden", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 403, Body: `{"status":"error","category":"OTHER","message":"x"}`},
			Result{Class: Rejected, Status: 403, Code: "OTHER"}},
		{"firewall", sandbox.Fault{Effect: sandbox.EffectHTML},
			Result{Class: Unavailable, Status: 403}},
		{"lock", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 423},
			Result{Class: Unavailable, Status: 423, RetryAfter: 2 * time.Second}},
		{"broken", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 500},
			Result{Class: Unavailable, Status: 500, Sent: true}},
		{"gone for a while", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 503},
			Result{Class: Unavailable, Status: 503, Sent: true}}, // one that came after the fact looks the same
		{"behind a proxy", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 522},
			Result{Class: Unavailable, Status: 522, Sent: true}},
		{"redirect", sandbox.Fault{Effect: sandbox.EffectRedirect, Location: "https://elsewhere.example/"},
			Result{Class: Unavailable, Status: 307}},
		{"route", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 404},
			Result{Class: Rejected, Status: 404, Code: "OBJECT_NOT_FOUND"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			box, s := portal(t, sandbox.Options{}, "settings: {zone: Pacific/Kiritimati}\n")
			box.Fault(test.fault)
			results := s.Write(within(t), Upsert, []Row{contact("1"), contact("2")})
			for _, got := range results {
				if got.Message == "" || strings.Contains(got.Message, hubspotToken) {
					t.Errorf("message %q", got.Message)
				}
				got.Message, got.RequestID = "", ""
				if test.name == "a day" {
					// At midnight, but asked again every hour: the zone may be wrong.
					if got.RetryAfter <= 0 || got.RetryAfter > time.Hour {
						t.Errorf("parked for %s", got.RetryAfter)
					}
					got.RetryAfter = time.Hour
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

// Bodies that are no answer: a class, a reason, no panic.
func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		fault   sandbox.Fault
		class   Class
		sent    bool
		message string
	}{
		{"empty", sandbox.Fault{Effect: sandbox.EffectEmpty}, Unavailable, true, "the answer is empty"},
		{"HTML", sandbox.Fault{Effect: sandbox.EffectHTML, Status: 200}, Unavailable, true, "the answer is a page of HTML"},
		{"10 MB", sandbox.Fault{Effect: sandbox.EffectHuge, Size: 10 << 20}, Unavailable, true, "the answer is longer than 8388608 bytes"},
		{"other JSON", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 200, Body: `{"ok":true}`}, Unavailable, true,
			"the answer says nothing about this row"},
		{"nothing told", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 200, Body: `{"status":"COMPLETE","results":[]}`},
			Unavailable, true, "the answer says nothing about this row"},
		{"no JSON", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 200, Body: `OK`}, Unavailable, true, "the answer is not JSON"},
		{"two documents", sandbox.Fault{Effect: sandbox.EffectStatus, Status: 200, Body: `{} {}`}, Unavailable, true, "the answer is not JSON"},
		{"cut off", sandbox.Fault{Effect: sandbox.EffectTruncate}, Network, true, "broke before the answer"},
		{"reset", sandbox.Fault{Effect: sandbox.EffectReset}, Network, true, "broke before the answer"},
		{"reset after", sandbox.Fault{Effect: sandbox.EffectReset, Apply: true}, Network, true, "broke before the answer"},
		{"slow", sandbox.Fault{Latency: time.Minute}, Timeout, true, "no answer from"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			extra := ""
			if test.class == Timeout {
				extra = "timeout: 100ms\n"
			}
			box, s := portal(t, sandbox.Options{}, extra)
			box.Fault(test.fault)
			write := func() []Result { return s.Write(within(t), Upsert, []Row{contact("1"), contact("2")}) }
			for _, got := range untilAsked(write, func() bool { return box.calls.Load() > 0 }) {
				if got.Class != test.class || got.Sent != test.sent || !strings.Contains(got.Message, test.message) {
					t.Errorf("%+v", got)
				}
			}
			if n := box.calls.Load(); n > 1 {
				t.Errorf("%d requests: what may have had an effect was sent again", n)
			}
		})
	}
}

// An error that names nobody is found out by parting the rows.
func TestErrorThatNamesNobody(t *testing.T) {
	t.Parallel()
	tg := newTarget(t, func(w http.ResponseWriter, _ *http.Request, body string) {
		w.WriteHeader(http.StatusMultiStatus)
		var results []string
		for _, n := range []string{"1", "2", "3", "4"} {
			if strings.Contains(body, `"trace-`+n+`"`) && n != "3" {
				results = append(results, `{"id":"9`+n+`","objectWriteTraceId":"trace-`+n+`","new":true}`)
			}
		}
		errors := ""
		if strings.Contains(body, "trace-3") {
			errors = `{"status":"error","category":"VALIDATION_ERROR","message":"no good"}`
			if len(results) > 0 {
				results = results[:len(results)-1] // and another row is left out too
			}
		}
		_, _ = fmt.Fprintf(w, `{"status":"COMPLETE","results":[%s],"errors":[%s]}`, strings.Join(results, ","), errors)
	})
	s := newSink(t, "preset: hubspot\nbase_url: "+tg.URL+"\nauth: {token: abcdef}\n", Options{})
	results := s.Write(within(t), Upsert, []Row{contact("1"), contact("2"), contact("3"), contact("4")})
	if diff := cmp.Diff([]Class{OK, OK, Rejected, OK}, classesOf(results)); diff != "" {
		t.Errorf("%s\n%+v", diff, results)
	}
}

func TestRequestsAsTheOfficialClientSendsThem(t *testing.T) {
	t.Parallel()
	s := newSink(t, presetConfigs["hubspot"], Options{})
	preview := func(op Operation, row Row) Preview {
		t.Helper()
		p, err := s.Preview(op, []Row{row})
		if err != nil || len(p) != 1 {
			t.Fatal(p, err)
		}
		return p[0]
	}
	deal := Row{Trace: "e1", Object: "deals", Property: "partner_deal_key", Key: "D1", Values: map[string]any{"dealname": "x", "amount": "10"}}
	got := preview(Upsert, deal)
	want := Preview{
		Operation: Upsert, Method: "POST", URL: "https://api.hubapi.com/crm/objects/2026-03/deals/batch/upsert", Rows: 1,
		Header: http.Header{
			"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"partnersync"},
			"Authorization": {"Bearer <secret>"},
		},
		Body: []byte(`{"inputs":[{"id":"D1","idProperty":"partner_deal_key","objectWriteTraceId":"e1",` +
			`"properties":{"amount":"10","dealname":"x"}}]}`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	deal.ID = "77"
	deal.Values = map[string]any{"amount": nil}
	if got := string(preview(Update, deal).Body); got != `{"inputs":[{"id":"77","objectWriteTraceId":"e1","properties":{"amount":""}}]}` {
		t.Error(got)
	}
	links, err := s.PreviewLinks([]LinkRow{{From: Ref{Object: "deals", ID: "1"}, To: Ref{Object: "contacts", ID: "2"}}})
	if err != nil || len(links) != 1 || string(links[0].Body) != `{"inputs":[{"from":{"id":"1"},"to":{"id":"2"}}]}` ||
		links[0].URL != "https://api.hubapi.com/crm/associations/2026-03/deals/contacts/batch/associate/default" {
		t.Errorf("%+v %v", links, err)
	}
}
