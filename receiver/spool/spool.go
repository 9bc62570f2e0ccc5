package spool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrFull says that a record would make the spool larger than it may be.
var ErrFull = errors.New("the spool is full")

var errClosed = errors.New("the spool is closed")

// Options say where a spool is. Dir is required; a zero number means the default.
type Options struct {
	Dir          string
	MaxBytes     int64                 // on disk, without what was set aside; default 1 GiB
	SegmentBytes int64                 // a segment that is larger is not appended to; default 4 MiB
	Registerer   prometheus.Registerer // nil: the metrics are not published
	Logger       *slog.Logger          // nil: silent
}

// Record is what is kept.
type Record struct {
	At   time.Time // when it was received: the age of the spool is told by it, nothing else
	Data []byte
}

// Size is the room that a record takes.
func (r Record) Size() int64 { return headerSize + int64(len(r.Data)) }

// Spool is open in one process at a time. Append may be called while Peek and Drop
// are; each of them by one goroutine at a time.
type Spool struct {
	options Options
	lock    *os.File
	metrics *metrics
	create  func(path string) (file, error)

	mu       sync.Mutex // files change under it; it is held while the disk works
	segments []*segment // oldest first
	active   file       // the last segment, open for appending; nil: the next Append begins one
	last     uint64     // number of the newest segment that there ever was
	header   []byte     // reused by Append
	out      *bufio.Writer
	loaded   []byte  // of the oldest segment, what has been read and not been dropped
	peeked   []int64 // sizes of the records that Peek has given, damage before them included
	ages     []int64 // and when they were received
	closed   bool

	// These can be read while the disk works.
	events atomic.Int64
	bytes  atomic.Int64
	oldest atomic.Int64 // when the oldest record was received, Unix time in nanoseconds
}

// segment is a file of the spool.
type segment struct {
	number uint64
	path   string
	key    key
	size   int64 // as far as it is known to be on disk
	next   int64 // where the oldest record that was not dropped begins, or damage before it
	left   int64 // records that were not dropped
	keep   bool  // it is set aside, not removed, when nothing is left
}

// file is what Append needs of an *os.File.
type file interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Open takes a directory over, or makes it. The caller closes the spool.
func Open(o Options) (*Spool, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 4 << 20
	}
	s := &Spool{options: o, create: create, out: bufio.NewWriterSize(nil, 64<<10)}
	if err := s.open(); err != nil {
		if s.lock != nil {
			_ = unlock(s.lock)
		}
		return nil, fmt.Errorf("spool %q: %w", o.Dir, plain(err))
	}
	return s, nil
}

// Append puts records behind the others, all of them or none. When it returns nil
// they are on disk. The error is ErrFull or what the disk says.
func (s *Spool) Append(records []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case len(records) == 0:
		return nil
	}
	var size int64
	for _, r := range records {
		size += r.Size()
	}
	if size > s.Room() {
		return ErrFull
	}
	if s.active == nil || s.newest().size >= s.options.SegmentBytes {
		if err := s.begin(); err != nil {
			return fmt.Errorf("begin a segment: %w", plain(err))
		}
	}
	if err := s.write(records); err != nil {
		s.abandon()
		return fmt.Errorf("write to a segment: %w", plain(err))
	}
	newest := s.newest()
	newest.size += size
	newest.left += int64(len(records))
	s.bytes.Add(size)
	if s.events.Load() == 0 {
		s.oldest.Store(records[0].At.UnixNano())
	}
	s.events.Add(int64(len(records)))
	s.metrics.written.Add(float64(len(records)))
	return nil
}

// Peek returns the oldest records, at most so many and of so many bytes, but at
// least one: none and no error says that there are none.
func (s *Spool) Peek(most int, bytes int64) ([]Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peeked, s.ages = s.peeked[:0], s.ages[:0]
	for len(s.segments) > 0 && !s.closed {
		oldest := s.segments[0]
		if err := s.load(oldest); err != nil {
			return nil, fmt.Errorf("read a segment: %w", plain(err))
		}
		var records []Record
		for data := s.loaded; len(data) > 0 && len(records) < most; {
			r, skipped, ok := oldest.key.find(data)
			if skipped > 0 {
				s.damaged(oldest, skipped)
			}
			if bytes -= int64(len(r.Data)); !ok || bytes < 0 && len(records) > 0 {
				break
			}
			records = append(records, r)
			s.peeked = append(s.peeked, int64(skipped)+r.Size())
			s.ages = append(s.ages, r.At.UnixNano())
			data = data[int64(skipped)+r.Size():]
		}
		if len(records) > 0 {
			s.oldest.Store(s.ages[0])
			return records, nil
		}
		if err := s.finish(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// Drop takes the first n of the records that the last Peek has given out of the
// spool.
func (s *Spool) Drop(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > len(s.peeked) {
		panic("spool: records are dropped that nobody has seen")
	}
	if n == 0 || s.closed {
		return nil
	}
	oldest := s.segments[0]
	for _, size := range s.peeked[:n] {
		oldest.next += size
		s.loaded = s.loaded[size:]
	}
	s.peeked, s.ages = s.peeked[n:], s.ages[n:]
	oldest.left -= int64(n)
	s.events.Add(-int64(n))
	s.metrics.drained.Add(float64(n))
	if len(s.ages) > 0 {
		s.oldest.Store(s.ages[0])
	}
	if oldest.next < oldest.size && oldest.left > 0 {
		return nil
	}
	return s.finish()
}

// Keep has the segment of the oldest records set aside when they are dropped, for
// somebody to look at.
func (s *Spool) Keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.segments) > 0 {
		s.segments[0].keep = true
	}
}

// Len is the number of records. It does not wait for the disk.
func (s *Spool) Len() int { return int(s.events.Load()) }

// Room is how many bytes of records the spool takes before it is full. It does not
// wait for the disk.
func (s *Spool) Room() int64 {
	return max(0, s.options.MaxBytes-s.bytes.Load()-prefaceSize)
}

// Close lets go of the directory. What is in it stays.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.active != nil {
		_ = s.active.Close() // all of it is on disk
	}
	return unlock(s.lock)
}

