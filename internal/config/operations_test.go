package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/mappers"
	"partnersync/sinks"
)

const hexKey = "0123456789abcdef0123456789abcdef01234567"

// operable are objects of every preset, and the modes in which records of them can be
// written: with a key that is a property, and with one that is ours alone.
var operable = []struct {
	preset, object, property string
	keyed, local             string
	values                   map[string]any
	parent                   string // what they are linked to
}{
	{"attio", "deals", "partner_key", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "companies"},
	{"attio", "people", "email_addresses", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "companies"},
	{"attio", "notes", "x", "create_only append", "create_only append archive", map[string]any{"title": "t", "content": "c", "format": "plaintext"}, "people"},
	{"attio", "tasks", "x", "create_only append", "create_only append archive", map[string]any{"content": "c"}, "people"},
	{"attio", "tasks", "content", "update_only create_only append", "update_only archive", map[string]any{"deadline_at": "2026-12-01"}, ""},
	{"dataverse", "contacts", "new_partnerkey", "upsert update_only create_only append archive", "update_only create_only append archive", nil, ""},
	{"dataverse", "annotations", "subject", "upsert update_only create_only append archive", "update_only create_only append archive", nil, ""},
	{"hubspot", "contacts", "partner_key", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "companies"},
	{"hubspot", "notes", "partner_key", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "companies"},
	{"pipedrive", "deals", hexKey, "upsert update_only create_only append archive", "update_only create_only append archive", nil, "organizations"},
	{"pipedrive", "persons", "email", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "organizations"},
	{"pipedrive", "organizations", hexKey, "upsert update_only create_only append archive", "update_only create_only append archive", nil, ""},
	{"pipedrive", "leads", hexKey, "upsert update_only create_only append archive", "update_only create_only append archive", nil, "persons"},
	{"pipedrive", "activities", "subject", "update_only create_only append", "update_only create_only append archive", nil, "deals"},
	{"pipedrive", "notes", "content", "update_only create_only append", "update_only create_only append archive", nil, "deals"},
	{"salesforce", "Contact", "Partner_Key__c", "upsert update_only create_only append archive", "update_only create_only append archive", nil, ""},
	{"salesforce", "Task", "Partner_Key__c", "upsert update_only create_only append archive", "update_only create_only append archive", nil, ""},
	{"webhook", "anything", "id", "upsert update_only create_only append", "upsert update_only create_only append", nil, ""},
	{"zoho", "Contacts", "Partner_Key", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "Accounts"},
	{"zoho", "Notes", "Note_Title", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "Accounts"},
	{"zoho", "Notes", "Note_Title", "upsert update_only archive", "update_only archive", nil, ""},
	{"zoho", "Tasks", "Partner_Key", "upsert update_only create_only append archive", "update_only create_only append archive", nil, "Deals"},
}

// A mode is an error of the config exactly where the engine could make no request of it.
func TestModesOfObjects(t *testing.T) {
	t.Parallel()
	auth := map[string]string{
		"dataverse": "base_url: https://x.example, auth: {tenant: t, client_id: c, client_secret: s}", "salesforce": "base_url: https://x.example, auth: {client_id: c, client_secret: s}",
		"zoho": "auth: {client_id: c, client_secret: s, refresh_token: r}", "webhook": "url: https://x.example",
	}
	seen := map[string]bool{}
	for _, o := range operable {
		seen[o.preset] = true
		t.Run(o.preset+" "+o.object, func(t *testing.T) {
			t.Parallel()
			access := auth[o.preset]
			if access == "" {
				access = "auth: {token: a-token-that-nobody-guesses}"
			}
			sink := fmt.Sprintf("{preset: %s, %s}", o.preset, access)
			head := "sources: {shop: {verify: none, description: d, events: {made: {description: d, schema: {id: id required}, entity: {e: event.id}}}}}\nsinks: {crm: " + sink + "}\n"
			cfg, problems := config.Parse("c.yaml", []byte(head), config.Options{})
			if cfg == nil {
				t.Fatal(problems)
			}
			engine := sinks.New(cfg.Sinks["crm"], sinks.Options{})
			defer engine.Close()
			for _, local := range []bool{false, true} {
				var allowed []string
				for _, mode := range []mappers.Mode{mappers.Upsert, mappers.UpdateOnly, mappers.CreateOnly, mappers.Append, mappers.Archive} {
					_, problems := config.Parse("c.yaml", []byte(head+mappingOf(o.object, o.property, local, string(mode), o.values, o.parent)), config.Options{})
					row := sinks.Row{Trace: "t", Object: o.object, Property: o.property, Key: "k", Values: map[string]any{}}
					if local {
						row.Property = ""
					}
					for name, value := range o.values {
						row.Values[name] = value
					}
					if o.parent != "" {
						row.Links = []sinks.RowLink{{Object: o.parent, ID: "1"}}
					}
					err := renders(engine, mode, row)
					if problems.Failed() != (err != nil) {
						t.Errorf("%s of %s, local %v: check says %v, the engine %v", mode, o.object, local, problems, err)
					}
					if !problems.Failed() {
						allowed = append(allowed, string(mode))
						continue
					}
					says := slices.DeleteFunc(slices.Clone(problems), func(p diag.Problem) bool { return strings.Contains(p.Message, "cannot send a link") })
					if len(says) != 1 || !strings.Contains(says[0].Message, fmt.Sprintf(`sink "crm" (%s) cannot do mode %s`, o.preset, mode)) || says[0].Line == 0 {
						t.Errorf("%v", problems)
					}
				}
				want := o.keyed
				if local {
					want = o.local
				}
				if diff := cmp.Diff(want, strings.Join(allowed, " ")); diff != "" {
					t.Errorf("local %v: %s", local, diff)
				}
			}
		})
	}
	for _, preset := range sinks.Presets() {
		if !seen[preset] {
			t.Errorf("the preset %s is not in the table", preset)
		}
	}
}

