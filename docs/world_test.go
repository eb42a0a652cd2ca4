package docs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"golang.org/x/sys/unix"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

// The cast of the documents: accounts 111122223333 (who reads), 444455556666 and 777788889999, in these regions.
var (
	accounts = []string{"111122223333", "444455556666", "777788889999"}
	regions  = []string{"us-west-2", "eu-central-1", "us-east-1", "ap-southeast-1", "cn-north-1", "us-gov-west-1"}
)

const (
	reader = "111122223333"
	home   = "us-west-2" // the reader's region: where images are pushed to
)

// suffix is what AWS's names of a region end in.
func suffix(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

func registryHost(account, region string) string {
	return account + ".dkr.ecr." + region + "." + suffix(region)
}

// world is the machine of somebody who follows a document: AWS with its own names on 443, which is the emulator; a mirror
// that serves; and the programs of testdata/bin before the real ones. It is a network, a mount and a PID namespace: /etc,
// /run, /root, /var/lib and /usr/local/bin are its own, nothing gets out, and all of it ends with the process.
type world struct {
	dir string // scratch, made and removed by the parent
	emu *ecrtest.Emulator
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// work is the reader's directory.
func (w *world) work() string { return w.path("work") }

func (w *world) setUp(binary, repository string) error {
	for _, step := range []func() error{loopback, w.directories, w.aws, w.replication, w.images, w.files} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, to := range []string{w.path("work", "bin", "ecr-mirror"), "/usr/local/bin/ecr-mirror"} {
		if err := os.Symlink(w.path("bin", "ecr-mirror"), to); err != nil {
			return err
		}
	}
	if err := os.Symlink(binary, w.path("ecr-mirror")); err != nil {
		return err
	}
	if err := os.Symlink(repository, w.path("repository")); err != nil {
		return err
	}
	return w.shell("ecr-mirror serve --config ecr-mirror.yaml")
}

// loopback makes the new network usable.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// directories has the world's own directories in place of the machine's.
func (w *world) directories() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := w.programs(); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", "/etc", w.path("etc")).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	for over, dir := range map[string]string{"/etc": "etc", "/run": "run", "/root": "root", "/var/lib": "lib", "/usr/local/bin": "local"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			return err
		}
		if err := unix.Mount(w.path(dir), over, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", over, err)
		}
	}
	return nil
}

// aws has AWS's names answered by the emulator.
func (w *world) aws() error {
	listen := ecrtest.Listen{LayerName: "localhost", Registries: map[string]string{}}
	var err error
	if w.emu, err = ecrtest.New(ecrtest.Options{CrossAccount: true, Accounts: accounts}); err != nil {
		return err
	}
	hosts, names := "127.0.0.1 localhost mirror.internal\n", []string{"mirror.internal"}
	for _, region := range regions {
		for _, service := range []string{"sqs", "sts", "events", "api.ecr"} {
			names = append(names, service+"."+region+"."+suffix(region))
		}
		for _, account := range accounts {
			listen.Registries[registryHost(account, region)] = ""
			names = append(names, registryHost(account, region))
		}
	}
	for _, name := range names {
		hosts += "127.0.0.1 " + name + "\n"
	}
	if err := w.emu.Start(listen); err != nil {
		return err
	}
	w.emu.Subscribe(reader, home, "ecr-pushes")
	cert, err := w.certificate(names)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:443", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, w.front()) }() // until the process ends
	return errors.Join(os.WriteFile("/etc/hosts", []byte(hosts), 0o644), os.WriteFile("/etc/resolv.conf", nil, 0o644))
}

// replication is ECR's own, from the reader's region to the mirror's: what who migrates has.
func (w *world) replication() error {
	account, to, prefix := reader, "eu-central-1", "team/"
	_, err := ecr.NewFromConfig(w.emu.Config(reader, home)).PutReplicationConfiguration(context.Background(), &ecr.PutReplicationConfigurationInput{
		ReplicationConfiguration: &types.ReplicationConfiguration{Rules: []types.ReplicationRule{{
			Destinations:      []types.ReplicationDestination{{Region: &to, RegistryId: &account}},
			RepositoryFilters: []types.RepositoryFilter{{Filter: &prefix, FilterType: types.RepositoryFilterTypePrefixMatch}}}}}})
	return err
}

// front is what listens at AWS's names.
func (w *world) front() http.Handler {
	return &httputil.ReverseProxy{ErrorLog: log.New(os.Stderr, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		target := w.emu.ControlURL()
		if account, rest, ok := strings.Cut(r.In.Host, ".dkr.ecr."); ok {
			region, _, _ := strings.Cut(rest, ".")
			target = "http://" + w.emu.RegistryHost(account, region)
		}
		u, err := url.Parse(target)
		if err != nil {
			panic(err) // unreachable: the emulator's own
		}
		r.SetURL(u)
		r.Out.Host = r.In.Host // it is signed
	}}
}

// certificate makes one for all the names, which every program here trusts.
func (w *world) certificate(names []string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "documents"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: append(names, "localhost"), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "documents"}}, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	certPEM, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for name, text := range map[string][]byte{"/etc/ssl/certs/ca-certificates.crt": certPEM, w.path("tls.crt"): certPEM, w.path("tls.key"): keyPEM} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return tls.Certificate{}, err
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return tls.Certificate{}, err
		}
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// shell runs a script as the reader would; what it exports is there for the next one.
func (w *world) shell(script string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-euo", "pipefail", "-c",
		"trap 'export -p >"+w.path("environment")+"' EXIT\n[ ! -e "+w.path("environment")+" ] || . "+w.path("environment")+"\n"+script)
	credentials := w.emu.Credentials(reader)
	cmd.Dir = w.work()
	cmd.Env = []string{"PATH=" + w.path("bin"), "HOME=/root", "LANG=C.UTF-8", "WORLD=" + w.dir, "AWS_REGION=" + home, "AWS_PAGER=",
		"AWS_ACCESS_KEY_ID=" + credentials.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + credentials.SecretAccessKey,
		"AWS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt", "AWS_EC2_METADATA_DISABLED=true"}
	// Not a pipe: what stays in the background would keep it open.
	out, err := os.Create(w.path("output"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(w.path("output"))
		return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-4000):])
	}
	return nil
}
