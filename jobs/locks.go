package jobs

import (
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/records"
)

// locks keep two batches of a sink from touching one record at the same time, by whatever key
// of it, and everybody from touching one whose last request may still take effect. Batches
// and the scheduler use them at once; mu guards every field.
type locks struct {
	mu      sync.Mutex
	keys    map[records.Key]*batch // who works on what a key names
	records map[uuid.UUID]*batch   // who works on a record, by whatever key of it
	ids     map[crmID]*batch       // who has learnt an id of the CRM, which the ledger may not know yet
	named   map[crmID]time.Time    // ids that the CRM has named for a record which it did not make just then
	blocked map[records.Key]time.Time
}

// crmID names a record as the CRM does.
type crmID struct{ object, id string }

func newLocks() *locks {
	return &locks{
		keys: map[records.Key]*batch{}, records: map[uuid.UUID]*batch{}, ids: map[crmID]*batch{},
		named: map[crmID]time.Time{}, blocked: map[records.Key]time.Time{},
	}
}

// block keeps everybody off a record for a while, by its key or by all of them (see
// records.KeyOf). Of two such times the later counts.
func (l *locks) block(left map[records.Key]time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blockLocked(left)
}

func (l *locks) blockLocked(left map[records.Key]time.Duration) {
	now := time.Now()
	maps.DeleteFunc(l.blocked, func(_ records.Key, until time.Time) bool { return !until.After(now) })
	for k, d := range left {
		if until := now.Add(d); until.After(l.blocked[k]) {
			l.blocked[k] = until
		}
	}
}

// claimKeys takes what keys name for b, all or nothing. It returns false where another batch
// works on one of them, which j then waits for, or nobody may touch it, when j goes back to
// the queue.
func (l *locks) claimKeys(b *batch, j *job, keys []records.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wait(j, keys) || !claim(l.keys, b, j, keys) {
		return false
	}
	b.claimedKeys = append(b.claimedKeys, keys...)
	return true
}

// claimRecords takes records for b, all or nothing, after their keys: two keys may name one
// record. It returns false as claimKeys does.
func (l *locks) claimRecords(b *batch, j *job, ids []uuid.UUID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := make([]records.Key, len(ids))
	for i, id := range ids {
		keys[i] = records.KeyOf(id)
	}
	if l.wait(j, keys) || !claim(l.records, b, j, ids) {
		return false
	}
	b.claimedRecords = append(b.claimedRecords, ids...)
	return true
}

// wait puts a job back until the last of the keys may be touched again.
func (l *locks) wait(j *job, keys []records.Key) bool {
	var left time.Duration
	for _, k := range keys {
		left = max(left, time.Until(l.blocked[k]))
	}
	if left > 0 {
		j.putBack(left)
	}
	return left > 0
}

func claim[K comparable](held map[K]*batch, b *batch, j *job, all []K) bool {
	for _, k := range all {
		if by := held[k]; by != nil && by != b {
			j.waiting = true
			by.waiters = append(by.waiters, j)
			return false
		}
	}
	for _, k := range all {
		held[k] = b
	}
	return true
}

// holds reports whether b has the record.
func (l *locks) holds(b *batch, id uuid.UUID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[id] == b
}

// claimFree takes a key that b has come upon, unless another batch has it, or nobody may touch
// what it names.
func (l *locks) claimFree(b *batch, k records.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if by := l.keys[k]; by != nil && by != b || time.Until(l.blocked[k]) > 0 {
		return false
	}
	l.keys[k] = b
	b.claimedKeys = append(b.claimedKeys, k)
	return true
}

// claimMet takes a record that b has come upon, by all its keys, unless another batch works
// on it or is about to, or nobody may touch it.
func (l *locks) claimMet(b *batch, met ledger.Met) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if by := l.records[met.ID]; by != nil && by != b || time.Until(l.blocked[records.KeyOf(met.ID)]) > 0 {
		return false
	}
	for _, k := range met.Keys {
		if by := l.keys[k]; by != nil && by != b || time.Until(l.blocked[k]) > 0 {
			return false
		}
	}
	l.records[met.ID] = b
	b.claimedRecords = append(b.claimedRecords, met.ID)
	for _, k := range met.Keys {
		l.keys[k] = b
		b.claimedKeys = append(b.claimedKeys, k)
	}
	return true
}

// lately is how long the answer to a create may be on its way while others learn of the record.
const lately = 10 * time.Minute

// claimID takes an id of the CRM that b has learnt, until b has recorded whose it is. mine is
// false if another batch holds the id, or nobody may touch the record. known is false only for a record just created whose id
// nobody has seen before; then no lookup is needed.
func (l *locks) claimID(b *batch, id crmID, created bool) (mine, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if by := l.ids[id]; by != nil && by != b || time.Until(l.blocked[records.KeyOfID(id.object, id.id)]) > 0 {
		return false, true
	}
	l.ids[id] = b
	b.claimedIDs = append(b.claimedIDs, id)
	_, known = l.named[id]
	if !created {
		if len(l.named) >= cached {
			maps.DeleteFunc(l.named, func(_ crmID, at time.Time) bool { return time.Since(at) > lately })
			if len(l.named) >= cached {
				clear(l.named) // rather forget some than grow without end
			}
		}
		l.named[id], known = time.Now(), true
	}
	return true, known
}

// release opens the records of a batch that has ended, and returns the jobs that waited for
// it. Records with a request that may still take effect stay blocked.
func (l *locks) release(b *batch) []*job {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range b.claimedKeys {
		delete(l.keys, k)
	}
	for _, id := range b.claimedRecords {
		delete(l.records, id)
	}
	for _, id := range b.claimedIDs {
		delete(l.ids, id)
	}
	left, _ := b.inDoubt()
	l.blockLocked(left)
	return b.waiters
}
