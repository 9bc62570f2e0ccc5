package sandbox

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBody     = 32 << 20
	keptCalls   = 4096
	keptHooks   = 10_000
	webhookName = "webhook"
)

// Options configure a Server. The zero value is a CRM without lag, latency or limits that accepts any token.
type Options struct {
	Logger  *slog.Logger     // nil: silent
	Now     func() time.Time // nil: time.Now
	Token   string           // the one bearer that is accepted; empty: any that is not empty
	Account int64            // the account number that whoami answers; 0: 62515
	Lag     time.Duration    // how far a search is behind the writes, where the dialect's search lags
	Latency time.Duration    // added to every request, before it is carried out

	// MissingScopes are scopes that the token lacks, by the dialect's own names.
	MissingScopes []string
	// Custom are further properties, keyed by "dialect/object"; an object that the dialect does not know is made.
	Custom map[string][]Property
	// Limits are the rate limits in force; HubSpotLimits and its like return those that a vendor publishes. Empty: none.
	Limits []Limit
	// Clients are the credentials that the token endpoints take, keyed by dialect. A dialect that has none here takes any
	// that are complete.
	Clients map[string]Client
	// TokenLife is how long an access token lives that was fetched, keyed by dialect; 0: as long as the vendor's.
	TokenLife map[string]time.Duration
	// Lockout keeps out who fetches tokens too often, as Zoho does. The zero value keeps out nobody.
	Lockout Lockout
	// Patience is how many refusals in a row Pipedrive answers with 429 before Cloudflare answers in its place, with 403
	// and a page of HTML, until a request comes that is within the limits; 0: without end.
	Patience int
	// Variants are behaviours that differ from the default ones.
	Variants []Variant
	// Watch is told of each change as it happens, in this order, and must not call the Server; nil: nobody watches.
	Watch func(Change)
}

// Server is the fake CRM. It is safe for concurrent use.
type Server struct {
	options  Options
	dialects []dialect
	store    *store
	faults   faults
	limits   limits
	tokens   tokens
	token    atomic.Pointer[string]
	account  atomic.Int64
	lacking  atomic.Pointer[[]string] // scopes
	serial   atomic.Int64

	mu       sync.Mutex
	ignored  int // refusals in a row, of Patience
	requests ring[Request]
	hooks    ring[Hook]
	quit     chan struct{} // closed and renewed by Reset: ends waits
}

