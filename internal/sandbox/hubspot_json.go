package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// batchInput is the body of every batch endpoint for objects.
type batchInput struct {
	Inputs     []rowInput `json:"inputs"`
	IDProperty optional   `json:"idProperty"`            // of a batch read: for all inputs
	Properties []string   `json:"properties"`            // of a batch read
	History    []string   `json:"propertiesWithHistory"` // of a batch read
}

// rowInput is one record to write or to read. The same type is the body of the single endpoints.
type rowInput struct {
	ID           optional           `json:"id"`
	IDProperty   optional           `json:"idProperty"`
	Trace        optional           `json:"objectWriteTraceId"`
	Properties   pairs              `json:"properties"`
	Associations []associationInput `json:"associations"`
}

// associationInput is a link in the body of a create, or an input of an association batch.
type associationInput struct {
	From  reference         `json:"from"`
	To    reference         `json:"to"`
	Types []associationSpec `json:"types"`
}

type reference struct {
	ID optional `json:"id"`
}

type associationSpec struct {
	Category string `json:"associationCategory"`
	TypeID   int    `json:"associationTypeId"`
}

// optional is a string that may be null or absent, but nothing else.
type optional struct {
	value string
	set   bool
}

// pairs are property values in the order of the body. A null is refused here, as a number is.
type pairs []pair

type pair struct{ name, value string }

// wrongType is a JSON value of a kind that the API does not take.
type wrongType struct {
	want   string
	kind   jsontext.Kind
	offset int64
}

func (e *wrongType) Error() string {
	return fmt.Sprintf("Cannot deserialize value of type `%s` from %s value", e.want, kindName(e.kind))
}

func (o *optional) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	switch token.Kind() {
	case 'n':
	case '"':
		*o = optional{value: token.String(), set: true}
	default:
		return &wrongType{want: "java.lang.String", kind: token.Kind(), offset: d.InputOffset()}
	}
	return nil
}

func (p *pairs) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	if token.Kind() != '{' {
		return &wrongType{want: "java.util.Map", kind: token.Kind(), offset: d.InputOffset()}
	}
	out := make(pairs, 0, 8)
	for d.PeekKind() != '}' {
		token, err = d.ReadToken()
		if err != nil {
			return err
		}
		name := token.String() // before the next token, which shares its buffer
		if token, err = d.ReadToken(); err != nil {
			return err
		}
		if token.Kind() != '"' {
			return &wrongType{want: "java.lang.String", kind: token.Kind(), offset: d.InputOffset()}
		}
		out = append(out, pair{name, token.String()})
	}
	_, err = d.ReadToken()
	*p = out
	return err
}

// get returns the value of a property and whether it is there.
func (p pairs) get(name string) (string, bool) {
	i := slices.IndexFunc(p, func(q pair) bool { return q.name == name })
	if i < 0 {
		return "", false
	}
	return p[i].value, true
}

// decode reads a body, or says what is wrong with it the way HubSpot's parser does.
func decode(body []byte, v any) *problem {
	err := json.Unmarshal(body, v, jsontext.AllowInvalidUTF8(true))
	if err == nil {
		return nil
	}
	var (
		wrong    *wrongType
		semantic *json.SemanticError
		syntax   *jsontext.SyntacticError
	)
	switch {
	case errors.As(err, &wrong):
		return notJSON(body, wrong.offset, wrong.Error())
	case errors.As(err, &syntax):
		return notJSON(body, syntax.ByteOffset, "Unexpected character or end of input")
	case errors.As(err, &semantic):
		wrong = &wrongType{want: fmt.Sprint(semantic.GoType.Kind()), kind: semantic.JSONKind}
		return notJSON(body, semantic.ByteOffset, wrong.Error())
	}
	return notJSON(body, 0, "Unexpected character or end of input")
}

func notJSON(body []byte, offset int64, what string) *problem {
	before := body[:min(max(offset, 0), int64(len(body)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return validation("Invalid input JSON on line %d, column %d: %s", line, column, what)
}

func missingFields(names ...string) *problem {
	return validation("Invalid input JSON on line 1, column 2: Some required fields were not set: %v", names)
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "Null"
	case 't', 'f':
		return "Boolean"
	case '"':
		return "String"
	case '0':
		return "Number"
	case '[':
		return "Array"
	}
	return "Object"
}

// view is one record as a reply shows it.
type view struct {
	id       string
	created  time.Time
	updated  time.Time
	values   []viewValue
	modified string // the name of the property with the time of the last change
	upserted bool   // tells whether it is new
	isNew    bool
	trace    string
}

type viewValue struct {
	name  string
	value string
	null  bool
}

// appendView writes by hand: a batch has a hundred of these, and the benchmark measures us along with what it is after.
func appendView(b []byte, v *view) []byte {
	var buffer [2][32]byte
	created := appendTime(buffer[0][:0], v.created)
	updated := created
	if !v.updated.Equal(v.created) {
		updated = appendTime(buffer[1][:0], v.updated)
	}
	b = append(b, `{"id":"`...)
	b = append(b, v.id...)
	b = append(b, `","properties":{"createdate":`...)
	b = append(b, created...)
	b = append(b, `,"hs_object_id":"`...)
	b = append(b, v.id...)
	b = append(b, `","`...)
	b = append(b, v.modified...)
	b = append(b, `":`...)
	b = append(b, updated...)
	for _, p := range v.values {
		b = append(b, ',')
		b = appendString(b, p.name)
		b = append(b, ':')
		if p.null {
			b = append(b, "null"...)
		} else {
			b = appendString(b, p.value)
		}
	}
	b = append(b, `},"createdAt":`...)
	b = append(b, created...)
	b = append(b, `,"updatedAt":`...)
	b = append(b, updated...)
	b = append(b, `,"archived":false`...)
	if v.upserted {
		b = append(b, `,"new":`...)
		b = strconv.AppendBool(b, v.isNew)
	}
	if v.trace != "" {
		b = append(b, `,"objectWriteTraceId":`...)
		b = appendString(b, v.trace)
	}
	return append(b, '}')
}

// appendBatch writes the reply of a batch; numErrors and errors are there only when there are some.
func appendBatch(b []byte, now time.Time, views []view, failed []errorRow) []byte {
	b = append(b, `{"completedAt":`...)
	b = appendTime(b, now)
	b = append(b, `,"status":"COMPLETE","startedAt":`...)
	b = appendTime(b, now)
	b = append(b, `,"results":[`...)
	for i := range views {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendView(b, &views[i])
	}
	b = append(b, ']')
	if len(failed) > 0 {
		b = append(b, `,"errors":`...)
		b = append(b, encode(failed)...)
		b = append(b, `,"numErrors":`...)
		b = strconv.AppendInt(b, int64(len(failed)), 10)
	}
	return append(b, '}')
}

const hubspotTime = "2006-01-02T15:04:05.000Z"

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, hubspotTime)
	return append(b, '"')
}

func appendString(b []byte, s string) []byte {
	// The error is about invalid UTF-8, which it replaces all the same.
	b, _ = jsontext.AppendQuote(b, s)
	return b
}
