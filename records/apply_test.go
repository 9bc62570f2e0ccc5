package records

import (
	"strings"
	"testing"
	"time"

	"partnersync/mappers"
)

// What answers make of a record and its deliveries: what is asked first, what the CRM says, and
// what comes then, until nothing is left.
func TestApply(t *testing.T) {
	t.Parallel()
	find, plain := &manners{Find: true}, &manners{}
	note := moded(mappers.Append, set("f", "1"))
	note.Key = mappers.Key{Local: true, Value: "e"}
	optional := change(set("f", "1"), mappers.Field{Name: "o", Rule: mappers.Set, Value: "1", Optional: true})
	held := func(absent string) *mappers.Change {
		c := moded(mappers.UpdateOnly, set("f", "1"))
		c.Absent = absent
		return c
	}
	ok := Answer{Kind: Taken, Status: 200, ID: "7"}
	refused := func(fields ...string) Answer {
		return Answer{Kind: Denied, Class: "rejected", Status: 400, Fields: fields}
	}
	missing := Answer{Kind: Denied, Class: "rejected", Status: 404, Absent: true}
	inTheWay := func(id string) Answer {
		return Answer{Kind: Conflict, Class: "conflict", Status: 409, Existing: id}
	}
	lost := Answer{Kind: Failed, Class: "timeout", Counts: true, Lost: true}
	busy, failed := Answer{Kind: Busy, Wait: time.Minute}, Answer{Kind: Failed, Counts: true}
	archive := moded(mappers.Archive)
	linking := func() *scene { return play(known(), find, linked(toFirm("1", "retry"))).firm("1") }
	unlinking := func() *scene { return play(with(known(), toFirm("1", "retry")), find, linked(noFirm("1"))).firm("1") }
	answered := map[Do]map[Kind]bool{}
	for _, tt := range []struct {
		name    string
		give    *scene
		answers []Answer
		asked   string // all steps
		ends    string
		state   string // of the record
		hold    time.Duration
	}{
		{name: "taken", give: play(unknown(), find, change(set("f", "1"))), answers: []Answer{ok},
			asked: "upsert f=1", ends: "delivered", state: "present f=1"},
		{name: "taken, but for an optional field", give: play(unknown(), find, optional), answers: []Answer{{Kind: Taken, ID: "7", Dropped: []string{"o"}}},
			asked: "upsert f=1 o=1", ends: "delivered", state: "present f=1 o:refused"},
		{name: "taken, and the CRM keeps another value", give: play(unknown(), find, change(set("f", "1"))), answers: []Answer{{Kind: Taken, ID: "7", Kept: map[string]any{"f": "2"}}},
			asked: "upsert f=1", ends: "delivered", state: "present f:kept"},

		{name: "refused", give: play(known(set("f", "0")), find, change(set("f", "1"))), answers: []Answer{refused()},
			asked: "upsert 7 f=1", ends: "dead", state: "present f:pending"},
		{name: "refused by name: the rest is sent", give: play(known(), find, change(set("f", "1"), set("g", "1"))), answers: []Answer{refused("f"), ok},
			asked: "upsert 7 f=1 g=1; upsert 7 g=1", ends: "dead", state: "present f:refused g=1"},
		{name: "refused by name: an older value stands in", give: play(known(), find, change(set("f", "1")), change(set("f", "2"))), answers: []Answer{refused("f"), ok},
			asked: "upsert 7 f=2; upsert 7 f=1", ends: "delivered dead", state: "present f:refused"},
		{name: "refused by name: what is older than what the CRM has does not stand in", give: play(knownAt(Version{At: 1, Rank: 1}, set("f", "0")), find, change(set("f", "1")), change(set("f", "2"))), answers: []Answer{refused("f")},
			asked: "upsert 7 f=2", ends: "stale dead", state: "present f:refused"},
		{name: "refused: each event alone", give: play(known(), find, change(set("f", "1")), change(set("g", "1"))), answers: []Answer{refused(), ok, refused()},
			asked: "upsert 7 f=1 g=1; upsert 7 f=1; upsert 7 g=1", ends: "delivered dead", state: "present f=1 g:pending"},

		{name: "not there: looked for, and nowhere", give: play(known(), find, change(set("f", "1"))), answers: []Answer{missing, missing},
			asked: "upsert 7 f=1; find 7", ends: "skipped", state: "gone f:pending"},
		{name: "not there: it was merged into another", give: play(known(), find, change(set("f", "1"))), answers: []Answer{missing, {Kind: Taken, ID: "8"}, {Kind: Taken, ID: "8"}},
			asked: "upsert 7 f=1; find 7; upsert 8 f=1", ends: "delivered", state: "present f=1"},
		{name: "not there: made again", give: play(known(set("f", "0")), plain, recreate(set("g", "1"))), answers: []Answer{missing, {Kind: Taken, ID: "8"}},
			asked: "upsert 7 g=1; upsert f=0 g=1", ends: "delivered", state: "present f=0 g=1"},
		{name: "made again, with its links", give: play(gone(with(known(), toFirm("1", "retry")), Version{}), find, recreate()).firm("1"), answers: []Answer{{Kind: Taken, ID: "8"}, {Kind: Taken}},
			asked: "upsert; link 1", ends: "delivered", state: "present ->1"},
		{name: "made again, and refused: what others have wanted is sent, too", give: play(gone(known(set("f", "0")), Version{}), find, recreate(set("g", "1")), change()),
			answers: []Answer{refused(), refused(), {Kind: Taken, ID: "8"}, {Kind: Taken, ID: "8"}},
			asked:   "upsert f=0 g=1; upsert g=1; upsert; upsert 8 f=0", ends: "dead delivered", state: "present f=0 g:pending"},
		{name: "update_only, and it is not there: hold", give: play(unknown(), find, held("")), answers: []Answer{missing},
			asked: "update_only f=1", ends: "skipped", state: "unknown f:pending"},
		{name: "update_only, and it is not there: skip", give: play(unknown(), find, held("skip")), answers: []Answer{missing},
			asked: "update_only f=1", ends: "skipped", state: "unknown f:refused"},
		{name: "update_only, and it is not there: dead", give: play(unknown(), find, held("dead")), answers: []Answer{missing},
			asked: "update_only f=1", ends: "dead", state: "unknown f:pending"},

		{name: "in the way: adopted, and given our key", give: play(unknown(), find, change(set("f", "1"))), answers: []Answer{inTheWay("7"), ok},
			asked: "upsert f=1; upsert 7 f=1 k=a", ends: "delivered", state: "present f=1"},
		{name: "in the way of create_only", give: play(unknown(), find, moded(mappers.CreateOnly, set("f", "1"))), answers: []Answer{inTheWay("7")},
			asked: "create_only f=1 k=a", ends: "skipped", state: "present f:refused"},
		{name: "in the way of one that is known", give: play(known(), find, change(set("f", "1"))), answers: []Answer{inTheWay("8")},
			asked: "upsert 7 f=1", ends: "dead", state: "present f:pending"},
		{name: "in the way, nobody knows what: it counts", give: play(unknown(), find, change(set("f", "1"))), answers: []Answer{inTheWay(""), inTheWay("")},
			asked: "upsert f=1; upsert f=1", ends: "failing", state: "unknown f:pending"},

		{name: "not now, for a moment", give: play(known(), find, change(set("f", "1"))), answers: []Answer{{Kind: Busy, Short: true, Wait: time.Second}, ok},
			asked: "upsert 7 f=1; upsert 7 f=1", ends: "delivered", state: "present f=1"},
		{name: "not now", give: play(known(), find, change(set("f", "1"))), answers: []Answer{{Kind: Busy, Wait: time.Minute}},
			asked: "upsert 7 f=1", ends: "waiting", state: "present f:pending"},
		{name: "failed without effect", give: play(known(set("f", "0")), find, change(set("f", "1"))), answers: []Answer{{Kind: Failed, Counts: true}},
			asked: "upsert 7 f=1", ends: "failing", state: "present f:pending"},
		{name: "failed, and nobody is to blame", give: play(known(), find, change(set("f", "1"))), answers: []Answer{{Kind: Failed}},
			asked: "upsert 7 f=1", ends: "waiting", state: "present f:pending"},
		{name: "no answer: in doubt", give: play(known(set("f", "0")), find, change(set("f", "1"))), answers: []Answer{lost},
			asked: "upsert 7 f=1", ends: "failing", state: "present f:doubt", hold: modelSettle},
		{name: "no answer to a create", give: play(unknown(), find, change(set("f", "1"))), answers: []Answer{lost},
			asked: "upsert f=1", ends: "failing", state: "unknown f:pending", hold: modelSettle + modelLag},
		{name: "no answer to an append", give: play(unknown(), find, note), answers: []Answer{lost},
			asked: "append f=1", ends: "dead", state: "unsure f:pending", hold: modelSettle + modelLag},
		{name: "no answer to an archive", give: play(known(set("f", "0")), find, moded(mappers.Archive)), answers: []Answer{lost},
			asked: "archive 7", ends: "failing", state: "present f:doubt", hold: modelSettle},

		{name: "archived", give: play(known(), find, moded(mappers.Archive)), answers: []Answer{{Kind: Taken}},
			asked: "archive 7", ends: "delivered", state: "gone"},
		{name: "archived already", give: play(known(), find, moded(mappers.Archive)), answers: []Answer{missing},
			asked: "archive 7", ends: "unchanged", state: "gone"},

		{name: "an archive is refused", give: play(known(), find, archive), answers: []Answer{refused()},
			asked: "archive 7", ends: "dead", state: "present"},
		{name: "in the way of an archive", give: play(known(), find, archive), answers: []Answer{inTheWay("8")},
			asked: "archive 7", ends: "dead", state: "present"},
		{name: "not now, an archive", give: play(known(), find, archive), answers: []Answer{busy},
			asked: "archive 7", ends: "waiting", state: "present"},

		{name: "looked for, to archive it: not now", give: play(unknown(), find, archive), answers: []Answer{busy},
			asked: "find", ends: "waiting", state: "unknown"},
		{name: "looked for, to archive it: no answer", give: play(unknown(), find, archive), answers: []Answer{failed},
			asked: "find", ends: "failing", state: "unknown"},
		{name: "looked for, to archive it: refused", give: play(unknown(), find, archive), answers: []Answer{refused()},
			asked: "find", ends: "skipped", state: "gone"},
		{name: "looked for, to archive it: a conflict", give: play(unknown(), find, archive), answers: []Answer{inTheWay("8")},
			asked: "find", ends: "skipped", state: "gone"},
		{name: "looked for, to archive it: found", give: play(unknown(), find, archive), answers: []Answer{ok, {Kind: Taken}},
			asked: "find; archive 7", ends: "delivered", state: "gone"},

		{name: "linked", give: linking(), answers: []Answer{{Kind: Taken}},
			asked: "link 1", ends: "delivered", state: "present ->1"},
		{name: "in the way of a link", give: linking(), answers: []Answer{inTheWay("8")},
			asked: "link 1", ends: "dead", state: "present ->1:refused"},
		{name: "not now, a link", give: linking(), answers: []Answer{busy},
			asked: "link 1", ends: "waiting", state: "present"},
		{name: "a link is refused", give: linking(), answers: []Answer{refused()},
			asked: "link 1", ends: "dead", state: "present ->1:refused"},
		{name: "no answer to a link", give: linking(), answers: []Answer{lost},
			asked: "link 1", ends: "failing", state: "present ->1:doubt", hold: modelSettle},
		{name: "unlinked", give: unlinking(), answers: []Answer{{Kind: Taken}},
			asked: "unlink 1", ends: "delivered", state: "present"},
		{name: "what is to be unlinked is not there", give: unlinking(), answers: []Answer{missing},
			asked: "unlink 1", ends: "delivered", state: "present"},
		{name: "taking a link back is refused", give: unlinking(), answers: []Answer{refused()},
			asked: "unlink 1", ends: "dead", state: "present ->1:refused"},
		{name: "in the way of taking a link back", give: unlinking(), answers: []Answer{inTheWay("8")},
			asked: "unlink 1", ends: "dead", state: "present ->1:refused"},
		{name: "not now, to take a link back", give: unlinking(), answers: []Answer{busy},
			asked: "unlink 1", ends: "waiting", state: "present ->1"},
		{name: "no answer to taking a link back", give: unlinking(), answers: []Answer{lost},
			asked: "unlink 1", ends: "failing", state: "present ->1", hold: modelSettle},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := tt.give.answer(t, tt.answers, answered)
			if asked != tt.asked {
				t.Errorf("asked: %q, want %q", asked, tt.asked)
			}
			if got := tt.give.ends(); got != tt.ends {
				t.Errorf("deliveries: %q, want %q", got, tt.ends)
			}
			if got := tt.give.Record.state(); got != tt.state {
				t.Errorf("record: %q, want %q", got, tt.state)
			}
			if tt.give.Hold != tt.hold {
				t.Errorf("hold: %s, want %s", tt.give.Hold, tt.hold)
			}
		})
	}
	for do := Find; do <= Unlink; do++ {
		for kind := Taken; kind <= Failed; kind++ {
			if !answered[do][kind] {
				t.Errorf("no row has an answer of the kind %d to a step that does %d", kind, do)
			}
		}
	}
}

