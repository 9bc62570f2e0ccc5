package diag

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"partnersync/internal/secret"
)

// Decoder is a type that reads itself from a Node and reports what is wrong
// to d. It is called for nulls too.
type Decoder interface {
	DecodeNode(n Node, d *Decoding)
}

// Decoding collects the problems of one pass over a document and knows how
// references such as ${NAME} are resolved.
type Decoding struct {
	Problems Problems
	// Expand returns the text for a reference, without its "${" and "}". A nil
	// Expand leaves references alone, as presets want it.
	Expand func(reference string) (string, error)

	// Meant gives what people write for a key that has another name here.
	Meant map[string]string

	standIns map[Pos]bool // where a Soft value is
}

// Soft is an error of Expand that is no more than a warning: the value that
// comes with it stands in.
type Soft struct{ Text string }

func (s Soft) Error() string { return s.Text }

// Errorf reports an error at n, unless what is there only stands in for a value: nothing can be said of that one.
func (d *Decoding) Errorf(n Node, hint, format string, args ...any) {
	if d.standIns[n.Pos()] {
		return
	}
	d.Problems.Add(Problem{Pos: n.Pos(), Width: width(n), Message: fmt.Sprintf(format, args...), Hint: hint})
}

// ForgetStandIns takes back the warnings about stand-ins that came after the first n problems.
func (d *Decoding) ForgetStandIns(n int) {
	kept := d.Problems[:n:n]
	for _, p := range d.Problems[n:] {
		if p.Severity != Warning || !d.standIns[p.Pos] {
			kept = append(kept, p)
		}
	}
	d.Problems = kept
}

// unsure reports an error at n where nobody knows what stands there.
func (d *Decoding) unsure(n Node, hint, format string, args ...any) {
	d.Problems.Add(Problem{Pos: n.Pos(), Width: width(n), Message: fmt.Sprintf(format, args...), Hint: hint, Unsure: true})
}

