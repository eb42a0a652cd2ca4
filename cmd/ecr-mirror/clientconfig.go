package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/clientconfig"
	"github.com/ecr-mirror/ecr-mirror/config"
)

type clientFlags struct {
	config, mirror, ca, root                    string
	registries                                  []string
	pullOnly, referrers, install, hold, removal bool
}

func clientConfigCommand() *cobra.Command {
	var clients []string
	long := `Client-config prints what a client has to be told of the mirror, and on standard error where that client does not do what
one would expect. With --install it writes the files, each at once and beside what others wrote there, and keeps what was
there before as FILE.before-ecr-mirror; with --remove it takes its own part out again. With --install --hold it stays, and
takes it out when it gets SIGTERM, unless another such process has begun meanwhile: a DaemonSet keeps nodes configured so,
with no gap while it is updated and nothing left when it is gone.

Clients:
`
	byName := make(map[string]clientconfig.Client)
	for _, c := range clientconfig.Clients() {
		clients = append(clients, cobra.CompletionWithDesc(c.Name, c.About))
		byName[c.Name] = c
		long += cli.Item(c.Name, 12, c.About)
	}
	cmd := &cobra.Command{
		Use:       "client-config CLIENT",
		Short:     "Print or install what makes a client use the mirror",
		Long:      long,
		ValidArgs: clients,
		Example: `
# Of the mirror that a configuration describes
ecr-mirror client-config containerd --config ecr-mirror.yaml
# On a node that has no configuration of the mirror
ecr-mirror client-config podman --mirror https://mirror.example:5000 --registry 111122223333.dkr.ecr.us-west-2.amazonaws.com
# Write the files, and take them out again
ecr-mirror client-config containerd --config ecr-mirror.yaml --install
ecr-mirror client-config containerd --config ecr-mirror.yaml --remove
# In a DaemonSet: as long as the mirror is on the node
ecr-mirror client-config containerd --config ecr-mirror.yaml --install --hold`,
	}
	var o clientFlags
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration `FILE` of the mirror, from which --mirror and --registry are taken")
	cli.CompleteFiles(cmd, "config", "yaml", "yml")
	f.StringVar(&o.mirror, "mirror", "", "`URL` of the mirror as clients reach it (default http://127.0.0.1:5000, or as --config says)")
	f.StringArrayVar(&o.registries, "registry", nil, "`HOST` whose images the mirror serves; may be repeated (default: all names of --config)")
	cli.Complete(cmd, "registry", completeNames)
	f.StringVar(&o.ca, "ca", "", "`FILE` of the authority that signed the mirror's certificate, where the client runs")
	f.BoolVar(&o.pullOnly, "pull-only", false, "leave tags to the registry itself: the mirror serves content alone (containerd)")
	f.BoolVar(&o.referrers, "referrers", false, "ask the mirror for referrers too (containerd 2.2 and later)")
	f.BoolVar(&o.install, "install", false, "write the files")
	f.BoolVar(&o.hold, "hold", false, "with --install: keep them until SIGTERM (containerd, docker)")
	f.BoolVar(&o.removal, "remove", false, "take the mirror out of the files")
	f.StringVar(&o.root, "root", "/", "`DIRECTORY` that stands for / with --install and --remove")
	cli.CompleteDirs(cmd, "root")
	cmd.MarkFlagsMutuallyExclusive("install", "remove")
	out := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := o.told()
		if err != nil {
			return err
		}
		if o.hold && !o.install {
			return cli.Exitf(cli.Usage, "--hold: belongs to --install")
		}
		t := teller{cmd.OutOrStdout(), cmd.ErrOrStderr(), out}
		return t.tell(cmd.Context(), o, byName[args[0]], m)
	}
	return cmd
}

// clientAnswer is the answer of client-config.
type clientAnswer struct {
	Client  string                 `json:"client"`
	Files   []clientconfig.Content `json:"files,omitempty"`   // what is to be in them
	Changes []clientconfig.Change  `json:"changes,omitempty"` // what --install and --remove did
	Notes   []string               `json:"notes"`             // where the client does not do what one would expect
}

// told is what clients are to be told of the mirror.
func (o clientFlags) told() (clientconfig.Mirror, error) {
	m := clientconfig.Mirror{URL: o.mirror, Registries: o.registries, CA: o.ca, PullOnly: o.pullOnly, Referrers: o.referrers}
	if o.config != "" {
		cfg, err := config.Load(o.config)
		if err != nil {
			return m, err
		}
		if m.URL == "" {
			if m.URL, err = reachedAt(cfg); err != nil {
				return m, err
			}
		}
		for i := 0; len(o.registries) == 0 && i < len(cfg.Mirrors); i++ {
			m.Registries = append(m.Registries, cfg.Mirrors[i].Names...)
		}
	}
	if m.URL == "" {
		m.URL = "http://127.0.0.1:5000"
	}
	return m, m.Check()
}

// reachedAt is the listener's URL, if it has one address.
func reachedAt(cfg *config.Config) (string, error) {
	host, port, err := net.SplitHostPort(cfg.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() || port == "0" {
		return "", fmt.Errorf("the mirror listens on %s: say by --mirror how clients reach it", cfg.Listen)
	}
	scheme := "http://"
	if cfg.TLS != nil {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port), nil
}

// teller prints what clients are to be told, or what was done to tell them.
type teller struct {
	out, warn io.Writer
	output    *cli.Output
}

// tell prints or installs. What was done before an error came is printed too.
func (t teller) tell(ctx context.Context, o clientFlags, c clientconfig.Client, m clientconfig.Mirror) (err error) {
	a := clientAnswer{Client: c.Name, Notes: []string{}}
	var held *clientconfig.Holding
	switch {
	case o.hold:
		held, a.Changes, err = c.Hold(o.root, m)
	case o.install:
		a.Changes, err = c.Install(o.root, m)
	case o.removal:
		a.Changes, err = c.Uninstall(o.root, m)
	default:
		a.Files, err = c.Contents(m)
	}
	if err == nil && !o.removal {
		a.Notes = o.warnings(c, m)
	}
	if err = errors.Join(err, t.print(a)); err != nil || held == nil {
		return err
	}
	<-ctx.Done()
	a = clientAnswer{Client: c.Name, Notes: []string{}}
	var kept bool
	if a.Changes, kept, err = held.Release(); kept {
		a.Notes = append(a.Notes, "kept: another process holds them")
	}
	return errors.Join(err, t.print(a))
}

// warnings are of the client in general, and after an installation of this one.
func (o clientFlags) warnings(c clientconfig.Client, m clientconfig.Mirror) []string {
	warnings := c.Warnings(m)
	if !o.install || c.Examine == nil {
		return warnings
	}
	found, err := c.Examine(o.root)
	if err != nil {
		found = []string{"not examined: " + err.Error()}
	}
	return append(found, warnings...)
}

func (t teller) print(a clientAnswer) error {
	return t.output.Print(t.out, a, func(w io.Writer) error {
		var text strings.Builder
		for _, f := range a.Files {
			if f.Path != "" {
				fmt.Fprintf(&text, "# %s\n", f.Path)
			}
			text.WriteString(f.Text)
		}
		for _, ch := range a.Changes {
			fmt.Fprintf(&text, "%s: %s\n", ch.Path, ch.What)
		}
		_, err := io.WriteString(w, text.String())
		for _, n := range a.Notes {
			fmt.Fprintln(t.warn, "note:", n)
		}
		return err
	})
}
