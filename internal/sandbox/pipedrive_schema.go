package sandbox

import (
	"crypto/sha1"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
)

// pdAdmin is the scope that makes fields.
const pdAdmin = "admin"

// createField makes a custom field, as often as it is asked to: its key is Pipedrive's own.
func (p *pipedrive) createField(c *call, singular string) reply {
	t := p.store.named(pipedriveName, singular)
	if t == nil || !slices.Contains([]string{"deals", "persons", "organizations"}, t.object) {
		return p.refusal(c, http.StatusNotFound, "")
	}
	if p.server.lacks(pdAdmin) {
		return p.refusal(c, http.StatusForbidden, "")
	}
	sent, bad := p.read(c)
	if bad != nil {
		return *bad
	}
	name, _ := sent["field_name"].(string)
	kind, _ := sent["field_type"].(string)
	types := map[string]string{
		"varchar": "string", "varchar_auto": "string", "text": "string", "phone": "string", "double": "number", "date": "date", "enum": "enumeration",
		"set": "enumeration", "monetary": "money", "address": anyType, "time": anyType, "timerange": anyType, "daterange": anyType, "user": anyType,
		"org": "lookup", "people": "lookup",
	}
	if name == "" {
		return p.invalid("field_name: Required")
	}
	if types[kind] == "" {
		return p.invalid("field_type: Parameter 'field_type' must be one of [varchar, text, double, phone, date, daterange, time, timerange, set, enum, varchar_auto, address, monetary, org, people, user]")
	}
	made := Property{Label: name, Type: types[kind], Multiple: kind == "set"}
	made.Target = map[string]string{"org": "organizations", "people": "persons"}[kind]
	if made.Type == "enumeration" {
		list, _ := sent["options"].([]any)
		for i, one := range list {
			label := ""
			if m, ok := one.(map[string]any); ok {
				label = text(m["label"])
			}
			if label == "" {
				return p.invalid("options: label: Required")
			}
			if made.Labels == nil {
				made.Labels = map[string]string{}
			}
			id := strconv.Itoa(i + 1)
			made.Options, made.Labels[id] = append(made.Options, id), label
		}
		if len(made.Options) == 0 {
			return p.invalid("options: Required")
		}
	}
	sum := sha1.Sum([]byte(t.object + name + strconv.Itoa(len(t.names))))
	made.Name = hex.EncodeToString(sum[:])
	t.defineProperty(made)
	return p.succeed(http.StatusOK, pdField(t, made.Name))
}

// pdField is a field as API v2 tells of it.
func pdField(t *table, name string) map[string]any {
	property := t.properties[name]
	return map[string]any{
		"field_code": name, "field_name": property.Label, "description": nil, "field_type": pdType(property),
		"is_custom_field": !pipedriveStandard(t.object, name), "is_optional_response_field": false, "options": pdShowOptions(property), "subfields": nil,
	}
}

func pdShowOptions(property *Property) any {
	if len(property.Options) == 0 {
		return nil
	}
	var list []any
	for j, number := range pdOptions(property) {
		var id any = number
		if property.Name == "status" { // its options are words
			id = property.Options[j]
		}
		list = append(list, map[string]any{"id": id, "label": property.label(property.Options[j])})
	}
	return list
}

// users lists all of them, those who have left too.
func (p *pipedrive) users(c *call) reply {
	if p.server.lacks("users:read") {
		return p.refusal(c, http.StatusForbidden, "")
	}
	data := []any{}
	for _, o := range p.store.owners[pipedriveName] {
		data = append(data, map[string]any{
			"id": atoi(o.ID, 1), "name": o.FirstName + " " + o.LastName, "email": o.Email, "active_flag": !o.Left, "activated": true, "is_deleted": false,
		})
	}
	return p.succeed(http.StatusOK, data)
}
