package mappers

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
)

func compileAll(t testing.TB, text string) *Mapper {
	t.Helper()
	n, problems := diag.Parse("config.yaml", []byte(text))
	d := &diag.Decoding{Problems: problems}
	m := CompileAll(n.Items(), catalog(t), d)
	if len(d.Problems) > 0 {
		t.Fatal(d.Problems)
	}
	return m
}

func dealEvent() *Event {
	body := shopVars()["event"].(map[string]any)
	body["blank"] = nil
	body["billing"] = map[string]any{"tax_id": secretValue, "iban": "DE00", "plan": "pro"}
	body["users"].([]any)[0].(map[string]any)["token"] = secretValue
	return &Event{ID: "e1", Source: "shop", Type: "deal.created", Body: body, ReceivedAt: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)}
}

const head = `
- name: deals
  on: shop.deal.*
  to: crm
  object: deals
  key: {shop_key: event.key}
`

func TestRun(t *testing.T) {
	t.Parallel()
	change := func(edit func(*Change)) []Outcome {
		c := Change{Mapping: "deals", Object: "deals", Mode: Upsert, Key: Key{Property: "shop_key", Value: "d1"}}
		edit(&c)
		return []Outcome{{Mapping: "deals", Changes: []Change{c}}}
	}
	fields := func(f ...Field) []Outcome { return change(func(c *Change) { c.Fields = f }) }
	tests := []struct {
		name string
		give string
		want []Outcome
	}{
		{"nothing but the record", head, fields()},
		{"rules, in the order of the file", head + `
  touch: {seen: hook.received_at}
  set_first: {first_stage: event.stage}
  set: {name: event.account_name, amount: cents(event.amount), won: event.archived, missing: event.contact.email, tags: event.tags}
  optional: [won]`, fields(
			Field{Name: "seen", Rule: Touch, Value: "2024-01-02T03:04:05Z"},
			Field{Name: "first_stage", Rule: SetFirst, Value: "Working"},
			Field{Name: "name", Rule: Set, Value: "Some Company"},
			Field{Name: "amount", Rule: Set, Value: decimal.RequireFromString("87.53")},
			Field{Name: "won", Rule: Set, Value: false, Optional: true},
			Field{Name: "tags", Rule: Set, Value: []any{"gold", "emea"}},
		)},
		{"clear only what is carried and blank", head + `
  set:
    carried: event["blank"]
    with_default_elsewhere: event["blank"] ?? event.contact.email
    not_carried: event.meta.nothing
    below_null: event.contact.email
    half_carried: event["blank"] ?? event.meta.nothing
    not_blank: phone(event.account_name)
    of_let: mail
    constant: value("")
  clear: [carried, with_default_elsewhere, not_carried, below_null, half_carried, not_blank, of_let, constant]
  let: {mail: lower(event.contact.email)}`, fields(
			Field{Name: "carried", Rule: Clear},
			Field{Name: "with_default_elsewhere", Rule: Clear},
			Field{Name: "below_null", Rule: Clear},
			Field{Name: "of_let", Rule: Clear},
		)},
		{"a local key of several parts", `
- {name: deals, on: shop.deal.created, to: crm, object: deals, mode: append, key: {local: [event.key, hook.type, value("a/b")]}}`, change(func(c *Change) {
			c.Mode, c.Key = Append, Key{Local: true, Value: `d1/deal.created/a\/b`}
		})},
		{"a number as key", `
- {name: deals, on: shop.deal.created, to: crm, object: deals, key: {shop_key: event.amount}}`, change(func(c *Change) { c.Key.Value = "8753" })},
		{"update only", head + `
  mode: update_only
  absent: skip
  rewrite: true
  on_reject: {DUPLICATE: skip}`, change(func(c *Change) {
			c.Mode, c.Absent, c.Rewrite, c.OnReject = UpdateOnly, "skip", true, map[string]string{"DUPLICATE": "skip"}
		})},
		{"update only waits by default", head + `
  mode: update_only`, change(func(c *Change) { c.Mode, c.Absent = UpdateOnly, "hold" })},
		{"links", head + `
  links:
    - {to: companies, key: {shop_user: 'event.users[0].id'}}
    - {to: companies, key: {shop_user: event.contact.email}}
    - {to: contacts, key: {shop_user: event.key}, as: owner, only: one, required: true, missing: create, for: 2h}
  unlink:
    - {to: companies, key: {shop_user: event.key}, as: old}`, change(func(c *Change) {
			c.Links = []Link{
				{To: "companies", Key: Key{Property: "shop_user", Value: "1"}, Missing: "retry", For: day},
				{To: "contacts", Key: Key{Property: "shop_user", Value: "d1"}, As: "owner", Only: true, Required: true, Missing: "create", For: 2 * time.Hour},
				{To: "companies", Key: Key{Property: "shop_user", Value: "d1"}, As: "old", Remove: true},
			}
		})},
		{"match, in its order, without the ways that have a null", head + `
  match:
    - {domain: domain(event.contact.email)}
    - {name: event.account_name, city: event.contact.city}
    - {city: event.contact.city, name: event.account_name}
    - {name: event.account_name, stage: 'lookup(event.stage, "deal_stages")'}
    - {stage: 'lookup(event.key, "deal_stages")'}
    - {amount: event.amount, rate: event.rate, blank: 'event["blank"]'}
    - {amount: event.amount, won: string(event.archived)}
    - {type: value("deal"), key: event.key}`, []Outcome{{Mapping: "deals", Misses: []string{"deal_stages"}, Changes: []Change{{
			Mapping: "deals", Object: "deals", Mode: Upsert, Key: Key{Property: "shop_key", Value: "d1"}, Several: SeveralDead, Taken: TakenKeep,
			Match: []Match{
				{{"name", "Some Company"}, {"stage", "qualifiedtobuy"}},
				{{"amount", "8753"}, {"won", "false"}},
				{{"type", "deal"}, {"key", "d1"}},
			},
		}}}}},
		{"match of which every way has a null", head + `
  match: [{domain: domain(event.contact.email)}]
  several: newest
  taken: take`, change(func(c *Change) { c.Several, c.Taken = SeveralNewest, TakenTake })},
		{"match of elements, in the other modes", `
- name: deals
  on: shop.deal.created
  each: event.users
  to: crm
  object: deals
  mode: update_only
  key: {shop_user: item.id}
  match: [{email: lower(item.email)}]
  taken: dead
  several: oldest`, []Outcome{{Mapping: "deals", Changes: []Change{
			{Mapping: "deals", Object: "deals", Mode: UpdateOnly, Absent: "hold", Key: Key{Property: "shop_user", Value: "1"}, Several: SeveralOldest, Taken: TakenDead, Match: []Match{{{"email", "a@example.com"}}}},
			{Mapping: "deals", Object: "deals", Mode: UpdateOnly, Absent: "hold", Key: Key{Property: "shop_user", Value: "2"}, Several: SeveralOldest, Taken: TakenDead},
		}}}},
		{"match of which a term fails", head + `
  match: [{name: event.account_name}, {tier: event.meta.tier + 1}]`,
			[]Outcome{{Mapping: "deals", Failed: &Failure{Reason: "expression", Message: "config.yaml:8:62: + takes two texts or two numbers, these are a text and a whole number"}}}},
		{"match of a link", head + `
  links:
    - {to: companies, key: {shop_user: event.key}, match: [{domain: domain(event.contact.email)}, {name: event.account_name}]}
    - {to: companies, key: {shop_user: event.contact.email}, match: [{name: event.account_name}]}
    - {to: people, key: {shop_user: event.key}, match: [{email: event.contact.email}]}`, change(func(c *Change) {
			c.Links = []Link{
				{To: "companies", Key: Key{Property: "shop_user", Value: "d1"}, Missing: "retry", For: day, Match: []Match{{{"name", "Some Company"}}}},
				{To: "people", Key: Key{Property: "shop_user", Value: "d1"}, Missing: "retry", For: day},
			}
		})},
		{"rules that ask what the CRM has, in the order of the file", head + `
  set_if_empty: {phone: event.contact.phone, owner: event.account_name}
  add: {tags: event.tags, one: event.stage, many: '[event.amount, event.amount, "8753", "a", event.contact.email]', none: event.contact.email, nothing: '[]'}
  set: {name: event.account_name}
  forward:
    stage: {value: event.stage, order: [New, Working, Won], final: Lost}
    step: {value: 'event.archived ? 3 : 1', order: [1, 2], final: [3]}
    last: {value: value("Lost"), order: [New, Won], final: [Lost]}
    town: {value: event.contact.city, order: [a, b]}
  set_on_create: {status: value("NEW"), city: event.contact.city}
  optional: [owner, one, stage, status]`, fields(
			Field{Name: "owner", Rule: SetIfEmpty, Value: "Some Company", Optional: true},
			Field{Name: "tags", Rule: Add, Value: []any{"gold", "emea"}},
			Field{Name: "one", Rule: Add, Value: []any{"Working"}, Optional: true},
			Field{Name: "many", Rule: Add, Value: []any{"8753", "a"}},
			Field{Name: "name", Rule: Set, Value: "Some Company"},
			Field{Name: "stage", Rule: Forward, Value: "Working", Optional: true, Ladder: &Ladder{Order: []string{"New", "Working", "Won"}, Final: []string{"Lost"}}},
			Field{Name: "step", Rule: Forward, Value: int64(1), Ladder: &Ladder{Order: []string{"1", "2"}, Final: []string{"3"}}},
			Field{Name: "last", Rule: Forward, Value: "Lost", Ladder: &Ladder{Order: []string{"New", "Won"}, Final: []string{"Lost"}}},
			Field{Name: "status", Rule: SetOnCreate, Value: "NEW", Optional: true},
		)},
		{"a value that the order of forward does not know", head + `
  set: {name: event.account_name}
  forward: {stage: {value: event.stage, order: [New, Won]}}`,
			[]Outcome{{Mapping: "deals", Failed: &Failure{Reason: "forward", Message: "config.yaml:9:28: the value stands neither in order nor in final of stage"}}}},
		{"a list among what is added", head + `
  add: {tags: event.meta.tier, more: 'event.archived ? event.meta.tier : event.users'}`,
			[]Outcome{{Mapping: "deals", Failed: &Failure{Reason: "expression", Message: "config.yaml:8:38: this must be a text or a list of texts, but is a list"}}}},
		{"a false when", head + `
  when: event.archived`, []Outcome{{Mapping: "deals", Skipped: "when is false"}}},
		{"each", `
- name: users
  on: shop.deal.created
  let: {mail: lower(item.email), prefix: event.key}
  each: event.users
  to: crm
  object: contacts
  key: {shop_user: prefix + item.id}
  set: {email: mail}`, []Outcome{{Mapping: "users", Changes: []Change{
			{Mapping: "users", Object: "contacts", Mode: Upsert, Key: Key{Property: "shop_user", Value: "d11"}, Fields: []Field{{Name: "email", Rule: Set, Value: "a@example.com"}}},
			{Mapping: "users", Object: "contacts", Mode: Upsert, Key: Key{Property: "shop_user", Value: "d12"}},
		}}}},
		{"each with a when for elements", `
- {name: users, on: shop.deal.created, each: event.users, when: item.active, to: crm, object: contacts, key: {shop_user: item.id}}`,
			[]Outcome{{Mapping: "users", Changes: []Change{{Mapping: "users", Object: "contacts", Mode: Upsert, Key: Key{Property: "shop_user", Value: "1"}}}}}},
		{"an empty each", `
- {name: users, on: shop.deal.created, each: 'filter(event.users, .id == "9")', to: crm, object: contacts, key: {shop_user: item.id}}`,
			[]Outcome{{Mapping: "users", Skipped: "each is empty"}}},
		{"a null key of an element", `
- {name: users, on: shop.deal.created, each: event.users, to: crm, object: contacts, key: {email: item.email}}`,
			[]Outcome{{Mapping: "users", Changes: []Change{{Mapping: "users", Object: "contacts", Mode: Upsert, Key: Key{Property: "email", Value: "A@example.com"}}},
				Failed: &Failure{Reason: "null_key", Message: "config.yaml:2:99: the key is null (element 2 of each)"}}}},
		{"a null key", `
- {name: deals, on: shop.deal.created, to: crm, object: deals, key: {shop_key: event.contact.email}}`,
			[]Outcome{{Mapping: "deals", Failed: &Failure{Reason: "null_key", Message: "config.yaml:2:80: the key is null"}}}},
		{"a lookup that misses and is dead", head + `
  set: {owner: 'lookup(event.stage, "owners")'}`,
			[]Outcome{{Mapping: "deals", Failed: &Failure{Reason: "lookup_missed", Message: `config.yaml:8:17: lookup(): the value is not in table "owners"`}}}},
		{"a lookup that misses and leaves the field alone", head + `
  set: {stage: 'lower(lookup(event.key, "deal_stages"))', key: event.key}`,
			[]Outcome{{Mapping: "deals", Misses: []string{"deal_stages"}, Changes: []Change{{Mapping: "deals", Object: "deals", Mode: Upsert,
				Key: Key{Property: "shop_key", Value: "d1"}, Fields: []Field{{Name: "key", Rule: Set, Value: "d1"}}}}}}},
		{"an expression that fails", head + `
  set: {x: event.meta.tier + 1}`,
			[]Outcome{{Mapping: "deals", Failed: &Failure{Reason: "expression", Message: "config.yaml:8:28: + takes two texts or two numbers, these are a text and a whole number"}}}},
		{"a let that nothing reads cannot fail", head + `
  let: {bad: event.meta.tier + 1, good: event.stage}
  when: good == "Working"`, fields()},
		{"a let that is read under a false when cannot either", head + `
  let: {bad: event.meta.tier + 1}
  when: event.stage == "Won"
  set: {x: bad}`, []Outcome{{Mapping: "deals", Skipped: "when is false"}}},
		{"private parts never come out", head + `
  set: {all: text(event.billing), users: event.users, iban: event.billing.iban}`, fields(
			Field{Name: "all", Rule: Set, Value: "iban: DE00; plan: pro"},
			Field{Name: "users", Rule: Set, Value: []any{map[string]any{"id": "1", "email": "A@example.com", "active": true}, map[string]any{"id": "2", "email": nil}}},
			Field{Name: "iban", Rule: Set, Value: "DE00"},
		)},
		{"records", `
- name: both
  on: shop.deal.created
  let: {owner: event.account_name}
  to: crm
  records:
    - {object: companies, key: {name: owner}, set: {stage: event.stage}}
    - {object: contacts, each: event.users, when: item.active, key: {shop_user: item.id}, links: [{to: companies, key: {name: owner}}]}
    - {object: deals, to: archive, key: {shop_key: event.key}}`,
			[]Outcome{{Mapping: "both", Changes: []Change{
				{Mapping: "both", Object: "companies", Mode: Upsert, Key: Key{Property: "name", Value: "Some Company"}, Fields: []Field{{Name: "stage", Rule: Set, Value: "Working"}}},
				{Mapping: "both", Object: "contacts", Mode: Upsert, Key: Key{Property: "shop_user", Value: "1"},
					Links: []Link{{To: "companies", Key: Key{Property: "name", Value: "Some Company"}, Missing: "retry", For: day}}},
			}}}},
		{"other types and sinks do not count", `
- {name: a, on: shop.account.gone, to: crm, object: deals, key: {shop_key: event.key}}
- {name: b, on: shop.deal.created, to: archive, object: deals, key: {shop_key: event.key}}`, nil},
		{"the order of the file", `
- {name: b, on: "shop.*", to: crm, object: deals, key: {shop_key: event.key}, when: false}
- {name: a, on: ["*.created"], to: crm, object: deals, key: {shop_key: event.key}, when: false}`,
			[]Outcome{{Mapping: "b", Skipped: "when is false"}, {Mapping: "a", Skipped: "when is false"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ev, before := dealEvent(), dealEvent()
			got := compileAll(t, tt.give).Run("crm", ev)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, ev); diff != "" {
				t.Errorf("the event has changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestRunTypesSeveralEventsTogether(t *testing.T) {
	t.Parallel()
	m := compileAll(t, `
- name: all
  on: [shop.*, other.lead.created]
  to: crm
  object: deals
  key: {shop_key: event.key}
  set: {reason: event.reason, stage: event.stage, amount: cents(event.value)}`)
	tests := []struct {
		give *Event
		want []Field
	}{
		{dealEvent(), []Field{{Name: "stage", Rule: Set, Value: "Working"}}},
		{&Event{Source: "shop", Type: "account.gone", Body: map[string]any{"key": "1", "reason": "left"}}, []Field{{Name: "reason", Rule: Set, Value: "left"}}},
		// The other source counts in yen.
		{&Event{Source: "other", Type: "lead.created", Body: map[string]any{"key": "1", "value": int64(500)}}, []Field{{Name: "amount", Rule: Set, Value: decimal.NewFromInt(500)}}},
	}
	for _, tt := range tests {
		t.Run(tt.give.Type, func(t *testing.T) {
			t.Parallel()
			got := m.Run("crm", tt.give)
			if len(got) != 1 || len(got[0].Changes) != 1 {
				t.Fatalf("outcomes: %+v", got)
			}
			if diff := cmp.Diff(tt.want, got[0].Changes[0].Fields); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMapperAnswers(t *testing.T) {
	t.Parallel()
	m := compileAll(t, `
- {name: a, on: shop.deal.*, to: crm, object: deals, key: {shop_key: event.key}, set: {stage: event.stage}}
- {name: b, on: shop.deal.created, to: store, object: deals, key: {local: event.key}, links: [{to: companies, key: {shop_user: event.key}}]}`)
	if diff := cmp.Diff([]string{"crm", "store"}, m.Sinks("shop", "deal.created")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"crm"}, m.Sinks("shop", "deal.updated")); diff != "" {
		t.Error(diff)
	}
	if got := m.Sinks("shop", "account.gone"); got != nil {
		t.Errorf("Sinks() = %v for a type that nothing maps", got)
	}
	infos := m.Mappings()
	want := []MappingInfo{
		{Name: "a", Sink: "crm", Object: "deals", Mode: Upsert, Key: "shop_key", Fields: []string{"stage"}, Kinds: []Kind{Text}, Rules: []Rule{Set}, On: []string{"shop.deal.created", "shop.deal.updated"}},
		{Name: "b", Sink: "store", Object: "deals", Mode: Upsert, Links: []LinkInfo{{To: "companies", Key: "shop_user"}}, On: []string{"shop.deal.created"}},
	}
	if diff := cmp.Diff(want, infos, cmpopts.IgnoreFields(MappingInfo{}, "Hash", "Pos")); diff != "" {
		t.Error(diff)
	}
	same := compileAll(t, `
# a comment and another order change nothing
- {on: shop.deal.*, name: a, object: deals, to: crm, key: {shop_key: event.key}, set: {stage: event.stage}}
- {name: b, on: shop.deal.created, to: store, object: deals, key: {local: lower(event.key)}}`).Mappings()
	if infos[0].Hash != same[0].Hash || infos[1].Hash == same[1].Hash || len(infos[0].Hash) != 16 {
		t.Errorf("hashes %s %s, then %s %s", infos[0].Hash, infos[1].Hash, same[0].Hash, same[1].Hash)
	}
}

// An object that has several names in the CRM goes by one, whoever names it.
func TestObjectsGoByOneName(t *testing.T) {
	t.Parallel()
	m := compileAll(t, `
- {name: a, on: shop.deal.*, to: aliases, object: "0-3", key: {shop_key: event.key}, links: [{to: contact, key: {shop_key: event.key}}, {to: 2-77, key: {shop_key: event.key}}]}
- {name: b, on: shop.deal.*, to: crm, object: "0-3", key: {shop_key: event.key}, unlink: [{to: contact, key: {shop_key: event.key}}]}`)
	var got []string
	for _, sink := range []string{"aliases", "crm"} {
		for _, o := range m.Run(sink, dealEvent()) {
			got = append(got, o.Changes[0].Object)
			for _, l := range o.Changes[0].Links {
				got = append(got, l.To)
			}
		}
	}
	for _, info := range m.Mappings() {
		got = append(got, info.Object)
		for _, l := range info.Links {
			got = append(got, l.To)
		}
	}
	got = append(got, m.Object("aliases", "deal"), m.Object("aliases", "planet"), m.Object("crm", "deal"), m.Object("nowhere", "deal"))
	want := strings.Fields("deals contacts 2-77 0-3 contact deals contacts 2-77 0-3 contact deals planet deal deal")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What a record is looked for by is told as what it writes is.
func TestMappingsTellWhatTheyLookFor(t *testing.T) {
	t.Parallel()
	info := compileAll(t, head+`
  match: [{email: event.contact.email}, {name: event.account_name, email: event.key}]
  links: [{to: companies, key: {shop_key: event.key}, match: [{domain: domain(event.contact.email)}]}]`).Mappings()[0]
	totals := compileAll(t, `
- name: totals
  on: shop.deal.*
  to: crm
  object: totals
  key: {shop_key: value("total")}
  match: [{name: value("Total")}]
  forward: {stage: {value: event.stage, order: [New, 2], final: Gone}}`)
	if diff := cmp.Diff([]string{"total", "Total", "New", "2", "Gone"}, totals.Constants()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"email", "name"}, {"domain"}}, [][]string{info.Match, info.Links[0].Match}); diff != "" {
		t.Error(diff)
	}
}

// A mapping with a mistake must not keep the others from running in a preview.
func TestCompileAllKeepsWhatIsRight(t *testing.T) {
	t.Parallel()
	n, _ := diag.Parse("config.yaml", []byte(head+"- {name: bad}"))
	d := &diag.Decoding{}
	m := CompileAll(n.Items(), catalog(t), d)
	if !d.Problems.Failed() || len(m.Mappings()) != 1 {
		t.Errorf("problems %v, mappings %v", d.Problems, m.Mappings())
	}
}

func TestMatchType(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"shop.deal.created", "shop.deal.created", true},
		{"shop.deal.created", "shop.deal.create", false},
		{"shop.deal.*", "shop.deal.created", true},
		{"shop.*", "shop.deal.created", true},
		{"shop.*.created", "shop.deal.created", true},
		{"shop.*.created", "shop.deal.updated", false},
		{"*", "shop.deal.created", true},
		{"*deal*ed", "shop.deal.created", true},
		{"shop.deal.created*created", "shop.deal.created", false},
		{"*created*created", "shop.deal.created", false},
	}
	for _, tt := range tests {
		if got := matchType(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matchType(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("testdata/bad-tables.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n, _ := diag.Parse("bad-tables.yaml", file)
	d := &diag.Decoding{}
	var tables map[string]*Table
	d.Decode(n, &tables)
	want := strings.TrimSpace(`
bad-tables.yaml:2:17: "Won" and "won " are the same entry (a table is read without regard to case)
bad-tables.yaml:4:9: unknown variable nothing (a fixed text is written value("nothing"))
bad-tables.yaml:6:8: the key "map" is missing
bad-tables.yaml:7:17: an entry of a table is a single value, found a list
bad-tables.yaml:7:23: unknown key "otherwise" (one of: else, map)`)
	d.Problems.Sort()
	if diff := cmp.Diff(want, d.Problems.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func BenchmarkRun(b *testing.B) {
	m := compileAll(b, head+`
  when: event.stage != "Lost"
  set:
    dealname: event.account_name
    amount: cents(event.amount)
    closedate: date(event.created_at)
    dealstage: lookup(event.stage, "deal_stages")
    email: lower(event.contact.email)
    tags: join(event.tags, ";")
  set_first: {first_stage: event.stage}
  links:
    - {to: companies, key: {shop_user: 'event.users[0].id'}}`)
	ev := dealEvent()
	b.ReportAllocs()
	for b.Loop() {
		if out := m.Run("crm", ev); len(out) != 1 || out[0].Failed != nil {
			b.Fatal(out)
		}
	}
}

// A list that is too long is refused as a whole, and at once.
func TestLimitOfEach(t *testing.T) {
	t.Parallel()
	users := func(n int) *Event {
		ev := dealEvent()
		list := make([]any, n)
		for i := range list {
			list[i] = map[string]any{"id": fmt.Sprint(i)}
		}
		ev.Body["users"] = list
		return ev
	}
	text := `
- name: people
  on: shop.deal.*
  each: event.users
  to: crm
  object: contacts
  key: {shop_key: item.id}
`
	for _, tt := range []struct {
		limit      string
		give, want int
		failed     string
	}{
		{"", 1000, 1000, ""},
		{"", 1001, 0, "config.yaml:4:9: each has 1001 elements, and 1000 are the most (limit: allows more)"},
		{"  limit: 5000\n", 5000, 5000, ""},
		{"  limit: 2\n", 3, 0, "config.yaml:4:9: each has 3 elements, and 2 are the most (limit: allows more)"},
	} {
		got := compileAll(t, text+tt.limit).Run("crm", users(tt.give))[0]
		failed := ""
		if got.Failed != nil {
			failed = got.Failed.Message
		}
		if len(got.Changes) != tt.want || failed != tt.failed {
			t.Errorf("%q, %d elements: %d changes, %q", tt.limit, tt.give, len(got.Changes), failed)
		}
	}
}

// A name of let may be that of a function: which is meant tells the parenthesis.
func TestLetNamedLikeAFunction(t *testing.T) {
	t.Parallel()
	out := compileAll(t, head+`
  let: {email: 'email("Jane@Best.example")', lower: email}
  set: {a: email, b: 'email("JOE@best.example")', c: lower(lower), d: 'domain(email) ?? email'}
`).Run("crm", dealEvent())[0]
	if out.Failed != nil {
		t.Fatal(out.Failed)
	}
	got := map[string]any{}
	for _, f := range out.Changes[0].Fields {
		got[f.Name] = f.Value
	}
	want := map[string]any{"a": "jane@best.example", "b": "joe@best.example", "c": "jane@best.example", "d": "best.example"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
