package wire_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

func coded(c registry.Class, code string) error {
	return fmt.Errorf("open: %w", &registry.Error{Class: c, Code: code, RetryAfter: 1500 * time.Millisecond, Err: errors.New("because")})
}

func TestWriteError(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		body   string
	}{
		{coded(registry.NotFound, registry.CodeNameUnknown), 404, `{"errors":[{"code":"NAME_UNKNOWN","message":"open: because"}]}`},
		{coded(registry.NotFound, registry.CodeManifestUnknown), 404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"open: because"}]}`},
		{coded(registry.NotFound, registry.CodeBlobUnknown), 404, `{"errors":[{"code":"BLOB_UNKNOWN","message":"open: because"}]}`},
		{coded(registry.Invalid, registry.CodeDigestInvalid), 400, `{"errors":[{"code":"DIGEST_INVALID","message":"open: because"}]}`},
		{coded(registry.Invalid, wire.CodeRangeInvalid), 416, `{"errors":[{"code":"RANGE_INVALID","message":"open: because"}]}`},
		{wire.Unsupported("push elsewhere"), 405, `{"errors":[{"code":"UNSUPPORTED","message":"push elsewhere"}]}`},
		// The upstream refused us: the client's own credentials are not in question, so never 401.
		{coded(registry.Denied, wire.CodeUnauthorized), 403, `{"errors":[{"code":"DENIED","message":"open: because"}]}`},
		{coded(registry.Throttled, wire.CodeTooManyRequests), 503, `{"errors":[{"code":"UNAVAILABLE","message":"open: because"}]}`},
		{coded(registry.Unavailable, ""), 503, `{"errors":[{"code":"UNAVAILABLE","message":"open: because"}]}`},
		{coded(registry.Corrupt, ""), 503, `{"errors":[{"code":"UNAVAILABLE","message":"open: because"}]}`},
		{coded(registry.Internal, ""), 500, `{"errors":[{"code":"UNKNOWN","message":"internal error"}]}`},
		{errors.New("/var/lib/secret: permission denied"), 500, `{"errors":[{"code":"UNKNOWN","message":"internal error"}]}`},
	} {
		write := func(w http.ResponseWriter, r *http.Request) { wire.WriteError(w, r, wire.Status(c.err), c.err) }
		resp := response("GET", write)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || strings.TrimSpace(string(body)) != c.body || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: %d %s, want %d %s", c.err, resp.StatusCode, body, c.status, c.body)
		}
		if got, want := resp.Header.Get("Retry-After"), map[bool]string{true: "2"}[c.status == 503]; got != want {
			t.Errorf("%v: Retry-After %q, want %q", c.err, got, want)
		}
		if head := response("HEAD", write); head.StatusCode != c.status || head.Body != http.NoBody {
			if b, _ := io.ReadAll(head.Body); len(b) != 0 {
				t.Errorf("%v: HEAD %d %s", c.err, head.StatusCode, b)
			}
		}
	}
}

// TestWriteErrorLikeDistribution compares whole answers with those of Distribution's own writer.
func TestWriteErrorLikeDistribution(t *testing.T) {
	for _, code := range []errcode.ErrorCode{errcode.ErrorCodeNameUnknown, errcode.ErrorCodeManifestUnknown, errcode.ErrorCodeBlobUnknown,
		errcode.ErrorCodeNameInvalid, errcode.ErrorCodeTagInvalid, errcode.ErrorCodeDigestInvalid, errcode.ErrorCodeUnsupported,
		errcode.ErrorCodeDenied, errcode.ErrorCodeUnavailable, errcode.ErrorCodePaginationNumberInvalid, errcode.ErrorCodeRangeInvalid} {
		class := map[int]registry.Class{404: registry.NotFound, 403: registry.Denied, 503: registry.Unavailable}[code.Descriptor().HTTPStatusCode]
		if class == registry.Internal {
			class = registry.Invalid
		}
		ours, theirs := httptest.NewRecorder(), httptest.NewRecorder()
		err := &registry.Error{Class: class, Code: code.String(), Err: errors.New("m <&> \"q\"")}
		wire.WriteError(ours, httptest.NewRequest("GET", "/v2/", nil), wire.Status(err), err)
		if err := errcode.ServeJSON(theirs, code.WithMessage("m <&> \"q\"")); err != nil {
			t.Fatal(err)
		}
		if ours.Code != theirs.Code || ours.Body.String() != theirs.Body.String() || ours.Header().Get("Content-Type") != theirs.Header().Get("Content-Type") {
			t.Errorf("%v: %d %s, Distribution %d %s", code, ours.Code, ours.Body, theirs.Code, theirs.Body)
		}
	}
}

func answer(status int, contentType, body string, header ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	return resp
}

func TestDecodeError(t *testing.T) {
	const js = "application/json; charset=utf-8"
	immutable := `{"errors":[{"code":"TAG_INVALID","message":"The image tag 'v1' already exists in the 'app' repository and cannot be overwritten because the tag is immutable."}]}`
	for _, c := range []struct {
		resp  *http.Response
		class registry.Class
		code  string
		text  string
	}{
		{answer(404, js, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such image"}]}`), registry.NotFound, "MANIFEST_UNKNOWN", "404 Not Found: MANIFEST_UNKNOWN: no such image"},
		{answer(404, js, ``), registry.NotFound, "", "404 Not Found"},
		{answer(401, js, `{"errors":[{"code":"UNAUTHORIZED","message":"x","detail":[{"a":1}]}]}`), registry.Denied, "UNAUTHORIZED", "401 Unauthorized: UNAUTHORIZED: x"},
		{answer(403, "text/html", `<html><body>token expired</body></html>`), registry.Denied, "", "403 Forbidden"},
		{answer(403, "application/xml", `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`), registry.Denied, "", "403 Forbidden: AccessDenied: Request has expired"},
		{answer(400, js, immutable), registry.Conflict, "TAG_INVALID", ""},
		{answer(400, js, `{"errors":[{"code":"TAG_INVALID","message":"bad tag"}]}`), registry.Invalid, "TAG_INVALID", ""},
		{answer(400, js, `{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}`), registry.Throttled, "TOOMANYREQUESTS", ""},
		{answer(405, js, `{"errors":[{"code":"UNSUPPORTED"}]}`), registry.Invalid, "UNSUPPORTED", "405 Method Not Allowed: UNSUPPORTED"},
		{answer(416, "", ``), registry.Invalid, "", "416 Requested Range Not Satisfiable"},
		{answer(413, "", ``), registry.Invalid, "", ""},
		{answer(429, "text/plain", "slow\r\n\x1b[31mdown", "Retry-After", "3"), registry.Throttled, "", "429 Too Many Requests: slow [31mdown"},
		{answer(503, "text/html", `<h1>Bad`), registry.Unavailable, "", "503 Service Unavailable"},
		{answer(500, js, `{"errors":[`), registry.Unavailable, "", ""},
		{answer(500, js, `{"errors":null,"message":"Internal"}`), registry.Unavailable, "", "500 Internal Server Error: Internal"},
		{answer(500, js, `[]`), registry.Unavailable, "", ""},
		{answer(408, "", ``), registry.Unavailable, "", ""},
		{answer(304, "", ``), registry.Unavailable, "", ""},
		{answer(404, js, `{"errors":[{"code":"<script>","message":"x"}]}`), registry.NotFound, "", "404 Not Found: x"},
		{answer(999, "text/plain", strings.Repeat("\xff", 100_000)), registry.Unavailable, "", ""},
		{&http.Response{StatusCode: 502}, registry.Unavailable, "", "502 Bad Gateway"},
	} {
		err := wire.DecodeError(c.resp)
		if registry.ClassOf(err) != c.class || registry.CodeOf(err) != c.code || c.text != "" && err.Error() != c.text {
			t.Errorf("%d: %v, class %v, code %q; want %q, %v, %q", c.resp.StatusCode, err, registry.ClassOf(err), registry.CodeOf(err), c.text, c.class, c.code)
		}
	}
	var e *registry.Error
	if err := wire.DecodeError(answer(429, "", "", "Retry-After", "3")); !errors.As(err, &e) || e.RetryAfter != 3*time.Second {
		t.Errorf("%v: retry after %v, want 3s", err, e.RetryAfter)
	}
}

