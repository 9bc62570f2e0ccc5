package records

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"partnersync/mappers"
)

// desk is a CRM with records of sales, for one record of ours.
type desk struct {
	*manners
	unkeyed  bool
	hidden   string
	most     int // hits that an answer shows; 0: all
	rows     []*deskRow
	taken    map[string]string // a value that no create may have, and whose it is
	firms    map[string]string // ids of what links lead to, by key
	requests []string
}

type deskRow struct {
	id     string
	values map[string]any
}

func (d *desk) UniqueKeys() bool { return !d.unkeyed }

func (d *desk) answer(s *Step) Answer {
	r := s.Work.Record
	hit := func(row *deskRow) Hit {
		h := Hit{ID: row.id, Values: map[string]any{}}
		for _, name := range s.Show {
			if name == d.hidden {
				continue
			}
			h.Values[name] = row.values[name]
		}
		return h
	}
	at := func(id string) *deskRow {
		i := slices.IndexFunc(d.rows, func(row *deskRow) bool { return row.id == id })
		if i < 0 {
			return nil
		}
		return d.rows[i]
	}
	switch s.Do {
	case Search:
		d.requests = append(d.requests, "search "+s.Way.Properties())
		a := Answer{Kind: Taken, Class: "ok"}
		for _, row := range d.rows {
			if !slices.ContainsFunc(s.Way, func(t mappers.Term) bool { return row.values[t.Property] != t.Value }) {
				a.Hits = append(a.Hits, hit(row))
			}
		}
		if d.most > 0 && len(a.Hits) > d.most {
			a.Hits, a.More = a.Hits[:d.most], true
		}
		return a
	case Find:
		d.requests = append(d.requests, "find")
		var found []Hit
		for _, row := range d.rows {
			if row.values["k"] == s.Last.Change.Key.Value {
				found = append(found, hit(row))
			}
		}
		switch len(found) {
		case 0:
			return Answer{Kind: Denied, Absent: true}
		case 1:
			return Answer{Kind: Taken, ID: found[0].ID, Hits: found}
		}
		return Answer{Kind: Denied, Class: "rejected", Reason: "several records have this key"}
	case Linking:
		d.requests = append(d.requests, "link "+s.Tie.ID)
		at(r.CRMID).values["link "] = s.Tie.ID
		return Answer{Kind: Taken, Class: "ok"}
	case Read:
		d.requests = append(d.requests, "read")
		return Answer{Kind: Taken, ID: r.CRMID, Hits: []Hit{hit(at(r.CRMID))}}
	}
	names := []string{}
	for name := range s.Values {
		names = append(names, name)
	}
	slices.Sort(names)
	row := at(r.CRMID)
	for _, t := range s.Carried {
		names = append(names, "with "+t.ID)
		defer func() {
			if row != nil {
				row.values["link "] = t.ID
			}
		}()
	}
	if row == nil && !s.Makes && s.Mode == mappers.Upsert {
		for _, o := range d.rows {
			if o.values["k"] == s.Last.Change.Key.Value {
				row = o
			}
		}
	}
	switch {
	case row != nil:
		d.requests = append(d.requests, "update "+strings.Join(names, " "))
	case s.Mode == mappers.UpdateOnly:
		d.requests = append(d.requests, "update")
		return Answer{Kind: Denied, Class: "rejected", Absent: true}
	default:
		for name, v := range s.Values {
			if id, ok := d.taken[fmt.Sprint(name, "=", v)]; ok {
				d.requests = append(d.requests, "conflict")
				return Answer{Kind: Conflict, Class: "conflict", Existing: id}
			}
		}
		d.requests = append(d.requests, "create "+strings.Join(names, " "))
		row = &deskRow{id: fmt.Sprint("new", len(d.rows)), values: map[string]any{}}
		d.rows = append(d.rows, row)
		for name, v := range s.Values {
			row.values[name] = v
		}
		return Answer{Kind: Taken, Class: "ok", ID: row.id, Created: true}
	}
	for name, v := range s.Values {
		row.values[name] = v
	}
	return Answer{Kind: Taken, Class: "ok", ID: row.id}
}

