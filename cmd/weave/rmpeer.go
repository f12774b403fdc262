package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) rmpeerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rmpeer PEER...",
		Short: "Take over the addresses of peers that are gone for good",
		Long: `Take over the addresses of peers that are gone for good, and print how many they
were. PEER is a name or a nickname, as weave status ipam shows it.

Run it on one host only, and only when the peer will never come back with the state
it had: for a host that still runs, weave reset there is the way. A peer that answers
is left alone.`,
		Example: `  weave rmpeer host3
  weave rmpeer 02:aa:bb:cc:dd:ee`,
		Args: argCount(1, -1, "PEER..."),
		RunE: func(cmd *cobra.Command, peers []string) error {
			var errs []error
			for _, p := range peers {
				errs = append(errs, a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
					got, err := c.RmPeer(ctx, api.RmPeerRequest{Peer: p})
					if err != nil {
						return err
					}
					return api.WriteRemoved(a.stdout, got)
				}))
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.completeGone(cmd.Context(), given), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// completeGone lists the owners of addresses that cannot be reached.
func (a *app) completeGone(ctx context.Context, given []string) (names []string) {
	a.flags.timeout = completionTimeout
	a.ask(ctx, func(ctx context.Context, c *api.Client) error {
		got, err := c.IPAM(ctx)
		for _, s := range got.Shares {
			name := s.NickName
			if name == "" {
				name = s.Peer.String()
			}
			if !s.Reachable && !slices.Contains(given, name) {
				names = append(names, name)
			}
		}
		return err
	})
	return names
}
