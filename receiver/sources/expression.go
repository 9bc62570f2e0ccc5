package sources

import (
	"strconv"
	"time"

	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
	"partnersync/mappers"
)

// expression is one of a source's own. A failure counts as null: an event is
// kept whatever its body holds.
type expression struct{ compiled *mappers.Expression }

func compile(n diag.Node, want mappers.Want, scope *mappers.Scope, d *diag.Decoding) *expression {
	if !n.Exists() {
		return nil // Decode has said that it is missing
	}
	compiled := mappers.Compile(n, want, scope, d)
	if compiled == nil {
		return nil
	}
	return &expression{compiled}
}

func (e *expression) eval(vars map[string]any) any {
	if e == nil {
		return nil
	}
	value, err := e.compiled.Eval(vars)
	if err != nil {
		return nil
	}
	return value
}

func (e *expression) holds(vars map[string]any) bool {
	holds, _ := e.eval(vars).(bool)
	return holds
}

// text gives a single value as it stands in an entity.
func (e *expression) text(vars map[string]any) string {
	switch v := e.eval(vars).(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case decimal.Decimal:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return ""
}

// time reports false where what the body gives is no time, or one that no webhook can
// mean. Where the body gives nothing, or 0 for it, the time is zero.
func (e *expression) time(vars map[string]any) (time.Time, bool) {
	if e == nil {
		return time.Time{}, true
	}
	value, err := e.compiled.Eval(vars)
	if err == nil && value == nil {
		return time.Time{}, true
	}
	t, ok := mappers.ParseTime(value, "")
	if !ok || t.Year() < 1990 {
		return time.Time{}, ok && t.Unix() == 0
	}
	return t.UTC(), true
}
