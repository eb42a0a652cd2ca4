package ecrtest

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// Scanning and signing are configured here and do nothing: a scan finds nothing, and nothing is signed.

type scanning struct {
	Type  string         `json:"scanType,omitempty"`
	Rules []scanningRule `json:"rules"`
}

type scanningRule struct {
	Frequency string      `json:"scanFrequency"`
	Filters   []exclusion `json:"repositoryFilters"`
}

func putRegistryScanning(c call, in scanning) (any, error) {
	if in.Type != "" && in.Type != "BASIC" && in.Type != "ENHANCED" {
		return nil, invalidParameter("scanType", "Member must satisfy enum value set: [BASIC, ENHANCED]")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Scanning = in.out()
	return map[string]any{"registryScanningConfiguration": c.Scanning}, c.saveSettings()
}

func (s scanning) out() scanning {
	if s.Type == "" {
		s.Type = "BASIC"
	}
	s.Rules = append([]scanningRule{}, s.Rules...)
	return s
}

func getRegistryScanning(c call, _ struct{}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return map[string]any{"registryId": c.Account, "scanningConfiguration": c.Scanning.out()}, nil
}

func getRepositoryScanning(c call, in struct {
	Names []string `json:"repositoryNames"`
}) (any, error) {
	type applied struct {
		ARN       string      `json:"repositoryArn"`
		Name      string      `json:"repositoryName"`
		OnPush    bool        `json:"scanOnPush"`
		Frequency string      `json:"scanFrequency"`
		Filters   []exclusion `json:"appliedScanFilters"`
	}
	type failed struct {
		Name   string `json:"repositoryName"`
		Code   string `json:"failureCode"`
		Reason string `json:"failureReason"`
	}
	found, missing := []applied{}, []failed{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range in.Names {
		p := c.repos[name]
		if p == nil {
			missing = append(missing, failed{name, "REPOSITORY_NOT_FOUND", "The repository does not exist"})
			continue
		}
		a := applied{c.repositoryARN(name), name, p.Scan.OnPush, "MANUAL", []exclusion{}}
		if a.OnPush {
			a.Frequency = "SCAN_ON_PUSH"
		}
		for _, r := range c.Scanning.Rules {
			for _, f := range r.Filters {
				if iam.Match(f.Filter, name) {
					a.Frequency, a.Filters = r.Frequency, append(a.Filters, f)
				}
			}
		}
		a.OnPush = a.Frequency != "MANUAL"
		found = append(found, a)
	}
	return map[string]any{"scanningConfigurations": found, "failures": missing}, nil
}

// oneImage is the input of operations on one image.
type oneImage struct {
	RepositoryName string  `json:"repositoryName"`
	ImageID        imageID `json:"imageId"`
}

// find returns the image and answers with its names. The caller holds r.mu.
func (in oneImage) find(r *Registry) (*repository, digest.Digest, map[string]any, error) {
	p, err := r.repo(in.RepositoryName)
	if err != nil {
		return nil, "", nil, err
	}
	d, _, fail := p.lookup(in.ImageID)
	if fail != nil {
		return nil, "", nil, imageNotFound(r, p, in.ImageID)
	}
	return p, d, map[string]any{"registryId": r.Account, "repositoryName": p.Name, "imageId": imageID{d, in.ImageID.ImageTag}}, nil
}

type scanStatus struct {
	Status      string `json:"status"`
	Description string `json:"description,omitempty"`
}

func startImageScan(c call, in oneImage) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, d, out, err := in.find(c.Registry)
	if err != nil {
		return nil, err
	}
	p.Images[d].ScannedAt = c.emu.now()
	out["imageScanStatus"] = scanStatus{Status: "IN_PROGRESS"}
	return out, c.save(p)
}

func describeScanFindings(c call, in struct {
	oneImage
	paging
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, d, out, err := in.find(c.Registry)
	if err != nil {
		return nil, err
	}
	at := p.Images[d].ScannedAt
	if at.IsZero() {
		return nil, errf("ScanNotFoundException", "Image scan does not exist for the image with '%s' in the repository with name '%s' in the registry with id '%s'", in.ImageID, p.Name, c.Account)
	}
	out["imageScanStatus"] = scanStatus{"COMPLETE", "The scan was completed successfully."}
	out["imageScanFindings"] = map[string]any{"findings": []any{}, "findingSeverityCounts": map[string]int{}, "imageScanCompletedAt": epoch(at), "vulnerabilitySourceUpdatedAt": epoch(at)}
	return out, nil
}

type signing struct {
	Rules []struct {
		Profile string      `json:"signingProfileArn"`
		Filters []exclusion `json:"repositoryFilters,omitempty"`
	} `json:"rules"`
}

func noSigning(r *Registry) error {
	return errf("SigningConfigurationNotFoundException", "Signing configuration does not exist in the registry with id '%s'", r.Account)
}

func putSigning(c call, in struct {
	Config *signing `json:"signingConfiguration"`
}) (any, error) {
	if in.Config == nil || len(in.Config.Rules) == 0 {
		return nil, invalidParameter("signingConfiguration", "Member must not be empty")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Signing = in.Config
	return map[string]any{"signingConfiguration": c.Signing}, c.saveSettings()
}

func getSigning(c call, _ struct{}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Signing == nil {
		return nil, noSigning(c.Registry)
	}
	return map[string]any{"registryId": c.Account, "signingConfiguration": c.Signing}, nil
}

func deleteSigning(c call, in struct{}) (any, error) {
	out, err := getSigning(c, in)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Signing = nil
	return out, c.saveSettings()
}

func describeSigningStatus(c call, in oneImage) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, out, err := in.find(c.Registry)
	if err != nil {
		return nil, err
	}
	out["signingStatuses"] = []json.RawMessage{}
	return out, nil
}

// Pulls by an excluded principal do not count as use: lastRecordedPullTime stays.

type pullExclusion struct {
	ARN string `json:"principalArn"`
}

func registerPullExclusion(c call, in pullExclusion) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.PullExclusions, in.ARN) {
		return nil, errf("ExclusionAlreadyExistsException", "The exclusion for '%s' already exists in the registry with id '%s'", in.ARN, c.Account)
	}
	c.PullExclusions = append(c.PullExclusions, in.ARN)
	return map[string]any{"principalArn": in.ARN, "createdAt": epoch(c.emu.now())}, c.saveSettings()
}

func deregisterPullExclusion(c call, in pullExclusion) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.PullExclusions, in.ARN)
	if i < 0 {
		return nil, errf("ExclusionNotFoundException", "The exclusion for '%s' does not exist in the registry with id '%s'", in.ARN, c.Account)
	}
	c.PullExclusions = slices.Delete(c.PullExclusions, i, i+1)
	return map[string]any{"principalArn": in.ARN}, c.saveSettings()
}

func listPullExclusions(c call, in paging) (any, error) {
	size, err := in.size(100, 1000)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all, next, err := page(append([]string{}, c.PullExclusions...), func(s string) string { return s }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	return paged("pullTimeUpdateExclusions", all, next), nil
}
