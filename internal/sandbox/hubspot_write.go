package sandbox

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

const hubspotBatch = 100

type operation string

const (
	opUpsert operation = "upsert"
	opCreate operation = "create"
	opUpdate operation = "update"
)

// plan is what one row comes to: a problem, or the values to write to a record that is there or is to be made.
type plan struct {
	target  *record
	values  pairs
	links   []Link // from the new record, whose id is filled in when it is made
	problem *problem
}

// writeBatch writes all rows or none, unless every input carries a trace id of its own: then the good rows are written and
// the bad ones reported one by one. Replies are in no order that a client could rely on.
func (h *hubspot) writeBatch(c *call, t *table, version string, op operation) reply {
	var in batchInput
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	inputs := in.Inputs
	rows := len(inputs)
	refuse := func(p *problem) reply {
		r := h.fail(c, *p)
		r.rows = rows
		return r
	}
	if p := checkShape(inputs, op); p != nil {
		return refuse(p)
	}
	traced := tracedEach(inputs) && !(op == opUpsert && len(inputs) > 0 && inputs[0].IDProperty.value == emailProperty && h.server.varies(HubSpotEmailWhole))

	h.store.mu.Lock()
	if p := h.checkKeys(t, inputs, op); p != nil {
		h.store.mu.Unlock()
		return refuse(p)
	}
	plans := make([]plan, rows)
	claims := make(map[claim]owner, 2*rows)
	var whole []*problem // those that fail the batch when it is not traced
	for i := range inputs {
		plans[i] = h.plan(t, version, op, &inputs[i], i, claims)
		p := plans[i].problem
		// An update of a record that is not there never fails the others.
		if p != nil && !traced && p.category != "OBJECT_NOT_FOUND" {
			whole = append(whole, p)
		}
	}
	if len(whole) > 0 {
		h.store.mu.Unlock()
		return refuse(mergeProblems(whole))
	}
	views := make([]view, 0, rows)
	for i := range plans {
		if plans[i].problem == nil {
			views = append(views, h.apply(t, op, &plans[i], inputs[i].Trace.value, c.now))
		}
	}
	h.store.mu.Unlock()

	failed := h.failedRows(t, plans, inputs)
	shuffle(views)
	status := http.StatusOK
	switch {
	case len(failed) > 0 && !h.server.varies(HubSpotErrorsIn200):
		status = http.StatusMultiStatus
	case op == opCreate:
		status = http.StatusCreated
	}
	body := appendBatch(make([]byte, 0, 256+len(c.body)*2), c.now, views, failed)
	return reply{status: status, body: body, rows: rows}
}

// createOne makes one record, with its links.
func (h *hubspot) createOne(c *call, t *table, version string) reply {
	var in rowInput
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if in.Properties == nil {
		return h.fail(c, *missingFields("properties"))
	}
	return h.writeOne(c, t, version, opCreate, &in, http.StatusCreated)
}

// updateOne changes one record, which its id names, or the unique property that the query names.
func (h *hubspot) updateOne(c *call, t *table, id string) reply {
	var in rowInput
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if len(in.Properties) == 0 {
		p := validation("No properties found to update, please provide at least one.")
		p.context = map[string][]string{"properties": {"{}"}}
		return h.fail(c, *p)
	}
	in.ID = optional{id, true}
	in.IDProperty = optional{c.query.Get("idProperty"), true}
	return h.writeOne(c, t, "", opUpdate, &in, http.StatusOK)
}

func (h *hubspot) writeOne(c *call, t *table, version string, op operation, in *rowInput, status int) reply {
	h.store.mu.Lock()
	p := h.checkKeys(t, []rowInput{*in}, op)
	var v view
	if p == nil {
		planned := h.plan(t, version, op, in, 0, map[claim]owner{})
		if p = planned.problem; p == nil {
			v = h.apply(t, op, &planned, in.Trace.value, c.now)
		}
	}
	h.store.mu.Unlock()
	if p != nil {
		if p.category == "OBJECT_NOT_FOUND" && op == opUpdate {
			return h.refusal(c, http.StatusNotFound, "")
		}
		return h.fail(c, *p)
	}
	return reply{status: status, body: appendView(nil, &v), rows: 1}
}

// archiveOne answers 204 whether or not there was a record.
func (h *hubspot) archiveOne(c *call, t *table, id string) reply {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if r := t.live(id); r != nil {
		h.store.archive(t, r, c.now)
	}
	return reply{status: http.StatusNoContent, rows: 1}
}

