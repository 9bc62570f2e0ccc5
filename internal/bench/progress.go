package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress tells how far things have come: a line for each window, and for what takes
// long one that changes on a terminal and a line now and then elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	what     string
	begun    time.Time // with what
	told     time.Time
	shown    bool // there is a line on the terminal to be wiped
}

// How often the line changes, and how often there is a new one.
const (
	redraw = 200 * time.Millisecond
	repeat = 10 * time.Second
)

func newProgress(w io.Writer) *progress {
	f, isFile := w.(*os.File)
	return &progress{w: w, terminal: isFile && term.IsTerminal(int(f.Fd()))}
}

// line tells something that stays.
func (p *progress) line(format string, args ...any) {
	p.end()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// set tells how much of what is done.
func (p *progress) set(what string, done, total int64) {
	now := time.Now()
	if what != p.what {
		p.what, p.begun, p.told = what, now, now
	}
	pause := repeat
	if p.terminal {
		pause = redraw
	}
	if now.Sub(p.told) < pause {
		return
	}
	p.told = now
	line := fmt.Sprintf("%s: %d of %d", what, done, total)
	if done > 0 && done < total {
		left := time.Duration(float64(now.Sub(p.begun)) / float64(done) * float64(total-done))
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	if !p.terminal {
		fmt.Fprintln(p.w, line)
		return
	}
	p.shown = true
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
}

// end wipes the line that changes.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
