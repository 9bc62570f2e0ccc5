package sandbox

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// fetch posts a form to a token endpoint. basic holds "id:secret" of the header.
func fetch(t *testing.T, s *Server, path, basic string, fields ...string) heard {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id, secret, ok := strings.Cut(basic, ":"); ok {
		r.SetBasicAuth(id, secret)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	h := heard{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if err := json.Unmarshal(w.Body.Bytes(), &h.body); err != nil {
		t.Fatalf("%s: %v", h.raw, err)
	}
	return h
}

// login fetches a token of a dialect as its client does, and gives a request that uses it.
func login(t *testing.T, s *Server, dialect string) (h heard, use exchange) {
	t.Helper()
	switch dialect {
	case salesforceName:
		h = fetch(t, s, "/salesforce/services/oauth2/token", "", "grant_type", "client_credentials", "client_id", "cid", "client_secret", "sec")
		use = exchange{path: sfData + "limits", header: "Authorization: Bearer "}
	case pipedriveName:
		h = fetch(t, s, "/pipedrive/oauth/token", "cid:sec", "grant_type", "refresh_token", "refresh_token", "ref")
		use = exchange{path: "/pipedrive/api/v1/users/me", header: "X-Api-Token: \nAuthorization: Bearer "}
	case zohoName:
		h = fetch(t, s, "/zoho/oauth/v2/token", "", "grant_type", "refresh_token", "client_id", "cid", "client_secret", "sec", "refresh_token", "ref")
		use = exchange{path: "/zoho/crm/v8/org", header: "Authorization: Zoho-oauthtoken "}
	case dataverseName:
		h = fetch(t, s, "/dataverse/tenant-1/oauth2/v2.0/token", "", "grant_type", "client_credentials", "client_id", "cid", "client_secret", "sec",
			"scope", "https://org.crm.dynamics.com/.default")
		use = exchange{path: "/dataverse/api/data/v9.2/WhoAmI", header: "Authorization: Bearer "}
	}
	use.header += h.text("access_token")
	return h, use
}

func strictClients() map[string]Client {
	c := Client{ID: "cid", Secret: "sec", RefreshToken: "ref"}
	return map[string]Client{salesforceName: c, pipedriveName: c, zohoName: c, dataverseName: c}
}

func TestTokenLife(t *testing.T) {
	t.Parallel()
	tests := []struct {
		dialect string
		expires any // expires_in
		life    time.Duration
		address string // the field that says where the API is
		refused map[string]any
	}{
		{salesforceName, nil, 2 * time.Hour, "instance_url", map[string]any{"0.errorCode": "INVALID_SESSION_ID", "0.message": "Session expired or invalid"}},
		{pipedriveName, float64(3599), 3599 * time.Second, "api_domain", map[string]any{"success": false, "error": "unauthorized access"}},
		{zohoName, float64(3600), time.Hour, "api_domain", map[string]any{"code": "INVALID_TOKEN", "status": "error"}},
		{dataverseName, float64(3599), 3599 * time.Second, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.dialect, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			s := furnished(Options{Now: clock.now, Token: "static", Clients: strictClients()})
			h, use := login(t, s, tt.dialect)
			wantEqual(t, "status", h.status, 200)
			wantEqual(t, "expires_in", h.at("expires_in"), tt.expires)
			wantEqual(t, "token_type", h.text("token_type"), "Bearer")
			if tt.address != "" {
				wantEqual(t, tt.address, h.text(tt.address), "http://example.com/"+tt.dialect)
			}
			use.name, use.want = "fresh", 200
			converse(t, s, use)
			clock.at = clock.at.Add(tt.life - time.Second)
			converse(t, s, use)
			clock.at = clock.at.Add(time.Second)
			use.name, use.want, use.says = "expired", 401, tt.refused
			converse(t, s, use)

			again, use := login(t, s, tt.dialect)
			if again.text("access_token") == h.text("access_token") {
				t.Error("the same token twice")
			}
			use.name, use.want = "renewed", 200
			converse(t, s, use)
			s.ExpireTokens("attio")
			converse(t, s, use)
			s.ExpireTokens(tt.dialect)
			use.name, use.want = "ended", 401
			converse(t, s, use)

			other := exchange{name: "of another dialect", path: "/attio/v2/self", header: "Authorization: Bearer " + again.text("access_token"), want: 401}
			converse(t, s, other)
		})
	}
}

func TestTokenLifeOption(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := furnished(Options{Now: clock.now, TokenLife: map[string]time.Duration{zohoName: time.Minute}})
	h, use := login(t, s, zohoName)
	wantEqual(t, "expires_in", h.at("expires_in"), any(float64(60)))
	clock.at = clock.at.Add(time.Minute)
	use.want = 401
	converse(t, s, use)
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	const (
		sf, pd = "/salesforce/services/oauth2/token", "/pipedrive/oauth/token"
		zo, dv = "/zoho/oauth/v2/token", "/dataverse/t/oauth2/v2.0/token"
	)
	tests := []struct {
		name, path, basic string
		fields            string // a=b c=d
		want              int
		code              string
	}{
		{"salesforce client", sf, "", "grant_type=client_credentials client_id=x client_secret=sec", 400, "invalid_client_id"},
		{"salesforce secret", sf, "", "grant_type=client_credentials client_id=cid client_secret=x", 400, "invalid_client"},
		{"salesforce secret missing", sf, "", "grant_type=client_credentials client_id=cid", 400, "invalid_client"},
		{"salesforce refresh token", sf, "", "grant_type=refresh_token client_id=cid refresh_token=x", 400, "invalid_grant"},
		{"salesforce grant", sf, "", "grant_type=magic", 400, "unsupported_grant_type"},
		{"salesforce assertion", sf, "", "grant_type=" + jwtGrant + " assertion=a.b.c", 400, "invalid_grant"},
		{"pipedrive secret in the body", pd, "", "grant_type=refresh_token client_id=cid client_secret=sec refresh_token=ref", 401, "invalid_client"},
		{"pipedrive secret", pd, "cid:x", "grant_type=refresh_token refresh_token=ref", 401, "invalid_client"},
		{"pipedrive refresh token", pd, "cid:sec", "grant_type=refresh_token refresh_token=x", 400, "invalid_grant"},
		{"pipedrive grant", pd, "cid:sec", "grant_type=password", 400, "unsupported_grant_type"},
		{"zoho errors are 200: refresh token", zo, "", "grant_type=refresh_token client_id=cid client_secret=sec refresh_token=x", 200, "invalid_code"},
		{"zoho client", zo, "", "grant_type=refresh_token client_id=x client_secret=sec refresh_token=ref", 200, "invalid_client"},
		{"zoho secret", zo, "", "grant_type=refresh_token client_id=cid client_secret=x refresh_token=ref", 200, "invalid_client_secret"},
		{"zoho grant", zo, "", "grant_type=x", 200, "unsupported_grant_type"},
		{"dataverse client", dv, "", "grant_type=client_credentials client_id=x client_secret=sec scope=https://o/.default", 400, "unauthorized_client"},
		{"dataverse secret", dv, "", "grant_type=client_credentials client_id=cid client_secret=x scope=https://o/.default", 401, "invalid_client"},
		{"dataverse scope", dv, "", "grant_type=client_credentials client_id=cid client_secret=sec scope=https://o/", 400, "invalid_scope"},
		{"dataverse grant", dv, "", "grant_type=password", 400, "unsupported_grant_type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := furnished(Options{Clients: strictClients()})
			h := fetch(t, s, tt.path, tt.basic, strings.FieldsFunc(tt.fields, func(r rune) bool { return r == ' ' || r == '=' })...)
			wantEqual(t, "status", h.status, tt.want)
			wantEqual(t, "error", h.text("error"), tt.code)
			wantEqual(t, "token", h.at("access_token"), any(nil))
		})
	}
}

