package receiver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/receiver/spool"
)

// sender sends events of one entity without a time, one after the other: they are
// versioned in the order in which they are stored.
type sender struct {
	entity  int
	next    int
	stored  []int // those that were acknowledged
	refused int
}

func (s *sender) send(t *testing.T, c *http.Client, url string) {
	t.Helper()
	got := post(t, c, url+"/hooks/shop/partner.changed", s.body(s.next))
	switch got.code {
	case 202:
		s.stored = append(s.stored, s.next)
	case 503:
		s.refused++
	default:
		t.Errorf("sender %d, event %d: got %d %s", s.entity, s.next, got.code, got.text)
	}
	s.next++
}

func (s *sender) body(n int) string { return fmt.Sprintf(`{"id":%d,"group":"g%d"}`, s.entity, n) }

// checkStored compares what was acknowledged with what is in Postgres: each once, in
// order, with one route and one job. Others were told to come again; they may be
// there or not.
func checkStored(t *testing.T, pool *pgxpool.Pool, senders []*sender) {
	t.Helper()
	for _, s := range senders {
		var got []int
		for _, group := range rows(t, pool, `SELECT substring(encode(body, 'escape') FROM '"g(\d+)"') FROM events WHERE entity = $1 ORDER BY version_at, id`, fmt.Sprint("partner:", s.entity)) {
			n, err := strconv.Atoi(group)
			if err != nil {
				t.Fatal(err)
			}
			if _, acknowledged := slices.BinarySearch(s.stored, n); acknowledged {
				got = append(got, n)
			}
		}
		if diff := cmp.Diff(s.stored, got); diff != "" {
			t.Errorf("entity %d: %s", s.entity, diff)
		}
	}
	for _, what := range []struct{ name, sql string }{
		{"duplicates", `SELECT coalesce(sum(duplicates), 0)::text FROM events`},
		{"events without their one route", `SELECT count(*)::text FROM events e WHERE (SELECT count(*) FROM routes r WHERE r.event_id = e.id) <> 1`},
		{"events without their one job", `SELECT count(*)::text FROM events e WHERE (SELECT count(*) FROM river_job j WHERE j.args->'event_ids' @> to_jsonb(e.id)) <> 1`},
	} {
		if got := rows(t, pool, what.sql); got[0] != "0" {
			t.Errorf("%s %s", got[0], what.name)
		}
	}
}

// smallPool is a pool whose connections are few.
func smallPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 4
	config.AfterConnect = ledger.AfterConnect
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Postgres goes away and comes back, in all ways, while senders send: whatever was
// answered 202 is in Postgres afterwards, once and in order.
func TestSpoolWithPostgresAway(t *testing.T) {
	t.Parallel()
	db := pgtest.Server(t)
	pool := smallPool(t, db.URL())
	onDisk := openSpool(t, spool.Options{SegmentBytes: 50_000})
	const most = 1 << 20
	s := start(t, Options{Ledger: ledger.New(pool), Spool: onDisk, MaxBytes: most})
	c := client(t)
	var sent, pace atomic.Int64
	const fast = int64(40 * time.Millisecond) // a disk takes more than a busy Postgres stores
	pace.Store(fast)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var senders []*sender
	for n := range 12 {
		sender := &sender{entity: n}
		senders = append(senders, sender)
		group.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(pace.Load()))
				sender.send(t, c, s.url)
				sent.Add(1)
				if held := s.held.Load(); held > most {
					t.Errorf("%d bytes are held, allowed are %d", held, most)
				}
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		enough := sent.Load() + n
		waitFor(t, "more events", func() bool { return sent.Load() > enough })
	}
	for _, outage := range []struct {
		name       string
		away, back func(*pgtest.Own)
	}{
		{"stopped", (*pgtest.Own).Stop, (*pgtest.Own).Start},
		{"killed", (*pgtest.Own).Kill, (*pgtest.Own).Start},
		{"frozen", (*pgtest.Own).Pause, (*pgtest.Own).Resume},
		{"frozen again", (*pgtest.Own).Pause, (*pgtest.Own).Resume},
	} {
		more(100)
		outage.away(db)
		waitFor(t, "events in the spool", func() bool { return onDisk.Len() > 200 })
		if !s.Spools() {
			t.Errorf("%s: it is not ready", outage.name)
		}
		outage.back(db)
		// Under load the spool is drained and left. A machine that stores less than is sent is sent less.
		begun := time.Now()
		waitFor(t, "an empty spool", func() bool {
			pace.Store(fast << (time.Since(begun) / (2 * time.Second)))
			return onDisk.Len() == 0
		})
		pace.Store(fast)
		waitFor(t, "events past the spool", func() bool {
			s.queue.mu.Lock()
			defer s.queue.mu.Unlock()
			return s.queue.mode == open
		})
	}
	more(100)
	stop()
	group.Wait()
	waitFor(t, "an empty spool", func() bool { return onDisk.Len() == 0 })
	checkStored(t, pool, senders)
	refused := 0
	for _, s := range senders {
		refused += s.refused
	}
	t.Logf("%d events, %d were told to come again", sent.Load(), refused)
	if int64(refused) > sent.Load()/100 {
		t.Errorf("%d of %d events were told to come again", refused, sent.Load())
	}
	waitFor(t, "nothing held any more", func() bool { return s.held.Load() == 0 })
}

