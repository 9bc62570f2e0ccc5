package config_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/mappers"
)

const exampleFile = "../../config.example.yaml"

// samples is how many sample events the presets of the example have.
const samples = 27

// example loads config.example.yaml with all of its secrets set.
func example(t *testing.T) *config.Config {
	t.Helper()
	cfg, problems := config.Load(exampleFile, config.Options{Lenient: true, Getenv: func(name string) (string, bool) {
		return "a-secret-of-the-test", name != "DATABASE_URL"
	}})
	for _, p := range problems {
		t.Errorf("%s: %s", p.Pos, p.Message)
	}
	if cfg == nil {
		t.FailNow()
	}
	return cfg
}

// outcomes runs all mappings of the example on the sample of an event, sink by sink.
func outcomes(t *testing.T, cfg *config.Config, source, event string) []mappers.Outcome {
	t.Helper()
	s := cfg.Sources[source]
	e := s.Open(event, s.Events[event].Sample)
	if e.Malformed != nil || e.Empty || !e.Known || e.Type != event {
		t.Fatalf("the sample is opened as %q (known %t, empty %t, malformed %v)", e.Type, e.Known, e.Empty, e.Malformed)
	}
	if e.Ignored != "" {
		t.Fatalf("the sample is ignored: %s", e.Ignored)
	}
	if len(e.Drift) > 0 {
		t.Errorf("the sample has paths that its schema does not know: %v", e.Drift)
	}
	var all []mappers.Outcome
	for _, sink := range cfg.Mappings.Sinks(source, event) {
		all = append(all, cfg.Mappings.Run(sink, &mappers.Event{
			ID: uuid.Nil.String(), Source: source, Type: event, Entity: e.Entity,
			OccurredAt: e.OccurredAt, ReceivedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Body: e.Body,
		})...)
	}
	return all
}

func TestExampleMapsEverySample(t *testing.T) {
	t.Parallel()
	cfg := example(t)
	made := map[string]bool{} // what each mapping has made of all samples: "mapping object"
	seen := 0
	for source, s := range cfg.Sources {
		for _, event := range s.EventNames() {
			if s.Events[event].Sample == nil {
				continue
			}
			seen++
			t.Run(source+"."+event, func(t *testing.T) {
				changes := 0
				for _, o := range outcomes(t, cfg, source, event) {
					if o.Failed != nil {
						t.Errorf("mapping %q: %s: %s", o.Mapping, o.Failed.Reason, o.Failed.Message)
					}
					for _, c := range o.Changes {
						made[o.Mapping+" "+c.Object] = true
					}
					changes += len(o.Changes)
				}
				if changes == 0 {
					t.Error("no mapping makes anything of it")
				}
			})
		}
	}
	if seen != samples {
		t.Errorf("found %d samples, want %d", seen, samples)
	}
	for _, m := range cfg.Mappings.Mappings() {
		// Short bodies of a partnership name no team; that of an accepted agreement does.
		if !made[m.Name+" "+m.Object] {
			t.Errorf("line %d: the mapping %q makes no %s of any sample", m.Pos.Line, m.Name, m.Object)
		}
	}
}

