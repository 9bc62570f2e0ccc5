package jobs

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// A job of Accept begins as soon as it is stored: River is notified, and does not look by itself
// within this test.
func TestJobsBeginBeforeThePoll(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{options: Options{PollEvery: time.Hour}})
	r.ended(r.accept(deal("d1", 1, "name", "n"))...) // perhaps found when the owner of the sink began
	r.ended(r.accept(deal("d2", 1, "name", "n"))...)
}

// A route that was opened under a newer config is put back until the plan catches up.
func TestNewerGeneration(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	old := *r.plan
	r.load(strings.Replace(r.text, "title: event.name", "title: upper(event.name)", 1))
	newer := r.plan
	id := r.accept(deal("d1", 1, "name", "n"))[0] // by a receiver that has the new config already
	r.until("the job has been put back", func() bool { return r.count(`river_job WHERE (metadata->>'snoozes')::int > 0`) == 1 })
	if f := r.fates(id)[id]; f.Outcome != ledger.Open {
		t.Errorf("%+v", f)
	}
	if newer.Generation <= old.Generation {
		t.Fatalf("generations %d and %d", old.Generation, newer.Generation)
	}
	r.open()
	r.workers.Use(r.plan)
	if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if got := r.records("orders", "order_key")["d1"]["title"]; got != "N" {
		t.Errorf("title %v: not that of the new config", got)
	}
	r.unburned(id)
}

// A job that comes in as its sink is renamed, or taken out and put back, does not keep its events waiting.
func TestJobOfASinkThatIsGone(t *testing.T) {
	t.Parallel()
	o := &owner{name: "crm", plan: &atomic.Pointer[Plan]{}}
	o.plan.Store(&Plan{})
	j := &job{done: make(chan error, 1)}
	running := 0
	if left, _ := o.begin(t.Context(), []*job{j}, &running); len(left) != 0 || running != 0 {
		t.Fatalf("%d jobs wait here, and %d batches run", len(left), running)
	}
	var snooze *river.JobSnoozeError
	if err := <-j.done; !errors.As(err, &snooze) || snooze.Duration > 2*time.Second {
		t.Errorf("it is answered %v", err)
	}
}

// A config that has come back is the one that is in force, whatever its number is by now: nobody
// reloads it again. Routes that were opened under another in between are older than it.
func TestConfigThatComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	var hash string
	if err := r.pool.QueryRow(r.context(), `SELECT hash FROM configs WHERE generation = $1`, r.plan.Generation).Scan(&hash); err != nil {
		t.Fatal(err)
	}
	var ids []uuid.UUID
	for i, hash := range []string{"another", hash} {
		plan := *r.plan // of a receiver
		var err error
		if plan.Generation, err = r.ledger.Generation(r.context(), hash, "test"); err != nil {
			t.Fatal(err)
		}
		r.plan = &plan
		ids = append(ids, r.accept(deal(fmt.Sprint("d", i), 1, "name", "n"))...)
		if i == 0 {
			r.until("the job has been put back", func() bool { return r.count(`river_job WHERE (metadata->>'snoozes')::int > 0`) == 1 })
		}
	}
	for id, f := range r.ended(ids...) {
		if f.Outcome != ledger.Delivered {
			t.Errorf("%s: %+v", id, f)
		}
	}
}

// Invariant 7, its better half: a reload takes effect for pending jobs.
func TestReloadForPendingJobs(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	lift := r.box.Fault(sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "3"})
	ids := r.many(3, 1)
	r.stopped("crm", throttled)
	lift()
	r.reload(strings.Replace(r.text, "title: event.name", "title: upper(event.name)", 1))
	r.arrived(ids...)
	for key, got := range r.records("orders", "order_key") {
		if got["title"] != "NAME 1" {
			t.Errorf("%s: title %v", key, got["title"])
		}
	}
}

// Invariant 6: what a mapping could not do is done by a replay after its mend; here by a new run of the route.
func TestReplayAfterTheFix(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: strings.Replace(deals, "event.key}", "event.company}", 1)})
	f := r.deliver(deal("d1", 1, "name", "n"))[0]
	if f.Outcome != ledger.Dead {
		t.Fatalf("%+v", f)
	}
	r.reload(strings.Replace(r.text, "{order_key: event.company}", "{order_key: event.key}", 1))
	_, err := r.pool.Exec(r.context(), `INSERT INTO routes (event_id, sink, run, source, generation) VALUES ($1, 'crm', 1, 'shop', $2)`, f.Event, r.plan.Generation)
	if err != nil {
		t.Fatal(err)
	}
	r.queueAgain(f.Event.String())
	r.ended(f.Event)
	list, err := r.ledger.Fates(r.context(), []uuid.UUID{f.Event})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Outcome != ledger.Dead || list[1].Outcome != ledger.Delivered {
		t.Errorf("%+v", list)
	}
}

// The ledger, not the queue, proves that nothing is lost: routes without a job get one.
func TestSweeper(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, options: Options{SweepEvery: 50 * time.Millisecond, SweepAge: time.Millisecond}})
	ids := r.many(20, 1)
	if _, err := r.pool.Exec(r.context(), `DELETE FROM river_job`); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.arrived(ids...)
	r.counted(20, "swept_routes_total", "sink", "crm")
	r.until("nothing is unaccounted for", func() bool { return r.metric("unaccounted_routes") == 0 })
}

