package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"partnersync/internal/diag"
)

// service is one of compose.yaml, with the keys that are used here; another is a mistake.
type service struct {
	Build       string            `yaml:"build"`
	Image       string            `yaml:"image,required"`
	Restart     string            `yaml:"restart"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	SecurityOpt []string          `yaml:"security_opt"`
	StopGrace   time.Duration     `yaml:"stop_grace_period"`
	ShmSize     string            `yaml:"shm_size"`
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	DependsOn   diag.Node         `yaml:"depends_on"`
	Logging     diag.Node         `yaml:"logging"`
	Command     []string          `yaml:"command"`
	Ports       []string          `yaml:"ports"`
	Secrets     []string          `yaml:"secrets"`
	Healthcheck diag.Node         `yaml:"healthcheck"`
}

type composition struct {
	Common   diag.Node            `yaml:"x-partnersync"`
	Services map[string]service   `yaml:"services,required"`
	Secrets  map[string]diag.Node `yaml:"secrets"`
	Volumes  map[string]diag.Node `yaml:"volumes"`
}

// compose reads compose.yaml, strictly.
func compose(t *testing.T) *composition {
	t.Helper()
	file := filepath.Join("..", "compose.yaml")
	resolved, err := json.Marshal(plain(t, file)) // JSON is YAML too
	if err != nil {
		t.Fatal(err)
	}
	root, problems := diag.Parse(file, resolved)
	d, c := &diag.Decoding{}, &composition{}
	d.Decode(root, c)
	if problems = append(problems, d.Problems...); problems.Failed() {
		t.Fatal(problems)
	}
	return c
}

// valueOf is what ${NAME:-default} and ${NAME:?message} come to where nothing is missing.
func valueOf(text string) string {
	text = regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`).ReplaceAllString(text, "$1")
	return regexp.MustCompile(`\$\{[A-Z_]+:\?[^}]*\}`).ReplaceAllString(text, "something-of-some-length")
}

func TestCompose(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, spare := range map[string]string{"receiver": "sinks", "worker": "sources"} {
		s := c.Services[name]
		if _, has := s.Environment["HUBSPOT_TOKEN"]; has != (name == "worker") {
			t.Errorf("%s: has it the CRM's token? %v", name, has)
		}
		env := map[string]string{}
		for key, value := range s.Environment {
			env[key] = valueOf(value)
		}
		cfg := example(t, env, spare)
		if s.StopGrace < cfg.Jobs.Grace+10*time.Second {
			t.Errorf("%s: %s to stop, and a drain may take %s", name, s.StopGrace, cfg.Jobs.Grace+10*time.Second)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("%s may do more than it needs", name)
		}
	}
	for name, s := range c.Services {
		if image, tag, _ := strings.Cut(s.Image, ":"); s.Build == "" && !regexp.MustCompile(`^v?\d+\.\d+(\.\d+)?$`).MatchString(tag) {
			t.Errorf("%s: which version of %s?", name, image)
		}
		for _, secret := range s.Secrets {
			if _, ok := c.Secrets[secret]; !ok {
				t.Errorf("%s: there is no secret %s", name, secret)
			}
		}
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(valueOf(volume), ":")
			if !strings.HasPrefix(from, ".") {
				if _, ok := c.Volumes[from]; !ok {
					t.Errorf("%s: there is no volume %s", name, from)
				}
			} else if _, err := os.Stat(filepath.Join("..", from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s is open to everybody: %s", name, port)
			}
		}
	}
}

