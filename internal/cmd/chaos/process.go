package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	child "partnersync/internal/proc"
)

// slot is the place of one process. What runs there is started again when it ends by itself,
// as a supervisor does, until it is killed or stopped.
type slot struct {
	name    string
	program string
	args    []string
	dir     string // for logs
	env     []string
	wire    *wire // to Postgres

	mu      sync.Mutex
	proc    *proc
	wanted  bool
	started int
	over    chan struct{} // closed when nothing runs here any more; nil before the first start
	frozen  bool
	thawAt  time.Time // for whoever has frozen it
	faults  []string  // what no process of ours should have done
}

// proc is one process.
type proc struct {
	*child.Process
	log     string
	begun   time.Time
	hooks   string // once running: where it takes events
	running chan struct{}
	killed  bool // by us; the slot guards it
}

// start begins to run the process, and returns at once.
func (s *slot) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted {
		return
	}
	s.wanted, s.over = true, make(chan struct{})
	go s.supervise(s.over)
}

const (
	restartPause = 200 * time.Millisecond
	stopLimit    = 45 * time.Second // above the grace of partnersync
)

func (s *slot) supervise(over chan struct{}) {
	defer close(over)
	for {
		s.mu.Lock()
		if !s.wanted {
			s.mu.Unlock()
			return
		}
		p, err := s.spawn()
		s.proc = p
		if err != nil {
			s.faults = append(s.faults, fmt.Sprintf("%s cannot be started: %v", s.name, err))
			s.wanted = false
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
		p.await()
		<-p.Done()
		s.mu.Lock()
		s.proc = nil
		again := s.wanted
		if again && p.ready() {
			s.faults = append(s.faults, fmt.Sprintf("%s has ended by itself (%v): see %s", s.name, p.Err(), p.log))
		}
		s.mu.Unlock()
		if again {
			time.Sleep(restartPause) // one that does not find Postgres ends at its start
		}
	}
}

func (s *slot) spawn() (*proc, error) {
	s.started++
	log, err := os.Create(filepath.Join(s.dir, fmt.Sprintf("%s.%d.log", strings.ReplaceAll(s.name, " ", "-"), s.started)))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &proc{log: log.Name(), begun: time.Now(), running: make(chan struct{})}
	cmd := exec.Command(s.program, s.args...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	if p.Process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	return p, nil
}

// await waits until the process serves or has ended.
func (p *proc) await() {
	for {
		if hooks, ok := p.said(); ok {
			p.hooks = hooks
			close(p.running)
			return
		}
		select {
		case <-p.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// said looks for the line that says that the process runs, and where.
func (p *proc) said() (hooks string, ok bool) {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return "", false
	}
	for line := range bytes.Lines(data) {
		var said struct{ Msg, Hooks string }
		if json.Unmarshal(line, &said) == nil && said.Msg == "partnersync runs" {
			return said.Hooks, true
		}
	}
	return "", false
}

func (p *proc) ready() bool {
	select {
	case <-p.running:
		return true
	default:
		return false
	}
}

// current is the process that serves, or nil.
func (s *slot) current() *proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.ready() {
		return nil
	}
	return s.proc
}

// signal sends a signal to the process, and reports whether there is one.
func (s *slot) signal(sig syscall.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.proc.Signal(sig) != nil {
		return false
	}
	s.proc.killed = s.proc.killed || sig == syscall.SIGKILL
	return true
}

// freeze stops the process as a debugger does, until thaw; it reports whether there is one.
func (s *slot) freeze() bool {
	ok := s.signal(syscall.SIGSTOP)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = ok
	return ok
}

func (s *slot) thaw() {
	s.signal(syscall.SIGCONT)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = false
}

func (s *slot) isFrozen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frozen
}

// kill ends the process as kill -9 does, and reports whether there was one.
func (s *slot) kill() bool {
	over := s.unwant()
	was := s.signal(syscall.SIGKILL)
	if over != nil {
		<-over
	}
	return was
}

// stop drains the process, which has to end with exit code 0 unless it is killed over that.
func (s *slot) stop() error {
	over := s.unwant()
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	if over == nil {
		return nil
	}
	if p == nil {
		<-over
		return nil
	}
	_ = s.signal(syscall.SIGTERM) // gone already: Wait tells
	select {
	case <-over:
	case <-time.After(stopLimit):
		_ = s.signal(syscall.SIGKILL)
		<-over
		return fmt.Errorf("%s did not stop within %s: see %s", s.name, stopLimit, p.log)
	}
	s.mu.Lock()
	killed := p.killed
	s.mu.Unlock()
	var failed *exec.ExitError
	if !killed && p.ready() && errors.As(p.Err(), &failed) {
		return fmt.Errorf("%s was stopped and ended with %w: see %s", s.name, p.Err(), p.log)
	}
	return nil
}

// unwant lets the process not be started again, and returns what is closed when nothing runs.
func (s *slot) unwant() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = false
	return s.over
}

// complaints are what no process should have done.
func (s *slot) complaints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}
