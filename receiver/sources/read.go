package sources

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/text/encoding/htmlindex"

	"partnersync/mappers"
)

// What one request may hold. No honest one comes near.
const (
	MaxEvents    = 1000 // in one body
	maxFields    = 1000 // of a form
	maxEncodings = 3    // of a body, one around the other
)

var (
	// ErrTooMany says that a body holds more than MaxEvents events.
	ErrTooMany = errors.New("the body holds more than 1000 events")
	// ErrEncoding says that a body is compressed in a way that is not known, ErrBroken that
	// it cannot be inflated.
	ErrEncoding = errors.New("its compression is not known")
	ErrBroken   = errors.New("what is compressed is broken")
)

// Inflate takes the compression off a body: what Content-Encoding lists, unless
// something on the way has taken it off already, and gzip that nobody has named.
// read reads to the end, within the limits of the caller; its error is returned as it
// is. With any other error the body is returned as far as it could be inflated.
func Inflate(body []byte, contentEncoding []string, read func(io.Reader) ([]byte, error)) ([]byte, error) {
	var names []string
	for name := range strings.SplitSeq(strings.Join(contentEncoding, ","), ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" && name != "identity" {
			names = append(names, name)
		}
	}
	if len(names) > maxEncodings {
		return body, ErrEncoding
	}
	for _, name := range slices.Backward(names) {
		var err error
		switch {
		case plain(body):
			return body, nil
		case name == "gzip" || name == "x-gzip":
			if gzipped(body) {
				body, err = inflate(body, func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }, read)
			}
		case name == "deflate" && zlibbed(body):
			body, err = inflate(body, func(r io.Reader) (io.ReadCloser, error) { return zlib.NewReader(r) }, read)
		case name == "deflate": // as some senders understand it
			body, err = inflate(body, func(r io.Reader) (io.ReadCloser, error) { return flate.NewReader(r), nil }, read)
		default:
			err = ErrEncoding
		}
		if err != nil {
			return body, err
		}
	}
	if gzipped(body) && len(names) < maxEncodings {
		return inflate(body, func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }, read)
	}
	return body, nil
}

// plain reports whether a body begins as JSON does, and nothing that is compressed.
func plain(body []byte) bool {
	body = bytes.TrimLeft(withoutMark(body), " \t\r\n")
	return len(body) == 0 || body[0] == '{' || body[0] == '['
}

func gzipped(body []byte) bool { return len(body) > 1 && body[0] == 0x1f && body[1] == 0x8b }

func zlibbed(body []byte) bool {
	return len(body) > 1 && body[0]&0x0f == 8 && (int(body[0])<<8|int(body[1]))%31 == 0
}

func inflate(body []byte, open func(io.Reader) (io.ReadCloser, error), read func(io.Reader) ([]byte, error)) ([]byte, error) {
	z, err := open(bytes.NewReader(body))
	if err != nil {
		return body, ErrBroken
	}
	watched := &watch{from: z}
	inflated, err := read(watched)
	switch {
	case watched.failed:
		return body, ErrBroken
	case err != nil:
		return body, err
	}
	return inflated, nil
}

// watch tells a reader's own error from that of who reads it.
type watch struct {
	from   io.Reader
	failed bool
}

func (w *watch) Read(b []byte) (int, error) {
	n, err := w.from.Read(b)
	w.failed = err != nil && err != io.EOF
	return n, err
}

// Reading is what a body holds.
type Reading struct {
	Text    []byte     // all of it as JSON in UTF-8: the body itself, or a copy; nil where that cannot be told
	Events  []Envelope // at least one; what cannot be read is one that says so
	Several bool       // it is a list, and each of its elements is an event by itself
}

// Read reads the events of a POST whose compression is off. The body may be in the
// charset that contentType names, in UTF-16, or a form. The error is ErrTooMany.
func (s *Source) Read(urlEvent string, body []byte, contentType string) (Reading, error) {
	text, bad := s.text(body, contentType)
	if bad != nil {
		return Reading{Events: []Envelope{s.malformed(urlEvent, bad)}}, nil
	}
	parts, several, bad, err := split(text)
	switch {
	case err != nil:
		return Reading{}, err
	case bad != nil:
		return Reading{Text: text, Events: []Envelope{s.malformed(urlEvent, bad)}}, nil
	case !several:
		return Reading{Text: text, Events: []Envelope{s.Open(urlEvent, text)}}, nil
	}
	r := Reading{Text: text, Several: true}
	for _, part := range parts {
		e := s.Open(urlEvent, text[part.from:part.to:part.to])
		switch {
		case e.Malformed != nil:
			bad = malformedAt(text, part.from+int(e.Malformed.Offset), e.Malformed.Reason)
			return Reading{Text: text, Events: []Envelope{s.malformed(urlEvent, bad)}}, nil
		case !e.Empty:
			r.Events = append(r.Events, e)
		}
	}
	if len(r.Events) == 0 {
		return Reading{Text: text, Events: []Envelope{{Type: s.typeOfURL(urlEvent), Empty: true}}}, nil
	}
	return r, nil
}

