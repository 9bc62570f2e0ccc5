package records

import (
	"slices"

	"github.com/google/uuid"

	"partnersync/mappers"
)

// What an audit compares: what the CRM shows of a record now with what we want and it has taken.

// Standing says why a field is not compared with what the CRM shows.
type Standing string

// The standings.
const (
	CanCompare Standing = ""        // the CRM has taken it, and it is to stay
	NotSent    Standing = "unsent"  // it is on its way, or nobody is sure of it: the next request brings it
	NotTaken   Standing = "refused" // the CRM has refused it, which `dead` tells
	NotKept    Standing = "kept"    // the CRM keeps a value of its own, which `why` tells
	NotOurs    Standing = "theirs"  // by its rule it was ours to set once, and is theirs since
)

// Standing tells whether a field can be compared.
func (f *Field) Standing() Standing {
	switch {
	case f.Unsaid() || f.Kept != nil && f.conditional():
		return NotOurs
	case f.Refused != uuid.Nil:
		return NotTaken
	case f.Kept != nil:
		return NotKept
	case f.AckedAt.IsZero() || f.AckedAt != f.Version:
		return NotSent
	case f.once():
		return NotOurs
	}
	return CanCompare
}

// Viewer tells how a target shows values.
type Viewer interface {
	// Same reports whether a value of ours and what the target shows of a property are the same,
	// however it spells it; in doubt they are.
	Same(property string, ours, shown any) bool
	// Several takes apart what it shows of a property with several values.
	Several(shown any) []string
}

// Differs reports whether a field that can be compared has another value in the CRM than it may
// have by its rule.
func (f *Field) Differs(name string, shown any, view Viewer) bool {
	switch mappers.Rule(f.Rule) {
	case mappers.Add: // what else is there is theirs
		there := view.Several(shown)
		return slices.ContainsFunc(texts(f.Wanted.Go), func(text string) bool { return !slices.Contains(there, text) })
	case mappers.Forward: // they may move it on, and to where the order does not reach
		if view.Same(name, f.Wanted.Go, shown) {
			return false
		}
		mine, _ := rank(f.Ladder, f.Wanted.Go)
		its, known := rank(f.Ladder, shown)
		return blank(shown) || known && its < mine
	}
	return !view.Same(name, f.Wanted.Go, shown)
}

// Resend has the wanted value sent again with the next request that its event causes.
func (f *Field) Resend() {
	f.doubt()
	f.Kept = nil
}
