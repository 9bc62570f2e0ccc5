package jobs

import (
	"strings"
	"testing"

	"partnersync/internal/ledger"
)

func recreated() string {
	return strings.Replace(archiving, "    set: {name: event.name}\n", "    if_deleted: recreate\n    set: {name: event.name}\n    set_first: {phone: event.name}\n", 1)
}

// Somebody deletes the record in the CRM: the next event makes it again, with all that is known.
func TestDeletedThereIsMadeAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: recreated()})
	r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
	first := r.box.Records("hubspot", "companies")[0]
	if !r.box.Archive("hubspot", "companies", first.ID) {
		t.Fatal("not deleted")
	}
	f := r.deliver(shopEvent("company.updated", "c1", 2, "name", "Acme Inc"))[0]
	if f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	got := r.records("companies", "company_key")["c1"]
	if got["name"] != "Acme Inc" || got["phone"] != "Acme" {
		t.Errorf("%v", got)
	}
	if now := r.box.Records("hubspot", "companies"); len(now) != 1 || now[0].ID == first.ID || f.Deliveries[0].CRMID != now[0].ID {
		t.Errorf("%v, %+v", now, f.Deliveries[0])
	}
}

// With recreate the newest event decides whether the record is there.
func TestArchivedIsMadeAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: recreated()})
	for i, step := range []struct {
		event event
		want  ledger.Outcome
		there bool
	}{
		{shopEvent("company.deleted", "c1", 5), ledger.Skipped, false},
		{shopEvent("company.created", "c1", 1, "name", "Acme"), ledger.Stale, false},
		{shopEvent("company.updated", "c1", 6, "name", "Acme Inc"), ledger.Delivered, true},
		{shopEvent("company.deleted", "c1", 4), ledger.Stale, true},
		{shopEvent("company.deleted", "c1", 7), ledger.Delivered, false},
		{shopEvent("company.updated", "c1", 8, "name", "Acme Inc"), ledger.Delivered, true},
	} {
		if f := r.deliver(step.event)[0]; f.Outcome != step.want {
			t.Errorf("step %d: %+v", i, f)
		}
		got, there := r.records("companies", "company_key")["c1"]
		if there != step.there || there && (got["phone"] != "Acme" || got["name"] != "Acme Inc") {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// A record that the CRM had before we came is archived too: it is looked up by our key.
func TestArchiveWhatOnlyTheCRMKnows(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{mappings: archiving})
	r.deliver(shopEvent("company.created", "c1", 1, "name", "Acme"))
	r.stop()
	if _, err := r.pool.Exec(r.context(), `DELETE FROM record_keys`); err != nil {
		t.Fatal(err)
	}
	r.start()
	if f := r.deliver(shopEvent("company.deleted", "c1", 2))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if n := len(r.box.Records("hubspot", "companies")); n != 0 {
		t.Errorf("%d companies", n)
	}
	// What comes late does not make it.
	if f := r.deliver(shopEvent("company.updated", "c2", 2, "name", "Acme"))[0]; f.Outcome != ledger.Delivered {
		t.Errorf("%+v", f)
	}
	if f := r.deliver(shopEvent("company.updated", "c1", 1, "name", "Acme Co"))[0]; f.Outcome != ledger.Skipped || f.Reason != "the record is archived" {
		t.Errorf("%+v", f)
	}
}
