package sandbox

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const uniqueProperties = 10 // per object, of those that a portal makes

// propertyName is what the name of a property can be. (Assumed: the documentation says that it is made of the label.)
var propertyName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)

// propertyGroup is what properties stand in.
type propertyGroup struct {
	Name     string `json:"name"`
	Label    string `json:"label"`
	Order    int    `json:"displayOrder"`
	Archived bool   `json:"archived"`
}

type propertyForm struct {
	Name           string       `json:"name"`
	Label          string       `json:"label"`
	Type           string       `json:"type"`
	FieldType      string       `json:"fieldType"`
	Group          string       `json:"groupName"`
	Options        []optionForm `json:"options"`
	HasUniqueValue bool         `json:"hasUniqueValue"`
}

type optionForm struct {
	Label  string `json:"label"`
	Value  string `json:"value"`
	Order  int    `json:"displayOrder"`
	Hidden bool   `json:"hidden"`
}

// propertyResult is a property as the API tells of it.
type propertyResult struct {
	propertyForm `json:",inline"`
	External     bool            `json:"externalOptions"`
	Hidden       bool            `json:"hidden"`
	Calculated   bool            `json:"calculated"`
	FormField    bool            `json:"formField"`
	Modification map[string]bool `json:"modificationMetadata"`
}

type pipelineResult struct {
	ID       string        `json:"id"`
	Label    string        `json:"label"`
	Order    int           `json:"displayOrder"`
	Archived bool          `json:"archived"`
	Stages   []stageResult `json:"stages"`
}

type stageResult struct {
	ID       string            `json:"id"`
	Label    string            `json:"label"`
	Order    int               `json:"displayOrder"`
	Archived bool              `json:"archived"`
	Metadata map[string]string `json:"metadata"`
}

func (h *hubspot) serveProperties(c *call, r route) reply {
	if len(r.rest) == 2 && r.rest[1] == "groups" {
		return h.serveGroups(c, r)
	}
	if len(r.rest) == 0 || len(r.rest) > 2 {
		return h.refusal(c, http.StatusNotFound, "")
	}
	t := h.open(r.rest[0])
	if t == nil {
		return h.fail(c, problem{status: http.StatusBadRequest, message: "Unable to infer object type from: " + r.rest[0]})
	}
	switch {
	case c.method == http.MethodGet:
		if scope := h.scope("schemas", t, "read"); h.lacks(scope) {
			return h.missingScope(c, scope)
		}
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		if len(r.rest) == 2 {
			p := t.properties[r.rest[1]]
			if p == nil {
				return h.refusal(c, http.StatusNotFound, "")
			}
			return h.succeed(http.StatusOK, newPropertyResult(p))
		}
		results := make([]propertyResult, 0, len(t.names))
		for _, name := range t.names {
			results = append(results, newPropertyResult(t.properties[name]))
		}
		return h.succeed(http.StatusOK, map[string]any{"results": results})
	case c.method == http.MethodPost && len(r.rest) == 1:
		if scope := h.scope("schemas", t, "write"); h.lacks(scope) {
			return h.missingScope(c, scope)
		}
		return h.createProperty(c, t)
	}
	return h.refusal(c, http.StatusMethodNotAllowed, "")
}

