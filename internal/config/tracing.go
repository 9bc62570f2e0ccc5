package config

import (
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
)

// Tracing says where the traces of events are exported to.
type Tracing struct {
	Endpoint string                   `yaml:"endpoint"` // of a collector that takes OpenTelemetry's OTLP over HTTP; empty: none are exported
	Headers  map[string]secret.String `yaml:"headers"`  // of the requests to it
	Sample   float64                  `yaml:"sample"`   // the part that is exported of the traces that begin here; 1
	Service  string                   `yaml:"service"`  // the name that they carry; partnersync
}

// check looks at the section as it is written, n.
func (t *Tracing) check(n diag.Node, d *diag.Decoding) {
	const hint = "write http://host:4318; `/v1/traces` follows by itself"
	if at := n.Get("endpoint"); t.Endpoint != "" && t.Endpoint != Unset {
		switch u, err := url.Parse(t.Endpoint); {
		case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
			d.Errorf(at, hint, "tracing.endpoint is not an http or https URL")
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			d.Errorf(at, "credentials go into tracing.headers: `headers: {Authorization: \"${NAME}\"}`", "tracing.endpoint may have a host and a path and nothing else")
		}
	}
	// A key that is not written has its default.
	if at := n.Get("sample"); at.Exists() && !(t.Sample >= 0 && t.Sample <= 1) {
		d.Errorf(at, "from 0 to 1: 0.1 exports one trace in ten", "tracing.sample is out of range")
	}
	if at := n.Get("service"); at.Exists() && strings.TrimSpace(t.Service) == "" {
		d.Errorf(at, "", "tracing.service is empty")
	}
	for _, e := range n.Get("headers").Entries() {
		name := e.Key.Text()
		switch value := t.Headers[name].Reveal(); {
		case !httpguts.ValidHeaderFieldName(name):
			d.Errorf(e.Key, "such as Authorization", "%q cannot name a header", name)
		case value == "":
			d.Errorf(e.Value, "is the environment variable set?", "the header %s is empty", name)
		case !httpguts.ValidHeaderFieldValue(value):
			d.Errorf(e.Value, "", "the value of the header %s has a line break or another character that a header cannot have", name)
		}
	}
	if !n.Get("endpoint").Exists() && len(n.Entries()) > 0 {
		d.Errorf(n, "add the collector: `endpoint: http://collector:4318`", "tracing does nothing without tracing.endpoint")
	}
}
