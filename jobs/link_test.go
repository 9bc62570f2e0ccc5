package jobs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// linked maps deals to orders with a link to their firm, of which the given keys say how.
func linked(link string) string {
	return strings.TrimRight(deals, "\n") + `
    links:
      - {to: firms, key: {firm_key: event.company}` + link + `}
  - name: firms
    on: [shop.company.created, shop.company.updated]
    to: crm
    object: firms
    key: {firm_key: event.key}
    set: {name: event.name}
`
}

// links are the links between orders and firms as "order>firm", sorted.
func (r *rig) links() []string {
	names := map[string]string{}
	for _, rec := range r.box.Records("hubspot", "orders") {
		names[rec.ID] = fmt.Sprint(rec.Properties["order_key"])
	}
	for _, rec := range r.box.Records("hubspot", "firms") {
		names[rec.ID] = fmt.Sprint(rec.Properties["firm_key"])
	}
	var out []string
	for _, l := range r.box.Links("hubspot") {
		from, to := names[l.FromID], names[l.ToID]
		if l.FromObject == "firms" {
			from, to = to, from
		}
		out = append(out, from+">"+to)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *rig) wantLinks(want ...string) {
	r.t.Helper()
	if got := r.links(); !slices.Equal(got, want) {
		r.t.Errorf("links %v, want %v", got, want)
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: linked("")})
	fates := r.deliver(
		shopEvent("company.created", "c1", 1, "name", "Acme"),
		deal("d1", 2, "name", "n", "company", "c1"),
		deal("d1", 3, "name", "n", "company", "c1"), // nothing new
		deal("d1", 4, "name", "m"),                  // a null key means no link
	)
	for i, want := range []ledger.Outcome{ledger.Delivered, ledger.Delivered, ledger.Unchanged, ledger.Delivered} {
		if fates[i].Outcome != want {
			t.Errorf("event %d: %+v", i, fates[i])
		}
	}
	r.wantLinks("d1>c1")
	if n := len(r.writes("/associations/")); n != 1 {
		t.Errorf("%d requests for one link", n)
	}
}

// Both ends arrive together: the link is made in the same pass.
func TestLinkWithinABatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: linked(""), idle: true})
	ids := r.acceptPerJob(9, deal("d1", 1, "company", "c1"), shopEvent("company.created", "c1", 1, "name", "Acme"), deal("d2", 1, "company", "c1"))
	r.start()
	r.ended(ids...)
	r.wantLinks("d1>c1", "d2>c1")
	if n := len(r.writes("/associations/")); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// The target comes later: the delivery waits for it, and only then has arrived.
func TestLinkWaitsForItsTarget(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: linked("")})
	id := r.accept(deal("d1", 1, "name", "n", "company", "c1"))[0]
	r.until("the order is there", func() bool { return len(r.records("orders", "order_key")) == 1 })
	r.until("the delivery says what it waits for", func() bool {
		f := r.fates(id)[id]
		return len(f.Deliveries) == 1 && strings.Contains(f.Deliveries[0].Reason, "no firms with that firm_key is known yet")
	})
	r.until("it waits in River", func() bool { return r.count(`river_job WHERE state IN ('scheduled', 'available')`) == 1 })
	if attempts, failures := r.attempts(id); attempts != 0 || failures != 0 {
		t.Errorf("%d attempts, %d failures", attempts, failures)
	}
	r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
	if f := r.ended(id)[id]; f.Outcome != ledger.Delivered || f.Deliveries[0].Attempts != 0 {
		t.Errorf("%+v", f)
	}
	r.wantLinks("d1>c1")
	if n := len(r.writes("/orders/batch")); n != 1 {
		t.Errorf("the order was sent %d times", n)
	}
}

func TestLinkMissing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, link string
		want       ledger.Outcome
		links      []string
	}{
		{"skip", ", missing: skip", ledger.Delivered, nil},
		{"create", ", missing: create", ledger.Delivered, []string{"d1>c1"}},
		{"for a while", ", for: 100ms", ledger.Dead, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{mappings: linked(tt.link)})
			f := r.deliver(deal("d1", 1, "name", "n", "company", "c1"))[0]
			if f.Outcome != tt.want {
				t.Errorf("%+v", f)
			}
			if tt.want == ledger.Dead && !strings.Contains(f.Reason, "to link to") {
				t.Errorf("reason %q", f.Reason)
			}
			r.wantLinks(tt.links...)
			// What was made for the link is filled by its own event.
			r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
			if got := r.records("firms", "firm_key"); len(got) != 1 || got["c1"]["name"] != "Acme" {
				t.Errorf("firms %v", got)
			}
		})
	}
}

// A link that may be missing does not excuse another that may not.
func TestLinksOfOneDelivery(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: strings.Replace(linked(""), "    links:\n", `    links:
      - {to: contacts, key: {contact_key: event.partner}, missing: skip}
`, 1)})
	id := r.accept(deal("d1", 1, "name", "n", "company", "c1", "partner", "nobody"))[0]
	r.until("it waits for the firm", func() bool {
		f := r.fates(id)[id]
		return len(f.Deliveries) == 1 && strings.Contains(f.Deliveries[0].Reason, "firms")
	})
	if f := r.fates(id)[id]; f.Outcome != ledger.Open {
		t.Errorf("%+v", f)
	}
	r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
	if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	r.wantLinks("d1>c1")
}

