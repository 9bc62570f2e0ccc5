package sinks

import (
	"testing"

	"partnersync/internal/sandbox"
)

// HubSpot shows a contact that was merged as the one that is left, under that one's id. It is found out whose that is.
func TestReadMerged(t *testing.T) {
	t.Parallel()
	w := crmNamed("hubspot").open(t, sandbox.Options{}, "")
	var ids []string
	for range 5 {
		ids = append(ids, w.Put("hubspot", "contacts", map[string]any{"lastname": "Doe"}))
	}
	if !w.Merge("hubspot", "contacts", ids[1], ids[4]) {
		t.Fatal("not merged")
	}
	var rows []Row
	for _, id := range ids[:4] {
		rows = append(rows, Row{Trace: id, Object: "contacts", ID: id, Read: []string{"lastname"}})
	}
	want := []string{ids[0], ids[4], ids[2], ids[3]}
	for i, r := range w.sink.Write(within(t), Read, rows) {
		if r.Class != OK || r.ID != want[i] || len(r.Hits) != 1 || r.Hits[0].Values["lastname"] != "Doe" {
			t.Errorf("row %d: %+v", i, r)
		}
	}
}
