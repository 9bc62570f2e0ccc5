package receiver

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// What somebody without a secret can begin and leave unfinished.
var unfinished = map[string]string{
	"nothing":                       "",
	"half a head":                   "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nX-A: ",
	"a body, no secret":             "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n{",
	"a body, a wrong secret":        "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 400\r\n\r\n{",
	"a large body, no secret":       "POST /hooks/posts/thing HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{",
	"a body of unknown length":      "POST /hooks/posts/thing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
	"an unknown source":             "POST /hooks/nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{",
	"a signed body, no signature":   "POST /hooks/signed/thing HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{",
	"a signed body, forged":         "POST /hooks/signed/thing HTTP/1.1\r\nHost: x\r\nX-Signature: " + forged + "\r\nContent-Length: 1048576\r\n\r\n{",
	"a signed body, forged, larger": "POST /hooks/signed/thing HTTP/1.1\r\nHost: x\r\nX-Signature: " + forged + "\r\nContent-Length: 1048576\r\n\r\n{" + strings.Repeat(" ", 100_000),
	"for a source without verify":   "POST /hooks/anybody/thing HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{" + strings.Repeat(" ", 100_000),
}

// forged has the form of a signature.
var forged = strings.Repeat("0a", 32)

// strangers opens connections, each of which sends a text and nothing more.
func strangers(t testing.TB, url string, number int, text string) {
	t.Helper()
	var opening sync.WaitGroup
	some := make(chan struct{}, 64)
	for range number {
		some <- struct{}{}
		opening.Go(func() {
			defer func() { <-some }()
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(c, text) // it may be closed already
		})
	}
	opening.Wait()
}

// served posts events with the secret, and one that is signed, on connections of their own.
func (s *service) served(t testing.TB, what string) {
	t.Helper()
	for n := range 5 {
		c := client(t)
		if got := post(t, c, s.url+"/hooks/shop/deal.created", fmt.Sprintf(`{"key":"d%d","at":%d}`, n, time.Now().UnixNano())); got.code != 202 && got.code != 200 {
			t.Errorf("%s: an event with the secret is answered %d %s", what, got.code, got.text)
		}
		body := fmt.Sprintf(`{"n":%d,"long":%q}`, n, strings.Repeat("x", 20_000))
		// Strangers of whom something is still on the way are newer than this one, and it may be given up for them.
		waitFor(t, what+": a signed event is taken", func() bool {
			req := must(http.NewRequest(http.MethodPost, s.url+"/hooks/signed/thing", strings.NewReader(body)))
			s.gates.Load().bySource["signed"].source.Sign(req, []byte(body), time.Now())
			got := send(t, c, req)
			if got.code != 202 && got.code != 200 && got.code != 503 {
				t.Errorf("%s: a signed event is answered %d %s", what, got.code, got.text)
			}
			return got.code != 503
		})
		c.CloseIdleConnections()
	}
}

// bounded checks that strangers hold no more than half of the memory. Who is given up
// needs a moment to let go.
func (s *service) bounded(t testing.TB) {
	t.Helper()
	s.unproved.mu.Lock()
	if s.unproved.bytes > s.options.MaxBytes/2 {
		t.Errorf("strangers hold %d bytes", s.unproved.bytes)
	}
	s.unproved.mu.Unlock()
	waitFor(t, "strangers to let go", func() bool { return s.held.Load() <= s.options.MaxBytes/2 })
}

// 2,100 connections that fall silent and 900 large heads leave everybody served, with
// the bounds as they are by default.
func TestStrangersKeepNobodyOut(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ledger: newReleased()})
	for what, text := range unfinished {
		strangers(t, s.url, 2100/len(unfinished), text)
		s.served(t, what)
	}
	strangers(t, s.url, 900, "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n"+strings.Repeat("A:\r\n", 15_500)+"\r\n{")
	s.served(t, "large heads")
	s.bounded(t)
}

