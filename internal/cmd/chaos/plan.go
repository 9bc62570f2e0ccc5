package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// deed is something that is done to the world.
type deed string

// What is done to processes and to Postgres.
const (
	killReceiver   deed = "kill -9 a receiver"
	killWorker     deed = "kill -9 a worker"
	killWorkers    deed = "kill -9 all workers"
	freezeWorker   deed = "freeze a worker past its renewal"
	join           deed = "a worker joins, and leaves by SIGTERM"
	joinBriefly    deed = "a worker joins, and is killed"
	reload         deed = "reload the config"
	reloadBad      deed = "reload a config that is wrong"
	killPostgres   deed = "kill -9 Postgres"
	freezePostgres deed = "freeze Postgres"
	freezeKill     deed = "freeze Postgres, then kill -9 it"
	killHanging    deed = "a CRM hangs, then kill -9 who works it"
)

// What is done to the way of one process to Postgres.
const (
	stallOne    deed = "nothing passes between a process and Postgres"
	cutReceiver deed = "cut a receiver off from Postgres"
	cutWorker   deed = "cut a worker off from Postgres"
	lateOne     deed = "a receiver loses its connections, and what it has sent arrives later"
	lateWorker  deed = "a worker loses its connections, and what it has sent arrives later"
)

// What is done to the config beyond its numbers.
const (
	rename   deed = "rename a sink"
	dropSink deed = "take a sink out of the config, and put it back"
)

// What an operator does.
const (
	replay       deed = "replay"
	replayKilled deed = "replay, killed under way and continued"
	replayUndone deed = "replay, cancelled under way"
	forget       deed = "forget a person"
	age          deed = "put old events into the tables"
	dropJobs     deed = "delete jobs from the queue"
)

// What a CRM does to requests.
const (
	throttle    deed = "answers 429"
	unavailable deed = "answers 503"
	lie         deed = "answers 503, and applies"
	slow        deed = "is slow"
	hang        deed = "answers too late, and applies"
	cut         deed = "cuts connections"
	lose        deed = "applies, and cuts connections"
	truncate    deed = "applies, and breaks off its answers"
	late        deed = "answers 504, and applies later"
)

// step is one entry of the plan.
type step struct {
	at      time.Duration // since the load began
	do      deed
	on      int           // which receiver, worker or CRM
	lasts   time.Duration // until it is undone
	chance  float64       // that a request meets the fault of a CRM
	latency time.Duration // of the fault
	seed    uint64        // of its draws
}

func (s step) String() string {
	text := fmt.Sprintf("%6.2fs  ", s.at.Seconds())
	switch {
	case s.fault():
		text += fmt.Sprintf("CRM %d %s (%.0f %% of requests", s.on, s.do, 100*s.chance)
		if s.latency > 0 {
			text += fmt.Sprintf(", %d ms", s.latency.Milliseconds())
		}
		text += ")"
	case s.do == killReceiver || s.do == killWorker || s.do == freezeWorker || s.do == cutReceiver || s.do == cutWorker || s.do == lateOne ||
		s.do == lateWorker || s.do == stallOne || s.do == killHanging:
		text += fmt.Sprintf("%s: %d", s.do, s.on)
	case s.do == replay || s.do == replayKilled || s.do == replayUndone:
		text += fmt.Sprintf("%s: %s", s.do, strings.Join(selections()[s.on], " "))
	default:
		text += string(s.do)
	}
	if s.lasts > 0 {
		text += fmt.Sprintf(", for %.2f s", s.lasts.Seconds())
	}
	return text
}

// fault reports whether it is a CRM that fails.
func (s step) fault() bool {
	switch s.do {
	case throttle, unavailable, lie, slow, hang, cut, lose, truncate, late:
		return true
	}
	return false
}

// The shape of the world.
const (
	receivers = 2
	workers   = 3 // that are there from the beginning
	joiners   = 2
	crms      = 6
)

// heals is how long it takes at most until the sweeper queues again what has no job, or whose
// worker never heard of it. What needs it is done early in a run, and not in a short one.
const heals = 3 * time.Minute

// selections are what is replayed, in the words of the command.
func selections() [][]string {
	return [][]string{
		{"--since", "10s"},
		{"--since", "5s", "--rewrite"},
		{"--type", "shop." + seatSaved, "--since", "20s"},
		{"--type", "shop." + seatEnded, "--rewrite"},
		{"--type", "shop." + memberSaved, "--rewrite"},
		{"--sink", "office", "--since", "20s"},
		{"--outcome", "stale", "--type", "shop." + noteAdded},
		{"--outcome", "dead"},
	}
}

// hangs is how long a CRM hangs at most. That is so long that requests which wait for others begin
// to hang, too, when the write intent that they belong to is half over.
const hangs = 2*crmTimeout + 500*time.Millisecond

