package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

type ledgerCmd struct {
	Since string `help:"Routes opened since a time, or an age such as 7d; to the hour." placeholder:"TIME"`
}

func (c ledgerCmd) Run(ctx context.Context, cli *commands, s streams) error {
	since, err := moment("--since", c.Since)
	if err != nil {
		return err
	}
	return cli.withLedger(ctx, s, func(_ *config.Config, l *ledger.Ledger) error {
		list, err := l.Balances(ctx, since)
		if err != nil {
			return err
		}
		var lost int64
		for _, b := range list {
			lost += max(b.Unaccounted, -b.Unaccounted)
		}
		if cli.JSON {
			err = printJSON(s.out, list)
		} else {
			w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(w, "SOURCE\tSINK\tACCEPTED\t=\tDELIVERED\tUNCHANGED\tSTALE\tSKIPPED\tOBSERVED\tDEAD\t(REPLAYED SINCE)\tOPEN\t+\tUNACCOUNTED\t")
			for _, b := range list {
				say(w, "%s\t%s\t%d\t=\t%d\t%d\t%d\t%d\t%d\t%d\t(%d)\t%d\t+\t%d\t\n", b.Source, b.Sink, b.Accepted, b.Delivered, b.Unchanged, b.Stale, b.Skipped, b.Observed, b.Dead, b.Replayed, b.Open, b.Unaccounted)
			}
			err = w.Flush()
		}
		if err == nil && lost != 0 {
			err = fmt.Errorf("%d routes are unaccounted for", lost)
		}
		return err
	})
}
