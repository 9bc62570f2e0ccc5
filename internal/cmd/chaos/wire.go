package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"
)

// wire is how one process reaches Postgres: a proxy of its own, which can be taken away.
type wire struct {
	listener net.Listener
	postgres string // host and port
	pumps    sync.WaitGroup

	mu    sync.Mutex
	state wireState
	calm  chan struct{} // closed when nothing is held any more
	bytes int           // that are held on their way to Postgres
	pairs map[*pair]bool
}

type wireState uint8

const (
	flows   wireState = iota
	stalled           // what is sent stays on the way
	muted             // what the process sends does, and it still hears
	cutOff            // there are no connections
)

// pair is a connection of the process, and ours to Postgres in its stead.
type pair struct {
	near, far net.Conn
	late      time.Duration // near is gone: what is on the way arrives so much later
}

// newWire listens for a process; dsn is the URL of Postgres over TCP, and ours is returned.
func newWire(dsn string) (_ *wire, ours string, _ error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, "", fmt.Errorf("a wire to Postgres: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("a wire to Postgres: %w", err)
	}
	w := &wire{listener: l, postgres: u.Host, pairs: map[*pair]bool{}}
	u.Host = l.Addr().String()
	w.pumps.Go(w.accept)
	return w, u.String(), nil
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		w.pumps.Go(func() { w.serve(near) })
	}
}

func (w *wire) serve(near net.Conn) {
	w.flow(false)
	if w.isCut() {
		reset(near)
		return
	}
	far, err := net.DialTimeout("tcp", w.postgres, 2*time.Second)
	if err != nil {
		reset(near)
		return
	}
	p := &pair{near: near, far: far}
	w.mu.Lock()
	cut := w.state == cutOff
	w.pairs[p] = true
	w.mu.Unlock()
	if cut { // meanwhile
		reset(near)
		_ = far.Close()
	}
	var back sync.WaitGroup
	back.Go(func() { w.pump(p, p.near, p.far) })
	w.pump(p, p.far, p.near)
	back.Wait()
	w.mu.Lock()
	delete(w.pairs, p)
	w.mu.Unlock()
}

func (w *wire) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state == cutOff
}

// pump copies one way until either end is gone, and then ends the other.
func (w *wire) pump(p *pair, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			data := buffer[:n]
			if to == p.far {
				data = w.gather(from, data)
			}
			w.flow(to == p.near)
			w.mu.Lock()
			late := p.late
			w.mu.Unlock()
			if late > 0 && to == p.far {
				time.Sleep(late)
			}
			if _, failed := to.Write(data); failed != nil && to == p.far {
				err = failed
			}
			if late > 0 && to == p.far {
				time.Sleep(late / 2) // it is carried out: Postgres ends what it does when nobody is there any more
			}
		}
		if err == nil {
			continue
		}
		w.mu.Lock()
		late := p.late
		w.mu.Unlock()
		if late == 0 || to == p.far {
			_ = p.near.Close()
			_ = p.far.Close()
			return
		}
		// Postgres talks to nobody.
		_, _ = io.Copy(io.Discard, from)
		return
	}
}

// gather reads on while nothing moves: what the process has sent is on the way, all of it.
func (w *wire) gather(from net.Conn, data []byte) []byte {
	data = slices.Clone(data)
	held := 0
	defer func() { w.hold(-held) }()
	more := make([]byte, 32<<10)
	for {
		w.mu.Lock()
		holds := w.state == stalled || w.state == muted
		w.mu.Unlock()
		if !holds {
			_ = from.SetReadDeadline(time.Time{})
			return data
		}
		w.hold(len(data) - held)
		held = len(data)
		_ = from.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := from.Read(more)
		data = append(data, more[:n]...)
		var slow net.Error
		if err != nil && !(errors.As(err, &slow) && slow.Timeout()) {
			return data // the next read meets it again
		}
	}
}

func (w *wire) hold(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes += n
}

// held is how much is on the way to Postgres and does not move.
func (w *wire) held() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// flow waits while nothing moves, to the process or to Postgres.
func (w *wire) flow(back bool) {
	for {
		w.mu.Lock()
		calm, free := w.calm, w.state == flows || w.state == cutOff || back && w.state == muted
		w.mu.Unlock()
		if free {
			return
		}
		<-calm
	}
}

// stall holds all that is sent, until mend or part.
func (w *wire) stall() { w.halt(stalled) }

// mute holds what the process sends, until mend or part.
func (w *wire) mute() { w.halt(muted) }

func (w *wire) halt(how wireState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == flows {
		w.state, w.calm = how, make(chan struct{})
	}
}

// cut ends all connections and lets none be made, until mend.
func (w *wire) cut() {
	w.mend()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = cutOff
	for p := range w.pairs {
		reset(p.near)
		_ = p.far.Close()
	}
}

// part ends all connections as the process sees it. What it had sent arrives so much later.
func (w *wire) part(late time.Duration) {
	w.mu.Lock()
	for p := range w.pairs {
		p.late = late
		reset(p.near)
	}
	w.mu.Unlock()
	w.mend()
}

// mend lets everything flow.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == stalled || w.state == muted {
		close(w.calm)
	}
	w.state = flows
}

// close ends everything.
func (w *wire) close() {
	_ = w.listener.Close()
	w.mend()
	w.mu.Lock()
	for p := range w.pairs {
		_ = p.near.Close()
		_ = p.far.Close()
	}
	w.mu.Unlock()
	w.pumps.Wait()
}

// reset ends a connection as one that breaks does.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
