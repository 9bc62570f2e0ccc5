package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// zBody is the body of a write.
type zBody struct {
	Data    []fieldMap `json:"data"`
	Checks  []string   `json:"duplicate_check_fields"`
	Trigger []string   `json:"trigger"`
}

// zResult is what became of one row.
type zResult struct {
	record    *record
	duplicate string // the field by which an upsert found it
	err       *zError
	action    string
}

// writeRows writes up to a hundred rows, each for itself, in their order: a row sees what those before it wrote. id is that of
// the path, of an update of one record.
func (z *zoho) writeRows(c *call, t *table, op operation, id string) reply {
	var in zBody
	if err := parse(c.body, &in); err != nil || in.Data == nil {
		return z.fail(http.StatusBadRequest, zError{"INVALID_DATA", "the request body is not what the resource takes: " + whyNot(err),
			fieldMap{"expected_data_type": "jsonarray", "api_name": "data"}})
	}
	if len(in.Data) > zohoRows {
		return z.fail(http.StatusBadRequest, zError{"INVALID_DATA", "invalid data", fieldMap{"maximum_length": zohoRows, "api_name": "data"}})
	}
	checks, bad := z.checkFields(t, in.Checks)
	if bad != nil && op == opUpsert {
		return z.fail(http.StatusBadRequest, *bad)
	}
	external, bad := z.externals(c, t)
	if bad != nil {
		return z.fail(http.StatusBadRequest, *bad)
	}
	rows := make([]any, 0, len(in.Data))
	failed := 0
	for i, sent := range in.Data {
		result := z.writeRow(c, t, op, id, sent, checks, external, i)
		if result.err != nil {
			failed++
			rows = append(rows, result.err.form())
			continue
		}
		rows = append(rows, z.success(result, op))
	}
	status := http.StatusOK
	switch {
	case z.server.varies(ZohoMultiStatus) && failed > 0 && failed == len(rows):
		status = http.StatusBadRequest
	case z.server.varies(ZohoMultiStatus) && failed > 0:
		status = http.StatusMultiStatus
	case op == opCreate && failed == 0:
		status = http.StatusCreated
	}
	rep := jsonReply(status, map[string]any{"data": rows})
	rep.rows = len(rows)
	return rep
}

// checkFields are the fields that an upsert checks for duplicates, in order: by default the module's own first, which merges
// accounts of one name. Only it and unique fields can be named. The caller holds the store, in this and all that follow.
func (z *zoho) checkFields(t *table, named []string) ([]string, *zError) {
	own := zohoCheckField(t.object)
	for _, name := range named {
		p := t.properties[name]
		if name != own && (p == nil || !p.Unique) { // the code is assumed
			return nil, &zError{"INVALID_DATA", "the duplicate check field given is neither system defined nor unique",
				fieldMap{"api_name": "duplicate_check_fields", "json_path": "$.duplicate_check_fields", "field": name}}
		}
	}
	if len(named) > 0 {
		return named, nil
	}
	var out []string
	if own != "" {
		out = append(out, own)
	}
	for _, k := range t.keys {
		if k.Name != own {
			out = append(out, k.Name)
		}
	}
	return out, nil
}

