package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

type reportCmd struct {
	Sink string `arg:"" help:"Name of a sink with write: false."`
	CSV  string `help:"Also write a line for each record and field to a file." name:"csv" placeholder:"FILE"`
}

// mostExamples is how many examples are kept of a kind.
const mostExamples = 3

// foretold is what a sink would have done, by mapping.
type foretold struct {
	Sink     string         `json:"sink"`
	Records  map[string]int `json:"records"`  // by what would become of them: create, adopt, update, archive, link, none, dead
	Mappings []foretoldOf   `json:"mappings"` // by name
	Events   int            `json:"events"`
	byName   map[string]*foretoldOf
}

type foretoldOf struct {
	Mapping     string              `json:"mapping"`
	Object      string              `json:"object"`
	Create      int                 `json:"create"`
	Adopt       int                 `json:"adopt"`
	Update      int                 `json:"update"`
	Archive     int                 `json:"archive"`
	Link        int                 `json:"link"`
	None        int                 `json:"none"`
	Ambiguous   int                 `json:"ambiguous"`
	Dead        int                 `json:"dead"`
	Overwritten int                 `json:"overwritten_fields"`
	Examples    map[string][]string `json:"examples"` // keys, by what would become of them
	Overwrites  []foretoldOverwrite `json:"overwrites"`
	Problems    []foretoldProblem   `json:"problems"`
}

type foretoldOverwrite struct {
	Object string `json:"object"`
	Key    string `json:"key"`
	ID     string `json:"id"`
	Field  string `json:"field"`
	Old    any    `json:"old"`
	New    any    `json:"new"`
}

type foretoldProblem struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// foreseen is what would become of one record.
type foreseen struct {
	object, key, id string
	mapping         string // that would have made it, or has said most of late
	does            string
	dead            string
	class           bool // several records fit
	fields          map[string]ledger.Overwriting
}

func (c reportCmd) Run(ctx context.Context, cli *commands, s streams) (err error) {
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		if cfg.Sinks[c.Sink] == nil {
			return usageError{fmt.Errorf("the config has no sink %q: one of %s", c.Sink, strings.Join(sortedKeys(cfg.Sinks), ", "))}
		}
		var sheet *csv.Writer
		if c.CSV != "" {
			f, err := os.Create(c.CSV)
			if err != nil {
				return usageError{err}
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			sheet = csv.NewWriter(f)
			if err := sheet.Write([]string{"sink", "mapping", "object", "key", "id", "does", "field", "old", "new", "reason"}); err != nil {
				return err
			}
		}
		out := &foretold{Sink: c.Sink, Records: map[string]int{}, byName: map[string]*foretoldOf{}}
		var now *foreseen
		end := func() error {
			if now == nil {
				return nil
			}
			out.count(now)
			return now.write(sheet, c.Sink)
		}
		if err := l.Observed(ctx, c.Sink, func(o ledger.Observation) error {
			out.Events++
			if now == nil || now.object != o.Object || now.key != o.Key {
				if err := end(); err != nil {
					return err
				}
				now = &foreseen{object: o.Object, key: o.Key, fields: map[string]ledger.Overwriting{}}
			}
			now.add(o)
			return nil
		}); err != nil {
			return err
		}
		if err := end(); err != nil {
			return err
		}
		for _, name := range sortedKeys(out.byName) {
			out.Mappings = append(out.Mappings, *out.byName[name])
		}
		if sheet != nil {
			if sheet.Flush(); sheet.Error() != nil {
				return sheet.Error()
			}
		}
		if cli.JSON {
			return printJSON(s.out, out)
		}
		return out.print(s.out, cfg.Sinks[c.Sink].Writes())
	})
}

// rank orders what may become of a record: what is further back comes to more.
var doings = []string{"", "link", "update", "adopt", "create", "archive"}

