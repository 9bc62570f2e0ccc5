package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/mappers"
	"partnersync/receiver/sources"
	"partnersync/sinks"
)

type showCmd struct {
	Source    showSource    `cmd:"" help:"Print a source: a preset as it ships, or one of the config."`
	Sink      showSink      `cmd:"" help:"Print the whole description of a sink, and what the mappings use there."`
	Event     showEvent     `cmd:"" help:"Print an event: its fields, types and a sample."`
	Functions showFunctions `cmd:"" help:"List the functions of expressions, with examples."`
}

type (
	showSource struct {
		Name string `arg:"" help:"Name of a preset or of a source of the config." predictor:"source or preset"`
	}
	showSink struct {
		Name string `arg:"" help:"Name of a preset or of a sink of the config." predictor:"sink or preset"`
	}
	showEvent struct {
		Name string `arg:"" help:"source.event, such as partnerstack.deal.updated." predictor:"event"`
	}
	showFunctions struct {
		Name string `arg:"" optional:"" help:"One function only." predictor:"function"`
	}
)

func (c showSource) Run(cli *commands, s streams) error {
	if text, ok := sources.Preset(c.Name); ok {
		_, err := s.out.Write(text)
		return err
	}
	if cfg, _ := config.Load(cli.Config, config.Options{Lenient: true}); cfg != nil && cfg.Sources[c.Name] != nil {
		src := cfg.Sources[c.Name]
		say(s.out, "source %s (preset %s)\n", c.Name, orNone(src.Preset))
		w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
		for _, name := range src.EventNames() {
			say(w, "  %s\t%s\n", name, src.Events[name].Description)
		}
		return w.Flush()
	}
	return usageError{fmt.Errorf("there is no source %q: the presets are %s%s", c.Name, strings.Join(sources.Presets(), ", "), cli.unread())}
}

