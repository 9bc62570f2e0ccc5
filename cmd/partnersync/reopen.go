package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/receiver"
)

// reopened counts what became of malformed bodies that were read again.
type reopened struct {
	Malformed  int `json:"malformed"`  // looked at
	Readable   int `json:"readable"`   // of these
	Events     int `json:"events"`     // stored from them
	Duplicates int `json:"duplicates"` // that were there already
}

// bodiesAtOnce bounds what is held in memory.
const bodiesAtOnce = 20

// reopen reads malformed bodies again.
func (r *replaying) reopen(ctx context.Context, filter ledger.Filter) error {
	if err := resolve(ctx, r.config, r.ledger, &filter); err != nil {
		return err
	}
	if err := r.present(ctx, filter.IDs); err != nil {
		return err
	}
	var generation int64
	if !r.DryRun {
		var err error
		if generation, err = r.ledger.Generation(ctx, r.config.Hash, operator()); err != nil {
			return err
		}
	}
	routing := routing(r.config, generation)
	var n reopened
	var after uuid.UUID
	for {
		list, err := r.ledger.MalformedEvents(ctx, filter, after, bodiesAtOnce)
		if err != nil {
			return err
		}
		for i := range list {
			after = list[i].ID
			n.Malformed++
			events, ok := receiver.Reopen(routing, &list[i])
			if !ok {
				continue
			}
			if r.DryRun {
				n.Readable++
				n.Events += len(events)
				continue
			}
			accepted, err := r.ledger.Reopen(ctx, after, events, generation)
			switch {
			case errors.Is(err, ledger.ErrNotFound), ledger.Refused(err): // somebody else was faster, or Postgres still refuses it
				continue
			case err != nil:
				return err
			}
			n.Readable++
			for _, a := range accepted {
				if a.Duplicate {
					n.Duplicates++
				} else {
					n.Events++
				}
			}
		}
		if len(list) < bodiesAtOnce {
			break
		}
	}
	if r.cli.JSON {
		return printJSON(r.out, n)
	}
	are := "stored"
	if r.DryRun {
		are = "would be stored"
	}
	fmt.Fprintf(r.out, "%s, %d can be read now: %s %s", plural(n.Malformed, "malformed event"), n.Readable, plural(n.Events, "event"), are)
	if n.Duplicates > 0 {
		fmt.Fprintf(r.out, ", %d had come again meanwhile", n.Duplicates)
	}
	fmt.Fprintln(r.out)
	return nil
}
