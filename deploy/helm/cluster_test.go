package helm

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// cluster is a kube-apiserver with its etcd. There is no controller and no node.
type cluster struct {
	url    string
	client *http.Client
	env    []string // of helm
}

const adminToken = "tests-only"

func startCluster(t *testing.T) *cluster {
	t.Helper()
	programs.Need(t, "helm", "etcd", "kube-apiserver")
	dir := t.TempDir()
	etcd, peer, api := freeAddr(t), freeAddr(t), freeAddr(t)
	start(t, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--listen-client-urls", "http://"+etcd, "--advertise-client-urls", "http://"+etcd,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	tokens, key := filepath.Join(dir, "tokens"), filepath.Join(dir, "service-accounts.key")
	if err := os.WriteFile(tokens, []byte(adminToken+",admin,admin,system:masters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeKey(t, key)
	_, port, err := net.SplitHostPort(api)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "kube-apiserver", "--etcd-servers", "http://"+etcd, "--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", dir,
		"--service-account-issuer", "https://kubernetes.example.com", "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--service-cluster-ip-range", "10.0.0.0/24", "--advertise-address", "192.0.2.1", "--endpoint-reconciler-type", "none", // nobody is to find it
		"--authorization-mode", "RBAC", "--token-auth-file", tokens)
	c := &cluster{url: "https://" + api}
	eventually(t, "kube-apiserver is ready", p, func() bool {
		if c.client == nil {
			pem, err := os.ReadFile(filepath.Join(dir, "apiserver.crt"))
			roots := x509.NewCertPool()
			if err != nil || !roots.AppendCertsFromPEM(pem) {
				return false
			}
			tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
			t.Cleanup(tr.CloseIdleConnections)
			c.client = &http.Client{Transport: tr, Timeout: 30 * time.Second}
		}
		status, _, err := c.do(http.MethodGet, "/readyz", nil)
		return err == nil && status == http.StatusOK
	})
	config := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"+
		"clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]\nusers: [{name: u, user: {token: %q}}]\n", c.url, filepath.Join(dir, "apiserver.crt"), adminToken)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.env = []string{"KUBECONFIG=" + config, "HELM_CACHE_HOME=" + dir, "HELM_CONFIG_HOME=" + dir, "HELM_DATA_HOME=" + dir}
	return c
}

// do makes a request of the API.
func (c *cluster) do(method, path string, body any) (status int, answer []byte, err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// namespace makes one of a Pod Security Standard.
func (c *cluster) namespace(t *testing.T, name, standard string) {
	t.Helper()
	c.create(t, "/api/v1/namespaces", object{"apiVersion": "v1", "kind": "Namespace",
		"metadata": object{"name": name, "labels": object{"pod-security.kubernetes.io/enforce": standard}}})
	c.account(t, name, "default") // which a controller makes elsewhere
}

func (c *cluster) create(t *testing.T, path string, o object) {
	t.Helper()
	if status, answer, err := c.do(http.MethodPost, path+"?fieldValidation=Strict", o); err != nil || status != http.StatusCreated {
		t.Fatalf("create %s: %v, %d\n%s", o.name(), err, status, answer)
	}
}

// path is where an object of a namespace is.
func path(namespace string, o object) string {
	root := "/apis/" + o.text("apiVersion")
	if o.text("apiVersion") == "v1" {
		root = "/api/v1"
	}
	kind := strings.ToLower(o.text("kind"))
	if strings.HasSuffix(kind, "y") {
		kind = strings.TrimSuffix(kind, "y") + "ie"
	}
	return root + "/namespaces/" + namespace + "/" + kind + "s/" + o.text("metadata", "name")
}

// there reports whether the object is there and is to stay.
func (c *cluster) there(t *testing.T, namespace string, o object) bool {
	t.Helper()
	status, answer, err := c.do(http.MethodGet, path(namespace, o), nil)
	if err != nil || status != http.StatusOK && status != http.StatusNotFound {
		t.Fatalf("%s: %v, %d\n%s", o.name(), err, status, answer)
	}
	var got object
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	// A claim waits for a controller that sees that no pod uses it.
	return status == http.StatusOK && got.at("metadata", "deletionTimestamp") == nil
}

// admit asks whether a pod of the workload would be let in, and returns why not.
func (c *cluster) admit(t *testing.T, namespace string, workload object) (refusal string) {
	t.Helper()
	template := workload.template()
	meta := object{"name": "pod", "labels": template.at("metadata", "labels"), "annotations": template.at("metadata", "annotations")}
	spec := object{"restartPolicy": "Always"}
	for key, value := range template.child("spec") {
		spec[key] = value
	}
	volumes := template.list("spec", "volumes")
	for _, claim := range workload.list("spec", "volumeClaimTemplates") {
		name := claim.text("metadata", "name")
		volumes = append(volumes, object{"name": name, "persistentVolumeClaim": object{"claimName": name + "-pod"}})
	}
	spec["volumes"] = volumes
	status, answer, err := c.do(http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All&fieldValidation=Strict", object{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	if status == http.StatusCreated {
		return ""
	}
	return fmt.Sprintf("%d %s", status, answer)
}

// Every case is installed, upgraded and uninstalled for real, and its pods are let in where the guide says that they are: those of a
// deployment under the strictest of the Pod Security Standards.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	crds := monitoringCRDs(t)
	for _, crd := range crds {
		c.create(t, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
	}
	for _, crd := range crds {
		eventually(t, crd.name()+" is served", nil, func() bool {
			status, _, err := c.do(http.MethodGet, "/apis/monitoring.coreos.com/v1/"+crd.text("spec", "names", "plural"), nil)
			return err == nil && status == http.StatusOK
		})
	}
	t.Run("cases", func(t *testing.T) { // ends before the cluster does
		for name, values := range cases(t) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c.lifecycle(t, name, values)
			})
		}
	})
}

