package sandbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const zoV8 = "/zoho/crm/v8/"

// zoRows makes the body of a write that checks for duplicates by the partner's key.
func zoRows(rows ...string) string {
	return `{"data":[` + strings.Join(rows, ",") + `],"duplicate_check_fields":["Partner_Key"],"trigger":[]}`
}

func TestZohoUpsert(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Now: newClock().now})
	upsert := func(name, module, body string, want int, says map[string]any) exchange {
		return exchange{name: name, path: zoV8 + module + "/upsert", body: body, want: want, says: says}
	}
	converse(t, s,
		upsert("rows in order, the status is 200 all the same", "Contacts", zoRows(`{"Last_Name":"Doe","Email":"a@b.co","Partner_Key":"PS-1"}`, `{"Partner_Key":"PS-2"}`,
			`{"Last_Name":"Roe","Partner_Key":"PS-3"}`), 200, map[string]any{
			"data.0.code": "SUCCESS", "data.0.status": "success", "data.0.action": "insert", "data.0.duplicate_field": nil, "data.0.message": "record added",
			"data.1.code": "MANDATORY_NOT_FOUND", "data.1.status": "error", "data.1.details.api_name": "Last_Name", "data.1.details.json_path": "$.data[1].Last_Name",
			"data.2.status": "success",
		}),
		upsert("update", "contacts", zoRows(`{"Phone":"1","Partner_Key":"ps-1"}`), 200, map[string]any{"data.0.action": "update", "data.0.duplicate_field": "Partner_Key"}),
		upsert("one key twice: the second changes the first", "Contacts", zoRows(`{"Last_Name":"Poe","Partner_Key":"PS-4"}`, `{"Phone":"2","Partner_Key":"PS-4"}`), 200,
			map[string]any{"data.0.action": "insert", "data.1.action": "update"}),
		upsert("several errors in one row", "Contacts", zoRows(`{"Last_Name":5,"Email_Opt_Out":"yes","Partner_Key":"x"}`), 200, map[string]any{
			"data.0.code": "MULTIPLE_OR_MULTI_ERRORS", "data.0.details.errors.0.details.expected_data_type": "boolean", "data.0.details.errors.1.details.expected_data_type": "text",
		}),
		upsert("picklist", "Deals", zoRows(`{"Deal_Name":"d","Stage":"Won","Partner_Key":"x"}`), 200, map[string]any{
			"data.0.code": "INVALID_DATA", "data.0.details.api_name": "Stage", "data.0.details.supported_values.6": "Closed Won",
		}),
		upsert("unknown field", "Contacts", zoRows(`{"Last_Name":"x","Nope":1}`), 200, map[string]any{"data.0.code": "INVALID_DATA", "data.0.details.api_name": "Nope"}),
		upsert("number", "Deals", zoRows(`{"Deal_Name":"d","Stage":"Closed Won","Amount":"10"}`), 200, map[string]any{"data.0.details.expected_data_type": "double"}),
		upsert("date", "Deals", zoRows(`{"Deal_Name":"d","Stage":"Closed Won","Closing_Date":"2026-1-1"}`), 200, map[string]any{"data.0.details.expected_data_type": "date"}),
		upsert("too long", "Contacts", zoRows(`{"Last_Name":"`+strings.Repeat("x", 81)+`"}`), 200, map[string]any{"data.0.details.maximum_length": 80}),
		upsert("address", "Contacts", zoRows(`{"Last_Name":"x","Email":"nobody"}`), 200, map[string]any{"data.0.details.expected_data_type": "email"}),
		upsert("a field that is not unique cannot be checked", "Contacts", `{"data":[{"Last_Name":"x"}],"duplicate_check_fields":["Phone"]}`, 400, map[string]any{"code": "INVALID_DATA"}),
		upsert("too many rows", "Contacts", zoRows(strings.Split(strings.Repeat(`{"Last_Name":"x"} `, 101), " ")[:101]...), 400, map[string]any{"code": "INVALID_DATA", "details.maximum_length": 100}),
		upsert("module", "Butterflies", zoRows(`{}`), 400, map[string]any{"code": "INVALID_MODULE"}),
		upsert("not JSON", "Contacts", `{"data"`, 400, map[string]any{"code": "INVALID_DATA"}),
		upsert("a module of one's own", "Payouts", zoRows(`{"Name":"p","Partner_Key":"1"}`), 200, map[string]any{"data.0.status": "success"}),
	)
	wantEqual(t, "first", stored(s, "zoho", "Contacts")[0], map[string]any{"Last_Name": "Doe", "Email": "a@b.co", "Partner_Key": "ps-1", "Phone": "1"})
	wantEqual(t, "rows in the log", s.Requests()[0].Rows, 3)
	if id := s.Records("zoho", "Contacts")[0].ID; len(id) != 19 {
		t.Errorf("id %s", id)
	}
}

