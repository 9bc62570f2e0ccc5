package jobs

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"partnersync/internal/ledger"
	"partnersync/mappers"
)

func at(n int64) ledger.Version {
	return ledger.Version{At: n, Event: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n))}
}

func change(fields ...mappers.Field) *mappers.Change {
	return &mappers.Change{Mapping: "m", Object: "deals", Mode: mappers.Upsert, Fields: fields}
}

func set(name string, value any) mappers.Field {
	return mappers.Field{Name: name, Rule: mappers.Set, Value: value}
}

func setFirst(name string, value any) mappers.Field {
	return mappers.Field{Name: name, Rule: mappers.SetFirst, Value: value}
}

func empty() *ledger.Record {
	return &ledger.Record{Fields: map[string]*ledger.Field{}, Links: map[string]*ledger.Link{}}
}

// take acknowledges everything that is pending, as a CRM that accepts all does.
func take(rec *ledger.Record) {
	for _, p := range pendingParts(rec) {
		acknowledge(rec, p.fields)
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	old, mid, late := at(1), at(2), at(3)
	for _, tt := range []struct {
		name  string
		give  func(rec *ledger.Record) tally // the last fold's tally
		want  tally
		value any // wanted in "stage" afterwards
	}{
		{"first value", func(r *ledger.Record) tally { return fold(r, change(set("stage", "a")), mid) }, tally{pending: 1}, "a"},
		{"newer value", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			take(r)
			return fold(r, change(set("stage", "b")), late)
		}, tally{pending: 1}, "b"},
		{"older value", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			return fold(r, change(set("stage", "b")), old)
		}, tally{stale: 1}, "a"},
		{"same value, acknowledged", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			take(r)
			return fold(r, change(set("stage", "a")), late)
		}, tally{same: 1}, "a"},
		{"same value, not acknowledged", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			return fold(r, change(set("stage", "a")), late)
		}, tally{pending: 1}, "a"},
		{"back to what the CRM has", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), old)
			take(r)
			fold(r, change(set("stage", "b")), mid)
			return fold(r, change(set("stage", "a")), late)
		}, tally{same: 1}, "a"},
		{"back to what the CRM may have", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), old)
			take(r)
			fold(r, change(set("stage", "b")), mid)
			doubt(r, map[string]ledger.Version{"stage": mid}) // b may have arrived
			return fold(r, change(set("stage", "a")), late)
		}, tally{pending: 1}, "a"},
		{"the same event again, acknowledged", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			take(r)
			return fold(r, change(set("stage", "a")), mid)
		}, tally{acked: 1}, "a"},
		{"the same event under a new mapping", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			take(r)
			return fold(r, change(set("stage", "z")), mid)
		}, tally{pending: 1}, "z"},
		{"a refused value comes with the next event", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "bad")), old)
			refuse(r, map[string]ledger.Version{"stage": old})
			return fold(r, change(set("stage", "bad")), mid)
		}, tally{refused: 1}, "bad"},
		{"another value after a refused one", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "bad")), old)
			refuse(r, map[string]ledger.Version{"stage": old})
			return fold(r, change(set("stage", "good")), mid)
		}, tally{pending: 1}, "good"},
		{"a refused value is tried again by a replay", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "bad")), old)
			refuse(r, map[string]ledger.Version{"stage": old})
			return fold(r, change(set("stage", "bad")), old)
		}, tally{pending: 1}, "bad"},
		{"first touch keeps the first", func(r *ledger.Record) tally {
			fold(r, change(setFirst("stage", "a")), mid)
			return fold(r, change(setFirst("stage", "b")), late)
		}, tally{same: 1}, "a"},
		{"first touch takes an older one", func(r *ledger.Record) tally {
			fold(r, change(setFirst("stage", "a")), mid)
			take(r)
			return fold(r, change(setFirst("stage", "b")), old)
		}, tally{pending: 1}, "b"},
		{"rewrite sends what the CRM has", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			take(r)
			c := change(set("stage", "a"))
			c.Rewrite = true
			return fold(r, c, late)
		}, tally{pending: 1}, "a"},
		{"touch alone wants nothing", func(r *ledger.Record) tally {
			fold(r, change(set("stage", "a")), mid)
			return fold(r, change(mappers.Field{Name: "synced", Rule: mappers.Touch, Value: "x"}), late)
		}, tally{}, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rec := empty()
			if got := tt.give(rec); got != tt.want {
				t.Errorf("tally %+v, want %+v", got, tt.want)
			}
			if got := rec.Fields["stage"].Wanted.Go; got != tt.value {
				t.Errorf("wanted %v, want %v", got, tt.value)
			}
			if got := len(rec.Fields); got != 1 {
				t.Errorf("%d fields", got)
			}
		})
	}
}

// happening is one event of a drawn history.
type happening struct {
	change  *mappers.Change
	version ledger.Version
}

