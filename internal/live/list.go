package live

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"partnersync/mappers"
	"partnersync/sinks"
)

// Read reads the list that a table has from a CRM.
func Read(ctx context.Context, crm CRM, l *mappers.Listing) ([]map[string]string, sinks.Result) {
	if l.List != mappers.Options && l.List != mappers.Fields {
		entries, res := crm.List(ctx, l.List, l.Object)
		out := make([]map[string]string, len(entries))
		for i, e := range entries {
			out[i] = e.Fields
		}
		return out, res
	}
	fields, res := crm.Describe(ctx, l.Object)
	return optionsOf(fields, res, l)
}

// optionsOf are the values that a field of a described object takes.
func optionsOf(fields []sinks.Field, res sinks.Result, l *mappers.Listing) ([]map[string]string, sinks.Result) {
	if res.Class != sinks.OK {
		return nil, res
	}
	if l.List == mappers.Fields {
		out := make([]map[string]string, len(fields))
		for i, f := range fields {
			out[i] = map[string]string{"name": f.Name, "label": f.Label}
		}
		return out, res
	}
	i := slices.IndexFunc(fields, func(f sinks.Field) bool { return f.Name == l.Field })
	if i < 0 {
		return nil, sinks.Result{Class: sinks.Rejected, Code: "no_field", Message: fmt.Sprintf("%s have no field %q", l.Object, l.Field)}
	}
	out := make([]map[string]string, len(fields[i].Options))
	for n, o := range fields[i].Options {
		out[n] = map[string]string{"value": o.Value, "label": o.Label}
	}
	return out, res
}

// mostNames is how many names are told that several entries have.
const mostNames = 5

// table holds a table against the list that it has from the CRM.
func (c *checking) table(name string, t *mappers.Table, entries []map[string]string, r sinks.Result) {
	l := t.Listing
	switch {
	case r.Code == "no_field":
		c.d.Errorf(l.At, "", "table %q: %s", name, r.Message)
		return
	case r.Class != sinks.OK:
		c.unseen = append(c.unseen, Unseen{fmt.Sprintf("table %q, %s", name, l.Called()), Told(r)})
		return
	}
	if twice := t.Fill(entries); len(twice) > 0 && l.List != mappers.Fields { // of fields, those that mappings name are told where they do
		hint := fmt.Sprintf("narrow it down by where, or look it up by another field than %s", l.By)
		c.d.Errorf(l.At, hint, "table %q: several %s are called the same: %s", name, l.Called(), strings.Join(twice[:min(len(twice), mostNames)], ", "))
	}
}