// A graceful stop under load: nothing is lost, no attempt is burned, the next process does the rest.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	const n = 600
	r := newRig(t, setup{idle: true, box: sandbox.Options{Latency: 30 * time.Millisecond}, options: Options{MaxWorkers: 50}, sinks: "    batch: {rows: 10}\n"})
	r.grace = patience // for requests that are slow
	ids := r.many(n, 1)
	r.start()
	for range 3 {
		before := r.count(`routes WHERE outcome IS NULL`)
		r.until("some are delivered", func() bool { open := r.count(`routes WHERE outcome IS NULL`); return open < before-20 || open == 0 })
		r.stop()
		if k := r.count(`river_job WHERE state = 'running'`); k != 0 {
			t.Errorf("%d jobs are still running", k)
		}
		open, closed := r.count(`routes WHERE outcome IS NULL`), r.count(`routes WHERE outcome = 'delivered'`)
		if open+closed != n {
			t.Errorf("%d open and %d delivered of %d", open, closed, n)
		}
		if sent := len(r.box.Records("hubspot", "orders")); sent != closed {
			t.Errorf("the CRM has %d records, the ledger %d", sent, closed)
		}
		r.unburned(ids...)
		r.start()
	}
	r.arrived(ids...)
	r.unburned(ids...)
	for _, rec := range r.box.Records("hubspot", "orders") {
		if rec.Writes != 1 {
			t.Errorf("%v was written %d times", rec.Properties["order_key"], rec.Writes)
		}
	}
}

// A stop whose grace is over cuts requests short; what nobody knows the end of is done again, uncounted.
func TestStopBeyondTheGrace(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.stop()
	r.grace = time.Millisecond
	r.start()
	r.box.Fault(sandbox.Fault{Effect: sandbox.EffectNone, Latency: time.Minute, Count: 1})
	id := r.accept(deal("d1", 1, "name", "n"))[0]
	r.until("the request is under way", func() bool { return r.count(`river_job WHERE state = 'running'`) == 1 })
	r.stop()
	r.unburned(id)
	r.box.Reset()
	r.start()
	if f := r.ended(id)[id]; f.Outcome != ledger.Delivered || f.Deliveries[0].Attempts != 0 {
		t.Errorf("%+v", f)
	}
}

// The jobs of a sink that has left the config stay in the queue, and go on when it returns.
func TestSinkRemoved(t *testing.T) {
	t.Parallel()
	r := bothSinks(t, Options{})
	with := r.text
	event := deal("d1", 1, "name", "n")
	withConfig, withPlan := r.config, r.plan
	r.reload(strings.ReplaceAll(strings.Replace(with, "  archive:\n", "  elsewhere:\n", 1), "to: archive", "to: elsewhere"))
	without := r.config
	r.config, r.plan.Generation = withConfig, withPlan.Generation
	r.until("nobody owns the sink", func() bool {
		return r.count(`sinks WHERE name = 'elsewhere' AND owner <> ''`) == 1 && r.count(`sinks WHERE name = 'archive' AND owner <> ''`) == 0
	})
	id := r.accept(event)[0] // by a receiver that still has the old config
	r.config = without
	r.until("the other sink has been worked", func() bool { return r.count(`routes WHERE sink = 'crm' AND outcome IS NOT NULL`) == 1 })
	if n := r.count(`river_job WHERE queue = 'sink_archive' AND state = 'available' AND attempt = 0`); n != 1 {
		t.Errorf("%d jobs wait", n)
	}
	if n := r.count(`routes WHERE sink = 'archive' AND outcome IS NULL`); n != 1 {
		t.Errorf("%d open routes", n)
	}
	r.reload(with)
	r.ended(id)
	if n := r.count(`routes WHERE outcome = 'delivered'`); n != 2 {
		t.Errorf("%d delivered", n)
	}
}

// A new sink is worked without a restart.
func TestSinkAdded(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.reload(strings.Replace(r.text, "\nmappings:", fmt.Sprintf(archived, r.crm.URL)+"\nmappings:", 1) + `
  - name: copies
    on: shop.deal.updated
    to: archive
    object: deals
    key: {id: event.key}
    set: {name: event.name}
`)
	id := r.accept(deal("d1", 1, "name", "n"))[0]
	r.ended(id)
	if n := r.count(`routes WHERE outcome = 'delivered'`); n != 2 {
		t.Errorf("%d delivered", n)
	}
	if got := r.metric("sink_state", "sink", "archive", "state", "ready"); got != 1 {
		t.Errorf("the new sink is not ready: %v", got)
	}
}

// Events of a source that has left the config are dead with that reason; the replay can follow when it is back.
func TestSourceRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	id := r.accept(deal("d1", 1, "name", "n"))[0]
	r.load(strings.ReplaceAll(strings.Replace(r.text, "\n  shop:", "\n  store:", 1), "shop.deal", "store.deal"))
	r.start()
	if f := r.ended(id)[id]; f.Outcome != ledger.Dead || f.Reason != `the config has no source "shop" any more` {
		t.Errorf("%+v", f)
	}
}

// Two jobs for one event, as after a sweep, deliver it once.
func TestTwoJobsForOneEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, mappings: notes})
	var ids []uuid.UUID
	for i := range 20 {
		ids = append(ids, r.accept(deal(fmt.Sprint("d", i), 1, "name", "n", "note", "text"))[0])
		r.queueAgain(ids[i].String())
		r.queueAgain(ids[i].String())
	}
	r.start()
	r.ended(ids...)
	r.until("the jobs are done", func() bool { return r.count(`river_job WHERE state <> 'completed'`) == 0 })
	if n := len(r.box.Records("hubspot", "notes")); n != 20 {
		t.Errorf("%d notes", n)
	}
	r.counted(20, "deliveries_total", "sink", "crm", "mapping", "notes", "outcome", "delivered")
}