// A query is a search of its own, of many values.
func TestZohoCOQL(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Now: newClock().now})
	query := func(name, q string, want int, says map[string]any) exchange {
		return exchange{name: name, path: zoV8 + "coql", body: `{"select_query":"` + q + `"}`, want: want, says: says}
	}
	many := strings.TrimSuffix(strings.Repeat("'x', ", 101), ", ")
	converse(t, s,
		exchange{name: "made", path: zoV8 + "Contacts", body: `{"data":[{"Last_Name":"O'Neil"},{"Last_Name":"Roe"}]}`, want: 201, says: nil},
		query("found", "select id, Last_Name from Contacts where Last_Name in ('o''neil', 'x') limit 200", 200, map[string]any{"data.0.Last_Name": "O'Neil", "info.count": 1, "info.more_records": false}),
		query("more than asked for", "select id from Contacts where Last_Name in ('o''neil', 'roe') limit 1", 200, map[string]any{"info.count": 1, "info.more_records": true}),
		query("none", "select id from Contacts where Last_Name in ('x') limit 200", 204, nil),
		query("a quote", "select id from Contacts where Last_Name in ('o'neil') limit 200", 400, map[string]any{"code": "SYNTAX_ERROR"}),
		query("too many", "select id from Contacts where Last_Name in ("+many+") limit 200", 400, map[string]any{"code": "LIMIT_REACHED"}),
		query("field", "select id from Contacts where Nope in ('x') limit 200", 400, map[string]any{"details.column_name": "Nope"}),
		query("module", "select id from Butterflies where Name in ('x') limit 200", 400, map[string]any{"code": "INVALID_QUERY"}),
	)
}

// Without the list of fields Zoho checks its own field first, and two accounts of one name become one.
func TestZohoDuplicateCheck(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	upsert := zoV8 + "Accounts/upsert"
	converse(t, s,
		exchange{name: "one", path: upsert, body: `{"data":[{"Account_Name":"Acme","Partner_Key":"1"}]}`, want: 200, says: map[string]any{"data.0.action": "insert"}},
		exchange{name: "another of that name, by the defaults", path: upsert, body: `{"data":[{"Account_Name":"acme","Partner_Key":"2"}]}`, want: 200,
			says: map[string]any{"data.0.action": "update", "data.0.duplicate_field": "Account_Name"}},
		exchange{name: "our key first", path: upsert, body: zoRows(`{"Account_Name":"Acme","Partner_Key":"3"}`), want: 200, says: map[string]any{"data.0.action": "insert"}},
		exchange{name: "the key of another record", path: upsert, body: `{"data":[{"Account_Name":"Other","Partner_Key":"3"}],"duplicate_check_fields":["Account_Name"]}`, want: 200,
			says: map[string]any{"data.0.code": "DUPLICATE_DATA", "data.0.details.api_name": "Partner_Key", "data.0.details.more_records": false}},
		exchange{name: "several match", path: upsert, body: `{"data":[{"Account_Name":"Acme"}],"duplicate_check_fields":["Account_Name"]}`, want: 200,
			says: map[string]any{"data.0.code": "DUPLICATE_DATA", "data.0.details.more_records": true}},
		exchange{name: "the order is that of the list", path: upsert, body: `{"data":[{"Account_Name":"Acme","Partner_Key":"3"}],"duplicate_check_fields":["Partner_Key","Account_Name"]}`, want: 200,
			says: map[string]any{"data.0.duplicate_field": "Partner_Key"}},
	)
}

func TestZohoMultiStatus(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Variants: []Variant{ZohoMultiStatus}})
	good, bad := `{"Last_Name":"x"}`, `{"First_Name":"x"}`
	for want, rows := range map[int][]string{200: {good}, 207: {good, bad}, 400: {bad, bad}} {
		converse(t, s, exchange{name: fmt.Sprint(want), path: zoV8 + "Contacts/upsert", body: zoRows(rows...), want: want, holds: `"data":[{`})
	}
}

