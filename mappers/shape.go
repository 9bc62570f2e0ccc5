package mappers

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// BodyError says why a body cannot be shaped. It holds no value of the body.
type BodyError struct {
	Offset    int64 // bytes before the place
	Line, Col int   // of the place, counted from 1; Col counts characters
	Reason    string
	NotObject bool // it is JSON, but not an object
}

func (e *BodyError) Error() string {
	return "line " + strconv.Itoa(e.Line) + ", column " + strconv.Itoa(e.Col) + ": " + e.Reason
}

// Bounds that no honest body comes near.
const (
	maxBodyDepth  = 100
	maxBodyDigits = 400 // of a number, and of its exponent's reach
	maxDriftPaths = 50  // paths reported for one body
	maxDriftPath  = 200 // bytes of one
)

// Shape decodes a JSON object and gives its values the kinds that schema names.
// A nil schema takes everything as it comes.
//
// A value that does not fit its kind is kept as it is, a field that the schema
// does not know is kept too; drift has the paths of both. "", null and the
// schema's None become nil with the key present. Of a key that stands twice the
// last counts; a field under its own name beats another spelling of it.
// Bytes that are not UTF-8 become U+FFFD, NUL characters are removed. A number
// of more than 400 digits stays text. Objects and lists may be nested 100
// levels deep. The error is always a *BodyError.
func Shape(raw []byte, schema *Schema) (body map[string]any, drift []string, err error) {
	if schema == nil {
		schema = &freeSchema
	}
	s := shapers.Get().(*shaper)
	defer s.release()
	s.buffer = *bytes.NewBuffer(raw)
	s.dec.Reset(&s.buffer, decoderOptions...)
	kind := s.dec.PeekKind()
	value, err := s.value(schema, kind)
	at := s.dec.InputOffset()
	if err == nil {
		if _, err = s.dec.ReadToken(); err == nil {
			at += int64(len(raw[at:]) - len(bytes.TrimLeft(raw[at:], " \t\r\n")))
			err = errTrailing
		}
	}
	if err != io.EOF || kind == jsontext.KindInvalid {
		return nil, nil, bodyError(raw, at, err)
	}
	body, ok := value.(map[string]any)
	if !ok || kind != jsontext.KindBeginObject {
		return nil, nil, &BodyError{Line: 1, Col: 1, Reason: "the body is not a JSON object", NotObject: true}
	}
	return body, s.drift, nil
}

// Carries reports whether the body holds path ("group.name") and whether what
// it holds is blank: null, "", the schema's None, an empty list or object. What
// lies below a null is carried and blank; what lies below an object that lacks
// it is not carried.
func Carries(body map[string]any, path string) (present, blank bool) {
	var at any = body
	for rest := path; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, ".")
		switch v := at.(type) {
		case nil:
			return true, true
		case map[string]any:
			next, ok := v[name]
			if !ok {
				return false, false
			}
			at = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v) {
				return false, false
			}
			at = v[i]
		default:
			return false, false
		}
	}
	switch v := at.(type) {
	case nil:
		return true, true
	case string:
		return true, v == ""
	case []any:
		return true, len(v) == 0
	case map[string]any:
		return true, len(v) == 0
	}
	return true, false
}

type shaper struct {
	dec    jsontext.Decoder
	buffer bytes.Buffer
	depth  int
	path   []string
	drift  []string
	names  [256]string // keys seen lately, so that they need not be made again
}

var (
	errTooDeep  = errors.New("nested more than 100 levels deep")
	errTrailing = errors.New("there is more after the end of the JSON value")
	anySchema   = Schema{Kind: Any}
	freeSchema  = Schema{Kind: Map}

	decoderOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

	// shapers are kept for reuse: a decoder and its buffers cost more than a small body.
	shapers = sync.Pool{New: func() any { return new(shaper) }}
)

// release gives s back without anything of the body but names of fields.
func (s *shaper) release() {
	s.buffer = bytes.Buffer{}
	s.dec.Reset(&s.buffer)
	clear(s.path[:cap(s.path)])
	s.depth, s.path, s.drift = 0, s.path[:0], nil
	shapers.Put(s)
}

// value reads the next value, whose kind has been peeked.
func (s *shaper) value(schema *Schema, kind jsontext.Kind) (any, error) {
	switch kind {
	case jsontext.KindBeginObject:
		if schema.Kind == Object || schema.Kind == Map || schema.Kind == Any {
			return s.object(schema)
		}
		s.drifted("")
		return s.object(&anySchema)
	case jsontext.KindBeginArray:
		return s.list(schema)
	}
	raw, err := s.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	var value any
	fits := true
	switch kind {
	case jsontext.KindNull:
		return nil, nil
	case jsontext.KindTrue, jsontext.KindFalse:
		value, fits = schema.ofBool(kind == jsontext.KindTrue)
	case jsontext.KindNumber:
		value, fits = schema.ofNumber(raw)
	case jsontext.KindString:
		value, fits = schema.ofText(unquote(raw))
	}
	if !fits {
		s.drifted("")
	}
	return value, nil
}

