package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// A page of another site can have a browser of this machine ask for things; it gets and changes nothing.
func TestPagesOfOthersGetNothing(t *testing.T) {
	t.Parallel()
	open := newWorld(t, shopConfig, pgtest.URL(t)).start()
	const token = "token-of-the-admin-listener"
	guarded := newWorld(t, strings.Replace(shopConfig, `admin: {listen: "127.0.0.1:0"}`, `admin: {listen: "127.0.0.1:0", token: `+token+`}`, 1), pgtest.URL(t)).start()
	box := httptest.NewServer(sandboxHandler(sandbox.New(sandbox.Options{}), "crm.example:8090"))
	t.Cleanup(box.Close)
	for _, tt := range []struct {
		name, base, method, path, host string
		header                         map[string]string
		want                           int
	}{
		{"a program", open.admin, "POST", "/-/reload", "", nil, 200},
		{"this machine by name", open.admin, "POST", "/-/reload", "localhost:8081", nil, 200},
		{"the other loopback", open.admin, "GET", "/metrics", "[::1]:8081", nil, 200},
		{"our own page", open.admin, "POST", "/-/reload", "localhost:8081", map[string]string{"Origin": "http://localhost:8081", "Sec-Fetch-Site": "same-origin"}, 200},
		{"typed into the browser", open.admin, "GET", "/metrics", "", map[string]string{"Sec-Fetch-Site": "none"}, 200},
		{"a form of another site", open.admin, "POST", "/-/reload", "", map[string]string{"Origin": "https://evil.example", "Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site"}, 403},
		{"a form of another port", open.admin, "POST", "/-/reload", "", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"an old browser", open.admin, "POST", "/-/reload", "", map[string]string{"Origin": "https://evil.example"}, 403},
		{"a file", open.admin, "POST", "/-/reload", "", map[string]string{"Origin": "null"}, 403},
		{"another name of this machine", open.admin, "GET", "/metrics", "evil.example", nil, 421},
		{"another name with a port", open.admin, "POST", "/-/reload", "evil.example:8081", map[string]string{"Origin": "http://evil.example:8081", "Sec-Fetch-Site": "same-origin"}, 421},
		{"a name that looks like an address", open.admin, "GET", "/metrics", "127.0.0.1.evil.example", nil, 421},
		{"a name that begins like ours", open.admin, "GET", "/metrics", "localhost.evil.example", nil, 421},
		{"a probe by name", open.admin, "GET", "/readyz", "pod.example", nil, 200},
		{"the token by another name", guarded.admin, "GET", "/metrics", "metrics.example", map[string]string{"Authorization": "Bearer " + token}, 200},
		{"no token", guarded.admin, "GET", "/metrics", "", nil, 401},
		{"a form, and the browser knows the token", guarded.admin, "POST", "/-/reload", "", map[string]string{"Authorization": "Bearer " + token, "Origin": "https://evil.example"}, 403},
		{"the sandbox's page", box.URL, "GET", "/", "", nil, 200},
		{"the sandbox's page by its name", box.URL, "GET", "/records.json", "crm.example:8090", nil, 200},
		{"the sandbox's page by another", box.URL, "GET", "/", "evil.example", nil, 421},
		{"the sandbox's records by another", box.URL, "GET", "/records.json", "evil.example", nil, 421},
		{"the sandbox's faults by a page", box.URL, "DELETE", "/faults", "", map[string]string{"Origin": "https://evil.example"}, 403},
		{"the CRM by any name", box.URL, "GET", "/hubspot/account-info/v3/details", "api.hubapi.com", map[string]string{"Authorization": "Bearer x"}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), tt.method, tt.base+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = tt.host
			for name, value := range tt.header {
				r.Header.Set(name, value)
			}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != tt.want {
				t.Errorf("%d, want %d", res.StatusCode, tt.want)
			}
		})
	}
	open.stop()
	guarded.stop()
}
