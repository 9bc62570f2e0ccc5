package sandbox

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Effect is what a fault does to a request.
type Effect string

// The effects. Each waits for Fault.Latency first; EffectLate waits after its answer.
const (
	EffectNone     Effect = "none"     // nothing but the latency
	EffectStatus   Effect = "status"   // answers Status, Header and Body; without Body the CRM's own for that status
	EffectReset    Effect = "reset"    // cuts the connection without an answer
	EffectLate     Effect = "late"     // answers Status (504) at once and carries the request out after Latency
	EffectTruncate Effect = "truncate" // carries the request out and cuts the connection in the middle of the answer
	EffectHuge     Effect = "huge"     // answers Status (200) with Size bytes of JSON
	EffectEmpty    Effect = "empty"    // answers Status (200) without a body
	EffectHTML     Effect = "html"     // answers Status (403) with a page of HTML, as a proxy in front of an API does
	EffectRedirect Effect = "redirect" // answers Status (307) to Location
	EffectThrottle Effect = "throttle" // answers 429 with the CRM's own body and RetryAfter
)

// Fault says which requests go wrong, and how. Every condition that is set has to hold; of several faults the first added
// that matches plays.
type Fault struct {
	Dialect     string  `json:"dialect,omitzero"`     // empty: any
	Method      string  `json:"method,omitzero"`      // empty: any
	Path        string  `json:"path,omitzero"`        // substring of the path
	Contains    string  `json:"contains,omitzero"`    // substring of the body
	MinRows     int     `json:"min_rows,omitzero"`    // rows of a batch
	MaxRows     int     `json:"max_rows,omitzero"`    // 0: no bound
	Probability float64 `json:"probability,omitzero"` // 0: always
	Seed        uint64  `json:"seed,omitzero"`        // of the draws: one seed, one sequence
	Skip        int     `json:"skip,omitzero"`        // lets that many matching requests pass first
	Count       int     `json:"count,omitzero"`       // plays that often; 0: without end

	Effect     Effect        `json:"effect,omitzero"` // empty: EffectNone
	Apply      bool          `json:"apply,omitzero"`  // carries the request out before the effect
	Latency    time.Duration `json:"-"`
	Status     int           `json:"status,omitzero"`
	Header     http.Header   `json:"header,omitzero"`
	Body       string        `json:"body,omitzero"`
	Policy     string        `json:"policy,omitzero"`      // of EffectThrottle: the CRM's name of the limit
	RetryAfter string        `json:"retry_after,omitzero"` // of EffectThrottle: the header, as is
	Location   string        `json:"location,omitzero"`    // of EffectRedirect
	Size       int64         `json:"size,omitzero"`        // of EffectHuge; 0: 64 MiB
}

// Fault adds a fault and returns what removes it.
func (s *Server) Fault(f Fault) (remove func()) {
	id := s.faults.add(f)
	return func() { s.faults.remove(id) }
}

// faults holds the faults in force.
type faults struct {
	mu     sync.Mutex
	next   int
	active []*activeFault
}

type activeFault struct {
	Fault
	id      int
	matched int
	played  int
	random  *rand.Rand
}

func (f *faults) add(fault Fault) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault.Effect == "" {
		fault.Effect = EffectNone
	}
	f.next++
	f.active = append(f.active, &activeFault{Fault: fault, id: f.next, random: rand.New(rand.NewPCG(fault.Seed, 0))})
	return f.next
}

// remove reports whether there was one.
func (f *faults) remove(id int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.active, func(a *activeFault) bool { return a.id == id })
	if i < 0 {
		return false
	}
	f.active = slices.Delete(f.active, i, i+1)
	return true
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = nil
}

// pick returns the fault that plays with a request, or nil.
func (f *faults) pick(dialect string, c *call) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	rows := -1
	for _, a := range f.active {
		if a.Count > 0 && a.played >= a.Count ||
			a.Dialect != "" && a.Dialect != dialect ||
			a.Method != "" && !strings.EqualFold(a.Method, c.method) ||
			!strings.Contains(c.path, a.Path) ||
			a.Contains != "" && !bytes.Contains(c.body, []byte(a.Contains)) {
			continue
		}
		if a.MinRows > 0 || a.MaxRows > 0 {
			if rows < 0 {
				rows = countRows(c.body)
			}
			if rows < a.MinRows || a.MaxRows > 0 && rows > a.MaxRows {
				continue
			}
		}
		a.matched++
		if a.matched <= a.Skip || a.Probability > 0 && a.random.Float64() >= a.Probability {
			continue
		}
		a.played++
		picked := a.Fault
		return &picked
	}
	return nil
}

