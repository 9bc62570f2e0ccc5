package sandbox

import (
	"fmt"
	"strconv"
	"strings"
)

// check turns the fields that a client sends for a record into changes, or says what is wrong. target is nil for a record
// that is to be made. The caller holds the store.
func (f *salesforce) check(t *table, target *record, sent fieldMap) (fieldMap, *sfError) {
	changes := fieldMap{}
	for _, name := range sorted(sent) {
		if strings.EqualFold(name, "attributes") {
			continue
		}
		if nested, ok := sent[name].(map[string]any); ok {
			p := f.relationship(t, name)
			if p == nil {
				return nil, noColumn(t, name)
			}
			id, err := f.parent(p, nested)
			if err != nil {
				return nil, err
			}
			changes[p.Name] = id
			continue
		}
		p := t.property(name)
		if p == nil {
			return nil, noColumn(t, name)
		}
		if p.ReadOnly {
			return nil, &sfError{"INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: " + p.Name + ". Please check the " +
				"security settings of this field and verify that it is read/write for your profile or permission set.", []string{p.Name}}
		}
		value, err := f.value(p, sent[name])
		if err != nil {
			return nil, err
		}
		changes[p.Name] = value
	}
	if target != nil && target.properties[sfConverted] == true {
		return nil, &sfError{"CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", nil}
	}
	return changes, f.checkRecord(t, target, changes)
}

// checkRecord checks what does not depend on one value alone: what is required, locked and unique.
func (f *salesforce) checkRecord(t *table, target *record, changes fieldMap) *sfError {
	var lacks []string
	for _, name := range t.names {
		value, sent := changes[name]
		if t.properties[name].Required && (sent && blank(value) || !sent && target == nil) {
			lacks = append(lacks, name)
		}
	}
	if len(lacks) > 0 {
		return &sfError{"REQUIRED_FIELD_MISSING", "Required fields are missing: [" + strings.Join(lacks, ", ") + "]", lacks}
	}
	if err := f.checkLocks(t, target, changes); err != nil {
		return err
	}
	for _, k := range t.keys {
		for _, other := range t.holders(k.Name, text(changes[k.Name])) {
			if other != target {
				return &sfError{"DUPLICATE_VALUE", fmt.Sprintf("duplicate value found: %s duplicates value on record with id: %s",
					k.Name, other.id), []string{}}
			}
		}
	}
	return nil
}

// checkLocks refuses a write to a locked record, and one to a record whose parent is locked.
func (f *salesforce) checkLocks(t *table, target *record, changes fieldMap) *sfError {
	locked := &sfError{"UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records", []string{}}
	if target != nil && target.locked > 0 {
		return locked
	}
	for name, value := range changes {
		p := t.properties[name]
		if p == nil || p.Type != "lookup" || blank(value) {
			continue
		}
		for _, object := range p.targets() {
			parent := f.store.table(salesforceName, object)
			if r := parent.live(text(value)); r != nil && r.locked > 0 {
				locked.message += ": " + r.id
				return locked
			}
		}
	}
	return nil
}

// value checks one value by the type of its field. Text is not taken for a number that is none, nor a number for text.
// That numbers may be written as text is assumed.
func (f *salesforce) value(p *Property, v any) (any, *sfError) {
	if blank(v) {
		return nil, nil
	}
	if p.Type == anyType {
		return v, nil
	}
	bad := func(kind string) (any, *sfError) {
		return nil, &sfError{"JSON_PARSER_ERROR", fmt.Sprintf(
			"Cannot deserialize instance of %s from %s value %s or request may be missing a required field at [line:1, column:2]",
			kind, sfToken(v), shorten(text(v), 80)), nil}
	}
	s, isText := v.(string)
	switch p.Type {
	case "number", "integer":
		n, ok := v.(float64)
		if isText {
			var err error
			n, err = strconv.ParseFloat(s, 64)
			ok = err == nil
		}
		if !ok {
			return bad("double")
		}
		return n, nil
	case "bool":
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return bad("boolean")
	case "date":
		if isText && isDate(s) {
			return s, nil
		}
		return bad("date")
	case "datetime":
		if isText && (isTime(s) || isDate(s)) {
			return s, nil
		}
		return bad("datetime")
	case "lookup":
		if !isText {
			return bad("reference")
		}
		return f.reference(p, s)
	}
	if !isText {
		return bad("string")
	}
	return sfText(p, s)
}

