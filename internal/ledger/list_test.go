package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/pgtest"
)

func TestLists(t *testing.T) {
	t.Parallel()
	l := New(pgtest.Pool(t))
	if got, at, err := l.List(t.Context(), "crm", "owners"); got != nil || !at.IsZero() || err != nil {
		t.Errorf("before anybody has read it: %v %v %v", got, at, err)
	}
	for _, want := range [][]map[string]string{{{"id": "7", "email": "jane@acme.test"}, {"id": "8"}}, {}} {
		if err := l.SetList(t.Context(), "crm", "owners", want); err != nil {
			t.Fatal(err)
		}
		got, at, err := l.List(t.Context(), "crm", "owners")
		if diff := cmp.Diff(want, got); diff != "" || at.IsZero() || err != nil {
			t.Errorf("%v %v (-want +got):\n%s", at, err, diff)
		}
	}
	if got, _, _ := l.List(t.Context(), "other", "owners"); got != nil {
		t.Errorf("of another sink: %v", got)
	}
}
