package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/internal/live"
	"partnersync/internal/secret"
	"partnersync/mappers"
	"partnersync/sinks"
)

// liveTimeout bounds what is asked of a CRM to see what it has.
const liveTimeout = time.Minute

// looked is what came of holding a config against a CRM.
type looked struct {
	sink  string
	uses  int
	none  string // why the CRM cannot be asked at all
	found live.Findings
}

// lookAt holds what a config names against what the CRMs have, each by its open sink. A sink that is not open tells why.
func lookAt(ctx context.Context, cfg *config.Config, open map[string]*sinks.Sink) []looked {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	list := make([]looked, 0, len(open))
	for _, name := range sortedKeys(open) {
		list = append(list, looked{sink: name})
	}
	var wait sync.WaitGroup
	for i := range list {
		wait.Go(func() {
			l, s := &list[i], open[list[i].sink]
			uses := cfg.Mappings.Uses(l.sink)
			l.uses = len(uses)
			switch {
			case !s.Supports(sinks.Describe):
				l.none = "it does not tell what it has"
			default:
				l.found = live.Check(ctx, l.sink, s, uses, tablesOf(cfg, l.sink))
			}
		})
	}
	wait.Wait()
	return list
}

// tablesOf are the tables that come from a sink.
func tablesOf(cfg *config.Config, sink string) map[string]*mappers.Table {
	of := map[string]*mappers.Table{}
	for name, t := range cfg.Tables {
		if t.Listing != nil && t.Listing.Sink == sink {
			of[name] = t
		}
	}
	return of
}

// problems are those of all CRMs, in the order of the file.
func problemsOf(list []looked) diag.Problems {
	var all diag.Problems
	for _, l := range list {
		all = append(all, l.found.Problems...)
	}
	all.Sort()
	return all
}

// live asks the CRMs of a config what they have. It returns what is wrong, and lines about what could not be seen.
func (c checkCmd) live(ctx context.Context, cfg *config.Config) (problems diag.Problems, seen, unseen []string) {
	open := map[string]*sinks.Sink{}
	for _, name := range sortedKeys(cfg.Sinks) {
		d := cfg.Sinks[name]
		if slices.ContainsFunc(d.Secrets(), isUnset) {
			unseen = append(unseen, fmt.Sprintf("%s: its credentials are not set here", name))
			continue
		}
		open[name] = sinks.New(d, sinks.Options{})
		defer open[name].Close()
	}
	list := lookAt(ctx, cfg, open)
	for _, l := range list {
		if l.none != "" {
			seen = append(seen, fmt.Sprintf("%s: not looked at: %s", l.sink, l.none))
			continue
		}
		for _, u := range l.found.Untold {
			seen = append(seen, fmt.Sprintf("%s: %s: not looked at: %s", l.sink, u.Object, u.Why))
		}
		for _, u := range l.found.Unseen {
			unseen = append(unseen, fmt.Sprintf("%s: %s: %s", l.sink, u.Object, u.Why))
		}
		if len(l.found.Unseen) == 0 && len(l.found.Problems) == 0 {
			seen = append(seen, fmt.Sprintf("%s: the CRM has what the mappings name, in %s", l.sink, plural(l.uses, "place")))
		}
	}
	return problemsOf(list), seen, unseen
}

func isUnset(s secret.String) bool { return s.Reveal() == config.Unset }

const (
	lookAgain   = time.Hour        // fields are deleted, and options, while a process runs
	worseWithin = 10 * time.Second // a reload waits no longer for the CRMs
)

// askForLook has lookNowAndThen look once more.
func (p *process) askForLook() {
	select {
	case p.look <- struct{}{}:
	default:
	}
}

// lookNowAndThen looks at what the CRMs have when the process begins, after each reload, and every hour.
func (p *process) lookNowAndThen(ctx context.Context) {
	select {
	case <-p.joined:
	case <-ctx.Done():
		return
	}
	for {
		p.lookOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.look:
		case <-time.After(lookAgain):
		}
	}
}

// lookOnce tells log, metrics and database what the CRMs lack of what the config in force names.
func (p *process) lookOnce(ctx context.Context) {
	p.mu.Lock()
	cfg, open := p.config, p.plan.Sinks
	p.mu.Unlock()
	list := lookAt(ctx, cfg, open)
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	current := p.config == cfg
	if current && !slices.ContainsFunc(list, func(l looked) bool { return len(l.found.Unseen) > 0 }) {
		p.lacks = list
	}
	p.mu.Unlock()
	if !current {
		return // another look has been asked for
	}
	p.lacking.Reset()
	for _, l := range list {
		if l.none != "" {
			continue
		}
		look := ledger.Look{At: time.Now(), Config: cfg.Hash}
		for _, problem := range l.found.Problems {
			p.log.Warn("the CRM has not what a mapping names", "sink", l.sink, "told", problem.String())
			if problem.Severity == diag.Error {
				look.Errors++
			} else {
				look.Warnings++
			}
		}
		for _, u := range l.found.Unseen {
			p.log.Warn("the CRM does not tell what it has", "sink", l.sink, "object", u.Object, "why", u.Why)
			look.Unseen = append(look.Unseen, u.Object+": "+u.Why)
		}
		p.lacking.WithLabelValues(l.sink).Set(float64(look.Errors))
		if err := p.ledger.SetLook(ctx, l.sink, look); err != nil {
			p.log.Warn("what the CRM lacks is not stored", "sink", l.sink, "err", err)
		}
	}
}

// worse tells what the CRMs lack for a config that they do not lack for the one in force. A CRM that does not answer
// holds nothing up.
func (p *process) worse(ctx context.Context, cfg *config.Config) error {
	if p.workers == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, worseWithin)
	defer cancel()
	open := map[string]*sinks.Sink{}
	for name, d := range cfg.Sinks {
		options, err := p.sinkOptions(name, d, cfg)
		if err != nil {
			return err
		}
		open[name] = sinks.New(d, options)
		defer open[name].Close()
	}
	before := p.lacks
	if before == nil {
		before = lookAt(ctx, p.config, p.plan.Sinks)
	}
	// Without their places: a line more in the config is no news.
	known, blind := map[string]bool{}, map[string]bool{}
	for _, l := range before {
		blind[l.sink] = len(l.found.Unseen) > 0
		for _, problem := range l.found.Problems {
			known[problem.Message] = true
		}
	}
	var news diag.Problems
	for _, l := range lookAt(ctx, cfg, open) {
		for _, problem := range l.found.Problems {
			if problem.Severity == diag.Error && !known[problem.Message] && !blind[l.sink] {
				news = append(news, problem)
			}
		}
	}
	if len(news) == 0 {
		return nil
	}
	news.Sort()
	return fmt.Errorf("%w\nthe CRM has not what the config names; `partnersync reload --force`, or POST /-/reload?force=1, takes it all the same", news)
}
