package ecr

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Codes of the distribution specification that ECR's own V2 front gives for these errors and that package registry does
// not name.
const (
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooManyRequests     = "TOOMANYREQUESTS"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeBlobUploadInvalid   = "BLOB_UPLOAD_INVALID"
	codeBlobUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	codeNoPolicy            = "LIFECYCLE_POLICY_UNKNOWN"  // of ours: the V2 front has no such thing
	codeNoRepositoryPolicy  = "REPOSITORY_POLICY_UNKNOWN" // likewise
)

// verdict is the table: what an exception of a call means to its caller. ok is false for a name that is not in it.
func verdict(api, exception string) (c registry.Class, code string, ok bool) {
	switch exception {
	// Modelled exceptions. API reference, "Errors" of each action.
	case "RepositoryNotFoundException":
		return registry.NotFound, registry.CodeNameUnknown, true
	case "LifecyclePolicyNotFoundException":
		return registry.NotFound, codeNoPolicy, true
	case "RepositoryPolicyNotFoundException":
		return registry.NotFound, codeNoRepositoryPolicy, true
	case "ImageNotFoundException", "ImageArchivedException":
		return registry.NotFound, registry.CodeManifestUnknown, true
	case "LayersNotFoundException":
		if api == putImage { // pushed out of order
			return registry.Invalid, codeManifestBlobUnknown, true
		}
		return registry.NotFound, registry.CodeBlobUnknown, true
	case "LayerInaccessibleException": // "not associated with an image, or in an unassociated state": to a reader, not there
		return registry.NotFound, registry.CodeBlobUnknown, true
	case "ReferencedImagesNotFoundException":
		return registry.Invalid, codeManifestBlobUnknown, true
	case "ImageDigestDoesNotMatchException":
		return registry.Corrupt, registry.CodeDigestInvalid, true
	case "ImageTagAlreadyExistsException": // only of an immutable tag
		return registry.Conflict, registry.CodeTagInvalid, true
	case "InvalidLayerException": // the digest of what arrived is another
		return registry.Corrupt, registry.CodeDigestInvalid, true
	case "EmptyUploadException", "LayerPartTooSmallException", "InvalidLayerPartException":
		return registry.Invalid, codeBlobUploadInvalid, true
	case "UploadNotFoundException": // the upload expired or was dropped: a new one may succeed
		return registry.Unavailable, codeBlobUploadUnknown, true
	case "InvalidParameterException":
		if api == putImage { // User Guide, "Container image manifest formats": the schema is strict
			return registry.Invalid, codeManifestInvalid, true
		}
		return registry.Invalid, codeUnsupported, true
	case "ValidationException", "InvalidTagParameterException", "TooManyTagsException", "UnsupportedImageTypeException",
		"UnknownOperationException", "SerializationException":
		return registry.Invalid, codeUnsupported, true
	case "LimitExceededException":
		if api == putImage || api == createRepository { // a quota on what exists: waiting does not help, an operator does
			return registry.Invalid, codeDenied, true
		}
		return registry.Throttled, codeTooManyRequests, true
	case "KmsException", "BlockedByOrganizationPolicyException":
		return registry.Denied, codeDenied, true
	case "ServerException", "UnableToGetUpstreamImageException", "UnableToGetUpstreamLayerException",
		"UnableToListUpstreamImageReferrersException":
		return registry.Unavailable, "", true

	// Of every AWS service. API reference, "Common Errors"; the User Guide calls ThrottlingException ThrottleException.
	case "ThrottlingException", "ThrottleException", "Throttling", "ThrottledException", "RequestThrottledException",
		"TooManyRequestsException", "RequestLimitExceeded", "SlowDown":
		return registry.Throttled, codeTooManyRequests, true
	case "AccessDeniedException", "AccessDenied", "NotAuthorized", "ExpiredTokenException", "ExpiredToken", "RequestExpired",
		"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
		"IncompleteSignature", "IncompleteSignatureException", "MissingAuthenticationToken",
		"MissingAuthenticationTokenException", "OptInRequired", "InvalidAccessKeyId":
		return registry.Denied, codeDenied, true
	case "InternalFailure", "InternalServerError", "InternalServerException", "InternalError", "ServiceUnavailable",
		"ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException":
		return registry.Unavailable, "", true
	}
	return registry.Internal, "", false
}

// classify gives an SDK error of a call its class, code and delay. What is no answer at all (network, timeout, an answer
// that cannot be read) is Unavailable. The SDK's chain stays reachable with errors.As.
func classify(api string, err error) error {
	if err == nil {
		return nil
	}
	var classed *registry.Error // the credentials' or the body limit's
	if errors.As(err, &classed) {
		return &registry.Error{Class: classed.Class, Code: classed.Code, Err: err}
	}
	e := &registry.Error{Class: registry.Unavailable, Err: err}
	var exc smithy.APIError
	var resp *smithyhttp.ResponseError
	status := 0
	if errors.As(err, &resp) && resp.Response != nil {
		status = resp.HTTPStatusCode()
		e.RetryAfter = retryAfter(resp.Response.Header)
	}
	if !errors.As(err, &exc) {
		return e
	}
	e.Err = &apiError{api, exc, requestID(err), err}
	c, code, ok := verdict(api, exc.ErrorCode())
	switch {
	case ok:
		e.Class, e.Code = c, code
	case status == http.StatusTooManyRequests:
		e.Class, e.Code = registry.Throttled, codeTooManyRequests
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.Class, e.Code = registry.Denied, codeDenied
	case status >= 400 && status < 500 && exc.ErrorCode() != "UnknownError": // that is the SDK's word for "no name given"
		e.Class = registry.Invalid
	}
	return e
}

// apiError prints what an operator needs of the SDK's long chain.
type apiError struct {
	api string
	exc smithy.APIError
	id  string
	err error
}

func (e *apiError) Error() string {
	s := fmt.Sprintf("%s: %s: %s", e.api, e.exc.ErrorCode(), e.exc.ErrorMessage())
	if e.id != "" {
		s += " (request " + e.id + ")"
	}
	return s
}

func (e *apiError) Unwrap() error { return e.err }

func requestID(err error) string {
	var r *awshttp.ResponseError
	if errors.As(err, &r) {
		return r.ServiceRequestID()
	}
	return ""
}

// retryAfter reads the delay in seconds; more than an hour is taken for nonsense.
func retryAfter(h http.Header) time.Duration {
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s > 0 && s <= 3600 {
		return time.Duration(s) * time.Second
	}
	return 0
}

// exception returns the name of the AWS exception in err, or "".
func exception(err error) string {
	var exc smithy.APIError
	if errors.As(err, &exc) {
		return exc.ErrorCode()
	}
	return ""
}

// classedCredentials has missing credentials be Denied: without it they look like a network that is down, for the SDK gives
// them no type.
type classedCredentials struct{ aws.CredentialsProvider }

func (c classedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := c.CredentialsProvider.Retrieve(ctx)
	if err == nil {
		return creds, nil
	}
	class, code := registry.Denied, codeDenied
	if ctx.Err() != nil {
		class, code = registry.Unavailable, ""
	} else if exc := exception(err); exc != "" {
		if cl, co, ok := verdict("", exc); ok {
			class, code = cl, co
		}
	}
	return creds, &registry.Error{Class: class, Code: code, Err: fmt.Errorf("credentials: %w", err)}
}
