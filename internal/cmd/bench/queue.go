package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// queue is work that lies ready before the worker starts.
type queue struct {
	deals   []deal
	perJob  int
	sink    string // that the deals go to
	start   func(context.Context) (*child, error)
	outcome string // in which all routes are to end; empty: delivered
	label   string // of a profile
}

// workQueue fills a queue, has it worked off, and checks how everything ended. The rate is
// that of the routes between the first transaction that closed some and the last.
func (b *bench) workQueue(ctx context.Context, q queue) (_ *window, err error) {
	mark := uuid.Must(uuid.NewV7())
	if err := b.database.acceptAll(ctx, q.sink, q.deals, q.perJob); err != nil {
		return nil, err
	}
	c, err := q.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	used := b.usage(c)
	profiled := profile(c, b.profiles, q.label, 2*time.Second)
	err = b.awaitClosed(ctx, q.sink)
	cost := used.since()
	if err = errors.Join(err, profiled()); err != nil {
		return nil, fmt.Errorf("%w%s", err, c.said())
	}
	if q.outcome == "" {
		q.outcome = "delivered"
	}
	w := &window{events: len(q.deals), cost: cost, memory: peakMemory(c.pid())}
	var first int
	var took float64
	err = b.database.pool.QueryRow(ctx, `
		WITH ended AS (SELECT outcome, closed_at FROM routes WHERE event_id > $1)
		SELECT count(*) FILTER (WHERE outcome = $2), count(*) FILTER (WHERE closed_at = (SELECT min(closed_at) FROM ended)),
			extract(epoch FROM max(closed_at) - min(closed_at))::float8 FROM ended`, mark, q.outcome).Scan(&w.delivered, &first, &took)
	if err != nil {
		return nil, fmt.Errorf("read how routes ended: %w", err)
	}
	if w.delivered != len(q.deals) {
		return nil, fmt.Errorf("%d of %d routes ended as %s%s", w.delivered, len(q.deals), q.outcome, c.said())
	}
	if took > 0 {
		w.perSecond = float64(w.events-first) / took
	}
	return w, nil
}

// awaitClosed waits until no route to these sinks is open. It looks seldom, and by the
// index of the open routes, since looking costs what is measured something.
func (b *bench) awaitClosed(ctx context.Context, sinks ...string) error {
	limited, cancel := context.WithTimeout(ctx, deliveryLimit)
	defer cancel()
	for i := 0; i < len(sinks); {
		var open int
		err := b.database.pool.QueryRow(limited, `
			SELECT count(*) FROM (SELECT FROM routes WHERE sink = $1 AND outcome IS NULL ORDER BY sink, opened_at, event_id LIMIT 1) r`, sinks[i]).Scan(&open)
		if err != nil {
			return fmt.Errorf("look for open routes: %w", err)
		}
		if open == 0 {
			i++
			continue
		}
		select {
		case <-limited.Done():
			return errors.Join(limited.Err(), fmt.Errorf("routes to %s stay open", sinks[i]))
		case <-time.After(b.look):
		}
	}
	return nil
}
