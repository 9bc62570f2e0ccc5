package jobs

import (
	"strings"
	"testing"

	"partnersync/internal/ledger"
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
	if s := r.stored("crm"); !strings.Contains(s.Reason, "guard.creates_per_hour is 2, and the next rows would make it 3") || !strings.Contains(s.Reason, "partnersync sinks resume crm") {
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
	r.reload(strings.Replace(r.text, `account: "99"`, `account: "`+whose.Account(r.context()).ID+`"`, 1))
	if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
}
