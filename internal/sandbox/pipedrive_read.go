package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func (p *pipedrive) get(_ *call, t *table, id string) reply {
	r := t.live(id)
	if r == nil {
		return p.notFound(t)
	}
	return p.succeed(http.StatusOK, p.show(t, r))
}

// list pages through the records, or reads those whose ids the query lists.
func (p *pipedrive) list(c *call, t *table) reply {
	ids := c.query.Get("ids")
	most, after := atoi(c.query.Get("limit"), 100), atoi(c.query.Get("cursor"), 0)
	data := []any{}
	var next any
	for i, r := range t.rows {
		if r.archived || i < after || ids != "" && !slices.Contains(strings.Split(ids, ","), r.id) {
			continue
		}
		if len(data) == most {
			next = strconv.Itoa(i)
			break
		}
		data = append(data, p.show(t, r))
	}
	return jsonReply(http.StatusOK, map[string]any{"success": true, "data": data, "additional_data": map[string]any{"next_cursor": next}})
}

// show is a record as it is read: every custom field is there, null where it has no value.
func (p *pipedrive) show(t *table, r *record) fieldMap {
	out := fieldMap{}
	custom := fieldMap{}
	for _, name := range t.names {
		if pipedriveStandard(t.object, name) || t.object == "leads" {
			out[name] = r.properties[name]
		} else {
			custom[name] = r.properties[name]
		}
	}
	if t.object != "leads" && t.object != "notes" {
		out["custom_fields"] = custom
	}
	out["id"] = pdID(t.object, r.id)
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
	data := []any{}
	for _, r := range t.rows {
		seen := p.store.indexed(r, p.server.options.Now())
		if seen == nil || !slices.ContainsFunc(pdTexts(seen[field]), func(v string) bool { return compare(v, term) }) {
			continue
		}
		data = append(data, map[string]any{"id": pdID(t.object, r.id), "name": pdTitle(seen)})
	}
	return jsonReply(http.StatusOK, map[string]any{"success": true, "data": data, "additional_data": map[string]any{"next_cursor": nil}})
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
	items := []any{}
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
	return jsonReply(http.StatusOK, map[string]any{
		"success": true, "data": map[string]any{"items": items}, "additional_data": map[string]any{"next_cursor": nil},
	})
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
	case "deals":
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
				"id": atoi(s.ID, i+1), "order_nr": i, "name": s.Label, "pipeline_id": atoi(one.ID, 1), "is_deleted": false, "deal_probability": 100,
			})
		}
	}
	return p.succeed(http.StatusOK, data)
}

func (p *pipedrive) pipelines() reply {
	data := []any{}
	for i, one := range p.store.table(pipedriveName, "deals").pipelines {
		data = append(data, map[string]any{"id": atoi(one.ID, i+1), "name": one.Label, "order_nr": i, "is_deleted": false})
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
	for i, name := range t.names {
		if version == 2 && i < after {
			continue
		}
		if version == 2 && len(data) == min(most, 500) {
			next = strconv.Itoa(i)
			break
		}
		property := t.properties[name]
		var options any
		if len(property.Options) > 0 {
			var list []any
			for j, id := range pdOptions(property) {
				list = append(list, map[string]any{"id": id, "label": property.Options[j]})
			}
			options = list
		}
		custom := !pipedriveStandard(t.object, name)
		if version == 1 {
			data = append(data, map[string]any{"id": i + 1, "key": name, "name": property.Label, "field_type": pdType(property), "edit_flag": custom,
				"mandatory_flag": property.Required, "options": options})
			continue
		}
		data = append(data, map[string]any{"field_code": name, "field_name": property.Label, "field_type": pdType(property), "is_custom_field": custom,
			"options": options})
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
