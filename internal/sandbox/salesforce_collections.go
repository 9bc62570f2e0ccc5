package sandbox

import (
	"fmt"
	"net/http"
	"strings"
)

// serveCollections serves up to two hundred rows in a request, at is what follows composite/sobjects. Each row is reported
// at its place, and the status is 200 whatever became of them.
func (f *salesforce) serveCollections(c *call, version int, at []string) reply {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if len(at) == 0 && c.method == http.MethodDelete {
		return f.deleteMany(c)
	}
	var in struct {
		AllOrNone bool       `json:"allOrNone"`
		Records   []fieldMap `json:"records"`
		IDs       []string   `json:"ids"`
		Fields    []string   `json:"fields"`
	}
	if len(c.body) > 0 {
		if err := parse(c.body, &in); err != nil {
			return f.notJSON(err)
		}
	}
	if len(in.Records) > salesforceRows || len(in.IDs) > 2000 {
		return f.fail(http.StatusBadRequest, sfError{code: "EXCEEDED_ID_LIMIT",
			message: fmt.Sprintf("record limit reached. cannot submit more than %d records in this call", salesforceRows)})
	}
	switch {
	case len(at) == 0 && c.method == http.MethodPost:
		return f.many(in.Records, in.AllOrNone, false, func(t *table, sent fieldMap) sfResult { return f.write(c, t, nil, sent) })
	case len(at) == 0 && c.method == http.MethodPatch:
		return f.many(in.Records, in.AllOrNone, false, func(t *table, sent fieldMap) sfResult { return f.updateRow(c, t, sent) })
	case len(at) == 1 && c.method == http.MethodPost:
		return f.retrieve(c, version, at[0], in.IDs, in.Fields)
	case len(at) == 2 && c.method == http.MethodPatch:
		return f.upsertMany(c, at[0], at[1], in.Records, in.AllOrNone)
	case len(at) > 2:
		return f.refusal(c, http.StatusNotFound, "")
	}
	return f.refusal(c, http.StatusMethodNotAllowed, "")
}

// upsertMany upserts rows of one type by one external id, which each row carries. All rows that share an id are refused.
func (f *salesforce) upsertMany(c *call, object, field string, records []fieldMap, allOrNone bool) reply {
	t := f.store.named(salesforceName, object)
	if t == nil {
		return f.refusal(c, http.StatusNotFound, "")
	}
	key := t.property(field)
	if key == nil || !key.Unique && !key.External {
		return f.fail(http.StatusNotFound, sfError{code: "NOT_FOUND", message: "Provided external ID field does not exist or is not accessible: " + field})
	}
	for _, sent := range records {
		if kind := sfRowType(sent); !strings.EqualFold(kind, t.object) {
			return f.fail(http.StatusBadRequest, sfError{code: "INVALID_INPUT", // assumed
				message: "The attributes of every record must have the type " + t.object})
		}
	}
	seen := map[string]int{}
	for _, sent := range records {
		value, _ := sfKey(sent, key.Name)
		seen[strings.ToLower(value)]++
	}
	return f.many(records, allOrNone, true, func(t *table, sent fieldMap) sfResult {
		value, rest := sfKey(sent, key.Name)
		switch {
		case value == "":
			return sfResult{err: &sfError{"MISSING_ARGUMENT", key.Name + " not specified", []string{}}}
		case rest[sfID] != nil:
			return sfResult{err: keyInBody(sfID)}
		case seen[strings.ToLower(value)] > 1:
			return sfResult{err: &sfError{"DUPLICATE_VALUE", "Duplicate external id specified: " + strings.ToLower(value), []string{key.Name}}}
		}
		return f.upsert(c, t, key, value, rest, false)
	})
}

