package config

import (
	"strings"
	"testing"
)

func TestAdminToken(t *testing.T) {
	t.Parallel()
	const (
		open  = "error: the admin listener is open to whoever can reach it"
		short = "warning: a token of less than 16 characters can be guessed"
		long  = "0123456789abcdef"
	)
	for _, tt := range []struct{ name, give, want string }{
		{"on loopback without", `admin: {listen: "127.0.0.1:8081"}`, ""},
		{"on the other loopback", `admin: {listen: "[::1]:8081", token: "${NOTHING:-}"}`, ""},
		{"everywhere without", `admin: {listen: ":8081"}`, open},
		{"everywhere, forgotten", `admin: {listen: ":8081", token: "${NOTHING:-}"}`, open},
		{"everywhere, empty", `admin: {listen: "0.0.0.0:8081", token: ""}`, open},
		{"everywhere, none", `admin: {listen: ":8081", token: none}`, ""},
		{"everywhere, with one", `admin: {listen: ":8081", token: ` + long + `}`, ""},
		{"a short one", `admin: {listen: ":8081", token: ` + long[1:] + `}`, short},
		{"a short one of a source", "sources: {shop: {verify: {token: abc}, events: {a.b: {schema: {id: id}}}}}", short},
		{"a short one among several", "sources: {shop: {verify: {token: [" + long + ", abc]}, events: {a.b: {schema: {id: id}}}}}", short},
		{"a short password", "sources: {shop: {verify: {basic: {username: u, password: abc}}, events: {a.b: {schema: {id: id}}}}}", short},
		{"long ones", "sources: {shop: {verify: {token: " + long + "}, events: {a.b: {schema: {id: id}}}}}", ""},
		{"one that is not set here", "sources: {shop: {verify: {token: \"${NOTHING}\"}, events: {a.b: {schema: {id: id}}}}}", "warning: the environment variable NOTHING"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, problems := Parse("config.yaml", []byte(tt.give), Options{Getenv: func(string) (string, bool) { return "", false }, Lenient: true})
			var got []string
			for _, p := range problems {
				got = append(got, p.Severity.String()+": "+p.Message)
			}
			if text := strings.Join(got, "; "); tt.want == "" && text != "" || !strings.HasPrefix(text, tt.want) || len(got) > 1 {
				t.Errorf("got %q, want %q", text, tt.want)
			}
			if strings.HasSuffix(tt.name, "none") && (cfg == nil || !cfg.Admin.Token.Empty()) {
				t.Error("none is a token")
			}
		})
	}
}
