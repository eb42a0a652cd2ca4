package cli

import "github.com/spf13/cobra"

// CompleteFiles has the shell complete a flag's value by the names of files that end so; without any, of all files.
func CompleteFiles(cmd *cobra.Command, flag string, ends ...string) {
	Complete(cmd, flag, cobra.FixedCompletions(ends, cobra.ShellCompDirectiveFilterFileExt))
}

// CompleteDirs has the shell complete a flag's value by the names of directories.
func CompleteDirs(cmd *cobra.Command, flag string) {
	Complete(cmd, flag, cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
}

// CompleteWords has the shell complete a flag's value by words, each of which may have a tab and an explanation.
func CompleteWords(cmd *cobra.Command, flag string, words ...string) {
	Complete(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// Complete has the shell complete a flag's value by f.
func Complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic("cli: " + err.Error()) // the flag was not added before
	}
}
