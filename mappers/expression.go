package mappers

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
)

// Scope is what an expression may read and call.
type Scope struct {
	Variables map[string]Schema // by name: "event", "item", "hook", names of let
	Tables    map[string]*Table // for lookup()
	Zone      *time.Location    // default of date(); nil is UTC
	Currency  string            // default of cents(); "" has two digits
	Allow     map[string]bool   // private paths below event that may be read, "relationship.billing.tax_id"
}

// Want is what the place of an expression needs.
type Want int

// What a place may want. The result of Eval is of that kind, or nil; only a
// condition is never nil: what is missing does not hold.
const (
	WantAny    Want = iota
	WantBool        // bool
	WantText        // string; numbers are written out
	WantList        // []any
	WantNumber      // int64 or decimal.Decimal
	WantTime        // time.Time
	WantSingle      // string, bool, int64, decimal.Decimal or time.Time
	WantTexts       // []any of strings, each once; a single value is a list of it
)

// Expression is one compiled expression.
type Expression struct {
	node    diag.Node
	want    Want
	kind    Schema // of the result, as far as it is known before it runs
	program *vm.Program
	chain   []string // the whole expression when it is no more than event.a.b
	reads   []read
	fixed   []string // texts of its own that the result may be
	tables  []string // tables whose values the result may be
}

// read is a constant path that an expression reads below a variable.
type read struct {
	variable string
	path     []string
}

// Compile checks the expression that stands at n and makes it ready to run. It
// returns nil, and says in d what is wrong and where, when the text does not
// parse, names what is not there, or cannot be of the wanted kind.
func Compile(n diag.Node, want Want, scope *Scope, d *diag.Decoding) *Expression {
	c := &check{node: n, want: want, scope: scope, d: d, src: n.Text()}
	if !c.yaml() || !c.parse() || !c.names() || !c.types() {
		return nil
	}
	e := &Expression{node: n, want: want, kind: schemaOf(c.tree.Node.Nature()), reads: readsOf(c.tree.Node)}
	e.fixed, e.tables = constantsOf(c.tree.Node)
	if want == WantAny || want == WantText || want == WantSingle || want == WantTexts {
		e.chain = chain(c.tree.Node)
	}
	program, err := assemble(c.tree, scope)
	if err != nil {
		// Nothing that the checks let through is known to end here.
		d.Errorf(n, "please report it with the expression", "the expression cannot be compiled")
		return nil
	}
	e.program = program
	return e
}

// Source is the text of the expression.
func (e *Expression) Source() string { return e.node.Text() }

// Pos is where the expression stands.
func (e *Expression) Pos() diag.Pos { return e.node.Pos() }

// Paths are the constant paths below event that the expression reads, sorted.
func (e *Expression) Paths() []string { return e.pathsBelow("event") }

func (e *Expression) pathsBelow(variable string) []string {
	var paths []string
	for _, r := range e.reads {
		if r.variable == variable && len(r.path) > 0 {
			paths = append(paths, strings.Join(r.path, "."))
		}
	}
	sort.Strings(paths)
	return slices.Compact(paths)
}

// Eval runs the expression. The result is nil, string, bool, int64,
// decimal.Decimal, time.Time, []any or map[string]any; texts and lists without
// content come out as nil. It may share memory with vars. The error is an
// *EvalError. Eval may be called from several goroutines.
func (e *Expression) Eval(vars map[string]any) (any, error) {
	v, _, err := e.eval(vars)
	return v, err
}

// eval is Eval that also tells where functions have missed values that they should know.
func (e *Expression) eval(vars map[string]any) (_ any, misses []string, _ error) {
	var result any
	if e.chain != nil {
		result = follow(vars, e.chain)
	} else {
		m := newMachine(vars)
		var err error
		result, err = m.run(e.program)
		misses = m.frame.misses
		if err != nil {
			return nil, misses, e.failure(err)
		}
	}
	result, err := e.finish(result)
	if err != nil {
		return nil, misses, &EvalError{Pos: e.node.Pos(), Err: err}
	}
	return result, misses, nil
}

// machine is what one evaluation needs, in one piece.
type machine struct {
	vm    vm.VM
	frame frame
	stack [12]any
}

func newMachine(vars map[string]any) *machine {
	m := &machine{frame: frame{vars: vars}}
	m.vm.MemoryBudget = maxElements
	m.vm.Stack = m.stack[:0]
	return m
}

func (m *machine) run(program *vm.Program) (any, error) { return m.vm.Run(program, &m.frame) }

// EvalError tells where an expression failed and why, without any value of
// the payload. Err may be a *LookupMiss.
type EvalError struct {
	Pos diag.Pos
	Err error
}

func (e *EvalError) Error() string { return e.Pos.String() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *EvalError) Unwrap() error { return e.Err }

// plain marks errors of this package, whose texts hold no values.
type plain struct{ text string }

func (p *plain) Error() string { return p.text }

func plainf(format string, args ...any) error { return &plain{fmt.Sprintf(format, args...)} }

// failure keeps our own words only: those of the engine and of the run-time
// hold values.
func (e *Expression) failure(err error) error {
	out := &EvalError{Pos: e.node.Pos(), Err: plainf("the expression failed")}
	var at *file.Error
	if errors.As(err, &at) {
		out.Pos = e.node.PosAt(byteOffset(e.node.Text(), at.From))
		if strings.Contains(at.Message, "memory budget") {
			out.Err = plainf("the expression makes too long a list")
		}
	}
	var own *plain
	var miss *LookupMiss
	var unread *Unread
	switch {
	case errors.As(err, &miss):
		out.Err = miss
	case errors.As(err, &unread):
		out.Err = unread
	case errors.As(err, &own):
		out.Err = own
	}
	return out
}

// byteOffset turns an offset in characters into one in bytes.
func byteOffset(text string, runes int) int {
	at := 0
	for range runes {
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return at
}

// finish brings a result into the form that Eval promises.
func (e *Expression) finish(v any) (any, error) {
	v, err := tidy(v)
	if err != nil {
		return nil, err
	}
	switch e.want {
	case WantBool:
		return condition(v)
	case WantText:
		return wanted(v, "a text", scalarText)
	case WantList:
		return wanted(v, "a list", func(v any) ([]any, bool) { l, ok := v.([]any); return l, ok })
	case WantNumber:
		return wanted(v, "a number", func(v any) (any, bool) { _, ok := toNumber(v); return v, ok })
	case WantTime:
		return wanted(v, "a time", func(v any) (time.Time, bool) { return ParseTime(v, "") })
	case WantSingle:
		return wanted(v, "a single value", func(v any) (any, bool) { _, ok := scalarText(v); return v, ok })
	case WantTexts:
		return wanted(v, "a text or a list of texts", eachOnce)
	}
	return v, nil
}

func wanted[T any](v any, what string, as func(any) (T, bool)) (any, error) {
	if v == nil {
		return nil, nil
	}
	out, ok := as(v)
	if !ok {
		return nil, plainf("this must be %s, but is %s", what, describe(v))
	}
	return out, nil
}

// tidy drops what is missing from lists and refuses numbers that nothing can
// write out. It never changes v itself, which may be part of a body.
func tidy(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return present(v), nil
	case decimal.Decimal:
		if tooLong(v) {
			return nil, plainf("the number is too long")
		}
	case []any:
		out := make([]any, 0, len(v))
		for _, element := range v {
			element, err := tidy(element)
			if err != nil {
				return nil, err
			}
			if element != nil {
				out = append(out, element)
			}
		}
		if len(out) == 0 {
			return nil, nil
		}
		return out, nil
	case int:
		return int64(v), nil
	}
	return v, nil
}
