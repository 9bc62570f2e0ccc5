package mappers

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/shopspring/decimal"
)

func (schema *Schema) ofBool(b bool) (any, bool) {
	switch schema.Kind {
	case Bool, Any:
		return b, true
	case Text, ID:
		// Expressions take the schema at its word: what is said to be text is text.
		return strconv.FormatBool(b), false
	}
	return b, false
}

func (schema *Schema) ofNumber(raw []byte) (any, bool) {
	if schema.None != "" && string(raw) == schema.None {
		return nil, true
	}
	switch schema.Kind {
	case ID:
		return string(raw), true
	case Text:
		return string(raw), false
	case Bool:
		if len(raw) == 1 && (raw[0] == '0' || raw[0] == '1') {
			return raw[0] == '1', true
		}
	case Time:
		if v, ok := shortInteger(raw); ok {
			if t, ok := timeOfEpoch(v, schema.Unit); ok {
				return t, true
			}
		} else if t, ok := timeOfText(string(raw), schema.Unit); ok {
			return t, true
		}
	case Integer:
		v, ok := numberOf(raw)
		if d, isDecimal := v.(decimal.Decimal); isDecimal {
			return wholeNumber(d)
		}
		return v, ok
	case Number:
		v, ok := numberOf(raw)
		if i, isInt := v.(int64); isInt {
			v = decimal.NewFromInt(i)
		}
		return v, ok
	}
	v, ok := numberOf(raw)
	return v, ok && schema.Kind == Any
}

func (schema *Schema) ofText(text string) (any, bool) {
	if text == "" || schema.None != "" && text == schema.None {
		return nil, true
	}
	switch schema.Kind {
	case Any, ID, Text:
		return text, true
	case Bool:
		switch {
		case text == "1" || strings.EqualFold(text, "true"):
			return true, true
		case text == "0" || strings.EqualFold(text, "false"):
			return false, true
		}
	case Time:
		if t, ok := timeOfText(text, schema.Unit); ok {
			return t, true
		}
	case Integer, Number:
		if isJSONNumber(text) {
			if v, ok := schema.ofNumber([]byte(text)); ok {
				return v, true
			}
		}
	}
	return text, false
}

// numberOf gives int64 or decimal.Decimal, or the text itself where a number has
// so many digits that arithmetic with it would be an attack.
func numberOf(raw []byte) (any, bool) {
	if i, ok := shortInteger(raw); ok {
		return i, true
	}
	text := string(raw)
	if len(text) > maxBodyDigits {
		return text, false
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		if e, err := strconv.Atoi(text[i+1:]); err != nil || e > maxBodyDigits || e < -maxBodyDigits {
			return text, false
		}
	} else if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, true
	}
	d, err := decimal.NewFromString(text)
	if err != nil {
		return text, false
	}
	return d, true
}

// shortInteger reads the whole numbers that nearly all numbers are.
func shortInteger(raw []byte) (int64, bool) {
	digits := bytes.TrimPrefix(raw, []byte("-"))
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	var v int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if len(digits) < len(raw) {
		v = -v
	}
	return v, true
}

// wholeNumber gives a whole number as int64 where it fits.
func wholeNumber(d decimal.Decimal) (any, bool) {
	if !d.IsInteger() {
		return d, false
	}
	if i := d.BigInt(); i.IsInt64() {
		return i.Int64(), true
	}
	return d, true
}

// isJSONNumber reports whether text is a number in JSON's own grammar.
func isJSONNumber(text string) bool {
	return text != "" && (text[0] == '-' || text[0] >= '0' && text[0] <= '9') && jsontext.Value(text).IsValid()
}
