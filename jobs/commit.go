package jobs

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"partnersync/internal/ledger"
	"partnersync/records"
)

// commit stores what has become of everything, closes routes, and tells metrics and log.
func (b *batch) commit(ctx context.Context) error {
	for _, w := range slices.Clone(b.works) {
		if w.InVain() {
			b.discard(w)
		}
		w.Rest()
	}
	report := b.report()
	for _, j := range b.jobs {
		for _, r := range j.routes {
			r.close(j)
			b.reportRoute(r, report)
		}
		if j.result() == nil && j.id != 0 {
			report.Done = append(report.Done, j.id)
		}
		if again := j.part(); again != nil {
			report.Requeue = append(report.Requeue, *again)
		}
	}
	for _, w := range b.works {
		report.Records = append(report.Records, w.Record)
	}
	report.Identities = b.imaginable()
	// What the CRM has taken must be written down even while we are stopping.
	ctx, cancel := outlive(ctx, 15*time.Second)
	defer cancel()
	err := b.owner.ledger.Write(ctx, b.lease, report)
	var refused map[*records.Record]bool
	if ledger.Refused(err) {
		b.owner.log.Error("Postgres refuses to store the outcomes of a batch; each is stored by itself", "sink", b.owner.name, "err", err)
		refused, err = b.commitEach(ctx)
	}
	if err != nil {
		return err
	}
	keep := maps.Clone(b.records)
	maps.DeleteFunc(keep, func(_ records.Key, r *records.Record) bool { return refused[r] || b.workOf[r] == nil })
	for r := range refused {
		b.cache.drop(r.ID)
	}
	for _, m := range b.merges {
		b.cache.drop(m.From) // by whatever other keys
	}
	for _, r := range keep {
		r.New = false
	}
	b.cache.put(keep)
	if b.observes() {
		b.owner.shadowed.Store(true) // a batch that writes may have begun meanwhile
	}
	b.tell()
	return nil
}

// part takes the events of a failed job that only wait out of its fate: its pauses grow to an
// hour, theirs are short.
func (j *job) part() *ledger.Requeue {
	if j.failure == nil || j.retry == 0 {
		return nil
	}
	again := &ledger.Requeue{After: j.retry}
	for _, r := range j.routes {
		failing := slices.ContainsFunc(r.deliveries, (*records.Delivery).Failing)
		if r.ended == ledger.Open && !failing {
			again.Events = append(again.Events, r.Event)
		}
	}
	if len(again.Events) == 0 {
		return nil
	}
	return again
}

// report is one with nothing but the records that stay shut.
func (b *batch) report() *ledger.Report {
	report := &ledger.Report{Announced: b.intent, Merges: b.merges}
	left, longest := b.inDoubt()
	report.InDoubt, report.Settle = slices.Collect(maps.Keys(left)), longest
	return report
}

// inDoubt are the records with a request that may still take effect, by each of their keys, and
// how long that may take.
func (b *batch) inDoubt() (map[records.Key]time.Duration, time.Duration) {
	left := map[records.Key]time.Duration{}
	var longest time.Duration
	for _, w := range b.works {
		if w.Made() { // who looks for it otherwise than by its key cannot see it yet
			for _, k := range b.identities[w] {
				left[k] = max(left[k], b.findLag())
				longest = max(longest, left[k])
			}
		}
		if w.Hold <= 0 {
			continue
		}
		for _, k := range b.identities[w] {
			left[k] = max(left[k], w.Hold)
		}
		for _, d := range w.Deliveries {
			left[d.Key] = max(left[d.Key], w.Hold)
		}
		left[records.KeyOf(w.Record.ID)] = w.Hold
		if id := w.Record.CRMID; id != "" {
			left[records.KeyOfID(w.Record.Object, id)] = w.Hold
		}
		longest = max(longest, w.Hold)
	}
	return left, longest
}

// outlive returns a context that ends some time after ctx does.
func outlive(ctx context.Context, rest time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(rest, cancel) })
	return longer, func() { stop(); cancel() }
}

