package sinks

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"partnersync/internal/sandbox"
)

// raw answers with bytes of our own and ends the connection.
func raw(answer string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = buf.WriteString(answer)
		_ = buf.Flush()
	}
}

// bomb is a hundred megabytes of JSON that travel as a hundred kilobytes.
func bomb(tb testing.TB) http.HandlerFunc {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, `{"x":"`)
	for range 100 {
		_, _ = z.Write(bytes.Repeat([]byte("x"), 1<<20))
	}
	_, _ = io.WriteString(z, `"}`)
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Encoding", "gzip")
		_, _ = rw.Write(b.Bytes())
	}
}

// drip sends a byte now and then, and never ends.
func drip(rw http.ResponseWriter, r *http.Request) {
	_, _ = io.ReadAll(r.Body)
	rw.Header().Set("Content-Type", "application/json")
	for {
		if _, err := io.WriteString(rw, " "); err != nil {
			return
		}
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Answers that no CRM gives on purpose, to every operation: a class and a reason,
// nothing sent twice, no secret in any word.
func TestConformBrokenAnswers(t *testing.T) {
	t.Parallel()
	const json = "Connection: close\r\nContent-Type: application/json\r\n"
	tests := []struct {
		name    string
		answer  http.HandlerFunc
		extra   string
		class   []Class
		sent    bool
		message string
	}{
		{"drip by drip", drip, "timeout: 300ms\n", []Class{Timeout}, true, "no answer from"},
		{"a chunk that ends early", raw("HTTP/1.1 200 OK\r\n" + json + "Transfer-Encoding: chunked\r\n\r\nff\r\n{\"a\":"), "", []Class{Network}, true, "broke before the answer"},
		{"no last chunk", raw("HTTP/1.1 200 OK\r\n" + json + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), "", []Class{Network}, true, "broke before the answer"},
		{"shorter than told", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 100\r\n\r\n{}"), "", []Class{Network}, true, "broke before the answer"},
		{"no HTTP", raw("220 smtp.example ESMTP\r\n"), "", []Class{Network}, true, "broke before the answer"},
		{"headers without end", raw("HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 1<<20)), "", []Class{Network}, true, "broke before the answer"},
		{"a bomb", bomb(t), "", []Class{Unavailable}, true, "the answer is longer than"},
		{"other encoding", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Encoding: br\r\nContent-Length: 4\r\n\r\n\x0b\x00\x80\x03"), "", []Class{Unavailable}, true, "the answer is not JSON"},
		{"half a JSON", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 9\r\n\r\n{\"id\":\"1\""), "", []Class{Unavailable}, true, "the answer is not JSON"},
		{"deep JSON", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 200000\r\n\r\n" + strings.Repeat("[", 100000) + strings.Repeat("]", 100000)), "",
			[]Class{Unavailable}, true, "the answer"},
		{"a number", raw("HTTP/1.1 200 OK\r\n" + json + "Content-Length: 2\r\n\r\n42"), "", []Class{Unavailable}, true, "the answer"},
		{"no content where there has to be", raw("HTTP/1.1 205 Reset Content\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), "", []Class{Unavailable}, true, "the answer"},
		{"a refusal that breaks off", raw("HTTP/1.1 409 Conflict\r\n" + json + "Content-Length: 100\r\n\r\n{\"message\":\"no"), "",
			[]Class{Conflict, Rejected, Unavailable}, false, "409 Conflict, and the answer broke off"},
		{"other protocol", raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), "", []Class{Unavailable}, false, "101"},
		{"a status that there is not", raw("HTTP/1.1 999 Denied\r\nConnection: close\r\nContent-Length: 6\r\n\r\ndenied"), "", []Class{Unavailable}, true, "999: denied"},
		{"a login page", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(rw, "\n\n<!doctype html><title>Log in</title>")
		}, "", []Class{Unavailable}, true, "the answer is a page of HTML"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			eachCRM(t, func(t *testing.T, c *crm) {
				box := c.serve(t, sandbox.Options{})
				var broken atomic.Bool
				var asked atomic.Int32
				srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if !broken.Load() || strings.HasSuffix(r.URL.Path, "/token") {
						box.ServeHTTP(rw, r)
						return
					}
					asked.Add(1)
					test.answer(rw, r)
				}))
				t.Cleanup(srv.Close)
				w := &world{Server: box.Server, c: c, sink: c.connect(t, srv.URL+"/"+c.name, test.extra, Options{})}
				probed := w.sink.Probe(within(t)) // so that there is a token
				for test.extra != "" && probed.Class == Timeout {
					probed = w.sink.Probe(within(t))
				}
				if probed.Class != OK {
					t.Fatalf("%+v", probed)
				}
				for op, call := range w.calls(t) {
					broken.Store(true)
					asked.Store(0)
					r := untilAsked(func() []Result { return []Result{call()} }, func() bool { return asked.Load() > 0 })[0]
					broken.Store(false)
					checkWords(t, r)
					if c.name == "attio" && op == Archive && test.name == "a number" {
						continue // any success will do
					}
					if !oneOf(r.Class, test.class) || !strings.Contains(r.Message, test.message) {
						t.Errorf("%s: %+v", op, r)
					}
					// A find that failed leaves nothing behind.
					if found := op == Upsert && c.name == "pipedrive"; r.Sent != (test.sent && !found) {
						t.Errorf("%s: sent %v, %+v", op, r.Sent, r)
					}
					if n := asked.Load(); n != 1 && (op != Find && op != WhoAmI && op != Upsert && op != Describe || n > 2) {
						t.Errorf("%s: %d requests", op, n)
					}
				}
			})
		})
	}
}

// What the header says of the type of an answer does not matter: the answer does.
func TestConformContentType(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		for _, kind := range []string{"text/html; charset=utf-8", "text/plain", "application/octet-stream", "application/vnd.api+json", ""} {
			box := c.serve(t, sandbox.Options{})
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/token") {
					box.ServeHTTP(rw, r)
					return
				}
				rec := httptest.NewRecorder()
				box.ServeHTTP(rec, r)
				rw.Header()["Content-Type"] = []string{kind}
				rw.WriteHeader(rec.Code)
				_, _ = rw.Write(rec.Body.Bytes())
			}))
			t.Cleanup(srv.Close)
			s := c.connect(t, srv.URL+"/"+c.name, "", Options{})
			if r := s.Write(within(t), Upsert, c.rows(1))[0]; r.Class != OK || r.ID == "" {
				t.Errorf("%q: %+v", kind, r)
			}
			bad := c.row("bad")
			bad.Values["shoe_size"] = "44"
			if r := s.Write(within(t), Upsert, []Row{bad})[0]; r.Class != Rejected || !blames(r, "shoe_size") {
				t.Errorf("%q: %+v", kind, r)
			}
		}
	})
}

