package mappers

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
)

var update = flag.Bool("update", false, "write the golden files anew")

// shop is a sender that has a bit of everything.
func shop() Schema {
	contact := Schema{Kind: Object, Fields: map[string]Schema{
		"email": {Kind: Text}, "phone": {Kind: Text}, "country": {Kind: Text}, "first": {Kind: Text}, "last": {Kind: Text}, "city": {Kind: Text},
	}}
	user := Schema{Kind: Object, Fields: map[string]Schema{"id": {Kind: ID}, "email": {Kind: Text}, "active": {Kind: Bool}, "token": {Kind: Text, Private: true}}}
	return Schema{Kind: Object, Fields: map[string]Schema{
		"key": {Kind: ID}, "account_name": {Kind: Text}, "stage": {Kind: Text}, "amount": {Kind: Integer}, "rate": {Kind: Number},
		"archived": {Kind: Bool}, "created_at": {Kind: Time, Unit: "ms"}, "tags": {Kind: List, Elem: &Schema{Kind: Text}},
		"users": {Kind: List, Elem: &user}, "contact": contact, "meta": {Kind: Map},
		"billing": {Kind: Object, Fields: map[string]Schema{"tax_id": {Kind: Text, Private: true}, "iban": {Kind: Text, Private: true}, "plan": {Kind: Text}}},
	}}
}

func catalog(t testing.TB) *Catalog {
	t.Helper()
	d := &diag.Decoding{}
	n, problems := diag.Parse("tables.yaml", []byte(`
deal_stages: {map: {Working: qualifiedtobuy, Closed Won: closedwon}, else: skip}
owners: {map: {jane: 7}}
tiers: {map: {gold: 1}, else: value("other")}`))
	var tables map[string]*Table
	d.Decode(n, &tables)
	if problems.Failed() || d.Problems.Failed() {
		t.Fatal(problems, d.Problems)
	}
	deal, gone := shop(), Schema{Kind: Object, Fields: map[string]Schema{"key": {Kind: ID}, "reason": {Kind: Text}, "amount": {Kind: Text}}}
	return &Catalog{
		Sources: map[string]*SourceInfo{
			"shop":  {Events: map[string]*Schema{"deal.created": &deal, "deal.updated": &deal, "account.gone": &gone}, Currency: "USD", Allow: map[string]bool{"billing.iban": true}},
			"other": {Events: map[string]*Schema{"lead.created": {Kind: Object, Fields: map[string]Schema{"key": {Kind: ID}, "value": {Kind: Integer}}}}, Currency: "JPY"},
		},
		Sinks: map[string]*SinkInfo{
			"crm":     {Preset: "hubspot", Links: true, OrdersHits: true},
			"store":   {Preset: "webhook", Links: true},
			"archive": {Preset: "webhook", Modes: []Mode{Upsert, Append}, Objects: []string{"deals", "contacts"}},
			"mute":    mute(),
			"aliases": {Preset: "hubspot", Links: true, OrdersHits: true, Objects: []string{"contacts", "deals"}, Object: func(name string) (string, bool) {
				canonical, known := map[string]string{"contact": "contacts", "contacts": "contacts", "0-1": "contacts", "deal": "deals", "deals": "deals", "0-3": "deals"}[name]
				if !known {
					return name, strings.HasPrefix(name, "2-")
				}
				return canonical, true
			}},
		},
		Tables: tables,
	}
}

// mute is a sink that can be asked nothing, but for companies.
func mute() *SinkInfo {
	why := func(object string) string {
		if object == "companies" {
			return ""
		}
		return "it takes records, and tells nothing of them"
	}
	return &SinkInfo{
		Preset: "webhook", Links: true, Find: why, Read: why,
		LinkField: func(_ string, l *Link) string { return l.As },
		Search: func(object string, properties []string) string {
			if len(properties) > 1 {
				return "it compares one property at a time"
			}
			if object == "shops" {
				return ""
			}
			return why(object)
		},
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n, problems := diag.Parse(filepath.Base(file), data)
			d := &diag.Decoding{Problems: problems}
			if m := CompileAll(n.Items(), catalog(t), d); d.Problems.Failed() && m == nil {
				t.Fatal("no Mapper")
			}
			if len(d.Problems) == 0 {
				t.Fatal("no mistake was found")
			}
			d.Problems.Sort()
			var got bytes.Buffer
			diag.Print(&got, d.Problems, func(string) []byte { return data })
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("the messages differ (-want +got):\n%s", diff)
			}
		})
	}
}
