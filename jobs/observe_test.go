package jobs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// living is a CRM that sales fill, for deals of the shop that are looked for by their title.
func living(write bool) setup {
	return setup{
		box: sandbox.Options{Custom: map[string][]sandbox.Property{"hubspot/orders": {
			{Name: "order_key", Unique: true}, {Name: "title"}, {Name: "amount", Type: "number"}, {Name: "description"}, {Name: "first_partner"},
		}}},
		sinks: fmt.Sprintf("    write: %v\n    find_lag: 0s\n", write),
		mappings: `
mappings:
  - name: deals
    on: [shop.deal.created, shop.deal.updated]
    to: crm
    object: orders
    key: {order_key: event.key}
    match: [{title: event.name}]
    set: {title: event.name, amount: event.amount}
    set_if_empty: {description: event.description}
    set_first: {first_partner: event.partner}
    links:
      - {to: firms, key: {firm_key: event.company}}
  - name: firms
    on: [shop.company.created, shop.company.updated]
    to: crm
    object: firms
    key: {firm_key: event.key}
    set: {name: event.name}
  - name: ended
    on: shop.company.deleted
    to: crm
    object: firms
    mode: archive
    key: {firm_key: event.key}
`,
	}
}

// foreseen are what the observations of a sink come to, one line for each record.
func (r *rig) foreseen(sinks ...string) map[string]string {
	r.t.Helper()
	sink := "crm"
	if len(sinks) > 0 {
		sink = sinks[0]
	}
	out := map[string]string{}
	does := map[string]string{}
	if err := r.ledger.Observed(r.context(), sink, func(o ledger.Observation) error {
		at := o.Object + " " + o.Key
		if o.Does != "" && (does[at] == "" || o.Does == "archive") {
			does[at] = o.Does
		}
		if o.Outcome == ledger.Dead {
			does[at] = "dead: " + o.Reason
		}
		line := does[at]
		for _, f := range o.Fields {
			if f.Old != nil {
				line += fmt.Sprintf(" %s %v -> %v", f.Name, f.Old, f.New)
			}
		}
		out[at] = strings.TrimSpace(line)
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// A sink that observes writes nothing, and tells what it would do; one that writes then does just that.
func TestObserve(t *testing.T) {
	t.Parallel()
	r := newRig(t, living(false))
	fill := func(values map[string]any) string { return r.box.Put("hubspot", "orders", values) }
	fill(map[string]any{"title": "Theirs", "amount": "5", "description": "ours is better"})
	fill(map[string]any{"title": "Twice"})
	fill(map[string]any{"title": "Twice"})
	keyed := fill(map[string]any{"order_key": "d4", "title": "Old"})
	before := r.box.Records("hubspot", "orders")

	ids := r.accept(
		firm("c1", 1),
		deal("d1", 1, "name", "New", "amount", 10, "company", "c1"),
		deal("d1", 2, "name", "New", "amount", 12), // an update of what would have been made
		deal("d2", 1, "name", "Theirs", "amount", 7, "description", "x"),
		deal("d3", 1, "name", "Twice"),
		deal("d4", 1, "name", "Better"),
		deal("d5", 1, "name", "New"), // the one that would have been made under d1
		firm("c9", 1), shopEvent("company.deleted", "c9", 5),
	)
	fates := r.ended(ids...)
	for i, id := range ids {
		if f := fates[id]; f.Outcome != ledger.Observed || f.Deliveries[0].Outcome != ledger.Observed {
			t.Errorf("%d: %+v", i, f)
		}
	}
	for _, q := range r.box.Requests() {
		if q.Method != "GET" && !strings.HasSuffix(q.Path, "/search") && !strings.HasSuffix(q.Path, "/batch/read") {
			t.Errorf("%s %s", q.Method, q.Path)
		}
	}
	if diff := cmp.Diff(before, r.box.Records("hubspot", "orders")); diff != "" || len(r.box.Records("hubspot", "firms")) > 0 {
		t.Errorf("something was written: %s", diff)
	}
	told := r.foreseen()
	for key, want := range map[string]string{
		"firms c1": "create", "firms c9": "archive", "orders d2": "adopt amount 5 -> 7", "orders d4": "adopt title Old -> Better",
	} {
		if told[key] != want {
			t.Errorf("%s: %q, want %q", key, told[key], want)
		}
	}
	if !strings.HasPrefix(told["orders d3"], "dead: several orders fit by title: ") {
		t.Errorf("d3: %q", told["orders d3"])
	}
	if (told["orders d1"] == "create") == (told["orders d5"] == "create") {
		t.Errorf("d1: %q, d5: %q: one of them would have made the order of both", told["orders d1"], told["orders d5"])
	}

	// It goes live: what waits from before is done as was told.
	r.reload(strings.Replace(r.text, "write: false", "write: true", 1))
	_, n, err := r.ledger.Replay(r.context(), ledger.ReplaySpec{Filter: ledger.Filter{Sink: "crm", Outcome: "observed"}, By: "test", Generation: r.plan.Generation, Wants: func(source, typ string) []string { return r.config.Mappings.Sinks(source, typ) }})
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	r.ended(ids...)
	after := r.box.Records("hubspot", "orders")
	if made := len(after) - len(before); made != 1 {
		t.Errorf("%d orders were made", made)
	}
	byKey := map[string]map[string]any{}
	for _, rec := range after {
		if key, is := rec.Properties["order_key"].(string); is {
			byKey[key] = rec.Properties
		}
		if rec.ID == keyed && rec.Properties["title"] != "Better" {
			t.Errorf("d4: %v", rec.Properties)
		}
	}
	if d2 := byKey["d2"]; d2["amount"] != "7" || d2["description"] != "ours is better" {
		t.Errorf("d2: %v", d2)
	}
	if slices.ContainsFunc(after, func(rec sandbox.Record) bool {
		return rec.Properties["title"] == "Twice" && rec.Properties["order_key"] != nil
	}) {
		t.Error("one of two was chosen")
	}
	var left int
	if err := r.pool.QueryRow(r.context(), `SELECT count(*) FROM records WHERE sink = 'crm?'`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d records of what would be are left: %v", left, err)
	}
}

// What waits when a sink begins to write is worked for real; what is being observed just then ends so, and is replayed as
// everything else.
func TestGoesLive(t *testing.T) {
	t.Parallel()
	r := newRig(t, living(false))
	orders := func() int { return len(r.box.Records("hubspot", "orders")) }
	live := strings.Replace(r.text, "write: false", "write: true", 1)
	searches := func() int {
		n := 0
		for _, q := range r.box.Requests() {
			if strings.HasSuffix(q.Path, "/search") {
				n++
			}
		}
		return n
	}

	r.box.Fault(sandbox.Fault{Path: "/orders/search", Latency: 2 * time.Second, Count: 1})
	slow := r.accept(deal("d1", 1, "name", "One"))
	r.until("it is being looked for", func() bool { return searches() > 0 || r.count("announcements") > 0 })
	if err := r.ledger.Ask(r.context(), "crm", "stop"); err != nil {
		t.Fatal(err)
	}
	r.until("the sink is stopped", func() bool { return r.stored("crm").State == stopped })
	waits := r.accept(deal("d2", 1, "name", "Two"))
	r.reload(live)
	if f := r.ended(slow...)[slow[0]]; f.Outcome != ledger.Observed || orders() > 0 {
		t.Errorf("the batch does not end under its own plan: %+v, %d orders", f, orders())
	}
	if err := r.ledger.Ask(r.context(), "crm", "resume"); err != nil {
		t.Fatal(err)
	}
	if f := r.ended(waits...)[waits[0]]; f.Outcome != ledger.Delivered || orders() != 1 {
		t.Errorf("what waited: %+v, %d orders", f, orders())
	}
	if told := r.foreseen(); len(told) != 1 || told["orders d1"] != "create" {
		t.Errorf("%v", told)
	}
	_, n, err := r.ledger.Replay(r.context(), ledger.ReplaySpec{Filter: ledger.Filter{Sink: "crm", Outcome: "observed"}, By: "test", Generation: r.plan.Generation, Wants: r.config.Mappings.Sinks})
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if f := r.ended(slow...)[slow[0]]; f.Outcome != ledger.Delivered || orders() != 2 {
		t.Errorf("after the replay: %+v, %d orders", f, orders())
	}
	if n := r.count("records WHERE sink = 'crm?'"); n > 0 {
		t.Errorf("%d records of what would be are left", n)
	}
}

// Each mode is told as what it would do; a sink that can neither find nor read says that it cannot tell.
func TestObserveModes(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{
		sinks: "    write: false\n    find_lag: 0s\n  hook: {preset: webhook, url: URL/webhook, write: false}\n",
		mappings: `
mappings:
  - {name: notes, on: shop.deal.updated, to: crm, object: notes, mode: append, key: {local: event.key}, set: {hs_note_body: event.note, hs_timestamp: hook.occurred_at}}
  - {name: only, on: shop.deal.updated, to: crm, object: orders, mode: update_only, key: {order_key: event.key}, set: {title: event.name}}
  - {name: firms, on: shop.company.updated, to: crm, object: firms, mode: create_only, key: {firm_key: event.key}, set: {name: event.name}}
  - {name: hooks, on: shop.deal.updated, to: hook, object: deals, key: {id: event.key}, set: {title: event.name}}
  - {name: ended, on: shop.company.deleted, to: crm, object: firms, mode: archive, key: {firm_key: event.key}}
`,
	})
	r.box.Put("hubspot", "orders", map[string]any{"order_key": "d1", "title": "Theirs"})
	r.box.Put("hubspot", "firms", map[string]any{"firm_key": "f1", "name": "Theirs"})
	r.box.Put("hubspot", "firms", map[string]any{"firm_key": "f3"})
	for i, f := range r.deliver(
		deal("d1", 1, "name", "One", "note", "x"), deal("d2", 1, "name", "Two", "note", "y"),
		shopEvent("company.updated", "f1", 1, "name", "Ours"), shopEvent("company.updated", "f2", 1, "name", "New"), shopEvent("company.deleted", "f3", 1), shopEvent("company.deleted", "f4", 1),
	) {
		if f.Outcome != ledger.Observed {
			t.Errorf("%d: %+v", i, f)
		}
	}
	want := map[string]string{
		"notes d1": "create", "notes d2": "create", "orders d1": "adopt title Theirs -> One", "orders d2": "",
		"firms f1": "", "firms f2": "create", "firms f3": "archive", "firms f4": "",
	}
	if diff := cmp.Diff(want, r.foreseen()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.until("the hook has observed too", func() bool { return len(r.foreseen("hook")) == 2 })
	if diff := cmp.Diff(map[string]string{"deals d1": "write", "deals d2": "write"}, r.foreseen("hook")); diff != "" {
		t.Errorf("of the hook (-want +got):\n%s", diff)
	}
	for _, q := range r.box.Requests() {
		if strings.Contains(q.Path, "webhook") || q.Method != "GET" && !strings.HasSuffix(q.Path, "/search") && !strings.HasSuffix(q.Path, "/batch/read") {
			t.Errorf("%s %s", q.Method, q.Path)
		}
	}
}

// What would be written is found out in requests that are shared as those of a real run.
func TestObserveShares(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{sinks: "    write: false\n    find_lag: 0s\n"})
	r.stop()
	const many = 100
	var events []event
	for i := range many {
		key := fmt.Sprintf("d%d", i)
		if i%2 == 0 {
			r.box.Put("hubspot", "orders", map[string]any{"order_key": key, "title": "Theirs"})
		}
		events = append(events, deal(key, 1, "name", "Ours"))
	}
	before := len(r.box.Requests())
	ids := r.acceptPerJob(many, events...)
	r.start()
	r.ended(ids...)
	var asked []string
	for _, q := range r.box.Requests()[before:] {
		if !strings.Contains(q.Path, "/account-info/") {
			asked = append(asked, q.Method+" "+q.Path)
		}
	}
	if len(asked) != 1 {
		t.Errorf("%d requests for %d orders: %v", len(asked), many, asked)
	}
	adopted := 0
	for _, what := range r.foreseen() {
		if what == "adopt title Theirs -> Ours" {
			adopted++
		}
	}
	if adopted != many/2 {
		t.Errorf("%d are adopted", adopted)
	}
}
