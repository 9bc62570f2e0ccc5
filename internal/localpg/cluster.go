//go:build unix

package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A log beyond this is put aside at the next start.
const logMax = 10 << 20

// initdb makes the cluster beside its place and moves it there when it is whole, so
// that a crash never leaves half of one.
func (h *home) initdb(ctx context.Context, b binaries, as account, password string, o Options) error {
	fresh, err := os.MkdirTemp(h.path, "data.new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	// initdb reads the password as the account, which must not read ours.
	handed, err := os.CreateTemp(h.path, "password.new-*")
	if err != nil {
		return err
	}
	defer os.Remove(handed.Name())
	_, err = handed.WriteString(password + "\n")
	if err := errors.Join(err, handed.Close(), as.own(handed.Name()), as.own(fresh)); err != nil {
		return err
	}
	// The locale C sorts by bytes and alike on every machine; an index never depends on the system's
	// idea of a language.
	owner := admin
	if o.Superuser {
		owner = role
	}
	args := []string{"-D", fresh, "-U", owner, "--auth=scram-sha-256", "--pwfile=" + handed.Name(),
		"--encoding=UTF8", "--locale=C"}
	if o.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	if err := finish(ctx, as, "", b.path("initdb"), args...); err != nil {
		return err
	}
	if !o.Superuser {
		if err := makeRole(ctx, b, as, fresh, password); err != nil {
			return fmt.Errorf("make the role: %w", err)
		}
	}
	if err := os.Rename(fresh, h.data()); err != nil {
		return err
	}
	return syncDir(h.path)
}

// makeRole makes the role and its database, in a cluster that no server has up yet. The password is letters and digits.
func makeRole(ctx context.Context, b binaries, as account, data, password string) error {
	return finish(ctx, as, strings.Join([]string{
		"CREATE ROLE " + role + " LOGIN PASSWORD '" + password + "';",
		"GRANT pg_read_all_stats TO " + role + ";", // for the metrics of others who hold up the vacuum
		"CREATE DATABASE " + role + " OWNER " + role + ";",
	}, "\n")+"\n", b.path("postgres"), "--single", "-D", data, "-c", "exit_on_error=true", "-c", "log_min_error_statement=panic", "postgres")
}

// finish runs a program as the account, gives it what it is to read, and waits for its end.
func finish(ctx context.Context, as account, input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = immediateShutdown // should something of it hold on to the output
	p, err := startProcess(cmd, as.cred)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		syscall.Kill(-p.PID(), syscall.SIGKILL) // and the server that it runs in its session
		<-p.Done()
		return ctx.Err()
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(out.String()))
	}
	return nil
}

// clearLeftovers stops a server whose owner is gone, and removes what such an end, or
// one of initdb, leaves behind. The lock is ours, so none of it is in use.
func (h *home) clearLeftovers(ctx context.Context, logger *slog.Logger) error {
	pidFile := filepath.Join(h.data(), "postmaster.pid")
	if pid := firstNumber(pidFile); pid > 0 {
		if runsIn(pid, h.data()) {
			logger.Warn("stopping a private Postgres whose owner is gone", "pid", pid)
			if err := endForeign(ctx, pid, h.data()); err != nil {
				return err
			}
		}
		// The number may be anybody's by now, and Postgres would believe the file.
		if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := removeMatching(h.path, "*.new-*"); err != nil {
		return err
	}
	return removeMatching(h.data(), ".s.PGSQL.*")
}

// removeMatching removes what is named like pattern in dir, which need not exist.
func removeMatching(dir, pattern string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if ok, _ := path.Match(pattern, e.Name()); ok {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// endForeign stops a server that is not our child.
func endForeign(ctx context.Context, pid int, data string) error {
	begin := time.Now()
	signal := syscall.SIGINT
	for runsIn(pid, data) {
		switch waited := time.Since(begin); {
		case waited > fastShutdown+2*immediateShutdown:
			return fmt.Errorf("process %d still runs there and does not stop", pid)
		case waited > fastShutdown+immediateShutdown:
			signal = syscall.SIGKILL
		case waited > fastShutdown:
			signal = syscall.SIGQUIT
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
		if !pause(ctx) {
			return ctx.Err()
		}
	}
	return nil
}

// openLog opens the log for appending and tells how long it is. A big one is put aside.
func (h *home) openLog() (*os.File, int64, error) {
	name := h.file("postgres.log")
	if info, err := os.Stat(name); err == nil && info.Size() > logMax {
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, notOurs(h.path, err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

// readFrom returns what a file holds from offset on, within reason.
func readFrom(name string, offset int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.NewSectionReader(f, offset, 64<<10))
	return string(text)
}

// lastLines is the end of what a program said, in one line: what Postgres calls an error
// if there is any.
func lastLines(text string) string {
	var all, bad []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		all = append(all, line)
		for _, mark := range []string{"FATAL: ", "ERROR: ", "error: "} {
			if _, rest, ok := strings.Cut(line, mark); ok {
				bad = append(bad, strings.TrimSpace(rest))
				break
			}
		}
	}
	if len(bad) == 0 {
		bad = all
	}
	return strings.Join(bad[max(0, len(bad)-3):], "; ")
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
