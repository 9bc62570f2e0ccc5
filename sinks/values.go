package sinks

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
)

// valueRules say how a target wants its values written.
type valueRules struct {
	Whole    bool      `yaml:"whole"`    // every request carries all that is wanted of a record, not just what has changed
	As       string    `yaml:"as"`       // json (the default), or text: every value is a JSON string
	Blank    string    `yaml:"blank"`    // how a field is blanked: null (the default), empty, none
	List     string    `yaml:"list"`     // what stands between the elements of a list that is written as one text
	Time     string    `yaml:"time"`     // rfc3339 (the default), ms, s, or Go's layout
	Decimals string    `yaml:"decimals"` // number (the default) or text
	IDs      string    `yaml:"ids"`      // the ids of records in bodies: text (the default) or number
	Several  []string  `yaml:"several"`  // fields that hold several values: one alone is written as a list of one
	Lists    []string  `yaml:"lists"`    // fields that want a list always: blanked they are an empty one
	Numbers  names     `yaml:"numbers"`  // fields whose texts are written as numbers: keys are texts to us
	Nest     *nest     `yaml:"nest"`
	Self     diag.Node `yaml:",node"`
}

// names are those of fields: a list, or the setting that holds one.
type names struct {
	list    []string
	setting string
}

// DecodeNode reads a list, one name, or setting.NAME.
func (l *names) DecodeNode(n diag.Node, d *diag.Decoding) {
	if m := onlySetting.FindStringSubmatch(n.Text()); n.Kind() == diag.Scalar && m != nil {
		l.setting = m[1]
		return
	}
	for _, item := range append([]diag.Node{n}, n.Items()...) {
		if item.Kind() == diag.List {
			continue
		}
		if text, ok := d.Scalar(item); ok {
			l.list = append(l.list, text)
		}
	}
}

// settle looks the setting up.
func (l *names) settle(settings map[string]any, n diag.Node, d *diag.Decoding) {
	if l.setting == "" {
		return
	}
	list, ok := settings[l.setting].([]any)
	if !ok {
		d.Errorf(n, diag.OneOf(l.setting, slices.Sorted(maps.Keys(settings))), "there is no setting %q that is a list", l.setting)
	}
	for _, v := range list {
		if text, ok := textOf(v); ok {
			l.list = append(l.list, text)
		}
	}
}

// nest puts the fields whose name matches into an object of their own.
type nest struct {
	Into   string   `yaml:"into,required"`
	Match  pattern  `yaml:"match,required"`
	Except []string `yaml:"except"` // objects that have no such object of their own
}

// DecodeNode reads the rules and refuses what is not known.
func (v *valueRules) DecodeNode(n diag.Node, d *diag.Decoding) {
	type plain valueRules
	d.Decode(n, (*plain)(v))
	oneOf := func(key, value string, known ...string) {
		if at := n.Get(key); at.Exists() && !slices.Contains(known, value) {
			d.Errorf(at, diag.OneOf(value, known), "unknown %s %q", key, value)
		}
	}
	oneOf("as", v.As, "json", "text")
	oneOf("blank", v.Blank, "null", "empty", "none")
	oneOf("decimals", v.Decimals, "number", "text")
	oneOf("ids", v.IDs, "number", "text")
}

// written stands for the values of a row in a body: they go straight from the
// row into the request.
type written struct {
	u     *unit
	which fields
}

// fields tells which of a row's fields are meant.
type fields int

const (
	theValues fields = iota
	withKey          // the values and the key property
	butKey           // the values without the key property
)

var errValue = errors.New("a value cannot be written as JSON")

// appendMembers writes the row's values as members of the object that is open,
// in the order of their names, and into inner those that go into an object of their own.
// taken are names that stand there already.
func (v *valueRules) appendMembers(dst []byte, w written, taken []entry, first bool, inner *[]byte) ([]byte, bool, error) {
	names := make([]string, 0, len(w.u.row.Values)+1)
	for name := range w.u.row.Values {
		if !w.leavesOut(name) && !slices.ContainsFunc(taken, func(e entry) bool { return !e.spread && e.name == name }) {
			names = append(names, name)
		}
	}
	key := ""
	if _, has := w.u.row.Values[w.u.row.Property]; w.which == withKey && w.u.row.Property != "" && !has {
		key = w.u.row.Property
		names = append(names, key)
	}
	slices.Sort(names)
	for _, name := range names {
		var err error
		if v.nests(w.u.row.Object, name) {
			firstInner := len(*inner) == 0
			*inner, err = v.appendMember(*inner, w.u, name, key, &firstInner)
		} else {
			dst, err = v.appendMember(dst, w.u, name, key, &first)
		}
		if err != nil {
			return dst, first, err
		}
	}
	return dst, first, nil
}

// closeNested writes the object of those members that go into one of their own, where there are any.
func (v *valueRules) closeNested(dst, inner []byte, first bool) []byte {
	if len(inner) == 0 {
		return dst
	}
	dst = append(appendName(dst, v.Nest.Into, &first), '{')
	return append(append(dst, inner...), '}')
}

// leavesOut reports whether the field is not among those meant.
func (w written) leavesOut(name string) bool {
	return w.u.omit[name] || w.which == butKey && name == w.u.row.Property
}

