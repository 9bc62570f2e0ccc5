package config

import (
	"strings"
	"testing"

	"partnersync/sinks"
)

const halves = `
sources:
  shop:
    verify: {token: "${HOOK}"}
    description: x
    events: {a.b: {schema: {id: id}}}
  signed:
    verify: {standard_webhooks: {secrets: "${SIGNED}"}, allow_ips: "${IPS}"}
    description: x
    events: {a.b: {schema: {id: id}}}
  hashed:
    verify: {hmac: {header: X, secrets: ["${HASHED}", "${file:nowhere}"]}}
    delivery_id: X-Id
    description: x
    events: {a.b: {schema: {id: id}}}
  basic:
    verify: {basic: {username: "${USER_NAME}", password: "${PASSWORD}"}}
    description: x
    events: {a.b: {schema: {id: id}}}
sinks:
  crm: {preset: hubspot, base_url: "${CRM_URL}", auth: {token: "${CRM}"}, headers: {X-Key: "${KEY}"}}
  sf: {preset: salesforce, base_url: "${SF_URL}", auth: {client_id: "${ID}", client_secret: "${SF_SECRET}"}}
  hook: {preset: webhook, url: "${HOOK_URL}", sign: {secret: "${SIGN}"}, timeout: "${TIMEOUT}"}
mappings:
  - {name: m, on: shop.a.b, to: crm, object: deals, key: {deal_key: event.id}}
`

// Each half runs without the secrets of the other, and not without its own.
func TestSparedSecrets(t *testing.T) {
	t.Parallel()
	ours := map[string]string{"HOOK": "hook-token-of-the-shop", "SIGNED": "whsec_c2VjcmV0LW9mLXRoZS1zaWduZXI=", "IPS": "192.0.2.0/24", "HASHED": "secret", "USER_NAME": "u", "PASSWORD": "password-of-the-basic"}
	theirs := map[string]string{"CRM_URL": "https://crm.example", "CRM": "t", "KEY": "k", "SF_URL": "https://sf.example", "ID": "i", "SF_SECRET": "s", "HOOK_URL": "https://hook.example/", "SIGN": "c2VjcmV0", "TIMEOUT": "3s"}
	receive := strings.Replace(halves, `, "${file:nowhere}"`, "", 1) // which no environment has
	for _, tt := range []struct {
		name, spare, give string
		env               map[string]string
		want              string // what the first error is about; "" none
	}{
		{"the receiver without those of the CRMs", "sinks", receive, ours, ""},
		{"the receiver without its own", "sinks", receive, theirs, "the environment variable HOOK is not set"},
		{"the worker without those of the senders", "sources", halves, theirs, ""},
		{"the worker without its own", "sources", halves, ours, "the environment variable CRM_URL is not set"},
		{"both", "", receive, ours, "the environment variable CRM_URL is not set"},
		{"a mistake in what is spared", "sinks", strings.Replace(receive, "timeout: \"${TIMEOUT}\"", "timeout: soon", 1), ours, `"soon" is not a duration`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			getenv := func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }
			cfg, problems := Parse("config.yaml", []byte(tt.give), Options{Getenv: getenv, Spare: tt.spare})
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("it tells of\n%v", problems)
			case tt.want != "" && (cfg != nil || !strings.Contains(problems.Error(), tt.want)):
				t.Errorf("want %q in\n%v", tt.want, problems)
			case cfg != nil:
				for _, d := range cfg.Sinks {
					sinks.New(d, sinks.Options{}).Close() // who makes one of a spared section does not fall
				}
			}
		})
	}
}

// Whoever checks a config need not have its secrets, whatever form those have.
func TestLenientTakesEveryStandIn(t *testing.T) {
	t.Parallel()
	give := strings.Replace(halves, `client_secret: "${SF_SECRET}"`, `username: "${SF_USER}", private_key: "${PRIVATE}"`, 1)
	cfg, problems := Parse("config.yaml", []byte(give), Options{Getenv: func(string) (string, bool) { return "", false }, Lenient: true})
	if cfg == nil {
		t.Fatalf("refused:\n%v", problems)
	}
	for _, p := range problems {
		if !strings.Contains(p.Message, "environment variable") && !strings.Contains(p.Message, "cannot be read here") {
			t.Errorf("besides what is not set: %v", p)
		}
	}
	if len(problems) != 17 {
		t.Errorf("%d warnings:\n%v", len(problems), problems)
	}
}
