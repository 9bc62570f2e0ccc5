package config_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"partnersync/internal/config"
	"partnersync/sinks"
)

// Which value a target refuses stays hidden where it came with an event, and is told where it is the config's own.
func TestRefusedConstantsAreTold(t *testing.T) {
	t.Parallel()
	refused := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = fmt.Fprintf(w, `{"message": "%s was not one of [a, b]"}`, refused)
	}))
	t.Cleanup(srv.Close)
	text := `
tables:
  stages: {map: {Won: closed_won_stage, Lost: 4711}, else: value("else_stage")}
sources: {shop: {verify: none, events: {e: {schema: {key: id, name: text, stage: text}, entity: {thing: event.key}}}}}
sinks: {crm: {preset: webhook, url: "` + srv.URL + `"}}
mappings:
  - name: m
    on: shop.e
    to: crm
    object: deals
    key: {id: event.key}
    let: {kind: 'event.name == "vip_person" ? "gold_tier" : value("basic_tier")'}
    when: event.name != "hidden_person"
    set: {stage: 'lookup(event.stage, "stages")', tier: kind, origin: 'event.name ?? "default_origin"', list: '["one_of_list"]'}
`
	cfg, problems := config.Parse("config.yaml", []byte(text), config.Options{})
	if problems.Failed() {
		t.Fatal(problems)
	}
	s := sinks.New(cfg.Sinks["crm"], sinks.Options{})
	t.Cleanup(s.Close)
	for value, told := range map[string]bool{
		"closed_won_stage": true, "4711": true, "else_stage": true, "gold_tier": true, "basic_tier": true, "default_origin": true, "one_of_list": true,
		// These are the sender's, though the config compares with them.
		"vip_person": false, "hidden_person": false, "Won": false, "anybody": false,
	} {
		refused = value
		row := sinks.Row{Trace: "t", Object: "deals", Property: "id", Key: "key-1", Values: map[string]any{"stage": value}}
		r := s.Write(context.Background(), sinks.Upsert, []sinks.Row{row})[0]
		if r.Class != sinks.Rejected || strings.Contains(r.Message, value) != told {
			t.Errorf("%s: %+v", value, r)
		}
	}
}
