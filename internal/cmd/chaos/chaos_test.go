package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Everything at once, for a few seconds: every deed and every fault of the plan. What a run
// asserts it asserts by itself.
func TestShortRun(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes some twenty seconds")
	}
	var out bytes.Buffer
	r, err := wreak(t.Context(), options{length: leastLength, seed: 5}, &out)
	if errors.Is(err, errSlow) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%s\n%v", out.String(), err)
	}
	r.print(&out)
	t.Log(out.String())
	if r.replayedRoutes == 0 {
		t.Log("nothing was replayed: on a busy machine Postgres may be away whenever somebody tries")
	}
	if r.stored < 100 || r.outcomes["delivered"] < 100 || r.outcomes["stale"] == 0 || r.outcomes["dead"] == 0 || r.duplicates == 0 {
		t.Errorf("there was not much of a load: %+v", r)
	}
	for _, c := range r.crms {
		if c.records < orders && c.sink != living {
			t.Errorf("%s has %d records only", c.sink, c.records)
		}
	}
}

func TestPlanIsRepeatable(t *testing.T) {
	t.Parallel()
	show := func(seed uint64, length time.Duration) string {
		var b strings.Builder
		for _, s := range draw(seed, length) {
			b.WriteString(s.String() + "\n")
		}
		return b.String()
	}
	for _, length := range []time.Duration{leastLength, time.Minute, 10 * time.Minute} {
		one := show(7, length)
		if diff := cmp.Diff(one, show(7, length)); diff != "" {
			t.Errorf("one seed, two plans:\n%s", diff)
		}
		if one == show(8, length) {
			t.Error("two seeds, one plan")
		}
		want := []deed{
			killReceiver, killWorker, killWorkers, killHanging, freezeWorker, join, joinBriefly, reload, reloadBad, killPostgres, freezePostgres, freezeKill,
			stallOne, cutReceiver, lateOne, replay, replayKilled, replayUndone, forget, age, rename, dropSink,
			throttle, unavailable, lie, slow, hang, cut, lose, truncate, late,
		}
		if length >= time.Minute {
			want = append(want, dropJobs, cutWorker, lateWorker)
		}
		for _, d := range want {
			if !strings.Contains(one, string(d)) {
				t.Errorf("a run of %s has no %q", length, d)
			}
		}
		plan := draw(7, length)
		if !slices.IsSortedFunc(plan, func(a, b step) int { return int(a.at - b.at) }) {
			t.Error("the plan is not in order")
		}
		for _, s := range plan {
			if s.at >= length {
				t.Errorf("%s comes after the end", s)
			}
			if slow := s.do == dropJobs || s.do == cutWorker || s.do == lateWorker; slow && s.at > max(length-heals, length/3)+time.Second {
				t.Errorf("%s comes so late that the end has to wait for it", s)
			}
			if (s.do == late && s.latency >= crmSettle) || (s.do == hang && (s.latency <= crmTimeout || s.latency >= crmTimeout+crmSettle)) {
				t.Errorf("%s is not within what may settle", s)
			}
		}
	}
}

func TestChildren(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this system has no /proc")
	}
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	if got := children(os.Getpid()); !slices.Contains(got, sleep.Process.Pid) || slices.Contains(got, os.Getpid()) {
		t.Errorf("%v, want %d among them", got, sleep.Process.Pid)
	}
}

func id(n byte) uuid.UUID { return uuid.UUID{15: n} }

