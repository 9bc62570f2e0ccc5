package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"partnersync/internal/localpg"
)

// postgres is a server that is taken away and brought back. Its methods are called one at a time.
type postgres struct {
	dir    string
	server *localpg.Server // nil while it is down
	url    string          // what everybody has been told
	paused []int           // processes that are frozen
}

// start starts the server, at the same URL as before.
func (p *postgres) start(ctx context.Context) error {
	if p.server != nil {
		return nil
	}
	// Processes are killed, never the machine, so the page cache is as good as the disk.
	s, err := localpg.Start(ctx, localpg.Options{Dir: p.dir, Superuser: true, Settings: map[string]string{
		"fsync": "off", "full_page_writes": "off", "max_connections": "200",
	}})
	if err != nil {
		return err
	}
	p.server = s
	if p.url != "" && s.URL() != p.url {
		return errors.New("this machine has given the port of Postgres to somebody else meanwhile, so that nobody finds it: run it again")
	}
	p.url = s.URL()
	return nil
}

// kill ends the server as kill -9 does. Of its processes, those that are frozen end with it, and
// do nothing more.
func (p *postgres) kill() error {
	if p.server == nil {
		return nil
	}
	if p.paused != nil {
		// One that is too young to be frozen may wait for a lock of those that are, and nothing else.
		p.paused = append(p.paused, children(p.server.PID())...)
	}
	for _, pid := range p.paused {
		_ = syscall.Kill(pid, syscall.SIGKILL) // one that is gone needs none
	}
	if err := syscall.Kill(p.server.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill Postgres: %w", err)
	}
	p.paused = nil
	<-p.server.Done()
	_ = p.server.Stop() // complains that it has ended by itself
	p.server = nil
	return nil
}

// children are the processes that another has made, where the system tells in /proc.
func children(of int) []int {
	var pids []int
	stats, _ := filepath.Glob("/proc/[1-9]*/stat") // the pattern is a good one
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PARENT ..., and the name may hold anything.
		var parent int
		var state string
		_, err = fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &state, &parent)
		if err == nil && parent == of {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name))) // the kernel has named it
			pids = append(pids, pid)
		}
	}
	return pids
}

// pause freezes all processes of the server.
func (p *postgres) pause(ctx context.Context) error {
	if p.server == nil || p.paused != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.server.URL())
	if err != nil {
		return fmt.Errorf("freeze Postgres: %w", err)
	}
	defer conn.Close(ctx)
	// First the one that makes new processes, so that the list is complete.
	if err := p.freeze(p.server.PID()); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
	if err != nil {
		return fmt.Errorf("freeze Postgres: %w", err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return fmt.Errorf("freeze Postgres: %w", err)
	}
	for _, pid := range pids {
		err = errors.Join(err, p.freeze(pid))
	}
	return err
}

func (p *postgres) freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("freeze Postgres: %w", err)
	}
	p.paused = append(p.paused, pid)
	return nil
}

// resume lets a frozen server go on.
func (p *postgres) resume() {
	for _, pid := range p.paused {
		_ = syscall.Kill(pid, syscall.SIGCONT) // one that is gone needs none
	}
	p.paused = nil
}

// close stops the server and removes its data.
func (p *postgres) close(ctx context.Context, keep bool) error {
	p.resume()
	var err error
	if p.server != nil {
		err = p.server.Stop()
	}
	if keep {
		return err
	}
	return errors.Join(err, localpg.Remove(ctx, p.dir))
}
