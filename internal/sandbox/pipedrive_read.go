package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func (p *pipedrive) get(c *call, t *table, id string) reply {
	r := t.live(id)
	if gone := t.byID[id]; gone != nil && gone.archived && p.server.varies(PipedriveShowsDeleted) {
		shown := p.show(t, gone, nil)
		shown["is_deleted"] = true
		return p.succeed(http.StatusOK, shown)
	}
	if r == nil {
		return p.notFound(t)
	}
	wanted, bad := pdWanted(c)
	if bad != "" {
		return p.invalid(bad)
	}
	return p.succeed(http.StatusOK, p.show(t, r, wanted))
}

// list pages through the records, or reads those whose ids the query lists. Archived deals are not among them.
func (p *pipedrive) list(c *call, t *table) reply {
	wanted, bad := pdWanted(c)
	if bad != "" {
		return p.invalid(bad)
	}
	ids := c.query.Get("ids")
	if strings.Count(ids, ",") >= pipedriveIDs {
		return p.invalid("ids: Parameter 'ids' must have at most 100 values")
	}
	var found []any
	for _, r := range t.rows {
		if !r.archived && r.properties["is_archived"] != true && (ids == "" || slices.Contains(strings.Split(ids, ","), r.id)) {
			found = append(found, p.show(t, r, wanted))
		}
	}
	return p.page(c, found, func(page []any) any { return page })
}

// page answers with one page of what was found.
func (p *pipedrive) page(c *call, found []any, data func([]any) any) reply {
	most, after := atoi(c.query.Get("limit"), 100), atoi(c.query.Get("cursor"), 0)
	if most > 500 {
		return p.invalid("limit: Parameter 'limit' must be less than or equal to 500") // the words are assumed
	}
	page, next := []any{}, any(nil)
	for i := after; i < len(found); i++ {
		if len(page) == most {
			next = strconv.Itoa(i)
			break
		}
		page = append(page, found[i])
	}
	return jsonReply(http.StatusOK, map[string]any{"success": true, "data": data(page), "additional_data": map[string]any{"next_cursor": next}})
}

// pdWanted are the custom fields that a read asks for; nil: all.
func pdWanted(c *call) (names []string, why string) {
	list := c.query.Get("custom_fields")
	if list == "" {
		return nil, ""
	}
	if names = strings.Split(list, ","); len(names) > 15 {
		return nil, "custom_fields: Parameter 'custom_fields' must have at most 15 keys" // the words are assumed
	}
	return names, ""
}

// show is a record as it is read: every custom field is there, or those that are wanted, null where it has no value. A lead
// shows those that have one.
func (p *pipedrive) show(t *table, r *record, wanted []string) fieldMap {
	out := fieldMap{}
	custom := fieldMap{}
	for _, name := range t.names {
		switch value := r.properties[name]; {
		case pipedriveStandard(t.object, name), t.object == "leads" && value != nil:
			out[name] = value
		case t.object != "leads" && (wanted == nil || slices.Contains(wanted, name)):
			custom[name] = value
		}
	}
	if t.object != "leads" && t.object != "notes" {
		out["custom_fields"] = custom
	}
	out["id"], out["is_deleted"] = pdID(t.object, r.id), false
	if out["owner_id"] == nil {
		out["owner_id"] = 777
	}
	out["add_time"], out["update_time"] = r.created.UTC().Format("2006-01-02T15:04:05Z"), r.updated.UTC().Format("2006-01-02T15:04:05Z")
	return out
}

