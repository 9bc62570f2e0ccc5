package config_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"partnersync/internal/config"
	"partnersync/internal/diag"
)

// What needs a look into the CRM is refused by check, where it stands, for a sink that lets nobody look.
func TestSinksThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	const head = `
sources: {shop: {verify: none, events: {e: {schema: {key: id, name: text}, entity: {thing: event.key}}}}}
sinks:
  archive: {preset: webhook, url: "https://archive.example/in"}
mappings:
  - name: m
    on: shop.e
    to: archive
    object: contacts
    key: {their_key: event.key}
    SECTION
`
	tests := []struct{ section, at, want string }{
		{"match: [{name: event.name, town: event.key}]", "11:14", `sink "archive" (webhook) cannot look up contacts by name and town: the sink has no operation search`},
		{"several: newest\n    match: [{name: event.name}]", "11:14", `sink "archive" (webhook) does not tell which of several records is the newest`},
		{"set_if_empty: {name: event.name}", "11:5", `sink "archive" (webhook) cannot read contacts, which set_if_empty needs: the sink has no operation read`},
		{"forward: {name: {value: event.name, order: [a, b]}}", "11:5", `sink "archive" (webhook) cannot read contacts, which forward needs: the sink has no operation read`},
		{"add: {name: event.name}", "11:5", `sink "archive" (webhook) cannot read contacts, which add needs: the sink has no operation read`},
		{"links: [{to: firms, key: {k: event.key}, match: [{name: event.name}]}]", "11:55", `sink "archive" (webhook) cannot look up firms by name: the sink has no operation search`},
		{"set_on_create: {name: event.name}", "", ""},
		{"set: {name: event.name}", "", ""},
	}
	for _, test := range tests {
		text := strings.Replace(head, "SECTION", test.section, 1)
		_, problems := config.Parse("config.yaml", []byte(text), config.Options{})
		var out bytes.Buffer
		diag.Print(&out, problems, func(string) []byte { return []byte(text) })
		if test.want == "" && problems.Failed() || test.want != "" && !strings.Contains(out.String(), "config.yaml:"+test.at+": error: "+test.want+"\n") {
			t.Errorf("%s:\n%s", test.section, &out)
		}
	}
}

// What the README and the example show of match and of rules is sound.
func TestDocumentedMatch(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	readme := block(t, "../../README.md", "before another is made:\n\n```yaml\n")
	before, rest, _ := strings.Cut(string(example), "    # match: ")
	commented, after, _ := strings.Cut("    # match: "+rest, "    optional: [hs_lead_status")
	head, _, _ := strings.Cut(string(example), "\nmappings:\n")
	for name, text := range map[string]string{
		"README":  head + "\nmappings:\n" + readme,
		"example": before + regexp.MustCompile(`(?m)^    # `).ReplaceAllString(commented, "    ") + "    optional: [hs_lead_status" + after,
	} {
		_, problems := config.Parse("config.yaml", []byte(text), config.Options{Lenient: true, Getenv: func(string) (string, bool) { return "a-secret-of-the-test", true }})
		if len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
		if !strings.Contains(text, "\n    match:") || !strings.Contains(text, "\n    set_if_empty:") {
			t.Errorf("%s has no match:\n%s", name, text)
		}
	}
}

// An object that the preset does not know is refused with the way out, which works.
func TestObjectsOfOnesOwn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ sink, object, want string }{
		{"", "moons", `error: sink "crm" (hubspot) has no object "moons"` + "\n...one of your own goes below objects: in the sink: objects: {moons: []}\n"},
		{"", "dels", `error: sink "crm" (hubspot) has no object "dels"` + "\n..." + `did you mean "deals"? one of your own goes below objects: in the sink: objects: {dels: []}` + "\n"},
		{", objects: {moons: []}", "moons", ""},
		{", objects: {moons: [moon]}", "moon", ""},
		{", objects: {moons: []}", "Deal", ""},
		{"", "0-3", ""},
		{"", "2-3465404", ""},
		{"", "p123_moons", ""},
	} {
		text := `
sources: {shop: {verify: none, events: {e: {schema: {key: id}, entity: {thing: event.key}}}}}
sinks:
  crm: {preset: hubspot, auth: {token: x}` + test.sink + `}
mappings:
  - {name: m, on: shop.e, to: crm, object: ` + test.object + `, key: {k: event.key}, set: {name: event.key}}
`
		_, problems := config.Parse("config.yaml", []byte(text), config.Options{})
		var out bytes.Buffer
		diag.Print(&out, problems, func(string) []byte { return []byte(text) })
		told := regexp.MustCompile(`\n +\d+ \|.*\n +\|.*\n +`).ReplaceAllString(out.String(), "\n...")
		if strings.TrimPrefix(told, "config.yaml:6:44: ") != test.want {
			t.Errorf("%s with {%s}:\n%s", test.object, test.sink, told)
		}
	}
}
