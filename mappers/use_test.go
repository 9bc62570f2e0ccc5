package mappers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUses(t *testing.T) {
	m := compileAll(t, `
- name: deals
  on: [shop.deal.created, shop.deal.updated]
  to: crm
  object: deals
  let: {stage: 'lookup(event.stage, "deal_stages")'}
  key: {deal_key: event.key}
  match: [{dealname: event.account_name, pipeline: value("default")}]
  set:
    dealname: event.account_name
    dealstage: stage
    closed: event.archived
    kind: 'event.key == "a" ? "new" : lookup(event.stage, "tiers")'
  forward:
    tier: {value: event.account_name, order: [bronze, silver], final: gold}
  add: {tags: value("partner")}
  optional: [closed]
  links:
    - {to: companies, key: {team_key: event.key}, match: [{domain: event.account_name}]}
`)
	var got []string
	for _, u := range m.Uses("crm") {
		line := fmt.Sprintf("%d %s %s.%s %s %s", u.At.Pos().Line, u.Purpose, u.Object, u.Property, u.Rule, u.Kind)
		for _, c := range u.Values {
			line += fmt.Sprintf(" %s@%d%s", c.Shown, c.At.Pos().Line, strings.Repeat(" of "+c.Table, min(len(c.Table), 1)))
		}
		if u.Optional {
			line += " optional"
		}
		if u.Linked {
			line += " linked"
		}
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"7 key deals.deal_key text",
		"8 match deals.dealname text",
		"8 match deals.pipeline text default@8",
		"10 value deals.dealname set text",
		"11 value deals.dealstage set any qualifiedtobuy@2 of deal_stages closedwon@2 of deal_stages",
		"12 value deals.closed set bool optional",
		"13 value deals.kind set text new@13 1@4 of tiers other@4 of tiers",
		"15 value deals.tier forward text bronze@15 silver@15 gold@15",
		"16 value deals.tags add list partner@16",
		"19 key companies.team_key text linked",
		"19 match companies.domain text linked",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