// unread says why nothing of the config was found, where that is the reason.
func (c *commands) unread() string {
	if _, problems := config.Load(c.Config, config.Options{Lenient: true}); problems.Failed() && given(c.Config) {
		return fmt.Sprintf("; %s has mistakes, so nothing of it is known: `partnersync check` lists them", c.Config)
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (c showSink) Run(cli *commands, s streams) error {
	if cfg, _ := config.Load(cli.Config, config.Options{Lenient: true}); cfg != nil && cfg.Sinks[c.Name] != nil {
		needs := needsOf(cfg, c.Name)
		if cli.JSON {
			return printJSON(s.out, shownSink{c.Name, plainYAML(cfg.Sinks[c.Name].YAML()), needs})
		}
		if _, err := s.out.Write(cfg.Sinks[c.Name].YAML()); err != nil {
			return err
		}
		return printNeeds(s.out, c.Name, needs)
	}
	if text, ok := sinks.Preset(c.Name); ok {
		if cli.JSON {
			return printJSON(s.out, shownSink{c.Name, plainYAML(text), []need{}})
		}
		_, err := s.out.Write(text)
		return err
	}
	return usageError{fmt.Errorf("there is no sink %q: the presets are %s%s", c.Name, strings.Join(sinks.Presets(), ", "), cli.unread())}
}

// shownSink is a sink as JSON.
type shownSink struct {
	Sink        string `json:"sink"`
	Description any    `json:"description"` // what stands in the preset and the config
	Uses        []need `json:"mappings_use"`
}

// plainYAML is what a description of ours says.
func plainYAML(text []byte) any {
	n, _ := diag.Parse("", text)
	return n.Plain()
}

// need is a property that mappings use in a CRM.
type need struct {
	Object   string   `json:"object"`
	Property string   `json:"property"`
	Unique   bool     `json:"unique"`          // it is a key
	Match    bool     `json:"match,omitempty"` // records are looked for by it
	Mappings []string `json:"mappings"`
}

// needsOf lists what the mappings to a sink use, keys first.
func needsOf(cfg *config.Config, sink string) []need {
	list := []need{}
	add := func(object, property, mapping string, unique bool) *need {
		if object == "" || property == "" {
			return &need{}
		}
		at := slices.IndexFunc(list, func(n need) bool { return n.Object == object && n.Property == property })
		if at < 0 {
			at = len(list)
			list = append(list, need{Object: object, Property: property})
		}
		n := &list[at]
		n.Unique = n.Unique || unique
		if !slices.Contains(n.Mappings, mapping) {
			n.Mappings = append(n.Mappings, mapping)
		}
		return n
	}
	for _, m := range cfg.Mappings.Mappings() {
		if m.Sink != sink {
			continue
		}
		add(m.Object, m.Key, m.Name, true)
		for _, name := range m.Fields {
			add(m.Object, name, m.Name, false)
		}
		for _, name := range m.Match {
			add(m.Object, name, m.Name, false).Match = true
		}
		for _, l := range m.Links {
			add(l.To, l.Key, m.Name, true)
			for _, name := range l.Match {
				add(l.To, name, m.Name, false).Match = true
			}
		}
	}
	slices.SortFunc(list, func(a, b need) int {
		byKey := 0
		if a.Unique != b.Unique {
			byKey = 1
			if a.Unique {
				byKey = -1
			}
		}
		return cmp.Or(cmp.Compare(a.Object, b.Object), byKey, cmp.Compare(a.Property, b.Property))
	})
	return list
}

// printNeeds writes them as a comment, so that the whole stays YAML.
func printNeeds(out io.Writer, sink string, needs []need) error {
	if len(needs) == 0 {
		return nil
	}
	say(out, "\n# What the mappings use in %s; what the CRM does not have itself has to be made there, keys with unique values:\n", sink)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, n := range needs {
		key := ""
		if n.Unique {
			key = "unique"
		} else if n.Match {
			key = "match"
		}
		say(w, "#   %s\t%s\t%s\t%s\n", n.Object, n.Property, key, strings.Join(n.Mappings, ", "))
	}
	return w.Flush()
}

func (c showEvent) Run(cli *commands, s streams) error {
	name, event, _ := strings.Cut(c.Name, ".")
	src := findSource(cli, name)
	if src == nil {
		return usageError{fmt.Errorf("there is no source %q: write source.event, such as partnerstack.deal.updated%s", name, cli.unread())}
	}
	found := src.Find(event)
	if len(found) != 1 {
		return usageError{fmt.Errorf("source %q has no event %q: %s", name, event, diag.OneOf(event, src.EventNames()))}
	}
	e := found[0]
	if cli.JSON {
		return printJSON(s.out, map[string]any{"source": name, "event": e.Name, "description": e.Description, "schema": e.Schema, "sample": string(e.Sample)})
	}
	say(s.out, "%s.%s: %s\n\n", name, e.Name, e.Description)
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	printFields(w, "event", e.Schema)
	if err := w.Flush(); err != nil {
		return err
	}
	if e.Sample != nil {
		fmt.Fprintf(s.out, "\nsample:\n%s\n", e.Sample) // of the config, over several lines
	}
	return nil
}

func findSource(cli *commands, name string) *sources.Source {
	if cfg, _ := config.Load(cli.Config, config.Options{Lenient: true}); cfg != nil && cfg.Sources[name] != nil {
		return cfg.Sources[name]
	}
	if _, ok := sources.Preset(name); !ok {
		return nil
	}
	cfg, _ := config.Parse("preset", []byte(fmt.Sprintf("sources: {%s: {preset: %s, verify: none}}", name, name)), config.Options{Lenient: true})
	if cfg == nil {
		return nil
	}
	return cfg.Sources[name]
}

func printFields(w io.Writer, path string, s mappers.Schema) {
	for _, f := range fieldsOf(path, s) {
		say(w, "  %s\t%s\t%s\t%s\n", f.path, f.kind, f.notes, f.description)
	}
}

// shownField is a field of an event, as people are shown it.
type shownField struct{ path, kind, notes, description string }

// fieldsOf lists the fields of a schema, and what is inside them.
func fieldsOf(path string, s mappers.Schema) []shownField {
	var out []shownField
	for _, name := range sortedKeys(s.Fields) {
		f := s.Fields[name]
		var notes []string
		for _, note := range []struct {
			is   bool
			text string
		}{{f.Required, "required"}, {f.Private, "private"}, {f.Deprecated, "deprecated"}, {f.None != "", "none is " + f.None}} {
			if note.is {
				notes = append(notes, note.text)
			}
		}
		out = append(out, shownField{path + "." + name, string(f.Kind), strings.Join(notes, ", "), f.Description})
		out = append(out, fieldsOf(path+"."+name, f)...)
		if f.Elem != nil {
			out = append(out, fieldsOf(path+"."+name+"[]", *f.Elem)...)
		}
	}
	return out
}

func (c showFunctions) Run(cli *commands, s streams) error {
	var list []mappers.FunctionDoc
	for _, f := range mappers.Functions() {
		if c.Name == "" || f.Name == c.Name {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		return usageError{fmt.Errorf("there is no function %q: `partnersync show functions` lists them", c.Name)}
	}
	if cli.JSON {
		return printJSON(s.out, list)
	}
	for _, f := range list {
		say(s.out, "%s\n    %s\n", f.Signature, f.Doc)
		for _, e := range f.Examples {
			say(s.out, "    %s  ->  %s\n", e.Expression, e.Result)
		}
		fmt.Fprintln(s.out)
	}
	return nil
}