func (c *cluster) lifecycle(t *testing.T, name, values string) {
	t.Helper()
	all := render(t, "--values", values)
	restricted := name + "-restricted"
	c.namespace(t, name, "privileged")
	c.namespace(t, restricted, "restricted")
	helm := func(args ...string) {
		t.Helper()
		run(t, c.env, "helm", append(args, "--namespace", name)...)
	}
	helm("install", "mirror", chart, "--values", values)
	for _, o := range all {
		if !c.there(t, name, o) {
			t.Errorf("%s is not there", o.name())
		}
		if o.template() == nil {
			continue
		}
		for _, namespace := range []string{name, restricted} {
			if account := o.template().text("spec", "serviceAccountName"); account != "" && (namespace == restricted || account == "shared") {
				c.account(t, namespace, account)
			}
		}
		if refusal := c.admit(t, name, o); refusal != "" {
			t.Errorf("%s: %s", o.name(), refusal)
		}
		// What is on the nodes' network or writes to their disk is refused.
		if refusal := c.admit(t, restricted, o); (o.text("kind") == "DaemonSet") != strings.Contains(refusal, "violates PodSecurity") || o.text("kind") != "DaemonSet" && refusal != "" {
			t.Errorf("%s, restricted: %s", o.name(), refusal)
		}
	}
	helm("upgrade", "mirror", chart, "--values", values, "--set", "config.log.level=debug")
	if i := slices.IndexFunc(all, func(o object) bool { return o.text("kind") == "ConfigMap" }); i < 0 {
		t.Log("no configuration to change")
	} else if _, answer, err := c.do(http.MethodGet, path(name, all[i]), nil); err != nil || !bytes.Contains(answer, []byte("level: debug")) {
		t.Errorf("after the upgrade: %v\n%s", err, answer)
	}
	helm("uninstall", "mirror")
	for _, o := range all {
		if c.there(t, name, o) {
			t.Errorf("%s is still there", o.name())
		}
	}
}

// account makes a service account, unless it is there.
func (c *cluster) account(t *testing.T, namespace, name string) {
	t.Helper()
	o := object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": name}}
	if !c.there(t, namespace, o) {
		c.create(t, "/api/v1/namespaces/"+namespace+"/serviceaccounts", o)
	}
}

// monitoringCRDs are those of the Prometheus operator that the chart makes objects of.
func monitoringCRDs(t *testing.T) (all []object) {
	t.Helper()
	path, err := exec.LookPath("kube-apiserver")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"podmonitors", "prometheusrules", "servicemonitors"} {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "crds", "monitoring.coreos.com_"+name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parse(t, string(text))...)
	}
	return all
}
