package sandbox

import (
	"net/http"
	"slices"
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
			Unique: p.Unique, IDLookup: p.Unique || p.External, Nillable: !p.Required, Createable: !p.ReadOnly, Updateable: !p.ReadOnly,
			Restricted: len(p.Options) > 0, Length: p.MaxLength, ReferenceTo: append([]string{}, p.targets()...), Values: []value{},
		}
		if p.Type == "lookup" {
			relationship := sfRelationship(p.Name)
			d.Relationship = &relationship
		}
		for _, o := range p.Options {
			d.Values = append(d.Values, value{true, o, o})
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
