package config_test

import (
	"bytes"
	"strings"
	"testing"

	"partnersync/internal/config"
	"partnersync/internal/diag"
)

// A link that the sink has no way to send is told by check, where it stands, and not event by event.
func TestLinksThatCannotBeSent(t *testing.T) {
	t.Parallel()
	const head = `
sources: {shop: {verify: none, events: {e: {schema: {key: id, name: text}, entity: {thing: event.key}}}}}
sinks:
  crm: {preset: hubspot, auth: {token: x}, objects: {planets: [], moons: []}SETTINGS}
mappings:
  - name: m
    on: shop.e
    to: crm
    object: OBJECT
    mode: MODE
    key: {their_key: event.key}
    set: {name: event.name}
    links: [{to: TO, key: {other_key: event.key}MORE}]
`
	tests := []struct {
		object, mode, to, more, settings string
		want                             string // "" where nothing is wrong
		severe                           bool
	}{
		{object: "contacts", mode: "upsert", to: "companies"},
		{object: "planets", mode: "upsert", to: "moons"},
		{object: "leads", mode: "create_only", to: "contacts", more: ", required: true"},
		{object: "planets", mode: "create_only", to: "moons", want: "with this link to moons, which is made afterwards"},
		{object: "planets", mode: "create_only", to: "moons", more: ", required: true", want: "cannot send a link from planets to moons", severe: true},
		{object: "planets", mode: "create_only", to: "moons", more: ", required: true", settings: ", settings: {association_types: {planets>moons: 77}}"},
		{object: "contacts", mode: "upsert", to: "companies", more: ", as: Reseller", want: "cannot send a link from contacts to companies", severe: true},
		{object: "contacts", mode: "upsert", to: "companies", more: ", as: Reseller",
			settings: ", settings: {labels: {contacts>companies: {Reseller: {category: USER_DEFINED, typeId: 36}}}}"},
	}
	for _, test := range tests {
		text := strings.NewReplacer("OBJECT", test.object, "MODE", test.mode, "TO", test.to, "MORE", test.more, "SETTINGS", test.settings).Replace(head)
		_, problems := config.Parse("config.yaml", []byte(text), config.Options{})
		var out bytes.Buffer
		diag.Print(&out, problems, func(string) []byte { return []byte(text) })
		if problems.Failed() != test.severe || (test.want == "") != (len(problems) == 0) || !strings.Contains(out.String(), test.want) {
			t.Errorf("%+v:\n%s", test, &out)
		}
		if test.want != "" && (!strings.Contains(out.String(), "config.yaml:13:18") || !strings.Contains(out.String(), "settings.")) {
			t.Errorf("without the place or what to do:\n%s", &out)
		}
	}
}
