package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The forms of the part about a slow sink.
const (
	formAlone = "alone"
	formSlow  = "beside a sink that answers in 30 s"
	formQuick = "beside a sink that answers at once"
)

// besideSlow measures what a slow sink does to the time that another takes from receipt to
// the CRM's answer. The third form tells how much of it a second sink costs that is not
// slow: each event then has two routes and two jobs.
func (b *bench) besideSlow(ctx context.Context) error {
	forms := []string{formAlone, formSlow, formQuick}
	t := b.report.table("slow", fmt.Sprintf("A sink beside another one, %d events/s to both: received to the CRM's answer (stub)", b.besideRate),
		"form", "p50", "p99", "p99 of each window", "events")
	spreads := map[string][]Spread{}
	arrivals := map[string][]time.Duration{}
	for round := range b.rounds {
		for _, form := range forms {
			w, err := b.besideOnce(ctx, form)
			if err != nil {
				return fmt.Errorf("%s: %w", form, err)
			}
			spreads[form] = append(spreads[form], spread(w.arrivals))
			arrivals[form] = append(arrivals[form], w.arrivals...)
			b.progress.Line("slow %d/%d: %s: p99 %.1f ms", round+1, b.rounds, form, spreads[form][round].P99)
		}
	}
	whole := map[string]Spread{}
	for _, form := range forms {
		whole[form] = spread(arrivals[form])
		var each []string
		for _, s := range spreads[form] {
			each = append(each, fmt.Sprintf("%.1f", s.P99))
		}
		t.row(form, fmt.Sprintf("%.1f ms", whole[form].P50), fmt.Sprintf("%.1f ms", whole[form].P99), strings.Join(each, " "), fmt.Sprint(len(arrivals[form])))
	}
	for _, than := range []string{formAlone, formQuick} {
		t.note("p99 %s, against that %s: %.2f ×", formSlow, than, whole[formSlow].P99/whole[than].P99)
	}
	r := whole[formSlow].P99 / whole[formAlone].P99
	b.report.aim("p99 of a sink beside a slow one, against alone", "≤ 1.1 ×", fmt.Sprintf("%.2f ×", r), r <= 1.1)
	return nil
}

// besideOnce measures one form. In the end the slow sink is made quick, so that all that
// waits for it is delivered too.
func (b *bench) besideOnce(ctx context.Context, form string) (_ *window, err error) {
	if err := b.database.empty(ctx); err != nil {
		return nil, err
	}
	if err := b.crm.reset(ctx, offerLimit); err != nil {
		return nil, err
	}
	text, sinks := b.besideConfig(form)
	c, err := b.startOurs(ctx, text, "receive,work")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	warm, err := b.warmUp(ctx, c)
	if err != nil {
		return nil, err
	}
	l, err := offer(ctx, c.address, hooksPath, b.connections, b.besideRate, b.beside, warm)
	if err != nil {
		return nil, err
	}
	events := warm + l.answered
	if err := b.awaitArrived(ctx, events); err != nil {
		return nil, err
	}
	if form == formSlow {
		// It would have been of no use had nothing waited.
		s, err := b.database.state(ctx, formOurs)
		if err != nil {
			return nil, err
		}
		if s.open < events/2 {
			return nil, fmt.Errorf("only %d of %d routes wait for the slow sink", s.open, events)
		}
		if err := b.crm.hurry(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.awaitClosed(ctx, sinks...); err != nil {
		return nil, err
	}
	s, err := b.database.state(ctx, formOurs)
	if err != nil {
		return nil, err
	}
	if s.delivered != events*len(sinks) {
		return nil, fmt.Errorf("%d events to %d sinks, but %d routes were delivered", events, len(sinks), s.delivered)
	}
	answered, err := b.crm.times(ctx)
	if err != nil {
		return nil, err
	}
	w := &window{form: form, events: events}
	for i := warm; i < events; i++ {
		w.arrivals = append(w.arrivals, time.Duration(answered[i]-l.sentAt[i]))
	}
	return w, nil
}

// besideConfig is that of formOurs with a second sink, and the sinks that it has.
func (b *bench) besideConfig(form string) (string, []string) {
	text := b.config(formOurs)
	path := map[string]string{formSlow: "/slow", formQuick: "/quick"}[form]
	if path == "" {
		return text, []string{"crm"}
	}
	second := fmt.Sprintf(`
  second: {preset: hubspot, auth: {token: %q}, base_url: %q, timeout: 2m, limits: [{requests: 1000000, per: 1s, burst: 1000000}]}
tables:`, token, "http://"+b.crm.address+path)
	text = strings.Replace(text, "\ntables:", second, 1)
	mapping := text[strings.Index(text, "  - name: deals"):]
	mapping = strings.Replace(strings.Replace(mapping, "name: deals", "name: deals to the second", 1), "to: crm", "to: second", 1)
	return text + mapping, []string{"crm", "second"}
}

// awaitArrived waits until the CRM has the events.
func (b *bench) awaitArrived(ctx context.Context, events int) error {
	limited, cancel := context.WithTimeout(ctx, deliveryLimit)
	defer cancel()
	for {
		counts, err := b.crm.counts(limited)
		if err != nil || counts.Distinct >= events {
			return err
		}
		select {
		case <-limited.Done():
			return errors.Join(limited.Err(), fmt.Errorf("%d of %d events have arrived", counts.Distinct, events))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
