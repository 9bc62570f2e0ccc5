package main

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/sandbox"
	"partnersync/mappers"
	"partnersync/sinks"
)

// rehearsed are records of each preset, with what they have to have and fields of our own:
// one of each kind, and one of which nobody knows the kind.
var rehearsed = []struct{ preset, object, key, values, prefix, suffix string }{
	{"attio", "people", "partner_key", "name: event.name", "", ""},
	{"dataverse", "contacts", "new_key", "lastname: event.name", "new_", ""},
	{"hubspot", "contacts", "partner_key", "lastname: event.name", "", ""},
	{"pipedrive", "persons", strings.Repeat("a", 40), "name: event.name", strings.Repeat("0", 36), ""},
	{"salesforce", "Contact", "Key__c", "LastName: event.name", "", "__c"},
	{"zoho", "Contacts", "Partner_Key", "Last_Name: event.name", "", ""},
}

const rehearsedFields = `
      PREFIXfaceSUFFIX: event.flag
      PREFIXbeefSUFFIX: event.size
      PREFIXcafeSUFFIX: event.at
      PREFIXfadeSUFFIX: cents(event.size, "USD")
      PREFIXdeadSUFFIX: date(event.at)
      PREFIXfeedSUFFIX: event.name
      PREFIXdeafSUFFIX: event.open
`

// What a config writes is right in its rehearsal, whatever kinds it writes; and what is added to the file is known at once,
// while the records stay.
func TestRehearsal(t *testing.T) {
	t.Parallel()
	for _, r := range rehearsed {
		t.Run(r.preset, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config.yaml")
			box := sandbox.New(sandbox.Options{})
			var out strings.Builder
			srv := httptest.NewServer(&rehearsal{box: box, path: path, out: &out, furniture: furniture{box: box, own: map[place]sandbox.Property{}}})
			defer srv.Close()
			write := func(more string) *config.Config {
				text := `
sources:
  shop:
    verify: {token: t}
    description: d
    events:
      made:
        description: d
        schema: {id: id required, name: text, flag: bool, size: integer, at: time s, open: any}
        entity: {thing: event.id}
` + sandboxSinks(srv.Listener.Addr(), nil) + `
mappings:
  - name: m
    on: shop.made
    to: ` + r.preset + `
    object: ` + r.object + `
    key: {` + r.key + `: event.id}
    set:
      ` + r.values + strings.NewReplacer("PREFIX", r.prefix, "SUFFIX", r.suffix).Replace(rehearsedFields+more)
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				cfg, problems := config.Load(path, config.Options{})
				if cfg == nil {
					t.Fatal(problems)
				}
				return cfg
			}
			send := func(cfg *config.Config, open any) sinks.Result {
				body, err := json.Marshal(map[string]any{"id": "k1", "name": "Doe", "flag": true, "size": 7, "at": 1700000000, "open": open})
				if err != nil {
					t.Fatal(err)
				}
				e := cfg.Sources["shop"].Open("made", body)
				change := cfg.Mappings.Run(r.preset, &mappers.Event{Source: "shop", Type: "made", Body: e.Body})[0].Changes[0]
				row := sinks.Row{Trace: "t", Object: change.Object, Property: change.Key.Property, Key: change.Key.Value, Values: map[string]any{}}
				for _, f := range change.Fields {
					row.Values[f.Name] = f.Value
				}
				sink := sinks.New(cfg.Sinks[r.preset], sinks.Options{})
				defer sink.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				return sink.Write(ctx, sinks.Upsert, []sinks.Row{row})[0]
			}
			cfg := write("")
			for _, open := range []any{"text", true, 7} {
				if got := send(cfg, open); got.Class != sinks.OK {
					t.Errorf("with %v: %+v", open, got)
				}
			}
			cfg = write("      PREFIXbeadSUFFIX: not event.flag\n")
			got := send(cfg, "text")
			if got.Class != sinks.OK {
				t.Errorf("with a field more: %+v", got)
			}
			if all := box.Records(r.preset, r.object); len(all) != 1 || len(all[0].Properties) < 9 {
				t.Errorf("%+v", all)
			}
			// A file with a mistake takes nothing away.
			if err := os.WriteFile(path, []byte("sinks: ["), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := send(cfg, "text"); got.Class != sinks.OK {
				t.Errorf("after a mistake: %+v", got)
			}
			if n := strings.Count(out.String(), "are defined"); n != 2 {
				t.Errorf("it says\n%s", out.String())
			}
		})
	}
	for _, preset := range sinks.Presets() {
		if preset != "webhook" && !strings.Contains(rehearsals(), preset) {
			t.Errorf("%s is not rehearsed", preset)
		}
	}
}

func rehearsals() string {
	var names []string
	for _, r := range rehearsed {
		names = append(names, r.preset)
	}
	return strings.Join(names, " ")
}

// Records that cannot be entered end the command before it listens, with a line that says which.
func TestSandboxRecords(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "records")
	for _, text := range []string{
		`{"hubspot": {"deals": [{"properties": {}, "links": [{"object": "companies", "id": "9"}]}]}}`,
		"# of sales\nhubspot:\n  deals:\n    - {properties: {}, links: [{object: companies, id: \"9\"}]}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		err := sandboxCmd{Listen: "127.0.0.1:0", Records: path}.Run(t.Context(), &commands{}, streams{out: &out})
		if want := "--records " + path + `: seed: hubspot: deals[0]: links: there is no record "9" of companies`; err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
	}
	box := sandbox.New(sandbox.Options{})
	if err := enter(box, filepath.Join("..", "..", "examples", "partnerstack-hubspot", "before.yaml")); err != nil || len(box.Records("hubspot", "companies")) == 0 {
		t.Errorf("what the examples have from the beginning: %v", err)
	}
}
