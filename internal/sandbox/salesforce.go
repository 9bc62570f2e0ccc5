package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// salesforce speaks Salesforce's REST API: rows by id and by external id, sObject collections, queries, and the token
// endpoint with client credentials, JWT bearer and refresh token.
type salesforce struct {
	server  *Server
	store   *store
	cursors []string // the queries of which there is more; the store's lock guards them
}

const (
	salesforceName    = "salesforce"
	salesforceOldest  = 31 // of the API versions that are supported
	salesforceNewest  = 68
	salesforceRows    = 200
	salesforceURI     = 16 << 10      // with the headers
	salesforceSession = 2 * time.Hour // from its start; nobody is told of it
)

// sfError is one error of a request or of a row: requests call its code errorCode, rows statusCode.
type sfError struct {
	code    string
	message string
	fields  []string
}

// SalesforceLimits are the requests that a developer's org has in a rolling day. The number is a guess.
func SalesforceLimits() []Limit {
	return []Limit{{Dialect: salesforceName, Policy: "TotalRequests", Requests: 15_000, Per: 24 * time.Hour, Rolling: true}}
}

func newSalesforce(server *Server) *salesforce {
	f := &salesforce{server: server, store: server.store}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	for _, object := range salesforceObjects() {
		t := f.store.define(salesforceName, object)
		for _, p := range salesforceProperties(object) {
			t.defineProperty(p)
		}
	}
	f.store.owners[salesforceName] = usualOwners(sfLongID("0055g00000An001"), sfLongID("0055g00000Bo002"), sfLongID("0055g00000Le003"))
	return f
}

func (f *salesforce) name() string { return salesforceName }

// object knows an object whatever the case of its name.
func (f *salesforce) object(name string) string {
	if t := f.store.named(salesforceName, name); t != nil {
		return t.object
	}
	return name
}

// newID spells an id of eighteen characters, the last three of which tell the case of the others.
func (f *salesforce) newID(object string, n int64) string {
	digits := strings.ToUpper(strconv.FormatInt(n-firstID, 36))
	return sfLongID(sfPrefix(object) + "5g" + strings.Repeat("0", max(0, 10-len(digits))) + digits)
}

// made gives an object that the org made what every object has.
func (f *salesforce) made(t *table) {
	for _, p := range salesforceProperties(t.object) {
		t.defineProperty(p)
	}
}

func (f *salesforce) charge(c *call) (cost int, writes bool) {
	if c.segments[0] != "services" || len(c.segments) > 1 && c.segments[1] != "data" {
		return 0, false
	}
	return 1, c.method != http.MethodGet
}

func (f *salesforce) serve(c *call) reply {
	at := c.segments
	switch {
	case len(c.uri) > salesforceURI:
		return f.refusal(c, http.StatusRequestURITooLong, "")
	case len(at) == 3 && at[0] == "services" && at[1] == "oauth2" && at[2] == "token":
		return f.serveToken(c)
	case len(at) == 3 && at[0] == "services" && at[1] == "oauth2" && at[2] == "userinfo":
		return f.serveUser(c)
	case len(at) < 2 || at[0] != "services" || at[1] != "data":
		return f.refusal(c, http.StatusNotFound, "")
	}
	if len(at) == 2 || at[2] == "" {
		return f.versions()
	}
	if !f.server.admits(salesforceName, bearer(c, "Bearer")) {
		return f.refusal(c, http.StatusUnauthorized, "")
	}
	version, ok := sfVersion(at[2])
	switch {
	case !ok || version > salesforceNewest:
		return f.refusal(c, http.StatusNotFound, "")
	case version < salesforceOldest:
		return f.fail(http.StatusGone, sfError{code: "UNSUPPORTED_API_VERSION", message: "The requested API version is no longer supported."})
	}
	// A path that ends like the name of a file is taken for one. That it is this ending alone is assumed.
	if strings.HasSuffix(strings.ToLower(at[len(at)-1]), ".inc") {
		return f.refusal(c, http.StatusNotFound, "")
	}
	return f.serveData(c, version, at[3:])
}

func (f *salesforce) serveData(c *call, version int, at []string) reply {
	switch {
	case len(at) == 1 && at[0] == "limits" && c.method == http.MethodGet:
		return f.serveLimits()
	case len(at) == 1 && at[0] == "query" && c.method == http.MethodGet:
		return f.query(c, version, c.query.Get("q"), 0)
	case len(at) == 2 && at[0] == "query" && c.method == http.MethodGet:
		return f.queryMore(c, version, at[1])
	case len(at) == 3 && at[0] == "tooling" && at[1] == "sobjects" && at[2] == "CustomField" && c.method == http.MethodPost:
		return f.createField(c)
	case len(at) >= 2 && at[0] == "composite" && at[1] == "sobjects":
		return f.serveCollections(c, version, at[2:])
	case len(at) >= 2 && at[0] == "sobjects":
		return f.serveObjects(c, version, at[1:])
	}
	return f.refusal(c, http.StatusNotFound, "")
}

