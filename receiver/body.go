package receiver

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// A body that has not come after this long does not come.
const bodyTimeout = 10 * time.Second

// What a body may cost before its bytes are there: the length that a sender
// announces is only believed up to here.
const firstRead = 32 << 10

var (
	errTooLarge = errors.New("the body is too large")
	errNoMemory = errors.New("too many bodies are in memory")
	errSlow     = errors.New("the body did not come in time")
)

// body is a request's body, and what is held for it.
type body struct {
	sent     []byte // as it came
	inflated []byte // when it came compressed
	held     int64
}

// raw is what is stored.
func (b *body) raw() []byte {
	if b.inflated != nil {
		return b.inflated
	}
	return b.sent
}

// read reads a body of at most limit bytes, after inflation too. Bytes are reserved
// as they come; b.held is to be released by the caller, after an error too.
func (r *Receiver) read(b *body, w http.ResponseWriter, req *http.Request, limit int64) (err error) {
	switch {
	case req.ContentLength == 0:
		return nil
	case req.ContentLength > limit:
		return errTooLarge
	}
	control := http.NewResponseController(w)
	// Where this is not supported the server's own timeouts remain.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	b.sent, err = r.readAll(req.Body, req.ContentLength, limit, &b.held)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errSlow
		}
		return err
	}
	_ = control.SetReadDeadline(time.Time{})
	if gzip, _ := encoding(req); gzip {
		b.inflated, err = r.inflate(b.sent, limit, &b.held)
		if errors.Is(err, errTooLarge) || errors.Is(err, errNoMemory) {
			return err
		}
		// Any other error: it is not compressed, as behind a proxy that inflates and
		// leaves the header. If it is no JSON either, Open says so.
	}
	return nil
}

func (r *Receiver) inflate(sent []byte, limit int64, held *int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(sent))
	if err != nil {
		return nil, err
	}
	return r.readAll(z, -1, limit, held)
}

// readAll reads to the end; size is the announced length, which is not 0, or -1.
func (r *Receiver) readAll(from io.Reader, size, limit int64, held *int64) ([]byte, error) {
	switch {
	case size < 0:
		size = 4 << 10
	case size > firstRead:
		size = firstRead
	}
	var all []byte
	for {
		if len(all) == cap(all) {
			if int64(len(all)) > limit {
				return nil, errTooLarge
			}
			next := min(max(size, 2*int64(cap(all))), limit+1)
			if !r.reserve(next - int64(cap(all))) {
				return nil, errNoMemory
			}
			*held += next - int64(cap(all))
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

// encoding is the one of the body, and whether it can be read.
func encoding(req *http.Request) (gzip, known bool) {
	switch strings.ToLower(req.Header.Get("Content-Encoding")) {
	case "", "identity":
		return false, true
	case "gzip", "x-gzip":
		return true, true
	}
	return false, false
}