func (s *shaper) object(schema *Schema) (any, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	body := make(map[string]any, min(len(schema.Fields), 32))
	var respelled []string // fields that have come under another spelling only
	var field Schema       // here, since it escapes: one for all fields
	var known bool
	for s.dec.PeekKind() != jsontext.KindEndObject {
		raw, err := s.dec.ReadValue()
		if err != nil {
			return nil, err
		}
		name := s.name(raw)
		field, known = schema.Fields[name]
		keep := true
		switch {
		case known:
			respelled = withoutName(respelled, name)
		case schema.Spellings[name] != "":
			name = schema.Spellings[name]
			field = schema.Fields[name]
			if _, there := body[name]; there && !slices.Contains(respelled, name) {
				keep = false
			} else {
				respelled = append(respelled, name)
			}
		case schema.Elem != nil:
			field = *schema.Elem
		default:
			field = anySchema
			if schema.Kind == Object {
				s.drifted(name)
			}
		}
		s.path = append(s.path, name)
		value, err := s.value(&field, s.dec.PeekKind())
		if err != nil {
			return nil, err
		}
		s.path = s.path[:len(s.path)-1]
		if keep {
			body[name] = value
		}
	}
	return body, s.leave()
}

func (s *shaper) list(schema *Schema) (any, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	elem := schema.Elem
	if elem == nil || schema.Kind != List {
		elem = &anySchema
	}
	s.path = append(s.path, "[]")
	list := []any{}
	for {
		kind := s.dec.PeekKind()
		if kind == jsontext.KindEndArray {
			break
		}
		value, err := s.value(elem, kind)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	s.path = s.path[:len(s.path)-1]
	if err := s.leave(); err != nil {
		return nil, err
	}
	switch {
	case schema.Kind == List || schema.Kind == Any:
	case (schema.Kind == Object || schema.Kind == Map) && len(list) == 0 && s.depth > 0:
		// Senders whose language has one type for both write an empty object so.
		return map[string]any{}, nil
	default:
		s.drifted("")
	}
	return list, nil
}

func (s *shaper) enter() error {
	if s.depth++; s.depth > maxBodyDepth {
		return errTooDeep
	}
	_, err := s.dec.ReadToken()
	return err
}

func (s *shaper) leave() error {
	s.depth--
	_, err := s.dec.ReadToken()
	return err
}

// drifted notes the present path, with name below it unless that is "".
func (s *shaper) drifted(name string) {
	if len(s.drift) == maxDriftPaths {
		return
	}
	var b strings.Builder
	for _, p := range append(s.path, name) {
		if b.Len() > 0 && p != "[]" && p != "" {
			b.WriteByte('.')
		}
		// Keys can be as long as the body, and come once for each field below.
		b.WriteString(p[:min(len(p), maxDriftPath+1)])
		if b.Len() > maxDriftPath {
			break
		}
	}
	path := b.String()
	if len(path) > maxDriftPath {
		path = strings.ToValidUTF8(path[:maxDriftPath], "")
	}
	if path != "" && !slices.Contains(s.drift, path) {
		s.drift = append(s.drift, path)
	}
}

// name gives the text of a key.
func (s *shaper) name(raw []byte) string {
	inner, ok := plainText(raw)
	if !ok || len(inner) == 0 || len(inner) > 64 {
		return unquote(raw)
	}
	slot := &s.names[(len(inner)*31+int(inner[0])*7+int(inner[len(inner)/2])*17+int(inner[len(inner)-1]))%len(s.names)]
	if *slot != string(inner) {
		*slot = string(inner)
	}
	return *slot
}

// unquote gives the text of a JSON string that is known to be sound, without
// NUL, which Postgres cannot keep in a text.
func unquote(raw []byte) string {
	if inner, ok := plainText(raw); ok {
		return string(inner)
	}
	// The error can only be about bytes that are not UTF-8: those are replaced.
	text, _ := jsontext.AppendUnquote(nil, raw)
	return string(bytes.ReplaceAll(text, []byte{0}, nil))
}

// plainText gives what is between the quotes where it stands for itself.
func plainText(raw []byte) ([]byte, bool) {
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' || c >= utf8.RuneSelf {
			return nil, false
		}
	}
	return inner, true
}

func withoutName(names []string, name string) []string {
	if i := slices.Index(names, name); i >= 0 {
		return slices.Delete(names, i, i+1)
	}
	return names
}

func bodyError(raw []byte, offset int64, err error) *BodyError {
	e := &BodyError{Offset: offset}
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Offset, e.Reason = int64(len(raw)), "the body ends in the middle of a value"
	case errors.As(err, &syntactic):
		e.Offset, e.Reason = syntactic.ByteOffset, syntactic.Err.Error()
	default:
		e.Reason = err.Error()
	}
	before := raw[:min(max(e.Offset, 0), int64(len(raw)))]
	e.Line = 1 + bytes.Count(before, []byte("\n"))
	e.Col = 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return e
}
