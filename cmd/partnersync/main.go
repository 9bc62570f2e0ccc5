package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	_ "time/tzdata" // zones of mappings, also where the system has none

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/receiver/sources"
	"partnersync/sinks"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

type commands struct {
	Config string      `help:"Config file." default:"config.yaml" placeholder:"FILE" predictor:"file"`
	JSON   bool        `help:"Print JSON instead of text." name:"json"`
	Print  versionFlag `help:"Print the version." name:"version"`

	begun atomic.Bool // there is something that has to end in order, by the context

	Run        runCmd        `cmd:"" help:"Receive webhooks and deliver them to the CRMs."`
	Demo       demoCmd       `cmd:"" help:"Everything at once on an empty machine: Postgres, a sandbox CRM, every sample event."`
	Check      checkCmd      `cmd:"" help:"Find the mistakes in config files."`
	Setup      setupCmd      `cmd:"" help:"Make the fields that mappings need in a CRM, and say what only a person can do."`
	Reload     reloadCmd     `cmd:"" help:"Have the process that runs take the config as it is now."`
	Try        tryCmd        `cmd:"" help:"Show what an event would send; sends nothing."`
	Events     eventsCmd     `cmd:"" help:"List events."`
	Explain    explainCmd    `cmd:"" help:"Show everything that happened to one event."`
	Why        whyCmd        `cmd:"" help:"Show where each field of a CRM record has its value from."`
	Dead       deadCmd       `cmd:"" help:"Group the deliveries that are dead by their cause."`
	Replay     replayCmd     `cmd:"" help:"Deliver stored events again, with the mappings of today."`
	Report     reportCmd     `cmd:"" help:"Show what a sink that observes would have done."`
	Forget     forgetCmd     `cmd:"" help:"Erase the data of a person, by the e-mail address."`
	Ledger     ledgerCmd     `cmd:"" help:"Show that every accepted route is accounted for, by outcome."`
	Audit      auditCmd      `cmd:"" help:"List where a CRM has other values than ours; --repair sends ours again."`
	Sinks      sinksCmd      `cmd:"" help:"Show, stop and resume sinks."`
	Send       sendCmd       `cmd:"" help:"Post sample events, or a file, at a receiver."`
	Sandbox    sandboxCmd    `cmd:"" help:"Run the fake CRM."`
	Migrate    migrateCmd    `cmd:"" help:"Bring the database schema up to date, or show its state."`
	Show       showCmd       `cmd:"" help:"Print a source, a sink, an event or the functions."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print what has a shell complete commands, flags and the names of the config."`
}

// streams are what a command talks to. What comes from senders and CRMs goes to them by say, or as JSON.
type streams struct {
	out, err io.Writer
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the process, so that tests can call it.
func run(args []string, out, errOut io.Writer) int {
	var cli commands
	exit := -1
	parser, err := kong.New(&cli,
		kong.Name("partnersync"),
		kong.Description("Receives partner-program webhooks and keeps CRMs in step with them."),
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(out, errOut), kong.Exit(func(code int) { exit = code }),
	)
	if err != nil {
		panic(err) // the grammar above is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kongplete.Complete(parser, kongplete.WithPredictors(predictors()))
	if exit >= 0 {
		return exit
	}
	command, err := parser.Parse(args)
	if exit >= 0 {
		return exit
	}
	if err != nil {
		fmt.Fprintf(&clean{w: errOut}, "partnersync: %v\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The first signal drains what has begun; the second must stop at once, as if nobody listened. While a command only reads
	// and computes there is nothing to drain.
	signalled := context.AfterFunc(ctx, func() {
		if !cli.begun.Load() {
			os.Exit(exitFailed)
		}
		stop()
	})
	defer signalled() // before stop, which ends the context too
	command.BindTo(ctx, (*context.Context)(nil))
	return report(command.Run(&cli, streams{&clean{w: out}, errOut}), &clean{w: errOut})
}

// usageError is a mistake in how partnersync was called or configured.
type usageError struct{ error }

// refused is a config that has problems, already printed.
var errRefused = errors.New("the config has errors")

func report(err error, errOut io.Writer) int {
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errRefused):
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "partnersync: %v\n", err)
		return exitUsage
	default:
		fmt.Fprintf(errOut, "partnersync: %v\n", err)
		return exitFailed
	}
}

// load reads the config and prints what is wrong with it.
func (c *commands) load(s streams, o config.Options) (*config.Config, error) {
	cfg, problems := config.Load(c.Config, o)
	printProblems(s.err, problems)
	if cfg == nil {
		return nil, errRefused
	}
	return cfg, nil
}

func printProblems(w io.Writer, problems diag.Problems) {
	diag.Print(&clean{w: w}, problems, func(file string) []byte {
		if data, err := os.ReadFile(file); err == nil {
			return data
		}
		for _, name := range sources.Presets() {
			if data, _ := sources.Preset(name); sources.PresetFile(name) == file {
				return data
			}
		}
		for _, name := range sinks.Presets() {
			if data, _ := sinks.Preset(name); sinks.PresetFile(name) == file {
				return data
			}
		}
		return nil // an overlay of our own
	})
}
