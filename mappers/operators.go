package mappers

import (
	"cmp"
	"math"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// Bounds of one evaluation. The largest bodies stay far below them.
const (
	maxSteps      = 1_000_000
	maxBytes      = 32 << 20  // of all texts that are made on the way
	maxElements   = 1_000_000 // of lists
	longestNumber = 400       // digits
	deepest       = 100       // nesting of what is written out
)

// frame is one evaluation.
type frame struct {
	vars  map[string]any
	steps int
	bytes int

	misses []string // values that a function should know, by where it has looked
}

// step counts a call that looks at args.
func (f *frame) step(args []any) error {
	f.steps++
	for _, a := range args {
		f.steps += size(a)
	}
	if f.steps > maxSteps {
		return plainf("the expression takes too many steps")
	}
	return nil
}

// size is about how much there is to look at in v.
func size(v any) int {
	n := 0
	switch v := v.(type) {
	case string:
		n = len(v) / 4
	case []any:
		n = len(v)
		for _, e := range v {
			n += size(e)
		}
	case map[string]any:
		n = len(v)
		for _, e := range v {
			n += size(e)
		}
	}
	return n
}

// spend counts what a step has made.
func (f *frame) spend(v any) error {
	switch v := v.(type) {
	case string:
		f.bytes += len(v)
	case []any:
		f.bytes += 16 * len(v)
	}
	if f.bytes > maxBytes {
		return plainf("the expression makes too long texts")
	}
	return nil
}

// operations are the operators of the language with our rules for null.
func operations() map[string]operation {
	return map[string]operation{
		fnPath:     func(f *frame, a []any) (any, error) { return follow(f.vars, a[0].([]string)), nil },
		fnMember:   func(_ *frame, a []any) (any, error) { return member(a[0], a[1]), nil },
		fnSlice:    func(_ *frame, a []any) (any, error) { return cut(a[0], a[1], a[2]) },
		fnHolds:    func(_ *frame, a []any) (any, error) { return condition(a[0]) },
		fnList:     func(_ *frame, a []any) (any, error) { return listOf(a[0]) },
		fnInteger:  func(_ *frame, a []any) (any, error) { return int64(a[0].(int)), nil },
		fnPresent:  func(_ *frame, a []any) (any, error) { return present(a[0]), nil },
		fnKey:      func(_ *frame, a []any) (any, error) { return mapKey(a[0]) },
		"==":       func(_ *frame, a []any) (any, error) { return equal(a[0], a[1]), nil },
		"<":        order(func(c int) bool { return c < 0 }),
		"<=":       order(func(c int) bool { return c <= 0 }),
		">":        order(func(c int) bool { return c > 0 }),
		">=":       order(func(c int) bool { return c >= 0 }),
		"+":        func(_ *frame, a []any) (any, error) { return plus(a[0], a[1]) },
		"-":        func(_ *frame, a []any) (any, error) { return arithmetic("-", a[0], a[1]) },
		"*":        func(_ *frame, a []any) (any, error) { return arithmetic("*", a[0], a[1]) },
		"/":        func(_ *frame, a []any) (any, error) { return arithmetic("/", a[0], a[1]) },
		"%":        func(_ *frame, a []any) (any, error) { return arithmetic("%", a[0], a[1]) },
		"in":       func(_ *frame, a []any) (any, error) { return holdsValue(a[1], a[0]) },
		"contains": texts("contains", strings.Contains),
		"startsWith": texts("startsWith", func(s, t string) bool {
			return strings.HasPrefix(s, t)
		}),
		"endsWith": texts("endsWith", strings.HasSuffix),
		fnMatches: func(_ *frame, a []any) (any, error) {
			s, ok := a[0].(string)
			if !ok && a[0] != nil {
				return nil, plainf("matches takes a text, this is %s", describe(a[0]))
			}
			return ok && a[1].(*regexp.Regexp).MatchString(s), nil
		},
	}
}

// follow reads the fields of path one below the other.
func follow(vars map[string]any, path []string) any {
	at := vars[path[0]]
	for _, name := range path[1:] {
		fields, _ := at.(map[string]any)
		at = fields[name]
	}
	return at
}

// member reads a field of an object or an element of a list. What is not there
// is null, and so is what cannot be there because the sender has changed a kind.
func member(base, property any) any {
	switch b := base.(type) {
	case map[string]any:
		if name, ok := property.(string); ok {
			return b[name]
		}
	case []any:
		i, ok := property.(int64)
		if i < 0 {
			i += int64(len(b))
		}
		if ok && i >= 0 && i < int64(len(b)) {
			return b[i]
		}
	}
	return nil
}

func cut(base, from, to any) (any, error) {
	runes, isText := []rune(nil), false
	list, isList := base.([]any)
	if s, ok := base.(string); ok {
		runes, isText = []rune(s), true
	}
	switch {
	case base == nil:
		return nil, nil
	case !isText && !isList:
		return nil, plainf("%s cannot be cut", describe(base))
	}
	n := max(len(runes), len(list))
	place := func(v any, missing int) (int, error) {
		if v == nil {
			return missing, nil
		}
		i, ok := v.(int64)
		if !ok {
			return 0, plainf("a place is a whole number, this is %s", describe(v))
		}
		if i < 0 {
			i += int64(n)
		}
		return int(min(max(i, 0), int64(n))), nil
	}
	a, err := place(from, 0)
	if err != nil {
		return nil, err
	}
	b, err := place(to, n)
	if err != nil {
		return nil, err
	}
	a = min(a, b)
	if isText {
		return string(runes[a:b]), nil
	}
	return slices.Clone(list[a:b]), nil
}

// condition is how a value counts where true or false is needed.
func condition(v any) (any, error) {
	switch v := present(v).(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	}
	return nil, plainf("a condition must be true or false, this is %s", describe(v))
}

func listOf(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return []any{}, nil
	case []any:
		return v, nil
	}
	return nil, plainf("this must be a list, but is %s", describe(v))
}

