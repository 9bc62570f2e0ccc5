//go:build unix

package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"partnersync/internal/proc"
)

const (
	// How often to look whether something has come about.
	pollEvery = 20 * time.Millisecond
	// A shutdown that takes longer is made to end the hard way; the write-ahead log
	// makes that safe.
	fastShutdown      = 15 * time.Second
	immediateShutdown = 5 * time.Second
	// Where a path to a socket ends: sun_path of macOS, the shorter one.
	socketPathMax = 103
)

// Server is a private Postgres that runs. Its owner calls Stop.
type Server struct {
	home     *home
	process  *proc.Process
	unwatch  func() // nil where the kernel watches
	port     int
	socket   string // directory of the socket; empty: TCP alone
	password string
	logger   *slog.Logger

	stop    sync.Once
	stopErr error
}

// Start makes the data directory when there is none, starts the server and returns when
// it answers. ctx is for the start only: ending it then stops what was begun.
// Recovery after a crash may take a while. ErrInUse and ErrNotFound tell their case.
func Start(ctx context.Context, o Options) (*Server, error) {
	logger := cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("private Postgres: %w", err)
	}
	s, err := start(ctx, dir, o, logger)
	if err != nil {
		return nil, fmt.Errorf("private Postgres in %s: %w", dir, err)
	}
	logger.Info("private Postgres started", "dir", dir, "port", s.port, "pid", s.PID())
	return s, nil
}

// Remove deletes what Start made in dir, data included, wherever it is. It returns
// ErrInUse while a live process owns it, and nil when there is nothing.
func Remove(ctx context.Context, dir string) error {
	link := filepath.Join(dir, "postgres")
	path, err := filepath.EvalSymlinks(link)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove private Postgres: %w", err)
	}
	h, err := lockHome(path)
	if err != nil {
		return fmt.Errorf("remove private Postgres in %s: %w", dir, err)
	}
	defer h.close()
	if err := h.clearLeftovers(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("remove private Postgres in %s: %w", dir, err)
	}
	if err := errors.Join(os.RemoveAll(path), os.RemoveAll(link)); err != nil {
		return fmt.Errorf("remove private Postgres: %w", err)
	}
	os.Remove(dir) // stays if it holds something else
	return nil
}

// URL is of the database partnersync, over the socket where there is one, since that
// costs less than TCP. It holds the password: never log it.
func (s *Server) URL() string { return s.url(role, s.socket) }

// TCPURL is of the same database over loopback.
func (s *Server) TCPURL() string { return s.url(role, "") }

// PID is the process id of the server.
func (s *Server) PID() int { return s.process.PID() }

// Done is closed when the server has ended, be it by Stop or by itself.
func (s *Server) Done() <-chan struct{} { return s.process.Done() }

// Stop shuts the server down and returns when it has ended. Connections are cut, what
// was committed is kept. Calling it again returns the same.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		if s.process.Ended() {
			s.stopErr = fmt.Errorf("private Postgres had ended before it was stopped (%v): see %s",
				s.process.Err(), s.home.file("postgres.log"))
		}
		s.shutdown()
		s.home.close()
		s.logger.Info("private Postgres stopped")
	})
	return s.stopErr
}

func start(ctx context.Context, dir string, o Options, logger *slog.Logger) (*Server, error) {
	as, err := chooseAccount(filepath.Join(dir, "postgres", "data"))
	if err != nil {
		return nil, err
	}
	found, err := findBinaries(ctx, as, o.binaries)
	if err != nil {
		return nil, err
	}
	h, err := openHome(ctx, dir, o.elsewhere, as, found[0], logger)
	if err != nil {
		return nil, err
	}
	s := &Server{home: h, logger: logger}
	if err := s.begin(ctx, found, as, o); err != nil {
		s.shutdown()
		h.close()
		return nil, err
	}
	return s, nil
}

// begin brings the server up in a home that is ours.
func (s *Server) begin(ctx context.Context, found []binaries, as account, o Options) error {
	if err := s.home.clearLeftovers(ctx, s.logger); err != nil {
		return err
	}
	b, err := choose(found, major(s.home.data()), s.home.data())
	if err != nil {
		return err
	}
	if s.password, err = s.home.password(); err != nil {
		return err
	}
	if major(s.home.data()) == 0 {
		if err := s.home.initdb(ctx, b, as, s.password, o); err != nil {
			return fmt.Errorf("initdb: %w", err)
		}
	}
	if err := s.launch(ctx, b, as, o.Settings); err != nil {
		return err
	}
	return s.createDatabase(ctx)
}

