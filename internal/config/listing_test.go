package config

import (
	"strings"
	"testing"
)

// A table that comes from a CRM names a list that the sink has, and fields that its entries have.
func TestTablesFromACRM(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{
		`{from: crm, list: owners, by: email}`:                          "",
		`{from: crm, list: stages, object: deal, where: {pipeline: A}}`: "",
		`{from: crm, list: options, object: deals, field: dealtype}`:    "",
		`{from: cmr, list: owners}`:                                     `config.yaml:5:17: unknown sink "cmr" (did you mean "crm"?)`,
		`{from: crm, list: owner}`:                                      `table "t": sink "crm" has no list "owner" (did you mean "owners"?)`,
		`{from: crm, list: stages, object: planets}`:                    `table "t": sink "crm" has no object "planets"`,
		`{from: crm, list: owners, by: mail}`:                           `table "t": an entry of owners has no "mail" (did you mean "email"?)`,
		`{from: crm, list: owners, by: email, where: {team: A}}`:        `table "t": an entry of owners has no "team"`,
		`{from: crm, list: options, object: deals, field: x, by: id}`:   `table "t": an entry of options has no "id" (one of: label, value)`,
		`{from: hook, list: options, object: deals, field: x}`:          `table "t": sink "hook" does not tell which values a field takes`,
		`{from: hook, list: owners}`:                                    `table "t": sink "hook" has no list "owners"`,
	} {
		text := "sinks:\n  crm: {preset: hubspot, auth: {token: a-token-of-the-crm}}\n  hook: {preset: webhook, url: https://hooks.example/in}\ntables:\n      t: " + give + "\n"
		cfg, problems := Parse("config.yaml", []byte(text), Options{})
		if want == "" {
			if cfg == nil || len(problems) > 0 {
				t.Errorf("%s: %v", give, problems)
			}
			continue
		}
		if len(problems) != 1 || !strings.Contains(problems.Error(), want) {
			t.Errorf("%s: %v, want %s", give, problems, want)
		}
	}
}
