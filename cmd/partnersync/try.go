package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/mappers"
	"partnersync/sinks"
)

type tryCmd struct {
	File   string `arg:"" optional:"" help:"The body of an event; - is standard input. Without it, the sample of --event."`
	Source string `help:"The source that the event comes from." predictor:"source"`
	Event  string `help:"The type of the event; without it, the body tells." predictor:"event"`
	Sink   string `help:"Show this sink only." predictor:"sink"`
}

// trial is what an event would do.
type trial struct {
	Source  string      `json:"source"`
	Event   string      `json:"event"`
	Entity  string      `json:"entity"`
	Ignored string      `json:"ignored,omitempty"`
	Drift   []string    `json:"drift,omitempty"`
	Sinks   []trialSink `json:"sinks"`
}

type trialSink struct {
	Sink     string         `json:"sink"`
	Mappings []trialMapping `json:"mappings"`
	Requests []trialRequest `json:"requests"`
}

// trialRequest is a request with what it is for, where records are looked for first.
type trialRequest struct {
	For string `json:"for,omitempty"`
	sinks.Preview
}

type trialMapping struct {
	Mapping string           `json:"mapping"`
	Skipped string           `json:"skipped,omitempty"`
	Failed  string           `json:"failed,omitempty"`
	Changes []mappers.Change `json:"changes,omitempty"`
	Apart   []apart          `json:"links_apart,omitempty"`
}

// apart is a link that the requests shown do not carry.
type apart struct {
	Object string `json:"object"`
	To     string `json:"to"`
	As     string `json:"as,omitempty"`
	Why    string `json:"why"`
}

func (c tryCmd) Run(ctx context.Context, cli *commands, s streams) error {
	cfg, problems := config.Load(cli.Config, config.Options{Lenient: true})
	if cfg == nil {
		printProblems(s.err, problems)
		return errRefused
	}
	c.Source, c.Event = namedEvent(cfg, c.Source, c.Event)
	if c.Source == "" && len(cfg.Sources) == 1 {
		c.Source = sortedKeys(cfg.Sources)[0]
	}
	source := cfg.Sources[c.Source]
	if source == nil {
		return usageError{fmt.Errorf("name the source with --source: one of %s", strings.Join(sortedKeys(cfg.Sources), ", "))}
	}
	body, err := c.body(cfg)
	if err != nil {
		return err
	}
	e := source.Open(c.Event, body)
	if e.Malformed != nil {
		return fmt.Errorf("the body is refused: %v", e.Malformed)
	}
	t := trial{Source: c.Source, Event: e.Type, Entity: e.Entity, Ignored: e.Ignored, Drift: e.Drift, Sinks: []trialSink{}}
	if e.Ignored == "" {
		for _, line := range askTables(ctx, cfg) {
			say(s.err, "%s\n", line)
		}
		now := time.Now()
		ev := &mappers.Event{ID: uuid.Nil.String(), Source: c.Source, Type: e.Type, Entity: e.Entity, OccurredAt: e.OccurredAt, ReceivedAt: now, Body: e.Body}
		for _, name := range cfg.Mappings.Sinks(c.Source, e.Type) {
			if c.Sink != "" && name != c.Sink {
				continue
			}
			ts, err := trySink(cfg, name, ev)
			if err != nil {
				return err
			}
			t.Sinks = append(t.Sinks, ts)
		}
	}
	if cli.JSON {
		return printJSON(s.out, t)
	}
	t.print(s.out)
	return nil
}

func (c tryCmd) body(cfg *config.Config) ([]byte, error) {
	switch c.File {
	case "":
		list := samplesOf(cfg, c.Source, c.Event)
		if names := cfg.Sources[c.Source].EventNames(); c.Event != "" && len(cfg.Sources[c.Source].Find(c.Event)) == 0 {
			return nil, usageError{fmt.Errorf("source %q has no event %q: %s", c.Source, c.Event, diag.OneOf(c.Event, names))}
		}
		if c.Event == "" || len(list) != 1 {
			return nil, usageError{errors.New("name a file, or an event that has a sample with --event: `partnersync show source NAME` lists them")}
		}
		return list[0].body, nil
	case "-":
		return io.ReadAll(os.Stdin)
	default:
		data, err := os.ReadFile(c.File)
		if err != nil {
			return nil, usageError{err}
		}
		return data, nil
	}
}

