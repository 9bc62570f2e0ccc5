package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	associationWrites = 2000
	associationReads  = 1000
)

type linkResult struct {
	FromType string   `json:"fromObjectTypeId"`
	From     string   `json:"fromObjectId"`
	ToType   string   `json:"toObjectTypeId"`
	To       string   `json:"toObjectId"`
	Labels   []string `json:"labels"`
}

type idOnly struct {
	ID string `json:"id"`
}

type defaultResult struct {
	From idOnly          `json:"from"`
	To   idOnly          `json:"to"`
	Spec associationSpec `json:"associationSpec"`
}

type typeResult struct {
	Category string  `json:"category"`
	TypeID   int     `json:"typeId"`
	Label    *string `json:"label"`
}

type linkedResult struct {
	To    string       `json:"toObjectId"`
	Types []typeResult `json:"associationTypes"`
}

// linkBatch is the reply of the association batches.
type linkBatch[T any] struct {
	CompletedAt string     `json:"completedAt"`
	Status      string     `json:"status"`
	StartedAt   string     `json:"startedAt"`
	Results     []T        `json:"results"`
	Errors      []errorRow `json:"errors,omitzero"`
	NumErrors   int        `json:"numErrors,omitzero"`
}

// serveRecordAssociations is everything below {from}/{id}/associations.
func (h *hubspot) serveRecordAssociations(c *call, from *table, id string, rest []string) reply {
	byDefault := len(rest) == 3 && rest[0] == "default"
	if byDefault {
		rest = rest[1:]
	}
	if len(rest) == 0 || len(rest) > 2 {
		return h.refusal(c, http.StatusNotFound, "")
	}
	to := h.open(rest[0])
	if to == nil {
		return h.fail(c, problem{status: http.StatusBadRequest, message: "Unable to infer object type from: " + rest[0]})
	}
	access := "write"
	if c.method == http.MethodGet {
		access = "read"
	}
	if scope := h.scope("objects", from, access); h.lacks(scope) {
		return h.missingScope(c, scope)
	}
	switch {
	case c.method == http.MethodGet && len(rest) == 1:
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		if from.live(id) == nil {
			return h.refusal(c, http.StatusNotFound, "")
		}
		return h.succeed(http.StatusOK, map[string]any{"results": h.linked(from, id, to)})
	case c.method == http.MethodPut && len(rest) == 2 && byDefault:
		return h.linkDefault(c, from, id, to, rest[1])
	case c.method == http.MethodPut && len(rest) == 2:
		return h.linkLabelled(c, from, id, to, rest[1])
	case c.method == http.MethodDelete && len(rest) == 2 && !byDefault:
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		h.disconnect(from, id, to, rest[1])
		return reply{status: http.StatusNoContent, rows: 1}
	}
	return h.refusal(c, http.StatusMethodNotAllowed, "")
}

// serveAssociations is everything below /crm/associations/{version}/{from}/{to}.
func (h *hubspot) serveAssociations(c *call, r route) reply {
	if len(r.rest) < 3 {
		return h.refusal(c, http.StatusNotFound, "")
	}
	from, to := h.open(r.rest[0]), h.open(r.rest[1])
	for i, t := range []*table{from, to} {
		if t == nil {
			return h.fail(c, problem{status: http.StatusBadRequest, message: "Unable to infer object type from: " + r.rest[i]})
		}
	}
	what := strings.Join(r.rest[2:], "/")
	if what == "labels" && c.method == http.MethodGet {
		return h.listLabels(from, to)
	}
	if c.method != http.MethodPost {
		return h.refusal(c, http.StatusMethodNotAllowed, "")
	}
	access := "write"
	if what == "batch/read" {
		access = "read"
	}
	if scope := h.scope("objects", from, access); h.lacks(scope) {
		return h.missingScope(c, scope)
	}
	switch what {
	case "labels":
		return h.createLabel(c, from, to)
	case "batch/create":
		return h.linkBatch(c, from, to)
	case "batch/associate/default":
		return h.linkDefaultBatch(c, from, to)
	case "batch/read":
		return h.readLinks(c, from, to)
	case "batch/archive":
		return h.unlinkBatch(c, r.version, from, to)
	case "batch/labels/archive":
		return h.unlabelBatch(c, r.version, from, to)
	}
	return h.refusal(c, http.StatusNotFound, "")
}

