package wire

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// maxErrorBody is the most bytes of an error body that are read: 64 KiB.
const maxErrorBody = 64 << 10

// DecodeError returns the *registry.Error that an unexpected response stands for. It reads at most 64 KiB of the body, which
// the caller closes. Bodies may be the protocol's JSON, S3's XML, text or nothing; none of them is trusted.
func DecodeError(resp *http.Response) error {
	var body []byte
	if resp.Body != nil {
		body, _ = io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // the status alone says enough if the body breaks
	}
	code, message := explain(resp.Header.Get("Content-Type"), body)
	e := &registry.Error{Class: classify(resp.StatusCode, code, message), Code: code, RetryAfter: RetryAfter(resp.Header, time.Now())}
	text := fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	for _, s := range []string{code, message} {
		if s != "" {
			text += ": " + s
		}
	}
	e.Err = fmt.Errorf("%s", text)
	return e
}

func classify(status int, code, message string) registry.Class {
	if code == CodeTooManyRequests { // whatever the status: ECR throttles with 400s, too
		return registry.Throttled
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return registry.Denied
	case http.StatusNotFound, http.StatusGone:
		return registry.NotFound
	case http.StatusConflict:
		return registry.Conflict
	case http.StatusTooManyRequests:
		return registry.Throttled
	case http.StatusRequestTimeout, http.StatusTooEarly:
		return registry.Unavailable
	case http.StatusBadRequest:
		// ECR: "The image tag 'T' already exists in the 'N' repository and cannot be overwritten because the tag is
		// immutable."; before mid-2025 "... because the repository is immutable."
		if code == registry.CodeTagInvalid && strings.Contains(strings.ToLower(message), "immutable") {
			return registry.Conflict
		}
	}
	if status >= 400 && status < 500 {
		return registry.Invalid
	}
	return registry.Unavailable // 5xx, and answers that make no sense where an error was looked at
}

// explain finds a code and a message in an error body.
func explain(contentType string, body []byte) (code, message string) {
	var j struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &j) == nil {
		message = j.Message
		if len(j.Errors) > 0 {
			code, message = j.Errors[0].Code, j.Errors[0].Message
		}
		return checkCode(code), clean(message, maxMessage)
	}
	var x struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	if xml.Unmarshal(body, &x) == nil { // S3, where layers live
		return "", clean(x.Code+": "+x.Message, maxMessage)
	}
	if strings.HasPrefix(contentType, "text/plain") {
		return "", clean(string(body), maxMessage)
	}
	return "", "" // a page for people
}

// checkCode returns code if it looks like one, for it becomes a label and part of messages.
func checkCode(code string) string {
	if len(code) > 64 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return ""
	}
	return code
}
