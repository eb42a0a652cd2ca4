package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

func emulatorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Run an emulated Amazon ECR",
		Long: `Emulator runs ECR's control API (SigV4 verified), the registries themselves (docker login, push, pull), the layer host
with its presigned URLs, ECR's own replication, EventBridge rules, and an SQS for push events, all on loopback. IAM is enforced: one
account's administrator may act in another only as the policies there say. Once it is ready it prints one line of JSON: where
everything is, and the credentials of each account. SIGTERM or SIGINT ends it. docs/emulator.md says what it does as ECR
does, and how we know.`,
		Example: `
# One registry of one account, on any free port
ecr-mirror emulator --registry 111122223333/us-west-2
# Two regions, and a queue that gets the events of the first
ecr-mirror emulator --registry 111122223333/us-west-2 --registry 111122223333/eu-central-1 --queue 111122223333/us-west-2/pushes
# What stays after a restart, with ECR's throttling
ecr-mirror emulator --dir state --quotas --registry 111122223333/us-west-2`,
	}
	o := emulatorOptions{strict: true, layerName: "localhost"} // clients that follow a redirect to another name leave their credentials
	var anybody, quotas bool
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`HOST:PORT` of the control API and of SQS")
	f.StringVar(&o.dir, "dir", "", "`DIRECTORY` that keeps the state (default: memory)")
	f.StringArrayVar(&o.registries, "registry", nil, "`ACCOUNT/REGION[=HOST:PORT]`: a registry with a listener of its own; may be repeated")
	f.StringArrayVar(&o.queues, "queue", nil, "`ACCOUNT/REGION/NAME`: a queue that gets that registry's events; may be repeated")
	f.StringArrayVar(&o.roles, "role", nil, "`ACCOUNT/NAME=FILE`: a role that may do what the identity policy in FILE says; may be repeated")
	f.BoolVar(&anybody, "cross-account", false, "let every account's administrator act in every account, as with policies in place")
	f.BoolVar(&quotas, "quotas", false, "throttle each account and region at ECR's default quotas")
	f.DurationVar(&o.replicationDelay, "replication-delay", time.Second, "`DURATION` from a push to ECR's own replication of it, as 1s")
	f.Float64Var(&o.events.Loss, "event-loss", 0, "the `SHARE` of events that is lost, 0 to 1")
	f.Float64Var(&o.events.Duplicates, "event-duplicates", 0, "the `SHARE` of events that is delivered twice, 0 to 1")
	f.DurationVar(&o.events.Delay, "event-delay", 0, "the longest `DURATION` of an event's delay, as 5s; each has its own, so that they overtake each other")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.strict = !anybody
		if quotas {
			o.rates = ecrtest.Quotas()
		}
		emu, ready, err := startEmulator(o)
		if err != nil {
			return err
		}
		defer emu.Close()
		if err := ready.print(cmd.OutOrStdout()); err != nil {
			return err
		}
		<-cmd.Context().Done()
		return emu.Close()
	}
	return cmd
}

type emulatorOptions struct {
	listen, dir        string
	registries, queues []string
	roles              []string
	clock              func() time.Time // nil: time.Now
	strict             bool             // across accounts policies are needed
	decisions          func(iam.Request, iam.Verdict)
	rates              map[string]float64
	replicationDelay   time.Duration
	layerName          string
	events             ecrtest.EventQuality
}

// emulated says where everything is.
type emulated struct {
	Endpoint        string              `json:"endpoint"`
	Layers          string              `json:"layers"`
	Registries      []emulatedRegistry  `json:"registries"`
	Queues          []map[string]string `json:"queues"`
	AccessKeyID     map[string]string   `json:"accessKeyId"`     // by account, and by ACCOUNT/NAME of a role
	SecretAccessKey map[string]string   `json:"secretAccessKey"` // by account, and by ACCOUNT/NAME of a role
}

type emulatedRegistry struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	Host    string `json:"host"` // where it listens
	Name    string `json:"name"` // its host name at AWS
}

func (e emulated) print(w io.Writer) error { return json.NewEncoder(w).Encode(e) }

// startEmulator starts an emulator in which, unless o is strict, every account's administrator may act in every account, as with
// cross-account policies in place. The caller closes it.
func startEmulator(o emulatorOptions) (_ *ecrtest.Emulator, at emulated, err error) {
	at.AccessKeyID, at.SecretAccessKey = map[string]string{}, map[string]string{}
	emu, err := ecrtest.New(ecrtest.Options{Dir: o.dir, Clock: o.clock, CrossAccount: !o.strict, Decisions: o.decisions, Rates: o.rates,
		ReplicationDelay: o.replicationDelay, Events: o.events})
	if err != nil {
		return nil, at, err
	}
	listen := ecrtest.Listen{Control: o.listen, LayerName: o.layerName, Registries: map[string]string{}}
	for _, text := range o.registries {
		place, addr, _ := strings.Cut(text, "=")
		account, region, ok := strings.Cut(place, "/")
		name := account + ".dkr.ecr." + region + ".amazonaws.com"
		if !ok || !ecrtest.ValidPlace(account, region) {
			return nil, at, fmt.Errorf("emulator: registry %q: want ACCOUNT/REGION[=ADDRESS], like 111122223333/us-west-2", text)
		}
		listen.Registries[name] = addr
		c := emu.Credentials(account)
		at.AccessKeyID[account], at.SecretAccessKey[account] = c.AccessKeyID, c.SecretAccessKey
		at.Registries = append(at.Registries, emulatedRegistry{Account: account, Region: region, Name: name})
	}
	var queues [][3]string
	for _, text := range o.queues {
		p := strings.Split(text, "/")
		if len(p) != 3 || p[2] == "" || !ecrtest.ValidPlace(p[0], p[1]) {
			return nil, at, fmt.Errorf("emulator: queue %q: want ACCOUNT/REGION/NAME", text)
		}
		queues = append(queues, [3]string(p))
	}
	for _, text := range o.roles {
		name, file, ok := strings.Cut(text, "=")
		account, role, named := strings.Cut(name, "/")
		if !ok || !named || role == "" || !ecrtest.ValidPlace(account, "us-east-1") {
			return nil, at, fmt.Errorf("emulator: role %q: want ACCOUNT/NAME=FILE", text)
		}
		policy, err := os.ReadFile(file)
		if err != nil {
			return nil, at, fmt.Errorf("emulator: role %s: %w", name, err)
		}
		c, err := emu.RoleWith(account, role, string(policy))
		if err != nil {
			return nil, at, err
		}
		at.AccessKeyID[name], at.SecretAccessKey[name] = c.AccessKeyID, c.SecretAccessKey
	}
	if err := emu.Start(listen); err != nil {
		return nil, at, err
	}
	at.Endpoint, at.Layers = emu.ControlURL(), emu.LayerURL()
	for i, r := range at.Registries {
		at.Registries[i].Host = emu.RegistryHost(r.Account, r.Region)
	}
	for _, q := range queues {
		emu.Subscribe(q[0], q[1], q[2])
		at.Queues = append(at.Queues, map[string]string{"name": q[2], "url": emu.QueueURL(q[0], q[1], q[2])})
	}
	return emu, at, nil
}
