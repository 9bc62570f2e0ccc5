package sandbox

import (
	"net/http"
	"slices"
	"strings"
)

func (z *zoho) mismatch() reply {
	return z.fail(http.StatusUnauthorized, zError{"OAUTH_SCOPE_MISMATCH", "invalid oauth scope to access this URL", nil})
}

// fields lists the fields of a module, of all its layouts.
func (z *zoho) fields(c *call) reply {
	if z.server.lacks("ZohoCRM.settings.fields.READ") {
		return z.mismatch()
	}
	t := z.store.named(zohoName, c.query.Get("module"))
	if t == nil {
		return z.fail(http.StatusBadRequest, zError{"INVALID_MODULE", "the module name given seems to be invalid", nil})
	}
	list := []any{}
	for _, name := range t.names {
		p := t.properties[name]
		values := []any{}
		add := func(options []string, kind string) {
			for i, o := range options {
				values = append(values, map[string]any{"display_value": p.label(o), "actual_value": o, "type": kind, "sequence_number": i + 1})
			}
		}
		add(p.Options, "used")
		add(p.Retired, "unused")
		unique := map[string]any{}
		if p.Unique {
			unique["casesensitive"] = "false"
		}
		list = append(list, map[string]any{
			"api_name": name, "field_label": p.Label, "data_type": zType(p), "system_mandatory": p.Required, "unique": unique,
			"read_only": p.ReadOnly, "custom_field": !slices.ContainsFunc(zohoProperties(t.object), func(s Property) bool { return s.Name == name }),
			"operation_type": map[string]bool{"web_update": !p.ReadOnly, "api_create": !p.ReadOnly, "web_create": !p.ReadOnly, "api_update": !p.ReadOnly},
			"length":         p.MaxLength, "pick_list_values": values,
		})
	}
	return jsonReply(http.StatusOK, map[string]any{"fields": list})
}

// createFields makes custom fields. Their API names are made of their labels.
func (z *zoho) createFields(c *call) reply {
	if z.server.lacks("ZohoCRM.settings.fields.CREATE") {
		return z.mismatch()
	}
	t := z.store.named(zohoName, c.query.Get("module"))
	if t == nil {
		return z.fail(http.StatusBadRequest, zError{"INVALID_MODULE", "the module name given seems to be invalid", nil})
	}
	var in struct {
		Fields []struct {
			Label  string         `json:"field_label"`
			Type   string         `json:"data_type"`
			Length int            `json:"length"`
			Unique map[string]any `json:"unique"`
		} `json:"fields"`
	}
	if err := parse(c.body, &in); err != nil || len(in.Fields) == 0 {
		return z.fail(http.StatusBadRequest, zError{"MANDATORY_NOT_FOUND", "required field not found", fieldMap{"api_name": "fields", "json_path": "$.fields"}})
	}
	if len(in.Fields) > 5 {
		return z.fail(http.StatusBadRequest, zError{"LIMIT_EXCEEDED", "at most five fields can be created in one call", nil}) // of updates; of these assumed
	}
	status, rows := http.StatusCreated, []any{}
	refuse := func(code, message string, details fieldMap) {
		status = http.StatusBadRequest
		rows = append(rows, zError{code, message, details}.form())
	}
	types := map[string]string{
		"text": "string", "textarea": "string", "email": "string", "phone": "string", "website": "string", "integer": "integer", "double": "number",
		"currency": "number", "boolean": "bool", "date": "date", "datetime": "datetime",
	}
	for _, f := range in.Fields {
		name := strings.ReplaceAll(f.Label, " ", "_") // assumed
		switch {
		case f.Label == "":
			refuse("MANDATORY_NOT_FOUND", "required field not found", fieldMap{"api_name": "field_label", "json_path": "$.fields[0].field_label"})
		case types[f.Type] == "":
			refuse("INVALID_DATA", "invalid data", fieldMap{"api_name": "data_type", "json_path": "$.fields[0].data_type"})
		case t.property(name) != nil:
			refuse("DUPLICATE_DATA", "duplicate data", fieldMap{"api_name": "field_label", "json_path": "$.fields[0].field_label"}) // assumed
		case f.Length > 255:
			refuse("INVALID_DATA", "invalid data", fieldMap{"api_name": "length", "json_path": "$.fields[0].length"})
		default:
			t.defineProperty(Property{Name: name, Label: f.Label, Type: types[f.Type], MaxLength: f.Length, Unique: len(f.Unique) > 0})
			rows = append(rows, map[string]any{"code": "SUCCESS", "message": "field created", "status": "success",
				"details": map[string]string{"id": z.newID("", z.store.nextID())}})
		}
	}
	return jsonReply(status, map[string]any{"fields": rows})
}

// users lists the users of a type, in pages.
func (z *zoho) users(c *call) reply {
	if z.server.lacks("ZohoCRM.users.READ") {
		return z.mismatch()
	}
	size, number := min(atoi(c.query.Get("per_page"), 200), 200), atoi(c.query.Get("page"), 1)
	all := []any{}
	for _, o := range z.store.owners[zohoName] {
		status := "active"
		if o.Left {
			status = "disabled"
		}
		if kind := c.query.Get("type"); kind == "ActiveUsers" && o.Left || kind == "DeactiveUsers" && !o.Left {
			continue
		}
		all = append(all, map[string]any{
			"id": o.ID, "email": o.Email, "first_name": o.FirstName, "last_name": o.LastName, "full_name": o.FirstName + " " + o.LastName, "status": status,
		})
	}
	from := min((number-1)*size, len(all))
	page := all[from:min(from+size, len(all))]
	if len(page) == 0 {
		return reply{status: http.StatusNoContent}
	}
	return jsonReply(http.StatusOK, map[string]any{
		"users": page, "info": map[string]any{"per_page": size, "count": len(page), "page": number, "more_records": from+size < len(all)},
	})
}
