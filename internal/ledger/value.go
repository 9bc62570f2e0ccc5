package ledger

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/shopspring/decimal"

	"partnersync/records"
)

func appendText(b []byte, s string) []byte { return records.AppendText(b, s) }

// readValue reads the next JSON value of d.
func readValue(d *jsontext.Decoder) (Value, error) {
	v, err := readAny(d)
	if err != nil {
		return Value{}, err
	}
	return records.NewValue(v), nil
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
