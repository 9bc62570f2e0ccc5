package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// ownersConfig has people's addresses become the ids that the CRM knows them by.
var ownersConfig = strings.NewReplacer("mappings:", "tables: {owners: {from: crm, list: owners, by: email, else: skip}}\nmappings:",
	"title: event.name", `title: event.key, owner: 'lookup(event.name, "owners")'`).Replace(shopConfig)

func TestTablesFromTheCRM(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ownersConfig, pgtest.URL(t))
	w.box.Define("hubspot", "orders", sandbox.Property{Name: "owner"})
	w.box.DefineOwner("hubspot", sandbox.Owner{ID: "7", Email: "Jane@acme.test"})
	w.box.DefineOwner("hubspot", sandbox.Owner{ID: "8", Email: "left@acme.test", Left: true})
	owners := func() map[string]any {
		all := map[string]any{}
		for _, r := range w.box.Records("hubspot", "orders") {
			all[r.Properties["order_key"].(string)] = r.Properties["owner"]
		}
		return all
	}
	there := func(key string) func() bool { return func() bool { _, is := owners()[key]; return is } }
	s := w.start()
	s.mustPost("d1", 1, "jane@acme.test")
	s.mustPost("d2", 1, "left@acme.test")
	s.until("both are there", func() bool { return there("d1")() && there("d2")() })
	if got := owners(); got["d1"] != "7" || got["d2"] != nil {
		t.Errorf("owners %v", got)
	}
	if s.metric(`table_read_timestamp_seconds{table="owners"}`) < 1 || s.metric(`table_stale{table="owners"}`) != 0 {
		t.Error("the metrics do not tell when the table was read")
	}
	// try asks the CRM itself.
	if err := os.WriteFile(filepath.Join(w.dir, "event.json"), []byte(`{"key":"d9","name":"JANE@acme.test","at":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := w.run("try", "--source", "shop", "--event", "deal.updated", "event.json"); !strings.Contains(said, "owner") || !strings.Contains(said, "7") {
		t.Errorf("try says\n%s", said)
	}
	s.stop()

	// A process that begins while the CRM does not tell goes on with what was read last.
	w.box.Fault(sandbox.Fault{Path: "/crm/owners/", Effect: sandbox.EffectStatus, Status: http.StatusForbidden})
	s = w.start()
	s.mustPost("d3", 1, "jane@acme.test")
	s.until("it is there", there("d3"))
	if got := owners(); got["d3"] != "7" {
		t.Errorf("owners %v", got)
	}
	s.stop()
}

// Two of one name are an error at the table's place.
func TestCheckLiveTables(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ownersConfig, "")
	w.box.Define("hubspot", "orders", sandbox.Property{Name: "owner"})
	w.box.DefineOwner("hubspot", sandbox.Owner{ID: "7", Email: "jane@acme.test"})
	if code, said := w.tried("check", "--live"); code != 0 {
		t.Errorf("%d %s", code, said)
	}
	w.box.DefineOwner("hubspot", sandbox.Owner{ID: "9", Email: "JANE@acme.test"})
	if code, said := w.tried("check", "--live"); code != 2 || !strings.Contains(said, `table "owners": several owners are called the same: jane@acme.test`) {
		t.Errorf("%d %s", code, said)
	}
	w.box.Fault(sandbox.Fault{Path: "/crm/owners/", Effect: sandbox.EffectStatus, Status: http.StatusForbidden})
	if code, said := w.tried("check", "--live"); code != 1 || !strings.Contains(said, `crm: table "owners", owners: HTTP 403`) {
		t.Errorf("%d %s", code, said)
	}
}

// A field goes by a name of the config's own, and is written by the one that the CRM has for its label.
func TestFieldsByLabel(t *testing.T) {
	t.Parallel()
	labelled := strings.NewReplacer("    settle: 300ms\n", "    settle: 300ms\n    fields: {orders: {title: Deal title, order_key: Key of the deal}}\n").Replace(shopConfig)
	w := newWorld(t, labelled, pgtest.URL(t))
	for _, name := range []string{"title", "order_key"} {
		w.box.Undefine("hubspot", "orders", name)
	}
	code, said := w.tried("check", "--live")
	if code != 2 || !strings.Contains(said, `orders of sink "crm" have no field with the label "Deal title"`) {
		t.Errorf("%d %s", code, said)
	}
	if code, said := w.tried("setup", "crm"); code != 0 {
		t.Errorf("setup: %d %s", code, said)
	}
	s := w.start()
	s.mustPost("d1", 1, "One")
	there := func(n int) func() bool {
		return func() bool { return len(w.box.Records("hubspot", "orders")) == n }
	}
	s.until("it is there", there(1))
	w.box.Undefine("hubspot", "orders", "title") // somebody makes it anew by hand, under another name
	w.box.Define("hubspot", "orders", sandbox.Property{Name: "p_77", Label: "deal title"})
	if code, said := w.tried("check", "--live"); code != 0 {
		t.Errorf("check --live: %d %s", code, said)
	}
	s.reload(t)
	s.until("the field is known by its new name", func() bool {
		s.mustPost("d2", 1+w.count("events"), "Two")
		for _, r := range w.box.Records("hubspot", "orders") {
			if r.Properties["order_key"] == "d2" && r.Properties["p_77"] == "Two" {
				return true
			}
		}
		return false
	})
	s.stop()
}
