package ecrtest

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Listen says where Start listens. The zero value is a free loopback port for each.
type Listen struct {
	Control    string            // control API and SQS
	Layers     string            // layer host
	LayerName  string            // what layer URLs call it instead of its address: a name of its own, as S3 has, which clients do not send credentials to
	Registries map[string]string // a registry's host name at AWS, as Registry.Host gives it: its own listener, for docker
}

type listening struct {
	running    sync.WaitGroup // listeners and connections
	servers    []*http.Server
	control    string
	layers     string
	layerName  string
	registries map[place]string
}

// Start opens the listeners. Close ends them.
func (e *Emulator) Start(l Listen) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listening != nil {
		return errors.New("emulator: started already")
	}
	ls := &listening{registries: map[place]string{}, layerName: l.LayerName}
	start := func() (err error) {
		if ls.control, err = e.listen(ls, l.Control, e.Handler()); err != nil {
			return err
		}
		if ls.layers, err = e.listen(ls, l.Layers, http.HandlerFunc(e.serveLayer)); err != nil {
			return err
		}
		for host, addr := range l.Registries {
			p, ok := parseHost(host)
			if !ok {
				return fmt.Errorf("registry %q: not the host name of an ECR registry", host)
			}
			if ls.registries[p], err = e.listen(ls, addr, e.v2(p)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := start(); err != nil {
		ls.close()
		return fmt.Errorf("emulator: %w", err)
	}
	e.listening = ls
	return nil
}

func (e *Emulator) listen(ls *listening, addr string, h http.Handler) (string, error) {
	l, err := net.Listen("tcp", cmp.Or(addr, "127.0.0.1:0"))
	if err != nil {
		return "", err
	}
	s := &http.Server{ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, Handler: h,
		ErrorLog: slog.NewLogLogger(e.opt.Log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew: // called by Serve, which is counted itself
				ls.running.Add(1)
			case http.StateClosed, http.StateHijacked:
				ls.running.Done()
			}
		}}
	ls.servers = append(ls.servers, s)
	ls.running.Go(func() { s.Serve(l) }) // ends with the server
	return l.Addr().String(), nil
}

func (ls *listening) close() {
	for _, s := range ls.servers {
		s.Close()
	}
	ls.running.Wait()
}

// Close ends the listeners and every request, and what uploads left behind. State in a directory stays.
func (e *Emulator) Close() error {
	e.close()
	e.mu.Lock()
	ls := e.listening
	e.listening = nil
	var regs []*Registry
	for _, r := range e.registries {
		regs = append(regs, r)
	}
	e.mu.Unlock()
	if ls != nil {
		ls.close()
	}
	e.running.Wait()
	for _, r := range regs {
		r.mu.Lock()
		for id, u := range r.uploads {
			u.mu.Lock()
			u.end()
			u.mu.Unlock()
			delete(r.uploads, id)
		}
		r.mu.Unlock()
	}
	return nil
}

// ControlURL is the base URL of the control API and of SQS; "" before Start.
func (e *Emulator) ControlURL() string { return e.url(func(l *listening) string { return l.control }) }

// LayerURL is the base URL of the layer host; "" before Start.
func (e *Emulator) LayerURL() string {
	return e.url(func(l *listening) string {
		if _, port, err := net.SplitHostPort(l.layers); err == nil && l.layerName != "" {
			return net.JoinHostPort(l.layerName, port)
		}
		return l.layers
	})
}

func (e *Emulator) url(of func(*listening) string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listening == nil {
		return ""
	}
	return "http://" + of(e.listening)
}

// layerBase is the base of presigned URLs for a caller who reached the emulator at base.
func (e *Emulator) layerBase(base string) string {
	return strings.TrimSuffix(cmp.Or(e.opt.LayerURL, e.LayerURL(), base), "/")
}

// RegistryHost returns host:port of a registry's own listener, which speaks plain HTTP; one is opened on a free loopback port
// when there is none yet. Before Start, or when no port can be had, it is the registry's host name at AWS.
func (e *Emulator) RegistryHost(account, region string) string {
	r := e.Registry(account, region)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listening == nil {
		return r.Host()
	}
	if a := e.listening.registries[r.place]; a != "" {
		return a
	}
	a, err := e.listen(e.listening, "", e.v2(r.place))
	if err != nil {
		e.opt.Log.Error("listen", "registry", r.Host(), "err", err)
		return r.Host()
	}
	e.listening.registries[r.place] = a
	return a
}

// Handler answers for everything on one listener: registries by Host, the layer host under /layers/, and the control API,
// EventBridge, SQS and STS for the rest.
func (e *Emulator) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if p, ok := parseHost(host); ok {
			e.v2(p).ServeHTTP(w, r)
			return
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/layers/"):
			e.serveLayer(w, r)
		case strings.HasPrefix(r.Header.Get("X-Amz-Target"), controlTarget):
			e.serveControl(w, r)
		case strings.HasPrefix(r.Header.Get("X-Amz-Target"), eventsTarget):
			e.serveEvents(w, r)
		case r.Method == http.MethodPost:
			e.serveSQS(w, r)
		default:
			http.Error(w, "this is the ECR control API and SQS of an emulator; registries and layers have hosts of their own", http.StatusNotFound)
		}
	})
}

// RegistryHandler answers as one registry's v2 plane, whatever the Host: for a listener of its own.
func (e *Emulator) RegistryHandler(account, region string) http.Handler {
	return e.v2(e.Registry(account, region).place)
}

// hostRE is the pattern by which Amazon's own credential helper knows a registry.
var hostRE = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(?:amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

func parseHost(host string) (place, bool) {
	m := hostRE.FindStringSubmatch(host)
	if m == nil || !regionRE.MatchString(m[2]) {
		return place{}, false
	}
	return place{m[1], m[2]}, true
}

// atoi64 reads a number that is absent or was written by this process.
func atoi64(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
