package sinks

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// whoami tells one account from another.
func TestConformAccount(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{Account: 4711}, "")
		first := w.sink.Probe(within(t))
		if first.Class != OK || first.ID == "" {
			t.Fatalf("%+v", first)
		}
		if again := w.sink.Probe(within(t)); again.ID != first.ID {
			t.Errorf("%q, then %q", first.ID, again.ID)
		}
		w.SetAccount(4712)
		w.ExpireTokens(c.name) // a token is of one account for as long as it lives
		if other := w.sink.Probe(within(t)); other.Class != OK || other.ID == first.ID {
			t.Errorf("another account: %+v", other)
		}
		w.Fault(sandbox.Fault{Path: c.api, Effect: sandbox.EffectStatus, Status: 200, Body: `{"success":true,"active":false}`})
		if c.name == "salesforce" {
			w.Fault(sandbox.Fault{Path: "userinfo", Effect: sandbox.EffectStatus, Status: 200, Body: `{}`})
		}
		if r := w.sink.Probe(within(t)); r.Class == OK {
			t.Errorf("an answer without an account: %+v", r)
		}
	})
}

// A token that ends on the way is renewed once, however many requests need it; a
// static one that is refused holds the sink at once.
func TestConformExpiry(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
			t.Fatalf("%+v", r)
		}
		if !c.oauth {
			w.SetToken("another-token")
			w.sent()
			r := w.sink.Write(within(t), Upsert, c.rows(1))[0]
			if r.Class != Held || r.Status != 401 || len(w.sent()) != 1 {
				t.Errorf("%+v", r)
			}
			checkWords(t, r)
			return
		}
		if n := w.tokens(); n != 1 {
			t.Errorf("%d tokens for the first request", n)
		}
		w.ExpireTokens(c.name)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if r := w.sink.Write(within(t), Upsert, []Row{c.row(fmt.Sprint("late", i))})[0]; r.Class != OK {
					t.Errorf("%+v", r)
				}
			})
		}
		wg.Wait()
		if n := w.tokens(); n != 1 {
			t.Errorf("%d tokens for one expiry", n)
		}
		if r := w.sink.Probe(within(t)); r.Class != OK {
			t.Errorf("%+v", r)
		}
	})
}

// Refused with a new token too: held, after one more token and no further request.
func TestConformRefusedTwice(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		w.sink.Probe(within(t))
		w.tokens()
		w.Fault(sandbox.Fault{Path: c.api, Effect: sandbox.EffectStatus, Status: 401})
		for _, op := range []Operation{Upsert, Create, Find} {
			r := w.sink.Write(within(t), op, c.rows(3))[2]
			if r.Class != Held || r.Status != 401 || r.Sent {
				t.Errorf("%s: %+v", op, r)
			}
			checkWords(t, r)
			want := 1
			if c.oauth {
				want = 2
			}
			w.mu.Lock()
			all := len(w.got)
			w.mu.Unlock()
			if n := len(w.sent()); n != want || all != want+want-1 {
				t.Errorf("%s: %d requests, %d with those for tokens", op, n, all)
			}
		}
	})
}

// A scope or a privilege that is missing holds the sink, and asks for no new token.
func TestConformForbidden(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{MissingScopes: []string{
			"record_permission:read-write", "crm.objects.custom.write", "ZohoCRM.modules.ALL", "prvWritecontact",
		}}, "")
		w.sink.Probe(within(t))
		w.tokens()
		if c.name == "pipedrive" || c.name == "salesforce" || c.name == "hubspot" {
			w.Fault(sandbox.Fault{Path: c.api, Effect: sandbox.EffectStatus, Status: 403})
		}
		r := w.sink.Write(within(t), Upsert, c.rows(1))[0]
		if r.Class != Held || r.Status != 401 && r.Status != 403 || r.Message == "" {
			t.Errorf("%+v", r)
		}
		if n := w.tokens(); n != 0 {
			t.Errorf("%d tokens", n)
		}
	})
}

