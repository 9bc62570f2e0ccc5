package records

import (
	"fmt"
	"slices"
	"strings"

	"partnersync/mappers"
)

// Whether the CRM has a record already is found out before one is made: by our key where that
// needs a look, then in the ways that its mappings give. What is found is adopted; what is not is
// made by a request that makes records and changes none, so that we know whose it is.

// ways are those in which the mappings of the batch would find the record, each once.
func (w *Work) ways() (ways []mappers.Match, by *Delivery) {
	for _, d := range w.writers() {
		for _, m := range d.Change.Match {
			if !slices.ContainsFunc(ways, func(o mappers.Match) bool { return slices.Equal(o, m) }) {
				ways = append(ways, m)
			}
		}
		if len(d.Change.Match) > 0 {
			by = d
		}
	}
	return ways, by
}

// Ways are those in which a record that we do not know may be found in the CRM, or be made by
// somebody else at the same time: none where the record is known.
func (w *Work) Ways() []mappers.Match {
	if w.Record.CRMID != "" || w.Record.Presence != Unknown {
		return nil
	}
	ways, _ := w.ways()
	return ways
}

// Twin stands for the step that finds out that the record is another of the batch.
func (w *Work) Twin() *Step {
	_, by := w.ways()
	return &Step{Do: Search, Work: w, Mode: mappers.Upsert, Last: by}
}

// Behind has the record wait, before it is made, for another of the batch that may turn out to be
// the same. It reports whether that is news.
func (w *Work) Behind(is bool) (news bool) {
	news, w.behind = is != w.behind, is
	return news
}

// Vacant reports whether the CRM was asked for the record, in all ways, and has none.
func (w *Work) Vacant() bool { return w.vacant }

// makes reports whether a delivery of the batch may make the record.
func (w *Work) makes() bool {
	return slices.ContainsFunc(w.writers(), func(d *Delivery) bool {
		return d.Change.Mode == mappers.Upsert || d.Change.Mode == mappers.CreateOnly
	})
}

// look is the step that finds out whether the CRM has the record, or what it has; nil where
// that is known or does not matter.
func (w *Work) look(env *Env) *Step {
	r, writers, asks := w.Record, w.writers(), w.asks(env)
	last := writers[len(writers)-1]
	step := func(do Do, last *Delivery) *Step {
		return &Step{Do: do, Work: w, Mode: mappers.Upsert, Last: last, Serves: w.ready(), Show: asks}
	}
	switch {
	case r.Presence == Gone || r.Presence == Unsure || w.vacant:
		return nil
	case r.CRMID != "":
		if !slices.ContainsFunc(asks, func(name string) bool { return !w.seen.of(r.CRMID, name) }) {
			return nil
		}
		return step(Read, last)
	case r.Presence != Unknown:
		return nil
	}
	ways, by := w.ways()
	rules := slices.ContainsFunc(writers, func(d *Delivery) bool {
		return slices.ContainsFunc(d.Change.Fields, func(f mappers.Field) bool { return f.Rule == mappers.SetOnCreate })
	})
	if len(ways) == 0 && len(asks) == 0 && !rules {
		return nil
	}
	key := last.Change.Key
	if byKeyFirst := w.contest || !env.Can.UniqueKeys() || !env.Can.Makes(r.Object, key) || len(ways) == 0 && len(asks) > 0; byKeyFirst && !w.keyed && env.Can.Finds(key) {
		w.seeking = byKey
		return step(Find, last)
	}
	if w.way < len(ways) && !w.contest {
		s := step(Search, by)
		s.Way = ways[w.way]
		if !slices.Contains(s.Show, key.Property) && key.Property != "" && !key.Local {
			s.Show = append(slices.Clone(s.Show), key.Property)
		}
		return s
	}
	w.vacant = w.makes() && !w.contest
	return nil
}

