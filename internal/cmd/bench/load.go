package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The load shares the processors with what it measures, so it does as little as it can:
// a request is a buffer in which three numbers are exchanged.

// token is what the receivers want to see.
const token = "bench"

// firstSent is the sender's time of the first event, in milliseconds.
const firstSent = 1_700_000_000_000

// eventBody is a PartnerStack deal.updated with values of its own for every index: the
// key of the deal and the times.
func eventBody(index int) []byte {
	return fmt.Appendf(nil, `{"account_name":"Example Trading %08[1]d","amount":9500,"close_date":1703038800000,"company_id":6,`+
		`"contact_first_name":"Ada","contact_last_name":"Example","created_at":1690000000000,"key":"deal_%08[1]d",`+
		`"meta":{"company_name_38n83e3e3":"Example Trading","favorite_number_122jdfu232":2},`+
		`"partner_key":"adaexample3787","stage":"Closed Won","updated_at":%013[2]d}`, index, firstSent+index)
}

// request is one request in the memory of a connection.
type request struct {
	text  []byte
	names [2][]byte // where the index stands
	sent  []byte    // where the sender's time stands
}

func newRequest(path string) *request {
	body := eventBody(0)
	r := &request{text: append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n", path, token, len(body)), body...)}
	for i, before := range []string{"Example Trading ", `"key":"deal_`} {
		at := bytes.Index(r.text, []byte(before)) + len(before)
		r.names[i] = r.text[at : at+8]
	}
	const before = `"updated_at":`
	at := bytes.Index(r.text, []byte(before)) + len(before)
	r.sent = r.text[at : at+13]
	return r
}

func (r *request) use(index int) {
	for _, digits := range r.names {
		writeDigits(digits, index)
	}
	writeDigits(r.sent, firstSent+index)
}

func writeDigits(digits []byte, n int) {
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + n%10)
		n /= 10
	}
}

// connection sends requests one after the other.
type connection struct {
	net.Conn
	in      *bufio.Reader
	request *request
}

func connect(ctx context.Context, address, path string, limit time.Time) (*connection, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(limit); err != nil {
		conn.Close()
		return nil, err
	}
	return &connection{Conn: conn, in: bufio.NewReader(conn), request: newRequest(path)}, nil
}

// post sends the event of that index; any answer but 202 is an error.
func (c *connection) post(index int) error {
	c.request.use(index)
	if _, err := c.Write(c.request.text); err != nil {
		return err
	}
	code, err := readAnswer(c.in)
	if err == nil && code != http.StatusAccepted {
		err = fmt.Errorf("answered %d", code)
	}
	return err
}

// readAnswer reads one answer of a server of net/http and returns its status.
func readAnswer(in *bufio.Reader) (code int, err error) {
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) == 2 {
			break
		}
		if code == 0 {
			if len(line) < 12 {
				return 0, errors.New("no answer of HTTP")
			}
			if code, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, err
			}
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	_, err = io.CopyN(io.Discard, in, int64(length))
	return code, err
}

// loaded is what became of a load.
type loaded struct {
	answered  int             // all of it
	measured  int             // answered within the window
	latencies []time.Duration // of these
	window    time.Duration
	sentAt    []int64 // nanoseconds since 1970, by index
}

func (l *loaded) perSecond() float64 { return float64(l.measured) / l.window.Seconds() }

// offerLimit bounds what one load sends.
const offerLimit = 400_000

// flood sends over so many connections, each as soon as it has its answer, for warm and
// window; the indexes begin with first. It is an error when a single request is not
// accepted.
func flood(ctx context.Context, address, path string, connections int, warm, window time.Duration, first int) (*loaded, error) {
	begin := time.Now()
	measureFrom, end := begin.Add(warm), begin.Add(warm+window)
	out := &loaded{window: window, sentAt: make([]int64, offerLimit)}
	var next atomic.Int64
	next.Store(int64(first))
	err := eachConnection(ctx, out, connections, address, path, end, func(c *connection, own *loaded) error {
		for ctx.Err() == nil {
			sent := time.Now()
			if !sent.Before(end) {
				return nil
			}
			index := int(next.Add(1) - 1)
			if index >= offerLimit {
				return nil
			}
			out.sentAt[index] = sent.UnixNano()
			if err := c.post(index); err != nil {
				return err
			}
			own.answered++
			if answered := time.Now(); sent.After(measureFrom) && answered.Before(end) {
				own.measured++
				own.latencies = append(own.latencies, answered.Sub(sent))
			}
		}
		return ctx.Err()
	})
	return out, err
}

// offer sends so many events a second, evenly, however long the answers take; their
// indexes begin with first. Times
// count from when a request was due to be sent and it was noticed, so that one which
// waits for a free connection is not made to look fast.
func offer(ctx context.Context, address, path string, connections, perSecond int, window time.Duration, first int) (*loaded, error) {
	count := int(window.Seconds() * float64(perSecond))
	due := make(chan int, count) // never full: the pace does not depend on the answers
	out := &loaded{window: window, sentAt: make([]int64, first+count)}
	begin := time.Now()
	var pacer sync.WaitGroup
	pacer.Go(func() {
		defer close(due)
		for i := range count {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
			if ctx.Err() != nil {
				return
			}
			out.sentAt[first+i] = time.Now().UnixNano()
			due <- first + i
		}
	})
	defer pacer.Wait()
	err := eachConnection(ctx, out, connections, address, path, begin.Add(window), func(c *connection, own *loaded) error {
		for index := range due {
			if err := c.post(index); err != nil {
				return err
			}
			own.answered++
			own.measured++
			own.latencies = append(own.latencies, time.Duration(time.Now().UnixNano()-out.sentAt[index]))
		}
		return ctx.Err()
	})
	return out, err
}

// eachConnection runs send on every connection and adds up into out. A connection may
// stay for a while after end, but not for ever.
func eachConnection(ctx context.Context, out *loaded, connections int, address, path string, end time.Time, send func(*connection, *loaded) error) error {
	var mu sync.Mutex
	var failed error
	var group sync.WaitGroup
	for range connections {
		group.Go(func() {
			var own loaded
			c, err := connect(ctx, address, path, end.Add(10*time.Second))
			if err == nil {
				err = send(c, &own)
				c.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil && failed == nil {
				failed = fmt.Errorf("post to %s: %w", path, err)
			}
			out.answered += own.answered
			out.measured += own.measured
			out.latencies = append(out.latencies, own.latencies...)
		})
	}
	group.Wait()
	return failed
}
