package main

import (
	"context"
	"errors"
	"fmt"
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
	// What every first request costs is no part of what goes on all day.
	warm, err := offer(ctx, c.address, hooksPath, b.connections, b.steadyRate, b.steady/10, 0)
	if err != nil {
		return nil, err
	}
	used := b.usage(c)
	profiled := profile(c, b.profilesOf(form), label, b.steady)
	l, err := offer(ctx, c.address, hooksPath, b.connections, b.steadyRate, b.steady, warm.answered)
	if err = errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	cost := used.since()
	w, _, err := b.awaitDelivered(ctx, form, warm.answered+l.answered)
	if err != nil {
		return nil, err
	}
	times, err := b.crm.times(ctx)
	if err != nil {
		return nil, err
	}
	for i := warm.answered; i < w.events; i++ {
		w.arrivals = append(w.arrivals, time.Duration(times[i]-l.sentAt[i]))
	}
	w.perSecond, w.answers, w.cost, w.memory = l.perSecond(), l.latencies, cost, peakMemory(c.pid())
	return w, nil
}

// everything measures the whole way under as many requests as are taken: load, receiver,
// workers, CRM and Postgres share the machine. The rate is that of events which have
// come all the way, those included that had piled up when the load ended.
func (b *bench) everything(ctx context.Context) (err error) {
	b.report.Together, err = b.takeTurns(ctx, "together", b.rounds, []string{formOurs, formOurs100, formPlain}, b.everythingOnce)
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
	used := b.usage(c)
	profiled := profile(c, b.profilesOf(form), label, b.together)
	begin := time.Now()
	l, err := flood(ctx, c.address, hooksPath, b.connections, 0, b.together)
	if err = errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	w, ended, err := b.awaitDelivered(ctx, form, l.answered)
	if err != nil {
		return nil, err
	}
	counts, err := b.crm.counts(ctx)
	if err != nil {
		return nil, err
	}
	w.perSecond = float64(w.events) / ended.Sub(begin).Seconds()
	w.answers, w.cost, w.memory, w.requests = l.latencies, used.since(), peakMemory(c.pid()), counts.Requests
	return w, nil
}

// deliveryLimit is how long a queue may take to be worked off.
const deliveryLimit = 2 * time.Minute

// awaitDelivered waits until the CRM has the events and the queue says so too, and
// checks that nothing is missing.
func (b *bench) awaitDelivered(ctx context.Context, form string, events int) (*window, time.Time, error) {
	limited, cancel := context.WithTimeout(ctx, deliveryLimit)
	defer cancel()
	for {
		counts, err := b.crm.counts(limited)
		if err != nil {
			return nil, time.Time{}, err
		}
		// The tables are only looked at in the end, since that costs something.
		if counts.Distinct >= events {
			s, err := b.database.state(limited, form)
			if err != nil {
				return nil, time.Time{}, err
			}
			if s.unworked == 0 && s.open == 0 {
				if s.stored != events || s.delivered != events || counts.Distinct != events {
					return nil, time.Time{}, fmt.Errorf("%d events were accepted, but %d are stored, %d delivered, %d in the CRM",
						events, s.stored, s.delivered, counts.Distinct)
				}
				return &window{form: form, events: events, stored: s.stored, delivered: s.delivered}, time.Now(), nil
			}
		}
		select {
		case <-limited.Done():
			return nil, time.Time{}, errors.Join(limited.Err(), fmt.Errorf("%d of %d events have arrived", counts.Distinct, events))
		case <-time.After(5 * time.Millisecond):
		}
	}
}
