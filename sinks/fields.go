package sinks

import (
	"context"
	"slices"
	"strings"

	"partnersync/internal/diag"
)

// Field is a field of an object, as the target describes it.
type Field struct {
	Name     string    `json:"name"`
	Label    string    `json:"label,omitzero"`
	Type     string    `json:"type,omitzero"` // in the target's own words
	Kind     FieldKind `json:"kind,omitzero"`
	Required bool      `json:"required,omitzero"`
	ReadOnly bool      `json:"read_only,omitzero"` // the target alone sets it
	Unique   bool      `json:"unique,omitzero"`
	Options  []Option  `json:"options,omitempty"` // the values that it takes, where only certain ones will do and the target tells
}

// FieldKind says what a field takes, in words that are the same for all targets.
type FieldKind string

// The kinds.
const (
	KindUnknown  FieldKind = ""
	KindText     FieldKind = "text"
	KindNumber   FieldKind = "number"
	KindBool     FieldKind = "bool"
	KindDate     FieldKind = "date"
	KindDateTime FieldKind = "datetime"
	KindOption   FieldKind = "option"  // one of certain values
	KindOptions  FieldKind = "options" // several of them
	KindLink     FieldKind = "link"    // the id of another record, or of a user
)

// Kinds lists all kinds that are known.
func Kinds() []FieldKind {
	return []FieldKind{KindText, KindNumber, KindBool, KindDate, KindDateTime, KindOption, KindOptions, KindLink}
}

// DecodeNode refuses kinds that there are not.
func (k *FieldKind) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if *k = FieldKind(text); ok && !slices.Contains(Kinds(), *k) {
		d.Errorf(n, diag.OneOf(text, texts(Kinds())), "unknown kind %q", text)
	}
}

// Option is one of the values that a field takes.
type Option struct {
	Value string `json:"value"`
	Label string `json:"label,omitzero"`
}

// fieldRules say where an element of an answer holds what of a field.
type fieldRules struct {
	Name      path                 `yaml:"name,required"`
	Label     *path                `yaml:"label"`
	Type      *path                `yaml:"type"`
	Kind      map[string]FieldKind `yaml:"kind"`    // of the target's types, those that are known
	Several   conditions           `yaml:"several"` // it takes several of its options
	Required  conditions           `yaml:"required"`
	Unique    conditions           `yaml:"unique"`
	UniqueToo map[string][]string  `yaml:"unique_too"` // fields that are unique though nothing in the answer says so, by object
	ReadOnly  conditions           `yaml:"read_only"`
	Except    conditions           `yaml:"except"` // it is none any more
	Keys      *struct {
		At     path       `yaml:"at,required"`     // of the whole answer
		Fields path       `yaml:"fields,required"` // the names of the fields of a key
		Only   conditions `yaml:"only"`
	} `yaml:"keys"` // a list of keys: a field is unique where one consists of it alone
	Options *struct {
		At     path       `yaml:"at,required"`
		Value  path       `yaml:"value,required"`
		Label  *path      `yaml:"label"`
		Except conditions `yaml:"except"`
	} `yaml:"options"`
}

// conditions hold where each of them does; none at all never hold.
type conditions []condition

// DecodeNode reads a condition, or a list of them.
func (cs *conditions) DecodeNode(n diag.Node, d *diag.Decoding) {
	items := n.Items()
	if n.Kind() != diag.List {
		items = []diag.Node{n}
	}
	*cs = make(conditions, len(items))
	for i, item := range items {
		d.Decode(item, &(*cs)[i])
	}
}

func (cs conditions) hold(a *answer, tree any) bool {
	return len(cs) > 0 && !slices.ContainsFunc(cs, func(c condition) bool { return !c.holds(a, tree, "") })
}

func (cs conditions) outline(o *outline, below ...path) {
	for i := range cs {
		cs[i].outline(o, below...)
	}
}

// mostPages bounds what is read of a list that never ends, mostOptions for how many fields of an object options are read
// that describe does not show.
const (
	mostPages   = 100
	mostOptions = 50
)

// Describe lists the fields of an object, in the target's order. Where the result is not OK it tells why there are
// none: a list that is not whole is none. Targets that show the options of a field only when asked for them apart are
// asked, for the first fifty fields that have some. All of it together takes no longer than Timeout.
func (s *Sink) Describe(ctx context.Context, object string) ([]Field, Result) {
	u := &unit{row: &Row{Object: object}}
	if why := s.desc.CannotDescribe(object); why != "" {
		return nil, Result{Class: Rejected, Code: "unsupported", Message: s.clean(why)}
	}
	way, _ := s.desc.way(Describe, u)
	if way == nil {
		return nil, unsupportedResult(Describe)
	}
	ctx, cancel := context.WithTimeout(ctx, s.desc.timeout)
	defer cancel()
	var fields []Field
	res := s.pages(ctx, way, u, func(a *answer, list []any) bool {
		some, ok := way.result.Results.Field.read(a, list)
		fields = append(fields, some...)
		return ok
	})
	if res.Class != OK {
		return nil, res
	}
	one, _ := s.desc.Object(object)
	for i := range fields {
		fields[i].Unique = fields[i].Unique || slices.Contains(way.result.Results.Field.UniqueToo[one], fields[i].Name)
	}
	return s.withOptions(ctx, u, fields)
}

