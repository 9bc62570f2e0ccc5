// Package live holds a config against what its CRMs have: the fields that mappings name, their types and options, and
// whether a key is unique. It asks, and changes nothing.
package live

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"partnersync/internal/diag"
	"partnersync/mappers"
	"partnersync/sinks"
)

// CRM is what a sink tells of what it has.
type CRM interface {
	Describe(ctx context.Context, object string) ([]sinks.Field, sinks.Result)
	List(ctx context.Context, list, object string) ([]sinks.Entry, sinks.Result)
	// UniqueKeys reports whether records are found by a key that no two of them can have.
	UniqueKeys() bool
	// Also are properties that hold further values of another, by the name of that: one stands for both.
	Also() map[string][]string
}

// Findings are what came of looking.
type Findings struct {
	Problems diag.Problems
	Unseen   []Unseen
	Untold   []Unseen // of which the CRM tells nobody what it has
}

// Unseen is what could not be looked at, and why.
type Unseen struct {
	Object string `json:"object"`
	Why    string `json:"why"`
}

// abreast is how many objects are asked for at a time.
const abreast = 4

// Check holds what mappings name of a sink, and the tables that come from it, against what its CRM has. Each object is asked
// for once.
func Check(ctx context.Context, name string, crm CRM, uses []mappers.Use, tables map[string]*mappers.Table) Findings {
	var objects []string
	for _, u := range uses {
		if !slices.Contains(objects, u.Object) {
			objects = append(objects, u.Object)
		}
	}
	names := slices.Sorted(maps.Keys(tables))
	for _, table := range names {
		if l := tables[table].Listing; ofObject(l) && !slices.Contains(objects, l.Object) {
			objects = append(objects, l.Object)
		}
	}
	seen := make([]seen, len(objects))
	var wait sync.WaitGroup
	slots := make(chan struct{}, abreast)
	for i, object := range objects {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			seen[i].fields, seen[i].result = crm.Describe(ctx, object)
		})
	}
	type list struct {
		entries []map[string]string
		result  sinks.Result
	}
	lists := make([]list, len(names))
	for i, table := range names {
		if ofObject(tables[table].Listing) {
			continue // the object tells
		}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			lists[i].entries, lists[i].result = Read(ctx, crm, tables[table].Listing)
		})
	}
	wait.Wait()
	c := checking{name: name, unique: crm.UniqueKeys(), also: crm.Also()}
	for i, object := range objects {
		of := slices.DeleteFunc(slices.Clone(uses), func(u mappers.Use) bool { return u.Object != object })
		if len(of) > 0 {
			c.object(object, &seen[i], of)
		}
	}
	for i, table := range names {
		if l := tables[table].Listing; ofObject(l) {
			s := seen[slices.Index(objects, l.Object)]
			lists[i].entries, lists[i].result = optionsOf(s.fields, s.result, l)
		}
		c.table(table, tables[table], lists[i].entries, lists[i].result)
	}
	c.d.Problems.Sort()
	return Findings{c.d.Problems, c.unseen, c.untold}
}

// ofObject reports whether a list is what an object tells of its fields.
func ofObject(l *mappers.Listing) bool { return l.List == mappers.Options || l.List == mappers.Fields }

// seen is what a CRM has told of an object.
type seen struct {
	fields []sinks.Field
	result sinks.Result
}

// field is one by its name; like: its name differs in nothing but the case.
func (s *seen) field(name string) (f *sinks.Field, like bool) {
	for i := range s.fields {
		if s.fields[i].Name == name {
			return &s.fields[i], false
		}
		if f == nil && strings.EqualFold(s.fields[i].Name, name) {
			f = &s.fields[i]
		}
	}
	return f, f != nil
}

type checking struct {
	name   string
	unique bool
	also   map[string][]string
	d      diag.Decoding
	unseen []Unseen
	untold []Unseen
}

