package sinks

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// has is what the suite knows of how a CRM tells what it has.
type has struct {
	has    string                     // an object
	define []sandbox.Property         // of it
	want   map[string]Field           // what is told of fields: of those, and of the CRM's own
	lacks  string                     // a scope without which nothing is described
	pages  bool                       // describe has several pages
	stages string                     // the object whose stages are listed; "" has none
	stage  map[string]string          // one of them
	count  int                        // of stages
	extra  func(*sandbox.Server)      // defines that stage
	owners string                     // a scope without which they are not listed; "" needs none
	scopes string                     // one that is told; "" tells none
	makes  map[FieldKind]string       // the kinds of fields that it makes, with the name of one
	field  string                     // the type of a text that was made
	denied string                     // a scope without which it makes none
	unique bool                       // it makes unique fields
	named  bool                       // it gives them names of its own
	grant  func(*sandbox.Server, any) // what a person does before such a field is seen
	group  string                     // that fields stand in
	again  Class                      // what a second field of one name is
}

func knownOf(name string) has {
	plain := func(names ...string) map[FieldKind]string {
		out := map[FieldKind]string{}
		for i, k := range []FieldKind{KindText, KindNumber, KindBool, KindDate, KindDateTime} {
			if i < len(names) && names[i] != "" {
				out[k] = names[i]
			}
		}
		return out
	}
	tier := func(name string) sandbox.Property {
		return sandbox.Property{Name: name, Label: "Tier", Type: "enumeration", Options: []string{"gold", "silver"}, Labels: map[string]string{"gold": "Gold"}, Retired: []string{"bronze"}}
	}
	options := []Option{{"gold", "Gold"}, {"silver", "silver"}}
	switch name {
	case "attio":
		t := tier("tier")
		return has{
			has: "deals", lacks: "object_configuration:read", owners: "user_management:read", scopes: "record_permission:read-write", denied: "object_configuration:read-write",
			pages: true, stages: "deals", count: 4, stage: map[string]string{"id": "00000001-0b71-4000-8000-000000000001", "label": "Lead"}, unique: true, again: Conflict, field: "text",
			define: []sandbox.Property{t, {Name: "tags", Type: "enumeration", Multiple: true, Options: []string{"a", "b"}}, {Name: "done", Type: "bool"}, {Name: "on", Type: "date"},
				{Name: "at", Type: "datetime"}, {Name: "size", Type: "integer"}, {Name: "made", Type: "datetime", ReadOnly: true}, {Name: "need", Required: true}, {Name: "place", Type: "location"}},
			want: map[string]Field{
				"tier":               {Label: "Tier", Type: "select", Kind: KindOption, Options: []Option{{"gold", "gold"}, {"silver", "silver"}}},
				"tags":               {Type: "select", Kind: KindOptions, Options: []Option{{"a", "a"}, {"b", "b"}}},
				"done":               {Type: "checkbox", Kind: KindBool},
				"on":                 {Type: "date", Kind: KindDate},
				"at":                 {Type: "timestamp", Kind: KindDateTime},
				"size":               {Type: "number", Kind: KindNumber},
				"made":               {Type: "timestamp", Kind: KindDateTime, ReadOnly: true},
				"need":               {Type: "text", Kind: KindText, Required: true},
				"place":              {Type: "location"},
				"partner_key":        {Type: "text", Kind: KindText, Unique: true},
				"owner":              {Type: "actor-reference", Kind: KindLink},
				"value":              {Type: "currency", Kind: KindNumber},
				"associated_company": {Type: "record-reference", Kind: KindLink},
				"stage":              {Type: "status", Kind: KindOption, Required: true, Options: []Option{{"Lead", "Lead"}, {"In Progress", "In Progress"}, {"Won 🎉", "Won 🎉"}, {"Lost", "Lost"}}},
			},
			makes: plain("ps_text", "ps_number", "ps_bool", "ps_date", "ps_time"),
		}
	case "dataverse":
		return has{
			has: "contacts", lacks: "prvReadAttribute", owners: "prvReadUser", denied: "prvCreateAttribute", again: Rejected, field: "StringType",
			define: []sandbox.Property{{Name: "new_tier2", Label: "Tier", Type: "enumeration", Options: []string{"1", "2"}, Labels: map[string]string{"1": "Gold"}},
				{Name: "new_tags", Type: "enumeration", Multiple: true, Options: []string{"1"}}, {Name: "new_done", Type: "bool"}, {Name: "new_at", Type: "datetime"},
				{Name: "new_size", Type: "integer"}, {Name: "new_sum", Type: "number"}, {Name: "new_made", ReadOnly: true}, {Name: "new_slow", Unique: true, Indexing: true}},
			want: map[string]Field{
				"new_tier2":        {Label: "Tier", Type: "PicklistType", Kind: KindOption, Options: []Option{{"1", "Gold"}, {"2", "2"}}},
				"new_tags":         {Type: "MultiSelectPicklistType", Kind: KindOptions, Options: []Option{{"1", "1"}}},
				"new_done":         {Type: "BooleanType", Kind: KindBool},
				"new_at":           {Type: "DateTimeType", Kind: KindDateTime},
				"new_size":         {Type: "IntegerType", Kind: KindNumber},
				"new_sum":          {Type: "DecimalType", Kind: KindNumber},
				"new_made":         {Type: "StringType", Kind: KindText, ReadOnly: true},
				"new_tier":         {Type: "StringType", Kind: KindText, Required: true},
				"new_partnerkey":   {Type: "StringType", Kind: KindText, Unique: true},
				"parentcustomerid": {Label: "parentcustomerid_account", Type: "LookupType", Kind: KindLink},
				"new_slow":         {Type: "StringType", Kind: KindText},
				"contactid":        {Label: "Id", Type: "UniqueidentifierType", Kind: KindLink},
			},
			makes: plain("new_text", "new_number", "new_bool", "new_date", "new_time"),
		}
	case "hubspot":
		return has{
			has: "deals", lacks: "crm.schemas.deals.read", owners: "crm.objects.owners.read", scopes: "crm.objects.deals.write", denied: "crm.schemas.deals.write",
			stages: "deals", count: 8, stage: map[string]string{"id": "91", "label": "New", "pipeline": "Partners", "pipeline_id": "9"}, unique: true, again: Conflict, field: "string",
			extra: func(s *sandbox.Server) {
				s.DefinePipeline("hubspot", "deals", sandbox.Pipeline{ID: "9", Label: "Partners", Stages: []sandbox.Stage{{ID: "91", Label: "New"}, {ID: "92", Label: "Old", Archived: true}}})
				s.DefinePipeline("hubspot", "deals", sandbox.Pipeline{ID: "8", Label: "Gone", Archived: true, Stages: []sandbox.Stage{{ID: "92", Label: "Old"}}})
			},
			define: []sandbox.Property{tier("tier"), {Name: "tags", Type: "enumeration", FieldType: "checkbox", Options: []string{"a"}}, {Name: "done", Type: "bool"}, {Name: "on", Type: "date"},
				{Name: "at", Type: "datetime"}, {Name: "size", Type: "number"}, {Name: "key", Unique: true}, {Name: "odd", Type: "json"}},
			want: map[string]Field{
				"tier":                {Label: "Tier", Type: "enumeration", Kind: KindOption, Options: options},
				"tags":                {Type: "enumeration", Kind: KindOptions, Options: []Option{{"a", "a"}}},
				"done":                {Type: "bool", Kind: KindBool},
				"on":                  {Type: "date", Kind: KindDate},
				"at":                  {Type: "datetime", Kind: KindDateTime},
				"size":                {Type: "number", Kind: KindNumber},
				"key":                 {Type: "string", Kind: KindText, Unique: true},
				"odd":                 {Type: "json"},
				"hs_object_id":        {Type: "number", Kind: KindNumber, ReadOnly: true},
				"dealname":            {Type: "string", Kind: KindText},
				"dealstage":           {Type: "enumeration", Kind: KindOption},
				"hs_lastmodifieddate": {Type: "datetime", Kind: KindDateTime, ReadOnly: true},
			},
			makes: plain("ps_text", "ps_number", "ps_bool", "ps_date", "ps_time"),
		}
	case "pipedrive":
		hex := func(c string) string { return strings.Repeat(c, 40) }
		return has{
			has: "deals", owners: "users:read", denied: "admin", pages: true, named: true, again: OK, field: "varchar",
			stages: "deals", count: 6, stage: map[string]string{"id": "21", "label": "New", "pipeline": "Partners", "pipeline_id": "2"},
			extra: func(s *sandbox.Server) {
				s.DefinePipeline("pipedrive", "deals", sandbox.Pipeline{ID: "2", Label: "Partners", Stages: []sandbox.Stage{{ID: "21", Label: "New"}, {ID: "22", Label: "Old", Archived: true}}})
				s.DefinePipeline("pipedrive", "deals", sandbox.Pipeline{ID: "3", Label: "Gone", Archived: true, Stages: []sandbox.Stage{{ID: "31", Label: "Old"}}})
			},
			define: []sandbox.Property{{Name: hex("1"), Label: "Tier", Type: "enumeration", Options: []string{"1", "2"}, Labels: map[string]string{"1": "Gold"}},
				{Name: hex("2"), Type: "enumeration", Multiple: true, Options: []string{"1"}}, {Name: hex("3"), Type: "number"}, {Name: hex("4"), Type: "date"}, {Name: hex("5"), Type: "money"}},
			want: map[string]Field{
				hex("1"): {Label: "Tier", Type: "enum", Kind: KindOption, Options: []Option{{"1", "Gold"}, {"2", "2"}}},
				hex("2"): {Type: "set", Kind: KindOptions, Options: []Option{{"1", "1"}}},
				hex("3"): {Type: "double", Kind: KindNumber},
				hex("4"): {Type: "date", Kind: KindDate},
				hex("5"): {Type: "monetary"},
				"title":  {Type: "varchar", Kind: KindText},
				"org_id": {Type: "org", Kind: KindLink},
			},
			makes: plain("PartnerStack text", "PartnerStack number", "", "PartnerStack date"),
		}
	case "salesforce":
		return has{
			has: "Contact", denied: "CustomizeApplication", unique: true, again: Conflict, field: "string",
			stages: "", count: 10, stage: map[string]string{"id": "Prospecting", "label": "Prospecting"},
			grant: func(s *sandbox.Server, name any) { s.Grant("salesforce", "Contact", name.(string)) },
			define: []sandbox.Property{tier("Tier2__c"), {Name: "Tags__c", Type: "enumeration", Multiple: true, Options: []string{"a"}}, {Name: "Done__c", Type: "bool"}, {Name: "On__c", Type: "date"},
				{Name: "Size__c", Type: "integer"}, {Name: "Sum__c", Type: "number"}, {Name: "Loose__c", External: true}},
			want: map[string]Field{
				"Tier2__c":       {Label: "Tier", Type: "picklist", Kind: KindOption, Options: options},
				"Tags__c":        {Type: "multipicklist", Kind: KindOptions, Options: []Option{{"a", "a"}}},
				"Done__c":        {Type: "boolean", Kind: KindBool},
				"On__c":          {Type: "date", Kind: KindDate},
				"Size__c":        {Type: "int", Kind: KindNumber},
				"Sum__c":         {Type: "double", Kind: KindNumber},
				"Loose__c":       {Type: "string", Kind: KindText},
				"Partner_Key__c": {Type: "string", Kind: KindText, Unique: true},
				"LastName":       {Type: "string", Kind: KindText, Required: true},
				"CreatedDate":    {Type: "datetime", Kind: KindDateTime, ReadOnly: true},
				"AccountId":      {Type: "reference", Kind: KindLink},
			},
			makes: plain("Ps_Text__c", "Ps_Number__c", "Ps_Bool__c", "Ps_Date__c", "Ps_Time__c"),
		}
	case "zoho":
		return has{
			has: "Contacts", lacks: "ZohoCRM.settings.fields.READ", owners: "ZohoCRM.users.READ", denied: "ZohoCRM.settings.fields.CREATE", unique: true, again: Conflict, field: "text",
			stages: "Deals", count: 9, stage: map[string]string{"id": "Qualification", "label": "Qualification"},
			define: []sandbox.Property{tier("Tier2"), {Name: "Tags", Type: "enumeration", Multiple: true, Options: []string{"a"}}, {Name: "Done", Type: "bool"}, {Name: "Born", Type: "date"},
				{Name: "At", Type: "datetime"}, {Name: "Size", Type: "integer"}},
			want: map[string]Field{
				"Tier2":        {Label: "Tier", Type: "picklist", Kind: KindOption, Options: options},
				"Tags":         {Type: "multiselectpicklist", Kind: KindOptions, Options: []Option{{"a", "a"}}},
				"Done":         {Type: "boolean", Kind: KindBool},
				"Born":         {Type: "date", Kind: KindDate},
				"At":           {Type: "datetime", Kind: KindDateTime},
				"Size":         {Type: "integer", Kind: KindNumber},
				"Partner_Key":  {Type: "text", Kind: KindText, Unique: true},
				"Email":        {Type: "text", Kind: KindText, Unique: true},
				"Last_Name":    {Type: "text", Kind: KindText, Required: true},
				"Created_Time": {Type: "datetime", Kind: KindDateTime, ReadOnly: true},
				"Account_Name": {Type: "lookup", Kind: KindLink},
			},
			makes: plain("Ps_Text", "Ps_Number", "Ps_Bool", "Ps_Date", "Ps_Time"),
		}
	}
	return has{}
}

