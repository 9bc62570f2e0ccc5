package main

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/sandbox"
	"partnersync/mappers"
	"partnersync/sinks"
)

// matching compiles mappings of an event shop.made that go to the sink crm, which can do all.
func matching(t *testing.T, text string) *config.Config {
	t.Helper()
	n, problems := diag.Parse("config.yaml", []byte(text))
	d := &diag.Decoding{Problems: problems}
	schema := &mappers.Schema{Kind: mappers.Object, Fields: map[string]mappers.Schema{
		"key": {Kind: mappers.ID}, "name": {Kind: mappers.Text}, "email": {Kind: mappers.Text}, "stage": {Kind: mappers.Text},
		"tags": {Kind: mappers.List, Elem: &mappers.Schema{Kind: mappers.Text}},
	}}
	m := mappers.CompileAll(n.Items(), &mappers.Catalog{
		Sources: map[string]*mappers.SourceInfo{"shop": {Events: map[string]*mappers.Schema{"made": schema}}},
		Sinks:   map[string]*mappers.SinkInfo{"crm": {Preset: "hubspot", Links: true, OrdersHits: true}},
	}, d)
	if len(d.Problems) > 0 {
		t.Fatal(d.Problems)
	}
	return &config.Config{Mappings: m, Sinks: map[string]*sinks.Description{"crm": {Preset: "hubspot"}}}
}

const matched = `
- name: people
  on: shop.made
  to: crm
  object: contacts
  key: {shop_key: event.key}
  match:
    - {email: lower(event.email)}
    - {lastname: event.name, stage_of_life: event.stage}
    - {lastname: 'event["nothing"]'}
  set: {lastname: event.name}
  set_on_create: {status: value("NEW")}
  set_if_empty: {greeting: '"Dear " + event.name'}
  forward:
    stage: {value: event.stage, order: [Lead, Customer], final: [Gone, Lost]}
    step: {value: event.stage, order: [Lead, Customer]}
  add: {tags: event.tags}
  links:
    - {to: companies, key: {firm_key: event.key}, match: [{domain: domain(event.email)}, {name: event.name, town: event.stage}]}
- name: others
  on: shop.made
  to: crm
  object: contacts
  key: {other_key: event.key}
  match: [{email: 'event["nothing"]'}]
- name: chosen
  on: shop.made
  to: crm
  object: contacts
  key: {third_key: event.key}
  several: oldest
  taken: take
  match: [{email: event.email}]
`

// try shows how a record is looked for, and which value wins where the CRM has one.
func TestTryShowsMatchAndRules(t *testing.T) {
	t.Parallel()
	cfg := matching(t, matched)
	found := trial{Source: "shop", Event: "made", Sinks: []trialSink{{Sink: "crm"}}}
	for _, o := range cfg.Mappings.Run("crm", &mappers.Event{Source: "shop", Type: "made", Body: map[string]any{
		"key": "k1", "name": "Doe", "email": "Jane@Best.example", "stage": "Customer", "tags": []any{"gold", "emea", "gold"},
	}}) {
		found.Sinks[0].Mappings = append(found.Sinks[0].Mappings, trialMapping{Mapping: o.Mapping, Changes: o.Changes})
	}
	var out bytes.Buffer
	found.print(&out)
	want := `shop.made

to crm
  people: upsert contacts shop_key=k1
      match by email=jane@best.example
      match by lastname=Doe and stage_of_life=Customer
        several: dead, taken: keep
      lastname                 Doe
      status                   NEW  (set_on_create)
      greeting                 Dear Doe  (set_if_empty)
      stage                    Customer  (forward along Lead, Customer; final: Gone, Lost)
      step                     Customer  (forward along Lead, Customer)
      tags                     ["gold","emea"]  (add)
      link to companies firm_key=k1
          or the one with domain=best.example
          or the one with name=Doe and town=Customer
  others: upsert contacts other_key=k1
      match by nothing: each way has a value that is null here
  chosen: upsert contacts third_key=k1
      match by email=Jane@Best.example
        several: oldest, taken: take
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What mappings look for is needed in the CRM as what they write is, but it need not be unique.
func TestWhatMatchNeeds(t *testing.T) {
	t.Parallel()
	cfg := matching(t, matched)
	var got []string
	for _, n := range needsOf(cfg, "crm") {
		text := n.Object + "." + n.Property
		if n.Unique {
			text += " unique"
		}
		if n.Match {
			text += " match"
		}
		got = append(got, text)
	}
	want := []string{
		"companies.firm_key unique", "companies.domain match", "companies.name match", "companies.town match", "contacts.other_key unique", "contacts.shop_key unique", "contacts.third_key unique",
		"contacts.email match", "contacts.greeting", "contacts.lastname match", "contacts.stage", "contacts.stage_of_life match", "contacts.status", "contacts.step", "contacts.tags",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	f := furniture{box: sandbox.New(sandbox.Options{}), own: map[place]sandbox.Property{}}
	f.learn(cfg)
	var own []string
	for at, p := range f.own {
		if !p.Unique {
			own = append(own, at.object+"."+at.name+" "+p.Type)
		}
	}
	slices.Sort(own)
	want = []string{"companies.town any", "contacts.greeting string", "contacts.stage string", "contacts.stage_of_life any", "contacts.status any", "contacts.step string", "contacts.tags any"}
	if diff := cmp.Diff(want, own); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
