package sinks

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// What HubSpot has besides records: owners without those who have left, pipelines and stages by label.
func TestHubSpotLists(t *testing.T) {
	t.Parallel()
	w := crmNamed("hubspot").open(t, sandbox.Options{}, "")
	w.DefineOwner("hubspot", sandbox.Owner{ID: "7", Email: "new@example.com"})
	owners, r := w.sink.List(within(t), "owners", "")
	if r.Class != OK {
		t.Fatalf("%+v", r)
	}
	want := []Entry{
		{map[string]string{"id": "41629779", "email": "ann@example.com", "name": "Ann Archer"}},
		{map[string]string{"id": "41629780", "email": "bob@example.com", "name": "Bob Baker"}},
		{map[string]string{"id": "7", "email": "new@example.com"}},
	}
	if diff := cmp.Diff(want, owners); diff != "" {
		t.Error(diff)
	}
	w.DefinePipeline("hubspot", "deals", sandbox.Pipeline{ID: "9", Label: "Partners", Stages: []sandbox.Stage{
		{ID: "91", Label: "New"}, {ID: "92", Label: "Old", Archived: true},
	}})
	stages, r := w.sink.List(within(t), "stages", "deals")
	if r.Class != OK || len(stages) != 8 {
		t.Fatalf("%+v %v", r, stages)
	}
	if diff := cmp.Diff(Entry{map[string]string{"id": "91", "label": "New", "pipeline": "Partners", "pipeline_id": "9"}}, stages[7]); diff != "" {
		t.Error(diff)
	}
}

// Scopes, groups and fields: a field that was made is described, and takes a value.
func TestHubSpotMakeField(t *testing.T) {
	t.Parallel()
	w := crmNamed("hubspot").open(t, sandbox.Options{}, "")
	scopes, r := w.sink.Scopes(within(t))
	if r.Class != OK || !slices.Contains(scopes, "crm.schemas.deals.write") {
		t.Errorf("%+v %v", r, scopes)
	}
	f := NewField{Name: "ps_key", Label: "PartnerStack key", Kind: KindText, Unique: true, Group: "partnersync"}
	if why := w.sink.Description().CannotMakeField("deals", f); why != "" {
		t.Fatal(why)
	}
	if r := w.sink.MakeField(within(t), "deals", f); r.Class != OK || r.ID != "ps_key" || !r.Created {
		t.Fatalf("%+v", r)
	}
	if r := w.sink.MakeField(within(t), "deals", f); r.Class != Conflict {
		t.Errorf("a second time: %+v", r)
	}
	fields, r := w.sink.Describe(within(t), "deals")
	if i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == "ps_key" }); i < 0 || !fields[i].Unique || fields[i].Kind != KindText {
		t.Errorf("%+v %v", r, fields)
	}
	for _, kind := range []FieldKind{KindNumber, KindBool, KindDate, KindDateTime} {
		if r := w.sink.MakeField(within(t), "deals", NewField{Name: "ps_" + string(kind), Label: "x", Kind: kind, Group: "partnersync"}); r.Class != OK {
			t.Errorf("%s: %+v", kind, r)
		}
	}
	if why := w.sink.Description().CannotMakeField("deals", NewField{Name: "x", Kind: KindOption}); why == "" {
		t.Error("options without any")
	}
	w.LackScopes("crm.schemas.deals.write")
	if r := w.sink.MakeField(within(t), "deals", NewField{Name: "other", Label: "x", Kind: KindText, Group: "partnersync"}); r.Class != Held || r.Refused != "" {
		t.Errorf("a scope is missing: %+v", r)
	}
}
