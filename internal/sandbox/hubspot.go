package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hubspot speaks HubSpot's CRM API: objects, associations, properties, pipelines and account information, under its
// date-versioned paths and the older numbered ones.
type hubspot struct {
	server *Server
	store  *store
	labels []associationType // made by clients; the store's lock guards it
}

// hubspotObjects are the objects that every portal has: the name in paths, the one in messages, the type id.
var hubspotObjects = [...]struct{ plural, singular, typeID string }{
	{"contacts", "contact", "0-1"},
	{"companies", "company", "0-2"},
	{"deals", "deal", "0-3"},
	{"tickets", "ticket", "0-5"},
	{"tasks", "task", "0-27"},
	{"notes", "note", "0-46"},
	{"leads", "lead", "0-136"},
}

// route is a path of the API taken apart: /crm/objects/2026-09/deals/batch/upsert and /crm/v3/objects/deals/batch/upsert
// are both area "objects", rest "deals", "batch", "upsert".
type route struct {
	area    string
	version string
	rest    []string
}

const (
	hubspotName   = "hubspot"
	hubspotStrict = "2026-09" // the version that enforces required properties as an administrator configured them
	hubspotURI    = 8 << 10   // assumed: the documentation says "too long" without a number
)

// HubSpotLimits are the limits that HubSpot publishes for a free or starter portal: per app in ten seconds, searches per
// second, and per day.
func HubSpotLimits() []Limit {
	return []Limit{
		{Dialect: hubspotName, Policy: "TEN_SECONDLY_ROLLING", Requests: 100, Per: 10 * time.Second},
		{Dialect: hubspotName, Policy: "SECONDLY", Path: "/search", Requests: 5, Per: time.Second},
		{Dialect: hubspotName, Policy: "DAILY", Requests: 250_000, Per: 24 * time.Hour},
	}
}

