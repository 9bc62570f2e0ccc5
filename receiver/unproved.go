package receiver

import (
	"container/list"
	"sync"
)

// unproved are the bodies in memory whose senders have not proved yet who they are:
// their signature is of the whole body. They get a part of the memory, and where that
// is full, the one that has been under way longest is given up for the next. So
// nobody keeps signed events out by sending slowly.
type unproved struct {
	limit int64
	cut   func()

	mu     sync.Mutex
	bytes  int64
	bodies list.List // of *body, oldest first
}

// begin takes a body in. stop ends its reading.
func (u *unproved) begin(b *body, stop func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	b.stop = stop
	b.place = u.bodies.PushBack(b)
}

// take counts n more bytes of a body, unless it has been given up. Nothing is counted
// of one that is proved.
func (u *unproved) take(b *body, n int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case b.proved:
		return true
	case b.place == nil:
		return false
	}
	for u.bytes+n > u.limit {
		oldest := u.bodies.Front().Value.(*body)
		if oldest == b {
			if u.bodies.Len() == 1 {
				return false
			}
			oldest = b.place.Next().Value.(*body)
		}
		u.leave(oldest)
		oldest.stop()
		u.cut()
	}
	u.bytes += n
	b.unproved += n
	return true
}

// end takes a body out, since it is proved, refused, or over.
func (u *unproved) end(b *body, proved bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	b.proved = proved
	u.leave(b)
}

func (u *unproved) leave(b *body) {
	if b.place != nil {
		u.bodies.Remove(b.place)
	}
	u.bytes -= b.unproved
	b.place, b.unproved = nil, 0
}
