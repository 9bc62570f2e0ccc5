package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/config"
)

func TestTracing(t *testing.T) {
	t.Parallel()
	const collector = "endpoint: http://collector:4318, "
	type settings struct {
		Endpoint string
		Headers  map[string]string
		Sample   float64
		Service  string
	}
	for _, tt := range []struct {
		name string
		give string // below tracing
		want settings
		err  string
	}{
		{name: "nothing", give: "", want: settings{Sample: 1, Service: "partnersync"}},
		{name: "an endpoint", give: "endpoint: https://traces.example/otlp", want: settings{"https://traces.example/otlp", nil, 1, "partnersync"}},
		{name: "off by a variable", give: "endpoint: '${UNSET:-}', sample: 0.5", want: settings{Sample: 0.5, Service: "partnersync"}},
		{name: "all", give: collector + "headers: {Authorization: '${TOKEN}', X-Team: blue}, sample: 0.1, service: hooks",
			want: settings{"http://collector:4318", map[string]string{"Authorization": "Bearer abcdef", "X-Team": "blue"}, 0.1, "hooks"}},
		{name: "none of the traces", give: collector + "sample: 0", want: settings{"http://collector:4318", nil, 0, "partnersync"}},
		{name: "no scheme", give: "endpoint: collector:4318", err: "config.yaml:1:21: tracing.endpoint is not an http or https URL"},
		{name: "grpc", give: "endpoint: grpc://collector:4317", err: "config.yaml:1:21: tracing.endpoint is not an http or https URL"},
		{name: "no host", give: "endpoint: 'http://'", err: "config.yaml:1:21: tracing.endpoint is not an http or https URL"},
		{name: "a password", give: "endpoint: http://me:hush-hush@collector:4318", err: "config.yaml:1:21: tracing.endpoint may have a host and a path and nothing else"},
		{name: "a query", give: "endpoint: 'http://collector:4318?key=hush-hush'", err: "config.yaml:1:21: tracing.endpoint may have a host and a path and nothing else"},
		{name: "more than all", give: collector + "sample: 1.5", err: "config.yaml:1:52: tracing.sample is out of range"},
		{name: "less than nothing", give: collector + "sample: -0.1", err: "config.yaml:1:52: tracing.sample is out of range"},
		{name: "no number", give: collector + "sample: NaN", err: "config.yaml:1:52:"},
		{name: "no name", give: collector + "service: ' '", err: "config.yaml:1:53: tracing.service is empty"},
		{name: "an empty header", give: collector + "headers: {Authorization: '${UNSET:-}'}", err: "config.yaml:1:69: the header Authorization is empty"},
		{name: "no header", give: collector + "headers: {'a b': x}", err: `config.yaml:1:54: "a b" cannot name a header`},
		{name: "two lines", give: collector + `headers: {A: "hush-hush\nB: x"}`, err: "config.yaml:1:57: the value of the header A has a line break"},
		{name: "a mistyped key", give: collector + "sampling: 0.1", err: `unknown key "sampling"`},
		{name: "without an endpoint", give: "sample: 0.1", err: "tracing does nothing without tracing.endpoint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			getenv := func(name string) (string, bool) { return "Bearer abcdef", name == "TOKEN" }
			c, problems := config.Parse("config.yaml", []byte("tracing: {"+tt.give+"}\n"), config.Options{Getenv: getenv})
			if tt.err != "" {
				if c != nil || !strings.Contains(problems.Error(), tt.err) || strings.Contains(problems.Error(), "hush") {
					t.Errorf("got %v", problems)
				}
				return
			}
			if c == nil {
				t.Fatal(problems)
			}
			got := settings{c.Tracing.Endpoint, nil, c.Tracing.Sample, c.Tracing.Service}
			for name, value := range c.Tracing.Headers {
				if got.Headers == nil {
					got.Headers = map[string]string{}
				}
				got.Headers[name] = value.Reveal()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if n := len(c.Secrets()) - 3; n != len(tt.want.Headers) {
				t.Errorf("%d headers are hidden, of %d", n, len(tt.want.Headers))
			}
		})
	}
}
