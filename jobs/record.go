package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"partnersync/internal/ledger"

	"github.com/google/uuid"
)

// record stores what has become of everything, closes routes, and tells metrics and log.
func (c *cycle) record(ctx context.Context) error {
	report := c.report()
	for _, w := range c.work {
		for _, r := range w.routes {
			r.close(w)
			r.report(report)
		}
	}
	keep := make(map[ledger.RecordKey]*ledger.Record, len(c.changed))
	stored := make(map[*ledger.Record]bool, len(c.changed))
	for k := range c.changed {
		rec := c.records[k]
		if keep[k] = rec; !stored[rec] { // two keys may name it
			stored[rec] = true
			report.Records = append(report.Records, rec)
		}
	}
	// What the CRM has taken must be written down even while we are stopping. While we
	// are not, there is no hurry: a statement that was given up could still be carried
	// out, on top of what is written down next.
	ctx, cancel := outlive(ctx, 15*time.Second)
	defer cancel()
	err := c.owner.ledger.Write(ctx, c.owner.right, "", report)
	if ledger.Refused(err) {
		c.owner.log.Error("Postgres refuses what became of some events", "sink", c.owner.name, "err", err)
		var refused map[*ledger.Record]bool
		refused, err = c.recordEach(ctx)
		maps.DeleteFunc(keep, func(_ ledger.RecordKey, r *ledger.Record) bool { return refused[r] })
		for r := range refused {
			c.owner.forget(nil, []uuid.UUID{r.ID})
		}
	}
	if err != nil {
		return err
	}
	for _, m := range c.merges {
		c.owner.forget(nil, []uuid.UUID{m.From}) // by whatever other keys
	}
	for _, r := range keep {
		r.New = false
	}
	c.owner.remember(keep)
	c.tell()
	return nil
}

// report is one with nothing but the records that stay shut.
func (c *cycle) report() *ledger.Report {
	report := &ledger.Report{Announced: c.announced, Merges: c.merges}
	for k, shut := range c.ambiguous {
		report.InDoubt = append(report.InDoubt, k)
		if r := c.records[k]; r != nil {
			report.InDoubt = append(report.InDoubt, ledger.KeyOf(r.ID))
		}
		report.Settle = max(report.Settle, shut)
	}
	return report
}

// outlive returns a context that ends some time after ctx does.
func outlive(ctx context.Context, rest time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(rest, cancel) })
	return longer, func() { stop(); cancel() }
}

// recordEach stores what has become of the routes one by one, after Postgres has
// refused them together. The one that it will not have is dead: it would
// otherwise keep all others from ever being recorded.
func (c *cycle) recordEach(ctx context.Context) (refused map[*ledger.Record]bool, _ error) {
	refused = map[*ledger.Record]bool{}
	for _, w := range c.work {
		for _, r := range w.routes {
			report := c.report()
			r.report(report)
			for _, d := range r.deliveries {
				for _, k := range append(c.toMake(d), d.key) {
					if rec := c.records[k]; rec != nil && c.changed[k] && !slices.Contains(report.Records, rec) {
						report.Records = append(report.Records, rec)
					}
				}
			}
			// A key is only led to a record that is stored with it.
			report.Merges = slices.DeleteFunc(slices.Clone(c.merges), func(m ledger.Merge) bool {
				return !slices.ContainsFunc(report.Records, func(rec *ledger.Record) bool { return rec.ID == m.Into })
			})
			err := c.owner.ledger.Write(ctx, c.owner.right, "", report)
			if ledger.Refused(err) {
				for _, rec := range report.Records {
					refused[rec] = true
				}
				r.deliveries, r.ended, r.reason = nil, ledger.Dead, "Postgres refuses to store what became of it"
				report = &ledger.Report{}
				r.report(report)
				err = c.owner.ledger.Write(ctx, c.owner.right, "", report)
			}
			if err != nil {
				return refused, err
			}
			for _, rec := range report.Records {
				rec.New = false
				delete(refused, rec)
			}
		}
	}
	return refused, nil
}

// report adds what is to be stored of a route.
func (r *route) report(report *ledger.Report) {
	for _, d := range r.deliveries {
		if d.fresh {
			report.Deliveries = append(report.Deliveries, d.Delivery)
		}
	}
	if r.ended != ledger.Open {
		report.Closings = append(report.Closings, ledger.Closing{Event: r.Event, Run: r.Run, Outcome: r.ended, Reason: r.reason})
	}
	if r.erasure != nil {
		report.Erasures = append(report.Erasures, *r.erasure)
	}
}

// close decides what a route has come to, and what its job has to do otherwise.
func (r *route) close(w *work) {
	if r.ended != ledger.Open || r.held {
		return
	}
	found := map[ledger.Outcome]*delivery{}
	for _, d := range r.deliveries {
		if d.open() {
			w.wait = max(w.wait, d.wait)
			if d.counted {
				w.failed = errors.Join(w.failed, fmt.Errorf("%s: %s: %s", d.Mapping, d.Class, d.Reason))
			}
		}
		if found[d.Outcome] == nil {
			found[d.Outcome] = d
		}
	}
	if found[ledger.Open] != nil {
		return
	}
	for _, o := range ledger.Outcomes {
		if d := found[o]; d != nil {
			r.ended, r.reason = o, d.Reason
			return
		}
	}
	r.ended, r.reason = ledger.Skipped, strings.Join(r.skipped, "; ")
}

// tell counts and logs the deliveries that have ended in this cycle.
func (c *cycle) tell() {
	m, log := c.owner.metrics, c.owner.log
	quiet := !log.Enabled(context.Background(), slog.LevelInfo)
	c.each(func(d *delivery) {
		if !d.fresh || d.open() {
			return
		}
		latency := time.Since(d.route.ReceivedAt)
		m.delivery(c.owner.name, d.Mapping, d.Outcome)
		switch d.Outcome {
		case ledger.Delivered:
			if d.Run == 0 { // a replay says nothing of how fast we are
				m.latency.WithLabelValues(c.owner.name).Observe(latency.Seconds())
			}
			m.last.WithLabelValues(c.owner.name).SetToCurrentTime()
		case ledger.Dead:
			m.deadLetters.WithLabelValues(c.owner.name, d.Mapping, d.Class).Inc()
		}
		if quiet {
			return
		}
		level := slog.LevelInfo
		if d.Outcome == ledger.Dead {
			level = slog.LevelWarn
		}
		log.LogAttrs(context.Background(), level, "delivery "+string(d.Outcome),
			slog.String("event", d.Event.String()), slog.String("trace", d.route.place.TraceID()), slog.String("type", d.route.Source+"."+d.route.Type), slog.String("sink", c.owner.name),
			slog.String("mapping", d.Mapping), slog.String("class", d.Class), slog.Int("attempt", int(d.Attempts)+1),
			slog.String("crm_id", d.CRMID), slog.String("reason", d.Reason), slog.Duration("dur", latency))
	})
	for _, w := range c.work {
		for _, r := range w.routes {
			if r.ended != ledger.Open {
				m.closed.WithLabelValues(c.owner.name, string(r.ended)).Inc()
			}
		}
	}
}
