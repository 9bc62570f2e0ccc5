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

// line is the account of a source and sink, or without a sink what went to none.
type line struct {
	ledger.Balance
	Unmapped  int64 `json:"unmapped,omitempty"`
	Ignored   int64 `json:"ignored,omitempty"`
	Malformed int64 `json:"malformed,omitempty"`
}

func account(list []ledger.Balance, idle []ledger.Idle) []line {
	out := make([]line, len(list), len(list)+len(idle))
	for i, b := range list {
		out[i].Balance = b
	}
	for _, i := range idle {
		out = append(out, line{ledger.Balance{Source: i.Source}, i.Unmapped, i.Ignored, i.Malformed})
	}
	return out
}

func counted(list []ledger.Idle) (n int64) {
	for _, i := range list {
		n += i.Unmapped + i.Ignored + i.Malformed
	}
	return n
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
		idle, err := l.Idle(ctx, since)
		if err != nil {
			return err
		}
		if cli.JSON {
			err = printJSON(s.out, account(list, idle))
		} else {
			w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(w, "SOURCE\tSINK\tACCEPTED\t=\tDELIVERED\tUNCHANGED\tSTALE\tSKIPPED\tOBSERVED\tDEAD\t(REPLAYED SINCE\tHEALED)\tOPEN\t+\tUNACCOUNTED\t")
			for _, b := range list {
				say(w, "%s\t%s\t%d\t=\t%d\t%d\t%d\t%d\t%d\t%d\t(%d\t%d)\t%d\t+\t%d\t\n", b.Source, b.Sink, b.Accepted, b.Delivered, b.Unchanged, b.Stale, b.Skipped, b.Observed, b.Dead, b.Replayed, b.Healed, b.Open, b.Unaccounted)
			}
			err = w.Flush()
			for _, i := range idle {
				say(s.out, "%s: to no sink went %d that nothing maps, %d of types that are ignored, %d that could not be read\n", i.Source, i.Unmapped, i.Ignored, i.Malformed)
			}
			if sum := counted(idle); sum >= ledger.IdleLimit {
				say(s.out, "of the newest %d alone\n", sum)
			}
		}
		if err == nil && lost != 0 {
			err = fmt.Errorf("%d routes are unaccounted for", lost)
		}
		return err
	})
}
