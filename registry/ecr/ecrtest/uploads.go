package ecrtest

import (
	"bytes"
	"errors"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// uploadLifetime is how long a session lives without an end. ECR documents none; a day is what it cannot exceed by much.
const uploadLifetime = 24 * time.Hour

// upload is a layer upload session, of the control API or the v2 plane.
type upload struct {
	id, repo string
	started  time.Time

	mu      sync.Mutex // held while a part is written
	stage   stage      // nil once the session is over
	hash    hash.Hash
	size    int64
	parts   int
	patches int
	small   bool // a part below the minimum was written: only the last may be
	tooTiny bool // and another followed it
}

// startUpload is InitiateLayerUpload.
func (r *Registry) startUpload(name string) (*upload, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.pushRepo(name); err != nil {
		return nil, err
	}
	for id, u := range r.uploads {
		if r.emu.now().Sub(u.started) > uploadLifetime && u.mu.TryLock() {
			u.end()
			u.mu.Unlock()
			delete(r.uploads, id)
		}
	}
	s, err := r.emu.content.stage()
	if err != nil {
		return nil, err
	}
	u := &upload{id: uuid(), repo: name, started: r.emu.now(), stage: s, hash: digest.SHA256.Hash()}
	r.uploads[u.id] = u
	return u, nil
}

// end drops what was uploaded. The caller holds u.mu.
func (u *upload) end() {
	if u.stage != nil {
		u.stage.abort()
		u.stage = nil
	}
}

// upload returns the session id of repository name, locked.
func (r *Registry) upload(name, id string) (*upload, error) {
	r.mu.Lock()
	_, err := r.repo(name)
	u := r.uploads[id]
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	unknown := errf("UploadNotFoundException", "Upload with id '%s' in the repository with name '%s' in registry with id '%s' was not found", id, name, r.Account)
	if u == nil || u.repo != name || r.emu.now().Sub(u.started) > uploadLifetime {
		return nil, unknown
	}
	u.mu.Lock()
	if u.stage == nil {
		u.mu.Unlock()
		return nil, unknown
	}
	return u, nil
}

// append writes body at first, which must be where the session ends. Bytes that arrive before body breaks stay: a session
// cannot be started again from 0 (GoogleContainerTools/kaniko#607). The caller holds u.mu.
func (u *upload) append(r *Registry, first int64, body io.Reader) error {
	if first != u.size {
		e := errf("InvalidLayerPartException", "First byte of the layer part is %d instead of %d", first, u.size)
		e.Fields = map[string]any{"registryId": r.Account, "repositoryName": u.repo, "uploadId": u.id, "lastValidByteReceived": u.size - 1}
		return e
	}
	n, err := io.Copy(io.MultiWriter(u.stage, u.hash), body)
	u.size += n
	return err
}

// part is UploadLayerPart: bytes first to last, inclusive.
func (r *Registry) part(name, id string, first, last int64, b []byte) (int64, error) {
	u, err := r.upload(name, id)
	if err != nil {
		return 0, err
	}
	defer u.mu.Unlock()
	if last-first+1 != int64(len(b)) || len(b) == 0 {
		return 0, errf("InvalidParameterException", "Invalid parameter at 'LayerPartBlob' failed to satisfy constraint: 'Layer part size does not match the part first byte and part last byte'")
	}
	if limit := r.emu.limit("LayerParts", 4200); u.parts >= limit {
		return 0, errf("LimitExceededException", "The upload with id '%s' already has the maximum number of parts which is %d", id, limit)
	}
	if err := u.append(r, first, bytes.NewReader(b)); err != nil {
		return 0, err
	}
	u.parts++
	u.tooTiny = u.tooTiny || u.small
	u.small = int64(len(b)) < r.emu.opt.PartSize/2
	return u.size - 1, nil
}

// complete is CompleteLayerUpload. A layer that is there already is LayerAlreadyExistsException, which callers take as
// success.
func (r *Registry) complete(name, id string, digests []digest.Digest) (digest.Digest, int64, error) {
	u, err := r.upload(name, id)
	if err != nil {
		return "", 0, err
	}
	defer u.mu.Unlock()
	if u.size == 0 { // devcontainers/cli#814
		return "", 0, errf("EmptyUploadException", "The upload with id '%s' in the repository with name '%s' in registry with id '%s' cannot be completed because it does not have any parts", id, name, r.Account)
	}
	if u.tooTiny {
		return "", 0, errf("LayerPartTooSmallException", "Layer parts must be at least %d bytes in size.", r.emu.opt.PartSize/2)
	}
	d := digest.NewDigest(digest.SHA256, u.hash)
	if len(digests) == 0 || !contains(digests, d) {
		return "", 0, errf("InvalidLayerException", "None of the provided layer digests match the calculated layer digest")
	}
	size := u.size
	stage := u.stage
	u.stage = nil
	err = stage.commit(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.uploads, id)
	p := r.repos[name]
	if err != nil || p == nil {
		return "", 0, errors.Join(err, errf("ServerException", "upload %s: interrupted", id))
	}
	if _, ok := p.Layers[d]; ok {
		return d, size, errf("LayerAlreadyExistsException", "Layer with digest '%s' already exists in the repository with name '%s' in registry with id '%s'", d, name, r.Account)
	}
	p.Layers[d] = layer{size, r.emu.now()}
	return d, size, r.save(p)
}

func contains(ds []digest.Digest, d digest.Digest) bool {
	for _, x := range ds {
		if x == d {
			return true
		}
	}
	return false
}

// mount makes a layer of repository from appear in name, and reports whether it did: the account setting must be on, the two
// encrypted alike, neither filled by a cache rule, and an image of from must refer to the layer (Amazon ECR User Guide, "blob mounting"; aws/containers-roadmap#2860).
func (r *Registry) mount(name, from string, d digest.Digest) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.pushRepo(name)
	if err != nil {
		return false, err
	}
	src := r.repos[from]
	if src == nil || r.Settings["BLOB_MOUNTING"] != "ENABLED" || p.Cache || src.Cache || !p.Encryption.equal(src.Encryption) {
		return false, nil
	}
	if held, archived := src.referenced(d); !held || archived {
		return false, nil
	}
	p.Layers[d] = src.Layers[d]
	return true, r.save(p)
}
