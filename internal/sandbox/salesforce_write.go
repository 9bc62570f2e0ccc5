package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// sfResult is what became of one row.
type sfResult struct {
	id      string
	created bool
	err     *sfError
	matches []string // ids, when an external id matched several records
	change  undo
}

// sfRow is one row of a collection as it is reported.
type sfRow struct {
	ID      string     `json:"id,omitzero"`
	Success bool       `json:"success"`
	Errors  []sfRowErr `json:"errors"`
	Created *bool      `json:"created,omitzero"`
}

type sfRowErr struct {
	Code    string   `json:"statusCode"`
	Message string   `json:"message"`
	Fields  []string `json:"fields"`
}

// upsert writes a row that an external id names. The caller holds the store, in this and in all that follow.
func (f *salesforce) upsert(c *call, t *table, key *Property, value string, sent fieldMap, updateOnly bool) sfResult {
	found := t.holders(key.Name, value)
	switch {
	case len(found) > 1:
		var ids []string
		for _, r := range found {
			ids = append(ids, r.id)
		}
		return sfResult{matches: ids, err: &sfError{"DUPLICATE_EXTERNAL_ID",
			key.Label + ": more than one record found for external id field: [" + strings.Join(ids, ", ") + "]", []string{key.Name}}}
	case len(found) == 1:
		return f.write(c, t, found[0], sent)
	case updateOnly:
		return sfResult{err: &sfError{code: "NOT_FOUND", message: "The requested resource does not exist"}}
	}
	keyed := fieldMap{key.Name: value}
	for name, v := range sent {
		keyed[name] = v
	}
	return f.write(c, t, nil, keyed)
}

// write makes a record or changes one.
func (f *salesforce) write(c *call, t *table, target *record, sent fieldMap) sfResult {
	if r := f.store.refused(t, sent); r != nil && !(r.Code == "DUPLICATES_DETECTED" && allowsDuplicates(c)) {
		e := &sfError{code: r.Code, message: r.Message, fields: []string{}}
		if r.Field != "" {
			e.fields = []string{r.Field}
		}
		return sfResult{err: e}
	}
	changes, err := f.check(t, target, sent)
	if err != nil {
		return sfResult{err: err}
	}
	if target != nil {
		before := note(t, target)
		f.store.update(t, target, changes, c.now)
		return sfResult{id: target.id, change: before}
	}
	if t.object == "Lead" && blank(changes["Status"]) {
		changes["Status"] = t.properties["Status"].Options[0]
	}
	r := f.store.create(t, f.newID(t.object, f.store.nextID()), changes, c.now)
	return sfResult{id: r.id, created: true, change: undo{table: t, record: r}}
}

// allowsDuplicates reads the header that overrules a duplicate rule.
func allowsDuplicates(c *call) bool {
	return strings.EqualFold(strings.ReplaceAll(c.header.Get("Sforce-Duplicate-Rule-Header"), " ", ""), "allowSave=true")
}

// createOne makes a record.
func (f *salesforce) createOne(c *call, t *table) reply {
	sent, bad := f.readFields(c)
	if bad != nil {
		return *bad
	}
	result := f.write(c, t, nil, sent)
	if result.err != nil {
		return f.failRow(result.err)
	}
	return reply{status: http.StatusCreated, rows: 1, header: f.location(c, t, result.id),
		body: encode(map[string]any{"id": result.id, "success": true, "errors": []string{}})}
}

// updateOne changes a record that its id names.
func (f *salesforce) updateOne(c *call, t *table, id string) reply {
	sent, bad := f.readFields(c)
	if bad != nil {
		return *bad
	}
	r, bad := f.find(c, t, id)
	if bad != nil {
		return *bad
	}
	if _, has := sent[sfID]; has {
		return f.failRow(keyInBody(sfID))
	}
	if result := f.write(c, t, r, sent); result.err != nil {
		return f.failRow(result.err)
	}
	return reply{status: http.StatusNoContent, rows: 1}
}

func (f *salesforce) deleteOne(c *call, t *table, id string) reply {
	r, bad := f.find(c, t, id)
	if bad != nil {
		return *bad
	}
	if r.locked > 0 {
		return f.failRow(f.checkLocks(t, r, nil))
	}
	f.store.archive(t, r, c.now)
	return reply{status: http.StatusNoContent, rows: 1}
}

