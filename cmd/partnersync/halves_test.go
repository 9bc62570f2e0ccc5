package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
)

// The receiver runs without the CRM's secrets and the worker without the sender's; together they deliver.
func TestHalvesKnowTheirOwnSecretsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	all := w.env
	without := func(prefix string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(kv string) bool { return strings.HasPrefix(kv, prefix) })
	}
	w.env = without("CRM_")
	receiver := w.start("--only", "receive")
	w.env = without("HOOK_")
	worker := w.start("--only", "work")
	for _, s := range []*server{receiver, worker} {
		if strings.Contains(s.said(), "environment variable") {
			t.Errorf("it tells of what it does not need:\n%s", s.said())
		}
	}
	receiver.until("it has joined", func() bool { _, err := receiver.post("a", 1, "x"); return err == nil })
	worker.until("it is delivered", func() bool { return w.titles()["a"] == "x" })
	// A reload reads as the start did.
	for _, s := range []*server{receiver, worker} {
		if code, said := s.ask(http.MethodPost, s.admin+"/-/reload"); code != 200 {
			t.Errorf("the reload: %d %s", code, said)
		}
	}
	receiver.mustPost("b", 1, "y")
	worker.until("it is delivered", func() bool { return w.titles()["b"] == "y" })
	receiver.stop()
	worker.stop()
}
