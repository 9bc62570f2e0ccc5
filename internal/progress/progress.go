// Package progress tells how far a long command has come.
package progress

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// Progress tells how far things have come: on a terminal by one line that changes,
// elsewhere by a line now and then.
type Progress struct {
	w        io.Writer
	terminal bool
	what     string
	begun    time.Time // with what
	told     time.Time
	shown    bool // there is a line on the terminal to be wiped
}

// How often the line changes, and how often there is a new one.
const (
	tick  = 200 * time.Millisecond
	every = 10 * time.Second
)

// New returns a Progress that writes to w.
func New(w io.Writer) *Progress {
	f, isFile := w.(*os.File)
	return &Progress{w: w, terminal: isFile && term.IsTerminal(int(f.Fd()))}
}

// Line tells something that stays.
func (p *Progress) Line(format string, args ...any) {
	p.End()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// Set tells how much of what is done, of a total that may be 0 where nobody knows it. It may
// be called as often as there is news.
func (p *Progress) Set(what string, done, total int64) {
	now := time.Now()
	if what != p.what {
		p.what, p.begun, p.told = what, now, now
	}
	pause := every
	if p.terminal {
		pause = tick
	}
	if now.Sub(p.told) < pause {
		return
	}
	p.told = now
	line := fmt.Sprintf("%s: %d", what, done)
	if total > 0 {
		line += fmt.Sprintf(" of %d", total)
		if left := timeLeft(now.Sub(p.begun), done, total); left > 0 {
			line += fmt.Sprintf(", %s left", left)
		}
	}
	if !p.terminal {
		fmt.Fprintln(p.w, line)
		return
	}
	p.shown = true
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
}

// End wipes the line, so that what the command prints next stands alone.
func (p *Progress) End() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// timeLeft goes by the pace so far, in whole seconds; 0 is unknown or none.
func timeLeft(spent time.Duration, done, total int64) time.Duration {
	if done <= 0 || done >= total {
		return 0
	}
	return time.Duration(float64(spent) / float64(done) * float64(total-done)).Round(time.Second)
}
