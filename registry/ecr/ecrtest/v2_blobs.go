package ecrtest

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// getBlob redirects to the layer host; a Range is the layer host's to honour.
func (q *v2Request) getBlob(w http.ResponseWriter) error {
	if err := q.may("GetDownloadUrlForLayer"); err != nil {
		return err
	}
	u, err := q.downloadURL(baseURL(q.http), q.name, digest.Digest(q.ref))
	if err != nil {
		return err
	}
	w.Header().Set("Location", u)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// headBlob is BatchCheckLayerAvailability, which pull-only credentials may not do.
func (q *v2Request) headBlob(w http.ResponseWriter) error {
	if err := q.may("BatchCheckLayerAvailability"); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p, err := q.repo(q.name)
	if err != nil {
		return err
	}
	l, ok := p.Layers[digest.Digest(q.ref)]
	if _, archived := p.referenced(digest.Digest(q.ref)); !ok || archived {
		return errf("LayersNotFoundException", "")
	}
	w.Header().Set("Docker-Content-Digest", q.ref)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(l.Size, 10))
	w.WriteHeader(http.StatusOK)
	return nil
}

// startUpload answers 202 with the session's one absolute URL, on the host that the client used; or 201 for a mount. A digest
// parameter with a body is not taken as a whole upload.
func (q *v2Request) startUpload(w http.ResponseWriter) error {
	if err := q.createOnPush(); err != nil {
		return err
	}
	if err := q.may("InitiateLayerUpload"); err != nil {
		return err
	}
	query := q.http.URL.Query()
	if d, from := digest.Digest(query.Get("mount")), query.Get("from"); d.Validate() == nil && checkName(from) == nil {
		if q.allow(q.who, "ecr:GetDownloadUrlForLayer", from) == nil {
			ok, err := q.mount(q.name, from, d)
			if err != nil {
				return q.missing(err)
			}
			if ok {
				q.created(w, d)
				return nil
			}
		}
	}
	u, err := q.Registry.startUpload(q.name)
	if err != nil {
		return q.missing(err)
	}
	if query.Has("digest") && q.emu.opt.Quirks.SinglePost {
		q.ref = u.id
		return q.finish(w)
	}
	w.Header().Set("Location", q.location(u.id))
	w.Header().Set("Docker-Upload-Uuid", u.id)
	w.Header().Set("Range", "0-0")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// createOnPush creates the repository where a template says so, before anything asks whether the caller may push: who can log in
// can make an empty repository appear (aws/containers-roadmap#853).
func (q *v2Request) createOnPush() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.template(q.name, forPush) == nil {
		return nil
	}
	_, err := q.pushRepo(q.name)
	return err
}

// missing hangs up instead of answering, where that quirk is on.
func (q *v2Request) missing(err error) error {
	if q.emu.opt.Quirks.HangUpOnMissing && asAPI(err).Type == "RepositoryNotFoundException" {
		panic(http.ErrAbortHandler)
	}
	return err
}

func (q *v2Request) location(id string) string {
	return baseURL(q.http) + "/v2/" + q.name + "/blobs/uploads/" + id
}

func (q *v2Request) created(w http.ResponseWriter, d digest.Digest) {
	w.Header().Set("Location", baseURL(q.http)+"/v2/"+q.name+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
}

// take appends the request's body to the session. Without a Content-Range it goes where the session ends.
func (q *v2Request) take() (*upload, error) {
	u, err := q.upload(q.name, q.ref)
	if err != nil {
		return nil, err
	}
	defer u.mu.Unlock()
	first := u.size
	if cr := q.http.Header.Get("Content-Range"); cr != "" {
		start, _, _ := strings.Cut(strings.TrimPrefix(cr, "bytes "), "-")
		if first, err = strconv.ParseInt(start, 10, 64); err != nil {
			return nil, invalidParameter("partFirstByte", "must be a number")
		}
	}
	for more := true; more; first = u.size { // one UploadLayerPart each
		before := u.size
		if err := u.append(q.Registry, first, io.LimitReader(q.http.Body, q.emu.opt.PartSize)); err != nil {
			return nil, err
		}
		if u.size > before {
			u.parts++
		}
		if more = u.size-before == q.emu.opt.PartSize; more {
			if err := q.throttle("UploadLayerPart"); err != nil {
				return nil, err
			}
		}
	}
	return u, nil
}

// patch answers 201, with a Range that sticks at the first part (aws/containers-roadmap#2831).
func (q *v2Request) patch(w http.ResponseWriter) error {
	if err := q.may("UploadLayerPart"); err != nil {
		return err
	}
	u, err := q.take()
	if err != nil {
		return err
	}
	u.mu.Lock()
	end := min(u.size, q.emu.opt.PartSize) - 1
	u.patches++
	u.mu.Unlock()
	w.Header().Set("Location", q.location(q.ref))
	w.Header().Set("Docker-Upload-Uuid", q.ref)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(end, 0)))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// finish is the PUT that ends a session, with the last bytes or none.
func (q *v2Request) finish(w http.ResponseWriter) error {
	if err := q.may("CompleteLayerUpload"); err != nil {
		return err
	}
	d := digest.Digest(q.http.URL.Query().Get("digest"))
	if d.Validate() != nil {
		return invalidParameter("layerDigests", "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	u, err := q.take()
	if err != nil {
		return err
	}
	u.mu.Lock()
	patches := u.patches
	u.mu.Unlock()
	if q.emu.opt.Quirks.EmptyFinalPutFails && patches > 1 && q.http.ContentLength == 0 {
		return errf("ServerException", "")
	}
	if _, _, err := q.complete(q.name, q.ref, []digest.Digest{d}); err != nil && asAPI(err).Type != "LayerAlreadyExistsException" {
		return err
	}
	q.created(w, d)
	return nil
}

// uploadStatus is 404: ECR does not resume sessions (dotnet/sdk#33019).
func (q *v2Request) uploadStatus(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNotFound)
	return nil
}

// cancel ends a session.
func (q *v2Request) cancel(w http.ResponseWriter) error {
	if q.emu.opt.Quirks.UploadDeleteFails {
		return errf("UnsupportedOperation", "the deletion of an upload")
	}
	u, err := q.upload(q.name, q.ref)
	if err != nil {
		return err
	}
	u.end()
	u.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	return nil
}