// Strangers in any number and at any point of a request neither take the connections
// nor the memory of those who have the secret.
func TestStrangersMakeRoom(t *testing.T) {
	t.Parallel()
	for what, text := range unfinished {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{Ledger: newReleased(), Connections: 16, MaxBytes: 256 << 10})
			// One of ours is slow. It is not cut for strangers.
			slow := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
			defer slow.Close()
			const event = `{"key":"slow","at":1700000000}`
			fmt.Fprintf(slow, "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n{", token, len(event))
			waitFor(t, "the slow request", func() bool { return s.held.Load() > 0 })
			for range 3 {
				strangers(t, s.url, 40, text)
				s.served(t, what)
			}
			fmt.Fprint(slow, event[1:])
			answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
			if err != nil || answer.StatusCode != 202 {
				t.Errorf("the slow request: %v %v", answer, err)
			}
			if n := s.connections.len(); n > 16 {
				t.Errorf("%d connections are open", n)
			}
			s.bounded(t)
			if testutil.ToFloat64(s.metrics.cutConnections) == 0 && !strings.Contains(what, "secret") && !strings.Contains(what, "no ") && !strings.Contains(what, "unknown") {
				t.Error("no connection was cut, or none is counted")
			}
		})
	}
}

// Who is given up holds its memory until it has noticed. The next one waits for that.
func TestReserveWaitsForWhoIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		give  body // whose turn it is
		leave bool // who is given up lets go; else the next one is given up, too
		want  bool
	}{
		{"one who has proved who it is", body{proved: true}, true, true},
		{"one who has not", body{}, true, true},
		{"one who is given up too", body{}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &Receiver{options: Options{MaxBytes: 100}}
				r.unproved.limit, r.unproved.cut = 50, func() {}
				enter := func(b *body, n int64) *body {
					if !b.proved {
						r.unproved.begin(b, func() {})
					}
					if n > 0 && !r.reserve(b, n) {
						t.Fatal("there is no room")
					}
					return b
				}
				ours, oldest := enter(&body{proved: true}, 50), enter(&body{}, 50)
				got := make(chan bool)
				b := enter(&tt.give, 0)
				if b.proved { // somebody else has the oldest given up
					other := enter(&body{}, 0)
					go func() { r.reserve(other, 10); r.release(other) }()
					synctest.Wait()
				}
				go func() { got <- r.reserve(b, 10) }()
				synctest.Wait()
				select {
				case <-got:
					t.Fatal("it does not wait")
				default:
				}
				if tt.leave {
					r.release(oldest)
				} else {
					other := enter(&body{}, 0)
					go func() { r.reserve(other, 45); r.release(other) }()
				}
				if <-got != tt.want {
					t.Errorf("it gets the memory: %v", !tt.want)
				}
				if !tt.leave {
					r.release(oldest)
				}
				synctest.Wait()
				if held := r.held.Load(); held > 100 {
					t.Errorf("%d bytes are held", held)
				}
				r.release(b)
				r.release(ours)
				synctest.Wait()
				if r.held.Load() != 0 || r.unproved.bytes != 0 || r.unproved.leaving != 0 {
					t.Errorf("%d, %d and %d bytes are left", r.held.Load(), r.unproved.bytes, r.unproved.leaving)
				}
			})
		})
	}
}

// Who is given up is told to come again: it may be one of ours, and has done nothing wrong.
func TestWhoIsGivenUpMayComeAgain(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ledger: newReleased(), MaxBytes: 64 << 10})
	begin := func(length int) net.Conn {
		c := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "POST /hooks/signed/thing HTTP/1.1\r\nHost: x\r\nX-Signature: %s\r\nContent-Length: 1048576\r\n\r\n%s", forged, strings.Repeat(" ", length))
		return c
	}
	oldest := begin(10_000)
	waitFor(t, "its body", func() bool { return s.held.Load() >= 10_000 })
	begin(20_000)
	answer, err := http.ReadResponse(bufio.NewReader(oldest), nil)
	if err != nil || answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("the answer is %v, %v", answer, err)
	}
}