// commitEach stores what has become of the routes one by one, after Postgres has refused them
// together. The one that it will not have is dead: it would otherwise keep all others from ever
// being recorded.
func (b *batch) commitEach(ctx context.Context) (refused map[*records.Record]bool, _ error) {
	refused = map[*records.Record]bool{}
	stored := map[*records.Record]bool{}
	for _, j := range b.jobs {
		for _, r := range j.routes {
			report := b.report()
			report.Merges = nil
			b.reportRoute(r, report)
			for _, d := range r.deliveries {
				for _, k := range append(b.toMake(d), d.Key) {
					if rec := b.records[k]; rec != nil && b.workOf[rec] != nil && !stored[rec] && !slices.Contains(report.Records, rec) {
						report.Records = append(report.Records, rec)
					}
				}
			}
			// A key is only led to a record that is stored with it.
			report.Merges = slices.DeleteFunc(slices.Clone(b.merges), func(m ledger.Merge) bool {
				return !slices.ContainsFunc(report.Records, func(rec *records.Record) bool { return rec.ID == m.Into })
			})
			err := b.owner.ledger.Write(ctx, b.lease, report)
			if ledger.Refused(err) {
				for _, rec := range report.Records {
					refused[rec] = true
				}
				r.deliveries, r.ended, r.reason = nil, ledger.Dead, "Postgres refuses to store the outcome"
				report = &ledger.Report{}
				b.reportRoute(r, report)
				err = b.owner.ledger.Write(ctx, b.lease, report)
			}
			if err != nil {
				return refused, err
			}
			for _, rec := range report.Records {
				rec.New, stored[rec] = false, true
				delete(refused, rec)
			}
		}
	}
	return refused, nil
}

// reportRoute adds what is to be stored of a route.
func (b *batch) reportRoute(r *route, report *ledger.Report) {
	for _, d := range r.deliveries {
		if d.Dirty() {
			report.Deliveries = append(report.Deliveries, ledger.Delivery{
				Event: r.Event, Run: r.Run, Mapping: d.Change.Mapping, MappingHash: b.conf.hashes[d.Change.Mapping],
				Object: d.Change.Object, Key: d.Change.Key.Value, Outcome: b.told(d.Outcome), Class: d.Class, Reason: d.Reason,
				Attempts: d.Attempts, FirstFailedAt: d.FirstFailedAt, Status: d.Status, CRMID: realID(d.CRMID),
			})
		}
	}
	report.Observations = append(report.Observations, b.observations(r)...)
	if r.ended != ledger.Open {
		report.Closings = append(report.Closings, ledger.Closing{Event: r.Event, Run: r.Run, Outcome: b.ended(r), Reason: r.reason})
	}
	if r.erasure != nil {
		report.Erasures = append(report.Erasures, *r.erasure)
	}
}

// tell counts and logs the deliveries that have ended in this batch.
func (b *batch) tell() {
	m, log := b.owner.metrics, b.owner.log
	quiet := !log.Enabled(context.Background(), slog.LevelInfo)
	b.each(func(d *records.Delivery) {
		if !d.Dirty() || d.Open() {
			return
		}
		r := b.routes[d.Cause]
		latency := time.Since(r.ReceivedAt)
		m.delivery(b.owner.name, d.Change.Mapping, b.told(d.Outcome))
		switch b.told(d.Outcome) {
		case ledger.Delivered:
			if r.Run == 0 { // a replay says nothing of how fast we are
				m.latency.WithLabelValues(b.owner.name).Observe(latency.Seconds())
			}
			m.last.WithLabelValues(b.owner.name).SetToCurrentTime()
		case ledger.Dead:
			m.deadLetters.WithLabelValues(b.owner.name, d.Change.Mapping, d.Class).Inc()
		case ledger.Skipped:
			m.skipped.WithLabelValues(b.owner.name, d.Change.Mapping, d.Class).Inc()
		}
		if quiet {
			return
		}
		level := slog.LevelInfo
		if b.told(d.Outcome) == ledger.Dead {
			level = slog.LevelWarn
		}
		log.LogAttrs(context.Background(), level, "delivery ended", slog.String("outcome", string(b.told(d.Outcome))),
			slog.String("event", r.Event.String()), slog.String("trace", r.place.TraceID()), slog.String("type", r.Source+"."+r.Type), slog.String("sink", b.owner.name),
			slog.String("mapping", d.Change.Mapping), slog.String("class", d.Class), slog.Int("attempt", int(d.Attempts)+1),
			slog.String("crm_id", realID(d.CRMID)), slog.String("reason", loggable(d)), slog.Duration("dur", latency))
	})
	for _, j := range b.jobs {
		for _, r := range j.routes {
			if r.ended != ledger.Open {
				m.closed.WithLabelValues(b.owner.name, string(b.ended(r))).Inc()
			}
		}
	}
}

// loggable is the reason of a delivery without the keys of what it links to, which come from the
// payload: who reads the log is not who may read that.
func loggable(d *records.Delivery) string {
	reason := d.Reason
	for _, l := range d.Change.Links {
		reason = strings.ReplaceAll(reason, strconv.Quote(l.Key.Value), "<key>")
	}
	return reason
}
