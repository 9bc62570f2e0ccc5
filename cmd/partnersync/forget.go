package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/progress"
)

type forgetCmd struct {
	Email  string `arg:"" help:"E-mail address of the person."`
	DryRun bool   `help:"Show what would be erased; change nothing."`
	Yes    bool   `help:"Do not ask."`
}

func (c forgetCmd) Run(ctx context.Context, cli *commands, s streams) error {
	address, err := ledger.ParseAddress(c.Email)
	if err != nil {
		return usageError{err}
	}
	ask := !c.DryRun && !c.Yes
	if ask && !canAsk(cli) {
		return errNobodyToAsk
	}
	return cli.withLedger(ctx, s, func(_ *config.Config, l *ledger.Ledger) error {
		bar := progress.New(s.err)
		forget := func(dry bool) error {
			found, err := l.Forget(ctx, ledger.Person{Address: address, By: operator(), DryRun: dry, Progress: bar.Set})
			bar.End()
			if err != nil {
				err = fmt.Errorf("%w; what has been erased so far is told above: the same command does the rest", err)
			}
			if cli.JSON {
				return errors.Join(printJSON(s.out, found), err)
			}
			return errors.Join(printForgotten(s.out, found, dry), err)
		}
		if !ask {
			return forget(c.DryRun)
		}
		if err := forget(true); err != nil {
			return err
		}
		if !confirmed(ctx, s) {
			return errors.New("nothing has been erased")
		}
		return forget(false)
	})
}

// canAsk reports whether there is somebody who could say yes.
func canAsk(cli *commands) bool { return !cli.JSON && term.IsTerminal(int(os.Stdin.Fd())) }

var errNobodyToAsk = usageError{errors.New("nothing can be brought back: look with --dry-run, then say --yes")}

// confirmed asks whether to go on.
func confirmed(ctx context.Context, s streams) bool {
	fmt.Fprint(s.err, "\nnothing can be brought back; go on? [y/N] ")
	answered := make(chan string, 1)
	go func() { // ends with the process, whoever waits for it
		answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answered <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answered:
		return answer == "y" || answer == "yes"
	case <-ctx.Done():
		return false // no answer is a no
	}
}

func printForgotten(out io.Writer, f *ledger.Forgotten, dry bool) error {
	verb := "erased"
	if dry {
		verb = "to erase"
	}
	say(out, "%s: %s, %s, %s, errors of %s\n", verb, plural(int(f.Events), "event"), deliveries(f.Deliveries), plural(int(f.Records), "record"), plural(int(f.Jobs), "job"))
	if !dry {
		fmt.Fprintln(out, "an event that comes later and holds the address is skipped and erased")
	}
	if err := printUnderWay(out, f.UnderWay); err != nil || len(f.CRM) == 0 {
		return err
	}
	fmt.Fprintln(out, "\nthese records are in the CRMs, where partnersync deletes nothing:")
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SINK\tOBJECT\tID\tBECAUSE")
	for _, r := range f.CRM {
		why := "an event that holds the address has written it"
		if r.Holds {
			why = "it holds the address"
		}
		say(w, "%s\t%s\t%s\t%s\n", r.Sink, r.Object, r.ID, why)
	}
	return w.Flush()
}

// printUnderWay tells of requests whose results nobody records any more.
func printUnderWay(out io.Writer, list []ledger.UnderWay) error {
	if len(list) == 0 {
		return nil
	}
	n := 0
	for _, u := range list {
		n += u.Records
	}
	fmt.Fprintf(out, "\nrequests for %s were on their way: look in the CRM for this address\n", plural(n, "record"))
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SINK\tOBJECT\tRECORDS")
	for _, u := range list {
		say(w, "%s\t%s\t%d\n", u.Sink, u.Object, u.Records)
	}
	return w.Flush()
}

func deliveries(n int64) string {
	if n == 1 {
		return "1 delivery"
	}
	return fmt.Sprintf("%d deliveries", n)
}
