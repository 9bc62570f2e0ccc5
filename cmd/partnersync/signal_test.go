//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The first SIGTERM ends every command, also while it reads a config that never comes to its end.
func TestFirstSignalEndsEveryCommand(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"check", "check --strict", "try --event shop.deal.updated", "run", "run --only receive", "run --only work", "demo", "events", "explain 01a22eda-f8f5-7c9d-a068-e8ed3dcb9d44",
		"why crm deals d1", "dead", "replay --all", "replay --list", "forget --yes a@b.example", "ledger", "sinks", "sinks stop crm", "sinks resume crm",
		"send", "sandbox --listen 127.0.0.1:0", "migrate up", "migrate status", "show source shop", "show sink crm", "show event shop.deal.updated",
	} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			t.Run(args+" "+signal.String(), func(t *testing.T) {
				t.Parallel()
				cmd, writer, ended := reads(t, strings.Fields(args)...)
				defer writer.Close()
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				select {
				case <-ended:
				case <-time.After(patience):
					t.Error("it does not end")
				}
			})
		}
	}
}

// A SIGHUP that comes while a process reads its config is heard afterwards, and does not end it.
func TestReloadWhileItStarts(t *testing.T) {
	t.Parallel()
	cmd, writer, ended := reads(t, "run")
	defer writer.Close()
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} { // they come in this order
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() && status.Signal() == syscall.SIGHUP {
		t.Error("SIGHUP has ended it")
	}
}

// reads starts the program with a config that is ours to write, and waits until it reads that.
func reads(t *testing.T, args ...string) (cmd *exec.Cmd, config *os.File, ended chan struct{}) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "endless.yaml")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(path, append([]string{"--config", file}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "DATABASE_URL=", "TMPDIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	deadline := time.After(patience)
	for config == nil { // until somebody reads it
		select {
		case <-ended:
			t.Fatalf("it has ended by itself")
		case <-deadline:
			t.Fatal("it does not read the config")
		case <-time.After(5 * time.Millisecond):
		}
		config, _ = os.OpenFile(file, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	}
	return cmd, config, ended
}
