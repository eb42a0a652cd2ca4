package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Width is that of help, in columns.
const Width = 80

// Group is a heading of root's help with the commands below it.
type Group struct {
	Title    string
	Commands []*cobra.Command
}

// Assemble adds the groups' commands and the topics to root, and makes all of root behave as this package has it: call it
// last. A topic is a command that does nothing but explain: its name, Short and Long.
func Assemble(root *cobra.Command, groups []Group, topics ...*cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true // Run prints them
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.Title, Title: g.Title + ":"})
		for _, cmd := range g.Commands {
			cmd.GroupID = g.Title
			root.AddCommand(cmd)
		}
	}
	last := groups[len(groups)-1].Title
	root.SetHelpCommand(helpCommand(root, last))
	root.SetCompletionCommandGroupID(last)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	completionExamples(root)
	root.AddCommand(topics...)
	root.SetUsageTemplate(strings.NewReplacer("Flags.FlagUsages |", fmt.Sprintf("Flags.FlagUsagesWrapped %d |", Width),
		"{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", "[command]", "COMMAND").Replace(root.UsageTemplate()))
	each(root, func(cmd *cobra.Command) {
		cmd.Long = wrap(cmd.Long)
		cmd.Example = indent(cmd.Example)
		cmd.DisableFlagsInUseLine = true
		if cmd.HasAvailableLocalFlags() && !strings.Contains(cmd.Use, "[flags]") {
			cmd.Use += " [flags]"
		}
		if cmd.Args == nil {
			cmd.Args = arguments
		}
		if cmd.HasSubCommands() {
			cmd.Args, cmd.SuggestionsMinimumDistance = subcommand, 2
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	})
}

// helpCommand is cobra's, whose unknown topics are no success.
func helpCommand(root *cobra.Command, group string) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]...",
		Short:   "Explain a command or a topic",
		Long:    "Help explains a command, as --help does, or a topic: " + root.Name() + " help lists both.",
		GroupID: group,
		Args:    cobra.ArbitraryArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, cmd := range at.Commands() {
				if cmd.IsAvailableCommand() || cmd.IsAdditionalHelpTopicCommand() {
					names = append(names, cobra.CompletionWithDesc(cmd.Name(), cmd.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return Exitf(Usage, "unknown command or topic %q", strings.Join(args, " "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// completionExamples adds to cobra's completion command what it lacks beside the others.
func completionExamples(root *cobra.Command) {
	name := root.Name()
	for shell, example := range map[string]string{
		"bash": "# In this shell\nsource <(" + name + " completion bash)\n# In every shell of the user\n" + name + " completion bash >~/.local/share/bash-completion/completions/" + name,
		"zsh":  "# In a directory that $fpath has\n" + name + " completion zsh >_" + name,
		"fish": name + " completion fish >~/.config/fish/completions/" + name + ".fish",
	} {
		cmd, _, err := root.Find([]string{"completion", shell})
		if err != nil || cmd.Name() != shell {
			panic("cli: cobra completes no " + shell)
		}
		cmd.Example = example
	}
}

// arguments checks the number of arguments against the command's use line: NAME is one, [NAME] one or none, NAME... one or
// more, [NAME]... any number. With ValidArgs the first has to be one of these.
func arguments(cmd *cobra.Command, args []string) error {
	var least, most int
	var names []string
	for _, word := range strings.Fields(cmd.Use)[1:] {
		name := strings.Trim(word, "[].")
		if name == "flags" {
			continue
		}
		names = append(names, name)
		if most++; strings.HasSuffix(word, "...") {
			most = len(args)
		}
		if !strings.HasPrefix(word, "[") {
			least++
		}
	}
	if len(args) < least {
		return fmt.Errorf("%s is missing", names[len(args)])
	}
	if len(args) > most {
		return fmt.Errorf("surplus argument %q", args[most])
	}
	var valid []string
	for _, v := range cmd.ValidArgs {
		name, _, _ := strings.Cut(v, "\t")
		valid = append(valid, name)
	}
	if len(valid) > 0 && !slices.Contains(valid, args[0]) {
		return fmt.Errorf("%s %q: want %s", names[0], args[0], strings.Join(valid, ", "))
	}
	return nil
}

// subcommand refuses what is none of the commands below cmd.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text)
}

// indent puts two blanks before every line.
func indent(text string) string {
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}

// wrap fills the paragraphs of text to Width. Lines that start with a blank stay as they are.
func wrap(text string) string {
	var out []string
	for paragraph := range strings.SplitSeq(strings.TrimRight(text, " \n"), "\n\n") {
		var lines, loose []string
		for line := range strings.SplitSeq(strings.Trim(paragraph, "\n"), "\n") {
			if !strings.ContainsAny(line[:min(1, len(line))], " \t") {
				loose = append(loose, line)
				continue
			}
			if len(loose) > 0 {
				lines, loose = append(lines, fill(strings.Join(loose, " "), Width)), nil
			}
			lines = append(lines, line)
		}
		if len(loose) > 0 {
			lines = append(lines, fill(strings.Join(loose, " "), Width))
		}
		out = append(out, strings.Join(lines, "\n"))
	}
	return strings.Join(out, "\n\n")
}

// fill breaks a paragraph into lines of at most width columns, unless a word is longer.
func fill(text string, width int) string {
	var out strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > width:
			out.WriteByte('\n')
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += n
	}
	return out.String()
}
