package main

import (
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin/browser"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// browse opens the rig's admin page in a browser that knows nothing, and has the test fail of what that complains of and of hosts
// that it asks besides.
func (r *rig) browse() *browser.Page {
	r.t.Helper()
	p := browser.Start(r.t)
	r.t.Cleanup(func() {
		if bad := p.Problems(); bad != nil {
			r.t.Errorf("the browser complains: %q", bad)
		}
		if hosts := p.Hosts(); len(hosts) != 1 || hosts[0] != r.app.adminAddr.String() {
			r.t.Errorf("asked of %q", hosts)
		}
	})
	p.Open(r.page())
	return p
}

func (r *rig) page() string { return "http://" + r.app.adminAddr.String() + "/" }

// row is true once the row of a table holds all the texts.
func row(table string, texts ...string) string {
	var has []string
	for _, t := range texts {
		has = append(has, `r.innerText.includes("`+t+`")`)
	}
	return `[...document.querySelectorAll("#` + table + ` tbody tr")].some((r) => ` + strings.Join(has, " && ") + `)`
}

// What happens to a mirror between two regions is on its page without a reload: a push, the copy, an outage; and what the page's
// buttons ask for happens to the mirror.
func TestPage(t *testing.T) {
	r := newRig(t, "  tags: {ttl: 0s}\n  events: {sqs: \"$queue\"}\n")
	p := r.browse()
	p.Wait(`document.getElementById("live").innerText.startsWith("live") && document.querySelector("#matrix .empty")`)
	p.Eval("window.kept = true", nil)

	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "PutImage" && c.Region == demoDestinationRegion {
			<-hold
		}
		return ecrtest.Fault{}
	})
	img := registrytest.Image(1, 3<<20)
	must(t, r.source.CreateRepository("app"))
	registrytest.Push(t, r.push, "app", "v1", img)
	p.Wait(row("copies", "app:v1", "eu-central-1", "3.0 MiB of 3.0 MiB", "event"))
	p.Wait(row("matrix", "app:v1", "leased"))
	release()
	p.Wait(row("matrix", "app:v1", "done", img.Desc.Digest.Encoded()[:12], "lag"))
	p.Wait(`document.querySelector("#copies .empty")`)

	r.seed("app", "v2", img)
	r.idle()
	r.kill("app", "v2")
	p.Wait(row("letters", "app:v2", "dead"))
	p.Wait(row("matrix", "app:v2", "dead"))
	var kept bool
	if p.Eval("window.kept", &kept); !kept {
		t.Error("the page was loaded again")
	}
	p.Click("#letters .actions button")
	p.Wait(`document.getElementById("notice")?.innerText.startsWith("Tried again")`)
	p.Wait(row("matrix", "app:v2", "done"))
	p.Wait(`document.querySelector("#letters .empty")`)
	if !r.replicated("app", "v2", img) {
		t.Error("app:v2 is not at the destination")
	}

	must(t, r.pulled("app", "v1"))
	p.Wait(`!document.querySelector("#tiles").innerText.includes("of 0 reads")`)
	r.eventually("a pull in an outage", func() bool {
		r.source.SetUnreachable(true)
		r.destination.SetUnreachable(true)
		return r.status("/v2/app/manifests/v1") == http.StatusOK
	})
	p.Wait(row("health", "us-west-2", "no answer since"))
	p.Type("input[name=repository][required]", "app")
	p.Type("input[name=tag][placeholder]", "v1")
	p.Enter()
	p.Wait(`document.getElementById("notice")?.innerText.startsWith("Purged")`)
	if got := r.status("/v2/app/manifests/v1"); got != http.StatusServiceUnavailable {
		t.Errorf("after the purge: %d", got)
	}
}

// Without scripts the page can be read as it was, and its forms work.
func TestPageWithoutScripts(t *testing.T) {
	r := newRig(t, "")
	img := registrytest.Image(1, 1000)
	r.seed("app", "v1", img)
	r.seed("lib", "v1", img)
	r.kill("app", "v1")
	p := browser.Start(t)
	p.Scripts(false)
	p.Open(r.page())
	p.Wait(row("matrix", "app:v1", "dead"))
	var text string
	if p.Eval("document.body.innerText", &text); !strings.Contains(text, "Reload it to see what is new") || strings.Contains(text, "Pause") {
		t.Errorf("the page says:\n%s", text)
	}
	p.Click("#retry-all")
	p.Wait(`document.getElementById("notice")?.innerText.startsWith("Tried again")`)
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	r.idle()
	p.Open(r.page() + "?repository=l")
	p.Wait(`document.querySelector("#matrix .empty").innerText.includes("is what you ask for")`)
	p.Open(r.page() + "?repository=a&state=done")
	p.Wait(row("matrix", "app:v1", "done"))
	p.Type("input[name=repository][required]", "../app")
	p.Click("section form .danger:not(#letters *)")
	p.Wait(`document.getElementById("problem")?.innerText.includes("repository")`)
	if hosts := p.Hosts(); len(hosts) != 1 || hosts[0] != r.app.adminAddr.String() {
		t.Errorf("asked of %q", hosts)
	}
}

// With adminAuth the page is for reading until somebody logs in.
func TestPageLogin(t *testing.T) {
	r := newRig(t, "adminAuth: {htpasswd: "+htpasswdOf(t, "operator", "secret")+"}\n")
	p := r.browse()
	p.Wait(`document.querySelector("a[href='/login']") && !document.querySelector("form[method=post]")`)
	p.Login(url.UserPassword("operator", "guessed"))
	p.Click(".who a")
	p.Wait(`document.body.innerText.includes("wrong user or password")`)
	refused := p.Problems()
	if len(refused) == 0 || !strings.Contains(refused[0], "401") {
		t.Errorf("a wrong password: %q", refused)
	}
	p.Open(r.page())
	p.Wait(`document.querySelector("a[href='/login']") && !document.querySelector("form[method=post]")`)
	p.Login(url.UserPassword("operator", "secret"))
	p.Click(".who a")
	p.Wait(`document.querySelector(".who")?.innerText.includes("logged in as operator")`)
	p.Type("input[name=repository][required]", "app")
	p.Click("section form .danger:not(#letters *)")
	p.Wait(`document.getElementById("notice")?.innerText.startsWith("Purged")`)
}

// What two pulls of an image cost and saved, at the configured prices, is in /overview.
func TestOverviewOfPulls(t *testing.T) {
	r := newRig(t, "  replication: {onMiss: false}\ncosts: {transferPerGB: 1000, natPerGB: 100, zonePerGB: 10}\n")
	r.seed("app", "v1", registrytest.Image(1, 1<<20))
	must(t, r.pulled("app", "v1"))
	must(t, r.pulled("app", "v1"))
	var v admin.Overview
	r.eventually("both pulls in the figures", func() bool { // which are a few seconds old at most
		res, err := http.Get(r.page() + "overview")
		must(t, err)
		defer res.Body.Close()
		must(t, json.NewDecoder(res.Body).Decode(&v))
		return v.Saving.Crossed > 1<<20 && v.Saving.Served == 2*v.Saving.Crossed
	})
	s := v.Saving
	if want := float64(s.Crossed) / (1 << 30) * (1000 - 100 - 2*10); math.Abs(s.Net-want) > 1e-9 {
		t.Errorf("saved: %+v, want %v net", s, want)
	}
}
