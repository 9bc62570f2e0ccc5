package live

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/config"
	"partnersync/sinks"
)

// crm has what is said here.
type crm struct {
	fields map[string][]sinks.Field
	fails  map[string]sinks.Result
	loose  bool // keys are not unique
	lists  map[string][]map[string]string

	mu    sync.Mutex
	asked []string
}

func (c *crm) Describe(_ context.Context, object string) ([]sinks.Field, sinks.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, object)
	if r, ok := c.fails[object]; ok {
		return nil, r
	}
	return c.fields[object], sinks.Result{Class: sinks.OK}
}

func (c *crm) List(_ context.Context, list, object string) ([]sinks.Entry, sinks.Result) {
	if r, ok := c.fails[list]; ok {
		return nil, r
	}
	var out []sinks.Entry
	for _, e := range c.lists[list] {
		out = append(out, sinks.Entry{Fields: e})
	}
	return out, sinks.Result{Class: sinks.OK}
}

func (c *crm) Also() map[string][]string { return map[string][]string{"dealname": {"dealnames"}} }

func (c *crm) UniqueKeys() bool { return !c.loose }

func field(name string, kind sinks.FieldKind, edit ...func(*sinks.Field)) sinks.Field {
	f := sinks.Field{Name: name, Label: strings.ToUpper(name[:1]) + strings.ReplaceAll(name[1:], "_", " "), Kind: kind}
	for _, e := range edit {
		e(&f)
	}
	return f
}

func unique(f *sinks.Field)   { f.Unique = true }
func required(f *sinks.Field) { f.Required = true }
func readOnly(f *sinks.Field) { f.ReadOnly = true }
func options(values ...string) func(*sinks.Field) {
	return func(f *sinks.Field) {
		for _, v := range values {
			f.Options = append(f.Options, sinks.Option{Value: v, Label: "The " + v})
		}
	}
}

const text = `
sources:
  shop:
    verify: {token: a-token-of-the-shop}
    events:
      deal.updated: {schema: {key: id, name: text, stage: text, amount: number, done: bool, at: time, tags: list of text}}
sinks:
  crm: {preset: hubspot, auth: {token: a-token-of-the-crm}}
tables:
  stages:
    map: {Working: open, Won: "${WON}"}
    else: skip
  owners: {from: crm, list: owners, by: email, else: skip}
  kinds: {from: crm, list: options, object: deals, field: kind}
mappings:
  - name: deals
    on: shop.deal.updated
    to: crm
    object: deals
    key: {deal_key: event.key}
    match: [{dealname: event.name}]
    set:
      dealname: event.name
      dealstage: lookup(event.stage, "stages")
      amount: event.amount
      done: event.done
      done_at: event.at
    set_on_create:
      kind: value("partner")
    add: {tags: event.tags}
    links:
      - {to: companies, key: {team_key: event.key}}
`

