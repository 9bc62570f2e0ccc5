package jobs

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/records"
)

// firms are found by their name before they are made, and deals are linked to them.
const firms = `
mappings:
  - name: firms
    on: [shop.company.created, shop.company.updated]
    to: crm
    object: firms
    key: {firm_key: event.key}
    match: [{name: event.name}]
    set: {name: event.name}
    set_on_create: {source: 'value("partnersync")'}
    set_if_empty: {owner: '"owner of " + event.name'}
`

func firmRig(t *testing.T, mappings string) *rig {
	return newRig(t, setup{
		mappings: mappings, sinks: "    find_lag: 300ms\n",
		box: sandbox.Options{Lag: 200 * time.Millisecond, Custom: map[string][]sandbox.Property{
			"hubspot/firms": {{Name: "firm_key", Unique: true}, {Name: "name"}, {Name: "owner"}, {Name: "source"}, {Name: "stage"}, {Name: "tags", Type: "enumeration", FieldType: "checkbox", Options: []string{"a", "b", "c"}}},
		}},
	})
}

// firms is what the CRM has of the firms.
func (r *rig) firms() map[string]map[string]any {
	out := map[string]map[string]any{}
	for _, rec := range r.box.Records("hubspot", "firms") {
		out[rec.ID] = rec.Properties
	}
	return out
}

func (r *rig) requests(op string) int {
	n := 0
	for _, q := range r.box.Requests() {
		if strings.HasSuffix(q.Path, op) {
			n++
		}
	}
	return n
}

// A firm that sales has entered is adopted, with what sales have put there; one that is new is
// made whole.
func TestAdoptedByMatch(t *testing.T) {
	t.Parallel()
	r := firmRig(t, firms)
	theirs := r.box.Put("hubspot", "firms", map[string]any{"name": "Acme", "owner": "Ann"})
	time.Sleep(250 * time.Millisecond) // the search shows it by then
	for i, fate := range r.deliver(shopEvent("company.created", "f1", 1, "name", "ACME"), shopEvent("company.created", "f2", 2, "name", "Beta")) {
		if fate.Outcome != ledger.Delivered {
			t.Errorf("%d: %+v", i, fate)
		}
	}
	all := r.firms()
	acme := all[theirs]
	if len(all) != 2 || acme["firm_key"] != "f1" || acme["owner"] != "Ann" || acme["source"] != nil && acme["source"] != "" {
		t.Errorf("%v", all)
	}
	delete(all, theirs)
	for _, beta := range all {
		if beta["owner"] != "owner of Beta" || beta["source"] != "partnersync" || beta["firm_key"] != "f2" {
			t.Errorf("%v", beta)
		}
	}
	searches, reads := r.requests("/search"), r.requests("/batch/read")
	r.deliver(shopEvent("company.updated", "f1", 3, "name", "Acme Inc"), shopEvent("company.updated", "f2", 4, "name", "Beta Inc"))
	if r.requests("/search") != searches || r.requests("/batch/read") != reads {
		t.Errorf("known records are looked up: %+v", r.box.Requests())
	}
}

// Two events under two keys about one new firm make one, in one batch or two.
func TestOneFirmOfTwoKeys(t *testing.T) {
	t.Parallel()
	for name, perJob := range map[string]int{"in one job": 2, "in two": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := firmRig(t, firms)
			ids := r.acceptPerJob(perJob, shopEvent("company.created", "f1", 1, "name", "Acme"), shopEvent("company.created", "f2", 2, "name", "acme "))
			for id, fate := range r.ended(ids...) {
				if fate.Outcome != ledger.Delivered && fate.Outcome != ledger.Stale {
					t.Errorf("%s: %+v", id, fate)
				}
			}
			if all := r.firms(); len(all) != 1 {
				t.Errorf("%v", all)
			}
			var records int
			if err := r.pool.QueryRow(r.context(), `SELECT count(*) FROM records`).Scan(&records); err != nil || records != 1 {
				t.Errorf("%d records, %v", records, err)
			}
		})
	}
}

// An event right behind the one that made the firm waits until a search shows it.
func TestMatchWithinTheLag(t *testing.T) {
	t.Parallel()
	r := firmRig(t, firms)
	fates := r.deliver(shopEvent("company.created", "f1", 1, "name", "Acme"), shopEvent("company.created", "f2", 2, "name", "Acme"))
	if all := r.firms(); len(all) != 1 || fates[1].Outcome != ledger.Delivered && fates[1].Outcome != ledger.Unchanged {
		t.Errorf("%v %+v", all, fates[1])
	}
}

