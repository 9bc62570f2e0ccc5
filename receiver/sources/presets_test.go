package sources_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/mappers"
	"partnersync/receiver/sources"
)

func TestPresetsLoad(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]string{"everflow", "partnerstack"}, sources.Presets()); diff != "" {
		t.Error(diff)
	}
	documented := 0
	for _, name := range sources.Presets() {
		s := preset(t, name)
		if s.Preset != name || s.Description == "" {
			t.Errorf("%s: preset %q, description %q", name, s.Preset, s.Description)
		}
		for _, event := range s.Events {
			if event.Description == "" || event.Schema.Kind != mappers.Object || len(event.Aliases) == 0 {
				t.Errorf("%s %s lacks description, schema or aliases", name, event.Name)
			}
			if (event.Sample == nil) != event.Undocumented {
				t.Errorf("%s %s: has a sample: %v, undocumented: %v", name, event.Name, event.Sample != nil, event.Undocumented)
			}
			if !event.Undocumented {
				documented++
			}
		}
	}
	if documented != 27 {
		t.Errorf("%d documented events, want 27", documented)
	}
	if _, ok := sources.Preset("nobody"); ok {
		t.Error("there is a preset nobody")
	}
}

// Each file under samples belongs to an event, so that none is forgotten.
func TestEverySampleIsUsed(t *testing.T) {
	t.Parallel()
	for _, name := range sources.Presets() {
		s := preset(t, name)
		files, err := filepath.Glob("samples/" + name + "/*.json")
		if err != nil || len(files) == 0 {
			t.Fatalf("no samples of %s: %v", name, err)
		}
		for _, f := range files {
			event := s.Events[strings.TrimSuffix(filepath.Base(f), ".json")]
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if event == nil || string(event.Sample) != string(want) {
				t.Errorf("%s is not the sample of an event", f)
			}
		}
	}
}

