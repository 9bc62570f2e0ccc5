package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pipedrive speaks Pipedrive's API v2, and what of v1 has no successor: leads, notes, the current user. It knows no unique
// values: two posts make two records.
type pipedrive struct {
	server *Server
	store  *store
}

const (
	pipedriveName   = "pipedrive"
	pipedriveHelp   = "Please check developers.pipedrive.com for more information about Pipedrive API."
	pipedriveExpiry = 3599 * time.Second
	pipedriveText   = 255 // characters of a short text
	pipedriveIDs    = 100 // that one read takes
)

// pipedriveObjects are the objects: the name in paths, the one in searches and messages, the one in front of Fields.
var pipedriveObjects = [...]struct{ plural, singular string }{
	{"deals", "deal"},
	{"persons", "person"},
	{"organizations", "organization"},
	{"activities", "activity"},
	{"leads", "lead"},
	{"notes", "note"},
}

// PipedriveLimits are those of an account on the smallest plan with one seat: requests and searches in two seconds, and
// tokens a day.
func PipedriveLimits() []Limit {
	return []Limit{
		{Dialect: pipedriveName, Policy: "burst", Requests: 20, Per: 2 * time.Second},
		{Dialect: pipedriveName, Policy: "search", Path: "earch", Requests: 10, Per: 2 * time.Second},
		{Dialect: pipedriveName, Policy: "daily", Requests: 30_000, Per: 24 * time.Hour, Weighed: true},
	}
}

func newPipedrive(server *Server) *pipedrive {
	p := &pipedrive{server: server, store: server.store}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	for _, o := range pipedriveObjects {
		t := p.store.define(pipedriveName, o.plural)
		t.typeID = o.singular
		for _, property := range pipedriveProperties(o.plural) {
			t.defineProperty(property)
		}
	}
	deals := p.store.table(pipedriveName, "deals")
	deals.definePipeline(Pipeline{ID: "1", Label: "Pipeline", Stages: []Stage{
		{ID: "1", Label: "Qualified"}, {ID: "2", Label: "Contact Made"}, {ID: "3", Label: "Demo Scheduled"},
		{ID: "4", Label: "Proposal Made"}, {ID: "5", Label: "Negotiations Started"},
	}})
	p.store.owners[pipedriveName] = usualOwners("12001", "12002", "12003")
	return p
}

func (p *pipedrive) name() string { return pipedriveName }

// object knows an object by plural and singular.
func (p *pipedrive) object(name string) string {
	if t := p.store.named(pipedriveName, name); t != nil {
		return t.object
	}
	return name
}

// newID spells a number, but for leads, whose ids are UUIDs.
func (p *pipedrive) newID(object string, n int64) string {
	if object == "leads" {
		return guid(0x1ead, n)
	}
	return spellID(n)
}

// charge is what requests cost in tokens.
func (p *pipedrive) charge(c *call) (cost int, writes bool) {
	at := c.segments
	last := at[len(at)-1]
	switch {
	case at[0] == "oauth":
		return 0, false
	case strings.Contains(c.path, "earch"):
		return 20, false
	case c.method == http.MethodDelete:
		return 3, true
	case c.method != http.MethodGet:
		return 5, true
	case slices.ContainsFunc(pipedriveObjects[:], func(o struct{ plural, singular string }) bool { return o.plural == last }):
		return 10, false
	}
	return 1, false
}

