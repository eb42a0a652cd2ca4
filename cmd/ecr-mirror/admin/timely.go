package admin

import (
	"net/http"
	"time"
)

// answerTime is for one write of an answer. Between them there may be minutes: a plan says what it finds when it finds it.
const answerTime = time.Minute

// timely cuts readers that stop reading: they must not keep for ever one of the few slots of a page.
func timely(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := timelyAnswer{w, http.NewResponseController(w)}
		h.ServeHTTP(out, r)
		out.within() // of what is buffered; the server lifts it before the next request
	})
}

type timelyAnswer struct {
	http.ResponseWriter
	conn *http.ResponseController
}

func (w timelyAnswer) Write(b []byte) (int, error) {
	w.within()
	return w.ResponseWriter.Write(b)
}

// FlushError is what http.ResponseController calls.
func (w timelyAnswer) FlushError() error {
	w.within()
	return w.conn.Flush()
}

func (w timelyAnswer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// within sets the deadline. What passes between two writes does no harm (HTTP/1.1); a writer without deadlines has its own limits.
func (w timelyAnswer) within() { _ = w.conn.SetWriteDeadline(time.Now().Add(answerTime)) }
