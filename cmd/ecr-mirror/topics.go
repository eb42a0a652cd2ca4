package main

import (
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
)

func outputTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "output",
		Short: "Who reads what is printed: tables, JSON, progress, errors",
		Long: `The answer of a command goes to standard output, and nothing else does. Progress, notes and the log go to standard
error: bars on a terminal, elsewhere a line every ten seconds. There are no colours, and where there is no terminal (or
TERM=dumb) no control characters either. What comes from registries and clients is printed without control characters.

With --output table, the default, the answer is for people, and may look different in the next version. With --output json it is for
machines: fields are added, but none is renamed or removed, and none changes its type or unit. Times are RFC 3339, sizes bytes,
durations seconds; a field that has nothing to say is left out where docs/commands.md says "optional". Plan, sync and dead-letters
print one object to a line as they find them, the others one document.

An error is text on standard error, with --output json as well, and the exit code says of which kind it is (help exit-codes).
An answer that is not complete says so itself: by a field error, or by the lack of its last line (plan's end, sync's sync).`,
	}
}

func environmentTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "environment",
		Short: "The environment variables that matter",
		Long: "These are read, and no other but those that the configuration itself names as ${NAME}:\n\n" +
			cli.Item("AWS_*", 21, "the AWS SDK's default chain: credentials, region, endpoints") +
			cli.Item("HTTPS_PROXY", 21, "and HTTP_PROXY, NO_PROXY: for registries and AWS, never for the admin port") +
			cli.Item(loginVariable, 21, "USER:PASSWORD for the admin port, where adminAuth wants a login") +
			cli.Item(loginFileVariable, 21, "the file that has it in its first line") +
			cli.Item("OTEL_*", 21, "of serve with tracing: headers with credentials, and what else OpenTelemetry's SDK reads") +
			cli.Item("NOTIFY_SOCKET", 21, "of serve: where systemd is told that it is ready, or stops") +
			cli.Item("TERM", 21, "dumb: no bars, as where there is no terminal") +
			cli.Item("TMPDIR", 21, "where copies of the queue and the demo's cache are, for a while"),
	}
}
