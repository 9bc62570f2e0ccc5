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