// work plays one batch of changes of one record.
func (d *desk) work(r *Record, changes ...*mappers.Change) []*Delivery {
	w := &Work{Record: r}
	for i, c := range changes {
		c.Mapping, c.Object = "m", "contacts"
		if c.Mode == "" {
			c.Mode = mappers.Upsert
		}
		if c.Key.Property == "" {
			c.Key = mappers.Key{Property: "k", Value: "1"}
		}
		at := int64(10*len(d.requests) + i + 1)
		w.Deliveries = append(w.Deliveries, &Delivery{Change: c, Key: Key{Object: "contacts", Property: "k", Key: "1"}, Cause: &Cause{
			Event: uuid.UUID{byte(at), byte(i + 1)}, Version: Version{At: at, Event: uuid.UUID{byte(at), byte(i + 1)}}, ReceivedAt: start,
		}})
	}
	w.Begin()
	env := &Env{Can: d, Now: start, GiveUp: time.Hour, Neighbour: d.neighbour}
	for range 20 {
		env.Links = false
		steps := w.Next(env)
		if len(steps) == 0 {
			env.Links = true
			steps = w.Next(env)
		}
		if len(steps) == 0 {
			break
		}
		for _, s := range steps {
			if next := w.Intend(s, d); next != nil {
				w.Stored()
			}
			w.Apply(s, d.answer(s), env)
		}
	}
	w.Rest()
	return w.Deliveries
}

func (d *desk) neighbour(l *Link) Neighbour {
	id := d.firms[l.Key]
	if id == "" {
		return Neighbour{}
	}
	r := New(uuid.UUID{1}, Key{"firms", l.Property, l.Key})
	r.CRMID, r.Presence = id, Present
	return Neighbour{Record: r}
}

func fields(rule mappers.Rule, pairs ...any) []mappers.Field {
	var list []mappers.Field
	for i := 0; i < len(pairs); i += 2 {
		f := mappers.Field{Name: pairs[i].(string), Rule: rule, Value: pairs[i+1]}
		if rule == mappers.Forward {
			f.Ladder = &mappers.Ladder{Order: []string{"lead", "mql", "customer"}, Final: []string{"churned", "lost"}}
		}
		list = append(list, f)
	}
	return list
}

func by(pairs ...string) mappers.Match {
	var m mappers.Match
	for i := 0; i < len(pairs); i += 2 {
		m = append(m, mappers.Term{Property: pairs[i], Value: pairs[i+1]})
	}
	return m
}

func sales(id string, pairs ...any) *deskRow {
	row := &deskRow{id: id, values: map[string]any{}}
	for i := 0; i < len(pairs); i += 2 {
		row.values[pairs[i].(string)] = pairs[i+1]
	}
	return row
}