func TestZohoRecords(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := furnished(Options{Now: clock.now})
	account := s.Put("zoho", "Accounts", map[string]any{"Account_Name": "Acme", "Partner_Key": "A1"})
	id := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "Doe", "Email": "a@b.co", "Partner_Key": "C1"})
	gone := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "Old"})
	s.Archive("zoho", "Contacts", gone)
	odd := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "Odd", "Partner_Key": `a(b),c\d:e`})
	one := zoV8 + "Contacts/" + id
	search := func(name, criteria string, want int, found any) exchange {
		return exchange{name: name, path: zoV8 + "Contacts/search?criteria=" + queryEscape(criteria), want: want, says: map[string]any{"data.0.id": found}}
	}
	converse(t, s,
		exchange{name: "lookup by id", method: "PUT", path: one, body: `{"data":[{"Account_Name":{"id":"` + account + `"}}]}`, want: 200, says: map[string]any{"data.0.code": "SUCCESS", "data.0.message": "record updated"}},
		exchange{name: "get", path: one, want: 200, says: map[string]any{"data.0.Account_Name.id": account, "data.0.Last_Name": "Doe"}},
		exchange{name: "lookup by name", method: "PUT", path: one, body: `{"data":[{"Account_Name":"Acme"}]}`, want: 200, says: map[string]any{"data.0.details.expected_data_type": "jsonobject"}},
		exchange{name: "no such account", method: "PUT", path: one, body: `{"data":[{"Account_Name":{"id":"1"}}]}`, want: 200, says: map[string]any{"data.0.code": "INVALID_DATA"}},
		exchange{name: "deleted", method: "PUT", path: zoV8 + "Contacts/" + gone, body: `{"data":[{"Phone":"1"}]}`, want: 200, says: map[string]any{"data.0.code": "INVALID_DATA", "data.0.details.api_name": "id"}},
		exchange{name: "several", method: "PUT", path: zoV8 + "Contacts", body: `{"data":[{"id":"` + id + `","Phone":"2"},{"Phone":"1"}]}`, want: 200,
			says: map[string]any{"data.0.status": "success", "data.1.code": "MANDATORY_NOT_FOUND"}},
		exchange{name: "upsert by id", path: zoV8 + "Contacts/upsert", body: zoRows(`{"id":"` + id + `","Phone":"3"}`), want: 200, says: map[string]any{"data.0.action": "update"}},
		exchange{name: "create", path: zoV8 + "Contacts", body: `{"data":[{"Last_Name":"New"}]}`, want: 201, says: map[string]any{"data.0.status": "success", "data.0.action": nil}},
		exchange{name: "search", path: zoV8 + "Contacts/search?criteria=" + queryEscape("((Partner_Key:equals:c1)and(Last_Name:starts_with:D))"), want: 200, says: map[string]any{"data.0.id": id}},
		exchange{name: "search either", path: zoV8 + "Contacts/search?criteria=" + queryEscape("((Partner_Key:equals:x)or(Email:in:a@b.co,c@d.co))"), want: 200, says: map[string]any{"data.0.id": id, "info.count": 1}},
		exchange{name: "search by address", path: zoV8 + "Contacts/search?email=A%40b.co&fields=Email", want: 200, says: map[string]any{"data.0.Email": "a@b.co", "data.0.Last_Name": nil}},
		exchange{name: "search finds none", path: zoV8 + "Contacts/search?criteria=(Partner_Key:equals:none)", want: 204},
		exchange{name: "bad criteria", path: zoV8 + "Contacts/search?criteria=(Partner_Key:like:none)", want: 400, says: map[string]any{"code": "INVALID_QUERY"}},
		search("ten criteria", strings.Repeat("(Partner_Key:equals:x)or", 9)+"(Partner_Key:equals:C1)", 200, id),
		search("eleven criteria", strings.Repeat("(Partner_Key:equals:x)or", 10)+"(Partner_Key:equals:C1)", 400, nil),
		search("a comma without a backslash", "(Partner_Key:equals:a,b)", 400, nil),
		search("a parenthesis without a backslash", "(Partner_Key:equals:a(b)", 400, nil),
		search("a parenthesis that ends too soon", "(Partner_Key:equals:a)b)", 400, nil),
		search("all behind backslashes, and colons", `(Partner_Key:equals:a\(b\)\,c\\d:e)`, 200, odd),
		search("equals is equals", "(Partner_Key:equals:C)", 204, nil),
		exchange{name: "created", path: zoV8 + "Contacts/search?fields=Created_Time&criteria=(Partner_Key:equals:C1)", want: 200, says: map[string]any{"data.0.Created_Time": "2026-11-21T12:00:00+00:00", "data.0.Last_Name": nil}},
		exchange{name: "by ids", path: zoV8 + "Contacts?fields=Last_Name&ids=" + gone + "," + id, want: 200, says: map[string]any{"data.0.id": id, "data.1": nil}},
		exchange{name: "none of the ids", path: zoV8 + "Contacts?fields=Last_Name&ids=" + gone, want: 204},
		exchange{name: "without fields", path: zoV8 + "Contacts?ids=" + id, want: 400, says: map[string]any{"code": "REQUIRED_PARAM_MISSING"}},
		exchange{name: "too many ids", path: zoV8 + "Contacts?fields=Last_Name&ids=" + strings.Repeat("1,", 100) + id, want: 400},
		exchange{name: "too many fields", path: zoV8 + "Contacts?fields=" + strings.Repeat("Phone,", 50) + "Email", want: 400},
		exchange{name: "no criteria", path: zoV8 + "Contacts/search", want: 400},
		exchange{name: "list", path: zoV8 + "Contacts?fields=Last_Name&per_page=1", want: 200, says: map[string]any{"data.0.Last_Name": "Doe", "info.more_records": true}},
		exchange{name: "fields", path: zoV8 + "settings/fields?module=Deals", want: 200, holds: `"api_name":"Partner_Key"`},
		exchange{name: "modules", path: zoV8 + "settings/modules", want: 200, holds: `"api_name":"Payouts"`},
		exchange{name: "changed since", method: "PUT", path: one, body: `{"data":[{"Phone":"4"}]}`, header: "If-Unmodified-Since: 2026-11-21T11:00:00+00:00", want: 200, says: map[string]any{"data.0.code": "ALREADY_MODIFIED"}},
		exchange{name: "unchanged", method: "PUT", path: one, body: `{"data":[{"Phone":"4"}]}`, header: "If-Unmodified-Since: 2026-11-21T13:00:00+00:00", want: 200, says: map[string]any{"data.0.code": "SUCCESS"}},
		exchange{name: "delete", method: "DELETE", path: zoV8 + "Contacts?ids=" + id + "," + gone, want: 200, says: map[string]any{"data.0.code": "SUCCESS", "data.1.message": "record not deleted"}},
		exchange{name: "gone", path: one, want: 204},
		exchange{name: "nowhere", path: "/zoho/crm/v1/Contacts", want: 404, says: map[string]any{"code": "INVALID_URL_PATTERN"}},
		exchange{name: "method", method: "PATCH", path: one, body: `{}`, want: 400, says: map[string]any{"code": "INVALID_REQUEST_METHOD"}},
	)
	converse(t, furnished(Options{MissingScopes: []string{"ZohoCRM.modules.Contacts"}}),
		exchange{name: "scope", path: zoV8 + "Contacts/upsert", body: zoRows(`{}`), want: 401, says: map[string]any{"code": "OAUTH_SCOPE_MISMATCH"}})
}

