package sinks

import (
	"strings"
	"testing"

	"partnersync/internal/sandbox"
)

// The scopes that are missing are named, where they stand in the words and where they stand apart, of a request and of a row.
func TestMissingScopesAreNamed(t *testing.T) {
	t.Parallel()
	const words = "One or more of the following scopes are required."
	tests := []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"apart", 403, `{"category":"MISSING_SCOPES","message":"` + words + `","context":{"requiredGranularScopes":["a.read","b.write"]}}`,
			strings.TrimSuffix(words, ".") + ": a.read, b.write"},
		{"in errors", 403, `{"category":"MISSING_SCOPES","message":"x","errors":[{"message":"` + words + `","context":{"requiredGranularScopes":["a.read"]}},{"message":"` + words + `","context":{"requiredGranularScopes":["a.read"]}}]}`,
			words + "; " + strings.TrimSuffix(words, ".") + ": a.read"},
		{"in the words", 403, `{"category":"MISSING_SCOPES","message":"the scope a.read is missing","context":{"requiredGranularScopes":["a.read"]}}`,
			"the scope a.read is missing"},
		{"nowhere", 403, `{"category":"MISSING_SCOPES","message":"` + words + `"}`, words},
		{"of a row", 207, `{"status":"COMPLETE","results":[],"errors":[{"category":"MISSING_SCOPES","message":"no","context":{"objectWriteTraceId":["trace-1"],"requiredGranularScopes":["a.read"]}}]}`,
			"no: a.read"},
	}
	for _, test := range tests {
		srv := answering(t, test.status, nil, test.body)
		s := newSink(t, "preset: hubspot\nbase_url: "+srv.URL+"\nauth: {token: x}\nlimits: []\n", Options{})
		if r := s.Write(within(t), Upsert, []Row{contact("1")})[0]; r.Class != Held || r.Message != test.want || r.Refused != "" {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
}

// Who is held knows what was refused: the token, what it was to be had for, or neither.
func TestWhatWasRefused(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		w.sink.Probe(within(t))
		for status, want := range map[int]string{401: "token", 403: ""} {
			remove := w.Fault(sandbox.Fault{Path: c.api, Effect: sandbox.EffectStatus, Status: status, Body: `{"category":"MISSING_SCOPES"}`})
			if r := w.sink.Write(within(t), Create, c.rows(1))[0]; r.Class != Held || r.Refused != want {
				t.Errorf("%d: %+v", status, r)
			}
			remove()
		}
		if !c.oauth {
			return
		}
		w.ExpireTokens(c.name)
		w.Fault(sandbox.Fault{Path: "/token", Effect: sandbox.EffectStatus, Status: 400, Body: `{"error":"invalid_client"}`})
		if r := w.sink.Write(within(t), Create, c.rows(1))[0]; r.Class != Held || r.Refused != "credentials" {
			t.Errorf("%+v", r)
		}
	})
}
