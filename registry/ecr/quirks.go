package ecr

import "time"

// What ECR does that other registries do not, and where it is written. "User Guide" is the Amazon ECR User Guide of 2026,
// "API" the API reference (its text is also the comments of aws-sdk-go-v2/service/ecr).
const (
	// The control API takes at most so many digests or image ids in one call. API: BatchGetImage,
	// BatchCheckLayerAvailability, BatchDeleteImage.
	batchSize = 100
	// Largest pages. API: ListImages, DescribeImages, DescribeRepositories (1000), ListImageReferrers (50).
	pageSize         = 1000
	referrerPageSize = 50
	// Upload parts have 5 to 10 MiB, but the last may be shorter; InitiateLayerUpload says which size it wants. User Guide,
	// "Amazon ECR service quotas"; the API's model allows 20 MiB.
	defaultPartSize, maxPartSize = 10 << 20, 20 << 20
	// A layer's URL lives for an hour. It bounds the start of a download, not its end. User Guide, "Amazon ECR interface
	// VPC endpoints"; X-Amz-Expires of the URL that the AWS CLI reference prints for get-download-url-for-layer.
	urlLifetime = time.Hour
	// A repository's name has 2 to 256 characters. API: CreateRepository.
	minName, maxName = 2, 256
)

// The calls, by the names that the quotas have. A quota is per account and region; one half of each default is used, so that
// pushes from elsewhere have the other. User Guide, "Amazon ECR service quotas": BatchGetImage 2000/s,
// GetDownloadUrlForLayer 3000/s, BatchCheckLayerAvailability 1000/s, InitiateLayerUpload and CompleteLayerUpload 100/s,
// UploadLayerPart 500/s, PutImage 10/s. Those of the others are not published: 10/s is careful.
const (
	batchGetImage      = "BatchGetImage"
	downloadURL        = "GetDownloadUrlForLayer"
	checkLayers        = "BatchCheckLayerAvailability"
	initiateUpload     = "InitiateLayerUpload"
	uploadPart         = "UploadLayerPart"
	completeUpload     = "CompleteLayerUpload"
	putImage           = "PutImage"
	batchDeleteImage   = "BatchDeleteImage"
	createRepository   = "CreateRepository"
	listImages         = "ListImages"
	listReferrers      = "ListImageReferrers"
	describeRepos      = "DescribeRepositories"
	describeImages     = "DescribeImages"
	getAccountSetting  = "GetAccountSetting"
	getToken           = "GetAuthorizationToken"
	getLifecyclePolicy = "GetLifecyclePolicy"
	putLifecyclePolicy = "PutLifecyclePolicy"
	getPolicy          = "GetRepositoryPolicy"
	setPolicy          = "SetRepositoryPolicy"
	putMutability      = "PutImageTagMutability"
	listTags           = "ListTagsForResource"
	tagResource        = "TagResource"
	otherRate          = 10
)

// DefaultRate is how many calls of an operation of ECR's API, such as PutImage, a process makes per second, account and region
// unless Options.Rates says otherwise.
func DefaultRate(api string) float64 {
	switch api {
	case batchGetImage:
		return 1000
	case downloadURL:
		return 1500
	case checkLayers:
		return 500
	case initiateUpload, completeUpload:
		return 50
	case uploadPart:
		return 250
	case putImage:
		return 5
	}
	return otherRate
}
