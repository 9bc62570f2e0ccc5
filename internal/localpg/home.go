//go:build unix

package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// defaultElsewhere is where root keeps the data of a directory that Postgres cannot reach.
const defaultElsewhere = "/var/lib/partnersync"

// home is the directory DIR/postgres with links resolved; its lock is held while it is open.
type home struct {
	path string
	lock *os.File
}

func (h *home) file(name string) string { return filepath.Join(h.path, name) }
func (h *home) data() string            { return h.file("data") }

// close lets go of the lock. The file stays: removing it would let two owners hold
// locks of two files of that name.
func (h *home) close() error { return h.lock.Close() }

// openHome makes what is missing of the home below dir and takes its lock.
func openHome(ctx context.Context, dir, elsewhere string, as account, b binaries, logger *slog.Logger) (*home, error) {
	path, err := placeHome(ctx, dir, elsewhere, as, b, logger)
	if err != nil {
		return nil, err
	}
	return lockHome(path)
}

// lockHome takes the lock of an existing home, or says who holds it.
func lockHome(path string) (*home, error) {
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, notOurs(path, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		owner := "another process"
		if pid := firstNumber(lock.Name()); pid > 0 {
			owner = "process " + strconv.Itoa(pid)
		}
		return nil, fmt.Errorf("%w by %s: stop it, or use another directory (database.dir)", ErrInUse, owner)
	}
	if err := os.WriteFile(lock.Name(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return &home{path: path, lock: lock}, nil
}

// placeHome returns DIR/postgres, made on first use: below dir if the account can reach
// that, else elsewhere with a link to it.
func placeHome(ctx context.Context, dir, elsewhere string, as account, b binaries, logger *slog.Logger) (string, error) {
	mode := fs.FileMode(0o700)
	if as.cred != nil {
		mode = 0o711 // the account passes through to its data, and sees nothing else
	}
	link := filepath.Join(dir, "postgres")
	if _, err := os.Lstat(link); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return "", err
		}
		if err := mkdir(dir, mode); err != nil {
			return "", err
		}
		if reachable(ctx, dir, as, b) {
			if err := mkdir(link, mode); err != nil {
				return "", notOurs(dir, err)
			}
		} else if err := linkElsewhere(ctx, link, elsewhere, as, b, logger); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", notOurs(dir, err)
	}
	path, err := filepath.EvalSymlinks(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("the link %s leads nowhere: put its target back, or remove the link to begin anew", link)
	case err != nil:
		return "", err
	case !reachable(ctx, path, as, b):
		return "", fmt.Errorf("user %q, as whom Postgres runs here, cannot reach %s", as.name, path)
	}
	return path, nil
}

// mkdir makes a directory of exactly this mode, or leaves the one that is there.
func mkdir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask took away
}

// linkElsewhere makes a directory that the account can reach and a link to it.
func linkElsewhere(ctx context.Context, link, elsewhere string, as account, b binaries, logger *slog.Logger) error {
	dir := filepath.Dir(link)
	parent := elsewhere
	if parent == "" {
		parent = defaultElsewhere
		// What is temporary anyway need not leave traces that last.
		if rel, err := filepath.Rel(os.TempDir(), dir); err == nil && filepath.IsLocal(rel) {
			parent = os.TempDir()
		}
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	target, err := os.MkdirTemp(parent, "partnersync-"+filepath.Base(filepath.Dir(dir))+"-*")
	if err != nil {
		return err
	}
	if err = os.Chmod(target, 0o711); err == nil && !reachable(ctx, target, as, b) {
		err = fmt.Errorf("user %q, as whom Postgres runs when root starts it, can reach neither %s nor %s: "+
			"use another directory (database.dir), or set DATABASE_URL", as.name, dir, parent)
	}
	if err == nil {
		err = os.Symlink(target, link)
	}
	if err != nil {
		os.Remove(target)
		if errors.Is(err, fs.ErrExist) { // another process was faster
			return nil
		}
		return err
	}
	logger.Info("private Postgres keeps its data elsewhere: the user that it runs as cannot reach the directory",
		"dir", dir, "data", target, "user", as.name)
	return nil
}

// reachable tries to work in dir as the account: no reading of mode bits knows as well
// as the kernel.
func reachable(ctx context.Context, dir string, as account, b binaries) bool {
	return as.cred == nil || runAs(ctx, as, dir, b.path("postgres"), "--version").Run() == nil
}

// password returns the password of the role, made on first use.
func (h *home) password() (string, error) {
	text, err := os.ReadFile(h.file("password"))
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", notOurs(h.path, err)
	}
	if _, err := os.Stat(h.data()); err == nil {
		return "", fmt.Errorf("%s is missing: put it back, or remove %s to begin anew", h.file("password"), h.path)
	}
	password := rand.Text()
	return password, replaceFile(h.file("password"), password+"\n")
}

// replaceFile writes a small file so that a crash leaves the old or the new one.
func replaceFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// major is the version that made the data, 0 when there is none yet.
func major(data string) int { return firstNumber(filepath.Join(data, "PG_VERSION")) }

// firstNumber reads the number that a file begins with, 0 when there is none.
func firstNumber(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	n, _ := strconv.Atoi(strings.TrimSpace(line))
	return n
}

// notOurs explains the usual reason for a refusal: the directory was made by root, or
// by somebody else.
func notOurs(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s belongs to another user: start as that user, or use another directory (database.dir): %w", path, err)
	}
	return err
}
