package sources_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"partnersync/receiver/sources"
)

var (
	now    = time.Unix(1_614_265_330, 0)
	remote = netip.MustParseAddr("192.0.2.7")
)

// Signatures with known answers, made elsewhere.
const (
	helloSHA256 = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17" // of "Hello, World!" by "It's a Secret to Everybody"

	standardSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	standardBody      = `{"test": 2432232314}`
	standardSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestAuthentic(t *testing.T) {
	t.Parallel()
	const (
		everybody = `{header: X-Sig, prefix: "sha256=", secrets: "It's a Secret to Everybody"}`
		inField   = `{hmac: {header: X-Sig, signature_field: v1, secrets: "It's a Secret to Everybody"}}`
		standard  = "{standard_webhooks: {secrets: [whsec_AAAA, " + standardSecret + "]}}"
	)
	headers := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	query := func(q string) func(*http.Request) { return func(r *http.Request) { r.URL.RawQuery = q } }
	password := func(u, p string) func(*http.Request) { return func(r *http.Request) { r.SetBasicAuth(u, p) } }
	webhook := func(signature string, at int64) func(*http.Request) {
		return headers("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "Webhook-Timestamp", fmt.Sprint(at), "Webhook-Signature", signature)
	}
	nothing := func(*http.Request) {}
	tests := []struct {
		name   string
		verify string
		give   func(*http.Request)
		body   string
		want   bool
	}{
		{"none", "none", nothing, "", true},

		{"token in the query", "{token: t1}", query("token=t1"), "", true},
		{"token in the query among others", "{token: t1}", query("a=b&token=t1"), "", true},
		{"token escaped in the query", `{token: "a+b/c="}`, query("token=a%2Bb%2Fc%3D"), "", true},
		{"bearer", "{token: t1}", headers("Authorization", "Bearer t1"), "", true},
		{"bearer in lower case", "{token: t1}", headers("Authorization", "bearer  t1"), "", true},
		{"token as password", "{token: t1}", password("anybody", "t1"), "", true},
		{"second token", "{token: [t1, t2]}", query("token=t2"), "", true},
		{"token from the environment", `{token: "${TOKEN}"}`, query("token=tok-1"), "", true},
		{"no token", "{token: t1}", nothing, "", false},
		{"empty token", "{token: t1}", query("token="), "", false},
		{"wrong token", "{token: t1}", query("token=t2"), "", false},
		{"beginning of a token", "{token: t1}", query("token=t"), "", false},
		{"longer than the token", "{token: t1}", query("token=t11"), "", false},
		{"wrong token first", "{token: t1}", query("token=x&token=t1"), "", false},
		{"token as user name", "{token: t1}", password("t1", ""), "", false},
		{"token without a scheme", "{token: t1}", headers("Authorization", "t1"), "", false},

		{"token in a header", "{token: {header: x-shop-token, secrets: t1}}", headers("X-Shop-Token", "t1"), "", true},
		{"token in a header, the second", "{token: {header: X-Shop-Token, secrets: [t2, t1]}}", headers("X-Shop-Token", "t1"), "", true},
		{"token in a header, wrong", "{token: {header: X-Shop-Token, secrets: t1}}", headers("X-Shop-Token", "t2"), "", false},
		{"token in a header, none", "{token: {header: X-Shop-Token, secrets: t1}}", nothing, "", false},
		{"token in a header, given as bearer", "{token: {header: X-Shop-Token, secrets: t1}}", headers("Authorization", "Bearer t1"), "", false},
		{"token in a header, given in the query", "{token: {header: X-Shop-Token, secrets: t1}}", query("token=t1"), "", false},
		{"token as bearer, given in a header", "{token: t1}", headers("X-Shop-Token", "t1"), "", false},

		{"basic", "{basic: {username: u, password: p}}", password("u", "p"), "", true},
		{"basic, second pair", "{basic: [{username: u, password: p}, {username: v, password: q}]}", password("v", "q"), "", true},
		{"basic, halves of two pairs", "{basic: [{username: u, password: p}, {username: v, password: q}]}", password("u", "q"), "", false},
		{"basic, wrong user", "{basic: {username: u, password: p}}", password("x", "p"), "", false},
		{"basic, nothing", "{basic: {username: u, password: p}}", nothing, "", false},

		{"hmac", "{hmac: " + everybody + "}", headers("X-Sig", "sha256="+helloSHA256), "Hello, World!", true},
		{"hmac in capitals", "{hmac: " + everybody + "}", headers("X-Sig", "sha256="+strings.ToUpper(helloSHA256)), "Hello, World!", true},
		{"hmac of another body", "{hmac: " + everybody + "}", headers("X-Sig", "sha256="+helloSHA256), "Hello, World?", false},
		{"hmac without the prefix", "{hmac: " + everybody + "}", headers("X-Sig", helloSHA256), "Hello, World!", false},
		{"hmac cut short", "{hmac: " + everybody + "}", headers("X-Sig", "sha256="+helloSHA256[:32]), "Hello, World!", false},
		{"hmac that is not hex", "{hmac: " + everybody + "}", headers("X-Sig", "sha256=zz"), "Hello, World!", false},
		{"hmac missing", "{hmac: " + everybody + "}", nothing, "Hello, World!", false},
		{"hmac, rotated secrets", `{hmac: {header: X-Sig, prefix: "sha256=", secrets: [new, "It's a Secret to Everybody"]}}`, headers("X-Sig", "sha256="+helloSHA256), "Hello, World!", true},

		{"hmac in a field", inField, headers("X-Sig", "v1="+helloSHA256), "Hello, World!", true},
		{"hmac in one of several fields", inField, headers("X-Sig", "v0=00, v1="+strings.Repeat("00", 32)+"; v1="+helloSHA256), "Hello, World!", true},
		{"hmac in another field", inField, headers("X-Sig", "v2="+helloSHA256), "Hello, World!", false},
		{"hmac without its field", inField, headers("X-Sig", helloSHA256), "Hello, World!", false},
		{"hmac in a field, another body", inField, headers("X-Sig", "v1="+helloSHA256), "Hello, World?", false},
		{"hmac hidden behind many fields", inField, headers("X-Sig", strings.Repeat("v1=00,", 10)+"v1="+helloSHA256), "Hello, World!", false},

		{"standard webhooks", standard, webhook(standardSignature, now.Unix()), standardBody, true},
		{"standard webhooks, one of several", standard, webhook("v1,xxxx v2,yyyy "+standardSignature, now.Unix()), standardBody, true},
		{"standard webhooks, other body", standard, webhook(standardSignature, now.Unix()), standardBody + " ", false},
		{"standard webhooks, other time", standard, webhook(standardSignature, now.Unix()+1), standardBody, false},
		{"standard webhooks, wrong version", standard, webhook(strings.Replace(standardSignature, "v1", "v2", 1), now.Unix()), standardBody, false},
		{"standard webhooks, nothing", standard, nothing, standardBody, false},
		{"standard webhooks, hidden behind many", standard, webhook(strings.Repeat("v1,x ", 10)+standardSignature, now.Unix()), standardBody, false},

		{"address", "{allow_ips: 192.0.2.7}", nothing, "", true},
		{"network", "{allow_ips: [198.51.100.0/24, 192.0.2.0/24]}", nothing, "", true},
		{"other network", "{allow_ips: [198.51.100.0/24, 2001:db8::/32]}", nothing, "", false},
		{"network and token", "{token: t1, allow_ips: 192.0.2.0/24}", query("token=t1"), "", true},
		{"network, but no token", "{token: t1, allow_ips: 192.0.2.0/24}", nothing, "", false},
		{"token, but another network", "{token: t1, allow_ips: 198.51.100.0/24}", query("token=t1"), "", false},
		{"token and basic", "{token: t1, basic: {username: u, password: p}}", func(r *http.Request) { r.URL.RawQuery = "token=t1"; r.SetBasicAuth("u", "p") }, "", true},
		{"token, but no basic", "{token: t1, basic: {username: u, password: p}}", query("token=t1"), "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := load(t, "s", "events: {a: {}}\nverify: "+tt.verify)
			r := httptest.NewRequest(http.MethodPost, "https://example.com/hooks/s/a", nil)
			tt.give(r)
			if got := authentic(s, r, []byte(tt.body), remote, now); got != tt.want {
				t.Errorf("authentic: %v, want %v", got, tt.want)
			}
			switch head := s.Head(r, remote, now); {
			case head == sources.Refuted && tt.want:
				t.Error("the head is refused")
			case head == sources.Proved && !tt.want:
				t.Error("the head is enough")
			case head == sources.Undecided && !strings.Contains(tt.verify, "hmac") && !strings.Contains(tt.verify, "standard") && tt.verify != "none":
				t.Error("a body is wanted for nothing")
			}
		})
	}
}

func TestAuthenticAddresses(t *testing.T) {
	t.Parallel()
	s := load(t, "s", "events: {a: {}}\nverify: {allow_ips: [192.0.2.0/24, '2001:db8::/32', '::ffff:198.51.100.1']}")
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	for addr, want := range map[string]bool{
		"192.0.2.9": true, "::ffff:192.0.2.9": true, "2001:db8::1": true, "2001:db8::1%eth0": true, "198.51.100.1": true,
		"192.0.3.9": false, "2001:db9::1": false, "198.51.100.2": false,
	} {
		if got := authentic(s, r, nil, netip.MustParseAddr(addr), now); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if authentic(s, r, nil, netip.Addr{}, now) {
		t.Error("an unknown address is taken")
	}
}

func authentic(s *sources.Source, r *http.Request, body []byte, remote netip.Addr, now time.Time) bool {
	by, ok := s.Authentic(r, body, remote, now)
	return ok && by != ""
}

// It is told by what a request was verified, and by which of several secrets, never the
// secret itself; of a request that is refused nothing is told.
func TestVerifiedBy(t *testing.T) {
	t.Parallel()
	query := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.URL.RawQuery = "token=" + token }
	}
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	password := func(user, word string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, word) }
	}
	signed := func(verify string) func(*http.Request) { // by its first secret
		return func(r *http.Request) {
			load(t, "s", "events: {a: {}}\nverify: "+verify).Sign(r, []byte("{}"), now)
		}
	}
	const keys = "{standard_webhooks: {secrets: [" + standardSecret + ", whsec_AAAA]}}"
	for _, tt := range []struct {
		verify string
		give   func(*http.Request)
		want   string
	}{
		{"none", func(*http.Request) {}, "nothing: verify is none"},
		{"{token: t1}", query("t1"), "token in the query"},
		{"{token: t1}", bearer("t1"), "token as bearer"},
		{"{token: t1}", password("anybody", "t1"), "token as basic password"},
		{"{token: t1}", query("t2"), ""},
		{"{token: [t1, t2]}", query("t1"), "token in the query, secret 1 of 2"},
		{"{token: [t1, t2]}", query("t2"), "token in the query, secret 2 of 2"},
		{"{token: [t1, t2, t3]}", bearer("t2"), "token as bearer, secret 2 of 3"},
		{"{token: [t1, t2]}", query("t3"), ""},
		{"{basic: {username: u, password: p}}", password("u", "p"), "basic"},
		{"{basic: [{username: u, password: p}, {username: u, password: q}]}", password("u", "q"), "basic, secret 2 of 2"},
		{"{hmac: {header: X-S, secrets: [a, b]}}", signed("{hmac: {header: X-S, secrets: b}}"), "hmac X-S, secret 2 of 2"},
		{"{hmac: {header: X-S, secrets: a}}", signed("{hmac: {header: X-S, secrets: a}}"), "hmac X-S"},
		{"{hmac: {header: X-S, secrets: a}}", signed("{hmac: {header: X-S, secrets: b}}"), ""},
		{"{token: {header: x-t, secrets: [a, b]}}", func(r *http.Request) { r.Header.Set("X-T", "b") }, "token in X-T, secret 2 of 2"},
		{"{hmac: {header: X-S, signature_field: v1, secrets: [a, b]}}", signed("{hmac: {header: X-S, signature_field: v1, secrets: b}}"), "hmac X-S, secret 2 of 2"},
		{keys, signed("{standard_webhooks: {secrets: whsec_AAAA}}"), "standard_webhooks, secret 2 of 2"},
		{keys, signed(keys), "standard_webhooks, secret 1 of 2"},
		{"{allow_ips: 192.0.2.0/24}", func(*http.Request) {}, "allow_ips"},
		{"{allow_ips: 198.51.100.0/24}", func(*http.Request) {}, ""},
		{"{token: [t1, t2], allow_ips: 192.0.2.0/24}", query("t2"), "token in the query, secret 2 of 2, allow_ips"},
		{"{token: t1, allow_ips: 198.51.100.0/24}", query("t1"), ""},
	} {
		t.Run(tt.verify+" "+tt.want, func(t *testing.T) {
			t.Parallel()
			s := load(t, "s", "events: {a: {}}\nverify: "+tt.verify)
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			tt.give(r)
			by, ok := s.Authentic(r, []byte("{}"), netip.MustParseAddr("192.0.2.7"), now)
			if by != tt.want || ok != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", by, ok, tt.want)
			}
		})
	}
}

