package admin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

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
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5001} }
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accept <- here{server}
	return client
}

// here is a connection from this host.
type here struct{ net.Conn }

func (here) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A reader of a plan that stops reading is cut and the next has its turn; one that waits long for the next line is not.
func TestSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1) // how a plan did
		h := New(Options{
			Metrics: prometheus.NewRegistry(),
			Plan: func(_ context.Context, _ bool, line func(any) error) {
				var err error
				for err == nil {
					err = line("more")
				}
				ended <- err
			},
			Sync: func(_ context.Context, _ bool, line func(any) error) {
				time.Sleep(5 * answerTime)
				must(t, line("first"))
				time.Sleep(5 * answerTime)
				must(t, line("last"))
			},
		})
		l, srv := newPipes(), &http.Server{Handler: h}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()

		stalled := l.dial()
		_, err := io.WriteString(stalled, "GET /plan HTTP/1.1\r\nHost: 127.0.0.1:5001\r\n\r\n")
		must(t, err)
		res, err := http.ReadResponse(bufio.NewReader(stalled), nil) // and nothing more
		must(t, err)
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		time.Sleep(answerTime - time.Second)
		synctest.Wait()
		if len(ended) > 0 {
			t.Error("cut early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(ended) == 0 {
			t.Error("the plan goes on")
		}
		must(t, stalled.Close())

		patient := l.dial()
		_, err = io.WriteString(patient, "POST /sync HTTP/1.1\r\nHost: 127.0.0.1:5001\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		must(t, err)
		res, err = http.ReadResponse(bufio.NewReader(patient), nil)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		if want := "\"first\"\n\"last\"\n"; err != nil || string(body) != want {
			t.Errorf("%q, %v; want %q", body, err, want)
		}
		must(t, patient.Close())
		must(t, srv.Shutdown(t.Context()))
		<-served
	})
}