// Credentials that the token endpoint refuses.
func TestConformWrongCredentials(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		if !c.oauth {
			return
		}
		other := sandbox.Client{ID: clientID, Secret: "the-right-secret", RefreshToken: renewal}
		w := c.open(t, sandbox.Options{Clients: map[string]sandbox.Client{c.name: other}}, "")
		r := w.sink.Write(within(t), Upsert, c.rows(1))[0]
		if r.Class != Held || r.Code == "" || !strings.Contains(r.Message, "no access token from ") {
			t.Errorf("%+v", r)
		}
		checkWords(t, r)
		if len(w.sent()) != 0 {
			t.Error("a request went out without a token")
		}
		for status, want := range map[int]Class{500: Unavailable, 503: Unavailable, 429: Throttled} {
			w.Reset()
			s := c.connect(t, w.url, "", Options{})
			w.Fault(sandbox.Fault{Path: "token", Effect: sandbox.EffectStatus, Status: status, Body: "{}", Header: http.Header{"Retry-After": {"7"}}})
			if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class != want && !(c.name == "salesforce" && status == 429) {
				t.Errorf("%d: %+v", status, r)
			}
		}
		w.Reset()
		s := c.connect(t, w.url, "", Options{})
		w.Fault(sandbox.Fault{Path: "token", Effect: sandbox.EffectReset})
		if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class != Network || r.Sent {
			t.Errorf("%+v", r)
		}
		w.Reset()
		w.Fault(sandbox.Fault{Path: "token", Effect: sandbox.EffectHTML, Status: 200})
		if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class == OK || !strings.Contains(r.Message, "holds no access token") {
			t.Errorf("%+v", r)
		}
	})
}

// Who asks for tokens too often is locked out, and then leaves the endpoint alone.
func TestConformLockout(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 200} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			c := crmNamed("zoho")
			store := &memory{}
			now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
			var mu sync.Mutex
			clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
			lockout := sandbox.ZohoLockout()
			lockout.Tokens, lockout.Status = 2, status
			w := c.openWith(t, sandbox.Options{Lockout: lockout, Now: clock}, "", Options{Now: clock, Tokens: store})
			for range 2 {
				if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
					t.Fatalf("%+v", r)
				}
				w.ExpireTokens(c.name)
			}
			r := w.sink.Write(within(t), Upsert, c.rows(1))[0]
			if r.Class != Parked || r.RetryAfter != 15*time.Minute || r.Status != status {
				t.Fatalf("%+v", r)
			}
			w.tokens()
			restarted := c.connect(t, w.url, "", Options{Now: clock, Tokens: store})
			for _, s := range []*Sink{w.sink, restarted} {
				if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class != Parked || r.RetryAfter != 15*time.Minute || r.Status != 0 {
					t.Errorf("%+v", r)
				}
			}
			if n := w.tokens(); n != 0 {
				t.Errorf("the endpoint was asked %d times while it is shut", n)
			}
			mu.Lock()
			now = now.Add(16 * time.Minute)
			mu.Unlock()
			if r := restarted.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
				t.Errorf("after the lock-out: %+v", r)
			}
		})
	}
}

func crmNamed(name string) *crm {
	for _, c := range crms() {
		if c.name == name {
			return c
		}
	}
	return nil
}

// memory is a TokenStore.
type memory struct {
	mu    sync.Mutex
	data  []byte
	fails error
	saved int
}

func (m *memory) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, m.fails
}

func (m *memory) Save(_ context.Context, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails == nil {
		m.data, m.saved = data, m.saved+1
	}
	return m.fails
}

// Tokens outlive the process, where somebody stores them.
func TestConformTokensAreKept(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		store := &memory{}
		w := c.openWith(t, sandbox.Options{}, "", Options{Tokens: store})
		if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
			t.Fatalf("%+v", r)
		}
		if !c.oauth {
			if store.saved != 0 {
				t.Error("there is no token to store")
			}
			return
		}
		w.tokens()
		again := c.connect(t, w.url, "", Options{Tokens: store})
		if r := again.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK || w.tokens() != 0 {
			t.Errorf("after a restart: %+v", r)
		}
		// One that the CRM has forgotten meanwhile is renewed.
		w.ExpireTokens(c.name)
		restarted := c.connect(t, w.url, "", Options{Tokens: store})
		if r := restarted.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK || w.tokens() != 1 {
			t.Errorf("with an old token: %+v", r)
		}
		// What belongs to other credentials is not used, and neither is rubbish.
		for _, data := range []string{strings.Replace(string(store.data), `"for":"`, `"for":"x`, 1), "rubbish", "{}", ""} {
			var told []error
			s := c.connect(t, w.url, "", Options{Tokens: &memory{data: []byte(data)}, Observer: Observer{Tokens: func(err error) { told = append(told, err) }}})
			if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK || w.tokens() != 1 {
				t.Errorf("%+v", r)
			}
			if (data == "rubbish") != (len(told) == 1) {
				t.Errorf("told %v", told)
			}
		}
		var told []error
		s := c.connect(t, w.url, "", Options{Tokens: &memory{fails: errors.New("away")}, Observer: Observer{Tokens: func(err error) { told = append(told, err) }}})
		if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK || len(told) != 2 {
			t.Errorf("%+v, told %v", r, told)
		}
	})
}