func (h *hubspot) archiveBatch(c *call, t *table) reply {
	var in batchInput
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if p := checkSize(len(in.Inputs), hubspotBatch); p != nil {
		return h.fail(c, *p)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, one := range in.Inputs {
		if r := t.live(one.ID.value); r != nil {
			h.store.archive(t, r, c.now)
		}
	}
	return reply{status: http.StatusNoContent, rows: len(in.Inputs)}
}

// checkKeys refuses a batch for an id property that cannot identify a record. The caller holds the store.
func (h *hubspot) checkKeys(t *table, inputs []rowInput, op operation) *problem {
	if op == opCreate {
		return nil
	}
	last := ""
	for i := range inputs {
		name := inputs[i].IDProperty.value
		if name == last || name == "" || name == hubspotKey {
			continue
		}
		if p := h.checkKey(t, name); p != nil {
			return p
		}
		last = name
	}
	return nil
}

func (h *hubspot) checkKey(t *table, name string) *problem {
	p := t.properties[name]
	if p == nil {
		return invalidValues([]invalidValue{unknownProperty(name)})
	}
	if !p.Unique {
		return validation("Unable to perform update/upsert by non-unique %s property %s", h.typeID(t), name)
	}
	return nil
}

// plan decides what becomes of one row. The caller holds the store.
func (h *hubspot) plan(t *table, version string, op operation, in *rowInput, row int, claims map[claim]owner) plan {
	pl := plan{values: in.Properties}
	key, id := in.IDProperty.value, in.ID.value
	byID := key == "" || key == hubspotKey
	if op != opCreate {
		if byID {
			pl.target = t.live(id)
		} else {
			pl.target = t.find(key, strings.TrimSpace(id))
		}
		if pl.target == nil && (op == opUpdate || byID) {
			pl.problem = h.notFound(t, id)
			return pl
		}
		if _, given := in.Properties.get(key); pl.target == nil && !given {
			pl.values = append(pairs{{key, id}}, in.Properties...)
		}
	}
	if pl.problem = h.unlucky(t, pl.target, in.Properties); pl.problem != nil {
		return pl
	}
	if refused := h.check(t, pl.target, pl.values); len(refused) > 0 {
		pl.problem = invalidValues(refused)
		return pl
	}
	if pl.target == nil {
		if pl.problem = h.checkRequired(t, version, pl.values); pl.problem != nil {
			return pl
		}
		if pl.links, pl.problem = h.planLinks(t, in.Associations); pl.problem != nil {
			return pl
		}
		if pipeline, _ := stageProperties(t.object); len(t.pipelines) > 0 && t.properties[pipeline] != nil {
			if _, given := pl.values.get(pipeline); !given {
				pl.values = append(pl.values, pair{pipeline, t.pipelines[0].ID})
			}
		}
	}
	pl.problem = h.checkUnique(t, owner{pl.target, row}, pl.values, claims)
	return pl
}

// unlucky is what a refusal or a lock makes of a row, or nil. The category of a locked row is assumed.
func (h *hubspot) unlucky(t *table, target *record, values pairs) *problem {
	if target != nil && target.locked > 0 {
		return &problem{status: http.StatusLocked, category: "LOCKED", message: "The resource is locked, retry after two seconds."}
	}
	if len(h.store.refusals) == 0 {
		return nil
	}
	sent := fieldMap{}
	for _, v := range values {
		sent[v.name] = v.value
	}
	r := h.store.refused(t, sent)
	switch {
	case r == nil:
		return nil
	case r.Field != "":
		return invalidValues([]invalidValue{{r.Field, r.Code, r.Message}})
	}
	return &problem{status: orStatus(r.Status, http.StatusBadRequest), category: r.Code, message: r.Message}
}

// apply carries a plan out. The caller holds the store.
func (h *hubspot) apply(t *table, op operation, pl *plan, trace string, now time.Time) view {
	r := pl.target
	if r == nil {
		values := make(map[string]any, len(pl.values))
		for _, v := range pl.values {
			values[v.name] = v.value
		}
		r = h.store.create(t, h.newID(t.object, h.store.nextID()), values, now)
		for _, l := range pl.links {
			l.FromID = r.id
			h.connect(l)
		}
	} else {
		for _, v := range pl.values {
			h.change(t, r, v)
		}
		h.store.written(t, r, now)
	}
	v := view{
		id: r.id, created: r.created, updated: r.updated, modified: modifiedProperty(t.object),
		values: make([]viewValue, 0, len(pl.values)), trace: trace, upserted: op == opUpsert, isNew: pl.target == nil,
	}
	for _, p := range pl.values {
		value := text(r.properties[p.name])
		v.values = append(v.values, viewValue{name: p.name, value: value, null: value == ""})
	}
	return v
}

// change sets one value of a record that is there.
func (h *hubspot) change(t *table, r *record, v pair) {
	switch {
	case v.name == lifecycleProperty && movesBack(text(r.properties[v.name]), v.value):
		return // silently, as HubSpot does; only "" goes back
	case v.name == emailProperty && t.object == "contacts":
		h.promote(t, r, v.value)
	}
	h.store.set(t, r, v.name, v.value)
}

// promote keeps the former address of a contact as a secondary one when a secondary one becomes its address. That HubSpot
// swaps them is assumed.
func (h *hubspot) promote(t *table, r *record, email string) {
	const name = "hs_additional_emails"
	if text(r.properties[name]) == "" {
		return
	}
	secondary := strings.Split(text(r.properties[name]), ";")
	i := slices.IndexFunc(secondary, func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), email) })
	if i < 0 {
		return
	}
	secondary[i] = text(r.properties[emailProperty])
	h.store.set(t, r, name, strings.Join(secondary, ";"))
}