// switched is a ledger that a test takes away.
type switched struct {
	*ledger.Ledger
	away atomic.Bool
}

func (s *switched) Accept(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Ledger.Accept(ctx, events, generation, eventsPerJob)
}

// The same body twice in the spool is one event, under the id that was answered first,
// and a duplicate of it; what has no time of its own keeps its order.
func TestSpoolWithDuplicates(t *testing.T) {
	t.Parallel()
	const (
		timed, other = `{"key":"a","at":1700000000}`, `{"key":"b","at":1700000001}`
		p1, p2       = `{"id":1,"group":"one"}`, `{"id":1,"group":"two"}`
	)
	tests := []struct {
		name    string
		before  []string // stored before Postgres goes
		between int      // other events after each one in the spool
		give    []string
		want    []string // what is stored in the end: body, duplicates and which of the given answers has its id; -1 for before
	}{
		{
			name: "of one batch", give: []string{timed, other, timed, p1, p1, p2, p1},
			want: []string{timed + " 1 0", other + " 0 1", p1 + " 1 3", p2 + " 0 5", p1 + " 0 6"},
		},
		{
			name: "of several batches", between: maxBatchEvents, give: []string{timed, timed, p1, p1, p2, p1},
			want: []string{timed + " 1 0", p1 + " 1 2", p2 + " 0 4", p1 + " 0 5"},
		},
		{
			name: "of what was there before", before: []string{timed, p1}, give: []string{timed, p1, p2, timed, p2, p1},
			want: []string{timed + " 2 -1", p1 + " 1 -1", p2 + " 1 2", p1 + " 0 5"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			db := &switched{Ledger: ledger.New(pool)}
			onDisk := openSpool(t, spool.Options{})
			s := start(t, Options{Ledger: db, Spool: onDisk})
			c := client(t)
			send := func(body string) reply {
				path := "/hooks/shop/deal.created"
				if strings.Contains(body, "group") {
					path = "/hooks/shop/partner.changed"
				}
				return post(t, c, s.url+path, body)
			}
			for _, body := range tt.before {
				if got := send(body); got.code != 202 {
					t.Fatalf("got %d %s", got.code, got.text)
				}
			}
			db.away.Store(true)
			answered := map[string]int{}
			for i, body := range tt.give {
				got := send(body)
				if got.code != 202 || got.text != `{"id":"ID","status":"stored"}` {
					t.Fatalf("got %d %s", got.code, got.text)
				}
				answered[got.id] = i
				var others sync.WaitGroup
				for n := range tt.between {
					others.Go(func() {
						if got := post(t, c, s.url+"/hooks/shop/deal.updated", fmt.Sprintf(`{"key":"x%d-%d","at":1}`, i, n)); got.code != 202 {
							t.Errorf("got %d %s", got.code, got.text)
						}
					})
				}
				others.Wait()
			}
			db.away.Store(false)
			waitFor(t, "an empty spool", func() bool { return onDisk.Len() == 0 })
			var got []string
			for _, line := range rows(t, pool, `SELECT id || ' ' || encode(body, 'escape') || ' ' || duplicates FROM events WHERE type <> 'deal.updated' ORDER BY occurred_at, version_at, id`) {
				id, rest, _ := strings.Cut(line, " ")
				at, known := answered[id]
				if !known {
					at = -1
				}
				got = append(got, fmt.Sprint(rest, " ", at))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// doubtful is a ledger whose answers get lost now and then, after the commit.
type doubtful struct {
	*ledger.Ledger
	calls atomic.Int64
}

func (d *doubtful) Accept(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error) {
	accepted, err := d.Ledger.Accept(ctx, events, generation, eventsPerJob)
	if err == nil && d.calls.Add(1)%4 == 0 {
		return nil, errors.New("the answer was lost")
	}
	return accepted, err
}

// A commit that seemed to fail and did not is not stored twice.
func TestSpoolAfterLostAnswers(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	onDisk := openSpool(t, spool.Options{})
	s := start(t, Options{Ledger: &doubtful{Ledger: ledger.New(pool)}, Spool: onDisk})
	c := client(t)
	var group sync.WaitGroup
	var senders []*sender
	for n := range 8 {
		sender := &sender{entity: n}
		senders = append(senders, sender)
		group.Go(func() {
			for i := range 60 {
				sender.send(t, c, s.url)
				// Events with a time, and such as cannot be told from their equals.
				for _, e := range []struct{ path, body string }{
					{"/hooks/shop/deal.created", fmt.Sprintf(`{"key":"d%d-%d","at":1700000000}`, n, i)},
					{"/hooks/posts/thing", `{"n":1}`},
				} {
					if got := post(t, c, s.url+e.path, e.body); got.code != 202 {
						t.Errorf("got %d %s", got.code, got.text)
					}
				}
			}
		})
	}
	group.Wait()
	waitFor(t, "an empty spool", func() bool { return onDisk.Len() == 0 })
	checkStored(t, pool, senders)
	got := rows(t, pool, `SELECT type || ' ' || count(*) FROM events GROUP BY type ORDER BY 1`)
	if diff := cmp.Diff([]string{"deal.created 480", "partner.changed 480", "thing 480"}, got); diff != "" {
		t.Error(diff)
	}
}

// envReceiver makes the test program a receiver without a Postgres, with a spool in
// this directory.
const envReceiver = "PARTNERSYNC_TEST_RECEIVER"

// receiveForever prints its URL and serves until it is killed.
func receiveForever(dir string) {
	s, err := spool.Open(spool.Options{Dir: dir, SegmentBytes: 20_000})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r := New(Options{Spool: s, Ledger: committer(
		func(context.Context, []ledger.Incoming, int64, int) ([]ledger.Accepted, error) { return nil, errAway },
	)}, routing(&testing.B{}, 1))
	fmt.Println(httptest.NewServer(r.Handler()).URL)
	_ = r.Run(context.Background())
}

// What a receiver has acknowledged from its spool is stored by the next one, however
// the first one ended.
func TestSpoolAfterKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var senders []*sender
	for n := range 8 {
		senders = append(senders, &sender{entity: n})
	}
	for round := range 3 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), envReceiver+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		url, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || !strings.HasPrefix(url, "http") {
			t.Fatalf("the receiver does not start: %s, %v", url, err)
		}
		url = strings.TrimSpace(url)
		var group sync.WaitGroup
		var sent atomic.Int64
		for _, s := range senders {
			group.Go(func() {
				c := client(t)
				for {
					req, err := http.NewRequest(http.MethodPost, url+"/hooks/shop/partner.changed", strings.NewReader(s.body(s.next)))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Authorization", "Bearer "+token)
					res, err := c.Do(req)
					if err != nil {
						s.next++ // it may be stored or not
						return
					}
					res.Body.Close()
					if res.StatusCode != 202 {
						t.Errorf("got %d", res.StatusCode)
						return
					}
					s.stored = append(s.stored, s.next)
					s.next++
					sent.Add(1)
				}
			})
		}
		waitFor(t, "some load", func() bool { return sent.Load() > int64(100+150*round) })
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		_ = child.Wait() // it was killed
	}
	pool := pgtest.Pool(t)
	onDisk := openSpool(t, spool.Options{Dir: dir})
	if onDisk.Len() == 0 {
		t.Fatal("nothing is in the spool")
	}
	s := start(t, Options{Ledger: ledger.New(pool), Spool: onDisk})
	c := client(t)
	for _, sender := range senders {
		sender.send(t, c, s.url)
	}
	waitFor(t, "an empty spool", func() bool { return onDisk.Len() == 0 })
	checkStored(t, pool, senders)
	if old := rows(t, pool, `SELECT count(*)::text FROM events WHERE received_at > now()`); old[0] != "0" {
		t.Errorf("%s events are of the future", old[0])
	}
}

// BenchmarkDrain stores what is in a spool. Compare with BenchmarkReceive.
func BenchmarkDrain(b *testing.B) {
	onDisk := openSpool(b, spool.Options{})
	padding := strings.Repeat("x", 1150)
	var records []spool.Record
	for n := range b.N {
		e := ledger.Incoming{ID: uuid.Must(uuid.NewV7()), Source: "posts", Type: "thing", ReceivedAt: time.Now(), Status: ledger.Stored,
			Body: []byte(fmt.Sprintf(`{"key":"d%d","at":1700000000,"email":"%s"}`, n, padding))}
		record, err := encodeSpooled(&waiting{event: e, named: "thing"})
		if err != nil {
			b.Fatal(err)
		}
		if records = append(records, record); len(records) == maxBatchEvents || n == b.N-1 {
			if err := onDisk.Append(records); err != nil {
				b.Fatal(err)
			}
			records = records[:0]
		}
	}
	pool := pgtest.Pool(b)
	b.ReportAllocs()
	b.ResetTimer()
	start(b, Options{Ledger: ledger.New(pool), Spool: onDisk})
	waitFor(b, "an empty spool", func() bool { return onDisk.Len() == 0 })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// Two receivers have a spool each, and one of them loses sight of Postgres. What arrived
// first and waited in its spool does not win over what came later through the other.
func TestSpoolsKeepTheOrderOfReceipt(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	var away [2]*switched
	var url [2]string
	for i := range away {
		away[i] = &switched{Ledger: ledger.New(pool)}
		url[i] = start(t, Options{Ledger: away[i], Spool: openSpool(t, spool.Options{})}).url
	}
	c := client(t)
	give := func(receiver int, group string) {
		t.Helper()
		if got := post(t, c, url[receiver]+"/hooks/shop/partner.changed", `{"id":1,"group":"`+group+`"}`); got.code != 202 {
			t.Fatalf("%s is answered %d %s", group, got.code, got.text)
		}
	}
	stored := func(want int) {
		t.Helper()
		waitFor(t, "the events", func() bool { return rows(t, pool, `SELECT count(*)::text FROM events`)[0] == fmt.Sprint(want) })
	}
	give(0, "a")
	away[0].away.Store(true)
	give(0, "b")
	give(1, "c")
	give(0, "d")
	away[1].away.Store(true)
	give(1, "e")
	give(0, "f")
	away[0].away.Store(false)
	stored(5)
	away[1].away.Store(false)
	stored(6)
	give(0, "g")
	stored(7)
	got := rows(t, pool, `SELECT convert_from(body, 'utf8')::jsonb->>'group' FROM events ORDER BY version_at, rank, id`)
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e", "f", "g"}, got); diff != "" {
		t.Error(diff)
	}
}

// A clock that is set back does not turn the order in a spool round.
func TestSpoolWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	onDisk := openSpool(t, spool.Options{})
	r := New(Options{Ledger: newReleased(), Spool: onDisk}, routing(t, 1))
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, minutes := range []int{1, 3, 2, 4} {
		event := ledger.Incoming{ID: uuid.Must(uuid.NewV7()), Source: "shop", ReceivedAt: noon.Add(time.Duration(minutes) * time.Minute)}
		w := &waiting{event: event, done: make(chan stored, 1)}
		r.appendToSpool([]*waiting{w})
		if s := <-w.done; s.err != nil {
			t.Fatal(s.err)
		}
	}
	records, err := onDisk.Peek(10, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, record := range records {
		head, _, err := decodeSpooled(record.Data)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, int(head.ReceivedAt.Sub(noon).Minutes()))
	}
	if diff := cmp.Diff([]int{1, 3, 3, 4}, got); diff != "" {
		t.Error(diff)
	}
}