// Several firms that fit end the event, with their ids; none is touched, none is made.
func TestSeveralFirms(t *testing.T) {
	t.Parallel()
	r := firmRig(t, firms)
	ids := []string{r.box.Put("hubspot", "firms", map[string]any{"name": "Acme"}), r.box.Put("hubspot", "firms", map[string]any{"name": "acme"})}
	time.Sleep(250 * time.Millisecond)
	before := r.firms()
	fate := r.deliver(shopEvent("company.created", "f1", 1, "name", "Acme"))[0]
	if fate.Outcome != ledger.Dead || !strings.Contains(fate.Reason, ids[0]) || !strings.Contains(fate.Reason, ids[1]) {
		t.Errorf("%+v", fate)
	}
	if after := r.firms(); !maps.EqualFunc(before, after, func(a, b map[string]any) bool { return maps.Equal(a, b) }) {
		t.Errorf("%v became %v", before, after)
	}
}

// A hundred new firms take one search and one request that makes them.
func TestSharedSearch(t *testing.T) {
	t.Parallel()
	r := firmRig(t, firms)
	r.stop()
	var events []event
	for i := range 100 {
		events = append(events, shopEvent("company.created", "f"+uuid.NewString(), int64(i), "name", uuid.NewString()))
	}
	ids := r.acceptPerJob(100, events...)
	r.start()
	r.ended(ids...)
	if n := r.requests("/search"); n > 2 || len(r.firms()) != 100 { // a search has at most 3,000 characters of names
		t.Errorf("%d searches, %d firms", n, len(r.firms()))
	}
}

// The other end of a link is looked for in the CRM, by our key and by match.
func TestLinkToWhatOnlyTheCRMKnows(t *testing.T) {
	t.Parallel()
	r := firmRig(t, strings.Replace(deals, "touch:", `links:
      - {to: firms, key: {firm_key: event.company}, match: [{name: event.note}], missing: skip}
    touch:`, 1))
	byKey := r.box.Put("hubspot", "firms", map[string]any{"name": "Acme", "firm_key": "f1"})
	byName := r.box.Put("hubspot", "firms", map[string]any{"name": "Beta"})
	time.Sleep(250 * time.Millisecond)
	fates := r.deliver(
		deal("d1", 1, "name", "one", "company", "f1"), deal("d2", 2, "name", "two", "company", "f2", "note", "Beta"),
		deal("d3", 3, "name", "three", "company", "f3", "note", "Gamma"),
	)
	for i, fate := range fates {
		if fate.Outcome != ledger.Delivered {
			t.Errorf("%d: %+v", i, fate)
		}
	}
	var ends []string
	for _, l := range r.box.Links("hubspot") {
		if l.ToObject == "firms" {
			ends = append(ends, l.ToID)
		}
	}
	slices.Sort(ends)
	want := []string{byKey, byName}
	slices.Sort(want)
	if !slices.Equal(slices.Compact(ends), want) {
		t.Errorf("links to %v, not %v", ends, want)
	}
	if all := r.firms(); len(all) != 2 {
		t.Errorf("%v", all)
	}
	var unknown int
	if err := r.pool.QueryRow(r.context(), `SELECT count(*) FROM records WHERE crm_id IS NULL OR crm_id = ''`).Scan(&unknown); err != nil || unknown != 0 {
		t.Errorf("%d records of which nothing is known are kept, %v", unknown, err)
	}
}

