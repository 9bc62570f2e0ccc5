package sinks

import (
	"context"

	"partnersync/internal/diag"
)

// Field is a field of an object, as the target describes it.
type Field struct {
	Name     string    `json:"name"`
	Label    string    `json:"label,omitzero"`
	Type     string    `json:"type,omitzero"` // in the target's own words
	Kind     FieldKind `json:"kind,omitzero"`
	ReadOnly bool      `json:"read_only,omitzero"`
	Required bool      `json:"required,omitzero"`
	Unique   bool      `json:"unique,omitzero"`
	Options  []Option  `json:"options,omitempty"` // the values that it takes, where only certain ones will do
}

// FieldKind is what a field holds.
type FieldKind string

// The kinds.
const (
	KindText     FieldKind = "text"
	KindNumber   FieldKind = "number"
	KindBool     FieldKind = "bool"
	KindDate     FieldKind = "date"
	KindDateTime FieldKind = "datetime"
	KindOption   FieldKind = "option"
	KindOptions  FieldKind = "options"
	KindLink     FieldKind = "link"
)

// Option is one of the values that a field takes.
type Option struct {
	Value string `json:"value"`
	Label string `json:"label,omitzero"`
}

// fieldRules say where an element of an answer holds what of a field.
type fieldRules struct {
	Name     path       `yaml:"name,required"`
	Label    *path      `yaml:"label"`
	Type     *path      `yaml:"type"`
	Required *condition `yaml:"required"`
	Unique   *condition `yaml:"unique"`
	Options  *struct {
		At    path  `yaml:"at,required"`
		Value path  `yaml:"value,required"`
		Label *path `yaml:"label"`
	} `yaml:"options"`
}

// mostPages bounds what is read of a list that never ends.
const mostPages = 100

// Describe lists the fields of an object, in the target's order. Where the result
// is not OK it tells why there are none.
func (s *Sink) Describe(ctx context.Context, object string) ([]Field, Result) {
	u := &unit{row: &Row{Object: object}}
	way, _ := s.desc.way(Describe, u)
	if way == nil {
		return nil, Result{Class: Rejected, Code: "unsupported", Message: unsupported(Describe)}
	}
	var fields []Field
	cursor := ""
	for range mostPages {
		a, res := s.ask(ctx, way, u, cursor)
		if res.Class != OK {
			return nil, res
		}
		page, ok := a.fields(&way.result.Results)
		if !ok {
			return nil, Result{Class: Unavailable, Status: a.status, Code: unknown, Message: "the answer does not name the fields"}
		}
		fields = append(fields, page...)
		before := cursor
		if way.result.Next != nil {
			cursor, _ = way.result.Next.at(a.tree, "").(string)
		}
		if cursor == "" || cursor == before {
			break
		}
	}
	return fields, Result{Class: OK}
}

// ask sends the request of an operation that is about no row, and judges the
// answer, which is nil where there is none.
func (s *Sink) ask(ctx context.Context, way *operation, u *unit, cursor string) (*answer, Result) {
	req, failed := s.desc.renderPage(way, []*unit{u}, cursor)
	if req == nil {
		return nil, Result{Class: Rejected, Code: "request", Message: s.clean(reason(failed[u]))}
	}
	a, v, fail := s.transact(ctx, req)
	if fail != nil {
		return nil, fail.Result
	}
	res := s.read(way, []*unit{u}, a, v)[0].Result
	if res.Class == Split {
		res.Class = Rejected
	}
	return a, res
}

// fields reads the fields that an answer describes; false where one has no name.
func (a *answer) fields(l *listing) ([]Field, bool) {
	list, ok := l.At.at(a.tree, "").([]any)
	if !ok {
		return nil, false
	}
	one := func(p *path, tree any) string {
		if p == nil {
			return ""
		}
		text, _ := p.at(tree, "").(string)
		return text
	}
	out := make([]Field, 0, len(list))
	for _, element := range list {
		f := Field{
			Name: one(&l.Field.Name, element), Label: one(l.Field.Label, element), Type: one(l.Field.Type, element),
			Required: l.Field.Required != nil && l.Field.Required.holds(a, element, ""),
			Unique:   l.Field.Unique != nil && l.Field.Unique.holds(a, element, ""),
		}
		if f.Name == "" {
			return nil, false
		}
		if o := l.Field.Options; o != nil {
			options, _ := o.At.at(element, "").([]any)
			for _, option := range options {
				f.Options = append(f.Options, Option{Value: one(&o.Value, option), Label: one(o.Label, option)})
			}
		}
		out = append(out, f)
	}
	return out, true
}

func (f *fieldRules) outline(o *outline, below ...path) {
	add := func(ps ...path) { o.add(append(append([]path{}, below...), ps...)...) }
	add(f.Name)
	for _, p := range []*path{f.Label, f.Type} {
		if p != nil {
			add(*p)
		}
	}
	f.Required.outline(o, below...)
	f.Unique.outline(o, below...)
	if f.Options != nil {
		add(f.Options.At, everyElement(), f.Options.Value)
		if f.Options.Label != nil {
			add(f.Options.At, everyElement(), *f.Options.Label)
		}
	}
}

// checkFields holds the mode of an answer and the operation against each other.
func (r *resultRules) checkFields(op Operation, n diag.Node, d *diag.Decoding) {
	switch {
	case op == Describe && r.Mode != modeFields:
		d.Errorf(n, "add result: {mode: fields, results: {at: ..., field: {name: ...}}}", "describe has the mode %q alone", modeFields)
	case op != Describe && r.Mode == modeFields:
		d.Errorf(n.Get("mode"), "", "only describe can have the mode %q", r.Mode)
	case op == Describe && r.Results.Field == nil:
		d.Errorf(n.Get("results"), "add field: {name: ...}", "the mode %q needs to know where the name of a field is", r.Mode)
	case op != Describe && r.Results.Field != nil:
		d.Errorf(n, "", "only describe has `field`")
	case op != Describe && op != Search && op != Find && r.Next != nil:
		d.Errorf(n, "", "only describe, find and search have `next`")
	}
}