// A refresh token that is given only once must be stored with the access token.
func TestNewRefreshTokenIsKept(t *testing.T) {
	t.Parallel()
	var asked []string
	is := newIssuer(t, func(n int64, form url.Values) (int, string) {
		asked = append(asked, form.Get("refresh_token"))
		return 200, fmt.Sprintf(`{"access_token":"access-%d","refresh_token":"refresh-%d","expires_in":3600}`, n, n)
	})
	crm := answering(t, 200, nil, `{}`)
	config := "base_url: " + crm.URL + "\nauth: {type: oauth2, client_id: id, client_secret: s3cret, refresh_token: \"${REFRESH}\", token_url: " +
		is.URL + "/token}\n" + anyOperation
	store := &memory{}
	now := time.Now()
	for range 3 {
		s := newSink(t, config, Options{Tokens: store, Now: func() time.Time { return now }})
		if r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]; r.Class != OK {
			t.Fatalf("%+v", r)
		}
		now = now.Add(2 * time.Hour)
	}
	if diff := cmp.Diff([]string{"secret-of-refresh", "refresh-1", "refresh-2"}, asked); diff != "" {
		t.Error(diff)
	}
	if s := string(store.data); strings.Contains(s, "s3cret") || strings.Contains(s, "secret-of-refresh") {
		t.Errorf("the credentials of the config are stored as well: %s", s)
	}
}