// The oracle is what everything is measured by.
func TestOracle(t *testing.T) {
	t.Parallel()
	received := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	timed := func(n byte, typ string, at time.Time, text string) event {
		e := event{id: id(n), typ: typ, occurredAt: &at, versionAt: at, receivedAt: received, body: []byte(text)}
		if typ == dealUpdated || typ == seatEnded || typ == tieCut {
			e.rank = 1
		}
		return e
	}
	first, second, third := time.Unix(1000, 0), time.Unix(2000, 0), time.Unix(3000, 0)
	future := timed(9, dealCreated, received.Add(time.Hour), `{"key":"f","at":1795266000,"name":"late"}`)
	future.versionAt = received.Add(time.Second)
	events := []event{
		timed(1, dealUpdated, second, `{"key":"d","at":2000,"name":"b","partner":"p2","description":"","firm":"x"}`),
		timed(2, dealCreated, first, `{"key":"d","at":1000,"name":"a","partner":"p1","description":"text","stage":"gold","firm":"y"}`),
		timed(3, dealCreated, second, `{"key":"d","at":2000,"name":"c"}`), // of lower rank
		timed(4, paymentMade, second, `{"deal":"d","at":2000,"paid":0}`),
		{id: id(5), typ: noteAdded, versionAt: received, receivedAt: received, body: []byte(`{"deal":"d","text":"n"}`)},
		timed(6, firmSaved, first, `{"key":"x","at":1000,"name":"X"}`),
		timed(7, firmSaved, first, `{"key":"x","at":1000,"name":"Y"}`), // of higher id
		timed(8, dealCreated, first, `{"at":1000,"name":"no key"}`),
		future,
		timed(10, seatSaved, first, `{"key":"s","at":1000,"name":"a","partner":"p1","firm":"z"}`),
		timed(11, seatSaved, second, `{"key":"s","at":2000,"name":"b","partner":"p2","firm":"y"}`),
		timed(12, seatEnded, first, `{"key":"s","at":1000}`), // and made again, but in the mirror
		timed(13, seatSaved, second, `{"key":"t","at":2000,"name":"c","firm":"z"}`),
		timed(14, seatEnded, second, `{"key":"t","at":2000}`), // of higher rank
		timed(15, memberSaved, second, `{"key":"m","at":2000,"email":"a@acme.test","name":"Ann","partner":"p2"}`),
		timed(16, memberSaved, first, `{"key":"n","at":1000,"email":"a@acme.test","name":"Anna","partner":"p1"}`),
		timed(17, tieMade, first, `{"deal":"d","at":1000,"firm":"z"}`),  // older than the one firm of the deal
		timed(18, tieMade, second, `{"deal":"d","at":2000,"firm":"y"}`), // of lower rank than that
		timed(19, tieMade, third, `{"deal":"d","at":3000,"firm":"z"}`),
		timed(20, tieMade, third, `{"deal":"d","at":3000,"firm":"y"}`),
		timed(21, tieCut, third, `{"deal":"d","at":3000,"firm":"y"}`), // of higher rank
		timed(22, callMade, first, `{"deal":"d","at":1000}`),
	}
	events[0].annex = true
	got, err := oracle(events)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]map[string]string{}
	for p, cells := range got.records {
		values[p.String()] = map[string]string{}
		for name, c := range cells {
			values[p.String()][name] = c.value
		}
	}
	want := map[string]map[string]string{
		"crm orders d": {
			"order_key": "d", "title": "b", "tier": "gold", "description": "", "first_partner": "p1", "paid": "0", "note": "n", "touched": noteAdded,
		},
		"crm firms x":              {"firm_key": "x", "name": "Y", "last_order": "d"},
		"crm firms y":              {"firm_key": "y", "last_order": "d", "last_seat": "s"},
		"crm firms z":              {"firm_key": "z", "last_seat": "t"},
		"crm seats s":              {"seat_key": "s", "title": "b", "first_partner": "p1"},
		"crm contacts a@acme.test": {"email": "a@acme.test", "firstname": "Ann", "jobtitle": "p1"},
		"office orders d":          {"order_key": "d", "title": "b", "tier": "gold", "first_partner": "p1"},
		"office orders f":          {"order_key": "f", "title": "late"},
		"office firms x":           {"firm_key": "x", "title": "Y", "last_order": "d"},
		"office firms y":           {"firm_key": "y", "last_order": "d", "last_seat": "s"},
		"office firms z":           {"firm_key": "z", "last_seat": "t"},
		"office seats s":           {"seat_key": "s", "title": "b", "first_partner": "p1"},
		"mirror orders d":          {"order_key": "d", "title": "b", "tier": "gold", "note": "n"},
		"pipeline deals d":         {orderProperty: "d", "title": "b", "origin_id": "gold"},
		"annex orders d":           {"order_key": "d", "title": "b"},
		"crm orders f":             {"order_key": "f", "title": "late", "touched": dealCreated},
		"mirror orders f":          {"order_key": "f", "title": "late"},
		"pipeline deals f":         {orderProperty: "f", "title": "late"},
	}
	if diff := cmp.Diff(want, values); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	links := map[string][]string{}
	for p, firms := range got.links {
		links[p.String()] = sortedKeys(firms)
	}
	if diff := cmp.Diff(map[string][]string{"crm orders d": {"x", "z"}, "crm seats s": {"y"}, "office seats s": {"y"}, "office orders d": {"x"}}, links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]map[string]bool{"a@acme.test": {"m": true, "n": true}}, got.members); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	wrong := timed(1, dealUpdated, second, `{"key":"d","at":2000,"name":"b"}`)
	wrong.versionAt = first
	if _, err := oracle([]event{wrong}); err == nil {
		t.Error("a wrong version in the table goes unnoticed")
	}
}

