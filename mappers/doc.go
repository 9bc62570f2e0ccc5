// Package mappers turns an event into what a CRM should hold: it compiles the
// expressions and mappings that people write in YAML against the schemas of the
// senders, shapes payloads to these schemas, and runs the mappings on events.
//
// A mapping that refers to what is not there, or cannot be of the kind that its
// place needs, is refused before anything runs, with the place and a hint. What
// does run is bounded in time and memory, and never fails on a value that is
// missing: null flows through everything.
//
// The package knows neither HTTP nor Postgres, keeps no state between events,
// starts no goroutine, and puts no value of a payload into an error.
package mappers
