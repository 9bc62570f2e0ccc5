package records

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"
	"unicode/utf8"

	"github.com/shopspring/decimal"
)

// Value is a value of a record's property: nil, string, bool, int64,
// decimal.Decimal, []any or map[string]any of these. Two values are equal when
// their JSON is, which is canonical: sorted keys, numbers without trailing zeros.
type Value struct {
	JSON string
	Go   any
}

// NewValue wraps v; other Go types than those of Value are written as text.
func NewValue(v any) Value {
	return Value{JSON: string(AppendJSON(nil, v)), Go: v}
}

// Equal reports whether both are the same value.
func (v Value) Equal(o Value) bool { return v.JSON == o.JSON }

// AppendJSON appends the canonical JSON of v.
func AppendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return AppendText(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case decimal.Decimal:
		return append(b, v.String()...)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendJSON(b, e)
		}
		return append(b, ']')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(AppendText(b, k), ':')
			b = AppendJSON(b, v[k])
		}
		return append(b, '}')
	default:
		return AppendText(b, fmt.Sprint(v))
	}
}

// AppendText appends a JSON string that Postgres can store: no NUL, valid UTF-8.
func AppendText(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = string(bytes.ToValidUTF8([]byte(s), []byte("\uFFFD")))
	}
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c != 0:
			b = append(b, fmt.Sprintf("\\u%04x", c)...)
		}
	}
	return append(append(b, s[from:]...), '"')
}
