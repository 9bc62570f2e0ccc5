package otlptest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is what a test asks of a span. Ids are in hexadecimal.
type Span struct {
	Service    string
	Name       string
	Kind       string // server, client, ...
	Trace      string
	ID         string
	Parent     string // "" for none
	Attributes map[string]string
	Links      []string // "trace/span"
	Failed     bool
	Message    string // of a failure
}

// Request is one request to the collector.
type Request struct {
	Path   string
	Header http.Header
}

// Collector takes spans. Close it, as New does at the end of the test.
type Collector struct {
	*httptest.Server

	mu       sync.Mutex
	spans    []Span
	requests []Request
	instead  http.Handler
}

// New returns a collector that serves until the test ends.
func New(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.Close)
	return c
}

// Answer makes the collector answer by h and keep nothing; nil ends that.
func (c *Collector) Answer(h http.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instead = h
}

// Spans are all spans so far, by trace and name.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Clone(c.spans)
	slices.SortStableFunc(list, func(a, b Span) int {
		return strings.Compare(a.Trace+"\x00"+a.Name, b.Trace+"\x00"+b.Name)
	})
	return list
}

// Requests are all requests so far.
func (c *Collector) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

func (c *Collector) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, Request{r.URL.Path, r.Header.Clone()})
	if c.instead != nil {
		c.instead.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &request) != nil {
		http.Error(w, "this is not OTLP", http.StatusBadRequest)
		return
	}
	for _, resource := range request.ResourceSpans {
		service := ""
		for _, a := range resource.Resource.GetAttributes() {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, read(service, s))
			}
		}
	}
}

func read(service string, s *otlp.Span) Span {
	span := Span{
		Service: service, Name: s.Name, Kind: strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_")),
		Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
		Attributes: map[string]string{}, Failed: s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR, Message: s.Status.GetMessage(),
	}
	for _, a := range s.Attributes {
		span.Attributes[a.Key] = a.Value.GetStringValue()
		if span.Attributes[a.Key] == "" {
			span.Attributes[a.Key] = fmt.Sprint(a.Value.GetIntValue())
		}
	}
	for _, l := range s.Links {
		span.Links = append(span.Links, hex.EncodeToString(l.TraceId)+"/"+hex.EncodeToString(l.SpanId))
	}
	return span
}

// String is the span on one line, with its attributes in order, ours without prefix.
func (s Span) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s) %s below %s", s.Name, s.Kind, s.Trace, s.Parent)
	var attributes []string
	for name, value := range s.Attributes {
		attributes = append(attributes, " "+strings.TrimPrefix(name, "partnersync.")+"="+value)
	}
	slices.Sort(attributes)
	b.WriteString(strings.Join(attributes, ""))
	for _, l := range s.Links {
		b.WriteString(" linked to " + l)
	}
	if s.Failed {
		b.WriteString(" failed: " + s.Message)
	}
	return b.String()
}
