package ecrtest

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// maxManifest is the longest manifest that PutImage takes.
const maxManifest = 4 << 20

// v2Request is an authenticated request of the v2 plane.
type v2Request struct {
	*Registry
	http *http.Request
	who  *principal
	name string // repository
	ref  string // tag, digest or upload id
}

// v2 answers the registry protocol for the registry at p: a front that turns each request into a control operation.
func (e *Emulator) v2(p place) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reg := e.find(p.Account, p.Region)
		if reg == nil {
			http.Error(w, "no such registry", http.StatusNotFound)
			return
		}
		q := &v2Request{Registry: reg, http: r}
		what, do := q.route()
		c := Call{Region: p.Region, Account: p.Account, Op: r.Method + " " + what, Target: q.name}
		switch {
		case q.ref == "" || what == "upload":
			if d := r.URL.Query().Get("digest"); d != "" {
				c.Target += "@" + d
			}
		case strings.Contains(q.ref, ":"):
			c.Target += "@" + q.ref
		default:
			c.Target += ":" + q.ref
		}
		fail := func(w http.ResponseWriter, f Fault) {
			if f.Code == "" {
				f.Code = map[int]string{429: "TOOMANYREQUESTS", 403: "DENIED", 404: "MANIFEST_UNKNOWN"}[f.Status]
				if f.Code == "" {
					f.Code = "UNKNOWN"
				}
			}
			if f.Message == "" && f.Status == http.StatusTooManyRequests {
				f.Message = "Rate exceeded"
			}
			v2Fail(w, r, f.Status, f.Code, f.Message)
		}
		reg.serve(w, r, c, fail, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			if !q.authenticate(w) {
				return
			}
			if do == nil {
				w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE")
				http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
				return
			}
			if err := do(q, w); err != nil {
				a := asAPI(err)
				status, code := v2Error(a)
				if a.Type == "LayerInaccessibleException" && e.opt.Quirks.MissingBlob400 {
					status = http.StatusBadRequest
				}
				e.retryAfter(w, a)
				v2Fail(w, r, status, code, a.Message)
			}
		})
	})
}

// handler answers, or returns an error before it has.
type handler func(q *v2Request, w http.ResponseWriter) error

// route reads the path into q and returns what it names and who answers the method; nil for 405.
func (q *v2Request) route() (string, handler) {
	path, ok := strings.CutPrefix(q.http.URL.Path, "/v2/")
	if !ok && q.http.URL.Path != "/v2" {
		return "path", nil
	}
	if path == "" {
		return "base", func(_ *v2Request, w http.ResponseWriter) error { w.WriteHeader(http.StatusOK); return nil }
	}
	method := q.http.Method
	match := func(sep string) bool {
		i := strings.LastIndex(path, sep)
		if i <= 0 || strings.Contains(path[i+len(sep):], "/") || checkName(path[:i]) != nil {
			return false
		}
		q.name, q.ref = path[:i], path[i+len(sep):]
		return true
	}
	pick := func(handlers map[string]handler) handler { return handlers[method] }
	switch {
	case match("/tags/list") && q.ref == "":
		return "tags", pick(map[string]handler{"GET": (*v2Request).tags})
	case match("/blobs/uploads/") || strings.HasSuffix(path, "/blobs/uploads") && match("/blobs/uploads"):
		if q.ref == "" {
			return "upload", pick(map[string]handler{"POST": (*v2Request).startUpload})
		}
		return "upload", pick(map[string]handler{"PATCH": (*v2Request).patch, "PUT": (*v2Request).finish, "GET": (*v2Request).uploadStatus, "DELETE": (*v2Request).cancel})
	case match("/manifests/") && q.ref != "":
		return "manifest", pick(map[string]handler{"GET": (*v2Request).getManifest, "HEAD": (*v2Request).getManifest, "PUT": (*v2Request).putManifest, "DELETE": (*v2Request).deleteManifest})
	case match("/blobs/") && q.ref != "":
		return "blob", pick(map[string]handler{"GET": (*v2Request).getBlob, "HEAD": (*v2Request).headBlob})
	case match("/referrers/") && q.ref != "":
		return "referrers", pick(map[string]handler{"GET": (*v2Request).listReferrers})
	}
	return "path", nil
}

// authenticate checks the token. Missing or unknown credentials are a 401 with a challenge and plain text; an expired token is
// a 403 in JSON without a challenge (flipt-io/flipt#3043, NVIDIA/enroot#59).
func (q *v2Request) authenticate(w http.ResponseWriter) bool {
	user, pw, ok := q.http.BasicAuth()
	err := errBadToken
	if ok && user == "AWS" {
		q.who, err = q.emu.checkToken(pw, q.Region)
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, errOtherRegion) && q.emu.opt.Quirks.WrongRegion400:
		v2Fail(w, q.http, http.StatusBadRequest, "UNSUPPORTED", "Invalid authorization token")
	case errors.Is(err, errOtherRegion), errors.Is(err, errExpiredToken):
		v2Fail(w, q.http, http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	default:
		w.Header().Set("Www-Authenticate", `Basic realm="`+baseURL(q.http)+`/",service="ecr.amazonaws.com"`)
		writeBody(w, http.StatusUnauthorized, "text/plain; charset=utf-8", []byte("Not Authorized\n"))
	}
	return false
}

// may throttles and permits the control operations that a request stands for.
func (q *v2Request) may(operations ...string) error {
	for _, o := range operations {
		if err := q.throttle(o); err != nil {
			return err
		}
		if err := q.allow(q.who, "ecr:"+o, q.name); err != nil {
			return err
		}
	}
	return nil
}

func v2Fail(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b, _ := json.Marshal(map[string][]one{"errors": {{code, message}}})
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		return
	}
	writeBody(w, status, "application/json", b)
}
