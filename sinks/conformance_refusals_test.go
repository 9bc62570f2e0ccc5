package sinks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// A record that somebody else holds: to be tried again, and the others go on.
func TestConformLocked(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "find_lag: 0s\n")
		rows := c.rows(4)
		made := w.sink.Write(within(t), Upsert, rows)
		unlock := w.Lock(c.name, c.object, made[2].ID)
		for _, op := range []Operation{Upsert, Update} {
			for i := range rows {
				if rows[i].ID = ""; op == Update {
					rows[i].ID = made[i].ID
				}
			}
			got := w.sink.Write(within(t), op, rows)
			for i, r := range got {
				want := OK
				if i == 2 {
					want = Unavailable
				}
				// What fails the request as a whole ends the Write: the rows after it are not sent.
				if r.Class != want && (i < 3 || r.Status != got[2].Status || r.Sent) {
					t.Errorf("%s, row %d: %+v", op, i, r)
				}
				checkWords(t, r)
			}
		}
		unlock()
		if r := w.sink.Write(within(t), Upsert, rows[2:3])[0]; r.Class != OK {
			t.Errorf("unlocked: %+v", r)
		}
	})
}

// What a CRM refuses, each with the code that it has for it.
func TestConformRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		crm   string
		give  sandbox.Refusal
		class Class
		more  func(r Result) bool
	}{
		{"attio", sandbox.Refusal{Status: 400, Code: "immutable_value", Message: "it cannot be changed"}, Rejected, nil},
		{"attio", sandbox.Refusal{Status: 400, Code: "multiple_match_results", Message: "several"}, Rejected, nil},
		{"attio", sandbox.Refusal{Status: 409, Code: "merge_in_progress", Message: "try again"}, Unavailable, nil},
		{"attio", sandbox.Refusal{Status: 409, Code: "uniqueness_conflict", Message: "taken. Conflicting record IDs: d064ee01-a771-4000-8000-0027d064ee01"},
			Conflict, func(r Result) bool { return r.Existing == "d064ee01-a771-4000-8000-0027d064ee01" }},
		{"attio", sandbox.Refusal{Status: 400, Code: "uniqueness_conflict", Message: "taken"}, Conflict, nil},
		{"dataverse", sandbox.Refusal{Status: 400, Code: "0x80040265", Message: "a plug-in says no"}, Rejected, nil},
		{"dataverse", sandbox.Refusal{Status: 412, Code: "0x80040237", Message: "there is one"}, Conflict, nil},
		{"dataverse", sandbox.Refusal{Status: 500, Code: "0x80044150", Message: "Sql Number: 1205"}, Unavailable, nil},
		{"hubspot", sandbox.Refusal{Code: "VALIDATION_ERROR", Message: "a rule"}, Rejected, nil},
		{"hubspot", sandbox.Refusal{Code: "CONFLICT", Message: "Contact already exists. Existing ID: 4711"}, Conflict, func(r Result) bool { return r.Existing == "4711" }},
		{"hubspot", sandbox.Refusal{Code: "MISSING_SCOPES", Message: "a scope"}, Held, nil},
		{"hubspot", sandbox.Refusal{Code: "USER_DOES_NOT_HAVE_PERMISSIONS", Message: "a right"}, Held, nil},
		{"hubspot", sandbox.Refusal{Code: "RATE_LIMITS", Message: "too many"}, Throttled, func(r Result) bool { return r.RetryAfter == 10*time.Second }},
		{"hubspot", sandbox.Refusal{Code: "INTERNAL_ERROR", Message: "not now"}, Unavailable, nil},
		{"pipedrive", sandbox.Refusal{Status: 400, Code: "ERR", Message: "no"}, Rejected, nil},
		{"pipedrive", sandbox.Refusal{Status: 402, Code: "feature_capping_deals_limit", Message: "too many"}, Held, nil},
		{"pipedrive", sandbox.Refusal{Status: 403, Code: "feature_capping_deals_limit", Message: "too many"}, Held, nil},
		{"pipedrive", sandbox.Refusal{Status: 423, Code: "ERR_LOCKED", Message: "locked"}, Unavailable, nil},
		{"salesforce", sandbox.Refusal{Code: "FIELD_CUSTOM_VALIDATION_EXCEPTION", Message: "a rule", Field: "Title"}, Rejected, func(r Result) bool { return blames(r, "Title") }},
		{"salesforce", sandbox.Refusal{Code: "DUPLICATES_DETECTED", Message: "Use one of these records?"}, Rejected, nil},
		{"salesforce", sandbox.Refusal{Code: "CANNOT_UPDATE_CONVERTED_LEAD", Message: "converted"}, Rejected, nil},
		{"salesforce", sandbox.Refusal{Code: "INSUFFICIENT_ACCESS_OR_READONLY", Message: "not yours"}, Rejected, nil},
		{"salesforce", sandbox.Refusal{Code: "UNABLE_TO_LOCK_ROW", Message: "try again"}, Unavailable, func(r Result) bool { return r.RetryAfter > 0 }},
		{"salesforce", sandbox.Refusal{Code: "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", Message: "a trigger: UNABLE_TO_LOCK_ROW"}, Unavailable, nil},
		{"salesforce", sandbox.Refusal{Code: "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", Message: "a trigger: Too many SOQL queries: 101"}, Unavailable, nil},
		{"salesforce", sandbox.Refusal{Code: "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", Message: "a trigger: no"}, Rejected, nil},
		{"salesforce", sandbox.Refusal{Code: "STORAGE_LIMIT_EXCEEDED", Message: "full"}, Parked, func(r Result) bool { return r.RetryAfter == 15*time.Minute }},
		{"salesforce", sandbox.Refusal{Code: "QUERY_TIMEOUT", Message: "slow"}, Unavailable, nil},
		{"salesforce", sandbox.Refusal{Code: "DUPLICATE_VALUE", Message: "duplicate value found: Partner_Key__c duplicates value on record with id: 0035g0000000001AAA"},
			Conflict, func(r Result) bool {
				return r.Existing == "0035g0000000001AAA" && blames(r, "Partner_Key__c")
			}},
		{"zoho", sandbox.Refusal{Code: "RECORD_IN_BLUEPRINT", Message: "in a blueprint"}, Rejected, nil},
		{"zoho", sandbox.Refusal{Code: "RECORD_LOCKED", Message: "locked"}, Unavailable, nil},
		{"zoho", sandbox.Refusal{Code: "INVALID_DATA", Message: "the record is under merge"}, Unavailable, nil},
		{"zoho", sandbox.Refusal{Code: "DUPLICATE_DATA", Message: "duplicate data", Field: "Email"}, Rejected, func(r Result) bool { return blames(r, "Email") }},
		{"zoho", sandbox.Refusal{Code: "ID_ALREADY_CONVERTED", Message: "converted"}, Rejected, func(r Result) bool { return !r.Absent }},
		{"zoho", sandbox.Refusal{Code: "TOO_MANY_REQUESTS", Message: "too many"}, Throttled, func(r Result) bool { return r.RetryAfter == 5*time.Second }},
		{"zoho", sandbox.Refusal{Code: "LIMIT_EXCEEDED", Message: "no more"}, Parked, func(r Result) bool { return r.RetryAfter == 15*time.Minute }},
	}
	for _, test := range tests {
		t.Run(strings.Join([]string{test.crm, test.give.Code, test.give.Message[:min(len(test.give.Message), 20)]}, "/"), func(t *testing.T) {
			t.Parallel()
			c := crmNamed(test.crm)
			w := c.open(t, sandbox.Options{}, "find_lag: 0s\n")
			rows := c.rows(3)
			test.give.Dialect, test.give.Object, test.give.Property, test.give.Value = c.name, c.object, c.field, "refuse me"
			rows[1].Values[c.field] = "refuse me"
			w.Refuse(test.give)
			got := w.sink.Write(within(t), Upsert, rows)
			if got[0].Class != OK || w.sink.MaxRows(Upsert) > 1 && got[2].Class != OK {
				t.Errorf("the others: %+v", got)
			}
			r := got[1]
			if r.Class != test.class || r.Code != test.give.Code || r.Message == "" || test.more != nil && !test.more(r) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// Behaviours about which what is public says two things: the presets bear both.
func TestConformVariants(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, c *crm, variant sandbox.Variant, spoil func(rows []Row)) (*world, []Result) {
		w := c.open(t, sandbox.Options{Variants: []sandbox.Variant{variant}}, "find_lag: 0s\n")
		rows := c.rows(6)
		spoil(rows)
		return w, w.sink.Write(within(t), Upsert, rows)
	}
	oneBad := []Class{OK, OK, Rejected, OK, OK, OK}
	t.Run("HubSpot tells with 200", func(t *testing.T) {
		t.Parallel()
		w, got := write(t, crmNamed("hubspot"), sandbox.HubSpotErrorsIn200, func(rows []Row) { rows[2].Values["tier"] = "bronze" })
		if diff := cmp.Diff(oneBad, classesOf(got)); diff != "" || got[2].Status != 200 || !blames(got[2], "tier") || len(got[2].Allowed) != 2 {
			t.Errorf("%s %+v", diff, got[2])
		}
		if n := len(w.sent()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("HubSpot refuses all e-mails", func(t *testing.T) {
		t.Parallel()
		_, got := write(t, crmNamed("hubspot"), sandbox.HubSpotEmailWhole, func(rows []Row) {
			for i := range rows {
				rows[i].Object, rows[i].Property, rows[i].Key = "contacts", "email", fmt.Sprintf("%d@acme.test", i)
				rows[i].Values = map[string]any{"lifecyclestage": "lead"}
			}
			rows[2].Values["lifecyclestage"] = "bronze"
		})
		if diff := cmp.Diff(oneBad, classesOf(got)); diff != "" || got[2].Status != 400 || !blames(got[2], "lifecyclestage") {
			t.Errorf("%s %+v", diff, got[2])
		}
	})
	t.Run("Salesforce refuses the batch", func(t *testing.T) {
		t.Parallel()
		_, got := write(t, crmNamed("salesforce"), sandbox.SalesforceStrictBatch, func(rows []Row) { rows[2].Values["shoe_size"] = "44" })
		if diff := cmp.Diff(oneBad, classesOf(got)); diff != "" || got[2].Code != "INVALID_FIELD" {
			t.Errorf("%s %+v", diff, got[2])
		}
	})
	t.Run("Salesforce minds no case", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("salesforce")
		w := c.open(t, sandbox.Options{}, "fold: none\n") // then both go into one request, and are refused
		rows := c.rows(3)
		rows[2].Key = strings.ToLower(rows[1].Key)
		got := w.sink.Write(within(t), Upsert, rows)
		if diff := cmp.Diff([]Class{OK, OK, OK}, classesOf(got)); diff != "" || got[1].ID != got[2].ID {
			t.Errorf("%s %+v", diff, got)
		}
	})
	t.Run("Zoho tells by the status", func(t *testing.T) {
		t.Parallel()
		w, got := write(t, crmNamed("zoho"), sandbox.ZohoMultiStatus, func(rows []Row) { rows[2].Values["Tier"] = "bronze" })
		if diff := cmp.Diff(oneBad, classesOf(got)); diff != "" || !blames(got[2], "Tier") || got[2].Status != 207 {
			t.Errorf("%s %+v", diff, got[2])
		}
		w.sent()
		rows := w.c.rows(6)
		for i := range rows {
			rows[i].Key, rows[i].Values["Tier"] = "new-"+rows[i].Key, "bronze"
		}
		for _, r := range w.sink.Write(within(t), Upsert, rows) {
			if r.Class != Rejected || r.Status != 400 || !blames(r, "Tier") || len(r.Allowed) != 2 {
				t.Errorf("%+v", r)
			}
		}
		if n := len(w.sent()); n != 1 {
			t.Errorf("%d requests: each row has its reason in the first answer", n)
		}
	})
	t.Run("Attio says 400", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("attio")
		c.custom["attio/deals"] = append(c.custom["attio/deals"], sandbox.Property{Name: "number", Unique: true})
		_, got := write(t, c, sandbox.AttioConflict400, func(rows []Row) { rows[1].Values["number"], rows[2].Values["number"] = "7", "7" })
		if diff := cmp.Diff([]Class{OK, OK, Conflict, OK, OK, OK}, classesOf(got)); diff != "" || got[2].Existing != got[1].ID {
			t.Errorf("%s %+v", diff, got[2])
		}
	})
	t.Run("Attio has no such keys", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("attio")
		w := c.open(t, sandbox.Options{Variants: []sandbox.Variant{sandbox.AttioStandardKeys}}, "")
		row := Row{Object: "companies", Property: "company_key", Key: "1", Values: map[string]any{"name": "Acme"}}
		if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != Rejected || r.Code != "matching_attribute_definition_not_unique" {
			t.Errorf("%+v", r)
		}
		row.Property, row.Key = "domains", "Acme.test"
		r := w.sink.Write(within(t), Upsert, []Row{row})[0]
		if r.Class != OK {
			t.Errorf("%+v", r)
		}
		person := Row{Object: "people", Property: "email_addresses", Key: "jane@acme.test", Values: map[string]any{"name": "Doe, Jane"},
			Links: []RowLink{{Object: "companies", Property: "domains", Key: "acme.test"}}}
		if r := w.sink.Write(within(t), Upsert, []Row{person})[0]; r.Class != OK || r.Unlinked {
			t.Errorf("%+v", r)
		} else if p, _ := w.Get("attio", "people", r.ID); p.Properties["company"] == nil {
			t.Errorf("%v", p.Properties)
		}
	})
	t.Run("Pipedrive without Contact Sync", func(t *testing.T) {
		t.Parallel()
		c := crmNamed("pipedrive")
		c.custom["pipedrive/persons"] = []sandbox.Property{{Name: hexKey}}
		w := c.open(t, sandbox.Options{}, "find_lag: 0s\n")
		row := Row{Object: "persons", Property: hexKey, Key: "1", Values: map[string]any{"name": "J", "job_title": "CEO"}}
		if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != Rejected || r.Status != 403 || !blames(r, "job_title") {
			t.Errorf("%+v", r)
		}
		remove := w.Refuse(sandbox.Refusal{Dialect: c.name, Status: 403, Code: "feature_capping_persons_limit", Message: "too many"})
		if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != Held {
			t.Errorf("%+v", r)
		}
		remove()
		row.Optional = []string{"job_title"}
		if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != OK || len(r.Dropped) != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// A key that is not that of one record alone.
func TestConformKeyOfSeveral(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "find_lag: 0s\n")
		property := c.key
		switch c.name {
		case "salesforce":
			property = "Email" // an external id that is not unique
		case "pipedrive": // has no unique fields at all
		default:
			return // refused below: it cannot be a key
		}
		for _, n := range []string{"1", "2"} {
			w.Put(c.name, c.object, withKeys(c.values(n), map[string]any{property: "a@acme.test"}))
		}
		row := c.row("x")
		row.Property, row.Key = property, "a@acme.test"
		if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != Rejected || w.count() != 2 {
			t.Errorf("%+v", r)
		}
	})
}

// A property that cannot be a key, or is not there: refused, at once for all rows
// where the CRM says it of the request.
func TestConformNoKey(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		for _, property := range []string{c.field, "nosuch_key"} {
			if c.name == "pipedrive" && property == c.field {
				continue // any field of text will do
			}
			w := c.open(t, sandbox.Options{}, "")
			w.sink.Probe(within(t))
			w.sent()
			rows := c.rows(8)
			for i := range rows {
				rows[i].Property = property
			}
			for _, r := range w.sink.Write(within(t), Upsert, rows) {
				if r.Class != Rejected || r.Message == "" {
					t.Errorf("%s: %+v", property, r)
				}
			}
			if n := len(w.sent()); n != 1 && w.sink.MaxRows(Upsert) > 1 {
				t.Errorf("%s: %d requests", property, n)
			}
			if w.count() != 0 {
				t.Error("something was made")
			}
		}
	})
}

