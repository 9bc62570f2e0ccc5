package sandbox

import (
	"net/http"
	"strconv"
	"time"
)

// Hook is one body that /webhook/… took.
type Hook struct {
	Time   time.Time   `json:"time"`
	Method string      `json:"method"`
	Path   string      `json:"path"` // below /webhook
	Header http.Header `json:"-"`
	Body   []byte      `json:"body"`
}

// webhook takes any POST or PUT, keeps the body and answers 200. It checks no token.
type webhook struct{ server *Server }

func (h *webhook) name() string                    { return webhookName }
func (h *webhook) object(name string) string       { return name }
func (h *webhook) newID(_ string, n int64) string  { return spellID(n) }
func (h *webhook) charge(*call) (cost int, _ bool) { return 1, true }

func (h *webhook) serve(c *call) reply {
	if c.method != http.MethodPost && c.method != http.MethodPut {
		return reply{status: http.StatusMethodNotAllowed, header: http.Header{"Allow": {"POST, PUT"}}}
	}
	h.server.mu.Lock()
	h.server.hooks.add(Hook{Time: c.now, Method: c.method, Path: c.path, Header: c.header.Clone(), Body: c.body})
	h.server.mu.Unlock()
	return reply{status: http.StatusOK, body: []byte(`{"id":"` + strconv.FormatInt(c.serial, 10) + `"}`), rows: 1}
}

func (h *webhook) refusal(_ *call, status int, _ string) reply {
	return reply{status: status, body: []byte(`{"error":"` + http.StatusText(status) + `"}`)}
}

func (h *webhook) limited(*call, allowance, *reply) {}