// Unread is the Envelope of a body that cannot be read for a reason that is not in its
// text.
func (s *Source) Unread(urlEvent string, reason error) Envelope {
	return s.malformed(urlEvent, &Malformed{Line: 1, Col: 1, Reason: reason.Error()})
}

func (s *Source) malformed(urlEvent string, m *Malformed) Envelope {
	return Envelope{Type: s.typeOfURL(urlEvent), Known: len(s.Find(urlEvent)) == 1, Malformed: m}
}

// text gives a body as JSON in UTF-8.
func (s *Source) text(body []byte, contentType string) ([]byte, *Malformed) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil && kind == "" {
		kind = strings.ToLower(strings.TrimSpace(contentType))
	}
	charset := strings.Trim(parameters["charset"], " \"'")
	if kind == "application/x-www-form-urlencoded" && !plain(body) {
		return s.form(body, charset)
	}
	return decode(body, charset)
}

// decode gives a text in UTF-8. Nothing of it is replaced.
func decode(body []byte, charset string) ([]byte, *Malformed) {
	if order := utf16Order(body, charset); order != nil {
		return decodeUTF16(body, order)
	}
	switch strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return body, nil // Open looks at it
	}
	encoding, err := htmlindex.Get(charset)
	if err != nil {
		return nil, &Malformed{Line: 1, Col: 1, Reason: "its charset is not known"}
	}
	decoder := encoding.NewDecoder()
	text, err := decoder.Bytes(body)
	if at := bytes.Index(text, []byte("\uFFFD")); at >= 0 || err != nil {
		return nil, malformedAt(text, max(at, 0), "this is no character of its charset")
	}
	return text, nil
}

// utf16Order tells by a mark, by the charset, or by where the zeros of the first
// character are, that a text is UTF-16, and in which order its bytes stand.
func utf16Order(body []byte, charset string) func(a, b byte) uint16 {
	little := func(a, b byte) uint16 { return uint16(a) | uint16(b)<<8 }
	big := func(a, b byte) uint16 { return uint16(b) | uint16(a)<<8 }
	if len(body) < 2 {
		return nil
	}
	charset = strings.ToLower(charset)
	switch {
	case body[0] == 0xff && body[1] == 0xfe:
		return little
	case body[0] == 0xfe && body[1] == 0xff:
		return big
	case body[0] != 0 && body[1] == 0, charset == "utf-16le":
		return little
	case body[0] == 0 && body[1] != 0, charset == "utf-16be", charset == "utf-16":
		return big
	}
	return nil
}

func decodeUTF16(body []byte, unit func(a, b byte) uint16) ([]byte, *Malformed) {
	text := make([]byte, 0, len(body)/2+len(body)/4)
	for i := 0; i < len(body); i += 2 {
		if i+1 == len(body) {
			return nil, malformedAt(text, len(text), "the text ends in the middle of a character")
		}
		r := rune(unit(body[i], body[i+1]))
		if utf16.IsSurrogate(r) {
			pair := utf8.RuneError
			if i+3 < len(body) {
				pair = utf16.DecodeRune(r, rune(unit(body[i+2], body[i+3])))
			}
			if pair == utf8.RuneError {
				return nil, malformedAt(text, len(text), "this is no character of its charset")
			}
			r, i = pair, i+2
		}
		text = utf8.AppendRune(text, r)
	}
	return text, nil
}

