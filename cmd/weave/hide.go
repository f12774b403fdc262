package main

import (
	"context"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) hideCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hide [ADDR...]",
		Short: "Take this host off the network",
		Long: `Take addresses that weave expose gave from the bridge, or all of them, and print
those that were there. Doing it twice is harmless.

ADDR is an address with the length of its subnet; or net:CIDR or net:default, for
those that are in that subnet.`,
		Example: `  weave hide
  weave hide net:10.2.0.0/16`,
		RunE: func(cmd *cobra.Command, args []string) error {
			addrs, err := parseAddrs(cmd, args)
			if err != nil {
				return err
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				got, err := c.Hide(ctx, api.HideRequest{Addrs: addrs})
				return a.printAddrs(got, err)
			})
		},
		ValidArgsFunction: completeAddrs,
	}
}