func (h *has) defineIn(w *world) {
	for _, p := range h.define {
		w.Define(w.c.name, h.has, p)
	}
}

// describe tells of the fields of an object what a mapping has to know.
func TestConformDescribe(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		h.defineIn(w)
		fields, r := w.sink.Describe(within(t), h.has)
		if r.Class != OK {
			t.Fatalf("%+v", r)
		}
		got := map[string]Field{}
		for _, f := range fields {
			if f.Label == "" || f.Type == "" {
				t.Errorf("%+v", f)
			}
			if want, asked := h.want[f.Name]; asked {
				if want.Label == "" {
					want.Label = f.Name
				}
				want.Name = f.Name
				h.want[f.Name] = want
				got[f.Name] = f
			}
		}
		if diff := cmp.Diff(h.want, got); diff != "" {
			t.Error(diff)
		}
		for _, sent := range w.sent() {
			if sent.method != "GET" || sent.body != "" {
				t.Errorf("%+v", sent)
			}
		}
		d := w.sink.Description()
		if why := d.CannotDescribe(h.has); why != "" {
			t.Error(why)
		}
		if why := d.CannotDescribe(c.note); (why == "") == (c.name == "attio" || c.name == "pipedrive") {
			t.Errorf("%s: %s", c.note, why)
		}
		if _, r := w.sink.Describe(within(t), "planets"); r.Class != Rejected || r.Message == "" {
			t.Errorf("an object that is not there: %+v", r)
		}
	})
}

