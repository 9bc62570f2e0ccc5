package sinks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"partnersync/internal/sandbox"
)

// A target that says back all that it was sent: credentials and values stay out of
// every word, wherever they stand and wherever the words are cut.
func TestConformEcho(t *testing.T) {
	t.Parallel()
	eachCRM(t, func(t *testing.T, c *crm) {
		for _, before := range []int{0, 290, 440, 470, 485, 495, 4000} {
			for _, asJSON := range []bool{false, true} {
				box := c.serve(t, sandbox.Options{})
				echo := false
				status := 400
				srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if !echo || strings.HasSuffix(r.URL.Path, "/token") {
						box.ServeHTTP(rw, r)
						return
					}
					body, _ := io.ReadAll(r.Body)
					text := strings.Repeat(".", before) + r.Header.Get("Authorization") + r.Header.Get("X-Api-Token") + " " + string(body)
					rw.WriteHeader(status)
					if asJSON {
						// Wherever any of them has its message.
						quoted, _ := json.Marshal(text)
						_, _ = fmt.Fprintf(rw, `{"message":%s,"error":{"message":%s,"code":"E"},"errors":[{"message":%s}]}`, quoted, quoted, quoted)
						return
					}
					_, _ = io.WriteString(rw, text)
				}))
				t.Cleanup(srv.Close)
				s := c.connect(t, srv.URL+"/"+c.name, "", Options{})
				s.Probe(within(t))
				echo = true
				for _, status = range []int{400, 401, 403, 404, 409, 500, 200} {
					row := c.row("1")
					row.Values[c.field] = "private-words-of-a-person"
					r := s.Write(within(t), Create, []Row{row})[0]
					s.limiter.blocked = s.limiter.blocked.AddDate(-1, 0, 0)
					checkWords(t, r)
					for _, part := range []string{static[:6], "sandbox.s", "1000.san", "eyJ0eX", "private"} {
						if strings.Contains(r.Message, part) {
							t.Errorf("%d signs before, status %d: %q in %s", before, status, part, r.Message)
						}
					}
				}
			}
		}
	})
}
