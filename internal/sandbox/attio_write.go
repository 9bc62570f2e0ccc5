package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// atMode is what becomes of the values that a multiselect attribute has.
type atMode int

const (
	atReplace atMode = iota
	atAppend
)

// create makes a record.
func (a *attio) create(c *call, t *table) reply {
	sent, bad := a.read(c)
	if bad != nil {
		return a.fail(bad)
	}
	return a.write(c, t, nil, sent, func(*Property) atMode { return atReplace })
}

// assert makes a record or changes the one that has a value of the matching attribute. Further values of that attribute are
// added to those that it has; other multiselect attributes get the values that are sent.
func (a *attio) assert(c *call, t *table) reply {
	name := c.query.Get("matching_attribute")
	key := a.attribute(t, name)
	switch {
	case name == "":
		return a.fail(&atProblem{http.StatusBadRequest, "missing_value", "The query parameter matching_attribute is required."}) // assumed
	case key == nil:
		return a.fail(&atProblem{http.StatusBadRequest, "value_not_found", fmt.Sprintf("No attribute was found for matching_attribute slug/ID %q.", name)})
	case !a.unique(t, key):
		return a.fail(&atProblem{http.StatusBadRequest, "matching_attribute_definition_not_unique", "The matching attribute specified is not a unique attribute."})
	}
	sent, bad := a.read(c)
	if bad != nil {
		return a.fail(bad)
	}
	value, problem := a.value(t, key, sent[key.Name])
	if problem == nil && value == nil {
		problem = &atProblem{http.StatusBadRequest, "missing_value", fmt.Sprintf("A value for the matching attribute %q is required.", key.Name)} // assumed
	}
	if problem != nil {
		return a.failRow(problem)
	}
	var found []*record
	for _, one := range atList(value) {
		if r := t.find(key.Name, text(one)); r != nil && !slices.Contains(found, r) {
			found = append(found, r)
		}
	}
	mode := func(p *Property) atMode {
		if p == key {
			return atAppend
		}
		return atReplace
	}
	switch len(found) {
	case 0:
		return a.write(c, t, nil, sent, mode)
	case 1:
		return a.write(c, t, found[0], sent, mode)
	}
	return a.failRow(&atProblem{http.StatusBadRequest, "multiple_match_results",
		fmt.Sprintf("More than one record matches the values of attribute %q.", key.Name)})
}

// serveRecord reads, changes or deletes a record by its id: PATCH adds to the values of multiselect attributes, PUT replaces
// them.
func (a *attio) serveRecord(c *call, t *table, id string) reply {
	r := t.live(strings.ToLower(id))
	if r == nil {
		return a.failRow(&atProblem{http.StatusNotFound, "not_found", fmt.Sprintf("Record with ID %q was not found.", id)})
	}
	switch c.method {
	case http.MethodGet:
		return jsonReply(http.StatusOK, map[string]any{"data": a.show(t, r)})
	case http.MethodDelete:
		a.store.archive(t, r, c.now)
		return reply{status: http.StatusOK, body: []byte("{}"), rows: 1}
	}
	sent, bad := a.read(c)
	if bad != nil {
		return a.fail(bad)
	}
	mode := atReplace
	if c.method == http.MethodPatch {
		mode = atAppend
	}
	return a.write(c, t, r, sent, func(*Property) atMode { return mode })
}

