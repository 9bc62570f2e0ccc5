package sinks

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/oauth2"

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
	Params       map[string]string `yaml:"params"`             // further ones of the request for a token
	Style        string            `yaml:"style"`              // where the client's secret goes: body (the default) or header
	BaseURLFrom  string            `yaml:"base_url_from"`      // field of the answer with the token that holds the address to use
	BaseURLIn    []diag.Node       `yaml:"base_url_in,single"` // domains that this address may be in, besides the host of base_url
	AccountFrom  *accountRule      `yaml:"account_from"`       // where the answer with the token names the account
	Self         diag.Node         `yaml:",node"`

	tokenURL string
	scopes   []string
	domains  []string
}

// accountRule finds the account in a field of the answer with the token: the whole of it, or the first group of the pattern.
type accountRule struct {
	Field   string   `yaml:"field,required"`
	Pattern *pattern `yaml:"pattern"`
}

// authNeeds are the types, and the keys that each cannot do without.
var authNeeds = map[string][]string{
	"none":                      nil,
	"bearer":                    {"token"},
	"header":                    {"header", "token"},
	"basic":                     {"username", "password"},
	"oauth2":                    {"client_id"}, // becomes one of the following, by the keys that are there
	"oauth2_client_credentials": {"client_id", "client_secret", "token_url"},
	"oauth2_refresh":            {"client_id", "client_secret", "refresh_token", "token_url"},
	"oauth2_jwt":                {"client_id", "username", "private_key", "token_url", "audience"},
}

// unknownAuth reports keys below the config's own auth that nothing knows, with those of the sink's type for a hint: all
// types together have more than anybody wants to read.
func unknownAuth(user, whole diag.Node, d *diag.Decoding) {
	of := whole.Get("auth").Get("type").Text()
	knows := slices.Clone(authNeeds[of])
	switch {
	case of == "oauth2":
		knows = append(knows, "client_secret", "refresh_token", "username", "private_key")
	case knows == nil:
		return
	}
	// Not those that the preset has.
	knows = slices.DeleteFunc(knows, func(key string) bool {
		return whole.Get("auth").Get(key).Exists() && !user.Get("auth").Get(key).Exists()
	})
	all := diag.KeysOf(authRules{})
	for _, e := range user.Get("auth").Entries() {
		if name := e.Key.Text(); !slices.Contains(all, name) {
			d.Errorf(e.Key, diag.OneOf(name, knows), "unknown key %q", name)
		}
	}
}

