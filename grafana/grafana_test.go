package grafana

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the files below dashboards/")

// file is where a dashboard is kept.
func (d *Dashboard) file() string {
	return filepath.Join("dashboards", strings.TrimPrefix(d.UID, "partnersync-")+".json")
}

func encode(t *testing.T, d *Dashboard) []byte {
	t.Helper()
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	want := []string{}
	for _, d := range Dashboards() {
		want = append(want, d.file())
		if *update {
			if err := os.WriteFile(d.file(), encode(t, &d), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(d.file())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(have), string(encode(t, &d))); diff != "" {
			t.Errorf("%s is out of date; go test ./grafana -update writes it (-file +code):\n%s", d.file(), diff)
		}
	}
	have, err := filepath.Glob("dashboards/*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("files (-want +have):\n%s", diff)
	}
}

var (
	window      = regexp.MustCompile(`\[[^\]]*\]`)
	placeholder = regexp.MustCompile(`\{(self|sink|source)[,}]|\[(rate|range)\]`)
)

// What every panel owes to who looks at it.
func TestPanels(t *testing.T) {
	t.Parallel()
	for _, d := range Dashboards() {
		ids, titles := map[int]bool{}, map[string]bool{}
		var taken []GridPos
		for _, p := range d.Panels {
			name := d.Title + ": " + p.Title
			if p.ID == 0 || ids[p.ID] || p.Title == "" || titles[p.Title] {
				t.Errorf("%s: no id or title of its own", name)
			}
			ids[p.ID], titles[p.Title] = true, true
			for _, g := range taken {
				if g.X < p.GridPos.X+p.GridPos.W && p.GridPos.X < g.X+g.W && g.Y < p.GridPos.Y+p.GridPos.H && p.GridPos.Y < g.Y+g.H {
					t.Errorf("%s lies on another panel", name)
				}
			}
			taken = append(taken, p.GridPos)
			if p.GridPos.X+p.GridPos.W > width {
				t.Errorf("%s is wider than the page", name)
			}
			if p.Type == "row" {
				continue
			}
			if !strings.HasSuffix(p.Description, ".") {
				t.Errorf("%s: no description in sentences: %q", name, p.Description)
			}
			if p.FieldConfig.Defaults.Unit == "" {
				t.Errorf("%s has no unit", name)
			}
			if len(p.Targets) == 0 || *p.Datasource != prometheus {
				t.Errorf("%s asks nobody", name)
			}
			for _, target := range p.Targets {
				for _, w := range window.FindAllString(target.Expr, -1) {
					if w != "[$__rate_interval]" && w != "[$__range]" {
						t.Errorf("%s has the fixed window %s", name, w)
					}
				}
				if left := placeholder.FindString(target.Expr); left != "" {
					t.Errorf("%s: %s is not replaced", name, left)
				}
				if strings.Contains(target.Expr, "partnersync_") && !strings.Contains(target.Expr, `job=~"$job",instance=~"$instance"`) {
					t.Errorf("%s does not heed the variables: %s", name, target.Expr)
				}
			}
		}
	}
}

// The variables of the issue are on every dashboard, and every link leads to one of them.
func TestVariablesAndLinks(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, d := range Dashboards() {
		known["/d/"+d.UID] = true
	}
	for _, d := range Dashboards() {
		var names []string
		for _, v := range d.Templating.List {
			names = append(names, v.Name)
		}
		for _, want := range []string{"datasource", "job", "instance", "sink"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s lacks the variable %s", d.UID, want)
			}
		}
		if len(d.Links) != len(known)-1 {
			t.Errorf("%s has %d links to the others", d.UID, len(d.Links))
		}
		links := slices.Clone(d.Links)
		for _, p := range d.Panels {
			links = append(links, p.Links...)
		}
		for _, l := range links {
			if path, _, _ := strings.Cut(l.URL, "?"); !known[path] || path == "/d/"+d.UID {
				t.Errorf("%s links to %s", d.UID, l.URL)
			}
		}
	}
}

func TestScale(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		most  float64
		unit  string
		step  float64
		steps int
	}{
		{"nothing", 0, "short", 1, 1},
		{"all of it", 1, "percentunit", 0.2, 5},
		{"a power of ten", 100, "short", 20, 5},
		{"rates", 0.0553, "reqps", 0.02, 3},
		{"minutes", 267, "s", 60, 5},
		{"milliseconds", 1.24, "s", 0.5, 3},
		{"bytes", 17.5 * (1 << 20), "bytes", 4 << 20, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			step, steps := scale(tt.most, tt.unit)
			if math.Abs(step-tt.step) > tt.step/1e6 || steps != tt.steps {
				t.Errorf("%d steps of %g, want %d of %g", steps, step, tt.steps, tt.step)
			}
		})
	}
}