// add takes up what one event would have done to the record.
func (f *foreseen) add(o ledger.Observation) {
	switch {
	case o.Outcome == ledger.Dead:
		f.dead, f.mapping = o.Reason, o.Mapping
		f.class = strings.HasPrefix(o.Reason, "several ")
		return
	case slices.Index(doings, o.Does) > slices.Index(doings, f.does):
		f.does, f.mapping = o.Does, o.Mapping
	case f.mapping == "":
		f.mapping = o.Mapping
	}
	if o.Outcome != ledger.Stale && o.Does != "" {
		f.dead = ""
	}
	if o.CRMID != "" {
		f.id = o.CRMID
	}
	for _, w := range o.Fields {
		before := f.fields[w.Name]
		if before.Name != "" {
			w.Old = before.Old
		}
		f.fields[w.Name] = w
	}
}

// what would become of the record, in a word.
func (f *foreseen) what() string {
	switch {
	case f.dead != "" && f.class:
		return "ambiguous"
	case f.dead != "":
		return "dead"
	case f.does == "":
		return "none"
	}
	return f.does
}

func (r *foretold) count(f *foreseen) {
	m := r.byName[f.mapping]
	if m == nil {
		m = &foretoldOf{Mapping: f.mapping, Object: f.object, Examples: map[string][]string{}}
		r.byName[f.mapping] = m
	}
	what := f.what()
	r.Records[what]++
	*map[string]*int{"create": &m.Create, "adopt": &m.Adopt, "update": &m.Update, "archive": &m.Archive, "link": &m.Link, "none": &m.None, "ambiguous": &m.Ambiguous, "dead": &m.Dead}[what]++
	if len(m.Examples[what]) < mostExamples {
		m.Examples[what] = append(m.Examples[what], f.key)
	}
	if f.dead != "" {
		m.Problems = append(m.Problems, foretoldProblem{f.key, f.dead})
	}
	for _, name := range sortedKeys(f.fields) {
		if w := f.fields[name]; w.Old != nil {
			m.Overwritten++
			m.Overwrites = append(m.Overwrites, foretoldOverwrite{f.object, f.key, f.id, name, w.Old, w.New})
		}
	}
}

func (f *foreseen) write(sheet *csv.Writer, sink string) error {
	if sheet == nil {
		return nil
	}
	line := func(field, old, value string) error {
		return sheet.Write([]string{sink, f.mapping, f.object, f.key, f.id, f.what(), field, old, value, f.dead})
	}
	if len(f.fields) == 0 {
		return line("", "", "")
	}
	for _, name := range sortedKeys(f.fields) {
		if err := line(name, plain(f.fields[name].Old), plain(f.fields[name].New)); err != nil {
			return err
		}
	}
	return nil
}

// plain is a value as a cell of a sheet, which no program takes for a formula.
func plain(v any) string {
	text := ""
	switch v := v.(type) {
	case nil:
	case string:
		text = v
	default:
		data, _ := json.Marshal(v) // it came as JSON
		text = string(data)
	}
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		text = "'" + text
	}
	return text
}

func (r *foretold) print(out io.Writer, writes bool) error {
	if writes {
		say(out, "%s writes by now; this is what it has observed before.\n\n", r.Sink)
	}
	if r.Events == 0 {
		say(out, "%s has observed nothing: with `write: false` below sinks.%s, events end as observed\n", r.Sink, r.Sink)
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "MAPPING\tCREATE\tADOPT\tUPDATE\tARCHIVE\tLINK\tNOTHING\tAMBIGUOUS\tDEAD\tFIELDS OVERWRITTEN\t")
	for _, m := range r.Mappings {
		say(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", m.Mapping, m.Create, m.Adopt, m.Update, m.Archive, m.Link, m.None, m.Ambiguous, m.Dead, m.Overwritten)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, m := range r.Mappings {
		for _, what := range slices.Sorted(maps.Keys(m.Examples)) {
			if what != "none" {
				say(out, "\n%s: %s, such as %s", m.Mapping, what, strings.Join(m.Examples[what], ", "))
			}
		}
		for _, p := range m.Problems {
			say(out, "\n  %s: %s", p.Key, p.Reason)
		}
		for _, o := range m.Overwrites {
			say(out, "\n  %s %s (%s): %s %s -> %s", o.Object, o.Key, o.ID, o.Field, plain(o.Old), plain(o.New))
		}
	}
	say(out, "\n\nTo do it: write: true, reload, and `partnersync replay --sink %s --outcome observed`\n", r.Sink)
	return nil
}
