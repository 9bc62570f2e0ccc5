package sandbox

import "testing"

// What each CRM refuses of a field that is to be made, and of who asks what there is.
func TestMakeFields(t *testing.T) {
	t.Parallel()
	const (
		hs = "/hubspot/crm/properties/2026-03/deals"
		pd = "/pipedrive/api/v2/dealFields"
		at = "/attio/v2/objects/deals/attributes"
		zo = "/zoho/crm/v8/settings/fields?module=Deals"
		sf = "/salesforce/services/data/v68.0/tooling/sobjects/CustomField"
		dv = "/dataverse/api/data/v9.2/EntityDefinitions(LogicalName='contact')"
	)
	hubspot := func(name, more string) string {
		return `{"groupName":"dealinformation","label":"X","name":"` + name + `",` + more + `}`
	}
	attio := func(slug, kind string) string {
		return `{"data":{"title":"X","description":null,"api_slug":"` + slug + `","type":"` + kind + `","is_required":false,"is_unique":false,"is_multiselect":false,"config":{}}}`
	}
	force := func(name, more string) string { return `{"FullName":"` + name + `","Metadata":{` + more + `}}` }
	column := func(kind, name, more string) string {
		return `{"@odata.type":"Microsoft.Dynamics.CRM.` + kind + `AttributeMetadata","SchemaName":"` + name + `","DisplayName":{"LocalizedLabels":[{"Label":"X","LanguageCode":1033}]}` + more + `}`
	}
	s := furnished(Options{})
	converse(t, s,
		exchange{name: "hubspot", path: hs, body: hubspot("one", `"type":"string","fieldType":"text"`), want: 201, says: map[string]any{"name": "one", "hasUniqueValue": false}},
		exchange{name: "hubspot: taken", path: hs, body: hubspot("one", `"type":"string","fieldType":"text"`), want: 409},
		exchange{name: "hubspot: a name", path: hs, body: hubspot("One Two", `"type":"string","fieldType":"text"`), want: 400, holds: "is invalid"},
		exchange{name: "hubspot: a type", path: hs, body: hubspot("two", `"type":"text","fieldType":"text"`), want: 400},
		exchange{name: "hubspot: a group", path: hs, body: `{"groupName":"ours","label":"X","name":"two","type":"string","fieldType":"text"}`, want: 400, holds: "Property group ours"},
		exchange{name: "hubspot: bool", path: hs, body: hubspot("two", `"type":"bool","fieldType":"booleancheckbox"`), want: 400, holds: "exactly two options"},
		exchange{name: "hubspot: no options", path: hs, body: hubspot("two", `"type":"enumeration","fieldType":"select"`), want: 400},
		exchange{name: "hubspot: one option twice", path: hs, body: hubspot("two", `"type":"enumeration","fieldType":"select","options":[{"value":"a","label":"A"},{"value":"a","label":"B"}]`), want: 400},
		exchange{name: "hubspot: groups", path: hs + "/groups", want: 200, says: map[string]any{"results.0.name": "dealinformation"}},
		exchange{name: "hubspot: half a group", path: hs + "/groups", body: `{"name":"ours"}`, want: 400},
		exchange{name: "hubspot: group", path: hs + "/groups", body: `{"name":"ours","label":"Ours"}`, want: 201},
		exchange{name: "hubspot: group again", path: hs + "/groups", body: `{"name":"ours","label":"Ours"}`, want: 409},
		exchange{name: "hubspot: groups of nothing", path: "/hubspot/crm/properties/2026-03/planets/groups", want: 400},
		exchange{name: "hubspot: groups are not deleted", method: "DELETE", path: hs + "/groups", want: 405},
		exchange{name: "hubspot: owners", path: "/hubspot/crm/owners/2026-03?limit=1", want: 200, says: map[string]any{"results.0.archived": false, "paging.next.after": "1"}},
		exchange{name: "hubspot: who has left", path: "/hubspot/crm/owners/2026-03?archived=true", want: 200, says: map[string]any{"results.0.email": "left@example.com", "results.0.archived": true}},
		exchange{name: "hubspot: too many owners", path: "/hubspot/crm/owners/2026-03?limit=1000", want: 400},
		exchange{name: "hubspot: no owner is made", path: "/hubspot/crm/owners/2026-03", body: `{}`, want: 405},
		exchange{name: "hubspot: scopes", path: "/hubspot/oauth/v2/private-apps/get/access-token-info", body: `{"tokenKey":"any"}`, want: 200, says: map[string]any{"hubId": 62515}, holds: "crm.schemas.deals.write"},
		exchange{name: "hubspot: scopes of nobody", path: "/hubspot/oauth/v2/private-apps/get/access-token-info", body: `{}`, want: 404},

		exchange{name: "pipedrive", path: pd, body: `{"field_name":"Key","field_type":"varchar"}`, want: 200, says: map[string]any{"data.field_name": "Key", "data.is_custom_field": true}},
		exchange{name: "pipedrive: once more is one more", path: pd, body: `{"field_name":"Key","field_type":"varchar"}`, want: 200},
		exchange{name: "pipedrive: no name", path: pd, body: `{"field_type":"varchar"}`, want: 400},
		exchange{name: "pipedrive: no such type", path: pd, body: `{"field_name":"Key","field_type":"boolean"}`, want: 400},
		exchange{name: "pipedrive: no options", path: pd, body: `{"field_name":"Tier","field_type":"enum"}`, want: 400},
		exchange{name: "pipedrive: options", path: pd, body: `{"field_name":"Tier","field_type":"set","options":[{"label":"Gold"}]}`, want: 200, says: map[string]any{"data.options.0.label": "Gold", "data.options.0.id": 1}},
		exchange{name: "pipedrive: half an option", path: pd, body: `{"field_name":"Tier","field_type":"set","options":[{}]}`, want: 400},
		exchange{name: "pipedrive: of activities", path: "/pipedrive/api/v2/activityFields", body: `{"field_name":"Key","field_type":"varchar"}`, want: 404},
		exchange{name: "pipedrive: users", path: "/pipedrive/api/v1/users", want: 200, says: map[string]any{"data.0.active_flag": true, "data.2.active_flag": false}},

		exchange{name: "attio", path: at, body: attio("one", "text"), want: 200, says: map[string]any{"data.api_slug": "one"}},
		exchange{name: "attio: taken", path: at, body: attio("one", "text"), want: 409, says: map[string]any{"code": "slug_conflict"}},
		exchange{name: "attio: no such type", path: at, body: attio("two", "string"), want: 400},
		exchange{name: "attio: half of it", path: at, body: `{"data":{"title":"X","api_slug":"two","type":"text"}}`, want: 400},
		exchange{name: "attio: without what it is for", path: at, body: `{"data":{"title":"X","api_slug":"two","type":"text","is_required":false,"is_unique":false,"is_multiselect":false,"config":{}}}`, want: 400},
		exchange{name: "attio: no such object", path: "/attio/v2/objects/planets/attributes", body: attio("one", "text"), want: 404},
		exchange{name: "attio: statuses", path: at + "/stage/statuses", want: 200, says: map[string]any{"data.0.title": "Lead", "data.0.is_archived": false}},
		exchange{name: "attio: options of a status", path: at + "/stage/options", want: 400},
		exchange{name: "attio: options of nothing", path: at + "/nothing/options", want: 404},
		exchange{name: "attio: a page", path: at + "?limit=1&offset=1", want: 200, says: map[string]any{"data.0.api_slug": "stage", "data.1": nil}},
		exchange{name: "attio: members", path: "/attio/v2/workspace_members", want: 200, says: map[string]any{"data.2.access_level": "suspended"}},

		exchange{name: "zoho", path: zo, body: `{"fields":[{"field_label":"One Two","data_type":"text","length":255,"unique":{"casesensitive":"false"}}]}`, want: 201, says: map[string]any{"fields.0.code": "SUCCESS"}},
		exchange{name: "zoho: taken", path: zo, body: `{"fields":[{"field_label":"One Two","data_type":"text"}]}`, want: 400, says: map[string]any{"fields.0.code": "DUPLICATE_DATA"}},
		exchange{name: "zoho: no label", path: zo, body: `{"fields":[{"data_type":"text"}]}`, want: 400, says: map[string]any{"fields.0.code": "MANDATORY_NOT_FOUND"}},
		exchange{name: "zoho: no such type", path: zo, body: `{"fields":[{"field_label":"X","data_type":"string"}]}`, want: 400, says: map[string]any{"fields.0.code": "INVALID_DATA"}},
		exchange{name: "zoho: too long", path: zo, body: `{"fields":[{"field_label":"X","data_type":"text","length":256}]}`, want: 400},
		exchange{name: "zoho: none", path: zo, body: `{}`, want: 400},
		exchange{name: "zoho: too many", path: zo, body: `{"fields":[{},{},{},{},{},{}]}`, want: 400},
		exchange{name: "zoho: no such module", path: "/zoho/crm/v8/settings/fields?module=Planets", body: `{"fields":[{}]}`, want: 400, says: map[string]any{"code": "INVALID_MODULE"}},
		exchange{name: "zoho: users", path: "/zoho/crm/v8/users?type=ActiveUsers&per_page=1", want: 200, says: map[string]any{"users.0.status": "active", "info.more_records": true}},
		exchange{name: "zoho: who has left", path: "/zoho/crm/v8/users?type=DeactiveUsers", want: 200, says: map[string]any{"users.0.email": "left@example.com", "info.more_records": false}},
		exchange{name: "zoho: no more users", path: "/zoho/crm/v8/users?page=9", want: 204},

		exchange{name: "salesforce", path: sf, body: force("Contact.One__c", `"label":"One","type":"Text","length":80`), want: 201, says: map[string]any{"success": true}},
		exchange{name: "salesforce: taken", path: sf, body: force("Contact.One__c", `"label":"One","type":"Text","length":80`), want: 400, says: map[string]any{"0.errorCode": "DUPLICATE_DEVELOPER_NAME"}},
		exchange{name: "salesforce: a name", path: sf, body: force("Contact.Two", `"label":"Two","type":"Text","length":80`), want: 400},
		exchange{name: "salesforce: no label", path: sf, body: force("Contact.Two__c", `"type":"Text","length":80`), want: 400, says: map[string]any{"0.errorCode": "REQUIRED_FIELD_MISSING"}},
		exchange{name: "salesforce: no length", path: sf, body: force("Contact.Two__c", `"label":"Two","type":"Text"`), want: 400, says: map[string]any{"0.errorCode": "FIELD_INTEGRITY_EXCEPTION"}},
		exchange{name: "salesforce: no scale", path: sf, body: force("Contact.Two__c", `"label":"Two","type":"Number","precision":18`), want: 400},
		exchange{name: "salesforce: no default", path: sf, body: force("Contact.Two__c", `"label":"Two","type":"Checkbox"`), want: 400},
		exchange{name: "salesforce: no such type", path: sf, body: force("Contact.Two__c", `"label":"Two","type":"Thing"`), want: 400},
		exchange{name: "salesforce: no such object", path: sf, body: force("Planet.Two__c", `"label":"Two","type":"Date"`), want: 400},
		exchange{name: "salesforce: not seen yet", path: "/salesforce/services/data/v68.0/sobjects/Contact", body: `{"LastName":"Doe","One__c":"x"}`, want: 400, says: map[string]any{"0.errorCode": "INVALID_FIELD"}},
		exchange{name: "salesforce: stages", path: "/salesforce/services/data/v68.0/query?q=" + queryEscape("SELECT ApiName FROM OpportunityStage WHERE IsActive = true"), want: 200, says: map[string]any{"totalSize": 10}},
		exchange{name: "salesforce: no more", path: "/salesforce/services/data/v68.0/query/01g5g0000000001-2000", want: 400, says: map[string]any{"0.errorCode": "INVALID_QUERY_LOCATOR"}},

		exchange{name: "dataverse", path: dv + "/Attributes", body: column("String", "new_One", `,"MaxLength":100`), want: 204},
		exchange{name: "dataverse: taken", path: dv + "/Attributes", body: column("String", "new_one", `,"MaxLength":100`), want: 400},
		exchange{name: "dataverse: no prefix", path: dv + "/Attributes", body: column("String", "two", `,"MaxLength":100`), want: 400},
		exchange{name: "dataverse: no length", path: dv + "/Attributes", body: column("String", "new_two", ``), want: 400},
		exchange{name: "dataverse: no options", path: dv + "/Attributes", body: column("Boolean", "new_two", ``), want: 400},
		exchange{name: "dataverse: no such type", path: dv + "/Attributes", body: column("Thing", "new_two", ``), want: 400},
		exchange{name: "dataverse: no label", path: dv + "/Attributes", body: `{"@odata.type":"Microsoft.Dynamics.CRM.DecimalAttributeMetadata","SchemaName":"new_two"}`, want: 400},
		exchange{name: "dataverse: no such table", path: "/dataverse/api/data/v9.2/EntityDefinitions(LogicalName='planet')", want: 404},
		exchange{name: "dataverse: nowhere", path: dv + "/Planets", want: 404},
		exchange{name: "dataverse: users", path: "/dataverse/api/data/v9.2/systemusers?$filter=" + queryEscape("isdisabled eq false"), want: 200, says: map[string]any{"value.1.isdisabled": false, "value.2": nil}},
	)
	wantEqual(t, "granted", s.Grant("salesforce", "Contact", "One__c"), true)
	wantEqual(t, "granted again", s.Grant("salesforce", "Contact", "One__c"), false)
	converse(t, s, exchange{name: "salesforce: seen", path: "/salesforce/services/data/v68.0/sobjects/Contact", body: `{"LastName":"Doe","One__c":"x"}`, want: 201})

	s.LackScopes("crm.schemas.deals.write", "admin", attioMakes, "ZohoCRM.settings.fields.CREATE", sfCustomize, dvMakesColumns)
	converse(t, s,
		exchange{name: "hubspot: no scope", path: hs, body: hubspot("two", `"type":"string","fieldType":"text"`), want: 403, holds: "crm.schemas.deals.write"},
		exchange{name: "hubspot: no scope for a group", path: hs + "/groups", body: `{"name":"more","label":"More"}`, want: 403},
		exchange{name: "pipedrive: no scope", path: pd, body: `{"field_name":"Key","field_type":"varchar"}`, want: 403},
		exchange{name: "attio: no scope", path: at, body: attio("two", "text"), want: 403},
		exchange{name: "attio: still looks", path: at, want: 200},
		exchange{name: "attio: what it has", path: "/attio/v2/self", want: 200, holds: `object_configuration:read `},
		exchange{name: "zoho: no scope", path: zo, body: `{"fields":[{"field_label":"X","data_type":"text"}]}`, want: 401, says: map[string]any{"code": "OAUTH_SCOPE_MISMATCH"}},
		exchange{name: "salesforce: no permission", path: sf, body: force("Contact.Two__c", `"label":"Two","type":"Date"`), want: 403},
		exchange{name: "dataverse: no privilege", path: dv + "/Attributes", body: column("String", "new_two", `,"MaxLength":100`), want: 403},
	)
}

// A property that is deleted is gone from the records, too, and one that takes its place knows nothing of it.
func TestUndefine(t *testing.T) {
	t.Parallel()
	s := portal(Options{})
	id := s.Put("hubspot", "contacts", map[string]any{"partner_key": "K1", "email": "a@b.test"})
	s.Undefine("hubspot", "contacts", "partner_key")
	s.Undefine("hubspot", "planets", "partner_key")
	wantEqual(t, "defined", s.Defined("hubspot", "contacts", "partner_key"), false)
	got, _ := s.Get("hubspot", "contacts", id)
	wantEqual(t, "kept", got.Properties["partner_key"], any(nil))
	s.Define("hubspot", "contacts", Property{Name: "partner_key", Unique: true})
	wantEqual(t, "read by it", send(t, s, "GET", objects+"contacts/K1?idProperty=partner_key", "").status, 404)
	s.UndefinePipeline("hubspot", "deals", "default")
	wantEqual(t, "pipelines", len(send(t, s, "GET", "/hubspot/crm/pipelines/2026-03/deals", "").rows("results")), 0)
}
