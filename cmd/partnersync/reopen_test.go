package main

import (
	"net/http"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
)

// What no config could read is delivered once one can.
func TestReplayMalformed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(shopConfig, "    events:\n", "    wrapped: message\n    events:\n", 1), pgtest.URL(t))
	s := w.start()
	for _, body := range []string{`{"key":"d1","name":"One","at":1700000000,"message":"{oops"}`, `{"key":"d2"`} {
		res, err := http.Post(s.hooks+"/hooks/shop/deal.updated?token="+hookToken, "", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Fatalf("%s is answered %d", body, res.StatusCode)
		}
	}
	s.stop()
	w.write(shopConfig)
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"replay --malformed --all", 2, "leave --all and --rewrite away"},
		{"replay --malformed --list", 2, "stand alone"},
		{"replay --source shop", 1, "malformed, so no mapping can read them (`partnersync replay --malformed` reads them again)"},
		{"replay --malformed --dry-run", 0, "2 malformed events, 1 can be read now: 1 event would be stored\n"},
		{"replay --malformed --until 2020-01-01", 0, "0 malformed events, 0 can be read now: 0 events stored\n"},
		{"replay --malformed --source shop", 0, "2 malformed events, 1 can be read now: 1 event stored\n"},
		{"--json replay --malformed", 0, "\"malformed\": 1,\n  \"readable\": 0,"},
	} {
		if code, out, errOut := w.exec(strings.Fields(tt.args)...); code != tt.code || !strings.Contains(out+errOut, tt.want) {
			t.Errorf("%s: exit %d, %s%s", tt.args, code, out, errOut)
		}
	}
	s = w.start()
	s.until("the event to arrive", func() bool { return w.titles()["d1"] == "One" })
	s.stop()
}
