package main

import (
	"context"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) detachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "detach [ADDR...] CONTAINER",
		Short: "Take a container off the network",
		Long: `Take addresses from a container, or all of them, and print those that were there.
The interface goes with the last address. Doing it twice is harmless.

` + containerHelp + `
ADDR is an address with the length of its subnet; or net:CIDR or net:default, for
those of the container's addresses that are in that subnet.`,
		Example: `  weave detach netns:blue
  weave detach 10.55.0.1/24 netns:blue
  weave detach net:10.2.0.0/16 netns:blue`,
		Args: argCount(1, -1, "[ADDR...] CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			addrs, container, err := parseAttach(cmd, args)
			if err != nil {
				return err
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				got, err := c.Detach(ctx, api.DetachRequest{Container: container, Addrs: addrs})
				return a.printAddrs(got, err)
			})
		},
		ValidArgsFunction: completeAttach,
	}
}
