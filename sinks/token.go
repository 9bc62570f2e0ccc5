package sinks

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"partnersync/internal/secret"
)

// TokenStore keeps what a sink learnt from its token endpoint, so that a restart
// need not ask again: some lock out who asks often, and some give a refresh token
// only once. What is stored is secret: who implements it encrypts it. Load returns
// nothing where nothing is stored.
type TokenStore interface {
	Load(ctx context.Context) ([]byte, error)
	Save(ctx context.Context, data []byte) error
}

// storedToken is what a TokenStore keeps.
type storedToken struct {
	For       string    `json:"for"` // the credentials that it was given for
	Token     string    `json:"token,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	Refresh   string    `json:"refresh,omitzero"`
	Base      string    `json:"base,omitzero"`       // the address that came with it
	Account   string    `json:"account,omitzero"`    // that it is of
	NotBefore time.Time `json:"not_before,omitzero"` // the endpoint wants to be left alone until then
}

// authenticator puts credentials on requests. It fetches one token at a time.
type authenticator struct {
	rules  *authRules
	base   address
	client *http.Client
	time   time.Duration // for one fetch
	now    func() time.Time
	learn  func(...secret.String)
	store  TokenStore      // may be nil
	failed func(err error) // told of a store that fails

	fetches atomic.Int64 // how often the endpoint was asked

	mu      sync.Mutex
	loaded  bool
	state   storedToken
	refusal error // what came of the last time; nil where that was a token
}

// tokenExpiry is how long before its end a token is not used any more.
const tokenExpiry = 10 * time.Second

func newAuthenticator(s *Sink, o Options) *authenticator {
	a := &authenticator{
		rules: &s.desc.auth, base: s.desc.base, client: plainClient(s.client.retry.HTTPClient.Transport), time: s.desc.timeout, now: s.now,
		learn: s.redactor.learn, store: o.Tokens, failed: o.Observer.Tokens,
	}
	a.client.Timeout = s.desc.timeout
	a.state.Refresh = a.rules.RefreshToken.Reveal()
	return a
}

// apply sets the header. It returns the token used, for forget, and the
// address that came with it, if any. The error is that of fetching a token.
func (a *authenticator) apply(ctx context.Context, h http.Header) (token, base string, err error) {
	r := a.rules
	switch r.Type {
	case "bearer":
		h.Set("Authorization", cmp.Or(r.Scheme, "Bearer")+" "+r.Token.Reveal())
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
	token, base, err = a.current(ctx)
	if err != nil {
		return "", "", err
	}
	h.Set("Authorization", cmp.Or(r.Scheme, "Bearer")+" "+token)
	return token, base, nil
}

// forget drops a token that was refused, unless a newer one is there already.
func (a *authenticator) forget(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.Token == token {
		a.state.Token = ""
	}
}

// current returns a token that lives, fetched if need be. Who waits for another's
// fetch shares what comes of it.
func (a *authenticator) current(ctx context.Context) (token, base string, err error) {
	return a.after(ctx, a.fetches.Load())
}

// after is current for somebody who knows of so many fetches.
func (a *authenticator) after(ctx context.Context, seen int64) (token, base string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fetches.Load() != seen && a.refusal != nil {
		return "", "", a.refusal
	}
	a.load(ctx)
	if a.state.Token != "" && (a.state.Expires.IsZero() || a.now().Add(tokenExpiry).Before(a.state.Expires)) {
		return a.state.Token, a.state.Base, nil
	}
	if wait := a.state.NotBefore.Sub(a.now()); wait > 0 {
		return "", "", &shutOut{wait}
	}
	fetch, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, a.client), a.time)
	defer cancel()
	t, err := a.fetch(fetch)
	if err == nil && t.AccessToken == "" {
		err = errors.New("oauth2: no access token")
	}
	base, err = a.baseOf(t, err)
	if err != nil {
		if ctx.Err() == nil { // else it says nothing to the others
			a.fetches.Add(1)
			a.refusal = err
		}
		return "", "", err
	}
	a.fetches.Add(1)
	a.refusal = nil
	a.learn(secret.New(t.AccessToken), secret.New(t.RefreshToken))
	a.state.Token, a.state.Expires, a.state.NotBefore = t.AccessToken, a.expiry(t), time.Time{}
	a.state.Base, a.state.Account = base, a.rules.account(t)
	a.state.Refresh = cmp.Or(t.RefreshToken, a.state.Refresh)
	a.save(ctx)
	return a.state.Token, a.state.Base, nil
}

// errForeign is the error of a token that came with an address elsewhere.
var errForeign = errors.New("the address that came with the token is not one of the target's")

// baseOf is the address that came with a token, "" where none did. An answer chooses no host that the description
// does not admit: the rows would go there, and the token with them.
func (a *authenticator) baseOf(t *oauth2.Token, err error) (string, error) {
	if err != nil || a.rules.BaseURLFrom == "" {
		return "", err
	}
	base, _ := t.Extra(a.rules.BaseURLFrom).(string)
	if base == "" {
		return "", nil
	}
	other, ok := parseAddress(base)
	if !ok || !a.rules.admits(a.base, other) {
		return "", errForeign
	}
	return base, nil
}

// account tells which account the credentials are of, as the answer with the token had it; "" where it had not.
func (a *authenticator) account(ctx context.Context) (string, error) {
	if a.rules.AccountFrom == nil || !a.rules.renewable() {
		return "", nil
	}
	if _, _, err := a.current(ctx); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Account, nil
}

// expiry is when a token ends; zero where nobody says.
func (a *authenticator) expiry(t *oauth2.Token) time.Time {
	if t.Expiry.IsZero() {
		return time.Time{}
	}
	return a.now().Add(time.Until(t.Expiry))
}

// leaveAlone notes that the token endpoint wants no request for some time.
func (a *authenticator) leaveAlone(ctx context.Context, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.NotBefore = a.now().Add(wait)
	a.save(ctx)
}

// shutOut is the error of a token that is not asked for yet.
type shutOut struct{ wait time.Duration }

func (e *shutOut) Error() string { return "the token endpoint wants to be left alone" }

// load takes over what is stored, once. Without it a token is fetched.
func (a *authenticator) load(ctx context.Context) {
	if a.loaded || a.store == nil {
		return
	}
	data, err := a.store.Load(ctx)
	if err != nil {
		a.complain(err)
		return
	}
	a.loaded = true
	if len(data) == 0 {
		return
	}
	var s storedToken
	if err := json.Unmarshal(data, &s); err != nil {
		a.complain(errors.New("the stored token cannot be read"))
		return
	}
	if s.For != a.fingerprint() {
		return // that of other credentials
	}
	if other, ok := parseAddress(s.Base); s.Base != "" && (!ok || !a.rules.admits(a.base, other)) {
		s.Token = "" // the description admits its address no more
	}
	s.Refresh = cmp.Or(s.Refresh, a.state.Refresh)
	a.state = s
	a.learn(secret.New(s.Token), secret.New(s.Refresh))
}

func (a *authenticator) save(ctx context.Context) {
	if a.store == nil {
		return
	}
	a.state.For = a.fingerprint()
	data, err := json.Marshal(a.state)
	if err == nil {
		// A refresh token that is lost cannot be had again: saving does not stop with the request.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.time)
		defer cancel()
		err = a.store.Save(ctx, data)
	}
	if err != nil {
		a.complain(err)
	}
}

func (a *authenticator) complain(err error) {
	if a.failed != nil {
		a.failed(err)
	}
}

// fingerprint tells credentials apart without telling them.
func (a *authenticator) fingerprint() string {
	r := a.rules
	h := sha256.New()
	for _, part := range []string{
		r.Type, r.tokenURL, r.ClientID, r.ClientSecret.Reveal(), r.RefreshToken.Reveal(), r.Username, r.PrivateKey.Reveal(),
	} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
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
		return c.TokenSource(ctx, &oauth2.Token{RefreshToken: a.state.Refresh}).Token()
	}
	c := jwt.Config{
		Email: r.ClientID, Subject: r.Username, PrivateKey: []byte(r.PrivateKey.Reveal()), TokenURL: r.tokenURL,
		Audience: r.Audience, Scopes: r.scopes, Expires: 3 * time.Minute,
	}
	return c.TokenSource(ctx).Token()
}
