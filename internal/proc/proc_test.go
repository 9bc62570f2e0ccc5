//go:build unix

package proc_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"partnersync/internal/proc"
)

const parentVariable = "PROC_TEST_PARENT"

// TestMain doubles as a process that starts a child, says so, and waits for the end of its
// standard input.
func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	cmd := exec.Command("sleep", "1000")
	cmd.Stdout = os.Stdout
	if _, err := proc.Start(cmd, syscall.SIGKILL); err != nil {
		panic(err)
	}
	fmt.Println("started")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// shell starts a script, and returns when it has printed a line.
func shell(t *testing.T, script string) *proc.Process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdout = w
	p, err := proc.Start(cmd, syscall.SIGKILL)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(0) })
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script string
		limit        time.Duration
		want         string
	}{
		{"at once", `echo; exec sleep 1000`, time.Hour, "signal: terminated"},
		{"by itself, orderly", `trap 'exit 0' TERM; echo; while :; do sleep 0.01; done`, time.Hour, "<nil>"},
		{"by itself, failing", `trap 'exit 3' TERM; echo; while :; do sleep 0.01; done`, time.Hour, "exit status 3"},
		{"killed", `trap '' TERM; echo; exec sleep 1000`, 0, proc.ErrKilled.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := shell(t, tt.script)
			if p.Ended() {
				t.Fatal("it has ended")
			}
			if got := fmt.Sprint(p.Stop(tt.limit)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if !p.Ended() || p.Signal(syscall.SIGTERM) == nil {
				t.Error("it has not ended")
			}
		})
	}
}

func TestEndsByItself(t *testing.T) {
	t.Parallel()
	p := shell(t, `echo; exit 3`)
	<-p.Done()
	for range 2 { // also when it is stopped afterwards
		var exit *exec.ExitError
		if err := p.Stop(time.Hour); !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Errorf("got %v", err)
		}
	}
}

func TestNoSuchProgram(t *testing.T) {
	t.Parallel()
	if p, err := proc.Start(exec.Command("/no/such/program"), syscall.SIGKILL); err == nil {
		t.Errorf("started %d", p.PID())
	}
}

// A child ends when its parent is killed: it holds the other end of the pipe until then.
func TestEndsWithItsParent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the kernel does not tell children of the end of their parent")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), parentVariable+"=1")
	cmd.Stdout = w
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	parent, err := proc.Start(cmd, syscall.SIGKILL)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(r)
	if line, err := in.ReadString('\n'); line != "started\n" {
		t.Fatal(line, err)
	}
	if err := parent.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Error(err)
	}
	<-parent.Done()
}
