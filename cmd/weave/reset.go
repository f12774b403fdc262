package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/store"
)

func (a *app) resetCommand() *cobra.Command {
	var force bool
	var bridge string
	cmd := &cobra.Command{
		Use:   "reset [--force]",
		Short: "Stop the daemon, undo all it did to this host, and forget everything",
		Long: `Stop the daemon, undo all it did to this host (bridge, links, addresses, rules), and
forget everything: name, keys, targets, addresses. Use it before a host leaves the
network for good: another host is given its part of the address range, and a warning
says so if none confirmed to have it. It works without a daemon too, but then nobody
is given anything; weave rmpeer on another host makes up for that.

With --force nobody is waited for, and a daemon that does not answer is killed.`,
		Example: `  weave reset
  weave reset --force`,
		Args: argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !isDevice(bridge) {
				return usage(cmd, "--bridge %q: want a device name", bridge)
			}
			return a.reset(cmd.Context(), CleanConfig{Bridge: bridge}, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "kill a daemon that does not answer")
	cmd.Flags().StringVar(&bridge, "bridge", defaultBridge, "name of the bridge device, if no daemon runs")
	return cmd
}

func (a *app) reset(ctx context.Context, clean CleanConfig, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	if err := a.resetDaemon(ctx, force); err != nil {
		return err
	}
	// From here on no daemon runs, and none can start before we are done.
	if err := prepareRunDir(a.flags.runDir); err != nil {
		return err
	}
	lock, err := lockPID(a.flags.runDir)
	if err != nil {
		return err
	}
	defer lock.release()
	if err := a.cleanHost(ctx, clean); err != nil {
		return err
	}
	if err := store.Remove(a.flags.stateDir); err != nil {
		if errors.Is(err, store.ErrLocked) {
			return api.Errorf(api.CodeConflict, "%w", err)
		}
		return err
	}
	return cleanRunDir(a.flags.runDir)
}

// resetDaemon has a running daemon reset itself and waits until it is gone. With
// force it makes sure of that.
func (a *app) resetDaemon(ctx context.Context, force bool) error {
	if _, alive := daemonAlive(a.flags.runDir); !alive {
		return nil
	}
	d := findDaemon(a.flags.runDir)
	defer d.close()
	// Half of the time is for asking, the rest for making sure.
	asking, cancel := context.WithTimeout(ctx, a.flags.timeout/2)
	defer cancel()
	c := api.NewClient(a.flags.runDir)
	defer c.Close()
	given, err := c.Reset(asking, api.ResetRequest{Force: force})
	if err != nil && force {
		return a.kill(ctx, d)
	}
	if err != nil {
		if err := a.terminate(err); err != nil {
			return api.Errorf(api.CodeOf(err), "%w (weave reset --force goes on without it)", err)
		}
	}
	a.warn(given)
	if force {
		err = waitGone(asking, a.flags.runDir)
		if err != nil && ctx.Err() == nil {
			return a.kill(ctx, d)
		}
		return err
	}
	return a.awaitEnd(ctx, d)
}

// warn tells of addresses that nobody has now.
func (a *app) warn(g api.Given) {
	if g.Warning != "" {
		fmt.Fprintf(a.stderr, "weave: warning: %s\n", g.Warning)
	}
}

// kill ends the daemon: SIGTERM, and SIGKILL a second later.
func (a *app) kill(ctx context.Context, d daemonProcess) error {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		d.signal(sig)
		grace, cancel := context.WithTimeout(ctx, time.Second)
		err := waitGone(grace, a.flags.runDir)
		cancel()
		if err == nil {
			break
		}
	}
	return a.awaitEnd(ctx, d)
}
