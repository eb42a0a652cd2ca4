package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// writeAuthority makes a private authority in dir: ca.crt, and for the name of each leaf NAME.crt and NAME.key, which it signed.
func writeAuthority(t *testing.T, dir string, leaves ...string) {
	t.Helper()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	pemFile := func(name, kind string, der []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	caKey := newKey()
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	pemFile("ca.crt", "CERTIFICATE", der, err)
	for i, name := range leaves {
		key := newKey()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, ca, key.Public(), caKey)
		pemFile(name+".crt", "CERTIFICATE", der, err)
		der, err = x509.MarshalPKCS8PrivateKey(key)
		pemFile(name+".key", "PRIVATE KEY", der, err)
	}
}

// Clients with a private authority pull over TLS, with the certificate that the mirror asks for; others do not.
func TestTLS(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "skopeo", "podman", "docker-registry")
	source := dockerRegistry(t)
	push(t, source, "team/app", "1", multiArch(t, "secured", 1<<20))
	dir := tempDir(t)
	writeAuthority(t, dir, "server", "client")
	at := func(name string) string { return filepath.Join(dir, name) }
	settings := fmt.Sprintf("{none: true}\ntls: {cert: %s, key: %s, clientCA: %s}", at("server.crt"), at("server.key"), at("ca.crt"))
	m := startMirrorWith(t, nil, settings, plain(registryName, source, ""))
	image := "docker://" + m.addr + "/team/app:1"
	policy, conf := at("policy.json"), at("registries.conf")
	write(t, policy, `{"default": [{"type": "insecureAcceptAnything"}]}`)
	write(t, conf, "")

	// As in certs.d: what ends in .crt is an authority, .cert and .key are the client's.
	certs := func(files map[string]string) string {
		to := tempDir(t)
		for name, from := range files {
			run(t, nil, "cp", at(from), filepath.Join(to, name))
		}
		return to
	}
	whole := certs(map[string]string{"ca.crt": "ca.crt", "client.cert": "client.crt", "client.key": "client.key"})
	noClient := certs(map[string]string{"ca.crt": "ca.crt"})
	noAuthority := certs(map[string]string{"client.cert": "client.crt", "client.key": "client.key"})
	podman := []string{"podman", "--root", at("root"), "--runroot", at("run"), "--tmpdir", at("tmp"), "--storage-driver", "vfs", "--cgroup-manager",
		"cgroupfs", "--events-backend", "file", "pull", "-q", "--signature-policy", policy, "--cert-dir"}
	skopeo := []string{"skopeo", "--policy", policy, "inspect", "--raw", "--cert-dir"}
	env := []string{"CONTAINERS_REGISTRIES_CONF=" + conf}
	for _, client := range [][]string{skopeo, podman} {
		pull := func(certs string) error {
			return command(t.Context(), env, client[0], append(client[1:len(client):len(client)], certs, image)...)
		}
		if err := pull(noClient); err == nil {
			t.Errorf("%s without a certificate was let in", client[0])
		}
		if err := pull(noAuthority); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("%s trusts a mirror that nobody vouches for: %v", client[0], err)
		}
		if err := pull(whole); err != nil {
			t.Error(err)
		}
	}
}
