package sinks

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// create_only of a key that the CRM has already: a conflict, so that the record is
// left as it is, where the CRM minds. The other rows are made.
func TestConformCreateWhatIsThere(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		if c.name == "pipedrive" {
			return // it has no unique values: two creates make two records
		}
		w := c.open(t, sandbox.Options{}, "")
		rows := c.rows(4)
		for i := range rows {
			rows[i].Values[c.key] = rows[i].Key
		}
		if r := w.sink.Write(within(t), Create, rows[1:2])[0]; r.Class != OK {
			t.Fatalf("%+v", r)
		}
		got := w.sink.Write(within(t), Create, rows)
		if diff := cmp.Diff([]Class{OK, Conflict, OK, OK}, classesOf(got)); diff != "" {
			t.Fatalf("%s\n%+v", diff, got)
		}
		if got[1].Sent || w.count() != 4 {
			t.Errorf("%+v, %d records", got[1], w.count())
		}
		checkWords(t, got[1])
	})
}

// The same where the CRM says it of the whole request: found out row by row.
func TestConformCreateRefusedWhole(t *testing.T) {
	t.Parallel()
	c := crmNamed("hubspot")
	w := c.open(t, sandbox.Options{}, "")
	w.Fault(sandbox.Fault{Contains: `"PS-1"`, Effect: sandbox.EffectStatus, Status: 400,
		Body: `{"status":"error","category":"VALIDATION_ERROR","message":"no","errors":[{"message":"taken","code":"CONFLICTING_UNIQUE_VALUE"}]}`})
	rows := c.rows(3)
	for i := range rows {
		rows[i].Values[c.key] = rows[i].Key
	}
	got := w.sink.Write(within(t), Create, rows)
	if diff := cmp.Diff([]Class{OK, Conflict, OK}, classesOf(got)); diff != "" || got[1].Message != "taken" {
		t.Errorf("%s\n%+v", diff, got)
	}
	// Of an upsert it is a value of another record, which no second try makes free.
	if r := w.sink.Write(within(t), Upsert, rows[1:2])[0]; r.Class != Rejected || r.Code != "CONFLICTING_UNIQUE_VALUE" {
		t.Errorf("%+v", r)
	}
}
