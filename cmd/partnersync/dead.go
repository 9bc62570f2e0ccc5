package main

import (
	"context"
	"fmt"
	"reflect"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

// deadGroups is how many groups a person is shown: where the CRM's message holds a
// value, each may be a group of its own.
const deadGroups = 50

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
	filter := ledger.Filter{Source: c.Source, Sink: c.Sink, Mapping: c.Mapping, Reason: c.Reason, Since: since}
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		if err := resolve(ctx, cfg, l, &filter); err != nil {
			return err
		}
		groups, err := l.Dead(ctx, filter)
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, groups)
		}
		if len(groups) == 0 {
			what := "nothing is dead"
			if !reflect.DeepEqual(filter, ledger.Filter{}) {
				what = "nothing that fits is dead"
			}
			say(s.out, "%s%s\n", what, strangers(cfg, filter))
			return nil
		}
		for i, g := range groups {
			if i == deadGroups {
				say(s.out, "and %s more: narrow it down with --sink, --mapping, --reason, --since, or take --json\n", plural(len(groups)-i, "group"))
				break
			}
			say(s.out, "%d to %s", g.Count, g.Sink)
			if g.Mapping != "" {
				say(s.out, " by %q", g.Mapping)
			}
			say(s.out, ", latest %s\n    %s: %s\n    for example: partnersync explain %s\n    after the fix: partnersync replay%s\n",
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
