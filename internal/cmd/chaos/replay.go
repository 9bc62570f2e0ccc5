package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
)

// replayed is one line of what `replay --list` tells.
type replayed struct {
	ID         int64
	State      string
	Left, Open int
	Routes     int
}

// Of the states of a replay, those in which nothing is left to be opened.
func (r replayed) opened() bool {
	return slices.Contains([]string{"working", "done", "cancelled"}, r.State)
}

// replay replays what a step says, beside all that happens. Postgres may go away under it, so
// it may fail: settleReplays ends what is left then.
func (w *world) replay(ctx context.Context, s step) (undo func(context.Context) error) {
	under, kill := context.WithCancel(ctx)
	w.errands.Go(func() {
		defer kill()
		_, _ = w.command(under, append([]string{"replay"}, selections()[s.on]...)...)
	})
	switch s.do {
	case replayKilled:
		return func(ctx context.Context) error {
			kill()
			w.errands.Go(func() { w.newestReplay(ctx, "--continue") })
			return nil
		}
	case replayUndone:
		return func(ctx context.Context) error {
			w.errands.Go(func() { w.newestReplay(ctx, "--cancel") })
			return nil
		}
	}
	return nil
}

// newestReplay does something with the newest replay that is under way, if Postgres lets it.
func (w *world) newestReplay(ctx context.Context, what string) {
	list, err := w.listReplays(ctx)
	if err != nil {
		return
	}
	for _, r := range list {
		if r.State != "cancelled" && r.State != "done" {
			_, _ = w.command(ctx, "replay", what, fmt.Sprint(r.ID))
			return
		}
	}
}

func (w *world) listReplays(ctx context.Context) ([]replayed, error) {
	out, err := w.command(ctx, "replay", "--list", "--json")
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	var list []replayed
	if err := json.Unmarshal([]byte(out), &list, json.MatchCaseInsensitiveNames(true)); err != nil {
		return nil, fmt.Errorf("partnersync replay --list --json: %w\n%s", err, out)
	}
	return list, nil
}

// settleReplays goes on with the replays that were cut short, now that nothing is in the way.
func (w *world) settleReplays(ctx context.Context) error {
	w.errands.Wait()
	list, err := w.listReplays(ctx)
	if err != nil {
		return err
	}
	for _, r := range list {
		what := ""
		switch {
		case !r.opened():
			what = "--continue"
		case r.State == "cancelled" && r.Left+r.Open > 0:
			what = "--cancel"
		default:
			continue
		}
		if out, err := w.command(ctx, "replay", what, fmt.Sprint(r.ID)); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	return nil
}

// judgeReplays: each has opened what it selected, or was cancelled, and has nothing left.
func (w *world) judgeReplays(ctx context.Context, v *verdict, r *report) error {
	list, err := w.listReplays(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		r.replays[p.State]++
		if p.State != "done" && p.State != "cancelled" || p.Left+p.Open > 0 {
			v.fault("replay %d is left %s with %d events to open and %d routes open", p.ID, p.State, p.Left, p.Open)
		}
		var routes int
		err := w.pool.QueryRow(ctx, `SELECT count(*) FROM routes WHERE replay = $1`, p.ID).Scan(&routes)
		if err != nil {
			return err
		}
		if routes != p.Routes {
			v.fault("replay %d tells of %d routes, there are %d", p.ID, p.Routes, routes)
		}
		r.replayedRoutes += routes
	}
	return nil
}
