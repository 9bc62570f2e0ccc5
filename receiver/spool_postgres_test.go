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
	var sent atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var senders []*sender
	for n := range 12 {
		sender := &sender{entity: n}
		senders = append(senders, sender)
		group.Go(func() {
			pace := time.NewTicker(40 * time.Millisecond) // a disk takes more than a busy Postgres stores
			defer pace.Stop()
			for ctx.Err() == nil {
				<-pace.C
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
		// Under load the spool is drained and left.
		waitFor(t, "an empty spool", func() bool { return onDisk.Len() == 0 })
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