// writeRow decides which record a row is about and writes it.
func (z *zoho) writeRow(c *call, t *table, op operation, id string, sent fieldMap, checks []string, external zExternals, row int) zResult {
	if r := z.store.refused(t, sent); r != nil {
		e := &zError{r.Code, r.Message, fieldMap{}}
		if r.Field != "" {
			e.details = fieldMap{"api_name": r.Field, "json_path": fmt.Sprintf("$.data[%d].%s", row, r.Field)}
		}
		return zResult{err: e}
	}
	var (
		target    *record
		duplicate string
		err       *zError
	)
	given, byID := sent["id"].(string)
	switch {
	case op == opCreate:
	case id != "" || byID || op == opUpdate && external.key != "":
		if id == "" {
			id = given
		}
		target, err = z.addressed(t, id, sent, external, row)
	case op == opUpsert:
		target, duplicate, err = z.duplicate(t, sent, checks, row)
	default:
		err = &zError{"MANDATORY_NOT_FOUND", "required field not found", fieldMap{"api_name": "id", "json_path": fmt.Sprintf("$.data[%d].id", row)}}
	}
	if err != nil {
		return zResult{err: err}
	}
	changes, err := z.check(t, target, sent, external, row)
	if err != nil {
		return zResult{err: err}
	}
	if target == nil {
		r := z.store.create(t, z.newID(t.object, z.store.nextID()), changes, c.now)
		return zResult{record: r, action: "insert"}
	}
	if wall, e := time.Parse(time.RFC3339, c.header.Get("If-Unmodified-Since")); e == nil && target.updated.After(wall) {
		return zResult{err: &zError{"ALREADY_MODIFIED", "record updated time has already passed if-unmodified-since time", fieldMap{"id": target.id}}}
	}
	z.store.update(t, target, changes, c.now)
	return zResult{record: target, duplicate: duplicate, action: "update"}
}

// addressed finds the record that an id names, or a value of an external field.
func (z *zoho) addressed(t *table, id string, sent fieldMap, external zExternals, row int) (*record, *zError) {
	if external.key != "" && t.live(id) == nil {
		if id == "" {
			id = text(sent[external.key])
		}
		if found := t.holders(external.key, id); len(found) == 1 {
			return found[0], nil
		}
		return nil, &zError{"INVALID_DATA", "the external id given seems to be invalid", fieldMap{"api_name": external.key}}
	}
	if r := t.live(id); r != nil {
		return r, nil
	}
	return nil, &zError{"INVALID_DATA", "the id given seems to be invalid", fieldMap{"api_name": "id", "json_path": fmt.Sprintf("$.data[%d].id", row), "id": id}}
}

// duplicate finds the record that has the same value in the first of the fields that any record has.
func (z *zoho) duplicate(t *table, sent fieldMap, checks []string, row int) (*record, string, *zError) {
	for _, name := range checks {
		found := t.holders(name, text(sent[name]))
		switch len(found) {
		case 0:
		case 1:
			return found[0], name, nil
		default:
			return nil, "", zTaken(name, found[0], row, true)
		}
	}
	return nil, "", nil
}

// check turns the fields of a row into changes, or says what is wrong: of several things each.
func (z *zoho) check(t *table, target *record, sent fieldMap, external zExternals, row int) (fieldMap, *zError) {
	changes := fieldMap{}
	var wrong []zError
	for _, name := range sorted(sent) {
		if name == "id" || strings.HasPrefix(name, "$") && t.properties[name] == nil {
			continue
		}
		path := fmt.Sprintf("$.data[%d].%s", row, name)
		p := t.properties[name]
		if p == nil || p.ReadOnly {
			wrong = append(wrong, zError{"INVALID_DATA", "the field api name given seems to be invalid", fieldMap{"api_name": name, "json_path": path}})
			continue
		}
		value, details, message := z.value(p, sent[name], external)
		if details != nil {
			details["api_name"], details["json_path"] = name, path
			wrong = append(wrong, zError{"INVALID_DATA", message, details})
			continue
		}
		changes[name] = value
	}
	if len(wrong) == 0 {
		wrong = append(z.checkParent(sent, external, row), z.checkRecord(t, target, changes, row)...)
	}
	switch len(wrong) {
	case 0:
		return changes, nil
	case 1:
		return nil, &wrong[0]
	}
	forms := make([]fieldMap, 0, len(wrong))
	for _, e := range wrong {
		forms = append(forms, e.form())
	}
	return nil, &zError{"MULTIPLE_OR_MULTI_ERRORS", "Multiple errors in the request", fieldMap{"errors": forms}}
}

