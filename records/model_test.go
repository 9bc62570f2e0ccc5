package records

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"partnersync/mappers"
)

// What some values and keys stand for.
const (
	named      = "named"   // a value that the CRM refuses, and says of which field
	unnamed    = "unnamed" // one that it refuses without saying why
	unique     = "u"       // a field of which no two records have the same value
	unlinkable = "9"       // the key of a firm that nothing may be linked to
)

var start = time.Unix(1_800_000_000, 0)

// story is what a history is made of.
type story struct {
	Manners *manners
	Seeds   []seed
	Happens []*happened
	Acts    []act

	Sales          bool // of match and the value rules
	Several, Taken string
	IfEmpty        bool // links are made only where there is none
}

// seed is a record that people have made before.
type seed struct {
	Object, K, J, U string
	Cells           map[string]any
}

// happened is one event, with what mappings make of it.
type happened struct {
	Name    string
	Changes []*mappers.Change

	cause     *Cause
	arrived   bool
	open      bool
	times     int // that it was opened
	progress  []*Progress
	delivered []bool // by change: it has ended as delivered once
}

func (e *happened) String() string {
	text := fmt.Sprintf("%s at %d/%d", e.Name, e.cause.Version.At, e.cause.Version.Rank)
	for _, c := range e.Changes {
		text += fmt.Sprintf("; %s %s %s=%s", c.Mode, c.Object, c.Key.Property, c.Key.Value)
		if c.Recreate {
			text += " recreate"
		}
		if c.Absent != "" {
			text += " absent:" + c.Absent
		}
		if len(c.Match) > 0 {
			text += fmt.Sprintf(" match %v", c.Match)
		}
		for _, f := range c.Fields {
			text += fmt.Sprintf(" %s %s=%v", f.Rule, f.Name, f.Value)
			if f.Optional {
				text += "?"
			}
		}
		for _, l := range c.Links {
			text += fmt.Sprintf(" link %s as %q only:%v remove:%v missing:%s required:%v", l.Key.Value, l.As, l.Only, l.Remove, l.Missing, l.Required)
		}
	}
	return text
}

// act is one thing that happens.
type act struct {
	Do         deed
	Events     []int         // of work: which of the open ones, of arrives and again: which
	Moods      []mood        // of the CRM, for one request after the other; then it is well
	Die        int           // of work: at which boundary the process dies; 0: it does not
	Unrecorded bool          // of work: the ledger does not take what became of it, and the process lives
	Late       int           // of work: before which step of a round the CRM carries out what it has put off; 0: before none
	Blind      bool          // of work: the ledger cannot be asked for ids of the CRM
	For        time.Duration // of passes
	Field      string        // of edits
	Value      any
}

// deed is what an act does.
type deed int

const (
	arrives deed = iota
	work         // a batch
	passes       // time passes
	settles      // the CRM carries out what it has put off
	again        // somebody replays an event
	deletes      // somebody deletes a record in the CRM
	joins        // somebody merges two there
	edits        // somebody changes a field
)

// TestModel plays histories against a model CRM, and judges every write and every outcome. What
// it must hold is said where the judge looks, in model_judge_test.go.
func TestModel(t *testing.T) {
	times := 150 // of 100 histories
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "rapid.checks" {
			times = 1
		}
	})
	var until time.Time
	if text := os.Getenv("PARTNERSYNC_LAWS"); text != "" { // for so long, by `make laws`
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		until = time.Now().Add(d)
	}
	for ; times > 0 || time.Now().Before(until); times-- {
		rapid.Check(t, func(t *rapid.T) {
			s := drawStory(t)
			if err := s.play(false); err != nil {
				t.Fatalf("%v\n%s", err, s.told())
			}
		})
	}
}

// told is what comes to pass in a story.
func (s *story) told() string {
	h := s.begin(true)
	h.run()
	return fmt.Sprintf("%+v\n", *s.Manners) + strings.Join(h.log, "\n")
}

func (s *story) play(logging bool) error {
	h := s.begin(logging)
	h.run()
	return h.lost
}

