package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// serving runs a listener's part on l until stop is called, which returns once it has drained.
func serving(l net.Listener, h http.Handler, c connections) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- listener("test", l, h, c, slog.New(slog.DiscardHandler)).run(ctx) }()
	return func() error { cancel(); return <-ended }
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pipes is a listener in memory, on which time is the test's.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accept <- server
	return client
}

// A client that sends its request a byte at a time, or none, or a body that never ends, is given up in headerTime.
func TestSlowRequests(t *testing.T) {
	for name, begin := range map[string]string{
		"nothing": "", "half a line": "GET /v2/", "half a header": "GET /v2/ HTTP/1.1\r\nHost: m\r\nX: ",
		"a body that does not come": "GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newPipes()
			stop := serving(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			}), connections{total: 10})
			conn := l.dial()
			begun := time.Now()
			var client sync.WaitGroup
			client.Go(func() {
				_, err := io.WriteString(conn, begin)
				for err == nil && name != "nothing" {
					time.Sleep(time.Second)
					_, err = conn.Write([]byte("x"))
				}
			})
			_, _ = io.Copy(io.Discard, conn) // until the server closes it
			if took := time.Since(begun); took < headerTime || took > headerTime+time.Second {
				t.Errorf("%s: given up after %v, want %v", name, took, headerTime)
			}
			conn.Close()
			client.Wait()
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Connections over a bound are closed at once, and one that ends makes room.
func TestConnectionLimits(t *testing.T) {
	l := listen(t)
	stop := serving(l, http.NotFoundHandler(), connections{total: 3, each: 2})
	defer stop()
	answered := func(from string) (net.Conn, bool) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, werr := io.WriteString(c, "GET / HTTP/1.1\r\nHost: m\r\n\r\n")
		_, rerr := c.Read(make([]byte, 1))
		if errors.Is(rerr, context.DeadlineExceeded) {
			t.Fatal("neither answered nor closed")
		}
		return c, werr == nil && rerr == nil
	}
	first, ok1 := answered("127.0.0.1")
	_, ok2 := answered("127.0.0.1")
	_, ok3 := answered("127.0.0.1") // one too many of this client
	_, ok4 := answered("127.0.0.2")
	_, ok5 := answered("127.0.0.3") // one too many in all
	if got := [5]bool{ok1, ok2, ok3, ok4, ok5}; got != [5]bool{true, true, false, true, false} {
		t.Errorf("answered: %v", got)
	}
	first.Close()
	for range 500 { // the server notices a little later
		if _, ok := answered("127.0.0.1"); ok {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a connection that ended made no room")
}

// peer is a connection of which only the address matters.
type peer struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (p *peer) RemoteAddr() net.Addr { return p.addr }
func (p *peer) Close() error         { p.closed = true; return nil }

// One host has all of an IPv6 /64, so that is one client, as it is where requests are bounded.
func TestConnectionLimitsOfIPv6(t *testing.T) {
	hook := connections{total: 10, each: 2}.track()
	open := func(ip string) *peer {
		p := &peer{addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 1000}}
		hook(p, http.StateNew)
		return p
	}
	first, second, third, other := open("2001:db8::1"), open("2001:db8::2"), open("2001:db8::3"), open("2001:db8:0:1::1")
	if got := [4]bool{first.closed, second.closed, third.closed, other.closed}; got != [4]bool{false, false, true, false} {
		t.Errorf("closed: %v", got)
	}
	hook(third, http.StateClosed)
	hook(first, http.StateClosed)
	if p := open("2001:db8::4"); p.closed {
		t.Error("a connection that ended made no room")
	}
}

// Shutdown ends when the pull that runs has ended, over HTTP/1.1 and HTTP/2; HTTP/2 is for those who ask.
func TestDrain(t *testing.T) {
	dir := t.TempDir()
	writeCert(t, dir, "server", time.Now())
	for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(proto, func(t *testing.T) {
			cfg, err := tlsConfig(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), "", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			l := listen(t)
			half, rest := make(chan struct{}), make(chan struct{})
			body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			stop := serving(tls.NewListener(l, cfg), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write(body[:len(body)/2])
				_ = http.NewResponseController(w).Flush()
				close(half)
				<-rest
				_, _ = w.Write(body[len(body)/2:])
			}), connections{total: 10})
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Get("https://" + l.Addr().String() + "/v2/")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.Proto != proto {
				t.Errorf("speaks %s, want %s", res.Proto, proto)
			}
			<-half
			stopped := make(chan error, 1)
			go func() { stopped <- stop() }()
			for { // until it takes no new clients
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					break
				}
				c.Close()
				time.Sleep(time.Millisecond)
			}
			select {
			case err := <-stopped:
				t.Fatalf("stopped while a pull ran: %v", err)
			default:
			}
			close(rest)
			got, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d of %d bytes, %v", len(got), len(body), err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
}
