package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

const nameGrammar = `Without IP it is about all addresses that the container has on the network.
Without CONTAINER the addresses need not be on the network at all.

` + containerHelp

func (a *app) dnsAddCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "dns-add [IP...] [CONTAINER] -h NAME",
		Short: "Make a DNS name",
		Long: `Make a DNS name for addresses. It is known on all hosts, and gone when the container
is. NAME is one word, which gets the domain, or a name in the domain.

` + nameGrammar,
		Example: `  weave dns-add netns:blue -h web
  weave dns-add 10.2.0.7 netns:blue -h web.weave.local
  weave dns-add 192.0.2.1 192.0.2.2 -h db`,
		Args: argCount(1, -1, "[IP...] [CONTAINER]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := parseDNS(cmd, args, name)
			if err != nil {
				return err
			}
			if name == "" {
				return usage(cmd, "no name: give -h NAME")
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return c.AddName(ctx, req) })
		},
		ValidArgsFunction: completeContainers,
	}
	addName(cmd, &name)
	return cmd
}

func (a *app) dnsRemoveCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "dns-remove [IP...] [CONTAINER] [-h NAME]",
		Short: "Take away DNS names that this host made",
		Long: `Take away DNS names that this host made. Without -h it takes all names of these
addresses.

` + nameGrammar,
		Example: `  weave dns-remove netns:blue
  weave dns-remove 10.2.0.7 netns:blue -h web
  weave dns-remove 192.0.2.1 -h db`,
		Args: argCount(1, -1, "[IP...] [CONTAINER]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := parseDNS(cmd, args, name)
			if err != nil {
				return err
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error { return c.RemoveName(ctx, req) })
		},
		ValidArgsFunction: completeContainers,
	}
	addName(cmd, &name)
	return cmd
}

func addName(cmd *cobra.Command, to *string) {
	cmd.Flags().Bool("help", false, "help for "+cmd.Name())
	cmd.Flags().StringVarP(to, "name", "h", "", "the name")
}

// parseDNS reads [IP...] [CONTAINER].
func parseDNS(cmd *cobra.Command, args []string, name string) (req api.DNSRequest, err error) {
	req.Name = name
	last := len(args) - 1
	for i, text := range args {
		addr, err := netip.ParseAddr(text)
		if err == nil {
			req.Addrs = append(req.Addrs, addr)
			continue
		}
		if i < last {
			return req, usage(cmd, "%q: want an IP address", text)
		}
		if req.Container, err = api.ParseContainer(text); err != nil {
			return req, usage(cmd, "%w", err)
		}
	}
	return req, nil
}

func (a *app) dnsLookupCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dns-lookup NAME",
		Short: "Print the addresses of a name in the DNS domain",
		Long: `Print the addresses of a name in the DNS domain, one a line. The exit status is 6 if
there is no such name.`,
		Example: `  weave dns-lookup web
  weave dns-lookup web.weave.local`,
		Args: argCount(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				got, err := c.Lookup(ctx, api.LookupRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return show(a, asJSON, got, api.WriteAddrs)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) dnsArgsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dns-args",
		Short: "Print the arguments that give docker run our name server",
		Long: `Print the arguments that give docker run our name server, without an end of line.
Prints nothing when names are not served (--no-dns).`,
		Example: `  docker run $(weave dns-args) -ti alpine`,
		Args:    argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				s, err := c.Status(ctx)
				if err != nil || s.DNS == nil {
					return err
				}
				if len(s.DNS.Listening) == 0 {
					return api.Errorf(api.CodeConflict, "the name server has no address to listen on: use weave expose, or launch with --dns-listen-address")
				}
				_, err = fmt.Fprintf(a.stdout, "--dns=%s --dns-search=%s", s.DNS.Listening[0].Addr(), s.DNS.Domain)
				return err
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
