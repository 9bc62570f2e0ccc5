package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

type eventsCmd struct {
	filterFlags
	Limit int    `help:"How many, newest first." default:"50"`
	After string `help:"Go on after the event with this id, the last of a list before." placeholder:"ID"`
}

func (c eventsCmd) Run(ctx context.Context, cli *commands, s streams) error {
	filter, err := c.filter(nil)
	if err != nil {
		return err
	}
	if c.Limit < 1 {
		return usageError{fmt.Errorf("--limit %d: ask for one event at least", c.Limit)}
	}
	if c.After != "" {
		if filter.After, err = uuid.Parse(c.After); err != nil {
			return usageError{fmt.Errorf("--after: %q is not the id of an event", c.After)}
		}
	}
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		if err := resolve(ctx, cfg, l, &filter); err != nil {
			return err
		}
		list, err := l.Events(ctx, filter, c.Limit)
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, list)
		}
		if len(list) == 0 {
			say(s.out, "no event fits%s\n", strangers(cfg, filter))
			return nil
		}
		w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "RECEIVED\tID\tEVENT\tENTITY\tSTATUS\tOUTCOME")
		for _, e := range list {
			outcome := strings.Join(e.Outcomes, ", ")
			for _, why := range e.Skipped {
				sink, reason, _ := strings.Cut(why, ": ")
				outcome = strings.Replace(outcome, sink+": skipped", sink+": skipped ("+reason+")", 1)
			}
			if outcome == "" {
				outcome = e.Reason // why nothing delivers it
			}
			say(w, "%s\t%s\t%s.%s\t%s\t%s\t%s\n", e.ReceivedAt.UTC().Format("2006-01-02 15:04:05Z"), e.ID, e.Source, e.Type, e.Entity, e.Status, outcome)
		}
		if err := w.Flush(); err != nil || len(list) < c.Limit {
			return err
		}
		fmt.Fprintf(s.err, "there may be more: --after %s\n", list[len(list)-1].ID)
		return nil
	})
}