// withOptions asks for the options of fields that describe does not show. Where an entry names its field they are those of
// all fields, else those of one.
func (s *Sink) withOptions(ctx context.Context, u *unit, fields []Field) ([]Field, Result) {
	add := func(way *operation, of func(Entry) *Field) Result {
		entries, res := s.entries(ctx, way, u)
		for _, e := range entries {
			if f := of(e); f != nil {
				f.Options = append(f.Options, Option{Value: e.Fields["value"], Label: e.Fields["label"]})
			}
		}
		return res
	}
	u.field = &NewField{}
	for _, way := range s.desc.operations[FieldOptions] {
		if !way.result.Results.Entry.has("field") {
			continue
		}
		res := add(way, func(e Entry) *Field {
			if i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == e.Fields["field"] }); i >= 0 {
				return &fields[i]
			}
			return nil
		})
		if res.Class != OK {
			return nil, res
		}
	}
	asked := 0
	for i := range fields {
		f := &fields[i]
		u.field = &NewField{Name: f.Name, Kind: f.Kind, Type: f.Type}
		way, _ := s.desc.way(FieldOptions, u)
		if way == nil || way.result.Results.Entry.has("field") {
			continue
		}
		if asked++; asked > mostOptions {
			break
		}
		if res := add(way, func(Entry) *Field { return f }); res.Class != OK {
			return nil, res
		}
	}
	return fields, Result{Class: OK}
}

// CannotDescribe tells why the target does not tell the fields of an object, whoever asks; "" where it does.
func (d *Description) CannotDescribe(object string) string {
	if d.unsure {
		return ""
	}
	return d.lacksFor(d.operations[Describe], Describe, &unit{row: &Row{Object: object}}, unsupported(Describe))
}

func unsupportedResult(op Operation) Result {
	return Result{Class: Rejected, Code: "unsupported", Message: unsupported(op)}
}

// pages reads all pages of a list. read takes the elements of one, and returns false where they are not what they should be.
func (s *Sink) pages(ctx context.Context, way *operation, u *unit, read func(*answer, []any) bool) Result {
	r := &way.result
	for p := (page{number: 1}); p.number <= mostPages; p.number++ {
		a, res := s.ask(ctx, way, u, p)
		if res.Class != OK {
			return res
		}
		list, ok := r.Results.At.at(a.tree, "").([]any)
		if !ok && a.empty {
			return res // there are none
		}
		if !ok || !read(a, list) {
			return Result{Class: Unavailable, Status: a.status, Code: unknown, Message: "the answer has a shape that the description does not know", RequestID: res.RequestID}
		}
		next := page{number: p.number}
		if r.Next != nil {
			next.cursor, _ = r.Next.at(a.tree, "").(string)
		}
		if r.NextURL != nil {
			next.url, _ = r.NextURL.at(a.tree, "").(string)
		}
		more := r.More != nil && r.More.holds(a, a.tree, "") || r.Limit > 0 && len(list) >= r.Limit
		switch {
		case !more && next.cursor == "" && next.url == "":
			return res
		case !more && next == p:
			return endless(a)
		}
		p = next
	}
	return endless(nil)
}

// endless is the result of a list that does not end: what has come of it is not the whole.
func endless(a *answer) Result {
	r := Result{Class: Unavailable, Code: unknown, Message: "the list that the target answers has no end"}
	if a != nil {
		r.Status = a.status
	}
	return r
}

