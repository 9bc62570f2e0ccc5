package secret_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"partnersync/internal/secret"
)

func TestEveryWayOfPrintingHides(t *testing.T) {
	t.Parallel()
	s := secret.New("hunter22")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", s)
	body, err := json.Marshal(map[string]any{"a": s})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s),
		fmt.Sprintf("%+v", struct{ Token secret.String }{s}), log.String(), string(body),
	} {
		if strings.Contains(got, "hunter22") {
			t.Errorf("leaks: %s", got)
		}
	}
	if s.Reveal() != "hunter22" {
		t.Error("Reveal must give the text")
	}
}

func TestRedactHidesTheLongerSecretWhole(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(secret.New("abcd"), secret.New("abcdefgh"), secret.New("x"))
	if got, want := r.Redact("token=abcdefgh, x, abcd"), "token=<secret>, x, <secret>"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
