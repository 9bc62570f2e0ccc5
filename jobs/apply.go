package jobs

import (
	"fmt"
	"slices"
	"time"

	"partnersync/internal/ledger"
	"partnersync/mappers"
)

// apply runs the mappings and hands on the items whose records others work on.
func (c *cycle) apply() {
	mine := c.work[:0]
	for _, w := range c.work {
		var keys []ledger.RecordKey
		for _, r := range w.routes {
			c.mapRoute(w, r)
			for _, d := range r.deliveries {
				if d.open() {
					keys = append(keys, d.key)
					keys = append(keys, c.toMake(d)...)
				}
			}
		}
		if c.owner.claim(c, w.item, keys) {
			mine = append(mine, w)
		}
	}
	clear(c.work[len(mine):])
	c.work = mine
}

func (c *cycle) mapRoute(w *work, r *route) {
	if named := c.owner.tombstones.Cover([]byte(r.Entity)); r.Erased || named || c.owner.tombstones.Cover(r.Body) {
		r.ended, r.reason = ledger.Skipped, ledger.ReasonErased
		r.erasure = &ledger.Erasure{Event: r.Event, Entity: named}
		return
	}
	if r.Generation > c.plan.Generation {
		// Opened under a newer config than this process has loaded yet.
		r.held, w.wait = true, max(w.wait, time.Second)
		return
	}
	source := c.plan.Sources[r.Source]
	if source == nil {
		r.ended, r.reason = ledger.Dead, fmt.Sprintf("the config has no source %q any more", r.Source)
		return
	}
	body, _, err := source.Shape(r.Type, r.Body)
	if err != nil {
		r.ended, r.reason = ledger.Dead, "the stored body cannot be read"
		return
	}
	outcomes := c.plan.Mappings.Run(c.owner.name, &mappers.Event{
		ID: r.Event.String(), Source: r.Source, Type: r.Type, Entity: r.Entity,
		OccurredAt: r.OccurredAt, ReceivedAt: r.ReceivedAt, Body: body,
	})
	r.made, r.before = map[address]*delivery{}, map[address]*ledger.Delivery{}
	for i := range r.Deliveries {
		d := &r.Deliveries[i]
		r.before[address{d.Mapping, d.Object, d.Key}] = d
	}
	if len(outcomes) == 0 {
		r.skipped = append(r.skipped, "no mapping wants this event any more")
	}
	for _, o := range outcomes {
		for _, table := range o.Misses {
			c.owner.metrics.lookupMisses.WithLabelValues(table).Inc()
		}
		if o.Skipped != "" {
			r.skipped = append(r.skipped, o.Mapping+": "+o.Skipped)
		}
		if o.Failed != nil {
			c.owner.metrics.mappingErrors.WithLabelValues(o.Mapping, o.Failed.Reason).Inc()
			d := c.delivery(r, o.Mapping, "", "")
			if d.open() {
				d.end(ledger.Dead, "mapping", o.Failed.Message)
			}
		}
		for i := range o.Changes {
			change := &o.Changes[i]
			if n := longestKey(change); n > maxKey {
				d := c.delivery(r, o.Mapping, change.Object, change.Key.Value[:min(len(change.Key.Value), maxKey)])
				if d.open() {
					d.end(ledger.Dead, "mapping", fmt.Sprintf("a key of %d bytes is too long: %d are the most", n, maxKey))
				}
				continue
			}
			at := address{o.Mapping, change.Object, change.Key.Value}
			if d := r.made[at]; d != nil {
				d.change = joined(d.change, change)
				continue
			}
			d := c.delivery(r, o.Mapping, change.Object, change.Key.Value)
			d.change, r.made[at] = change, d
			d.key = ledger.RecordKey{Object: change.Object, Property: change.Key.Property, Key: c.sink.Fold(change.Key.Property, change.Key.Value)}
		}
	}
}

// maxKey is the longest key in bytes; an index of Postgres takes little more.
const maxKey = 1000

func longestKey(c *mappers.Change) int {
	n := len(c.Key.Value)
	for _, l := range c.Links {
		n = max(n, len(l.Key.Value))
	}
	return n
}

// joined is one change that wants what first and then what second wants of a record.
func joined(first, second *mappers.Change) *mappers.Change {
	c := *first
	c.Fields = slices.DeleteFunc(slices.Clone(first.Fields), func(f mappers.Field) bool {
		return slices.ContainsFunc(second.Fields, func(g mappers.Field) bool { return g.Name == f.Name })
	})
	c.Fields = append(c.Fields, second.Fields...)
	c.Links = append(first.Links, second.Links...) // nobody else holds first
	return &c
}

// delivery returns a route's delivery to a record, with what an earlier attempt has left of it.
func (c *cycle) delivery(r *route, mapping, object, key string) *delivery {
	d := &delivery{route: r, Delivery: ledger.Delivery{
		Event: r.Event, Run: r.Run, Mapping: mapping, MappingHash: c.plan.hashes[mapping], Object: object, Key: key,
	}}
	if before := r.before[address{mapping, object, key}]; before != nil {
		d.Outcome, d.Attempts, d.FirstFailedAt, d.again = before.Outcome, before.Attempts, before.FirstFailedAt, true
	}
	r.deliveries = append(r.deliveries, d)
	return d
}
