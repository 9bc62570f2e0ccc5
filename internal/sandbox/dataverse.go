package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// dataverse speaks the Web API of Dataverse: rows by id and by alternate key, UpsertMultiple, and the token endpoint of the
// identity platform with client credentials.
type dataverse struct {
	server *Server
	store  *store
}

const (
	dataverseName     = "dataverse"
	dataverseExpiry   = 3599 * time.Second
	dataverseAddress  = 32_768       // characters of an address
	dataverseRequests = "0x80072322" // the codes of what can be exceeded
	dataverseTime     = "0x80072321"
	dataverseParallel = "0x80072326"
)

// dataverseTables are those that every environment has, of those that mappings use: entity set and logical name.
var dataverseTables = [...]struct{ set, logical string }{
	{"accounts", "account"},
	{"contacts", "contact"},
	{"leads", "lead"},
	{"opportunities", "opportunity"},
	{"tasks", "task"},
	{"annotations", "annotation"},
}

// dvError is what is wrong with a request.
type dvError struct {
	status  int
	code    string
	message string
}

// DataverseLimits are those of a user on one server: requests in five minutes, and those under way.
func DataverseLimits() []Limit {
	return []Limit{
		{Dialect: dataverseName, Policy: dataverseRequests, Requests: 6000, Per: 5 * time.Minute, Rolling: true},
		{Dialect: dataverseName, Policy: dataverseParallel, Requests: 52, Concurrent: true},
	}
}

func newDataverse(server *Server) *dataverse {
	d := &dataverse{server: server, store: server.store}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	for _, one := range dataverseTables {
		t := d.store.define(dataverseName, one.set)
		t.typeID = one.logical
		for _, p := range dataverseProperties(one.set) {
			t.defineProperty(p)
		}
	}
	d.store.owners[dataverseName] = usualOwners(guid(0x05e2, 11), guid(0x05e2, 12), guid(0x05e2, 13))
	return d
}

func (d *dataverse) name() string { return dataverseName }

// object knows a table by entity set and logical name.
func (d *dataverse) object(name string) string {
	if t := d.store.named(dataverseName, name); t != nil {
		return t.object
	}
	return name
}

func (d *dataverse) newID(_ string, n int64) string { return guid(0xda7a, n) }

// made gives a table that the environment made its logical name, which is the entity set without its plural.
func (d *dataverse) made(t *table) {
	t.typeID = strings.TrimSuffix(t.object, "s")
	if stem, ok := strings.CutSuffix(t.object, "ies"); ok {
		t.typeID = stem + "y"
	}
	for _, p := range dataverseProperties(t.object) {
		t.defineProperty(p)
	}
}

func (d *dataverse) charge(c *call) (cost int, writes bool) {
	if c.segments[0] != "api" {
		return 0, false
	}
	return 1, c.method != http.MethodGet
}

