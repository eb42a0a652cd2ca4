package browser

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Open goes to an address and waits until the page is there.
func (p *Page) Open(address string) {
	p.t.Helper()
	var went struct{ ErrorText string }
	p.do("Page.navigate", map[string]any{"url": address}, &went)
	if went.ErrorText != "" {
		p.t.Fatalf("open %s: %s", address, went.ErrorText)
	}
	p.Wait("document.readyState === 'complete' && location.href !== 'about:blank'")
}

func (p *Page) eval(expression string, result any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	if err := p.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer); err != nil {
		return err
	}
	if answer.ExceptionDetails != nil {
		return errors.New(answer.ExceptionDetails.Exception.Description)
	}
	if result == nil || answer.Result.Value == nil {
		return nil
	}
	return json.Unmarshal(answer.Result.Value, result)
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
	var at []float64
	p.Eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.scrollIntoView({block: "center"}); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`, selector), &at)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		p.do("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
	}
}

// Type puts text into the field that a selector finds.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.Eval(fmt.Sprintf("document.querySelector(%q).focus()", selector), nil)
	p.do("Input.insertText", map[string]any{"text": text}, nil)
}

// Enter presses the key.
func (p *Page) Enter() {
	p.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		p.do("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}, nil)
	}
}