// Where nobody is about to let go, nobody waits.
func TestReserveDoesNotWaitForOurs(t *testing.T) {
	t.Parallel()
	r := &Receiver{options: Options{MaxBytes: 100}}
	r.unproved.limit = 50
	if ours := (&body{proved: true}); !r.reserve(ours, 95) || r.reserve(ours, 10) || r.held.Load() != 95 {
		t.Errorf("%d bytes are held", r.held.Load())
	}
}

// Where every connection is in use by one who has the secret, the next one waits.
func TestConnectionsWait(t *testing.T) {
	t.Parallel()
	db := newSlow()
	s := start(t, Options{Ledger: db, Connections: 2, Timeout: time.Minute})
	answers := make(chan *http.Response, 3)
	begin := func(n int) {
		c := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 12\r\n\r\n{\"key\":\"d%d\"}", token, n)
		go func() {
			answer, _ := http.ReadResponse(bufio.NewReader(c), nil)
			answers <- answer
		}()
	}
	for n := range 2 {
		begin(n)
		waitFor(t, "it to be served", func() bool {
			s.connections.mu.Lock()
			defer s.connections.mu.Unlock()
			return s.connections.open == n+1 && s.connections.strangers.first == nil
		})
	}
	begin(2)
	close(db.release)
	for range 3 {
		if answer := <-answers; answer == nil || answer.StatusCode != 202 {
			t.Errorf("got %v", answer)
		}
	}
}

// Who goes for the next one: the stranger who has been there longest, then the one who
// has proved who it is and has sent nothing since for longest; nobody who is served.
func TestWhoMakesRoom(t *testing.T) {
	t.Parallel()
	cs := newConnections(4, func() {})
	names := map[*connection]string{}
	enter := func(name string) string {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { ours.Close(); theirs.Close() })
		c := &connection{Conn: ours, all: cs}
		names[c] = name
		victim, ok := cs.admit(c)
		if !ok {
			t.Fatalf("%s is not let in", name)
		}
		if victim != nil {
			victim.Close()
		}
		return names[victim]
	}
	find := func(name string) *connection {
		for c, n := range names {
			if n == name {
				return c
			}
		}
		return nil
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		enter(name)
	}
	find("b").prove() // and is served until the end
	find("a").prove()
	find("a").idle()
	for _, want := range []string{"c", "d", "c2"} {
		if got := enter(want + "2"); got != want {
			t.Errorf("%q goes, want %q", got, want)
		}
	}
	find("d2").prove()
	find("d2").idle()
	find("a").prove()
	find("a").idle()
	find("c22").prove()
	find("c22").idle()
	for _, want := range []string{"d2", "a"} {
		got := enter("x")
		if find("x").prove(); got != want {
			t.Errorf("%q goes, want %q", got, want)
		}
		names[find("x")] = "served"
	}
	find("c22").Close()
	if got := enter("y"); got != "" || cs.len() != 4 {
		t.Errorf("%q goes, %d are open", got, cs.len())
	}
	cs.Listener = &pipe{closed: make(chan struct{})}
	cs.Close()
	if _, ok := cs.admit(&connection{all: cs}); ok {
		t.Error("somebody comes through a closed door")
	}
}

