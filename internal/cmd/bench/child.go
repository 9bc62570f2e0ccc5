package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"partnersync/internal/proc"
)

// child is a process that is being measured. Its owner calls stop.
type child struct {
	name    string
	process *proc.Process
	log     string
	address string // where it takes requests; empty where it takes none
	admin   string // where it gives metrics; empty where it has none
	pprof   string // where it gives profiles
}

const (
	startLimit = 30 * time.Second
	stopLimit  = 40 * time.Second // above the grace of partnersync
)

// spawn starts a program and returns when it says, in a line of JSON on its standard
// error, that it runs.
func spawn(ctx context.Context, name, dir string, env []string, program string, args ...string) (*child, error) {
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	// A file, since a pipe would have this process read what is written.
	cmd.Stdout, cmd.Stderr = log, log
	c := &child{name: name, log: log.Name()}
	if c.process, err = proc.Start(cmd, syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := c.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), c.stop())
	}
	return c, nil
}

func (c *child) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		if c.ready() {
			return nil
		}
		select {
		case <-c.process.Done():
			return fmt.Errorf("it has ended: %v%s", c.process.Err(), c.said())
		case <-ctx.Done():
			return fmt.Errorf("%w%s", ctx.Err(), c.said())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ready looks for the line that says where the child listens.
func (c *child) ready() bool {
	data, err := os.ReadFile(c.log)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		var said struct {
			Hooks *string `json:"hooks"`
			Admin string  `json:"admin"`
			Pprof string  `json:"pprof"`
		}
		if json.Unmarshal(line, &said) != nil {
			continue
		}
		if said.Pprof != "" {
			c.pprof = said.Pprof
		}
		if said.Hooks != nil {
			c.address, c.admin = *said.Hooks, said.Admin
			return true
		}
	}
	return false
}

// said returns the last lines of the child, for an error.
func (c *child) said() string {
	data, _ := os.ReadFile(c.log)
	var last []string
	in := bufio.NewScanner(bytes.NewReader(data))
	for in.Scan() {
		if last = append(last, in.Text()); len(last) > 5 {
			last = last[1:]
		}
	}
	text := ""
	for _, line := range last {
		text += "\n\t" + line
	}
	return text
}

// stop asks the child to end and waits for it. It is an error when the child fails.
func (c *child) stop() error {
	if err := c.process.Stop(stopLimit); err != nil {
		return fmt.Errorf("%s ended: %w%s", c.name, err, c.said())
	}
	return os.Remove(c.log)
}

func (c *child) pid() int { return c.process.PID() }

// build compiles the real partnersync. For profiles a file is laid into its package that
// gives them out; the shipped program has no such thing.
func build(ctx context.Context, dir string, profiled bool) (string, error) {
	program := filepath.Join(dir, "partnersync")
	args := []string{"build", "-o", program}
	if profiled {
		overlay, err := profilingOverlay(ctx, dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "partnersync/cmd/partnersync")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build partnersync: %w\n%s", err, out)
	}
	return program, nil
}
