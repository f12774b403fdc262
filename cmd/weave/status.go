package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON, check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon is doing",
		Long: `Show how the daemon is doing. With --check the exit status is 4 when not all is
well, for instance some connection is not established, and 8 when a host that should be
connected to has another password.`,
		Example: `  weave status
  weave status --json | jq .router.connections
  weave status --check && echo all is well
  weave status connections`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(cmd, "unknown sub-command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context(), asJSON, check) },
	}
	addJSON(cmd, &asJSON)
	cmd.Flags().BoolVar(&check, "check", false, "exit with 4, or 8, if not all is well")
	cmd.AddCommand(
		statusPart(a, "connections", "Show this peer's connections", (*api.Client).Connections, api.WriteConnections),
		statusPart(a, "peers", "Show all known peers and their connections", (*api.Client).Peers, api.WritePeers),
		statusPart(a, "targets", "Show the addresses that connections are made to", (*api.Client).Targets, api.WriteTargets),
		statusPart(a, "ipam", "Show how the address range is shared", (*api.Client).IPAM, api.WriteIPAM),
		statusPart(a, "dns", "Show all names", (*api.Client).DNS, api.WriteDNS),
	)
	return cmd
}

func (a *app) status(ctx context.Context, asJSON, check bool) error {
	var s api.Status
	err := a.ask(ctx, func(ctx context.Context, c *api.Client) (err error) {
		s, err = c.Status(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := show(a, asJSON, s, api.WriteStatus); err != nil {
		return err
	}
	if n := len(s.Degraded); check && n > 0 {
		more := ""
		if n > 1 {
			more = " (and more)"
		}
		code := s.Check
		if code == "" { // a daemon of another version
			code = api.CodeDegraded
		}
		return api.Errorf(code, "degraded: %s%s: see weave status connections", s.Degraded[0], more)
	}
	return nil
}

// statusPart makes the sub-command that asks for one list.
func statusPart[T any](a *app, name, short string, ask func(*api.Client, context.Context) (T, error), write func(io.Writer, T) error) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: "  weave status " + name + "\n  weave status " + name + " --json",
		Args:    argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				v, err := ask(c, ctx)
				if err != nil {
					return err
				}
				return show(a, asJSON, v, write)
			})
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// show prints v as JSON or as text.
func show[T any](a *app, asJSON bool, v T, write func(io.Writer, T) error) error {
	if asJSON {
		return a.printJSON(v)
	}
	return write(a.stdout, v)
}
