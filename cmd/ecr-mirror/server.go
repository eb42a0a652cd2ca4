package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Limits of the listeners. Headers: an ECR token is 2 to 4 KiB of Authorization; a drain that takes longer than drainTime is
// a client that reads slower than any orchestrator waits.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
	drainTime  = 5 * time.Minute
)

// listener returns a part that answers on l until its context ends, then lets open requests finish. Writes have no deadline
// of the server's: the front sets one per span of a body.
func listener(name string, l net.Listener, h http.Handler, log *slog.Logger) part {
	return part{name, func(ctx context.Context) error {
		srv := &http.Server{
			Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes of port scanners
		}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(l) }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
		}
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		err := srv.Shutdown(drain)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close()
		}
		<-done
		return err
	}}
}

// tlsFiles serves a certificate from files and loads it again when the file changes, so that a renewal needs no restart.
type tlsFiles struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	mod    time.Time
}

// tlsConfig returns the listener's configuration. clientCA, unless "", is a PEM file of authorities: every client must then
// present a certificate of theirs.
func tlsConfig(cert, key, clientCA string) (*tls.Config, error) {
	f := &tlsFiles{cert: cert, key: key}
	if _, err := f.get(nil); err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: f.get, NextProtos: []string{"http/1.1"}}
	if clientCA != "" {
		pem, err := os.ReadFile(clientCA)
		if err != nil {
			return nil, fmt.Errorf("read client authorities: %w", err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read client authorities %s: no certificate in it", clientCA)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

func (f *tlsFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.cert)
	if err == nil && f.loaded != nil && info.ModTime().Equal(f.mod) {
		return f.loaded, nil
	}
	if err == nil {
		var c tls.Certificate
		if c, err = tls.LoadX509KeyPair(f.cert, f.key); err == nil {
			f.loaded, f.mod = &c, info.ModTime()
			return f.loaded, nil
		}
	}
	if f.loaded != nil { // half-written files: the certificate in hand is still good
		return f.loaded, nil
	}
	return nil, fmt.Errorf("load certificate: %w", err)
}
