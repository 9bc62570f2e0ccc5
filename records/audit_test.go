package records

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// Only what the CRM has taken and has to keep is compared.
func TestStanding(t *testing.T) {
	t.Parallel()
	v := Version{At: 1, Event: uuid.New()}
	theirs := NewValue("theirs")
	for _, tt := range []struct {
		name string
		edit func(*Field)
		want Standing
	}{
		{"acknowledged", func(*Field) {}, CanCompare},
		{"of an older event", func(f *Field) { f.AckedAt.At = 0 }, NotSent},
		{"in doubt", func(f *Field) { f.doubt() }, NotSent},
		{"refused", func(f *Field) { f.Refused = v.Event; f.AckedAt = Version{} }, NotTaken},
		{"kept", func(f *Field) { f.doubt(); f.Kept = &theirs }, NotKept},
		{"without a say", func(f *Field) { f.Refused = unsaid }, NotOurs},
		{"set_on_create", func(f *Field) { f.Rule = string(mappers.SetOnCreate) }, NotOurs},
		{"set_if_empty", func(f *Field) { f.Rule = string(mappers.SetIfEmpty) }, NotOurs},
		{"set_if_empty in doubt", func(f *Field) { f.Rule = string(mappers.SetIfEmpty); f.doubt() }, NotSent},
		{"forward that they have moved on", func(f *Field) { f.Rule = string(mappers.Forward); f.doubt(); f.Kept = &theirs }, NotOurs},
		{"forward", func(f *Field) { f.Rule = string(mappers.Forward) }, CanCompare},
		{"add", func(f *Field) { f.Rule = string(mappers.Add) }, CanCompare},
		{"set_first", func(f *Field) { f.Rule = string(mappers.SetFirst) }, CanCompare},
	} {
		f := &Field{Rule: string(mappers.Set), Version: v, Wanted: NewValue("ours"), Acked: NewValue("ours"), AckedAt: v}
		tt.edit(f)
		if got := f.Standing(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		f.Resend()
		if f.Kept != nil || !f.AckedAt.IsZero() {
			t.Errorf("%s: %+v is not sent again", tt.name, f)
		}
	}
}

type view struct{}

func (view) Same(_ string, ours, shown any) bool {
	return strings.EqualFold(textOf(ours), textOf(shown))
}

func (view) Several(shown any) []string {
	text, _ := shown.(string)
	return strings.FieldsFunc(text, func(r rune) bool { return r == ';' })
}

// A field differs where its rule would have ours sent.
func TestDiffers(t *testing.T) {
	t.Parallel()
	ladder := &mappers.Ladder{Order: []string{"lead", "trial", "customer"}, Final: []string{"lost"}}
	for _, tt := range []struct {
		rule  mappers.Rule
		ours  any
		shown any
		want  bool
	}{
		{mappers.Set, "a", "A", false},
		{mappers.Set, "a", "b", true},
		{mappers.Set, "a", nil, true},
		{mappers.SetFirst, "a", "b", true},
		{mappers.Clear, nil, "b", true},
		{mappers.Forward, "trial", "Trial", false},
		{mappers.Forward, "trial", "customer", false},
		{mappers.Forward, "trial", "lost", false},
		{mappers.Forward, "trial", "lead", true},
		{mappers.Forward, "trial", "", true},
		{mappers.Forward, "trial", "elsewhere", false},
		{mappers.Forward, "lost", "customer", true},
		{mappers.Add, []any{"a", "b"}, "c;b;a", false},
		{mappers.Add, []any{"a", "b"}, "c;b", true},
		{mappers.Add, []any{"a"}, nil, true},
	} {
		f := &Field{Rule: string(tt.rule), Wanted: NewValue(tt.ours), Ladder: ladder}
		if got := f.Differs("x", tt.shown, view{}); got != tt.want {
			t.Errorf("%s: %v and %v: %v", tt.rule, tt.ours, tt.shown, got)
		}
	}
}
