package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/config"
)

func deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead-letters",
		Short: "List, show, retry and drop what the mirror gave up",
		Long: `Dead letters are jobs that failed too often or cannot succeed (a conflict: the destination's tag is immutable and names
another image), and events that could not become jobs. These commands ask the running mirror on this host, on its admin
port; it answers nobody else.`,
	}
	c := &adminClient{}
	f := cmd.PersistentFlags()
	f.StringVarP(&c.config, "config", "c", "ecr-mirror.yaml", "configuration file, which says where the admin port is")
	f.StringVar(&c.addr, "admin", "", "admin address as host:port, instead of the configuration's")
	f.StringVarP(&c.output, "output", "o", "table", "table, or json: one object to a line")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error {
		if c.output != "table" && c.output != "json" {
			return fmt.Errorf("output %q: want table or json", c.output)
		}
		return nil
	}
	list := &cobra.Command{Use: "list", Short: "List all dead letters", Args: cobra.NoArgs}
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		body, err := c.do(cmd.Context(), http.MethodGet, "/dead-letters")
		if err != nil {
			return err
		}
		defer body.Close()
		return c.table(cmd.OutOrStdout(), body)
	}
	show := &cobra.Command{Use: "show ID", Short: "Show a dead letter with its message", Args: cobra.ExactArgs(1)}
	show.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := c.do(cmd.Context(), http.MethodGet, "/dead-letters/"+url.PathEscape(args[0]))
		if err != nil {
			return err
		}
		defer body.Close()
		return c.show(cmd.OutOrStdout(), body)
	}
	cmd.AddCommand(list, show,
		c.each("retry", "Try jobs again now, and read events again", http.MethodPost, "/retry"),
		c.each("drop", "Drop dead letters for good", http.MethodDelete, ""))
	return cmd
}

// each is a command that does something to dead letters one by one; those that fail do not keep it from the others.
func (c *adminClient) each(name, short, method, path string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: name + " ID...", Short: short}
	cmd.Flags().BoolVar(&all, "all", false, name+" all there are now")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if all == (len(ids) > 0) {
			return errors.New("name dead letters by their IDs, or give --all")
		}
		ctx := cmd.Context()
		if all {
			body, err := c.do(ctx, http.MethodGet, "/dead-letters")
			if err != nil {
				return err
			}
			defer body.Close()
			err = letters(body, func(l admin.DeadLetter, _ []byte) error { ids = append(ids, l.ID); return nil })
			if err != nil {
				return err
			}
		}
		var errs []error
		for _, id := range ids {
			body, err := c.do(ctx, method, "/dead-letters/"+url.PathEscape(id)+path)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s %s: %w", name, id, err))
				continue
			}
			err = letters(body, func(l admin.DeadLetter, line []byte) error {
				if c.output == "json" {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", line)
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), name, l.ID, what(l))
				return err
			})
			if errs = append(errs, err); errors.Join(body.Close(), err) != nil {
				break
			}
		}
		return errors.Join(errs...)
	}
	return cmd
}

// adminClient asks a running mirror on this host.
type adminClient struct{ config, addr, output string }

// do returns the answer's body, which the caller closes.
func (c *adminClient) do(ctx context.Context, method, path string) (io.ReadCloser, error) {
	addr := c.addr
	if addr == "" {
		cfg, err := config.Load(c.config)
		if err != nil {
			return nil, err
		}
		addr = cfg.Admin
	}
	host, port, err := net.SplitHostPort(addr)
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
	if err != nil {
		return nil, fmt.Errorf("ask the mirror (does it run here?): %w", err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // what there is of it will do
	var problem struct{ Error string }
	if json.Unmarshal(text, &problem) != nil || problem.Error == "" {
		problem.Error = res.Status + ": " + strings.TrimSpace(string(text))
	}
	return nil, errors.New(printable(problem.Error, ""))
}

// letters reads one JSON object after another.
func letters(r io.Reader, each func(l admin.DeadLetter, line []byte) error) error {
	for in := json.NewDecoder(r); ; {
		var line json.RawMessage
		switch err := in.Decode(&line); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("the mirror's answer: %w", err)
		}
		var l admin.DeadLetter
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("the mirror's answer: %w", err)
		}
		if err := each(l, line); err != nil {
			return err
		}
	}
}

func (c *adminClient) table(out io.Writer, body io.Reader) error {
	if c.output == "json" {
		_, err := io.Copy(out, body)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	n := 0
	err := letters(body, func(l admin.DeadLetter, _ []byte) error {
		if n++; n == 1 {
			fmt.Fprintln(w, "ID\tKIND\tMIRROR\tWHAT\tTIMES\tSINCE\tREASON")
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%.160s\n", l.ID, l.Kind, l.Mirror, what(l), l.Times, l.First.Local().Format(time.DateTime), printable(l.Reason, ""))
		return err
	})
	if n == 0 && err == nil {
		fmt.Fprintln(w, "no dead letters")
	}
	return errors.Join(err, w.Flush())
}

func (c *adminClient) show(out io.Writer, body io.Reader) error {
	return letters(body, func(l admin.DeadLetter, line []byte) error {
		if c.output == "json" {
			_, err := fmt.Fprintf(out, "%s\n", line)
			return err
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "id\t%s\nkind\t%s\nmirror\t%s\nwhat\t%s\nreason\t%s\ntimes\t%d\nsince\t%s\n", l.ID, l.Kind, l.Mirror, what(l),
			printable(l.Reason, ""), l.Times, l.First.Local().Format(time.DateTime))
		if l.Kind == "event" {
			message := printable(l.Body, "\n\t")
			if l.Raw != nil {
				message = fmt.Sprintf("%q", l.Raw)
			}
			fmt.Fprintf(w, "last\t%s\nsize\t%d bytes\n\n%s\n", l.Last.Local().Format(time.DateTime), l.Size, message)
		}
		return w.Flush()
	})
}

// what names the image of a dead letter.
func what(l admin.DeadLetter) string {
	if l.Kind == "event" {
		return "-"
	}
	ref := l.Repository + ":" + l.Tag
	if l.Tag == "" {
		ref = l.Repository + "@" + l.Digest
	}
	return ref + " (" + l.State + ")"
}

// printable makes text from elsewhere harmless on a terminal: no control characters but those of keep.
func printable(s, keep string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || strings.ContainsRune(keep, r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
