package spool

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

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
