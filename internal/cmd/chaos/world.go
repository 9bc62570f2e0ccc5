package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed config.yaml
var configText string

// world is everything that a run needs and torments.
type world struct {
	out     io.Writer
	dir     string
	program string
	env     []string
	pg      *postgres
	crms    []*crm
	pool    *pgxpool.Pool // ours, to look

	receivers []*slot
	wires     []*wire
	workers   []*slot // and then those that join

	begun     time.Time // of the load
	load      *load
	good      string // the config in force
	reloads   int
	renamed   int                // how often a sink was
	absent    bool               // the annex is not in the config
	dropped   bool               // it was not, once
	relics    map[uuid.UUID]bool // events that were old and done when they were put into the tables
	olds      map[uuid.UUID]bool // events that were old, and open
	mu        sync.Mutex
	leaving   map[string]bool      // who is to be forgotten, and is not yet
	forgotten map[string]time.Time // who is, by e-mail: since when
	spans     []span
	looks     sync.WaitGroup
	errands   sync.WaitGroup // commands of an operator
}

// newWorld builds the program and brings everything up. Its owner calls close.
func newWorld(ctx context.Context, o options, out io.Writer) (_ *world, err error) {
	w := &world{out: out, relics: map[uuid.UUID]bool{}, olds: map[uuid.UUID]bool{}, leaving: map[string]bool{}, forgotten: map[string]time.Time{}}
	if w.dir, err = os.MkdirTemp("", "partnersync-chaos-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(true))
		}
	}()
	if err := os.Chmod(w.dir, 0o755); err != nil { // started by root, Postgres runs as somebody else
		return nil, err
	}
	w.program = filepath.Join(w.dir, "partnersync")
	build := []string{"build", "-o", w.program}
	if o.race {
		build = append(build, "-race")
	}
	if out, err := exec.CommandContext(ctx, "go", append(build, "partnersync/cmd/partnersync")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build partnersync: %w\n%s", err, out)
	}
	w.pg = &postgres{dir: filepath.Join(w.dir, "postgres")}
	if err := w.pg.start(ctx); err != nil {
		return nil, err
	}
	w.env = []string{"DATABASE_URL=" + w.pg.server.URL(), "HOOK_TOKEN=" + hookToken, "CRM_TOKEN=" + crmToken, "SPOOL_DIR=" + filepath.Join(w.dir, "spool-of-nobody"), "EVENTS_PER_JOB=1"}
	for _, c := range []struct{ sink, dialect string }{{"crm", "hubspot"}, {"mirror", "hubspot"}, {"pipeline", "pipedrive"}, {"office", "salesforce"}, {"annex", "hubspot"}, {living, "hubspot"}} {
		made, err := newCRM(c.sink, c.dialect)
		if err != nil {
			return nil, err
		}
		w.crms = append(w.crms, made)
		w.env = append(w.env, strings.ToUpper(c.sink)+"_URL="+made.url)
	}
	w.good = configText
	if err := w.writeConfig(w.good); err != nil {
		return nil, err
	}
	if out, err := w.command(ctx, "migrate", "up"); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	pc, err := pgxpool.ParseConfig(w.pg.server.URL())
	if err != nil {
		return nil, err
	}
	pc.MaxConns = 2
	if w.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, err
	}
	if _, err := w.pool.Exec(ctx, chronicle); err != nil {
		return nil, fmt.Errorf("begin the chronicle: %w", err)
	}
	for i := range receivers {
		// The first gives each event a job, the others give several one.
		s, err := w.slot("receiver", i, "SPOOL_DIR="+filepath.Join(w.dir, "spool-"+strconv.Itoa(i)), "EVENTS_PER_JOB="+strconv.Itoa(1+19*i))
		if err != nil {
			return nil, err
		}
		w.receivers = append(w.receivers, s)
	}
	for i := range workers + joiners {
		s, err := w.slot("worker", i)
		if err != nil {
			return nil, err
		}
		w.workers = append(w.workers, s)
	}
	return w, nil
}

func (w *world) slot(kind string, i int, env ...string) (*slot, error) {
	only := map[string]string{"receiver": "receive", "worker": "work"}[kind]
	wire, url, err := newWire(w.pg.server.TCPURL())
	if err != nil {
		return nil, err
	}
	w.wires = append(w.wires, wire)
	return &slot{
		name: kind + " " + strconv.Itoa(i), program: w.program, dir: w.dir, wire: wire, env: append(append(append([]string{}, w.env...), env...), "DATABASE_URL="+url),
		args: []string{"run", "--config", w.config(), "--only", only},
	}, nil
}

// slots are those of all processes.
func (w *world) slots() []*slot { return slices.Concat(w.receivers, w.workers) }

func (w *world) config() string { return filepath.Join(w.dir, "config.yaml") }

// writeConfig replaces the config at once, as who reads it may be about to start.
func (w *world) writeConfig(text string) error {
	next := w.config() + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	if err := os.Rename(next, w.config()); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	return nil
}

// command runs a command of partnersync and returns all that it printed.
func (w *world) command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.program, append(args, "--config", w.config())...)
	cmd.Env = append(os.Environ(), w.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("partnersync %s: %w", strings.Join(args, " "), err)
	}
	return string(out), err
}

// close ends everything. What is kept is told.
func (w *world) close(keep bool) error {
	for _, s := range w.slots() {
		s.kill()
	}
	for _, wire := range w.wires {
		wire.close()
	}
	w.looks.Wait()
	w.errands.Wait()
	if w.pool != nil {
		w.pool.Close()
	}
	var err error
	for _, c := range w.crms {
		err = errors.Join(err, c.close())
	}
	if w.pg != nil {
		err = errors.Join(err, w.pg.close(context.Background(), keep))
	}
	if keep {
		fmt.Fprintf(w.out, "logs and database are in %s\n", w.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// say tells what happens, with the time since the load began.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, "%6.2fs  %s\n", time.Since(w.begun).Seconds(), fmt.Sprintf(format, args...))
}
