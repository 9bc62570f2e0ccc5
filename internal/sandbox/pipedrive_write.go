package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// pdProblem is what is wrong with a request.
type pdProblem struct {
	status  int
	message string
	code    string
}

func (p *pipedrive) create(c *call, t *table) reply {
	sent, bad := p.read(c)
	if bad != nil {
		return *bad
	}
	changes, problem := p.check(t, nil, sent)
	if problem != nil {
		return p.failRow(problem)
	}
	if t.object == "deals" {
		for name, value := range map[string]any{"status": "open", "currency": "USD"} {
			if blank(changes[name]) {
				changes[name] = value
			}
		}
	}
	r := p.store.create(t, p.newID(t.object, p.store.nextID()), changes, c.now)
	rep := p.succeed(http.StatusCreated, p.show(t, r, nil))
	rep.rows = 1
	return rep
}

func (p *pipedrive) update(c *call, t *table, id string) reply {
	sent, bad := p.read(c)
	if bad != nil {
		return *bad
	}
	r := t.live(id)
	if r == nil {
		return p.notFound(t)
	}
	changes, problem := p.check(t, r, sent)
	if problem != nil {
		return p.failRow(problem)
	}
	p.store.update(t, r, changes, c.now)
	rep := p.succeed(http.StatusOK, p.show(t, r, nil))
	rep.rows = 1
	return rep
}

func (p *pipedrive) remove(c *call, t *table, id string) reply {
	r := t.live(id)
	if r == nil {
		return p.notFound(t)
	}
	p.store.archive(t, r, c.now)
	rep := p.succeed(http.StatusOK, map[string]any{"id": pdID(t.object, id)})
	rep.rows = 1
	return rep
}

// notFound is what a deleted record answers too, and one that was merged into another. The text is assumed.
func (p *pipedrive) notFound(t *table) reply {
	name := strings.ToUpper(t.typeID[:1]) + t.typeID[1:]
	rep := p.fail(http.StatusNotFound, name+" not found", "ERR_NOT_FOUND")
	rep.rows = 1
	return rep
}

func (p *pipedrive) failRow(problem *pdProblem) reply {
	rep := p.fail(problem.status, problem.message, problem.code)
	rep.rows = 1
	return rep
}

func (p *pipedrive) read(c *call) (fieldMap, *reply) {
	var sent fieldMap
	if err := parse(c.body, &sent); err != nil || sent == nil {
		rep := p.fail(http.StatusBadRequest, "Bad request: "+whyNot(err), "ERR_BAD_REQUEST")
		return nil, &rep
	}
	return sent, nil
}

// check turns what a client sends into changes. v2 is strict: it refuses fields that it does not know, custom fields outside
// of custom_fields, and values of another JSON type.
func (p *pipedrive) check(t *table, target *record, sent fieldMap) (fieldMap, *pdProblem) {
	if r := p.store.refused(t, pdFlat(sent)); r != nil {
		return nil, &pdProblem{orStatus(r.Status, http.StatusBadRequest), r.Message, r.Code}
	}
	if target != nil && target.locked > 0 {
		return nil, &pdProblem{http.StatusLocked, "The record is locked", "ERR_LOCKED"} // assumed
	}
	changes := fieldMap{}
	var wrong []string
	set := func(name, path string, value any) {
		property := t.properties[name]
		v, why := p.value(property, value, pipedriveStandard(t.object, name))
		if why != "" {
			wrong = append(wrong, path+": "+why)
		}
		changes[name] = v
	}
	unknown := func(path, name string) {
		wrong = append(wrong, path+": Parameter '"+name+"' is not allowed for this request")
	}
	for _, name := range sorted(sent) {
		custom, nested := sent[name].(map[string]any)
		switch {
		case name == "custom_fields" && nested && t.object != "leads" && t.object != "notes":
			for _, key := range sorted(custom) {
				if t.properties[key] == nil || pipedriveStandard(t.object, key) {
					unknown(name, key)
					continue
				}
				set(key, name+"."+key, custom[key])
			}
		case t.properties[name] == nil || t.object != "leads" && !pipedriveStandard(t.object, name):
			unknown(name, name)
		case t.object == "persons" && slices.Contains(pipedriveSynced(), name) && !p.server.varies(PipedriveContactSync):
			return nil, &pdProblem{http.StatusForbidden, "The field " + name + " can be used only where Contact Sync is on", "ERR_FORBIDDEN"}
		default:
			set(name, name, sent[name])
		}
	}
	if len(wrong) == 0 {
		wrong = p.checkRecord(t, target, changes)
	}
	if len(wrong) > 0 {
		return nil, &pdProblem{http.StatusBadRequest, "Validation failed: " + strings.Join(wrong, "; "), "ERR_SCHEMA_VALIDATION_FAILED"}
	}
	return changes, nil
}