// searchField finds records by the value of one field, as far as the index has come. It minds the case.
func (p *pipedrive) searchField(c *call) reply {
	q := c.query
	t := p.store.named(pipedriveName, q.Get("entity_type"))
	term, field := q.Get("term"), q.Get("field")
	match := q.Get("match")
	if match == "" {
		match = "exact"
	}
	compare, ok := map[string]func(value, term string) bool{
		"exact":     func(value, term string) bool { return value == term },
		"beginning": strings.HasPrefix,
		"middle":    strings.Contains,
	}[match]
	if ok && p.server.varies(PipedriveFindsMore) {
		compare = strings.Contains
	}
	switch {
	case t == nil || t.typeID != q.Get("entity_type"):
		return p.invalid("entity_type: Parameter 'entity_type' must be one of [deal, lead, person, organization, product, project]")
	case !ok:
		return p.invalid("match: Parameter 'match' must be one of [exact, beginning, middle]")
	case term == "" || match != "exact" && len([]rune(term)) < 2:
		return p.invalid("term: Parameter 'term' must be at least 2 characters long")
	case t.properties[field] == nil || !pdSearchable(t.properties[field]):
		return p.invalid("field: Parameter 'field' is not a searchable field") // assumed
	}
	var found []any
	for _, r := range t.rows {
		seen := p.store.indexed(r, p.server.options.Now())
		if seen == nil || !slices.ContainsFunc(pdTexts(seen[field]), func(v string) bool { return compare(v, term) }) {
			continue
		}
		one := map[string]any{"id": pdID(t.object, r.id), "name": pdTitle(seen)}
		if p.server.varies(PipedriveShowsField) {
			one[field] = seen[field]
		}
		found = append(found, one)
	}
	return p.page(c, found, func(page []any) any { return page })
}

// searchObject finds records of one object by any of some fields. It does not mind the case.
func (p *pipedrive) searchObject(c *call, t *table) reply {
	return p.search(c, []*table{t})
}

// searchItems finds records of several objects.
func (p *pipedrive) searchItems(c *call) reply {
	var tables []*table
	for _, o := range pipedriveObjects[:3] {
		if kinds := c.query.Get("item_types"); kinds == "" || slices.Contains(strings.Split(kinds, ","), o.singular) {
			tables = append(tables, p.store.table(pipedriveName, o.plural))
		}
	}
	return p.search(c, tables)
}

func (p *pipedrive) search(c *call, tables []*table) reply {
	term := strings.ToLower(strings.TrimSpace(c.query.Get("term")))
	exact := c.query.Get("exact_match") == "true"
	if term == "" || !exact && len([]rune(term)) < 2 {
		return p.invalid("term: Parameter 'term' must be at least 2 characters long")
	}
	for one := range strings.SplitSeq(c.query.Get("fields"), ",") {
		if one != "" && !slices.Contains([]string{"custom_fields", "notes", "title", "name", "email", "phone", "address"}, one) {
			return p.invalid("fields: Parameter 'fields' must be one of [custom_fields, notes, title, name, email, phone, address]") // the words are assumed
		}
	}
	exact = exact && !p.server.varies(PipedriveFindsMore)
	var items []any
	for _, t := range tables {
		names := pdSearched(t, c.query.Get("fields"))
		for _, r := range t.rows {
			seen := p.store.indexed(r, p.server.options.Now())
			if seen == nil || !slices.ContainsFunc(names, func(name string) bool {
				return slices.ContainsFunc(pdTexts(seen[name]), func(v string) bool {
					v = strings.ToLower(v)
					return v == term || !exact && strings.Contains(v, term)
				})
			}) {
				continue
			}
			items = append(items, map[string]any{"result_score": 1, "item": p.item(t, r, seen)})
		}
	}
	return p.page(c, items, func(page []any) any { return map[string]any{"items": page} })
}

// item is a record as a search shows it.
func (p *pipedrive) item(t *table, r *record, seen fieldMap) fieldMap {
	custom := []string{}
	for _, name := range t.names {
		if !pipedriveStandard(t.object, name) {
			custom = append(custom, pdTexts(seen[name])...)
		}
	}
	out := fieldMap{"id": pdID(t.object, r.id), "type": t.typeID, "custom_fields": custom, "notes": []string{}}
	switch t.object {
	case "deals", "leads":
		out["title"], out["value"], out["currency"], out["status"] = seen["title"], seen["value"], seen["currency"], seen["status"]
	case "persons":
		out["name"], out["emails"], out["phones"] = seen["name"], pdTexts(seen["emails"]), pdTexts(seen["phones"])
	default:
		out["name"] = seen["name"]
	}
	return out
}

// pdSearched are the fields that a search looks into.
func pdSearched(t *table, list string) []string {
	var names []string
	wanted := strings.Split(list, ",")
	for _, name := range t.names {
		kind := map[string]string{"emails": "email", "phones": "phone", "title": "title", "name": "name"}[name]
		if !pipedriveStandard(t.object, name) && pdSearchable(t.properties[name]) {
			kind = "custom_fields"
		}
		if kind != "" && (list == "" || slices.Contains(wanted, kind)) {
			names = append(names, name)
		}
	}
	return names
}

