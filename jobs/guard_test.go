package jobs

import (
	"fmt"
	"strings"
	"testing"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// A sink that would write more than its guard allows stops, with the reason, until a person resumes it; nothing is lost.
func TestGuard(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{sinks: "    guard: {creates_per_hour: 2, overwrites_per_hour: 1}\n"})
	orders := func() int { return len(r.box.Records("hubspot", "orders")) }
	r.deliver(deal("d1", 1, "name", "One"), deal("d2", 1, "name", "Two"))
	ids := r.accept(deal("d3", 1, "name", "Three"))
	r.until("the sink stops", func() bool { return r.stored("crm").State == stopped })
	if s := r.stored("crm"); !strings.Contains(s.Reason, "guard: 3 creates within an hour, guard.creates_per_hour is 2") || !strings.Contains(s.Reason, "partnersync sinks resume crm") {
		t.Errorf("%+v", s)
	}
	if f := r.fates(ids...)[ids[0]]; f.Outcome != ledger.Open || orders() != 2 {
		t.Errorf("%+v, %d orders", f, orders())
	}
	if err := r.ledger.Ask(r.context(), "crm", "resume"); err != nil {
		t.Fatal(err)
	}
	r.ended(ids...)
	if orders() != 3 {
		t.Errorf("%d orders", orders())
	}
	// What changes a record that is there is counted apart.
	r.deliver(deal("d1", 2, "name", "Uno"))
	more := r.accept(deal("d2", 2, "name", "Due"))
	r.until("it stops again", func() bool { return strings.Contains(r.stored("crm").Reason, "guard.overwrites_per_hour is 1") })
	if err := r.ledger.Ask(r.context(), "crm", "resume"); err != nil {
		t.Fatal(err)
	}
	r.ended(more...)
}

// A guard that trips in the middle of a batch sends what fits and no more; a new owner goes on with what was counted; nothing is lost
// or made twice.
func TestGuardInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	const all, most = 20, 6
	r := newRig(t, setup{sinks: fmt.Sprintf("    guard: {creates_per_hour: %d}\n", most), idle: true})
	orders := func() int { return len(r.box.Records("hubspot", "orders")) }
	stops := func() bool { return r.stored("crm").State == stopped }
	var events []event
	for i := range all {
		events = append(events, deal(fmt.Sprintf("d%02d", i), 1, "name", "One"))
	}
	first := r.accept(events[:most-2]...)
	r.start()
	r.ended(first...)
	r.stop()
	ids := append(first, r.accept(events[most-2:]...)...)
	r.start()
	r.until("it goes on with the former count", func() bool { return stops() && orders() >= most }) // it stops before those that fit are sent
	if n := orders(); n != most {
		t.Errorf("%d orders, want %d", n, most)
	}
	r.stop()
	r.start()
	for n := 2 * most; n < all+most; n += most {
		if err := r.ledger.Ask(r.context(), "crm", "resume"); err != nil {
			t.Fatal(err)
		}
		r.until("the next ones are made", func() bool { return orders() >= min(n, all) })
		if n < all {
			r.until("it stops again", stops)
		}
		if made := orders(); made != min(n, all) {
			t.Errorf("%d orders, want %d", made, min(n, all))
		}
	}
	for id, f := range r.ended(ids...) {
		if f.Outcome != ledger.Delivered || len(f.Deliveries) != 1 {
			t.Errorf("%s: %+v", id, f)
		}
	}
}

// What was surely not carried out, or has changed a record where it might have made one, is counted as what it was.
func TestGuardCounts(t *testing.T) {
	t.Parallel()
	row := func(do records.Do, mode mappers.Mode, id string) *records.Step {
		return &records.Step{Do: do, Mode: mode, Work: &records.Work{Record: &records.Record{CRMID: id}}}
	}
	made, changed, archived := row(records.Write, mappers.Upsert, ""), row(records.Write, mappers.Upsert, "7"), row(records.Archive, mappers.Archive, "8")
	ok := sinks.Result{Class: sinks.OK}
	for _, c := range []struct {
		name string
		step *records.Step
		give sinks.Result
		want counts
	}{
		{"made", made, sinks.Result{Class: sinks.OK, Created: true}, counts{creates: 1}},
		{"it was there", made, ok, counts{overwrites: 1}},
		{"only changed", row(records.Write, mappers.UpdateOnly, ""), ok, counts{overwrites: 1}},
		{"changed", changed, ok, counts{overwrites: 1}},
		{"archived", archived, ok, counts{archives: 1}},
		{"throttled", made, sinks.Result{Class: sinks.Throttled}, counts{}},
		{"refused", changed, sinks.Result{Class: sinks.Rejected}, counts{}},
		{"archive refused", archived, sinks.Result{Class: sinks.Rejected}, counts{}},
		{"perhaps made", made, sinks.Result{Class: sinks.Timeout, Sent: true}, counts{creates: 1}},
		{"only looked", row(records.Find, mappers.Upsert, ""), ok, counts{}},
		{"a link", row(records.Linking, mappers.Upsert, "7"), ok, counts{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var g guard
			most := 9
			steps := []*records.Step{c.step}
			counted := countsOf(steps)
			g.reserve(sinks.Guard{Creates: &most}, steps)
			g.correct(counted, []sinks.Result{c.give})
			if g.done != c.want {
				t.Errorf("%+v, want %+v", g.done, c.want)
			}
		})
	}
}

// A sink writes to the account that its config names, and to no other.
func TestPinnedAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{sinks: "    account: \"99\"\n"})
	id := r.accept(deal("d1", 1, "name", "One"))[0]
	r.until("the sink is held", func() bool { return r.stored("crm").State == held })
	if s := r.stored("crm"); !strings.Contains(s.Reason, "the config allows account 99 alone") {
		t.Errorf("%+v", s)
	}
	if f := r.fates(id)[id]; f.Outcome != ledger.Open || len(r.box.Records("hubspot", "orders")) > 0 {
		t.Errorf("%+v", f)
	}
	whose := sinks.New(r.config.Sinks["crm"], sinks.Options{})
	defer whose.Close()
	right := strings.Replace(r.text, `account: "99"`, `account: "`+whose.Account(r.context()).ID+`"`, 1)
	r.reload(right)
	if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	// Nor does it write where the CRM does not tell of which account the credentials are.
	for n, status := range []int{403, 500} { // 403: the credentials are good, and not for asking
		asked := func() (times int) {
			for _, q := range r.box.Requests() {
				if strings.Contains(q.Path, "/account-info/") && q.Status == status {
					times++
				}
			}
			return times
		}
		lift := r.box.Fault(sandbox.Fault{Path: "/account-info/", Effect: sandbox.EffectStatus, Status: status})
		r.reload(right)
		key := fmt.Sprintf("s%d", status)
		id := r.accept(deal(key, 1, "name", "One"))[0]
		r.until("it is asked", func() bool { return asked() > 0 && r.stored("crm").State != "" })
		r.until("the event waits", func() bool { f := r.fates(id)[id]; return f != nil && len(f.Deliveries) > 0 })
		if f := r.fates(id)[id]; f.Outcome != ledger.Open || len(r.records("orders", "order_key")) != 1+n {
			t.Errorf("%d: %+v", status, f)
		}
		lift()
		r.reload(right)
		if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
			t.Errorf("%d: %+v", status, f)
		}
	}
}
