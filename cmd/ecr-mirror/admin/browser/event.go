package browser

import (
	"encoding/json"
	"fmt"
	"net/url"
)

// event notes what the page did, and answers what it asks. It waits for nothing: answers come by who calls it.
func (p *Page) event(m message) {
	var e struct {
		Type      string
		RequestID string `json:"requestId"`
		Request   struct{ URL string }
		Args      []struct {
			Value       any
			Description string
		}
		Entry            struct{ Level, Text, URL string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
		AuthChallenge struct{ Origin string }
	}
	if json.Unmarshal(m.Params, &e) != nil {
		return
	}
	p.mu.Lock()
	login := p.login
	switch m.Method {
	case "Runtime.consoleAPICalled":
		if e.Type == "error" || e.Type == "warning" {
			p.problems = append(p.problems, fmt.Sprintf("console: %v", e.Args))
		}
	case "Runtime.exceptionThrown":
		p.problems = append(p.problems, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case "Log.entryAdded": // violations of the policy are among them
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			p.problems = append(p.problems, "log: "+e.Entry.Text+" "+e.Entry.URL)
		}
	case "Network.requestWillBeSent":
		if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" && u.Scheme != "about" {
			p.hosts = append(p.hosts, u.Host)
		}
	}
	p.mu.Unlock()
	switch m.Method {
	case "Fetch.requestPaused":
		_, _ = p.send("Fetch.continueRequest", map[string]any{"requestId": e.RequestID}) // the browser has ended: the test says so
	case "Fetch.authRequired":
		response := map[string]string{"response": "CancelAuth"}
		if login != nil {
			password, _ := login.Password()
			response = map[string]string{"response": "ProvideCredentials", "username": login.Username(), "password": password}
			p.mu.Lock()
			p.login = nil // a second challenge says that it was wrong
			p.mu.Unlock()
		}
		_, _ = p.send("Fetch.continueWithAuth", map[string]any{"requestId": e.RequestID, "authChallengeResponse": response}) // as above
	}
}