// Who says with the token where the records are is believed, where the description admits that.
func TestConformAddressOfTheToken(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		token := map[string]string{"salesforce": "services/oauth2/token", "zoho": "oauth/v2/token"}[c.name]
		if token == "" {
			return // it says nothing
		}
		w := c.serve(t, sandbox.Options{})
		config := strings.ReplaceAll(c.config, ", token_url: URL/oauth/v2/token", "")
		config = strings.Replace(config, "}", ", token_url: \""+w.url+"/"+token+"\", base_url_in: 127.0.0.1}", 1)
		s := newSink(t, "preset: "+c.name+"\nbase_url: http://nowhere.invalid/"+c.name+"\n"+config, Options{})
		if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK || w.count() != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// A token that comes with an address elsewhere is not used: neither it nor a row goes there.
func TestConformForeignAddressOfTheToken(t *testing.T) {
	t.Parallel()
	elsewhere := answering(t, 200, nil, `{}`)
	for name, field := range map[string]string{"salesforce": "instance_url", "zoho": "api_domain"} {
		c := crmNamed(name)
		w := c.serve(t, sandbox.Options{})
		w.Fault(sandbox.Fault{Path: "/token", Effect: sandbox.EffectStatus, Status: 200,
			Body: `{"access_token":"stolen","token_type":"Bearer","` + field + `":"` + elsewhere.URL + `"}`})
		store := &memory{}
		s := c.connect(t, w.url, "", Options{Tokens: store})
		for range 2 {
			r := s.Write(within(t), Upsert, c.rows(1))[0]
			if r.Class != Held || r.Sent || !strings.Contains(r.Message, "auth.base_url_in") {
				t.Errorf("%s: %+v", name, r)
			}
			if r := s.Probe(within(t)); r.Class != Held {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if n := len(elsewhere.requests()); n != 0 || w.count() != 0 || strings.Contains(string(store.data), "stolen") {
			t.Errorf("%s: %d requests elsewhere, stored %s", name, n, store.data)
		}
	}
}

func TestAdmits(t *testing.T) {
	t.Parallel()
	rules := &authRules{domains: []string{"salesforce.com", ".zohoapis.eu", ""}}
	for give, want := range map[string]bool{
		"https://acme.my.salesforce.com":         true,
		"https://acme.my.Salesforce.com":         true,
		"https://acme.my.salesforce.com:8443":    true,
		"https://salesforce.com":                 true,
		"https://www.zohoapis.eu":                true,
		"https://own.example":                    true,
		"http://acme.my.salesforce.com":          false, // in the clear
		"http://own.example":                     false,
		"https://notsalesforce.com":              false,
		"https://salesforce.com.evil.example":    false,
		"https://evil.example/salesforce.com":    false,
		"https://evil.example#.salesforce.com":   false,
		"https://a.salesforce.com@evil.example":  false,
		"https://evil.example?x=.salesforce.com": false,
		"https://169.254.169.254":                false,
		"https://":                               false,
		"ftp://acme.my.salesforce.com":           false,
		"acme.my.salesforce.com":                 false,
		"https://evil.example\\.salesforce.com":  false,
	} {
		own, _ := parseAddress("https://own.example/x")
		other, ok := parseAddress(give)
		if got := ok && rules.admits(own, other); got != want {
			t.Errorf("%s: %v", give, got)
		}
	}
}

// Credentials that are good, but not for asking who they are: the target answers, and the writes tell the rest.
// Credentials that are refused are so here as well.
func TestConformWhoamiForbidden(t *testing.T) {
	t.Parallel()
	paths := map[string]string{"attio": "/v2/self", "dataverse": "WhoAmI", "hubspot": "/account-info", "pipedrive": "/users/me",
		"salesforce": "/userinfo", "zoho": "/org"}
	refusals := []struct {
		status int
		body   string
		passes bool
	}{
		{403, `{"status":"error","category":"MISSING_SCOPES","message":"no","code":"NO_PERMISSION","error":"Scope and URL mismatch"}`, true},
		{403, `Bad_OAuth_Token`, true},
		{401, `{"message":"no"}`, false},
		{402, `{"message":"no"}`, false},
		{503, ``, false},
		{429, ``, false},
	}
	eachCRM(t, func(t *testing.T, c *crm) {
		for _, refusal := range refusals {
			if refusal.body == "Bad_OAuth_Token" && c.name != "salesforce" || refusal.status == 402 && c.name != "pipedrive" {
				continue
			}
			w := c.open(t, sandbox.Options{}, "")
			w.Fault(sandbox.Fault{Path: paths[c.name], Effect: sandbox.EffectStatus, Status: refusal.status, Body: refusal.body})
			r := w.sink.Probe(within(t))
			if (r.Class == OK) != refusal.passes {
				t.Errorf("%d %s: %+v", refusal.status, refusal.body, r)
			}
			if r.Class == OK && (r.ID != "") != (c.name == "salesforce") {
				t.Errorf("%d %s: %+v", refusal.status, refusal.body, r)
			}
			w.sink.limiter.blocked = time.Time{}
			if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
				t.Errorf("a write: %+v", r)
			}
		}
	})
}

// The scope that only whoami needs is said to be missing as a refused token is, with 401.
func TestConformScopeOfWhoami(t *testing.T) {
	t.Parallel()
	c := crmNamed("zoho")
	w := c.open(t, sandbox.Options{MissingScopes: []string{"ZohoCRM.org.READ"}}, "")
	if r := w.sink.Probe(within(t)); r.Class != OK || r.ID != "" || r.Status != 401 {
		t.Errorf("%+v", r)
	}
	if r := w.sink.Account(within(t)); r.Class != OK || r.ID != "" {
		t.Errorf("%+v", r)
	}
	if n := w.tokens(); n != 1 {
		t.Errorf("%d tokens", n)
	}
	if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
		t.Errorf("%+v", r)
	}
}

// Where the answer with the token names the account nobody is asked for it, nor after a restart; a probe still
// looks whether the target is there. Both ways give the same.
func TestConformAccountOfTheToken(t *testing.T) {
	t.Parallel()
	c := crmNamed("salesforce")
	store := &memory{}
	w := c.openWith(t, sandbox.Options{Account: 4711}, "", Options{Tokens: store})
	first := w.sink.Account(within(t))
	if first.Class != OK || len(first.ID) != 15 || len(w.sent()) != 0 {
		t.Fatalf("%+v", first)
	}
	again := c.connect(t, w.url, "", Options{Tokens: store})
	if r := again.Account(within(t)); r.ID != first.ID || len(w.sent()) != 0 {
		t.Errorf("after a restart: %+v", r)
	}
	if r := again.Probe(within(t)); r.ID != first.ID || len(w.sent()) != 1 {
		t.Errorf("a probe: %+v", r)
	}
	asked := c.connect(t, w.url, "", Options{})
	asked.desc.auth.AccountFrom = nil
	if r := asked.Account(within(t)); r.ID != first.ID {
		t.Errorf("by whoami: %+v", r)
	}
	w.SetAccount(4712)
	w.ExpireTokens(c.name)
	if r := again.Probe(within(t)); r.Class != OK || r.ID == first.ID {
		t.Errorf("another account: %+v", r)
	}
}

// Some endpoints refuse a token that has ended in words of their own.
func TestConformExpiryAtWhoami(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		w.sink.Probe(within(t))
		w.ExpireTokens(c.name)
		if r := w.sink.Probe(within(t)); r.Class != OK {
			t.Errorf("%+v", r)
		}
	})
}

