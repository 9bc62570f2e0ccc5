package records

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"partnersync/mappers"
)

// The model CRM: what a CRM does with requests, without HTTP. It tells the judge at once when a
// write brings something back that is older than what it replaces.

// How long a request may take, may still have an effect after that, and how late a search shows
// what was made.
const (
	modelTimeout = 5 * time.Second
	modelSettle  = 10 * time.Second
	modelLag     = 4 * time.Second
	modelGiveUp  = 40 * time.Hour // longer than any story before all is well
)

// manners are those of a CRM; they are its Capabilities, too.
type manners struct {
	ByID, ByKey bool // rows carry links along, to records by their id or by our key
	Updates     bool // those of updates as well
	Replace     bool // making a link takes the place of the former one
	All         bool // each request carries all that is known
	Find        bool // records can be looked up
	Repeat      bool // a create may be sent twice
	Redirects   bool // what is sent to a merged record reaches the one that is left
	Lags        bool // an upsert is a search, which shows late what was made, and a create or an update
	Mute        bool // a conflict does not name the record in the way
	Strict      bool // taking back what is not there is refused
	Loose       bool // it does not see to it that keys are unique
	NoMake      bool // it has no request that makes a record and changes none
	Hides       bool // it does not show a field
	Alone       bool // no two records have one mail
}

func (m *manners) Finds(k mappers.Key) bool { return m.Find && !k.Local && k.Property != "" }
func (m *manners) Whole() bool              { return m.All }
func (m *manners) Carries(mode mappers.Mode, id string) (byID, byKey bool) {
	if (id != "" || mode == mappers.UpdateOnly) && !m.Updates {
		return false, false
	}
	return m.ByID, m.ByKey
}
func (m *manners) Replaces(*Record, *Link) bool        { return m.Replace }
func (m *manners) LinkField(_ *Record, l *Link) string { return "link " + l.As }
func (m *manners) Repeats(mode mappers.Mode, key mappers.Key) bool {
	return m.Repeat || !key.Local || mode == mappers.UpdateOnly
}
func (m *manners) Settle() time.Duration  { return modelSettle }
func (m *manners) FindLag() time.Duration { return modelLag }

// mood is what the CRM makes of one request.
type mood int

const (
	fine      mood = iota
	cutOff         // does not carry it out, and does not answer
	unheard        // carries it out, and does not answer
	late           // does not answer, and carries it out later
	twice          // carries it out, does not answer, and carries it out again later
	broken         // does not carry it out, and says that something failed
	unsent         // the request never left us
	shortly        // not now: again in a moment
	throttled      // not now
	moods
)

// cell is the value of a field in the CRM. What the CRM does not know is for the judge.
type cell struct {
	value   any
	version Version
	rule    mappers.Rule
	by      *Record // that it was written for
	batch   *batch
	told    bool // the batch has heard that it was taken

	// Where sales work:
	since       time.Duration // when it got the value
	turn        int           // of the act in which people put it
	edited      bool          // people have put it
	ever        bool          // it had a value once
	own, theirs []string      // of tags: that we may have put, and that people have
}

type tieTo struct{ id, as string }

// row is a record of the CRM.
type row struct {
	id, object string
	keys       map[string]string // by property
	cells      map[string]cell
	links      map[tieTo]bool
	gone       bool
	into       string // it was merged into another
	since      time.Duration
	touched    bool                     // people had their hands on it
	archived   *Record                  // for which it was archived
	by         *Record                  // for which a request has made it
	ways       []mappers.Match          // in which it was looked for before
	blended    int                      // the act in which people have merged another into it
	tied       int                      // the act in which people have put a link
	keyed      map[string]time.Duration // when it got a key of ours
}

// request is one step on its way.
type request struct {
	step   *Step
	sent   map[string]Sent // a copy: the batch changes its own
	id     string          // of the record, in the CRM, when it was sent
	by     *Record
	batch  *batch
	object string
	key    mappers.Key
}

// putOff is an effect that is still to come.
type putOff struct {
	request request
	until   time.Duration
}

type crm struct {
	*manners
	h     *history
	rows  []*row
	late  []putOff
	made  map[Key]int // rows that were made for a key that the CRM does not know
	named map[Version]bool
}

func (c *crm) row(id string) *row {
	for _, r := range c.rows {
		if r.id != id {
			continue
		}
		if r.gone && r.into != "" && c.Redirects {
			return c.row(r.into)
		}
		if r.gone {
			return nil
		}
		return r
	}
	return nil
}

func (c *crm) byKey(object string, k mappers.Key) *row {
	for _, r := range c.rows {
		if !r.gone && r.object == object && r.keys[k.Property] == k.Value && k.Property != "" {
			return r
		}
	}
	return nil
}

