package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// ExitCodesTopic explains exit codes.
func ExitCodesTopic() *cobra.Command {
	var text strings.Builder
	for _, c := range Codes() {
		text.WriteString(Item(fmt.Sprintf("%3d  %s", c.Code, c.Name), 16, c.Meaning))
	}
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean, the same for every command",
		Long:  "Every command ends with one of these:\n\n" + text.String(),
	}
}

// ExitCodes returns the end of a command's Long: what codes beside OK, Failed, Usage and Interrupted mean there.
func ExitCodes(special ...Code) string {
	text := "\n\nExit codes (the others: help exit-codes):\n"
	for _, c := range special {
		text += Item(fmt.Sprintf("%3d", c.Code), 3, c.Meaning)
	}
	return text
}

// Item is a line of a list in a command's Long: a name in its column, and what it means, broken into lines below each other.
func Item(name string, column int, meaning string) string {
	indent := strings.Repeat(" ", column+4)
	return fmt.Sprintf("  %-*s  %s\n", column, name, strings.ReplaceAll(fill(meaning, Width-len(indent)), "\n", "\n"+indent))
}