func (c *checking) object(object string, s *seen, uses []mappers.Use) {
	switch r := s.result; {
	case r.Class == sinks.OK:
	case r.Class == sinks.Rejected && r.Code == "unsupported":
		c.untold = append(c.untold, Unseen{object, Told(r)})
		return
	case r.Class == sinks.Rejected && (r.Status == http.StatusNotFound || r.Status == http.StatusBadRequest):
		c.d.Errorf(uses[0].At, "", "sink %q has no object %q: %s", c.name, object, Told(r))
		return
	default:
		c.unseen = append(c.unseen, Unseen{object, Told(r)})
		return
	}
	for _, u := range uses {
		if u.Label != "" {
			c.labelled(object, s, u)
			continue
		}
		f, like := s.field(u.Property)
		for _, name := range c.also[u.Property] {
			if f == nil {
				f, like = s.field(name)
			}
		}
		switch {
		case f == nil:
			c.d.Errorf(u.At, c.meant(u, s), "%s of sink %q have no field %q", object, c.name, u.Property)
			continue
		case like:
			c.d.Warnf(u.At, fmt.Sprintf("write %s", f.Name), "the field is spelt %q in the CRM", f.Name)
		}
		c.use(u, f)
	}
	c.required(object, s, uses)
}

// labelled holds a field that the config has by its label against those of the object.
func (c *checking) labelled(object string, s *seen, u mappers.Use) {
	var found []*sinks.Field
	var labels []string
	for i := range s.fields {
		if labels = append(labels, s.fields[i].Label); strings.EqualFold(strings.TrimSpace(s.fields[i].Label), strings.TrimSpace(u.Label)) {
			found = append(found, &s.fields[i])
		}
	}
	switch len(found) {
	case 0:
		hint := diag.DidYouMean(u.Label, labels)
		c.d.Errorf(u.At, cmp.Or(hint, fmt.Sprintf("`partnersync setup %s` makes it, if the CRM lets it", c.name)), "%s of sink %q have no field with the label %q", object, c.name, u.Label)
	case 1:
		c.use(u, found[0])
	default:
		c.d.Errorf(u.At, "give one of them another label, or name the field as the CRM does", "%d fields of %s have the label %q", len(found), object, u.Label)
	}
}

// Told is why there was no answer, in one line.
func Told(r sinks.Result) string {
	text := cmp.Or(r.Message, string(r.Class))
	if r.Status != 0 {
		text = fmt.Sprintf("HTTP %d: %s", r.Status, text)
	}
	return text
}

// meant is what may have been meant by a field that is not there.
func (c *checking) meant(u mappers.Use, s *seen) string {
	var names, labels []string
	for _, f := range s.fields {
		if f.Label != "" && strings.EqualFold(f.Label, u.Property) {
			return fmt.Sprintf("%q is the label of %s", f.Label, f.Name)
		}
		names, labels = append(names, f.Name), append(labels, f.Label)
	}
	if near := diag.Nearest(u.Property, names); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	if near := diag.Nearest(u.Property, labels); near != "" {
		return fmt.Sprintf("did you mean %s? its label is %q", names[slices.Index(labels, near)], near)
	}
	return fmt.Sprintf("`partnersync setup %s` makes it, if the CRM lets it", c.name)
}

func (c *checking) use(u mappers.Use, f *sinks.Field) {
	writes := u.Purpose == mappers.ForValue && u.Mode != mappers.Archive
	switch {
	case f.ReadOnly && writes:
		c.d.Errorf(u.At, "", "the CRM lets nobody write %s of %s", f.Name, u.Object)
	case u.Purpose == mappers.ForKey && !u.Linked && c.unique && !f.Unique && u.Mode != mappers.Append:
		c.d.Errorf(u.At, fmt.Sprintf("`partnersync setup %s --dry-run` tells how to come by one", c.name),
			"the key %s of %s is not unique in the CRM, so no record can be found by it", f.Name, u.Object)
	case writes && !(u.Kind == mappers.List && c.several(f.Name)):
		if words, hard := misfit(u.Kind, f.Kind); words != "" {
			report := c.d.Warnf
			if hard {
				report = c.d.Errorf
			}
			report(u.At, "", "%s of %s takes %s in the CRM, and this is %s", f.Name, u.Object, kinds[f.Kind], words)
		}
	}
	c.options(u, f)
}

