package audit_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/audit"
	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/records"
)

// In every CRM an audit after a run is clean; it tells what is edited, without our key, linked otherwise and gone; and a
// repair brings back the field that is chosen and no other.
func TestEveryCRM(t *testing.T) {
	t.Parallel()
	for _, c := range crms() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c, c.plain(), "")
			r.send("firm", "f1", "name", "Acme")
			r.send("firm", "f2", "name", "Best")
			for i := range 4 {
				r.send("deal", fmt.Sprintf("d%d", i), "name", fmt.Sprintf("Deal %d", i), "title", "call 1.50", "firm", "f1")
			}
			r.clean(6)

			d0, d1, d2, d3 := r.id("d0"), r.id("d1"), r.id("d2"), r.id("d3")
			r.edit(d0, c.title, "theirs")
			r.edit(d1, c.needed, "Doe")
			r.edit(d1, c.title, "theirs, too")
			r.edit(d2, c.key, nil)
			r.box.Archive(c.name, c.object, d3)
			found, report, err := r.audit()
			if err != nil {
				t.Fatal(err)
			}
			want := []string{
				fmt.Sprintf("edited d0 %s: call 1.50, theirs", c.title),
				fmt.Sprintf("edited d1 %s: Deal 1, Doe", c.needed),
				fmt.Sprintf("edited d1 %s: call 1.50, theirs, too", c.title),
				"gone d3 : " + d3 + ", <nil>",
				fmt.Sprintf("key d2 %s: d2, <nil>", c.key),
			}
			if diff := cmp.Diff(sorted(want), told(found)); diff != "" {
				t.Fatalf("(-want +got):\n%s\n%+v", diff, report)
			}

			var chosen []audit.Difference
			for _, d := range found {
				if d.Kind == audit.Edited && d.Field == c.title {
					chosen = append(chosen, d)
				}
			}
			if done := r.repair(chosen); done.Fields != 2 || done.Records != 2 || done.Moving+done.Lost != 0 {
				t.Errorf("%+v", done)
			}
			if a, b, other := r.shown(d0, c.title), r.shown(d1, c.title), r.shown(d1, c.needed); a != "call 1.50" || b != "call 1.50" || other != "Doe" {
				t.Errorf("%q, %q and %q", a, b, other)
			}
			found, _, err = r.audit()
			if err != nil || len(found) != 3 {
				t.Errorf("%v %v", told(found), err)
			}
		})
	}
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// A record that was merged is followed by our key; where the CRM lets two records have one key, both are named.
func TestMergedAndSeveral(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hubspot", "pipedrive", "salesforce"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := crmNamed(name)
			r := newRig(t, c, c.plain(), "")
			for _, k := range []string{"d1", "d2", "d3"} {
				r.send("deal", k, "name", k, "title", "call")
			}
			d1, d3 := r.id("d1"), r.id("d3")
			other := r.box.Put(name, c.object, map[string]any{c.needed: "sales"})
			if !r.box.Merge(name, c.object, d1, other) {
				t.Fatal("not merged")
			}
			r.edit(other, c.key, "d1")
			want := []string{"merged d1 " + c.key + ": " + d1 + ", " + other}
			if c.loose {
				twin := r.box.Put(name, c.object, map[string]any{c.needed: "twin", c.key: "d3"})
				want = append(want, fmt.Sprintf("several d3 %s: %s, %s, %s", c.key, d3, d3, twin))
			}
			found, report, err := r.audit()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sorted(want), told(found)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			says := slices.ContainsFunc(report.Notes, func(n string) bool { return strings.Contains(n, "two records for one key are not looked for") })
			if says == c.loose {
				t.Errorf("%q", report.Notes)
			}
		})
	}
}