// The common case costs nothing more.
func TestVerifiedByAllocates(t *testing.T) {
	s := load(t, "s", "events: {a: {}}\nverify: {token: t1}")
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Authorization", "Bearer t1")
	if n := testing.AllocsPerRun(100, func() { s.Authentic(r, nil, remote, now) }); n > 1 { // the map of the query
		t.Errorf("%v allocations", n)
	}
}

// A body is read only for a signature that is worth it.
func TestHead(t *testing.T) {
	t.Parallel()
	const (
		timed    = `{hmac: {header: X-S, template: "{timestamp}.{body}", timestamp_header: X-T, secrets: a}}`
		standard = "{standard_webhooks: {secrets: whsec_AAAA}}"
	)
	for _, tt := range []struct {
		name   string
		verify string
		change func(*http.Request) // of a request that is signed
		want   sources.Proof
	}{
		{"none", "none", nil, sources.Undecided},
		{"token", "{token: t}", nil, sources.Proved},
		{"address", "{allow_ips: 192.0.2.7}", nil, sources.Proved},
		{"hmac", "{hmac: {header: X-S, secrets: a}}", nil, sources.Undecided},
		{"hmac that is short", "{hmac: {header: X-S, secrets: a}}", func(r *http.Request) { r.Header.Set("X-S", "00ff") }, sources.Refuted},
		{"hmac that is missing", "{hmac: {header: X-S, secrets: a}}", func(r *http.Request) { r.Header.Del("X-S") }, sources.Refuted},
		{"hmac of another algorithm", "{hmac: {header: X-S, algorithm: sha512, secrets: a}}", func(r *http.Request) { r.Header.Set("X-S", helloSHA256) }, sources.Refuted},
		{"hmac that somebody else made", "{hmac: {header: X-S, secrets: a}}", func(r *http.Request) { r.Header.Set("X-S", helloSHA256) }, sources.Undecided},
		{"hmac, but no token", "{token: t, hmac: {header: X-S, secrets: a}}", func(r *http.Request) { r.Header.Del("Authorization") }, sources.Refuted},
		{"hmac with a time", timed, nil, sources.Undecided},
		{"hmac with an old time", timed, func(r *http.Request) { r.Header.Set("X-T", fmt.Sprint(now.Unix()-301)) }, sources.Refuted},
		{"standard webhooks", standard, nil, sources.Undecided},
		{"standard webhooks, an old time", standard, func(r *http.Request) { r.Header.Set("Webhook-Timestamp", fmt.Sprint(now.Unix()-301)) }, sources.Refuted},
		{"standard webhooks, no id", standard, func(r *http.Request) { r.Header.Del("Webhook-Id") }, sources.Refuted},
		{"standard webhooks, another version", standard, func(r *http.Request) { r.Header.Set("Webhook-Signature", "v2,"+standardSignature[3:]) }, sources.Refuted},
		{"standard webhooks, no signature", standard, func(r *http.Request) { r.Header.Set("Webhook-Signature", "v1,") }, sources.Refuted},
	} {
		s := load(t, "s", "events: {a: {}}\nverify: "+tt.verify)
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		s.Sign(r, []byte("{}"), now)
		if tt.change != nil {
			tt.change(r)
		}
		if got := s.Head(r, remote, now); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// What Sign puts on a request, Authentic takes, and takes nothing else for it.
func TestSign(t *testing.T) {
	t.Parallel()
	for _, verify := range []string{
		"none",
		"{token: [t1, t2]}",
		"{basic: {username: u, password: p}}",
		"{token: t1, basic: {username: u, password: p}}",
		"{hmac: {header: X-S, secrets: [a, b]}}",
		"{hmac: {header: X-S, algorithm: sha1, secrets: a}}",
		"{hmac: {header: X-S, algorithm: sha512, encoding: base64, secrets: a}}",
		`{hmac: {header: X-S, prefix: "v0=", template: "v0:{timestamp}:{body}", timestamp_header: X-T, tolerance: 1m, secrets: a}}`,
		`{hmac: {header: X-S, prefix: "x", template: "{timestamp}.{body}", timestamp_field: t, signature_field: v1, secrets: [a, b]}}`,
		"{token: {header: X-Token, secrets: [t1, t2]}}",
		"{token: {header: X-Token, secrets: t1}, basic: {username: u, password: p}}",
		"{standard_webhooks: {secrets: " + standardSecret + "}}",
		"{hmac: {header: X-S, secrets: a}, token: t1, allow_ips: 192.0.2.7}",
	} {
		t.Run(verify, func(t *testing.T) {
			t.Parallel()
			s := load(t, "s", "events: {a: {}}\nverify: "+verify)
			sent := []byte(`{"a": 1}`)
			signed := func() *http.Request {
				r := httptest.NewRequest(http.MethodPost, "https://example.com/hooks/s/a?x=y", nil)
				s.Sign(r, sent, now)
				return r
			}
			if r := signed(); !authentic(s, r, sent, remote, now) || r.URL.Query().Get("x") != "y" {
				t.Error("a signed request is refused")
			}
			if verify == "none" {
				return
			}
			if authentic(s, httptest.NewRequest(http.MethodPost, "/", nil), sent, remote, now) {
				t.Error("an unsigned request is taken")
			}
			if strings.Contains(verify, "hmac") || strings.Contains(verify, "standard") {
				if authentic(s, signed(), []byte(`{"a": 2}`), remote, now) {
					t.Error("another body is taken")
				}
			}
			timed := strings.Contains(verify, "{timestamp}") || strings.Contains(verify, "standard")
			for _, later := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
				if got := authentic(s, signed(), sent, remote, now.Add(later)); got == timed {
					t.Errorf("%v later it is taken: %v", later, got)
				}
			}
		})
	}
}

// A sender whose secret is being rotated signs with both; either is enough.
func TestSignedTwice(t *testing.T) {
	t.Parallel()
	const template = `{events: {a: {}}, verify: {hmac: {header: X-S, template: "{timestamp}.{body}", timestamp_field: t, signature_field: v1, secrets: %s}}}`
	signature := func(secret string) string {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		load(t, "s", fmt.Sprintf(template, secret)).Sign(r, []byte("{}"), now)
		return r.Header.Get("X-S")
	}
	_, second, _ := strings.Cut(signature("new"), ",")
	both := signature("old") + "," + second
	for _, tt := range []struct {
		secrets, header string
		later           time.Duration
		want            bool
	}{
		{"old", both, 0, true}, {"new", both, 0, true}, {"other", both, 0, false}, {"new", both, 10 * time.Minute, false},
		{"new", strings.Replace(both, "t=", "t=1", 1), 0, false}, {"new", second, 0, false}, {"new", second + "," + both[:strings.Index(both, ",")], 0, true},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("X-S", tt.header)
		if got := authentic(load(t, "s", fmt.Sprintf(template, tt.secrets)), r, []byte("{}"), remote, now.Add(tt.later)); got != tt.want {
			t.Errorf("%s after %s with %s: %v", tt.header, tt.later, tt.secrets, got)
		}
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	s := load(t, "s", `{events: {a: {}}, verify: {hmac: {header: X-S, template: "{timestamp}{body}", timestamp_header: X-T, tolerance: 1m, secrets: a}}}`)
	for _, tt := range []struct {
		shift time.Duration
		want  bool
	}{{0, true}, {time.Minute, true}, {-time.Minute, true}, {61 * time.Second, false}, {-61 * time.Second, false}} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		s.Sign(r, nil, now)
		if got := authentic(s, r, nil, remote, now.Add(tt.shift)); got != tt.want {
			t.Errorf("after %v: %v", tt.shift, got)
		}
	}
	for _, timestamp := range []string{"", "now", "-1", "99999999999999999999", "1e9"} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		s.Sign(r, nil, now)
		r.Header.Set("X-T", timestamp)
		if authentic(s, r, nil, remote, now) {
			t.Errorf("the timestamp %q is taken", timestamp)
		}
	}
}
