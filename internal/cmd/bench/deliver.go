package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// steadyForms are measured at an even rate.
var steadyForms = []string{formOurs, formPlain}

// atSteadyRate measures how long things take when there is little to do.
func (b *bench) atSteadyRate(ctx context.Context) (err error) {
	b.report.Steady, err = b.takeTurns(ctx, "steady", 1, steadyForms, b.steadyOnce)
	if b.report.Steady != nil {
		b.report.Steady.Ratios = nil // the rate is given
	}
	return err
}

func (b *bench) steadyOnce(ctx context.Context, form, label string) (_ *window, err error) {
	if err := b.crm.reset(ctx, offerLimit); err != nil {
		return nil, err
	}
	c, err := b.start(ctx, form, "receive,work")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	warm, err := b.warmUp(ctx, c)
	if err != nil {
		return nil, err
	}
	used := b.usage(c)
	profiled := profile(c, b.profilesOf(form), label, b.steady)
	l, err := offer(ctx, c.address, hooksPath, b.connections, b.steadyRate, b.steady, warm)
	if err = errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	cost := used.since()
	w, answered, err := b.awaitDelivered(ctx, form, warm+l.answered)
	if err != nil {
		return nil, err
	}
	for i := warm; i < w.events; i++ {
		w.arrivals = append(w.arrivals, time.Duration(answered[i]-l.sentAt[i]))
	}
	w.perSecond, w.answers, w.cost, w.memory = l.perSecond(), l.latencies, cost, peakMemory(c.pid())
	return w, nil
}

// everything measures the whole way under as many requests as are taken: load, receiver,
// workers, CRM and Postgres share the machine. The rate is that of events which have
// come all the way, those included that had piled up when the load ended.
func (b *bench) everything(ctx context.Context) (err error) {
	b.report.Together, err = b.takeTurns(ctx, "together", b.rounds, []string{formOurs, formOurs100, formOne, formPlain}, b.everythingOnce)
	return err
}

func (b *bench) everythingOnce(ctx context.Context, form, label string) (_ *window, err error) {
	if err := b.crm.reset(ctx, offerLimit); err != nil {
		return nil, err
	}
	c, err := b.start(ctx, form, "receive,work")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	warm, err := b.warmUp(ctx, c)
	if err != nil {
		return nil, err
	}
	used := b.usage(c)
	profiled := profile(c, b.profilesOf(form), label, b.together)
	begin := time.Now()
	l, err := flood(ctx, c.address, hooksPath, b.connections, 0, b.together, warm)
	if err = errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	w, answered, err := b.awaitDelivered(ctx, form, warm+l.answered)
	if err != nil {
		return nil, err
	}
	w.perSecond = float64(l.answered) / time.Unix(0, slices.Max(answered)).Sub(begin).Seconds()
	w.answers, w.cost, w.memory = l.latencies, used.since(), peakMemory(c.pid())
	return w, nil
}

// warmUp sends some events and waits until the CRM has them, since what the first ones
// cost, and the time until the workers begin, is no part of what goes on all day. It
// returns how many they were.
func (b *bench) warmUp(ctx context.Context, c *child) (int, error) {
	l, err := offer(ctx, c.address, hooksPath, b.connections, b.steadyRate, b.steady/10, 0)
	if err != nil {
		return 0, err
	}
	return l.answered, b.awaitArrived(ctx, l.answered)
}

// deliveryLimit is how long a queue may take to be worked off.
const deliveryLimit = 2 * time.Minute

// awaitDelivered waits until the CRM has the events and the queue says so too, checks
// that nothing is missing, and returns when the CRM answered each. The queue is
// later: River notes the end of jobs several times a second only.
func (b *bench) awaitDelivered(ctx context.Context, form string, events int) (w *window, answered []int64, err error) {
	limited, cancel := context.WithTimeout(ctx, deliveryLimit)
	defer cancel()
	for {
		counts, err := b.crm.counts(limited)
		if err != nil {
			return nil, nil, err
		}
		pause := 20 * time.Millisecond
		if counts.Distinct >= events {
			// The tables are only looked at in the end, since that costs something.
			s, err := b.database.state(limited, form)
			if err != nil {
				return nil, nil, err
			}
			if s.unworked == 0 && s.open == 0 {
				if s.stored != events || s.delivered != events || counts.Distinct != events {
					return nil, nil, fmt.Errorf("%d events were accepted, but %d are stored, %d delivered, %d in the CRM",
						events, s.stored, s.delivered, counts.Distinct)
				}
				answered, err := b.crm.times(limited)
				return &window{form: form, events: events, stored: s.stored, delivered: s.delivered, requests: counts.Requests}, answered, err
			}
			pause = 100 * time.Millisecond
		}
		select {
		case <-limited.Done():
			return nil, nil, errors.Join(limited.Err(), fmt.Errorf("%d of %d events have arrived", counts.Distinct, events))
		case <-time.After(pause):
		}
	}
}
