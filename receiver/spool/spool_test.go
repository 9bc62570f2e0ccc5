package spool

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// envChild makes the test program the process that is killed.
const envChild = "PARTNERSYNC_TEST_SPOOL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		appendForever(dir)
	}
	goleak.VerifyTestMain(m)
}

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

// leftBehind makes a directory with these segments.
func leftBehind(t testing.TB, contents ...[]byte) string {
	t.Helper()
	dir := t.TempDir()
	for i, data := range contents {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d%s", i+5, suffix)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// content is a segment with these records, and where each of them ends.
func content(texts ...string) (data []byte, ends []int) {
	data, k := newPreface()
	for _, text := range texts {
		data = append(k.appendHeader(data, record(text)), text...)
		ends = append(ends, len(data))
	}
	return data, ends
}

// A torn tail of any length loses nothing that was whole, and what is written after
// it is read too.
func TestTornAtEveryByte(t *testing.T) {
	t.Parallel()
	texts := []string{"first", "second", "", strings.Repeat("x", 50)}
	data, ends := content(texts...)
	for length := range len(data) {
		want := 0
		for want < len(ends) && ends[want] <= length {
			want++
		}
		for _, zeros := range []int{0, 100} { // a loss of power may leave a file that was not filled
			dir := leftBehind(t, append(slices.Clone(data[:length]), make([]byte, zeros)...))
			r := opened(t, Options{Dir: dir})
			if r.Len() != want {
				t.Errorf("cut at %d: %d records, want %d", length, r.Len(), want)
			}
			r.append("after")
			// It is as good as new for the next process.
			r.Close()
			r = opened(t, Options{Dir: dir})
			check(t, fmt.Sprintf("cut at %d", length), append(slices.Clone(texts[:want]), "after"), r.drain())
			if zeros == 0 && r.metric("corrupt_segments_total") != 0 {
				t.Errorf("cut at %d: taken for damage: %s", length, r.log)
			}
			if left := segments(t, dir); len(left) > 0 {
				t.Errorf("cut at %d: left are %s", length, left)
			}
			r.Close()
		}
	}
}

// A flipped bit costs the record that it hits and no other, and the segment is kept.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	texts := []string{"first", "second", "third"}
	data, ends := content(texts...)
	behind, _ := content("behind")
	for _, last := range []bool{true, false} {
		for at := range len(data) {
			for bit := range 8 {
				bad := slices.Clone(data)
				bad[at] ^= 1 << bit
				contents := [][]byte{bad}
				want := slices.Clone(texts)
				if at >= prefaceSize {
					hit, _ := slices.BinarySearch(ends, at+1)
					want = slices.Delete(want, hit, hit+1)
				}
				if !last {
					contents, want = append(contents, behind), append(want, "behind")
				}
				dir := leftBehind(t, contents...)
				r := opened(t, Options{Dir: dir})
				length := r.Len()
				got := r.drain()
				if diff := cmp.Diff(want, got); diff != "" || length != len(want) || r.Len() != 0 {
					t.Fatalf("bit %d of byte %d: counted %d: %s", bit, at, length, diff)
				}
				if at < prefaceSize {
					continue // one of the salts is enough
				}
				if r.metric("corrupt_segments_total") != 1 || strings.Count(r.log.String(), "level=ERROR") != 1 {
					t.Fatalf("bit %d of byte %d is not reported: %s", bit, at, r.log)
				}
				check(t, "set aside", []string{"5.corrupt"}, files(t, dir))
				if kept, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%020d%s", 5, asideSuffix))); err != nil || !slices.Equal(kept, bad) {
					t.Fatalf("what is set aside has changed, %v", err)
				}
				r.Close()
			}
		}
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	first, ends := content("1a", "1b", "1c")
	second, _ := content("2a", "2b")
	third, _ := content("3a")
	hole := slices.Clone(first)
	clear(hole[ends[0]:ends[1]])
	keyless := slices.Clone(first)
	clear(keyless[:prefaceSize])
	tests := []struct {
		name  string
		give  [][]byte
		want  []string
		aside []string
	}{
		{"a hole", [][]byte{hole, second}, []string{"1a", "1c", "2a", "2b"}, []string{"5.corrupt"}},
		{"a hole in the last", [][]byte{second, hole}, []string{"2a", "2b", "1a", "1c"}, []string{"6.corrupt"}},
		{"cut in the middle", [][]byte{first, second[:len(second)-1], third}, []string{"1a", "1b", "1c", "2a", "3a"}, []string{"6.corrupt"}},
		{"nothing of it can be read", [][]byte{first, []byte(strings.Repeat("rubbish", 99)), third}, []string{"1a", "1b", "1c", "3a"}, []string{"6.corrupt"}},
		{"the last cannot be read", [][]byte{first, []byte(strings.Repeat("rubbish", 99))}, []string{"1a", "1b", "1c"}, []string{"6.corrupt"}},
		{"without its key", [][]byte{keyless, second}, []string{"2a", "2b"}, []string{"5.corrupt"}},
		{"empty in the middle", [][]byte{first, nil, third}, []string{"1a", "1b", "1c", "3a"}, []string{"6.corrupt"}},
		{"empty at the end", [][]byte{first, nil}, []string{"1a", "1b", "1c"}, nil},
		{"only the beginning", [][]byte{first[:prefaceSize], second}, []string{"2a", "2b"}, nil},
		{"two of them", [][]byte{hole, hole, second}, []string{"1a", "1c", "1a", "1c", "2a", "2b"}, []string{"5.corrupt", "6.corrupt"}},
		{"rubbish behind", [][]byte{append(slices.Clone(first), strings.Repeat("rubbish", 99)...), second}, []string{"1a", "1b", "1c", "2a", "2b"}, []string{"5.corrupt"}},
		{"another segment inside", [][]byte{append(slices.Clone(first), second...), third}, []string{"1a", "1b", "1c", "3a"}, []string{"5.corrupt"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := leftBehind(t, tt.give...)
			r := opened(t, Options{Dir: dir})
			check(t, "length", len(tt.want), r.Len())
			r.append("new")
			check(t, "drained", append(tt.want, "new"), r.drain())
			check(t, "files", tt.aside, files(t, dir))
			check(t, "reported", float64(len(tt.aside)), r.metric("corrupt_segments_total"))
			check(t, "length and bytes", []float64{0, 0}, []float64{r.metric("events"), r.metric("bytes")})
			// The name of what was set aside is not used again.
			r.Close()
			r = opened(t, Options{Dir: dir})
			r.append("newer")
			for _, name := range files(t, dir) {
				if other := strings.TrimSuffix(name, suffix) + asideSuffix; name != other && slices.Contains(tt.aside, other) {
					t.Errorf("%s would be overwritten by %s", other, name)
				}
			}
		})
	}
}

// Damage that comes while the spool is open.
func TestDamageLater(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		hurt  func(t *testing.T, path string)
		want  []string
		aside []string
	}{
		{"a flipped bit", func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)-int(record("1").Size())-1] ^= 4 // the end of "0"
			if err := os.WriteFile(path, data, 0); err != nil {
				t.Fatal(err)
			}
		}, []string{"1", "2", "3"}, []string{"1.corrupt"}},
		{"the last is cut off", func(t *testing.T, path string) {
			if err := os.Truncate(path, prefaceSize+record("0").Size()+3); err != nil {
				t.Fatal(err)
			}
		}, []string{"0", "2", "3"}, []string{"1.corrupt"}},
		{"it is removed", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, []string{"2", "3"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := opened(t, Options{Dir: dir, SegmentBytes: 1})
			r.append("0", "1")
			r.append("2", "3")
			tt.hurt(t, segments(t, dir)[0])
			check(t, "drained", tt.want, r.drain())
			check(t, "files", tt.aside, files(t, dir))
			check(t, "metrics", []float64{1, 0, 0}, []float64{r.metric("corrupt_segments_total"), r.metric("events"), r.metric("bytes")})
		})
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := opened(t, Options{Dir: dir, SegmentBytes: 1})
	r.append("0", "1")
	r.append("2")
	r.Keep()
	check(t, "drained", numbers(0, 3), r.drain())
	check(t, "files", []string{"1.corrupt"}, files(t, dir))
	// Under its old name it is read again.
	r.Close()
	if err := os.Rename(filepath.Join(dir, fmt.Sprintf("%020d%s", 1, asideSuffix)), filepath.Join(dir, fmt.Sprintf("%020d%s", 1, suffix))); err != nil {
		t.Fatal(err)
	}
	r = opened(t, Options{Dir: dir})
	check(t, "drained", numbers(0, 2), r.drain())
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
	full := func(bytes int) func(*disk) { return func(d *disk) { d.room = &bytes } }
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