// Zoho takes the fields of a token request in the query as well.
func TestTokenFieldsInTheQuery(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Clients: strictClients()})
	h := fetch(t, s, "/zoho/oauth/v2/token?grant_type=refresh_token&client_id=cid&client_secret=sec&refresh_token=ref", "")
	wantEqual(t, "status", h.status, 200)
	wantContains(t, "token", h.text("access_token"), "1000.")
}

func TestLockout(t *testing.T) {
	t.Parallel()
	for _, status := range []int{0, 200} {
		clock := newClock()
		o := ZohoLockout()
		o.Status = status
		s := furnished(Options{Now: clock.now, Lockout: o})
		for range 10 {
			h, _ := login(t, s, zohoName)
			wantEqual(t, "error", h.at("error"), any(nil))
		}
		locked := func() bool { h, _ := login(t, s, zohoName); return h.text("error") == "Access Denied" }
		h, _ := login(t, s, zohoName)
		wantEqual(t, "status", h.status, orStatus(status, 400))
		wantContains(t, "why", h.text("error_description"), "too many requests continuously")
		clock.at = clock.at.Add(11 * time.Minute) // the window has passed, the lock-out has not
		wantEqual(t, "locked", locked(), true)
		clock.at = clock.at.Add(4 * time.Minute)
		wantEqual(t, "locked after a quarter of an hour", locked(), false)
	}
	s := furnished(Options{Lockout: Lockout{Tokens: 1, Per: time.Hour, For: time.Hour}})
	login(t, s, zohoName)
	h, _ := login(t, s, zohoName)
	wantEqual(t, "error", h.text("error"), "Access Denied")
	s.Reset()
	h, _ = login(t, s, zohoName)
	wantEqual(t, "after a reset", h.at("error"), any(nil))
}