// play lets a fault have its effect and returns the status that the client saw, 0 for none.
func (s *Server) play(w http.ResponseWriter, d dialect, c *call, f *Fault) int {
	if f.Effect == EffectLate {
		rep := f.dress(d.refusal(c, orStatus(f.Status, http.StatusGatewayTimeout), f.Policy))
		// The handler goes on after the answer, so the connection cannot serve another request.
		w.Header().Set("Connection", "close")
		status := write(w, rep)
		_ = http.NewResponseController(w).Flush()
		if s.wait(f.Latency) {
			s.carryOut(d, c)
		}
		return status
	}
	var rep reply
	applied := f.Apply || f.Effect == EffectTruncate
	if applied {
		rep = s.carryOut(d, c)
	}
	if !s.wait(f.Latency) {
		return cut(w)
	}
	switch f.Effect {
	case EffectReset:
		return cut(w)
	case EffectTruncate:
		return truncate(w, rep)
	case EffectHuge:
		return huge(w, orStatus(f.Status, http.StatusOK), f.Size)
	case EffectEmpty:
		rep = reply{status: orStatus(f.Status, http.StatusOK)}
	case EffectHTML:
		rep = reply{
			status: orStatus(f.Status, http.StatusForbidden),
			header: http.Header{"Content-Type": {"text/html; charset=UTF-8"}},
			body:   []byte("<!DOCTYPE html><html><head><title>Access denied</title></head><body><h1>Access denied</h1></body></html>\n"),
		}
	case EffectRedirect:
		rep = reply{
			status: orStatus(f.Status, http.StatusTemporaryRedirect), header: http.Header{"Location": {f.Location}},
		}
	case EffectThrottle:
		rep = d.refusal(c, http.StatusTooManyRequests, f.Policy)
		if f.RetryAfter != "" {
			rep.set("Retry-After", f.RetryAfter)
		}
	case EffectStatus:
		if applied {
			rep.status = orStatus(f.Status, rep.status)
		} else {
			rep = d.refusal(c, orStatus(f.Status, http.StatusInternalServerError), f.Policy)
		}
	default:
		if !applied {
			rep = s.carryOut(d, c)
		}
	}
	return write(w, f.dress(rep))
}

// dress puts the fault's own header and body on a reply.
func (f *Fault) dress(rep reply) reply {
	if f.Body != "" {
		rep.body = []byte(f.Body)
	}
	for name, values := range f.Header {
		rep.set(name, values...)
	}
	return rep
}

// write sends a reply and returns its status. A client that has gone is not an error here.
func write(w http.ResponseWriter, rep reply) int {
	head(w, rep, len(rep.body))
	_, _ = w.Write(rep.body)
	return rep.status
}

func head(w http.ResponseWriter, rep reply, length int) {
	h := w.Header()
	if length > 0 {
		h.Set("Content-Type", "application/json;charset=utf-8")
	}
	for name, values := range rep.header {
		h[name] = values
	}
	if rep.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(length))
	}
	w.WriteHeader(rep.status)
}

// cut ends the connection with a reset, so that the client cannot take it for a clean end.
func cut(w http.ResponseWriter) int {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	return 0
}

func truncate(w http.ResponseWriter, rep reply) int {
	head(w, rep, len(rep.body))
	_, _ = w.Write(rep.body[:len(rep.body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// huge streams a JSON string of that many bytes.
func huge(w http.ResponseWriter, status int, size int64) int {
	if size <= 0 {
		size = 64 << 20
	}
	size = max(size, 2)
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `"`)
	block := bytes.Repeat([]byte("x"), 32<<10)
	for left := size - 2; left > 0; {
		n, err := w.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return status
		}
		left -= int64(n)
	}
	_, _ = io.WriteString(w, `"`)
	return status
}

// countRows counts the elements of the first array in a body's top-level object, or of the body; 1 for any other body.
func countRows(body []byte) int {
	if len(bytes.TrimSpace(body)) == 0 {
		return 0
	}
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true))
	if d.PeekKind() == '{' {
		_, _ = d.ReadToken()
		for d.PeekKind() == '"' {
			_, _ = d.ReadToken()
			if d.PeekKind() == '[' {
				break
			}
			if d.SkipValue() != nil {
				return 1
			}
		}
	}
	if d.PeekKind() != '[' {
		return 1
	}
	_, _ = d.ReadToken()
	n := 0
	for d.PeekKind() != ']' {
		if d.SkipValue() != nil {
			return max(n, 1)
		}
		n++
	}
	return n
}

func orStatus(status, otherwise int) int {
	if status != 0 {
		return status
	}
	return otherwise
}
