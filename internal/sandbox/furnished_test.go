package sandbox

import "net/url"

func queryEscape(s string) string { return url.QueryEscape(s) }

// dealHash and personHash are keys as Pipedrive gives them to custom fields.
const (
	dealHash   = "9dc80c50d78a15643bfc4ca79d76156a73a1ca0e"
	personHash = "51c27e4a19c3bedd91162a9d446707c1f95174ea"
)

// furnished is a Server with the keys that a partner integration defines in every CRM.
func furnished(o Options) *Server {
	key := Property{Name: "Partner_Key__c", Unique: true}
	zohoKey := Property{Name: "Partner_Key", Unique: true}
	o.Custom = map[string][]Property{
		"salesforce/Account": {key}, "salesforce/Opportunity": {key},
		"salesforce/Contact": {key, {Name: "Tier__c", Type: "enumeration", Options: []string{"Gold", "Silver"}}, {Name: "Partner__c", Type: "lookup", Target: "Partner__c"}},
		"salesforce/Lead":    {key}, "salesforce/Task": {key}, "salesforce/Partner__c": {key},

		"pipedrive/deals":         {{Name: dealHash, Label: "Partner key", Unique: true}, {Name: "abc"}},
		"pipedrive/persons":       {{Name: personHash, Label: "Partner key"}, {Name: "abc"}, {Name: "score", Type: "number"}, {Name: "tier", Type: "enumeration", Options: []string{"gold", "silver"}}, {Name: "opts", Type: "enumeration", FieldType: "checkbox", Options: []string{"190", "191"}}},
		"pipedrive/organizations": {{Name: "orgkey"}},
		"pipedrive/leads":         {{Name: dealHash, Label: "Partner key"}},

		"attio/people":    {{Name: "partner_key", Unique: true}, {Name: "score", Type: "number"}, {Name: "tags", Type: "enumeration", Multiple: true, Options: []string{"gold", "emea"}}},
		"attio/companies": {{Name: "partner_key", Unique: true}}, "attio/deals": {{Name: "partner_key", Unique: true}},
		"attio/payouts": {{Name: "payout_key", Unique: true}, {Name: "person", Type: "lookup", Target: "people"}},

		"zoho/Contacts": {zohoKey}, "zoho/Accounts": {zohoKey}, "zoho/Deals": {zohoKey}, "zoho/Leads": {zohoKey}, "zoho/Payouts": {zohoKey},

		"dataverse/contacts": {{Name: "new_key", Unique: true}, {Name: "new_number", Type: "integer", Unique: true}},
		"dataverse/accounts": {{Name: "new_key", Unique: true}}, "dataverse/opportunities": {{Name: "new_key", Unique: true}},
		"dataverse/new_payouts": {{Name: "new_key", Unique: true}, {Name: "new_amount", Type: "number", Required: true}},
	}
	return New(o)
}
