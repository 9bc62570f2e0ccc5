// Package deploy holds what partnersync is run with: manifests of Kubernetes, a unit of systemd, a config of Prometheus. The
// tests read them as those who run them do, as far as that goes without a cluster or a network.
package deploy

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"

	"partnersync/internal/config"
	"partnersync/internal/diag"
)

var update = flag.Bool("update", false, "write the files that are made from others")

const manifests = "kubernetes"

// plain reads YAML, with its merge keys resolved.
func plain(t *testing.T, file string) any {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	root, problems := diag.Parse(file, data)
	if problems.Failed() {
		t.Fatal(problems)
	}
	return merged(root.Plain())
}

func merged(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		if under, ok := merged(v["<<"]).(map[string]any); ok {
			maps.Copy(out, under)
		}
		for key, value := range v {
			if key != "<<" {
				out[key] = merged(value)
			}
		}
		return out
	case []any:
		for i := range v {
			v[i] = merged(v[i])
		}
	}
	return v
}

// strict decodes a file and refuses every key that the type does not have.
func strict[T any](t *testing.T, file string) *T {
	t.Helper()
	data, err := json.Marshal(plain(t, file))
	if err != nil {
		t.Fatal(err)
	}
	into := new(T)
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		t.Errorf("%s: %v", file, err)
	}
	return into
}

// The kinds of the Prometheus operator, as far as they are used here: its own types
// would be fifty modules more.
type (
	meta struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	}
	serviceMonitor struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   meta   `json:"metadata"`
		Spec       struct {
			JobLabel string `json:"jobLabel"`
			Selector struct {
				MatchLabels map[string]string `json:"matchLabels"`
			} `json:"selector"`
			PodTargetLabels []string `json:"podTargetLabels"`
			Endpoints       []struct {
				Port          string `json:"port"`
				Path          string `json:"path"`
				Interval      string `json:"interval"`
				ScrapeTimeout string `json:"scrapeTimeout"`
				Authorization struct {
					Type        string                   `json:"type"`
					Credentials corev1.SecretKeySelector `json:"credentials"`
				} `json:"authorization"`
			} `json:"endpoints"`
		} `json:"spec"`
	}
	prometheusRule struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   meta   `json:"metadata"`
		Spec       any    `json:"spec"`
	}
	kustomization struct {
		APIVersion     string   `json:"apiVersion"`
		Kind           string   `json:"kind"`
		Namespace      string   `json:"namespace"`
		Resources      []string `json:"resources"`
		Configurations []string `json:"configurations"`
		ConfigMaps     []struct {
			Name  string   `json:"name"`
			Files []string `json:"files"`
		} `json:"configMapGenerator"`
		Secrets []struct {
			Name string   `json:"name"`
			Envs []string `json:"envs"`
		} `json:"secretGenerator"`
		Images []struct {
			Name    string `json:"name"`
			NewName string `json:"newName"`
			NewTag  string `json:"newTag"`
		} `json:"images"`
	}
)

// example is the example config with the variables that the environments set; what
// is not set is reported.
func example(t *testing.T, env map[string]string, spare string) *config.Config {
	t.Helper()
	cfg, problems := config.Load(filepath.Join("..", "config.example.yaml"), config.Options{Spare: spare, Getenv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}})
	if len(problems) > 0 {
		t.Errorf("the example config does not run there: %v", problems)
	}
	if cfg == nil {
		t.FailNow()
	}
	if cfg.Admin.Listen != ":8081" || cfg.Admin.Token.Empty() || cfg.Receiver.Listen != ":8080" || cfg.Database.URL.Empty() {
		t.Errorf("the example config listens on %s and %s there", cfg.Receiver.Listen, cfg.Admin.Listen)
	}
	return cfg
}

// variables are those of one of the examples of secrets.
func variables(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(manifests, name+".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if variable, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			names = append(names, variable)
		}
	}
	return names
}

