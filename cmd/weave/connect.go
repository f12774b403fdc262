package main

import (
	"context"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) connectCommand() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:   "connect [--replace] PEER...",
		Short: "Connect to more peers, and keep trying",
		Long: `Connect to more peers, and keep trying. PEER is HOST or HOST:PORT. With --replace
the given peers become the only targets; existing connections stay.`,
		Example: `  weave connect host3
  weave connect 192.0.2.7:6783 [2001:db8::7]:6783
  weave connect --replace host4 host5`,
		RunE: func(cmd *cobra.Command, peers []string) error {
			if len(peers) == 0 && !replace {
				return usage(cmd, "no peers")
			}
			for _, p := range peers {
				if _, err := api.ParsePeer(p); err != nil {
					return usage(cmd, "%w", err)
				}
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				return c.Connect(ctx, api.ConnectRequest{Peers: peers, Replace: replace})
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "forget all other targets")
	return cmd
}
