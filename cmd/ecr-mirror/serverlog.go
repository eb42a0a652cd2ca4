package main

import (
	"log/slog"
	"strings"
)

// serverLog takes what net/http says of connections, in words alone: mostly of the handshakes of port scanners. That a client's
// certificate was refused, or that it had none, is for the audit.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if client, why, ok := refusedCertificate(text); ok {
		l.log.Warn("denied", "client", client, "endpoint", "tls", "error", why)
	} else {
		l.log.Debug(text)
	}
	return len(line), nil
}

func refusedCertificate(text string) (client, why string, ok bool) {
	rest, ok := strings.CutPrefix(text, "http: TLS handshake error from ")
	if !ok {
		return "", "", false
	}
	client, why, _ = strings.Cut(rest, ": ")
	return client, why, why == "tls: client didn't provide a certificate" || strings.HasPrefix(why, "tls: failed to verify certificate: ")
}
