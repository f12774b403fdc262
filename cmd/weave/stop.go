package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weave/internal/api"
)

func (a *app) stopCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon",
		Long: `Stop the daemon and wait until it is gone. Containers stay attached and can still
talk to each other on this host; weave launch takes up where it was.`,
		Example: `  weave stop
  weave stop --timeout 1m`,
		Args: argCount(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.stop(cmd.Context()) },
	}
}

func (a *app) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	d := findDaemon(a.flags.runDir)
	defer d.close()
	c := api.NewClient(a.flags.runDir)
	defer c.Close()
	if err := c.Stop(ctx); err != nil {
		if err := a.terminate(err); err != nil {
			return err
		}
	}
	return a.awaitEnd(ctx, d)
}

// terminate sends the signal to a daemon that lives but has no socket: one that
// is just starting, or whose socket somebody deleted. Otherwise it returns err.
func (a *app) terminate(err error) error {
	pid, alive := daemonAlive(a.flags.runDir)
	if api.CodeOf(err) != api.CodeNotRunning || !alive || pid <= 1 {
		return err
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// awaitEnd waits until the daemon has let go of its directory and its process has
// ended.
func (a *app) awaitEnd(ctx context.Context, d daemonProcess) error {
	err := waitGone(ctx, a.flags.runDir)
	if err == nil {
		err = d.wait(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return api.Errorf(api.CodeTimeout, "the daemon (pid %d) was not gone after %s: try a longer --timeout, or kill it", d.pid, a.flags.timeout)
	}
	return err
}
