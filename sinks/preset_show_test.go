package sinks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
)

// What is printed of a sink is a config that describes the same sink, with the
// preset or without it.
func TestShownSinkIsAConfig(t *testing.T) {
	t.Parallel()
	for _, name := range Presets() {
		shown := string(loadYAML(t, presetConfigs[name]).YAML())
		config := strings.ReplaceAll(shown, "<secret>", `"${TOKEN}"`)
		plain := func(text string) any { // whatever the order: a body that is written anew stands last
			n, _ := diag.Parse("", []byte(text))
			return n.Plain()
		}
		if diff := cmp.Diff(plain(shown), plain(string(loadYAML(t, config).YAML()))); diff != "" {
			t.Errorf("%s with the preset:\n%s", name, diff)
		}
		_, alone, _ := strings.Cut(config, "\n")
		desc, problems := tryYAML(alone)
		if len(problems) > 0 {
			t.Errorf("%s without the preset:\n%v", name, problems)
			continue
		}
		if diff := cmp.Diff(shown, "preset: "+name+"\n"+string(desc.YAML())); diff != "" {
			t.Errorf("%s without the preset:\n%s", name, diff)
		}
	}
}

// Every key of a preset can be set by a config: a request, a rule, a limit, a field of a link.
func TestOverrides(t *testing.T) {
	t.Parallel()
	s := newSink(t, presetConfigs["salesforce"]+`
settings: {api_version: "60.0"}
headers: {Sforce-Duplicate-Rule-Header: "allowSave=true"}
concurrency: 9
batch: 50
operations: {archive: null}
`, Options{})
	p, err := s.Preview(Upsert, []Row{{Object: "Lead", Property: "K__c", Key: "1"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://acme.my.salesforce.com/services/data/v60.0/composite/sobjects/Lead/K__c"; p[0].URL != want {
		t.Error(p[0].URL)
	}
	if p[0].Header.Get("Sforce-Duplicate-Rule-Header") != "allowSave=true" || s.Concurrency() != 9 || s.MaxRows(Upsert) != 50 || s.Supports(Archive) {
		t.Errorf("%v %d %d", p[0].Header, s.Concurrency(), s.MaxRows(Upsert))
	}
	s = newSink(t, presetConfigs["pipedrive"]+"settings: {link_fields: {deals>products: \"0123456789012345678901234567890123456789\"}}\n", Options{})
	p, err = s.PreviewLinks([]LinkRow{{From: Ref{Object: "deals", ID: "5"}, To: Ref{Object: "products", ID: "7"}}, {From: Ref{Object: "deals", ID: "5"}, To: Ref{Object: "persons", ID: "8"}}})
	if err != nil || len(p) != 2 {
		t.Fatal(p, err)
	}
	if got := string(p[0].Body) + string(p[1].Body); got != `{"custom_fields":{"0123456789012345678901234567890123456789":7}}{"person_id":8}` {
		t.Error(got)
	}
	s = newSink(t, presetConfigs["zoho"]+"settings: {dc: eu, trigger: []}\n", Options{})
	p, err = s.Preview(Upsert, []Row{{Object: "Leads", Property: "Email", Key: "a@b.co"}})
	if err != nil || p[0].URL != "https://www.zohoapis.eu/crm/v8/Leads/upsert" ||
		string(p[0].Body) != `{"data":[{"Email":"a@b.co"}],"duplicate_check_fields":["Email"],"trigger":[]}` {
		t.Errorf("%s %s %v", p[0].URL, p[0].Body, err)
	}
	known := Row{Object: "Leads", Property: "Email", Key: "a@b.co", ID: "1"}
	for _, op := range []Operation{Update, Create} {
		if p, err := s.Preview(op, []Row{known}); err != nil || !strings.HasSuffix(string(p[0].Body), `,"trigger":[]}`) {
			t.Errorf("%s: %v %v", op, p, err)
		}
	}
	for _, remove := range []bool{false, true} {
		link := LinkRow{From: Ref{Object: "Deals", ID: "1"}, To: Ref{Object: "Accounts", ID: "2"}, Remove: remove}
		if p, err := s.PreviewLinks([]LinkRow{link}); err != nil || !strings.HasSuffix(string(p[0].Body), `,"trigger":[]}`) {
			t.Errorf("link: %v %v", p, err)
		}
	}
	if got := s.desc.auth.tokenURL; got != "https://accounts.zoho.eu/oauth/v2/token" {
		t.Error(got)
	}
	s = newSink(t, presetConfigs["dataverse"], Options{})
	for _, op := range []Operation{Upsert, Create, Find, Update} {
		_, err := s.Preview(op, []Row{{Object: "new_partners", Property: "new_key", Key: "1"}})
		if err == nil || !strings.HasSuffix(err.Error(), "name the id column of this table in settings.id_columns") {
			t.Errorf("%s of a table that the settings do not have: %v", op, err)
		}
	}
	if _, err := s.Preview(Update, []Row{{Object: "contacts", Property: "new_key", Key: "a+b"}}); err == nil || !strings.Contains(err.Error(), "does not work") {
		t.Errorf("a key that does not work: %v", err)
	}
	if got := s.desc.auth; got.tokenURL != "https://login.microsoftonline.com/acme/oauth2/v2.0/token" || got.scopes[0] != "https://acme.crm.dynamics.com/.default" {
		t.Errorf("%s %v", got.tokenURL, got.scopes)
	}
}
