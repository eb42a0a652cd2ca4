package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"

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
		clients = append(clients, c.Name)
		byName[c.Name] = c
		long += fmt.Sprintf("  %-12s %s\n", c.Name, c.About)
	}
	cmd := &cobra.Command{
		Use:       "client-config CLIENT",
		Short:     "Print or install what makes a container client use the mirror",
		Long:      strings.TrimSpace(long),
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: clients,
	}
	var o clientFlags
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration file of the mirror, from which --mirror and --registry are taken")
	f.StringVar(&o.mirror, "mirror", "", "the mirror as clients reach it (default http://127.0.0.1:5000, or as --config says)")
	f.StringArrayVar(&o.registries, "registry", nil, "host whose images the mirror serves; may be repeated")
	f.StringVar(&o.ca, "ca", "", "file of the authority that signed the mirror's certificate, where the client runs")
	f.BoolVar(&o.pullOnly, "pull-only", false, "leave tags to the registry itself: the mirror serves content alone")
	f.BoolVar(&o.referrers, "referrers", false, "containerd 2.2 and later: ask the mirror for referrers too")
	f.BoolVar(&o.install, "install", false, "write the files")
	f.BoolVar(&o.hold, "hold", false, "with --install: keep them until SIGTERM (containerd, docker)")
	f.BoolVar(&o.removal, "remove", false, "take the mirror out of the files")
	f.StringVar(&o.root, "root", "/", "directory that stands for / with --install and --remove")
	cmd.MarkFlagsMutuallyExclusive("install", "remove")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := o.told()
		if err != nil {
			return err
		}
		if o.hold && !o.install {
			return errors.New("--hold: belongs to --install")
		}
		return o.tell(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), byName[args[0]], m)
	}
	return cmd
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

func (o clientFlags) tell(ctx context.Context, out, warn io.Writer, c clientconfig.Client, m clientconfig.Mirror) error {
	var changes []clientconfig.Change
	var held *clientconfig.Holding
	var err error
	switch {
	case o.hold:
		held, changes, err = c.Hold(o.root, m)
	case o.install:
		changes, err = c.Install(o.root, m)
	case o.removal:
		changes, err = c.Uninstall(o.root, m)
	default:
		err = c.Print(out, m)
	}
	printChanges(out, changes)
	if err != nil || o.removal {
		return err
	}
	for _, w := range o.warnings(c, m) {
		fmt.Fprintln(warn, "note:", w)
	}
	if held == nil {
		return nil
	}
	<-ctx.Done()
	changes, kept, err := held.Release()
	printChanges(out, changes)
	if kept {
		fmt.Fprintln(out, "kept: another process holds them")
	}
	return err
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

func printChanges(out io.Writer, changes []clientconfig.Change) {
	for _, ch := range changes {
		fmt.Fprintf(out, "%s: %s\n", ch.Path, ch.What)
	}
}
