package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// What the dialects that speak plain JSON have in common; HubSpot's reads its own.

// fieldMap are the fields of a record as JSON has them: numbers are float64.
type fieldMap = map[string]any

// parse reads a body. The error says where it stops being JSON, or that it is of another type.
func parse(body []byte, v any) error {
	return json.Unmarshal(body, v, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
}

// whyNot says in words what is wrong with a body, without its content.
func whyNot(err error) string {
	var (
		syntax   *jsontext.SyntacticError
		semantic *json.SemanticError
	)
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("unexpected character or end of input at offset %d", syntax.ByteOffset)
	case errors.As(err, &semantic):
		return fmt.Sprintf("unexpected %s at offset %d", strings.ToLower(kindName(semantic.JSONKind)), semantic.ByteOffset)
	}
	return "unexpected end of input"
}

// sorted are the names of fields in an order that is always the same.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// whole gives a JSON number that is an integer.
func whole(v any) (int64, bool) {
	f, ok := v.(float64)
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// anyType is that of a property of which nobody knows what it takes.
const anyType = "any"

// blank tells whether a value clears a field.
func blank(v any) bool { return v == nil || v == "" }

// targets are the objects that a lookup may refer to.
func (p *Property) targets() []string {
	if p.Target == "" {
		return nil
	}
	return strings.Split(p.Target, ",")
}

func isDate(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}

func isTime(s string) bool {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999Z0700"} {
		if _, err := time.Parse(layout, s); err == nil {
			return true
		}
	}
	return false
}

// lookup is a property that refers to a record of another object.
func lookup(name, target string) Property {
	return Property{Name: name, Type: "lookup", Target: target}
}

func required(p Property) Property {
	p.Required = true
	return p
}

func picklist(name string, options ...string) Property {
	return Property{Name: name, Type: "enumeration", FieldType: "select", Options: options}
}

// guid spells a number as a UUID that tells what it is of.
func guid(kind uint16, n int64) string {
	return fmt.Sprintf("%08x-%04x-4000-8000-%012x", uint32(n), kind, n)
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if r != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}

// jsonReply is a reply with a body that this package made.
func jsonReply(status int, body any) reply { return reply{status: status, body: encode(body)} }

// atoi reads a query parameter, or gives the default.
func atoi(s string, otherwise int) int {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return n
	}
	return otherwise
}
