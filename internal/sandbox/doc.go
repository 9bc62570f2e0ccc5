// Package sandbox is a fake CRM: an http.Handler that keeps records in memory and speaks the dialects of real CRMs with
// their real rules, so that tests, the demo and the benchmark talk to something that refuses what the real thing refuses.
//
// One Server speaks every dialect, each below its own prefix (/hubspot, /salesforce, /pipedrive, /attio, /zoho, /dataverse),
// token endpoints included (/salesforce/services/oauth2/token, /zoho/oauth/v2/token, /dataverse/{tenant}/oauth2/v2.0/token,
// /pipedrive/oauth/token), and shares one store, one request log, one set of faults and one set of rate limits between them.
// /webhook/… takes any POST or PUT and keeps the body. GET / is a page for people that lists the records, /records.json the
// same for programs, /faults sets faults over HTTP.
//
// A dialect is one type that satisfies the interface of the same name. What a vendor documents is answered as documented.
// Where the public documentation is silent, a comment says that the answer is assumed. Where what is public disagrees, or is
// a guess that would bite, a Variant or another option switches it on.
//
// It is the one place of this repository where Go code may know a CRM by name. It never imports the sink engine, never
// touches a disk or another host, and starts no goroutine: what happens late happens in the handler's own.
package sandbox
