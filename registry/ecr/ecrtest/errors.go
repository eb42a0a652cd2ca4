package ecrtest

import (
	"errors"
	"fmt"
	"net/http"
)

// apiError is a failure in the control API's terms; the v2 plane translates it.
type apiError struct {
	Type    string
	Message string
	Fields  map[string]any // members of the exception beside the message
}

func (e *apiError) Error() string { return e.Type + ": " + e.Message }

func errf(typ, format string, args ...any) *apiError {
	return &apiError{Type: typ, Message: fmt.Sprintf(format, args...)}
}

// asAPI returns err as an apiError; anything else, such as a full disk, is the server's fault.
func asAPI(err error) *apiError {
	var a *apiError
	if errors.As(err, &a) {
		return a
	}
	return errf("ServerException", "%v", err)
}

// invalidParameter is the answer to a parameter that breaks its model. The pattern of the text is ECR's.
func invalidParameter(name, constraint string) *apiError {
	return errf("InvalidParameterException", "Invalid parameter at '%s' failed to satisfy constraint: '%s'", name, constraint)
}

// v2Error returns the status and code that the v2 plane gives to a control error: its front is a proxy before the control
// API, with Docker's codes and ECR's texts (Amazon ECR User Guide, "common errors"; threads in the project's fact sheet).
func v2Error(a *apiError) (status int, code string) {
	switch a.Type {
	case "RepositoryNotFoundException":
		return http.StatusNotFound, "NAME_UNKNOWN"
	case "ImageNotFoundException":
		return http.StatusNotFound, "MANIFEST_UNKNOWN"
	case "LayersNotFoundException", "LayerInaccessibleException":
		return http.StatusNotFound, "BLOB_UNKNOWN"
	case "UploadNotFoundException":
		return http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"
	case "UpstreamAccessDenied":
		return http.StatusForbidden, "DENIED"
	case "UpstreamTooManyRequests":
		return http.StatusTooManyRequests, "TOOMANYREQUESTS"
	case "ReferencedImagesNotFoundException":
		return http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN"
	case "ImageTagAlreadyExistsException":
		return http.StatusBadRequest, "TAG_INVALID"
	case "ImageDigestDoesNotMatchException":
		return http.StatusBadRequest, "MANIFEST_INVALID"
	case "EmptyUploadException", "InvalidLayerException", "LayerPartTooSmallException":
		return http.StatusBadRequest, "BLOB_UPLOAD_INVALID"
	case "InvalidLayerPartException": // apple/containerization#790
		return http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID"
	case "InvalidParameterException", "UnsupportedOperation":
		return http.StatusMethodNotAllowed, "UNSUPPORTED"
	case "AccessDeniedException":
		return http.StatusForbidden, "DENIED"
	case "ThrottlingException", "LimitExceededException":
		return http.StatusTooManyRequests, "TOOMANYREQUESTS"
	}
	return http.StatusInternalServerError, "UNKNOWN"
}