// appendForever is what the child does: it prints a number when its record is on
// disk.
func appendForever(dir string) {
	s, err := Open(Options{Dir: dir, SegmentBytes: 10_000})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	next, _ := strconv.Atoi(os.Getenv(envChild + "_NEXT"))
	for {
		var records []Record
		for range 1 + next%20 {
			records = append(records, record(fmt.Sprintf("%d %s", next, strings.Repeat("x", next%700))))
			next++
		}
		if err := s.Append(records); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(next)
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := 0
	for round := range 8 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), envChild+"="+dir, fmt.Sprintf("%s_NEXT=%d", envChild, 1000_000*round))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if acknowledged, err = strconv.Atoi(lines.Text()); err != nil {
				t.Error(lines.Text())
			}
			if n == 5+20*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // it was killed
		r := opened(t, Options{Dir: dir})
		got := r.drain()
		for i, text := range got {
			number, padding, _ := strings.Cut(text, " ")
			if n, err := strconv.Atoi(number); err != nil || n != 1000_000*round+i || len(padding) != n%700 {
				t.Fatalf("round %d: record %d is %.20q", round, i, text)
			}
		}
		if len(got) < acknowledged-1000_000*round {
			t.Errorf("round %d: %d records are left of %d that were acknowledged", round, len(got), acknowledged-1000_000*round)
		}
		check(t, "damaged", 0.0, r.metric("corrupt_segments_total"))
		r.Close()
	}
}

