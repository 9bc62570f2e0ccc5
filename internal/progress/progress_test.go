package progress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	work := func(p *Progress) {
		for i := range int64(100) {
			p.Set("events", i, 100)
			time.Sleep(250 * time.Millisecond)
		}
		for range 3 {
			p.Set("jobs", 7, 0)
			time.Sleep(11 * time.Second)
		}
		p.End()
		p.End()
	}
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		work(New(&b))
		want := "events: 40 of 100, 15s left\nevents: 80 of 100, 5s left\njobs: 7\njobs: 7\n"
		if diff := cmp.Diff(want, b.String()); diff != "" {
			t.Error(diff)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := New(&b)
		p.terminal = true
		work(p)
		got := strings.Split(b.String(), "\r\x1b[K")
		if len(got) != 100-1+2+2 || got[1] != "events: 1 of 100, 25s left" || got[99] != "events: 99 of 100" || got[len(got)-1] != "" {
			t.Errorf("%d changes: %q", len(got), got)
		}
		if strings.Contains(b.String(), "\n") {
			t.Error("the line does not stay one")
		}
	})
	synctest.Test(t, func(t *testing.T) { // what is over at once says nothing
		var b bytes.Buffer
		p := New(&b)
		p.Set("events", 0, 10)
		p.Set("events", 10, 10)
		p.End()
		if b.Len() > 0 {
			t.Errorf("%q", b.String())
		}
	})
	synctest.Test(t, func(t *testing.T) { // a line that stays stands alone
		var b bytes.Buffer
		p := New(&b)
		p.terminal = true
		p.Set("filling", 0, 100)
		time.Sleep(10 * time.Second)
		p.Set("filling", 50, 100)
		p.Line("filled %d", 100)
		if want := "\r\x1b[Kfilling: 50 of 100, 10s left\r\x1b[Kfilled 100\n"; b.String() != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	})
}

func TestTimeLeft(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		spent       time.Duration
		done, total int64
		want        time.Duration
	}{
		{time.Minute, 1, 2, time.Minute}, {time.Minute, 0, 2, 0}, {time.Minute, 2, 2, 0}, {time.Minute, 3, 2, 0},
		{10 * time.Second, 1_000_000, 4_000_000, 30 * time.Second}, {0, 1, 2, 0},
	} {
		t.Run(fmt.Sprintf("%s %d of %d", tt.spent, tt.done, tt.total), func(t *testing.T) {
			if got := timeLeft(tt.spent, tt.done, tt.total); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
