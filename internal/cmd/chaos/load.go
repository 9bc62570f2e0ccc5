package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	hookToken = "token-of-the-hooks"

	orders     = 24
	firms      = 6
	senders    = 6
	loyal      = 4 // senders that write notes, each those of orders of its own, of which it knows the order so
	settled    = 2 // senders that post to one receiver alone
	pace       = 25 * time.Millisecond
	resend     = 150 * time.Millisecond
	patience   = 5 * time.Second // for an answer
	future     = 6               // of the first order, one event in so many has a time that cannot be
	keyless    = 60              // one event in so many has no key, and so ends dead
	duplicated = 8               // one event in so many is sent again later
	ending     = 4               // one event in so many of a seat ends it
	members    = 12              // keys
	persons    = 4               // that they are
	seatLife   = 8               // seconds of the events' times: then others come
	guestLife  = 120             // the same of people who come and go, and may be forgotten
	past       = 1000            // days: so far back the events' times begin, and never catch up with ours
)

func tiers() []string { return []string{"bronze", "silver", "gold"} }

// load is the senders, and what they know afterwards.
type load struct {
	world *world
	seed  uint64
	base  time.Time // of the events' times
	http  *http.Client

	mu       sync.Mutex
	accepted []post
	stored   int               // of accepted, the first so many, for certain
	again    int               // answered as duplicates
	retries  map[string]int    // by why
	refused  []string          // what no receiver should have answered
	notes    map[string]string // of each order, the last note, as its one sender knows
	clock    int64
	drawn    int64
}

// post is an event that was accepted.
type post struct{ typ, body, id string }

func newLoad(w *world, seed uint64) *load {
	return &load{
		world: w, seed: seed, base: time.Now().AddDate(0, 0, -past).Truncate(time.Second),
		http:    &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: senders}},
		retries: map[string]int{}, notes: map[string]string{},
	}
}

// run sends until stop is closed, and returns when what was begun has been accepted. It is an
// error when ctx ends before.
func (l *load) run(ctx context.Context, stop <-chan struct{}) error {
	defer l.http.CloseIdleConnections()
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() { l.send(ctx, stop, i) })
	}
	all.Wait()
	return ctx.Err()
}

// send is one sender.
func (l *load) send(ctx context.Context, stop <-chan struct{}, me int) {
	random := rand.New(rand.NewPCG(l.seed, 100+uint64(me)))
	var lately []post
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-time.After(pace/2 + time.Duration(random.Int64N(int64(pace)))):
		}
		var p post
		if len(lately) > 0 && random.IntN(duplicated) == 0 {
			p = lately[random.IntN(len(lately))]
		} else {
			p = l.draw(random, me)
			if p.typ != noteAdded { // of those without a time a later copy is a new event
				lately = append(lately, p)
				lately = lately[max(len(lately)-50, 0):]
			}
		}
		if !l.post(ctx, random, me, p) {
			return
		}
		if p.typ == noteAdded && random.IntN(duplicated) == 0 && !l.post(ctx, random, me, p) {
			return
		}
	}
}