func (h *hubspot) createProperty(c *call, t *table) reply {
	var in propertyForm
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	var lacks []string
	for _, f := range [][2]string{
		{"name", in.Name}, {"label", in.Label}, {"type", in.Type}, {"fieldType", in.FieldType}, {"groupName", in.Group},
	} {
		if f[1] == "" {
			lacks = append(lacks, f[0])
		}
	}
	if len(lacks) > 0 {
		return h.fail(c, *missingFields(lacks...))
	}
	if !slices.Contains([]string{"string", "number", "date", "datetime", "enumeration", "bool", "phone_number"}, in.Type) {
		return h.fail(c, *validation("%s is not a property type", in.Type))
	}
	if !propertyName.MatchString(in.Name) {
		return h.fail(c, *validation("Property name '%s' is invalid: it may hold small letters, digits and underscores, and begins with a letter.", in.Name)) // assumed
	}
	var values []string
	for _, o := range in.Options {
		values = append(values, o.Value)
	}
	slices.Sort(values)
	switch {
	case in.Type == "bool" && !slices.Equal(values, []string{"false", "true"}): // as others have seen it
		return h.fail(c, *validation("Boolean properties must have exactly two options; one with a value of 'true', the other with a value of 'false'."))
	case in.Type == "enumeration" && len(values) == 0:
		return h.fail(c, *validation("Enumeration properties must have options.")) // the schema wants them; the words are assumed
	case len(slices.Compact(slices.Clone(values))) < len(values):
		return h.fail(c, *validation("Property option values must be unique.")) // assumed
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if !slices.ContainsFunc(t.groups, func(g propertyGroup) bool { return g.Name == in.Group }) {
		return h.fail(c, *validation("Property group %s does not exist.", in.Group)) // assumed
	}
	// Uniqueness cannot be given to a property afterwards either: there is no way but to make it.
	if t.properties[in.Name] != nil {
		return h.fail(c, problem{
			status: http.StatusConflict, category: "OBJECT_ALREADY_EXISTS",
			message: "A property named '" + in.Name + "' already exists.",
		})
	}
	if in.HasUniqueValue {
		n := 0
		for _, k := range t.keys {
			if k.Name != emailProperty {
				n++
			}
		}
		if n >= uniqueProperties {
			return h.fail(c, *validation("An object has at most %d unique properties", uniqueProperties))
		}
	}
	p := Property{
		Name: in.Name, Label: in.Label, Type: in.Type, FieldType: in.FieldType, Group: in.Group, Unique: in.HasUniqueValue,
	}
	p.Labels = map[string]string{}
	for _, o := range in.Options {
		p.Labels[o.Value] = o.Label
		if o.Hidden {
			p.Retired = append(p.Retired, o.Value)
		} else {
			p.Options = append(p.Options, o.Value)
		}
	}
	t.defineProperty(p)
	return h.succeed(http.StatusCreated, newPropertyResult(t.properties[in.Name]))
}

// serveGroups lists and makes the groups that properties stand in.
func (h *hubspot) serveGroups(c *call, r route) reply {
	t := h.open(r.rest[0])
	if t == nil {
		return h.fail(c, problem{status: http.StatusBadRequest, message: "Unable to infer object type from: " + r.rest[0]})
	}
	access := "read"
	if c.method == http.MethodPost {
		access = "write"
	}
	if scope := h.scope("schemas", t, access); h.lacks(scope) {
		return h.missingScope(c, scope)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	switch c.method {
	case http.MethodGet:
		return h.succeed(http.StatusOK, map[string]any{"results": t.groups})
	case http.MethodPost:
	default:
		return h.refusal(c, http.StatusMethodNotAllowed, "")
	}
	var in propertyGroup
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if in.Name == "" || in.Label == "" {
		return h.fail(c, *missingFields("name", "label"))
	}
	if slices.ContainsFunc(t.groups, func(g propertyGroup) bool { return g.Name == in.Name }) {
		return h.fail(c, problem{
			status: http.StatusConflict, category: "CONFLICT", message: "A property group named '" + in.Name + "' already exists.", // assumed
		})
	}
	t.groups = append(t.groups, propertyGroup{Name: in.Name, Label: in.Label, Order: in.Order})
	return h.succeed(http.StatusCreated, in)
}

// serveOwners lists the owners; who has left is in a list of his own.
func (h *hubspot) serveOwners(c *call, r route) reply {
	switch {
	case c.method != http.MethodGet:
		return h.refusal(c, http.StatusMethodNotAllowed, "")
	case len(r.rest) > 0:
		return h.refusal(c, http.StatusNotFound, "")
	case h.lacks("crm.objects.owners.read"):
		return h.missingScope(c, "crm.objects.owners.read")
	}
	type owner struct {
		ID        string `json:"id"`
		Email     string `json:"email"`
		Type      string `json:"type"`
		FirstName string `json:"firstName"`
		LastName  string `json:"lastName"`
		UserID    int64  `json:"userId,omitzero"`
		Archived  bool   `json:"archived"`
	}
	limit, err := strconv.Atoi(cmp.Or(c.query.Get("limit"), "100"))
	after, afterErr := strconv.Atoi(cmp.Or(c.query.Get("after"), "0"))
	if err != nil || limit < 1 || limit > 500 || afterErr != nil || after < 0 {
		return h.fail(c, *validation("limit must be between 1 and 500")) // assumed
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	all := []owner{}
	for i, o := range h.store.owners[hubspotName] {
		if o.Left == (c.query.Get("archived") == "true") && (c.query.Get("email") == "" || c.query.Get("email") == o.Email) {
			one := owner{ID: o.ID, Email: o.Email, Type: "PERSON", FirstName: o.FirstName, LastName: o.LastName, Archived: o.Left}
			if !o.Left {
				one.UserID = int64(9_586_504 + i)
			}
			all = append(all, one)
		}
	}
	page := all[min(after, len(all)):min(after+limit, len(all))]
	out := map[string]any{"results": page}
	if after+limit < len(all) {
		out["paging"] = map[string]any{"next": map[string]string{"after": strconv.Itoa(after + limit)}}
	}
	return h.succeed(http.StatusOK, out)
}

// serveTokenInfo tells what a token is allowed: that of a private app, and as others report a service key.
func (h *hubspot) serveTokenInfo(c *call, r route) reply {
	if r.version != "v2" || !slices.Equal(r.rest, []string{"private-apps", "get", "access-token-info"}) {
		return h.refusal(c, http.StatusNotFound, "")
	}
	if c.method != http.MethodPost {
		return h.refusal(c, http.StatusMethodNotAllowed, "")
	}
	var in struct {
		TokenKey string `json:"tokenKey"`
	}
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if !h.server.admits(hubspotName, in.TokenKey) {
		return h.refusal(c, http.StatusNotFound, "") // assumed
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	scopes := []string{"oauth"}
	add := func(scope string) {
		if !h.lacks(scope) && !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	add("crm.objects.owners.read")
	for _, t := range h.store.tables {
		if t.dialect == hubspotName {
			for _, kind := range []string{"objects", "schemas"} {
				add(h.scope(kind, t, "read"))
				add(h.scope(kind, t, "write"))
			}
		}
	}
	return h.succeed(http.StatusOK, map[string]any{"userId": 9_586_504, "hubId": h.server.account.Load(), "appId": 1_234_567, "scopes": scopes})
}

func (h *hubspot) servePipelines(c *call, r route) reply {
	if len(r.rest) == 0 || len(r.rest) > 3 || len(r.rest) == 3 && r.rest[2] != "stages" {
		return h.refusal(c, http.StatusNotFound, "")
	}
	t := h.open(r.rest[0])
	if t == nil {
		return h.fail(c, problem{status: http.StatusBadRequest, message: "Unable to infer object type from: " + r.rest[0]})
	}
	if c.method != http.MethodGet {
		return h.refusal(c, http.StatusMethodNotAllowed, "")
	}
	if scope := h.scope("objects", t, "read"); h.lacks(scope) {
		return h.missingScope(c, scope)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	results := make([]pipelineResult, 0, len(t.pipelines))
	for i, p := range t.pipelines {
		if p.Archived {
			continue // assumed: the API tells of those that are there
		}
		result := pipelineResult{ID: p.ID, Label: p.Label, Order: i, Stages: []stageResult{}}
		for j, s := range p.Stages {
			result.Stages = append(result.Stages, stageResult{ID: s.ID, Label: s.Label, Order: j, Metadata: s.Metadata, Archived: s.Archived})
		}
		results = append(results, result)
	}
	if len(r.rest) == 1 {
		return h.succeed(http.StatusOK, map[string]any{"results": results})
	}
	i := slices.IndexFunc(results, func(p pipelineResult) bool { return p.ID == r.rest[1] })
	if i < 0 {
		return h.refusal(c, http.StatusNotFound, "")
	}
	if len(r.rest) == 3 {
		return h.succeed(http.StatusOK, map[string]any{"results": results[i].Stages})
	}
	return h.succeed(http.StatusOK, results[i])
}

// newPropertyResult tells of a contact's email that it is not unique, though it is: that flag is of custom properties. (Assumed.)
func newPropertyResult(p *Property) propertyResult {
	r := propertyResult{
		propertyForm: propertyForm{
			Name: p.Name, Label: p.Label, Type: p.Type, FieldType: p.FieldType, Group: p.Group,
			Options: []optionForm{}, HasUniqueValue: p.Unique && p.aliases == "",
		},
		External:     p.Type == "enumeration" && len(p.Options) == 0,
		FormField:    !p.ReadOnly,
		Modification: map[string]bool{"archivable": true, "readOnlyDefinition": p.ReadOnly, "readOnlyValue": p.ReadOnly},
	}
	if r.FieldType == "" {
		r.FieldType = map[string]string{
			"string": "text", "number": "number", "date": "date", "datetime": "date", "enumeration": "select",
			"bool": "booleancheckbox",
		}[p.Type]
	}
	if p.Multiple && p.Type == "enumeration" {
		r.FieldType = "checkbox"
	}
	for i, o := range p.Options {
		r.Options = append(r.Options, optionForm{Label: p.label(o), Value: o, Order: i})
	}
	for i, o := range p.Retired {
		r.Options = append(r.Options, optionForm{Label: p.label(o), Value: o, Order: len(p.Options) + i, Hidden: true})
	}
	return r
}

// hubspotProperties are the usual standard properties of an object: not all that HubSpot has, but those that mappings use.
func hubspotProperties(object string) []Property {
	texts := func(names ...string) []Property { return typed("string", names...) }
	one := func(p Property) []Property { return []Property{p} }
	enum := func(name string, options ...string) []Property {
		return one(Property{Name: name, Type: "enumeration", FieldType: "select", Options: options})
	}
	common := slices.Concat(readOnly("number", hubspotKey), readOnly("datetime", "createdate", modifiedProperty(object)))
	owner := typed("enumeration", "hubspot_owner_id")
	place := texts("address", "city", "state", "zip", "country")
	leadStatus := enum("hs_lead_status", "NEW", "OPEN", "IN_PROGRESS", "OPEN_DEAL", "UNQUALIFIED", "ATTEMPTED_TO_CONTACT",
		"CONNECTED", "BAD_TIMING")
	stages := func() []Property {
		pipeline, stage := stageProperties(object)
		return typed("enumeration", pipeline, stage)
	}
	switch object {
	case "contacts":
		return slices.Concat(common, owner, place, leadStatus,
			one(Property{Name: emailProperty, Type: "string", FieldType: "text", Unique: true, aliases: "hs_additional_emails"}),
			texts("firstname", "lastname", "phone", "mobilephone", "fax", "company", "website", "jobtitle", "salutation",
				"message", "industry", "annualrevenue", "hs_additional_emails", "hs_linkedin_url", "twitterhandle"),
			enum(lifecycleProperty, hubspotLifecycle()...))
	case "companies":
		return slices.Concat(common, owner, place, leadStatus,
			texts("name", "domain", "address2", "phone", "website", "description", "linkedin_company_page", "founded_year"),
			typed("number", "annualrevenue", "numberofemployees"),
			enum("type", "PROSPECT", "PARTNER", "RESELLER", "VENDOR", "OTHER"),
			enum(lifecycleProperty, hubspotLifecycle()...))
	case "deals":
		return slices.Concat(common, owner, stages(),
			texts("dealname", "description", "hs_next_step", "closed_lost_reason", "closed_won_reason"),
			typed("number", "amount"), typed("datetime", "closedate"),
			enum("deal_currency_code", "USD", "EUR", "GBP", "CAD", "AUD", "JPY", "CHF", "SEK", "NOK", "DKK", "INR", "BRL", "SGD"),
			enum("dealtype", "newbusiness", "existingbusiness"), enum("hs_priority", "low", "medium", "high"))
	case "tickets":
		return slices.Concat(common, owner, stages(), texts("subject", "content"),
			enum("hs_ticket_priority", "LOW", "MEDIUM", "HIGH", "URGENT"),
			enum("hs_ticket_category", "PRODUCT_ISSUE", "BILLING_ISSUE", "FEATURE_REQUEST", "GENERAL_INQUIRY"))
	case "notes":
		return slices.Concat(common, owner, texts("hs_note_body", "hs_attachment_ids"), typed("datetime", "hs_timestamp"))
	case "tasks":
		return slices.Concat(common, owner, texts("hs_task_subject", "hs_task_body"), typed("datetime", "hs_timestamp"),
			enum("hs_task_status", "NOT_STARTED", "IN_PROGRESS", "WAITING", "DEFERRED", "COMPLETED"),
			enum("hs_task_priority", "NONE", "LOW", "MEDIUM", "HIGH"), enum("hs_task_type", "TODO", "CALL", "EMAIL"))
	case "leads":
		return slices.Concat(common, owner, stages(), texts("hs_lead_name"),
			enum("hs_lead_type", "NEW BUSINESS", "RE-ATTEMPTING", "UPSELL"), enum("hs_lead_label", "WARM", "HOT", "COLD"))
	}
	return common
}

// hubspotPipelines are those that a new portal has.
func hubspotPipelines(object string) []Pipeline {
	switch object {
	case "deals":
		return []Pipeline{{ID: "default", Label: "Sales Pipeline", Stages: []Stage{
			dealStage("appointmentscheduled", "Appointment Scheduled", 0.2),
			dealStage("qualifiedtobuy", "Qualified To Buy", 0.4),
			dealStage("presentationscheduled", "Presentation Scheduled", 0.6),
			dealStage("decisionmakerboughtin", "Decision Maker Bought-In", 0.8),
			dealStage("contractsent", "Contract Sent", 0.9),
			dealStage("closedwon", "Closed Won", 1),
			dealStage("closedlost", "Closed Lost", 0),
		}}}
	case "tickets":
		return []Pipeline{{ID: "0", Label: "Support Pipeline", Stages: []Stage{
			ticketStage("1", "New"), ticketStage("2", "Waiting on contact"), ticketStage("3", "Waiting on us"),
			{ID: "4", Label: "Closed", Metadata: map[string]string{"ticketState": "CLOSED", "isClosed": "true"}},
		}}}
	}
	return nil
}

func dealStage(id, label string, probability float64) Stage {
	return Stage{ID: id, Label: label, Metadata: map[string]string{
		"isClosed":    strconv.FormatBool(strings.HasPrefix(id, "closed")),
		"probability": strconv.FormatFloat(probability, 'f', 1, 64),
	}}
}

func ticketStage(id, label string) Stage {
	return Stage{ID: id, Label: label, Metadata: map[string]string{"ticketState": "OPEN", "isClosed": "false"}}
}

// defaultView are the properties that a read shows when it asks for none.
func defaultView(object string) []string {
	switch object {
	case "contacts":
		return []string{emailProperty, "firstname", "lastname"}
	case "companies":
		return []string{"name", "domain"}
	case "deals":
		return []string{"dealname", "amount", "closedate", "dealstage", "pipeline"}
	case "tickets":
		return []string{"subject", "content", "hs_pipeline", "hs_pipeline_stage"}
	case "leads":
		return []string{"hs_lead_name"}
	}
	return nil
}

func typed(kind string, names ...string) []Property {
	out := make([]Property, 0, len(names))
	for _, name := range names {
		out = append(out, Property{Name: name, Type: kind})
	}
	return out
}

func readOnly(kind string, names ...string) []Property {
	out := typed(kind, names...)
	for i := range out {
		out[i].ReadOnly = true
	}
	return out
}
