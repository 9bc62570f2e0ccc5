package receiver

import (
	"container/list"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"partnersync/receiver/sources"
)

// A body that has not come after this long does not come.
const bodyTimeout = 10 * time.Second

// What is left of a body that is not read is looked at no longer than this.
const unreadTimeout = 500 * time.Millisecond

// What a body costs before its bytes are there, whatever length its sender announces.
const firstRead = 4 << 10

var (
	errTooLarge = errors.New("the body is too large")
	errNoMemory = errors.New("too many bodies are in memory")
	errSlow     = errors.New("the body did not come in time")
)

// body is a request's body, and what is held for it.
type body struct {
	sent  []byte // as it came
	plain []byte // without its compression, as far as that could be taken off
	bad   error  // why it could not
	whole bool   // all of it has been read
	held  int64

	proved   bool          // it is known who has sent it; only its own goroutine reads this
	unproved int64         // of what is held, while that is not so
	leaving  int64         // of what is held, once it is given up
	place    *list.Element // in the list of such bodies; nil: not in it, or given up
	stop     func()        // ends its reading
}

// read reads a body of at most limit bytes, after inflation too. Bytes are reserved
// as they come; the caller releases b, after an error too.
func (r *Receiver) read(b *body, w http.ResponseWriter, req *http.Request, limit int64) (err error) {
	switch {
	case req.ContentLength == 0:
		b.whole = true
		return nil
	case req.ContentLength > limit:
		return errTooLarge
	}
	control := http.NewResponseController(w)
	// Where this is not supported the server's own timeouts remain.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	if !b.proved {
		r.unproved.begin(b, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })
	}
	b.sent, err = r.readAll(req.Body, req.ContentLength, limit, b)
	if err != nil {
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
		case r.unproved.gaveUp(b): // which is not its sender's fault
			err = errNoMemory
		default:
			err = errSlow
		}
		return err
	}
	b.whole = true
	b.plain, err = sources.Inflate(b.sent, req.Header["Content-Encoding"], func(from io.Reader) ([]byte, error) {
		return r.readAll(from, -1, limit, b)
	})
	if errors.Is(err, sources.ErrEncoding) || errors.Is(err, sources.ErrBroken) {
		b.bad, err = err, nil
	}
	return err
}

// readAll reads to the end; size is the announced length, which is not 0, or -1.
func (r *Receiver) readAll(from io.Reader, size, limit int64, b *body) ([]byte, error) {
	first := int64(firstRead)
	if size >= 0 {
		first = min(first, size)
	} else {
		size = limit
	}
	var all []byte
	for {
		if len(all) == cap(all) {
			if int64(len(all)) > limit {
				return nil, errTooLarge
			}
			// A byte beyond the announced length is never there to be read.
			next := min(max(first, 2*int64(cap(all))), max(size, int64(cap(all))+1), limit+1)
			if !r.reserve(b, next-int64(cap(all))) {
				return nil, errNoMemory
			}
			all = append(make([]byte, 0, next), all...)
		}
		n, err := from.Read(all[len(all):cap(all)])
		all = all[:len(all)+n]
		if err == io.EOF {
			if int64(len(all)) > limit {
				return nil, errTooLarge
			}
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
