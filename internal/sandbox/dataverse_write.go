package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// dvAddress is a row's key in a path: its id, or a value of an alternate key.
type dvAddress struct {
	id       string
	property string
	value    string
	spelt    string // as it stands between the parentheses
}

// dvForbidden are the characters that do not work in the value of a key.
const dvForbidden = `/<>*%&:\?+`

// address reads a key, the opening parenthesis already cut off.
func (d *dataverse) address(t *table, s string) (dvAddress, *dvError) {
	syntax := &dvError{http.StatusBadRequest, "0x8006088a", "Bad Request - Error in query syntax."}
	s, ok := strings.CutSuffix(s, ")")
	if !ok {
		return dvAddress{}, syntax
	}
	if isGUID(s) {
		return dvAddress{id: strings.ToLower(s), spelt: s}, nil
	}
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return dvAddress{}, syntax
	}
	p := t.properties[name]
	if p == nil || !p.Unique || p.Indexing {
		resource := "Microsoft.Dynamics.CRM." + t.typeID
		return dvAddress{}, &dvError{http.StatusBadRequest, "0x8006088a", "The key in the request URI is not valid for resource '" + resource +
			"'. Ensure that the names and number of key properties match the declared or alternate key properties for the resource '" + resource + "'."}
	}
	if p.Type == "number" || p.Type == "integer" {
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			return dvAddress{}, syntax
		}
		return dvAddress{property: name, value: value, spelt: s}, nil
	}
	if len(value) < 2 || value[0] != '\'' || value[len(value)-1] != '\'' {
		return dvAddress{}, syntax
	}
	value = value[1 : len(value)-1]
	plain := strings.ReplaceAll(value, "''", "")
	if strings.ContainsAny(value, dvForbidden) || strings.Contains(plain, "'") || value == "" {
		return dvAddress{}, syntax
	}
	return dvAddress{property: name, value: strings.ReplaceAll(value, "''", "'"), spelt: s}, nil
}

// find returns the live row that an address names, or nil.
func (d *dataverse) find(t *table, a dvAddress) *record {
	if a.id != "" {
		return t.live(a.id)
	}
	return t.find(a.property, a.value)
}

func (d *dataverse) notThere(t *table, a dvAddress) *dvError {
	if a.id != "" {
		return &dvError{http.StatusNotFound, "0x80040217", fmt.Sprintf("%s With Id = %s Does Not Exist", t.typeID, a.id)}
	}
	return &dvError{http.StatusNotFound, "0x80060891", "A record with the specified key values does not exist in " + t.typeID + " entity"}
}

// create makes a row.
func (d *dataverse) create(c *call, t *table) reply {
	sent, bad := d.read(c)
	if bad != nil {
		return d.fail(bad)
	}
	r, err := d.write(c, t, nil, "", sent)
	if err != nil {
		return d.failRow(err)
	}
	return d.written(c, t, r, dvAddress{id: r.id, spelt: r.id}, true)
}

// upsert changes the row that the key names, or makes it: the headers If-Match and If-None-Match rule out the one or the other.
func (d *dataverse) upsert(c *call, t *table, a dvAddress) reply {
	sent, bad := d.read(c)
	if bad != nil {
		return d.fail(bad)
	}
	target := d.find(t, a)
	switch {
	case target == nil && c.header.Get("If-Match") != "":
		return d.failRow(d.notThere(t, a))
	case target != nil && c.header.Get("If-None-Match") == "*":
		return d.failRow(&dvError{http.StatusPreconditionFailed, "0x80040237", "A record with matching key values already exists."})
	}
	r, err := d.upsertRow(c, t, a, sent)
	if err != nil {
		return d.failRow(err)
	}
	return d.written(c, t, r, a, target == nil)
}

func (d *dataverse) upsertRow(c *call, t *table, a dvAddress, sent fieldMap) (*record, *dvError) {
	if _, has := sent[a.property]; has && a.property != "" { // that it is refused is assumed: the documentation says to leave it out
		return nil, &dvError{http.StatusBadRequest, "0x80048d19", "The key property '" + a.property + "' cannot be in the body of a request that is addressed by it."}
	}
	target := d.find(t, a)
	if target == nil && a.property != "" {
		keyed := fieldMap{a.property: a.value}
		if n, err := strconv.ParseFloat(a.value, 64); err == nil && t.properties[a.property].Type != "string" {
			keyed[a.property] = n
		}
		for name, v := range sent {
			keyed[name] = v
		}
		sent = keyed
	}
	return d.write(c, t, target, a.id, sent)
}

