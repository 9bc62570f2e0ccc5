package jobs

import (
	"testing"

	"partnersync/internal/ledger"
)

// An event that needs a table of the CRM waits until that has been read; the others do not wait for it.
func TestTableThatIsNotRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: `
tables:
  tiers: {from: crm, list: options, object: orders, field: tier, else: skip}
mappings:
  - name: deals
    on: [shop.deal.created, shop.deal.updated]
    to: crm
    object: orders
    key: {order_key: event.key}
    set: {title: event.name, tier: 'lookup(event.stage, "tiers")'}
  - name: firms
    on: shop.company.created
    to: crm
    object: firms
    key: {firm_key: event.key}
    set: {name: event.name}
`})
	id := r.accept(deal("d1", 1, "name", "One", "stage", "Gold"))[0]
	r.deliver(firm("c1", 1))
	r.until("it was looked at", func() bool {
		var waits bool
		if err := r.pool.QueryRow(r.context(), `SELECT EXISTS (SELECT FROM river_job WHERE attempted_at IS NOT NULL AND state IN ('available', 'scheduled'))`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	if f := r.fates(id)[id]; f.Outcome != ledger.Open || len(f.Deliveries) > 0 || len(r.box.Records("hubspot", "orders")) > 0 {
		t.Errorf("%+v", f)
	}
	r.config.Tables["tiers"].Fill([]map[string]string{{"label": "Gold", "value": "gold"}, {"label": "Silver", "value": "silver"}, {"label": "silver ", "value": "other"}})
	if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if got := r.box.Records("hubspot", "orders")[0].Properties["tier"]; got != "gold" {
		t.Errorf("tier is %v", got)
	}
	// Two of one name are a person's to mend; what the CRM does not have is as else says.
	if f := r.deliver(deal("d2", 1, "stage", "silver"))[0]; f.Outcome != ledger.Dead {
		t.Errorf("%+v", f)
	}
	if f := r.deliver(deal("d3", 1, "name", "Three", "stage", "copper"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
}