// pdSearchable tells whether a field can be searched by: texts and numbers can.
func pdSearchable(property *Property) bool {
	switch property.Type {
	case "string", "number", "contacts", anyType:
		return true
	}
	return false
}

// pdTexts are the values of a field that a search compares.
func pdTexts(value any) []string {
	switch v := value.(type) {
	case nil:
		return []string{}
	case []any:
		out := []string{}
		for _, one := range v {
			if m, ok := one.(map[string]any); ok {
				one = m["value"]
			}
			out = append(out, text(one))
		}
		return out
	}
	return []string{text(value)}
}

func pdTitle(seen fieldMap) any {
	if seen["title"] != nil {
		return seen["title"]
	}
	return seen["name"]
}

func (p *pipedrive) stages(c *call) reply {
	data := []any{}
	for _, one := range p.store.table(pipedriveName, "deals").pipelines {
		if only := c.query.Get("pipeline_id"); only != "" && only != one.ID {
			continue
		}
		for i, s := range one.Stages {
			data = append(data, map[string]any{
				"id": atoi(s.ID, i+1), "order_nr": i, "name": s.Label, "pipeline_id": atoi(one.ID, 1), "is_deleted": s.Archived, "deal_probability": 100,
			})
		}
	}
	return p.succeed(http.StatusOK, data)
}

func (p *pipedrive) pipelines() reply {
	data := []any{}
	for i, one := range p.store.table(pipedriveName, "deals").pipelines {
		data = append(data, map[string]any{"id": atoi(one.ID, i+1), "name": one.Label, "order_nr": i, "is_deleted": one.Archived})
	}
	return p.succeed(http.StatusOK, data)
}

// fields lists the fields of an object as one version of the API names their parts.
func (p *pipedrive) fields(c *call, singular string, version int) reply {
	t := p.store.named(pipedriveName, singular)
	if t == nil {
		return p.refusal(c, http.StatusNotFound, "")
	}
	most, after := atoi(c.query.Get("limit"), 100), atoi(c.query.Get("cursor"), 0)
	data := []any{}
	var next any
	names, of := slices.Clone(t.names), map[string]*table{}
	if leads := p.store.table(pipedriveName, "leads"); t.object == "deals" && leads != nil { // a lead has the custom fields of deals
		for _, name := range leads.names {
			if t.properties[name] == nil && !pipedriveStandard(leads.object, name) {
				names, of[name] = append(names, name), leads
			}
		}
	}
	for i, name := range names {
		t := t
		if of[name] != nil {
			t = of[name]
		}
		if version == 2 && i < after {
			continue
		}
		if version == 2 && len(data) == min(most, 500) {
			next = strconv.Itoa(i)
			break
		}
		property := t.properties[name]
		if version == 1 {
			data = append(data, map[string]any{"id": i + 1, "key": name, "name": property.Label, "field_type": pdType(property),
				"edit_flag": !pipedriveStandard(t.object, name), "mandatory_flag": property.Required, "options": pdShowOptions(property)})
			continue
		}
		data = append(data, pdField(t, name))
	}
	return jsonReply(http.StatusOK, map[string]any{"success": true, "data": data, "additional_data": map[string]any{"next_cursor": next}})
}

// pdType is Pipedrive's name for the type of a field.
func pdType(property *Property) string {
	switch property.Type {
	case "number":
		return "double"
	case "integer":
		return "int"
	case "bool":
		return "boolean"
	case "enumeration":
		if property.Multiple || property.FieldType == "checkbox" {
			return "set"
		}
		return "enum"
	case "lookup":
		return map[string]string{"persons": "people", "organizations": "org", "deals": "deal", "leads": "lead"}[property.Target]
	case "money":
		return "monetary"
	case "date":
		return "date"
	}
	return "varchar"
}

func (p *pipedrive) invalid(why string) reply {
	return p.fail(http.StatusBadRequest, "Validation failed: "+why, "ERR_SCHEMA_VALIDATION_FAILED")
}
