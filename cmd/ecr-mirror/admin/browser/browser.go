// Package browser drives a headless Chromium for tests: what the admin page's tests do in it, by chromedp.
//
// Limitations: one page to a browser. What goes wrong ends the test.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is for an action, and for what a page is waited for.
const patience = time.Minute

// Page is a browser with one page.
type Page struct {
	t   testing.TB
	ctx context.Context // chromedp's: of the browser and its page

	mu       sync.Mutex
	problems []string // of the console, of scripts, and of the policy
	hosts    []string // that were asked for anything
	login    *url.Userinfo
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
	browser, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(dir+"/profile"), chromedp.Env("HOME="+dir, "TZ=UTC"), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("lang", "en-GB"), chromedp.WSURLReadTimeout(patience))...)
	t.Cleanup(stop)
	p := &Page{t: t}
	var end context.CancelFunc
	p.ctx, end = chromedp.NewContext(browser, chromedp.WithListener(p.event))
	t.Cleanup(end)
	if err := chromedp.Do(p.ctx); err != nil { // without a time of its own, for the browser ends with it
		t.Fatal(err)
	}
	p.must(call(p, network.Enable, network.EnableParams{}))
	p.must(call(p, log.Enable, cdp.Empty{}))
	return p
}

// call has the page do a command of the protocol.
func call[P any](p *Page, command cdp.Command[P, cdp.Empty], params P) error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	_, err := chromedp.Call(ctx, command, params)
	return err
}

func (p *Page) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *Page) do(action chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	p.must(chromedp.Do(ctx, action))
}

// event notes what the page did, and answers what it asks. It may wait for nothing (chromedp.ListenTarget).
func (p *Page) event(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, arg := range ev.Args {
				p.problems = append(p.problems, fmt.Sprintf("console: %s %s", arg.Value, arg.Description))
			}
		}
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, "exception: "+(&chromedp.ExceptionError{ExceptionDetails: ev.ExceptionDetails}).Error())
	case *log.EventEntryAdded: // violations of the policy are among them
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
			p.problems = append(p.problems, "log: "+ev.Entry.Text+" "+ev.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(ev.Request.URL); err == nil && u.Scheme != "data" && u.Scheme != "about" {
			p.hosts = append(p.hosts, u.Host)
		}
	case *fetch.EventRequestPaused:
		go func() { _ = call(p, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: ev.RequestID}) }() // the browser has ended: the test says so
	case *fetch.EventAuthRequired:
		answer := &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseCancelAuth}
		if p.login != nil {
			password, _ := p.login.Password()
			answer = &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseProvideCredentials, Username: p.login.Username(), Password: password}
			p.login = nil // a second challenge says that it was wrong
		}
		go func() {
			_ = call(p, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{RequestID: ev.RequestID, AuthChallengeResponse: answer}) // as above
		}()
	}
}

// Open goes to an address and waits until the page is there.
func (p *Page) Open(address string) {
	p.t.Helper()
	p.do(chromedp.Navigate(address))
}

func (p *Page) eval(expression string, result any) error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	b, err := chromedp.Run(ctx, chromedp.Evaluate[[]byte](expression, chromedp.EvalAwaitPromise))
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(b, result)
}

// Eval evaluates an expression in the page, even where the page itself may run no scripts.
func (p *Page) Eval(expression string, result any) {
	p.t.Helper()
	if err := p.eval(expression, result); err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
}

// Wait waits until the expression is true. The page may be replaced meanwhile.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	var ok bool
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = p.eval("Boolean("+expression+")", &ok); ok && err == nil {
			return
		}
	}
	var text string
	_ = p.eval("document.body.innerText", &text) // for the message alone
	p.t.Fatalf("waited in vain for %s (%v); the page:\n%s", expression, err, text)
}

// Click presses the mouse on what a selector finds.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// Type puts text into the field that a selector finds.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Enter presses the key.
func (p *Page) Enter() {
	p.t.Helper()
	p.do(chromedp.KeyEvent("\r"))
}

// Screenshot returns a PNG of the whole page.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	p.must(err)
	return shot
}

// Scheme has the page prefer light or dark colours.
func (p *Page) Scheme(scheme string) {
	p.t.Helper()
	p.must(call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}))
}

// Size makes the window so many pixels wide and high.
func (p *Page) Size(width, height int64) {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(width, height))
}

// Scripts says whether the page may run any.
func (p *Page) Scripts(on bool) {
	p.t.Helper()
	p.must(call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}))
}

// Login is what a challenge is answered with from now on; nil: it is cancelled.
func (p *Page) Login(login *url.Userinfo) {
	p.t.Helper()
	p.mu.Lock()
	p.login = login
	p.mu.Unlock()
	handle := true
	p.must(call(p, fetch.Enable, fetch.EnableParams{HandleAuthRequests: &handle}))
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
