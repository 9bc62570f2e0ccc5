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
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"check", "check --strict", "try --event shop.deal.updated", "run", "run --only receive", "run --only work", "demo", "events", "explain 01a22eda-f8f5-7c9d-a068-e8ed3dcb9d44",
		"why crm deals d1", "dead", "replay --all", "replay --list", "forget --yes a@b.example", "ledger", "sinks", "sinks stop crm", "sinks resume crm",
		"send", "sandbox --listen 127.0.0.1:0", "migrate up", "migrate status", "show source shop", "show sink crm", "show event shop.deal.updated",
	} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			t.Run(args+" "+signal.String(), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				file := filepath.Join(dir, "endless.yaml")
				if err := syscall.Mkfifo(file, 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(path, append([]string{"--config", file}, strings.Fields(args)...)...)
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "DATABASE_URL=", "TMPDIR="+dir)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() { defer close(ended); _ = cmd.Wait() }()
				defer func() { _ = cmd.Process.Kill(); <-ended }()
				deadline := time.After(patience)
				var writer *os.File
				for writer == nil { // until somebody reads it
					select {
					case <-ended:
						t.Fatalf("it has ended by itself")
					case <-deadline:
						t.Fatal("it does not read the config")
					case <-time.After(5 * time.Millisecond):
					}
					writer, _ = os.OpenFile(file, os.O_WRONLY|syscall.O_NONBLOCK, 0)
				}
				defer writer.Close()
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				select {
				case <-ended:
				case <-deadline:
					t.Error("it does not end")
				}
			})
		}
	}
}
