package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// tlsFiles is a listener's TLS configuration from PEM files, read again when one of them changes: a renewed certificate, or
// another set of client authorities, needs no restart.
type tlsFiles struct {
	cert, key string
	clientCA  string // "": clients need no certificate; else one that these authorities signed
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Config
	seen    [3]time.Time // modification times of what current was made from
	bad     [3]time.Time // of what was last reported as of no use
}

// tlsConfig returns the listener's configuration, or why the files cannot be used.
func tlsConfig(cert, key, clientCA string, log *slog.Logger) (*tls.Config, error) {
	f := &tlsFiles{cert: cert, key: key, clientCA: clientCA, log: log}
	f.seen = f.times()
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	f.current = c
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: f.config}, nil
}

func (f *tlsFiles) times() (at [3]time.Time) {
	for i, name := range []string{f.cert, f.key, f.clientCA} {
		if info, err := os.Stat(name); err == nil {
			at[i] = info.ModTime()
		}
	}
	return at
}

// config returns what the files say now. While they cannot be used, half-written as they may be, what they said before is
// still good.
func (f *tlsFiles) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.times()
	if now == f.seen {
		return f.current, nil
	}
	c, err := f.load()
	if err != nil {
		if now != f.bad { // tried again at every handshake, for a file may change within a tick of its clock, but said once
			f.bad = now
			f.log.Warn("the changed TLS files cannot be used: the old ones stay", "error", err)
		}
		return f.current, nil
	}
	f.current, f.seen = c, now
	return c, nil
}

func (f *tlsFiles) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if f.clientCA != "" {
		pem, err := os.ReadFile(f.clientCA)
		if err != nil {
			return nil, fmt.Errorf("read client authorities: %w", err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read client authorities %s: no certificate in it", f.clientCA)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}
