package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/mappers"
	"partnersync/sinks"
)

type setupCmd struct {
	Sink   string `arg:"" help:"The sink whose CRM gets what the mappings need." predictor:"sink"`
	DryRun bool   `help:"Say what would be made; make nothing." name:"dry-run"`
}

// setupGroup is what fields of ours stand in, in CRMs that group fields.
const setupGroup = "partnersync"

// wanted is a field that mappings need.
type wanted struct {
	object, name string
	label        string // where the name is the config's own
	kind         sinks.FieldKind
	mixed        bool // mappings write different kinds
	key          bool // records are found by it
	sought       bool // records are looked for by it, and nothing writes it
	values       []mappers.Constant
}

// The states of what a field is after setup.
const (
	isThere = "there"
	wasMade = "made"
	toMake  = "to make"
	isLeft  = "left" // to a person
	failed  = "failed"
	unseen  = "unseen" // the CRM does not tell what the object has
)

// setupStep is what became of one field.
type setupStep struct {
	Object string `json:"object"`
	Field  string `json:"field"`
	Kind   string `json:"kind,omitempty"`
	Key    bool   `json:"key,omitempty"`
	State  string `json:"state"`
	Why    string `json:"why,omitempty"`     // what is missing, or went wrong
	ByHand string `json:"by_hand,omitempty"` // what a person does about it
}

func (c setupCmd) Run(ctx context.Context, cli *commands, s streams) error {
	cfg, err := cli.load(s, config.Options{Lenient: true})
	if err != nil {
		return err
	}
	d := cfg.Sinks[c.Sink]
	switch {
	case d == nil:
		return usageError{fmt.Errorf("there is no sink %q in the config: %s", c.Sink, diag.OneOf(c.Sink, sortedKeys(cfg.Sinks)))}
	case !d.Supports(sinks.Describe):
		return usageError{fmt.Errorf("%s does not tell what it has: nobody knows what would have to be made", c.Sink)}
	case slices.ContainsFunc(d.Secrets(), isUnset):
		return usageError{fmt.Errorf("the credentials of %s are not set here", c.Sink)}
	}
	sink := sinks.New(d, sinks.Options{})
	defer sink.Close()
	if err := allowed(ctx, sink); err != nil {
		return err
	}
	cli.begun.Store(true) // what is being made has to be told
	steps := c.setUp(ctx, sink, wants(cfg.Mappings.Uses(c.Sink)))
	if cli.JSON {
		err = printJSON(s.out, steps)
	} else {
		printSetup(s.out, steps)
	}
	return cmp.Or(err, c.rest(steps))
}

// allowed tells why nothing may be made: the config pins the account, and it is another, or nobody can tell.
func allowed(ctx context.Context, sink *sinks.Sink) error {
	pinned := sink.Description().Account()
	if pinned == "" {
		return nil
	}
	switch r := sink.Account(ctx); {
	case r.Class != sinks.OK:
		return fmt.Errorf("whose account it is cannot be told, and the config allows account %s alone: %s", pinned, refusal(r))
	case r.ID != pinned:
		return fmt.Errorf("the credentials are of account %s, and the config allows account %s alone", cmp.Or(r.ID, "(unknown)"), pinned)
	}
	return nil
}

// wants are the fields that mappings name, each once, in the order of the file.
func wants(uses []mappers.Use) []*wanted {
	var list []*wanted
	for _, u := range uses {
		i := slices.IndexFunc(list, func(w *wanted) bool { return w.object == u.Object && w.name == u.Property })
		if i < 0 {
			i = len(list)
			list = append(list, &wanted{object: u.Object, name: u.Property, label: u.Label, sought: true})
		}
		w := list[i]
		w.values = append(w.values, u.Values...)
		switch u.Purpose {
		case mappers.ForKey:
			w.key, w.sought, w.kind, w.mixed = true, false, sinks.KindText, false
		case mappers.ForValue:
			kind := kindOf(u.Kind)
			if !w.key {
				w.mixed = w.mixed || !w.sought && w.kind != kind
				w.kind = kind
			}
			w.sought = false
		}
	}
	return list
}

// kindOf is the kind of field that takes what an expression gives; unknown where nobody knows before an event comes.
func kindOf(k mappers.Kind) sinks.FieldKind {
	switch k {
	case mappers.Text, mappers.ID:
		return sinks.KindText
	case mappers.Integer, mappers.Number:
		return sinks.KindNumber
	case mappers.Bool:
		return sinks.KindBool
	case mappers.Time:
		return sinks.KindDateTime
	}
	return sinks.KindUnknown
}

