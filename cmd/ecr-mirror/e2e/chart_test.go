package e2e

import (
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// chart returns a Helm chart as `helm push` writes it, with size random bytes in a file that is no template. Its metadata, which
// is YAML in the archive and JSON in the config, is JSON in both.
func chart(t *testing.T, text string, size int) registrytest.Node {
	t.Helper()
	about := encode(t, map[string]string{"apiVersion": "v2", "name": "hello", "version": "1.0.0", "description": text})
	archive := layer(t, file{"hello/Chart.yaml", about}, file{"hello/random", random(text, size)})
	return manifest(t, registrytest.NewBlob("application/vnd.cncf.helm.config.v1+json", about),
		registrytest.NewBlob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", archive.blob.Body))
}