func (d *dataverse) serve(c *call) reply {
	at := c.segments
	if len(at) == 4 && at[1] == "oauth2" && at[2] == "v2.0" && at[3] == "token" {
		return d.serveToken(c)
	}
	if len(at) < 4 || at[0] != "api" || at[1] != "data" || !strings.HasPrefix(at[2], "v9.") {
		return d.refusal(c, http.StatusNotFound, "")
	}
	if !d.server.admits(dataverseName, bearer(c, "Bearer")) {
		return d.refusal(c, http.StatusUnauthorized, "")
	}
	at = at[3:]
	if name := strings.TrimSuffix(at[0], "()"); name == "WhoAmI" && len(at) == 1 && c.method == http.MethodGet {
		return d.odata(http.StatusOK, map[string]any{
			"@odata.context": c.base + "/api/data/v9.2/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse",
			"BusinessUnitId": guid(0xb1, d.server.account.Load()), "UserId": guid(0x05e2, 1), "OrganizationId": guid(0x026, d.server.account.Load()),
		})
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	switch {
	case dvDefinition.MatchString(at[0]):
		return d.serveDefinition(c, at)
	case len(at) == 1 && at[0] == "systemusers" && c.method == http.MethodGet:
		return d.users(c)
	}
	return d.serveSet(c, at)
}

// serveSet serves an entity set, or a row of it. The caller holds the store.
func (d *dataverse) serveSet(c *call, at []string) reply {
	set, key, keyed := strings.Cut(at[0], "(")
	t := d.store.table(dataverseName, set)
	if t == nil {
		return d.fail(&dvError{http.StatusNotFound, "0x80060888", "Resource not found for the segment '" + shorten(set, 80) + "'."})
	}
	if scope := "prvWrite" + t.typeID; c.method != http.MethodGet && slices.ContainsFunc(*d.server.lacking.Load(), func(s string) bool { return strings.EqualFold(s, scope) }) {
		return d.refusal(c, http.StatusForbidden, "")
	}
	if !keyed {
		switch {
		case len(at) == 1 && c.method == http.MethodPost:
			return d.create(c, t)
		case len(at) == 1 && c.method == http.MethodGet:
			return d.list(c, t)
		case len(at) == 2 && strings.TrimSuffix(at[1], "()") == "Microsoft.Dynamics.CRM.UpsertMultiple" && c.method == http.MethodPost:
			return d.upsertMultiple(c, t)
		}
		return d.refusal(c, http.StatusMethodNotAllowed, "")
	}
	address, bad := d.address(t, key)
	if len(at) > 3 || len(at) == 2 || bad == nil && len(at) == 3 && at[2] != "$ref" {
		return d.fail(&dvError{http.StatusNotFound, "0x80060888", "Resource not found for the segment '" + shorten(at[1], 80) + "'."})
	}
	if bad != nil {
		return d.fail(bad)
	}
	if len(at) == 3 {
		return d.serveReference(c, t, address, at[1])
	}
	switch c.method {
	case http.MethodGet:
		return d.get(c, t, address)
	case http.MethodPatch:
		return d.upsert(c, t, address)
	case http.MethodDelete:
		return d.remove(c, t, address)
	}
	return d.refusal(c, http.StatusMethodNotAllowed, "")
}

// refusal is Dataverse's own body for a status.
func (d *dataverse) refusal(c *call, status int, policy string) reply {
	if len(c.segments) > 1 && c.segments[1] == "oauth2" {
		return d.refuseToken(status, "invalid_request", "AADSTS900144", strings.ToLower(http.StatusText(status)))
	}
	switch status {
	case http.StatusUnauthorized:
		rep := reply{status: status} // that there is no body is assumed
		rep.set("WWW-Authenticate", `Bearer authorization_uri="`+c.base+`/common/oauth2/authorize", resource_id="`+c.base+`/"`)
		return rep
	case http.StatusForbidden:
		return d.fail(&dvError{status, "0x80040220", "SecLib::CheckPrivilege failed. The user lacks a privilege that the operation needs."})
	case http.StatusNotFound:
		return d.fail(&dvError{status, "0x80060888", "Resource not found."})
	case http.StatusMethodNotAllowed:
		return d.fail(&dvError{status, "0x80060888", "The requested resource does not support http method '" + c.method + "'."})
	case http.StatusPreconditionFailed:
		return d.fail(&dvError{status, "0x80060882", "The version of the existing record doesn't match the RowVersion property provided."})
	case http.StatusTooManyRequests:
		if policy == "" {
			policy = dataverseRequests
		}
		message := map[string]string{
			dataverseRequests: "Number of requests exceeded the limit of 6000 over time window of 300 seconds.",
			dataverseTime: "Combined execution time of incoming requests exceeded limit of 1,200,000 milliseconds over time window of 300 seconds. " +
				"Decrease number of concurrent requests or reduce the duration of requests and try again later.",
			dataverseParallel: "Number of concurrent requests exceeded the limit of 52.",
		}[policy]
		rep := d.fail(&dvError{status, policy, message})
		rep.set("Retry-After", "10")
		return rep
	}
	return d.fail(&dvError{status, "0x80040216", "An unexpected error occurred."})
}

// limited tells how long to wait.
func (d *dataverse) limited(_ *call, l allowance, r *reply) {
	if r.status == http.StatusTooManyRequests {
		r.set("Retry-After", fmt.Sprint(seconds(l.reset)))
	}
}

func (d *dataverse) fail(e *dvError) reply {
	return d.odata(e.status, map[string]any{"error": map[string]string{"code": e.code, "message": e.message}})
}

func (d *dataverse) failRow(e *dvError) reply {
	rep := d.fail(e)
	rep.rows = 1
	return rep
}

func (d *dataverse) odata(status int, body any) reply {
	rep := jsonReply(status, body)
	rep.set("OData-Version", "4.0")
	rep.set("Content-Type", "application/json; odata.metadata=minimal")
	return rep
}

// serveToken answers client credentials with a token.
func (d *dataverse) serveToken(c *call) reply {
	if c.method != http.MethodPost {
		return d.refuseToken(http.StatusMethodNotAllowed, "invalid_request", "AADSTS900561", "The endpoint only accepts POST requests.")
	}
	want := d.server.options.Clients[dataverseName]
	values := form(c)
	id, secret, _ := clientOf(c, values)
	switch {
	case values.Get("grant_type") != "client_credentials":
		return d.refuseToken(http.StatusBadRequest, "unsupported_grant_type", "AADSTS70003", "The app requested an unsupported grant type.")
	case !knows(id, want.ID):
		return d.refuseToken(http.StatusBadRequest, "unauthorized_client", "AADSTS700016", "Application was not found in the directory.")
	case !knows(secret, want.Secret):
		return d.refuseToken(http.StatusUnauthorized, "invalid_client", "AADSTS7000215", "Invalid client secret provided.")
	case !strings.HasSuffix(values.Get("scope"), "/.default"):
		return d.refuseToken(http.StatusBadRequest, "invalid_scope", "AADSTS1002012", "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier.")
	}
	token, life := d.server.issue(dataverseName, "eyJ0eXAiOiJKV1Qi.sandbox.%d", dataverseExpiry)
	return jsonReply(http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": int(life / time.Second), "ext_expires_in": int(life / time.Second), "access_token": token,
	})
}

