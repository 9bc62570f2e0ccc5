package receiver

import (
	"errors"
	"sync"
	"time"

	"partnersync/internal/ledger"
)

// The bounds of one commit. More rows in a statement gain nothing and make
// everybody in it wait for the last.
const (
	maxBatchEvents = 256
	maxBatchBytes  = 4 << 20
)

var (
	errFull   = errors.New("too many requests are waiting")
	errClosed = errors.New("the receiver is stopping")
)

// waiting is an event on its way into Postgres.
type waiting struct {
	event      ledger.Incoming
	generation int64
	bytes      int64 // held for it
	deadline   time.Time
	done       chan stored // buffered: the flusher never waits for a reader

	queued     bool
	prev, next *waiting
}

// stored is what became of it.
type stored struct {
	accepted ledger.Accepted
	refused  string // the SQLSTATE with which Postgres refused the event as it was
	err      error
}

// queue holds events in the order in which they came. An event whose request gave
// up is taken out again, so that nothing piles up behind a Postgres that hangs.
type queue struct {
	mu          sync.Mutex
	some        *sync.Cond // there is something to take, or the queue is closed
	limit       int
	count       int
	first, last *waiting
	closed      bool
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.some = sync.NewCond(&q.mu)
	return q
}

// push returns errFull or errClosed when w is not taken in.
func (q *queue) push(w *waiting) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case q.count == q.limit:
		return errFull
	}
	w.queued = true
	w.prev = q.last
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
	q.count++
	q.some.Signal()
	return nil
}

// drop takes w out and reports whether it was still there: if not, it is being
// stored.
func (q *queue) drop(w *waiting) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !w.queued {
		return false
	}
	q.unlink(w)
	return true
}

// take waits for events and appends the next batch to batch: the oldest ones, as
// many as one commit may hold, all of one generation. It returns nothing when the
// queue is closed and empty.
func (q *queue) take(batch []*waiting) []*waiting {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.count == 0 && !q.closed {
		q.some.Wait()
	}
	var bytes int64
	for w := q.first; w != nil && len(batch) < maxBatchEvents; w = q.first {
		bytes += int64(len(w.event.Body))
		if len(batch) > 0 && (bytes > maxBatchBytes || w.generation != batch[0].generation) {
			break
		}
		q.unlink(w)
		batch = append(batch, w)
	}
	if q.count > 0 {
		q.some.Signal()
	}
	return batch
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}

func (q *queue) unlink(w *waiting) {
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	q.count--
}
