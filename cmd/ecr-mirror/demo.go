package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// The demo's cast: two registries of two accounts in two regions.
const (
	demoSourceAccount, demoSourceRegion           = "111122223333", "us-west-2"
	demoDestinationAccount, demoDestinationRegion = "444455556666", "eu-central-1"
	demoSourceHost                                = demoSourceAccount + ".dkr.ecr." + demoSourceRegion + ".amazonaws.com"
	demoDestinationHost                           = demoDestinationAccount + ".dkr.ecr." + demoDestinationRegion + ".amazonaws.com"
	demoQueue                                     = "ecr-pushes"
	demoPatience                                  = 2 * time.Minute // for one step
)

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the mirror at work between two emulated ECR regions",
		Long: `Demo starts two emulated ECR regions and a mirror between them, pushes an image to the source, waits for its event to
replicate it, pulls it through the mirror, and pulls a second image that was never replicated. Each step is a line. It then
stays up for docker pull until SIGTERM or SIGINT, or ends by itself with --once. It needs no configuration and no network.`,
		Example: `
# From the first push to the last pull, in a second
ecr-mirror demo --once
# Stay up for docker pull
ecr-mirror demo`,
	}
	once := cmd.Flags().Bool("once", false, "end when the demonstration is over")
	verbose := cmd.Flags().Bool("verbose", false, "print the mirror's log to standard error")
	listen := cmd.Flags().String("listen", "127.0.0.1:5000", "`HOST:PORT` of the mirror; with --once any free port")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *once && !cmd.Flags().Changed("listen") {
			*listen = "127.0.0.1:0"
		}
		log := slog.New(slog.DiscardHandler)
		if *verbose {
			log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		}
		return runDemo(cmd.Context(), cmd.OutOrStdout(), *listen, *once, log)
	}
	return cmd
}

// demo is the stage: emulator, mirror, and a client of each registry.
type demo struct {
	out                 io.Writer
	emu                 *ecrtest.Emulator
	source, destination *remote.Registry // as docker push and pull see them
	mirror              *remote.Registry
	app                 *app
}

func runDemo(ctx context.Context, out io.Writer, listen string, once bool, log *slog.Logger) (err error) {
	dir, err := os.MkdirTemp("", "ecr-mirror-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	emu, at, err := startEmulator(emulatorOptions{
		registries: []string{demoSourceAccount + "/" + demoSourceRegion, demoDestinationAccount + "/" + demoDestinationRegion},
		queues:     []string{demoSourceAccount + "/" + demoSourceRegion + "/" + demoQueue},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emu.Close()) }()
	d := &demo{out: out, emu: emu}
	d.printf("two emulated ECR regions: source %s, destination %s\n", demoSourceHost, demoDestinationHost)

	yaml := fmt.Sprintf(`
listen: %s
admin: 127.0.0.1:0
cache: {path: %s, size: 1GiB}
mirrors:
- source:      {registry: %s, endpoint: %q}
  destination: {registry: %s, endpoint: %q}
  events: {sqs: %q}
`, listen, filepath.Join(dir, "cache"), demoSourceHost, at.Endpoint, demoDestinationHost, at.Endpoint, at.Queues[0]["url"])
	cfg, err := config.Parse("demo.yaml", []byte(yaml), os.LookupEnv)
	if err != nil {
		return err
	}
	base := aws.Config{Region: demoSourceRegion, Credentials: credentials.NewStaticCredentialsProvider(
		at.AccessKeyID[demoSourceAccount], at.SecretAccessKey[demoSourceAccount], "")}
	if err := d.connect(at); err != nil {
		return err
	}
	if d.app, err = newApp(ctx, cfg, &base, log); err != nil {
		return err
	}
	if d.mirror, err = remote.New(remote.Options{Registry: "http://" + d.app.registryAddr.String()}); err != nil {
		return errors.Join(err, d.app.close())
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.app.run(runCtx) }()
	if err = d.play(ctx); err == nil && !once {
		d.printf("\nTry it: docker pull %s/team/app:v1\nLook at it: http://%s/\nThe mirror stays up; Ctrl-C ends it.\n", d.app.registryAddr, d.app.adminAddr)
		select {
		case <-ctx.Done():
		case err = <-ended:
			return cmp.Or(err, errors.New("the mirror ended by itself"))
		}
	}
	stop()
	return errors.Join(err, <-ended)
}

