package sinks

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"partnersync/internal/secret"
)

// redactor hides the secrets of a sink, those included that it learns on the
// way, such as access tokens.
type redactor struct {
	mu      sync.Mutex
	secrets []secret.String
	current atomic.Pointer[secret.Redactor]
}

// maxLearned bounds what is kept: old access tokens are worth nothing.
const maxLearned = 64

func (r *redactor) learn(secrets ...secret.String) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range secrets {
		if !s.Empty() {
			r.secrets = append(r.secrets, s)
		}
	}
	if extra := len(r.secrets) - maxLearned; extra > 0 {
		// The first are those of the description.
		r.secrets = append(r.secrets[:maxLearned/2], r.secrets[maxLearned/2+extra:]...)
	}
	r.current.Store(secret.NewRedactor(r.secrets...))
}

// Redact hides every known secret in text.
func (r *redactor) Redact(text string) string { return r.current.Load().Redact(text) }

// hide adds a text to the secrets of the description.
func (desc *Description) hide(text string) { desc.secrets = append(desc.secrets, secret.New(text)) }

// collectSecrets gathers what no message and no page may show.
func (desc *Description) collectSecrets() {
	a := &desc.auth
	desc.secrets = append(desc.secrets, a.secrets()...)
	for _, s := range a.secrets() { // as they stand in the form of a request for a token
		if text := url.QueryEscape(s.Reveal()); text != s.Reveal() && len(text) < 1000 {
			desc.hide(text)
		}
	}
	if a.Style == "header" && !a.ClientSecret.Empty() {
		pair := url.QueryEscape(a.ClientID) + ":" + url.QueryEscape(a.ClientSecret.Reveal())
		desc.hide(base64.StdEncoding.EncodeToString([]byte(pair)))
	}
	if a.Type == "basic" {
		desc.hide(base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password.Reveal())))
	}
	if desc.sign != nil {
		desc.secrets = append(desc.secrets, desc.sign.Secret)
	}
	for _, ways := range desc.operations {
		for _, o := range ways {
			for _, h := range append(o.headers, o.query...) {
				if h.value.secret {
					desc.hide(h.value.parts[0].text)
				}
			}
		}
	}
}

// show puts the header on a preview that apply would put on a request.
func (a *authenticator) show(h http.Header) {
	r := a.rules
	switch r.Type {
	case "none":
	case "header":
		h.Set(r.Header, "<secret>")
	case "basic":
		h.Set("Authorization", "Basic <secret>")
	default:
		h.Set("Authorization", cmp.Or(r.Scheme, "Bearer")+" <secret>")
	}
}
