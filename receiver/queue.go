package receiver

import (
	"errors"
	"sync"
	"sync/atomic"
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
	errFull     = errors.New("too many requests are waiting")
	errClosed   = errors.New("the receiver is stopping")
	errDiverted = errors.New("events go to the spool")
)

// waiting is an event on its way into Postgres, or into the spool.
type waiting struct {
	event      ledger.Incoming
	named      string // the event as the URL names it
	generation int64
	hold       *hold // of all events of the request
	deadline   time.Time
	done       chan stored // buffered: the flusher never waits for a reader

	queued     bool
	prev, next *waiting
}

// hold is what is held for a request: it is given back when the last who uses the
// body is done with it.
type hold struct {
	bytes int64
	users atomic.Int32
	all   *atomic.Int64
}

func (h *hold) take() { h.users.Add(1) }

// free lets go; nothing is held for an event out of the spool.
func (h *hold) free() {
	if h != nil && h.users.Add(-1) == 0 {
		h.all.Add(-h.bytes)
	}
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
	mode        mode
	closed      bool
}

// mode says what becomes of new events while others are in the spool: no event
// overtakes one that was acknowledged before it came.
type mode int

const (
	open     mode = iota // the spool is empty
	diverted             // events are in the spool; new ones follow them there
	held                 // the last events of the spool are being stored; new ones wait for them
)

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.some = sync.NewCond(&q.mu)
	return q
}

// push takes the events of one request in, side by side, or none of them: it returns
// errFull, errClosed or errDiverted then. The last request that finds room may have more
// events than there is room for.
func (q *queue) push(all []*waiting) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case q.mode == diverted:
		return errDiverted
	case q.count >= q.limit:
		return errFull
	}
	for _, w := range all {
		w.queued = true
		w.prev = q.last
		if q.last == nil {
			q.first = w
		} else {
			q.last.next = w
		}
		q.last = w
		q.count++
	}
	q.some.Signal()
	return nil
}

// drop takes w out and reports whether it was still there: if not, it is being
// stored. Where events are held this is too long.
func (q *queue) drop(w *waiting) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !w.queued {
		return false
	}
	q.unlink(w)
	if q.mode == held {
		q.giveBack()
	}
	return true
}

// take waits for events and appends the next batch to batch: the oldest ones, as
// many as one commit may hold, all of one generation. The events of one request stay
// together, though they be more: in two commits at a time they would lose their order.
// It returns nothing when the queue is closed and empty.
func (q *queue) take(batch []*waiting) []*waiting {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.count == 0 && !q.closed || q.count > 0 && q.mode == held {
		q.some.Wait()
	}
	var bytes int64
	together := false
	for w := q.first; w != nil && (together || len(batch) < maxBatchEvents); w = q.first {
		bytes += int64(len(w.event.Body))
		if len(batch) > 0 && !together && (bytes > maxBatchBytes || w.generation != batch[0].generation) {
			break
		}
		q.unlink(w)
		batch, together = append(batch, w), q.first != nil && q.first.hold == w.hold
	}
	if q.count > 0 {
		q.some.Signal()
	}
	return batch
}

// len is how many wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}

// divert is called when the backlog has grown, before anybody is told.
func (q *queue) divert(backlog func() int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mode == open && backlog() > 0 {
		q.giveBack()
	}
}

// settle is called when the backlog may have shrunk. shrinks: the drainer makes progress. Then
// new events are held in memory while the last batch is drained: on disk they would keep the
// spool from ever becoming empty.
func (q *queue) settle(backlog func() int, shrinks bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch n := backlog(); {
	case n == 0:
		q.mode = open
	case shrinks && n <= maxBatchEvents:
		q.mode = held
	default:
		q.giveBack()
	}
	q.some.Broadcast()
}

// giveBack sends what waits behind the backlog.
func (q *queue) giveBack() {
	q.mode = diverted
	for w := q.first; w != nil; w = q.first {
		q.unlink(w)
		w.hold.free()
		w.done <- stored{err: errDiverted}
	}
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