func (s *story) begin(logging bool) *history {
	h := &history{
		story: s, records: map[uuid.UUID]*Record{}, keys: map[Key]uuid.UUID{}, shut: map[Key]time.Duration{},
		owned: map[string][]string{}, joined: map[uuid.UUID]uuid.UUID{}, blended: map[uuid.UUID]bool{}, logging: logging, now: modelLag,
	}
	h.crm = &crm{manners: s.Manners, h: h, made: map[Key]int{}, named: map[Version]bool{}}
	for _, e := range s.Happens {
		c := *e.cause
		c.Run, c.Rewrite = 0, false
		e.cause, e.arrived, e.open, e.times = &c, false, false, 0
		e.progress, e.delivered = make([]*Progress, len(e.Changes)), make([]bool, len(e.Changes))
	}
	for _, d := range s.Seeds {
		r := h.crm.make(d.Object)
		r.since = 0
		for property, key := range map[string]string{"k": d.K, "j": d.J} {
			if key != "" {
				r.keys[property] = key
			}
		}
		for name, v := range d.Cells {
			h.put(r, name, v)
		}
		for name, c := range r.cells {
			c.since = 0
			r.cells[name] = c
		}
		if d.U != "" {
			r.cells[unique] = cell{value: d.U}
		}
		h.note("there is %s %v with %q %v", r.id, r.keys, d.U, d.Cells)
	}
	return h
}

func (h *history) run() {
	for i := range h.Acts {
		h.act(&h.Acts[i])
		if h.lost != nil {
			return
		}
	}
	// In the end all events have come, and the CRM is well.
	for i := range h.Happens {
		h.act(&act{Do: arrives, Events: []int{i}})
	}
	all := &act{Do: work}
	for i := range h.Happens {
		all.Events = append(all.Events, i)
	}
	h.note("all is well from now on")
	for range 50 {
		if h.lost != nil {
			return
		}
		if len(h.open()) == 0 {
			if h.Sales {
				h.judgeSales()
				return
			}
			h.judge()
			return
		}
		h.act(&act{Do: passes, For: time.Hour})
		h.act(all)
	}
	if h.lost == nil {
		h.fault("events stay open for ever: %v", h.open())
	}
}

// open are the events without an outcome, in the order of their arrival.
func (h *history) open() []*happened {
	return slices.DeleteFunc(slices.Clone(h.Happens), func(e *happened) bool { return !e.open })
}

func (h *history) act(a *act) {
	h.turn++
	switch a.Do {
	case arrives:
		for _, i := range a.Events {
			if e := h.Happens[i%len(h.Happens)]; !e.arrived {
				e.arrived, e.open = true, true
				e.cause.ReceivedAt = start.Add(h.now)
				h.note("there comes %s", e)
			}
		}
	case work:
		h.work(a)
		for _, e := range h.Happens {
			e.open = e.arrived && slices.ContainsFunc(e.progress, func(p *Progress) bool { return p == nil || p.Open() })
		}
	case passes:
		h.pass(a.For)
	case settles:
		h.crm.catchUp(true)
	case again:
		if e := h.Happens[a.Events[0]%len(h.Happens)]; e.arrived && !e.open {
			c := *e.cause
			c.Run++
			c.Rewrite = a.Blind
			e.cause, e.open = &c, true
			e.times++
			e.progress = make([]*Progress, len(e.Changes))
			h.note("somebody replays %s", e)
		}
	case deletes, joins:
		h.people(a)
	case edits:
		h.edit(a)
	}
}

// people do as they like with the records of the CRM.
func (h *history) people(a *act) {
	var deals []*row
	for _, r := range h.crm.rows {
		if !r.gone && (r.object == "deals" || r.object == "firms" && a.Do == deletes) {
			deals = append(deals, r)
		}
	}
	if len(deals) == 0 {
		return
	}
	r := deals[a.Events[0]%len(deals)]
	if a.Do == deletes {
		h.note("somebody deletes %s", r.id)
		r.gone, r.touched = true, true
		for _, o := range h.crm.rows {
			for at := range o.links {
				if at.id == r.id {
					delete(o.links, at)
				}
			}
		}
		return
	}
	if into := deals[(a.Events[0]+1)%len(deals)]; into != r {
		h.note("somebody merges %s into %s", r.id, into.id)
		r.gone, r.touched, r.into = true, true, into.id
		into.touched = true
		if h.Sales {
			h.blend(r, into)
		}
	}
}

