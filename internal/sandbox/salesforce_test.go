package sandbox

import (
	"fmt"
	"strings"
	"testing"
)

const (
	sfData       = "/salesforce/services/data/v67.0/"
	sfContacts   = sfData + "composite/sobjects/Contact/Partner_Key__c"
	sfRowContact = `{"attributes":{"type":"Contact"},"Partner_Key__c":"%s","LastName":"%s"}`
)

// sfBatch makes the body of a collection.
func sfBatch(allOrNone bool, rows ...string) string {
	return fmt.Sprintf(`{"allOrNone":%t,"records":[%s]}`, allOrNone, strings.Join(rows, ","))
}

func sfContact(key, more string) string {
	return `{"attributes":{"type":"Contact"},"Partner_Key__c":"` + key + `"` + more + `}`
}

// Each line is what jsforce sent. The first has an external id with a slash in it, unescaped: a path that leads nowhere.
func TestSalesforceOfficialClient(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	wantEqual(t, "statuses", replay(t, s, "salesforce"), []int{404, 200, 200})
	wantEqual(t, "contacts", stored(s, "salesforce", "Contact"), []map[string]any{
		{"Partner_Key__c": "1", "LastName": "D1"}, {"Partner_Key__c": "2", "LastName": "D2"},
	})
}

func TestSalesforceCollection(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	account := s.Put("salesforce", "Account", map[string]any{"Name": "Acme", "Partner_Key__c": "ACC-1"})
	converse(t, s,
		exchange{name: "rows in order, the bad ones beside the good", method: "PATCH", path: sfContacts, want: 200,
			body: sfBatch(false, sfContact("A", `,"LastName":"Doe","Account":{"Partner_Key__c":"acc-1"}`), sfContact("B", ""),
				sfContact("C", `,"LastName":"Roe","Tier__c":"Bronze"`), sfContact("D", `,"LastName":"Poe","Account":{"Partner_Key__c":"none"}`)),
			says: map[string]any{
				"0.success": true, "0.created": true, "0.errors": []any{},
				"1.success": false, "1.errors.0.statusCode": "REQUIRED_FIELD_MISSING", "1.errors.0.fields.0": "LastName", "1.id": nil,
				"2.errors.0.statusCode": "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "2.errors.0.message": "Tier__c: bad value for restricted picklist field: Bronze",
				"3.errors.0.statusCode": "INVALID_FIELD",
				"3.errors.0.message":    "Foreign key external ID: none not found for field Partner_Key__c in entity Account",
			}},
		exchange{name: "an update, whatever the case of key and field", method: "PATCH", path: strings.ToLower(sfContacts), want: 200,
			body: sfBatch(false, sfContact("a", `,"lastname":"Doe-Roe","Phone":"1"`)),
			says: map[string]any{"0.success": true, "0.created": false}},
		exchange{name: "one id twice refuses all rows that share it", method: "PATCH", path: sfContacts, want: 200,
			body: sfBatch(false, sfContact("X-1", `,"LastName":"1"`), sfContact("E", `,"LastName":"2"`), sfContact("x-1", `,"LastName":"3"`)),
			says: map[string]any{
				"0.errors.0.statusCode": "DUPLICATE_VALUE", "0.errors.0.message": "Duplicate external id specified: x-1",
				"1.success": true, "2.errors.0.message": "Duplicate external id specified: x-1",
			}},
		exchange{name: "all or none", method: "PATCH", path: sfContacts, want: 200,
			body: sfBatch(true, sfContact("A", `,"LastName":"Changed"`), sfContact("F", `,"LastName":"New"`), sfContact("G", "")),
			says: map[string]any{
				"0.errors.0.statusCode": "ALL_OR_NONE_OPERATION_ROLLED_BACK", "1.errors.0.statusCode": "ALL_OR_NONE_OPERATION_ROLLED_BACK",
				"2.errors.0.statusCode": "REQUIRED_FIELD_MISSING",
			}},
		exchange{name: "after the roll back the key is free", method: "PATCH", path: sfContacts, want: 200,
			body: sfBatch(false, sfContact("F", `,"LastName":"New"`)), says: map[string]any{"0.created": true}},
		exchange{name: "a row without a key", method: "PATCH", path: sfContacts, want: 200,
			body: sfBatch(false, `{"attributes":{"type":"Contact"},"LastName":"x"}`), says: map[string]any{"0.errors.0.statusCode": "MISSING_ARGUMENT"}},
		exchange{name: "an unknown field refuses its row", method: "PATCH", path: sfContacts, want: 200,
			body: sfBatch(false, sfContact("H", `,"LastName":"x","Nope__c":1`), sfContact("I", `,"LastName":"y"`)),
			says: map[string]any{"0.errors.0.statusCode": "INVALID_FIELD", "0.errors.0.message": "No such column 'Nope__c' on sobject of type Contact", "1.success": true}},
		exchange{name: "too many rows", method: "PATCH", path: sfContacts, want: 400, body: sfBatch(false, strings.Split(strings.Repeat(sfContact("1", "")+"\n", 201), "\n")[:201]...),
			says: map[string]any{"0.errorCode": "EXCEEDED_ID_LIMIT"}},
		exchange{name: "another type", method: "PATCH", path: sfContacts, want: 400, body: sfBatch(false, `{"attributes":{"type":"Lead"},"Partner_Key__c":"1"}`)},
		exchange{name: "no external id", method: "PATCH", path: sfData + "composite/sobjects/Contact/LastName", body: sfBatch(false), want: 404, says: map[string]any{"0.errorCode": "NOT_FOUND"}},
		exchange{name: "not JSON", method: "PATCH", path: sfContacts, body: `{"records":`, want: 400, says: map[string]any{"0.errorCode": "JSON_PARSER_ERROR"}},
	)
	contacts := stored(s, "salesforce", "Contact")
	wantEqual(t, "first", contacts[0], map[string]any{"Partner_Key__c": "A", "LastName": "Doe-Roe", "Phone": "1", "AccountId": account})
	wantEqual(t, "contacts", len(contacts), 4)
	wantEqual(t, "rows in the log", s.Requests()[0].Rows, 4)
}