// connect logs in to both registries as docker login does.
func (d *demo) connect(at emulated) (err error) {
	clients := make([]*remote.Registry, len(at.Registries))
	for i, r := range at.Registries {
		clients[i], err = remote.New(remote.Options{Registry: "http://" + r.Host, Username: "AWS", Password: d.emu.Token(r.Account, r.Region)})
		if err != nil {
			return err
		}
	}
	d.source, d.destination = clients[0], clients[1]
	for _, repo := range []string{"team/app", "team/old"} {
		if err := d.emu.Registry(demoSourceAccount, demoSourceRegion).CreateRepository(repo); err != nil {
			return err
		}
	}
	return nil
}

// play is the demonstration.
func (d *demo) play(ctx context.Context) error {
	app, err := newDemoImage("hello from team/app", 1, 8<<20)
	if err != nil {
		return err
	}
	old, err := newDemoImage("hello from team/old", 2, 8<<20)
	if err != nil {
		return err
	}

	d.printf("\n1. push team/app:v1 to the source\n")
	pushed := time.Now()
	if err := app.push(ctx, d.source, "team/app", "v1"); err != nil {
		return err
	}
	if err := d.arrived(ctx, "team/app", "v1", app.manifest); err != nil {
		return err
	}
	d.printf("   its event replicated it: at the destination %v after the push\n", time.Since(pushed).Round(time.Millisecond))

	d.printf("2. pull team/app:v1 through the mirror\n")
	if err := d.pull(ctx, "team/app", "v1", app.manifest); err != nil {
		return err
	}

	d.printf("3. an image whose event was lost: push team/old:v1 to the source\n")
	d.emu.OnEvent(func(ecrtest.Event) []ecrtest.Delivery { return nil })
	err = old.push(ctx, d.source, "team/old", "v1")
	d.emu.OnEvent(nil)
	if err != nil {
		return err
	}
	if _, err := d.destination.Resolve(ctx, "team/old", "v1"); registry.ClassOf(err) != registry.NotFound {
		return fmt.Errorf("team/old:v1 should not be at the destination yet: %v", err)
	}
	d.printf("   the destination does not have it\n")

	d.printf("4. pull team/old:v1 through the mirror: the first pull works, and is the replication\n")
	pulled := time.Now()
	if err := d.pull(ctx, "team/old", "v1", old.manifest); err != nil {
		return err
	}
	if err := d.arrived(ctx, "team/old", "v1", old.manifest); err != nil {
		return err
	}
	d.printf("   at the destination %v after the pull began\n", time.Since(pulled).Round(time.Millisecond))

	sent := d.emu.Registry(demoSourceAccount, demoSourceRegion).LayerBytes()
	crossed := "each byte crossed regions once"
	if sent > app.size()+old.size() { // this machine was busy
		crossed = "a download that stalled was begun again"
	}
	d.printf("\nThe source sent %d layer bytes for two images of %d: %s.\n", sent, app.size()+old.size(), crossed)
	return nil
}

func (d *demo) pull(ctx context.Context, repo, tag string, want registry.Descriptor) error {
	start := time.Now()
	got, n, err := pull(ctx, d.mirror, repo, tag)
	if err != nil {
		return err
	}
	if got.Digest != want.Digest {
		return fmt.Errorf("pull %s:%s: got %s, want %s", repo, tag, got.Digest, want.Digest)
	}
	d.printf("   got %s, %d bytes, every digest verified, in %v\n", got.Digest, n, time.Since(start).Round(time.Millisecond))
	return nil
}

// arrived waits until the destination's tag names want and everything under it can be pulled there.
func (d *demo) arrived(ctx context.Context, repo, tag string, want registry.Descriptor) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for {
		got, err := d.destination.Resolve(ctx, repo, tag)
		if err == nil && got.Digest == want.Digest {
			_, _, err := pull(ctx, d.destination, repo, tag)
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s:%s did not arrive at the destination in %v: %v", repo, tag, demoPatience, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }
