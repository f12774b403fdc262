package main

import (
	"context"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) topologyCommand() *cobra.Command {
	var asJSON, asDOT bool
	cmd := &cobra.Command{
		Use:   "topology",
		Short: "Draw who is connected to whom",
		Long: `Draw who is connected to whom, as far as this peer knows: the ways that data takes
from here as a tree, and all links as a matrix.`,
		Example: `  weave topology
  weave topology --dot | dot -Tsvg > network.svg
  weave topology --json | jq '.peers[] | select(.hops > 1)'`,
		Args: argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && asDOT {
				return usage(cmd, "--json and --dot: give one of them")
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				ps, err := c.Peers(ctx)
				if err != nil {
					return err
				}
				write := api.WriteTopology
				if asDOT {
					write = api.WriteTopologyDOT
				}
				return show(a, asJSON, api.TopologyOf(ps), write)
			})
		},
	}
	addJSON(cmd, &asJSON)
	cmd.Flags().BoolVar(&asDOT, "dot", false, "print the graph for Graphviz")
	return cmd
}
