package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeCert makes a self-signed certificate for 127.0.0.1 in dir, dated at, and returns it.
func writeCert(t *testing.T, dir, name string, at time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(at.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, body := range map[string][]byte{name + ".crt": certPEM, name + ".key": keyPEM} {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestTLSFilesAreReadAgain(t *testing.T) {
	dir, start := t.TempDir(), time.Now().Add(-time.Minute)
	file := func(name string) string { return filepath.Join(dir, name) }
	writeCert(t, dir, "server", start)
	client := writeCert(t, dir, "client", start)
	cfg, err := tlsConfig(file("server.crt"), file("server.key"), file("client.crt"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // refused handshakes
	srv.TLS = cfg
	srv.StartTLS()
	defer srv.Close()
	serial := func(certificates ...tls.Certificate) (*big.Int, error) {
		c, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: certificates})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			return nil, err
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // TLS 1.3 refuses a client only here
			return nil, err
		}
		return c.ConnectionState().PeerCertificates[0].SerialNumber, nil
	}
	first, err := serial(client)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serial(); err == nil {
		t.Error("a client without a certificate was let in")
	}

	if err := os.WriteFile(file("server.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := serial(client); err != nil || got.Cmp(first) != 0 {
		t.Errorf("with a half-written file: %v, %v", got, err)
	}
	writeCert(t, dir, "server", start.Add(time.Second))
	if got, err := serial(client); err != nil || got.Cmp(first) == 0 {
		t.Errorf("the renewed certificate is not used: %v, %v", got, err)
	}
	other := writeCert(t, dir, "client", start.Add(2*time.Second))
	if _, err := serial(client); err == nil {
		t.Error("a client of the old authority was let in")
	}
	if _, err := serial(other); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}

	for _, bad := range [][3]string{{"none", "server.key", ""}, {"server.crt", "client.key", ""}, {"server.crt", "server.key", "none"}, {"server.crt", "server.key", "server.key"}} {
		ca := ""
		if bad[2] != "" {
			ca = file(bad[2])
		}
		if _, err := tlsConfig(file(bad[0]), file(bad[1]), ca, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
