package ledger_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

func session(t *testing.T, l *ledger.Ledger, id string) *ledger.Leaser {
	t.Helper()
	o, err := l.Leaser(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close(t.Context()) }) // may be lost already
	return o
}

func acquire(t *testing.T, o *ledger.Leaser, sink string) (*ledger.Lease, []ledger.Announcement) {
	t.Helper()
	lease, announced, err := o.Acquire(t.Context(), sink)
	if err != nil {
		t.Fatal(err)
	}
	return lease, announced
}

// A batch that comes upon further records announces them, too: whoever takes the sink keeps off all.
func TestAnnouncedAgain(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	a, b := session(t, l, "a"), session(t, l, "b")
	lease, _ := acquire(t, a, "crm")
	id := newID(t)
	keys := []ledger.RecordKey{{Object: "deals", Property: "deal_key", Key: "d1"}, {Object: "firms", Property: "firm_key", Key: "f1"}}
	for n := range keys {
		if err := l.Announce(t.Context(), *lease, id, keys[:n+1], time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Release(t.Context(), *lease); err != nil {
		t.Fatal(err)
	}
	_, announced := acquire(t, b, "crm")
	if len(announced) != 1 || !slices.Equal(announced[0].Keys(), keys) {
		t.Errorf("announced: %+v", announced)
	}
}

// A batch ends, and with it its announcement, but for the records that are in doubt: these stay
// shut for whoever takes the sink.
func TestInDoubtStaysAnnounced(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	keys := []ledger.RecordKey{{Object: "deals", Property: "deal_key", Key: "d1"}, {Object: "deals", Property: "deal_key", Key: "d2"}}
	for _, tt := range []struct {
		name   string
		report ledger.Report
		want   []ledger.RecordKey
	}{
		{"nothing is in doubt", ledger.Report{}, nil},
		{"one of two is", ledger.Report{InDoubt: keys[1:], Settle: 5 * time.Minute}, keys[1:]},
		{"it has settled", ledger.Report{InDoubt: keys[1:]}, nil},
	} {
		a := session(t, l, "a")
		lease, _ := acquire(t, a, "crm")
		tt.report.Announced = newID(t)
		if err := l.Announce(t.Context(), *lease, tt.report.Announced, keys, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := l.Write(t.Context(), *lease, &tt.report); err != nil {
			t.Fatal(err)
		}
		if err := a.Release(t.Context(), *lease); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"b", "c"} { // one after the other
			if err := l.ExpireAnnouncements(t.Context()); err != nil {
				t.Fatal(err)
			}
			next := session(t, l, id)
			var announced []ledger.Announcement
			lease, announced = acquire(t, next, "crm")
			var got []ledger.RecordKey
			for _, an := range announced {
				if got = append(got, an.Keys()...); an.Left > tt.report.Settle || an.Left < tt.report.Settle-time.Minute {
					t.Errorf("%s: shut for %s", tt.name, an.Left)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s: %s is told (-want +got):\n%s", tt.name, id, diff)
			}
			if err := next.Release(t.Context(), *lease); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Write(t.Context(), *lease, &ledger.Report{Announced: tt.report.Announced}); err != nil {
			t.Fatal(err)
		}
	}
}

// Invariant 11 of docs/design.md: of two owners of a sink never both get a batch
// acknowledged, and a fenced one cannot send.
func TestOneOwnerAtATime(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	a, b := session(t, l, "a"), session(t, l, "b")
	id := stored(t, l, "crm")
	first, _ := acquire(t, a, "crm")
	if first == nil {
		t.Fatal("a free sink is not to be had")
	}
	if second, _ := acquire(t, b, "crm"); second != nil {
		t.Fatal("a sink with a living owner was taken")
	}
	if beat, err := a.Heartbeat(t.Context(), []ledger.Lease{*first}); err != nil || !beat.Renewed[*first] {
		t.Fatalf("a living owner was evicted: %+v, %v", beat, err)
	}
	// a is at work: River gave it the job, and it has announced its batch.
	if _, err := pool.Exec(t.Context(), `UPDATE river_job SET state = 'running', attempted_by = ARRAY['a'], attempt = 1`); err != nil {
		t.Fatal(err)
	}
	key := ledger.RecordKey{Object: "deals", Property: "deal_key", Key: "d1"}
	if err := l.Announce(t.Context(), *first, newID(t), []ledger.RecordKey{key}, time.Minute); err != nil {
		t.Fatal(err)
	}
	// a is silent for too long: its session is ended, and the sink taken.
	if _, err := pool.Exec(t.Context(), `UPDATE sinks SET renewed_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	var second *ledger.Lease
	var announced []ledger.Announcement
	for deadline := time.Now().Add(20 * time.Second); second == nil; {
		second, announced = acquire(t, b, "crm")
		if time.Now().After(deadline) {
			t.Fatal("a silent owner was not evicted")
		}
	}
	if second.Epoch <= first.Epoch {
		t.Errorf("the epoch did not grow: %d, %d", first.Epoch, second.Epoch)
	}
	if len(announced) != 1 || cmp.Diff([]ledger.RecordKey{key}, announced[0].Keys()) != "" {
		t.Errorf("the new owner is told of %+v", announced)
	}
	// a wakes up.
	if err := l.Announce(t.Context(), *first, newID(t), []ledger.RecordKey{key}, time.Minute); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("a fenced owner may announce: %v", err)
	}
	report := &ledger.Report{Closings: []ledger.Closing{{Event: id, Outcome: ledger.Delivered}}}
	if err := l.Write(t.Context(), *first, report); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("a fenced owner may record: %v", err)
	}
	if err := a.Reacquire(t.Context(), *first); err == nil {
		t.Error("a fenced owner gets its lock again")
	}
	if open, err := l.Routes(t.Context(), "crm", []uuid.UUID{id}); err != nil || len(open) != 1 {
		t.Errorf("%v, %v", open, err)
	}
	var running, waiting int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE state = 'cancelled'), count(*) FILTER (WHERE state = 'available') FROM river_job`).Scan(&running, &waiting); err != nil || running != 1 || waiting != 1 {
		t.Errorf("the job of the former owner: %d ended, %d queued anew, %v", running, waiting, err)
	}
	if err := l.Write(t.Context(), *second, report); err != nil {
		t.Errorf("the new owner cannot record: %v", err)
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	a, b := session(t, l, "a"), session(t, l, "b")
	lease, _ := acquire(t, a, "crm")
	if _, err := b.Heartbeat(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	v, err := a.Heartbeat(t.Context(), []ledger.Lease{*lease, {Sink: "crm", Epoch: lease.Epoch - 1}, {Sink: "other", Epoch: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, v.Live); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[ledger.Lease]bool{*lease: true}, v.Renewed); diff != "" {
		t.Error(diff)
	}
	if v, err := b.Heartbeat(t.Context(), []ledger.Lease{*lease}); err != nil || len(v.Renewed) != 0 {
		t.Errorf("another process renews the lease: %+v, %v", v, err)
	}
	if idle, ok := v.Idle["crm"]; !ok || idle > time.Minute {
		t.Errorf("idle %v, %v", idle, ok)
	}
	if err := a.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, err = b.Heartbeat(t.Context(), nil); err != nil || cmp.Diff([]string{"b"}, v.Live) != "" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestReleaseHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	a, b := session(t, l, "a"), session(t, l, "b")
	first, _ := acquire(t, a, "crm")
	if err := a.Release(t.Context(), *first); err != nil {
		t.Fatal(err)
	}
	if second, _ := acquire(t, b, "crm"); second == nil || second.Epoch <= first.Epoch {
		t.Errorf("got %+v after %+v", second, first)
	}
}

// A lease that has gone to another process is neither taken up again nor released by the former one.
func TestReacquire(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	a := session(t, l, "a")
	first, _ := acquire(t, a, "crm")
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := session(t, l, "a")
	for deadline := time.Now().Add(20 * time.Second); ; { // the lock of the former session goes with it
		err := again.Reacquire(t.Context(), *first)
		if err == nil {
			break
		}
		if !errors.Is(err, ledger.ErrFenced) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if err := again.Release(t.Context(), *first); err != nil {
		t.Fatal(err)
	}
	b := session(t, l, "b")
	second, _ := acquire(t, b, "crm")
	if err := again.Release(t.Context(), *first); err != nil {
		t.Fatal(err)
	}
	if beat, err := b.Heartbeat(t.Context(), []ledger.Lease{*second}); err != nil || !beat.Renewed[*second] {
		t.Errorf("the former owner has released the lease of the new one: %+v, %v", beat, err)
	}
	if err := b.Release(t.Context(), *second); err != nil {
		t.Fatal(err)
	}
	if err := again.Reacquire(t.Context(), *first); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("the former owner has its lease again: %v", err)
	}
}