func TestSalesforceStrictBatch(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Variants: []Variant{SalesforceStrictBatch}})
	converse(t, s, exchange{name: "an unknown field refuses the batch", method: "PATCH", path: sfContacts, want: 400,
		body: sfBatch(false, sfContact("1", `,"LastName":"y"`), sfContact("2", `,"LastName":"x","Nope__c":1`)), says: map[string]any{"0.errorCode": "INVALID_FIELD"}})
	wantEqual(t, "contacts", len(s.Records("salesforce", "Contact")), 0)
}

func TestSalesforceSingle(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	for range 2 {
		s.Put("salesforce", "Contact", map[string]any{"LastName": "Twin", "Email": "twin@x.test"})
	}
	one := sfData + "sobjects/Contact/Partner_Key__c/"
	deal := sfData + "sobjects/Opportunity/Partner_Key__c/"
	converse(t, s,
		exchange{name: "insert", method: "PATCH", path: one + "K%2F1%20a%2Bb", body: `{"LastName":"Doe"}`, want: 201, says: map[string]any{"success": true, "created": true}},
		exchange{name: "update", method: "PATCH", path: one + "K%2F1%20a%2Bb", body: `{"FirstName":"Jane"}`, want: 200, says: map[string]any{"created": false}},
		exchange{name: "update in an old version", method: "PATCH", path: strings.Replace(one, "v67", "v45", 1) + "K%2F1%20a%2Bb", body: `{"FirstName":"J"}`, want: 204},
		exchange{name: "update only, and there is none", method: "PATCH", path: one + "none?updateOnly=true", body: `{"LastName":"x"}`, want: 404},
		exchange{name: "key in the body", method: "PATCH", path: one + "K2", body: `{"LastName":"x","Partner_Key__c":"K2"}`, want: 400,
			says: map[string]any{"0.errorCode": "INVALID_FIELD", "0.message": "The Partner_Key__c field should not be specified in the sobject data."}},
		exchange{name: "id in the body", method: "PATCH", path: one + "K2", body: `{"LastName":"x","Id":"003"}`, want: 400},
		exchange{name: "several match", method: "PATCH", path: sfData + "sobjects/Contact/Email/twin%40x.test", body: `{"LastName":"x"}`, want: 300,
			holds: `["/services/data/v67.0/sobjects/Contact/003`},
		exchange{name: "several match in a collection", method: "PATCH", path: sfData + "composite/sobjects/Contact/Email", want: 200,
			body: sfBatch(false, `{"attributes":{"type":"Contact"},"Email":"twin@x.test","LastName":"x"}`),
			says: map[string]any{"0.errors.0.statusCode": "DUPLICATE_EXTERNAL_ID"}, holds: "Email: more than one record found for external id field: [003"},
		exchange{name: "not an external id", method: "PATCH", path: sfData + "sobjects/Contact/LastName/Doe", body: `{}`, want: 404, says: map[string]any{"errorCode": "NOT_FOUND"}},
		exchange{name: "a value like the name of a file", method: "PATCH", path: sfData + "sobjects/Contact/Email/a%40x.inc", body: `{"LastName":"x"}`, want: 404},
		exchange{name: "a slash that is not escaped", method: "PATCH", path: one + "K/1", body: `{"LastName":"x"}`, want: 404},
		exchange{name: "required", method: "PATCH", path: deal + "1", body: `{"Name":"Deal"}`, want: 400,
			says: map[string]any{"0.errorCode": "REQUIRED_FIELD_MISSING", "0.message": "Required fields are missing: [StageName, CloseDate]"}},
		exchange{name: "stage", method: "PATCH", path: deal + "1", body: `{"Name":"Deal","StageName":"Won","CloseDate":"2026-12-01"}`, want: 400,
			says: map[string]any{"0.errorCode": "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "0.fields.0": "StageName"}},
		exchange{name: "deal", method: "PATCH", path: deal + "1", body: `{"Name":"Deal","StageName":"Closed Won","CloseDate":"2026-12-01","Amount":12.5}`, want: 201},
		exchange{name: "a required field cannot be cleared", method: "PATCH", path: deal + "1", body: `{"StageName":null}`, want: 400},
		exchange{name: "old version of the API", method: "PATCH", path: strings.Replace(one, "v67", "v30", 1) + "1", body: `{}`, want: 410},
		exchange{name: "version to come", method: "PATCH", path: strings.Replace(one, "v67", "v99", 1) + "1", body: `{}`, want: 404},
		exchange{name: "another object", method: "PATCH", path: sfData + "sobjects/Butterfly/X__c/1", body: `{}`, want: 404},
	)
	wantEqual(t, "contact", stored(s, "salesforce", "Contact")[2], map[string]any{"Partner_Key__c": "K/1 a+b", "LastName": "Doe", "FirstName": "J"})
	wantEqual(t, "deal", stored(s, "salesforce", "opportunity")[0]["Amount"], any(12.5))
}

func TestSalesforceValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, object, give string
		code, message      string // of the error; empty: none
	}{
		{"text for a number", "Opportunity", `"Amount":"abc"`, "JSON_PARSER_ERROR", "instance of double from VALUE_STRING value abc"},
		{"a number written as text", "Opportunity", `"Amount":"10"`, "", ""},
		{"a number for text", "Contact", `"FirstName":5`, "JSON_PARSER_ERROR", "instance of string from VALUE_NUMBER_INT value 5"},
		{"date", "Opportunity", `"CloseDate":"12/01/2026"`, "JSON_PARSER_ERROR", "instance of date from VALUE_STRING"},
		{"truth", "Contact", `"HasOptedOutOfEmail":"yes"`, "JSON_PARSER_ERROR", "instance of boolean"},
		{"too long", "Contact", `"FirstName":"` + strings.Repeat("x", 41) + `"`, "STRING_TOO_LONG", "(max length=40)"},
		{"address", "Contact", `"Email":"nobody"`, "INVALID_EMAIL_ADDRESS", "Email: invalid email address: nobody"},
		{"malformed id", "Contact", `"AccountId":"1"`, "MALFORMED_ID", "id value of incorrect type: 1"},
		{"unknown id", "Contact", `"AccountId":"0015g00000AB1cdAAA"`, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"},
		{"read only", "Contact", `"CreatedDate":"2026-01-01"`, "INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: CreatedDate"},
		{"parent by a field that is no key", "Contact", `"Account":{"Phone":"1"}`, "INVALID_FIELD", "does not match an External ID"},
		{"parent by two fields", "Contact", `"Account":{"Partner_Key__c":"1","Name":"x"}`, "INVALID_FIELD", "More than 1 field"},
		{"custom relationship", "Contact", `"Partner__r":{"Partner_Key__c":"P1"}`, "", ""},
		{"polymorphic parent without a type", "Task", `"Who":{"Partner_Key__c":"C1"}`, "INVALID_FIELD", "needs attributes"},
		{"polymorphic parent", "Task", `"Who":{"attributes":{"type":"Contact"},"Partner_Key__c":"C1"}`, "", ""},
		{"cleared", "Contact", `"Phone":null,"Title":""`, "", ""},
		{"unknown relationship", "Contact", `"Owners":{"X":"1"}`, "INVALID_FIELD", "No such column 'Owners'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := furnished(Options{})
			s.Put("salesforce", "Partner__c", map[string]any{"Partner_Key__c": "P1"})
			s.Put("salesforce", "Contact", map[string]any{"Partner_Key__c": "C1", "LastName": "Doe"})
			s.Put("salesforce", "Opportunity", map[string]any{"Partner_Key__c": "C1"})
			s.Put("salesforce", "Task", map[string]any{"Partner_Key__c": "C1"})
			h := ask(t, s, exchange{method: "PATCH", path: sfData + "sobjects/" + tt.object + "/Partner_Key__c/C1", body: "{" + tt.give + "}"})
			if tt.code == "" {
				wantEqual(t, "status", h.status, 200)
				return
			}
			wantEqual(t, "status", h.status, 400)
			wantEqual(t, "code", h.text("0.errorCode"), tt.code)
			wantContains(t, "message", h.text("0.message"), tt.message)
		})
	}
}