func (p *pipedrive) serve(c *call) reply {
	p.server.patience(true)
	at := c.segments
	if len(at) == 2 && at[0] == "oauth" && at[1] == "token" || len(at) == 3 && at[0] == "oauth" && at[2] == "" {
		return p.serveToken(c)
	}
	if at[0] == "api" {
		at = at[1:]
	}
	if len(at) < 2 || at[0] != "v1" && at[0] != "v2" {
		return p.refusal(c, http.StatusNotFound, "")
	}
	token := c.header.Get("X-Api-Token")
	if token == "" {
		token = bearer(c, "Bearer")
	}
	if token == "" && at[0] == "v1" {
		token = c.query.Get("api_token")
	}
	if !p.server.admits(pipedriveName, token) {
		return p.refusal(c, http.StatusUnauthorized, "")
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if at[0] == "v1" {
		return p.serveOld(c, at[1:])
	}
	return p.serveNew(c, at[1:])
}

// serveNew serves API v2. The caller holds the store.
func (p *pipedrive) serveNew(c *call, at []string) reply {
	if c.method == http.MethodGet {
		switch {
		case len(at) == 1 && at[0] == "itemSearch":
			return p.searchItems(c)
		case len(at) == 2 && at[0] == "itemSearch" && at[1] == "field":
			return p.searchField(c)
		case len(at) == 1 && at[0] == "stages":
			return p.stages(c)
		case len(at) == 1 && at[0] == "pipelines":
			return p.pipelines()
		case len(at) == 1 && strings.HasSuffix(at[0], "Fields"):
			return p.fields(c, strings.TrimSuffix(at[0], "Fields"), 2)
		}
	}
	if singular, ok := strings.CutSuffix(at[0], "Fields"); ok && len(at) == 1 && c.method == http.MethodPost {
		return p.createField(c, singular)
	}
	t := p.store.table(pipedriveName, at[0])
	if t != nil && t.object != "notes" && len(at) == 2 && at[1] == "search" && c.method == http.MethodGet {
		return p.searchObject(c, t)
	}
	if t == nil || t.object == "leads" || t.object == "notes" {
		return p.refusal(c, http.StatusNotFound, "")
	}
	return p.serveRecords(c, t, at[1:])
}

// serveOld serves what API v1 still does.
func (p *pipedrive) serveOld(c *call, at []string) reply {
	switch at[0] {
	case "users":
		if len(at) == 2 && at[1] == "me" && c.method == http.MethodGet {
			return p.serveUser(c)
		}
		if len(at) == 1 && c.method == http.MethodGet {
			return p.users(c)
		}
	case "leads", "notes":
		return p.serveRecords(c, p.store.table(pipedriveName, at[0]), at[1:])
	case "dealFields", "personFields", "organizationFields", "activityFields", "leadFields", "noteFields":
		if c.method == http.MethodGet && len(at) == 1 {
			return p.fields(c, strings.TrimSuffix(at[0], "Fields"), 1)
		}
	case "deals", "persons", "organizations", "activities", "pipelines", "stages", "itemSearch":
		return p.refusal(c, http.StatusGone, "") // out of support; that they answer 410 is assumed
	}
	return p.refusal(c, http.StatusNotFound, "")
}

func (p *pipedrive) serveRecords(c *call, t *table, at []string) reply {
	switch {
	case len(at) == 0 && c.method == http.MethodGet:
		return p.list(c, t)
	case len(at) == 0 && c.method == http.MethodPost:
		return p.create(c, t)
	case len(at) == 1 && c.method == http.MethodGet:
		return p.get(c, t, at[0])
	case len(at) == 1 && c.method == pipedriveChange(t.object):
		return p.update(c, t, at[0])
	case len(at) == 1 && c.method == http.MethodDelete:
		return p.remove(c, t, at[0])
	case len(at) > 1:
		return p.refusal(c, http.StatusNotFound, "")
	}
	return p.refusal(c, http.StatusMethodNotAllowed, "")
}

// pipedriveChange is the verb that changes a record: notes are left with that of old.
func pipedriveChange(object string) string {
	if object == "notes" {
		return http.MethodPut
	}
	return http.MethodPatch
}

// refusal is Pipedrive's own body for a status, or Cloudflare's page.
func (p *pipedrive) refusal(c *call, status int, policy string) reply {
	if c.segments[0] == "oauth" && status != http.StatusTooManyRequests {
		return jsonReply(status, map[string]any{"success": false, "error": "invalid_grant", "message": strings.ToLower(http.StatusText(status))})
	}
	switch status {
	case http.StatusUnauthorized:
		return p.fail(status, "unauthorized access", "")
	case http.StatusForbidden:
		return p.fail(status, "Scope and URL mismatch", "") // assumed
	case http.StatusNotFound:
		return p.fail(status, "Unknown method .", "")
	case http.StatusMethodNotAllowed:
		return p.fail(status, "Method not allowed", "")
	case http.StatusGone:
		return p.fail(status, "This endpoint is no longer available", "")
	case http.StatusTooManyRequests:
		if policy == "cloudflare" || !p.server.patience(false) {
			return reply{
				status: http.StatusForbidden, header: http.Header{"Content-Type": {"text/html; charset=UTF-8"}, "Server": {"cloudflare"}},
				body: []byte("<!DOCTYPE html>\n<html lang=\"en-US\"><head><title>Access denied | sandbox used Cloudflare to restrict access</title></head>" +
					"<body><h1>Error 1015</h1><p>You are being rate limited</p></body></html>\n"),
			}
		}
		rep := p.fail(status, "request over limit", "")
		p.limited(c, allowance{Limit: Limit{Policy: policy}, reset: 2 * time.Second}, &rep)
		return rep
	}
	return p.fail(status, http.StatusText(status), "")
}

// limited adds the headers that report the limits: those of the burst, and what is left of the day.
func (p *pipedrive) limited(_ *call, l allowance, r *reply) {
	if r.status == http.StatusForbidden {
		return // Cloudflare knows nothing of them
	}
	if l.Policy == "daily" {
		r.set("X-Daily-Requests-Left", strconv.Itoa(l.remaining))
		return
	}
	if l.Policy == "search" && r.status < 400 {
		return // both count a search; the burst is reported
	}
	if l.Requests > 0 {
		r.set("X-RateLimit-Limit", strconv.Itoa(l.Requests))
	}
	r.set("X-RateLimit-Remaining", strconv.Itoa(l.remaining))
	r.set("X-RateLimit-Reset", strconv.Itoa(seconds(l.reset)))
}

func (p *pipedrive) fail(status int, message, code string) reply {
	body := map[string]any{
		"success": false, "error": message, "error_info": pipedriveHelp, "errorCode": status, "data": nil, "additional_data": nil,
	}
	if code != "" {
		body["code"] = code
	}
	return jsonReply(status, body)
}

func (p *pipedrive) succeed(status int, data any) reply {
	return jsonReply(status, map[string]any{"success": true, "data": data})
}

// serveToken renews an access token. The client's credentials have to be in the header.
func (p *pipedrive) serveToken(c *call) reply {
	refuse := func(status int, code, why string) reply {
		return jsonReply(status, map[string]any{"success": false, "error": code, "message": why})
	}
	if c.method != http.MethodPost {
		return p.refusal(c, http.StatusMethodNotAllowed, "")
	}
	want := p.server.options.Clients[pipedriveName]
	values := form(c)
	id, secret, inHeader := clientOf(c, values)
	switch {
	case !inHeader || !knows(id, want.ID) || !knows(secret, want.Secret):
		return refuse(http.StatusUnauthorized, "invalid_client", "Client authentication failed")
	case values.Get("grant_type") != "refresh_token":
		return refuse(http.StatusBadRequest, "unsupported_grant_type", "Grant type is not supported")
	case !knows(values.Get("refresh_token"), want.RefreshToken):
		return refuse(http.StatusBadRequest, "invalid_grant", "Invalid grant: refresh token is invalid")
	}
	token, life := p.server.issue(pipedriveName, "v1u:sandbox.%d", pipedriveExpiry)
	return jsonReply(http.StatusOK, map[string]any{
		"access_token": token, "token_type": "Bearer", "refresh_token": values.Get("refresh_token"), "scope": "base",
		"expires_in": int(life / time.Second), "api_domain": c.base,
	})
}

// serveUser is what tells one company from another.
func (p *pipedrive) serveUser(*call) reply {
	return p.succeed(http.StatusOK, map[string]any{
		"id": 777, "name": "Integration User", "email": "integration@sandbox.test", "default_currency": "USD", "locale": "en_US",
		"timezone_name": "Etc/UTC", "timezone_offset": "+00:00", "activated": true, "is_admin": 1, "active_flag": true,
		"company_id": p.server.account.Load(), "company_name": "Sandbox", "company_domain": "sandbox", "company_country": "US",
	})
}

// patience counts refusals in a row and tells whether Pipedrive itself answers the next.
func (s *Server) patience(served bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if served {
		s.ignored = 0
		return true
	}
	s.ignored++
	return s.options.Patience <= 0 || s.ignored <= s.options.Patience
}

// pipedriveProperties are the standard fields of an object, of those that mappings use. What Define adds are custom fields.
func pipedriveProperties(object string) []Property {
	texts := func(names ...string) []Property { return typed("string", names...) }
	links := []Property{lookup("person_id", "persons"), lookup("org_id", "organizations")}
	common := slices.Concat(typed("integer", "owner_id", "visible_to"), typed("datetime", "add_time", "update_time"))
	switch object {
	case "deals":
		return slices.Concat(common, links, []Property{required(Property{Name: "title"}), picklist("status", "open", "won", "lost")},
			typed("number", "value", "probability"), typed("integer", "stage_id", "pipeline_id"), typed("date", "expected_close_date"),
			texts("currency", "lost_reason", "origin_id"), typed("datetime", "won_time", "lost_time", "close_time"),
			[]Property{{Name: "label_ids", Type: "list"}, {Name: "is_archived", Type: "bool"}})
	case "persons":
		return slices.Concat(common, links[1:], []Property{
			required(Property{Name: "name"}), {Name: "emails", Type: "contacts"}, {Name: "phones", Type: "contacts"}, {Name: "label_ids", Type: "list"},
			{Name: "im", Type: "list"}, {Name: "postal_address", Type: "object"},
		}, texts("first_name", "last_name", "marketing_status", "job_title", "notes", "birthday"))
	case "organizations":
		return slices.Concat(common, []Property{required(Property{Name: "name"}), {Name: "address", Type: "object"}, {Name: "label_ids", Type: "list"}})
	case "activities":
		return slices.Concat(common, links, []Property{lookup("deal_id", "deals"), lookup("lead_id", "leads")},
			texts("subject", "type", "note", "due_time", "duration", "public_description"), typed("date", "due_date"), typed("bool", "done", "busy"))
	case "leads":
		return slices.Concat(typed("integer", "owner_id"), []Property{required(Property{Name: "title"}), lookup("person_id", "persons"),
			lookup("organization_id", "organizations"), {Name: "value", Type: "money"}, {Name: "label_ids", Type: "list"}},
			typed("date", "expected_close_date"), typed("bool", "was_seen", "is_archived"), texts("visible_to", "origin_id"))
	case "notes":
		return slices.Concat(links, []Property{required(Property{Name: "content"}), lookup("deal_id", "deals"), lookup("lead_id", "leads")},
			texts("add_time"), typed("integer", "user_id"), typed("flag", "pinned_to_deal_flag", "pinned_to_person_flag", "pinned_to_organization_flag"))
	}
	return common
}

// pipedriveStandard tells a standard field from a custom one.
func pipedriveStandard(object, name string) bool {
	return slices.ContainsFunc(pipedriveProperties(object), func(p Property) bool { return p.Name == name })
}

// pipedriveSynced are a person's fields that only an account with Contact Sync has.
func pipedriveSynced() []string {
	return []string{"job_title", "notes", "im", "birthday", "postal_address"}
}
