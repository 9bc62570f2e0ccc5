// Package proc starts child processes and ends them. A child does not outlive this process: on Linux
// the kernel sends it a signal, however this process ends. Elsewhere nothing does.
package proc

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a child that is waited for from its start. It is safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; written before done is closed
}

// Start starts cmd. The kernel sends it the signal orphaned when this process ends, if it can.
func Start(cmd *exec.Cmd, orphaned syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	dieWithParent(cmd.SysProcAttr, orphaned)
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends its signal when the thread ends that has started the child, so the thread
		// is kept for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Err waits until the process has ended, and returns how: nil for exit code 0.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends a signal; it is an error when the process has ended.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// ErrKilled means that a process did not end in time and was killed.
var ErrKilled = errors.New("it did not stop in time and was killed")

// Stop asks the process to end, kills it after limit, and waits for it. It returns how the process
// ended, also where it had ended before.
func (p *Process) Stop(limit time.Duration) error {
	_ = p.Signal(syscall.SIGTERM) // it may have ended: Err says how
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
	}
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
	return ErrKilled
}
