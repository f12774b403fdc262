package main

import (
	"context"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) exposeCommand() *cobra.Command {
	var req api.ExposeRequest
	cmd := &cobra.Command{
		Use:   "expose [ADDR...]",
		Short: "Put this host on the network",
		Long: `Put this host on the network: give the bridge addresses, and print them. Without
ADDR it gets one in the default subnet. The host then reaches the containers of these
subnets, and they reach it. What other machines send to the containers through this
host, and the containers to them, gets an address of the host (masquerade). It lasts
over restarts, until weave hide, and doing it twice is harmless.

` + addrHelp,
		Example: `  weave expose
  weave expose -h host1.weave.local
  weave expose net:10.2.0.0/16 10.3.0.1/24
  weave expose --without-masquerade`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Addrs, err = parseAddrs(cmd, args); err != nil {
				return err
			}
			return a.askLong(cmd, req.Wait, func(ctx context.Context, c *api.Client) error {
				got, err := c.Expose(ctx, req)
				return a.printAddrs(got, err)
			})
		},
		ValidArgsFunction: completeAddrs,
	}
	addNames(cmd, &req.Names)
	f := cmd.Flags()
	f.BoolVar(&req.WithoutMasquerade, "without-masquerade", false, "leave the addresses of what passes this host as they are")
	f.BoolVar(&req.Wait, "wait", false, waitHelp)
	return cmd
}
