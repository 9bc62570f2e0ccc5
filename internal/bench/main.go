package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// The parts of the benchmark.
var parts = []string{"receive", "work", "steady", "together"}

// plan is how much is measured. Everything in it is bounded.
type plan struct {
	parts       []string
	rounds      int
	connections int
	warm        time.Duration // of a window, not measured
	window      time.Duration
	queued      int // events in a queue that is worked off
	plainQueued int
	steadyRate  int // events per second
	steady      time.Duration
	together    time.Duration
	short       bool
	profiles    string // directory for profiles of partnersync; empty: none
}

func full() plan {
	return plan{
		parts: parts, rounds: 5, connections: 64, warm: 500 * time.Millisecond, window: 3 * time.Second,
		queued: 24_000, plainQueued: 8_000, steadyRate: 500, steady: 10 * time.Second, together: 4 * time.Second,
	}
}

// short is enough to see that everything works; its numbers mean nothing.
func short() plan {
	return plan{
		short: true, parts: parts, rounds: 1, connections: 16, warm: 50 * time.Millisecond, window: 150 * time.Millisecond,
		queued: 500, plainQueued: 200, steadyRate: 200, steady: 500 * time.Millisecond, together: 200 * time.Millisecond,
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	asJSON := flags.Bool("json", false, "print JSON instead of a table")
	quick := flags.Bool("short", false, "a few seconds only: shows that everything works, measures nothing")
	rounds := flags.Int("rounds", 0, "windows per form")
	only := flags.String("only", "", "some parts only, with commas between: "+strings.Join(parts, ", "))
	profiles := flags.String("profile", "", "write CPU profiles of partnersync into this `directory`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p := full()
	if *quick {
		p = short()
	}
	if *rounds > 0 {
		p.rounds = *rounds
	}
	if *only != "" {
		p.parts = strings.Split(*only, ",")
		for _, name := range p.parts {
			if !slices.Contains(parts, name) {
				return fmt.Errorf("there is no part %q; the parts are %s", name, strings.Join(parts, ", "))
			}
		}
	}
	p.profiles = *profiles
	report, err := measure(ctx, p, progress)
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(report)
	}
	return report.print(out)
}
