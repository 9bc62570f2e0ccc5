package sandbox

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	sfID        = "Id"
	sfConverted = "IsConverted"
)

// salesforceObjects are those that every org has, of those that mappings use.
func salesforceObjects() []string {
	return []string{"Account", "Contact", "Lead", "Opportunity", "OpportunityContactRole", "Task", "Note"}
}

// salesforceProperties are the usual standard fields of an object, and those that every object has.
func salesforceProperties(object string) []Property {
	texts := func(names ...string) []Property { return typed("string", names...) }
	common := slices.Concat(
		readOnly("datetime", "CreatedDate", "LastModifiedDate", "SystemModstamp"), readOnly("bool", "IsDeleted"), texts("OwnerId"))
	sized := func(name string, most int) Property { return Property{Name: name, MaxLength: most} }
	email := Property{Name: "Email", External: true, MaxLength: 80} // an idLookup field, and seldom unique
	place := func(prefix string) []Property {
		return texts(prefix+"Street", prefix+"City", prefix+"State", prefix+"PostalCode", prefix+"Country")
	}
	source := picklist("LeadSource")
	switch object {
	case "Account":
		return slices.Concat(common, place("Billing"), place("Shipping"),
			[]Property{required(sized("Name", 255)), lookup("ParentId", "Account"), picklist("Type"), picklist("Industry")},
			texts("AccountNumber", "Website", "Phone", "Description"), typed("number", "AnnualRevenue"), typed("integer", "NumberOfEmployees"))
	case "Contact":
		return slices.Concat(common, place("Mailing"),
			[]Property{required(sized("LastName", 80)), sized("FirstName", 40), email, lookup("AccountId", "Account"), source},
			texts("Phone", "MobilePhone", "Title", "Department", "Description"), typed("bool", "HasOptedOutOfEmail"))
	case "Lead":
		return slices.Concat(common, place(""), readOnly("bool", sfConverted),
			[]Property{required(sized("LastName", 80)), required(sized("Company", 255)), sized("FirstName", 40), email, source,
				picklist("Status", "Open - Not Contacted", "Working - Contacted", "Closed - Converted", "Closed - Not Converted")},
			texts("Phone", "MobilePhone", "Title", "Website", "Description", "Industry", "Rating"))
	case "Opportunity":
		return slices.Concat(common, readOnly("bool", "IsClosed", "IsWon"),
			[]Property{required(sized("Name", 120)), required(picklist("StageName", "Prospecting", "Qualification", "Needs Analysis",
				"Value Proposition", "Id. Decision Makers", "Perception Analysis", "Proposal/Price Quote", "Negotiation/Review",
				"Closed Won", "Closed Lost")), required(Property{Name: "CloseDate", Type: "date"}),
				lookup("AccountId", "Account"), source, picklist("Type")},
			typed("number", "Amount", "Probability"), texts("NextStep", "Description"))
	case "OpportunityContactRole":
		return slices.Concat(common, []Property{required(lookup("OpportunityId", "Opportunity")), required(lookup("ContactId", "Contact"))},
			texts("Role"), typed("bool", "IsPrimary"))
	case "Task":
		return slices.Concat(common, texts("Subject", "Description", "Type"), typed("date", "ActivityDate"),
			[]Property{lookup("WhoId", "Contact,Lead"), lookup("WhatId", "Account,Opportunity"),
				picklist("Status", "Not Started", "In Progress", "Completed", "Waiting on someone else", "Deferred"),
				picklist("Priority", "High", "Normal", "Low")})
	case "Note":
		return slices.Concat(common, []Property{required(Property{Name: "Title"}), required(lookup("ParentId", "Account,Contact,Lead,Opportunity"))},
			texts("Body"))
	}
	return append(common, Property{Name: "Name"})
}

