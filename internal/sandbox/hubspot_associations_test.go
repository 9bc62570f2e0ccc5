package sandbox

import (
	"fmt"
	"strings"
	"testing"
)

type ends struct{ contact, company, other, deal string }

func linkedPortal() (*Server, ends) {
	s := portal(Options{})
	return s, ends{
		contact: s.Put("hubspot", "contacts", map[string]any{"email": "a@x.test"}),
		company: s.Put("hubspot", "companies", map[string]any{"name": "Acme"}),
		other:   s.Put("hubspot", "companies", map[string]any{"name": "Other"}),
		deal:    s.Put("hubspot", "deals", map[string]any{"dealname": "x"}),
	}
}

// kinds lists "from>to type label" of every link.
func kinds(s *Server) []string {
	var out []string
	for _, l := range s.Links("hubspot") {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s>%s %d %s", l.FromObject, l.ToObject, l.TypeID, l.Label)))
	}
	return out
}

func TestDefaultAssociation(t *testing.T) {
	t.Parallel()
	s, e := linkedPortal()
	path := objects + "deals/" + e.deal + "/associations/default/contacts/" + e.contact
	for range 2 { // idempotent
		a := send(t, s, "PUT", path, "")
		wantStatus(t, a, 200)
		wantEqual(t, "first result", a.rows("results")[0], map[string]any{
			"from": map[string]any{"id": e.deal}, "to": map[string]any{"id": e.contact},
			"associationSpec": map[string]any{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": float64(3)},
		})
	}
	// From the other end it is the same link.
	wantStatus(t, send(t, s, "PUT", "/hubspot/crm/v4/objects/contacts/"+e.contact+"/associations/default/deals/"+e.deal, ""), 200)
	wantEqual(t, "links", kinds(s), []string{"deals>contacts 3"})
	a := send(t, s, "GET", objects+"contacts/"+e.contact+"/associations/deals", "")
	wantEqual(t, "seen from the contact", a.rows("results"), []map[string]any{{
		"toObjectId":       e.deal,
		"associationTypes": []any{map[string]any{"category": "HUBSPOT_DEFINED", "typeId": float64(4), "label": nil}},
	}})
	wantStatus(t, send(t, s, "DELETE", objects+"contacts/"+e.contact+"/associations/deals/"+e.deal, ""), 204)
	wantEqual(t, "links", len(s.Links("hubspot")), 0)
}

func TestAssociationRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method, path, body string // {…} are ids
		want                     int
		message                  string
	}{
		{"no such record", "PUT", "deals/{deal}/associations/default/contacts/5", "", 404, "not found"},
		{"id of another object", "PUT", "deals/{deal}/associations/default/contacts/{company}", "", 404, "not found"},
		{"not an id", "PUT", "deals/{deal}/associations/default/contacts/x", "", 400, "x is not a valid ID"},
		{"itself", "PUT", "deals/{deal}/associations/default/deals/{deal}", "", 400, "cannot be associated to itself"},
		{"unknown type", "PUT", "deals/{deal}/associations/contacts/{contact}",
			`[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":999}]`, 400,
			"association type id 999 doesn't exist between deal and contact"},
		{"type of another category", "PUT", "deals/{deal}/associations/contacts/{contact}",
			`[{"associationCategory":"USER_DEFINED","associationTypeId":3}]`, 400, "association type id 3 doesn't exist"},
		{"no types", "PUT", "deals/{deal}/associations/contacts/{contact}", `[]`, 400, "not set: [types]"},
		{"unknown object", "PUT", "deals/{deal}/associations/default/butterflies/1", "", 400, "Unable to infer object type"},
		{"wrong method", "POST", "deals/{deal}/associations/default/contacts/{contact}", `{}`, 405, ""},
		{"of no record", "GET", "deals/5/associations/contacts", "", 404, "not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, e := linkedPortal()
			path := strings.NewReplacer("{deal}", e.deal, "{contact}", e.contact, "{company}", e.company).Replace(tt.path)
			a := send(t, s, tt.method, objects+path, tt.body)
			wantStatus(t, a, tt.want)
			wantContains(t, "message", a.message(), tt.message)
			wantEqual(t, "links", len(s.Links("hubspot")), 0)
		})
	}
}

func TestPrimaryCompany(t *testing.T) {
	t.Parallel()
	s, e := linkedPortal()
	primary := func(company string) {
		t.Helper()
		a := send(t, s, "PUT", objects+"contacts/"+e.contact+"/associations/companies/"+company,
			`[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":1}]`)
		wantStatus(t, a, 201)
		wantEqual(t, "labels", a.body["labels"], any([]any{"Primary"}))
	}
	primary(e.company)
	primary(e.company)
	wantEqual(t, "links", kinds(s), []string{"contacts>companies 279", "contacts>companies 1 Primary"})
	// Another primary company takes the title; the former stays linked.
	primary(e.other)
	wantEqual(t, "links", kinds(s), []string{"contacts>companies 279", "contacts>companies 279", "contacts>companies 1 Primary"})
	wantEqual(t, "primary", s.Links("hubspot")[2].ToID, e.other)
}

