package mappers

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
)

// Sources of one preset give their things keys that may be alike.
func TestKeysOfTwoSourcesMeet(t *testing.T) {
	t.Parallel()
	c := catalog(t)
	person := Schema{Kind: Object, Fields: map[string]Schema{"key": {Kind: ID}, "email": {Kind: Text}, "users": {Kind: List, Elem: &Schema{Kind: Object, Fields: map[string]Schema{"id": {Kind: ID}}}}}}
	for _, name := range []string{"us", "eu"} {
		c.Sources[name] = &SourceInfo{Preset: "partnerstack", Events: map[string]*Schema{"created": &person, "changed": &person}}
	}
	c.Sources["ads"] = &SourceInfo{Preset: "everflow", Events: map[string]*Schema{"created": &person}}
	c.Sources["own"] = &SourceInfo{Events: map[string]*Schema{"created": &person}}
	c.Sources["own2"] = &SourceInfo{Events: map[string]*Schema{"created": &person}}

	one := func(name, on, key string) string {
		return "\n- {name: " + name + ", on: [" + on + "], to: crm, object: people, key: {" + key + "}}"
	}
	hint := `(hook.source + ":" + event.key keeps them apart, there and in links that lead to them)`
	says := "warning: eu and us (both partnerstack) give the people of crm by keys of their own, which may be alike: one record for two things, here"
	tests := []struct {
		name, give string
		want       []string
	}{
		{"one mapping", one("a", "us.*, eu.*", "k: event.key"), []string{"config.yaml:2:65: " + says + " " + hint}},
		{"two mappings", one("a", "us.created", "k: event.key") + one("b", "eu.changed", "k: event.key"),
			[]string{`config.yaml:3:65: ` + says + ` and in the mapping "a" on line 2 ` + hint}},
		{"in the other order", one("a", "eu.changed", "k: event.key") + one("b", "us.created", "k: lower(event.key)"),
			[]string{`config.yaml:3:65: ` + says + ` and in the mapping "a" on line 2 (hook.source + ":" + lower(event.key) keeps them apart, there and in links that lead to them)`}},
		{"a local key", one("a", "us.*, eu.*", "local: [event.key]"), []string{"config.yaml:2:70: " + says + " " + hint}},
		{"an element", "\n- {name: a, on: [us.*, eu.*], each: event.users, to: crm, object: people, key: {k: item.id}}",
			[]string{"config.yaml:2:84: " + says + ` (hook.source + ":" + item.id keeps them apart, there and in links that lead to them)`}},
		{"with the source", one("a", "us.*, eu.*", `k: 'hook.source + ":" + event.key'`), nil},
		{"with the source in a part", one("a", "us.*, eu.*", `local: [hook.source, event.key]`), nil},
		{"with the source in a name of let", "\n- {name: a, on: [us.*, eu.*], let: {p: 'hook.source + \"/\"', id: p + event.key}, to: crm, object: people, key: {k: id}}", nil},
		{"one knows the source, the other is alone", one("a", "us.created", `k: 'hook.source + ":" + event.key'`) + one("b", "eu.changed", "k: event.key"), nil},
		{"an address", one("a", "us.*, eu.*", "k: email(event.email)"), nil},
		{"other properties", one("a", "us.created", "k: event.key") + one("b", "eu.changed", "l: event.key"), nil},
		{"other presets", one("a", "us.created", "k: event.key") + one("b", "ads.created", "k: event.key"), nil},
		{"sources of the config's own", one("a", "own.created, own2.created", "k: event.key"), nil},
		{"one source", one("a", "us.*", "k: event.key") + one("b", "us.changed", "k: event.key"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, problems := diag.Parse("config.yaml", []byte(tt.give))
			d := &diag.Decoding{Problems: problems}
			CompileAll(n.Items(), c, d)
			var got []string
			for _, p := range d.Problems {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