func TestEveryManifestIsListed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(manifests, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, f := range files {
		if name := filepath.Base(f); name != "kustomization.yaml" && name != "kustomizeconfig.yaml" {
			have = append(have, name)
		}
	}
	k := strict[kustomization](t, filepath.Join(manifests, "kustomization.yaml"))
	slices.Sort(k.Resources)
	if diff := cmp.Diff(k.Resources, have); diff != "" {
		t.Errorf("(-listed +files):\n%s", diff)
	}
}

// Deployments are what they should be: they run the example config as nobody, can
// be looked at, and have the time that a drain takes.
func TestDeployments(t *testing.T) {
	t.Parallel()
	var selected []map[string]string
	for _, only := range []struct {
		name, part, spare string
		secrets           []string
	}{
		{"receiver", "receive", "sinks", []string{"secrets", "hooks"}},
		{"worker", "work", "sources", []string{"secrets", "crms"}},
	} {
		d := strict[appsv1.Deployment](t, filepath.Join(manifests, only.name+"-deployment.yaml"))
		pod := d.Spec.Template
		if d.APIVersion != "apps/v1" || d.Kind != "Deployment" || !maps.Equal(d.Spec.Selector.MatchLabels, pod.Labels) {
			t.Errorf("%s: its selector does not select its pods", d.Name)
		}
		selected = append(selected, pod.Labels)
		c := pod.Spec.Containers[0]
		if diff := cmp.Diff([]string{"run", "--only", only.part}, c.Args); diff != "" {
			t.Errorf("%s: args %s", d.Name, diff)
		}
		env := map[string]string{}
		for i, from := range c.EnvFrom {
			if from.SecretRef == nil || i >= len(only.secrets) || from.SecretRef.Name != "partnersync-"+only.secrets[i] {
				t.Errorf("%s: its environment comes from %+v", d.Name, from)
				continue
			}
			for _, name := range variables(t, only.secrets[i]) {
				env[name] = "something-of-some-length"
			}
		}
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		// Nothing that the other half needs alone.
		for name := range env {
			if strings.HasSuffix(name, "_HOOK_TOKEN") != (only.part == "receive") && (strings.HasSuffix(name, "_HOOK_TOKEN") || name == "HUBSPOT_TOKEN") {
				t.Errorf("%s has %s", d.Name, name)
			}
		}
		grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
		drain := example(t, env, only.spare).Jobs.Grace + 10*time.Second
		if c.Lifecycle != nil {
			drain += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
		}
		if grace < drain {
			t.Errorf("%s: a grace of %s, and a drain may take %s", d.Name, grace, drain)
		}
		s := c.SecurityContext
		if !*pod.Spec.SecurityContext.RunAsNonRoot || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Capabilities.Drop[0] != "ALL" {
			t.Errorf("%s may do more than it needs", d.Name)
		}
		ports := map[string]int32{}
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
		}
		if want := map[string]map[string]int32{"receiver": {"hooks": 8080, "admin": 8081}, "worker": {"admin": 8081}}[only.name]; !maps.Equal(ports, want) {
			t.Errorf("%s: ports %v, want %v", d.Name, ports, want)
		}
		for path, probe := range map[string]*corev1.Probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "admin" {
				t.Errorf("%s: no probe of %s", d.Name, path)
			}
		}
		if c.StartupProbe == nil {
			t.Errorf("%s: a long migration would be killed", d.Name)
		}
		if limit := c.Resources.Limits.Memory().Value(); limit == 0 || !strings.HasSuffix(env["GOMEMLIMIT"], "MiB") {
			t.Errorf("%s: no limit of memory", d.Name)
		} else if n, err := strconv.ParseInt(strings.TrimSuffix(env["GOMEMLIMIT"], "MiB"), 10, 64); err != nil || n<<20 >= limit || n<<20 < limit*8/10 {
			t.Errorf("%s: GOMEMLIMIT %s of %d bytes", d.Name, env["GOMEMLIMIT"], limit)
		}
		b := strict[policyv1.PodDisruptionBudget](t, filepath.Join(manifests, only.name+"-pdb.yaml"))
		if b.APIVersion != "policy/v1" || !maps.Equal(b.Spec.Selector.MatchLabels, pod.Labels) {
			t.Errorf("%s: the budget is of other pods", b.Name)
		}
	}
	within := func(selector map[string]string) bool {
		return len(selector) > 0 && slices.ContainsFunc(selected, func(labels map[string]string) bool {
			for name, value := range selector {
				if labels[name] != value {
					return false
				}
			}
			return true
		})
	}
	for _, name := range []string{"receiver-service", "metrics-service"} {
		if s := strict[corev1.Service](t, filepath.Join(manifests, name+".yaml")); !within(s.Spec.Selector) {
			t.Errorf("%s selects nothing", s.Name)
		}
	}
	n := strict[networkingv1.NetworkPolicy](t, filepath.Join(manifests, "networkpolicy.yaml"))
	if !within(n.Spec.PodSelector.MatchLabels) || len(n.Spec.PolicyTypes) != 2 || len(n.Spec.Ingress) != 2 || len(n.Spec.Egress) < 3 {
		t.Errorf("the network policy: %+v", n.Spec)
	}
}

