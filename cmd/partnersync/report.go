package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
)

type reportCmd struct {
	Sink string `arg:"" help:"Name of a sink with write: false." predictor:"sink"`
	CSV  string `help:"Also write a line for each record and field to a file." name:"csv" placeholder:"FILE"`
}

// mostExamples is how many examples are kept of a kind, mostListed how much of what a person has to look at. The sheet has all.
const (
	mostExamples = 3
	mostListed   = 20
)

// foretold is what a sink would do, by mapping. It counts records, each once, whatever number of events and keys it has.
type foretold struct {
	Sink     string         `json:"sink"`
	Events   int            `json:"events"`  // deliveries that were observed
	Waiting  int            `json:"waiting"` // of these, still tried again
	Records  map[string]int `json:"records"` // by what would become of them
	Mappings []*foretoldOf  `json:"mappings"`

	byName map[string]*foretoldOf
}

type foretoldOf struct {
	Mapping     string              `json:"mapping"`
	Create      int                 `json:"create"`
	Adopt       int                 `json:"adopt"`  // there already, and not known to us
	Write       int                 `json:"write"`  // made or changed: the sink cannot tell
	Update      int                 `json:"update"` // known to us
	Archive     int                 `json:"archive"`
	Link        int                 `json:"link"` // nothing but links
	None        int                 `json:"none"`
	Ambiguous   int                 `json:"ambiguous"` // several records fit
	Dead        int                 `json:"dead"`
	Overwritten int                 `json:"overwritten_fields"`
	Examples    map[string][]string `json:"examples"`   // keys, by what would become of them
	Several     []foretoldSeveral   `json:"several"`    // the first of those that are ambiguous
	Overwrites  []foretoldOverwrite `json:"overwrites"` // the first of those
	Reasons     []foretoldReason    `json:"reasons"`    // why deliveries would be dead
}

type foretoldOverwrite struct {
	Object string `json:"object"`
	Key    string `json:"key"`
	ID     string `json:"id"`
	Field  string `json:"field"`
	Old    any    `json:"old"`
	New    any    `json:"new"`
}

type foretoldSeveral struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

type foretoldReason struct {
	Reason     string `json:"reason"`
	Deliveries int    `json:"deliveries"`
}

// foreseen is what would become of one record.
type foreseen struct {
	record, object, key, id string
	mapping                 string // that comes to most
	does                    string
	dead                    string
	fields                  map[string]foreseenField
}

type foreseenField struct {
	ledger.Overwriting
	mapping string
}

