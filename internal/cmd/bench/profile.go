package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// profiling is the file that is laid into cmd/partnersync. It says where it listens
// before partnersync says that it runs.
const profiling = `package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
)

func init() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stderr, "{\"pprof\":%q}\n", l.Addr())
	go http.Serve(l, nil)
}
`

func profilingOverlay(ctx context.Context, dir string) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "partnersync/cmd/partnersync")
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find the package of partnersync: %w", err)
	}
	source := filepath.Join(dir, "profiling.go.txt")
	if err := os.WriteFile(source, []byte(profiling), 0o600); err != nil {
		return "", fmt.Errorf("write the overlay: %w", err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(strings.TrimSpace(string(out)), "zz_profiling.go"): source,
	}})
	if err != nil {
		return "", fmt.Errorf("write the overlay: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return "", fmt.Errorf("write the overlay: %w", err)
	}
	return path, nil
}

// profile takes a CPU profile of a child for a while into a file of that name. The
// returned function waits for it.
func profile(c *child, dir, name string, length time.Duration) (wait func() error) {
	if dir == "" || c.pprof == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- fetchProfile(c, filepath.Join(dir, name+".pprof"), length) }()
	return func() error { return <-done }
}

func fetchProfile(c *child, path string, length time.Duration) error {
	seconds := max(int(length.Seconds()), 1)
	resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", c.pprof, seconds))
	if err != nil {
		return fmt.Errorf("profile of %s: %w", c.name, err)
	}
	defer resp.Body.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("profile of %s: %w", c.name, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("profile of %s: %w", c.name, err)
	}
	defer f.Close()
	if _, err := io.Copy(f, resp.Body); err != nil {
		return fmt.Errorf("profile of %s: %w", c.name, err)
	}
	return f.Close()
}
