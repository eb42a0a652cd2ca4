package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

func emulatorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Run an emulated Amazon ECR: several accounts and regions, layers, events, queues",
		Long: `Emulator runs ECR's control API (SigV4 verified), the registries themselves (docker login, push, pull), the layer host
with its presigned URLs, and an SQS-compatible queue for push events, all on loopback. Once it is ready it prints
one line of JSON: where everything is, and the credentials of each account.`,
		Args: cobra.NoArgs,
	}
	var o emulatorOptions
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the control API and of SQS")
	f.StringVar(&o.dir, "dir", "", "directory that keeps the state; empty: memory")
	f.StringArrayVar(&o.registries, "registry", nil, "ACCOUNT/REGION[=ADDRESS]: a registry with a listener of its own; may be repeated")
	f.StringArrayVar(&o.queues, "queue", nil, "ACCOUNT/REGION/NAME: a queue that gets that registry's events; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
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
	clock              func() time.Time // nil: time.Now
}

// emulated says where everything is.
type emulated struct {
	Endpoint        string              `json:"endpoint"`
	Layers          string              `json:"layers"`
	Registries      []emulatedRegistry  `json:"registries"`
	Queues          []map[string]string `json:"queues"`
	AccessKeyID     map[string]string   `json:"accessKeyId"`     // by account
	SecretAccessKey map[string]string   `json:"secretAccessKey"` // by account
}

type emulatedRegistry struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	Host    string `json:"host"` // where it listens
	Name    string `json:"name"` // its host name at AWS
}

func (e emulated) print(w io.Writer) error { return json.NewEncoder(w).Encode(e) }

// startEmulator starts an emulator in which every account's administrator may act in every account, as with cross-account
// policies in place. The caller closes it.
func startEmulator(o emulatorOptions) (_ *ecrtest.Emulator, at emulated, err error) {
	at.AccessKeyID, at.SecretAccessKey = map[string]string{}, map[string]string{}
	emu, err := ecrtest.New(ecrtest.Options{Dir: o.dir, Clock: o.clock, CrossAccount: true})
	if err != nil {
		return nil, at, err
	}
	listen := ecrtest.Listen{Control: o.listen, Registries: map[string]string{}}
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