// describe tells of an object's fields, with what a client needs to choose a key. The caller holds the store.
func (f *salesforce) describe(t *table) reply {
	type value struct {
		Active bool   `json:"active"`
		Label  string `json:"label"`
		Value  string `json:"value"`
	}
	type field struct {
		Name         string   `json:"name"`
		Label        string   `json:"label"`
		Type         string   `json:"type"`
		ExternalID   bool     `json:"externalId"`
		Unique       bool     `json:"unique"`
		IDLookup     bool     `json:"idLookup"`
		Nillable     bool     `json:"nillable"`
		Defaulted    bool     `json:"defaultedOnCreate"`
		Createable   bool     `json:"createable"`
		Updateable   bool     `json:"updateable"`
		Restricted   bool     `json:"restrictedPicklist"`
		Length       int      `json:"length"`
		ReferenceTo  []string `json:"referenceTo"`
		Relationship *string  `json:"relationshipName"`
		Values       []value  `json:"picklistValues"`
	}
	fields := []field{{Name: sfID, Label: "Record ID", Type: "id", IDLookup: true, Length: 18, ReferenceTo: []string{}, Values: []value{}}}
	for _, name := range t.names {
		p := t.properties[name]
		d := field{
			Name: p.Name, Label: p.Label, Type: sfType(p), ExternalID: p.Unique || p.External && strings.HasSuffix(p.Name, "__c"),
			Unique: p.Unique, IDLookup: p.Unique || p.External, Nillable: !p.Required && p.Type != "bool", Defaulted: p.Type == "bool", Createable: !p.ReadOnly, Updateable: !p.ReadOnly,
			Restricted: len(p.Options) > 0, Length: p.MaxLength, ReferenceTo: append([]string{}, p.targets()...), Values: []value{},
		}
		if p.Type == "lookup" {
			relationship := sfRelationship(p.Name)
			d.Relationship = &relationship
		}
		for _, o := range p.Options {
			d.Values = append(d.Values, value{true, p.label(o), o})
		}
		for _, o := range p.Retired {
			d.Values = append(d.Values, value{false, p.label(o), o})
		}
		fields = append(fields, d)
	}
	return jsonReply(http.StatusOK, map[string]any{
		"name": t.object, "label": t.object, "keyPrefix": sfPrefix(t.object), "custom": strings.HasSuffix(t.object, "__c"),
		"createable": true, "updateable": true, "queryable": true, "fields": fields,
	})
}

func sfType(p *Property) string {
	switch p.Type {
	case "number":
		return "double"
	case "integer":
		return "int"
	case "bool":
		return "boolean"
	case "enumeration":
		if p.Multiple || p.FieldType == "checkbox" {
			return "multipicklist"
		}
		return "picklist"
	case "lookup":
		return "reference"
	case "date", "datetime":
		return p.Type
	}
	if p.Name == "Email" {
		return "email"
	}
	return "string"
}

// sfRelationship is the name under which a body may describe the record that a lookup refers to.
func sfRelationship(field string) string {
	if name, ok := strings.CutSuffix(field, "__c"); ok {
		return name + "__r"
	}
	return strings.TrimSuffix(field, "Id")
}

// sfCustomize is the permission to change what objects have.
const sfCustomize = "CustomizeApplication"

var sfFieldName = regexp.MustCompile(`^[A-Za-z](?:[A-Za-z0-9]|_[A-Za-z0-9])*__c$`)

