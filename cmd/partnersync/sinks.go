package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
)

type sinksCmd struct {
	List   sinksList   `cmd:"" default:"1" help:"Show the state of each sink."`
	Stop   sinksStop   `cmd:"" help:"Stop sending to a sink; its events wait."`
	Resume sinksResume `cmd:"" help:"Resume a sink, whatever stopped it."`
	Drop   sinksDrop   `cmd:"" help:"End what waits for a sink that the config does not have any more, or free a former name."`
}

type (
	sinksList struct{}
	sinksStop struct {
		Name string `arg:"" help:"Name of the sink." predictor:"sink"`
	}
	sinksResume struct {
		Name string `arg:"" help:"Name of the sink." predictor:"sink"`
	}
	sinksDrop struct {
		Name   string `arg:"" help:"Name of the sink." predictor:"sink"`
		DryRun bool   `help:"Show what would end; change nothing."`
		Yes    bool   `help:"Do not ask."`
	}
)

// gone is the state of a sink that the config does not have.
const gone = "gone"

// sinkStatus is one line of the list.
type sinkStatus struct {
	Sink   string         `json:"sink"`
	State  string         `json:"state"`
	Writes bool           `json:"writes"` // false: it observes
	Reason string         `json:"reason,omitempty"`
	Until  *time.Time     `json:"until,omitempty"`
	Owner  string         `json:"owner,omitempty"` // "" while no process works it
	Open   int            `json:"open,omitempty"`  // routes that wait for a sink that is gone from the config
	Jobs   map[string]int `json:"jobs"`
	Oldest float64        `json:"oldest_seconds"` // of the open routes
	Dead   int            `json:"dead"`
	Live   *ledger.Look   `json:"live,omitempty"`
}

func (sinksList) Run(ctx context.Context, cli *commands, s streams) error {
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		list, err := sinkStates(ctx, cfg, l)
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, list)
		}
		w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SINK\tSTATE\tUNTIL\tOWNER\tWAITING\tRUNNING\tOLDEST\tDEAD\tREASON")
		for _, k := range list {
			until, oldest, state := "", "", k.State
			if k.Until != nil {
				until = k.Until.UTC().Format("15:04:05Z")
			}
			if k.Oldest > 0 {
				oldest = time.Duration(k.Oldest * float64(time.Second)).Round(time.Second).String()
			}
			waiting := k.Jobs["available"] + k.Jobs["scheduled"] + k.Jobs["retryable"]
			if k.State == gone {
				state, waiting = "gone from the config", k.Open
			} else if !k.Writes {
				state += ", observes"
			}
			say(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s\n", k.Sink, state, until, orNone(k.Owner), waiting, k.Jobs["running"], oldest, k.Dead, k.Reason)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, k := range list {
			if k.Live != nil && k.Live.Errors > 0 {
				say(s.out, "%s: the CRM lacks %d of what the mappings name, or has it otherwise: `partnersync check --live` tells\n", k.Sink, k.Live.Errors)
			}
		}
		return nil
	})
}

// sinkStates are the sinks of the config, then those that are stored and that it does not have.
func sinkStates(ctx context.Context, cfg *config.Config, l *ledger.Ledger) ([]sinkStatus, error) {
	orphans, err := l.Orphans(ctx, cfg.SinkNames())
	if err != nil {
		return nil, err
	}
	names := sortedKeys(cfg.Sinks)
	for _, o := range orphans {
		names = append(names, o.Sink)
	}
	lines, err := l.Sinks(ctx, append(cfg.SinkNames(), names...))
	if err != nil {
		return nil, err
	}
	stats, err := l.Queues(ctx, names)
	if err != nil {
		return nil, err
	}
	list := make([]sinkStatus, len(names))
	for i, name := range names {
		line := lines[name]
		list[i] = sinkStatus{Sink: name, State: line.State, Reason: line.Reason, Jobs: stats[i].Jobs, Oldest: stats[i].Oldest.Seconds(), Dead: stats[i].Dead, Live: line.Look}
		if !line.Until.IsZero() {
			list[i].Until = &line.Until
		}
		if line.Owned {
			list[i].Owner = line.Owner
		}
		sink := cfg.Sinks[name]
		list[i].Writes = sink != nil && sink.Writes()
		if sink == nil {
			o := orphans[i-len(cfg.Sinks)]
			list[i].State, list[i].Until, list[i].Open, list[i].Reason = gone, nil, o.Open, orphanReason(o)
		} else if !line.Owned && list[i].Reason == "" {
			list[i].Reason = waitsFor(sink.Formerly(), lines)
		}
	}
	return list, nil
}