// golden is what Open must make of each real body.
var golden = []struct {
	source, file string
	event        string // in the URL
	entity       string
	occurred     string
	rank         int
	byHint       string // the type with nothing in the URL
	byShape      string // and without a hint in the body
}{
	{"partnerstack", "agreement.accepted", "agreement.accepted", "partnership:part_f2a02a0a3d9c47e29", "2024-02-08T14:43:13.365Z", 0, "agreement.accepted", "agreement.accepted"},
	{"partnerstack", "application.created", "application.created", "application:appl_12345abcde", "2023-06-09T13:50:08.314Z", 0, "application.created", "application.created"},
	{"partnerstack", "application.approved", "application.approved", "application:appl_12345abcde", "2023-06-28T18:38:16.375Z", 1, "application.approved", "application.approved"},
	{"partnerstack", "application.declined", "application.declined", "application:appl_12345abcde", "2023-06-29T18:38:16.375Z", 1, "application.declined", "application.declined"},
	{"partnerstack", "partnership.created", "partnership.created", "partnership:123", "", 0, "partnership.created", "unknown"},
	{"partnerstack", "partnership.updated", "partnership.updated", "partnership:123", "", 1, "partnership.updated", "unknown"},
	{"partnerstack", "partnership.tags_updated", "partnership.tags_updated", "partnership:123", "", 1, "partnership.tags_updated", "unknown"},
	{"partnerstack", "customer.created", "customer.created", "customer:crust_a1xlr0s3", "2018-09-17T17:25:54.288Z", 0, "customer.created", "customer.created"},
	{"partnerstack", "customer.updated", "customer.updated", "customer:crust_a1xlr0s3", "2018-09-17T17:25:59.876Z", 1, "customer.updated", "customer.updated"},
	{"partnerstack", "customer.deleted", "customer.deleted", "customer:crust_a1xlr0s3", "2018-09-18T17:25:59.876Z", 2, "customer.deleted", "customer.deleted"},
	{"partnerstack", "transaction.created", "transaction.created", "transaction:tran_SoaaRTEY7QFA1k", "2018-09-17T17:25:54.288Z", 0, "transaction.created", "transaction.created"},
	{"partnerstack", "transaction.updated", "transaction.updated", "transaction:tran_SoaaRTEY7QFA1k", "2018-09-18T17:25:59.876Z", 1, "transaction.updated", "transaction.updated"},
	{"partnerstack", "lead.created", "lead.created", "lead:lead_KkGd8UAMVMAcWR", "2020-03-20T18:52:25.695Z", 0, "lead.created", "lead.created"},
	{"partnerstack", "lead.updated", "lead.updated", "lead:lead_KkGd8UAMVMAcWR", "2020-03-22T18:52:25.695Z", 1, "lead.updated", "lead.updated"},
	{"partnerstack", "deal.created", "deal.created", "deal:deal_fLvIgE6Yb43CLO", "2020-02-28T16:40:52.302Z", 0, "deal.created", "deal.created"},
	{"partnerstack", "deal.updated", "deal.updated", "deal:deal_fLvIgE6Yb43CLO", "2020-03-06T16:40:52.302Z", 1, "deal.updated", "deal.updated"},
	// The bodies of training name a wrong event; only a URL tells them.
	{"partnerstack", "training.course_completed", "training.course_completed", "training:982931", "", 0, "partnership.created", "unknown"},
	{"partnerstack", "training.learning_path_completed", "training.learning_path_completed", "training:982932", "", 0, "partnership.created", "unknown"},
	{"partnerstack", "partner_team.member_created", "partner_team.member_created", "team_member:key_123", "2020-03-20T18:52:25.695Z", 0, "partner_team.member_created", "partner_team.member_created"},
	{"partnerstack", "partner_team.member_removed", "partner_team.member_removed", "team_member:key_123", "2020-03-21T18:52:25.695Z", 1, "unknown", "unknown"},
	{"partnerstack", "action.created", "action.created", "action:lead_KkGd8UAMVMAcWR", "2020-03-20T18:52:25.695Z", 0, "action.created", "action.created"},
	{"partnerstack", "action.updated", "action.updated", "action:lead_KkGd8UAMVMAcWR", "2020-03-20T18:53:25.695Z", 1, "action.updated", "action.updated"},
	{"partnerstack", "message.created", "message.created", "message:part_PSpTisOITpSh8d@1714588511639", "2024-05-01T18:35:11.639Z", 0, "message.created", "message.created"},

	{"everflow", "partner.created", "partner.created", "partner:20138", "2021-01-01T00:00:00Z", 0, "partner.created", "partner.created"},
	{"everflow", "partner.updated", "partner.updated", "partner:20138", "2021-01-01T00:01:40Z", 2, "partner.updated", "partner.updated"},
	{"everflow", "partner.signed_up", "partner.signed_up", "partner:20404", "2022-06-09T20:42:50Z", 0, "partner.signed_up", "partner.signed_up"},
	{"everflow", "partner.signup_verdict", "partner.signup_verdict", "partner:37", "2024-06-20T21:20:02Z", 1, "partner.signup_verdict", "partner.signup_verdict"},

	{"partnerstack", "application.created.v1-underscore", "application.created", "application:appl_8WePUs6tWFsW4h", "2022-10-27T17:19:51.802Z", 0, "application.created", "application.created"},
	{"partnerstack", "customer.created.api.constructed", "customer.created", "customer:crust_b2ymz1t4", "2018-09-17T17:25:54.288Z", 0, "customer.created", "customer.created"},
	{"partnerstack", "deal.created.no-meta-vendor-sourced", "deal.created", "deal:deal_00VENDORsrc00", "2020-02-28T16:40:52.302Z", 0, "deal.created", "deal.created"},
	// The full object is documented for agreements only, so that is what its shape says.
	{"partnerstack", "partnership.created.v2-object", "partnership.created", "partnership:part_f2a02a0a3d9c47e29", "2024-02-08T14:43:13.365Z", 0, "agreement.accepted", "agreement.accepted"},
	{"everflow", "partner.created.minimal", "partner.created", "partner:7", "2022-10-03T19:27:25Z", 0, "partner.created", "partner.created"},
	{"everflow", "partner.signup_verdict.approved", "partner.signup_verdict", "partner:37", "2024-06-20T21:20:02Z", 1, "partner.signup_verdict", "partner.signup_verdict"},
	{"everflow", "conversion.registered.constructed", "conversion.registered", "conversion:8f2d0c1b4e5a4d5f9a7e3c2b1a0f9e8d", "2024-06-20T21:20:02Z", 0, "conversion.registered", "conversion.registered"},
}