// What is not the whole list of fields, or no list at all, is told as none.
func TestConformDescribeHalf(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		for _, fault := range []sandbox.Fault{
			{Effect: sandbox.EffectStatus, Status: 200, Body: `{"success":true,"results":[{"nothing":"x"}],"data":[{"nothing":"x"}],"fields":[{"nothing":"x"}],"Attributes":[{"nothing":"x"}],"users":[{"nothing":"x"}],"records":[{"nothing":"x"}],"value":[{"nothing":"x"}]}`},
			{Effect: sandbox.EffectStatus, Status: 200, Body: `{"success":true}`}, {Effect: sandbox.EffectEmpty}, {Effect: sandbox.EffectHTML, Status: 200},
			{Effect: sandbox.EffectReset}, {Effect: sandbox.EffectTruncate}, {Effect: sandbox.EffectStatus, Status: 401}, {Effect: sandbox.EffectStatus, Status: 403}, {Effect: sandbox.EffectStatus, Status: 500},
		} {
			remove := w.Fault(fault)
			fields, r := w.sink.Describe(within(t), h.has)
			if r.Class == OK || fields != nil || r.Message == "" {
				t.Errorf("%s %d %s: %+v", fault.Effect, fault.Status, fault.Body, r)
			}
			checkWords(t, r)
			for _, list := range w.sink.Description().Lists() {
				entries, r := w.sink.List(within(t), list, "")
				if r.Class == OK || entries != nil || r.Message == "" {
					t.Errorf("%s: %s %d %s: %+v", list, fault.Effect, fault.Status, fault.Body, r)
				}
				checkWords(t, r)
			}
			remove()
		}
	})
}