func TestSalesforceUniqueAndGone(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	first := s.Put("salesforce", "Contact", map[string]any{"LastName": "Doe", "Partner_Key__c": "K1"})
	gone := s.Put("salesforce", "Contact", map[string]any{"LastName": "Old", "Partner_Key__c": "K2"})
	lead := s.Put("salesforce", "Lead", map[string]any{"LastName": "L", "Company": "C", "Partner_Key__c": "L1", "IsConverted": true})
	s.Archive("salesforce", "Contact", gone)
	one := sfData + "sobjects/Contact/"
	many := func(id string) string {
		return sfBatch(false, `{"attributes":{"type":"Contact"},"Id":"`+id+`","Phone":"1"}`)
	}
	converse(t, s,
		exchange{name: "taken", path: strings.TrimSuffix(one, "/"), body: `{"LastName":"x","Partner_Key__c":"k1"}`, want: 400,
			says: map[string]any{"0.errorCode": "DUPLICATE_VALUE", "0.message": "duplicate value found: Partner_Key__c duplicates value on record with id: " + first}},
		exchange{name: "by the short id", method: "PATCH", path: one + first[:15], body: `{"Phone":"1"}`, want: 204},
		exchange{name: "deleted", method: "PATCH", path: one + gone, body: `{"Phone":"1"}`, want: 404, says: map[string]any{"0.errorCode": "ENTITY_IS_DELETED"}},
		exchange{name: "deleted in a collection", method: "PATCH", path: sfData + "composite/sobjects", body: many(gone), want: 200, says: map[string]any{"0.errors.0.statusCode": "ENTITY_IS_DELETED"}},
		exchange{name: "never there", method: "PATCH", path: sfData + "composite/sobjects", body: many("0035g00000ZZ1cdAAA"), want: 200, says: map[string]any{"0.errors.0.statusCode": "INVALID_CROSS_REFERENCE_KEY"}},
		exchange{name: "malformed", method: "PATCH", path: sfData + "composite/sobjects", body: many("x"), want: 200, says: map[string]any{"0.errors.0.statusCode": "MALFORMED_ID"}},
		exchange{name: "by id in a collection", method: "PATCH", path: sfData + "composite/sobjects", body: many(first), want: 200, says: map[string]any{"0.success": true, "0.id": first, "0.created": nil}},
		exchange{name: "its key is free again", method: "PATCH", path: sfContacts, body: sfBatch(false, sfContact("K2", `,"LastName":"New"`)), want: 200, says: map[string]any{"0.created": true}},
		exchange{name: "converted lead", method: "PATCH", path: sfData + "sobjects/Lead/" + lead, body: `{"Phone":"1"}`, want: 400, says: map[string]any{"0.errorCode": "CANNOT_UPDATE_CONVERTED_LEAD"}},
		exchange{name: "delete", method: "DELETE", path: one + first, want: 204},
		exchange{name: "delete again", method: "DELETE", path: one + first, want: 404},
		exchange{name: "delete several", method: "DELETE", path: sfData + "composite/sobjects?ids=" + lead + "," + first, want: 200,
			says: map[string]any{"0.success": true, "1.errors.0.statusCode": "ENTITY_IS_DELETED"}},
	)
}

