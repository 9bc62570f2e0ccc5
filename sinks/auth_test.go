package sinks

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const anyOperation = "operations: {upsert: {path: /records, body: {key: record.key}}}\n"

func TestStaticCredentials(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, auth, header, want string }{
		{"none", "{type: none}", "Authorization", ""},
		{"bearer", "{type: bearer, token: abcdef}", "Authorization", "Bearer abcdef"},
		{"scheme", "{type: bearer, scheme: Key-Token, token: abcdef}", "Authorization", "Key-Token abcdef"},
		{"header", "{type: header, header: x-api-token, token: abcdef}", "X-Api-Token", "abcdef"},
		{"basic", "{type: basic, username: me, password: pass:word}", "Authorization", "Basic bWU6cGFzczp3b3Jk"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tg := answering(t, 200, nil, "{}")
			s := newSink(t, "base_url: "+tg.URL+"\nauth: "+test.auth+"\n"+anyOperation, Options{})
			row := []Row{{Object: "o", Key: "1"}}
			if r := s.Write(within(t), Upsert, row)[0]; r.Class != OK {
				t.Fatalf("%+v", r)
			}
			if got := tg.requests()[0].header.Get(test.header); got != test.want {
				t.Errorf("got %q", got)
			}
			p, err := s.Preview(Upsert, row)
			if err != nil {
				t.Fatal(err)
			}
			if shown := fmt.Sprint(p); strings.Contains(shown, "abcdef") || strings.Contains(shown, "bWU6") {
				t.Errorf("the preview shows the secret: %s", shown)
			}
		})
	}
}

// issuer gives out tokens and counts how often it was asked.
type issuer struct {
	*target
	asked atomic.Int64
	reply func(n int64, form url.Values) (int, string)
}

func newIssuer(t *testing.T, reply func(n int64, form url.Values) (int, string)) *issuer {
	i := &issuer{reply: reply}
	i.target = newTarget(t, func(w http.ResponseWriter, _ *http.Request, body string) {
		form, _ := url.ParseQuery(body)
		status, text := i.reply(i.asked.Add(1), form)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	})
	return i
}

func TestClientCredentials(t *testing.T) {
	t.Parallel()
	var crm *target
	is := newIssuer(t, func(n int64, form url.Values) (int, string) {
		if form.Get("grant_type") != "client_credentials" || form.Get("client_id") != "id" || form.Get("client_secret") != "s3cret" {
			return 400, `{"error":"invalid_client"}`
		}
		return 200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"Bearer","instance_url":%q}`, n, crm.URL)
	})
	var refuse atomic.Value
	refuse.Store("")
	crm = newTarget(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		if r.Header.Get("Authorization") == refuse.Load() {
			w.WriteHeader(401)
			_, _ = io.WriteString(w, `[{"errorCode":"INVALID_SESSION_ID","message":"Session expired or invalid"}]`)
		}
	})
	// The address in the config is not where the token says that the records are.
	s := newSink(t, `
base_url: `+is.URL+`/services
auth:
  type: oauth2_client_credentials
  client_id: id
  client_secret: s3cret
  token_url: "{auth.base_url}/token"
  base_url_from: instance_url
  base_url_in: 127.0.0.1
`+anyOperation, Options{})
	rows := []Row{{Object: "o", Key: "1"}}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if r := s.Write(within(t), Upsert, rows)[0]; r.Class != OK {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	if n := is.asked.Load(); n != 1 {
		t.Errorf("%d tokens for one expiry", n)
	}
	refuse.Store("Bearer token-1")
	if r := s.Write(within(t), Upsert, rows)[0]; r.Class != OK {
		t.Errorf("after the token expired: %+v", r)
	}
	if n := is.asked.Load(); n != 2 {
		t.Errorf("%d tokens", n)
	}
	refuse.Store("Bearer token-3") // the next one too
	s.auth.forget("token-2")
	r := s.Write(within(t), Upsert, rows)[0]
	if r.Class != OK || is.asked.Load() != 4 {
		t.Errorf("one refused token: %+v after %d tokens", r, is.asked.Load())
	}
	if sent := crm.requests()[0]; sent.path != "/services/records" {
		t.Errorf("sent to %s", sent.path)
	}
}

func TestRefusedTwiceIsHeld(t *testing.T) {
	t.Parallel()
	is := newIssuer(t, func(n int64, _ url.Values) (int, string) {
		return 200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"Bearer"}`, n)
	})
	crm := answering(t, 401, nil, `[{"errorCode":"INVALID_SESSION_ID","message":"no token-2 here"}]`)
	s := newSink(t, `
base_url: `+crm.URL+`
error: {code: "[*].errorCode", message: "[*].message"}
auth: {type: oauth2_client_credentials, client_id: id, client_secret: s3cret, token_url: `+is.URL+`/token}
`+anyOperation, Options{})
	r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]
	if r.Class != Held || r.Code != "INVALID_SESSION_ID" || r.Message != "no <secret> here" {
		t.Errorf("%+v", r)
	}
	if is.asked.Load() != 2 || len(crm.requests()) != 2 {
		t.Errorf("%d tokens, %d requests", is.asked.Load(), len(crm.requests()))
	}
}