// A description that takes longer than a request may is given up, whatever it is made of.
func TestConformDescribeSlow(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "timeout: 50ms\n")
		defer w.Fault(sandbox.Fault{Latency: time.Hour})()
		if fields, r := w.sink.Describe(within(t), h.has); r.Class != Timeout || fields != nil {
			t.Errorf("%+v", r)
		}
		if entries, r := w.sink.List(within(t), "owners", ""); r.Class != Timeout || entries != nil {
			t.Errorf("%+v", r)
		}
	})
}

// A token may write and yet not look: that is told, and costs nothing else.
func TestConformDescribeScopes(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		for _, one := range []struct {
			lacks string
			ask   func() Result
		}{
			{h.lacks, func() Result { _, r := w.sink.Describe(within(t), h.has); return r }},
			{h.owners, func() Result { _, r := w.sink.List(within(t), "owners", ""); return r }},
			{h.denied, func() Result {
				return w.sink.MakeField(within(t), h.has, NewField{Name: h.makes[KindText], Label: "x", Kind: KindText, Group: "ours"})
			}},
		} {
			if one.lacks == "" {
				continue
			}
			w.LackScopes(one.lacks)
			if r := one.ask(); r.Class != Held || r.Refused != "" && r.Status == http.StatusForbidden || r.Message == "" {
				t.Errorf("without %s: %+v", one.lacks, r)
			}
			w.LackScopes()
			if r := one.ask(); r.Class != OK {
				t.Errorf("with %s: %+v", one.lacks, r)
			}
		}
		scopes, r := w.sink.Scopes(within(t))
		switch {
		case h.scopes == "" && (r.Class != Rejected || r.Code != "unsupported" || scopes != nil):
			t.Errorf("%+v %v", r, scopes)
		case h.scopes != "" && (r.Class != OK || !slices.Contains(scopes, h.scopes)):
			t.Errorf("%+v %v", r, scopes)
		case h.scopes != "":
			w.LackScopes(h.scopes)
			if scopes, _ := w.sink.Scopes(within(t)); slices.Contains(scopes, h.scopes) {
				t.Errorf("%s is not among them: %v", h.scopes, scopes)
			}
		}
	})
}

