package records

import (
	"testing"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// A process that dies after its archive leaves behind since when the record is gone: an older
// event that finds it gone must not make it again.
func TestIntendToArchive(t *testing.T) {
	t.Parallel()
	saved, ended := Version{At: 1}, Version{At: 2}
	r := New(uuid.UUID{1}, Key{Object: "seats", Property: "seat_key", Key: "s"})
	r.CRMID, r.Presence, r.New = "7", Present, false
	w := &Work{Record: r, Deliveries: []*Delivery{{Cause: &Cause{Version: ended}, Change: &mappers.Change{Mode: mappers.Archive}}}}
	stored := w.Intend(&Step{Do: Archive, Work: w, Mode: mappers.Archive}, nil)
	if stored == nil {
		t.Fatal("nothing is stored")
	}
	older := &Delivery{Cause: &Cause{Version: saved}, Change: &mappers.Change{Mode: mappers.Upsert, Recreate: true}}
	newer := &Delivery{Cause: &Cause{Version: Version{At: 3}}, Change: &mappers.Change{Mode: mappers.Upsert, Recreate: true}}
	if older.recreates(stored) || !newer.recreates(stored) {
		t.Errorf("gone at %v: the older makes it again: %v, the newer: %v", stored.GoneAt, older.recreates(stored), newer.recreates(stored))
	}
	if !r.GoneAt.IsZero() {
		t.Error("the archive counts before it is carried out")
	}
}
