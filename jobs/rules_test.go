package jobs

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/records"
)

// A short throttle, and then the record turns out to be gone: it is to be made again.
func TestThrottledThenGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: recreated()})
	r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
	r.box.Archive("hubspot", "companies", r.box.Records("hubspot", "companies")[0].ID)
	r.box.Fault(sandbox.Fault{Method: http.MethodPost, Path: "/companies/batch", Effect: sandbox.EffectThrottle, RetryAfter: "1", Count: 2}) // the client repeats it once
	f := r.deliver(shopEvent("company.updated", "c1", 2, "name", "Acme Inc"))[0]
	if f.Outcome != ledger.Delivered || len(r.box.Records("hubspot", "companies")) != 1 {
		t.Errorf("%+v, %d companies", f, len(r.box.Records("hubspot", "companies")))
	}
}

// The search for the survivor of a merge fails for a moment: that does not make the record gone for ever.
func TestFollowFails(t *testing.T) {
	t.Parallel()
	c := carriers()[1]
	r := newRig(t, c.setup(""))
	r.deliver(deal("d1", 1, "name", "one", "note", "n"), deal("d2", 1, "name", "two"))
	ids := map[string]string{}
	for _, rec := range r.box.Records(c.name, c.object) {
		ids[fmt.Sprint(rec.Properties[c.key])] = rec.ID
	}
	if !r.box.Merge(c.name, c.object, ids["d2"], ids["d1"]) || !r.box.Edit(c.name, c.object, ids["d1"], map[string]any{c.key: "d2"}) {
		t.Fatal("not merged")
	}
	r.box.Fault(sandbox.Fault{Method: http.MethodGet, Path: "itemSearch", Effect: sandbox.EffectStatus, Status: 503, Count: 2})
	f := r.deliver(deal("d2", 3, "name", "both"))[0]
	if f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
}

// A row that serves a create_only and an upsert meets a contact that sales has made.
func TestCreateOnlyBesideUpsert(t *testing.T) {
	t.Parallel()
	s := peopleSetup()
	s.mappings = `
mappings:
  - name: first
    on: shop.deal.updated
    to: crm
    object: contacts
    mode: create_only
    key: {contact_key: event.key}
    set: {jobtitle: event.partner}
  - name: people
    on: shop.deal.updated
    to: crm
    object: contacts
    key: {contact_key: event.key}
    set: {email: event.note, firstname: event.name}
`
	r := newRig(t, s)
	r.box.Put("hubspot", "contacts", map[string]any{"email": "ann@acme.test"})
	f := r.deliver(person("p1", 1, "name", "Ann", "partner", "boss"))[0]
	list := r.box.Records("hubspot", "contacts")
	if f.Outcome != ledger.Delivered || len(list) != 1 || list[0].Properties["firstname"] != "Ann" {
		t.Errorf("%+v\n%+v", f, list)
	}
}

// The search for what is to be archived is throttled: the job waits.
func TestFindArchivedThrottled(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{mappings: archiving}, "crm")
	s.box.Fault(sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectThrottle, RetryAfter: "1"})
	id := s.accept(shopEvent("company.deleted", "c1", 1))[0]
	err := s.run(id)[0]
	var snooze *river.JobSnoozeError
	if !errors.As(err, &snooze) || snooze.Duration == 0 {
		t.Errorf("%v", err)
	}
}

// A late event makes a record again whose fields newer events have decided.
func TestMadeAgainByLateEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: `
mappings:
  - name: making
    on: [shop.company.created]
    to: crm
    object: companies
    key: {company_key: event.key}
    if_deleted: recreate
    set: {name: event.name}
  - name: naming
    on: [shop.company.updated]
    to: crm
    object: companies
    key: {company_key: event.key}
    set: {name: event.name}
`})
	r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
	r.box.Archive("hubspot", "companies", r.box.Records("hubspot", "companies")[0].ID)
	r.deliver(shopEvent("company.updated", "c1", 9, "name", "Newest"))
	f := r.deliver(shopEvent("company.created", "c1", 5, "name", "Acme 5"))[0]
	if list := r.box.Records("hubspot", "companies"); len(list) != 1 || list[0].Properties["name"] != "Newest" {
		t.Errorf("%+v\n%+v", f, list)
	}
}

