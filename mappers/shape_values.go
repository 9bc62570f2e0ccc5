package mappers

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/shopspring/decimal"
)

// Day is the location of a time that a body gave as a bare date, "2006-01-02":
// midnight UTC for comparisons, but the same day in every zone.
var Day = time.FixedZone("day", 0)

// ParseTime reads a time as bodies write it: a number or its digits in unit
// ("ms" or "s"; beyond 1e11 it can only be milliseconds), RFC 3339,
// "2006-01-02 15:04:05" in UTC, or "2006-01-02" in Day. Years outside 0 to 9999
// do not count as times.
func ParseTime(v any, unit string) (time.Time, bool) {
	switch v := v.(type) {
	case time.Time:
		return v, !v.IsZero()
	case int64:
		return timeOfEpoch(v, unit)
	case decimal.Decimal:
		return timeOfDecimal(v, unit)
	case string:
		return timeOfText(v, unit)
	}
	return time.Time{}, false
}

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

func timeOfText(text, unit string) (time.Time, bool) {
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return timeOfEpoch(v, unit)
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return saneTime(t.UTC())
		}
	}
	if t, err := time.ParseInLocation("2006-01-02", text, Day); err == nil {
		return saneTime(t)
	}
	if isJSONNumber(text) {
		if v, ok := numberOf([]byte(text)); ok {
			if d, isDecimal := v.(decimal.Decimal); isDecimal {
				return timeOfDecimal(d, unit)
			}
		}
	}
	return time.Time{}, false
}

const surelyMilliseconds = 100_000_000_000 // as seconds this is the year 5138

func timeOfEpoch(v int64, unit string) (time.Time, bool) {
	if unit == "ms" || v > surelyMilliseconds {
		return saneTime(time.UnixMilli(v).UTC())
	}
	return saneTime(time.Unix(v, 0).UTC())
}

func timeOfDecimal(d decimal.Decimal, unit string) (time.Time, bool) {
	if unit != "ms" && d.LessThanOrEqual(decimal.NewFromInt(surelyMilliseconds)) {
		d = d.Shift(3)
	}
	nanos := d.Shift(6).BigInt()
	if !nanos.IsInt64() {
		return time.Time{}, false
	}
	return saneTime(time.Unix(0, nanos.Int64()).UTC())
}

func saneTime(t time.Time) (time.Time, bool) {
	if t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}, false
	}
	return t, true
}
