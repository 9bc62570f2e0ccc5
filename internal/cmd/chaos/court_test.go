package main

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// side is a CRM under the eyes of the court. What is done there is stored at once.
type side struct {
	*crm
	t       *testing.T
	intents *intents
	last    time.Time // when something was stored last
	unknown bool      // what is done is not stored: whoever does it is lost
}

var announcedKeys = []string{"orders d", "firms f", "firms g", "seats s", "contacts m", "contacts n"}

func (s *side) stored() {
	now := time.Now()
	i := &intent{id: uuid.New(), sink: s.sink, owner: "one", made: s.last, until: now.Add(time.Hour), ended: now, told: !s.unknown}
	for _, k := range announcedKeys {
		object, key, _ := strings.Cut(k, " ")
		i.keys = append(i.keys, keyOf(object, key))
		k = s.sink + "\x1f" + keyOf(object, key)
		s.intents.byKey[k] = append(s.intents.byKey[k], i)
	}
	if s.last = now; i.told {
		s.intents.done[i.id] = now
	}
}

// names has keys of contacts name records of the ledger.
func (s *side) names(records map[string]uuid.UUID) {
	for key, record := range records {
		key = s.sink + "\x1f" + keyOf("contacts", key)
		s.intents.names[key] = append(s.intents.names[key], naming{s.last, record})
	}
}

func (s *side) put(object string, values map[string]any) string {
	defer s.stored()
	if object == "orders" {
		values["touched"] = dealUpdated // as each of them says
	}
	return s.box.Put(s.dialect, object, values)
}

func (s *side) edit(object, id string, values map[string]any) {
	s.box.Edit(s.dialect, object, id, values)
	s.stored()
}

func (s *side) archive(object, id string) {
	s.box.Archive(s.dialect, object, id)
	s.stored()
}

// deal makes the order as the event with that title has it.
func (s *side) deal(title string) string {
	tiers := map[string]any{"one": "gold", "two": "silver", "three": nil, "four": "gold"}
	return s.put("orders", map[string]any{"order_key": "d", "title": title, "tier": tiers[title]})
}

func (s *side) firms() {
	s.put("firms", map[string]any{"firm_key": "f"})
	s.put("firms", map[string]any{"firm_key": "g"})
}

func (s *side) link(deal, firm string) {
	s.tie(s.t, deal, firm)
	s.stored()
}

func (s *side) unlink(deal, firm string) {
	from, to := s.records("orders", "order_key")[deal][0].ID, s.records("firms", "firm_key")[firm][0].ID
	ask(s.t, s.url+"/crm/associations/2026-03/orders/firms/batch/archive", `{"inputs":[{"from":{"id":"`+from+`"},"to":[{"id":"`+to+`"}]}]}`)
	s.stored()
}

