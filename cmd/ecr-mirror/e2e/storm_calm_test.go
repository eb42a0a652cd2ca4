package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	upstream "github.com/ecr-mirror/ecr-mirror/registry/ecr"
)

const (
	stormPatience = 5 * time.Minute // until everything is right again, on a loaded machine
	freshness     = 3 * time.Second // above tags.ttl: of a loaded machine
)

// calm has all faults end, and looks whether everything is right.
func (s *storm) calm(round int) {
	began := time.Now()
	for _, m := range s.mirrors {
		m.alive()
	}
	source := s.catalog(account, sourceRegion)
	if kills(round) { // each starts with a sweep
		for _, m := range s.mirrors[:2] {
			m.during(func() {
				m.signal(syscall.SIGTERM)
				m.fsck()
				m.start()
			})
		}
	} else {
		for _, m := range s.mirrors[:2] {
			run(s.t, m.env, binary(s.t), "sync", "--config", m.config)
		}
	}
	s.clock.settle()
	for _, m := range s.mirrors[:2] {
		m.converge(source)
	}
	agreed := time.Now()
	time.Sleep(stormTTL)
	s.pullAll("everything up", s.mirrors)
	if round%2 == 0 { // not one after the other: what was away is taken to be for half a minute, unless it is asked
		s.outage("the source is away", [2]string{account, sourceRegion}, s.mirrors)
	} else {
		for _, m := range s.mirrors[:2] {
			s.outage("the destination is away", [2]string{m.account, m.region}, []*subject{m})
		}
	}
	var row []sample
	for _, m := range s.mirrors {
		row = append(row, m.measure())
	}
	s.samples = append(s.samples, row)
	s.t.Logf("round %d: %d images and tags agree after %v, all right after %v; %v; %v", round, len(source), agreed.Sub(began).Round(time.Second), time.Since(began).Round(time.Second), s.model.counts(), row)
}

func (s *storm) outage(what string, at [2]string, of []*subject) {
	r := s.emu.Registry(at[0], at[1])
	r.SetUnreachable(true)
	s.pullAll(what, of)
	r.SetUnreachable(false)
	time.Sleep(time.Second) // it is asked again
}

// pullAll pulls what every tag names through the mirrors: nothing may fail, and nothing be old.
func (s *storm) pullAll(what string, of []*subject) {
	p := newStormClient(s)
	for i, m := range of {
		for pusher := range ciPushers {
			for n, img := range s.ci.alive[pusher] {
				at := part{m, form((n + i) % 3), img.repo}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				ref := img.node.Desc.Digest.String()
				if img.tag != "" && s.model.held(img.repo+":"+img.tag, img.node.Desc.Digest, time.Now(), time.Now()) {
					ref = img.tag
				}
				err := p.pull(ctx, at, ref, time.Now().Add(-stormTTL-freshness))
				cancel()
				if err != nil {
					s.t.Errorf("calm, %s, %s of %s@%s at %s: %v", what, ref, img.repo, img.node.Desc.Digest, m.name, err)
				}
			}
		}
	}
	p.client.CloseIdleConnections()
}

// converge waits until the destination has what the source has, tag for tag, and has lost what was deleted if it is to; until no
// job and no message is left, and no dead letter.
func (m *subject) converge(source map[string]bool) {
	s := m.s
	var wrong []string
	within(s.t, stormPatience, m.name+" agrees with the source", func() bool {
		wrong = m.differences(source)
		return len(wrong) == 0
	}, func() {
		s.t.Errorf("%s: %d differences: %.3000s", m.name, len(wrong), strings.Join(wrong, "\n"))
	})
}