func drawStory(t *rapid.T) *story {
	s := &story{Manners: drawManners(t)}
	pick := func(label string, most int) int { return rapid.IntRange(0, most).Draw(t, label) }
	if pick("seeded", 3) == 3 {
		s.Seeds = append(s.Seeds, rapid.SampledFrom([]seed{{"deals", "a", "", "", nil}, {"deals", "a", "a", "", nil}, {"deals", "", "", "1", nil}, {"firms", "1", "", "", nil}, {"deals", "a", "", "1", nil}}).Draw(t, "seed"))
	}
	n := 1 + pick("events", 4)
	theme := pick("theme", 4)
	if theme == 1 {
		s.Seeds = []seed{{"deals", "a", "a", "", nil}}
	}
	if theme == 4 {
		drawSales(t, s, n)
	}
	for i := range n {
		switch theme {
		case 4:
		case 0:
			s.Happens = append(s.Happens, drawNarrow(t, i))
		case 1:
			s.Happens = append(s.Happens, drawTwin(t, i, s.Manners))
		default:
			s.Happens = append(s.Happens, drawEvent(t, i, s.Manners))
		}
	}
	for i := range n {
		s.Acts = append(s.Acts, act{Do: arrives, Events: []int{i}})
		for range pick("acts", 3) {
			if s.Sales && drawSmall.Draw(t, "people") == 3 {
				s.Acts = append(s.Acts, drawEditing(t))
				continue
			}
			s.Acts = append(s.Acts, drawAct(t, n))
		}
	}
	return s
}

func drawManners(t *rapid.T) *manners {
	bits := rapid.IntRange(0, 1<<10-1).Draw(t, "manners")
	is := func(bit int) bool { return bits>>bit&1 == 1 }
	return &manners{ByID: is(0) || is(1), ByKey: is(1), Updates: is(2), Replace: is(3), Find: !is(4), Repeat: is(5), Redirects: is(6), Lags: is(7), Mute: is(8), Strict: is(9), All: false}
}

var (
	drawMode  = rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 4, 5, 6})
	drawValue = rapid.SampledFrom([]string{"", "", "1", "1", "2", "2", "3", named, unnamed, "clear"})
	drawKey   = rapid.SampledFrom([]string{"a", "a", "a", "a", "b", "a of j"})
	drawLinks = rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2})
	drawWhat  = rapid.SampledFrom([]string{"1", "2", "1", "2", "1", "2", named, unnamed, "first", "recreate", "archive"})
	drawMood  = rapid.SampledFrom([]mood{fine, fine, fine, cutOff, unheard, late, late, twice, broken, unsent, shortly, throttled})
	drawDeed  = rapid.SampledFrom([]deed{work, work, work, work, work, passes, settles, again, deletes, joins})
	drawSmall = rapid.IntRange(0, 3)
	drawDie   = rapid.SampledFrom([]int{0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16})
)

// drawCause draws which event it is, and when it happened.
func drawCause(t *rapid.T, i int) *happened {
	e := &happened{Name: fmt.Sprint("e", i)}
	e.cause = &Cause{Event: uuid.UUID{15: byte(rapid.IntRange(0, 3).Draw(t, "id")*16 + i + 1)}, Source: "shop", Type: "t"}
	when := rapid.IntRange(0, 9).Draw(t, "when")
	e.cause.Version = Version{At: int64(1 + when/2), Rank: int16(when % 2), Event: e.cause.Event}
	return e
}

// drawNarrow draws an event of one field of one record, so that events meet.
func drawNarrow(t *rapid.T, i int) *happened {
	e := drawCause(t, i)
	c := &mappers.Change{Mapping: "m", Object: "deals", Mode: mappers.Upsert, Key: mappers.Key{Property: "k", Value: "a"}}
	e.Changes = append(e.Changes, c)
	switch what := drawWhat.Draw(t, "what"); what {
	case "archive":
		c.Mode = mappers.Archive
	case "first":
		c.Fields = []mappers.Field{{Name: "p", Rule: mappers.SetFirst, Value: e.Name}}
	case "recreate":
		c.Recreate = true
		fallthrough
	default:
		c.Fields = []mappers.Field{{Name: "f", Rule: mappers.Set, Value: what}}
	}
	return e
}

// drawTwin draws an event of a record that two keys name, with a field or a link.
func drawTwin(t *rapid.T, i int, m *manners) *happened {
	e := drawCause(t, i)
	c := &mappers.Change{Mapping: "m", Object: "deals", Mode: mappers.Upsert, Key: mappers.Key{Property: rapid.SampledFrom([]string{"k", "j"}).Draw(t, "property"), Value: "a"}}
	e.Changes = append(e.Changes, c)
	if v := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "f"); v != "" {
		c.Fields = []mappers.Field{{Name: "f", Rule: mappers.Set, Value: v}}
	}
	if to := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "firm"); to != "" {
		l := mappers.Link{To: "firms", Key: mappers.Key{Property: "k", Value: to}, Missing: "create", Only: m.Replace}
		switch rapid.IntRange(0, 2).Draw(t, "statement") {
		case 1:
			l.Only = true
		case 2:
			l.Only, l.Remove = false, true
		}
		c.Links = []mappers.Link{l}
	}
	return e
}

