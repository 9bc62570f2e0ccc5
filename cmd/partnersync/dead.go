package main

import (
	"context"
	"fmt"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

type deadCmd struct {
	Source  string `help:"Events of this source only."`
	Sink    string `help:"This sink only."`
	Mapping string `help:"This mapping only."`
	Reason  string `help:"Reasons that hold this text only."`
	Since   string `help:"Since a time, or an age such as 7d." placeholder:"TIME"`
}

func (c deadCmd) Run(ctx context.Context, cli *commands, s streams) error {
	since, err := moment("--since", c.Since)
	if err != nil {
		return err
	}
	return cli.withLedger(ctx, s, func(_ *config.Config, l *ledger.Ledger) error {
		groups, err := l.Dead(ctx, ledger.Filter{Source: c.Source, Sink: c.Sink, Mapping: c.Mapping, Reason: c.Reason, Since: since})
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, groups)
		}
		if len(groups) == 0 {
			fmt.Fprintln(s.out, "nothing is dead")
			return nil
		}
		for _, g := range groups {
			fmt.Fprintf(s.out, "%d to %s", g.Count, g.Sink)
			if g.Mapping != "" {
				fmt.Fprintf(s.out, " by %q", g.Mapping)
			}
			fmt.Fprintf(s.out, ", latest %s\n    %s: %s\n    for example: partnersync explain %s\n    after the fix: partnersync replay%s\n",
				clock(g.Latest), orNone(g.Class), g.Reason, g.Example, replayFlags(g))
		}
		return nil
	})
}

func replayFlags(g ledger.DeadGroup) string {
	flags := fmt.Sprintf(" --outcome dead --sink %s", g.Sink)
	if g.Mapping != "" {
		flags += fmt.Sprintf(" --mapping %q", g.Mapping)
	}
	return flags
}
