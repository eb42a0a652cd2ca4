package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
)

// maxAdminAnswer bounds an answer in bytes: a page of a thousand entries with their errors is a few MiB.
const maxAdminAnswer = 64 << 20

// errNotServing means that nothing listens there: no mirror runs, so the command may do it itself.
var errNotServing = errors.New("no mirror is running")

// adminFlags say which running mirror a command asks: that of a configuration, or whose admin port is where --admin says.
type adminFlags struct{ config, admin *string }

func addAdminFlags(cmd *cobra.Command) adminFlags {
	return adminFlags{configFlag(cmd),
		cmd.Flags().String("admin", "", "ask the mirror whose admin port is on `HOST:PORT` of this host, and do nothing without it; the configuration is not read")}
}

// load returns the client, and the configuration, which has nothing but the admin address if that was given.
func (f adminFlags) load(notes io.Writer) (*adminClient, *config.Config, error) {
	if *f.admin != "" {
		if _, _, err := net.SplitHostPort(*f.admin); err != nil {
			return nil, nil, cli.Exitf(cli.Usage, "--admin: %w", err)
		}
		return &adminClient{addr: *f.admin, only: true}, &config.Config{Admin: *f.admin}, nil
	}
	cfg, err := config.Load(*f.config)
	if err != nil {
		return nil, nil, err
	}
	return &adminClient{addr: cfg.Admin, notes: notes}, cfg, nil
}

// adminClient asks a running mirror on this host.
type adminClient struct {
	addr  string
	only  bool      // there is nobody else to ask
	notes io.Writer // is told when nobody serves; nil: not
}

// do returns the answer's body, which the caller closes. errNotServing comes wrapped, unless there is nobody else to ask.
func (c *adminClient) do(ctx context.Context, method, path string) (io.ReadCloser, error) {
	host, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() { // it listens everywhere, so here, too
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	if err := logIn(req, os.Getenv); err != nil {
		return nil, err
	}
	// It is this host: a proxy that the environment names has no part in it.
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: time.Minute}}).Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, c.refused()
	}
	if err != nil {
		return nil, fmt.Errorf("ask the mirror: %w", err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // what there is of it will do
	var problem struct{ Error string }
	if json.Unmarshal(text, &problem) != nil || problem.Error == "" {
		problem.Error = fmt.Sprintf("the mirror on %s answers %s: %s", c.addr, res.Status, strings.TrimSpace(string(text)))
	}
	err = errors.New(cli.Line(problem.Error))
	if res.StatusCode == http.StatusBadRequest {
		err = &registry.Error{Class: registry.Invalid, Err: err}
	}
	return nil, err
}

// refused is what it means that nothing listens.
func (c *adminClient) refused() error {
	if c.only {
		return fmt.Errorf("no mirror listens on %s: start it, run this command on its host, or name its admin port by --admin HOST:PORT", c.addr)
	}
	if c.notes != nil {
		fmt.Fprintf(c.notes, "note: no mirror listens on %s (admin): working without one\n", c.addr)
		c.notes = nil // once
	}
	return fmt.Errorf("%w: nothing listens on %s", errNotServing, c.addr)
}

// decode does a request and decodes its answer into out.
func (c *adminClient) decode(ctx context.Context, method, path string, out any) error {
	body, err := c.do(ctx, method, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAdminAnswer)).Decode(out); err != nil {
		return fmt.Errorf("the mirror's answer: %w", err)
	}
	return nil
}

// sleep waits for d, or until ctx ends: false.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