func TestOnlyOneLink(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: linked(", only: one")})
	r.deliver(
		shopEvent("company.created", "c1", 1, "name", "a"), shopEvent("company.created", "c2", 1, "name", "b"),
		deal("d1", 1, "company", "c1"),
	)
	r.wantLinks("d1>c1")
	r.deliver(deal("d1", 3, "company", "c2"))
	r.wantLinks("d1>c2")
	if f := r.deliver(deal("d1", 2, "company", "c1", "stage", "gold"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f) // the stage is new, the link is not
	}
	r.wantLinks("d1>c2")
	// An order that hears of the newer company first ends the same.
	r.deliver(deal("d2", 3, "company", "c2"), deal("d2", 2, "company", "c1"))
	r.wantLinks("d1>c2", "d2>c2")
}

func TestUnlink(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: strings.Replace(linked(""), "on: [shop.deal.created, shop.deal.updated]", "on: shop.deal.updated", 1) + `
  - name: parted
    on: shop.deal.created
    to: crm
    object: orders
    key: {order_key: event.key}
    unlink: [{to: firms, key: {firm_key: event.company}}]
`})
	unlink := func(at int64) event { return shopEvent("deal.created", "d1", at, "company", "c1") }
	r.deliver(shopEvent("company.created", "c1", 1, "name", "a"), deal("d1", 2, "name", "n", "company", "c1"))
	r.wantLinks("d1>c1")
	fates := r.deliver(unlink(3), deal("d1", 1, "company", "c1"), unlink(4))
	r.wantLinks()
	for i, want := range []ledger.Outcome{ledger.Delivered, ledger.Stale, ledger.Unchanged} {
		if fates[i].Outcome != want {
			t.Errorf("event %d: %+v", i, fates[i])
		}
	}
	// An order that hears of the parting first ends the same.
	r.deliver(
		deal("d2", 1, "name", "n"),
		shopEvent("deal.created", "d2", 3, "company", "c1"),
		deal("d2", 2, "name", "n", "company", "c1"),
	)
	r.wantLinks()
}

// A link that the CRM refuses is dead with its message; the record has arrived all the same.
func TestLinkRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: linked("")})
	r.deliver(shopEvent("company.created", "c1", 1, "name", "a"))
	r.box.Fault(sandbox.Fault{Path: "/associations/", Effect: sandbox.EffectStatus, Status: 400, Body: `{"status":"error","category":"VALIDATION_ERROR","message":"limit of associations"}`})
	f := r.deliver(deal("d1", 1, "name", "n", "company", "c1"))[0]
	if f.Outcome != ledger.Dead || !strings.Contains(f.Reason, "link to firms") || !strings.Contains(f.Reason, "limit of associations") {
		t.Errorf("%+v", f)
	}
	if r.records("orders", "order_key")["d1"]["title"] != "n" {
		t.Error("the order is not there")
	}
}

// The CRM fails between the record and its link.
func TestLinkFailsAndIsMadeLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: linked("")})
	r.deliver(shopEvent("company.created", "c1", 1, "name", "a"))
	r.box.Fault(sandbox.Fault{Path: "/associations/", Effect: sandbox.EffectStatus, Status: 500, Count: 1})
	f := r.deliver(deal("d1", 1, "name", "n", "company", "c1"))[0]
	if f.Outcome != ledger.Delivered || f.Deliveries[0].Attempts != 1 {
		t.Errorf("%+v", f)
	}
	r.wantLinks("d1>c1")
	if n := len(r.writes("/orders/batch")); n != 1 {
		t.Errorf("the order was sent %d times", n)
	}
}

// An answer to a link that names no pair is none: the link is sent again, and in the end the delivery is dead, with the
// reason.
func TestLinkThatNobodyMade(t *testing.T) {
	t.Parallel()
	for _, lasting := range []bool{false, true} {
		r := newRig(t, setup{mappings: linked(""), options: Options{GiveUp: time.Second}})
		fault := sandbox.Fault{Path: "associate/default", Effect: sandbox.EffectStatus, Status: 200,
			Body: `{"status":"COMPLETE","results":[],"startedAt":"2026-01-01T00:00:00Z","completedAt":"2026-01-01T00:00:00Z"}`}
		if !lasting {
			fault.Count = 1
		}
		r.box.Fault(fault)
		r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
		f := r.deliver(deal("d1", 2, "name", "x", "company", "c1"))[0]
		switch links := len(r.box.Links("hubspot")); {
		case lasting && (f.Outcome != ledger.Dead || links != 0 || !strings.Contains(f.Reason, "says nothing about this row")):
			t.Errorf("%+v, %d links", f, links)
		case !lasting && (f.Outcome != ledger.Delivered || links != 1):
			t.Errorf("%+v, %d links", f, links)
		}
	}
}
