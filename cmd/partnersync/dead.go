package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

// deadGroups is how many groups a person is shown: where the CRM's message holds a
// value, each may be a group of its own.
const deadGroups = 50

type deadCmd struct {
	Source  string `help:"Events of this source only." predictor:"source"`
	Sink    string `help:"This sink only." predictor:"sink"`
	Mapping string `help:"This mapping only." predictor:"mapping"`
	Reason  string `help:"Reasons that hold this text only."`
	Skipped bool   `help:"Those that were skipped: of a record that is gone or archived, there already or not there, of values that the CRM has refused before or keeps otherwise, of refusals that are expected."`
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
		list, state, outcome := l.Dead, "dead", "dead"
		if c.Skipped {
			list, state, outcome = l.Skipped, "skipped", ""
		}
		groups, err := list(ctx, filter)
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, groups)
		}
		if len(groups) == 0 {
			what := "nothing"
			if !reflect.DeepEqual(filter, ledger.Filter{}) {
				what = "nothing that fits"
			}
			say(s.out, "%s is %s%s\n", what, state, strangers(cfg, filter))
			return nil
		}
		total := int64(0)
		for i, g := range groups {
			if i == deadGroups {
				say(s.out, "and %s more: narrow it down with --sink, --mapping, --reason, --since, or take --json\n", plural(len(groups)-i, "group"))
				break
			}
			say(s.out, "%d to %s", g.Count, g.Sink)
			if g.Records > 0 && g.Records < g.Count {
				say(s.out, ", of %s", plural(int(g.Records), "record"))
			}
			if g.Mapping != "" {
				say(s.out, " by %q", g.Mapping)
			}
			if g.First.Before(g.Latest) {
				say(s.out, ", since %s", clock(g.First))
			}
			say(s.out, ", latest %s\n    %s: %s\n", clock(g.Latest), orNone(g.Class), g.Reason)
			if g.Without > 0 {
				say(s.out, "    %s went out without it\n", plural(int(g.Without), "later event"))
			}
			say(s.out, "    for example: partnersync explain %s\n    after the fix: partnersync replay%s\n", g.Example, replayFlags(g, outcome))
			total += g.Count
		}
		if c.Skipped && total >= ledger.SkippedLimit {
			say(s.out, "of the newest %d alone\n", ledger.SkippedLimit)
		}
		return nil
	})
}

// replayFlags select what a group holds.
func replayFlags(g ledger.DeadGroup, outcome string) string {
	flags := ""
	if outcome != "" {
		flags = " --outcome " + outcome
	}
	flags += " --sink " + g.Sink
	if g.Mapping != "" {
		flags += fmt.Sprintf(" --mapping %q", g.Mapping)
	}
	if outcome == "" { // the outcome of a route is the worst of its deliveries
		reason, _, _ := strings.Cut(g.Reason, " of an earlier event")
		flags += fmt.Sprintf(" --reason %q", reason)
	}
	return flags
}