// Owners by their address, and stages by their label: those who have left and what was archived are none.
func TestConformLists(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		d := w.sink.Description()
		for _, list := range d.Lists() {
			fields := d.ListFields(list)
			if !slices.Contains(fields, "id") || list == "owners" && !slices.Contains(fields, "email") || list != "owners" && !slices.Contains(fields, "label") {
				t.Errorf("%s has %v", list, fields)
			}
			if why := d.CannotList(list, ""); why != "" {
				t.Errorf("%s: %s", list, why)
			}
		}
		if why := d.CannotList("planets", ""); why == "" {
			t.Error("a list that there is not")
		}
		if _, r := w.sink.List(within(t), "planets", ""); r.Class != Rejected {
			t.Errorf("%+v", r)
		}
		var want []Entry
		for _, o := range w.Owners(c.name) {
			if !o.Left {
				want = append(want, Entry{map[string]string{"id": o.ID, "email": o.Email, "name": o.FirstName + " " + o.LastName}})
			}
		}
		owners, r := w.sink.List(within(t), "owners", "")
		if diff := cmp.Diff(want, owners); r.Class != OK || len(want) != 2 || diff != "" {
			t.Errorf("%+v %s", r, diff)
		}
		if h.stage == nil {
			return
		}
		if h.extra != nil {
			h.extra(w.Server)
		}
		for _, object := range []string{h.stages, ""} {
			stages, r := w.sink.List(within(t), "stages", object)
			if r.Class != OK || len(stages) != h.count || !slices.ContainsFunc(stages, func(e Entry) bool { return cmp.Equal(e.Fields, h.stage) }) {
				t.Errorf("%+v %v", r, stages)
			}
			if slices.ContainsFunc(stages, func(e Entry) bool { return e.Fields["label"] == "Old" || len(e.Fields) != len(h.stage) }) {
				t.Errorf("one that was archived, or is half: %v", stages)
			}
		}
		if slices.Contains(d.Lists(), "pipelines") {
			pipelines, r := w.sink.List(within(t), "pipelines", h.stages)
			if r.Class != OK || len(pipelines) != 2 || pipelines[1].Fields["label"] != h.stage["pipeline"] || pipelines[1].Fields["id"] != h.stage["pipeline_id"] {
				t.Errorf("%+v %v", r, pipelines)
			}
		}
	})
}