// Prometheus finds the service, its port and the token.
func TestServiceMonitor(t *testing.T) {
	t.Parallel()
	m := strict[serviceMonitor](t, filepath.Join(manifests, "servicemonitor.yaml"))
	s := strict[corev1.Service](t, filepath.Join(manifests, "metrics-service.yaml"))
	for name, value := range m.Spec.Selector.MatchLabels {
		if s.Labels[name] != value {
			t.Errorf("the service has not the label %s: %s", name, value)
		}
	}
	e := m.Spec.Endpoints[0]
	if s.Labels[m.Spec.JobLabel] != "partnersync" || e.Port != s.Spec.Ports[0].Name || e.Path != "/metrics" {
		t.Errorf("%+v", m.Spec)
	}
	k := strict[kustomization](t, filepath.Join(manifests, "kustomization.yaml"))
	if c := e.Authorization.Credentials; c.Name != k.Secrets[0].Name || !slices.Contains(variables(t, "secrets"), c.Key) {
		t.Errorf("the token is not in the secret: %+v", c)
	}
}

// The rules of Kubernetes are those of grafana/alerts.yaml.
func TestPrometheusRule(t *testing.T) {
	t.Parallel()
	alerts := filepath.Join("..", "grafana", "alerts.yaml")
	data, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	_, groups, ok := strings.Cut(string(data), "\ngroups:\n")
	if !ok {
		t.Fatal("alerts.yaml has no groups")
	}
	var want bytes.Buffer
	want.WriteString("# Made from grafana/alerts.yaml: go test ./deploy -update\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n" +
		"  name: partnersync\n  labels: {app.kubernetes.io/name: partnersync}\nspec:\n  groups:\n")
	for line := range strings.Lines(groups) {
		if line != "\n" {
			line = "  " + line
		}
		want.WriteString(line)
	}
	file := filepath.Join(manifests, "prometheusrule.yaml")
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(have)); diff != "" {
		t.Errorf("out of date; go test ./deploy -update writes it (-want +have):\n%s", diff)
	}
	if diff := cmp.Diff(plain(t, alerts), strict[prometheusRule](t, file).Spec); diff != "" {
		t.Errorf("the rules differ:\n%s", diff)
	}
}

// kustomize, where kubectl is there, puts it all together without a network.
func TestKustomize(t *testing.T) {
	t.Parallel()
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("NOT TESTED: kubectl is not installed")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{filepath.Join("..", "config.example.yaml"): "config.yaml"}
	for _, name := range []string{"secrets", "hooks", "crms"} {
		files[filepath.Join(manifests, name+".env.example")] = name + ".env"
	}
	for from, to := range files {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(kubectl, "kustomize", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Both deployments and the monitor name the secret as it is called in the end.
	if names := regexp.MustCompile(`name: partnersync-secrets-[a-z0-9]+`).FindAllString(string(out), -1); len(names) != 4 || len(slices.Compact(names)) != 1 {
		t.Errorf("the secret is named %v", names)
	}
	if bytes.Contains(out, []byte("name: partnersync-secrets\n")) || bytes.Contains(out, []byte("name: partnersync-config\n")) {
		t.Error("a generated name is not filled in")
	}
}
