package sinks

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
)

// authRules say how requests are authenticated.
type authRules struct {
	Type         string            `yaml:"type"`
	Scheme       string            `yaml:"scheme"` // before the token; Bearer where it is not set
	Header       string            `yaml:"header"` // of the type header
	Token        secret.String     `yaml:"token"`
	Username     string            `yaml:"username"`
	Password     secret.String     `yaml:"password"`
	ClientID     string            `yaml:"client_id"`
	ClientSecret secret.String     `yaml:"client_secret"`
	RefreshToken secret.String     `yaml:"refresh_token"`
	PrivateKey   secret.String     `yaml:"private_key"`
	Tenant       string            `yaml:"tenant"`
	TokenURL     diag.Node         `yaml:"token_url"`
	Scopes       []diag.Node       `yaml:"scopes,single"`
	Audience     string            `yaml:"audience"`
	Params       map[string]string `yaml:"params"`        // further ones of the request for a token
	Style        string            `yaml:"style"`         // where the client's secret goes: body (the default) or header
	BaseURLFrom  string            `yaml:"base_url_from"` // field of the answer with the token that holds the address to use
	Self         diag.Node         `yaml:",node"`

	tokenURL string
	scopes   []string
}

// authNeeds are the types, and the keys that each cannot do without.
var authNeeds = map[string][]string{
	"none":                      nil,
	"bearer":                    {"token"},
	"header":                    {"header", "token"},
	"basic":                     {"username", "password"},
	"oauth2_client_credentials": {"client_id", "client_secret", "token_url"},
	"oauth2_refresh":            {"client_id", "client_secret", "refresh_token", "token_url"},
	"oauth2_jwt":                {"client_id", "username", "private_key", "token_url", "audience"},
}

// check reports what the type lacks, and compiles the templates.
func (r *authRules) check(desc *Description, user diag.Node, d *diag.Decoding) {
	n := desc.whole.Get("auth")
	if r.Type == "" {
		r.Type = "none"
		if n.Exists() {
			d.Errorf(n, "one of: "+strings.Join(authTypes(), ", "), "auth needs a type")
		}
	}
	needs, known := authNeeds[r.Type]
	if !known {
		d.Errorf(n.Get("type"), diag.OneOf(r.Type, authTypes()), "unknown auth type %q", r.Type)
		return
	}
	at := n
	if own := user.Get("auth"); own.Exists() {
		at = own
	} else if p := user.Get("preset"); p.Exists() {
		at = p
	}
	for _, key := range needs {
		value := n.Get(key)
		switch {
		case !value.Exists():
			d.Errorf(at, "add auth: {"+key+": ...}", "auth of the type %q needs %q", r.Type, key)
		case r.empty(key):
			d.Errorf(value, "set the variable that it comes from", "%q of auth is empty", key)
		}
	}
	if r.Style != "" && r.Style != "body" && r.Style != "header" {
		d.Errorf(n.Get("style"), "one of: body, header", "unknown style %q", r.Style)
	}
	if r.TokenURL.Exists() {
		if t := compileTemplate(r.TokenURL, settingsScope(), d); t != nil {
			r.tokenURL = t.settings(desc)
			if _, ok := parseAddress(r.tokenURL); !ok && desc.base.origin != "" {
				d.Errorf(r.TokenURL, "write it as https://host/path", "%q is no address", r.tokenURL)
			}
		}
	}
	for _, s := range r.Scopes {
		if t := compileTemplate(s, settingsScope(), d); t != nil {
			r.scopes = append(r.scopes, t.settings(desc))
		}
	}
}

