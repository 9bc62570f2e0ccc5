package sandbox

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	dvReadsColumns = "prvReadAttribute"
	dvMakesColumns = "prvCreateAttribute"
)

var (
	dvDefinition = regexp.MustCompile(`^EntityDefinitions\(LogicalName='([^']*)'\)$`)
	dvSchemaName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*_\w+$`)
)

// serveDefinition serves the definition of a table and its columns: as much of it as somebody asks for who wants to write.
func (d *dataverse) serveDefinition(c *call, at []string) reply {
	logical := dvDefinition.FindStringSubmatch(at[0])[1]
	i := slices.IndexFunc(d.store.tables, func(t *table) bool { return t.dialect == dataverseName && t.typeID == logical })
	if i < 0 {
		return d.fail(&dvError{http.StatusNotFound, "0x80060888", "Could not find an entity with the specified name: " + shorten(logical, 80) + "."}) // the words are assumed
	}
	t := d.store.tables[i]
	privilege := dvReadsColumns
	if c.method == http.MethodPost {
		privilege = dvMakesColumns
	}
	if d.server.lacks(privilege) {
		return d.refusal(c, http.StatusForbidden, "")
	}
	const cast = "Microsoft.Dynamics.CRM."
	switch {
	case len(at) == 1 && c.method == http.MethodGet:
		return d.odata(http.StatusOK, map[string]any{"LogicalName": t.typeID, "MetadataId": guid(0xde1, int64(i)), "Attributes": d.columns(t), "Keys": d.keys(t)})
	case len(at) == 2 && at[1] == "Attributes" && c.method == http.MethodPost:
		return d.createColumn(c, t)
	case len(at) == 3 && at[1] == "Attributes" && c.method == http.MethodGet && strings.HasPrefix(at[2], cast):
		return d.choices(t, strings.TrimSuffix(strings.TrimPrefix(at[2], cast), "AttributeMetadata")+"Type")
	}
	return d.fail(&dvError{http.StatusNotFound, "0x80060888", "Resource not found for the segment '" + shorten(at[len(at)-1], 80) + "'."})
}

func (d *dataverse) columns(t *table) []any {
	level := map[bool]string{true: "ApplicationRequired", false: "None"}
	out := []any{map[string]any{
		"LogicalName": d.primary(t), "DisplayName": dvLabel("Id"), "AttributeTypeName": map[string]string{"Value": "UniqueidentifierType"},
		"RequiredLevel": map[string]string{"Value": "SystemRequired"}, "IsValidForCreate": true, "IsValidForUpdate": false,
	}}
	seen := map[string]bool{}
	for _, name := range t.names {
		p := t.properties[name]
		column := name
		if p.Type == "lookup" {
			column = dvColumn(name, p)
		}
		if seen[column] {
			continue // a lookup that leads to several tables
		}
		seen[column] = true
		out = append(out, map[string]any{
			"LogicalName": column, "DisplayName": dvLabel(p.Label), "AttributeTypeName": map[string]string{"Value": dvType(p)},
			"RequiredLevel": map[string]string{"Value": level[p.Required]}, "IsValidForCreate": !p.ReadOnly, "IsValidForUpdate": !p.ReadOnly,
		})
	}
	return out
}

func (d *dataverse) keys(t *table) []any {
	out := []any{}
	status := map[bool]string{true: "InProgress", false: "Active"}
	for _, k := range t.keys {
		out = append(out, map[string]any{"KeyAttributes": []string{k.Name}, "EntityKeyIndexStatus": status[k.Indexing]})
	}
	return out
}

// choices are the columns of a type with the options that each takes.
func (d *dataverse) choices(t *table, kind string) reply {
	rows := []any{}
	for _, name := range t.names {
		p := t.properties[name]
		if dvType(p) != kind {
			continue
		}
		options := []any{}
		for i, o := range p.Options {
			options = append(options, map[string]any{"Value": atoi(o, i), "Label": dvLabel(p.label(o))})
		}
		rows = append(rows, map[string]any{"LogicalName": name, "OptionSet": map[string]any{"Options": options}, "GlobalOptionSet": nil})
	}
	return d.odata(http.StatusOK, map[string]any{"value": rows})
}

func (d *dataverse) createColumn(c *call, t *table) reply {
	var in struct {
		Kind   string `json:"@odata.type"`
		Schema string `json:"SchemaName"`
		Name   struct {
			Labels []struct {
				Label    string `json:"Label"`
				Language int    `json:"LanguageCode"`
			} `json:"LocalizedLabels"`
		} `json:"DisplayName"`
		Format    string         `json:"Format"`
		MaxLength int            `json:"MaxLength"`
		OptionSet map[string]any `json:"OptionSet"`
	}
	refuse := func(why string) reply { return d.fail(&dvError{http.StatusBadRequest, "0x80048d19", why}) } // the words are assumed
	if err := parse(c.body, &in); err != nil {
		return refuse(whyNot(err))
	}
	kinds := map[string]string{"String": "string", "Memo": "string", "Decimal": "number", "Integer": "integer", "DateTime": "datetime", "Boolean": "bool"}
	kind := kinds[strings.TrimSuffix(strings.TrimPrefix(in.Kind, "Microsoft.Dynamics.CRM."), "AttributeMetadata")]
	name := strings.ToLower(in.Schema)
	switch {
	case kind == "":
		return refuse("An attribute of the type '" + shorten(in.Kind, 80) + "' cannot be created.")
	case !dvSchemaName.MatchString(in.Schema):
		return refuse("The schema name '" + shorten(in.Schema, 80) + "' needs the prefix of a publisher.")
	case len(in.Name.Labels) == 0 || in.Name.Labels[0].Label == "" || in.Name.Labels[0].Language != 1033:
		return refuse("A display name in the base language 1033 is required.")
	case kind == "string" && in.MaxLength == 0:
		return refuse("MaxLength is required.")
	case kind == "bool" && (in.OptionSet["TrueOption"] == nil || in.OptionSet["FalseOption"] == nil):
		return refuse("A boolean attribute needs a TrueOption and a FalseOption.")
	case t.properties[name] != nil:
		return d.fail(&dvError{http.StatusBadRequest, "0x80047013", "An attribute with the specified name " + name + " already exists."}) // assumed
	}
	if kind == "datetime" && in.Format == "DateOnly" {
		kind = "date"
	}
	t.defineProperty(Property{Name: name, Label: in.Name.Labels[0].Label, Type: kind, MaxLength: in.MaxLength})
	rep := reply{status: http.StatusNoContent}
	rep.set("OData-Version", "4.0")
	rep.set("OData-EntityId", c.base+"/api/data/v9.2/EntityDefinitions(LogicalName='"+t.typeID+"')/Attributes("+guid(0xa77, int64(len(t.names)))+")")
	return rep
}

// users lists rows of the table of users, in pages of five thousand.
func (d *dataverse) users(c *call) reply {
	if d.server.lacks("prvReadUser") {
		return d.refusal(c, http.StatusForbidden, "")
	}
	const size = 5000
	from := atoi(c.query.Get("$skiptoken"), 0)
	rows := []any{}
	for _, o := range d.store.owners[dataverseName] {
		if c.query.Get("$filter") == "isdisabled eq false" && o.Left {
			continue
		}
		rows = append(rows, map[string]any{"systemuserid": o.ID, "internalemailaddress": o.Email, "fullname": strings.TrimSpace(o.FirstName + " " + o.LastName), "isdisabled": o.Left})
	}
	from = min(from, len(rows))
	out := map[string]any{"value": rows[from:min(from+size, len(rows))]}
	if from+size < len(rows) {
		q := c.query
		q.Set("$skiptoken", strconv.Itoa(from+size))
		out["@odata.nextLink"] = c.base + c.path + "?" + q.Encode()
	}
	return d.odata(http.StatusOK, out)
}

func dvLabel(text string) map[string]any {
	one := map[string]any{"Label": text, "LanguageCode": 1033}
	return map[string]any{"LocalizedLabels": []any{one}, "UserLocalizedLabel": one}
}

// dvType is the name of the type of a column.
func dvType(p *Property) string {
	switch p.Type {
	case "number":
		return "DecimalType"
	case "integer":
		return "IntegerType"
	case "bool":
		return "BooleanType"
	case "date", "datetime":
		return "DateTimeType"
	case "enumeration":
		if p.Multiple || p.FieldType == "checkbox" {
			return "MultiSelectPicklistType"
		}
		return "PicklistType"
	case "lookup":
		return "LookupType"
	}
	return "StringType"
}