// foundByKey deals with the answer to a search by our key.
func (w *Work) foundByKey(s *Step, a Answer) {
	w.seeking, w.keyed = nothing, true
	if a.Kind == Denied && !a.Absent { // several may have it
		w.undecided(a, "our key")
		return
	}
	if a.Kind != Taken || a.ID == "" {
		return
	}
	w.adopt(s, a, a.ID)
	w.Record.Presence = Present // it has our key
	w.shown(s, a)
}

// shown keeps what the CRM shows of the record.
func (w *Work) shown(s *Step, a Answer) {
	if a.ID != "" {
		w.Record.CRMID = a.ID
	}
	now := &sight{id: w.Record.CRMID, asked: s.Show, values: map[string]any{}}
	for _, h := range a.Hits {
		if h.ID == w.Record.CRMID || h.ID == "" {
			now.values = h.Values
		}
	}
	w.seen = w.seen.with(now)
}

// pick is the record that a search has shown to be ours; else why there is none, if that is for
// people to mend.
func (w *Work) pick(s *Step, a Answer) (hit *Hit, why string) {
	c := s.Last.Change
	switch {
	case a.Kind != Taken || len(a.Hits) == 0 && !a.More:
		return nil, ""
	case len(a.Hits) == 0:
		return nil, fmt.Sprintf("more %s than an answer of the CRM shows may fit by %s", c.Object, s.Way.Properties())
	case len(a.Hits) == 1 && !a.More:
		hit = &a.Hits[0]
	case c.Several == mappers.SeveralOldest && !a.More:
		hit = &a.Hits[0]
	case c.Several == mappers.SeveralNewest && !a.More:
		hit = &a.Hits[len(a.Hits)-1]
	default:
		return nil, several(s, a)
	}
	if w.carries(s, hit) && c.Taken == mappers.TakenDead {
		return nil, fmt.Sprintf("the one of %s that fits by %s carries another %s: %s", c.Object, s.Way.Properties(), c.Key.Property, place(*hit))
	}
	return hit, ""
}

// carries reports whether a hit carries another key of ours.
func (w *Work) carries(s *Step, hit *Hit) bool {
	key := s.Last.Change.Key
	other := textOf(hit.Values[key.Property])
	return key.Property != "" && strings.TrimSpace(other) != "" && !strings.EqualFold(strings.TrimSpace(other), key.Value)
}

// CarriedKey is another key of ours that the record carries which a search has found; "" where it has
// none. Whoever that key belongs to may be writing the record.
func (w *Work) CarriedKey(s *Step, a Answer) mappers.Key {
	if s.Do != Search {
		return mappers.Key{}
	}
	hit, _ := w.pick(s, a)
	if hit == nil || !w.carries(s, hit) {
		return mappers.Key{}
	}
	property := s.Last.Change.Key.Property
	return mappers.Key{Property: property, Value: textOf(hit.Values[property])}
}

// mostNamed is how many of several records are named in a reason.
const mostNamed = 10

// several tells which records fit. What stands before the colon is the same for all events of one mapping.
func several(s *Step, a Answer) string {
	var list []string
	for _, h := range a.Hits[:min(len(a.Hits), mostNamed)] {
		list = append(list, place(h))
	}
	switch left := len(a.Hits) - mostNamed; {
	case a.More:
		list = append(list, "and more")
	case left > 0:
		list = append(list, fmt.Sprintf("and %d more", left))
	}
	return fmt.Sprintf("several %s fit by %s: %s", s.Last.Change.Object, s.Way.Properties(), strings.Join(list, ", "))
}

// place names a record of the CRM, and where people see it.
func place(h Hit) string {
	if h.URL == "" {
		return h.ID
	}
	return h.ID + " (" + h.URL + ")"
}

// undecided ends what wants a record of which the CRM does not say whether it is there.
func (w *Work) undecided(a Answer, by string) {
	for _, d := range w.ready() {
		d.Status = int32(a.Status)
		d.Attempts++
		d.Finish(Dead, a.Class, "looking for it by "+by+": "+a.Reason)
	}
}