func TestAssociationBatch(t *testing.T) {
	t.Parallel()
	s, e := linkedPortal()
	pair := func(from, to, rest string) string {
		return `{"from":{"id":"` + from + `"},"to":{"id":"` + to + `"}` + rest + `}`
	}
	batch := func(path string, inputs ...string) answer {
		return send(t, s, "POST", "/hubspot/crm/associations/2026-09/deals/contacts/batch/"+path, `{"inputs":[`+strings.Join(inputs, ",")+`]}`)
	}
	const types = `,"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":3}]`
	a := batch("create", pair(e.deal, e.contact, types))
	wantStatus(t, a, 201)
	wantEqual(t, "result", a.rows("results"), []map[string]any{{
		"fromObjectTypeId": "0-3", "fromObjectId": e.deal, "toObjectTypeId": "0-1", "toObjectId": e.contact, "labels": []any{},
	}})
	a = batch("associate/default", pair(e.deal, e.contact, ""), pair(e.deal, "5", ""), pair("x", e.contact, ""))
	wantStatus(t, a, 207)
	wantEqual(t, "results", len(a.rows("results")), 2)
	wantEqual(t, "numErrors", a.body["numErrors"], any(float64(2)))
	wantEqual(t, "first", a.rows("errors")[0]["category"], any("OBJECT_NOT_FOUND"))
	wantEqual(t, "second", a.rows("errors")[1]["subCategory"], any("crm.associations.INVALID_IDENTIFIER"))
	wantEqual(t, "links", kinds(s), []string{"deals>contacts 3"})

	a = batch("read", `{"id":"`+e.deal+`"}`, `{"id":"5"}`)
	wantStatus(t, a, 200)
	wantEqual(t, "read", len(a.rows("results")), 1)

	row := pair(e.deal, e.contact, "")
	wantStatus(t, batch("associate/default", strings.Repeat(row+",", associationWrites-1)+row), 200)
	wantStatus(t, batch("associate/default", strings.Repeat(row+",", associationWrites)+row), 400)
	wantStatus(t, batch("read", strings.Repeat(`{"id":"1"},`, associationReads)+`{"id":"1"}`), 400)
	wantStatus(t, batch("archive", `{"from":{"id":"`+e.deal+`"},"to":[{"id":"`+e.contact+`"}]}`), 200)
	wantEqual(t, "links", len(s.Links("hubspot")), 0)
	// The versions that are numbers say nothing.
	wantStatus(t, send(t, s, "POST", "/hubspot/crm/v4/associations/deals/contacts/batch/archive",
		`{"inputs":[{"from":{"id":"`+e.deal+`"},"to":[{"id":"`+e.contact+`"}]}]}`), 204)
}

func TestAssociationLabels(t *testing.T) {
	t.Parallel()
	s, e := linkedPortal()
	const path = "/hubspot/crm/associations/2026-09/contacts/companies/labels"
	list := func() []string {
		var out []string
		for _, l := range send(t, s, "GET", path, "").rows("results") {
			out = append(out, fmt.Sprint(l["category"], " ", l["typeId"], " ", l["label"]))
		}
		return out
	}
	wantEqual(t, "labels", list(), []string{"HUBSPOT_DEFINED 279 <nil>", "HUBSPOT_DEFINED 1 Primary"})
	a := send(t, s, "POST", path, `{"label":"Partner","name":"partner"}`)
	wantStatus(t, a, 200)
	wantEqual(t, "labels", list(), []string{"HUBSPOT_DEFINED 279 <nil>", "HUBSPOT_DEFINED 1 Primary", "USER_DEFINED 101 Partner"})
	a = send(t, s, "PUT", objects+"contacts/"+e.contact+"/associations/companies/"+e.company,
		`[{"associationCategory":"USER_DEFINED","associationTypeId":101}]`)
	wantStatus(t, a, 201)
	wantEqual(t, "links", kinds(s), []string{"contacts>companies 101 Partner"})

	// Labels go alone, but with the association that has none all of them go.
	archive := func(category string, id int) answer {
		return send(t, s, "POST", "/hubspot/crm/associations/2026-09/contacts/companies/batch/labels/archive", fmt.Sprintf(
			`{"inputs":[{"types":[{"associationCategory":%q,"associationTypeId":%d}],"from":{"id":%q},"to":{"id":%q}}]}`, category, id, e.contact, e.company))
	}
	wantStatus(t, archive("USER_DEFINED", 7), 400)
	wantStatus(t, send(t, s, "PUT", objects+"contacts/"+e.contact+"/associations/default/companies/"+e.company, ""), 200)
	wantEqual(t, "links", len(kinds(s)), 2)
	wantStatus(t, archive("USER_DEFINED", 101), 200)
	wantEqual(t, "links", len(kinds(s)), 1)
	wantStatus(t, send(t, s, "PUT", objects+"contacts/"+e.contact+"/associations/companies/"+e.company,
		`[{"associationCategory":"USER_DEFINED","associationTypeId":101}]`), 201)
	wantStatus(t, archive("HUBSPOT_DEFINED", 279), 200)
	wantEqual(t, "links", len(kinds(s)), 0)
}