// What is found, adopted, made and left alone, each with the requests that it takes.
func TestLook(t *testing.T) {
	t.Parallel()
	mail := []mappers.Match{by("email", "a@b.co")}
	tests := []struct {
		name     string
		rows     []*deskRow
		taken    map[string]string
		most     int
		unmaking bool   // the CRM has no request that makes records and changes none
		hidden   string // what it does not show
		unkeyed  bool   // the CRM does not see to it that keys are unique
		change   mappers.Change
		outcome  Outcome
		reason   string
		requests []string
		want     map[string]any // of the record in the end
	}{
		{
			name: "one fits, and is adopted", rows: []*deskRow{sales("7", "email", "a@b.co", "name", "Old")},
			change:  mappers.Change{Match: mail, Fields: fields(mappers.Set, "name", "New")},
			outcome: Delivered, requests: []string{"search email", "update k name"}, want: map[string]any{"k": "1", "name": "New"},
		},
		{
			name:   "none fits, and one is made",
			change: mappers.Change{Match: mail, Fields: fields(mappers.Set, "name", "New")}, outcome: Delivered,
			requests: []string{"search email", "create k name"},
		},
		{
			name: "the second way fits", rows: []*deskRow{sales("7", "name", "Ann")},
			change:  mappers.Change{Match: []mappers.Match{by("email", "a@b.co"), by("name", "Ann")}},
			outcome: Delivered, requests: []string{"search email", "search name", "update k"},
		},
		{
			name: "all terms of a way have to fit", rows: []*deskRow{sales("7", "name", "Ann", "city", "Rome")},
			change:  mappers.Change{Match: []mappers.Match{by("name", "Ann", "city", "Oslo")}},
			outcome: Delivered, requests: []string{"search name and city", "create k"},
		},
		{
			name: "several fit", rows: []*deskRow{sales("7", "email", "a@b.co"), sales("8", "email", "a@b.co")},
			change:  mappers.Change{Match: mail, Fields: fields(mappers.Set, "name", "New")},
			outcome: Dead, reason: "several contacts fit by email: 7, 8", requests: []string{"search email"},
		},
		{
			name: "more fit than an answer shows", most: 1, rows: []*deskRow{sales("7", "email", "a@b.co"), sales("8", "email", "a@b.co")},
			change:  mappers.Change{Match: mail, Several: mappers.SeveralOldest},
			outcome: Dead, reason: "several contacts fit by email: 7, and more", requests: []string{"search email"},
		},
		{
			name: "several have our key", unkeyed: true, rows: []*deskRow{sales("7", "k", "1"), sales("8", "k", "1")},
			change:  mappers.Change{Match: mail},
			outcome: Dead, reason: "looking for it by our key: several records have this key", requests: []string{"find"},
		},
		{
			name: "the oldest of several", rows: []*deskRow{sales("7", "email", "a@b.co"), sales("8", "email", "a@b.co")},
			change:  mappers.Change{Match: mail, Several: mappers.SeveralOldest},
			outcome: Delivered, requests: []string{"search email", "update k"}, want: map[string]any{"k": "1"},
		},
		{
			name: "one that carries another key keeps it", rows: []*deskRow{sales("7", "email", "a@b.co", "k", "9")},
			change:  mappers.Change{Match: mail, Fields: fields(mappers.Set, "name", "New")},
			outcome: Delivered, requests: []string{"search email", "update name"}, want: map[string]any{"k": "9", "name": "New"},
		},
		{
			name: "or gives it up", rows: []*deskRow{sales("7", "email", "a@b.co", "k", "9")},
			change:  mappers.Change{Match: mail, Taken: mappers.TakenTake, Fields: fields(mappers.Set, "name", "New")},
			outcome: Delivered, requests: []string{"search email", "update k name"}, want: map[string]any{"k": "1"},
		},
		{
			name: "or is not touched", rows: []*deskRow{sales("7", "email", "a@b.co", "k", "9")},
			change:  mappers.Change{Match: mail, Taken: mappers.TakenDead, Fields: fields(mappers.Set, "name", "New")},
			outcome: Dead, reason: "the one of contacts that fits by email carries another k: 7", requests: []string{"search email"}, want: map[string]any{"k": "9"},
		},
		{
			name: "create_only leaves alone what fits", rows: []*deskRow{sales("7", "email", "a@b.co")},
			change:  mappers.Change{Mode: mappers.CreateOnly, Match: mail, Fields: fields(mappers.Set, "name", "New")},
			outcome: Skipped, reason: "the record is there already", requests: []string{"search email"},
		},
		{
			name: "update_only adopts", rows: []*deskRow{sales("7", "email", "a@b.co")},
			change:  mappers.Change{Mode: mappers.UpdateOnly, Match: mail, Fields: fields(mappers.Set, "name", "New")},
			outcome: Delivered, requests: []string{"search email", "update k name"},
		},
		{
			name: "update_only makes none", change: mappers.Change{Mode: mappers.UpdateOnly, Match: mail, Fields: fields(mappers.SetIfEmpty, "name", "New")},
			outcome: Skipped, requests: []string{"search email", "update"},
		},
		{
			name: "what is in the way of a create is adopted", rows: []*deskRow{sales("7", "email", "A@B.co", "owner", "Ann")}, taken: map[string]string{"email=a@b.co": "7"},
			change:  mappers.Change{Fields: append(fields(mappers.SetOnCreate, "owner", "Bob"), fields(mappers.Set, "email", "a@b.co")...)},
			outcome: Delivered, reason: "without owner, which only a new record gets", requests: []string{"conflict", "update email k"}, want: map[string]any{"owner": "Ann"},
		},
		{
			name: "without unique keys ours is looked up first", unkeyed: true, rows: []*deskRow{sales("7", "k", "1")},
			change:  mappers.Change{Match: mail, Fields: fields(mappers.Set, "name", "New")},
			outcome: Delivered, requests: []string{"find", "update name"},
		},
		{
			name:    "a new record gets everything",
			change:  mappers.Change{Match: mail, Fields: slices.Concat(fields(mappers.SetOnCreate, "a", "1"), fields(mappers.SetIfEmpty, "b", "2"), fields(mappers.Forward, "c", "mql"), fields(mappers.Add, "d", []any{"x"}))},
			outcome: Delivered, requests: []string{"search email", "create a b c d k"},
		},
		{
			name: "one of sales keeps what it has", rows: []*deskRow{sales("7", "email", "a@b.co", "a", "0", "b", "0", "c", "customer", "d", []any{"y"})},
			change:  mappers.Change{Match: mail, Fields: slices.Concat(fields(mappers.SetOnCreate, "a", "1"), fields(mappers.SetIfEmpty, "b", "2"), fields(mappers.Forward, "c", "mql"), fields(mappers.Add, "d", []any{"x"}))},
			outcome: Delivered, reason: "the CRM keeps another value of b, c; without a, which only a new record gets", requests: []string{"search email", "update d k"},
			want: map[string]any{"a": "0", "b": "0", "c": "customer"},
		},
		{
			name: "without match the values are read by our key", rows: []*deskRow{sales("7", "k", "1", "b", "0")},
			change:  mappers.Change{Fields: fields(mappers.SetIfEmpty, "b", "2")},
			outcome: Skipped, reason: "the CRM keeps another value of b", requests: []string{"find"},
		},
		{
			name: "an empty field is filled", rows: []*deskRow{sales("7", "k", "1", "b", "")},
			change:  mappers.Change{Fields: fields(mappers.SetIfEmpty, "b", "2")},
			outcome: Delivered, requests: []string{"find", "update b"},
		},
		{
			name: "forward goes on", rows: []*deskRow{sales("7", "k", "1", "c", "lead")},
			change:  mappers.Change{Fields: fields(mappers.Forward, "c", "customer")},
			outcome: Delivered, requests: []string{"find", "update c"},
		},
		{
			name: "stages may be numbers", rows: []*deskRow{sales("7", "k", "1", "c", "2")},
			change:  mappers.Change{Fields: []mappers.Field{{Name: "c", Rule: mappers.Forward, Value: int64(1), Ladder: &mappers.Ladder{Order: []string{"1", "2", "3"}}}}},
			outcome: Skipped, reason: "the CRM keeps another value of c", requests: []string{"find"},
		},
		{
			name: "what is final stays", rows: []*deskRow{sales("7", "k", "1", "c", "churned")},
			change:  mappers.Change{Fields: fields(mappers.Forward, "c", "customer")},
			outcome: Skipped, reason: "the CRM keeps another value of c", requests: []string{"find"},
		},
		{
			name: "so does what the order does not know", rows: []*deskRow{sales("7", "k", "1", "c", "partner")},
			change:  mappers.Change{Fields: fields(mappers.Forward, "c", "customer")},
			outcome: Skipped, reason: "the CRM keeps another value of c", requests: []string{"find"},
		},
		{
			name: "nothing is added to what the CRM does not show", hidden: "d", rows: []*deskRow{sales("7", "k", "1", "d", []any{"y"})},
			change:  mappers.Change{Fields: fields(mappers.Add, "d", []any{"x"})},
			outcome: Skipped, reason: "the CRM keeps another value of d", requests: []string{"find"}, want: map[string]any{"d": []any{"y"}},
		},
		{
			name: "a CRM that cannot make records alone is asked for ours first", unmaking: true, rows: []*deskRow{sales("7", "k", "1", "a", "0")},
			change:  mappers.Change{Match: mail, Fields: fields(mappers.SetOnCreate, "a", "1")},
			outcome: Skipped, reason: "without a, which only a new record gets", requests: []string{"find"}, want: map[string]any{"a": "0"},
		},
		{
			name: "nothing is added twice", rows: []*deskRow{sales("7", "k", "1", "d", []any{"x", "y"})},
			change:  mappers.Change{Fields: fields(mappers.Add, "d", []any{"x"})},
			outcome: Unchanged, requests: []string{"find"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &desk{manners: &manners{Find: true, NoMake: tt.unmaking}, hidden: tt.hidden, most: tt.most, unkeyed: tt.unkeyed, rows: tt.rows, taken: tt.taken}
			r := New(uuid.UUID{1}, Key{"contacts", "k", "1"})
			got := d.work(r, &tt.change)[0]
			if got.Outcome != tt.outcome || got.Reason != tt.reason && (tt.reason != "" || got.Outcome == Delivered) {
				t.Errorf("%s: %q", got.Outcome, got.Reason)
			}
			if !slices.Equal(d.requests, tt.requests) {
				t.Errorf("requests: %q", d.requests)
			}
			for name, v := range tt.want {
				if is := d.rows[0].values[name]; !NewValue(is).Equal(NewValue(v)) {
					t.Errorf("%s is %v, not %v", name, is, v)
				}
			}
		})
	}
}

