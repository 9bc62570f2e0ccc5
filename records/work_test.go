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

// What is stored of a record before its step is sent, should nobody learn the answer.
func TestIntend(t *testing.T) {
	t.Parallel()
	find := &manners{Find: true}
	note := moded(mappers.Append, set("f", "1"))
	note.Key = mappers.Key{Local: true, Value: "e"}
	for _, tt := range []struct {
		name string
		give *scene
		want string // "" where nothing needs to be stored
		gone Version
	}{
		{"a new record", play(unknown(), find, change(set("f", "1"))), "", Version{}},
		{"one that makes a link", play(unknown(), &manners{ByID: true}, linked(toFirm("1", "retry"))).firm("1"), "unknown ->1:doubt", Version{}},
		{"one that must not be made twice", play(unknown(), find, note), "unsure f:pending", Version{}},
		{"another value", play(known(set("f", "0"), set("g", "0")), find, change(set("f", "1"))), "present f:doubt g=0", Version{}},
		{"a link", play(known(set("f", "0")), find, linked(toFirm("1", "retry"))).firm("1"), "present f=0 ->1:doubt", Version{}},
		{"a link that is taken back", play(with(known(), toFirm("1", "retry")), find, linked(noFirm("1"))).firm("1"), "present ->1:doubt", Version{}},
		{"the record before its links", play(known(set("f", "0")), find, change(set("f", "1")), linked(toFirm("1", "retry"))).firm("1"), "present f:doubt ->1:doubt", Version{}},
		{"an archive", play(known(set("f", "0")), find, moded(mappers.Archive)), "present f:doubt", at(1)},
		{"a value before an archive", play(known(set("f", "0"), set("g", "0")), find, change(set("f", "1")), moded(mappers.Archive)), "present f:doubt g:doubt", at(2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.give.Record.New = tt.give.Record.Presence == Unknown
			before := tt.give.Record.state()
			step := tt.give.steps()[0]
			stored, got, gone := tt.give.Intend(step, tt.give.env.Can), "", Version{}
			if stored != nil {
				got, gone = stored.state(), stored.GoneAt
			}
			if got != tt.want || gone != tt.gone {
				t.Errorf("%q, gone at %d, want %q, %d", got, gone.At, tt.want, tt.gone.At)
			}
			if after := tt.give.Record.state(); after != before || !tt.give.Record.GoneAt.IsZero() {
				t.Errorf("it counts before it is sent: %q, before that %q", after, before)
			}
			if stored == nil {
				return
			}
			tt.give.Stored()
			again := tt.give.Intend(step, tt.give.env.Can)
			if unrepeatable := stored.Presence == Unsure; again != nil != unrepeatable {
				t.Errorf("stored once more: %+v", again)
			}
			tt.give.Unstored()
			if tt.give.Intend(step, tt.give.env.Can) == nil {
				t.Error("what was not stored passes for stored")
			}
		})
	}
}

// plainTarget is one of which little matters.
type plainTarget struct{ Capabilities }

func (plainTarget) Repeats(mappers.Mode, mappers.Key) bool { return true }
func (plainTarget) Settle() time.Duration                  { return time.Second }
func (plainTarget) FindLag() time.Duration                 { return time.Second }