// Lists of several pages are read to their end.
func TestConformPages(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		const many = 5300
		for i := range many {
			w.DefineOwner(c.name, sandbox.Owner{ID: fmt.Sprint(900_000 + i), Email: fmt.Sprint(i, "@example.com"), FirstName: "F", LastName: fmt.Sprint(i)})
			if h.pages && i < 600 {
				w.Define(c.name, h.has, sandbox.Property{Name: fmt.Sprintf("%040x", i), Label: "Field"})
			}
		}
		owners, r := w.sink.List(within(t), "owners", "")
		if r.Class != OK || len(owners) != many+2 {
			t.Errorf("%d owners, %+v", len(owners), r)
		}
		ids := map[string]bool{}
		for _, o := range owners {
			ids[o.Fields["id"]] = true
		}
		if len(ids) != len(owners) {
			t.Errorf("%d of %d", len(ids), len(owners))
		}
		if !h.pages {
			return
		}
		fields, r := w.sink.Describe(within(t), h.has)
		seen := map[string]bool{}
		for _, f := range fields {
			seen[f.Name] = true
		}
		if r.Class != OK || len(fields) < 600 || len(seen) != len(fields) {
			t.Errorf("%d fields, %d different, %+v", len(fields), len(seen), r)
		}
	})
}

// A cursor that stays the same, and a list without an end, is no list.
func TestListWithoutEnd(t *testing.T) {
	t.Parallel()
	w := crmNamed("pipedrive").open(t, sandbox.Options{}, "")
	w.Fault(sandbox.Fault{Effect: sandbox.EffectStatus, Status: 200,
		Body: `{"success":true,"data":[{"field_code":"x"}],"additional_data":{"next_cursor":"again"}}`})
	if fields, r := w.sink.Describe(within(t), "deals"); r.Class != Unavailable || r.Message == "" || fields != nil || len(w.sent()) != 2 {
		t.Errorf("%d fields, %+v", len(fields), r)
	}
	z := crmNamed("zoho").open(t, sandbox.Options{}, "")
	z.Fault(sandbox.Fault{Path: "/users", Effect: sandbox.EffectStatus, Status: 200, Body: `{"users":[{"id":"1"}],"info":{"more_records":true}}`})
	if entries, r := z.sink.List(within(t), "owners", ""); r.Class != Unavailable || entries != nil || len(z.sent()) != mostPages {
		t.Errorf("%d entries, %+v", len(entries), r)
	}
}

// An address of the next page that is somewhere else is not followed.
func TestNextPageStays(t *testing.T) {
	t.Parallel()
	for _, next := range []string{"https://elsewhere.example.com/x", "//elsewhere.example.com/x", "http://user@127.0.0.1/x", "x", "https:///x"} {
		w := crmNamed("dataverse").open(t, sandbox.Options{}, "")
		w.Fault(sandbox.Fault{Path: "/systemusers", Effect: sandbox.EffectStatus, Status: 200, Body: `{"value":[{"systemuserid":"1"}],"@odata.nextLink":"` + next + `"}`})
		if entries, r := w.sink.List(within(t), "owners", ""); r.Class != Rejected || r.Message == "" || entries != nil {
			t.Errorf("%s: %d entries, %+v", next, len(entries), r)
		}
		if n := len(w.sent()); n != 1 {
			t.Errorf("%s: %d requests", next, n)
		}
	}
}