func mapKey(v any) (any, error) {
	s, ok := v.(string)
	if !ok {
		return nil, plainf("a field is named by a text, this is %s", describe(v))
	}
	return s, nil
}

// present turns what counts as missing into nil: empty texts and lists without content.
func present(v any) any {
	switch t := v.(type) {
	case string:
		if t == "" {
			return nil
		}
	case []any:
		for _, e := range t {
			if present(e) != nil {
				return v
			}
		}
		return nil
	}
	return v
}

// equal compares values, not their types: 1 and 1.0 are equal, and so are all
// ways to be missing.
func equal(a, b any) bool {
	a, b = present(a), present(b)
	switch x := a.(type) {
	case nil:
		return b == nil
	case string:
		y, ok := b.(string)
		return ok && x == y
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case time.Time:
		y, ok := b.(time.Time)
		return ok && x.Equal(y)
	case int64, decimal.Decimal:
		c, ok := compare(a, b)
		return ok && c == 0
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			if w, ok := y[k]; !ok || !equal(v, w) {
				return false
			}
		}
		return true
	}
	return false
}

// order makes an operator such as <. Missing values are in no order.
func order(holds func(int) bool) operation {
	return func(_ *frame, a []any) (any, error) {
		l, r := present(a[0]), present(a[1])
		if l == nil || r == nil {
			return false, nil
		}
		c, ok := compare(l, r)
		if !ok {
			return nil, plainf("%s and %s cannot be compared", describe(l), describe(r))
		}
		return holds(c), nil
	}
}

func compare(a, b any) (int, bool) {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return strings.Compare(x, y), ok
	case time.Time:
		y, ok := b.(time.Time)
		return x.Compare(y), ok
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y), true
		}
	}
	x, ok := toNumber(a)
	if !ok {
		return 0, false
	}
	y, ok := toNumber(b)
	if !ok || tooLong(x) || tooLong(y) {
		return 0, false
	}
	return x.Cmp(y), true
}

func toNumber(v any) (decimal.Decimal, bool) {
	switch v := v.(type) {
	case int64:
		return decimal.NewFromInt(v), true
	case decimal.Decimal:
		return v, true
	}
	return decimal.Decimal{}, false
}