// write checks the values of a record and stores them. target is nil for a record that is to be made.
func (a *attio) write(c *call, t *table, target *record, sent fieldMap, mode func(*Property) atMode) reply {
	if r := a.store.refused(t, sent); r != nil {
		return a.failRow(&atProblem{orStatus(r.Status, http.StatusBadRequest), r.Code, r.Message})
	}
	if target != nil && target.locked > 0 {
		return a.failRow(&atProblem{http.StatusConflict, "merge_in_progress", "The record is being merged. Please try again."})
	}
	changes := fieldMap{}
	for _, name := range sorted(sent) {
		p := a.attribute(t, name)
		if p == nil {
			return a.failRow(&atProblem{http.StatusBadRequest, "value_not_found", fmt.Sprintf("Cannot find attribute with slug/ID %q.", name)})
		}
		if p.ReadOnly {
			return a.failRow(&atProblem{http.StatusBadRequest, "immutable_value", fmt.Sprintf("Attribute with slug/ID %q cannot be written.", name)})
		}
		value, problem := a.value(t, p, sent[name])
		if problem != nil {
			return a.failRow(problem)
		}
		if target != nil && p.Multiple && mode(p) == atAppend {
			value = atJoin(target.properties[p.Name], value)
		}
		changes[p.Name] = value
	}
	if problem := a.checkRecord(t, target, changes); problem != nil {
		return a.failRow(problem)
	}
	if target == nil {
		target = a.store.create(t, a.newID(t.object, a.store.nextID()), changes, c.now)
	} else {
		a.store.update(t, target, changes, c.now)
	}
	rep := jsonReply(http.StatusOK, map[string]any{"data": a.show(t, target)})
	rep.rows = 1
	return rep
}

// checkRecord checks what does not depend on one value alone: what is required, and what is unique.
func (a *attio) checkRecord(t *table, target *record, changes fieldMap) *atProblem {
	for _, name := range t.names {
		p := t.properties[name]
		value, sent := changes[name]
		if a.requires(t, p) && (sent && value == nil || !sent && target == nil) {
			return &atProblem{http.StatusBadRequest, "missing_value",
				fmt.Sprintf("Required value for attribute with ID %q (%s) was not provided.", a.attributeID(t, p), name)}
		}
		if !a.unique(t, p) {
			continue
		}
		for _, one := range atList(value) {
			if other := t.find(name, text(one)); other != nil && other != target {
				status := http.StatusConflict
				if a.server.varies(AttioConflict400) {
					status = http.StatusBadRequest
				}
				return &atProblem{status, "uniqueness_conflict", fmt.Sprintf(
					"The value %q provided for attribute with ID %q (%s) conflicts with one already in the system. Conflicting record IDs: %s",
					text(one), a.attributeID(t, p), name, other.id)}
			}
		}
	}
	return nil
}

// read takes the values out of a body, which holds nothing else.
func (a *attio) read(c *call) (fieldMap, *atProblem) {
	var in struct {
		Data map[string]any `json:"data"`
	}
	if err := parse(c.body, &in); err != nil {
		return nil, &atProblem{http.StatusBadRequest, "validation_type", "Body payload validation error: " + whyNot(err)}
	}
	values, ok := in.Data["values"].(map[string]any)
	if !ok || len(in.Data) != 1 {
		return nil, &atProblem{http.StatusBadRequest, "validation_type", "Body payload validation error: data takes values and nothing else."}
	}
	return values, nil
}

func (a *attio) failRow(p *atProblem) reply {
	rep := a.fail(p)
	rep.rows = 1
	return rep
}

// createExtra makes a note or a task, which are no records of an object.
func (a *attio) createExtra(c *call, kind string) reply {
	t := a.store.table(attioName, kind)
	var in struct {
		Data fieldMap `json:"data"`
	}
	if err := parse(c.body, &in); err != nil || in.Data == nil {
		return a.fail(&atProblem{http.StatusBadRequest, "validation_type", "Body payload validation error: " + whyNot(err)})
	}
	if r := a.store.refused(t, in.Data); r != nil {
		return a.failRow(&atProblem{orStatus(r.Status, http.StatusBadRequest), r.Code, r.Message})
	}
	if problem := a.checkExtra(t, in.Data); problem != nil {
		return a.failRow(problem)
	}
	for _, name := range t.names {
		if _, sent := in.Data[name]; t.properties[name].Required && !sent {
			return a.failRow(atMember(name, "is required"))
		}
	}
	if problem := a.checkParents(kind, in.Data); problem != nil {
		return a.failRow(problem)
	}
	return a.showExtra(a.store.create(t, a.newID(kind, a.store.nextID()), in.Data, c.now), kind)
}