// HubSpot shows a contact that was merged as the one that it was merged into, among others in one answer.
func TestMergedContact(t *testing.T) {
	t.Parallel()
	c := crmNamed("hubspot")
	c.object, c.needed, c.title = "contacts", "lastname", "jobtitle"
	c.custom["hubspot/contacts"] = []sandbox.Property{key("partner_key")}
	r := newRig(t, c, c.plain(), "")
	for i := range 9 {
		r.send("deal", fmt.Sprint("d", i), "name", "Doe", "title", "CEO")
	}
	r.edit(r.id("d8"), c.title, "CTO")
	var want []string
	for _, k := range []string{"d3", "d5"} { // one into a stranger, one into one of ours
		id, other := r.id(k), r.box.Put(c.name, c.object, map[string]any{c.needed: "sales"})
		if k == "d5" {
			other = r.id("d6")
		}
		if !r.box.Merge(c.name, c.object, id, other) {
			t.Fatal("not merged")
		}
		want = append(want, "merged "+k+" : "+id+", "+other)
	}
	want = append(want, "edited d8 jobtitle: CEO, CTO")
	found, _, err := r.audit()
	if diff := cmp.Diff(sorted(want), told(found)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// Links that a field of the record shows are compared; of others the report says that they are not.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, c := range crms() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c, c.plain(), "")
			r.send("firm", "f1", "name", "Acme")
			r.send("firm", "f2", "name", "Best")
			for _, k := range []string{"d1", "d2", "d3"} {
				r.send("deal", k, "name", k, "title", "call", "firm", "f1")
			}
			report := r.clean(5)
			says := slices.ContainsFunc(report.Notes, func(n string) bool { return strings.HasPrefix(n, "links are not compared") })
			if says != (c.linked == "") {
				t.Errorf("%q", report.Notes)
			}
			if says {
				return
			}
			to := r.ids(c.firms, c.firmKey)
			r.send("deal", "d4", "name", "d4", "title", "call", "firm", "f2")
			other, _ := r.box.Get(c.name, c.object, r.id("d4"))
			r.edit(r.id("d1"), c.linked, other.Properties[c.linked]) // as this CRM keeps it
			r.edit(r.id("d2"), c.linked, nil)
			found, _, err := r.audit()
			want := []string{"link d1 " + c.firms + ": f1, " + to["f2"], "link d2 " + c.firms + ": f1, <nil>"}
			if diff := cmp.Diff(want, told(found)); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A link that is made only where there was none is theirs since.
func TestLinkIfEmpty(t *testing.T) {
	t.Parallel()
	c := crmNamed("salesforce")
	r := newRig(t, c, strings.Replace(c.plain(), `{"Key__c": event.firm}`, `{"Key__c": event.firm}, only: if_empty`, 1), "")
	r.send("firm", "f1", "name", "Acme")
	r.send("deal", "d1", "name", "d1", "title", "call", "firm", "f1")
	if got := r.shown(r.id("d1"), c.linked); got != r.ids(c.firms, c.firmKey)["f1"] {
		t.Fatalf("the link is not made: %s", got)
	}
	r.edit(r.id("d1"), c.linked, nil)
	r.clean(2)
}

// What is theirs by a rule is no difference; what the rule would send again is.
func TestRules(t *testing.T) {
	t.Parallel()
	c := crmNamed("hubspot")
	r := newRig(t, c, `
mappings:
  - name: deals
    on: shop.deal
    to: crm
    object: orders
    key: {partner_key: event.key}
    set: {title: event.name}
    set_on_create: {source: 'value("us")'}
    set_if_empty: {owner: event.owner}
    forward: {stage: {value: event.stage, order: [lead, trial, customer], final: [lost]}}
    add: {tags: event.tags}
  - name: first
    on: shop.deal
    to: crm
    object: orders
    mode: create_only
    key: {partner_key: event.key}
    set: {memo: event.title}
`, "")
	for i := range 8 {
		r.send("deal", fmt.Sprint("d", i), "name", "One", "owner", "ann", "stage", "trial", "tags", []string{"a", "b"}, "title", "hello")
	}
	r.clean(8)
	edits := []struct {
		property string
		value    any
		want     string
	}{
		{"source", "theirs", ""},
		{"owner", "bob", ""},
		{"owner", "", ""},
		{"stage", "customer", ""},
		{"stage", "lead", "edited d4 stage: trial, lead"},
		{"stage", "elsewhere", ""},
		{"tags", "a;b;c", ""},
		{"tags", "c;a", "edited d7 tags: [a b], c;a"},
	}
	var want []string
	for i, e := range edits {
		r.edit(r.id(fmt.Sprint("d", i)), e.property, e.value)
		if e.want != "" {
			want = append(want, e.want)
		}
	}
	r.edit(r.id("d0"), "memo", "theirs")
	r.edit(r.id("d1"), "stage", "")
	want = append(want, "edited d1 stage: trial, <nil>")
	found, report, err := r.audit()
	if diff := cmp.Diff(sorted(want), told(found)); diff != "" || err != nil {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	if report.Skipped["theirs"] == 0 {
		t.Errorf("%+v", report)
	}
	r.repair(found)
	if tags := r.shown(r.id("d7"), "tags"); !strings.Contains(tags, "b") || !strings.Contains(tags, "c") {
		t.Errorf("tags: %s", tags)
	}
	if a, b := r.shown(r.id("d1"), "stage"), r.shown(r.id("d4"), "stage"); a != "trial" || b != "trial" {
		t.Errorf("stages %s and %s", a, b)
	}
	r.clean(8)
}

// meddling is a ledger where something happens after the records of a page are read.
type meddling struct {
	*ledger.Ledger
	after func()
	moved func(n int)
	asked int
	again int
}

func (m *meddling) KnownRecords(ctx context.Context, sink, object, crmID string, id uuid.UUID, limit int) ([]ledger.KnownRecord, error) {
	list, err := m.Ledger.KnownRecords(ctx, sink, object, crmID, id, limit)
	if m.after != nil && len(list) > 0 {
		m.after()
		m.after = nil
	}
	return list, err
}

func (m *meddling) Moving(ctx context.Context, sink string, list []ledger.KnownRecord) (map[uuid.UUID]bool, error) {
	moving, err := m.Ledger.Moving(ctx, sink, list)
	m.asked++
	m.again += len(moving)
	if m.moved != nil {
		m.moved(m.asked)
	}
	return moving, err
}

// A record that is written while it is read is read again, and what was only on its way is not told.
func TestInFlight(t *testing.T) {
	t.Parallel()
	c := crmNamed("hubspot")
	r := newRig(t, c, c.plain(), "")
	r.send("deal", "d1", "name", "One", "title", "old")
	r.send("deal", "d2", "name", "Two", "title", "old")
	m := &meddling{Ledger: r.ledger, after: func() { r.send("deal", "d1", "name", "One", "title", "new") }}
	found, report, err := r.audit(func(o *audit.Options) { o.Ledger = m })
	if err != nil || len(found) > 0 || report.Records != 2 || m.asked != 2 {
		t.Errorf("%v %v %+v, asked %d times", told(found), err, report, m.asked)
	}

	// So is one that a request on its way may be changing, though nothing is stored of it yet.
	r.edit(r.id("d2"), "memo", "theirs")
	r.announce(records.Key{Object: "orders", Property: "partner_key", Key: "d2"})
	m = &meddling{Ledger: r.ledger, moved: func(n int) {
		if n == 1 {
			r.edit(r.id("d2"), "memo", "old") // the request has come through
		}
		if n == 2 {
			r.exec(`DELETE FROM announcements`)
		}
	}}
	found, _, err = r.audit(func(o *audit.Options) { o.Ledger = m })
	if err != nil || len(found) > 0 {
		t.Errorf("%v %v", told(found), err)
	}
}

// A repair leaves a record alone that is being written, and one that has been since it was seen.
func TestRepairKeepsOff(t *testing.T) {
	t.Parallel()
	c := crmNamed("hubspot")
	r := newRig(t, c, c.plain(), "")
	event := r.send("deal", "d1", "name", "One", "title", "ours")
	r.edit(r.id("d1"), "memo", "theirs")
	found, _, err := r.audit()
	if err != nil || len(found) != 1 {
		t.Fatal(told(found), err)
	}
	r.announce(records.KeyOf(found[0].Record))
	if done := r.repair(found); done.Moving != 1 || done.Fields != 0 || done.Replay != 0 {
		t.Errorf("announced: %+v", done)
	}
	r.exec(`DELETE FROM announcements`)
	r.exec(`UPDATE events SET status = 'erased' WHERE id = '` + event.String() + `'`)
	if done := r.repair(found); done.Lost != 1 || done.Fields != 0 || done.Replay != 0 {
		t.Errorf("erased: %+v", done)
	}
	r.exec(`UPDATE events SET status = 'stored'`)
	r.send("deal", "d1", "name", "One", "title", "newer")
	if done := r.repair(found); done.Moving != 1 || done.Fields != 0 {
		t.Errorf("newer: %+v", done)
	}
	if got := r.shown(r.id("d1"), "memo"); got != "newer" {
		t.Error(got)
	}
}

// A replay of what a repair has doubted reads the record anew, beside a create that must not be lost.
func TestRepairBesideAppend(t *testing.T) {
	t.Parallel()
	c := crmNamed("hubspot")
	r := newRig(t, c, c.plain()+`
  - name: notes
    on: shop.note
    to: crm
    object: notes
    mode: append
    key: {local: [event.key, string(event.at)]}
    set: {hs_note_body: event.name, hs_timestamp: event.at}
`, "")
	for i := range 20 {
		r.send("deal", fmt.Sprint("d", i), "name", "One", "title", "ours")
		r.edit(r.id(fmt.Sprint("d", i)), "memo", "theirs")
	}
	found, _, err := r.audit()
	if err != nil || len(found) != 20 {
		t.Fatal(told(found), err)
	}
	for i := range 20 {
		r.accept("note", fmt.Sprint("n", i), "name", "note")
		r.repairAt(found[i : i+1])
	}
	r.ended()
	if n := r.count(`deliveries WHERE outcome = 'dead'`); n != 0 {
		t.Errorf("%d are dead", n)
	}
	if n := len(r.box.Records("hubspot", "notes")); n != 20 {
		t.Errorf("%d notes", n)
	}
	r.clean(20)
}

// A record that is gone is made again only where its mapping says so.
func TestRepairOfGone(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"skip", "recreate"} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			c := crmNamed("hubspot")
			r := newRig(t, c, strings.Replace(c.plain(), "    set: {title:", "    if_deleted: "+says+"\n    set: {title:", 1), "")
			r.send("deal", "d1", "name", "One", "title", "ours")
			r.box.Archive("hubspot", "orders", r.id("d1"))
			found, _, err := r.audit()
			if err != nil || len(found) != 1 || found[0].Kind != audit.Gone {
				t.Fatal(told(found), err)
			}
			r.repair(found)
			if n := len(r.box.Records("hubspot", "orders")); n != map[string]int{"skip": 0, "recreate": 1}[says] {
				t.Errorf("%d records", n)
			}
			if found, _, err := r.audit(); err != nil || len(found) != 0 {
				t.Error(told(found), err)
			}
		})
	}
}

