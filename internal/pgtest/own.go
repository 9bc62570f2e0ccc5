//go:build unix

package pgtest

import (
	"context"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"partnersync/internal/localpg"
)

// Own is a server that one test has for itself, to take it away and bring it back.
// Its methods fail the test when they cannot do what they say.
type Own struct {
	t      testing.TB
	slot   *slot
	server *localpg.Server
	paused []int
}

// Server returns a server of the test's own, whatever PARTNERSYNC_TEST_DATABASE_URL says,
// with a fresh database that has all migrations. It is stopped when the test ends.
func Server(t testing.TB) *Own {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	c, err := openPrivate(ctx)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	o := &Own{t: t, slot: c.slot, server: c.server}
	t.Cleanup(func() {
		defer o.slot.release()
		o.Resume()
		if o.server != nil {
			o.Stop()
		}
	})
	const database = "partnersync" // the one of localpg's URL
	for _, query := range []string{dropDatabase(database), "CREATE DATABASE " + database + " TEMPLATE " + c.template} {
		if err := c.exec(ctx, query); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
	}
	return o
}

// URL is of the database; it stays the same over a restart.
func (o *Own) URL() string {
	o.t.Helper()
	return o.running().URL()
}

// TCPURL is of the same database over loopback, for tests that put something between.
func (o *Own) TCPURL() string {
	o.t.Helper()
	return o.running().TCPURL()
}

// Stop shuts the server down as an administrator would.
func (o *Own) Stop() {
	o.t.Helper()
	if err := o.running().Stop(); err != nil {
		o.t.Errorf("pgtest: %v", err)
	}
	o.server = nil
}

// Kill ends the server as kill -9 does; the next Start recovers it.
func (o *Own) Kill() {
	o.t.Helper()
	if err := syscall.Kill(o.running().PID(), syscall.SIGKILL); err != nil {
		o.t.Errorf("pgtest: %v", err)
	}
	<-o.server.Done()
	o.server.Stop() // complains that it ended by itself, and lets go of the directory
	o.server = nil
}

// Start brings a stopped or killed server back at the same URL.
func (o *Own) Start() {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	server, err := o.slot.launch(ctx)
	if err != nil {
		o.t.Fatalf("pgtest: %v", err)
	}
	o.server = server
}

// Pause freezes the server: it takes connections and answers nothing, until Resume.
func (o *Own) Pause() {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, o.running().URL())
	if err != nil {
		o.t.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(ctx)
	// First the one that makes new processes, so that the list is complete.
	o.freeze(o.server.PID())
	rows, err := conn.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
	if err != nil {
		o.t.Fatalf("pgtest: %v", err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		o.t.Fatalf("pgtest: %v", err)
	}
	for _, pid := range pids {
		o.freeze(pid)
	}
}

// Resume lets a paused server go on. It does nothing to one that is not paused.
func (o *Own) Resume() {
	for _, pid := range o.paused {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	o.paused = nil
}

// running returns the server; using one that is stopped is a mistake in the test.
func (o *Own) running() *localpg.Server {
	o.t.Helper()
	if o.server == nil {
		o.t.Fatal("pgtest: the server is not running")
	}
	return o.server
}

func (o *Own) freeze(pid int) {
	o.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && err != syscall.ESRCH {
		o.t.Fatalf("pgtest: %v", err)
	}
	o.paused = append(o.paused, pid)
}
