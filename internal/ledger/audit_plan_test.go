package ledger

import (
	"testing"

	"github.com/google/uuid"

	"partnersync/internal/pgtest"
)

// An audit goes along the index of the CRM's ids, however many records there are.
func TestKnownRecordsAreReadByIndex(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for _, statement := range []string{
		`INSERT INTO records (id, sink, object, crm_id, presence)
			SELECT gen_random_uuid(), 'crm', o, i::text, CASE WHEN i % 9 = 0 THEN 'gone' ELSE 'present' END FROM generate_series(1, 15000) i, (VALUES ('deals'), ('notes')) o(o)`,
		`INSERT INTO record_keys (sink, object, property, value, record_id) SELECT sink, object, 'k', id::text, id FROM records`,
		`VACUUM (ANALYZE) records, record_keys`,
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	far := []string{"Seq Scan on records", "Seq Scan on record_keys", "rows=15000", "rows=30000"}
	for _, tt := range []struct {
		name, query string
		args        []any
		avoid       []string
	}{
		{"first page", knownRecords, []any{"crm", "deals", "", uuid.Nil, 100}, far},
		{"page in the middle", knownRecords, []any{"crm", "deals", "5000", uuid.Max, 100}, far},
		{"objects", knownObjects, []any{"crm", "{}"}, []string{"Seq Scan on records"}},
	} {
		t.Run(tt.name, func(t *testing.T) { cheap(t, pool, tt.query, tt.args, tt.avoid) })
	}
}
