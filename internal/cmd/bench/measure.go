package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"partnersync/internal/progress"
	"runtime"
	"slices"
	"time"
)

// bench is what the windows share.
type bench struct {
	plan
	dir      string
	program  string // partnersync
	database *database
	crm      *crmClient
	progress *progress.Progress
	report   *Report
}

// measure starts what is needed, runs the parts, shows what each has found, and removes
// everything again.
func measure(ctx context.Context, p plan, told *progress.Progress, show func(*Report, string) error) (_ *Report, err error) {
	dir, err := os.MkdirTemp("", "partnersync-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{plan: p, dir: dir, progress: told, report: &Report{Environment: environment(), Short: p.short}}
	told.Line("building partnersync, starting Postgres ...")
	if b.program, err = build(ctx, dir, p.profiles != ""); err != nil {
		return nil, err
	}
	if b.database, err = openDatabase(ctx, dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.database.close(context.WithoutCancel(ctx))) }()
	b.report.Environment.Postgres = b.database.version
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	crm, err := spawn(ctx, "crm", dir, []string{roleVariable + "=" + roleCRM}, self)
	if err != nil {
		return nil, err
	}
	b.crm = &crmClient{child: crm}
	defer func() {
		b.crm.http.CloseIdleConnections()
		err = errors.Join(err, crm.stop())
	}()
	if err := show(b.report, ""); err != nil {
		return nil, err
	}
	for _, part := range p.parts {
		if err := part.run(b, ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		told.End()
		if err := show(b.report, part.name); err != nil {
			return nil, err
		}
	}
	b.report.judge()
	return b.report, nil
}

func environment() Environment {
	return Environment{
		Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
		Date: time.Now().UTC().Format(time.DateOnly), Load: loadAverage(),
	}
}

// window is one form, measured once.
type window struct {
	form      string
	perSecond float64
	events    int // all of it
	stored    int
	delivered int
	requests  int             // to the CRM
	answers   []time.Duration // to the sender
	arrivals  []time.Duration // from received to the CRM's answer
	cost      map[string]time.Duration
	memory    int64
}

// takeTurns lets the forms take turns and adds the windows up.
func (b *bench) takeTurns(ctx context.Context, part string, rounds int, forms []string, one func(context.Context, string, string) (*window, error)) (*Part, error) {
	windows := map[string][]*window{}
	for round := range rounds {
		for _, form := range forms {
			if err := b.database.empty(ctx); err != nil {
				return nil, err
			}
			w, err := one(ctx, form, fmt.Sprintf("%s-%d-%d", part, eventsPerJob(form), round+1))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", form, err)
			}
			windows[form] = append(windows[form], w)
			b.progress.Line("%s %d/%d: %s: %.0f/s", part, round+1, rounds, form, w.perSecond)
		}
	}
	out := &Part{}
	for _, form := range forms {
		out.Forms = append(out.Forms, sum(form, windows[form]))
	}
	for _, form := range forms {
		if form != formPlain && slices.Contains(forms, formPlain) {
			out.Ratios = append(out.Ratios, ratio(form, windows[form], windows[formPlain]))
		}
	}
	return out, nil
}

// usage notes what each process has used of the processors since it was made.
type usage struct {
	b     *bench
	form  *child
	start map[string]time.Duration
}

func (b *bench) usage(form *child) *usage {
	u := &usage{b: b, form: form}
	u.start = u.now()
	return u
}

func (u *usage) now() map[string]time.Duration {
	now := map[string]time.Duration{
		costForm: processorTime(u.form.pid()), costLoad: processorTime(os.Getpid()), costCRM: processorTime(u.b.crm.pid()),
	}
	if u.b.database.pid != 0 {
		now[costPostgres] = processorTimeOfTree(u.b.database.pid)
	}
	return now
}

func (u *usage) since() map[string]time.Duration {
	spent := u.now()
	for name := range spent {
		spent[name] -= u.start[name]
	}
	return spent
}

// receive measures receivers under as many requests as they take.
func (b *bench) receive(ctx context.Context) (err error) {
	b.report.Receive, err = b.takeTurns(ctx, "receive", b.rounds, []string{formOurs, formPlain, formBare}, b.receiveOnce)
	return err
}

func (b *bench) receiveOnce(ctx context.Context, form, label string) (_ *window, err error) {
	c, err := b.start(ctx, form, "receive")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	used := b.usage(c)
	profiled := profile(c, b.profilesOf(form), label, b.warm+b.window)
	l, err := flood(ctx, c.address, hooksPath, b.connections, b.warm, b.window, 0)
	if err = errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	w := &window{form: form, perSecond: l.perSecond(), events: l.answered, answers: l.latencies, cost: used.since(), memory: peakMemory(c.pid())}
	if form == formBare {
		return w, nil
	}
	s, err := b.database.state(ctx, form)
	if err != nil {
		return nil, err
	}
	w.stored = s.stored
	if s.stored != l.answered || s.jobs != l.answered {
		return nil, fmt.Errorf("%d events were accepted, but %d are stored, with %d jobs", l.answered, s.stored, s.jobs)
	}
	return w, nil
}

func (b *bench) profilesOf(form string) string {
	if ours(form) {
		return b.profiles
	}
	return ""
}

// work measures workers on a queue that is full already.
func (b *bench) work(ctx context.Context) (err error) {
	b.report.Work, err = b.takeTurns(ctx, "work", b.rounds, []string{formOurs, formOurs100, formOne, formPlain}, b.workOnce)
	return err
}

func (b *bench) workOnce(ctx context.Context, form, label string) (_ *window, err error) {
	events := b.queued
	if form == formPlain {
		events = b.plainQueued
	}
	if err := b.database.fill(ctx, form, events, eventsPerJob(form)); err != nil {
		return nil, err
	}
	if err := b.crm.reset(ctx, events); err != nil {
		return nil, err
	}
	c, err := b.start(ctx, form, "work")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	used := b.usage(c)
	profiled := profile(c, b.profilesOf(form), label, 2*time.Second)
	w, answered, err := b.awaitDelivered(ctx, form, events)
	if err = errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	// From the first answer, since a process that starts has other things to do first.
	took := time.Duration(slices.Max(answered) - slices.Min(answered))
	w.perSecond, w.cost, w.memory = float64(events)/took.Seconds(), used.since(), peakMemory(c.pid())
	return w, nil
}
