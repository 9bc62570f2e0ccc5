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

	mu      sync.Mutex
	bytes   int64
	bodies  list.List     // of *body, oldest first
	leaving int64         // what those hold that are given up, until they let go
	left    int           // how many have let go
	let     chan struct{} // closed when the next one does, or is given up; nil while nobody waits
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
		oldest.leaving = oldest.unproved
		u.leaving += oldest.leaving
		u.leave(oldest)
		u.tell()
		oldest.stop()
		u.cut()
	}
	u.bytes += n
	b.unproved += n
	return true
}

// gaveUp reports whether a body was given up.
func (u *unproved) gaveUp(b *body) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !b.proved && b.place == nil
}

// end takes a body out, since it is proved, refused, or over.
func (u *unproved) end(b *body, proved bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	b.proved = proved
	u.leave(b)
	if b.leaving > 0 {
		u.leaving -= b.leaving
		b.leaving = 0
		u.left++
		u.tell()
	}
}

// gone is how many that were given up have let go.
func (u *unproved) gone() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.left
}

// await waits until more than so many have let go. It reports false where there is nobody to wait for,
// or b itself is given up.
func (u *unproved) await(b *body, gone int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for b.proved || b.place != nil {
		switch {
		case u.left != gone:
			return true
		case u.leaving == 0:
			return false
		}
		if u.let == nil {
			u.let = make(chan struct{})
		}
		let := u.let
		u.mu.Unlock()
		<-let
		u.mu.Lock()
	}
	return false
}

// tell wakes those who wait.
func (u *unproved) tell() {
	if u.let != nil {
		close(u.let)
		u.let = nil
	}
}

func (u *unproved) leave(b *body) {
	if b.place != nil {
		u.bodies.Remove(b.place)
	}
	u.bytes -= b.unproved
	b.place, b.unproved = nil, 0
}
