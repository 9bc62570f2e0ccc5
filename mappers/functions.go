package mappers

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// FunctionDoc describes a function to the people who write mappings.
type FunctionDoc struct {
	Name      string
	Signature string
	Doc       string
	Examples  []Example
}

// Example is an expression and what it gives: the result as an expression
// would write it, or "null".
type Example struct {
	Expression string
	Result     string
}

// Functions documents every function that an expression can call, in the order
// that a manual would have.
func Functions() []FunctionDoc {
	var out []FunctionDoc
	for _, f := range functions() {
		f.FunctionDoc.Signature = f.signature()
		out = append(out, f.FunctionDoc)
	}
	return append(out, predicateDocs()...)
}

// function is one entry of the table of functions. Unless nulls is set, a null
// among the arguments that must be there makes the result null.
type function struct {
	FunctionDoc
	params []param
	result Kind
	nulls  bool
	call   func(s *Scope, args []any) (any, error)
}

// param is one argument. The kinds are those that the type checker lets
// through; what comes at run time has the first of them.
type param struct {
	name     string
	kinds    []Kind
	optional bool // may be left out, and may be null
}

func required(name string, kinds ...Kind) param { return param{name: name, kinds: kinds} }
func optional(name string, kinds ...Kind) param {
	return param{name: name, kinds: kinds, optional: true}
}

func (f *function) signature() string {
	var b strings.Builder
	b.WriteString(f.Name + "(")
	for i, p := range f.params {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.name)
		if p.optional {
			b.WriteByte('?')
		}
	}
	b.WriteString(")")
	return b.String()
}

// refuse holds the kinds of a call's arguments against the parameters.
func (f *function) refuse(args []reflect.Type) *argument {
	need := 0
	for _, p := range f.params {
		if !p.optional {
			need++
		}
	}
	if len(args) < need || len(args) > len(f.params) {
		return &argument{index: -1, message: fmt.Sprintf("%s() takes %s, found %d", f.Name, f.arity(need), len(args)), hint: "write " + f.signature()}
	}
	for i, t := range args {
		got, p := kindOf(t), f.params[i]
		if t == nil || got == Any || p.takes(got) {
			continue
		}
		a := &argument{index: i, message: fmt.Sprintf("%s() takes %s here, this is %s", f.Name, p.words(), words(got))}
		if p.takes(Text) && (got == Integer || got == Number || got == Bool) {
			a.hint = "string(x) makes a text of it"
		}
		return a
	}
	return nil
}

func (f *function) arity(need int) string {
	if need == len(f.params) {
		if need == 1 {
			return "1 argument"
		}
		return fmt.Sprintf("%d arguments", need)
	}
	return fmt.Sprintf("%d to %d arguments", need, len(f.params))
}

func (p param) takes(k Kind) bool {
	for _, want := range p.kinds {
		if want == Any || want == k || want == Number && k == Integer {
			return true
		}
	}
	return false
}

func (p param) words() string {
	var out []string
	for _, k := range p.kinds {
		if w := words(k); len(out) == 0 || out[len(out)-1] != w {
			out = append(out, w)
		}
	}
	return strings.Join(out, " or ")
}

// bound gives the function as it runs.
func (f *function) bound(s *Scope) operation {
	return func(at *frame, args []any) (any, error) {
		in := args // nobody else holds them
		if len(args) < len(f.params) {
			in = make([]any, len(f.params))
			copy(in, args)
		}
		for i, p := range f.params {
			v, err := p.convert(in[i])
			if err != nil {
				return nil, plainf("%s(): %v", f.Name, err)
			}
			in[i] = v
		}
		if !f.nulls {
			for i, v := range in {
				if v == nil && !f.params[i].optional {
					return nil, nil
				}
			}
		}
		v, err := f.call(s, in)
		if err != nil {
			switch err := err.(type) {
			case *LookupMiss, *Unread:
				return nil, err
			case *unknown:
				at.misses = append(at.misses, err.table)
				return nil, nil
			}
			return nil, plainf("%s(): %v", f.Name, err)
		}
		return v, nil
	}
}

// convert gives a value of unknown kind the kind that the function works with.
func (p param) convert(v any) (any, error) {
	if v == nil || p.kinds[0] == Any {
		return v, nil
	}
	for _, k := range p.kinds {
		if c, ok := as(k, v); ok {
			return c, nil
		}
	}
	return nil, plainf("takes %s, this is %s", p.words(), describe(v))
}

// as turns v into the Go type of a kind where that loses nothing.
func as(k Kind, v any) (any, bool) {
	switch k {
	case Text:
		if _, ok := v.(string); ok {
			return v, true
		}
		s, ok := scalarText(v)
		return s, ok
	case Number:
		if s, ok := v.(string); ok {
			if len(s) > longestNumber {
				return nil, false
			}
			d, err := decimal.NewFromString(s)
			return d, err == nil && !tooLong(d)
		}
		d, ok := toNumber(v)
		return d, ok && !tooLong(d)
	case Integer:
		i, ok := v.(int64)
		return i, ok
	case Bool:
		b, ok := v.(bool)
		return b, ok
	case Time:
		t, ok := v.(time.Time)
		return t, ok
	case List:
		l, ok := v.([]any)
		return l, ok
	case Object:
		m, ok := v.(map[string]any)
		return m, ok
	}
	return nil, false
}

// scalarText writes out a single value.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	case int64:
		return decimal.NewFromInt(v).String(), true
	case decimal.Decimal:
		if tooLong(v) {
			return "", false
		}
		return v.String(), true
	case time.Time:
		return timeText(v), true
	}
	return "", false
}

// eachOnce are the texts of a single value or of a list, each once.
func eachOnce(v any) ([]any, bool) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []any
	for _, one := range list {
		text, ok := scalarText(one)
		if !ok {
			return nil, false
		}
		if !slices.Contains(out, any(text)) {
			out = append(out, text)
		}
	}
	return out, true
}

func functions() []*function {
	return slices.Concat(textFunctions(), valueFunctions(), peopleFunctions())
}

func functionNamed(name string) *function {
	for _, f := range functions() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

func functionNames() []string {
	names := append([]string(nil), predicates...)
	for _, f := range functions() {
		names = append(names, f.Name)
	}
	return names
}

// unknown is what a function returns for a value that it should know and does not: the
// result is null, and the miss is counted as that of a table.
type unknown struct{ table string }

func (u *unknown) Error() string { return u.table + " does not know the value" }

// Countries stands for a table in the misses of an Outcome: values that country() and
// phone() do not know.
const Countries = "country()"

// LookupMiss is the error of lookup() for a value that its table lacks, where
// the table has no value that stands in.
type LookupMiss struct {
	Table string
	Skip  bool // the field is left alone; otherwise the delivery is dead
}

func (m *LookupMiss) Error() string {
	return fmt.Sprintf("lookup(): the value is not in table %q", m.Table)
}
