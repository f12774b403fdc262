package main

import (
	"context"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) psCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps [CONTAINER...]",
		Short: "List what is attached: container, MAC, addresses",
		Long: `List what is attached, one interface a line: container, MAC, addresses. The host's
own interface, the bridge, is called weave:expose. Containers that are not
attached are left out.`,
		Example: `  weave ps
  weave ps netns:blue
  weave ps --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.PsRequest
			for _, text := range args {
				c, err := api.ParseContainer(text)
				if err != nil {
					return usage(cmd, "%w", err)
				}
				req.Containers = append(req.Containers, c)
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				got, err := c.Ps(ctx, req)
				if err != nil {
					return err
				}
				return show(a, asJSON, got, api.WriteAttachments)
			})
		},
		ValidArgsFunction: completeContainers,
	}
	addJSON(cmd, &asJSON)
	return cmd
}