func (v *valueRules) nests(object, name string) bool {
	return v.Nest != nil && v.Nest.Match.MatchString(name) && !slices.Contains(v.Nest.Except, object)
}

func (v *valueRules) appendMember(dst []byte, u *unit, name, key string, first *bool) ([]byte, error) {
	value := u.row.Values[name]
	if name == key {
		value = u.row.Key
	}
	if blank(value) {
		switch {
		case slices.Contains(v.Lists, name):
			return append(appendName(dst, name, first), "[]"...), nil
		case v.Blank == "none":
			return dst, nil
		case v.Blank == "empty":
			return append(appendName(dst, name, first), `""`...), nil
		}
		return append(appendName(dst, name, first), "null"...), nil
	}
	dst = appendName(dst, name, first)
	if slices.Contains(v.Several, name) {
		if _, isList := value.([]any); !isList {
			value = []any{value}
		}
	}
	list, isList := value.([]any)
	joined := isList && v.List != "" && !slices.ContainsFunc(list, func(e any) bool { _, single := textOf(e); return !single })
	if v.As == "text" || joined {
		text, err := v.text(value)
		if err != nil {
			return dst, err
		}
		return appendQuoted(dst, text), nil
	}
	if text, isText := value.(string); isText && slices.Contains(v.Numbers.list, name) {
		if n, err := decimal.NewFromString(text); err == nil {
			value = n
		}
	}
	return v.appendJSON(dst, value)
}

func blank(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case string:
		return value == ""
	case []any:
		return len(value) == 0
	}
	return false
}

// text writes any value as one text.
func (v *valueRules) text(value any) (string, error) {
	switch value := value.(type) {
	case time.Time:
		return v.time(value), nil
	case decimal.Decimal:
		return decimalText(value)
	case []any:
		if v.List != "" {
			parts := make([]string, 0, len(value))
			for _, e := range value {
				part, err := v.text(e)
				if err != nil {
					return "", err
				}
				parts = append(parts, part)
			}
			return strings.Join(parts, v.List), nil
		}
	default:
		if text, ok := textOf(value); ok {
			return text, nil
		}
	}
	dst, err := v.appendJSON(nil, value)
	return string(dst), err
}

func (v *valueRules) time(t time.Time) string {
	switch v.Time {
	case "", "rfc3339":
		return t.UTC().Format(time.RFC3339Nano)
	case "ms":
		return strconv.FormatInt(t.UnixMilli(), 10)
	case "s":
		return strconv.FormatInt(t.Unix(), 10)
	}
	return t.UTC().Format(v.Time)
}

// appendJSON writes a value with its JSON type.
func (v *valueRules) appendJSON(dst []byte, value any) ([]byte, error) {
	switch value := value.(type) {
	case nil:
		return append(dst, "null"...), nil
	case string:
		return appendQuoted(dst, value), nil
	case bool:
		return strconv.AppendBool(dst, value), nil
	case int64:
		return strconv.AppendInt(dst, value, 10), nil
	case int:
		return strconv.AppendInt(dst, int64(value), 10), nil
	case float64:
		return strconv.AppendFloat(dst, value, 'f', -1, 64), nil
	case decimal.Decimal:
		text, err := decimalText(value)
		if err != nil || v.Decimals == "text" {
			return appendQuoted(dst, text), err
		}
		return append(dst, text...), nil
	case time.Time:
		if v.Time == "ms" || v.Time == "s" {
			return append(dst, v.time(value)...), nil
		}
		return appendQuoted(dst, v.time(value)), nil
	case []any:
		dst = append(dst, '[')
		for i, e := range value {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = v.appendJSON(dst, e); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case map[string]any:
		dst = append(dst, '{')
		first := true
		for _, name := range slices.Sorted(maps.Keys(value)) {
			dst = appendName(dst, name, &first)
			var err error
			if dst, err = v.appendJSON(dst, value[name]); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	case written:
		var inner []byte
		dst, first, err := v.appendMembers(append(dst, '{'), value, nil, true, &inner)
		return append(v.closeNested(dst, inner, first), '}'), err
	}
	return dst, errValue
}

// plainly is the row's values as expressions read them.
func (v *valueRules) plainly(u *unit, which fields) map[string]any {
	m := make(map[string]any, len(u.row.Values)+1)
	if which == withKey && u.row.Property != "" {
		m[u.row.Property] = u.row.Key
	}
	for name, value := range u.row.Values {
		if (written{u, which}).leavesOut(name) {
			continue
		}
		if v.As == "text" && !blank(value) {
			if text, err := v.text(value); err == nil {
				value = text
			}
		}
		m[name] = value
	}
	return m
}

func appendName(dst []byte, name string, first *bool) []byte {
	if !*first {
		dst = append(dst, ',')
	}
	*first = false
	return append(appendQuoted(dst, name), ':')
}

// appendQuoted writes a JSON string; invalid UTF-8 becomes the replacement character.
func appendQuoted(dst []byte, text string) []byte {
	out, err := jsontext.AppendQuote(dst, text)
	if err != nil {
		out, _ = jsontext.AppendQuote(dst, strings.ToValidUTF8(text, "\uFFFD"))
	}
	return out
}
