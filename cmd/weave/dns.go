package main

import (
	"context"
	"fmt"
	"io"
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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dns-args",
		Short: "Print the arguments that give docker run our name server",
		Long: `Print the arguments that give docker run our name server, without an end of line.
Prints nothing when names are not served (--no-dns). With --json it prints the
addresses of the name server and the domain to search.`,
		Example: `  docker run $(weave dns-args) -ti alpine`,
		Args:    argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				args, err := dnsArgsOf(s.DNS)
				if err != nil {
					return err
				}
				return show(a, asJSON, args, writeDNSArgs)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// dnsArgs is what a container's resolver has to be told.
type dnsArgs struct {
	Schema  string       `json:"schema"`
	Servers []netip.Addr `json:"servers"`          // on port 53, the only one that resolvers know; empty with --no-dns
	Search  string       `json:"search,omitempty"` // the DNS domain with its final dot
}

// dnsArgsOf finds the addresses that a container may ask. d is nil with --no-dns.
func dnsArgsOf(d *api.DNS) (dnsArgs, error) {
	args := dnsArgs{Schema: api.Schema, Servers: []netip.Addr{}}
	if d == nil {
		return args, nil
	}
	if len(d.Listening) == 0 {
		return args, api.Errorf(api.CodeConflict, "the name server has no address to listen on: use weave expose, or launch with --dns-listen-address")
	}
	for _, l := range d.Listening {
		if l.Port() == dnsPort && !l.Addr().IsLoopback() {
			args.Servers = append(args.Servers, l.Addr())
		}
	}
	if len(args.Servers) == 0 {
		return args, api.Errorf(api.CodeConflict, "containers cannot ask the name server at %v: choose port %d of another --dns-listen-address", d.Listening[0], dnsPort)
	}
	args.Search = d.Domain
	return args, nil
}

// writeDNSArgs gives docker one server: what one of ours does not know, none does.
func writeDNSArgs(w io.Writer, args dnsArgs) (err error) {
	if len(args.Servers) > 0 {
		_, err = fmt.Fprintf(w, "--dns=%s --dns-search=%s", args.Servers[0], args.Search)
	}
	return err
}
