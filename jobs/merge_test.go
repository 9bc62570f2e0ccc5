package jobs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/records"
	"partnersync/sinks"
)

// A record that another cycle works on is not merged into, though an item of ours had named it.
func TestMeetsWhatAnotherCycleWorksOn(t *testing.T) {
	t.Parallel()
	s := newSolo(t, peopleSetup(), "crm")
	s.do(person("p1", 1, "name", "Ann"))
	s.do(person("p2", 2, "name", "Ann")) // two keys of one record
	if n := s.count("records"); n != 1 {
		t.Fatalf("%d records", n)
	}
	one := s.accept(person("p1", 3, "name", "Anne"))[0]
	two := s.accept(person("p2", 4, "name", "Anna"))[0]
	three := s.accept(person("p3", 2, "description", "Doe"))[0]
	a := s.begin(one)
	b := s.sent(s.begin(two, three))
	for _, m := range b.merges {
		if !s.owner.locks.holds(b, m.Into) {
			t.Errorf("merged into a record that another cycle works on")
		}
	}
	s.finish(s.sent(a))
	s.finish(b)
}

// In one round: the answer that tells of a record in the way comes before that of the row which made it.
func TestConflictBeforeCreate(t *testing.T) {
	t.Parallel()
	s := newSolo(t, peopleSetup(), "crm")
	ids := s.accept(person("p1", 1, "name", "Ann"), person("p2", 2, "name", "Anna"))
	// HubSpot takes the rows in whatever order: p2 first.
	b := s.begin(ids...)
	steps := b.plan()
	if len(steps) != 2 {
		t.Fatal(len(steps))
	}
	if _, err := b.announce(s.context(), steps); err != nil {
		t.Fatal(err)
	}
	b.sent = true
	// As two requests side by side may end: the second makes the record, the first meets it.
	write := func(step *records.Step) sinks.Result {
		row := target{s.sink}.row(step)
		return s.sink.Write(s.context(), row.Operation, []sinks.Row{row})[0]
	}
	made := write(steps[1])
	met := write(steps[0])
	b.apply(s.context(), steps, []sinks.Result{met, made})
	s.finish(s.sent(b))
	for range 5 {
		s.run(ids...)
	}
	if n := s.count("records"); n != 1 {
		t.Errorf("%d records of one contact, met %+v made %+v", n, met, made)
	}
}

// Two cycles side by side learn of one record of the CRM.
func TestTwoCyclesMeet(t *testing.T) {
	t.Parallel()
	s := newSolo(t, peopleSetup(), "crm")
	one := s.accept(person("p1", 1, "name", "Ann"))[0]
	two := s.accept(person("p2", 2, "name", "Anna"))[0]
	a := s.sent(s.begin(one))
	b := s.sent(s.begin(two))
	s.finish(a)
	s.finish(b)
	for range 5 {
		s.run(one, two)
	}
	if n := s.count("records"); n != 1 {
		t.Errorf("%d records of one contact", n)
	}
	s.do(person("p2", 9, "name", "Last"))
	s.do(person("p1", 8, "name", "late"))
	if list := s.box.Records("hubspot", "contacts"); len(list) != 1 || list[0].Properties["firstname"] != "Last" {
		t.Errorf("%+v", list)
	}
}

const twofold = `
mappings:
  - name: people
    on: [shop.deal.created, shop.deal.updated]
    to: crm
    object: contacts
    key: {contact_key: event.key}
    if_deleted: recreate
    set: {firstname: event.name, lastname: event.description}
  - name: owners
    on: shop.company.updated
    to: crm
    object: contacts
    key: {owner_key: event.key}
    if_deleted: recreate
    set: {firstname: event.name}
  - name: endings
    on: shop.company.deleted
    to: crm
    object: contacts
    mode: archive
    key: {owner_key: event.key}
`

// newTwofold has one contact with the keys p1 and o1, under different properties.
func newTwofold(t *testing.T) *solo {
	t.Helper()
	setup := peopleSetup()
	setup.mappings = twofold
	s := newSolo(t, setup, "crm")
	s.do(deal("p1", 1, "name", "Acme"))
	if !s.box.Edit("hubspot", "contacts", s.box.Records("hubspot", "contacts")[0].ID, map[string]any{"owner_key": "o1"}) {
		t.Fatal("not edited")
	}
	s.do(shopEvent("company.updated", "o1", 2, "name", "Acme Inc"))
	if n := s.count("records"); n != 1 {
		t.Fatalf("%d records", n)
	}
	return s
}