// TestErrorsCross holds that an error that crosses the wire keeps its class and code.
func TestErrorsCross(t *testing.T) {
	for _, want := range []error{
		coded(registry.NotFound, registry.CodeNameUnknown), coded(registry.NotFound, registry.CodeBlobUnknown), coded(registry.Denied, wire.CodeDenied),
		coded(registry.Invalid, registry.CodeNameInvalid), coded(registry.Conflict, registry.CodeTagInvalid), coded(registry.Unavailable, wire.CodeUnavailable),
	} {
		got := wire.DecodeError(response("GET", func(w http.ResponseWriter, r *http.Request) { wire.WriteError(w, r, wire.Status(want), want) }))
		if registry.ClassOf(got) != registry.ClassOf(want) || wire.Status(want) != 409 && registry.CodeOf(got) != registry.CodeOf(want) {
			t.Errorf("%v became %v", want, got)
		}
	}
}

func TestDecodeErrorReadsLittle(t *testing.T) {
	body := strings.NewReader(strings.Repeat("x", 1<<20))
	resp := answer(500, "text/plain", "")
	resp.Body = io.NopCloser(body)
	if err := wire.DecodeError(resp); len(err.Error()) > 400 {
		t.Errorf("%d bytes of message", len(err.Error()))
	}
	if read := 1<<20 - body.Len(); read > 64<<10 {
		t.Errorf("read %d bytes", read)
	}
}