// upsertMultiple upserts all rows of a body or none.
func (d *dataverse) upsertMultiple(c *call, t *table) reply {
	var in struct {
		Targets []fieldMap `json:"Targets"`
	}
	if err := parse(c.body, &in); err != nil {
		return d.fail(&dvError{http.StatusBadRequest, "0x80048d19", "Error identified in Payload provided by the user: " + whyNot(err)})
	}
	var changes []undo
	for _, sent := range in.Targets {
		set, key, _ := strings.Cut(text(sent["@odata.id"]), "(")
		err := &dvError{http.StatusBadRequest, "0x80048d19", "Every target needs an @odata.id of the set " + t.object + "."}
		if strings.TrimPrefix(set, "/") == t.object {
			var a dvAddress
			if a, err = d.address(t, key); err == nil {
				before := undo{table: t}
				if r := d.find(t, a); r != nil {
					before = note(t, r)
				}
				before.record, err = d.upsertRow(c, t, a, sent)
				if err == nil {
					changes = append(changes, before)
					continue
				}
			}
		}
		d.store.takeBack(changes)
		rep := d.fail(err)
		rep.rows = len(in.Targets)
		return rep
	}
	rep := reply{status: http.StatusNoContent, rows: len(in.Targets)}
	rep.set("OData-Version", "4.0")
	return rep
}

// write checks the values of a row and stores them. target is nil for a row that is to be made, perhaps with an id.
func (d *dataverse) write(c *call, t *table, target *record, id string, sent fieldMap) (*record, *dvError) {
	if r := d.store.refused(t, sent); r != nil {
		return nil, &dvError{orStatus(r.Status, http.StatusBadRequest), r.Code, r.Message}
	}
	if target != nil && target.locked > 0 { // the status is assumed
		return nil, &dvError{http.StatusInternalServerError, "0x80044150", "Generic SQL error. CRM ErrorCode: -2147204784 Sql ErrorCode: -2146232060 Sql Number: 1205"}
	}
	changes, err := d.check(t, target, sent)
	if err != nil {
		return nil, err
	}
	for _, k := range t.keys {
		for _, other := range t.holders(k.Name, text(changes[k.Name])) {
			if other != target {
				return nil, &dvError{http.StatusPreconditionFailed, "0x80060892", "A record that has the attribute values " + k.Label +
					" already exists. The entity key " + k.Label + " requires that this set of attributes contains unique values. Select unique values and try again."}
			}
		}
	}
	if target != nil {
		d.store.update(t, target, changes, c.now)
		return target, nil
	}
	if id == "" {
		id = d.newID(t.object, d.store.nextID())
	}
	return d.store.create(t, id, changes, c.now), nil
}

// check turns what a client sends into changes.
func (d *dataverse) check(t *table, target *record, sent fieldMap) (fieldMap, *dvError) {
	changes := fieldMap{}
	for _, name := range sorted(sent) {
		if bound, ok := strings.CutSuffix(name, "@odata.bind"); ok {
			p := t.properties[bound] // the case matters
			if p == nil || p.Type != "lookup" {
				return nil, d.payload(t, "An undeclared property '"+bound+"' which only has property annotations in the payload but no property value was found in the payload. In OData, only declared navigation properties and declared named streams can be represented as properties without values.")
			}
			id, err := d.bind(p, sent[name])
			if err != nil {
				return nil, err
			}
			changes[bound] = id
			continue
		}
		if strings.Contains(name, "@") || name == d.primary(t) {
			continue
		}
		p := t.properties[name]
		if p == nil {
			return nil, d.payload(t, "Invalid property '"+name+"' was found in entity 'Microsoft.Dynamics.CRM."+t.typeID+"'.")
		}
		if p.Type == "lookup" {
			return nil, &dvError{http.StatusBadRequest, "0x80048d19", "CRM do not support direct update of Entity Reference properties, Use Navigation properties instead."}
		}
		if p.ReadOnly {
			continue // Dataverse leaves such columns alone
		}
		value, err := d.value(t, p, sent[name])
		if err != nil {
			return nil, err
		}
		changes[name] = value
	}
	for _, name := range t.names { // Dataverse itself requires little; a plug-in is what says so
		if value, has := changes[name]; t.properties[name].Required && (has && blank(value) || !has && target == nil) {
			return nil, &dvError{http.StatusBadRequest, "0x80040265", "The column " + name + " is required."}
		}
	}
	return changes, nil
}

// value checks one value by the type of its column. A number is not taken for text, nor text for a number.
func (d *dataverse) value(t *table, p *Property, v any) (any, *dvError) {
	if v == nil || p.Type == anyType {
		return v, nil
	}
	literal := func(edm string) (any, *dvError) {
		return nil, d.payload(t, fmt.Sprintf("Cannot convert the literal '%s' to the expected type '%s'.", shorten(text(v), 80), edm))
	}
	s, isText := v.(string)
	switch p.Type {
	case "number":
		if _, ok := v.(float64); !ok {
			return literal("Edm.Decimal")
		}
	case "integer":
		if _, ok := whole(v); !ok {
			return literal("Edm.Int32")
		}
	case "bool":
		if _, ok := v.(bool); !ok {
			return literal("Edm.Boolean")
		}
	case "date":
		if !isText || !isDate(s) {
			return literal("Edm.Date")
		}
	case "datetime":
		if !isText || !isTime(s) {
			return literal("Edm.DateTimeOffset")
		}
	case "enumeration":
		if p.FieldType == "checkbox" && isText || isText && !allNumbers(p.Options) {
			return v, nil
		}
		n, ok := whole(v)
		if !ok {
			return literal("Edm.Int32")
		}
		if len(p.Options) > 0 && !slices.Contains(p.Options, strconv.FormatInt(n, 10)) {
			return nil, &dvError{http.StatusBadRequest, "0x80044330", fmt.Sprintf("A validation error occurred. The value %d of '%s' on record of type '%s' is outside the valid range. Accepted Values: %s",
				n, p.Name, t.typeID, strings.Join(p.Options, ","))}
		}
	default:
		if !isText {
			return literal("Edm.String")
		}
		if p.MaxLength > 0 && utf8.RuneCountInString(s) > p.MaxLength {
			return nil, &dvError{http.StatusBadRequest, "0x80044331", fmt.Sprintf("A validation error occurred. The length of the '%s' attribute of the '%s' entity exceeded the maximum allowed length of '%d'.",
				p.Name, t.typeID, p.MaxLength)}
		}
	}
	return v, nil
}

