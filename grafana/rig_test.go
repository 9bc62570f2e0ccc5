package grafana

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a condition; only a broken test reaches it.
const patience = 90 * time.Second

// eventually waits until the condition holds; why says what is still missing.
func eventually(t *testing.T, what string, condition func() (ok bool, why string)) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		ok, why := condition()
		if ok {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s: %s", what, patience, why)
		case <-again.C:
		}
	}
}

// program is a process of the test.
type program struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	said  bytes.Buffer
	lines chan string // the first ones; those that nobody reads are dropped
}

// start runs a program until the test ends.
func start(t *testing.T, name, dir string, env []string, path string, args ...string) *program {
	t.Helper()
	p := &program{name: name, cmd: exec.Command(path, args...), done: make(chan struct{}), lines: make(chan string, 1000)}
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), env...)
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			p.said.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			select {
			case p.lines <- lines.Text():
			default:
			}
		}
		_, _ = io.Copy(io.Discard, r)
	})
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its end is seen by what it does not do any more
		w.Close()
		reading.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(40 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
			t.Errorf("%s did not end by itself", name)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.tail())
		}
	})
	return p
}

func (p *program) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.said.String()
	return text[max(0, len(text)-4000):]
}

// await returns what the pattern's groups match in the first line that has it.
func (p *program) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(patience)
	for {
		select {
		case line := <-p.lines:
			if m := re.FindStringSubmatch(line); m != nil {
				return m[1:]
			}
		case <-p.done:
			t.Fatalf("%s has ended:\n%s", p.name, p.tail())
		case <-timeout:
			t.Fatalf("%s does not say %s:\n%s", p.name, pattern, p.tail())
		}
	}
}

// build makes the binary that is shipped.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "partnersync")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/partnersync").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// freeAddress is one on which nobody listens just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// server is a running Prometheus.
type server struct {
	t   *testing.T
	url string
}

// startPrometheus runs one that scrapes the targets each second.
func startPrometheus(t *testing.T, rules string, targets ...string) *server {
	t.Helper()
	path := tool(t, "prometheus")
	dir := t.TempDir()
	config, err := json.Marshal(map[string]any{
		"global": map[string]any{
			"scrape_interval": "1s", "evaluation_interval": "1s", "external_labels": map[string]string{"grafana": "https://grafana.example"},
		},
		"rule_files":     []string{rules},
		"scrape_configs": []any{map[string]any{"job_name": "partnersync", "static_configs": []any{map[string]any{"targets": targets}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "prometheus.yml") // JSON is YAML too
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	start(t, "prometheus", dir, nil, path, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	s := &server{t: t, url: "http://" + address}
	eventually(t, "Prometheus is ready", func() (bool, string) {
		resp, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return false, err.Error()
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
	return s
}

// sample is one value of one series.
type sample struct {
	labels map[string]string
	value  float64
}

// query answers what the expression is now.
func (s *server) query(expr string) ([]sample, error) {
	var answer struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	}
	if err := s.get("/api/v1/query", url.Values{"query": {expr}}, &answer); err != nil {
		return nil, err
	}
	if answer.Type == "scalar" {
		var pair [2]any
		if err := json.Unmarshal(answer.Result, &pair); err != nil {
			return nil, err
		}
		v, err := strconv.ParseFloat(fmt.Sprint(pair[1]), 64)
		return []sample{{value: v}}, err
	}
	var series []struct {
		Metric map[string]string `json:"metric"`
		Value  [2]any            `json:"value"`
	}
	if err := json.Unmarshal(answer.Result, &series); err != nil {
		return nil, err
	}
	var out []sample
	for _, one := range series {
		v, err := strconv.ParseFloat(fmt.Sprint(one.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		if !math.IsNaN(v) {
			out = append(out, sample{one.Metric, v})
		}
	}
	return out, nil
}

// alert is one that Prometheus knows of.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"` // pending, firing
}

// firing returns the alerts of a name that fire, for the sink.
func (s *server) firing(name, sink string) []alert {
	s.t.Helper()
	var answer struct {
		Alerts []alert `json:"alerts"`
	}
	if err := s.get("/api/v1/alerts", nil, &answer); err != nil {
		s.t.Fatal(err)
	}
	var out []alert
	for _, a := range answer.Alerts {
		if a.State == "firing" && a.Labels["alertname"] == name && a.Labels["sink"] == sink {
			out = append(out, a)
		}
	}
	return out
}

func (s *server) get(path string, params url.Values, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path+"?"+params.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// hasty is the rules with nothing to wait for, in a file of their own.
func hasty(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(string(data), "$1 1s")
	if n := strings.Count(text, "for: 1s"); n < 20 {
		t.Fatalf("%d alerts have a duration", n)
	}
	path := filepath.Join(t.TempDir(), "alerts.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
