//go:build !unix

package localpg

import (
	"context"
	"errors"
)

// Server is a private Postgres; there is none on this platform.
type Server struct{}

// Start says that this platform has no private Postgres.
func Start(context.Context, Options) (*Server, error) {
	return nil, errors.New("a private Postgres needs Linux or macOS: set DATABASE_URL to a Postgres that runs already")
}

// Remove has nothing to remove.
func Remove(context.Context, string) error { return nil }

// URL is empty.
func (s *Server) URL() string { return "" }

// TCPURL is empty.
func (s *Server) TCPURL() string { return "" }

// PID is zero.
func (s *Server) PID() int { return 0 }

// Done is never closed.
func (s *Server) Done() <-chan struct{} { return nil }

// Stop does nothing.
func (s *Server) Stop() error { return nil }

// Running is "".
func Running(context.Context, string) string { return "" }
