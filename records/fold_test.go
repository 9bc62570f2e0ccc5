package records

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"partnersync/mappers"
)

func at(n int64) Version {
	return Version{At: n, Event: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n))}
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

func empty() *Record {
	return &Record{Fields: map[string]*Field{}, Links: map[string]*Link{}}
}

// pendingOf are the fields that the CRM lacks.
func pendingOf(rec *Record) map[string]Sent { return (&Work{Record: rec}).pending() }

// take acknowledges everything that is pending, as a CRM that accepts all does.
func take(rec *Record) {
	rec.acknowledge(pendingOf(rec), nil)
}

func TestFold(t *testing.T) {
	t.Parallel()
	old, mid, late := at(1), at(2), at(3)
	for _, tt := range []struct {
		name  string
		give  func(rec *Record) Tally // the last fold's Tally
		want  Tally
		value any // wanted in "stage" afterwards
	}{
		{"first value", func(r *Record) Tally { return Fold(r, change(set("stage", "a")), mid) }, Tally{Pending: 1}, "a"},
		{"newer value", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			take(r)
			return Fold(r, change(set("stage", "b")), late)
		}, Tally{Pending: 1}, "b"},
		{"older value", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			return Fold(r, change(set("stage", "b")), old)
		}, Tally{Stale: 1}, "a"},
		{"same value, acknowledged", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			take(r)
			return Fold(r, change(set("stage", "a")), late)
		}, Tally{Same: 1}, "a"},
		{"same value, not acknowledged", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			return Fold(r, change(set("stage", "a")), late)
		}, Tally{Pending: 1}, "a"},
		{"back to what the CRM has", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), old)
			take(r)
			Fold(r, change(set("stage", "b")), mid)
			return Fold(r, change(set("stage", "a")), late)
		}, Tally{Same: 1}, "a"},
		{"back to what the CRM may have", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), old)
			take(r)
			Fold(r, change(set("stage", "b")), mid)
			r.doubt(map[string]Sent{"stage": {Version: mid}}) // b may have arrived
			return Fold(r, change(set("stage", "a")), late)
		}, Tally{Pending: 1}, "a"},
		{"the same event again, acknowledged", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			take(r)
			return Fold(r, change(set("stage", "a")), mid)
		}, Tally{Acked: 1}, "a"},
		{"the same event under a new mapping", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			take(r)
			return Fold(r, change(set("stage", "z")), mid)
		}, Tally{Pending: 1}, "z"},
		{"a refused value comes with the next event", func(r *Record) Tally {
			Fold(r, change(set("stage", "bad")), old)
			r.Fields["stage"].Refused = old.Event
			return Fold(r, change(set("stage", "bad")), mid)
		}, Tally{Refused: 1}, "bad"},
		{"another value after a refused one", func(r *Record) Tally {
			Fold(r, change(set("stage", "bad")), old)
			r.Fields["stage"].Refused = old.Event
			return Fold(r, change(set("stage", "good")), mid)
		}, Tally{Pending: 1}, "good"},
		{"a refused value is tried again by a replay", func(r *Record) Tally {
			Fold(r, change(set("stage", "bad")), old)
			r.Fields["stage"].Refused = old.Event
			return Fold(r, change(set("stage", "bad")), old)
		}, Tally{Pending: 1}, "bad"},
		{"first touch keeps the first", func(r *Record) Tally {
			Fold(r, change(setFirst("stage", "a")), mid)
			return Fold(r, change(setFirst("stage", "b")), late)
		}, Tally{Same: 1}, "a"},
		{"first touch takes an older one", func(r *Record) Tally {
			Fold(r, change(setFirst("stage", "a")), mid)
			take(r)
			return Fold(r, change(setFirst("stage", "b")), old)
		}, Tally{Pending: 1}, "b"},
		{"rewrite sends what the CRM has", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			take(r)
			c := change(set("stage", "a"))
			c.Rewrite = true
			return Fold(r, c, late)
		}, Tally{Pending: 1}, "a"},
		{"touch alone wants nothing", func(r *Record) Tally {
			Fold(r, change(set("stage", "a")), mid)
			return Fold(r, change(mappers.Field{Name: "synced", Rule: mappers.Touch, Value: "x"}), late)
		}, Tally{}, "a"},
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
	version Version
}

