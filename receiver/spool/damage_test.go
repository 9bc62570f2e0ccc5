package spool

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		for _, zeros := range []int{0, 100} { // a loss of power may leave a file that was not filled
			torn := append(slices.Clone(data[:length]), make([]byte, zeros)...)
			want := 0
			for want < len(ends) && ends[want] <= len(torn) && bytes.Equal(torn[:ends[want]], data[:ends[want]]) {
				want++ // a checksum may end with zeros
			}
			dir := leftBehind(t, torn)
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
