package jobs

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Two mappings share the orders; a deal may also say to which firm it belongs.
const lawful = `
mappings:
  - name: deals
    on: [shop.deal.created, shop.deal.updated]
    to: crm
    object: orders
    key: {order_key: event.key}
    if_deleted: GONE
    set: {title: event.name, description: event.description}
    set_first: {first_partner: event.partner}
    links: [{to: firms, key: {firm_key: event.company}, only: one, missing: create, AS}]
  - name: others
    on: shop.company.updated
    to: crm
    object: orders
    key: {order_key: event.key}
    if_deleted: GONE
    set: {title: event.name}
  - name: endings
    on: shop.company.deleted
    to: crm
    object: orders
    mode: archive
    key: {order_key: event.key}
`

// act is one thing that happens in a history.
type act struct {
	Do      deed
	Events  []int    // of accept: which; of the others: which of the open ones are worked, 0 being the last to arrive
	Answers []answer // of the CRM, to one request after the other; then it takes everything
}

// deed is what happens.
type deed int

const (
	accept     deed = iota // events arrive, some once more
	workOff                // a cycle from beginning to end
	dieLoaded              // a cycle, and the process dies when it has read the routes,
	dieApplied             // has applied the mappings,
	dieFolded              // has folded them,
	dieSent                // has sent what was to be sent,
	dieLinked              // or has linked
	unrecorded             // a cycle whose end Postgres does not take; the process lives
	freeze                 // a cycle that stops before it records, while another process takes the sink
	wake                   // a frozen process goes on
	handOver               // another process takes the sink
	timePasses             // everything that the CRM still had to apply is applied, and what settles has settled
)

// answer is what the CRM makes of a request that writes.
type answer int

const (
	fine    answer = iota
	broken         // does not carry it out, and says so
	cutOff         // does not carry it out, and cuts the connection
	unheard        // carries it out, and cuts the connection
	delayed        // cuts the connection, and carries it out later
	twice          // carries it out, cuts the connection, and carries it out again later
)

// TestLaws is invariant 1 of docs/design.md, and 2 with it: whatever arrives twice, late and out of
// order, wherever a process dies, freezes, or loses Postgres, and whatever the CRM answers, when
// all is over the CRM holds what the events ask for.
func TestLaws(t *testing.T) {
	t.Parallel()
	for _, k := range courts {
		t.Run(k.String(), func(t *testing.T) { t.Parallel(); holdCourt(t, newCourt(t, k)) })
	}
}

func holdCourt(t *testing.T, c *court) {
	var failed atomic.Bool // then it takes as long as shrinking takes
	enough := time.Now().Add(max(8*time.Second, lawsFor(t)))
	for more := true; more; more = lawsFor(t) > 0 && time.Now().Before(enough) {
		rapid.Check(t, func(t *rapid.T) {
			events := rapid.SliceOfN(rapid.Custom(drawEvent), 2, 5).Draw(t, "events")
			var acts []act
			// As a rule each arrives, and something is made of it.
			for i := range events {
				acts = append(acts, act{Do: accept, Events: []int{i}})
				acts = append(acts, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) act { return drawAct(t, len(events)) }), 0, 3).Draw(t, "acts")...)
			}
			if time.Now().After(enough) && !failed.Load() {
				return
			}
			if err := c.play(events, acts); err != nil {
				failed.Store(true)
				t.Fatal(err)
			}
		})
	}
}

func drawEvent(t *rapid.T) event {
	e := event{rapid.SampledFrom([]string{"deal.created", "deal.updated", "deal.updated", "company.updated", "company.deleted"}).Draw(t, "type"), map[string]any{
		"key": rapid.SampledFrom([]string{"a", "a", "a", "a", "b"}).Draw(t, "key"), "name": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name"),
	}}
	if at := rapid.IntRange(0, 4).Draw(t, "at"); at > 0 { // else it carries no time
		e.body["at"] = 1_700_000_000 + at
	}
	if e.typ == "company.updated" || e.typ == "company.deleted" {
		return e
	}
	for _, name := range []string{"description", "partner", "company"} {
		if value := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, name); value != "" {
			e.body[name] = value
		}
	}
	return e
}

func drawAct(t *rapid.T, events int) act {
	deeds := []deed{
		workOff, workOff, workOff, accept, dieLoaded, dieApplied, dieFolded, dieSent, dieLinked, dieLinked, unrecorded, freeze, wake, handOver, timePasses,
	}
	answers := []answer{fine, fine, broken, cutOff, unheard, delayed, twice}
	a := act{Do: rapid.SampledFrom(deeds).Draw(t, "do")}
	switch a.Do {
	case wake, handOver, timePasses:
		return a
	}
	a.Events = rapid.SliceOfN(rapid.IntRange(0, events-1), 1, 2).Draw(t, "events")
	if a.Do != accept {
		a.Answers = rapid.SliceOfN(rapid.SampledFrom(answers), 0, 3).Draw(t, "answers")
	}
	return a
}