func TestZohoEqualsContains(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Variants: []Variant{ZohoEqualsContains}})
	id := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "Doe", "Partner_Key": "C10"})
	converse(t, s, exchange{name: "part", path: zoV8 + "Contacts/search?criteria=(Partner_Key:equals:c1)", want: 200, says: map[string]any{"data.0.id": id}})
}

func TestZohoExternalFields(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	account := s.Put("zoho", "Accounts", map[string]any{"Account_Name": "Acme", "Partner_Key": "A1"})
	id := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "Doe", "Partner_Key": "C1"})
	both := "X-EXTERNAL: Contacts.Partner_Key, Contacts.Account_Name.Partner_Key"
	converse(t, s,
		exchange{name: "by external value in the path", method: "PUT", path: zoV8 + "Contacts/C1", header: "X-EXTERNAL: Contacts.Partner_Key", body: `{"data":[{"Phone":"1"}]}`, want: 200, says: map[string]any{"data.0.details.id": id}},
		exchange{name: "and in the row, with a lookup", method: "PUT", path: zoV8 + "Contacts", header: both, body: `{"data":[{"Partner_Key":"C1","Account_Name":{"Partner_Key":"a1"}}]}`, want: 200,
			says: map[string]any{"data.0.details.id": id}},
		exchange{name: "upsert with a lookup", path: zoV8 + "Contacts/upsert", header: "X-EXTERNAL: Contacts.Account_Name.Partner_Key", want: 200,
			body: zoRows(`{"Last_Name":"Roe","Partner_Key":"C2","Account_Name":{"Partner_Key":"A1"}}`), says: map[string]any{"data.0.action": "insert"}},
		exchange{name: "no such account", path: zoV8 + "Contacts/upsert", header: both, body: zoRows(`{"Last_Name":"Poe","Partner_Key":"C3","Account_Name":{"Partner_Key":"none"}}`), want: 200,
			says: map[string]any{"data.0.code": "INVALID_DATA", "data.0.details.api_name": "Account_Name"}},
		exchange{name: "without the header an id is wanted", path: zoV8 + "Contacts/upsert", body: zoRows(`{"Last_Name":"Poe","Account_Name":{"Partner_Key":"A1"}}`), want: 200, says: map[string]any{"data.0.code": "INVALID_DATA"}},
		exchange{name: "read", path: zoV8 + "Contacts/C1", header: "X-EXTERNAL: Contacts.Partner_Key", want: 200, says: map[string]any{"data.0.Account_Name.id": account}},
		exchange{name: "another module's field", path: zoV8 + "Contacts/upsert", header: "X-EXTERNAL: Deals.Partner_Key", body: zoRows(`{}`), want: 400},
	)
	for _, c := range stored(s, "zoho", "Contacts") {
		wantEqual(t, "account", c["Account_Name"], any(account))
	}
}

