package e2e

import (
	"bytes"
	"context"
	bin "encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// criPull has the CRI of a containerd pull image, as kubelet does: with credentials that name no server, if there are any.
// It is gRPC by hand, a length before a message and the status in the trailers (grpc.io, "gRPC over HTTP2"), for two
// calls of k8s.io/cri-api are all that is needed of it.
func criPull(ctx context.Context, socket, image, user, password string) error {
	message := field(1, field(1, []byte(image))) // PullImageRequest.image, ImageSpec.image
	if user != "" {
		message = append(message, field(2, append(field(1, []byte(user)), field(2, []byte(password))...))...) // .auth, AuthConfig
	}
	if err := cri(ctx, socket, "PullImage", message); err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	return nil
}

// criReady reports whether the CRI answers.
func criReady(ctx context.Context, socket string) bool {
	return cri(ctx, socket, "ListImages", nil) == nil
}

// cri makes one call of the image service.
func cri(ctx context.Context, socket, method string, message []byte) error {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	frame := bin.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://cri/runtime.v1.ImageService/"+method, bytes.NewReader(append(frame, message...)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	res, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // read to its end
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	status, text := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
	if status == "" { // an answer of trailers alone
		status, text = res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message")
	}
	if status != "0" {
		if plain, err := url.PathUnescape(text); err == nil {
			text = plain
		}
		return fmt.Errorf("%s: status %s: %s", method, status, text)
	}
	return nil
}

// field is a length-delimited field of a protocol buffer.
func field(number byte, value []byte) []byte {
	b := bin.AppendUvarint([]byte{number<<3 | 2}, uint64(len(value)))
	return append(b, value...)
}