// sfText checks text by its length, the values of a restricted picklist, and the form of an address.
func sfText(p *Property, s string) (any, *sfError) {
	switch {
	case p.MaxLength > 0 && len([]rune(s)) > p.MaxLength:
		return nil, &sfError{"STRING_TOO_LONG", fmt.Sprintf("%s: data value too large: %s (max length=%d)", p.Label, shorten(s, 80), p.MaxLength),
			[]string{p.Name}}
	case p.Name == "Email" && !plausibleEmail(s):
		return nil, &sfError{"INVALID_EMAIL_ADDRESS", p.Label + ": invalid email address: " + s, []string{p.Name}}
	case p.Type != "enumeration" || len(p.Options) == 0:
		return s, nil
	}
	chosen := []string{s}
	if p.FieldType == "checkbox" {
		chosen = strings.Split(s, ";") // a multi-select picklist
	}
	for _, one := range chosen {
		i := indexFold(p.Options, one)
		if i < 0 {
			return nil, &sfError{"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", fmt.Sprintf("%s: bad value for restricted picklist field: %s", p.Label, one),
				[]string{p.Name}}
		}
	}
	return s, nil
}

// reference checks the id of a parent.
func (f *salesforce) reference(p *Property, id string) (any, *sfError) {
	if len(id) != 15 && len(id) != 18 {
		return nil, &sfError{"MALFORMED_ID", p.Label + ": id value of incorrect type: " + shorten(id, 40), []string{p.Name}}
	}
	id = sfLongID(id)
	for _, object := range p.targets() {
		t := f.store.table(salesforceName, object)
		if t == nil || t.byID[id] == nil {
			continue
		}
		if t.byID[id].archived {
			return nil, &sfError{"ENTITY_IS_DELETED", "entity is deleted", []string{}}
		}
		return id, nil
	}
	return nil, &sfError{"INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", []string{}}
}

// relationship finds the lookup that a nested object stands for.
func (f *salesforce) relationship(t *table, name string) *Property {
	for _, n := range t.names {
		if p := t.properties[n]; p.Type == "lookup" && strings.EqualFold(sfRelationship(n), name) {
			return p
		}
	}
	return nil
}

// parent finds the record that a nested object names by one external id. Where the lookup may refer to several objects, the
// attributes have to say which.
func (f *salesforce) parent(p *Property, nested fieldMap) (string, *sfError) {
	object := p.targets()
	kind := ""
	if attributes, ok := nested["attributes"].(map[string]any); ok {
		kind, _ = attributes["type"].(string)
	}
	if i := indexFold(object, kind); kind != "" && i >= 0 {
		object = object[i : i+1]
	}
	if len(object) != 1 || kind != "" && indexFold(object, kind) < 0 {
		return "", &sfError{"INVALID_FIELD", "The relationship " + sfRelationship(p.Name) + " needs attributes with one of the types: " +
			strings.Join(p.targets(), ", "), []string{}}
	}
	var names []string
	for _, name := range sorted(nested) {
		if name != "attributes" {
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		return "", &sfError{"INVALID_FIELD", "More than 1 field provided in an external foreign key reference in entity: " + object[0], []string{}}
	}
	t := f.store.table(salesforceName, object[0])
	if t == nil {
		return "", &sfError{"INVALID_TYPE", "sObject type '" + object[0] + "' is not supported.", []string{}}
	}
	if strings.EqualFold(names[0], sfID) {
		id, err := f.reference(p, text(nested[names[0]]))
		if err != nil {
			return "", err
		}
		return id.(string), nil
	}
	key := t.property(names[0])
	if key == nil {
		return "", noColumn(t, names[0])
	}
	if !key.Unique && !key.External {
		return "", &sfError{"INVALID_FIELD", "Field name provided, " + key.Name + " does not match an External ID, Salesforce Id, or indexed field for " + t.object, []string{}}
	}
	value := text(nested[names[0]])
	found := t.holders(key.Name, value)
	switch len(found) {
	case 1:
		return found[0].id, nil
	case 0: // the code and the text are those that integrations report
		return "", &sfError{"INVALID_FIELD", fmt.Sprintf("Foreign key external ID: %s not found for field %s in entity %s", value, key.Name, t.object), []string{}}
	}
	return "", &sfError{"INVALID_FIELD", fmt.Sprintf("Foreign key external ID: %s matched more than one record for field %s in entity %s",
		value, key.Name, t.object), []string{}} // assumed
}

func noColumn(t *table, name string) *sfError {
	return &sfError{"INVALID_FIELD", fmt.Sprintf("No such column '%s' on sobject of type %s", name, t.object), nil}
}

// sfToken names a JSON value as Salesforce's parser does.
func sfToken(v any) string {
	switch v := v.(type) {
	case string:
		return "VALUE_STRING"
	case bool:
		return "VALUE_" + strings.ToUpper(strconv.FormatBool(v))
	case float64:
		if _, ok := whole(v); ok {
			return "VALUE_NUMBER_INT"
		}
		return "VALUE_NUMBER_FLOAT"
	case []any:
		return "START_ARRAY"
	}
	return "START_OBJECT"
}

func indexFold(all []string, one string) int {
	for i, s := range all {
		if strings.EqualFold(s, one) {
			return i
		}
	}
	return -1
}