// failedRows reports the refused rows; without a trace id those of a kind share one entry.
func (h *hubspot) failedRows(t *table, plans []plan, inputs []rowInput) []errorRow {
	var (
		failed  []errorRow
		missing []string
	)
	for i := range plans {
		p := plans[i].problem
		switch trace := inputs[i].Trace.value; {
		case p == nil:
		case trace == "":
			missing = append(missing, inputs[i].ID.value)
		default:
			failed = append(failed, h.row(*p, trace))
		}
	}
	if len(missing) > 0 {
		failed = append(failed, h.row(*h.notFound(t, missing...), ""))
	}
	return failed
}

func (h *hubspot) notFound(t *table, ids ...string) *problem {
	return &problem{
		status: http.StatusNotFound, category: "OBJECT_NOT_FOUND",
		message: "Could not get some " + h.title(t) + " objects, they may be deleted or not exist. Check that ids are valid.",
		context: map[string][]string{"ids": ids},
	}
}

// checkShape refuses what no row can be blamed for.
func checkShape(inputs []rowInput, op operation) *problem {
	if p := checkSize(len(inputs), hubspotBatch); p != nil {
		return p
	}
	for i := range inputs {
		in := &inputs[i]
		if in.Properties == nil {
			return missingFields("properties")
		}
		// Every schema of a batch has it as required, be it empty; the guides leave it out.
		if op == opCreate && in.Associations == nil {
			return missingFields("associations")
		}
		if op != opCreate && in.ID.value == "" {
			return missingFields("id")
		}
		// The schema of an upsert has no associations: a client that sends them must not think that they are made.
		if op != opCreate && in.Associations != nil {
			return validation("Invalid input JSON on line 1, column 2: Unrecognized field \"associations\"")
		}
	}
	if op == opCreate {
		return nil
	}
	return duplicateIDs(inputs)
}

// duplicateIDs rejects the whole batch, trace ids or not. Two ids that differ in case alone are taken for one.
func duplicateIDs(inputs []rowInput) *problem {
	seen := make(map[claim]bool, len(inputs))
	var twice []string
	for i := range inputs {
		id := inputs[i].ID.value
		c := claim{inputs[i].IDProperty.value, strings.ToLower(strings.TrimSpace(id))}
		if seen[c] && !slices.Contains(twice, id) {
			twice = append(twice, id)
		}
		seen[c] = true
	}
	if len(twice) == 0 {
		return nil
	}
	p := validation("Duplicate IDs found in batch input: [%s]. IDs must be unique", strings.Join(twice, ", "))
	p.context = map[string][]string{"ids": twice}
	return p
}

// checkSize refuses a batch that is too large; the text is assumed.
func checkSize(n, most int) *problem {
	if n <= most {
		return nil
	}
	return validation("The batch has %d inputs, the maximum is %d", n, most)
}

// tracedEach tells whether every input has a trace id that no other has.
func tracedEach(inputs []rowInput) bool {
	seen := make(map[string]bool, len(inputs))
	for i := range inputs {
		trace := inputs[i].Trace.value
		if trace == "" || seen[trace] {
			return false
		}
		seen[trace] = true
	}
	return len(inputs) > 0
}

// mergeProblems is how a batch fails as a whole: refused values of all rows in one list, else the first problem.
func mergeProblems(all []*problem) *problem {
	var invalid []invalidValue
	for _, p := range all {
		invalid = append(invalid, p.invalid...)
	}
	if len(invalid) > 0 {
		return invalidValues(invalid)
	}
	return all[0]
}

// movesBack tells whether a lifecycle stage would go to an earlier one.
func movesBack(from, to string) bool {
	order := hubspotLifecycle()
	return to != "" && slices.Index(order, to) < slices.Index(order, from)
}

// shuffle gives the rows of a reply an order that is never that of the input, and always the same for one size.
func shuffle(views []view) {
	n := len(views)
	if n < 2 {
		return
	}
	first := views[0].id
	rand.New(rand.NewPCG(uint64(n), 0)).Shuffle(n, func(i, j int) { views[i], views[j] = views[j], views[i] })
	if views[0].id == first {
		views[0], views[n-1] = views[n-1], views[0]
	}
}
