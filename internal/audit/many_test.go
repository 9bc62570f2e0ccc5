package audit_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"partnersync/internal/audit"
)

// Of many records, a hundred are read with a request, and what stays in memory is a page of them.
// PARTNERSYNC_AUDIT says of how many; what is held is told.
func TestMany(t *testing.T) {
	c := crmNamed("hubspot")
	r := newRig(t, c, c.plain(), "")
	n := 3000
	if text := os.Getenv("PARTNERSYNC_AUDIT"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	r.send("deal", "d-0", "name", "One", "title", "first")
	var fields string
	if err := r.pool.QueryRow(t.Context(), "SELECT fields::text FROM records WHERE object = 'orders'").Scan(&fields); err != nil {
		t.Fatal(err)
	}
	var rows, keys [][]any
	for i := 1; i < n; i++ {
		name, id := fmt.Sprintf("d-%d", i), uuid.Must(uuid.NewV7())
		crmID := r.box.Put(c.name, c.object, map[string]any{c.key: name, c.needed: "One", c.title: "first"})
		rows = append(rows, []any{id, "crm", c.object, crmID, "present", fields})
		keys = append(keys, []any{"crm", c.object, c.key, name, id})
	}
	for table, data := range map[string][][]any{"records": rows, "record_keys": keys} {
		columns := map[string][]string{"records": {"id", "sink", "object", "crm_id", "presence", "fields"}, "record_keys": {"sink", "object", "property", "value", "record_id"}}[table]
		if _, err := r.pool.CopyFrom(t.Context(), pgx.Identifier{table}, columns, pgx.CopyFromRows(data)); err != nil {
			t.Fatal(err)
		}
	}
	rows, keys = nil, nil
	if _, err := r.pool.Exec(t.Context(), "ANALYZE records, record_keys"); err != nil {
		t.Fatal(err)
	}
	edited := r.id(fmt.Sprintf("d-%d", n/2))
	r.edit(edited, c.title, "by sales")

	var most uint64
	before := held()
	began, sent := time.Now(), len(r.box.Requests())
	found, report, err := r.audit(func(o *audit.Options) {
		o.Progress = func(done, total int64) {
			if done%20000 < 1000 {
				most = max(most, held())
			}
		}
	})
	if err != nil || report.Records != int64(n) || len(found) != 1 || found[0].ID != edited {
		t.Fatalf("%v, %d records, %d differences", err, report.Records, len(found))
	}
	requests := len(r.box.Requests()) - sent
	t.Logf("%d records in %d requests and %s; %.1f MB held beside what was held before", n, requests, time.Since(began).Round(time.Millisecond), (float64(most)-float64(before))/1e6)
	if n == 3000 && requests > n/100+5 { // the log of requests is short
		t.Errorf("%d requests", requests)
	}
}

// held is what the process keeps in memory, the CRM's records included.
func held() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
