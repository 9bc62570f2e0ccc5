package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// crm is a CRM that takes everything and answers at once. It reads no more of a request
// than it needs, since its time is not what is measured.
type crm struct {
	mu       sync.RWMutex // for writing while it is reset
	answered []int64      // when the row of that index was answered first, ns since 1970
	distinct atomic.Int64
	requests atomic.Int64
	hurry    chan struct{} // closed when requests to the slow one are not to wait any more; guarded by mu
}

func newCRM() *crm { return &crm{hurry: make(chan struct{})} }

// idBase lies below the ids that the CRM gives out, so that they tell the index.
const idBase = 1_000_000_000

func (c *crm) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /crm/objects/{version}/{object}/batch/{operation}", c.batch)
	mux.HandleFunc("POST /one", c.one)
	// Two more CRMs, which count nothing: one that answers at once, one that does not.
	mux.HandleFunc("POST /quick/crm/objects/{version}/{object}/batch/{operation}", c.beside)
	mux.HandleFunc("POST /slow/crm/objects/{version}/{object}/batch/{operation}", c.slow)
	mux.HandleFunc("POST /-/hurry", c.hurryUp)
	mux.HandleFunc("POST /-/reset/{rows}", c.reset)
	mux.HandleFunc("GET /-/counts", c.counts)
	mux.HandleFunc("GET /-/times", c.times)
	return mux
}

// buffers are reused: a request of a hundred rows is large.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// batch answers as HubSpot answers a batch of which every row is taken.
func (c *crm) batch(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	c.note(c.take(w, r)...)
}

func (c *crm) beside(w http.ResponseWriter, r *http.Request) { c.take(w, r) }

// slowness is how long the slow CRM takes for an answer.
const slowness = 30 * time.Second

func (c *crm) slow(w http.ResponseWriter, r *http.Request) {
	c.mu.RLock()
	hurry := c.hurry
	c.mu.RUnlock()
	select {
	case <-time.After(slowness):
	case <-hurry:
	}
	c.take(w, r)
}

func (c *crm) hurryUp(http.ResponseWriter, *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.hurry)
}

// take answers that every row was taken, and returns which these were.
func (c *crm) take(w http.ResponseWriter, r *http.Request) []int {
	body, answer := borrow(), borrow()
	defer buffers.Put(body)
	defer buffers.Put(answer)
	if _, err := body.ReadFrom(r.Body); err != nil {
		http.Error(w, "no body", http.StatusBadRequest)
		return nil
	}
	var indexes []int
	answer.WriteString(`{"status":"COMPLETE","results":[`)
	for rest := body.Bytes(); ; {
		var id, trace []byte
		if id, rest = textAfter(rest, `"id":"`); id == nil {
			break
		}
		if trace, rest = textAfter(rest, `"objectWriteTraceId":"`); trace == nil {
			break
		}
		index := indexOf(id)
		if len(indexes) > 0 {
			answer.WriteByte(',')
		}
		indexes = append(indexes, index)
		number := strconv.Itoa(idBase + index)
		answer.WriteString(`{"id":"` + number + `","properties":{"createdate":"2026-01-01T00:00:00.000Z","hs_lastmodifieddate":"2026-01-01T00:00:00.000Z","hs_object_id":"` + number +
			`"},"createdAt":"2026-01-01T00:00:00.000Z","updatedAt":"2026-01-01T00:00:00.000Z","archived":false,"new":true,"objectWriteTraceId":"`)
		answer.Write(trace)
		answer.WriteString(`"}`)
	}
	answer.WriteString(`],"startedAt":"2026-01-01T00:00:00.000Z","completedAt":"2026-01-01T00:00:00.000Z"}`)
	w.Header()["Content-Type"] = []string{"application/json;charset=utf-8"}
	if _, err := w.Write(answer.Bytes()); err != nil {
		return nil
	}
	return indexes
}

