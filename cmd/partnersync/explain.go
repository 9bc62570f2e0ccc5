package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
)

type explainCmd struct {
	ID   string `arg:"" help:"Id of an event."`
	Body bool   `help:"Print the body too, without its private fields."`
}

// told is a story with the body as people may see it.
type told struct {
	*ledger.Story
	Trace   string            `json:"trace"`           // the id of the trace to which the event belongs
	Waits   map[string]string `json:"waits,omitempty"` // by sink: what an open route waits for, where the sink is stopped
	Payload map[string]any    `json:"body,omitempty"`
}

func (c explainCmd) Run(ctx context.Context, cli *commands, s streams) error {
	id, err := uuid.Parse(c.ID)
	if err != nil {
		return usageError{fmt.Errorf("%q is not the id of an event: `partnersync events` lists them", c.ID)}
	}
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		story, err := l.Story(ctx, id)
		if errors.Is(err, ledger.ErrNotFound) {
			return fmt.Errorf("there is no event %s: `partnersync events` lists them", id)
		}
		if err != nil {
			return err
		}
		t := told{Story: story, Trace: tracing.PlaceOf(story.ID, story.Trace).TraceID()}
		if t.Waits, err = waits(ctx, l, story); err != nil {
			return err
		}
		if source := cfg.Sources[story.Source]; c.Body && source != nil {
			if body, _, err := source.Shape(story.Type, story.Body); err == nil {
				t.Payload = source.Redact(story.Type, body)
			}
		}
		if cli.JSON {
			return printJSON(s.out, t)
		}
		t.print(s.out)
		return nil
	})
}

// waits tells what the open routes of an event wait for, where that is more than their turn.
func waits(ctx context.Context, l *ledger.Ledger, story *ledger.Story) (map[string]string, error) {
	var open []string
	for _, r := range story.Routes {
		if r.ClosedAt == nil {
			open = append(open, r.Sink)
		}
	}
	if len(open) == 0 {
		return nil, nil
	}
	lines, err := l.Sinks(ctx, open)
	if err != nil {
		return nil, err
	}
	why := map[string]string{}
	for name, line := range lines {
		switch {
		case line.State != "ready":
			why[name] = fmt.Sprintf("%s is %s: %s", name, line.State, line.Reason)
		case !line.Owned:
			why[name] = "no worker runs"
		}
	}
	return why, nil
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") }

// print tells the story in the order in which it happened.
func (t told) print(w io.Writer) {
	say(w, "%s.%s  %s\n", t.Source, t.Type, t.ID)
	if t.Entity != "" {
		say(w, "about %s\n", t.Entity)
	}
	say(w, "\n%s  received, %d bytes: %s", clock(t.ReceivedAt), t.Bytes, t.Status)
	if t.Reason != "" {
		say(w, " (%s)", t.Reason)
	}
	fmt.Fprintln(w)
	if t.VerifiedBy != "" {
		say(w, "%26s  verified by %s\n", "", t.VerifiedBy)
	}
	whose := ""
	if t.Story.Trace != "" {
		whose = ", begun by the sender"
	}
	say(w, "%26s  trace %s%s\n", "", t.Trace, whose)
	if t.OccurredAt != nil {
		say(w, "%26s  happened at %s by the sender's clock\n", "", clock(*t.OccurredAt))
	}
	if t.OccurredAt == nil || !t.OccurredAt.Equal(t.VersionAt) {
		say(w, "%26s  ordered as of %s\n", "", clock(t.VersionAt))
	}
	if t.Duplicates > 0 {
		say(w, "%26s  came again %s; nothing was stored twice\n", "", times(t.Duplicates))
	}
	for _, r := range t.Routes {
		run := ""
		if r.Run > 0 {
			run = fmt.Sprintf(", run %d", r.Run)
		}
		if r.Replay != nil {
			run += fmt.Sprintf(", replay %d", *r.Replay)
		}
		say(w, "\n%s  route to %s opened (config %d%s)\n", clock(r.OpenedAt), r.Sink, r.Generation, run)
		for _, d := range r.Deliveries {
			say(w, "%s  %s: %s", clock(d.At), d.Mapping, d.Outcome)
			if d.Object != "" {
				say(w, " %s %s", d.Object, d.Key)
			}
			if d.CRMID != "" {
				say(w, " as %s", d.CRMID)
			}
			fmt.Fprintln(w)
			if detail := d.Detail(); detail != "" {
				say(w, "%26s  %s\n", "", detail)
			}
			if d.Would != "" {
				say(w, "%26s  would have come to: %s", "", d.Would)
				if len(d.Fields) > 0 {
					say(w, " of %s", strings.Join(d.Fields, ", "))
				}
				if len(d.Overwrites) > 0 {
					say(w, "; the CRM has other values of %s", strings.Join(d.Overwrites, ", "))
				}
				fmt.Fprintln(w)
			}
			for _, what := range d.Awaits {
				say(w, "%26s  it is %s\n", "", what)
			}
		}
		switch {
		case r.ClosedAt == nil:
			say(w, "%26s  still open", "")
			if why := t.Waits[r.Sink]; why != "" {
				say(w, ": %s", why)
			}
			fmt.Fprintln(w)
		default:
			say(w, "%s  route to %s closed: %s", clock(*r.ClosedAt), r.Sink, r.Outcome)
			if len(r.Deliveries) == 0 && r.Reason != "" {
				say(w, " (%s)", r.Reason)
			}
			say(w, ", %s after receipt\n", r.ClosedAt.Sub(t.ReceivedAt).Round(time.Millisecond))
		}
	}
	for _, j := range t.Jobs {
		j := turn(j)
		if j.State == "completed" {
			continue
		}
		say(w, "\n%s (job %d)\n", j.next(time.Now()), j.ID)
	}
	if t.Payload != nil {
		fmt.Fprintln(w, "\nbody:")
		_ = printJSON(w, t.Payload) // what a terminal cannot take is not for us to mend
	}
}

// turn is a job of the queue, as people see it.
type turn ledger.StoryJob

// next tells when a job has its turn.
func (j turn) next(now time.Time) string {
	sink, at := strings.TrimPrefix(j.Queue, ledger.Queue("")), ""
	if j.ScheduledAt.After(now) {
		at = " at " + clock(j.ScheduledAt)
	}
	tries := ""
	if j.Attempt > 1 {
		tries = fmt.Sprintf("; taken up %s so far", times(j.Attempt))
	}
	switch {
	case j.State == "running":
		return fmt.Sprintf("a worker of %s has it in hand%s", sink, tries)
	case at != "":
		return fmt.Sprintf("%s gets it again%s%s", sink, at, tries)
	case j.State == "available" || j.State == "scheduled" || j.State == "retryable" || j.State == "pending":
		return fmt.Sprintf("it waits for its turn at %s%s", sink, tries)
	default:
		return fmt.Sprintf("its turn at %s is over: %s%s", sink, j.State, tries)
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
