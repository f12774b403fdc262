package main

import (
	"context"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) primeCommand() *cobra.Command {
	var req api.PrimeRequest
	cmd := &cobra.Command{
		Use:   "prime",
		Short: "Divide the address range among the hosts, now",
		Long: `Divide the address range among the hosts, if that has not been done, and return when
it is. Without it, this happens when the first address is asked for. Afterwards each
host hands out addresses of its own, also when it cannot reach any other.`,
		Example: `  weave prime
  weave prime --wait`,
		Args: argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.askLong(cmd, req.Wait, func(ctx context.Context, c *api.Client) error { return c.Prime(ctx, req) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&req.Wait, "wait", false, "wait however long it takes, instead of some seconds")
	return cmd
}
