package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a process waits for, and what ends it.
func TestTransient(t *testing.T) {
	t.Parallel()
	cut := &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
	for _, tt := range []struct {
		name string
		give error
		want bool
	}{
		{"a connection is cut while something is sent", fmt.Errorf("number the config: %w", fmt.Errorf("write failed: %w", cut)), true},
		{"a connection is cut while an answer is awaited", fmt.Errorf("number the config: %w", io.ErrUnexpectedEOF), true},
		{"no answer in time", fmt.Errorf("ping: %w", context.DeadlineExceeded), true},
		{"Postgres starts", &pgconn.PgError{Code: "57P03"}, true},
		{"Postgres is full", &pgconn.PgError{Code: "53100"}, true},
		{"Postgres only reads", &pgconn.PgError{Code: "25006"}, true},
		{"a table is missing", &pgconn.PgError{Code: "42P01"}, false},
		{"a password is wrong", &pgconn.PgError{Code: "28P01"}, false},
		{"a mistake of ours", errors.New("the schema is newer than this program"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := transient(tt.give); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
