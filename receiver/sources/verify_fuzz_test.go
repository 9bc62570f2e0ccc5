package sources_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"partnersync/receiver/sources"
)

// FuzzAuthentic: what Sign makes is taken; with another body, another time or a header
// that somebody has invented it is not. The head never says what the whole contradicts.
func FuzzAuthentic(f *testing.F) {
	var ways []*sources.Source
	for _, verify := range []string{
		"{token: [first-token, second-token]}",
		"{basic: {username: u, password: p}}",
		"{hmac: {header: X-Sig, secrets: [a, b]}}",
		"{hmac: {header: X-Sig, algorithm: sha1, prefix: 'sha1=', secrets: a}}",
		"{hmac: {header: X-Sig, algorithm: sha512, encoding: base64, secrets: a}}",
		"{hmac: {header: X-Sig, prefix: 'v0=', template: 'v0:{timestamp}:{body}', timestamp_header: X-Time, secrets: a}}",
		"{standard_webhooks: {secrets: " + standardSecret + "}}",
		"{hmac: {header: X-Sig, secrets: a}, token: first-token, allow_ips: 192.0.2.7}",
		"{token: first-token, allow_ips: 192.0.2.7}",
		"{hmac: {header: X-Sig, template: '{timestamp}.{body}', timestamp_field: t, signature_field: v1, secrets: a}}",
	} {
		ways = append(ways, load(f, "s", "events: {a: {}}\nverify: "+verify))
	}
	headers := []string{"Authorization", "X-Sig", "X-Time", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"}
	for n := range ways {
		f.Add(uint8(n), []byte(`{"a": 1}`), []byte(`{"a": 2}`), uint8(n), "v1,", int64(1))
		f.Add(uint8(n), []byte{}, []byte{0}, uint8(n+1), helloSHA256, int64(301))
	}
	f.Fuzz(func(t *testing.T, way uint8, sent, other []byte, which uint8, invented string, later int64) {
		n := int(way) % len(ways)
		s, signed, timed := ways[n], n >= 2 && n != 8, n == 5 || n == 6 || n == 9
		request := func() *http.Request {
			r := httptest.NewRequest(http.MethodPost, "https://example.com/hooks/s/a", nil)
			s.Sign(r, sent, now)
			return r
		}
		check := func(what string, r *http.Request, body []byte, from netip.Addr, at time.Time, want bool) {
			t.Helper()
			by, got := s.Authentic(r, body, from, at)
			if got != want || got != (by != "") {
				t.Errorf("%s: %v by %q, want %v", what, got, by, want)
			}
			if head := s.Head(r, from, at); head == sources.Refuted && got || head == sources.Proved && !got {
				t.Errorf("%s: the head says %v", what, head)
			}
		}
		check("as it was sent", request(), sent, remote, now, true)
		if string(sent) != string(other) {
			check("another body", request(), other, remote, now, !signed)
		}
		at := now.Add(time.Duration(later%1_000_000) * time.Second)
		check("another hour", request(), sent, remote, at, !timed || at.Sub(now).Abs() <= 5*time.Minute)
		check("another address", request(), sent, netip.MustParseAddr("192.0.2.8"), now, n != 7 && n != 8)

		header := headers[int(which)%len(headers)]
		r := request()
		if was := r.Header.Get(header); was != "" && was != invented {
			r.Header.Set(header, invented)
			if by, got := s.Authentic(r, sent, remote, now); got && !holds(invented, was) {
				t.Errorf("%s: %q instead of %q is taken, by %q", header, invented, was, by)
			}
		}
		r = httptest.NewRequest(http.MethodPost, "https://example.com/hooks/s/a", nil)
		r.Header.Set(header, invented)
		if by, got := s.Authentic(r, sent, remote, now); got && !holds(invented, "Bearer first-token") && !holds(invented, "Bearer second-token") {
			t.Errorf("%s: %q alone is taken, by %q", header, invented, by)
		}
	})
}

// holds reports whether a header holds what another says, written in another way:
// in capitals, with blanks or padding, among others.
func holds(header, want string) bool {
	plain := func(text string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n=", r) {
				return -1
			}
			return unicode.ToLower(r)
		}, text)
	}
	return strings.Contains(plain(header), plain(want))
}
