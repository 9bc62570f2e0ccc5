package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// entry is something to do at its time: a step, or its end.
type entry struct {
	at time.Duration
	do func(ctx context.Context) error
}

// quietLimit is how long it may take until all is quiet after everything has come back: longer
// than the sweeper takes, and not so long that River itself finds the jobs that nobody works.
const quietLimit = heals + 90*time.Second

// suffer sends events and carries out the plan meanwhile; it returns when everything has come
// back, all that was begun has been accepted, and nothing moves any more.
func (w *world) suffer(ctx context.Context, plan []step, length time.Duration, l *load) error {
	if err := w.age(ctx, time.Minute); err != nil { // before anybody looks for what is old for the first time
		return err
	}
	for _, s := range append(append([]*slot{}, w.receivers...), w.workers[:workers]...) {
		s.start()
	}
	if err := w.wait(ctx, time.Minute, "all processes run", func(context.Context) (bool, error) {
		for _, s := range append(append([]*slot{}, w.receivers...), w.workers[:workers]...) {
			if s.current() == nil {
				return false, nil
			}
		}
		return true, nil
	}); err != nil {
		return err
	}
	w.begun = time.Now()
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	sent := make(chan error, 1)
	go func() { sent <- l.run(sending, stop) }()

	err := w.carryOut(ctx, plan, length)
	close(stop)
	if err == nil {
		err = w.heal(ctx)
	}
	if err == nil {
		w.say("everything is back")
		select {
		case err = <-sent:
		case <-time.After(quietLimit):
			err = fmt.Errorf("the senders are not rid of their last events: %v", l.retries)
		}
	}
	if err == nil {
		err = w.settleReplays(ctx)
	}
	if err == nil {
		err = w.settleForgets(ctx)
	}
	if err != nil {
		cancel()
		return err
	}
	err = w.wait(ctx, quietLimit, "all is quiet", func(ctx context.Context) (bool, error) { return w.quiet(ctx, l) })
	if err != nil {
		return fmt.Errorf("%w\n%s", err, w.unrest(ctx, l))
	}
	w.say("all is quiet")
	return nil
}

// carryOut does what the plan says, one thing after the other; what takes longer delays the rest.
func (w *world) carryOut(ctx context.Context, plan []step, length time.Duration) error {
	var agenda []entry
	add := func(e entry) {
		at, _ := slices.BinarySearchFunc(agenda, e.at, func(a entry, at time.Duration) int { return int(a.at - at) })
		for at < len(agenda) && agenda[at].at == e.at {
			at++
		}
		agenda = slices.Insert(agenda, at, e)
	}
	for _, s := range plan {
		add(entry{s.at, func(ctx context.Context) error {
			undo, err := w.do(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.do, err)
			}
			if undo != nil {
				// Seen from now, so that it lasts as long as planned.
				add(entry{time.Since(w.begun) + s.lasts, undo})
			}
			return nil
		}})
	}
	for {
		at := length
		if len(agenda) > 0 {
			at = min(at, agenda[0].at)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(at - time.Since(w.begun)):
		}
		if at == length {
			return nil // what is not undone yet, heal does
		}
		next := agenda[0]
		agenda = agenda[1:]
		if err := next.do(ctx); err != nil {
			return err
		}
	}
}

