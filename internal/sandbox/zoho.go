package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// zoho speaks Zoho CRM's API: records of modules, their upsert and search, and the token endpoint of the accounts server,
// whose errors come with 200.
type zoho struct {
	server *Server
	store  *store
}

const (
	zohoName   = "zoho"
	zohoRows   = 100
	zohoIDs    = 100 // that one read takes
	zohoFields = 50  // that one answer shows

	zohoCriteria = 10 // of one search

	zohoExpiry = time.Hour
	zohoTime   = "2006-01-02T15:04:05-07:00"
)

// zohoModules are those that every organisation has, of those that mappings use.
var zohoModules = [...]string{"Leads", "Accounts", "Contacts", "Deals", "Tasks", "Notes", "Vendors"}

// zError is what is wrong with a request or with one row of it.
type zError struct {
	code    string
	message string
	details fieldMap
}

// ZohoLimits are those of a Standard edition without users: calls under way, and credits in a rolling day.
func ZohoLimits() []Limit {
	return []Limit{
		{Dialect: zohoName, Policy: "concurrency", Requests: 10, Concurrent: true},
		{Dialect: zohoName, Policy: "credits", Requests: 50_000, Per: 24 * time.Hour, Rolling: true, Weighed: true},
	}
}

func newZoho(server *Server) *zoho {
	z := &zoho{server: server, store: server.store}
	z.store.mu.Lock()
	defer z.store.mu.Unlock()
	for _, module := range zohoModules {
		t := z.store.define(zohoName, module)
		for _, p := range zohoProperties(module) {
			t.defineProperty(p)
		}
	}
	z.store.owners[zohoName] = usualOwners("5843104000000150001", "5843104000000150002", "5843104000000150003")
	return z
}

func (z *zoho) name() string { return zohoName }

// object knows a module whatever the case of its name.
func (z *zoho) object(name string) string {
	if t := z.store.named(zohoName, name); t != nil {
		return t.object
	}
	return name
}

// newID spells an id of nineteen digits: too long for a number in JavaScript.
func (z *zoho) newID(_ string, n int64) string { return spellID(5_843_104_000_000_000_000 + n) }

// made gives a module that the organisation made what every module has.
func (z *zoho) made(t *table) {
	for _, p := range zohoProperties(t.object) {
		t.defineProperty(p)
	}
}

func (z *zoho) charge(c *call) (cost int, writes bool) {
	if c.segments[0] == "oauth" {
		return 0, false
	}
	if c.method != http.MethodGet && c.segments[len(c.segments)-1] != "coql" && z.server.varies(ZohoCreditPerTen) {
		return max(1, (countRows(c.body)+9)/10), true
	}
	return 1, c.method != http.MethodGet
}

func (z *zoho) serve(c *call) reply {
	at := c.segments
	if len(at) == 3 && at[0] == "oauth" && at[1] == "v2" && at[2] == "token" {
		return z.serveToken(c)
	}
	if len(at) < 3 || at[0] != "crm" || !zohoVersion(at[1]) {
		return z.refusal(c, http.StatusNotFound, "")
	}
	token := bearer(c, "Zoho-oauthtoken")
	if token == "" {
		return z.fail(http.StatusUnauthorized, zError{"AUTHENTICATION_FAILURE", "Authentication failed", nil})
	}
	if !z.server.admits(zohoName, token) {
		return z.refusal(c, http.StatusUnauthorized, "")
	}
	z.store.mu.Lock()
	defer z.store.mu.Unlock()
	return z.serveModules(c, at[2:])
}

// serveModules dispatches what is below the version. The caller holds the store.
func (z *zoho) serveModules(c *call, at []string) reply {
	switch {
	case len(at) == 1 && at[0] == "org" && c.method == http.MethodGet:
		return z.serveOrg()
	case len(at) == 2 && at[0] == "settings" && at[1] == "fields" && c.method == http.MethodGet:
		return z.fields(c)
	case len(at) == 2 && at[0] == "settings" && at[1] == "fields" && c.method == http.MethodPost:
		return z.createFields(c)
	case len(at) == 1 && at[0] == "users" && c.method == http.MethodGet:
		return z.users(c)
	case len(at) == 2 && at[0] == "settings" && at[1] == "modules" && c.method == http.MethodGet:
		return z.modules()
	case len(at) == 1 && at[0] == "coql" && c.method == http.MethodPost:
		return z.query(c)
	}
	t := z.store.named(zohoName, at[0])
	if t == nil {
		return z.fail(http.StatusBadRequest, zError{"INVALID_MODULE", "the module name given seems to be invalid", fieldMap{"resource_path_index": 0}})
	}
	if scope := "ZohoCRM.modules." + t.object; z.server.lacks(scope) || z.server.lacks("ZohoCRM.modules.ALL") {
		return z.fail(http.StatusUnauthorized, zError{"OAUTH_SCOPE_MISMATCH", "Unauthorized", nil})
	}
	type route struct {
		segments int
		method   string
	}
	switch (route{len(at), c.method}) {
	case route{1, http.MethodGet}:
		return z.list(c, t)
	case route{1, http.MethodPost}:
		return z.writeRows(c, t, opCreate, "")
	case route{1, http.MethodPut}:
		return z.writeRows(c, t, opUpdate, "")
	case route{1, http.MethodDelete}:
		return z.remove(c, t, strings.Split(c.query.Get("ids"), ","))
	case route{2, http.MethodPost}:
		if at[1] == "upsert" {
			return z.writeRows(c, t, opUpsert, "")
		}
	case route{2, http.MethodGet}:
		if at[1] == "search" {
			return z.search(c, t)
		}
		return z.get(c, t, at[1])
	case route{2, http.MethodPut}:
		return z.writeRows(c, t, opUpdate, at[1])
	case route{2, http.MethodDelete}:
		return z.remove(c, t, at[1:])
	}
	if len(at) > 2 {
		return z.refusal(c, http.StatusNotFound, "")
	}
	return z.refusal(c, http.StatusMethodNotAllowed, "")
}

