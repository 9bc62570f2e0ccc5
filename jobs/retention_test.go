package jobs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/ledger"
)

const jane = ledger.Address("jane@example.com")

func (r *rig) forget() *ledger.Forgotten {
	r.t.Helper()
	done, err := r.ledger.Forget(r.context(), ledger.Person{Address: jane, By: "tester"})
	if err != nil {
		r.t.Fatal(err)
	}
	return done
}

// kept counts the rows that still hold the address, or a name that came with it.
func (r *rig) kept() int {
	return r.count(`(SELECT convert_from(body, 'UTF8') FROM events UNION ALL SELECT fields::text FROM records UNION ALL SELECT key || reason FROM deliveries
		UNION ALL SELECT reason FROM routes UNION ALL SELECT value FROM record_keys) AS t(text) WHERE text ~* 'jane'`)
}

// A late event does not bring a forgotten person back, whatever the mapping makes of it.
func TestLateEventOfAForgottenPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.deliver(deal("d1", 1, "name", "Jane Roe", "note", "from Jane@Example.com"))
	done := r.forget()
	if done.Events != 1 || done.Records != 1 || len(done.CRM) != 1 || done.CRM[0].Object != "orders" {
		t.Fatalf("%+v", done)
	}
	if n := r.kept(); n != 0 {
		t.Fatalf("%d rows tell of her", n)
	}
	before := len(r.writes(""))
	late := r.accept(
		deal("d1", 2, "name", "Jane Roe", "note", "jane@example.com"),
		deal("d2", 2, "name", "Jane Roe", "unknown", map[string]any{"deep": []any{"<a href='mailto:JANE%40example.com'>"}}),
	)
	fates := r.ended(late...)
	for _, id := range late {
		if f := fates[id]; f.Outcome != ledger.Skipped || f.Reason != ledger.ReasonErased || len(f.Deliveries) != 0 {
			t.Errorf("got %+v", f)
		}
	}
	if n := len(r.writes("")) - before; n != 0 {
		t.Errorf("%d requests for her", n)
	}
	if n := r.count(`events WHERE status = 'erased' AND body = ''`); n != 3 || r.kept() != 0 {
		t.Errorf("%d events are erased, %d rows tell of her", n, r.kept())
	}
	other := r.deliver(deal("d3", 3, "name", "Mary", "note", "mary-jane@example.com"))[0]
	if other.Outcome != ledger.Delivered {
		t.Errorf("another person's: %+v", other)
	}
	if list, err := r.ledger.Balances(r.context(), time.Time{}); err != nil || len(list) != 1 || list[0].Unaccounted != 0 || list[0].Skipped != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

// What waits when its person is forgotten is not delivered.
func TestOpenRouteOfAForgottenPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	hers, other := r.accept(deal("d1", 1, "name", "Jane Roe", "note", "jane@example.com"))[0], r.accept(deal("d2", 1, "name", "Joe"))[0]
	r.forget()
	r.start()
	fates := r.ended(hers, other)
	if f := fates[hers]; f.Outcome != ledger.Skipped || f.Reason != ledger.ReasonErased {
		t.Errorf("got %+v", f)
	}
	if fates[other].Outcome != ledger.Delivered || len(r.records("orders", "order_key")) != 1 {
		t.Errorf("got %+v", fates[other])
	}
}

// The owner of a sink remembers records; what it remembers of her must not be written again.
func TestOwnerForgetsToo(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.deliver(deal("d1", 1, "name", "Jane Roe", "note", "jane@example.com", "stage", "gold"))
	r.forget()
	if f := r.deliver(deal("d1", 2, "stage", "silver"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("the next event of the record: %+v", f)
	}
	if n := r.kept(); n != 0 {
		t.Errorf("%d rows tell of her again", n)
	}
	// The field that an erased event has decided is not decided by an older one.
	if f := r.deliver(deal("d1", 0, "name", "older"))[0]; f.Outcome != ledger.Stale && f.Outcome != ledger.Delivered {
		t.Errorf("an older event: %+v", f)
	}
	if got := r.records("orders", "order_key")["d1"]; got["title"] != "Jane Roe" || got["tier"] != "silver" {
		t.Errorf("the CRM, where the operator has to act, has %v", got)
	}
	// A sink that was taken anew is let go of as any other.
	r.reload(strings.ReplaceAll(r.text, "crm", "other"))
	another, err := r.ledger.Leaser(r.context(), "another")
	if err != nil {
		t.Fatal(err)
	}
	defer another.Close(r.context())
	r.until("another process can take it", func() bool {
		lease, _, err := another.Acquire(r.context(), "crm")
		if err != nil {
			t.Fatal(err)
		}
		return lease != nil
	})
	if strings.Contains(r.log.String(), "session of the leases") || strings.Contains(r.log.String(), "leases of the sinks") {
		t.Error("the sink had to be wrested from its session")
	}
}

// A create that is on its way to the CRM while somebody is forgotten is told, since nobody
// will ever know its id.
func TestForgetTellsWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	held, free := r.hold("jane@example.com")
	r.start()
	id := r.accept(deal("d1", 2, "name", "jane@example.com"))[0]
	<-held
	dry, err := r.ledger.Forget(r.context(), ledger.Person{Address: jane, By: "tester", DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	joe, err := ledger.ParseAddress("joe@example.com")
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.ledger.Forget(r.context(), ledger.Person{Address: joe, By: "tester", DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	done := r.forget()
	free()
	r.ended(id)
	want := []ledger.UnderWay{{Sink: "crm", Object: "orders", Records: 1}}
	for name, got := range map[string]*ledger.Forgotten{"a dry run": dry, "the run": done} {
		if diff := cmp.Diff(want, got.UnderWay); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	if len(other.UnderWay) > 0 {
		t.Errorf("of somebody else it tells %v", other.UnderWay)
	}
	r.until("the CRM has her", func() bool { return len(r.records("orders", "order_key")) == 1 })
}

// One process of those that live does the maintenance.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, options: Options{Maintain: time.Hour}})
	r.forget() // nobody yet, but her
	store := func(age time.Duration, status ledger.Status, body string, sinks ...string) uuid.UUID {
		at := time.Now().Add(-age).Truncate(time.Microsecond)
		id := uuid.Must(uuid.NewV7())
		for i := range 6 {
			id[i] = byte(at.UnixMilli() >> (40 - 8*i))
		}
		if _, err := r.ledger.Accept(r.context(), []ledger.Incoming{{
			ID: id, Source: "shop", Type: "deal.updated", Entity: "deal:" + id.String(), OccurredAt: at, ReceivedAt: at, Status: status, Body: []byte(body), Sinks: sinks,
		}}, r.plan.Generation, 1); err != nil {
			t.Fatal(err)
		}
		return id
	}
	const day = 24 * time.Hour
	var want []string
	for i := range 5 {
		store(10*day, ledger.Unmapped, fmt.Sprintf(`{"old":%d}`, i))
		want = append(want, store(time.Hour, ledger.Unmapped, fmt.Sprintf(`{"young":%d}`, i)).String())
	}
	late := store(2*time.Hour, ledger.Unmapped, `{"email":"jane@example.com"}`)
	want = append(want, late.String())
	r.plan.Keep = 7 * day
	r.start()
	r.until("the round is over", func() bool { return r.count(`river_job WHERE kind = 'maintain' AND state = 'completed'`) == 1 })
	rows, err := r.pool.Query(r.context(), `SELECT id::text FROM events`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	if n := r.count(`events WHERE status = 'erased'`); n != 1 {
		t.Errorf("%d are erased", n)
	}
}