// bind finds the row that a reference names, by id or by alternate key; null clears.
func (d *dataverse) bind(p *Property, v any) (any, *dvError) {
	if v == nil {
		return nil, nil
	}
	url, _ := v.(string)
	if i := strings.Index(url, "/api/data/"); i >= 0 {
		_, url, _ = strings.Cut(url[i+len("/api/data/"):], "/")
	}
	set, key, ok := strings.Cut(strings.TrimPrefix(url, "/"), "(")
	if !ok || !slices.Contains(p.targets(), set) {
		return nil, &dvError{http.StatusBadRequest, "0x80048d19", "The reference of '" + p.Name + "' has to name a row of " + p.Target + "."}
	}
	t := d.store.table(dataverseName, set)
	if t == nil {
		return nil, &dvError{http.StatusNotFound, "0x80060888", "Resource not found for the segment '" + shorten(set, 80) + "'."}
	}
	a, err := d.address(t, key)
	if err != nil {
		return nil, err
	}
	r := d.find(t, a)
	if r == nil {
		return nil, d.notThere(t, a)
	}
	return r.id, nil
}

// payload is an error that is found while a body is read.
func (d *dataverse) payload(t *table, why string) *dvError {
	return &dvError{http.StatusBadRequest, "0x80048d19", "Error identified in Payload provided by the user for Entity :'" + t.object +
		"', For more information on this error please follow this help link https://go.microsoft.com/fwlink/?linkid=2195293  ---->  InnerException : " + why}
}

func (d *dataverse) read(c *call) (fieldMap, *dvError) {
	var sent fieldMap
	if err := parse(c.body, &sent); err != nil || sent == nil {
		return nil, &dvError{http.StatusBadRequest, "0x80048d19", "Error identified in Payload provided by the user: " + whyNot(err)}
	}
	return sent, nil
}

// written answers without a body, or with the row where the client prefers that. The address is that of the request: who
// named the row by an alternate key does not learn its id from the header. (Assumed.)
func (d *dataverse) written(c *call, t *table, r *record, a dvAddress, created bool) reply {
	rep := reply{status: http.StatusNoContent}
	if strings.Contains(strings.ReplaceAll(c.header.Get("Prefer"), " ", ""), "return=representation") {
		rep = d.odata(http.StatusOK, d.show(c, t, r, true))
		if created {
			rep.status = http.StatusCreated
		}
		rep.set("Preference-Applied", "return=representation")
	}
	rep.rows = 1
	rep.set("OData-Version", "4.0")
	rep.set("OData-EntityId", c.base+"/api/data/v9.2/"+t.object+"("+a.spelt+")")
	return rep
}

func (d *dataverse) remove(c *call, t *table, a dvAddress) reply {
	r := d.find(t, a)
	if r == nil {
		return d.failRow(d.notThere(t, a))
	}
	d.store.archive(t, r, c.now)
	return reply{status: http.StatusNoContent, rows: 1}
}

// serveReference sets or clears a lookup by its own path.
func (d *dataverse) serveReference(c *call, t *table, a dvAddress, navigation string) reply {
	p, r := t.properties[navigation], d.find(t, a)
	switch {
	case p == nil || p.Type != "lookup":
		return d.fail(&dvError{http.StatusNotFound, "0x80060888", "Resource not found for the segment '" + shorten(navigation, 80) + "'."})
	case r == nil:
		return d.failRow(d.notThere(t, a))
	}
	var value any
	switch c.method {
	case http.MethodDelete:
	case http.MethodPut, http.MethodPost:
		sent, bad := d.read(c)
		if bad == nil {
			value, bad = d.bind(p, sent["@odata.id"])
		}
		if bad != nil {
			return d.failRow(bad)
		}
	default:
		return d.refusal(c, http.StatusMethodNotAllowed, "")
	}
	d.store.update(t, r, fieldMap{navigation: value}, c.now)
	return reply{status: http.StatusNoContent, rows: 1}
}

func allNumbers(options []string) bool {
	return !slices.ContainsFunc(options, func(o string) bool {
		_, err := strconv.Atoi(o)
		return err != nil
	})
}