// draw makes the plan of a run: each deed at least once, and others as long as there is time.
func draw(seed uint64, length time.Duration) []step {
	random := rand.New(rand.NewPCG(seed, 1))
	span := func(least, most time.Duration) time.Duration {
		return least + time.Duration(random.Int64N(int64(most-least)))
	}
	deeds := []deed{
		killReceiver, killWorker, killWorkers, killHanging, join, joinBriefly, reload, reloadBad, killPostgres, freezePostgres, freezeKill,
		stallOne, cutReceiver, lateOne, replay, replayKilled, replayUndone, forget, age, rename, dropSink,
	}
	random.Shuffle(len(deeds), func(i, j int) { deeds[i], deeds[j] = deeds[j], deeds[i] })
	const pause = 4 * time.Second // between two deeds of a long run
	again := append(slices.Clone(deeds), killWorker, killHanging, stallOne, forget)
	again = slices.DeleteFunc(again, func(d deed) bool { return d == reloadBad })
	for len(deeds) < int(length/pause) {
		deeds = append(deeds, again[random.IntN(len(again))])
	}
	var plan []step
	slot := (length - time.Second) / time.Duration(len(deeds))
	for i, d := range deeds {
		s := step{at: 500*time.Millisecond + time.Duration(i)*slot + span(0, slot), do: d}
		switch d {
		case freezeKill:
			s.lasts = span(500*time.Millisecond, 4*time.Second)
		case killHanging:
			s.on, s.lasts = random.IntN(crms), span(100*time.Millisecond, hangs)
			if random.IntN(2) == 0 { // many requests of one intent, of which some have had to wait
				s.on, s.lasts = 0, span(crmTimeout+200*time.Millisecond, 2*crmTimeout-200*time.Millisecond)
			}
		case stallOne:
			s.on, s.lasts = random.IntN(receivers+workers), span(500*time.Millisecond, 4*time.Second)
		case cutReceiver:
			s.on, s.lasts = random.IntN(receivers), span(500*time.Millisecond, 6*time.Second)
		case lateOne:
			s.on, s.lasts, s.latency = random.IntN(receivers), span(50*time.Millisecond, 2*time.Second), span(500*time.Millisecond, 4*time.Second)
		case dropSink:
			s.lasts = span(time.Second, 5*time.Second)
		case killReceiver:
			s.on, s.lasts = random.IntN(receivers), span(100*time.Millisecond, 1500*time.Millisecond)
		case killWorker:
			s.on, s.lasts = random.IntN(workers), span(100*time.Millisecond, 4*time.Second)
		case killWorkers:
			s.lasts = span(50*time.Millisecond, time.Second)
		case join, joinBriefly:
			s.lasts = span(2*time.Second, 6*time.Second)
		case killPostgres:
			s.lasts = span(50*time.Millisecond, 1500*time.Millisecond)
		case freezePostgres:
			s.lasts = span(500*time.Millisecond, 4*time.Second)
		case replay:
			s.on = random.IntN(len(selections()))
		case replayKilled, replayUndone:
			s.on, s.lasts = random.IntN(len(selections())), span(50*time.Millisecond, 500*time.Millisecond)
		}
		plan = append(plan, s)
	}
	if early := max(length-heals, length/3); length >= time.Minute {
		for i, at := 0, span(0, early); i == 0 || at < early; i, at = i+1, at+span(5*time.Second, 20*time.Second) {
			for _, d := range []deed{dropJobs, cutWorker, lateWorker} {
				s := step{at: at + span(0, time.Second), do: d}
				switch d {
				case cutWorker:
					s.on, s.lasts = random.IntN(workers), span(500*time.Millisecond, 15*time.Second)
				case lateWorker:
					s.on, s.lasts, s.latency = random.IntN(workers), span(50*time.Millisecond, 2*time.Second), span(500*time.Millisecond, 8*time.Second)
					if random.IntN(2) == 0 {
						s.latency = span(100*time.Millisecond, 500*time.Millisecond)
					}
				}
				plan = append(plan, s)
			}
		}
	}
	// Frozen, a worker is overtaken after some ten seconds.
	const freeze = 12 * time.Second
	for at := span(0, max(length-freeze, 0)+time.Second); at < length; at += freeze + span(5*time.Second, 30*time.Second) {
		plan = append(plan, step{at: at, do: freezeWorker, on: random.IntN(workers), lasts: span(10500*time.Millisecond, freeze)})
	}
	plan = append(plan, drawFaults(random, span, length)...)
	slices.SortStableFunc(plan, func(a, b step) int { return int(a.at - b.at) })
	return plan
}

// drawFaults lets one CRM after the other fail, every fault at least once.
func drawFaults(random *rand.Rand, span func(least, most time.Duration) time.Duration, length time.Duration) []step {
	faults := []deed{throttle, unavailable, lie, slow, hang, cut, lose, truncate, late}
	var plan []step
	pause := min(2*time.Second, length/time.Duration(2*len(faults)))
	for i, at := 0, pause/2; at < length-time.Second; i, at = i+1, at+span(pause/2, pause*3/2) {
		if i%len(faults) == 0 {
			random.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		}
		s := step{
			at: at, do: faults[i%len(faults)], on: random.IntN(crms), lasts: span(200*time.Millisecond, 1500*time.Millisecond),
			chance: 0.2 + 0.8*random.Float64(), seed: random.Uint64(),
		}
		switch s.do {
		case slow:
			s.latency = span(50*time.Millisecond, 700*time.Millisecond)
		case hang: // beyond the timeout, and within what may settle
			s.latency, s.lasts = crmTimeout+span(50*time.Millisecond, crmSettle/2), span(500*time.Millisecond, hangs)
		case late:
			s.latency = span(50*time.Millisecond, crmSettle*2/3)
		}
		plan = append(plan, s)
	}
	return plan
}
