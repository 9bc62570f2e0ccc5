package sinks

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
)

// presetConfigs hold what a config has to add to each preset.
var presetConfigs = map[string]string{
	"attio":      "preset: attio\nauth: {token: \"${TOKEN}\"}\n",
	"dataverse":  "preset: dataverse\nbase_url: https://acme.crm.dynamics.com\nauth: {tenant: acme, client_id: id, client_secret: \"${SECRET}\"}\n",
	"hubspot":    "preset: hubspot\nauth: {token: \"${TOKEN}\"}\n",
	"pipedrive":  "preset: pipedrive\nauth: {token: \"${TOKEN}\"}\n",
	"salesforce": "preset: salesforce\nbase_url: https://acme.my.salesforce.com\nauth: {client_id: id, client_secret: \"${SECRET}\"}\n",
	"webhook":    "preset: webhook\nurl: https://example.com/events\n",
	"zoho":       "preset: zoho\nauth: {client_id: id, client_secret: \"${SECRET}\", refresh_token: \"${REFRESH}\"}\n",
}

func TestPresetsCompile(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]string{"attio", "dataverse", "hubspot", "pipedrive", "salesforce", "webhook", "zoho"}, Presets()); diff != "" {
		t.Error(diff)
	}
	for _, name := range Presets() {
		desc := loadYAML(t, presetConfigs[name])
		if !desc.Supports(Upsert) || !desc.Supports(Create) {
			t.Errorf("%s lacks an operation to write with", name)
		}
	}
	if _, ok := Preset("nosuch"); ok {
		t.Error("there is a preset that is none")
	}
}

// Invariant 10: every status has a decision in every preset, by a rule of its own.
func TestEveryStatusHasADecision(t *testing.T) {
	t.Parallel()
	for _, name := range Presets() {
		desc := loadYAML(t, presetConfigs[name])
		for op := range desc.operations {
			for status := 100; status <= 599; status++ {
				a := &answer{status: status, header: http.Header{}, json: true}
				v := desc.judge(op, a, time.Now())
				if v.rule == nil {
					t.Fatalf("%s: no rule for %s with status %d", name, op, status)
				}
				if (v.class == OK) != (status >= 200 && status < 300) {
					t.Errorf("%s: %s with status %d is %s", name, op, status, v.class)
				}
			}
		}
	}
}

func TestStatusClasses(t *testing.T) {
	t.Parallel()
	tests := map[string]map[int]Class{
		"hubspot": {
			200: OK, 207: OK, 301: Unavailable, 400: Split, 401: Held, 403: Rejected, 404: Rejected, 408: Unavailable,
			409: Conflict, 413: Split, 414: Rejected, 423: Unavailable, 429: Throttled, 477: Parked, 500: Unavailable,
			502: Unavailable, 503: Unavailable, 504: Unavailable, 521: Unavailable, 524: Unavailable,
		},
		"webhook": {
			200: OK, 204: OK, 307: Unavailable, 400: Split, 401: Held, 403: Held, 404: Unavailable, 409: Rejected,
			410: Unavailable, 413: Split, 422: Split, 425: Unavailable, 429: Throttled, 500: Unavailable, 599: Unavailable,
		},
	}
	for name, want := range tests {
		desc := loadYAML(t, presetConfigs[name])
		for status, class := range want {
			a := &answer{status: status, header: http.Header{}, json: true}
			if v := desc.judge(Upsert, a, time.Now()); v.class != class {
				t.Errorf("%s: status %d is %s, want %s", name, status, v.class, class)
			}
		}
	}
}

// The engine knows no CRM by name.
func TestNoNamesInCode(t *testing.T) {
	t.Parallel()
	names := regexp.MustCompile(`(?i)hubspot|salesforce|pipedrive|attio|zoho|dataverse|dynamics`)
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := names.Find(data); found != nil {
			t.Errorf("%s names %s", file, found)
		}
	}
}

// What is printed reads back as the same description.
func TestYAMLReadsBack(t *testing.T) {
	t.Parallel()
	for _, name := range Presets() {
		data, _ := Preset(name)
		want, _ := diag.Parse(name, data)
		desc := &Description{whole: want}
		got, problems := diag.Parse("printed", desc.YAML())
		if len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, desc.YAML())
		}
		if diff := cmp.Diff(want.Plain(), got.Plain()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestYAMLHidesSecrets(t *testing.T) {
	t.Parallel()
	desc := loadYAML(t, `
preset: webhook
url: ${HOOK_URL_HTTPS}
auth: {type: bearer, token: plainly-written}
headers: {X-Api-Key: "${KEY}", X-Plain: visible}
sign: {secret: whsec_c2VjcmV0LXNpZ25pbmcta2V5}
`[1:])
	out := string(desc.YAML())
	for _, hidden := range []string{"plainly-written", "secret-of", "whsec", "c2Vj"} {
		if strings.Contains(out, hidden) {
			t.Errorf("the description shows %q:\n%s", hidden, out)
		}
	}
	for _, shown := range []string{"url: <secret>", "token: <secret>", "X-Api-Key: <secret>", "X-Plain: visible", "secret: <secret>"} {
		if !strings.Contains(out, shown) {
			t.Errorf("the description lacks %q:\n%s", shown, out)
		}
	}
}

// Each file of testdata/bad has one mistake; the file beside it is what check says.
func TestBadDescriptions(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, problems := tryYAML(string(data))
			if len(problems) == 0 {
				t.Fatal("nothing is wrong with it")
			}
			problems.Sort()
			var out bytes.Buffer
			diag.Print(&out, problems, func(name string) []byte {
				if name == "config.yaml" {
					return data
				}
				text, _ := Preset(strings.TrimSuffix(strings.TrimPrefix(name, "presets/"), ".yaml"))
				return text
			})
			if strings.Contains(out.String(), "secret-of") {
				t.Errorf("a problem shows a secret:\n%s", &out)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSupports(t *testing.T) {
	t.Parallel()
	hubspot, webhook := loadYAML(t, presetConfigs["hubspot"]), loadYAML(t, presetConfigs["webhook"])
	got := fmt.Sprintln(
		hubspot.Supports(Link), hubspot.Supports(Unlink), hubspot.Supports(Archive), hubspot.Clears(), hubspot.Labels(),
		hubspot.LinksOnCreate(), "|", webhook.Supports(Link), webhook.Supports(Archive), webhook.Clears(), webhook.LinksOnCreate(),
	)
	if want := "true true true true true true | false false true false\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Operations that cannot be read pass for there: that they are missing as well
// would be one problem too many.
func TestSupportsWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	desc, problems := tryYAML("preset: webhook\nurl: https://crm.example\noperations: [upsert]\n")
	if len(problems) != 1 || !desc.Supports(Upsert) {
		t.Errorf("%v, %v", problems, desc.Supports(Upsert))
	}
}

func FuzzLoad(f *testing.F) {
	for _, name := range Presets() {
		data, _ := Preset(name)
		f.Add(data)
		f.Add([]byte(presetConfigs[name]))
	}
	f.Add([]byte("operations: {upsert: {path: '/{', body: {$each: records}, rows: 3}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		desc, problems := tryYAML(string(data))
		if desc == nil || problems.Failed() {
			return
		}
		s := New(desc, Options{})
		defer s.Close()
		row := contact("1")
		op, _ := s.Group(row)
		_, _ = s.Preview(op, []Row{row, row})
		_ = desc.YAML()
	})
}
