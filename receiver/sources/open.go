package sources

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"partnersync/internal/diag"
	"partnersync/mappers"
)

// Unknown is the type of an event that neither URL nor body tells.
const Unknown = "unknown"

// Envelope is what is known of one event from its URL and body.
type Envelope struct {
	Type         string // canonical; the name in the URL, cleaned, where it is not known; or Unknown
	Known        bool   // the source describes the type
	Entity       string // kind and id of what the event is about, "deal:deal_1"; "" if it cannot be told
	OccurredAt   time.Time
	Rank         int
	Text         []byte         // the JSON of it as it came, to be stored; nil where the body cannot be read
	Payload      []byte         // the JSON object, without the envelope around it
	Body         map[string]any // the payload, shaped
	Drift        []string       // paths of the payload that the schema does not know, or of another kind
	Ignored      string         // why the source's `ignore` leaves the event out
	Malformed    *Malformed     // the body is no JSON object; Payload and Body are empty then
	Empty        bool           // nothing in it, or the sender's test: not an event
	HintMismatch bool           // the body names another type than the URL
}

// Malformed says where and why a body is not a JSON object.
type Malformed = mappers.BodyError

// shape is a rule that tells the type of a body by what it holds.
type shape struct {
	has, lacks []string
	when       *expression
	always     bool // there is no when
	event      *Event
}

type shaping struct {
	Has   []string  `yaml:"has,required,single"`
	Lacks []string  `yaml:"lacks,single"`
	When  diag.Node `yaml:"when"`
	Type  diag.Node `yaml:"type,required"`
}

func (s *Source) shape(w shaping, d *diag.Decoding) shape {
	rule := shape{has: w.Has, lacks: w.Lacks, always: !w.When.Exists()}
	if !rule.always {
		rule.when = compile(w.When, mappers.WantBool, s.scope(mappers.Schema{Kind: mappers.Map}), d)
	}
	if w.Type.Exists() {
		name, ok := d.Scalar(w.Type)
		if rule.event = s.Events[name]; rule.event == nil && ok {
			d.Errorf(w.Type, diag.OneOf(name, s.EventNames()), "unknown event %q", name)
		}
	}
	return rule
}

// Open reads the envelope of a POST. urlEvent is the event that the URL names,
// or "". Open never fails: what cannot be read is told in the Envelope.
func (s *Source) Open(urlEvent string, body []byte) Envelope {
	payload := withoutMark(body)
	if len(bytes.TrimSpace(payload)) == 0 {
		return Envelope{Type: s.typeOfURL(urlEvent), Empty: true}
	}
	var event *Event
	if named := s.Find(urlEvent); len(named) == 1 {
		event = named[0]
	}
	o, err := s.unwrap(payload, event)
	if err == nil {
		if at, reason := unsound(payload); reason != "" {
			err = malformedAt(payload, at, reason)
		}
	}
	if err != nil {
		var malformed *Malformed
		if !errors.As(err, &malformed) {
			malformed = &Malformed{Line: 1, Col: 1, Reason: "the body cannot be read"}
		}
		malformed.Offset += int64(len(body) - len(payload))
		return s.malformed(urlEvent, malformed)
	}
	e := Envelope{Text: body, Payload: o.payload, Empty: len(o.body) == 0 || slices.Contains(s.tests, o.hint)}
	named := s.Find(urlEvent)
	hinted := s.Find(o.hint)
	e.HintMismatch = len(named) > 0 && len(hinted) > 0 && !overlap(named, hinted)
	if urlEvent == "" {
		named = hinted
	}
	if event == nil {
		if event = s.choose(named, o.body); event == nil && urlEvent == "" {
			event = s.recognise(o.body)
		}
		if event != nil {
			// Read without a schema so far.
			o.body, o.drift, _ = mappers.Shape(o.payload, &event.Schema)
		}
	}
	e.Body, e.Drift = o.body, o.drift
	if event == nil {
		e.Type, e.Drift = s.typeOfURL(urlEvent), nil
	} else {
		e.Type, e.Known, e.Rank = event.Name, true, event.Rank
		vars := map[string]any{"event": e.Body}
		e.Entity = entity(event.kind, event.entity.text(vars))
		var told bool
		if e.OccurredAt, told = event.occurredAt.time(vars); !told && len(e.Drift) == 0 {
			// It comes in order of arrival, which somebody should know.
			e.Drift = event.occurredAt.compiled.Paths()
		}
	}
	e.Ignored = s.ignored(&e)
	return e
}

// OpenQuery reads the envelope of a GET: the query parameters, without the
// token, are the payload.
func (s *Source) OpenQuery(urlEvent string, q url.Values) Envelope {
	q = s.parameters(q)
	for name, values := range q {
		if !utf8.ValidString(name + strings.Join(values, "")) {
			return s.Unread(urlEvent, errors.New("the parameters are not UTF-8"))
		}
	}
	if len(q) == 0 {
		return Envelope{Type: s.typeOfURL(urlEvent), Empty: true}
	}
	return s.Open(urlEvent, object(q))
}

// QueryBody gives the parameters of a GET as the body of a form.
func (s *Source) QueryBody(q url.Values) []byte { return []byte(s.parameters(q).Encode()) }

// parameters are those of a query without the token.
func (s *Source) parameters(q url.Values) url.Values {
	if len(s.verify.tokens) > 0 && s.verify.header == "" {
		q = maps.Clone(q)
		delete(q, "token")
	}
	return q
}

