package main

import (
	"encoding/csv"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// portal is a CRM that sales have filled, and what of it the mappings use.
type portal struct {
	preset, deals, firms string
	key, firmKey         string
	title, name, amount  string
	note, origin         string // set_if_empty, set_on_create
	link                 string // field of a deal that holds its firm; "" where links are none
	missing              string // what follows where the firm is not there
}

const observing = `
database: {url: "${DATABASE_URL:-}", dir: pg, max_connections: 8}
receiver: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
sources:
  shop:
    verify: {token: "${HOOK_TOKEN}"}
    events:
      deal.updated:
        schema: {key: id, kind: text, name: text, firm: text, firm_name: text, note: text, amount: integer, at: time s}
        entity: {thing: event.key}
        occurred_at: event.at
sinks:
  crm:
    preset: PRESET
    base_url: "${CRM}"
    auth: AUTH
    limits: []
    timeout: 2s
    settle: 300ms
    find_lag: 0s
    write: false
    OBJECTS
mappings:
  - name: deals
    on: shop.deal.updated
    when: event.kind == "deal"
    to: crm
    object: DEALS
    key: {"DKEY": event.key}
    match: [{TITLE: event.name}]
    set: {TITLE: event.name, AMOUNT: event.amount}
    set_if_empty: {NOTE: event.note}
    set_on_create: {ORIGIN: '"partnersync"'}
    links:
      - {to: FIRMS, key: {"FKEY": event.firm}, match: [{NAME: event.firm_name}], missing: MISSING, only: one}
  - name: firms
    on: shop.deal.updated
    when: event.kind == "firm"
    to: crm
    object: FIRMS
    key: {"FKEY": event.key}
    match: [{NAME: event.name}]
    set: {NAME: event.name}
  - name: closed
    on: shop.deal.updated
    when: event.kind == "closed"
    to: crm
    object: DEALS
    mode: archive
    key: {"DKEY": event.key}
`

func (p portal) config() string {
	objects, auth := "", `{token: "${CRM_TOKEN}"}`
	if p.preset == "salesforce" {
		auth = `{client_id: id, client_secret: "${CRM_TOKEN}"}`
	}
	if p.preset == "hubspot" {
		objects = "objects: {orders: [], firms: []}"
	}
	return strings.NewReplacer("PRESET", p.preset, "OBJECTS", objects, "AUTH", auth, "DEALS", p.deals, "FIRMS", p.firms, "DKEY", p.key, "FKEY", p.firmKey,
		"TITLE", p.title, "NAME", p.name, "AMOUNT", p.amount, "NOTE", p.note, "MISSING", p.missing, "ORIGIN", p.origin).Replace(observing)
}

// What was observed is what a real run does after it: made, adopted, archived and overwritten are the same records and fields.
func TestForetold(t *testing.T) {
	t.Parallel()
	hex := func(c string) string { return strings.Repeat(c, 40) }
	for _, p := range []portal{
		{preset: "hubspot", deals: "orders", firms: "firms", key: "order_key", firmKey: "firm_key", title: "title", name: "name", amount: "amount", note: "note", origin: "origin", missing: "create"},
		{preset: "pipedrive", deals: "deals", firms: "organizations", key: hex("a"), firmKey: hex("b"), title: "title", name: "name", amount: "value", note: hex("c"), origin: hex("d"), link: "org_id", missing: "retry"}, // it makes no organization without a name
		{preset: "salesforce", deals: "Contact", firms: "Account", key: "Deal_key__c", firmKey: "Firm_key__c", title: "LastName", name: "Name", amount: "Amount__c", note: "Description", origin: "Origin__c", link: "AccountId", missing: "retry"},
	} {
		t.Run(p.preset, func(t *testing.T) {
			t.Parallel()
			p.foretold(t, 301)
		})
	}
}

func (p portal) foretold(t *testing.T, seed uint64) {
	w := newWorld(t, p.config(), pgtest.URL(t))
	for _, kv := range w.env {
		if url, is := strings.CutPrefix(kv, "CRM_URL="); is {
			w.env = append(w.env, "CRM="+strings.TrimSuffix(url, "hubspot")+p.preset)
		}
	}
	unique := p.preset != "pipedrive"
	for object, list := range map[string][]sandbox.Property{
		p.deals: {{Name: p.key, Unique: unique}, {Name: p.origin}},
		p.firms: {{Name: p.firmKey, Unique: unique}},
	} {
		if p.preset != "salesforce" {
			list = append(list, sandbox.Property{Name: p.note})
		} else {
			list = append(list, sandbox.Property{Name: p.amount, Type: "number"})
		}
		if p.preset == "hubspot" {
			list = append(list, sandbox.Property{Name: p.title}, sandbox.Property{Name: p.name}, sandbox.Property{Name: p.amount, Type: "number"})
		}
		for _, one := range list {
			w.box.Define(p.preset, object, one)
		}
	}
	keyed := map[int]bool{}
	r := rand.New(rand.NewPCG(seed, seed))
	const many = 24
	var firms []string
	for i := range many / 4 {
		values := map[string]any{p.name: fmt.Sprintf("Firm %d", i)}
		if r.IntN(3) == 0 {
			values[p.firmKey] = fmt.Sprintf("f%d", i)
			values[p.name] = fmt.Sprintf("Old firm %d", i)
		}
		if r.IntN(3) > 0 {
			firms = append(firms, w.box.Put(p.preset, p.firms, values))
		}
	}
	for i := range many {
		values := map[string]any{p.title: fmt.Sprintf("Deal %d", i)}
		if r.IntN(2) == 0 {
			values[p.amount] = "77"
			if p.preset != "hubspot" {
				values[p.amount] = 77
			}
		}
		if r.IntN(2) == 0 {
			values[p.note] = "theirs"
		}
		if r.IntN(3) == 0 {
			values[p.key] = fmt.Sprintf("d%d", i)
			values[p.title] = fmt.Sprintf("Old deal %d", i)
			keyed[i] = true
		}
		if p.link != "" && r.IntN(2) == 0 && len(firms) > 0 {
			values[p.link] = firms[r.IntN(len(firms))]
			if id, err := strconv.Atoi(values[p.link].(string)); err == nil {
				values[p.link] = id
			}
		}
		for n := r.IntN(6); n > 1; n -= 4 { // none, one, and a few times two
			w.box.Put(p.preset, p.deals, values)
		}
		if i%8 == 5 && values[p.key] == nil {
			w.box.Put(p.preset, p.deals, values)
		}
	}
	var bodies []string
	post := func(kind, key, name, firm string) {
		bodies = append(bodies, body(kind, key, name, firm, 100+len(bodies)))
	}
	for i := range many {
		firm := func() string { return fmt.Sprintf("f%d", r.IntN(many/4)) }
		if p.missing == "create" && i%6 == 0 { // one of which there is no event
			firm = func() string { return fmt.Sprintf("f%d", many) }
		}
		for range 1 + r.IntN(3) {
			post("deal", fmt.Sprintf("d%d", i), fmt.Sprintf("Deal %d", i), firm())
		}
		if !keyed[i] && r.IntN(4) == 0 { // another key of the same deal
			post("deal", fmt.Sprintf("e%d", i), fmt.Sprintf("Deal %d", i), "")
		}
		if keyed[i] && r.IntN(3) == 0 {
			post("closed", fmt.Sprintf("d%d", i), "", "")
		}
		if i < many/4 {
			post("firm", fmt.Sprintf("f%d", i), fmt.Sprintf("Firm %d", i), "")
		}
	}
	s := w.start()
	for _, body := range bodies[:len(bodies)/2] {
		if _, err := s.postBody(body); err != nil {
			t.Fatal(err)
		}
	}
	s.kill() // another goes on
	s = w.start()
	told := p.round(w, s, bodies[len(bodies)/2:])
	if told.total["create"] == 0 || told.total["adopt"] == 0 || told.total["ambiguous"] == 0 || told.total["archive"] == 0 || len(told.overwritten) == 0 {
		t.Errorf("the test tries too little: %v, %d overwritten", told.total, len(told.overwritten))
	}

	// It observes once more, when sales have edited what we have written.
	bodies = nil
	for at, values := range w.portal(p) {
		object, id, _ := strings.Cut(at, " ")
		if key := values[p.key]; object == p.deals && key != "" {
			if r.IntN(2) == 0 {
				w.box.Edit(p.preset, object, id, map[string]any{p.amount: 5})
			}
			bodies = append(bodies, body("deal", key, "Renamed "+key, "", 500+len(bodies)))
		}
	}
	for i := range 3 {
		bodies = append(bodies, body("deal", fmt.Sprintf("n%d", i), fmt.Sprintf("Later %d", i), "f1", 600+i))
	}
	s.write(p.config())
	s.reload(t)
	told = p.round(w, s, bodies)
	if told.total["create"] != 3 || told.total["update"] < 5 || told.total["adopt"] > 0 || len(told.overwritten) == 0 {
		t.Errorf("the test tries too little when it observes once more: %v, %d overwritten", told.total, len(told.overwritten))
	}
	s.stop()
}

// body is an event of the shop.
func body(kind, key, name, firm string, n int) string {
	return fmt.Sprintf(`{"kind": %q, "key": %q, "name": %q, "firm": %q, "firm_name": %q, "note": "ours", "amount": %d, "at": %d}`,
		kind, key, name, firm, strings.Replace(firm, "f", "Firm ", 1), n, 1_700_000_000+n)
}

// round has events observed, lets the sink write, and holds what was done against what was told. It returns that.
func (p portal) round(w *world, s *server, bodies []string) sheet {
	t := w.t
	t.Helper()
	before := w.portal(p)
	for _, body := range bodies {
		if _, err := s.postBody(body); err != nil {
			t.Fatal(err)
		}
	}
	ended := func() bool { return w.count(`routes WHERE outcome IS NULL`) == 0 }
	s.until("all is observed", ended)
	if diff := cmp.Diff(before, w.portal(p)); diff != "" {
		t.Fatalf("something was written:\n%s", diff)
	}
	told := w.sheet()
	if diff := cmp.Diff(told.total, w.report().Records); diff != "" {
		t.Errorf("sheet and report differ:\n%s", diff)
	}

	w.write(strings.Replace(p.config(), "write: false", "write: true", 1))
	s.reload(t)
	w.run("replay", "--sink", "crm", "--outcome", "observed")
	s.until("all is done", ended)
	if n := w.count(`routes r WHERE outcome = 'observed' AND NOT EXISTS (SELECT FROM routes n WHERE n.event_id = r.event_id AND n.run > r.run)`); n > 0 {
		t.Errorf("%d routes were not replayed", n)
	}
	if told := w.report(); told.Events > 0 {
		t.Errorf("what was done is still told: %v", told.Records)
	}
	after, done := w.portal(p), newSheet()
	for at, now := range after {
		was, there := before[at]
		if !there {
			done.made[made(p, at, now)]++
			continue
		}
		if !maps.Equal(was, now) {
			done.changed[at] = true
		}
		for name, old := range was {
			if old == "" || now[name] == old {
				continue
			}
			value := now[name]
			if name == p.link && before[p.firms+" "+value] == nil {
				value = "new"
			}
			done.overwritten[at+" "+name] = old + " -> " + value
		}
	}
	for at := range before {
		if after[at] == nil {
			done.archived[at] = true
		}
	}
	maps.DeleteFunc(told.overwritten, func(at, _ string) bool { return done.archived[at[:strings.LastIndex(at, " ")]] }) // nobody sees them any more
	// Of our own values the sheet tells no old one.
	maps.DeleteFunc(done.overwritten, func(at, _ string) bool { return told.ours[at] })
	for name, what := range map[string][2]any{
		"made": {told.made, done.made}, "changed": {told.changed, done.changed}, "archived": {told.archived, done.archived}, "overwritten": {told.overwritten, done.overwritten},
	} {
		if diff := cmp.Diff(what[0], what[1]); diff != "" {
			t.Errorf("%s (-told +done):\n%s", name, diff)
		}
	}
	if n := w.count(`records WHERE sink = 'crm?'`) + w.count(`record_keys WHERE sink = 'crm?'`) + w.count(`imagined`); n > 0 {
		t.Errorf("%d rows of what would be are left", n)
	}
	return told
}

// made names a record that was made: by what it is called, since of two keys either may make it; one that was made
// for a link has no name.
func made(p portal, at string, values map[string]string) string {
	object, _, _ := strings.Cut(at, " ")
	for _, name := range []string{p.title, p.name, p.firmKey} {
		if v := values[name]; v != "" {
			return object + " " + v
		}
	}
	return object + " ?"
}

// sheet is what was told, or done.
type sheet struct {
	total       map[string]int
	made        map[string]int
	changed     map[string]bool // by object and id
	archived    map[string]bool
	overwritten map[string]string
	ours        map[string]bool // values that would be written in the place of ours, or of none
}

func newSheet() sheet {
	return sheet{map[string]int{}, map[string]int{}, map[string]bool{}, map[string]bool{}, map[string]string{}, map[string]bool{}}
}

// sheet reads what `report --csv` has written.
func (w *world) sheet() sheet {
	w.t.Helper()
	w.run("report", "crm", "--csv", "sheet.csv")
	f, err := os.Open(filepath.Join(w.dir, "sheet.csv"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		w.t.Fatal(err)
	}
	out := newSheet()
	records := map[string]map[string]string{} // fields, by what stands in all lines of a record
	does := map[string]string{}
	for _, l := range lines[1:] {
		at := strings.Join([]string{l[2], l[3], l[4]}, " ")
		if records[at] == nil {
			records[at] = map[string]string{}
			out.total[l[5]]++
		}
		does[at] = l[5]
		if l[6] != "" {
			records[at][l[6]] = l[8]
		}
		if at := l[2] + " " + l[4] + " " + l[6]; l[7] != "" {
			out.overwritten[at] = l[7] + " -> " + l[8]
		} else if l[6] != "" && l[5] == "update" {
			out.ours[at] = true
		}
	}
	for at, fields := range records {
		parts := strings.Split(at, " ")
		object, key, id := parts[0], parts[1], parts[2]
		switch does[at] {
		case "create":
			named := key
			for _, name := range []string{"title", "name", "LastName", "Name"} {
				if fields[name] != "" {
					named = fields[name]
				}
			}
			out.made[object+" "+named]++
		case "adopt", "update":
			out.changed[object+" "+id] = true
		case "archive":
			if id != "" {
				out.archived[object+" "+id] = true
			}
		}
	}
	return out
}

// portal is what the CRM has, as texts, by object and id.
func (w *world) portal(p portal) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, object := range []string{p.deals, p.firms} {
		for _, r := range w.box.Records(p.preset, object) {
			values := map[string]string{"object": object}
			for _, name := range slices.Compact([]string{p.key, p.firmKey, p.title, p.name, p.amount, p.note, p.origin, p.link}) {
				switch v := r.Properties[name].(type) {
				case nil:
					values[name] = ""
				case float64:
					values[name] = strconv.FormatFloat(v, 'f', -1, 64)
				default:
					values[name] = fmt.Sprint(v)
				}
			}
			out[object+" "+r.ID] = values
		}
	}
	return out
}
