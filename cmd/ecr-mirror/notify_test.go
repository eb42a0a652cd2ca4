package main

import (
	"net"
	"path/filepath"
	"testing"
)

// The service manager hears when the listeners are there, and when the mirror stops.
func TestSystemdIsTold(t *testing.T) {
	if err := tellSystemd("READY=1"); err != nil {
		t.Errorf("nobody waits: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	for _, name := range []string{path, "@ecr-mirror-" + t.Name()} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		must(t, err)
		defer l.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		must(t, tellSystemd("READY=1"))
		var got [100]byte
		n, err := l.Read(got[:])
		if err != nil || string(got[:n]) != "READY=1" {
			t.Errorf("%s: %q, %v", name, got[:n], err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", path+"-none")
	if err := tellSystemd("READY=1"); err == nil {
		t.Error("no error from a socket that there is not")
	}
}
