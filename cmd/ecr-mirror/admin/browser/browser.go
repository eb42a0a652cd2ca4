// Package browser drives a headless Chromium for tests, over the DevTools protocol through a pipe
// (https://chromedevtools.github.io/devtools-protocol/): the calls that the admin page's tests need, and no more.
//
// Limitations: one page to a browser. What goes wrong ends the test.
package browser

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for a call, and for what a page is waited for.
const patience = time.Minute

// Page is a browser with one page.
type Page struct {
	t       testing.TB
	out     *os.File
	session string

	mu       sync.Mutex
	n        int
	answers  map[int]chan message
	problems []string // of the console, of scripts, and of the policy
	hosts    []string // that were asked for anything
	login    *url.Userinfo
}

type message struct {
	ID     int             `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
	Session string `json:"sessionId,omitempty"`
}

// Start starts Chromium with an empty page until the test ends. Without Chromium the test is skipped, and fails in CI.
func Start(t testing.TB) *Page {
	t.Helper()
	path, err := exec.LookPath("chromium")
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatal("chromium is needed in CI")
	case err != nil:
		t.Skip("needs chromium, which is not there")
	}
	dir := t.TempDir()
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
		"--no-proxy-server", "--hide-scrollbars", "--lang=en-GB", "--user-data-dir="+dir+"/profile", "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+dir, "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, out, err := pipes(cmd)
	if err != nil {
		t.Fatal(err)
	}
	p := &Page{t: t, out: out, answers: make(map[int]chan message)}
	ended := make(chan struct{})
	go func() { defer close(ended); p.read(in) }()
	t.Cleanup(func() {
		_ = out.Close()                                     // it ends when nobody can tell it anything
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // and so do its helpers
		_ = cmd.Wait()                                      // killed
		_ = in.Close()
		<-ended
	})
	var target struct{ TargetID string }
	p.do("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	p.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Network", "Log"} {
		p.do(domain+".enable", nil, nil)
	}
	return p
}

// pipes starts cmd with the ends of two pipes as its files 3, which it reads, and 4, which it writes.
func pipes(cmd *exec.Cmd) (in, out *os.File, err error) {
	theirIn, out, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	err = cmd.Start()
	return in, out, errors.Join(err, theirIn.Close(), theirOut.Close())
}

// read takes messages, each of which ends in a zero byte, until the pipe ends.
func (p *Page) read(in *os.File) {
	for r := bufio.NewReader(in); ; {
		b, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(b[:len(b)-1], &m) != nil {
			continue
		}
		if m.ID == 0 {
			p.event(m)
			continue
		}
		p.mu.Lock()
		answer := p.answers[m.ID]
		delete(p.answers, m.ID)
		p.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}

// send returns where the answer comes; nobody has to wait for it.
func (p *Page) send(method string, params any) (chan message, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	if params == nil {
		raw = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	b, err := json.Marshal(message{ID: p.n, Method: method, Params: raw, Session: p.session})
	if err != nil {
		return nil, err
	}
	answer := make(chan message, 1)
	p.answers[p.n] = answer
	_, err = p.out.Write(append(b, 0))
	return answer, err
}

func (p *Page) call(method string, params, result any) error {
	answer, err := p.send(method, params)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m := <-answer:
		switch {
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer", method)
	}
}

func (p *Page) do(method string, params, result any) {
	p.t.Helper()
	if err := p.call(method, params, result); err != nil {
		p.t.Fatal(err)
	}
}

// Screenshot returns a PNG of the whole page.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	var metrics struct {
		CSSContentSize struct{ Width, Height float64 }
	}
	p.do("Page.getLayoutMetrics", nil, &metrics)
	var shot struct{ Data string }
	p.do("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true,
		"clip": map[string]any{"x": 0, "y": 0, "width": metrics.CSSContentSize.Width, "height": metrics.CSSContentSize.Height, "scale": 1}}, &shot)
	b, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// Scheme has the page prefer light or dark colours.
func (p *Page) Scheme(scheme string) {
	p.t.Helper()
	p.do("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}}}, nil)
}

// Size makes the window so many pixels wide and high.
func (p *Page) Size(width, height int) {
	p.t.Helper()
	p.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// Scripts says whether the page may run any.
func (p *Page) Scripts(on bool) {
	p.t.Helper()
	p.do("Emulation.setScriptExecutionDisabled", map[string]any{"value": !on}, nil)
}

// Login is what a challenge is answered with from now on; nil: it is cancelled.
func (p *Page) Login(login *url.Userinfo) {
	p.t.Helper()
	p.mu.Lock()
	p.login = login
	p.mu.Unlock()
	p.do("Fetch.enable", map[string]any{"handleAuthRequests": true}, nil)
}

// Problems returns what the page has complained of since it was asked last.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.problems
	p.problems = nil
	return found
}

// Hosts returns whom the page asked for anything.
func (p *Page) Hosts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(p.hosts)))
}
