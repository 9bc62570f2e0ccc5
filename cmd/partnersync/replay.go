package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"text/tabwriter"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

type replayCmd struct {
	IDs []string `arg:"" optional:"" help:"Ids of events."`
	filterFlags
	DryRun  bool  `help:"Count what would be done, and how long it would take; change nothing."`
	Rewrite bool  `help:"Also send what the CRM has acknowledged."`
	All     bool  `help:"Replay everything that is stored, where nothing else selects."`
	List    bool  `help:"List the replays so far."`
	Cancel  int64 `help:"Cancel a replay by its number." placeholder:"N"`
}

func (c replayCmd) Run(ctx context.Context, cli *commands, s streams) error {
	filter, err := c.filter(c.IDs)
	if err != nil {
		return err
	}
	selects := len(c.IDs) > 0 || c.filterFlags != (filterFlags{})
	if !selects && !c.All && !c.List && c.Cancel == 0 {
		return usageError{errors.New("say what to replay: ids, --outcome dead, --source, --since ..., or --all")}
	}
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		switch {
		case c.List:
			return listReplays(ctx, cli, s, l)
		case c.Cancel != 0:
			n, err := l.CancelReplay(ctx, c.Cancel)
			if errors.Is(err, ledger.ErrNotFound) {
				return fmt.Errorf("there is no replay %d under way: `partnersync replay --list` lists them", c.Cancel)
			}
			if err == nil {
				fmt.Fprintf(s.out, "replay %d is cancelled: %s had not been sent\n", c.Cancel, plural(int(n), "route"))
			}
			return err
		}
		spec := ledger.ReplaySpec{Filter: filter, Rewrite: c.Rewrite, By: operator(), Wants: cfg.Mappings.Sinks, Sink: c.Sink}
		plan, err := l.PlanReplay(ctx, spec)
		if err != nil {
			return err
		}
		if cli.JSON && c.DryRun {
			return printJSON(s.out, plan)
		}
		printPlan(cfg, s, plan)
		if c.DryRun {
			return nil
		}
		if len(plan.Routes) == 0 {
			if plan.Erased > 0 {
				return fmt.Errorf("nothing to replay: erased, since a person is forgotten: %s", plural(int(plan.Erased), "event"))
			}
			return errors.New("nothing to replay")
		}
		if spec.Generation, err = l.Generation(ctx, cfg.Hash, operator()); err != nil {
			return err
		}
		id, routes, err := l.Replay(ctx, spec)
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, map[string]int64{"replay": id, "routes": routes})
		}
		fmt.Fprintf(s.out, "replay %d: %s opened; live events go first\n", id, plural(int(routes), "route"))
		return nil
	})
}

func printPlan(cfg *config.Config, s streams, plan *ledger.ReplayPlan) {
	fmt.Fprintf(s.out, "%s", plural(int(plan.Events), "event"))
	if plan.Later > 0 {
		fmt.Fprintf(s.out, ", %d of them because they came later to the same things", plan.Later)
	}
	fmt.Fprintln(s.out)
	for _, name := range sortedKeys(plan.Routes) {
		fmt.Fprintf(s.out, "  %d to %s", plan.Routes[name], name)
		if d := cfg.Sinks[name]; d != nil {
			if least := d.LeastTime(plan.Routes[name]); least > time.Second {
				fmt.Fprintf(s.out, ", at least %s under its limits", least.Round(time.Second))
			}
		}
		fmt.Fprintln(s.out)
	}
	if plan.Kept > 0 {
		fmt.Fprintf(s.out, "  %s no mapping wants, or cannot be replayed: malformed, ignored or erased\n", plural(int(plan.Kept), "event"))
	}
}

func listReplays(ctx context.Context, cli *commands, s streams, l *ledger.Ledger) error {
	list, err := l.Replays(ctx, 50)
	if err != nil {
		return err
	}
	if cli.JSON {
		return printJSON(s.out, list)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "REPLAY\tAT\tBY\tROUTES\tOPEN\tSELECTION")
	for _, r := range list {
		state := fmt.Sprint(r.Open)
		if r.CancelledAt != nil {
			state = "cancelled"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\n", r.ID, clock(r.At), r.By, r.Routes, state, r.Selection)
	}
	return w.Flush()
}

// operator names whoever runs the command, for the audit.
func operator() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + hostName()
}