const (
	suffix      = ".spool"
	asideSuffix = ".corrupt"
)

// begin makes a new segment the active one.
func (s *Spool) begin() error {
	if s.active != nil {
		_ = s.active.Close() // all of it is on disk
		s.active = nil
	}
	// The number is used up even if this fails: another try must not meet the rest.
	s.last++
	g := &segment{number: s.last, path: s.path(s.last, suffix), size: prefaceSize, next: prefaceSize}
	f, err := s.create(g.path)
	if err != nil {
		return err
	}
	var preface []byte
	preface, g.key = newPreface()
	_, err = f.Write(preface)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(s.options.Dir)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(g.path)
		return err
	}
	s.active = f
	s.segments = append(s.segments, g)
	s.bytes.Add(g.size)
	return nil
}

func (s *Spool) write(records []Record) error {
	k := s.newest().key
	s.out.Reset(s.active)
	defer s.out.Reset(nil)
	for _, r := range records {
		s.header = k.appendHeader(s.header[:0], r)
		_, _ = s.out.Write(s.header) // an error stays until Flush
		_, _ = s.out.Write(r.Data)
	}
	if err := s.out.Flush(); err != nil {
		return err
	}
	return s.active.Sync()
}

// abandon ends the active segment after a write that failed. What an fsync that
// failed has left in the file nobody knows, so nothing is appended to it any more;
// what was on disk before is read up to there.
func (s *Spool) abandon() {
	g := s.newest()
	_ = s.active.Truncate(g.size) // on a full disk this works; if not, see restore
	_ = s.active.Close()
	s.active = nil
	if g.left > 0 {
		return
	}
	s.segments = s.segments[:len(s.segments)-1]
	s.bytes.Add(-g.size)
	_ = os.Remove(g.path)
}

// load reads what of the oldest segment was not read yet, unless something is at
// hand.
func (s *Spool) load(g *segment) error {
	if len(s.loaded) > 0 || g.next >= g.size {
		return nil
	}
	f, err := os.Open(g.path)
	if errors.Is(err, os.ErrNotExist) {
		s.damaged(g, int(g.size-g.next))
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, g.size-g.next)
	n, err := f.ReadAt(data, g.next)
	if err != nil && err != io.EOF {
		return err
	}
	s.loaded = data[:n]
	if n < len(data) {
		s.damaged(g, len(data)-n)
	}
	return nil
}

// finish ends the oldest segment, in which nothing is left.
func (s *Spool) finish() error {
	g := s.segments[0]
	s.loaded = nil
	if len(s.segments) == 1 && s.active != nil {
		_ = s.active.Close() // all of it is on disk
		s.active = nil
	}
	if err := s.retire(g); err != nil {
		return err
	}
	s.segments = s.segments[1:]
	s.bytes.Add(-g.size)
	s.events.Add(-g.left) // those that damage has hit since they were counted
	return nil
}

// retire removes a file, or sets it aside. If that is undone by a loss of power its
// records come again.
func (s *Spool) retire(g *segment) error {
	var err error
	if g.keep {
		err = os.Rename(g.path, s.path(g.number, asideSuffix))
	} else {
		err = os.Remove(g.path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end a segment: %w", plain(err))
	}
	return nil
}

// damaged reports a segment, once.
func (s *Spool) damaged(g *segment, bytes int) {
	if g.keep {
		return
	}
	g.keep = true
	s.metrics.corrupt.Inc()
	s.options.Logger.Error("a segment of the spool is damaged; what can be read of it is stored, then it is set aside",
		"segment", g.path, "aside", s.path(g.number, asideSuffix), "bytes", bytes)
}

func (s *Spool) newest() *segment { return s.segments[len(s.segments)-1] }

func (s *Spool) path(number uint64, suffix string) string {
	return filepath.Join(s.options.Dir, fmt.Sprintf("%020d%s", number, suffix))
}

func create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil file
	}
	return f, nil
}

// plain leaves the operation and the path out of an error of the file system.
func plain(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}