// Warnf reports a warning at n.
func (d *Decoding) Warnf(n Node, hint, format string, args ...any) {
	d.Problems.Add(Problem{Pos: n.Pos(), Width: width(n), Severity: Warning, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func width(n Node) int {
	if n.Kind() != Scalar || strings.Contains(n.Text(), "\n") {
		return 1
	}
	w := len([]rune(n.Text()))
	if n.Quoted() {
		w += 2
	}
	return w
}

// Decode fills the value that into points to. Structs take their keys from
// `yaml:"name"` tags; `yaml:"name,required"` must be there; a field tagged
// `yaml:",node"` gets the struct's own Node. Keys that no field names are
// errors. Lists accept a single value where they are tagged ",single".
//
// Supported are bool, string, integers, floats, time.Duration, secret.String,
// Node, any, Decoder, and pointers, slices, string-keyed maps and structs of these.
func (d *Decoding) Decode(n Node, into any) {
	d.value(n, reflect.ValueOf(into).Elem(), "")
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[secret.String]()
	nodeType     = reflect.TypeFor[Node]()
	decoderType  = reflect.TypeFor[Decoder]()
)

func (d *Decoding) value(n Node, v reflect.Value, options string) {
	if !n.Exists() {
		return
	}
	t := v.Type()
	if reflect.PointerTo(t).Implements(decoderType) {
		v.Addr().Interface().(Decoder).DecodeNode(n, d)
		return
	}
	switch t {
	case nodeType:
		v.Set(reflect.ValueOf(n))
		return
	case secretType:
		text, ok := d.Scalar(n)
		if !ok {
			text = "unset" // reported already; an empty secret would be reported again
		}
		v.Set(reflect.ValueOf(secret.New(text)))
		return
	case durationType:
		if text, ok := d.Scalar(n); ok {
			if dur, err := ParseDuration(text); err != nil {
				d.Errorf(n, "write a number with a unit, such as 500ms, 30s, 5m, 72h or 7d", "%q is not a duration", n.Text())
			} else {
				v.SetInt(int64(dur))
			}
		}
		return
	}
	if n.Kind() == Null && t.Kind() != reflect.Interface {
		if t.Kind() != reflect.Pointer {
			d.Errorf(n, "", "this needs a value")
		}
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		d.value(n, p.Elem(), options)
		v.Set(p)
	case reflect.Interface:
		if plain := n.Plain(); plain != nil {
			v.Set(reflect.ValueOf(plain))
		}
	case reflect.Struct:
		d.structure(n, v)
	case reflect.Map:
		if n.Kind() != Map {
			d.want(n, "a map")
			return
		}
		m := reflect.MakeMap(t)
		d.unique(n)
		for _, e := range n.Entries() {
			item := reflect.New(t.Elem()).Elem()
			d.value(e.Value, item, "")
			m.SetMapIndex(reflect.ValueOf(e.Key.Text()).Convert(t.Key()), item)
		}
		v.Set(m)
	case reflect.Slice:
		items := n.Items()
		if n.Kind() != List {
			if !strings.Contains(options, "single") {
				d.want(n, "a list")
				return
			}
			items = []Node{n}
		}
		l := reflect.MakeSlice(t, len(items), len(items))
		for i, item := range items {
			d.value(item, l.Index(i), "")
		}
		v.Set(l)
	default:
		d.scalar(n, v)
	}
}

func (d *Decoding) structure(n Node, v reflect.Value) {
	if n.Kind() != Map {
		d.want(n, "a map")
		return
	}
	d.unique(n)
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if options == "node" {
			v.Field(i).Set(reflect.ValueOf(n))
		}
		if name != "" && name != "-" {
			fields[name] = i
			names = append(names, name)
		}
	}
	for _, e := range n.Entries() {
		name := e.Key.Text()
		i, ok := fields[name]
		if !ok {
			hint := OneOf(name, names)
			if meant := d.Meant[name]; slices.Contains(names, meant) {
				hint = fmt.Sprintf("did you mean %q?", meant)
			}
			d.unsure(e.Key, hint, "unknown key %q", name)
			continue
		}
		_, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		d.value(e.Value, v.Field(i), options)
	}
	for _, name := range names {
		_, options, _ := strings.Cut(v.Type().Field(fields[name]).Tag.Get("yaml"), ",")
		if strings.Contains(options, "required") && !n.Get(name).Exists() {
			d.Errorf(n, "", "the key %q is missing", name)
		}
	}
}

// unique reports keys that stand in a map twice.
func (d *Decoding) unique(n Node) {
	first := map[string]Node{}
	for _, e := range n.t.entries {
		name := e.Key.Text()
		if e.Key.Kind() != Scalar {
			d.Errorf(e.Key, "", "a key must be a plain text")
			continue
		}
		if d.Expand != nil && reference.MatchString(name) {
			d.Errorf(e.Key, "references such as ${NAME} stand in values", "a key cannot hold a reference")
		}
		if before, ok := first[name]; ok && e.Key.Tag() != "!!merge" {
			d.Errorf(e.Key, fmt.Sprintf("it stands on line %d already", before.Pos().Line), "the key %q stands here a second time", name)
		}
		first[name] = e.Key
	}
}

func (d *Decoding) want(n Node, what string) {
	// Not which one: a secret may have been written in the place of what holds it.
	d.unsure(n, "", "expected %s, found %s", what, n.Kind())
}

// Scalar returns the text of a value with its reference resolved, or reports
// that n is no single value.
func (d *Decoding) Scalar(n Node) (string, bool) {
	if n.Kind() != Scalar {
		d.want(n, "a single value")
		return "", false
	}
	return d.expand(n)
}

var reference = regexp.MustCompile(`\$\{[^}]*\}`)

func (d *Decoding) expand(n Node) (string, bool) {
	text := n.Text()
	if d.Expand == nil {
		return text, true
	}
	at := reference.FindStringIndex(text)
	if at == nil {
		return text, true
	}
	if at[0] != 0 || at[1] != len(text) {
		d.Errorf(n, "set the variable to the whole text and write ${NAME} alone", "a reference such as ${NAME} must be the whole value")
		return "", false
	}
	value, err := d.Expand(text[2 : len(text)-1])
	var soft Soft
	if errors.As(err, &soft) {
		if d.standIns == nil {
			d.standIns = map[Pos]bool{}
		}
		d.standIns[n.Pos()] = true
		d.Warnf(n, "", "%s", soft.Text)
		return value, true
	}
	if err != nil {
		d.Errorf(n, "", "%v", err)
		return "", false
	}
	return value, true
}

func (d *Decoding) scalar(n Node, v reflect.Value) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "yes", "on":
			v.SetBool(true)
		case "false", "no", "off":
			v.SetBool(false)
		default:
			d.Errorf(n, "write true or false", "expected true or false, found %q", n.Text())
		}
	case reflect.Int, reflect.Int64, reflect.Int32:
		i, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, v.Type().Bits())
		if err != nil {
			d.Errorf(n, "", "expected a whole number, found %q", n.Text())
			return
		}
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			d.Errorf(n, "", "expected a number, found %q", n.Text())
			return
		}
		v.SetFloat(f)
	default:
		panic("diag: cannot decode into " + v.Type().String())
	}
}

// ParseDuration is time.ParseDuration with days ("7d") besides.
func ParseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err == nil && n >= 0 && n < 36500 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	dur, err := time.ParseDuration(text)
	if err == nil && dur < 0 {
		err = fmt.Errorf("negative duration %q", text)
	}
	return dur, err
}

// ParseSize reads a number of bytes, from 0 to 1 EiB, written as 1GiB, 500MB or 1073741824.
func ParseSize(text string) (_ int64, ok bool) {
	number, factor := strings.TrimSpace(text), int64(1)
	for _, u := range []struct {
		unit   string
		factor int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
	} {
		if digits, has := strings.CutSuffix(number, u.unit); has {
			number, factor = strings.TrimSpace(digits), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<60/factor {
		return 0, false
	}
	return n * factor, true
}

// KeysOf lists the keys that Decode accepts for a struct.
func KeysOf(v any) []string {
	t := reflect.TypeOf(v)
	var names []string
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