// do begins a step, and returns what ends it.
func (w *world) do(ctx context.Context, s step) (undo func(context.Context) error, err error) {
	w.say("%s", strings.TrimSpace(s.String()[9:]))
	switch s.do {
	case killReceiver:
		p := w.receivers[s.on]
		p.kill()
		return func(context.Context) error { w.restart(p); return nil }, nil
	case killWorker:
		return w.killWorkers(ctx, w.workers[s.on:s.on+1]), nil
	case killWorkers:
		return w.killWorkers(ctx, w.workers), nil // but not one that is frozen: it has to wake
	case freezeWorker:
		return w.freeze(ctx, w.workers[s.on], s.lasts), nil
	case join, joinBriefly:
		return w.join(s.do == joinBriefly), nil
	case reload:
		return nil, w.reload(w.nextConfig())
	case reloadBad:
		return nil, w.reloadBad()
	case replay, replayKilled, replayUndone:
		return w.replay(ctx, s), nil
	case killHanging:
		return w.killHanging(ctx, s)
	case forget:
		w.forget(ctx, w.load.guest())
		return nil, nil
	case age:
		_ = w.age(ctx, glance) // Postgres may be away
		return nil, nil
	case dropJobs:
		return nil, w.dropJobs(ctx)
	case rename:
		w.renamed++
		return nil, w.reload(w.nextConfig())
	case dropSink:
		w.absent, w.dropped = true, true
		return func(context.Context) error { w.absent = false; return w.reload(w.nextConfig()) }, w.reload(w.nextConfig())
	case stallOne:
		return w.without(w.slots()[s.on].wire, (*wire).stall, (*wire).mend), nil
	case cutReceiver:
		return w.without(w.receivers[s.on].wire, (*wire).cut, (*wire).mend), nil
	case cutWorker:
		return w.without(w.workers[s.on].wire, (*wire).cut, (*wire).mend), nil
	case lateOne:
		return w.without(w.receivers[s.on].wire, (*wire).mute, func(wire *wire) { wire.part(s.latency) }), nil
	case lateWorker:
		return w.without(w.workers[s.on].wire, (*wire).mute, func(wire *wire) { w.posthumous(w.workers[s.on], s.latency) }), nil
	case freezeKill:
		return func(ctx context.Context) error {
			w.say("the frozen Postgres is killed")
			err := w.pg.kill()
			return errors.Join(err, w.pg.start(ctx))
		}, w.pg.pause(ctx)
	case killPostgres:
		return func(ctx context.Context) error {
			err := w.pg.start(ctx)
			w.measure("work goes on after Postgres is back from kill -9", aimRestart, time.Now(), w.crms, false)
			return err
		}, w.pg.kill()
	case freezePostgres:
		return func(context.Context) error {
			w.pg.resume()
			w.measure("work goes on after Postgres is back from a freeze", aimRestart, time.Now(), w.crms, false)
			return nil
		}, w.pg.pause(ctx)
	}
	heal := w.crms[s.on].fail(s)
	return func(context.Context) error { heal(); return nil }, nil
}

// without takes the way to Postgres from a process for a while.
func (w *world) without(way *wire, take, give func(*wire)) func(context.Context) error {
	take(way)
	return func(context.Context) error {
		give(way)
		return nil
	}
}

// posthumous ends the connections of a worker, and has what it had sent arrive later. Where that is
// soon, it stands still meanwhile: what its question for jobs finds would be taken by the next one.
func (w *world) posthumous(s *slot, late time.Duration) {
	still := late < time.Second && !s.isFrozen() && s.freeze()
	s.wire.part(late)
	if still {
		time.Sleep(2 * late)
		s.thaw()
	}
}

// killHanging kills who works a CRM while requests hang there that are carried out later, so
// that whoever is next has to keep off.
func (w *world) killHanging(ctx context.Context, s step) (func(context.Context) error, error) {
	c := w.crms[s.on]
	heal := c.fail(step{do: hang, chance: 1, latency: crmTimeout + crmSettle/2})
	return func(context.Context) error {
		var undo func(context.Context) error
		for i, p := range w.workers {
			if undo == nil && slices.Contains(w.ownedBy(ctx, p), c) {
				w.say("who works %s is killed: %s", c.sink, p.name)
				undo = w.killWorkers(ctx, w.workers[i:i+1])
			}
		}
		heal()
		if undo != nil {
			return undo(ctx)
		}
		return nil
	}, nil
}

// restart starts a receiver and measures how long it takes until it accepts.
func (w *world) restart(s *slot) {
	begun := time.Now()
	s.start()
	w.looks.Go(func() {
		took := missing
		for time.Since(begun) < lookLimit {
			if s.current() != nil {
				took = time.Since(begun)
				break
			}
			time.Sleep(lookEvery)
		}
		w.note("a killed receiver takes events again", aimRestart, took)
	})
}