// checkRecord checks what does not depend on one value alone: locks, what is required, what is unique.
func (z *zoho) checkRecord(t *table, target *record, changes fieldMap, row int) (wrong []zError) {
	if target != nil && target.locked > 0 {
		return []zError{{"RECORD_LOCKED", "Sorry, you cannot perform this operation as the record is locked.",
			fieldMap{"api_name": "id", "json_path": fmt.Sprintf("$.data[%d].id", row), "action": "record_locking"}}}
	}
	for _, name := range t.names {
		value, sent := changes[name]
		if t.properties[name].Required && (sent && blank(value) || !sent && target == nil) {
			wrong = append(wrong, zError{"MANDATORY_NOT_FOUND", "required field not found",
				fieldMap{"api_name": name, "json_path": fmt.Sprintf("$.data[%d].%s", row, name)}})
		}
	}
	for _, k := range t.keys {
		for _, other := range t.holders(k.Name, text(changes[k.Name])) {
			if other != target {
				wrong = append(wrong, *zTaken(k.Name, other, row, false))
			}
		}
	}
	return wrong
}

// checkParent looks whether a note, or a task, names the module of the record that it is about, which is there. That other
// versions have it elsewhere does not matter to us; the codes are assumed.
func (z *zoho) checkParent(sent fieldMap, external zExternals, row int) []zError {
	module, name, field := "", "", ""
	var parent fieldMap
	if p, ok := sent["Parent_Id"].(map[string]any); ok {
		inner, _ := p["module"].(map[string]any)
		parent, module, name, field = p, text(inner["api_name"]), "Parent_Id", "module"
	} else if p, ok := sent["What_Id"].(map[string]any); ok {
		parent, module, name, field = p, text(sent["$se_module"]), "What_Id", "$se_module"
	}
	switch t := z.store.table(zohoName, module); {
	case parent == nil:
	case module == "":
		return []zError{{"MANDATORY_NOT_FOUND", "required field not found", fieldMap{"api_name": field, "json_path": fmt.Sprintf("$.data[%d].%s", row, field)}}}
	case external.lookups[name] != "": // it is named by another value than its id
	case t == nil || t.live(text(parent["id"])) == nil:
		return []zError{{"INVALID_DATA", "the id given seems to be invalid", fieldMap{"api_name": name, "json_path": fmt.Sprintf("$.data[%d].%s", row, name)}}}
	}
	return nil
}

// value checks one value by the type of its field; details are what an error tells, nil when there is none.
func (z *zoho) value(p *Property, v any, external zExternals) (value any, details fieldMap, message string) {
	if v == nil || p.Type == anyType {
		return v, nil, ""
	}
	wrong := func(expected string) (any, fieldMap, string) {
		return nil, fieldMap{"expected_data_type": expected}, "invalid data"
	}
	s, isText := v.(string)
	switch kind := zType(p); kind {
	case "double":
		if _, ok := v.(float64); !ok {
			return wrong("double")
		}
	case "integer":
		if _, ok := whole(v); !ok {
			return wrong("integer")
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return wrong("boolean")
		}
	case "date", "datetime":
		if !isText || kind == "date" && !isDate(s) || kind == "datetime" && !isTime(s) {
			return wrong(kind)
		}
	case "lookup":
		return z.reference(p, v, external)
	case "picklist":
		if !isText {
			return wrong("text")
		}
		if len(p.Options) > 0 && !slices.Contains(p.Options, s) {
			return nil, fieldMap{"supported_values": p.Options}, "invalid data"
		}
	case "multiselectpicklist":
		list, ok := v.([]any)
		if !ok {
			return wrong("jsonarray")
		}
		for _, one := range list {
			if len(p.Options) > 0 && !slices.Contains(p.Options, text(one)) {
				return nil, fieldMap{"supported_values": p.Options}, "invalid data"
			}
		}
	default:
		return z.textValue(p, v)
	}
	return v, nil, ""
}