// What later events of a known record ask of the CRM.
func TestKnown(t *testing.T) {
	t.Parallel()
	d := &desk{manners: &manners{Find: true}, rows: []*deskRow{sales("7", "email", "a@b.co", "d", []any{"theirs", "both"})}}
	r := New(uuid.UUID{1}, Key{"contacts", "k", "1"})
	mail := []mappers.Match{by("email", "a@b.co")}
	for i, step := range []struct {
		fields   []mappers.Field
		outcome  Outcome
		requests string
		want     map[string]any
	}{
		{fields(mappers.SetIfEmpty, "b", "1"), Delivered, "search email, update b k", map[string]any{"b": "1"}},
		{fields(mappers.SetIfEmpty, "b", "2"), Unchanged, "", map[string]any{"b": "1"}},
		{fields(mappers.SetOnCreate, "a", "1"), Skipped, "", map[string]any{"a": nil}},
		{fields(mappers.Forward, "c", "mql"), Delivered, "read, update c", map[string]any{"c": "mql"}},
		{fields(mappers.Forward, "c", "lead"), Stale, "", map[string]any{"c": "mql"}},
		{fields(mappers.Forward, "c", "customer"), Delivered, "read, update c", map[string]any{"c": "customer"}},
		{fields(mappers.Add, "d", []any{"ours", "both"}), Delivered, "read, update d", map[string]any{"d": []any{"theirs", "both", "ours"}}},
		{fields(mappers.Add, "d", []any{"next"}), Delivered, "read, update d", map[string]any{"d": []any{"theirs", "both", "next"}}},
		{fields(mappers.Add, "d", []any{"next"}), Unchanged, "", nil},
		{fields(mappers.Set, "name", "x"), Delivered, "update name", nil},
	} {
		before := len(d.requests)
		got := d.work(r, &mappers.Change{Match: mail, Fields: step.fields})[0]
		if made := strings.Join(d.requests[before:], ", "); got.Outcome != step.outcome || made != step.requests {
			t.Errorf("%d: %s %q by %q", i, got.Outcome, got.Reason, made)
		}
		for name, v := range step.want {
			if is := d.rows[0].values[name]; !NewValue(is).Equal(NewValue(v)) {
				t.Errorf("%d: %s is %v, not %v", i, name, is, v)
			}
		}
	}
	// Somebody moves the record on, and back: neither is undone.
	d.rows[0].values["c"] = "churned"
	if got := d.work(r, &mappers.Change{Fields: fields(mappers.Forward, "c", "lost")})[0]; got.Outcome != Skipped || d.rows[0].values["c"] != "churned" {
		t.Errorf("%s %q: %v", got.Outcome, got.Reason, d.rows[0].values)
	}
}