// checkRecord checks what does not depend on one value alone. The texts are assumed.
func (p *pipedrive) checkRecord(t *table, target *record, changes fieldMap) (wrong []string) {
	now := func(name string) any {
		if v, sent := changes[name]; sent || target == nil {
			return v
		}
		return target.properties[name]
	}
	for _, name := range t.names {
		if t.properties[name].Required && blank(now(name)) {
			wrong = append(wrong, name+": Parameter '"+name+"' is required")
		}
	}
	switch t.object {
	case "deals":
		wrong = append(wrong, p.checkDeal(t, changes, now)...)
	case "leads":
		if now("person_id") == nil && now("organization_id") == nil {
			wrong = append(wrong, "A lead must be linked to a person or an organization")
		}
	case "notes":
		if now("deal_id") == nil && now("person_id") == nil && now("org_id") == nil && now("lead_id") == nil {
			wrong = append(wrong, "One of deal_id, lead_id, person_id, org_id is required")
		}
	}
	return wrong
}

// checkDeal holds a stage against the pipelines; a stage implies its pipeline.
func (p *pipedrive) checkDeal(t *table, changes fieldMap, now func(string) any) (wrong []string) {
	if now("stage_id") == nil {
		stages := t.pipelines
		for _, one := range t.pipelines {
			if one.ID == text(now("pipeline_id")) {
				stages = []Pipeline{one}
			}
		}
		changes["stage_id"], _ = strconv.ParseFloat(stages[0].Stages[0].ID, 64)
	}
	found := false
	for _, one := range t.pipelines {
		for _, s := range one.Stages {
			if s.ID == text(now("stage_id")) {
				found = true
				changes["pipeline_id"], _ = strconv.ParseFloat(one.ID, 64)
			}
		}
	}
	if !found {
		wrong = append(wrong, "stage_id: Stage not found")
	}
	if !blank(changes["lost_reason"]) && now("status") != "lost" {
		wrong = append(wrong, "lost_reason: Parameter 'lost_reason' is allowed only for lost deals")
	}
	return wrong
}

// value checks one value by the type of its field, or says what is wrong. Null clears, an empty array does not.
func (p *pipedrive) value(property *Property, v any, standard bool) (value any, why string) {
	must := func(what string) (any, string) {
		return nil, fmt.Sprintf("Parameter '%s' must be %s", property.Name, what)
	}
	if v == nil || property.Type == anyType {
		return v, ""
	}
	s, isText := v.(string)
	switch property.Type {
	case "number":
		if _, ok := v.(float64); !ok {
			return must("a number")
		}
	case "integer":
		if _, ok := whole(v); !ok {
			return must("an integer")
		}
	case "lookup":
		return p.reference(property, v)
	case "bool":
		if _, ok := v.(bool); !ok {
			return must("a boolean")
		}
	case "flag": // of v1
		if n, ok := whole(v); !ok || n != 0 && n != 1 {
			return must("0 or 1")
		}
	case "date":
		if !isText || !isDate(s) {
			return must("a date in the format YYYY-MM-DD")
		}
	case "datetime":
		if !isText || !isTime(s) {
			return must("a valid datetime")
		}
	case "enumeration":
		if standard {
			if !isText || !slices.Contains(property.Options, s) {
				return must("one of [" + strings.Join(property.Options, ", ") + "]")
			}
			return v, ""
		}
		return p.option(property, v)
	case "contacts":
		return v, pdContacts(property.Name, v)
	case "money":
		m, _ := v.(map[string]any)
		_, amount := m["amount"].(float64)
		_, currency := m["currency"].(string)
		if !amount || !currency || len(m) != 2 {
			return must("an object with amount and currency")
		}
	case "list":
		if _, ok := v.([]any); !ok {
			return must("an array")
		}
	case "object":
		if _, ok := v.(map[string]any); !ok {
			return must("an object")
		}
	default:
		if !isText {
			return must("a string")
		}
		if !standard && utf8.RuneCountInString(s) > pipedriveText {
			return must(fmt.Sprintf("no longer than %d characters", pipedriveText))
		}
	}
	return v, ""
}