// refusal is Zoho's own body for a status.
func (z *zoho) refusal(c *call, status int, policy string) reply {
	if c.segments[0] == "oauth" && status != http.StatusTooManyRequests && status < 500 {
		return jsonReply(status, map[string]string{"error": "invalid_code"})
	}
	switch status {
	case http.StatusUnauthorized:
		return z.fail(status, zError{"INVALID_TOKEN", "invalid oauth token", nil})
	case http.StatusForbidden:
		return z.fail(status, zError{"NO_PERMISSION", "Permission denied", fieldMap{"permissions": []string{"Crm_Implied_View_Leads"}}})
	case http.StatusNotFound:
		return z.fail(status, zError{"INVALID_URL_PATTERN", "Please check if the URL trying to access is a correct one", nil})
	case http.StatusMethodNotAllowed:
		return z.fail(http.StatusBadRequest, zError{"INVALID_REQUEST_METHOD", "The http request method type is not a valid one", nil})
	case http.StatusTooManyRequests:
		if policy == "credits" {
			return z.fail(status, zError{"LIMIT_EXCEEDED", "The API credits of the last twenty-four hours are used up", nil})
		}
		return z.fail(status, zError{"TOO_MANY_REQUESTS", "Too many requests are under way, please try again after some time", nil})
	case http.StatusInternalServerError:
		return z.fail(status, zError{"INTERNAL_ERROR", "Internal Server Error", nil})
	}
	return z.fail(status, zError{strings.ToUpper(strings.ReplaceAll(http.StatusText(status), " ", "_")), http.StatusText(status), nil})
}

func (z *zoho) limited(*call, allowance, *reply) {}

func (z *zoho) fail(status int, e zError) reply { return jsonReply(status, e.form()) }

// form is an error as a body or a row shows it.
func (e zError) form() fieldMap {
	details := e.details
	if details == nil {
		details = fieldMap{}
	}
	return fieldMap{"code": e.code, "details": details, "message": e.message, "status": "error"}
}

// serveToken renews an access token. Its errors come with 200, but for a lock-out.
func (z *zoho) serveToken(c *call) reply {
	refuse := func(code string) reply { return jsonReply(http.StatusOK, map[string]string{"error": code}) }
	if c.method != http.MethodPost {
		return refuse("invalid_request")
	}
	if z.server.locksOut() {
		return jsonReply(orStatus(z.server.options.Lockout.Status, http.StatusBadRequest), map[string]string{
			"error": "Access Denied", "status": "failure",
			"error_description": "You have made too many requests continuously. Please try again after some time.",
		})
	}
	want := z.server.options.Clients[zohoName]
	values := form(c)
	id, secret, _ := clientOf(c, values)
	switch {
	case values.Get("grant_type") != "refresh_token":
		return refuse("unsupported_grant_type")
	case !knows(id, want.ID):
		return refuse("invalid_client")
	case !knows(secret, want.Secret):
		return refuse("invalid_client_secret")
	case !knows(values.Get("refresh_token"), want.RefreshToken):
		return refuse("invalid_code")
	}
	token, life := z.server.issue(zohoName, "1000.sandbox.%d", zohoExpiry)
	return jsonReply(http.StatusOK, map[string]any{
		"access_token": token, "scope": "ZohoCRM.modules.ALL ZohoCRM.org.READ", "api_domain": c.base, "token_type": "Bearer",
		"expires_in": int(life / time.Second),
	})
}

// serveOrg is what tells one organisation from another.
func (z *zoho) serveOrg() reply {
	if z.server.lacks("ZohoCRM.org.READ") {
		return z.fail(http.StatusUnauthorized, zError{"OAUTH_SCOPE_MISMATCH", "invalid oauth scope to access this URL", nil})
	}
	number := strconv.FormatInt(z.server.account.Load(), 10)
	return jsonReply(http.StatusOK, map[string]any{"org": []any{map[string]any{
		"id": "5843104" + number, "zgid": number, "company_name": "Sandbox", "domain_name": "org" + number, "type": "sandbox",
		"country_code": "US", "currency": "US Dollar - USD", "iso_code": "USD", "time_zone": "Etc/UTC", "primary_email": "integration@sandbox.test",
	}}})
}

