package sinks

import "time"

// Class says what follows from an answer; the classes are a closed set and a metric label.
type Class string

// The classes of docs/design.md.
const (
	OK          Class = "ok"
	Rejected    Class = "rejected"
	Split       Class = "split" // never leaves Write: the engine halves the batch itself
	Conflict    Class = "conflict"
	Throttled   Class = "throttled"
	Parked      Class = "parked"
	Held        Class = "held"
	Unavailable Class = "unavailable"
	Timeout     Class = "timeout"
	Network     Class = "network"
)

// Classes lists all classes that a Result can have.
func Classes() []Class {
	return []Class{OK, Rejected, Conflict, Throttled, Parked, Held, Unavailable, Timeout, Network}
}

// Operation is what a request does.
type Operation string

// The operations that a preset may describe.
const (
	Upsert   Operation = "upsert"
	Update   Operation = "update"
	Create   Operation = "create"
	Find     Operation = "find"   // by our key
	Search   Operation = "search" // by whatever fields
	Read     Operation = "read"   // by the CRM's id
	Link     Operation = "link"
	Unlink   Operation = "unlink"
	Archive  Operation = "archive"
	Describe Operation = "describe"
	WhoAmI   Operation = "whoami"

	FieldOptions Operation = "options"    // of a field, where describe does not show them
	Scopes       Operation = "scopes"     // what the credentials are allowed
	MakeField    Operation = "make_field" // a field of an object
	MakeGroup    Operation = "make_group" // what a new field stands in
	List         Operation = "list"       // one of the lists of a preset, such as owners; it stands below lists
)

// Row is one record to write. Rows of one Write share their operation and object.
type Row struct {
	Trace    string // correlates the row with its result; unique in the process, made by the caller
	Object   string
	Property string         // the CRM property that holds our key; "" for a key that stays ours
	Key      string         // our key
	ID       string         // the CRM's id, once known
	Values   map[string]any // string, bool, int64, decimal.Decimal, []any, map[string]any; nil blanks the property
	Optional []string       // names of Values that may be left out if the CRM refuses them by name
	Event    EventInfo      // what caused the row, for presets that pass it on (webhook)

	Operation Operation // what Group answers; "" lets the sink choose between update and upsert
	Links     []RowLink // sent with the row, where the operation can; see Description.CarriesLinks

	Terms []Term   // of Search: what the record has to have, all of it
	Read  []string // of Find, Search and Read: the properties that the answer shall show
}

// Term is a property of a record and the value that it has to have.
type Term struct{ Property, Value string }

// RowLink is a link that goes along with the row of a record.
type RowLink struct {
	Object   string // of the other record
	Property string // the property that holds its key
	Key      string // our key of it, for targets that find it by that themselves
	ID       string // the CRM's id of it, once known; it counts before the key
	As       string
	Required bool // the row is worth nothing without it
}

// EventInfo is what a request body may tell about the event behind a row.
type EventInfo struct {
	ID         string
	Source     string
	Type       string
	OccurredAt time.Time
	Mapping    string
}

// LinkRow is one connection between two records, both known by the CRM's ids.
type LinkRow struct {
	Trace    string
	From, To Ref
	As       string
	Remove   bool
}

// Ref names one record.
type Ref struct {
	Object, Property, Key, ID string
}

// Result is what became of one row.
type Result struct {
	Class      Class
	Status     int            // HTTP status, 0 where no answer came
	ID         string         // the CRM's id of the record, "" where it does not say
	Created    bool           // the request made the record
	Existing   string         // with Conflict: the CRM's id of the record in the way, if it names one
	Code       string         // the CRM's code for the refusal
	Message    string         // the CRM's words: secrets hidden, capped, no value that we sent
	Fields     []string       // the refused fields, if named
	Allowed    []string       // the values that the CRM would take, if named
	RetryAfter time.Duration  // with Throttled and Parked: how long to wait
	Sent       bool           // with another class than OK: the request may have taken effect all the same
	Dropped    []string       // optional fields that were left out in the end
	Kept       map[string]any // with OK: fields of the row for which the answer shows another value than was sent, with that one: text, list of texts, nil
	Hits       []Hit          // with OK of Search: the records that fit, oldest first where the target tells; of Find and Read the one
	More       bool           // with OK of Search: there are more than Hits holds
	RequestID  string         // the CRM's id of the request
	Refused    string         // with Held: what of ours was refused, "token" or "credentials"; "" where they were good, but not for this
	Absent     bool           // with Rejected: the record that the row names is not in the CRM
	Unlinked   bool           // the links of the row were not made: with OK they are still to be made, with Rejected one that is required may be what was refused
}

// Hit is a record that a search has found.
type Hit struct {
	ID     string
	Values map[string]any // those of Row.Read that the answer shows: text, bool, int64, decimal.Decimal, list of texts; nil where it shows that there is none
	URL    string         // where people see it; "" where the preset does not tell
}
