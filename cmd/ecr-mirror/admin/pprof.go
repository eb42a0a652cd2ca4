package admin

import (
	"net/http"
	"net/http/pprof"
)

// profiles answers what `go tool pprof` asks for below /debug/pprof/. A profile shows how the process was started and what it is
// doing, and costs CPU while it is taken, so it is for those who may change something.
func profiles(mux *http.ServeMux, who *guard) {
	for path, h := range map[string]http.HandlerFunc{"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
		mux.Handle("/debug/pprof/"+path, who.only(h))
	}
}