func (c reportCmd) Run(ctx context.Context, cli *commands, s streams) error {
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) (err error) {
		if cfg.Sinks[c.Sink] == nil {
			return usageError{fmt.Errorf("the config has no sink %q: one of %s", c.Sink, strings.Join(sortedKeys(cfg.Sinks), ", "))}
		}
		var sheet *csv.Writer
		if c.CSV != "" {
			f, err := os.OpenFile(c.CSV, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) // it holds values of people
			if err != nil {
				return usageError{err}
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			sheet = csv.NewWriter(f)
			if err := sheet.Write([]string{"sink", "mapping", "object", "key", "id", "does", "field", "old", "new", "reason"}); err != nil {
				return err
			}
		}
		out := &foretold{Sink: c.Sink, Records: map[string]int{}, Mappings: []*foretoldOf{}, byName: map[string]*foretoldOf{}}
		var now *foreseen
		end := func() error {
			if now == nil {
				return nil
			}
			out.count(now)
			return now.write(sheet, c.Sink)
		}
		if err := l.Observed(ctx, c.Sink, func(o ledger.Observation) error {
			if now == nil || now.object != o.Object || now.record != o.Record {
				if err := end(); err != nil {
					return err
				}
				now = &foreseen{record: o.Record, object: o.Object, key: o.Key, fields: map[string]foreseenField{}}
			}
			out.add(o)
			now.add(o)
			return nil
		}); err != nil {
			return err
		}
		if err := end(); err != nil {
			return err
		}
		for _, name := range sortedKeys(out.byName) {
			out.Mappings = append(out.Mappings, out.byName[name])
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

// add takes up what one delivery would have done to the record.
func (f *foreseen) add(o ledger.Observation) {
	if f.mapping == "" || slices.Index(ledger.Doings, o.Does) > slices.Index(ledger.Doings, f.does) {
		f.does, f.mapping, f.key = o.Does, o.Mapping, o.Key
	}
	if o.Outcome == ledger.Dead {
		f.dead = o.Reason
	}
	if o.CRMID != "" && !ledger.IsImagined(o.CRMID) {
		f.id = o.CRMID
	}
	for _, w := range o.Fields {
		if w.At >= f.fields[w.Name].At {
			f.fields[w.Name] = foreseenField{w, o.Mapping}
		}
	}
}

// ambiguous reports whether a delivery would be dead since nobody knows which record is meant.
func ambiguous(reason string) bool {
	return strings.HasPrefix(reason, "several ") || strings.HasPrefix(reason, "more ") || strings.Contains(reason, "several records have this key")
}

// what would become of the record, in a word.
func (f *foreseen) what() string {
	switch {
	case f.does != "":
		return f.does
	case ambiguous(f.dead):
		return "ambiguous"
	case f.dead != "":
		return "dead"
	}
	return "none"
}

func (r *foretold) of(mapping string) *foretoldOf {
	m := r.byName[mapping]
	if m == nil {
		m = &foretoldOf{Mapping: mapping, Examples: map[string][]string{}, Several: []foretoldSeveral{}, Overwrites: []foretoldOverwrite{}, Reasons: []foretoldReason{}}
		r.byName[mapping] = m
	}
	return m
}

// add takes up one delivery.
func (r *foretold) add(o ledger.Observation) {
	r.Events++
	if o.Outcome == ledger.Open {
		r.Waiting++
	}
	if o.Outcome != ledger.Dead || ambiguous(o.Reason) {
		return
	}
	m, reason := r.of(o.Mapping), o.Reason
	i := slices.IndexFunc(m.Reasons, func(have foretoldReason) bool { return have.Reason == reason })
	if i < 0 && len(m.Reasons) > mostListed {
		i = mostListed
	}
	if i < 0 {
		if i = len(m.Reasons); i == mostListed {
			reason = "other reasons"
		}
		m.Reasons = append(m.Reasons, foretoldReason{Reason: reason})
	}
	m.Reasons[i].Deliveries++
}

// count takes up what would become of one record.
func (r *foretold) count(f *foreseen) {
	if f.object == "" { // the mapping failed, and made none
		return
	}
	m, what := r.of(f.mapping), f.what()
	r.Records[what]++
	*map[string]*int{
		ledger.Creates: &m.Create, ledger.Adopts: &m.Adopt, ledger.Writes: &m.Write, ledger.Updates: &m.Update, ledger.Archivals: &m.Archive, ledger.Links: &m.Link,
		"none": &m.None, "ambiguous": &m.Ambiguous, "dead": &m.Dead,
	}[what]++
	if len(m.Examples[what]) < mostExamples {
		m.Examples[what] = append(m.Examples[what], f.key)
	}
	if what == "ambiguous" && len(m.Several) < mostListed {
		m.Several = append(m.Several, foretoldSeveral{f.key, f.dead})
	}
	for _, name := range sortedKeys(f.fields) {
		w := f.fields[name]
		if w.Old == nil {
			continue
		}
		m := r.of(w.mapping)
		if m.Overwritten++; len(m.Overwrites) < mostListed {
			m.Overwrites = append(m.Overwrites, foretoldOverwrite{f.object, f.key, f.id, name, w.Old, w.New})
		}
	}
}

// write adds the record to the sheet: a line for each field.
func (f *foreseen) write(sheet *csv.Writer, sink string) error {
	if sheet == nil {
		return nil
	}
	line := func(mapping, field, old, value string) error {
		return sheet.Write([]string{sink, mapping, f.object, plain(f.key), f.id, f.what(), field, old, value, plain(f.dead)})
	}
	if len(f.fields) == 0 {
		return line(f.mapping, "", "", "")
	}
	for _, name := range sortedKeys(f.fields) {
		w := f.fields[name]
		if err := line(w.mapping, name, plain(w.Old), plain(w.New)); err != nil {
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
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			text = "'" + text
		}
	}
	return text
}

func (r *foretold) print(out io.Writer, writes bool) error {
	if r.Events == 0 {
		say(out, "%s has observed nothing: with `write: false` below sinks.%s, events end as observed\n", r.Sink, r.Sink)
		return nil
	}
	if writes {
		say(out, "%s writes by now; this is what it has observed before, and was not replayed since.\n\n", r.Sink)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "MAPPING\tCREATE\tADOPT\tUPDATE\tMAKE OR CHANGE\tARCHIVE\tLINK\tNOTHING\tAMBIGUOUS\tDEAD\tFIELDS OVERWRITTEN\t")
	for _, m := range r.Mappings {
		say(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", m.Mapping, m.Create, m.Adopt, m.Update, m.Write, m.Archive, m.Link, m.None, m.Ambiguous, m.Dead, m.Overwritten)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, m := range r.Mappings {
		m.print(out)
	}
	if r.Waiting > 0 {
		say(out, "\nOf the deliveries %d are still tried again: `partnersync events --sink %s --outcome open` lists their events.\n", r.Waiting, r.Sink)
	}
	say(out, "\nTo do it: `write: true`, reload, and `partnersync replay --sink %s --outcome observed`\n", r.Sink)
	return nil
}

func (m *foretoldOf) print(out io.Writer) {
	for _, what := range append(slices.Clone(ledger.Doings[1:]), "dead") {
		if list := m.Examples[what]; len(list) > 0 {
			say(out, "\n%s: %s, such as %s", m.Mapping, what, strings.Join(list, ", "))
		}
	}
	more := func(n, listed int) {
		if n > listed {
			say(out, "\n  and %d more: --csv FILE has all", n-listed)
		}
	}
	if m.Ambiguous > 0 {
		say(out, "\n%s: ambiguous", m.Mapping)
		for _, p := range m.Several {
			say(out, "\n  %s: %s", p.Key, p.Reason)
		}
		more(m.Ambiguous, len(m.Several))
	}
	if len(m.Reasons) > 0 {
		say(out, "\n%s: would be dead", m.Mapping)
		for _, p := range m.Reasons {
			say(out, "\n  %dx %s", p.Deliveries, p.Reason)
		}
	}
	if m.Overwritten > 0 {
		say(out, "\n%s: overwritten", m.Mapping)
		for _, o := range m.Overwrites {
			say(out, "\n  %s %s (%s): %s %s -> %s", o.Object, o.Key, o.ID, o.Field, plain(o.Old), plain(o.New))
		}
		more(m.Overwritten, len(m.Overwrites))
	}
	say(out, "\n")
}