// What sales have put into a record stays, whoever moves it: a stage that is further along, tags of
// theirs, what they have filled.
func TestValueRules(t *testing.T) {
	t.Parallel()
	r := firmRig(t, `
mappings:
  - name: firms
    on: [shop.company.created, shop.company.updated]
    to: crm
    object: firms
    key: {firm_key: event.key}
    set_if_empty: {owner: value("us")}
    forward: {stage: {value: event.stage, order: [lead, customer], final: [lost]}}
    add: {tags: event.tags}
`)
	id := r.box.Put("hubspot", "firms", map[string]any{"firm_key": "f1", "stage": "lead", "tags": "a"})
	steps := []struct {
		edit    map[string]any // by sales, before
		fields  []any
		outcome ledger.Outcome
		want    map[string]any
	}{
		{nil, []any{"stage", "customer", "tags", []any{"b"}}, ledger.Delivered, map[string]any{"owner": "us", "stage": "customer", "tags": "a;b"}},
		{map[string]any{"owner": "Ann"}, []any{"stage", "lead", "tags", []any{"c"}}, ledger.Delivered, map[string]any{"owner": "Ann", "stage": "customer", "tags": "a;c"}},
		{map[string]any{"stage": "lost"}, []any{"stage", "customer", "tags", []any{"a", "c"}}, ledger.Unchanged, map[string]any{"stage": "lost", "tags": "a;c"}},
		{nil, []any{"tags", []any{"b"}}, ledger.Delivered, map[string]any{"tags": "a;b"}},
	}
	for i, s := range steps {
		if s.edit != nil {
			r.box.Edit("hubspot", "firms", id, s.edit)
		}
		fate := r.deliver(shopEvent("company.updated", "f1", int64(i), s.fields...))[0]
		if fate.Outcome != s.outcome {
			t.Errorf("%d: %s %q", i, fate.Outcome, fate.Reason)
		}
		got := r.firms()[id]
		for name, want := range s.want {
			if got[name] != want {
				t.Errorf("%d: %s is %v, not %v", i, name, got[name], want)
			}
		}
	}
}

func TestWaysInTheirOrderAmongTwins(t *testing.T) {
	t.Parallel()
	r := firmRig(t, `
mappings:
  - name: firms
    on: [shop.company.created, shop.company.updated]
    to: crm
    object: firms
    key: {firm_key: event.key}
    match: [{name: event.name}, {owner: 'value("same.example")'}]
    set: {source: event.key}
`)
	acme := r.box.Put("hubspot", "firms", map[string]any{"name": "Acme"})
	group := r.box.Put("hubspot", "firms", map[string]any{"name": "Group", "owner": "same.example"})
	time.Sleep(250 * time.Millisecond)
	ids := r.acceptPerJob(2, shopEvent("company.created", "f1", 1, "name", "Beta"), shopEvent("company.created", "f2", 2, "name", "Acme"))
	r.ended(ids...)
	all := r.firms()
	if len(all) != 2 || all[acme]["firm_key"] != "f2" || all[group]["firm_key"] != "f1" {
		t.Errorf("f2 is Acme by its name, f1 the group by its owner: %v", all)
	}
}

// What goes wrong in a CRM that lives is told in one line on the delivery; nothing is doubled, and the rest arrives.
func TestWhatGoesWrongInALivingCRM(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, fields string
		put          []map[string]any // by sales
		outcome      ledger.Outcome
		reason       string // a part of it
		want         map[string]any
	}{
		{
			name: "an owner who left", fields: `set_if_empty: {owner: value("Bob")}`, put: []map[string]any{{"name": "Acme"}},
			outcome: ledger.Dead, reason: "owner", want: map[string]any{"firm_key": "f1", "title": "x", "owner": nil},
		},
		{
			name: "an owner who left, of a new firm", fields: `set_on_create: {owner: value("Bob")}`,
			outcome: ledger.Dead, reason: "owner", want: map[string]any{"firm_key": "f1", "title": "x", "owner": nil},
		},
		{
			name: "a field that is gone", fields: `set_if_empty: {nofield: value("y")}`, put: []map[string]any{{"name": "Acme"}},
			outcome: ledger.Delivered, reason: "nofield", want: map[string]any{"firm_key": "f1", "title": "x"},
		},
		{
			name: "a tag that is no option any more", fields: `add: {tags: '["a", "z"]'}`, put: []map[string]any{{"name": "Acme", "tags": "b"}},
			outcome: ledger.Dead, reason: "tags", want: map[string]any{"firm_key": "f1", "title": "x", "tags": "b"},
		},
		{
			name: "a stage that sales have made", fields: `forward: {stage: {value: value("one"), order: [one, two]}}`, put: []map[string]any{{"name": "Acme", "stage": "theirs"}},
			outcome: ledger.Delivered, reason: "stage", want: map[string]any{"stage": "theirs", "title": "x"},
		},
		{
			name: "two that fit", fields: `set_if_empty: {owner: value("Ann")}`, put: []map[string]any{{"name": "Acme"}, {"name": "acme"}},
			outcome: ledger.Dead, reason: "fit by name", want: map[string]any{"firm_key": nil, "title": nil},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{
				sinks: "    find_lag: 300ms\n", mappings: `
mappings:
  - name: firms
    on: shop.company.created
    to: crm
    object: firms
    key: {firm_key: event.key}
    match: [{name: event.name}]
    set: {title: value("x")}
    set_on_create: {name: event.name}
    ` + strings.Replace(tt.fields, "set_on_create: {", "set_first: {", 1) + "\n",
				box: sandbox.Options{Custom: map[string][]sandbox.Property{"hubspot/firms": {
					{Name: "firm_key", Unique: true}, {Name: "name"}, {Name: "title"}, {Name: "stage"},
					{Name: "owner", Type: "enumeration", Options: []string{"Ann"}},
					{Name: "tags", Type: "enumeration", FieldType: "checkbox", Options: []string{"a", "b"}},
				}}},
			})
			for _, p := range tt.put {
				r.box.Put("hubspot", "firms", p)
			}
			fate := r.deliver(shopEvent("company.created", "f1", 1, "name", "Acme"))[0]
			reason := fate.Reason
			for _, d := range fate.Deliveries {
				reason += d.Reason
			}
			if fate.Outcome != tt.outcome || !strings.Contains(reason, tt.reason) || strings.Contains(reason, "\n") {
				t.Errorf("%s: %q", fate.Outcome, reason)
			}
			all := r.firms()
			if len(all) != max(len(tt.put), 1) {
				t.Errorf("%d firms", len(all))
			}
			for _, got := range all {
				for name, want := range tt.want {
					if got[name] != want && !(want == nil && got[name] == "") {
						t.Errorf("%s is %v, not %v", name, got[name], want)
					}
				}
			}
		})
	}
}

