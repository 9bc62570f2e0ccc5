//go:build unix

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"partnersync/internal/localpg"
)

// slot is the directory of a private Postgres that is kept between runs: making one
// takes a second, starting it again a tenth of that.
type slot struct {
	dir  string
	lock *os.File // held while the slot is taken, also while its server is down
}

// takeSlot takes the first slot that nobody has.
func takeSlot() (*slot, error) {
	root := filepath.Join(os.TempDir(), "partnersync-pgtest-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(root, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	// The name can be guessed, so somebody else may have made it.
	info, err := os.Lstat(root)
	if err != nil {
		return nil, err
	}
	if st := info.Sys().(*syscall.Stat_t); !info.IsDir() || int(st.Uid) != os.Getuid() {
		return nil, fmt.Errorf("%s is not a directory of ours: remove it, or set TMPDIR", root)
	}
	for n := 0; ; n++ {
		dir := filepath.Join(root, "slot-"+strconv.Itoa(n))
		lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return &slot{dir, lock}, nil
		}
		lock.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s.lock: %w", dir, err)
		}
	}
}

func (s *slot) release() { s.lock.Close() }

// launch starts the server of the slot.
func (s *slot) launch(ctx context.Context) (*localpg.Server, error) {
	return localpg.Start(ctx, localpg.Options{Dir: s.dir, Superuser: true, Settings: map[string]string{
		"fsync":            "off",
		"full_page_writes": "off",
		"max_connections":  "300",
	}})
}

// start brings up the slot's server, without the databases of killed tests and with the
// template. What does not start is made anew: without fsync, a power cut breaks it.
func (s *slot) start(ctx context.Context) (*cluster, error) {
	server, err := s.launch(ctx)
	if err != nil && !errors.Is(err, localpg.ErrInUse) && !errors.Is(err, localpg.ErrNotFound) && ctx.Err() == nil {
		if removeErr := localpg.Remove(ctx, s.dir); removeErr != nil {
			return nil, errors.Join(err, removeErr)
		}
		server, err = s.launch(ctx)
	}
	if err != nil {
		return nil, err
	}
	c := &cluster{admin: withDatabase(server.URL(), "postgres"), slot: s, server: server}
	if err = c.dropWhere(ctx, testPrefix, func(string) bool { return true }); err == nil {
		err = c.makeTemplate(ctx)
	}
	if err == nil {
		err = c.dropOldTemplates(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return c, nil
}