func authTypes() []string {
	var names []string
	for name := range authNeeds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (r *authRules) empty(key string) bool {
	switch key {
	case "token":
		return r.Token.Empty()
	case "password":
		return r.Password.Empty()
	case "client_secret":
		return r.ClientSecret.Empty()
	case "refresh_token":
		return r.RefreshToken.Empty()
	case "private_key":
		return r.PrivateKey.Empty()
	case "username":
		return r.Username == ""
	case "client_id":
		return r.ClientID == ""
	case "header":
		return r.Header == ""
	}
	return false
}

func (r *authRules) secrets() []secret.String {
	return []secret.String{r.Token, r.Password, r.ClientSecret, r.RefreshToken, r.PrivateKey}
}

// renewable reports whether a refused token can be replaced by a new one.
func (r *authRules) renewable() bool { return strings.HasPrefix(r.Type, "oauth2_") }

// authenticator puts credentials on requests. It fetches one token at a time.
type authenticator struct {
	rules  *authRules
	client *http.Client
	time   time.Duration // for one fetch

	mu      sync.Mutex
	token   *oauth2.Token
	refresh string
	learn   func(...secret.String)
}

func newAuthenticator(r *authRules, transport http.RoundTripper, timeout time.Duration, learn func(...secret.String)) *authenticator {
	return &authenticator{
		rules: r, client: plainClient(transport), time: timeout, refresh: r.RefreshToken.Reveal(), learn: learn,
	}
}

// apply sets the header. It returns the token used, for forget, and the
// address that came with it, if any. The error is that of fetching a token.
func (a *authenticator) apply(ctx context.Context, h http.Header) (token, base string, err error) {
	r := a.rules
	switch r.Type {
	case "bearer":
		h.Set("Authorization", orDefault(r.Scheme, "Bearer")+" "+r.Token.Reveal())
		return "", "", nil
	case "header":
		value := r.Token.Reveal()
		if r.Scheme != "" {
			value = r.Scheme + " " + value
		}
		h.Set(r.Header, value)
		return "", "", nil
	case "basic":
		pair := r.Username + ":" + r.Password.Reveal()
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
		return "", "", nil
	case "none":
		return "", "", nil
	}
	t, err := a.current(ctx)
	if err != nil {
		return "", "", err
	}
	h.Set("Authorization", orDefault(r.Scheme, "Bearer")+" "+t.AccessToken)
	if r.BaseURLFrom != "" {
		base, _ = t.Extra(r.BaseURLFrom).(string)
	}
	return t.AccessToken, base, nil
}

// forget drops a token that was refused, unless a newer one is there already.
func (a *authenticator) forget(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token != nil && a.token.AccessToken == token {
		a.token = nil
	}
}

func (a *authenticator) current(ctx context.Context) (*oauth2.Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token.Valid() {
		return a.token, nil
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, a.client), a.time)
	defer cancel()
	t, err := a.fetch(ctx)
	if err != nil {
		return nil, err
	}
	a.learn(secret.New(t.AccessToken), secret.New(t.RefreshToken))
	if t.RefreshToken != "" {
		a.refresh = t.RefreshToken
	}
	a.token = t
	return t, nil
}

func (a *authenticator) fetch(ctx context.Context) (*oauth2.Token, error) {
	r := a.rules
	style := oauth2.AuthStyleInParams
	if r.Style == "header" {
		style = oauth2.AuthStyleInHeader
	}
	params := url.Values{}
	for name, value := range r.Params {
		params.Set(name, value)
	}
	switch r.Type {
	case "oauth2_client_credentials":
		c := clientcredentials.Config{
			ClientID: r.ClientID, ClientSecret: r.ClientSecret.Reveal(), TokenURL: r.tokenURL, Scopes: r.scopes,
			EndpointParams: params, AuthStyle: style,
		}
		return c.Token(ctx)
	case "oauth2_refresh":
		c := oauth2.Config{
			ClientID: r.ClientID, ClientSecret: r.ClientSecret.Reveal(), Scopes: r.scopes,
			Endpoint: oauth2.Endpoint{TokenURL: r.tokenURL, AuthStyle: style},
		}
		return c.TokenSource(ctx, &oauth2.Token{RefreshToken: a.refresh}).Token()
	}
	c := jwt.Config{
		Email: r.ClientID, Subject: r.Username, PrivateKey: []byte(r.PrivateKey.Reveal()), TokenURL: r.tokenURL,
		Audience: r.Audience, Scopes: r.scopes, Expires: 3 * time.Minute,
	}
	return c.TokenSource(ctx).Token()
}

// refusedToken turns an error of fetching a token into an outcome.
func (s *Sink) refusedToken(err error) outcome {
	host := "the token endpoint"
	if u, ok := parseAddress(s.desc.auth.tokenURL); ok {
		host = u.host
	}
	out := outcome{stop: true}
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		out.Class = Network
		if isTimeout(err) {
			out.Class = Timeout
		}
		out.Message = s.clean(explain(err, host, s.desc.timeout, false))
		return out
	}
	a := &answer{status: refused.Response.StatusCode, header: refused.Response.Header}
	var o outline
	for _, e := range s.desc.errors.extracts() {
		e.outline(&o)
	}
	if tree, err := o.decode(refused.Body); err == nil {
		a.tree, a.json = tree, true
	}
	a.text = refused.ErrorCode + " " + refused.ErrorDescription
	v := s.desc.judge(Token, a, s.now(), refused.ErrorCode)
	if v.class == OK {
		v.class = Held // a success without a token in it
	}
	out.Class, out.Status, out.Code = v.class, a.status, refused.ErrorCode
	out.RetryAfter = s.pauseOf(v)
	out.Message = s.clean("no access token from " + host + ": " + strings.TrimSpace(statusText(a.status)+" "+a.text))
	return out
}
