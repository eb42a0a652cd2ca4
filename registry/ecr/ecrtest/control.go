package ecrtest

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	controlTarget = "AmazonEC2ContainerRegistry_V20150921."
	controlType   = "application/x-amz-json-1.1"
	maxControl    = 32 << 20 // a part of 20 MiB in base64 is the largest request of the model
)

// call is an authenticated control request.
type call struct {
	*Registry
	who  *principal
	base string // scheme and host that the caller used
}

// operation decodes its input, and answers with a value to encode or an *apiError.
type operation struct {
	input func() any // a pointer to what the input is decoded into, apart from target
	do    func(c call, input []byte) (any, error)
}

func op[In any](f func(c call, in In) (any, error)) operation {
	return operation{func() any { return new(In) }, func(c call, input []byte) (any, error) {
		var in In
		if err := json.Unmarshal(input, &in); err != nil {
			return nil, errf("SerializationException", "%v", err)
		}
		return f(c, in)
	}}
}

// target is what a request says of its object: enough of every input for the call log and the permission check.
type target struct {
	RegistryID     string    `json:"registryId"`
	RepositoryName string    `json:"repositoryName"`
	RepositoryList []string  `json:"repositoryNames"`
	ResourceARN    string    `json:"resourceArn"`
	ImageTag       string    `json:"imageTag"`
	ImageIDs       []imageID `json:"imageIds"`
	ImageID        *imageID  `json:"imageId"`
	SubjectID      *imageID  `json:"subjectId"`
	LayerDigest    string    `json:"layerDigest"`
	LayerDigests   []string  `json:"layerDigests"`
}

func (t target) String() string {
	s := t.RepositoryName
	switch {
	case len(t.RepositoryList) > 0:
		s = strings.Join(t.RepositoryList, ",")
	case t.ImageTag != "":
		s += ":" + t.ImageTag
	case t.ImageID != nil:
		s += t.ImageID.String()
	case t.SubjectID != nil:
		s += t.SubjectID.String()
	case len(t.ImageIDs) > 0:
		for _, id := range t.ImageIDs {
			s += id.String()
		}
	case t.LayerDigest != "":
		s += "@" + t.LayerDigest
	case len(t.LayerDigests) > 0:
		s += "@" + strings.Join(t.LayerDigests, "@")
	}
	return s
}

// serveControl answers the control API: POST / with X-Amz-Target.
func (e *Emulator) serveControl(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), controlTarget)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControl))
	if err != nil {
		writeControl(w, http.StatusBadRequest, errf("SerializationException", "read request: %v", err))
		return
	}
	sig, err := e.verify(r, body)
	if err == nil && sig.Service != "ecr" {
		err = errf("InvalidSignatureException", "Credential should be scoped to correct service: 'ecr'.")
	}
	if err != nil {
		writeControl(w, http.StatusBadRequest, asAPI(err))
		return
	}
	var t target
	json.Unmarshal(body, &t) // a member of the wrong type is the operation's to report
	if p := strings.SplitN(t.ResourceARN, ":", 6); len(p) == 6 {
		t.RegistryID, t.RepositoryName = p[4], strings.TrimPrefix(p[5], "repository/")
	}
	account := t.RegistryID
	if account == "" {
		account = sig.Account
	}
	do := operations()[name].do
	reg := e.find(account, sig.Region)
	switch {
	case do == nil:
		writeControl(w, http.StatusBadRequest, errf("UnknownOperationException", "no operation %q", name))
		return
	case reg == nil:
		writeControl(w, http.StatusBadRequest, invalidParameter("registryId", "must be an existing account"))
		return
	}
	c := Call{Region: sig.Region, Account: account, Caller: sig.Account, Op: name, Target: t.String()}
	fail := func(w http.ResponseWriter, f Fault) {
		a := &apiError{Type: f.Code, Message: f.Message}
		if a.Type == "" {
			a.Type = http.StatusText(f.Status)
			switch {
			case f.Status == http.StatusTooManyRequests:
				a.Type, a.Message = "ThrottlingException", "Rate exceeded"
			case f.Status >= 500:
				a.Type = "ServerException"
			}
		}
		writeControl(w, f.Status, a)
	}
	reg.serve(w, r, c, fail, func(w http.ResponseWriter, r *http.Request) {
		out, err := reg.control(sig.principal, name, t, baseURL(r), body, do)
		if err != nil {
			a := asAPI(err)
			status := http.StatusBadRequest
			if a.Type == "ServerException" {
				status = http.StatusInternalServerError
			}
			e.retryAfter(w, a)
			writeControl(w, status, a)
			return
		}
		b, err := json.Marshal(out)
		if err != nil {
			writeControl(w, http.StatusInternalServerError, errf("ServerException", "%v", err))
			return
		}
		w.Header().Set("X-Amzn-Requestid", uuid())
		writeBody(w, http.StatusOK, controlType, b)
	})
}

// control runs one operation: throttle, permission, effect.
func (r *Registry) control(who *principal, name string, t target, base string, body []byte, do func(call, []byte) (any, error)) (any, error) {
	if err := r.throttle(name); err != nil {
		return nil, err
	}
	action := name
	if name == "ListImageReferrers" { // authorized by this action: Amazon ECR User Guide
		action = "BatchGetImage"
	}
	if err := r.allow(who, "ecr:"+action, t.RepositoryName); err != nil {
		return nil, err
	}
	return do(call{r, who, base}, body)
}

// serve is Emulator.serve for a registry that can be down.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request, c Call, fail func(http.ResponseWriter, Fault), h http.HandlerFunc) {
	if r.unreachable.Load() || r.down.Load() {
		r.emu.record(c)
		if r.unreachable.Load() {
			panic(http.ErrAbortHandler)
		}
		fail(w, Fault{Status: http.StatusServiceUnavailable})
		return
	}
	r.emu.serve(w, req, c, fail, h)
}

// throttle takes one token from an operation's bucket, which holds one second's worth.
func (r *Registry) throttle(name string) error {
	perSecond := r.emu.opt.Rates[name]
	if perSecond == 0 {
		return nil
	}
	r.mu.Lock()
	l := r.limits[name]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))
		r.limits[name] = l
	}
	r.mu.Unlock()
	if !l.AllowN(r.emu.now(), 1) {
		return errf("ThrottlingException", "Rate exceeded")
	}
	return nil
}

// retryAfter says when to come back, where that quirk is on.
func (e *Emulator) retryAfter(w http.ResponseWriter, a *apiError) {
	if s := e.opt.Quirks.RetryAfter; s > 0 && a.Type == "ThrottlingException" {
		w.Header().Set("Retry-After", itoa(s))
	}
}

func writeControl(w http.ResponseWriter, status int, a *apiError) {
	m := map[string]any{"__type": a.Type, "message": a.Message}
	for k, v := range a.Fields {
		m[k] = v
	}
	b, _ := json.Marshal(m) // strings and numbers
	w.Header().Set("X-Amzn-Requestid", uuid())
	writeBody(w, status, controlType, b)
}

// epoch is a time as the JSON protocols write it: seconds since 1970 with a fraction.
type epoch time.Time

func (t epoch) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Time(t).UnixMilli())/1000, 'f', 3, 64), nil
}

// UnmarshalJSON reads what MarshalJSON wrote: state on disk has the form of the wire.
func (t *epoch) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	*t = epoch(time.UnixMilli(int64(math.Round(seconds * 1000))))
	return err
}

func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