func newHubspot(server *Server) *hubspot {
	s := server.store
	h := &hubspot{server: server, store: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, object := range hubspotObjects {
		t := s.define(hubspotName, object.plural)
		t.typeID = object.typeID
		for _, p := range hubspotProperties(object.plural) {
			t.defineProperty(p)
		}
		for _, p := range hubspotPipelines(object.plural) {
			t.definePipeline(p)
		}
		t.groups = []propertyGroup{{Name: object.singular + "information", Label: strings.ToUpper(object.singular[:1]) + object.singular[1:] + " information"}}
	}
	s.owners[hubspotName] = usualOwners("41629779", "41629780", "41629781")
	return h
}

// made gives an object of one's own the group that its properties stand in.
func (h *hubspot) made(t *table) {
	t.groups = []propertyGroup{{Name: t.object + "_information", Label: t.object + " information"}}
}

func (h *hubspot) name() string                   { return hubspotName }
func (h *hubspot) newID(_ string, n int64) string { return spellID(n) }

func (h *hubspot) charge(c *call) (cost int, writes bool) { return 1, c.method != http.MethodGet }

// object knows an object by plural, singular and type id, whatever the case.
func (h *hubspot) object(name string) string {
	name = strings.ToLower(name)
	for _, o := range hubspotObjects {
		if name == o.plural || name == o.singular || name == o.typeID {
			return o.plural
		}
	}
	if strings.HasPrefix(name, "2-") {
		for _, t := range h.store.tables {
			if t.dialect == hubspotName && h.typeID(t) == name {
				return t.object
			}
		}
	}
	return name
}

func (h *hubspot) serve(c *call) reply {
	if len(c.uri) > hubspotURI {
		return h.refusal(c, http.StatusRequestURITooLong, "")
	}
	if !h.server.admits(hubspotName, bearer(c, "Bearer")) {
		return h.refusal(c, http.StatusUnauthorized, "")
	}
	if len(c.body) > 0 && !strings.HasPrefix(strings.ToLower(c.header.Get("Content-Type")), "application/json") {
		return h.refusal(c, http.StatusUnsupportedMediaType, "")
	}
	r, ok := parseRoute(c.segments)
	if !ok {
		return h.refusal(c, http.StatusNotFound, "")
	}
	switch r.area {
	case "account-info":
		return h.serveAccount(c, r)
	case "oauth":
		return h.serveTokenInfo(c, r)
	case "owners":
		return h.serveOwners(c, r)
	case "objects":
		return h.serveObjects(c, r)
	case "associations":
		return h.serveAssociations(c, r)
	case "properties":
		return h.serveProperties(c, r)
	case "pipelines":
		return h.servePipelines(c, r)
	}
	return h.refusal(c, http.StatusNotFound, "")
}

// refusal is HubSpot's own body for a status.
func (h *hubspot) refusal(c *call, status int, policy string) reply {
	p := problem{status: status, message: http.StatusText(status)}
	switch status {
	case http.StatusUnauthorized:
		p.category = "INVALID_AUTHENTICATION"
		p.message = "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview"
	case http.StatusForbidden:
		return h.missingScope(c, "crm.objects.contacts.write")
	case http.StatusNotFound:
		p.category, p.message = "OBJECT_NOT_FOUND", "resource not found"
	case http.StatusLocked:
		p.message = "The resource is locked, retry after two seconds." // the text is assumed
	case http.StatusTooManyRequests:
		return h.throttled(c, policy)
	case 477:
		p.category, p.message = "MIGRATION_IN_PROGRESS", "This account is being migrated between data centers." // assumed
		r := h.fail(c, p)
		r.set("Retry-After", "3600")
		return r
	case http.StatusInternalServerError:
		p.message = "internal error"
	}
	return h.fail(c, p)
}

// throttled differs from other errors: an errorType and a policyName in the place of a category.
func (h *hubspot) throttled(c *call, policy string) reply {
	if policy == "" {
		policy = "TEN_SECONDLY_ROLLING"
	}
	id := correlationID(c)
	body := `{"status":"error","message":"You have reached your ` + strings.ToLower(policy) +
		` limit.","errorType":"RATE_LIMIT","correlationId":"` + id + `","policyName":"` + policy +
		`","requestId":"` + strings.ReplaceAll(id, "-", "") + `"}`
	return reply{status: http.StatusTooManyRequests, body: []byte(body)}
}

// limited adds the headers that HubSpot reports its limits with; searches have none. (That a 429 has none is assumed.)
func (h *hubspot) limited(c *call, l allowance, r *reply) {
	if strings.HasSuffix(c.path, "/search") || r.status == http.StatusTooManyRequests {
		return
	}
	switch l.Policy {
	case "TEN_SECONDLY_ROLLING":
		r.set("X-HubSpot-RateLimit-Max", strconv.Itoa(l.Requests))
		r.set("X-HubSpot-RateLimit-Remaining", strconv.Itoa(l.remaining))
		r.set("X-HubSpot-RateLimit-Interval-Milliseconds", strconv.FormatInt(l.Per.Milliseconds(), 10))
	case "DAILY":
		r.set("X-HubSpot-RateLimit-Daily", strconv.Itoa(l.Requests))
		r.set("X-HubSpot-RateLimit-Daily-Remaining", strconv.Itoa(l.remaining))
	}
}

// serveAccount is what tells one account from another.
func (h *hubspot) serveAccount(c *call, r route) reply {
	if c.method != http.MethodGet {
		return h.refusal(c, http.StatusMethodNotAllowed, "")
	}
	if len(r.rest) != 1 || r.rest[0] != "details" {
		return h.refusal(c, http.StatusNotFound, "")
	}
	return h.succeed(http.StatusOK, map[string]any{
		"portalId": h.server.account.Load(), "accountType": "DEVELOPER_TEST", "timeZone": "Etc/UTC", "companyCurrency": "USD",
		"additionalCurrencies": []string{}, "utcOffset": "+00:00", "utcOffsetMilliseconds": 0,
		"uiDomain": "app.hubspot.com", "dataHostingLocation": "na1",
	})
}

// serveObjects dispatches what is below an object's path.
func (h *hubspot) serveObjects(c *call, r route) reply {
	if len(r.rest) == 0 {
		return h.refusal(c, http.StatusNotFound, "")
	}
	t := h.open(r.rest[0])
	if t == nil {
		return h.fail(c, problem{status: http.StatusBadRequest, message: "Unable to infer object type from: " + r.rest[0]})
	}
	rest := r.rest[1:]
	if len(rest) > 1 && rest[1] == "associations" {
		return h.serveRecordAssociations(c, t, rest[0], rest[2:])
	}
	type action struct {
		scope string
		do    func() reply
	}
	actions := map[string]action{}
	switch {
	case len(rest) == 0:
		actions[http.MethodGet] = action{"read", func() reply { return h.list(c, t) }}
		actions[http.MethodPost] = action{"write", func() reply { return h.createOne(c, t, r.version) }}
	case len(rest) == 1 && rest[0] == "search":
		actions[http.MethodPost] = action{"read", func() reply { return h.search(c, t) }}
	case len(rest) == 1:
		actions[http.MethodGet] = action{"read", func() reply { return h.get(c, t, rest[0]) }}
		actions[http.MethodPatch] = action{"write", func() reply { return h.updateOne(c, t, rest[0]) }}
		actions[http.MethodDelete] = action{"write", func() reply { return h.archiveOne(c, t, rest[0]) }}
	case len(rest) == 2 && rest[0] == "batch":
		switch rest[1] {
		case "upsert", "create", "update":
			actions[http.MethodPost] = action{"write", func() reply { return h.writeBatch(c, t, r.version, operation(rest[1])) }}
		case "read":
			actions[http.MethodPost] = action{"read", func() reply { return h.readBatch(c, t) }}
		case "archive":
			actions[http.MethodPost] = action{"write", func() reply { return h.archiveBatch(c, t) }}
		}
	}
	if len(actions) == 0 {
		return h.refusal(c, http.StatusNotFound, "")
	}
	a, ok := actions[c.method]
	if !ok {
		return h.refusal(c, http.StatusMethodNotAllowed, "")
	}
	if scope := h.scope("objects", t, a.scope); h.lacks(scope) {
		return h.missingScope(c, scope)
	}
	return a.do()
}

// open finds the table of an object by any of its names, or nil.
func (h *hubspot) open(name string) *table {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return h.store.table(hubspotName, h.object(name))
}

func (h *hubspot) scope(kind string, t *table, access string) string {
	object := t.object
	if h.singular(t) == "" {
		object = "custom"
	}
	return "crm." + kind + "." + object + "." + access
}

func (h *hubspot) lacks(scope string) bool { return h.server.lacks(scope) }

// typeID is the type segment that a path may hold in the place of the name; those of custom objects start with 2-.
func (h *hubspot) typeID(t *table) string {
	if t.typeID == "" {
		i := slices.Index(h.store.tables, t)
		return fmt.Sprintf("2-%d", 40_000_000+i)
	}
	return t.typeID
}

// singular is the name of a standard object in messages, "" for a custom one.
func (h *hubspot) singular(t *table) string {
	for _, o := range hubspotObjects {
		if o.plural == t.object {
			return strings.ToUpper(o.singular)
		}
	}
	return ""
}

// title is the name of any object in messages.
func (h *hubspot) title(t *table) string {
	if s := h.singular(t); s != "" {
		return s
	}
	return strings.ToUpper(t.object)
}

func parseRoute(segments []string) (route, bool) {
	if len(segments) > 0 && segments[len(segments)-1] == "" {
		segments = segments[:len(segments)-1]
	}
	if len(segments) < 2 {
		return route{}, false
	}
	if segments[0] == "account-info" {
		return route{area: segments[0], version: segments[1], rest: segments[2:]}, isVersion(segments[1])
	}
	if segments[0] == "oauth" {
		return route{area: segments[0], version: segments[1], rest: segments[2:]}, true
	}
	if segments[0] != "crm" || len(segments) < 3 {
		return route{}, false
	}
	if isVersion(segments[1]) {
		return route{version: segments[1], area: segments[2], rest: segments[3:]}, true
	}
	return route{area: segments[1], version: segments[2], rest: segments[3:]}, isVersion(segments[2])
}

func isVersion(segment string) bool {
	switch segment {
	case "v3", "v4", "2026-03", hubspotStrict:
		return true
	}
	return false
}