// tooLong tells numbers such as 1e999999999 apart, which no step may write out.
func tooLong(d decimal.Decimal) bool {
	e := int64(d.Exponent())
	return e > longestNumber || e < -longestNumber || d.Coefficient().BitLen() > longestNumber*4
}

func plus(a, b any) (any, error) {
	if a == nil || b == nil {
		return nil, nil
	}
	x, xok := a.(string)
	y, yok := b.(string)
	switch {
	case xok && yok:
		return x + y, nil
	case xok || yok:
		return nil, plainf("+ takes two texts or two numbers, these are %s and %s", describe(a), describe(b))
	}
	return arithmetic("+", a, b)
}

// divisionDigits are the decimals of a quotient that does not come out even.
const divisionDigits = 16

// arithmetic is exact: whole numbers stay whole as long as they fit.
func arithmetic(operator string, a, b any) (any, error) {
	if a == nil || b == nil {
		return nil, nil
	}
	if i, ok := a.(int64); ok {
		if j, ok := b.(int64); ok {
			if r, ok := whole(operator, i, j); ok {
				return r, nil
			}
		}
	}
	x, xok := toNumber(a)
	y, yok := toNumber(b)
	switch {
	case !xok || !yok:
		return nil, plainf("%s takes numbers, these are %s and %s", operator, describe(a), describe(b))
	case tooLong(x) || tooLong(y):
		return nil, plainf("the number is too long")
	}
	var r decimal.Decimal
	switch operator {
	case "+":
		r = x.Add(y)
	case "-":
		r = x.Sub(y)
	case "*":
		r = x.Mul(y)
	default:
		if y.IsZero() {
			return nil, plainf("division by zero")
		}
		if operator == "%" {
			r = x.Mod(y)
		} else {
			r = x.DivRound(y, divisionDigits)
		}
	}
	if tooLong(r) {
		return nil, plainf("the number is too long")
	}
	return r, nil
}

// whole calculates with whole numbers where the result is one that fits.
func whole(operator string, i, j int64) (int64, bool) {
	switch operator {
	case "+":
		r := i + j
		return r, (r > i) == (j > 0)
	case "-":
		r := i - j
		return r, (r < i) == (j > 0)
	case "*":
		if i == math.MinInt64 || j == math.MinInt64 {
			return 0, false
		}
		hi, lo := bits.Mul64(uint64(abs(i)), uint64(abs(j)))
		return i * j, hi == 0 && lo <= math.MaxInt64
	case "%":
		if j != 0 {
			return i % j, true
		}
	case "/":
		if j != 0 && j != -1 && i%j == 0 {
			return i / j, true
		}
	}
	return 0, false
}

func abs(i int64) int64 {
	if i < 0 {
		return -i
	}
	return i
}

// holdsValue reports whether a list holds a value, or an object a field.
func holdsValue(in, v any) (any, error) {
	switch in := in.(type) {
	case nil:
		return false, nil
	case []any:
		return present(v) != nil && slices.ContainsFunc(in, func(e any) bool { return equal(e, v) }), nil
	case map[string]any:
		name, ok := v.(string)
		return ok && present(in[name]) != nil, nil
	}
	return nil, plainf("in asks whether a list or an object holds a value, this is %s", describe(in))
}

func texts(name string, f func(s, t string) bool) operation {
	return func(_ *frame, a []any) (any, error) {
		if a[0] == nil || a[1] == nil {
			return false, nil
		}
		s, sok := a[0].(string)
		t, tok := a[1].(string)
		if !sok || !tok {
			return nil, plainf("%s takes two texts, these are %s and %s", name, describe(a[0]), describe(a[1]))
		}
		return f(s, t), nil
	}
}

// describe says what a value is, and never which.
func describe(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return words(Text)
	case bool:
		return words(Bool)
	case int64:
		return words(Integer)
	case decimal.Decimal:
		return words(Number)
	case time.Time:
		return words(Time)
	case []any:
		return words(List)
	case map[string]any:
		return words(Object)
	}
	return "something else"
}
