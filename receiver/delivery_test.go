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

// A message that comes again under the id that its sender gave it is the same one,
// though others have come meanwhile: a sender repeats what it got no answer for. What
// could not be read may come again.
func TestDeliveryComesAgain(t *testing.T) {
	t.Parallel()
	loaded := load(t, senders)
	for _, source := range []string{"hooked", "numbered"} {
		for _, spooled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, spooled %v", source, spooled), func(t *testing.T) {
				t.Parallel()
				pool := pgtest.Pool(t)
				db := &switched{Ledger: ledger.New(pool)}
				db.away.Store(spooled)
				s := start(t, Options{Ledger: db, Spool: openSpool(t, spool.Options{})})
				c := client(t)
				for _, give := range []struct {
					id, body string
					want     string // without a spool
				}{
					{"msg_1", `{"id":"r","v":"old"}`, "202 stored"},
					{"msg_2", `{"id":"r","v":"new"}`, "202 stored"},
					{"msg_1", `{"id":"r","v":"old"}`, "200 duplicate"},
					{"msg_1", `{"v":"old", "id":"r"}`, "200 duplicate"},
					{"msg_3", `{"id":"r",`, "400 malformed"},
					{"msg_3", `{"id":"r","v":"mended"}`, "202 stored"},
					{"msg_3", `{"id":"r",`, "400 malformed"},
				} {
					req := must(http.NewRequest(http.MethodPost, s.url+"/hooks/"+source+"/thing", strings.NewReader(give.body)))
					req.Header.Set("Webhook-Id", give.id)
					req.Header.Set("X-Delivery", give.id)
					loaded[source].Sign(req, []byte(give.body), time.Now())
					got := send(t, c, req)
					_, status, _ := strings.Cut(got.text, `"status":"`)
					status, _, _ = strings.Cut(status, `"`)
					if answer := fmt.Sprint(got.code, " ", status); answer != give.want && !(spooled && answer == "202 stored") {
						t.Errorf("%s %s is answered %s, want %s", give.id, give.body, answer, give.want)
					}
				}
				db.away.Store(false)
				waitFor(t, "the events", func() bool {
					return rows(t, pool, `SELECT coalesce(sum(1 + duplicates), 0)::text FROM events`)[0] == "7"
				})
				got := fmt.Sprint(rows(t, pool, `SELECT encode(body, 'escape') FROM events WHERE status = 'stored' ORDER BY version_at`))
				if want := `[{"id":"r","v":"old"} {"id":"r","v":"new"} {"id":"r","v":"mended"}]`; got != want {
					t.Errorf("stored are %s, want %s", got, want)
				}
			})
		}
	}
}