// A row, and after it the archival of its record, in one cycle whose process dies.
func TestArchivedInTheSameCycle(t *testing.T) {
	t.Parallel()
	c := newCourt(t, kind{"hubspot", true})
	err := c.play([]event{
		deal("a", 1, "name", "x", "description", "1"),
		deal("a", 2, "description", "2"),
		shopEvent("company.deleted", "a", 3),
		deal("a", 4, "name", "x"),
	}, []act{
		{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}},
		{Do: accept, Events: []int{1, 2}}, {Do: dieSent, Events: []int{0, 1}},
		{Do: timePasses},
		{Do: accept, Events: []int{3}}, {Do: workOff, Events: []int{0}},
	})
	if err != nil {
		t.Error(err)
	}
}

// A target that gets whole records refuses what the newer of two events wants.
func TestWholeIsSplit(t *testing.T) {
	t.Parallel()
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "bad") {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(hook.Close)
	s := newSolo(t, setup{
		sinks:    "  hook: {preset: webhook, url: \"" + hook.URL + "/x\", limits: [], settle: 300ms}\n",
		mappings: strings.Replace(deals, "to: crm", "to: hook", 1),
	}, "hook")
	fates := s.do(deal("d1", 1, "name", "good"), deal("d1", 2, "description", "bad"))
	if fates[0].Outcome != ledger.Delivered || fates[1].Outcome != ledger.Dead {
		t.Errorf("%+v\n%+v", fates[0], fates[1])
	}
}

// The CRM has never told the id of the record, so that nothing can be linked to it: the job does not spin.
func TestLinkWithoutAnID(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{mappings: strings.NewReplacer(", missing: create, AS", "", "GONE", "skip").Replace(lawful)}, "crm")
	s.do(deal("d1", 1, "name", "n"))
	if _, err := s.pool.Exec(s.context(), `UPDATE records SET crm_id = ''`); err != nil {
		t.Fatal(err)
	}
	s.owner.cache = newCache()
	err := s.run(s.accept(deal("d1", 2, "name", "n", "company", "c1"))[0])[0]
	var snooze *river.JobSnoozeError
	if errors.As(err, &snooze) && snooze.Duration == 0 {
		t.Errorf("%v", err)
	}
}

// Postgres refuses the record of one event: what comes for it later is stored whole.
func TestRefusedByPostgres(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{}, "crm")
	if _, err := s.pool.Exec(s.context(), `ALTER TABLE records ADD CONSTRAINT poison CHECK (fields::text NOT LIKE '%poison%')`); err != nil {
		t.Fatal(err)
	}
	fates := s.do(deal("d1", 1, "name", "poison"), deal("d2", 1, "name", "n"))
	if fates[0].Outcome != ledger.Dead || fates[1].Outcome != ledger.Delivered {
		t.Fatalf("%+v %+v", fates[0], fates[1])
	}
	if f := s.do(deal("d1", 2, "name", "good"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if n := s.count("records"); n != 2 {
		t.Errorf("%d records", n)
	}
	if n := s.count("record_keys"); n != 2 {
		t.Errorf("%d keys", n)
	}
}

// Two new records that link to each other are announced with their links in doubt.
func TestDoubtfulEnds(t *testing.T) {
	t.Parallel()
	s := newSolo(t, peopleSetup(), "crm")
	b := s.begin(s.accept(person("p1", 1, "name", "Ann"), person("p2", 2, "name", "Bob"))...)
	steps := b.plan()
	for i, step := range steps {
		other := steps[1-i].Work.Deliveries[0].Key
		l := &records.Link{To: other.Object, Property: other.Property, Key: other.Key}
		step.Work.Record.Links["x"] = l
		step.Carried = []records.Tie{{Link: l}}
	}
	if _, err := b.announce(s.context(), steps); err != nil {
		t.Fatal(err)
	}
	if n := s.count(`records WHERE links->'x'->'c' IS NOT NULL`); n != 2 {
		t.Errorf("of %d records somebody would know that the CRM may have their link", n)
	}
}

// A row, after it the archival of its record, and then the process dies: what is newer makes the record again.
func TestArchivedAfterARow(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{mappings: `
mappings:
  - name: deals
    on: shop.deal.updated
    to: crm
    object: orders
    key: {order_key: event.key}
    if_deleted: recreate
    set: {title: event.name}
  - name: others
    on: shop.company.updated
    to: crm
    object: orders
    key: {order_key: event.key}
    set: {description: event.name}
  - name: endings
    on: shop.company.deleted
    to: crm
    object: orders
    mode: archive
    key: {order_key: event.key}
`}, "crm")
	s.do(deal("d1", 1, "name", "x"))
	ids := s.accept(shopEvent("company.updated", "d1", 2, "name", "y"), shopEvent("company.deleted", "d1", 3))
	b := s.sent(s.begin(ids...))
	b.forget() // as a process that begins anew
	s.owner.locks.release(b)
	if n := len(s.box.Records("hubspot", "orders")); n != 0 {
		t.Fatalf("%d orders", n)
	}
	newer := s.accept(deal("d1", 4, "name", "x"))
	s.run(newer...)
	s.run(ids...)
	if got := s.records("orders", "order_key")["d1"]; got == nil {
		t.Errorf("the record is wanted and not there: %+v %+v", s.fates(newer...)[newer[0]], s.fates(ids...)[ids[1]])
	}
}