// several reports whether a field holds several values of another.
func (c *checking) several(name string) bool {
	for _, list := range c.also {
		if slices.Contains(list, name) {
			return true
		}
	}
	return false
}

// mostOptions is how many of the values that a field takes are told.
const mostOptions = 12

// options reports constants that a field with fixed values does not take.
func (c *checking) options(u mappers.Use, f *sinks.Field) {
	if len(f.Options) == 0 || f.Kind != sinks.KindOption && f.Kind != sinks.KindOptions {
		return
	}
	var values []string
	for _, o := range f.Options {
		values = append(values, o.Value)
	}
	for _, v := range u.Values {
		if slices.Contains(values, v.Text) {
			continue
		}
		hint := "it takes " + strings.Join(values[:min(len(values), mostOptions)], ", ")
		if len(values) > mostOptions {
			hint += fmt.Sprintf(" and %d more", len(values)-mostOptions)
		}
		if i := slices.IndexFunc(f.Options, func(o sinks.Option) bool { return strings.EqualFold(o.Label, v.Text) }); i >= 0 {
			hint = fmt.Sprintf("%q is the label of %s", f.Options[i].Label, f.Options[i].Value)
		} else if near := diag.Nearest(v.Text, values); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		c.d.Errorf(v.At, hint, "%s of %s does not take %q in the CRM", f.Name, u.Object, v.Shown)
	}
}

// required warns of fields without which the CRM makes no record, and which a mapping that makes records does not write.
func (c *checking) required(object string, s *seen, uses []mappers.Use) {
	type made struct {
		at     *mappers.Use
		writes []string
	}
	byMapping := map[string]*made{}
	var order []string
	for i, u := range uses {
		if u.Linked || u.Mode != mappers.Upsert && u.Mode != mappers.CreateOnly && u.Mode != mappers.Append {
			continue
		}
		m := byMapping[u.Mapping]
		if m == nil {
			m = &made{at: &uses[i]}
			byMapping[u.Mapping] = m
			order = append(order, u.Mapping)
		}
		if u.Purpose != mappers.ForMatch {
			m.writes = append(m.writes, strings.ToLower(u.Property))
		}
	}
	for _, name := range order {
		m := byMapping[name]
		var lack []string
		for _, f := range s.fields {
			if f.Required && !f.ReadOnly && f.Kind != sinks.KindLink && !slices.Contains(m.writes, strings.ToLower(f.Name)) {
				lack = append(lack, f.Name)
			}
		}
		if len(lack) > 0 {
			c.d.Warnf(m.at.At, "a record that is not there yet cannot be made without", "the CRM requires %s of %s, which mapping %q does not write", strings.Join(lack, ", "), object, name)
		}
	}
}

var kinds = map[sinks.FieldKind]string{
	sinks.KindText: "a text", sinks.KindNumber: "a number", sinks.KindBool: "true or false", sinks.KindDate: "a date", sinks.KindDateTime: "a time",
	sinks.KindOption: "one of its options", sinks.KindOptions: "some of its options", sinks.KindLink: "another record", "": "something else",
}

// misfit says what a value is that a field of a kind does not take; hard: it never will.
func misfit(value mappers.Kind, field sinks.FieldKind) (words string, hard bool) {
	switch value {
	case mappers.Object, mappers.Map:
		return "an object", field != ""
	case mappers.List:
		switch field {
		case sinks.KindNumber, sinks.KindBool, sinks.KindDate, sinks.KindDateTime:
			return "a list", true
		case sinks.KindText, sinks.KindOption:
			return "a list", false
		}
	case mappers.Bool:
		switch field {
		case sinks.KindNumber, sinks.KindDate, sinks.KindDateTime, sinks.KindLink:
			return "true or false", true
		}
	case mappers.Time:
		switch field {
		case sinks.KindNumber, sinks.KindBool, sinks.KindOption, sinks.KindOptions, sinks.KindLink:
			return "a time", true
		}
	case mappers.Integer, mappers.Number:
		switch field {
		case sinks.KindBool, sinks.KindDate:
			return "a number", true
		}
	case mappers.Text:
		switch field {
		case sinks.KindNumber, sinks.KindBool:
			return "a text", false
		}
	}
	return "", false
}