func TestOpenRealBodies(t *testing.T) {
	t.Parallel()
	loaded := map[string]*sources.Source{}
	for _, name := range sources.Presets() {
		loaded[name] = preset(t, name)
	}
	seen := map[string]bool{}
	for _, tt := range golden {
		seen[tt.source+"/"+tt.file] = true
		t.Run(tt.source+"/"+tt.file, func(t *testing.T) {
			t.Parallel()
			s, raw := loaded[tt.source], body(t, tt.source, tt.file)

			e := s.Open(tt.event, raw)
			type told struct {
				Type, Entity, Occurred string
				Rank                   int
				Known                  bool
				Drift                  []string
			}
			occurred := ""
			if !e.OccurredAt.IsZero() {
				occurred = e.OccurredAt.Format(time.RFC3339Nano)
			}
			got := told{e.Type, e.Entity, occurred, e.Rank, e.Known, e.Drift}
			want := told{tt.event, tt.entity, tt.occurred, tt.rank, true, nil}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("by URL (-want +got)\n%s", diff)
			}
			if e.Malformed != nil || e.Empty || e.Ignored != "" || string(e.Payload) != string(raw) {
				t.Errorf("malformed %v, empty %v, ignored %q", e.Malformed, e.Empty, e.Ignored)
			}
			if missing := missing(s.Events[tt.event].Schema, e.Body, ""); len(missing) > 0 {
				t.Errorf("required, but not in the body: %v", missing)
			}
			if got := s.Open("", raw); got.Type != tt.byHint || got.HintMismatch {
				t.Errorf("by the hint in the body it is %q, want %q", got.Type, tt.byHint)
			}
			if got := s.Open("", without(t, raw, "event")); got.Type != tt.byShape {
				t.Errorf("by its shape it is %q, want %q", got.Type, tt.byShape)
			}
			for _, alias := range s.Events[tt.event].Aliases {
				if got := s.Open(strings.ToUpper(alias), raw); len(s.Find(alias)) == 1 && got.Type != tt.event {
					t.Errorf("by the alias %q it is %q", alias, got.Type)
				}
			}
			shaped, drift, err := s.Shape(tt.event, raw)
			if err != nil || drift != nil || !cmp.Equal(e.Body, shaped) {
				t.Errorf("Shape gives another body than Open: %v %v", drift, err)
			}
		})
	}
	for name, s := range loaded {
		for _, event := range s.Events {
			if event.Sample != nil && !seen[name+"/"+event.Name] {
				t.Errorf("the sample of %s %s is not in the golden table", name, event.Name)
			}
		}
	}
	variants, err := filepath.Glob("testdata/variants/*/*.json")
	if err != nil || len(variants) == 0 {
		t.Fatal("no variants", err)
	}
	for _, f := range variants {
		name := filepath.Base(filepath.Dir(f)) + "/" + strings.TrimSuffix(filepath.Base(f), ".json")
		if !seen[name] && name != "partnerstack/postback.test" {
			t.Errorf("%s is not in the golden table", name)
		}
	}
}

// missing lists the fields that a schema calls required and an object lacks.
func missing(schema mappers.Schema, v any, path string) []string {
	var paths []string
	switch v := v.(type) {
	case map[string]any:
		for name, field := range schema.Fields {
			if field.Required && v[name] == nil {
				paths = append(paths, path+name)
			}
			paths = append(paths, missing(field, v[name], path+name+".")...)
		}
	case []any:
		for _, e := range v {
			if schema.Elem != nil {
				paths = append(paths, missing(*schema.Elem, e, path)...)
			}
		}
	}
	slices.Sort(paths)
	return paths
}