// killWorkers kills those that run. Where others are left, it measures how long their sinks
// lie idle, else how long work takes to begin after the restart.
func (w *world) killWorkers(ctx context.Context, slots []*slot) func(context.Context) error {
	slots = slices.DeleteFunc(slices.Clone(slots), (*slot).isFrozen)
	var idle []*crm
	for _, s := range slots {
		idle = append(idle, w.ownedBy(ctx, s)...)
	}
	killed := time.Now()
	var were []*slot
	for _, s := range slots {
		if s.kill() {
			were = append(were, s)
		}
	}
	alone := len(slots) == len(w.workers)
	if !alone {
		w.measure("a killed worker's sinks are worked again", aimTakeOver, killed, idle, true)
	}
	return func(context.Context) error {
		begun := time.Now()
		for _, s := range were {
			s.start()
		}
		if alone {
			w.measure("work goes on after the restart of all workers", aimRestart, begun, w.crms, false)
		}
		return nil
	}
}

func (w *world) freeze(ctx context.Context, s *slot, lasts time.Duration) func(context.Context) error {
	s.thawAt = time.Now().Add(lasts)
	idle := w.ownedBy(ctx, s)
	frozen := time.Now()
	if !s.freeze() {
		return nil
	}
	w.measure("a frozen worker's sinks are worked again", 0, frozen, idle, true)
	return func(context.Context) error {
		w.say("the frozen worker wakes")
		s.thaw()
		return nil
	}
}

// join starts one more worker.
func (w *world) join(brief bool) func(context.Context) error {
	for _, s := range w.workers[workers:] {
		s.mu.Lock()
		there := s.wanted
		s.mu.Unlock()
		if there {
			continue
		}
		s.start()
		return func(ctx context.Context) error {
			idle, since := w.ownedBy(ctx, s), time.Now()
			if brief {
				s.kill()
				w.measure("a killed worker's sinks are worked again", aimTakeOver, since, idle, true)
				return nil
			}
			// A drain takes as long as the requests under way; the plan goes on meanwhile.
			w.looks.Go(func() {
				if err := s.stop(); err != nil {
					s.mu.Lock()
					s.faults = append(s.faults, err.Error())
					s.mu.Unlock()
				}
			})
			return nil
		}
	}
	return nil
}

// nextConfig is the config with another concurrency than it has now.
func (w *world) nextConfig() string {
	w.reloads++
	text := strings.ReplaceAll(configText, "concurrency: 4", fmt.Sprintf("concurrency: %d", 2+w.reloads%3))
	if w.renamed > 0 {
		former := []string{"mirror"}
		for i := 1; i < w.renamed; i++ {
			former = append(former, fmt.Sprintf("mirror%d", i))
		}
		text = strings.ReplaceAll(text, "to: mirror\n", "to: "+w.nameOf("mirror")+"\n")
		text = strings.ReplaceAll(text, "  mirror: {<<: *hubspot,", "  "+w.nameOf("mirror")+": {<<: *hubspot, formerly: ["+strings.Join(former, ", ")+"],")
	}
	if w.absent {
		lines := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool { return strings.HasSuffix(line, "# annex\n") })
		text = strings.Join(lines, "")
	}
	return text
}

// nameOf is what a sink is called now.
func (w *world) nameOf(sink string) string {
	if sink == "mirror" && w.renamed > 0 {
		return fmt.Sprintf("mirror%d", w.renamed)
	}
	return sink
}

// reload puts a config in force. A process that has not begun to listen to signals ends from this
// one, and is started again.
func (w *world) reload(text string) error {
	w.good = text
	err := w.writeConfig(text)
	for _, s := range w.slots() {
		s.signal(syscall.SIGHUP)
	}
	return err
}

// reloadBad reloads a config that is wrong, and puts the former one back for those that start.
func (w *world) reloadBad() error {
	good := w.good
	if err := w.reload(good + "\nsinkz: {}\n"); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond) // as an operator takes to see the mistake
	w.good = good
	return w.writeConfig(good)
}

// ownedBy are the CRMs whose sink the process of a slot works.
func (w *world) ownedBy(ctx context.Context, s *slot) []*crm {
	p := s.current()
	if p == nil {
		return nil
	}
	var owned []*crm
	for sink, owner := range w.owners(ctx) {
		for _, c := range w.crms {
			if c.sink == baseOf(sink) && w.nameOf(c.sink) == sink && strings.Contains(owner, fmt.Sprintf("-%d-", p.PID())) {
				owned = append(owned, c)
			}
		}
	}
	return owned
}