func TestExampleValues(t *testing.T) {
	t.Parallel()
	cfg := example(t)
	tests := []struct {
		name  string
		event string
		want  []string
	}{
		{
			name:  "a deal in exact money, on the day that it is in Toronto, in the stage of the table",
			event: "partnerstack.deal.created",
			want: []string{
				"upsert deals partnerstack_deal_key=deal_fLvIgE6Yb43CLO",
				"  set dealname=Robert Reilly",
				"  set amount=87.53",
				"  set closedate=2020-03-01",
				"  set dealstage=qualifiedtobuy",
				"  set partner_stage=Working",
				"  set partner_contact=Stephanie Sullivan",
				"  set partner_company=Some Company",
				"  set partner_source=JohnSmith",
				"  set_first first_partner=JohnSmith",
				"  link contacts partnerstack_partner_key=JohnSmith",
			},
		},
		{
			name:  "a declined application makes no company and links to none",
			event: "partnerstack.application.declined",
			want: []string{
				"upsert contacts partnerstack_partner_key=johnsmith1234",
				"  set email=john.smith@best-company.example.com",
				"  set firstname=John",
				"  set lastname=Smith",
				"  set company=Best Company",
				"  set partner_group=Resellers",
				"  set application_status=declined",
				"  set application_decline_reason=Outside of the program territory",
			},
		},
		{
			name:  "an approved application blanks the reason why it was declined",
			event: "partnerstack.application.approved",
			want: []string{
				"upsert companies partnerstack_team_key=stck_12345abcde",
				"  set name=Best Company",
				"  set domain=best-company.example.com",
				"  set type=PARTNER",
				"upsert contacts partnerstack_partner_key=johnsmith1234",
				"  set email=john.smith@best-company.example.com",
				"  set firstname=John",
				"  set lastname=Smith",
				"  set company=Best Company",
				"  set partner_group=Resellers",
				"  set application_status=approved",
				"  clear application_decline_reason=<nil>",
				"  link companies partnerstack_team_key=stck_12345abcde",
			},
		},
		{
			name:  "a deleted customer stays, with a status that says so",
			event: "partnerstack.customer.deleted",
			want: []string{
				"upsert companies partner_customer_domain=axel.example.com",
				"  set domain=axel.example.com",
				"upsert contacts partnerstack_customer_key=crust_a1xlr0s3",
				"  set email=roger.axel@axel.example.com",
				"  set firstname=Roger",
				"  set lastname=Axel",
				"  set lifecyclestage=customer",
				"  set partner_source=bertramgilfoyle",
				"  set partner_customer_status=archived",
				"  set_first first_partner=bertramgilfoyle",
				"  link companies partner_customer_domain=axel.example.com",
			},
		},
		{
			name:  "who leaves a team is taken off its company",
			event: "partnerstack.partner_team.member_removed",
			want: []string{
				"upsert companies partnerstack_team_key=tem_key_123",
				"  set name=team greatest",
				"upsert contacts partnerstack_member_key=key_123",
				"  set email=john.smith@team-greatest.example.com",
				"  set firstname=John",
				"  set lastname=Smith",
				"  set partner_team_role=member",
				"  set partner_team_status=removed",
				"  unlink companies partnerstack_team_key=tem_key_123",
			},
		},
		{
			name:  "a lead's custom fields are found by their labels",
			event: "partnerstack.lead.updated",
			want: []string{
				"upsert contacts partnerstack_lead_key=lead_KkGd8UAMVMAcWR",
				"  set email=austen.bostron@bostron.example.com",
				"  set firstname=austen",
				"  set lastname=bostron",
				"  set phone=+17189084190",
				"  set country=US",
				"  set hs_lead_status=OPEN_DEAL",
				"  set lifecyclestage=salesqualifiedlead",
				"  set partner_lead_status=closed",
				"  set partner_lead_owner=company",
				"  set partner_source=austensutherland9896",
				"  set_first first_partner=austensutherland9896",
			},
		},
		{
			name:  "a message is a note in plain text",
			event: "partnerstack.message.created",
			want: []string{
				"upsert companies partnerstack_team_key=stck_UPe3lMT6ZwAeYM",
				"  set name=Acme Co",
				"append notes =part_PSpTisOITpSh8d/2024-05-01T18:35:11.639Z",
				"  set hs_timestamp=2024-05-01T18:35:11.639Z",
				"  set hs_note_body=Ash Ketchum wrote in PartnerStack: Hi there",
				"  link companies partnerstack_team_key=stck_UPe3lMT6ZwAeYM",
				"  link contacts partnerstack_partner_key=ashketchum1234",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source, event, _ := strings.Cut(tt.event, ".")
			var got []string
			for _, o := range outcomes(t, cfg, source, event) {
				for _, c := range o.Changes {
					got = append(got, fmt.Sprintf("%s %s %s=%s", c.Mode, c.Object, c.Key.Property, c.Key.Value))
					for _, f := range c.Fields {
						got = append(got, fmt.Sprintf("  %s %s=%v", f.Rule, f.Name, f.Value))
					}
					for _, l := range c.Links {
						verb := "link"
						if l.Remove {
							verb = "unlink"
						}
						got = append(got, fmt.Sprintf("  %s %s %s=%s", verb, l.To, l.Key.Property, l.Key.Value))
					}
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

// Somebody who has no secrets yet can check the example; only the secrets are missing.
func TestExampleWithoutSecrets(t *testing.T) {
	t.Parallel()
	cfg, problems := config.Load(exampleFile, config.Options{Lenient: true, Getenv: func(string) (string, bool) { return "", false }})
	if cfg == nil {
		t.Error("the example cannot be loaded")
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Message)
	}
	want := []string{
		"the environment variable PARTNERSTACK_HOOK_TOKEN is not set here",
		"the environment variable EVERFLOW_HOOK_TOKEN is not set here",
		"the environment variable HUBSPOT_TOKEN is not set here",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// block is the first code block of a Markdown file that begins with open.
func block(t *testing.T, file, open string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), open)
	inside, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatalf("%s has no block %q", file, open)
	}
	return inside
}

// The sender that CONTRIBUTING.md describes works.
func TestContributing(t *testing.T) {
	t.Parallel()
	text := block(t, "../../CONTRIBUTING.md", "```yaml\n")
	cfg, problems := config.Parse("config.yaml", []byte(text), config.Options{Getenv: func(string) (string, bool) { return "a-secret-of-the-test", true }})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	shop := cfg.Sources["shop"]
	for _, tt := range []struct{ give, want string }{
		{give: `{"id": 7, "total": 1250, "created": 1700000000, "changed": 1700000000}`, want: "order.created"},
		{give: `{"id": 7, "total": 1250, "created": 1700000000, "changed": 1700000001}`, want: "order.paid"},
		{give: `{"topic": "order_paid", "id": 7, "total": 1250, "created": 1700000000, "changed": 1700000000}`, want: "order.paid"},
	} {
		if got := shop.Open("", []byte(tt.give)); got.Type != tt.want || got.Entity != "order:7" {
			t.Errorf("%s is a %s about %s, want %s", tt.give, got.Type, got.Entity, tt.want)
		}
	}
	for _, o := range outcomes(t, cfg, "shop", "order.created") {
		if o.Failed != nil || len(o.Changes) != 1 || fmt.Sprint(o.Changes[0].Fields[0].Value) != "12.5" {
			t.Errorf("the sample gives %+v", o)
		}
	}
}

// The mapping in the README is sound, and what it shows of check is what check prints.
func TestReadme(t *testing.T) {
	t.Parallel()
	mapping := block(t, "../../README.md", "```yaml\n")
	options := config.Options{Getenv: func(string) (string, bool) { return "a-secret-of-the-test", true }}
	cfg, problems := config.Parse("config.yaml", []byte(mapping), options)
	if len(problems) > 0 {
		t.Fatalf("the mapping: %v", problems)
	}
	for _, tt := range []struct {
		event, stage string
		want         any
	}{
		{"deal.created", "Closed Won", "closedwon"},
		{"deal.created", "Somewhere", "appointmentscheduled"},
		{"deal.updated", "closed won", "closedwon"},
		{"deal.updated", "Somewhere", nil},
	} {
		e := cfg.Sources["partnerstack"].Open(tt.event, fmt.Appendf(nil, `{"data": {"key": "deal_1", "stage": %q}}`, tt.stage))
		o := cfg.Mappings.Run("crm", &mappers.Event{Source: "partnerstack", Type: tt.event, Body: e.Body})[0]
		if o.Failed != nil || len(o.Changes) != 1 {
			t.Fatalf("%+v", o)
		}
		var got any
		for _, f := range o.Changes[0].Fields {
			if f.Name == "dealstage" {
				got = f.Value
			}
		}
		if got != tt.want {
			t.Errorf("%s at %q is a deal at %v, want %v", tt.event, tt.stage, got, tt.want)
		}
	}
	for _, mistake := range [][2]string{
		{"event.account_name", "event.acount_name"},
		{"cents(event.amount)               # 8753 becomes 87.53", "cents(event.stage)"},
		{`lookup(event.stage, "deal_stages")`, `lookup(event.stage, "deal_stage")`},
	} {
		if strings.Count(mapping, mistake[0]) != 1 {
			t.Fatalf("the mapping does not have %q once", mistake[0])
		}
		mapping = strings.Replace(mapping, mistake[0], mistake[1], 1)
	}
	_, problems = config.Parse("config.yaml", []byte(mapping), options)
	var got strings.Builder
	diag.Print(&got, problems, func(string) []byte { return []byte(mapping) })
	want, _, _ := strings.Cut(block(t, "../../README.md", "```text\n$ partnersync check\n"), "\nconfig.yaml: 3 errors\n")
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("what check prints (-README +check):\n%s", diff)
	}
}

// The head of the file tells which properties need unique values: every key, and no other.
func TestExampleNamesItsKeys(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string][]string{}
	object := ""
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			break
		}
		words := strings.Fields(strings.TrimPrefix(line, "#"))
		if len(words) == 0 {
			continue
		}
		if slices.Contains([]string{"contacts", "companies", "deals"}, words[0]) {
			object, words = words[0], words[1:]
		}
		for _, w := range words {
			if object != "" && (strings.HasSuffix(w, "_key") || strings.HasSuffix(w, "_id") || strings.HasSuffix(w, "_domain")) {
				told[object] = append(told[object], w)
			}
		}
	}
	used := map[string][]string{}
	use := func(object, key string) {
		if key != "" && !slices.Contains(used[object], key) {
			used[object] = append(used[object], key)
		}
	}
	for _, m := range example(t).Mappings.Mappings() {
		if m.Sink != "crm" {
			continue
		}
		use(m.Object, m.Key)
		for _, l := range m.Links {
			use(l.To, l.Key)
		}
	}
	for _, m := range []map[string][]string{told, used} {
		for object := range m {
			slices.Sort(m[object])
		}
	}
	if diff := cmp.Diff(used, told); diff != "" {
		t.Errorf("keys of the mappings and those that the comment names (-mappings +comment):\n%s", diff)
	}
}

// What is made in a test ends at the door.
func TestExampleIgnoresTests(t *testing.T) {
	t.Parallel()
	s := example(t).Sources["partnerstack"]
	for body, want := range map[string]string{
		`{"key": "crust_1", "partner_key": "p", "test": true, "created_at": 1, "updated_at": 1}`:           "test customer",
		`{"key": "crust_1", "partner_key": "p", "test": false, "created_at": 1, "updated_at": 1}`:          "",
		`{"key": "crust_1", "partner_key": "p", "created_at": 1, "updated_at": 1}`:                         "",
		`{"key": "crust_1", "partner_key": "p", "email": "a@test.example", "created_at": 1, "test": null}`: "test partner",
	} {
		if e := s.Open("customer.created", []byte(body)); e.Ignored != want {
			t.Errorf("%s: ignored for %q, want %q", body, e.Ignored, want)
		}
	}
}
