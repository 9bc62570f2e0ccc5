package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// value checks and normalises what is sent for an attribute: one value, or a list where it takes several. An empty list
// clears, as null does. The caller holds the store.
func (a *attio) value(t *table, p *Property, v any) (any, *atProblem) {
	if v == nil {
		return nil, nil
	}
	list, isList := v.([]any)
	if !isList {
		if p.Multiple {
			return nil, atType(p, "an array")
		}
		list = []any{v}
	}
	if len(list) > 1 && !p.Multiple {
		return nil, atType(p, "a single value")
	}
	var out []any
	for _, one := range list {
		value, problem := a.one(t, p, one)
		if problem != nil {
			return nil, problem
		}
		if value != nil && !holds(out, text(value), strings.EqualFold) {
			out = append(out, value)
		}
	}
	switch {
	case len(out) == 0:
		return nil, nil
	case p.Multiple:
		return out, nil
	}
	return out[0], nil
}

// one checks a single value: plain, or as the object that a read shows.
func (a *attio) one(_ *table, p *Property, v any) (any, *atProblem) {
	if v == nil || p.Type == anyType {
		return v, nil
	}
	kind := attioType(p)
	m, isObject := v.(map[string]any)
	if isObject && kind != "record-reference" && kind != "location" && kind != "personal-name" && kind != "actor-reference" {
		inner, has := m[atInner(kind)]
		if !has {
			return nil, atType(p, "a value or an object with "+atInner(kind))
		}
		v = inner
	}
	s, isText := v.(string)
	switch kind {
	case "record-reference":
		return a.reference(p, v)
	case "number", "currency", "rating":
		n, ok := v.(float64)
		if isText {
			var err error
			n, err = strconv.ParseFloat(s, 64)
			ok = err == nil
		}
		if !ok {
			return nil, atType(p, "a number")
		}
		return n, nil
	case "checkbox":
		b, ok := v.(bool)
		if !ok {
			return nil, atType(p, "a boolean")
		}
		return b, nil
	case "location":
		if !isObject && !isText {
			return nil, atType(p, "text or an object")
		}
		return v, nil
	case "actor-reference":
		if isObject {
			s, isText = m["referenced_actor_id"].(string)
		}
		if !isText {
			return nil, atType(p, "a workspace member")
		}
		return s, nil
	case "personal-name":
		if isObject {
			return atName(p, m)
		}
	}
	if !isText {
		return nil, atType(p, "text")
	}
	if s = strings.TrimSpace(s); s == "" {
		return nil, nil
	}
	return a.text(p, kind, s)
}

// text checks a value that is written as text.
func (a *attio) text(p *Property, kind, s string) (any, *atProblem) {
	switch kind {
	case "personal-name":
		if last, first, ok := strings.Cut(s, ","); ok {
			s = strings.TrimSpace(first) + " " + strings.TrimSpace(last)
		}
	case "email-address":
		if !plausibleEmail(s) {
			return nil, atType(p, "an e-mail address")
		}
		s = strings.ToLower(s)
	case "domain":
		if !strings.Contains(s, ".") || strings.ContainsAny(s, " @") {
			return nil, atType(p, "a domain")
		}
		s = strings.ToLower(s)
	case "date":
		if !isDate(s) {
			return nil, atType(p, "a date in the format YYYY-MM-DD")
		}
	case "timestamp":
		if !isTime(s) && !isDate(s) {
			return nil, atType(p, "a timestamp")
		}
	case "select", "status":
		if i := indexFold(p.Options, s); i >= 0 {
			return p.Options[i], nil
		} else if len(p.Options) > 0 {
			what := map[string]string{"select": "select option", "status": "status"}[kind]
			return nil, &atProblem{http.StatusBadRequest, "value_not_found", fmt.Sprintf(
				"Cannot find %s with title %q for attribute with slug/ID %q. Available: [%s]", what, s, p.Name, strings.Join(p.Options, ", "))}
		}
	}
	return s, nil
}

// reference finds the record that is meant: by id, by a value of one attribute, or by either way of the reference format,
// which may also make it. Except for the last, exactly one record has to be there.
func (a *attio) reference(p *Property, v any) (any, *atProblem) {
	m, ok := v.(map[string]any)
	if s, isText := v.(string); isText { // the shorthand of Attio's examples
		m, ok = atShorthand(p, s)
	}
	if !ok {
		return nil, atType(p, "a reference to a record")
	}
	target := a.store.named(attioName, text(m["target_object"]))
	if target == nil || !slices.Contains(p.targets(), target.object) {
		return nil, atType(p, "a reference with target_object "+p.Target)
	}
	if id, has := m["target_record_id"]; has {
		if target.live(text(id)) == nil {
			return nil, &atProblem{http.StatusBadRequest, "value_not_found", fmt.Sprintf("Cannot find record with ID %q in %s.", text(id), target.object)}
		}
		return text(id), nil
	}
	match, create, several := m, any(nil), ""
	if format, ok := m["target_record_reference"].(map[string]any); ok {
		match, _ = format["match"].(map[string]any)
		create, several = format["create"], text(format["if_multiple_matches"])
	}
	key, value, problem := a.matched(p, target, match)
	if problem != nil {
		return nil, problem
	}
	found := target.holders(key.Name, value)
	switch {
	case len(found) == 1, len(found) > 1 && several != "" && several != "error": // what else there is to say is assumed to mean the first
		return found[0].id, nil
	case len(found) > 1:
		return nil, &atProblem{http.StatusBadRequest, "multiple_match_results", fmt.Sprintf("More than one record in %s matches attribute %q.", target.object, key.Name)}
	case create == nil || create == false:
		return nil, &atProblem{http.StatusBadRequest, "value_not_found", fmt.Sprintf("Cannot find a record in %s by attribute %q with the value %q.", target.object, key.Name, value)}
	}
	return a.createReferenced(target, key, value, create)
}