// serveExtra reads, deletes, or of tasks changes one of these.
func (a *attio) serveExtra(c *call, kind, id string) reply {
	t := a.store.table(attioName, kind)
	r := t.live(strings.ToLower(id))
	switch {
	case c.method != http.MethodGet && c.method != http.MethodDelete && (c.method != http.MethodPatch || kind != "tasks"):
		return a.refusal(c, http.StatusMethodNotAllowed, "")
	case r == nil:
		return a.failRow(&atProblem{http.StatusNotFound, "not_found", fmt.Sprintf("%s with ID %q was not found.", kind, id)})
	case c.method == http.MethodGet:
		return a.showExtra(r, kind)
	case c.method == http.MethodDelete:
		a.store.archive(t, r, c.now)
		return reply{status: http.StatusOK, body: []byte("{}"), rows: 1}
	}
	var in struct {
		Data fieldMap `json:"data"`
	}
	if err := parse(c.body, &in); err != nil || in.Data == nil {
		return a.fail(&atProblem{http.StatusBadRequest, "validation_type", "Body payload validation error: " + whyNot(err)})
	}
	for _, fixed := range []string{"content", "format"} {
		if _, sent := in.Data[fixed]; sent {
			return a.failRow(&atProblem{http.StatusBadRequest, "validation_type", "Body payload validation error: unrecognised key " + fixed})
		}
	}
	problem := a.checkExtra(t, in.Data)
	if problem == nil {
		problem = a.checkParents(kind, in.Data)
	}
	if problem != nil {
		return a.failRow(problem)
	}
	a.store.update(t, r, in.Data, c.now)
	return a.showExtra(r, kind)
}

// checkExtra checks the members of a note or a task, each of which has one type and no other.
func (a *attio) checkExtra(t *table, data fieldMap) *atProblem {
	for _, name := range sorted(data) {
		p := t.properties[name]
		if p == nil {
			return atMember(name, "is not recognised")
		}
		s, isText := data[name].(string)
		_, isBool := data[name].(bool)
		_, isList := data[name].([]any)
		switch {
		case p.Type == "list" && !isList:
			return atMember(name, "must be an array")
		case p.Type == "bool" && !isBool:
			return atMember(name, "must be a boolean")
		case p.Type == "datetime" && data[name] != nil && (!isText || !isTime(s) && !isDate(s)):
			return atMember(name, "must be a timestamp")
		case p.Type == "enumeration" && !slices.Contains(p.Options, s):
			return atMember(name, "must be one of "+strings.Join(p.Options, ", "))
		case p.Type == "string" && !isText:
			return atMember(name, "must be a string")
		}
	}
	return nil
}

func atMember(name, why string) *atProblem {
	return &atProblem{http.StatusBadRequest, "validation_type", "Body payload validation error: " + name + " " + why}
}

func (a *attio) showExtra(r *record, kind string) reply {
	data := r.copied()
	data["id"] = map[string]string{"workspace_id": a.workspace(), strings.TrimSuffix(kind, "s") + "_id": r.id}
	data["created_at"] = r.created.UTC().Format(attioTime)
	rep := jsonReply(http.StatusOK, map[string]any{"data": data})
	rep.rows = 1
	return rep
}

// checkParents looks for the records that a note or a task belongs to.
func (a *attio) checkParents(kind string, data fieldMap) *atProblem {
	parents := [][2]string{{text(data["parent_object"]), text(data["parent_record_id"])}}
	if kind == "tasks" {
		parents = nil // of an update there may be none
		list, _ := data["linked_records"].([]any)
		for _, one := range list {
			m, _ := one.(map[string]any)
			parents = append(parents, [2]string{text(m["target_object"]), text(m["target_record_id"])})
		}
	}
	for _, parent := range parents {
		t := a.store.named(attioName, parent[0])
		if t == nil || t.live(parent[1]) == nil {
			return &atProblem{http.StatusNotFound, "not_found", fmt.Sprintf("Record with ID %q was not found.", parent[1])}
		}
	}
	return nil
}

// atList is a stored value as a list.
func atList(value any) []any {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{value}
}

// atJoin adds values to those that are there.
func atJoin(old, more any) any {
	out := slices.Clone(atList(old))
	for _, one := range atList(more) {
		if !holds(out, text(one), strings.EqualFold) {
			out = append(out, one)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
