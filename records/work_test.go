package records

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// Whoever finds a record gone, after an archive of which nobody has told what became of it, knows
// since when: an older event must not make it again. So it is when the process has died, and when
// the answer was lost.
func TestArchiveInDoubt(t *testing.T) {
	t.Parallel()
	at := func(n int64) *Cause { return &Cause{Version: Version{At: n}} }
	r := New(uuid.UUID{1}, Key{Object: "seats", Property: "seat_key", Key: "s"})
	r.CRMID, r.Presence, r.New = "7", Present, false
	ended := &Delivery{Cause: at(2), Change: &mappers.Change{Mode: mappers.Archive}}
	w := &Work{Record: r, Deliveries: []*Delivery{ended}}
	step := &Step{Do: Archive, Work: w, Mode: mappers.Archive, Last: ended, Serves: w.Deliveries}
	env := &Env{Can: plainTarget{}, GiveUp: time.Hour}
	saved := func(n int64) *Delivery { return &Delivery{Cause: at(n), Change: &mappers.Change{Recreate: true}} }
	check := func(what string, r *Record) {
		t.Helper()
		if r == nil || saved(1).recreates(r) || !saved(3).recreates(r) {
			t.Errorf("%s: %+v", what, r)
		}
	}
	stored := w.Intend(step, env.Can)
	if !r.GoneAt.IsZero() {
		t.Error("the archive counts before it is carried out")
	}
	check("stored before", stored)
	w.Apply(step, Answer{Kind: Failed, Class: "network", Lost: true, Counts: true}, env)
	check("answer lost", r)
}

// plainTarget is one of which little matters.
type plainTarget struct{ Capabilities }

func (plainTarget) Repeats(mappers.Mode, mappers.Key) bool { return true }
func (plainTarget) Settle() time.Duration                  { return time.Second }
func (plainTarget) FindLag() time.Duration                 { return time.Second }