// find gives a live record, or the reply for one that is gone or never was.
func (f *salesforce) find(c *call, t *table, id string) (*record, *reply) {
	r := t.byID[sfLongID(id)]
	switch {
	case r == nil:
		rep := f.refusal(c, http.StatusNotFound, "")
		return nil, &rep
	case r.archived:
		rep := f.fail(http.StatusNotFound, sfError{"ENTITY_IS_DELETED", "entity is deleted", []string{}})
		return nil, &rep
	}
	return r, nil
}

// serveKey reads, upserts or deletes the record that a value of an external id names.
func (f *salesforce) serveKey(c *call, t *table, version int, field, value string) reply {
	key := t.property(field)
	if key == nil || !key.Unique && !key.External {
		// A bare object, unlike other errors, as the sample of the documentation has it.
		return jsonReply(http.StatusNotFound, map[string]string{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"})
	}
	if c.method == http.MethodPatch {
		return f.upsertOne(c, t, key, version, value)
	}
	found := t.holders(key.Name, value)
	switch {
	case len(found) == 0:
		return f.refusal(c, http.StatusNotFound, "")
	case len(found) > 1:
		return f.multiple(t, version, ids(found))
	case c.method == http.MethodDelete:
		return f.deleteOne(c, t, found[0].id)
	}
	return f.getOne(c, t, version, found[0].id)
}

func (f *salesforce) upsertOne(c *call, t *table, key *Property, version int, value string) reply {
	sent, bad := f.readFields(c)
	if bad != nil {
		return *bad
	}
	for name := range sent {
		if strings.EqualFold(name, sfID) || strings.EqualFold(name, key.Name) {
			return f.failRow(keyInBody(name))
		}
	}
	result := f.upsert(c, t, key, value, sent, c.query.Get("updateOnly") == "true")
	switch {
	case len(result.matches) > 0:
		return f.multiple(t, version, result.matches)
	case result.err != nil && result.err.code == "NOT_FOUND":
		return f.refusal(c, http.StatusNotFound, "")
	case result.err != nil:
		return f.failRow(result.err)
	case !result.created && version < 46:
		return reply{status: http.StatusNoContent, rows: 1}
	}
	body := map[string]any{"id": result.id, "success": true, "errors": []string{}}
	if version >= 46 {
		body["created"] = result.created
	}
	rep := reply{status: http.StatusOK, rows: 1, body: encode(body)}
	if result.created {
		rep.status, rep.header = http.StatusCreated, f.location(c, t, result.id)
	}
	return rep
}

// multiple answers that a value names several records, with their addresses.
func (f *salesforce) multiple(t *table, version int, ids []string) reply {
	urls := make([]string, 0, len(ids))
	for _, id := range ids {
		urls = append(urls, sfURL(t, version, id))
	}
	return jsonReply(http.StatusMultipleChoices, urls)
}

// readFields reads the body of a request that is about one record.
func (f *salesforce) readFields(c *call) (fieldMap, *reply) {
	var sent fieldMap
	if err := parse(c.body, &sent); err != nil || sent == nil {
		rep := f.notJSON(err)
		return nil, &rep
	}
	return sent, nil
}

func (f *salesforce) notJSON(err error) reply {
	return f.fail(http.StatusBadRequest, sfError{code: "JSON_PARSER_ERROR", message: "The HTTP entity body is not what the resource takes: " + whyNot(err)})
}

// failRow answers the error of the one row of a request.
func (f *salesforce) failRow(e *sfError) reply {
	rep := f.fail(http.StatusBadRequest, *e)
	rep.rows = 1
	return rep
}

func (f *salesforce) location(c *call, t *table, id string) http.Header {
	return http.Header{"Location": {"/services/data/" + url.PathEscape(c.segments[2]) + "/sobjects/" + t.object + "/" + id}}
}

func keyInBody(name string) *sfError {
	return &sfError{"INVALID_FIELD", "The " + name + " field should not be specified in the sobject data.", nil}
}

func ids(records []*record) []string {
	var out []string
	for _, r := range records {
		out = append(out, r.id)
	}
	return out
}

func sfTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000+0000") }
