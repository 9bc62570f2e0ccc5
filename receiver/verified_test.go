package receiver

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/receiver/spool"
)

// How a request proved who sent it is stored with its event, by way of the spool too.
func TestVerifiedByIsKept(t *testing.T) {
	t.Parallel()
	sources := load(t, senders)
	for _, spooled := range []bool{false, true} {
		t.Run(fmt.Sprintf("spooled %v", spooled), func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			db := &switched{Ledger: ledger.New(pool)}
			db.away.Store(spooled)
			onDisk := openSpool(t, spool.Options{})
			s := start(t, Options{Ledger: db, Spool: onDisk})
			c := client(t)
			for _, tt := range []struct {
				path, body, header string
				signed             string // the text that the signature is of; "" for none
				want               string
			}{
				{"/hooks/shop/deal.created?token=" + token, `{"key":"a","at":1}`, "", "", "token in the query"},
				{"/hooks/shop/deal.created", `{"key":"b","at":1}`, "Authorization: Bearer " + token, "", "token as bearer"},
				{"/hooks/shop/deal.created", `oops`, "Authorization: Bearer " + token, "", "token as bearer"},
				{"/hooks/near/thing", `{"n":1}`, "", "", "allow_ips"},
				{"/hooks/signed/thing", `{"n":1}`, "", `{"n":1}`, "hmac X-Signature"},
				{"/hooks/signed/thing", zipped(`{"n":2}`), "Content-Encoding: gzip", `{"n":2}`, "hmac X-Signature"},
			} {
				req := must(http.NewRequest(http.MethodPost, s.url+tt.path, strings.NewReader(tt.body)))
				if name, value, ok := strings.Cut(tt.header, ": "); ok {
					req.Header.Set(name, value)
				}
				if tt.signed != "" {
					sources["signed"].Sign(req, []byte(tt.signed), time.Now())
				}
				got := send(t, c, req)
				if got.code != 202 && got.code != 400 {
					t.Errorf("%s: got %d %s", tt.want, got.code, got.text)
					continue
				}
				waitFor(t, "the event", func() bool {
					db.away.Store(false)
					found := rows(t, pool, `SELECT verified_by FROM events WHERE id = $1`, got.id)
					if len(found) == 1 && found[0] != tt.want {
						t.Fatalf("verified by %q, want %q", found[0], tt.want)
					}
					return len(found) == 1
				})
				db.away.Store(spooled)
			}
		})
	}
}
