package jobs

import (
	"testing"
	"testing/synctest"
	"time"

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
	met := uuid.UUID{15: 3}
	for _, shut := range []records.Key{records.KeyOf(met), {Object: "contacts", Key: "3"}} {
		l.block(map[records.Key]time.Duration{shut: time.Hour})
		if l.claimMet(second, ledger.Met{ID: met, Keys: []records.Key{{Object: "contacts", Key: "3"}}}) {
			t.Errorf("a record is met that nobody may touch, by %+v", shut)
		}
		delete(l.blocked, shut)
	}
	if waiters := l.release(first); len(waiters) != 1 || waiters[0] != b {
		t.Errorf("%d jobs waited", len(waiters))
	}
	if !l.claimRecords(second, b, []uuid.UUID{rec}) {
		t.Error("what is free again is not to be had")
	}
}

// A new owner keeps off the records that the former one has announced, for the longest time of each.
func TestNewOwnerKeepsOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var announced []ledger.Announcement
		for _, left := range []time.Duration{time.Second, 3 * time.Second, 2 * time.Second} {
			announced = append(announced, ledger.Announcement{Records: []string{"deals\x1fdeal_key\x1f1", "deals\x1fdeal_key\x1f2"}, Left: left})
		}
		announced[2].Records = announced[2].Records[:1]
		o := newOwner(ledger.Lease{Sink: "crm"}, announced, nil, nil, nil, nil, nil, 0)
		o.locks.block(map[records.Key]time.Duration{{Object: "deals", Property: "deal_key", Key: "1"}: time.Second}) // which is over before
		has := func(key string) bool {
			b, j := &batch{}, &job{done: make(chan error, 1)}
			defer o.locks.release(b)
			return o.locks.claimKeys(b, j, []records.Key{{Object: "deals", Property: "deal_key", Key: key}})
		}
		for _, wait := range []time.Duration{0, 2500 * time.Millisecond} {
			time.Sleep(wait)
			if has("1") || has("2") || !has("3") {
				t.Errorf("after %s: %v", wait, o.locks.blocked)
			}
		}
		if time.Sleep(time.Second); !has("1") || !has("2") {
			t.Errorf("never opened: %v", o.locks.blocked)
		}
	})
}

// The records of a batch that could not be recorded stay shut for a while, if it has sent anything.
func TestUnrecordedStaysShut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, sent := range []bool{false, true} {
			l, k := newLocks(), records.Key{Object: "deals", Key: "1"}
			b := &batch{sent: sent, works: []*records.Work{{Record: &records.Record{ID: uuid.UUID{15: 1}}, Deliveries: []*records.Delivery{{Key: k}}}}}
			b.keepOff(3 * time.Second)
			l.release(b)
			free := func() bool {
				return l.claimKeys(&batch{}, &job{done: make(chan error, 1)}, []records.Key{k})
			}
			if time.Sleep(2 * time.Second); free() == sent {
				t.Errorf("sent %t: free %t", sent, !sent)
			}
		}
	})
}
