package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

// containerHelp explains the last argument of attach and detach.
const containerHelp = `CONTAINER is netns:NAME, netns:/PATH or pid:N. ADDR is an address with the length
of its subnet, such as 10.55.0.1/24 or fd00:55::1/64.`

func (a *app) attachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "attach ADDR... CONTAINER",
		Short: "Put a container on the network",
		Long: `Put a container on the network: make the interface ethwe in it, give it the
addresses, and print them. Doing it twice is harmless.

` + containerHelp,
		Example: `  weave attach 10.55.0.1/24 netns:blue
  weave attach ip:10.55.0.2/24 fd00:55::2/64 pid:4711
  weave attach 10.55.0.3/24 netns:/proc/4711/ns/net`,
		Args: argCount(1, -1, "ADDR... CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			addrs, container, err := parseAttach(cmd, args)
			if err != nil {
				return err
			}
			if len(addrs) == 0 {
				return usage(cmd, "no address: %w", api.ErrNeedsIPAM)
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *api.Client) error {
				got, err := c.Attach(ctx, api.AttachRequest{Container: container, Addrs: addrs})
				return a.printAddrs(got, err)
			})
		},
		ValidArgsFunction: completeContainers,
	}
}

// parseAttach reads [ADDR...] CONTAINER.
func parseAttach(cmd *cobra.Command, args []string) ([]netip.Prefix, api.Container, error) {
	last := len(args) - 1
	var addrs []netip.Prefix
	for _, text := range args[:last] {
		addr, err := api.ParseAddr(text)
		if err != nil {
			return nil, api.Container{}, usage(cmd, "%w", err)
		}
		addrs = append(addrs, addr)
	}
	container, err := api.ParseContainer(args[last])
	if err != nil {
		return nil, api.Container{}, usage(cmd, "%w", err)
	}
	return addrs, container, nil
}

// printAddrs prints addresses without their length, on one line.
func (a *app) printAddrs(got api.Addresses, err error) error {
	if err != nil {
		return err
	}
	var words []string
	for _, p := range got.Addrs {
		words = append(words, p.Addr().String())
	}
	if len(words) > 0 {
		_, err = fmt.Fprintln(a.stdout, strings.Join(words, " "))
	}
	return err
}

// completeContainers lists the named network namespaces.
func completeContainers(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	entries, _ := os.ReadDir("/run/netns") // none: nothing to offer
	for _, e := range entries {
		names = append(names, string(api.KindNetns)+":"+e.Name())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
