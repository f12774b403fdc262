package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weave/internal/api"
)

// containerHelp explains CONTAINER, and addrHelp ADDR.
const (
	containerHelp = `CONTAINER is netns:NAME, netns:/PATH or pid:N.`
	addrHelp      = `ADDR is an address with the length of its subnet, such as 10.55.0.1/24 or
fd00:55::1/64; or net:CIDR, for a free address in that subnet; or net:default, for
one in the default subnet. Containers of different subnets do not see each other.`
)

// waitHelp is the usage of --wait.
const waitHelp = "wait however long an address takes, instead of some seconds"

func (a *app) attachCommand() *cobra.Command {
	var req api.AttachRequest
	cmd := &cobra.Command{
		Use:   "attach [ADDR...] CONTAINER",
		Short: "Put a container on the network",
		Long: `Put a container on the network: make the interface ethwe in it, give it addresses,
and print them. Without ADDR it gets one in the default subnet. Doing it twice is
harmless. With --name the addresses get a DNS name, which is gone when the container
is.

` + containerHelp + `
` + addrHelp,
		Example: `  weave attach netns:blue
  weave attach --name web netns:blue
  weave attach net:10.2.0.0/16 net:default pid:4711
  weave attach ip:10.55.0.2/24 fd00:55::2/64 pid:4711
  weave attach 10.55.0.3/24 netns:/proc/4711/ns/net`,
		Args: argCount(1, -1, "[ADDR...] CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Addrs, req.Container, err = parseAttach(cmd, args); err != nil {
				return err
			}
			return a.askLong(cmd, req.Wait, func(ctx context.Context, c *api.Client) error {
				got, err := c.Attach(ctx, req)
				return a.printAddrs(got, err)
			})
		},
		ValidArgsFunction: completeAttach,
	}
	addNames(cmd, &req.Names)
	f := cmd.Flags()
	f.BoolVar(&req.NoMulticastRoute, "no-multicast-route", false, "leave the container's route for multicast as it is")
	f.BoolVar(&req.Wait, "wait", false, waitHelp)
	return cmd
}

// addNames gives a verb -h for a name, as in "-h FQDN". Help is then --help only.
func addNames(cmd *cobra.Command, to *[]string) {
	cmd.Flags().Bool("help", false, "help for "+cmd.Name())
	cmd.Flags().StringArrayVarP(to, "name", "h", nil, "DNS name of the addresses; may be repeated")
}

// parseAttach reads [ADDR...] CONTAINER.
func parseAttach(cmd *cobra.Command, args []string) ([]api.Addr, api.Container, error) {
	last := len(args) - 1
	addrs, err := parseAddrs(cmd, args[:last])
	if err != nil {
		return nil, api.Container{}, err
	}
	container, err := api.ParseContainer(args[last])
	if err != nil {
		return nil, api.Container{}, usage(cmd, "%w", err)
	}
	return addrs, container, nil
}

// parseAddrs reads ADDR...
func parseAddrs(cmd *cobra.Command, args []string) (addrs []api.Addr, err error) {
	for _, text := range args {
		addr, err := api.ParseAddr(text)
		if err != nil {
			return nil, usage(cmd, "%w", err)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// askLong is ask, without a limit if wait is set and no --timeout was given.
func (a *app) askLong(cmd *cobra.Command, wait bool, fn func(context.Context, *api.Client) error) error {
	if !wait || cmd.Flags().Changed("timeout") {
		return a.ask(cmd.Context(), fn)
	}
	c := api.NewClient(a.flags.runDir)
	defer c.Close()
	return fn(cmd.Context(), c)
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

// completeAttach offers what can follow an ADDR or nothing.
func completeAttach(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	names, directive := completeContainers(cmd, args, typed)
	return append(names, api.DefaultNet.String()), directive
}

// completeAddrs offers the one ADDR that is a word.
func completeAddrs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{api.DefaultNet.String()}, cobra.ShellCompDirectiveNoFileComp
}

// completeContainers lists the named network namespaces.
func completeContainers(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	entries, _ := os.ReadDir("/run/netns") // none: nothing to offer
	for _, e := range entries {
		names = append(names, api.KindNetns+":"+e.Name())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