func (z *zoho) modules() reply {
	list := []any{}
	for _, t := range z.store.tables {
		if t.dialect == zohoName {
			list = append(list, map[string]any{"api_name": t.object, "module_name": t.object, "api_supported": true, "creatable": true, "editable": true})
		}
	}
	return jsonReply(http.StatusOK, map[string]any{"modules": list})
}

func zohoVersion(segment string) bool {
	n, err := strconv.ParseFloat(strings.TrimPrefix(segment, "v"), 64)
	return strings.HasPrefix(segment, "v") && err == nil && n >= 2 && n <= 8
}

// zType is Zoho's name for the type of a field.
func zType(p *Property) string {
	switch p.Type {
	case "number":
		return "double"
	case "bool":
		return "boolean"
	case "enumeration":
		if p.Multiple || p.FieldType == "checkbox" {
			return "multiselectpicklist"
		}
		return "picklist"
	case "integer", "date", "datetime", "lookup":
		return p.Type
	}
	return "text"
}

// zohoCheckField is the field that a module checks for duplicates of its own.
func zohoCheckField(module string) string {
	switch module {
	case "Leads", "Contacts":
		return "Email"
	case "Accounts":
		return "Account_Name"
	case "Deals":
		return "Deal_Name"
	case "Vendors":
		return "Vendor_Name"
	}
	return ""
}

// zohoProperties are the usual standard fields of a module. What is required is so of its default layout.
func zohoProperties(module string) []Property {
	texts := func(names ...string) []Property { return typed("string", names...) }
	common := slices.Concat(readOnly("datetime", "Created_Time", "Modified_Time"), []Property{{Name: "Owner", Type: "object"}, {Name: "Layout", Type: "object"},
		{Name: "Tag", Type: "list"}}, texts("Description"))
	need := func(name string) Property { return required(Property{Name: name, MaxLength: 255}) }
	switch module {
	case "Leads":
		return slices.Concat(common, []Property{required(Property{Name: "Last_Name", MaxLength: 80}), {Name: "First_Name", MaxLength: 40}, {Name: "Email", MaxLength: 100},
			picklist("Lead_Source"), picklist("Lead_Status"), picklist("Industry")},
			texts("Company", "Phone", "Mobile", "Fax", "Website", "Designation", "Street", "City", "State", "Zip_Code", "Country"),
			typed("number", "Annual_Revenue"), typed("bool", "Email_Opt_Out"))
	case "Accounts":
		return slices.Concat(common, []Property{need("Account_Name"), picklist("Industry"), picklist("Account_Type"), lookup("Parent_Account", "Accounts")},
			texts("Phone", "Fax", "Website", "Account_Number", "Billing_Street", "Billing_City", "Billing_State", "Billing_Code", "Billing_Country"),
			typed("number", "Annual_Revenue"), typed("integer", "Employees"))
	case "Contacts":
		return slices.Concat(common, []Property{required(Property{Name: "Last_Name", MaxLength: 80}), {Name: "First_Name", MaxLength: 40}, {Name: "Email", MaxLength: 100},
			lookup("Account_Name", "Accounts"), picklist("Lead_Source")},
			texts("Phone", "Mobile", "Title", "Department", "Mailing_Street", "Mailing_City", "Mailing_State", "Mailing_Zip", "Mailing_Country"),
			typed("bool", "Email_Opt_Out"))
	case "Deals":
		return slices.Concat(common, []Property{need("Deal_Name"), required(picklist("Stage", "Qualification", "Needs Analysis", "Value Proposition",
			"Identify Decision Makers", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost", "Closed Lost to Competition")),
			picklist("Pipeline", "Standard (Standard)"), picklist("Type"), picklist("Lead_Source"), lookup("Account_Name", "Accounts"), lookup("Contact_Name", "Contacts")},
			typed("number", "Amount"), typed("integer", "Probability"), typed("date", "Closing_Date"), texts("Next_Step"))
	case "Tasks":
		return slices.Concat(common, []Property{need("Subject"), lookup("Who_Id", "Contacts,Leads"), lookup("What_Id", "Accounts,Deals"), {Name: "$se_module"},
			picklist("Status"), picklist("Priority")}, typed("date", "Due_Date"))
	case "Notes":
		return slices.Concat(common, []Property{required(Property{Name: "Note_Content"}), required(Property{Name: "Parent_Id", Type: "object"}), {Name: "$se_module"}},
			texts("Note_Title", "se_module"))
	case "Vendors":
		return slices.Concat(common, []Property{need("Vendor_Name")}, texts("Phone", "Email", "Website"))
	}
	return slices.Concat(common, []Property{{Name: "Name", MaxLength: 120}})
}
