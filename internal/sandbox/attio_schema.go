package sandbox

import (
	"net/http"
	"slices"
	"strings"
)

const (
	attioMakes   = "object_configuration:read-write"
	attioMembers = "user_management:read"
)

// scopes are what a token has of what there is.
func (a *attio) scopes() string {
	out := []string{}
	for _, s := range [][]string{{attioWrites}, {attioMakes, attioReads}, {attioMembers}, {"note:read-write"}, {"task:read-write"}} {
		if i := slices.IndexFunc(s, func(one string) bool { return !a.server.lacks(one) }); i >= 0 && !a.server.lacks(s[len(s)-1]) {
			out = append(out, s[i])
		}
	}
	return strings.Join(out, " ")
}

// attributes lists those of an object that were not archived, in pages.
func (a *attio) attributes(c *call, t *table) reply {
	from := min(atoi(c.query.Get("offset"), 0), len(t.names))
	names := t.names[from:]
	data := []any{}
	for _, name := range names[:min(atoi(c.query.Get("limit"), 500), len(names))] { // the most of a page is assumed
		data = append(data, a.showAttribute(t, t.properties[name]))
	}
	return jsonReply(http.StatusOK, map[string]any{"data": data})
}

func (a *attio) showAttribute(t *table, p *Property) map[string]any {
	return map[string]any{
		"id":    map[string]string{"workspace_id": a.workspace(), "object_id": t.typeID, "attribute_id": a.attributeID(t, p)},
		"title": p.Label, "description": nil, "api_slug": p.Name, "type": attioType(p), "is_required": a.requires(t, p), "is_unique": a.unique(t, p),
		"is_multiselect": p.Multiple, "is_writable": !p.ReadOnly, "is_system_attribute": attioStandard(t.object, p.Name), "is_archived": false,
		"is_default_value_enabled": false, "default_value": nil,
	}
}

// serveAttribute answers the options or statuses of an attribute; those that were archived only who asks for them.
func (a *attio) serveAttribute(c *call, t *table, name, what string) reply {
	p := a.attribute(t, name)
	if p == nil {
		return a.fail(&atProblem{http.StatusNotFound, "not_found", "Attribute with slug/ID \"" + shorten(name, 80) + "\" not found."})
	}
	kind := map[string]string{"select": "options", "status": "statuses"}[attioType(p)]
	if what != kind {
		return a.fail(&atProblem{http.StatusBadRequest, "validation_type", "The attribute is of the type " + attioType(p) + "."}) // assumed
	}
	id := map[string]string{"options": "option_id", "statuses": "status_id"}[kind]
	data := []any{}
	show := func(titles []string, from int, archived bool) {
		for i, title := range titles {
			data = append(data, map[string]any{
				"id": map[string]string{
					"workspace_id": a.workspace(), "object_id": t.typeID, "attribute_id": a.attributeID(t, p), id: guid(0x0b71, int64(from+i+1)),
				},
				"title": title, "is_archived": archived,
			})
		}
	}
	show(p.Options, 0, false)
	if c.query.Get("show_archived") == "true" {
		show(p.Retired, len(p.Options), true)
	}
	return jsonReply(http.StatusOK, map[string]any{"data": data})
}

func (a *attio) createAttribute(c *call, t *table) reply {
	refuse := func(why string) reply {
		return a.fail(&atProblem{http.StatusBadRequest, "validation_type", why}) // the words are assumed
	}
	var in struct {
		Data struct {
			Title    *string        `json:"title"`
			Slug     *string        `json:"api_slug"`
			Type     *string        `json:"type"`
			Required *bool          `json:"is_required"`
			Unique   *bool          `json:"is_unique"`
			Several  *bool          `json:"is_multiselect"`
			Config   map[string]any `json:"config"`
			About    any            `json:"description"`
		} `json:"data"`
	}
	var sent map[string]map[string]any
	if err := parse(c.body, &in); err != nil {
		return refuse(whyNot(err))
	}
	_ = parse(c.body, &sent)
	d := in.Data
	_, described := sent["data"]["description"]
	if d.Title == nil || d.Slug == nil || d.Type == nil || d.Required == nil || d.Unique == nil || d.Several == nil || d.Config == nil || !described {
		return refuse("title, description, api_slug, type, is_required, is_unique, is_multiselect and config are required")
	}
	types := map[string]string{
		"text": "string", "number": "number", "checkbox": "bool", "date": "date", "timestamp": "datetime", "select": "enumeration", "rating": "number",
		"currency": "currency", "record-reference": "lookup", "actor-reference": "actor-reference", "location": "location", "domain": "domain",
		"email-address": "email-address", "phone-number": "phone-number",
	}
	switch {
	case types[*d.Type] == "":
		return refuse("type: Invalid enum value")
	case t.properties[*d.Slug] != nil:
		return a.fail(&atProblem{http.StatusConflict, "slug_conflict",
			"An attribute with the same API slug already exists on this object. Please choose a different API slug."})
	}
	t.defineProperty(Property{Name: *d.Slug, Label: *d.Title, Type: types[*d.Type], Required: *d.Required, Unique: *d.Unique, Multiple: *d.Several})
	return jsonReply(http.StatusOK, map[string]any{"data": a.showAttribute(t, t.properties[*d.Slug])})
}

// members lists everybody who ever was one.
func (a *attio) members(c *call) reply {
	if a.server.lacks(attioMembers) {
		return a.refusal(c, http.StatusForbidden, "")
	}
	data := []any{}
	for _, o := range a.store.owners[attioName] {
		level := "member"
		if o.Left {
			level = "suspended"
		}
		data = append(data, map[string]any{
			"id":         map[string]string{"workspace_id": a.workspace(), "workspace_member_id": o.ID},
			"first_name": o.FirstName, "last_name": o.LastName, "avatar_url": nil, "email_address": o.Email,
			"created_at": "2026-01-01T00:00:00.000000000Z", "access_level": level,
		})
	}
	return jsonReply(http.StatusOK, map[string]any{"data": data})
}