// matched reads the one attribute and value that name a record.
func (a *attio) matched(p *Property, target *table, match fieldMap) (*Property, string, *atProblem) {
	var names []string
	for _, name := range sorted(match) {
		if name != "target_object" {
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		return nil, "", atType(p, "a reference that matches by exactly one attribute")
	}
	key := a.attribute(target, names[0])
	if key == nil {
		return nil, "", &atProblem{http.StatusBadRequest, "value_not_found", fmt.Sprintf("Cannot find attribute with slug/ID %q.", names[0])}
	}
	list := atList(match[names[0]])
	if len(list) != 1 {
		return nil, "", atType(p, "a reference that matches by exactly one value")
	}
	value, problem := a.one(target, key, list[0])
	if problem == nil && value == nil {
		problem = atType(p, "a reference that matches by exactly one value")
	}
	return key, text(value), problem
}

// createReferenced makes the record that a reference matches by, with further values. That these are given so is assumed.
func (a *attio) createReferenced(t *table, key *Property, value string, create any) (any, *atProblem) {
	values, _ := create.(map[string]any)
	if nested, ok := values["values"].(map[string]any); ok {
		values = nested
	}
	changes := fieldMap{key.Name: any(value)}
	if key.Multiple {
		changes[key.Name] = []any{value}
	}
	for _, name := range sorted(values) {
		p := a.attribute(t, name)
		if p == nil || p.Type == "lookup" {
			return nil, &atProblem{http.StatusBadRequest, "value_not_found", fmt.Sprintf("Cannot find attribute with slug/ID %q.", name)}
		}
		v, problem := a.value(t, p, values[name])
		if problem != nil {
			return nil, problem
		}
		changes[p.Name] = v
	}
	if problem := a.checkRecord(t, nil, changes); problem != nil {
		return nil, problem
	}
	return a.store.create(t, a.newID(t.object, a.store.nextID()), changes, a.server.options.Now()).id, nil
}

// atShorthand reads a person's address or a company's domain.
func atShorthand(p *Property, s string) (fieldMap, bool) {
	switch {
	case isGUID(s):
		return fieldMap{"target_object": p.Target, "target_record_id": s}, true
	case p.Target == "people" && strings.Contains(s, "@"):
		return fieldMap{"target_object": p.Target, "email_addresses": s}, true
	case p.Target == "companies":
		return fieldMap{"target_object": p.Target, "domains": s}, true
	}
	return nil, false
}

// atName joins the parts of a name.
func atName(p *Property, m fieldMap) (any, *atProblem) {
	first, ok := m["first_name"].(string)
	last, ok2 := m["last_name"].(string)
	if !ok && !ok2 {
		return nil, atType(p, "text or an object with first_name and last_name")
	}
	return strings.TrimSpace(first + " " + last), nil
}

// atInner is the key under which a read shows a value of a type.
func atInner(kind string) string {
	switch kind {
	case "email-address":
		return "email_address"
	case "phone-number":
		return "original_phone_number"
	case "domain":
		return "domain"
	case "currency":
		return "currency_value"
	case "select":
		return "option"
	case "status":
		return "status"
	}
	return "value"
}

func atType(p *Property, want string) *atProblem {
	return &atProblem{http.StatusBadRequest, "validation_type", fmt.Sprintf("Invalid value was passed to attribute with slug %q: expected %s.", p.Name, want)}
}

// show is a record as it is read: for every attribute the list of its values.
func (a *attio) show(t *table, r *record) fieldMap {
	values := fieldMap{}
	for _, name := range t.names {
		p := t.properties[name]
		list := []any{}
		for _, one := range atList(r.properties[name]) {
			list = append(list, a.showValue(p, one, r))
		}
		values[name] = list
	}
	return fieldMap{
		"id":         map[string]string{"workspace_id": a.workspace(), "object_id": t.typeID, "record_id": r.id},
		"created_at": r.created.UTC().Format(attioTime), "web_url": "https://app.attio.com/sandbox/" + t.object + "/" + r.id,
		"values": values,
	}
}

func (a *attio) showValue(p *Property, one any, r *record) fieldMap {
	kind := attioType(p)
	out := fieldMap{
		"active_from": r.updated.UTC().Format(attioTime), "active_until": nil, "attribute_type": kind,
		"created_by_actor": map[string]string{"type": "api-token", "id": guid(0xc11e, 1)},
	}
	switch kind {
	case "record-reference":
		out["target_object"], out["target_record_id"] = p.Target, one
	case "personal-name":
		first, last, _ := strings.Cut(text(one), " ")
		out["first_name"], out["last_name"], out["full_name"] = first, last, one
	case "email-address":
		local, domain, _ := strings.Cut(text(one), "@")
		out["email_address"], out["original_email_address"], out["email_local_specifier"], out["email_domain"] = one, one, local, domain
	case "domain":
		out["domain"], out["root_domain"] = one, one
	case "phone-number":
		out["phone_number"], out["original_phone_number"] = one, one
	case "currency":
		out["currency_value"], out["currency_code"] = one, "USD"
	case "select":
		out["option"] = map[string]any{"title": one, "is_archived": false}
	case "status":
		out["status"] = map[string]any{"title": one, "is_archived": false}
	case "actor-reference":
		out["referenced_actor_type"], out["referenced_actor_id"] = "workspace-member", one
	default:
		out["value"] = one
	}
	return out
}