// TestAnyOrderGivesTheSameWantedState is invariant 2 of the design: timed events
// in any order, any number of times, with acknowledgements, refusals and doubts in
// between, end in the same wanted state; and what a CRM holds that takes
// everything once it answers is that state.
func TestAnyOrderGivesTheSameWantedState(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var events []happening
		for i := range rapid.IntRange(1, 8).Draw(t, "events") {
			c := change()
			for _, name := range []string{"a", "b", "c"} {
				if rapid.Bool().Draw(t, "has") {
					c.Fields = append(c.Fields, set(name, rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "value")))
				}
			}
			if rapid.Bool().Draw(t, "first") {
				c.Fields = append(c.Fields, setFirst("first", rapid.SampledFrom([]string{"x", "y"}).Draw(t, "value")))
			}
			v := ledger.Version{At: rapid.Int64Range(1, 4).Draw(t, "at"), Rank: int16(rapid.IntRange(0, 1).Draw(t, "rank")), Event: uuid.NewSHA1(uuid.Nil, []byte{byte(i)})}
			events = append(events, happening{c, v})
		}
		want := oracle(events)

		rec := empty()
		crm := map[string]any{}
		push := func() {
			for _, p := range pendingParts(rec) {
				for name := range p.fields {
					crm[name] = rec.Fields[name].Wanted.Go
				}
				if rapid.Bool().Draw(t, "answered") {
					acknowledge(rec, p.fields)
				} else {
					doubt(rec, p.fields) // applied, but nobody told us
				}
			}
		}
		order := rapid.Permutation(events).Draw(t, "order")
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(events)-1), 0, 4).Draw(t, "duplicates") {
			order = append(order, events[i])
		}
		for _, e := range order {
			fold(rec, e.change, e.version)
			if rapid.Bool().Draw(t, "push") {
				push()
			}
		}
		for range 100 {
			if len(pendingParts(rec)) == 0 {
				break
			}
			push()
			take(rec)
		}
		for name, value := range want {
			if got := rec.Fields[name].Wanted.Go; got != value {
				t.Fatalf("%s: wanted %v, want %v", name, got, value)
			}
			if crm[name] != value {
				t.Fatalf("%s: the CRM holds %v, want %v", name, crm[name], value)
			}
		}
		if len(rec.Fields) != len(want) {
			t.Fatalf("%d fields, want %d", len(rec.Fields), len(want))
		}
	})
}

func oracle(events []happening) map[string]any {
	want, by := map[string]any{}, map[string]ledger.Version{}
	for _, e := range events {
		for _, f := range e.change.Fields {
			have, ok := by[f.Name]
			newer := !ok || e.version.Compare(have) > 0
			if f.Rule == mappers.SetFirst {
				newer = !ok || e.version.Compare(have) < 0
			}
			if newer {
				want[f.Name], by[f.Name] = f.Value, e.version
			}
		}
	}
	return want
}

func TestLinkOnlyReplacesTheFormer(t *testing.T) {
	t.Parallel()
	link := func(key string) *mappers.Change {
		return &mappers.Change{Mapping: "m", Links: []mappers.Link{{To: "companies", Key: mappers.Key{Property: "k", Value: key}, Only: true}}}
	}
	rec := empty()
	fold(rec, link("one"), at(1))
	rec.Links[ledger.LinkName("companies", "", "k", "one")].Done = true
	fold(rec, link("two"), at(3))
	if former := rec.Links[ledger.LinkName("companies", "", "k", "one")]; !former.Remove || former.Done {
		t.Errorf("the former link stays: %+v", former)
	}
	if got := fold(rec, link("one"), at(2)); got.stale != 1 {
		t.Errorf("an older event brings the former link back: %+v", got)
	}
}

// The same for links: of events that link and unlink, the newest decides; of links
// of which only one may be, the newest stays.
func TestAnyOrderGivesTheSameLinks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		only := rapid.Bool().Draw(t, "only")
		var events []happening
		for i := range rapid.IntRange(1, 8).Draw(t, "events") {
			l := mappers.Link{To: "companies", Only: only, Key: mappers.Key{Property: "k", Value: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "to")}}
			if !only {
				l.Remove = rapid.Bool().Draw(t, "remove")
			}
			v := ledger.Version{At: rapid.Int64Range(1, 4).Draw(t, "at"), Event: uuid.NewSHA1(uuid.Nil, []byte{byte(i)})}
			events = append(events, happening{&mappers.Change{Mapping: "m", Links: []mappers.Link{l}}, v})
		}
		want, newest, by := map[string]bool{}, ledger.Version{}, map[string]ledger.Version{}
		for _, e := range events {
			l := e.change.Links[0]
			switch {
			case only && e.version.Compare(newest) > 0:
				newest, want = e.version, map[string]bool{l.Key.Value: true}
			case !only && e.version.Compare(by[l.Key.Value]) > 0:
				by[l.Key.Value] = e.version
				if want[l.Key.Value] = !l.Remove; l.Remove {
					delete(want, l.Key.Value)
				}
			}
		}
		rec, crm := empty(), map[string]bool{}
		order := rapid.Permutation(events).Draw(t, "order")
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(events)-1), 0, 4).Draw(t, "duplicates") {
			order = append(order, events[i])
		}
		for _, e := range order {
			fold(rec, e.change, e.version)
			if !rapid.Bool().Draw(t, "push") {
				continue
			}
			pushLinks(rec, crm)
		}
		pushLinks(rec, crm)
		if diff := cmp.Diff(want, crm); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// pushLinks is a CRM that takes every link.
func pushLinks(rec *ledger.Record, crm map[string]bool) {
	for _, l := range rec.Links {
		if l.Done {
			continue
		}
		if crm[l.Key] = !l.Remove; l.Remove {
			delete(crm, l.Key)
		}
		l.Done = true
	}
}