// textValue checks text, and the few fields that are objects or lists.
func (z *zoho) textValue(p *Property, v any) (value any, details fieldMap, message string) {
	switch p.Type {
	case "object":
		if _, ok := v.(map[string]any); !ok {
			return nil, fieldMap{"expected_data_type": "jsonobject"}, "invalid data"
		}
		return v, nil, ""
	case "list":
		if _, ok := v.([]any); !ok {
			return nil, fieldMap{"expected_data_type": "jsonarray"}, "invalid data"
		}
		return v, nil, ""
	}
	s, ok := v.(string)
	switch {
	case !ok:
		return nil, fieldMap{"expected_data_type": "text"}, "invalid data"
	case p.MaxLength > 0 && utf8.RuneCountInString(s) > p.MaxLength:
		return nil, fieldMap{"maximum_length": p.MaxLength}, "invalid data"
	case p.Name == "Email" && s != "" && !plausibleEmail(s):
		return nil, fieldMap{"expected_data_type": "email"}, "invalid data"
	}
	return s, nil, ""
}

// reference finds the record that a lookup refers to: by id, or by an external field that the header names.
func (z *zoho) reference(p *Property, v any, external zExternals) (value any, details fieldMap, message string) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fieldMap{"expected_data_type": "jsonobject"}, "invalid data"
	}
	field, byExternal := external.lookups[p.Name]
	for _, object := range p.targets() {
		t := z.store.table(zohoName, object)
		if byExternal && t != nil && t.properties[field] != nil {
			if found := t.holders(field, text(m[field])); len(found) == 1 {
				return found[0].id, nil, ""
			}
		} else if id, isText := m["id"].(string); isText && t.live(id) != nil {
			return id, nil, ""
		}
	}
	if byExternal {
		return nil, fieldMap{"external_field": field}, "the external id given seems to be invalid"
	}
	return nil, fieldMap{}, "the id given seems to be invalid"
}

// remove deletes records by their ids.
func (z *zoho) remove(c *call, t *table, ids []string) reply {
	if len(ids) == 1 && ids[0] == "" {
		return z.fail(http.StatusBadRequest, zError{"REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", fieldMap{"param_name": "ids"}})
	}
	rows := make([]any, 0, len(ids))
	for _, id := range ids {
		r := t.live(id)
		if r == nil {
			rows = append(rows, zError{"INVALID_DATA", "record not deleted", fieldMap{"id": id}}.form())
			continue
		}
		z.store.archive(t, r, c.now)
		rows = append(rows, fieldMap{"code": "SUCCESS", "details": fieldMap{"id": id}, "message": "record deleted", "status": "success"})
	}
	rep := jsonReply(http.StatusOK, map[string]any{"data": rows})
	rep.rows = len(rows)
	return rep
}

// success is the row of a record that was written.
func (z *zoho) success(result zResult, op operation) fieldMap {
	r := result.record
	who := map[string]string{"name": "Integration User", "id": "5843104000000225013"}
	out := fieldMap{
		"code": "SUCCESS", "status": "success", "message": map[string]string{"insert": "record added", "update": "record updated"}[result.action],
		"details": fieldMap{"id": r.id, "Created_Time": r.created.UTC().Format(zohoTime), "Modified_Time": r.updated.UTC().Format(zohoTime),
			"Created_By": who, "Modified_By": who},
	}
	if op == opUpsert {
		out["action"], out["duplicate_field"] = result.action, nil
		if result.duplicate != "" {
			out["duplicate_field"] = result.duplicate
		}
	}
	return out
}

func zTaken(name string, by *record, row int, more bool) *zError {
	return &zError{"DUPLICATE_DATA", "duplicate data", fieldMap{
		"api_name": name, "json_path": fmt.Sprintf("$.data[%d].%s", row, name), "id": by.id, "duplicate_record": fieldMap{"id": by.id}, "more_records": more,
	}}
}
