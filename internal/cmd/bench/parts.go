package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// part is one section of the benchmark; each can be run alone.
type part struct {
	name string
	what string // it finds out
	run  func(*bench, context.Context) error
	rows bool // only with --rows
}

// parts are the sections in their order.
func parts() []part {
	return []part{
		{name: "receive", what: "requests/s of the receiver, against plain River and a handler that stores nothing", run: (*bench).receive},
		{name: "work", what: "events/s of the workers, from a full queue to the CRM, against plain River", run: (*bench).work},
		{name: "steady", what: "time to answer and to deliver at a steady rate", run: (*bench).atSteadyRate},
		{name: "together", what: "events/s of everything at once, against plain River", run: (*bench).everything},
		{name: "calls", what: "requests that 1,000 deal updates cost, for each CRM", run: (*bench).calls},
		{name: "match", what: "requests that finding out what a CRM has already costs", run: (*bench).match},
		{name: "distant", what: "rows/s to a CRM that answers in 50 ms, for each preset's concurrency and batches", run: (*bench).distant},
		{name: "bisect", what: "requests that one bad row in a refused batch costs", run: (*bench).bisect},
		{name: "slow", what: "what a sink that answers in 30 s does to the latency of another", run: (*bench).besideSlow},
		{name: "converge", what: "events/s with convergence, against a worker without it", run: (*bench).converge},
		{name: "unchanged", what: "what an update that changes nothing costs", run: (*bench).unchanged},
		{name: "rows", what: "rates and commands on tables of --rows rows, against empty tables", run: (*bench).onFullTables, rows: true},
	}
}

// choose returns the parts of that names, all without a name; those that need --rows
// only where there are rows.
func choose(names string, rows int64) ([]part, error) {
	all := parts()
	if names == "" {
		return slices.DeleteFunc(all, func(p part) bool { return p.rows && rows == 0 }), nil
	}
	var chosen []part
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(p part) bool { return p.name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("there is no part %q; --list lists them", name)
		case all[i].rows && rows == 0:
			return nil, fmt.Errorf("the part %q needs to know how many: --rows 1000000", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func list(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, p := range parts() {
		note := ""
		if p.rows {
			note = " (with --rows only)"
		}
		fmt.Fprintf(w, "%s\t%s%s\n", p.name, p.what, note)
	}
	return w.Flush()
}

// Table is the result of a part as people read it; what is compared stands in the aims.
type Table struct {
	Part    string     `json:"part"`
	Title   string     `json:"title"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	Notes   []string   `json:"notes,omitempty"`
}

// table begins the table of a part.
func (r *Report) table(part, title string, columns ...string) *Table {
	t := &Table{Part: part, Title: title, Columns: columns}
	r.Tables = append(r.Tables, t)
	return t
}

func (t *Table) row(cells ...string) { t.Rows = append(t.Rows, cells) }

func (t *Table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

func (t *Table) print(out io.Writer) error {
	fmt.Fprintf(out, "\n%s\n", t.Title)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, cells := range append([][]string{t.Columns}, t.Rows...) {
		fmt.Fprintf(w, "  %s\n", strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range t.Notes {
		fmt.Fprintf(out, "  %s\n", n)
	}
	return nil
}
