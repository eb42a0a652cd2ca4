package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

const (
	lineEvery = 10 * time.Second       // between two lines where there is no terminal
	drawEvery = 100 * time.Millisecond // between two pictures on a terminal
)

// Step is how far a command is.
type Step struct {
	Text        string // what it does, or what the count does not tell
	Done, Total int64  // Total 0: nobody knows the end
	Bytes       bool   // they count bytes
	Unit        string // what they count, as "jobs"; of bytes what becomes of them, as "read"
}

// Progress tells people, on standard error, how far a command is: on a terminal by a bar, or by a spinner as long as nobody
// knows the end; elsewhere by a line now and then, so that a quick command prints none. Nil shows nothing. Safe for concurrent use.
type Progress struct {
	w        io.Writer
	terminal bool
	stop     chan struct{} // ends the spinner's goroutine
	stopped  sync.WaitGroup

	mu          sync.Mutex
	ended       bool
	step        Step
	bar         *progressbar.ProgressBar // nil: nothing is drawn
	total       int64                    // that of bar; 0: a spinner
	began, line time.Time                // of the count, and of the last line
	said        Step                     // by the last line
}

// NewProgress returns a Progress that writes to w, which is a terminal or not. The caller calls End.
func NewProgress(w io.Writer) *Progress {
	f, ok := w.(interface{ Fd() uintptr })
	return newProgress(w, ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb")
}

func newProgress(w io.Writer, terminal bool) *Progress {
	p := &Progress{w: w, terminal: terminal, stop: make(chan struct{}), line: time.Now()}
	if terminal {
		p.stopped.Go(p.spin)
	}
	return p
}

// Show says how far the command is.
func (p *Progress) Show(s Step) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	if s.Total > 0 && p.step.Total == 0 {
		p.began = time.Now()
	}
	p.step = s
	switch {
	case !p.terminal:
		if s != p.said && time.Since(p.line) >= lineEvery {
			p.say()
		}
	case s.Total > 0:
		p.draw()
	}
}

// Aside has f print to where a bar may be.
func (p *Progress) Aside(f func()) {
	if p == nil {
		f()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	f()
}

// End says how far it came, if that could be counted, and leaves the terminal as it was.
func (p *Progress) End() {
	if p == nil {
		return
	}
	p.mu.Lock()
	if !p.ended {
		p.ended = true
		close(p.stop)
		switch {
		case p.step.Total == 0:
			p.clear()
		case p.terminal:
			p.draw()
			_ = p.bar.Exit() // what cannot be drawn is not missed
			fmt.Fprintln(p.w)
		case p.step != p.said:
			p.say()
		}
	}
	p.mu.Unlock()
	p.stopped.Wait()
}

// spin draws as long as nobody knows the end.
func (p *Progress) spin() {
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.mu.Lock()
			if !p.ended && p.step != (Step{}) && p.step.Total == 0 {
				p.draw()
			}
			p.mu.Unlock()
		}
	}
}

// draw shows p.step on the terminal. What cannot be drawn is not missed.
func (p *Progress) draw() {
	s := p.step
	if p.bar != nil && p.total != s.Total {
		if s.Total > 0 && p.total > 0 {
			p.bar.ChangeMax64(s.Total)
		} else {
			p.clear()
			p.bar = nil
		}
	}
	if p.bar == nil {
		o := []progressbar.Option{progressbar.OptionSetWriter(p.w), progressbar.OptionSetElapsedTime(true)}
		if s.Total > 0 {
			o = append(o, progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(),
				progressbar.OptionShowBytes(s.Bytes), progressbar.OptionShowTotalBytes(true), progressbar.OptionThrottle(drawEvery))
		} else {
			o = append(o, progressbar.OptionSpinnerType(9), progressbar.OptionSetSpinnerChangeInterval(0))
		}
		p.bar = progressbar.NewOptions64(cmp.Or(s.Total, -1), o...)
	}
	p.total = s.Total
	p.bar.Describe(p.fit(s.Text))
	if s.Total > 0 {
		_ = p.bar.Set64(min(s.Done, s.Total))
	}
}

// fit cuts text so that the line is none but one.
func (p *Progress) fit(text string) string {
	width := Width
	if f, ok := p.w.(interface{ Fd() uintptr }); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			width = w
		}
	}
	if r := []rune(text); len(r) > width-20 { // beside spinner and time
		return string(r[:max(0, width-21)]) + "…"
	}
	return text
}

func (p *Progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// say writes a line.
func (p *Progress) say() {
	s := p.step
	p.line, p.said = time.Now(), s
	if s.Total == 0 {
		fmt.Fprintln(p.w, s.Text)
		return
	}
	done, total := fmt.Sprint(s.Done), fmt.Sprint(s.Total)
	if s.Bytes {
		done, total = Size(s.Done), Size(s.Total)
	}
	line := done + " of " + total + " " + s.Unit
	if s.Text != "" {
		line += ", " + s.Text
	}
	if left := time.Since(p.began); s.Done > 0 && s.Done < s.Total && left > 0 {
		line += fmt.Sprintf(", about %v left", time.Duration(float64(left)/float64(s.Done)*float64(s.Total-s.Done)).Round(time.Second))
	}
	fmt.Fprintln(p.w, line)
}
