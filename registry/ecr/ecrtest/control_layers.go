package ecrtest

import (
	"encoding/base64"

	"github.com/opencontainers/go-digest"
)

type layerStatus struct {
	LayerDigest  string `json:"layerDigest"`
	Availability string `json:"layerAvailability"`
	Size         int64  `json:"layerSize,omitempty"`
	MediaType    string `json:"mediaType,omitempty"`
}

func batchCheckLayerAvailability(c call, in struct {
	RepositoryName string   `json:"repositoryName"`
	LayerDigests   []string `json:"layerDigests"`
}) (any, error) {
	type layerFailure struct {
		LayerDigest string `json:"layerDigest"`
		Code        string `json:"failureCode"`
		Reason      string `json:"failureReason"`
	}
	if len(in.LayerDigests) < 1 || len(in.LayerDigests) > 100 {
		return nil, invalidParameter("layerDigests", "Member must have length between 1 and 100")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	layers, failures := []layerStatus{}, []layerFailure{}
	for _, s := range in.LayerDigests {
		if digest.Digest(s).Validate() != nil {
			failures = append(failures, layerFailure{s, "InvalidLayerDigest", "Invalid request parameters: layer digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"})
			continue
		}
		st := layerStatus{LayerDigest: s, Availability: "UNAVAILABLE"} // a missing layer is no failure
		if l, ok := p.Layers[digest.Digest(s)]; ok {
			st.Availability, st.Size, st.MediaType = "AVAILABLE", l.Size, "application/vnd.docker.image.rootfs.diff.tar.gzip"
			if _, archived := p.referenced(digest.Digest(s)); archived {
				st.Availability = "ARCHIVED"
			}
		}
		layers = append(layers, st)
	}
	return map[string]any{"layers": layers, "failures": failures}, nil
}

func getDownloadURLForLayer(c call, in struct {
	RepositoryName string        `json:"repositoryName"`
	LayerDigest    digest.Digest `json:"layerDigest"`
}) (any, error) {
	u, err := c.downloadURL(c.base, in.RepositoryName, in.LayerDigest)
	if err != nil {
		return nil, err
	}
	return map[string]any{"downloadUrl": u, "layerDigest": in.LayerDigest}, nil
}

func initiateLayerUpload(c call, in struct {
	RepositoryName string `json:"repositoryName"`
}) (any, error) {
	u, err := c.startUpload(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	return map[string]any{"uploadId": u.id, "partSize": c.emu.opt.PartSize}, nil
}

func uploadLayerPart(c call, in struct {
	RepositoryName string `json:"repositoryName"`
	UploadID       string `json:"uploadId"`
	First          int64  `json:"partFirstByte"`
	Last           int64  `json:"partLastByte"`
	Blob           string `json:"layerPartBlob"`
}) (any, error) {
	b, err := base64.StdEncoding.DecodeString(in.Blob)
	if err != nil {
		return nil, errf("SerializationException", "layerPartBlob: %v", err)
	}
	last, err := c.part(in.RepositoryName, in.UploadID, in.First, in.Last, b)
	if err != nil {
		return nil, err
	}
	return map[string]any{"registryId": c.Account, "repositoryName": in.RepositoryName, "uploadId": in.UploadID, "lastByteReceived": last}, nil
}

func completeLayerUpload(c call, in struct {
	RepositoryName string          `json:"repositoryName"`
	UploadID       string          `json:"uploadId"`
	LayerDigests   []digest.Digest `json:"layerDigests"`
}) (any, error) {
	d, _, err := c.complete(in.RepositoryName, in.UploadID, in.LayerDigests)
	if err != nil {
		return nil, err
	}
	return map[string]any{"registryId": c.Account, "repositoryName": in.RepositoryName, "uploadId": in.UploadID, "layerDigest": d}, nil
}
