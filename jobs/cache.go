package jobs

import (
	"slices"
	"sync"

	"github.com/google/uuid"

	"partnersync/records"
)

// cached is how many records an owner keeps in memory, at some 3 kB each. Those that events
// come for again and again are few; the others cost a query that a whole batch shares.
const cached = 2_000

// cache keeps records as they are stored: the owner of a sink is their only writer. Batches
// use it at once; mu guards every field.
type cache struct {
	mu      sync.Mutex
	ids     map[records.Key]uuid.UUID
	records map[uuid.UUID]*kept
}

// kept is a record in memory, with the keys by which it is found there.
type kept struct {
	record *records.Record
	keys   []records.Key
}

func newCache() *cache {
	return &cache{ids: map[records.Key]uuid.UUID{}, records: map[uuid.UUID]*kept{}}
}

// get returns the records that are in memory, as copies that may be changed, and the keys of
// the others. Keys of one record lead to one copy.
func (c *cache) get(keys []records.Key) (map[records.Key]*records.Record, []records.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := make(map[records.Key]*records.Record, len(keys))
	var lack []records.Key
	copies := make(map[uuid.UUID]*records.Record, len(keys))
	for _, k := range keys {
		in := c.records[c.ids[k]]
		if in == nil {
			lack = append(lack, k)
			continue
		}
		if copies[in.record.ID] == nil {
			copies[in.record.ID] = in.record.Clone()
		}
		have[k] = copies[in.record.ID]
	}
	return have, lack
}

// put keeps records that have been stored.
func (c *cache) put(list map[records.Key]*records.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, r := range list {
		if id, known := c.ids[k]; known && id != r.ID {
			c.dropLocked(id)
		}
		in := c.records[r.ID]
		if in == nil {
			for old := range c.records {
				if len(c.records) < cached {
					break
				}
				c.dropLocked(old)
			}
			in = &kept{}
			c.records[r.ID] = in
		}
		in.record = r
		if !slices.Contains(in.keys, k) {
			in.keys = append(in.keys, k)
		}
		c.ids[k] = r.ID
	}
}

// drop removes records from memory, by whatever keys they were kept.
func (c *cache) drop(ids ...uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.dropLocked(id)
	}
}

// dropKeys removes what keys name.
func (c *cache) dropKeys(keys ...records.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		c.dropLocked(c.ids[k])
	}
}

func (c *cache) dropLocked(id uuid.UUID) {
	if in := c.records[id]; in != nil {
		for _, k := range in.keys {
			delete(c.ids, k)
		}
		delete(c.records, id)
	}
}
