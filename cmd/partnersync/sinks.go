package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
)

type sinksCmd struct {
	List   sinksList   `cmd:"" default:"1" help:"Show the state of each sink."`
	Stop   sinksStop   `cmd:"" help:"Stop sending to a sink; its events wait."`
	Resume sinksResume `cmd:"" help:"Go on sending to a sink, whatever it was stopped for."`
}

type (
	sinksList struct{}
	sinksStop struct {
		Name string `arg:"" help:"Name of the sink."`
	}
	sinksResume struct {
		Name string `arg:"" help:"Name of the sink."`
	}
)

// sinkStatus is one line of the list.
type sinkStatus struct {
	Sink   string         `json:"sink"`
	State  string         `json:"state"`
	Reason string         `json:"reason,omitempty"`
	Until  *time.Time     `json:"until,omitempty"`
	Owner  string         `json:"owner,omitempty"` // "" while no process works it
	Jobs   map[string]int `json:"jobs"`
	Oldest float64        `json:"oldest_seconds"` // of the open routes
	Dead   int            `json:"dead"`
}

func (sinksList) Run(ctx context.Context, cli *commands, s streams) error {
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		names := sortedKeys(cfg.Sinks)
		lines, err := l.Sinks(ctx, names)
		if err != nil {
			return err
		}
		stats, err := l.Queues(ctx, names)
		if err != nil {
			return err
		}
		list := make([]sinkStatus, len(names))
		for i, name := range names {
			line := lines[name]
			list[i] = sinkStatus{Sink: name, State: line.State, Reason: line.Reason, Jobs: stats[i].Jobs, Oldest: stats[i].Oldest.Seconds(), Dead: stats[i].Dead}
			if !line.Until.IsZero() {
				list[i].Until = &line.Until
			}
			if line.Owned {
				list[i].Owner = line.Owner
			}
		}
		if cli.JSON {
			return printJSON(s.out, list)
		}
		w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SINK\tSTATE\tUNTIL\tOWNER\tWAITING\tRUNNING\tOLDEST\tDEAD\tREASON")
		for _, k := range list {
			until, oldest := "", ""
			if k.Until != nil {
				until = k.Until.UTC().Format("15:04:05Z")
			}
			if k.Oldest > 0 {
				oldest = time.Duration(k.Oldest * float64(time.Second)).Round(time.Second).String()
			}
			say(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s\n", k.Sink, k.State, until, orNone(k.Owner),
				k.Jobs["available"]+k.Jobs["scheduled"]+k.Jobs["retryable"], k.Jobs["running"], oldest, k.Dead, k.Reason)
		}
		return w.Flush()
	})
}

func (c sinksStop) Run(ctx context.Context, cli *commands, s streams) error {
	return askOwner(ctx, cli, s, c.Name, "stop", func(state string) bool { return state == "stopped" })
}

func (c sinksResume) Run(ctx context.Context, cli *commands, s streams) error {
	return askOwner(ctx, cli, s, c.Name, "resume", func(state string) bool { return state == "ready" })
}

// askOwner leaves word for the owner of a sink and waits a moment for it to act.
func askOwner(ctx context.Context, cli *commands, s streams, name, what string, done func(state string) bool) error {
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		if cfg.Sinks[name] == nil {
			return usageError{fmt.Errorf("there is no sink %q in the config: %s", name, diag.OneOf(name, sortedKeys(cfg.Sinks)))}
		}
		if err := l.Ask(ctx, name, what); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		for {
			lines, err := l.Sinks(ctx, []string{name})
			if err != nil {
				return err
			}
			line := lines[name]
			if done(line.State) && line.Asked == "" {
				fmt.Fprintf(s.out, "%s is %s\n", name, line.State)
				return nil
			}
			if !line.Owned {
				fmt.Fprintf(s.out, "no worker runs: %s will %s as soon as one does\n", name, what)
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the worker that owns %s has not acted yet: see `partnersync sinks`", name)
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}
