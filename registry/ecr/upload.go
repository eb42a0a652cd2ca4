package ecr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// PutBlob implements registry.Writer: InitiateLayerUpload, UploadLayerPart in order, CompleteLayerUpload. The body is read
// once and verified on the way, so that wrong bytes never become a layer. A part that failed is sent again at most twice, for
// only this method still has its bytes; if that does not help, the next PutBlob of the same blob within the hour goes on where
// this one stopped. One part (10 MiB) is held in memory, and the SDK's encoding of it.
func (r *Registry) PutBlob(ctx context.Context, repo string, d registry.Descriptor, body io.Reader) error {
	if err := r.putBlob(ctx, repo, d, body); err != nil {
		return fmt.Errorf("put blob %.256s@%.200s: %w", repo, d.Digest, err)
	}
	return nil
}

func (r *Registry) putBlob(ctx context.Context, repo string, d registry.Descriptor, body io.Reader) error {
	if err := checkObject(registry.Object{Repo: repo, Digest: d.Digest}); err != nil {
		return err
	}
	if d.Size <= 0 { // radius #7855, devcontainers/cli #814: "cannot be completed because it does not have any parts"
		e := registry.Errorf(registry.Invalid, "ECR cannot store a blob of %d bytes (EmptyUploadException)", d.Size)
		e.Code = codeBlobUploadInvalid
		return e
	}
	o := registry.Object{Repo: repo, Digest: d.Digest}
	u, resumed := r.uploads.take(o, time.Now())
	if !resumed {
		out, err := call(ctx, r, initiateUpload, r.api.InitiateLayerUpload, &ecr.InitiateLayerUploadInput{RegistryId: r.id(), RepositoryName: &repo})
		if err != nil {
			return err
		}
		u = upload{id: aws.ToString(out.UploadId), size: partSize(aws.ToInt64(out.PartSize))}
	}
	u.r, u.repo, u.digest, u.resumed = r, repo, d.Digest, resumed
	err := u.send(ctx, d, body)
	if c := registry.ClassOf(err); err != nil && (c == registry.Unavailable || c == registry.Throttled) && !u.lost {
		r.uploads.keep(o, u, time.Now())
	}
	return err
}

// send sends what of body is not there yet, and completes the upload.
func (u *upload) send(ctx context.Context, d registry.Descriptor, body io.Reader) error {
	buf, done := u.r.partBuffer(min(u.size, d.Size))
	defer done()
	v := registry.Verify(body, d.Digest, d.Size)
	if _, err := io.CopyBuffer(io.Discard, io.LimitReader(v, u.first), buf); err != nil {
		return err
	}
	for {
		n, err := io.ReadFull(v, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if err != nil && u.first+int64(n) < d.Size { // body's own word for a cut; a verified end is never early
			return &registry.Error{Class: registry.Unavailable, Err: err}
		}
		if n > 0 {
			if err := u.part(ctx, u.first, buf[:n]); err != nil {
				return err
			}
			u.first += int64(n)
		}
		if err != nil { // the verified end
			return u.complete(ctx)
		}
	}
}

// partSize is what ECR asks for, within what it and the memory here can take.
func partSize(said int64) int64 {
	if said <= 0 {
		return defaultPartSize
	}
	return min(said, maxPartSize)
}

// keptBuffer is the size in bytes from which a buffer is worth keeping.
const keptBuffer = 1 << 20

// partBuffer lends n bytes until done.
func (r *Registry) partBuffer(n int64) (buf []byte, done func()) {
	if n < keptBuffer {
		return make([]byte, n), func() {}
	}
	p, _ := r.parts.Get().(*[]byte)
	if p == nil || int64(cap(*p)) < n {
		b := make([]byte, n)
		p = &b
	}
	return (*p)[:n], func() { r.parts.Put(p) }
}

type upload struct {
	r        *Registry
	repo, id string
	digest   digest.Digest
	size     int64 // of a part
	first    int64 // byte that is not there yet
	resumed  bool  // another PutBlob began it
	lost     bool  // ECR does not know it, or has other bytes of it: it is of no more use
}

// attempts of a part or of the completion, the first included.
const attempts = 3

// again reports whether a failed call is worth another attempt, after a growing, jittered delay.
func again(ctx context.Context, attempt int, err error) bool {
	c := registry.ClassOf(err)
	if attempt+1 >= attempts || c != registry.Unavailable && c != registry.Throttled || exception(err) == "UploadNotFoundException" {
		return false
	}
	d := 200 * time.Millisecond << (2 * attempt)
	d = d/2 + rand.N(d)
	var e *registry.Error
	if errors.As(err, &e) && e.RetryAfter > d {
		d = min(e.RetryAfter, 10*time.Second)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// part sends the bytes at first. An attempt that failed may have arrived: the next one is then refused with the last byte
// that ECR has, which tells whether to go on or to send the part again.
func (u *upload) part(ctx context.Context, first int64, b []byte) error {
	last := first + int64(len(b)) - 1
	for attempt := 0; ; attempt++ {
		out, err := call(ctx, u.r, uploadPart, u.r.api.UploadLayerPart, &ecr.UploadLayerPartInput{RegistryId: u.r.id(),
			RepositoryName: &u.repo, UploadId: &u.id, PartFirstByte: &first, PartLastByte: &last, LayerPartBlob: b})
		if err == nil {
			if got := out.LastByteReceived; got != nil && *got != last {
				u.lost = true
				return registry.Errorf(registry.Unavailable, "%s: it has %d bytes, %d were sent", uploadPart, *got+1, last+1)
			}
			return nil
		}
		var refused *types.InvalidLayerPartException
		if errors.As(err, &refused) && refused.LastValidByteReceived != nil {
			if (attempt > 0 || u.resumed) && *refused.LastValidByteReceived == last {
				return nil
			}
			u.lost = true
			// Out of step: only a new upload helps, and that may well succeed.
			return &registry.Error{Class: registry.Unavailable, Code: codeBlobUploadInvalid, Err: err}
		}
		if !again(ctx, attempt, err) {
			u.lost = exception(err) == "UploadNotFoundException"
			return err
		}
	}
}

// complete ends the upload. A completion that failed may have happened: the layer is then there, or its upload is not.
func (u *upload) complete(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		_, err := call(ctx, u.r, completeUpload, u.r.api.CompleteLayerUpload, &ecr.CompleteLayerUploadInput{RegistryId: u.r.id(),
			RepositoryName: &u.repo, UploadId: &u.id, LayerDigests: []string{u.digest.String()}})
		switch exc := exception(err); {
		case err == nil, exc == "LayerAlreadyExistsException":
			return nil
		case exc == "UploadNotFoundException" && (attempt > 0 || u.resumed):
			u.lost = true
			if there, cerr := u.r.check(ctx, u.repo, []digest.Digest{u.digest}); cerr == nil {
				if _, ok := there[u.digest]; ok {
					return nil
				}
			}
			return err
		}
		if !again(ctx, attempt, err) {
			u.lost = exception(err) == "UploadNotFoundException"
			return err
		}
	}
}
