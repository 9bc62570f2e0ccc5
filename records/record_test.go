package records

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/mappers"
)

// The order of versions, written out: time, then rank, then the event's id.
func TestVersionOrder(t *testing.T) {
	t.Parallel()
	low, high := uuid.UUID{15: 1}, uuid.UUID{0: 1}
	ordered := []Version{
		{0, -1, high},
		{}, // none
		{0, 0, low},
		{0, 0, high},
		{0, 1, low},
		{1, math.MinInt16, high},
		{1, -1, high},
		{1, 0, low},
		{1, 0, high},
		{1, math.MaxInt16, low},
		{2, 0, low},
		{math.MaxInt64, -1, low},
	}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("%+v to %+v: %d, want %d", a, b, got, want)
			}
		}
	}
}

// Since when a record is gone is what the newest archive says, in whatever order they come, and
// whether the record was there or not.
func TestGoneKeepsTheNewest(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int64{{3, 5}, {5, 3}} {
		r := known()
		for _, n := range order {
			r.archivedBy(at(n))
		}
		if r.Presence != Gone || r.GoneAt != at(5) {
			t.Errorf("archived by %v: %s since %+v", order, r.Presence, r.GoneAt)
		}
		r = known()
		for _, n := range order {
			r.goneBy([]*Delivery{{Cause: &Cause{Version: at(n)}}})
		}
		if r.Presence != Present || r.GoneAt != at(5) {
			t.Errorf("perhaps archived by %v: %s since %+v", order, r.Presence, r.GoneAt)
		}
	}
	s := play(unknown(), &manners{}, change(set("f", "1")), moded(mappers.Archive))
	s.Deliveries = s.Deliveries[1:] // the older event comes late
	if steps := s.steps(); len(steps) > 0 || s.Record.Presence != Gone || s.Record.GoneAt != at(2) {
		t.Errorf("nobody knew it: %d steps, %s since %+v", len(steps), s.Record.Presence, s.Record.GoneAt)
	}
}

// What two records have become that are one: acknowledged is only what both were sent, since either
// request may have been the last.
func TestMerge(t *testing.T) {
	t.Parallel()
	field := func(wanted string, v Version, acked string, at, had Version) *Field {
		return &Field{Wanted: NewValue(wanted), Version: v, Rule: string(mappers.Set), Acked: NewValue(acked), AckedAt: at, HadAt: had}
	}
	none := Version{}
	for _, tt := range []struct {
		name       string
		into, from *Field
		want       *Field
	}{
		{"both have brought the same", field("a", at(1), "a", at(1), none), field("a", at(2), "a", at(2), none), field("a", at(2), "a", at(2), none)},
		{"each has brought another", field("a", at(1), "a", at(1), none), field("b", at(2), "b", at(2), none), field("b", at(2), "b", none, at(2))},
		{"each has brought another, the newer first", field("b", at(2), "b", at(2), none), field("a", at(1), "a", at(1), none), field("b", at(2), "b", none, at(2))},
		{"the newest is on its way", field("a", at(1), "a", at(1), none), field("b", at(2), "", none, none), field("b", at(2), "a", none, at(1))},
		{"one is in doubt", field("a", at(1), "a", none, at(1)), field("a", at(2), "a", at(2), none), field("a", at(2), "a", none, at(2))},
	} {
		into, from := empty(), empty()
		into.Fields["f"], from.Fields["f"] = tt.into, tt.from
		Merge(into, from)
		if got := *into.Fields["f"]; !cmp.Equal(got, *tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, *tt.want)
		}
	}
	for _, tt := range []struct {
		name       string
		into, from Link
		want       Want
		have       Have
	}{
		{"one has it", Link{Version: at(1), Have: Exists}, Link{Version: at(2)}, Linked, Exists},
		{"the other has it", Link{Version: at(2)}, Link{Version: at(1), Have: Exists}, Linked, Exists},
		{"one may have it", Link{Version: at(1), Have: InDoubt}, Link{Version: at(2)}, Linked, InDoubt},
		{"one has made it, the other has taken it back", Link{Version: at(1), Have: Exists}, Link{Version: at(2), Want: Unlinked}, Unlinked, InDoubt},
		{"the other way round", Link{Version: at(1), Want: Unlinked}, Link{Version: at(2), Have: Exists}, Linked, InDoubt},
	} {
		into, from := empty(), empty()
		into.Links["l"], from.Links["l"] = &tt.into, &tt.from
		Merge(into, from)
		if got := into.Links["l"]; got.Want != tt.want || got.Have != tt.have {
			t.Errorf("link, %s: want %d, have %d", tt.name, got.Want, got.Have)
		}
	}
	// A link that took the place of the former one of its role may have done so to that of the other record.
	into, from := empty(), empty()
	into.Links["1"] = &Link{Key: "1", As: "x", Version: at(1), Have: Exists}
	into.Links["2"] = &Link{Key: "2", As: "y", Version: at(1), Have: Exists}
	from.Links["3"] = &Link{Key: "3", As: "x", Version: at(2), Have: Exists}
	Merge(into, from)
	for key, want := range map[string]Have{"1": InDoubt, "2": Exists, "3": InDoubt} {
		if got := into.Links[key].Have; got != want {
			t.Errorf("link %s: have %d, want %d", key, got, want)
		}
	}
	for _, order := range [][]int64{{3, 5}, {5, 3}} {
		into, from := empty(), empty()
		into.GoneAt, from.GoneAt = at(order[0]), at(order[1])
		into.LiveAt, from.LiveAt = at(order[1]), at(order[0])
		if Merge(into, from); into.GoneAt != at(5) || into.LiveAt != at(5) || !into.Merged {
			t.Errorf("gone and wanted at %v: %+v", order, into)
		}
	}
}