// matched deals with what a search has shown.
func (w *Work) matched(s *Step, a Answer, env *Env) {
	if a.Kind != Taken {
		w.undecided(a, s.Way.Properties())
		return
	}
	hit, why := w.pick(s, a)
	switch {
	case why != "":
		for _, d := range w.ready() {
			d.Status = int32(a.Status)
			d.Finish(Dead, "match", why)
		}
	case hit == nil:
		w.way++
	default:
		if key := s.Last.Change.Key; textOf(hit.Values[key.Property]) != key.Value {
			w.theirs()
		}
		w.keeps = w.carries(s, hit) && s.Last.Change.Taken != mappers.TakenTake
		w.seen = &sight{id: hit.ID, asked: s.Show, values: hit.Values}
		w.adopt(s, a, hit.ID)
		if w.Record.Presence = Unknown; w.keeps { // else it lacks our key, which its next event brings
			w.Record.Presence = Present
		}
	}
}

// theirs notes that what the record has is not of ours: it was there before, whatever a request
// without an answer may have put elsewhere.
func (w *Work) theirs() {
	for _, f := range w.Record.Fields {
		f.Added = nil
	}
}

// seek has the other end of a link looked up in the CRM, once. It reports whether that has begun.
func (w *Work) seek(l *Link, env *Env) bool {
	if w.ends[l] || env.Seek == nil {
		return false
	}
	n := env.Neighbour(l)
	if n.Record != nil && (n.Record.Presence != Unknown || n.Record.CRMID != "") || n.Work != nil && len(n.Work.Deliveries) > 0 && n.Work.Makes() {
		return false
	}
	for _, d := range w.serving(l, nil) {
		wish, ok := d.wish(l)
		if !ok || len(wish.Match) == 0 && !env.Can.Finds(wish.Key) {
			continue
		}
		if w.ends == nil {
			w.ends = map[*Link]bool{}
		}
		w.ends[l] = true
		return env.Seek(d, l, wish.Match)
	}
	return false
}

// matches reports whether the other end of a link may be found otherwise than by its key.
func (w *Work) matches(l *Link) bool {
	return slices.ContainsFunc(w.serving(l, nil), func(d *Delivery) bool {
		wish, ok := d.wish(l)
		return ok && len(wish.Match) > 0
	})
}

// SeekFor has the record looked up since a link leads to it.
func (w *Work) SeekFor(ways []mappers.Match) {
	w.seeking, w.targets, w.way, w.keyed = target, ways, 0, false
}

// lookForTarget is the step that looks for the record at the other end of a link.
func (w *Work) lookForTarget(env *Env) []*Step {
	last := w.Deliveries[len(w.Deliveries)-1]
	switch {
	case !w.keyed && env.Can.Finds(last.Change.Key):
		return []*Step{{Do: Find, Work: w, Mode: mappers.Upsert, Last: last}}
	case w.way < len(w.targets):
		return []*Step{{Do: Search, Work: w, Mode: mappers.Upsert, Last: last, Way: w.targets[w.way]}}
	}
	w.seeking = nothing
	return nil
}

// foundTarget deals with what a search for the other end of a link has shown. One that carries
// our key is known; one that fits otherwise gets it with its next event.
func (w *Work) foundTarget(s *Step, a Answer) {
	r := w.Record
	switch {
	case s.Do == Find && a.Kind == Taken && a.ID != "":
		r.CRMID, r.Presence = a.ID, Present
	case s.Do == Find:
		w.keyed = true
		return
	case a.Kind == Taken && len(a.Hits) == 1 && !a.More:
		r.CRMID = a.Hits[0].ID
	default: // none, or several: which of them is meant nobody knows
		w.way++
		return
	}
	w.seeking, w.confirmed = nothing, true
}

// InVain reports whether the record was only looked for, and is not there: nothing is to be kept of it.
func (w *Work) InVain() bool {
	return w.Record.New && w.Record.CRMID == "" && !slices.ContainsFunc(w.Deliveries, func(d *Delivery) bool { return !d.probe })
}