func FuzzDecodeError(f *testing.F) {
	f.Add(404, "application/json", []byte(`{"errors":[{"code":"NAME_UNKNOWN","message":"x"}]}`))
	f.Add(403, "application/xml", []byte(`<Error><Code>AccessDenied</Code><Message>m</Message></Error>`))
	f.Add(500, "text/plain", []byte("\x1b[2J\xff\xfe"))
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		err := wire.DecodeError(answer(status, contentType, string(body)))
		if s := err.Error(); len(s) > 512 || !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\x1b\x00") {
			t.Fatalf("message %q", s)
		}
		if wire.Status(err) < 400 {
			t.Fatalf("status %d", wire.Status(err))
		}
	})
}

func TestNext(t *testing.T) {
	base, _ := url.Parse("https://r.example:5000/v2/app/tags/list?n=2")
	for in, want := range map[string]string{
		"": "",
		`</v2/app/tags/list?last=b&n=2>; rel="next"`:               "https://r.example:5000/v2/app/tags/list?last=b&n=2",
		`</v2/app/tags/list?last=b&n=2>;rel=next`:                  "https://r.example:5000/v2/app/tags/list?last=b&n=2",
		`<?last=a,b>; title="x, y"; Rel="prev NEXT"`:               "https://r.example:5000/v2/app/tags/list?last=a,b",
		`</a>; rel="prev", <https://R.example:5000/b>; rel="next"`: "https://R.example:5000/b",
		`</a>; rel=prev; rel=next`:                                 "",
		`/a; rel=next`:                                             "",
		`</a; rel=next`:                                            "",
		`<https://evil.example/b>; rel="next"`:                     "refused",
		`<http://r.example:5000/b>; rel="next"`:                    "refused",
		`<//evil.example/b>; rel="next"`:                           "refused",
		`<https://user:secret@r.example:5000/b>; rel="next"`:       "refused",
		`<https://r.example:5001/b>; rel="next"`:                   "refused",
		`<:>; rel="next"`:                                          "refused",
	} {
		u, err := wire.Next(base, http.Header{"Link": {in}})
		got := ""
		if u != nil {
			got = u.String()
		}
		if err != nil {
			got = "refused"
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", in, err)
			}
		}
		if got != want {
			t.Errorf("%s: %q %v, want %q", in, got, err, want)
		}
	}
	if u, err := wire.Next(base, http.Header{"Link": {`</a>; rel=prev`, `</b>; rel=next`}}); err != nil || u.Path != "/b" {
		t.Errorf("two headers: %v %v", u, err)
	}
}

func FuzzNext(f *testing.F) {
	base, _ := url.Parse("https://r.example/v2/")
	f.Add(`</a>; rel="prev", </b?x=,>; rel="next"`)
	f.Add(`<//evil/>; rel=next`)
	f.Fuzz(func(t *testing.T, s string) {
		u, err := wire.Next(base, http.Header{"Link": {s}})
		if u != nil && (err != nil || !strings.EqualFold(u.Host, "r.example") || u.Scheme != "https" || u.User != nil) {
			t.Fatalf("%q: %v %v", s, u, err)
		}
	})
}
