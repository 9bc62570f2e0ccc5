package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// living is the CRM in which sales have worked before. Half of its shops are theirs. Events name a
// shop by many keys, and none says which of them it is but by its name.
const (
	living   = "living"
	shops    = 10
	salesTag = "key account"
)

// enter has sales enter every second shop.
func (c *crm) enter() {
	for i := 0; i < shops; i += 2 {
		c.box.Put(c.dialect, "companies", map[string]any{
			"name": fmt.Sprint("Shop ", i), "city": "where sales say", "phase": tiers()[i%len(tiers())], "tags": salesTag,
		})
	}
}

// judgeLiving: no shop is made twice, and what sales have put there stays, at any time.
func (c *crm) judgeLiving(v *verdict) {
	ids, before := map[string]string{}, map[string]map[string]any{}
	for _, w := range c.journal {
		r := w.change.Record
		if r.Object != "companies" {
			continue
		}
		was := before[r.ID]
		before[r.ID] = r.Properties
		name := strings.ToLower(textOf(r.Properties["name"]))
		if by := cmp.Or(ids[name], r.ID); by != r.ID {
			v.fault("living: %q is made as %s, and is there as %s", name, r.ID, by)
		}
		ids[name] = r.ID
		if was == nil {
			continue
		}
		if city := textOf(was["city"]); city != "" && textOf(r.Properties["city"]) != city {
			v.fault("living: city of %q is %q, and was %q", name, textOf(r.Properties["city"]), city)
		}
		if from, to := rung(was), rung(r.Properties); to < from {
			v.fault("living: phase of %q goes back from %d to %d", name, from, to)
		}
		if hasTag(was) && !hasTag(r.Properties) {
			v.fault("living: the tag of sales is gone from %q: %q", name, textOf(r.Properties["tags"]))
		}
	}
	if len(ids) != shops {
		v.fault("living: there are %d shops, not %d", len(ids), shops)
	}
}

func rung(properties map[string]any) int { return slices.Index(tiers(), textOf(properties["phase"])) }

func hasTag(properties map[string]any) bool {
	return slices.Contains(strings.Split(textOf(properties["tags"]), ";"), salesTag)
}
