package jobs

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// renamedTo is the config with the sink crm under another name, which says what it was called.
func renamedTo(name, text string) string {
	text = strings.Replace(text, "  crm:\n    preset: hubspot\n", "  "+name+":\n    preset: hubspot\n    formerly: [crm]\n", 1)
	return strings.Replace(text, "    to: crm\n", "    to: "+name+"\n", 1)
}

func renamed(text string) string { return renamedTo("crm2", text) }

// title is that of the deal d1 in the CRM.
func (r *rig) title() any { return r.records("orders", "order_key")["d1"]["title"] }

// beside runs the workers of another process under a config of its own, as a rolling restart does.
func (r *rig) beside(id, text string) *rig {
	r.t.Helper()
	other := *r
	other.log = &lockedLog{}
	other.options.Logger = slog.New(slog.NewTextHandler(other.log, nil))
	other.options.ID = id
	other.load(text)
	other.start()
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", id, other.log)
		}
	})
	return &other
}

// carriedOut waits until the CRM has carried out the request with which a fault played.
func (r *rig) carriedOut(effect sandbox.Effect) {
	r.t.Helper()
	r.until("the slow request is carried out", func() bool {
		return slices.ContainsFunc(r.writes("/orders"), func(q sandbox.Request) bool { return q.Fault == effect })
	})
}

// drawing are ids of two processes of which the second, or else the first, is to own the sink.
func drawing(sink string, second bool) (string, string) {
	for i := 0; ; i++ {
		if a, b := "before", fmt.Sprint("after", i); (rendezvous(sink, []string{a, b}) == b) == second {
			return a, b
		}
	}
}

// A renamed sink keeps what it knows and what waits for it.
func TestRenamedSinkKeepsItsState(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.deliver(deal("d1", 5, "name", "newest"))
	lift := r.box.Fault(sandbox.Fault{Effect: sandbox.EffectThrottle, RetryAfter: "2"})
	waiting := r.accept(deal("d2", 1, "name", "waits"))[0]
	r.stopped("crm", throttled)
	lift()
	r.reload(renamed(r.text))
	f := r.deliver(deal("d1", 3, "name", "older, came late"))[0]
	if got := r.title(); got != "newest" || f.Outcome != ledger.Stale || f.Sink != "crm2" {
		t.Errorf("the CRM holds %q, and the older event is %+v", got, f)
	}
	if f := r.ended(waiting)[waiting]; f.Outcome != ledger.Delivered || f.Sink != "crm2" {
		t.Errorf("what waited is %+v", f)
	}
}

// A rename waits for the requests of the former name that are under way.
func TestRenameWhileARequestIsUnderWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.deliver(deal("d1", 1, "name", "one"))
	r.box.Fault(sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectNone, Latency: 2 * time.Second, Count: 1}) // carried out late, in time
	old := r.accept(deal("d1", 2, "name", "old"))[0]
	r.until("the request is under way, or over", func() bool { return r.count(`announcements`) == 1 || r.fates(old)[old].Outcome != ledger.Open })
	r.reload(renamed(r.text))
	id := r.accept(deal("d1", 3, "name", "new"))[0]
	r.ended(old, id)
	r.carriedOut(sandbox.EffectNone)
	if got := r.title(); got != "new" {
		t.Errorf("the CRM holds %v", got)
	}
}

// What is in doubt under the former name stays shut under the new one: a 504 that is carried out later.
func TestRenameWhileARecordIsInDoubt(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	r.text = strings.Replace(r.text, "settle: 300ms", "settle: 4s", 1)
	r.load(r.text)
	r.start()
	r.deliver(deal("d1", 1, "name", "one"))
	const late = 2 * time.Second
	r.box.Fault(sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectLate, Status: 504, Latency: late, Count: 1})
	old := r.accept(deal("d1", 2, "name", "old"))[0]
	r.until("it is in doubt", func() bool { _, f := r.attempts(old); return f > 0 })
	r.reload(renamed(r.text))
	id := r.accept(deal("d1", 3, "name", "new"))[0]
	r.ended(old, id)
	r.carriedOut(sandbox.EffectLate)
	if got := r.title(); got != "new" {
		t.Errorf("the CRM holds %v", got)
	}
}

// A sink that a person has stopped stays stopped under its new name.
func TestRenameOfAStoppedSink(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	if err := r.ledger.Ask(r.context(), "crm", "stop"); err != nil {
		t.Fatal(err)
	}
	r.stopped("crm", stopped)
	r.reload(renamed(r.text))
	id := r.accept(deal("d1", 1, "name", "n"))[0]
	if s := r.stopped("crm2", stopped); s.Reason != "by command" {
		t.Errorf("reason %q", s.Reason)
	}
	r.unburned(id)
	if n := len(r.writes("/orders")); n != 0 {
		t.Errorf("%d requests", n)
	}
	if err := r.ledger.Ask(r.context(), "crm2", "resume"); err != nil {
		t.Fatal(err)
	}
	r.arrived(id)
}