// many writes the rows one after the other, and takes all back when one is refused and all are wanted or none.
func (f *salesforce) many(records []fieldMap, allOrNone, upserted bool, write func(*table, fieldMap) sfResult) reply {
	tables := make([]*table, len(records))
	for i, sent := range records {
		kind := sfRowType(sent)
		if kind == "" {
			return f.fail(http.StatusBadRequest, sfError{code: "INVALID_INPUT", // assumed
				message: "Must send attributes with a type for every record"})
		}
		if tables[i] = f.store.named(salesforceName, kind); tables[i] == nil {
			return f.fail(http.StatusBadRequest, sfError{code: "INVALID_TYPE", message: "sObject type '" + kind + "' is not supported."})
		}
	}
	results := make([]sfResult, len(records))
	var changes []undo
	failed := false
	for i, sent := range records {
		results[i] = write(tables[i], sent)
		if e := results[i].err; e != nil {
			failed = true
			if f.server.varies(SalesforceStrictBatch) && (e.code == "JSON_PARSER_ERROR" || strings.HasPrefix(e.message, "No such column")) {
				f.store.takeBack(changes)
				rep := f.fail(http.StatusBadRequest, *e)
				rep.rows = len(records)
				return rep
			}
			continue
		}
		changes = append(changes, results[i].change)
	}
	if failed && allOrNone {
		f.store.takeBack(changes)
		for i := range results {
			if results[i].err == nil {
				results[i] = sfResult{err: &sfError{"ALL_OR_NONE_OPERATION_ROLLED_BACK",
					"Record rolled back because not all records were valid and the request was using AllOrNone header", []string{}}}
			}
		}
	}
	return f.reportRows(results, upserted)
}

// reportRows tells of an upsert's rows whether they made a record.
func (f *salesforce) reportRows(results []sfResult, upserted bool) reply {
	rows := make([]sfRow, 0, len(results))
	for _, r := range results {
		if r.err == nil {
			row := sfRow{ID: r.id, Success: true, Errors: []sfRowErr{}}
			if upserted {
				row.Created = &r.created
			}
			rows = append(rows, row)
			continue
		}
		fields := r.err.fields
		if fields == nil {
			fields = []string{}
		}
		rows = append(rows, sfRow{Errors: []sfRowErr{{r.err.code, r.err.message, fields}}})
	}
	return reply{status: http.StatusOK, body: encode(rows), rows: len(rows)}
}

// updateRow changes a record that the row names by its id.
func (f *salesforce) updateRow(c *call, t *table, sent fieldMap) sfResult {
	id, rest := sfKey(sent, sfID)
	if id == "" {
		return sfResult{err: &sfError{"MISSING_ARGUMENT", "Id not specified in an update call", []string{}}}
	}
	if len(id) != 15 && len(id) != 18 {
		return sfResult{err: &sfError{"MALFORMED_ID", t.object + " ID: id value of incorrect type: " + shorten(id, 40), []string{sfID}}}
	}
	r := t.byID[sfLongID(id)]
	switch {
	case r == nil:
		return sfResult{err: &sfError{"INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", []string{}}}
	case r.archived:
		return sfResult{err: &sfError{"ENTITY_IS_DELETED", "entity is deleted", []string{}}}
	}
	return f.write(c, t, r, rest)
}

// deleteMany deletes the records whose ids the query lists.
func (f *salesforce) deleteMany(c *call) reply {
	list := strings.Split(c.query.Get("ids"), ",")
	if len(list) > salesforceRows {
		return f.fail(http.StatusBadRequest, sfError{code: "EXCEEDED_ID_LIMIT",
			message: fmt.Sprintf("record limit reached. cannot submit more than %d records in this call", salesforceRows)})
	}
	results := make([]sfResult, len(list))
	for i, id := range list {
		id = sfLongID(strings.TrimSpace(id))
		results[i] = sfResult{err: &sfError{"INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", []string{}}}
		for _, t := range f.store.tables {
			if r := t.byID[id]; t.dialect == salesforceName && r != nil {
				results[i].err.code, results[i].err.message = "ENTITY_IS_DELETED", "entity is deleted"
				if !r.archived {
					f.store.archive(t, r, c.now)
					results[i] = sfResult{id: r.id}
				}
			}
		}
	}
	return f.reportRows(results, false)
}

// sfRowType is the type that a row says it is of.
func sfRowType(sent fieldMap) string {
	attributes, _ := sent["attributes"].(map[string]any)
	kind, _ := attributes["type"].(string)
	return kind
}

// sfKey takes the value of a field out of a row.
func sfKey(sent fieldMap, field string) (value string, rest fieldMap) {
	rest = fieldMap{}
	for name, v := range sent {
		if strings.EqualFold(name, field) {
			value = text(v)
			continue
		}
		rest[name] = v
	}
	return value, rest
}
