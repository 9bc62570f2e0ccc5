package jobs

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/records"
)

// hold puts a server before the CRM that holds back the answer to the first POST whose body has a text,
// until free is called: held is closed when the CRM has carried the request out. No request
// times out meanwhile. The workers are to be started afterwards.
func (r *rig) hold(text string) (held <-chan struct{}, free func()) {
	r.t.Helper()
	done, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		r.box.ServeHTTP(rec, q)
		if q.Method == http.MethodPost && bytes.Contains(body, []byte(text)) {
			once.Do(func() {
				close(done)
				<-release
			})
		}
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		_, _ = rec.Body.WriteTo(w)
	}))
	r.t.Cleanup(front.Close)
	free = sync.OnceFunc(func() { close(release) })
	r.t.Cleanup(free)
	r.load(strings.NewReplacer(r.crm.URL, front.URL, "timeout: 5s", "timeout: 2m").Replace(r.text))
	return done, free
}

// The CRM makes a contact, and its answer is late: until that has come, another key of the
// contact is refused, for the contact that is there, and written. Both are one record all the same.
func TestKeysThatMeetBeforeTheFirstIsKnown(t *testing.T) {
	t.Parallel()
	s := peopleSetup()
	s.idle = true
	r := newRig(t, s)
	made, free := r.hold(`"p1"`)
	r.start()

	first := r.accept(person("p1", 5, "name", "Ann", "partner", "second"))
	<-made
	second := r.accept(person("p2", 3, "name", "Anna", "description", "Doe", "partner", "first"))
	r.until("the second key has been answered", func() bool {
		return r.count(`routes WHERE outcome IS NOT NULL`) == 1
	})
	free()
	for id, f := range r.ended(append(first, second...)...) {
		if f.Outcome != ledger.Delivered && f.Outcome != ledger.Stale {
			t.Errorf("%s: %+v", id, f)
		}
	}
	list := r.box.Records("hubspot", "contacts")
	if len(list) != 1 || list[0].Properties["firstname"] != "Ann" || list[0].Properties["lastname"] != "Doe" || list[0].Properties["jobtitle"] != "first" {
		t.Errorf("%+v", list)
	}
	if n := r.count("records WHERE sink = 'crm'"); n != 1 {
		t.Errorf("%d records", n)
	}
}

// Of a record that two keys name, both with a request that may still take effect, the
// later of the two counts.
func TestRecordStaysShutForTheLongerOfTwo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocks()
		one, other := records.Key{Object: "contacts", Key: "1"}, records.Key{Object: "contacts", Key: "2"}
		rec := &records.Record{ID: uuid.UUID{15: 1}}
		open := func(k records.Key) bool {
			b, j := &batch{}, &job{done: make(chan error, 1)}
			taken := l.claimKeys(b, j, []records.Key{k})
			l.release(b)
			return taken
		}
		whole := func() bool {
			b, j := &batch{}, &job{done: make(chan error, 1)}
			taken := l.claimRecords(b, j, []uuid.UUID{rec.ID})
			l.release(b)
			return taken
		}
		for range 20 { // in whatever order
			l.release(&batch{works: []*records.Work{
				{Record: rec, Hold: time.Second, Deliveries: []*records.Delivery{{Key: one}}},
				{Record: rec, Hold: 3 * time.Second, Deliveries: []*records.Delivery{{Key: other}}},
			}})
			time.Sleep(2 * time.Second)
			if whole() || !open(one) || open(other) {
				t.Fatalf("after two seconds of three: %v", l.blocked)
			}
			time.Sleep(2 * time.Second)
			if !whole() || !open(one) || !open(other) {
				t.Fatalf("never opened: %v", l.blocked)
			}
		}
	})
}

// An archive whose answer was lost may have taken place: nothing is linked to the record
// until that is known, since the CRM's refusal would end the delivery.
func TestNoLinksOfWhatMayBeArchived(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, mappings: `
mappings:
  - name: deals
    on: shop.deal.updated
    to: crm
    object: orders
    key: {order_key: event.key}
    if_deleted: recreate
    set: {title: event.name}
    links: [{to: firms, key: {firm_key: event.company}, only: one, missing: create}]
  - name: endings
    on: shop.company.deleted
    to: crm
    object: orders
    mode: archive
    key: {order_key: event.key}
`})
	r.box.Fault(sandbox.Fault{Path: "/archive", Count: 1, Effect: sandbox.EffectReset, Apply: true})
	wish, end := r.accept(deal("o1", 1, "name", "x", "company", "f1"))[0], r.accept(shopEvent("company.deleted", "o1", 2))[0]
	r.oneJob(wish.String(), end.String())
	r.start()
	for id, f := range r.ended(wish, end) {
		if f.Outcome == ledger.Dead {
			t.Errorf("%s: %+v", id, f)
		}
	}
	if n := len(r.box.Records("hubspot", "orders")); n != 0 {
		t.Errorf("%d orders", n)
	}
}
