package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
	"partnersync/sinks"
)

var update = flag.Bool("update", false, "write what the commands print into the stories")

func TestMain(m *testing.M) {
	testscript.Main(tight{m}, map[string]func(){
		"partnersync": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// tight is the tests, and then a look for goroutines that nobody has ended.
type tight struct{ m *testing.M }

func (t tight) Run() int {
	code := t.m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintf(os.Stderr, "goleak: %v\n", err)
		return 1
	}
	return code
}

// TestStories runs the stories of testdata/script: what a person types, and what comes back.
// Beside testscript's own commands they have
//
//	exits N COMMAND...  runs a command and expects the exit code
//	postgres            sets DATABASE_URL to that of an empty database
//	stored SINK N       has N events accepted for a sink
//	mark FORMER NAME    has a sink renamed
//	taken NAME          sets NAME to an address on which somebody listens
//	crm NAME SEED       sets NAME to the address of a sandbox CRM that has what a file says, and NAME_PRESET to those of its dialects
//	granted OBJECT FIELD  lets the sandbox's client at a field of Salesforce
func TestStories(t *testing.T) {
	t.Parallel()
	var boxes sync.Map // by address
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[0])
				if neg || err != nil {
					ts.Fatalf("usage: exits N COMMAND...")
				}
				got := 0
				var failed *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
					got = failed.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			"postgres": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Setenv("DATABASE_URL", pgtest.EmptyURL(t))
			},
			"stored": func(ts *testscript.TestScript, neg bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				for range n {
					ts.Check(accept(ts.Getenv("DATABASE_URL"), args[0]))
				}
			},
			"mark": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(execute(ts.Getenv("DATABASE_URL"), `INSERT INTO sinks (name, renamed_to) VALUES ($1, $2)`, args[0], args[1]))
			},
			"taken": func(ts *testscript.TestScript, neg bool, args []string) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				ts.Check(err)
				ts.Defer(func() { l.Close() })
				ts.Setenv(args[0], l.Addr().String())
			},
			"crm": func(ts *testscript.TestScript, neg bool, args []string) {
				box := sandbox.New(sandbox.Options{})
				ts.Check(enter(box, ts.MkAbs(args[1])))
				crm := httptest.NewServer(box)
				ts.Defer(crm.Close)
				ts.Setenv(args[0], crm.URL)
				for _, preset := range sinks.Presets() {
					ts.Setenv(args[0]+"_"+strings.ToUpper(preset), crm.URL+"/"+preset)
				}
				boxes.Store(crm.URL, box)
			},
			"granted": func(ts *testscript.TestScript, neg bool, args []string) {
				box, _ := boxes.Load(ts.Getenv("CRM"))
				if !box.(*sandbox.Server).Grant("salesforce", args[0], args[1]) {
					ts.Fatalf("there is no field %s of %s to grant", args[1], args[0])
				}
			},
		},
	})
}

// accept stores an event for a sink, as a receiver does that has it in its config.
func accept(url, sink string) error {
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		return err
	}
	defer pool.Close()
	id := uuid.Must(uuid.NewV7())
	_, err = ledger.New(pool).Accept(context.Background(), []ledger.Incoming{{
		ID: id, Source: "shop", Type: "deal.updated", Entity: "deal:" + id.String(), OccurredAt: time.Now(), ReceivedAt: time.Now(),
		Status: ledger.Stored, Body: []byte("{}"), Sinks: []string{sink},
	}}, 1, 1)
	return err
}

func execute(url, sql string, args ...any) error {
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), sql, args...)
	return err
}
