package ecrtest

// operations is the control API. An operation more is a line here and its function.
func operations() map[string]operation {
	return map[string]operation{
		"GetAuthorizationToken": op(getAuthorizationToken),

		"DescribeRepositories":   op(describeRepositories),
		"CreateRepository":       op(createRepository),
		"DeleteRepository":       op(deleteRepository),
		"PutImageTagMutability":  op(putImageTagMutability),
		"GetRepositoryPolicy":    op(getRepositoryPolicy),
		"SetRepositoryPolicy":    op(setRepositoryPolicy),
		"DeleteRepositoryPolicy": op(deleteRepositoryPolicy),
		"ListTagsForResource":    op(listTagsForResource),
		"TagResource":            op(tagResource),
		"UntagResource":          op(untagResource),

		"GetLifecyclePolicy":          op(getLifecyclePolicy),
		"PutLifecyclePolicy":          op(putLifecyclePolicy),
		"DeleteLifecyclePolicy":       op(deleteLifecyclePolicy),
		"StartLifecyclePolicyPreview": op(startLifecyclePreview),
		"GetLifecyclePolicyPreview":   op(getLifecyclePreview),

		"DescribeImages":          op(describeImages),
		"ListImages":              op(listImages),
		"BatchGetImage":           op(batchGetImage),
		"BatchDeleteImage":        op(batchDeleteImage),
		"PutImage":                op(putImage),
		"ListImageReferrers":      op(listImageReferrers),
		"UpdateImageStorageClass": op(updateImageStorageClass),

		"BatchCheckLayerAvailability": op(batchCheckLayerAvailability),
		"GetDownloadUrlForLayer":      op(getDownloadURLForLayer),
		"InitiateLayerUpload":         op(initiateLayerUpload),
		"UploadLayerPart":             op(uploadLayerPart),
		"CompleteLayerUpload":         op(completeLayerUpload),

		"DescribeRegistry":                   op(describeRegistry),
		"PutReplicationConfiguration":        op(putReplicationConfiguration),
		"DescribeImageReplicationStatus":     op(describeImageReplicationStatus),
		"StartReplicationBackfill":           op(startBackfill),
		"DescribeReplicationBackfillResults": op(describeBackfill),
		"ListReplicationBackfills":           op(listBackfills),
		"StopReplicationBackfill":            op(stopBackfill),

		"GetRegistryPolicy":    op(getRegistryPolicy),
		"PutRegistryPolicy":    op(putRegistryPolicy),
		"DeleteRegistryPolicy": op(deleteRegistryPolicy),
		"GetAccountSetting":    op(getAccountSetting),
		"PutAccountSetting":    op(putAccountSetting),

		"CreateRepositoryCreationTemplate":    op(createTemplate),
		"UpdateRepositoryCreationTemplate":    op(updateTemplate),
		"DeleteRepositoryCreationTemplate":    op(deleteTemplate),
		"DescribeRepositoryCreationTemplates": op(describeTemplates),

		"CreatePullThroughCacheRule":    op(createCacheRule),
		"UpdatePullThroughCacheRule":    op(updateCacheRule),
		"DeletePullThroughCacheRule":    op(deleteCacheRule),
		"DescribePullThroughCacheRules": op(describeCacheRules),
		"ValidatePullThroughCacheRule":  op(validateCacheRule),

		"RegisterPullTimeUpdateExclusion":   op(registerPullExclusion),
		"DeregisterPullTimeUpdateExclusion": op(deregisterPullExclusion),
		"ListPullTimeUpdateExclusions":      op(listPullExclusions),

		"PutImageScanningConfiguration":           op(putImageScanningConfiguration),
		"PutRegistryScanningConfiguration":        op(putRegistryScanning),
		"GetRegistryScanningConfiguration":        op(getRegistryScanning),
		"BatchGetRepositoryScanningConfiguration": op(getRepositoryScanning),
		"StartImageScan":                          op(startImageScan),
		"DescribeImageScanFindings":               op(describeScanFindings),
		"PutSigningConfiguration":                 op(putSigning),
		"GetSigningConfiguration":                 op(getSigning),
		"DeleteSigningConfiguration":              op(deleteSigning),
		"DescribeImageSigningStatus":              op(describeSigningStatus),
	}
}
