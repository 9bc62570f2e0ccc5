package records

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// scene is one record with the deliveries of a batch, oldest version first, whatever their order.
type scene struct {
	*Work
	env   *Env
	firms map[string]*Record // by key: what is known of the other ends of links
	stubs []string           // that were asked for
}

// known is a record that the CRM has as "7".
func known(fields ...mappers.Field) *Record { return knownAt(at(0), fields...) }

func knownAt(v Version, fields ...mappers.Field) *Record {
	r := empty()
	r.CRMID, r.Presence, r.ID = "7", Present, uuid.UUID{1}
	Fold(r, change(fields...), v)
	r.acknowledge(pendingOf(r), nil)
	return r
}

// unknown is one that no event has made yet.
func unknown() *Record { return New(uuid.UUID{1}, Key{"deals", "k", "a"}) }

// play begins a batch of changes; the version of each is its place, from 1.
func play(r *Record, can *manners, changes ...*mappers.Change) *scene {
	s := &scene{Work: &Work{Record: r}, firms: map[string]*Record{}}
	s.env = &Env{Can: can, Now: start, GiveUp: time.Hour, Neighbour: func(l *Link) Neighbour { return Neighbour{Record: s.firms[l.Key]} }}
	s.env.Stub = func(_ *Delivery, l *Link) bool {
		s.stubs = append(s.stubs, l.Key)
		return true
	}
	for i, c := range changes {
		if c.Key.Property == "" && !c.Key.Local {
			c.Key = mappers.Key{Property: "k", Value: "a"}
		}
		v := at(int64(i + 1))
		s.Deliveries = append(s.Deliveries, &Delivery{Cause: &Cause{Event: v.Event, Version: v, ReceivedAt: start}, Change: c, Key: Key{"deals", "k", "a"}})
	}
	s.Begin()
	return s
}

// firm makes a firm known, as "f" and its key.
func (s *scene) firm(key string) *scene {
	s.firms[key] = &Record{CRMID: "f" + key, Presence: Present}
	return s
}

// steps are the next ones, for the rows or else for the links.
func (s *scene) steps() []*Step {
	for _, links := range []bool{false, true} {
		s.env.Links = links
		if steps := s.Next(s.env); len(steps) > 0 {
			return steps
		}
	}
	return nil
}

// allSaid are steps in a few words.
func allSaid(steps []*Step) string {
	var words []string
	for _, s := range steps {
		words = append(words, said(s))
	}
	return strings.Join(words, ", ")
}

