package config_test

import (
	"os"
	"strings"
	"testing"

	"partnersync/internal/config"
	"partnersync/internal/diag"
)

// No config, however odd, makes the loader panic, and what it refuses it says why.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../../config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{
		"", "a", "[]", "sources: {x: {preset: partnerstack, verify: none}}", "sinks: {crm: {preset: hubspot}}", "mappings: {}",
		"sources: {x: {verify: none, events: {e: {schema: {k: id}}}}}\nsinks: {c: {preset: webhook, url: http://h}}\n" +
			"mappings: [{name: m, on: x.e, to: c, object: o, key: {k: event.k}, set: {v: 'upper(event.k) + 1'}}]",
		"sources: {x: {verify: none, events: {e: {schema: {k: id}}}}}\nsinks: {c: {preset: hubspot, auth: {token: t}}}\n" +
			"mappings: [{name: m, on: x.e, to: c, object: o, key: {k: event.k}, match: [{a: event.k, b: value(1)}, {c: event.k}], several: dead, taken: take, " +
			"set_on_create: {d: event.k}, set_if_empty: {e: event.k}, add: {f: '[event.k]'}, forward: {g: {value: event.k, order: [a, 1], final: z}}, " +
			"links: [{to: p, key: {k: event.k}, match: [{a: event.k}]}]}]",
		"tables: {t: {map: {a: b}, else: value(1)}}", "database: {url: '${X}', max_connections: -1}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, problems := config.Parse("c.yaml", data, config.Options{Lenient: true, Getenv: func(string) (string, bool) { return "", false }})
		if (cfg == nil) != problems.Failed() {
			t.Errorf("config %v with problems %v", cfg != nil, problems)
		}
		diag.Print(&strings.Builder{}, problems, func(string) []byte { return data })
	})
}
