package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/receiver/spool"
)

func openSpool(t testing.TB, o spool.Options) *spool.Spool {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the spool: %v", err)
		}
	})
	return s
}

// database stands for a Postgres that a test takes away.
type database struct {
	takes  time.Duration // a commit
	mu     sync.Mutex
	away   error         // nil: it is there
	hangs  chan struct{} // it does not answer until this is closed
	tries  int
	events []ledger.Incoming // in the order in which they were stored
}

func (d *database) Accept(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error) {
	d.mu.Lock()
	d.tries++
	hangs := d.hangs
	d.mu.Unlock()
	if hangs != nil {
		select {
		case <-hangs:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	time.Sleep(d.takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return nil, d.away
	}
	for _, e := range events {
		e.Body = slices.Clone(e.Body)
		d.events = append(d.events, e)
	}
	return accepted(events), nil
}

func (d *database) set(away error, hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hangs != nil {
		close(d.hangs)
		d.hangs = nil
	}
	if d.away = away; hangs {
		d.hangs = make(chan struct{})
	}
}

func (d *database) entities() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []string
	for _, e := range d.events {
		list = append(list, e.Entity)
	}
	return list
}

// lockedText is a log that is read while it is written.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

var errAway = errors.New("connection refused")

func deals(from, to int) []string {
	var list []string
	for n := from; n < to; n++ {
		list = append(list, fmt.Sprintf("deal:d%d", n))
	}
	return list
}

func TestSpool(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		away  error
		hangs bool
		first time.Duration // until the first answer
	}{
		{"Postgres refuses connections", errAway, false, 0},
		{"Postgres hangs", nil, true, 1200 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onDisk := openSpool(t, spool.Options{})
			synctest.Test(t, func(t *testing.T) {
				var logged lockedText
				db := &database{}
				db.set(tt.away, tt.hangs)
				b := newBubble(t, Options{Ledger: db, Spool: onDisk, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
				defer b.close()
				start := time.Now()
				first := <-b.deal(0)
				var fields string
				if got := strings.TrimSpace(first.Body.String()); first.Code != 202 || !strings.HasSuffix(got, `","status":"stored"}`) {
					t.Fatalf("got %d %s", first.Code, got)
				} else {
					fields = got
				}
				if took := time.Since(start); took != tt.first {
					t.Errorf("the first is answered after %s, want %s", took, tt.first)
				}
				// The others do not wait for Postgres any more.
				next := time.Now()
				for n := range 9 {
					b.want(http.StatusAccepted, b.deal(n+1))
				}
				if took := time.Since(next); took != 0 {
					t.Errorf("the others wait %s", took)
				}
				if onDisk.Len() != 10 || !b.Spools() {
					t.Errorf("%d events are in the spool, want 10", onDisk.Len())
				}
				db.set(nil, false)
				time.Sleep(drainTimeout + lastPause)
				if diff := cmp.Diff(deals(0, 10), db.entities()); diff != "" {
					t.Errorf("stored: %s", diff)
				}
				synctest.Wait()
				if e := db.events[0]; !strings.Contains(fields, e.ID.String()) || !e.ReceivedAt.Equal(start) || !e.Again || string(e.Body) != `{"key":"d0"}` {
					t.Errorf("the first is stored as %+v, answered was %s", e, fields)
				}
				if onDisk.Len() != 0 {
					t.Errorf("%d events are left in the spool", onDisk.Len())
				}
				// Now they go to Postgres again.
				b.want(http.StatusAccepted, b.deal(10))
				if last := db.events[len(db.events)-1]; last.Entity != "deal:d10" || last.Again {
					t.Errorf("stored is %+v", last)
				}
				synctest.Wait()
				if got := strings.Count(logged.String(), "\n"); got != 3 {
					t.Errorf("logged %d lines, want one at the beginning and two at the end:\n%s", got, &logged)
				}
			})
		})
	}
}

// No event overtakes one that was acknowledged before it came, whenever Postgres
// comes and goes.
func TestSpoolKeepsTheOrder(t *testing.T) {
	t.Parallel()
	onDisk := openSpool(t, spool.Options{SegmentBytes: 10_000})
	synctest.Test(t, func(t *testing.T) {
		db := &database{takes: 20 * time.Millisecond} // so that something new is always there
		b := newBubble(t, Options{Ledger: db, Spool: onDisk})
		defer b.close()
		ctx, stop := context.WithCancel(t.Context())
		const senders = 6
		var sent [senders]int
		var group sync.WaitGroup
		for n := range senders {
			group.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					got := <-b.post("/hooks/shop/partner.changed", fmt.Sprintf(`{"id":%d,"group":"%d"}`, n, i))
					if got.Code != 202 {
						t.Errorf("got %d %s", got.Code, got.Body)
					}
					sent[n]++
					time.Sleep(time.Duration(5+n) * time.Millisecond)
				}
			})
		}
		for round := range 8 {
			time.Sleep(time.Duration(60+37*round) * time.Millisecond)
			if round%3 == 0 {
				db.set(nil, true)
			} else {
				db.set(errAway, false)
			}
			time.Sleep(time.Duration(50+91*round) * time.Millisecond)
			db.set(nil, false)
		}
		time.Sleep(drainTimeout + lastPause)
		stop()
		group.Wait()
		time.Sleep(lastPause)
		synctest.Wait()
		var stored [senders]int
		var again [senders]bool // whether its last came out of the spool
		spooled := 0
		for _, e := range db.events {
			var n, i int
			if _, err := fmt.Sscanf(string(e.Body), `{"id":%d,"group":"%d"}`, &n, &i); err != nil {
				t.Fatal(err)
			}
			if i != stored[n] {
				t.Fatalf("of sender %d event %d is stored where %d comes next", n, i, stored[n])
			}
			stored[n]++
			if again[n] = e.Again; e.Again {
				spooled++
			}
		}
		if diff := cmp.Diff(sent, stored); diff != "" {
			t.Errorf("stored: %s", diff)
		}
		if spooled < 100 {
			t.Errorf("%d of %d events came out of the spool", spooled, len(db.events))
		}
		if again != [senders]bool{} {
			t.Error("under load the spool is never left again")
		}
	})
}