// one answers as HubSpot answers the creation of one record.
func (c *crm) one(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	body := borrow()
	defer buffers.Put(body)
	if _, err := body.ReadFrom(r.Body); err != nil {
		http.Error(w, "no body", http.StatusBadRequest)
		return
	}
	id, _ := textAfter(body.Bytes(), `"partnerstack_deal_key":"`)
	if id == nil {
		http.Error(w, "no key", http.StatusBadRequest)
		return
	}
	index := indexOf(id)
	number := strconv.Itoa(idBase + index)
	w.Header()["Content-Type"] = []string{"application/json;charset=utf-8"}
	w.WriteHeader(http.StatusCreated)
	_, err := io.WriteString(w, `{"id":"`+number+`","properties":{"createdate":"2026-01-01T00:00:00.000Z","hs_lastmodifieddate":"2026-01-01T00:00:00.000Z","hs_object_id":"`+
		number+`"},"createdAt":"2026-01-01T00:00:00.000Z","updatedAt":"2026-01-01T00:00:00.000Z","archived":false}`)
	if err == nil {
		c.note(index)
	}
}

func borrow() *bytes.Buffer {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	return b
}

// textAfter returns the JSON string that follows prefix, and what follows it.
func textAfter(data []byte, prefix string) (text, rest []byte) {
	at := bytes.Index(data, []byte(prefix))
	if at < 0 {
		return nil, nil
	}
	data = data[at+len(prefix):]
	end := bytes.IndexByte(data, '"')
	if end < 0 {
		return nil, nil
	}
	return data[:end], data[end:]
}

// indexOf reads the index out of a key of ours or an id of the CRM's.
func indexOf(id []byte) int {
	if digits, ours := bytes.CutPrefix(id, []byte("deal_")); ours {
		n, _ := strconv.Atoi(string(digits))
		return n
	}
	n, _ := strconv.Atoi(string(id))
	return n - idBase
}

func (c *crm) note(indexes ...int) {
	now := time.Now().UnixNano()
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, i := range indexes {
		if i >= 0 && i < len(c.answered) && atomic.CompareAndSwapInt64(&c.answered[i], 0, now) {
			c.distinct.Add(1)
		}
	}
}

func (c *crm) reset(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("rows"))
	if err != nil || n < 0 || n > offerLimit {
		http.Error(w, "no number of rows", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = make([]int64, n)
	c.hurry = make(chan struct{})
	c.distinct.Store(0)
	c.requests.Store(0)
}

// delivered is what the CRM has counted since it was reset.
type delivered struct {
	Distinct int `json:"distinct"` // rows, each once
	Requests int `json:"requests"`
}

func (c *crm) counts(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(delivered{int(c.distinct.Load()), int(c.requests.Load())})
}

func (c *crm) times(w http.ResponseWriter, _ *http.Request) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_ = binary.Write(w, binary.LittleEndian, c.answered)
}

// crmClient asks the CRM what it has got.
type crmClient struct {
	*child
	http http.Client
}

func (c *crmClient) reset(ctx context.Context, rows int) error {
	_, err := c.call(ctx, http.MethodPost, "/-/reset/"+strconv.Itoa(rows))
	return err
}

// hurry ends the slowness of the slow CRM until the next reset.
func (c *crmClient) hurry(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/-/hurry")
	return err
}

func (c *crmClient) counts(ctx context.Context) (d delivered, err error) {
	data, err := c.call(ctx, http.MethodGet, "/-/counts")
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	return d, err
}

// times returns when each row was answered, 0 for one that never came.
func (c *crmClient) times(ctx context.Context) ([]int64, error) {
	data, err := c.call(ctx, http.MethodGet, "/-/times")
	if err != nil {
		return nil, err
	}
	times := make([]int64, len(data)/8)
	_, err = binary.Decode(data, binary.LittleEndian, times)
	return times, err
}

func (c *crmClient) call(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the CRM: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("ask the CRM: answered %d", resp.StatusCode)
	}
	return data, err
}