// TestAnyOrderGivesTheSameWantedState is invariant 2 of docs/design.md: timed events
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
			v := Version{At: rapid.Int64Range(1, 4).Draw(t, "at"), Rank: int16(rapid.IntRange(0, 1).Draw(t, "rank")), Event: uuid.NewSHA1(uuid.Nil, []byte{byte(i)})}
			events = append(events, happening{c, v})
		}
		want := oracle(events)

		rec := empty()
		crm := map[string]any{}
		push := func() {
			sent := pendingOf(rec)
			for name := range sent {
				crm[name] = rec.Fields[name].Wanted.Go
			}
			if rapid.Bool().Draw(t, "answered") {
				rec.acknowledge(sent, nil)
			} else {
				rec.doubt(sent) // applied, but nobody told us
			}
		}
		order := rapid.Permutation(events).Draw(t, "order")
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(events)-1), 0, 4).Draw(t, "duplicates") {
			order = append(order, events[i])
		}
		for _, e := range order {
			Fold(rec, e.change, e.version)
			if rapid.Bool().Draw(t, "push") {
				push()
			}
		}
		for range 100 {
			if len(pendingOf(rec)) == 0 {
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
	want, by := map[string]any{}, map[string]Version{}
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
	Fold(rec, link("one"), at(1))
	rec.Links[LinkName("companies", "", "k", "one")].Have = Exists
	Fold(rec, link("two"), at(3))
	if former := rec.Links[LinkName("companies", "", "k", "one")]; former.Need() != TakeBack {
		t.Errorf("the former link stays: %+v", former)
	}
	if got := Fold(rec, link("one"), at(2)); got.Stale != 1 {
		t.Errorf("an older event brings the former link back: %+v", got)
	}
}

// The same for links: the newest statement about a link decides, and no link older than the
// newest `only` of its kind stays. The oracle knows no order of arrival: it looks at all events.
func TestAnyOrderGivesTheSameLinks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var events []happening
		for i := range rapid.IntRange(1, 8).Draw(t, "events") {
			events = append(events, happening{&mappers.Change{Mapping: "m", Links: []mappers.Link{drawLink(t)}},
				Version{At: rapid.Int64Range(1, 4).Draw(t, "at"), Event: uuid.NewSHA1(uuid.Nil, []byte{byte(i)})}})
		}
		rec, crm := empty(), map[string]bool{}
		order := rapid.Permutation(events).Draw(t, "order")
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(events)-1), 0, 4).Draw(t, "duplicates") {
			order = append(order, events[i])
		}
		for _, e := range order {
			Fold(rec, e.change, e.version)
			if rapid.Bool().Draw(t, "push") {
				pushLinks(rec, crm)
			}
		}
		pushLinks(rec, crm)
		if diff := cmp.Diff(linksOracle(events), crm); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func drawLink(t *rapid.T) mappers.Link {
	l := mappers.Link{To: "companies", Key: mappers.Key{Property: "k", Value: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "to")}}
	switch rapid.SampledFrom([]string{"link", "only", "unlink"}).Draw(t, "statement") {
	case "only":
		l.Only = true
	case "unlink":
		l.Remove = true
	}
	return l
}