// createField makes a custom field, as the Tooling API does: nobody sees it before Grant lets them.
func (f *salesforce) createField(c *call) reply {
	if f.server.lacks(sfCustomize) {
		return f.fail(http.StatusForbidden, sfError{code: "INSUFFICIENT_ACCESS", message: "insufficient access rights: Customize Application"}) // the words are assumed
	}
	var in struct {
		Name     string `json:"FullName"`
		Metadata struct {
			Label      string `json:"label"`
			Type       string `json:"type"`
			Length     int    `json:"length"`
			Precision  int    `json:"precision"`
			Scale      *int   `json:"scale"`
			Default    string `json:"defaultValue"`
			Unique     bool   `json:"unique"`
			ExternalID bool   `json:"externalId"`
		} `json:"Metadata"`
	}
	refuse := func(code, why string) reply { return f.fail(http.StatusBadRequest, sfError{code: code, message: why}) }
	if err := parse(c.body, &in); err != nil {
		return refuse("JSON_PARSER_ERROR", whyNot(err))
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	object, name, _ := strings.Cut(in.Name, ".")
	t := f.store.named(salesforceName, object)
	m := in.Metadata
	kinds := map[string]string{"Text": "string", "Number": "number", "Checkbox": "bool", "Date": "date", "DateTime": "datetime"}
	// The codes are those of the API's list of status codes; which goes with what is assumed.
	switch {
	case t == nil:
		return refuse("INVALID_CROSS_REFERENCE_KEY", "Entity Enumeration Or ID: bad value for restricted picklist field: "+shorten(object, 80))
	case !sfFieldName.MatchString(name):
		return refuse("INVALID_FIELD", "The name of a custom field begins with a letter, has letters, digits and single underscores, and ends with __c")
	case kinds[m.Type] == "":
		return refuse("INVALID_FIELD", "type: bad value")
	case m.Label == "":
		return refuse("REQUIRED_FIELD_MISSING", "Required fields are missing: [MasterLabel]")
	case m.Type == "Text" && (m.Length < 1 || m.Length > 255), m.Type == "Number" && (m.Precision < 1 || m.Precision > 18 || m.Scale == nil), m.Type == "Checkbox" && m.Default == "":
		return refuse("FIELD_INTEGRITY_EXCEPTION", "the type "+m.Type+" needs its length, precision and scale, or default value")
	case t.property(name) != nil || t.pending[name] != nil:
		return refuse("DUPLICATE_DEVELOPER_NAME", "There is already a field named "+strings.TrimSuffix(name, "__c")+" on "+t.object+".")
	}
	if t.pending == nil {
		t.pending = map[string]*Property{}
	}
	t.pending[name] = &Property{Name: name, Label: m.Label, Type: kinds[m.Type], MaxLength: m.Length, Unique: m.Unique && m.ExternalID}
	return jsonReply(http.StatusCreated, map[string]any{"id": sfLongID("00N5g00000" + "0AbC" + strconv.Itoa(len(t.names)%10)), "success": true, "errors": []any{}, "warnings": []any{}, "infos": []any{}})
}

// Grant lets a client at a field that it has made: field-level security keeps it from everybody at first. It reports whether
// there is such a field.
func (s *Server) Grant(dialect, object, name string) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.store.table(dialect, s.objectName(dialect, object))
	if t == nil || t.pending[name] == nil {
		return false
	}
	t.defineProperty(*t.pending[name])
	delete(t.pending, name)
	return true
}

// listed is an object whose records are not kept as records: users, and the stages of opportunities.
func (f *salesforce) listed(object string) *table {
	add := func(t *table, id string, values fieldMap) {
		t.rows = append(t.rows, &record{id: id, properties: values})
	}
	t := &table{dialect: salesforceName, object: object, properties: map[string]*Property{}, byID: map[string]*record{}, unique: map[string]map[string]*record{}}
	switch strings.ToLower(object) {
	case "user":
		for _, p := range append(typed("string", "Email", "Name", "FirstName", "LastName", "UserType"), typed("bool", "IsActive")...) {
			t.defineProperty(p)
		}
		for _, o := range f.store.owners[salesforceName] {
			add(t, o.ID, fieldMap{"Email": o.Email, "Name": strings.TrimSpace(o.FirstName + " " + o.LastName), "FirstName": o.FirstName, "LastName": o.LastName,
				"UserType": "Standard", "IsActive": !o.Left})
		}
		return t
	case "opportunitystage":
		for _, p := range append(typed("string", "ApiName", "MasterLabel"), typed("bool", "IsActive")...) {
			t.defineProperty(p)
		}
		p := f.store.table(salesforceName, "Opportunity").properties["StageName"]
		for i, o := range slices.Concat(p.Options, p.Retired) {
			add(t, sfLongID("01J5g00000000"+strconv.Itoa(10+i)), fieldMap{"ApiName": o, "MasterLabel": p.label(o), "IsActive": i < len(p.Options)})
		}
		return t
	}
	return nil
}