func drawEvent(t *rapid.T, i int, m *manners) *happened {
	e := drawCause(t, i)
	c := &mappers.Change{Mapping: "m", Object: "deals", Mode: mappers.Upsert}
	switch key := drawKey.Draw(t, "key"); key {
	case "a of j":
		c.Key = mappers.Key{Property: "j", Value: "a"}
	default:
		c.Key = mappers.Key{Property: "k", Value: key}
	}
	e.Changes = append(e.Changes, c)
	switch drawMode.Draw(t, "mode") {
	case 1:
		c.Recreate = true
	case 2:
		c.Mode = mappers.UpdateOnly
		c.Absent = rapid.SampledFrom([]string{"", "skip", "dead"}).Draw(t, "absent")
	case 3:
		c.Mode = mappers.CreateOnly
	case 4:
		c.Mode = mappers.Archive
		return e
	case 5:
		c.Mode, c.Object = mappers.Append, "notes"
		c.Key = mappers.Key{Value: e.Name, Local: true}
	case 6: // two mappings, one of them of a firm
		e.Changes = append(e.Changes, &mappers.Change{
			Mapping: "n", Object: "firms", Mode: mappers.Upsert, Recreate: true, Key: mappers.Key{Property: "k", Value: "1"}, Fields: []mappers.Field{{Name: "n", Rule: mappers.Set, Value: e.Name}},
		})
	}
	for _, name := range []string{"f", "g", "p", "o", unique} {
		f := mappers.Field{Name: name, Rule: mappers.Set, Optional: name == "o"}
		switch v := drawValue.Draw(t, name); {
		case v == "":
			continue
		case v == "clear" && name != "p":
			f.Rule = mappers.Clear
		case v == "clear" || name == unique && v != "1":
			continue
		case name == "p":
			f.Rule, f.Value = mappers.SetFirst, v
		default:
			f.Value = v
		}
		c.Fields = append(c.Fields, f)
	}
	if len(c.Fields) > 0 && drawSmall.Draw(t, "touch") == 3 {
		c.Fields = append(c.Fields, mappers.Field{Name: "t", Rule: mappers.Touch, Value: e.Name})
	}
	if c.Mode == mappers.Append {
		return e
	}
	for range drawLinks.Draw(t, "links") {
		l := drawWish(t, m)
		if !slices.ContainsFunc(c.Links, func(o mappers.Link) bool { return o.As == l.As && (m.Replace || o.Key == l.Key) }) {
			c.Links = append(c.Links, l) // one event says one thing of a link
		}
	}
	return e
}

func drawWish(t *rapid.T, m *manners) mappers.Link {
	l := mappers.Link{To: "firms", For: 2 * time.Hour, Missing: rapid.SampledFrom([]string{"create", "create", "retry", "skip"}).Draw(t, "missing")}
	l.Key = mappers.Key{Property: "k", Value: rapid.SampledFrom([]string{"1", "1", "2", unlinkable}).Draw(t, "firm")}
	l.As = rapid.SampledFrom([]string{"", "", "", "x"}).Draw(t, "as")
	switch rapid.IntRange(0, 4).Draw(t, "statement") {
	case 0, 1:
		l.Only = m.Replace // there, a link always takes the place of the former one
	case 2, 3:
		l.Only = true
	case 4:
		l.Remove = true
		return l
	}
	l.Required = drawSmall.Draw(t, "required") == 3
	return l
}

func drawAct(t *rapid.T, events int) act {
	a := act{Do: drawDeed.Draw(t, "do")}
	switch a.Do {
	case passes:
		a.For = rapid.SampledFrom([]time.Duration{modelSettle, time.Second, modelSettle + modelLag + 2*modelTimeout, time.Hour}).Draw(t, "for")
		return a
	case settles:
		return a
	}
	a.Events = append(a.Events, rapid.IntRange(0, events-1).Draw(t, "event"))
	if a.Do == again {
		a.Blind = rapid.Bool().Draw(t, "rewrite")
	}
	if a.Do != work {
		return a
	}
	for range drawSmall.Draw(t, "more") {
		a.Events = append(a.Events, rapid.IntRange(0, events-1).Draw(t, "event"))
	}
	for range drawSmall.Draw(t, "moods") {
		a.Moods = append(a.Moods, drawMood.Draw(t, "mood"))
	}
	a.Die = drawDie.Draw(t, "die")
	switch rapid.IntRange(0, 9).Draw(t, "besides") {
	case 7:
		a.Unrecorded = true
	case 8:
		a.Late = 1 + rapid.IntRange(0, 2).Draw(t, "before")
	case 9:
		a.Blind = true
	}
	return a
}
