// Package sources knows what a sender of webhooks sends: the events, the shape
// of their bodies, how an event's type, entity and time are read, and how a
// request proves where it comes from.
//
// A sender is described in YAML: one file per preset in this folder, laid under
// the keys that a config gives. Load compiles such a description, and Open turns
// a body into an Envelope with it. No Go code here names a vendor.
//
// The package never maps, stores or answers: it has no HTTP server and no
// database.
package sources