// A rolling restart in which the new process is to have the sink: the one with the former config never works the CRM
// again, and whatever its receivers still send under the former name is worked by the new one.
func TestRenameInARollingRestart(t *testing.T) {
	t.Parallel()
	before, after := drawing("crm", true)
	r := newRig(t, setup{options: Options{ID: before, SweepEvery: 50 * time.Millisecond}})
	r.deliver(deal("d1", 1, "name", "one"))
	next := r.beside(after, renamed(r.text))
	next.until("the new name is taken", func() bool { return r.count(`sinks WHERE name = 'crm2' AND owner = '`+after+`'`) == 1 })
	next.deliver(deal("d1", 5, "name", "five"))
	r.until("the former config is refused", func() bool { return strings.Contains(r.log.String(), "sink cannot be taken") })
	f := r.deliver(deal("d1", 3, "name", "three"))[0] // by a receiver that still has the former config
	if got := r.title(); got != "five" || f.Outcome != ledger.Stale || f.Sink != "crm2" {
		t.Errorf("the CRM holds %v, and the older event is %+v", got, f)
	}
	if n := r.count(`sinks WHERE owner <> ''`); n > 1 { // none at times, where this machine is too busy for heartbeats
		t.Errorf("%d sinks have an owner", n)
	}
	// All end, and the next ones have the new config.
	next.stop()
	r.stop()
	r.beside("last", renamed(r.text)).deliver(deal("d1", 6, "name", "six"))
	if got := r.title(); got != "six" {
		t.Errorf("after the next restart the CRM holds %v", got)
	}
}

// A rolling restart in which the former process goes on owning the sink: the new name waits for its end.
func TestRenameWaitsForTheFormerOwner(t *testing.T) {
	t.Parallel()
	before, after := drawing("crm", false)
	r := newRig(t, setup{options: Options{ID: before, SweepEvery: 50 * time.Millisecond}})
	r.deliver(deal("d1", 1, "name", "one"))
	next := r.beside(after, renamed(r.text))
	next.until("the new process lives", func() bool { return r.count(`workers`) == 2 })
	waits := next.accept(deal("d1", 5, "name", "five"))[0]
	for n := int64(2); n <= 4; n++ { // the former name is worked all the while
		r.deliver(deal("d1", n, "name", "other"))
	}
	// A machine that is too busy for heartbeats may take the sink from the former process. Else the new one has to wait.
	if n := r.count(`sinks a JOIN sinks b ON a.name = 'crm' AND b.name = 'crm2' WHERE a.owner = '` + before + `' AND b.owner <> ''`); n != 0 {
		t.Error("two owners write to one CRM")
	}
	f := r.fates(waits)[waits]
	if n := r.count(`sinks WHERE name = 'crm' AND owner = '` + before + `' AND epoch = 1`); n == 1 && f.Outcome != ledger.Open {
		t.Errorf("the new name is worked beside the former one: %+v", f)
	}
	r.stop()
	if f := next.ended(waits)[waits]; f.Outcome != ledger.Delivered || r.title() != "five" {
		t.Errorf("%+v, and the CRM holds %v", f, r.title())
	}
}

// A rename that cannot be stops that sink, says why, and keeps nobody from the others; once it is put right the sink goes on.
func TestRenameRefused(t *testing.T) {
	t.Parallel()
	r := bothSinks(t, Options{})
	former := r.text
	r.deliver(deal("d1", 1, "name", "one"))
	// The new name has worked without the state of the former one.
	strange := strings.Replace(renamed(former), "    formerly: [crm]\n", "", 1)
	r.reload(strange)
	r.deliver(deal("d1", 2, "name", "two"))
	r.reload(renamed(former))
	r.until("the sink is held", func() bool { return r.metric("sink_state", "sink", "crm2", "state", held) == 1 })
	lines, err := r.ledger.Sinks(r.context(), []string{"crm2", "archive"})
	if err != nil || !strings.HasPrefix(lines["crm2"].Reason, "records are known under crm2 and under crm: ") {
		t.Errorf("%+v, %v", lines, err)
	}
	id := r.accept(deal("d1", 3, "name", "three"))[0]
	r.until("the other sink goes on", func() bool { return r.count(`routes WHERE sink = 'archive' AND outcome = 'delivered'`) == 3 })
	if n := r.count(`routes WHERE sink = 'crm2' AND outcome IS NULL`); n != 1 {
		t.Errorf("%d routes wait", n)
	}
	if _, err := r.ledger.Drop(r.context(), "crm", "test"); err != nil {
		t.Fatal(err)
	}
	r.ended(id)
	if s := r.title(); s != "three" || r.metric("sink_state", "sink", "crm2", "state", held) != 0 {
		t.Errorf("the CRM holds %v", s)
	}
}

// A rename is taken back by the same means, and by no others.
func TestRenameThereAndBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	former := r.text
	r.deliver(deal("d1", 5, "name", "five"))
	r.reload(renamed(former))
	r.deliver(deal("d1", 6, "name", "six"))
	// Without `formerly` the name is not to be had: what is known of its records is elsewhere.
	r.reload(former)
	r.until("the sink is held", func() bool { return r.metric("sink_state", "sink", "crm", "state", held) == 1 })
	back := strings.Replace(former, "  crm:\n", "  crm:\n    formerly: [crm2]\n", 1)
	r.reload(back)
	if f := r.deliver(deal("d1", 4, "name", "four"))[0]; f.Outcome != ledger.Stale || f.Sink != "crm" || r.title() != "six" {
		t.Errorf("%+v, and the CRM holds %v", f, r.title())
	}
}

// Renamed twice at once, and from the middle of a chain.
func TestRenameInAChain(t *testing.T) {
	t.Parallel()
	for _, between := range []bool{false, true} {
		r := newRig(t, setup{})
		former := r.text
		r.deliver(deal("d1", 5, "name", "five"))
		if between {
			r.reload(renamed(former))
			r.deliver(deal("d1", 6, "name", "six"))
		}
		r.reload(strings.Replace(renamedTo("crm3", former), "formerly: [crm]", "formerly: [crm, crm2]", 1))
		if f := r.deliver(deal("d1", 4, "name", "four"))[0]; f.Outcome != ledger.Stale || f.Sink != "crm3" {
			t.Errorf("%+v", f)
		}
		if n := r.count(`sinks WHERE renamed_to = 'crm3'`); n != 2 {
			t.Errorf("%d names lead to the sink", n)
		}
		r.stop()
	}
}
