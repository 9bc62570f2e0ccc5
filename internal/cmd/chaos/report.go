package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The aims of docs/design.md; a run prints them and asserts none.
const (
	aimRestart  = 5 * time.Second
	aimTakeOver = 10 * time.Second
)

const (
	lookEvery = 20 * time.Millisecond
	lookLimit = time.Minute
	missing   = time.Duration(-1) // it has not come about
)

// span is how long something took.
type span struct {
	what string
	aim  time.Duration // 0: none
	took time.Duration
}

func (w *world) note(what string, aim, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spans = append(w.spans, span{what, aim, took})
}

// measure measures in the background how long after a moment the first of some CRMs is written
// to again, or all of them are. What was on its way at that moment has arrived within a tenth
// of a second.
func (w *world) measure(what string, aim time.Duration, since time.Time, which []*crm, all bool) {
	if len(which) == 0 {
		return
	}
	w.looks.Go(func() {
		for time.Since(since) < lookLimit {
			var took []time.Duration
			for _, c := range which {
				if after := c.firstWrite(since.Add(100 * time.Millisecond)); !after.IsZero() {
					took = append(took, after.Sub(since))
				}
			}
			if len(took) == len(which) && all {
				w.note(what, aim, slices.Max(took))
				return
			}
			if len(took) > 0 && !all {
				w.note(what, aim, slices.Min(took))
				return
			}
			time.Sleep(lookEvery)
		}
		w.note(what, aim, missing)
	})
}

// report is what a run has come to.
type report struct {
	load           time.Duration
	stored         int
	answered       int // with a 2xx
	duplicates     int
	retries        map[string]int
	outcomes       map[string]int
	replays        map[string]int // by how they have ended
	replayedRoutes int
	crms           []crmFigures
	writes         int // that were judged
	lost           int // times that nobody could know what was written
	expired        int
	forgotten      int
	spans          []span
}

type crmFigures struct {
	sink                                     string
	records, requests, failed, rows, repeats int
}

func (w *world) report(l *load, events []event, routes map[string][]route) *report {
	r := &report{load: time.Since(w.begun), stored: len(events), answered: len(l.accepted), duplicates: l.again, retries: l.retries, outcomes: map[string]int{}, replays: map[string]int{}, spans: w.spans, forgotten: len(w.forgotten)}
	for _, list := range routes {
		for _, x := range list {
			r.outcomes[x.outcome]++
		}
	}
	for _, c := range w.crms {
		f := crmFigures{sink: c.sink, requests: c.requests, failed: c.failed, rows: c.rows}
		for _, sent := range c.sent {
			f.repeats += len(sent) - 1
		}
		for _, object := range sortedKeys(keyProperty) {
			f.records += len(c.box.Records(c.dialect, object))
		}
		if c.sink == living {
			f.records = len(c.box.Records(c.dialect, "companies"))
		}
		r.crms = append(r.crms, f)
	}
	return r
}

func (r *report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "\nevents\t%d answered with 2xx, %d stored, %d told as duplicates, in %.0f s\n", r.answered, r.stored, r.duplicates, r.load.Seconds())
	fmt.Fprintf(w, "sent again\t%s\n", counts(r.retries))
	fmt.Fprintf(w, "routes\t%s\n", counts(r.outcomes))
	fmt.Fprintf(w, "replays\t%s, with %d of the routes\n", counts(r.replays), r.replayedRoutes)
	for _, c := range r.crms {
		fmt.Fprintf(w, "%s\t%d records; %d writing requests, %d without a 2xx", c.sink, c.records, c.requests, c.failed)
		if c.rows > 0 { // in batches, which tell their rows apart
			fmt.Fprintf(w, "; %d rows, %d of them as before", c.rows, c.repeats)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "judged\t%d writes, each by itself; %d times who wrote a new record was lost before anybody could know of it\n", r.writes, r.lost)
	fmt.Fprintf(w, "gone\t%d old events, %d people\n", r.expired, r.forgotten)
	_ = w.Flush()
	fmt.Fprintln(out)
	slices.SortStableFunc(r.spans, func(a, b span) int { return strings.Compare(a.what, b.what) })
	for len(r.spans) > 0 {
		n := 1
		for n < len(r.spans) && r.spans[n].what == r.spans[0].what {
			n++
		}
		printSpans(w, r.spans[:n])
		r.spans = r.spans[n:]
	}
	_ = w.Flush()
}

func printSpans(w io.Writer, spans []span) {
	longest, within := time.Duration(0), 0
	var all []string
	for _, s := range spans {
		longest = max(longest, s.took)
		if s.took == missing {
			all = append(all, "never")
			longest = lookLimit
			continue
		}
		if s.took <= s.aim {
			within++
		}
		all = append(all, fmt.Sprintf("%.1f", s.took.Seconds()))
	}
	aim := "no aim"
	if s := spans[0]; s.aim > 0 {
		aim = fmt.Sprintf("aim %.0f s: %d of %d met", s.aim.Seconds(), within, len(spans))
	}
	fmt.Fprintf(w, "%s\t%s s\t%s\n", spans[0].what, strings.Join(all, " "), aim)
}

func counts(m map[string]int) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}