// Shape gives the shaped payload of a stored body, with the envelope around it
// or without, and its drift. The error is a *Malformed.
func (s *Source) Shape(typ string, body []byte) (map[string]any, []string, error) {
	o, err := s.unwrap(withoutMark(body), s.Events[typ])
	if err != nil {
		return nil, nil, err
	}
	if s.Events[typ] == nil {
		o.drift = nil
	}
	return o.body, o.drift, nil
}

// opened is a payload with what stood around it.
type opened struct {
	payload []byte
	body    map[string]any
	drift   []string
	hint    string
}

// unwrap shapes a body by the schema of event, which may be nil, and takes one
// envelope off.
func (s *Source) unwrap(raw []byte, event *Event) (opened, error) {
	var schema *mappers.Schema
	if event != nil {
		schema = &event.Schema
	}
	body, drift, err := mappers.Shape(raw, schema)
	if err != nil {
		return opened{}, err
	}
	o := opened{payload: raw, body: body, drift: drift}
	if len(s.wrapped) > 0 {
		inside, err := s.inside(raw, body)
		if err != nil {
			return opened{}, err
		}
		if inside != nil {
			o.payload, o.hint = inside, firstText(body, []string{"event", "type"})
			o.body, o.drift, err = mappers.Shape(o.payload, schema)
			return o, err
		}
	}
	o.hint = firstText(body, s.hints)
	return o, nil
}

// inside gives the payload in an envelope, or nil where there is no envelope. It may be
// JSON in a text where the source names the place of the payload.
func (s *Source) inside(raw []byte, body map[string]any) ([]byte, error) {
	var at any = body
	for _, name := range s.wrapped {
		object, _ := at.(map[string]any)
		at = object[name]
	}
	switch v := at.(type) {
	case map[string]any:
		if len(s.wrapped) == 1 && len(body) > 1 && firstText(body, []string{"event", "type"}) == "" {
			return nil, nil // it may be a field of the payload itself
		}
		for _, name := range s.wrapped {
			raw = member(raw, name)
		}
		return raw, nil
	case string:
		if text := []byte(v); s.inText && plain(text) && len(text) > 0 {
			if at, reason := unsound(text); reason != "" {
				return nil, malformedAt(text, at, reason)
			}
			return text, nil
		}
	}
	return nil, nil
}

// choose gives the one event of several with the same alias that the shape of a
// body tells, else the first.
func (s *Source) choose(named []*Event, body map[string]any) *Event {
	if len(named) > 1 {
		if event := s.recognise(body); slices.Contains(named, event) {
			return event
		}
	}
	if len(named) > 0 {
		return named[0]
	}
	return nil
}

// recognise tells an event by the shape of an unshaped body, or gives nil.
func (s *Source) recognise(body map[string]any) *Event {
	for _, rule := range s.shapes {
		if rule.fits(body) {
			return rule.event
		}
	}
	return nil
}

func (rule *shape) fits(body map[string]any) bool {
	for _, path := range rule.has {
		if present, _ := mappers.Carries(body, path); !present {
			return false
		}
	}
	for _, path := range rule.lacks {
		if present, _ := mappers.Carries(body, path); present {
			return false
		}
	}
	return rule.always || rule.when.holds(map[string]any{"event": body})
}

func (s *Source) ignored(e *Envelope) string {
	if len(s.ignore) == 0 {
		return ""
	}
	hook := map[string]any{"type": e.Type, "source": s.Name}
	if !e.OccurredAt.IsZero() {
		hook["occurred_at"] = e.OccurredAt
	}
	vars := map[string]any{"event": e.Body, "hook": hook}
	for _, rule := range s.ignore {
		if rule.when.holds(vars) {
			return rule.reason
		}
	}
	return ""
}

// typeOfURL is the type that a URL's name gives before the body is known.
func (s *Source) typeOfURL(name string) string {
	if named := s.Find(name); len(named) > 0 {
		return named[0].Name
	}
	if strings.ContainsAny(name, "@%&\\＠") {
		return Unknown // no event is called so; it may be somebody's address
	}
	if name = fold(name); name == "" {
		return Unknown
	}
	return name
}

const maxEntity = 200 // bytes

// entity joins kind and id. A long one keeps its beginning and a hash of all,
// so that two stay two.
func entity(kind, id string) string {
	if id == "" {
		return ""
	}
	text := kind + ":" + strings.ToValidUTF8(id, "\uFFFD")
	if len(text) <= maxEntity {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	cut := maxEntity - 1 - 2*len(sum)/2
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "~" + hex.EncodeToString(sum[:len(sum)/2])
}

// withoutMark removes a byte order mark.
func withoutMark(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\uFEFF")) }

// firstText gives the first of the names that holds a text.
func firstText(body map[string]any, names []string) string {
	for _, name := range names {
		if text, ok := body[name].(string); ok {
			return text
		}
	}
	return ""
}

// member gives the JSON of a top-level member of an object that is known to be
// sound; of several of one name the last, as Shape does.
func member(raw []byte, name string) []byte {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var found []byte
	if _, err := decoder.ReadToken(); err != nil {
		return nil
	}
	for decoder.PeekKind() == jsontext.KindString {
		key, err := decoder.ReadToken()
		if err != nil {
			return nil
		}
		is := strings.ReplaceAll(key.String(), "\x00", "") == name
		value, err := decoder.ReadValue()
		if err != nil {
			return nil
		}
		if is {
			end := decoder.InputOffset()
			found = raw[end-int64(len(value)) : end]
		}
	}
	return found
}

func overlap(a, b []*Event) bool {
	return slices.ContainsFunc(a, func(e *Event) bool { return slices.Contains(b, e) })
}