// option checks the options of a custom field, which go by their numbers: that which an option is spelt as, else its place.
func (p *pipedrive) option(property *Property, v any) (any, string) {
	known := func(one any) bool {
		n, ok := whole(one)
		return ok && (len(property.Options) == 0 || slices.Contains(pdOptions(property), int(n)))
	}
	if !property.Multiple && property.FieldType != "checkbox" {
		if !known(v) {
			return nil, "Parameter '" + property.Name + "' must be the id of an option"
		}
		return v, ""
	}
	several, ok := v.([]any)
	if !ok || len(several) == 0 || slices.ContainsFunc(several, func(one any) bool { return !known(one) }) {
		return nil, "Parameter '" + property.Name + "' must be an array of ids of options, or null"
	}
	return v, ""
}

// reference checks the id of another record: an integer, but for leads. That one which is not there is refused so is assumed.
func (p *pipedrive) reference(property *Property, v any) (any, string) {
	var id string
	if property.Target == "leads" {
		id, _ = v.(string)
	} else if n, ok := whole(v); ok {
		id = strconv.FormatInt(n, 10)
	}
	if id == "" {
		return nil, "Parameter '" + property.Name + "' must be an integer"
	}
	if p.store.table(pipedriveName, property.Target).live(id) == nil {
		return nil, "The record that parameter '" + property.Name + "' refers to was not found"
	}
	return v, ""
}

// pdContacts checks addresses or phone numbers: a value each, perhaps a label, and whether it is the primary one.
func pdContacts(name string, v any) string {
	list, ok := v.([]any)
	if !ok {
		return "Parameter '" + name + "' must be an array"
	}
	for _, one := range list {
		m, ok := one.(map[string]any)
		if _, isText := m["value"].(string); !ok || !isText {
			return "Parameter '" + name + "' must hold objects with a value"
		}
		for key, value := range m {
			_, isText := value.(string)
			_, isBool := value.(bool)
			if key == "primary" && !isBool || (key == "label" || key == "value") && !isText || !slices.Contains([]string{"primary", "label", "value"}, key) {
				return "Parameter '" + name + "' must hold objects with value, primary and label"
			}
		}
	}
	return ""
}

// pdOptions are the ids of a custom field's options.
func pdOptions(property *Property) []int {
	out := make([]int, len(property.Options))
	for i, o := range property.Options {
		out[i] = atoi(o, i+1)
	}
	return out
}

// pdFlat lays the custom fields beside the others.
func pdFlat(sent fieldMap) fieldMap {
	out := fieldMap{}
	for name, v := range sent {
		if custom, ok := v.(map[string]any); ok && name == "custom_fields" {
			for key, value := range custom {
				out[key] = value
			}
			continue
		}
		out[name] = v
	}
	return out
}

// pdID is an id as JSON has it.
func pdID(object, id string) any {
	if object == "leads" {
		return id
	}
	n, _ := strconv.ParseInt(id, 10, 64)
	return n
}
