package receiver

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"partnersync/internal/secret"
)

// The longest texts that are kept, in bytes.
const (
	maxType   = 100
	maxEntity = 200
	maxReason = 500
	maxHeader = 300
)

// clean makes a text one that Postgres takes: valid UTF-8 without NUL, at most
// limit bytes, cut between characters.
func clean(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	// A part of a longer text would keep all of it in memory.
	return strings.Clone(s[:limit])
}

// kept are the headers that are stored: those that help to follow a request, none
// that proves who sent it.
func kept() []header {
	var list []header
	for _, name := range []string{"content-type", "user-agent", "x-request-id", "x-correlation-id", "traceparent",
		"webhook-id", "webhook-timestamp", "idempotency-key"} {
		list = append(list, header{name, http.CanonicalHeaderKey(name)})
	}
	return list
}

type header struct{ name, canonical string }

// eventHeader stands among the headers of a body that cannot be read, with the event
// that the URL names. No header has such a name.
const eventHeader = ":event"

// keepHeaders writes those of a request as a JSON object, or gives nil when it has
// none of them.
func keepHeaders(list []header, h http.Header) []byte {
	var object []byte
	for _, k := range list {
		if values := h[k.canonical]; len(values) > 0 {
			object = appendHeader(object, k.name, values[0])
		}
	}
	return closeObject(object)
}

// captureHeaders keeps all headers, for a source that is only looked at: its
// signature headers too, but no secret and no value that looks like a credential.
func captureHeaders(h http.Header, redact *secret.Redactor) []byte {
	var object []byte
	for name, values := range h {
		name = strings.ToLower(name)
		value := redact.Redact(strings.Join(values, ", "))
		if credential(name) {
			value = "<secret>"
		}
		object = appendHeader(object, name, value)
	}
	return closeObject(object)
}

func credential(name string) bool {
	for _, part := range []string{"auth", "cookie", "token", "secret", "password", "key"} {
		if strings.Contains(name, part) && name != "idempotency-key" {
			return true
		}
	}
	return false
}

func appendHeader(object []byte, name, value string) []byte {
	if object == nil {
		object = append(make([]byte, 0, 256), '{')
	} else {
		object = append(object, ',')
	}
	object = appendQuoted(object, clean(name, maxHeader))
	object = append(object, ':')
	return appendQuoted(object, clean(value, maxHeader))
}

func closeObject(object []byte) []byte {
	if object == nil {
		return nil
	}
	return append(object, '}')
}

// appendQuoted writes s as JSON. Broken UTF-8 is replaced, which is all that the
// error of AppendQuote says.
func appendQuoted(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}