// What has no say, or what the CRM will not have, leaves its turn to the value of another event.
func TestTurns(t *testing.T) {
	t.Parallel()
	skip := mappers.Change{Mode: mappers.UpdateOnly, Absent: "skip"}
	tests := []struct {
		name   string
		rows   []*deskRow
		first  *mappers.Change // in a batch of its own; nil: none
		batch  []*mappers.Change
		rule   mappers.Rule
		values []any // of the field, by the changes in their order
		want   any
	}{
		{
			name: "set_if_empty after a change that only updates", first: &skip, batch: []*mappers.Change{{}},
			rule: mappers.SetIfEmpty, values: []any{"1", "2"}, want: "2",
		},
		{
			name: "set_on_create likewise", first: &skip, batch: []*mappers.Change{{}},
			rule: mappers.SetOnCreate, values: []any{"1", "2"}, want: "2",
		},
		{
			name: "forward beside a change that only makes", rows: []*deskRow{sales("7", "k", "1")}, batch: []*mappers.Change{{}, {Mode: mappers.CreateOnly}},
			rule: mappers.Forward, values: []any{"lead", "mql"}, want: "lead",
		},
		{
			name: "add likewise", rows: []*deskRow{sales("7", "k", "1", "x", []any{"y"})}, batch: []*mappers.Change{{}, {Mode: mappers.CreateOnly}},
			rule: mappers.Add, values: []any{[]any{"a"}, []any{"b"}}, want: []any{"y", "a"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &desk{manners: &manners{Find: true}, rows: tt.rows}
			r := New(uuid.UUID{1}, Key{"contacts", "k", "1"})
			n := 0
			filled := func(c *mappers.Change) *mappers.Change {
				c.Fields = fields(tt.rule, "x", tt.values[n])
				n++
				return c
			}
			if tt.first != nil {
				first := *tt.first
				d.work(r, filled(&first))
			}
			for _, c := range tt.batch {
				filled(c)
			}
			d.work(r, tt.batch...)
			if is := d.rows[0].values["x"]; !NewValue(is).Equal(NewValue(tt.want)) {
				t.Errorf("%v after %q", is, d.requests)
			}
		})
	}
}