// trySink maps an event for a sink and asks the sink for the requests that it
// would make if no record were there yet.
func trySink(cfg *config.Config, name string, ev *mappers.Event) (trialSink, error) {
	t := trialSink{Sink: name, Requests: []trialRequest{}}
	sink := sinks.New(cfg.Sinks[name], sinks.Options{})
	defer sink.Close()
	outcomes := cfg.Mappings.Run(name, ev)
	looked, err := t.look(sink, outcomes)
	if err != nil {
		return t, err
	}
	groups := map[string][]sinks.Row{}
	ops := map[string]sinks.Operation{}
	var order []string
	for _, o := range outcomes {
		m := trialMapping{Mapping: o.Mapping, Skipped: o.Skipped, Changes: o.Changes}
		if o.Failed != nil {
			m.Failed = o.Failed.Message
		}
		for i, ch := range o.Changes {
			row := sinks.Row{
				Trace: fmt.Sprintf("%s/%d", o.Mapping, i), Object: ch.Object, Property: ch.Key.Property, Key: ch.Key.Value, Values: map[string]any{},
				Event: sinks.EventInfo{ID: ev.ID, Source: ev.Source, Type: ev.Type, OccurredAt: ev.OccurredAt, Mapping: o.Mapping},
			}
			for _, f := range ch.Fields {
				row.Values[f.Name] = f.Value
			}
			op, group := sink.Group(row)
			switch ch.Mode {
			case mappers.Append, mappers.CreateOnly:
				op = sinks.Create
			case mappers.UpdateOnly:
				op = sinks.Update
			case mappers.Archive:
				op = sinks.Find
			case mappers.Upsert:
				if _, vacant := looked[placeOf(&ch)]; vacant && sink.Supports(sinks.Create) && sink.Description().Lacks(sinks.Create, row) == "" {
					op = sinks.Create // that none is there is known by then
				}
			}
			if (op == sinks.Update || op == sinks.Find) && sink.Description().Lacks(op, row) != "" {
				continue // of a record that is not there yet nothing is sent
			}
			_, byKey := sink.Description().CarriesLinks(op)
			for _, l := range ch.Links {
				why, later := sink.Description().CannotLink(op == sinks.Create, ch.Object, l.To, l.As, l.Remove)
				switch {
				case later:
					why = "after the record is made: " + why
				case why != "":
					why = "not sent: " + why
				case l.Remove || !byKey:
					why = "apart, once both records are in the CRM"
				default:
					row.Links = append(row.Links, sinks.RowLink{Object: l.To, Property: l.Key.Property, Key: l.Key.Value, As: l.As})
					continue
				}
				m.Apart = append(m.Apart, apart{ch.Object, l.To, l.As, why})
			}
			group = string(op) + group
			if groups[group] == nil {
				order = append(order, group)
			}
			ops[group] = op
			same := func(r sinks.Row) bool {
				return r.Object == row.Object && r.Property == row.Property && r.Key == row.Key
			}
			if at := slices.IndexFunc(groups[group], same); at >= 0 {
				groups[group][at].Links = append(groups[group][at].Links, row.Links...)
				maps.Copy(groups[group][at].Values, row.Values) // one record is written once, whatever mappings it comes from
				continue
			}
			groups[group] = append(groups[group], row)
		}
		t.Mappings = append(t.Mappings, m)
	}
	for _, group := range order {
		previews, err := sink.Preview(ops[group], groups[group])
		if err != nil {
			return t, err
		}
		what := ""
		if slices.ContainsFunc(groups[group], func(r sinks.Row) bool { return looked[recordPlace{r.Object, r.Property, r.Key}] }) {
			what = fmt.Sprintf("if no such %s are found (what is found is changed by its id)", groups[group][0].Object)
		}
		t.add(what, previews)
	}
	return t, nil
}

func (t *trialSink) add(what string, previews []sinks.Preview) {
	for _, p := range previews {
		t.Requests = append(t.Requests, trialRequest{what, p})
	}
}

type recordPlace struct{ object, property, key string }

func placeOf(ch *mappers.Change) recordPlace {
	return recordPlace{ch.Object, ch.Key.Property, ch.Key.Value}
}

// look adds the requests that look for records that nobody knows yet: by the key where the sink does not look itself,
// then in the ways of the mappings. It returns the records that are known to be missing when they are made, and
// whether that takes a look.
func (t *trialSink) look(sink *sinks.Sink, outcomes []mappers.Outcome) (looked map[recordPlace]bool, err error) {
	looked = map[recordPlace]bool{}
	ways, asks := map[recordPlace][]mappers.Match{}, map[recordPlace][]string{}
	var order []recordPlace
	for _, o := range outcomes {
		for _, ch := range o.Changes {
			at := placeOf(&ch)
			if ch.Mode == mappers.Append || ch.Mode == mappers.Archive || ch.Key.Local {
				continue
			}
			for _, m := range ch.Match {
				if !slices.ContainsFunc(ways[at], func(o mappers.Match) bool { return slices.Equal(m, o) }) {
					ways[at] = append(ways[at], m)
				}
			}
			rules := false
			for _, f := range ch.Fields {
				switch f.Rule {
				case mappers.SetIfEmpty, mappers.Forward, mappers.Add:
					asks[at] = append(asks[at], f.Name)
					rules = true
				case mappers.SetOnCreate:
					rules = true
				}
			}
			if _, known := looked[at]; !known && (rules || len(ch.Match) > 0) {
				looked[at] = false
				order = append(order, at)
			}
		}
	}
	for _, at := range order {
		row := sinks.Row{Object: at.object, Property: at.property, Key: at.key, Read: asks[at]}
		byKey := !sink.UniqueKeys() || len(ways[at]) == 0 && len(asks[at]) > 0
		if byKey && sink.Supports(sinks.Find) && sink.Description().Lacks(sinks.Find, row) == "" {
			previews, err := sink.Preview(sinks.Find, []sinks.Row{row})
			if err != nil {
				return nil, err
			}
			t.add(fmt.Sprintf("look for %s by %s, our key", at.object, at.property), previews)
			looked[at] = true
		}
		row.Read = append(slices.Clone(row.Read), at.property)
		for _, m := range ways[at] {
			row.Terms = nil
			for _, term := range m {
				row.Terms = append(row.Terms, sinks.Term{Property: term.Property, Value: term.Value})
			}
			previews, err := sink.Preview(sinks.Search, []sinks.Row{row})
			if err != nil {
				return nil, err
			}
			t.add(fmt.Sprintf("look for %s by %s", at.object, m.Properties()), previews)
			looked[at] = true
		}
	}
	return looked, nil
}

