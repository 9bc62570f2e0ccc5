package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Further forms.
const (
	formMinimal   = "a minimal worker without convergence"
	formNew       = "partnersync, new records"
	formUpdates   = "partnersync, updates of known records"
	formUnchanged = "partnersync, updates that change nothing"
	hundred       = ", events_per_job: 100" // behind one of these
)

// knownWindow measures one form on deals that the CRM and the ledger know, or do not know
// yet, as the form wants it.
func (b *bench) knownWindow(ctx context.Context, form string, round int) (*window, error) {
	if err := b.database.empty(ctx); err != nil {
		return nil, err
	}
	if err := b.crm.reset(ctx, b.known); err != nil {
		return nil, err
	}
	ours := func(ctx context.Context) (*child, error) { return b.start(ctx, formOurs, "work") }
	q := queue{deals: make([]deal, b.known), perJob: 1, sink: "crm", start: ours}
	label := form
	form, more := strings.CutSuffix(form, hundred)
	if more {
		q.perJob = 100
	}
	for i := range q.deals {
		q.deals[i] = deal{index: i}
	}
	switch form {
	case formMinimal:
		q.start = b.startMinimal
	case formUpdates, formUnchanged:
		if _, err := b.workQueue(ctx, q); err != nil {
			return nil, err
		}
		if err := b.crm.reset(ctx, b.known); err != nil {
			return nil, err
		}
		q.deals = changes(b.known, 1)
		if form == formUnchanged {
			q.outcome = "unchanged"
			for i := range q.deals {
				q.deals[i].amount = 0 // as it was
			}
		}
	}
	q.label = fmt.Sprintf("%s-%d", label, round+1)
	w, err := b.workQueue(ctx, q)
	if err != nil {
		return nil, err
	}
	counts, err := b.crm.counts(ctx)
	if err != nil {
		return nil, err
	}
	w.requests = counts.Requests
	if want := b.known; form != formUnchanged && counts.Distinct != want {
		return nil, fmt.Errorf("%d events were delivered, but %d came to the CRM", want, counts.Distinct)
	}
	return w, nil
}

// knownWindows lets forms take turns and adds a line for each to a table.
func (b *bench) knownWindows(ctx context.Context, t *Table, forms ...string) (map[string][]*window, error) {
	windows := map[string][]*window{}
	for round := range b.rounds {
		for _, form := range forms {
			w, err := b.knownWindow(ctx, form, round)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", form, err)
			}
			windows[form] = append(windows[form], w)
			b.progress.Line("%s %d/%d: %s: %.0f/s", t.Part, round+1, b.rounds, form, w.perSecond)
		}
	}
	for _, form := range forms {
		f := sum(form, windows[form])
		t.row(form, fmt.Sprintf("%.0f", f.PerSecond), fmt.Sprint(f.Events), fmt.Sprint(f.Requests), f.cost())
	}
	return windows, nil
}

// converge compares workers with convergence with one that has none.
func (b *bench) converge(ctx context.Context) error {
	t := b.report.table("converge", "Convergence: from a full queue to the CRM (stub)", "form", "events/s", "events", "CRM requests", "processor µs per event")
	windows, err := b.knownWindows(ctx, t, formMinimal, formNew, formUpdates)
	if err != nil {
		return err
	}
	t.note("%s: it loads, maps, sends and closes routes with the same code and the same River jobs,", formMinimal)
	t.note("and keeps no records, no deliveries and no announcements; the product has no such switch")
	for _, form := range []string{formNew, formUpdates} {
		r := ratio(form, windows[form], windows[formMinimal])
		t.note("%s / without: %.2f × (%.2f to %.2f); by processor time per event %.2f ×", form, r.Median, r.Least, r.Most, r.Processor)
		b.report.aim("events/s, "+form+", against a worker without convergence", "≥ 0.7 ×", fmt.Sprintf("%.2f ×", r.Median), r.Median >= 0.7)
	}
	return nil
}

// unchanged compares updates that change nothing with those that change something.
func (b *bench) unchanged(ctx context.Context) error {
	t := b.report.table("unchanged", "An update that changes nothing", "form", "events/s", "events", "CRM requests", "processor µs per event")
	windows, err := b.knownWindows(ctx, t, formUpdates, formUnchanged, formUpdates+hundred, formUnchanged+hundred)
	if err != nil {
		return err
	}
	requests := 0
	for _, how := range []string{"", hundred} {
		changed, unchanged := windows[formUpdates+how], windows[formUnchanged+how]
		for _, w := range unchanged {
			requests += w.requests
		}
		r := ratio("", changed, unchanged)
		t.note("time per event, unchanged / changed%s: %.2f × (%.2f to %.2f); by processor time %.2f ×", how, r.Median, r.Least, r.Most, r.Processor)
		b.report.aim("time of an update that changes nothing, against one that does"+how, "≤ 0.5 ×", fmt.Sprintf("%.2f ×", r.Median), r.Median <= 0.5)
	}
	b.report.aim("CRM requests for updates that change nothing", "0", fmt.Sprint(requests), requests == 0)
	return nil
}

func (b *bench) startMinimal(ctx context.Context) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path, err := b.writeConfig(b.config(formOurs))
	if err != nil {
		return nil, err
	}
	return spawn(ctx, "minimal", b.dir, []string{roleVariable + "=" + roleMinimal, configVariable + "=" + path}, self)
}