// A record that another key has found may still be written by a request of a process that is gone: who finds it too
// keeps off until that is over.
func TestFoundWhileItIsShut(t *testing.T) {
	t.Parallel()
	at := crmID{"firms", "7"}
	l := newLocks()
	b := &batch{claimedIDs: []crmID{at}}
	if keys := b.intentKeys(); !slices.Equal(keys, []records.Key{records.KeyOfID("firms", "7")}) {
		t.Errorf("the write intent names %v", keys)
	}
	l.block(map[records.Key]time.Duration{b.intended[0]: time.Minute})
	if mine, _ := l.claimID(&batch{}, at, false); mine {
		t.Error("it is claimed")
	}
	if mine, _ := l.claimID(&batch{}, crmID{"deals", "7"}, false); !mine {
		t.Error("another object has the same id")
	}
	w := &records.Work{Record: &records.Record{Object: "firms", CRMID: "7"}, Hold: time.Minute}
	if left, _ := (&batch{works: []*records.Work{w}}).inDoubt(); left[records.KeyOfID("firms", "7")] != time.Minute {
		t.Errorf("%v stay shut", left)
	}
}

// Where the first of three that fit each other comes to nothing, the others are made one after the other.
func TestFirstOfThreeComesToNothing(t *testing.T) {
	t.Parallel()
	r := firmRig(t, strings.Replace(firms, ", shop.company.updated", "", 1)+`
  - name: changed
    on: shop.company.updated
    to: crm
    object: firms
    mode: update_only
    key: {firm_key: event.key}
    match: [{name: event.name}]
    set: {stage: event.stage}
`)
	ids := r.acceptPerJob(3, shopEvent("company.updated", "f0", 1, "name", "Acme", "stage", "x"), shopEvent("company.created", "f1", 2, "name", "Acme"), shopEvent("company.created", "f2", 3, "name", "Acme"))
	r.ended(ids...)
	if all := r.firms(); len(all) != 1 {
		t.Errorf("%v", all)
	}
}

// A firm that a link would make is looked for as the link says: two deals of it find the one of sales.
func TestLinkMakesNoneThatFits(t *testing.T) {
	t.Parallel()
	r := firmRig(t, `
mappings:
  - name: deals
    on: shop.deal.created
    to: crm
    object: orders
    key: {order_key: event.key}
    set: {title: event.name}
    links: [{to: firms, key: {firm_key: event.company}, match: [{name: event.partner}], missing: create}]
`)
	theirs := r.box.Put("hubspot", "firms", map[string]any{"name": "Acme"})
	time.Sleep(250 * time.Millisecond) // the search shows it by then
	for i, fate := range r.deliver(shopEvent("deal.created", "d1", 1, "name", "a", "company", "f1", "partner", "Acme"), shopEvent("deal.created", "d2", 2, "name", "b", "company", "f2", "partner", "Acme")) {
		if fate.Outcome != ledger.Delivered {
			t.Errorf("%d: %+v", i, fate)
		}
	}
	if all := r.firms(); len(all) != 1 || all[theirs] == nil || len(r.box.Links("hubspot")) != 2 {
		t.Errorf("%v %v", all, r.box.Links("hubspot"))
	}
}