// Request is one line of the request log.
type Request struct {
	Time    time.Time `json:"time"`
	Dialect string    `json:"dialect"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Status  int       `json:"status"` // 0: the connection was cut instead
	Rows    int       `json:"rows"`
	Fault   Effect    `json:"fault,omitzero"`
}

// A dialect turns one request into one reply by the rules of one CRM. It must be safe for concurrent use.
type dialect interface {
	name() string
	// object gives the name under which the store keeps an object that may be called in several ways.
	object(name string) string
	// newID spells the n-th id, for a record of an object.
	newID(object string, n int64) string
	serve(c *call) reply
	// refusal is the dialect's own body for a status that a limit or a fault asks for.
	refusal(c *call, status int, policy string) reply
	// limited adds the headers that report a limit, to a refusal too.
	limited(c *call, l allowance, r *reply)
	// charge is what a request costs in the dialect's own units, 0 for one that no limit counts, and whether it writes.
	charge(c *call) (cost int, writes bool)
}

// call is a request with its body read.
type call struct {
	method   string
	base     string // scheme, host and prefix, as the client called us
	uri      string
	path     string   // below the prefix, escaped as it came
	segments []string // of path, unescaped one by one
	query    url.Values
	header   http.Header
	body     []byte
	now      time.Time
	serial   int64
}

// reply is what a dialect answers.
type reply struct {
	status int
	header http.Header
	body   []byte
	rows   int
}

// set replaces a header.
func (r *reply) set(name string, values ...string) {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header[http.CanonicalHeaderKey(name)] = values
}

// New returns a Server with the usual objects of every dialect defined.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Account == 0 {
		o.Account = 62515
	}
	s := &Server{
		options:  o,
		store:    newStore(o.Lag),
		requests: ring[Request]{limit: keptCalls},
		hooks:    ring[Hook]{limit: keptHooks},
		quit:     make(chan struct{}),
	}
	s.store.watch = o.Watch
	s.token.Store(&o.Token)
	s.account.Store(o.Account)
	s.lacking.Store(&o.MissingScopes)
	s.limits.set(o.Limits)
	s.dialects = []dialect{
		newHubspot(s), newSalesforce(s), newPipedrive(s), newAttio(s), newZoho(s), newDataverse(s),
	}
	for _, key := range sorted(o.Custom) {
		dialect, object, _ := strings.Cut(key, "/")
		for _, p := range o.Custom[key] {
			s.Define(dialect, object, p)
		}
	}
	return s
}

// ServeHTTP answers the dialects, the webhook receiver, the page and the control endpoints.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	switch head {
	case "":
		s.servePage(w, r)
	case "records.json":
		s.serveRecords(w, r)
	case "faults":
		s.serveFaults(w, r, rest)
	case webhookName:
		s.exchange(w, r, &webhook{s}, rest)
	default:
		if d := s.dialect(head); d != nil {
			s.exchange(w, r, d, rest)
			return
		}
		http.NotFound(w, r)
	}
}

// Records returns copies of the live records of an object, oldest first.
func (s *Server) Records(dialect, object string) []Record {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.store.table(dialect, s.objectName(dialect, object))
	if t == nil {
		return nil
	}
	out := make([]Record, 0, len(t.byID))
	for _, r := range t.rows {
		if !r.archived {
			out = append(out, t.export(r))
		}
	}
	return out
}

// Get returns a copy of one live record.
func (s *Server) Get(dialect, object, id string) (Record, bool) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t, r := s.record(dialect, object, id)
	if r == nil {
		return Record{}, false
	}
	return t.export(r), true
}

// Put adds a record as a person would in the CRM's own screens: unchecked, and seen by everybody at once. It returns the id.
func (s *Server) Put(dialect, object string, properties map[string]any) string {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.open(dialect, object)
	now := s.options.Now()
	r := s.store.create(t, s.newID(dialect, t.object), properties, now)
	r.past = []snapshot{{at: now.Add(-s.options.Lag), properties: r.copied()}}
	return r.id
}

// Edit changes a record as a person would in the CRM's own screens; nil and "" clear. It reports whether there was one.
func (s *Server) Edit(dialect, object, id string, properties map[string]any) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t, r := s.record(dialect, object, id)
	if r == nil {
		return false
	}
	s.store.update(t, r, properties, s.options.Now())
	return true
}

// Archive removes a record as a person would. It reports whether there was one.
func (s *Server) Archive(dialect, object, id string) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t, r := s.record(dialect, object, id)
	if r == nil {
		return false
	}
	s.store.archive(t, r, s.options.Now())
	return true
}

// Links returns the links between records of a dialect, oldest first.
func (s *Server) Links(dialect string) []Link {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	var out []Link
	for _, l := range s.store.links {
		if l.Dialect == dialect {
			out = append(out, l)
		}
	}
	return out
}

// Define adds or replaces a property of an object. An object that the dialect does not know is made.
func (s *Server) Define(dialect, object string, p Property) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.open(dialect, object).defineProperty(p)
}

// DefinePipeline adds or replaces a pipeline of an object.
func (s *Server) DefinePipeline(dialect, object string, p Pipeline) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.open(dialect, object).definePipeline(p)
}

// Requests returns the log of the latest requests to the dialects and the webhook receiver, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.all()
}

// Hooks returns the latest bodies that /webhook/… took, oldest first.
func (s *Server) Hooks() []Hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hooks.all()
}

// SetAccount changes the account number that whoami answers.
func (s *Server) SetAccount(n int64) { s.account.Store(n) }

// SetToken changes the one static token that is accepted from now on; tokens that were fetched are not touched.
func (s *Server) SetToken(token string) { s.token.Store(&token) }

// SetLimits replaces the rate limits; none switches them off.
func (s *Server) SetLimits(l ...Limit) { s.limits.set(l) }

// Reset forgets records, links, hooks, faults, refusals, locks and the request log, and drops requests that a fault still
// holds back. Definitions, tokens and the limits stay.
func (s *Server) Reset() {
	s.faults.clear()
	s.limits.restart()
	s.tokens.forgive()
	s.mu.Lock()
	s.requests.clear()
	s.hooks.clear()
	close(s.quit)
	s.quit = make(chan struct{})
	s.mu.Unlock()
	s.store.mu.Lock()
	s.store.clear()
	s.store.mu.Unlock()
}

// exchange reads a request, lets a fault play with it, and logs it.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request, d dialect, path string) {
	c := &call{
		method: r.Method, base: base(r, d.name()), uri: r.RequestURI, path: "/" + path, query: r.URL.Query(), header: r.Header,
		now: s.options.Now(), serial: s.serial.Add(1),
	}
	for segment := range strings.SplitSeq(path, "/") {
		if unescaped, err := url.PathUnescape(segment); err == nil {
			segment = unescaped
		}
		c.segments = append(c.segments, segment)
	}
	line := Request{Time: c.now, Dialect: d.name(), Method: c.method, Path: c.path}
	defer func() { s.log(line) }() // a fault that cuts the connection panics
	body, err := readBody(w, r)
	if err != nil {
		line.Status = write(w, d.refusal(c, http.StatusRequestEntityTooLarge, ""))
		return
	}
	c.body = body
	f := s.faults.pick(d.name(), c)
	if f == nil {
		rep := s.carryOut(d, c)
		line.Rows = rep.rows
		line.Status = write(w, rep)
		return
	}
	line.Rows = countRows(body)
	line.Fault = f.Effect
	line.Status = s.play(w, d, c, f)
}

func (s *Server) log(line Request) {
	s.mu.Lock()
	s.requests.add(line)
	s.mu.Unlock()
	s.options.Logger.Debug("sandbox request", "dialect", line.Dialect, "method", line.Method, "path", line.Path,
		"status", line.Status, "rows", line.Rows, "fault", line.Fault)
}

// carryOut does what the request asks for.
func (s *Server) carryOut(d dialect, c *call) reply {
	var u usage
	u.dialect, u.path = d.name(), c.path
	u.cost, u.writes = d.charge(c)
	leave, refused := s.limits.enter(u)
	if refused == nil {
		defer leave()
		s.wait(s.options.Latency)
	}
	var left []allowance
	if refused == nil {
		left, refused = s.limits.take(u, s.options.Now())
	}
	if refused != nil {
		rep := d.refusal(c, http.StatusTooManyRequests, refused.Policy)
		d.limited(c, *refused, &rep)
		return rep
	}
	rep := d.serve(c)
	for _, l := range left {
		d.limited(c, l, &rep)
	}
	return rep
}

// wait returns early, with false, when the server is reset. A client that gives up does not end it: a CRM that is slow
// carries out what it was sent all the same.
func (s *Server) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	s.mu.Lock()
	quit := s.quit
	s.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-quit:
		return false
	}
}

func (s *Server) dialect(name string) dialect {
	for _, d := range s.dialects {
		if d.name() == name {
			return d
		}
	}
	return nil
}

func (s *Server) objectName(dialect, object string) string {
	if d := s.dialect(dialect); d != nil {
		return d.object(object)
	}
	return object
}

// open returns the table of an object, made if need be; the caller holds the store.
func (s *Server) open(dialect, object string) *table {
	name := s.objectName(dialect, object)
	t := s.store.table(dialect, name)
	if t == nil {
		t = s.store.define(dialect, name)
		// maker is a dialect whose objects all have some properties.
		type maker interface{ made(t *table) }
		if m, ok := s.dialect(dialect).(maker); ok {
			m.made(t)
		}
	}
	return t
}

func (s *Server) newID(dialect, object string) string {
	n := s.store.nextID()
	if d := s.dialect(dialect); d != nil {
		return d.newID(object, n)
	}
	return spellID(n)
}

// record finds a live record; the caller holds the store.
func (s *Server) record(dialect, object, id string) (*table, *record) {
	t := s.store.table(dialect, s.objectName(dialect, object))
	if t == nil {
		return nil, nil
	}
	return t, t.live(id)
}

// varies tells whether a variant is switched on.
func (s *Server) varies(v Variant) bool { return slices.Contains(s.options.Variants, v) }

// base is the address under which the client knows a dialect.
func base(r *http.Request, dialect string) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + "/" + dialect
}

// readBody takes the whole body in one allocation where its length is known, up to maxBody.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if r.ContentLength > 0 && r.ContentLength <= maxBody {
		b := make([]byte, r.ContentLength)
		_, err := io.ReadFull(body, b)
		return b, err
	}
	return io.ReadAll(body)
}