// mappingOf is a mapping that makes such a record.
func mappingOf(object, property string, local bool, mode string, values map[string]any, parent string) string {
	if local {
		property = "local"
	}
	text := fmt.Sprintf("mappings:\n- name: m\n  on: shop.made\n  to: crm\n  object: %s\n  mode: %s\n  key: {%s: event.id}\n", object, mode, property)
	if len(values) > 0 {
		text += "  set:\n"
		for name, value := range values {
			text += fmt.Sprintf("    %s: value(%q)\n", name, value)
		}
	}
	if parent != "" {
		text += "  links: [{to: " + parent + ", key: {x: event.id}}]\n"
	}
	return text
}

// renders tells whether the engine makes the requests that a mode needs, of a record
// that is new and of one that it knows.
func renders(s *sinks.Sink, mode mappers.Mode, row sinks.Row) error {
	known := row
	known.ID = "1"
	preview := func(op sinks.Operation, row sinks.Row) error {
		if byID, _ := s.Description().CarriesLinks(op); !byID || op == sinks.Update {
			row.Links = nil // the engine leaves them out, too
		}
		_, err := s.Preview(op, []sinks.Row{row})
		return err
	}
	switch mode {
	case mappers.Upsert:
		err := preview(sinks.Upsert, row)
		if err == nil && s.Supports(sinks.Update) {
			err = preview(sinks.Update, known)
		}
		return err
	case mappers.UpdateOnly:
		err := preview(sinks.Update, known)
		if err != nil && preview(sinks.Update, row) == nil {
			err = nil
		}
		return err
	case mappers.Archive:
		err := preview(sinks.Archive, known)
		if err == nil && row.Property != "" && s.Supports(sinks.Find) {
			err = preview(sinks.Find, row)
		}
		return err
	}
	return preview(sinks.Create, row)
}

// What is said names the place, the reason, and what is left.
func TestModesAreExplained(t *testing.T) {
	t.Parallel()
	head := "sources: {shop: {verify: none, description: d, events: {made: {description: d, schema: {id: id required}, entity: {e: event.id}}}}}\nsinks: {crm: {preset: attio, auth: {token: a-token-that-nobody-guesses}}}\n"
	for give, want := range map[string]string{
		mappingOf("notes", "x", true, "upsert", nil, "people"):                                       `c.yaml:8:9: error: sink "crm" (attio) cannot do mode upsert of notes: Attio cannot look for notes or tasks by a key (what such a record can have: mode archive)`,
		strings.Replace(mappingOf("deals", "x", true, "upsert", nil, ""), "  mode: upsert\n", "", 1): `c.yaml:7:11: error: sink "crm" (attio) cannot do mode upsert of deals: its key is local, and a record is found by a property alone (what such a record can have: mode update_only, create_only, append, archive)`,
	} {
		_, problems := config.Parse("c.yaml", []byte(head+give), config.Options{})
		if got := say(problems); !slices.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func say(problems diag.Problems) []string {
	var out []string
	for _, p := range problems {
		out = append(out, fmt.Sprintf("%s:%d:%d: %s: %s (%s)", p.File, p.Line, p.Col, p.Severity, p.Message, p.Hint))
	}
	return out
}