// A field that was made is described as what it was to be, and takes what such a field takes; there is no second one of its name.
func TestConformMakeField(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		d := w.sink.Description()
		values := map[FieldKind]any{KindText: "text", KindNumber: int64(7), KindBool: true, KindDate: "2026-11-21", KindDateTime: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)}
		row := c.row("1")
		row.Object = h.has
		if h.has != c.object {
			row = Row{Trace: "1", Object: h.has, Property: "own_key", Key: "K1", Values: map[string]any{"dealname": "x", "dealstage": "appointmentscheduled"}}
			w.Define(c.name, h.has, sandbox.Property{Name: "own_key", Unique: true})
		}
		var keyed string
		for kind, name := range h.makes {
			f := NewField{Name: name, Label: "Ours " + string(kind), Kind: kind, Group: "ours", Unique: kind == KindText && h.unique}
			if why := d.CannotMakeField(h.has, f); why != "" {
				t.Fatalf("%s: %s", kind, why)
			}
			r := w.sink.MakeField(within(t), h.has, f)
			if r.Class != OK || !r.Created || r.ID == "" || (r.ID == name) == h.named {
				t.Fatalf("%s: %+v", kind, r)
			}
			made := r.ID
			if again := w.sink.MakeField(within(t), h.has, f); again.Class != h.again {
				t.Errorf("%s a second time: %+v", kind, again)
			}
			if h.grant != nil {
				if describes(t, w, h.has, made) != nil {
					t.Errorf("%s is seen before it was granted", made)
				}
				if d.ByHand(ByHandAccess, h.has, f) == "" {
					t.Error("nobody tells how to come at it")
				}
				h.grant(w.Server, made)
			}
			got := describes(t, w, h.has, made)
			if got == nil || got.Kind != kind && !(got.Kind == KindDateTime && kind == KindDate && c.name == "dataverse") || got.Unique != f.Unique || kind == KindText && got.Type != h.field {
				t.Errorf("%s: %+v", kind, got)
			}
			row.Values[made] = values[kind]
			if kind == KindText {
				keyed = made
			}
		}
		if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != OK {
			t.Errorf("a row with all of them: %+v", r)
		}
		if keyed == "" || !h.unique {
			return
		}
		delete(row.Values, keyed)
		row.Property, row.Key, row.Trace = keyed, "K2", "2"
		if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != OK {
			t.Errorf("a row with it as its key: %+v", r)
		}
	})
}

func describes(t *testing.T, w *world, object, name string) *Field {
	t.Helper()
	fields, r := w.sink.Describe(within(t), object)
	if r.Class != OK {
		t.Fatalf("%+v", r)
	}
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

// What the API does not make is told, and what a person does then.
func TestConformCannotMakeField(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		d := w.sink.Description()
		for _, f := range []NewField{{Name: "x", Label: "X", Kind: KindOption}, {Name: "x", Label: "X", Kind: KindLink}, {Name: "x", Label: "X"}} {
			if d.CannotMakeField(h.has, f) == "" {
				t.Errorf("%s", f.Kind)
			}
			if r := w.sink.MakeField(within(t), h.has, f); r.Class != Rejected || r.Message == "" {
				t.Errorf("%s: %+v", f.Kind, r)
			}
		}
		if sent := w.sent(); len(sent) > 0 {
			t.Errorf("%+v", sent)
		}
		unique := NewField{Name: h.makes[KindText], Label: "Our key", Kind: KindText, Unique: true}
		if (d.CannotMakeField(h.has, unique) == "") != h.unique {
			t.Errorf("unique: %s", d.CannotMakeField(h.has, unique))
		}
		for _, what := range d.Instructions() {
			text := d.ByHand(what, h.has, unique)
			if text == "" || strings.Contains(text, "{") || what == ByHandField && !strings.Contains(text, h.has) {
				t.Errorf("%s: %q", what, text)
			}
		}
		for _, what := range []string{ByHandField, ByHandOption, ByHandScope} {
			if d.ByHand(what, h.has, unique) == "" {
				t.Errorf("nobody tells how a person does %s", what)
			}
		}
	})
}

// HubSpot has a group for fields of ours: it is made once, and one that is there will do.
func TestHubSpotGroups(t *testing.T) {
	t.Parallel()
	w := crmNamed("hubspot").open(t, sandbox.Options{}, "")
	groups := func() int {
		n := 0
		for _, r := range w.sent() {
			if strings.HasSuffix(r.path, "/groups") {
				n++
			}
		}
		return n
	}
	for i, name := range []string{"one", "two"} {
		if r := w.sink.MakeField(within(t), "deals", NewField{Name: name, Label: "x", Kind: KindText, Group: "ours"}); r.Class != OK {
			t.Fatalf("%+v", r)
		}
		if got := groups(); got != 1-i {
			t.Errorf("%d groups for %s", got, name)
		}
	}
	other := w.c.connect(t, w.url, "", Options{})
	if r := other.MakeField(within(t), "deals", NewField{Name: "three", Label: "x", Kind: KindText, Group: "ours"}); r.Class != OK || groups() != 1 {
		t.Errorf("%+v", r)
	}
	if r := other.MakeField(within(t), "deals", NewField{Name: "four", Label: "x", Kind: KindText, Group: "dealinformation"}); r.Class != OK {
		t.Errorf("HubSpot's own: %+v", r)
	}
	for i := range 10 { // the suite has one already
		r := other.MakeField(within(t), "companies", NewField{Name: fmt.Sprint("key", i), Label: "x", Kind: KindText, Unique: true, Group: "ours"})
		if (r.Class == OK) != (i < 9) {
			t.Errorf("key %d: %+v", i, r)
		}
	}
}

