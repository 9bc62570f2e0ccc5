package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		os.Exit(1)
	}
}

// options are those of a run.
type options struct {
	length time.Duration // of the load
	seed   uint64
	race   bool // partnersync is built with the race detector
	keep   bool // the directory with logs and database also where all went well
}

// leastLength has room for every deed.
const leastLength = 8 * time.Second

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(out)
	seconds := flags.Int("seconds", 180, "how long the load runs")
	seed := flags.Uint64("seed", 0, "what the plan and the events are drawn from; 0: a new one")
	race := flags.Bool("race", false, "build partnersync with the race detector")
	keep := flags.Bool("keep", false, "keep the directory with the logs and the database")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o := options{length: time.Duration(*seconds) * time.Second, seed: *seed, race: *race, keep: *keep}
	if o.length < leastLength {
		return fmt.Errorf("--seconds %d is too short: %.0f are the least", *seconds, leastLength.Seconds())
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	report, err := wreak(ctx, o, out)
	if report != nil {
		report.print(out)
	}
	return err
}

// wreak is one run from beginning to end. The report is there when the end was reached; the
// error says what is wrong with it.
func wreak(ctx context.Context, o options, out io.Writer) (_ *report, err error) {
	plan := draw(o.seed, o.length)
	fmt.Fprintf(out, "chaos: repeat with --seconds %.0f --seed %d\n", o.length.Seconds(), o.seed)
	for _, s := range plan {
		fmt.Fprintf(out, "  %s\n", s)
	}
	w, err := newWorld(ctx, o, out)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, w.close(err != nil || o.keep))
	}()
	l := newLoad(w, o.seed)
	w.load = l
	if err := w.suffer(ctx, plan, o.length, l); err != nil {
		return nil, err
	}
	return w.judge(ctx, l)
}
