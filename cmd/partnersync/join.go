package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"partnersync/internal/config"
)

const (
	connectTimeout = 5 * time.Second // of one connection, at most
	pingTimeout    = 3 * time.Second // while it lasts a process that starts answers nobody
	joinTimeout    = 10 * time.Second
	// The pauses between two tries.
	firstTry, lastTry = 100 * time.Millisecond, time.Second
)

// awayError: Postgres does not answer, or not yet. It may by and by.
type awayError struct{ error }

func isAway(err error) bool { return errors.As(err, new(awayError)) }

// join brings the schema up to date and puts the config in force. The error is an
// awayError where that has to wait for Postgres; any other is one that waiting does not
// mend.
func (p *process) join(ctx context.Context) error {
	if err := p.ping(ctx); err != nil {
		return refused(err)
	}
	err := p.migrate(ctx)
	if err == nil {
		err = p.enforce(ctx)
	}
	if err == nil {
		p.tellOrphans(ctx)
	}
	return p.sortOut(ctx, err)
}

// sortOut makes an error that is due to Postgres, and passes, an awayError.
func (p *process) sortOut(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || !transient(err) && p.ping(ctx) == nil {
		return err
	}
	return awayError{err}
}

func (p *process) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return p.ledger.Ping(ctx)
}

// await does what newProcess could not while Postgres was away, as soon as it is back.
func (p *process) await(ctx context.Context) error {
	told := p.away
	for pause := firstTry; !p.hasJoined(); pause = min(2*pause, lastTry) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		err := p.join(ctx)
		switch {
		case err == nil:
			p.log.Info("Postgres answers")
		case ctx.Err() != nil:
			return nil
		case !isAway(err):
			return err
		case told != err.Error():
			told = err.Error()
			p.log.Warn("Postgres does not answer yet", "err", err)
		}
	}
	return nil
}

// catchUp applies a config reload that was delayed because Postgres was away. Nobody will request it
// again, and this process leaves routes alone that others have opened under the newer config.
func (p *process) catchUp(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.late:
		}
		for pause := firstTry; !p.caughtUp(ctx); pause = min(2*pause, lastTry) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

// caughtUp tries once, and reports whether nothing is pending any more.
func (p *process) caughtUp(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		return true
	}
	err := p.install(ctx, p.pending)
	if isAway(err) || ctx.Err() != nil {
		return false
	}
	p.pending = nil
	if err != nil {
		p.log.Error("the config was not reloaded; the former one stays in force", "err", err)
	} else if p.last {
		p.reloaded.Set(1)
	}
	p.tellOrphans(ctx)
	return true
}

// number has the database number a config. The error is an awayError where that has to wait.
func (p *process) number(ctx context.Context, cfg *config.Config) (int64, error) {
	numbering, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	generation, err := p.ledger.Generation(numbering, cfg.Hash, hostName())
	return generation, p.sortOut(ctx, err)
}

// enforce puts the config in force under its number in the database.
func (p *process) enforce(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	generation, err := p.number(ctx, p.config)
	if err != nil {
		return err
	}
	if p.workers != nil {
		plan := *p.plan
		plan.Generation = generation
		p.workers.Use(&plan)
	}
	if p.receiver != nil {
		p.receiver.Use(routing(p.config, generation))
	}
	close(p.joined)
	return nil
}

func (p *process) hasJoined() bool {
	select {
	case <-p.joined:
		return true
	default:
		return false
	}
}

// waiting says in the log what a process does without its Postgres.
func (p *process) waiting(err error) {
	does := "the workers wait for it"
	if p.parts.receive {
		does = "senders are told to come again until it does"
		if p.spool != nil {
			does = "events go to the spool until it does"
		}
	}
	p.away = err.Error()
	p.log.Warn("Postgres does not answer", "meanwhile", does, "err", err)
}

// refused puts an error of the connection into one line: what Postgres itself says,
// which is a mistake in the config where no waiting helps, or why it cannot be reached.
func refused(err error) error {
	at := ""
	connect, ok := errors.AsType[*pgconn.ConnectError](err)
	if ok {
		at = " at " + net.JoinHostPort(connect.Config.Host, strconv.Itoa(int(connect.Config.Port)))
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		if !hopeless(pg) {
			return awayError{fmt.Errorf("not yet: Postgres%s does not let us in: %s (SQLSTATE %s)", at, pg.Message, pg.Code)}
		}
		return usageError{fmt.Errorf("database.url: Postgres%s does not let us in: %s (SQLSTATE %s)", at, pg.Message, pg.Code)}
	}
	return awayError{fmt.Errorf("cannot reach Postgres%s: %s", at, network(err))}
}

// hopeless reports whether Postgres will say the same next time: a wrong user or
// password, no such database, no right to connect.
func hopeless(err *pgconn.PgError) bool {
	return err.Code[:min(2, len(err.Code))] == "28" || err.Code == "3D000" || err.Code == "42501"
}

// transient reports whether Postgres has failed for a reason that passes: it is slow,
// starts, stops, is full, or lets nobody write.
func transient(err error) bool {
	// A connection that was cut says nothing of the one that the next try has.
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*net.OpError)) || pgconn.SafeToRetry(err) {
		return true
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "08", "53", "57":
		return true
	}
	return pg.Code == "25006"
}

// network is the reason of an error of the network, without the address. Several
// addresses and ways to connect mostly fail alike, and are told of once.
func network(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return dns.Err
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + pingTimeout.String()
	case errors.As(err, &op):
		return op.Err.Error()
	}
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = connect.Unwrap()
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok && len(many.Unwrap()) > 0 {
		err = many.Unwrap()[0]
	}
	return err.Error()
}