// ask sends the request of an operation that is about no row, and judges the
// answer, which is nil where there is none.
func (s *Sink) ask(ctx context.Context, way *operation, u *unit, p page) (*answer, Result) {
	req, failed := s.desc.renderPage(way, []*unit{u}, p)
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

// read reads the fields that elements describe; false where one has no name.
func (f *fieldRules) read(a *answer, list []any) ([]Field, bool) {
	one := func(p *path, tree any) string {
		if p == nil {
			return ""
		}
		text, _ := p.at(tree, "").(string)
		return text
	}
	unique := f.unique(a)
	out := make([]Field, 0, len(list))
	for _, element := range list {
		field := Field{
			Name: one(&f.Name, element), Label: one(f.Label, element), Type: one(f.Type, element),
			Required: f.Required.hold(a, element), Unique: f.Unique.hold(a, element), ReadOnly: f.ReadOnly.hold(a, element),
		}
		if field.Name == "" {
			return nil, false
		}
		if f.Except.hold(a, element) {
			continue
		}
		field.Kind, field.Unique = f.Kind[field.Type], field.Unique || unique[field.Name]
		if field.Kind == KindOption && f.Several.hold(a, element) {
			field.Kind = KindOptions
		}
		if o := f.Options; o != nil {
			options, _ := o.At.at(element, "").([]any)
			for _, option := range options {
				if !o.Except.hold(a, option) {
					field.Options = append(field.Options, Option{Value: one(&o.Value, option), Label: one(o.Label, option)})
				}
			}
		}
		out = append(out, field)
	}
	return out, true
}

// unique are the fields of which a key consists.
func (f *fieldRules) unique(a *answer) map[string]bool {
	if f.Keys == nil {
		return nil
	}
	out := map[string]bool{}
	keys, _ := f.Keys.At.at(a.tree, "").([]any)
	for _, key := range keys {
		names := f.Keys.Fields.texts(key, "", nil)
		if len(names) == 1 && (f.Keys.Only == nil || f.Keys.Only.hold(a, key)) {
			out[names[0]] = true
		}
	}
	return out
}

func (f *fieldRules) outline(o *outline, below ...path) {
	if f == nil {
		return
	}
	if f.Keys != nil {
		o.add(f.Keys.At, everyElement(), f.Keys.Fields)
		f.Keys.Only.outline(o, f.Keys.At, everyElement())
	}
	add := func(ps ...path) { o.add(append(slices.Clone(below), ps...)...) }
	add(f.Name)
	for _, p := range []*path{f.Label, f.Type} {
		if p != nil {
			add(*p)
		}
	}
	for _, cs := range []conditions{f.Several, f.Required, f.Unique, f.ReadOnly, f.Except} {
		cs.outline(o, below...)
	}
	if f.Options != nil {
		each := append(slices.Clone(below), f.Options.At, everyElement())
		o.add(append(slices.Clone(each), f.Options.Value)...)
		if f.Options.Label != nil {
			o.add(append(slices.Clone(each), *f.Options.Label)...)
		}
		f.Options.Except.outline(o, each...)
	}
}

// lists reports whether the operation reads a list, in pages.
func (op Operation) lists() bool { return op == Describe || op == List || op == FieldOptions }

// checkFields holds the mode of an answer and the operation against each other.
func (r *resultRules) checkFields(op Operation, n diag.Node, d *diag.Decoding) {
	entries := op == List || op == FieldOptions
	switch {
	case op == Describe && r.Mode != modeFields:
		d.Errorf(n, "add result: {mode: fields, results: {at: ..., field: {name: ...}}}", "describe has the mode %q alone", modeFields)
	case op != Describe && r.Mode == modeFields:
		d.Errorf(n.Get("mode"), "", "only describe can have the mode %q", r.Mode)
	case op == Describe && r.Results.Field == nil:
		d.Errorf(n.Get("results"), "add field: {name: ...}", "the mode %q needs to know where the name of a field is", r.Mode)
	case op != Describe && r.Results.Field != nil:
		d.Errorf(n, "", "only describe has `field`")
	case entries && r.Mode != modeEntries:
		d.Errorf(n, "add result: {mode: entries, results: {at: ..., entry: {fields: ...}}}", "%s has the mode %q alone", op, modeEntries)
	case !entries && r.Mode == modeEntries:
		d.Errorf(n.Get("mode"), "", "only lists and options can have the mode %q", r.Mode)
	case entries && r.Results.Entry == nil:
		d.Errorf(n.Get("results"), "add entry: {fields: {id: ..., label: ...}}", "the mode %q needs to know what an entry has", r.Mode)
	case !entries && r.Results.Entry != nil:
		d.Errorf(n, "", "only lists and options have `entry`")
	case op == FieldOptions && !r.Results.Entry.has("value"):
		d.Errorf(n.Get("results"), "add value to the fields of the entry", "options have a value")
	case op == Scopes && r.Results.Scopes == nil:
		d.Errorf(n, "add results: {scopes: ...}", "scopes needs to know where their names are")
	case op != Scopes && r.Results.Scopes != nil:
		d.Errorf(n.Get("results").Get("scopes"), "", "only scopes has the names of scopes")
	case !op.lists() && op != Search && op != Find && r.Next != nil:
		d.Errorf(n, "", "only find, search and lists have `next`")
	case !op.lists() && r.NextURL != nil:
		d.Errorf(n.Get("next_url"), "", "only lists have `next_url`")
	case op != List && r.Join != nil:
		d.Errorf(n.Get("join"), "", "only lists have `join`")
	}
}

// words is the text that stand in several places of an element.
type words []path

// DecodeNode reads a path, or a list of them.
func (w *words) DecodeNode(n diag.Node, d *diag.Decoding) { d.Decode(n, (*places)(w)) }

func (w words) at(tree any) string {
	var all []string
	for _, p := range w {
		if text, ok := p.at(tree, "").(string); ok && text != "" {
			all = append(all, text)
		}
	}
	return strings.Join(all, " ")
}