// form gives the fields of a form as a JSON object. A form of one field, payload, that
// holds JSON is that JSON.
func (s *Source) form(body []byte, charset string) ([]byte, *Malformed) {
	values := url.Values{}
	n := 0
	for at := 0; at < len(body); {
		pair := body[at:]
		if end := bytes.IndexByte(pair, '&'); end >= 0 {
			pair = pair[:end]
		}
		if len(pair) > 0 {
			if n++; n > maxFields {
				return nil, malformedAt(body, at, "the form has more than 1000 fields")
			}
			name, value, _ := strings.Cut(string(pair), "=")
			var texts [2]string
			for i, escaped := range []string{name, value} {
				plain, err := url.QueryUnescape(escaped)
				if err != nil {
					return nil, malformedAt(body, at, "the field of the form is not escaped soundly")
				}
				text, bad := decode([]byte(plain), charset)
				if bad != nil {
					return nil, malformedAt(body, at, bad.Reason)
				}
				if !utf8.Valid(text) {
					return nil, malformedAt(body, at, errNotUTF8)
				}
				texts[i] = string(text)
			}
			values[texts[0]] = append(values[texts[0]], texts[1])
		}
		at += len(pair) + 1
	}
	if payload := values["payload"]; len(values) == 1 && len(payload) == 1 && plain([]byte(payload[0])) {
		return []byte(payload[0]), nil
	}
	return object(values), nil
}

// object writes the fields of a query or a form, which are valid UTF-8, as JSON.
func object(values url.Values) []byte {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	text := []byte("{")
	quoted := func(s string) { text, _ = jsontext.AppendQuote(text, s) }
	for i, name := range names {
		if i > 0 {
			text = append(text, ',')
		}
		quoted(name)
		text = append(text, ':')
		if list := values[name]; len(list) == 1 {
			quoted(list[0])
		} else {
			text = append(text, '[')
			for i, v := range list {
				if i > 0 {
					text = append(text, ',')
				}
				quoted(v)
			}
			text = append(text, ']')
		}
	}
	return append(text, '}')
}

type part struct{ from, to int }

// split takes a list of objects apart. What is no list, or cannot be read, is left to
// Open.
func split(text []byte) (parts []part, several bool, bad *Malformed, err error) {
	if trimmed := bytes.TrimLeft(withoutMark(text), " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '[' {
		return nil, false, nil, nil
	}
	if at, reason := unsound(text); reason != "" {
		return nil, false, malformedAt(text, at, reason), nil
	}
	begin := len(text) - len(withoutMark(text))
	decoder := jsontext.NewDecoder(bytes.NewBuffer(text[begin:]), jsontext.AllowDuplicateNames(true))
	if _, err := decoder.ReadToken(); err != nil {
		return nil, false, nil, nil
	}
	for decoder.PeekKind() != jsontext.KindEndArray {
		isObject := decoder.PeekKind() == jsontext.KindBeginObject
		value, err := decoder.ReadValue()
		if err != nil {
			return nil, false, nil, nil // Shape says where
		}
		to := begin + int(decoder.InputOffset())
		from := to - len(value)
		switch {
		case !isObject:
			return nil, false, malformedAt(text, from, "an element of the list is not a JSON object"), nil
		case len(parts) == MaxEvents:
			return nil, false, nil, ErrTooMany
		}
		parts = append(parts, part{from, to})
	}
	if _, err := decoder.ReadToken(); err != nil {
		return nil, false, nil, nil
	}
	if _, err := decoder.ReadToken(); err != io.EOF {
		return nil, false, nil, nil
	}
	return parts, true, nil, nil
}

const errNotUTF8 = "this is not UTF-8, and no other charset is named"

// unsound finds what would be read as U+FFFD: bytes that are not UTF-8, and escapes of
// half a character.
func unsound(text []byte) (at int, reason string) {
	if !utf8.Valid(text) {
		for at < len(text) {
			r, n := utf8.DecodeRune(text[at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		return at, errNotUTF8
	}
	for rest := text; ; {
		i := bytes.IndexByte(rest, '\\')
		if i < 0 || i+1 >= len(rest) {
			return 0, ""
		}
		rest = rest[i:]
		first, ok := escaped(rest)
		switch {
		case !ok:
			rest = rest[2:]
		case !utf16.IsSurrogate(first):
			rest = rest[6:]
		default:
			second, _ := escaped(rest[6:])
			if utf16.DecodeRune(first, second) == utf8.RuneError {
				return len(text) - len(rest), "this escape is half a character"
			}
			rest = rest[12:]
		}
	}
}

// escaped reads an escape such as \u00e9.
func escaped(text []byte) (r rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// malformedAt says where a body cannot be read.
func malformedAt(text []byte, offset int, reason string) *mappers.BodyError {
	before := text[:min(offset, len(text))]
	return &mappers.BodyError{
		Offset: int64(offset), Reason: reason,
		Line: 1 + bytes.Count(before, []byte("\n")),
		Col:  1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]),
	}
}