// A record that was found without our key, and not touched, gets that with its next event.
func TestFoundAndLeft(t *testing.T) {
	t.Parallel()
	d := &desk{manners: &manners{Find: true}, rows: []*deskRow{sales("7", "email", "a@b.co")}}
	r := New(uuid.UUID{1}, Key{"contacts", "k", "1"})
	mail := []mappers.Match{by("email", "a@b.co")}
	for range 2 {
		d.work(r, &mappers.Change{Mode: mappers.CreateOnly, Match: mail, Fields: fields(mappers.Set, "name", "x")})
	}
	d.work(r, &mappers.Change{Match: mail, Fields: fields(mappers.Set, "name", "y")})
	if want := []string{"search email", "update k name"}; !slices.Equal(d.requests, want) || d.rows[0].values["k"] != "1" {
		t.Errorf("%q", d.requests)
	}
}

// A record that is made by a link is looked for as the link says.
func TestStubIsLookedFor(t *testing.T) {
	t.Parallel()
	link := mappers.Link{To: "contacts", Key: mappers.Key{Property: "k", Value: "1"}, Missing: "create", Match: []mappers.Match{by("email", "a@b.co")}}
	by := &Delivery{Cause: &Cause{}, Change: &mappers.Change{Links: []mappers.Link{link}}}
	stub := NewStub(by, &Link{To: "contacts", Property: "k", Key: "1"}, Key{"contacts", "k", "1"})
	d := &desk{manners: &manners{Find: true}, rows: []*deskRow{sales("7", "email", "a@b.co")}}
	d.work(New(uuid.UUID{1}, stub.Key), stub.Change)
	if want := []string{"search email", "update k"}; !slices.Equal(d.requests, want) {
		t.Errorf("%q", d.requests)
	}
}