// launch starts the server, on another port when the chosen one is taken meanwhile.
func (s *Server) launch(ctx context.Context, b binaries, as account, settings map[string]string) error {
	port := firstNumber(s.home.file("port")) // the same as last time keeps other people's bookmarks good
	deadline := time.Now().Add(fastShutdown)
	for {
		var err error
		if s.port, err = freePort(port); err != nil {
			return err
		}
		if err = s.run(ctx, b, as, settings); err == nil {
			return replaceFile(s.home.file("port"), strconv.Itoa(s.port)+"\n")
		}
		// Processes of a server that was killed end by themselves; the port of a moment ago
		// may be somebody else's.
		dying, taken := strings.Contains(err.Error(), "shared memory block"), strings.Contains(err.Error(), "TCP/IP socket")
		if !dying && !taken || time.Now().After(deadline) {
			return err
		}
		port = s.port
		if taken {
			port = 0
		}
		if !pause(ctx) {
			return ctx.Err()
		}
	}
}

// run starts the server once and waits until it answers.
func (s *Server) run(ctx context.Context, b binaries, as account, settings map[string]string) error {
	log, before, err := s.home.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	all := defaultSettings()
	all["port"] = strconv.Itoa(s.port)
	all["unix_socket_directories"] = ""
	if s.socket = socketDir(s.home.data()); s.socket != "" {
		all["unix_socket_directories"] = s.socket
	}
	maps.Copy(all, settings)
	args := []string{"-D", s.home.data()}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", name+"="+all[name])
	}
	cmd := exec.Command(b.path("postgres"), args...)
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = startProcess(cmd, as.cred); err != nil {
		return err
	}
	if runtime.GOOS != "linux" {
		if s.unwatch, err = watch(s.PID(), as.cred); err != nil {
			return err
		}
	}
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code != "57P03" { // 57P03: still starting
			return fmt.Errorf("it does not let us in: %w", pgErr)
		}
		if s.process.Ended() {
			s.shutdown()
			return fmt.Errorf("the server ended at once: %s (all of it in %s)", lastLines(readFrom(log.Name(), before)), log.Name())
		}
		if !pause(ctx) {
			return ctx.Err()
		}
	}
}

// shutdown ends the server if there is one: gently, then less so.
func (s *Server) shutdown() {
	if s.process == nil {
		return
	}
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{
		{syscall.SIGINT, fastShutdown},
		{syscall.SIGQUIT, immediateShutdown},
		{syscall.SIGKILL, immediateShutdown},
	} {
		if s.process.Ended() {
			break
		}
		s.process.Signal(step.signal)
		select {
		case <-s.process.Done():
		case <-time.After(step.wait):
			s.logger.Warn("private Postgres is slow to stop", "pid", s.PID(), "signal", step.signal.String())
		}
	}
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
}

func (s *Server) ping(ctx context.Context) error {
	return s.with(ctx, func(conn *pgx.Conn) error { return conn.Ping(ctx) })
}

func (s *Server) createDatabase(ctx context.Context) error {
	err := s.with(ctx, func(conn *pgx.Conn) error {
		var there bool
		query := "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
		if err := conn.QueryRow(ctx, query, role).Scan(&there); err != nil || there {
			return err
		}
		_, err := conn.Exec(ctx, "CREATE DATABASE "+role)
		return err
	})
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}

// with lends a connection to the database that every cluster has.
func (s *Server) with(ctx context.Context, do func(*pgx.Conn) error) error {
	connectCtx, cancel := context.WithTimeout(ctx, immediateShutdown)
	defer cancel()
	conn, err := pgx.Connect(connectCtx, s.url("postgres", s.socket))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}

func (s *Server) url(database, socket string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, s.password), Path: "/" + database}
	query := url.Values{"sslmode": {"disable"}}
	if socket != "" {
		query.Set("host", socket)
		query.Set("port", strconv.Itoa(s.port))
	} else {
		u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// socketDir is data, if a socket there has a path that the system and Postgres take.
func socketDir(data string) string {
	if len(data)+len("/.s.PGSQL.65535") > socketPathMax || strings.ContainsAny(data, `,"`) {
		return ""
	}
	return data
}

// freePort returns port, or another one if that is 0 or taken.
func freePort(port int) (int, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil && port != 0 {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// pause waits a moment, and tells whether ctx still holds.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pollEvery):
		return true
	}
}