func TestSalesforceLockedRows(t *testing.T) {
	t.Parallel()
	s := furnished(Options{})
	account := s.Put("salesforce", "Account", map[string]any{"Name": "Acme", "Partner_Key__c": "A1"})
	contact := s.Put("salesforce", "Contact", map[string]any{"LastName": "Doe", "Partner_Key__c": "C1"})
	free, freeContact := s.Lock("salesforce", "Account", account), s.Lock("salesforce", "contact", contact)
	rows := sfBatch(false, sfContact("C1", `,"Phone":"1"`), sfContact("C2", `,"LastName":"Roe","Account":{"Partner_Key__c":"A1"}`), sfContact("C3", `,"LastName":"Poe"`))
	converse(t, s, exchange{name: "locked itself, and by its parent", method: "PATCH", path: sfContacts, body: rows, want: 200, says: map[string]any{
		"0.errors.0.statusCode": "UNABLE_TO_LOCK_ROW", "1.errors.0.statusCode": "UNABLE_TO_LOCK_ROW", "2.success": true,
	}})
	free()
	free()
	freeContact()
	converse(t, s, exchange{name: "unlocked", method: "PATCH", path: sfContacts, body: rows, want: 200, says: map[string]any{"0.success": true, "1.success": true}})
}

func TestSalesforceReads(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Now: newClock().now})
	id := s.Put("salesforce", "Contact", map[string]any{"LastName": "O'Doe", "Email": "a@x.test", "Partner_Key__c": "K1"})
	s.Put("salesforce", "Contact", map[string]any{"LastName": "Roe", "Email": "b@x.test"})
	query := func(q string) string { return sfData + "query?q=" + queryEscape(q) }
	converse(t, s,
		exchange{name: "by key", path: sfData + "sobjects/Contact/Partner_Key__c/K1", want: 200,
			says: map[string]any{"Id": id, "LastName": "O'Doe", "CreatedDate": "2026-11-21T12:00:00.000+0000", "attributes.type": "Contact"}},
		exchange{name: "by id", path: sfData + "sobjects/Contact/" + id + "?fields=LastName", want: 200, says: map[string]any{"LastName": "O'Doe", "Email": nil}},
		exchange{name: "query", path: query(`SELECT Id, Email FROM Contact WHERE LastName = 'o\'doe' AND (Email = 'x' OR Email IN ('A@x.test','b'))`), want: 200,
			says: map[string]any{"totalSize": 1, "done": true, "records.0.Id": id}},
		exchange{name: "query by what is not there", path: query(`SELECT Id FROM Contact WHERE Partner_Key__c = null LIMIT 5`), want: 200, says: map[string]any{"totalSize": 1}},
		exchange{name: "unequal", path: query(`SELECT Id FROM Contact WHERE LastName != 'Roe'`), want: 200, says: map[string]any{"totalSize": 1}},
		exchange{name: "like", path: query(`SELECT Id FROM Contact WHERE LastName LIKE 'O_d%' AND LastName LIKE '%\'DOE'`), want: 200, says: map[string]any{"totalSize": 1}},
		exchange{name: "like one character", path: query(`SELECT Id FROM Contact WHERE LastName LIKE 'O_doe' AND LastName LIKE '%\'DOE'`), want: 200, says: map[string]any{"totalSize": 1}},
		exchange{name: "like what is escaped", path: query(`SELECT Id FROM Contact WHERE LastName LIKE 'O\_d%' OR LastName LIKE '%\%%'`), want: 200, says: map[string]any{"totalSize": 0}},
		exchange{name: "quoted", path: query(`SELECT Id FROM Contact WHERE HasOptedOutOfEmail = 'true'`), want: 400, says: map[string]any{"0.errorCode": "INVALID_FIELD"}},
		exchange{name: "not quoted", path: query(`SELECT Id FROM Contact WHERE LastName = 5`), want: 400, says: map[string]any{"0.errorCode": "INVALID_FIELD"}},
		exchange{name: "true", path: query(`SELECT Id FROM Contact WHERE HasOptedOutOfEmail = true`), want: 200, says: map[string]any{"totalSize": 0}},
		exchange{name: "bad query", path: query(`SELECT Id FROM Contact WHERE LastName > 'x'`), want: 400, says: map[string]any{"0.errorCode": "MALFORMED_QUERY"}},
		exchange{name: "open quote", path: query(`SELECT Id FROM Contact WHERE LastName = 'x`), want: 400, says: map[string]any{"0.errorCode": "MALFORMED_QUERY"}},
		exchange{name: "quote that is escaped", path: query(`SELECT Id FROM Contact WHERE LastName = 'x\'`), want: 400, says: map[string]any{"0.errorCode": "MALFORMED_QUERY"}},
		exchange{name: "no such escape", path: query(`SELECT Id FROM Contact WHERE LastName = 'x\_y'`), want: 400, says: map[string]any{"0.errorCode": "MALFORMED_QUERY"}},
		exchange{name: "twice", path: query(`SELECT Id, id FROM Contact`), want: 400, says: map[string]any{"0.errorCode": "MALFORMED_QUERY"}},
		exchange{name: "too long", path: query(`SELECT Id FROM Contact WHERE LastName = '` + strings.Repeat("x", 16384) + `'`), want: 414},
		exchange{name: "unknown field", path: query(`SELECT Nope FROM Contact`), want: 400, says: map[string]any{"0.errorCode": "INVALID_FIELD"}},
		exchange{name: "unknown object", path: query(`SELECT Id FROM Butterfly`), want: 400, says: map[string]any{"0.errorCode": "INVALID_TYPE"}},
		exchange{name: "several by id", path: sfData + "composite/sobjects/Contact", body: `{"ids":["` + id + `","0035g00000ZZ1cdAAA"],"fields":["Email"]}`, want: 200,
			says: map[string]any{"0.Email": "a@x.test", "1": nil}},
		exchange{name: "describe", path: sfData + "sobjects/Contact/describe", want: 200, holds: `"name":"Partner_Key__c"`},
		exchange{name: "versions", path: "/salesforce/services/data", want: 200, holds: `"version":"68.0"`},
		exchange{name: "limits", path: sfData + "limits", want: 200, says: map[string]any{"DailyApiRequests.Max": 15000}},
		exchange{name: "nowhere", path: sfData + "chatter", want: 404},
		exchange{name: "method", method: "PUT", path: sfData + "sobjects/Contact/" + id, body: `{}`, want: 405},
	)
}
