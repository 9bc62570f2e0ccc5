package sinks

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Invariant 10, written out: what each status means to each operation of each
// preset, where the answer says nothing else. A file for each, for people to read.
func TestStatusTables(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 23, 30, 0, 0, time.UTC)
	for _, name := range Presets() {
		desc := loadYAML(t, presetConfigs[name])
		tables := map[string][]string{} // table, the operations that have it
		for _, op := range slices.Sorted(maps.Keys(desc.operations)) {
			if desc.operations[op][0].through {
				continue
			}
			table := statusTable(desc, op, now)
			tables[table] = append(tables[table], string(op))
		}
		tables[statusTable(desc, Token, now)] = append(tables[statusTable(desc, Token, now)], string(Token))
		var out []string
		for table, ops := range tables {
			out = append(out, strings.Join(ops, " ")+"\n"+table)
		}
		slices.Sort(out)
		got := strings.Join(out, "\n")
		golden := "testdata/statuses/" + name + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// statusTable is a line for each run of statuses that mean the same.
func statusTable(desc *Description, op Operation, now time.Time) string {
	var b strings.Builder
	from, last := 100, ""
	for status := 100; status <= 600; status++ {
		means := ""
		if status < 600 {
			v := desc.judge(op, &answer{status: status, header: http.Header{}, json: true}, now)
			means = string(v.class)
			if v.rule != nil && v.rule.Absent {
				means += ", absent"
			}
			if v.wait > 0 {
				means += ", wait " + v.wait.String()
			}
			if v.inDoubt(status) && op != Token {
				means += ", in doubt"
			}
			if v.renews(status) && desc.auth.renewable() && op != Token {
				means += ", after a new token"
			}
		}
		if status > 100 && means != last {
			if b.WriteString("  " + fmt.Sprint(from)); status-1 > from {
				fmt.Fprintf(&b, "-%d", status-1)
			}
			b.WriteString(" " + last + "\n")
			from = status
		}
		last = means
	}
	return b.String()
}