// setUp makes what is missing, object by object. What one refuses does not keep others from being made.
func (c setupCmd) setUp(ctx context.Context, sink *sinks.Sink, list []*wanted) []setupStep {
	steps := []setupStep{}
	described := map[string][]sinks.Field{}
	refused := map[string]sinks.Result{}
	for _, w := range list {
		if _, asked := described[w.object]; !asked {
			if why := sink.Description().CannotDescribe(w.object); why != "" {
				described[w.object], refused[w.object] = nil, sinks.Result{Class: sinks.Rejected}
				steps = append(steps, setupStep{Object: w.object, State: unseen, Why: why})
				continue
			}
			fields, r := sink.Describe(ctx, w.object)
			described[w.object] = fields
			if r.Class != sinks.OK {
				refused[w.object] = r
				steps = append(steps, setupStep{Object: w.object, State: failed, Why: "what it has cannot be seen: " + refusal(r), ByHand: helpWith(sink, r, w)})
			}
		}
		if r := refused[w.object]; r.Class != "" {
			continue
		}
		steps = append(steps, c.field(ctx, sink, w, described[w.object])...)
	}
	return steps
}

// refusal is why something was not done, in one line.
func refusal(r sinks.Result) string {
	text := cmp.Or(r.Message, string(r.Class))
	if r.Status != 0 {
		text = fmt.Sprintf("HTTP %d: %s", r.Status, text)
	}
	return text
}

// helpWith is what a person does about a refusal: allow the credentials more, where they were good for something else.
func helpWith(sink *sinks.Sink, r sinks.Result, w *wanted) string {
	if r.Class == sinks.Held {
		return sink.Description().ByHand(sinks.ByHandScope, w.object, w.field())
	}
	return ""
}

// field is what would be made.
func (w *wanted) field() sinks.NewField {
	return sinks.NewField{Name: w.name, Label: cmp.Or(w.label, labelOf(w.name)), Kind: w.kind, Unique: w.key, Group: setupGroup}
}

// labelOf is what people read for the name of a field.
func labelOf(name string) string {
	label := strings.ReplaceAll(strings.TrimSuffix(name, "__c"), "_", " ")
	first, size := utf8.DecodeRuneInString(label)
	return string(unicode.ToUpper(first)) + label[size:]
}

func (c setupCmd) field(ctx context.Context, sink *sinks.Sink, w *wanted, fields []sinks.Field) []setupStep {
	d, f := sink.Description(), w.field()
	f.Unique = w.key && sink.UniqueKeys()
	step := setupStep{Object: w.object, Field: w.name, Kind: string(w.kind), Key: w.key, State: isThere}
	named := func(name string) func(sinks.Field) bool {
		return func(have sinks.Field) bool {
			return w.label == "" && strings.EqualFold(have.Name, name) || w.label != "" && strings.EqualFold(have.Label, w.label)
		}
	}
	if i := slices.IndexFunc(fields, named(w.name)); i >= 0 {
		return c.there(d, w, f, step, fields[i])
	}
	left := func(why, how string) []setupStep {
		step.State, step.Why, step.ByHand = isLeft, why, how
		return []setupStep{step}
	}
	if i := slices.IndexFunc(fields, func(have sinks.Field) bool { return strings.EqualFold(have.Label, f.Label) }); i >= 0 {
		return left(fmt.Sprintf("it is not there, but the label of %s says %q", fields[i].Name, fields[i].Label), "write "+fields[i].Name+" in the mapping, if it is that one")
	}
	switch {
	case w.sought:
		return left("it is not there, and nothing writes it: records are looked for by a field that sales fill in", "name a field that is there")
	case w.mixed:
		return left("it is not there, and mappings write values of different kinds to it", d.ByHand(sinks.ByHandField, w.object, f))
	}
	why := d.CannotMakeField(w.object, f)
	loose := f
	loose.Unique = false
	if why != "" && f.Unique && d.CannotMakeField(w.object, loose) == "" {
		steps := c.make(ctx, sink, w, loose, step)
		if s := steps[0].State; s == wasMade || s == toMake {
			steps = append(steps, setupStep{Object: w.object, Field: w.name, Key: true, State: isLeft, Why: why, ByHand: d.ByHand(sinks.ByHandUnique, w.object, f)})
		}
		return steps
	}
	if why != "" {
		return left("it is not there: "+why, d.ByHand(sinks.ByHandField, w.object, f))
	}
	return c.make(ctx, sink, w, f, step)
}

