package grafana

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"partnersync/internal/diag"
)

// envRequire makes a missing Prometheus a failure instead of a skipped test.
const envRequire = "PARTNERSYNC_REQUIRE_PROMETHEUS"

// tool finds a program of Prometheus, or skips the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path, err := filepath.Abs(filepath.Join("..", "bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	switch {
	case err == nil:
		return path
	case os.Getenv(envRequire) != "":
		t.Fatalf("%s is not there: scripts/install-prometheus.sh", name)
	default:
		t.Skipf("NOT TESTED: %s is not installed; scripts/install-prometheus.sh (make test calls it) gets it on Debian and Ubuntu", name)
	}
	return ""
}

// promtool runs it in this folder and fails the test with what it says.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(tool(t, "promtool"), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// filled is a query with values in the place of Grafana's variables.
func filled(expr, rate, span string) string {
	return strings.NewReplacer("$__rate_interval", rate, "$__range", span,
		"$job", ".*", "$instance", ".*", "$sink", ".*", "$source", ".*").Replace(expr)
}

// asked is a query of a dashboard and where it stands.
type asked struct{ where, expr string }

// queries are all queries of all dashboards, those of annotations too.
func queries() []asked {
	var out []asked
	for _, d := range Dashboards() {
		for _, a := range d.Annotations.List {
			out = append(out, asked{d.Title + ": annotation " + a.Name, a.Expr})
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				out = append(out, asked{fmt.Sprintf("%s: %s %s", d.Title, p.Title, target.RefID), target.Expr})
			}
		}
	}
	return out
}

// ruleFile is what Prometheus reads; JSON is YAML too.
type ruleFile struct {
	Groups []ruleGroup `json:"groups"`
}

type ruleGroup struct {
	Name  string `json:"name"`
	Rules []any  `json:"rules"`
}

// Prometheus's own parser reads every query: each is made a recording rule, which
// promtool checks.
func TestQueriesAreParsed(t *testing.T) {
	t.Parallel()
	group := ruleGroup{Name: "panels"}
	for _, one := range queries() {
		group.Rules = append(group.Rules, map[string]any{
			"record": "panel", "expr": filled(one.expr, "5m", "6h"), "labels": map[string]string{"panel": one.where},
		})
	}
	data, err := json.Marshal(ruleFile{[]ruleGroup{group}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
	if strings.Contains(string(data), "$") {
		t.Error("a variable is left in a query")
	}
}

// ruleTests are the files of promtool's tests.
var ruleTests = []string{"alerts_test.yaml", "alerts_days_test.yaml"}

func TestAlertRules(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "alerts.yaml")
	promtool(t, append([]string{"test", "rules"}, ruleTests...)...)
}

// rule is an alert of alerts.yaml, or what it records.
type rule struct {
	Record      string            `yaml:"record"`
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr,required"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	root, problems := diag.Parse(file, data)
	d := &diag.Decoding{}
	d.Decode(root, into)
	if problems = append(problems, d.Problems...); problems.Failed() {
		t.Fatal(problems)
	}
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name,required"`
			Rules []rule `yaml:"rules,required"`
		} `yaml:"groups,required"`
	}
	decode(t, "alerts.yaml", &file)
	var out []rule
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

var runbookParts = []string{"**What it means.**", "**How to see it.**", "**What to do.**", "**How to check that it is over.**"}

// Each alert says how bad it is, leads to a dashboard and to its section of the runbooks.
func TestAlertsAreComplete(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, section := range strings.Split(string(data), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		sections[strings.ToLower(title)] = text
	}
	uid := regexp.MustCompile(`^\{\{ \$externalLabels\.grafana \}\}/d/([a-z-]+)`)
	n := 0
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		n++
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		for _, name := range []string{"summary", "description", "dashboard", "runbook"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s has no %s", r.Alert, name)
			}
		}
		m := uid.FindStringSubmatch(r.Annotations["dashboard"])
		if m == nil || !slices.ContainsFunc(pages, func(p struct{ uid, title, description string }) bool { return p.uid == m[1] }) {
			t.Errorf("%s: its dashboard is %q", r.Alert, r.Annotations["dashboard"])
		}
		anchor, ok := strings.CutPrefix(r.Annotations["runbook"], "grafana/runbooks.md#")
		text, there := sections[anchor]
		if !ok || anchor != strings.ToLower(r.Alert) || !there {
			t.Errorf("%s: its runbook is %q, which is no section of runbooks.md", r.Alert, r.Annotations["runbook"])
			continue
		}
		delete(sections, anchor)
		for _, part := range runbookParts {
			if !strings.Contains(text, part) {
				t.Errorf("the runbook of %s lacks %q", r.Alert, part)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d alerts", n)
	}
	for title, text := range sections {
		if strings.Contains(text, runbookParts[0]) {
			t.Errorf("the section %q of the runbooks belongs to no alert", title)
		}
	}
}

// Commands that people are told to type at night exist.
func TestRunbooksNameRealCommands(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join("..", "cmd", "partnersync", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\t([A-Z]\\w+) +\\w+Cmd +`cmd:").FindAllStringSubmatch(string(source), -1) {
		commands[strings.ToLower(m[1])] = true
	}
	if len(commands) < 10 {
		t.Fatalf("commands %v", commands)
	}
	for _, file := range []string{"runbooks.md", filepath.Join("..", "docs", "operations.md")} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)(?:`|^)partnersync ([a-z]+)").FindAllStringSubmatch(string(text), -1) {
			if !commands[m[1]] {
				t.Errorf("%s: there is no command %q", file, m[0])
			}
		}
	}
}

// promtool tells whether the cases hold; this tells whether there are any.
func TestEveryAlertIsTestedBothWays(t *testing.T) {
	t.Parallel()
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, name := range ruleTests {
		var file struct {
			Files []string    `yaml:"rule_files"`
			Every string      `yaml:"evaluation_interval"`
			Tests []diag.Node `yaml:"tests,required"`
		}
		decode(t, name, &file)
		for _, test := range file.Tests {
			for _, c := range test.Get("alert_rule_test").Items() {
				name := c.Get("alertname").Text()
				if len(c.Get("exp_alerts").Items()) > 0 {
					fires[name] = true
				} else {
					rests[name] = true
				}
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert != "" && (!fires[r.Alert] || !rests[r.Alert]) {
			t.Errorf("%s: tested firing: %t, not firing: %t", r.Alert, fires[r.Alert], rests[r.Alert])
		}
	}
}