func said(s *Step) string {
	if s.Tie != nil {
		return []string{Linking: "link", Unlink: "unlink"}[s.Do] + " " + s.Tie.Link.Key
	}
	words := []string{[]string{Find: "find", Write: string(s.Mode), Archive: "archive"}[s.Do], s.Work.Record.CRMID}
	for _, name := range slices.Sorted(maps.Keys(s.Values)) {
		words = append(words, fmt.Sprintf("%s=%v", name, s.Values[name]))
	}
	for _, t := range s.Carried {
		words = append(words, "with "+t.Link.Key)
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// ends are how far the deliveries are.
func (s *scene) ends() string {
	var words []string
	for _, d := range s.Deliveries {
		words = append(words, string(d.Outcome))
		if d.Open() {
			words[len(words)-1] = []string{"ready", "waiting", "failing", "blocked"}[d.state]
		}
	}
	return strings.Join(words, " ")
}

func moded(mode mappers.Mode, fields ...mappers.Field) *mappers.Change {
	c := change(fields...)
	c.Mode = mode
	return c
}

func recreate(fields ...mappers.Field) *mappers.Change {
	c := change(fields...)
	c.Recreate = true
	return c
}

func linked(links ...mappers.Link) *mappers.Change {
	c := change()
	c.Links = links
	return c
}

func toFirm(key, missing string) mappers.Link {
	return mappers.Link{To: "firms", Key: mappers.Key{Property: "k", Value: key}, Missing: missing, For: time.Hour}
}

func onlyFirm(key string) mappers.Link {
	l := toFirm(key, "retry")
	l.Only = true
	return l
}

func requiredFirm(key, missing string) mappers.Link {
	l := toFirm(key, missing)
	l.Required = true
	return l
}

func noFirm(key string) mappers.Link {
	l := toFirm(key, "retry")
	l.Remove = true
	return l
}

// with adds links that the CRM has to a record.
func with(r *Record, links ...mappers.Link) *Record {
	Fold(r, linked(links...), at(0))
	for _, l := range r.Links {
		l.done()
	}
	return r
}

func gone(r *Record, by Version) *Record {
	r.Presence, r.GoneAt = Gone, by
	return r
}

// The next step of a record, and what has ended without one.
func TestNext(t *testing.T) {
	t.Parallel()
	find := &manners{Find: true}
	append1 := moded(mappers.Append, set("f", "1"))
	append1.Key = mappers.Key{Local: true, Value: "e"}
	unsure := unknown()
	unsure.Presence = Unsure
	held := func(s *scene) *scene {
		s.Hold = time.Second
		return s
	}
	waiting := func(s *scene) *scene {
		s.Deliveries[0].Wait("", "", time.Minute)
		return s
	}
	asked := map[Do]bool{}
	for _, tt := range []struct {
		name string
		give *scene
		next string
		ends string
	}{
		{"a new record", play(unknown(), find, change(set("f", "1"))), "upsert f=1", "ready"},
		{"one with nothing but its key", play(unknown(), find, change()), "upsert", "ready"},
		{"another value", play(known(set("f", "0")), find, change(set("f", "1"))), "upsert 7 f=1", "ready"},
		{"the value that the CRM has", play(known(set("f", "0")), find, change(set("f", "0"))), "", "unchanged"},
		{"two events of one record are one row", play(known(), find, change(set("f", "1")), change(set("g", "2"))), "upsert 7 f=1 g=2", "ready ready"},
		{"the newest counts; should it be refused, the other does", play(known(), find, change(set("f", "1")), change(set("f", "2"))), "upsert 7 f=2", "ready ready"},
		{"first comes first", play(known(), find, change(setFirst("p", "1")), change(setFirst("p", "2"))), "upsert 7 p=1", "ready ready"},

		{"update_only tries", play(unknown(), find, moded(mappers.UpdateOnly, set("f", "1"))), "update_only f=1", "ready"},
		{"create_only brings its key", play(unknown(), find, moded(mappers.CreateOnly, set("f", "1"))), "create_only f=1 k=a", "ready"},
		{"create_only, and it is there", play(known(), find, moded(mappers.CreateOnly, set("f", "1"))), "", "skipped"},
		{"append", play(unknown(), find, append1), "append f=1", "ready"},
		{"append that may have been made", play(unsure, find, append1), "", "dead"},

		{"gone, and nobody makes it again", play(gone(known(set("f", "0")), Version{}), find, change(set("f", "1"))), "", "skipped"},
		{"gone, made again with all that is known", play(gone(known(set("f", "0")), Version{}), find, recreate(set("g", "1"))), "upsert f=0 g=1", "ready"},
		{"archived by an older event", play(gone(known(), at(0)), find, recreate(set("f", "1"))), "upsert f=1", "ready"},
		{"archived by a newer event", play(gone(known(), at(9)), find, recreate(set("f", "1"))), "", "stale"},
		{"archive", play(known(), find, moded(mappers.Archive)), "archive 7", "ready"},
		{"archive what the CRM may know", play(unknown(), find, moded(mappers.Archive)), "find", "ready"},
		{"archive what nobody knows", play(unknown(), &manners{}, moded(mappers.Archive)), "", "skipped"},
		{"archive twice", play(gone(known(), at(0)), find, moded(mappers.Archive)), "", "unchanged"},
		{"archive, and a newer event wants it", play(known(), find, moded(mappers.Archive), recreate(set("f", "1"))), "upsert 7 f=1", "stale ready"},
		{"archive comes after what is older", play(known(), find, change(set("f", "1")), moded(mappers.Archive)), "upsert 7 f=1", "ready ready"},

		{"link", play(known(), find, linked(toFirm("1", "retry"))).firm("1"), "link 1", "ready"},
		{"a link that the CRM has", play(with(known(), toFirm("1", "retry")), find, linked(toFirm("1", "retry"))).firm("1"), "", "unchanged"},
		{"unlink", play(with(known(), toFirm("1", "retry")), find, linked(noFirm("1"))).firm("1"), "unlink 1", "ready"},
		{"unlink what was never linked", play(known(), find, linked(noFirm("1"))).firm("1"), "", "unchanged"},
		{"only takes the others back", play(with(known(), toFirm("1", "retry")), find, linked(onlyFirm("2"))).firm("1").firm("2"), "unlink 1, link 2", "ready"},
		{"only, where that takes their place", play(with(known(), toFirm("1", "retry")), &manners{Replace: true}, linked(onlyFirm("2"))).firm("1").firm("2"), "link 2", "ready"},
		{"a target that is missing: retry", play(known(), find, linked(toFirm("1", "retry"))), "", "waiting"},
		{"a target that is missing: skip", play(known(), find, linked(toFirm("1", "skip"))), "", "delivered"},
		{"a target that is missing: create", play(known(), find, linked(toFirm("1", "create"))), "", "blocked"},
		{"a row takes links along", play(unknown(), &manners{ByID: true}, linked(toFirm("1", "retry"))).firm("1"), "upsert with 1", "ready"},
		{"one that is required comes alone", play(unknown(), &manners{ByID: true}, linked(requiredFirm("1", "retry"), toFirm("2", "retry"))).firm("1").firm("2"), "upsert with 1", "ready"},
		{"one that is required waits for its target", play(unknown(), &manners{ByID: true}, linked(requiredFirm("1", "retry"))), "", "waiting"},
		{"an archive waits for what is older", waiting(play(known(), find, change(set("f", "1")), moded(mappers.Archive))), "", "waiting waiting"},
		{"no link while a request may still take effect", held(play(known(), find, linked(toFirm("1", "retry"))).firm("1")), "", "waiting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps := tt.give.steps()
			if got := allSaid(steps); got != tt.next {
				t.Errorf("next: %q, want %q", got, tt.next)
			}
			for _, step := range steps {
				asked[step.Do] = true
			}
			if got := tt.give.ends(); got != tt.ends {
				t.Errorf("deliveries: %q, want %q", got, tt.ends)
			}
		})
	}
	for do := Find; do <= Unlink; do++ {
		if !asked[do] {
			t.Errorf("no row asks for a step that does %d", do)
		}
	}
}