// A link that is refused since one of its ends is not there has the other end looked up, each such
// link once.
func TestRefusedLinkSuspectsItsEnd(t *testing.T) {
	t.Parallel()
	s := play(known(), &manners{Find: true}, linked(toFirm("1", "retry"), toFirm("2", "retry"))).firm("1").firm("2")
	s.env.Links = true
	missing := Answer{Kind: Denied, Class: "rejected", Status: 404, Absent: true}
	for _, step := range s.Next(s.env) {
		if got := s.Apply(step, missing, s.env).Suspect; got != step.Tie.Link {
			t.Errorf("link to %s: %v is suspected", step.Tie.Link.Key, got)
		}
		if got := s.Apply(step, missing, s.env).Suspect; got != nil {
			t.Errorf("link to %s: suspected again", step.Tie.Link.Key)
		}
	}
}

// An answer names a record that could not be looked up: whatever the row may have changed is in doubt.
func TestUnresolved(t *testing.T) {
	t.Parallel()
	s := play(known(set("f", "0")), &manners{ByID: true, Updates: true}, change(set("f", "1")), linked(toFirm("1", "retry"))).firm("1")
	s.Unresolved(s.steps()[0], Answer{Kind: Taken, Status: 200, ID: "8", Created: true}, time.Second, s.env)
	if got := s.Record.state(); got != "present f:doubt ->1:doubt" || s.ends() != "waiting waiting" || s.Hold != modelLag {
		t.Errorf("%s, %s, hold %s", got, s.ends(), s.Hold)
	}
}

