package ecrtest

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Call is one request, as faults and counts see it.
type Call struct {
	Region  string
	Account string // whose registry or queue
	Caller  string // the principal's account; "" before it is known (v2 plane, layer host)
	// Op is a control or SQS operation ("PutImage", "ReceiveMessage"), a v2 verb and resource ("GET manifest", "HEAD blob",
	// "POST upload", "PATCH upload", "PUT upload", "GET tags", "GET referrers", "GET base"), or "GET layer" at the layer host.
	Op     string
	Target string // "app", "app:tag", "app@sha256:...", a queue's name, or ""
	Nth    int    // how many calls with these Region, Account, Op and Target came before this one
}

func (c Call) String() string {
	s := c.Region + " " + c.Account + " " + c.Op
	if c.Target != "" {
		s += " " + c.Target
	}
	return s
}

// Damage is what happens to the body of an answer.
type Damage uint8

const (
	Intact  Damage = iota
	Cut            // the connection ends after At bytes, by an early FIN
	Reset          // the same by RST
	Corrupt        // the byte at At is changed
	Stall          // nothing is sent after At bytes until the client leaves
)

// Fault says how a call fails. The zero value is no fault.
type Fault struct {
	Delay   time.Duration // before anything else
	Status  int           // answer this status instead; with Code and Message, or those that suit
	Code    string        // error code or exception name
	Message string
	Header  http.Header // set on the failed answer, for instance Retry-After
	HangUp  bool        // close the connection without an answer
	After   bool        // let the operation take effect, then fail by Status or HangUp
	Damage  Damage
	At      int64 // bytes of the body before Damage
}

// Fault installs hook, which is asked about every call; nil removes it. It may be called concurrently.
func (e *Emulator) Fault(hook func(Call) Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = hook
}

// Calls returns all calls so far in order, in the form "us-west-2 111122223333 PutImage app:tag".
func (e *Emulator) Calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := make([]string, len(e.calls))
	for i, c := range e.calls {
		s[i] = c.String()
	}
	return s
}

// ResetCalls forgets the calls so far.
func (e *Emulator) ResetCalls() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls, e.counts = nil, map[string]int{}
}

// maxCalls bounds the memory of the call log of an emulator that runs for long.
const maxCalls = 100_000

func (e *Emulator) record(c Call) Fault {
	e.mu.Lock()
	c.Nth = e.counts[c.String()]
	e.counts[c.String()]++
	if len(e.calls) >= maxCalls {
		e.calls = e.calls[maxCalls/2:]
	}
	e.calls = append(e.calls, c)
	hook := e.fault
	e.mu.Unlock()
	e.opt.Log.Debug("call", "region", c.Region, "account", c.Account, "op", c.Op, "target", c.Target)
	if hook == nil {
		return Fault{}
	}
	return hook(c)
}

// serve answers one call: records it, applies the fault, and else runs h. fail writes an error in the plane's own form.
func (e *Emulator) serve(w http.ResponseWriter, r *http.Request, c Call, fail func(w http.ResponseWriter, f Fault), h http.HandlerFunc) {
	f := e.record(c)
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-e.closing.Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f.Status != 0 || f.HangUp {
		if f.After {
			h(&discard{header: http.Header{}}, r)
		}
		if f.HangUp {
			panic(http.ErrAbortHandler)
		}
		for k, v := range f.Header {
			w.Header()[k] = v
		}
		fail(w, f)
		return
	}
	if f.Damage != Intact {
		w = &damaged{ResponseWriter: w, fault: f, gone: r.Context(), closing: e.closing}
	}
	h(w, r)
}

// discard swallows the answer of an operation whose caller is to see a failure.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// damaged applies a Fault's Damage to the body that passes through.
type damaged struct {
	http.ResponseWriter
	fault         Fault
	gone, closing context.Context
	n             int64
}

func (d *damaged) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func (d *damaged) Write(p []byte) (int, error) {
	left := d.fault.At - d.n
	if left < 0 || left >= int64(len(p)) {
		n, err := d.ResponseWriter.Write(p)
		d.n += int64(n)
		return n, err
	}
	if d.fault.Damage == Corrupt {
		q := append([]byte(nil), p...)
		q[left] ^= 0xff
		n, err := d.ResponseWriter.Write(q)
		d.n += int64(n)
		return n, err
	}
	d.ResponseWriter.Write(p[:left])
	rc := http.NewResponseController(d.ResponseWriter)
	rc.Flush()
	switch d.fault.Damage {
	case Reset:
		if conn, _, err := rc.Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				tcp.SetLinger(0) // close sends RST
			}
			conn.Close()
		}
	case Stall:
		select {
		case <-d.gone.Done():
		case <-d.closing.Done():
		}
	}
	panic(http.ErrAbortHandler)
}

// writeBody answers with body and its exact length.
func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
