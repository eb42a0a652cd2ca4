package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// OutputFlag adds --output: table for people, json for machines.
func OutputFlag(cmd *cobra.Command) *Output {
	o := Output("table")
	cmd.Flags().VarP(&o, "output", "o", "`FORMAT` of the answer: table or json")
	CompleteWords(cmd, "output", "table\tfor people", "json\tfor machines")
	return &o
}

// Output is a pflag.Value: the format of an answer.
type Output string

func (o *Output) String() string { return string(*o) }

// Type is what completion scripts call it.
func (o *Output) Type() string { return "format" }

// Set refuses what is neither table nor json.
func (o *Output) Set(s string) error {
	if s != "table" && s != "json" {
		return fmt.Errorf("want table or json")
	}
	*o = Output(s)
	return nil
}

// JSON reports whether machines read the answer.
func (o *Output) JSON() bool { return *o == "json" }

// Print writes an answer: v to machines, what table writes to people.
func (o *Output) Print(w io.Writer, v any, table func(io.Writer) error) error {
	if !o.JSON() {
		return table(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Table writes rows below their headings, in columns.
func Table(w io.Writer, headings []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, cells := range append([][]string{headings}, rows...) {
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// Digest is enough of d to tell images apart at a glance.
func Digest(d digest.Digest) string {
	if d == "" {
		return "-"
	}
	return d.Encoded()[:min(12, len(d.Encoded()))]
}

// Time is t in UTC, to the second.
func Time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// Size is n bytes for people, in powers of 1024.
func Size(n int64) string {
	f, unit := float64(n), ""
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "" {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.1f%s", f, unit)
}

// Line keeps a cell on its line, and harmless on a terminal.
func Line(s string) string { return Printable(strings.Join(strings.Fields(s), " "), "") }

// Printable makes text from elsewhere harmless on a terminal: no control characters but those of keep.
func Printable(s, keep string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || strings.ContainsRune(keep, r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
