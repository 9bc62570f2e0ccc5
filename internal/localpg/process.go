//go:build unix

package localpg

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"partnersync/internal/proc"
)

// startProcess starts cmd in a session of its own, so that a Ctrl-C in the terminal is
// ours to handle. When this process ends, the kernel asks the child for a fast shutdown; where it
// cannot, watch stands in.
func startProcess(cmd *exec.Cmd, as *syscall.Credential) (*proc.Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: as}
	return proc.Start(cmd, syscall.SIGINT)
}

// watch starts a shell that asks pid for a fast shutdown when this process ends: its
// standard input is a pipe that nobody writes to and that closes with us. The
// returned function ends the watcher without touching pid.
func watch(pid int, as *syscall.Credential) (stop func(), err error) {
	cmd := exec.Command("/bin/sh", "-c", `cat >/dev/null; kill -INT "$1"`, "sh", strconv.Itoa(pid))
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: as}
	var stdin io.WriteCloser
	if stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		// Its session, so that cat ends with the shell.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		stdin.Close()
	}, nil
}

// environment is what Postgres gets of ours: what it takes to find programs and
// libraries. The rest may hold the user's secrets, or settings of libpq.
func environment() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// runsIn tells whether pid is a live process at work in dir, as every process of a
// Postgres is in its data directory. A number alone proves nothing: after a
// restart of the machine it may be anybody's.
func runsIn(pid int, dir string) bool {
	if runtime.GOOS == "linux" {
		cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
		return err == nil && cwd == dir
	}
	out, err := exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), dir)
}