func TestZohoParents(t *testing.T) {
	s := furnished(Options{})
	account := s.Put("zoho", "Accounts", map[string]any{"Account_Name": "Acme"})
	contact := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "Doe"})
	lacks := func(name string) map[string]any {
		return map[string]any{"data.0.code": "MANDATORY_NOT_FOUND", "data.0.details.api_name": name}
	}
	wrong := map[string]any{"data.0.code": "INVALID_DATA"}
	note := func(parent string) string { return zoRows(`{"Note_Content":"x"` + parent + `}`) }
	task := func(more string) string { return zoRows(`{"Subject":"x"` + more + `}`) }
	converse(t, s, []exchange{
		{name: "note", path: zoV8 + "Notes", body: note(`,"Parent_Id":{"id":"` + account + `","module":{"api_name":"Accounts"}}`), want: 201},
		{name: "note of nothing", path: zoV8 + "Notes", body: note(""), want: 200, says: lacks("Parent_Id")},
		{name: "note without module", path: zoV8 + "Notes", body: note(`,"Parent_Id":{"id":"` + account + `"}`), want: 200, says: lacks("module")},
		{name: "note of another module", path: zoV8 + "Notes", body: note(`,"Parent_Id":{"id":"` + account + `","module":{"api_name":"Deals"}}`), want: 200, says: wrong},
		{name: "note of no module", path: zoV8 + "Notes", body: note(`,"Parent_Id":{"id":"` + account + `","module":{"api_name":"x"}}`), want: 200, says: wrong},
		{name: "task", path: zoV8 + "Tasks", body: task(`,"What_Id":{"id":"` + account + `"},"$se_module":"Accounts"`), want: 201},
		{name: "task without module", path: zoV8 + "Tasks", body: task(`,"What_Id":{"id":"` + account + `"}`), want: 200, says: lacks("$se_module")},
		{name: "task of another module", path: zoV8 + "Tasks", body: task(`,"What_Id":{"id":"` + account + `"},"$se_module":"Deals"`), want: 200, says: wrong},
		{name: "task of a person", path: zoV8 + "Tasks", body: task(`,"Who_Id":{"id":"` + contact + `"}`), want: 201},
		{name: "task of nothing", path: zoV8 + "Tasks", body: task(""), want: 201},
	}...)
}

func TestZohoLimits(t *testing.T) {
	t.Parallel()
	clock := newClock()
	day := Limit{Dialect: "zoho", Policy: "credits", Requests: 3, Per: 24 * time.Hour, Rolling: true, Weighed: true}
	rows := make([]string, 15)
	for i := range rows {
		rows[i] = `{"Last_Name":"x"}`
	}
	write := exchange{path: zoV8 + "Contacts/upsert", body: zoRows(rows...)}
	for _, tt := range []struct {
		variants []Variant
		calls    int
	}{{nil, 3}, {[]Variant{ZohoCreditPerTen}, 1}} {
		s := furnished(Options{Now: clock.now, Limits: []Limit{day}, Variants: tt.variants})
		for range tt.calls {
			wantEqual(t, "status", ask(t, s, write).status, 200)
		}
		h := ask(t, s, write)
		wantEqual(t, "status", h.status, 429)
		wantEqual(t, "code", h.text("code"), "LIMIT_EXCEEDED")
		clock.at = clock.at.Add(13 * time.Hour) // midnight does not help
		wantEqual(t, "after midnight", ask(t, s, write).status, 429)
		clock.at = clock.at.Add(11 * time.Hour)
		wantEqual(t, "a day later", ask(t, s, write).status, 200)
	}
	s := furnished(Options{})
	s.Fault(Fault{Dialect: "zoho", Effect: EffectThrottle, Count: 1})
	wantEqual(t, "code", ask(t, s, write).text("code"), "TOO_MANY_REQUESTS")
}