// The answers to a single row by its key in the address, as a config may have it:
// 300 names several records, 404 is a field that cannot be a key.
func TestConformKeyInTheAddress(t *testing.T) {
	t.Parallel()
	c := crmNamed("salesforce")
	w := c.open(t, sandbox.Options{}, `
operations:
  upsert:
    path: /services/data/v{setting.api_version}/sobjects/{record.object}/{record.property}/{record.key}
    rows: 1
    body: record.others
    result: {mode: status, results: {at: null, ok: null, id: id, created: created}}
`[1:])
	row := c.row("1")
	first := w.sink.Write(within(t), Upsert, []Row{row})[0]
	if again := w.sink.Write(within(t), Upsert, []Row{row})[0]; first.Class != OK || !first.Created || again.Class != OK || again.Created || again.ID != first.ID {
		t.Errorf("%+v, %+v", first, again)
	}
	for _, n := range []string{"2", "3"} {
		w.Put(c.name, c.object, withKeys(c.values(n), map[string]any{"Email": "a@acme.test"}))
	}
	row.Property, row.Key = "Email", "a@acme.test"
	if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != Rejected || r.Status != 300 || r.Message == "" {
		t.Errorf("several: %+v", r)
	}
	row.Property, row.Key = "Title", "x"
	if r := w.sink.Write(within(t), Upsert, []Row{row})[0]; r.Class != Rejected || r.Status != 404 || r.Code != "NOT_FOUND" || r.Absent {
		t.Errorf("no key: %+v", r)
	}
	if w.count() != 3 {
		t.Errorf("%d records", w.count())
	}
}