func without(t *testing.T, raw []byte, key string) []byte {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, key)
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestShapedValues(t *testing.T) {
	t.Parallel()
	partnerstack, everflow := preset(t, "partnerstack"), preset(t, "everflow")
	tests := []struct {
		source *sources.Source
		event  string
		path   string
		want   any
	}{
		{partnerstack, "partnership.created", "archived", false},
		{partnerstack, "partnership.created", "id", "123"},
		{partnerstack, "partnership.created", "group.id", "22"},
		{partnerstack, "deal.created", "amount", int64(8753)},
		{partnerstack, "deal.created", "close_date", time.Date(2020, 3, 1, 5, 0, 0, 0, time.UTC)},
		{partnerstack, "deal.created", "company_id", "6"},
		{partnerstack, "deal.created", "meta.favorite_number_122jdfu232", int64(2)},
		{partnerstack, "lead.created", "decline_reason", nil},
		{partnerstack, "lead.created", "meta.firsttype_phWcnMuA8mpJ", nil},
		{partnerstack, "application.created", "approved", nil},
		{partnerstack, "agreement.accepted", "tags", nil},
		{everflow, "partner.created", "adress_id", "83932"},
		{everflow, "partner.signed_up", "account_executive_id", nil},
		{everflow, "partner.signed_up", "referrer_id", nil},
		{everflow, "partner.signed_up", "network_employee_id", "266"},
		{everflow, "partner.signed_up", "relationship.sign_up.time_created", time.Date(2022, 6, 9, 20, 41, 15, 0, time.UTC)},
		{everflow, "partner.signed_up", "relationship.billing.auto_invoice_start_date", time.Date(2022, 6, 9, 20, 41, 15, 0, time.UTC)},
	}
	for _, tt := range tests {
		e := tt.source.Open(tt.event, tt.source.Events[tt.event].Sample)
		var at any = e.Body
		for _, name := range strings.Split(tt.path, ".") {
			m, ok := at.(map[string]any)
			if !ok {
				t.Fatalf("%s: no object above %s", tt.event, tt.path)
			}
			if at, ok = m[name]; !ok {
				t.Errorf("%s: %s is not there", tt.event, tt.path)
			}
		}
		if diff := cmp.Diff(tt.want, at); diff != "" {
			t.Errorf("%s: %s (-want +got)\n%s", tt.event, tt.path, diff)
		}
	}
}

func TestSpellings(t *testing.T) {
	t.Parallel()
	s := preset(t, "everflow")
	e := s.Open("", []byte(`{"network_affiliate_id": 1, "address_id": 5, "account_status": "pending", "time_created": 1654807370,
		"time_saved": 1654807370, "relationship": {"signup": {"email": "a@b.example"}}}`))
	signUp, _ := e.Body["relationship"].(map[string]any)["sign_up"].(map[string]any)
	if e.Type != "partner.signed_up" || e.Body["adress_id"] != "5" || signUp["email"] != "a@b.example" || e.Drift != nil {
		t.Errorf("type %q, body %v, drift %v", e.Type, e.Body, e.Drift)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	s := load(t, "everflow", "{preset: everflow, verify: none, allow: relationship.billing.tax_id}")
	private := []string{"Internal Notes", "TAX_ID_123", "VAT Number", "203.0.113.25", "Mozilla", "paypal_reception_method", "recipient_name", "reception_identifier"}
	for _, name := range []string{"partner.created", "partner.signed_up", "partner.updated"} {
		raw := s.Events[name].Sample
		// An unknown event has no schema, but names give the same things away.
		for _, typ := range []string{name, "offer.created"} {
			e := s.Open(typ, raw)
			var b strings.Builder
			encoder := json.NewEncoder(&b)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(s.Redact(typ, e.Body)); err != nil {
				t.Fatal(err)
			}
			shown := b.String()
			if !strings.Contains(shown, sources.Hidden) || !strings.Contains(shown, "Montreal") {
				t.Errorf("%s as %s is shown as %s", name, typ, shown)
			}
			for _, text := range private {
				if strings.Contains(shown, text) {
					t.Errorf("%s as %s shows %q", name, typ, text)
				}
			}
			if again := s.Open(typ, raw); !cmp.Equal(e.Body, again.Body) {
				t.Error("Redact changed the body itself")
			}
		}
	}
}