// A token that is refused with a status of success is renewed as well.
func TestConformRefusedWith200(t *testing.T) {
	t.Parallel()
	c := crmNamed("zoho")
	w := c.open(t, sandbox.Options{}, "")
	w.sink.Probe(within(t))
	w.tokens()
	w.Fault(sandbox.Fault{Path: c.api, Count: 1, Effect: sandbox.EffectStatus, Status: 200, Body: `{"code":"INVALID_TOKEN","details":{},"message":"x","status":"error"}`})
	if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK || w.tokens() != 1 {
		t.Errorf("%+v", r)
	}
}

// Further ways to sign in that the presets take.
func TestConformOtherSignIns(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	tests := []struct{ name, crm, config string }{
		{"JWT", "salesforce", "auth:\n  client_id: " + clientID + "\n  username: me@acme.test\n  private_key: |\n    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"},
		{"refresh token", "salesforce", "auth: {client_id: " + clientID + ", client_secret: " + clientKey + ", refresh_token: " + renewal + "}\n"},
		{"app", "pipedrive", "auth: {type: oauth2_refresh, client_id: " + clientID + ", client_secret: " + clientKey + ", refresh_token: " + renewal + ", token_url: URL/oauth/token}\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := crmNamed(test.crm)
			c.config = test.config
			client := sandbox.Client{ID: clientID, Secret: clientKey, RefreshToken: renewal, Username: "me@acme.test", Key: &key.PublicKey}
			w := c.open(t, sandbox.Options{Clients: map[string]sandbox.Client{test.crm: client}}, "")
			for range 2 {
				if r := w.sink.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK {
					t.Fatalf("%+v", r)
				}
				if r := w.sink.Probe(within(t)); r.Class != OK {
					t.Fatalf("%+v", r)
				}
				if n := w.tokens(); n != 1 {
					t.Errorf("%d tokens", n)
				}
				w.ExpireTokens(test.crm)
			}
		})
	}
}

// Who waited for another's request for a token shares what came of it.
func TestRefusedTokenIsShared(t *testing.T) {
	t.Parallel()
	is := newIssuer(t, func(int64, url.Values) (int, string) { return 401, `{"error":"invalid_client"}` })
	s := newSink(t, "base_url: http://crm.example\nauth: {type: oauth2, client_id: id, client_secret: s3cret, token_url: "+is.URL+"/token}\n"+anyOperation, Options{})
	if _, _, err := s.auth.current(within(t)); err == nil {
		t.Fatal("a token")
	}
	if _, _, err := s.auth.after(within(t), 0); err == nil || is.asked.Load() != 1 {
		t.Errorf("%v after %d requests", err, is.asked.Load())
	}
	if _, _, err := s.auth.current(within(t)); err == nil || is.asked.Load() != 2 {
		t.Errorf("%v after %d requests", err, is.asked.Load())
	}
}

// What token endpoints say of an app that is not set up rightly reaches people, and
// nothing is asked again at once.
func TestConformUnreadyApp(t *testing.T) {
	t.Parallel()
	tests := []struct {
		crm    string
		status int
		body   string
		words  string
	}{
		{"salesforce", 400, `{"error":"invalid_grant","error_description":"request not supported on this domain"}`, "not supported on this domain"},
		{"salesforce", 400, `{"error":"invalid_grant","error_description":"no client credentials user enabled"}`, "no client credentials user"},
		{"zoho", 200, `{"error":"invalid_code"}`, "invalid_code"},
		{"zoho", 200, `{"error":"invalid_client"}`, "invalid_client"},
		{"dataverse", 401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`, "AADSTS7000215"},
	}
	for _, test := range tests {
		t.Run(test.crm+"/"+test.words, func(t *testing.T) {
			t.Parallel()
			c := crmNamed(test.crm)
			w := c.open(t, sandbox.Options{}, "")
			w.Fault(sandbox.Fault{Path: "token", Effect: sandbox.EffectStatus, Status: test.status, Body: test.body})
			r := w.sink.Write(within(t), Upsert, c.rows(3))[2]
			if r.Class != Held || r.Status != test.status || !strings.Contains(r.Message, test.words) || r.Sent {
				t.Errorf("%+v", r)
			}
			checkWords(t, r)
			if n := w.tokens(); n != 1 {
				t.Errorf("%d tokens were asked for", n)
			}
		})
	}
}
