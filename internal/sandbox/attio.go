package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// attio speaks Attio's REST API v2: objects, records and their assertion, notes and tasks.
type attio struct {
	server *Server
	store  *store
}

const (
	attioName   = "attio"
	attioWrites = "record_permission:read-write"
	attioReads  = "object_configuration:read"
	attioTime   = "2006-01-02T15:04:05.000000000Z"
)

// atProblem is what is wrong with a request.
type atProblem struct {
	status  int
	code    string
	message string
}

// AttioLimits are those of every workspace.
func AttioLimits() []Limit {
	return []Limit{
		{Dialect: attioName, Policy: "reads", Only: "reads", Requests: 100, Per: time.Second},
		{Dialect: attioName, Policy: "writes", Only: "writes", Requests: 25, Per: time.Second},
	}
}

func newAttio(server *Server) *attio {
	a := &attio{server: server, store: server.store}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	for i, object := range []string{"people", "companies", "deals", "users", "workspaces", "notes", "tasks"} {
		t := a.store.define(attioName, object)
		t.typeID = guid(0x0b1e, int64(i+1))
		for _, p := range attioProperties(object) {
			t.defineProperty(p)
		}
	}
	a.store.owners[attioName] = usualOwners(guid(0x3e3b, 1), guid(0x3e3b, 2), guid(0x3e3b, 3))
	return a
}

func (a *attio) name() string { return attioName }

// object knows an object by slug and id.
func (a *attio) object(name string) string {
	if t := a.store.named(attioName, name); t != nil {
		return t.object
	}
	return name
}

func (a *attio) newID(_ string, n int64) string { return guid(0xa771, n) }

// made gives an object that the workspace made its name.
func (a *attio) made(t *table) {
	t.defineProperty(Property{Name: "name"})
	t.typeID = guid(0x0b1e, int64(100+len(a.store.tables)))
}

func (a *attio) charge(c *call) (cost int, writes bool) {
	return 1, c.method != http.MethodGet && !strings.HasSuffix(c.path, "/query")
}

func (a *attio) serve(c *call) reply {
	if !a.server.admits(attioName, bearer(c, "Bearer")) {
		return a.refusal(c, http.StatusUnauthorized, "")
	}
	at := c.segments
	if len(at) < 2 || at[0] != "v2" {
		return a.refusal(c, http.StatusNotFound, "")
	}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	switch {
	case len(at) == 2 && at[1] == "self" && c.method == http.MethodGet:
		return a.serveSelf()
	case len(at) == 2 && at[1] == "workspace_members" && c.method == http.MethodGet:
		return a.members(c)
	case len(at) == 2 && (at[1] == "notes" || at[1] == "tasks") && c.method == http.MethodPost:
		return a.createExtra(c, at[1])
	case len(at) == 3 && (at[1] == "notes" || at[1] == "tasks"):
		return a.serveExtra(c, at[1], at[2])
	case at[1] == "objects" && len(at) == 2 && c.method == http.MethodGet:
		return a.objects()
	case at[1] == "objects" && len(at) > 2:
		return a.serveObject(c, at[2:])
	}
	return a.refusal(c, http.StatusNotFound, "")
}

