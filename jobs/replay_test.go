package jobs

import (
	"testing"

	"partnersync/internal/ledger"
)

// A replay delivers nothing that the CRM has already, unless it is to rewrite:
// then what people have changed in the CRM meanwhile is set back.
func TestReplay(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	id := r.accept(deal("d1", 1, "name", "n"))[0]
	f := r.ended(id)[id]
	crmID := f.Deliveries[0].CRMID
	r.box.Edit("hubspot", "orders", crmID, map[string]any{"title": "by hand"})
	replay := func(rewrite bool) {
		t.Helper()
		spec := ledger.ReplaySpec{Filter: ledger.Filter{Source: "shop"}, Rewrite: rewrite, By: "test", Wants: r.config.Mappings.Sinks, Generation: r.plan.Generation}
		if _, routes, err := r.ledger.Replay(r.context(), spec); err != nil || routes != 1 {
			t.Fatalf("%d routes, %v", routes, err)
		}
		r.until("the replay has ended", func() bool { return r.count(`routes WHERE outcome IS NULL`) == 0 })
	}
	replay(false)
	if got, _ := r.box.Get("hubspot", "orders", crmID); got.Properties["title"] != "by hand" {
		t.Errorf("a replay has sent what the CRM had acknowledged: %v", got.Properties)
	}
	replay(true)
	if got, _ := r.box.Get("hubspot", "orders", crmID); got.Properties["title"] != "n" {
		t.Errorf("the rewrite has not been sent: %v", got.Properties)
	}
	if delivered, unchanged := r.count(`routes WHERE outcome = 'delivered'`), r.count(`routes WHERE outcome = 'unchanged' AND run = 1`); delivered != 2 || unchanged != 1 {
		t.Errorf("%d routes delivered, %d unchanged", delivered, unchanged)
	}
}