// answer goes on until no step follows, and returns the steps. Each has its answer, which it notes.
func (s *scene) answer(t *testing.T, answers []Answer, answered map[Do]map[Kind]bool) string {
	var asked []string
	for {
		steps := s.steps()
		if len(steps) == 0 {
			break
		}
		for _, step := range steps {
			asked = append(asked, said(step))
			if len(answers) == 0 {
				t.Fatalf("one answer too few: %q", asked)
			}
			if answered[step.Do] == nil {
				answered[step.Do] = map[Kind]bool{}
			}
			answered[step.Do][answers[0].Kind] = true
			s.Apply(step, answers[0], s.env)
			answers = answers[1:]
		}
	}
	if len(answers) > 0 {
		t.Errorf("%d answers too many", len(answers))
	}
	return strings.Join(asked, "; ")
}

// state is what is known of a record, in a few words.
func (r *Record) state() string {
	words := []string{string(r.Presence)}
	for _, name := range []string{"f", "g", "o"} {
		f := r.Fields[name]
		switch {
		case f == nil:
		case f.Refused != [16]byte{}:
			words = append(words, name+":refused")
		case f.Kept != nil:
			words = append(words, name+":kept")
		case f.AckedAt.IsZero() && !f.HadAt.IsZero():
			words = append(words, name+":doubt")
		case f.Pending():
			words = append(words, name+":pending")
		default:
			words = append(words, name+"="+f.Acked.Go.(string))
		}
	}
	for _, l := range r.Links {
		switch {
		case l.Verdict == Refused:
			words = append(words, "->"+l.Key+":refused")
		case l.Have == InDoubt:
			words = append(words, "->"+l.Key+":doubt")
		case l.Have == Exists:
			words = append(words, "->"+l.Key)
		}
	}
	return strings.Join(words, " ")
}
