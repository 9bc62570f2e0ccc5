package sinks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// describe tells of the fields of an object what a mapping has to know.
func TestConformDescribe(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		fields, r := w.sink.Describe(within(t), c.object)
		if !w.sink.Supports(Describe) {
			if r.Class != Rejected || r.Code != "unsupported" || fields != nil {
				t.Errorf("%+v %v", r, fields)
			}
			return
		}
		if r.Class != OK {
			t.Fatalf("%+v", r)
		}
		by := map[string]Field{}
		for _, f := range fields {
			by[f.Name] = f
			if f.Label == "" || f.Type == "" {
				t.Errorf("%+v", f)
			}
		}
		if by[c.field].Name == "" || len(by[c.field].Options) > 0 || by[c.field].Unique {
			t.Errorf("%+v", by[c.field])
		}
		if got := by[c.key]; got.Name == "" || got.Unique != (c.name == "hubspot") {
			t.Errorf("the key: %+v", got)
		}
		var labels []string
		for _, o := range by[c.choice].Options {
			if o.Value == "" {
				t.Errorf("%+v", o)
			}
			labels = append(labels, o.Label)
		}
		if diff := cmp.Diff(c.allowed, labels); diff != "" {
			t.Errorf("options: %s", diff)
		}
		if got := w.sent(); len(got) != 1 || got[0].method != "GET" || got[0].body != "" {
			t.Errorf("%+v", got)
		}
		if _, r := w.sink.Describe(within(t), "planets"); r.Class != Rejected || r.Message == "" {
			t.Errorf("an object that is not there: %+v", r)
		}
		for _, fault := range []sandbox.Fault{
			{Effect: sandbox.EffectStatus, Status: 200, Body: `{"success":true,"results":[{"title":"x"}],"data":[{"title":"x"}]}`},
			{Effect: sandbox.EffectStatus, Status: 200, Body: `{"success":true}`}, {Effect: sandbox.EffectEmpty}, {Effect: sandbox.EffectHTML, Status: 200},
			{Effect: sandbox.EffectReset}, {Effect: sandbox.EffectTruncate}, {Effect: sandbox.EffectStatus, Status: 401},
		} {
			remove := w.Fault(fault)
			fields, r := w.sink.Describe(within(t), c.object)
			remove()
			if r.Class == OK || fields != nil || r.Message == "" {
				t.Errorf("%s %s: %+v", fault.Effect, fault.Body, r)
			}
			checkWords(t, r)
		}
	})
}

// A list of several pages is read to its end.
func TestDescribePages(t *testing.T) {
	t.Parallel()
	c := crmNamed("pipedrive")
	for i := range 600 {
		name := fmt.Sprintf("%040x", i)
		c.custom["pipedrive/deals"] = append(c.custom["pipedrive/deals"], sandbox.Property{Name: name, Label: "Field"})
	}
	w := c.open(t, sandbox.Options{}, "")
	fields, r := w.sink.Describe(within(t), "deals")
	if r.Class != OK || len(fields) < 600 {
		t.Fatalf("%d fields, %+v", len(fields), r)
	}
	seen := map[string]bool{}
	for _, f := range fields {
		if seen[f.Name] {
			t.Errorf("%s is there twice", f.Name)
		}
		seen[f.Name] = true
	}
	if sent := w.sent(); len(sent) != 2 || !strings.Contains(sent[1].query, "cursor=") {
		t.Errorf("%d requests: %s", len(sent), sent[1].query)
	}
	w.Fault(sandbox.Fault{Effect: sandbox.EffectStatus, Status: 200,
		Body: `{"success":true,"data":[{"field_code":"x"}],"additional_data":{"next_cursor":"again"}}`})
	if fields, r := w.sink.Describe(within(t), "deals"); r.Class != Unavailable || r.Message == "" || fields != nil {
		t.Errorf("a cursor that stays the same: %d fields, %+v", len(fields), r)
	}
}