func TestSpoolIsFull(t *testing.T) {
	t.Parallel()
	onDisk := openSpool(t, spool.Options{MaxBytes: 3 << 20, SegmentBytes: 100 << 10})
	synctest.Test(t, func(t *testing.T) {
		db := &database{away: errAway}
		var logged lockedText
		b := newBubble(t, Options{Ledger: db, Spool: onDisk, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		defer b.close()
		large := func() <-chan *httptest.ResponseRecorder {
			return b.post("/hooks/posts/thing", `{"n":"`+strings.Repeat("x", 200<<10)+`"}`)
		}
		stored := 0
		for {
			got := <-large()
			if got.Code == 503 {
				break
			}
			if stored++; got.Code != 202 {
				t.Fatalf("got %d %s", got.Code, got.Body)
			}
		}
		if stored != 15 {
			t.Errorf("%d events of 200 KiB were stored in 3 MiB", stored)
		}
		if b.Spools() {
			t.Error("it is ready without room")
		}
		b.want(503, large())
		if got := <-b.deal(1); got.Code != 202 {
			t.Errorf("a small one is answered %d %s", got.Code, got.Body)
		}
		stored++
		// One that does not fit never fails those beside it.
		answers := []<-chan *httptest.ResponseRecorder{b.deal(2), b.deal(3), large(), b.deal(4)}
		codes := map[int]int{}
		for _, a := range answers {
			codes[(<-a).Code]++
		}
		if diff := cmp.Diff(map[int]int{202: 3, 503: 1}, codes); diff != "" {
			t.Error(diff)
		}
		stored += 3
		db.set(nil, false)
		time.Sleep(2 * lastPause)
		synctest.Wait()
		if len(db.events) != stored {
			t.Errorf("%d events are stored, want %d", len(db.events), stored)
		}
		b.want(202, large())
		synctest.Wait()
		if !strings.Contains(logged.String(), "the spool is full") {
			t.Errorf("logged is\n%s", &logged)
		}
	})
}

// faulty is a spool whose disk fails when a test says so.
type faulty struct {
	*spool.Spool
	mu           sync.Mutex
	append, peek error
	hang         chan struct{}
}

func (f *faulty) set(append, peek error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.append, f.peek = append, peek
}

func (f *faulty) Append(records []spool.Record) error {
	f.mu.Lock()
	err, hang := f.append, f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if err != nil {
		return err
	}
	return f.Spool.Append(records)
}

func (f *faulty) Peek(most int, bytes int64) ([]spool.Record, error) {
	f.mu.Lock()
	err := f.peek
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return f.Spool.Peek(most, bytes)
}

func TestSpoolCannotBeWritten(t *testing.T) {
	t.Parallel()
	onDisk := &faulty{Spool: openSpool(t, spool.Options{})}
	synctest.Test(t, func(t *testing.T) {
		db := &database{away: errAway}
		var logged lockedText
		b := newBubble(t, Options{Ledger: db, Spool: onDisk, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		defer b.close()
		b.want(202, b.deal(0))
		onDisk.set(fmt.Errorf("write to a segment: %w", syscall.ENOSPC), nil)
		b.want(503, b.deal(1), b.deal(2))
		b.want(503, b.deal(3))
		if b.Spools() {
			t.Error("it is ready without a disk")
		}
		time.Sleep(diskPause + 1)
		if !b.Spools() {
			t.Error("the disk is given no other try")
		}
		onDisk.set(nil, syscall.EIO)
		b.want(202, b.deal(4))
		synctest.Wait()
		if got := strings.Count(logged.String(), "no space left on device"); got != 1 {
			t.Errorf("a full disk is reported %d times", got)
		}
		// It cannot be read: nothing is lost, and nothing overtakes.
		db.set(nil, false)
		time.Sleep(10 * lastPause)
		b.want(202, b.deal(5))
		synctest.Wait()
		if len(db.events) != 0 {
			t.Errorf("%q overtook the spool", db.entities())
		}
		onDisk.set(nil, nil)
		time.Sleep(2 * lastPause)
		if diff := cmp.Diff([]string{"deal:d0", "deal:d4", "deal:d5"}, db.entities()); diff != "" {
			t.Error(diff)
		}
		synctest.Wait()
		if got := strings.Count(logged.String(), "input/output error"); got != 1 {
			t.Errorf("a disk that cannot be read is reported %d times:\n%s", got, &logged)
		}
	})
}

func TestSpoolHangs(t *testing.T) {
	t.Parallel()
	onDisk := &faulty{Spool: openSpool(t, spool.Options{}), hang: make(chan struct{})}
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		onDisk.hang = hang
		const most = 1 << 20
		db := &database{}
		db.set(nil, true)
		b := newBubble(t, Options{Ledger: db, Spool: onDisk, Queue: 10, MaxBytes: most})
		defer b.close()
		start := time.Now()
		var answers []<-chan *httptest.ResponseRecorder
		for range 30 {
			answers = append(answers, b.post("/hooks/posts/thing", `{"n":"`+strings.Repeat("x", 100<<10)+`"}`))
			synctest.Wait()
			if held := b.held.Load(); held > most {
				t.Fatalf("%d bytes are held, allowed are %d", held, most)
			}
		}
		b.want(503, answers...)
		if took := time.Since(start); took > 1800*time.Millisecond {
			t.Errorf("the last is answered after %s", took)
		}
		close(hang)
		synctest.Wait()
		if held := b.held.Load(); held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
	})
}

// Postgres is back for a moment and hangs again while new events wait for the last
// of the spool.
func TestSpoolIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	onDisk := openSpool(t, spool.Options{})
	synctest.Test(t, func(t *testing.T) {
		const away, back, hangs = 0, 1, 2
		var phase atomic.Int32
		b := newBubble(t, Options{Spool: onDisk, Ledger: committer(
			func(ctx context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
				switch phase.Load() {
				case away:
					return nil, errAway
				case back:
					if onDisk.Len()-len(events) < maxBatchEvents {
						phase.Store(hangs)
					}
					return accepted(events), nil
				}
				<-ctx.Done()
				return nil, ctx.Err()
			})})
		defer b.close()
		for n := range maxBatchEvents + 10 {
			b.want(202, b.deal(n))
		}
		phase.Store(back)
		time.Sleep(lastPause)
		if n := onDisk.Len(); phase.Load() != hangs || n == 0 || n >= maxBatchEvents {
			t.Fatalf("%d events are in the spool, want a few", n)
		}
		for n, most := range []time.Duration{1200 * time.Millisecond, 0} {
			start := time.Now()
			b.want(202, b.deal(1000+n))
			if took := time.Since(start); took > most {
				t.Errorf("new event %d waits %s", n, took)
			}
		}
	})
}

// What is in the spool when the process stops is stored by the next one.
func TestSpoolOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	onDisk := openSpool(t, spool.Options{Dir: dir})
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		db.set(nil, true)
		b := newBubble(t, Options{Ledger: db, Spool: onDisk})
		b.want(202, b.deal(0), b.deal(1))
		b.want(202, b.deal(2))
		late := b.deal(3)
		synctest.Wait()
		stopped := time.Now()
		b.stop()
		b.want(202, late)
		b.close()
		if took := time.Since(stopped); took > time.Second {
			t.Errorf("the stop takes %s", took)
		}
		b.want(503, b.deal(4))
	})
	if err := onDisk.Close(); err != nil {
		t.Fatal(err)
	}
	onDisk = openSpool(t, spool.Options{Dir: dir})
	synctest.Test(t, func(t *testing.T) {
		db := &database{}
		b := newBubble(t, Options{Ledger: db, Spool: onDisk})
		defer b.close()
		// From the first request on, new events stand behind those of the spool.
		b.want(202, b.deal(5))
		time.Sleep(lastPause)
		synctest.Wait()
		got := db.entities()
		slices.Sort(got[:2]) // these came at the same time
		if diff := cmp.Diff([]string{"deal:d0", "deal:d1", "deal:d2", "deal:d3", "deal:d5"}, got); diff != "" {
			t.Error(diff)
		}
	})
}