// Two keys of one record that is made again, in one cycle.
func TestTwoKeysMadeAgain(t *testing.T) {
	t.Parallel()
	s := newTwofold(t)
	s.do(shopEvent("company.deleted", "o1", 10))
	if n := len(s.box.Records("hubspot", "contacts")); n != 0 {
		t.Fatalf("%d contacts", n)
	}
	s.wantOne(s.do(deal("p1", 11, "name", "New", "description", "Doe"), shopEvent("company.updated", "o1", 12, "name", "Newer")))
}

// The same, where it is found gone.
func TestTwoKeysFoundGone(t *testing.T) {
	t.Parallel()
	s := newTwofold(t)
	s.box.Archive("hubspot", "contacts", s.box.Records("hubspot", "contacts")[0].ID)
	s.wantOne(s.do(deal("p1", 11, "name", "New", "description", "Doe"), shopEvent("company.updated", "o1", 12, "name", "Newer")))
}

func (s *solo) wantOne(fates []*ledger.Fate) {
	s.t.Helper()
	list := s.box.Records("hubspot", "contacts")
	if len(list) != 1 || list[0].Properties["firstname"] != "Newer" {
		s.t.Errorf("%d contacts: %+v", len(list), list)
	}
	for _, f := range fates {
		if f.Outcome == ledger.Skipped || f.Outcome == ledger.Dead {
			s.t.Errorf("%s: %s", f.Outcome, f.Reason)
		}
	}
}

