package main

import (
	"context"
	"errors"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of the listeners. Headers: an ECR token is 2 to 4 KiB of Authorization; a drain that takes longer than drainTime is
// a client that reads slower than any orchestrator waits.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
	drainTime  = 5 * time.Minute
	maxStreams = 100 // of one HTTP/2 connection
)

// listener returns a part that answers on l until its context ends, then lets open requests finish. Writes have no deadline
// of the server's: the front sets one per span of a body. Over TLS it speaks HTTP/2 to those who ask (crane, oras, helm;
// container runtimes do not); there is no sendfile to lose, for that needs plain TCP.
func listener(name string, l net.Listener, h http.Handler, open connections, log *slog.Logger) part {
	return part{name, func(ctx context.Context) error {
		srv := &http.Server{
			Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
			ConnState: open.track(),
			HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: headerTime, PingTimeout: headerTime, WriteByteTimeout: idleTime},
			ErrorLog:  stdlog.New(serverLog{log}, "", 0),
		}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(l) }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
		}
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		err := srv.Shutdown(drain)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close()
		}
		<-done
		return err
	}}
}
