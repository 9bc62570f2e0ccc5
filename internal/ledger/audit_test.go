package ledger_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

// Each record that the CRM has comes once, with all its keys, also where several have one id; those that
// are gone, of other sinks or not made yet do not.
func TestKnownRecords(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	put := func(sink, object, crmID, presence string, keys ...string) {
		id := uuid.New()
		if _, err := pool.Exec(t.Context(), `INSERT INTO records (id, sink, object, crm_id, presence) VALUES ($1, $2, $3, $4, $5)`, id, sink, object, crmID, presence); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if _, err := pool.Exec(t.Context(), `INSERT INTO record_keys (sink, object, property, value, record_id) VALUES ($1, $2, 'key', $3, $4)`, sink, object, k, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	var want []string
	for i := range 10 {
		put("crm", "deals", fmt.Sprint(i%8), "present", fmt.Sprintf("b%d", i), fmt.Sprintf("a%d", i))
		want = append(want, fmt.Sprintf("%d a%d b%d", i%8, i, i))
	}
	put("crm", "notes", "n1", "present", "n1")
	put("crm", "deals", "77", "gone", "gone")
	put("crm", "deals", "", "unknown", "new")
	put("other", "deals", "5", "present", "x")
	objects, err := l.KnownObjects(t.Context(), "crm", nil)
	if diff := cmp.Diff([]ledger.KnownObject{{Object: "deals", Records: 11}, {Object: "notes", Records: 1}}, objects); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if objects, err = l.KnownObjects(t.Context(), "crm", map[string]string{"deals": "5"}); err != nil || objects[0].Records != 3 {
		t.Errorf("%+v, %v", objects, err)
	}
	for size := 1; size <= 11; size++ {
		var got []string
		at, id := "", uuid.Nil
		for {
			list, err := l.KnownRecords(t.Context(), "crm", "deals", at, id, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 {
				break
			}
			for _, r := range list {
				text := r.CRMID
				for _, k := range r.Keys {
					text += " " + k.Key
				}
				got = append(got, text)
				at, id = r.CRMID, r.ID
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
}