// sign makes a JWT.
func sign(t *testing.T, key *rsa.PrivateKey, algorithm string, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]string{"alg": algorithm}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestSalesforceJWT(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	clock := newClock()
	good := func() map[string]any {
		return map[string]any{"iss": "cid", "sub": "me@x.test", "aud": "https://login.salesforce.com", "exp": clock.at.Add(3 * time.Minute).Unix()}
	}
	tests := []struct {
		name string
		with func(map[string]any)
		key  *rsa.PrivateKey
		alg  string
		want string // the error; empty: none
	}{
		{"good", func(map[string]any) {}, key, "RS256", ""},
		{"for a sandbox", func(c map[string]any) { c["aud"] = "https://test.salesforce.com" }, key, "RS256", ""},
		{"for the domain", func(c map[string]any) { c["aud"] = "http://example.com/salesforce" }, key, "RS256", ""},
		{"for another", func(c map[string]any) { c["aud"] = "https://elsewhere.test" }, key, "RS256", "audience is invalid"},
		{"another client", func(c map[string]any) { c["iss"] = "x" }, key, "RS256", "client identifier invalid"},
		{"another user", func(c map[string]any) { c["sub"] = "x" }, key, "RS256", "user hasn't approved this consumer"},
		{"expired", func(c map[string]any) { c["exp"] = clock.at.Unix() }, key, "RS256", "expired authorization code"},
		{"lives too long", func(c map[string]any) { c["exp"] = clock.at.Add(time.Hour).Unix() }, key, "RS256", "expired authorization code"},
		{"another key", func(map[string]any) {}, stranger, "RS256", "invalid assertion"},
		{"another algorithm", func(map[string]any) {}, key, "HS256", "invalid assertion"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := furnished(Options{Now: clock.now, Token: "static", Clients: map[string]Client{salesforceName: {ID: "cid", Username: "me@x.test", Key: &key.PublicKey}}})
			claims := good()
			tt.with(claims)
			h := fetch(t, s, "/salesforce/services/oauth2/token", "", "grant_type", jwtGrant, "assertion", sign(t, tt.key, tt.alg, claims))
			wantEqual(t, "why", h.text("error_description"), tt.want)
			if tt.want == "" {
				converse(t, s, exchange{name: "use", path: "/salesforce/services/oauth2/userinfo", header: "Authorization: Bearer " + h.text("access_token"), want: 200})
			}
		})
	}
}

func TestWhoami(t *testing.T) {
	t.Parallel()
	paths := map[string][2]string{ // path, where the account is
		"hubspot":    {"/hubspot/account-info/v3/details", "portalId"},
		"salesforce": {"/salesforce/services/oauth2/userinfo", "organization_id"},
		"pipedrive":  {"/pipedrive/api/v1/users/me", "data.company_id"},
		"attio":      {"/attio/v2/self", "workspace_id"},
		"zoho":       {"/zoho/crm/v8/org", "org.0.zgid"},
		"dataverse":  {"/dataverse/api/data/v9.2/WhoAmI", "OrganizationId"},
	}
	s := furnished(Options{Account: 4711})
	for dialect, p := range paths {
		was := fmt.Sprint(ask(t, s, exchange{path: p[0]}).at(p[1]))
		s.SetAccount(4712)
		is := fmt.Sprint(ask(t, s, exchange{path: p[0]}).at(p[1]))
		s.SetAccount(4711)
		again := fmt.Sprint(ask(t, s, exchange{path: p[0]}).at(p[1]))
		if was == "<nil>" || was == is || was != again {
			t.Errorf("%s: accounts %s, %s, %s", dialect, was, is, again)
		}
	}
}

// Every dialect refuses a token that is not the one, and one that is missing.
func TestStaticToken(t *testing.T) {
	t.Parallel()
	s := furnished(Options{Token: "secret"})
	for _, e := range []exchange{
		{path: sfData + "limits", header: "Authorization: Bearer %s", says: map[string]any{"0.errorCode": "INVALID_SESSION_ID"}},
		{path: "/pipedrive/api/v1/users/me", header: "X-Api-Token: %s"},
		{path: "/pipedrive/api/v2/stages", header: "X-Api-Token: \nAuthorization: Bearer %s"},
		{path: "/attio/v2/self", header: "Authorization: Bearer %s", says: map[string]any{"type": "auth_error", "status_code": 401}},
		{path: "/zoho/crm/v8/org", header: "Authorization: Zoho-oauthtoken %s", says: map[string]any{"status": "error"}},
		{path: "/dataverse/api/data/v9.2/WhoAmI", header: "Authorization: Bearer %s"},
	} {
		good, wrong, none := e, e, e
		good.name, good.header, good.want, good.says = e.path, fmt.Sprintf(e.header, "secret"), 200, nil
		wrong.name, wrong.header, wrong.want = e.path, fmt.Sprintf(e.header, "other"), 401
		none.name, none.header, none.want = e.path, "X-Api-Token: \nAuthorization: ", 401
		converse(t, s, good, wrong, none)
	}
	converse(t, s, exchange{name: "zoho minds the scheme", path: "/zoho/crm/v8/org", header: "Authorization: Bearer secret", want: 401,
		says: map[string]any{"code": "AUTHENTICATION_FAILURE"}})
}
