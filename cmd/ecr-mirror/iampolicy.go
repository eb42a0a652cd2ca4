package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
)

func iamPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "iam-policy",
		Short: "Print the least IAM policies that a configuration needs",
		Long: `Iam-policy prints every policy that the configuration at hand needs and no more, with where to attach it: those of the
mirror's role and of the roles that it assumes, the registry policies of other accounts, the queue's policy for EventBridge
and the statements of KMS keys. No registry is asked. With --role front or worker they are those of a process of that role;
policies of registries, queues and keys are then of both, statement by statement.

Note that ecr:ReplicateImage, which ECR's own replication needs in a registry policy, allows nothing here: the mirror pushes.`,
		Example: `
ecr-mirror iam-policy
# For a role of another name
ecr-mirror iam-policy --principal arn:aws:iam::444455556666:role/mirror
# For a script that attaches them
ecr-mirror iam-policy --output json`,
	}
	path, role, out := configFlag(cmd), roleFlag(cmd), cli.OutputFlag(cmd)
	var o policyOptions
	f := cmd.Flags()
	f.StringVar(&o.principal, "principal", "", "`ARN` of the mirror's own role (default: role/ecr-mirror, with --role ecr-mirror-front or -worker, in the first mirror's destination account)")
	eventRuleFlag(f, &o)
	f.StringVar(&o.queueKey, "queue-key", "", "`ARN` of the KMS key that encrypts the queue, if it is a key of your own")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadAs(*path, *role)
		if err != nil {
			return err
		}
		grants, err := policies(cfg, o)
		if err != nil {
			return err
		}
		return out.Print(cmd.OutOrStdout(), grantsAnswer{grants}, func(w io.Writer) error { return printGrants(w, grants) })
	}
	return cmd
}

// grantsAnswer is the answer of iam-policy.
type grantsAnswer struct {
	Policies []grant `json:"policies"`
}

func eventRuleFlag(f *pflag.FlagSet, o *policyOptions) {
	f.StringVar(&o.eventRule, "event-rule", "ecr-mirror", "`NAME` of the EventBridge rule at the source that sends to the queue")
}

func printGrants(w io.Writer, grants []grant) error {
	for i, g := range grants {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if _, err := fmt.Fprintf(w, "# %s\n%s\n", g.where(), g.Document); err != nil {
			return err
		}
	}
	return nil
}

var roleARN = regexp.MustCompile(`^arn:[a-z0-9-]+:iam::[0-9]{12}:(role|user)/[!-~]+$`)

// check completes o for cfg.
func (o *policyOptions) check(cfg *config.Config) error {
	if o.principal == "" {
		for i := range cfg.Mirrors {
			r := &cfg.Mirrors[i].Source
			if d := cfg.Mirrors[i].Destination; d != nil && d.IsECR() {
				r = d
			}
			if r.IsECR() {
				o.principal = "arn:" + partitionOf(*r) + ":iam::" + r.Account + ":role/ecr-mirror"
				if cfg.Role != config.RoleAll {
					o.principal += "-" + cfg.Role
				}
				break
			}
		}
	}
	if o.principal != "" && !roleARN.MatchString(o.principal) {
		return cli.Exitf(cli.Usage, "--principal %q: want the ARN of a role or user", o.principal)
	}
	if o.queueKey != "" && !strings.HasPrefix(o.queueKey, "arn:") {
		return cli.Exitf(cli.Usage, "--queue-key %q: want an ARN", o.queueKey)
	}
	return nil
}