// there is what is left to do about a field that the CRM has: nothing is changed that others have made.
func (c setupCmd) there(d *sinks.Description, w *wanted, f sinks.NewField, step setupStep, have sinks.Field) []setupStep {
	f.Name, f.Label = have.Name, cmp.Or(have.Label, f.Label)
	if f.Unique && !have.Unique {
		step.State, step.Why, step.ByHand = isLeft, "records are found by it, and it is not unique", d.ByHand(sinks.ByHandUnique, w.object, f)
		return []setupStep{step}
	}
	if len(have.Options) == 0 || have.Kind != sinks.KindOption && have.Kind != sinks.KindOptions {
		return []setupStep{step}
	}
	var lacking []string
	for _, v := range w.values {
		takes := func(o sinks.Option) bool { return o.Value == v.Text }
		if !slices.ContainsFunc(have.Options, takes) && !slices.Contains(lacking, v.Shown) {
			lacking = append(lacking, v.Shown)
		}
	}
	if len(lacking) > 0 {
		step.State, step.ByHand = isLeft, d.ByHand(sinks.ByHandOption, w.object, f)
		step.Why = fmt.Sprintf("it does not take %s, which the config writes", quoted(lacking))
	}
	return []setupStep{step}
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = fmt.Sprintf("%q", text)
	}
	return strings.Join(out, ", ")
}

// make makes a field, or says that it would.
func (c setupCmd) make(ctx context.Context, sink *sinks.Sink, w *wanted, f sinks.NewField, step setupStep) []setupStep {
	d := sink.Description()
	if c.DryRun {
		step.State = toMake
		return []setupStep{step}
	}
	r := sink.MakeField(ctx, w.object, f)
	access := d.ByHand(sinks.ByHandAccess, w.object, f)
	switch {
	case r.Class == sinks.OK:
		step.State = wasMade
		steps := []setupStep{step}
		if r.ID != w.name && w.label == "" {
			steps = append(steps, setupStep{Object: w.object, Field: w.name, State: isLeft, Why: fmt.Sprintf("the CRM calls it %s", r.ID), ByHand: "write " + r.ID + " in the mapping"})
		}
		if access != "" {
			steps = append(steps, setupStep{Object: w.object, Field: w.name, State: isLeft, Why: "nobody may see it yet", ByHand: access})
		}
		return steps
	case r.Class == sinks.Conflict && access != "":
		step.State, step.Why, step.ByHand = isLeft, "it is there, but these credentials may not see it", access
	case r.Class == sinks.Conflict:
		step.State, step.Why = failed, "the CRM has one of this name that it does not show: "+refusal(r)
	case r.Sent:
		step.State, step.Why, step.ByHand = failed, "nobody knows whether it was made: "+refusal(r), "run setup again: what is there is not made twice"
	default:
		step.State, step.Why, step.ByHand = failed, refusal(r), cmp.Or(helpWith(sink, r, w), d.ByHand(sinks.ByHandField, w.object, f))
	}
	return []setupStep{step}
}

// rest is what tells that not all of it is there.
func (c setupCmd) rest(steps []setupStep) error {
	count := func(states ...string) int {
		n := 0
		for _, s := range steps {
			if slices.Contains(states, s.State) {
				n++
			}
		}
		return n
	}
	var rest []string
	for _, one := range []struct {
		n    int
		says string
	}{{count(toMake), "to make"}, {count(isLeft), "left to a person"}, {count(failed), "not done"}} {
		if one.n > 0 {
			rest = append(rest, fmt.Sprintf("%d %s", one.n, one.says))
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return errors.New("the CRM does not have all that the mappings need: " + strings.Join(rest, ", "))
}

func printSetup(out io.Writer, steps []setupStep) {
	if len(steps) == 0 {
		say(out, "no mapping names a field of it\n")
	}
	for _, s := range steps {
		name := s.Object
		if s.Field != "" {
			name += "." + s.Field
		}
		if s.State == wasMade || s.State == toMake {
			what := s.Kind
			if s.Key {
				what += ", a key"
			}
			say(out, "%-8s %s (%s)\n", s.State, name, what)
			continue
		}
		say(out, "%-8s %s", s.State, name)
		if s.Why != "" {
			say(out, ": %s", s.Why)
		}
		say(out, "\n")
		if s.ByHand != "" {
			say(out, "         %s\n", s.ByHand)
		}
	}
}