func (a *attio) serveObject(c *call, at []string) reply {
	t := a.store.named(attioName, at[0])
	if t == nil || t.object == "notes" || t.object == "tasks" {
		return a.fail(&atProblem{http.StatusNotFound, "not_found", fmt.Sprintf("Object with slug/ID %q was not found.", at[0])})
	}
	scope, ok := attioReads, len(at) > 1 && at[1] == "records"
	if ok && c.method != http.MethodGet {
		scope = attioWrites
	} else if c.method == http.MethodPost {
		scope = attioMakes
	}
	if a.server.lacks(scope) {
		return a.refusal(c, http.StatusForbidden, "")
	}
	switch {
	case len(at) == 1 && c.method == http.MethodGet:
		return jsonReply(http.StatusOK, map[string]any{"data": a.showObject(t)})
	case len(at) == 2 && at[1] == "attributes" && c.method == http.MethodGet:
		return a.attributes(c, t)
	case len(at) == 2 && at[1] == "attributes" && c.method == http.MethodPost:
		return a.createAttribute(c, t)
	case len(at) == 4 && at[1] == "attributes" && c.method == http.MethodGet:
		return a.serveAttribute(c, t, at[2], at[3])
	case !ok || len(at) > 3:
		return a.refusal(c, http.StatusNotFound, "")
	case len(at) == 3 && at[2] == "query" && c.method == http.MethodPost:
		return a.query(c, t)
	}
	type route struct {
		segments int
		method   string
	}
	switch (route{len(at), c.method}) {
	case route{2, http.MethodPost}:
		return a.create(c, t)
	case route{2, http.MethodPut}:
		return a.assert(c, t)
	case route{3, http.MethodGet}, route{3, http.MethodPatch}, route{3, http.MethodPut}, route{3, http.MethodDelete}:
		return a.serveRecord(c, t, at[2])
	}
	return a.refusal(c, http.StatusMethodNotAllowed, "")
}

