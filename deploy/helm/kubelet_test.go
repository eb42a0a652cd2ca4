package helm

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// pod runs the one container of a pod template by runc, on the host's network, as its specification says: the binary alone on a
// read-only root, its user and groups, no capability, no new privileges, and its volumes.
type pod struct {
	*process
	spec      object
	container object
	volumes   map[string]string // directories of this host, by name
	env       []string          // of its identity
}

// node makes volumes. Directories of the node are below root.
type node struct {
	root    string
	objects []object // ConfigMaps
	secrets map[string]map[string]string
	// identities are what EKS gives the pods of a service account, as environment.
	identities map[string][]string
}

func (n node) run(t *testing.T, workload object) *pod {
	t.Helper()
	programs.Need(t, "root", "runc")
	spec := workload.template().child("spec")
	p := &pod{spec: spec, container: spec.list("containers")[0], volumes: make(map[string]string), env: n.identities[spec.text("serviceAccountName")]}
	group := spec.at("securityContext", "fsGroup")
	for _, v := range append(spec.list("volumes"), workload.list("spec", "volumeClaimTemplates")...) {
		name := v.text("name") + v.text("metadata", "name")
		dir := filepath.Join(t.TempDir(), name)
		if host := v.text("hostPath", "path"); host != "" {
			dir = filepath.Join(n.root, host)
		}
		mode := fs.FileMode(0o755)
		if group != nil && v.at("hostPath") == nil {
			mode = 0o2775 // as kubelet makes a volume the group's
		}
		p.volumes[name] = dir
		content := n.secrets[v.text("secret", "secretName")]
		for file, text := range n.config(v.text("configMap", "name")) {
			if content == nil {
				content = make(map[string]string)
			}
			content[file] = text
		}
		if err := fill(dir, mode, content, group); err != nil {
			t.Fatal(err)
		}
	}
	bundle := t.TempDir()
	if err := os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p.runtimeSpec(t))
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)
	}
	if err == nil {
		err = os.Link(binary(t), filepath.Join(bundle, "rootfs", "ecr-mirror"))
	}
	if err != nil {
		t.Fatal(err)
	}
	id := "ecr-mirror-" + strings.ReplaceAll(filepath.Base(filepath.Dir(bundle))+filepath.Base(bundle), "/", "-")
	state := t.TempDir()
	t.Cleanup(func() { _ = exec.Command("runc", "--root", state, "delete", "--force", id).Run() }) // it is gone if the test did not fail
	p.process = start(t, "runc", "--root", state, "run", "--bundle", bundle, id)
	return p
}

// config is the content of a ConfigMap.
func (n node) config(name string) map[string]string {
	all := make(map[string]string)
	for _, o := range n.objects {
		if o.text("kind") == "ConfigMap" && o.text("metadata", "name") == name {
			for file, text := range o.child("data") {
				all[file] = text.(string)
			}
		}
	}
	return all
}

// fill makes a directory of root's, and of the group's if there is one.
func fill(dir string, mode fs.FileMode, content map[string]string, group any) error {
	gid := 0
	if group != nil {
		gid = group.(int)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if mode&0o2000 != 0 {
		if err := os.Chown(dir, 0, gid); err != nil {
			return err
		}
		if err := os.Chmod(dir, fs.ModeSetgid|0o775); err != nil {
			return err
		}
	}
	for file, text := range content {
		name := filepath.Join(dir, file)
		if err := os.WriteFile(name, []byte(text), 0o440); err != nil {
			return err
		}
		if err := os.Chown(name, 0, gid); err != nil {
			return err
		}
	}
	return nil
}

// runtimeSpec is the container for an OCI runtime (runtime-spec, config.md).
func (p *pod) runtimeSpec(t *testing.T) object {
	t.Helper()
	security := object{}
	for _, o := range []object{p.spec.child("securityContext"), p.container.child("securityContext")} {
		for key, value := range o {
			security[key] = value
		}
	}
	if security["readOnlyRootFilesystem"] != true || security["allowPrivilegeEscalation"] != false || fmt.Sprint(security.at("capabilities", "drop")) != "[ALL]" ||
		security.text("seccompProfile", "type") != "RuntimeDefault" || p.spec["automountServiceAccountToken"] != false {
		t.Errorf("security context: %v", security)
	}
	user := object{"uid": security["runAsUser"], "gid": security["runAsGroup"]}
	if group := security["fsGroup"]; group != nil {
		user["additionalGids"] = []any{group}
	}
	env := append([]string{}, p.env...)
	for _, e := range p.container.list("env") {
		env = append(env, e.text("name")+"="+e.text("value"))
	}
	mounts := []object{{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}}
	for _, m := range p.container.list("volumeMounts") {
		options := []string{"rbind", "rw"}
		if m["readOnly"] == true {
			options = []string{"rbind", "ro"}
		}
		mounts = append(mounts, object{"destination": m.text("mountPath"), "type": "bind", "source": p.volumes[m.text("name")], "options": options})
	}
	none := []string{}
	return object{
		"ociVersion": "1.0.2",
		"process": object{"user": user, "args": append([]string{"/ecr-mirror"}, p.container.strings("args")...), "env": env, "cwd": "/", "noNewPrivileges": true,
			"capabilities": object{"bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none}},
		"root":   object{"path": "rootfs", "readonly": true},
		"mounts": mounts,
		"linux":  object{"namespaces": []object{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}},
	}
}

// port is the number of one of the container's ports.
func (p *pod) port(name string) int {
	for _, c := range p.container.list("ports") {
		if c.text("name") == name {
			return c["containerPort"].(int)
		}
	}
	return 0
}

// passes reports whether a probe of the container's succeeds now. The pod's address is this host's loopback.
func (p *pod) passes(t *testing.T, probe string) bool {
	t.Helper()
	get := p.container.child(probe, "httpGet")
	if get == nil {
		t.Fatalf("no %s", probe)
	}
	host := get.text("host")
	if host == "" {
		host = "127.0.0.1"
	}
	res, err := http.Get(fmt.Sprintf("http://%s:%d%s", host, p.port(get.text("port")), get.text("path")))
	if err != nil {
		return false
	}
	_ = res.Body.Close() // only the status counts
	return res.StatusCode == http.StatusOK
}
