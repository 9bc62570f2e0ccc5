package main

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
)

// tried runs a command and returns its exit code and all that it has said.
func (w *world) tried(args ...string) (int, string) {
	w.t.Helper()
	cmd := w.command(args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}

// misspelt names a property that the CRM does not have.
var misspelt = strings.Replace(shopConfig, "title: event.name", "titel: event.name", 1)

func TestCheckLive(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config string
		give   func(w *world)
		code   int
		want   string
	}{
		{"all is there", shopConfig, nil, 0, "crm: the CRM has what the mappings name, in 2 places\n"},
		{"a property that is not there", misspelt, nil, 2, `config.yaml:27:11: error: orders of sink "crm" have no field "titel"`},
		{"a token that may not look", shopConfig, func(w *world) {
			w.box.Fault(sandbox.Fault{Effect: sandbox.EffectStatus, Status: 403, Body: `{"category":"MISSING_SCOPES","message":"lacks a scope"}`})
		}, 1, "could not look at everything:\n  crm: orders: HTTP 403: "},
		{"no credentials", shopConfig, func(w *world) { w.env = append(w.env, "CRM_TOKEN=") }, 1, "  crm: its credentials are not set here\n"},
		{"a CRM that does not answer", shopConfig, func(w *world) { w.box.Fault(sandbox.Fault{Effect: sandbox.EffectReset}) }, 1, "  crm: orders: "},
		{"a sink that cannot be asked", strings.Replace(shopConfig, "    preset: hubspot\n", "    preset: webhook\n    url: https://hooks.example/in\n", 1) + "",
			nil, 0, "crm: not looked at: it does not tell what it has\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := tt.config
			if strings.Contains(text, "preset: webhook") {
				text = strings.NewReplacer("    base_url: \"${CRM_URL}\"\n", "", "    auth: {token: \"${CRM_TOKEN}\"}\n", "").Replace(text)
			}
			w := newWorld(t, text, "")
			if tt.give != nil {
				tt.give(w)
			}
			code, said := w.tried("check", "--live")
			if code != tt.code || !strings.Contains(said, tt.want) {
				t.Errorf("exit code %d, want %d:\n%s", code, tt.code, said)
			}
			if strings.Contains(said, crmToken) {
				t.Error("the token is told")
			}
		})
	}
}

// A config for which the CRM lacks more than for the one in force is refused, unless somebody insists. What it lacked before is no
// news.
func TestReloadThatMakesThingsWorse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := l.Addr().String()
	l.Close()
	listening := func(text string) string {
		return strings.Replace(text, `admin: {listen: "127.0.0.1:0"}`, `admin: {listen: "`+admin+`"}`, 1)
	}
	w := newWorld(t, listening(shopConfig), pgtest.URL(t))
	s := w.start()
	s.until("somebody has looked", func() bool { return strings.Contains(page(s), "config_live_errors") })
	if n := s.metric(`config_live_errors{sink="crm"}`); n != 0 {
		t.Errorf("%v errors", n)
	}

	w.write(listening(misspelt))
	const told = `orders of sink "crm" have no field "titel"`
	if code, said := s.ask(http.MethodPost, s.admin+"/-/reload"); code != http.StatusUnprocessableEntity || !strings.Contains(said, told) || !strings.Contains(said, "config.yaml:27:11") {
		t.Errorf("%d %s", code, said)
	}
	if code, said := w.tried("reload"); code != 1 || !strings.Contains(said, told) || !strings.Contains(said, "the former one stays in force") {
		t.Errorf("%d %s", code, said)
	}
	if s.metric("config_last_reload_successful") != 0 {
		t.Error("the metric does not tell of it")
	}
	if code, said := w.tried("reload", "--force"); code != 0 || said != "the config is in force\n" {
		t.Errorf("%d %s", code, said)
	}
	s.until("the error is counted", func() bool { return s.metric(`config_live_errors{sink="crm"}`) == 1 })
	s.until("sinks tells of it", func() bool {
		return strings.Contains(w.run("sinks"), "crm: the CRM lacks 1 of what the mappings name, or has it otherwise")
	})

	w.write(strings.Replace(listening(misspelt), "mappings:", "# moved down\n\nmappings:", 1))
	if code, said := w.tried("reload"); code != 0 {
		t.Errorf("what was wrong before is no reason: %d %s", code, said)
	}
	// A CRM that does not answer holds nothing up.
	lift := w.box.Fault(sandbox.Fault{Effect: sandbox.EffectReset})
	w.write(strings.Replace(listening(misspelt), "titel", "titul", 1))
	if code, said := w.tried("reload"); code != 0 {
		t.Errorf("the CRM is away: %d %s", code, said)
	}
	lift()
	s.stop()
}

func page(s *server) string {
	_, text := s.get(s.admin + "/metrics")
	return text
}
