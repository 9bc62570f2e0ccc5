package spool

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func (s *Spool) open() error {
	if err := os.MkdirAll(s.options.Dir, 0o700); err != nil {
		return err
	}
	// A directory that is new must be found again too.
	if err := syncDir(filepath.Dir(filepath.Clean(s.options.Dir))); err != nil {
		return err
	}
	var err error
	if s.lock, err = lock(filepath.Join(s.options.Dir, "lock")); err != nil {
		return err
	}
	s.metrics = newMetrics(s.options.Registerer, s)
	entries, err := os.ReadDir(s.options.Dir)
	if err != nil {
		return err
	}
	var found []uint64
	for _, e := range entries {
		name, isSegment := strings.CutSuffix(e.Name(), suffix)
		number, err := strconv.ParseUint(strings.TrimSuffix(name, asideSuffix), 10, 64)
		if err != nil {
			continue
		}
		// The name of one that was set aside is not given again.
		s.last = max(s.last, number)
		if isSegment && e.Name() == filepath.Base(s.path(number, suffix)) {
			found = append(found, number)
		}
	}
	slices.Sort(found)
	for i, number := range found {
		if err := s.restore(number, i == len(found)-1); err != nil {
			return err
		}
	}
	if n := s.Len(); n > 0 {
		s.options.Logger.Info("the spool holds events", "events", n, "bytes", s.bytes.Load())
	}
	return nil
}

// restore reads a segment that another process has left.
func (s *Spool) restore(number uint64, newest bool) error {
	g := &segment{number: number, path: s.path(number, suffix), next: prefaceSize}
	data, err := os.ReadFile(g.path)
	if err != nil {
		return err
	}
	g.size = int64(len(data))
	key, ok := readPreface(data)
	if !ok && newest && len(data) <= prefaceSize {
		return os.Remove(g.path) // its beginning was cut off, so nothing was ever in it
	}
	g.key = key
	if !ok {
		s.damaged(g, len(data))
		return s.retire(g)
	}
	for at := int64(min(len(data), prefaceSize)); at < g.size; {
		r, skipped, ok := key.find(data[at:])
		if !ok && newest && key.torn(data[at:]) {
			s.options.Logger.Warn("the last write to the spool was cut off; it was not acknowledged", "segment", g.path, "bytes", skipped)
			if err := truncate(g.path, at); err != nil {
				return err
			}
			g.size = at
			break
		}
		if skipped > 0 {
			s.damaged(g, skipped)
		}
		if !ok {
			break
		}
		if len(s.segments) == 0 && g.left == 0 {
			s.oldest.Store(r.At.UnixNano())
		}
		g.left++
		at += int64(skipped) + r.Size()
	}
	if g.left == 0 {
		return s.retire(g)
	}
	s.segments = append(s.segments, g)
	s.events.Add(g.left)
	s.bytes.Add(g.size)
	return nil
}

func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