// owners are the processes that work the sinks, as far as Postgres tells at once.
func (w *world) owners(ctx context.Context) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	owners := map[string]string{}
	rows, err := w.pool.Query(ctx, `SELECT name, owner FROM sinks`)
	if err != nil {
		return nil
	}
	var sink, owner string
	_, _ = pgx.ForEachRow(rows, []any{&sink, &owner}, func() error { owners[sink] = owner; return nil }) // else there is less to measure
	return owners
}

// glance is how long a deed waits for a Postgres that may be away.
const glance = 300 * time.Millisecond

// heal brings everything back.
func (w *world) heal(ctx context.Context) error {
	for _, c := range w.crms {
		c.heal()
	}
	for _, wire := range w.wires {
		wire.mend()
	}
	w.pg.resume()
	if err := w.pg.start(ctx); err != nil {
		return err
	}
	if w.absent {
		w.absent = false
		if err := w.reload(w.nextConfig()); err != nil {
			return err
		}
	}
	for _, s := range w.workers {
		if !s.isFrozen() {
			continue
		}
		select { // past its renewal, as planned
		case <-time.After(time.Until(s.thawAt)):
			w.say("the frozen worker wakes")
			s.thaw()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, s := range append(append([]*slot{}, w.receivers...), w.workers[:workers]...) {
		s.start()
	}
	return nil
}

// quiet reports whether all that was accepted is stored and has an outcome, and no CRM has
// anything under way.
func (w *world) quiet(ctx context.Context, l *load) (bool, error) {
	for _, c := range w.crms {
		if c.busy() {
			return false, nil
		}
	}
	var open int
	err := w.pool.QueryRow(ctx, `SELECT count(*) FROM routes WHERE outcome IS NULL`).Scan(&open)
	if err != nil || open > 0 {
		return false, err
	}
	lacking, err := w.lacking(ctx, l)
	return len(lacking) == 0, err
}

// unrest tells what keeps it from being quiet.
func (w *world) unrest(ctx context.Context, l *load) string {
	var b strings.Builder
	lacking, err := w.lacking(ctx, l)
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	for i, p := range lacking {
		if i == shown {
			fmt.Fprintf(&b, "and %d more\n", len(lacking)-shown)
			break
		}
		fmt.Fprintln(&b, p)
	}
	for _, query := range []string{
		`SELECT 'open routes to ' || sink || ': ' || count(*) FROM routes WHERE outcome IS NULL GROUP BY sink`,
		`SELECT 'jobs of ' || queue || ': ' || count(*) || ' ' || state FROM river_job WHERE state <> 'completed' GROUP BY queue, state`,
		`SELECT 'sink ' || name || ': ' || state || ', owned by ' || owner FROM sinks`,
		`SELECT 'job ' || to_jsonb(j)::text FROM river_job j WHERE state NOT IN ('completed', 'cancelled') LIMIT 3`,
	} {
		rows, err := w.pool.Query(ctx, query)
		if err == nil {
			var lines []string
			lines, err = pgx.CollectRows(rows, pgx.RowTo[string])
			fmt.Fprintln(&b, strings.Join(lines, "\n"))
		}
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	var open []string
	rows, err := w.pool.Query(ctx, `SELECT DISTINCT event_id::text FROM routes WHERE outcome IS NULL LIMIT 3`)
	if err == nil {
		open, _ = pgx.CollectRows(rows, pgx.RowTo[string]) // else there is less to read
	}
	for _, id := range open {
		out, _ := w.command(ctx, "explain", id)
		fmt.Fprintf(&b, "\nexplain %s\n%s", id, out)
	}
	return b.String()
}

// wait waits for a condition; errors of looking count only at the end of patience.
func (w *world) wait(ctx context.Context, patience time.Duration, what string, holds func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		ok, err := holds(ctx)
		if ok && err == nil {
			return nil
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waited %s in vain: %s", patience, what), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