func (f *salesforce) serveObjects(c *call, version int, at []string) reply {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	t := f.store.named(salesforceName, at[0])
	if t == nil {
		return f.refusal(c, http.StatusNotFound, "")
	}
	type route struct {
		segments int
		method   string
	}
	switch (route{len(at), c.method}) {
	case route{1, http.MethodPost}:
		return f.createOne(c, t)
	case route{2, http.MethodGet}:
		if at[1] == "describe" {
			return f.describe(t)
		}
		return f.getOne(c, t, version, at[1])
	case route{2, http.MethodPatch}:
		return f.updateOne(c, t, at[1])
	case route{2, http.MethodDelete}:
		return f.deleteOne(c, t, at[1])
	case route{3, http.MethodGet}, route{3, http.MethodPatch}, route{3, http.MethodDelete}:
		return f.serveKey(c, t, version, at[1], at[2])
	}
	if len(at) > 3 {
		return f.refusal(c, http.StatusNotFound, "")
	}
	return f.refusal(c, http.StatusMethodNotAllowed, "")
}

// refusal is Salesforce's own body for a status. It never answers 429: who asks too often is forbidden.
func (f *salesforce) refusal(c *call, status int, policy string) reply {
	if strings.HasPrefix(c.path, "/services/oauth2/") && status != http.StatusTooManyRequests {
		return jsonReply(status, map[string]string{"error": "invalid_grant", "error_description": strings.ToLower(http.StatusText(status))})
	}
	switch status {
	case http.StatusUnauthorized:
		return f.fail(status, sfError{code: "INVALID_SESSION_ID", message: "Session expired or invalid"})
	case http.StatusForbidden:
		return f.fail(status, sfError{code: "INSUFFICIENT_ACCESS_OR_READONLY", message: "insufficient access rights on object id"})
	case http.StatusNotFound:
		return f.fail(status, sfError{code: "NOT_FOUND", message: "The requested resource does not exist"})
	case http.StatusMethodNotAllowed:
		return f.fail(status, sfError{code: "METHOD_NOT_ALLOWED", message: "HTTP Method '" + c.method + "' not allowed."})
	case http.StatusGone:
		return f.fail(status, sfError{code: "UNSUPPORTED_API_VERSION", message: "The requested API version is no longer supported."})
	case http.StatusTooManyRequests:
		if policy == "" {
			policy = "TotalRequests"
		}
		return f.fail(http.StatusForbidden, sfError{code: "REQUEST_LIMIT_EXCEEDED", message: policy + " Limit exceeded."})
	case http.StatusServiceUnavailable:
		return f.fail(status, sfError{code: "SERVER_UNAVAILABLE", message: "The server is temporarily unavailable."})
	case http.StatusInternalServerError:
		return f.fail(status, sfError{code: "UNKNOWN_EXCEPTION", message: "An unexpected error occurred. Please include this ErrorId if you contact support."})
	}
	return f.fail(status, sfError{code: strings.ToUpper(strings.ReplaceAll(http.StatusText(status), " ", "_")), message: http.StatusText(status)})
}

// limited adds the header that reports the daily requests. Salesforce sends it with every reply; here only where there is
// a limit to report.
func (f *salesforce) limited(_ *call, l allowance, r *reply) {
	if l.Policy == "TotalRequests" {
		r.set("Sforce-Limit-Info", fmt.Sprintf("api-usage=%d/%d", l.Requests-l.remaining, l.Requests))
	}
}

func (f *salesforce) fail(status int, errs ...sfError) reply {
	type form struct {
		Message string   `json:"message"`
		Code    string   `json:"errorCode"`
		Fields  []string `json:"fields,omitzero"`
	}
	body := []form{}
	for _, e := range errs {
		body = append(body, form{e.message, e.code, e.fields})
	}
	return jsonReply(status, body)
}

// serveToken answers client credentials, a JWT or a refresh token with a session. It says neither how long it lasts nor
// gives a refresh token.
func (f *salesforce) serveToken(c *call) reply {
	refuse := func(code, why string) reply {
		return jsonReply(http.StatusBadRequest, map[string]string{"error": code, "error_description": why})
	}
	if c.method != http.MethodPost {
		return f.refusal(c, http.StatusMethodNotAllowed, "")
	}
	want := f.server.options.Clients[salesforceName]
	values := form(c)
	id, secret, _ := clientOf(c, values)
	switch values.Get("grant_type") {
	case "client_credentials":
		if !knows(id, want.ID) {
			return refuse("invalid_client_id", "client identifier invalid")
		}
		if !knows(secret, want.Secret) {
			return refuse("invalid_client", "invalid client credentials")
		}
	case "refresh_token":
		if !knows(id, want.ID) {
			return refuse("invalid_client_id", "client identifier invalid")
		}
		if !knows(values.Get("refresh_token"), want.RefreshToken) {
			return refuse("invalid_grant", "expired access/refresh token")
		}
	case jwtGrant:
		if code, why := f.checkJWT(c, values.Get("assertion"), want); code != "" {
			return refuse(code, why)
		}
	default:
		return refuse("unsupported_grant_type", "grant type not supported")
	}
	token, _ := f.server.issue(salesforceName, f.orgID()[:15]+"!sandbox.session.%d", salesforceSession)
	return jsonReply(http.StatusOK, map[string]string{
		"access_token": token, "instance_url": c.base, "token_type": "Bearer", "token_format": "opaque",
		"issued_at": strconv.FormatInt(c.now.UnixMilli(), 10), "signature": "c2FuZGJveA==", "scope": "api",
		"id": "https://login.salesforce.com/id/" + f.orgID() + "/" + f.userID(),
	})
}