// The histories that have been lost once.
func TestLawsHold(t *testing.T) {
	t.Parallel()
	courtsOf := map[kind]*court{}
	for _, k := range courts {
		courtsOf[k] = newCourt(t, k)
	}
	// Timed events of one order, by what they say.
	titled := func(at int, title string) event { return deal("a", int64(at), "name", title) }
	partOf := func(at int, firm string) event { return deal("a", int64(at), "name", "x", "company", firm) }
	for _, tt := range []struct {
		name   string
		events []event
		acts   []act
	}{
		{
			"back to what the CRM had, after a crash that hid what it has",
			[]event{titled(1, "x"), titled(2, "y"), titled(3, "x")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}},
				{Do: accept, Events: []int{1}}, {Do: dieLinked, Events: []int{0}},
				{Do: accept, Events: []int{2}}, {Do: timePasses}, {Do: workOff, Events: []int{0}},
			},
		},
		{
			"back to what the CRM had, while Postgres could not be told",
			[]event{titled(1, "x"), titled(2, "y"), titled(3, "x")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}},
				{Do: accept, Events: []int{1}}, {Do: unrecorded, Events: []int{0}},
				{Do: accept, Events: []int{2}}, {Do: workOff, Events: []int{0}},
			},
		},
		{
			"back to the former link, after a crash",
			[]event{partOf(1, "1"), partOf(2, "2"), partOf(3, "1")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}},
				{Do: accept, Events: []int{1}}, {Do: dieLinked, Events: []int{0}},
				{Do: accept, Events: []int{2}}, {Do: timePasses}, {Do: workOff, Events: []int{0}},
			},
		},
		{
			"archived for all we know, and wanted again by then",
			[]event{titled(1, "x"), shopEvent("company.deleted", "a", 1), shopEvent("company.updated", "a", 3, "name", "x")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}},
				{Do: accept, Events: []int{1}}, {Do: workOff, Events: []int{0}, Answers: []answer{twice}},
				{Do: accept, Events: []int{2}}, {Do: timePasses}, {Do: workOff, Events: []int{0, 1}},
			},
		},
		{
			"archived, which nobody heard, and wanted again by then",
			[]event{titled(1, "x"), shopEvent("company.deleted", "a", 2), shopEvent("company.updated", "a", 3, "name", "x")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}},
				{Do: accept, Events: []int{1}}, {Do: dieSent, Events: []int{0}},
				{Do: accept, Events: []int{2}}, {Do: timePasses}, {Do: workOff, Events: []int{0, 1}},
			},
		},
		{
			"a request that comes late, and a newer event by then",
			[]event{titled(1, "x"), titled(2, "y")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}, Answers: []answer{delayed}},
				{Do: accept, Events: []int{1}}, {Do: workOff, Events: []int{0}}, {Do: timePasses},
			},
		},
		{
			"a request of a dead process that comes late",
			[]event{titled(1, "x"), titled(2, "y")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: dieSent, Events: []int{0}, Answers: []answer{delayed}},
				{Do: accept, Events: []int{1}}, {Do: workOff, Events: []int{0}}, {Do: timePasses},
			},
		},
		{
			"a link that comes late, and another by then",
			[]event{partOf(1, "1"), partOf(2, "2")},
			[]act{
				{Do: accept, Events: []int{0}}, {Do: workOff, Events: []int{0}, Answers: []answer{fine, fine, delayed}},
				{Do: accept, Events: []int{1}}, {Do: workOff, Events: []int{0, 1}}, {Do: timePasses},
			},
		},
	} {
		for _, k := range courts { // one after the other: they share the sink
			t.Run(tt.name+"/"+k.String(), func(t *testing.T) {
				if err := courtsOf[k].play(tt.events, tt.acts); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A process that was frozen between announcing and sending must not send when it wakes: by then
// another may have written the same records.
func TestWhatIsOverIsNotSent(t *testing.T) {
	t.Parallel()
	c := newCourt(t, kind{preset: "hubspot"})
	h := &history{court: c, events: []event{deal("a", 1, "name", "x")}}
	h.plan.Store(c.plan)
	ctx := c.context()
	if err := errors.Join(h.accept(ctx, []int{0}), h.take(ctx)); err != nil {
		t.Fatal(err)
	}
	defer h.session.Close(ctx)
	b := newBatch(h.owner, c.plan, c.sink, jobsOf(h.ids...))
	if err := b.load(ctx); err != nil {
		t.Fatal(err)
	}
	b.mapEvents()
	if err := b.fold(ctx); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Millisecond))
	defer cancel()
	steps := b.plan()
	b.apply(over, steps, b.send(over, steps))
	if again := b.plan(); len(again) > 0 {
		t.Errorf("%d steps follow", len(again))
	}
	if n := len(c.writes("/orders/")); n > 0 {
		t.Errorf("%d requests", n)
	}
	doubted, _ := b.inDoubt()
	if d := b.jobs[0].routes[0].deliveries[0]; !d.Open() || d.Attempts != 0 || len(doubted) != 0 {
		t.Errorf("%+v, %v", d.Progress, doubted)
	}
}
