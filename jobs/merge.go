package jobs

import (
	"context"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/records"
)

// Two keys of ours that name one record of the CRM: that shows when the CRM answers for the
// one with the id that we know from the other. What is wanted under either is then wanted of
// one record, and both keys name it.

// meeting is what the ledger knows of the ids that a round has brought.
type meeting struct {
	met  map[crmID]ledger.Met
	lost bool // it could not be asked
}

// meet looks up which of the ids returned in this round belong to other records. It claims the
// ids first; one claimed by another batch is reported with a nil record, because the ledger
// does not show it yet.
func (b *batch) meet(ctx context.Context, steps []*records.Step, answers []records.Answer) meeting {
	ids := map[string][]string{}
	m := meeting{met: map[crmID]ledger.Met{}}
	for i, s := range steps {
		at := crmID{s.Work.Record.Object, s.Work.Learns(s, answers[i])}
		if at.id == "" {
			continue
		}
		switch mine, known := b.owner.locks.claimID(b, at, answers[i].Created); {
		case !mine:
			m.met[at] = ledger.Met{}
		case known:
			ids[at.object] = append(ids[at.object], at.id)
		}
	}
	for object, list := range ids {
		found, err := b.met(ctx, object, list)
		if err != nil {
			m.lost = true
			return m
		}
		for id, met := range found {
			m.met[crmID{object, id}] = met
		}
	}
	return m
}

// resolve reports whether the answer to a step says that its record is one that we know by
// another key, or may be. The two are then one, and what is wanted of it is sent when the jobs
// come again.
func (b *batch) resolve(ctx context.Context, s *records.Step, a records.Answer, m meeting) bool {
	id := s.Work.Learns(s, a)
	if id == "" {
		return false
	}
	other, wait := b.other(ctx, crmID{s.Work.Record.Object, id}, s.Work.Record.ID, m)
	if key := s.Work.CarriedKey(s, a); other == nil && wait == 0 && key.Value != "" {
		other, wait = b.carrier(ctx, records.Key{Object: s.Work.Record.Object, Property: key.Property, Key: b.sink.Fold(key.Property, key.Value)}, s.Work.Record.ID)
	}
	switch {
	case other != nil:
		b.become(s, a, other)
	case wait > 0:
		s.Work.Unresolved(s, a, wait, &b.env)
	default:
		return false
	}
	return true
}

// other returns the record, other than self, that the CRM knows by an id; or how long to wait
// until it can be had.
func (b *batch) other(ctx context.Context, at crmID, self uuid.UUID, m meeting) (*records.Record, time.Duration) {
	for _, r := range b.records {
		if r.ID != self && r.Object == at.object && r.CRMID == at.id && r.Presence != records.Gone {
			return r, 0
		}
	}
	if m.lost {
		return nil, 2 * time.Second
	}
	met, ok := m.met[at]
	switch {
	case !ok || met.ID == self:
		return nil, 0
	case met.ID == uuid.Nil:
		return nil, time.Second // of the batch that has learnt it as well
	}
	for _, r := range b.records {
		if r.ID == met.ID {
			return nil, 0 // it has another id by now
		}
	}
	if !b.owner.locks.claimMet(b, met) {
		return nil, time.Second
	}
	found, err := b.read(ctx, met.Keys[:1])
	if err != nil {
		return nil, 2 * time.Second
	}
	r := found[met.Keys[0]]
	if r == nil || r.CRMID != at.id || r.Presence == records.Gone {
		return nil, 0
	}
	for _, k := range met.Keys {
		b.records[k] = r
	}
	return r, 0
}

// carrier returns the record, other than self, that a key names which was found in the CRM, though nobody knows yet by
// which id the CRM knows it; or how long to wait until it can be had.
func (b *batch) carrier(ctx context.Context, k records.Key, self uuid.UUID) (*records.Record, time.Duration) {
	if r := b.records[k]; r != nil {
		if r.ID == self || r.CRMID != "" || r.Presence == records.Gone {
			return nil, 0
		}
		return r, 0
	}
	if !b.owner.locks.claimFree(b, k) {
		return nil, time.Second
	}
	found, err := b.read(ctx, []records.Key{k})
	if err != nil {
		return nil, 2 * time.Second
	}
	r := found[k]
	if r == nil || r.ID == self || r.CRMID != "" || r.Presence == records.Gone {
		return nil, 0
	}
	if !b.owner.locks.claimMet(b, ledger.Met{ID: r.ID, Keys: []records.Key{k}}) {
		return nil, time.Second
	}
	b.records[k] = r
	return r, 0
}

// become lays the record of a step into another that it turned out to be.
func (b *batch) become(s *records.Step, a records.Answer, into *records.Record) {
	w, from := s.Work, s.Work.Record
	w.Becomes(into, s, a)
	for k, r := range b.records {
		if r == from {
			b.records[k] = into
		}
	}
	delete(b.workOf, from)
	b.merges = append(b.merges, ledger.Merge{From: from.ID, Into: into.ID, Key: s.Last.Key})
	if known := b.workOf[into]; known == nil {
		w.Record = into
		b.workOf[into] = w
	} else {
		known.Take(w)
		for i, o := range b.works {
			if o == w {
				b.works = append(b.works[:i:i], b.works[i+1:]...)
				break
			}
		}
	}
}
