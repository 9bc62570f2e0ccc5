package jobs

import (
	"testing"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/records"
)

// Two keys name one record: whoever comes by the other key waits for the batch that has it.
func TestTwoKeysOfOneRecord(t *testing.T) {
	t.Parallel()
	l := newLocks()
	one, other := records.Key{Object: "contacts", Key: "1"}, records.Key{Object: "contacts", Key: "2"}
	rec, id := uuid.UUID{15: 1}, crmID{"contacts", "7"}
	first, second := &batch{}, &batch{}
	a, b := &job{done: make(chan error, 1)}, &job{done: make(chan error, 1)}
	if !l.claimKeys(first, a, []records.Key{one}) || !l.claimRecords(first, a, []uuid.UUID{rec}) {
		t.Fatal("what is free is not to be had")
	}
	if mine, _ := l.claimID(first, id, false); !mine {
		t.Fatal("an id that nobody has is not to be had")
	}
	if !l.claimKeys(second, b, []records.Key{other}) {
		t.Fatal("another key is not to be had")
	}
	if l.claimRecords(second, b, []uuid.UUID{rec}) || !b.waiting {
		t.Error("two batches have one record")
	}
	if mine, known := l.claimID(second, id, true); mine || !known {
		t.Error("two batches have one id of the CRM")
	}
	if l.claimMet(second, ledger.Met{ID: rec, Keys: []records.Key{other}}) {
		t.Error("two batches have one record that one of them has met")
	}
	if l.claimMet(second, ledger.Met{ID: uuid.UUID{15: 2}, Keys: []records.Key{one}}) {
		t.Error("two batches have one key")
	}
	if waiters := l.release(first); len(waiters) != 1 || waiters[0] != b {
		t.Errorf("%d jobs waited", len(waiters))
	}
	if !l.claimRecords(second, b, []uuid.UUID{rec}) {
		t.Error("what is free again is not to be had")
	}
}