// However a segment looks: no panic, nothing is read that was not written, and where
// records were overwritten the segment is kept.
func FuzzSegment(f *testing.F) {
	data, _ := content("first", "second", strings.Repeat("x", 50))
	f.Add(data, uint16(0), uint16(0), []byte{})
	f.Add(data, uint16(30), uint16(5), []byte("rubbish"))
	f.Add(data, uint16(60), uint16(0), []byte{0, 0, 0, 0})
	f.Add([]byte{}, uint16(0), uint16(0), []byte{})
	f.Fuzz(func(t *testing.T, arbitrary []byte, at, cut uint16, insert []byte) {
		texts := []string{"first", "second", strings.Repeat("x", 50), "last"}
		data, _ := content(texts...)
		from := min(int(at), len(data))
		to := min(from+int(cut), len(data))
		bad := slices.Concat(data[:from], insert, data[to:])
		for i, give := range [][]byte{arbitrary, bad} {
			dir := leftBehind(t, give)
			r := opened(t, Options{Dir: dir})
			length := r.Len()
			got := r.drain()
			if len(got) != length || r.Len() != 0 || r.metric("bytes") != 0 {
				t.Errorf("%d records were counted, %d read, %d are left", length, len(got), r.Len())
			}
			r.Close()
			if i == 0 {
				continue
			}
			next := 0
			for _, text := range got {
				at := slices.Index(texts[next:], text)
				if at < 0 {
					t.Fatalf("read %q out of order, or never written", text)
				}
				next += at + 1
			}
			// Without the last one it may look like a write that was cut off, and of another
			// length the frames may meet again.
			if len(got) < len(texts) && next == len(texts) && len(bad) == len(data) && len(files(t, dir)) == 0 {
				t.Errorf("%d records are lost without a trace", len(texts)-len(got))
			}
		}
	})
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
