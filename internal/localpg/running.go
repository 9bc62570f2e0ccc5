//go:build unix

package localpg

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// Running returns the URL of the private Postgres of dir while another process
// runs it, so that commands can look into what `run` does; "" when none answers.
func Running(ctx context.Context, dir string) string {
	path, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return ""
	}
	h := &home{path: path}
	password, err := os.ReadFile(h.file("password"))
	if err != nil {
		return ""
	}
	s := &Server{home: h, port: firstNumber(h.file("port")), password: strings.TrimSpace(string(password))}
	if s.port == 0 || s.ping(ctx) != nil {
		return ""
	}
	return s.TCPURL()
}