// The sink is stopped before anything is sent: an old archival that waits for a row of its record waits on.
func TestStoppedBeforeAnArchival(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{mappings: archiving}, "crm")
	s.do(shopEvent("company.created", "c1", 1, "name", "Acme"))
	s.owner.probed.Store(nil)
	s.owner.giveUp = time.Nanosecond // as if the events had been received long ago
	s.box.SetToken("another")
	ids := s.accept(shopEvent("company.updated", "c1", 2, "name", "Acme Inc"), shopEvent("company.deleted", "c1", 3))
	errs := s.run(ids...)
	for i, id := range ids {
		if f := s.fates(id)[id]; f.Outcome != ledger.Open {
			t.Errorf("event %d: %s: %s", i, f.Outcome, f.Reason)
		}
		var snooze *river.JobSnoozeError
		if errors.As(errs[i], &snooze) && snooze.Duration == 0 {
			t.Errorf("event %d: %v", i, errs[i])
		}
	}
}

// A record of two keys is merged into a third while memory knows it by the other of its keys only.
func TestMergedTwice(t *testing.T) {
	t.Parallel()
	s, c, ids := threefold(t)
	s.do(deal("d2", 4, "name", "both again")) // in memory by d2
	s.meetThird(c, ids)
	if f := s.do(deal("d2", 5, "name", "late"))[0]; f.Outcome != ledger.Stale {
		t.Errorf("%+v", f)
	}
	if n := s.count("records"); n != 1 {
		t.Errorf("%d records", n)
	}
}

// A record was merged into another between reading and claiming it.
func TestClaimAfterMerge(t *testing.T) {
	t.Parallel()
	s, c, ids := threefold(t)
	b := s.batch(s.accept(deal("d2", 7, "name", "last"))[0])
	if err := b.load(s.context()); err != nil {
		t.Fatal(err)
	}
	b.mapEvents()
	var err error
	if b.records, err = b.read(s.context(), b.claimedKeys); err != nil {
		t.Fatal(err)
	}
	s.meetThird(c, ids)
	if err := b.claimRecords(s.context()); err != nil {
		t.Fatal(err)
	}
	for k, rec := range b.records {
		if !s.owner.locks.holds(b, rec.ID) {
			t.Errorf("%v: worked on without being claimed", k)
		}
	}
}

// Postgres refuses what an event wants of a record that it has: what comes later is not refused with it.
func TestRefusedChange(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{}, "crm")
	if _, err := s.pool.Exec(s.context(), `ALTER TABLE records ADD CONSTRAINT poison CHECK (fields::text NOT LIKE '%poison%')`); err != nil {
		t.Fatal(err)
	}
	s.do(deal("d1", 1, "name", "n"))
	if f := s.do(deal("d1", 2, "description", "poison"))[0]; f.Outcome != ledger.Dead {
		t.Fatalf("%+v", f)
	}
	if f := s.do(deal("d1", 3, "name", "good"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%s: %s", f.Outcome, f.Reason)
	}
}
