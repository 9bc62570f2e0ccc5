package ledger

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"partnersync/internal/pgtest"
	"partnersync/mappers"
	"partnersync/records"
)

// someFields draws fields in every state that they can be in.
func someFields(t *rapid.T) map[string]*Field {
	versions := []Version{{At: 1_700_000_000_000_000, Event: uuid.UUID{1}}, {At: 1_700_000_000_000_000, Rank: 1, Event: uuid.UUID{2}}, {At: -5, Rank: -1, Event: uuid.UUID{3}}}
	version := rapid.SampledFrom(versions)
	value := rapid.Map(rapid.SampledFrom([]any{nil, "", "a", `"quoted\`, "\u00e9\u2028", int64(7), true, []any{"x", "y"}}), records.NewValue)
	out := map[string]*Field{}
	for i := range rapid.IntRange(0, 6).Draw(t, "fields") {
		f := &Field{
			Wanted: value.Draw(t, "wanted"), Version: version.Draw(t, "version"), Mapping: rapid.SampledFrom([]string{"deals", "leads", `"`}).Draw(t, "mapping"),
			Rule: string(rapid.SampledFrom([]mappers.Rule{mappers.Set, mappers.SetFirst, mappers.Forward}).Draw(t, "rule")),
		}
		switch rapid.IntRange(0, 3).Draw(t, "acked") {
		case 1:
			f.Acked, f.AckedAt = f.Wanted, f.Version
		case 2:
			f.Acked, f.AckedAt = value.Draw(t, "value"), version.Draw(t, "at")
		case 3:
			f.Acked, f.HadAt = value.Draw(t, "value"), version.Draw(t, "at")
		}
		if rapid.Bool().Draw(t, "refused") {
			f.Refused = uuid.UUID{9}
		}
		if rapid.Bool().Draw(t, "kept") {
			v := value.Draw(t, "value")
			f.Kept = &v
		}
		if f.Rule == string(mappers.Forward) {
			f.Ladder = &mappers.Ladder{Order: []string{"a", "b"}, Final: []string{"c"}}
		}
		if rapid.Bool().Draw(t, "added") {
			f.Added = []string{"x"}
		}
		out[rapid.SampledFrom([]string{"a", "b", "dealname", "t", "m", "v", fmt.Sprint(i)}).Draw(t, "name")] = f
	}
	return out
}

func TestFieldsComeBack(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	rapid.Check(t, func(rt *rapid.T) {
		want := someFields(rt)
		text := encodeFields(want)
		if rapid.IntRange(0, 9).Draw(rt, "stored") == 0 { // Postgres has an order of its own
			if err := pool.QueryRow(t.Context(), "SELECT $1::jsonb::text", string(text)).Scan(&text); err != nil {
				rt.Fatal(err)
			}
		}
		got, err := decodeFields(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			rt.Fatalf("%v\n%s\n%s", err, diff, text)
		}
	})
}

// What builds before this one have stored reads the same.
func TestFieldsOfFormerBuilds(t *testing.T) {
	t.Parallel()
	event := uuid.MustParse("01a230f5-4ff0-7ba7-9953-af368ad9d26b")
	first, second := Version{At: 1, Rank: 2, Event: event}, Version{At: 3, Event: event}
	want := map[string]*Field{
		"amount": {Wanted: records.NewValue("95"), Version: second, Mapping: "deals", Rule: "set", Acked: records.NewValue("90"), AckedAt: first},
		"stage":  {Wanted: records.NewValue("won"), Version: first, Mapping: "stages", Rule: "set_first", Acked: records.NewValue("won"), AckedAt: first},
		"lost":   {Wanted: records.NewValue(nil), Version: second, Mapping: "deals", Rule: "set", Acked: records.NewValue("x"), HadAt: first, Refused: event},
	}
	const stored = `{"lost": {"a": "x", "h": [1, 2, "01a230f5-4ff0-7ba7-9953-af368ad9d26b"], "m": "deals", "r": "set", "t": [3, 0, "01a230f5-4ff0-7ba7-9953-af368ad9d26b"], "v": null, "x": true},
		"stage": {"k": true, "m": "stages", "r": "set_first", "t": [1, 2, "01a230f5-4ff0-7ba7-9953-af368ad9d26b"], "v": "won"},
		"amount": {"a": "90", "b": [1, 2, "01a230f5-4ff0-7ba7-9953-af368ad9d26b"], "m": "deals", "r": "set", "t": [3, 0, "01a230f5-4ff0-7ba7-9953-af368ad9d26b"], "v": "95"}}`
	got, err := decodeFields([]byte(stored))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []string{`{"":{"t":[],"m":[]}}`, `{"":{"t":[[1,2,"01a230f5-4ff0-7ba7-9953-af368ad9d26b"]],"m":["deals"]},"a":{"v":1,"t":1}}`, `{"a":{"v":1,"t":0,"m":"deals"}}`} {
		if got, err := decodeFields([]byte(bad)); err == nil {
			t.Errorf("%s is read as %v", bad, got)
		}
	}
}

// A record of sixteen fields of one event fits in a third of what it took.
func TestFieldsAreSmall(t *testing.T) {
	t.Parallel()
	fields := map[string]*Field{}
	v := Version{At: 1_700_000_000_000_000, Event: uuid.Must(uuid.NewV7())}
	for i := range 16 {
		f := &Field{Wanted: records.NewValue("value 12"), Version: v, Mapping: "deals", Rule: "set"}
		f.Acked, f.AckedAt = f.Wanted, v
		fields[fmt.Sprintf("field_%d", i)] = f
	}
	if n := len(encodeFields(fields)); n > 800 {
		t.Errorf("%d bytes", n)
	}
	if got := slices.Clone(encodeFields(nil)); string(got) != "{}" {
		t.Errorf("%s", got)
	}
}