// waitsFor tells which former name of a sink somebody works.
func waitsFor(formerly []string, lines map[string]ledger.SinkLine) string {
	for _, name := range formerly {
		if line := lines[name]; line.Owned && line.RenamedTo == "" {
			return fmt.Sprintf("waits for its former name %s, which %s works by another config", name, line.Owner)
		}
	}
	return ""
}

func orphanReason(o ledger.Orphan) string {
	if o.RenamedTo != "" {
		return "it was renamed to " + o.RenamedTo
	}
	return fmt.Sprintf("`partnersync sinks drop %s` ends what waits", o.Sink)
}

// orphanTold tells what waits for a sink that the config does not have, and what to do; "" where nothing does.
func orphanTold(o ledger.Orphan) (message, hint string) {
	waits := plural(o.Open, "event") + " still wait"
	switch {
	case o.Open == 0:
		return "", ""
	case o.Open == 1:
		waits += "s"
	case o.Open >= ledger.CountLimit:
		waits = fmt.Sprintf("%d events or more still wait", o.Open)
	}
	return fmt.Sprintf("%s for %s, which the config no longer has", waits, o.Sink),
		fmt.Sprintf("put it back, name it in `formerly` of the sink that takes its place, or end them with `partnersync sinks drop %s`", o.Sink)
}

