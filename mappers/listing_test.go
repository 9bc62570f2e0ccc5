package mappers

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
)

func tableOf(t *testing.T, text string) (*Table, diag.Problems) {
	t.Helper()
	n, problems := diag.Parse("tables.yaml", []byte(text))
	d := &diag.Decoding{Problems: problems}
	var table Table
	d.Decode(n, &table)
	return &table, d.Problems
}

func TestListing(t *testing.T) {
	t.Parallel()
	stages := []map[string]string{
		{"id": "1", "label": "New", "pipeline": "Sales"}, {"id": "2", "label": "Won", "pipeline": "Sales"},
		{"id": "7", "label": "Won", "pipeline": "Partners"}, {"id": "8", "label": " Open ", "pipeline": "Partners"}, {"label": "Nowhere", "pipeline": "Sales"},
	}
	for _, tt := range []struct {
		name  string
		give  string
		twice []string
		want  map[string]any // what stands for a value; nil: it misses, an error: it fails
	}{
		{"by label", `{from: crm, list: stages, object: deals, else: skip}`, []string{"won"},
			map[string]any{"new": "1", "NEW ": "1", "open": "8", "won": "fails", "Lost": nil, "nowhere": nil}},
		{"of one pipeline", `{from: crm, list: stages, object: deals, where: {pipeline: sales}}`, nil, map[string]any{"won": "2", "open": nil}},
		{"by another field", `{from: crm, list: stages, object: deals, by: id, value: label}`, nil, map[string]any{"7": "Won"}},
		{"with a word that stands in", `{from: crm, list: stages, object: deals, where: {pipeline: sales}, else: value("0")}`, nil, map[string]any{"won": "2", "open": "0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table, problems := tableOf(t, tt.give)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if _, err := table.lookup("stages", "won"); !errors.As(err, new(*Unread)) || table.Filled() {
				t.Errorf("before it is read: %v", err)
			}
			if diff := cmp.Diff(tt.twice, table.Fill(stages)); diff != "" {
				t.Errorf("two of one name (-want +got):\n%s", diff)
			}
			other, _ := tableOf(t, tt.give)
			other.Take(table)
			for _, table := range []*Table{table, other} {
				for give, want := range tt.want {
					got, err := table.lookup("stages", give)
					var miss *LookupMiss
					switch {
					case want == "fails":
						if err == nil || errors.As(err, &miss) {
							t.Errorf("%q: %v %v", give, got, err)
						}
					case want == nil:
						if !errors.As(err, &miss) {
							t.Errorf("%q: %v %v", give, got, err)
						}
					case got != want || err != nil:
						t.Errorf("%q: %v %v, want %v", give, got, err, want)
					}
				}
			}
		})
	}
	elsewhere, _ := tableOf(t, `{from: other, list: stages, object: deals}`)
	read, _ := tableOf(t, `{from: crm, list: stages, object: deals}`)
	read.Fill(stages)
	if elsewhere.Take(read); elsewhere.Filled() {
		t.Error("it takes what another CRM has")
	}
}

func TestListingMistakes(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{
		`{from: crm}`: `tables.yaml:1:1: the key "list" is missing`,
		`{from: crm, list: options, object: deals}`:  `tables.yaml:1:19: options are those of a field (write {list: options, object: deals, field: dealtype})`,
		`{from: crm, list: owners, field: dealtype}`: `tables.yaml:1:34: only options are those of a field`,
		`{from: crm, list: owners, refresh: 5s}`:     `tables.yaml:1:36: refresh is out of range (at least 1m: each time the CRM is asked for the whole list)`,
		`{from: crm, list: owners, map: {a: b}}`:     `tables.yaml:1:27: unknown key "map" (one of: by, else, field, from, list, object, refresh, value, where)`,
		`{from: crm, list: owners, else: nothing}`:   `tables.yaml:1:33: unknown variable nothing (a fixed text is written value("nothing"))`,
	} {
		if _, problems := tableOf(t, give); len(problems) == 0 || problems[0].String() != want && problems.Error() != want {
			t.Errorf("%s: %v, want %s", give, problems, want)
		}
	}
}