func all() map[string][]sinks.Field {
	return map[string][]sinks.Field{
		"deals": {
			field("deal_key", "text", unique), field("dealname", "text"), field("dealstage", "option", options("open", "won")), field("amount", "number"),
			field("done", "bool"), field("done_at", "datetime"), field("kind", "option", options("partner", "direct")), field("tags", "options"),
			field("created", "datetime", readOnly), field("pipeline_stage", "text"),
		},
		"companies": {field("team_key", "text", unique)},
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	without := func(name string) func(*crm) {
		return func(c *crm) {
			c.fields["deals"] = slices.DeleteFunc(c.fields["deals"], func(f sinks.Field) bool { return f.Name == name })
		}
	}
	with := func(f sinks.Field) func(*crm) {
		return func(c *crm) {
			without(f.Name)(c)
			c.fields["deals"] = append(c.fields["deals"], f)
		}
	}
	fails := func(object string, r sinks.Result) func(*crm) {
		return func(c *crm) { c.fails = map[string]sinks.Result{object: r} }
	}
	for _, tt := range []struct {
		name   string
		give   func(*crm)
		want   []string // problems, then what could not be seen
		unseen []Unseen
		untold []Unseen
	}{
		{name: "all is there", give: func(*crm) {}},
		{name: "no field", give: func(c *crm) { without("done_at")(c); with(field("done_on", "date"))(c) },
			want: []string{`27:7 error: deals of sink "crm" have no field "done_at" (did you mean done_on?)`}},
		{name: "no field of a name like it", give: without("amount"),
			want: []string{`25:7 error: deals of sink "crm" have no field "amount" (` + "`partnersync setup crm` makes it, if the CRM lets it)"}},
		{name: "a label in place of a name", give: func(c *crm) {
			without("dealname")(c)
			with(field("name_7", "text", func(f *sinks.Field) { f.Label = "DealName" }))(c)
		}, want: []string{`21:14 error: deals of sink "crm" have no field "dealname" ("DealName" is the label of name_7)`, `23:7 error: deals of sink "crm" have no field "dealname" ("DealName" is the label of name_7)`}},
		{name: "under the name of what holds several", give: func(c *crm) { without("dealname")(c); with(field("dealnames", "text"))(c) }},
		{name: "another case", give: func(c *crm) { without("kind")(c); with(field("Kind", "option", options("partner")))(c) },
			want: []string{`14:17 error: table "kinds": deals have no field "kind"`, `29:7 warning: the field is spelt "Kind" in the CRM (write Kind)`}},
		{name: "read-only", give: with(field("amount", "number", readOnly)),
			want: []string{`25:7 error: the CRM lets nobody write amount of deals`}},
		{name: "an option that is not there", give: with(field("kind", "option", options("direct", "partners"))),
			want: []string{`29:13 error: kind of deals does not take "partner" in the CRM (did you mean partners?)`}},
		{name: "the label of an option", give: with(field("kind", "option", func(f *sinks.Field) { f.Options = []sinks.Option{{Value: "7", Label: "Partner"}} })),
			want: []string{`29:13 error: kind of deals does not take "partner" in the CRM ("Partner" is the label of 7)`}},
		{name: "an option of a table, and one of a variable", give: with(field("dealstage", "option", options("lost"))),
			want: []string{`11:20 error: dealstage of deals does not take "open" in the CRM (it takes lost)`, `11:31 error: dealstage of deals does not take "${WON}" in the CRM (it takes lost)`}},
		{name: "a key that is not unique", give: with(field("deal_key", "text")),
			want: []string{`20:11 error: the key deal_key of deals is not unique in the CRM, so no record can be found by it (` + "`partnersync setup crm --dry-run` tells how to come by one)"}},
		{name: "a key that need not be", give: func(c *crm) { with(field("deal_key", "text"))(c); c.loose = true }},
		{name: "another type", give: func(c *crm) {
			for _, f := range []sinks.Field{field("dealname", "number"), field("done", "number"), field("done_at", "option"), field("tags", "text"), field("amount", "date")} {
				with(f)(c)
			}
		}, want: []string{
			`23:7 warning: dealname of deals takes a number in the CRM, and this is a text`, `25:7 error: amount of deals takes a date in the CRM, and this is a number`,
			`26:7 error: done of deals takes a number in the CRM, and this is true or false`, `27:7 error: done_at of deals takes one of its options in the CRM, and this is a time`,
			`30:11 warning: tags of deals takes a text in the CRM, and this is a list`,
		}},
		{name: "a type that nobody knows", give: with(field("done", ""))},
		{name: "required", give: func(c *crm) { with(field("pipeline", "text", required))(c); with(field("kind", "option", required))(c) },
			want: []string{`20:11 warning: the CRM requires pipeline of deals, which mapping "deals" does not write (a record that is not there yet cannot be made without)`}},
		{name: "required, but nobody can write it", give: with(field("id", "text", required, readOnly))},
		{name: "no object", give: fails("companies", sinks.Result{Class: sinks.Rejected, Status: 404, Message: "no such object"}),
			want: []string{`32:31 error: sink "crm" has no object "companies": HTTP 404: no such object`}},
		{name: "nothing to look at", give: fails("companies", sinks.Result{Class: sinks.Rejected, Code: "unsupported", Message: "companies are not described"}),
			untold: []Unseen{{"companies", "companies are not described"}}},
		{name: "no right to look", give: fails("deals", sinks.Result{Class: sinks.Held, Status: 403, Message: "scope missing"}),
			unseen: []Unseen{{"deals", "HTTP 403: scope missing"}, {`table "kinds", options of kind of deals`, "HTTP 403: scope missing"}}},
		{name: "two owners of one address", give: func(c *crm) { c.lists["owners"][1]["email"] = "Jane@acme.test" },
			want: []string{`13:18 error: table "owners": several owners are called the same: jane@acme.test (narrow it down by where, or look it up by another field than email)`}},
		{name: "no right to list", give: fails("owners", sinks.Result{Class: sinks.Held, Status: 403, Message: "scope missing"}),
			unseen: []Unseen{{`table "owners", owners`, "HTTP 403: scope missing"}}},
		{name: "no answer", give: fails("deals", sinks.Result{Class: sinks.Timeout, Message: "no answer in 30s"}),
			unseen: []Unseen{{"deals", "no answer in 30s"}, {`table "kinds", options of kind of deals`, "no answer in 30s"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, problems := config.Parse("config.yaml", []byte(text), config.Options{Getenv: func(string) (string, bool) { return "won", true }})
			if cfg == nil {
				t.Fatal(problems)
			}
			c := &crm{fields: all(), lists: map[string][]map[string]string{"owners": {{"id": "7", "email": "jane@acme.test"}, {"id": "8", "email": "joe@acme.test"}}}}
			tt.give(c)
			tables := maps.Clone(cfg.Tables)
			delete(tables, "stages")
			found := Check(t.Context(), "crm", c, cfg.Mappings.Uses("crm"), tables)
			var got []string
			for _, p := range found.Problems {
				line := fmt.Sprintf("%d:%d %s: %s", p.Line, p.Col, p.Severity, p.Message)
				if p.Hint != "" {
					line += " (" + p.Hint + ")"
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.untold, found.Untold); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.unseen, found.Unseen); diff != "" {
				t.Errorf("unseen (-want +got):\n%s", diff)
			}
			slices.Sort(c.asked)
			if diff := cmp.Diff([]string{"companies", "deals"}, c.asked); diff != "" {
				t.Errorf("each object is asked for once (-want +got):\n%s", diff)
			}
		})
	}
}
