package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

// completionTimeout bounds how long a shell waits for the daemon after TAB.
const completionTimeout = time.Second

func (a *app) forgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget PEER...",
		Short: "Stop trying to connect to peers",
		Long: `Stop trying to connect to peers. PEER is the target as it was given to launch or
connect. Existing connections stay up until they break.`,
		Example: `  weave forget host3
  weave forget 192.0.2.7:6783`,
		Args: argCount(1, -1, "PEER..."),
		RunE: func(cmd *cobra.Command, peers []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				return c.Forget(ctx, api.ForgetRequest{Peers: peers})
			})
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.completeTargets(cmd.Context(), given), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// completeTargets lists the daemon's targets that are not given yet.
func (a *app) completeTargets(ctx context.Context, given []string) []string {
	var targets api.Targets
	a.flags.timeout = completionTimeout
	a.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		targets, err = c.Targets(ctx)
		return err
	})
	return slices.DeleteFunc(targets.Targets, func(t string) bool { return slices.Contains(given, t) })
}