// Prometheus scrapes the services of compose.yaml under one job, and reads the rules
// and the token where compose puts them.
func TestPrometheusConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join("prometheus", "prometheus.yml")
	c, p := compose(t), plain(t, file).(map[string]any)
	scrape := p["scrape_configs"].([]any)
	if len(scrape) != 1 || scrape[0].(map[string]any)["job_name"] != "partnersync" {
		t.Errorf("scrape configs %v", scrape)
	}
	for _, static := range scrape[0].(map[string]any)["static_configs"].([]any) {
		for _, target := range static.(map[string]any)["targets"].([]any) {
			host, port, _ := strings.Cut(target.(string), ":")
			if s, ok := c.Services[host]; !ok || s.Environment["ADMIN_LISTEN"] != ":"+port {
				t.Errorf("nobody listens on %s", target)
			}
		}
	}
	mounts := strings.Join(c.Services["prometheus"].Volumes, "\n")
	for _, path := range []string{"/etc/prometheus/prometheus.yml", "/etc/prometheus/alerts.yaml"} {
		if !strings.Contains(mounts, path) {
			t.Errorf("nothing is mounted at %s", path)
		}
	}
	if rules := p["rule_files"].([]any); len(rules) != 1 || rules[0] != "/etc/prometheus/alerts.yaml" {
		t.Errorf("rule files %v", rules)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if promtool, err = filepath.Abs(filepath.Join("..", "bin", "promtool")); err == nil {
			_, err = os.Stat(promtool)
		}
	}
	if err != nil {
		t.Skip("NOT TESTED further: promtool is not installed; scripts/install-prometheus.sh gets it")
	}
	if out, err := exec.Command(promtool, "check", "config", "--syntax-only", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// Grafana finds the data source and the dashboards where compose puts them.
func TestGrafanaProvisioning(t *testing.T) {
	t.Parallel()
	g := compose(t).Services["grafana"]
	sources := plain(t, filepath.Join("..", "grafana", "provisioning", "datasources", "prometheus.yaml")).(map[string]any)
	source := sources["datasources"].([]any)[0].(map[string]any)
	if source["type"] != "prometheus" || source["url"] != "${PROMETHEUS_URL}" || g.Environment["PROMETHEUS_URL"] == "" {
		t.Errorf("the data source %v", source)
	}
	boards := plain(t, filepath.Join("..", "grafana", "provisioning", "dashboards", "partnersync.yaml")).(map[string]any)
	path := boards["providers"].([]any)[0].(map[string]any)["options"].(map[string]any)["path"].(string)
	if !slices.Contains(g.Volumes, "./grafana/dashboards:"+path+":ro") || !slices.Contains(g.Volumes, "./grafana/provisioning:/etc/grafana/provisioning:ro") {
		t.Errorf("Grafana mounts %v", g.Volumes)
	}
	home := g.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if _, err := os.Stat(filepath.Join("..", "grafana", "dashboards", strings.TrimPrefix(home, path+"/"))); err != nil || !strings.HasPrefix(home, path+"/") {
		t.Errorf("the first dashboard %s: %v", home, err)
	}
}

// The image is made of what is there, and runs as nobody.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("..", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split(string(data), "\nFROM ")[1:]
	if len(stages) != 2 || !strings.HasPrefix(stages[0], "golang:") || !strings.HasPrefix(stages[1], "scratch\n") {
		t.Fatalf("%d stages", len(stages))
	}
	module, err := os.ReadFile(filepath.Join("..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	tag := regexp.MustCompile(`^golang:(\d+\.\d+) `).FindStringSubmatch(stages[0])
	if want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(module)); tag == nil || tag[1] != want[1] {
		t.Errorf("the image is built by Go %v, go.mod wants %s", tag, want[1])
	}
	user := regexp.MustCompile(`(?m)^USER (\d+):`).FindStringSubmatch(stages[1])
	if user == nil || user[1] == "0" {
		t.Errorf("it runs as %v", user)
	}
	d := strings.Join(strings.Fields(stages[1]), " ")
	if !strings.Contains(d, `ENTRYPOINT ["/usr/local/bin/partnersync"] CMD ["run"]`) || !strings.Contains(d, "COPY --from=build /out/partnersync /usr/local/bin/partnersync") {
		t.Errorf("what does it run?\n%s", stages[1])
	}
	ignored, err := os.ReadFile(filepath.Join("..", ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{".git", "config.yaml", ".partnersync", "**/*.env", ".env"} {
		if !slices.Contains(strings.Fields(string(ignored)), secret) {
			t.Errorf("%s gets into the build", secret)
		}
	}
}

// The unit is one that systemd takes, and leaves the time that a drain takes.
func TestUnit(t *testing.T) {
	t.Parallel()
	file := filepath.Join("systemd", "partnersync.service")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	get := func(key string) string {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(string(data))
		if m == nil {
			t.Fatalf("the unit has no %s", key)
		}
		return m[1]
	}
	grace := example(t, map[string]string{
		"ADMIN_LISTEN": ":8081", "ADMIN_TOKEN": "something-of-some-length", "DATABASE_URL": "postgres://x", "PARTNERSTACK_HOOK_TOKEN": "something-of-some-length", "EVERFLOW_HOOK_TOKEN": "something-of-some-length", "HUBSPOT_TOKEN": "x",
	}, "").Jobs.Grace
	if stop, err := time.ParseDuration(get("TimeoutStopSec")); err != nil || stop < grace+10*time.Second {
		t.Errorf("TimeoutStopSec=%s, and a drain may take %s", stop, grace+10*time.Second)
	}
	if get("User") == "root" || get("NoNewPrivileges") != "true" || get("RestartPreventExitStatus") != "2" {
		t.Error("it may do more than it needs, or restarts what cannot start")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT TESTED further: systemd is not installed")
	}
	// The programs need not be there: another one stands for them.
	path := filepath.Join(t.TempDir(), "partnersync.service")
	stand := strings.ReplaceAll(string(data), "/usr/local/bin/partnersync", "/bin/true")
	if err := os.WriteFile(path, []byte(stand), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", path).CombinedOutput(); err != nil || strings.Contains(string(out), "partnersync.service:") {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}
