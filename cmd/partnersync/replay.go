package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/progress"
)

type replayCmd struct {
	IDs []string `arg:"" optional:"" name:"id" help:"Ids of events."`
	filterFlags
	DryRun  bool `help:"Count what would be done, and how long it would take; change nothing."`
	Rewrite bool `help:"Also send what the CRM has acknowledged."`
	All     bool `help:"Replay everything that is stored, where nothing else selects."`

	Malformed bool `help:"Read malformed bodies again, by the present config, and deliver those that can be read now; alone, or with what selects."`

	List     bool  `help:"List the replays so far."`
	Continue int64 `help:"Do the rest of a replay that was cut short, by its number." placeholder:"N"`
	Cancel   int64 `help:"Cancel a replay by its number." placeholder:"N"`
}

func (c replayCmd) Run(ctx context.Context, cli *commands, s streams) error {
	filter, err := c.filter(c.IDs)
	if err != nil {
		return err
	}
	selects := len(c.IDs) > 0 || c.filterFlags != (filterFlags{})
	asked := 0
	for _, is := range []bool{selects || c.All || c.Malformed, c.List, c.Continue != 0, c.Cancel != 0} {
		if is {
			asked++
		}
	}
	switch {
	case asked == 0:
		return usageError{errors.New("say what to replay: ids, --outcome dead, --source, --since ..., or --all")}
	case asked > 1:
		return usageError{errors.New("--list, --continue and --cancel stand alone, without anything that selects events")}
	case selects && c.All:
		return usageError{errors.New("--all selects everything: leave it away, or the rest")}
	case c.Malformed && (c.All || c.Rewrite):
		return usageError{errors.New("--malformed selects what was never delivered: leave --all and --rewrite away")}
	}
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		r := &replaying{replayCmd: c, cli: cli, streams: s, config: cfg, ledger: l}
		switch {
		case c.List:
			return r.list(ctx)
		case c.Cancel != 0:
			return r.cancel(ctx)
		case c.Continue != 0:
			return r.goOn(ctx)
		case c.Malformed:
			return r.reopen(ctx, filter)
		default:
			return r.begin(ctx, filter)
		}
	})
}

// replaying is a replayCmd at work.
type replaying struct {
	replayCmd
	streams
	cli    *commands
	config *config.Config
	ledger *ledger.Ledger
}

func (r *replaying) begin(ctx context.Context, filter ledger.Filter) error {
	if err := resolve(ctx, r.config, r.ledger, &filter); err != nil {
		return err
	}
	if err := r.present(ctx, filter.IDs); err != nil {
		return err
	}
	spec, bar := r.spec(filter)
	plan, err := r.ledger.PlanReplay(ctx, spec)
	if err != nil {
		return err
	}
	switch {
	case r.DryRun && r.cli.JSON:
		return printJSON(r.out, dryRun{plan, r.seconds(plan)})
	case r.DryRun:
		r.print(plan, filter)
		return nil
	case len(plan.Routes) == 0:
		return fmt.Errorf("nothing to replay: %s", nothing(plan, r.config, filter))
	case !r.cli.JSON:
		r.print(plan, filter)
	}
	if spec.Generation, err = r.ledger.Generation(ctx, r.config.Hash, operator()); err != nil {
		return err
	}
	for name, d := range r.config.Sinks { // who observes anew does so from what is so
		if !d.Writes() && (filter.Sink == "" || filter.Sink == name) {
			if err := r.ledger.DropShadow(ctx, name); err != nil {
				return err
			}
		}
	}
	id, routes, err := r.ledger.Replay(ctx, spec)
	bar.End()
	return r.told(ctx, id, routes, err)
}