// An audit that is stopped goes on behind its last page, and tells each difference once.
func TestResume(t *testing.T) {
	t.Parallel()
	c := crmNamed("salesforce")
	r := newRig(t, c, c.plain(), "")
	var want []string
	for i := range 10 {
		k := fmt.Sprint("k", i)
		r.send("deal", k, "name", k, "title", "ours")
		r.send("firm", k, "name", "Acme")
		r.edit(r.id(k), "Title", "theirs")
		want = append(want, "edited "+k+" Title: ours, theirs")
	}
	var all []audit.Difference
	position, pages := audit.Position{}, 0
	for stop := true; stop; {
		before := len(all)
		ctx, cancel := context.WithCancel(t.Context())
		page := 0
		found, report, err := r.auditWithin(ctx, func(o *audit.Options) {
			o.Page, o.After = 3, position
			o.Tell = func(found []audit.Difference) error {
				if page++; page == 2 {
					cancel() // in the middle: what is told counts
				}
				pages++
				all = append(all, found...)
				return nil
			}
		})
		cancel()
		if stop = err != nil; stop && !audit.Interrupted(err) {
			t.Fatal(err)
		}
		if stop && report.Stopped == "" || len(found) > 0 {
			t.Errorf("%+v", report)
		}
		if p, err := audit.ParsePosition(report.After.String()); err != nil || p != report.After {
			t.Fatal(p, err)
		}
		if position == report.After && len(all) == before && stop {
			t.Fatal("it does not go on")
		}
		position = report.After
	}
	if diff := cmp.Diff(want, told(all)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if pages != 8 {
		t.Errorf("%d pages", pages)
	}
}

// What a CRM answers in an odd way makes no differences.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		crm   string
		fault sandbox.Fault
		stops string // a part of the reason; "": it does not
		found int
		read  int64
	}{
		{name: "may not read", crm: "hubspot", fault: sandbox.Fault{Path: "batch/read", Effect: sandbox.EffectStatus, Status: 403, Body: `{"category":"MISSING_SCOPES","message":"no"}`}, stops: "held: HTTP 403"},
		{name: "throttled for a moment", crm: "hubspot", fault: sandbox.Fault{Path: "batch/read", Effect: sandbox.EffectThrottle, RetryAfter: "1", Count: 2}, found: 1, read: 4},
		{name: "throttled for long", crm: "hubspot", fault: sandbox.Fault{Path: "batch/read", Effect: sandbox.EffectThrottle, RetryAfter: "3600"}, stops: "throttled"},
		{name: "down for a moment", crm: "hubspot", fault: sandbox.Fault{Path: "batch/read", Effect: sandbox.EffectStatus, Status: 503, Count: 2}, found: 1, read: 4},
		{name: "no such field", crm: "salesforce", fault: sandbox.Fault{Path: "sobjects/Contact", Effect: sandbox.EffectStatus, Status: 400, Count: 1,
			Body: `[{"errorCode":"INVALID_FIELD","message":"No such column 'Title' on sobject of type Contact","fields":["Title"]}]`}, read: 4},
		{name: "half an answer", crm: "hubspot", fault: sandbox.Fault{Path: "orders/batch/read", Effect: sandbox.EffectStatus, Status: 200, Count: 2, Body: `{"status":"COMPLETE","results":[]}`}, read: 0},
		{name: "half an answer for a moment", crm: "hubspot", fault: sandbox.Fault{Path: "orders/batch/read", Effect: sandbox.EffectStatus, Status: 200, Count: 1, Body: `{"status":"COMPLETE","results":[]}`}, found: 1, read: 4},
		{name: "no answer that anybody knows", crm: "hubspot", fault: sandbox.Fault{Path: "orders/batch/read", Effect: sandbox.EffectStatus, Status: 200, Count: 1, Body: `{"hello":1}`}, found: 1, read: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := crmNamed(tt.crm)
			r := newRig(t, c, c.plain(), "")
			for i := range 4 {
				r.send("deal", fmt.Sprint("d", i), "name", "One", "title", "ours")
			}
			r.edit(r.id("d1"), c.title, "theirs")
			r.box.Fault(tt.fault)
			found, report, err := r.audit()
			if (err != nil) != (tt.stops != "") || err != nil && (!audit.Interrupted(err) || !strings.Contains(err.Error(), tt.stops)) {
				t.Fatalf("%v, %+v", err, report)
			}
			if len(found) != tt.found || report.Records != tt.read {
				t.Errorf("%v, %+v", told(found), report)
			}
			if blind := len(report.Unread)+len(report.Hidden) > 0; blind != (err == nil && tt.found == 0) {
				t.Errorf("%+v", report)
			}
		})
	}
}

