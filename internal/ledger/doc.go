// Package ledger owns every SQL statement of partnersync's own: it stores
// events with their routes and River jobs, reads and writes the state of CRM
// records, and keeps the account in which each accepted event ends in a named
// outcome. It neither maps nor sends, and knows no configuration.
package ledger