// present refuses ids of events that are not there.
func (r *replaying) present(ctx context.Context, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	list, err := r.ledger.Events(ctx, ledger.Filter{IDs: ids}, len(ids))
	if err != nil {
		return err
	}
	var missing []string
	for _, id := range ids {
		if !slices.ContainsFunc(list, func(e ledger.EventLine) bool { return e.ID == id }) {
			missing = append(missing, id.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("there is no event %s: `partnersync events` lists them", strings.Join(missing, ", "))
	}
	return nil
}

func (r *replaying) spec(filter ledger.Filter) (ledger.ReplaySpec, *progress.Progress) {
	bar := progress.New(r.err)
	return ledger.ReplaySpec{Filter: filter, Rewrite: r.Rewrite, By: operator(), Wants: r.wants(filter), Progress: bar.Set}, bar
}

// wants names the sinks of a replay: those of the mapping where one is asked for, so
// that the others do not get again what they have.
func (r *replaying) wants(filter ledger.Filter) func(source, typ string) []string {
	var only []string
	for _, m := range r.config.Mappings.Mappings() {
		if m.Name == filter.Mapping {
			only = append(only, m.Sink)
		}
	}
	if len(only) == 0 {
		return r.config.Mappings.Sinks
	}
	return func(source, typ string) []string {
		return slices.DeleteFunc(slices.Clone(r.config.Mappings.Sinks(source, typ)), func(sink string) bool { return !slices.Contains(only, sink) })
	}
}

// told reports how a replay has ended.
func (r *replaying) told(ctx context.Context, id, routes int64, err error) error {
	switch {
	case err == nil:
	case id == 0 || errors.Is(err, ledger.ErrReplayCancelled) || errors.Is(err, ledger.ErrReplayFinished):
		return err
	default:
		cut := fmt.Errorf("replay %d was cut short after %s: `partnersync replay --continue %d` does the rest, `partnersync replay --cancel %d` takes it back",
			id, plural(int(routes), "route"), id, id)
		if ctx.Err() != nil {
			return cut // somebody wanted it
		}
		return fmt.Errorf("%w\n  %w", err, cut)
	}
	if r.cli.JSON {
		return printJSON(r.out, map[string]int64{"replay": id, "routes": routes})
	}
	say(r.out, "replay %d: %s opened; live events go first\n", id, plural(int(routes), "route"))
	return nil
}

func (r *replaying) goOn(ctx context.Context) error {
	id := r.Continue
	filter, err := r.ledger.ReplayFilter(ctx, id)
	if err != nil {
		return unknown(id, err)
	}
	spec, bar := r.spec(filter)
	if spec.Generation, err = r.ledger.Generation(ctx, r.config.Hash, operator()); err != nil {
		return err
	}
	routes, err := r.ledger.ContinueReplay(ctx, id, spec)
	bar.End()
	return r.told(ctx, id, routes, err)
}

func (r *replaying) cancel(ctx context.Context) error {
	n, err := r.ledger.CancelReplay(ctx, r.Cancel)
	if err != nil {
		return unknown(r.Cancel, err)
	}
	if r.cli.JSON {
		return printJSON(r.out, map[string]int64{"replay": r.Cancel, "cancelled_routes": n})
	}
	say(r.out, "replay %d is cancelled: %s had not been sent\n", r.Cancel, plural(int(n), "route"))
	return nil
}

func unknown(id int64, err error) error {
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return fmt.Errorf("there is no replay %d under way: `partnersync replay --list` lists them", id)
	case errors.Is(err, ledger.ErrReplayErased):
		return fmt.Errorf("%w: `partnersync replay --cancel %d` ends it", err, id)
	}
	return err
}

// dryRun is a plan with the time that it takes.
type dryRun struct {
	*ledger.ReplayPlan
	Seconds map[string]float64 `json:"least_seconds"` // by sink, if every route changes a record
}

func (r *replaying) seconds(plan *ledger.ReplayPlan) map[string]float64 {
	seconds := map[string]float64{}
	for name, routes := range plan.Routes {
		if d := r.config.Sinks[name]; d != nil {
			seconds[name] = d.LeastTime(routes).Seconds()
		}
	}
	return seconds
}

func (r *replaying) print(plan *ledger.ReplayPlan, filter ledger.Filter) {
	if plan.Events+plan.Kept == 0 {
		say(r.out, "nothing to replay: %s\n", nothing(plan, r.config, filter))
		return
	}
	say(r.out, "%s", plural(int(plan.Events), "event"))
	if plan.Later > 0 {
		say(r.out, ", %d of them because they came later to the same things", plan.Later)
	}
	fmt.Fprintln(r.out)
	seconds := r.seconds(plan)
	for _, name := range sortedKeys(plan.Routes) {
		say(r.out, "  %d to %s", plan.Routes[name], name)
		if least := time.Duration(seconds[name] * float64(time.Second)); least > time.Second {
			say(r.out, ", at least %s under its limits if each changes a record", least.Round(time.Second))
		}
		fmt.Fprintln(r.out)
	}
	if plan.Kept > 0 {
		say(r.out, "  not replayed: %s\n", kept(plan))
	}
}

// nothing tells why a plan is empty.
func nothing(plan *ledger.ReplayPlan, cfg *config.Config, filter ledger.Filter) string {
	if plan.Kept == 0 {
		return "no event fits" + strangers(cfg, filter)
	}
	return kept(plan)
}

// kept tells which events cannot be replayed.
func kept(plan *ledger.ReplayPlan) string {
	var parts []string
	for _, k := range []struct {
		n    int64
		what string
	}{
		{plan.Malformed, "malformed, so no mapping can read them (`partnersync replay --malformed` reads them again)"},
		{plan.Ignored, "that the source ignores"},
		{plan.Erased, "erased, since a person is forgotten"},
		{plan.Unwanted, "that no mapping wants"},
	} {
		if k.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", plural(int(k.n), "event"), k.what))
		}
	}
	return strings.Join(parts, "; ")
}

func (r *replaying) list(ctx context.Context) error {
	list, err := r.ledger.Replays(ctx, 50)
	if err != nil {
		return err
	}
	if r.cli.JSON {
		return printJSON(r.out, list)
	}
	if len(list) == 0 {
		fmt.Fprintln(r.out, "nothing has been replayed")
		return nil
	}
	w := tabwriter.NewWriter(r.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "REPLAY\tAT\tBY\tSTATE\tEVENTS\tLEFT\tROUTES\tOPEN\tSELECTION")
	for _, p := range list {
		selection := string(p.Selection)
		if selection == "{}" {
			selection = "everything"
		}
		if len(selection) > longestSelection { // a repair names each event
			selection = selection[:longestSelection] + "..."
		}
		if p.Rewrite {
			selection += " --rewrite"
		}
		say(w, "%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", p.ID, clock(p.At), p.By, p.State, p.Events, p.Left, p.Routes, p.Open, selection)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range list {
		if p.State == ledger.ReplayCut {
			say(r.out, "replay %d was cut short: `partnersync replay --continue %d` does the rest, `partnersync replay --cancel %d` takes it back\n", p.ID, p.ID, p.ID)
		}
	}
	return nil
}

// longestSelection is how much of a selection the list shows; --json has all.
const longestSelection = 300

// operator names whoever runs the command, for the audit.
func operator() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + hostName()
}
