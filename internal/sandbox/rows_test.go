package sandbox

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes is a request of each dialect that writes a contact with the key K1 twice over.
func oneWrite(dialect string) exchange {
	switch dialect {
	case "hubspot":
		return exchange{path: "/hubspot/crm/objects/2026-03/contacts/batch/upsert",
			body: `{"inputs":[{"id":"K1","idProperty":"partner_key","objectWriteTraceId":"t","properties":{"firstname":"Doe"}}]}`}
	case salesforceName:
		return exchange{method: "PATCH", path: sfContacts, body: sfBatch(false, sfContact("K1", `,"LastName":"Doe"`))}
	case pipedriveName:
		return exchange{path: pdV2 + "persons", body: `{"name":"Doe","custom_fields":{"abc":"K1"}}`}
	case attioName:
		return exchange{method: "PUT", path: atObjects + "people/records?matching_attribute=partner_key", body: atBody(`"partner_key":"K1","name":"Doe"`)}
	case zohoName:
		return exchange{path: zoV8 + "Contacts/upsert", body: zoRows(`{"Last_Name":"Doe","Partner_Key":"K1"}`)}
	}
	return exchange{method: "PATCH", path: dvAPI + "contacts(new_key='K1')", body: `{"lastname":"Doe"}`}
}

// people is the object that oneWrite writes.
var people = map[string]string{
	"hubspot": "contacts", "salesforce": "Contact", "pipedrive": "persons", "attio": "people", "zoho": "Contacts", "dataverse": "contacts",
}

func withHubspot(o Options) *Server {
	s := furnished(o)
	s.Define("hubspot", "contacts", Property{Name: "partner_key", Unique: true})
	return s
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		dialect  string
		property string
		want     int
		code     string // where the code is
		field    string // where the field is; empty: nowhere
	}{
		{"hubspot", "firstname", 207, "errors.0.category", ""},
		{"salesforce", "LastName", 200, "0.errors.0.statusCode", "0.errors.0.fields.0"},
		{"pipedrive", "name", 402, "code", ""},
		{"attio", "name", 402, "code", ""},
		{"zoho", "Last_Name", 200, "data.0.code", "data.0.details.api_name"},
		{"dataverse", "lastname", 402, "error.code", ""},
	}
	for _, tt := range tests {
		t.Run(tt.dialect, func(t *testing.T) {
			t.Parallel()
			s := withHubspot(Options{})
			write := oneWrite(tt.dialect)
			r := Refusal{Dialect: tt.dialect, Object: people[tt.dialect], Property: tt.property, Value: "doe", Count: 1, Status: 402, Code: "OUR_RULE", Message: "not this one"}
			if tt.field != "" {
				r.Field = tt.property
			}
			s.Refuse(Refusal{Dialect: tt.dialect, Object: people[tt.dialect], Property: tt.property, Value: "Roe", Code: "OTHER"})
			s.Refuse(Refusal{Dialect: "nosuch", Code: "OTHER"})
			s.Refuse(r)
			h := ask(t, s, write)
			wantEqual(t, "status", h.status, tt.want)
			wantEqual(t, "code", h.text(tt.code), "OUR_RULE")
			wantContains(t, "message", h.raw, "not this one")
			if tt.field != "" {
				wantEqual(t, "field", h.text(tt.field), tt.property)
			}
			wantEqual(t, "written", len(s.Records(tt.dialect, people[tt.dialect])), 0)
			ask(t, s, write)
			wantEqual(t, "the count is used up", len(s.Records(tt.dialect, people[tt.dialect])), 1)
			remove := s.Refuse(Refusal{Code: "ALWAYS"})
			ask(t, s, write)
			wantEqual(t, "written once", s.Records(tt.dialect, people[tt.dialect])[0].Writes, 1)
			remove()
			ask(t, s, write)
			last := s.Records(tt.dialect, people[tt.dialect])
			if n := len(last) + last[0].Writes; n != 3 { // Pipedrive makes another
				t.Errorf("removed: %d", n)
			}
		})
	}
}

// A header overrules a duplicate rule.
func TestSalesforceDuplicateRule(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	s.Refuse(Refusal{Dialect: "salesforce", Code: "DUPLICATES_DETECTED", Message: "Use one of these records?"})
	write := oneWrite("salesforce")
	write.name, write.want, write.says = "refused", 200, map[string]any{"0.errors.0.statusCode": "DUPLICATES_DETECTED"}
	converse(t, s, write)
	write.header, write.says = "Sforce-Duplicate-Rule-Header: allowSave=true", map[string]any{"0.success": true}
	converse(t, s, write)
}

