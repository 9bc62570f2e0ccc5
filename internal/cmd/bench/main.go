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
	"partnersync/internal/progress"
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

// plan is how much is measured. Everything in it is bounded.
type plan struct {
	parts       []part
	rounds      int
	connections int
	warm        time.Duration // of a window, not measured
	window      time.Duration
	queued      int // events in a queue that is worked off
	plainQueued int
	steadyRate  int // events per second
	steady      time.Duration
	together    time.Duration
	updates     int           // deals that are updated, of which calls are counted
	farDeals    int           // deals of a CRM that takes batches, and a twentieth for others
	beside      time.Duration // of a window beside a slow sink
	besideRate  int
	known       int           // deals of the windows about convergence
	rows        int64         // in the big tables; 0: there are none
	onRows      int           // events in a queue on them
	commands    int           // runs of each command on them
	look        time.Duration // pause between looks at whether a queue is worked off
	short       bool
	profiles    string // directory for profiles of partnersync; empty: none
}

func full() plan {
	return plan{
		rounds: 5, connections: 64, warm: 500 * time.Millisecond, window: 3 * time.Second,
		queued: 24_000, plainQueued: 8_000, steadyRate: 500, steady: 10 * time.Second, together: 4 * time.Second,
		updates: 1000, farDeals: 8_000, beside: 6 * time.Second, besideRate: 300, known: 12_000, onRows: 8_000, commands: 3, look: 250 * time.Millisecond,
	}
}

// short is enough to see that everything works; its numbers mean nothing.
func short() plan {
	return plan{
		short: true, rounds: 1, connections: 16, warm: 50 * time.Millisecond, window: 150 * time.Millisecond,
		queued: 500, plainQueued: 200, steadyRate: 200, steady: 500 * time.Millisecond, together: 200 * time.Millisecond,
		updates: 100, farDeals: 200, beside: 500 * time.Millisecond, besideRate: 100, known: 200, onRows: 200, commands: 1, look: 20 * time.Millisecond,
	}
}

func run(ctx context.Context, args []string, out, told io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(told)
	asJSON := flags.Bool("json", false, "print JSON instead of tables")
	quick := flags.Bool("short", false, "a few seconds only: shows that everything works, measures nothing")
	rounds := flags.Int("rounds", 0, "windows per form")
	only := flags.String("only", "", "some `parts` only, with commas between; --list lists them")
	listed := flags.Bool("list", false, "list the parts and do nothing")
	rows := flags.Int64("rows", 0, "also measure on tables of so many rows; 10000000 take 40 GB of disk and half an hour")
	profiles := flags.String("profile", "", "write CPU profiles of partnersync into this `directory`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *listed {
		return list(out)
	}
	p := full()
	if *quick {
		p = short()
	}
	if *rounds > 0 {
		p.rounds = *rounds
	}
	p.rows, p.profiles = *rows, *profiles
	if p.rows != 0 && (p.rows < leastRows || p.rows > mostRows) {
		return fmt.Errorf("--rows %d: between %d and %d", p.rows, leastRows, mostRows)
	}
	var err error
	if p.parts, err = choose(*only, p.rows); err != nil {
		return err
	}
	show := func(r *Report, name string) error { return r.show(out, name) }
	if *asJSON {
		show = func(*Report, string) error { return nil }
	}
	report, err := measure(ctx, p, progress.New(told), show)
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(report)
	}
	return report.printAims(out)
}
