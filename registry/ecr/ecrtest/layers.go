package ecrtest

import (
	"crypto/hmac"
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	urlLifetime = time.Hour // X-Amz-Expires of ECR's download URLs
	amzTime     = "20060102T150405Z"
)

// downloadURL is GetDownloadUrlForLayer: a presigned URL of the layer host, one per repository. base is where the caller
// reached the emulator.
func (r *Registry) downloadURL(base, name string, d digest.Digest) (string, error) {
	r.mu.Lock()
	p, err := r.repo(name)
	if err != nil {
		r.mu.Unlock()
		return "", err
	}
	_, ok := p.Layers[d]
	held, archived := p.referenced(d)
	referenced := ok && !archived && (r.emu.opt.Quirks.ServeUnreferenced || held)
	r.mu.Unlock()
	if !ok {
		return "", errf("LayersNotFoundException", "Layer with digest '%s' does not exist in the repository with name '%s' in the registry with id '%s'", d, name, r.Account)
	}
	if !referenced {
		return "", errf("LayerInaccessibleException", "Layer with digest '%s' in the repository with name '%s' in the registry with id '%s' is not accessible: no image refers to it", d, name, r.Account)
	}
	u, err := url.Parse(r.emu.layerBase(base))
	if err != nil {
		return "", err
	}
	u.Path = "/layers/" + r.Region + "/" + r.Account + "/" + name + "/" + d.String()
	now := r.emu.now().UTC()
	q := url.Values{
		"X-Amz-Algorithm":     {"AWS4-HMAC-SHA256"},
		"X-Amz-Date":          {now.Format(amzTime)},
		"X-Amz-SignedHeaders": {"host"},
		"X-Amz-Expires":       {itoa(int(urlLifetime.Seconds()))},
		"X-Amz-Credential":    {"ASIAECRTESTLAYERHOST/" + now.Format("20060102") + "/" + r.Region + "/s3/aws4_request"},
	}
	q.Set("X-Amz-Signature", r.emu.signLayer(u.Host, u.Path, q))
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func (e *Emulator) signLayer(host, path string, q url.Values) string {
	return hex.EncodeToString(e.mac("layer", []byte(host+"\n"+path+"\n"+q.Encode())))
}

// Read is one request that the layer host answered with bytes.
type Read struct {
	Repo   string
	Range  string // the request's Range header
	Offset int64  // of the first byte
	Length int64  // bytes that the answer promised
	Sent   int64  // bytes handed to the connection, so far
}

// LayerReads returns what was read of d in r from the layer host, in the order of arrival.
func (r *Registry) LayerReads(d digest.Digest) []Read {
	r.readsMu.Lock()
	defer r.readsMu.Unlock()
	var all []Read
	for _, p := range r.reads[d] {
		all = append(all, Read{p.Repo, p.Range, p.Offset, p.Length, atomic.LoadInt64(&p.Sent)})
	}
	return all
}

// LayerBytes returns how many bytes of all layers the layer host has sent for r.
func (r *Registry) LayerBytes() (n int64) {
	r.readsMu.Lock()
	defer r.readsMu.Unlock()
	for _, reads := range r.reads {
		for _, p := range reads {
			n += atomic.LoadInt64(&p.Sent)
		}
	}
	return n
}

// serveLayer is the layer host: what S3 does with a URL that ECR signed.
func (e *Emulator) serveLayer(w http.ResponseWriter, r *http.Request) {
	f := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/layers/"), "/", 3)
	if len(f) != 3 {
		s3Error(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	slash := strings.LastIndexByte(f[2], '/')
	reg := e.find(f[1], f[0])
	if reg == nil || slash < 0 || digest.Digest(f[2][slash+1:]).Validate() != nil {
		s3Error(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	name, d := f[2][:slash], digest.Digest(f[2][slash+1:])
	c := Call{Region: reg.Region, Account: reg.Account, Op: r.Method + " layer", Target: name + "@" + d.String()}
	fail := func(w http.ResponseWriter, f Fault) {
		if f.Code == "" {
			f.Code = map[int]string{403: "AccessDenied", 503: "SlowDown", 500: "InternalError"}[f.Status]
		}
		s3Error(w, f.Status, f.Code, f.Message)
	}
	reg.serve(w, r, c, fail, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		sig := q.Get("X-Amz-Signature")
		q.Del("X-Amz-Signature")
		at, err := time.Parse(amzTime, q.Get("X-Amz-Date"))
		switch {
		case r.Header.Get("Authorization") != "":
			s3Error(w, http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified")
		case r.Method != http.MethodGet: // the URL is signed for GET
			s3Error(w, http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
		case err != nil || !hmac.Equal([]byte(sig), []byte(e.signLayer(r.Host, r.URL.Path, q))):
			s3Error(w, http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
		case !e.now().Before(at.Add(urlLifetime)):
			s3Error(w, http.StatusForbidden, "AccessDenied", "Request has expired")
		default:
			reg.sendLayer(w, r, name, d)
		}
	})
}

func (r *Registry) sendLayer(w http.ResponseWriter, req *http.Request, name string, d digest.Digest) {
	r.mu.Lock()
	var l layer
	ok := false
	if p := r.repos[name]; p != nil {
		l, ok = p.Layers[d]
	}
	r.mu.Unlock()
	if !ok {
		s3Error(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	body, err := r.emu.content.open(d)
	if err != nil {
		s3Error(w, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	defer body.Close()
	if strings.Contains(req.Header.Get("Range"), ",") { // S3 ignores a Range of several
		req = req.Clone(req.Context())
		req.Header.Del("Range")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+d.Encoded()[:32]+`"`)
	cw := &countingWriter{ResponseWriter: w}
	cw.begin = func(status int) {
		if status != http.StatusOK && status != http.StatusPartialContent {
			return
		}
		cw.read = newRead(name, req.Header.Get("Range"), w.Header())
		r.readsMu.Lock()
		r.reads[d] = append(r.reads[d], cw.read)
		r.readsMu.Unlock()
	}
	http.ServeContent(cw, req, "", l.PushedAt, body)
}

// countingWriter notes an answer's extent when its header is written, and its bytes as they leave. It hides ReadFrom, so that
// bytes are counted before they are sent at once.
type countingWriter struct {
	http.ResponseWriter
	begin func(status int)
	read  *Read
}

func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *countingWriter) WriteHeader(status int) {
	c.begin(status)
	c.ResponseWriter.WriteHeader(status)
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	if c.read != nil {
		atomic.AddInt64(&c.read.Sent, int64(n))
	}
	return n, err
}

func newRead(name, rng string, h http.Header) *Read {
	read := &Read{Repo: name, Range: rng}
	read.Length = atoi64(h.Get("Content-Length"))
	if from, ok := strings.CutPrefix(h.Get("Content-Range"), "bytes "); ok {
		from, _, _ = strings.Cut(from, "-")
		read.Offset = atoi64(from)
	}
	return read
}

// s3Error is an error as S3 writes it.
func s3Error(w http.ResponseWriter, status int, code, message string) {
	b, _ := xml.Marshal(struct { // strings only
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
		ID      string `xml:"RequestId"`
	}{Code: code, Message: message, ID: uuid()})
	writeBody(w, status, "application/xml", append([]byte(xml.Header), b...))
}