// A duplicate rule may compare with the records of another object.
func TestDuplicateRuleAcrossObjects(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	s.Put("salesforce", "Contact", map[string]any{"LastName": "Doe", "Email": "jane@acme.test"})
	s.Refuse(Refusal{Dialect: "salesforce", Object: "Lead", Property: "Email", Holder: "Contact", Code: "DUPLICATES_DETECTED", Message: "Use one of these records?"})
	lead := func(name, fields string, says map[string]any) exchange {
		return exchange{name: name, method: "POST", path: sfData + "composite/sobjects", want: 200, says: says,
			body: `{"records": [{"attributes": {"type": "Lead"}, "LastName": "Doe", "Company": "Acme"` + fields + `}]}`}
	}
	refused, made := map[string]any{"0.errors.0.statusCode": "DUPLICATES_DETECTED"}, map[string]any{"0.success": true}
	converse(t, s, lead("a contact has the address", `, "Email": "Jane@acme.test"`, refused))
	converse(t, s, lead("nobody has it", `, "Email": "john@acme.test"`, made))
	converse(t, s, lead("no address", "", made))
}

func TestLock(t *testing.T) {
	t.Parallel()
	tests := []struct {
		dialect string
		want    int
		code    string
		says    string
	}{
		{"hubspot", 207, "errors.0.category", "LOCKED"},
		{"salesforce", 200, "0.errors.0.statusCode", "UNABLE_TO_LOCK_ROW"},
		{"attio", 409, "code", "merge_in_progress"},
		{"zoho", 200, "data.0.code", "RECORD_LOCKED"},
		{"dataverse", 500, "error.code", "0x80044150"},
	}
	for _, tt := range tests {
		t.Run(tt.dialect, func(t *testing.T) {
			t.Parallel()
			s := withHubspot(Options{})
			write := oneWrite(tt.dialect)
			ask(t, s, write)
			record := s.Records(tt.dialect, people[tt.dialect])[0]
			unlock := s.Lock(tt.dialect, people[tt.dialect], record.ID)
			h := ask(t, s, write)
			wantEqual(t, "status", h.status, tt.want)
			wantEqual(t, "code", h.text(tt.code), tt.says)
			unlock()
			ask(t, s, write)
			got, _ := s.Get(tt.dialect, people[tt.dialect], record.ID)
			wantEqual(t, "writes", got.Writes, 2)
		})
	}
	s := furnished(Options{})
	s.Lock("zoho", "Contacts", "none")() // nothing to lock, nothing to unlock
	id := s.Put("pipedrive", "persons", map[string]any{"name": "x"})
	s.Lock("pipedrive", "person", id)
	converse(t, s, exchange{name: "pipedrive", method: "PATCH", path: pdV2 + "persons/" + id, body: `{"name":"y"}`, want: 423})
}

func TestMerge(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	a := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "A", "Phone": "1", "Partner_Key": "K1"})
	b := s.Put("zoho", "Contacts", map[string]any{"Last_Name": "B"})
	wantEqual(t, "merged", s.Merge("zoho", "Contacts", a, b), true)
	wantEqual(t, "again", s.Merge("zoho", "Contacts", a, b), false)
	wantEqual(t, "with itself", s.Merge("zoho", "Contacts", b, b), false)
	wantEqual(t, "left", stored(s, "zoho", "Contacts"), []map[string]any{{"Last_Name": "B", "Phone": "1", "Partner_Key": "K1"}})
	write := oneWrite("zoho")
	write.name, write.want, write.says = "the key leads to the other", 200, map[string]any{"data.0.details.id": b, "data.0.action": "update"}
	converse(t, s, write)
}

// The faults work in every dialect, and a throttle is answered in its own way.
func TestFaultsOfEveryDialect(t *testing.T) {
	t.Parallel()
	throttle := map[string]struct {
		status int
		holds  string
	}{
		"hubspot":    {429, `"errorType":"RATE_LIMIT"`},
		"salesforce": {403, `"errorCode":"REQUEST_LIMIT_EXCEEDED"`},
		"pipedrive":  {429, `"errorCode":429`},
		"attio":      {429, `"code":"rate_limit_exceeded"`},
		"zoho":       {429, `"code":"TOO_MANY_REQUESTS"`},
		"dataverse":  {429, `"code":"0x80072322"`},
	}
	for dialect, want := range throttle {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			s := withHubspot(Options{})
			write := oneWrite(dialect)
			written := func() int { return len(s.Records(dialect, people[dialect])) }
			remove := s.Fault(Fault{Dialect: dialect, Effect: EffectThrottle})
			h := ask(t, s, write)
			wantEqual(t, "throttled", h.status, want.status)
			wantContains(t, "throttled", h.raw, want.holds)
			remove()
			for status := 400; status < 600; status++ { // the dialect's own body for any status
				if status == 429 {
					continue
				}
				s.Fault(Fault{Dialect: dialect, Effect: EffectStatus, Status: status, Count: 1})
				got := ask(t, s, write).status
				if got != status && !(dialect == zohoName && status == 405 && got == 400) {
					t.Errorf("status %d, want %d", got, status)
				}
			}
			wantEqual(t, "written", written(), 0)
			s.Fault(Fault{Dialect: dialect, Effect: EffectHTML, Count: 1})
			wantEqual(t, "page", ask(t, s, write).status, 403)
			s.Fault(Fault{Dialect: dialect, Effect: EffectStatus, Status: 504, Apply: true, Count: 1})
			wantEqual(t, "applied", ask(t, s, write).status, 504)
			wantEqual(t, "written", written(), 1)
			wantEqual(t, "rows", s.Requests()[len(s.Requests())-1].Rows, 1)
		})
	}
}

