package ecrtest

import (
	"context"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// connection is how an API destination authenticates.
type connection struct {
	ARN, Name, Type string
	header, value   string
}

// apiDestination is an HTTP target of rules.
type apiDestination struct {
	ARN, Name, Method, Endpoint string
	connection                  *connection
}

// apiTimeout is how long an endpoint has to answer (EventBridge User Guide, "API destinations as targets").
const apiTimeout = 5 * time.Second

// deliver calls the endpoint until it takes the event. 401, 407, 409, 429 and 5xx are tried again after a growing delay, or after
// what Retry-After says; other refusals are final.
func (a *apiDestination) deliver(e *Emulator, t *eventTarget, d Delivery) {
	attempts, age := defaultRetries, defaultEventAge
	if t.Retry.Attempts != nil {
		attempts = *t.Retry.Attempts
	}
	if t.Retry.Age > 0 {
		age = time.Duration(t.Retry.Age) * time.Second
	}
	deadline := time.Now().Add(age)
	wait := d.Delay
	for attempt := 0; attempt <= attempts && e.pause(wait) && time.Now().Before(deadline); attempt++ {
		status, after := a.call(e, t, d.Body)
		e.opt.Log.Debug("api destination", "endpoint", a.Endpoint, "attempt", attempt, "status", status)
		switch {
		case status >= 200 && status < 300:
			return
		case status == 0, status == 401, status == 407, status == 409, status == 429, status >= 500:
			wait = min(firstRetry<<min(attempt, 16), longestRetry)
			wait = max(wait/2+rand.N(wait), after)
		default:
			attempt = attempts
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t.dead(e, d.Body)
}

// call makes one call; status 0 is no answer.
func (a *apiDestination) call(e *Emulator, t *eventTarget, body string) (status int, after time.Duration) {
	ctx, cancel := context.WithTimeout(e.closing, apiTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, a.Method, a.Endpoint, strings.NewReader(body))
	if err != nil {
		return 0, 0
	}
	req.Close = true // Connection: close
	req.Header.Set("User-Agent", "Amazon/EventBridge/ApiDestinations")
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Range", "bytes=0-1048575")
	for k, v := range t.Input.Headers {
		req.Header.Set(k, v)
	}
	req.Header.Set(a.connection.header, a.connection.value)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req) // redirects are not followed
	if err != nil {
		return 0, 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return resp.StatusCode, time.Duration(min(max(seconds, 0), 3600)) * time.Second
}

func basicAuth(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
