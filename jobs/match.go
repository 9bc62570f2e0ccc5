package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/records"
)

// Two events under two keys may be about one thing that the CRM does not have yet. Both would
// look for it by the same value, find nothing, and make it. So who may make a record that is
// looked for has its identities, like its keys: one batch at a time, and until a search shows what
// was made.

// identity stands for the records of an object that fit in one way.
func (b *batch) identity(object string, m mappers.Match) records.Key {
	h := sha256.New()
	for _, t := range m {
		for _, part := range []string{t.Property, b.sink.Fold(t.Property, strings.TrimSpace(t.Value))} {
			h.Write(append([]byte(part), 0))
		}
	}
	return records.Key{Object: object, Property: "match", Key: hex.EncodeToString(h.Sum(nil)[:16])}
}

// identitiesOf are those of the records of a job that may be made: that we do not know, or that may
// have to be made again.
func (b *batch) identitiesOf(j *job) []records.Key {
	var keys []records.Key
	add := func(k records.Key, ways []mappers.Match, recreate bool) {
		if known := b.records[k]; known != nil && (known.CRMID != "" || known.Presence != records.Unknown) && !recreate {
			return
		}
		for _, m := range ways {
			keys = append(keys, b.identity(k.Object, m))
		}
	}
	for _, r := range j.routes {
		for _, d := range r.deliveries {
			if !d.Open() {
				continue
			}
			add(d.Key, d.Change.Match, d.Change.Recreate)
			for _, l := range d.Change.Links {
				if l.Missing == "create" && !l.Remove {
					add(b.linkKey(l), l.Match, true)
				}
			}
		}
	}
	return keys
}

// identify notes the identities of a record that we do not know.
func (b *batch) identify(w *records.Work) {
	for _, m := range w.Ways() {
		b.identities[w] = append(b.identities[w], b.identity(w.Record.Object, m))
	}
}

// twins has records that we do not know, that are looked for by the same value, and that the CRM
// does not have, made one after the other: the second is the same as the first. It reports whether
// there is anything new to plan.
func (b *batch) twins() (news bool) {
	for _, w := range b.works {
		if len(b.identities[w]) == 0 { // it may have turned out to be gone
			b.identify(w)
		}
	}
	if len(b.identities) == 0 {
		return false
	}
	works := slices.Clone(b.works)
	slices.SortStableFunc(works, func(v, w *records.Work) int { return cmp.Compare(w.Record.CRMID, "") - cmp.Compare(v.Record.CRMID, "") })
	first := map[records.Key]*records.Work{}
	for _, w := range works { // those that the CRM has come first
		var other *records.Work
		for _, k := range b.identities[w] {
			if f := first[k]; f == nil || f.Record.Presence == records.Gone || f.Record.CRMID == "" && !f.Makes() && f.Hold <= 0 { // else it has come to nothing
				first[k] = w
			} else if f != w && other == nil {
				other = f
			}
		}
		switch {
		case other == nil || len(w.Ways()) == 0:
			news = w.Behind(false) || news
		case !w.Vacant():
			w.Behind(true) // it may be another that the CRM has
		default:
			news = b.follow(w, other) || news
		}
	}
	return news
}

// follow has a record wait for another that may be the same, or be that.
func (b *batch) follow(w, other *records.Work) (news bool) {
	s := w.Twin()
	switch r := other.Record; {
	case r.CRMID != "" && r.Presence != records.Gone && (!other.Made() || s.Last.Change.Taken == mappers.TakenDead):
		// What it is found by is written by now, and a search will show it.
		w.PutOff("match", "waiting: another key has a record that it may fit", max(b.findLag(), time.Second))
	case r.CRMID != "" && r.Presence != records.Gone:
		b.identities[other] = append(b.identities[other], b.identities[w]...)
		b.become(s, records.Answer{}, r)
	case other.Makes():
		w.Behind(true)
	case other.Hold > 0:
		w.Hold = max(w.Hold, other.Hold)
		w.PutOff("network", "waiting: an earlier request may have made the record that it fits", b.sink.Settle()+b.findLag())
	default:
		return w.Behind(false)
	}
	return false
}

// sought is a link whose other end is to be looked up.
type sought struct {
	by   *records.Delivery
	link *records.Link
	ways []mappers.Match
}

// seek has the other end of a link looked up.
func (b *batch) seek(by *records.Delivery, l *records.Link, ways []mappers.Match) bool {
	b.sought = append(b.sought, sought{by, l, ways})
	return true
}

// seekEnds makes the steps of the ends that the plan wants looked up. Two links may lead to one.
func (b *batch) seekEnds(ctx context.Context) []*records.Step {
	var steps []*records.Step
	seeking := map[records.Key]bool{}
	for _, s := range b.sought {
		k := b.targetKey(s.link)
		if seeking[k] {
			continue
		}
		seeking[k] = true
		w := b.end(ctx, k, s)
		if w == nil {
			b.workOf[b.records[s.by.Key]].PutOff("link", "waiting: the other end of a link is being written", time.Second)
			continue
		}
		w.SeekFor(s.ways)
		steps = append(steps, w.Next(&b.env)...)
	}
	b.sought = nil
	return steps
}

// end is the work on the record at the other end of a link; nil where another batch has that.
func (b *batch) end(ctx context.Context, k records.Key, s sought) *records.Work {
	if r := b.records[k]; r != nil && b.workOf[r] != nil {
		return b.workOf[r]
	}
	if r := b.ends[k]; r != nil && !b.owner.locks.claimMet(b, ledger.Met{ID: r.ID, Keys: []records.Key{k}}) {
		return nil
	}
	if !b.owner.locks.claimFree(b, k) {
		return nil
	}
	fresh, err := b.read(ctx, []records.Key{k}) // it may have changed before it was ours
	if err != nil {
		return nil
	}
	if r := fresh[k]; r != nil {
		if !b.owner.locks.claimMet(b, ledger.Met{ID: r.ID, Keys: []records.Key{k}}) {
			return nil
		}
		b.records[k] = r
	}
	w := b.work(k)
	w.Deliveries = append(w.Deliveries, records.Probe(s.by, s.link, k))
	return w
}
