package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/live"
	"partnersync/mappers"
	"partnersync/sinks"
)

// tryAgain is how long a list is left alone that could not be read.
const tryAgain = time.Minute

// lists are those that tables of the config have from CRMs, as they were read last.
type lists struct {
	mu   sync.Mutex
	read map[string]*crmList
}

type crmList struct {
	entries []map[string]string
	at      time.Time // when the CRM told; zero: it has not yet
	due     time.Time
}

// fill gives the tables of a config what is known. It returns those of a CRM, by name.
func (l *lists) fill(cfg *config.Config) map[string]*mappers.Table {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := map[string]*mappers.Table{}
	for name, t := range cfg.Tables {
		if t.Listing == nil {
			continue
		}
		from[name] = t
		if known := l.read[t.Listing.Key()]; known != nil && !known.at.IsZero() && !t.Filled() {
			t.Fill(known.entries)
		}
	}
	return from
}

// expire has all lists read anew: a config is taken because something has changed, there or in the CRM.
func (l *lists) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, known := range l.read {
		known.due = time.Time{}
	}
}

// keepTables reads the tables that come from CRMs when the process begins, after a reload, and as often as each wants.
func (p *process) keepTables(ctx context.Context) {
	select {
	case <-p.joined:
	case <-ctx.Done():
		return
	}
	for {
		next := p.readTables(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.tablesAsked:
		case <-time.After(next):
		}
	}
}

// readTables reads what is due, and returns how long nothing will be.
func (p *process) readTables(ctx context.Context) time.Duration {
	p.mu.Lock()
	cfg, open := p.config, p.plan.Sinks
	p.mu.Unlock()
	next := time.Hour
	p.tableRead.Reset()
	p.tableStale.Reset()
	for name, t := range p.lists.fill(cfg) {
		if ctx.Err() != nil {
			return next
		}
		l := p.readTable(ctx, name, t, open[t.Listing.Sink])
		if !l.at.IsZero() {
			p.tableRead.WithLabelValues(name).Set(float64(l.at.Unix()))
			p.tableStale.WithLabelValues(name).Set(stale(l, t))
		}
		next = min(next, max(time.Until(l.due), time.Second))
	}
	return next
}

// stale is 1 where a table should have been read long ago.
func stale(l crmList, t *mappers.Table) float64 {
	if time.Since(l.at) > 3*t.Listing.Refresh {
		return 1
	}
	return 0
}

// readTable reads one table, if that is due: from the CRM, or where that cannot be, for the first time from what the database has
// of an earlier process.
func (p *process) readTable(ctx context.Context, name string, t *mappers.Table, s *sinks.Sink) crmList {
	key := t.Listing.Key()
	p.lists.mu.Lock()
	known := p.lists.read[key]
	p.lists.mu.Unlock()
	if known == nil {
		known = &crmList{}
		entries, at, err := p.ledger.List(ctx, t.Listing.Sink, key)
		if err != nil {
			p.log.Warn("a table is not read from the database", "table", name, "err", err)
		}
		if entries != nil {
			known = &crmList{entries: entries, at: at} // and read anew, if that can be
			t.Fill(entries)
		}
	}
	if time.Now().Before(known.due) {
		return p.lists.keep(key, known)
	}
	entries, res := live.Read(ctx, s, t.Listing)
	if res.Class != sinks.OK {
		if ctx.Err() == nil {
			p.log.Warn("a table is not read from its CRM", "table", name, "sink", t.Listing.Sink, "list", t.Listing.Called(), "why", live.Told(res), "has", !known.at.IsZero())
		}
		return p.lists.keep(key, &crmList{entries: known.entries, at: known.at, due: time.Now().Add(min(tryAgain, t.Listing.Refresh))})
	}
	if twice := t.Fill(entries); len(twice) > 0 && t.Listing.List != mappers.Fields { // of those that are needed, `check --live` tells
		p.log.Warn("a table has two entries of one name, which it does not tell apart", "table", name, "names", strings.Join(twice[:min(len(twice), 5)], ", "))
	}
	if err := p.ledger.SetList(ctx, t.Listing.Sink, key, entries); err != nil {
		p.log.Warn("a table is not stored", "table", name, "err", err)
	}
	return p.lists.keep(key, &crmList{entries: entries, at: time.Now(), due: time.Now().Add(t.Listing.Refresh)})
}

func (l *lists) keep(key string, list *crmList) crmList {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read[key] = list
	return *list
}

// askTables reads the tables that come from CRMs, for a command that maps. It tells which it could not read, and why.
func askTables(ctx context.Context, cfg *config.Config) (unread []string) {
	ctx, cancel := context.WithTimeout(ctx, worseWithin)
	defer cancel()
	for _, name := range sortedKeys(cfg.Tables) {
		t := cfg.Tables[name]
		if t.Listing == nil {
			continue
		}
		d := cfg.Sinks[t.Listing.Sink]
		entries, why := askTable(ctx, d, t.Listing)
		switch {
		case why == "":
			t.Fill(entries)
		case t.Listing.List == mappers.Fields:
			for field, label := range d.FieldLabels()[t.Listing.Object] {
				entries = append(entries, map[string]string{"name": field, "label": label})
			}
			t.Fill(entries)
			if why = fmt.Sprintf("fields of %s are shown by their names in the config: %s", t.Listing.Sink, why); !slices.Contains(unread, why) {
				unread = append(unread, why)
			}
		default:
			unread = append(unread, fmt.Sprintf("table %q is not read from %s: %s", name, t.Listing.Sink, why))
		}
	}
	return unread
}

// askTable reads what a CRM has for a table, or tells why it could not.
func askTable(ctx context.Context, d *sinks.Description, l *mappers.Listing) (entries []map[string]string, why string) {
	if slices.ContainsFunc(d.Secrets(), isUnset) {
		return nil, "its credentials are not set here"
	}
	s := sinks.New(d, sinks.Options{})
	defer s.Close()
	entries, res := live.Read(ctx, s, l)
	if res.Class != sinks.OK {
		return nil, live.Told(res)
	}
	return entries, ""
}
