package mappers

import (
	"strings"
	"time"
)

// Event is what a mapping runs on. Body is shaped: see Shape.
type Event struct {
	ID         string
	Source     string
	Type       string
	Entity     string
	OccurredAt time.Time // zero when the sender gives no time
	ReceivedAt time.Time
	Body       map[string]any
}

// Mode says what may happen to the record of a change.
type Mode string

// The modes of a mapping.
const (
	Upsert     Mode = "upsert"
	UpdateOnly Mode = "update_only"
	CreateOnly Mode = "create_only"
	Append     Mode = "append"
	Archive    Mode = "archive"
)

// Rule says which value of a field wins.
type Rule string

// The rules, named as the sections of a mapping.
const (
	Set         Rule = "set"
	SetFirst    Rule = "set_first"
	SetIfEmpty  Rule = "set_if_empty"
	SetOnCreate Rule = "set_on_create"
	Forward     Rule = "forward"
	Clear       Rule = "clear" // blank the field
	Touch       Rule = "touch"
	Sum         Rule = "sum"
	Count       Rule = "count"
	Add         Rule = "add"
)

// Key names the record: a property of the CRM and our identifier in it. A local
// key identifies the record on our side only.
type Key struct {
	Property string
	Value    string
	Local    bool
}

// Field is one value for one property of a record. Value is a string, bool,
// int64, decimal.Decimal, []any or map[string]any; nil only under Clear, a single
// value under Forward, []any of texts, each once, under Add.
type Field struct {
	Name     string
	Rule     Rule
	Value    any
	Optional bool    // may be left out if the CRM refuses it by name
	Ladder   *Ladder // under Forward
}

// Ladder is how far the values of a field under Forward are along: the value of the CRM is never
// moved back along Order, nor out of Final.
type Ladder struct{ Order, Final []string }

// Match is one way to find the record that the CRM has already: all of its terms have to fit.
type Match []Term

// Properties names those that the terms ask for.
func (m Match) Properties() string {
	names := make([]string, len(m))
	for i, t := range m {
		names[i] = t.Property
	}
	return strings.Join(names, " and ")
}

// Term is a property of the CRM and the value that it has to have.
type Term struct{ Property, Value string }

// What happens where several records fit, and where the one that fits carries another key of ours.
const (
	SeveralDead   = "dead"
	SeveralOldest = "oldest"
	SeveralNewest = "newest"
	TakenKeep     = "keep" // it keeps that key, and ours names it too
	TakenTake     = "take" // ours takes the place of that
	TakenDead     = "dead"
)

// Link is a wish to connect the record with another.
type Link struct {
	To       string // object of the other record
	Key      Key    // of the other record
	Match    []Match
	As       string // label, role or field in the CRM; "" is the default
	Only     bool   // replaces the former link of the same To and As
	IfEmpty  bool   // made only where the CRM's record has none of the same To and As
	Required bool   // sent with the create
	Missing  string // retry, skip or create
	For      time.Duration
	Remove   bool // unlink
}

// Change is what one mapping wants of one record.
type Change struct {
	Mapping string
	Object  string
	Mode    Mode
	Key     Key
	Match   []Match // in this order, where the CRM may have the record already; those with a null are left out
	Several string
	Taken   string
	Fields  []Field // in the order of the file, each name once
	Links   []Link
	Rewrite bool // write what the CRM has acknowledged, too

	Recreate bool              // make a record again that is gone from the CRM, with all that is known of it
	Absent   string            // under UpdateOnly, what becomes of a record that is not there: hold, skip or dead
	OnReject map[string]string // refusals that are expected, by the CRM's code: "skip"
}

// Outcome is what one mapping made of one event: changes, or the reason why there are none.
type Outcome struct {
	Mapping string
	Changes []Change
	Skipped string   // why a mapping wants nothing: its `when` is false, `each` is empty
	Failed  *Failure // why the delivery is dead; Changes of other elements of `each` still count
	Misses  []string // tables where a lookup missed and the field was left alone, Countries among them
}

// Waits is the reason of a failure that is none: a table has not been read from its CRM yet, and the event waits for that.
const Waits = "unread"

// Failure is a mapping that cannot be applied to an event. Reason is one of a
// closed set (a metric label), Message tells a person where and what; neither
// holds a value of the payload.
type Failure struct {
	Reason  string // "null_key", "lookup_missed", "expression", "forward", or Waits
	Message string
}