func (m *subject) differences(source map[string]bool) (all []string) {
	s := m.s
	have := s.catalog(m.account, m.region)
	for _, k := range missing(source, have) {
		all = append(all, "lacks "+k)
	}
	var strays []string
	for _, k := range missing(have, source) {
		image := k
		if repo, rest, ok := strings.Cut(k, ":"); ok && !strings.Contains(repo, "@") {
			image = repo + "@" + rest[strings.Index(rest, "@")+1:]
		}
		if m.propagates && !source[image] {
			strays = append(strays, "still has "+k)
		}
	}
	// A push that is heard of again after the deletion brings its image back from the cache: once in a while.
	if len(strays) > 8*(len(s.samples)+1) {
		all = append(all, strays...)
	}
	if n, _ := s.emu.QueueLen(account, sourceRegion, m.queue); n > 0 {
		all = append(all, fmt.Sprint("messages: ", n))
	}
	for _, state := range []string{"pending", "leased", "dead", "conflict"} {
		var page struct{ Images []json.RawMessage }
		if err := json.Unmarshal([]byte(m.get("/status?state="+state)), &page); err != nil {
			all = append(all, err.Error())
		}
		for _, j := range page.Images {
			all = append(all, state+" "+string(j))
		}
	}
	if letters := m.get("/dead-letters"); letters != "" {
		all = append(all, "dead letters "+letters)
	}
	return all
}

func (m *subject) get(path string) string {
	res, err := http.Get("http://" + m.admin + path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }() // read to its end
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Sprint(path, ": ", res.Status, " ", err, " ", string(b))
	}
	return string(b)
}

// fsck reads the cache of a mirror that is stopped.
func (m *subject) fsck() {
	if out, err := exec.Command(binary(m.s.t), "fsck", "--config", m.config).CombinedOutput(); err != nil {
		m.s.t.Errorf("fsck of %s: %v\n%s", m.name, err, out)
	}
}

// catalog returns all images of a registry, as repo@digest, and all tags, as repo:tag@digest.
func (s *storm) catalog(account, region string) map[string]bool {
	all := make(map[string]bool)
	err := s.list(account, region, all)
	for range 3 {
		if err != nil { // the SDK's connections are closed under it now and then on a loaded machine
			err = s.list(account, region, all)
		}
	}
	if err != nil {
		s.t.Errorf("list %s/%s: %v", account, region, err)
	}
	return all
}

func (s *storm) list(account, region string, all map[string]bool) error {
	cfg := s.emu.Config(account, region)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := upstream.New(ctx, upstream.Options{Host: s.emu.Registry(account, region).Host(), Endpoint: s.mirrors[0].server.URL, AWS: &cfg,
		Rates: map[string]float64{"DescribeImages": 1000, "DescribeRepositories": 1000}})
	if err != nil {
		return err
	}
	for repo, err := range r.Repositories(ctx) {
		if err != nil {
			return err
		}
		for img, err := range r.Images(ctx, repo, time.Time{}) {
			if err != nil {
				return err
			}
			all[repo+"@"+img.Descriptor.Digest.String()] = true
			for _, tag := range img.Tags {
				all[repo+":"+tag+"@"+img.Descriptor.Digest.String()] = true
			}
		}
	}
	return nil
}

// end stops everything in order and looks at how it ended.
func (s *storm) end() {
	for _, m := range s.mirrors {
		m.alive()
		m.during(func() { m.signal(syscall.SIGTERM) })
		m.fsck()
		b, err := os.ReadFile(m.logFile())
		if err != nil {
			s.t.Error(err)
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(string(b), bad) {
				s.t.Errorf("%s: %s: see %s", m.name, bad, m.logFile())
			}
		}
		left, err := filepath.Glob(filepath.Join(m.cache, "tmp", "*"))
		if err != nil || len(left) > 0 {
			s.t.Errorf("%s left temporary files: %v %v", m.name, left, err)
		}
	}
	s.trend()
	s.availability()
}

// availability bounds what was refused or cut though no mirror and not the source was away: one in twelve calls upstream fails, an
// answer may take several, and what only the source has is refused when the source fails.
func (s *storm) availability() {
	m := s.model
	m.mu.Lock()
	defer m.mu.Unlock()
	lost := m.results["refused"] + m.results["cut"]
	if all := lost + m.results["ok"]; lost*100 > all*15 {
		s.t.Errorf("%d of %d answers were refused or cut", lost, all)
	}
}
