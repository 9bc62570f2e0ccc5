package records

import "testing"

// What a link needs, of all its states.
func TestNeed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want    Want
		have    Have
		verdict Verdict
		need    Action
	}{
		{Linked, Absent, Open, Make},
		{Linked, InDoubt, Open, Make}, // made twice does no harm
		{Linked, Exists, Open, Nothing},
		{Unlinked, Absent, Open, Nothing},
		{Unlinked, InDoubt, Open, TakeBack},
		{Unlinked, Exists, Open, TakeBack},
		// The CRM has refused it, until another statement comes.
		{Linked, Absent, Refused, Nothing},
		{Linked, InDoubt, Refused, Nothing},
		{Linked, Exists, Refused, Nothing},
		{Unlinked, Absent, Refused, Nothing},
		{Unlinked, InDoubt, Refused, Nothing},
		{Unlinked, Exists, Refused, Nothing},
		// Its mapping does without, since the target is missing.
		{Linked, Absent, Waived, Nothing},
		{Linked, InDoubt, Waived, Nothing},
		{Linked, Exists, Waived, Nothing},
		{Unlinked, Absent, Waived, Nothing},
		{Unlinked, InDoubt, Waived, Nothing},
		{Unlinked, Exists, Waived, Nothing},
	} {
		l := &Link{Want: tt.want, Have: tt.have, Verdict: tt.verdict}
		if got := l.Need(); got != tt.need {
			t.Errorf("want %d, have %d, verdict %d: needs %d, want %d", tt.want, tt.have, tt.verdict, got, tt.need)
		}
	}
}
