package main

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/config"
)

// completeTime is what a shell waits for a completion at most. What a mirror does not say by then is not completed.
const completeTime = 5 * time.Second

// asked has a running mirror asked for a completion, as the flags so far say. Without one nothing is completed.
func asked(cmd *cobra.Command, ask func(context.Context, *adminClient) []string) ([]string, cobra.ShellCompDirective) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	file, _ := cmd.Flags().GetString("config") // every command that asks has both
	at, _ := cmd.Flags().GetString("admin")
	client, _, err := adminFlags{&file, &at}.load(nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	words := ask(ctx, client)
	slices.Sort(words)
	return slices.Compact(words), cobra.ShellCompDirectiveNoFileComp
}

// images returns what a running mirror knows.
func images(ctx context.Context, c *adminClient) []entry {
	query := url.Values{"limit": {"1000"}}
	var answer statusAnswer
	_ = c.decode(ctx, http.MethodGet, "/status?"+query.Encode(), &answer) // what is not known is not completed
	return answer.Images
}

// completeImages completes REF from what a running mirror knows.
func completeImages(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return asked(cmd, func(ctx context.Context, c *adminClient) (words []string) {
		for _, e := range images(ctx, c) {
			if word := e.Repository + ":" + e.Tag; e.Tag != "" && strings.HasPrefix(word, begun) {
				words = append(words, word)
			}
		}
		return words
	})
}

// completeRepositories completes a repository from what a running mirror knows.
func completeRepositories(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return asked(cmd, func(ctx context.Context, c *adminClient) (words []string) {
		for _, e := range images(ctx, c) {
			words = append(words, e.Repository)
		}
		return words
	})
}

// completeLetters completes the IDs of dead letters.
func completeLetters(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if cmd.Name() == "show" && len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return asked(cmd, func(ctx context.Context, c *adminClient) (words []string) {
		body, err := c.do(ctx, http.MethodGet, "/dead-letters")
		if err != nil {
			return nil
		}
		defer body.Close()
		_ = letters(body, func(l admin.DeadLetter, _ []byte) error { // what came before an error will do
			if !slices.Contains(args, l.ID) {
				words = append(words, cobra.CompletionWithDesc(l.ID, what(l)))
			}
			return nil
		})
		return words
	})
}

// completeNames completes the registries that the configuration's mirrors answer for.
func completeNames(cmd *cobra.Command, _ []string, _ string) (words []string, _ cobra.ShellCompDirective) {
	file, _ := cmd.Flags().GetString("config")
	if cfg, err := config.Load(file); err == nil {
		for _, m := range cfg.Mirrors {
			words = append(words, m.Names...)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
