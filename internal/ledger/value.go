package ledger

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
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
	return Value{JSON: string(appendJSON(nil, v)), Go: v}
}

// Equal reports whether both are the same value.
func (v Value) Equal(o Value) bool { return v.JSON == o.JSON }

func appendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return appendText(b, v)
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
			b = appendJSON(b, e)
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
			b = append(appendText(b, k), ':')
			b = appendJSON(b, v[k])
		}
		return append(b, '}')
	default:
		return appendText(b, fmt.Sprint(v))
	}
}

// appendText writes a JSON string that Postgres can store: no NUL, valid UTF-8.
func appendText(b []byte, s string) []byte {
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

// readValue reads the next JSON value of d.
func readValue(d *jsontext.Decoder) (Value, error) {
	v, err := readAny(d)
	if err != nil {
		return Value{}, err
	}
	return NewValue(v), nil
}

func readAny(d *jsontext.Decoder) (any, error) {
	tok, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return tok.Bool(), nil
	case '"':
		return tok.String(), nil
	case '0':
		text := tok.String()
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return i, nil
		}
		return decimal.NewFromString(text)
	case '[':
		list := []any{}
		for d.PeekKind() != ']' {
			e, err := readAny(d)
			if err != nil {
				return nil, err
			}
			list = append(list, e)
		}
		_, err := d.ReadToken()
		return list, err
	case '{':
		m := map[string]any{}
		for d.PeekKind() != '}' {
			k, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := k.String()
			if m[key], err = readAny(d); err != nil {
				return nil, err
			}
		}
		_, err := d.ReadToken()
		return m, err
	}
	return nil, fmt.Errorf("unexpected %v", tok.Kind())
}
