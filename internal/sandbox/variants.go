package sandbox

// Variant is a behaviour about which what is public says two things, or which somebody saw and nobody documents. Each is
// off unless Options.Variants has it.
type Variant string

const (
	// HubSpotEmailWhole refuses a whole batch of upserts by e-mail for one bad row, trace ids or not: "partial upserts are
	// not supported" for that key may mean it.
	HubSpotEmailWhole Variant = "hubspot: upserts by e-mail succeed or fail as a whole"
	// HubSpotErrorsIn200 answers 200 where some rows of a batch are refused, as a draft of the version 2026-09 has it. By
	// default that is 207.
	HubSpotErrorsIn200 Variant = "hubspot: 200 tells of refused rows"
	// SalesforceStrictBatch answers a collection with 400 when one of its rows has a field that is not there or a value
	// of the wrong JSON type. By default such a row is refused alone.
	SalesforceStrictBatch Variant = "salesforce: a malformed row refuses its batch"
	// PipedriveContactSync stands for an account with Contact Sync: job titles, birthdays and addresses can be written.
	PipedriveContactSync Variant = "pipedrive: contact sync is on"
	// PipedriveFindsMore makes exact searches find what contains the term, too: they are not exact in all generations.
	PipedriveFindsMore Variant = "pipedrive: exact searches find what contains the term"
	// PipedriveShowsDeleted answers the read of a deleted record with the record, marked as deleted. By default it is not there.
	PipedriveShowsDeleted Variant = "pipedrive: a deleted record can be read"
	// PipedriveShowsField shows the value that was searched in the answer of a search by field, under the field's key, as API
	// v1 did. By default such an answer holds ids and names alone.
	PipedriveShowsField Variant = "pipedrive: a search by field shows the field"
	// AttioConflict400 answers a unique value that is taken with 400 in the place of 409, as seen in a live workspace.
	AttioConflict400 Variant = "attio: uniqueness_conflict is 400"
	// AttioStandardKeys refuses unique attributes of one's own on people and companies, as Attio's help pages say: what
	// Define makes unique there is not.
	AttioStandardKeys Variant = "attio: no unique custom attributes on people and companies"
	// AttioDealOwner makes the owner of a deal required, as seen in a live workspace.
	AttioDealOwner Variant = "attio: a deal needs an owner"
	// ZohoEqualsContains makes the comparator equals find what contains the value, as searches of texts are reported to do.
	ZohoEqualsContains Variant = "zoho: equals finds what contains the value"
	// ZohoMultiStatus answers 207 when some rows of a batch are refused and 400 when all are, as the examples of Zoho's
	// OpenAPI files do. By default the status is 200 whatever became of the rows.
	ZohoMultiStatus Variant = "zoho: 207 and 400 tell of refused rows"
	// ZohoCreditPerTen charges a credit for every ten rows of a batch. By default every call costs one.
	ZohoCreditPerTen Variant = "zoho: a credit for ten rows"
)
