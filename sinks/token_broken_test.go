package sinks

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// Token endpoints that break in every way: a class, a reason, no secret, and no
// request without a token.
func TestBrokenTokenEndpoints(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	types := map[string]string{
		"client credentials": "  type: oauth2_client_credentials\n  client_id: id\n  client_secret: s3cret-value\n",
		"refresh":            "  type: oauth2_refresh\n  client_id: id\n  client_secret: s3cret-value\n  refresh_token: r3fresh-value\n",
		"odd secrets":        "  type: oauth2_refresh\n  client_id: id\n  client_secret: s3cret/va+lue\n  refresh_token: r3fresh=va&lue\n",
		"in the header":      "  type: oauth2_client_credentials\n  style: header\n  client_id: id\n  client_secret: s3cret/value\n",
		"JWT": "  type: oauth2_jwt\n  client_id: id\n  username: me@acme.test\n  audience: https://login.example\n  private_key: |\n    " +
			strings.ReplaceAll(text, "\n", "\n    ") + "\n",
	}
	const json = "Connection: close\r\nContent-Type: application/json\r\n"
	tests := []struct {
		name   string
		answer http.HandlerFunc
		class  []Class
		words  string
	}{
		{"drip by drip", drip, []Class{Timeout}, "no answer from HOST within 300ms"},
		{"a chunk that ends early", raw("HTTP/1.1 200 OK\r\n" + json + "Transfer-Encoding: chunked\r\n\r\nff\r\n{\"a\":"), []Class{Network, Unavailable}, "HOST"},
		{"no HTTP", raw("220 smtp.example ESMTP\r\n"), []Class{Network}, "no connection to HOST"},
		{"truncated gzip", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xaaV"), []Class{Network, Unavailable}, "HOST"},
		{"a bomb", bomb(t), []Class{Unavailable}, "the answer of HOST holds no access token"},
		{"empty", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 0\r\n\r\n"), []Class{Unavailable}, "the answer of HOST holds no access token"},
		{"null", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 4\r\n\r\nnull"), []Class{Unavailable}, "the answer of HOST holds no access token"},
		{"a list", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 2\r\n\r\n[]"), []Class{Unavailable}, "the answer of HOST holds no access token"},
		{"an empty token", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 19\r\n\r\n{\"access_token\":\"\"}"), []Class{Unavailable}, "the answer of HOST holds no access token"},
		{"a page", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(rw, "<!doctype html>")
		}, []Class{Unavailable}, "the answer of HOST holds no access token"},
		{"a page that forbids", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			rw.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(rw, "<!doctype html>")
		}, []Class{Held}, "no access token from HOST: 403"},
		{"redirect", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
		}, []Class{Held, Unavailable}, "no access token from HOST: 307"},
		{"says it all back", func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(rw, `{"error":"x","error_description":"`+string(body)+r.Header.Get("Authorization")+`"}`)
		}, []Class{Held}, "no access token from HOST: 400"},
	}
	for name, auth := range types {
		for _, test := range tests {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				issuer := httptest.NewServer(test.answer)
				t.Cleanup(issuer.Close)
				crm := answering(t, 200, nil, `{}`)
				timeout := "1m"
				if slices.Contains(test.class, Timeout) {
					timeout = "300ms"
				}
				s := newSink(t, "timeout: "+timeout+"\nbase_url: "+crm.URL+"\nauth:\n"+auth+"  token_url: "+issuer.URL+"/token\n"+anyOperation, Options{})
				r := s.Write(within(t), Upsert, []Row{{Object: "o", Key: "1"}})[0]
				words := strings.ReplaceAll(test.words, "HOST", strings.TrimPrefix(issuer.URL, "http://"))
				if !oneOf(r.Class, test.class) || !strings.Contains(r.Message, words) || r.Sent {
					t.Errorf("%+v, want %q", r, words)
				}
				for _, hidden := range []string{"s3cret", "r3fresh", "eyJ", "czNjcmV0", "aWQ6czNj"} {
					if strings.Contains(r.Message, hidden) {
						t.Errorf("%q is in %s", hidden, r.Message)
					}
				}
				if len(crm.requests()) != 0 {
					t.Error("the request was sent without a token")
				}
			})
		}
	}
}
