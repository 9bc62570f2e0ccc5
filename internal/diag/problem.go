package diag

import (
	"fmt"
	"sort"
	"strings"
)

// Severity tells whether a problem stops the program.
type Severity int

// A document with errors is refused; one with warnings is accepted.
const (
	Error Severity = iota
	Warning
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Pos is a place in a file. Line and Col count from 1; Col counts characters.
// The zero Pos is "nowhere in particular".
type Pos struct {
	File      string
	Line, Col int
}

func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
}

// Problem is one mistake at one place.
type Problem struct {
	Pos
	Width    int // characters the caret underlines; 0 means 1
	Severity Severity
	Message  string // what is wrong, lower case, no full stop
	Hint     string // how to mend it; may be empty
	Unsure   bool   // what stands there may be anything
	Masked   int    // from this column on its line may hold a secret, and keys alone are shown; 0: none
}

func (p Problem) String() string {
	var b strings.Builder
	if at := p.Pos.String(); at != "" {
		b.WriteString(at + ": ")
	}
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Problems collects what is wrong. The zero value is ready to use.
type Problems []Problem

// Add appends p unless the same message stands at the same place already.
func (ps *Problems) Add(p Problem) {
	for _, q := range *ps {
		if q.Pos == p.Pos && q.Message == p.Message {
			return
		}
	}
	*ps = append(*ps, p)
}

// Errorf adds an error without a hint.
func (ps *Problems) Errorf(at Pos, format string, args ...any) {
	ps.Add(Problem{Pos: at, Message: fmt.Sprintf(format, args...)})
}

// Failed reports whether any problem is an error.
func (ps Problems) Failed() bool {
	for _, p := range ps {
		if p.Severity == Error {
			return true
		}
	}
	return false
}

// Sort orders problems by file and place, errors and warnings alike.
func (ps Problems) Sort() {
	sort.SliceStable(ps, func(i, j int) bool {
		a, b := ps[i], ps[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
}

// Err returns the problems as an error, or nil when none is an error.
func (ps Problems) Err() error {
	if !ps.Failed() {
		return nil
	}
	return ps
}

// Error gives one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