// All that a description takes together is bounded, not each of its requests alone.
func TestDescribeSlowTogether(t *testing.T) {
	t.Parallel()
	w := crmNamed("attio").open(t, sandbox.Options{}, "timeout: 300ms\n")
	for i := range 20 {
		w.Define("attio", "deals", sandbox.Property{Name: fmt.Sprint("choice", i), Type: "enumeration", Options: []string{"a"}})
	}
	defer w.Fault(sandbox.Fault{Path: "/options", Latency: 30 * time.Millisecond})()
	if fields, r := w.sink.Describe(within(t), "deals"); r.Class != Timeout || fields != nil {
		t.Errorf("%d fields, %+v", len(fields), r)
	}
}

// An object with options without number costs no more than so many requests.
func TestDescribeManyOptions(t *testing.T) {
	t.Parallel()
	w := crmNamed("attio").open(t, sandbox.Options{}, "")
	for i := range 2 * mostOptions {
		w.Define("attio", "deals", sandbox.Property{Name: fmt.Sprint("choice", i), Type: "enumeration", Options: []string{"a"}})
	}
	fields, r := w.sink.Describe(within(t), "deals")
	if r.Class != OK || len(fields) < 2*mostOptions {
		t.Errorf("%d fields, %+v", len(fields), r)
	}
	if n := len(w.sent()); n != mostOptions+2 { // two pages of attributes
		t.Errorf("%d requests", n)
	}
}

// Making a field is not repeated: where the connection breaks down nobody knows whether it was made, and a second request might
// make a second one.
func TestConformMakeFieldOnce(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		h := knownOf(c.name)
		w := c.open(t, sandbox.Options{}, "")
		if r := w.sink.Probe(within(t)); r.Class != OK { // a token, and a connection that is kept
			t.Fatalf("%+v", r)
		}
		if h.group = map[string]string{"hubspot": "dealinformation"}[c.name]; h.group != "" { // it is there, which is asked once
			if r := w.sink.MakeField(within(t), h.has, NewField{Name: "first", Label: "First", Kind: KindText, Group: h.group}); r.Class != OK {
				t.Fatalf("%+v", r)
			}
		}
		w.sent()
		kinds := []FieldKind{KindText, KindNumber, KindDate}
		for i, fault := range []sandbox.Fault{{Effect: sandbox.EffectReset}, {Effect: sandbox.EffectStatus, Status: 503}, {Effect: sandbox.EffectTruncate}} {
			fault.Method, fault.Apply = "POST", true
			remove := w.Fault(fault)
			f := NewField{Name: h.makes[kinds[i]], Label: "Ours once", Kind: kinds[i], Group: h.group}
			r := w.sink.MakeField(within(t), h.has, f)
			if r.Status != http.StatusNoContent && (r.Class == OK || !r.Sent || r.Created) { // of that nothing can be cut off
				t.Errorf("%s: %+v", fault.Effect, r)
			}
			remove()
			if sent := w.sent(); len(sent) != 1 {
				t.Errorf("%s: %d requests", fault.Effect, len(sent))
			}
		}
	})
}

// The token that goes along when its scopes are asked for is in no words.
func TestScopesHideTheToken(t *testing.T) {
	t.Parallel()
	w := crmNamed("hubspot").open(t, sandbox.Options{}, "")
	w.Fault(sandbox.Fault{Effect: sandbox.EffectStatus, Status: 400, Body: `{"message":"no token ` + static + `","category":"` + static + `"}`})
	_, r := w.sink.Scopes(within(t))
	if r.Class != Rejected || leaks(r.Message+r.Code) != "" {
		t.Errorf("%+v", r)
	}
	if sent := w.sent(); len(sent) != 1 || !strings.Contains(sent[0].body, static) {
		t.Errorf("%+v", sent)
	}
}