// check reports what the type lacks, and compiles the templates.
func (r *authRules) check(desc *Description, user diag.Node, d *diag.Decoding) {
	n := desc.whole.Get("auth")
	if n.Exists() && n.Kind() != diag.Map {
		return // that it has to be one is said already
	}
	if r.Type == "" {
		r.Type = "none"
		if n.Exists() {
			d.Errorf(n, "one of: "+strings.Join(authTypes(), ", "), "auth needs a type")
		}
	}
	if r.Type == "oauth2" {
		r.Type = r.grant(n)
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
	if strings.ContainsFunc(r.Token.Reveal()+r.Scheme, unicode.IsControl) {
		d.Errorf(n.Get("token"), "it is one line, without a line break at its end", "the token has a sign in it that no header can hold")
	}
	if r.PrivateKey.Reveal() != "" && slices.Contains(needs, "private_key") && !isPrivateKey(r.PrivateKey.Reveal()) {
		d.Errorf(n.Get("private_key"), "it is the whole file, from -----BEGIN to the end", "the private key cannot be read")
	}
	if r.TokenURL.Exists() && r.renewable() && r.Tenant == "" && strings.Contains(r.TokenURL.Text(), "auth.tenant") {
		d.Errorf(at, "add auth: {tenant: ...}", "auth of the type %q needs %q", r.Type, "tenant")
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
	texts := func(list []diag.Node) []string {
		var out []string
		for _, n := range list {
			if t := compileTemplate(n, settingsScope(), d); t != nil {
				out = append(out, t.settings(desc))
			}
		}
		return out
	}
	r.scopes, r.domains = texts(r.Scopes), texts(r.BaseURLIn)
}

// admits reports whether requests, and the credentials on them, may go to an address that came with a token.
func (r *authRules) admits(own, other address) bool {
	scheme, _, _ := strings.Cut(other.origin, ":")
	if scheme != "https" && !strings.HasPrefix(own.origin, scheme+":") {
		return false
	}
	host := strings.ToLower(other.host)
	if host == strings.ToLower(own.host) {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return slices.ContainsFunc(r.domains, func(domain string) bool {
		domain = strings.ToLower(strings.Trim(domain, "."))
		return domain != "" && (host == domain || strings.HasSuffix(host, "."+domain))
	})
}

// account reads which account a token is of; "" where its answer does not say.
func (r *authRules) account(t *oauth2.Token) string {
	if r.AccountFrom == nil {
		return ""
	}
	text, _ := t.Extra(r.AccountFrom.Field).(string)
	if p := r.AccountFrom.Pattern; p != nil {
		m := p.FindStringSubmatch(text)
		if m == nil {
			return ""
		}
		text = m[len(m)-1]
	}
	return text
}

func authTypes() []string {
	var names []string
	for name := range authNeeds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// grant is the kind of OAuth 2 that the keys are for.
func (r *authRules) grant(n diag.Node) string {
	switch {
	case n.Get("private_key").Exists():
		return "oauth2_jwt"
	case n.Get("refresh_token").Exists():
		return "oauth2_refresh"
	}
	return "oauth2_client_credentials"
}

func isPrivateKey(text string) bool {
	data := []byte(text)
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	if _, err := x509.ParsePKCS8PrivateKey(data); err == nil {
		return true
	}
	_, err := x509.ParsePKCS1PrivateKey(data)
	return err == nil
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

// refusedToken turns an error of fetching a token into an outcome.
func (s *Sink) refusedToken(ctx context.Context, err error) outcome {
	host := "the token endpoint"
	if u, ok := parseAddress(s.desc.auth.tokenURL); ok {
		host = u.host
	}
	out := outcome{stop: true}
	var shut *shutOut
	if errors.As(err, &shut) {
		out.Class, out.Code, out.RetryAfter = Parked, "token", shut.wait
		out.Message = "not sent: " + host + " wants to be left alone"
		return out
	}
	if errors.Is(err, errForeign) {
		out.Class, out.Code = Held, "token"
		out.Message = "the token from " + host + " came with an address that is neither that of the sink nor in auth.base_url_in"
		return out
	}
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		out.Class = unsent(err)
		out.Message = s.clean(explain(err, host, s.desc.timeout, false))
		switch text := err.Error(); { // of these the library keeps nothing but the words
		case strings.HasPrefix(text, "oauth2: cannot fetch token") && strings.Contains(text, "deadline exceeded"):
			out.Class, out.Message = Timeout, "no answer from "+host+" within "+s.desc.timeout.String()
		case strings.HasPrefix(text, `oauth2: cannot fetch token: Post "`):
			out.Message = "no connection to " + host
		case strings.HasPrefix(text, "oauth2: "):
			out.Class, out.Code, out.Message = Unavailable, unknown, "the answer of "+host+" holds no access token"
		}
		return out
	}
	a := &answer{status: refused.Response.StatusCode, header: refused.Response.Header}
	var o outline
	for _, e := range s.desc.errors.extracts() {
		e.outline(&o)
	}
	for _, name := range []string{"error", "error_description"} {
		o.add(path{{name: name}})
	}
	if tree, err := o.decode(refused.Body); err == nil {
		a.tree, a.json = tree, true
	}
	code, description := refused.ErrorCode, refused.ErrorDescription
	if m, ok := a.tree.(map[string]any); ok && code == "" { // of a JWT the library reads none
		code, _ = m["error"].(string)
		description, _ = m["error_description"].(string)
	}
	a.text = code + " " + description
	v := s.desc.judge(Token, a, s.now(), code)
	if v.class == OK {
		v.class = Held // a success without a token in it
	}
	out.Class, out.Status, out.Code = v.class, a.status, s.clean(code)
	if out.Class == Held {
		out.Refused = "credentials"
	}
	out.RetryAfter = s.pauseOf(v)
	if out.RetryAfter > 0 && (v.class == Parked || v.class == Throttled) {
		s.auth.leaveAlone(ctx, out.RetryAfter)
	}
	out.Message = s.clean("no access token from " + host + ": " + strings.TrimSpace(statusText(a.status)+" "+a.text))
	return out
}