// orphanLines tell the same, a line for each sink.
func orphanLines(orphans []ledger.Orphan) []string {
	var lines []string
	for _, o := range orphans {
		if message, hint := orphanTold(o); message != "" {
			lines = append(lines, message+": "+hint)
		}
	}
	return lines
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
		before, err := sinkToAsk(ctx, cfg, l, name, what)
		if err != nil {
			return err
		}
		if err := l.Ask(ctx, name, what); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		stays := 0 // how often it was found as it should be
		for {
			lines, err := l.Sinks(ctx, []string{name})
			if err != nil {
				return err
			}
			line := lines[name]
			acted := line.Asked == ""
			if !acted {
				before.ChangedAt = line.ChangedAt
			}
			switch {
			case acted && done(line.State):
				// A sink that goes on and is refused is stopped again at once, if anything waits for it.
				if stays++; what == "stop" || before.State == "ready" || before.State == "stopped" || stays > 5 {
					fmt.Fprintf(s.out, "%s is %s\n", name, line.State)
					return nil
				}
			case acted && what == "resume" && !line.ChangedAt.Equal(before.ChangedAt):
				return fmt.Errorf("%s went on and is %s again: %s", name, line.State, line.Reason)
			case !line.Owned:
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

// sinkToAsk returns a sink as it is now, or says why nobody can be asked to stop or resume it.
func sinkToAsk(ctx context.Context, cfg *config.Config, l *ledger.Ledger, name, what string) (ledger.SinkLine, error) {
	lines, err := l.Sinks(ctx, []string{name})
	if err != nil {
		return ledger.SinkLine{}, err
	}
	line := lines[name]
	switch {
	case line.RenamedTo != "" && cfg.Sinks[name] == nil && cfg.Sinks[line.RenamedTo] != nil:
		return line, usageError{fmt.Errorf("%s was renamed to %s: `partnersync sinks %s %s`", name, line.RenamedTo, what, line.RenamedTo)}
	case line.Barred:
		return line, usageError{fmt.Errorf("nobody can %s %s: %s", what, name, line.Reason)}
	case cfg.Sinks[name] != nil:
		return line, nil
	}
	orphans, err := l.Orphans(ctx, cfg.SinkNames())
	if err != nil {
		return line, err
	}
	for _, o := range orphans {
		if o.Sink != name {
			continue
		}
		if told := orphanLines([]ledger.Orphan{o}); len(told) > 0 {
			return line, usageError{errors.New(told[0])}
		}
		return line, usageError{fmt.Errorf("%s is gone from the config, and nothing waits for it", name)}
	}
	return line, usageError{fmt.Errorf("there is no sink %q in the config: %s", name, diag.OneOf(name, sortedKeys(cfg.Sinks)))}
}

func (c sinksDrop) Run(ctx context.Context, cli *commands, s streams) error {
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		lines, err := l.Sinks(ctx, []string{c.Name})
		if err != nil {
			return err
		}
		line := lines[c.Name]
		if line.RenamedTo != "" {
			return c.free(ctx, cli, cfg, l, s, line.RenamedTo)
		}
		if err := c.droppable(ctx, cfg, l, line); err != nil {
			return err
		}
		holds, err := l.Holds(ctx, c.Name)
		if err != nil {
			return err
		}
		if c.DryRun {
			return c.print(cli, s, holds, "to end")
		}
		if !c.Yes {
			if !canAsk(cli) {
				return errNobodyToAsk
			}
			if err := c.print(cli, s, holds, "to end"); err != nil {
				return err
			}
			if !confirmed(ctx, s) {
				return errors.New("nothing has been dropped")
			}
		}
		dropped, err := l.Drop(ctx, c.Name, operator())
		if errors.Is(err, ledger.ErrOwned) {
			return c.owned(line)
		}
		if err != nil {
			return err
		}
		return c.print(cli, s, dropped, "ended")
	})
}

// droppable says why a sink must not be dropped.
func (c sinksDrop) droppable(ctx context.Context, cfg *config.Config, l *ledger.Ledger, line ledger.SinkLine) error {
	if cfg.Sinks[c.Name] != nil {
		return usageError{fmt.Errorf("%s is in the config: take it out and reload first", c.Name)}
	}
	stored, err := l.Orphans(ctx, sortedKeys(cfg.Sinks))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(stored, func(o ledger.Orphan) bool { return o.Sink == c.Name }) {
		return usageError{fmt.Errorf("nothing is known of a sink %q: `partnersync sinks` lists those that are gone from the config", c.Name)}
	}
	for name, sink := range cfg.Sinks {
		if !slices.Contains(sink.Formerly(), c.Name) {
			continue
		}
		if heirs, err := l.Sinks(ctx, []string{name}); err != nil || !heirs[name].Barred {
			return errors.Join(err, usageError{fmt.Errorf("%s takes over what is known of %s: take that out of its `formerly` first", name, c.Name)})
		}
	}
	if line.Owned {
		return c.owned(line)
	}
	return nil
}

func (c sinksDrop) owned(line ledger.SinkLine) error {
	return fmt.Errorf("%s still works %s: reload or end the processes that have it in their config", line.Owner, c.Name)
}

// free makes a former name one that another sink may bear.
func (c sinksDrop) free(ctx context.Context, cli *commands, cfg *config.Config, l *ledger.Ledger, s streams, to string) error {
	for name, sink := range cfg.Sinks {
		if slices.Contains(sink.Formerly(), c.Name) {
			return usageError{fmt.Errorf("%s was formerly %s, says the config: take that out first, once no process has an older config", name, c.Name)}
		}
	}
	said := fmt.Sprintf("%s, which was renamed to %s, is a free name", c.Name, to)
	if c.DryRun {
		said = fmt.Sprintf("%s, which was renamed to %s, would be a free name", c.Name, to)
	} else if _, err := l.Free(ctx, c.Name); err != nil {
		return err
	}
	if cli.JSON {
		return printJSON(s.out, map[string]string{"sink": c.Name, "renamed_to": to})
	}
	fmt.Fprintln(s.out, said)
	return nil
}

func (c sinksDrop) print(cli *commands, s streams, d ledger.Dropped, verb string) error {
	if cli.JSON {
		return printJSON(s.out, d)
	}
	fmt.Fprintf(s.out, "%s: %s of %s, as skipped; what is known of %s\n", verb, plural(int(d.Open), "open event"), c.Name, plural(int(d.Records), "record"))
	return nil
}
