package receiver

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

// What is kept of a body that cannot be read is enough for a later config to read it, and
// it is stored then where it belongs.
func TestReopen(t *testing.T) {
	t.Parallel()
	const before = `
shop:
  verify: {token: a-token-of-the-tests}
  get: true
  delivery_id: X-Delivery
  wrapped: message
  events: {deal.created: {aliases: [made]}, deal.updated: {aliases: [made]}}
`
	const after = `
shop:
  verify: {token: a-token-of-the-tests}
  get: true
  delivery_id: X-Delivery
  events:
    deal.created: {schema: {key: text, at: time s}, entity: {deal: event.key}, occurred_at: event.at, aliases: [made, Deal Exploded]}
    partner.changed: {schema: {id: id, group: text}, entity: {partner: event.id}, aliases: [changed]}
`
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	s := start(t, Options{Ledger: l})
	s.Use(Routing{Generation: 1, Sources: load(t, before), Sinks: func(string, string) []string { return []string{"crm"} }})
	c := client(t)
	give := func(path, body string, headers ...string) string {
		t.Helper()
		req := must(http.NewRequest(http.MethodPost, s.url+path, strings.NewReader(body)))
		req.Header.Set("Authorization", "Bearer "+token)
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		got := send(t, c, req)
		if got.code != 400 && got.code != 415 {
			t.Fatalf("%s is answered %d %s", body, got.code, got.text)
		}
		return got.id
	}
	const broken = `"message":"{"`
	ids := []string{
		give("/hooks/shop/made", `{"key":"a",`+broken+`}`),
		give("/hooks/shop/Deal%20Exploded", `{"key":"b",`+broken+`}`, "X-Delivery: 7"),
		give("/hooks/shop/changed", "id=1&group=%e9&message=%7b", "Content-Type: application/x-www-form-urlencoded; charset=iso-8859-1"),
		give("/hooks/shop/changed", `[{"id":2,`+broken+`},{"id":3}]`),
		give("/hooks/shop/deal.created", `{"key":"never"`),
		give("/hooks/shop/deal.created", "\x0b\x06", "Content-Encoding: br"),
	}
	// As an earlier version has kept it.
	old := ledger.Incoming{
		ID: uuid.Must(uuid.NewV7()), Source: "shop", Type: "deal.created", ReceivedAt: time.Now(), Status: ledger.Malformed, Body: []byte(zipped(`{"key":"old","at":1}`)),
	}
	if _, err := l.Accept(t.Context(), []ledger.Incoming{old}, 1, 1); err != nil {
		t.Fatal(err)
	}
	// One has come again meanwhile, and one thing has changed since.
	today := Routing{Generation: 2, Sources: load(t, after), Sinks: func(string, string) []string { return []string{"crm"} }}
	s.Use(today)
	req := must(http.NewRequest(http.MethodPost, s.url+"/hooks/shop/made", strings.NewReader(`{"key":"b"}`)))
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Delivery", "7")
	again := send(t, c, req)
	if got := post(t, c, s.url+"/hooks/shop/changed", `{"id":2,"group":"newer"}`); again.code != 202 || got.code != 202 {
		t.Fatalf("got %d %s", got.code, got.text)
	}

	list, err := l.MalformedEvents(t.Context(), ledger.Filter{Source: "shop"}, uuid.Nil, 100)
	if err != nil || len(list) != len(ids)+1 {
		t.Fatalf("%d are malformed, %v", len(list), err)
	}
	duplicates := 0
	for i := range list {
		events, ok := Reopen(today, &list[i])
		if !ok {
			continue
		}
		accepted, err := l.Reopen(t.Context(), list[i].ID, events, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range accepted {
			if a.Duplicate {
				duplicates++
			}
		}
		if _, err := l.Reopen(t.Context(), list[i].ID, events, 2); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("a second time: %v", err)
		}
	}
	if duplicates != 1 {
		t.Errorf("%d have come again meanwhile, want that of delivery 7", duplicates)
	}
	got := rows(t, pool, `
		SELECT concat_ws(' ', e.status, e.type, e.entity, r.sink, encode(e.body, 'escape'), (SELECT count(*) FROM river_job j WHERE j.args->'event_ids' ? e.id::text))
		FROM events e LEFT JOIN routes r ON r.event_id = e.id ORDER BY e.entity, e.version_at, e.id`)
	want := []string{
		`malformed deal.created  {"key":"never" 0`,
		"malformed deal.created  \v\x06 0",
		`stored deal.created deal:a crm {"key":"a","message":"{"} 1`,
		`stored deal.created deal:b crm {"key":"b"} 1`,
		`stored deal.created deal:old crm {"key":"old","at":1} 1`,
		`stored partner.changed partner:1 crm {"group":"\303\251","id":"1","message":"{"} 1`,
		`stored partner.changed partner:2 crm {"id":2,"message":"{"} 1`,
		`stored partner.changed partner:2 crm {"id":2,"group":"newer"} 1`,
		`stored partner.changed partner:3 crm {"id":3} 1`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, i := range []int{0, 2, 3} { // the sender was told these ids
		if n := rows(t, pool, `SELECT status FROM events WHERE id = $1`, ids[i]); fmt.Sprint(n) != "[stored]" {
			t.Errorf("event %d is %s", i, n)
		}
	}
}
