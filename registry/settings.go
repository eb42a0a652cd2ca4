package registry

import "context"

// Settings are those of one repository. Documents are as the registry keeps them; "" is none.
type Settings struct {
	TagMutability string   // in ECR's words, such as IMMUTABLE_WITH_EXCLUSION
	Exclusions    []string // wildcards of the tags that TagMutability is not for
	Encryption    string   // AES256, KMS or KMS_DSSE
	KMSKey        string   // ARN, or alias; "" without KMS, and for the one that AWS manages
	Lifecycle     string   // JSON
	Policy        string   // JSON: who may do what with the repository
	Tags          map[string]string
}

// Setting names one of the Settings.
type Setting uint8

const (
	SettingMutability Setting = iota // TagMutability and Exclusions
	SettingEncryption                // Encryption and KMSKey
	SettingLifecycle
	SettingPolicy
	SettingTags
)

func (s Setting) String() string {
	return [...]string{"tag mutability", "encryption", "lifecycle policy", "repository policy", "tags"}[s]
}

// Settler is a registry whose repositories have settings.
type Settler interface {
	// Settings returns those of repo. A repository that does not exist is NotFound with code NAME_UNKNOWN.
	Settings(ctx context.Context, repo string) (Settings, error)
	// CreateWith creates repo with the tag mutability, encryption and tags in s; one that exists is success, and left as it is.
	CreateWith(ctx context.Context, repo string, s Settings) error
	// Set gives repo one of the settings in s. It is idempotent, never removes a document or a tag, and Invalid for
	// SettingEncryption, which is fixed when a repository is created.
	Set(ctx context.Context, repo string, which Setting, s Settings) error
}
