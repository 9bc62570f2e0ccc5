package sandbox

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// Client is who may fetch tokens of a dialect. What is empty is not checked, but has to be there.
type Client struct {
	ID           string
	Secret       string
	RefreshToken string         // zoho, pipedrive, salesforce
	Username     string         // salesforce: the subject of a JWT
	Key          *rsa.PublicKey // salesforce: checks the signature of a JWT
}

// Lockout keeps a client from fetching further tokens once it has fetched Tokens within Per, for a time of For.
type Lockout struct {
	Tokens int
	Per    time.Duration
	For    time.Duration
	Status int // of the refusal; 0: 400, seen as well: 200
}

// ZohoLockout is what others report of Zoho. The numbers are guesses: public write-ups differ.
func ZohoLockout() Lockout { return Lockout{Tokens: 10, Per: 10 * time.Minute, For: 15 * time.Minute} }

// tokens holds the access tokens that were fetched.
type tokens struct {
	mu      sync.Mutex
	issued  map[string]issue // by token
	serial  int
	fetched []time.Time // of the lock-out
	shut    time.Time   // until then nobody fetches
}

type issue struct {
	dialect string
	expires time.Time
}

const jwtGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// ExpireTokens ends the life of every token that was fetched for a dialect; an empty one: of all dialects. A static token
// lives on: SetToken changes that.
func (s *Server) ExpireTokens(dialect string) {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	for token, i := range s.tokens.issued {
		if dialect == "" || dialect == i.dialect {
			i.expires = time.Time{}
			s.tokens.issued[token] = i
		}
	}
}

// admits tells whether a dialect accepts a token: one that was fetched has to live, any other to be the static one.
func (s *Server) admits(dialect, token string) bool {
	if token == "" {
		return false
	}
	s.tokens.mu.Lock()
	i, fetched := s.tokens.issued[token]
	s.tokens.mu.Unlock()
	if fetched {
		return i.dialect == dialect && s.options.Now().Before(i.expires)
	}
	want := *s.token.Load()
	return want == "" || token == want
}

// issue makes a token that lives for as long as the options say, or otherwise.
func (s *Server) issue(dialect, format string, otherwise time.Duration) (token string, life time.Duration) {
	life = s.options.TokenLife[dialect]
	if life <= 0 {
		life = otherwise
	}
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	s.tokens.serial++
	token = fmt.Sprintf(format, s.tokens.serial)
	if s.tokens.issued == nil {
		s.tokens.issued = map[string]issue{}
	}
	s.tokens.issued[token] = issue{dialect: dialect, expires: s.options.Now().Add(life)}
	return token, life
}

// locksOut counts a fetch and tells whether it comes too often. A refused one does not count.
func (s *Server) locksOut() bool {
	l := s.options.Lockout
	if l.Tokens <= 0 {
		return false
	}
	now := s.options.Now()
	t := &s.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.shut) {
		return true
	}
	t.fetched = slices.DeleteFunc(t.fetched, func(at time.Time) bool { return !at.After(now.Add(-l.Per)) })
	if len(t.fetched) >= l.Tokens {
		t.shut = now.Add(l.For)
		return true
	}
	t.fetched = append(t.fetched, now)
	return false
}

// forgive ends a lock-out.
func (t *tokens) forgive() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fetched, t.shut = nil, time.Time{}
}

// form reads the fields of a token request, from the body and, as some clients send them, from the query.
func form(c *call) url.Values {
	values, err := url.ParseQuery(string(c.body))
	if err != nil || values == nil {
		values = url.Values{}
	}
	for name, v := range c.query {
		if _, has := values[name]; !has {
			values[name] = v
		}
	}
	return values
}

// clientOf takes the client's credentials from the header, else from the form.
func clientOf(c *call, f url.Values) (id, secret string, header bool) {
	if id, secret, ok := (&http.Request{Header: c.header}).BasicAuth(); ok {
		return id, secret, true
	}
	return f.Get("client_id"), f.Get("client_secret"), false
}

// knows tells whether a credential is there and, where the options say which it is, the right one.
func knows(got, want string) bool { return got != "" && (want == "" || got == want) }

// bearer takes a token out of the Authorization header.
func bearer(c *call, scheme string) string {
	given, token, _ := strings.Cut(c.header.Get("Authorization"), " ")
	if !strings.EqualFold(given, scheme) {
		return ""
	}
	return strings.TrimSpace(token)
}

// jwtClaims are those of a JWT that asks for a token.
type jwtClaims struct {
	Issuer   string  `json:"iss"`
	Subject  string  `json:"sub"`
	Audience any     `json:"aud"`
	Expires  float64 `json:"exp"`
}

// readJWT takes a signed token apart and checks its signature where the key is known.
func readJWT(assertion string, key *rsa.PublicKey) (jwtClaims, bool) {
	var (
		header struct {
			Algorithm string `json:"alg"`
		}
		claims jwtClaims
	)
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return claims, false
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !readPart(parts[0], &header) || header.Algorithm != "RS256" || !readPart(parts[1], &claims) {
		return claims, false
	}
	if key != nil {
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) != nil {
			return claims, false
		}
	}
	return claims, true
}

func readPart(part string, v any) bool {
	b, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(b, v) == nil
}