// Each write is judged by itself, whatever comes after it.
func TestCourt(t *testing.T) {
	t.Parallel()
	at := func(n byte, typ string, second int64, text string) event {
		when := time.Unix(second, 0)
		e := event{id: id(n), typ: typ, occurredAt: &when, versionAt: when, receivedAt: time.Now(), body: fmt.Appendf(nil, `{"at":%d,%s}`, second, text)}
		if typ == dealUpdated || typ == seatEnded || typ == tieCut {
			e.rank = 1
		}
		return e
	}
	events := []event{
		at(1, dealUpdated, 1, `"key":"d","name":"one","stage":"gold","partner":"p1","firm":"f"`),
		at(2, dealUpdated, 2, `"key":"d","name":"two","stage":"silver","partner":"p2","firm":"g"`),
		at(3, dealUpdated, 3, `"key":"d","name":"three","description":""`),
		at(4, dealUpdated, 4, `"key":"d","name":"four","stage":"gold"`),
		at(5, tieMade, 1, `"deal":"d","firm":"g"`),
		at(6, tieMade, 3, `"deal":"d","firm":"f"`),
		at(7, tieCut, 5, `"deal":"d","firm":"f"`),
		at(8, seatSaved, 1, `"key":"s","name":"first"`),
		at(9, seatEnded, 2, `"key":"s"`),
		at(10, seatSaved, 3, `"key":"s","name":"second"`),
		at(11, memberSaved, 1, `"key":"m","email":"a@acme.test","name":"Ann"`),
		at(12, firmSaved, 1, `"key":"f","name":"F"`),
		at(13, firmSaved, 1, `"key":"g","name":"G"`),
		at(14, memberSaved, 2, `"key":"n","email":"a@acme.test","name":"Bea"`),
	}
	for _, tt := range []struct {
		name string
		sink string // crm where there is none
		give func(s *side)
		late []int         // events that are stored after all that
		gone time.Duration // before now: when the person was forgotten
		want []string
	}{
		{name: "in order", give: func(s *side) {
			d := s.put("orders", map[string]any{"order_key": "d", "title": "one", "tier": "gold"})
			s.edit("orders", d, map[string]any{"title": "two", "tier": "silver", "first_partner": "p2"})
			s.edit("orders", d, map[string]any{"first_partner": "p1"})
			s.edit("orders", d, map[string]any{"title": "four", "tier": "gold"})
		}},
		{name: "an older value, healed at once", give: func(s *side) {
			d := s.put("orders", map[string]any{"order_key": "d", "title": "two", "tier": "silver"})
			s.edit("orders", d, map[string]any{"title": "one"})
			s.edit("orders", d, map[string]any{"title": "three"})
		}, want: []string{`crm orders d: title is written as "one", which 1 wants, over what 2 wants`}},
		{name: "a value that others want too", give: func(s *side) {
			d := s.put("orders", map[string]any{"order_key": "d", "title": "two", "tier": "silver"})
			s.edit("orders", d, map[string]any{"tier": "gold"}) // of the fourth
		}},
		{name: "an older value beside a newer one", give: func(s *side) {
			s.edit("orders", s.deal("one"), map[string]any{"title": "four", "tier": "silver"})
		}, want: []string{`crm orders d: tier is written as "silver", which 2 wants, over what 4 wants`}},
		{name: "an older value is left beside a newer one", give: func(s *side) {
			d := s.put("orders", map[string]any{"order_key": "d", "title": "one", "tier": "gold"})
			s.edit("orders", d, map[string]any{"title": "two"})
		}, late: []int{4}, want: []string{`crm orders d: tier is written as "gold", which 1 wants, over what 2 wants`}},
		{name: "a newer first value", give: func(s *side) {
			d := s.put("orders", map[string]any{"order_key": "d", "title": "one", "tier": "gold", "first_partner": "p1"})
			s.edit("orders", d, map[string]any{"first_partner": "p2"})
		}, want: []string{`crm orders d: first_partner is written as "p2", which 2 wants, over what 1 wants`}},
		{name: "what nobody wants", give: func(s *side) { s.deal("five") },
			want: []string{`crm orders d: title is written as "five", which nobody wants, over what nobody wants`}},
		{name: "who made it is lost", give: func(s *side) {
			s.unknown = true
			s.edit("orders", s.deal("three"), map[string]any{"title": "one", "tier": "gold"})
		}},
		{name: "who made it is lost, and what came after is known", give: func(s *side) {
			s.unknown = true
			d := s.put("orders", map[string]any{"order_key": "d", "title": "three", "first_partner": "p1"})
			s.unknown = false
			s.edit("orders", d, map[string]any{"tier": "gold"}) // of the first
			s.edit("orders", d, map[string]any{"title": "two", "tier": "silver", "first_partner": "p2"})
		}},
		{name: "an older value after that", give: func(s *side) {
			s.unknown = true
			d := s.deal("three")
			s.unknown = false
			s.edit("orders", d, map[string]any{"title": "two", "tier": "silver"})
			s.edit("orders", d, map[string]any{"title": "one", "tier": "gold"})
		}, want: []string{`crm orders d: title is written as "one", which 1 wants, over what 2 wants`}},
		{name: "who writes what is known is lost", give: func(s *side) {
			d := s.deal("one")
			s.unknown = true
			s.edit("orders", d, map[string]any{"title": "three"})
			s.unknown = false
			s.edit("orders", d, map[string]any{"title": "two", "tier": "silver"})
		}, want: []string{`crm orders d: title is written as "two", which 2 wants, over what 3 wants`}},
		{name: "who makes a link is lost", give: func(s *side) {
			s.unknown = true
			s.firms()
			s.deal("three")
			s.link("d", "g")
			s.unknown = false
			s.link("d", "f")
		}, late: []int{5, 6}},
		{name: "who archives is lost", give: func(s *side) {
			seat := s.put("seats", map[string]any{"seat_key": "s", "title": "first"})
			s.unknown = true
			s.archive("seats", seat)
			s.unknown = false
			s.put("seats", map[string]any{"seat_key": "s", "title": "first"})
		}},
		{name: "who archives what nobody knows is lost", sink: "mirror", give: func(s *side) {
			s.unknown = true
			s.archive("seats", s.put("seats", map[string]any{"seat_key": "s", "title": "first"}))
			s.unknown = false
			s.put("seats", map[string]any{"seat_key": "s", "title": "first"})
		}},
		{name: "a link that is older than the newest only", give: func(s *side) {
			s.firms()
			s.deal("three")
			s.link("d", "g")
			s.link("d", "f")
		}, late: []int{5, 6}, want: []string{"crm orders d: is linked to f, as 1 wants, after what 2 wants"}},
		{name: "links of all kinds", give: func(s *side) {
			s.firms()
			s.deal("three")
			s.link("d", "f")
			s.unlink("d", "f")
			s.link("d", "g")
			s.link("d", "f")
			s.unlink("d", "f")
		}},
		{name: "a link is taken back that nobody cuts", give: func(s *side) {
			s.firms()
			s.deal("three")
			s.link("d", "g")
			s.unlink("d", "g")
		}, late: []int{5}, want: []string{"crm orders d: is linked to g no more, as 1 wants, after what 2 wants"}},
		{name: "a seat comes, ends and comes again", give: func(s *side) {
			s.archive("seats", s.put("seats", map[string]any{"seat_key": "s", "title": "first"}))
			s.put("seats", map[string]any{"seat_key": "s", "title": "second"})
		}},
		{name: "an older event archives", give: func(s *side) {
			s.archive("seats", s.put("seats", map[string]any{"seat_key": "s", "title": "second"}))
		}, want: []string{"crm seats s: is archived, as 9 wants, though 10 wants it"}},
		{name: "an older event makes it again", give: func(s *side) {
			s.archive("seats", s.put("seats", map[string]any{"seat_key": "s", "title": "first"}))
			s.put("seats", map[string]any{"seat_key": "s", "title": "first"})
		}, want: []string{`crm seats s: title is written as "first", which 8 wants, over what 9 wants`}},
		{name: "what has ended stays away", sink: "mirror", give: func(s *side) {
			s.archive("seats", s.put("seats", map[string]any{"seat_key": "s", "title": "second"}))
			s.put("seats", map[string]any{"seat_key": "s", "title": "second"})
		}, want: []string{"mirror seats s: is made again, though it was archived by 9"}},
		{name: "two keys that have met", give: func(s *side) {
			s.names(map[string]uuid.UUID{"m": id(1), "n": id(1)})
			c := s.put("contacts", map[string]any{"email": "a@acme.test", "firstname": "Bea"})
			s.edit("contacts", c, map[string]any{"firstname": "Ann"})
		}, want: []string{`crm contacts a@acme.test: firstname is written as "Ann", which 11 wants, over what 14 wants`}},
		{name: "two keys that have not", give: func(s *side) {
			s.names(map[string]uuid.UUID{"m": id(1), "n": id(2)})
			c := s.put("contacts", map[string]any{"email": "a@acme.test", "firstname": "Bea"})
			s.edit("contacts", c, map[string]any{"firstname": "Ann"})
		}},
		{name: "two keys that meet too late", give: func(s *side) {
			s.names(map[string]uuid.UUID{"m": id(1), "n": id(2)})
			c := s.put("contacts", map[string]any{"email": "a@acme.test", "firstname": "Bea"})
			s.edit("contacts", c, map[string]any{"firstname": "Ann"})
			s.names(map[string]uuid.UUID{"n": id(1)})
			s.edit("contacts", c, map[string]any{"firstname": "Bea"})
			s.edit("contacts", c, map[string]any{"firstname": "Ann"})
		}, want: []string{`crm contacts a@acme.test: firstname is written as "Ann", which 11 wants, over what 14 wants`}},
		{name: "a person who was forgotten later", gone: time.Second, give: func(s *side) {
			s.put("contacts", map[string]any{"email": "a@acme.test", "firstname": "Ann"})
		}},
		{name: "a person who is forgotten", gone: time.Minute, give: func(s *side) {
			s.put("contacts", map[string]any{"email": "a@acme.test", "firstname": "Ann"})
		}, want: []string{"crm contacts a@acme.test: the person was forgotten before somebody set out to write this"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			events := slices.Clone(events)
			sink := tt.sink
			if sink == "" {
				sink = "crm"
			}
			c, err := newCRM(sink, "hubspot")
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			s := &side{crm: c, t: t, intents: &intents{byKey: map[string][]*intent{}, names: map[string][]naming{}, done: map[uuid.UUID]time.Time{}}, last: time.Now().Add(-10 * time.Second)}
			tt.give(s)
			for _, n := range tt.late {
				events[n-1].at = time.Now()
			}
			book, err := newBook(events)
			if err != nil {
				t.Fatal(err)
			}
			gone := map[string]time.Time{}
			if tt.gone > 0 {
				gone["a@acme.test"] = time.Now().Add(-tt.gone)
			}
			got := tried(c, &court{book: book, intents: s.intents, persons: map[string][]string{"a@acme.test": {"m", "n"}}, gone: gone})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("not announced", func(t *testing.T) {
		t.Parallel()
		c, err := newCRM("crm", "hubspot")
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		book, err := newBook(events)
		if err != nil {
			t.Fatal(err)
		}
		over := &intent{made: time.Now().Add(-time.Second), until: time.Now()}
		c.box.Put(c.dialect, "firms", map[string]any{"firm_key": "f"})
		got := tried(c, &court{book: book, intents: &intents{byKey: map[string][]*intent{"crm\x1ffirms\x1ff": {over}}}})
		if diff := cmp.Diff([]string{"crm firms f: a write takes effect, and no write intent names the record any more"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A row comes twice only where that is no waste.
func TestRepeats(t *testing.T) {
	t.Parallel()
	begun := time.Unix(1000, 0)
	at := func(second int) time.Time { return begun.Add(time.Duration(second) * time.Second) }
	span := func(from, to int, told bool) *intent {
		return &intent{id: uuid.New(), made: at(from), until: at(from + 15), ended: at(to), told: told}
	}
	for _, tt := range []struct {
		name    string
		clear   bool
		intents []*intent
		rewrite bool
		faults  int
	}{
		{"what came of it is stored", true, []*intent{span(0, 3, true), span(9, 12, true)}, false, 1},
		{"its answer left a doubt", false, []*intent{span(0, 3, true), span(9, 12, true)}, false, 0},
		{"who sent it is lost", true, []*intent{span(0, 3, false), span(9, 12, true)}, false, 0},
		{"who sent it is lost, and another could have", true, []*intent{span(-1, 3, true), span(0, 3, false), span(9, 12, true)}, false, 0},
		{"who set out to write it since is lost", true, []*intent{span(0, 3, true), span(5, 6, false), span(9, 12, true)}, false, 0},
		{"who set out to write it later is lost", true, []*intent{span(0, 3, true), span(9, 12, true), span(13, 14, false)}, false, 1},
		{"somebody has its event rewritten", true, []*intent{span(0, 3, true), span(9, 12, true)}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := row{object: "seats", key: "s", event: [36]byte([]byte(id(1).String()))}
			told := &intents{byKey: map[string][]*intent{"crm\x1f" + keyOf("seats", "s"): tt.intents}, done: map[uuid.UUID]time.Time{}}
			for _, i := range tt.intents {
				if i.told {
					told.done[i.id] = i.ended
				}
			}
			c := &court{sink: "crm", begun: begun, intents: told, verdict: &verdict{}}
			c.repeats(&crm{sent: map[row][]sending{r: {{at(1), tt.clear}, {at(10), true}}}},
				map[string][]route{id(1).String(): {{sink: "crm", rewrite: tt.rewrite}}})
			if len(c.verdict.faults) != tt.faults {
				t.Errorf("faults %q, want %d", c.verdict.faults, tt.faults)
			}
		})
	}
}

// tried are the faults that a court finds, without times and with the numbers of events.
func tried(c *crm, judge *court) []string {
	judge.sink, judge.verdict, judge.begun = c.sink, &verdict{}, time.Now()
	judge.judge(c.journal)
	var got []string
	for _, f := range judge.verdict.faults {
		var words []string
		list := strings.Fields(f)
		for i := 0; i < len(list); i++ {
			switch word := list[i]; {
			case word == "at" && i > 0 && strings.HasSuffix(list[i-1], ":"):
				i++ // and the time
			case strings.HasPrefix(word, "00000000-"):
				var n int
				_, _ = fmt.Sscanf(word[len(word)-2:], "%x", &n)
				words = append(words, fmt.Sprint(n))
				i += 2 // of when
				if strings.HasSuffix(list[i], ",") {
					words[len(words)-1] += ","
				}
			case word == "forgotten":
				words = append(words, word)
				i++ // how long before
			default:
				words = append(words, word)
			}
		}
		got = append(got, strings.Join(words, " "))
	}
	return got
}

// Nobody sets out to write what another may still be writing.
func TestCrossedIntents(t *testing.T) {
	t.Parallel()
	at := func(second int) time.Time { return time.Unix(int64(1000+second), 0) }
	for _, tt := range []struct {
		name string
		give [2]intent
		want bool
	}{
		{"of one owner", [2]intent{{id: id(1), owner: "a", made: at(0), until: at(9)}, {owner: "a", made: at(1), until: at(9)}}, false},
		{"of two", [2]intent{{id: id(1), owner: "a", made: at(0), until: at(9)}, {owner: "b", made: at(1), until: at(9)}}, true},
		{"of one that is renamed", [2]intent{{owner: "a", made: at(0), until: at(9), ended: at(1)}, {owner: "b", made: at(1), until: at(9)}}, false},
		{"when it is over", [2]intent{{id: id(1), owner: "a", made: at(0), until: at(1)}, {owner: "b", made: at(2), until: at(9)}}, false},
		{"when it has ended", [2]intent{{id: id(1), owner: "a", made: at(0), until: at(9), ended: at(1)}, {owner: "b", made: at(2), until: at(9)}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			list := &intents{byKey: map[string][]*intent{"k": {&tt.give[0], &tt.give[1]}}}
			got := false
			list.crossed(func(_, _ *intent, _ string) { got = true })
			if got != tt.want {
				t.Errorf("crossed: %v", got)
			}
		})
	}
}

// A process that is cut off, and what it had sent.
func TestWire(t *testing.T) {
	t.Parallel()
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	w, url, err := newWire("postgres://somebody:secret@" + far.Addr().String() + "/db")
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if !strings.HasPrefix(url, "postgres://somebody:secret@127.0.0.1:") || strings.Contains(url, far.Addr().String()) {
		t.Errorf("the process is told %s", url)
	}
	dial := func() (near, back net.Conn) {
		t.Helper()
		near, err := net.Dial("tcp", w.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		back, err = far.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return near, back
	}
	expect := func(c net.Conn, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	say := func(c net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Error(err)
		}
	}
	near, back := dial()
	say(near, "ask")
	expect(back, "ask")
	say(back, "answer")
	expect(near, "answer")

	w.stall()
	say(near, "late, but whole")
	w.mend()
	expect(back, "late, but whole")

	w.mute()
	say(near, "posthumous")
	for w.held() == 0 { // until the wire has it
		time.Sleep(time.Millisecond)
	}
	say(back, "heard")
	expect(near, "heard")
	w.part(time.Millisecond)
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("the process has not lost its connection")
	}
	expect(back, "posthumous")

	near, back = dial()
	w.cut()
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("the process is not cut off")
	}
	if _, err := back.Read(make([]byte, 1)); err == nil {
		t.Error("Postgres still has the process")
	}
	near, err = net.Dial("tcp", w.listener.Addr().String())
	if err == nil {
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Error("a process that is cut off has a connection")
		}
	}
	w.mend()
	near, back = dial()
	say(near, "again")
	expect(back, "again")
}
