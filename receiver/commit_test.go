package receiver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"partnersync/internal/ledger"
)

// committer stands for a Postgres that a test holds back or makes fail.
type committer func(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error)

func (c committer) Accept(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error) {
	return c(ctx, events, generation, eventsPerJob)
}

func accepted(events []ledger.Incoming) []ledger.Accepted {
	list := make([]ledger.Accepted, len(events))
	for i, e := range events {
		list[i].ID = e.ID
	}
	return list
}

// slow is a committer that waits for release, once per commit, and notes what came.
type slow struct {
	release chan struct{}
	mu      sync.Mutex
	commits []string // generation and number of events
}

func newSlow() *slow { return &slow{release: make(chan struct{})} }

// newReleased commits at once.
func newReleased() *slow {
	s := newSlow()
	close(s.release)
	return s
}

func (s *slow) Accept(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error) {
	s.mu.Lock()
	s.commits = append(s.commits, fmt.Sprintf("generation %d: %d", generation, len(events)))
	s.mu.Unlock()
	select {
	case <-s.release:
		return accepted(events), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble is a receiver inside a synctest bubble, called without a network.
type bubble struct {
	*Receiver
	t    *testing.T
	stop context.CancelFunc
	end  chan error
}

func newBubble(t *testing.T, o Options) *bubble {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &bubble{Receiver: New(o, routing(t, 1)), t: t, stop: cancel, end: make(chan error, 1)}
	go func() { b.end <- b.Run(ctx) }()
	return b
}

// close ends Run, which every test does at its end.
func (b *bubble) close() {
	b.stop()
	if err := <-b.end; err != nil {
		b.t.Errorf("run: %v", err)
	}
	if held := b.held.Load(); held != 0 {
		b.t.Errorf("%d bytes are still held", held)
	}
	if b.queue.count != 0 || b.queue.first != nil || b.queue.last != nil {
		b.t.Errorf("%d events are still queued", b.queue.count)
	}
}

// post sends a request of its own and gives its answer later.
func (b *bubble) post(path, body string) <-chan *httptest.ResponseRecorder {
	answers := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+token)
		recorder := httptest.NewRecorder()
		b.Handler().ServeHTTP(recorder, req)
		answers <- recorder
	}()
	return answers
}

func (b *bubble) deal(n int) <-chan *httptest.ResponseRecorder {
	return b.post("/hooks/shop/deal.created", fmt.Sprintf(`{"key":"d%d"}`, n))
}

func (b *bubble) want(code int, answers ...<-chan *httptest.ResponseRecorder) {
	b.t.Helper()
	for i, a := range answers {
		got := <-a
		if got.Code != code {
			b.t.Errorf("request %d is answered %d %s, want %d", i, got.Code, got.Body, code)
		}
		if retry := got.Header().Get("Retry-After"); (code == http.StatusServiceUnavailable) != (retry != "") {
			b.t.Errorf("request %d is answered %d with Retry-After %q", i, got.Code, retry)
		}
	}
}

func TestGroupCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := newSlow()
		b := newBubble(t, Options{Ledger: db, Flushers: 1, EventsPerJob: 7})
		defer b.close()
		// An idle receiver commits at once; meanwhile the next batch gathers.
		answers := []<-chan *httptest.ResponseRecorder{b.deal(0)}
		synctest.Wait()
		for n := range 300 {
			answers = append(answers, b.deal(n+1))
		}
		synctest.Wait()
		for range 3 {
			db.release <- struct{}{}
		}
		b.want(http.StatusAccepted, answers...)
		if diff := cmp.Diff([]string{"generation 1: 1", "generation 1: 256", "generation 1: 44"}, db.commits); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCommitIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := newSlow()
		b := newBubble(t, Options{Ledger: db, Flushers: 1})
		defer b.close()
		answers := []<-chan *httptest.ResponseRecorder{b.deal(0)}
		synctest.Wait()
		large := `{"n":"` + strings.Repeat("x", 1000<<10) + `"}`
		for range 6 {
			answers = append(answers, b.post("/hooks/posts/thing", large))
		}
		synctest.Wait()
		for range 3 {
			db.release <- struct{}{}
		}
		b.want(http.StatusAccepted, answers...)
		if diff := cmp.Diff([]string{"generation 1: 1", "generation 1: 4", "generation 1: 2"}, db.commits); diff != "" {
			t.Error(diff)
		}
	})
}