// shown is what a search shows of a record.
func (c *crm) shown(r *row, property string) *row {
	if r != nil && (c.Lags || c.Loose) && c.h.now < max(r.since, r.keyed[property])+modelLag {
		return nil
	}
	return r
}

func (c *crm) make(object string) *row {
	r := &row{id: fmt.Sprint("c", len(c.rows)+1), object: object, keys: map[string]string{}, keyed: map[string]time.Duration{}, cells: map[string]cell{}, links: map[tieTo]bool{}, since: c.h.now}
	c.rows = append(c.rows, r)
	return r
}

// handle answers a request in a mood.
func (c *crm) handle(q request, how mood) Answer {
	lost := !q.step.Reads() // a search changes nothing
	switch how {
	case shortly:
		return Answer{Kind: Busy, Class: "throttled", Status: 429, Short: true, Wait: time.Second}
	case throttled:
		return Answer{Kind: Busy, Class: "throttled", Status: 429, Wait: 30 * time.Second}
	case broken:
		return Answer{Kind: Failed, Class: "unavailable", Status: 500, Counts: true, Lost: lost}
	case unsent:
		return Answer{Kind: Failed, Class: "network", Counts: true}
	case cutOff:
		return Answer{Kind: Failed, Class: "timeout", Counts: true, Lost: lost}
	case unheard, twice:
		if a := c.carryOut(q); a.Created {
			q.id = a.ID // it makes none a second time
		}
	}
	if lost && (how == late || how == twice && !q.step.Makes && !(c.Loose && q.step.Mode == mappers.CreateOnly) && (q.step.Mode != mappers.Append || c.Repeat)) {
		c.late = append(c.late, putOff{q, 0})
	}
	if how != fine {
		return Answer{Kind: Failed, Class: "timeout", Counts: true, Lost: lost}
	}
	return c.carryOut(q)
}

// catchUp carries out what was put off, as far as it is due.
func (c *crm) catchUp(all bool) {
	rest := c.late[:0]
	for _, p := range c.late {
		if all || p.until > 0 && p.until <= c.h.now {
			c.h.note("late effect of %s", describe(p.request))
			c.carryOut(p.request)
		} else {
			rest = append(rest, p)
		}
	}
	c.late = rest
}

func denied(status int, fields ...string) Answer {
	return Answer{Kind: Denied, Class: "rejected", Status: status, Reason: "no", Fields: fields}
}

func absent() Answer {
	return Answer{Kind: Denied, Class: "rejected", Status: 404, Reason: "not found", Absent: true}
}

func (c *crm) carryOut(q request) Answer {
	switch q.step.Do {
	case Find:
		r := c.shown(c.byKey(q.object, q.key), q.key.Property)
		if r == nil {
			return absent()
		}
		return Answer{Kind: Taken, Status: 200, ID: r.id, Hits: []Hit{c.hit(q, r)}}
	case Search:
		return c.search(q)
	case Read:
		r := c.row(q.id)
		if r == nil {
			return absent()
		}
		return Answer{Kind: Taken, Status: 200, ID: r.id, Hits: []Hit{c.hit(q, r)}}
	case Archive:
		r := c.row(q.id)
		if r == nil {
			return absent()
		}
		r.gone, r.archived = true, q.by
		for _, o := range c.rows {
			delete(o.links, tieTo{r.id, ""})
			delete(o.links, tieTo{r.id, "x"})
		}
		return Answer{Kind: Taken, Status: 200}
	case Linking, Unlink:
		return c.tie(q)
	}
	return c.write(q)
}

func (c *crm) tie(q request) Answer {
	from, to, l := c.row(q.id), c.row(q.step.Tie.ID), q.step.Tie.Link
	if from == nil || to == nil {
		return absent()
	}
	at := tieTo{to.id, l.As}
	if q.step.Do == Unlink {
		if !from.links[at] && c.Strict {
			return absent()
		}
		delete(from.links, at)
		if c.Replace {
			c.vacate(from, l.As)
		}
		return Answer{Kind: Taken, Status: 200}
	}
	if l.Key == unlinkable {
		return denied(400)
	}
	c.h.usurps(q, from, at, l)
	c.link(from, at)
	return Answer{Kind: Taken, Status: 200}
}

func (c *crm) link(from *row, at tieTo) {
	if c.Replace {
		c.vacate(from, at.as)
	}
	from.links[at] = true
}

func (c *crm) vacate(from *row, as string) {
	for o := range from.links {
		if o.as == as {
			delete(from.links, o)
		}
	}
}