func (h *hubspot) linkDefault(c *call, from *table, id string, to *table, toID string) reply {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if p := h.checkEnds(from, id, to, toID); p != nil {
		return h.fail(c, *p)
	}
	t := h.defaultType(from, to)
	h.connect(t.link(id, toID))
	return h.succeed(http.StatusOK, newLinkBatch(c, t.results(id, toID), nil))
}

func (h *hubspot) linkLabelled(c *call, from *table, id string, to *table, toID string) reply {
	var specs []associationSpec
	if p := decode(c.body, &specs); p != nil {
		return h.fail(c, *p)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	result, p := h.linkTypes(from, id, to, toID, specs)
	if p != nil {
		return h.fail(c, *p)
	}
	return h.succeed(http.StatusCreated, result)
}

func (h *hubspot) linkBatch(c *call, from, to *table) reply {
	return eachLink(h, c, associationWrites, http.StatusCreated, func(in associationInput) ([]linkResult, *problem) {
		result, p := h.linkTypes(from, in.From.ID.value, to, in.To.ID.value, in.Types)
		return []linkResult{result}, p
	})
}

func (h *hubspot) linkDefaultBatch(c *call, from, to *table) reply {
	return eachLink(h, c, associationWrites, http.StatusOK, func(in associationInput) ([]defaultResult, *problem) {
		fromID, toID := in.From.ID.value, in.To.ID.value
		if p := h.checkEnds(from, fromID, to, toID); p != nil {
			return nil, p
		}
		t := h.defaultType(from, to)
		h.connect(t.link(fromID, toID))
		return t.results(fromID, toID), nil
	})
}

// eachLink runs the inputs of an association batch one by one. A bad one never fails the others.
func eachLink[T any](h *hubspot, c *call, most, status int, do func(associationInput) ([]T, *problem)) reply {
	var in struct {
		Inputs []associationInput `json:"inputs"`
	}
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if p := checkSize(len(in.Inputs), most); p != nil {
		return h.fail(c, *p)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	results := []T{}
	var failed []errorRow
	for _, one := range in.Inputs {
		out, p := do(one)
		if p != nil {
			failed = append(failed, h.row(*p, ""))
			continue
		}
		results = append(results, out...)
	}
	if len(failed) > 0 {
		status = http.StatusMultiStatus
	}
	r := h.succeed(status, newLinkBatch(c, results, failed))
	r.rows = len(in.Inputs)
	return r
}

func (h *hubspot) unlinkBatch(c *call, version string, from, to *table) reply {
	var in struct {
		Inputs []struct {
			From reference   `json:"from"`
			To   []reference `json:"to"`
		} `json:"inputs"`
	}
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, one := range in.Inputs {
		for _, other := range one.To {
			h.disconnect(from, one.From.ID.value, to, other.ID.value)
		}
	}
	return h.unlinked(c, version, len(in.Inputs))
}

// unlinked answers a batch that removed links: in versions that are dates with a body, without results.
func (h *hubspot) unlinked(c *call, version string, rows int) reply {
	rep := reply{status: http.StatusNoContent}
	if !strings.HasPrefix(version, "v") {
		rep = h.succeed(http.StatusOK, newLinkBatch(c, []linkResult{}, nil))
	}
	rep.rows = rows
	return rep
}

// unlabelBatch removes links of certain types. The default one takes all others with it.
func (h *hubspot) unlabelBatch(c *call, version string, from, to *table) reply {
	var in struct {
		Inputs []associationInput `json:"inputs"`
	}
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, one := range in.Inputs {
		for _, spec := range one.Types {
			t, p := h.checkType(from, to, spec)
			switch {
			case p != nil:
				return h.fail(c, *p)
			case t == h.defaultType(from, to):
				h.disconnect(from, one.From.ID.value, to, one.To.ID.value)
			default:
				gone, swapped := t.link(one.From.ID.value, one.To.ID.value), t.swap().link(one.To.ID.value, one.From.ID.value)
				h.store.unlink(func(l Link) bool { return l == gone || l == swapped })
			}
		}
	}
	return h.unlinked(c, version, len(in.Inputs))
}

func (h *hubspot) readLinks(c *call, from, to *table) reply {
	var in batchInput
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if p := checkSize(len(in.Inputs), associationReads); p != nil {
		return h.fail(c, *p)
	}
	type result struct {
		From idOnly         `json:"from"`
		To   []linkedResult `json:"to"`
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	results := []result{}
	for _, one := range in.Inputs {
		// A record without links is left out.
		if to := h.linked(from, one.ID.value, to); len(to) > 0 {
			results = append(results, result{idOnly{one.ID.value}, to})
		}
	}
	r := h.succeed(http.StatusOK, newLinkBatch(c, results, nil))
	r.rows = len(in.Inputs)
	return r
}

func (h *hubspot) listLabels(from, to *table) reply {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	results := []typeResult{}
	for _, t := range h.types(from, to) {
		results = append(results, t.result())
	}
	return h.succeed(http.StatusOK, map[string]any{"results": results})
}

func (h *hubspot) createLabel(c *call, from, to *table) reply {
	var in struct {
		Label string `json:"label"`
		Name  string `json:"name"`
	}
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if in.Label == "" || in.Name == "" {
		return h.fail(c, *missingFields("label", "name"))
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	t := associationType{from.object, to.object, 101 + 2*len(h.labels), 102 + 2*len(h.labels), userDefined, in.Label}
	h.labels = append(h.labels, t)
	return h.succeed(http.StatusOK, map[string]any{"results": []typeResult{t.result(), t.swap().result()}})
}

// linkTypes ties two records in the ways that the types name. The caller holds the store.
func (h *hubspot) linkTypes(from *table, id string, to *table, toID string, specs []associationSpec) (linkResult, *problem) {
	if p := h.checkEnds(from, id, to, toID); p != nil {
		return linkResult{}, p
	}
	if len(specs) == 0 {
		return linkResult{}, missingFields("types")
	}
	result := linkResult{h.typeID(from), id, h.typeID(to), toID, []string{}}
	var links []Link
	for _, spec := range specs {
		t, p := h.checkType(from, to, spec)
		if p != nil {
			return linkResult{}, p
		}
		links = append(links, t.link(id, toID))
		if t.label != "" {
			result.Labels = append(result.Labels, t.label)
		}
	}
	for _, l := range links {
		h.connect(l)
	}
	return result, nil
}

// planLinks checks the links that a create asks for. A lead has to come with its contact.
func (h *hubspot) planLinks(from *table, in []associationInput) ([]Link, *problem) {
	var links []Link
	contact := false
	for _, a := range in {
		to := h.holder(a.To.ID.value)
		if to == nil {
			return nil, h.noSuchEnd("to", a.To.ID.value)
		}
		if len(a.Types) == 0 {
			return nil, missingFields("types")
		}
		for _, spec := range a.Types {
			t, p := h.checkType(from, to, spec)
			if p != nil {
				return nil, p
			}
			links = append(links, t.link("", a.To.ID.value))
		}
		contact = contact || to.object == "contacts"
	}
	if from.object == "leads" && !contact {
		return nil, validation("Error creating LEAD. Some required associations were not set.") // the text is assumed
	}
	return links, nil
}

// checkEnds refuses ids that are no numbers, and records that are not there.
func (h *hubspot) checkEnds(from *table, id string, to *table, toID string) *problem {
	for _, one := range []string{id, toID} {
		if _, err := strconv.ParseInt(one, 10, 64); err != nil {
			p := validation("%s is not a valid ID", one)
			p.subCategory = "crm.associations.INVALID_IDENTIFIER"
			p.context = map[string][]string{"id": {one}}
			return p
		}
	}
	if from.live(id) == nil {
		return h.noSuchEnd("from", id)
	}
	if to.live(toID) == nil {
		return h.noSuchEnd("to", toID)
	}
	if from == to && id == toID {
		return validation("Object %s cannot be associated to itself (%s)", id, toID)
	}
	return nil
}

// noSuchEnd refuses a link to a record that is not there; the text is assumed.
func (h *hubspot) noSuchEnd(end, id string) *problem {
	return &problem{
		status: http.StatusNotFound, category: "OBJECT_NOT_FOUND",
		message: "One or more of the associated objects were not found.",
		context: map[string][]string{end + "ObjectId": {id}},
	}
}

// holder finds the object of a live record; ids are unique across objects.
func (h *hubspot) holder(id string) *table {
	for _, t := range h.store.tables {
		if t.dialect == hubspotName && t.live(id) != nil {
			return t
		}
	}
	return nil
}

// connect makes a link unless it is there from either end. A primary company is also an ordinary one, and the only primary.
func (h *hubspot) connect(l Link) {
	from, to := h.store.table(hubspotName, l.FromObject), h.store.table(hubspotName, l.ToObject)
	for _, t := range h.types(from, to) {
		if t.id == l.TypeID && t.category == l.Category && h.store.linked[t.swap().link(l.ToID, l.FromID)] {
			return
		}
	}
	if l.Label == primaryLabel {
		h.connect(h.defaultType(from, to).link(l.FromID, l.ToID))
		object, id := l.FromObject, l.FromID
		if object == "companies" {
			object, id = l.ToObject, l.ToID
		}
		h.store.unlink(func(old Link) bool {
			return old != l && old.Dialect == hubspotName && old.Label == primaryLabel &&
				(old.FromObject == object && old.FromID == id || old.ToObject == object && old.ToID == id)
		})
	}
	h.store.link(l)
}

// disconnect removes all links between two records.
func (h *hubspot) disconnect(from *table, id string, to *table, toID string) {
	h.store.unlink(func(l Link) bool {
		return l.Dialect == hubspotName &&
			(l.FromObject == from.object && l.FromID == id && l.ToObject == to.object && l.ToID == toID ||
				l.FromObject == to.object && l.FromID == toID && l.ToObject == from.object && l.ToID == id)
	})
}

// linked lists what a record is tied to, whichever end made the link. The caller holds the store.
func (h *hubspot) linked(from *table, id string, to *table) []linkedResult {
	types := h.types(from, to)
	results := []linkedResult{}
	for _, l := range h.store.links {
		other, typeID := "", l.TypeID
		switch {
		case l.Dialect != hubspotName:
			continue
		case l.FromObject == from.object && l.FromID == id && l.ToObject == to.object:
			other = l.ToID
		case l.ToObject == from.object && l.ToID == id && l.FromObject == to.object:
			other = l.FromID
			if i := slices.IndexFunc(types, func(t associationType) bool { return t.inverse == l.TypeID }); i >= 0 {
				typeID = types[i].id
			}
		default:
			continue
		}
		result := associationType{category: l.Category, id: typeID, label: l.Label}.result()
		if i := slices.IndexFunc(results, func(r linkedResult) bool { return r.To == other }); i >= 0 {
			results[i].Types = append(results[i].Types, result)
		} else {
			results = append(results, linkedResult{other, []typeResult{result}})
		}
	}
	return results
}

func newLinkBatch[T any](c *call, results []T, failed []errorRow) linkBatch[T] {
	at := c.now.UTC().Format(hubspotTime)
	return linkBatch[T]{at, "COMPLETE", at, results, failed, len(failed)}
}