func TestWhoGivesUpMemory(t *testing.T) {
	t.Parallel()
	var cut, stopped []string
	u := &unproved{limit: 100, cut: func() { cut = append(cut, "") }}
	bodies := map[string]*body{}
	for _, name := range []string{"a", "b", "c"} {
		bodies[name] = &body{}
		u.begin(bodies[name], func() { stopped = append(stopped, name) })
	}
	for _, step := range []struct {
		who  string
		n    int64
		want bool
		gone string // all so far
	}{
		{"a", 40, true, ""}, {"b", 40, true, ""}, {"a", 10, true, ""},
		{"c", 20, true, "a"},
		{"a", 1, false, "a"},
		{"b", 50, true, "a c"}, // not itself
		{"b", 10, true, "a c"},
		{"b", 1, false, "a c"}, // alone and too much
	} {
		if got := u.take(bodies[step.who], step.n); got != step.want || strings.Join(stopped, " ") != step.gone || len(cut) != len(stopped) {
			t.Errorf("%s takes %d: %v, stopped are %q", step.who, step.n, got, stopped)
		}
	}
	u.end(bodies["b"], true)
	if !u.take(bodies["b"], 1000) || u.bytes != 0 || u.bodies.Len() != 0 {
		t.Errorf("after one is proved %d bytes of %d bodies are left", u.bytes, u.bodies.Len())
	}
}

// Memory is taken for what has come, not for what is announced, from those who have
// the secret too.
func TestAnnouncedLength(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ledger: newReleased()})
	strangers(t, s.url, 1, "POST /hooks/posts/thing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\nContent-Length: 1048576\r\n\r\n{")
	waitFor(t, "the request", func() bool { return s.held.Load() > 0 })
	if held := s.held.Load(); held > 4<<10 {
		t.Errorf("%d bytes are held for one that has come", held)
	}
}

// A wrong secret is answered before the body is asked for.
func TestRefusedByTheHead(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ledger: newReleased()})
	for _, head := range []string{
		"POST /hooks/shop/deal.created HTTP/1.1\r\n",
		"POST /hooks/shop/deal.created HTTP/1.1\r\nAuthorization: Bearer wrong\r\n",
		"POST /hooks/far/thing HTTP/1.1\r\n",
		"POST /hooks/signed/thing HTTP/1.1\r\n",
		"POST /hooks/signed/thing HTTP/1.1\r\nX-Signature: 00\r\n",
	} {
		for _, body := range []string{"Content-Length: 400\r\nExpect: 100-continue\r\n", "Content-Length: 400\r\n", "Transfer-Encoding: chunked\r\n"} {
			c := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
			io.WriteString(c, head+"Host: x\r\n"+body+"\r\n")
			answer, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Errorf("%s%s: %v", head, body, err)
			} else if !answer.Close {
				t.Errorf("%s%s: the connection stays open for the body", head, body)
			} else if text, _ := io.ReadAll(answer.Body); answer.StatusCode != 401 || string(text) != `{"error":"the request does not prove who sent it"}`+"\n" {
				t.Errorf("%s%s: got %s %s", head, body, answer.Status, text)
			}
			c.Close()
		}
	}
	want := []string{"result=unauthorized source=far type=other 3", "result=unauthorized source=shop type=other 6", "result=unauthorized source=signed type=other 6"}
	if got := counted(t, s.registry, "partnersync_events_received_total"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counted %q, want %q", got, want)
	}
}

func TestLargeHeads(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ledger: newReleased()})
	for _, tt := range []struct {
		name   string
		fields string
		want   int
	}{
		{"as many as may be", strings.Repeat("A: b\r\n", maxHeadFields-2), 202},
		{"one more", strings.Repeat("A: b\r\n", maxHeadFields-1), 431},
		{"tiny ones", strings.Repeat("A:\r\n", 2000), 400},
		{"of different names", func() (text string) {
			for n := range 300 {
				text += "A" + strconv.Itoa(n) + ": b\r\n"
			}
			return text
		}(), 431},
		{"a long one", "A: " + strings.Repeat("b", 7000) + "\r\n", 202},
		{"too long a one", "A: " + strings.Repeat("b", 13000) + "\r\n", 431},
	} {
		c := must(net.Dial("tcp", strings.TrimPrefix(s.url, "http://")))
		io.WriteString(c, "POST /hooks/shop/deal.created HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\nContent-Length: 13\r\n"+tt.fields+"\r\n"+`{"key":"d\n"}`)
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if answer.StatusCode != tt.want {
			t.Errorf("%s: got %s, want %d", tt.name, answer.Status, tt.want)
		}
		c.Close()
	}
	// A body may have as many lines as it likes, and so may all bodies of a connection.
	for range 3 {
		if got := post(t, client(t), s.url+"/hooks/posts/thing", `{"n":1`+strings.Repeat("\n", 3000)+"}"); got.code != 202 {
			t.Errorf("a body of many lines: got %d %s", got.code, got.text)
		}
	}
}

