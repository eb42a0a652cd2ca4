package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// journal is a log that is read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) count(s string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.buf.String(), s)
}

// A client without a certificate of ours is refused and in the audit, TLS before 1.2 is refused, and a broken file is reported
// once per change.
func TestTLSRefusals(t *testing.T) {
	dir, start := t.TempDir(), time.Now().Add(-time.Minute)
	file := func(name string) string { return filepath.Join(dir, name) }
	writeCert(t, dir, "server", start)
	client := writeCert(t, dir, "client", start)
	stranger := writeCert(t, t.TempDir(), "stranger", start)
	said := new(journal)
	log := slog.New(slog.NewTextHandler(said, nil))
	cfg, err := tlsConfig(file("server.crt"), file("server.key"), file("client.crt"), log)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- listener("test", tls.NewListener(l, cfg), http.NotFoundHandler(), connections{total: 10}, log).run(ctx)
	}()
	dial := func(c *tls.Config) error {
		c.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", l.Addr().String(), c)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 refuses a client only here
		return err
	}
	with := func(pair tls.Certificate) *tls.Config {
		return &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := with(client)
		c.MinVersion, c.MaxVersion = version, version
		if err := dial(c); err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	old := with(client)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := dial(old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: %v", err)
	}
	if n := said.count("msg=denied"); n != 0 {
		t.Errorf("%d audit lines before anybody was denied", n)
	}
	if dial(new(tls.Config)) == nil || dial(with(stranger)) == nil {
		t.Error("a client without a certificate of ours was let in")
	}

	for i := range 2 {
		at := start.Add(time.Duration(i+1) * time.Second)
		if err := os.WriteFile(file("server.crt"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file("server.crt"), at, at); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := dial(with(client)); err != nil {
				t.Error(err)
			}
		}
	}
	if n := said.count("cannot be used"); n != 2 {
		t.Errorf("two changes to a broken file were reported %d times", n)
	}
	cancel()
	if err := <-ended; err != nil && err != http.ErrServerClosed {
		t.Error(err)
	}
	for _, want := range []string{"level=WARN msg=denied client=127.0.0.1:", "endpoint=tls error=\"tls: client didn't provide a certificate\"",
		"endpoint=tls error=\"tls: failed to verify certificate: x509: "} {
		if said.count(want) == 0 {
			t.Errorf("the audit lacks %q", want)
		}
	}
	if n := said.count("msg=denied"); n != 2 {
		t.Errorf("%d audit lines, want 2", n)
	}
}