// draw makes an event.
func (l *load) draw(random *rand.Rand, me int) post {
	one := func(n int) bool { return random.IntN(n) == 0 }
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	order := fmt.Sprintf("o-%02d", random.IntN(orders))
	b := body{At: l.at(random), Ref: l.ref()}
	name := func(list ...string) string { // half of the names are nobody else's
		if one(2) {
			return pick(list...)
		}
		return pick(list...) + " " + b.Ref
	}
	typ := ""
	switch n := random.IntN(31); {
	case n < 11:
		typ = pick(dealCreated, dealUpdated, dealUpdated)
		b.Key, b.Name = order, name("north", "south", "east")
		if one(2) {
			b.Stage = pick(tiers()...)
		}
		if one(2) {
			amount := random.Int64N(4)
			b.Amount = &amount
		}
		if one(2) {
			text := pick("", "short", "long")
			b.Description = &text
		}
		if one(2) {
			b.Partner = fmt.Sprintf("p-%d", random.IntN(5))
		}
		if one(2) {
			b.Firm = fmt.Sprintf("f-%d", random.IntN(firms))
		}
		if one(keyless) {
			b.Key, b.Firm = "", ""
		}
		// Such a time decides for long, so the others are spared.
		if b.Key == "o-00" && one(future) {
			b.At = time.Now().Add(24 * time.Hour).Unix()
		}
	case n < 14:
		typ = paymentMade
		paid := random.Int64N(3)
		b.Deal, b.Paid = order, &paid
	case n < 17 && me < loyal:
		typ = noteAdded
		b = body{Ref: b.Ref, Deal: fmt.Sprintf("o-%02d", random.IntN(orders/loyal)*loyal+me), Text: pick("call", "mail", "wait") + " " + b.Ref}
	case n < 21:
		typ = seatSaved
		b.Key, b.Name = fmt.Sprintf("s-%03d", (b.At-l.base.Unix()+5)/seatLife+random.Int64N(2)), name("north", "south", "east")
		if one(2) {
			b.Partner = fmt.Sprintf("p-%d", random.IntN(5))
		}
		if one(2) {
			b.Firm = fmt.Sprintf("f-%d", random.IntN(firms))
		}
		if one(ending) {
			typ, b = seatEnded, body{Ref: b.Ref, Key: b.Key, At: b.At}
		}
	case n < 23:
		typ = memberSaved
		m := random.IntN(members)
		b.Key, b.Name, b.Email = fmt.Sprintf("m-%02d", m), name("Ann", "Anna", "Annabel"), fmt.Sprintf("person-%d@acme.test", m%persons)
		if one(2) {
			guest := (b.At - l.base.Unix() + 5) / guestLife
			b.Key, b.Email = fmt.Sprintf("g-%d", guest), guestAddress(guest)
		}
		if one(2) {
			b.Partner = fmt.Sprintf("p-%d", random.IntN(5))
		}
	case n < 25:
		typ, b = callMade, body{Ref: b.Ref, Deal: order, At: b.At}
	case n < 28:
		typ, b = pick(tieMade, tieCut), body{Ref: b.Ref, Deal: order, At: b.At, Firm: fmt.Sprintf("f-%d", random.IntN(firms))}
	default:
		typ = firmSaved
		b.Key, b.Name = fmt.Sprintf("f-%d", random.IntN(firms)), pick("Acme", "Initech", "Hooli")
	}
	text, err := json.Marshal(b, json.Deterministic(true))
	if err != nil {
		panic(err) // a struct of texts and numbers
	}
	return post{typ: typ, body: string(text)}
}

// guestAddress is the e-mail of somebody who comes, goes and may be forgotten.
func guestAddress(n int64) string { return fmt.Sprintf("guest-%d@acme.test", n) }

// guest is the address of the one who is there.
func (l *load) guest() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return guestAddress((l.clock/8 + 5) / guestLife)
}

// ref draws what no other event has.
func (l *load) ref() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drawn++
	return fmt.Sprintf("e%d", l.drawn)
}

// at draws a time: on the whole they go on, but events come out of order, and some share a second.
func (l *load) at(random *rand.Rand) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	return l.base.Unix() + l.clock/8 + random.Int64N(11) - 5
}

// post sends an event until it is accepted.
func (l *load) post(ctx context.Context, random *rand.Rand, me int, p post) bool {
	for {
		id, status, why := l.try(ctx, l.receiver(random, me), p)
		l.mu.Lock()
		switch why {
		case "":
			p.id = id
			l.accepted = append(l.accepted, p)
			if status == "duplicate" {
				l.again++
			}
			if p.typ == noteAdded {
				var b body
				if json.Unmarshal([]byte(p.body), &b) == nil {
					l.notes[b.Deal] = b.Text
				}
			}
			l.mu.Unlock()
			return true
		default:
			l.retries[why]++
			if status == "refused" && len(l.refused) < 10 {
				l.refused = append(l.refused, fmt.Sprintf("a receiver answers %s to %s %s", why, p.typ, p.body))
			}
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return false
		case <-time.After(resend/2 + time.Duration(random.Int64N(int64(resend)))):
		}
	}
}

// receiver is where a sender posts to: "" while nobody is there.
func (l *load) receiver(random *rand.Rand, me int) string {
	at := me % receivers
	if me >= settled {
		at = random.IntN(receivers)
	}
	if p := l.world.receivers[at].current(); p != nil {
		return p.hooks
	}
	return ""
}

// try sends an event once. why is "" when it was accepted.
func (l *load) try(ctx context.Context, host string, p post) (id, status, why string) {
	if host == "" {
		return "", "", "nobody there"
	}
	url := "http://" + host + "/hooks/shop/" + p.typ + "?token=" + hookToken
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(p.body)))
	if err != nil {
		return "", "", "no request"
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := l.http.Do(r)
	if err != nil {
		var timeout interface{ Timeout() bool }
		if errors.As(err, &timeout) && timeout.Timeout() {
			return "", "", "no answer"
		}
		return "", "", "no connection"
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return "", "", "no connection"
	}
	var answer struct{ ID, Status string }
	_ = json.Unmarshal(data, &answer, json.MatchCaseInsensitiveNames(true)) // judged by the status
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
		return answer.ID, answer.Status, ""
	case res.StatusCode >= 400 && res.StatusCode < 500:
		return "", "refused", fmt.Sprint(res.StatusCode)
	}
	return "", "", fmt.Sprint(res.StatusCode)
}