// Where the worker has found that the CRM is to be left alone, the audit asks nothing.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	c := crmNamed("hubspot")
	r := newRig(t, c, c.plain(), "")
	r.send("deal", "d1", "name", "One", "title", "ours")
	for _, state := range []string{"parked", "held"} {
		s := ledger.SinkState{State: state, Reason: "because", Until: time.Now().Add(time.Hour)}
		before := len(r.box.Requests())
		m := &stated{r.ledger, s}
		_, _, err := r.audit(func(o *audit.Options) { o.Ledger = m })
		if !audit.Interrupted(err) || !strings.Contains(err.Error(), "sink crm is "+state+": because") || len(r.box.Requests()) != before {
			t.Errorf("%v after %d requests", err, len(r.box.Requests())-before)
		}
	}
}

// stated is a ledger that says this of a sink.
type stated struct {
	*ledger.Ledger
	state ledger.SinkState
}

func (s *stated) SinkState(context.Context, string) (ledger.SinkState, error) { return s.state, nil }

// Whatever the worker does meanwhile, an audit tells nothing that nobody else has changed.
func TestBesideTheWorker(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hubspot", "pipedrive"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := crmNamed(name)
			r := newRig(t, c, c.plain(), "")
			for i := range 5 {
				r.send("deal", fmt.Sprint("d", i), "name", "One", "title", "first")
			}
			r.box.Fault(sandbox.Fault{Latency: 20 * time.Millisecond, Probability: 0.5, Seed: 1})
			r.box.Fault(sandbox.Fault{Latency: 5 * time.Millisecond})
			var feeding sync.WaitGroup
			fed := make(chan struct{})
			feeding.Go(func() {
				defer close(fed)
				for i := range 400 {
					r.accept("deal", fmt.Sprint("d", i%7), "name", fmt.Sprint("Name ", i), "title", fmt.Sprint("title ", i))
				}
			})
			defer feeding.Wait()
			again := 0
			for audits, over := 0, false; !over; audits++ {
				select {
				case <-fed:
					over = audits > 3
				default:
				}
				m := &meddling{Ledger: r.ledger}
				found, report, err := r.audit(func(o *audit.Options) { o.Ledger, o.Page = m, 4 })
				if err != nil || len(found) > 0 || len(report.Unread) > 0 {
					t.Fatalf("%v %v %+v", err, told(found), report)
				}
				again += m.again
			}
			feeding.Wait()
			r.ended()
			r.clean(7)
			t.Logf("%d records were read again", again)
		})
	}
}

// A record that keeps another key of ours is as it should be, unless ours is to take its place.
func TestKeptKeys(t *testing.T) {
	t.Parallel()
	for _, taken := range []string{"keep", "take"} {
		t.Run(taken, func(t *testing.T) {
			t.Parallel()
			c := crmNamed("hubspot")
			r := newRig(t, c, strings.Replace(c.plain(), "    set: {title: event.name", "    match: [{title: event.name}]\n    taken: "+taken+"\n    set: {title: event.name", 1), "")
			id := r.box.Put("hubspot", "orders", map[string]any{"title": "Acme", "partner_key": "older"})
			r.send("deal", "d1", "name", "Acme", "title", "call")
			if n := len(r.box.Records("hubspot", "orders")); n != 1 {
				t.Fatalf("%d orders", n)
			}
			r.clean(1)
			r.edit(id, "partner_key", "theirs")
			want := []string{}
			if taken == "take" {
				want = []string{"key d1 partner_key: d1, theirs"}
			}
			found, _, err := r.audit()
			if diff := cmp.Diff(want, told(found)); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			r.edit(id, "partner_key", nil)
			found, _, err = r.audit()
			if diff := cmp.Diff([]string{"key d1 partner_key: d1, <nil>"}, told(found)); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}