// A success that says that it is none keeps the CRM's words.
func TestConformSuccessThatIsNone(t *testing.T) {
	t.Parallel()
	bodies := map[string]string{
		"attio":      `{"status_code":400,"type":"x","code":"value_not_found","message":"out of order"}`,
		"dataverse":  `{"error":{"code":"0x80040216","message":"out of order"}}`,
		"hubspot":    `{"status":"error","category":"VALIDATION_ERROR","message":"out of order"}`,
		"pipedrive":  `{"success":false,"error":"out of order","error_info":"x","errorCode":400,"data":null,"code":"ERR"}`,
		"salesforce": `[{"errorCode":"UNKNOWN_EXCEPTION","message":"out of order"},{"errorCode":"X","message":"y"}]`,
		"zoho":       `{"code":"UNKNOWN","details":{},"message":"out of order","status":"error"}`,
	}
	eachCRM(t, func(t *testing.T, c *crm) {
		w := c.open(t, sandbox.Options{}, "")
		w.sink.Probe(within(t))
		w.Fault(sandbox.Fault{Path: c.api, Effect: sandbox.EffectStatus, Status: 200, Body: bodies[c.name]})
		for _, op := range []Operation{Upsert, Create, Find} {
			r := w.sink.Write(within(t), op, c.rows(1))[0]
			if r.Class != Unavailable && !(c.name == "salesforce" && r.Class == Rejected) || !strings.Contains(r.Message, "out of order") {
				t.Errorf("%s: %s", op, fmt.Sprintf("%+v", r))
			}
		}
	})
}