func (d *dataverse) refuseToken(status int, code, number, why string) reply {
	return jsonReply(status, map[string]any{"error": code, "error_description": number + ": " + why})
}

// primary is the name of a table's id.
func (d *dataverse) primary(t *table) string {
	if t.typeID == "task" {
		return "activityid"
	}
	return t.typeID + "id"
}

// dataverseProperties are the usual columns of a table, lookups under the name of their navigation property.
func dataverseProperties(set string) []Property {
	sized := func(most int, names ...string) []Property {
		out := typed("string", names...)
		for i := range out {
			out[i].MaxLength = most
		}
		return out
	}
	common := slices.Concat(readOnly("datetime", "createdon", "modifiedon"), []Property{picklist("statecode", "0", "1", "2"), picklist("statuscode")},
		sized(2000, "description"))
	person := slices.Concat(sized(50, "firstname", "lastname", "telephone1", "mobilephone"), sized(100, "emailaddress1", "jobtitle"),
		sized(200, "websiteurl"))
	place := slices.Concat(sized(250, "address1_line1", "address1_line2"), sized(80, "address1_city", "address1_country"),
		sized(50, "address1_stateorprovince"), sized(20, "address1_postalcode"))
	switch set {
	case "accounts":
		return slices.Concat(common, place, sized(160, "name"), sized(20, "accountnumber"), sized(50, "telephone1"), sized(100, "emailaddress1"),
			sized(200, "websiteurl"), typed("number", "revenue"), typed("integer", "numberofemployees"),
			[]Property{picklist("industrycode"), lookup("parentaccountid", "accounts"), lookup("primarycontactid", "contacts")})
	case "contacts":
		return slices.Concat(common, place, person, typed("bool", "donotemail"), readOnly("string", "fullname"),
			[]Property{picklist("preferredcontactmethodcode", "1", "2", "3", "4", "5"), lookup("parentcustomerid_account", "accounts"),
				lookup("parentcustomerid_contact", "contacts")})
	case "leads":
		return slices.Concat(common, place, person, sized(300, "subject"), sized(100, "companyname"),
			[]Property{picklist("leadsourcecode"), lookup("parentaccountid", "accounts"), lookup("parentcontactid", "contacts")})
	case "opportunities":
		return slices.Concat(common, sized(300, "name"), sized(200, "stepname"), typed("number", "estimatedvalue"), typed("integer", "closeprobability"),
			typed("date", "estimatedclosedate"), []Property{lookup("parentaccountid", "accounts"), lookup("parentcontactid", "contacts"),
				lookup("customerid_account", "accounts"), lookup("customerid_contact", "contacts")})
	case "tasks":
		return slices.Concat(common, sized(200, "subject"), typed("datetime", "scheduledend", "scheduledstart"), []Property{picklist("prioritycode", "0", "1", "2"),
			lookup("regardingobjectid_account_task", "accounts"), lookup("regardingobjectid_contact_task", "contacts"),
			lookup("regardingobjectid_opportunity_task", "opportunities"), lookup("regardingobjectid_lead_task", "leads")})
	case "annotations":
		return slices.Concat(common[:2], sized(500, "subject"), sized(100_000, "notetext"), []Property{lookup("objectid_account", "accounts"),
			lookup("objectid_contact", "contacts"), lookup("objectid_opportunity", "opportunities"), lookup("objectid_lead", "leads")})
	}
	return common
}
