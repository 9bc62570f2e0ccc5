package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rig is a spool with what it tells.
type rig struct {
	*Spool
	t        testing.TB
	registry *prometheus.Registry
	log      *strings.Builder
}

func opened(t testing.TB, o Options) *rig {
	t.Helper()
	r, err := tryOpen(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryOpen(t testing.TB, o Options) (*rig, error) {
	t.Helper()
	r := &rig{t: t, registry: prometheus.NewRegistry(), log: &strings.Builder{}}
	o.Registerer, o.Logger = r.registry, slog.New(slog.NewTextHandler(r.log, nil))
	s, err := Open(o)
	if err != nil {
		return nil, err
	}
	r.Spool = s
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r, nil
}

func record(text string) Record { return Record{At: noon, Data: []byte(text)} }

func (r *rig) append(texts ...string) {
	r.t.Helper()
	if err := r.tryAppend(texts...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryAppend(texts ...string) error {
	var records []Record
	for _, text := range texts {
		records = append(records, record(text))
	}
	return r.Append(records)
}

// drain takes out all that is left.
func (r *rig) drain() []string {
	r.t.Helper()
	var all []string
	for {
		records, err := r.Peek(7, 1<<20)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(records) == 0 {
			return all
		}
		for _, record := range records {
			all = append(all, string(record.Data))
		}
		if err := r.Drop(len(records)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// metric reads one of the spool's.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "partnersync_spool_"+name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	r.t.Fatalf("there is no metric %q", name)
	return 0
}

// files lists what is in the directory, without the lock.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "lock" {
			names = append(names, strings.TrimLeft(e.Name(), "0"))
		}
	}
	return names
}

func numbers(from, to int) []string {
	var list []string
	for n := from; n < to; n++ {
		list = append(list, strconv.Itoa(n))
	}
	return list
}

func check(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

func TestFirstInFirstOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := opened(t, Options{Dir: dir, SegmentBytes: 300})
	for n := range 20 {
		r.append(numbers(5*n, 5*n+5)...)
	}
	check(t, "length", 100, r.Len())
	if n := len(files(t, dir)); n < 5 {
		t.Errorf("%d segments, want several", n)
	}
	// Dropping a part gives the rest again.
	records, err := r.Peek(5, 1<<20)
	if err != nil || len(records) != 5 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	if err := r.Drop(3); err != nil {
		t.Fatal(err)
	}
	// New ones come while old ones are taken out.
	r.append("100", "101")
	check(t, "drained", numbers(3, 102), r.drain())
	check(t, "files of an empty spool", []string(nil), files(t, dir))
	check(t, "length and bytes", []float64{0, 0, 102, 102, 0}, []float64{
		r.metric("events"), r.metric("bytes"), r.metric("written_total"), r.metric("drained_total"), r.metric("oldest_seconds"),
	})
	r.append("102")
	check(t, "drained", []string{"102"}, r.drain())
}

func TestPeekIsBounded(t *testing.T) {
	t.Parallel()
	r := opened(t, Options{Dir: t.TempDir()})
	r.append("aaaa", "bbbb", strings.Repeat("c", 100), "dddd", "")
	for _, want := range []int{2, 1, 2} {
		records, err := r.Peek(10, 10)
		if err != nil || len(records) != want {
			t.Fatalf("got %d records, %v, want %d", len(records), err, want)
		}
		if err := r.Drop(len(records)); err != nil {
			t.Fatal(err)
		}
	}
	check(t, "length", 0, r.Len())
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := opened(t, Options{Dir: dir, SegmentBytes: 100})
	r.append(numbers(0, 3)...)
	r.append(numbers(3, 6)...)
	r.append(numbers(6, 9)...)
	bytes := r.metric("bytes")
	if _, err := tryOpen(t, Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("a second owner gets %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.tryAppend("late"); err == nil {
		t.Error("a closed spool takes a record")
	}
	r = opened(t, Options{Dir: dir, SegmentBytes: 100})
	check(t, "length", 9, r.Len())
	check(t, "bytes", bytes, r.metric("bytes"))
	r.append("9")
	check(t, "drained", numbers(0, 10), r.drain())
	check(t, "damaged", 0.0, r.metric("corrupt_segments_total"))
	check(t, "log", 1, strings.Count(r.log.String(), "\n"))
}

func TestAge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := opened(t, Options{Dir: dir})
	old, young := time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	if err := r.Append([]Record{{At: old, Data: []byte("old")}, {At: young, Data: []byte("young")}}); err != nil {
		t.Fatal(err)
	}
	within := func(what string, low, high float64) {
		t.Helper()
		if got := r.metric("oldest_seconds"); got < low || got > high {
			t.Errorf("%s: the oldest is %g s old", what, got)
		}
	}
	within("at first", 3600, 3700)
	if records, err := r.Peek(9, 1<<20); err != nil || len(records) != 2 || !records[0].At.Equal(old.Truncate(0)) {
		t.Fatalf("%v, %v", records, err)
	}
	if err := r.Drop(1); err != nil {
		t.Fatal(err)
	}
	within("after a drop", 60, 160)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = opened(t, Options{Dir: dir})
	within("read again", 3600, 3700)
	r.drain()
	within("empty", 0, 0)
	// A clock that was set back an hour makes records of the future.
	if err := r.Append([]Record{{At: time.Now().Add(time.Hour), Data: []byte("future")}, {At: old, Data: []byte("old")}}); err != nil {
		t.Fatal(err)
	}
	within("of the future", 0, 0)
	check(t, "drained", []string{"future", "old"}, r.drain())
}

func TestFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := opened(t, Options{Dir: dir, SegmentBytes: 200, MaxBytes: 1000})
	stored := 0
	for ; ; stored++ {
		room := r.Room()
		err := r.tryAppend(strconv.Itoa(stored))
		if size := record(strconv.Itoa(stored)).Size(); (err == nil) != (size <= room) {
			t.Fatalf("room for %d, a record of %d: %v", room, size, err)
		}
		if errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := r.metric("bytes"); got > 1000 || got < 900 {
		t.Errorf("%g bytes when it is full", got)
	}
	size := int64(0)
	for _, path := range segments(t, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	check(t, "bytes on disk", float64(size), r.metric("bytes"))
	check(t, "drained", numbers(0, stored), r.drain())
	r.append("room again")
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// disk is a file whose disk fails when a test says so.
type disk struct {
	*os.File
	room     *int // bytes until it is full; nil: no end
	sync     error
	truncate error
}

func (d *disk) Write(b []byte) (int, error) {
	if d.room == nil || len(b) <= *d.room {
		if d.room != nil {
			*d.room -= len(b)
		}
		return d.File.Write(b)
	}
	n, _ := d.File.Write(b[:*d.room])
	*d.room = 0
	return n, syscall.ENOSPC
}

func (d *disk) Sync() error { return errors.Join(d.sync, d.File.Sync()) }

func (d *disk) Truncate(size int64) error {
	if d.truncate != nil {
		return d.truncate
	}
	return d.File.Truncate(size)
}

func TestDiskFails(t *testing.T) {
	t.Parallel()
	full := func(bytes int) func(*disk) {
		return func(d *disk) {
			room := bytes
			d.room = &room
		}
	}
	tests := []struct {
		name  string
		fail  func(*disk)
		other bool // what was not acknowledged may be there at the next start
	}{
		{"it is full at once", full(0), false},
		{"it is full in the middle of a record", full(int(record("1").Size()) + 10), false},
		{"it is full after a record", full(int(record("1").Size())), false},
		{"fsync fails", func(d *disk) { d.sync = syscall.EIO }, false},
		{"truncate fails too", func(d *disk) { full(30)(d); d.truncate = syscall.EIO }, true},
	}
	for _, tt := range tests {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, begun %t", tt.name, begun), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				r := opened(t, Options{Dir: dir})
				failing := false
				var last *disk
				r.create = func(path string) (file, error) {
					f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
					if err != nil {
						return nil, err
					}
					last = &disk{File: f}
					if failing {
						tt.fail(last)
						if last.room != nil && *last.room > 0 {
							*last.room += prefaceSize
						}
					}
					return last, nil
				}
				var want []string
				if begun {
					r.append("0")
					want = []string{"0"}
					tt.fail(last)
				}
				failing = true
				bytes := r.metric("bytes")
				for range 3 {
					if err := r.tryAppend("1", "2"); err == nil || errors.Is(err, ErrFull) {
						t.Fatalf("got %v", err)
					}
				}
				if r.Len() != len(want) || r.metric("bytes") != bytes {
					t.Errorf("%d records and %g bytes after what failed, want %d and %g", r.Len(), r.metric("bytes"), len(want), bytes)
				}
				failing = false
				r.append("3", "4")
				want = append(want, "3", "4")
				if tt.other {
					check(t, "drained", want, r.drain())
					return
				}
				r.Close()
				r = opened(t, Options{Dir: dir})
				check(t, "drained", want, r.drain())
				check(t, "damaged", 0.0, r.metric("corrupt_segments_total"))
			})
		}
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := tryOpen(t, Options{Dir: path})
	if want := fmt.Sprintf("spool %q: not a directory", path); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// One goroutine appends while another takes out.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	const batches, size = 300, 7
	r := opened(t, Options{Dir: t.TempDir(), SegmentBytes: 500})
	var group sync.WaitGroup
	group.Go(func() {
		for n := range batches {
			if err := r.tryAppend(numbers(n*size, (n+1)*size)...); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var got []string
	for len(got) < batches*size && !t.Failed() {
		r.metric("oldest_seconds")
		got = append(got, r.drain()...)
	}
	group.Wait()
	check(t, "drained", numbers(0, batches*size), got)
}

// The age does not depend on the wall clock running forward.
func TestAgeInABubble(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Append([]Record{{At: time.Now(), Data: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		check(t, "age", 60.0, s.age())
	})
}