// What judges has to find what is wrong.
func TestJudgeFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	want := state{
		records: map[place]map[string]cell{
			{"crm", "orders", "a"}:       {"order_key": {value: "a"}, "title": {value: "x"}},
			{"crm", "orders", "b"}:       {"order_key": {value: "b"}, "title": {value: ""}},
			{"crm", "firms", "f"}:        {"firm_key": {value: "f"}},
			{"crm", "contacts", "e@a.b"}: {"email": {value: "e@a.b"}, "firstname": {value: "Ann"}},
			{"office", "seats", "s"}:     {"seat_key": {value: "s"}},
			{"office", "firms", "f"}:     {"firm_key": {value: "f"}},
		},
		links:   map[place]map[string]version{{"crm", "orders", "a"}: {"f": {}}, {"office", "seats", "s"}: {"f": {}}},
		members: map[string]map[string]bool{"e@a.b": {"m": true, "n": true}},
		ended:   map[place]version{{"office", "seats", "t"}: {rank: 1}},
	}
	id := func(c *crm, object, property, key string) string { return c.records(object, property)[key][0].ID }
	for _, tt := range []struct {
		name string
		sink string
		give func(c *crm)
		want []string
	}{
		{"all is well", "crm", func(*crm) {}, nil},
		{"all is well", "office", func(*crm) {}, nil},
		{"another value", "crm", func(c *crm) {
			c.box.Edit(c.dialect, "orders", id(c, "orders", "order_key", "a"), map[string]any{"title": "y"})
		}, []string{`crm orders a: title is "y", want "x"`}},
		{"a value that was to be blank", "crm", func(c *crm) {
			c.box.Edit(c.dialect, "orders", id(c, "orders", "order_key", "b"), map[string]any{"title": "y"})
		}, []string{`crm orders b: title is "y", want ""`}},
		{"a value that nobody wants", "crm", func(c *crm) {
			c.box.Edit(c.dialect, "orders", id(c, "orders", "order_key", "b"), map[string]any{"paid": "1"})
		}, []string{`crm orders b: paid is "1", and nothing wants it`}},
		{"a record too many", "crm", func(c *crm) { c.box.Put(c.dialect, "orders", map[string]any{"order_key": "c"}) },
			[]string{"crm orders c: 1 records, and nothing wants them"}},
		{"a record twice", "crm", func(c *crm) { c.box.Put(c.dialect, "orders", map[string]any{"order_key": "b"}) },
			[]string{"crm orders b: 2 records"}},
		{"no link", "crm", func(c *crm) {
			c.box.Archive(c.dialect, "firms", id(c, "firms", "firm_key", "f"))
			c.box.Put(c.dialect, "firms", map[string]any{"firm_key": "f"})
		}, []string{"crm orders a: linked to [], want [f]"}},
		{"a stranger's key", "crm", func(c *crm) {
			c.box.Edit(c.dialect, "contacts", id(c, "contacts", "email", "e@a.b"), map[string]any{"member_key": "o"})
		}, []string{`crm contacts e@a.b: member_key is "o", want one of [m n]`}},
		{"a person twice", "crm", func(c *crm) { c.box.Put(c.dialect, "contacts", map[string]any{"email": "e@a.b", "member_key": "n"}) },
			[]string{"crm contacts e@a.b: 2 records"}},
		{"a seat that has ended", "office", func(c *crm) { c.box.Put(c.dialect, "seats", map[string]any{"seat_key": "t"}) },
			[]string{"office seats t: 1 records, and nothing wants them"}},
		{"a seat that is gone", "office", func(c *crm) { c.box.Archive(c.dialect, "seats", id(c, "seats", "seat_key", "s")) },
			[]string{"office seats s: 0 records", "office seats s: linked to [], want [f]"}},
		{"a link too many", "office", func(c *crm) {
			c.box.Put(c.dialect, "orders", map[string]any{"order_key": "o", firmField: id(c, "firms", "firm_key", "f")})
		}, []string{"office orders o: 1 records, and nothing wants them", "office orders o: linked to [f], and nothing wants it"}},
	} {
		t.Run(tt.name+" in "+tt.sink, func(t *testing.T) {
			t.Parallel()
			c, err := newCRM(tt.sink, map[string]string{"crm": "hubspot", "office": "salesforce"}[tt.sink])
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			c.box.Put(c.dialect, "firms", map[string]any{"firm_key": "f"})
			if tt.sink == "crm" {
				c.box.Put(c.dialect, "orders", map[string]any{"order_key": "a", "title": "x"})
				c.box.Put(c.dialect, "orders", map[string]any{"order_key": "b"})
				c.box.Put(c.dialect, "contacts", map[string]any{"email": "e@a.b", "firstname": "Ann", "member_key": "n"})
				c.tie(t, "a", "f")
			} else {
				c.box.Put(c.dialect, "seats", map[string]any{"seat_key": "s", firmField: id(c, "firms", "firm_key", "f")})
			}
			tt.give(c)
			v := &verdict{}
			c.judge(v, want, nil)
			var got []string
			for _, f := range v.faults {
				got = append(got, strings.Split(f, " by ")[0])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// tie links an order with a firm, as a client does.
func (c *crm) tie(t *testing.T, order, firm string) {
	t.Helper()
	ids := []string{c.records("orders", "order_key")[order][0].ID, c.records("firms", "firm_key")[firm][0].ID}
	ask(t, c.url+"/crm/associations/2026-03/orders/firms/batch/associate/default",
		`{"inputs":[{"from":{"id":"`+ids[0]+`"},"to":{"id":"`+ids[1]+`"}}]}`)
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--seconds", "1"}, {"--speed", "9"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}

func ask(t *testing.T, url, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+crmToken)
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		t.Fatalf("%s answers %d", url, res.StatusCode)
	}
}