// An archival under one key, and an older event under the other, in one cycle.
func TestTwoKeysArchived(t *testing.T) {
	t.Parallel()
	s := newTwofold(t)
	s.box.Fault(sandbox.Fault{Path: "batch/update", Effect: sandbox.EffectNone, Latency: 300 * time.Millisecond})
	s.do(deal("p1", 19, "name", "Old"), shopEvent("company.deleted", "o1", 20))
	if list := s.box.Records("hubspot", "contacts"); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// Two rows of one round reach one record of the CRM, the older value last.
func TestMeetsInOneRound(t *testing.T) {
	t.Parallel()
	setup := peopleSetup()
	setup.mappings = twofold
	s := newSolo(t, setup, "crm")
	s.do(deal("p1", 1, "name", "new"))
	s.box.Edit("hubspot", "contacts", s.box.Records("hubspot", "contacts")[0].ID, map[string]any{"owner_key": "o1"})
	s.box.Fault(sandbox.Fault{Path: "batch/update", Effect: sandbox.EffectNone, Latency: 300 * time.Millisecond, Count: 1})
	s.do(shopEvent("company.updated", "o1", 5, "name", "new"), deal("p1", 3, "name", "old"))
	if list := s.box.Records("hubspot", "contacts"); len(list) != 1 || list[0].Properties["firstname"] != "new" {
		t.Errorf("%+v", list)
	}
}

// threefold has d1 and d2 as keys of one deal, and d3 as that of another.
func threefold(t *testing.T) (*solo, carrier, map[string]string) {
	t.Helper()
	c := carriers()[1]
	s := newSolo(t, c.setup(""), "far")
	for _, key := range []string{"d1", "d2", "d3"} {
		s.do(deal(key, 1, "name", key))
	}
	ids := map[string]string{}
	for _, rec := range s.box.Records(c.name, c.object) {
		ids[fmt.Sprint(rec.Properties[c.key])] = rec.ID
	}
	if !s.box.Merge(c.name, c.object, ids["d2"], ids["d1"]) || !s.box.Edit(c.name, c.object, ids["d1"], map[string]any{c.key: "d2"}) {
		t.Fatal("not merged")
	}
	s.do(deal("d2", 3, "name", "both"))
	if n := s.count("records"); n != 2 {
		t.Fatalf("%d records", n)
	}
	s.owner.cache = newCache()
	return s, c, ids
}

// meetThird has somebody merge the deal of d1 and d2 into that of d3, and an event of d1 find out.
func (s *solo) meetThird(c carrier, ids map[string]string) {
	s.t.Helper()
	if !s.box.Merge(c.name, c.object, ids["d1"], ids["d3"]) || !s.box.Edit(c.name, c.object, ids["d3"], map[string]any{c.key: "d1"}) {
		s.t.Fatal("not merged")
	}
	s.do(deal("d1", 6, "name", "all"))
	if n := s.count("records"); n != 1 {
		s.t.Fatalf("%d records", n)
	}
}

// The ledger cannot tell whom a row met: that its links were made stays known.
func TestLinksOfWhatMeets(t *testing.T) {
	t.Parallel()
	s := newSolo(t, peopleSetup(), "crm")
	id := s.accept(person("p1", 1, "name", "Ann"))[0]
	b := s.begin(id)
	step := b.plan()[0]
	l := &records.Link{To: "firms", Property: "firm_key", Key: "f"}
	step.Work.Record.Links["x"] = l
	step.Carried = []records.Tie{{Link: l}}
	if !b.resolve(s.context(), step, records.Answer{Kind: records.Taken, ID: "7"}, meeting{lost: true}) {
		t.Fatal("not put off")
	}
	if l.Have == records.Absent {
		t.Error("nobody knows that the CRM may have the link")
	}
}

// newMerged has one deal with the keys d1 and d2 of one property, since somebody has merged two in the CRM. It
// returns the CRM's id of the deal.
func newMerged(t *testing.T, c carrier) (*solo, string) {
	t.Helper()
	setup := c.setup("")
	setup.mappings = strings.Replace(setup.mappings, "    set: {title", "    if_deleted: recreate\n    set: {title", 1) + `
  - name: endings
    on: shop.company.deleted
    to: far
    object: deals
    mode: archive
    key: {"` + c.key + `": event.key}
`
	s := newSolo(t, setup, "far")
	s.do(deal("d1", 1, "name", "one", "note", "n"))
	s.do(deal("d2", 1, "name", "two"))
	ids := map[string]string{}
	for _, rec := range s.box.Records(c.name, c.object) {
		ids[fmt.Sprint(rec.Properties[c.key])] = rec.ID
	}
	if !s.box.Merge(c.name, c.object, ids["d2"], ids["d1"]) || !s.box.Edit(c.name, c.object, ids["d1"], map[string]any{c.key: "d2"}) {
		t.Fatal("not merged")
	}
	s.do(deal("d2", 3, "name", "both"))
	if n := s.count("records"); n != 1 {
		t.Fatalf("%d records", n)
	}
	return s, ids["d1"]
}

// Two keys, of one property, of a record that is made again in one cycle.
func TestTwoKeysOfOneProperty(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(s *solo, c carrier, id string)
	}{
		{"deleted there", func(s *solo, c carrier, id string) { s.box.Archive(c.name, c.object, id) }},
		{"archived by an event", func(s *solo, _ carrier, _ string) { s.do(shopEvent("company.deleted", "d2", 4)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := carriers()[1]
			s, id := newMerged(t, c)
			tt.end(s, c, id)
			if n := len(s.box.Records(c.name, c.object)); n != 0 {
				t.Fatalf("%d deals", n)
			}
			fates := s.do(deal("d1", 5, "name", "New", "note", "later"), deal("d2", 6, "name", "Newer"))
			if list := s.box.Records(c.name, c.object); len(list) != 1 || list[0].Properties[c.field] != "Newer" {
				t.Errorf("%d deals: %+v", len(list), list)
			}
			for _, f := range fates {
				if f.Outcome == ledger.Skipped || f.Outcome == ledger.Dead {
					t.Errorf("%s: %s", f.Outcome, f.Reason)
				}
			}
		})
	}
}

// What is looked up to be archived turns out to be known by another key: an older event under that does not make it again.
func TestFindArchivedMeets(t *testing.T) {
	t.Parallel()
	setup := peopleSetup()
	setup.mappings = twofold
	s := newSolo(t, setup, "crm")
	s.do(deal("p1", 1, "name", "Ann"))
	s.box.Edit("hubspot", "contacts", s.box.Records("hubspot", "contacts")[0].ID, map[string]any{"owner_key": "o1"})
	s.do(shopEvent("company.deleted", "o1", 5))
	if n := len(s.box.Records("hubspot", "contacts")); n != 0 {
		t.Fatalf("%d contacts", n)
	}
	s.do(deal("p1", 3, "name", "late"))
	if list := s.box.Records("hubspot", "contacts"); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	if n := s.count("records"); n != 1 {
		t.Errorf("%d records", n)
	}
}

// What an owner remembers of the CRM's ids has a bound.
func TestIDsInMemory(t *testing.T) {
	t.Parallel()
	s := newSolo(t, setup{}, "crm")
	for i := range 3 * cached {
		b := s.batch()
		s.owner.locks.claimID(b, crmID{"orders", fmt.Sprint(i)}, false)
		s.owner.locks.release(b)
	}
	if n := len(s.owner.locks.ids) + len(s.owner.locks.named); n > 2*cached {
		t.Errorf("%d ids", n)
	}
}

// What was merged in the CRM is being written under another key at that moment: the record is found again afterwards.
func TestFollowsWhatIsBusy(t *testing.T) {
	t.Parallel()
	c := carriers()[1]
	s := newSolo(t, c.setup(""), "far")
	s.do(deal("d1", 1, "name", "one", "note", "n"))
	s.do(deal("d2", 1, "name", "two"))
	ids := map[string]string{}
	for _, rec := range s.box.Records(c.name, c.object) {
		ids[fmt.Sprint(rec.Properties[c.key])] = rec.ID
	}
	if !s.box.Merge(c.name, c.object, ids["d2"], ids["d1"]) || !s.box.Edit(c.name, c.object, ids["d1"], map[string]any{c.key: "d2"}) {
		t.Fatal("not merged")
	}
	other := s.begin(s.accept(deal("d1", 2, "note", "m"))...)
	id := s.accept(deal("d2", 3, "name", "both"))[0]
	s.run(id)
	s.finish(s.sent(other))
	for range 5 {
		s.run(id)
	}
	if f := s.fates(id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if n := s.count("records"); n != 1 {
		t.Errorf("%d records", n)
	}
	list := s.box.Records(c.name, c.object)
	if len(list) != 1 || list[0].Properties[c.field] != "both" || list[0].Properties[c.title] != "m" {
		t.Errorf("%+v", list)
	}
}

// An e-mail that belongs to another known contact: neither contact loses its own.
func TestConflictOfTwoKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t, peopleSetup())
	r.deliver(person("p1", 1, "name", "Ann"), deal("p2", 1, "note", "bob@acme.test", "name", "Bob"))
	fates := r.deliver(deal("p1", 2, "note", "bob@acme.test", "name", "Anne"), deal("p1", 3, "name", "Anna"))
	if fates[0].Outcome != ledger.Dead || fates[1].Outcome != ledger.Delivered {
		t.Errorf("%+v\n%+v", fates[0], fates[1])
	}
	for _, rec := range r.box.Records("hubspot", "contacts") {
		if rec.Properties["contact_key"] == "p2" && rec.Properties["firstname"] != "Bob" {
			t.Errorf("%+v", rec.Properties)
		}
	}
}

// Postgres refuses a record that another was merged into: the key of the other is not left without a record.
func TestRefusedMerge(t *testing.T) {
	t.Parallel()
	s := newSolo(t, peopleSetup(), "crm")
	if _, err := s.pool.Exec(s.context(), `ALTER TABLE records ADD CONSTRAINT poison CHECK (fields::text NOT LIKE '%poison%')`); err != nil {
		t.Fatal(err)
	}
	s.do(deal("q", 1, "note", "q@acme.test", "name", "q"), person("p1", 1, "description", "poison"), person("p2", 2, "name", "n"))
	for i, f := range s.do(deal("q", 5, "name", "Q"), deal("p2", 5, "name", "N")) {
		if f.Outcome != ledger.Delivered {
			t.Errorf("event %d: %s: %s", i, f.Outcome, f.Reason)
		}
	}
	if n := s.count("record_keys k LEFT JOIN records r ON r.id = k.record_id WHERE r.id IS NULL"); n != 0 {
		t.Errorf("%d keys of no record", n)
	}
}
