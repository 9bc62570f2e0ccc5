// Package audit holds what a CRM has now against what we want it to have and it has taken: records that the
// ledger knows, read by the sink's own operations. It asks, and changes nothing.
//
// Run goes through the records of each object in the order of the CRM's ids, a page at a time, so that memory
// stays flat, and so that an audit that was stopped goes on behind the last page. What counts as a difference is
// the rule of the field, in package records; how a CRM spells a value, that of the sink.
//
// The worker goes on meanwhile. A record that is written while it is read is read again, and told only once
// what the ledger knows was the same before and after the CRM's answer, with no request on its way. Where the CRM
// wants to be left alone, or the worker has found that it does, the audit stops and tells where.
package audit
