package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// bar shows progress: a bar on a terminal, else a line now and then.
type bar interface {
	show(progress)
	end(progress)
}

func newBar(w io.Writer) bar {
	if isTerminal(w) {
		return &terminalBar{w: w}
	}
	return &plainBar{w: w, every: 10 * time.Second, now: time.Now}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalBar counts jobs, for they are what takes time where layers are shared; its description has the bytes.
type terminalBar struct {
	w   io.Writer
	bar *progressbar.ProgressBar
}

func (b *terminalBar) show(p progress) {
	if p.Jobs == 0 {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions(p.Jobs, progressbar.OptionSetWriter(b.w), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionFullWidth(), progressbar.OptionSetRenderBlankState(true))
	}
	b.bar.Describe(strings.TrimPrefix(p.note(), ", "))
	_ = b.bar.Set(p.Done + p.Failed) // what cannot be drawn is not missed
}

func (b *terminalBar) end(p progress) {
	if b.bar != nil {
		_ = b.bar.Exit() // as above
		fmt.Fprintln(b.w)
	}
}

// note is what the count of jobs does not say: bytes, where the source tells them beforehand, and failures.
func (p progress) note() string {
	s := ""
	if p.Bytes > 0 {
		s = ", " + size(p.BytesDone) + " of " + size(p.Bytes)
	}
	if p.Failed > 0 {
		s += fmt.Sprintf(", %d failed", p.Failed)
	}
	return s
}

// plainBar writes a line when something changed, at most one in every, and one at the end.
type plainBar struct {
	w     io.Writer
	every time.Duration
	now   func() time.Time

	began, last time.Time
	shown       progress
}

func (b *plainBar) show(p progress) {
	now := b.now()
	if b.began.IsZero() {
		b.began, b.last, b.shown = now, now, p
		return
	}
	if p == b.shown || now.Sub(b.last) < b.every {
		return
	}
	b.line(p, now)
}

func (b *plainBar) line(p progress, now time.Time) {
	b.last, b.shown = now, p
	left := ""
	if done := p.Done + p.Failed; done > 0 && done < p.Jobs {
		each := now.Sub(b.began) / time.Duration(done)
		left = fmt.Sprintf(", about %v left", (each * time.Duration(p.Jobs-done)).Round(time.Second))
	}
	fmt.Fprintf(b.w, "%d of %d jobs%s%s\n", p.Done, p.Jobs, p.note(), left)
}

func (b *plainBar) end(p progress) {
	if p.Jobs > 0 {
		b.line(p, b.now())
	}
}
