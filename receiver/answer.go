package receiver

import (
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"partnersync/receiver/sources"
)

// answer is what the sender gets, and how it is counted.
type answer struct {
	code   int
	result result
	id     uuid.UUID // uuid.Nil: nothing is stored
	status string
	error  string             // one sentence
	at     *sources.Malformed // where the body cannot be read
	limit  int64              // of a body that is larger
	events []answer           // where the body is a list: of each
}

const (
	// methods are those of the protocol; whether a GET may carry an event is the
	// source's choice.
	methods = "GET, HEAD, POST"
	// retryAfter is in seconds. A commit takes milliseconds, so what cannot be
	// stored now meets an outage or an overload.
	retryAfter = "5"
)

func (a *answer) write(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	switch a.code {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfter)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", methods)
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="hooks"`)
	case http.StatusUnsupportedMediaType:
		h.Set("Accept-Encoding", "gzip, deflate")
	}
	w.WriteHeader(a.code)
	_, _ = w.Write(a.json()) // a sender that is gone has no use for it
}

// json is one object on one line.
func (a *answer) json() []byte {
	b := make([]byte, 0, 256)
	return append(a.appendJSON(b), '\n')
}

func (a *answer) appendJSON(b []byte) []byte {
	b = append(b, '{')
	begun := len(b)
	field := func(name string) {
		if len(b) > begun {
			b = append(b, ',')
		}
		b = appendQuoted(b, name)
		b = append(b, ':')
	}
	if a.id != uuid.Nil {
		field("id")
		b = appendQuoted(b, a.id.String())
	}
	if a.status != "" {
		field("status")
		b = appendQuoted(b, a.status)
	}
	if a.error != "" {
		field("error")
		b = appendQuoted(b, a.error)
	}
	if a.at != nil {
		field("line")
		b = strconv.AppendInt(b, int64(a.at.Line), 10)
		field("column")
		b = strconv.AppendInt(b, int64(a.at.Col), 10)
		field("reason")
		b = appendQuoted(b, a.at.Reason)
	}
	if a.limit != 0 {
		field("limit")
		b = strconv.AppendInt(b, a.limit, 10)
	}
	if a.events != nil {
		field("events")
		b = append(b, '[')
		for i := range a.events {
			if i > 0 {
				b = append(b, ',')
			}
			b = a.events[i].appendJSON(b)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}