// checkJWT gives the error for an assertion, or nothing. That an assertion may live for five minutes, where the
// documentation says three, leaves room for clocks that differ.
func (f *salesforce) checkJWT(c *call, assertion string, want Client) (code, why string) {
	claims, ok := readJWT(assertion, want.Key)
	if !ok {
		return "invalid_grant", "invalid assertion"
	}
	expires := time.Unix(int64(claims.Expires), 0)
	audience, _ := claims.Audience.(string)
	switch {
	case !knows(claims.Issuer, want.ID):
		return "invalid_client_id", "client identifier invalid"
	case !knows(claims.Subject, want.Username):
		return "invalid_grant", "user hasn't approved this consumer"
	case !slices.Contains([]string{"https://login.salesforce.com", "https://test.salesforce.com", c.base}, strings.TrimSuffix(audience, "/")):
		return "invalid_grant", "audience is invalid"
	case !expires.After(c.now) || expires.After(c.now.Add(5*time.Minute)):
		return "invalid_grant", "expired authorization code"
	}
	return "", ""
}

// serveUser is what tells one org from another. It refuses a token with 403 and a word of text, unlike the rest of the API.
// (Seen of the identity service; that this endpoint does so too is assumed.)
func (f *salesforce) serveUser(c *call) reply {
	if !f.server.admits(salesforceName, bearer(c, "Bearer")) {
		return reply{status: http.StatusForbidden, body: []byte("Bad_OAuth_Token"), header: http.Header{"Content-Type": {"text/plain"}}}
	}
	return jsonReply(http.StatusOK, map[string]any{
		"sub":     "https://login.salesforce.com/id/" + f.orgID() + "/" + f.userID(),
		"user_id": f.userID(), "organization_id": f.orgID(), "preferred_username": "integration@sandbox.test",
		"nickname": "integration", "name": "Integration User", "email": "integration@sandbox.test", "email_verified": true,
		"zoneinfo": "UTC", "user_type": "STANDARD", "language": "en_US", "locale": "en_US", "utcOffset": 0,
		"urls": map[string]string{"rest": c.base + "/services/data/v{version}/", "sobjects": c.base + "/services/data/v{version}/sobjects/"},
	})
}

func (f *salesforce) versions() reply {
	type version struct {
		Label   string `json:"label"`
		URL     string `json:"url"`
		Version string `json:"version"`
	}
	var all []version
	for v := salesforceOldest; v <= salesforceNewest; v++ {
		number := strconv.Itoa(v) + ".0"
		all = append(all, version{"API " + number, "/services/data/v" + number, number})
	}
	return jsonReply(http.StatusOK, all)
}

func (f *salesforce) serveLimits() reply {
	type allocation struct {
		Max, Remaining int
	}
	daily := allocation{15_000, 15_000}
	f.server.limits.mu.Lock()
	for _, c := range f.server.limits.counts {
		if c.Dialect == salesforceName && c.Policy == "TotalRequests" {
			daily = allocation{c.Requests, c.Requests - c.used(f.server.options.Now())}
		}
	}
	f.server.limits.mu.Unlock()
	return jsonReply(http.StatusOK, map[string]allocation{"DailyApiRequests": daily})
}

func (f *salesforce) orgID() string {
	return sfLongID(fmt.Sprintf("00D5g%010d", f.server.account.Load()%10_000_000_000))
}

func (f *salesforce) userID() string { return sfLongID("0055g00000AB1cd") }

// sfVersion reads v68.0.
func sfVersion(segment string) (int, bool) {
	number, ok := strings.CutPrefix(segment, "v")
	if !ok {
		return 0, false
	}
	number, ok = strings.CutSuffix(number, ".0")
	n, err := strconv.Atoi(number)
	return n, ok && err == nil
}

// sfPrefix is the first three characters of an object's ids.
func sfPrefix(object string) string {
	switch object {
	case "Account":
		return "001"
	case "Contact":
		return "003"
	case "Opportunity":
		return "006"
	case "Lead":
		return "00Q"
	case "Task":
		return "00T"
	case "Note":
		return "002"
	case "OpportunityContactRole":
		return "00K"
	}
	return "a00"
}

// sfLongID appends the three characters that make an id safe where case is lost.
func sfLongID(id string) string {
	if len(id) != 15 {
		return id
	}
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
	out := []byte(id)
	for block := range 3 {
		bits := 0
		for i := range 5 {
			if b := id[block*5+i]; b >= 'A' && b <= 'Z' {
				bits |= 1 << i
			}
		}
		out = append(out, digits[bits])
	}
	return string(out)
}
