package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) whyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why PEER",
		Short: "Explain which path the traffic to a peer takes, and why",
		Long: `Explain which path the traffic to a peer takes, and why no better one: each path with
a verdict (in-use, standby, down or absent), the reason, the MTU that was proven, the
round trip and the packets of its heartbeats. PEER is a name or a nickname.`,
		Example: `  weave why host2
  weave why host2 --json | jq '.candidates[] | select(.verdict == "down") | .reason'`,
		Args: argCount(1, 1, "PEER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				got, err := c.Why(ctx, api.WhyRequest{Peer: args[0]})
				if err != nil {
					return err
				}
				return show(a, asJSON, got, api.WriteWhy)
			})
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.completePeers(cmd.Context(), given), cobra.ShellCompDirectiveNoFileComp
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// completePeers lists the other members of the network.
func (a *app) completePeers(ctx context.Context, given []string) (names []string) {
	if len(given) > 0 {
		return nil
	}
	a.flags.timeout = completionTimeout
	a.ask(ctx, func(ctx context.Context, c *api.Client) error {
		got, err := c.Peers(ctx)
		for _, p := range got.Peers {
			if !p.Self {
				names = append(names, p.NickName)
			}
		}
		return err
	})
	slices.Sort(names)
	return names
}