// write creates or updates a record.
func (c *crm) write(q request) Answer {
	s := q.step
	var r *row
	var other *row
	switch {
	case s.Mode == mappers.Append:
		if c.Repeat {
			r = c.byKey(q.object, mappers.Key{Property: "request", Value: q.key.Value})
		}
	case s.Mode == mappers.CreateOnly, s.Makes && q.id == "":
		if !c.Loose {
			other = c.byKey(q.object, q.key)
		}
	case q.id != "":
		if r = c.row(q.id); r == nil {
			return absent()
		}
	default:
		if r = c.byKey(q.object, q.key); s.Mode == mappers.Upsert {
			r = c.shown(r, q.key.Property)
			if r == nil && c.h.Sales && !c.Loose {
				other = c.byKey(q.object, q.key)
			}
		}
		if r == nil && s.Mode == mappers.UpdateOnly {
			return absent()
		}
	}
	values := maps.Clone(s.Values)
	var dropped []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch v := values[name]; {
		case v == named && slices.Contains(s.Optional, name):
			delete(values, name)
			dropped = append(dropped, name)
		case v == named:
			return denied(400, name)
		case v == unnamed:
			return denied(400)
		case c.h.Sales && (name == "k" || name == "j") && !c.Loose:
			if o := c.byKey(q.object, mappers.Key{Property: name, Value: v.(string)}); o != nil && o != r {
				other = o
			}
		case name == "mail" && c.Alone:
			for _, o := range c.rows {
				if o != r && !o.gone && o.object == q.object && o.cells[name].value == v {
					other = o
				}
			}
		case name == unique && v != nil:
			for _, o := range c.rows {
				if o != r && !o.gone && o.object == q.object && o.cells[unique].value == v {
					other = o
				}
			}
		}
	}
	if other != nil {
		for _, v := range q.sent {
			c.named[v.Version] = true
		}
		a := Answer{Kind: Conflict, Class: "conflict", Status: 409, Reason: "there already"}
		if !c.Mute {
			a.Existing = other.id
		}
		return a
	}
	links, complete := c.carried(s)
	if !complete && slices.ContainsFunc(s.Carried, func(t Tie) bool { return t.Required }) {
		return Answer{Kind: Denied, Class: "rejected", Status: 400, Reason: "no such record", Unlinked: true}
	}
	created := r == nil
	if c.h.Sales {
		c.h.undecided(q)
	}
	if created {
		r = c.make(q.object)
		r.by = q.by
		if !q.key.Local {
			r.keys[q.key.Property] = q.key.Value
		} else {
			r.keys["request"] = q.key.Value
			c.made[s.Last.Key]++
		}
		c.h.created(q, r)
	}
	for name, v := range values {
		if text, is := v.(string); is && (name == "k" || name == "j") {
			have := r.keys[name]
			if have != "" && have != text && !c.h.Sales {
				r.touched = true // taken over from a key that it had, and that we did not know of
			}
			if have != text && c.h.Sales {
				r.keyed[name] = c.h.now
			}
			r.keys[name] = text
			continue
		}
		if c.h.Sales {
			c.put(q, r, name, v, created)
			continue
		}
		c.set(q, r, name, v)
	}
	if complete {
		for i, at := range links {
			c.h.usurps(q, r, at, s.Carried[i].Link)
			c.link(r, at)
		}
	}
	return Answer{Kind: Taken, Status: 200, ID: r.id, Created: created, Dropped: dropped, Unlinked: !complete}
}

// carried are the links of a row; complete is false where the record of one is not there.
func (c *crm) carried(s *Step) (links []tieTo, complete bool) {
	for _, t := range s.Carried {
		to := c.row(t.ID)
		if t.ID == "" {
			to = c.byKey(t.Link.To, mappers.Key{Property: t.Link.Property, Value: t.Link.Key})
		}
		if to == nil || t.Link.Key == unlinkable {
			return nil, false
		}
		links = append(links, tieTo{to.id, t.Link.As})
	}
	return links, true
}

// set writes a field, and has the judge look at what it replaces.
func (c *crm) set(q request, r *row, name string, v any) {
	have := r.cells[name]
	sent, versioned := q.sent[name]
	if !versioned {
		if name != "t" && have.value != v {
			c.h.stale(q, r, name, have, cell{value: v})
		}
		if name == "t" {
			r.cells[name] = cell{value: v}
		}
		return
	}
	next := cell{value: v, version: sent.Version, by: q.by, batch: q.batch, rule: mappers.Set}
	if name == "p" {
		next.rule = mappers.SetFirst
	}
	c.h.stale(q, r, name, have, next)
	r.cells[name] = next
}

func (m *manners) Makes(object string, key mappers.Key) bool { return !key.Local && !m.NoMake }
func (m *manners) UniqueKeys() bool                          { return !m.Loose }
func (m *manners) Several(shown any) []string                { return texts(shown) }
func (m *manners) Alike(property string, ours, shown any) bool {
	return NewValue(ours).Equal(NewValue(shown))
}