func TestRefreshToken(t *testing.T) {
	t.Parallel()
	var refreshed []string
	is := newIssuer(t, func(n int64, form url.Values) (int, string) {
		refreshed = append(refreshed, form.Get("refresh_token"))
		return 200, fmt.Sprintf(`{"access_token":"token-%d","refresh_token":"refresh-%d","expires_in":3600}`, n, n)
	})
	crm := answering(t, 200, nil, `{}`)
	s := newSink(t, `
base_url: `+crm.URL+`
auth:
  type: oauth2_refresh
  scheme: Zo-oauthtoken
  style: header
  client_id: id
  client_secret: s3cret
  refresh_token: "${REFRESH}"
  token_url: `+is.URL+`/token
`+anyOperation, Options{})
	rows := []Row{{Object: "o", Key: "1"}}
	s.Write(within(t), Upsert, rows)
	s.auth.forget("token-1")
	s.Write(within(t), Upsert, rows)
	if diff := cmp.Diff([]string{"secret-of-refresh", "refresh-1"}, refreshed); diff != "" {
		t.Errorf("a new refresh token is not used: %s", diff)
	}
	if got := crm.requests()[1].header.Get("Authorization"); got != "Zo-oauthtoken token-2" {
		t.Error(got)
	}
	if got := is.requests()[0].header.Get("Authorization"); !strings.HasPrefix(got, "Basic ") {
		t.Errorf("the client's secret is not in the header: %q", got)
	}
}

func TestTokenRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status int
		body   string
		want   Result
	}{
		{"credentials", 401, `{"error":"invalid_client","error_description":"s3cret-value is wrong"}`,
			Result{Class: Held, Status: 401, Code: "invalid_client", Message: "no access token from HOST: 401 Unauthorized invalid_client <secret> is wrong", Refused: "credentials"}},
		{"an error with status 200", 200, `{"error":"invalid_code"}`,
			Result{Class: Held, Status: 200, Code: "invalid_code", Message: "no access token from HOST: 200 OK invalid_code", Refused: "credentials"}},
		{"too often", 400, `{"error":"Access Denied","error_description":"You have made too many requests continuously"}`,
			Result{Class: Parked, Status: 400, Code: "Access Denied", RetryAfter: defaultPark,
				Message: "no access token from HOST: 400 Bad Request Access Denied You have made too many requests continuously"}},
		{"down", 503, ``, Result{Class: Unavailable, Status: 503, Message: "no access token from HOST: 503 Service Unavailable"}},
		{"throttled", 429, `{}`, Result{Class: Throttled, Status: 429, RetryAfter: defaultThrottle,
			Message: "no access token from HOST: 429 Too Many Requests"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			is := newIssuer(t, func(int64, url.Values) (int, string) { return test.status, test.body })
			crm := answering(t, 200, nil, `{}`)
			s := newSink(t, `
base_url: `+crm.URL+`
auth: {type: oauth2_refresh, client_id: id, client_secret: s3cret-value, refresh_token: r3fresh, token_url: `+is.URL+`/token}
classify:
  - {operations: token, message: too many requests, class: parked, status: 100-599}
`+anyOperation, Options{})
			r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]
			r.Message = strings.ReplaceAll(r.Message, strings.TrimPrefix(is.URL, "http://"), "HOST")
			if diff := cmp.Diff(test.want, r); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(crm.requests()) != 0 {
				t.Error("the request was sent without a token")
			}
		})
	}
}

func TestJWT(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	var claims string
	is := newIssuer(t, func(_ int64, form url.Values) (int, string) {
		parts := strings.Split(form.Get("assertion"), ".")
		if len(parts) == 3 && form.Get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			data, _ := base64.RawURLEncoding.DecodeString(parts[1])
			claims = string(data)
		}
		return 200, `{"access_token":"token-1","token_type":"Bearer"}`
	})
	crm := answering(t, 200, nil, `{}`)
	s := newSink(t, `
base_url: `+crm.URL+`
auth:
  type: oauth2_jwt
  client_id: consumer
  username: me@acme.test
  audience: https://login.example
  token_url: `+is.URL+`/token
  private_key: |
    `+strings.ReplaceAll(text, "\n", "\n    ")+"\n"+anyOperation, Options{})
	if r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]; r.Class != OK {
		t.Fatalf("%+v", r)
	}
	for _, want := range []string{`"iss":"consumer"`, `"sub":"me@acme.test"`, `"aud":"https://login.example"`} {
		if !strings.Contains(claims, want) {
			t.Errorf("the claims %s lack %s", claims, want)
		}
	}
	if got := crm.requests()[0].header.Get("Authorization"); got != "Bearer token-1" {
		t.Error(got)
	}
}