// refusal is Attio's own body for a status. A 429 says until when to wait, as a date.
func (a *attio) refusal(c *call, status int, _ string) reply {
	p := atProblem{status: status, code: strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_"), message: http.StatusText(status)}
	switch status {
	case http.StatusUnauthorized:
		p.code, p.message = "unauthorized", "The access token is missing, invalid or expired."
	case http.StatusForbidden:
		p.code, p.message = "unauthorized", "The access token lacks one of the scopes "+attioWrites+", "+attioReads+"."
	case http.StatusNotFound:
		p.code, p.message = "not_found", "Could not find endpoint "+c.method+" "+c.path+"."
	case http.StatusConflict:
		p.code, p.message = "merge_in_progress", "The record is being merged. Please try again."
	case http.StatusTooManyRequests:
		p.code, p.message = "rate_limit_exceeded", "Rate limit exceeded, please try again later"
		rep := a.fail(&p)
		rep.set("Retry-After", c.now.Add(2*time.Second-1).UTC().Format(http.TimeFormat))
		return rep
	case http.StatusInternalServerError:
		p.code, p.message = "internal_error", "An unexpected error occurred."
	}
	return a.fail(&p)
}

func (a *attio) limited(*call, allowance, *reply) {}

func (a *attio) fail(p *atProblem) reply {
	kind := "invalid_request_error"
	switch {
	case p.status == http.StatusUnauthorized || p.status == http.StatusForbidden:
		kind = "auth_error"
	case p.status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case p.status >= 500:
		kind = "api_error"
	}
	return jsonReply(p.status, map[string]any{"status_code": p.status, "type": kind, "code": p.code, "message": p.message})
}

// serveSelf is what tells one workspace from another.
func (a *attio) serveSelf() reply {
	return jsonReply(http.StatusOK, map[string]any{
		"active": true, "scope": a.scopes(), "client_id": guid(0xc11e, 1),
		"token_type": "Bearer", "exp": nil, "iat": 1_700_000_000, "sub": a.workspace(), "aud": guid(0xc11e, 1), "iss": "attio.com",
		"authorized_by_workspace_member_id": guid(0x3e3b, 1), "workspace_id": a.workspace(), "workspace_name": "Sandbox",
		"workspace_slug": "sandbox", "workspace_logo_url": nil,
	})
}

func (a *attio) workspace() string { return guid(0x3059, a.server.account.Load()) }

func (a *attio) objects() reply {
	data := []any{}
	for _, t := range a.store.tables {
		if t.dialect == attioName && t.object != "notes" && t.object != "tasks" {
			data = append(data, a.showObject(t))
		}
	}
	return jsonReply(http.StatusOK, map[string]any{"data": data})
}

func (a *attio) showObject(t *table) fieldMap {
	return fieldMap{
		"id":       map[string]string{"workspace_id": a.workspace(), "object_id": t.typeID},
		"api_slug": t.object, "singular_noun": t.object, "plural_noun": t.object, "created_at": "2026-01-01T00:00:00.000000000Z",
	}
}

// attributeID is derived from the place of an attribute among those of its object.
func (a *attio) attributeID(t *table, p *Property) string {
	return guid(0xa771, int64(slices.Index(a.store.tables, t)*1000+slices.Index(t.names, p.Name)+1))
}

// attribute finds an attribute by slug or id.
func (a *attio) attribute(t *table, name string) *Property {
	if p := t.properties[name]; p != nil {
		return p
	}
	for _, n := range t.names {
		if a.attributeID(t, t.properties[n]) == name {
			return t.properties[n]
		}
	}
	return nil
}

// unique tells whether two records cannot hold one value of an attribute.
func (a *attio) unique(t *table, p *Property) bool {
	standard := t.object == "people" || t.object == "companies"
	return p.Unique && !(standard && a.server.varies(AttioStandardKeys) && !attioStandard(t.object, p.Name))
}

func (a *attio) requires(t *table, p *Property) bool {
	return p.Required || t.object == "deals" && p.Name == "owner" && a.server.varies(AttioDealOwner)
}

// attioStandard tells an attribute of Attio's own from one that the workspace made.
func attioStandard(object, name string) bool {
	return slices.ContainsFunc(attioProperties(object), func(p Property) bool { return p.Name == name })
}

// attioProperties are the usual standard attributes of an object, with Attio's own names of their types.
func attioProperties(object string) []Property {
	texts := func(names ...string) []Property { return typed("string", names...) }
	many := func(p Property) Property {
		p.Multiple = true
		return p
	}
	kind := func(name, of string) Property { return Property{Name: name, Type: of} }
	key := func(p Property) Property {
		p.Unique = true
		return p
	}
	switch object {
	case "people":
		return append(texts("description", "job_title", "linkedin", "twitter", "avatar_url"), kind("name", "personal-name"),
			key(many(kind("email_addresses", "email-address"))), many(kind("phone_numbers", "phone-number")), lookup("company", "companies"),
			kind("primary_location", "location"), many(lookup("associated_deals", "deals")))
	case "companies":
		return append(texts("name", "description", "linkedin", "twitter"), key(many(kind("domains", "domain"))), many(lookup("team", "people")),
			many(picklist("categories")), kind("primary_location", "location"), many(lookup("associated_deals", "deals")))
	case "deals":
		return []Property{
			required(Property{Name: "name"}),
			required(Property{Name: "stage", Type: "status", Options: []string{"Lead", "In Progress", "Won 🎉", "Lost"}}),
			kind("owner", "actor-reference"), kind("value", "currency"), many(lookup("associated_people", "people")),
			lookup("associated_company", "companies"),
		}
	case "users":
		return append(texts(), key(required(Property{Name: "user_id"})), kind("primary_email_address", "email-address"), lookup("person", "people"),
			many(lookup("workspace", "workspaces")))
	case "workspaces":
		return append(texts("name"), key(required(Property{Name: "workspace_id"})), many(lookup("users", "users")), lookup("company", "companies"))
	case "notes":
		return []Property{
			required(Property{Name: "parent_object"}), required(Property{Name: "parent_record_id"}), required(Property{Name: "title"}),
			required(picklist("format", "plaintext", "markdown")), required(Property{Name: "content"}), {Name: "created_at", Type: "datetime"},
		}
	case "tasks":
		return []Property{
			required(Property{Name: "content"}), required(picklist("format", "plaintext")), required(kind("deadline_at", "datetime")),
			required(kind("is_completed", "bool")), required(kind("linked_records", "list")), required(kind("assignees", "list")),
		}
	}
	return nil
}

// attioType is Attio's name for the type of an attribute.
func attioType(p *Property) string {
	switch p.Type {
	case "string":
		return "text"
	case "integer":
		return "number"
	case "bool":
		return "checkbox"
	case "datetime":
		return "timestamp"
	case "enumeration":
		return "select"
	case "lookup":
		return "record-reference"
	}
	return p.Type
}