// Before the CRM has its say, the value rules commute: in any order, and in two records that turn
// out to be one. Under forward that holds for all that has become of a value, too.
func TestAnyOrderUnderValueRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var events []happening
		for i := range rapid.IntRange(1, 7).Draw(t, "events") {
			c := change()
			c.Fields = append(c.Fields, fields(mappers.Forward, "c", rapid.SampledFrom([]string{"lead", "mql", "customer", "churned", "lost"}).Draw(t, "stage"))...)
			v := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "value")
			c.Fields = append(c.Fields, fields(mappers.SetIfEmpty, "b", v)...)
			c.Fields = append(c.Fields, fields(mappers.SetOnCreate, "a", v)...)
			c.Fields = append(c.Fields, fields(mappers.Add, "d", []any{v})...)
			events = append(events, happening{c, at(int64(rapid.IntRange(1, 50).Draw(t, "at")*10 + i))})
		}
		whole, one, two := empty(), empty(), empty()
		for _, e := range events {
			Fold(whole, e.change, e.version)
		}
		settle := rapid.Bool().Draw(t, "settle")
		for _, e := range rapid.Permutation(events).Draw(t, "order") {
			r := rapid.SampledFrom([]*Record{one, two}).Draw(t, "record")
			Fold(r, e.change, e.version)
			if f := r.Fields["c"]; settle && rapid.Bool().Draw(t, "taken") {
				f.Acked, f.AckedAt = f.Wanted, f.Version
			}
		}
		Merge(one, two)
		if diff := cmp.Diff(wantedOf(whole), wantedOf(one)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// A link that is made only where the CRM has none, each with the requests that it takes.
func TestOnlyIfEmpty(t *testing.T) {
	t.Parallel()
	firm := func(key string) mappers.Change {
		return mappers.Change{Links: []mappers.Link{{To: "firms", Key: mappers.Key{Property: "fk", Value: key}, IfEmpty: true, Missing: "retry", For: time.Hour}}}
	}
	with := func(c mappers.Change, edit func(*mappers.Change)) mappers.Change { edit(&c); return c }
	mail := func(c *mappers.Change) {
		c.Match, c.Fields = []mappers.Match{by("email", "a@b.co")}, fields(mappers.Set, "name", "New")
	}
	named := func(c *mappers.Change) { c.Fields = fields(mappers.Set, "name", "New") }
	known := func(r *Record) { r.CRMID, r.Presence, r.New = "7", Present, false }
	const kept = "the CRM keeps another link to firms"
	for _, tt := range []struct {
		name     string
		rows     []*deskRow
		carries  bool
		known    bool
		hidden   string
		doubt    string           // before the last change nobody knows what became of the link, and this is there: - is nothing
		changes  []mappers.Change // one after the other, each in a batch of its own
		outcome  Outcome          // of the last
		reason   string
		requests []string
		firm     any // of the record in the end
	}{
		{name: "a new record takes it along", carries: true, changes: []mappers.Change{with(firm("f"), named)}, outcome: Delivered,
			requests: []string{"find", "create k name with 50"}, firm: "50"},
		{name: "a new record gets it afterwards", changes: []mappers.Change{with(firm("f"), named)}, outcome: Delivered,
			requests: []string{"find", "create k name", "link 50"}, firm: "50"},
		{name: "one that is there under our key, with another", carries: true, rows: []*deskRow{sales("7", "k", "1", "link ", "60")}, changes: []mappers.Change{with(firm("f"), named)},
			outcome: Delivered, reason: kept, requests: []string{"find", "update name"}, firm: "60"},
		{name: "adopted, with another", carries: true, rows: []*deskRow{sales("7", "email", "a@b.co", "link ", "60")}, changes: []mappers.Change{with(firm("f"), mail)},
			outcome: Delivered, reason: kept, requests: []string{"search email", "update k name"}, firm: "60"},
		{name: "adopted, with none", carries: true, rows: []*deskRow{sales("7", "email", "a@b.co", "link ", " ")}, changes: []mappers.Change{with(firm("f"), mail)},
			outcome: Delivered, requests: []string{"search email", "update k name with 50"}, firm: "50"},
		{name: "adopted, with ours", carries: true, rows: []*deskRow{sales("7", "email", "a@b.co", "link ", "50")}, changes: []mappers.Change{with(firm("f"), mail)},
			outcome: Delivered, requests: []string{"search email", "update k name"}, firm: "50"},
		{name: "adopted, and it does not show it", carries: true, hidden: "link ", rows: []*deskRow{sales("7", "email", "a@b.co", "link ", "60")}, changes: []mappers.Change{with(firm("f"), mail)},
			outcome: Delivered, reason: kept, requests: []string{"search email", "update k name"}, firm: "60"},
		{name: "known, with none", known: true, rows: []*deskRow{sales("7", "k", "1")}, changes: []mappers.Change{firm("f")},
			outcome: Delivered, requests: []string{"read", "link 50"}, firm: "50"},
		{name: "known, with another", known: true, rows: []*deskRow{sales("7", "k", "1", "link ", "60")}, changes: []mappers.Change{firm("f")},
			outcome: Skipped, reason: kept, requests: []string{"read"}, firm: "60"},
		{name: "known, with another, a second time", known: true, rows: []*deskRow{sales("7", "k", "1", "link ", "60")}, changes: []mappers.Change{firm("f"), firm("f")},
			outcome: Unchanged, requests: []string{"read"}, firm: "60"},
		{name: "known, with ours", known: true, rows: []*deskRow{sales("7", "k", "1", "link ", "50")}, changes: []mappers.Change{firm("f")},
			outcome: Unchanged, reason: "the CRM has it already", requests: []string{"read"}, firm: "50"},
		{name: "a second one of ours", known: true, rows: []*deskRow{sales("7", "k", "1")}, changes: []mappers.Change{firm("f"), firm("g")},
			outcome: Skipped, reason: kept, requests: []string{"read", "link 50"}, firm: "50"},
		{name: "in doubt, and made", doubt: "50", known: true, rows: []*deskRow{sales("7", "k", "1")}, changes: []mappers.Change{firm("f"), firm("f")},
			outcome: Unchanged, reason: "the CRM has it already", requests: []string{"read", "link 50", "read"}, firm: "50"},
		{name: "in doubt, and not made", doubt: "-", known: true, rows: []*deskRow{sales("7", "k", "1")}, changes: []mappers.Change{firm("f"), firm("f")},
			outcome: Delivered, requests: []string{"read", "link 50", "read", "link 50"}, firm: "50"},
		{name: "in doubt, and people were faster", doubt: "60", known: true, rows: []*deskRow{sales("7", "k", "1")}, changes: []mappers.Change{firm("f"), firm("f")},
			outcome: Skipped, reason: kept, requests: []string{"read", "link 50", "read"}, firm: "60"},
		{name: "known, and its other end is not", known: true, rows: []*deskRow{sales("7", "k", "1", "link ", "60")}, changes: []mappers.Change{firm("h")},
			firm: "60"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &desk{manners: &manners{Find: true, ByID: tt.carries, Updates: tt.carries, Replace: true}, rows: tt.rows, hidden: tt.hidden, firms: map[string]string{"f": "50", "g": "51"}}
			r := New(uuid.UUID{9}, Key{"contacts", "k", "1"})
			if tt.known {
				known(r)
			}
			var last *Delivery
			for i, c := range tt.changes {
				if i > 0 && tt.doubt != "" {
					d.rows[0].values["link "] = strings.TrimPrefix(tt.doubt, "-")
					for _, l := range r.Links {
						l.Have = InDoubt
					}
				}
				last = d.work(r, &c)[0]
			}
			if last.Outcome != tt.outcome || tt.outcome != "" && last.Reason != tt.reason {
				t.Errorf("%s %q, want %s %q", last.Outcome, last.Reason, tt.outcome, tt.reason)
			}
			if diff := cmp.Diff(tt.requests, d.requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if got := d.rows[0].values["link "]; got != tt.firm {
				t.Errorf("linked to %v, want %v", got, tt.firm)
			}
		})
	}
}