func linksOracle(events []happening) map[string]bool {
	want, by := map[string]bool{}, map[string]Version{}
	var only Version
	for _, e := range events {
		for _, l := range e.change.Links {
			if l.Only && !l.Remove && e.version.Compare(only) > 0 {
				only = e.version
			}
			if e.version.Compare(by[l.Key.Value]) > 0 {
				by[l.Key.Value] = e.version
				if want[l.Key.Value] = true; l.Remove {
					delete(want, l.Key.Value)
				}
			}
		}
	}
	for key := range want {
		if by[key].Compare(only) < 0 {
			delete(want, key)
		}
	}
	return want
}

// All orders of two and three events of {link, only, unlink} × {A, B}.
func TestOnlyAndUnlinkCommute(t *testing.T) {
	t.Parallel()
	var kinds []mappers.Link
	for _, key := range []string{"A", "B"} {
		for _, l := range []mappers.Link{{}, {Only: true}, {Remove: true}} {
			l.To, l.Key = "firms", mappers.Key{Property: "firm_key", Value: key}
			kinds = append(kinds, l)
		}
	}
	count := 0
	check := func(links ...mappers.Link) {
		var events []happening
		for i, l := range links {
			events = append(events, happening{&mappers.Change{Mapping: "m", Links: []mappers.Link{l}}, at(int64(i + 1))})
		}
		want := linksOracle(events)
		permute(len(events), func(order []int) {
			count++
			rec := empty()
			for _, i := range order {
				Fold(rec, events[i].change, events[i].version)
			}
			got := map[string]bool{}
			for _, l := range rec.Links {
				if l.Want == Linked {
					got[l.Key] = true
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%v in the order %v: %s", links, order, diff)
			}
		})
	}
	for _, a := range kinds {
		for _, b := range kinds {
			check(a, b)
			for _, c := range kinds {
				check(a, b, c)
			}
		}
	}
	if count != 36*2+216*6 {
		t.Fatal(count)
	}
}

func permute(n int, f func([]int)) {
	var walk func(done, left []int)
	walk = func(done, left []int) {
		if len(left) == 0 {
			f(done)
		}
		for i := range left {
			rest := append(append([]int{}, left[:i]...), left[i+1:]...)
			walk(append(append([]int{}, done...), left[i]), rest)
		}
	}
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	walk(nil, list)
}

// pushLinks is a CRM that takes every link.
func pushLinks(rec *Record, crm map[string]bool) {
	for _, l := range rec.Links {
		switch l.Need() {
		case Make:
			crm[l.Key] = true
		case TakeBack:
			delete(crm, l.Key)
		}
		l.done()
	}
}

// done notes that the CRM has what is wanted of the link.
func (l *Link) done() {
	l.Have = Exists
	if l.Want == Unlinked {
		l.Have = Absent
	}
}

// Merging two wanted states gives what folding all events into one gives.
func TestMergeLaw(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		whole, one, two := empty(), empty(), empty()
		for i := range rapid.IntRange(1, 8).Draw(t, "events") {
			c := change()
			for _, name := range []string{"a", "b"} {
				if v := rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, name); v != "" {
					c.Fields = append(c.Fields, set(name, v), setFirst("first_"+name, v))
				}
			}
			if rapid.Bool().Draw(t, "linked") {
				c.Links = append(c.Links, drawLink(t))
			}
			v := at(int64(rapid.IntRange(1, 50).Draw(t, "at")*10 + i))
			Fold(whole, c, v)
			Fold(rapid.SampledFrom([]*Record{one, two}).Draw(t, "record"), c, v)
		}
		Merge(one, two)
		if diff := cmp.Diff(wantedOf(whole), wantedOf(one)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// wantedOf is what is wanted of a record; a link that was taken back is as good as none.
func wantedOf(rec *Record) map[string]string {
	out := map[string]string{}
	for name, f := range rec.Fields {
		out[name] = fmt.Sprint(f.Wanted.Go, f.Version)
	}
	for name, l := range rec.Links {
		if l.Want == Linked {
			out[strings.ReplaceAll(name, "\x1f", ".")] = fmt.Sprint(l.Version)
		}
	}
	return out
}