func TestReloadSeparatesGenerations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := newSlow()
		b := newBubble(t, Options{Ledger: db, Flushers: 1})
		defer b.close()
		answers := []<-chan *httptest.ResponseRecorder{b.deal(0)}
		synctest.Wait()
		answers = append(answers, b.deal(1), b.deal(2))
		synctest.Wait()
		b.Use(routing(t, 2))
		answers = append(answers, b.deal(3))
		synctest.Wait()
		for range 3 {
			db.release <- struct{}{}
		}
		b.want(http.StatusAccepted, answers...)
		if diff := cmp.Diff([]string{"generation 1: 1", "generation 1: 2", "generation 2: 1"}, db.commits); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPostgresHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, Options{Ledger: newSlow(), Flushers: 2, Queue: 10})
		defer b.close()
		start := time.Now()
		var answers []<-chan *httptest.ResponseRecorder
		for n := range 2 { // on their way, one for each flusher
			answers = append(answers, b.deal(n))
			synctest.Wait()
		}
		time.Sleep(time.Second)
		for n := range 10 {
			answers = append(answers, b.deal(n+2))
		}
		synctest.Wait()
		if b.queue.count != 10 {
			t.Fatalf("%d events are queued, want 10", b.queue.count)
		}
		b.want(http.StatusServiceUnavailable, b.deal(99)) // at once: no room
		if took := time.Since(start); took != time.Second {
			t.Errorf("a full queue is told after %s", took-time.Second)
		}
		b.want(http.StatusServiceUnavailable, answers[:2]...)
		if took := time.Since(start); took != 1800*time.Millisecond {
			t.Errorf("the first are answered after %s", took)
		}
		b.want(http.StatusServiceUnavailable, answers[2:]...)
		if took := time.Since(start); took != 2800*time.Millisecond {
			t.Errorf("the others are answered after %s", took-time.Second)
		}
		synctest.Wait()
		if held := b.held.Load(); b.queue.count != 0 || held != 0 {
			t.Errorf("%d events and %d bytes are kept for senders that were sent away", b.queue.count, held)
		}
	})
}

// What nobody waits for any more is not stored behind the sender's back.
func TestWhoGaveUpIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		commits := 0
		b := newBubble(t, Options{Flushers: 1, Ledger: committer(
			func(_ context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
				<-release // whatever the deadline says
				commits += len(events)
				return accepted(events), nil
			})})
		defer b.close()
		answers := []<-chan *httptest.ResponseRecorder{b.deal(0)}
		synctest.Wait()
		onItsWay := b.held.Load()
		for n := range 9 {
			answers = append(answers, b.deal(n+1))
		}
		b.want(http.StatusServiceUnavailable, answers...)
		synctest.Wait()
		if held := b.held.Load(); b.queue.count != 0 || held != onItsWay {
			t.Errorf("%d events are queued and %d bytes held, want only the %d on their way", b.queue.count, held, onItsWay)
		}
		close(release)
		synctest.Wait()
		if commits != 1 {
			t.Errorf("%d events were stored, want the one that was on its way", commits)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 1 << 20
		db := newSlow()
		b := newBubble(t, Options{Ledger: db, Flushers: 1, MaxBytes: most})
		defer b.close()
		var answers []<-chan *httptest.ResponseRecorder
		for range 100 {
			answers = append(answers, b.post("/hooks/posts/thing", `{"n":"`+strings.Repeat("x", 100<<10)+`"}`))
			synctest.Wait()
			if held := b.held.Load(); held > most {
				t.Fatalf("%d bytes are held, allowed are %d", held, most)
			}
		}
		close(db.release)
		codes := map[int]int{}
		for _, a := range answers {
			codes[(<-a).Code]++
		}
		if codes[202] < 3 || codes[503] < 80 || codes[202]+codes[503] != 100 {
			t.Errorf("answers: %v, want a few stored and the rest sent away", codes)
		}
		b.want(http.StatusAccepted, b.deal(1)) // and there is room again
	})
}

func TestShutdownDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := newSlow()
		b := newBubble(t, Options{Ledger: db, Flushers: 1})
		answers := []<-chan *httptest.ResponseRecorder{b.deal(0)}
		synctest.Wait()
		for n := range 5 {
			answers = append(answers, b.deal(n+1))
		}
		synctest.Wait()
		b.stop()
		synctest.Wait()
		b.want(http.StatusServiceUnavailable, b.deal(99))
		select {
		case <-b.end:
			t.Fatal("Run returned with events in its hands")
		default:
		}
		close(db.release)
		b.want(http.StatusAccepted, answers...)
		b.close()
	})
}

func TestConnectionErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		working := false
		b := newBubble(t, Options{Logger: slog.New(slog.NewTextHandler(&logged, nil)), Flushers: 1, Ledger: committer(
			func(_ context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
				if !working {
					return nil, errors.New("connection refused")
				}
				return accepted(events), nil
			})})
		defer b.close()
		for n := range 3 {
			b.want(http.StatusServiceUnavailable, b.deal(n))
		}
		synctest.Wait()
		working = true
		b.want(http.StatusAccepted, b.deal(1), b.deal(2))
		synctest.Wait()
		if got := strings.Count(logged.String(), "\n"); got != 2 {
			t.Errorf("logged %d lines, want one at the beginning and one at the end:\n%s", got, &logged)
		}
	})
}

func TestPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := true
		b := newBubble(t, Options{Ledger: committer(
			func(_ context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
				if broken {
					panic("no reason")
				}
				return accepted(events), nil
			})})
		defer b.close()
		b.want(http.StatusServiceUnavailable, b.deal(1))
		broken = false
		b.want(http.StatusAccepted, b.deal(1))

		req := httptest.NewRequest(http.MethodPost, "/hooks/shop/deal.created", badReader{})
		req.Header.Set("Authorization", "Bearer "+token)
		recorder := httptest.NewRecorder()
		b.Handler().ServeHTTP(recorder, req)
		if recorder.Code != http.StatusInternalServerError || !strings.Contains(recorder.Body.String(), `"error"`) {
			t.Errorf("got %d %s", recorder.Code, recorder.Body)
		}
	})
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { panic("a body that panics") }

// refusing is a refusal of Postgres for the events that bad names.
func refusing(bad func(*ledger.Incoming) bool) committer {
	return func(_ context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
		for i := range events {
			if bad(&events[i]) {
				return nil, fmt.Errorf("store: %w", &pgconn.PgError{Code: "22021", Message: "a value of the payload"})
			}
		}
		return accepted(events), nil
	}
}

func TestRefusalsAreKeptApart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		bad  func(*ledger.Incoming) bool
		code int
		want string
	}{
		{"for what was read from it", func(e *ledger.Incoming) bool { return e.Entity == "deal:d3" }, 422, `"status":"malformed"`},
		{"for its body", func(e *ledger.Incoming) bool { return strings.Contains(string(e.Body), "d3") }, 503, `"error"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var logged strings.Builder
				first := make(chan struct{})
				db := refusing(tt.bad)
				b := newBubble(t, Options{Flushers: 1, Logger: slog.New(slog.NewTextHandler(&logged, nil)), Ledger: committer(
					func(ctx context.Context, events []ledger.Incoming, generation int64, n int) ([]ledger.Accepted, error) {
						<-first
						return db(ctx, events, generation, n)
					})})
				defer b.close()
				var answers []<-chan *httptest.ResponseRecorder
				for n := range 6 {
					answers = append(answers, b.deal(n))
					synctest.Wait()
				}
				close(first)
				b.want(http.StatusAccepted, answers[:3]...)
				b.want(http.StatusAccepted, answers[4:]...)
				got := <-answers[3]
				if got.Code != tt.code || !strings.Contains(got.Body.String(), tt.want) {
					t.Errorf("got %d %s", got.Code, got.Body)
				}
				synctest.Wait()
				if strings.Contains(logged.String()+got.Body.String(), "value of the payload") {
					t.Errorf("a value is told: %s %s", got.Body, &logged)
				}
			})
		})
	}
}

// pipe is a listener with one connection.
type pipe struct {
	once   sync.Once
	conn   net.Conn
	closed chan struct{}
}

func (p *pipe) Accept() (conn net.Conn, err error) {
	p.once.Do(func() { conn = p.conn })
	if conn == nil {
		<-p.closed
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p *pipe) Close() error   { close(p.closed); return nil }
func (p *pipe) Addr() net.Addr { return p.conn.LocalAddr() }

func TestSlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, Options{Ledger: newSlow()})
		defer b.close()
		ours, theirs := net.Pipe()
		listener := &pipe{conn: ours, closed: make(chan struct{})}
		server := &http.Server{Handler: b.Handler()}
		ended := make(chan error)
		go func() { ended <- server.Serve(listener) }()
		start := time.Now()
		fmt.Fprintf(theirs, "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 400\r\n\r\n{", token)
		answer, err := http.ReadResponse(bufio.NewReader(theirs), nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != bodyTimeout {
			t.Errorf("answered after %s", took)
		}
		if answer.StatusCode != http.StatusRequestTimeout {
			t.Errorf("got %s", answer.Status)
		}
		server.Close()
		<-ended
	})
}