func TestSalesforceLimits(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Limits: []Limit{{Dialect: "salesforce", Policy: "TotalRequests", Requests: 2, Per: 24 * time.Hour, Rolling: true}}})
	get := exchange{path: sfData + "sobjects/Contact/describe"}
	wantEqual(t, "info", ask(t, s, get).header.Get("Sforce-Limit-Info"), "api-usage=1/2")
	wantEqual(t, "info", ask(t, s, get).header.Get("Sforce-Limit-Info"), "api-usage=2/2")
	h := ask(t, s, get)
	wantEqual(t, "status", h.status, 403)
	wantEqual(t, "code", h.text("0.errorCode"), "REQUEST_LIMIT_EXCEEDED")
	wantEqual(t, "message", h.text("0.message"), "TotalRequests Limit exceeded.")
	wantEqual(t, "info", h.header.Get("Sforce-Limit-Info"), "api-usage=2/2")
	login, _ := login(t, s, salesforceName)
	wantEqual(t, "a login is no request", login.status, 200)
	s.Fault(Fault{Dialect: "salesforce", Effect: EffectThrottle, Policy: "ConcurrentRequests (Concurrent API Requests)"})
	h = ask(t, s, get)
	wantEqual(t, "status", h.status, 403)
	wantEqual(t, "message", h.text("0.message"), "ConcurrentRequests (Concurrent API Requests) Limit exceeded.")
}

func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := furnished(Options{Latency: time.Minute, Limits: []Limit{{Dialect: "zoho", Policy: "concurrency", Requests: 2, Concurrent: true}}})
		get := exchange{path: zoV8 + "org"}
		var (
			wg       sync.WaitGroup
			mu       sync.Mutex
			statuses = map[int]int{}
		)
		for range 3 {
			wg.Go(func() {
				h := ask(t, s, get)
				mu.Lock()
				defer mu.Unlock()
				statuses[h.status]++
			})
		}
		wg.Wait()
		wantEqual(t, "statuses", statuses, map[int]int{200: 2, 429: 1})
		wantEqual(t, "afterwards", ask(t, s, get).status, 200)
	})
}

// One server, all dialects, many clients.
func TestConcurrentDialects(t *testing.T) {
	t.Parallel()
	s := withHubspot(Options{Lag: time.Second})
	var wg sync.WaitGroup
	for dialect := range people {
		for range 3 {
			wg.Go(func() {
				for range 20 {
					if h := ask(t, s, oneWrite(dialect)); h.status >= 300 {
						t.Errorf("%s: status %d: %s", dialect, h.status, h.raw)
					}
					s.ExpireTokens(dialect)
					s.Records(dialect, people[dialect])
					ask(t, s, exchange{path: "/records.json"})
				}
			})
		}
	}
	wg.Wait()
	for dialect, object := range people {
		want := 1
		if dialect == pipedriveName {
			want = 60
		}
		wantEqual(t, dialect, len(s.Records(dialect, object)), want)
	}
}

// A lookup that refers to an object that nobody defined refuses every value, and breaks nothing.
func TestLookupToNowhere(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	for dialect, object := range people {
		s.Define(dialect, object, Property{Name: "nowhere", Type: "lookup", Target: "x_nowhere"})
	}
	s.Define("salesforce", "Contact", Property{Name: "Nowhere__c", Type: "lookup", Target: "X_Nowhere,Account"})
	account := s.Put("salesforce", "Account", map[string]any{"Name": "Acme"})
	converse(t, s,
		exchange{name: "salesforce", method: "PATCH", path: sfContacts, body: sfBatch(false, sfContact("K", `,"LastName":"x","Nowhere__c":"`+account+`"`), sfContact("L", `,"LastName":"x","nowhere":"`+account+`"`)), want: 200,
			says: map[string]any{"0.success": true, "1.errors.0.statusCode": "INVALID_CROSS_REFERENCE_KEY"}},
		exchange{name: "pipedrive", path: pdV2 + "persons", body: `{"name":"x","custom_fields":{"nowhere":1}}`, want: 400},
		exchange{name: "attio", path: atObjects + "people/records", body: atBody(`"nowhere":{"target_object":"x_nowhere","target_record_id":"1"}`), want: 400},
		exchange{name: "zoho", path: zoV8 + "Contacts", body: `{"data":[{"Last_Name":"x","nowhere":{"id":"1"}}]}`, want: 200, says: map[string]any{"data.0.code": "INVALID_DATA"}},
		exchange{name: "dataverse", path: dvAPI + "contacts", body: `{"nowhere@odata.bind":"/x_nowhere(new_key='1')"}`, want: 404},
	)
}