func TestHeadCounter(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("A:\r\n", 4*maxHeadFields+1)
	for _, tt := range []struct {
		name string
		give string
		want bool
	}{
		{"nothing", "", false},
		{"a head", "GET / HTTP/1.1\r\nA: b\r\n\r\n", false},
		{"a body", "POST / HTTP/1.1\r\nA: b\r\n\r\n" + many, false},
		{"a body after bare line feeds", "POST / HTTP/1.1\nA: b\n\n" + many, false},
		{"too many", "POST / HTTP/1.1\r\n" + many, true},
		{"too many without returns", "POST / HTTP/1.1\n" + strings.ReplaceAll(many, "\r", ""), true},
		{"too many after empty lines", "\r\n\r\nPOST / HTTP/1.1\r\n" + many, true},
	} {
		for _, piece := range []int{1, 3, len(tt.give) + 1} {
			var h headCounter
			got := false
			for rest := tt.give; rest != "" && !got; {
				n := min(piece, len(rest))
				got = h.tooMany([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got != tt.want {
				t.Errorf("%s, %d bytes at a time: %v", tt.name, piece, got)
			}
		}
	}
}

func TestSender(t *testing.T) {
	t.Parallel()
	r := New(Options{Ledger: newReleased(), Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}}, routing(t, 1))
	for _, tt := range []struct {
		name string
		peer string
		hops []string
		want string
	}{
		{"no proxy", "192.0.2.1:5", nil, "192.0.2.1"},
		{"no proxy, and what anybody may write", "192.0.2.1:5", []string{"198.51.100.1"}, "192.0.2.1"},
		{"a proxy", "10.0.0.1:5", []string{"198.51.100.1"}, "198.51.100.1"},
		{"a proxy, and what the sender has written", "10.0.0.1:5", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		{"the same in two lines", "10.0.0.1:5", []string{"203.0.113.9", "198.51.100.1"}, "198.51.100.1"},
		{"two proxies", "10.0.0.1:5", []string{"203.0.113.9, 198.51.100.1,10.2.3.4"}, "198.51.100.1"},
		{"two proxies, two families", "[2001:db8::1]:5", []string{"198.51.100.1, ::ffff:10.2.3.4"}, "198.51.100.1"},
		{"a sender that claims to be a proxy", "192.0.2.1:5", []string{"10.0.0.1"}, "192.0.2.1"},
		{"with a port", "10.0.0.1:5", []string{"198.51.100.1:443"}, "198.51.100.1"},
		{"with a port, IPv6", "10.0.0.1:5", []string{"[2001:db9::7]:443"}, "2001:db9::7"},
		{"in brackets", "10.0.0.1:5", []string{"[2001:db9::7]"}, "2001:db9::7"},
		{"with a zone", "10.0.0.1:5", []string{"fe80::7%eth0"}, "fe80::7"},
		{"a proxy that tells nothing", "10.0.0.1:5", nil, "10.0.0.1"},
		{"all are proxies", "10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"no address", "10.0.0.1:5", []string{"198.51.100.1, unknown"}, "invalid IP"},
		{"an empty part", "10.0.0.1:5", []string{"198.51.100.1,"}, "invalid IP"},
		{"no peer", "", []string{"198.51.100.1"}, "invalid IP"},
	} {
		req := httptest.NewRequest(http.MethodPost, "/", nil)
		req.RemoteAddr, req.Header["X-Forwarded-For"] = tt.peer, tt.hops
		if got := r.sender(req).String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