func (t trial) print(w io.Writer) {
	say(w, "%s.%s", t.Source, t.Event)
	if t.Entity != "" {
		say(w, " about %s", t.Entity)
	}
	fmt.Fprintln(w)
	if t.Ignored != "" {
		say(w, "  ignored: %s\n", t.Ignored)
		return
	}
	for _, path := range t.Drift {
		say(w, "  not in the schema: %s\n", path)
	}
	if len(t.Sinks) == 0 {
		fmt.Fprintln(w, "  no mapping wants it: it would be stored as unmapped")
	}
	for _, s := range t.Sinks {
		say(w, "\nto %s\n", s.Sink)
		for _, m := range s.Mappings {
			switch {
			case m.Skipped != "":
				say(w, "  %s: skipped: %s\n", m.Mapping, m.Skipped)
			case m.Failed != "":
				say(w, "  %s: dead: %s\n", m.Mapping, m.Failed)
			}
			for _, ch := range m.Changes {
				say(w, "  %s: %s %s %s\n", m.Mapping, ch.Mode, ch.Object, showKey(ch.Key))
				for _, line := range showMatch(ch) {
					say(w, "      %s\n", line)
				}
				for _, f := range ch.Fields {
					say(w, "      %-24s %v%s\n", f.Name, showValue(f.Value), showRule(f))
				}
				for _, l := range ch.Links {
					verb := "link to"
					if l.Remove {
						verb = "unlink from"
					}
					role := ""
					if l.As != "" {
						role = " as " + l.As
					}
					why := ""
					if i := slices.IndexFunc(m.Apart, func(a apart) bool { return a.Object == ch.Object && a.To == l.To && a.As == l.As }); i >= 0 {
						why = "  (" + m.Apart[i].Why + ")"
					}
					say(w, "      %s %s %s%s%s\n", verb, l.To, showKey(l.Key), role, why)
					for _, m := range l.Match {
						say(w, "          or the one with %s\n", showTerms(m))
					}
				}
			}
		}
		for _, r := range s.Requests {
			fmt.Fprintln(w)
			if r.For != "" {
				say(w, "  %s:\n", r.For)
			}
			say(w, "  %s %s\n", r.Method, r.URL)
			if len(r.Body) > 0 {
				for line := range strings.SplitSeq(string(r.Body), "\n") {
					say(w, "  %s\n", line)
				}
			}
		}
	}
}

func showKey(k mappers.Key) string {
	if k.Local {
		return "(our key " + k.Value + ")"
	}
	return k.Property + "=" + k.Value
}

func showValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "(blank)"
	case string:
		return v
	case []any, map[string]any:
		if text, err := json.Marshal(v); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v)
}

func showRule(f mappers.Field) string {
	text := string(f.Rule)
	switch {
	case f.Rule == mappers.Set:
		return ""
	case f.Ladder != nil:
		text += " along " + strings.Join(f.Ladder.Order, ", ")
		if len(f.Ladder.Final) > 0 {
			text += "; final: " + strings.Join(f.Ladder.Final, ", ")
		}
	}
	return "  (" + text + ")"
}

// showMatch tells how the record is looked for before it is made.
func showMatch(ch mappers.Change) []string {
	if ch.Several == "" { // its mapping has no match
		return nil
	}
	if len(ch.Match) == 0 {
		return []string{"match by nothing: each way has a value that is null here"}
	}
	var lines []string
	for _, m := range ch.Match {
		lines = append(lines, "match by "+showTerms(m))
	}
	return append(lines, fmt.Sprintf("  several: %s, taken: %s", ch.Several, ch.Taken))
}

func showTerms(m mappers.Match) string {
	var terms []string
	for _, t := range m {
		terms = append(terms, t.Property+"="+t.Value)
	}
	return strings.Join(terms, " and ")
}
