package receiver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// What the head of a request may hold. net/http gives a head 4 KiB beyond its bytes.
const (
	maxHeadBytes  = 8 << 10
	maxHeadFields = 100
)

// Server returns what serves the handler, and only that: its bounds are those of
// strangers. Give it a listener that Limit has wrapped.
func (r *Receiver) Server() *http.Server {
	return &http.Server{
		Handler: r.Handler(), MaxHeaderBytes: maxHeadBytes,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if c, ok := c.(*connection); ok && state == http.StateIdle {
				c.idle()
			}
		},
	}
}

// Limit wraps a listener, so that no more than Options.Connections are open at a
// time. Where that many are, a new one takes the place of the one that has gone
// longest without proving who is there. Without such a one it waits until a sender
// has its answer. So nobody keeps senders out by holding connections open.
func (r *Receiver) Limit(l net.Listener) net.Listener {
	r.connections.Listener = l
	return r.connections
}

type connectionKey struct{}

// connectionOf is the connection of a request; nil where Limit has not made it.
func connectionOf(req *http.Request) *connection {
	c, _ := req.Context().Value(connectionKey{}).(*connection)
	return c
}

// connections are those that are open. Each that may be cut stands in one of two
// lines, longest wait first: strangers have never proved who they are, known ones
// have, before the request that they wait for or make now.
type connections struct {
	net.Listener
	limit int
	cut   func()

	mu               sync.Mutex
	room             *sync.Cond // one is closed, or may be cut, or the listener is closed
	open             int
	closed           bool
	strangers, known line
}

func newConnections(limit int, cut func()) *connections {
	cs := &connections{limit: limit, cut: cut}
	cs.room = sync.NewCond(&cs.mu)
	return cs
}

func (cs *connections) Accept() (net.Conn, error) {
	conn, err := cs.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, all: cs}
	if victim, ok := cs.admit(c); !ok {
		_ = conn.Close()
		return nil, net.ErrClosed
	} else if victim != nil {
		cs.cut()
		_ = victim.Close()
	}
	return c, nil
}

// admit takes c in, and returns who has to go for it.
func (cs *connections) admit(c *connection) (victim *connection, ok bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for !cs.closed && cs.open >= cs.limit && victim == nil {
		if victim = cs.strangers.first; victim == nil {
			victim = cs.known.first
		}
		if victim == nil {
			cs.room.Wait()
		}
	}
	if cs.closed {
		return nil, false
	}
	if victim != nil {
		cs.leave(victim)
	}
	cs.open++
	cs.strangers.push(c)
	return victim, true
}

// leave forgets a connection. It is called with the lock held.
func (cs *connections) leave(c *connection) {
	if c.gone {
		return
	}
	c.gone = true
	c.unlink()
	cs.open--
	cs.room.Signal()
}

func (cs *connections) Close() error {
	cs.mu.Lock()
	cs.closed = true
	cs.room.Broadcast()
	cs.mu.Unlock()
	return cs.Listener.Close()
}

func (cs *connections) len() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.open
}

// connection is one of them.
type connection struct {
	net.Conn
	all *connections
	// head counts the fields of a head while it comes. Only the goroutine that serves
	// the connection uses it.
	head headCounter

	gone       bool
	in         *line // nil: it may not be cut
	prev, next *connection
}

// prove says that the request under way has proved who sent it: it is not cut.
func (c *connection) prove() {
	if c == nil {
		return
	}
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	c.unlink()
}

// idle says that a request is over, its answer sent, and the next head is waited for.
func (c *connection) idle() {
	c.head = headCounter{}
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.in == nil && !c.gone {
		c.all.known.push(c)
		c.all.room.Signal()
	}
}

var errHead = errors.New("the head has too many fields")

// Read counts the fields of a head before they become a map: thousands of tiny ones
// take many times their bytes.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.head.tooMany(b[:n]) {
		return 0, errHead
	}
	return n, err
}

func (c *connection) Close() error {
	c.all.mu.Lock()
	c.all.leave(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is what net/http asks for before it closes a connection whose peer may
// still be sending, so that the answer arrives.
func (c *connection) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// unlink takes c out of its line. It is called with the lock held.
func (c *connection) unlink() {
	if c.in == nil {
		return
	}
	if c.prev == nil {
		c.in.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		c.in.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.in, c.prev, c.next = nil, nil, nil
}

// line is a list of connections.
type line struct{ first, last *connection }

func (l *line) push(c *connection) {
	c.in, c.prev = l, l.last
	if l.last == nil {
		l.first = c
	} else {
		l.last.next = c
	}
	l.last = c
}

// headCounter counts the lines of a head until the empty one that ends it. What
// follows is a body, or a next head that has come too soon.
type headCounter struct {
	lines   int
	content bool // the line that is read has something in it
	ended   bool
}

// tooMany reports whether a head has more lines than any request needs. The handler
// counts fields, and answers; this is only for what would not get there.
func (h *headCounter) tooMany(b []byte) bool {
	for _, c := range b {
		switch {
		case h.ended:
			return false
		case c == '\n' && !h.content:
			h.ended = h.lines > 0 // net/http skips what some senders put behind a body
		case c == '\n':
			h.lines++
			h.content = false
			if h.lines > 4*maxHeadFields {
				return true
			}
		case c != '\r':
			h.content = true
		}
	}
	return false
}
